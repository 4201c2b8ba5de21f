"""The list of faults is kept: each has a test, and each test it names exists."""

from __future__ import annotations

import re
from pathlib import Path

from django.conf import settings

ROOT = Path(settings.BASE_DIR)
OF_THIS_ROOM = [*range(1, 24), *range(28, 33)]


def named() -> dict[str, list[str]]:
    """The tests of each fault, as `file.py::name`."""
    rows = re.findall(r"^\| (R\d+) \|.*\| (.+) \|$", (ROOT / "docs/faults.md").read_text(), re.MULTILINE)
    return {fault: re.findall(r"`(test_\w+\.py::test_\w+)`", tests) for fault, tests in rows}


def test_every_fault_of_this_room_has_a_test() -> None:
    assert list(named()) == [f"R{n}" for n in OF_THIS_ROOM]
    assert [fault for fault, tests in named().items() if not tests] == []


def test_every_test_in_the_list_exists() -> None:
    defined = {
        f"{path.name}::{name}"
        for path in (ROOT / "tests").rglob("test_*.py")
        for name in re.findall(r"^(?:async )?def (test_\w+)", path.read_text(), re.MULTILINE)
    }
    assert sorted({test for tests in named().values() for test in tests} - defined) == []

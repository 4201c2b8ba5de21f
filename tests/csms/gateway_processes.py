"""Real gateway processes on the test's own database and Redis: to be killed, paused and restarted."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import psutil
from django.conf import settings
from django.db import connection

from tests.scenarios.installation import ROOT, free_port


def database_url() -> str:
    """Of the test's own database, as another process must be told it."""
    here = connection.settings_dict
    if connection.vendor == "sqlite":
        return f"sqlite:///{here['NAME']}"
    base, _, query = os.environ["DATABASE_URL"].partition("?")
    return f"{base.rpartition('/')[0]}/{here['NAME']}" + (f"?{query}" if query else "")


class Node:
    """One gateway process."""

    def __init__(self, port: int, *, shared: bool = False, **env: str) -> None:
        self.port = port
        self._env = {
            **os.environ,
            "DATABASE_URL": database_url(),
            "REDIS_URL": settings.REDIS_URL,
            "DATA_DIR": str(settings.DATA_DIR),
            "SECRET_KEY": settings.SECRET_KEY,
            "OCPP_PORT": str(port),
            "GATEWAYS": "2" if shared else "1",
            "LOG_LEVEL": "WARNING",
            **env,
        }
        self.start()

    def stations(self) -> int:
        """How many sockets of stations it holds."""
        sockets = psutil.Process(self.process.pid).net_connections("tcp")
        return sum(s.status == psutil.CONN_ESTABLISHED and s.laddr.port == self.port for s in sockets)

    def start(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "manage.py", "gateway", "--port", str(self.port)],
            cwd=ROOT,
            env=self._env,
            text=True,
            stdout=subprocess.PIPE,
        )

    def wait_ready(self, within_s: float = 60.0) -> Node:
        assert self.process.stdout is not None
        deadline = time.monotonic() + within_s
        while time.monotonic() < deadline:
            if select.select([self.process.stdout], [], [], 0.2)[0]:
                line = self.process.stdout.readline()
                if "Stations connect" in line:
                    return self
                assert line, "the gateway ended before it was ready"
        raise AssertionError("the gateway did not start")

    def send(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def stopped(self, within_s: float = 30.0) -> int:
        return self.process.wait(within_s)


@contextmanager
def nodes(*ports: int, shared: bool = False, **env: str) -> Iterator[list[Node]]:
    """One process for each port, started side by side. Without ports: two that share one."""
    chosen = ports or (free_port(),) * 2
    started = [Node(port, shared=shared or not ports, **env) for port in chosen]
    try:
        yield [node.wait_ready() for node in started]
    finally:
        for node in started:
            if node.process.poll() is None:
                node.process.send_signal(signal.SIGCONT)
                node.process.kill()
            node.process.wait()
            if node.process.stdout is not None:
                node.process.stdout.close()

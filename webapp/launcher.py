"""The supervisor behind `manage.py up`: every process of the product on one machine, started, watched, stopped.

Services start in stages; within a stage they start together, and the next stage waits until each is ready. A service
that ends is started again after a pause that doubles from 0.5 s to 30 s and is forgotten after a healthy minute.
Ctrl-C stops them in reverse order, each with a grace. When the supervisor itself is killed, `webapp/watchdog.py` stops
what it left. Production runs the same commands under systemd or in containers instead (`docs/architecture.md`).
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

BACKOFF_FIRST_S, BACKOFF_MOST_S, HEALTHY_S = 0.5, 30.0, 60.0
POLL_S = 0.1
COLOURS = (36, 32, 33, 35, 34, 96, 92, 93, 95, 94)


class ServiceFailed(Exception):
    """A service did not become ready; the message says which, and shows its last words."""


@dataclass(frozen=True)
class Service:
    """One process. `ready` is asked until it says yes; or `ready_line` is waited for in the output."""

    name: str
    argv: Sequence[str]
    ready: Callable[[], bool] | None = None
    ready_line: str = ""
    ready_within_s: float = 60.0
    stop_grace_s: float = 8.0
    env: Mapping[str, str] = field(default_factory=dict)


class Running:
    """A service with its present process, its output and its restarts."""

    def __init__(self, service: Service, colour: int, width: int, out: IO[str], lock: threading.Lock) -> None:
        self.service = service
        self.process: subprocess.Popen[str] | None = None
        self.last_lines: deque[str] = deque(maxlen=15)
        self.line_seen = threading.Event()
        self.started_at = 0.0
        self.restart_at: float | None = None
        self.backoff_s = BACKOFF_FIRST_S
        self._out, self._lock = out, lock
        label = f"{service.name:<{width}} │ "
        self._prefix = f"\x1b[{colour}m{label}\x1b[0m" if out.isatty() else label

    def start(self) -> int:
        """Start the process in a group of its own; its pid."""
        self.line_seen.clear()
        self.started_at = time.monotonic()
        self.restart_at = None
        self.process = subprocess.Popen(
            list(self.service.argv),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
            env={**os.environ, "PYTHONUNBUFFERED": "1", **self.service.env},
        )
        threading.Thread(target=self._relay, args=(self.process,), daemon=True).start()
        return self.process.pid

    def _relay(self, process: subprocess.Popen[str]) -> None:
        if process.stdout is None:
            return
        for line in process.stdout:
            text = line.rstrip("\n")
            self.last_lines.append(text)
            if self.service.ready_line and self.service.ready_line in text:
                self.line_seen.set()
            self.say(text)

    def say(self, text: str) -> None:
        with self._lock:
            try:
                self._out.write(f"{self._prefix}{text}\n")
                self._out.flush()
            except (BrokenPipeError, ValueError):
                return  # nobody reads any more; the services matter more than their log

    def is_ready(self) -> bool:
        if self.service.ready is not None:
            return self.service.ready()
        return self.line_seen.is_set() if self.service.ready_line else True

    def ended(self) -> int | None:
        return None if self.process is None else self.process.poll()

    def stop(self) -> None:
        """SIGTERM, the grace, then SIGKILL for the whole group."""
        if self.process is None:
            return
        self._signal(signal.SIGTERM)
        try:
            self.process.wait(self.service.stop_grace_s)
        except subprocess.TimeoutExpired:
            self.say(f"did not stop within {self.service.stop_grace_s:.0f} s: killed")
        self._signal(signal.SIGKILL)
        self.process.wait()

    def _signal(self, number: int) -> None:
        if self.process is None:
            return
        try:
            os.killpg(self.process.pid, number)
        except (ProcessLookupError, PermissionError):
            return


class Supervisor:
    """Starts stages of services, keeps them alive, stops them in reverse order."""

    def __init__(self, stages: Sequence[Sequence[Service]], out: IO[str] = sys.stdout) -> None:
        self._stages = stages
        names = [service.name for stage in stages for service in stage]
        width = max(map(len, names), default=0)
        lock = threading.Lock()
        self._running = {
            service.name: Running(service, COLOURS[names.index(service.name) % len(COLOURS)], width, out, lock)
            for stage in stages
            for service in stage
        }
        self._order: list[Running] = []
        self._stopping = threading.Event()
        self._watchdog = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("watchdog.py"))],
            stdin=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def _tell_watchdog(self, word: str) -> None:
        if self._watchdog.stdin is not None:
            try:
                self._watchdog.stdin.write(word + "\n")
                self._watchdog.stdin.flush()
            except BrokenPipeError:
                return

    def request_stop(self) -> None:
        self._stopping.set()

    @property
    def stopping(self) -> bool:
        return self._stopping.is_set()

    def start(self, only: int | None = None) -> None:
        """Start all stages, or only the stage with this index. Raises `ServiceFailed`."""
        stages = self._stages if only is None else [self._stages[only]]
        for stage in stages:
            members = [self._running[service.name] for service in stage]
            for running in members:
                if self.stopping:
                    return
                self._tell_watchdog(f"+{running.start()}")
                self._order.append(running)
            for running in members:
                self._wait_ready(running)

    def _wait_ready(self, running: Running) -> None:
        deadline = running.started_at + running.service.ready_within_s
        while not self.stopping:
            code = running.ended()
            if code is not None:
                raise ServiceFailed(_last_words(running, f"ended with code {code} before it was ready"))
            if running.is_ready():
                return
            if time.monotonic() > deadline:
                raise ServiceFailed(
                    _last_words(running, f"was not ready within {running.service.ready_within_s:.0f} s")
                )
            time.sleep(POLL_S)

    def run(self) -> None:
        """Keep everything alive until `request_stop`."""
        while not self.stopping:
            now = time.monotonic()
            for running in self._order:
                self._look_after(running, now)
            self._stopping.wait(POLL_S)

    def _look_after(self, running: Running, now: float) -> None:
        if running.restart_at is not None:
            if now >= running.restart_at:
                self._tell_watchdog(f"+{running.start()}")
            return
        code = running.ended()
        if code is None:
            return
        if running.process is not None:
            self._tell_watchdog(f"-{running.process.pid}")
        if now - running.started_at > HEALTHY_S:
            running.backoff_s = BACKOFF_FIRST_S
        running.say(f"ended with code {code}; starts again in {running.backoff_s:g} s")
        running.restart_at = now + running.backoff_s
        running.backoff_s = min(running.backoff_s * 2, BACKOFF_MOST_S)

    def stop(self) -> None:
        """Stop everything, the last started first, and dismiss the watchdog."""
        self._stopping.set()
        for running in reversed(self._order):
            running.stop()
            if running.process is not None:
                self._tell_watchdog(f"-{running.process.pid}")
        if self._watchdog.stdin is not None:
            self._watchdog.stdin.close()
        self._watchdog.wait()


def _last_words(running: Running, what: str) -> str:
    words = "\n".join(f"    {line}" for line in running.last_lines)
    return f"{running.service.name} {what}." + (f" Its last words:\n{words}" if words else "")

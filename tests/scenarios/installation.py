"""A real installation in a folder of its own: every process of `manage.py up --no-demo`, on free ports.

Scenarios speak to it as outsiders do: stations over websockets, devices over Modbus, people over HTTP.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections import deque
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).resolve().parents[2]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Installation:
    """Starts on entry, stops on exit. `log` holds the newest lines, for when something goes wrong."""

    def __init__(self, folder: Path, **env: str) -> None:
        self.folder = folder
        self.web_port, self.ocpp_port = free_port(), free_port()
        self.env = {
            **{k: v for k, v in os.environ.items() if k not in {"REDIS_URL", "PYTEST_CURRENT_TEST"}},
            "DATA_DIR": str(folder),
            "WEB_PORT": str(self.web_port),
            "OCPP_PORT": str(self.ocpp_port),
            "OPERATOR_USERNAME": "olivia",
            "OPERATOR_PASSWORD": "a-long-enough-one",
            "FETCH_OUTSIDE": "no",
            **env,
        }
        self._postgres = self._fresh_postgres_database()
        self.log: deque[str] = deque(maxlen=400)
        self.process: subprocess.Popen[str] | None = None
        self._token = ""

    def _fresh_postgres_database(self) -> str | None:
        """On the PostgreSQL run, a database of this installation's own."""
        url = os.environ.get("DATABASE_URL", "")
        if not url.startswith("postgres"):
            return None
        import psycopg

        name = f"scenario_{os.getpid()}_{self.ocpp_port}"
        with psycopg.connect(url, autocommit=True) as server:
            server.execute(f"CREATE DATABASE {name}")
        base, _, query = url.partition("?")
        self.env["DATABASE_URL"] = f"{base.rpartition('/')[0]}/{name}" + (f"?{query}" if query else "")
        return name

    def manage(self, *words: str) -> str:
        """Run a management command; its output. Fails with what it said."""
        done = subprocess.run(
            [sys.executable, "manage.py", *words], cwd=ROOT, env=self.env, text=True, capture_output=True, check=False
        )
        if done.returncode:
            raise AssertionError(f"manage.py {' '.join(words)} failed:\n{done.stdout}{done.stderr}")
        return done.stdout

    def __enter__(self) -> Installation:
        self.process = subprocess.Popen(
            [sys.executable, "manage.py", "up", "--no-demo"],
            cwd=ROOT,
            env=self.env,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        up = threading.Event()
        threading.Thread(target=self._read, args=(self.process, up), daemon=True).start()
        if not up.wait(120):
            self.__exit__()
            raise AssertionError("the installation did not start:\n" + self.last_words())
        return self

    def _read(self, process: subprocess.Popen[str], up: threading.Event) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            if " │ " not in line or any(
                word in line for word in ("ERROR", "WARN", "INFO", "Traceback", '  File "', "Error")
            ):
                self.log.append(line.rstrip())
            if "Laadplein runs" in line:
                up.set()

    def last_words(self) -> str:
        return "\n".join(self.log)

    def __exit__(self, *exc: object) -> None:
        if self.process is None:
            return
        self.process.send_signal(signal.SIGINT)
        try:
            self.process.wait(40)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def pid_of(self, *words: str) -> int:
        """The process id of a child whose command line holds these words."""
        assert self.process is not None
        for child in psutil.Process(self.process.pid).children(recursive=True):
            try:
                if all(word in child.cmdline() for word in words):
                    return child.pid
            except psutil.Error:
                continue
        raise AssertionError(f"no process with {words}")

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.web_port}/api/v1/{path}"

    def request(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        """Ask the REST API as the operator; status and decoded answer."""
        if not self._token:
            self._token = self.manage("create_token", "olivia").split()[-1]
        request = urllib.request.Request(
            self.url(path),
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Authorization": f"Token {self._token}", "Content-Type": "application/json"},
        )
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return answer.status, json.loads(answer.read() or b"null")
        except urllib.error.HTTPError as error:
            return error.code, json.loads(error.read() or b"null")

    def get(self, path: str) -> Any:
        status, body = self.request("GET", path)
        assert status == 200, f"GET {path}: {status} {body}"
        return body

    def post(self, path: str, body: Any) -> Any:
        status, answer = self.request("POST", path, body)
        assert status in {200, 201}, f"POST {path}: {status} {answer}"
        return answer

    def station_url(self) -> str:
        return f"ws://127.0.0.1:{self.ocpp_port}/ocpp/"


def until(condition: Any, within_s: float, what: str) -> Any:
    """Wait until `condition()` is true and return it; fail with `what` after `within_s`."""
    deadline = time.monotonic() + within_s
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < deadline, f"not within {within_s:.0f} s: {what}"
        time.sleep(0.1)

"""The supervisor: starts in order, restarts what ends, stops everything, and leaves nothing behind."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest
from django.conf import settings

from webapp import preflight
from webapp.launcher import Service, ServiceFailed, Supervisor

PYTHON = sys.executable


def until(condition, within_s=15.0):
    """Wait for something to become true; a slow machine only makes it later."""
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.05)
    return False


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    with contextlib.suppress(OSError):  # a zombie nobody has reaped is not alive
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return True


def script(code: str) -> list[str]:
    return [PYTHON, "-u", "-c", textwrap.dedent(code)]


SLEEPER = script("import time; print('ready.', flush=True); time.sleep(600)")


def test_a_service_that_ends_is_started_again(tmp_path):
    marks = tmp_path / "starts"
    code = f"""
        import time
        with open({str(marks)!r}, "a") as file: file.write("x")
        print("ready.", flush=True)
        time.sleep(0.2)
    """
    out = io.StringIO()
    supervisor = Supervisor([[Service("brief", script(code), ready_line="ready.")]], out)
    supervisor.start()
    keeper = threading.Thread(target=supervisor.run)
    keeper.start()

    assert until(lambda: marks.exists() and len(marks.read_text()) >= 3)

    supervisor.request_stop()
    keeper.join()
    supervisor.stop()
    assert "starts again in 0.5 s" in out.getvalue()
    assert "starts again in 1 s" in out.getvalue()


def test_a_service_that_never_gets_ready_is_named_with_its_last_words():
    code = "print('my port is taken'); raise SystemExit(3)"
    supervisor = Supervisor([[Service("gateway", script(code), ready_line="never")]], io.StringIO())

    with pytest.raises(ServiceFailed, match=r"gateway ended with code 3(.|\n)*my port is taken"):
        supervisor.start()

    supervisor.stop()


def test_stages_start_in_order_and_stop_in_reverse(tmp_path):
    log = tmp_path / "log"

    def speaking(name):
        code = f"""
            import signal, sys, time
            def say(word):
                with open({str(log)!r}, "a") as file: file.write(word + " {name}\\n")
            def stop(*_):
                say("stop"); sys.exit(0)
            signal.signal(signal.SIGTERM, stop)
            say("start")
            print("ready.", flush=True)
            time.sleep(600)
        """
        return Service(name, script(code), ready_line="ready.")

    supervisor = Supervisor([[speaking("broker")], [speaking("web")]], io.StringIO())
    supervisor.start()
    supervisor.stop()

    assert log.read_text().splitlines() == ["start broker", "start web", "stop web", "stop broker"]


def test_a_stubborn_service_is_killed_after_its_grace():
    code = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('ready.'); time.sleep(600)"
    out = io.StringIO()
    supervisor = Supervisor([[Service("stubborn", script(code), ready_line="ready.", stop_grace_s=0.3)]], out)
    supervisor.start()

    supervisor.stop()

    assert "killed" in out.getvalue()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_nothing_is_left_when_the_supervisor_dies(tmp_path, number):
    pids = tmp_path / "pids"
    child = f"""
        import os, subprocess, sys, time
        grandchild = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        with open({str(pids)!r}, "a") as file: file.write(f"{{os.getpid()}} {{grandchild.pid}} ")
        print("ready.", flush=True)
        time.sleep(600)
    """
    (tmp_path / "child.py").write_text(textwrap.dedent(child))
    parent = f"""
        import signal, sys
        sys.path.insert(0, {str(settings.BASE_DIR)!r})
        from webapp.launcher import Service, Supervisor
        child = [sys.executable, "-u", {str(tmp_path / "child.py")!r}]
        supervisor = Supervisor([[Service("a", child, ready_line="ready."), Service("b", child, ready_line="ready.")]])
        signal.signal(signal.SIGTERM, lambda *_: supervisor.request_stop())
        supervisor.start()
        print("up", flush=True)
        supervisor.run()
        supervisor.stop()
    """
    (tmp_path / "parent.py").write_text(textwrap.dedent(parent))
    process = subprocess.Popen([PYTHON, str(tmp_path / "parent.py")], stdout=subprocess.PIPE, text=True)
    assert any("up" in line for line in process.stdout)
    family = [int(pid) for pid in pids.read_text().split()]
    assert len(family) == 4
    assert all(alive(pid) for pid in family)

    process.send_signal(number)
    process.wait(20)

    assert until(lambda: not any(alive(pid) for pid in family), within_s=20)


def test_a_port_in_use_is_said_with_a_way_out():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]

        with pytest.raises(preflight.NotReady, match=rf"Port {port} is in use.*WEB_PORT={port + 1}"):
            preflight.check_port("127.0.0.1", port, "WEB_PORT")


def test_a_data_directory_that_cannot_be_written_is_said(tmp_path):
    (tmp_path / "file").write_text("")

    with pytest.raises(preflight.NotReady, match=r"cannot be written .*DATA_DIR"):
        preflight.check_data_dir(tmp_path / "file" / "data")


def test_a_data_directory_is_held_once(tmp_path):
    held = preflight.lock(tmp_path)

    with pytest.raises(preflight.NotReady, match=rf"already runs .*process {os.getpid()}"):
        preflight.lock(tmp_path)

    held.close()
    preflight.lock(tmp_path).close()


@pytest.mark.django_db
def test_data_of_a_newer_version_is_refused():
    from django.db.migrations.recorder import MigrationRecorder

    preflight.check_database_version()
    MigrationRecorder.Migration.objects.create(app="csms", name="9999_the_future")

    with pytest.raises(preflight.NotReady, match=r"newer version .*csms\.9999_the_future"):
        preflight.check_database_version()

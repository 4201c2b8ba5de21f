"""Leaves nothing behind: kills the supervisor's children when the supervisor itself is gone.

Started by `webapp/launcher.py` with a pipe on standard input. The supervisor writes `+<pid>` when a child starts and
`-<pid>` when it has ended; every child leads its own process group. However the supervisor ends, even by SIGKILL, the
kernel closes the pipe: end of file is the sign to stop whatever is still on the list. Standard library only, so that
it costs a few megabytes and starts at once; works alike on Linux and macOS.
"""

from __future__ import annotations

import os
import signal
import sys
import time

GRACE_S = 10.0


def _send(pid: int, number: int) -> bool:
    """Signal a process group; False when it no longer exists."""
    try:
        os.killpg(pid, number)
    except (ProcessLookupError, PermissionError):
        return False
    return True


def main() -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    children: list[int] = []
    for line in sys.stdin:
        word = line.strip()
        if word[1:].isdigit():
            pid = int(word[1:])
            if word[0] == "+":
                children.append(pid)
            elif pid in children:
                children.remove(pid)
    # The newest first, as the supervisor would; the broker, first of all to start, goes last.
    for pid in reversed(children[1:]):
        _send(pid, signal.SIGTERM)
    deadline = time.monotonic() + GRACE_S
    while time.monotonic() < deadline and any(_send(pid, 0) for pid in children[1:]):
        time.sleep(0.1)
    for pid in children:
        _send(pid, signal.SIGTERM)
    time.sleep(0.5)
    for pid in children:
        _send(pid, signal.SIGKILL)


if __name__ == "__main__":
    main()

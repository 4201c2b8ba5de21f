"""`make bench`: every figure of the product beside its peer, measured alternately in the same minutes.

    python -m bench [messages] [plan] [live] [latency]     all of these without a word
    python -m bench replay                                 the closed loop, a few minutes

Machines are shared and noisy: read the ratios, not the seconds.
"""

from __future__ import annotations

import importlib
import os
import platform
import sys
import time

from bench import ONE_THREAD

SECTIONS = ("messages", "plan", "live", "latency")
ASKED_FOR = ("replay",)  # takes minutes: only by its name


def main() -> None:
    asked = [word for word in sys.argv[1:] if not word.startswith("-")] or list(SECTIONS)
    unknown = [word for word in asked if word not in (*SECTIONS, *ASKED_FOR)]
    if unknown:
        sys.exit(f"unknown section {unknown[0]!r}; there are: {', '.join((*SECTIONS, *ASKED_FOR))}")
    os.environ.update(ONE_THREAD)  # before anything imports numpy
    print(f"Python {platform.python_version()}, {platform.machine()}, {time.strftime('%Y-%m-%d %H:%M')} local time")
    for name in asked:
        print(f"\n## {name}\n", flush=True)
        importlib.import_module(f"bench.{name}").run()


if __name__ == "__main__":
    main()

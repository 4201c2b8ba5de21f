"""A gateway whose storage is a queue that nobody empties: what accepting a message costs, without keeping it.

Nothing of it is written to the database or put into Redis. The benches beside it do both.

python -m bench.node PORT
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections import deque
from collections.abc import Callable, Hashable
from typing import Any

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "webapp.settings")
django.setup()

from csms import gateway as gateways  # noqa: E402
from csms.exchange import Exchange  # noqa: E402
from csms.ledger import Outcome  # noqa: E402
from csms.vocabulary import Verdict  # noqa: E402
from csms.writer import Frame, Writer  # noqa: E402


class Queue(Writer):
    """Takes everything the writer takes, says at once that it is done, and forgets the oldest."""

    def start(self) -> None:
        self.taken: deque[Any] = deque(maxlen=10_000)

    async def stop(self, patience_s: float = 0) -> None:
        return

    def submit(self, job: Callable[[], Any]) -> asyncio.Future[Any]:
        self.taken.append(job)
        future = asyncio.get_running_loop().create_future()
        future.set_result(Outcome(Verdict("accepted"), "bench", 1, 1, 1, True))
        return future

    def post(self, job: Callable[[], Any]) -> None:
        self.taken.append(job)

    def fold(self, verb: Any, key: Hashable, item: Any) -> None:
        self.taken.append((verb, key, item))

    def keep(self, frame: Frame) -> None:
        self.taken.append(frame)


class Untold(Exchange):
    """What is to be shown waits for ever."""

    def before_telling(self, work: Callable[[], None]) -> None:
        untold.append(work)


untold: deque[Any] = deque(maxlen=10_000)


async def main(port: int) -> None:
    gateways.Writer = Queue  # type: ignore[misc]
    gateways.Exchange = Untold  # type: ignore[misc]
    gateway = gateways.Gateway()
    await gateway.start(port)
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    await stop.wait()


if __name__ == "__main__":
    import uvloop

    uvloop.run(main(int(sys.argv[1])))

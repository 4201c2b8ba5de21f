"""`manage.py poller`: read the devices of this installation and obey set-points, until told to stop."""

from __future__ import annotations

import asyncio
import signal
from typing import Any

from django.core.management.base import BaseCommand

from meters.poller import Poller


class Command(BaseCommand):
    help = "Reads every enabled device that has a connection, and writes set-points; ends cleanly on SIGTERM."

    def handle(self, *args: Any, **options: Any) -> None:
        asyncio.run(_until_told())
        self.stdout.write("poller: stopped, devices released")


async def _until_told() -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    await Poller().run(stop)

"""`manage.py gateway`: the server that charging stations connect to."""

from __future__ import annotations

import asyncio
import gc
import signal
import sys
from argparse import ArgumentParser
from collections.abc import Coroutine
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from csms.gateway import Gateway
from csms.listeners import ListenerNotValid

THREAD_SWITCH_S = 0.0002
"""How long the writer's thread may keep the loop from its next message while both have work; else it were 5 ms."""


def run(main: Coroutine[Any, Any, None]) -> None:
    """On uvloop where there is one: half as much again for the same processor."""
    sys.setswitchinterval(THREAD_SWITCH_S)
    try:
        import uvloop
    except ImportError:
        asyncio.run(main)
    else:
        uvloop.run(main)


class Command(BaseCommand):
    help = "Serve charging stations over OCPP 1.6 and 2.0.1 (ws://HOST:OCPP_PORT/ocpp/<identity>)."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--port", type=int, default=settings.OCPP_PORT)
        parser.add_argument("--bind", default=getattr(settings, "OCPP_BIND", settings.BIND))

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            run(self._serve(options["bind"], options["port"]))
        except ListenerNotValid as error:
            raise CommandError(f"OCPP_LISTENERS: {error}") from error
        except OSError as error:
            raise CommandError(
                f"The gateway cannot listen on {options['bind']} port {options['port']}: {error.strerror or error}"
            ) from error

    async def _serve(self, host: str, port: int) -> None:
        gateway = Gateway()
        stop = asyncio.Event()
        for name in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(name, stop.set)
        await gateway.start(port, host)
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, gateway.door.certificates_changed)
        for listener, taken in zip(gateway.door.listeners, gateway.ports, strict=True):
            scheme = "wss" if listener.speaks_tls else "ws"
            url = f"{scheme}://{listener.host}:{taken}/ocpp/<identity>"
            self.stdout.write(f"Stations connect to {url} ({listener.kind})")
        self.stdout.flush()
        if gateway.door.sign_of_life is not None:
            gateway.door.sign_of_life.look_ahead()
        gc.collect()
        gc.freeze()  # what is there now stays; collecting need not look at it again
        await stop.wait()
        await gateway.stop()

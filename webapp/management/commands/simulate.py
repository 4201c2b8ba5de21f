"""`manage.py simulate`: the demo's stations, cars and Modbus devices, until told to stop."""

from __future__ import annotations

import asyncio
import logging
import signal
import ssl
from contextlib import suppress
from typing import Any

from asgiref.sync import sync_to_async
from django.conf import settings
from django.core.management.base import BaseCommand, CommandError
from django.db import DatabaseError
from django.utils import timezone

from csms.simulator.link import log as link_log
from meters.models import Device, Site
from smartcharging.sitefile import SiteFile, SiteFileError
from webapp.demo import installation, loading, past
from webapp.demo.world import World

KEEP_EVERY_S = 10
PRICES_EVERY_S = 3600
log = logging.getLogger(__name__)


class Command(BaseCommand):
    help = "Runs the simulated stations against the gateway, and the Modbus devices of the demo site."

    def handle(self, *args: Any, **options: Any) -> None:
        link_log.setLevel(logging.WARNING)  # a line for each attempt to connect is too many
        try:
            sitefile = installation.site_file(settings.DATA_DIR)
        except SiteFileError as error:
            raise CommandError(str(error)) from error
        asyncio.run(self.live(sitefile))
        self.stdout.write("simulate: stopped")

    async def live(self, sitefile: SiteFile) -> None:
        stop = asyncio.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        world = World(sitefile, gateway_url(), state=installation.state(settings.DATA_DIR), ssl=gateway_trust())
        await self._open_modbus(world, sitefile)
        tasks = [asyncio.create_task(world.run()), asyncio.create_task(self._keep(world, sitefile))]
        self.stdout.write(f"simulate: {len(world.stations)} stations and {len(world.modbus.names)} devices live")
        waiting = asyncio.create_task(stop.wait())
        await asyncio.wait({*tasks, waiting}, return_when=asyncio.FIRST_COMPLETED)
        await world.stop()
        installation.keep_state(settings.DATA_DIR, world.state())
        for task in (*tasks, waiting):
            failed = task.done() and not task.cancelled() and task.exception() is not None
            task.cancel()
            if failed:
                task.result()
            with suppress(asyncio.CancelledError):
                await task

    async def _open_modbus(self, world: World, sitefile: SiteFile) -> None:
        """Where a remembered port is taken, take others and tell the devices."""
        wanted = installation.ports(settings.DATA_DIR)
        used = await world.start_modbus(wanted)
        if used != wanted:
            installation.keep_ports(settings.DATA_DIR, used)
            await sync_to_async(tell_devices)(sitefile.site.name, used)

    async def _keep(self, world: World, sitefile: SiteFile) -> None:
        """Remember what a power cut must not take; see each hour that there are prices for tomorrow."""
        elapsed = 0
        while True:
            await asyncio.sleep(KEEP_EVERY_S)
            elapsed += KEEP_EVERY_S
            installation.keep_state(settings.DATA_DIR, world.state())
            if elapsed % PRICES_EVERY_S == 0:
                await sync_to_async(fill_prices)(sitefile)


def gateway_url() -> str:
    """Where the stations of this machine find the gateway of this installation."""
    everywhere = {"0.0.0.0", "::", ""}  # noqa: S104 - compared only
    host = "127.0.0.1" if settings.BIND in everywhere else settings.BIND
    scheme = "wss" if settings.OCPP_TLS_CERT else "ws"
    return f"{scheme}://{host}:{settings.OCPP_PORT}/ocpp"


def gateway_trust() -> ssl.SSLContext | None:
    """Over TLS the stations trust the gateway's own certificate; its name need not be this host's."""
    if not settings.OCPP_TLS_CERT:
        return None
    context = ssl.create_default_context(cafile=settings.OCPP_TLS_CERT)
    context.check_hostname = False
    return context


def tell_devices(site_name: str, used: dict[str, int]) -> None:
    for device in Device.objects.filter(site__name=site_name, site__demo=True, name__in=used):
        device.connect = installation.connect_to(device.connect, used[device.name])
        device.save(update_fields=["connect"])


def fill_prices(sitefile: SiteFile) -> None:
    try:
        site = Site.objects.filter(name=sitefile.site.name, demo=True).first()
        if site is not None:
            past.fill_prices(site, loading.replay_of(sitefile), timezone.now())
    except DatabaseError as error:
        log.warning("no demo prices this hour: %s", error)

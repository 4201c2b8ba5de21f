"""Worlds for tests of longer work: a site with stations and tokens, and simulated stations at a real gateway."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from asgiref.sync import sync_to_async

from csms.models import EVSE, ChargingStation, IdToken
from csms.simulator import SimulatedStation
from meters.models import Site

PASSWORD = "a long password"


@dataclass(frozen=True)
class Yard:
    """A site with one or more stations, one EVSE each, and three tokens: two of group `fleet`, one alone."""

    site: Site
    stations: list[ChargingStation]
    tokens: list[IdToken]

    @property
    def station(self) -> ChargingStation:
        return self.stations[0]

    @property
    def evse(self) -> EVSE:
        return EVSE.objects.select_related("station").get(station=self.station)


def yard(count: int = 1, **station: Any) -> Yard:
    site = Site.objects.create(name="Yard", timezone="Europe/Brussels")
    stations = []
    for n in range(1, count + 1):
        row = ChargingStation(
            identity=f"SIM-{n}", site=site, admission="accepted", vendor="Simulated", model="AC", **station
        )
        row.set_password(PASSWORD)
        row.save()
        EVSE.objects.create(station=row, number=1, status="Available")
        stations.append(row)
    tokens = [
        IdToken.objects.create(site=site, value=value, group=group)
        for value, group in (("04A1", "fleet"), ("04A2", "fleet"), ("04B1", ""))
    ]
    IdToken.objects.create(site=site, value="04BAD", status="blocked")
    return Yard(site, stations, tokens)


@asynccontextmanager
async def living(gateway: Any, protocol: str, *identities: str, **nature: Any) -> AsyncIterator[list[SimulatedStation]]:
    """Simulated stations, online, that do their chores quickly."""
    url = f"ws://127.0.0.1:{gateway.port}/ocpp"
    knobs = {"meter_interval_s": 0, "tick_s": 0.05, "reboot_s": 0, "seed": 1, "password": PASSWORD, **nature}
    stations = [SimulatedStation(name, url, protocol=protocol, **knobs) for name in identities or ("SIM-1",)]  # type: ignore[arg-type]
    for station in stations:
        station.chores.step_s = 0.01
    lives = [asyncio.create_task(station.run()) for station in stations]
    try:
        for station in stations:
            await station.wait_online()
        yield stations
    finally:
        for life in lives:
            life.cancel()
        await asyncio.gather(*lives, return_exceptions=True)


async def until(question: Any, what: str = "it never came true") -> Any:
    """Ask the database until the answer is true."""
    try:
        async with asyncio.timeout(20):
            while True:
                if answer := await sync_to_async(question)():
                    return answer
                await asyncio.sleep(0.05)
    except TimeoutError:
        raise AssertionError(what) from None

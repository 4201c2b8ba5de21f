"""A gateway, a simulated station with its habits, and a car that charges: the world of the tests of obedience."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from asgiref.sync import sync_to_async

from csms import bus
from csms.bus import Want
from csms.following import Patience
from csms.gateway import Gateway
from csms.models import EVSE, ChargingStation, IdToken, Transaction, WantedLimit
from csms.obedience_models import StationModel
from csms.simulator import Car, SimulatedStation
from csms.simulator.temper import Temper
from meters.models import Site
from tests.csms.charge_point import running

QUICK = Patience(follow_s=0.3, follow_dc_s=0.3, resume_s=0.4, schedule_after_s=0.05, duration_s=0.2, tries=5)


@dataclass
class Place:
    """One station and its first EVSE."""

    gateway: Gateway
    station: SimulatedStation
    evse: EVSE

    async def want(self, amps: float, *, for_s: float = 60, **more: Any) -> None:
        now = datetime.now(UTC)
        want = Want(self.station.identity, 1, amps, None, "plan", at=now, until=now + timedelta(seconds=for_s), **more)
        await sync_to_async(bus.put_wants)([want])

    def limit(self, **fields: Any) -> WantedLimit | None:
        return WantedLimit.objects.filter(evse=self.evse, **fields).first()

    async def state(self, *names: str, **fields: Any) -> WantedLimit:
        return await until(lambda: self.limit(state__in=names, **fields))

    async def model(self) -> StationModel:
        return await StationModel.objects.aget(model=self.station.model)

    async def draws(self, *, at_most: float = 1e9, at_least: float = 0.0) -> None:
        """Wait until the car draws that much on its highest phase."""
        await until(lambda: at_least <= max(self.station.current_a(1)) <= at_most)

    def told(self) -> list[dict[str, Any]]:
        """The live profiles it was sent."""
        bodies = [p.get("csChargingProfiles") or p["chargingProfile"] for p in self.station.calls("SetChargingProfile")]
        return [b for b in bodies if b.get("stackLevel") or b["chargingProfilePurpose"] == "TxProfile"]


async def until(question: Callable[[], Any], timeout_s: float = 20) -> Any:
    async with asyncio.timeout(timeout_s):
        while True:
            if answer := await sync_to_async(question)():
                return answer
            await asyncio.sleep(0.03)


@sync_to_async
def enter(identity: str, **more: Any) -> EVSE:
    site, _ = Site.objects.get_or_create(name="Campus")
    IdToken.objects.get_or_create(site=site, value="04A1")
    station = ChargingStation.objects.create(identity=identity, site=site, admission="accepted", **more)
    return EVSE.objects.create(station=station, number=1)


@asynccontextmanager
async def standing(
    gateway: Gateway, protocol: str, temper: Temper | None = None, *, identity: str = "SIM-1", **nature: Any
) -> AsyncIterator[Place]:
    """A station of this temper, connected, free."""
    record = nature.pop("record", {})
    evse = await EVSE.objects.filter(station__identity=identity, number=1).afirst()
    evse = evse or await enter(identity, **record)
    station = SimulatedStation(
        identity,
        f"ws://127.0.0.1:{gateway.port}/ocpp",
        protocol=protocol,  # type: ignore[arg-type]
        temper=temper,
        **{"meter_interval_s": 0.1, "tick_s": 0.03, "reboot_s": 0, "seed": 1, **nature},
    )
    life = asyncio.create_task(station.run())
    try:
        await station.wait_online()
        yield Place(gateway, station, evse)
    finally:
        life.cancel()
        await asyncio.gather(life, return_exceptions=True)


@asynccontextmanager
async def charging(
    protocol: str,
    temper: Temper | None = None,
    *,
    car: Car | None = None,
    knobs: dict[str, Any] | None = None,
    **nature: Any,
) -> AsyncIterator[Place]:
    """A car that has begun to charge at a station of this temper."""
    settings = {"meter_interval_s": 0.1, "patience": QUICK, **(knobs or {})}
    async with running(**settings) as gateway, standing(gateway, protocol, temper, **nature) as place:
        place.station.plug(1, car or Car(60_000, 0.4, delay_s=0, max_a=32.0))
        await place.station.tap(1, "04A1")
        await until(lambda: Transaction.objects.filter(evse=place.evse, ended_at=None).exists())
        yield place

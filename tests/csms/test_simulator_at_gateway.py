"""Simulated stations at the real gateway: two implementations that share nothing but the standard agree."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.db import connections

from csms import bus, calls
from csms.models import EVSE, ChargingStation, IdToken, Transaction
from csms.simulator import Car, SimulatedStation
from meters import live
from meters.models import Site
from tests.csms.charge_point import running

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.parametrize("protocol", ["ocpp1.6", "ocpp2.0.1"]),
]


@pytest.fixture(autouse=True)
async def give_connections_back() -> AsyncIterator[None]:
    """The thread in which the tests ask the database keeps its connection; PostgreSQL cannot drop one in use."""
    yield
    await sync_to_async(connections.close_all)()


@sync_to_async
def a_place() -> ChargingStation:
    site = Site.objects.create(name="Campus")
    station = ChargingStation(identity="SIM-1", site=site, admission="accepted", wiring=["L2", "L3", "L1"])
    station.set_password("a long password")
    station.save()
    IdToken.objects.create(site=site, value="04A1")
    IdToken.objects.create(site=site, value="04BAD", status="blocked")
    return station


@asynccontextmanager
async def at_gateway(gateway: Any, protocol: str, **more: Any) -> AsyncIterator[SimulatedStation]:
    nature = {"meter_interval_s": 0.2, "tick_s": 0.05, "reboot_s": 0, "seed": 1, **more}
    url = f"ws://127.0.0.1:{gateway.port}/ocpp"
    station = SimulatedStation("SIM-1", url, password="a long password", protocol=protocol, **nature)
    life = asyncio.create_task(station.run())
    try:
        await station.wait_online()
        yield station
    finally:
        life.cancel()
        await asyncio.gather(life, return_exceptions=True)


async def until(question: Any) -> Any:
    async with asyncio.timeout(20):
        while True:
            if answer := await sync_to_async(question)():
                return answer
            await asyncio.sleep(0.05)


def car() -> Car:
    return Car(60_000, 0.4, delay_s=0, phases=2)


async def test_a_charge_is_kept_shown_limited_and_ended(protocol: str) -> None:
    await a_place()
    async with running(meter_interval_s=1) as gateway, at_gateway(gateway, protocol) as station:
        station.plug(1, car())
        assert await station.tap(1, "04BAD") != "Accepted"
        assert await station.tap(1, "04A1") == "Accepted"

        row = await until(lambda: Transaction.objects.filter(ended_at=None).first())
        evse = await EVSE.objects.aget(station__identity="SIM-1", number=1)
        await until(lambda: EVSE.objects.get(pk=evse.pk).iec_state == "C2")

        now = datetime.now(UTC)
        want = bus.Want("SIM-1", 1, 9.0, None, "test", now, now + timedelta(minutes=5), urgent=True)
        await sync_to_async(bus.put_wants)([want])
        await until(lambda: station.limit_a(1) == 9.0)
        assert station.current_a(1) == (9, 9, 0)

        def on_grid_phases() -> bool:
            found = live.fetch([live.evse_source(evse.pk)])
            return bool(found) and next(iter(found.values())).current_a == (0.0, 9.0, 9.0)

        await until(on_grid_phases)

        station.unplug(1)
        await until(lambda: Transaction.objects.get(pk=row.pk).ended_at)
        await until(lambda: EVSE.objects.get(pk=evse.pk).iec_state == "A1")


async def test_it_is_started_and_stopped_from_afar(protocol: str) -> None:
    await a_place()
    async with running(meter_interval_s=1) as gateway, at_gateway(gateway, protocol) as station:
        station.plug(1, car())
        evse = await until(
            lambda: EVSE.objects.filter(station__identity="SIM-1", number=1).select_related("station").first()
        )
        token = await IdToken.objects.aget(value="04A1")
        answer = await sync_to_async(calls.remote_start)(evse, token)
        assert answer["status"] == "Accepted"
        row = await until(lambda: Transaction.objects.filter(ended_at=None).select_related("station").first())

        await sync_to_async(calls.remote_stop)(row)
        await until(lambda: Transaction.objects.get(pk=row.pk).ended_at)
        assert station.status(1) == "Finishing"


async def test_a_charge_that_lost_its_line_is_the_same_charge_afterwards(protocol: str) -> None:
    await a_place()
    async with running(meter_interval_s=1) as gateway, at_gateway(gateway, protocol) as station:
        station.plug(1, car())
        await station.tap(1, "04A1")
        await until(lambda: Transaction.objects.filter(ended_at=None).exists())
        await station.drop(offline_s=0.3)
        await until(lambda: station.connections == 2 and station.online and not station.unsent)

        station.unplug(1)
        await until(lambda: Transaction.objects.filter(ended_at__isnull=False).exists())
        assert await Transaction.objects.acount() == 1

"""Charges told in odd ways over a bad line (R3, R4, R6, R7): the books agree, and no other charge is touched."""

from __future__ import annotations

import asyncio
import random
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from asgiref.sync import sync_to_async

from csms.models import EVSE, ChargingStation, MeterSample, Transaction
from meters import live
from tests.csms.charge_point import running
from tests.csms.test_bad_network import accepted, one_charge, through_a_proxy
from tests.faults.invariants import the_books_agree
from tests.faults.proxy import FaultProxy, Odds
from tests.faults.station import TOKEN, V16, V201, Charge, Stubborn, ago, iso

pytestmark = pytest.mark.django_db(transaction=True)

BOTH = pytest.mark.parametrize("version", [V16, V201])


async def test_r3_ends_of_nobody_are_accepted_and_touch_no_other_charge() -> None:
    await accepted()
    await accepted("CS-2")
    twice = Odds(duplicate=1.0)
    async with running() as gateway, FaultProxy(gateway.port, up=twice) as proxy:
        odd, good = Stubborn(proxy.port), Stubborn(gateway.port, "CS-2")
        async with odd.plugged_in(), good.plugged_in():
            mine, theirs = odd.start(), good.start()
            await asyncio.gather(odd.delivered(), good.delivered())
            for number in (-1, 0, 999_999, theirs.transaction_id):
                stop = {"transactionId": number, "meterStop": 5_000_000, "timestamp": iso(odd.now())}
                assert await odd.ask("StopTransaction", stop, patience_s=5) is not None
                assert await odd.ask("StopTransaction", stop, patience_s=5) is not None
            await the_books_agree(gateway, odd, good)
            for station, charge in ((odd, mine), (good, theirs)):
                await station.take(charge, 800)
                station.stop(charge)
                await station.delivered()
            await the_books_agree(gateway, odd, good)
            assert odd.closes == good.closes == []


async def test_r4_a_night_offline_is_replayed_end_first_over_a_line_that_breaks() -> None:
    row = await accepted()
    async with through_a_proxy(V201) as (gateway, proxy, station):
        await station.connected.wait()
        began, start_wh = ago(8 * 3600), station.registers[1]
        charge = Charge(1, start_wh, began, 1, start_wh + 5000, "night-1")
        station.book.append(charge)
        events = [told(charge, n, began + timedelta(minutes=9 * n)) for n in range(52)]
        replayed = [events.pop(), *random.Random(4).sample(events, len(events))]
        for number, event in enumerate(replayed):
            while await station.ask("TransactionEvent", event, patience_s=2) is None:
                await station.connected.wait()
            if number in (0, 20):
                proxy.cut()
                await asyncio.sleep(0.05)
        await the_books_agree(gateway, station)
        asked = {action for action, _ in station.asked}
    transaction = await Transaction.objects.aget()
    assert abs(transaction.started_at - began) < timedelta(seconds=2)
    assert transaction.ended_at is not None
    assert abs(transaction.ended_at - began - timedelta(minutes=9 * 51)) < timedelta(seconds=2)
    assert await MeterSample.objects.filter(transaction=transaction).acount() == 501
    assert "RequestStopTransaction" not in asked
    evse = await EVSE.objects.aget(station=row, number=1)
    assert evse.status == "Unknown"
    shown = await sync_to_async(live.fetch)([live.evse_source(evse.pk)])
    assert not any(shown.values())


def told(charge: Charge, number: int, at: datetime) -> dict[str, Any]:
    """Event `number` of 52, the middle fifty with ten values each."""
    kind = "Started" if number == 0 else "Ended" if number == 51 else "Updated"
    sampled = [
        {
            "timestamp": iso(at - timedelta(seconds=50 * (9 - n))),
            "sampledValue": [{"value": charge.start_wh + (number - 1) * 100 + n * 10}],
        }
        for n in range(10)
    ]
    return {
        "eventType": kind,
        "timestamp": iso(at),
        "triggerReason": {"Started": "Authorized", "Ended": "EVDeparted"}.get(kind, "MeterValuePeriodic"),
        "seqNo": number,
        "offline": True,
        "transactionInfo": {"transactionId": charge.transaction_id},
        "evse": {"id": 1, "connectorId": 1},
        **({"meterValue": sampled} if kind == "Updated" else {}),
        **({"idToken": {"idToken": TOKEN, "type": "ISO14443"}} if kind == "Started" else {}),
        **({"meterValue": [end(charge, at)]} if kind == "Ended" else {}),
    }


def end(charge: Charge, at: datetime) -> dict[str, Any]:
    return {"timestamp": iso(at), "sampledValue": [{"value": charge.end_wh, "context": "Transaction.End"}]}


def values(station: Stubborn, *sampled: dict[str, Any], charge: Charge | None = None) -> dict[str, Any]:
    body: dict[str, Any] = {
        "connectorId": 1,
        "meterValue": [{"timestamp": iso(station.now()), "sampledValue": list(sampled)}],
    }
    return body | ({"transactionId": charge.transaction_id} if charge is not None else {})


async def test_r6_meter_values_of_every_odd_kind_leave_the_energy_the_registers() -> None:
    await accepted()
    async with through_a_proxy(up=Odds(duplicate=0.5)) as (gateway, _, station):

        async def say(*sampled: dict[str, Any], charge: Charge | None = None) -> None:
            assert await station.ask("MeterValues", values(station, *sampled, charge=charge), patience_s=5) == {}

        await say({"value": "990"})  # before any charge
        charge = station.start()
        await station.delivered()
        await say({"value": "1.2", "unit": "kWh"}, charge=charge)
        await say({"value": "1250"})  # names no charge
        await say(*({"value": "430", "phase": phase} for phase in ("L1", "L2", "L3")), charge=charge)
        await say({"value": "1100"}, charge=charge)  # back, and not believed
        await say(
            *({"value": "2300", "measurand": "Power.Active.Import", "unit": "W", "phase": p} for p in ("L1", "L2-N"))
        )
        await say({"value": "n/a"}, {"value": "1e999"}, {"value": ""}, charge=charge)
        station.registers[1] = 1600
        station.stop(charge)
        await station.delivered()
        await say({"value": "1601"}, charge=charge)  # after the end
        await the_books_agree(gateway, station)
        await one_charge(station)
        await station.delivered()
        await the_books_agree(gateway, station)


CLOCKS = {
    "never set": lambda n: datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=n),
    "two hours ahead": lambda n: datetime.now(UTC) + timedelta(hours=2),
    "five minutes behind": lambda n: datetime.now(UTC) - timedelta(minutes=5),
    "jumping back": lambda n: datetime.now(UTC) - timedelta(hours=n),
}


@BOTH
@pytest.mark.parametrize("clock", CLOCKS)
async def test_r7_whatever_the_clock_says_the_energy_is_right_and_time_goes_on(version: str, clock: str) -> None:
    row = await accepted()
    began = datetime.now(UTC)
    ticks = iter(range(1000))
    async with through_a_proxy(version) as (gateway, _, station):
        station.now = lambda: CLOCKS[clock](next(ticks))
        for _ in range(2):
            await one_charge(station)
            await station.delivered()
        await the_books_agree(gateway, station)
    rows = [t async for t in Transaction.objects.filter(station=row).order_by("pk")]
    assert len(rows) == 2
    for transaction in rows:
        assert transaction.ended_at is not None and transaction.ended_at >= transaction.started_at
        if clock in ("never set", "two hours ahead"):
            assert began - timedelta(seconds=60) < transaction.started_at < began + timedelta(seconds=120)
    assert await ChargingStation.objects.filter(pk=row.pk).aexists()

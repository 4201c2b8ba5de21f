"""Charges over a bad network (R1, R2, R5, R9, R11, R12): real sockets, a proxy that spoils, a stubborn station.

Every test ends with the books: what the station charged is what the ledger has, no more, no less, to the watt-hour.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from asgiref.sync import sync_to_async

from csms import bus
from csms.gateway import Gateway
from csms.models import ChargingStation, IdToken, MeterSample, Transaction, TransactionEvent
from meters.models import Site
from tests.csms.charge_point import running, written
from tests.faults.invariants import the_books_agree
from tests.faults.proxy import FaultProxy, Odds
from tests.faults.station import TOKEN, V16, V201, Stubborn, iso

pytestmark = pytest.mark.django_db(transaction=True)

ROUGH = Odds(drop=0.08, delay=0.1, duplicate=0.1, reorder=0.1, truncate=0.04, fragment=0.1, replay=0.08, cut=0.03)
BOTH = pytest.mark.parametrize("version", [V16, V201])


@sync_to_async
def accepted(identity: str = "CS-1", **more: Any) -> ChargingStation:
    site, _ = Site.objects.get_or_create(name="Campus")
    row: ChargingStation = ChargingStation.objects.create(identity=identity, site=site, admission="accepted", **more)
    IdToken.objects.get_or_create(site=site, value=TOKEN)
    return row


@asynccontextmanager
async def through_a_proxy(
    version: str = V16, *, seed: int = 0, up: Odds | None = None, down: Odds | None = None, **knobs: Any
) -> AsyncIterator[tuple[Gateway, FaultProxy, Stubborn]]:
    """A gateway, a proxy before it, and a station that is connected through it."""
    async with (
        running(**knobs) as gateway,
        FaultProxy(gateway.port, seed=seed, up=up, down=down) as proxy,
        Stubborn(proxy.port, version=version).plugged_in() as station,
    ):
        await station.connected.wait()
        yield gateway, proxy, station


async def one_charge(station: Stubborn, evse: int = 1) -> None:
    charge = station.start(evse)
    for _ in range(4):
        await station.take(charge, 250)
        await asyncio.sleep(0.01)
    station.stop(charge)


# ---------------------------------------------------------------------- a storm of everything


@pytest.mark.parametrize("seed", [1, 2])
@BOTH
async def test_no_charge_is_lost_or_doubled_however_bad_the_network(version: str, seed: int) -> None:
    await accepted()
    await accepted("CS-2")
    async with running() as gateway, FaultProxy(gateway.port, seed=seed, up=ROUGH, down=ROUGH) as proxy:
        bad = Stubborn(proxy.port, version=version, patience_s=0.25)
        good = Stubborn(gateway.port, "CS-2", version=version)
        async with bad.plugged_in(), good.plugged_in():
            for evse in (1, 2, 1):
                await one_charge(bad, evse)
            await one_charge(good)
            await asyncio.gather(bad.delivered(60), good.delivered(10))
            proxy.calm()
            assert len(proxy.did) >= 5, "the network was not bad at all"
            await the_books_agree(gateway, bad, good)
            assert good.closes == []


@BOTH
async def test_bytes_that_change_on_the_way_end_no_process_and_no_other_conversation(version: str) -> None:
    await accepted()
    await accepted("CS-2")
    spoiled = Odds(corrupt=0.5, truncate=0.2)
    async with running() as gateway, FaultProxy(gateway.port, seed=5, up=spoiled, down=spoiled) as proxy:
        bad = Stubborn(proxy.port, version=version, patience_s=0.1, boots=False)
        good = Stubborn(gateway.port, "CS-2", version=version)
        async with bad.plugged_in(), good.plugged_in():
            await bad.connected.wait()
            for _ in range(60):
                await bad.ask("Heartbeat", {}, patience_s=0.03)
            await one_charge(good)
            await good.delivered()
            await the_books_agree(gateway, good)
            assert proxy.counts()["corrupt"] >= 10
            proxy.calm()
            await bad.connected.wait()
            assert await bad.ask("Heartbeat", {}, patience_s=5) is not None


# ---------------------------------------------------------------------- one fault at a time


async def test_r1_a_start_whose_answer_is_lost_comes_again_under_a_new_id_and_is_one_charge() -> None:
    await accepted()
    async with running() as gateway, FaultProxy(gateway.port) as proxy:
        proxy.once("down", "transactionId", "drop")
        async with Stubborn(proxy.port).plugged_in() as station:
            await one_charge(station)
            await station.delivered()
            await the_books_agree(gateway, station)
    assert proxy.counts() == {"drop": 1}
    assert await Transaction.objects.acount() == 1


@BOTH
async def test_r2_every_frame_twice_has_one_effect(version: str) -> None:
    row = await accepted()
    twice = Odds(duplicate=1.0)
    async with through_a_proxy(version, up=twice, down=twice) as (gateway, _, station):
        await one_charge(station)
        await station.delivered()
        await the_books_agree(gateway, station)
    kinds = TransactionEvent.objects.filter(station=row)
    assert await kinds.filter(kind="started").acount() == await kinds.filter(kind="ended").acount() == 1
    registers = MeterSample.objects.filter(energy_wh__gt=1000, energy_wh__lt=2000)
    assert sorted([r.energy_wh async for r in registers]) == [1250, 1500, 1750]
    assert (await ChargingStation.objects.aget(pk=row.pk)).counters["repeated_message"] > 0


async def test_r5_events_that_overtake_each_other_end_right() -> None:
    await accepted()
    async with through_a_proxy(V201) as (gateway, proxy, station):
        charge = station.start()
        await station.delivered()
        station.registers[1] += 700
        charge.end_wh = station.registers[1]
        base = {"triggerReason": "Trigger", "transactionInfo": {"transactionId": charge.transaction_id}}
        at = iso(station.now())
        value = {"value": charge.end_wh, "context": "Transaction.End"}
        ended = {**base, "eventType": "Ended", "timestamp": at, "seqNo": 3,
                 "meterValue": [{"timestamp": at, "sampledValue": [value]}]}  # fmt: skip
        late = {**base, "eventType": "Updated", "timestamp": iso(charge.began), "seqNo": 1}
        proxy.once("up", '"seqNo": 1', "reorder")
        await station.tell("TransactionEvent", late)
        await station.tell("TransactionEvent", ended)
        await asyncio.sleep(0.3)
        await the_books_agree(gateway, station)
    assert proxy.counts() == {"reorder": 1}
    assert await TransactionEvent.objects.acount() == 3


@BOTH
async def test_r9_a_connection_cut_before_the_answer_loses_nothing(version: str) -> None:
    await accepted()
    async with running() as gateway, FaultProxy(gateway.port) as proxy:
        station = Stubborn(proxy.port, version=version)
        async with station.plugged_in():
            charge = station.start()
            await station.delivered()
            await station.take(charge, 400)
            proxy.stall("down")  # it hears us, we do not hear it
            station.stop(charge)
            await asyncio.sleep(0.2)
            proxy.cut()
            proxy.flow()
            await station.delivered()
            await the_books_agree(gateway, station)
    assert len(station.closes) >= 1


async def test_r8_a_half_open_socket_gives_way_and_its_end_changes_nothing() -> None:
    await accepted()
    async with through_a_proxy() as (gateway, proxy, old):
        charge = old.start()
        await old.delivered()
        proxy.stall()
        async with Stubborn(gateway.port).plugged_in() as new:
            await new.connected.wait()
            new.book, new.registers = old.book, old.registers
            assert await new.ask("Heartbeat", {}, patience_s=5) is not None
            answer = await sync_to_async(bus.request)("CS-1", "ClearCache", {}, 5)
            assert answer == {"status": "Accepted"} and ("ClearCache", {}) in new.asked
            assert ("ClearCache", {}) not in old.asked
            proxy.away()
            await asyncio.sleep(0.2)
            held = await sync_to_async(bus.holder)("CS-1")
            assert held is not None and "CS-1" in gateway.sessions
            await new.take(charge, 500)
            new.stop(charge)
            await new.delivered()
            await the_books_agree(gateway, new)


@pytest.mark.parametrize("direction", ["up", "down"])
async def test_a_half_closed_connection_comes_back_whole(direction: Any) -> None:
    await accepted()
    async with through_a_proxy() as (gateway, proxy, station):
        charge = station.start()
        await station.delivered()
        proxy.half_close(direction)
        await station.take(charge, 300)
        station.stop(charge)
        await asyncio.sleep(0.1)
        proxy.cut()
        await station.delivered()
        await the_books_agree(gateway, station)


async def test_r11_a_station_whose_answers_are_lost_is_not_lost_itself() -> None:
    await accepted(quiet=True)
    async with through_a_proxy(call_timeout_s=0.3) as (gateway, proxy, station):
        assert await station.ask("Heartbeat", {}, patience_s=5) is not None
        for _ in range(3):
            proxy.once("up", lambda text: text.startswith("[3"), "drop")
            with pytest.raises(bus.NoAnswer):
                await sync_to_async(bus.request)("CS-1", "ClearCache", {}, 0.2)
        connection = gateway.sessions["CS-1"].connection
        assert connection._queue == [] and connection._open == {} and not connection._slot_taken
        assert await sync_to_async(bus.request)("CS-1", "ClearCache", {}, 5) == {"status": "Accepted"}
        await one_charge(station)
        await station.delivered()
        await the_books_agree(gateway, station)
        assert station.closes == []


async def test_r12_an_answer_that_comes_too_late_is_dropped_and_the_next_call_works() -> None:
    row = await accepted(quiet=True)
    late = Odds(delay=1.0, delay_s=1.2)
    async with through_a_proxy(seed=3, messages_per_s=100_000) as (gateway, proxy, station):
        assert await station.ask("Heartbeat", {}) is not None
        proxy.odds["up"] = late
        with pytest.raises(bus.NoAnswer):
            await sync_to_async(bus.request)("CS-1", "ClearCache", {}, 0.05)
        proxy.calm()
        for n in range(10_000):
            await station._say(f'[3,"nobody-{n}",{{}}]')
        assert await sync_to_async(bus.request)("CS-1", "ClearCache", {}, 10) == {"status": "Accepted"}
        gateway.sessions["CS-1"].flush_counters()
        await written(gateway)
        assert station.closes == []
    counters = (await ChargingStation.objects.aget(pk=row.pk)).counters
    assert counters["unasked_answer"] == 10_001 and counters["unanswered_call"] == 1

"""The one writer: after the commit, in order, one bad job alone, and patient with a database that is away."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from functools import partial
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.db import OperationalError, connection

from csms.announcing import announce
from csms.models import ChargingStation, OcppMessage
from csms.writer import Frame, Writer, WriterFull

pytestmark = pytest.mark.django_db(transaction=True)


@asynccontextmanager
async def writing(**more: Any) -> AsyncIterator[tuple[Writer, list[Any]]]:
    told: list[Any] = []
    writer = Writer(told.extend, **more)
    writer.start()
    try:
        yield writer, told
    finally:
        await writer.stop()


def make(identity: str) -> int:
    return ChargingStation.objects.create(identity=identity).pk


def frame(pk: int, raw: bytes = b"[2]", payload: Any = None) -> Frame:
    return Frame(pk, datetime.now(UTC), "in", "call", "m", "Heartbeat", payload, raw, "")


async def test_a_job_is_answered_after_its_commit() -> None:
    async with writing() as (writer, _):
        pk = await writer.submit(partial(make, "CS-1"))
        assert await ChargingStation.objects.filter(pk=pk).aexists()


async def test_many_jobs_are_one_transaction_and_a_bad_one_fails_alone() -> None:
    async with writing() as (writer, _):
        gate = threading.Event()
        writer.post(lambda: gate.wait(5))
        jobs = [writer.submit(partial(make, f"CS-{n % 5}")) for n in range(8)]
        gate.set()
        results = await asyncio.gather(*jobs, return_exceptions=True)
    assert [isinstance(r, Exception) for r in results] == [False] * 5 + [True] * 3
    assert await ChargingStation.objects.acount() == 5


async def test_what_is_announced_goes_out_after_the_commit_and_only_then() -> None:
    def good() -> None:
        announce("status", {"evse": 1})

    def bad() -> None:
        announce("status", {"evse": 2})
        raise ValueError("no")

    async with writing() as (writer, told):
        await asyncio.gather(writer.submit(good), writer.submit(bad), return_exceptions=True)
        await asyncio.sleep(0)
        assert told == [("status", {"evse": 1})]


async def test_shared_jobs_are_written_in_one_go_and_one_by_one_when_that_breaks() -> None:
    calls: list[list[str]] = []

    def make_all(identities: Sequence[str]) -> list[int]:
        calls.append(list(identities))
        return [make(identity) for identity in identities]

    async with writing() as (writer, _):
        gate = threading.Event()
        writer.post(lambda: gate.wait(5))
        good = [writer.together(make_all, f"CS-{n}") for n in range(3)]
        gate.set()
        assert len(set(await asyncio.gather(*good))) == 3
        assert calls == [["CS-0", "CS-1", "CS-2"]]

        gate.clear()
        writer.post(lambda: gate.wait(5))
        mixed = [writer.together(make_all, name) for name in ("CS-3", "CS-0", "CS-4")]
        gate.set()
        results = await asyncio.gather(*mixed, return_exceptions=True)
    assert [isinstance(r, Exception) for r in results] == [False, True, False]
    assert await ChargingStation.objects.acount() == 5


async def test_a_commit_waits_for_the_disk() -> None:
    asked, durable = ("PRAGMA synchronous", 2) if connection.vendor == "sqlite" else ("SHOW synchronous_commit", "on")

    def level() -> Any:
        with connection.cursor() as cursor:
            cursor.execute(asked)
            return cursor.fetchone()[0]

    async with writing() as (writer, _):
        assert await writer.submit(level) == durable


async def test_facts_about_one_thing_are_folded_into_one_write() -> None:
    seen: list[tuple[Any, list[Any]]] = []
    async with writing() as (writer, _):
        gate = threading.Event()
        writer.post(lambda: gate.wait(5))

        def verb(key: Any, items: list[Any]) -> None:
            seen.append((key, list(items)))

        for n in range(3):
            writer.fold(verb, "a", n)
        writer.fold(verb, "b", 9)
        gate.set()
        await writer.submit(lambda: None)
        await writer.submit(lambda: None)
    assert sorted(seen) == [("a", [0, 1, 2]), ("b", [9])]


async def test_a_full_queue_says_so() -> None:
    async with writing(capacity=2) as (writer, _):
        gate = threading.Event()
        writer.post(lambda: gate.wait(5))
        await asyncio.sleep(0.2)
        writer.submit(lambda: None)
        writer.submit(lambda: None)
        with pytest.raises(WriterFull):
            writer.submit(lambda: None)
        gate.set()


async def test_jobs_outlive_a_database_that_goes_away() -> None:
    tries: list[str] = []

    def locked_twice() -> int:
        tries.append("try")
        if len(tries) < 3:
            connection.close()
            raise OperationalError("database is locked")
        return make("CS-1")

    async with writing() as (writer, _):
        before = writer.submit(partial(make, "CS-0"))
        pk = await writer.submit(locked_twice)
        await before
        assert await ChargingStation.objects.filter(pk=pk).aexists()
    assert await ChargingStation.objects.acount() == 2


async def test_a_job_that_breaks_the_commit_fails_alone() -> None:
    from csms.models import EVSE

    def for_nobody() -> None:
        EVSE.objects.create(station_id=999_999, number=1)

    async with writing() as (writer, _):
        gate = threading.Event()
        writer.post(lambda: gate.wait(5))
        good, bad = writer.submit(partial(make, "CS-1")), writer.submit(for_nobody)
        gate.set()
        await good
        with pytest.raises(Exception, match=r"(?i)foreign key|violates"):
            await bad
    assert await ChargingStation.objects.acount() == 1


async def test_frames_are_kept_aside_and_a_lost_station_costs_no_job() -> None:
    async with writing() as (writer, _):
        pk = await writer.submit(partial(make, "CS-1"))
        writer.keep(
            frame(
                pk,
                b'[2,"m","X",{"key":"AuthorizationKey","value":"hush"}]',
                {"key": "AuthorizationKey", "value": "hush"},
            )
        )
        writer.keep(frame(pk, b"\xff\x00nonsense"))
    kept = [m async for m in OcppMessage.objects.order_by("pk")]
    assert len(kept) == 2
    assert "hush" not in kept[0].raw + str(kept[0].payload)

    async with writing() as (writer, _):
        writer.keep(frame(999_999))
        await asyncio.sleep(0.2)
        assert await writer.submit(partial(make, "CS-2"))


async def test_stopping_writes_what_waits() -> None:
    writer = Writer(lambda told: None)
    writer.start()
    for n in range(50):
        writer.post(partial(make, f"CS-{n}"))
    await writer.stop()
    assert await sync_to_async(ChargingStation.objects.count)() == 50

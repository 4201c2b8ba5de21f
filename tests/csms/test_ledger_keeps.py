"""What the ledger promises: nothing rewritten, nothing acknowledged before it is durable, nothing lost or doubled."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.core.management import CommandError, call_command
from django.db import DatabaseError, connection, transaction
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from csms import ledger, retention
from csms.append_only import OPENING, WrittenOnce
from csms.models import ChargingStation, IdToken, MeterSample, Transaction, TransactionEvent
from csms.ocpp201 import codec as v201
from meters.models import Site
from tests.csms.charge_point import V16, running, station
from tests.scenarios.installation import ROOT, free_port, until

NOW = datetime.now(UTC).replace(microsecond=0)


def told(seq: int, kind: str = "Updated", tid: str = "tx", minute: int | None = None, **more: Any) -> dict[str, Any]:
    at = (NOW - timedelta(hours=1) + timedelta(minutes=seq if minute is None else minute)).isoformat()
    return {
        "eventType": kind,
        "timestamp": at,
        "triggerReason": "MeterValuePeriodic",
        "seqNo": seq,
        "transactionInfo": {"transactionId": tid},
        "evse": {"id": 1, "connectorId": 1},
        "meterValue": [{"timestamp": at, "sampledValue": [{"value": 1000.0 + seq * 100}]}],
        **more,
    }


@pytest.fixture
def place() -> ChargingStation:
    site = Site.objects.create(name="Campus")
    IdToken.objects.create(site=site, value="CARD")
    return ChargingStation.objects.create(identity="CS-1", site=site, admission="accepted")


def charged(place: ChargingStation, tid: str = "tx", last: str = "Ended") -> Transaction:
    for seq, kind in enumerate(["Started", "Updated", last]):
        ledger.record([(place.pk, v201.event(told(seq, kind, tid), NOW))])
    return Transaction.objects.get(transaction_id=tid)


# ---------------------------------------------------------------------- written once


@pytest.mark.django_db
def test_the_model_refuses_to_rewrite_an_event(place: ChargingStation) -> None:
    event = charged(place).events.first()
    assert event is not None
    for rewrite in (
        event.save,
        event.delete,
        lambda: TransactionEvent.objects.update(register_wh=0),
        lambda: TransactionEvent.objects.all().delete(),
        lambda: TransactionEvent.objects.bulk_update([event], ["at"]),
    ):
        with pytest.raises(WrittenOnce):
            rewrite()


@pytest.mark.django_db
@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE csms_transactionevent SET register_wh = 0",
        "UPDATE csms_transactionevent SET payload = '{}'",
        "UPDATE csms_transactionevent SET kind = 'updated', transaction_id = NULL",
        "DELETE FROM csms_transactionevent",
        "DELETE FROM csms_signedmetervalue WHERE id < 0 OR id >= 0",
    ],
)
def test_the_database_refuses_it_too(place: ChargingStation, statement: str) -> None:
    charge = charged(place)
    from csms.ledger_models import SignedMeterValue

    SignedMeterValue.objects.create(station=place, transaction=charge, at=NOW, content_key="s", told={})
    with connection.cursor() as cursor:
        cursor.execute(f"DELETE FROM {OPENING}")  # noqa: S608 - the tests leave this lock open
        with pytest.raises(DatabaseError, match="append-only"), transaction.atomic():
            cursor.execute(statement)


@pytest.mark.django_db
def test_old_charges_are_forgotten_by_the_command_and_only_by_it(place: ChargingStation) -> None:
    old, open_one = charged(place), charged(place, "other", last="Updated")
    Transaction.objects.filter(pk=old.pk).update(ended_at=NOW - timedelta(days=3000))
    with connection.cursor() as cursor:
        cursor.execute(f"DELETE FROM {OPENING}")  # noqa: S608
    said = StringIO()
    before = (NOW - timedelta(days=2000)).date().isoformat()

    call_command("forget_transactions", before=before, stdout=said)
    assert "1 charges" in said.getvalue() and Transaction.objects.count() == 2
    call_command("forget_transactions", before=before, yes=True, stdout=said)

    assert list(Transaction.objects.values_list("pk", flat=True)) == [open_one.pk]
    assert set(TransactionEvent.objects.values_list("transaction", flat=True)) == {open_one.pk}
    assert set(MeterSample.objects.values_list("transaction", flat=True)) == {open_one.pk}
    with pytest.raises(DatabaseError), transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("DELETE FROM csms_transactionevent")  # the door is shut again
    with pytest.raises(CommandError, match="future"):
        call_command("forget_transactions", before="2999-01-01")
    assert retention.forget(NOW - timedelta(days=9000)).transactions == 0


# ---------------------------------------------------------------------- durable before answered


def other_connection() -> Any:
    """Another program on the same database, as a person with a shell would have."""
    settings = connection.settings_dict
    if connection.vendor == "sqlite":
        return sqlite3.connect(settings["NAME"], isolation_level=None, timeout=5, check_same_thread=False)
    import psycopg

    given = connection.get_connection_params()
    where = {k: given[k] for k in ("dbname", "host", "port", "user", "password") if given.get(k)}
    return psycopg.connect(**where, autocommit=True)


def hold(other: Any) -> None:
    """Nobody writes until this program rolls back."""
    if connection.vendor == "sqlite":
        other.execute("BEGIN IMMEDIATE")
    else:
        other.execute("BEGIN")
        other.execute("LOCK TABLE csms_transactionevent IN ACCESS EXCLUSIVE MODE")


@pytest.mark.django_db(transaction=True)
async def test_nothing_is_acknowledged_while_another_program_holds_the_database(place: ChargingStation) -> None:
    other = await sync_to_async(other_connection)()
    async with running() as gateway, station(gateway, version="ocpp2.0.1") as bare:
        await bare.ask("TransactionEvent", told(0, "Started"))
        hold(other)
        waiting = asyncio.ensure_future(bare.ask("TransactionEvent", told(1)))
        assert (await bare.ask("Heartbeat", {}))["currentTime"]
        await asyncio.sleep(0.5)
        assert not waiting.done()
        other.execute("ROLLBACK")
        await asyncio.wait_for(waiting, 20)
    other.close()
    assert await TransactionEvent.objects.acount() == 2


@pytest.mark.django_db(transaction=True)
async def test_a_backend_that_is_ended_in_the_middle_costs_no_event(place: ChargingStation) -> None:
    if connection.vendor != "postgresql":
        return  # a file has no backend; the lock above is its way of being away
    other = await sync_to_async(other_connection)()
    async with running() as gateway, station(gateway, version="ocpp2.0.1") as bare:
        await bare.ask("TransactionEvent", told(0, "Started"))
        hold(other)
        waiting = asyncio.ensure_future(bare.ask("TransactionEvent", told(1)))
        stuck = "SELECT pid FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
        async with asyncio.timeout(10):
            while not (pids := [pid for (pid,) in other.execute(stuck).fetchall()]):  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        for pid in pids:
            other.execute("SELECT pg_terminate_backend(%s)", [pid])
        assert not waiting.done()
        other.execute("ROLLBACK")
        await asyncio.wait_for(waiting, 20)
        await bare.ask("TransactionEvent", told(2, "Ended"))
    other.close()
    assert await TransactionEvent.objects.acount() == 3
    charge = await Transaction.objects.aget()
    assert (charge.energy_wh, charge.gaps) == (200, [])


@pytest.fixture
def gateway_process(tmp_path: Path, valkey: str) -> Iterator[tuple[int, Any]]:
    """A gateway as an own process on this test's database: its port, and how to start it (again)."""
    settings = connection.settings_dict
    url = f"sqlite:///{settings['NAME']}"
    if connection.vendor == "postgresql":
        base, _, query = os.environ["DATABASE_URL"].partition("?")
        url = f"{base.rpartition('/')[0]}/{settings['NAME']}" + (f"?{query}" if query else "")
    port = free_port()
    env = {
        **{k: v for k, v in os.environ.items() if k != "PYTEST_CURRENT_TEST"},
        "DATABASE_URL": url,
        "REDIS_URL": valkey,
        "DATA_DIR": str(tmp_path),
        "OCPP_PORT": str(port),
        "LOG_LEVEL": "ERROR",
    }
    started: list[subprocess.Popen[bytes]] = []
    before = sessions()

    def start() -> subprocess.Popen[bytes]:
        started.append(subprocess.Popen([sys.executable, "manage.py", "gateway"], cwd=ROOT, env=env))
        until(lambda: _listens(port), 60, "the gateway listens")
        return started[-1]

    yield port, start
    for process in started:
        process.kill()
        process.wait()
    until(lambda: sessions() <= before, 10, "the killed gateway's sessions are gone")


def sessions() -> int:
    """How many are connected to this test's database."""
    if connection.vendor == "sqlite":
        return 0
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()")
        return int(cursor.fetchone()[0])


def _listens(port: int) -> bool:
    import socket

    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True


async def said(port: int, *frames: list[Any], then: Callable[[], None] | None = None) -> list[Any]:
    """Send frames over a socket of their own; what was answered until all were, or the line was cut."""
    answers: list[Any] = []
    version: Any = V16
    async with connect(
        f"ws://127.0.0.1:{port}/ocpp/CS-1", subprotocols=[version], proxy=None, ping_interval=None
    ) as socket:
        for frame in frames:
            await socket.send(json.dumps(frame))
        if then is not None:
            then()
        try:
            while len(answers) < len(frames):
                message = json.loads(await asyncio.wait_for(socket.recv(), 30))
                if message[0] in (3, 4):
                    answers.append(message)
        except ConnectionClosed:
            return answers
    return answers


@pytest.mark.django_db(transaction=True)
def test_a_gateway_killed_in_the_middle_of_an_answer_leaves_one_row(
    place: ChargingStation, gateway_process: tuple[int, Any]
) -> None:
    ChargingStation.objects.update(quiet=True)
    port, start = gateway_process
    began = NOW - timedelta(hours=1)
    body = {"connectorId": 1, "idTag": "CARD", "meterStart": 1000, "timestamp": began.isoformat()}

    held, other = start(), other_connection()
    hold(other)

    def kill_while_it_waits() -> None:
        time.sleep(0.3)
        held.send_signal(signal.SIGKILL)

    assert asyncio.run(said(port, [2, "1", "StartTransaction", body], then=kill_while_it_waits)) == []
    held.wait()
    other.execute("ROLLBACK")
    other.close()
    assert not Transaction.objects.exists()

    quick = start()

    def kill_around_the_commit() -> None:
        time.sleep(0.004)
        quick.send_signal(signal.SIGKILL)

    asyncio.run(said(port, [2, "2", "StartTransaction", body], then=kill_around_the_commit))
    quick.wait()

    start()
    started, again = asyncio.run(said(port, [2, "3", "StartTransaction", body], [2, "4", "StartTransaction", body]))
    number = started[2]["transactionId"]
    stop = {"transactionId": number, "meterStop": 5000, "timestamp": (began + timedelta(minutes=30)).isoformat()}
    asyncio.run(said(port, [2, "5", "StopTransaction", stop], [2, "6", "StopTransaction", stop]))

    charge = Transaction.objects.get()
    assert again[2]["transactionId"] == number == int(charge.transaction_id)
    assert charge.energy_wh == 4000 and charge.ended_at == began + timedelta(minutes=30)
    assert sorted(TransactionEvent.objects.values_list("kind", flat=True)) == ["ended", "started"]

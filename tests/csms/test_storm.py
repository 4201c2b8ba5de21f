"""Stations come back all at once (R21), and a gateway says how it is while they do."""

from __future__ import annotations

import asyncio
import http.client
import json
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from prometheus_client.parser import text_string_to_metric_families

from bench.load import Client, connect
from csms import admission, bus
from csms.models import ChargingStation
from csms.pacing import Pace, spread
from meters import metrics
from meters.models import Site
from tests.csms.charge_point import V16, running, station
from tests.csms.test_gateway import BOOT_16, accepted, eventually

pytestmark = pytest.mark.django_db(transaction=True)
STORM = 300


@sync_to_async
def a_crowd() -> None:
    site = Site.objects.create(name="Campus")
    one = ChargingStation(identity="x")
    one.set_password("a-good-password")
    ChargingStation.objects.bulk_create(
        ChargingStation(identity=f"S-{n}", site=site, admission="accepted", password_hash=one.password_hash)
        for n in range(STORM)
    )


async def all_back(gateway: Any) -> list[int]:
    """Everybody connects with its password and boots: the intervals they are told."""

    async def one(n: int) -> tuple[int, Client]:
        client = await connect(gateway.port, f"S-{n}", V16, "a-good-password")
        answered = asyncio.get_running_loop().create_future()

        def hear(frame: bytes) -> None:
            if b'"boot"' in frame[:12]:
                answered.set_result(json.loads(frame))

        client.heard = hear
        client.send(json.dumps([2, "boot", "BootNotification", BOOT_16]).encode())
        kind, _, answer = await answered
        assert (kind, answer["status"]) == (3, "Accepted")
        return answer["interval"], client

    async with asyncio.timeout(90):
        told = await asyncio.gather(*(one(n) for n in range(STORM)))
    held = await sync_to_async(bus.holders)([f"S-{n}" for n in range(STORM)])
    assert len(held) == STORM
    for _, client in told:
        client.transport.abort()
    return [interval for interval, _ in told]


async def test_three_hundred_stations_at_once_are_all_let_in_and_spread(monkeypatch: pytest.MonkeyPatch) -> None:
    await a_crowd()
    slow_checks: list[int] = []
    check = admission.check_password
    monkeypatch.setattr(admission, "check_password", lambda *a: slow_checks.append(1) or check(*a))
    monkeypatch.setattr(admission, "WAITING_AT_ALL", 10_000)
    async with running(heartbeat_s=300) as gateway:
        intervals = await all_back(gateway)
        assert len(slow_checks) == STORM
        assert all(240 <= interval <= 300 for interval in intervals)
        assert len(set(intervals)) > 30  # of 61 there are

        await asyncio.sleep(0.3)
        await all_back(gateway)
        assert len(slow_checks) == STORM  # who proved its password once is let in at once

    async with running() as another:
        await all_back(another)
        assert len(slow_checks) == STORM  # at every gateway


async def test_a_pace_lets_one_through_at_a_time() -> None:
    pace, loop = Pace(per_s=50), asyncio.get_running_loop()
    began = loop.time()
    await pace.turn()
    await asyncio.gather(*(pace.turn() for _ in range(5)))
    assert loop.time() - began >= 5 / 50 - 0.005


def test_an_interval_is_never_longer_than_the_setting() -> None:
    assert {spread(10) for _ in range(500)} == {8, 9, 10}
    assert spread(1) == 1


# ---------------------------------------------------------------------- how it is


def get(port: int, path: str) -> tuple[int, Any]:
    asking = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        asking.request("GET", path)
        answer = asking.getresponse()
        return answer.status, json.loads(answer.read())
    finally:
        asking.close()


async def test_a_gateway_says_on_its_own_port_how_it_is() -> None:
    await accepted(quiet=True)
    async with running() as gateway, station(gateway) as bare:
        assert await asyncio.to_thread(get, gateway.port, "/healthz") == (200, {"status": "ok", "process": "ok"})
        parts = ("status", "process", "database", "migrations", "redis")
        await eventually(lambda: get(gateway.port, "/readyz") == (200, dict.fromkeys(parts, "ok")))
        gateway._stopping = True
        status, told = await asyncio.to_thread(get, gateway.port, "/readyz")
        assert (status, told["process"], told["status"]) == (503, "failing", "failing")
        gateway._stopping = False
        await bare.ask("Heartbeat", {})


async def test_what_a_gateway_counts_is_on_the_page() -> None:
    await accepted(quiet=True)
    async with running() as gateway, station(gateway) as bare:
        await bare.ask("Heartbeat", {})
        bare.answers["ClearCache"] = {"status": "Accepted"}
        await gateway.sessions["CS-1"].connection.call("ClearCache", {})
        await bare.call("Hartbeat", {})
        await gateway._tell_metrics()
        page = await sync_to_async(metrics.fetch)()
        text = metrics.render(page)
        found = {
            (s.name.removeprefix("laadplein_"), s.labels.get("action", ""), s.labels.get("outcome", "")): s.value
            for family in text_string_to_metric_families(text)
            for s in family.samples
            if s.labels.get("protocol", "ocpp1.6") == "ocpp1.6"
        }
        assert found["connections", "", ""] == 1
        assert found["messages_total", "Heartbeat", "result"] >= 1
        assert found["messages_total", "other", "error"] >= 1
        assert found["calls_total", "ClearCache", "result"] >= 1
        assert found["answer_seconds_count", "Heartbeat", ""] >= 1
        assert found["handshakes_total", "", "let_in"] >= 1
    assert await eventually(lambda: not metrics.fetch()) is True

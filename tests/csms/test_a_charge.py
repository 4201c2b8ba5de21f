"""A whole charge with the simulated station: both dialects, time offline, TLS, and two hundred at once."""

from __future__ import annotations

import asyncio
import socket
import ssl
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.core.management import CommandError, call_command

from csms import bus, calls
from csms.bus import Want
from csms.door import configured
from csms.gateway import Gateway
from csms.models import EVSE, ChargingStation, IdToken, MeterSample, Transaction, WantedLimit
from csms.simulator import Car, SimulatedStation
from csms.tls import context_of
from meters import live
from meters.models import Site
from tests.csms.charge_point import basic, running, station
from tests.csms.test_gateway import accepted, eventually

pytestmark = pytest.mark.django_db(transaction=True)


@sync_to_async
def a_place() -> EVSE:
    site = Site.objects.create(name="Campus")
    IdToken.objects.create(site=site, value="04A1B2C3")
    row = ChargingStation(identity="CS 1/ä", site=site, admission="accepted", wiring=["L2", "L3", "L1"])
    row.set_password("secret of it")
    row.save()
    return EVSE.objects.create(station=row, number=1)


@sync_to_async
def want(amps: float) -> None:
    now = datetime.now(UTC)
    bus.put_wants([Want("CS 1/ä", 1, amps, None, "plan", at=now, until=now + timedelta(seconds=60))])


@asynccontextmanager
async def alive(gateway: Gateway, protocol: str, **nature: Any) -> AsyncIterator[SimulatedStation]:
    simulated = SimulatedStation(
        "CS 1/ä",
        f"ws://127.0.0.1:{gateway.port}/ocpp",
        password="secret of it",
        protocol=protocol,  # type: ignore[arg-type]
        seed=1,
        tick_s=0.05,
        reboot_s=0,
        meter_interval_s=1,
        **nature,
    )
    life = asyncio.create_task(simulated.run())
    try:
        await simulated.wait_online()
        yield simulated
    finally:
        life.cancel()
        await asyncio.gather(life, return_exceptions=True)


@pytest.mark.parametrize("protocol", ["ocpp1.6", "ocpp2.0.1"])
async def test_a_car_comes_is_limited_and_leaves(protocol: str) -> None:
    evse = await a_place()
    async with running(meter_interval_s=1) as gateway, alive(gateway, protocol) as simulated:
        simulated.plug(1, Car(battery_wh=50_000, soc=0.3, max_a=16, delay_s=0.1))
        await eventually(lambda: EVSE.objects.get(pk=evse.pk).iec_state == "B1")
        assert await simulated.tap(1, "04a1b2c3") == "Accepted"
        await want(10)
        await eventually(lambda: WantedLimit.objects.filter(evse=evse, accepted_a=10).exists())
        shown = await eventually(
            lambda: (
                (m := live.fetch([live.evse_source(evse.pk)]).get(live.evse_source(evse.pk)))
                and m.current_a
                and max(a or 0 for a in m.current_a) > 5
                and m
            )
        )
        assert all(a is not None and a <= 10.1 for a in shown.current_a)
        await eventually(lambda: EVSE.objects.get(pk=evse.pk).iec_state == "C2")
        schedule = await sync_to_async(lambda: calls.composite_schedule(EVSE.objects.get(pk=evse.pk), 60))()
        assert schedule["periods"][0]["limit"] == 10
        tx = await eventually(lambda: Transaction.objects.filter(ended_at=None).first())
        await sync_to_async(lambda: calls.remote_stop(Transaction.objects.get(pk=tx.pk)))()
        await eventually(lambda: not Transaction.objects.get(pk=tx.pk).open)
        simulated.unplug(1)
        await eventually(lambda: EVSE.objects.get(pk=evse.pk).iec_state == "A1")
        assert await MeterSample.objects.filter(transaction_id=tx.pk).aexists()
        kept = await Transaction.objects.aget(pk=tx.pk)
        assert kept.authorized and kept.energy_wh >= 0


@pytest.mark.parametrize("protocol", ["ocpp1.6", "ocpp2.0.1"])
async def test_what_happened_offline_is_told_later_and_counted_once(protocol: str) -> None:
    await a_place()
    async with running(meter_interval_s=1) as gateway, alive(gateway, protocol) as simulated:
        simulated.plug(1, Car(battery_wh=50_000, soc=0.3, max_a=16, delay_s=0.1))
        await simulated.tap(1, "04A1B2C3")
        await eventually(lambda: Transaction.objects.filter(ended_at=None).exists())
        await simulated.drop(0.5)
        simulated.unplug(1)
        await simulated.wait_online()
        await eventually(lambda: Transaction.objects.filter(ended_at__isnull=False).exists())
        assert await Transaction.objects.acount() == 1


def _certificate(folder: Path) -> tuple[Path, Path]:
    cert, key = folder / "cert.pem", folder / "key.pem"
    subprocess.run(
        [
            *f"openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost -keyout {key} -out {cert}".split(),
            "-addext",
            "subjectAltName=DNS:localhost",
        ],
        check=True,
        capture_output=True,
    )
    return cert, key


async def test_a_station_connects_over_tls(settings: Any, tmp_path: Path) -> None:
    cert, key = _certificate(tmp_path)
    settings.OCPP_TLS_CERT, settings.OCPP_TLS_KEY = str(cert), str(key)
    await accepted(password="correct horse")
    async with running() as gateway:
        trust = ssl.create_default_context(cafile=str(cert))
        from websockets.asyncio.client import connect

        url = f"wss://localhost:{gateway.port}/ocpp/CS-1"
        headers = basic("CS-1", "correct horse")
        async with connect(url, ssl=trust, subprotocols=["ocpp1.6"], additional_headers=headers, proxy=None) as ws:  # type: ignore[list-item]
            await ws.send('[2,"1","Heartbeat",{}]')
            assert "currentTime" in str(await ws.recv())
    context = context_of(configured("127.0.0.1", 0)[0])
    assert context.minimum_version >= ssl.TLSVersion.TLSv1_2


def test_a_port_in_use_is_one_clear_line() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(CommandError, match="cannot listen on"):
            call_command("gateway", port=taken.getsockname()[1], bind="127.0.0.1")


async def test_two_hundred_stations_come_at_once_and_all_boots_are_answered() -> None:
    @sync_to_async
    def many() -> None:
        site = Site.objects.create(name="Campus")
        ChargingStation.objects.bulk_create(
            ChargingStation(identity=f"CS-{n}", site=site, admission="accepted", quiet=True) for n in range(200)
        )

    await many()
    boot = {"chargePointVendor": "ACME", "chargePointModel": "Wall"}
    async with running() as gateway:

        async def one(n: int) -> str:
            async with station(gateway, f"CS-{n}") as bare:
                return (await bare.ask("BootNotification", boot))["status"]

        assert set(await asyncio.gather(*(one(n) for n in range(200)))) == {"Accepted"}

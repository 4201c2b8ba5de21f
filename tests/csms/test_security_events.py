"""Security events, secrets, and what a station can touch: the rest of the security sheet's ids for this room."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
import time
from datetime import timedelta
from typing import Any

import orjson
import pytest
from asgiref.sync import sync_to_async
from django.db import connections, transaction

from csms import bus, credentials, security_events
from csms.models import ChargingStation, IdToken, OcppMessage, StationVariable, Transaction
from csms.redaction import BLANK, blank, may_hold_a_secret
from csms.security_events import Sighting, Watch
from csms.security_models import SecurityEvent, StationSecurity
from meters import live
from tests.csms.charge_point import V16, V201, Bare, basic, running, station, written
from tests.csms.doors import accepted, doors, now
from tests.csms.test_gateway import eventually
from tests.csms.test_security_door import heartbeat, refused

pytestmark = pytest.mark.django_db(transaction=True)

OLD = "correct horse battery"


# ---------------------------------------------------------------------- R30: passwords


def password_told(bare: Bare, version: str) -> str:
    action = "ChangeConfiguration" if version == V16 else "SetVariables"
    payload = next(p for a, p in bare.asked if a == action)
    if version == V16:
        assert payload["key"] == "AuthorizationKey"
        return str(payload["value"])
    data = payload["setVariableData"][0]
    assert (data["component"]["name"], data["variable"]["name"]) == ("SecurityCtrlr", "BasicAuthPassword")
    return str(data["attributeValue"])


@pytest.mark.parametrize("version", [V16, V201])
async def test_R30_a_new_password_ends_the_old_one_with_its_first_login(version: str) -> None:
    row = await accepted(password=OLD)
    async with doors("plain://127.0.0.1:0") as gateway:
        async with station(gateway, version=version, headers=basic("CS-1", OLD)) as bare:
            await bare.ask("Heartbeat", {})
            assert await sync_to_async(credentials.rotate_password)(row) == {"status": "Accepted"}
            new = password_told(bare, version)
            assert len(new) == 40 and bytes.fromhex(new)
        await eventually(lambda: gateway.memory.stations["CS-1"].security.old_password_hash)
        await heartbeat(station(gateway, headers=basic("CS-1", OLD)))  # it has not used the new one yet
        raw = bytes.fromhex(new) if version == V16 else new.encode()
        await heartbeat(station(gateway, headers=basic("CS-1", raw)))
        await eventually(lambda: not StationSecurity.objects.get().old_password_hash)
        await eventually(lambda: not gateway.memory.stations["CS-1"].security.old_password_hash)
        await refused(station(gateway, headers=basic("CS-1", OLD)))
        await heartbeat(station(gateway, headers=basic("CS-1", new)))
        await written(gateway)
    # A7: it is nowhere but in the station.
    kept = [f"{m.raw} {m.payload}" async for m in OcppMessage.objects.all()]
    assert any(BLANK in text for text in kept) and not any(new in text for text in kept)
    redis = live.connection()
    streams = [redis.xrange(key) for key in redis.scan_iter("call:*")]
    assert not [s for s in streams if new in str(s)]


async def test_R30_a_refused_password_changes_nothing() -> None:
    row = await accepted(password=OLD)
    async with doors("plain://127.0.0.1:0") as gateway, station(gateway, headers=basic("CS-1", OLD)) as bare:
        bare.answers = {"ChangeConfiguration": {"status": "Rejected"}}
        await bare.ask("Heartbeat", {})
        assert await sync_to_async(credentials.rotate_password)(row) == {"status": "Rejected"}
        bare.answers = {"ChangeConfiguration": ["NotSupported", "", {}]}
        with pytest.raises(bus.CallRefused):
            await sync_to_async(credentials.rotate_password)(row)
        again = await ChargingStation.objects.aget(pk=row.pk)
        assert await sync_to_async(again.password_is)(OLD)
        assert not (await StationSecurity.objects.aget()).old_password_hash
    with pytest.raises(bus.StationUnreachable):
        await sync_to_async(credentials.rotate_password)(row)
    again = await ChargingStation.objects.aget(pk=row.pk)
    assert await sync_to_async(again.password_is)(OLD)


async def test_R30_unanswered_either_password_opens_until_the_grace_ends(settings: Any) -> None:
    settings.OCPP_CALL_TIMEOUT_S = 0.3
    row = await accepted(password=OLD)
    async with doors("plain://127.0.0.1:0") as gateway:
        async with station(gateway, headers=basic("CS-1", OLD)) as bare:
            bare.answers = {"ChangeConfiguration": lambda p: None}
            await bare.ask("Heartbeat", {})
            with pytest.raises(bus.NoAnswer):
                await sync_to_async(credentials.rotate_password)(row)
            new = password_told(bare, V16)
        await heartbeat(station(gateway, headers=basic("CS-1", OLD)))
        await StationSecurity.objects.aupdate(old_password_until=now() - timedelta(seconds=1))
        await sync_to_async(bus.announce_change)("station", row.pk)
        await eventually(lambda: gateway.memory.stations["CS-1"].security.old_password_until < now())
        await refused(station(gateway, headers=basic("CS-1", OLD)))
        assert await sync_to_async(credentials.end_old_passwords)(now()) == 1
        await heartbeat(station(gateway, headers=basic("CS-1", new)))
    assert await SecurityEvent.objects.filter(kind="OldPasswordEnded").aexists()


async def test_a_password_set_a_moment_ago_opens_before_the_gateway_was_told() -> None:
    row = await accepted(password=OLD)
    async with doors("plain://127.0.0.1:0") as gateway:
        await heartbeat(station(gateway, headers=basic("CS-1", OLD)))
        await sync_to_async(row.set_password)("brand new one")
        await ChargingStation.objects.filter(pk=row.pk).aupdate(password_hash=row.password_hash)
        await heartbeat(station(gateway, headers=basic("CS-1", "brand new one")))


# ---------------------------------------------------------------------- security profiles


async def test_a_profile_is_raised_and_then_nothing_less_is_let_in(settings: Any) -> None:
    settings.OCPP_PUBLIC_URL = "wss://charge.example.org/ocpp"
    row = await accepted(password=OLD)
    async with doors("plain://127.0.0.1:0", "proxy://127.0.0.2:0?from=127.0.0.0/8") as gateway:
        async with station(gateway, headers=basic("CS-1", OLD)) as bare:
            await eventually(lambda: StationSecurity.objects.filter(seen_profile=1).exists())
            with pytest.raises(bus.CallNotValid, match="only goes up"):
                await sync_to_async(credentials.upgrade_profile)(row, 1)
            with pytest.raises(bus.CallNotValid, match="no certificate"):
                await sync_to_async(credentials.upgrade_profile)(row, 3)
            assert await sync_to_async(credentials.upgrade_profile)(row, 2) == {"status": "Accepted"}
            assert await bare.was_asked("ChangeConfiguration") == {"key": "SecurityProfile", "value": "2"}
        await eventually(lambda: gateway.memory.stations["CS-1"].security.wanted_profile == 2)
        await heartbeat(station(gateway, headers=basic("CS-1", OLD)))  # it has not moved yet

        class Proxied:
            port = gateway.ports[1]

        from websockets.asyncio.client import connect

        url = f"ws://127.0.0.2:{Proxied.port}/ocpp/CS-1"
        async with connect(url, subprotocols=["ocpp1.6"], additional_headers=basic("CS-1", OLD), proxy=None):  # type: ignore[list-item]
            await eventually(lambda: gateway.memory.stations["CS-1"].security.least_profile == 2)
        await refused(station(gateway, headers=basic("CS-1", OLD)))
    again = await StationSecurity.objects.aget()
    assert (again.least_profile, again.wanted_profile) == (2, None)
    await eventually(lambda: SecurityEvent.objects.filter(kind="LowerSecurityProfile", station=row).exists())


async def test_201_a_profile_is_raised_by_a_connection_profile(settings: Any) -> None:
    row = await accepted(password=OLD)
    headers = basic("CS-1", OLD)
    async with doors("plain://127.0.0.1:0") as gateway, station(gateway, version=V201, headers=headers) as bare:
        await bare.ask("Heartbeat", {})
        settings.OCPP_PUBLIC_URL = ""
        with pytest.raises(bus.CallNotValid, match="OCPP_PUBLIC_URL"):
            await sync_to_async(credentials.upgrade_profile)(row, 2, 3)
        settings.OCPP_PUBLIC_URL = "wss://charge.example.org/ocpp"
        await sync_to_async(credentials.upgrade_profile)(row, 2, 3)
        sent = await bare.was_asked("SetNetworkProfile")
        assert (sent["configurationSlot"], sent["connectionData"]["securityProfile"]) == (3, 2)
        first = (await bare.was_asked("SetVariables"))["setVariableData"][0]
        assert (first["variable"]["name"], first["attributeValue"]) == ("NetworkConfigurationPriority", "3")
        await bare.was_asked("Reset")


async def test_a_profile_goes_down_only_with_a_reason_and_both_are_kept() -> None:
    row = await accepted(password=OLD)
    await sync_to_async(credentials.set_least_profile)(row, 2)
    with pytest.raises(credentials.StepDown):
        await sync_to_async(credentials.set_least_profile)(row, 1)
    with pytest.raises(credentials.StepDown):
        await sync_to_async(credentials.set_least_profile)(row, 2, lower=1, lower_until=now() + timedelta(days=1))
    await sync_to_async(credentials.set_least_profile)(row, 1, "modem without TLS")
    security = await StationSecurity.objects.aget()
    newest = await security.history.afirst()
    assert (security.least_profile, newest.history_change_reason) == (1, "modem without TLS")
    event = await SecurityEvent.objects.aget(kind="SecurityProfileLowered")
    assert (event.source, event.criticality) == ("person", "warning")


# ---------------------------------------------------------------------- C2: events


@pytest.mark.parametrize("version", [V16, V201])
async def test_C2_what_a_station_tells_is_kept_weighed_and_one_line_of_json(version: str, caplog: Any) -> None:
    row = await accepted()
    told = {"type": "TamperDetectionActivated", "timestamp": "2026-11-24T10:00:00Z", "techInfo": "lid \x1b[31m\nopen"}
    with caplog.at_level(logging.INFO, "security"):
        async with running() as gateway, station(gateway, version=version) as bare:
            assert await bare.ask("SecurityEventNotification", told) == {}
            await written(gateway)
    event = await SecurityEvent.objects.aget(station=row)
    assert (event.kind, event.criticality, event.source) == ("TamperDetectionActivated", "critical", "station")
    assert event.at.isoformat() == "2026-11-24T10:00:00+00:00"
    line = next(r for r in caplog.records if r.name == "security")
    assert "\n" not in line.getMessage() and line.levelno == logging.ERROR
    assert json.loads(line.getMessage())["station"] == "CS-1"


async def test_C2_a_flood_of_events_is_counted_and_not_kept() -> None:
    await accepted()
    async with running() as gateway, station(gateway) as bare:
        for n in range(60):
            told = {"type": f"Invented{n}", "timestamp": "2026-11-24T10:00:00Z"}
            await bare.ask("SecurityEventNotification", told)
        await written(gateway)
    assert await SecurityEvent.objects.acount() == security_events.FROM_ONE_STATION_PER_MINUTE


def test_C2_what_repeats_at_the_door_is_one_row_with_a_count() -> None:
    rows: list[Sighting] = []
    watch = Watch(rows.append)
    start = now()
    for n in range(500):
        watch.see("LoginFailed", start + timedelta(milliseconds=n), identity="CS-1", station_pk=1, address="192.0.2.1")
    watch.see("LoginFailed", start, identity="CS-2", station_pk=2, address="192.0.2.1")
    assert [row.count for row in rows] == [1, 1]
    watch.flush(start + timedelta(seconds=61))
    assert [row.count for row in rows] == [1, 1, 499] and watch.counts["LoginFailed"] == 501
    for n in range(5000):
        watch.see("LoginFailed", start + timedelta(seconds=62), address=f"198.51.{n // 250}.{n % 250}")
    assert len(watch._seen) <= security_events.SUBJECTS


async def test_old_events_are_forgotten() -> None:
    row = await accepted()
    await sync_to_async(security_events.by_person)(row, "PasswordChanged", "", now() - timedelta(days=500))
    await sync_to_async(security_events.by_person)(row, "PasswordChanged", "", now())
    assert await sync_to_async(security_events.tidy)(now() - timedelta(days=400)) == 1


# ---------------------------------------------------------------------- A6: its own things only


async def other_site() -> ChargingStation:
    row = await accepted("OTHER", site="Elsewhere")
    await IdToken.objects.acreate(site_id=row.site_id, value="FOREIGN")
    return row


@pytest.mark.parametrize("version", [V16, V201])
async def test_A6_a_token_of_another_site_is_not_known_here(version: str) -> None:
    await accepted()
    await other_site()
    async with running() as gateway, station(gateway, version=version) as bare:
        if version == V16:
            answer = (await bare.ask("Authorize", {"idTag": "FOREIGN"}))["idTagInfo"]
        else:
            token = {"idToken": {"idToken": "FOREIGN", "type": "ISO14443"}}
            answer = (await bare.ask("Authorize", token))["idTokenInfo"]
    assert answer["status"] == "Invalid"


async def test_A6_a_stop_and_meter_values_for_another_stations_transaction_touch_nothing() -> None:
    await accepted()
    other = await other_site()
    start = {"connectorId": 1, "idTag": "FOREIGN", "meterStart": 1000, "timestamp": now().isoformat()}
    async with running() as gateway, station(gateway, "OTHER") as theirs, station(gateway) as ours:
        tid = (await theirs.ask("StartTransaction", start))["transactionId"]
        value = {"timestamp": now().isoformat(), "sampledValue": [{"value": "999999"}]}
        assert await ours.ask("MeterValues", {"connectorId": 1, "transactionId": tid, "meterValue": [value]}) == {}
        stop = {"transactionId": tid, "meterStop": 9_000_000, "timestamp": now().isoformat()}
        await ours.ask("StopTransaction", stop)
        await written(gateway)
        tx = await Transaction.objects.aget(station=other)
        assert tx.open and tx.energy_wh == 0 and tx.meter_last_wh in (None, 1000)
        assert gateway.sessions["OTHER"].transactions == {1: str(tid)}


async def test_A6_201_an_event_with_anothers_transaction_id_makes_no_row_of_theirs() -> None:
    await accepted()
    other = await other_site()

    def event(kind: str, seq: int) -> dict[str, Any]:
        info = {"transactionId": "shared-id"}
        body = {"eventType": kind, "timestamp": now().isoformat(), "triggerReason": "Trigger", "seqNo": seq}
        return {**body, "transactionInfo": info, "evse": {"id": 1}}

    async with (
        running() as gateway,
        station(gateway, "OTHER", version=V201) as theirs,
        station(gateway, version=V201) as ours,
    ):
        await theirs.ask("TransactionEvent", event("Started", 0))
        await ours.ask("TransactionEvent", event("Ended", 1))
        await written(gateway)
    tx = await Transaction.objects.aget(station=other)
    assert tx.open


# ---------------------------------------------------------------------- A5: hostile frames


HOSTILE = {
    "deep list": b'[2,"x","Heartbeat",' + b"[" * 100_000 + b"]" * 100_000 + b"]",
    "deep object": b'[2,"x","Heartbeat",' + b'{"a":' * 30_000 + b"1" + b"}" * 30_000 + b"]",
    "deep but parsed": b'[2,"x","DataTransfer",{"vendorId":"v","data":' + b'{"a":' * 900 + b"1" + b"}" * 900 + b"}]",
    "deep with a secret": b'[2,"x","DataTransfer",{"vendorId":"password","data":'
    + b'{"a":' * 900
    + b"1"
    + b"}" * 900
    + b"}]",
    "deep with nul": b'[2,"x","DataTransfer",{"vendorId":"\\u0000","data":'
    + b'{"a":' * 900
    + b"1"
    + b"}" * 900
    + b"}]",
    "huge number": b'[2,"x","MeterValues",{"connectorId":1e999,"meterValue":[]}]',
    "huge integer": b'[2,"x","MeterValues",{"connectorId":' + b"9" * 5000 + b',"meterValue":[]}]',
    "not a number": b'[2,"x","MeterValues",{"connectorId":NaN,"meterValue":[]}]',
    "infinity": b'[2,"x","MeterValues",{"connectorId":-Infinity,"meterValue":[]}]',
    "many keys": b'[2,"x","Heartbeat",{' + b",".join(b'"k%d":1' % n for n in range(10_000)) + b"}]",
    "many brackets": b"[" * 200_000,
    "many commas": b"[" + b"," * 200_000 + b"]",
}


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("version", [V16, V201])
async def test_A5_a_hostile_frame_ends_nothing(name: str, version: str) -> None:
    await accepted()
    async with running() as gateway, station(gateway, version=version) as bare:
        await bare.socket.send(HOSTILE[name].decode())
        async with asyncio.timeout(20):
            assert "currentTime" in await bare.ask("Heartbeat", {})
        await written(gateway)
    assert await OcppMessage.objects.filter(action="Heartbeat", kind="result").aexists()


# ---------------------------------------------------------------------- A7: secrets


SECRET = "s3cr3t-value"
FRAMES = [
    [2, "1", "ChangeConfiguration", {"key": "AuthorizationKey", "value": SECRET}],
    [3, "1", {"configurationKey": [{"key": "authorizationkey", "readonly": False, "value": SECRET}]}],
    [
        2,
        "1",
        "SetVariables",
        {
            "setVariableData": [
                {
                    "attributeValue": SECRET,
                    "component": {"name": "SecurityCtrlr"},
                    "variable": {"name": "BasicAuthPassword"},
                }
            ]
        },
    ],
    [3, "1", {"getVariableResult": [{"attributeValue": SECRET, "variable": {"name": "BasicAuthPassword"}}]}],
    [2, "1", "NotifyEvent", {"eventData": [{"actualValue": SECRET, "variable": {"name": "BasicAuthPassword"}}]}],
    [2, "1", "SetNetworkProfile", {"connectionData": {"vpn": {"password": SECRET}, "apn": {"apnPassword": SECRET}}}],
    [2, "1", "SetNetworkProfile", {"connectionData": {"basicAuthPassword": SECRET}}],
    [2, "1", "UpdateFirmware", {"location": f"ftp://user:{SECRET}@host/file"}],
    [2, "1", "GetLog", {"log": {"remoteLocation": f"https://host/log?token={SECRET}&x=1"}}],
    [2, "1", "DataTransfer", {"vendorId": "x", "messageId": "NewPassword", "data": SECRET}],
    [2, "1", "DataTransfer", {"vendorId": "x", "data": json.dumps({"password": SECRET})}],
]


@pytest.mark.parametrize("frame", FRAMES, ids=[str(f[2])[:30] + str(n) for n, f in enumerate(FRAMES)])
def test_A7_no_secret_stays_in_a_kept_frame(frame: list[Any]) -> None:
    raw = orjson.dumps(frame)
    assert may_hold_a_secret(raw)
    assert SECRET not in orjson.dumps(blank(frame)).decode()


def test_A7_a_name_written_with_escapes_is_seen_through() -> None:
    raw = b'[2,"1","ChangeConfiguration",{"key":"\\u0041uthorization\\u004bey","value":"s3cr3t"}]'
    assert may_hold_a_secret(raw) and b"s3cr3t" not in orjson.dumps(blank(orjson.loads(raw)))


def test_A7_addresses_without_secrets_stay_as_they_are() -> None:
    frame = {"location": "https://host/firmware.bin?version=3&build=7", "x": "https://host/"}
    assert blank(frame) == frame


async def test_A7_a_password_in_a_stations_report_is_not_kept() -> None:
    row = await accepted(quiet=False)
    keys = [{"key": "AuthorizationKey", "value": SECRET, "readonly": False}]
    async with running() as gateway, station(gateway) as bare:
        bare.answers = {"GetConfiguration": {"configurationKey": keys}}
        await bare.ask("BootNotification", {"chargePointVendor": "ACME", "chargePointModel": "Wall"})
        await eventually(lambda: StationVariable.objects.filter(station=row).exists())
        await written(gateway)
    assert (await StationVariable.objects.aget(station=row)).value == BLANK
    assert not [m async for m in OcppMessage.objects.all() if SECRET in m.raw]


async def test_A7_no_log_line_has_a_password(caplog: Any) -> None:
    await accepted(password=SECRET)
    with caplog.at_level(logging.DEBUG):
        async with doors("plain://127.0.0.1:0") as gateway:
            await heartbeat(station(gateway, headers=basic("CS-1", SECRET)))
            await refused(station(gateway, headers=basic("CS-1", SECRET + "!")))
            await refused(station(gateway, headers={"Authorization": "Basic " + "x" * 100}))
    ours = [r.getMessage() for r in caplog.records if not r.name.startswith(("websockets", "asyncio"))]
    assert not [line for line in ours if SECRET in line]
    stored = (await ChargingStation.objects.aget()).password_hash
    assert SECRET not in stored and "$" in stored


@pytest.mark.django_db(transaction=True)
def test_a_login_during_a_change_of_password_waits_for_it_and_blocks_nothing() -> None:
    """Both make the row of the station's security; PostgreSQL ended one of them as a deadlock."""
    row = ChargingStation.objects.create(identity="LAB-1", admission="accepted")
    began, done = threading.Event(), []

    def comes_in() -> None:
        began.wait(5)
        credentials.logged_in(row.pk, 2, False, "")
        done.append("in")
        connections.close_all()

    login = threading.Thread(target=comes_in)
    login.start()
    with transaction.atomic():
        ChargingStation.objects.select_for_update().get(pk=row.pk)
        began.set()
        time.sleep(0.5)
        credentials.security_of(row.pk)
    login.join(25)

    assert done == ["in"]
    assert StationSecurity.objects.get(station=row).seen_profile == 2

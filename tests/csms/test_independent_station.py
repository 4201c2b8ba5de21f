"""A station that shares no code with ours, strict on both sides of the wire (R32, Q3): npm's `ocpp-rpc`.

Whatever we send it must find right by its own schemas, in both dialects, through whole sessions; and it keeps coming
back by its own rules.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from asgiref.sync import sync_to_async

from csms import bus, calls
from csms.models import EVSE, ChargingStation, IdToken, Transaction
from meters.models import Site
from tests.csms.charge_point import V16, V201, running, written
from tests.faults.proxy import FaultProxy
from tests.independent.client import Node, Refused, independent, node

pytestmark = pytest.mark.django_db(transaction=True)

TOKEN = "04A1B2C3"
SOON = timedelta(hours=1)


@pytest.fixture
async def playing() -> AsyncIterator[Node]:
    async with node() as process:
        yield process


@sync_to_async
def accepted(identity: str = "RPC é/1", password: str = "", **more: Any) -> ChargingStation:
    site, _ = Site.objects.get_or_create(name="Campus")
    row = ChargingStation(**{"identity": identity, "site": site, "admission": "accepted", **more})
    row.set_password(password)
    row.save()
    for number in (1, 2):
        EVSE.objects.get_or_create(station=row, number=number)
    IdToken.objects.get_or_create(site=site, value=TOKEN, defaults={"group": "fleet"})
    return row


def iso(at: datetime | None = None) -> str:
    return (at or datetime.now(UTC)).isoformat(timespec="milliseconds").replace("+00:00", "Z")


@sync_to_async
def want(evse: EVSE, amps: float) -> None:
    now = datetime.now(UTC)
    steps = ((0, amps), (900, 10.0))
    identity = evse.station.identity
    bus.put_wants([bus.Want(identity, evse.number, amps, None, "plan", now, now + SOON, phases=3, periods=steps)])


async def ask(verb: Any, *args: Any, **more: Any) -> dict[str, Any]:
    answer: dict[str, Any] = await sync_to_async(verb)(*args, **more)
    return answer


# ---------------------------------------------------------------------- whole sessions

BOOT_16 = {"chargePointVendor": "Strict", "chargePointModel": "One", "firmwareVersion": "1.0"}
SCHEDULE_16 = {
    "status": "Accepted",
    "connectorId": 1,
    "scheduleStart": "2026-11-24T10:00:00Z",
    "chargingSchedule": {"chargingRateUnit": "A", "chargingSchedulePeriod": [{"startPeriod": 0, "limit": 12.0}]},
}
KEYS_16 = {
    "configurationKey": [
        {"key": "NumberOfConnectors", "readonly": True, "value": "2"},
        {"key": "ChargeProfileMaxStackLevel", "readonly": True, "value": "8"},
        {"key": "ChargingScheduleAllowedChargingRateUnit", "readonly": True, "value": "Current"},
    ]
}


async def test_r32_a_strict_1_6_station_finds_nothing_wrong_in_a_whole_session(playing: Node) -> None:
    row = await accepted()
    one = await EVSE.objects.select_related("station").aget(station=row, number=1)
    token = await IdToken.objects.aget(value=TOKEN)
    answers = {
        "GetConfiguration": KEYS_16,
        "GetCompositeSchedule": SCHEDULE_16,
        "GetLocalListVersion": {"listVersion": 3},
        "UnlockConnector": {"status": "Unlocked"},
        "GetDiagnostics": {"fileName": "log.zip"},
        "UpdateFirmware": {},
        "DataTransfer": {"status": "Accepted", "data": "ok"},
        "GetLog": {"status": "Accepted", "filename": "log.zip"},
    }
    async with running() as gateway:
        station = await independent(playing, gateway.port, "RPC é/1", [V16], answers=answers)
        assert (await station.call("BootNotification", BOOT_16))["status"] == "Accepted"
        for connector in (0, 1, 2):
            status = {"connectorId": connector, "errorCode": "NoError", "status": "Available", "timestamp": iso()}
            assert await station.call("StatusNotification", status) == {}
        assert await station.call("Heartbeat", {})
        assert (await station.call("Authorize", {"idTag": TOKEN}))["idTagInfo"] == {
            "status": "Accepted",
            "parentIdTag": "fleet",
        }
        await station.was_asked("SetChargingProfile")
        await station.was_asked("GetConfiguration")

        assert (await ask(calls.remote_start, one, token))["status"] == "Accepted"
        asked = await station.was_asked("RemoteStartTransaction")
        start = {"connectorId": 1, "idTag": asked["idTag"], "meterStart": 1000, "timestamp": iso()}
        tid = (await station.call("StartTransaction", start))["transactionId"]
        await want(one, 12.0)
        live = await station.was_asked(
            "SetChargingProfile", lambda p: p["csChargingProfiles"].get("transactionId") == tid
        )
        assert live["csChargingProfiles"]["chargingProfilePurpose"] == "TxProfile"
        for wh in (1200, 1400):
            sampled = [
                {"value": str(wh), "unit": "Wh"},
                {"value": "11.5", "measurand": "Current.Import", "phase": "L1"},
            ]
            values = {
                "connectorId": 1,
                "transactionId": tid,
                "meterValue": [{"timestamp": iso(), "sampledValue": sampled}],
            }
            assert await station.call("MeterValues", values) == {}

        shown = await ask(calls.composite_schedule, one, 600)
        assert shown["periods"] == [{"start_s": 0, "limit": 12.0, "phases": None}]
        await ask(calls.set_variable, row, "", "HeartbeatInterval", "120")
        await ask(calls.get_variables, row, ["HeartbeatInterval"])
        await ask(calls.trigger, row, "StatusNotification", one)
        await ask(calls.trigger, row, "LogStatusNotification")
        await ask(calls.change_availability, row, False, one)
        await ask(calls.unlock, one)
        await ask(calls.data_transfer, row, "Strict", "hello", "{}")
        await ask(calls.clear_limits, one)
        for action, payload in RAW_16:
            await ask(calls.send, row, action, payload)

        transaction = await Transaction.objects.select_related("station").aget(transaction_id=str(tid))
        assert (await ask(calls.remote_stop, transaction))["status"] == "Accepted"
        stop = {"transactionId": tid, "meterStop": 1600, "timestamp": iso(), "reason": "Remote", "idTag": TOKEN}
        assert (await station.call("StopTransaction", stop))["idTagInfo"]["status"] == "Accepted"
        for action, payload in NOTICES_16:
            await station.call(action, payload)
        await ask(calls.reset, row)
        await written(gateway)
        assert playing.objections() == []
    ended = await Transaction.objects.aget()
    assert (ended.energy_wh, ended.open) == (600, False)


RAW_16: list[tuple[str, dict[str, Any]]] = [
    ("ReserveNow", {"connectorId": 1, "expiryDate": "2026-11-24T12:00:00Z", "idTag": TOKEN, "reservationId": 5}),
    ("CancelReservation", {"reservationId": 5}),
    ("GetLocalListVersion", {}),
    (
        "SendLocalList",
        {
            "listVersion": 4,
            "updateType": "Full",
            "localAuthorizationList": [{"idTag": TOKEN, "idTagInfo": {"status": "Accepted"}}],
        },
    ),
    ("ClearCache", {}),
    ("UpdateFirmware", {"location": "https://files.example/fw.bin", "retrieveDate": "2026-11-24T12:00:00Z"}),
    ("GetDiagnostics", {"location": "https://files.example/up/"}),
    (
        "GetLog",
        {"logType": "DiagnosticsLog", "requestId": 7, "log": {"remoteLocation": "https://files.example/up/"}},
    ),
]
NOTICES_16: list[tuple[str, dict[str, Any]]] = [
    ("FirmwareStatusNotification", {"status": "Installed"}),
    ("DiagnosticsStatusNotification", {"status": "Uploaded"}),
    ("LogStatusNotification", {"status": "Uploaded", "requestId": 7}),
    ("SecurityEventNotification", {"type": "StartupOfTheDevice", "timestamp": "2026-11-24T10:00:00Z"}),
    ("DataTransfer", {"vendorId": "Strict", "data": "x"}),
]

BOOT_201 = {"reason": "PowerUp", "chargingStation": {"vendorName": "Strict", "model": "Two", "firmwareVersion": "2"}}
SCHEDULE_201 = {
    "status": "Accepted",
    "schedule": {
        "evseId": 1,
        "duration": 600,
        "scheduleStart": "2026-11-24T10:00:00Z",
        "chargingRateUnit": "A",
        "chargingSchedulePeriod": [{"startPeriod": 0, "limit": 12.0}],
    },
}


async def test_r32_a_strict_2_0_1_station_finds_nothing_wrong_in_a_whole_session(playing: Node) -> None:
    row = await accepted()
    one = await EVSE.objects.select_related("station").aget(station=row, number=1)
    token = await IdToken.objects.aget(value=TOKEN)
    answers = {
        "GetCompositeSchedule": SCHEDULE_201,
        "UnlockConnector": {"status": "Unlocked"},
        "GetLocalListVersion": {"versionNumber": 3},
        "GetTransactionStatus": {"messagesInQueue": False},
        "CostUpdated": {},
        "UnpublishFirmware": {"status": "Unpublished"},
        "GetInstalledCertificateIds": {"status": "NotFound"},
    }
    async with running() as gateway:
        station = await independent(playing, gateway.port, "RPC é/1", [V201], answers=answers)
        assert (await station.call("BootNotification", BOOT_201))["status"] == "Accepted"
        for evse in (1, 2):
            status = {"timestamp": iso(), "connectorStatus": "Available", "evseId": evse, "connectorId": 1}
            assert await station.call("StatusNotification", status) == {}
        await station.call("Heartbeat", {})
        shown_token = {"idToken": TOKEN, "type": "ISO14443"}
        verdict = (await station.call("Authorize", {"idToken": shown_token}))["idTokenInfo"]
        assert verdict["status"] == "Accepted"
        report = await station.was_asked("GetBaseReport")
        part = {
            "component": {"name": "SmartChargingCtrlr"},
            "variable": {"name": "ProfileStackLevel"},
            "variableAttribute": [{"value": "4", "mutability": "ReadOnly"}],
        }
        body = {"requestId": report["requestId"], "generatedAt": iso(), "seqNo": 0, "reportData": [part]}
        assert await station.call("NotifyReport", body) == {}

        await ask(calls.remote_start, one, token)
        asked = await station.was_asked("RequestStartTransaction")
        seq = iter(range(100))

        async def tell(kind: str, trigger: str, wh: float, **more: Any) -> dict[str, Any]:
            info = {"transactionId": "strict-tx-1", **more.pop("info", {})}
            context = {"Started": "Transaction.Begin", "Ended": "Transaction.End"}.get(kind, "Sample.Periodic")
            sampled = [{"value": wh, "context": context, "unitOfMeasure": {"unit": "Wh"}}]
            event = {
                "eventType": kind,
                "timestamp": iso(),
                "triggerReason": trigger,
                "seqNo": next(seq),
                "transactionInfo": info,
                "evse": {"id": 1, "connectorId": 1},
                "meterValue": [{"timestamp": iso(), "sampledValue": sampled}],
                **more,
            }
            answer: dict[str, Any] = await station.call("TransactionEvent", event)
            return answer

        remote = {"chargingState": "EVConnected", "remoteStartId": asked["remoteStartId"]}
        answer = await tell("Started", "RemoteStart", 1000, info=remote, idToken=asked["idToken"])
        assert answer["idTokenInfo"]["status"] == "Accepted"
        await tell("Updated", "ChargingStateChanged", 1000, info={"chargingState": "Charging"})
        await want(one, 12.0)
        live = await station.was_asked(
            "SetChargingProfile", lambda p: p["chargingProfile"].get("transactionId") == "strict-tx-1"
        )
        assert live["chargingProfile"]["chargingProfilePurpose"] == "TxProfile"
        await tell("Updated", "MeterValuePeriodic", 1300)

        shown = await ask(calls.composite_schedule, one, 600)
        assert shown["periods"] == [{"start_s": 0, "limit": 12.0, "phases": None}]
        await ask(calls.set_variable, row, "OCPPCommCtrlr", "HeartbeatInterval", "120")
        await ask(calls.get_variables, row, None)
        await ask(calls.request_report, row)
        await ask(calls.trigger, row, "StatusNotification", one)
        await ask(calls.change_availability, row, False, one)
        await ask(calls.unlock, one)
        await ask(calls.data_transfer, row, "Strict", "hello", "{}")
        await ask(calls.clear_limits, one)
        for action, payload in RAW_201:
            await ask(calls.send, row, action, payload)

        transaction = await Transaction.objects.select_related("station").aget()
        assert (await ask(calls.remote_stop, transaction))["status"] == "Accepted"
        await tell("Ended", "RemoteStop", 1750, info={"stoppedReason": "Remote"})
        for action, payload in NOTICES_201:
            await station.call(action, payload)
        await ask(calls.reset, row, immediate=True)
        await written(gateway)
        assert playing.objections() == []
    ended = await Transaction.objects.aget()
    assert (ended.energy_wh, ended.open) == (750, False)


_MONITOR = {
    "value": 1,
    "type": "UpperThreshold",
    "severity": 5,
    "component": {"name": "EVSE", "evse": {"id": 1}},
    "variable": {"name": "Power"},
}
RAW_201: list[tuple[str, dict[str, Any]]] = [
    (
        "ReserveNow",
        {"id": 5, "expiryDateTime": "2026-11-24T12:00:00Z", "idToken": {"idToken": TOKEN, "type": "ISO14443"}},
    ),
    ("CancelReservation", {"reservationId": 5}),
    ("GetLocalListVersion", {}),
    ("SendLocalList", {"versionNumber": 4, "updateType": "Full"}),
    ("ClearCache", {}),
    ("GetTransactionStatus", {"transactionId": "strict-tx-1"}),
    ("CostUpdated", {"totalCost": 1.25, "transactionId": "strict-tx-1"}),
    (
        "UpdateFirmware",
        {
            "requestId": 6,
            "firmware": {"location": "https://files.example/fw", "retrieveDateTime": "2026-11-24T12:00:00Z"},
        },
    ),
    ("GetLog", {"logType": "DiagnosticsLog", "requestId": 7, "log": {"remoteLocation": "https://files.example/up/"}}),
    ("GetReport", {"requestId": 8}),
    ("SetVariableMonitoring", {"setMonitoringData": [_MONITOR]}),
    ("ClearVariableMonitoring", {"id": [1]}),
    ("SetMonitoringBase", {"monitoringBase": "All"}),
    ("SetMonitoringLevel", {"severity": 4}),
    ("GetMonitoringReport", {"requestId": 9}),
    ("GetChargingProfiles", {"requestId": 10, "chargingProfile": {"chargingLimitSource": ["CSO"]}}),
    ("GetDisplayMessages", {"requestId": 11}),
    (
        "SetDisplayMessage",
        {"message": {"id": 1, "priority": "NormalCycle", "message": {"format": "UTF8", "content": "é"}}},
    ),
    ("ClearDisplayMessage", {"id": 1}),
    ("CustomerInformation", {"requestId": 12, "report": True, "clear": False, "customerIdentifier": "x"}),
    ("GetInstalledCertificateIds", {}),
]
NOTICES_201: list[tuple[str, dict[str, Any]]] = [
    ("FirmwareStatusNotification", {"status": "Installed", "requestId": 6}),
    ("LogStatusNotification", {"status": "Uploaded", "requestId": 7}),
    ("SecurityEventNotification", {"type": "StartupOfTheDevice", "timestamp": "2026-11-24T10:00:00Z"}),
    ("NotifyChargingLimit", {"chargingLimit": {"chargingLimitSource": "EMS"}}),
    ("ClearedChargingLimit", {"chargingLimitSource": "EMS"}),
    ("ReservationStatusUpdate", {"reservationId": 5, "reservationUpdateStatus": "Expired"}),
    (
        "NotifyEVChargingNeeds",
        {
            "evseId": 1,
            "chargingNeeds": {"requestedEnergyTransfer": "AC_three_phase", "departureTime": "2026-11-24T18:00:00Z"},
        },
    ),
    (
        "NotifyEvent",
        {
            "generatedAt": "2026-11-24T10:00:00Z",
            "seqNo": 0,
            "eventData": [
                {
                    "eventId": 1,
                    "timestamp": "2026-11-24T10:00:00Z",
                    "trigger": "Delta",
                    "actualValue": "1",
                    "eventNotificationType": "CustomMonitor",
                    "component": {"name": "EVSE"},
                    "variable": {"name": "Power"},
                }
            ],
        },
    ),
    ("DataTransfer", {"vendorId": "Strict", "data": {"aB": 1}}),
]


# ---------------------------------------------------------------------- what it says wrong, and what we refuse


@pytest.mark.parametrize("version", [V16, V201])
async def test_our_refusals_are_errors_the_strict_station_understands(version: str, playing: Node) -> None:
    await accepted()
    async with running() as gateway:
        station = await independent(playing, gateway.port, "RPC é/1", [V201, V16] if version == V201 else [V16])
        assert (await station.sees("open"))["protocol"] == version
        with pytest.raises(Refused, match="NotSupported"):
            await station.call("Reset", {"type": "Soft"} if version == V16 else {"type": "Immediate"})
        await station.answers(ClearCache={"error": "NotSupported", "description": "no cache"})
        with pytest.raises(bus.CallRefused, match="NotSupported: no cache"):
            await sync_to_async(bus.request)("RPC é/1", "ClearCache", {}, 5)
        assert playing.objections() == []


# ---------------------------------------------------------------------- its identity and its coming back

IDENTITIES = ["RPC é/1", "a b#c?d=e", "100%", "..%2F..", "Ünïcödé", "A" * 48]


async def test_q3_identities_are_decoded_whatever_the_client_had_to_encode(playing: Node) -> None:
    for identity in IDENTITIES:
        await accepted(identity, password="correct horse battery")
    async with running() as gateway:
        for identity in IDENTITIES:
            station = await independent(playing, gateway.port, identity, [V16], password="correct horse battery")
            await station.call("BootNotification", BOOT_16)
            assert identity in gateway.sessions
        with pytest.raises(Refused, match="401"):
            await independent(playing, gateway.port, "RPC é/1", [V16], password="wrong")
        assert set(gateway.sessions) == set(IDENTITIES)
        assert playing.objections() == []


async def test_r28_a_station_that_changes_its_version_keeps_its_charge_and_mixes_no_schemas(playing: Node) -> None:
    row = await accepted()
    async with running() as gateway:
        old = await independent(playing, gateway.port, "RPC é/1", [V16], reconnect=False)
        await old.call("BootNotification", BOOT_16)
        start = {"connectorId": 1, "idTag": TOKEN, "meterStart": 1000, "timestamp": iso()}
        tid = (await old.call("StartTransaction", start))["transactionId"]
        new = await independent(playing, gateway.port, "RPC é/1", [V201, V16], reconnect=False)
        await old.sees("disconnect")
        await new.call("BootNotification", BOOT_201)
        held = await sync_to_async(bus.holder)("RPC é/1")
        assert held is not None and held.protocol == V201
        await new.was_asked("SetChargingProfile")
        event = {
            "eventType": "Ended",
            "timestamp": iso(),
            "triggerReason": "StopAuthorized",
            "seqNo": 9,
            "transactionInfo": {"transactionId": str(tid)},
            "meterValue": [{"timestamp": iso(), "sampledValue": [{"value": 1800, "context": "Transaction.End"}]}],
        }
        await new.call("TransactionEvent", event)
        again = await independent(playing, gateway.port, "RPC é/1", [V16], reconnect=False)
        await new.sees("disconnect")
        await again.call("BootNotification", BOOT_16)
        await again.was_asked("SetChargingProfile")
        await written(gateway)
        assert playing.objections() == []
    transaction = await Transaction.objects.aget(station=row)
    assert (transaction.energy_wh, transaction.open) == (800, False)


async def test_r9_it_comes_back_by_itself_after_a_cut_and_its_charge_goes_on(playing: Node) -> None:
    row = await accepted()
    async with running() as gateway, FaultProxy(gateway.port) as proxy:
        station = await independent(playing, proxy.port, "RPC é/1", [V16])
        await station.call("BootNotification", BOOT_16)
        start = {"connectorId": 1, "idTag": TOKEN, "meterStart": 1000, "timestamp": iso()}
        proxy.once("down", "transactionId", "cut")
        with pytest.raises(Refused, match="disconnected"):
            await station.call("StartTransaction", start)
        await station.sees("open", times=2)
        tid = (await station.call("StartTransaction", start))["transactionId"]
        proxy.cut()
        await station.sees("open", times=3)
        stop = {"transactionId": tid, "meterStop": 1800, "timestamp": iso()}
        await station.call("StopTransaction", stop)
        await written(gateway)
        assert playing.objections() == []
    transaction = await Transaction.objects.aget(station=row)
    assert (transaction.energy_wh, transaction.open) == (800, False)


async def test_r30_a_new_password_opens_where_the_old_one_did_and_the_charge_goes_on(playing: Node) -> None:
    row = await accepted(password="correct horse battery")
    async with running() as gateway:
        station = await independent(playing, gateway.port, "RPC é/1", [V16], password="correct horse battery")
        await station.call("BootNotification", BOOT_16)
        start = {"connectorId": 1, "idTag": TOKEN, "meterStart": 1000, "timestamp": iso()}
        tid = (await station.call("StartTransaction", start))["transactionId"]

        @sync_to_async
        def change() -> None:
            row.set_password("staple horse battery")
            row.save()
            bus.announce_change("station", row.pk)

        await change()
        assert await station.call("Heartbeat", {})  # a session that stands is not ended by it
        for _ in range(250):
            if gateway.memory.stations["RPC é/1"].password_hash == row.password_hash:
                break
            await asyncio.sleep(0.02)
        await playing.do("reconfigure", station=station.name, options={"password": "staple horse battery"})
        await playing.do("cut", station=station.name)
        await station.sees("open", times=2)
        await station.call("StopTransaction", {"transactionId": tid, "meterStop": 1800, "timestamp": iso()})
        with pytest.raises(Refused, match="401"):
            await independent(playing, gateway.port, "RPC é/1", [V16], password="correct horse battery")
        assert playing.objections() == []
    assert (await Transaction.objects.aget()).energy_wh == 800


@pytest.mark.parametrize(("offered", "spoken"), [([V16], V16), ([V16, V201], V201), ([V201], V201), ([], "")])
async def test_r19_it_speaks_the_newest_dialect_both_know(offered: list[str], spoken: str, playing: Node) -> None:
    await accepted()
    async with running() as gateway:
        station = await independent(playing, gateway.port, "RPC é/1", offered, strictMode=bool(offered))
        assert (await station.sees("open"))["protocol"] == spoken
        assert await station.call("Heartbeat", {})


async def test_r19_a_dialect_nobody_speaks_is_refused(playing: Node) -> None:
    await accepted()
    async with running() as gateway:
        with pytest.raises(Refused, match="400"):
            await independent(playing, gateway.port, "RPC é/1", ["ocpp1.5"], strictMode=False)
        assert gateway.sessions == {}

"""Asking a station beyond the daily things: lists, firmware, logs, its device model, monitors, its display."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from asgiref.sync import sync_to_async

from csms import bus, calls, display, inspection
from csms.models import EVSE, ChargingStation, IdToken, Transaction
from csms.reported import Monitor, Place
from csms.reported_models import VariableMonitor
from csms.vocabulary import ListEntry, ShownToken, Verdict
from meters.models import Site
from tests.csms.charge_point import V16, V201, running, station

pytestmark = pytest.mark.django_db(transaction=True)

NOON = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
Z = "2026-11-24T12:00:00.000Z"
PLACE = Place("EVSE", "Power", evse=2)
UNKNOWN_IN_16 = None


class World:
    """A station with a token and a running charge; what it is asked, and what it answers."""

    def __init__(self) -> None:
        site = Site.objects.create(name="Campus")
        self.token = IdToken.objects.create(site=site, value="04A1B2C3", group="FLEET")
        self.row = ChargingStation.objects.create(identity="CS-1", site=site, admission="accepted", quiet=True)
        self.evse = EVSE.objects.create(station=self.row, number=2)
        self.charge = Transaction.objects.create(
            station=self.row, evse=self.evse, transaction_id="77", started_at=NOON - timedelta(hours=1)
        )


def _entries() -> list[ListEntry]:
    return [
        ListEntry(ShownToken("04A1B2C3", "ISO14443"), Verdict("accepted", "FLEET", NOON)),
        ListEntry(ShownToken("GONE", "ISO14443")),
    ]


# what is done; what a 1.6 station is asked (None: it has no such thing); what a 2.0.1 station is asked
VERBS: dict[str, tuple[Any, Any, Any]] = {
    "a list": (
        lambda w: calls.send_local_list(w.row, _entries(), 5, True),
        (
            "SendLocalList",
            {
                "listVersion": 5,
                "updateType": "Differential",
                "localAuthorizationList": [
                    {
                        "idTag": "04A1B2C3",
                        "idTagInfo": {"status": "Accepted", "parentIdTag": "FLEET", "expiryDate": Z},
                    },
                    {"idTag": "GONE"},
                ],
            },
        ),
        (
            "SendLocalList",
            {
                "versionNumber": 5,
                "updateType": "Differential",
                "localAuthorizationList": [
                    {
                        "idToken": {"idToken": "04A1B2C3", "type": "ISO14443"},
                        "idTokenInfo": {
                            "status": "Accepted",
                            "groupIdToken": {"idToken": "FLEET", "type": "Central"},
                            "cacheExpiryDateTime": Z,
                        },
                    },
                    {"idToken": {"idToken": "GONE", "type": "ISO14443"}},
                ],
            },
        ),
    ),
    "the cache": (lambda w: calls.clear_cache(w.row), ("ClearCache", {}), ("ClearCache", {})),
    "a reservation": (
        lambda w: calls.reserve(w.evse, w.token, NOON, 9, "cCCS2"),
        (
            "ReserveNow",
            {
                "connectorId": 2,
                "expiryDate": Z,
                "idTag": "04A1B2C3",
                "reservationId": 9,
                "parentIdTag": "FLEET",
            },
        ),
        (
            "ReserveNow",
            {
                "id": 9,
                "expiryDateTime": Z,
                "idToken": {"idToken": "04A1B2C3", "type": "ISO14443"},
                "evseId": 2,
                "connectorType": "cCCS2",
                "groupIdToken": {"idToken": "FLEET", "type": "Central"},
            },
        ),
    ),
    "a reservation taken back": (
        lambda w: calls.cancel_reservation(w.row, 9),
        ("CancelReservation", {"reservationId": 9}),
        ("CancelReservation", {"reservationId": 9}),
    ),
    "firmware": (
        lambda w: calls.update_firmware(w.row, "https://x.org/f", NOON, 2, 60, request_id=8),
        ("UpdateFirmware", {"location": "https://x.org/f", "retrieveDate": Z, "retries": 2, "retryInterval": 60}),
        (
            "UpdateFirmware",
            {
                "requestId": 8,
                "firmware": {"location": "https://x.org/f", "retrieveDateTime": Z},
                "retries": 2,
                "retryInterval": 60,
            },
        ),
    ),
    "signed firmware": (
        lambda w: calls.update_firmware(
            w.row, "https://x.org/f", NOON, signature="sig", certificate="pem", install_at=NOON, request_id=8
        ),
        (
            "SignedUpdateFirmware",
            {
                "requestId": 8,
                "firmware": {
                    "location": "https://x.org/f",
                    "retrieveDateTime": Z,
                    "installDateTime": Z,
                    "signingCertificate": "pem",
                    "signature": "sig",
                },
            },
        ),
        (
            "UpdateFirmware",
            {
                "requestId": 8,
                "firmware": {
                    "location": "https://x.org/f",
                    "retrieveDateTime": Z,
                    "installDateTime": Z,
                    "signingCertificate": "pem",
                    "signature": "sig",
                },
            },
        ),
    ),
    "published firmware": (
        lambda w: calls.publish_firmware(w.row, "https://x.org/f", "abc", 8),
        UNKNOWN_IN_16,
        ("PublishFirmware", {"location": "https://x.org/f", "checksum": "abc", "requestId": 8}),
    ),
    "firmware no longer published": (
        lambda w: calls.unpublish_firmware(w.row, "abc"),
        UNKNOWN_IN_16,
        ("UnpublishFirmware", {"checksum": "abc"}),
    ),
    "diagnostics": (
        lambda w: calls.fetch_log(w.row, "https://x.org/l", "diagnostics", NOON, NOON, 8),
        ("GetDiagnostics", {"location": "https://x.org/l", "startTime": Z, "stopTime": Z}),
        (
            "GetLog",
            {
                "logType": "DiagnosticsLog",
                "requestId": 8,
                "log": {"remoteLocation": "https://x.org/l", "oldestTimestamp": Z, "latestTimestamp": Z},
            },
        ),
    ),
    "a security log": (
        lambda w: calls.fetch_log(w.row, "https://x.org/l", "security", None, None, 8, 1, 5),
        (
            "GetLog",
            {
                "logType": "SecurityLog",
                "requestId": 8,
                "log": {"remoteLocation": "https://x.org/l"},
                "retries": 1,
                "retryInterval": 5,
            },
        ),
        (
            "GetLog",
            {
                "logType": "SecurityLog",
                "requestId": 8,
                "log": {"remoteLocation": "https://x.org/l"},
                "retries": 1,
                "retryInterval": 5,
            },
        ),
    ),
    "a start with a limit": (
        lambda w: calls.remote_start(w.evse, w.token, limit_a=10),
        (
            "RemoteStartTransaction",
            {
                "connectorId": 2,
                "idTag": "04A1B2C3",
                "chargingProfile": {
                    "chargingProfileId": 300,
                    "stackLevel": 0,
                    "chargingProfilePurpose": "TxProfile",
                    "chargingProfileKind": "Relative",
                    "chargingSchedule": {
                        "chargingRateUnit": "A",
                        "chargingSchedulePeriod": [{"startPeriod": 0, "limit": 10}],
                    },
                },
            },
        ),
        (
            "RequestStartTransaction",
            {
                "evseId": 2,
                "idToken": {"idToken": "04A1B2C3", "type": "ISO14443"},
                "groupIdToken": {"idToken": "FLEET", "type": "Central"},
                "chargingProfile": {
                    "id": 300,
                    "stackLevel": 0,
                    "chargingProfilePurpose": "TxProfile",
                    "chargingProfileKind": "Relative",
                    "chargingSchedule": [
                        {
                            "id": 300,
                            "chargingRateUnit": "A",
                            "chargingSchedulePeriod": [{"startPeriod": 0, "limit": 10}],
                        }
                    ],
                },
            },
        ),
    ),
    "a trigger of core 1.6": (
        lambda w: calls.trigger(w.row, "DiagnosticsStatusNotification"),
        ("TriggerMessage", {"requestedMessage": "DiagnosticsStatusNotification"}),
        ("TriggerMessage", {"requestedMessage": "LogStatusNotification"}),
    ),
    "a trigger of the security extension": (
        lambda w: calls.trigger(w.row, "SignChargingStationCertificate"),
        ("ExtendedTriggerMessage", {"requestedMessage": "SignChargePointCertificate"}),
        ("TriggerMessage", {"requestedMessage": "SignChargingStationCertificate"}),
    ),
    "profiles taken away": (
        lambda w: inspection.clear_profiles(w.row, None, w.evse, "TxProfile", 1),
        ("ClearChargingProfile", {"connectorId": 2, "chargingProfilePurpose": "TxProfile", "stackLevel": 1}),
        (
            "ClearChargingProfile",
            {"chargingProfileCriteria": {"evseId": 2, "chargingProfilePurpose": "TxProfile", "stackLevel": 1}},
        ),
    ),
    "one profile taken away": (
        lambda w: inspection.clear_profiles(w.row, 12),
        ("ClearChargingProfile", {"id": 12}),
        ("ClearChargingProfile", {"chargingProfileId": 12}),
    ),
    "the profiles": (
        lambda w: inspection.report_profiles(w.row, w.evse),
        UNKNOWN_IN_16,
        (
            "GetChargingProfiles",
            {"evseId": 2, "chargingProfile": {"chargingLimitSource": ["EMS", "Other", "SO", "CSO"]}},
        ),
    ),
    "an inventory": (
        lambda w: inspection.base_report(w.row, "SummaryInventory"),
        UNKNOWN_IN_16,
        ("GetBaseReport", {"reportBase": "SummaryInventory"}),
    ),
    "a report by criteria": (
        lambda w: inspection.report(w.row, ["EVSE.Power", "Connector"], ["Problem"]),
        UNKNOWN_IN_16,
        (
            "GetReport",
            {
                "componentVariable": [
                    {"component": {"name": "EVSE"}, "variable": {"name": "Power"}},
                    {"component": {"name": "Connector"}},
                ],
                "componentCriteria": ["Problem"],
            },
        ),
    ),
    "a network profile": (
        lambda w: inspection.set_network_profile(w.row, 2, "wss://x.org/ocpp", 2, "Wired0"),
        UNKNOWN_IN_16,
        (
            "SetNetworkProfile",
            {
                "configurationSlot": 2,
                "connectionData": {
                    "ocppVersion": "OCPP20",
                    "ocppTransport": "JSON",
                    "ocppCsmsUrl": "wss://x.org/ocpp",
                    "messageTimeout": 30,
                    "securityProfile": 2,
                    "ocppInterface": "Wired0",
                },
            },
        ),
    ),
    "a message": (
        lambda w: display.show_message(
            w.row, 3, "Hallo", priority="InFront", state="Idle", starts=NOON, ends=NOON + timedelta(hours=1),
            transaction=w.charge, language="nl",
        ),
        UNKNOWN_IN_16,
        (
            "SetDisplayMessage",
            {
                "message": {
                    "id": 3,
                    "priority": "InFront",
                    "state": "Idle",
                    "startDateTime": Z,
                    "endDateTime": "2026-11-24T13:00:00.000Z",
                    "transactionId": "77",
                    "message": {"format": "UTF8", "content": "Hallo", "language": "nl"},
                }
            },
        ),
    ),
    "the messages": (
        lambda w: display.report_messages(w.row, [3], "InFront", "Idle"),
        UNKNOWN_IN_16,
        ("GetDisplayMessages", {"id": [3], "priority": "InFront", "state": "Idle"}),
    ),
    "a message no longer": (
        lambda w: display.clear_message(w.row, 3),
        UNKNOWN_IN_16,
        ("ClearDisplayMessage", {"id": 3}),
    ),
    "a customer": (
        lambda w: display.customer_information(w.row, report=True, clear=True, id_token=w.token),
        UNKNOWN_IN_16,
        (
            "CustomerInformation",
            {"report": True, "clear": True, "idToken": {"idToken": "04A1B2C3", "type": "ISO14443"}},
        ),
    ),
    "a cost": (
        lambda w: display.tell_cost(w.charge, 3.25),
        UNKNOWN_IN_16,
        ("CostUpdated", {"totalCost": 3.25, "transactionId": "77"}),
    ),
    "the base of monitoring": (
        lambda w: inspection.set_monitoring_base(w.row, "All"),
        UNKNOWN_IN_16,
        ("SetMonitoringBase", {"monitoringBase": "All"}),
    ),
    "the level of monitoring": (
        lambda w: inspection.set_monitoring_level(w.row, 4),
        UNKNOWN_IN_16,
        ("SetMonitoringLevel", {"severity": 4}),
    ),
    "the monitors": (
        lambda w: inspection.monitoring_report(w.row, ["DeltaMonitoring"], ["EVSE.Power"]),
        UNKNOWN_IN_16,
        (
            "GetMonitoringReport",
            {
                "monitoringCriteria": ["DeltaMonitoring"],
                "componentVariable": [{"component": {"name": "EVSE"}, "variable": {"name": "Power"}}],
            },
        ),
    ),
}  # fmt: skip

CASES = [
    *[pytest.param(V16, do, told, id=f"1.6 {name}") for name, (do, told, _) in VERBS.items()],
    *[pytest.param(V201, do, told, id=f"2.0.1 {name}") for name, (do, _, told) in VERBS.items()],
]


@pytest.mark.parametrize(("version", "do", "told"), CASES)
async def test_what_is_asked_reaches_the_station_in_its_dialect(version: str, do: Any, told: Any) -> None:
    world = await sync_to_async(World)()
    async with running() as gateway, station(gateway, version=version) as bare:
        await bare.ask("Heartbeat", {})
        if told is UNKNOWN_IN_16:
            with pytest.raises(bus.CallNotValid, match=r"1\.6"):
                await sync_to_async(do)(world)
            assert bare.asked == []
            return
        bare.answers |= {"GetDiagnostics": {"fileName": "d.zip"}, "CostUpdated": {}, "UpdateFirmware": {}}
        if version == V201:
            bare.answers["UpdateFirmware"] = {"status": "Accepted"}
        answer = await sync_to_async(do)(world)
        asked = await bare.was_asked(told[0])
        if "requestId" in asked and "requestId" not in told[1]:
            assert asked.pop("requestId") == answer["request_id"]
        asked.pop("remoteStartId", None)
        assert asked == told[1]
        assert answer["status"] == "Accepted"


async def test_the_version_of_a_list_is_read_in_both_dialects() -> None:
    world = await sync_to_async(World)()
    for version, told, meant in (
        (V16, {"listVersion": 7}, ("Accepted", 7)),
        (V16, {"listVersion": -1}, ("NotSupported", 0)),
        (V201, {"versionNumber": 7}, ("Accepted", 7)),
    ):
        async with running() as gateway, station(gateway, version=version) as bare:
            await bare.ask("Heartbeat", {})
            bare.answers["GetLocalListVersion"] = told
            answer = await sync_to_async(calls.local_list_version)(world.row)
            assert (answer["status"], answer["version"]) == meant


async def test_plain_firmware_and_diagnostics_of_1_6_name_no_request_to_follow() -> None:
    world = await sync_to_async(World)()
    async with running() as gateway, station(gateway) as bare:
        await bare.ask("Heartbeat", {})
        bare.answers |= {"UpdateFirmware": {}, "GetDiagnostics": {"fileName": "d.zip"}}
        bare.answers["GetLog"] = {"status": "Accepted", "filename": "s.zip"}
        plain = await sync_to_async(calls.update_firmware)(world.row, "https://x.org/f", NOON, request_id=8)
        log = await sync_to_async(calls.fetch_log)(world.row, "https://x.org/l", "diagnostics", request_id=8)
        secure = await sync_to_async(calls.fetch_log)(world.row, "https://x.org/l", "security", request_id=8)
        assert (plain["request_id"], log["request_id"], log["file_name"]) == (None, None, "d.zip")
        assert (secure["request_id"], secure["file_name"]) == (8, "s.zip")


async def test_monitors_that_are_set_and_cleared_are_remembered() -> None:
    world = await sync_to_async(World)()
    wished = [Monitor(PLACE, "UpperThreshold", 11_000, 3), Monitor(PLACE, "Delta", 1, 5)]

    def decide(payload: dict[str, Any]) -> dict[str, Any]:
        results = [
            {k: d[k] for k in ("component", "variable", "type", "severity")} | {"status": s} | more
            for d, (s, more) in zip(
                payload["setMonitoringData"], [("Accepted", {"id": 41}), ("UnsupportedMonitorType", {})], strict=True
            )
        ]
        return {"setMonitoringResult": results}

    async with running() as gateway, station(gateway, version=V201) as bare:
        await bare.ask("Heartbeat", {})
        bare.answers["SetVariableMonitoring"] = decide
        answer = await sync_to_async(inspection.set_monitors)(world.row, wished)
        assert (answer["status"], answer["numbers"]) == ("UnsupportedMonitorType", [41])
        row = await VariableMonitor.objects.aget(station=world.row)
        assert (row.number, row.place, row.severity) == (41, "EVSE.Power @2", 3)

        bare.answers["ClearVariableMonitoring"] = {
            "clearMonitoringResult": [{"id": 41, "status": "NotFound"}, {"id": 1, "status": "Rejected"}]
        }
        answer = await sync_to_async(inspection.clear_monitors)(world.row, [41, 1])
        assert answer["status"] == "NotFound"
        assert not await VariableMonitor.objects.aexists()

        await VariableMonitor.objects.acreate(
            station=world.row, number=5, type="Delta", value=1, severity=5, reported_at=NOON
        )
        bare.answers["GetMonitoringReport"] = {"status": "EmptyResultSet"}
        await sync_to_async(inspection.monitoring_report)(world.row)
        assert not await VariableMonitor.objects.aexists()


@pytest.mark.parametrize(
    ("told", "meant"),
    [
        ({"ongoingIndicator": True, "messagesInQueue": False}, ("Ongoing", True, False)),
        ({"ongoingIndicator": False, "messagesInQueue": True}, ("Ended", False, True)),
        ({"messagesInQueue": True}, ("Accepted", None, True)),
    ],
)
async def test_what_became_of_a_transaction_is_asked(told: dict[str, Any], meant: tuple[Any, ...]) -> None:
    world = await sync_to_async(World)()
    async with running() as gateway, station(gateway, version=V201) as bare:
        await bare.ask("Heartbeat", {})
        bare.answers["GetTransactionStatus"] = told
        answer = await sync_to_async(inspection.transaction_status)(world.row, world.charge)
        assert await bare.was_asked("GetTransactionStatus") == {"transactionId": "77"}
        assert (answer["status"], answer["ongoing"], answer["messages_waiting"]) == meant


async def test_many_variables_are_read_in_portions() -> None:
    world = await sync_to_async(World)()

    def read(payload: dict[str, Any]) -> dict[str, Any]:
        return {
            "getVariableResult": [
                {"attributeStatus": "Accepted", "attributeValue": "1", **d} for d in payload["getVariableData"]
            ]
        }

    async with running() as gateway, station(gateway, version=V201) as bare:
        await bare.ask("Heartbeat", {})
        bare.answers["GetVariables"] = read
        answer = await sync_to_async(calls.get_variables)(world.row, [f"C.V{n}" for n in range(45)])
        assert [len(p["getVariableData"]) for _, p in bare.asked] == [20, 20, 5]
        assert len(answer["variables"]) == 45


@pytest.mark.parametrize(
    ("field", "do"),
    [
        ("kind", lambda w: calls.fetch_log(w.row, "https://x.org", "everything")),
        ("limit_a", lambda w: calls.remote_start(w.evse, w.token, limit_a=500)),
        ("base", lambda w: inspection.base_report(w.row, "Everything")),
        ("criteria", lambda w: inspection.report(w.row, [], ["Broken"])),
        ("criteria", lambda w: inspection.monitoring_report(w.row, ["All"])),
        ("interface", lambda w: inspection.set_network_profile(w.row, 1, "wss://x.org", 2, "Wired9")),
        ("url", lambda w: inspection.set_network_profile(w.row, 1, "https://x.org", 2, "Wired0")),
        ("url", lambda w: inspection.set_network_profile(w.row, 1, "ws://x.org", 2, "Wired0")),
        ("base", lambda w: inspection.set_monitoring_base(w.row, "None")),
        ("severity", lambda w: inspection.set_monitoring_level(w.row, 10)),
        ("type", lambda w: inspection.set_monitors(w.row, [Monitor(PLACE, "Sometimes", 1, 1)])),
        ("text", lambda w: display.show_message(w.row, 1, "")),
        ("ends", lambda w: display.show_message(w.row, 1, "x", starts=NOON, ends=NOON)),
        ("id_token", lambda w: display.customer_information(w.row, report=True, clear=False)),
        ("report", lambda w: display.customer_information(w.row, report=False, clear=False, identifier="x")),
        ("total", lambda w: display.tell_cost(w.charge, -1)),
    ],
)
async def test_what_cannot_be_asked_is_said_by_the_name_of_the_field(field: str, do: Any) -> None:
    world = await sync_to_async(World)()
    async with running() as gateway, station(gateway, version=V201) as bare:
        await bare.ask("Heartbeat", {})
        with pytest.raises(bus.CallNotValid, match=f"^{field}"):
            await sync_to_async(do)(world)
        assert bare.asked == []

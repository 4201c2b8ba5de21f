"""A station at the door, and its first words, over real sockets."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from websockets.exceptions import InvalidStatus

from csms import admission, bus, calls
from csms.models import (
    EVSE,
    ChargingStation,
    Connector,
    IdToken,
    MeterSample,
    OcppMessage,
    StationVariable,
    Transaction,
)
from csms.obedience_models import StationModel
from csms.vocabulary import moment
from meters import live
from meters.models import Site
from tests.csms.charge_point import V16, V201, basic, running, station, written

pytestmark = pytest.mark.django_db(transaction=True)

BOOT_16 = {"chargePointVendor": "ACME", "chargePointModel": "Wall", "firmwareVersion": "1.0"}
BOOT_201 = {"reason": "PowerUp", "chargingStation": {"vendorName": "ACME", "model": "Pole", "firmwareVersion": "2.0"}}
AVAILABLE = {"connectorId": 1, "errorCode": "NoError", "status": "Available"}


@pytest.fixture(autouse=True)
def quick_hashes(settings: Any) -> None:
    """The slow hash is Django's; what is tested here is who gets in."""
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]


@sync_to_async
def accepted(identity: str = "CS-1", password: str = "", **more: Any) -> ChargingStation:
    site, _ = Site.objects.get_or_create(name="Campus")
    row = ChargingStation(**{"identity": identity, "site": site, "admission": "accepted", **more})
    row.set_password(password)
    row.save()
    IdToken.objects.get_or_create(site=site, value="04A1B2C3")
    return row


@sync_to_async
def change(row: ChargingStation, **fields: Any) -> None:
    ChargingStation.objects.filter(pk=row.pk).update(**fields)
    bus.announce_change("station", row.pk)


async def eventually(question: Any, what: str = "it never came true") -> Any:
    """Ask until the answer is true."""
    async with asyncio.timeout(10):
        while True:
            answer = await sync_to_async(question)()
            if answer:
                return answer
            await asyncio.sleep(0.02)
    raise AssertionError(what)


# ---------------------------------------------------------------------- first words


@pytest.mark.parametrize(("version", "boot"), [(V16, BOOT_16), (V201, BOOT_201)])
async def test_an_accepted_station_boots_and_is_remembered(version: str, boot: dict[str, Any]) -> None:
    await accepted()
    async with running(heartbeat_s=120) as gateway, station(gateway, version=version) as bare:
        answer = await bare.ask("BootNotification", boot)
        assert answer["status"] == "Accepted"
        assert 96 <= answer["interval"] <= 120  # spread, so that those who came together do not come again together
        assert "currentTime" in await bare.ask("Heartbeat", {})
        await bare.was_asked("SetChargingProfile")
        await written(gateway)
        row = await ChargingStation.objects.aget(identity="CS-1")
        assert (row.vendor, row.protocol) == ("ACME", version)
        held = await sync_to_async(bus.holder)("CS-1")
        assert held is not None and held.protocol == version
    assert await sync_to_async(bus.holder)("CS-1") is None
    assert await OcppMessage.objects.filter(station=row, action="BootNotification").acount() == 2


async def test_a_status_shows_with_its_iec_state() -> None:
    row = await accepted()
    async with running() as gateway, station(gateway) as bare:
        await bare.ask("StatusNotification", {**AVAILABLE, "status": "Preparing"})
        await written(gateway)
        evse = await EVSE.objects.aget(station=row, number=1)
        assert (evse.status, evse.iec_state) == ("Preparing", "B1")
        assert (await Connector.objects.aget(evse=evse)).iec_state == "B1"


async def test_an_action_that_is_ours_to_send_is_not_supported() -> None:
    await accepted()
    async with running() as gateway, station(gateway) as bare:
        assert (await bare.call("Reset", {"type": "Soft"}))[:3:2] == [4, "NotSupported"]


async def test_the_set_up_follows_a_boot_once_and_the_inventory_once_a_firmware() -> None:
    row = await accepted(fail_safe_a=8)
    keys = [
        {"key": "ChargeProfileMaxStackLevel", "value": "3", "readonly": True},
        {"key": "ChargingScheduleAllowedChargingRateUnit", "value": "Current", "readonly": True},
        {"key": "NumberOfConnectors", "value": "2", "readonly": True},
    ]
    tried: list[str] = []

    def configure(payload: dict[str, Any]) -> dict[str, Any]:
        if payload["key"] == "MeterValuesSampledData":
            tried.append(payload["value"])
            return {"status": "Rejected" if len(tried) < 3 else "Accepted"}
        return {"status": "Accepted"}

    async with running(meter_interval_s=15) as gateway, station(gateway) as bare:
        bare.answers = {"GetConfiguration": {"configurationKey": keys}, "ChangeConfiguration": configure}
        await bare.ask("BootNotification", BOOT_16)
        safe = await bare.was_asked("SetChargingProfile")
        profile = safe["csChargingProfiles"]
        assert (safe["connectorId"], profile["chargingProfilePurpose"], profile["stackLevel"]) == (
            0,
            "TxDefaultProfile",
            0,
        )
        assert profile["chargingSchedule"]["chargingSchedulePeriod"] == [{"startPeriod": 0, "limit": 8.0}]
        assert "duration" not in profile["chargingSchedule"]
        await bare.was_asked("GetConfiguration")
        await eventually(lambda: StationVariable.objects.filter(station=row).count() == 3)
        await eventually(lambda: EVSE.objects.filter(station=row).count() == 2)
        assert {"key": "MeterValueSampleInterval", "value": "15"} in [
            p for a, p in bare.asked if a == "ChangeConfiguration"
        ]
        assert len(tried) == 3 and tried[2] == ",".join(tried[0].split(",")[:-2])
        await eventually(lambda: StationModel.objects.get().value("rate_unit") == "A")

        bare.forget()
        await bare.ask("BootNotification", BOOT_16)
        await bare.was_asked("ChangeConfiguration", lambda p: p["key"] == "MeterValuesSampledData")
        assert len(tried) == 4  # the list that was taken before, at the first try
        assert not [a for a, _ in bare.asked if a == "GetConfiguration"]


async def test_a_quiet_station_is_sent_nothing() -> None:
    await accepted(quiet=True)
    async with running() as gateway, station(gateway) as bare:
        await bare.ask("BootNotification", BOOT_16)
        await bare.ask("StatusNotification", AVAILABLE)
        await asyncio.sleep(0.3)
        assert bare.asked == []


async def test_a_station_that_boots_in_circles_is_left_alone() -> None:
    await accepted()
    async with running() as gateway, station(gateway) as bare:
        for _ in range(3):
            await bare.ask("BootNotification", BOOT_16)
        bare.forget()
        await bare.ask("BootNotification", BOOT_16)
        await bare.was_asked("SetChargingProfile")
        await asyncio.sleep(0.2)
        assert {a for a, _ in bare.asked} == {"SetChargingProfile"}
        await sync_to_async(gateway.sessions["CS-1"].flush_counters)()
        await eventually(lambda: ChargingStation.objects.get().counters.get("restless_boots"))


async def test_an_inventory_of_a_2_0_1_station_is_kept() -> None:
    row = await accepted()
    async with running() as gateway, station(gateway, version=V201) as bare:
        await bare.ask("BootNotification", BOOT_201)
        await bare.was_asked("GetBaseReport")
        part = {
            "component": {"name": "SmartChargingCtrlr"},
            "variable": {"name": "ProfileStackLevel"},
            "variableAttribute": [{"value": "4", "mutability": "ReadOnly"}],
            "variableCharacteristics": {"dataType": "integer", "supportsMonitoring": False},
        }
        report = {"requestId": 1, "generatedAt": "2026-11-24T10:00:00Z", "seqNo": 0, "reportData": [part]}
        await bare.ask("NotifyReport", report)
        await written(gateway)
        assert (await StationVariable.objects.aget(station=row)).value == "4"
        assert (await StationModel.objects.aget()).value("max_stack_level") == 4


@pytest.mark.parametrize(
    ("action", "payload", "answer"),
    [
        ("DataTransfer", {"vendorId": "x"}, {"status": "UnknownVendorId"}),
        ("FirmwareStatusNotification", {"status": "Idle"}, {}),
        ("LogStatusNotification", {"status": "Idle"}, {}),
        ("SecurityEventNotification", {"type": "MemoryExhaustion", "timestamp": "2026-11-24T10:00:00Z"}, {}),
        ("ClearedChargingLimit", {"chargingLimitSource": "EMS"}, {}),
        (
            "NotifyEVChargingNeeds",
            {
                "evseId": 1,
                "chargingNeeds": {"requestedEnergyTransfer": "DC", "departureTime": "2026-11-24T18:00:00Z"},
            },
            {"status": "Processing"},
        ),
        ("ReservationStatusUpdate", {"reservationId": 1, "reservationUpdateStatus": "Expired"}, {}),
        ("SignCertificate", {"csr": "x"}, {"status": "Rejected"}),
        ("GetCertificateStatus", {"ocspRequestData": {
            "hashAlgorithm": "SHA256", "issuerNameHash": "a", "issuerKeyHash": "b", "serialNumber": "c",
            "responderURL": "http://x"}}, {"status": "Failed"}),
    ],
)  # fmt: skip
async def test_every_notice_is_answered(action: str, payload: dict[str, Any], answer: dict[str, Any]) -> None:
    await accepted()
    async with running() as gateway, station(gateway, version=V201) as bare:
        given = await bare.ask(action, payload)
        assert {name: given[name] for name in given if name != "statusInfo"} == answer


# ---------------------------------------------------------------------- the door


async def test_an_unknown_station_waits_in_quarantine_until_it_is_accepted() -> None:
    async with running() as gateway, station(gateway, "NEW 1/é") as bare:
        assert (await bare.ask("BootNotification", BOOT_16))["status"] == "Pending"
        await bare.ask("StatusNotification", AVAILABLE)
        assert (await bare.ask("Authorize", {"idTag": "04A1B2C3"}))["idTagInfo"]["status"] == "Invalid"
        started = {"connectorId": 1, "idTag": "04A1B2C3", "meterStart": 0, "timestamp": "2026-11-24T10:00:00Z"}
        answer = await bare.ask("StartTransaction", started)
        assert answer["idTagInfo"]["status"] == "Invalid" and answer["transactionId"] > 0
        assert bare.asked == []
        row = await ChargingStation.objects.aget(identity="NEW 1/é")
        assert row.admission == "quarantined"
        assert not (await Transaction.objects.aget(station=row)).authorized

        await change(row, admission="accepted")

        assert await bare.was_asked("TriggerMessage") == {"requestedMessage": "BootNotification"}
        assert (await bare.ask("BootNotification", BOOT_16))["status"] == "Accepted"


async def test_201_a_station_that_waits_may_say_only_what_it_is_asked_for() -> None:
    status = {"timestamp": "2026-11-24T10:00:00Z", "connectorStatus": "Available", "evseId": 1, "connectorId": 1}
    started = {
        "eventType": "Started",
        "timestamp": "2026-11-24T10:00:00Z",
        "triggerReason": "CablePluggedIn",
        "seqNo": 0,
        "transactionInfo": {"transactionId": "early"},
    }
    async with running() as gateway, station(gateway, "NEW", version=V201) as bare:
        assert (await bare.ask("BootNotification", BOOT_201))["status"] == "Pending"
        for action, payload in (("StatusNotification", status), ("Heartbeat", {})):
            assert (await bare.call(action, payload))[0::2][:2] == [4, "SecurityError"]
        await bare.ask("NotifyReport", {"requestId": 1, "generatedAt": "2026-11-24T10:00:00Z", "seqNo": 0})
        await bare.ask("TransactionEvent", started)
        row = await ChargingStation.objects.aget(identity="NEW")
        assert await Transaction.objects.filter(station=row, transaction_id="early").aexists()

        await sync_to_async(calls.send)(row, "TriggerMessage", {"requestedMessage": "StatusNotification"})
        await bare.ask("StatusNotification", status)

        await change(row, admission="accepted")
        await bare.was_asked("TriggerMessage", lambda p: p["requestedMessage"] == "BootNotification")
        assert (await bare.ask("BootNotification", BOOT_201))["status"] == "Accepted"
        await bare.ask("Heartbeat", {})


async def test_a_station_that_is_rejected_is_shown_out_and_not_let_in() -> None:
    row = await accepted()
    async with running() as gateway:
        async with station(gateway) as bare:
            await bare.ask("Heartbeat", {})
            await change(row, admission="rejected")
            assert await bare.closed() == 1008
        with pytest.raises(InvalidStatus, match="403"):
            async with station(gateway):
                pass


async def test_only_so_many_unknown_stations_wait(settings: Any) -> None:
    settings.OCPP_MAX_QUARANTINED = 1
    async with running() as gateway, station(gateway, "one"):
        with pytest.raises(InvalidStatus, match="401"):
            async with station(gateway, "two"):
                pass
    assert await ChargingStation.objects.acount() == 1


@pytest.mark.parametrize(
    "given",
    [
        b"correct horse battery",
        b"636f727265637420686f727365206261747465727900",
        b"\x00\xffnot utf8\xfe",
        b"",
    ],
)
async def test_a_wrong_password_and_an_unknown_station_get_the_same_answer(given: bytes, settings: Any) -> None:
    settings.OCPP_ALLOW_UNKNOWN = False
    await accepted(password="correct horse")
    seen = []
    async with running() as gateway:
        for identity in ("CS-1", "CS-2"):
            with pytest.raises(InvalidStatus) as refused:
                async with station(gateway, identity, headers=basic(identity, given)):
                    pass
            response = refused.value.response
            seen.append((response.status_code, response.body, response.headers["WWW-Authenticate"]))
    assert seen[0] == seen[1] and seen[0][0] == 401


KEY = "0001020304050607a8090a0b0c0d0e0f10111213"


@pytest.mark.parametrize(
    ("stored", "sent"),
    [
        ("correct horse", b"correct horse"),
        (KEY, KEY.encode()),
        (KEY, bytes.fromhex(KEY)),
        (KEY.upper(), KEY.encode()),
        (KEY.upper(), bytes.fromhex(KEY)),
        ("sixteen bytes ok", b"sixteen bytes ok".hex().encode()),
    ],
)
async def test_the_right_password_opens_in_every_form(stored: str, sent: bytes) -> None:
    await accepted(password=stored)
    async with running() as gateway, station(gateway, headers=basic("CS-1", sent)) as bare:
        await bare.ask("Heartbeat", {})


async def test_the_user_must_be_the_station() -> None:
    await accepted(password="correct horse")
    await accepted("CS 2", password="correct horse")
    async with running() as gateway:
        with pytest.raises(InvalidStatus, match="401"):
            async with station(gateway, headers=basic("CS 2", "correct horse")):
                pass
        async with station(gateway, "CS 2", headers=basic("CS%202", "correct horse")) as bare:
            await bare.ask("Heartbeat", {})


async def test_failures_slow_an_address_down_and_never_lock_out_the_right_one(monkeypatch: Any) -> None:
    monkeypatch.setattr(admission, "FREE_FAILURES", 2)
    await accepted(password="correct horse")
    await accepted("CS-2", password="staple battery")
    async with running() as gateway:
        async with station(gateway, headers=basic("CS-1", "correct horse")):
            pass
        for _ in range(4):
            with pytest.raises(InvalidStatus, match="401"):
                async with station(gateway, headers=basic("CS-1", "wrong")):
                    pass
        assert gateway.door.doorkeeper.wait_s("CS-1", "127.0.0.1") > 0
        async with station(gateway, "CS-2", headers=basic("CS-2", "staple battery")) as bare:
            await bare.ask("Heartbeat", {})
        assert gateway.door.doorkeeper.wait_s("CS-1", "127.0.0.1") == 0


async def test_a_changed_password_voids_the_proof_of_the_old_one() -> None:
    row = await accepted(password="correct horse")
    async with running() as gateway:
        async with station(gateway, headers=basic("CS-1", "correct horse")):
            pass
        await sync_to_async(row.set_password)("new one")
        await change(row, password_hash=row.password_hash)
        await eventually(lambda: gateway.memory.stations["CS-1"].password_hash == row.password_hash)
        with pytest.raises(InvalidStatus, match="401"):
            async with station(gateway, headers=basic("CS-1", "correct horse")):
                pass


@pytest.mark.parametrize(
    ("path", "identity"),
    [
        ("/ocpp/CS-1", "CS-1"),
        ("/ocpp/CS-1/", "CS-1"),
        ("//ocpp//CS-1", "CS-1"),
        ("/ocpp/CS-1/CS-1", "CS-1"),
        ("/OCPP/CS-1?x=1", "CS-1"),
        ("ws://host:9000/ocpp/CS-1", "CS-1"),
        ("/ocpp/a%20b%2Fc%C3%A9", "a b/cé"),
        ("/ocpp/", None),
        ("/ocpp", None),
        ("/", None),
        ("/other/CS-1", None),
        ("/ocpp/a/b", None),
        ("/ocpp/%00", None),
        ("/ocpp/%ff", None),
        ("/ocpp/" + "x" * 300, None),
    ],
)
def test_the_identity_is_the_last_part_of_the_path(path: str, identity: str | None) -> None:
    if identity is None:
        with pytest.raises(admission.Refused):
            admission.identity_of(path)
    else:
        assert admission.identity_of(path) == identity


@pytest.mark.parametrize("path", ["/ocpp/", "/", "/ocpp/a/b/c"])
async def test_a_path_without_an_identity_is_not_found(path: str) -> None:
    async with running() as gateway:
        with pytest.raises(InvalidStatus, match="404"):
            async with station(gateway, path=path):
                pass


async def test_an_identity_in_other_letter_case_is_the_same_station() -> None:
    row = await accepted("CS-1", password="correct horse")
    headers = basic("cs-1", "correct horse")
    async with running() as gateway, station(gateway, "cs-1", headers=headers) as bare:
        await bare.ask("StatusNotification", AVAILABLE)
        await written(gateway)
    assert await ChargingStation.objects.acount() == 1
    assert await EVSE.objects.filter(station=row).aexists()


@pytest.mark.parametrize(
    ("offered", "spoken"),
    [
        ((), V16),
        (("ocpp1.6",), V16),
        (("OCPP1.6",), V16),
        (("ocpp1.6j",), V16),
        (("ocpp1.6", "ocpp2.0.1"), V201),
        (("ocpp2.1", "ocpp1.6"), V16),
        (("soap",), None),
        (("ocpp1.5",), None),
    ],
)
def test_the_newer_dialect_is_chosen_and_spelling_is_forgiven(offered: tuple[str, ...], spoken: str | None) -> None:
    chosen = admission.dialect_of(offered)
    assert (chosen[0] if chosen else None) == spoken
    assert chosen is None or chosen[1] == "" or chosen[1] in offered


@pytest.mark.parametrize(("version", "quirk"), [(None, "no_subprotocol"), ("OCPP1.6", "subprotocol_spelling")])
async def test_an_odd_subprotocol_is_let_in_and_counted(version: str | None, quirk: str) -> None:
    await accepted()
    async with running() as gateway, station(gateway, version=version) as bare:
        await bare.ask("BootNotification", BOOT_16)
        gateway.sessions["CS-1"].flush_counters()
        await eventually(lambda: ChargingStation.objects.get().counters.get(quirk) == 1)


async def test_a_dialect_we_do_not_speak_is_refused() -> None:
    await accepted()
    async with running() as gateway:
        with pytest.raises(InvalidStatus, match="400"):
            async with station(gateway, version="ocpp1.5"):
                pass


async def test_a_frame_above_the_cap_closes_the_socket_and_no_other(settings: Any) -> None:
    settings.OCPP_MAX_FRAME_BYTES = 10_000
    await accepted()
    await accepted("CS-2")
    async with running() as gateway, station(gateway) as big, station(gateway, "CS-2") as other:
        await big.socket.send("x" * 20_000)
        assert await big.closed() == 1009
        await other.ask("Heartbeat", {})


# ---------------------------------------------------------------------- who holds it


async def test_the_newest_socket_wins_and_the_old_ones_end_changes_nothing() -> None:
    await accepted()
    async with running() as gateway, station(gateway) as old:
        await old.ask("Heartbeat", {})
        before = await sync_to_async(bus.holder)("CS-1")
        async with station(gateway) as new:
            assert await old.closed() == 1008
            await new.ask("Heartbeat", {})
            held = await sync_to_async(bus.holder)("CS-1")
            assert held is not None and before is not None and held.epoch > before.epoch
            assert (await sync_to_async(bus.request)("CS-1", "ClearCache", {}, 5)) == {"status": "Accepted"}


async def test_a_newer_socket_at_another_gateway_wins_too() -> None:
    await accepted()
    async with running() as one, running() as two, station(one) as old:
        await old.ask("Heartbeat", {})
        async with station(two) as new:
            assert await old.closed() == 1008
            await new.ask("Heartbeat", {})
            held = await sync_to_async(bus.holder)("CS-1")
            assert held is not None and held.gateway == two.name


async def test_a_stale_gateway_cannot_take_a_station_back() -> None:
    await accepted()
    async with running() as gateway, station(gateway) as bare:
        await bare.ask("Heartbeat", {})
        await sync_to_async(live.connection().incr)("epoch:CS-1")
        await gateway._hold()
        assert await bare.closed() == 1008


async def test_a_graceful_end_says_going_away_and_lets_go() -> None:
    await accepted()
    async with running() as gateway, station(gateway) as bare:
        await bare.ask("Heartbeat", {})
        await gateway.stop()
        assert await bare.closed() == 1001
        assert await sync_to_async(bus.holder)("CS-1") is None
        gateway.stop = _nothing  # type: ignore[method-assign]


async def _nothing() -> None:
    """It has stopped already."""


async def test_a_charge_goes_on_through_the_death_of_its_gateway() -> None:
    await accepted()
    start = {"connectorId": 1, "idTag": "04A1B2C3", "meterStart": 1000, "timestamp": "2026-11-24T10:00:00Z"}
    async with running() as first, station(first) as bare:
        tid = (await bare.ask("StartTransaction", start))["transactionId"]
        bare.socket.transport.abort()
    async with running() as second, station(second) as bare:
        assert (await bare.ask("StartTransaction", start))["transactionId"] == tid
        assert second.sessions["CS-1"].transactions == {1: str(tid)}
        await bare.ask(
            "StopTransaction", {"transactionId": tid, "meterStop": 3000, "timestamp": "2026-11-24T11:00:00Z"}
        )
    tx = await Transaction.objects.aget()
    assert (tx.energy_wh, tx.open) == (2000, False)


async def test_a_station_that_comes_back_in_the_other_dialect_is_still_limited() -> None:
    row = await accepted()
    evse = await EVSE.objects.acreate(station=row, number=1)
    when = moment("2026-11-24T10:00:00Z", row_time()).at
    await Transaction.objects.acreate(station=row, evse=evse, transaction_id="tx-of-2.0.1", started_at=when)
    now = row_time()
    want = bus.Want("CS-1", 1, 10.0, None, "plan", at=now, until=now + timedelta(minutes=1))
    async with running() as gateway, station(gateway) as bare:
        await bare.ask("BootNotification", BOOT_16)
        await sync_to_async(bus.put_wants)([want])
        live_one = await bare.was_asked(
            "SetChargingProfile", lambda p: "duration" in p["csChargingProfiles"]["chargingSchedule"]
        )
        assert live_one["csChargingProfiles"]["chargingProfilePurpose"] == "TxDefaultProfile"
        tx = await Transaction.objects.aget()
        with pytest.raises(bus.CallNotValid, match="transaction"):
            await sync_to_async(lambda: calls.remote_stop(Transaction.objects.get(pk=tx.pk)))()


def row_time() -> datetime:
    return datetime.now(UTC)


async def test_a_lost_redis_leaves_the_socket_and_the_ledger_alone(monkeypatch: Any) -> None:
    await accepted()
    async with running() as gateway, station(gateway) as bare:
        await bare.ask("Heartbeat", {})

        async def gone(*args: Any, **more: Any) -> None:
            raise ConnectionError("Redis went away")

        monkeypatch.setattr(gateway.exchange._client, "execute_command", gone)
        monkeypatch.setattr(gateway.exchange, "hold", gone)
        start = {"connectorId": 1, "idTag": "04A1B2C3", "meterStart": 1000, "timestamp": "2026-11-24T10:00:00Z"}
        assert (await bare.ask("StartTransaction", start))["idTagInfo"]["status"] == "Accepted"
        with pytest.raises(ConnectionError):
            await gateway._hold()
        await bare.ask("Heartbeat", {})


# ---------------------------------------------------------------------- charging


async def test_without_a_neutral_a_car_is_measured_on_the_line_it_returns_by() -> None:
    row = await accepted(wiring=["L2", "L3"])
    await Site.objects.aupdate(supply=Site.Supply.IT)
    async with running() as gateway, station(gateway) as bare:
        now = moment(None, gateway.sessions["CS-1"].now()).at.isoformat()
        sampled = [{"value": "16", "measurand": "Current.Import", "phase": "L1", "unit": "A"}]
        await bare.ask("MeterValues", {"connectorId": 1, "meterValue": [{"timestamp": now, "sampledValue": sampled}]})
        evse = await eventually(lambda: EVSE.objects.filter(station=row).first())
        shown = await eventually(lambda: live.fetch([live.evse_source(evse.pk)]))
        assert shown[live.evse_source(evse.pk)].current_a == (0, 16, 16)
        await written(gateway)
        assert (await MeterSample.objects.aget()).values["current_a"] == [0, 16, 16]


async def test_a_charge_over_1_6_is_measured_told_and_kept() -> None:
    row = await accepted(wiring=["L2", "L3", "L1"])
    heard = live.connection().pubsub(ignore_subscribe_messages=True)
    await sync_to_async(heard.subscribe)("transaction", "fresh")
    async with running() as gateway, station(gateway) as bare:
        assert (await bare.ask("Authorize", {"idTag": "04a1b2c3"}))["idTagInfo"]["status"] == "Accepted"
        now = moment(None, gateway.sessions["CS-1"].now()).at.isoformat()
        start = {"connectorId": 1, "idTag": "04A1B2C3", "meterStart": 1000, "timestamp": now}
        tid = (await bare.ask("StartTransaction", start))["transactionId"]
        sampled = [
            {"value": "16", "measurand": "Current.Import", "phase": "L1", "unit": "A"},
            {"value": "2.0", "measurand": "Energy.Active.Import.Register", "unit": "kWh"},
        ]
        values = {"connectorId": 1, "transactionId": tid, "meterValue": [{"timestamp": now, "sampledValue": sampled}]}
        assert await bare.ask("MeterValues", values) == {}
        evse = await eventually(lambda: EVSE.objects.filter(station=row).first())
        shown = await eventually(lambda: live.fetch([live.evse_source(evse.pk)]))
        assert shown[live.evse_source(evse.pk)].current_a == (None, 16.0, None)
        await bare.ask("StopTransaction", {"transactionId": tid, "meterStop": 3000, "timestamp": now})
        await written(gateway)
        tx = await Transaction.objects.aget()
        assert (tx.energy_wh, tx.open) == (2000, False)
        assert (await MeterSample.objects.aget()).transaction_id == tx.pk
    told: list[Any] = []

    def listen() -> bool:
        message = heard.get_message(timeout=0.05)
        if message is not None and message["channel"] == "transaction":
            told.append(json.loads(message["data"]))
        return len(told) == 2

    await eventually(listen)
    heard.close()
    expected = {"transaction": tx.pk, "site": row.site_id, "evse": evse.pk}
    assert told == [{"kind": "started", **expected}, {"kind": "ended", **expected}]


async def test_a_charge_over_2_0_1_is_told_in_events() -> None:
    row = await accepted()
    async with running() as gateway, station(gateway, version=V201) as bare:
        now = gateway.memory.stations["CS-1"] and moment(None, gateway.sessions["CS-1"].now()).at.isoformat()

        async def tell(kind: str, seq: int, **more: Any) -> Any:
            info = {"transactionId": "tx-1", **more.pop("info", {})}
            body = {"eventType": kind, "timestamp": now, "triggerReason": "Trigger", "seqNo": seq}
            return await bare.ask("TransactionEvent", {**body, "transactionInfo": info, "evse": {"id": 1}, **more})

        token = {"idToken": "04A1B2C3", "type": "ISO14443"}
        answer = await tell("Started", 0, idToken=token, info={"chargingState": "Charging"})
        assert answer == {"idTokenInfo": {"status": "Accepted"}}
        measured = [{"timestamp": now, "sampledValue": [{"value": 3.6, "measurand": "Power.Active.Import",
                     "unitOfMeasure": {"unit": "kW"}}]}]  # fmt: skip
        assert await tell("Updated", 1, meterValue=measured) == {}
        evse = await EVSE.objects.aget(station=row)
        assert evse.iec_state == "C2"
        shown = await eventually(lambda: live.fetch([live.evse_source(evse.pk)]))
        assert shown[live.evse_source(evse.pk)].power_w == 3600
        assert await tell("Ended", 2, info={"stoppedReason": "Local"}) == {}
        assert not (await Transaction.objects.aget()).open


async def test_a_token_added_a_moment_ago_is_known_at_once() -> None:
    row = await accepted()
    async with running() as gateway, station(gateway) as bare:
        assert (await bare.ask("Authorize", {"idTag": "FRESH"}))["idTagInfo"]["status"] == "Invalid"
        token = await IdToken.objects.acreate(site_id=row.site_id, value="fresh")
        assert (await bare.ask("Authorize", {"idTag": "FRESH"}))["idTagInfo"]["status"] == "Accepted"
        await IdToken.objects.filter(pk=token.pk).aupdate(status="blocked")
        await sync_to_async(bus.announce_change)("token", token.pk)
        await eventually(lambda: gateway.memory.tokens[row.site_id, "FRESH"].status == "blocked")
        assert (await bare.ask("Authorize", {"idTag": "FRESH"}))["idTagInfo"]["status"] == "Blocked"


async def test_frames_are_kept_without_their_secrets() -> None:
    row = await accepted()
    async with running() as gateway, station(gateway) as bare:
        await bare.ask("Heartbeat", {})
        body = {"key": "AuthorizationKey", "value": "deadbeef01"}
        await sync_to_async(bus.request)("CS-1", "ChangeConfiguration", body, 5)
        await written(gateway)
    kept = await OcppMessage.objects.aget(
        station=row, action="ChangeConfiguration", kind="call", payload__key="AuthorizationKey"
    )
    assert "deadbeef01" not in kept.raw + json.dumps(kept.payload)
    assert (kept.direction, kept.payload["key"]) == ("out", "AuthorizationKey")


async def test_the_last_sign_of_life_is_written() -> None:
    row = await accepted()
    async with running() as gateway, station(gateway) as bare:
        await bare.ask("Heartbeat", {})
        await written(gateway)
        before = (await ChargingStation.objects.aget(pk=row.pk)).last_seen
        await bare.ask("Heartbeat", {})
        await gateway._hold()
        await written(gateway)
        after = (await ChargingStation.objects.aget(pk=row.pk)).last_seen
        assert before is not None and after is not None and after > before

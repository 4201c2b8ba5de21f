"""One-off calls: from a door, through Redis and the gateway, to the station and back."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from asgiref.sync import sync_to_async

from csms import bus, calls
from csms.models import EVSE, ChargingStation, IdToken, StationVariable, Transaction
from csms.ocpp16 import station as ocpp16
from csms.ocpp201 import station as ocpp201
from csms.schemas import dialect
from meters import live
from meters.models import Site
from tests.csms.charge_point import V16, V201, running, station
from tests.csms.test_gateway import eventually

pytestmark = pytest.mark.django_db(transaction=True)


@sync_to_async
def a_place() -> tuple[ChargingStation, EVSE, IdToken, Transaction]:
    site = Site.objects.create(name="Campus")
    token = IdToken.objects.create(site=site, value="04A1B2C3")
    row = ChargingStation.objects.create(identity="CS-1", site=site, admission="accepted", quiet=True)
    evse = EVSE.objects.create(station=row, number=2)
    tx = Transaction.objects.create(station=row, evse=evse, transaction_id="77", started_at="2026-11-24T10:00:00Z")
    return row, evse, token, tx


# name, (1.6 action, payload), (2.0.1 action, payload)
CALLS: dict[str, tuple[tuple[str, Any], tuple[str, Any]]] = {
    "remote_start": (
        ("RemoteStartTransaction", {"connectorId": 2, "idTag": "04A1B2C3"}),
        ("RequestStartTransaction", {"evseId": 2, "idToken": {"idToken": "04A1B2C3", "type": "ISO14443"}}),
    ),
    "remote_stop": (
        ("RemoteStopTransaction", {"transactionId": 77}),
        ("RequestStopTransaction", {"transactionId": "77"}),
    ),
    "reset": (("Reset", {"type": "Hard"}), ("Reset", {"type": "Immediate", "evseId": 2})),
    "unlock": (("UnlockConnector", {"connectorId": 2}), ("UnlockConnector", {"evseId": 2, "connectorId": 1})),
    "change_availability": (
        ("ChangeAvailability", {"connectorId": 2, "type": "Inoperative"}),
        ("ChangeAvailability", {"operationalStatus": "Inoperative", "evse": {"id": 2}}),
    ),
    "trigger": (
        ("TriggerMessage", {"requestedMessage": "MeterValues", "connectorId": 2}),
        ("TriggerMessage", {"requestedMessage": "MeterValues", "evse": {"id": 2}}),
    ),
    "set_variable": (
        ("ChangeConfiguration", {"key": "HeartbeatInterval", "value": "60"}),
        (
            "SetVariables",
            {
                "setVariableData": [
                    {
                        "attributeValue": "60",
                        "component": {"name": "OCPPCommCtrlr"},
                        "variable": {"name": "HeartbeatInterval"},
                    }
                ]
            },
        ),
    ),
    "composite_schedule": (
        ("GetCompositeSchedule", {"connectorId": 2, "duration": 600, "chargingRateUnit": "A"}),
        ("GetCompositeSchedule", {"duration": 600, "evseId": 2, "chargingRateUnit": "A"}),
    ),
    "clear_limits": (
        ("ClearChargingProfile", {"connectorId": 2}),
        ("ClearChargingProfile", {"chargingProfileCriteria": {"evseId": 2}}),
    ),
    "data_transfer": (
        ("DataTransfer", {"vendorId": "acme", "messageId": "m", "data": "d"}),
        ("DataTransfer", {"vendorId": "acme", "messageId": "m", "data": "d"}),
    ),
}


def _do(name: str, row: ChargingStation, evse: EVSE, token: IdToken, tx: Transaction) -> dict[str, Any]:
    doors = {
        "remote_start": lambda: calls.remote_start(evse, token),
        "remote_stop": lambda: calls.remote_stop(tx),
        "reset": lambda: calls.reset(row, immediate=True, evse=evse),
        "unlock": lambda: calls.unlock(evse),
        "change_availability": lambda: calls.change_availability(row, False, evse),
        "trigger": lambda: calls.trigger(row, "MeterValues", evse),
        "set_variable": lambda: calls.set_variable(row, "OCPPCommCtrlr", "HeartbeatInterval", "60"),
        "composite_schedule": lambda: calls.composite_schedule(evse, 600),
        "clear_limits": lambda: calls.clear_limits(evse),
        "data_transfer": lambda: calls.data_transfer(row, "acme", "m", "d"),
    }
    return doors[name]()


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("version", [V16, V201])
async def test_a_call_reaches_the_station_in_its_own_dialect(name: str, version: str) -> None:
    place = await a_place()
    async with running() as gateway, station(gateway, version=version) as bare:
        await bare.ask("Heartbeat", {})
        answer = await sync_to_async(lambda: _do(name, *place))()
        action, payload = CALLS[name][0 if version == V16 else 1]
        told = await bare.was_asked(action)
        told.pop("remoteStartId", None)
        assert told == payload
        assert answer["status"] == "Accepted"
    if name == "change_availability":
        assert not (await EVSE.objects.aget()).available


async def test_configuration_is_read_and_kept() -> None:
    row, *_ = await a_place()
    keys = [{"key": "HeartbeatInterval", "value": "60", "readonly": False}, {"key": "Empty", "readonly": True}]
    async with running() as gateway, station(gateway) as bare:
        await bare.ask("Heartbeat", {})
        bare.answers["GetConfiguration"] = {"configurationKey": keys, "unknownKey": ["Nope"]}
        answer = await sync_to_async(calls.get_variables)(row, ["HeartbeatInterval"])
        assert answer["variables"][0] == {
            "component": "",
            "variable": "HeartbeatInterval",
            "value": "60",
            "read_only": False,
        }
        assert answer["unknown"] == ["Nope"]
        await sync_to_async(calls.request_report)(row)
        assert await StationVariable.objects.acount() == 2


async def test_variables_of_2_0_1_are_read() -> None:
    row, *_ = await a_place()
    result = [
        {
            "attributeStatus": status,
            "component": {"name": "OCPPCommCtrlr"},
            "variable": {"name": name},
            **({"attributeValue": "60"} if status == "Accepted" else {}),
        }
        for name, status in (("HeartbeatInterval", "Accepted"), ("Nope", "UnknownVariable"))
    ]
    async with running() as gateway, station(gateway, version=V201) as bare:
        await bare.ask("Heartbeat", {})
        bare.answers["GetVariables"] = {"getVariableResult": result}
        answer = await sync_to_async(calls.get_variables)(
            row, ["OCPPCommCtrlr.HeartbeatInterval", "OCPPCommCtrlr.Nope"]
        )
        assert [v["value"] for v in answer["variables"]] == ["60"]
        assert answer["unknown"] == ["OCPPCommCtrlr.Nope"]


async def test_a_composite_schedule_is_given_in_our_words() -> None:
    _, evse, *_ = await a_place()
    told = {
        "chargingRateUnit": "A",
        "chargingSchedulePeriod": [{"startPeriod": 0, "limit": 8.0}, {"startPeriod": 60, "limit": 6.0}],
    }
    async with running() as gateway, station(gateway) as bare:
        await bare.ask("Heartbeat", {})
        bare.answers["GetCompositeSchedule"] = {"status": "Accepted", "connectorId": 2, "chargingSchedule": told}
        answer = await sync_to_async(calls.composite_schedule)(evse, 600)
        assert [(p["start_s"], p["limit"]) for p in answer["periods"]] == [(0, 8.0), (60, 6.0)]
        bare.answers["GetCompositeSchedule"] = {"status": "Accepted"}  # accepted and empty (Q22)
        assert (await sync_to_async(calls.composite_schedule)(evse, 600))["periods"] == []


async def test_what_does_not_fit_the_schema_is_never_sent() -> None:
    row, evse, _, tx = await a_place()
    async with running() as gateway, station(gateway) as bare:
        await bare.ask("Heartbeat", {})
        with pytest.raises(bus.CallNotValid, match="type"):
            await sync_to_async(calls.send)(row, "Reset", {"type": "Gentle"})
        with pytest.raises(bus.CallNotValid, match="RequestStartTransaction"):
            await sync_to_async(calls.send)(row, "RequestStartTransaction", {})
        with pytest.raises(bus.CallNotValid, match="sent by stations"):
            await sync_to_async(calls.send)(row, "Heartbeat", {})
        with pytest.raises(bus.CallNotValid, match="connectorId"):
            await sync_to_async(bus.request)("CS-1", "UnlockConnector", {"connectorId": "x"}, 5)
        with pytest.raises(bus.CallNotValid, match="duration_s"):
            await sync_to_async(calls.composite_schedule)(evse, 0)
        other = await ChargingStation.objects.acreate(identity="CS-9")
        with pytest.raises(bus.CallNotValid, match="evse"):
            await sync_to_async(calls._number)(other, evse)
        tx.ended_at = tx.started_at
        with pytest.raises(bus.CallNotValid, match="transaction"):
            await sync_to_async(calls.remote_stop)(tx)
        assert bare.asked == []


@pytest.mark.parametrize("version", [V16, V201])
async def test_a_password_is_changed_by_its_own_door_only(version: str) -> None:
    """Set past us, the station could not log in again."""
    row, *_ = await a_place()
    data = {
        "component": {"name": "SecurityCtrlr"},
        "variable": {"name": "basicAuthPassword"},
        "attributeValue": "x" * 20,
    }
    raw = {
        V16: ("ChangeConfiguration", {"key": "AuthorizationKey", "value": "ab" * 20}),
        V201: ("SetVariables", {"setVariableData": [data]}),
    }[version]
    async with running() as gateway, station(gateway, version=version) as bare:
        await bare.ask("Heartbeat", {})
        with pytest.raises(bus.CallNotValid, match="password"):
            await sync_to_async(calls.send)(row, *raw)
        name = {V16: "authorizationkey", V201: "BasicAuthPassword"}[version]
        with pytest.raises(bus.CallNotValid, match="password"):
            await sync_to_async(calls.set_variable)(row, "SecurityCtrlr", name, "x" * 20)
        assert bare.asked == []


async def test_a_raw_call_goes_out_with_its_members_in_the_order_given() -> None:
    row, *_ = await a_place()
    seen: list[str] = []
    async with running() as gateway, station(gateway) as bare:
        await bare.ask("Heartbeat", {})
        bare.answers["TriggerMessage"] = lambda p: seen.append(",".join(p)) or {"status": "NotImplemented"}
        answer = await sync_to_async(calls.send)(
            row, "TriggerMessage", {"connectorId": 1, "requestedMessage": "Heartbeat"}
        )
        assert answer == {"status": "NotImplemented"}
        assert seen == ["connectorId,requestedMessage"]


async def test_each_way_a_call_can_fail_has_its_name(settings: Any) -> None:
    settings.OCPP_CALL_TIMEOUT_S = 0.3
    row, *_ = await a_place()
    with pytest.raises(bus.StationUnreachable):
        await sync_to_async(calls.trigger)(row, "Heartbeat")
    async with running() as gateway:
        async with station(gateway) as bare:
            await bare.ask("Heartbeat", {})
            bare.answers["TriggerMessage"] = ["NotSupported", "no", {"why": 1}]
            with pytest.raises(bus.CallRefused) as refused:
                await sync_to_async(calls.trigger)(row, "Heartbeat")
            assert (refused.value.code, refused.value.details) == ("NotSupported", {"why": 1})
            bare.answers["TriggerMessage"] = lambda payload: None
            with pytest.raises(bus.NoAnswer):
                await sync_to_async(calls.trigger)(row, "Heartbeat")
            settings.OCPP_CALL_TIMEOUT_S = 30
            bare.forget()
            waiting = asyncio.create_task(sync_to_async(calls.trigger, thread_sensitive=False)(row, "Heartbeat"))
            await bare.was_asked("TriggerMessage")
            bare.socket.transport.abort()
            with pytest.raises(bus.StationUnreachable):
                await asyncio.wait_for(waiting, 5)
        await eventually(lambda: not gateway.sessions)
        # A holder that is no more: the stream is read by nobody, or the epoch is an old one.
        await gateway.exchange.claim(
            "CS-1", {"gateway": gateway.name, "protocol": V16, "since": "2026-11-24T10:00:00+00:00"}
        )
        with pytest.raises(bus.StationUnreachable):
            await sync_to_async(calls.trigger)(row, "Heartbeat")


async def test_a_call_that_cannot_be_read_harms_nobody() -> None:
    row, *_ = await a_place()
    async with running() as gateway, station(gateway) as bare:
        await bare.ask("Heartbeat", {})
        await sync_to_async(live.connection().xadd)(f"call:{gateway.name}", {"body": "{"})
        await sync_to_async(live.connection().publish)("want", "nonsense")
        await sync_to_async(live.connection().publish)("changed", "[]")
        assert (await sync_to_async(calls.trigger)(row, "Heartbeat"))["status"] == "Accepted"


@pytest.mark.parametrize("speaks", [ocpp16, ocpp201])
def test_what_we_answer_is_never_asked_of_a_station(speaks: Any) -> None:
    for action in speaks.HANDLERS.keys() - {"DataTransfer"}:
        assert "sent by stations" in (dialect(speaks.NAME).refusal(action, {}) or ""), action

"""Simulated stations speak both versions as the standard has them, and lose nothing when the line is cut."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from csms.profiles import ChargingProfile, Kind, Period, Purpose, Schedule, Unit
from csms.simulator import Car, SimulatedStation
from tests.csms.central import Central, central

BOTH = pytest.mark.parametrize("protocol", ["ocpp1.6", "ocpp2.0.1"])


def car(**nature: Any) -> Car:
    return Car(**{"battery_wh": 60_000, "soc": 0.4, "delay_s": 0, **nature})


@asynccontextmanager
async def connected(system: Central, protocol: str, **nature: Any) -> AsyncIterator[SimulatedStation]:
    station = SimulatedStation(
        "CS 1/ä",
        system.url,
        **{
            "protocol": protocol,
            "password": "secret",
            "seed": 1,
            "tick_s": 0.05,
            "meter_interval_s": 0,
            "reboot_s": 0,
            **nature,
        },
    )
    life = asyncio.create_task(station.run())
    try:
        await station.wait_online()
        yield station
    finally:
        life.cancel()
        await asyncio.gather(life, return_exceptions=True)


def started(system: Central) -> list[dict[str, Any]]:
    return system.of("StartTransaction") + [e for e in system.of("TransactionEvent") if e["eventType"] == "Started"]


def ended(system: Central) -> list[dict[str, Any]]:
    return system.of("StopTransaction") + [e for e in system.of("TransactionEvent") if e["eventType"] == "Ended"]


async def charging(system: Central, station: SimulatedStation, evse: int = 1) -> str:
    """Plug, tap, and wait until the charge has its id."""
    station.plug(evse, car())
    assert await station.tap(evse, "04A1") == "Accepted"
    await system.until(lambda: station.outlets[evse].charge and station.outlets[evse].charge.id and started(system))
    charge = station.outlets[evse].charge
    assert charge is not None and charge.id is not None
    return charge.id


def tx_profile(protocol: str, transaction: str, amps: float, duration_s: int = 300) -> dict[str, Any]:
    schedule = {
        "duration": duration_s,
        "startSchedule": (datetime.now(UTC) - timedelta(seconds=5)).isoformat(),
        "chargingRateUnit": "A",
        "chargingSchedulePeriod": [{"startPeriod": 0, "limit": amps}],
    }
    about = {"stackLevel": 3, "chargingProfilePurpose": "TxProfile", "chargingProfileKind": "Absolute"}
    if protocol == "ocpp1.6":
        profile = {**about, "chargingProfileId": 7, "transactionId": int(transaction), "chargingSchedule": schedule}
        return {"connectorId": 1, "csChargingProfiles": profile}
    profile = {**about, "id": 7, "transactionId": transaction, "chargingSchedule": [{"id": 1, **schedule}]}
    return {"evseId": 1, "chargingProfile": profile}


@BOTH
async def test_it_connects_with_its_name_and_password_boots_and_tells_its_status(protocol: str):
    async with central() as system, connected(system, protocol, evses=2):
        await system.until(lambda: len(system.of("StatusNotification")) == (3 if protocol == "ocpp1.6" else 2))

        assert system.paths == ["/ocpp/CS%201%2F%C3%A4"]
        assert system.passwords == ["CS 1/ä:secret"]
        assert system.heard[0][0] == "BootNotification"
        told = system.of("StatusNotification")
        if protocol == "ocpp1.6":
            assert [(s["connectorId"], s["status"]) for s in told[:3]] == [
                (0, "Available"),
                (1, "Available"),
                (2, "Available"),
            ]
        else:
            assert [(s["evseId"], s["connectorStatus"]) for s in told] == [(1, "Available"), (2, "Available")]


@BOTH
async def test_it_waits_until_it_is_accepted(protocol: str):
    async with central() as system:
        system.boot_status = ["Pending", "Accepted"]
        async with connected(system, protocol):
            assert [name for name, _ in system.heard[:2]] == ["BootNotification", "BootNotification"]


@BOTH
async def test_a_charge_is_authorized_started_metered_and_ended(protocol: str):
    async with central() as system, connected(system, protocol, meter_interval_s=0.1) as station:
        await charging(system, station)
        metered = "MeterValues" if protocol == "ocpp1.6" else "TransactionEvent"
        await system.until(lambda: [m for m in system.of(metered) if currents(m) == [16.0, 16.0, 16.0]])
        station.unplug(1)
        await system.until(lambda: ended(system))

        assert [name for name, _ in system.heard if name == "Authorize"]
        stop = ended(system)[0]
        if protocol == "ocpp1.6":
            assert stop["reason"] == "EVDisconnected"
            assert stop["meterStop"] >= started(system)[0]["meterStart"]
            words = [s["status"] for s in system.of("StatusNotification") if s["connectorId"] == 1]
            assert words[:3] == ["Available", "Preparing", "Charging"]
        else:
            events = system.of("TransactionEvent")
            assert [e["seqNo"] for e in events] == list(range(len(events)))
            assert {e["transactionInfo"]["transactionId"] for e in events} == {
                events[0]["transactionInfo"]["transactionId"]
            }
            assert "Charging" in [e["transactionInfo"].get("chargingState") for e in events]
            assert (stop["triggerReason"], stop["transactionInfo"]["stoppedReason"]) == ("EVDeparted", "EVDisconnected")


def currents(message: dict[str, Any]) -> list[float]:
    values = [v for m in message.get("meterValue", []) for v in m["sampledValue"]]
    return [float(v["value"]) for v in values if v["measurand"] == "Current.Import"]


@BOTH
async def test_an_unknown_card_is_refused(protocol: str):
    async with central() as system, connected(system, protocol) as station:
        system.refused.add("BAD")
        station.plug(1, car())

        assert await station.tap(1, "BAD") == "Invalid"
        assert station.outlets[1].charge is None


@BOTH
async def test_a_charge_whose_token_is_refused_at_its_start_is_stopped(protocol: str):
    async with central() as system, connected(system, protocol) as station:
        system.refused.add("04B2")
        station.plug(1, car())
        station.remote_start(1, "04B2")
        station.run_afterthoughts()
        await system.until(lambda: ended(system))

        stop = ended(system)[0]
        assert (stop.get("reason") or stop["transactionInfo"]["stoppedReason"]) == "DeAuthorized"


@BOTH
async def test_it_obeys_a_profile_from_the_wire_and_says_so_in_its_composite(protocol: str):
    async with central() as system, connected(system, protocol) as station:
        transaction = await charging(system, station)

        assert await system.call("SetChargingProfile", tx_profile(protocol, transaction, 9.5)) == {"status": "Accepted"}
        assert station.current_a(1) == (9.5, 9.5, 9.5)
        place = "connectorId" if protocol == "ocpp1.6" else "evseId"
        answer = await system.call("GetCompositeSchedule", {place: 1, "duration": 600})
        schedule = answer["chargingSchedule" if protocol == "ocpp1.6" else "schedule"]
        periods = schedule["chargingSchedulePeriod"]
        assert [p["limit"] for p in periods] == [9.5, 32] and 200 <= periods[1]["startPeriod"] <= 300

        assert (
            station.calls("SetChargingProfile") == [tx_profile(protocol, transaction, 9.5)]
            or len(station.calls("SetChargingProfile")) == 1
        )
        by_id = {"id": 7} if protocol == "ocpp1.6" else {"chargingProfileId": 7}
        assert await system.call("ClearChargingProfile", by_id) == {"status": "Accepted"}
        assert await system.call("ClearChargingProfile", by_id) == {"status": "Unknown"}
        assert station.current_a(1) == (16, 16, 16)


@BOTH
async def test_a_profile_for_another_transaction_or_without_sense_is_rejected(protocol: str):
    async with central() as system, connected(system, protocol) as station:
        await charging(system, station)
        other = await system.call("SetChargingProfile", tx_profile(protocol, "99999", 8))
        late = tx_profile(protocol, "99999", 8)
        profile = late["csChargingProfiles" if protocol == "ocpp1.6" else "chargingProfile"]
        schedule = profile["chargingSchedule"] if protocol == "ocpp1.6" else profile["chargingSchedule"][0]
        schedule["chargingSchedulePeriod"][0]["startPeriod"] = 60

        assert other["status"] == "Rejected"
        assert (await system.call("SetChargingProfile", late))["status"] == "Rejected"
        assert station.limit_a(1) == 32


@BOTH
async def test_remote_start_and_stop(protocol: str):
    async with central() as system, connected(system, protocol) as station:
        station.plug(1, car())
        if protocol == "ocpp1.6":
            answer = await system.call("RemoteStartTransaction", {"idTag": "APP", "connectorId": 1})
        else:
            token = {"idToken": "APP", "type": "Central"}
            answer = await system.call("RequestStartTransaction", {"idToken": token, "remoteStartId": 5, "evseId": 1})
        assert answer["status"] == "Accepted"
        await system.until(lambda: station.outlets[1].charge and station.outlets[1].charge.id and started(system))
        if protocol == "ocpp2.0.1":
            assert started(system)[0]["transactionInfo"]["remoteStartId"] == 5
            assert started(system)[0]["triggerReason"] == "RemoteStart"

        charge = station.outlets[1].charge
        assert charge is not None and charge.id is not None
        if protocol == "ocpp1.6":
            answer = await system.call("RemoteStopTransaction", {"transactionId": int(charge.id)})
        else:
            answer = await system.call("RequestStopTransaction", {"transactionId": charge.id})
        assert answer["status"] == "Accepted"
        await system.until(lambda: ended(system))
        assert station.status(1) == "Finishing"


@BOTH
async def test_what_happened_offline_is_told_in_order_after_the_reconnect(protocol: str):
    async with central() as system, connected(system, protocol) as station:
        await charging(system, station)
        await station.drop(offline_s=3600)
        await system.until(lambda: not station.online)
        station.unplug(1)
        station.plug(1, car())
        assert await station.tap(1, "04C3") == "Accepted"  # offline it may not ask
        waiting = station.unsent
        assert waiting >= 2

        await station.drop(offline_s=0)  # the line is back
        await station.wait_online()
        await system.until(lambda: len(started(system)) == 2 and len(ended(system)) == 1 and station.unsent == 0)

        names = [n for n, p in system.heard if n in ("StartTransaction", "StopTransaction")]
        if protocol == "ocpp1.6":
            assert names == ["StartTransaction", "StopTransaction", "StartTransaction"]
        else:
            kinds = [e["eventType"] for e in system.of("TransactionEvent") if e["eventType"] != "Updated"]
            assert kinds == ["Started", "Ended", "Started"]
            assert ended(system)[0]["offline"] is True
        assert len(system.of("BootNotification")) == 1 and station.connections == 2


async def test_a_message_that_is_always_refused_is_dropped_after_three_attempts(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("csms.simulator.link.RETRY_S", 0.01)
    async with central() as system, connected(system, "ocpp1.6") as station:
        await charging(system, station)
        system.silent.add("StopTransaction")
        station.unplug(1)
        await system.until(lambda: len(system.of("StopTransaction")) == 3 and station.unsent == 0)


@BOTH
@pytest.mark.parametrize("keeps", [True, False])
async def test_a_reset_ends_the_charge_and_comes_back_with_a_boot(protocol: str, keeps: bool):
    async with central() as system, connected(system, protocol, keeps_profiles=keeps) as station:
        await charging(system, station)
        default = ChargingProfile(
            1, Purpose.TX_DEFAULT, 0, Kind.ABSOLUTE, Schedule(Unit.A, (Period(0, 6),), start=datetime.now(UTC))
        )
        assert station.set_profile(default)
        kind = "Hard" if protocol == "ocpp1.6" else "Immediate"
        assert (await system.call("Reset", {"type": kind}))["status"] == "Accepted"
        await system.until(lambda: len(system.of("BootNotification")) == 2)
        await system.until(lambda: ended(system))

        assert station.profiles == ((default,) if keeps else ())
        if protocol == "ocpp2.0.1":
            assert system.of("BootNotification")[1]["reason"] == "RemoteReset"
            assert ended(system)[0]["transactionInfo"]["stoppedReason"] == "ImmediateReset"
        else:
            assert ended(system)[0]["reason"] == "HardReset"


async def test_a_reset_when_idle_waits_for_the_charge():
    async with central() as system, connected(system, "ocpp2.0.1") as station:
        await charging(system, station)
        assert (await system.call("Reset", {"type": "OnIdle"}))["status"] == "Scheduled"
        assert station.outlets[1].charge is not None
        station.unplug(1)
        await system.until(lambda: len(system.of("BootNotification")) == 2)
        assert system.of("BootNotification")[1]["reason"] == "ScheduledReset"


@BOTH
async def test_after_a_power_cut_it_ends_the_charge_that_ran_and_its_register_goes_on(protocol: str):
    async with central() as system:
        async with connected(system, protocol) as station:
            transaction = await charging(system, station)
            kept = json.loads(json.dumps(station.remember()))
        cut = datetime(2026, 3, 2, 12, tzinfo=UTC)
        station = SimulatedStation("CS 1/ä", system.url, protocol=protocol, seed=2, reboot_s=0)  # type: ignore[arg-type]
        station.recall(kept, cut)
        life = asyncio.create_task(station.run())
        await system.until(lambda: ended(system))
        life.cancel()
        await asyncio.gather(life, return_exceptions=True)

        stop = ended(system)[0]
        assert stop["timestamp"] == "2026-03-02T12:00:00.000Z"
        if protocol == "ocpp1.6":
            assert (str(stop["transactionId"]), stop["reason"]) == (transaction, "PowerLoss")
            assert stop["meterStop"] == round(kept["1"]["register_wh"])
        else:
            assert stop["transactionInfo"]["transactionId"] == transaction
            assert stop["transactionInfo"]["stoppedReason"] == "PowerLoss"
            seen = [e["seqNo"] for e in system.of("TransactionEvent")]
            assert stop["seqNo"] == max(seen) and len(set(seen)) == len(seen)


@BOTH
async def test_out_of_service_waits_for_the_running_charge(protocol: str):
    async with central() as system, connected(system, protocol) as station:
        await charging(system, station)
        if protocol == "ocpp1.6":
            off = await system.call("ChangeAvailability", {"connectorId": 0, "type": "Inoperative"})
        else:
            off = await system.call("ChangeAvailability", {"operationalStatus": "Inoperative"})
        assert off["status"] == "Scheduled" and station.status(1) == "Charging"
        station.unplug(1)
        assert station.status(1) == "Unavailable"
        station.plug(1, car())
        await station.tap(1, "04A1")
        assert station.outlets[1].charge is None


@BOTH
async def test_triggers_bring_what_was_asked(protocol: str):
    async with central() as system, connected(system, protocol) as station:
        await system.until(lambda: system.of("StatusNotification"))
        for name in ("Heartbeat", "BootNotification", "MeterValues", "StatusNotification"):
            before = len(system.of(name))
            assert (await system.call("TriggerMessage", {"requestedMessage": name}))["status"] == "Accepted"
            await system.until(lambda name=name, before=before: len(system.of(name)) > before)
        unknown = {"requestedMessage": "StatusNotification"}
        unknown |= {"connectorId": 9} if protocol == "ocpp1.6" else {"evse": {"id": 9}}
        assert (await system.call("TriggerMessage", unknown))["status"] == "Rejected"
        assert station.online


async def test_configuration_keys_are_read_written_refused_and_obeyed():
    async with central() as system, connected(system, "ocpp1.6") as station:
        got = await system.call("GetConfiguration", {"key": ["heartbeatinterval", "Nonsense"]})
        assert got["configurationKey"][0]["key"] == "HeartbeatInterval" and got["unknownKey"] == ["Nonsense"]
        everything = await system.call("GetConfiguration", {})
        assert {"NumberOfConnectors", "SupportedFeatureProfiles", "ChargeProfileMaxStackLevel"} <= {
            k["key"] for k in everything["configurationKey"]
        }
        assert "AuthorizationKey" not in {k["key"] for k in everything["configurationKey"]}

        answers = {
            ("MeterValueSampleInterval", "12"): "Accepted",
            ("MeterValueSampleInterval", "-1"): "Rejected",
            ("MeterValueSampleInterval", "soon"): "Rejected",
            ("MeterValuesSampledData", "Voltage,Nonsense"): "Rejected",
            ("NumberOfConnectors", "7"): "Rejected",
            ("Nonsense", "1"): "NotSupported",
            ("WebSocketPingInterval", "30"): "RebootRequired",
            ("MeterValuesSampledData", "Voltage,Current.Import"): "Accepted",
        }
        for (key, value), status in answers.items():
            assert await system.call("ChangeConfiguration", {"key": key, "value": value}) == {"status": status}
        assert station.meter_interval_s == 12 and station.measurands == ("Voltage", "Current.Import")


async def test_variables_are_read_written_refused_and_obeyed():
    def about(component: str, variable: str, **more: Any) -> dict[str, Any]:
        return {"component": {"name": component}, "variable": {"name": variable}, **more}

    async with central() as system, connected(system, "ocpp2.0.1") as station:
        wanted = [
            about("SmartChargingCtrlr", "ProfileStackLevel"),
            about("SmartChargingCtrlr", "Nonsense"),
            about("Nonsense", "Nonsense"),
            about("SecurityCtrlr", "BasicAuthPassword"),
        ]
        read = (await system.call("GetVariables", {"getVariableData": wanted}))["getVariableResult"]
        assert [r["attributeStatus"] for r in read] == ["Accepted", "UnknownVariable", "UnknownComponent", "Rejected"]
        assert read[0]["attributeValue"] == "8"

        set_them = [
            about("SampledDataCtrlr", "TxUpdatedInterval", attributeValue="12"),
            about("SampledDataCtrlr", "TxUpdatedInterval", attributeValue="soon"),
            about("SmartChargingCtrlr", "ProfileStackLevel", attributeValue="3"),
            about("OCPPCommCtrlr", "WebSocketPingInterval", attributeValue="30"),
            about("SampledDataCtrlr", "TxUpdatedInterval", attributeValue="9", attributeType="Target"),
        ]
        written = (await system.call("SetVariables", {"setVariableData": set_them}))["setVariableResult"]
        assert [r["attributeStatus"] for r in written] == [
            "Accepted",
            "Rejected",
            "Rejected",
            "RebootRequired",
            "NotSupportedAttributeType",
        ]
        assert station.meter_interval_s == 12


async def test_a_base_report_comes_whole_in_parts():
    async with central() as system, connected(system, "ocpp2.0.1", evses=2):
        answer = await system.call("GetBaseReport", {"requestId": 4, "reportBase": "FullInventory"})
        assert answer["status"] == "Accepted"
        parts = await system.until(lambda: list(system.of("NotifyReport")) if done_report(system) else None)

        assert [p["seqNo"] for p in parts] == list(range(len(parts))) and len(parts) > 1
        told = [(d["component"]["name"], d["variable"]["name"]) for p in parts for d in p["reportData"]]
        assert ("EVSE", "Power") in told and ("SmartChargingCtrlr", "RateUnit") in told


def done_report(system: Central) -> bool:
    return any(not p.get("tbc") for p in system.of("NotifyReport"))


@BOTH
async def test_unlocking_data_transfer_and_cache_are_answered(protocol: str):
    async with central() as system, connected(system, protocol):
        where = {"connectorId": 1} if protocol == "ocpp1.6" else {"evseId": 1, "connectorId": 1}
        assert (await system.call("UnlockConnector", where))["status"] == "Unlocked"
        data = await system.call("DataTransfer", {"vendorId": "Simulated", "data": "x"})
        assert data == {"status": "Accepted", "data": "x"}
        assert (await system.call("DataTransfer", {"vendorId": "other"}))["status"] == "UnknownVendorId"
        assert (await system.call("ClearCache", {}))["status"] == "Accepted"
        assert str(await system.call("UnpublishFirmware", {"checksum": "x"})).startswith("error")


async def test_clock_aligned_values_come_without_a_charge_too():
    async with central() as system, connected(system, "ocpp1.6") as station:
        await system.call("ChangeConfiguration", {"key": "ClockAlignedDataInterval", "value": "1"})
        values = await system.until(lambda: system.of("MeterValues"))
        assert values[0]["meterValue"][0]["sampledValue"][0]["context"] == "Sample.Clock"
        assert station.online


@BOTH
async def test_a_broken_station_says_so_and_ends_its_charge(protocol: str):
    async with central() as system, connected(system, protocol) as station:
        await charging(system, station)
        station.fault(1, "GroundFailure")
        await system.until(lambda: ended(system))
        await system.until(
            lambda: "Faulted" in [s.get("status") or s["connectorStatus"] for s in system.of("StatusNotification")]
        )
        station.fault(1, "")
        assert station.status(1) == "Finishing"

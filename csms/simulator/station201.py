"""How a simulated station speaks OCPP 2.0.1."""

from __future__ import annotations

import uuid
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any

from ocpp.exceptions import NotSupportedError
from ocpp.v201 import ChargePoint as ChargePoint201
from ocpp.v201 import call, call_result

from csms.profiles import ChargingProfile, Kind, Period, ProfileNotValid, Purpose, Recurrence, Schedule, Unit
from csms.simulator import devicemodel
from csms.simulator.chores201 import Chores201
from csms.simulator.dialect import answers, stamp
from csms.simulator.metering import MEASURANDS, Sample, samples

if TYPE_CHECKING:
    from csms.simulator.outlet import Charge, Outlet
    from csms.simulator.station import SimulatedStation

PURPOSES = {
    "ChargingStationExternalConstraints": Purpose.STATION_EXTERNAL,
    "ChargingStationMaxProfile": Purpose.STATION_MAX,
    "TxDefaultProfile": Purpose.TX_DEFAULT,
    "TxProfile": Purpose.TX,
}
STOP_REASONS = {"HardReset": "ImmediateReset", "SoftReset": "ImmediateReset", "UnlockCommand": "Other"}
REPORT_ITEMS = 20  # of one NotifyReport


class Station201(Chores201, ChargePoint201):
    """One connection in OCPP 2.0.1. Every EVSE has one connector, numbered 1."""

    # --- what it says --------------------------------------------------------------------------------------------

    def boot(self, reason: str) -> Any:
        station = self.station
        return call.BootNotification(
            charging_station={
                "model": station.model[:20],
                "vendor_name": station.vendor[:50],
                "serial_number": station.identity[:25],
                "firmware_version": station.firmware,
            },
            reason=reason,
        )

    @staticmethod
    def heartbeat() -> Any:
        return call.Heartbeat()

    @staticmethod
    def authorize(token: str, kind: str) -> Any:
        return call.Authorize(id_token={"id_token": token, "type": kind})

    @staticmethod
    def verdict(answer: Any) -> str:
        return str(answer.id_token_info["status"]) if answer is not None else "Invalid"

    @staticmethod
    def new_transaction_id() -> str | None:
        return str(uuid.uuid4())

    @staticmethod
    def tell_status(station: SimulatedStation, outlet: Outlet, word: str) -> None:
        told_as_it_is = word in ("Faulted", "Unavailable", "Reserved")
        occupancy = word if told_as_it_is else "Available" if outlet.car is None else "Occupied"
        if outlet.told.get("occupancy") != occupancy:
            outlet.told["occupancy"] = occupancy
            at = stamp(station.clock())
            station.post(lambda: call.StatusNotification(at, occupancy, outlet.number, 1))
        charge = outlet.charge
        if charge is not None and word in ("Charging", "SuspendedEV", "SuspendedEVSE") and charge.state_told != word:
            charge.state_told = word
            event(station, outlet, charge, "Updated", "ChargingStateChanged", station.clock())

    @staticmethod
    def tell_started(station: SimulatedStation, outlet: Outlet, charge: Charge) -> None:
        def answered(answer: Any) -> None:
            info = getattr(answer, "id_token_info", None)
            if info:
                station.judged(outlet, charge, str(info["status"]))

        charge.state_told = "EVConnected"
        event(
            station,
            outlet,
            charge,
            "Started",
            "RemoteStart" if charge.remote else "Authorized",
            charge.started_at,
            meter_value(samples(outlet, MEASURANDS[:1]), charge.started_at, "Transaction.Begin"),
            id_token={"id_token": charge.id_token, "type": charge.id_token_type},
            done=answered,
        )

    @staticmethod
    def tell_meter(station: SimulatedStation, outlet: Outlet, charge: Charge, at: datetime) -> None:
        values = meter_value(samples(outlet, station.measurands), at, "Sample.Periodic")
        event(station, outlet, charge, "Updated", "MeterValuePeriodic", at, values)

    @staticmethod
    def tell_aligned(station: SimulatedStation, outlet: Outlet, at: datetime) -> None:
        values = meter_value(samples(outlet, station.measurands), at, "Sample.Clock")
        if outlet.charge is not None:
            event(station, outlet, outlet.charge, "Updated", "MeterValueClock", at, values)
        else:
            station.post(lambda: call.MeterValues(outlet.number, [values]))

    @staticmethod
    def tell_ended(station: SimulatedStation, outlet: Outlet, charge: Charge, trigger: str) -> None:
        at = charge.ended_at or station.clock()
        charge.state_told = "Idle" if charge.stop_reason == "EVDisconnected" else "EVConnected"
        event(
            station,
            outlet,
            charge,
            "Ended",
            trigger,
            at,
            meter_value(samples(outlet, MEASURANDS[:1]), at, "Transaction.End"),
            id_token={"id_token": charge.id_token, "type": charge.id_token_type}
            if charge.stop_reason == "Local"
            else None,
        )

    # --- variables -----------------------------------------------------------------------------------------------

    @staticmethod
    def factory_settings(station: SimulatedStation) -> dict[Any, Any]:
        return dict(devicemodel.factory_variables(station))

    @answers("GetVariables")
    def on_get_variables(self, get_variable_data: list[dict[str, Any]], **_: Any) -> Any:
        return call_result.GetVariables([self._read(said) for said in get_variable_data])

    def _read(self, said: dict[str, Any]) -> dict[str, Any]:
        status, place = devicemodel.find(self.station.settings, said)
        answer = {"component": said["component"], "variable": said["variable"]}
        if place is not None:
            variable = self.station.settings[place]
            if said.get("attribute_type", "Actual") != "Actual":
                status = "NotSupportedAttributeType"
            elif variable.mutability == "WriteOnly":
                status = "Rejected"
            else:
                clock = place[0] == "ClockCtrlr"
                answer["attribute_value"] = stamp(self.station.clock()) if clock else variable.value
        return {**answer, "attribute_status": status, "attribute_type": said.get("attribute_type")}

    @answers("SetVariables")
    def on_set_variables(self, set_variable_data: list[dict[str, Any]], **_: Any) -> Any:
        return call_result.SetVariables(
            [
                {
                    "attribute_status": devicemodel.write(self.station.settings, said),
                    "attribute_type": said.get("attribute_type"),
                    "component": said["component"],
                    "variable": said["variable"],
                }
                for said in set_variable_data
            ]
        )

    @answers("GetBaseReport")
    def on_get_base_report(self, request_id: int, report_base: str, **_: Any) -> Any:
        writable = report_base == "ConfigurationInventory"
        if report_base == "SummaryInventory":
            return call_result.GetBaseReport("NotSupported")
        data = devicemodel.report(self.station.settings, lambda _, v: not writable or v.mutability != "ReadOnly")
        self.station.later(lambda: self._notify_report(request_id, data))
        return call_result.GetBaseReport("Accepted")

    @answers("GetReport")
    def on_get_report(
        self,
        request_id: int,
        component_variable: list[dict[str, Any]] | None = None,
        component_criteria: list[str] | None = None,
        **_: Any,
    ) -> Any:
        if component_criteria and set(component_criteria) - {"Available", "Enabled"}:
            return call_result.GetReport("NotSupported")
        names = {c["component"]["name"].lower() for c in component_variable or []}
        data = devicemodel.report(self.station.settings, lambda place, _: not names or place[0].lower() in names)
        if not data:
            return call_result.GetReport("EmptyResultSet")
        self.station.later(lambda: self._notify_report(request_id, data))
        return call_result.GetReport("Accepted")

    def _notify_report(self, request_id: int, data: list[dict[str, Any]]) -> None:
        at = stamp(self.station.clock())
        parts = [data[i : i + REPORT_ITEMS] for i in range(0, len(data), REPORT_ITEMS)]
        for n, part in enumerate(parts):
            more = n + 1 < len(parts)
            self.station.post(partial(call.NotifyReport, request_id, at, n, part, tbc=more))

    # --- smart charging ------------------------------------------------------------------------------------------

    @answers("SetChargingProfile")
    def on_set_charging_profile(self, evse_id: int, charging_profile: dict[str, Any], **_: Any) -> Any:
        try:
            profile = read_profile(evse_id, charging_profile)
        except ProfileNotValid as error:
            return call_result.SetChargingProfile("Rejected", {"reason_code": "InvalidProfile", **why(error)})
        if not self.station.set_profile(profile):
            return call_result.SetChargingProfile("Rejected", {"reason_code": "NotPossible"})
        return call_result.SetChargingProfile("Accepted")

    @answers("ClearChargingProfile")
    def on_clear_charging_profile(
        self,
        charging_profile_id: int | None = None,
        charging_profile_criteria: dict[str, Any] | None = None,
        **_: Any,
    ) -> Any:
        by = charging_profile_criteria or {}
        purpose = PURPOSES[by["charging_profile_purpose"]] if by.get("charging_profile_purpose") else None
        went = self.station.clear_profiles(
            id=charging_profile_id, evse=by.get("evse_id"), purpose=purpose, stack_level=by.get("stack_level")
        )
        return call_result.ClearChargingProfile("Accepted" if went else "Unknown")

    @answers("GetCompositeSchedule")
    def on_get_composite_schedule(
        self, duration: int, evse_id: int, charging_rate_unit: str | None = None, **_: Any
    ) -> Any:
        if evse_id not in (0, *self.station.outlets):
            return call_result.GetCompositeSchedule("Rejected", {"reason_code": "UnknownEvse"})
        asked = Unit(charging_rate_unit) if charging_rate_unit else None
        temper = self.station.temper.composite
        if temper == "no":
            raise NotSupportedError
        if temper == "empty":
            return call_result.GetCompositeSchedule("Accepted")
        start, unit, spans = self.station.schedule(evse_id, duration, Unit.W if temper == "watts" else asked)
        return call_result.GetCompositeSchedule(
            "Accepted",
            schedule={
                "evse_id": evse_id,
                "duration": duration,
                "schedule_start": stamp(start),
                "charging_rate_unit": unit.value,
                "charging_schedule_period": [
                    {"start_period": int(s.start_s), "limit": round(s.limit or 0.0, 1), "number_phases": s.phases}
                    for s in spans
                ],
            },
        )

    @answers("GetChargingProfiles")
    def on_get_charging_profiles(
        self, request_id: int, charging_profile: dict[str, Any], evse_id: int | None = None, **_: Any
    ) -> Any:
        by = charging_profile
        purpose, ids = by.get("charging_profile_purpose"), by.get("charging_profile_id")
        found = [
            p
            for p in self.station.profiles
            if (evse_id is None or p.evse == evse_id)
            and (purpose is None or p.purpose is PURPOSES[purpose])
            and (by.get("stack_level") is None or p.stack_level == by["stack_level"])
            and (not ids or p.id in ids)
        ]
        if not found:
            return call_result.GetChargingProfiles("NoProfiles")

        def tell() -> None:
            for n, profile in enumerate(found):
                self.station.post(
                    partial(
                        call.ReportChargingProfiles,
                        request_id,
                        "CSO",
                        [write_profile(profile)],
                        profile.evse,
                        tbc=n + 1 < len(found),
                    )
                )

        self.station.later(tell)
        return call_result.GetChargingProfiles("Accepted")

    # --- asked from afar -----------------------------------------------------------------------------------------

    @answers("RequestStartTransaction")
    def on_request_start(
        self,
        id_token: dict[str, Any],
        remote_start_id: int,
        evse_id: int | None = None,
        charging_profile: dict[str, Any] | None = None,
        **_: Any,
    ) -> Any:
        try:
            profile = read_profile(evse_id or 1, charging_profile) if charging_profile else None
        except ProfileNotValid as error:
            return call_result.RequestStartTransaction("Rejected", {"reason_code": "InvalidProfile", **why(error)})
        outlet = self.station.remote_start(evse_id, id_token["id_token"], id_token["type"], remote_start_id, profile)
        if outlet is None:
            return call_result.RequestStartTransaction("Rejected", {"reason_code": "TxInProgress"})
        return call_result.RequestStartTransaction("Accepted")

    @answers("RequestStopTransaction")
    def on_request_stop(self, transaction_id: str, **_: Any) -> Any:
        stops = self.station.remote_stop(transaction_id)
        return call_result.RequestStopTransaction("Accepted" if stops else "Rejected")

    @answers("GetTransactionStatus")
    def on_get_transaction_status(self, transaction_id: str | None = None, **_: Any) -> Any:
        running = [o.charge.id for o in self.station.outlets.values() if o.charge is not None]
        return call_result.GetTransactionStatus(
            messages_in_queue=self.station.unsent > 0,
            ongoing_indicator=transaction_id in running if transaction_id is not None else None,
        )

    @answers("Reset")
    def on_reset(self, type: str, evse_id: int | None = None, **_: Any) -> Any:
        station = self.station
        if evse_id:
            if evse_id not in station.outlets:
                return call_result.Reset("Rejected", {"reason_code": "UnknownEvse"})
            outlet = station.outlets[evse_id]
            station.later(lambda: station.stop(outlet, "HardReset", "ResetCommand"))
            return call_result.Reset("Accepted")
        busy = any(o.charge is not None for o in station.outlets.values())
        if type == "OnIdle" and busy:
            station.reset_when_idle = True
            return call_result.Reset("Scheduled")
        station.reset(hard=type == "Immediate", reason="RemoteReset")
        return call_result.Reset("Accepted")

    @answers("UnlockConnector")
    def on_unlock(self, evse_id: int, connector_id: int, **_: Any) -> Any:
        outlet = self.station.outlets.get(evse_id)
        if outlet is None or connector_id != 1:
            return call_result.UnlockConnector("UnknownConnector")
        if outlet.charge is not None:
            return call_result.UnlockConnector("OngoingAuthorizedTransaction")
        return call_result.UnlockConnector("Unlocked")

    @answers("ChangeAvailability")
    def on_change_availability(self, operational_status: str, evse: dict[str, Any] | None = None, **_: Any) -> Any:
        number = (evse or {}).get("id", 0)
        if number not in (0, *self.station.outlets):
            return call_result.ChangeAvailability("Rejected", {"reason_code": "UnknownEvse"})
        return call_result.ChangeAvailability(self.station.set_operative(number, operational_status == "Operative"))

    @answers("TriggerMessage")
    def on_trigger(self, requested_message: str, evse: dict[str, Any] | None = None, **_: Any) -> Any:
        station = self.station
        number = (evse or {}).get("id")
        if number is not None and number not in (0, *station.outlets):
            return call_result.TriggerMessage("Rejected", {"reason_code": "UnknownEvse"})
        outlets = [station.outlets[number]] if number else list(station.outlets.values())
        match requested_message:
            case "BootNotification":
                station.later(lambda: station.post(lambda: self.boot("Triggered")))
            case "Heartbeat":
                station.later(lambda: station.post(self.heartbeat))
            case "StatusNotification":
                station.later(lambda: station.repeat_status(number))
            case "MeterValues":
                for outlet in outlets:
                    station.later(partial(self._triggered_meter, outlet))
            case "TransactionEvent":
                for outlet in outlets:
                    station.later(partial(self._triggered_event, outlet))
            case "FirmwareStatusNotification":
                station.later(lambda: station.post(lambda: call.FirmwareStatusNotification("Idle")))
            case "LogStatusNotification":
                station.later(lambda: station.post(lambda: call.LogStatusNotification("Idle")))
            case _:
                return call_result.TriggerMessage("NotImplemented")
        return call_result.TriggerMessage("Accepted")

    def _triggered_meter(self, outlet: Outlet) -> None:
        values = meter_value(samples(outlet, self.station.measurands), self.station.clock(), "Trigger")
        self.station.post(lambda: call.MeterValues(outlet.number, [values]))

    def _triggered_event(self, outlet: Outlet) -> None:
        if outlet.charge is not None:
            at = self.station.clock()
            values = meter_value(samples(outlet, self.station.measurands), at, "Trigger")
            event(self.station, outlet, outlet.charge, "Updated", "Trigger", at, values)

    @answers("DataTransfer")
    def on_data_transfer(self, vendor_id: str, message_id: str | None = None, data: Any = None, **_: Any) -> Any:
        if vendor_id != self.station.vendor:
            return call_result.DataTransfer("UnknownVendorId")
        return call_result.DataTransfer("Accepted", data=data)

    @answers("ClearCache")
    def on_clear_cache(self, **_: Any) -> Any:
        return call_result.ClearCache("Accepted")


def event(
    station: SimulatedStation,
    outlet: Outlet,
    charge: Charge,
    kind: str,
    trigger: str,
    at: datetime,
    values: dict[str, Any] | None = None,
    id_token: dict[str, Any] | None = None,
    done: Any = None,
) -> None:
    """Queue a TransactionEvent; its sequence number and its being offline are settled now, not when it is sent."""
    info = {"transaction_id": charge.id, "charging_state": charge.state_told or None}
    if kind == "Ended":
        info["stopped_reason"] = STOP_REASONS.get(charge.stop_reason, charge.stop_reason)
    if charge.remote_start_id is not None and kind == "Started":
        info["remote_start_id"] = charge.remote_start_id  # type: ignore[assignment]
    message = call.TransactionEvent(
        event_type=kind,
        timestamp=stamp(at),
        trigger_reason=trigger,
        seq_no=charge.next_seq(),
        transaction_info=info,
        meter_value=[values] if values is not None and values["sampled_value"] else None,
        offline=not station.online,
        reservation_id=charge.reservation_id if kind == "Started" else None,
        number_of_phases_used=min(outlet.phases, outlet.car.phases) if outlet.car and not outlet.dc else None,
        evse={"id": outlet.number, "connector_id": 1},
        id_token=id_token,
    )
    station.post(lambda: message, lasting=True, done=done)


def why(error: ProfileNotValid) -> dict[str, str]:
    return {"additional_info": str(error)[:512]}


def meter_value(values: list[Sample], at: datetime, context: str) -> dict[str, Any]:
    return {
        "timestamp": stamp(at),
        "sampled_value": [
            {
                "value": v.value,
                "context": context,
                "measurand": v.measurand,
                "phase": v.phase,
                "location": v.location,
                "unit_of_measure": {"unit": v.unit},
            }
            for v in values
        ],
    }


def moment(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)


def read_profile(evse_id: int, said: dict[str, Any]) -> ChargingProfile:
    """A profile as the wire has it; of several schedules the first. `ProfileNotValid` for one that is none."""
    schedule = said["charging_schedule"][0]
    try:
        return ChargingProfile(
            id=said["id"],
            purpose=PURPOSES[said["charging_profile_purpose"]],
            stack_level=said["stack_level"],
            kind=Kind(said["charging_profile_kind"]),
            schedule=Schedule(
                unit=Unit(schedule["charging_rate_unit"]),
                periods=tuple(
                    Period(p["start_period"], float(p["limit"]), p.get("number_phases"), p.get("phase_to_use"))
                    for p in schedule["charging_schedule_period"]
                ),
                duration_s=schedule.get("duration"),
                start=moment(schedule.get("start_schedule")),
                min_rate=schedule.get("min_charging_rate"),
            ),
            evse=evse_id,
            recurrence=Recurrence(said["recurrency_kind"]) if said.get("recurrency_kind") else None,
            valid_from=moment(said.get("valid_from")),
            valid_to=moment(said.get("valid_to")),
            transaction_id=said.get("transaction_id"),
        )
    except (KeyError, ValueError) as error:
        if isinstance(error, ProfileNotValid):
            raise
        raise ProfileNotValid("profile", str(error)) from error


def write_profile(profile: ChargingProfile) -> dict[str, Any]:
    """A profile as ReportChargingProfiles tells it."""
    schedule = profile.schedule
    words = {purpose: word for word, purpose in PURPOSES.items()}
    return {
        "id": profile.id,
        "stack_level": profile.stack_level,
        "charging_profile_purpose": words[profile.purpose],
        "charging_profile_kind": profile.kind.value,
        "recurrency_kind": profile.recurrence.value if profile.recurrence else None,
        "valid_from": stamp(profile.valid_from) if profile.valid_from else None,
        "valid_to": stamp(profile.valid_to) if profile.valid_to else None,
        "transaction_id": profile.transaction_id,
        "charging_schedule": [
            {
                "id": 1,
                "start_schedule": stamp(schedule.start) if schedule.start else None,
                "duration": schedule.duration_s,
                "charging_rate_unit": schedule.unit.value,
                "min_charging_rate": schedule.min_rate,
                "charging_schedule_period": [
                    {"start_period": p.start_s, "limit": p.limit, "number_phases": p.phases} for p in schedule.periods
                ],
            }
        ],
    }

"""How a simulated station speaks OCPP 1.6."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any

from ocpp.exceptions import NotSupportedError
from ocpp.v16 import ChargePoint as ChargePoint16
from ocpp.v16 import call, call_result

from csms.profiles import ChargingProfile, Kind, Period, ProfileNotValid, Purpose, Recurrence, Schedule, Unit
from csms.simulator.chores16 import Chores16
from csms.simulator.dialect import answers, stamp
from csms.simulator.metering import MEASURANDS, Sample, samples

if TYPE_CHECKING:
    from csms.simulator.outlet import Charge, Outlet
    from csms.simulator.station import SimulatedStation

PURPOSES = {
    "ChargePointMaxProfile": Purpose.STATION_MAX,
    "TxDefaultProfile": Purpose.TX_DEFAULT,
    "TxProfile": Purpose.TX,
}
PROFILES = "Core,SmartCharging,RemoteTrigger,FirmwareManagement,LocalAuthListManagement,Reservation"


@dataclass
class Key:
    """A configuration key. `obeyed` takes a new value, and raises `ValueError` for one it cannot take."""

    value: str
    readonly: bool = False
    obeyed: Callable[[str], None] | None = None
    reboot: bool = False


class Station16(Chores16, ChargePoint16):
    """One connection in OCPP 1.6. A connector is an EVSE."""

    # --- what it says --------------------------------------------------------------------------------------------

    def boot(self, reason: str) -> Any:
        station = self.station
        return call.BootNotification(
            charge_point_model=station.model[:20],
            charge_point_vendor=station.vendor[:20],
            charge_point_serial_number=station.identity[:25],
            firmware_version=station.firmware,
            meter_type="simulated",
        )

    @staticmethod
    def heartbeat() -> Any:
        return call.Heartbeat()

    @staticmethod
    def authorize(token: str, kind: str) -> Any:
        return call.Authorize(id_tag=token)

    @staticmethod
    def verdict(answer: Any) -> str:
        return str(answer.id_tag_info["status"]) if answer is not None else "Invalid"

    @staticmethod
    def new_transaction_id() -> str | None:
        return None

    def tell_whole_status(self) -> None:
        at = stamp(self.station.clock())
        self.station.post(lambda: call.StatusNotification(0, "NoError", "Available", at))

    @staticmethod
    def tell_status(station: SimulatedStation, outlet: Outlet, word: str) -> None:
        at, error = stamp(station.clock()), outlet.error or "NoError"
        station.post(lambda: call.StatusNotification(outlet.number, error, word, at))

    @staticmethod
    def tell_started(station: SimulatedStation, outlet: Outlet, charge: Charge) -> None:
        def answered(answer: Any) -> None:
            if answer is not None:
                charge.id = str(answer.transaction_id)
                station.judged(outlet, charge, str(answer.id_tag_info["status"]))

        station.post(
            lambda: call.StartTransaction(
                connector_id=outlet.number,
                id_tag=charge.id_token,
                meter_start=round(charge.meter_start_wh),
                timestamp=stamp(charge.started_at),
                reservation_id=charge.reservation_id,
            ),
            lasting=True,
            done=answered,
        )

    @staticmethod
    def tell_meter(station: SimulatedStation, outlet: Outlet, charge: Charge, at: datetime) -> None:
        values = meter_value(samples(outlet, station.measurands), at, "Sample.Periodic")
        number = outlet.number

        def make() -> Any:
            if charge.id is None:
                return None  # the start was never answered; there is nothing to add to
            return call.MeterValues(number, [values], transaction_id=int(charge.id))

        station.post(make, lasting=True)

    @staticmethod
    def tell_aligned(station: SimulatedStation, outlet: Outlet, at: datetime) -> None:
        values = meter_value(samples(outlet, station.measurands), at, "Sample.Clock")
        charge = outlet.charge
        number = outlet.number

        def make() -> Any:
            running = charge.id if charge is not None else None
            return call.MeterValues(number, [values], transaction_id=int(running) if running else None)

        station.post(make)

    @staticmethod
    def tell_ended(station: SimulatedStation, outlet: Outlet, charge: Charge, trigger: str) -> None:
        at, stop_wh = charge.ended_at or station.clock(), round(outlet.energy_wh)
        last = meter_value(samples(outlet, MEASURANDS[:1]), at, "Transaction.End")

        def make() -> Any:
            if charge.id is None:
                return None
            return call.StopTransaction(
                meter_stop=stop_wh,
                timestamp=stamp(at),
                transaction_id=int(charge.id),
                reason=charge.stop_reason,
                id_tag=charge.id_token if charge.stop_reason == "Local" else None,
                transaction_data=[last],
            )

        station.post(make, lasting=True)

    # --- configuration -------------------------------------------------------------------------------------------

    @staticmethod
    def factory_settings(station: SimulatedStation) -> dict[Any, Any]:
        units = {Unit.A: "Current", Unit.W: "Power"}

        def attribute(name: str, least: float = 0) -> Callable[[str], None]:
            def obey(value: str) -> None:
                amount = float(value)
                if amount < least:
                    raise ValueError(value)
                setattr(station, name, amount)

            return obey

        def measurands(value: str) -> None:
            names = tuple(n.strip() for n in value.split(",") if n.strip())
            if not all(n in MEASURANDS for n in names):
                raise ValueError(value)
            station.measurands = names

        def truth(value: str) -> None:
            if value.lower() not in ("true", "false"):
                raise ValueError(value)

        def count(value: str) -> None:
            if int(value) < 0:
                raise ValueError(value)

        keys = {
            "AuthorizeRemoteTxRequests": Key("false", obeyed=truth),
            "ClockAlignedDataInterval": Key("0", obeyed=attribute("clock_aligned_s")),
            "ConnectionTimeOut": Key(f"{station.connection_timeout_s:.0f}", obeyed=attribute("connection_timeout_s")),
            "ConnectorPhaseRotation": Key("0.RST", obeyed=lambda _: None),
            "GetConfigurationMaxKeys": Key("50", readonly=True),
            "HeartbeatInterval": Key(f"{station.heartbeat_s:.0f}", obeyed=attribute("heartbeat_s", 1)),
            "LocalAuthorizeOffline": Key("true", obeyed=truth),
            "LocalPreAuthorize": Key("false", obeyed=truth),
            "MeterValuesAlignedData": Key(",".join(MEASURANDS[:1]), obeyed=lambda _: None),
            "MeterValuesSampledData": Key(",".join(station.measurands), obeyed=measurands),
            "MeterValueSampleInterval": Key(f"{station.meter_interval_s:.0f}", obeyed=attribute("meter_interval_s")),
            "NumberOfConnectors": Key(str(len(station.outlets)), readonly=True),
            "ResetRetries": Key("1", obeyed=count),
            "StopTransactionOnEVSideDisconnect": Key("true", obeyed=truth),
            "StopTransactionOnInvalidId": Key("true", obeyed=truth),
            "StopTxnAlignedData": Key("", obeyed=lambda _: None),
            "StopTxnSampledData": Key("Energy.Active.Import.Register", obeyed=lambda _: None),
            "SupportedFeatureProfiles": Key(PROFILES, readonly=True),
            "LocalAuthListEnabled": Key("true", obeyed=truth),
            "LocalAuthListMaxLength": Key(str(station.chores.most_entries), readonly=True),
            "SendLocalListMaxLength": Key(str(station.chores.most_items), readonly=True),
            "ReserveConnectorZeroSupported": Key("true", readonly=True),
            "SupportedFileTransferProtocols": Key("HTTP,HTTPS", readonly=True),
            "TransactionMessageAttempts": Key("3", obeyed=count),
            "TransactionMessageRetryInterval": Key("1", obeyed=count),
            "UnlockConnectorOnEVSideDisconnect": Key("true", obeyed=truth),
            "WebSocketPingInterval": Key("20", obeyed=count, reboot=True),
            "ChargeProfileMaxStackLevel": Key(str(station.max_stack_level), readonly=True),
            "ChargingScheduleAllowedChargingRateUnit": Key(",".join(units[u] for u in station.units), readonly=True),
            "ChargingScheduleMaxPeriods": Key("48", readonly=True),
            "ConnectorSwitch3to1PhaseSupported": Key(str(station.phase_switching).lower(), readonly=True),
            "MaxChargingProfilesInstalled": Key("20", readonly=True),
        }
        if station.password is not None:
            keys["AuthorizationKey"] = Key("", obeyed=lambda v: setattr(station, "password", bytes_or_text(v)))
        return keys

    @answers("GetConfiguration")
    def on_get_configuration(self, key: list[str] | None = None, **_: Any) -> Any:
        keys = self.station.settings
        by_lower = {name.lower(): name for name in keys}
        wanted = list(keys) if not key else [by_lower[k.lower()] for k in key if k.lower() in by_lower]
        return call_result.GetConfiguration(
            [
                {"key": name, "readonly": keys[name].readonly, "value": keys[name].value}
                for name in wanted
                if name != "AuthorizationKey"  # write-only
            ],
            [k for k in key or [] if k.lower() not in by_lower],
        )

    @answers("ChangeConfiguration")
    def on_change_configuration(self, key: str, value: str, **_: Any) -> Any:
        found = next((k for n, k in self.station.settings.items() if n.lower() == key.lower()), None)
        if found is None:
            return call_result.ChangeConfiguration("NotSupported")
        if found.readonly:
            return call_result.ChangeConfiguration("Rejected")
        try:
            if found.obeyed is not None:
                found.obeyed(value)
        except ValueError:
            return call_result.ChangeConfiguration("Rejected")
        found.value = value
        return call_result.ChangeConfiguration("RebootRequired" if found.reboot else "Accepted")

    # --- smart charging ------------------------------------------------------------------------------------------

    @answers("SetChargingProfile")
    def on_set_charging_profile(self, connector_id: int, cs_charging_profiles: dict[str, Any], **_: Any) -> Any:
        try:
            profile = read_profile(connector_id, cs_charging_profiles)
        except ProfileNotValid:
            return call_result.SetChargingProfile("Rejected")
        return call_result.SetChargingProfile("Accepted" if self.station.set_profile(profile) else "Rejected")

    @answers("ClearChargingProfile")
    def on_clear_charging_profile(
        self,
        id: int | None = None,
        connector_id: int | None = None,
        charging_profile_purpose: str | None = None,
        stack_level: int | None = None,
        **_: Any,
    ) -> Any:
        purpose = PURPOSES[charging_profile_purpose] if charging_profile_purpose else None
        went = self.station.clear_profiles(id=id, evse=connector_id, purpose=purpose, stack_level=stack_level)
        return call_result.ClearChargingProfile("Accepted" if went else "Unknown")

    @answers("GetCompositeSchedule")
    def on_get_composite_schedule(
        self, connector_id: int, duration: int, charging_rate_unit: str | None = None, **_: Any
    ) -> Any:
        if connector_id not in (0, *self.station.outlets):
            return call_result.GetCompositeSchedule("Rejected")
        asked = Unit(charging_rate_unit) if charging_rate_unit else None
        temper = self.station.temper.composite
        if temper == "no":
            raise NotSupportedError
        start, unit, spans = self.station.schedule(connector_id, duration, Unit.W if temper == "watts" else asked)
        if temper == "empty":
            spans = ()
        periods = [
            {"start_period": int(s.start_s), "limit": round(s.limit or 0.0, 1), "number_phases": s.phases}
            for s in spans
        ]
        return call_result.GetCompositeSchedule(
            "Accepted",
            connector_id,
            stamp(start),
            {
                "duration": duration,
                "start_schedule": stamp(start),
                "charging_rate_unit": unit.value,
                "charging_schedule_period": periods,
            },
        )

    # --- asked from afar -----------------------------------------------------------------------------------------

    @answers("RemoteStartTransaction")
    def on_remote_start(
        self, id_tag: str, connector_id: int | None = None, charging_profile: dict[str, Any] | None = None, **_: Any
    ) -> Any:
        try:
            profile = read_profile(connector_id or 1, charging_profile) if charging_profile else None
        except ProfileNotValid:
            return call_result.RemoteStartTransaction("Rejected")
        outlet = self.station.remote_start(connector_id, id_tag, profile=profile)
        return call_result.RemoteStartTransaction("Rejected" if outlet is None else "Accepted")

    @answers("RemoteStopTransaction")
    def on_remote_stop(self, transaction_id: int, **_: Any) -> Any:
        stops = self.station.remote_stop(str(transaction_id))
        return call_result.RemoteStopTransaction("Accepted" if stops else "Rejected")

    @answers("Reset")
    def on_reset(self, type: str, **_: Any) -> Any:
        self.station.reset(hard=type == "Hard", reason="RemoteReset")
        return call_result.Reset("Accepted")

    @answers("UnlockConnector")
    def on_unlock(self, connector_id: int, **_: Any) -> Any:
        return call_result.UnlockConnector("Unlocked" if self.station.unlock(connector_id) else "NotSupported")

    @answers("ChangeAvailability")
    def on_change_availability(self, connector_id: int, type: str, **_: Any) -> Any:
        if connector_id not in (0, *self.station.outlets):
            return call_result.ChangeAvailability("Rejected")
        return call_result.ChangeAvailability(self.station.set_operative(connector_id, type == "Operative"))

    @answers("TriggerMessage")
    def on_trigger(self, requested_message: str, connector_id: int | None = None, **_: Any) -> Any:
        station = self.station
        if connector_id is not None and connector_id not in (0, *station.outlets):
            return call_result.TriggerMessage("Rejected")
        outlets = [station.outlets[connector_id]] if connector_id else list(station.outlets.values())
        match requested_message:
            case "BootNotification":
                station.later(lambda: station.post(lambda: self.boot("Triggered")))
            case "Heartbeat":
                station.later(lambda: station.post(self.heartbeat))
            case "StatusNotification":
                station.later(lambda: station.repeat_status(connector_id))
            case "MeterValues":
                for outlet in outlets:
                    station.later(partial(self._triggered_meter, outlet))
            case "DiagnosticsStatusNotification":
                station.later(lambda: station.post(lambda: call.DiagnosticsStatusNotification("Idle")))
            case "FirmwareStatusNotification":
                station.later(lambda: station.post(lambda: call.FirmwareStatusNotification("Idle")))
            case _:
                return call_result.TriggerMessage("NotImplemented")
        return call_result.TriggerMessage("Accepted")

    def _triggered_meter(self, outlet: Outlet) -> None:
        values = meter_value(samples(outlet, self.station.measurands), self.station.clock(), "Trigger")
        running = outlet.charge.id if outlet.charge is not None else None
        self.station.post(lambda: call.MeterValues(outlet.number, [values], int(running) if running else None))

    @answers("DataTransfer")
    def on_data_transfer(self, vendor_id: str, message_id: str | None = None, data: Any = None, **_: Any) -> Any:
        if vendor_id != self.station.vendor:
            return call_result.DataTransfer("UnknownVendorId")
        return call_result.DataTransfer("Accepted", data)

    @answers("ClearCache")
    def on_clear_cache(self, **_: Any) -> Any:
        return call_result.ClearCache("Accepted")


def bytes_or_text(value: str) -> str:
    """A new password comes as hex of its bytes (1.6 security paper), or as plain text from many a CSMS."""
    try:
        return bytes.fromhex(value).decode()
    except ValueError:
        return value


def meter_value(values: list[Sample], at: datetime, context: str) -> dict[str, Any]:
    return {
        "timestamp": stamp(at),
        "sampled_value": [
            {
                "value": f"{v.value:g}" if abs(v.value) < 1e5 else f"{v.value:.1f}",
                "context": context,
                "measurand": v.measurand,
                "unit": v.unit,
                "phase": v.phase,
                "location": v.location,
            }
            for v in values
        ],
    }


def moment(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)


def read_profile(connector_id: int, said: dict[str, Any]) -> ChargingProfile:
    """A profile as the wire has it. `ProfileNotValid` for one that contradicts itself."""
    schedule = said["charging_schedule"]
    number = said.get("transaction_id")
    try:
        return ChargingProfile(
            id=said["charging_profile_id"],
            purpose=PURPOSES[said["charging_profile_purpose"]],
            stack_level=said["stack_level"],
            kind=Kind(said["charging_profile_kind"]),
            schedule=Schedule(
                unit=Unit(schedule["charging_rate_unit"]),
                periods=tuple(
                    Period(p["start_period"], float(p["limit"]), p.get("number_phases"))
                    for p in schedule["charging_schedule_period"]
                ),
                duration_s=schedule.get("duration"),
                start=moment(schedule.get("start_schedule")),
                min_rate=schedule.get("min_charging_rate"),
            ),
            evse=connector_id,
            recurrence=Recurrence(said["recurrency_kind"]) if said.get("recurrency_kind") else None,
            valid_from=moment(said.get("valid_from")),
            valid_to=moment(said.get("valid_to")),
            transaction_id=None if number is None else str(number),
        )
    except (KeyError, ValueError) as error:
        if isinstance(error, ProfileNotValid):
            raise
        raise ProfileNotValid("profile", str(error)) from error

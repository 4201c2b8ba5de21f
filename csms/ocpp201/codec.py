"""OCPP 2.0.1: from its payloads to our vocabulary and back. Pure.

Only this room says connectorStatus, TransactionEvent and component. Payloads come in mended (`repairs.py`), and may
still carry words nobody knows: an unknown measurand is left out, an unknown unit is taken as the measurand's own.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from csms.profiles import ChargingProfile, Purpose
from csms.vocabulary import (
    Boot,
    Kind,
    MeterValue,
    Moment,
    Quantity,
    ReportedVariable,
    ShownToken,
    StatusReport,
    TransactionReport,
    Verdict,
    content_key,
    moment,
)

Call = tuple[str, dict[str, Any]]

FACTORS = {
    "kwh": 1000.0,
    "kvarh": 1000.0,
    "kw": 1000.0,
    "kva": 1000.0,
    "kvar": 1000.0,
    "ma": 0.001,
}
_FACTOR_OF = {"Wh": 1.0, "kWh": 1000.0, "W": 1.0, "kW": 1000.0, "A": 1.0, "V": 1.0, "Percent": 1.0}
_REGISTER = "Energy.Active.Import.Register"
_PURPOSES = {
    Purpose.STATION_EXTERNAL: "ChargingStationExternalConstraints",
    Purpose.STATION_MAX: "ChargingStationMaxProfile",
    Purpose.TX_DEFAULT: "TxDefaultProfile",
    Purpose.TX: "TxProfile",
}
_VERDICTS = {"accepted": "Accepted", "blocked": "Blocked", "expired": "Expired", "invalid": "Invalid"}
_KINDS = {"started": Kind.STARTED, "updated": Kind.UPDATED, "ended": Kind.ENDED}


# ---------------------------------------------------------------------- what the station tells


def boot(payload: Mapping[str, Any]) -> Boot:
    station = payload.get("chargingStation")
    station = station if isinstance(station, dict) else {}
    return Boot(
        vendor=_text(station, "vendorName"),
        model=_text(station, "model"),
        serial_number=_text(station, "serialNumber"),
        firmware_version=_text(station, "firmwareVersion"),
        reason=_text(payload, "reason"),
    )


def status(payload: Mapping[str, Any], received: datetime) -> StatusReport:
    return StatusReport(
        evse=int(payload.get("evseId", 0)),
        connector=int(payload.get("connectorId", 1)),
        status=_text(payload, "connectorStatus"),
        moment=moment(payload.get("timestamp"), received),
    )


def token(value: object) -> ShownToken:
    if not isinstance(value, dict):
        return ShownToken("")
    return ShownToken(_text(value, "idToken"), _text(value, "type"))


def meter_values(entries: object, received: datetime) -> tuple[MeterValue, ...]:
    """The `meterValue` of a message; what is no number is left out."""
    if not isinstance(entries, list):
        return ()
    return tuple(_meter_value(e, received) for e in entries if isinstance(e, dict))


def _meter_value(entry: Mapping[str, Any], received: datetime) -> MeterValue:
    quantities: list[Quantity] = []
    signed: list[Mapping[str, Any]] = []
    context = ""
    for sampled in entry.get("sampledValue") or ():
        if not isinstance(sampled, dict):
            continue
        if isinstance(sampled.get("signedMeterValue"), dict):
            signed.append(sampled)
        try:
            value = float(sampled["value"])
        except (KeyError, TypeError, ValueError):
            continue
        unit = sampled.get("unitOfMeasure")
        if isinstance(unit, dict):
            value *= _factor(unit.get("unit", "Wh"))
            multiplier = unit.get("multiplier")
            if isinstance(multiplier, int) and -12 <= multiplier <= 12:
                value *= 10.0**multiplier
        if not math.isfinite(value):
            continue
        context = sampled.get("context") or context
        quantities.append(
            (sampled.get("measurand") or _REGISTER, sampled.get("phase") or "", value, sampled.get("location") or "")
        )
    when = moment(entry.get("timestamp"), received)
    return MeterValue(when, tuple(quantities), context, tuple(signed), received)


def event(payload: Mapping[str, Any], received: datetime) -> TransactionReport:
    """A TransactionEvent. The register that counts is the one in its meter values."""
    info = payload.get("transactionInfo")
    info = info if isinstance(info, dict) else {}
    evse = payload.get("evse")
    evse = evse if isinstance(evse, dict) else {}
    kind = _KINDS.get(str(payload.get("eventType", "")).lower(), Kind.UPDATED)
    values = meter_values(payload.get("meterValue"), received)
    happened = moment(payload.get("timestamp"), received)
    told = payload.get("idToken")
    charging_state = info.get("chargingState")
    return TransactionReport(
        kind=kind,
        transaction_id=str(info.get("transactionId", ""))[:64],
        moment=happened,
        # All that was said, but for whether it is said late: sent again, it is the same event.
        content_key=content_key({k: v for k, v in payload.items() if k != "offline"}),
        evse=_whole(evse.get("id")),
        connector=_whole(evse.get("connectorId")) or 1,
        token=token(told) if isinstance(told, dict) else None,
        trigger=_text(payload, "triggerReason"),
        charging_state=str(charging_state) if charging_state is not None else None,
        stop_reason=_text(info, "stoppedReason"),
        seq_no=_whole(payload.get("seqNo")) or 0,
        offline=payload.get("offline") is True,
        register_wh=_register(values, kind, happened),
        values=values,
        remote_start_id=_whole(info.get("remoteStartId")),
        phases_used=_whole(payload.get("numberOfPhasesUsed")),
        payload=payload,
        received=received,
        told=_text(payload, "timestamp")[:64],
    )


def _register(values: Sequence[MeterValue], kind: Kind, happened: Moment) -> float | None:
    """The register at the begin of a Started, at the end of an Ended; elsewhere the newest there was when it happened.

    What was measured after that counts at its own time, as every meter value does.
    """
    if kind is Kind.UPDATED:
        values = [v for v in values if v.moment.at <= happened.at]
    wanted = {Kind.STARTED: "Transaction.Begin", Kind.ENDED: "Transaction.End"}.get(kind)
    found = [(v.context == wanted, v.moment.at, v.register_wh()) for v in values]
    found = [f for f in found if f[2] is not None]
    if not found:
        return None
    exact = [f for f in found if f[0]] or found
    return (min if kind is Kind.STARTED else max)(exact, key=lambda f: f[1])[2]


def variables(payload: Mapping[str, Any]) -> list[ReportedVariable]:
    """The variables of a NotifyReport, one for each attribute."""
    out: list[ReportedVariable] = []
    for data in payload.get("reportData") or ():
        if not isinstance(data, dict):
            continue
        attributes = data.get("variableAttribute")
        characteristics = data.get("variableCharacteristics")
        for attribute in attributes if isinstance(attributes, list) and attributes else [{}]:
            if isinstance(attribute, dict):
                out.append(
                    _variable(
                        data,
                        value=attribute.get("value"),
                        attribute=str(attribute.get("type") or "Actual"),
                        mutability=str(attribute.get("mutability") or "ReadWrite"),
                        characteristics=characteristics if isinstance(characteristics, dict) else {},
                    )
                )
    return [v for v in out if v.variable]


def monitored(payload: Mapping[str, Any]) -> list[ReportedVariable]:
    """The variables of a NotifyEvent, with the value that made it speak."""
    return [
        _variable(data, value=data.get("actualValue"))
        for data in payload.get("eventData") or ()
        if isinstance(data, dict) and isinstance(data.get("variable"), dict) and data["variable"].get("name")
    ]


def _variable(
    data: Mapping[str, Any],
    *,
    value: object,
    attribute: str = "Actual",
    mutability: str = "",
    characteristics: Mapping[str, Any] | None = None,
) -> ReportedVariable:
    component = data.get("component")
    component = component if isinstance(component, dict) else {}
    variable = data.get("variable")
    variable = variable if isinstance(variable, dict) else {}
    evse = component.get("evse")
    evse = evse if isinstance(evse, dict) else {}
    return ReportedVariable(
        variable=_text(variable, "name"),
        value="" if value is None else str(value),
        component=_text(component, "name"),
        component_instance=_text(component, "instance"),
        evse=_whole(evse.get("id")) or 0,
        connector=_whole(evse.get("connectorId")) or 0,
        variable_instance=_text(variable, "instance"),
        attribute=attribute,
        mutability=mutability,
        characteristics=characteristics or {},
    )


def capabilities(reported: Sequence[ReportedVariable]) -> dict[str, Any]:
    """What the variables say a station can do with profiles."""
    found: dict[str, Any] = {}
    for v in reported:
        if v.attribute != "Actual":
            continue
        name = (v.component.lower(), v.variable.lower())
        number = _number(v.value)
        if name == ("smartchargingctrlr", "profilestacklevel") and number is not None:
            found["max_stack_level"] = int(number)
        elif name == ("smartchargingctrlr", "periodsperschedule") and number is not None:
            found["max_periods"] = int(number)
        elif name == ("smartchargingctrlr", "rateunit") and rate_unit(v.value):
            found["rate_unit"] = rate_unit(v.value)
        elif name == ("tariffcostctrlr", "enabled") and v.variable_instance.lower() in ("cost", "tariff"):
            found[f"shows_{v.variable_instance.lower()}"] = v.value.strip().lower() == "true"
        elif v.component.lower() == "evse" and v.evse > 0:
            found["connectors"] = max(found.get("connectors", 0), v.evse)
    return found


def rate_unit(value: str) -> str:
    """`A` or `W` where a station takes only that one; "" where it takes both or does not say (Q20)."""
    words = {w.strip(' "').lower() for w in value.split(",")}
    amps = bool(words & {"a", "amp", "amps", "ampere", "current"})
    watts = bool(words & {"w", "watt", "watts", "power"})
    if amps == watts:
        return ""
    return "A" if amps else "W"


# ---------------------------------------------------------------------- what we answer


def verdict(said: Verdict, message: str = "") -> dict[str, Any]:
    """What we say to a token; `message` is for its owner, on the display."""
    info: dict[str, Any] = {"status": _VERDICTS.get(said.status, "Invalid")}
    if message and said.accepted:
        info["personalMessage"] = words(message)
    if said.group:
        info["groupIdToken"] = {"idToken": said.group, "type": "Central"}
    if said.expires_at is not None:
        info["cacheExpiryDateTime"] = iso(said.expires_at)
    return info


def words(message: str) -> dict[str, Any]:
    return {"format": "UTF8", "content": message[:512]}


def iso(at: datetime) -> str:
    return at.astimezone(UTC).isoformat(timespec="milliseconds")[:23] + "Z"


# ---------------------------------------------------------------------- what we ask


def remote_start(
    evse: int,
    value: str,
    token_type: str,
    group: str,
    remote_start_id: int,
    profile: ChargingProfile | None = None,
) -> Call:
    """With the group, whoever belongs to it may stop the charge again, even offline (F01)."""
    payload: dict[str, Any] = {
        "evseId": evse,
        "remoteStartId": remote_start_id,
        "idToken": {"idToken": value, "type": token_type or "Central"},
    }
    if group:
        payload["groupIdToken"] = {"idToken": group, "type": "Central"}
    if profile is not None:
        payload["chargingProfile"] = _profile(profile)
    return "RequestStartTransaction", payload


def remote_stop(transaction_id: str) -> Call:
    return "RequestStopTransaction", {"transactionId": transaction_id}


def reset(immediate: bool, evse: int | None) -> Call:
    payload: dict[str, Any] = {"type": "Immediate" if immediate else "OnIdle"}
    if evse is not None:
        payload["evseId"] = evse
    return "Reset", payload


def unlock(evse: int, connector: int) -> Call:
    return "UnlockConnector", {"evseId": evse, "connectorId": connector}


def change_availability(operative: bool, evse: int | None) -> Call:
    payload: dict[str, Any] = {"operationalStatus": "Operative" if operative else "Inoperative"}
    if evse is not None:
        payload["evse"] = {"id": evse}
    return "ChangeAvailability", payload


def trigger(message: str, evse: int | None, connector: int | None = None) -> Call:
    payload: dict[str, Any] = {"requestedMessage": _TRIGGERS.get(message, message)}
    if evse is not None:
        payload["evse"] = {"id": evse}
        if connector is not None or message == "StatusNotification":
            payload["evse"]["connectorId"] = connector or 1
    return "TriggerMessage", payload


_TRIGGERS = {
    "DiagnosticsStatusNotification": "LogStatusNotification",
    "SignChargePointCertificate": "SignChargingStationCertificate",
}
"""What 1.6 calls by another name."""


def get_variables(names: Sequence[str] | None) -> Call:
    """Names are `Component.Variable`; none asks for those that matter to charging."""
    return "GetVariables", {"getVariableData": [_place(name) for name in names or _OF_INTEREST]}


_OF_INTEREST = (
    "SmartChargingCtrlr.ProfileStackLevel",
    "SmartChargingCtrlr.RateUnit",
    "SampledDataCtrlr.TxUpdatedMeasurands",
    "SampledDataCtrlr.TxUpdatedInterval",
    "OCPPCommCtrlr.HeartbeatInterval",
)


def _place(name: str) -> dict[str, Any]:
    component, _, variable = name.partition(".")
    return {"component": {"name": component}, "variable": {"name": variable or component}}


def set_variable(component: str, variable: str, value: str, evse: int | None) -> Call:
    where: dict[str, Any] = {"name": component}
    if evse is not None:
        where["evse"] = {"id": evse}
    data = {"attributeValue": value, "component": where, "variable": {"name": variable}}
    return "SetVariables", {"setVariableData": [data]}


def request_report(request_id: int) -> Call:
    return "GetBaseReport", {"requestId": request_id, "reportBase": "FullInventory"}


def composite_schedule(evse: int, duration_s: int, unit: str) -> Call:
    payload: dict[str, Any] = {"duration": duration_s, "evseId": evse}
    if unit:
        payload["chargingRateUnit"] = unit
    return "GetCompositeSchedule", payload


def clear_limits(evse: int | None, purpose: str = "") -> Call:
    criteria: dict[str, Any] = {}
    if evse is not None:
        criteria["evseId"] = evse
    if purpose:
        criteria["chargingProfilePurpose"] = _PURPOSES[Purpose(purpose)]
    return "ClearChargingProfile", {"chargingProfileCriteria": criteria} if criteria else {}


def data_transfer(vendor_id: str, message_id: str, data: str) -> Call:
    payload = {"vendorId": vendor_id}
    if message_id:
        payload["messageId"] = message_id
    if data:
        payload["data"] = data
    return "DataTransfer", payload


def set_profile(profile: ChargingProfile) -> Call:
    return "SetChargingProfile", {"evseId": profile.evse, "chargingProfile": _profile(profile)}


def _profile(profile: ChargingProfile) -> dict[str, Any]:
    """A charging profile as 2.0.1 writes it: one decimal, rounded down."""
    schedule: dict[str, Any] = {"id": profile.id}
    if profile.schedule.start is not None:
        schedule["startSchedule"] = iso(profile.schedule.start)
    if profile.schedule.duration_s is not None:
        schedule["duration"] = profile.schedule.duration_s
    schedule["chargingRateUnit"] = str(profile.schedule.unit)
    schedule["chargingSchedulePeriod"] = [
        {"startPeriod": p.start_s, "limit": one_decimal(p.limit)}
        | ({"numberPhases": p.phases} if p.phases is not None else {})
        for p in profile.schedule.periods
    ]
    if profile.schedule.min_rate is not None:
        schedule["minChargingRate"] = one_decimal(profile.schedule.min_rate)
    body: dict[str, Any] = {
        "id": profile.id,
        "stackLevel": profile.stack_level,
        "chargingProfilePurpose": _PURPOSES[profile.purpose],
        "chargingProfileKind": str(profile.kind),
        "chargingSchedule": [schedule],
    }
    if profile.transaction_id is not None:
        body["transactionId"] = profile.transaction_id
    if profile.recurrence is not None:
        body["recurrencyKind"] = str(profile.recurrence)
    if profile.valid_from is not None:
        body["validFrom"] = iso(profile.valid_from)
    if profile.valid_to is not None:
        body["validTo"] = iso(profile.valid_to)
    return body


def one_decimal(value: float) -> float:
    return math.floor(value * 10 + 1e-6) / 10


# ---------------------------------------------------------------------- what it answered


def answered(action: str, result: Mapping[str, Any]) -> dict[str, Any]:
    """An answer in our words: at least `status`, with the lists and schedules of the calls that have them."""
    out: dict[str, Any] = {"status": str(result.get("status") or "Accepted")}
    reason = result.get("statusInfo")
    if isinstance(reason, dict):
        out["detail"] = " ".join(str(reason[k]) for k in ("reasonCode", "additionalInfo") if reason.get(k))
    if action == "GetVariables":
        found = [r for r in result.get("getVariableResult") or () if isinstance(r, dict)]
        told = [_variable(r, value=r.get("attributeValue")) for r in found]
        ok = [r.get("attributeStatus") == "Accepted" for r in found]
        out["variables"] = [
            {"component": v.component, "variable": v.variable, "value": v.value, "read_only": False}
            for v, fine in zip(told, ok, strict=True)
            if fine
        ]
        out["unknown"] = [f"{v.component}.{v.variable}" for v, fine in zip(told, ok, strict=True) if not fine]
    elif action == "SetVariables":
        results = [r for r in result.get("setVariableResult") or () if isinstance(r, dict)]
        out["status"] = str(results[0].get("attributeStatus", "Rejected")) if results else "Rejected"
    elif action == "GetCompositeSchedule":
        out |= _schedule(result.get("schedule"))
    elif action == "GetLog":
        out["file_name"] = str(result.get("filename") or "")
    elif action == "DataTransfer":
        out["data"] = result.get("data", "")
    return out


def _schedule(schedule: object) -> dict[str, Any]:
    if not isinstance(schedule, dict):
        return {"unit": "", "start": None, "periods": []}
    return {
        "unit": schedule.get("chargingRateUnit", ""),
        "start": schedule.get("scheduleStart"),
        "periods": [
            {"start_s": p.get("startPeriod", 0), "limit": p.get("limit"), "phases": p.get("numberPhases")}
            for p in schedule.get("chargingSchedulePeriod") or ()
            if isinstance(p, dict)
        ],
    }


def _factor(unit: object) -> float:
    """From the unit told to ours. Any spelling; an unknown one is taken as ours already."""
    factor = _FACTOR_OF.get(unit) if isinstance(unit, str) else None
    return factor if factor is not None else FACTORS.get(str(unit).lower(), 1.0)


def _text(payload: Mapping[str, Any], name: str) -> str:
    value = payload.get(name)
    return str(value).replace("\x00", "").strip() if value is not None else ""


def _whole(value: object) -> int | None:
    if isinstance(value, float) and value.is_integer():
        value = int(value)  # 1.0 is a whole number where a schema says so
    fits = isinstance(value, int) and not isinstance(value, bool) and -(2**31) <= value < 2**31
    return value if fits and isinstance(value, int) else None


def _number(value: object) -> float | None:
    try:
        number = float(value) if isinstance(value, str | int | float) else math.nan
    except ValueError:
        return None
    return number if math.isfinite(number) else None

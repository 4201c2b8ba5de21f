"""OCPP 1.6: from its payloads to our vocabulary and back. Pure.

Only this room says idTag, connectorId and configuration key. A connector is an EVSE here (1.6 has no EVSEs), its id
token has no type, its transaction id is a number we gave. Payloads come in mended (`repairs.py`), and may still carry
words nobody knows: an unknown measurand is left out, an unknown unit is taken as the measurand's own.
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
    Purpose.STATION_MAX: "ChargePointMaxProfile",
    Purpose.TX_DEFAULT: "TxDefaultProfile",
    Purpose.TX: "TxProfile",
}
_VERDICTS = {"accepted": "Accepted", "blocked": "Blocked", "expired": "Expired", "invalid": "Invalid"}
_TRIGGERS = frozenset(
    {
        "BootNotification",
        "DiagnosticsStatusNotification",
        "FirmwareStatusNotification",
        "Heartbeat",
        "MeterValues",
        "StatusNotification",
    }
)


# ---------------------------------------------------------------------- what the station tells


def boot(payload: Mapping[str, Any]) -> Boot:
    return Boot(
        vendor=_text(payload, "chargePointVendor"),
        model=_text(payload, "chargePointModel"),
        serial_number=_text(payload, "chargePointSerialNumber") or _text(payload, "chargeBoxSerialNumber"),
        firmware_version=_text(payload, "firmwareVersion"),
    )


def status(payload: Mapping[str, Any], received: datetime) -> StatusReport:
    return StatusReport(
        evse=int(payload.get("connectorId", 0)),
        connector=1,
        status=_text(payload, "status"),
        moment=moment(payload.get("timestamp"), received),
        error_code=_text(payload, "errorCode"),
        vendor_error_code=_text(payload, "vendorErrorCode"),
    )


def token(value: object) -> ShownToken:
    return ShownToken(str(value or "").strip())


def meter_values(entries: object, received: datetime) -> tuple[MeterValue, ...]:
    """The `meterValue` or `transactionData` of a message; what is no number is left out."""
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
        if sampled.get("format") == "SignedData":
            signed.append(sampled)
            continue
        try:
            value = float(sampled["value"])
        except (KeyError, TypeError, ValueError):
            continue
        if not math.isfinite(value):
            continue
        unit = sampled.get("unit")
        if unit is not None:
            value *= _factor(unit)
        context = sampled.get("context") or context
        quantities.append(
            (sampled.get("measurand") or _REGISTER, sampled.get("phase") or "", value, sampled.get("location") or "")
        )
    when = moment(entry.get("timestamp"), received)
    return MeterValue(when, tuple(quantities), context, tuple(signed), received)


def started(payload: Mapping[str, Any], received: datetime) -> TransactionReport:
    when = moment(payload.get("timestamp"), received)
    return TransactionReport(
        kind=Kind.STARTED,
        transaction_id="",
        moment=when,
        content_key=content_key(
            "start",
            payload.get("connectorId"),
            str(payload.get("idTag", "")).upper(),
            payload.get("meterStart"),
            payload.get("timestamp"),
        ),
        evse=int(payload.get("connectorId") or 1),
        token=token(payload.get("idTag")),
        trigger="StartTransaction",
        register_wh=_number(payload.get("meterStart")),
        offline=(received - when.at).total_seconds() > 60,
        payload=payload,
        received=received,
        told=_text(payload, "timestamp")[:64],
    )


def ended(payload: Mapping[str, Any], received: datetime) -> TransactionReport:
    when = moment(payload.get("timestamp"), received)
    tag = payload.get("idTag")
    return TransactionReport(
        kind=Kind.ENDED,
        transaction_id=str(payload.get("transactionId", -1)),
        moment=when,
        content_key=content_key(
            "stop",
            payload.get("transactionId"),
            payload.get("meterStop"),
            payload.get("timestamp"),
            str(tag or "").upper(),
            payload.get("reason"),
        ),
        token=token(tag) if tag else None,
        trigger="StopTransaction",
        stop_reason=_text(payload, "reason") or "Local",
        register_wh=_number(payload.get("meterStop")),
        values=meter_values(payload.get("transactionData"), received),
        offline=(received - when.at).total_seconds() > 60,
        payload=payload,
        received=received,
        told=_text(payload, "timestamp")[:64],
    )


def variables(result: Mapping[str, Any]) -> list[ReportedVariable]:
    """The keys of a GetConfiguration answer."""
    return [
        ReportedVariable(
            variable=str(key.get("key", "")),
            value=str(key.get("value") if key.get("value") is not None else ""),
            mutability="ReadOnly" if key.get("readonly") else "ReadWrite",
        )
        for key in result.get("configurationKey") or ()
        if isinstance(key, dict) and key.get("key")
    ]


def capabilities(reported: Sequence[ReportedVariable]) -> dict[str, Any]:
    """What the keys say a station can do with profiles. Letter case of keys does not count (Q24)."""
    keys = {v.variable.lower(): v.value for v in reported}
    found: dict[str, Any] = {}
    for key, name in (
        ("chargeprofilemaxstacklevel", "max_stack_level"),
        ("chargingschedulemaxperiods", "max_periods"),
        ("numberofconnectors", "connectors"),
    ):
        number = _number(keys.get(key))
        if number is not None:
            found[name] = int(number)
    if "customdisplaycostandprice" in keys:
        found["shows_cost"] = keys["customdisplaycostandprice"].strip().lower() == "true"
    unit = rate_unit(keys.get("chargingscheduleallowedchargingrateunit", ""))
    if unit:
        found["rate_unit"] = unit
    return found


def rate_unit(value: str) -> str:
    """`A` or `W` where a station takes only that one; "" where it takes both or does not say (Q20)."""
    words = value.lower()
    amps = "current" in words or words.strip(' "') in ("a", "amp", "amps", "ampere")
    watts = "power" in words or words.strip(' "') in ("w", "watt", "watts")
    if amps == watts:
        return ""
    return "A" if amps else "W"


# ---------------------------------------------------------------------- what we answer


def verdict(said: Verdict) -> dict[str, Any]:
    info: dict[str, Any] = {"status": _VERDICTS.get(said.status, "Invalid")}
    if said.group:
        info["parentIdTag"] = said.group[:20]
    if said.expires_at is not None:
        info["expiryDate"] = iso(said.expires_at)
    return info


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
    payload: dict[str, Any] = {"connectorId": evse, "idTag": value}
    if profile is not None:
        payload["chargingProfile"] = _profile(profile)
    return "RemoteStartTransaction", payload


def remote_stop(transaction_id: str) -> Call:
    return "RemoteStopTransaction", {"transactionId": int(transaction_id)}


def reset(immediate: bool, evse: int | None) -> Call:
    return "Reset", {"type": "Hard" if immediate else "Soft"}


def unlock(evse: int, connector: int) -> Call:
    return "UnlockConnector", {"connectorId": evse}


def change_availability(operative: bool, evse: int | None) -> Call:
    return "ChangeAvailability", {"connectorId": evse or 0, "type": "Operative" if operative else "Inoperative"}


def trigger(message: str, evse: int | None, connector: int | None = None) -> Call:
    """What core does not name goes by the security extension's own message; 2.0.1's name for a message is taken too."""
    message = "SignChargePointCertificate" if message == "SignChargingStationCertificate" else message
    payload: dict[str, Any] = {"requestedMessage": message}
    if evse is not None:
        payload["connectorId"] = evse
    return "TriggerMessage" if message in _TRIGGERS else "ExtendedTriggerMessage", payload


def get_variables(names: Sequence[str] | None) -> Call:
    return "GetConfiguration", {"key": list(names)} if names else {}


def set_variable(component: str, variable: str, value: str, evse: int | None) -> Call:
    return "ChangeConfiguration", {"key": variable, "value": value}


def request_report(request_id: int) -> Call:
    return "GetConfiguration", {}


def composite_schedule(evse: int, duration_s: int, unit: str) -> Call:
    payload: dict[str, Any] = {"connectorId": evse, "duration": duration_s}
    if unit:
        payload["chargingRateUnit"] = unit
    return "GetCompositeSchedule", payload


def clear_limits(evse: int | None, purpose: str = "") -> Call:
    payload: dict[str, Any] = {}
    if evse is not None:
        payload["connectorId"] = evse
    if purpose:
        payload["chargingProfilePurpose"] = _PURPOSES[Purpose(purpose)]
    return "ClearChargingProfile", payload


def data_transfer(vendor_id: str, message_id: str, data: str) -> Call:
    payload = {"vendorId": vendor_id}
    if message_id:
        payload["messageId"] = message_id
    if data:
        payload["data"] = data
    return "DataTransfer", payload


def set_profile(profile: ChargingProfile) -> Call:
    return "SetChargingProfile", {"connectorId": profile.evse, "csChargingProfiles": _profile(profile)}


def _profile(profile: ChargingProfile) -> dict[str, Any]:
    """A charging profile as 1.6 writes it: one decimal, rounded down."""
    schedule: dict[str, Any] = {}
    if profile.schedule.duration_s is not None:
        schedule["duration"] = profile.schedule.duration_s
    if profile.schedule.start is not None:
        schedule["startSchedule"] = iso(profile.schedule.start)
    schedule["chargingRateUnit"] = str(profile.schedule.unit)
    schedule["chargingSchedulePeriod"] = [
        {"startPeriod": p.start_s, "limit": one_decimal(p.limit)}
        | ({"numberPhases": p.phases} if p.phases is not None else {})
        for p in profile.schedule.periods
    ]
    if profile.schedule.min_rate is not None:
        schedule["minChargingRate"] = one_decimal(profile.schedule.min_rate)
    body: dict[str, Any] = {"chargingProfileId": profile.id}
    if profile.transaction_id is not None:
        body["transactionId"] = int(profile.transaction_id)
    body |= {
        "stackLevel": profile.stack_level,
        "chargingProfilePurpose": _PURPOSES[profile.purpose],
        "chargingProfileKind": str(profile.kind),
        "chargingSchedule": schedule,
    }
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
    if action == "GetConfiguration":
        out["variables"] = [
            {"component": "", "variable": v.variable, "value": v.value, "read_only": v.mutability == "ReadOnly"}
            for v in variables(result)
        ]
        out["unknown"] = [str(k) for k in result.get("unknownKey") or ()]
    elif action == "GetCompositeSchedule":
        out |= _schedule(result.get("chargingSchedule"), result.get("scheduleStart"))
    elif action in ("GetLog", "GetDiagnostics"):
        out["file_name"] = str(result.get("fileName") or result.get("filename") or "")
    elif action == "DataTransfer":
        out["data"] = result.get("data", "")
    return out


def _schedule(schedule: object, start: object) -> dict[str, Any]:
    if not isinstance(schedule, dict):
        return {"unit": "", "start": None, "periods": []}
    return {
        "unit": schedule.get("chargingRateUnit", ""),
        "start": start or schedule.get("startSchedule"),
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


def _number(value: object) -> float | None:
    try:
        number = float(value) if isinstance(value, str | int | float) else math.nan
    except ValueError:
        return None
    return number if math.isfinite(number) else None

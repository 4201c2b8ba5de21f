"""OCPP 2.0.1: charging profiles as a station has them, the limits of others, and what cars need (block K). Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from csms.ocpp201.codec import Call, _number, _text, _whole
from csms.reported import CarSchedule, Needs, OthersLimit, Part
from csms.vocabulary import read_time

PURPOSES = ("ChargingStationExternalConstraints", "ChargingStationMaxProfile", "TxDefaultProfile", "TxProfile")
SOURCES = ("EMS", "Other", "SO", "CSO")
MOST_PERIODS = 1024


# ---------------------------------------------------------------------- what the station tells


def profiles_part(payload: Mapping[str, Any]) -> Part:
    """Of ReportChargingProfiles: its parts carry no number. Each profile says where it lies and who set it."""
    where = {"evse": _whole(payload.get("evseId")) or 0, "source": _text(payload, "chargingLimitSource")}
    found = [p for p in payload.get("chargingProfile") or () if isinstance(p, dict)]
    return Part(
        "profiles",
        _whole(payload.get("requestId")) or 0,
        None,
        payload.get("tbc") is not True,
        [{**where, **_profile(p)} for p in found],
    )


def _profile(told: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "id": told.get("id"),
        "purpose": _text(told, "chargingProfilePurpose"),
        "stack_level": told.get("stackLevel"),
        "kind": _text(told, "chargingProfileKind"),
        "recurrency": _text(told, "recurrencyKind"),
        "valid_from": told.get("validFrom"),
        "valid_to": told.get("validTo"),
        "transaction_id": _text(told, "transactionId"),
        "schedules": schedules(told.get("chargingSchedule")),
    }


def schedules(told: object) -> list[dict[str, Any]]:
    return [_schedule(s) for s in told if isinstance(s, dict)] if isinstance(told, list) else []


def _schedule(told: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "unit": _text(told, "chargingRateUnit"),
        "start": told.get("startSchedule"),
        "duration_s": told.get("duration"),
        "periods": [
            {"start_s": p.get("startPeriod", 0), "limit": p.get("limit"), "phases": p.get("numberPhases")}
            for p in (told.get("chargingSchedulePeriod") or ())[:MOST_PERIODS]
            if isinstance(p, dict)
        ],
    }


def others_limit(payload: Mapping[str, Any]) -> OthersLimit:
    limit = payload.get("chargingLimit")
    limit = limit if isinstance(limit, dict) else {}
    return OthersLimit(
        evse=_whole(payload.get("evseId")) or 0,
        source=_text(limit, "chargingLimitSource") or "Other",
        grid_critical=limit.get("isGridCritical") is True,
        schedules=schedules(payload.get("chargingSchedule")),
    )


def needs(payload: Mapping[str, Any]) -> Needs:
    """AC and DC cars tell different things; amounts are Wh, W, A and V, shares of the battery in per cent."""
    told = payload.get("chargingNeeds")
    told = told if isinstance(told, dict) else {}
    ac, dc = told.get("acChargingParameters"), told.get("dcChargingParameters")
    of = ac if isinstance(ac, dict) else dc if isinstance(dc, dict) else {}
    return Needs(
        evse=_whole(payload.get("evseId")) or 0,
        transfer=_text(told, "requestedEnergyTransfer"),
        departure=_ahead(told.get("departureTime")),
        energy_wh=_amount(of.get("energyAmount")),
        min_a=_amount(of.get("evMinCurrent")),
        max_a=_amount(of.get("evMaxCurrent")),
        max_v=_amount(of.get("evMaxVoltage")),
        max_w=_amount(of.get("evMaxPower")),
        soc=_share(of.get("stateOfCharge")),
        full_soc=_share(of.get("fullSoC")),
        capacity_wh=_amount(of.get("evEnergyCapacity")),
    )


def _ahead(told: object) -> datetime | None:
    """A time that may lie ahead of us; without a zone it says nothing (`vocabulary.moment` distrusts the future)."""
    at = read_time(told)
    return at if at is not None and at.tzinfo is not None else None


def _amount(value: object) -> float | None:
    number = _number(value)
    return number if number is not None and 0 <= number < 1e9 else None


def _share(value: object) -> float | None:
    number = _number(value)
    return number / 100.0 if number is not None and 0 <= number <= 100 else None


def car_schedule(payload: Mapping[str, Any], received: datetime) -> CarSchedule:
    """Its periods count from `timeBase`, or from the schedule's own start where that is told (K15)."""
    told = payload.get("chargingSchedule")
    told = told if isinstance(told, dict) else {}
    start = _ahead(told.get("startSchedule")) or _ahead(payload.get("timeBase")) or received
    periods = []
    for p in (told.get("chargingSchedulePeriod") or ())[:MOST_PERIODS]:
        limit = _number(p.get("limit")) if isinstance(p, dict) else None
        if limit is not None:
            periods.append((_whole(p.get("startPeriod")) or 0, limit, _whole(p.get("numberPhases")) or 3))
    return CarSchedule(
        evse=_whole(payload.get("evseId")) or 0,
        unit=_text(told, "chargingRateUnit") or "A",
        start=start,
        periods=sorted(periods),
        payload=_schedule(told),
    )


# ---------------------------------------------------------------------- what we ask


def get_profiles(
    request_id: int,
    evse: int | None,
    purpose: str | None,
    stack_level: int | None,
    ids: Sequence[int],
    sources: Sequence[str],
) -> Call:
    """Without an EVSE of all of them; 0 means the profiles of the station as a whole (K09)."""
    criteria: dict[str, Any] = {}
    if purpose:
        criteria["chargingProfilePurpose"] = purpose
    if stack_level is not None:
        criteria["stackLevel"] = stack_level
    if ids:
        criteria["chargingProfileId"] = list(ids)
    if sources:
        criteria["chargingLimitSource"] = list(sources)
    payload: dict[str, Any] = {"requestId": request_id, "chargingProfile": criteria}
    if evse is not None:
        payload["evseId"] = evse
    return "GetChargingProfiles", payload


def clear_profiles(profile_id: int | None, evse: int | None, purpose: str | None, stack_level: int | None) -> Call:
    """By its id, or all that meet every criterion given (K10)."""
    if profile_id is not None:
        return "ClearChargingProfile", {"chargingProfileId": profile_id}
    said = {"evseId": evse, "chargingProfilePurpose": purpose, "stackLevel": stack_level}
    criteria = {name: value for name, value in said.items() if value is not None}
    return "ClearChargingProfile", {"chargingProfileCriteria": criteria} if criteria else {}

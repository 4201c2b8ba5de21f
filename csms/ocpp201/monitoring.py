"""OCPP 2.0.1: monitors on variables and the events they make (block N). Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from csms.ocpp201.codec import Call, _number, _text, _whole
from csms.reported import Event, Monitor, Part, Place
from csms.vocabulary import content_key, moment

BASES = ("All", "FactoryDefault", "HardWiredOnly")
TYPES = ("UpperThreshold", "LowerThreshold", "Delta", "Periodic", "PeriodicClockAligned")
CRITERIA = ("ThresholdMonitoring", "DeltaMonitoring", "PeriodicMonitoring")


def place(data: Mapping[str, Any]) -> Place:
    """Where a variable stands, from an element with `component` and `variable`."""
    component = data.get("component")
    component = component if isinstance(component, dict) else {}
    variable = data.get("variable")
    variable = variable if isinstance(variable, dict) else {}
    evse = component.get("evse")
    evse = evse if isinstance(evse, dict) else {}
    return Place(
        component=_text(component, "name"),
        variable=_text(variable, "name"),
        component_instance=_text(component, "instance"),
        evse=_whole(evse.get("id")) or 0,
        connector=_whole(evse.get("connectorId")) or 0,
        variable_instance=_text(variable, "instance"),
    )


def told_place(where: Place) -> dict[str, Any]:
    """The same as the station reads it."""
    component: dict[str, Any] = {"name": where.component}
    if where.component_instance:
        component["instance"] = where.component_instance
    if where.evse:
        component["evse"] = {"id": where.evse} | ({"connectorId": where.connector} if where.connector else {})
    variable: dict[str, Any] = {"name": where.variable}
    if where.variable_instance:
        variable["instance"] = where.variable_instance
    return {"component": component, "variable": variable}


# ---------------------------------------------------------------------- what the station tells


def events(payload: Mapping[str, Any], received: datetime) -> list[Event]:
    return [_event(e, received) for e in payload.get("eventData") or () if isinstance(e, dict)]


def _event(told: Mapping[str, Any], received: datetime) -> Event:
    where = place(told)
    return Event(
        place=where,
        number=_whole(told.get("eventId")) or 0,
        moment=moment(told.get("timestamp"), received),
        content_key=content_key(
            told.get("eventId"), told.get("timestamp"), where.component, where.variable, told.get("actualValue")
        ),
        trigger=_text(told, "trigger"),
        origin=_text(told, "eventNotificationType"),
        cause=_whole(told.get("cause")),
        value=_text(told, "actualValue"),
        tech_code=_text(told, "techCode"),
        tech_info=_text(told, "techInfo"),
        cleared=told.get("cleared") is True,
        transaction_id=_text(told, "transactionId"),
        monitor=_whole(told.get("variableMonitoringId")),
    )


def monitors(payload: Mapping[str, Any]) -> list[Monitor]:
    """The monitors of a NotifyMonitoringReport."""
    found = []
    for data in payload.get("monitor") or ():
        if not isinstance(data, dict):
            continue
        where = place(data)
        for told in data.get("variableMonitoring") or ():
            number = _whole(told.get("id")) if isinstance(told, dict) else None
            if number is not None:
                found.append(
                    Monitor(
                        place=where,
                        type=_text(told, "type"),
                        value=_number(told.get("value")) or 0.0,
                        severity=_severity(told.get("severity")),
                        number=number,
                        during_transactions=told.get("transaction") is True,
                    )
                )
    return found


def monitors_part(payload: Mapping[str, Any]) -> Part:
    return Part(
        "monitors",
        _whole(payload.get("requestId")) or 0,
        _whole(payload.get("seqNo")),
        payload.get("tbc") is not True,
        [{"generated_at": _text(payload, "generatedAt"), "monitors": len(payload.get("monitor") or ())}],
    )


def _severity(value: object) -> int:
    number = _whole(value)
    return 9 if number is None else max(0, min(number, 9))


# ---------------------------------------------------------------------- what we ask, and what it answers


def set_base(base: str) -> Call:
    return "SetMonitoringBase", {"monitoringBase": base}


def set_level(severity: int) -> Call:
    """Events above this severity's number are kept by the station to itself (N03)."""
    return "SetMonitoringLevel", {"severity": severity}


def set_monitors(wished: Sequence[Monitor]) -> Call:
    return "SetVariableMonitoring", {"setMonitoringData": [_wish(m) for m in wished]}


def _wish(monitor: Monitor) -> dict[str, Any]:
    told: dict[str, Any] = {"id": monitor.number} if monitor.number is not None else {}
    if monitor.during_transactions:
        told["transaction"] = True
    told |= {"value": monitor.value, "type": monitor.type, "severity": monitor.severity}
    return told | told_place(monitor.place)


def monitors_set(wished: Sequence[Monitor], result: Mapping[str, Any]) -> tuple[dict[str, Any], list[Monitor]]:
    """What became of each wish, and the monitors that now stand, with the numbers the station gave them."""
    results = [r for r in result.get("setMonitoringResult") or () if isinstance(r, dict)]
    stands = []
    for wish, told in zip(wished, results, strict=False):
        number = _whole(told.get("id"))
        if told.get("status") == "Accepted" and number is not None:
            stands.append(replace(wish, number=number, severity=_severity(told.get("severity", wish.severity))))
    statuses = [str(r.get("status", "Rejected")) for r in results] or ["Rejected"]
    worst = next((s for s in statuses if s != "Accepted"), "Accepted")
    return {"status": worst, "numbers": [m.number for m in stands], "statuses": statuses}, stands


def clear_monitors(numbers: Sequence[int]) -> Call:
    return "ClearVariableMonitoring", {"id": list(numbers)}


def monitors_cleared(result: Mapping[str, Any]) -> tuple[dict[str, Any], list[int]]:
    """What became of each, and the numbers that are free now: one the station does not know is gone as well."""
    results = [r for r in result.get("clearMonitoringResult") or () if isinstance(r, dict)]
    gone = [_whole(r.get("id")) for r in results if r.get("status") in ("Accepted", "NotFound")]
    statuses = [str(r.get("status", "Rejected")) for r in results] or ["Rejected"]
    worst = next((s for s in statuses if s != "Accepted"), "Accepted")
    return {"status": worst, "statuses": statuses}, [n for n in gone if n is not None]


def monitoring_report(request_id: int, criteria: Sequence[str], places: Sequence[Place]) -> Call:
    payload: dict[str, Any] = {"requestId": request_id}
    if criteria:
        payload["monitoringCriteria"] = list(criteria)
    if places:
        payload["componentVariable"] = [told_place(p) for p in places]
    return "GetMonitoringReport", payload

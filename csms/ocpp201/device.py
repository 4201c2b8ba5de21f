"""OCPP 2.0.1: reports on the device model by criteria, network profiles, what became of a transaction. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from csms.ocpp201.codec import Call, _text, _whole
from csms.ocpp201.monitoring import told_place
from csms.reported import Part, Place

BASES = ("FullInventory", "ConfigurationInventory", "SummaryInventory")
CRITERIA = ("Active", "Available", "Enabled", "Problem")
INTERFACES = ("Wired0", "Wired1", "Wired2", "Wired3", "Wireless0", "Wireless1", "Wireless2", "Wireless3")


def inventory_part(payload: Mapping[str, Any]) -> Part:
    """Its variables are kept as variables; the part remembers only that it came."""
    return Part(
        "inventory",
        _whole(payload.get("requestId")) or 0,
        _whole(payload.get("seqNo")),
        payload.get("tbc") is not True,
        [{"generated_at": _text(payload, "generatedAt"), "variables": len(payload.get("reportData") or ())}],
    )


def base_report(request_id: int, base: str) -> Call:
    return "GetBaseReport", {"requestId": request_id, "reportBase": base}


def report(request_id: int, places: Sequence[Place], criteria: Sequence[str]) -> Call:
    """A place whose variable has its component's name stands for all variables of that component."""
    payload: dict[str, Any] = {"requestId": request_id}
    if places:
        payload["componentVariable"] = [_whole_component(p) for p in places]
    if criteria:
        payload["componentCriteria"] = list(criteria)
    return "GetReport", payload


def _whole_component(where: Place) -> dict[str, Any]:
    told = told_place(where)
    if where.variable == where.component:
        del told["variable"]
    return told


def network_profile(slot: int, url: str, security_profile: int, interface: str, timeout_s: int) -> Call:
    """Where and how to connect; the version is spelt as 2.0.1 spells its own name (B09)."""
    data = {
        "ocppVersion": "OCPP20",
        "ocppTransport": "JSON",
        "ocppCsmsUrl": url,
        "messageTimeout": timeout_s,
        "securityProfile": security_profile,
        "ocppInterface": interface,
    }
    return "SetNetworkProfile", {"configurationSlot": slot, "connectionData": data}


def transaction_status(transaction_id: str | None) -> Call:
    return "GetTransactionStatus", {"transactionId": transaction_id} if transaction_id else {}


def transaction_state(result: Mapping[str, Any]) -> dict[str, Any]:
    """`ongoing` is None where no transaction was named; `messages_waiting`: has it still something to tell? (E14)"""
    ongoing = result.get("ongoingIndicator")
    status = "Accepted" if ongoing is None else "Ongoing" if ongoing else "Ended"
    return {"status": status, "ongoing": ongoing, "messages_waiting": result.get("messagesInQueue") is True}

"""OCPP 2.0.1: messages on the display, what is kept of customers, costs (blocks I, N09, N10 and O). Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from csms.ocpp201.codec import Call, _text, _whole, iso
from csms.reported import Part

PRIORITIES = ("NormalCycle", "InFront", "AlwaysFront")
STATES = ("Charging", "Faulted", "Idle", "Unavailable")
FORMATS = ("UTF8", "ASCII", "HTML", "URI")


# ---------------------------------------------------------------------- what the station tells


def display_part(payload: Mapping[str, Any]) -> Part:
    """Of NotifyDisplayMessages: its parts carry no number."""
    found = [m for m in payload.get("messageInfo") or () if isinstance(m, dict)]
    return Part(
        "display",
        _whole(payload.get("requestId")) or 0,
        None,
        payload.get("tbc") is not True,
        [_message(m) for m in found],
    )


def _message(told: Mapping[str, Any]) -> dict[str, Any]:
    message = told.get("message")
    message = message if isinstance(message, dict) else {}
    return {
        "id": told.get("id"),
        "text": _text(message, "content"),
        "language": _text(message, "language"),
        "priority": _text(told, "priority"),
        "state": _text(told, "state"),
        "starts": told.get("startDateTime"),
        "ends": told.get("endDateTime"),
        "transaction_id": _text(told, "transactionId"),
    }


def customer_part(payload: Mapping[str, Any]) -> Part:
    return Part(
        "customer",
        _whole(payload.get("requestId")) or 0,
        _whole(payload.get("seqNo")),
        payload.get("tbc") is not True,
        [_text(payload, "data")],
    )


# ---------------------------------------------------------------------- what we ask


def show_message(
    number: int,
    text: str,
    priority: str,
    state: str | None,
    starts: datetime | None,
    ends: datetime | None,
    transaction_id: str | None,
    language: str | None,
    text_format: str,
) -> Call:
    """A message of the same number is replaced (O01)."""
    content: dict[str, Any] = {"format": text_format, "content": text}
    if language:
        content["language"] = language
    message: dict[str, Any] = {"id": number, "priority": priority, "message": content}
    if state:
        message["state"] = state
    if starts is not None:
        message["startDateTime"] = iso(starts)
    if ends is not None:
        message["endDateTime"] = iso(ends)
    if transaction_id:
        message["transactionId"] = transaction_id
    return "SetDisplayMessage", {"message": message}


def get_messages(request_id: int, numbers: Sequence[int], priority: str | None, state: str | None) -> Call:
    payload: dict[str, Any] = {"requestId": request_id}
    if numbers:
        payload["id"] = list(numbers)
    if priority:
        payload["priority"] = priority
    if state:
        payload["state"] = state
    return "GetDisplayMessages", payload


def clear_message(number: int) -> Call:
    return "ClearDisplayMessage", {"id": number}


def customer_information(
    request_id: int, report: bool, clear: bool, token: tuple[str, str] | None, identifier: str | None
) -> Call:
    """Of a token (value and type), or of whoever the station knows by this identifier (N09, N10)."""
    payload: dict[str, Any] = {"requestId": request_id, "report": report, "clear": clear}
    if token is not None:
        payload["idToken"] = {"idToken": token[0], "type": token[1] or "Central"}
    if identifier:
        payload["customerIdentifier"] = identifier
    return "CustomerInformation", payload


def cost_updated(transaction_id: str, total: float) -> Call:
    return "CostUpdated", {"totalCost": total, "transactionId": transaction_id}

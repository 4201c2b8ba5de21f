"""OCPP 2.0.1: who may charge when the central system is away, and for whom a place is kept (blocks D and H). Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from csms.ocpp201.codec import Call, iso, verdict
from csms.vocabulary import ListEntry, Notice, Subject


def send_local_list(entries: Sequence[ListEntry], version: int, differential: bool) -> Call:
    payload: dict[str, Any] = {"versionNumber": version, "updateType": "Differential" if differential else "Full"}
    if entries:
        payload["localAuthorizationList"] = [_entry(e) for e in entries]
    return "SendLocalList", payload


def _entry(entry: ListEntry) -> dict[str, Any]:
    told: dict[str, Any] = {"idToken": {"idToken": entry.token.value, "type": entry.token.type or "Central"}}
    if entry.verdict is not None:
        told["idTokenInfo"] = verdict(entry.verdict)
    return told


def local_list_version() -> Call:
    return "GetLocalListVersion", {}


def list_version(result: Mapping[str, Any]) -> dict[str, Any]:
    """0 means that there is no list in the station, or that it keeps none (D02)."""
    return {"status": "Accepted", "version": max(int(result.get("versionNumber", 0)), 0)}


def clear_cache() -> Call:
    return "ClearCache", {}


def reserve(
    reservation_id: int,
    evse: int | None,
    value: str,
    token_type: str,
    group: str,
    expires_at: datetime,
    connector_type: str | None,
) -> Call:
    """Without an EVSE the station keeps whichever is free, of the kind of plug that is named (H01)."""
    payload: dict[str, Any] = {
        "id": reservation_id,
        "expiryDateTime": iso(expires_at),
        "idToken": {"idToken": value, "type": token_type or "Central"},
    }
    if evse is not None:
        payload["evseId"] = evse
    if connector_type:
        payload["connectorType"] = connector_type
    if group:
        payload["groupIdToken"] = {"idToken": group, "type": "Central"}
    return "ReserveNow", payload


def cancel_reservation(reservation_id: int) -> Call:
    return "CancelReservation", {"reservationId": reservation_id}


def reservation_notice(payload: Mapping[str, Any], received: datetime) -> Notice:
    """A reservation that is over: `Expired`, or `Removed` because its place broke down (H04)."""
    return Notice(
        Subject.RESERVATION,
        str(payload.get("reservationUpdateStatus", "")),
        received,
        request_id=int(payload.get("reservationId", 0)),
    )

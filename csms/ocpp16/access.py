"""OCPP 1.6: who may charge when the central system is away, and for whom a place is kept. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from csms.ocpp16.codec import Call, iso, verdict
from csms.vocabulary import ListEntry

LONGEST_TAG = 20
NO_LIST = -1


def send_local_list(entries: Sequence[ListEntry], version: int, differential: bool) -> Call:
    """A token longer than 1.6 can say is left out: no station of this version can ever be shown one."""
    payload: dict[str, Any] = {"listVersion": version, "updateType": "Differential" if differential else "Full"}
    told = [_entry(e) for e in entries if len(e.token.value) <= LONGEST_TAG]
    if told:
        payload["localAuthorizationList"] = told
    return "SendLocalList", payload


def _entry(entry: ListEntry) -> dict[str, Any]:
    told: dict[str, Any] = {"idTag": entry.token.value}
    if entry.verdict is not None:
        told["idTagInfo"] = verdict(entry.verdict)
    return told


def local_list_version() -> Call:
    return "GetLocalListVersion", {}


def list_version(result: Mapping[str, Any]) -> dict[str, Any]:
    """-1 means that the station keeps no list at all (1.6 §5.10)."""
    version = int(result.get("listVersion", NO_LIST))
    return {"status": "NotSupported" if version == NO_LIST else "Accepted", "version": max(version, 0)}


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
    """Without an EVSE any connector of the station is kept (connector 0). 1.6 knows no kinds of plug."""
    payload: dict[str, Any] = {
        "connectorId": evse or 0,
        "expiryDate": iso(expires_at),
        "idTag": value,
        "reservationId": reservation_id,
    }
    if group:
        payload["parentIdTag"] = group[:LONGEST_TAG]
    return "ReserveNow", payload


def cancel_reservation(reservation_id: int) -> Call:
    return "CancelReservation", {"reservationId": reservation_id}

"""Vendors' own messages that stations send us (DataTransfer), by vendor and message id.

A vendor nobody here knows is told so, and so is a message of a known one; both stay in the message log. To understand
one, add its function: it gets the session and the data, and gives a status and the data to answer with.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from csms.session import Session

Understood = Callable[["Session", Any], tuple[str, Any]]

VENDORS: dict[str, Mapping[str, Understood]] = {}


def answer(session: Session, payload: Mapping[str, Any]) -> dict[str, Any]:
    """The answer to a DataTransfer; both dialects write it alike."""
    vendor = VENDORS.get(str(payload.get("vendorId", "")))
    if vendor is None:
        session.count("data_transfer")
        return {"status": "UnknownVendorId"}
    understood = vendor.get(str(payload.get("messageId") or ""))
    if understood is None:
        session.count("data_transfer")
        return {"status": "UnknownMessageId"}
    status, data = understood(session, payload.get("data"))
    return {"status": status} | ({"data": data} if data is not None else {})

"""How a door asks a station something: in the dialect of its present connection, once, and with an answer in our words.

The verbs are in `calls.py` (the daily ones), `inspection.py` (looking into a station), `display.py` (for and about its
drivers). Longer work asks by them too (`asking.py`). All raise `bus.StationUnreachable`, `CallRefused`, `NoAnswer` or
`CallNotValid`.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

from django.conf import settings

from csms import bus
from csms.models import EVSE, ChargingStation
from csms.ocpp16 import codec as codec16
from csms.ocpp201 import codec as codec201
from csms.schemas import V16, V201

CODECS: Mapping[str, ModuleType] = {V16: codec16, V201: codec201}


def protocol(station: ChargingStation) -> str:
    """Of the present connection: the version belongs to it, not to the station."""
    at = bus.holder(station.identity)
    if at is None or at.protocol not in CODECS:
        raise bus.StationUnreachable(station.identity)
    return at.protocol


def of(blocks: Mapping[str, ModuleType], station: ChargingStation) -> ModuleType:
    """The codec of one functional block, in the station's present dialect."""
    return blocks[protocol(station)]


def codec_of(station: ChargingStation) -> ModuleType:
    return of(CODECS, station)


def needs_201(station: ChargingStation, what: str) -> None:
    if protocol(station) != V201:
        raise bus.CallNotValid(f"OCPP 1.6, which this station speaks now, has no {what}")


def request_id(given: int | None = None) -> int:
    return given if given is not None else secrets.randbelow(2**31 - 1)


def ask(
    station: ChargingStation,
    call: tuple[str, dict[str, Any]],
    read: Callable[[Mapping[str, Any]], dict[str, Any]] | None = None,
) -> dict[str, Any]:
    """Ask it; the answer as `read` understands it, else as the dialect's codec does."""
    action, payload = call
    result = bus.request(station.identity, action, payload, settings.OCPP_CALL_TIMEOUT_S)
    answered: dict[str, Any] = (read or (lambda r: codec_of(station).answered(action, r)))(result)
    return answered


def number_of(station: ChargingStation, evse: EVSE | None) -> int | None:
    """The EVSE's number on this station; None for the station as a whole."""
    if evse is None:
        return None
    if evse.station_id != station.pk:
        raise bus.CallNotValid("evse: it belongs to another station")
    return evse.number

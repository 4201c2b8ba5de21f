"""The one-off things we ask a station: made once, answered or timed out, never repeated by themselves.

For doors (admin, REST, the driver's page): synchronous and version-free. Each speaks the dialect of the station's
present connection, and answers with a small dictionary that has at least `status`, the station's own word.
Each raises `bus.StationUnreachable`, `CallRefused` (the station answered with an error), `NoAnswer` or
`CallNotValid` (nothing was sent).
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from types import ModuleType
from typing import Any

from django.conf import settings

from csms import bus, stations
from csms.models import EVSE, ChargingStation, IdToken, Transaction
from csms.ocpp16 import codec as codec16
from csms.ocpp201 import codec as codec201
from csms.schemas import V16, V201, dialect

_CODECS: dict[str, ModuleType] = {V16: codec16, V201: codec201}
LONGEST_SCHEDULE_S = 7 * 24 * 3600


def remote_start(evse: EVSE, id_token: IdToken) -> dict[str, Any]:
    """Start a charge on this EVSE in the name of this token."""
    station = evse.station
    codec = _codec(station)
    return _ask(station, codec.remote_start(evse.number, id_token.value, id_token.type, secrets.randbelow(2**31 - 1)))


def remote_stop(transaction: Transaction) -> dict[str, Any]:
    """End a transaction that is open."""
    if not transaction.open:
        raise bus.CallNotValid("transaction: it has ended already")
    if _protocol(transaction.station) == V16 and not transaction.transaction_id.isdecimal():
        raise bus.CallNotValid("transaction: it began over OCPP 2.0.1, and the station speaks 1.6 now")
    return _ask(transaction.station, _codec(transaction.station).remote_stop(transaction.transaction_id))


def reset(station: ChargingStation, immediate: bool = False, evse: EVSE | None = None) -> dict[str, Any]:
    """Restart a station, or one EVSE of it (2.0.1). Not immediate: once nobody charges (1.6: a soft reset)."""
    return _ask(station, _codec(station).reset(immediate, _number(station, evse)))


def unlock(evse: EVSE, connector: int = 1) -> dict[str, Any]:
    """Let the cable go."""
    if connector < 1:
        raise bus.CallNotValid("connector: numbers start at 1")
    return _ask(evse.station, _codec(evse.station).unlock(evse.number, connector))


def change_availability(station: ChargingStation, operative: bool, evse: EVSE | None = None) -> dict[str, Any]:
    """In or out of service. During a transaction the answer is `Scheduled`: it comes after its end."""
    result = _ask(station, _codec(station).change_availability(operative, _number(station, evse)))
    if result["status"] in ("Accepted", "Scheduled"):
        places = EVSE.objects.filter(pk=evse.pk) if evse is not None else EVSE.objects.filter(station=station)
        places.update(available=operative)
    return result


def trigger(station: ChargingStation, message: str, evse: EVSE | None = None) -> dict[str, Any]:
    """Ask the station to send a message now: BootNotification, StatusNotification, MeterValues, Heartbeat …"""
    return _ask(station, _codec(station).trigger(message, _number(station, evse)))


def get_variables(station: ChargingStation, names: Sequence[str] | None) -> dict[str, Any]:
    """Values by name: configuration keys in 1.6 (None: all), `Component.Variable` in 2.0.1 (None: a few that matter).

    The answer has `variables`, a list of component, variable, value and read_only; and `unknown`, a list of names.
    """
    return _ask(station, _codec(station).get_variables(names))


def set_variable(
    station: ChargingStation, component: str, variable: str, value: str, evse: EVSE | None = None
) -> dict[str, Any]:
    """Set one value. In 1.6 the component is not used, and the variable is the configuration key."""
    if not variable:
        raise bus.CallNotValid("variable: name it")
    return _ask(station, _codec(station).set_variable(component, variable, value, _number(station, evse)))


def request_report(station: ChargingStation) -> dict[str, Any]:
    """Have everything the station knows of itself read anew. In 2.0.1 it comes later, part by part, as NotifyReport."""
    codec = _codec(station)
    action, payload = codec.request_report(secrets.randbelow(2**31 - 1))
    result = bus.request(station.identity, action, payload, settings.OCPP_CALL_TIMEOUT_S)
    if action == "GetConfiguration":
        stations.reported(station.pk, codec.variables(result), datetime.now(UTC))
    answered: dict[str, Any] = codec.answered(action, result)
    return answered


def composite_schedule(evse: EVSE, duration_s: int) -> dict[str, Any]:
    """What the station itself says it will allow: `unit`, `start` and `periods` of start_s, limit and phases."""
    if not 0 < duration_s <= LONGEST_SCHEDULE_S:
        raise bus.CallNotValid(f"duration_s: 1 to {LONGEST_SCHEDULE_S} seconds")
    known = evse.station.capabilities.get("rate_unit")
    unit = known or ("W" if evse.station.current == ChargingStation.Current.DC else "A")
    return _ask(evse.station, _codec(evse.station).composite_schedule(evse.number, duration_s, unit))


def clear_limits(where: EVSE | ChargingStation) -> dict[str, Any]:
    """Take away the charging profiles of an EVSE, or of a whole station.

    The fail-safe and what is wanted now are sent anew at once by the gateway, unless the station is quiet.
    """
    station = where.station if isinstance(where, EVSE) else where
    number = where.number if isinstance(where, EVSE) else None
    return _ask(station, _codec(station).clear_limits(number))


def data_transfer(station: ChargingStation, vendor_id: str, message_id: str = "", data: str = "") -> dict[str, Any]:
    """A vendor's own message. The answer has the station's `data`."""
    return _ask(station, _codec(station).data_transfer(vendor_id, message_id, data))


def send(station: ChargingStation, action: str, payload: Mapping[str, Any]) -> dict[str, Any]:
    """A message in the station's own dialect, as it is written here; the station's answer, as it is.

    Checked against the dialect's schema first: `CallNotValid` names the field.
    """
    at = bus.holder(station.identity)
    if at is None:
        raise bus.StationUnreachable(station.identity)
    fault = dialect(at.protocol).refusal(action, dict(payload))
    if fault is not None:
        raise bus.CallNotValid(fault)
    return bus.request(station.identity, action, dict(payload), settings.OCPP_CALL_TIMEOUT_S)


def _codec(station: ChargingStation) -> ModuleType:
    return _CODECS[_protocol(station)]


def _protocol(station: ChargingStation) -> str:
    """Of the present connection: the version belongs to it, not to the station."""
    at = bus.holder(station.identity)
    if at is None or at.protocol not in _CODECS:
        raise bus.StationUnreachable(station.identity)
    return at.protocol


def _ask(station: ChargingStation, call: tuple[str, dict[str, Any]]) -> dict[str, Any]:
    action, payload = call
    result = bus.request(station.identity, action, payload, settings.OCPP_CALL_TIMEOUT_S)
    answered: dict[str, Any] = _codec(station).answered(action, result)
    return answered


def _number(station: ChargingStation, evse: EVSE | None) -> int | None:
    if evse is None:
        return None
    if evse.station_id != station.pk:
        raise bus.CallNotValid("evse: it belongs to another station")
    return evse.number

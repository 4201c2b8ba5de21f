"""The one-off things we ask a station: made once, answered or timed out, never repeated by themselves.

For doors (admin, REST, the driver's page): synchronous and version-free. Each speaks the dialect of the station's
present connection, and answers with a small dictionary that has at least `status`, the station's own word.
Each raises `bus.StationUnreachable`, `CallRefused` (the station answered with an error), `NoAnswer` or
`CallNotValid` (nothing was sent).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from types import ModuleType
from typing import Any

from django.conf import settings

from csms import bus, stations
from csms.models import EVSE, ChargingStation, IdToken, Transaction
from csms.ocpp16 import access as access16
from csms.ocpp16 import firmware as firmware16
from csms.ocpp201 import access as access201
from csms.ocpp201 import firmware as firmware201
from csms.profiles import ChargingProfile, Kind, Period, Purpose, Schedule, Unit
from csms.schemas import V16, V201, dialect
from csms.speaking import ask as _ask
from csms.speaking import codec_of as _codec
from csms.speaking import needs_201 as _needs_201
from csms.speaking import number_of as _number
from csms.speaking import of as _of
from csms.speaking import protocol as _protocol
from csms.speaking import request_id as _request_id
from csms.vocabulary import ListEntry

_ACCESS: dict[str, ModuleType] = {V16: access16, V201: access201}
_FIRMWARE: dict[str, ModuleType] = {V16: firmware16, V201: firmware201}
LONGEST_SCHEDULE_S = 7 * 24 * 3600
LOGS = ("diagnostics", "security")
REMOTE_START_ID = 300
MOST_IN_ONE_GET = 20


def remote_start(
    evse: EVSE, id_token: IdToken, limit_a: float | None = None, duration_s: int | None = None
) -> dict[str, Any]:
    """Start a charge on this EVSE in the name of this token; with a limit in amps per phase from its first moment."""
    station = evse.station
    number = _request_id(None)
    profile = None
    if limit_a is not None:
        if not 0 <= limit_a <= station.max_a:
            raise bus.CallNotValid(f"limit_a: 0 to {station.max_a:g} A")
        schedule = Schedule(Unit.A, (Period(0, limit_a),), duration_s=duration_s)
        profile = ChargingProfile(REMOTE_START_ID, Purpose.TX, 0, Kind.RELATIVE, schedule, evse=evse.number)
    token = (id_token.value, id_token.type, id_token.group)
    return _ask(station, _codec(station).remote_start(evse.number, *token, number, profile))


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
    codec = _codec(station)
    portions = (
        [list(names[i : i + MOST_IN_ONE_GET]) for i in range(0, len(names), MOST_IN_ONE_GET)] if names else [None]
    )
    answers = [_ask(station, codec.get_variables(portion)) for portion in portions]
    together = answers[0]
    for more in answers[1:]:
        together = {**together, **{k: [*together[k], *more[k]] for k in ("variables", "unknown")}}
    return together


def set_variable(
    station: ChargingStation, component: str, variable: str, value: str, evse: EVSE | None = None
) -> dict[str, Any]:
    """Set one value. In 1.6 the component is not used, and the variable is the configuration key."""
    if not variable:
        raise bus.CallNotValid("variable: name it")
    _no_password(variable)
    return _ask(station, _codec(station).set_variable(component, variable, value, _number(station, evse)))


def request_report(station: ChargingStation) -> dict[str, Any]:
    """Have everything the station knows of itself read anew. In 2.0.1 it comes later, part by part, as NotifyReport."""
    codec = _codec(station)
    action, payload = codec.request_report(_request_id(None))
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


# ---------------------------------------------------------------------- who may charge


def send_local_list(
    station: ChargingStation, entries: Sequence[ListEntry], version: int, differential: bool
) -> dict[str, Any]:
    """Give the station its list of tokens, or what changed in it (`differential`).

    `version` must be higher than the station's own; an answer `VersionMismatch` or `Failed` asks for a full list.
    """
    return _ask(station, _of(_ACCESS, station).send_local_list(entries, version, differential))


def local_list_version(station: ChargingStation) -> dict[str, Any]:
    """The `version` of the list in the station; 0: it has none. Status `NotSupported`: it keeps no list (1.6)."""
    access = _of(_ACCESS, station)
    return _ask(station, access.local_list_version(), access.list_version)


def clear_cache(station: ChargingStation) -> dict[str, Any]:
    """Have the station forget which tokens it remembers as accepted."""
    return _ask(station, _of(_ACCESS, station).clear_cache())


def reserve(
    where: EVSE | ChargingStation,
    id_token: IdToken,
    expires_at: datetime,
    reservation_id: int,
    connector_type: str | None = None,
) -> dict[str, Any]:
    """Keep an EVSE, or any place of a station, for this token and its group until then. The same id changes it."""
    station = where.station if isinstance(where, EVSE) else where
    number = where.number if isinstance(where, EVSE) else None
    token = (id_token.value, id_token.type, id_token.group)
    access = _of(_ACCESS, station)
    return _ask(station, access.reserve(reservation_id, number, *token, expires_at, connector_type))


def cancel_reservation(station: ChargingStation, reservation_id: int) -> dict[str, Any]:
    return _ask(station, _of(_ACCESS, station).cancel_reservation(reservation_id))


# ---------------------------------------------------------------------- firmware and logs


def update_firmware(
    station: ChargingStation,
    location: str,
    retrieve_at: datetime,
    retries: int | None = None,
    retry_interval_s: int | None = None,
    signature: str | None = None,
    certificate: str | None = None,
    install_at: datetime | None = None,
    request_id: int | None = None,
) -> dict[str, Any]:
    """Have the station fetch and install firmware. Signed where both `signature` and `certificate` are given.

    The answer's `request_id` is the one its notices will carry; None where they carry none (plain firmware in 1.6).
    """
    firmware = _of(_FIRMWARE, station)
    number = _request_id(request_id)
    call = firmware.update_firmware(
        location, retrieve_at, retries, retry_interval_s, signature, certificate, install_at, number
    )
    return _ask(station, call) | {"request_id": number if firmware.carries_an_id(call[0]) else None}


def fetch_log(
    station: ChargingStation,
    location: str,
    kind: str,
    oldest: datetime | None = None,
    latest: datetime | None = None,
    request_id: int | None = None,
    retries: int | None = None,
    retry_interval_s: int | None = None,
) -> dict[str, Any]:
    """Have the station upload its log (`kind` is diagnostics or security) to the location.

    The answer has `file_name`, as the station will call it ("" when it does not say), and `request_id`, as in
    `update_firmware`.
    """
    if kind not in LOGS:
        raise bus.CallNotValid(f"kind: one of {', '.join(LOGS)}")
    firmware = _of(_FIRMWARE, station)
    number = _request_id(request_id)
    call = firmware.fetch_log(location, kind, oldest, latest, number, retries, retry_interval_s)
    return _ask(station, call) | {"request_id": number if firmware.carries_an_id(call[0]) else None}


def publish_firmware(
    station: ChargingStation,
    location: str,
    checksum: str,
    request_id: int | None = None,
    retries: int | None = None,
    retry_interval_s: int | None = None,
) -> dict[str, Any]:
    """Have a local controller fetch firmware and offer it to the stations behind it (2.0.1)."""
    _needs_201(station, "published firmware")
    number = _request_id(request_id)
    call = firmware201.publish_firmware(location, checksum, number, retries, retry_interval_s)
    return _ask(station, call) | {"request_id": number}


def unpublish_firmware(station: ChargingStation, checksum: str) -> dict[str, Any]:
    """`Unpublished`, `NoFirmware` or `DownloadOngoing` (2.0.1)."""
    _needs_201(station, "published firmware")
    return _ask(station, firmware201.unpublish_firmware(checksum))


# ---------------------------------------------------------------------- as it is written


def send(station: ChargingStation, action: str, payload: Mapping[str, Any]) -> dict[str, Any]:
    """A message in the station's own dialect, as it is written here; the station's answer, as it is.

    Checked against the dialect's schema first: `CallNotValid` names the field. A password is not set in this way.
    """
    at = bus.holder(station.identity)
    if at is None:
        raise bus.StationUnreachable(station.identity)
    fault = dialect(at.protocol).refusal(action, dict(payload))
    if fault is not None:
        raise bus.CallNotValid(fault)
    if action == "ChangeConfiguration":
        _no_password(payload["key"])
    elif action == "SetVariables":
        for data in payload["setVariableData"]:
            _no_password(data["variable"]["name"])
    return bus.request(station.identity, action, dict(payload), settings.OCPP_CALL_TIMEOUT_S)


def _no_password(variable: str) -> None:
    """Set past us, the station could not log in again: `credentials.rotate_password` keeps both until it has."""
    if variable.strip().lower() in ("authorizationkey", "basicauthpassword"):
        where = "“New password” in the office or POST stations/<identity>/password/"
        raise bus.CallNotValid(f"{variable}: a new password is given by {where}")

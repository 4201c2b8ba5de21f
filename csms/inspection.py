"""Looking into a station: its device model, its monitors, the profiles that lie in it, what became of a transaction.

For doors, like `calls.py`. What a station reports in parts is kept as it comes (`reports.py`); the answer here has the
`request_id` it comes under, and `reports.wait_for` waits for it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from types import ModuleType
from typing import Any

from csms import bus, monitoring
from csms.models import EVSE, ChargingStation, Transaction
from csms.ocpp16 import charging as charging16
from csms.ocpp201 import charging as charging201
from csms.ocpp201 import device
from csms.ocpp201 import monitoring as monitoring201
from csms.reported import Monitor, Place
from csms.schemas import V16, V201
from csms.speaking import ask, needs_201, number_of, of, request_id

_CHARGING: Mapping[str, ModuleType] = {V16: charging16, V201: charging201}
SEVERITIES = range(10)


# ---------------------------------------------------------------------- the device model


def base_report(station: ChargingStation, base: str = "FullInventory") -> dict[str, Any]:
    """Have all variables reported, those that can be set, or a summary (2.0.1); they come as NotifyReport."""
    needs_201(station, "base reports; fetch its full report instead")
    _among("base", base, device.BASES)
    number = request_id()
    return ask(station, device.base_report(number, base)) | {"request_id": number}


def report(station: ChargingStation, names: Sequence[str] = (), criteria: Sequence[str] = ()) -> dict[str, Any]:
    """Have some variables reported (2.0.1): by `Component` or `Component.Variable`, or of components in a state.

    `EmptyResultSet` when none fits.
    """
    needs_201(station, "reports by criteria")
    for word in criteria:
        _among("criteria", word, device.CRITERIA)
    number = request_id()
    call = device.report(number, [Place.named(name) for name in names if name.strip()], criteria)
    return ask(station, call) | {"request_id": number}


def set_network_profile(
    station: ChargingStation, slot: int, url: str, security_profile: int, interface: str, timeout_s: int = 30
) -> dict[str, Any]:
    """Store where and how to connect in a slot of the station (2.0.1). It is used once its priority list names it."""
    needs_201(station, "network profiles")
    _among("interface", interface, device.INTERFACES)
    if not url.startswith(("ws://", "wss://")):
        raise bus.CallNotValid("url: it begins with ws:// or wss://")
    if security_profile >= 2 and not url.startswith("wss://"):
        raise bus.CallNotValid("url: security profiles 2 and 3 need wss://")
    return ask(station, device.network_profile(slot, url, security_profile, interface, timeout_s))


def transaction_status(station: ChargingStation, transaction: Transaction | None = None) -> dict[str, Any]:
    """Does the charge go on, as the station knows it, and are there messages it still has to send? (2.0.1)"""
    needs_201(station, "questions about a transaction")
    if transaction is not None and transaction.station_id != station.pk:
        raise bus.CallNotValid("transaction: it belongs to another station")
    call = device.transaction_status(transaction.transaction_id if transaction is not None else None)
    return ask(station, call, device.transaction_state)


# ---------------------------------------------------------------------- charging profiles


def report_profiles(
    station: ChargingStation,
    evse: EVSE | None = None,
    purpose: str | None = None,
    stack_level: int | None = None,
    ids: Sequence[int] = (),
    sources: Sequence[str] = (),
) -> dict[str, Any]:
    """Have the profiles in the station reported (2.0.1), those of others too. `NoProfiles`: there are none."""
    needs_201(station, "reports of its charging profiles")
    if not (purpose or ids or sources or stack_level is not None):
        sources = charging201.SOURCES  # without any criterion some stations refuse the question
    number = request_id()
    call = charging201.get_profiles(number, number_of(station, evse), purpose, stack_level, ids, sources)
    return ask(station, call) | {"request_id": number}


def clear_profiles(
    station: ChargingStation,
    profile_id: int | None = None,
    evse: EVSE | None = None,
    purpose: str | None = None,
    stack_level: int | None = None,
) -> dict[str, Any]:
    """Take away one profile by its id, or all that meet every criterion. `Unknown`: there is none such.

    The fail-safe and what is wanted now are sent anew by the gateway, unless the station is quiet.
    """
    call = of(_CHARGING, station).clear_profiles(profile_id, number_of(station, evse), purpose, stack_level)
    return ask(station, call)


# ---------------------------------------------------------------------- monitors


def set_monitoring_base(station: ChargingStation, base: str) -> dict[str, Any]:
    """All monitors, those it came with, or only those wired into it (2.0.1 N04). Those we set go with the last two."""
    needs_201(station, "monitoring")
    _among("base", base, monitoring201.BASES)
    answer = ask(station, monitoring201.set_base(base))
    if answer["status"] == "Accepted" and base != "All":
        monitoring.monitors_gone(station, None)
    return answer


def set_monitoring_level(station: ChargingStation, severity: int) -> dict[str, Any]:
    """Events of this severity and worse (lower numbers) are told; the others it keeps to itself (2.0.1 N05)."""
    needs_201(station, "monitoring")
    _severity(severity)
    return ask(station, monitoring201.set_level(severity))


def set_monitors(station: ChargingStation, wished: Sequence[Monitor]) -> dict[str, Any]:
    """Have the station speak up about variables (2.0.1 N04). One with a number replaces the monitor of that number.

    The answer has the `numbers` of those that stand now, and the `statuses` of all; `status` is the worst.
    """
    needs_201(station, "monitoring")
    for wish in wished:
        _among("type", wish.type, monitoring201.TYPES)
        _severity(wish.severity)
    stands: list[Monitor] = []

    def read(result: Mapping[str, Any]) -> dict[str, Any]:
        answer, found = monitoring201.monitors_set(wished, result)
        stands.extend(found)
        return answer

    answer = ask(station, monitoring201.set_monitors(wished), read)
    monitoring.monitors_told(station.pk, stands, datetime.now(UTC))
    return answer


def clear_monitors(station: ChargingStation, numbers: Sequence[int]) -> dict[str, Any]:
    """Take monitors away; those wired into the station stay (2.0.1 N06)."""
    needs_201(station, "monitoring")
    gone: list[int] = []

    def read(result: Mapping[str, Any]) -> dict[str, Any]:
        answer, found = monitoring201.monitors_cleared(result)
        gone.extend(found)
        return answer

    answer = ask(station, monitoring201.clear_monitors(numbers), read)
    monitoring.monitors_gone(station, gone)
    return answer


def monitoring_report(
    station: ChargingStation, criteria: Sequence[str] = (), names: Sequence[str] = ()
) -> dict[str, Any]:
    """Have the monitors reported (2.0.1 N02). `EmptyResultSet`: there are none such."""
    needs_201(station, "monitoring")
    for word in criteria:
        _among("criteria", word, monitoring201.CRITERIA)
    number = request_id()
    call = monitoring201.monitoring_report(number, criteria, [Place.named(n) for n in names if n.strip()])
    answer = ask(station, call) | {"request_id": number}
    if answer["status"] == "EmptyResultSet" and not criteria and not names:
        monitoring.monitors_gone(station, None)
    return answer


def _among(field: str, word: str, known: Sequence[str]) -> None:
    if word not in known:
        raise bus.CallNotValid(f"{field}: one of {', '.join(known)}")


def _severity(number: int) -> None:
    if number not in SEVERITIES:
        raise bus.CallNotValid("severity: 0 (danger) to 9 (debugging)")

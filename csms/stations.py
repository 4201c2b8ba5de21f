"""What a station tells us, written down: version-free verbs on the database (`ledger.py` has the transactions).

They run in the gateway's writer, each in a transaction of its own, and say what happened on channel `status` after
the commit. None of them knows a socket. Numbers of EVSEs and connectors are the station's.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

from django.db.models.functions import Upper

from csms import bulk
from csms.announcing import STATUS_CHANNEL, announce
from csms.iec61851 import derive
from csms.metering import measurement
from csms.models import (
    EVSE,
    ChargingStation,
    Connector,
    IdToken,
    StationVariable,
    Transaction,
    WantedLimit,
)
from csms.redaction import BLANK, is_secret
from csms.vocabulary import Boot, MeterValue, ReportedVariable, ShownToken, StatusReport, Verdict
from meters.supply import Supply

MOST_EVSES = 64
"""Of one station; a higher number is a mistake or an attack, and is not kept."""

SETTLED_S = 10.0
TOLD_AT_ONCE = 500

_STATUS_WORDS = frozenset(EVSE.Status.values)
_PRECEDENCE = (
    "Charging",
    "SuspendedEV",
    "SuspendedEVSE",
    "Occupied",
    "Finishing",
    "Preparing",
    "Reserved",
    "Available",
)


@dataclass(frozen=True, slots=True)
class EvseState:
    """An EVSE as it stands after a report."""

    pk: int
    number: int
    status: str
    iec_state: str


# ---------------------------------------------------------------------- the station


def found(identity: str, address: str) -> int:
    """An unknown station at the door: it gets a row, in quarantine."""
    station, _ = ChargingStation.objects.get_or_create(identity=identity, defaults={"address": address[:64]})
    return station.pk


@dataclass(frozen=True, slots=True)
class Presence:
    """A station's socket came (with its protocol and address) or went (without)."""

    station_pk: int
    at: datetime
    protocol: str = ""
    address: str = ""


def came_or_went(_key: Hashable, presences: Sequence[Presence]) -> None:
    """Many at once, as after an outage. The state stays what it was: a station may be charging happily alone."""
    came = {p.station_pk: p for p in presences if p.protocol}
    rows = [(pk, (p.protocol, p.address[:64])) for pk, p in came.items()]
    bulk.update(ChargingStation, ("protocol", "address"), rows)
    seen({p.station_pk: p.at for p in presences})
    here = list({p.station_pk for p in presences})
    for first in range(0, len(here), TOLD_AT_ONCE):
        _tell_of(here[first : first + TOLD_AT_ONCE])


def _tell_of(station_pks: Sequence[int]) -> None:
    places: dict[int, list[int | None]] = {}
    for station_pk, evse_pk in EVSE.objects.filter(station__in=station_pks).values_list("station_id", "pk"):
        places.setdefault(station_pk, []).append(evse_pk)
    for station_pk, site in ChargingStation.objects.filter(pk__in=station_pks).values_list("pk", "site_id"):
        for place in places.get(station_pk, [None]):
            announce(STATUS_CHANNEL, {"site": site, "evse": place})


def booted(station_pk: int, boot: Boot, at: datetime) -> None:
    all_booted("", [(station_pk, boot, at)])


def all_booted(_key: Hashable, boots: Sequence[tuple[int, Boot, datetime]]) -> None:
    """A boot makes every status unknown until it is reported again (Q8). Open transactions stay open."""
    last = {station_pk: (boot, at) for station_pk, boot, at in boots}
    for first in range(0, len(last), TOLD_AT_ONCE):
        _some_booted(dict(list(last.items())[first : first + TOLD_AT_ONCE]))


def _some_booted(boots: Mapping[int, tuple[Boot, datetime]]) -> None:
    names = ("vendor", "model", "serial_number", "firmware_version")
    rows = []
    for station_pk, *known in ChargingStation.objects.filter(pk__in=boots).values_list("pk", *names):
        boot, at = boots[station_pk]
        told = [boot.vendor[:100], boot.model[:100], boot.serial_number[:100], boot.firmware_version[:100]]
        if told[:2] != known[:2] or any(new and new != old for new, old in zip(told[2:], known[2:], strict=True)):
            _another_product(station_pk, boot)
        rows.append((station_pk, (at, boot.reason[:32], at)))
    bulk.update(ChargingStation, ("boot_at", "boot_reason", "last_seen"), rows)
    unknown = {"status": EVSE.Status.UNKNOWN, "status_at": max(at for _, at in boots.values())}
    EVSE.objects.filter(station__in=boots).update(**unknown, error_code="", vendor_error_code="")
    Connector.objects.filter(evse__station__in=boots).update(**unknown)
    _tell_of(list(boots))


def _another_product(station_pk: int, boot: Boot) -> None:
    """It says it is something else than it was: the change is kept in its history."""
    station = ChargingStation.objects.get(pk=station_pk)
    told = {
        "vendor": boot.vendor[:100],
        "model": boot.model[:100],
        "serial_number": boot.serial_number[:100] or station.serial_number,
        "firmware_version": boot.firmware_version[:100] or station.firmware_version,
    }
    changed = [name for name, value in told.items() if getattr(station, name) != value]
    for name in changed:
        setattr(station, name, told[name])
    station.save(update_fields=changed)


def seen(moments: Mapping[int, datetime]) -> None:
    """When each station last said anything."""
    bulk.update(ChargingStation, ("last_seen",), [(pk, (at,)) for pk, at in moments.items()])


def counted(station_pk: int, more: Mapping[str, int], at: datetime | None = None) -> None:
    """Add to the station's counters of repairs and refusals, and note when each was seen last."""
    found = ChargingStation.objects.filter(pk=station_pk).values_list("counters", "counted_at").first()
    if found is None:
        return
    counters = dict(found[0]) if isinstance(found[0], dict) else {}
    newest = dict(found[1]) if isinstance(found[1], dict) else {}
    for name, n in more.items():
        counters[name] = int(counters.get(name, 0)) + n
        if at is not None:
            newest[name] = at.isoformat(timespec="seconds")
    ChargingStation.objects.filter(pk=station_pk).update(counters=counters, counted_at=newest)


def learned(station_pk: int, more: Mapping[str, Any]) -> None:
    """Remember what this station can do; None forgets."""
    known = ChargingStation.objects.filter(pk=station_pk).values_list("capabilities", flat=True).first()
    if known is None:
        return
    capabilities = {**(known if isinstance(known, dict) else {}), **more}
    ChargingStation.objects.filter(pk=station_pk).update(
        capabilities={k: v for k, v in capabilities.items() if v is not None}
    )


def reported(station_pk: int, variables: Sequence[ReportedVariable], at: datetime) -> None:
    """Keep the variables of an inventory or a configuration, the newest value of each."""
    rows: dict[tuple[Any, ...], StationVariable] = {}
    for v in variables:
        row = StationVariable(
            station_id=station_pk,
            component=v.component[:64],
            component_instance=v.component_instance[:64],
            evse_number=max(0, min(v.evse, 32767)),
            connector_number=max(0, min(v.connector, 32767)),
            variable=v.variable[:64],
            variable_instance=v.variable_instance[:64],
            attribute=v.attribute[:8],
            value=BLANK if v.value and is_secret(v.variable) else v.value.replace("\x00", ""),
            mutability=v.mutability[:16],
            characteristics=dict(v.characteristics),
            reported_at=at,
        )
        key = (row.component, row.component_instance, row.evse_number, row.connector_number)
        rows[(*key, row.variable, row.variable_instance, row.attribute)] = row
    StationVariable.objects.bulk_create(
        rows.values(),
        update_conflicts=True,
        unique_fields=[
            "station",
            "component",
            "component_instance",
            "evse_number",
            "connector_number",
            "variable",
            "variable_instance",
            "attribute",
        ],
        update_fields=["value", "mutability", "characteristics", "reported_at"],
    )


# ---------------------------------------------------------------------- EVSEs and their status


def evse_of(station_pk: int, number: int) -> EVSE | None:
    """The EVSE of this number, made when it is first heard of. None for the station itself (0) and for nonsense."""
    if not 1 <= number <= MOST_EVSES:
        return None
    evse, _ = EVSE.objects.get_or_create(station_id=station_pk, number=number)
    return evse


def evses_exist(station_pk: int, count: int) -> None:
    """The station says how many EVSEs it has."""
    for number in range(1, min(count, MOST_EVSES) + 1):
        evse_of(station_pk, number)


def status_changed(station_pk: int, report: StatusReport) -> EvseState | None:
    """A connector's status word, and the IEC state behind it. The newest received wins."""
    evse = evse_of(station_pk, report.evse)
    if evse is None:
        return None
    status = report.status if report.status in _STATUS_WORDS else str(EVSE.Status.UNKNOWN)
    connector, _ = Connector.objects.get_or_create(evse=evse, number=max(1, min(report.connector, 32)))
    if connector.status != status:
        connector.status, connector.status_at = status, report.moment.at
    others = [c.status for c in evse.connectors.exclude(pk=connector.pk)]
    together = _together([status, *others])
    if evse.status != together:
        evse.status, evse.status_at = together, report.moment.at
    evse.error_code = "" if report.error_code in ("", "NoError") else report.error_code[:64]
    evse.vendor_error_code = report.vendor_error_code[:64]
    if status == EVSE.Status.AVAILABLE:
        evse.charging_state = ""
    state = _derive(evse, 0.0, pilot_fault=report.pilot_fault)
    connector.iec_state = state if status == together else str(derive(status, previous=connector.iec_state))
    connector.save(update_fields=["status", "status_at", "iec_state"])
    evse.iec_state = state
    evse.save(update_fields=["status", "status_at", "error_code", "vendor_error_code", "charging_state", "iec_state"])
    _tell(evse)
    return EvseState(evse.pk, evse.number, evse.status, evse.iec_state)


def settle(evse_pk: int) -> None:
    """Some seconds after a pause the contactor is open: C1 has become B1."""
    evse = EVSE.objects.filter(pk=evse_pk).first()
    if evse is None:
        return
    refresh_state(evse, suspended_since_s=SETTLED_S)


def refresh_state(evse: EVSE, *, suspended_since_s: float = 0.0) -> None:
    """Derive the IEC state anew from what is stored, and keep it where it changed."""
    state = _derive(evse, suspended_since_s)
    if state == evse.iec_state:
        return
    evse.iec_state = state
    EVSE.objects.filter(pk=evse.pk).update(iec_state=state)
    busy = evse.connectors.exclude(status__in=["Available", "Unavailable", "Faulted"]).order_by("number").first()
    connector = busy or evse.connectors.order_by("number").first()
    if connector is not None:
        Connector.objects.filter(pk=connector.pk).update(iec_state=state)
    _tell(evse)


def _derive(evse: EVSE, suspended_since_s: float, *, pilot_fault: bool = False) -> str:
    running = Transaction.objects.filter(evse=evse, ended_at=None).order_by("-started_at")
    authorized: bool | None = running.values_list("authorized", flat=True).first()
    limit = WantedLimit.objects.filter(evse=evse)
    status = evse.status
    if authorized is not None and evse.charging_state and status in ("Available", "Unknown"):
        status = "Occupied"  # the transaction is told before the plug
    return str(
        derive(
            status,
            evse.charging_state,
            has_transaction=authorized is not None,
            authorized=authorized,
            offered_a=limit.values_list("accepted_a", flat=True).first(),
            suspended_since_s=suspended_since_s,
            previous=evse.iec_state,
            pilot_fault=pilot_fault,
        )
    )


def _together(statuses: list[str]) -> str:
    """One status for an EVSE of several connectors: the one in use counts (2.0.1 part 1 §7)."""
    return next((word for word in _PRECEDENCE if word in statuses), statuses[0])


def _tell(evse: EVSE) -> None:
    site = ChargingStation.objects.filter(pk=evse.station_id).values_list("site_id", flat=True).first()
    announce(STATUS_CHANNEL, {"site": site, "evse": evse.pk})


def _tell_all(station_pk: int) -> None:
    _tell_of([station_pk])


# ---------------------------------------------------------------------- tokens, measurements, limits


def authorize(station: ChargingStation, token: ShownToken | None, now: datetime) -> Verdict:
    """What we say to a token on this station. It must belong to the station's site; letter case does not count."""
    if token is None:
        return Verdict("invalid")
    if station.site_id is None or station.admission != ChargingStation.Admission.ACCEPTED:
        return Verdict("invalid")
    if token.is_nobody:
        return Verdict("accepted")
    rows = IdToken.objects.annotate(folded=Upper("value"))
    known = rows.filter(site_id=station.site_id, folded=token.value.upper()).first()
    if known is None:
        return Verdict("invalid")
    return Verdict(str(known.status_at(now)), known.group, known.expires_at, known.pk)


class Sample(NamedTuple):
    """A meter value to be kept, as its columns are (`MeterSample`)."""

    evse_id: int
    transaction_id: int | None
    at: datetime
    power_w: float | None
    energy_wh: float | None
    values: dict[str, Any]


def samples_of(
    station: ChargingStation,
    evse_pk: int,
    values: Sequence[MeterValue],
    transaction_pk: int | None,
    supply: Supply = Supply.TN,
) -> list[Sample]:
    """Meter values as rows, in our units and on grid phases. The register is the one that is billed: at the outlet."""
    rows = []
    phases, dc = station.phases, station.current == ChargingStation.Current.DC
    for value in values:
        if not value.quantities:
            continue
        at_once = measurement(value, phases=phases, dc=dc, max_a=station.max_a, supply=supply)
        rows.append(
            Sample(evse_pk, transaction_pk, at_once.at, at_once.power_w, value.register_wh(), at_once.quantities())
        )
    return rows


def limit_changed(evse_pk: int, changes: Sequence[Mapping[str, Any]]) -> None:
    """How far a station has followed the limit wanted on an EVSE; several changes of one batch are one write."""
    together: dict[str, Any] = {}
    for change in changes:
        together.update(change)
    before = WantedLimit.objects.filter(evse_id=evse_pk).first()
    WantedLimit.objects.update_or_create(evse_id=evse_pk, defaults=together)
    if before is None or before.accepted_a != together.get("accepted_a", before.accepted_a):
        evse = EVSE.objects.filter(pk=evse_pk).first()
        if evse is not None:
            refresh_state(evse, suspended_since_s=SETTLED_S)

"""Paint the site as it is now: configuration, measurements with their ages, cars, goals, commands and the plan.

`look` asks the database and Redis a fixed number of questions, however many stations there are, and judges what is
old: a stale measurement is absent, never zero. What it returns is frozen; the engine decides on the snapshot in it,
`dispatch` and `picture` find the records behind it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from django.db.models import Q

from csms import bus, learning
from csms.metering import DC_EFFICIENCY
from csms.models import EVSE, ChargingStation, Transaction, WantedLimit
from csms.reported_models import ChargingNeeds
from meters import live
from meters.devices import maps
from meters.measurement import Measurement, Quality
from meters.models import Device, Site
from meters.supply import lines_only
from smartcharging import narrowings, peaks, remember
from smartcharging.engine import grid as engine
from smartcharging.engine.grid import NOMINAL_V, Grid, Phases, Supply, loaded, power_weight, spread_a
from smartcharging.engine.live.phase_steps import phases_shown
from smartcharging.engine.rules import DEFAULT as RULES
from smartcharging.engine.snapshot import BatteryState, Mode, NodeReading, Session, Snapshot
from smartcharging.engine.vehicle import minimum_a, phases_to_count_on
from smartcharging.models import ChargingGoal, Circuit, GridCommand, Plan, Price, Tariff, Vehicle
from smartcharging.phase_learning import learn_steps
from smartcharging.remember import EvseMemory, phase_currents

ASKS_NOTHING_S = 60  # how long a car must have stopped by itself before it counts as full
ALL_PHASES = (True, True, True)
_S = EVSE.Status
_PHASE_INDEX = {"L1": 0, "L2": 1, "L3": 2}


class SiteNotReady(Exception):
    """The site cannot be controlled yet: it has no grid connection, or its circuits form no tree."""


@dataclass(frozen=True, slots=True)
class Place:
    """One EVSE and everything that belongs to it at this moment."""

    evse: EVSE
    node: int
    transaction: Transaction | None
    goal: ChargingGoal | None
    vehicle: Vehicle | None
    limit: WantedLimit | None
    measured: Measurement | None  # fresh, else None
    connected: bool
    memory: EvseMemory
    capabilities: Mapping[str, Any] = field(default_factory=dict)
    supply: Supply = Supply.TN

    @property
    def isolated(self) -> bool:
        """It was seen not to follow, whatever it was told: it counts with its maximum."""
        return self.limit is not None and self.limit.isolated_at is not None

    @property
    def station(self) -> ChargingStation:
        return self.evse.station

    @property
    def needs(self) -> ChargingNeeds | None:
        """What the car itself said (ISO 15118). Its phases are not believed: it would be given more for fewer."""
        return getattr(self.transaction, "needs", None)

    @property
    def key(self) -> str:
        return str(self.evse.pk)

    @property
    def dc(self) -> bool:
        return self.station.current == ChargingStation.Current.DC


@dataclass(frozen=True)
class View:
    """The site now: the snapshot for the engine, and the records behind it."""

    site: Site
    now: datetime
    snapshot: Snapshot
    places: tuple[Place, ...]
    circuits: tuple[Circuit, ...]  # in the order of the grid
    devices: tuple[Device, ...]
    node_of_device: Mapping[int, int]
    live: Mapping[int, Measurement]  # fresh measurements by device
    commands: tuple[GridCommand, ...]
    plan: Plan | None
    tariff: Tariff
    month_peak_w: float
    price_eur_per_mwh: float | None
    memories: Mapping[int, EvseMemory] = field(default_factory=dict)

    def devices_of(self, kind: str) -> list[Device]:
        return [d for d in self.devices if d.kind == kind]


def snapshot(site: Site, now: datetime) -> Snapshot:
    """What the engine is told of the site. Raises `SiteNotReady`."""
    return look(site, now).snapshot


def look(site: Site, now: datetime) -> View:
    """The whole site at this moment. Raises `SiteNotReady`."""
    circuits, grid = _circuits(site)
    node_of = {c.key: i for i, c in enumerate(grid.circuits)}
    devices = tuple(site.devices.filter(enabled=True).select_related("feed").order_by("pk"))
    node_of_device = {d.pk: node_of[d.feed.circuit_id] for d in devices if hasattr(d, "feed")}
    evses = list(
        EVSE.objects.filter(station__site=site, station__admission=ChargingStation.Admission.ACCEPTED)
        .select_related("station", "feed", "wanted_limit")
        .order_by("pk")
    )
    transactions = _open_transactions(site)
    vehicles = _vehicles(transactions.values())
    measured = live.fetch([live.device_source(d.pk) for d in devices] + [live.evse_source(e.pk) for e in evses])
    held = bus.holders({e.station.identity for e in evses})
    remembered = remember.recall(site.pk)
    known = learning.of_stations({e.station_id: e.station for e in evses}.values())

    plan = Plan.objects.filter(site=site, starts_at__lte=now, valid_until__gt=now).order_by("-made_at").first()
    fresh = _fresh_devices(devices, measured, now, grid.supply)
    places = tuple(
        _place(
            evse,
            # An EVSE that hangs on no circuit is counted at the grid connection: none may stand outside the tree.
            node=node_of.get(evse.feed.circuit_id, 0) if hasattr(evse, "feed") else 0,
            transaction=transactions.get(evse.pk),
            vehicles=vehicles,
            measured=measured.get(live.evse_source(evse.pk)),
            connected=evse.station.identity in held,
            memory=remembered.get(evse.pk, EvseMemory()),
            capabilities=known.get(evse.station_id, {}),
            now=now,
            supply=grid.supply,
        )
        for evse in evses
    )
    readings = _readings(circuits, fresh)
    places = learn_steps(places, grid, readings, now)
    commands = narrowings.commands(site, now)
    tariff = Tariff.objects.filter(site=site).first() or Tariff(site=site)
    peak_w = peaks.month_peak_w(site, now, tariff)
    return View(
        site=site,
        now=now,
        snapshot=Snapshot(
            now=now,
            grid=grid,
            sessions=tuple(_session(p, plan, now) for p in places),
            readings=readings,
            batteries=_batteries(devices, node_of_device, fresh, plan, now, grid.supply),
            narrowings=(
                *narrowings.alarms(devices, node_of_device, fresh),
                *narrowings.orders(commands, now),
                *narrowings.hands({(p.station.identity, p.evse.number): p.key for p in places}, now),
            ),
            pv_w=_pv_w(devices, fresh),
            plan_valid=plan is not None,
            peak_target_w=peaks.target_w(plan, tariff, peak_w),
            quarter_import_wh=peaks.quarter_import_wh(circuits[0], now),
            background_a=_currents_at_nodes(_background(devices, circuits), node_of_device, fresh, grid.supply),
            pv_a=_currents_at_nodes(
                [d for d in devices if d.kind == Device.Kind.PV], node_of_device, fresh, grid.supply
            ),
            carried=remember.recall_carried(site.pk),
        ),
        places=places,
        circuits=circuits,
        devices=devices,
        node_of_device=node_of_device,
        live=fresh,
        commands=commands,
        plan=plan,
        tariff=tariff,
        month_peak_w=peak_w,
        price_eur_per_mwh=_price_now(site, tariff, now),
        memories={p.evse.pk: p.memory for p in places},
    )


# --- circuits and devices -------------------------------------------------------------------------------------------


def _circuits(site: Site) -> tuple[tuple[Circuit, ...], Grid]:
    rows = list(site.circuits.select_related("meter").order_by("pk"))
    names = {c.pk: c.name for c in rows}
    try:
        grid = Grid.build(
            [
                (
                    engine.Circuit(
                        name=c.name,
                        parent=None,
                        limit_a=(float(c.limit_a[0]), float(c.limit_a[1]), float(c.limit_a[2])),
                        limit_w=c.limit_w,
                        export_limit_w=c.export_limit_w,
                        margin_a=c.margin_a,
                        fallback_a=c.fallback_a,
                        metered=c.meter_id is not None,
                        key=c.pk,
                        worst_a=None if c.worst_a is None else (c.worst_a[0], c.worst_a[1], c.worst_a[2]),
                        imbalance_a=c.imbalance_a,
                    ),
                    None if c.parent_id is None else names[c.parent_id],
                )
                for c in rows
            ],
            Supply(site.supply),
        )
    except (engine.GridError, KeyError, IndexError, TypeError) as error:
        raise SiteNotReady(f"site {site.name}: {error}") from error
    by_pk = {c.pk: c for c in rows}
    return tuple(by_pk[c.key] for c in grid.circuits if c.key is not None), grid


def _fresh_devices(
    devices: Iterable[Device], measured: Mapping[str, Measurement], now: datetime, supply: Supply
) -> dict[int, Measurement]:
    """Measurements that may be acted on: young enough, and not suspect. Without a neutral, of lines alone."""
    fresh = {}
    for device in devices:
        found = measured.get(live.device_source(device.pk))
        if found is not None and found.is_fresh(now, device.max_age_s) and found.quality != Quality.SUSPECT:
            fresh[device.pk] = found if supply is Supply.TN else _of_lines(device, found)
    return fresh


def _of_lines(device: Device, found: Measurement) -> Measurement:
    is_p1 = device.map == maps.P1_MAP or device.connect.startswith("p1:")
    wiring = [name for name in device.wiring if name in _PHASE_INDEX]
    return lines_only(found, wiring, meter=device.kind == Device.Kind.METER, zero_is_silence=is_p1)


def _readings(circuits: tuple[Circuit, ...], fresh: Mapping[int, Measurement]) -> dict[int, NodeReading]:
    readings = {}
    for node, circuit in enumerate(circuits):
        if circuit.meter is None:
            continue
        found = fresh.get(circuit.meter.pk)
        if found is None:
            readings[node] = NodeReading(None)
        else:
            readings[node] = NodeReading(_meter_currents(circuit.meter, found), found.power_w, found.at)
    return readings


def _meter_currents(device: Device, measurement: Measurement) -> Phases | None:
    """All three phases. A meter that is wired to fewer says nothing of the others, because nothing is there."""
    currents = measurement.phase_currents()
    if currents is None:
        return None
    if device.wiring:
        there = {_PHASE_INDEX[p] for p in device.wiring if p in _PHASE_INDEX}
        currents = tuple(c if i in there or c is not None else 0.0 for i, c in enumerate(currents))  # type: ignore[assignment]
    if any(c is None for c in currents):
        return None
    a, b, c = currents
    return (float(a or 0.0), float(b or 0.0), float(c or 0.0))


def _still_counts(evse: EVSE, measured: Measurement) -> bool:
    """What a car drew before it left says nothing of the free place: its contactor is open."""
    left = evse.status == _S.AVAILABLE and evse.status_at is not None and measured.at <= evse.status_at
    return not left


def _background(devices: Iterable[Device], circuits: Iterable[Circuit]) -> list[Device]:
    """Loads that are measured by themselves: switched ones, and those behind a meter that is no circuit's."""
    meters = {c.meter_id for c in circuits}
    return [d for d in devices if d.kind == Device.Kind.LOAD or (d.kind == Device.Kind.METER and d.pk not in meters)]


def _currents_at_nodes(
    devices: Iterable[Device], node_of_device: Mapping[int, int], fresh: Mapping[int, Measurement], supply: Supply
) -> dict[int, Phases]:
    sums: dict[int, list[float]] = {}
    for device in devices:
        found, node = fresh.get(device.pk), node_of_device.get(device.pk)
        if found is None or node is None:
            continue
        currents = phase_currents(found)
        if currents is None and found.power_w is not None:
            currents = spread_a(found.power_w, wired(device.wiring), supply)
        for phase, amps in enumerate(currents or ()):
            sums.setdefault(node, [0.0, 0.0, 0.0])[phase] += amps
    return {node: (a, b, c) for node, (a, b, c) in sums.items()}


def _pv_w(devices: Iterable[Device], fresh: Mapping[int, Measurement]) -> float | None:
    """All PV together; None when there is none, or when one of them is not known."""
    powers = [fresh[d.pk].power_w if d.pk in fresh else None for d in devices if d.kind == Device.Kind.PV]
    if not powers or any(p is None for p in powers):
        return None
    return sum(p for p in powers if p is not None)


def _batteries(
    devices: Iterable[Device],
    node_of_device: Mapping[int, int],
    fresh: Mapping[int, Measurement],
    plan: Plan | None,
    now: datetime,
    supply: Supply,
) -> tuple[BatteryState, ...]:
    rows = [d for d in devices if d.kind == Device.Kind.BATTERY and d.option("capacity_wh")]
    planned_w = planned_now(plan, "battery_w", now)
    whole_wh = sum(float(d.option("capacity_wh")) for d in rows)
    batteries = []
    for device in rows:
        found = fresh.get(device.pk)
        capacity = float(device.option("capacity_wh"))
        batteries.append(
            BatteryState(
                key=str(device.pk),
                node=node_of_device.get(device.pk, 0),
                soc=found.soc if found is not None else None,
                capacity_wh=capacity,
                max_charge_w=float(device.option("max_charge_w", 0.0)),
                max_discharge_w=float(device.option("max_discharge_w", 0.0)),
                min_soc=float(device.option("min_soc", 0.1)),
                max_soc=float(device.option("max_soc", 1.0)),
                efficiency=float(device.option("efficiency", 0.95)),
                power_w=found.power_w if found is not None else None,
                # The plan knows one battery; several share what it asks for by their size.
                planned_w=None if planned_w is None else planned_w * capacity / whole_wh,
                wear_eur_per_kwh=float(device.option("wear_eur_per_kwh", 0.02)),
                phases=loaded(wired(device.wiring), supply),
            )
        )
    return tuple(batteries)


# --- cars -----------------------------------------------------------------------------------------------------------


def _open_transactions(site: Site) -> dict[int, Transaction]:
    """The newest open transaction of each EVSE."""
    rows = (
        Transaction.objects.filter(station__site=site, ended_at=None, evse__isnull=False)
        .select_related("goal", "needs", "id_token__token_profile__profile")
        .order_by("started_at", "pk")
    )
    return {row.evse_id: row for row in rows if row.evse_id is not None}


def _vehicles(transactions: Iterable[Transaction]) -> dict[int, Vehicle]:
    tokens = {t.id_token_id for t in transactions if t.id_token_id is not None}
    return {v.id_token_id: v for v in Vehicle.objects.filter(id_token__in=tokens) if v.id_token_id is not None}


def _place(
    evse: EVSE,
    *,
    node: int,
    transaction: Transaction | None,
    vehicles: Mapping[int, Vehicle],
    measured: Measurement | None,
    connected: bool,
    memory: EvseMemory,
    capabilities: Mapping[str, Any],
    now: datetime,
    supply: Supply,
) -> Place:
    if measured is not None and not (measured.is_fresh(now, RULES.ev_max_age_s) and _still_counts(evse, measured)):
        measured = None
    limit = getattr(evse, "wanted_limit", None)
    offered = offered_a(evse.station, limit, transaction, now, supply)
    memory = memory.with_transaction(None if transaction is None else transaction.pk)
    accepted_at = limit.accepted_at if limit is not None else None
    if transaction is not None and accepted_at is not None and accepted_at < transaction.started_at:
        accepted_at = None  # said to another
    memory = memory.with_offer(offered, accepted_at, now)
    token = None if transaction is None else transaction.id_token_id
    place = Place(
        evse=evse,
        node=node,
        transaction=transaction,
        goal=getattr(transaction, "goal", None),
        vehicle=None if token is None else vehicles.get(token),
        limit=limit,
        measured=measured,
        connected=connected,
        memory=memory,
        capabilities=capabilities,
        supply=supply,
    )
    if measured is None or transaction is None:
        return place
    learnt = memory.with_measurement(phase_currents(measured), measured.at, wants=wants(place, now))
    return replace(place, memory=learnt)


def offered_a(
    station: ChargingStation,
    limit: WantedLimit | None,
    transaction: Transaction | None,
    now: datetime,
    supply: Supply = Supply.TN,
) -> float | None:
    """The limit the station stands by, per phase at its AC input; None when it is not known.

    A limit that was sent and not answered may have been taken: then the higher of the two counts. What was accepted
    before the present transaction began was meant for whoever would come, or died with the transaction before it:
    until its lease ends either it or the fail-safe holds.
    """
    if limit is None or limit.accepted_at is None:
        return None
    accepted = amps_of(limit.accepted_a, limit.accepted_w, supply)
    if accepted is None:
        return None
    if transaction is not None and limit.accepted_at < transaction.started_at:
        holds = limit.lease_until is not None and limit.lease_until > now
        return max(accepted, station.fail_safe_a) if holds else None
    if limit.state in (WantedLimit.State.SENT, WantedLimit.State.FAILED):
        return max(accepted, amps_of(limit.wanted_a, limit.wanted_w, supply) or 0.0)
    return accepted


def amps_of(amps: float | None, watts: float | None, supply: Supply = Supply.TN) -> float | None:
    """A limit in amps per phase; watts are those of all three phases at the nominal voltage."""
    if amps is not None:
        return amps
    return None if watts is None else watts / (power_weight(3, supply) * NOMINAL_V)


def _session(place: Place, plan: Plan | None, now: datetime) -> Session:
    station, transaction, goal, memory = place.station, place.transaction, place.goal, place.memory
    reachable = place.connected and not station.quiet
    return Session(
        key=place.key,
        node=place.node,
        phases=phases_of(place, now),
        max_a=max_a(place),
        min_a=min_a(place),
        dc=place.dc,
        max_w=max_w(place),
        wants=wants(place, now),
        reachable=reachable,
        offered_a=memory.offered_a,
        offered_since=memory.since,
        offered_before_a=memory.before_a,
        lease_until=place.limit.lease_until if place.limit is not None and memory.offered_a is not None else None,
        fail_safe_a=falls_back_on_a(place),
        isolated_a=station.max_a if place.isolated else None,
        measured_a=phase_currents(place.measured),
        measured_at=place.measured.at if place.measured is not None else None,
        priority=priority_of(place),
        mode=mode_of(place),
        arrived_at=transaction.started_at if transaction is not None else None,
        departure=goal.departure if goal is not None else None,
        energy_needed_wh=energy_needed_wh(place),
        planned_w=planned_w_of(place, plan, now),
        on_since=memory.on_since,
        off_since=memory.off_since,
        group=station.pk,
        group_max_a=station.station_max_a,
    )


def falls_back_on_a(place: Place) -> float:
    """What the station allows an EVSE when nobody leads it any more, as far as that is proven.

    A quiet station was never told a fail-safe, and one that takes none has none: it may take what it can. One that
    does not end its limits by itself keeps the last one (Q21).
    """
    station, known = place.station, place.capabilities
    if station.quiet or known.get("fail_safe") == "refused":
        return station.max_a
    keeps = known.get("honours_duration") is False or known.get("kind") == "Relative"
    return max(station.fail_safe_a, place.memory.offered_a or 0.0) if keeps else station.fail_safe_a


def wants(place: Place, now: datetime) -> bool:
    """Is there a car that asks for energy, or that would if it were offered some?"""
    evse, transaction = place.evse, place.transaction
    if transaction is None or not transaction.authorized or not evse.available:
        return False
    if evse.status in (_S.UNAVAILABLE, _S.FAULTED, _S.FINISHING):
        return False
    if _S.SUSPENDED_EV not in (evse.status, evse.charging_state):
        return True
    offered = place.memory.offered_a
    if offered is not None and offered < min_a(place):
        return True  # a car that is offered nothing cannot have had enough
    return evse.status_at is None or now - evse.status_at < timedelta(seconds=ASKS_NOTHING_S)


def wired(wiring: Iterable[str]) -> tuple[bool, bool, bool]:
    names = list(wiring)
    if not names:
        return ALL_PHASES
    return ("L1" in names, "L2" in names, "L3" in names)


def phases_of(place: Place, now: datetime) -> tuple[bool, bool, bool]:
    """The grid phases the car can load: as it was seen to, else as its record says, else all it is wired to."""
    there = loaded(wired(place.station.wiring), place.supply)
    if place.dc:
        return there
    if place.vehicle is not None and place.vehicle.phases is not None and place.memory.phases.used is None:
        return _as_recorded(place.vehicle.phases, place, there)
    shown = phases_shown(place.memory.steps) if place.supply is Supply.TN else None
    if shown is not None and place.memory.phases.used is None:
        return _within(shown, there)
    if not place.memory.phases.drawing:
        return there  # it may come back from a pause on other phases
    return loaded(phases_to_count_on(place.memory.phases, now, there), place.supply)


def _as_recorded(phases: int, place: Place, there: tuple[bool, bool, bool]) -> tuple[bool, bool, bool]:
    """The first of the station's own. Without a neutral a single-phase car hangs between the first two, and no car
    uses two phases there: one that would is counted on all."""
    if place.supply is Supply.TN:
        return wired(place.station.phases[:phases])
    return wired(place.station.phases[:2]) if phases == 1 and len(place.station.phases) > 1 else there


def _within(shown: tuple[bool, bool, bool], wired: tuple[bool, bool, bool]) -> tuple[bool, bool, bool]:
    """What was shown, unless it is not wired there at all: then all that is wired."""
    a, b, c = (s and w for s, w in zip(shown, wired, strict=True))
    return (a, b, c) if (a or b or c) else wired


def max_a(place: Place) -> float:
    """The station's most, or less where the car's record or the car itself says so."""
    if place.dc:
        return place.station.max_a
    record_a = place.vehicle.max_a if place.vehicle is not None else None
    told_a = place.needs.max_a if place.needs is not None else None
    return min(place.station.max_a, record_a or place.station.max_a, told_a or place.station.max_a)


def min_a(place: Place) -> float:
    """The least worth offering: the station's, the car's own as its record, the car itself or its past says."""
    if place.dc:
        return min(place.station.min_a, max_a(place))
    record_a = place.vehicle.min_a if place.vehicle is not None else None
    told_a = place.needs.min_a if place.needs is not None else None
    shown_a = minimum_a(place.memory.minimum, max(place.station.min_a, place.capabilities.get("min_current_a") or 0.0))
    return min(max(shown_a, record_a or 0.0, told_a or 0.0), max_a(place))


def max_w(place: Place) -> float | None:
    """Of a DC station: its own most, or less where the car told what it can take (on its own side of the rectifier)."""
    told_w = place.needs.max_w if place.dc and place.needs is not None else None
    if not told_w:
        return place.station.max_w
    at_the_inlet = told_w / DC_EFFICIENCY
    return at_the_inlet if place.station.max_w is None else min(place.station.max_w, at_the_inlet)


def priority_of(place: Place) -> int:
    """Place and user together. What a goal says of its rank counts; else the profile behind the id token."""
    if place.goal is not None and place.goal.priority is not None:
        return place.station.priority + place.goal.priority
    token = place.transaction.id_token if place.transaction is not None else None
    link = getattr(token, "token_profile", None)
    return place.station.priority + (link.profile.priority if link is not None else 1)


def mode_of(place: Place) -> Mode:
    return Mode(place.goal.mode) if place.goal is not None else Mode.PLAN


def energy_needed_wh(place: Place) -> float | None:
    """Still to be charged for the goal; None means as much as possible."""
    if place.goal is None or place.goal.energy_wh is None or place.transaction is None:
        return None
    return max(place.goal.energy_wh - place.transaction.energy_wh, 0.0)


# --- plan, prices ---------------------------------------------------------------------------------------------


def slot_index(plan: Plan, now: datetime) -> int:
    return int((now - plan.starts_at).total_seconds() // plan.slot_s)


def planned_now(plan: Plan | None, series: str, now: datetime) -> float | None:
    """The value of one of the plan's series in the present slot."""
    if plan is None:
        return None
    return _at(plan.result.get(series), slot_index(plan, now))


def planned_load_w(plan: Plan | None, device_pk: int, now: datetime) -> float | None:
    """What the plan gives a controllable load now. One that the plan does not know is left to itself."""
    if plan is None:
        return None
    return _at(plan.result.get("load_w", {}).get(str(device_pk)), slot_index(plan, now))


def planned_w_of(place: Place, plan: Plan | None, now: datetime) -> float | None:
    """What the plan gives this very car now. A car that came after the plan was made is not in it."""
    if plan is None or place.transaction is None:
        return None
    if plan.result.get("transactions", {}).get(place.key) != place.transaction.pk:
        return None
    return _at(plan.result.get("evse", {}).get(place.key), slot_index(plan, now))


def _at(values: object, index: int) -> float | None:
    if not isinstance(values, list) or not 0 <= index < len(values) or values[index] is None:
        return None
    return float(values[index])


def _price_now(site: Site, tariff: Tariff, now: datetime) -> float | None:
    """The day-ahead price of this moment, before factors and adders."""
    row = (
        Price.objects.filter(Q(area=site.price_area), start__lte=now, start__gt=now - timedelta(hours=1))
        .order_by("-start")
        .first()
        if site.price_area
        else None
    )
    if row is not None and now < row.start + timedelta(minutes=row.minutes):
        return row.eur_per_mwh
    return tariff.fixed_price_eur_per_mwh

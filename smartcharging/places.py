"""A place at this moment: its EVSE, the car there, what that car is and wants, and what the station stands by.

`gather.look` paints the places; the engine is told of each as a session.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from csms.metering import DC_EFFICIENCY
from csms.models import EVSE, ChargingStation, Transaction, WantedLimit
from csms.reported_models import ChargingNeeds
from meters.measurement import Measurement
from smartcharging.engine.grid import NOMINAL_V, Supply, loaded, power_weight
from smartcharging.engine.live.phase_steps import phases_shown
from smartcharging.engine.rules import DEFAULT as RULES
from smartcharging.engine.snapshot import Mode, Session
from smartcharging.engine.vehicle import minimum_a, phases_to_count_on
from smartcharging.models import ChargingGoal, Plan, Vehicle
from smartcharging.planned import planned_w_of
from smartcharging.remember import EvseMemory, phase_currents

ASKS_NOTHING_S = 60  # how long a car must have stopped by itself before it counts as full
ALL_PHASES = (True, True, True)
_S = EVSE.Status


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


def _still_counts(evse: EVSE, measured: Measurement) -> bool:
    """What a car drew before it left says nothing of the free place: its contactor is open."""
    left = evse.status == _S.AVAILABLE and evse.status_at is not None and measured.at <= evse.status_at
    return not left


def place_of(
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


def session_of(place: Place, plan: Plan | None, now: datetime) -> Session:
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
        energy_needed_wh=at_the_inlet_wh(place, energy_needed_wh(place)),
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


def plug_share(current: str) -> float:
    """Of the energy at a station's inlet, where its limits hold and plans are made, what it counts at the plug."""
    return DC_EFFICIENCY if current == ChargingStation.Current.DC else 1.0


def at_the_inlet_wh(place: Place, plug_wh: float | None) -> float | None:
    """What the site has to bring for so much at the plug."""
    return None if plug_wh is None else plug_wh / plug_share(place.station.current)


def energy_needed_wh(place: Place) -> float | None:
    """Still to be charged for the goal, at the plug; None means as much as possible."""
    if place.goal is None or place.goal.energy_wh is None or place.transaction is None:
        return None
    return max(place.goal.energy_wh - place.transaction.energy_wh, 0.0)

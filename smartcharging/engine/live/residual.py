"""What is left for the cars at every node and phase: the limit, less its margin, less the load nobody controls.

Pure. Uncontrolled is what the node's meter shows less what our EVSEs and batteries below it are measured to take;
an EVSE whose current is not known is subtracted as nothing, so that it is rather counted twice than not at all.

*How far the sun is trusted.* A limit in amps counts on PV only so far that, if every inverter drops out in this
instant, the copper is above its limit by no more than `Rules.sun_trust`, until the next reading brings the cars down.
A gG fuse does not blow below 1.25 times its rating within an hour (IEC 60269-1, conventional non-fusing current).
A limit in watts is a contract or an order that is measured over seconds to a quarter: there PV counts in full, as the
negative load it is.

A node whose meter is silent gives the EVSEs below it its `fallback_a` together, or their fail-safes when it has none.
Above it, where there is no meter either, its own load is taken to be what that fallback was commissioned for: the
limit less the fallback. Where the meter last showed more other load than was commissioned, that load is taken to stand
until it shows otherwise, there and above: that a meter falls silent gives nobody more.

*Metering lag.* Meter and EVSE are not read in the same instant. A car that stopped by itself since its last
measurement is subtracted although it takes nothing; the error corrects itself at the next one, and shows at the meter
as soon as the car resumes. An EVSE out of reach gives no next one, so it is soon no longer subtracted.

A car whose limit *we* raised, or that has only just come, is a different matter, because we would chase our own tail:
its rise shows at the meter first, looks like other load, and everybody is lowered for it. So there are two readings
of one meter: other load is at least what is left if such a car takes its limit by now, at most what is left if it
does not. What it was before decides between the two (`engine/carried.py`); where nothing is remembered, nobody is
raised by the one (`table`), nor lowered by the other (`kind`). A car that was switched on and reported nothing taken
begins when it likes: for a minute what the meter then shows more, and it may take, is taken to be it. Other load that
rises in the very moment in which a car is awaited can so stay unseen until the car takes its limit; then the circuit is
above its limit by no more than that rise, until the next reading.

*Imbalance.* Where a circuit limits it, what is uneven on a phase (cars on one or two, and other load) may stand above
the lowest of the others by so much. What the others carry is counted only as far as it surely flows.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from smartcharging.engine import carried
from smartcharging.engine.grid import NOMINAL_V, Supply, power_weight, spread_a
from smartcharging.engine.limits import PHASES, SUM, Limits, Rank
from smartcharging.engine.live.admission import loading
from smartcharging.engine.live.fleet import APART, Fleet
from smartcharging.engine.live.tree import Floats, known_or
from smartcharging.engine.priorities import Flags
from smartcharging.engine.rules import Rules
from smartcharging.engine.snapshot import BatteryState, NodeReading, Snapshot


@dataclass(frozen=True)
class Residual:
    """Amps per tree node, columns as `Fleet.uses`. Negative: already too much without any car."""

    table: Floats  # for cars and batteries
    kind: Floats  # the same, if those whose limit was raised take it by now: what must be, rather than may be
    raw: Floats  # as `kind` without the margins: below zero here is a violation, not a nibble at the margin
    other: Floats  # the load that was taken off, as counted
    believed: Floats  # that load where there is a meter, or was one, to be carried
    falls_to: Floats  # and what that is falling to
    ranks: NDArray[np.int64]
    reasons: list[tuple[str, ...]]
    plain: NDArray[np.bool_]  # the circuit's own limit, set by nobody in particular
    stale: NDArray[np.bool_]
    strict: NDArray[np.bool_]  # stale and without a fallback: nobody below may have more than its fail-safe
    over: NDArray[np.bool_]  # the meter itself shows more than the limit
    bears: Floats  # by how much each may be above its limit for a few seconds; nothing for fire
    beyond_peak: Floats  # how much more there would be without the quarter hour's peak


def residual(snapshot: Snapshot, fleet: Fleet, limits: Limits, behind: Limits, rules: Rules) -> Residual:
    """The tables for all nodes, those of stations with a shared maximum included. `behind` are the limits without the
    quarter hour's peak."""
    circuits = snapshot.grid.circuits
    count, size, width = len(circuits), fleet.tree.size, fleet.columns
    margin = np.array([max(c.margin_a, 0.0) for c in circuits])
    limit = np.full((count, width), np.inf)
    limit[:, : SUM + 1] = limits.table
    allowed = limit.copy()
    allowed[:, :SUM] = np.maximum(allowed[:, :SUM] - margin[:, None], 0.0)

    names = snapshot.grid.names
    remembered = carried.last_other_load(snapshot.carried, names, width)
    if remembered is None:
        remembered = np.full((count, width), np.nan)
    meters = _Meters(snapshot, fleet, rules, remembered)
    sure = meters.other_load(fleet.drawn)
    kind = meters.other_load(_begun(fleet, meters, sure - remembered, rules))
    over = np.zeros((size, width), dtype=bool)
    with np.errstate(invalid="ignore"):
        over[:count, :SUM] = meters.current > limits.table[:, :SUM]
    bears = np.zeros((size, width))
    finite = np.isfinite(limits.table) & (limits.ranks > Rank.EMERGENCY_STOP)
    bears[:count, : SUM + 1] = np.where(finite, limits.table, 0.0) * (rules.squeezed_over - 1.0)
    bears[count:, :SUM] = fleet.shared_a[:, None] * (rules.squeezed_over - 1.0)
    beyond = np.zeros((size, width))
    narrower = limits.table < behind.table
    beyond[:count, : SUM + 1][narrower] = behind.table[narrower] - limits.table[narrower]
    found = carried.other_load(snapshot.carried, names, kind, sure, snapshot.now.timestamp(), rules)
    if found is None:
        believed, falls_to, kind = sure, sure, np.where(over[:count], sure, kind)
    else:
        falls_to = found[1]
        believed = np.where(meters.fresh[:, None], found[0], sure)
        kind = np.where(meters.fresh[:, None], believed, kind)
    if width > APART:
        allowed[:, APART:] = limit[:, APART:] = _uneven(snapshot, fleet, sure)

    table, calm, raw = (np.full((size, width), np.inf) for _ in range(3))
    table[:count], calm[:count], raw[:count] = allowed - believed, allowed - kind, limit - kind
    reasons = list(limits.reasons)
    if width > APART:
        uneven = [tuple(f"imbalance:{c.name}:{p}" for p in PHASES) for c in circuits]
        reasons = [said + apart for said, apart in zip(reasons, uneven, strict=True)]
    ranks = np.full((size, width), int(Rank.CIRCUIT), dtype=np.int64)
    ranks[:count, : SUM + 1] = limits.ranks
    plain = np.ones((size, width), dtype=bool)
    plain[:count, : SUM + 1] = limits.ranks == Rank.CIRCUIT

    stale = meters.stale
    strict = np.zeros(size, dtype=bool)
    for n in np.flatnonzero(stale).tolist():
        strict[n], least = _without_meter(snapshot, meters, n)
        least = np.fmin(known_or(least, 0.0), (allowed - remembered)[n, : SUM + 1])
        said = list(reasons[n])
        for column in range(SUM + 1):
            if least[column] < table[n, column]:
                said[column] = f"meter stale: {circuits[n].name}"
                ranks[n, column], plain[n, column] = Rank.CIRCUIT, False
        reasons[n] = tuple(said)
        for one in (table, calm, raw):
            one[n, : SUM + 1] = np.minimum(one[n, : SUM + 1], least)

    if size > count:
        for one in (table, calm, raw):
            one[count:, :SUM] = fleet.shared_a[:, None]
        reasons.extend([("station shared",) * width] * (size - count))

    silent = np.zeros(size, dtype=bool)
    silent[:count] = stale
    table, calm, raw = (known_or(one, 0.0) for one in (table, calm, raw))  # room that is no number is none
    all_other = np.zeros((size, width))
    all_other[:count] = believed
    return Residual(
        table,
        calm,
        raw,
        all_other,
        np.where(meters.fresh[:, None], believed, np.where(meters.stale[:, None], remembered, np.nan)),
        np.where(meters.fresh[:, None], falls_to, np.nan),
        ranks,
        reasons,
        plain,
        silent,
        strict,
        over,
        bears,
        beyond,
    )


def _begun(fleet: Fleet, meters: _Meters, rise: Floats, rules: Rules) -> Floats:
    """What the cars have risen to, those included that may have begun since they last reported: switched on, seen to
    take nothing, and then the meter shows more, on every phase no more than they may take. `rise`: of other load."""
    if not fleet.late.any():
        return fleet.risen
    level = np.where(fleet.late, fleet.level_a, 0.0)[:, None] * fleet.uses
    could = fleet.tree.sums(level)[: meters.count, :SUM]
    with np.errstate(invalid="ignore"):
        theirs = (rise[:, :SUM] <= could + rules.wake_a).all(axis=1)  # not where nothing is remembered
    odd = np.zeros((fleet.tree.size, fleet.columns), dtype=bool)
    odd[: meters.count] = (meters.fresh & ~theirs)[:, None]
    begun = fleet.late & ~loading(fleet, odd)
    return np.where(begun[:, None], np.maximum(fleet.risen, level), fleet.risen)


def _without_meter(snapshot: Snapshot, meters: _Meters, n: int) -> tuple[bool, Floats]:
    """What a node whose meter is silent leaves to the cars below it, and whether that is their fail-safes only.

    Where its worst other load was commissioned, the limit less that and twice the margin.
    """
    circuit = snapshot.grid.circuits[n]
    if circuit.fallback_a is not None:
        three = power_weight(3, snapshot.grid.supply) * circuit.fallback_a
        return False, np.array([circuit.fallback_a] * 3 + [three])
    if circuit.worst_a is not None:
        left = np.maximum(np.array(circuit.limit_a) - np.array(circuit.worst_a) - 2 * circuit.margin_a, 0.0)
        return False, np.array([*left, np.inf])
    return True, meters.safe[n, : SUM + 1]


def _uneven(snapshot: Snapshot, fleet: Fleet, other: Floats) -> Floats:
    """How much each phase may carry unevenly: the imbalance that is allowed above the lowest of the others."""
    circuits = snapshot.grid.circuits
    room = np.full((len(circuits), SUM), np.inf)
    flows = np.minimum(other[:, :SUM], other[:, APART:]) + fleet.tree.sums(fleet.drawn[:, APART:])[: len(circuits)]
    flows += all_below(fleet, _lowers(snapshot))[:, :SUM]
    for n, circuit in enumerate(circuits):
        if circuit.imbalance_a is not None:
            for f in range(SUM):
                lowest = min(flows[n, g] for g in range(SUM) if g != f)
                room[n, f] = circuit.imbalance_a + lowest
    return room


def _lowers(snapshot: Snapshot) -> Floats:
    """What batteries on some phases take off these by discharging; what they charge with may stop at any moment."""
    table = np.zeros((len(snapshot.grid), 4))
    for battery in snapshot.batteries:
        if not all(battery.phases):
            power_w = -battery.max_discharge_w if battery.power_w is None else battery.power_w
            table[battery.node] += spread(battery, min(power_w, 0.0), snapshot.grid.supply)
    return table


class _Meters:
    """The readings as columns, and what they say about load that is not ours."""

    def __init__(self, snapshot: Snapshot, fleet: Fleet, rules: Rules, remembered: Floats) -> None:
        circuits = snapshot.grid.circuits
        three = power_weight(3, snapshot.grid.supply)
        self.fleet, self.count, self.part = fleet, len(circuits), three / 3
        self.current, power = readings_of(snapshot)
        self.fresh: Flags = np.asarray(np.isfinite(self.current).all(axis=1))
        self.stale: Flags = np.array([c.metered for c in circuits]) & ~self.fresh
        shown = np.zeros((self.count, 4))  # as the meter sees it: PV and other infeed negative
        shown[:, :SUM] = np.where(self.fresh[:, None], self.current, 0.0)
        shown[:, SUM] = np.where(np.isnan(power), shown[:, :SUM].sum(axis=1) * self.part, power / NOMINAL_V)
        sun = sun_of(snapshot, self.count)
        supply = snapshot.grid.supply
        self.without_batteries = shown - all_below(fleet, battery_amps(snapshot.batteries, self.count, supply))
        self.sun = all_below(fleet, sun)
        self.counted_sun = np.zeros((self.count, 4))
        if self.sun.any():
            trusted = np.array([c.limit_a for c in circuits]) * rules.sun_trust
            self.counted_sun[:, :SUM] = np.minimum(-self.sun[:, :SUM], np.maximum(trusted, 0.0))
        self.known = np.zeros((self.count, 4))  # load without a meter of its own
        for n, circuit in enumerate(circuits):
            measured = snapshot.background_a.get(n)
            if measured is not None or circuit.worst_a is not None:
                amps = measured if measured is not None else circuit.worst_a
                self.known[n, :SUM] = amps
                self.known[n, SUM] = sum(amps or ()) * self.part
        self.known_sun = sun if snapshot.pv_a else np.zeros((self.count, 4))
        self.commissioned = np.zeros((self.count, 4))
        for n in np.flatnonzero(self.stale).tolist():
            circuit = circuits[n]
            fallback = self.safe[n, :SUM] if circuit.fallback_a is None else circuit.fallback_a
            worst = np.maximum(np.array(circuit.limit_a) - circuit.margin_a - fallback, 0.0)
            if circuit.fallback_a is None and circuit.worst_a is not None:
                worst = np.array(circuit.worst_a)
            self.commissioned[n] = np.fmax([*worst, worst.sum() * self.part], remembered[n, : SUM + 1])

    @cached_property
    def safe(self) -> Floats:
        """What the fail-safes below each node add up to."""
        fleet = self.fleet
        return fleet.tree.sums(fleet.fail_safe_a[:, None] * fleet.uses)[: self.count]

    def other_load(self, drawn: Floats) -> Floats:
        """The load at each node that is neither a car nor a battery, if the cars draw this much.

        Amps per phase with no more infeed than is trusted, for copper; the sum with all of it, for contracts. A node
        without a meter adds up what the tree knows below it. Nothing at a silent meter: its fallback was commissioned
        with that load already taken off, and above it that load is what was commissioned.
        """
        fresh, stale = self.fresh[:, None], self.stale[:, None]
        seen = self.without_batteries - self.fleet.tree.sums(drawn)[: self.count, : SUM + 1]
        copper = np.maximum(seen - self.sun, 0.0) - self.counted_sun
        if not self.fresh.all():
            net = np.where(fresh, seen, np.where(stale, self.commissioned, self.known + self.known_sun))
            copper = np.where(fresh, copper, np.where(stale, self.commissioned, np.maximum(self.known, 0.0)))
            both = self._added_up(np.hstack((net, copper)))
            seen, copper = both[:, :4], both[:, 4:]
        other = np.zeros((self.count, self.fleet.columns))
        other[:, :SUM], other[:, SUM] = copper[:, :SUM], seen[:, SUM]
        other[:, APART:] = seen[:, : self.fleet.columns - APART]  # infeed is uneven, too
        other[self.stale] = 0.0
        return other

    def _added_up(self, table: Floats) -> Floats:
        own = np.zeros((self.fleet.tree.size, table.shape[1]))
        fixed = np.ones(self.fleet.tree.size, dtype=bool)
        own[: self.count], fixed[: self.count] = table, self.fresh | self.stale
        return self.fleet.tree.sums_up_to(own, fixed)[: self.count]


def battery_amps(batteries: tuple[BatteryState, ...], count: int, supply: Supply = Supply.TN) -> Floats:
    """What the batteries at each node are measured to take. One that is not known is taken to be discharging fully:
    it may stop at any moment, and then that load is there."""
    table = np.zeros((count, 4))
    for battery in batteries:
        power_w = battery.power_w
        if power_w is None:
            empty = battery.soc is not None and battery.soc <= battery.min_soc
            power_w = 0.0 if empty else -battery.max_discharge_w
        table[battery.node] += spread(battery, power_w, supply)
    return table


def spread(battery: BatteryState, power_w: float, supply: Supply = Supply.TN) -> Floats:
    """A battery's power in amps on L1, L2, L3 and all together."""
    return np.array([*spread_a(power_w, battery.phases, supply), power_w / NOMINAL_V])


def surplus_a(snapshot: Snapshot, fleet: Fleet, left: Residual) -> float | None:
    """What would be exported if no surplus car charged and no battery worked, in amps of all phases together.

    Cars come before the battery: what it charges with is surplus too, and what it discharges is not. None when the
    meter at the grid connection or a battery is silent: unknown is not surplus. More sun is believed as slowly
    as any fall of other load, less of it at once.
    """
    reading = snapshot.readings.get(0)
    if reading is None or not _tells_power(reading) or any(b.power_w is None for b in snapshot.batteries):
        return None
    others = ~(fleet.surplus & ~fleet.must)
    return max(-float(left.other[0, SUM] + fleet.risen[others, SUM].sum()), 0.0)


def _tells_power(reading: NodeReading) -> bool:
    return reading.current_a is not None and all(math.isfinite(a) for a in reading.current_a)


def readings_of(snapshot: Snapshot) -> tuple[Floats, Floats]:
    """Amps per phase and W at each circuit; NaN where the meter does not tell its currents."""
    count = len(snapshot.grid)
    current, power = np.full((count, 3), np.nan), np.full(count, np.nan)
    for n, reading in snapshot.readings.items():
        if reading.current_a is not None and all(math.isfinite(a) for a in reading.current_a):
            current[n] = reading.current_a
            if reading.power_w is not None and math.isfinite(reading.power_w):
                power[n] = reading.power_w
    return current, power


def all_below(fleet: Fleet, of_circuits: Floats) -> Floats:
    """Each circuit's own with all below it."""
    table = np.zeros((fleet.tree.size, 4))
    table[: len(of_circuits)] = of_circuits
    return fleet.tree.sums_of_nodes(table)[: len(of_circuits)]


def sun_of(snapshot: Snapshot, count: int) -> Floats:
    """What PV feeds in at each node (negative)."""
    table = np.zeros((count, 4))
    for n, amps in snapshot.pv_a.items():
        table[n, :SUM] += np.minimum(amps, 0.0)
    if not snapshot.pv_a and snapshot.pv_w is not None:
        table[0, :SUM] = min(snapshot.pv_w, 0.0) / (power_weight(3, snapshot.grid.supply) * NOMINAL_V)
    table[:, SUM] = table[:, :SUM].sum(axis=1) * power_weight(3, snapshot.grid.supply) / 3
    return table

"""The live layer: share the present current over the cars, every few seconds, never above a limit.

Pure and stateless; what must be remembered goes out as `Allocation.carried` and comes in again with the snapshot. Two
questions are asked one after the other:

1. *Where should everybody be?* (`aim`) Admit cars at their minimum, most urgent first; fill up to the plan; give what
   is left to those who may exceed it; give true surplus to those who want only that; give free EVSEs a standby.
   The sum of what is aimed for fits every node.
2. *How far can we go in this cycle?* (`step`) Whoever must come down is told at once. Whoever may go up waits until
   the others are seen to have come down: at every node the sum of max(what it may be drawing, what it is told) stays
   within the limit, in every cycle, with stations out of reach, cars that lag and meters that are silent.

So a limit is only ever exceeded by load that is not ours; then everybody below it is lowered in the same cycle.
"""

from __future__ import annotations

import math
from itertools import repeat

import numpy as np
from numpy.typing import NDArray

from smartcharging.engine import carried
from smartcharging.engine.carried import Carried
from smartcharging.engine.grid import NOMINAL_V, Phases, power_weight
from smartcharging.engine.limits import PHASES, SUM, Rank, narrow, peak_limit_w
from smartcharging.engine.live.admission import admit, loading
from smartcharging.engine.live.aim import Aim, aim
from smartcharging.engine.live.battery import to_remember
from smartcharging.engine.live.filling import EPS, fill
from smartcharging.engine.live.fleet import APART, Fleet
from smartcharging.engine.live.measured import only_numbers, unknown_sun
from smartcharging.engine.live.residual import Residual, residual
from smartcharging.engine.live.roll import Roll
from smartcharging.engine.live.settling import Batteries
from smartcharging.engine.live.tree import Floats, known_or, least_of, sum_of
from smartcharging.engine.priorities import Flags
from smartcharging.engine.rules import DEFAULT, Rules
from smartcharging.engine.snapshot import Allocation, Narrowing, Share, Snapshot

LAST = np.iinfo(np.int64).max  # behind every rank and every current


def allocate(snapshot: Snapshot, rules: Rules = DEFAULT) -> Allocation:
    """What every EVSE and battery of the site should do now, and why.

    Every share is 0 or at least the car's minimum. Raises only for a snapshot that contradicts itself (a session or
    a narrowing at a node that is not there); `engine/live/fallback.py` is for that moment.
    """
    dark = unknown_sun(snapshot)
    snapshot = only_numbers(snapshot)
    roll = Roll.of(snapshot)
    peak = _peak(snapshot, roll)
    limits = narrow(snapshot.grid, [*snapshot.narrowings, *peak], snapshot.now)
    behind = narrow(snapshot.grid, snapshot.narrowings, snapshot.now) if peak else limits
    fleet = Fleet.of(snapshot, roll, limits, rules)
    left = residual(snapshot, fleet, limits, behind, rules)
    batteries = Batteries.of(snapshot, fleet, limits, dark)

    target = aim(snapshot, fleet, left, left.kind - batteries.relief, rules)
    now_a, waits = step(fleet, target, left.table - batteries.relief - batteries.charging, rules)

    load = fleet.load(now_a)
    rest = left.table - load
    battery_w, held_back, spare = dict[str, float](), dict[int, str](), rest[:, :APART]
    if snapshot.batteries:
        yields = left.table - fleet.load(np.maximum(now_a, target.current_a))
        battery_w, free = batteries.settle(rest, yields)
        held_back, spare = batteries.held_back(battery_w), free[:, :APART]
    # Judged without the battery's help: what only a battery holds up is already worth a quick message.
    broken = _broken(fleet, left, left.raw - fleet.held)
    return Allocation(
        shares=_shares(snapshot, fleet, target, now_a, waits, broken),
        battery_w=battery_w,
        load_a=_per_node(left.other + load, fleet.circuits),
        headroom_a=_headroom(spare, fleet.circuits, power_weight(3, snapshot.grid.supply)),
        node_reason={n: said or held_back.get(n, "") for n, said in _node_reasons(snapshot, left, spare).items()},
        told_a=_per_node(np.round(fleet.tree.sums(now_a[:, None] * fleet.uses), 6), fleet.circuits),
        circuits=snapshot.grid.names,
        carried=_carry(snapshot, fleet, left, target, battery_w),
    )


def _carry(snapshot: Snapshot, fleet: Fleet, left: Residual, target: Aim, battery_w: dict[str, float]) -> Carried:
    """What the next cycle must know: since when who is squeezed, how often a charge was paused, what batteries do."""
    now, cars = snapshot.now.timestamp(), fleet.memory
    since = cars[:, carried.SQUEEZED]
    cars[:, carried.SQUEEZED] = np.where(target.squeezed, np.where(np.isnan(since), now, since), np.nan)
    stopped = (cars[:, carried.WAS_ON] > 0) & (fleet.offered_a == 0) & (cars[:, carried.DELIVERED] > 0)
    cars[:, carried.SWITCHES] += stopped
    cars[:, carried.WAS_ON] = np.where(np.isnan(fleet.offered_a), cars[:, carried.WAS_ON], fleet.running)
    told = to_remember(snapshot, battery_w)
    return Carried(now, fleet.keys, cars, snapshot.grid.names, left.believed, told, left.falls_to)


def _peak(snapshot: Snapshot, roll: Roll) -> list[Narrowing]:
    if snapshot.peak_target_w is None:
        return []
    watts = peak_limit_w(snapshot.peak_target_w, snapshot.quarter_import_wh, snapshot.now)
    return [Narrowing(Rank.CONTRACT, "peak", node=0, limit_w=watts + _left_w(snapshot, roll))]


def _left_w(snapshot: Snapshot, roll: Roll) -> float:
    """What cars leave of their limits, as they have shown. Fuses are not lent it; a mean over a quarter hour, which is
    money and corrects itself in the next minutes, is."""
    if snapshot.carried is None:
        return 0.0
    fact, supply = roll.facts, snapshot.grid.supply
    per_a = np.array([power_weight(lines, supply) for lines in range(4)])
    lines = np.where(fact.dc, 3, sum_of(fact.phases.astype(np.intp)))
    left = (1.0 - carried.takes_of_all(snapshot.carried, roll.keys)) * known_or(fact.offered_a, 0.0) * per_a[lines]
    counts = fact.wants & fact.reachable & (left > 0)  # not those of whom nothing is known
    return float(left[counts].sum()) * NOMINAL_V


def step(fleet: Fleet, target: Aim, room: Floats, rules: Rules) -> tuple[Floats, Flags]:
    """How far everybody goes in this cycle, and who waits for others to come down first.

    `room` is what the nodes allow cars now. Decreases are taken at once; increases share what is left when everyone
    is held to the most he may be drawing.
    """
    goal, level = target.current_a, fleet.surely_a
    spare = room - fleet.held
    rising = target.follows & (goal > level + EPS)
    ramp = np.where(np.isnan(fleet.offered_a), np.inf, np.maximum(rules.ramp_a, rules.ramp_share * target.cap_a))
    low = np.minimum(goal, level)

    # From below the minimum a car needs all of it at once.
    starts = rising & (level < fleet.min_a - EPS)
    first = np.where(starts, fleet.min_a - level, 0.0)
    admitted, spare, _ = admit(fleet, starts, first, spare)
    low = np.where(starts & admitted, fleet.min_a, low)
    rising &= ~starts | admitted

    cap = np.where(rising, np.minimum(goal, np.maximum(level + ramp, fleet.min_a)), low)
    reached, _ = fill(fleet.tree, spare, low, cap, fleet.weight, fleet.uses)
    reached = legal(reached, fleet)

    offered = known_or(fleet.offered_a, 0.0)
    # What it has, it keeps, unless it is to come down; and a ripple upwards is not worth a message.
    keeps = target.follows & (offered >= fleet.min_a - EPS) & (offered <= goal + EPS) & (offered > 0)
    keeps &= offered <= level + EPS
    ripple = keeps & (reached < offered + rules.ripple_a) & (reached < target.cap_a - EPS)
    reached = np.where(ripple | (keeps & (reached < offered)), offered, reached)
    waits = target.follows & (reached < goal - np.maximum(fleet.step_a, rules.ripple_a) - EPS)
    return reached, waits


def legal(current_a: Floats, fleet: Fleet) -> Floats:
    """Rounded down to what the charger can do; what is then below the minimum, or no number, is nothing."""
    steps = np.floor(current_a / fleet.step_a + 1e-6)
    rounded = np.round(steps * fleet.step_a, 6)
    return np.where(rounded >= fleet.min_a - 1e-6, np.maximum(rounded, 0.0), 0.0)


def _broken(fleet: Fleet, left: Residual, worst: Floats) -> Flags:
    """Cars below a node that is, or may be this moment, above its limit: they are told before all others."""
    return loading(fleet, (worst < -1e-6) | left.over)


def _shares(
    snapshot: Snapshot, fleet: Fleet, target: Aim, now_a: Floats, waits: Flags, broken: Flags
) -> dict[str, Share]:
    lowered = np.where(np.isnan(fleet.offered_a), fleet.level_a, fleet.offered_a) - 1e-6 > now_a
    urgent = lowered & broken
    ramping = (now_a > known_or(fleet.offered_a, np.inf) + 1e-6).tolist()
    reasons = list(target.reasons)
    for i in np.flatnonzero(waits).tolist():
        reasons[i] = "rising" if ramping[i] else "waits for others"
    watts: list[float | None] = [None] * len(fleet)
    per_a = power_weight(3, snapshot.grid.supply) * NOMINAL_V
    for i in np.flatnonzero(fleet.dc).tolist():
        watts[i] = float(math.floor(now_a[i] * per_a + 1e-6))
    amps, places = now_a.tolist(), (target.circuits, target.phases)
    found = zip(fleet.keys, amps, watts, reasons, urgent.tolist(), *places, strict=True)
    # As `Share._make`, of which every call would take longer than the rest of this function.
    return dict(zip(fleet.keys, map(tuple.__new__, repeat(Share), found), strict=False))


def _per_node(table: Floats, count: int) -> dict[int, Phases]:
    return dict(enumerate(zip(*table[:count, :SUM].T.tolist(), strict=True)))


def _headroom(spare: Floats, count: int, three: float) -> dict[int, Phases]:
    """What is still free per phase when all three are loaded alike; negative where a limit is exceeded."""
    evenly = np.minimum(spare[:count, :SUM], spare[:count, SUM:] / three)
    return _per_node(evenly, count)


def _node_reasons(snapshot: Snapshot, left: Residual, spare: Floats) -> dict[int, str]:
    """What binds at each node: a silent meter, somebody's order, the fullest phase; empty when there is room."""
    circuits = snapshot.grid.circuits
    ranks, rest = left.ranks[: len(circuits), :APART], spare[: len(circuits), :APART]
    full = rest < 0.5
    rank_of_full = np.where(full, ranks, LAST)
    foremost = full & (rank_of_full == least_of(rank_of_full)[:, None])
    tightest = _column(foremost, rest)
    ordered = _column((~left.plain & np.isfinite(left.table))[: len(circuits), :APART], ranks)
    reasons: dict[int, str] = {}
    for n, (circuit, at, by) in enumerate(zip(circuits, tightest, ordered, strict=True)):
        if left.stale[n]:
            reasons[n] = f"meter stale: {circuit.name}"
        elif at is not None:
            reasons[n] = left.reasons[n][at] or f"limit:{circuit.name}:{PHASES[at % 3]}"
        else:
            reasons[n] = "" if by is None else left.reasons[n][by]
    return reasons


def _column(among: Flags, table: Floats | NDArray[np.int64]) -> list[int | None]:
    """Where in each row the smallest of these stands; None where there are none of these."""
    places = np.where(among, table, LAST).argmin(axis=1)
    there: Flags = np.asarray(among.any(axis=1))
    return [place if some else None for place, some in zip(places.tolist(), there.tolist(), strict=True)]

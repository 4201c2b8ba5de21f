"""How much room each circuit leaves for cars and battery, per slot: watts as a whole, and each phase.

Pure. All in kW. A phase is written as the balanced three-phase power its current would carry (3 × 230 V × amps), so
that one scale serves watts and amps: a three-phase car weighs 1 on every phase, a single-phase car 3 on its own.
Without a neutral that is √3 × 230 V × amps, and a single-phase car weighs √3 on both its lines. The currents of a line
are then added as lengths, although they may stand at an angle to each other: never too little.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from smartcharging.engine.grid import Grid, Supply, balanced_kw_per_a, loaded, power_weight
from smartcharging.engine.plan.problem import PlanProblem, Series

WATTS, L1, L2, L3 = range(4)
KINDS = 4
KIND_NAMES = ("", ":L1", ":L2", ":L3")

Integers = NDArray[np.int64]


@dataclass(frozen=True)
class Rooms:
    """`limit` and `room` (limit less background) have the axes circuit, kind, slot; `background` circuit, slot.

    `dark` is what the connection's phases leave where no more sun is counted than is trusted (kind L1 to L3, slot).
    While all the sun runs `room` has that too: what is held back takes of the fuse, and nothing of `dark`.
    """

    limit: Series
    background: Series
    room: Series
    dark: Series

    @classmethod
    def of(cls, problem: PlanProblem) -> Rooms:
        limit = limits_kw(problem)
        background = background_kw(problem)
        room, dark = limit - background[:, None, :], dark_kw(problem, limit[0, L1:])
        room[0, L1:] = np.minimum(room[0, L1:], dark)
        return cls(limit, background, room, dark)


def limits_kw(problem: PlanProblem) -> Series:
    """What each circuit may carry. The grid connection also obeys the grid operator's series."""
    slots = problem.slots
    limit = np.full((len(problem.grid), KINDS, slots), np.inf)
    circuits = problem.grid.circuits
    watts = np.array([np.inf if c.limit_w is None else c.limit_w for c in circuits], dtype=np.float64)
    amps = np.array([c.limit_a for c in circuits]) - np.array([c.margin_a for c in circuits])[:, None]
    limit[:, WATTS] = watts[:, None] / 1000
    limit[:, L1:] = np.maximum(amps, 0.0)[:, :, None] * balanced_kw_per_a(problem.grid.supply)
    if problem.import_limit_w is not None:
        limit[0, WATTS] = np.minimum(limit[0, WATTS], np.maximum(problem.import_limit_w, 0) / 1000)
    return limit


def dark_kw(problem: PlanProblem, limit: Series) -> Series:
    """What these limits of the connection's phases leave beside the building, where they lean on no more sun than the
    live layer lets them (`residual.py`). What of the sun runs does not matter to it."""
    if problem.sun_trust is None:
        return np.full(limit.shape, np.inf)
    left: Series = limit * (1 + problem.sun_trust) - problem.building_w / 1000
    return left


def background_kw(problem: PlanProblem) -> Series:
    """What each circuit carries without cars and battery; the sum of its children where nothing is said of it."""
    carried = _carried(problem, problem.node_background_w)
    carried[0] = (problem.building_w + problem.pv_w) / 1000
    return carried


def least_kw(problem: PlanProblem) -> Series:
    """The same, of a long slot the least there is at any time; at the connection without the sun."""
    carried = _carried(problem, {**problem.node_background_w, **problem.least_w})
    carried[0] = problem.least_w.get(0, problem.building_w) / 1000
    return carried


def least_with_sun_kw(problem: PlanProblem) -> Series:
    """What the connection carries at the least, for what may flow back over its fuses. A long slot has sun only where
    nothing may (`coarse.py`), so the least sun in it does no harm."""
    least: Series = (problem.least_w.get(0, problem.building_w) + problem.pv_w) / 1000
    return least


def _carried(problem: PlanProblem, known_w: Mapping[int, Series]) -> Series:
    circuits = problem.grid.circuits
    carried = np.zeros((len(circuits), problem.slots))
    if not problem.node_background_w:
        carried[0] = (problem.building_w + problem.pv_w) / 1000
        return carried
    for n in range(len(circuits) - 1, 0, -1):
        known = known_w.get(n)
        if known is not None:
            carried[n] = known / 1000
        parent = circuits[n].parent
        if parent:
            carried[parent] += carried[n]
    return carried


def fuses_kw(problem: PlanProblem) -> Series:
    """What the fuses of each circuit carry, either way; nothing is said of its watts: axes circuit, kind."""
    circuits = problem.grid.circuits
    fuses = np.full((len(circuits), KINDS), np.inf)
    amps = np.array([c.limit_a for c in circuits]) - np.array([c.margin_a for c in circuits])[:, None]
    fuses[:, L1:] = np.maximum(amps, 0.0) * balanced_kw_per_a(problem.grid.supply)
    return fuses


def export_limit_kw(problem: PlanProblem) -> Series:
    """What the grid connection may deliver back: contract, operator and fuses together."""
    root = problem.grid.circuits[0]
    most = max(0.0, min(root.limit_a) - root.margin_a) * balanced_kw_per_a(problem.grid.supply)
    if root.export_limit_w is not None:
        most = min(most, root.export_limit_w / 1000)
    limit = np.full(problem.slots, most)
    if problem.export_limit_w is not None:
        limit = np.minimum(limit, np.maximum(problem.export_limit_w, 0) / 1000)
    return limit


def weights(problem: PlanProblem) -> Series:
    """How much of each kind one kW of a session takes: axes session, kind."""
    return phase_weights([s.phases for s in problem.sessions], problem.grid.supply)


def battery_weight(problem: PlanProblem) -> Series:
    """How much of each kind one kW of the battery takes, or gives back."""
    battery = problem.battery
    if battery is None or not any(battery.phases):
        return np.ones(KINDS)
    weight: Series = phase_weights([battery.phases], problem.grid.supply)[0]
    return weight


def phase_weights(phases: Sequence[tuple[bool, bool, bool]], supply: Supply) -> Series:
    """How much of each kind one kW takes that is spread evenly over these phases: axes consumer, kind.

    Of one that hangs between a line and one that is not named, both others carry it.
    """
    ways = [(a, b, c) for a in (False, True) for b in (False, True) for c in (False, True)]
    lines, uses = np.array([sum(way) for way in ways]), np.array([loaded(way, supply) for way in ways])
    each = power_weight(3, supply) / np.array([power_weight(n, supply) for n in range(4)])
    way = np.array(phases, dtype=np.int64).reshape(-1, 3) @ (4, 2, 1)
    out = np.ones((len(phases), KINDS))
    out[:, L1:] = (uses * each[lines, None])[way]
    return out


def ancestors(grid: Grid) -> Integers:
    """Row 0: each circuit itself; row 1: its parent; and so on, -1 above the grid connection."""
    parents = np.array([-1 if c.parent is None else c.parent for c in grid.circuits], dtype=np.int64)
    level = np.arange(len(grid), dtype=np.int64)
    rows = []
    while (level >= 0).any():
        rows.append(level)
        level = np.where(level >= 0, parents[level], -1)
    return np.array(rows)


def by_depth(grid: Grid) -> Integers:
    """Row d: the circuit so deep on the way of each up to the connection (row 0), -1 where it hangs higher."""
    above, depth = ancestors(grid), depths(grid)
    steps = depth - np.arange(len(above))[:, None]
    found = np.take_along_axis(above, np.maximum(steps, 0), axis=0)
    return np.asarray(np.where(steps >= 0, found, -1), dtype=np.int64)


def depths(grid: Grid) -> Integers:
    """How many circuits each has above it."""
    return np.asarray((ancestors(grid) > 0).sum(axis=0), dtype=np.int64)

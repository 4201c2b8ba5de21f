"""Far slots are longer: quarter hours for a day, then half hours, then hours.

Pure. What is a day away is planned many times more before it comes, so it is decided in fewer, longer slots. Where a
car comes or goes, a month ends or a charge begins, there is a border, so every window is exactly what it was; and where
PV may have to be held back, slots stay short. A long
slot has the highest load, the least sun and the tightest limits and bands of the slots in it: the plan, spread out
again, keeps every bound of every quarter hour. So slots stay short as well where what a circuit leaves differs much
within them and may be needed: one busy quarter hour would stand for all. Prices are means; the certified gap is that
of the problem with the long slots, and the plan says so.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from smartcharging.engine.loads.kinds import Load, ShiftableBlock, Switchable, most_w
from smartcharging.engine.plan import giving, rooms, worth
from smartcharging.engine.plan.answer import Answer, interval
from smartcharging.engine.plan.problem import PeakCharge, PlanProblem, PlanSession, Series
from smartcharging.engine.plan.rooms import Rooms
from smartcharging.engine.plan.upward import Upward

NOTHING_KW = 1e-6
STAGES = ((24.0, 0.5), (36.0, 1.0))
"""From so many hours on, slots of so many hours."""

SPREAD = 0.05
"""So much of a limit may what it leaves differ within a long slot."""

Borders = NDArray[np.intp]


def borders(problem: PlanProblem) -> Borders:
    """Where the slots to plan with begin, and the end: indices into the problem's own slots."""
    begins = np.arange(problem.slots)
    at = begins * problem.slot_s / 3600
    keep = np.ones(problem.slots, dtype=bool)
    for since_h, long_h in STAGES:
        far = at >= since_h
        keep[far] = np.isclose(np.mod(at[far] - since_h, long_h), 0.0)
    fixed = np.array(_fixed(problem), dtype=np.int64)
    keep[fixed[(fixed >= 0) & (fixed < problem.slots)]] = True
    keep |= _held_back(problem)
    if not keep.all():
        keep |= _differs(problem, keep)
    return np.append(np.flatnonzero(keep), problem.slots)


def _held_back(problem: PlanProblem) -> NDArray[np.bool_]:
    """Where PV may have to be held back, each slot by itself, and its neighbour after: what is held back no longer
    carries cars over a fuse, and how much that is changes from one quarter hour to the next."""
    too_much = -(problem.building_w + problem.pv_w) / 1000 > rooms.export_limit_kw(problem)
    held = (problem.pv_w < 0) & (too_much | (worth.export_prices(problem) < 0) | giving.may_flow_back(problem))
    found: NDArray[np.bool_] = held | np.append(False, held[:-1])
    return found


def _differs(problem: PlanProblem, keep: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The slots of those long ones in which a circuit that may become full leaves much more at one time than at
    another: to count the least of it all along would make goals fall short that can be kept."""
    begins = np.flatnonzero(keep)
    room = Rooms.of(problem).room
    limit = np.minimum.reduceat(rooms.limits_kw(problem), begins, axis=2)
    known = np.isfinite(room)
    least = np.minimum.reduceat(np.where(known, room, np.inf), begins, axis=2)
    most = np.maximum.reduceat(np.where(known, room, -np.inf), begins, axis=2)
    spread = most - least > np.maximum(SPREAD * limit, NOTHING_KW)
    nodes = np.flatnonzero(spread.any(axis=(1, 2)))
    if not nodes.size:
        return np.zeros_like(keep)
    could = np.maximum.reduceat(_could_kw(problem)[nodes], begins, axis=2)
    differs = (spread[nodes] & (could > least[nodes] + NOTHING_KW)).any(axis=(0, 1))
    return np.repeat(differs, np.diff(np.append(begins, problem.slots)))


def _could_kw(problem: PlanProblem) -> Series:
    """What cars and loads below each circuit could take at most: axes circuit, kind, slot."""
    steps = np.zeros((len(problem.grid), problem.slots + 1, rooms.KINDS))
    sessions = problem.sessions
    if sessions:
        power = rooms.weights(problem) * np.array([s.max_w for s in sessions])[:, None] / 1000
        node = np.array([s.node for s in sessions])
        for slots, sign in (([s.first_slot for s in sessions], 1), ([s.last_slot for s in sessions], -1)):
            np.add.at(steps, (node, np.array(slots)), sign * power)
    could: Series = np.cumsum(steps[:, :-1].transpose(0, 2, 1), axis=2)
    weights = rooms.phase_weights([load.phases for load in problem.loads], problem.grid.supply)
    for load, weight in zip(problem.loads, weights, strict=True):
        could[load.node] += weight[:, None] * most_w(load, problem.hours) / 1000
    for level in Upward(problem.grid):
        level.add(could, could[level.nodes])
    return could


def _fixed(problem: PlanProblem) -> list[int]:
    slots = [s.first_slot for s in problem.sessions] + [s.last_slot for s in problem.sessions]
    for load in problem.loads:
        if isinstance(load, ShiftableBlock):  # it may start with any of its slots
            slots += range(max(load.first_slot, 0), min(load.last_slot, problem.slots) + 1)
    slots += [slot for c in problem.peak_charges for slot in (c.first_slot, c.last_slot) if slot is not None]
    return slots


def _said(problem: PlanProblem, at: Borders) -> str:
    first = int(at[np.argmax(np.diff(at) > 1)])
    since = interval(problem, first, first).split("/")[0]
    return f"from {since} on slots are half hours and hours where little changes; the gap is that of this coarser day"


def coarsen(problem: PlanProblem, at: Borders) -> PlanProblem:
    """The same day in the slots between these borders."""
    begins, width = at[:-1], np.diff(at)

    def most(series: Series) -> Series:
        return np.maximum.reduceat(series, begins)

    def least(series: Series | None) -> Series | None:
        return None if series is None else np.minimum.reduceat(series, begins)

    def full(series: Series | float) -> Series:
        return np.broadcast_to(np.asarray(series, dtype=np.float64), (problem.slots,))

    def mean(series: Series) -> Series:
        found: Series = np.add.reduceat(series, begins) / width
        return found

    def place(slot: int) -> int:
        return int(np.searchsorted(at, slot))

    def moved(charge: PeakCharge) -> PeakCharge:
        last = None if charge.last_slot is None else place(charge.last_slot)
        return replace(charge, first_slot=place(charge.first_slot), last_slot=last)

    changes: dict[str, Any] = {
        "building_w": most(problem.building_w),
        "least_w": {0: least(problem.building_w)} | {n: least(s) for n, s in problem.node_background_w.items()},
        "pv_w": most(problem.pv_w),
        "import_eur_per_kwh": mean(problem.import_eur_per_kwh),
        "levy_eur_per_kwh": None if problem.levy_eur_per_kwh is None else mean(problem.levy_eur_per_kwh),
        "export_eur_per_kwh": mean(problem.export_eur_per_kwh),
        "import_limit_w": least(problem.import_limit_w),
        "export_limit_w": least(problem.export_limit_w),
        "node_background_w": {n: most(series) for n, series in problem.node_background_w.items()},
        "month_ends": None if problem.month_ends is None else place(problem.month_ends),
        "charges": tuple(moved(c) for c in problem.charges),
    }

    def in_long_slots(load: Load) -> Load:
        if isinstance(load, ShiftableBlock):
            return replace(load, first_slot=place(load.first_slot), last_slot=place(load.last_slot))
        if isinstance(load, Switchable):
            return replace(load, expected_w=most(full(load.expected_w)))
        return replace(
            load,
            min_c=most(full(load.min_c)),
            max_c=-most(-full(load.max_c)),
            ambient_c=mean(full(load.ambient_c)),
            efficiency=mean(full(load.efficiency)),
            draw_w=mean(full(load.draw_w)),
        )

    def meant(s: PlanSession) -> PlanSession:
        losses = np.zeros(problem.slots)
        losses[: len(s.gone_eur_per_kwh)] = s.gone_eur_per_kwh[: problem.slots]
        by_slot = tuple(mean(losses).tolist()) if s.gone_eur_per_kwh else ()
        return replace(s, first_slot=place(s.first_slot), last_slot=place(s.last_slot), gone_eur_per_kwh=by_slot)

    sessions = tuple(meant(s) for s in problem.sessions)
    loads = tuple(in_long_slots(load) for load in problem.loads)
    return replace(problem, sessions=sessions, loads=loads, slot_hours=width * problem.slot_s / 3600, **changes)


def spread_out(problem: PlanProblem, answer: Answer, at: Borders) -> Answer:
    """The plan in the problem's own slots: within a long slot power stays as it is, and what is on takes what it is
    expected to."""
    width = np.diff(at)

    def spread(load: Load, power: Series) -> Series:
        if not isinstance(load, Switchable):
            return np.repeat(power, width)
        expected_w = most_w(load, problem.hours)
        return np.where(np.repeat(power > 0, width), expected_w / 1000, 0.0)

    return replace(
        answer,
        session_kw=np.repeat(answer.session_kw, width, axis=1),
        battery_kw=np.repeat(answer.battery_kw, width),
        notes=(*answer.notes, _said(problem, at)),
        load_kw=tuple(spread(load, power) for load, power in zip(problem.loads, answer.load_kw, strict=True)),
        curtailed_kw=None if answer.curtailed_kw is None else np.repeat(answer.curtailed_kw, width),
    )

"""A seeded family of days to plan: N cars, a tree of five levels, building, PV, one battery, prices, a month's peak.

The day starts at six in the morning: office cars come early and stay the working day, depot cars come in the
afternoon and stay the night. `plain_program` writes such a day down the way a careful engineer would in an afternoon,
straight from its numbers: it is the peer our planner is measured against, and shares no code with it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import scipy.sparse as sp

from smartcharging.engine.grid import Circuit, Grid
from smartcharging.engine.plan.problem import PlanProblem, PlanSession
from smartcharging.engine.snapshot import BatteryState

H = 0.25
PER_LEVEL = (2, 4, 3, 3)  # sockets per station, stations per feeder, feeders per board, boards per hall
DIVERSITY = (0.9, 0.55, 0.8, 0.85)  # how much of what is below a level its circuit carries
AMPLE_A = (1e6, 1e6, 1e6)
GOAL_EUR_PER_KWH = {0: 0.8, 1: 1.5, 2: 3.0}


def day(cars: int, slots: int = 96, seed: int = 1) -> PlanProblem:
    """One instance. The same seed always gives the same day."""
    rng = np.random.default_rng([seed, cars, slots])
    socket_kw = rng.choice([3.7, 7.4, 11.0, 22.0], size=cars, p=[0.1, 0.2, 0.55, 0.15])
    grid, leaf = _tree(socket_kw)
    building, pv, buy, sell = _site(rng, cars, slots)
    return PlanProblem(
        start=datetime(2026, 6, 1, 6, tzinfo=UTC),
        slot_s=900,
        grid=grid,
        sessions=tuple(_car(rng, i, socket_kw[i], leaf[i], slots) for i in range(cars)),
        building_w=building * 1000,
        pv_w=-pv * 1000,
        import_eur_per_kwh=buy,
        export_eur_per_kwh=sell,
        battery=BatteryState(
            key="battery",
            node=0,
            soc=0.4,
            capacity_wh=1000.0 * cars,
            max_charge_w=400.0 * cars,
            max_discharge_w=400.0 * cars,
            min_soc=0.0,
            efficiency=0.95,
            wear_eur_per_kwh=0.02,
        ),
        month_peak_w=1000.0 * cars,
        peak_eur_per_kw=4.5,
        import_limit_w=np.full(slots, 1000 * (building.max() + 0.9 * cars)),
        export_limit_w=np.full(slots, 1200.0 * cars),
        battery_end_soc=0.4,
        battery_end_eur_per_kwh=0.0,
    )


def next_step(problem: PlanProblem, seed: int = 1) -> PlanProblem:
    """The same day a slot later, as it is then seen: a slot less, forecasts a little different, what was charged in the
    slot no longer wanted, a car in a hundred gone, and one in a hundred that stays longer."""
    rng = np.random.default_rng([seed, len(problem.sessions)])

    def seen(series: np.ndarray) -> np.ndarray:
        return series[1:] * rng.normal(1.0, 0.02, series.shape[0] - 1)

    sessions = []
    for s in problem.sessions:
        first, last = max(s.first_slot - 1, 0), s.last_slot - 1
        luck = rng.random()
        if last <= first or luck < 0.01:
            continue
        if luck > 0.99:
            last = min(last + 4, problem.slots - 1)
        charged_wh = 0.5 * s.max_w * H if s.first_slot == 0 else 0.0
        most_wh = 0.95 * s.max_w * s.efficiency * (last - first) * H
        energy = min(max(s.energy_wh - s.efficiency * charged_wh, 100.0), most_wh)
        sessions.append(replace(s, first_slot=first, last_slot=last, energy_wh=energy))
    assert problem.import_limit_w is not None
    assert problem.export_limit_w is not None
    return replace(
        problem,
        start=problem.start + timedelta(hours=H),
        sessions=tuple(sessions),
        building_w=seen(problem.building_w),
        pv_w=seen(problem.pv_w),
        import_eur_per_kwh=problem.import_eur_per_kwh[1:],
        export_eur_per_kwh=problem.export_eur_per_kwh[1:],
        import_limit_w=problem.import_limit_w[1:],
        export_limit_w=problem.export_limit_w[1:],
    )


def _car(rng: np.random.Generator, number: int, most_kw: float, node: int, slots: int) -> PlanSession:
    depot = rng.random() < 0.3
    if depot:
        first = int(np.clip(rng.normal(46, 5), 34, 64))
        last = int(np.clip(rng.normal(91, 4), first + 12, slots))
        energy, classes = rng.normal(40, 13), (0.0, 0.6, 0.4)
    else:
        first = int(np.clip(rng.normal(10, 4), 0, 30))
        last = int(np.clip(first + rng.normal(31, 7), first + 4, slots))
        energy, classes = rng.lognormal(2.6, 0.6), (0.6, 0.3, 0.1)
    energy = float(np.clip(energy, 2.0, 0.9 * most_kw * 0.92 * (last - first) * H))
    priority = int(rng.choice(3, p=classes))
    return PlanSession(
        key=str(number),
        node=node,
        phases=(True, True, True),
        first_slot=first,
        last_slot=last,
        max_w=most_kw * 1000,
        min_w=0.0,
        energy_wh=energy * 1000,
        priority=priority,
        value_eur_per_kwh=GOAL_EUR_PER_KWH[priority],
        efficiency=0.92,
    )


def _tree(socket_kw: np.ndarray) -> tuple[Grid, np.ndarray]:
    """Circuits from the connection down to the stations, and the station of each socket."""
    levels: list[tuple[np.ndarray, np.ndarray]] = []  # limits of a level, and the parent of each circuit below it
    below = socket_kw
    for fan, share in zip(PER_LEVEL, DIVERSITY, strict=True):
        parent = np.arange(below.shape[0]) // fan
        limit = np.maximum(share * np.bincount(parent, weights=below), 3.7)
        levels.append((limit, parent))
        below = limit
    circuits = [Circuit("site", None, AMPLE_A)]
    index_above = np.zeros(1, dtype=int)
    parent_of = np.zeros(levels[-1][0].shape[0], dtype=int)
    for depth in range(len(levels) - 1, -1, -1):
        limit, _ = levels[depth]
        first = len(circuits)
        circuits += [
            Circuit(f"{depth}-{i}", int(index_above[parent_of[i]]), AMPLE_A, limit_w=1000 * float(kw))
            for i, kw in enumerate(limit)
        ]
        index_above = first + np.arange(limit.shape[0])
        parent_of = levels[depth][1]
    return Grid(tuple(circuits)), index_above[parent_of]


def _site(rng: np.random.Generator, cars: int, slots: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Building and PV in kW, buying and selling in EUR/kWh."""
    hour = (6 + np.arange(slots) * H) % 24
    building = (
        0.9
        * cars
        * np.clip(0.25 + 0.75 * np.exp(-(((hour - 13) / 4.2) ** 4)) + 0.04 * rng.standard_normal(slots), 0.1, None)
    )
    clouds = np.clip(0.8 + 0.05 * np.cumsum(rng.standard_normal(slots)), 0.25, 1)
    pv = 1.2 * cars * np.exp(-(((hour - 13.2) / 3) ** 2)) * clouds
    full_hour = np.floor(hour)
    market = 0.085 + 0.05 * np.exp(-(((full_hour - 8) / 1.6) ** 2)) + 0.09 * np.exp(-(((full_hour - 19) / 2) ** 2))
    market -= 0.09 * np.exp(-(((full_hour - 13) / 2.4) ** 2))
    market += np.repeat(0.012 * rng.standard_normal(-(-slots // 4)), 4)[:slots]
    return building, pv, market + 0.095, market - 0.012


@dataclass(frozen=True)
class Plain:
    """Arguments of `scipy.optimize.linprog`, and where the powers stand among its columns."""

    arguments: dict[str, Any]
    session: np.ndarray
    slot: np.ndarray
    charge: int


def plain_program(problem: PlanProblem) -> Plain:
    """The same day, written down plainly. Columns: cells | shortfalls | five per slot | peak."""
    n, t_count = len(problem.sessions), problem.slots
    first = np.array([s.first_slot for s in problem.sessions])
    length = np.array([s.last_slot for s in problem.sessions]) - first
    session = np.repeat(np.arange(n), length)
    slot = np.arange(length.sum()) - np.repeat(np.cumsum(length) - length, length) + first[session]
    most = np.array([s.max_w for s in problem.sessions])[session] / 1000
    wanted = np.array([s.energy_wh for s in problem.sessions]) / 1000
    efficiency = np.array([s.efficiency for s in problem.sessions])[session]
    net = (problem.building_w + problem.pv_w) / 1000
    battery = problem.battery
    assert battery is not None
    assert battery.soc is not None
    assert problem.import_limit_w is not None
    assert problem.export_limit_w is not None
    cells = session.shape[0]
    u, c = cells, cells + n
    d, e, buy, sell, peak = (c + k * t_count for k in range(1, 6))
    width = peak + 1
    cost, lower, upper = np.zeros(width), np.zeros(width), np.full(width, np.inf)
    cost[:cells] = problem.early_eur_per_kwh * slot * H
    cost[u:c] = [s.value_eur_per_kwh for s in problem.sessions]
    cost[c:e] = battery.wear_eur_per_kwh * H
    cost[buy:sell], cost[sell:peak] = problem.import_eur_per_kwh * H, -problem.export_eur_per_kwh * H
    cost[peak] = problem.peak_eur_per_kw
    upper[:cells], upper[u:c] = most, wanted
    upper[c:d], upper[d:e] = battery.max_charge_w / 1000, battery.max_discharge_w / 1000
    stored = battery.soc * battery.capacity_wh / 1000
    upper[e:buy] = battery.capacity_wh / 1000
    lower[buy - 1] = stored
    upper[buy:sell], upper[sell:peak] = problem.import_limit_w / 1000, problem.export_limit_w / 1000
    lower[peak] = problem.month_peak_w / 1000
    t, one = np.arange(t_count), np.ones(t_count)
    rows = [session, np.arange(n), n + slot, n + t, n + t, n + t, n + t]
    columns = [np.arange(cells), u + np.arange(n), np.arange(cells), c + t, d + t, buy + t, sell + t]
    values = [efficiency * H, np.ones(n), np.ones(cells), one, -one, -one, one]
    q = n + t_count + t
    rows += [q, q[1:], q, q]
    columns += [e + t, e + t[:-1], c + t, d + t]
    values += [one, -one[1:], -battery.efficiency * H * one, H / battery.efficiency * one]
    start = np.zeros(t_count)
    start[0] = stored
    equal = _sparse(values, rows, columns, (n + 2 * t_count, width))
    tree, room = _plain_tree(problem, session, slot, most, width)
    at_peak = _sparse([one, -one], [t, t], [buy + t, np.full(t_count, peak)], (t_count, width))
    arguments = {
        "c": cost,
        "A_eq": equal,
        "b_eq": np.concatenate([wanted, -net, start]),
        "A_ub": sp.vstack([at_peak, tree]).tocsr(),
        "b_ub": np.concatenate([np.zeros(t_count), room]),
        "bounds": np.column_stack([lower, upper]),
        "method": "highs",
    }
    return Plain(arguments, session, slot, c)


def _plain_tree(
    problem: PlanProblem, session: np.ndarray, slot: np.ndarray, most: np.ndarray, width: int
) -> tuple[sp.csr_matrix, np.ndarray]:
    """One row per circuit and slot in which the cars below could take more than it carries."""
    circuits = problem.grid.circuits
    parent = np.array([-1 if c.parent is None else c.parent for c in circuits])
    limit = np.array([np.inf if c.limit_w is None else c.limit_w / 1000 for c in circuits])
    node = np.array([s.node for s in problem.sessions])[session]
    matrices, rooms = [], []
    while (node > 0).any():
        unique, row = np.unique(node * problem.slots + slot, return_inverse=True)
        limits = limit[unique // problem.slots]
        keep = np.bincount(row, weights=most) > limits + 1e-9
        number = np.cumsum(keep) - 1
        inside = keep[row]
        matrices.append(
            _sparse([np.ones(inside.sum())], [number[row[inside]]], [np.flatnonzero(inside)], (int(keep.sum()), width))
        )
        rooms.append(limits[keep])
        node = parent[node]
    return sp.vstack(matrices).tocsr(), np.concatenate(rooms)


def _sparse(
    values: list[np.ndarray], rows: list[np.ndarray], columns: list[np.ndarray], shape: tuple[int, int]
) -> sp.csr_matrix:
    return sp.csr_matrix((np.concatenate(values), (np.concatenate(rows), np.concatenate(columns))), shape=shape)

"""Cars that may also give (vehicle to grid): what they have given and taken at any time stays within what is theirs.

Pure. A car that gives has columns of its own: *g*, the power it gives in a slot of its window, and *b*, what it has got
so far on balance. It never gives more than its driver lends (`PlanSession.lends_wh`) and at the end falls short of
its goal as any other car does. Such cars are planned one by one, in the whole program.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from smartcharging.engine.plan import rooms
from smartcharging.engine.plan.problem import PlanProblem, PlanSession, Series
from smartcharging.engine.plan.rooms import Integers
from smartcharging.engine.plan.rows import Rows, stack
from smartcharging.engine.snapshot import Mode

if TYPE_CHECKING:
    from smartcharging.engine.plan.program import Program


LEAST_WEAR_EUR_PER_KWH = 1e-6


def gives(session: PlanSession) -> bool:
    """May this car give? One in a hurry, or that waits for the sun, or that is not here, does not."""
    return session.discharge_w > 0 and session.lends_wh > 0 and session.mode is Mode.PLAN and not session.expected


def cars(sessions: Sequence[PlanSession]) -> list[int]:
    """The numbers of those that may give."""
    return [i for i, s in enumerate(sessions) if s.discharge_w > 0 and gives(s)]


def balance_wh(session: PlanSession, power_w: Series, hours: Series) -> Series:
    """What has reached the car by the end of each slot, less what it gave, both with their loss."""
    flow = np.where(power_w > 0, power_w * session.efficiency, power_w / session.efficiency)
    balance: Series = np.cumsum(flow * hours)
    return balance


def car_store(program: Program) -> Rows | None:
    """What a giving car has got on balance follows from what it takes and gives, each with its one-way loss."""
    cells = program.giving
    if not cells.size:
        return None
    each = np.arange(cells.shape[0])
    session, h = program.session[cells], program.hours[program.slot[cells]]
    efficiency = program.efficiency[session]
    later = np.flatnonzero(program.age[cells] > 0)
    row, column, value = stack(
        (each, program.at("b", each), 1.0),
        (later, program.at("b", later - 1), -1.0),
        (each, program.at("p", cells), -efficiency * h),
        (each, program.at("g", each), h / efficiency),
    )
    return Rows("car_store", row, column, value, np.zeros(cells.shape[0]), program.slot[cells], equal=True)


def may_flow_back(problem: PlanProblem) -> NDArray[np.bool_]:
    """In which slots battery and cars may feed a phase of the connection backwards beyond its fuse. Where all are
    balanced there is none: what leaves the connection (column y) has the limit of its weakest phase."""
    takers = (*problem.sessions, *problem.loads)
    battery = rooms.battery_weight(problem)[rooms.L1 :]
    given_kw = (problem.battery.max_discharge_w / 1000 if problem.battery else 0.0) * battery
    givers = [problem.sessions[i] for i in cars(problem.sessions)]
    weights = rooms.phase_weights([s.phases for s in givers], problem.grid.supply)[:, rooms.L1 :]
    given_kw = given_kw + np.array([s.discharge_w / 1000 for s in givers]) @ weights
    if not given_kw.any() or (bool((battery == 1).all()) and all(all(taker.phases) for taker in takers)):
        return np.zeros(problem.slots, dtype=bool)
    carried = rooms.limits_kw(problem)[0, rooms.L1 :] + rooms.least_with_sun_kw(problem)
    beyond = (given_kw[:, None] > carried) & (given_kw > 0)[:, None]
    return np.asarray(beyond.any(axis=0))


def flow_back(program: Program) -> Rows | None:
    """What cars and battery give together is carried by the fuses above them, less what is used there.

    A battery by itself is bounded in the circuits above it (`Program._discharge_room`), and what leaves the connection
    in all (column y); here it is its phases there. In a long slot the least that is used counts, also for what cars let
    leave the connection.
    """
    cells = program.giving
    if not cells.size and not program.back_slots.size:
        return None
    problem = program.problem
    least = rooms.least_kw(problem)
    parts = []
    rhs, slots, count = [], [], 0
    for n, circuit in enumerate(problem.grid.circuits):
        below = np.isin(program.node[program.session[cells]], _below(program, n))
        export = np.inf if circuit.export_limit_w is None or n == 0 else circuit.export_limit_w / 1000
        for kind in range(rooms.KINDS):
            weight = program.weight[program.session[cells], kind]
            mine = np.flatnonzero(below & (weight > 0))
            limit = np.minimum(program.rooms.limit[n, kind], export)
            used, inside = least[n], np.unique(program.slot[cells[mine]])
            if n == 0 and kind == rooms.WATTS:
                limit = rooms.export_limit_kw(problem)
                inside = inside if problem.least_w else inside[:0]  # else column y says it
            elif n == 0:
                used, inside = rooms.least_with_sun_kw(problem), program.back_slots
            inside = inside[np.isfinite(limit[inside])]
            if not inside.size:
                continue
            row_of = np.full(program.slots, -1)
            row_of[inside] = count + np.arange(inside.shape[0])
            mine = mine[row_of[program.slot[cells[mine]]] >= 0]
            parts.append((row_of[program.slot[cells[mine]]], program.at("g", mine), weight[mine]))
            taking = np.flatnonzero(np.isin(program.node[program.session], _below(program, n)))
            taking = taking[row_of[program.slot[taking]] >= 0]
            heavy = program.weight[program.session[taking], kind]
            parts.append((row_of[program.slot[taking]], program.at("p", taking), -heavy))
            stored = float(program.battery_weight[kind])
            if problem.battery is not None and program.on_battery_path[n] and stored > 0:
                parts.append((row_of[inside], program.at("d", inside), stored))
                parts.append((row_of[inside], program.at("c", inside), -stored))
            rhs.append(np.maximum(limit + used, 0.0)[inside])
            slots.append(inside)
            count += inside.shape[0]
    if not count:
        return None
    row, column, value = stack(*parts)
    return Rows("flow_back", row, column, value, np.concatenate(rhs), np.concatenate(slots))


def _below(program: Program, node: int) -> list[int]:
    grid = program.problem.grid
    return [n for n in range(len(grid)) if node in grid.path(n)]


def cells(program: Program) -> Integers:
    """The cells of cars that may give."""
    giving = cars(program.problem.sessions)
    return np.flatnonzero(np.isin(program.session, giving)) if giving else np.zeros(0, dtype=np.int64)


def last_cells(program: Program) -> tuple[Integers, Integers]:
    """Of each giving car its session, and its last column b."""
    session = program.session[program.giving]
    last = np.flatnonzero(np.append(session[1:] != session[:-1], True)) if session.size else np.zeros(0, dtype=np.int64)
    return session[last], program.at("b", last)


def relief_kw(program: Program) -> Series:
    """What cars below each circuit may give at most: axes circuit, kind."""
    relief = np.zeros((len(program.problem.grid), rooms.KINDS))
    for i in np.unique(program.session[program.giving]):
        s = program.problem.sessions[i]
        relief[list(program.problem.grid.path(s.node))] += s.discharge_w / 1000 * program.weight[i]
    return relief


def bounds(program: Program) -> dict[str, tuple[Series, Series]]:
    """Least and most of the columns g and b."""
    session = program.session[program.giving]
    sessions = program.problem.sessions
    most = np.array([s.discharge_w for s in sessions]) / 1000
    lent = np.array([s.lends_wh for s in sessions]) / 1000
    return {
        "g": (np.zeros(session.shape[0]), most[session]),
        "b": (-lent[session], program.wanted_kwh[session]),
    }


def wear(program: Program) -> Series:
    """What a kWh through a giving car's battery costs, by giving cell [EUR]."""
    each = np.array([max(s.wear_eur_per_kwh, LEAST_WEAR_EUR_PER_KWH) for s in program.problem.sessions])
    own: Series = each[program.session[program.giving]] * program.hours[program.slot[program.giving]]
    return own


def net_kw(program: Program, values: Series) -> Series:
    """The power of every cell, what it gives taken off: of both at once, their net with the same stored energy."""
    power = values[program.part("p")].copy()
    giving = program.giving
    if giving.size:
        efficiency = program.efficiency[program.session[giving]]
        stored = efficiency * power[giving] - values[program.part("g")] / efficiency
        power[giving] = np.where(stored > 0, stored / efficiency, stored * efficiency)
    return power

"""Cars that may also give (vehicle to grid): what they have given and taken at any time stays within what is theirs.

Pure. A car that gives has columns of its own: *g*, the power it gives in a slot of its window, and *b*, what it has got
so far on balance. It never gives more than its driver lends (`PlanSession.lends_wh`) and at the end falls short of
its goal as any other car does. Such cars are planned one by one, in the whole program.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from smartcharging.engine.plan import rooms, worth
from smartcharging.engine.plan.problem import PlanProblem, PlanSession, Series
from smartcharging.engine.plan.rooms import Integers
from smartcharging.engine.plan.rows import Rows, stack
from smartcharging.engine.snapshot import Mode

if TYPE_CHECKING:
    from smartcharging.engine.plan.program import Program


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
    """In which slots battery and cars may feed a phase of the connection backwards beyond its fuse."""
    given_kw = (problem.battery.max_discharge_w / 1000 if problem.battery else 0.0) * rooms.battery_weight(problem)
    givers = [problem.sessions[i] for i in cars(problem.sessions)]
    weights = rooms.phase_weights([s.phases for s in givers], problem.grid.supply)
    given_kw = (given_kw + np.array([s.discharge_w / 1000 for s in givers]) @ weights)[rooms.L1 :]
    carried = rooms.fuses_kw(problem)[0, rooms.L1 :, None] + rooms.least_with_sun_kw(problem)
    beyond = (given_kw[:, None] > carried) & (given_kw > 0)[:, None]
    return np.asarray(beyond.any(axis=0))


def back_room_kw(problem: PlanProblem) -> Series:
    """What battery and cars below each circuit may send back over its fuses, beside the least that is used there: axes
    circuit, kind, slot. Nothing limits the watts, and no car counts: it may stop at any moment."""
    least = rooms.least_kw(problem)
    least[0] = rooms.least_with_sun_kw(problem)
    room: Series = np.maximum(rooms.fuses_kw(problem)[:, :, None] + least[:, None], 0.0)
    return room


def flow_back(program: Program) -> Rows | None:
    """What cars and battery give together is carried by the fuses above them, and by the station's inlet.

    A battery by itself is bounded (`Program._discharge_room`).
    """
    cells = program.giving
    if not cells.size:
        return None
    slot, parts, rhs, when, count = program.slot[cells], [], list[Series](), list[Integers](), 0
    for mine_here, room, node in _fuses_above(program):
        for kind in range(rooms.L1, rooms.KINDS):
            weight = program.weight[program.session[cells], kind]
            mine = np.flatnonzero(mine_here & (weight > 0))
            inside = np.unique(slot[mine])
            inside = inside[np.isfinite(room[kind, inside])]
            row = _numbers(inside, program.slots, count)
            mine = mine[row[slot[mine]] >= 0]
            parts.append((row[slot[mine]], program.at("g", mine), weight[mine]))
            if node is not None:
                parts.append(_of_battery(program, node, kind, inside, row, ("d", 1.0)))
            rhs.append(room[kind, inside])
            when.append(inside)
            count += inside.shape[0]
    return Rows("flow_back", *stack(*parts), np.concatenate(rhs), np.concatenate(when)) if count else None


def _fuses_above(program: Program) -> Iterator[tuple[NDArray[np.bool_], Series, int | None]]:
    """Circuits, and inlets that EVSEs share: which cells of cars that give are below, and the room backwards."""
    session = program.session[program.giving]
    for n, room in enumerate(back_room_kw(program.problem)):
        yield np.isin(program.node[session], _below(program, n)), room, n
    for station, most_kw in enumerate(program.stations.most_kw):
        yield program.stations.of_session[session] == station, np.full(room.shape, most_kw), None


def export_slots(program: Program) -> dict[int, Integers]:
    """By circuit, the slots in which battery and cars below it could export there more than its contract allows.

    What leaves the connection is column y; but in a problem with long slots it is the mean of theirs, and what cars let
    leave there is counted by the least that is used.
    """
    problem = program.problem
    least, found = rooms.least_kw(problem), dict[int, Integers]()
    for n, circuit in enumerate(problem.grid.circuits):
        if n == 0:
            slots = np.unique(program.slot[program.giving]) if problem.least_w else program.t[:0]
        elif circuit.export_limit_w is not None:
            mine = np.isin(program.node[program.session[program.giving]], _below(program, n))
            given = np.bincount(program.slot[program.giving], _given_kw(program) * mine, minlength=program.slots)
            given = given + program.discharge_kw * program.on_battery_path[n]
            slots = np.flatnonzero((given > 0) & (given > circuit.export_limit_w / 1000 + least[n]))
        else:
            continue
        if slots.size:
            found[n] = slots
    return found


def export_limits(program: Program) -> Rows | None:
    """What a circuit exports is within its contract: there cars and loads count while they charge. A load counts
    where no slot is long: what is on in a long one takes less in some of its quarters."""
    if not program.export_slots:
        return None
    problem, slots = program.problem, program.slots
    least, contract = rooms.least_kw(problem), rooms.export_limit_kw(problem)
    each = np.arange(program.giving.shape[0])
    parts, rhs, when, count = [], list[Series](), list[Integers](), 0
    for n, inside in program.export_slots.items():
        below = _below(program, n)
        row = _numbers(inside, slots, count)
        taking = np.flatnonzero(np.isin(program.node[program.session], below) & (row[program.slot] >= 0))
        given = each[np.isin(program.giving, taking)]
        parts.append((row[program.slot[taking]], program.at("p", taking), -1.0))
        parts.append((row[program.slot[program.giving[given]]], program.at("g", given), 1.0))
        parts.append(_of_battery(program, n, rooms.WATTS, inside, row, ("d", 1.0)))
        parts.append(_of_battery(program, n, rooms.WATTS, inside, row, ("c", -1.0)))
        if not problem.least_w:
            loads = np.flatnonzero(np.isin(program.loads.node, below))
            column = (loads[:, None] * slots + inside).ravel()
            parts.append((np.tile(row[inside], loads.shape[0]), program.at("q", column), -1.0))
        limit = contract[inside] if n == 0 else (problem.grid.circuits[n].export_limit_w or 0.0) / 1000
        rhs.append(np.maximum(limit + least[n, inside], 0.0))
        when.append(inside)
        count += inside.shape[0]
    return Rows("export_limit", *stack(*parts), np.concatenate(rhs), np.concatenate(when))


def _given_kw(program: Program) -> Series:
    """What each cell of a car that may give could give."""
    most = np.array([s.discharge_w for s in program.problem.sessions]) / 1000
    return np.asarray(most[program.session[program.giving]])


def _numbers(slots: Integers, count: int, first: int) -> Integers:
    """By slot the number of its row, of rows that follow `first` others; -1 where it has none."""
    number = np.full(count, -1, dtype=np.int64)
    number[slots] = first + np.arange(slots.shape[0])
    return number


def _of_battery(
    program: Program, node: int, kind: int, slots: Integers, row: Integers, column: tuple[str, float]
) -> tuple[Integers, Integers, float]:
    """The battery's part in rows of a circuit, where it is below it and loads this kind."""
    name, sign = column
    weight = float(program.battery_weight[kind])
    here = slots if program.problem.battery is not None and program.on_battery_path[node] and weight > 0 else slots[:0]
    return row[here], program.at(name, here), sign * weight


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
    each = np.array([max(s.wear_eur_per_kwh, worth.LEAST_EUR_PER_KWH) for s in program.problem.sessions])
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

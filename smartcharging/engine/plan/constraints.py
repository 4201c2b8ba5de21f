"""What must hold in a plan: each constraint is one function that returns its rows.

Pure. None loops over sessions × slots. The columns and their names are told of in `program.py`; constraints of cars
that give are in `giving.py`, those of loads in `engine/loads/rows.py`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from smartcharging.engine.loads import rows as load_rows
from smartcharging.engine.plan import giving, rooms
from smartcharging.engine.plan.problem import Series
from smartcharging.engine.plan.rooms import KINDS, L1, WATTS, Integers
from smartcharging.engine.plan.rows import Rows, stack

if TYPE_CHECKING:
    from smartcharging.engine.plan.program import Program

TOLERANCE_KW = 1e-7


def all_rows(program: Program) -> tuple[Rows, ...]:
    """Every constraint that has rows; equalities stand first."""
    found = (
        energy_goals(program),
        power_balance(program),
        battery_store(program),
        giving.car_store(program),
        load_rows.block_runs(program),
        load_rows.block_power(program),
        load_rows.store_warmth(program),
        load_rows.on_or_off(program),
        import_limit(program),
        *(peak_charge(program, number) for number in range(len(program.peaks))),
        circuit_limits(program),
        trusted_sun(program),
        station_groups(program),
        surplus_only(program),
        giving.flow_back(program),
        giving.export_limits(program),
        load_rows.comfort_band(program),
        load_rows.switch_rules(program),
    )
    return tuple(rows for rows in found if rows is not None and rows.count)


def energy_goals(program: Program) -> Rows:
    """What a session gets and what it falls short of together are what it wants."""
    cells = np.delete(np.arange(program.session.shape[0]), program.giving)
    session = program.session[cells]
    each = np.arange(program.count)
    lending, balance = giving.last_cells(program)  # of a car that gives, what it has on balance when it leaves
    row, column, value = stack(
        (session, program.at("p", cells), program.efficiency[session] * program.hours[program.slot[cells]]),
        (lending, balance, 1.0),
        (each, program.at("u", each), 1.0),
    )
    return Rows("goal", row, column, value, program.wanted_kwh, np.zeros(program.count, dtype=np.int64), equal=True)


def power_balance(program: Program) -> Rows:
    """Cars, battery, loads, building, PV and the connection add up to nothing in every slot."""
    t = program.t
    every_load = np.arange(program.width_of("q"))
    parts = [
        (program.slot, program.at("p", np.arange(program.slot.shape[0])), 1.0),
        (program.curtail_slots, program.at("w", np.arange(program.curtail_slots.shape[0])), 1.0),
        (t, program.at("x", t), -1.0),
        (t, program.at("y", t), 1.0),
        (every_load % program.slots, program.at("q", every_load), 1.0),
        (program.slot[program.giving], program.at("g", np.arange(program.giving.shape[0])), -1.0),
    ]
    if program.problem.battery is not None:
        parts += [(t, program.at("c", t), 1.0), (t, program.at("d", t), -1.0)]
    row, column, value = stack(*parts)
    return Rows("balance", row, column, value, -program.background, t, equal=True)


def battery_store(program: Program) -> Rows | None:
    """Stored energy follows from charge and discharge, each with its one-way loss."""
    battery = program.problem.battery
    if battery is None:
        return None
    assert battery.soc is not None
    t, h, efficiency = program.t, program.hours, battery.efficiency
    row, column, value = stack(
        (t, program.at("e", t), 1.0),
        (t[1:], program.at("e", t[:-1]), -1.0),
        (t, program.at("c", t), -efficiency * h),
        (t, program.at("d", t), h / efficiency),
    )
    start = np.zeros(program.slots)
    start[:1] = battery.soc * battery.capacity_wh / 1000
    return Rows("store", row, column, value, start, t, equal=True)


def import_limit(program: Program) -> Rows | None:
    """Where the building alone is above the limit, whatever stays above it is counted (and dearly priced)."""
    over = program.over_slots
    if not over.size:
        return None
    each = np.arange(over.shape[0])
    row, column, value = stack((each, program.at("x", over), 1.0), (each, program.at("o", each), -1.0))
    names, name_of = program.import_names
    return Rows("import_limit", row, column, value, program.import_room_kw[over], over, names, name_of[over])


def peak_charge(program: Program, number: int) -> Rows:
    """What is paid for already is free (the month's highest quarter hour so far, the access power); only what lies
    above it costs."""
    charge, slots = program.peaks[number]
    each = np.arange(slots.shape[0])
    row, column, value = stack((each, program.at("x", slots), 1.0), (each, program.offset["P"] + number, -1.0))
    return Rows(charge.name, row, column, value, np.full(slots.shape[0], charge.free_w / 1000), slots, soft=True)


def circuit_limits(program: Program) -> Rows | None:
    """No circuit carries more than its watts and its amps on any phase: rows only where they can bind."""
    needed = program.needed
    if not needed.any():
        return None
    node, kind, slot = np.nonzero(needed)
    # A row that the building alone overloads: cars, loads and battery may not add to it.
    rhs = np.maximum(program.room[node, kind, slot], 0.0)
    row, column, value = _through(program, needed)
    if (node == 0).any() and program.curtail_slots.size:
        row, column, value = _with_curtailment(program, node, slot, (row, column, value))
    said = np.where(program.uneven[node], kind, program.tightest(node, slot))
    names = tuple(f"limit:{c.name}{suffix}" for c in program.problem.grid.circuits for suffix in rooms.KIND_NAMES)
    return Rows("limit", row, column, value, rhs, slot, names, node * KINDS + said)


def trusted_sun(program: Program) -> Rows | None:
    """The fuses of the connection lean on no more sun than is trusted, however much of it runs.

    Rows where they leave less than with all of it, and some may be held back; elsewhere one limit says both.
    """
    if not program.dark_needed.any():
        return None
    needed = np.zeros_like(program.needed)
    needed[0] = program.dark_needed
    _, kind, slot = np.nonzero(needed)
    triplets = _through(program, needed)
    rhs = program.dark_room[kind, slot]
    rhs = np.where(kind == WATTS, rhs, np.maximum(rhs, 0.0))
    place = np.full(program.slots, -1, dtype=np.int64)
    place[program.over_slots] = np.arange(program.over_slots.shape[0])
    over = np.flatnonzero((kind == WATTS) & (place[slot] >= 0))
    row, column, value = stack(triplets, (over, program.at("o", place[slot[over]]), -1.0))
    said = np.where(kind == WATTS, L1 + program.rooms.dark[:, slot].argmin(axis=0), kind)
    root = program.problem.grid.circuits[0].name
    return Rows("limit", row, column, value, rhs, slot, tuple(f"limit:{root}{x}" for x in rooms.KIND_NAMES), said)


def _through(program: Program, needed: NDArray[np.bool_]) -> tuple[Integers, Integers, Series]:
    """What cars, loads and battery together take of each circuit, kind and slot of a mask, row by row."""
    node, kind, slot = np.nonzero(needed)
    number = np.full(needed.shape, -1, dtype=np.int64)
    number[node, kind, slot] = np.arange(node.shape[0])
    parts: list[tuple[Integers, Integers, Series | float]] = []
    active_kinds = np.flatnonzero(needed.any(axis=(0, 2)))
    for level in rooms.ancestors(program.problem.grid):
        above = level[program.node[program.session]]
        for k in active_kinds:
            found = np.where(above >= 0, number[above, k, program.slot], -1)
            weight = program.weight[program.session, k]
            cells = np.flatnonzero((found >= 0) & (weight > 0))
            parts.append((found[cells], program.at("p", cells), weight[cells]))
            back = np.flatnonzero((found[program.giving] >= 0) & (weight[program.giving] > 0))
            from_car = program.giving[back]
            parts.append((found[from_car], program.at("g", back), -weight[from_car]))
            parts.append(load_rows.through_circuits(program, level, int(k), number))
    relieved = program.on_battery_path[node]
    if program.problem.battery is not None and relieved.any():
        rows = np.flatnonzero(relieved)
        rows = rows[program.battery_weight[kind[rows]] > 0]
        weight = program.battery_weight[kind[rows]]
        parts += [(rows, program.at("c", slot[rows]), weight), (rows, program.at("d", slot[rows]), -weight)]
    return stack(*parts)


def _with_curtailment(
    program: Program, node: Integers, slot: Integers, triplets: tuple[Integers, Integers, Series]
) -> tuple[Integers, Integers, Series]:
    """PV that is switched off no longer carries the cars: it counts as load on the connection's phases."""
    place = np.full(program.slots, -1, dtype=np.int64)
    place[program.curtail_slots] = np.arange(program.curtail_slots.shape[0])
    rows = np.flatnonzero((node == 0) & (place[slot] >= 0))
    return stack(triplets, (rows, program.at("w", place[slot[rows]]), 1.0))


def station_groups(program: Program) -> Rows | None:
    """The EVSEs of one station share what its inlet takes, on each phase."""
    stations, slots = program.stations, program.slots
    station = stations.of_session[program.session]
    cells = np.flatnonzero(station >= 0)
    if not cells.size:
        return None
    key, count = station[cells] * slots + program.slot[cells], stations.most_kw.shape[0] * slots
    could = stations.carried_kw(key, program.session[cells], program.cell_max_kw[cells], count)
    tight = could > np.repeat(stations.most_kw, slots) + TOLERANCE_KW
    tight[rooms.WATTS] = False  # amps have no limit in watts
    tight[rooms.L1 + 1 :, np.repeat(stations.even, slots)] = False  # there one phase speaks for all
    kind, place = np.nonzero(tight)
    number = np.full(tight.shape, -1, dtype=np.int64)
    number[kind, place] = np.arange(place.shape[0])
    gives = np.isin(program.giving, cells)
    parts = []
    for k in np.unique(kind).tolist():
        weight = program.weight[program.session, k]
        kept = (number[k, key] >= 0) & (weight[cells] > 0)
        parts.append((number[k, key[kept]], program.at("p", cells[kept]), weight[cells[kept]]))
        given = np.flatnonzero(gives)
        from_car = program.giving[given]
        row = number[k, station[from_car] * slots + program.slot[from_car]]
        given, from_car, row = (x[(row >= 0) & (weight[from_car] > 0)] for x in (given, from_car, row))
        parts.append((row, program.at("g", given), -weight[from_car]))
    if not parts:
        return None
    row, column, value = stack(*parts)
    return Rows("group", row, column, value, stations.most_kw[place // slots], place % slots)


def surplus_only(program: Program) -> Rows | None:
    """Surplus cars together take at most what PV leaves after the building."""
    cells = np.flatnonzero(program.surplus[program.session])
    if not cells.size:
        return None
    row, column, value = stack((program.slot[cells], program.at("p", cells), 1.0))
    return Rows("surplus", row, column, value, np.maximum(-program.background, 0), program.t)

"""What a way of planning came to, before it is judged: the powers, how good they are, and why cars fall short.

Pure. All in kW.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np
from numpy.typing import NDArray

from smartcharging.engine.plan.problem import PlanProblem, Series
from smartcharging.engine.plan.program import Program
from smartcharging.engine.plan.rooms import Integers
from smartcharging.engine.plan.solver import Solution
from smartcharging.engine.snapshot import Mode

SHORT_WH = 5.0  # what is missing less than this is not missing
BOTH_KW = 1e-4
PRICE_OF_NOTHING = 1e-6

Mask = NDArray[np.bool_]
Found = tuple[Integers, Integers, Integers, Series]
"""What holds cells back: session, name, slot, and how much each weighs."""


@dataclass(frozen=True)
class Answer:
    """What a way of planning came to, in kW, before it is judged and explained."""

    status: str
    session_kw: Series  # a row of slots for each session
    battery_kw: Series
    gap: float | None
    curtailed_kw: Series | None = None
    reasons: tuple[str, ...] = ()
    binding: tuple[str, ...] = ()
    load_kw: tuple[Series, ...] = ()
    notes: tuple[str, ...] = ()


def spread(program: Program, cells: Series) -> Series:
    """Cells as one row of slots per session."""
    dense = np.zeros((program.count, program.slots))
    dense[program.session, program.slot] = cells
    return dense


# Why


def what_binds(program: Program, solution: Solution) -> tuple[str, ...]:
    """Names of the constraints where more room would change the plan."""
    names: dict[str, None] = {}
    above = 0
    for rows in program.constraints:
        if not rows.equal:
            active = np.flatnonzero(np.abs(solution.row_price[above : above + rows.count]) > PRICE_OF_NOTHING)
            if rows.label_of is not None:
                names.update(dict.fromkeys(rows.label[k] for k in np.unique(rows.label_of[active])))
            elif active.size:
                names[rows.name] = None
        above += rows.count
    called, called_in = program.import_names
    full = np.abs(solution.upper_price[program.part("x")]) > PRICE_OF_NOTHING
    names.update(dict.fromkeys(called[k] for k in np.unique(called_in[full])))
    if (np.abs(solution.upper_price[program.part("y")]) > PRICE_OF_NOTHING).any():
        names["export_limit"] = None
    return tuple(names)


def why_short(program: Program, solution: Solution) -> list[str]:
    """For each session the cause of its shortfall; empty where it has none."""
    short = solution.values[program.part("u")]
    return causes(program, short, *_holding_back(program, solution, short * 1000 > SHORT_WH))


def causes(program: Program, short_kwh: Series, names: list[str], found: Found) -> list[str]:
    """For each session the cause of its shortfall, of the limits that hold its cells back; empty where it has none."""
    reasons = [""] * program.count
    missing = np.flatnonzero(short_kwh * 1000 > SHORT_WH)
    if not missing.size:
        return reasons
    most_kwh = program.cell_max_kw * program.hours[program.slot]
    capacity = np.bincount(program.session, most_kwh, minlength=program.count)
    by_time = np.maximum(program.wanted_kwh - capacity * program.efficiency, 0.0)
    heaviest = _heaviest(program, names, found)
    for i in missing:
        session = program.problem.sessions[i]
        if session.max_w <= 0:
            reasons[i] = "power"
        elif short_kwh[i] - by_time[i] <= max(SHORT_WH / 1000, 0.01 * short_kwh[i]):
            reasons[i] = "time"
        elif session.mode is Mode.SURPLUS:
            reasons[i] = "surplus"
        else:
            reasons[i] = heaviest.get(int(i), "value")
    return reasons


def _heaviest(program: Program, names: list[str], found: Found) -> dict[int, str]:
    """Of each session the limit that weighs most, with the interval from the first slot to the last."""
    session, name, slot, weight = found
    if not session.size:
        return {}
    pair, where = np.unique(session * len(names) + name, return_inverse=True)
    total = np.bincount(where, weight)
    first = np.full(pair.shape, program.slots, dtype=np.int64)
    np.minimum.at(first, where, slot)
    last = np.zeros(pair.shape, dtype=np.int64)
    np.maximum.at(last, where, slot)
    most: dict[int, str] = {}
    for k in np.lexsort((-pair, total)):  # the heaviest is written last
        said = names[int(pair[k]) % len(names)]
        most[int(pair[k]) // len(names)] = f"{said}@{interval(program.problem, int(first[k]), int(last[k]) + 1)}"
    return most


def _holding_back(program: Program, solution: Solution, missing: Mask) -> tuple[list[str], Found]:
    """What keeps the cells of the missing sessions below their maximum: names of limits, and where with what price."""
    cell_kw = solution.values[program.part("p")]
    held = missing[program.session] & (cell_kw < program.cell_max_kw - BOTH_KW)
    called, called_in = program.import_names
    names = list(called)
    price = import_price(program, solution)
    cells = np.flatnonzero(held & (price[program.slot] > PRICE_OF_NOTHING))
    found = [(program.session[cells], called_in[program.slot[cells]], program.slot[cells], price[program.slot[cells]])]
    above = 0
    for rows in program.constraints:
        prices = np.abs(solution.row_price[above : above + rows.count])
        above += rows.count
        if rows.equal or rows.soft:
            continue
        start = len(names)
        names.extend(rows.label or (rows.name,))
        label = np.zeros(rows.count, dtype=np.int64) if rows.label_of is None else rows.label_of
        # A row in which what a car takes is a relief (of what flows back) does not hold it back.
        touching = (rows.column < program.width_of("p")) & (rows.value > 0) & (prices[rows.row] > PRICE_OF_NOTHING)
        row, column = rows.row[touching], rows.column[touching]
        kept = held[column]
        row, column = row[kept], column[kept]
        found.append((program.session[column], start + label[row], program.slot[column], prices[row]))
    session, name, slot, weight = (np.concatenate(part) for part in zip(*found, strict=True))
    return names, (session, name, slot, weight)


def import_price(program: Program, solution: Solution) -> Series:
    """What a kW more of import would be worth in each slot: of the most there may be, and where the building alone is
    above the limit, of that limit."""
    price = np.abs(solution.upper_price[program.part("x")])
    limited = program.rows_of("import_limit")
    price[program.over_slots] += np.abs(solution.row_price[limited])
    return price


def interval(problem: PlanProblem, first: int, last: int) -> str:
    """Slots [first, last) as an ISO 8601 interval in UTC."""

    def at(slot: int) -> str:
        moment: datetime = problem.start + timedelta(seconds=round(3600 * float(problem.hours[:slot].sum())))
        return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%MZ")

    return f"{at(first)}/{at(last)}"

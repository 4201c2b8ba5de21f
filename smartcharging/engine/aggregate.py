"""The plan of a large site: all cars as one power per slot, and a flow that shares it out.

Pure. Money sees the cars only through their power together in each slot. So the plan is made by two that take turns:

1. a small linear program chooses that power, the battery, the grid and how much each priority class falls short.
   It knows of the cars only what it has been told, so its optimum is a lower bound of the whole plan's;
2. a maximum flow (`network.py`) serves the cars from that power, the most valuable class first: a more valuable class
   never loses by it, and because what can be served is a polymatroid this greedy is optimal (Federgruen and Groenevelt
   1986). The flow is a plan: with the battery set anew around it, an upper bound;
3. where a class and those above it fall further short than the program hoped, a minimum cut gives an inequality that
   the program did not know, and it is asked again.

It ends when the bounds meet within the gap that was asked; the last flow is the plan, certified. It needs circuits
whose cars are balanced over the phases, and one charging efficiency; `applies` says so, and the program of
`program.py` is exact for everything else.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import scipy.sparse as sp

from smartcharging.engine import worth
from smartcharging.engine.answer import BOTH_KW, PRICE_OF_NOTHING, SHORT_WH, Answer, Found, causes, what_binds
from smartcharging.engine.exact import STAGE_SHARE, answer_of, gap_between, one_way
from smartcharging.engine.network import Cut, Flow, Mask, Network, Served
from smartcharging.engine.problem import PlanProblem, PlanSession, Series
from smartcharging.engine.program import LinearProgram, Program
from smartcharging.engine.rooms import KIND_NAMES, KINDS, Integers, ancestors
from smartcharging.engine.snapshot import Mode
from smartcharging.engine.solver import NoSolution, Solution
from smartcharging.engine.warm import GrowingProgram

MOST_ROUNDS = 60
MOST_CLASSES = 16
INWARD = 0.5
"""How far towards the best plan so far every other question is moved: cuts found there are deeper (Ben-Ameur and Neto
2007, in-out separation), and the flows there are better plans."""
SAME_EFFICIENCY = 1e-9
VIOLATED_KWH = 1e-6


@dataclass(frozen=True)
class Aggregate:
    """What came out: the best plan found and the bounds around the optimum [EUR]."""

    served: Served
    flow: Flow
    site: Program
    linear: LinearProgram  # the small program with the cars' power fixed as the plan has it
    solution: Solution  # of that
    lower_eur: float
    upper_eur: float
    rounds: int


def applies(program: Program) -> bool:
    """May this problem be planned this way?"""
    problem = program.problem
    below = program.needed[1:].any(axis=(1, 2))
    values = np.unique(worth.goal_values(problem))
    groups: dict[int, int] = {}
    return (
        program.count > 0
        and problem.slot_hours is None
        and not program.surplus.any()
        and not program.fast.any()
        and float(np.ptp(program.efficiency)) <= SAME_EFFICIENCY
        and values.shape[0] <= MOST_CLASSES
        and not program.uneven[1:][below].any()
        and not program.needed[0].any()
        and not program.on_battery_path[1:][below].any()
        and all(groups.setdefault(s.group, s.node) == s.node for s in problem.sessions if s.group is not None)
    )


def answer(program: Program, relative_gap: float, left: Callable[[], float]) -> Answer:
    """The plan of a large site, with its certified gap. Raises `NoSolution` where `solve` does."""
    found = solve(program, relative_gap, left)
    values, reached, _ = one_way(found.site, found.linear, found.solution, STAGE_SHARE * left())
    gap = gap_between(reached, found.lower_eur)
    names, where = _held_back(program, found)
    short_kwh = np.maximum(program.wanted_kwh - program.efficiency * program.even_h * found.served.met, 0.0)
    reasons = causes(program, short_kwh, names, where)
    binding = tuple(dict.fromkeys((*what_binds(found.site, found.solution), *_full_circuits(program, found))))
    return answer_of(program, found.site, found.served.cell_kw, values, gap, reasons, binding)


def _circuit_names(program: Program) -> tuple[tuple[str, ...], Integers]:
    """Names of limits as the program has them, and for each circuit and slot of the flow which of them it is."""
    names = tuple(f"limit:{c.name}{suffix}" for c in program.problem.grid.circuits for suffix in KIND_NAMES)
    return names, np.arange(len(program.problem.grid))[:, None] * KINDS + program.tightest


def _full_circuits(program: Program, found: Aggregate) -> list[str]:
    """Circuits that let nothing more through and before which cars still wait."""
    network = found.flow.network
    names, name_of = _circuit_names(program)
    before = found.flow.waiting()
    which = name_of[network.circuit[before], network.circuit_slot[before]]
    return [names[int(k)] for k in np.unique(which)]


def _held_back(program: Program, found: Aggregate) -> tuple[list[str], Found]:
    """What keeps the cars that fall short from more: a full circuit above them, else the import limit."""
    network, served = found.flow.network, found.served
    names, name_of = _circuit_names(program)
    called, called_in = found.site.import_names
    short = network.need - served.met > SHORT_WH / 1000 / program.even_h
    held = np.flatnonzero(short[program.session] & (served.cell_kw < program.cell_max_kw - BOTH_KW))
    full = np.full(program.needed.shape[::2], False)
    shut, crowded = found.flow.shut()
    full[network.circuit[shut], network.circuit_slot[shut]] = True
    parts: list[tuple[Integers, Integers]] = []
    for level in ancestors(program.problem.grid):
        above = level[program.node[program.session[held]]]
        here = (above >= 0) & full[above, program.slot[held]]
        parts.append((held[here], name_of[above[here], program.slot[held[here]]]))
    price = np.abs(found.solution.upper_price[found.site.part("x")])
    dear = held[price[program.slot[held]] > PRICE_OF_NOTHING]
    parts.append((dear, len(names) + called_in[program.slot[dear]]))
    station = network.groups_of(held)
    packed = held[(station >= 0) & np.append(crowded, False)[station]]
    parts.append((packed, np.full(packed.shape[0], len(names) + len(called))))
    cells = np.concatenate([c for c, _ in parts])
    name = np.concatenate([n for _, n in parts])
    all_names = [*names, *called, "group"]
    return all_names, (program.session[cells], name, program.slot[cells], np.ones(cells.shape[0]))


class _Classes:
    """Cars of equal worth in an independent stretch of time: the program knows each by its shortfall alone."""

    def __init__(self, program: Program) -> None:
        values = worth.goal_values(program.problem)
        self.value, rank = np.unique(-values, return_inverse=True)
        self.value = -self.value  # dearest first
        stretch = _stretches(program)
        self.stretches = int(stretch.max(initial=0)) + 1
        self.rank, self.stretch = rank, stretch
        self.column = rank * self.stretches + stretch
        self.count = self.value.shape[0] * self.stretches
        self.of_slot = np.full(program.slots, -1, dtype=np.int64)  # the stretch of each slot; -1: no car then
        self.of_slot[program.slot] = stretch[program.session]
        self.wanted_kwh = np.bincount(self.column, program.wanted_kwh, minlength=self.count)

    def up_to(self, rank: int) -> Mask:
        up: Mask = self.rank <= rank
        return up

    def columns_up_to(self, rank: int, stretch: int) -> Integers:
        return np.arange(rank + 1) * self.stretches + stretch


def _stretches(program: Program) -> Integers:
    """Number the stretches of time that no car's window leaves: cars of different stretches never meet."""
    sessions = program.problem.sessions
    covered = np.zeros(program.slots + 1, dtype=np.int64)
    for s in sessions:
        if s.last_slot - s.first_slot > 1:  # the border inside a window is crossed
            covered[s.first_slot + 1] += 1
            covered[s.last_slot] -= 1
    starts = np.cumsum(covered)[: program.slots] == 0
    number = np.cumsum(starts) - 1
    first = np.array([min(s.first_slot, program.slots - 1) for s in sessions], dtype=np.int64)
    _, compact = np.unique(number[first], return_inverse=True)
    return compact.astype(np.int64)


def solve(program: Program, relative_gap: float, time_left: Callable[[], float] | None = None) -> Aggregate:
    """Plan until the bounds are within `relative_gap` of each other. Raises `NoSolution` when they do not meet."""
    left = time_left or (lambda: program.problem.time_limit_s)
    classes = _Classes(program)
    network = Network(program)
    site = Program(_as_one(program))
    linear, first_class = _small_program(program, site, classes)
    small = GrowingProgram(linear)
    small.add(*_rows(_envelopes(program, classes), program, classes, first_class))
    best: Aggregate | None = None
    lower = -np.inf
    columns = np.concatenate([site.at("p", site.t), np.arange(first_class, first_class + classes.count)])
    for rounds in range(1, MOST_ROUNDS + 1):
        hoped = small.minimise(left())
        lower = max(lower, hoped.objective)
        asked = hoped.values[columns]
        inward = best is not None and rounds % 2 == 0
        if inward and best is not None:
            asked = (1 - INWARD) * asked + INWARD * best.solution.values[columns]
        flow, news = _serve(network, classes, asked[: program.slots], asked[program.slots :])
        plan = _around(program, small, linear, site, classes, flow, columns, left)
        if plan is not None and (best is None or plan.upper_eur < best.upper_eur):
            best = plan
        if best is not None and best.upper_eur - lower <= relative_gap * max(abs(best.upper_eur), 1e-9):
            return replace(best, lower_eur=lower, rounds=rounds)
        if left() <= 0 or (not news and not inward):
            break
        if news:
            small.add(*_rows(news, program, classes, first_class))
    raise NoSolution(f"the bounds did not meet: {lower:.4f} and {best.upper_eur if best else np.inf:.4f} EUR")


def _as_one(program: Program) -> PlanProblem:
    """The same site with one car that may take in each slot what all may take together."""
    problem = program.problem
    everyone = PlanSession(
        key="all",
        node=0,
        phases=(True, True, True),
        first_slot=0,
        last_slot=problem.slots,
        max_w=1000 * float(program.could_kw.max(initial=0.0)),
        min_w=0.0,
        energy_wh=1000 * float(program.wanted_kwh.sum()),
        mode=Mode.PLAN,
        efficiency=float(program.efficiency[0]),
        value_eur_per_kwh=0.0,
    )
    return replace(problem, sessions=(everyone,))


def _small_program(program: Program, site: Program, classes: _Classes) -> tuple[LinearProgram, int]:
    """The site's program with a column of shortfall per class and stretch behind its own, and where those begin."""
    linear = site.build(site.money)
    width = site.width
    linear.upper[site.part("p")] = program.could_kw
    cost = np.concatenate([linear.cost, np.repeat(classes.value, classes.stretches)])
    lower = np.concatenate([linear.lower, np.zeros(classes.count)])
    upper = np.concatenate([linear.upper, classes.wanted_kwh])
    # What a stretch gets and falls short of together is what its cars want.
    gives = float(program.efficiency[0]) * program.even_h
    inside = np.flatnonzero(classes.of_slot >= 0)
    ranks = np.arange(classes.count)
    row = np.concatenate([classes.of_slot[inside], ranks % classes.stretches])
    column = np.concatenate([site.at("p", inside), width + ranks])
    value = np.concatenate([np.full(inside.shape[0], gives), np.ones(classes.count)])
    all_in_all = sp.csr_matrix((value, (row, column)), shape=(classes.stretches, width + classes.count))
    own = sp.hstack([linear.matrix, sp.csr_matrix((linear.matrix.shape[0], classes.count))]).tocsr()
    rhs_all = np.bincount(np.arange(classes.count) % classes.stretches, classes.wanted_kwh)
    # Equalities stand first; the new ones after the site's own.
    split = linear.equalities
    matrix = sp.vstack([own[:split], all_in_all, own[split:]]).tocsr()
    rhs = np.concatenate([linear.rhs[:split], rhs_all, linear.rhs[split:]])
    return LinearProgram(cost, matrix, rhs, split + classes.stretches, lower, upper), width


@dataclass(frozen=True)
class _Row:
    """In `slots` the site gives at least what these classes of a stretch want, less what they fall short of."""

    rank: int
    stretch: int
    slots: Mask
    least_kwh: float


def _envelopes(program: Program, classes: _Classes) -> list[_Row]:
    """What is plain from the windows: who leaves by a slot is served by then, who comes after a slot is served then."""
    sessions = program.problem.sessions
    first = np.array([s.first_slot for s in sessions])
    last = np.array([s.last_slot for s in sessions])
    t = np.arange(program.slots)
    rows = []
    for stretch in range(classes.stretches):
        here = classes.stretch == stretch
        for rank in range(classes.value.shape[0]):
            mine = here & classes.up_to(rank)
            if not mine.any():
                continue
            for end in np.unique(last[mine]):
                rows.append(_Row(rank, stretch, t < end, float(program.wanted_kwh[mine & (last <= end)].sum())))
            for begin in np.unique(first[mine]):
                rows.append(_Row(rank, stretch, t >= begin, float(program.wanted_kwh[mine & (first >= begin)].sum())))
    return rows


def _rows(rows: list[_Row], program: Program, classes: _Classes, first_class: int) -> tuple[sp.csr_matrix, Series]:
    """The rows as `matrix · z ≤ rhs` of the small program, whose first columns are the site's power."""
    gives = float(program.efficiency[0]) * program.even_h
    indptr, indices, data = [0], [], []
    for r in rows:
        slots = np.flatnonzero(r.slots)
        short = first_class + classes.columns_up_to(r.rank, r.stretch)
        indices += [slots, short]
        data += [np.full(slots.shape[0], -gives), np.full(short.shape[0], -1.0)]
        indptr.append(indptr[-1] + slots.shape[0] + short.shape[0])
    matrix = sp.csr_matrix(
        (np.concatenate(data), np.concatenate(indices), np.array(indptr)),
        shape=(len(rows), first_class + classes.count),
    )
    return matrix, np.array([-r.least_kwh for r in rows])


def _serve(network: Network, classes: _Classes, power: Series, short: Series) -> tuple[Flow, list[_Row]]:
    """Serve class by class from the power that was hoped for, and tell what the program did not know."""
    program = network.program
    flow = network.begin(power)
    gives = float(program.efficiency[0]) * program.even_h
    news = []
    for rank in range(classes.value.shape[0]):
        flow.serve(classes.rank == rank)
        missing = np.bincount(classes.column, program.wanted_kwh - gives * flow.met(), minlength=classes.count)
        short_of = {s: classes.columns_up_to(rank, s) for s in range(classes.stretches)}
        worse = [s for s, c in short_of.items() if missing[c].sum() > short[c].sum() + VIOLATED_KWH]
        for cut in flow.cuts() if worse else ():
            for stretch in worse:
                row = _as_row(classes, rank, stretch, cut, program, gives)
                given = gives * float(power[row.slots].sum()) + float(short[short_of[stretch]].sum())
                if given < row.least_kwh - VIOLATED_KWH:
                    news.append(row)
    return flow, news


def _as_row(classes: _Classes, rank: int, stretch: int, cut: Cut, program: Program, gives: float) -> _Row:
    """A cut as an inequality: the part of it that lies in one stretch holds by itself."""
    here = classes.of_slot == stretch
    behind = cut.session & classes.up_to(rank) & (classes.stretch == stretch)
    through_kwh = gives * float(cut.fixed_kw[here].sum())
    return _Row(rank, stretch, cut.slots & here, float(program.wanted_kwh[behind].sum()) - through_kwh)


def _around(
    program: Program,
    small: GrowingProgram,
    linear: LinearProgram,
    site: Program,
    classes: _Classes,
    flow: Flow,
    columns: Integers,
    left: Callable[[], float],
) -> Aggregate | None:
    """The best battery and grid around a flow; None when there is none (the power it leaves has nowhere to go)."""
    served = flow.result()
    gives = float(program.efficiency[0]) * program.even_h
    missing = np.maximum(program.wanted_kwh - gives * served.met, 0.0)
    short = np.bincount(classes.column, missing, minlength=classes.count)
    fixed = np.concatenate([served.site_kw, short])
    try:
        small.bound(columns, fixed, fixed)
        solution = small.minimise(left())
    except NoSolution:
        return None
    finally:
        small.bound(columns, linear.lower[columns], linear.upper[columns])
    lower, upper = linear.lower.copy(), linear.upper.copy()
    lower[columns] = upper[columns] = fixed
    return Aggregate(
        served, flow, site, replace(linear, lower=lower, upper=upper), solution, -np.inf, solution.objective, 0
    )

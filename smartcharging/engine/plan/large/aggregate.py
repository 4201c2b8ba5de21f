"""The plan of a large site: all cars as one power per slot, and a flow that shares it out.

Pure. Money sees the cars only through their power together in each slot. So the plan is made by two that take turns:

1. a small linear program chooses that power, battery and loads, the grid and how much each priority class falls short.
   It knows of the cars only what it has been told, so its optimum is a lower bound of the whole plan's;
2. a maximum flow (`network.py`) serves the cars from that power, the most valuable class first: a more valuable class
   never loses by it, and because what can be served is a polymatroid this greedy is optimal (Federgruen and Groenevelt
   1986). The flow is a plan: with battery and loads set anew around it, an upper bound;
3. where a class and those above it fall further short than the program hoped, a minimum cut gives an inequality that
   the program did not know, and it is asked again.

Most of what cuts tell is known without a flow (`envelopes.py`), so that one or two flows are enough on most days.

It ends when the bounds meet within the gap that was asked; the best plan is taken, certified. It needs one charging
efficiency, and loads that meet no limit below the grid connection (`applies`). A flow knows one
limit for each circuit: of a few cars on one phase among many on three, a plan is made from it by `uneven.py`. The
program of `program.py` is exact for everything else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace

import numpy as np

from smartcharging.engine.plan.answer import (
    BOTH_KW,
    PRICE_OF_NOTHING,
    SHORT_WH,
    Answer,
    Found,
    causes,
    import_price,
    what_binds,
)
from smartcharging.engine.plan.exact import STAGE_SHARE, answer_of, gap_between, one_way, whole_numbers
from smartcharging.engine.plan.large.envelopes import Envelopes
from smartcharging.engine.plan.large.flow import Cut, Flow, Served
from smartcharging.engine.plan.large.network import Network
from smartcharging.engine.plan.large.site_power import Classes, Row, SitePower
from smartcharging.engine.plan.large.uneven import Uneven
from smartcharging.engine.plan.problem import Series
from smartcharging.engine.plan.program import Program
from smartcharging.engine.plan.rooms import KIND_NAMES, KINDS, L1, Integers, ancestors
from smartcharging.engine.plan.solver import NoSolution, Solution

CARS_PER_ROUND = 40
MOST_ENVELOPES = 40  # questions that are asked without a flow, each time
ROUNDS_OF_UNEVEN = 3  # where flows have to be repaired, because they load a phase too much: soon or not at all
UNEVEN_FROM, UNEVEN_SHARE = 300, 0.1  # where a phase may be too full: from so many cars, not more of them uneven
MOST_CLASSES = 16
NEAR = 1e-4
INWARD = 0.3
"""How far towards the best plan so far a question is moved: cuts found there are deeper (Ben-Ameur and Neto
2007, in-out separation), and the flows there are better plans."""
SAME_EFFICIENCY = 1e-9
VIOLATED_KWH = 1e-6


@dataclass(frozen=True)
class Plan:
    """How the cars are served, the columns of the small program around that, and what it all costs."""

    served: Served
    values: Series
    upper_eur: float


class BoundsApart(NoSolution):
    """They did not meet in time; what the cells have in the best plan so far is near enough to start from."""

    def __init__(self, lower_eur: float, best: Plan | None) -> None:
        reached = best.upper_eur if best else np.inf
        super().__init__(f"the bounds did not meet: {lower_eur:.4f} and {reached:.4f} EUR")
        self.near_kw = best.served.cell_kw if best else None


@dataclass(frozen=True)
class Aggregate:
    """What came out: the best plan found, the last that was hoped for, and the bounds around the optimum [EUR]."""

    plan: Plan
    flow: Flow
    small: SitePower
    hoped: Solution
    lower_eur: float
    rounds: int

    @property
    def solution(self) -> Solution:
        return self.small.of_the_site(self.hoped, self.plan.values, self.plan.upper_eur)


def applies(program: Program) -> bool:
    """May this problem be planned this way?"""
    problem = program.problem
    below = program.needed[1:].any(axis=(1, 2))
    values = np.unique(program.goal_values)
    groups: dict[int, int] = {}
    return (
        program.count > 0
        and not program.surplus.any()
        and not program.fast.any()
        and not program.giving.size
        and not program.gone.any()
        and float(np.ptp(program.efficiency)) <= SAME_EFFICIENCY
        and values.shape[0] <= MOST_CLASSES
        and not program.on_battery_path[1:][below].any()
        and bool((program.battery_weight == 1).all())
        and not program.export_slots
        and not any(program.needed[list(program.problem.grid.path(load.node))].any() for load in problem.loads)
        and not (problem.loads and program.dark_needed[L1:].any())
        and all(groups.setdefault(s.group, s.node) == s.node for s in problem.sessions if s.group is not None)
    )


def worth_trying(program: Program) -> bool:
    """Is this way quicker than the whole program, as far as can be told beforehand?"""
    uneven = (program.weight != 1).any(axis=1)
    few = program.count >= UNEVEN_FROM and float(uneven.mean()) <= UNEVEN_SHARE
    return applies(program) and (few or not (program.needed[:, L1:].any() or program.dark_needed[L1:].any()))


def rounds_worth(cars: int) -> int:
    """So many rounds cost about a third of the exact program's time: what does not meet by then is planned exactly."""
    return max(2, cars // CARS_PER_ROUND)


def answer(
    program: Program,
    relative_gap: float,
    left: Callable[[], float],
    most_rounds: int | None = None,
    or_best: bool = False,
) -> Answer:
    """The plan of a large site, with its certified gap. Raises `NoSolution` where `solve` does."""
    found = solve(program, relative_gap, left, most_rounds or rounds_worth(program.count), or_best)
    site, solution = found.small.site, found.solution
    values, reached, _ = one_way(site, found.small.as_planned(found.plan.values), solution, STAGE_SHARE * left())
    gap = gap_between(reached, found.lower_eur)
    names, where = _held_back(program, found)
    short_kwh = np.maximum(program.wanted_kwh - program.efficiency * found.plan.served.met_kwh, 0.0)
    reasons = causes(program, short_kwh, names, where)
    binding = tuple(dict.fromkeys((*what_binds(site, solution), *_full_circuits(program, found))))
    return answer_of(program, site, found.plan.served.cell_kw, values, gap, reasons, binding)


def near(program: Program, left: Callable[[], float]) -> Series:
    """What the cells may have in a plan near the best, were a yes-or-no any share of it. Raises `NoSolution`."""
    return _Turns(program).until_they_meet(NEAR, left, rounds_worth(program.count)).plan.served.cell_kw


def _limits(program: Program, node: Integers, slot: Integers) -> Integers:
    """The limits of these circuits in these slots: the circuit's number and its tightest kind in one."""
    return node * KINDS + program.tightest(node, slot)


def _limit_name(program: Program, limit: int) -> str:
    """As the program calls it."""
    return f"limit:{program.problem.grid.circuits[limit // KINDS].name}{KIND_NAMES[limit % KINDS]}"


def _full_circuits(program: Program, found: Aggregate) -> list[str]:
    """Circuits that let nothing more through and before which cars still wait."""
    network = found.flow.network
    before = found.flow.waiting()
    which = _limits(program, network.circuit[before], network.circuit_slot[before])
    return [_limit_name(program, int(k)) for k in np.unique(which)]


def _held_back(program: Program, found: Aggregate) -> tuple[list[str], Found]:
    """What keeps the cars that fall short from more: a full circuit above them, else the import limit."""
    network, served = found.flow.network, found.plan.served
    short = network.need_kwh - served.met_kwh > SHORT_WH / 1000
    held = np.flatnonzero(short[program.session] & (served.cell_kw < program.cell_max_kw - BOTH_KW))
    if not held.size:
        return [], (held, held, held, np.zeros(0))
    names = [_limit_name(program, k) for k in range(KINDS * len(program.problem.grid))]
    called, called_in = found.small.site.import_names
    full = np.full(program.needed.shape[::2], False)
    shut, crowded = found.flow.shut()
    full[network.circuit[shut], network.circuit_slot[shut]] = True
    parts: list[tuple[Integers, Integers]] = []
    for level in ancestors(program.problem.grid):
        above = level[program.node[program.session[held]]]
        here = (above >= 0) & full[above, program.slot[held]]
        parts.append((held[here], _limits(program, above[here], program.slot[held[here]])))
    price = import_price(found.small.site, found.solution)
    dear = held[price[program.slot[held]] > PRICE_OF_NOTHING]
    parts.append((dear, len(names) + called_in[program.slot[dear]]))
    station = network.groups_of(held)
    packed = held[(station >= 0) & np.append(crowded, False)[station]]
    parts.append((packed, np.full(packed.shape[0], len(names) + len(called))))
    cells = np.concatenate([c for c, _ in parts])
    name = np.concatenate([n for _, n in parts])
    return [*names, *called, "group"], (program.session[cells], name, program.slot[cells], np.ones(cells.shape[0]))


def solve(
    program: Program, relative_gap: float, left: Callable[[], float], most_rounds: int = 60, or_best: bool = False
) -> Aggregate:
    """Plan until the bounds are within `relative_gap` of each other. When they do not meet it is the best plan so far
    where `or_best` asks for it, and else, or when there is none yet, `NoSolution`.

    Every yes-or-no of a load is a whole number, chosen by the small program, which needs no cars for it: its bound
    holds with them. How near that choice is to the best is told by the bounds, not held within `relative_gap`.
    """
    turns = _Turns(program)
    found = turns.until_they_meet(relative_gap, left, most_rounds, or_best)
    if not program.whole.size:
        return found
    hoped = replace(found.hoped, bound=found.lower_eur)
    lower, choices = whole_numbers(turns.small.site, turns.small.known(), hoped, left)
    turns.decide(choices, left)
    return replace(turns.until_they_meet(relative_gap, left, most_rounds, or_best), lower_eur=lower)


class _Turns:
    """The small program and the flow of a site, which take turns, and what they know of each other."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.classes = Classes(program)
        self.flow = Flow(Network(program, self.classes.rank))
        self.small = SitePower(program, self.classes)
        self.envelopes = Envelopes(program, self.classes)
        self.uneven = Uneven(self.flow.network)

    def until_they_meet(
        self, relative_gap: float, left: Callable[[], float], most_rounds: int, or_best: bool = False
    ) -> Aggregate:
        """Raises `BoundsApart` when the bounds do not meet within `relative_gap`, unless the best plan will do."""
        flow, small, uneven = self.flow, self.small, self.uneven
        slack = 2 * flow.network.rounding_kwh / float(self.program.hours.sum())
        best: Plan | None = None
        lower, silent = -np.inf, 0
        for rounds in range(1, most_rounds + 1):
            hoped = _hope(small, self.envelopes, left)
            lower = max(lower, hoped.objective)
            asked = hoped.values
            if best is not None and not silent:
                asked = (1 - INWARD) * asked + INWARD * best.values
            flow.offer(small.power(asked) + np.minimum(small.spare(asked, peaks=False), slack))
            news = _news(flow, self.classes, small, asked)
            for plan in _plans(flow, uneven, small, asked):
                if best is None or plan.upper_eur < best.upper_eur:
                    best = plan
                if best.upper_eur - lower <= relative_gap * max(abs(best.upper_eur), 1e-9):
                    return Aggregate(best, flow, small, hoped, lower, rounds)
            silent = 0 if news else silent + 1
            if left() <= 0 or silent == 2 or (uneven.repairs and rounds == ROUNDS_OF_UNEVEN):
                break
            small.learn(news)
        if or_best and best is not None:
            return Aggregate(best, flow, small, hoped, lower, rounds)
        raise BoundsApart(lower, best)

    def decide(self, choices: list[Series], left: Callable[[], float]) -> None:
        """Hold the loads to the best of these choices of whole numbers. Raises `NoSolution` when none can be."""
        hoped = []
        for chosen in choices:
            self.small.decide(chosen)
            with suppress(NoSolution):
                hoped.append((_hope(self.small, self.envelopes, left).objective, chosen))
        if not hoped:
            raise NoSolution("no choice of whole numbers could be kept")
        self.small.decide(min(hoped, key=lambda pair: pair[0])[1])


def _hope(small: SitePower, envelopes: Envelopes, left: Callable[[], float]) -> Solution:
    """The best there may be for all that is known without a flow. Raises `NoSolution`."""
    hoped = small.hope(left())
    for _ in range(MOST_ENVELOPES):
        news = envelopes.broken(small, hoped.values)
        if not news:
            break
        small.learn(news)
        hoped = small.hope(left())
    return hoped


def _plans(flow: Flow, uneven: Uneven, small: SitePower, asked: Series) -> Iterator[Plan]:
    """The flow as a plan; and once more with what the site could give besides without a new peak."""
    power, spare = small.power(asked), small.spare(asked)
    room = uneven.room(small.besides_cars(asked), small.held_back(asked))
    for more in (False, True):
        if more:
            flow.offer(power + spare)
        served = flow.served()
        if not uneven.keeps_phases(served, room):
            served = uneven.repaired(served, power, spare, room)
        values = small.with_cars(asked, served)
        if values is not None:
            yield Plan(served, values, small.cost(values))


def _news(flow: Flow, classes: Classes, small: SitePower, asked: Series) -> list[Row]:
    """What the small program did not know when it asked for this."""
    program, gives = flow.network.program, small.gives
    power, short = small.power(asked), small.short(asked)
    missing = small.missing(flow.met_kwh())
    unsure = flow.network.rounding_kwh
    news = []
    for rank in range(classes.value.shape[0]):
        short_of = {s: classes.columns_up_to(rank, s) for s in range(classes.stretches)}
        worse = [s for s, c in short_of.items() if missing[c].sum() > short[c].sum() + unsure]
        for cut in flow.cuts(rank) if worse else ():
            for stretch in worse:
                row = _as_row(classes, rank, stretch, cut, program)
                given = float(gives[row.slots] @ power[row.slots]) + float(short[short_of[stretch]].sum())
                if given < row.least_kwh - VIOLATED_KWH:
                    news.append(row)
    return news


def _as_row(classes: Classes, rank: int, stretch: int, cut: Cut, program: Program) -> Row:
    """A cut as an inequality: the part of it that lies in one stretch holds by itself."""
    here = classes.of_slot == stretch
    behind = cut.session & classes.up_to(rank) & (classes.stretch == stretch)
    through_kwh = float(program.efficiency[0]) * float(cut.fixed_kwh[here].sum())
    return Row(rank, stretch, cut.slots & here, float(program.wanted_kwh[behind].sum()) - through_kwh)

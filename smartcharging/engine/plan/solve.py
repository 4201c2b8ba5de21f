"""The plan of a site's coming day: `solve` takes the problem and always returns a plan.

Pure. Goals and hurry come first, money second. The order of the day:

1. sessions are set right (windows inside the horizon, cars after each other on one EVSE, numbers that are numbers);
2. if some cars are in a hurry, a program without money finds how early they can be served by class, and fixes that;
3. the program of `program.py` is solved to its optimum; with many cars their power together is planned first and
   shared out by a flow (`aggregate.py`), to within a certified gap;
4. at negative prices it may pay to burn energy in the battery by charging and discharging at once: then, and only
   then, those slots get a yes-or-no and the program is solved again;
5. the answer is judged by `judge.py`, which shares no code with the program; a plan that breaks a bound is not used;
6. when anything fails, `rule.py` makes the plan: as soon as possible, by class, within the limits.

The minimum power of a car (6 A or nothing) is no constraint here: a slot's power is an energy budget, and the live
layer, which is exact, spends it at or above the minimum. The program's optimum lies in a corner, so most powers are
zero or full anyway; the rest is what shaving a peak or sharing a circuit asks for.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from traceback import extract_tb

import numpy as np

from smartcharging.engine.loads import report as load_report
from smartcharging.engine.loads.checks import plannable_loads
from smartcharging.engine.plan import giving, judge, rooms
from smartcharging.engine.plan import rule as plan_rule
from smartcharging.engine.plan.answer import SHORT_WH, Answer, interval
from smartcharging.engine.plan.asked import (
    fill_gaps,
    plannable_battery,
    plannable_grid,
    set_right,
    what_is_wrong,
)
from smartcharging.engine.plan.coarse import borders, coarsen, spread_out
from smartcharging.engine.plan.exact import exact, gap_between, status_of
from smartcharging.engine.plan.large import aggregate, in_time
from smartcharging.engine.plan.maximum_tariff import branches
from smartcharging.engine.plan.numbers import plannable_numbers
from smartcharging.engine.plan.problem import PlanProblem, PlanResult, PlanSession, Series
from smartcharging.engine.plan.program import Program
from smartcharging.engine.plan.solver import NoSolution

NOISE_KW = 1e-6
HARD_W = 2.0  # a plan that breaks a bound by more is not used
LARGE = 80
"""More cars than this are planned together first (`aggregate.py`), with a certified gap; fewer exactly at once."""


def solve(problem: PlanProblem, clock: Callable[[], float] | None = None) -> PlanResult:
    """Plan the horizon. Never raises for what a site may send: what does not add up is noted and planned by rule.

    `clock` (seconds, such as `time.perf_counter`) serves `solve_s` and, with many cars, the time limit as a whole: the
    engine has no clock of its own.
    """
    began = clock() if clock else 0.0

    def left() -> float:
        return problem.time_limit_s - (clock() - began if clock else 0.0)

    try:
        result = _solve(problem, left)
    except Exception as error:
        # Not even by rule. The live layer keeps every limit by itself and shares what there is.
        result = _without_limits(problem, f"no plan could be made: {_stumbled(error)}")
    return replace(result, solve_s=clock() - began) if clock else result


def _solve(problem: PlanProblem, left: Callable[[], float]) -> PlanResult:
    notes: list[str] = []
    problem = plannable_numbers(problem, notes)
    problem = replace(problem, grid=plannable_grid(problem.grid, notes))
    sessions = set_right(problem, notes)
    loads = plannable_loads(problem, notes)
    battery = plannable_battery(problem.battery, problem.grid, notes)
    problem = fill_gaps(replace(problem, sessions=sessions, loads=loads, battery=battery), notes)
    trouble = what_is_wrong(problem)
    if trouble is None:
        overload_notes(problem, notes)
        try:
            answer = optimise(problem, left)
            result, verdict = finish(problem, answer, [*notes, *answer.notes])
            if verdict.worst_w <= HARD_W:
                return result
            trouble = f"the optimiser's plan broke {verdict.worst_name} by {verdict.worst_w:.1f} W"
        except (NoSolution, ArithmeticError) as error:
            trouble = f"the optimiser found no plan: {error}"
        except Exception as error:  # a mistake of ours; the site has a plan all the same
            trouble = f"the optimiser {_stumbled(error)}"
    else:
        problem = plan_rule.with_known_numbers(problem)
    notes.append(trouble)
    result, _ = finish(problem, rule_answer(problem), notes)
    return result


def _stumbled(error: Exception) -> str:
    where = extract_tb(error.__traceback__)[-1]
    return f"stumbled in {where.name}: {type(error).__name__}: {error}"


def _without_limits(problem: PlanProblem, trouble: str) -> PlanResult:
    """Every car may take what it can at any time, and nobody is promised anything."""
    slots = int(np.size(problem.building_w))
    nothing = np.zeros(slots)
    most = {s.key: _or_none(s.max_w) for s in problem.sessions}
    short = {s.label: wh for s in problem.sessions if (wh := _or_none(s.energy_wh)) > 0}
    return PlanResult(
        status="fallback",
        session_w={key: np.full(slots, watts) for key, watts in most.items()},
        battery_w=nothing,
        grid_w=np.full(slots, np.nan),
        pv_w=nothing,
        shortfall_wh=short,
        shortfall_reason=dict.fromkeys(short, "rule"),
        objective_eur=None,
        gap=None,
        solve_s=0.0,
        notes=(trouble,),
    )


def _or_none(amount: object) -> float:
    return float(amount) if isinstance(amount, int | float) and np.isfinite(amount) else 0.0


def optimise(problem: PlanProblem, left: Callable[[], float]) -> Answer:
    """The best plan of both ways in which the month's peak may be paid. Raises `NoSolution` where neither has one.

    Of a way without an answer nothing is known, so then there is no gap.
    """
    ways = branches(problem)
    if len(ways) == 1:
        return in_long_slots(ways[0][0], left)
    found: list[tuple[float, Answer]] = []
    lower, failed = np.inf, NoSolution()
    for behind, (way, besides_eur) in enumerate(ways, 1):
        theirs_s = left() * (1 - 1 / (len(ways) + 1 - behind))  # of the ways that are still to come
        try:
            answer = in_long_slots(way, _but_for(theirs_s, left))
        except NoSolution as error:
            lower, failed = -np.inf, error
            continue
        reached = _reached(way, answer)
        bound = -np.inf if answer.gap is None else reached - answer.gap * abs(reached) + besides_eur
        lower = min(lower, bound)
        found.append((_reached(problem, answer), answer))
    if not found:
        raise failed
    reached, answer = min(found, key=lambda pair: pair[0])
    gap = gap_between(reached, lower) if np.isfinite(lower) else None
    return replace(answer, gap=gap, status=status_of(gap))


def in_long_slots(problem: PlanProblem, left: Callable[[], float]) -> Answer:
    """Plan with far slots that are longer, where there are any."""
    at = borders(problem)
    if len(at) == problem.slots + 1:
        return by_size(problem, left)
    return spread_out(problem, by_size(coarsen(problem, at), left), at)


def by_size(problem: PlanProblem, left: Callable[[], float]) -> Answer:
    """By the quickest way that gives the gap that was asked, and where none does in time the best that was found of
    many cars. Raises `NoSolution`."""
    program = Program(problem)
    if program.count <= LARGE:
        return exact(program, left)
    near_kw: Series | None = None
    if aggregate.worth_trying(program):
        try:
            if problem.relative_gap > 0:
                return aggregate.answer(program, problem.relative_gap, left)
            near_kw = aggregate.near(program, left)
        except aggregate.BoundsApart as apart:
            near_kw = apart.near_kw  # the whole program is exact, and soon solved from there
        except NoSolution:
            pass
    easier = in_time.question(problem)
    kept_s = 0.0 if easier is None else in_time.SURE_SHARE * left()
    try:
        return exact(program, _but_for(kept_s, left), near_kw)
    except NoSolution:
        if easier is None:
            raise
        return _best_in_time(problem, easier, left)


def _but_for(kept_s: float, left: Callable[[], float]) -> Callable[[], float]:
    return lambda: left() - kept_s


def _best_in_time(problem: PlanProblem, question: Program, left: Callable[[], float]) -> Answer:
    easier, found = question.problem, in_time.answer(question, left)
    gap: float | None = None
    if in_time.only_costs_less(problem) and found.gap is not None:
        least = _reached(easier, found)
        gap = gap_between(_reached(problem, found), least - found.gap * abs(least))
    return replace(found, gap=gap, status=status_of(gap))


def _reached(problem: PlanProblem, answer: Answer) -> float:
    """What this plan costs, all in all, in this problem [EUR]."""
    return finish(problem, answer, [])[0].objective_eur or 0.0


def rule_answer(problem: PlanProblem) -> Answer:
    powers, loads = plan_rule.by_rule(problem)
    session_kw = np.array(powers, dtype=np.float64).reshape(len(powers), problem.slots)
    return Answer("fallback", session_kw, np.zeros(problem.slots), None, load_kw=loads)


def overload_notes(problem: PlanProblem, notes: list[str]) -> None:
    """Say where the building alone is above a limit: no plan for cars can lower that."""
    load, limit = rooms.background_kw(problem), rooms.limits_kw(problem)
    loaded = np.flatnonzero((load > NOISE_KW).any(axis=1) | (np.arange(len(load)) == 0))  # no limit is below zero
    over = load[loaded] - limit[loaded].min(axis=1)
    over[0] = np.maximum(over[0], -rooms.dark_kw(problem, limit[0, rooms.L1 :]).min(axis=0))
    for n, over_kw in zip(loaded, over, strict=True):
        slots = np.flatnonzero(over_kw > NOISE_KW)
        if not slots.size:
            continue
        most = over_kw.max()
        when = interval(problem, int(slots[0]), int(slots[-1]) + 1)
        notes.append(
            f"circuit {problem.grid.circuits[n].name}: expected load without cars is up to {most:.1f} kW "
            f"above its limit in {when}"
        )


# The answer


def finish(problem: PlanProblem, answer: Answer, notes: list[str]) -> tuple[PlanResult, judge.Verdict]:
    """Everything a plan says, computed from the powers alone, and how it is judged."""
    powers = answer.session_kw
    cars = powers.sum(axis=0)
    session_w: dict[str, Series] = {}
    for session, power in zip(problem.sessions, powers * 1000, strict=True):
        session_w[session.key] = session_w[session.key] + power if session.key in session_w else power
    missing_wh = _missing_wh(problem, powers)
    shortfall: dict[str, float] = {}
    for session, short in zip(problem.sessions, missing_wh.tolist(), strict=True):
        shortfall[session.label] = shortfall.get(session.label, 0.0) + short
    reason: dict[str, str] = {}
    for i in np.flatnonzero(missing_wh):
        session = problem.sessions[i]
        said = answer.reasons[i] if answer.reasons else ""
        reason[session.label] = said or _rule_reason(problem, session)
    load_w = {load.key: power * 1000 for load, power in zip(problem.loads, answer.load_kw, strict=True)}
    taken = (cars + answer.battery_kw) * 1000 + sum(load_w.values())
    pv = pv_left(problem, taken, answer.curtailed_kw)
    grid = problem.building_w + pv + taken
    result = PlanResult(
        status=answer.status,
        session_w=session_w,
        battery_w=answer.battery_kw * 1000,
        grid_w=grid,
        pv_w=pv,
        shortfall_wh=shortfall,
        shortfall_reason=reason,
        objective_eur=None,
        gap=answer.gap,
        solve_s=0.0,
        peak_w=max(float(grid[: problem.month_ends].max(initial=0.0)), problem.month_peak_w),
        binding=answer.binding,
        notes=tuple(notes),
        load_w=load_w,
    )
    result = load_report.with_loads(problem, result)
    verdict = judge.judge(problem, result)
    return replace(result, objective_eur=verdict.objective_eur, cost_eur=verdict.cost_eur), verdict


def _missing_wh(problem: PlanProblem, powers_kw: Series) -> Series:
    """What each session falls short of, where that is worth a word."""
    sessions = problem.sessions
    got_wh = 1000 * np.array([s.efficiency for s in sessions]) * np.einsum("it,t->i", powers_kw, problem.hours)
    for i in giving.cars(sessions):
        got_wh[i] = 1000 * giving.balance_wh(sessions[i], powers_kw[i], problem.hours)[-1:].sum()
    short: Series = np.array([s.energy_wh for s in sessions], dtype=np.float64) - got_wh
    return np.where(short > SHORT_WH, short, 0.0)


def pv_left(problem: PlanProblem, load_w: Series, curtailed_kw: Series | None) -> Series:
    """PV after curtailment: as the program chose (a rule holds back what would be exported at a loss), and in any
    case as much as the export limit asks."""
    net = problem.building_w + load_w
    export_w = np.maximum(rooms.export_limit_kw(problem) * 1000, -problem.building_w)
    if curtailed_kw is None:
        at_a_loss = problem.export_eur_per_kwh < 0
        held = np.where(at_a_loss, np.maximum(-(net + problem.pv_w), 0.0), 0.0)
    else:
        held = curtailed_kw * 1000
    held = np.maximum(held, -(net + problem.pv_w) - export_w)
    left: Series = problem.pv_w + np.clip(held, 0.0, -problem.pv_w)
    return left


def _rule_reason(problem: PlanProblem, session: PlanSession) -> str:
    hours = float(problem.hours[session.first_slot : session.last_slot].sum())
    most_wh = session.max_w * session.efficiency * hours
    if session.max_w <= 0:
        return "power"
    return "time" if most_wh < session.energy_wh - SHORT_WH else "rule"

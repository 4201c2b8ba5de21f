"""The whole program, car by car, solved to its optimum; loads that are on or off, and a battery that never charges and
discharges at once.

Pure. Many cars meet few limits that bind, so with many of them the circuits' rows join only where they are broken
(`warm.minimise_lazily`), and beside a plan that is near already only its cells are looked at first: the same optimum,
sooner.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from smartcharging.engine.loads import rule as load_rule
from smartcharging.engine.plan import giving
from smartcharging.engine.plan import rule as plan_rule
from smartcharging.engine.plan.answer import BOTH_KW, Answer, Mask, spread, what_binds, why_short
from smartcharging.engine.plan.problem import Series
from smartcharging.engine.plan.program import LinearProgram, Program
from smartcharging.engine.plan.rooms import Integers
from smartcharging.engine.plan.solver import NoSolution, Solution, minimise, minimise_either_or, minimise_whole
from smartcharging.engine.plan.ties import first_come
from smartcharging.engine.plan.warm import minimise_lazily

NOISE_KW = 1e-6
EITHER_OR_ROUNDS = 4
EITHER_OR_GAP = 1e-4
WHOLE = 1e-6
WHOLE_GAP = 1e-3  # a tenth of a percent of the day: finer, the search for heaters that go on and off takes minutes
WHOLE_SHARE = 0.2
STAGE_SHARE = 0.4  # of the time that is left, for the battery's either-or
HURRY_SHARE = 0.7  # for cars in a hurry; what that leaves is money's
KEPT_SHARE = 0.1  # of the money's time, to finish the plan of the first stage where the second has none
LAZY_FROM = 200
"""From so many cars on the circuits' rows join only where they are broken."""


def exact(program: Program, left: Callable[[], float], near_kw: Series | None = None) -> Answer:
    """Goals and hurry first, money second. `left` tells how many seconds there are; `near_kw` is what the cells have in
    a plan that is not far from the best. Raises `NoSolution`."""
    linear = program.build(program.money)
    hurry: Solution | None = None
    if program.fast[program.session].any():
        hurry = _settle(program, program.build(program.haste), lambda: HURRY_SHARE * left())
        _hold_cells(program, linear, hurry.values, program.fast[program.session])
    kept_s = 0.0 if hurry is None else KEPT_SHARE * left()
    proven = True
    try:
        solution = _settle(program, linear, lambda: left() - kept_s, near_kw)
    except NoSolution:
        if hurry is None:
            raise
        solution, proven = _around(program, linear, hurry.values, left()), False
    if proven:
        solution = first_come(program, linear, solution, STAGE_SHARE * left())
    values, reached, bound = one_way(program, linear, solution, STAGE_SHARE * left())
    if program.whole.size:
        bound = solution.bound  # with other whole numbers it may be better than what was found around these
    gap = (gap_between(reached, bound) if reached != bound else 0.0) if proven else None
    reasons = why_short(program, solution)
    if hurry is not None:  # what a car in a hurry gets was settled there
        reasons = [
            a if fast else b for a, b, fast in zip(why_short(program, hurry), reasons, program.fast, strict=True)
        ]
    return answer_of(
        program, program, giving.net_kw(program, values), values, gap, reasons, what_binds(program, solution)
    )


def _hold_cells(program: Program, linear: LinearProgram, values: Series, which: Mask) -> None:
    """These cells have what they have in `values`."""
    cells = program.part("p")
    held = np.clip(values[cells][which], 0.0, linear.upper[cells][which])
    linear.lower[cells][which] = linear.upper[cells][which] = held


def _around(program: Program, linear: LinearProgram, values: Series, time_limit_s: float) -> Solution:
    """The best that battery and connection can do around cars and loads that are on or off as they are in `values`."""
    _hold_cells(program, linear, values, np.ones(program.session.shape[0], dtype=bool))
    linear.lower[program.whole] = linear.upper[program.whole] = np.round(values[program.whole])
    return minimise(linear, time_limit_s)


def _settle(
    program: Program, linear: LinearProgram, left: Callable[[], float], near_kw: Series | None = None
) -> Solution:
    """The optimum with every yes-or-no a whole number, which then are the bounds of `linear`. Where none was found in
    time, near ones for which everything fits; the bound is proven in any case."""
    solution = _minimise(program, linear, left(), near_kw)
    whole = program.whole
    if not whole.size:
        return solution
    best: Solution | None = None
    bound, choices = whole_numbers(program, linear, solution, left)
    for chosen in choices:
        fixed = replace(linear, lower=linear.lower.copy(), upper=linear.upper.copy())
        fixed.lower[whole] = fixed.upper[whole] = chosen
        try:
            found = _minimise(program, fixed, left())
        except NoSolution:
            continue
        if best is None or found.objective < best.objective:
            best = found
            linear.lower[whole] = linear.upper[whole] = chosen
    if best is None:
        raise NoSolution("no choice of whole numbers could be finished in time")
    return replace(best, bound=bound)


def whole_numbers(
    program: Program, linear: LinearProgram, solution: Solution, left: Callable[[], float]
) -> tuple[float, list[Series]]:
    """A proven bound and choices to compare: the linear optimum's where they are whole, those of a search, and where it
    did not finish also near ones for which everything fits."""
    whole, bound = program.whole, solution.bound
    near = solution.values[whole]
    if np.abs(near - np.round(near)).max() <= WHOLE:
        return bound, [np.round(near)]
    choices: list[Series] = []
    try:
        values, better = minimise_whole(linear, whole, WHOLE_SHARE * left(), WHOLE_GAP)
        bound = max(bound, better)
        choices.append(np.round(values[whole]))
        if gap_between(float(linear.cost @ values), bound) <= 2 * WHOLE_GAP:
            return bound, choices
    except NoSolution:
        pass
    room = plan_rule.sure_room(program.problem)
    choices.append(load_rule.rounded(program.loads, near, solution.values[program.part("q")], room))
    return bound, choices


def _minimise(program: Program, linear: LinearProgram, time_limit_s: float, near_kw: Series | None = None) -> Solution:
    rows = program.rows_of("limit", "group")
    if near_kw is not None:
        start, late = np.zeros(program.width), np.zeros(program.width, dtype=bool)
        start[program.part("p")], late[program.part("p")] = near_kw, True
        return minimise_lazily(linear, rows, time_limit_s, start, late)
    if program.count < LAZY_FROM:
        return minimise(linear, time_limit_s)
    return minimise_lazily(linear, rows, time_limit_s)


def answer_of(
    program: Program,
    site: Program,
    cell_kw: Series,
    values: Series,
    gap: float | None,
    reasons: list[str],
    binding: tuple[str, ...],
) -> Answer:
    """The cars' power of `program`, and battery, loads and PV as the columns of `site` have them."""
    battery = program.problem.battery
    flow = values[site.part("c")] - values[site.part("d")] if battery else np.zeros(program.slots)
    loads = values[site.part("q")].reshape(-1, program.slots)
    curtailed = np.zeros(program.slots)
    curtailed[site.curtail_slots] = values[site.part("w")]
    return Answer(
        status_of(gap),
        spread(program, np.where(np.abs(cell_kw) > NOISE_KW, cell_kw, 0.0)),
        np.where(np.abs(flow) > NOISE_KW, flow, 0.0),
        gap,
        curtailed_kw=curtailed,
        reasons=tuple(reasons),
        binding=binding,
        load_kw=tuple(np.where(power > NOISE_KW, power, 0.0) for power in loads),
    )


def one_way(
    program: Program, linear: LinearProgram, solution: Solution, time_limit_s: float
) -> tuple[Series, float, float]:
    """The columns with a battery (and cars that give) doing one thing at a time, what they cost, and a bound below
    this `linear`.

    Only negative prices can make it pay to burn energy; then those slots get a yes-or-no. It may then be burnt in
    others, to have room for what is bought there: they get one too, and in the end all.
    """
    values, bound = solution.values, solution.bound
    pairs, both = _ways(program, values)
    if not both.any():
        return values, solution.objective, bound
    burns = program.problem.bought_eur_per_kwh < 0
    slot = np.concatenate((program.t if program.problem.battery else program.t[:0], program.slot[program.giving]))
    decided = both | burns[slot]
    try:
        for left in range(EITHER_OR_ROUNDS, 0, -1):
            values, better = minimise_either_or(linear, pairs[decided], time_limit_s / EITHER_OR_ROUNDS, EITHER_OR_GAP)
            bound = max(bound, better)
            _, both = _ways(program, values)
            if not (both & ~decided).any():
                break
            decided = decided | both | (left == 2)
    except NoSolution:
        pass  # the net of both is still a plan, only not proven best
    if program.problem.battery is not None:
        values = one_direction(program, values)
    values = _one_direction_of_cars(program, values)
    return values, float(linear.cost @ values), bound


def _ways(program: Program, values: Series) -> tuple[Integers, Mask]:
    """Pairs of columns that take and give, and which of them do both: the battery's, then those of cars."""
    cars = np.arange(program.giving.shape[0])
    parts = [np.column_stack((program.at("p", program.giving), program.at("g", cars)))]
    if program.problem.battery is not None:
        parts.insert(0, np.column_stack((program.at("c", program.t), program.at("d", program.t))))
    pairs = np.concatenate(parts)
    both: Mask = np.asarray((values[pairs] > BOTH_KW).all(axis=1))
    return pairs, both


def _one_direction_of_cars(program: Program, values: Series) -> Series:
    """The same for cars that give."""
    if not program.giving.size:
        return values
    out = values.copy()
    net = giving.net_kw(program, values)[program.giving]
    taken, given = out[program.part("p")], out[program.part("g")]
    less = np.bincount(program.slot[program.giving], taken[program.giving] - given - net, minlength=program.slots)
    taken[program.giving], given[:] = np.maximum(net, 0), np.maximum(-net, 0)
    bought = np.minimum(less, out[program.part("x")])
    out[program.part("x")] -= bought
    out[program.part("y")] += less - bought
    return out


def status_of(gap: float | None) -> str:
    """What a plan within this gap may be called; None: nobody knows how far it is from the best."""
    return "optimal" if gap is not None and gap <= EITHER_OR_GAP else "feasible"


def gap_between(reached: float, bound: float) -> float:
    """How far a plan may be from the optimum, relative to what it costs."""
    return max(0.0, reached - bound) / max(abs(reached), 1e-9)


def one_direction(program: Program, values: Series) -> Series:
    """Charge and discharge at once become their net, with the same stored energy: never more load, never infeasible
    at import; what no longer burns is not imported (or, with no import, is held back or exported)."""
    battery = program.problem.battery
    assert battery is not None
    out = values.copy()
    charge, discharge = values[program.part("c")], values[program.part("d")]
    stored = battery.efficiency * charge - discharge / battery.efficiency
    new_charge = np.maximum(stored, 0) / battery.efficiency
    new_discharge = np.maximum(-stored, 0) * battery.efficiency
    less = (charge - discharge) - (new_charge - new_discharge)
    out[program.part("c")], out[program.part("d")] = new_charge, new_discharge
    taken = np.minimum(less, out[program.part("x")])
    out[program.part("x")] -= taken
    out[program.part("y")] += less - taken
    return out

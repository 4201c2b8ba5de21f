"""Who charges first where it makes no difference to the money: among all optimal plans the one in which who is in more
of a hurry (`PlanSession.hurry`) waits least.

Pure. Nothing is paid for it: what has a price in the optimum stays as it is, and only what is worth the same is moved.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from smartcharging.engine.plan.problem import Series
from smartcharging.engine.plan.program import LinearProgram, Program
from smartcharging.engine.plan.rooms import Integers
from smartcharging.engine.plan.solver import NoSolution, Solution, minimise

FREE_EUR = 1e-9  # what costs no more than this costs nothing
SAME = 1e-8


def first_come(program: Program, linear: LinearProgram, solution: Solution, time_limit_s: float) -> Solution:
    """The same optimum with its ties broken. Where that does not come in time it is the one that was found."""
    waits = _waits(program)
    free = np.asarray(
        np.flatnonzero((np.abs(solution.reduced_cost) <= FREE_EUR) & (linear.lower < linear.upper)), dtype=np.int64
    )
    if not waits[free].any():
        return solution
    try:
        moved = minimise(_among_equals(linear, solution, free, waits), time_limit_s)
    except NoSolution:
        return solution
    values = solution.values.copy()
    values[free] = moved.values
    objective = float(linear.cost @ values)
    if objective > solution.objective + SAME * max(1.0, abs(solution.objective)):
        return solution
    return replace(solution, values=values)


def _waits(program: Program) -> Series:
    """By column, how long what is charged there was waited for, times the hurry. Nothing where all are alike."""
    out = np.zeros(program.width)
    hurry = np.array([s.hurry for s in program.problem.sessions], dtype=np.float64)
    if hurry.size and float(np.ptp(hurry)) > 0:
        begins = np.cumsum(program.hours) - program.hours
        urgent = (hurry - hurry.min())[program.session]
        out[program.part("p")] = urgent * begins[program.slot] * program.hours[program.slot]
    return out


def _among_equals(linear: LinearProgram, solution: Solution, free: Integers, waits: Series) -> LinearProgram:
    """The columns that are worth nothing more or less, in the rows they touch; a row that has a price stays full."""
    part = linear.matrix[:, free]
    touched = np.diff(part.indptr) > 0
    equal = np.abs(solution.row_price) > FREE_EUR
    equal[: linear.equalities] = True
    rows = np.concatenate([np.flatnonzero(touched & equal), np.flatnonzero(touched & ~equal)])
    others = solution.values.copy()
    others[free] = 0.0
    rhs = linear.rhs - linear.matrix @ others
    count = int((touched & equal).sum())
    return LinearProgram(waits[free], part[rows], rhs[rows], count, linear.lower[free], linear.upper[free])

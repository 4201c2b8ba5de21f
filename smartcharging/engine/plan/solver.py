"""The one door to the solver: scipy's HiGHS. Knows linear programs, nothing of charging.

Pure. A time limit always holds, and the status is always looked at: no answer is an answer that callers must handle.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from scipy.optimize import Bounds, LinearConstraint, linprog, milp

from smartcharging.engine.plan.problem import Series
from smartcharging.engine.plan.program import LinearProgram

OPTIMAL = 0


class NoSolution(Exception):
    """The solver found none: infeasible, unbounded, out of time, or numbers it cannot read."""


@dataclass(frozen=True)
class Solution:
    """Column values, the objective with a proven bound below it, and what each row and upper bound is worth.

    `row_price` and `upper_price` are ≤ 0: what one more kW of room would change in the objective.
    """

    values: Series
    objective: float
    bound: float
    row_price: Series
    upper_price: Series
    reduced_cost: Series  # what one more of each column would change


def minimise(program: LinearProgram, time_limit_s: float) -> Solution:
    """Solve a linear program to its optimum: bound and objective are then the same. Raises `NoSolution`."""
    split = program.equalities
    equal, unequal = program.matrix[:split], program.matrix[split:]
    try:
        answer = linprog(  # type: ignore[call-overload]  # its types know no sparse matrices
            program.cost,
            A_ub=unequal if unequal.shape[0] else None,
            b_ub=program.rhs[split:] if unequal.shape[0] else None,
            A_eq=equal if split else None,
            b_eq=program.rhs[:split] if split else None,
            bounds=np.column_stack((program.lower, program.upper)),
            method="highs",
            options={"time_limit": max(time_limit_s, 0.01)},
        )
    except ValueError as error:
        raise NoSolution(str(error)) from error
    if answer.status != OPTIMAL or answer.x is None:
        raise NoSolution(str(answer.message))
    prices = np.zeros(program.matrix.shape[0])
    if split:
        prices[:split] = answer.eqlin.marginals
    if unequal.shape[0]:
        prices[split:] = answer.ineqlin.marginals
    upper = np.asarray(answer.upper.marginals)
    reduced = np.asarray(answer.lower.marginals) + upper
    return Solution(answer.x, float(answer.fun), float(answer.fun), prices, upper, reduced)


def minimise_either_or(
    program: LinearProgram, pairs: NDArray[np.int64], time_limit_s: float, relative_gap: float = 1e-4
) -> tuple[Series, float]:
    """The same with one yes-or-no per pair of columns: at most one of the two is above zero.

    Returns values and a proven lower bound. Raises `NoSolution` when none is found in time.
    """
    count, width = pairs.shape[0], program.cost.shape[0]
    each = np.arange(count)
    first, second = pairs[:, 0], pairs[:, 1]
    # first ≤ upper · yes,  second ≤ upper · (1 - yes)
    either = sp.csr_matrix(
        (
            np.concatenate([np.ones(count), -program.upper[first], np.ones(count), program.upper[second]]),
            (
                np.concatenate([each, each, count + each, count + each]),
                np.concatenate([first, width + each, second, width + each]),
            ),
        ),
        shape=(2 * count, width + count),
    )
    matrix = sp.vstack([sp.hstack([program.matrix, sp.csr_matrix((program.matrix.shape[0], count))]), either]).tocsr()
    widened = LinearProgram(
        np.concatenate([program.cost, np.zeros(count)]),
        matrix,
        np.concatenate([program.rhs, np.zeros(count), program.upper[second]]),
        program.equalities,
        np.concatenate([program.lower, np.zeros(count)]),
        np.concatenate([program.upper, np.ones(count)]),
    )
    values, bound = minimise_whole(widened, width + each, time_limit_s, relative_gap)
    return values[:width], bound


def minimise_whole(
    program: LinearProgram, whole: NDArray[np.int64], time_limit_s: float, relative_gap: float = 1e-4
) -> tuple[Series, float]:
    """The same with these columns in whole numbers.

    Returns values and a proven lower bound. Raises `NoSolution` when none is found in time.
    """
    integrality = np.zeros(program.cost.shape[0], dtype=np.int64)
    integrality[whole] = 1
    bottom = np.full(program.rhs.shape, -np.inf)
    bottom[: program.equalities] = program.rhs[: program.equalities]
    answer = milp(
        program.cost,
        integrality=integrality,
        bounds=Bounds(program.lower, program.upper),
        constraints=LinearConstraint(program.matrix, bottom, program.rhs),
        options={"time_limit": max(time_limit_s, 0.01), "mip_rel_gap": relative_gap},
    )
    if answer.x is None:
        raise NoSolution(str(answer.message))
    bound = answer.mip_dual_bound if answer.mip_dual_bound is not None else -np.inf
    return answer.x, float(bound)

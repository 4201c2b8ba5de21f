"""A linear program that grows: rows are added to it and bounds moved, and it is solved again from where it stood.

Pure. `highspy` is the same HiGHS that scipy carries, with its state kept between solves: a few new rows cost a few
dual simplex steps instead of a whole solve.
"""

from __future__ import annotations

from dataclasses import replace

import highspy
import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from smartcharging.engine.plan.problem import Series
from smartcharging.engine.plan.program import LinearProgram
from smartcharging.engine.plan.rooms import Integers
from smartcharging.engine.plan.solver import NoSolution, Solution, minimise

BROKEN = 1e-6
MANY_BROKEN = (
    0.2  # of the rows that were to wait: then nearly all bind, and all at once are solved several times sooner
)
FULL = 1e-3
CHEAPER = 1e-7
DEVEX = 1

Mask = NDArray[np.bool_]


def minimise_lazily(
    program: LinearProgram, lazy: Mask, time_limit_s: float, start: Series | None = None, late: Mask | None = None
) -> Solution:
    """The optimum of the whole program, whose `lazy` rows (inequalities) join only where they are broken.

    `start` is a good guess of the columns. Then rows that are full in it join at once, and of the `late` columns (whose
    least is zero) those that are zero in it wait until they would make something cheaper. What did not join is kept by
    the answer or is zero in it, so it is the optimum of all of it. Without a guess, and many of them broken at the
    first look, all join at once. Raises `NoSolution`.
    """
    rows, columns = ~lazy, np.ones(program.cost.shape[0], dtype=bool)
    if start is not None:
        rows |= program.matrix @ start > program.rhs - FULL
        if late is not None:
            columns = ~(late & (start <= 0) & (program.lower <= 0))
    joined, known = np.flatnonzero(rows), np.flatnonzero(columns)
    growing = GrowingProgram(
        replace(
            program,
            cost=program.cost[known],
            matrix=program.matrix[joined][:, known],
            rhs=program.rhs[joined],
            lower=program.lower[known],
            upper=program.upper[known],
        )
    )
    while True:
        found = growing.minimise(time_limit_s - growing.seconds)
        values = np.zeros(program.cost.shape[0])
        values[known] = found.values
        broken = np.flatnonzero(~rows & (program.matrix @ values > program.rhs + BROKEN))
        price = np.zeros(program.rhs.shape[0])
        price[joined] = growing.row_duals
        cheaper = np.flatnonzero(~columns & (program.cost - program.matrix.T @ price < -CHEAPER))
        if not broken.size and not cheaper.size:
            reduced = program.cost - program.matrix.T @ price
            price[joined] = found.row_price
            upper_price = np.zeros(program.cost.shape[0])
            upper_price[known] = found.upper_price
            return replace(found, values=values, row_price=price, upper_price=upper_price, reduced_cost=reduced)
        if start is None and joined.size + lazy.sum() == rows.size and broken.size > MANY_BROKEN * lazy.sum():
            return minimise(program, time_limit_s - growing.seconds)
        if cheaper.size:
            known, columns[cheaper] = np.concatenate([known, cheaper]), True
            growing.widen(replace(program, matrix=program.matrix[joined]), cheaper)
        if broken.size:
            joined, rows[broken] = np.concatenate([joined, broken]), True
            growing.add(program.matrix[broken][:, known], program.rhs[broken])


class _Quiet(highspy.Highs):
    """The solver without its banner, which it prints the moment its callbacks are switched on."""

    def enableCallbacks(self) -> None:
        self.setOptionValue("output_flag", False)
        super().enableCallbacks()  # type: ignore[no-untyped-call]


class GrowingProgram:
    """One program in the solver's memory. `minimise` raises `NoSolution`.

    `small`: one of few rows, whose answers are a few steps from each other. Weights of the steepest edge would then be
    reckoned anew for each new row, at more than these steps cost; in a large program they pay many times over.
    """

    def __init__(self, program: LinearProgram, small: bool = False) -> None:
        self._rows = program.matrix.shape[0]
        self.row_duals: Series = np.zeros(self._rows)
        self._highs = _Quiet()  # type: ignore[no-untyped-call]
        for option, value in (("output_flag", False), ("threads", 1), ("solver", "simplex"), ("parallel", "off")):
            self._highs.setOptionValue(option, value)
        if small:
            self._highs.setOptionValue("presolve", "off")
            self._highs.setOptionValue("simplex_dual_edge_weight_strategy", DEVEX)
        lp = highspy.HighsLp()
        lp.num_col_, lp.num_row_ = program.cost.shape[0], self._rows
        lp.col_cost_, lp.col_lower_, lp.col_upper_ = program.cost, program.lower, program.upper
        bottom = np.full(self._rows, -np.inf)
        bottom[: program.equalities] = program.rhs[: program.equalities]
        lp.row_lower_, lp.row_upper_ = bottom, program.rhs
        matrix = program.matrix
        lp.a_matrix_.format_ = highspy.MatrixFormat.kRowwise
        lp.a_matrix_.start_, lp.a_matrix_.index_, lp.a_matrix_.value_ = matrix.indptr, matrix.indices, matrix.data
        if self._highs.passModel(lp) == highspy.HighsStatus.kError:
            raise NoSolution("the solver cannot read the program")

    def add(self, matrix: sp.csr_matrix, rhs: Series) -> None:
        """More rows `matrix · z ≤ rhs`."""
        count = matrix.shape[0]
        self._highs.addRows(
            count,
            np.full(count, -highspy.kHighsInf),
            rhs,
            matrix.nnz,
            matrix.indptr[:-1].astype(np.int32),
            matrix.indices.astype(np.int32),
            matrix.data,
        )

    def widen(self, program: LinearProgram, columns: Integers) -> None:
        """More columns: these of a program that has the same rows."""
        matrix = program.matrix[:, columns].tocsc()
        self._highs.addCols(
            columns.shape[0],
            program.cost[columns],
            program.lower[columns],
            program.upper[columns],
            matrix.nnz,
            matrix.indptr[:-1].astype(np.int32),
            matrix.indices.astype(np.int32),
            matrix.data,
        )

    def bound(self, columns: Integers, lower: Series, upper: Series) -> None:
        """New bounds for some columns."""
        self._highs.changeColsBounds(columns.shape[0], columns.astype(np.int32), lower, upper)

    @property
    def seconds(self) -> float:
        """Spent in the solver so far."""
        return float(self._highs.getRunTime())

    def minimise(self, time_limit_s: float) -> Solution:
        """Solve from the last basis on. Row prices are in the order in which the rows came."""
        self._highs.setOptionValue("time_limit", self._highs.getRunTime() + max(time_limit_s, 0.01))
        self._highs.run()
        status = self._highs.getModelStatus()
        if status != highspy.HighsModelStatus.kOptimal:
            raise NoSolution(self._highs.modelStatusToString(status))
        found = self._highs.getSolution()
        objective = float(self._highs.getInfo().objective_function_value)
        values = np.array(found.col_value)
        self.row_duals = np.array(found.row_dual)
        row_price = np.minimum(self.row_duals, 0.0)
        reduced = np.array(found.col_dual)
        return Solution(values, objective, objective, row_price, np.minimum(reduced, 0.0), reduced)

"""What cars can have had by a slot, and can still have from one: bounds on their power that need no flow.

Pure. Outside an interval of slots the cars of some classes can take at most what their windows, their power and the
circuits above them let through, each circuit over all those slots together. What they want besides has to fit into the
interval. Of a flow's minimum cuts most are such intervals, so most of what a flow would tell is known beforehand.
"""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp

from smartcharging.engine.plan.large.site_power import Classes, Row, SitePower
from smartcharging.engine.plan.problem import Series
from smartcharging.engine.plan.program import Program
from smartcharging.engine.plan.rooms import Integers

NOTHING = 1e-6
AT_ONCE = 6
"""Intervals per class and stretch that are told at a time."""


class Envelopes:
    """Before each slot and from it on, what the classes up to a rank can have [kWh towards their goals]."""

    def __init__(self, program: Program, classes: Classes) -> None:
        self.program, self.classes = program, classes
        self._hours_by = np.concatenate([[0.0], np.cumsum(program.hours)])
        self._need_kwh = program.wanted_kwh / program.efficiency
        sessions = program.problem.sessions
        self._plugged_in = self._hours_by[[s.first_slot for s in sessions], None]
        self._leaves = self._hours_by[[s.last_slot for s in sessions], None]
        self._passes = np.zeros((program.passes_kw.shape[0], program.slots + 1))
        np.cumsum(program.passes_kw * program.hours, axis=1, out=self._passes[:, 1:])
        ends = np.arange(program.slots + 1)
        begin, end = np.zeros_like(ends), np.full_like(ends, program.slots)
        self._before = [self._of_every_rank(stretch, ends, end) for stretch in range(classes.stretches)]
        self._after = [self._of_every_rank(stretch, begin, ends) for stretch in range(classes.stretches)]

    def _of_every_rank(self, stretch: int, begin: Integers, end: Integers) -> Series:
        """What the classes up to each rank can have outside of each interval [begin, end)."""
        ranks, cars = self.classes.value.shape[0], np.flatnonzero(self.classes.stretch == stretch)
        each, passes = self._each(cars, begin, end), self._pass(begin, end)
        found, below = np.empty((ranks, begin.shape[0])), np.zeros_like(passes)
        for rank in range(ranks):
            chosen = np.flatnonzero(self.classes.rank[cars] == rank)
            below += self._at_circuits(cars[chosen]) @ each[chosen]
            found[rank] = self._let_through(below.copy(), passes)
        return found

    def most_outside(self, stretch: int, rank: Integers, begin: Integers, end: Integers) -> Series:
        """What the classes up to a rank can have outside of an interval [begin, end), for each of these."""
        cars = np.flatnonzero(self.classes.stretch == stretch)
        each = np.where(self.classes.rank[cars, None] <= rank, self._each(cars, begin, end), 0.0)
        return self._let_through(self._at_circuits(cars) @ each, self._pass(begin, end))

    def _each(self, cars: Integers, begin: Integers, end: Integers) -> Series:
        """What each of these cars could have outside of the intervals, if no circuit were in its way."""
        first, last = self._plugged_in[cars], self._leaves[cars]
        each: Series = np.clip(self._hours_by[begin], first, last)
        each -= np.clip(self._hours_by[end], first, last)
        each += last - first
        each *= self.program.max_kw[cars, None]
        return np.minimum(each, self._need_kwh[cars, None], out=each)

    def _pass(self, begin: Integers, end: Integers) -> Series:
        """What each circuit lets through outside of the intervals."""
        by = self._passes
        passes: Series = by.take(begin, axis=1)
        passes -= by.take(end, axis=1)
        passes += by[:, -1:]
        return passes

    def _at_circuits(self, cars: Integers) -> sp.csr_array:
        """Sums up what these cars have at each circuit."""
        places = (self.program.node[cars], np.arange(cars.shape[0]))
        return sp.csr_array((np.ones(cars.shape[0]), places), shape=(self._passes.shape[0], cars.shape[0]))

    def _let_through(self, below: Series, passes: Series) -> Series:
        """What comes up to the site of what the cars right below each circuit could have, towards their goals."""
        for level in self.program.upward:
            level.add(below, np.minimum(below.take(level.nodes, axis=0), passes.take(level.nodes, axis=0)))
        found: Series = float(self.program.efficiency[0]) * below[0]
        return found

    def broken(self, small: SitePower, values: Series) -> list[Row]:
        """Intervals for which the site gives less than what these classes want, less what they fall short of."""
        given = np.concatenate([[0.0], np.cumsum(small.gives * small.power(values))])
        short = small.short(values)
        rows = []
        for stretch in range(self.classes.stretches):
            if not self.classes.slots_of[stretch].size:  # of cars that come after the last slot
                continue
            rank, begin, end, wanted = self._most_lacking(stretch, given, short)
            if not rank.size:
                continue
            least = wanted - self.most_outside(stretch, rank, begin, end)
            for up_to, a, b, kwh in zip(rank.tolist(), begin, end, least.tolist(), strict=True):
                rows.append(Row(up_to, stretch, (self.program.t >= a) & (self.program.t < b), kwh))
        return rows

    def _most_lacking(self, stretch: int, given: Series, short: Series) -> tuple[Integers, Integers, Integers, Series]:
        """The intervals that lack most, of each rank the worst few: rank, begin, end, and what its classes want.

        `given` is what the site gives before each slot, `short` what each class falls short of.
        """
        slots, ranks = self.classes.slots_of[stretch], range(self.classes.value.shape[0])
        begin, end = slots, slots + 1
        found = []
        for rank in ranks:
            columns = self.classes.columns_up_to(rank, stretch)
            wanted = float(self.classes.wanted_kwh[columns].sum())
            outside = self._before[stretch][rank, begin, None] + self._after[stretch][rank, end]
            lacking = wanted - float(short[columns].sum()) - outside - given[end] + given[begin, None]
            lacking[end <= begin[:, None]] = 0.0
            first, last = _worst(lacking, AT_ONCE, NOTHING * wanted)
            found.append((np.full_like(first, rank), begin[first], end[last], np.full(first.shape, wanted)))
        of_rank, begins, ends, needs = (np.concatenate(parts) for parts in zip(*found, strict=True))
        return of_rank, begins, ends, needs


def _worst(lacking: Series, few: int, more_than: float) -> tuple[Integers, Integers]:
    """Where a table has its largest values: of each row the largest, a few of these, and likewise of the columns."""
    row, column = np.arange(lacking.shape[0]), np.arange(lacking.shape[1])
    rows = np.concatenate([row, lacking.argmax(axis=0)])
    columns = np.concatenate([lacking.argmax(axis=1), column])
    most = lacking[rows, columns]
    chosen = np.concatenate([np.argsort(-most[: row.size])[:few], row.size + np.argsort(-most[row.size :])[:few]])
    chosen = chosen[most[chosen] > more_than]
    cells = np.unique(rows[chosen] * column.size + columns[chosen])
    return cells // column.size, cells % column.size

"""What cars can have had by a slot, and can still have from one: bounds on their power that need no flow.

Pure. Outside an interval of slots the cars of some classes can take at most what their windows, their power and the
circuits above them let through, each circuit over all those slots together. What they want besides has to fit into the
interval. Of a flow's minimum cuts most are such intervals, so most of what a flow would tell is known beforehand.
"""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp

from smartcharging.engine import rooms
from smartcharging.engine.problem import Series
from smartcharging.engine.program import Program
from smartcharging.engine.rooms import Integers
from smartcharging.engine.site_power import Classes, Row, SitePower

NOTHING = 1e-6
AT_ONCE = 4
"""Intervals per class and stretch that are told at a time."""


class Envelopes:
    """Before each slot and from it on, what the classes up to a rank can have [kWh towards their goals]."""

    def __init__(self, program: Program, classes: Classes) -> None:
        self.program, self.classes = program, classes
        self._hours_by = np.concatenate([[0.0], np.cumsum(program.hours)])
        self._tree = _Tree(program)
        self._passes = np.zeros((program.passes_kw.shape[0], program.slots + 1))
        np.cumsum(program.passes_kw * program.hours, axis=1, out=self._passes[:, 1:])
        self._first = np.array([s.first_slot for s in program.problem.sessions], dtype=np.int64)
        self._last = np.array([s.last_slot for s in program.problem.sessions], dtype=np.int64)
        ends = np.arange(program.slots + 1)
        self._before, self._after = [], []
        for rank in range(classes.value.shape[0]):
            before, after = [], []
            for stretch in range(classes.stretches):
                before.append(self._most(rank, stretch, ends, np.full_like(ends, program.slots)))
                after.append(self._most(rank, stretch, np.zeros_like(ends), ends))
            self._before.append(before)
            self._after.append(after)

    def _most(self, rank: int, stretch: int, begin: Integers, end: Integers) -> Series:
        """What these classes can have outside each interval [begin, end)."""
        program, by = self.program, self._hours_by
        cars = np.flatnonzero(self.classes.up_to(rank) & (self.classes.stretch == stretch))
        first, last = self._first[cars, None], self._last[cars, None]
        hours = by[np.clip(begin, first, last)] - by[first] + by[last] - by[np.clip(end, first, last)]
        each = np.minimum(program.max_kw[cars, None] * hours, (program.wanted_kwh / program.efficiency)[cars, None])
        passes = self._passes[:, begin] + self._passes[:, -1:] - self._passes[:, end]
        return float(program.efficiency[0]) * self._tree.most(each, cars, passes)

    def broken(self, small: SitePower, values: Series) -> list[Row]:
        """Intervals for which the site gives less than what these classes want, less what they fall short of."""
        given = np.concatenate([[0.0], np.cumsum(small.gives * small.power(values))])
        short = small.short(values)
        rows = []
        for rank in range(self.classes.value.shape[0]):
            for stretch in range(self.classes.stretches):
                columns = self.classes.columns_up_to(rank, stretch)
                wanted = float(self.classes.wanted_kwh[columns].sum())
                slots = self.classes.slots_of[stretch]
                begin, end = slots, slots + 1
                outside = self._before[rank][stretch][begin, None] + self._after[rank][stretch][end]
                lacking = wanted - float(short[columns].sum()) - outside - given[end] + given[begin, None]
                lacking[end <= begin[:, None]] = 0.0
                worst = lacking.argmax(axis=1)
                most = lacking[np.arange(begin.shape[0]), worst]
                chosen = np.argsort(-most)[:AT_ONCE]
                chosen = chosen[most[chosen] > NOTHING * wanted]
                if not chosen.size:
                    continue
                outside = self._most(rank, stretch, begin[chosen], end[worst[chosen]])
                for a, b, kwh in zip(begin[chosen], end[worst[chosen]], outside, strict=True):
                    inside = (self.program.t >= a) & (self.program.t < b)
                    rows.append(Row(rank, stretch, inside, wanted - float(kwh)))
        return rows


class _Tree:
    """Sums up the circuits, each of which lets only so much through."""

    def __init__(self, program: Program) -> None:
        self._node = program.node
        parents = np.array([c.parent or 0 for c in program.problem.grid.circuits], dtype=np.int64)
        depth = rooms.depths(program.problem.grid)
        self._size = parents.shape[0]
        self._levels: list[tuple[Integers, Integers, Integers]] = []
        for level in range(int(depth.max(initial=0)), 0, -1):
            nodes = np.flatnonzero(depth == level)
            nodes = nodes[np.argsort(parents[nodes], kind="stable")]
            above, starts = np.unique(parents[nodes], return_index=True)
            self._levels.append((nodes, starts, above))

    def most(self, each: Series, cars: Integers, passes: Series) -> Series:
        """What comes up to the site of what each of these cars could have (a row per car)."""
        place = sp.csr_array(
            (np.ones(cars.shape[0]), (self._node[cars], np.arange(cars.shape[0]))), shape=(self._size, cars.shape[0])
        )
        total: Series = np.asarray(place @ each)
        for nodes, starts, above in self._levels:
            through = np.minimum(total[nodes], passes[nodes])
            total[above] += np.add.reduceat(through, starts, axis=0)
        found: Series = total[0]
        return found

"""Sums up the circuits of a site, level by level: what comes together at each from those right below it.

Pure. A table has a row for each circuit; what its rows hold besides (slots, kinds, intervals) is the same for all.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

from smartcharging.engine.grid import Grid
from smartcharging.engine.plan import rooms
from smartcharging.engine.plan.problem import Series
from smartcharging.engine.plan.rooms import Integers


@dataclass(frozen=True)
class Level:
    """Circuits with as many others above each of them, and the one right above each."""

    nodes: Integers
    parents: Integers
    _above: Integers
    _belongs: sp.csr_array

    @classmethod
    def of(cls, nodes: Integers, parents: Integers) -> Level:
        above, count = np.unique(parents, return_counts=True)
        rows = np.argsort(parents, kind="stable"), np.concatenate([[0], np.cumsum(count)])
        belongs = sp.csr_array((np.ones(nodes.shape[0]), *rows), shape=(above.shape[0], nodes.shape[0]))
        return cls(nodes, parents, above, belongs)

    def add(self, table: Series, rows: Series) -> None:
        """Add these rows, one for each circuit of the level, to those of the circuits above."""
        sums = self._belongs @ rows.reshape(rows.shape[0], -1)
        table[self._above] += sums.reshape(-1, *table.shape[1:])


class Upward:
    """The levels of a tree, the deepest first; the grid connection is above the last and in none."""

    def __init__(self, grid: Grid) -> None:
        parents = np.array([c.parent or 0 for c in grid.circuits], dtype=np.int64)
        depth = rooms.depths(grid)
        levels = [np.flatnonzero(depth == d) for d in range(int(depth.max(initial=0)), 0, -1)]
        self._levels = [Level.of(nodes, parents[nodes]) for nodes in levels]

    def __iter__(self) -> Iterator[Level]:
        return iter(self._levels)

    def __reversed__(self) -> Iterator[Level]:
        return reversed(self._levels)

"""Sums up the tree and minima down it, for all nodes and all phases at once.

Pure. A table has one row per node and a column for each of L1, L2, L3 and their sum. Cars hang on leaves in the
order of their leaf, so that the cars of one leaf stand together. Inside, nodes are laid in a row so that everything
below a node stands right behind it: what is below is then one stretch of that row.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property, lru_cache

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.intp]
_FIRST: Ints = np.zeros(1, dtype=np.intp)


class Shape:
    """A tree without its cars: the places of its nodes. `parents[i]` is the node above node i, -1 for the root."""

    def __init__(self, parents: tuple[int, ...]) -> None:
        self.size = len(parents)
        self.parents = parents
        self._paths: dict[int, tuple[int, ...]] = {}
        depth = [0] * self.size
        for i, above in enumerate(parents):
            if above >= 0:
                depth[i] = depth[above] + 1
        self.depth = np.array(depth)
        self.height = max(depth)
        self._lay()
        self.climbs = self._strides()

    def _lay(self) -> None:
        """Give every node its place in the row, and find where the stretch of each place ends."""
        below = [1] * self.size
        for i in range(self.size - 1, 0, -1):
            below[self.parents[i]] += below[i]
        place, free = [0] * self.size, [1] * self.size  # `free`: where a node's next child goes
        for i, above in enumerate(self.parents):
            if above >= 0:
                place[i] = free[above]
                free[above] += below[i]
                free[i] = place[i] + 1
        self.place: Ints = np.array(place, dtype=np.intp)
        # Most nodes have nothing below them. Between two stretches `reduceat` answers something that nobody asked.
        stretches = sorted((first, first + many) for first, many in zip(place, below, strict=True) if many > 1)
        self.spans: Ints = np.array(stretches, dtype=np.intp).ravel()
        self.forks = self.spans[::2]

    def _strides(self) -> list[Ints]:
        """The node one, two, four, … above each, as far as the tree is high; above the root is the root."""
        up = np.maximum(np.asarray(self.parents, dtype=np.intp), 0)
        climbs: list[Ints] = []
        while 2 ** len(climbs) <= self.height:
            climbs.append(up)
            up = up[up]
        return climbs

    @cached_property
    def levels(self) -> list[tuple[Ints, Ints]]:
        """The nodes of each depth and those above them, from the leaves upwards."""
        nodes = [np.flatnonzero(self.depth == level) for level in range(self.height, 0, -1)]
        return [(some, np.asarray(self.parents)[some]) for some in nodes]

    def path(self, node: int) -> tuple[int, ...]:
        """The node and everything above it."""
        if node not in self._paths:
            above = self.parents[node]
            self._paths[node] = (node,) if above < 0 else (node, *self.path(above))
        return self._paths[node]


@lru_cache(maxsize=64)
def shape_of(parents: tuple[int, ...]) -> Shape:
    """Kept from one cycle to the next: a site's circuits and stations stay where they are for months."""
    return Shape(parents)


class Tree:
    """The cars on a shape; node 0 is the root, `at` is each car's node, sorted."""

    def __init__(self, parents: Sequence[int], at: Ints) -> None:
        self._hang(shape_of(tuple(parents)), at)

    def _hang(self, shape: Shape, at: Ints) -> None:
        self.shape, self.size, self.at = shape, shape.size, at
        (changes,) = (at[1:] != at[:-1]).nonzero()
        self._starts = np.concatenate((_FIRST, changes + 1)) if at.size else at
        self._leaves = shape.place[at[self._starts]]

    def among(self, cars: Ints) -> Tree:
        """The same tree with some of its cars, named by their places and in their order."""
        some = Tree.__new__(Tree)
        some._hang(self.shape, self.at[cars])
        return some

    def sums(self, of_cars: Floats) -> Floats:
        """What the cars below each node add up to. `of_cars` has a row per car."""
        row = np.zeros((self.size + 1, of_cars.shape[1]))
        if self.at.size:
            row[self._leaves] = np.add.reduceat(of_cars, self._starts, axis=0)
        return self._below(np.add, row)

    def sums_of_nodes(self, of_nodes: Floats) -> Floats:
        """Each node's own value with everything below it."""
        row = np.zeros((self.size + 1, of_nodes.shape[1]))
        row[self.shape.place] = of_nodes
        return self._below(np.add, row)

    def least_below(self, of_cars: Floats) -> Floats:
        """The smallest value of the cars below each node; infinite where there are none."""
        row = np.full((self.size + 1, of_cars.shape[1]), np.inf)
        if self.at.size:
            row[self._leaves] = np.minimum.reduceat(of_cars, self._starts, axis=0)
        return self._below(np.minimum, row)

    def _below(self, taken: np.ufunc, row: Floats) -> Floats:
        """Each node's stretch of the row, taken together. The row ends in a place that belongs to nobody."""
        shape = self.shape
        if shape.forks.size:
            row[shape.forks] = taken.reduceat(row, shape.spans, axis=0)[::2]
        return picked(row, shape.place)

    def least_above(self, of_nodes: Floats) -> Floats:
        """The smallest value on the way from each node to the root, itself included."""
        least = of_nodes
        for climb in self.shape.climbs:  # each stride doubles the way that is seen
            least = np.minimum(least, picked(least, climb))
        return least

    def on_the_way(self, of_nodes: Floats) -> Floats:
        """`least_above` for the node of each car."""
        return picked(self.least_above(of_nodes), self.at)

    def sums_up_to(self, own: Floats, fixed: NDArray[np.bool_]) -> Floats:
        """Each node's own value and its children's; a `fixed` node keeps its own, whatever is below it."""
        total = own.copy()
        for nodes, above in self.shape.levels:
            kept = np.where(fixed[above, None], 0.0, total[nodes])
            np.add.at(total, above, kept)
        return total

    def nearest_above(self, marked: NDArray[np.bool_]) -> Ints:
        """For each node the nearest marked one on its way up, itself included; the root where there is none."""
        nearest = np.arange(self.size) * marked
        for nodes, above in reversed(self.shape.levels):
            nearest[nodes] = np.where(marked[nodes], nodes, nearest[above])
        return nearest

    def path(self, node: int) -> tuple[int, ...]:
        """The node and everything above it."""
        return self.shape.path(node)


def known_or(values: Floats, otherwise: float) -> Floats:
    """The values, and something else for those that are not known (NaN)."""
    return np.where(np.isnan(values), otherwise, values)


def picked(table: Floats, which: Ints) -> Floats:
    """These rows of a table; many times as quick as `table[which]` for a table of a few columns."""
    return table.take(which, axis=0)


def least_of(table: Floats) -> Floats:
    """The smallest of each row; many times as quick as `min(axis=1)` for a table of a few columns."""
    return _across(np.minimum, table)


def most_of(table: Floats) -> Floats:
    return _across(np.maximum, table)


def sum_of(table: Floats) -> Floats:
    return _across(np.add, table)


def _across(taken: np.ufunc, table: Floats) -> Floats:
    found: Floats = table[:, 0]
    for column in range(1, table.shape[1]):
        found = taken(found, table[:, column])
    return found

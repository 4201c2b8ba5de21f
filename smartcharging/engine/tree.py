"""Sums up the tree and minima down it, for all nodes and all phases at once.

Pure. A table has one row per node and a column for each of L1, L2, L3 and their sum. Cars hang on leaves in the
order of their leaf, so that the cars of one leaf stand together.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.intp]


class Tree:
    """`parents[i]` is the node above node i (-1 for the root, which is node 0); `at` is each car's node, sorted."""

    def __init__(self, parents: Sequence[int], at: Ints) -> None:
        self.size = len(parents)
        self._parents = list(parents)
        self._paths: dict[int, tuple[int, ...]] = {}
        self.parent: Ints = np.asarray(parents, dtype=np.intp)
        depth = [0] * self.size
        for i, above in enumerate(parents):
            if above >= 0:
                depth[i] = depth[above] + 1
        self._levels: list[tuple[Ints, Ints, Ints]] = []  # nodes of a level, where each family starts, its parent
        depths = self.depth = np.asarray(depth)
        for level in range(1, max(depth) + 1):
            nodes = np.flatnonzero(depths == level)
            nodes = nodes[np.argsort(self.parent[nodes], kind="stable")]
            above_of = self.parent[nodes]
            starts = np.flatnonzero(np.r_[True, above_of[1:] != above_of[:-1]])
            self._levels.append((nodes, starts, above_of[starts]))
        self._hang(at)

    def _hang(self, at: Ints) -> None:
        self.at = at
        self._starts = np.flatnonzero(np.r_[True, at[1:] != at[:-1]]) if at.size else at
        self._leaves = at[self._starts]

    def among(self, cars: Ints) -> Tree:
        """The same tree with some of its cars, named by their places and in their order."""
        some = copy(self)
        some._hang(self.at[cars])
        return some

    def sums(self, of_cars: Floats) -> Floats:
        """What the cars below each node add up to. `of_cars` has a row per car."""
        total = np.zeros((self.size, of_cars.shape[1]))
        if self.at.size:
            total[self._leaves] = np.add.reduceat(of_cars, self._starts, axis=0)
        return self.sums_of_nodes(total)

    def sums_of_nodes(self, of_nodes: Floats) -> Floats:
        """Each node's own value with everything below it."""
        total = of_nodes.copy()
        for nodes, starts, above in reversed(self._levels):
            total[above] += np.add.reduceat(total[nodes], starts, axis=0)
        return total

    def least_below(self, of_cars: Floats) -> Floats:
        """The smallest value of the cars below each node; infinite where there are none."""
        least = np.full((self.size, of_cars.shape[1]), np.inf)
        if self.at.size:
            least[self._leaves] = np.minimum.reduceat(of_cars, self._starts, axis=0)
        for nodes, starts, above in reversed(self._levels):
            least[above] = np.minimum(least[above], np.minimum.reduceat(least[nodes], starts, axis=0))
        return least

    def least_above(self, of_nodes: Floats) -> Floats:
        """The smallest value on the way from each node to the root, itself included."""
        least = of_nodes.copy()
        for nodes, _, _ in self._levels:
            least[nodes] = np.minimum(least[nodes], least[self.parent[nodes]])
        return least

    def sums_up_to(self, own: Floats, fixed: NDArray[np.bool_]) -> Floats:
        """Each node's own value and its children's; a `fixed` node keeps its own, whatever is below it."""
        total = own.copy()
        for nodes, starts, above in reversed(self._levels):
            below = np.add.reduceat(total[nodes], starts, axis=0)
            total[above] += np.where(fixed[above, None], 0.0, below)
        return total

    def path(self, node: int) -> tuple[int, ...]:
        """The node and everything above it."""
        if node not in self._paths:
            above = self._parents[node]
            self._paths[node] = (node,) if above < 0 else (node, *self.path(above))
        return self._paths[node]

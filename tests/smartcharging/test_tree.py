"""The tree's sums and minima, asked of random trees beside a plain walk from node to node."""

from __future__ import annotations

import random

import numpy as np
import pytest

from smartcharging.engine.live.tree import Tree


class Walk:
    """A random tree with cars on it, and what its answers must be."""

    def __init__(self, seed: int) -> None:
        chance = random.Random(seed)
        self.size = chance.randint(1, 30)
        self.parents = [-1] + [chance.randrange(i) for i in range(1, self.size)]
        self.at = sorted(chance.randrange(self.size) for _ in range(chance.randint(0, 40)))
        self.tree = Tree(self.parents, np.array(self.at, dtype=np.intp))
        numbers = np.random.default_rng(seed)
        self.cars = numbers.integers(-50, 50, (len(self.at), 4)).astype(float)
        self.nodes = numbers.integers(-50, 50, (self.size, 4)).astype(float)
        self.fixed = numbers.random(self.size) < 0.3

    def up(self, node: int) -> list[int]:
        return [node] if self.parents[node] < 0 else [node, *self.up(self.parents[node])]

    def cars_below(self, node: int) -> list[int]:
        return [i for i, at in enumerate(self.at) if node in self.up(at)]

    def up_to(self, node: int) -> np.ndarray:
        children = [] if self.fixed[node] else [i for i, above in enumerate(self.parents) if above == node]
        return self.nodes[node] + sum((self.up_to(child) for child in children), np.zeros(4))


@pytest.mark.parametrize("seed", range(40))
def test_what_is_below_is_added_up_as_a_walk_would(seed):
    walk = Walk(seed)

    of_cars, of_nodes = walk.tree.sums(walk.cars), walk.tree.sums_of_nodes(walk.nodes)

    for node in range(walk.size):
        below = [n for n in range(walk.size) if node in walk.up(n)]
        assert of_cars[node].tolist() == walk.cars[walk.cars_below(node)].sum(axis=0).tolist()
        assert of_nodes[node].tolist() == walk.nodes[below].sum(axis=0).tolist()


@pytest.mark.parametrize("seed", range(40))
def test_the_least_on_the_way_and_below_is_what_a_walk_finds(seed):
    walk = Walk(seed)

    below, above = walk.tree.least_below(walk.cars), walk.tree.least_above(walk.nodes)

    for node in range(walk.size):
        mine = walk.cars[walk.cars_below(node)]
        assert below[node].tolist() == mine.min(axis=0, initial=np.inf).tolist()
        assert above[node].tolist() == walk.nodes[walk.up(node)].min(axis=0).tolist()
    assert walk.tree.on_the_way(walk.nodes).tolist() == above[walk.at].tolist()


@pytest.mark.parametrize("seed", range(40))
def test_a_fixed_node_keeps_its_own_whatever_is_below_it(seed):
    walk = Walk(seed)

    total = walk.tree.sums_up_to(walk.nodes, walk.fixed)

    assert total.tolist() == [walk.up_to(node).tolist() for node in range(walk.size)]


@pytest.mark.parametrize("seed", range(20))
def test_some_of_the_cars_are_seen_on_the_same_tree(seed):
    walk = Walk(seed)
    some = np.flatnonzero(walk.cars[:, 0] > 0)

    seen = walk.tree.among(some).sums(walk.cars[some])

    assert seen.tolist() == walk.tree.sums(np.where(walk.cars[:, :1] > 0, walk.cars, 0.0)).tolist()


@pytest.mark.parametrize("seed", range(20))
def test_the_nearest_marked_node_is_the_first_on_the_way_up(seed):
    walk = Walk(seed)

    nearest = walk.tree.nearest_above(walk.fixed)

    for node in range(walk.size):
        assert nearest[node] == next((n for n in walk.up(node) if walk.fixed[n]), 0)

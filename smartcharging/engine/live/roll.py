"""Who is on the site in this moment: the sessions of a snapshot in the order of the tree, each hung on its leaf.

Pure. EVSEs of one station that share a maximum hang on a small node of their own below their circuit.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from smartcharging.engine.live.columns import Columns, columns, read
from smartcharging.engine.live.tree import Floats, Ints, Tree
from smartcharging.engine.snapshot import Snapshot


@dataclass(frozen=True)
class Roll:
    """Sorted by leaf and key, so that nothing depends on how sessions were listed."""

    keys: tuple[str, ...]
    alphabet: Ints  # the place of each key among all, were they sorted
    tree: Tree
    shared_a: Floats  # the maximum of each station node; they come behind the circuits
    facts: Columns

    @classmethod
    def of(cls, snapshot: Snapshot) -> Roll:
        table = read(snapshot.sessions, snapshot.now)
        parents, leaves, shared = _leaves(snapshot, table["node"])
        names = [s.key for s in snapshot.sessions]
        by_name = np.array(sorted(range(len(names)), key=names.__getitem__), dtype=np.intp)
        alphabet = np.argsort(leaves[by_name], kind="stable")
        order = by_name[alphabet]
        return cls(
            tuple(map(names.__getitem__, order.tolist())),
            alphabet,
            Tree(parents, leaves[order]),
            shared,
            columns(table, order),
        )


def _leaves(snapshot: Snapshot, nodes: Ints) -> tuple[list[int], Ints, Floats]:
    """Parents of all tree nodes, the leaf of each session, and the shared maximum of each station node."""
    parents = [-1 if c.parent is None else c.parent for c in snapshot.grid.circuits]
    lost = np.flatnonzero((nodes < 0) | (nodes >= len(parents)))
    if lost.size:
        session = snapshot.sessions[lost[0]]
        raise IndexError(f"session {session.key!r}: there is no node {session.node}")
    grouped = [i for i, s in enumerate(snapshot.sessions) if s.group is not None and s.group_max_a is not None]
    if not grouped:
        return parents, nodes, np.zeros(0)
    some = [snapshot.sessions[i] for i in grouped]
    count, group = len(parents), np.array([s.group for s in some], dtype=np.int64)
    groups, group_of, sizes = np.unique(group, return_inverse=True, return_counts=True)
    maxima = np.full(len(groups), np.inf)
    np.minimum.at(maxima, group_of, np.array([s.group_max_a for s in some], dtype=float))
    places, leaf_of, evses = np.unique(group_of * count + nodes[grouped], return_inverse=True, return_counts=True)
    leaves = nodes.copy()
    leaves[grouped] = count + leaf_of
    of = places // count
    # A station fed from two circuits is no tree; each circuit then gets its EVSEs' part of the maximum.
    shared = np.maximum(maxima[of], 0.0) * evses / sizes[of]
    return [*parents, *(places % count).tolist()], leaves, shared

"""Weighted max-min sharing by progressive filling: raise everybody together, and stop each where something binds.

Pure. The result is the one allocation in which no car can gain without taking from a car that has no more than it
has (in proportion to its weight).
"""

from __future__ import annotations

import numpy as np

from smartcharging.engine.tree import Floats, Tree

EPS = 1e-9


def fill(tree: Tree, room: Floats, low: Floats, cap: Floats, weight: Floats, uses: Floats) -> tuple[Floats, Floats]:
    """Raise cars from `low` towards `cap` in proportion to `weight`; returns what each has, and the room left.

    `room` is what each node still allows after `low`; where it is negative nobody rises. `uses` says how much of
    each column one amp of a car takes. A car whose cap is not above its low stays where it is.

    All bottlenecks that do not depend on another one are closed in the same round, so the number of rounds is
    bounded by the depth of the dependencies and not by the number of circuits.
    """
    cap = np.maximum(cap, low)
    left = room - tree.sums((cap - low)[:, None] * uses)
    touched = tree.sums(((cap - low) > EPS)[:, None] * uses) > 0
    if np.all((left >= -EPS) | ~touched):
        return cap, left  # there is enough for all

    value = low.copy()
    room = room.copy()
    live = cap > low + EPS
    cap_level = np.where(live, (cap - low) / weight, np.inf)
    used = uses > 0
    while live.any():
        demand = tree.sums(np.where(live, weight, 0.0)[:, None] * uses)
        wanted = demand > EPS
        level = np.where(wanted, np.maximum(room, 0.0) / np.where(wanted, demand, 1.0), np.inf)
        reach = np.where(used, tree.least_above(level)[tree.at], np.inf).min(axis=1)
        mine = np.minimum(reach, cap_level)
        # A level can only grow as others drop out: a cap below it is certain to be reached …
        capped = live & (cap_level <= reach)
        # … and a row is full once every car on it can climb at least as high as the row allows.
        climb = tree.least_below(np.where(live[:, None] & used, mine[:, None], np.inf))
        full = wanted & (level <= climb + EPS)
        under_full = np.where(used, tree.least_above(np.where(full, -1.0, 0.0))[tree.at], 0.0).min(axis=1) < 0
        done = capped | (live & under_full)
        gain = np.where(done, np.where(capped, cap - low, weight * mine), 0.0)
        value += gain
        room -= tree.sums(gain[:, None] * uses)
        live &= ~done
    return value, room

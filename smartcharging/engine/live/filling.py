"""Weighted max-min sharing by progressive filling: raise everybody together, and stop each where something binds.

Pure. The result is the one allocation in which no car can gain without taking from a car that has no more than it
has (in proportion to its weight).
"""

from __future__ import annotations

import numpy as np

from smartcharging.engine.live.tree import Floats, Tree, least_of, picked

EPS = 1e-9


def fill(tree: Tree, room: Floats, low: Floats, cap: Floats, weight: Floats, uses: Floats) -> tuple[Floats, Floats]:
    """Raise cars from `low` towards `cap` in proportion to `weight`; returns what each has, and the room left.

    `room` is what each node still allows after `low`; where it is negative nobody rises. `uses` says how much of
    each column one amp of a car takes. A car whose cap is not above its low stays where it is.

    All bottlenecks that do not depend on another one are closed in the same round, so the number of rounds is
    bounded by the depth of the dependencies and not by the number of circuits. A round that closes nobody is the last,
    so there are never more rounds than cars.
    """
    value = low.copy()
    live = np.flatnonzero(cap > low + EPS)
    if not live.size:
        return value, room
    some, used, heavy = tree.among(live), picked(uses, live), weight[live]
    gap = (cap - low)[live]
    left = room - some.sums(gap[:, None] * used)
    demand = some.sums(heavy[:, None] * used)
    if ((left >= -EPS) | (demand <= 0)).all():
        value[live] = cap[live]
        return value, left  # there is enough for all

    room = room.copy()
    apart = np.where(used > 0, 0.0, np.inf)  # a column that a car does not use never stops it
    while True:
        wanted = ~(demand <= EPS)  # also where it is no number: nobody rises there
        level = np.where(wanted, np.maximum(room, 0.0) / np.where(wanted, demand, 1.0), np.inf)
        reach = least_of(some.on_the_way(level) + apart)
        mine = np.minimum(reach, gap / heavy)
        # A level can only grow as others drop out: a cap below it is certain to be reached …
        capped = gap <= reach * heavy
        # … and a row is full once every car on it can climb at least as high as the row allows.
        full = wanted & (level <= some.least_below(mine[:, None] + apart) + EPS)
        under_full = least_of(some.on_the_way(np.where(full, -1.0, 0.0)) + apart) < 0
        done = capped | under_full
        if not done.any():  # only where something is no number: nobody rises for that
            return value, room
        gain = np.where(done, np.where(capped, gap, heavy * mine), 0.0)
        value[live] += gain
        room -= some.sums(gain[:, None] * used)
        (stays,) = (~done).nonzero()
        if not stays.size:
            return value, room
        live, gap, heavy = live[stays], gap[stays], heavy[stays]
        used, apart, some = picked(used, stays), picked(apart, stays), some.among(stays)
        demand = some.sums(heavy[:, None] * used)

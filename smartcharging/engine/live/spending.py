"""What the plan meant for this slot, spent in this slot: its watts in shares that cars can really take.

Pure. A plan's power is a budget for the site, cut into pieces for cars. Three things keep a piece from being spent: a
car takes a little less than it is offered, a tapering one much less, and a piece below a car's minimum cannot be had at
all. What is left by the one is spent by the other: pieces below the minimum are put together until they make one,
and the rest raises those whom the plan has charging in this very slot. Nobody the plan has waiting is started for it.
Limits come after this (`aim.py`), as with any plan.
"""

from __future__ import annotations

import numpy as np

from smartcharging.engine.live.tree import Floats
from smartcharging.engine.priorities import Flags

STARTS_AT = 0.5  # of a minimum must be there to start somebody with it …
STAYS_AT = 0.25  # … and this much to keep him on


def spend(
    planned_a: Floats, cap_a: Floats, min_a: Floats, units: Floats, takes: Floats, running: Flags, order: Floats
) -> Floats:
    """Amps for each car so that they together use what was planned. `planned_a` is 0 where nothing is planned.

    `units` says what one amp of each counts in the sum, `takes` what share of an offer each is known to use, `order`
    who of several slivers comes first (the smallest number).
    """
    target = np.where(planned_a >= min_a, np.minimum(planned_a, cap_a), 0.0)
    pool = float(((planned_a - target * takes) * units).sum())
    slivers = np.flatnonzero((planned_a > 0) & (target <= 0) & (cap_a >= min_a))
    first = np.lexsort((order[slivers], -planned_a[slivers], ~running[slivers]))
    waiting = slivers[first]
    costs = (min_a * units * takes)[waiting]
    needs = costs * np.where(running[waiting], STAYS_AT, STARTS_AT)
    for i, cost, need in zip(waiting.tolist(), costs.tolist(), needs.tolist(), strict=True):
        if pool >= need:
            target[i] = min_a[i]
            pool -= cost
    room = np.where(target > 0, np.maximum(cap_a - target, 0.0), 0.0)
    whole = float((room * units * takes).sum())
    if pool <= 0 or whole <= 0:
        return target
    spent: Floats = target + room * min(pool / whole, 1.0)
    return spent

"""What the boards below the connection carry besides cars, batteries and planned loads: as measured now, and from then
on as the building's forecast goes up and down.

There is no forecast for each board. The building's is the best word on when there is more and when there is less; the
sun on a board goes with the site's. A board without a meter, or with a silent one, carries what is known below it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from smartcharging.engine.carried import last_other_load
from smartcharging.engine.grid import NOMINAL_V
from smartcharging.engine.limits import SUM
from smartcharging.engine.loads.kinds import Load
from smartcharging.engine.plan.problem import Series
from smartcharging.gather import View

LEAST_W = 500.0  # below this a site's load or sun has no shape worth following
MOST_TIMES = 4.0


def expected_w(view: View, loads: Sequence[Load], building_w: Series, pv_w: Series) -> dict[int, Series]:
    """By circuit below the connection: what its meter would see without cars, batteries and these loads."""
    snapshot = view.snapshot
    carried = snapshot.carried
    if carried is None or not building_w.shape[0]:
        return {}
    other_a = last_other_load(carried, snapshot.grid.names, carried.other_a.shape[1])
    if other_a is None or other_a.shape[1] <= SUM:
        return {}
    found: dict[int, Series] = {}
    for n, reading in snapshot.readings.items():
        planned_w = sum(_drawn_w(view, load) for load in loads if _below(view, load, n))
        now_w = float(other_a[n, SUM]) * NOMINAL_V - planned_w
        if n and reading.current_a is not None and np.isfinite(now_w):
            found[n] = now_w * (_shape(building_w) if now_w >= 0 else _shape(-pv_w))
    return found


def _shape(series: Series) -> Series:
    """How many times its present value it will have; always once where it has none worth the name."""
    first = float(series[0])
    if not first > LEAST_W:
        return np.ones(series.shape[0])
    times: Series = np.clip(np.where(np.isfinite(series), series, first) / first, 0.0, MOST_TIMES)
    return times


def _below(view: View, load: Load, node: int) -> bool:
    return node in view.snapshot.grid.path(load.node)


def _drawn_w(view: View, load: Load) -> float:
    found = view.live.get(int(load.key))
    return found.power_w or 0.0 if found is not None else 0.0

"""The planning problem of one site, and its answer: what `plan.py` solves.

Pure. Arrays have one value per slot (`T` of them). Power in W, energy in Wh, money in EUR; load-positive.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

import numpy as np
from numpy.typing import NDArray

from smartcharging.engine.grid import Grid
from smartcharging.engine.snapshot import BatteryState, Mode

Series = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class PlanSession:
    """A car (present, or promised by a goal) between two slots: [first_slot, last_slot)."""

    key: str  # the EVSE's database key as text
    node: int
    phases: tuple[bool, bool, bool]
    first_slot: int
    last_slot: int
    max_w: float
    min_w: float  # below it only 0 is legal; the live layer sees to that, the plan only knows
    energy_wh: float  # at the meter, still wanted
    priority: int = 1
    mode: Mode = Mode.PLAN
    efficiency: float = 1.0  # share of the energy at the meter that counts towards the goal


@dataclass(frozen=True)
class PlanProblem:
    """Everything the plan depends on."""

    start: datetime
    slot_s: int
    grid: Grid
    sessions: tuple[PlanSession, ...]
    building_w: Series  # uncontrolled load at the grid connection, expected (≥ 0)
    pv_w: Series  # expected, ≤ 0
    import_eur_per_kwh: Series
    export_eur_per_kwh: Series
    battery: BatteryState | None = None
    month_peak_w: float = 0.0
    peak_eur_per_kw: float = 0.0
    import_limit_w: Series | None = None  # grid operator, contract; None = only the tree
    export_limit_w: Series | None = None
    node_background_w: Mapping[int, Series] = field(default_factory=dict)  # load below a node, not of cars
    time_limit_s: float = 20.0

    @property
    def slots(self) -> int:
        return int(self.building_w.shape[0])


@dataclass(frozen=True)
class PlanResult:
    """What to do per slot, what falls short and why, and how far from the optimum at most (`gap`, relative)."""

    status: str  # optimal | feasible | fallback
    session_w: Mapping[str, Series]
    battery_w: Series
    grid_w: Series
    pv_w: Series  # after curtailment
    shortfall_wh: Mapping[str, float]
    shortfall_reason: Mapping[str, str]
    objective_eur: float | None
    gap: float | None
    solve_s: float
    peak_w: float = 0.0
    binding: tuple[str, ...] = ()  # names of constraints that bind

"""The planning problem of one site, and its answer: what `solve.py` solves.

Pure. Arrays have one value per slot (`T` of them). Power in W, energy in Wh, money in EUR; load-positive.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

import numpy as np
from numpy.typing import NDArray

from smartcharging.engine.grid import Grid
from smartcharging.engine.loads.kinds import Load
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
    energy_wh: float  # still wanted, where its power counts; of a DC station at the AC input
    priority: int = 1
    mode: Mode = Mode.PLAN
    efficiency: float = 1.0  # share of the energy at the meter that counts towards the goal
    name: str = ""  # under which its shortfall is reported; empty: its key (one EVSE may see several cars in a day)
    value_eur_per_kwh: float | None = None  # what a kWh short costs; None: more than any money, by priority class
    group: int | None = None  # EVSEs of one station share `group_max_a`, per phase
    group_max_a: float | None = None
    discharge_w: float = 0.0  # what the car can give back, if its driver lends any of what is in it …
    lends_wh: float = 0.0  # … so much, at the meter, to be back by the departure as far as the goal asks
    wear_eur_per_kwh: float = 0.0  # of a car that gives, each kWh in or out
    gone_eur_per_kwh: tuple[float, ...] = ()  # by slot of the horizon: what a kWh loses there, as the car may have left
    hurry: float = 1.0  # among equals the larger goes first (`window.py`); no cost
    expected: bool = False  # a car that may still come (`forecast/arrivals.py`): planned with, promised nothing

    @property
    def label(self) -> str:
        return self.name or self.key


@dataclass(frozen=True, slots=True)
class PeakCharge:
    """What the highest import of [first_slot, last_slot) costs, per kW above what is paid for already."""

    name: str
    eur_per_kw: float
    free_w: float = 0.0  # the month's peak so far, the access power that was contracted
    first_slot: int = 0
    last_slot: int | None = None  # None: to the end of the horizon


@dataclass(frozen=True, slots=True)
class MaximumTariff:
    """The month's peak costs at most this much for each kWh that the month imports (Flanders: maximumtarief).

    `other_import_wh` is what the month imports outside the horizon: so far, and expected after it.
    """

    eur_per_kwh: float
    other_import_wh: float = 0.0


@dataclass(frozen=True)
class PlanProblem:
    """Everything the plan depends on.

    `building_w` and `pv_w` are the whole site's and count at the grid connection, spread evenly over the phases.
    `node_background_w[n]` is what the meter of circuit `n` would see without cars and battery; a circuit without an
    entry carries the sum of its children's. Entry 0 is not read: the grid connection carries `building_w + pv_w`.
    The power of what is in `loads` is in neither of them: the plan chooses it.
    In these three, not-a-number is *unknown*, and unknown is the worst that is known. Elsewhere it is an error.
    """

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
    month_ends: int | None = None  # the slot from which on it is another month, with a peak of its own in `charges`
    charges: tuple[PeakCharge, ...] = ()  # besides the month's: the next month's, excess over the access power
    maximum_tariff: MaximumTariff | None = None
    levy_eur_per_kwh: Series | None = None  # what a kWh that is imported bears besides; nothing is valued by it
    import_limit_w: Series | None = None  # grid operator, contract; None = only the tree
    export_limit_w: Series | None = None
    node_background_w: Mapping[int, Series] = field(default_factory=dict)  # load below a node, not of cars
    sun_trust: float | None = None  # share of the connection's amps that may lean on PV, as in `Rules`; None: all
    time_limit_s: float = 20.0
    battery_end_soc: float | None = None  # at least this at the end; never more than can be kept from the start
    battery_end_eur_per_kwh: float | None = None  # worth of a kWh still stored at the end; None: from the prices
    overload_eur_per_kwh: float | None = None  # a kWh above a limit by the building alone; None: more than any promise
    early_eur_per_kwh: float = 1e-4  # tie-break per slot: free energy is used at once
    slot_hours: Series | None = None  # length of each slot; None: all of `slot_s`
    least_w: Mapping[int, Series] = field(default_factory=dict)  # of a long slot, whose load is the most in it; by node
    relative_gap: float = 1e-4  # how far from the optimum a plan of many cars may be, at most; 0: the optimum itself
    loads: tuple[Load, ...] = ()

    @property
    def slots(self) -> int:
        return int(self.building_w.shape[0])

    @property
    def hours(self) -> Series:
        """How long each slot is."""
        if self.slot_hours is not None:
            return self.slot_hours
        return np.full(self.slots, self.slot_s / 3600)

    @property
    def bought_eur_per_kwh(self) -> Series:
        """What an imported kWh costs in all."""
        return (
            self.import_eur_per_kwh
            if self.levy_eur_per_kwh is None
            else self.import_eur_per_kwh + self.levy_eur_per_kwh
        )

    @property
    def month_charge(self) -> PeakCharge:
        return PeakCharge("month_peak", self.peak_eur_per_kw, self.month_peak_w, 0, self.month_ends)

    @property
    def peak_charges(self) -> tuple[PeakCharge, ...]:
        """The month's peak first, then what else is paid per kW."""
        return (self.month_charge, *self.charges)


@dataclass(frozen=True)
class LoadShort:
    """What a load is promised and does not get: `amount` in `unit` (runs, K·h outside its band, h off against its
    rules), and why, in the words of `PlanResult.shortfall_reason`."""

    key: str
    name: str
    amount: float
    unit: str
    reason: str


@dataclass(frozen=True)
class PlanResult:
    """What to do per slot, what falls short and why, and how far from the optimum at most (`gap`, relative).

    `session_w` is by EVSE key (cars after each other on one EVSE share a series; below zero a car gives), shortfalls by
    session label.
    A reason is one of: `time` (even full power is too little), `power` (car or station take none),
    `limit:<circuit>[:L1]`, `import_limit`, `group`, `surplus`, `value` (costs more than it is worth), `rule`;
    limits carry the interval in which they bind: `limit:row 1:L2@2026-01-05T16:00Z/2026-01-05T17:00Z`.
    `objective_eur` contains what shortfalls were priced at; `cost_eur` is money only: energy and new month peak.
    """

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
    cost_eur: float | None = None
    notes: tuple[str, ...] = ()  # what was odd in the problem, and why a rule had to do
    load_w: Mapping[str, Series] = field(default_factory=dict)  # by key of the load
    load_short: tuple[LoadShort, ...] = ()
    temperature_c: Mapping[str, Series] = field(default_factory=dict)  # of stores, at the end of each slot

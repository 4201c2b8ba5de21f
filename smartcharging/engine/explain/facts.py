"""What must be known of one charge to explain it: everything `explain.py` is told, nothing it has to ask.

Pure. Units: A per phase, W, Wh, EUR per kWh; `None` is unknown and never zero; times are aware.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta

import numpy as np

from smartcharging.engine.explain.remedies import Remedies
from smartcharging.engine.grid import NOMINAL_V, Supply, power_weight
from smartcharging.engine.plan.problem import Series
from smartcharging.engine.snapshot import Mode


@dataclass(frozen=True, slots=True)
class Given:
    """The share of this moment: what the place may take, and why not more."""

    limit_a: float | None
    reason: str = ""
    circuit: str = ""
    phase: str = ""  # L1, L2, L3, or W for all together
    limit_w: float | None = None  # of a DC place


@dataclass(frozen=True, slots=True)
class Wish:
    """The goal of a charge. Energy counts from its start; what is None was not asked."""

    energy_wh: float | None = None
    departure: datetime | None = None
    promised_wh: float | None = None  # by the plan that last had this car …
    promise_reason: str = ""  # … and why not more


@dataclass(frozen=True, slots=True)
class Ahead:
    """What is left of each slot: from when to when in seconds after the plan starts, the power in it, its price."""

    start_s: Series
    end_s: Series
    power_w: Series
    eur_per_kwh: Series  # not a number where it is not known

    @property
    def energy_wh(self) -> Series:
        energy: Series = self.power_w * (self.end_s - self.start_s) / 3600
        return energy


@dataclass(frozen=True, slots=True)
class Course:
    """What a plan gives this car, slot by slot from `starts_at` on; beyond its departure that is nothing."""

    starts_at: datetime
    slot_s: int
    power_w: Series
    made_at: datetime
    valid: bool = True
    by_rule: bool = False
    remedies: Remedies | None = None
    eur_per_kwh: Series = field(default_factory=lambda: np.zeros(0))  # of each slot, for the site; may be unknown
    plug_share: float = 1.0  # of what is planned, which is at the station's inlet, what its meter counts at the plug
    leaves_early_share: float | None = None  # the chance, weighed by the plan, that its driver leaves well before

    def ahead(self, now: datetime, until: datetime | None) -> Ahead:
        """What is left of each slot from now on."""
        slots = len(self.power_w)
        since = max((now - self.starts_at).total_seconds(), 0.0)
        end = slots * self.slot_s if until is None else (until - self.starts_at).total_seconds()
        begins = np.arange(int(since // self.slot_s), slots) * float(self.slot_s)
        begins = begins[begins < end]
        first = int(since // self.slot_s)
        which = slice(first, first + len(begins))
        prices = self.eur_per_kwh[which]
        return Ahead(
            start_s=np.maximum(begins, since),
            end_s=np.minimum(begins + self.slot_s, end),
            power_w=self.power_w[which],
            eur_per_kwh=np.concatenate((prices, np.full(len(begins) - len(prices), np.nan))),
        )

    def moment(self, seconds: float) -> datetime:
        """So many seconds after the plan starts."""
        return self.starts_at + timedelta(seconds=seconds)


@dataclass(frozen=True, slots=True)
class FreePlace:
    """Another place where nobody charges, and what its circuits leave it now."""

    name: str
    circuit: str
    room_w: float


@dataclass(frozen=True, slots=True)
class Ended:
    at: datetime
    stop_reason: str = ""  # as the station told it


@dataclass(frozen=True, slots=True)
class Facts:
    """One place, and the charge there if there is one.

    `measured_a` is the highest phase. `max_w` is what car and place can take together, `room_w` what the circuits
    leave this place now above what is taken, `elsewhere` the free places that hang on other circuits.
    """

    now: datetime
    charging: bool = True  # a transaction runs …
    plugged: bool = True  # … or a car is there without one
    connected: bool = True
    faulted: bool = False
    in_service: bool = True
    authorized: bool = True
    card_known: bool = True
    dc: bool = False
    phases: int = 3  # lines, where there is no neutral
    supply: Supply = Supply.TN
    given: Given | None = None
    measured_a: float | None = None
    power_w: float | None = None
    max_w: float | None = None
    charged_wh: float = 0.0
    mode: Mode = Mode.PLAN
    must_replug: bool = False  # the car did not come back after a pause
    wish: Wish | None = None
    course: Course | None = None
    room_w: float | None = None
    elsewhere: tuple[FreePlace, ...] = field(default=())
    ended: Ended | None = None

    def watts(self, amps: float) -> float:
        """Amps per phase as power: at the AC input of a DC place, on the phases the car uses elsewhere."""
        return amps * power_weight(3 if self.dc else self.phases, self.supply) * NOMINAL_V

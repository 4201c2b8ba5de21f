"""What must be known of one charge to explain it: everything `explain.py` is told, nothing it has to ask.

Pure. Units: A per phase, W, Wh, EUR per kWh; `None` is unknown and never zero; times are aware.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from smartcharging.engine.grid import NOMINAL_V
from smartcharging.engine.remedies import Remedies
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
class Course:
    """What a plan gives this car, slot by slot from `starts_at` on; beyond its departure that is nothing."""

    starts_at: datetime
    slot_s: int
    power_w: Sequence[float]
    made_at: datetime
    valid: bool = True
    by_rule: bool = False
    remedies: Remedies | None = None
    eur_per_kwh: Sequence[float | None] = ()  # of each slot, for the site

    @property
    def slot(self) -> timedelta:
        return timedelta(seconds=self.slot_s)

    def ahead(self, now: datetime, until: datetime | None) -> list[tuple[datetime, datetime, float, float | None]]:
        """What is left of each slot from now on: its start, its end, the power in it [W], its price."""
        found = []
        for n, power_w in enumerate(self.power_w):
            start = max(self.starts_at + n * self.slot, now)
            end = self.starts_at + (n + 1) * self.slot
            if until is not None:
                end = min(end, until)
            if start < end:
                price = self.eur_per_kwh[n] if n < len(self.eur_per_kwh) else None
                found.append((start, end, float(power_w), price))
        return found


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
    phases: int = 3
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
        return amps * (3 if self.dc else max(self.phases, 1)) * NOMINAL_V

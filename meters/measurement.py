"""A measurement: what one meter, inverter, battery or EVSE says at one moment.

Load-positive everywhere (`docs/glossary.md`): what is taken from the grid or goes into a device is positive,
PV is negative, a charging battery is positive. Drivers turn signs at the door, so sums up the tree are just sums.
`None` means *unknown*, which is never zero.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

NOMINAL_V = 230.0

PerPhase = tuple[float | None, float | None, float | None]
"""One value for each of L1, L2, L3 of the *grid* (after the wiring of the device was undone)."""


class Quality(StrEnum):
    """How far a measurement may be trusted."""

    GOOD = "good"
    ESTIMATED = "estimated"  # derived, for example per-phase current from total power
    SUSPECT = "suspect"  # implausible; shown, kept, never used for protection


@dataclass(frozen=True, slots=True)
class Measurement:
    """All quantities of the field at one moment, each absent (`None`) when the source does not give it.

    Units: A, V, W, var, VA, Hz, Wh; `power_factor` -1..1, `soc` 0..1. Currents are signed like the power.
    """

    at: datetime
    current_a: PerPhase | None = None
    voltage_v: PerPhase | None = None
    power_w: float | None = None
    power_phase_w: PerPhase | None = None
    reactive_var: float | None = None
    apparent_va: float | None = None
    power_factor: float | None = None
    frequency_hz: float | None = None
    energy_import_wh: float | None = None
    energy_export_wh: float | None = None
    soc: float | None = None
    energy_capacity_wh: float | None = None
    temperature_c: float | None = None  # of what a load heats or cools
    offered_a: float | None = None  # what an EVSE says it offers to the car
    demand_w: float | None = None  # a digital meter's running mean of this clock quarter, import
    month_peak_w: float | None = None  # … and its highest quarter of this month
    state: str | None = None  # the device's own word: battery mode, alarm, IEC 61851 state
    quality: Quality = Quality.GOOD

    def __post_init__(self) -> None:
        if self.at.tzinfo is None:
            raise ValueError("a measurement needs an aware time")

    def age(self, now: datetime) -> timedelta:
        return now - self.at

    def is_fresh(self, now: datetime, max_age_s: float) -> bool:
        """True when young enough to protect with. Unknown is not zero: callers treat a stale one as absent."""
        return timedelta(seconds=-5) <= self.age(now) <= timedelta(seconds=max_age_s)

    def phase_currents(self) -> PerPhase | None:
        """Signed current per phase: measured, else from power per phase, else the total spread evenly."""
        if self.current_a is not None:
            return self.current_a
        volts = self.voltage_v or (NOMINAL_V, NOMINAL_V, NOMINAL_V)
        if self.power_phase_w is not None:
            a, b, c = (
                None if p is None else p / (v or NOMINAL_V) for p, v in zip(self.power_phase_w, volts, strict=True)
            )
            return (a, b, c)
        return None

    def to_dict(self) -> dict[str, Any]:
        """The JSON shape kept in Redis: absent quantities are left out, time is ISO 8601 UTC."""
        return {"at": self.at.isoformat(), **self.quantities()}

    def quantities(self) -> dict[str, Any]:
        """The same without the time."""
        out: dict[str, Any] = {}
        for name in _QUANTITIES:
            value = getattr(self, name)
            if value is not None:
                out[name] = list(value) if type(value) is tuple else value
        return out

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Measurement:
        known = {f.name for f in fields(cls)}
        values: dict[str, Any] = {k: (tuple(v) if isinstance(v, list) else v) for k, v in data.items() if k in known}
        values["at"] = datetime.fromisoformat(values["at"])
        values["quality"] = Quality(values.get("quality", Quality.GOOD))
        return cls(**values)


_QUANTITIES = tuple(f.name for f in fields(Measurement) if f.name != "at")


def finite(value: float | None) -> float | None:
    """`None` for what is not a number: sentinels and NaN are *no value*, never zero."""
    if value is None or not math.isfinite(value):
        return None
    return value

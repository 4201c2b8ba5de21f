"""What stations report of themselves and of others, in words that belong to no version of OCPP. Pure.

Beside `vocabulary.py`, which has what every charge needs: here are reports in parts, monitors and their events, limits
that others set, and what a car says it needs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from csms.vocabulary import Moment
from meters.supply import Supply, power_weight

NOMINAL_V = 230.0
WITHIN = 1.02
"""A car's own schedule may round up a little."""


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a report. `number` counts from 0; None where parts carry none and count by their arrival."""

    kind: str
    request_id: int
    number: int | None
    last: bool
    content: Sequence[Any] = ()


@dataclass(frozen=True, slots=True)
class Place:
    """The place of a variable in a station's device model."""

    component: str
    variable: str
    component_instance: str = ""
    evse: int = 0
    connector: int = 0
    variable_instance: str = ""

    @classmethod
    def named(cls, name: str, evse: int = 0) -> Place:
        """From `Component.Variable`; without a dot it is a component with a variable of the same name."""
        component, _, variable = name.partition(".")
        return cls(component.strip(), variable.strip() or component.strip(), evse=evse)


@dataclass(frozen=True, slots=True)
class Monitor:
    """A monitor on a variable. `number` is given by the station; None for one that is yet to be set."""

    place: Place
    type: str
    value: float
    severity: int
    number: int | None = None
    during_transactions: bool = False


@dataclass(frozen=True, slots=True)
class Event:
    """A station speaks up about a variable. `content_key` is the same however often it is told."""

    place: Place
    number: int
    moment: Moment
    content_key: str
    trigger: str = ""
    origin: str = ""
    cause: int | None = None
    value: str = ""
    tech_code: str = ""
    tech_info: str = ""
    cleared: bool = False
    transaction_id: str = ""
    monitor: int | None = None


@dataclass(frozen=True, slots=True)
class OthersLimit:
    """A limit somebody else put on a station (`evse` 0) or an EVSE; `schedules` are unit, start and periods."""

    evse: int
    source: str
    grid_critical: bool = False
    schedules: Sequence[Mapping[str, Any]] = ()


@dataclass(frozen=True, slots=True)
class Needs:
    """What a car says it needs, from the moment it is told. None: not told."""

    evse: int
    transfer: str = ""
    departure: datetime | None = None
    energy_wh: float | None = None
    min_a: float | None = None
    max_a: float | None = None
    max_v: float | None = None
    max_w: float | None = None
    soc: float | None = None
    full_soc: float | None = None
    capacity_wh: float | None = None

    @property
    def wanted_wh(self) -> float | None:
        """The energy asked for; else from the state of charge to full, where the battery's size is told."""
        if self.energy_wh is not None:
            return self.energy_wh
        if self.capacity_wh is None or self.soc is None:
            return None
        return max(0.0, self.capacity_wh * ((self.full_soc or 1.0) - self.soc))


@dataclass(frozen=True, slots=True)
class CarSchedule:
    """How a car means to charge: (seconds from `start`, limit, phases) in amps per phase or in watts."""

    evse: int
    unit: str
    start: datetime
    periods: Sequence[tuple[int, float, int]]
    payload: Mapping[str, Any] = field(default_factory=dict)

    def keeps(self, limit: float, unit: str, now: datetime, until: datetime | None, supply: Supply = Supply.TN) -> bool:
        """Does it stay below a limit (A per phase, or W) from `now` until that limit may change?"""
        ends = [*[start for start, _, _ in self.periods[1:]], None]
        for (begins_s, value, phases), ends_s in zip(self.periods, ends, strict=True):
            begins = self.start + timedelta(seconds=begins_s)
            over = ends_s is not None and self.start + timedelta(seconds=ends_s) <= now
            if over or (until is not None and begins >= until):
                continue
            if self._in(unit, value, power_weight(phases, supply)) > limit * WITHIN:
                return False
        return True

    def _in(self, unit: str, value: float, weight: float) -> float:
        if unit == self.unit:
            return value
        return value * NOMINAL_V * weight if unit == "W" else value / (NOMINAL_V * weight)

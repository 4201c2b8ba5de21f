"""Charging that is not plugged in yet: how many cars come when, how long they stay, what they take.

Pure. Cars that are here are sessions of the plan; this is for the empty sockets, as expected power and its spread. It
serves as a reserve and for people to look at, never as fixed sessions. Only totals per time of day are kept: nothing
here knows who came.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, tzinfo

import numpy as np

from smartcharging.engine.forecast.series import QUARTERS_A_DAY, SLOT_S, Forecast, local_clock
from smartcharging.engine.problem import Series

HOURS = 24
LONGEST_STAY_SLOTS = QUARTERS_A_DAY
TO_90_PERCENT = 1.2816  # standard deviations
USUAL_STAY_SLOTS = 16.0


@dataclass(frozen=True, slots=True)
class Visit:
    """A car that came, stayed and took energy at the meter."""

    arrived: datetime
    left: datetime
    energy_wh: float


@dataclass(frozen=True)
class Habits:
    """Per kind of day (working day, weekend) and local hour: arrivals an hour, and the usual stay and energy."""

    arrivals: Series  # axes kind, hour
    stay_slots: Series
    energy_wh: Series
    visits: int

    @classmethod
    def of(cls, visits: Iterable[Visit], first: datetime, last: datetime, zone: tzinfo) -> Habits:
        """Learn from the visits that began in [first, last). Days without a visit count: nobody came."""
        slots = max(int((last - first).total_seconds()) // SLOT_S, 0)
        _, weekday, quarter = local_clock(first, slots, zone)
        hours = np.zeros((2, HOURS))
        np.add.at(hours, ((weekday >= 5).astype(int), quarter // 4), SLOT_S / 3600)
        sound = [v for v in visits if first <= v.arrived < last and v.left > v.arrived and np.isfinite(v.energy_wh)]
        count = np.zeros((2, HOURS))
        stays: dict[tuple[int, int], list[float]] = {}
        energies: dict[tuple[int, int], list[float]] = {}
        for v in sound:
            local = v.arrived.astimezone(zone)
            key = (int(local.weekday() >= 5), local.hour)
            count[key] += 1
            stays.setdefault(key, []).append((v.left - v.arrived).total_seconds() / SLOT_S)
            energies.setdefault(key, []).append(max(v.energy_wh, 0.0))
        every_stay = [s for values in stays.values() for s in values]
        stay = np.full((2, HOURS), np.median(every_stay) if every_stay else USUAL_STAY_SLOTS)
        energy = np.full((2, HOURS), np.mean([e for v in energies.values() for e in v]) if energies else 0.0)
        for key, values in stays.items():
            stay[key] = np.median(values)
            energy[key] = np.mean(energies[key])
        arrivals = np.where(hours > 0, count / np.maximum(hours, 1e-9), 0.0)
        return cls(arrivals, np.clip(np.round(stay), 1, LONGEST_STAY_SLOTS), energy, len(sound))


def expected_arrivals(habits: Habits, start: datetime, slots: int, zone: tzinfo) -> Series:
    """The mean number of cars that come in each slot."""
    _, weekday, quarter = local_clock(start, slots, zone)
    rate: Series = habits.arrivals[(weekday >= 5).astype(int), quarter // 4] * SLOT_S / 3600
    return rate


def charging(habits: Habits, start: datetime, slots: int, zone: tzinfo) -> Forecast:
    """Power of the cars still to come, each spread evenly over its stay. Arrivals are taken as Poisson."""
    _, weekday, quarter = local_clock(start, slots, zone)
    kind, hour = (weekday >= 5).astype(int), quarter // 4
    rate = expected_arrivals(habits, start, slots, zone)
    stay = habits.stay_slots[kind, hour].astype(int)
    power = habits.energy_wh[kind, hour] / (stay * SLOT_S / 3600)
    mean, variance = np.zeros(slots + 1), np.zeros(slots + 1)
    begin = np.arange(slots)
    end = np.minimum(begin + stay, slots)
    for edges, weight in ((mean, rate * power), (variance, rate * power**2)):
        np.add.at(edges, begin, weight)
        np.add.at(edges, end, -weight)
    middle = np.maximum(np.cumsum(mean)[:slots], 0.0)
    spread = TO_90_PERCENT * np.sqrt(np.maximum(np.cumsum(variance)[:slots], 0.0))
    method = "arrivals" if habits.visits else "nothing known"
    return Forecast.of(start, np.maximum(middle - spread, 0.0), middle, middle + spread, method)

"""What may be known beforehand: forecasts that are off the more the further ahead, and the habits of other days.

Nothing of the day itself leaves this file but through an error: the error of an hour is drawn once for the whole day,
and shrinks as that hour comes nearer, as forecasts do that are made anew.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum

import numpy as np

from smartcharging.engine.forecast.arrivals import Habits
from smartcharging.engine.forecast.arrivals import Visit as Came
from smartcharging.engine.forecast.leaving import Punctuality, Stay
from smartcharging.replay.days import DAY_S, SLOT_S, Day
from smartcharging.replay.site import Floats

FADE_H = 4.0  # lead time after which an error has grown to 63 %
LASTS_SLOTS = 12.0  # errors of neighbouring hours are alike
NOISE_SHARE = 0.2  # of the error is new with every forecast
LEARN_DAYS = 20
LEARN_SEED = 1_000_000


class Forecasts(StrEnum):
    PERFECT = "perfect"
    MEASURED = "measured"
    BAD = "bad"

    @property
    def building(self) -> float:
        """Relative error far ahead, one standard deviation."""
        return {"perfect": 0.0, "measured": 0.1, "bad": 0.25}[self]

    @property
    def pv(self) -> float:
        return {"perfect": 0.0, "measured": 0.2, "bad": 0.6}[self]

    @property
    def habits(self) -> float:
        """How much of the energy that comes is expected: bad ones are those of a quieter season."""
        return {"perfect": 1.0, "measured": 1.0, "bad": 0.6}[self]


@dataclass(frozen=True)
class Outlook:
    """Expected power from a slot on, as it is known at the beginning of that slot."""

    day: Day
    kind: Forecasts
    building_w: Floats
    pv_w: Floats
    building_off: Floats
    pv_off: Floats

    @classmethod
    def of(cls, day: Day, kind: Forecasts) -> Outlook:
        rng = np.random.default_rng([day.seed, 5])
        building, pv = day.by_slot(day.building_w), day.by_slot(day.pv_w)
        return cls(day, kind, building, pv, _path(rng, day.slots), _path(rng, day.slots))

    def expected(self, slot: int) -> tuple[Floats, Floats]:
        """Building and PV per slot from this one on, both positive."""
        rng = np.random.default_rng([self.day.seed, 6, slot])
        ahead = np.arange(self.day.slots - slot)
        grown = 1.0 - np.exp(-(ahead + 1) * SLOT_S / 3600 / FADE_H)

        def seen(actual: Floats, off: Floats, size: float) -> Floats:
            wrong = size * grown * (off[slot:] + NOISE_SHARE * rng.standard_normal(ahead.shape[0]))
            return np.asarray(np.maximum(actual[slot:] * (1.0 + wrong), 0.0))

        return seen(self.building_w, self.building_off, self.kind.building), np.minimum(
            seen(self.pv_w, self.pv_off, self.kind.pv), self.day.site.pv_peak_w
        )


def _path(rng: np.random.Generator, slots: int) -> Floats:
    """A standard normal that changes slowly."""
    keep = np.exp(-1.0 / LASTS_SLOTS)
    out = np.empty(slots)
    value = rng.standard_normal()
    for i in range(slots):
        out[i] = value
        value = keep * value + np.sqrt(1 - keep**2) * rng.standard_normal()
    return out


def learn(day: Day, past: Callable[[int], Day], kind: Forecasts, days: int = LEARN_DAYS) -> Habits:
    """The habits of so many working days before, which `past` gives by their number; the day that is lived is not
    among them."""
    first = day.start - timedelta(days=(days + 4) // 5 * 7)
    visits: list[Came] = []
    for number in range(days):
        began = first + timedelta(days=number // 5 * 7 + number % 5)
        visits += [
            Came(
                began + timedelta(seconds=v.arrival_s),
                began + timedelta(seconds=v.departure_s),
                v.energy_wh * kind.habits,
                day.site.sockets[v.socket].key,
            )
            for v in past(number).visits
            if v.arrival_s < DAY_S
        ]
    return Habits.of(visits, first, day.start, day.start.tzinfo or first.astimezone().tzinfo)  # type: ignore[arg-type]


def learn_leaving(day: Day, past: Callable[[int], Day], days: int = LEARN_DAYS) -> Punctuality:
    """How early drivers left on the same days before."""
    return Punctuality.of(
        Stay(day.at(v.arrival_s), day.at(v.stated_s), day.at(v.departure_s))
        for number in range(days)
        for v in past(number).visits
    )

"""A history of equal slots with holes, and a forecast of equal slots without.

Pure. Slots are UTC; a clock-change day simply has 92 or 100 of them. `local_clock` says which day, weekday and quarter
of the site's own day each slot is: what people do follows their clock.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta, tzinfo
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from smartcharging.engine.plan.problem import Series

SLOT_S = 900
QUARTERS_A_DAY = 96
LONGEST_BRIDGED = 4  # slots: holes of up to an hour are bridged, longer ones stay holes

Integers = NDArray[np.int64]
_EPOCH = date(1970, 1, 1).toordinal()


@dataclass(frozen=True)
class History:
    """Mean power per slot from `start` on, not-a-number where it is unknown."""

    start: datetime
    values: Series
    slot_s: int = SLOT_S

    @classmethod
    def of(cls, points: Mapping[datetime, float] | Iterable[tuple[datetime, float]], slot_s: int = SLOT_S) -> History:
        """From (slot start, W) pairs in any order; of two for one slot the last counts."""
        pairs = points.items() if isinstance(points, Mapping) else points
        known = {int(at.timestamp()) // slot_s: value for at, value in pairs if np.isfinite(value)}
        if not known:
            return cls(datetime.fromtimestamp(0, tz=UTC), np.zeros(0), slot_s)
        first, last = min(known), max(known)
        values = np.full(last - first + 1, np.nan)
        values[np.fromiter(known, dtype=np.int64) - first] = list(known.values())
        return cls(datetime.fromtimestamp(first * slot_s, tz=UTC), values, slot_s)

    @property
    def end(self) -> datetime:
        """The moment after the last slot."""
        return self.start + timedelta(seconds=self.slot_s * self.values.shape[0])

    @property
    def known(self) -> int:
        return int(np.isfinite(self.values).sum())

    def before(self, moment: datetime) -> History:
        """What was known then."""
        slots = int((moment - self.start).total_seconds() // self.slot_s)
        return History(self.start, self.values[: max(slots, 0)], self.slot_s)

    def window(self, start: datetime, slots: int) -> Series:
        """The values of `slots` slots from `start`; unknown outside what is recorded."""
        first = int((start - self.start).total_seconds() // self.slot_s)
        out = np.full(slots, np.nan)
        low, high = max(first, 0), min(first + slots, self.values.shape[0])
        if low < high:
            out[low - first : high - first] = self.values[low:high]
        return out

    def bridged(self) -> History:
        """With holes of up to an hour filled in a straight line."""
        values = self.values.copy()
        known = np.flatnonzero(np.isfinite(values))
        if known.size < 2:
            return self
        gaps = np.diff(known)
        for at in np.flatnonzero((gaps > 1) & (gaps <= LONGEST_BRIDGED + 1)):
            low, high = int(known[at]), int(known[at + 1])
            values[low : high + 1] = np.linspace(values[low], values[high], high - low + 1)
        return History(self.start, values, self.slot_s)


@dataclass(frozen=True)
class Forecast:
    """Quantiles of the mean power of each slot from `start` on, and how they came about."""

    start: datetime
    p10_w: Series
    p50_w: Series
    p90_w: Series
    method: str
    slot_s: int = SLOT_S

    @classmethod
    def of(cls, start: datetime, low: Series, mid: Series, high: Series, method: str, slot_s: int = SLOT_S) -> Forecast:
        """Quantiles never cross: they are sorted slot by slot."""
        low, mid, high = np.sort(np.stack((low, mid, high)), axis=0)
        return cls(start, low, mid, high, method, slot_s)

    @property
    def slots(self) -> int:
        return int(self.p50_w.shape[0])


class Forecaster(Protocol):
    """What every way of forecasting can do. It sees only what `history` holds, and always answers."""

    def __call__(self, history: History, start: datetime, slots: int) -> Forecast: ...


def local_clock(start: datetime, slots: int, zone: tzinfo, slot_s: int = SLOT_S) -> tuple[Integers, Integers, Integers]:
    """For each slot: its local day (a running number), weekday (Monday is 0) and quarter of the local day (0 to 95)."""
    utc = int(start.timestamp()) + slot_s * np.arange(slots, dtype=np.int64)
    local = utc + _offsets_s(utc, zone)
    day = local // 86_400 + _EPOCH
    return day, (day + 6) % 7, local % 86_400 // 900


def _offsets_s(utc: Integers, zone: tzinfo) -> Integers:
    """Seconds the local clock is ahead. Clocks change on an hour of UTC, and seldom: most days are asked once."""
    hours, place = np.unique(utc // 3600, return_inverse=True)
    offsets = np.empty(hours.shape, dtype=np.int64)
    at = 0
    while at < hours.shape[0]:
        same = int(np.searchsorted(hours, hours[at] + 24))
        first, last = _offset_s(hours[at], zone), _offset_s(hours[same - 1], zone)
        if first == last:
            offsets[at:same] = first
        else:
            offsets[at:same] = [_offset_s(hour, zone) for hour in hours[at:same]]
        at = same
    found: Integers = offsets[place]
    return found


def _offset_s(hour: int, zone: tzinfo) -> int:
    ahead = datetime.fromtimestamp(int(hour) * 3600, tz=zone).utcoffset()
    return round(ahead.total_seconds()) if ahead is not None else 0


def seconds_of(start: datetime, slots: int, slot_s: int = SLOT_S) -> Series:
    """The unix time of the middle of each slot."""
    return start.timestamp() + slot_s * (np.arange(slots, dtype=np.float64) + 0.5)

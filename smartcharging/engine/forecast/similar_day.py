"""The rule that is hard to beat: the median of the same weekday and quarter of the last four weeks, set right by now.

Pure. Where the history is short, the rule asks less of it, slot by slot: the same kind of day (working day, weekend),
any day, the last hours as they were, and at the very end the flat worst case somebody commissioned.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from datetime import datetime, timedelta, tzinfo

import numpy as np

from smartcharging.engine.forecast.series import QUARTERS_A_DAY, Forecast, History, Integers, local_clock
from smartcharging.engine.plan.problem import Series

WEEKS = 4
FEWEST = 2  # days that make a median
RECENT_SLOTS = 8  # two hours
TODAY_LASTS = 0.5
FADES_SLOTS = 16.0  # four hours
SPREAD_DAYS = 28
FEWEST_FOR_SPREAD = 10
NEIGHBOURS = 4  # quarters to either side that share a spread
SPREAD_OF_A_GUESS = 0.4

SIMILAR, SAME_KIND, ANY_DAY, LAST_HOURS, WORST = range(5)
METHODS = ("similar day", "same kind of day", "other days", "persistence", "worst case")


@dataclass(frozen=True)
class Days:
    """A history laid out by the local calendar: one row a day, 96 quarters; a quarter that came twice is averaged."""

    first: int
    power: Series

    @classmethod
    def of(cls, history: History, zone: tzinfo) -> Days:
        day, _, quarter = local_clock(history.start, history.values.shape[0], zone, history.slot_s)
        if not day.size:
            return cls(0, np.full((0, QUARTERS_A_DAY), np.nan))
        first = int(day[0])
        rows = int(day[-1]) - first + 1
        sound = np.isfinite(history.values)
        key = (day - first) * QUARTERS_A_DAY + quarter
        total = np.bincount(key[sound], history.values[sound], minlength=rows * QUARTERS_A_DAY)
        count = np.bincount(key[sound], minlength=rows * QUARTERS_A_DAY)
        power = np.where(count > 0, total / np.maximum(count, 1), np.nan)
        return cls(first, power.reshape(rows, QUARTERS_A_DAY))

    def pick(self, day: Integers, quarter: Integers, back: Integers) -> Series:
        """The values `back` days before each (day, quarter): axes back, slot. Unknown where there is none."""
        row = day[None, :] - self.first - back[:, None]
        inside = (row >= 0) & (row < self.power.shape[0])
        out = np.full(row.shape, np.nan)
        out[inside] = self.power[row[inside], np.broadcast_to(quarter, row.shape)[inside]]
        return out


def building(history: History, start: datetime, slots: int, zone: tzinfo, worst_w: float | None = None) -> Forecast:
    """Building load (≥ 0). `worst_w` is what was commissioned for a building nobody has measured."""
    history = history.before(start).bridged()
    days = Days.of(history, zone)
    day, weekday, quarter = local_clock(start, slots, zone, history.slot_s)
    usual, how = _usual(days, day, weekday, quarter)
    now, today = (_off_now(history, days, start, zone, n) for n in (RECENT_SLOTS, QUARTERS_A_DAY))
    lasts = today * TODAY_LASTS  # a colder week, a new machine: half of how far off a whole day was, stays
    middle = usual + lasts + (now - lasts) * np.exp(-np.arange(slots) / FADES_SLOTS)
    lasting = _lasting(history, start)
    worst = worst_w if worst_w is not None else float(np.nanmax(history.values)) if history.known else np.nan
    unknown = np.isnan(middle)
    middle[unknown] = worst if np.isnan(lasting) else lasting
    how[unknown] = WORST if np.isnan(lasting) else LAST_HOURS
    low, high = _spread(days, weekday, quarter, middle)
    guessed = (how >= LAST_HOURS) | ~np.isfinite(low) | ~np.isfinite(high)
    low[guessed] = (1 - SPREAD_OF_A_GUESS) * middle[guessed]
    high[guessed] = (1 + SPREAD_OF_A_GUESS) * middle[guessed]
    if worst_w is not None:
        high[guessed] = np.maximum(middle[guessed], np.minimum(high[guessed], worst_w))
    low, middle, high = np.maximum(low, 0.0), np.maximum(middle, 0.0), np.maximum(high, 0.0)
    method = METHODS[int(np.bincount(how, minlength=5).argmax())] if slots else METHODS[WORST]
    return Forecast.of(start, low, middle, high, method, history.slot_s)


def persistence(history: History, start: datetime, slots: int) -> Forecast:
    """Tomorrow is like today: the value 24 hours before, else the last one known, else nothing (zero)."""
    history = history.before(start)
    a_day = round(86_400 / history.slot_s)
    back = -(-slots // a_day)
    past = history.window(start - timedelta(days=back), back * a_day)
    last = np.tile(past[-a_day:], back)[:slots] if back else np.zeros(0)
    known = history.values[np.isfinite(history.values)]
    middle = np.where(np.isfinite(last), last, known[-1] if known.size else 0.0)
    return Forecast.of(start, middle, middle, middle, "persistence", history.slot_s)


def _usual(days: Days, day: Integers, weekday: Integers, quarter: Integers) -> tuple[Series, Integers]:
    """The level of each slot from days before it, and which step of the rule gave it."""
    slots = day.shape[0]
    usual, how = np.full(slots, np.nan), np.full(slots, WORST, dtype=np.int64)
    weekly = days.pick(day, quarter, 7 * np.arange(1, WEEKS + 1))
    back = np.arange(1, 7 * WEEKS + 1)
    daily = days.pick(day, quarter, back)
    same_kind = ((weekday[None, :] - back[:, None]) % 7 >= 5) == (weekday >= 5)
    steps = (
        (SIMILAR, weekly, FEWEST),
        (SAME_KIND, np.where(same_kind, daily, np.nan), FEWEST),
        (ANY_DAY, daily, 1),
    )
    for step, values, fewest in steps:
        open_ = np.isnan(usual) & (np.isfinite(values).sum(axis=0) >= fewest)
        if open_.any():
            usual[open_] = np.nanmedian(values[:, open_], axis=0)
            how[open_] = step
    return usual, how


def _off_now(history: History, days: Days, start: datetime, zone: tzinfo, slots: int) -> float:
    """How far the last slots were from usual, on average; zero when less than half of them is known."""
    first = start - timedelta(seconds=slots * history.slot_s)
    measured = history.window(first, slots)
    day, weekday, quarter = local_clock(first, slots, zone, history.slot_s)
    off = measured - _usual(days, day, weekday, quarter)[0]
    return float(np.nanmean(off)) if np.isfinite(off).sum() >= slots // 2 else 0.0


def _lasting(history: History, start: datetime) -> float:
    """The mean of the last two hours; not-a-number when they are unknown."""
    recent = history.window(start - timedelta(seconds=RECENT_SLOTS * history.slot_s), RECENT_SLOTS)
    return float(np.nanmean(recent)) if np.isfinite(recent).any() else np.nan


def _spread(days: Days, weekday: Integers, quarter: Integers, middle: Series) -> tuple[Series, Series]:
    """The 10 % and 90 % quantiles: by how much this very rule was off around this time of day on past days."""
    rows = np.arange(max(days.power.shape[0] - SPREAD_DAYS, 0), days.power.shape[0])
    past_day = np.repeat(days.first + rows, QUARTERS_A_DAY)
    past_quarter = np.tile(np.arange(QUARTERS_A_DAY), rows.shape[0])
    usual, _ = _usual(days, past_day, (past_day + 6) % 7, past_quarter)
    off = days.power[rows] - usual.reshape(-1, QUARTERS_A_DAY)
    weekend_rows = (days.first + rows + 6) % 7 >= 5
    low, high = middle.copy(), middle.copy()
    for weekend in (False, True):
        slots = np.flatnonzero((weekday >= 5) == weekend)
        if not slots.size:
            continue
        mine = off[weekend_rows == weekend]
        offsets = _quantiles_around(mine if np.isfinite(mine).sum() >= FEWEST_FOR_SPREAD else off)
        low[slots] += offsets[0, quarter[slots]]
        high[slots] += offsets[1, quarter[slots]]
    return low, high


def _quantiles_around(off: Series) -> Series:
    """For each quarter the 10 % and 90 % quantile of these offsets, pooled with its neighbours: axes quantile, quarter.

    Not-a-number when too little is known.
    """
    if np.isfinite(off).sum() < FEWEST_FOR_SPREAD:
        return np.full((2, QUARTERS_A_DAY), np.nan)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a quarter without any value: filled below
        pool = np.concatenate([np.roll(off, shift, axis=1) for shift in range(-NEIGHBOURS, NEIGHBOURS + 1)])
        quantiles: Series = np.nanquantile(pool, [0.1, 0.9], axis=0)
        overall = np.nanquantile(off, [0.1, 0.9])
    return np.where(np.isfinite(quantiles), quantiles, overall[:, None])

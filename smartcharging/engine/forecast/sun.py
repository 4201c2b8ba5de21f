"""PV: what the clear sky would give, scaled by what this site makes of it, and by the clouds of the last hours.

Pure. The ratio of measured to clear-sky power is learnt per time of day, so orientation and shade are in it, and so is
the usual cloudiness. With a forecast of the sun, that takes the place of the clear sky. Production never exceeds the
peak, and is zero at night. The sun knows no summer time: everything here goes by UTC.
"""

from __future__ import annotations

import warnings
from datetime import datetime, timedelta

import numpy as np

from smartcharging.engine.forecast.series import QUARTERS_A_DAY, Forecast, History, Integers, seconds_of
from smartcharging.engine.plan.problem import Series

LEARN_DAYS = 14
FEWEST_DAYS = 2
DARK_W_PER_M2 = 5.0
TELLING_W_PER_M2 = 50.0  # below it a ratio is noise
PERFORMANCE = 0.85  # of the nameplate, for a site nobody has measured
USUAL_CLOUDS = 0.5
RECENT_SLOTS = 8
FADES_SLOTS = 8.0
MOST_RATIO = 2.0
NEIGHBOURS = 2
SECONDS_A_DAY = 86_400


def clear_sky_w_per_m2(seconds: Series, latitude: float, longitude: float) -> Series:
    """Sun on level ground under a cloudless sky (Haurwitz), at unix times."""
    day = seconds / SECONDS_A_DAY - 10_957.5  # days since noon, 1 January 2000
    mean_longitude = np.radians((280.460 + 0.9856474 * day) % 360)
    anomaly = np.radians((357.528 + 0.9856003 * day) % 360)
    ecliptic = mean_longitude + np.radians(1.915 * np.sin(anomaly) + 0.020 * np.sin(2 * anomaly))
    tilt = np.radians(23.439 - 4e-7 * day)
    declination = np.arcsin(np.sin(tilt) * np.sin(ecliptic))
    right_ascension = np.arctan2(np.cos(tilt) * np.sin(ecliptic), np.cos(ecliptic))
    sidereal = np.radians((280.46062 + 360.98564737 * day + longitude) % 360)
    hour_angle = sidereal - right_ascension
    phi = np.radians(latitude)
    height = np.sin(phi) * np.sin(declination) + np.cos(phi) * np.cos(declination) * np.cos(hour_angle)
    up = np.maximum(height, 1e-6)
    return np.where(height > 0, 1098 * up * np.exp(-0.057 / up), 0.0)


def pv(
    history: History,
    start: datetime,
    slots: int,
    place: tuple[float, float] | None,
    peak_w: float | None,
    sun_w_per_m2: Series | None = None,
    past_sun: History | None = None,
) -> Forecast:
    """PV power, load-positive (≤ 0). `place` is latitude and longitude; `peak_w` the nameplate, None if not known.

    `sun_w_per_m2` is a weather forecast for the same slots (holes fall back to the clear sky), `past_sun` what the
    same source said of the past.
    """
    history = history.before(start).bridged()
    made = History(history.start, -history.values, history.slot_s)
    most = peak_w if peak_w is not None else float(np.nanmax(made.values, initial=0.0)) if made.known else 0.0
    if place is None:
        return _without_place(made, start, slots, most)
    # The last two hours are forecast too: how far off that is tells of the clouds now.
    first, all_slots = start - timedelta(seconds=RECENT_SLOTS * made.slot_s), RECENT_SLOTS + slots
    clear = clear_sky_w_per_m2(seconds_of(first, all_slots, made.slot_s), *place)
    past_clear = clear_sky_w_per_m2(seconds_of(made.start, made.values.shape[0], made.slot_s), *place)
    nameplate = most * PERFORMANCE / 1000
    low, middle, high = _learnt(_by_quarter(made, past_clear, start), first, clear, nameplate, made.slot_s)
    method = "clear sky" if made.known else "nameplate"
    if sun_w_per_m2 is not None and np.isfinite(sun_w_per_m2).any():
        before = np.full(RECENT_SLOTS, np.nan) if past_sun is None else past_sun.window(first, RECENT_SLOTS)
        by_weather = _gain(made, past_sun, start, first, all_slots, nameplate) * np.concatenate((before, sun_w_per_m2))
        off = np.where(np.isfinite(by_weather), by_weather - middle, 0.0)
        low, middle, high = low + off, middle + off, high + off
        method = "weather"
    factor = _clouds_now(made.window(first, RECENT_SLOTS), middle, slots)
    dark = clear[RECENT_SLOTS:] < DARK_W_PER_M2

    def taken(made_w: Series) -> Series:
        return -np.where(dark, 0.0, np.clip(made_w[RECENT_SLOTS:] * factor, 0.0, most))

    return Forecast.of(start, taken(high), taken(middle), taken(low), method, made.slot_s)


def _learnt(
    ratio: Series | None, start: datetime, clear: Series, nameplate: float, slot_s: int
) -> tuple[Series, Series, Series]:
    """Least, usual and most production by the clear sky: quantiles of the ratio at this time of day."""
    if ratio is None:
        return np.zeros(clear.shape), clear * nameplate * USUAL_CLOUDS, clear * nameplate
    low, middle, high = np.nan_to_num(ratio)[:, _quarters(start, clear.shape[0], slot_s)] * clear
    return low, middle, high


def _by_quarter(made: History, sun: Series, start: datetime) -> Series | None:
    """Quantiles (10, 50, 90 %) of production per W/m² for each UTC quarter of the last two weeks; None: too little."""
    days = LEARN_DAYS
    slots = days * QUARTERS_A_DAY
    first = start - timedelta(days=days)
    power = made.window(first, slots)
    shine = History(made.start, sun, made.slot_s).window(first, slots)
    telling = np.isfinite(power) & (np.nan_to_num(shine) >= TELLING_W_PER_M2)
    ratio = np.where(telling, power / np.where(telling, shine, 1.0), np.nan).reshape(days, QUARTERS_A_DAY)
    shift = _quarters(first, 1, made.slot_s)[0]
    ratio = np.roll(ratio, shift, axis=1)
    if (np.isfinite(ratio).sum(axis=0) >= FEWEST_DAYS).sum() < 4:
        return None
    pool = np.concatenate([np.roll(ratio, k, axis=1) for k in range(-NEIGHBOURS, NEIGHBOURS + 1)])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # night has no ratio
        spread: Series = np.nanquantile(pool, [0.1, 0.5, 0.9], axis=0)
        spread[1] = np.nanmedian(np.where(np.isfinite(ratio), ratio, np.nan), axis=0)
    # The first and last light have a sun too weak to tell: they take the ratio of the next telling quarter.
    return np.stack([_widened(row) for row in spread])


def _widened(row: Series) -> Series:
    known = np.flatnonzero(np.isfinite(row))
    if not known.size:
        return row
    everywhere = np.arange(row.shape[0])
    nearest = known[np.abs(everywhere[:, None] - known[None, :]).argmin(axis=1)]
    near = np.abs(everywhere - nearest) <= 8
    return np.where(np.isfinite(row), row, np.where(near, row[nearest], np.nan))


def _gain(
    made: History, past_sun: History | None, now: datetime, start: datetime, slots: int, nameplate: float
) -> Series:
    """W per W/m² of forecast sun at each slot's time of day: learnt where the past is known, else the nameplate's."""
    plain = np.full(slots, nameplate)
    if past_sun is None or not made.known:
        return plain
    learnt = _by_quarter(made, past_sun.window(made.start, made.values.shape[0]), now)
    if learnt is None:
        return plain
    gain = learnt[1][_quarters(start, slots, made.slot_s)]
    return np.where(np.isfinite(gain), gain, plain)


def _clouds_now(recent: Series, middle: Series, slots: int) -> Series:
    """A factor for the coming slots: what the last two hours made of what was expected of them, fading to one.

    `middle` begins with those two hours. Where they were dark or unknown there is nothing to learn from them.
    """
    expected = middle[:RECENT_SLOTS]
    known = np.isfinite(recent)
    if known.sum() < RECENT_SLOTS // 2 or expected[known].mean() < 0.05 * max(float(middle.max(initial=0.0)), 1.0):
        return np.ones(slots)
    factor = float(np.clip(recent[known].mean() / expected[known].mean(), 1 / MOST_RATIO, MOST_RATIO))
    return 1 + (factor - 1) * np.exp(-np.arange(slots) / FADES_SLOTS)


def _without_place(made: History, start: datetime, slots: int, most: float) -> Forecast:
    """Nobody knows where the site stands: the same quarters of the last days speak for themselves."""
    days = LEARN_DAYS
    past = made.window(start - timedelta(days=days), days * QUARTERS_A_DAY).reshape(days, QUARTERS_A_DAY)
    if not np.isfinite(past).any():
        nothing = np.zeros(slots)
        return Forecast.of(start, nothing, nothing, nothing, "nothing known", made.slot_s)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        low, middle, high = np.nan_to_num(np.nanquantile(past, [0.1, 0.5, 0.9], axis=0))
    repeat = np.arange(slots) % QUARTERS_A_DAY
    low, middle, high = (-np.clip(s[repeat], 0.0, most) for s in (low, middle, high))
    return Forecast.of(start, high, middle, low, "other days", made.slot_s)


def _quarters(start: datetime, slots: int, slot_s: int) -> Integers:
    """The UTC quarter of the day of each slot."""
    first = int(start.timestamp()) % SECONDS_A_DAY
    return ((first + slot_s * np.arange(slots, dtype=np.int64)) % SECONDS_A_DAY) // 900

"""What a kilowatt-hour and a kilowatt cost: from day-ahead prices to the site's own, and the peak of the month.

Pure. Market prices come in EUR/MWh for intervals of 15 or 60 minutes, contracts turn them into EUR/kWh. Where the
market is not known yet, the same time of day of the days before stands in, drawn towards its mean so that a guess
never looks as tempting as a price; where nothing is known, the contract's fixed price.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta, tzinfo
from enum import StrEnum

import numpy as np

from smartcharging.engine.plan.problem import Series

QUARTER_S = 900
LOOK_BACK_DAYS = 28
TRUST_IN_A_GUESS = 0.8
FEWEST_OF_A_KIND = 2


class PriceSource(StrEnum):
    """Where the price of a slot comes from."""

    MARKET = "market"
    PREDICTED = "predicted"
    FIXED = "fixed"


@dataclass(frozen=True, slots=True)
class MarketPrice:
    """A day-ahead price: from `start` for so many minutes."""

    start: datetime
    minutes: int
    eur_per_mwh: float


@dataclass(frozen=True, slots=True)
class Terms:
    """The contract: own price = factor × market + adder, per direction; and what the month's peak costs."""

    import_factor: float = 1.0
    import_adder_eur_per_kwh: float = 0.10
    export_factor: float = 0.95
    export_adder_eur_per_kwh: float = -0.01
    peak_eur_per_kw_month: float = 4.0
    peak_floor_w: float = 2500.0
    fixed_price_eur_per_mwh: float = 100.0

    def import_eur_per_kwh(self, market_eur_per_mwh: Series) -> Series:
        own: Series = self.import_factor * market_eur_per_mwh / 1000 + self.import_adder_eur_per_kwh
        return own

    def export_eur_per_kwh(self, market_eur_per_mwh: Series) -> Series:
        own: Series = self.export_factor * market_eur_per_mwh / 1000 + self.export_adder_eur_per_kwh
        return own


@dataclass(frozen=True)
class SlotPrices:
    """Prices of consecutive slots, and for each slot how it is known."""

    market_eur_per_mwh: Series
    import_eur_per_kwh: Series
    export_eur_per_kwh: Series
    source: tuple[PriceSource, ...]

    @property
    def known_slots(self) -> int:
        """How many slots from the first are real market prices, without a hole."""
        return next((i for i, s in enumerate(self.source) if s is not PriceSource.MARKET), len(self.source))


def slot_prices(
    terms: Terms, market: Iterable[MarketPrice], start: datetime, slots: int, zone: tzinfo, slot_s: int = QUARTER_S
) -> SlotPrices:
    """The site's price in each of `slots` from `start`. `market` may reach back: what lies before serves as memory.

    A slot longer than a market interval gets the mean of those it covers. Where a 60-minute and a 15-minute price
    speak of the same time, the finer one counts.
    """
    prices = [p for p in market if np.isfinite(p.eur_per_mwh) and p.minutes > 0]
    prices.sort(key=lambda p: -p.minutes)  # finer ones overwrite
    values = _covered(prices, start, slots, slot_s)
    source = np.where(np.isfinite(values), PriceSource.MARKET, PriceSource.FIXED).tolist()
    missing = np.flatnonzero(~np.isfinite(values))
    if missing.size:
        by_quarter = _quarters(prices, start, zone)
        level = float(np.mean([v for rows in by_quarter.values() for _, v in rows])) if by_quarter else 0.0
        for slot in missing:
            guess = _guess(by_quarter, (start + timedelta(seconds=int(slot) * slot_s)).astimezone(zone))
            if guess is None:
                values[slot] = terms.fixed_price_eur_per_mwh
            else:
                values[slot] = level + TRUST_IN_A_GUESS * (guess - level)
                source[slot] = PriceSource.PREDICTED
    return SlotPrices(
        values,
        terms.import_eur_per_kwh(values),
        terms.export_eur_per_kwh(values),
        tuple(PriceSource(s) for s in source),
    )


def _covered(prices: list[MarketPrice], start: datetime, slots: int, slot_s: int) -> Series:
    """Mean price of each slot; NaN where any minute of it is without one."""
    minutes = np.full(slots * slot_s // 60, np.nan)
    for p in prices:
        first = round((p.start - start).total_seconds() / 60)
        low, high = max(first, 0), min(first + p.minutes, minutes.shape[0])
        if low < high:
            minutes[low:high] = p.eur_per_mwh
    mean: Series = minutes.reshape(slots, -1).mean(axis=1) if slots else np.zeros(0)
    return mean


_Quarter = tuple[int, int]  # hour and quarter of the local clock


def _quarters(prices: list[MarketPrice], start: datetime, zone: tzinfo) -> dict[_Quarter, list[tuple[date, float]]]:
    """Past and present prices by local time of day, with their day."""
    found: dict[tuple[_Quarter, datetime], tuple[date, float]] = {}
    earliest = start - timedelta(days=LOOK_BACK_DAYS)
    for p in prices:
        if p.start < earliest:
            continue
        for k in range(0, p.minutes, 15):
            moment = p.start.astimezone(UTC) + timedelta(minutes=k)
            local = moment.astimezone(zone)
            found[(local.hour, local.minute // 15), moment] = (local.date(), p.eur_per_mwh)
    by_quarter: dict[_Quarter, list[tuple[date, float]]] = {}
    for (quarter, _), row in found.items():
        by_quarter.setdefault(quarter, []).append(row)
    return by_quarter


def _guess(by_quarter: dict[_Quarter, list[tuple[date, float]]], local: datetime) -> float | None:
    """The median of this time of day on the last days of the same kind (working day or weekend), else of any kind."""
    rows = by_quarter.get((local.hour, local.minute // 15), [])
    if not rows:
        return None
    weekend = local.weekday() >= 5
    same = [row for row in rows if (row[0].weekday() >= 5) == weekend]
    chosen = sorted(same if len(same) >= FEWEST_OF_A_KIND else rows)[-5:]
    return float(np.median([v for _, v in chosen]))


# The peak of the month (capacity tariff)


def peak_so_far_w(terms: Terms, measured_peak_w: float | None) -> float:
    """What import may reach without raising the bill: the month's highest quarter hour, and never below the floor."""
    measured = measured_peak_w if measured_peak_w is not None and np.isfinite(measured_peak_w) else 0.0
    return max(measured, terms.peak_floor_w, 0.0)


def month_of(moment: datetime, zone: tzinfo) -> date:
    """The first day of the calendar month on the site's clock: peaks are counted per such month."""
    return moment.astimezone(zone).date().replace(day=1)


def highest_quarter_w(quarters: Iterable[tuple[datetime, float]], month: date, zone: tzinfo) -> float | None:
    """The highest mean import of a clock quarter in a month; export quarters count as zero. None: no quarter known."""
    found = [max(w, 0.0) for start, w in quarters if np.isfinite(w) and month_of(start, zone) == month]
    return max(found, default=None)


def quarter_start(moment: datetime) -> datetime:
    """The clock quarter (:00, :15, :30, :45) a moment lies in, in UTC. Every zone's quarters are UTC quarters."""
    seconds = int(moment.timestamp())
    return datetime.fromtimestamp(seconds - seconds % QUARTER_S, tz=UTC)


def budget_w(target_w: float, imported_wh: float, seconds_left: float) -> float:
    """The mean power the rest of a quarter may take so that the whole quarter stays at `target_w`; never below zero.

    A burst early in the quarter is allowed as long as the quarter's mean is kept. In the last second the budget would
    be a division by almost nothing, so the rest is never taken shorter than one second.
    """
    left_wh = target_w * QUARTER_S / 3600 - max(imported_wh, 0.0)
    return max(0.0, left_wh * 3600 / max(seconds_left, 1.0))

"""From day-ahead prices to what the site pays, and the peak of the month."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import numpy as np
import pytest

from smartcharging.engine import tariff
from smartcharging.engine.tariff import MarketPrice, PriceSource, Terms, slot_prices

BRUSSELS = ZoneInfo("Europe/Brussels")
MONDAY = datetime(2026, 1, 5, tzinfo=UTC)
PLAIN = Terms(import_factor=1, import_adder_eur_per_kwh=0, export_factor=1, export_adder_eur_per_kwh=0)


def hourly(start: datetime, *prices: float) -> list[MarketPrice]:
    return [MarketPrice(start + timedelta(hours=i), 60, p) for i, p in enumerate(prices)]


def quarterly(start: datetime, *prices: float) -> list[MarketPrice]:
    return [MarketPrice(start + timedelta(minutes=15 * i), 15, p) for i, p in enumerate(prices)]


def test_factor_and_adder_make_the_sites_own_price():
    terms = Terms(1.05, 0.12, 0.9, -0.02)

    prices = slot_prices(terms, quarterly(MONDAY, 100, -50), MONDAY, 2, BRUSSELS)

    assert prices.import_eur_per_kwh == pytest.approx([0.225, 0.0675])
    assert prices.export_eur_per_kwh == pytest.approx([0.07, -0.065])
    assert prices.source == (PriceSource.MARKET, PriceSource.MARKET)


def test_an_hourly_price_holds_for_its_four_quarters():
    prices = slot_prices(PLAIN, hourly(MONDAY, 80, 40), MONDAY + timedelta(minutes=30), 4, BRUSSELS)

    assert prices.market_eur_per_mwh.tolist() == [80, 80, 40, 40]


def test_quarters_within_a_longer_slot_are_averaged():
    prices = slot_prices(PLAIN, quarterly(MONDAY, 10, 20, 30, 40), MONDAY, 1, BRUSSELS, slot_s=3600)

    assert prices.market_eur_per_mwh.tolist() == [25]


def test_the_finer_price_counts_where_two_speak():
    both = quarterly(MONDAY, 10, 20, 30, 40) + hourly(MONDAY, 99, 50)

    prices = slot_prices(PLAIN, both, MONDAY, 5, BRUSSELS)

    assert prices.market_eur_per_mwh.tolist() == [10, 20, 30, 40, 50]


def test_tomorrow_is_guessed_from_the_same_time_of_the_days_before():
    past = [p for d in range(1, 4) for p in hourly(MONDAY - timedelta(days=d), *range(24))]

    prices = slot_prices(PLAIN, past, MONDAY, 96, BRUSSELS)

    assert set(prices.source) == {PriceSource.PREDICTED}
    assert prices.known_slots == 0
    # drawn towards the mean, so that a guess never looks as tempting as a price
    assert prices.market_eur_per_mwh[0] == pytest.approx(11.5 + 0.8 * (0 - 11.5))
    assert prices.market_eur_per_mwh[95] == pytest.approx(11.5 + 0.8 * (23 - 11.5))


def test_a_weekend_is_guessed_from_weekends():
    past = []
    for d in range(1, 15):
        day = MONDAY - timedelta(days=d)
        past += hourly(day, *([10.0 if day.weekday() >= 5 else 100.0] * 24))
    saturday = MONDAY + timedelta(days=5, hours=12)

    weekend = slot_prices(PLAIN, past, saturday, 1, BRUSSELS).market_eur_per_mwh[0]
    weekday = slot_prices(PLAIN, past, MONDAY + timedelta(hours=12), 1, BRUSSELS).market_eur_per_mwh[0]

    assert weekend < 40 < 80 < weekday


def test_without_any_market_the_fixed_price_holds():
    prices = slot_prices(Terms(fixed_price_eur_per_mwh=120), [], MONDAY, 3, BRUSSELS)

    assert prices.market_eur_per_mwh.tolist() == [120] * 3
    assert set(prices.source) == {PriceSource.FIXED}
    assert prices.import_eur_per_kwh == pytest.approx([0.22] * 3)


def test_known_prices_come_first_and_guesses_follow():
    market = quarterly(MONDAY - timedelta(days=1), *[50.0] * 96) + quarterly(MONDAY, *[70.0] * 4)

    prices = slot_prices(PLAIN, market, MONDAY, 8, BRUSSELS)

    assert prices.known_slots == 4
    assert prices.market_eur_per_mwh[:4].tolist() == [70] * 4
    assert (prices.market_eur_per_mwh[4:] < 70).all()


def test_prices_that_are_no_numbers_are_no_prices():
    prices = slot_prices(PLAIN, [MarketPrice(MONDAY, 15, float("nan"))], MONDAY, 1, BRUSSELS)

    assert prices.source == (PriceSource.FIXED,)


def test_the_day_the_clock_changes_guesses_by_the_local_clock():
    """29 March 2026: Brussels skips from 2:00 to 3:00. Nine in the morning stays nine in the morning."""
    past = []
    for d in range(1, 9):
        local = datetime(2026, 3, 29, 9, tzinfo=BRUSSELS) - timedelta(days=d)
        past += hourly(local.astimezone(UTC), 500.0)
        past += hourly((local + timedelta(hours=1)).astimezone(UTC), 0.0)
    nine = datetime(2026, 3, 29, 9, tzinfo=BRUSSELS).astimezone(UTC)

    prices = slot_prices(PLAIN, past, nine, 8, BRUSSELS)

    assert prices.market_eur_per_mwh[0] > prices.market_eur_per_mwh[4]


@pytest.mark.parametrize(("measured", "expected"), [(None, 2500), (1000, 2500), (9000, 9000), (float("nan"), 2500)])
def test_the_peak_so_far_is_never_below_the_floor(measured, expected):
    assert tariff.peak_so_far_w(Terms(), measured) == expected


def test_the_month_begins_at_local_midnight():
    last_hour_of_january = datetime(2026, 1, 31, 23, 30, tzinfo=UTC)  # already February in Brussels

    assert tariff.month_of(last_hour_of_january, BRUSSELS) == date(2026, 2, 1)
    assert tariff.highest_quarter_w([(last_hour_of_january, 7000.0)], date(2026, 1, 1), BRUSSELS) is None
    assert tariff.highest_quarter_w([(last_hour_of_january, 7000.0)], date(2026, 2, 1), BRUSSELS) == 7000


def test_export_is_no_peak():
    assert tariff.highest_quarter_w([(MONDAY, -5000.0), (MONDAY, np.nan)], date(2026, 1, 1), BRUSSELS) == 0


@pytest.mark.parametrize(
    ("imported_wh", "seconds_left", "budget"),
    [
        (0, 900, 10_000),  # nothing used: the target itself
        (0, 450, 20_000),  # nothing used in the first half: twice as much in the second
        (1250, 450, 10_000),
        (2500, 300, 0),  # used up
        (9999, 300, 0),  # overspent: never negative
        (2000, 0, 1_800_000),  # the last moment is never shorter than a second
    ],
)
def test_the_rest_of_the_quarter_gets_what_is_left_of_it(imported_wh, seconds_left, budget):
    assert tariff.budget_w(10_000, imported_wh, seconds_left) == pytest.approx(budget)


def test_a_moment_lies_in_its_clock_quarter():
    assert tariff.quarter_start(datetime(2026, 1, 5, 10, 44, 59, tzinfo=UTC)) == datetime(
        2026, 1, 5, 10, 30, tzinfo=UTC
    )

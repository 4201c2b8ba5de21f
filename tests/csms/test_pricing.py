"""What a charge costs: by the clock, by the market, with fees and VAT, and on the two odd days of the year."""

from __future__ import annotations

from datetime import UTC, datetime, time, timedelta
from decimal import Decimal as D

import pytest
from hypothesis import given
from hypothesis import strategies as st

from csms.pricing import Charge, Hours, Line, SpotPrice, Terms, price

T0 = datetime(2026, 11, 24, 8, 0, tzinfo=UTC)  # a Tuesday, nine o'clock in Brussels
ZONE = "Europe/Brussels"


def charge(*points: tuple[float, float], start: datetime = T0, idle_min: float = 0) -> Charge:
    """Energy at some hours after the start."""
    told = tuple((start + timedelta(hours=h), wh) for h, wh in points)
    return Charge(start, told[-1][0], told, idle_min * 60)


def amounts(lines: tuple[Line, ...]) -> dict[str, str]:
    return {f"{line.kind} {line.unit_price.normalize()}": str(line.amount) for line in lines}


def test_one_price_and_the_fees_around_it() -> None:
    terms = Terms(
        price_per_kwh=D("0.35"), start_fee=D("0.50"), idle_fee_per_minute=D("0.10"), idle_grace_minutes=15,
        vat_percent=D(21),
    )  # fmt: skip
    cost = price(terms, charge((0, 0), (2, 12_345), idle_min=45.9))
    assert [(line.kind, line.quantity, line.amount) for line in cost.lines] == [
        ("energy", D("12.345"), D("4.32")),
        ("start", D(1), D("0.50")),
        ("idle", D(30), D("3.00")),
    ]
    assert (cost.total, cost.vat, cost.currency) == (D("7.82"), D("1.36"), "EUR")


def test_vat_on_top_is_a_line_of_its_own() -> None:
    cost = price(Terms(price_per_kwh=D("0.30"), vat_percent=D(21), vat_included=False), charge((0, 0), (1, 10_000)))
    assert (cost.total, cost.vat, cost.lines[-1].kind) == (D("3.63"), D("0.63"), "vat")


def test_the_price_changes_with_the_hours_of_the_sites_own_clock() -> None:
    hours = (Hours("12345", time(9, 30), time(12), D("0.50")),)
    cost = price(Terms(zone=ZONE, price_per_kwh=D("0.20"), hours=hours), charge((0, 0), (1, 10_000)))
    assert amounts(cost.lines) == {"energy 0.2": "1.00", "energy 0.5": "2.50"}


def test_hours_that_pass_midnight_belong_to_the_day_they_begin() -> None:
    friday = datetime(2026, 11, 27, 20, 0, tzinfo=UTC)  # nine in the evening there
    hours = (Hours("5", time(22), time(6), D("0.10")),)
    cost = price(Terms(zone=ZONE, price_per_kwh=D("0.40"), hours=hours), charge((0, 0), (10, 10_000), start=friday))
    assert amounts(cost.lines) == {"energy 0.4": "0.80", "energy 0.1": "0.80"}


@pytest.mark.parametrize(
    ("what", "start", "cheap_kwh"),
    [
        ("an ordinary night", datetime(2026, 11, 24, 23, 0, tzinfo=UTC), "2"),
        ("spring: two to three is skipped", datetime(2026, 3, 28, 23, 0, tzinfo=UTC), "1"),
        ("autumn: two to three comes twice", datetime(2026, 10, 24, 22, 0, tzinfo=UTC), "3"),
    ],
)
def test_on_the_days_the_clock_changes_hours_are_as_long_as_they_are(
    what: str, start: datetime, cheap_kwh: str
) -> None:
    hours = (Hours("1234567", time(1), time(3), D("0.10")),)
    lasts = 5.0
    cost = price(
        Terms(zone=ZONE, price_per_kwh=D("0.40"), hours=hours), charge((0, 0), (lasts, lasts * 1000), start=start)
    )
    cheap = next(line for line in cost.lines if line.unit_price == D("0.10"))
    assert cheap.quantity == D(cheap_kwh), what


def test_the_market_price_with_a_mark_up_and_a_fallback() -> None:
    market = [SpotPrice(T0, 60, D("0.10")), SpotPrice(T0 + timedelta(minutes=15), 15, D("-0.20"))]
    terms = Terms(by_market=True, market_markup_per_kwh=D("0.05"), price_per_kwh=D("0.40"))
    cost = price(terms, charge((0, 0), (2, 8000)), market)
    # 3 kWh at 0.15, 1 kWh at -0.15, and 4 kWh in the hour without a price
    assert [(line.quantity, line.amount, line.unit_price) for line in cost.lines] == [(D(8), D("1.90"), D("0.2375"))]


def test_nobody_is_paid_for_charging_and_a_minimum_holds_only_where_something_was_taken() -> None:
    paid = price(Terms(by_market=True), charge((0, 0), (1, 5000)), [SpotPrice(T0, 60, D("-0.30"))])
    assert (paid.total, paid.lines[-1].kind) == (D(0), "minimum")
    terms = Terms(price_per_kwh=D("0.30"), minimum=D(1))
    assert price(terms, charge((0, 0), (1, 100))).total == D(1)
    assert price(terms, charge((0, 0), (1, 0))).total == D(0)
    assert price(terms, charge((0, 0))).lines == ()


def test_a_currency_without_cents_has_none() -> None:
    assert price(Terms(currency="JPY", price_per_kwh=D("31.5")), charge((0, 0), (1, 1000))).total == D(32)


def test_terms_survive_being_kept() -> None:
    terms = Terms(zone=ZONE, by_market=True, hours=(Hours("67", time(8), time(0), D("0.1")),), minimum=D("2.50"))
    assert Terms.from_dict(terms.to_dict()) == terms


@given(
    rises=st.lists(st.integers(0, 5000), min_size=1, max_size=20),
    minutes=st.lists(st.integers(1, 300), min_size=20, max_size=20),
)
def test_the_lines_add_up_to_the_energy_and_to_the_total(rises: list[int], minutes: list[int]) -> None:
    points, at, wh = [(0.0, 0.0)], 0.0, 0.0
    for rise, minute in zip(rises, minutes, strict=False):
        at, wh = at + minute / 60, wh + rise
        points.append((at, wh))
    hours = (Hours("12345", time(7), time(22), D("0.31")), Hours("67", time(10), time(9), D("0.17")))
    cost = price(Terms(zone=ZONE, price_per_kwh=D("0.23"), hours=hours), charge(*points))
    assert sum((line.quantity for line in cost.lines), D(0)) == D(sum(rises)) / 1000
    assert sum((line.amount for line in cost.lines), D(0)) == cost.total
    assert D("0.17") * D(sum(rises)) / 1000 - D("0.05") <= cost.total <= D("0.31") * D(sum(rises)) / 1000 + D("0.05")

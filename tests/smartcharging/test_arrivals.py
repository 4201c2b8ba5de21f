"""Cars that are not here yet, as sessions of the plan: how many, where, when, and how little is promised of them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from smartcharging.engine.forecast.arrivals import Habits, Visit, still_to_come
from smartcharging.engine.plan.problem import PlanSession
from smartcharging.engine.plan.solve import solve
from tests.smartcharging.planning_worlds import car, day, kw

MONDAY = datetime(2026, 3, 9, tzinfo=UTC)


def free(key: str, first: int = 0, max_kw: float = 11) -> PlanSession:
    """A place where a car could come."""
    return car(key, energy_kwh=0, max_kw=max_kw, first=first, last=96)


def came(*visits: tuple[str, float, float, float], days: int = 10) -> Habits:
    """On each of ten working days: place, hour of arrival, hours of stay, kWh."""
    first = MONDAY - timedelta(days=14)
    mornings = [d for k in range(14) if (d := first + timedelta(days=k)).weekday() < 5][:days]
    seen = [
        Visit(d + timedelta(hours=at), d + timedelta(hours=at + stay), kwh * 1000, place)
        for d in mornings
        for place, at, stay, kwh in visits
    ]
    return Habits.of(seen, first, MONDAY, UTC)


def test_a_car_is_expected_where_and_when_one_always_came():
    habits = came(("A", 8.5, 6, 20))

    (expected,) = still_to_come(habits, MONDAY, 96, UTC, [free("A"), free("B")])

    assert expected.expected
    assert expected.key == "expected:A"
    assert 32 <= expected.first_slot < 36  # between eight and nine
    assert expected.last_slot - expected.first_slot == 24
    assert expected.energy_wh == pytest.approx(20_000)


def test_a_place_where_somebody_comes_every_other_day_counts_half():
    habits = came(("A", 8.5, 6, 20), days=5)  # of ten working days

    (expected,) = still_to_come(habits, MONDAY, 96, UTC, [free("A")])

    assert expected.energy_wh == pytest.approx(10_000)


def test_two_cars_a_day_come_after_each_other():
    habits = came(("A", 8, 2, 8), ("A", 14, 2, 8))

    morning, afternoon = still_to_come(habits, MONDAY, 96, UTC, [free("A")])

    assert morning.last_slot <= afternoon.first_slot
    assert morning.energy_wh + afternoon.energy_wh == pytest.approx(16_000)


def test_nobody_is_expected_at_a_place_before_it_is_free_nor_for_hours_that_are_over():
    habits = came(("A", 8.5, 6, 20))

    assert still_to_come(habits, MONDAY, 96, UTC, [free("A", first=40)]) == ()
    assert still_to_come(habits, MONDAY + timedelta(hours=10), 48, UTC, [free("A")]) == ()


def test_without_places_in_the_history_all_free_ones_share_what_came():
    habits = came(("", 8.5, 6, 20), ("", 8.5, 6, 20))

    expected = still_to_come(habits, MONDAY, 96, UTC, [free(str(i)) for i in range(4)])

    assert len(expected) == 4
    assert sum(s.energy_wh for s in expected) == pytest.approx(40_000)


def test_a_high_quantile_leaves_room_for_more_than_the_mean():
    habits = came(("A", 8.5, 6, 20), ("B", 9.5, 6, 20))
    places = [free("A"), free("B")]

    mean = sum(s.energy_wh for s in still_to_come(habits, MONDAY, 96, UTC, places))
    many = sum(s.energy_wh for s in still_to_come(habits, MONDAY, 96, UTC, places, quantile=0.9))

    assert many == pytest.approx(2 * mean)  # four cars or fewer come in nine of ten days, when two are usual


def test_nothing_known_means_nobody_is_expected():
    nothing = Habits.of([], MONDAY, MONDAY, UTC)

    assert still_to_come(nothing, MONDAY, 96, UTC, [free("A")]) == ()
    assert still_to_come(came(("A", 8, 2, 8)), MONDAY, 0, UTC, [free("A")]) == ()
    assert still_to_come(came(("A", 8, 2, 8)), MONDAY, 96, UTC, []) == ()


def test_habits_survive_being_kept():
    habits = came(("A", 8.5, 6, 20), ("B", 17, 12, 40))

    again = Habits.from_json(habits.to_json())

    assert still_to_come(again, MONDAY, 96, UTC, [free("B")]) == still_to_come(habits, MONDAY, 96, UTC, [free("B")])
    with pytest.raises(ValueError, match="no habits"):
        Habits.from_json('{"arrivals": []}')


def test_a_plan_leaves_room_for_who_is_expected():
    """Two hours for one car; the other comes for the second of them only, and both share a circuit of 10 kW."""
    here = car("1", energy_kwh=10, first=0, last=2)
    coming = car("expected:2", energy_kwh=10, first=1, last=2, expected=True)

    plan = solve(day(here, coming, slots=2, price=[0.3, 0.1], import_limit_w=np.full(2, 10_000.0)))

    assert kw(plan.session_w["1"]) == [10, 0]
    assert kw(plan.session_w["expected:2"]) == [0, 10]


def test_who_is_here_goes_before_who_may_come():
    here = car("1", energy_kwh=10, first=0, last=1)
    coming = car("expected:2", energy_kwh=10, first=0, last=1, expected=True)

    plan = solve(day(here, coming, slots=1, import_limit_w=np.full(1, 10_000.0)))

    assert plan.shortfall_wh["1"] == 0
    assert plan.shortfall_wh["expected:2"] == pytest.approx(10_000)

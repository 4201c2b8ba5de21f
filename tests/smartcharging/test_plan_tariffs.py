"""What a kilowatt costs beyond its energy: peaks by month, access power, the maximum tariff; and longer far slots."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import numpy as np
import pytest

from smartcharging.engine.plan.coarse import borders
from smartcharging.engine.plan.problem import MaximumTariff, PeakCharge
from smartcharging.engine.plan.solve import solve
from tests.smartcharging.planning_worlds import MIDNIGHT, battery, car, day, one_circuit


def test_the_old_months_peak_is_no_excuse_in_the_new_month():
    """Until midnight 10 kW are paid for; after it every kilowatt above the floor costs."""
    new_month = PeakCharge("month_peak", 5.0, 2500.0, first_slot=2)
    problem = day(
        car(energy_kwh=18, max_kw=10), price=[0.3, 0.3, 0.2, 0.2], peak_eur_per_kw=5, month_peak_w=10_000, month_ends=2
    )

    plan = solve(replace(problem, charges=(new_month,)))

    assert plan.session_w["1"][:2].sum() == pytest.approx(13_000)
    assert plan.session_w["1"][2:] == pytest.approx([2500, 2500])
    assert plan.peak_w == pytest.approx(10_000)
    assert plan.cost_eur == pytest.approx(13 * 0.3 + 5 * 0.2)


def test_access_power_is_exceeded_only_for_a_goal_and_its_price_is_told():
    excess = PeakCharge("access_power", 20.0, 6000.0)
    within = solve(day(car(energy_kwh=24), charges=(excess,), price=[0.3, 0.1, 0.1, 0.3]))
    beyond = solve(day(car(energy_kwh=28), charges=(excess,), price=[0.3, 0.1, 0.1, 0.3]))

    assert within.session_w["1"] == pytest.approx([6000] * 4)
    assert beyond.session_w["1"] == pytest.approx([7000] * 4)
    assert beyond.shortfall_wh["1"] == 0
    assert beyond.cost_eur == pytest.approx(7 * 0.8 + 20 * 1)
    assert "access_power" in beyond.binding


@pytest.mark.parametrize(("other_kwh", "full_power"), [(0, True), (200, False)])
def test_where_the_month_imports_little_the_maximum_tariff_makes_a_peak_cheap(other_kwh, full_power):
    """By peak 40 EUR for 10 kW; by energy 0.34 EUR for each of the few kWh of the month."""
    cap = MaximumTariff(0.34, other_kwh * 1000.0)
    plan = solve(day(car(energy_kwh=10), price=[0.3, 0.1, 0.3, 0.3], peak_eur_per_kw=4, maximum_tariff=cap))

    assert (plan.session_w["1"].max() > 9_999) == full_power
    peak_kw = plan.session_w["1"].max() / 1000
    energy = float(plan.session_w["1"] @ np.array([0.3, 0.1, 0.3, 0.3])) / 1000
    by_energy = 0.34 * (other_kwh + 10)
    assert plan.cost_eur == pytest.approx(energy + min(4 * peak_kw, by_energy), abs=1e-6)
    assert plan.gap == pytest.approx(0, abs=1e-6)


def test_the_cheaper_of_both_ways_is_taken_and_the_gap_knows_both():
    cap = MaximumTariff(0.05, 30_000.0)
    problem = day(car(energy_kwh=20), building_kw=2, price=[0.1, 0.4, 0.1, 0.4], peak_eur_per_kw=3)

    plain, capped = solve(problem), solve(replace(problem, maximum_tariff=cap))

    assert plain.cost_eur is not None
    assert capped.cost_eur is not None
    assert capped.cost_eur < plain.cost_eur
    assert capped.gap == pytest.approx(0, abs=1e-6)


def test_the_maximum_tariff_makes_nothing_worth_storing_that_was_not():
    """Each kWh bears it, also the one that is stored: a negative price that it outweighs is no reason to buy."""
    tariff = MaximumTariff(0.3, 20_000.0)

    plan = solve(
        day(
            battery=battery(soc=0.0, power_kw=5),
            price=[0.0, 0.0, 0.0, -0.25],
            peak_eur_per_kw=4.0,
            month_peak_w=5000.0,
            maximum_tariff=tariff,
        )
    )

    assert plan.objective_eur == pytest.approx(0.0, abs=1e-6)
    assert plan.battery_w.tolist() == pytest.approx([0.0] * 4, abs=1)


def test_far_slots_are_longer_but_every_departure_keeps_its_border():
    problem = replace(
        day(car(first=0, last=150), car("2", first=101, last=171), slots=192), slot_s=900, building_w=np.zeros(192)
    )

    at = borders(problem)

    assert list(at[:97]) == list(range(97))
    assert {101, 150, 171} <= set(at)
    rest = np.setdiff1d(at, [101, 150, 171])
    assert set(np.diff(rest[(rest >= 96) & (rest <= 144)])) == {2}
    assert set(np.diff(rest[rest >= 144])) == {4}


def test_a_car_that_leaves_in_the_second_night_gets_what_it_wants_in_quarter_hours():
    slots = 192
    price = np.where(np.arange(slots) >= 160, 0.05, 0.3)
    problem = day(
        car(energy_kwh=30, max_kw=10, last=181),
        slots=slots,
        price=price,
        building_kw=list(np.tile([1.0, 5.0, 2.0, 1.0], 48)),
        import_limit_w=np.full(slots, 9000.0),
        battery=battery(),
    )
    problem = replace(problem, slot_s=900)

    plan = solve(problem)

    assert plan.session_w["1"].shape == (slots,)
    assert plan.shortfall_wh["1"] == 0
    assert plan.grid_w.max() <= 9000 + 1
    assert plan.session_w["1"][181:].max() == 0
    assert (plan.session_w["1"][160:181] > 0).any()


def test_a_limit_in_a_far_long_slot_is_told_with_its_true_times():
    slots = 192
    problem = day(
        car(energy_kwh=30, max_kw=10, first=160, last=170), slots=slots, import_limit_w=np.full(slots, 5000.0)
    )
    problem = replace(problem, slot_s=900)

    plan = solve(problem)

    assert plan.shortfall_wh["1"] == pytest.approx(30_000 - 5000 * 2.5, abs=10)
    begins, ends = (MIDNIGHT + timedelta(minutes=15 * slot) for slot in (160, 170))
    assert plan.shortfall_reason["1"].endswith(f"@{begins:%Y-%m-%dT%H:%MZ}/{ends:%Y-%m-%dT%H:%MZ}")


def in_quarters(problem):
    return replace(problem, slot_s=900)


def test_one_busy_quarter_hour_in_four_does_not_stand_for_all_of_them():
    busy = np.where((np.arange(192) >= 96) & (np.arange(192) % 4 == 0), 26.0, 3.0)
    asked = car(energy_kwh=150, max_kw=11, first=96, last=188)
    problem = in_quarters(day(asked, slots=192, building_kw=list(busy), grid=one_circuit(40)))

    assert solve(problem).shortfall_wh["1"] == 0
    at = borders(problem)
    assert {96, 97, 180, 181} <= set(at)
    assert np.diff(at)[np.isin(at[:-1], np.arange(96, 188, 4))].max() == 1


def test_far_slots_of_an_even_day_stay_joined_and_so_do_those_of_a_circuit_that_cannot_be_full():
    t = np.arange(192) / 4
    building = 12 + 3 * np.sin((t - 9) / 12 * np.pi)
    sun = 3 * np.maximum(np.sin((t - 6) / 12 * np.pi), 0)
    uneven = np.where(np.arange(192) % 4 == 0, 26.0, 3.0)
    many = [car(str(i), first=90, last=188, max_kw=11) for i in range(3)]
    smooth = day(*many, slots=192, building_kw=list(building), pv_kw=list(sun), grid=one_circuit(40))
    wide = day(*many, slots=192, building_kw=list(uneven), grid=one_circuit(100))

    for problem in map(in_quarters, (smooth, wide)):
        assert len(borders(problem)) == 96 + 24 + 12 + 1


def test_a_plan_with_joined_slots_says_of_which_day_its_gap_is():
    even = in_quarters(day(car(last=96), slots=192))

    assert solve(even).notes == (
        "from 2026-01-06T00:00Z on slots are half hours and hours where little changes; "
        "the gap is that of this coarser day",
    )
    assert solve(in_quarters(day(car(), slots=96))).notes == ()

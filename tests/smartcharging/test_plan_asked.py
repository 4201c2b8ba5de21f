"""One odd number of one car, circuit or battery is set right and named, and everybody else is planned as ever."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from smartcharging.engine.plan.solve import solve
from tests.smartcharging.planning_worlds import battery, car, day, one_circuit, two_rows

NAN, INF = float("nan"), float("inf")
LENDS = {"discharge_w": 5000.0, "lends_wh": 5000.0, "wear_eur_per_kwh": 0.01}
PRICE = [0.4, 0.1, 0.4, 0.1]


@pytest.mark.parametrize("odd", [NAN, INF, -INF])
@pytest.mark.parametrize("field", ["hurry", "wear_eur_per_kwh", "discharge_w", "lends_wh"])
def test_an_odd_number_of_a_car_that_gives_costs_nobody_else_the_plan(field, odd):
    lender = replace(car("odd", energy_kwh=5, **LENDS), **{field: odd})

    plan = solve(day(lender, car("good", energy_kwh=10), price=PRICE, export=PRICE))

    assert plan.status == "optimal", plan.notes
    assert plan.session_w["good"][[1, 3]].sum() == pytest.approx(10_000)
    assert plan.shortfall_wh == {"odd": 0, "good": 0}
    assert field == "hurry" or plan.session_w["odd"].min() >= 0
    assert any("odd" in note for note in plan.notes)


@pytest.mark.parametrize("odd", [NAN, -INF, -1.0])
def test_a_station_whose_inlet_is_no_number_gives_its_cars_nothing(odd):
    plan = solve(day(car("odd", group=1, group_max_a=odd), car("good"), price=PRICE))

    assert plan.status == "optimal", plan.notes
    assert plan.shortfall_wh == {"odd": 10_000, "good": 0}
    assert any("odd" in note for note in plan.notes)


@pytest.mark.parametrize(
    "odd",
    [
        {"limit_w": NAN},
        {"limit_w": -1.0},
        {"limit_a": (NAN, NAN, NAN)},
        {"limit_a": (32.0, NAN, 32.0)},
        {"limit_a": (-1.0, 32.0, 32.0)},
        {"margin_a": NAN},
    ],
)
def test_a_circuit_whose_limit_is_no_number_carries_nothing(odd):
    grid = two_rows()
    grid = replace(grid, circuits=(grid.circuits[0], replace(grid.circuits[1], **odd), grid.circuits[2]))

    plan = solve(day(car("odd", node=1), car("good", node=2), grid=grid, price=PRICE))

    assert plan.status == "optimal", plan.notes
    assert plan.shortfall_wh == {"odd": 10_000, "good": 0}
    assert any("row 1" in note for note in plan.notes)


@pytest.mark.parametrize("odd", [NAN, -INF, -1.0])
def test_where_it_is_not_known_what_may_be_exported_nothing_is(odd):
    plan = solve(day(car(), pv_kw=8, price=PRICE, grid=one_circuit(export_limit_w=odd), battery=battery()))

    assert plan.status == "optimal", plan.notes
    assert plan.grid_w.min() == pytest.approx(0, abs=1)
    assert any("export limit" in note for note in plan.notes)


@pytest.mark.parametrize("odd", [{"wear_eur_per_kwh": INF}, {"wear_eur_per_kwh": NAN}, {"min_soc": NAN}])
def test_a_battery_whose_wear_or_band_is_no_number_rests(odd):
    plan = solve(day(car(), price=PRICE, battery=battery(**odd)))

    assert plan.status == "optimal", plan.notes
    assert not plan.battery_w.any()
    assert any("it rests" in note for note in plan.notes)


def test_a_horizon_without_slots_is_no_crash_with_a_battery_and_a_car_that_gives():
    plan = solve(day(car(last=0, **LENDS), slots=0, battery=battery()))

    assert plan.status == "fallback"
    assert plan.shortfall_wh["1"] == 10_000
    assert np.size(plan.battery_w) == 0

"""One odd number of one car, circuit or battery is set right and named, and everybody else is planned as ever."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from smartcharging.engine.grid import Grid, Supply
from smartcharging.engine.plan import solve as planning
from smartcharging.engine.plan.problem import MaximumTariff, PeakCharge
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


@pytest.mark.parametrize("node", [99, -1])
def test_a_battery_at_no_circuit_is_planned_at_the_connection(node):
    plan = solve(day(car(), price=PRICE, battery=battery(node=node)))

    assert plan.status == "optimal", plan.notes
    assert any("unknown circuit" in note for note in plan.notes)


@pytest.mark.parametrize("field", ["import_eur_per_kwh", "export_eur_per_kwh", "levy_eur_per_kwh"])
def test_a_few_prices_that_are_missing_are_what_their_neighbours_are(field):
    known = np.array([0.3, 0.2, 0.1, 0.4])
    gaps = replace(day(car(energy_kwh=10), price=known), **{field: np.array([0.3, NAN, 0.1, 0.4])})

    plan, whole = solve(gaps), solve(replace(gaps, **{field: known}))

    assert plan.status == "optimal", plan.notes
    assert plan.objective_eur == pytest.approx(whole.objective_eur)
    assert any(field in note for note in plan.notes)


SINGLE = {
    "slot_s": 0,
    "sun_trust": NAN,
    "early_eur_per_kwh": NAN,
    "time_limit_s": NAN,
    "relative_gap": NAN,
    "month_peak_w": INF,
    "peak_eur_per_kw": NAN,
    "battery_end_soc": NAN,
    "battery_end_eur_per_kwh": INF,
    "overload_eur_per_kwh": NAN,
    "maximum_tariff": MaximumTariff(NAN),
    "charges": (PeakCharge("access_power", NAN),),
    "levy_eur_per_kwh": np.full(4, NAN),
    "import_limit_w": np.array([NAN, 9000.0, 9000.0, 9000.0]),
    "building_w": [0.0, 0.0, 0.0, 0.0],
    "pv_w": np.full(4, INF),
}


@pytest.mark.parametrize("field", SINGLE)
def test_an_odd_number_of_the_site_costs_nobody_the_plan(field):
    plan = solve(
        replace(day(car(max_kw=8, energy_kwh=4), pv_kw=3, price=PRICE, battery=battery()), **{field: SINGLE[field]})
    )

    assert plan.status == "optimal", plan.notes
    assert plan.shortfall_wh == {"1": 0}
    assert np.isfinite([plan.objective_eur, plan.cost_eur, *plan.grid_w]).all()
    assert field == "building_w" or any(field in note for note in plan.notes)


@pytest.mark.parametrize("field", ["import_eur_per_kwh", "export_eur_per_kwh", "building_w", "pv_w"])
def test_without_a_whole_series_there_is_a_plan_all_the_same(field):
    plan = solve(replace(day(car(), price=PRICE, battery=battery()), **{field: None}))

    assert plan.status in ("optimal", "fallback")
    assert plan.session_w["1"].sum() > 0


def test_all_cars_of_an_evse_are_behind_the_inlet_of_its_station():
    behind = car("1", name="second", first=2, last=4, group=1, group_max_a=3000 / 690)

    plan = solve(
        day(car("1", name="first", last=2), behind, car("2", last=4, group=1, group_max_a=3000 / 690), price=PRICE)
    )

    assert plan.status == "optimal", plan.notes
    assert (plan.session_w["1"] + plan.session_w["2"]).max() <= 3000 + 1


def test_without_a_neutral_a_car_of_which_one_line_is_named_gives_nothing():
    grid = Grid(one_circuit().circuits, Supply.IT)
    lender = car("odd", energy_kwh=5, phases=(True, False, False), **LENDS)

    plan = solve(day(lender, car("good"), price=PRICE, export=PRICE, grid=grid))

    assert plan.status == "optimal", plan.notes
    assert plan.session_w["odd"].min() >= 0
    assert any("one is named" in note for note in plan.notes)


def test_where_even_the_rule_stumbles_cars_are_not_held_and_nobody_is_promised_anything(monkeypatch):
    monkeypatch.setattr(planning, "rule_answer", lambda problem: 1 / 0)
    plan = solve(day(car(), price=np.full(4, NAN)))

    assert plan.status == "fallback"
    assert plan.session_w["1"].tolist() == [10_000] * 4
    assert plan.shortfall_wh == {"1": 10_000}
    assert "ZeroDivisionError" in plan.notes[-1]

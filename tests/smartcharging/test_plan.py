"""Days small enough to plan by hand, and what the plan must then say."""

from __future__ import annotations

from dataclasses import replace
from itertools import chain, repeat

import numpy as np
import pytest

from smartcharging.engine.grid import Circuit, Grid, Supply
from smartcharging.engine.plan.judge import judge
from smartcharging.engine.plan.solve import solve
from smartcharging.engine.snapshot import Mode
from tests.smartcharging.planning_worlds import ALL, ON_L1, ON_L2, battery, car, day, kw, one_circuit, two_rows


def test_the_cheapest_slot_is_chosen():
    plan = solve(day(car(energy_kwh=10), price=[0.3, 0.2, 0.1, 0.4]))

    assert kw(plan.session_w["1"]) == [0, 0, 10, 0]
    assert plan.status == "optimal"
    assert plan.gap == 0
    assert plan.cost_eur == pytest.approx(1.0)
    assert plan.shortfall_wh == {"1": 0}


def test_equal_prices_are_used_early():
    plan = solve(day(car(energy_kwh=15)))

    assert kw(plan.session_w["1"]) == [10, 5, 0, 0]


def test_departure_is_respected_even_when_later_is_cheaper():
    plan = solve(day(car(energy_kwh=10, last=2), price=[0.4, 0.3, 0.1, 0.1]))

    assert kw(plan.session_w["1"]) == [0, 10, 0, 0]


def test_a_new_month_peak_is_shaved():
    plan = solve(day(car(energy_kwh=12), building_kw=[4, 0, 0, 4], peak_eur_per_kw=5))

    assert kw(plan.grid_w) == [5, 5, 5, 5]
    assert plan.peak_w == pytest.approx(5000)
    assert "month_peak" in plan.binding


def test_the_month_peak_so_far_is_free():
    plan = solve(day(car(energy_kwh=16), peak_eur_per_kw=5, month_peak_w=8000, price=[0.2, 0.1, 0.1, 0.2]))

    assert kw(plan.grid_w) == [0, 8, 8, 0]
    assert plan.cost_eur == pytest.approx(1.6)


def test_a_battery_buys_low_and_spares_high():
    world = day(battery=battery(soc=0, capacity_kwh=10, power_kw=5), building_kw=5, price=[0.1, 0.1, 0.5, 0.5])

    plan = solve(replace(world, battery_end_eur_per_kwh=0.0))

    assert kw(plan.battery_w) == [5, 5, -5, -5]
    assert kw(plan.grid_w) == [10, 10, 0, 0]


def test_a_battery_does_not_trade_below_its_losses_and_wear():
    lossy = battery(soc=0, efficiency=0.9, wear_eur_per_kwh=0.03)

    plan = solve(day(battery=lossy, building_kw=5, price=[0.20, 0.20, 0.25, 0.25], battery_end_eur_per_kwh=0.0))

    assert kw(plan.battery_w) == [0, 0, 0, 0]


def test_what_is_stored_at_the_end_is_worth_something():
    world = day(battery=battery(soc=1), building_kw=5, price=0.2)

    assert kw(solve(replace(world, battery_end_eur_per_kwh=0.5)).battery_w) == [0, 0, 0, 0]
    assert sum(kw(solve(replace(world, battery_end_eur_per_kwh=0.0)).battery_w)) == -10


def test_the_end_of_the_horizon_may_ask_for_a_charged_battery():
    world = day(battery=battery(soc=0.5), building_kw=5, price=0.2, battery_end_eur_per_kwh=0.0)

    assert sum(kw(solve(replace(world, battery_end_soc=0.3)).battery_w)) == pytest.approx(-2)
    assert sum(kw(solve(replace(world, battery_end_soc=0.9)).battery_w)) == pytest.approx(0)


def test_a_battery_outside_its_band_never_moves_further_out():
    low = battery(soc=0.05, min_soc=0.1)

    plan = solve(day(battery=low, building_kw=5, price=[0.9, 0.9, 0.9, 0.9]))

    assert plan.status == "optimal"
    assert (plan.battery_w >= -1e-6).all()


def test_a_battery_of_unknown_charge_rests():
    plan = solve(day(car(), battery=battery(soc=None), price=[0.1, 0.9, 0.1, 0.9]))

    assert kw(plan.battery_w) == [0, 0, 0, 0]
    assert any("state of charge" in note for note in plan.notes)


def test_own_sun_goes_into_the_car_first():
    plan = solve(day(car(energy_kwh=5), pv_kw=[0, 0, 5, 0]))

    assert kw(plan.session_w["1"]) == [0, 0, 5, 0]
    assert kw(plan.grid_w) == [0, 0, 0, 0]


def test_sun_that_would_cost_money_is_held_back():
    plan = solve(day(pv_kw=5, building_kw=1, export=[0.1, -0.1, 0.1, -0.1]))

    assert kw(plan.pv_w) == [-5, -1, -5, -1]
    assert kw(plan.grid_w) == [-4, 0, -4, 0]


def test_sun_above_the_export_limit_is_held_back():
    plan = solve(day(pv_kw=5, building_kw=1, export_limit_w=np.array([9000.0, 3000.0, 0.0, 9000.0])))

    assert kw(plan.grid_w) == [-4, -3, 0, -4]


def test_the_higher_class_is_served_first_when_not_all_can_be():
    world = day(
        car("low", energy_kwh=20, last=2, priority=1),
        car("high", energy_kwh=20, last=2, priority=3),
        grid=one_circuit(limit_w=12_000),
    )

    plan = solve(world)

    assert plan.shortfall_wh["high"] == 0
    assert plan.shortfall_wh["low"] == pytest.approx(16_000)
    assert plan.shortfall_reason == {"low": "limit:grid@2026-01-05T00:00Z/2026-01-05T02:00Z"}


def test_a_class_outranks_even_a_car_that_takes_three_times_less_of_the_fuse():
    """Single-phase cars take three times as much of their phase per kilowatt-hour."""
    world = day(
        car("one phase", energy_kwh=7, max_kw=7, last=1, priority=2, phases=ON_L1, node=1),
        car("three phases", energy_kwh=20, max_kw=20, last=1, priority=1, node=1),
        grid=two_rows(row_a=7000 / 230),
    )

    plan = solve(world)

    assert plan.shortfall_wh["one phase"] == 0


def test_too_little_time_is_named_as_the_cause():
    plan = solve(day(car(energy_kwh=100)))

    assert plan.shortfall_wh["1"] == pytest.approx(60_000)
    assert plan.shortfall_reason["1"] == "time"


def test_a_departure_that_has_passed_leaves_all_energy_short():
    plan = solve(day(car(energy_kwh=10, first=-8, last=-2)))

    assert plan.shortfall_wh["1"] == pytest.approx(10_000)
    assert plan.shortfall_reason["1"] == "time"


def test_a_car_that_takes_no_power_says_so():
    plan = solve(day(car(energy_kwh=10, max_kw=0)))

    assert plan.shortfall_reason["1"] == "power"


def test_a_goal_without_limit_means_as_much_as_possible():
    plan = solve(day(car(energy_kwh=float("inf"), last=2)))

    assert kw(plan.session_w["1"]) == [10, 10, 0, 0]
    assert plan.shortfall_wh["1"] == 0


def test_a_car_may_be_worth_less_than_a_peak():
    plan = solve(day(car(energy_kwh=10, value_eur_per_kwh=1.0), peak_eur_per_kw=50))

    assert kw(plan.session_w["1"]) == [0, 0, 0, 0]
    assert plan.shortfall_reason["1"] == "value"


def test_a_full_row_is_named_and_its_neighbour_does_not_suffer():
    world = day(
        car("1", energy_kwh=20, last=2, node=1), car("2", energy_kwh=20, last=2, node=2), grid=two_rows(row_a=100)
    )
    narrow = replace(world.grid.circuits[1], limit_a=(10.0, 10.0, 10.0))
    world = replace(world, grid=Grid((world.grid.circuits[0], narrow, world.grid.circuits[2])))

    plan = solve(world)

    assert kw(plan.session_w["1"]) == [6.9, 6.9, 0, 0]
    assert kw(plan.session_w["2"]) == [10, 10, 0, 0]
    assert plan.shortfall_reason["1"].startswith("limit:row 1:L1@")
    assert "limit:row 1:L1" in plan.binding


def test_the_margin_of_a_circuit_stays_free():
    plan = solve(day(car(energy_kwh=40), grid=one_circuit(limit_a=15, margin_a=5)))

    assert max(kw(plan.grid_w)) == 6.9


def test_a_circuit_above_two_rows_binds_them_together():
    world = day(car("1", energy_kwh=40, node=1), car("2", energy_kwh=40, node=2), grid=two_rows(row_a=12, grid_a=18))

    plan = solve(world)

    assert kw(plan.grid_w) == [12.42] * 4
    assert "limit:grid:L1" in plan.binding


def test_load_below_a_circuit_leaves_less_for_its_cars():
    world = day(car(energy_kwh=40, node=1), grid=two_rows(row_a=15), node_background_w={1: np.full(4, 3450.0)})

    plan = solve(world)

    assert max(kw(plan.session_w["1"])) == 6.9


def test_single_phase_cars_fill_their_own_phase_only():
    world = day(
        car("a", energy_kwh=40, max_kw=7, node=1, phases=ON_L1),
        car("b", energy_kwh=40, max_kw=7, node=1, phases=ON_L1),
        car("c", energy_kwh=40, max_kw=7, node=1, phases=ON_L2),
        grid=two_rows(row_a=32),
    )

    plan = solve(world)

    assert kw(plan.session_w["a"] + plan.session_w["b"]) == [7.36] * 4
    assert kw(plan.session_w["c"]) == [7] * 4
    assert "limit:row 1:L1" in plan.binding
    assert "limit:row 1:L2" not in plan.binding


def test_single_and_three_phase_cars_share_a_phase_exactly():
    world = day(
        car("one", energy_kwh=3.68, max_kw=3.68, last=1, node=1, phases=ON_L1, priority=2),
        car("three", energy_kwh=22, max_kw=22, last=1, node=1, phases=ALL),
        grid=two_rows(row_a=32),
    )

    plan = solve(world)

    assert kw(plan.session_w["one"])[0] == 3.68  # 16 A of L1 …
    assert kw(plan.session_w["three"])[0] == 11.04  # … leave 16 A on each phase


def test_phases_with_different_fuses_bind_on_their_own():
    world = day(car(energy_kwh=40, max_kw=22), grid=Grid((Circuit("grid", None, (32.0, 16.0, 32.0)),)))

    plan = solve(world)

    assert max(kw(plan.session_w["1"])) == 11.04
    assert plan.binding == () or plan.binding == ("limit:grid:L2",)


def test_a_fast_car_waits_for_no_price_and_no_peak():
    plan = solve(day(car(energy_kwh=15, mode=Mode.FAST), price=[0.9, 0.3, 0.1, 0.1], peak_eur_per_kw=50))

    assert kw(plan.session_w["1"]) == [10, 5, 0, 0]


def test_a_fast_car_of_a_low_class_does_not_take_what_a_higher_one_needs():
    world = day(
        car("fast", energy_kwh=20, mode=Mode.FAST, priority=1),
        car("high", energy_kwh=20, last=2, priority=2),
        grid=one_circuit(limit_w=10_000),
    )

    plan = solve(world)

    assert kw(plan.session_w["high"]) == [10, 10, 0, 0]
    assert kw(plan.session_w["fast"]) == [0, 0, 10, 10]


def test_a_surplus_car_takes_what_would_be_exported_and_nothing_else():
    world = day(
        car("sun", energy_kwh=15, mode=Mode.SURPLUS), car("must", energy_kwh=3), pv_kw=[1, 4, 2, 0],
        price=[0.4, 0.3, 0.1, 0.1],
    )  # fmt: skip

    plan = solve(world)

    assert kw(plan.session_w["sun"]) == [1, 4, 0, 0]
    assert plan.shortfall_reason["sun"] == "surplus"
    assert plan.shortfall_wh["must"] == 0


def test_a_surplus_car_never_raises_the_import():
    world = day(car("sun", energy_kwh=40, mode=Mode.SURPLUS), pv_kw=[3, 8, 5, 1], building_kw=[4, 2, 2, 2])

    plan = solve(world)

    assert kw(plan.session_w["sun"]) == [0, 6, 3, 0]
    assert (plan.grid_w <= np.maximum(world.building_w + world.pv_w, 0) + 1e-6).all()


def test_a_car_is_paid_to_charge_at_negative_prices():
    plan = solve(day(car(energy_kwh=10), price=[0.1, 0.1, -0.1, 0.1], export=[0.0, 0.0, -0.2, 0.0]))

    assert kw(plan.session_w["1"]) == [0, 0, 10, 0]
    assert plan.cost_eur == pytest.approx(-1.0)


def test_a_battery_never_burns_energy_by_charging_and_discharging_at_once():
    """At negative prices a full, lossy battery would earn by doing both; the best honest plan alternates."""
    full = battery(soc=1, efficiency=0.8)
    world = day(battery=full, building_kw=2, price=[-0.5] * 4, export=[-0.6] * 4, battery_end_eur_per_kwh=0.0)

    plan = solve(world)

    assert plan.status in ("optimal", "feasible")
    assert plan.gap < 1e-3
    verdict = judge(world, plan)  # stored energy follows from the net power alone
    assert verdict.worst_w < 1
    assert verdict.objective_eur <= -0.5 * 8 + 1e-6


def test_a_battery_burns_nothing_beforehand_to_have_room_for_energy_that_is_paid_for():
    """Where it costs nothing to burn, it would charge and discharge at once, hours before the price is negative."""
    problem = day(
        slots=8,
        battery=battery(soc=1.0, power_kw=4, efficiency=0.9, min_soc=0.1),
        price=[0, 0.5, 0, 0, 0, 0, -0.25, -0.25],
        export=0,
        peak_eur_per_kw=6.0,
        month_peak_w=3000.0,
        export_limit_w=np.full(8, 3000.0),
    )

    plan = solve(replace(problem, slot_s=900))

    assert plan.status == "optimal", plan.notes
    assert plan.grid_w.min() >= -3000 - 1
    assert plan.cost_eur == pytest.approx(-0.25 * 2 * 3 / 4)


def test_export_that_pays_more_than_import_does_not_make_a_money_machine():
    plan = solve(day(car(energy_kwh=10), price=0.1, export=0.5, pv_kw=[0, 6, 0, 0]))

    assert plan.status == "optimal"
    assert plan.shortfall_wh["1"] == 0
    assert plan.cost_eur < 1.0


def test_the_grid_operators_series_is_obeyed_per_slot():
    world = day(car(energy_kwh=20), building_kw=2, import_limit_w=np.array([2000.0, 12_000.0, 5000.0, np.inf]))

    plan = solve(world)

    assert (plan.grid_w <= world.import_limit_w + 1e-6).all()
    assert plan.shortfall_wh["1"] == 0


def test_the_operator_is_named_when_a_goal_fails_on_him():
    plan = solve(day(car(energy_kwh=20, last=2), building_kw=2, import_limit_w=np.full(4, 5000.0)))

    assert plan.shortfall_wh["1"] == pytest.approx(14_000)
    assert plan.shortfall_reason["1"].startswith("import_limit@")


def test_a_building_above_the_limit_still_gets_a_plan_and_the_battery_relieves_it():
    world = day(
        car(energy_kwh=10), building_kw=[15, 15, 5, 5], battery=battery(soc=1), grid=one_circuit(limit_w=10_000)
    )

    plan = solve(world)

    assert plan.status == "optimal"
    assert kw(plan.session_w["1"]) == [0, 0, 5, 5]
    assert kw(plan.grid_w)[:2] == [10, 10]
    assert any("circuit grid" in note and "5.0 kW above" in note for note in plan.notes)


def test_a_row_overloaded_by_others_gives_its_cars_nothing():
    world = day(car(energy_kwh=10, node=1), grid=two_rows(row_a=10), node_background_w={1: np.full(4, 9000.0)})

    plan = solve(world)

    assert plan.status == "optimal"
    assert kw(plan.session_w["1"]) == [0, 0, 0, 0]
    assert plan.shortfall_reason["1"].startswith("limit:row 1")


def test_a_battery_behind_a_row_leaves_room_in_it_or_makes_room():
    low = battery(soc=1, capacity_kwh=20, power_kw=5, node=1)
    world = day(car(energy_kwh=20, max_kw=12, last=2, node=1), grid=two_rows(row_a=10), battery=low)

    plan = solve(world)

    assert plan.shortfall_wh["1"] == 0  # 6.9 kW through the fuse, the rest from the battery behind it
    assert judge(world, plan).worst_w < 1


def test_a_battery_on_one_phase_loads_and_relieves_that_phase_alone():
    """16 A a phase is 3.68 kW: a battery on L1 makes room there, and takes it there."""
    store = {"phases": ON_L1, "power_kw": 3}
    on_l1, on_l2 = (car(str(n), 40, 7.36, phases=p) for n, p in ((1, ON_L1), (2, ON_L2)))

    helped = solve(day(on_l1, on_l2, grid=one_circuit(16), battery=battery(soc=1.0, capacity_kwh=12, **store)))
    cheap_now = solve(day(on_l1, grid=one_circuit(16), battery=battery(soc=0.0, **store), price=[-1, 1, 1, 1]))

    assert helped.session_w["1"].tolist() == pytest.approx([6680] * 4, abs=1)
    assert helped.session_w["2"].tolist() == pytest.approx([3680] * 4, abs=1)
    assert (cheap_now.session_w["1"] + cheap_now.battery_w).max() <= 3680 + 1


def test_a_battery_on_one_phase_sends_no_more_back_than_the_fuse_there():
    eager = {"price": [1.0, 0.1, 0.1, 0.1], "export": [0.9, 0.01, 0.01, 0.01]}
    store = battery(soc=1.0, power_kw=9, phases=ON_L1)

    for grid in (one_circuit(10), two_rows(row_a=10)):
        plan = solve(day(grid=grid, battery=replace(store, node=len(grid) // 2), building_kw=3, **eager))
        assert plan.battery_w[0] == pytest.approx(-2300 - (1000 if len(grid) == 1 else 0), abs=1)


def test_a_phase_that_the_building_has_filled_takes_nothing_from_the_others():
    grid = Grid((Circuit("grid", None, (10.0, 0.0, 0.0)),))

    plan = solve(day(car("1", 20, 7.36, phases=ON_L1), grid=grid, building_kw=0.006))

    assert plan.session_w["1"].max() == pytest.approx(2298, abs=1)


def test_two_evses_of_one_station_share_its_inlet():
    world = day(
        car("1", energy_kwh=40, group=7, group_max_a=12_000 / 690),
        car("2", energy_kwh=40, group=7, group_max_a=12_000 / 690),
    )

    plan = solve(world)

    assert kw(plan.session_w["1"] + plan.session_w["2"]) == [12] * 4
    assert plan.shortfall_reason["1"].startswith("group@") or plan.shortfall_reason["2"].startswith("group@")


@pytest.mark.parametrize(
    ("supply", "one", "other", "together_w"),
    [
        (Supply.TN, ON_L1, ON_L1, 32 * 230),
        (Supply.TN, ON_L1, ON_L2, 2 * 32 * 230),
        (Supply.TN, ON_L1, ALL, 32 * 230),  # what the other has on L1 costs the first as much
        (Supply.IT, (True, True, False), (True, True, False), 32 * 230),
        (Supply.IT, ALL, ALL, 32 * 230 * 3**0.5),
    ],
)
def test_an_inlet_is_so_many_amps_on_each_phase(supply, one, other, together_w):
    grid = replace(one_circuit(), supply=supply)
    pair = [
        car("1", energy_kwh=1000, max_kw=7.36, phases=one, group=7, group_max_a=32, value_eur_per_kwh=9),
        car("2", energy_kwh=1000, max_kw=22, phases=other, group=7, group_max_a=32, value_eur_per_kwh=1),
    ]
    if other != ALL:
        pair[1] = replace(pair[1], max_w=7360.0)

    plan, by_rule = solve(day(*pair, grid=grid)), solve(day(*pair, grid=grid, price=[np.nan] * 4))

    for found in (plan, by_rule):
        assert found.session_w["1"] + found.session_w["2"] == pytest.approx(together_w, abs=1)
    both_full = replace(plan, session_w={key: np.full(4, 7360.0) for key in ("1", "2")}, grid_w=np.full(4, 14_720.0))
    verdict = judge(day(*pair, grid=grid), both_full)
    assert verdict.worst_name == ("" if other == ON_L2 else "station 7")


@pytest.mark.parametrize("cars", [1, 90])
@pytest.mark.parametrize(
    ("limit", "building_kw", "said"),
    [
        ({"grid": one_circuit(limit_w=10_000)}, 10.1, "limit:grid"),
        ({"import_limit_w": np.full(4, 5000.0)}, 6, "import_limit"),
        ({"grid": one_circuit(16)}, 12, "limit:grid:L1"),
    ],
)
def test_where_the_building_alone_is_above_a_limit_it_is_that_limit_which_holds_a_car_back(
    cars, limit, building_kw, said
):
    plan = solve(day(*(car(str(n), energy_kwh=5) for n in range(cars)), building_kw=building_kw, **limit))

    assert plan.shortfall_wh["1" if cars > 1 else "0"] == pytest.approx(5000)
    assert {reason.partition("@")[0] for reason in plan.shortfall_reason.values()} == {said}


def test_the_next_car_on_an_evse_starts_when_the_first_has_left():
    world = day(car("1", energy_kwh=20, last=2, name="first"), car("1", energy_kwh=20, first=1, last=4, name="second"))

    plan = solve(world)

    assert kw(plan.session_w["1"]) == [10, 10, 10, 10]
    assert plan.shortfall_wh == {"first": 0, "second": 0}
    assert any("second" in note for note in plan.notes)


def test_charging_losses_count_towards_neither_goal_nor_limit():
    plan = solve(day(car(energy_kwh=9, efficiency=0.9)))

    assert sum(kw(plan.session_w["1"])) == pytest.approx(10)


def test_an_empty_site_has_a_plan():
    plan = solve(day(building_kw=3))

    assert plan.status == "optimal"
    assert kw(plan.grid_w) == [3, 3, 3, 3]


@pytest.mark.parametrize(
    ("name", "broken"),
    [
        ("import_eur_per_kwh", {"import_eur_per_kwh": np.array([0.1, np.nan, 0.1, 0.1])}),
        ("building_w", {"building_w": np.array([np.inf, 0.0, 0.0, 0.0])}),
        ("pv_w", {"pv_w": np.array([-1.0, np.nan, -np.inf, 0.0])}),
        ("export_eur_per_kwh", {"export_eur_per_kwh": np.array([0.1, 0.1])}),
        ("pv_w", {"pv_w": np.full(4, 500.0)}),
        ("node_background_w[1]", {"node_background_w": {1: np.array([1.0, 2.0])}}),
        ("import_limit_w", {"import_limit_w": np.array([np.nan] * 4)}),
        ("month_peak_w", {"month_peak_w": float("nan")}),
    ],
)
def test_numbers_that_are_none_are_named_and_planned_around(name, broken):
    world = day(car(energy_kwh=15, node=1), grid=two_rows(row_a=20))

    plan = solve(replace(world, **broken))

    assert plan.status == "optimal"
    assert any(name in note for note in plan.notes)
    assert sum(kw(plan.session_w["1"])) == pytest.approx(15)
    assert np.isfinite(plan.grid_w).all()


@pytest.mark.parametrize("name", ["import_eur_per_kwh", "export_eur_per_kwh"])
def test_where_no_price_is_known_the_plan_is_made_by_rule(name):
    world = day(car(energy_kwh=15, node=1), grid=two_rows(row_a=20))

    plan = solve(replace(world, **{name: np.full(4, np.nan)}))

    assert plan.status == "fallback"
    assert plan.gap is None
    assert any(name in note for note in plan.notes)
    assert kw(plan.session_w["1"]) == [10, 5, 0, 0]
    assert np.isfinite(plan.grid_w).all()


def test_unknown_load_is_the_worst_that_is_known_of_it():
    building = np.array([2000.0, np.nan, 8000.0, 1000.0])
    sun = np.array([-4000.0, np.nan, np.nan, -1000.0])
    world = replace(day(car(energy_kwh=40), grid=one_circuit(limit_w=10_000)), building_w=building, pv_w=sun)

    plan = solve(world)

    assert plan.status == "optimal"
    assert kw(plan.session_w["1"]) == [10, 3, 3, 10]
    assert plan.notes[0] == "building_w is unknown in 1 slots: the worst is assumed"


def test_a_building_nobody_knows_leaves_the_cars_the_commissioned_fallback():
    world = day(car(energy_kwh=40, max_kw=22), grid=one_circuit(limit_a=63, fallback_a=10))

    plan = solve(replace(world, building_w=np.full(4, np.nan)))

    assert plan.status == "optimal"
    assert max(kw(plan.session_w["1"])) == 6.9


def test_out_of_time_means_a_plan_by_rule():
    sessions = [car(str(i), energy_kwh=20, first=0, last=96) for i in range(60)]
    world = day(*sessions, slots=96, price=list(np.linspace(0.5, 0.1, 96)), grid=one_circuit(limit_a=100))

    plan = solve(replace(world, time_limit_s=0.0))

    assert plan.status in ("fallback", "optimal")  # a solver quicker than its clock is welcome
    assert sum(plan.session_w[s.key].sum() for s in sessions) > 0


def test_a_horizon_without_slots_is_no_crash():
    plan = solve(day(car(last=0), slots=0))

    assert plan.status == "fallback"
    assert plan.shortfall_wh["1"] == 10_000


def test_the_rule_serves_the_higher_class_first_within_the_limits():
    world = day(
        car("low", energy_kwh=20, priority=1),
        car("high", energy_kwh=20, priority=2),
        grid=one_circuit(limit_w=12_000),
        price=[np.nan] * 4,
    )

    plan = solve(world)

    assert kw(plan.session_w["high"]) == [10, 10, 0, 0]
    assert kw(plan.session_w["low"]) == [2, 2, 10, 6]


def test_a_session_with_impossible_numbers_is_noted_and_the_others_are_planned():
    world = day(
        car("bad", max_kw=float("nan")), car("lost", node=9), car("good"), car("dark", phases=(False, False, False))
    )

    plan = solve(world)

    assert plan.status == "optimal"
    assert plan.shortfall_wh["good"] == 0
    assert plan.shortfall_reason == {"bad": "power"}
    assert sum("bad" in n or "lost" in n for n in plan.notes) == 2


def test_the_clock_is_the_callers():
    ticks = chain([10.0], repeat(10.5))

    assert solve(day(car()), clock=lambda: next(ticks)).solve_s == 0.5


@pytest.mark.parametrize("trust", [None, 0.25])
def test_sun_that_is_held_back_is_not_leant_on(trust):
    cars = [car(str(i), energy_kwh=22, max_kw=11, last=2) for i in range(3)]
    paid = {"slots": 2, "building_kw": 1, "pv_kw": 26, "price": -0.10, "export": -0.30, "grid": one_circuit(40)}

    plan = solve(day(*cars, sun_trust=trust, **paid))

    # 34 kW are used: within the fuse of 27.6 kW and a quarter of it, so all the grid can give is taken.
    assert kw(plan.grid_w) == [27.6, 27.6]
    assert kw(plan.pv_w) == [-6.4, -6.4]


def test_fuses_lean_on_so_much_of_the_sun_and_no_more():
    cars = [car(str(i), energy_kwh=44, max_kw=22, last=2) for i in range(3)]
    sunny = {"slots": 2, "building_kw": 1, "pv_kw": 40, "grid": one_circuit(40), "sun_trust": 0.25}

    for price in (0.2, -0.1):
        plan = solve(day(*cars, price=price, export=price - 0.2, **sunny))

        assert kw(sum(plan.session_w.values())) == [33.5, 33.5]  # and 1 kW of the building: 1.25 · 27.6 kW
        assert {r.split("@")[0] for r in plan.shortfall_reason.values()} == {"limit:grid:L1"}


def test_a_phase_leans_on_so_much_of_the_sun_and_no_more():
    one = car(energy_kwh=60, max_kw=30, last=2, phases=ON_L1)
    sunny = {"slots": 2, "pv_kw": 30, "grid": one_circuit(40), "sun_trust": 0.25}

    for price in (0.2, -0.1):
        plan = solve(day(one, price=price, export=price - 0.2, **sunny))

        assert kw(plan.session_w["1"]) == [11.5, 11.5]  # 1.25 · 9.2 kW


def test_where_the_building_alone_leans_on_too_much_sun_the_battery_takes_its_part():
    sunny = {"slots": 2, "building_kw": 60, "pv_kw": 50, "grid": one_circuit(40), "sun_trust": 0.25}

    plan = solve(day(battery=battery(1.0, capacity_kwh=20, power_kw=10), **sunny))

    assert kw(plan.battery_w) == [-10, -10]
    assert any("above its limit" in note for note in plan.notes)

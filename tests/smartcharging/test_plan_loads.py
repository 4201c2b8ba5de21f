"""Loads that the plan moves: days small enough to plan by hand, and what the plan must then say."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import numpy as np
import pytest

from smartcharging.engine.explain.remedies import remedies
from smartcharging.engine.grid import Circuit, Grid
from smartcharging.engine.plan import exact, judge
from smartcharging.engine.plan import rule as plan_rule
from smartcharging.engine.plan.program import Program
from smartcharging.engine.plan.solve import finish, rule_answer, solve
from smartcharging.engine.plan.solver import NoSolution
from smartcharging.engine.snapshot import Mode
from tests.smartcharging.load_worlds import boiler, freezer, pump, washing
from tests.smartcharging.planning_worlds import MIDNIGHT, ON_L1, battery, car, day, kw, one_circuit, two_rows


def test_a_block_runs_in_the_cheapest_hours_that_follow_each_other():
    plan = solve(day(loads=(washing(hours=2),), price=[0.1, 0.4, 0.2, 0.2]))

    assert kw(plan.load_w["washing"]) == [0, 0, 3, 3]
    assert kw(plan.grid_w) == [0, 0, 3, 3]
    assert plan.cost_eur == pytest.approx(1.2)
    assert plan.status == "optimal"
    assert plan.load_short == ()


def test_a_block_keeps_its_profile_and_its_window():
    profile = washing(profile_w=(1000.0, 4000.0), step_s=3600, first=1, last=4)

    plan = solve(day(loads=(profile,), price=[0.0, 0.3, 0.1, 0.2]))

    assert kw(plan.load_w["washing"]) == [0, 1, 4, 0]


def test_a_block_that_ends_within_a_slot_takes_the_mean_of_it():
    plan = solve(day(loads=(washing(hours=1.5, power_kw=2),), price=[0.3, 0.1, 0.2, 0.4]))

    assert kw(plan.load_w["washing"]) == [0, 2, 1, 0]


def test_a_block_that_runs_is_not_stopped():
    running = washing(hours=3, running_h=1, first=0, last=1)

    plan = solve(day(loads=(running,), price=[0.9, 0.9, 0.1, 0.1]))

    assert kw(plan.load_w["washing"]) == [3, 3, 0, 0]


def test_a_block_that_is_over_is_not_planned():
    plan = solve(day(loads=(washing(hours=2, running_h=2),)))

    assert plan.load_w == {}


def test_a_block_that_cannot_be_done_in_time_says_so():
    plan = solve(day(loads=(washing(hours=3, first=1, last=3),)))

    assert kw(plan.load_w["washing"]) == [0, 0, 0, 0]
    (short,) = plan.load_short
    assert (short.amount, short.unit, short.reason) == (1, "runs", "time")


def test_a_block_runs_only_where_its_circuit_has_room():
    grid = two_rows(row_a=10)
    world = day(loads=(washing(hours=1, power_kw=6, node=1),), grid=grid, price=[0.1, 0.2, 0.3, 0.4])

    plan = solve(replace(world, node_background_w={1: np.array([3000.0, 3000.0, 0.0, 0.0])}))

    assert kw(plan.load_w["washing"]) == [0, 0, 6, 0]


def test_a_block_without_room_says_which_limit_was_in_its_way():
    world = day(loads=(washing(hours=1, power_kw=4, node=1, phases=ON_L1),), grid=two_rows(row_a=16))

    plan = solve(world)

    assert kw(plan.load_w["washing"]) == [0, 0, 0, 0]
    assert plan.load_short[0].reason == "limit:row 1:L1@2026-01-05T00:00Z/2026-01-05T04:00Z"


def test_a_block_that_costs_more_than_it_is_worth_does_not_run():
    plan = solve(day(loads=(washing(hours=1, power_kw=3, value_eur=0.5),), price=0.2))

    assert kw(plan.load_w["washing"]) == [0, 0, 0, 0]
    assert plan.load_short[0].reason == "value"
    assert plan.objective_eur == pytest.approx(0.5)


def test_a_boiler_is_heated_with_the_sun_of_noon_for_the_evening():
    """It draws 1 kWh an hour from the third hour on, which is 10 K; noon is the second hour."""
    heated = boiler(now_c=50, draw_w=np.array([0.0, 0.0, 1000.0, 1000.0]))

    plan = solve(day(loads=(heated,), pv_kw=[0, 2, 0, 0], export=0.0))

    assert kw(plan.load_w["boiler"]) == [0, 2, 0, 0]
    assert plan.temperature_c["boiler"] == pytest.approx([50, 70, 60, 50])
    assert plan.cost_eur == pytest.approx(0)


def test_a_boiler_is_not_heated_above_its_band():
    heated = boiler(now_c=50, max_c=60, draw_w=np.array([0.0, 0.0, 1000.0, 1000.0]))

    plan = solve(day(loads=(heated,), pv_kw=[0, 2, 0, 0], export=0.0))

    assert plan.temperature_c["boiler"].max() <= 60 + 1e-6
    assert kw(plan.load_w["boiler"])[1] == 1
    assert plan.load_short == ()


def test_heat_that_is_lost_on_the_way_is_made_late():
    leaky = boiler(now_c=50, loss_w_per_k=10, min_c=np.array([0.0, 0.0, 0.0, 50.0]))

    plan = solve(day(loads=(leaky,), price=0.2))

    assert kw(plan.load_w["boiler"])[:2] == [0, 0]
    assert plan.temperature_c["boiler"][2:].min() >= 50 - 1e-6


def test_the_band_of_a_slot_holds_from_its_beginning():
    plan = solve(day(loads=(boiler(now_c=50, min_c=np.array([50.0, 50.0, 70.0, 50.0])),)))

    assert plan.temperature_c["boiler"][1:3].min() >= 70 - 1e-6


def test_a_heat_pump_runs_when_it_is_warm_outside():
    pumped = boiler(now_c=50, efficiency=np.array([2.0, 4.0, 2.0, 2.0]), draw_w=np.array([0.0, 0.0, 0.0, 2000.0]))

    plan = solve(day(loads=(pumped,), price=[0.2, 0.3, 0.2, 0.2]))

    assert kw(plan.load_w["boiler"]) == [0, 0.5, 0, 0]


def test_a_freezer_coasts_through_the_dear_hours():
    plan = solve(day(loads=(freezer(now_c=-19),), price=[0.1, 0.9, 0.9, 0.1]))

    assert kw(plan.load_w["freezer"])[1:3] == [0, 0]
    assert plan.temperature_c["freezer"].max() <= -18 + 1e-6
    assert plan.temperature_c["freezer"][0] == pytest.approx(-20)  # colder by what comes in until the end of the peak
    assert plan.load_short == ()


def test_what_is_found_outside_its_band_is_brought_back_as_fast_as_it_can():
    plan = solve(day(loads=(boiler(now_c=20),), price=[0.9, 0.9, 0.1, 0.1]))

    assert kw(plan.load_w["boiler"]) == [2, 1, 0, 0]
    (short,) = plan.load_short
    assert short.amount == pytest.approx(10)
    assert (short.unit, short.reason) == ("K·h", "time")


def test_a_store_that_a_circuit_keeps_cold_names_the_circuit():
    plan = solve(day(loads=(boiler(now_c=30, node=1),), grid=two_rows(limit_w=500.0)))

    assert kw(plan.load_w["boiler"]) == [0.5, 0.5, 0.5, 0.5]
    assert plan.load_short[0].reason == "limit:row 1@2026-01-05T00:00Z/2026-01-05T03:00Z"
    assert plan.load_short[0].amount == pytest.approx(15 + 10 + 5)


def test_comfort_may_have_a_price_above_which_it_waits():
    cold = boiler(now_c=49, value_eur_per_k_h=0.01)

    plan = solve(day(loads=(cold,), price=[0.9, 0.9, 0.01, 0.01]))

    assert kw(plan.load_w["boiler"]) == [0, 0, 0.1, 0]
    assert plan.load_short[0].reason == "value"


def test_a_heater_that_knows_only_on_and_off_is_on_for_whole_slots():
    stepped = boiler(now_c=55, on_off=True, draw_w=np.array([0.0, 0.0, 1000.0, 1000.0]))

    plan = solve(day(loads=(stepped,), price=[0.3, 0.2, 0.4, 0.4]))

    assert kw(plan.load_w["boiler"]) == [0, 2, 0, 0]


def test_a_pump_is_off_in_the_dearest_hour_and_not_longer_than_it_may():
    plan = solve(day(loads=(pump(longest_off_h=1, rest_h=2),), price=[0.1, 0.5, 0.7, 0.5]))

    assert kw(plan.load_w["pump"]) == [2, 2, 0, 2]


def test_a_pump_that_rested_may_be_off_again():
    plan = solve(day(loads=(pump(longest_off_h=1, rest_h=1),), price=[0.5, 0.2, 0.5, 0.4]))

    assert kw(plan.load_w["pump"]) == [0, 2, 0, 2]


def test_a_pump_is_off_no_more_hours_than_a_day_allows():
    world = pump(longest_off_h=4, most_off_h_per_day=2)

    assert kw(solve(day(loads=(world,), price=[0.5, 0.6, 0.3, 0.7])).load_w["pump"]) == [2, 0, 2, 0]
    before = replace(world, before=(True, False))
    assert kw(solve(day(loads=(before,), price=[0.5, 0.6, 0.3, 0.7])).load_w["pump"]) == [2, 2, 2, 0]


def test_what_a_pump_did_before_the_plan_counts():
    just_off = pump(longest_off_h=1, rest_h=2, before=(False, True))

    plan = solve(day(loads=(just_off,), price=[0.9, 0.8, 0.3, 0.4]))

    assert kw(plan.load_w["pump"]) == [2, 2, 2, 0]


def test_a_pump_stays_on_where_energy_costs_less_than_it_is_worth():
    plan = solve(day(loads=(pump(eur_per_kwh=0.5),), price=0.4))

    assert kw(plan.load_w["pump"]) == [2, 2, 2, 2]


def test_a_pump_without_room_is_off_against_its_rules_and_that_is_told():
    plan = solve(day(loads=(pump(),), grid=one_circuit(limit_w=1500)))

    assert kw(plan.load_w["pump"]) == [0, 0, 0, 0]
    (short,) = plan.load_short
    assert (short.amount, short.unit) == (3, "h")
    assert short.reason.startswith("limit:grid@")


def test_loads_and_cars_share_a_phase():
    grid = two_rows(row_a=16)
    world = day(
        car(energy_kwh=3.68, max_kw=3.68, last=2, node=1, phases=ON_L1),
        loads=(washing(hours=1, power_kw=3, last=2, node=1, phases=ON_L1),),
        grid=grid,
        price=[0.1, 0.2, 0.2, 0.2],
    )

    plan = solve(world)

    assert kw(plan.session_w["1"]) == [3.68, 0, 0, 0]
    assert kw(plan.load_w["washing"]) == [0, 3, 0, 0]


def test_loads_shave_the_month_peak_too():
    plan = solve(day(loads=(boiler(draw_w=1000.0, now_c=50),), building_kw=[3, 0, 0, 0], peak_eur_per_kw=5))

    assert plan.peak_w == pytest.approx(4000)
    relaxed = day(loads=(boiler(draw_w=1000.0, now_c=60),), building_kw=[3, 0, 0, 0], peak_eur_per_kw=5)
    assert solve(relaxed).peak_w == pytest.approx(3000)


def test_a_battery_carries_a_load_over_its_fuse():
    world = day(loads=(washing(hours=1, power_kw=8),), grid=one_circuit(limit_w=5000), battery=battery(soc=1))

    plan = solve(replace(world, battery_end_eur_per_kwh=0.1))

    assert plan.load_short == ()
    assert plan.grid_w.max() <= 5000 + 1


def test_a_car_in_a_hurry_leaves_a_load_what_it_was_promised():
    world = day(
        car(energy_kwh=10, max_kw=10, last=4, mode=Mode.FAST),
        loads=(washing(hours=1, power_kw=6, last=1),),
        grid=one_circuit(limit_w=10_000),
    )

    plan = solve(world)

    assert kw(plan.load_w["washing"]) == [6, 0, 0, 0]
    assert kw(plan.session_w["1"]) == [4, 6, 0, 0]


def test_what_would_help_a_car_does_not_count_on_room_that_a_load_takes():
    """It is short of 4 kWh when it leaves. In the next hour the washing has the circuit, then it is free."""
    short = car(energy_kwh=10, max_kw=6, last=1)
    washed = washing(hours=1, power_kw=6, first=1, last=2)
    alone, beside = (day(short, loads=loads, grid=one_circuit(limit_w=6000)) for loads in ((), (washed,)))

    leave_at = [remedies(world, solve(world))["1"].leave_at for world in (alone, beside)]

    assert leave_at == [MIDNIGHT + timedelta(hours=2), MIDNIGHT + timedelta(hours=3)]


def test_what_cannot_be_planned_with_is_left_out_and_named():
    broken = (
        boiler(now_c=float("nan")),
        replace(boiler(), key="b2", draw_w=np.zeros(3)),
        replace(boiler(), key="b3", efficiency=0.0),
        replace(washing(), profile_w=(-1.0,)),
        pump(longest_off_h=-1),
        replace(pump(), key="p2"),
        replace(pump(), key="p2"),
    )

    plan = solve(day(loads=broken))

    assert plan.status == "optimal"
    assert list(plan.load_w) == ["p2"]
    said = [n for n in plan.notes if n.endswith("it is not planned")]
    assert [n.split(":")[1].split()[0] for n in said] == [
        "now_c", "draw_w", "efficiency", "profile_w[0]", "longest_off_h", "its",
    ]  # fmt: skip


# Without an optimiser


def test_by_rule_stores_keep_their_minimum_blocks_run_late_and_pumps_are_on():
    loads = (washing(hours=1), boiler(now_c=50, draw_w=500.0), freezer(now_c=-18), pump())

    plan = solve(day(loads=loads, price=[np.nan] * 4))

    assert plan.status == "fallback"
    assert kw(plan.load_w["washing"]) == [0, 0, 0, 3]
    assert kw(plan.load_w["boiler"]) == [0.5, 0.5, 0.5, 0.5]
    assert plan.load_w["freezer"] == pytest.approx([500 / 3] * 4)
    assert kw(plan.load_w["pump"]) == [2, 2, 2, 2]


def test_by_rule_no_circuit_is_overloaded():
    grid = two_rows(row_a=10, grid_a=20)
    loads = (pump(node=1, expected_kw=4), boiler(now_c=20, node=1, max_kw=6), washing(hours=1, power_kw=3, node=1))
    world = day(car(node=1), loads=loads, grid=grid)

    plan, verdict = finish(world, rule_answer(world), [])

    assert verdict.worst_w <= 1, verdict.worst_name
    assert kw(plan.load_w["boiler"]) == [2.9, 0.1, 0, 0]
    assert kw(plan.load_w["washing"]) == [0, 0, 0, 0]
    assert plan.load_short[0].reason.startswith("limit:row 1")


def test_when_the_time_for_whole_numbers_is_up_near_ones_are_taken_for_which_everything_fits(monkeypatch):
    def out_of_time(*_args):
        raise NoSolution("time limit")

    monkeypatch.setattr(exact, "minimise_whole", out_of_time)
    loads = (
        boiler(now_c=52, on_off=True, draw_w=700.0, max_kw=3),
        washing(hours=2, power_kw=3),
        pump(longest_off_h=1, rest_h=1),
    )
    world = day(car(energy_kwh=8), loads=loads, grid=one_circuit(limit_w=6000), price=[0.6, 0.5, 0.3, 0.4])

    plan = solve(world)

    assert plan.status == "feasible"
    assert plan.gap is not None
    assert plan.gap > 0
    assert judge.judge(world, plan).worst_w <= 1
    monkeypatch.undo()
    best = solve(world)
    assert best.objective_eur <= plan.objective_eur + 1e-6
    assert best.objective_eur >= plan.objective_eur - plan.gap * abs(plan.objective_eur) - 1e-6


# Long slots


def two_days(*loads, **kw):
    """192 quarter hours, of which the far ones are planned in longer slots."""
    rng = np.random.default_rng(3)
    prices = np.repeat(rng.uniform(0.1, 0.5, 48), 4)
    return replace(day(slots=192, price=prices, loads=loads, **kw), slot_s=900)


def test_a_block_on_the_second_day_still_starts_with_a_quarter_hour():
    world = two_days(washing(hours=0.75, first=110, last=117))
    world = replace(world, import_eur_per_kwh=np.where(np.arange(192) == 112, 0.05, world.import_eur_per_kwh))

    plan = solve(world)

    assert plan.status == "optimal"
    assert np.count_nonzero(plan.load_w["washing"]) == 3
    assert plan.load_w["washing"][112] == 3000


def test_what_is_on_takes_what_each_quarter_hour_expects_also_in_a_long_slot():
    expected = np.tile([1000.0, 2000.0, 0.0, 3000.0], 48)

    plan = solve(two_days(pump(expected_w=expected, longest_off_h=2, rest_h=2)))

    off = plan.load_w["pump"] == 0
    assert plan.status != "fallback", plan.notes
    assert (plan.load_w["pump"][~off] == expected[~off]).all()
    assert off[:96].sum() > 24


def test_a_store_keeps_its_band_for_two_days():
    plan = solve(two_days(boiler(draw_w=400.0, loss_w_per_k=2.0), pv_kw=np.tile([0.0, 0.0, 3.0, 0.0], 48)))

    assert plan.status == "optimal"
    assert plan.load_short == ()


# Many cars


def many_cars(**kw):
    cars = [car(str(i), energy_kwh=5 + i % 3, max_kw=8, first=i % 3, last=4 + i % 4) for i in range(120)]
    rng = np.random.default_rng(5)
    return day(*cars, slots=8, price=rng.uniform(0.1, 0.5, 8), grid=one_circuit(limit_w=400_000), **kw)


def test_with_many_cars_a_load_at_the_connection_stays_in_the_quick_way_and_costs_the_same():
    heated = boiler(now_c=50, capacity_wh_per_k=5000.0, max_kw=60, draw_w=30_000.0)
    world = many_cars(loads=(heated,), peak_eur_per_kw=3.0)

    quick = solve(world)
    slow = solve(replace(world, relative_gap=0.0))

    assert quick.status == slow.status == "optimal"
    assert quick.load_short == ()
    assert quick.objective_eur == pytest.approx(slow.objective_eur, rel=2e-4)
    assert quick.load_w["boiler"].sum() >= 8 * 30_000 - 1


@pytest.mark.parametrize("load", [washing(hours=1), boiler(now_c=52, draw_w=200, on_off=True), pump()])
def test_yes_or_no_beside_many_cars_is_as_near_the_best_as_it_says(load):
    from smartcharging.engine.plan.large import aggregate

    problem = many_cars(loads=(load,))
    program = Program(problem)
    assert aggregate.applies(program)

    quick, verdict = finish(problem, aggregate.answer(program, 1e-4, lambda: 5.0), [])
    slow, _ = finish(problem, exact.exact(program, lambda: 5.0), [])

    assert verdict.worst_w <= 2.0, verdict
    assert quick.load_short == slow.load_short == ()
    assert quick.objective_eur * (1 - quick.gap) <= slow.objective_eur + 1e-6
    assert slow.objective_eur * (1 - slow.gap) <= quick.objective_eur + 1e-6
    assert quick.gap <= 2e-3


def test_a_load_behind_a_circuit_that_binds_is_left_to_the_whole_program():
    from smartcharging.engine.plan.large import aggregate

    grid = Grid((Circuit("grid", None, (1000,) * 3), Circuit("row", 0, (20,) * 3)))
    cars = [car(str(i), node=i % 2) for i in range(120)]

    assert aggregate.applies(Program(day(*cars, grid=grid, loads=(boiler(node=0),))))
    assert not aggregate.applies(Program(day(*cars, grid=grid, loads=(boiler(node=1),))))


def test_the_rule_gives_cars_what_loads_leave():
    world = day(car(energy_kwh=40), loads=(pump(expected_kw=4),), grid=one_circuit(limit_w=10_000))

    cars, loads = plan_rule.by_rule(world)

    assert list(cars[0]) == [6, 6, 6, 6]
    assert list(loads[0]) == [4, 4, 4, 4]

"""What a battery and cars send back over one fuse, also in the long slots of the day after."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from smartcharging.engine.grid import Circuit, Grid, Supply
from smartcharging.engine.plan.judge import judge
from smartcharging.engine.plan.problem import PlanProblem
from smartcharging.engine.plan.solve import solve
from tests.smartcharging.planning_worlds import ALL, ON_L1, battery, car, day, one_circuit, two_rows

PHASES = [way for way in product((True, False), repeat=3) if any(way)]


def quarters(problem: PlanProblem) -> PlanProblem:
    return replace(problem, slot_s=900)


@pytest.mark.parametrize("hours", [24, 30])
def test_a_battery_on_one_phase_is_planned_beyond_a_day_over_a_building_that_goes_up_and_down(hours):
    slots = 4 * hours
    price = 0.3 + 0.2 * np.sin(np.arange(slots) / 6)

    plan = solve(
        quarters(
            day(
                slots=slots,
                building_kw=[0.2 + 2.3 * ((7 * t) % 10) / 9 for t in range(slots)],
                price=list(price),
                export=list(price - 0.05),
                grid=one_circuit(16),
                battery=battery(soc=0.8, phases=ON_L1),
            )
        )
    )

    assert plan.status == "optimal", plan.notes
    assert plan.battery_w.min() < -3680


def test_what_a_car_lets_leave_the_connection_in_a_long_slot_is_within_its_export_limit_in_each_quarter():
    slots = 112
    price = list(np.where(np.arange(slots) < 104, 0.9, 0.2))
    lender = car(energy_kwh=0, first=96, last=slots, discharge_w=7000, lends_wh=20_000)
    building = [0.5, 5.0] * (slots // 2)
    grid = one_circuit(export_limit_w=1000)

    plan = solve(quarters(day(lender, slots=slots, building_kw=building, price=price, export=price, grid=grid)))

    assert plan.status == "optimal", plan.notes
    assert plan.session_w["1"].min() == pytest.approx(-1500, abs=1)


@st.composite
def givers(draw: st.DrawFn) -> PlanProblem:
    """A house of 28 hours and more with a battery, the sun, and a car that may give."""
    slots = draw(st.integers(100, 140))
    chance = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    supply = draw(st.sampled_from([Supply.TN, Supply.IT]))
    ways = st.sampled_from([way for way in PHASES if supply is Supply.TN or sum(way) > 1])
    price = 0.1 + 0.4 * chance.random(slots)
    noon = np.clip(np.sin((np.arange(slots) - 24) / 48 * np.pi), 0, 1)
    grid = replace(
        two_rows(row_a=draw(st.sampled_from([10, 25])), grid_a=draw(st.sampled_from([10, 16]))), supply=supply
    )
    lends = draw(st.sampled_from([{}, {"discharge_w": 7000.0, "lends_wh": 8000.0}]))
    return quarters(
        day(
            car(energy_kwh=8, max_kw=7.4, last=slots, node=draw(st.integers(0, 1)), phases=draw(ways), **lends),
            slots=slots,
            building_kw=list(draw(st.sampled_from([0.5, 2.5])) * chance.random(slots)),
            pv_kw=list(draw(st.sampled_from([0, 2, 9])) * noon * chance.random(slots)),
            price=list(price),
            export=list(price - draw(st.sampled_from([0.01, 0.3]))),
            grid=grid,
            battery=battery(power_kw=draw(st.sampled_from([2, 9])), phases=draw(ways), node=draw(st.integers(0, 1))),
        )
    )


@given(givers())
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_whatever_gives_beyond_a_day_no_plan_breaks_a_fuse(problem: PlanProblem):
    plan = solve(problem)

    assert plan.status in ("optimal", "feasible"), plan.notes


@pytest.mark.parametrize("phases", [ALL, ON_L1, (True, True, False)])
def test_an_export_limit_is_in_watts_whatever_phases_they_come_from(phases):
    lender = car(energy_kwh=0, last=2, node=1, phases=phases, discharge_w=6000, lends_wh=6000)
    grid = two_rows(row_a=63, export_limit_w=3000)

    plan = solve(day(lender, slots=2, building_kw=9, price=[0.9, 0.1], grid=grid))

    assert plan.status == "optimal", plan.notes
    assert plan.session_w["1"][0] == pytest.approx(-3000, abs=1)


def hungry_board(row: dict[str, float], **kw) -> PlanProblem:
    """A weak connection, and a board with a battery and a car that wants more than the connection has."""
    grid = Grid((Circuit("grid", None, (100.0,) * 3, limit_w=5000.0), Circuit("row 1", 0, (16.0,) * 3, **row)))
    store = battery(soc=1, capacity_kwh=60, power_kw=22, node=1)
    return day(car(energy_kwh=60, max_kw=22, node=1, last=2), slots=2, grid=grid, battery=store, **kw)


def test_a_battery_serves_the_cars_of_its_board_which_exports_nothing():
    """The fuses bear 11 kW of the battery, and the connection gives five."""
    plan = solve(hungry_board({"export_limit_w": 0.0}))

    assert plan.status == "optimal", plan.notes
    assert plan.session_w["1"] == pytest.approx(5000 + 16 * 690, abs=1)


def test_no_car_lets_a_battery_send_more_back_than_a_fuse_bears_without_it():
    problem = hungry_board({})
    plan = solve(problem)
    both_full = replace(
        plan,
        session_w={"1": np.full(2, 22_000.0)},
        battery_w=np.full(2, -17_000.0),
        grid_w=np.full(2, 5000.0),
    )

    assert plan.battery_w.min() == pytest.approx(-16 * 690, abs=1)
    assert judge(problem, both_full).worst_name == "a phase of limit:row 1, backwards"


def test_neither_over_the_fuses_of_the_connection():
    grid = one_circuit(16)
    store = battery(soc=1, capacity_kwh=60, power_kw=22)

    plan = solve(day(car(energy_kwh=80, max_kw=30), grid=grid, battery=store, building_kw=1))

    assert plan.battery_w.min() == pytest.approx(-16 * 690 - 1000, abs=1)


def test_with_a_horizon_beyond_a_day_a_battery_may_still_serve_cars_where_nothing_is_exported():
    store = battery(soc=1, capacity_kwh=20, power_kw=8)
    price = [0.9] * 4 + [0.2] * 116
    problem = day(car(energy_kwh=10, last=4), slots=120, price=price, battery=store, grid=one_circuit(export_limit_w=0))

    plan = solve(quarters(problem))

    assert plan.status == "optimal", plan.notes
    assert plan.battery_w[:4].min() == pytest.approx(-8000, abs=1)


@given(givers(), st.sampled_from([0.0, 2000.0]))
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_no_plan_breaks_the_export_limit_of_a_board(problem: PlanProblem, limit_w: float):
    root, *rows = problem.grid.circuits
    grid = replace(problem.grid, circuits=(root, *(replace(c, export_limit_w=limit_w) for c in rows)))

    plan = solve(replace(problem, grid=grid))

    assert plan.status in ("optimal", "feasible"), plan.notes


def test_among_many_cars_a_battery_serves_those_of_its_board_which_exports_nothing():
    cars = [car(f"{n}", energy_kwh=3, max_kw=7, node=1, first=n % 4, last=n % 4 + 1) for n in range(100)]
    store = battery(soc=1, capacity_kwh=60, power_kw=20, node=1)
    grid = two_rows(row_a=500, export_limit_w=0.0)

    plan = solve(day(*cars, grid=grid, battery=store, price=[0.5, 0.5, 0.1, 0.1]))

    assert plan.status == "optimal", plan.notes
    assert plan.battery_w[:2].min() == pytest.approx(-20_000, abs=1)

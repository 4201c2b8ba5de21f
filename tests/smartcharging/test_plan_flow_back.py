"""What a battery and cars send back over one fuse, also in the long slots of the day after."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from smartcharging.engine.grid import Supply
from smartcharging.engine.plan.problem import PlanProblem
from smartcharging.engine.plan.solve import solve
from tests.smartcharging.planning_worlds import ON_L1, battery, car, day, one_circuit, two_rows

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

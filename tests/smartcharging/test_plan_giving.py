"""Cars that may give back (vehicle to grid)."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from smartcharging.engine.plan.asked import set_right
from smartcharging.engine.plan.judge import judge
from smartcharging.engine.plan.problem import PlanProblem
from smartcharging.engine.plan.solve import solve
from smartcharging.engine.snapshot import Mode
from tests.smartcharging.planning_worlds import ON_L1, car, day, one_circuit, two_rows
from tests.smartcharging.test_plan_properties import problems, quick

LENDS = {"discharge_w": 10_000.0, "lends_wh": 10_000.0}
DEAR_EVENING = [0.2, 0.6, 0.2, 0.1]


def test_a_car_carries_the_building_through_the_dear_hour_and_has_what_it_wants_when_it_leaves():
    plan = solve(day(car(energy_kwh=5, **LENDS), building_kw=8, price=DEAR_EVENING))

    assert plan.session_w["1"][1] == pytest.approx(-8000)
    assert plan.session_w["1"].sum() == pytest.approx(5000)
    assert plan.shortfall_wh["1"] == 0
    assert plan.grid_w[1] == pytest.approx(0)


def test_it_never_gives_more_than_is_lent_and_no_more_than_its_loss_is_worth():
    lent = solve(day(car(energy_kwh=0, discharge_w=10_000, lends_wh=3000), building_kw=8, price=[0.6, 0.6, 0.1, 0.1]))
    lossy = solve(day(car(energy_kwh=0, efficiency=0.9, **LENDS), building_kw=8, price=[0.2, 0.22, 0.2, 0.2]))

    assert np.cumsum(lent.session_w["1"]).min() == pytest.approx(-3000)
    assert lent.session_w["1"].sum() == pytest.approx(0, abs=1)
    assert np.abs(lossy.session_w["1"]).max() == 0  # 0.22 · 0.81 is less than 0.20


def test_wear_is_paid_by_who_uses_the_battery():
    calm = solve(day(car(energy_kwh=0, wear_eur_per_kwh=0.3, **LENDS), building_kw=8, price=DEAR_EVENING))
    eager = solve(day(car(energy_kwh=0, wear_eur_per_kwh=0.1, **LENDS), building_kw=8, price=DEAR_EVENING))

    assert np.abs(calm.session_w["1"]).max() == 0
    assert eager.session_w["1"][1] == pytest.approx(-8000)


def test_what_flows_back_is_carried_by_the_fuse_above():
    plan = solve(
        day(
            car(energy_kwh=0, node=1, phases=ON_L1, **LENDS),
            grid=two_rows(row_a=16),
            building_kw=30,
            price=DEAR_EVENING,
        )
    )

    assert plan.session_w["1"].min() == pytest.approx(-16 * 230)


def test_what_flows_back_through_the_connection_is_carried_by_each_of_its_fuses():
    plan = solve(
        day(
            car(energy_kwh=0, phases=ON_L1, **LENDS),
            grid=one_circuit(16),
            building_kw=3,
            price=DEAR_EVENING,
            export=DEAR_EVENING,
        )
    )

    assert plan.status == "optimal"
    assert plan.session_w["1"].min() == pytest.approx(-16 * 230 - 1000, abs=1)


def test_a_neighbour_below_the_same_fuse_is_served_by_what_a_car_gives():
    lender = car("1", energy_kwh=0, node=1, discharge_w=5000, lends_wh=5000)
    hungry = car("2", energy_kwh=10, max_kw=10, node=1, last=1)

    plan = solve(day(lender, hungry, grid=two_rows(row_a=10)))  # 6.9 kW

    assert plan.session_w["2"][0] == pytest.approx(10_000)
    assert plan.session_w["1"][0] <= -3100 + 1
    assert plan.shortfall_wh["2"] == 0
    assert plan.shortfall_wh["1"] == 0


def test_cars_in_a_hurry_or_waiting_for_the_sun_give_nothing():
    for mode in (Mode.FAST, Mode.SURPLUS):
        plan = solve(day(car(energy_kwh=5, mode=mode, **LENDS), building_kw=8, price=DEAR_EVENING))
        assert plan.session_w["1"].min() >= 0


def test_no_energy_is_burnt_in_a_car_at_negative_prices():
    """At one price all day, taking and giving in turns would burn too, and pay: but never in one and the same slot."""
    problem = day(car(energy_kwh=2, efficiency=0.8, **LENDS), price=[-0.2, -0.3, -0.2, -0.1], export=-0.4)

    plan = solve(problem)

    verdict = judge(problem, plan)
    assert verdict.worst_w < 1, verdict.worst_name
    assert plan.shortfall_wh["1"] == 0
    assert plan.gap is not None
    assert plan.gap < 1e-3
    assert plan.objective_eur == pytest.approx(verdict.objective_eur)


@given(problems(modes=(Mode.PLAN,), prices=(0.0, 0.6)))
@quick
def test_a_car_that_falls_short_hears_of_a_limit_never_of_what_flows_back(problem: PlanProblem):
    lending = replace(problem, sessions=tuple(replace(s, discharge_w=4000, lends_wh=9000) for s in problem.sessions))

    plan = solve(lending)

    for reason in plan.shortfall_reason.values():
        assert reason.partition("@")[0].partition(":")[0] in ("time", "power", "limit", "import_limit", "group"), reason


@given(problems(), st.sampled_from([0.0, 4000.0]), st.sampled_from([1000.0, 20_000.0]))
@quick
def test_with_cars_that_give_no_bound_is_broken_and_nobody_is_worse_off(
    problem: PlanProblem, watts: float, lent: float
):
    lending = replace(problem, sessions=tuple(replace(s, discharge_w=watts, lends_wh=lent) for s in problem.sessions))

    plan, without = solve(lending), solve(problem)

    tidy = replace(lending, sessions=set_right(lending, []))
    verdict = judge(tidy, plan)
    assert plan.status in ("optimal", "feasible"), plan.notes
    assert verdict.worst_w <= 1, verdict.worst_name
    assert plan.objective_eur is not None
    assert without.objective_eur is not None
    if not any(s.mode is Mode.FAST for s in problem.sessions):
        slack = 1e-3 * max(1.0, abs(without.objective_eur)) + 0.001 * len(problem.sessions)
        assert plan.objective_eur <= without.objective_eur + slack


def test_cars_that_give_send_no_more_back_over_their_inlet_than_it_carries():
    lends = {"discharge_w": 7000, "lends_wh": 50_000, "phases": ON_L1, "group": 7, "group_max_a": 32}
    pair = [car(key, energy_kwh=0, **lends) for key in ("1", "2")]

    plan = solve(day(*pair, building_kw=100, price=[0.9, 0.1, 0.1, 0.1]))

    assert plan.status == "optimal", plan.notes
    assert plan.session_w["1"][0] + plan.session_w["2"][0] == pytest.approx(-32 * 230, abs=1)

"""With a maximum tariff two programs are solved: what either says of itself must hold for the plan that is taken."""

from __future__ import annotations

from dataclasses import replace

import pytest

from smartcharging.engine.loads.kinds import Switchable
from smartcharging.engine.plan import solve as planning
from smartcharging.engine.plan import worth
from smartcharging.engine.plan.maximum_tariff import branches
from smartcharging.engine.plan.problem import MaximumTariff, PlanProblem
from smartcharging.engine.plan.solve import solve
from smartcharging.engine.plan.solver import NoSolution
from smartcharging.engine.snapshot import Mode
from tests.smartcharging.planning_worlds import ALL, battery, car, day, one_circuit

CAP = MaximumTariff(0.2, 40_000.0)


def capped(*sessions, **kw) -> PlanProblem:
    return day(*sessions, price=[0.1, 0.4, 0.1, 0.4], peak_eur_per_kw=4, maximum_tariff=CAP, **kw)


WORLDS = {
    "a car that may come": capped(car(energy_kwh=60, expected=True), car("2", energy_kwh=60, priority=3)),
    "only a surplus car": capped(
        car(mode=Mode.SURPLUS), pv_kw=2, building_kw=[9, 9, 0, 0], grid=one_circuit(limit_w=5000)
    ),
    "no car": capped(building_kw=[9, 9, 1, 1], grid=one_circuit(limit_w=5000), battery=battery(soc=0.4)),
    "a load": capped(
        building_kw=[9, 9, 1, 1],
        grid=one_circuit(limit_w=5000),
        loads=(Switchable("pump", 0, ALL, 2000.0, eur_per_kwh=0.1, longest_off_h=1),),
    ),
}


@pytest.mark.parametrize("world", WORLDS.values(), ids=WORLDS)
def test_everything_is_worth_in_both_ways_what_it_is_in_the_problem(world):
    for way, _ in branches(world):
        assert worth.goal_values(way).tolist() == pytest.approx(worth.goal_values(world).tolist())
        assert worth.load_values(way).tolist() == pytest.approx(worth.load_values(world).tolist())
        assert worth.surplus_values(way).tolist() == pytest.approx(worth.surplus_values(world).tolist())
        assert worth.stored_value(way) == worth.stored_value(world)
        assert worth.overload_value(way) == worth.overload_value(world)


@pytest.mark.parametrize("world", WORLDS.values(), ids=WORLDS)
def test_two_exact_ways_leave_no_gap(world):
    plan = solve(world)

    assert plan.status == "optimal"
    assert plan.gap == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("lost", [0, 1])
def test_the_way_that_has_a_plan_is_taken_when_the_other_finds_none(monkeypatch, lost):
    world = WORLDS["no car"]
    levied = [way.levy_eur_per_kwh is not None for way, _ in branches(world)]
    whole = planning.in_long_slots

    def one_finds_none(way, left):
        if (way.levy_eur_per_kwh is not None) == levied[lost]:
            raise NoSolution("time limit")
        return whole(way, left)

    monkeypatch.setattr(planning, "in_long_slots", one_finds_none)
    plan = solve(world)

    assert plan.status == "feasible"
    assert plan.gap is None
    assert plan.battery_w.min() < 0


def test_without_a_plan_of_either_way_the_rule_says_why(monkeypatch):
    def finds_none(way, left):
        raise NoSolution("time limit")

    monkeypatch.setattr(planning, "in_long_slots", finds_none)
    plan = solve(WORLDS["no car"])

    assert plan.status == "fallback"
    assert any("time limit" in note for note in plan.notes)


def test_what_is_far_from_the_best_of_the_other_way_is_not_called_optimal(monkeypatch):
    whole = planning.in_long_slots

    def less_sure(way, left):
        return replace(whole(way, left), gap=0.01)

    monkeypatch.setattr(planning, "in_long_slots", less_sure)
    plan = solve(WORLDS["no car"])

    assert plan.gap is not None
    assert plan.gap > 1e-3
    assert plan.status == "feasible"


def test_the_first_way_leaves_the_second_half_of_the_time(monkeypatch):
    had, now = [], [0.0]

    def uses_all_it_has(way, left):
        had.append(left())
        now[0] += left()
        raise NoSolution("time limit")

    monkeypatch.setattr(planning, "in_long_slots", uses_all_it_has)
    solve(replace(WORLDS["no car"], time_limit_s=20.0), lambda: now[0])

    assert had == [10, 10]

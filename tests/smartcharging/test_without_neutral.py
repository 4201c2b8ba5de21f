"""Sites without a neutral, 3×230 V: a single-phase car hangs between two lines, in the plan as at this moment.

Line currents are worked out here a second time, once as lengths and once as what they are: with their angles.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.plan_family import day as family
from smartcharging.engine.explain.remedies import remedies
from smartcharging.engine.grid import Grid, Supply, loaded, power_weight, spread_a
from smartcharging.engine.limits import Rank, narrow
from smartcharging.engine.live.allocate import allocate
from smartcharging.engine.live.fallback import commissioning_gaps, safe_allocation
from smartcharging.engine.plan import rooms
from smartcharging.engine.plan import solve as planning
from smartcharging.engine.plan.asked import set_right
from smartcharging.engine.plan.judge import judge
from smartcharging.engine.plan.problem import PlanProblem, PlanResult, PlanSession
from smartcharging.engine.snapshot import Mode, Narrowing
from tests import worlds
from tests.smartcharging.planning_worlds import ALL, car, day, kw, one_circuit
from tests.smartcharging.test_plan_large import holds
from tests.smartcharging.test_plan_properties import problems

L12, L23, L31 = (True, True, False), (False, True, True), (True, False, True)
PAIRS = (L12, L23, L31)
ROOT3 = 3**0.5
few = settings(max_examples=25, deadline=None)


def without_neutral(grid: Grid) -> Grid:
    return Grid(grid.circuits, Supply.IT)


def street(problem: PlanProblem, seed: int = 0) -> PlanProblem:
    """The same day without a neutral: who was on one or two phases hangs between two lines."""
    rng = np.random.default_rng(seed)

    def line(phases: tuple[bool, bool, bool]) -> tuple[bool, bool, bool]:
        return phases if sum(phases) == 3 else PAIRS[int(rng.integers(3))]

    sessions = tuple(replace(s, phases=line(s.phases)) for s in problem.sessions)
    loads = tuple(replace(load, phases=line(load.phases)) for load in problem.loads)
    return replace(problem, grid=without_neutral(problem.grid), sessions=sessions, loads=loads)


def lengths_a(problem: PlanProblem, plan: PlanResult) -> np.ndarray:
    """Amps of the cars on every line of every circuit, added as lengths: axes circuit, line, slot."""
    amps = np.zeros((len(problem.grid), 3, problem.slots))
    for s in problem.sessions:
        each = plan.session_w[s.key] / 230 / (ROOT3 if all(s.phases) else 1.0)
        for n in problem.grid.path(s.node):
            amps[n] += np.array(s.phases, dtype=float)[:, None] * each
    return amps


def currents_a(problem: PlanProblem, plan: PlanResult) -> np.ndarray:
    """The same as a meter would show them: each load draws in phase with the voltage it hangs on."""
    line = np.exp(-2j * np.pi * np.arange(3) / 3) * 230 / ROOT3  # volts against the middle of the three
    amps = np.zeros((len(problem.grid), 3, problem.slots), dtype=complex)
    for s in problem.sessions:
        watts = plan.session_w[s.key]
        if all(s.phases):
            drawn = np.array([np.conj(watts / 3 / v) for v in line])
        else:
            a, b = (i for i in range(3) if s.phases[i])
            drawn = np.zeros((3, problem.slots), dtype=complex)
            drawn[a] = np.conj(watts / (line[a] - line[b]))
            drawn[b] = -drawn[a]
        for n in problem.grid.path(s.node):
            amps[n] += drawn
    return np.abs(amps)


# --- the plan -----------------------------------------------------------------------------------------------------


def test_a_kilowatt_between_two_lines_loads_both_as_a_neutral_would_one():
    weights = rooms.phase_weights([ALL, L12, L31], Supply.IT)

    assert weights[0].tolist() == [1, 1, 1, 1]
    assert weights[1] == pytest.approx([1, ROOT3, ROOT3, 0])
    assert weights[2] == pytest.approx([1, ROOT3, 0, ROOT3])


@pytest.mark.parametrize(("phases", "most_kw"), [(L12, 20 * 0.23), (ALL, 20 * 0.23 * ROOT3)])
def test_a_plan_spends_all_the_amps_of_a_line_and_no_more(phases, most_kw):
    problem = day(car(energy_kwh=100, max_kw=20, phases=phases), grid=without_neutral(one_circuit(20)))

    plan = planning.solve(problem)

    assert kw(plan.session_w["1"]) == pytest.approx([most_kw] * 4, abs=2e-3)
    assert plan.shortfall_reason["1"].startswith("limit:grid")


def test_cars_between_different_lines_meet_on_the_line_they_share():
    cars = [car(str(i), energy_kwh=100, max_kw=20, phases=p) for i, p in enumerate((L12, L23))]
    problem = day(*cars, grid=without_neutral(one_circuit(20)))

    plan = planning.solve(problem)

    assert lengths_a(problem, plan)[0, 1].max() == pytest.approx(20, abs=0.02)
    assert lengths_a(problem, plan)[0, 0].max() <= 20.02


def test_what_the_connection_may_deliver_back_follows_from_its_lines():
    problem = day(car(), grid=without_neutral(one_circuit(20)))

    assert rooms.export_limit_kw(problem).tolist() == pytest.approx([20 * 0.23 * ROOT3] * 4)


def test_the_amps_that_would_have_helped_are_amps_of_a_line():
    problem = day(car(energy_kwh=4 * 0.23 * 25, max_kw=10, phases=L12), grid=without_neutral(one_circuit(20)))

    found = remedies(problem, planning.solve(problem))["1"]

    assert found.raise_a == 5
    assert found.three_phases  # 1.73 times as many watts in the same amps


def test_three_lines_are_no_remedy_where_they_carry_too_little():
    """With a neutral they would: three times as many watts."""
    problem = day(car(energy_kwh=4 * 0.23 * 36, max_kw=10, phases=L12), grid=without_neutral(one_circuit(20)))

    assert not remedies(problem, planning.solve(problem))["1"].three_phases


@given(problems(modes=tuple(Mode)), st.integers(0, 99))
@few
def test_no_bound_of_any_street_is_ever_broken(problem: PlanProblem, seed: int):
    problem = street(problem, seed)

    plan = planning.solve(problem)

    tidy = replace(problem, sessions=set_right(problem, []))
    verdict = judge(tidy, plan)
    assert plan.status in ("optimal", "feasible"), plan.notes
    assert verdict.worst_w <= 1, verdict.worst_name


@st.composite
def car_parks(draw: st.DrawFn) -> PlanProblem:
    """Nothing but cars on circuits, so that all amps are theirs."""
    problem = draw(problems(modes=(Mode.PLAN,), prices=(0.0, 0.5)))
    bare = replace(problem, battery=None, node_background_w={}, import_limit_w=None, export_limit_w=None)
    nothing = np.zeros(problem.slots)
    return street(replace(bare, building_w=nothing, pv_w=nothing), draw(st.integers(0, 99)))


@given(car_parks())
@few
def test_no_line_carries_more_than_it_may_by_lengths_nor_by_currents(problem: PlanProblem):
    plan = planning.solve(problem)

    tidy = replace(problem, sessions=set_right(problem, []))
    amps = lengths_a(tidy, plan)
    most = np.array([[max(a - c.margin_a, 0.0) for a in c.limit_a] for c in problem.grid.circuits])[:, :, None]
    assert (amps <= most + 0.01).all()
    assert (currents_a(tidy, plan) <= amps + 1e-6).all()


@given(problems(modes=(Mode.PLAN,)), st.integers(0, 99))
@few
def test_by_rule_every_line_holds_too(problem: PlanProblem, seed: int):
    problem = street(problem, seed)
    broken = replace(problem, import_eur_per_kwh=np.full(problem.slots, np.nan))

    plan = planning.solve(broken)

    tidy = replace(problem, sessions=set_right(problem, []))
    assert plan.status == "fallback"
    assert judge(tidy, plan).worst_w <= 1


def many_cars(cars: int, seed: int, share: float, room: float) -> PlanProblem:
    """A large site of which some cars hang between two lines, every circuit with amps as well as watts."""
    problem, rng = family(cars, seed=seed), np.random.default_rng(seed)
    circuits = (
        c if c.limit_w is None else replace(c, limit_a=(room * c.limit_w / 230 / ROOT3,) * 3)
        for c in problem.grid.circuits
    )
    sessions = []
    for s in problem.sessions:
        if rng.random() < share:
            energy = min(s.energy_wh, 0.8 * 3680 * 0.92 * (s.last_slot - s.first_slot) / 4)
            pair = PAIRS[int(rng.integers(3))]
            s = replace(s, phases=pair, max_w=min(s.max_w, 3680.0), energy_wh=energy)
        sessions.append(s)
    return replace(problem, grid=Grid(tuple(circuits), Supply.IT), sessions=tuple(sessions))


@settings(max_examples=5, deadline=None)
@given(st.integers(20, 50), st.integers(0, 10_000), st.sampled_from([0.05, 0.3]), st.sampled_from([1.0, 1.2]))
def test_many_cars_are_planned_by_flow_within_every_line(cars, seed, share, room):
    holds(many_cars(cars, seed, share, room), gap=0.03)


def test_a_car_whose_other_line_is_not_named_is_counted_on_both():
    assert loaded((False, True, False), Supply.IT) == ALL
    assert loaded((False, True, False), Supply.TN) == (False, True, False)
    assert spread_a(2300, (False, True, False), Supply.IT) == (10, 10, 10)
    assert spread_a(2300, L23, Supply.IT) == (0, 10, 10)

    one = PlanSession("1", 0, (False, True, False), 0, 4, 20_000.0, 0.0, 100_000.0)
    plan = planning.solve(day(one, grid=without_neutral(one_circuit(20))))

    assert plan.session_w["1"].max() <= 20 * 230 + 1  # whichever it is, 20 A are never passed


# --- this moment --------------------------------------------------------------------------------------------------


@given(st.lists(st.sampled_from((ALL, *PAIRS)), min_size=1, max_size=5), st.sampled_from([10.0, 16.0, 25.0, 63.0]))
@few
def test_plan_and_live_layer_agree_about_what_fits(kinds, limit_a):
    """Cars that follow a plan of this moment are held back by nothing, and together fill what the plan filled."""
    cars = [
        car(str(i), energy_kwh=100, max_kw=32 * 0.23 * power_weight(sum(p), Supply.IT), phases=p)
        for i, p in enumerate(kinds)
    ]
    planned = planning.solve(day(*cars, grid=without_neutral(one_circuit(limit_a))))
    world = worlds.one_board(limit_a)
    for s in cars:
        watts = float(planned.session_w[s.key][0])
        world = world.with_car(s.key, "grid", phases=s.phases, planned_w=watts, min_a=0.0, fail_safe_a=0.0)
    world = world.but(grid=without_neutral(world.grid), plan_valid=True)

    answer = allocate(world)

    for s in cars:
        amps = float(planned.session_w[s.key][0]) / 230 / power_weight(sum(s.phases), Supply.IT)
        assert answer.shares[s.key].limit_a >= amps - 0.11  # a charger has steps of a tenth
    assert max(worlds.sum_at(world, answer, "grid")) <= limit_a + 1e-6


def arrows(loads: list[tuple[tuple[bool, bool, bool], float]]) -> np.ndarray:
    """The currents of three lines, each load in phase with the voltage it hangs on."""
    line = np.exp(-2j * np.pi * np.arange(3) / 3)
    total = np.zeros(3, dtype=complex)
    for phases, amps in loads:
        if all(phases):
            total += amps * line
            continue
        a, b = (i for i in range(3) if phases[i])
        along = (line[a] - line[b]) / ROOT3
        total[a] += amps * along
        total[b] -= amps * along
    return total


@given(st.lists(st.tuples(st.sampled_from((ALL, *PAIRS)), st.floats(6, 32), st.integers(0, 3)), min_size=1, max_size=6))
@few
def test_what_a_meter_hides_of_a_line_is_at_most_a_seventh_of_its_limit_until_the_next_reading(drawn):
    """Cars of one pair give way to those of another; the meter shows lengths. The promise of decision 19."""
    others = [(phases, amps) for phases, amps, priority in drawn if priority == 0]
    cars = [(phases, amps, priority) for phases, amps, priority in drawn if priority > 0]
    shown = np.abs(arrows([*others, *((p, a) for p, a, _ in cars)]))
    limit_a = float(shown.max())
    world = worlds.of(("grid", None, limit_a, {"metered": True})).with_meter("grid", tuple(shown.tolist()))
    for i, (phases, amps, priority) in enumerate(cars):
        measured = tuple(amps * on for on in phases)
        world = world.with_car(
            str(i), "grid", phases=phases, priority=priority, offered_a=amps, measured_a=measured, fail_safe_a=0.0
        )

    answer = allocate(world.but(grid=without_neutral(world.grid)))

    told = [(p, answer.shares[str(i)].limit_a) for i, (p, _, _) in enumerate(cars)]
    assert np.abs(arrows([*others, *told])).max() <= 1.155 * limit_a + 1e-6


def test_without_a_neutral_a_battery_between_two_lines_loads_both():
    world = worlds.one_board(30).with_battery("grid", power_w=4600.0, phases=L12)
    for key, phases in (("23", L23), ("31", L31)):
        world = world.with_car(key, "grid", phases=phases, fail_safe_a=0.0)

    answer = allocate(world.but(grid=without_neutral(world.grid)))

    # Until it is seen to have let go of its 20 A, the cars have what is left of each line.
    a, b, c = worlds.sum_at(world, answer, "grid")
    assert (a, b, c) == pytest.approx((10, 10, 20), abs=0.1)


def test_when_a_snapshot_cannot_be_allocated_a_power_limit_is_one_of_three_lines():
    world = worlds.one_board(63).with_car("hpc", "grid", dc=True, max_a=100.0, fail_safe_a=10.0)
    world = world.but(grid=without_neutral(world.grid)).narrowed(Rank.CONTRACT, limit_w=230 * ROOT3 * 10)

    share = safe_allocation(world).shares["hpc"]

    assert share.limit_a == 10
    assert share.limit_w == int(10 * 230 * ROOT3)


def test_fail_safes_of_cars_between_two_lines_are_added_on_both():
    world = worlds.one_board(10)
    world = world.with_car("a", "grid", phases=L12, fail_safe_a=6.0).with_car("b", "grid", phases=L23, fail_safe_a=6.0)

    gaps = commissioning_gaps(without_neutral(world.grid), world.sessions, {})

    assert [(g.phase, g.fail_safe_a) for g in gaps] == [("L2", 12)]


def test_a_limit_in_watts_spread_evenly_is_more_amps():
    limits = narrow(without_neutral(one_circuit(63)), [Narrowing(Rank.CONTRACT, "", limit_w=6900.0)])

    assert limits.phase_a(0) == pytest.approx((17.32, 17.32, 17.32), abs=0.01)

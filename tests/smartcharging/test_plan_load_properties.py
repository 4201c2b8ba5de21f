"""What holds for every plan with loads, asked of many small random sites."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from smartcharging.engine.grid import Grid
from smartcharging.engine.loads.kinds import Load, ShiftableBlock, Switchable, ThermalStore
from smartcharging.engine.plan import exact
from smartcharging.engine.plan import solve as planning
from smartcharging.engine.plan.asked import set_right
from smartcharging.engine.plan.judge import judge
from smartcharging.engine.plan.problem import PlanProblem
from smartcharging.engine.plan.solver import NoSolution
from smartcharging.engine.snapshot import Mode
from tests.smartcharging.test_plan_properties import PHASES, SLOTS, numbers, problems

quick = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
hours = st.sampled_from([0.0, 0.25, 0.5, 1.0, 2.0])


@st.composite
def blocks(draw: st.DrawFn, key: str, node: int) -> ShiftableBlock:
    first = draw(st.integers(-1, SLOTS))
    return ShiftableBlock(
        key=key,
        node=node,
        phases=draw(st.sampled_from(PHASES)),
        profile_w=tuple(draw(st.lists(st.sampled_from([0.0, 1500.0, 4000.0]), min_size=1, max_size=3))),
        step_s=draw(st.sampled_from([600.0, 900.0, 3600.0])),
        first_slot=first,
        last_slot=first + draw(st.integers(0, SLOTS)),
        value_eur=draw(st.sampled_from([None, None, 0.3])),
        running_h=draw(st.sampled_from([None, None, 0.2])),
    )


@st.composite
def stores(draw: st.DrawFn, key: str, node: int) -> ThermalStore:
    return ThermalStore(
        key=key,
        node=node,
        phases=draw(st.sampled_from(PHASES)),
        max_w=draw(st.sampled_from([0.0, 2000.0, 6000.0])),
        capacity_wh_per_k=draw(st.sampled_from([50.0, 1000.0])),
        loss_w_per_k=draw(st.sampled_from([0.0, 5.0, 100.0])),
        now_c=draw(st.sampled_from([15.0, 45.0, 50.0, 70.0])),
        min_c=draw(numbers(40, 50)),
        max_c=draw(st.sampled_from([50.0, 60.0, np.inf])),
        ambient_c=draw(numbers(-5, 60)),
        efficiency=draw(st.sampled_from([1.0, 3.0])),
        draw_w=draw(numbers(-500, 2000)),
        on_off=draw(st.booleans()),
        cooling=draw(st.booleans()),
        value_eur_per_k_h=draw(st.sampled_from([None, 0.05])),
    )


@st.composite
def switches(draw: st.DrawFn, key: str, node: int) -> Switchable:
    return Switchable(
        key=key,
        node=node,
        phases=draw(st.sampled_from(PHASES)),
        expected_w=draw(numbers(0, 4000)),
        eur_per_kwh=draw(st.sampled_from([0.0, 0.1])),
        longest_off_h=draw(hours),
        rest_h=draw(hours),
        most_off_h_per_day=draw(st.sampled_from([0.5, 1.5, 24.0])),
        before=tuple(draw(st.lists(st.booleans(), max_size=4))),
    )


@st.composite
def sites(draw: st.DrawFn) -> PlanProblem:
    problem = draw(problems())
    kinds = draw(st.lists(st.sampled_from([blocks, stores, switches]), min_size=1, max_size=3))
    loads: list[Load] = []
    for number, kind in enumerate(kinds):
        loads.append(draw(kind(f"load {number}", draw(st.integers(0, len(problem.grid) - 1)))))  # type: ignore[operator]
    return replace(problem, loads=tuple(loads))


def tidied(problem: PlanProblem) -> PlanProblem:
    loads = planning.plannable_loads(problem, [])
    return replace(problem, sessions=set_right(problem, []), loads=loads)


@given(sites())
@quick
def test_no_bound_is_ever_broken_and_what_the_plan_costs_is_what_the_program_found(problem: PlanProblem):
    plan = planning.solve(problem)

    verdict = judge(tidied(problem), plan)
    assert plan.status in ("optimal", "feasible"), plan.notes
    assert verdict.worst_w <= 1, verdict.worst_name
    assert all(short.reason for short in plan.load_short)


@given(sites())
@quick
def test_the_judge_prices_a_plan_as_the_program_does(problem: PlanProblem):
    """Without a battery and the sun, whose tie-breaks the judge leaves out, the two agree."""
    plain = replace(
        problem,
        battery=None,
        maximum_tariff=None,
        pv_w=np.zeros(SLOTS),
        import_eur_per_kwh=np.abs(problem.import_eur_per_kwh),
    )
    tidy = tidied(replace(plain, sessions=tuple(replace(s, mode=Mode.PLAN) for s in plain.sessions)))
    program = exact.Program(tidy)

    solution = exact._settle(program, program.build(program.money), lambda: 10.0)
    answer = exact.answer_of(program, program, solution.values[program.part("p")], solution.values, 0.0, [], ())
    _, verdict = planning.finish(tidy, answer, [])

    assert verdict.objective_eur == pytest.approx(solution.objective, rel=1e-6, abs=1e-3)


@given(sites())
@quick
def test_the_plan_is_never_worse_than_the_rule(problem: PlanProblem):
    root, *below = (
        problem.grid.circuits
    )  # which the building alone overloads on no phase: there the program is stricter
    grid = Grid((replace(root, limit_a=(500.0, 500.0, 500.0)), *below))
    tidy = tidied(replace(problem, sessions=(), grid=grid))

    plan = planning.solve(tidy)
    rule, verdict = planning.finish(tidy, planning.rule_answer(tidy), [])

    assert verdict.worst_w <= 1, verdict.worst_name
    assert plan.objective_eur is not None
    assert rule.objective_eur is not None
    assert plan.objective_eur <= rule.objective_eur + 1e-3 * max(1.0, abs(rule.objective_eur))


@given(sites())
@quick
def test_out_of_time_there_is_still_a_plan_within_every_bound(problem: PlanProblem):
    def none_found(*_args: object) -> None:
        raise NoSolution("time limit")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(exact, "minimise_whole", none_found)
        plan = planning.solve(problem)

    verdict = judge(tidied(problem), plan)
    assert plan.status in ("optimal", "feasible"), plan.notes
    assert verdict.worst_w <= 1, verdict.worst_name

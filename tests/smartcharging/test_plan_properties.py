"""What holds for every plan of every site, asked of many small random ones."""

from __future__ import annotations

from dataclasses import replace
from unittest import mock

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from smartcharging.engine.grid import Circuit, Grid
from smartcharging.engine.plan import coarse, worth
from smartcharging.engine.plan import solve as planning
from smartcharging.engine.plan.asked import set_right
from smartcharging.engine.plan.judge import judge
from smartcharging.engine.plan.problem import MaximumTariff, PeakCharge, PlanProblem, PlanSession
from smartcharging.engine.snapshot import BatteryState, Mode
from tests.smartcharging.planning_worlds import ALL, MIDNIGHT, ON_L1, ON_L2

SLOTS = 8
quick = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
PHASES = [ALL, ON_L1, ON_L2, (True, True, False), (False, False, True)]


@st.composite
def grids(draw: st.DrawFn) -> Grid:
    amps = st.sampled_from([0.0, 10.0, 16.0, 25.0, 63.0, 500.0])
    circuits = [
        Circuit("grid", None, (draw(amps), draw(amps), draw(amps)), limit_w=draw(st.sampled_from([None, 9000.0])))
    ]
    for n in range(1, draw(st.integers(1, 6))):
        even = draw(amps)
        limit = (even, even, even) if draw(st.booleans()) else (draw(amps), draw(amps), draw(amps))
        circuits.append(
            Circuit(
                f"c{n}",
                draw(st.integers(0, n - 1)),
                limit,
                limit_w=draw(st.sampled_from([None, None, 7000.0])),
                margin_a=draw(st.sampled_from([0.0, 2.0])),
            )
        )
    return Grid(tuple(circuits))


@st.composite
def cars(draw: st.DrawFn, number: int, nodes: int, modes: list[Mode]) -> PlanSession:
    first = draw(st.integers(-1, SLOTS))
    return PlanSession(
        key=str(number),
        node=draw(st.integers(0, nodes - 1)),
        phases=draw(st.sampled_from(PHASES)),
        first_slot=first,
        last_slot=first + draw(st.integers(0, SLOTS)),
        max_w=draw(st.sampled_from([0.0, 3680.0, 11_000.0, 22_000.0])),
        min_w=1380.0,
        energy_wh=draw(st.sampled_from([0.0, 500.0, 8000.0, 30_000.0])),
        priority=draw(st.integers(0, 3)),
        mode=draw(st.sampled_from(modes)),
        efficiency=draw(st.sampled_from([1.0, 0.9])),
        group=draw(st.sampled_from([None, 1])),
        group_max_a=15_000 / 690,
        gone_eur_per_kwh=draw(st.sampled_from([(), tuple(0.1 * t for t in range(SLOTS)), (0.0, 0.3)])),
    )


def numbers(low: float, high: float) -> st.SearchStrategy[np.ndarray]:
    each = st.floats(low, high).map(lambda v: round(v, 3))
    return st.lists(each, min_size=SLOTS, max_size=SLOTS).map(lambda v: np.array(v, dtype=float))


@st.composite
def problems(draw: st.DrawFn, modes: tuple[Mode, ...] = tuple(Mode), prices: tuple[float, float] = (-0.3, 0.6)):
    grid = draw(grids())
    battery = None
    if draw(st.booleans()):
        battery = BatteryState(
            key="b",
            node=draw(st.integers(0, len(grid) - 1)),
            soc=draw(st.sampled_from([0.0, 0.05, 0.5, 1.0])),
            capacity_wh=10_000.0,
            max_charge_w=5000.0,
            max_discharge_w=4000.0,
            efficiency=draw(st.sampled_from([1.0, 0.9])),
            wear_eur_per_kwh=draw(st.sampled_from([0.0, 0.02])),
            phases=draw(st.sampled_from([ALL, ALL, ON_L1, (True, False, True)])),
        )
    month_ends = draw(st.sampled_from([None, 3, SLOTS]))
    optional = draw(st.sampled_from([None, np.full(SLOTS, 6000.0), np.linspace(0, 12_000, SLOTS)]))
    return PlanProblem(
        start=MIDNIGHT,
        slot_s=draw(st.sampled_from([900, 3600])),
        grid=grid,
        sessions=tuple(draw(cars(i, len(grid), list(modes))) for i in range(draw(st.integers(0, 6)))),
        building_w=draw(numbers(0, 12_000)),
        pv_w=-draw(numbers(0, 12_000)),
        import_eur_per_kwh=draw(numbers(*prices)),
        export_eur_per_kwh=draw(numbers(*prices)),
        battery=battery,
        month_peak_w=draw(st.sampled_from([0.0, 5000.0])),
        peak_eur_per_kw=draw(st.sampled_from([0.0, 4.0])),
        month_ends=month_ends,
        charges=(PeakCharge("access_power", 6.0, 3000.0), PeakCharge("month_peak", 4.0, 2500.0, month_ends or SLOTS)),
        maximum_tariff=draw(st.sampled_from([None, MaximumTariff(0.3, 20_000.0)])),
        import_limit_w=optional,
        export_limit_w=draw(st.sampled_from([None, np.full(SLOTS, 3000.0)])),
        sun_trust=draw(st.sampled_from([None, 0.25])),
        node_background_w={n: draw(numbers(0, 6000)) for n in range(1, len(grid)) if draw(st.booleans())},
    )


@given(problems())
@quick
def test_no_bound_is_ever_broken_and_the_books_close(problem: PlanProblem):
    plan = planning.solve(problem)

    tidy = replace(problem, sessions=set_right(problem, []))
    verdict = judge(tidy, plan)
    assert plan.status in ("optimal", "feasible"), plan.notes
    assert verdict.worst_w <= 1, verdict.worst_name
    for s in tidy.sessions:
        got = s.efficiency * plan.session_w[s.key].sum() * problem.slot_s / 3600
        assert got + plan.shortfall_wh[s.label] >= s.energy_wh - planning.SHORT_WH
        assert got <= s.energy_wh + 1
        assert (plan.shortfall_wh[s.label] > 0) == (s.label in plan.shortfall_reason)


@given(problems(prices=(0.0, 0.5)))
@quick
def test_a_plan_with_long_far_slots_breaks_no_bound_of_any_quarter_hour(problem: PlanProblem):
    stages = ((2 * problem.slot_s / 3600, 2 * problem.slot_s / 3600), (4 * problem.slot_s / 3600, 1.0))
    with mock.patch.object(coarse, "STAGES", stages):
        plan = planning.solve(problem)

    tidy = replace(problem, sessions=set_right(problem, []))
    verdict = judge(tidy, plan)
    assert plan.status in ("optimal", "feasible"), plan.notes
    assert verdict.worst_w <= 1, verdict.worst_name
    short = planning.solve(problem)
    assert plan.objective_eur is not None
    assert short.objective_eur is not None
    if any(s.mode is Mode.FAST for s in tidy.sessions):
        return  # haste comes before money, and in short slots there is more of it
    # What the judge lets pass, a watt all day, may serve whoever is worth most.
    dearest = max((float(v) for v in worth.goal_values(problem)), default=0.0)
    watt = dearest * float(problem.hours.sum()) / 1000
    assert plan.objective_eur >= short.objective_eur - 1e-3 * max(1.0, abs(short.objective_eur)) - watt


@given(problems(modes=(Mode.PLAN, Mode.SURPLUS)))
@quick
def test_the_plan_is_never_worse_than_the_rule(problem: PlanProblem):
    plan = planning.solve(problem)

    tidy = replace(problem, sessions=set_right(problem, []))
    rule, verdict = planning.finish(tidy, planning.rule_answer(tidy), [])
    assert verdict.worst_w <= 1, verdict.worst_name
    assert plan.objective_eur is not None
    assert rule.objective_eur is not None
    # The program is solved to the watt-hour, and a missing one costs a tenth of a cent.
    watt_hours = 0.001 * len(problem.sessions)
    assert plan.objective_eur <= rule.objective_eur + watt_hours + 1e-4 * max(1.0, abs(rule.objective_eur))


@given(problems(modes=(Mode.PLAN,)))
@quick
def test_by_rule_every_bound_holds_too(problem: PlanProblem):
    broken = replace(problem, import_eur_per_kwh=np.full(SLOTS, np.nan))

    plan = planning.solve(broken)

    assert plan.status == "fallback"
    tidy = replace(problem, sessions=set_right(problem, []))
    assert judge(replace(tidy, battery=None), plan).worst_w <= 1


@given(problems(modes=(Mode.PLAN,)), st.integers(0, 1_000_000))
@quick
def test_the_order_of_the_sessions_changes_nothing_that_is_paid(problem: PlanProblem, seed: int):
    shuffled = list(problem.sessions)
    np.random.default_rng(seed).shuffle(shuffled)  # type: ignore[arg-type]

    one = planning.solve(problem)
    other = planning.solve(replace(problem, sessions=tuple(shuffled)))

    assert one.objective_eur is not None
    assert other.objective_eur is not None
    assert abs(one.objective_eur - other.objective_eur) <= 1e-3 * max(1.0, abs(one.objective_eur))

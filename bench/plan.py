"""Time to a plan: our planner, and plain `scipy.optimize.linprog` on the same day.

At 10, 50 and 200 cars exactly, against the dual simplex; at 1,000 and 2,000 cars to a certified gap of 1e-3 and 1e-4,
against the dual simplex and the interior point, once each, for they take their time.

Both are timed from the problem to the powers: building, solving, reading out. Ours also explains every shortfall and
has its answer judged. Alternating runs, medians over seeds; the objective and the worst violation of both come from
`smartcharging/engine/judge.py`, which shares no arithmetic with either.
"""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass, replace

import numpy as np
from scipy.optimize import linprog

from bench.plan_family import day, plain_program
from smartcharging.engine.judge import judge
from smartcharging.engine.plan import solve
from smartcharging.engine.problem import PlanProblem, PlanResult

SIZES, SEEDS, ROUNDS = (10, 50, 200), (1, 2, 3), 3
LARGE, GAPS, METHODS = (1_000, 2_000), (1e-3, 1e-4), ("highs", "highs-ipm")


@dataclass(frozen=True)
class Run:
    seconds: float
    objective: float
    violation_w: float


def ours(problem: PlanProblem) -> Run:
    began = time.perf_counter()
    plan = solve(problem)
    seconds = time.perf_counter() - began
    if plan.status not in ("optimal", "feasible"):
        raise SystemExit(f"our plan is {plan.status}: {plan.notes}")
    return _run(problem, plan, seconds)


def plain(problem: PlanProblem, method: str = "highs") -> Run:
    began = time.perf_counter()
    program = plain_program(problem)
    answer = linprog(**{**program.arguments, "method": method})
    dense = np.zeros((len(problem.sessions), problem.slots))
    dense[program.session, program.slot] = answer.x[: program.session.shape[0]]
    charge = answer.x[program.charge : program.charge + problem.slots]
    discharge = answer.x[program.charge + problem.slots : program.charge + 2 * problem.slots]
    seconds = time.perf_counter() - began
    battery = (charge - discharge) * 1000
    plan = PlanResult(
        status="optimal",
        session_w={s.key: dense[i] * 1000 for i, s in enumerate(problem.sessions)},
        battery_w=battery,
        grid_w=problem.building_w + problem.pv_w + dense.sum(axis=0) * 1000 + battery,
        pv_w=problem.pv_w,
        shortfall_wh={},
        shortfall_reason={},
        objective_eur=None,
        gap=None,
        solve_s=seconds,
    )
    return _run(problem, plan, seconds)


def _run(problem: PlanProblem, plan: PlanResult, seconds: float) -> Run:
    verdict = judge(problem, plan)
    return Run(seconds, verdict.objective_eur, verdict.worst_w)


def run() -> None:
    for first in (ours, plain):  # imports and first calls are not what we measure
        first(day(10, seed=99))
    head = f"{'cars':>5} {'ours':>10} {'linprog':>10} {'ratio':>7}"
    print(f"{head} {'objective':>12} {'difference':>11} {'violation':>10}")
    for cars in SIZES:
        mine: list[Run] = []
        theirs: list[Run] = []
        ratios: list[float] = []
        for seed in SEEDS:
            problem = replace(day(cars, seed=seed), relative_gap=0.0)
            pairs = [(ours(problem), plain(problem)) for _ in range(ROUNDS)]
            mine += [a for a, _ in pairs]
            theirs += [b for _, b in pairs]
            ratios += [a.seconds / b.seconds for a, b in pairs]
        difference = max(abs(a.objective - b.objective) / abs(b.objective) for a, b in zip(mine, theirs, strict=True))
        print(
            f"{cars:>5} {1000 * statistics.median(r.seconds for r in mine):>7.1f} ms"
            f" {1000 * statistics.median(r.seconds for r in theirs):>7.1f} ms"
            f" {statistics.median(ratios):>6.2f}x {mine[0].objective:>8.2f} EUR {difference:>11.1e}"
            f" {max(r.violation_w for r in mine):>8.4f} W",
            flush=True,
        )
    _large()


def _large() -> None:
    head = f"{'cars':>5} {'gap':>6} {'ours':>10} {'peer':>10} {'time':>10}"
    print(f"{head} {'ours/peer':>10} {'above it':>10} {'violation':>10}")
    for cars in LARGE:
        problem = day(cars, seed=1)
        mine = {
            gap: [ours(replace(problem, relative_gap=gap, time_limit_s=120.0)) for _ in range(ROUNDS)] for gap in GAPS
        }
        for method in METHODS:
            peer = plain(problem, method)
            for gap, runs in mine.items():
                middle = statistics.median(r.seconds for r in runs)
                above = (runs[0].objective - peer.objective) / abs(peer.objective)
                worst = max(r.violation_w for r in runs)
                print(
                    f"{cars:>5} {gap:>6.0e} {1000 * middle:>7.1f} ms {method:>10} {peer.seconds:>8.2f} s"
                    f" {f'1/{peer.seconds / middle:.0f}':>10} {above:>10.1e} {worst:>8.4f} W",
                    flush=True,
                )

"""Time to a plan: our planner, plain `scipy.optimize.linprog` and what others plan with, on the same days.

All are timed from the problem to the powers: building, solving, reading out. Ours also explains every shortfall and
has its answer judged. The objective and the worst violation of each come from `smartcharging/engine/plan/judge.py`,
which shares no arithmetic with any. Up to 200 cars exactly; from there to a certified gap. The peers of `bench/peers`
take part where they are installed; ours is measured before and after each of them.
"""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass, replace

import numpy as np
from scipy.optimize import linprog

from bench.goals import part, verdict
from bench.peers import PEERS, Peer
from bench.peers.asking import PeerFailed, ask, plan_of
from bench.plan_family import day, next_step, plain_program
from smartcharging.engine.plan.judge import Verdict, judge
from smartcharging.engine.plan.problem import PlanProblem
from smartcharging.engine.plan.solve import solve

SIZES, SEEDS, ROUNDS, EXACT = (10, 50, 200), (1, 2, 3), 3, 0.0
LARGE, GAPS, METHODS = (1_000, 2_000), (1e-3, 1e-4), ("highs", "highs-ipm")
OTHERS = (
    (50, EXACT, ("cvxpy", "linopy", "pyomo", "adacharge", "flexmeasures")),
    (200, 1e-3, ("adacharge", "flexmeasures")),
    (1_000, 1e-3, ("cvxpy", "linopy", "pyomo")),
)
FASTEST = "the fastest"
NEXT_CARS, NEXT_GAP, COLD, COLD_EXACT = 1_000, 1e-3, "next, linprog cold", "next, exact cold"
GOALS = {  # our time as a part of theirs, at most
    (10, EXACT, "linprog highs"): 1.5,
    (50, EXACT, "linprog highs"): 1.5,
    (200, 1e-3, "adacharge"): 1 / 15,
    (200, 1e-3, "flexmeasures"): 1 / 40,
    (1_000, 1e-3, "cvxpy"): 1 / 30,
    (1_000, 1e-3, "linopy"): 1 / 15,
    (1_000, 1e-3, "pyomo"): 1 / 20,
    (NEXT_CARS, NEXT_GAP, COLD): 1 / 8,
    (NEXT_CARS, NEXT_GAP, COLD_EXACT): 1 / 8,
    (2_000, 1e-3, "linprog highs"): 1 / 60,
    (2_000, 1e-3, FASTEST): 1 / 40,
    (2_000, 1e-4, "linprog highs"): 1 / 25,
    (2_000, 1e-4, FASTEST): 1 / 10,
}
WRONG_W = 1.0  # an answer that breaks a bound by more is no answer
PATIENCE_S = 300.0


@dataclass(frozen=True)
class Run:
    seconds: float
    verdict: Verdict


def ours(problem: PlanProblem) -> Run:
    began = time.perf_counter()
    plan = solve(problem)
    seconds = time.perf_counter() - began
    if plan.status not in ("optimal", "feasible"):
        raise SystemExit(f"our plan is {plan.status}: {plan.notes}")
    return Run(seconds, judge(problem, plan))


def plain(problem: PlanProblem, method: str = "highs") -> Run:
    began = time.perf_counter()
    program = plain_program(problem)
    answer = linprog(**{**program.arguments, "method": method})
    dense = np.zeros((len(problem.sessions), problem.slots))
    dense[program.session, program.slot] = answer.x[: program.session.shape[0]]
    charge = answer.x[program.charge : program.charge + problem.slots]
    discharge = answer.x[program.charge + problem.slots : program.charge + 2 * problem.slots]
    seconds = time.perf_counter() - began
    return Run(seconds, judge(problem, plan_of(problem, dense * 1000, (charge - discharge) * 1000)))


def run() -> None:
    for first in (ours, plain):  # imports and first calls are not what we measure
        first(day(10, seed=99))
    print(
        f"{'cars':>5} {'gap':>6} {'ours':>9} {'peer':>18} {'its time':>10} {'ours/peer':>9} {'goal':>6} {'':>7}"
        f" {'above it':>9} {'violation':>10}"
    )
    for cars in SIZES:
        _exactly(cars)
    for cars in LARGE:
        _to_a_gap(cars)
    _next_step()
    for cars, gap, names in OTHERS:
        _beside(cars, gap, [PEERS[name] for name in names])


def _exactly(cars: int) -> None:
    """Alternating runs, medians over several days; the difference is the largest of all."""
    mine: list[Run] = []
    theirs: list[Run] = []
    ratios: list[float] = []
    for seed in SEEDS:
        problem = replace(day(cars, seed=seed), relative_gap=EXACT)
        pairs = [(ours(problem), plain(problem)) for _ in range(ROUNDS)]
        mine += [a for a, _ in pairs]
        theirs += [b for _, b in pairs]
        ratios += [a.seconds / b.seconds for a, b in pairs]
    above = max((_above(a, b) for a, b in zip(mine, theirs, strict=True)), key=abs)
    _say(cars, EXACT, mine, "linprog highs", _middle(theirs), statistics.median(ratios), above=above)


def _to_a_gap(cars: int) -> None:
    """The peers once each: they take their time."""
    problem = day(cars, seed=1)
    mine = {gap: [ours(_to(problem, gap)) for _ in range(ROUNDS)] for gap in GAPS}
    theirs = {method: plain(problem, method) for method in METHODS}
    for gap in GAPS:
        mine[gap] += [ours(_to(problem, gap)) for _ in range(ROUNDS)]
    for gap, runs in mine.items():
        for method, peer in theirs.items():
            ratio = _middle(runs) / peer.seconds
            _say(cars, gap, runs, f"linprog {method}", peer.seconds, ratio, above=_above(runs[0], peer))
        if (cars, gap, FASTEST) in GOALS:
            fastest = min(peer.seconds for peer in theirs.values())
            _say(cars, gap, runs, FASTEST, fastest, _middle(runs) / fastest)


def _next_step() -> None:
    """The plan of a quarter hour later beside the whole program from nothing: scipy's, and ours with its own start."""
    before = _to(day(NEXT_CARS, seed=1), NEXT_GAP)
    ours(before)
    problem = next_step(before)
    mine = [ours(problem) for _ in range(ROUNDS)]
    for name, peer in ((COLD, plain(problem)), (COLD_EXACT, ours(replace(problem, relative_gap=EXACT)))):
        _say(NEXT_CARS, NEXT_GAP, mine, name, peer.seconds, _middle(mine) / peer.seconds, above=_above(mine[0], peer))


def _beside(cars: int, gap: float, peers: list[Peer]) -> None:
    problem = _to(day(cars, seed=1), gap)
    for peer in peers:
        if not peer.installed:
            print(f"{cars:>5} {peer.missing}")
            continue
        mine = [ours(problem) for _ in range(ROUNDS)]
        try:
            asked = ask(peer, problem, day(10, seed=99), ROUNDS, PATIENCE_S)
        except PeerFailed as failure:
            print(f"{cars:>5} {peer.title} gave no answer: {failure}")
            continue
        mine += [ours(problem) for _ in range(ROUNDS)]
        seconds = statistics.median(asked.seconds)
        found = asked.verdict
        remark = f"models less: {peer.less}" if peer.less else ""
        if not found.worst_w <= WRONG_W:
            remark = f"its answer breaks a bound: {found.worst_name} by {found.worst_w / 1000:.3g} kW"
        above = _above(mine[0], Run(seconds, found))
        _say(cars, gap, mine, peer.name, seconds, _middle(mine) / seconds, above=above, remark=remark)


def _to(problem: PlanProblem, gap: float) -> PlanProblem:
    return replace(problem, relative_gap=gap, time_limit_s=120.0)


def _middle(runs: list[Run]) -> float:
    return statistics.median(r.seconds for r in runs)


def _above(mine: Run, theirs: Run) -> float:
    """By how much of its objective ours is the dearer; negative: ours is cheaper."""
    other = theirs.verdict.objective_eur
    return (mine.verdict.objective_eur - other) / abs(other)


def _say(
    cars: int,
    gap: float,
    mine: list[Run],
    peer: str,
    seconds: float,
    ratio: float,
    above: float | None = None,
    remark: str = "",
) -> None:
    goal = GOALS.get((cars, gap, peer))
    title = PEERS[peer].title if peer in PEERS else peer
    worst_w = max(r.verdict.worst_w for r in mine)
    line = (
        f"{cars:>5} {f'{gap:.0e}' if gap else 'exact':>6} {1000 * _middle(mine):>6.1f} ms {title:>18}"
        f" {1000 * seconds:>7,.0f} ms {part(ratio):>9} {part(goal) if goal else '':>6}"
        f" {verdict(ratio <= goal) if goal else '':>7} {'' if above is None else f'{above:.1e}':>9}"
        f" {worst_w:>8.4f} W  {remark}"
    )
    print(line.rstrip(), flush=True)

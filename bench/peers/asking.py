"""A day goes to a peer in numbers, its powers come back and are judged like ours.

Peers run in their own process on one thread, and time themselves: building, solving and reading out, after a small
day to warm up. What starting Python and importing the peer takes is not counted.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bench import ONE_THREAD
from bench.peers import Peer
from bench.peers.instance import Instance
from smartcharging.engine.plan.judge import Verdict, judge
from smartcharging.engine.plan.problem import PlanProblem, PlanResult


class PeerFailed(Exception):
    """It did not answer; the message says why."""


@dataclass(frozen=True)
class Asked:
    seconds: tuple[float, ...]
    verdict: Verdict
    versions: str


def ask(peer: Peer, problem: PlanProblem, warm: PlanProblem, runs: int, patience_s: float) -> Asked:
    """Raises `PeerFailed`."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        instance_of(problem).write(folder / "day.npz")
        instance_of(warm).write(folder / "warm.npz")
        run(peer, [str(folder), str(runs)], patience_s)
        with np.load(folder / "answer.npz") as answer:
            plan = plan_of(problem, answer["cars_kw"] * 1000, answer["battery_kw"] * 1000)
            return Asked(tuple(answer["seconds"].tolist()), judge(problem, plan), str(answer["versions"]))


def run(peer: Peer, arguments: list[str], patience_s: float, given: str = "") -> str:
    """What the adapter prints. Raises `PeerFailed`."""
    try:
        done = subprocess.run(
            [str(peer.python), str(peer.script), *arguments],
            input=given,
            text=True,
            capture_output=True,
            timeout=patience_s,
            env={**os.environ, **ONE_THREAD},
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise PeerFailed(f"over {patience_s:.0f} s") from None
    if done.returncode:
        raise PeerFailed((done.stderr.strip().splitlines() or ["no word why"])[-1][:120])
    return done.stdout


def plan_of(problem: PlanProblem, cars_w: np.ndarray, battery_w: np.ndarray) -> PlanResult:
    """Powers as a plan that can be judged; `cars_w` has a row per session."""
    return PlanResult(
        status="optimal",
        session_w={s.key: cars_w[i] for i, s in enumerate(problem.sessions)},
        battery_w=battery_w,
        grid_w=problem.building_w + problem.pv_w + cars_w.sum(axis=0) + battery_w,
        pv_w=problem.pv_w,
        shortfall_wh={},
        shortfall_reason={},
        objective_eur=None,
        gap=None,
        solve_s=0.0,
    )


def instance_of(problem: PlanProblem) -> Instance:
    """The day in the peers' numbers. All of `bench/plan_family.py` is in it; amps, groups and modes are not."""
    sessions, circuits, battery = problem.sessions, problem.grid.circuits, problem.battery
    assert battery is not None
    assert battery.soc is not None
    assert problem.import_limit_w is not None
    assert problem.export_limit_w is not None
    assert problem.battery_end_soc is not None
    return Instance(
        slot_h=problem.slot_s / 3600,
        first=np.array([s.first_slot for s in sessions]),
        last=np.array([s.last_slot for s in sessions]),
        max_kw=np.array([s.max_w for s in sessions]) / 1000,
        energy_kwh=np.array([s.energy_wh for s in sessions]) / 1000,
        efficiency=np.array([s.efficiency for s in sessions]),
        value=np.array([s.value_eur_per_kwh for s in sessions], dtype=float),
        early=problem.early_eur_per_kwh,
        circuit=np.array([s.node for s in sessions]),
        parent=np.array([-1 if c.parent is None else c.parent for c in circuits]),
        limit_kw=np.array([np.inf if c.limit_w is None else c.limit_w / 1000 for c in circuits]),
        net_kw=(problem.building_w + problem.pv_w) / 1000,
        buy=problem.import_eur_per_kwh,
        sell=problem.export_eur_per_kwh,
        import_kw=problem.import_limit_w / 1000,
        export_kw=problem.export_limit_w / 1000,
        month_peak_kw=problem.month_peak_w / 1000,
        peak_price=problem.peak_eur_per_kw,
        battery_charge_kw=battery.max_charge_w / 1000,
        battery_discharge_kw=battery.max_discharge_w / 1000,
        battery_kwh=battery.capacity_wh / 1000,
        battery_start_kwh=battery.soc * battery.capacity_wh / 1000,
        battery_end_kwh=problem.battery_end_soc * battery.capacity_wh / 1000,
        battery_efficiency=battery.efficiency,
        battery_wear=battery.wear_eur_per_kwh,
    )

"""One step of the live layer at 200 and 2,000 EVSEs: from a snapshot to what each is told and why.

Beside it, on the same tree of five levels with three phases: the same kind of sharing in plain numpy on a dense
matrix (progressive filling after a walk for the minimums, and nothing else: no memory, no hysteresis, no reasons), and
acnportal's sorted algorithm, the one in common use, with the same rows (each car at most up to its maximum, one after
the other, by bisection), where it is installed (`bench/peers`).
"""

from __future__ import annotations

import json
import random
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
from numpy.typing import NDArray

from bench.goals import verdict
from bench.peers import PEERS
from bench.peers.asking import PeerFailed
from bench.peers.asking import run as run_peer
from smartcharging.engine.grid import Circuit, Grid
from smartcharging.engine.live.allocate import allocate
from smartcharging.engine.snapshot import BatteryState, Mode, NodeReading, Session, Snapshot

NOW = datetime(2026, 3, 2, 12, 7, 30, tzinfo=UTC)
WIRINGS = ((True, True, True), (True, False, False), (False, True, False), (False, False, True), (True, True, False))
SIZES, ROUNDS, PEER_UP_TO, PEER_RUNS = (200, 2_000), 31, 400, 3
GOAL_MS, GOAL_OF_PEER = {2_000: 10.0}, {200: 500}  # milliseconds of one core; at most this part of acnportal's time
Floats = NDArray[np.float64]


def square(cars: int, seed: int = 1) -> Snapshot:
    """Grid, halls, boards, rows and posts; busy, measured, in the middle of its day."""
    chance = random.Random(seed)
    halls = max(cars // 400, 1)
    circuits: list[tuple[Circuit, str | None]] = [(_circuit("grid", cars * 9.0, metered=True), None)]
    for h in range(halls):
        circuits.append((_circuit(f"hall {h}", cars * 9.5 / halls, metered=True), "grid"))
        for b in range(5):
            circuits.append((_circuit(f"board {h}.{b}", cars * 10.0 / halls / 5), f"hall {h}"))
            for r in range(8):
                circuits.append((_circuit(f"row {h}.{b}.{r}", cars * 11.0 / halls / 40), f"board {h}.{b}"))
    grid = Grid.build(circuits)
    rows = [n for n, c in enumerate(grid.circuits) if c.name.startswith("row")]
    sessions = tuple(_session(k, rows[k % len(rows)], chance) for k in range(cars))
    readings = {}
    for n, circuit in enumerate(grid.circuits):
        if circuit.metered:
            below = [s.measured_a or (0.0, 0.0, 0.0) for s in sessions if n in grid.path(s.node)]
            a, b, c = (20.0 + sum(phase) for phase in zip(*below, strict=True))
            readings[n] = NodeReading((a, b, c))
    return Snapshot(NOW, grid, sessions, readings, plan_valid=True)


def _circuit(name: str, amps: float, *, metered: bool = False) -> Circuit:
    return Circuit(name, None, (amps, amps, amps), metered=metered, margin_a=1.0)


def _session(number: int, node: int, chance: random.Random) -> Session:
    phases = WIRINGS[number % len(WIRINGS)]
    a, b, c = (chance.choice([6.0, 8.0]) * on for on in phases)
    return Session(
        f"{number:05}",
        node,
        phases,
        32.0,
        priority=chance.choice([1, 1, 2, 3]),
        mode=Mode.FAST if number % 3 else Mode.PLAN,
        planned_w=chance.choice([None, 0.0, 6_000.0]),
        offered_a=chance.choice([6.0, 8.0, 10.0]),
        offered_since=NOW - timedelta(seconds=chance.choice([3, 40, 200])),
        offered_before_a=6.0,
        lease_until=NOW + timedelta(seconds=200),
        measured_a=(a, b, c),
        measured_at=NOW - timedelta(seconds=chance.uniform(0, 10)),
        arrived_at=NOW - timedelta(seconds=3_000 + number),
        departure=NOW + timedelta(hours=2) if number % 2 else None,
        energy_needed_wh=9_000.0,
        on_since=NOW - timedelta(seconds=500),
    )


def pressed(snapshot: Snapshot) -> Snapshot:
    """The same site on a hard day: a peak target that does not leave every car its minimum, the phases of half the cars
    unknown, two EVSEs to a station with a shared maximum, PV, and a battery with a plan."""
    cars, rows = len(snapshot.sessions), len({s.node for s in snapshot.sessions})
    sessions = tuple(
        replace(
            s, phases=s.phases if k % 2 else (False,) * 3, group=k // (2 * rows) * rows + k % rows, group_max_a=32.0
        )
        for k, s in enumerate(snapshot.sessions)
    )
    battery = BatteryState("battery", 0, 0.5, 100e3, 50e3, 50e3, power_w=1e3, planned_w=-8e3)
    return replace(
        snapshot,
        sessions=sessions,
        batteries=(battery,),
        pv_w=-50e3,
        peak_target_w=cars * 3_000.0,
        quarter_import_wh=cars * 600.0,
    )


class Dense:
    """The same tree as one matrix: a row for each node and phase, a column for each car."""

    def __init__(self, snapshot: Snapshot) -> None:
        sessions, grid = snapshot.sessions, snapshot.grid
        self.rows = np.zeros((len(grid), 3, len(sessions)))
        for i, s in enumerate(sessions):
            for n in grid.path(s.node):
                self.rows[n, :, i] = s.phases
        self.rows = self.rows.reshape(-1, len(sessions))
        self.limit = np.array([c.limit_a for c in grid.circuits]).ravel() - 1.0
        for n in snapshot.readings:
            self.limit[3 * n : 3 * n + 3] -= 20.0  # the building, which a meter shows
        self.most = np.array([s.max_a for s in sessions])
        self.weight = 2.0 ** np.array([s.priority for s in sessions])

    def share(self) -> Floats:
        """Minimums in order, then progressive filling (weighted max-min)."""
        rows, room, x = self.rows, self.limit.copy(), np.zeros(len(self.most))
        for i in np.argsort(-self.weight, kind="stable"):
            column = rows[:, i] > 0
            if (room[column] >= 6.0).all():
                x[i] = 6.0
                room[column] -= 6.0
        live = x > 0
        while live.any():
            speed = rows @ np.where(live, self.weight, 0.0)
            step = np.min(np.where(speed > 1e-9, np.maximum(room, 0.0) / np.maximum(speed, 1e-9), np.inf))
            step = min(step, np.min(((self.most - x) / self.weight)[live]))
            gain = np.where(live, self.weight * step, 0.0)
            x += gain
            room -= rows @ gain
            full = (room < 1e-6) & (speed > 1e-9)
            live &= (x < self.most - 1e-9) & ~(rows[full] > 0).any(axis=0)
        return x


def _peer(snapshot: Snapshot, dense: Dense) -> float | str:
    """Seconds of CPU that acnportal's sorted algorithm takes for one step, in its own environment; or why not."""
    acnportal = PEERS["acnportal"]
    if len(snapshot.sessions) > PEER_UP_TO:
        return "acnportal: minutes at this size, not run"
    if not acnportal.installed:
        return acnportal.missing
    task = {
        "rows": [np.flatnonzero(row).tolist() for row in dense.rows],
        "limits": dense.limit.tolist(),
        "most": dense.most.tolist(),
        "runs": PEER_RUNS,
    }
    try:
        told = json.loads(run_peer(acnportal, [], 300, given=json.dumps(task)))
    except PeerFailed as failure:
        return f"acnportal failed: {failure}"
    return statistics.median(told["seconds"])


def _cpu(step: Callable[[], object]) -> float:
    began = time.process_time()
    step()
    return time.process_time() - began


def _steps_ms(snapshot: Snapshot) -> float:
    """CPU time of one step, the middle of many, each of which is told what the one before it carried."""
    answer, took = allocate(snapshot), []
    for _ in range(ROUNDS):
        snapshot = replace(snapshot, carried=answer.carried, now=snapshot.now + timedelta(seconds=1))
        took.append(_cpu(lambda now=snapshot: allocate(now)))  # type: ignore[misc]
    return statistics.median(took) * 1000


def run() -> None:
    print("CPU time of one step; median of alternating rounds on one core")
    print(f"{'EVSEs':>6}{'nodes':>7}{'ours':>11}{'plain numpy':>13}{'ratio':>8}{'acnportal':>12}{'ratio':>9}")
    for size in SIZES:
        snapshot = square(size)
        dense = Dense(snapshot)
        answer = allocate(snapshot)
        ours, plain = [], []
        for _ in range(ROUNDS):
            snapshot = replace(snapshot, carried=answer.carried, now=snapshot.now + timedelta(seconds=1))
            ours.append(_cpu(lambda now=snapshot: allocate(now)))  # type: ignore[misc]
            plain.append(_cpu(dense.share))
        mine, theirs = statistics.median(ours), statistics.median(plain)
        peer = _peer(snapshot, dense)
        line = f"{size:>6}{len(snapshot.grid):>7}{mine * 1000:>8.1f} ms{theirs * 1000:>10.1f} ms{mine / theirs:>7.2f}x"
        if isinstance(peer, str):
            print(f"{line}  {peer}", flush=True)
        else:
            print(f"{line}{peer * 1000:>9,.0f} ms{'1/' + format(peer / mine, ',.0f'):>9}", flush=True)
        if size in GOAL_MS:
            print(f"{'':>6} goal {GOAL_MS[size]:.0f} ms: {verdict(mine * 1000 <= GOAL_MS[size])}")
        if size in GOAL_OF_PEER and not isinstance(peer, str):
            part = GOAL_OF_PEER[size]
            print(f"{'':>6} goal 1/{part} of acnportal: {verdict(mine * part <= peer)}")
        print(
            f"{size:>6}{'':>7}{_steps_ms(pressed(square(size))):>8.1f} ms  on a hard day (`pressed` in bench/live.py)",
            flush=True,
        )

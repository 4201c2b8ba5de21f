"""Worlds by name: a tree of circuits, cars on it, meters in it; each builder returns a new world.

    world = worlds.two_rows(main_limit_a=100, row_limit_a=63)
    share = allocate(world.with_sessions(row_1=5, row_2=2, each_max_a=16))

A `World` *is* a snapshot, so the engine takes it as it is. It is noon, in the middle of a quarter hour.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from smartcharging.engine.grid import Circuit, Grid, Phases
from smartcharging.engine.snapshot import (
    Allocation,
    BatteryState,
    Mode,
    Narrowing,
    NodeReading,
    Session,
    Share,
    Snapshot,
)

NOON = datetime(2026, 3, 2, 12, 7, 30, tzinfo=UTC)
THREE = (True, True, True)
L1, L2, L3 = (True, False, False), (False, True, False), (False, False, True)
WIRINGS = (THREE, L1, L2, L3, (True, True, False))


def ago(seconds: float) -> datetime:
    return NOON - timedelta(seconds=seconds)


def ahead(seconds: float) -> datetime:
    return NOON + timedelta(seconds=seconds)


def every_phase(amps: float) -> Phases:
    return (amps, amps, amps)


@dataclass(frozen=True, slots=True)
class World(Snapshot):
    """A snapshot that reads well in a test. Circuits are named with spaces, keywords with underscores."""

    def node(self, name: str) -> int:
        return self.grid.index(name.replace("_", " "))

    def with_sessions(self, *, each_max_a: float = 32, **per_circuit: int) -> World:
        """So many cars on each circuit, three-phase, wanting all they can get: keys are `row 1/0`, `row 1/1` …"""
        added = list(self.sessions)
        for name, count in per_circuit.items():
            circuit = name.replace("_", " ")
            for k in range(count):
                added.append(Session(f"{circuit}/{k}", self.node(name), THREE, max_a=each_max_a))
        return replace(self, sessions=tuple(added))

    def with_car(self, key: str, at: str, **facts: Any) -> World:
        """One more car; whatever is not said is ordinary: three phases, 32 A, reachable, wanting."""
        facts.setdefault("phases", THREE)
        facts.setdefault("max_a", 32.0)
        return replace(self, sessions=(*self.sessions, Session(key, self.node(at), **facts)))

    def with_changed(self, key: str, **facts: Any) -> World:
        return replace(self, sessions=tuple(replace(s, **facts) if s.key == key else s for s in self.sessions))

    def with_all(self, **facts: Any) -> World:
        return replace(self, sessions=tuple(replace(s, **facts) for s in self.sessions))

    def with_meter(self, at: str, current_a: Phases | float | None, power_w: float | None = None) -> World:
        amps = every_phase(current_a) if isinstance(current_a, int | float) else current_a
        return replace(self, readings={**self.readings, self.node(at): NodeReading(amps, power_w)})

    def with_battery(self, at: str = "grid", **facts: Any) -> World:
        ordinary: dict[str, Any] = {"soc": 0.5, "capacity_wh": 50_000, "max_charge_w": 20_000, "power_w": 0.0}
        battery = BatteryState(
            facts.pop("key", "battery"), self.node(at), **{**ordinary, "max_discharge_w": 20_000, **facts}
        )
        return replace(self, batteries=(*self.batteries, battery))

    def narrowed(self, rank: int, reason: str = "", at: str | None = None, **facts: Any) -> World:
        node = None if at is None else self.node(at)
        return replace(self, narrowings=(*self.narrowings, Narrowing(rank, reason, node=node, **facts)))

    def but(self, **facts: Any) -> World:
        return replace(self, **facts)

    def accepted(self, answer: Allocation, seconds_ago: float = 60) -> World:
        """The same world after the stations accepted an answer, and the cars follow it."""
        sessions = []
        for s in self.sessions:
            amps = answer.shares[s.key].limit_a
            phases = THREE if s.dc or not any(s.phases) else s.phases
            drawn = tuple(amps * p if s.wants else 0.0 for p in phases)
            changed = s.offered_since if s.offered_a == amps else self.now - timedelta(seconds=seconds_ago)
            sessions.append(replace(s, offered_a=amps, offered_since=changed, measured_a=drawn, measured_at=self.now))
        return replace(self, sessions=tuple(sessions))


def of(*circuits: tuple[str, str | None, float | Phases, Mapping[str, Any]]) -> World:
    """A world from (name, parent, limit, further facts)."""
    built = [
        (Circuit(name, None, every_phase(limit) if isinstance(limit, int | float) else limit, **facts), parent)
        for name, parent, limit, facts in circuits
    ]
    return World(NOON, Grid.build(built), ())


def one_board(limit_a: float | Phases = 32, **facts: Any) -> World:
    """A single circuit, `grid`, without a meter unless `metered=True`."""
    return of(("grid", None, limit_a, facts))


def two_rows(main_limit_a: float = 100, row_limit_a: float = 63, **main: Any) -> World:
    """A car park: `grid` feeds `row 1` and `row 2`."""
    return of(
        ("grid", None, main_limit_a, main), ("row 1", "grid", row_limit_a, {}), ("row 2", "grid", row_limit_a, {})
    )


def five_levels(grid_a: float = 160, board_a: float = 125, floor_a: float = 80, row_a: float = 63) -> World:
    """Five nested limits: `grid` → `board` → `floor 1`, `floor 2` → `row 1` … `row 4` → `post 1` … `post 8`.

    Metered down to the floors, with a fallback each.
    """
    circuits: list[tuple[str, str | None, float | Phases, Mapping[str, Any]]] = [
        ("grid", None, grid_a, {"metered": True, "fallback_a": 48.0, "margin_a": 2.0}),
        ("board", "grid", board_a, {"metered": True, "fallback_a": 40.0}),
    ]
    circuits += [(f"floor {f}", "board", floor_a, {"metered": True, "fallback_a": 24.0}) for f in (1, 2)]
    circuits += [(f"row {r}", f"floor {1 + (r - 1) // 2}", row_a, {}) for r in (1, 2, 3, 4)]
    circuits += [(f"post {p}", f"row {1 + (p - 1) // 2}", 32.0, {}) for p in range(1, 9)]
    world = of(*circuits)
    for name in ("grid", "board", "floor 1", "floor 2"):
        world = world.with_meter(name, 0.0)
    return world


def mixed_phases(limit_a: float | Phases = 63) -> World:
    """One board with a car on each phase, two on two phases and three on all."""
    world = one_board(limit_a)
    for name, phases in (("on L1", L1), ("on L2", L2), ("on L3", L3)):
        world = world.with_car(name, "grid", phases=phases)
    for k in range(2):
        world = world.with_car(f"on L1 and L2/{k}", "grid", phases=(True, True, False))
    for k in range(3):
        world = world.with_car(f"on all/{k}", "grid")
    return world


def random_site(seed: int, cars: int | None = None, **each: Any) -> World:
    """Any tree up to six levels deep, with cars of every kind that are new here; the same seed, the same world."""
    chance = random.Random(seed)
    circuits: list[tuple[str, str | None, float | Phases, Mapping[str, Any]]] = [
        ("grid", None, _limits(chance, 150), {})
    ]
    deep = {"grid": 1}
    for n in range(chance.randint(0, 14)):
        parent = chance.choice([name for name, depth in deep.items() if depth < 6])
        limit = _limits(chance, 120 / deep[parent])
        watts = chance.uniform(5_000, 60_000) if chance.random() < 0.2 else None
        circuits.append((f"circuit {n}", parent, limit, {"limit_w": watts, "margin_a": chance.choice([0.0, 0.0, 2.0])}))
        deep[f"circuit {n}"] = deep[parent] + 1
    world = of(*circuits)
    sessions: list[Session] = []
    for k in range(chance.randint(1, 25) if cars is None else cars):
        facts: dict[str, Any] = {
            "phases": chance.choice(WIRINGS),
            "max_a": chance.choice([10.0, 16.0, 20.0, 32.0, 63.0]),
            "min_a": chance.choice([6.0, 6.0, 6.0, 8.0]),
            "step_a": chance.choice([0.1, 0.1, 1.0]),
            "priority": chance.choice([0, 1, 1, 2, 3]),
            "dc": chance.random() < 0.1,
            "arrived_at": ago(chance.uniform(0, 20_000)),
        }
        sessions.append(Session(f"car {k:03}", chance.randrange(len(world.grid)), **{**facts, **each}))
    if len(sessions) > 3 and chance.random() < 0.5:
        sessions[1] = replace(sessions[1], node=sessions[0].node, group=1, group_max_a=32.0)
        sessions[0] = replace(sessions[0], group=1, group_max_a=32.0)
    return world.but(sessions=tuple(sessions))


def lived_in(seed: int) -> World:
    """A random site in the middle of its day: limits accepted, leases running out, stations lost, meters silent."""
    chance = random.Random(seed * 7919 + 1)
    world = random_site(seed)
    sessions = []
    for s in world.sessions:
        offered = chance.choice([None, 0.0, s.min_a, 10.0, s.max_a])
        drawn = None if chance.random() < 0.2 else tuple(chance.uniform(0, offered or 0.0) * p for p in s.phases)
        departure = ahead(chance.uniform(-600, 20_000)) if chance.random() < 0.5 else None
        sessions.append(
            replace(
                s,
                offered_a=offered,
                offered_since=None if offered is None else ago(chance.choice([1, 20, 100, 1000])),
                offered_before_a=chance.choice([None, 0.0, 16.0]),
                lease_until=chance.choice([None, ago(100), ago(3), ahead(300)]),
                fail_safe_a=chance.choice([0.0, 6.0, 6.0, 10.0]),
                reachable=chance.random() < 0.85,
                wants=chance.random() < 0.8,
                measured_a=drawn,
                measured_at=ago(chance.choice([1, 30, 200])),
                mode=chance.choice([Mode.PLAN, Mode.PLAN, Mode.FAST, Mode.SURPLUS]),
                planned_w=chance.choice([None, 0.0, 500.0, 3_000.0, 9_000.0]),
                departure=departure,
                energy_needed_wh=chance.choice([None, 0.0, 5_000.0, 40_000.0]),
                on_since=ago(chance.choice([10, 1000])) if offered else None,
                off_since=ago(chance.choice([10, 1000])) if offered == 0 else None,
            )
        )
    readings: dict[int, NodeReading] = {}
    circuits = []
    for n, circuit in enumerate(world.grid.circuits):
        metered = chance.random() < 0.5
        fallback = chance.choice([None, 12.0, 30.0])
        circuits.append(replace(circuit, metered=metered, fallback_a=fallback))
        if metered and chance.random() < 0.8:
            drawn_below = [0.0, 0.0, 0.0]
            for s in sessions:
                if s.measured_a and n in world.grid.path(s.node):
                    drawn_below = [a + b for a, b in zip(drawn_below, s.measured_a, strict=True)]
            other = chance.choice([-20.0, 0.0, 5.0, 30.0])
            a, b, c = (d + other * chance.uniform(0.8, 1.2) for d in drawn_below)
            readings[n] = NodeReading((a, b, c))
    return world.but(
        grid=Grid(tuple(circuits)), sessions=tuple(sessions), readings=readings, plan_valid=chance.random() < 0.6
    )


def _limits(chance: random.Random, up_to: float) -> Phases:
    if chance.random() < 0.7:
        return every_phase(round(chance.uniform(6, up_to), 1))
    a, b, c = (round(chance.uniform(6, up_to), 1) for _ in range(3))
    return a, b, c


def below(world: Snapshot, node: int) -> list[Session]:
    return [s for s in world.sessions if node in world.grid.path(s.node)]


def phases_of(session: Session) -> tuple[bool, bool, bool]:
    return THREE if session.dc else session.phases


def sum_at(world: Snapshot, answer: Allocation, name: str) -> Phases:
    """What the cars below a circuit are told to take together."""
    totals = [0.0, 0.0, 0.0]
    for s in below(world, world.grid.index(name)):
        for f, on in enumerate(phases_of(s)):
            totals[f] += answer.shares[s.key].limit_a * on
    a, b, c = (round(t, 6) for t in totals)
    return a, b, c


def share(answer: Allocation, key: str) -> Share:
    return answer.shares[key]


__all__ = ["NOON", "World", "five_levels", "lived_in", "mixed_phases", "one_board", "random_site", "two_rows"]

"""When something is missing: the safe currents that need no meter, no plan and no clever allocator.

Pure, and on purpose independent of `allocate`: plain arithmetic, so that one mistake cannot be in both. It is used
when a snapshot cannot be allocated at all, and at commissioning to see whether the fail-safes stored in the stations
fit under every circuit by themselves, which is what holds when nobody is left to say anything.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from smartcharging.engine.grid import NOMINAL_V, Grid, Phases, loaded, power_weight
from smartcharging.engine.limits import PHASES, Rank, reason_of
from smartcharging.engine.snapshot import Allocation, Session, Share, Snapshot

REASON = "fail-safe"


@dataclass(frozen=True, slots=True)
class Gap:
    """A circuit that the fail-safes below it and its worst other load would overload."""

    circuit: str
    phase: str
    limit_a: float
    fail_safe_a: float
    other_a: float

    @property
    def over_a(self) -> float:
        return self.fail_safe_a + self.other_a - self.limit_a


def safe_allocation(snapshot: Snapshot) -> Allocation:
    """Everybody at his fail-safe, most important class first, as far as it fits; else 0. Batteries rest.

    Below every metered circuit they fit in its `fallback_a` together; without one, and wherever there is no meter,
    in the limit less the known load, all below it included. A load that is not known is the worst that was commissioned
    for it; where none was, nobody has more than his fail-safe anyway. What meters say is not asked.

    A narrowing in force holds here too; one at a place that is not known holds for the whole site, because a fire
    somewhere unknown may be anywhere.
    """
    room = _rooms(snapshot)
    reasons = _narrow(snapshot, room)
    shares: dict[str, Share] = {}
    for session in sorted(snapshot.sessions, key=lambda s: (-s.priority, s.key)):
        shares[session.key] = _safe_share(session, snapshot.grid, room, reasons)
    return Allocation(
        shares=shares,
        battery_w={b.key: 0.0 for b in snapshot.batteries},
        headroom_a={n: (a, b, c) for n, (a, b, c) in enumerate(room)},
        node_reason={n: reasons.get(n, REASON) for n in range(len(snapshot.grid))},
    )


def _rooms(snapshot: Snapshot) -> list[list[float]]:
    """What each circuit has for the EVSEs below it, per phase."""
    grid = snapshot.grid
    safe = _fail_safes(grid, snapshot.sessions)
    below = [[0.0, 0.0, 0.0] for _ in grid.circuits]  # the load that is not ours at the circuits below each
    rooms: list[list[float]] = [[] for _ in grid.circuits]
    for n in range(len(grid) - 1, -1, -1):  # children stand behind their parents
        circuit = grid.circuits[n]
        margin = max(circuit.margin_a, 0.0)
        limit = [_positive(a - margin) for a in circuit.limit_a]
        known = _numbers(snapshot.background_a.get(n))
        worst = _numbers(circuit.worst_a)
        unknown = known is None and (circuit.metered or n in snapshot.background_a)
        if circuit.metered and circuit.fallback_a is not None:
            # Commissioned with the worst load taken off; a load that is known to be more than that counts all the same.
            meant = _positive(circuit.fallback_a)
            load = [max(a - meant, k, 0.0) for a, k in zip(limit, known or (0.0, 0.0, 0.0), strict=True)]
        else:
            own = known or worst or (0.0, 0.0, 0.0)
            spared = margin if unknown and worst is not None else 0.0
            load = [b + max(o, 0.0) + spared for b, o in zip(below[n], own, strict=True)]
        rooms[n] = [_positive(a - taken) for a, taken in zip(limit, load, strict=True)]
        if circuit.limit_w is not None:
            rooms[n] = [min(r, _positive(circuit.limit_w / _watts_per_a(grid))) for r in rooms[n]]
        if unknown and worst is None:  # nobody takes more than his fail-safe; above, the rest of the limit may be used
            load = [max(taken, a - s) for taken, a, s in zip(load, limit, safe[n], strict=True)]
        if circuit.parent is not None:
            below[circuit.parent] = [b + taken for b, taken in zip(below[circuit.parent], load, strict=True)]
    return rooms


def _fail_safes(grid: Grid, sessions: tuple[Session, ...]) -> list[list[float]]:
    """What the fail-safes below each circuit add up to, per phase."""
    safe = [[0.0, 0.0, 0.0] for _ in grid.circuits]
    for session in sessions:
        phases = _lines(session, grid)
        for n in grid.path(session.node) if 0 <= session.node < len(grid) else ():
            for f, p in enumerate(phases):
                safe[n][f] += _positive(session.fail_safe_a) * p
    return safe


def _numbers(amps: Phases | None) -> Phases | None:
    """Unknown as soon as one of them is no number."""
    return amps if amps is not None and all(math.isfinite(a) for a in amps) else None


def _positive(amps: float) -> float:
    """Nothing where it is below zero or no number."""
    return amps if amps > 0 else 0.0


def _watts_per_a(grid: Grid) -> float:
    """Of the same current on all three lines."""
    return power_weight(3, grid.supply) * NOMINAL_V


def _lines(session: Session, grid: Grid) -> tuple[bool, bool, bool]:
    """What a session loads: all three, unless it is known better."""
    return (True, True, True) if session.dc or not any(session.phases) else loaded(session.phases, grid.supply)


def _narrow(snapshot: Snapshot, room: list[list[float]]) -> dict[int, str]:
    reasons: dict[int, str] = {}
    for narrowing in sorted(snapshot.narrowings, key=lambda n: -n.rank):
        if narrowing.session is not None:
            continue
        node = narrowing.node if narrowing.node is not None and 0 <= narrowing.node < len(room) else 0
        amps = [
            narrowing.limit_a,
            None if narrowing.limit_w is None else narrowing.limit_w / _watts_per_a(snapshot.grid),
        ]
        least = min((0.0 if math.isnan(a) else max(a, 0.0) for a in amps if a is not None), default=math.inf)
        if any(least < r for r in room[node]) or narrowing.rank <= Rank.EMERGENCY_STOP:
            reasons[node] = reason_of(narrowing)
        room[node] = [min(r, least) for r in room[node]]
    return reasons


def _safe_share(session: Session, grid: Grid, room: list[list[float]], reasons: dict[int, str]) -> Share:
    phases = _lines(session, grid)
    told = min(_positive(session.fail_safe_a), _positive(session.max_a))
    step_a = session.step_a if math.isfinite(session.step_a) and session.step_a > 0 else 0.1
    amps = round(math.floor(told / step_a + 1e-6) * step_a, 6) if math.isfinite(told) else 0.0
    path = list(grid.path(session.node)) if 0 <= session.node < len(grid) else list(range(len(grid)))
    full = [n for n in path if any(p and room[n][f] < amps - 1e-9 for f, p in enumerate(phases))]
    reason = REASON
    if full:
        reason = next((reasons[n] for n in full if n in reasons), REASON)
    if full or amps < session.min_a - 1e-9:
        amps = 0.0
    for n in path:
        for f, p in enumerate(phases):
            room[n][f] -= amps * p
    # The want replaces what the station has now: below it, at once.
    lowers = session.offered_a is None or session.offered_a > amps
    return Share(
        session.key, amps, math.floor(amps * _watts_per_a(grid) + 1e-6) if session.dc else None, reason, lowers
    )


def commissioning_gaps(grid: Grid, sessions: tuple[Session, ...], worst_a: Mapping[int, Phases]) -> list[Gap]:
    """The circuits that hold only as long as somebody steers: their fail-safes do not fit beside the worst other load.

    `worst_a` is the highest other load per circuit, all that is below it included. An empty list means that cloud,
    site controller and network may all be gone, and no fuse blows.
    """
    safe = _fail_safes(grid, sessions)
    gaps: list[Gap] = []
    for n, circuit in enumerate(grid.circuits):
        for f, phase in enumerate(PHASES):
            other = worst_a.get(n, (0.0, 0.0, 0.0))[f]
            if safe[n][f] > 0 and safe[n][f] + other > circuit.limit_a[f] + 1e-9:
                gaps.append(Gap(circuit.name, phase, circuit.limit_a[f], safe[n][f], other))
    return gaps

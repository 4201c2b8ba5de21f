"""When something is missing: the safe currents that need no meter, no plan and no clever allocator.

Pure, and on purpose independent of `allocate`: plain arithmetic, so that one mistake cannot be in both. It is used
when a snapshot cannot be allocated at all, and at commissioning to see whether the fail-safes stored in the stations
fit under every circuit by themselves, which is what holds when nobody is left to say anything.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from smartcharging.engine.grid import NOMINAL_V, Circuit, Grid, Phases, loaded, power_weight
from smartcharging.engine.limits import PHASES, Rank, reason_of
from smartcharging.engine.rules import DEFAULT as RULES
from smartcharging.engine.snapshot import Allocation, Narrowing, Session, Share, Snapshot

REASON = "fail-safe"
NOTHING: Phases = (0.0, 0.0, 0.0)
W = 3  # after L1, L2, L3: all together, in amps of 230 V
ON_PHASE_A = 1.0  # a current above this proves that the car uses a phase


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

    What a station may take whatever it is told (out of reach, isolated, not following) is taken off first.

    A narrowing in force holds here too; one at a place that is not known holds for the whole site, because a fire
    somewhere unknown may be anywhere.
    """
    grid = snapshot.grid
    limits, reasons = _limits(snapshot)
    room = _rooms(snapshot, limits)
    holds = {s.key: _takes_anyway(s, grid, snapshot.now) for s in snapshot.sessions}
    for session in snapshot.sessions:
        for n in _path(session, grid):
            room[n] = [r - taken for r, taken in zip(room[n], holds[session.key], strict=True)]
    shares: dict[str, Share] = {}
    for session in sorted(snapshot.sessions, key=lambda s: (-s.priority, s.key)):
        orders = [n for n in snapshot.narrowings if n.session == session.key]
        shares[session.key] = _safe_share(session, grid, orders, holds[session.key], room, reasons)
    three = power_weight(3, grid.supply)
    return Allocation(
        shares=shares,
        battery_w={b.key: 0.0 for b in snapshot.batteries},
        headroom_a={
            n: (min(r[0], r[W] / three), min(r[1], r[W] / three), min(r[2], r[W] / three)) for n, r in enumerate(room)
        },
        node_reason={n: reasons.get(n, REASON) for n in range(len(grid))},
    )


def _limits(snapshot: Snapshot) -> tuple[list[list[float]], dict[int, str]]:
    """What each circuit may carry on L1, L2, L3 and in all [amps of 230 V], and whose order that is."""
    limits = []
    for circuit in snapshot.grid.circuits:
        in_all = math.inf if circuit.limit_w is None else circuit.limit_w / NOMINAL_V
        limits.append([_positive(a) for a in (*circuit.limit_a, in_all)])
    reasons: dict[int, str] = {}
    for order in sorted(snapshot.narrowings, key=lambda n: -n.rank):  # the foremost has the last word
        if order.session is not None:
            continue
        node = order.node if order.node is not None and 0 <= order.node < len(limits) else 0
        per_phase = math.inf if order.limit_a is None else _positive(order.limit_a)
        in_all = math.inf if order.limit_w is None else _positive(order.limit_w) / NOMINAL_V
        ordered = [per_phase, per_phase, per_phase, in_all]
        narrowed = [min(limit, least) for limit, least in zip(limits[node], ordered, strict=True)]
        if narrowed != limits[node] or order.rank <= Rank.EMERGENCY_STOP:
            reasons[node] = reason_of(order)
        limits[node] = narrowed
    return limits, reasons


def _rooms(snapshot: Snapshot, limits: list[list[float]]) -> list[list[float]]:
    """What each circuit has for the EVSEs below it: on L1, L2, L3, in all, and unevenly on L1, L2, L3."""
    grid = snapshot.grid
    three = power_weight(3, grid.supply)
    safe = _fail_safes(grid, snapshot.sessions)
    below = [[0.0, 0.0, 0.0] for _ in grid.circuits]  # the load that is not ours at the circuits below each
    known_below = [[0.0, 0.0, 0.0] for _ in grid.circuits]  # … without what is only left to silent meters
    rooms: list[list[float]] = [[] for _ in grid.circuits]
    for n in range(len(grid) - 1, -1, -1):  # children stand behind their parents
        circuit = grid.circuits[n]
        margin = max(circuit.margin_a, 0.0)
        told, worst = _numbers(snapshot.background_a.get(n)), _numbers(circuit.worst_a)
        unknown = told is None and (circuit.metered or n in snapshot.background_a)
        fallback_a = circuit.fallback_a if circuit.metered else None
        own = told or (worst if fallback_a is None else None) or NOTHING
        known = _sums(known_below[n], own)
        if fallback_a is None:
            meant = math.inf
            spared = margin if unknown and worst is not None else 0.0
            load = taken = [a + spared for a in _sums(below[n], own)]
        else:
            # Commissioned with the worst load taken off; a load that is known to be more than that counts all the same.
            meant, taken = _positive(fallback_a), known
            load = [max(_positive(a - margin) - meant, k) for a, k in zip(circuit.limit_a, known, strict=True)]
        rooms[n] = [min(_positive(a - margin - t), meant) for a, t in zip(limits[n][:W], taken, strict=True)]
        rooms[n].append(min(_positive(limits[n][W] - sum(taken) * three / 3), meant * three))
        rooms[n] += _uneven_room(circuit, known)
        if unknown and worst is None:  # nobody takes more than his fail-safe; above, the rest of the limit may be used
            rest = [_positive(a - margin) - s for a, s in zip(circuit.limit_a, safe[n], strict=True)]
            load = [max(a, r) for a, r in zip(load, rest, strict=True)]
        if circuit.parent is not None:
            below[circuit.parent] = _sums(below[circuit.parent], load)
            known_below[circuit.parent] = _sums(known_below[circuit.parent], known)
    return rooms


def _sums(amps: list[float], more: Phases | list[float]) -> list[float]:
    """Phase by phase. What is fed in is not counted on."""
    return [a + max(b, 0.0) for a, b in zip(amps, more, strict=True)]


def _uneven_room(circuit: Circuit, load: list[float]) -> list[float]:
    """How much each phase may carry above the lowest of the others, less what it does. Nobody else counts for the
    others: a car there may stop."""
    if circuit.imbalance_a is None:
        return [math.inf] * 3
    return [
        _positive(_positive(circuit.imbalance_a) + min(load[:f] + load[f + 1 :]) - load[f]) for f in range(len(load))
    ]


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


def _path(session: Session, grid: Grid) -> list[int]:
    """The circuits above a session; all of them when its place is not known."""
    return list(grid.path(session.node)) if 0 <= session.node < len(grid) else list(range(len(grid)))


def _loads(amps: list[float], grid: Grid) -> list[float]:
    """Amps on L1, L2, L3 as they fill a circuit: on each, in all, and unevenly on each."""
    lines = sum(a > 0 for a in amps)
    in_all = sum(amps) * power_weight(lines, grid.supply) / max(lines, 1)
    return [*amps, in_all, *(amps if lines < 3 else NOTHING)]


def _takes_anyway(session: Session, grid: Grid, now: datetime) -> list[float]:
    """What a station may be taking whatever it is told now; nothing where it can be told and follows.

    Out of reach it goes on with its last limit until the lease ends, then with its fail-safe; for a few seconds after a
    change with the limit before. One that was seen above its limit takes what it was seen to take.
    """
    measured = _numbers(session.measured_a) or NOTHING
    age_s = _seconds(session.measured_at, now, 0.0)
    changed_s = _seconds(session.offered_since, now, math.inf)
    offered_a = math.nan if session.offered_a is None else session.offered_a
    ignores = max(measured) > offered_a + RULES.ignore_a and changed_s - age_s >= RULES.follow_s
    if session.reachable and session.isolated_a is None and not ignores:
        return _loads(list(NOTHING), grid)
    stands_by = [session.fail_safe_a, session.isolated_a or 0.0]
    if session.reachable or _seconds(session.lease_until, now, -math.inf) < RULES.follow_s:
        stands_by.append(offered_a)
    if changed_s < RULES.follow_s:
        stands_by.append(session.offered_before_a or 0.0)
    held_a = max(_positive(a) for a in stands_by)
    seen = measured if ignores or age_s <= RULES.ev_max_age_s else NOTHING
    uses = [on or a > ON_PHASE_A for on, a in zip(_lines(session, grid), seen, strict=True)]
    return _loads([max(held_a if on else 0.0, a) for on, a in zip(uses, seen, strict=True)], grid)


def _seconds(since: datetime | None, now: datetime, otherwise: float) -> float:
    return otherwise if since is None else (now - since).total_seconds()


def _safe_share(
    session: Session,
    grid: Grid,
    orders: list[Narrowing],
    held: list[float],
    room: list[list[float]],
    reasons: dict[int, str],
) -> Share:
    """`held` is what is already taken off the room for it."""
    lines = _lines(session, grid)
    most_a, reason = _most_a(session, orders, power_weight(sum(lines), grid.supply) * NOMINAL_V)
    step_a = session.step_a if math.isfinite(session.step_a) and session.step_a > 0 else 0.1
    amps = round(math.floor(most_a / step_a + 1e-6) * step_a, 6) if math.isfinite(most_a) else 0.0
    uses = _loads([float(on) for on in lines], grid)
    needs = [max(amps * use - taken, 0.0) if use else 0.0 for use, taken in zip(uses, held, strict=True)]
    path = _path(session, grid)
    # What is no number is no room.
    full = [
        n for n in path if any(use and not r >= need - 1e-9 for r, need, use in zip(room[n], needs, uses, strict=True))
    ]
    if full:
        reason = next((reasons[n] for n in full if n in reasons), reason)
    if full or amps < session.min_a - 1e-9:
        amps = 0.0
    else:
        for n in path:
            room[n] = [r - need for r, need in zip(room[n], needs, strict=True)]
    # The want replaces what the station has now: below it, at once.
    lowers = session.offered_a is None or session.offered_a > amps
    return Share(
        session.key, amps, math.floor(amps * _watts_per_a(grid) + 1e-6) if session.dc else None, reason, lowers
    )


def _most_a(session: Session, orders: list[Narrowing], watts_per_a: float) -> tuple[float, str]:
    """The most a session may have for its own sake, and whose word that is."""
    most_a, reason = min(_positive(session.fail_safe_a), _positive(session.max_a)), REASON
    for order in sorted(orders, key=lambda n: n.rank):
        per_phase = math.inf if order.limit_a is None else _positive(order.limit_a)
        in_all = math.inf if order.limit_w is None else _positive(order.limit_w) / watts_per_a
        if min(per_phase, in_all) < most_a:
            most_a, reason = min(per_phase, in_all), reason_of(order)
    return most_a, reason


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

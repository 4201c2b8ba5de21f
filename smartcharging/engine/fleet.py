"""The sessions of a snapshot as columns of numbers, each hung on its leaf of the tree.

Pure. What a car *may be drawing* and what we *want it to draw* are two different things, and the fuse feels only the
first. `hold` is the most each car may be taking right now, whatever we say in this cycle:

- a reachable EVSE: the limit it last accepted, or its fail-safe when that is not known or its lease has run out; and
  for a few seconds after a change the limit before it, because the car is still on its way;
- an unreachable one: the higher of its last limit and its fail-safe until the lease ends, then its fail-safe;
- every one: what it is measured to take, when that is more; and one that was seen not to follow its limit and has
  been silent since, what it was seen to take.

An EVSE with nothing plugged in counts the same: it may start by itself at what it was last told. That is why free
EVSEs are told a standby of 0 where their fail-safe does not fit beside the cars.

EVSEs of one station that share a maximum hang on a small node of their own below their circuit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np
from numpy.typing import NDArray

from smartcharging.engine.grid import NOMINAL_V
from smartcharging.engine.limits import NO_BOUND, SUM, Limits
from smartcharging.engine.priorities import just_paused, just_started, laxity_s, max_a, urgency, weight
from smartcharging.engine.rules import Rules
from smartcharging.engine.snapshot import Mode, Session, Snapshot
from smartcharging.engine.tree import Floats, Tree

Flags = NDArray[np.bool_]
ON_PHASE_A = 1.0  # a current above this proves that the car uses a phase
STATION_MAXIMUM = "station maximum"


@dataclass(frozen=True)
class Fleet:
    """One row per session, sorted by leaf and key. Amps per phase at the AC input."""

    sessions: tuple[Session, ...]
    tree: Tree
    circuits: int  # tree nodes from here on are stations with a shared maximum
    shared_a: Floats  # that maximum, per such station
    node: NDArray[np.intp]
    uses: Floats  # what one amp takes of L1, L2, L3 and their sum
    wants: Flags
    reachable: Flags
    min_a: Floats
    cap_a: Floats  # the most it may have for reasons of its own …
    cap_reason: list[str]  # … and whose they are
    step_a: Floats
    fail_safe_a: Floats
    offered_a: Floats  # NaN: not known
    level_a: Floats  # the limit its EVSE stands by
    hold: Floats  # the most it may draw: L1, L2, L3, sum
    drawn: Floats  # what is measured, zero where unknown: L1, L2, L3, sum
    drawn_a: Floats  # the highest phase of it; NaN: not known
    risen: Floats  # what it probably takes by now, if its limit rose since it was measured: L1, L2, L3, sum
    ignores: Flags  # draws more than it was allowed, for longer than a car takes to follow
    changed_s: Floats  # since the limit last changed
    weight: Floats
    must: Flags
    fresh_start: Flags  # on for less than the minimum time
    fresh_pause: Flags
    fast: Flags
    surplus: Flags
    planned_a: Floats  # NaN: no valid plan
    order: NDArray[np.intp]  # most urgent first

    def __len__(self) -> int:
        return len(self.sessions)

    def load(self, limit_a: Floats) -> Floats:
        """What each node's cars may draw when these are the limits: nobody falls below what is held of him yet."""
        return self.tree.sums(np.maximum(self.hold, limit_a[:, None] * self.uses))

    @classmethod
    def of(cls, snapshot: Snapshot, limits: Limits, rules: Rules) -> Fleet:
        now = snapshot.now
        parents, leaf_of, shared = _leaves(snapshot)
        listed = sorted(range(len(snapshot.sessions)), key=lambda i: (leaf_of[i], snapshot.sessions[i].key))
        sessions = tuple(snapshot.sessions[i] for i in listed)
        at = np.array([leaf_of[i] for i in listed], dtype=np.intp)

        measured = np.array([_measured(s, now, rules) for s in sessions], dtype=float).reshape(len(sessions), 3)
        known = ~np.isnan(measured).any(axis=1)
        drawn = np.zeros((len(sessions), 4))
        drawn[:, :SUM] = np.where(known[:, None], np.maximum(measured, 0.0), 0.0)
        drawn[:, SUM] = drawn[:, :SUM].sum(axis=1)
        drawn_a = np.where(known, drawn[:, :SUM].max(axis=1, initial=0.0), np.nan)

        phases = np.array([_phases(s) for s in sessions], dtype=bool).reshape(len(sessions), 3)
        phases |= drawn[:, :SUM] > ON_PHASE_A
        uses = np.zeros((len(sessions), 4))
        uses[:, :SUM] = phases
        uses[:, SUM] = phases.sum(axis=1)

        column = _columns(sessions)
        offered = column("offered_a")
        changed_s = np.array([_seconds_since(s.offered_since, now) for s in sessions])
        level = np.array([stands_at_a(s, now, rules) for s in sessions])
        held = np.array([held_a(s, now, rules) for s in sessions])
        hold = np.maximum(held[:, None] * uses, drawn)
        for i, s in enumerate(sessions):
            if not s.reachable and not known[i] and _was_defiant(s, rules):
                hold[i, :SUM] = np.maximum(hold[i, :SUM], s.measured_a)
        hold[:, SUM] = hold[:, :SUM].sum(axis=1)
        patience = np.array([rules.ignore_dc_s if s.dc else rules.ignore_s for s in sessions])
        reachable = np.array([s.reachable for s in sessions], dtype=bool)
        with np.errstate(invalid="ignore"):
            ignores = reachable & (changed_s > patience) & (drawn_a > offered + rules.ignore_a)

        unsure = np.array([_unsure(s, now, rules) for s in sessions], dtype=bool) & known
        risen = np.where(unsure[:, None], np.maximum(drawn, np.nan_to_num(offered)[:, None] * uses), drawn)
        risen[:, SUM] = risen[:, :SUM].sum(axis=1)

        cap, cap_reason = _caps(sessions, limits)
        laxity = [laxity_s(s, now) for s in sessions]
        wants = np.array([s.wants for s in sessions], dtype=bool)
        planned = np.array(
            [np.nan if not snapshot.plan_valid or s.planned_w is None else max(s.planned_w, 0.0) for s in sessions]
        )
        order = sorted(range(len(sessions)), key=lambda i: urgency(sessions[i], now, rules))
        return cls(
            sessions=sessions,
            tree=Tree(parents, at),
            circuits=len(snapshot.grid),
            shared_a=np.array(shared),
            node=np.array([s.node for s in sessions], dtype=np.intp),
            uses=uses,
            wants=wants,
            reachable=reachable,
            min_a=np.maximum(column("min_a"), 0.0),
            cap_a=cap,
            cap_reason=cap_reason,
            step_a=np.maximum(column("step_a"), 1e-3),
            fail_safe_a=column("fail_safe_a"),
            offered_a=offered,
            level_a=level,
            hold=hold,
            drawn=drawn,
            drawn_a=drawn_a,
            risen=risen,
            ignores=ignores,
            changed_s=changed_s,
            weight=np.array([weight(s) for s in sessions], dtype=float),
            must=wants & (np.array(laxity, dtype=float) <= rules.must_within_s),
            fresh_start=np.array([just_started(s, now, rules) for s in sessions], dtype=bool),
            fresh_pause=np.array([just_paused(s, now, rules) for s in sessions], dtype=bool),
            fast=np.array([s.mode is Mode.FAST for s in sessions], dtype=bool),
            surplus=np.array([s.mode is Mode.SURPLUS for s in sessions], dtype=bool),
            planned_a=planned / (np.maximum(uses[:, SUM], 1.0) * NOMINAL_V),
            order=np.array(order, dtype=np.intp),
        )


def held_a(session: Session, now: datetime, rules: Rules) -> float:
    """The most the car may be drawing by what its EVSE was told, now or a moment ago; see the module's text."""
    level, before = stands_at_a(session, now, rules), session.offered_before_a
    moving = session.offered_since is not None and (now - session.offered_since).total_seconds() < rules.follow_s
    return level if before is None or not moving else max(level, before)


def stands_at_a(session: Session, now: datetime, rules: Rules) -> float:
    """The limit the EVSE stands by at this moment, per phase, as far as it can be known."""
    offered, safe = session.offered_a, session.fail_safe_a
    if offered is None:
        return safe
    ended_s = None if session.lease_until is None else (now - session.lease_until).total_seconds()
    if not session.reachable:
        return safe if ended_s is not None and ended_s >= rules.follow_s else max(offered, safe)
    return max(offered, safe) if ended_s is not None and ended_s >= 0 else offered


def _leaves(snapshot: Snapshot) -> tuple[list[int], list[int], list[float]]:
    """Parents of all tree nodes, the leaf of each session, and the shared maximum of each station node."""
    parents = [-1 if c.parent is None else c.parent for c in snapshot.grid.circuits]
    members: dict[tuple[int, int], int] = {}
    sizes: dict[int, int] = {}
    maxima: dict[int, float] = {}
    for s in snapshot.sessions:
        if not 0 <= s.node < len(snapshot.grid):
            raise IndexError(f"session {s.key!r}: there is no node {s.node}")
        if s.group is not None and s.group_max_a is not None:
            members[s.group, s.node] = members.get((s.group, s.node), 0) + 1
            sizes[s.group] = sizes.get(s.group, 0) + 1
            maxima[s.group] = min(maxima.get(s.group, np.inf), s.group_max_a)
    index: dict[tuple[int, int], int] = {}
    shared: list[float] = []
    for group, node in sorted(members):
        index[group, node] = len(parents)
        parents.append(node)
        # A station fed from two circuits is no tree; each circuit then gets its EVSEs' part of the maximum.
        shared.append(max(maxima[group], 0.0) * members[group, node] / sizes[group])
    leaf_of = [
        s.node if s.group is None or s.group_max_a is None else index[s.group, s.node] for s in snapshot.sessions
    ]
    return parents, leaf_of, shared


def _columns(sessions: Sequence[Session]):  # type: ignore[no-untyped-def]
    def column(name: str) -> Floats:
        values = [getattr(s, name) for s in sessions]
        return np.array([np.nan if v is None else v for v in values], dtype=float)

    return column


def _caps(sessions: Sequence[Session], limits: Limits) -> tuple[Floats, list[str]]:
    """The most each may have for its own sake: station and car, or what somebody put on this very EVSE."""
    caps, reasons = np.zeros(len(sessions)), []
    for i, s in enumerate(sessions):
        cap, reason = max_a(s), STATION_MAXIMUM
        if s.key in limits.sessions:
            by_amps, by_watts = limits.sessions.get(s.key, (NO_BOUND, NO_BOUND))
            phases = max(sum(_phases(s)), 1)
            for bound, amps in ((by_amps, by_amps.value), (by_watts, by_watts.value / (phases * NOMINAL_V))):
                if amps < cap:
                    cap, reason = amps, bound.reason
        caps[i] = max(cap, 0.0)
        reasons.append(reason)
    return caps, reasons


def _phases(session: Session) -> tuple[bool, bool, bool]:
    """DC loads all three. A car of which no phase is known may use any."""
    return (True, True, True) if session.dc or not any(session.phases) else session.phases


def _measured(session: Session, now: datetime, rules: Rules) -> tuple[float, float, float]:
    unknown = (np.nan, np.nan, np.nan)
    if session.measured_a is None:
        return unknown
    age_limit_s = rules.ev_max_age_s if session.reachable else rules.lost_max_age_s
    if session.measured_at is not None and _seconds_since(session.measured_at, now) > age_limit_s:
        return unknown
    return session.measured_a


def _was_defiant(session: Session, rules: Rules) -> bool:
    """The last that was heard of it: drawing more than its limit, longer than a car takes to follow."""
    if session.measured_a is None or session.measured_at is None or session.offered_a is None:
        return False
    patience = rules.ignore_dc_s if session.dc else rules.ignore_s
    seen_after_s = _seconds_since(session.offered_since, session.measured_at)
    return seen_after_s > patience and max(session.measured_a) > session.offered_a + rules.ignore_a


def _unsure(session: Session, now: datetime, rules: Rules) -> bool:
    """Its limit changed a moment ago, and nothing was measured since it had time to follow."""
    if session.offered_since is None or session.measured_at is None:
        return False
    settled_at = session.offered_since + timedelta(seconds=rules.follow_s)
    return session.measured_at < settled_at and _seconds_since(session.offered_since, now) <= rules.unsure_s


def _seconds_since(moment: datetime | None, now: datetime) -> float:
    return np.inf if moment is None else (now - moment).total_seconds()

"""The sessions of a snapshot as columns of numbers, each hung on its leaf of the tree.

Pure. What a car *may be drawing* and what we *want it to draw* are two different things, and the fuse feels only the
first. `hold` is the most each car may be taking right now, whatever we say in this cycle:

- a reachable EVSE: the limit it last accepted, or its fail-safe when that is not known or its lease has run out; and
  for a few seconds after a change the limit before it, because the car is still on its way;
- an unreachable one: the higher of its last limit and its fail-safe until the lease ends, then its fail-safe;
- every one: what it is measured to take, when that is more; and one that was seen not to follow its limit and has
  been silent since, what it was seen to take;
- an isolated one, which follows no limit in whatever way it is told (`csms/obedience.py`): its maximum.

An EVSE with nothing plugged in counts the same: it may start by itself at what it was last told. That is why free
EVSEs are told a standby of 0 where their fail-safe does not fit beside the cars.

EVSEs of one station that share a maximum hang on a small node of their own below their circuit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from smartcharging.engine.grid import NOMINAL_V
from smartcharging.engine.limits import NO_BOUND, SUM, Limits
from smartcharging.engine.priorities import Flags, paused_lately, slack_s, started_lately, weights
from smartcharging.engine.rules import Rules
from smartcharging.engine.snapshot import Mode, Session, Snapshot
from smartcharging.engine.tree import Floats, Tree

_UNKNOWN = (np.nan, np.nan, np.nan)
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
    drawn: Floats  # what is surely taken, zero where unknown: L1, L2, L3, sum
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

    @cached_property
    def kinds(self) -> list[tuple[int, tuple[float, ...]]]:
        """Leaf and use of each car, as plain numbers: cars of one kind load the same places."""
        return list(zip(self.tree.at.tolist(), map(tuple, self.uses.tolist()), strict=True))

    @cached_property
    def ordered(self) -> list[int]:
        return [int(i) for i in self.order]

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
        tree = Tree(parents, at)

        def column(name: str) -> Floats:
            values = [getattr(s, name) for s in sessions]
            return np.array([np.nan if v is None else v for v in values], dtype=float)

        def seconds_since(name: str) -> Floats:
            moments = [getattr(s, name) for s in sessions]
            return np.array([np.nan if m is None else (now - m).total_seconds() for m in moments], dtype=float)

        def flags(name: str) -> Flags:
            return np.array([getattr(s, name) for s in sessions], dtype=bool)

        with np.errstate(invalid="ignore"):
            dc, wants, reachable = flags("dc"), flags("wants"), flags("reachable")
            offered, safe = column("offered_a"), column("fail_safe_a")
            changed_s = np.nan_to_num(seconds_since("offered_since"), nan=np.inf)
            level = stands_at_a(offered, safe, seconds_since("lease_until"), reachable, rules)
            held = held_a(level, column("offered_before_a"), changed_s, rules)

            measured = np.array([s.measured_a or _UNKNOWN for s in sessions], dtype=float).reshape(len(sessions), 3)
            age_s = np.nan_to_num(seconds_since("measured_at"), nan=0.0)
            patience_s = np.where(dc, rules.ignore_dc_s, rules.ignore_s)
            above = measured.max(axis=1, initial=-np.inf) > offered + rules.ignore_a
            defiant = above & (changed_s - age_s > patience_s)  # seen so when it was last heard
            recent = age_s <= np.where(reachable, rules.ev_max_age_s, rules.lost_max_age_s)
            known = ~np.isnan(measured).any(axis=1) & recent

            likely = np.where(known[:, None], np.maximum(measured, 0.0), 0.0)
            drawn_a = np.where(known, likely.max(axis=1, initial=0.0), np.nan)
            # DC is measured at the plug; what the input takes is known only within the converter's losses. What it
            # takes for sure is taken off a meter's reading, what it likely takes is held.
            drawn = np.zeros((len(sessions), 4))
            drawn[:, :SUM] = likely * np.where(dc, 1.0 - rules.dc_doubt, 1.0)[:, None]
            # Whoever was told to take less has by now done so, though his last measurement is from before.
            isolated_a = column("isolated_a")
            isolated = ~np.isnan(isolated_a)
            followed = known & ~isolated & (changed_s >= rules.react_s) & (age_s > changed_s - rules.react_s)
            no_more = np.where(followed & ~np.isnan(offered), offered, np.inf)
            drawn[:, :SUM] = np.minimum(drawn[:, :SUM], no_more[:, None])
            drawn[:, SUM] = drawn[:, :SUM].sum(axis=1)

            uses = np.zeros((len(sessions), 4))
            phases = np.array([_phases(s) for s in sessions], dtype=bool).reshape(len(sessions), 3)
            uses[:, :SUM] = phases | (drawn[:, :SUM] > ON_PHASE_A)
            uses[:, SUM] = uses[:, :SUM].sum(axis=1)

            hold = np.maximum(held[:, None] * uses, np.column_stack((likely, likely.sum(axis=1))))
            still = (~reachable & defiant)[:, None]
            hold[:, :SUM] = np.where(still, np.fmax(hold[:, :SUM], measured), hold[:, :SUM])
            whatever = np.nan_to_num(isolated_a)[:, None] * uses[:, :SUM]
            hold[:, :SUM] = np.maximum(hold[:, :SUM], whatever)
            hold[:, SUM] = hold[:, :SUM].sum(axis=1)
            # A free EVSE may load its copper the moment somebody plugs in. A limit in watts is a mean over a minute or
            # a quarter hour: there it counts when it draws.
            hold[:, SUM] = np.where(reachable & ~wants & (drawn[:, SUM] <= 0), 0.0, hold[:, SUM])
            # Where the meter is over its limit there is no time for patience: who was seen not to have followed by
            # now counts as not following, and the others make up for it.
            pressing = tree.least_above(_over(snapshot, limits, tree.size))[at].min(axis=1, initial=0.0) < 0
            seen_after_s = changed_s - age_s
            ignores = reachable & known & above & (seen_after_s >= np.where(pressing, rules.follow_s, patience_s))
            ignores |= reachable & isolated

            unsure = known & (age_s > changed_s - rules.follow_s) & (changed_s <= rules.unsure_s)
            risen = np.where(unsure[:, None], np.maximum(drawn, np.nan_to_num(offered)[:, None] * uses), drawn)
            risen[:, SUM] = risen[:, :SUM].sum(axis=1)

            station = np.fmin(column("max_a"), column("max_w") / (np.maximum(uses[:, SUM], 1.0) * NOMINAL_V))
            here_s = seconds_since("arrived_at")
            left_s = -seconds_since("departure")
            slack = slack_s(left_s, column("energy_needed_wh"), station * uses[:, SUM] * NOMINAL_V)
            must = wants & (slack <= rules.must_within_s)
            fresh_start = started_lately(offered, seconds_since("on_since"), rules)
            fresh_pause = paused_lately(offered, seconds_since("off_since"), here_s, rules)
        cap, cap_reason = _caps(sessions, station, uses[:, SUM], limits)
        planned = column("planned_w") if snapshot.plan_valid else np.full(len(sessions), np.nan)
        by_key = np.empty(len(sessions))
        by_key[sorted(range(len(sessions)), key=lambda i: sessions[i].key)] = np.arange(len(sessions))
        priority = column("priority")
        # As `priorities.urgency` has it; the last key sorts first.
        came = np.nan_to_num(-here_s, nan=np.inf)
        order = np.lexsort((by_key, came, slack, ~fresh_start, ~must, -priority))
        return cls(
            sessions=sessions,
            tree=tree,
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
            fail_safe_a=safe,
            offered_a=offered,
            level_a=level,
            hold=hold,
            drawn=drawn,
            drawn_a=drawn_a,
            risen=risen,
            ignores=ignores,
            changed_s=changed_s,
            weight=weights(priority),
            must=must,
            fresh_start=fresh_start,
            fresh_pause=fresh_pause,
            fast=np.array([s.mode is Mode.FAST for s in sessions], dtype=bool),
            surplus=np.array([s.mode is Mode.SURPLUS for s in sessions], dtype=bool),
            planned_a=np.maximum(planned, 0.0) / (np.maximum(uses[:, SUM], 1.0) * NOMINAL_V),
            order=order,
        )


def stands_at_a(offered_a: Floats, fail_safe_a: Floats, ended_s: Floats, reachable: Flags, rules: Rules) -> Floats:
    """The limit each EVSE stands by at this moment, per phase, as far as it can be known.

    `offered_a` NaN: not known. `ended_s`: seconds since the lease ended, negative while it runs, NaN without one.
    """
    either = np.maximum(offered_a, fail_safe_a)
    surely_over = ended_s >= rules.follow_s
    here = np.where(ended_s >= 0, either, offered_a)
    away = np.where(surely_over, fail_safe_a, either)
    return np.where(np.isnan(offered_a), fail_safe_a, np.where(reachable, here, away))


def held_a(level_a: Floats, before_a: Floats, changed_s: Floats, rules: Rules) -> Floats:
    """The most each car may be drawing by what its EVSE was told, now or a moment ago; see the module's text."""
    return np.where(changed_s < rules.follow_s, np.fmax(level_a, before_a), level_a)


def _leaves(snapshot: Snapshot) -> tuple[list[int], list[int], list[float]]:
    """Parents of all tree nodes, the leaf of each session, and the shared maximum of each station node."""
    parents = [-1 if c.parent is None else c.parent for c in snapshot.grid.circuits]
    members: dict[tuple[int, int], int] = {}
    sizes: dict[int, int] = {}
    maxima: dict[int, float] = {}
    leaf_of = [s.node for s in snapshot.sessions]
    for s in snapshot.sessions:
        if not 0 <= s.node < len(parents):
            raise IndexError(f"session {s.key!r}: there is no node {s.node}")
    grouped = [(i, s) for i, s in enumerate(snapshot.sessions) if s.group is not None and s.group_max_a is not None]
    for _, s in grouped:
        group, maximum = s.group or 0, s.group_max_a or 0.0
        members[group, s.node] = members.get((group, s.node), 0) + 1
        sizes[group] = sizes.get(group, 0) + 1
        maxima[group] = min(maxima.get(group, np.inf), maximum)
    index: dict[tuple[int, int], int] = {}
    shared: list[float] = []
    for group, node in sorted(members):
        index[group, node] = len(parents)
        parents.append(node)
        # A station fed from two circuits is no tree; each circuit then gets its EVSEs' part of the maximum.
        shared.append(max(maxima[group], 0.0) * members[group, node] / sizes[group])
    for i, s in grouped:
        leaf_of[i] = index[s.group or 0, s.node]
    return parents, leaf_of, shared


def _caps(sessions: Sequence[Session], station_a: Floats, phases: Floats, limits: Limits) -> tuple[Floats, list[str]]:
    """The most each may have for its own sake: station and car, or what somebody put on this very EVSE."""
    caps, reasons = station_a.copy(), [STATION_MAXIMUM] * len(sessions)
    if limits.sessions:
        for i, s in enumerate(sessions):
            by_amps, by_watts = limits.sessions.get(s.key, (NO_BOUND, NO_BOUND))
            for bound, amps in ((by_amps, by_amps.value), (by_watts, by_watts.value / (max(phases[i], 1) * NOMINAL_V))):
                if amps < caps[i]:
                    caps[i], reasons[i] = amps, bound.reason
    return np.maximum(np.nan_to_num(caps), 0.0), reasons


def _over(snapshot: Snapshot, limits: Limits, size: int) -> Floats:
    """-1 where a meter shows more than the limit, else 0: L1, L2, L3."""
    table = np.zeros((size, SUM))
    for n, reading in snapshot.readings.items():
        if reading.current_a is not None:
            table[n] = np.where(np.array(reading.current_a) > limits.table[n, :SUM], -1.0, 0.0)
    return table


def _phases(session: Session) -> tuple[bool, bool, bool]:
    """DC loads all three. A car of which no phase is known may use any."""
    return (True, True, True) if session.dc or not any(session.phases) else session.phases

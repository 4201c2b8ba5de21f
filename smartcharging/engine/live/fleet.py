"""What is known of each car in this moment, in columns of numbers, and what follows from it for the tree.

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
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from smartcharging.engine import carried
from smartcharging.engine.grid import NOMINAL_V, Supply, power_weight
from smartcharging.engine.limits import SUM, Limits
from smartcharging.engine.live.roll import Roll
from smartcharging.engine.live.tree import Floats, Ints, Tree, known_or, least_of, most_of, sum_of
from smartcharging.engine.priorities import Flags, paused_lately, slack_s, started_lately, weights
from smartcharging.engine.rules import Rules
from smartcharging.engine.snapshot import Snapshot

ON_PHASE_A = 1.0  # a current above this proves that the car uses a phase
STATION_MAXIMUM = "station maximum"
KINDS = 8  # of cars, by which of three phases they load
APART = 4  # the columns from here on, where a circuit limits its imbalance: what L1, L2, L3 carry unevenly


@dataclass(frozen=True)
class Fleet:
    """One row per session, sorted by leaf and key. Amps per phase at the AC input."""

    keys: tuple[str, ...]
    tree: Tree
    circuits: int  # tree nodes from here on are stations with a shared maximum
    shared_a: Floats  # that maximum, per such station
    dc: Flags
    uses: Floats  # what one amp takes of L1, L2, L3, of all together [230 W], and unevenly of L1, L2, L3
    wants: Flags
    vacant: Flags  # no car on it
    reachable: Flags
    min_a: Floats
    cap_a: Floats  # the most it may have for reasons of its own …
    cap_reason: list[str]  # … and whose they are
    step_a: Floats
    fail_safe_a: Floats
    offered_a: Floats  # NaN: not known
    level_a: Floats  # the limit its EVSE stands by
    surely_a: Floats  # … and at the least, where its lease has ended: it may have fallen back
    hold: Floats  # the most it may draw, columns as `uses`
    drawn: Floats  # what is surely taken, zero where unknown
    risen: Floats  # what it may be taking by now, if its limit changed since it was measured
    late: Flags  # switched on a moment ago, and not seen to take anything yet
    shown: Floats  # the most of what a meter shows that may be its doing
    keeps_a: Floats  # what it makes use of, a little more included; infinite while it uses all it has
    lends: Flags  # has shown that it leaves something unused
    ignores: Flags  # draws more than it was allowed, for longer than a car takes to follow
    changed_s: Floats  # since the limit last changed
    weight: Floats
    must: Flags
    tight: Flags  # has hardly any time to lose
    fresh_start: Flags  # on for less than the minimum time
    worn: Flags  # paused so often that it is kept on
    fresh_pause: Flags
    paused: Flags  # by us, since it came, and not long ago
    fast: Flags
    surplus: Flags
    planned_a: Floats  # NaN: no valid plan
    order: NDArray[np.intp]  # most urgent first
    memory: Floats  # the row of each in what is carried

    def __len__(self) -> int:
        return len(self.keys)

    @property
    def columns(self) -> int:
        return int(self.uses.shape[1])

    @cached_property
    def phases(self) -> Ints:
        """Which phases each car loads, as one number below `KINDS`; it decides what the car uses of all columns."""
        return np.asarray((self.uses[:, :SUM] > 0) @ np.array((1, 2, 4)))

    @cached_property
    def running(self) -> Flags:
        """On, by the limit they stand by."""
        return np.asarray((self.offered_a >= self.min_a - 1e-6) & (self.offered_a > 0))

    @cached_property
    def held(self) -> Floats:
        """What the cars below each node may be drawing at most."""
        return self.tree.sums(self.hold)

    def load(self, limit_a: Floats) -> Floats:
        """What each node's cars may draw when these are the limits: nobody falls below what is held of him yet."""
        return self.tree.sums(np.maximum(self.hold, limit_a[:, None] * self.uses))

    @classmethod
    def of(cls, snapshot: Snapshot, roll: Roll, limits: Limits, rules: Rules) -> Fleet:
        now, keys, tree, fact = snapshot.now, roll.keys, roll.tree, roll.facts
        offered, before, safe = fact.offered_a, fact.offered_before_a, fact.fail_safe_a
        dc, wants, reachable = fact.dc, fact.wants, fact.reachable
        supply = snapshot.grid.supply

        with np.errstate(invalid="ignore"):
            changed_s = known_or(fact.offered_since_s, np.inf)
            level = stands_at_a(offered, safe, fact.lease_ended_s, reachable, rules)
            held = held_a(level, before, changed_s, rules)

            measured = fact.measured_a
            age_s = known_or(fact.measured_since_s, 0.0)
            patience_s = np.where(dc, rules.ignore_dc_s, rules.ignore_s)
            above = most_of(measured) > offered + rules.ignore_a
            defiant = above & (changed_s - age_s > patience_s)  # seen so when it was last heard
            recent = age_s <= np.where(reachable, rules.ev_max_age_s, rules.lost_max_age_s)
            known = ~np.isnan(sum_of(measured)) & recent
            likely = np.where(known[:, None], np.maximum(measured, 0.0), 0.0)
            most = most_of(likely)
            doubt = np.where(dc, rules.dc_doubt, rules.doubt)

            moment = now.timestamp()
            memory = carried.observe(
                carried.rows_of(snapshot.carried, keys, np.round(moment - fact.here_s, 3)),
                np.where(known, most, np.nan),
                np.round(moment - age_s, 3),
                offered,
                before,
                np.round(moment - changed_s, 3),
                moment,
                doubt,
                rules,
            )

            # DC is measured at the plug; what the input takes is known only within the converter's losses. What it
            # takes for sure is taken off a meter's reading, what it likely takes is held.
            surely = likely * np.where(dc, 1.0 - rules.dc_doubt, 1.0)[:, None]
            # Whoever was told to take less may have done so, and soon has, though his last measurement is from before.
            isolated = ~np.isnan(fact.isolated_a)
            follows = known & ~isolated & (age_s > changed_s - rules.react_s)
            seen, on_way_down = surely, follows & (changed_s < rules.react_s)
            surely = np.minimum(surely, np.where(follows & ~np.isnan(offered), offered, np.inf)[:, None])

            uses, spread = _uses(snapshot, fact.phases, seen, dc, supply)
            drawn = spread(surely)
            hold = np.maximum(held[:, None] * uses, spread(likely))
            still = ~reachable & defiant
            if still.any():
                hold = np.where(still[:, None], np.fmax(hold, spread(np.nan_to_num(measured))), hold)
            if isolated.any():
                hold = np.maximum(hold, np.nan_to_num(fact.isolated_a)[:, None] * uses)
            # A free EVSE may load its copper the moment somebody plugs in. A limit in watts is a mean over a minute or
            # a quarter hour: there it counts when it draws.
            hold[:, SUM] = np.where(reachable & ~wants & (drawn[:, SUM] <= 0), 0.0, hold[:, SUM])
            # Where the meter is over its limit there is no time for patience: who was seen not to have followed by
            # now counts as not following, and the others make up for it.
            pressing = least_of(tree.on_the_way(_over(snapshot, limits, tree.size))) < 0
            seen_after_s = changed_s - age_s
            ignores = reachable & known & above & (seen_after_s >= np.where(pressing, rules.follow_s, patience_s))
            ignores |= reachable & isolated

            here_s = fact.here_s
            awaited_s = np.minimum(changed_s, known_or(here_s, np.inf))
            # Who left something of the limit he had is not on his way to a higher one.
            leaves = memory[:, carried.LEFT] > 0
            unsure = np.where(known, (age_s > awaited_s - rules.follow_s) & ~leaves, wants & reachable)
            unsure = unsure & (awaited_s <= rules.unsure_s)
            risen = np.where(unsure[:, None], np.maximum(drawn, level[:, None] * uses), drawn)
            if on_way_down.any():
                risen = np.where(on_way_down[:, None], np.maximum(risen, spread(seen)), risen)
            idle = known & (most < rules.wake_a) & (level >= np.maximum(fact.min_a, 0.0)) & (level > 0)
            late = idle & wants & reachable & (awaited_s <= rules.unsure_s)

            here = ~np.isnan(fact.here_s)
            shown = np.where(known[:, None], np.maximum(spread(likely), risen), np.where(here[:, None], hold, 0.0))

            station = np.fmin(fact.max_a, fact.max_w / (uses[:, SUM] * NOMINAL_V))
            # A car that has shown the most it takes needs longer than its station would.
            draws = memory[:, carried.DRAWS]
            full_a = np.fmin(station, np.where(draws >= fact.min_a, draws, np.nan))
            slack = slack_s(-fact.departed_s, fact.energy_needed_wh, full_a * uses[:, SUM] * NOMINAL_V)
            must = wants & (slack <= rules.must_within_s)
            tight = wants & (slack <= rules.tight_within_s)
            fresh_start = started_lately(offered, fact.on_since_s, rules)
            fresh_pause = paused_lately(offered, fact.off_since_s, here_s, rules)
            # Who was never seen to take anything was not paused: he is still waiting for his first amp.
            delivered = memory[:, carried.DELIVERED] != 0.0
            fresh_pause = fresh_pause & delivered
            paused = delivered & (fact.off_since_s < np.minimum(known_or(here_s, np.inf), rules.restart_s))
            cap, cap_reason = _caps(keys, station, uses[:, SUM], limits)
            min_a = np.maximum(fact.min_a, 0.0)
            keeps, lends = _keeps(memory, offered, min_a, cap, awaited_s <= rules.unsure_s, doubt, rules)
        planned = fact.planned_w if snapshot.plan_valid else np.full(len(keys), np.nan)
        priority = fact.priority
        # As `priorities.urgency` has it, and with a lead; the last key sorts first. Who runs is let run, the longer the
        # more often he was paused: of two of whom one can charge, the one that waits is soon the more urgent.
        came = known_or(-here_s, np.inf)
        lead_s = np.where(offered > 0, rules.lead_s * (1.0 + memory[:, carried.SWITCHES]), 0.0)
        order = np.lexsort((roll.alphabet, came, slack - lead_s, ~fresh_start, ~must, -priority))
        return cls(
            keys=keys,
            tree=tree,
            circuits=len(snapshot.grid),
            shared_a=roll.shared_a,
            dc=dc,
            uses=uses,
            wants=wants,
            vacant=~here,
            reachable=reachable,
            min_a=min_a,
            cap_a=cap,
            cap_reason=cap_reason,
            step_a=np.maximum(fact.step_a, 1e-3),
            fail_safe_a=safe,
            offered_a=offered,
            level_a=level,
            surely_a=np.where(fact.lease_ended_s >= 0, np.fmin(level, safe), level),
            hold=hold,
            drawn=drawn,
            risen=risen,
            late=late,
            shown=shown,
            keeps_a=np.maximum(keeps, min_a),
            lends=lends,
            ignores=ignores,
            changed_s=changed_s,
            weight=weights(priority),
            must=must,
            tight=tight,
            fresh_start=fresh_start,
            worn=(memory[:, carried.SWITCHES] >= rules.switch_budget) & (offered > 0),
            fresh_pause=fresh_pause,
            paused=paused,
            fast=fact.fast,
            surplus=fact.surplus,
            planned_a=np.maximum(planned, 0.0) / (uses[:, SUM] * NOMINAL_V),
            order=order,
            memory=memory,
        )


class _Spread:
    """Currents on L1, L2, L3 as the columns of `uses`: with their sum as power, and what of them is uneven."""

    def __init__(self, each: Floats, uneven: Flags | None) -> None:
        self._each, self._uneven = each, uneven

    def __call__(self, phases: Floats) -> Floats:
        parts = [phases, (sum_of(phases) * self._each)[:, None]]
        if self._uneven is not None:
            parts.append(np.where(self._uneven[:, None], phases, 0.0))
        return np.concatenate(parts, axis=1)


def _uses(snapshot: Snapshot, phases: Flags, surely: Floats, dc: Flags, supply: Supply) -> tuple[Floats, _Spread]:
    """What one amp of each car loads. DC loads all three, and so may a car of which no phase is known."""
    phases = phases | (dc | ~(phases[:, 0] | phases[:, 1] | phases[:, 2]))[:, None] | (surely > ON_PHASE_A)
    lines = sum_of(phases.astype(float)).astype(np.intp)
    if supply is Supply.IT and (lines == 1).any():  # it returns by another, and which is not said
        phases = phases | (lines == 1)[:, None]
        lines = np.where(lines == 1, 3, lines)
    weight = np.array([0.0, *(power_weight(n, supply) for n in (1, 2, 3))])[lines]
    apart = any(c.imbalance_a is not None for c in snapshot.grid.circuits)
    spread = _Spread(weight / np.maximum(lines, 1), lines < 3 if apart else None)
    return spread(phases.astype(float)), spread


def _keeps(
    memory: Floats, offered_a: Floats, min_a: Floats, cap_a: Floats, awaited: Flags, doubt: Floats, rules: Rules
) -> tuple[Floats, Flags]:
    """What each car makes use of, and whether it has shown that this is less than it has.

    A car that has not used its limit for long enough is known by the most it took, and keeps a little more by which
    it shows when that changes. One of which this is only beginning to show keeps what it has, and gets no more. Of any
    other it is believed that it can use one step more than it was seen to use; nothing is believed of a car whose
    station tells no currents.
    """
    draws, drew = memory[:, carried.DRAWS], memory[:, carried.DREW]
    shown = ~np.isnan(draws)
    idle = ~shown & (memory[:, carried.LEFT] > 0) & (drew < offered_a * (1.0 - doubt) - rules.lend_a)
    seen = np.where(np.isnan(drew), np.where(awaited, 0.0, np.inf), drew)
    next_a = np.maximum(seen, min_a) + np.maximum(rules.ramp_a, rules.ramp_share * cap_a)
    keeps = np.where(shown, (draws + rules.lend_a) / (1.0 - doubt), np.where(idle, offered_a, next_a))
    return np.where(np.isnan(keeps), np.inf, keeps), shown | idle


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


def _caps(keys: tuple[str, ...], station_a: Floats, phases: Floats, limits: Limits) -> tuple[Floats, list[str]]:
    """The most each may have for its own sake: station and car, or what somebody put on this very EVSE."""
    caps, reasons = station_a.copy(), [STATION_MAXIMUM] * len(keys)
    place = {key: i for i, key in enumerate(keys)} if limits.sessions else {}
    for key, (by_amps, by_watts) in limits.sessions.items():
        i = place.get(key)
        if i is None:
            continue
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

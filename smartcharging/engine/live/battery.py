"""What a stationary battery should do this moment: follow the plan, else serve the site from the sun.

Pure. The wish comes first, the limits after it, and the cars in between: a battery yields to the cars, because it has
no departure. It is *counted* on only as far as it is both told to discharge and seen to discharge.

*Self-consumption* closes a loop over the meter at the grid connection, and the loop is slow: an inverter takes seconds
to follow, the meter is read a little ago, the battery at another moment. So what a battery does in the instant the
meter speaks of is only known to be something it was told in the last seconds (`FOLLOWS_S`), and what the site takes
without it is a span. What was answered is kept while it lies in there, so that nothing is answered twice; what
contradicts it is followed at once. As soon as the battery had time to follow, the span is a point, and what is left at
the meter is made good. Nothing adds up that a battery does not do: remembered is what it was told when all limits were
applied, and one that is measured to do something else is taken to go on with that.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from smartcharging.engine.carried import Told
from smartcharging.engine.grid import Supply
from smartcharging.engine.limits import SUM, Limits
from smartcharging.engine.live.feeding import discharge_a, net_w
from smartcharging.engine.live.fleet import Fleet
from smartcharging.engine.live.residual import spread
from smartcharging.engine.live.tree import Floats
from smartcharging.engine.snapshot import BatteryState, Snapshot

IDLE_W = 50.0  # a set-point smaller than this only warms the inverter
FOLLOWS_S = 15.0  # so long ago a set-point may have been given that the meter shows now
MEASURED_S = 30.0  # after so long at the latest a battery is measured to do what it was told, or does not follow
EXACT = 0.1  # share of its power by which a battery may miss its set-point and still follow it


def wishes(snapshot: Snapshot) -> dict[str, float]:
    """What each battery would do if nothing stood in its way, in W, charging positive.

    With a valid plan, the plan's power. Without one, or for a battery it does not know, self-consumption: take what
    would be exported, give what would be imported, and never feed the grid. With the grid connection's meter silent
    and no plan it rests, for it cannot know which of the two it would do.
    """
    wish: dict[str, float] = {}
    ruled: list[BatteryState] = []
    for battery in snapshot.batteries:
        if snapshot.plan_valid and battery.planned_w is not None:
            wish[battery.key] = able(battery, battery.planned_w)
        else:
            ruled.append(battery)
    if ruled:
        wish.update(_self_consumption(snapshot, ruled))
    return wish


def _self_consumption(snapshot: Snapshot, batteries: list[BatteryState]) -> dict[str, float]:
    shown_w = net_w(snapshot, 0)
    if shown_w is None or any(b.power_w is None for b in batteries):
        return {b.key: 0.0 for b in batteries}
    together_w = _together_w(snapshot, batteries, shown_w)
    can = {b.key: able(b, b.max_charge_w if together_w > 0 else -b.max_discharge_w) for b in batteries}
    most_w = sum(abs(w) for w in can.values())
    if most_w <= 0:
        return {b.key: 0.0 for b in batteries}
    part = min(abs(together_w) / most_w, 1.0)
    return {key: w * part for key, w in can.items()}


def _together_w(snapshot: Snapshot, batteries: list[BatteryState], shown_w: float) -> float:
    """What these batteries should do together so that the meter, which shows this, comes to show nothing."""
    spans = [_may_do_w(b, _told_lately(snapshot, b.key, MEASURED_S), snapshot.now.timestamp()) for b in batteries]
    least_w, most_w, last_w = sum(s[0] for s in spans), sum(s[1] for s in spans), sum(s[2] for s in spans)
    # Each thing they may be doing now is another answer; the one nearest to what they were told last is given.
    return min(max(last_w, least_w - shown_w), most_w - shown_w)


def _may_do_w(battery: BatteryState, told: Told, now: float) -> tuple[float, float, float]:
    """The least and the most the battery may be doing while the meter is read, and what it was told last."""
    does_w = battery.power_w or 0.0
    if not told:
        return does_w, does_w, does_w
    misses_w = EXACT * max(battery.max_charge_w, battery.max_discharge_w)
    least_w, most_w = does_w - misses_w, does_w + misses_w
    watts, last_w = [w for _, w in told], told[-1][1]
    if most_w < min(watts) or max(watts) < least_w:  # it does not follow
        return least_w, most_w, last_w
    watts = [w for _, w in _since(told, now - FOLLOWS_S)]
    return min(*watts, most_w), max(*watts, least_w), last_w


def _told_lately(snapshot: Snapshot, key: str, lately_s: float) -> Told:
    """The set-points of the last seconds. Nothing when the last cycle itself is longer ago than a battery needs."""
    now, carried = snapshot.now.timestamp(), snapshot.carried
    if carried is None or now - carried.at > FOLLOWS_S:
        return ()
    return _since(carried.battery_w.get(key, ()), now - lately_s)


def _since(told: Told, begin: float) -> Told:
    """The set-points given since then, and the one that was in force."""
    return told[max(sum(since <= begin for since, _ in told) - 1, 0) :]


def to_remember(snapshot: Snapshot, told_w: Mapping[str, float]) -> dict[str, Told]:
    """What each battery was told lately, or was doing when nothing is known of that, with what it is told now."""
    now = snapshot.now.timestamp()
    kept: dict[str, Told] = {}
    for battery in snapshot.batteries:
        told_now_w = told_w[battery.key]
        told = _told_lately(snapshot, battery.key, MEASURED_S) or ((now, battery.power_w or 0.0),)
        kept[battery.key] = told if told[-1][1] == told_now_w else (*told, (now, told_now_w))
    return kept


def able(battery: BatteryState, power_w: float) -> float:
    """The power held to what the battery can do: its inverter, and its state of charge. Unknown charge: nothing."""
    if battery.soc is None or np.isnan(power_w):
        return 0.0
    if power_w > 0 and battery.soc >= battery.max_soc:
        return 0.0
    if power_w < 0 and battery.soc <= battery.min_soc:
        return 0.0
    return float(min(max(power_w, -battery.max_discharge_w), battery.max_charge_w))


def relied_on(
    batteries: tuple[BatteryState, ...], wish: Mapping[str, float], size: int, supply: Supply = Supply.TN
) -> Floats:
    """Amps by which the batteries relieve their nodes for certain: told to discharge, and measured doing it."""
    table = np.zeros((size, 4))
    for battery in batteries:
        table[battery.node] += spread(battery, _relied_on_w(battery, wish), supply)
    return table


def _relied_on_w(battery: BatteryState, wish: Mapping[str, float]) -> float:
    return 0.0 if battery.power_w is None else min(max(battery.power_w, wish.get(battery.key, 0.0)), 0.0)


def held(batteries: tuple[BatteryState, ...], size: int, supply: Supply = Supply.TN) -> Floats:
    """Amps the batteries are charging with now: theirs until they are seen to have let go."""
    table = np.zeros((size, 4))
    for battery in batteries:
        table[battery.node] += spread(battery, max(battery.power_w or 0.0, 0.0), supply)
    return table


def settle(
    snapshot: Snapshot,
    fleet: Fleet,
    limits: Limits,
    wish: Mapping[str, float],
    room: Floats,
    yields: Floats,
    back: Floats,
) -> tuple[dict[str, float], Floats]:
    """The set-points, and the amps they leave at each node.

    `room` is what is left at each node after everything the cars may draw, without any battery. Where it is negative
    the battery below may discharge to relieve it, as far as it can, whatever it would have liked to do; charging
    never makes room negative. A node without room for anything (fire) puts the battery on standby.

    `back` is what the batteries below each node may feed back together (`feeding.room_back`), and `wish` fits in it.
    What cars count on is kept for the battery that gives it, before another takes more than it wished.
    """
    supply = snapshot.grid.supply
    counted_on = {b.key: _relied_on_w(b, wish) for b in snapshot.batteries}
    room, yields, back = room.copy(), yields.copy(), back - discharge_a(snapshot, fleet, counted_on)
    answer: dict[str, float] = {}
    for battery in sorted(snapshot.batteries, key=lambda b: b.key):
        path = fleet.tree.path(battery.node)
        at = list(path)
        one_w = spread(battery, 1.0, supply)
        used = one_w > 0
        if any(_shut(limits, n) for n in path if n < fleet.circuits):
            answer[battery.key] = 0.0
            continue
        # The most it may take (negative: the least it has to give) so that no node above it is over its limit.
        most_w = float((room[at][:, used] / one_w[used]).min())
        charge_w = max(float((yields[at][:, used] / one_w[used]).min()), 0.0)
        power_w = min(wish.get(battery.key, 0.0), most_w, charge_w)
        power_w = able(battery, power_w)
        back[at] -= spread(battery, counted_on[battery.key], supply)
        power_w = max(power_w, -max(float((back[at][:, used] / one_w[used]).min()), 0.0))
        if abs(power_w) < IDLE_W and most_w >= 0:
            power_w = 0.0
        answer[battery.key] = power_w
        for n in path:
            room[n] -= spread(battery, power_w, supply)
            yields[n] -= spread(battery, power_w, supply)
            back[n] += spread(battery, min(power_w, 0.0), supply)
    return answer, room


def _shut(limits: Limits, node: int) -> bool:
    return bool((limits.table[node, :SUM] <= 0).all())

"""What a stationary battery should do this moment: follow the plan, else serve the site from the sun.

Pure. This is the wish; the limits come after it, and the cars in between (`settling.py`).

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
from smartcharging.engine.live.feeding import net_w
from smartcharging.engine.snapshot import BatteryState, Snapshot

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

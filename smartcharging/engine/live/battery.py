"""What a stationary battery should do this moment: follow the plan, else serve the site from the sun.

Pure. The wish comes first, the limits after it, and the cars in between: a battery yields to the cars, because it has
no departure. It is *counted* on only as far as it is both told to discharge and seen to discharge.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from smartcharging.engine.grid import Supply
from smartcharging.engine.limits import SUM, Limits
from smartcharging.engine.live.feeding import discharge_a, net_w
from smartcharging.engine.live.fleet import Fleet
from smartcharging.engine.live.residual import spread
from smartcharging.engine.live.tree import Floats
from smartcharging.engine.snapshot import BatteryState, Snapshot

IDLE_W = 50.0  # a set-point smaller than this only warms the inverter


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
    # What the connection would show if these batteries rested.
    rest_w = shown_w - sum(b.power_w or 0.0 for b in batteries)
    can = {b.key: able(b, b.max_charge_w if rest_w < 0 else -b.max_discharge_w) for b in batteries}
    together = sum(abs(w) for w in can.values())
    if together <= 0:
        return {b.key: 0.0 for b in batteries}
    part = min(abs(rest_w) / together, 1.0)
    return {key: w * part for key, w in can.items()}


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

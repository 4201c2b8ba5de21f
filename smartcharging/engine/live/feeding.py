"""How much the batteries may feed back: copper carries no more backwards than forwards, and a contract may allow less.

Pure. A discharge flows from its battery's circuit up to the grid connection, and joins there what flows back without
it: the sun, and other batteries. So the room is asked of every circuit on the way, and the batteries below it share it.

*Fuses.* Other load takes off what flows back only as far as it is surely there: what the meter shows, without the
batteries and without everything that it may be showing of cars, for a car may stop at any moment. A circuit without a
meter has the load and the sun that are known of it, and uses nothing else. Behind a silent meter, and beside sun that
is not known, nothing is used and the sun may fill the fuse by itself, so no battery discharges through it.

*Export limits* are contracts and orders, which are measured over seconds to a quarter hour: there cars count while they
charge. Without a reading at the circuit nothing is fed back on purpose.

A battery whose power is not known is taken to be charging fully: what the meter shows is then rather its load than
that of the site.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping

import numpy as np

from smartcharging.engine.grid import NOMINAL_V, power_weight
from smartcharging.engine.limits import PHASES, SUM, Limits, Rank, narrow
from smartcharging.engine.live.fleet import Fleet
from smartcharging.engine.live.residual import all_below, readings_of, spread, sun_of
from smartcharging.engine.live.tree import Floats
from smartcharging.engine.priorities import Flags
from smartcharging.engine.snapshot import BatteryState, Snapshot

FULL_A = 1e-6


def room_back(snapshot: Snapshot, fleet: Fleet, limits: Limits, dark: Collection[int]) -> tuple[Floats, Floats]:
    """Amps that all batteries below each node may discharge together: on L1, L2, L3 by its fuse, and all together by
    what it may export. Never below zero, infinite where nothing limits it.

    At the `dark` circuits nobody knows the sun. The second table asks nothing of what nobody can see: of circuits
    with a silent meter, or in the dark.
    """
    circuits = snapshot.grid.circuits
    count = len(circuits)
    charging = np.zeros((count, 4))
    for battery in snapshot.batteries:
        charging[battery.node] += spread(battery, _charges_at_most_w(battery), snapshot.grid.supply)
    charging = all_below(fleet, charging)
    margin = np.array([max(c.margin_a, 0.0) for c in circuits])

    room = np.full((fleet.tree.size, 4), np.inf)
    copper, (current, _) = _copper(snapshot), readings_of(snapshot)
    fresh: Flags = np.asarray(np.isfinite(current).all(axis=1))
    unseen = np.array([c.metered or n in dark for n, c in enumerate(circuits)]) & ~fresh
    metered = np.where(fresh[:, None], current - charging[:, :SUM], np.nan)
    room[:count, :SUM] = copper - margin[:, None] + _least_load(snapshot, fleet, metered, unseen, copper)
    for n in np.flatnonzero(np.isfinite(limits.export_w)).tolist():
        shown_w = net_w(snapshot, n)
        room[n, SUM] = -np.inf if shown_w is None else (limits.export_w[n] + shown_w) / NOMINAL_V - charging[n, SUM]
    room = np.maximum(np.where(np.isnan(room), 0.0, room), 0.0)
    seen = room.copy()
    seen[:count][unseen] = np.inf
    return room, seen


def _copper(snapshot: Snapshot) -> Floats:
    """What the lines bear. An order or a contract about import says nothing about the other way."""
    about_copper = [n for n in snapshot.narrowings if n.rank <= Rank.CIRCUIT]
    return narrow(snapshot.grid, about_copper, snapshot.now).table[:, :SUM]


def _least_load(snapshot: Snapshot, fleet: Fleet, metered: Floats, unseen: Flags, copper: Floats) -> Floats:
    """Amps per phase that are surely used at each circuit without batteries and cars; negative where it feeds back.

    `metered`: what meters show without batteries; not a number where there is none.
    """
    count = len(snapshot.grid)
    fresh = ~np.isnan(metered[:, 0])
    cars = fleet.tree.sums(fleet.shown)[:count, :SUM]
    own = np.zeros((fleet.tree.size, SUM))
    own[:count] = sun_of(snapshot, count)[:, :SUM]
    for n, amps in snapshot.background_a.items():
        own[n] += amps
    own[:count] = np.where(fresh[:, None], metered - cars, own[:count])
    own[:count] = np.where(unseen[:, None], -copper, own[:count])
    fixed = np.ones(fleet.tree.size, dtype=bool)
    fixed[:count] = fresh | unseen
    return fleet.tree.sums_up_to(own, fixed)[:count]


def _charges_at_most_w(battery: BatteryState) -> float:
    if battery.power_w is not None:
        return battery.power_w
    full = battery.soc is not None and battery.soc >= battery.max_soc
    return 0.0 if full else battery.max_charge_w


def net_w(snapshot: Snapshot, node: int) -> float | None:
    """The net power at a circuit, as its meter shows it."""
    reading = snapshot.readings.get(node)
    if reading is None:
        return None
    if reading.power_w is not None and math.isfinite(reading.power_w):
        return reading.power_w
    if reading.current_a is None or not all(math.isfinite(a) for a in reading.current_a):
        return None
    return sum(reading.current_a) * NOMINAL_V * power_weight(3, snapshot.grid.supply) / 3


def within(snapshot: Snapshot, fleet: Fleet, wish: Mapping[str, float], room: Floats) -> dict[str, float]:
    """The wishes, in W, of which those to discharge fit in the room together: where they do not, all that feed through
    the same place give up the same part."""
    wanted = discharge_a(snapshot, fleet, wish)
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        part = np.where(wanted > 0, np.minimum(room / wanted, 1.0), 1.0)
    part = fleet.tree.least_above(part)
    held = dict(wish)
    for battery in snapshot.batteries:
        if held.get(battery.key, 0.0) < 0:
            loads = spread(battery, 1.0, snapshot.grid.supply) > 0
            held[battery.key] *= float(part[battery.node][loads].min())
    return held


def discharge_a(snapshot: Snapshot, fleet: Fleet, power_w: Mapping[str, float]) -> Floats:
    """What flows back at each node when the batteries do this."""
    table = np.zeros((fleet.tree.size, 4))
    for battery in snapshot.batteries:
        table[battery.node] += spread(battery, max(-power_w.get(battery.key, 0.0), 0.0), snapshot.grid.supply)
    return fleet.tree.sums_of_nodes(table)


def held_at(
    snapshot: Snapshot, fleet: Fleet, wish: Mapping[str, float], told_w: Mapping[str, float], room: Floats
) -> dict[int, str]:
    """The circuits whose fuse holds a battery back from discharging as it would, and the phase that is full."""
    left = room - discharge_a(snapshot, fleet, told_w)
    reasons: dict[int, str] = {}
    for battery in snapshot.batteries:
        if wish.get(battery.key, 0.0) > told_w.get(battery.key, 0.0) - 1.0:
            continue
        loads = spread(battery, 1.0, snapshot.grid.supply)[:SUM] > 0
        for n in fleet.tree.path(battery.node):
            full = np.flatnonzero(loads & (left[n, :SUM] < FULL_A))
            if full.size:
                reasons[n] = f"limit:{snapshot.grid.circuits[n].name}:{PHASES[full[0]]}"
    return reasons

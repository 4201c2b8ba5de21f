"""What the batteries are told once the cars have theirs: what they wish, held to what every place bears both ways.

Pure. A battery yields to the cars, because it has no departure. Cars *count* on it only as far as it is both told to
discharge and seen to discharge; and what they have come to lean on goes on until they have come down, also when the
battery is down to its reserve or a meter above it falls silent: to stop would overload for certain what its discharge
may overload by chance.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from smartcharging.engine.limits import SUM, Limits
from smartcharging.engine.live import feeding
from smartcharging.engine.live.battery import able, wishes
from smartcharging.engine.live.fleet import APART, Fleet
from smartcharging.engine.live.residual import spread
from smartcharging.engine.live.tree import Floats
from smartcharging.engine.snapshot import BatteryState, Snapshot

IDLE_W = 50.0  # a set-point smaller than this only warms the inverter
NOTHING_W = 1.0
RESERVE = 0.02  # of its capacity below the least it shall hold, for the seconds in which cars come down


@dataclass(frozen=True)
class Batteries:
    """The batteries of one cycle: what they wish, and what of it can be."""

    snapshot: Snapshot
    fleet: Fleet
    limits: Limits
    wish: Mapping[str, float]  # W, charging positive
    gives: Mapping[str, float]  # the same, of which all that discharges fits in `back` together
    back: Floats  # what they may feed back at each node (`feeding.room_back`) …
    back_seen: Floats  # … and where what nobody can see is not asked

    @classmethod
    def of(cls, snapshot: Snapshot, fleet: Fleet, limits: Limits, dark: Collection[int]) -> Batteries:
        """`dark`: the circuits at which the sun is not known."""
        if not snapshot.batteries:
            nothing = np.zeros((fleet.tree.size, APART))
            return cls(snapshot, fleet, limits, {}, {}, nothing, nothing)
        wish = wishes(snapshot)
        back, seen = feeding.room_back(snapshot, fleet, limits, dark)
        return cls(snapshot, fleet, limits, wish, feeding.within(snapshot, fleet, wish, back), back, seen)

    @cached_property
    def relief(self) -> Floats:
        """Amps by which they relieve each node for certain (negative)."""
        return self._all({b.key: self._relied_on_w(b) for b in self.snapshot.batteries})

    @cached_property
    def charging(self) -> Floats:
        """Amps they are charging with now at each node: theirs until they are seen to have let go."""
        return self._all({b.key: max(b.power_w or 0.0, 0.0) for b in self.snapshot.batteries})

    def settle(self, room: Floats, yields: Floats) -> tuple[dict[str, float], Floats]:
        """The set-points, and the amps they leave at each node.

        `room` is what is left at each node after everything the cars may draw, without any battery; `yields` after
        what they are to have as well. Where `room` is negative a battery below may discharge to relieve it, as far as
        it can, whatever it would have liked to do; charging never makes room negative. A node without room for
        anything (fire) puts the battery on standby.

        What cars count on is kept for the battery that gives it, before another takes more than it wished; and nobody
        leans on what another was only told.
        """
        room, yields = room.copy(), yields.copy()
        counted_on = {b.key: self._relied_on_w(b) for b in self.snapshot.batteries}
        kept = feeding.discharge_a(self.snapshot, self.fleet, counted_on)
        back, seen = self.back - kept, self.back_seen - kept
        answer: dict[str, float] = {}
        for battery in sorted(self.snapshot.batteries, key=lambda b: b.key):
            path = list(self.fleet.tree.path(battery.node))
            if self._shut(path):
                answer[battery.key] = 0.0
                continue
            for table in (back, seen):
                table[path] += self._load(battery, -counted_on[battery.key])[:APART]
            power_w = self._set_point(battery, room[path], yields[path], back[path], seen[path])
            answer[battery.key] = power_w
            sure = self._load(battery, max(power_w, _now_w(battery)) if power_w < 0 else power_w)
            room[path] -= sure
            yields[path] -= sure
            if room.shape[1] > APART and not all(battery.phases):
                room[path, APART:] -= self._apart_a(battery, max(_now_w(battery) - power_w, 0.0))
            for table in (back, seen):
                table[path] += self._load(battery, min(power_w, 0.0))[:APART]
        return answer, room

    def held_back(self, told_w: Mapping[str, float]) -> dict[int, str]:
        """The circuits whose fuse holds a battery back, with the reason."""
        return feeding.held_at(self.snapshot, self.fleet, self.wish, told_w, self.back)

    def _set_point(self, battery: BatteryState, room: Floats, yields: Floats, back: Floats, seen: Floats) -> float:
        """Of one battery, of which these are the rows on its way up."""
        one = self._load(battery, 1.0)

        def least_w(table: Floats) -> float:
            mine = one[: table.shape[1]]
            return float((table[:, mine > 0] / mine[mine > 0]).min())

        # The most it may take (negative: the least it has to give) so that no node above it is over its limit.
        most_w = least_w(room)
        power_w = able(battery, min(self.gives.get(battery.key, 0.0), most_w, max(least_w(yields), 0.0)))
        goes_on_w = 0.0
        if most_w < 0 and _holds_a_reserve(battery):
            goes_on_w = max(most_w, _now_w(battery))
            power_w = min(power_w, goes_on_w)
        least = max(-max(least_w(seen), 0.0), min(-max(least_w(back), 0.0), goes_on_w))
        if room.shape[1] > APART and not all(battery.phases):
            least = max(least, min(self._evenly_w(battery, room), most_w))
        power_w = max(power_w, least)
        return 0.0 if abs(power_w) < IDLE_W and most_w > -NOTHING_W else power_w

    def _evenly_w(self, battery: BatteryState, room: Floats) -> float:
        """The least it may take, so that no other phase stands too far above its own. What it gives now is counted."""
        others = ~np.array(battery.phases)
        per_w = float(self._load(battery, 1.0)[:SUM].max())
        left_w = max(float(room[:, APART:][:, others].min()) / per_w, 0.0)
        return _now_w(battery) - left_w

    def _apart_a(self, battery: BatteryState, more_w: float) -> Floats:
        """What the other phases may carry less when it gives so much more."""
        per_w = self._load(battery, 1.0)[:SUM].max()
        lower: Floats = np.where(battery.phases, 0.0, per_w * more_w)
        return lower

    def _relied_on_w(self, battery: BatteryState) -> float:
        if battery.power_w is None:
            return 0.0
        return min(max(battery.power_w, self.gives.get(battery.key, 0.0)), 0.0)

    def _load(self, battery: BatteryState, power_w: float) -> Floats:
        """As the columns of `Fleet.uses`."""
        amps = spread(battery, power_w, self.snapshot.grid.supply)
        uneven = np.zeros(SUM) if all(battery.phases) else amps[:SUM]
        return np.concatenate((amps, uneven))[: self.fleet.columns]

    def _all(self, power_w: Mapping[str, float]) -> Floats:
        """Each node's own with all below it."""
        table = np.zeros((self.fleet.tree.size, self.fleet.columns))
        for battery in self.snapshot.batteries:
            table[battery.node] += self._load(battery, power_w[battery.key])
        return self.fleet.tree.sums_of_nodes(table) if power_w else table

    def _shut(self, path: list[int]) -> bool:
        table = self.limits.table
        return any(bool((table[n, :SUM] <= 0).all()) for n in path if n < self.fleet.circuits)


def _now_w(battery: BatteryState) -> float:
    """What it discharges with now. One that is not known may be giving all it can."""
    if battery.power_w is None:
        return -battery.max_discharge_w
    return min(battery.power_w, 0.0)


def _holds_a_reserve(battery: BatteryState) -> bool:
    return battery.power_w is not None and (battery.soc is None or battery.soc > max(battery.min_soc - RESERVE, 0.0))

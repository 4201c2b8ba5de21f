"""Where every EVSE should be, if all the others already were where they should be.

Pure. Admission is lexicographic: a more urgent car never goes without its minimum for the sake of a less urgent one.
Above the minimum the share is weighted max-min, per phase, on the whole tree.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from smartcharging.engine import carried
from smartcharging.engine.filling import EPS, fill
from smartcharging.engine.fleet import APART, STATION_MAXIMUM, Fleet
from smartcharging.engine.limits import SUM, Rank, paused, paused_at_station, phase_of
from smartcharging.engine.priorities import Flags
from smartcharging.engine.residual import Residual, surplus_a
from smartcharging.engine.rules import Rules
from smartcharging.engine.snapshot import Snapshot
from smartcharging.engine.spending import spend
from smartcharging.engine.tree import Floats, least_of, picked

WHOLE_A = 0.5  # a charger of coarser steps than this loses something worth sharing again by rounding


@dataclass(frozen=True)
class Aim:
    """`follows`: those whom we lead; the others keep what they have taken and are only told.

    `places` says where in the tree a car is held back: node and column. `squeezed` are running cars whose minimum does
    not fit.
    """

    current_a: Floats
    cap_a: Floats
    follows: Flags
    reasons: list[str]
    places: dict[int, tuple[int, int]]
    squeezed: Flags


def aim(snapshot: Snapshot, fleet: Fleet, left: Residual, room: Floats, rules: Rules) -> Aim:
    """The shares to work towards. `room` is what each node has for cars."""
    sharing = _Sharing(snapshot, fleet, left, room, rules)
    sharing.set_apart()
    sharing.admit_cars()
    sharing.fill_to_plan()
    sharing.fill_spare()
    sharing.share_surplus()
    sharing.offer_standby()
    sharing.leave_unused()
    return sharing.answer()


def admit(
    fleet: Fleet, candidates: Flags, need_a: Floats, room: Floats, mild: Flags | None = None
) -> tuple[Flags, Floats, dict[int, tuple[int, int]]]:
    """Who of the candidates gets `need_a`, most urgent first; the room left; and where it did not fit for whom.

    Walks only the rows that cannot hold all candidates: where everybody fits there is nothing to decide. For cars on
    one phase each the feasible sets are laminar and the walk is optimal; with mixed phases it is the lexicographic
    choice. `mild` marks cells of `room` that do not stop a car within its minimum time on.
    """
    need = np.where(candidates, need_a, 0.0)
    demand = fleet.tree.sums(need[:, None] * fleet.uses)
    tight = demand > room + EPS
    if not tight.any():
        return candidates.copy(), room - demand, {}
    admitted = candidates.copy()
    concerned = np.where(fleet.uses > 0, fleet.tree.on_the_way(np.where(tight, -1.0, 0.0)), 0.0)
    blocked: dict[int, tuple[int, int]] = {}
    space = {(int(n), int(c)): float(room[n, c]) for n, c in np.argwhere(tight)}
    rows = _RowsOf(fleet, space)
    needs, flags = need.tolist(), (candidates & (least_of(concerned) < 0)).tolist()
    for i in fleet.ordered:
        if not flags[i]:
            continue
        mine = rows.of(i)
        wanted = needs[i]
        full = [row for row, times in mine if space[row] < wanted * times - EPS]
        if mild is not None and fleet.fresh_start[i]:
            full = [row for row in full if not mild[row]]
        if full:
            admitted[i] = False
            blocked[i] = full[0]
            continue
        for row, times in mine:
            space[row] -= wanted * times
    taken = np.where(admitted, need, 0.0)
    return admitted, room - fleet.tree.sums(taken[:, None] * fleet.uses), blocked


class _RowsOf:
    """The rows (node, column) of a chosen set that a car loads, and how often: the same for all cars of a kind."""

    def __init__(self, fleet: Fleet, chosen: dict[tuple[int, int], float]) -> None:
        self._fleet = fleet
        self._known: dict[tuple[int, tuple[float, ...]], list[tuple[tuple[int, int], float]]] = {}
        self._columns: dict[int, list[int]] = {}  # the chosen columns of each node that has any
        for n, c in chosen:
            self._columns.setdefault(n, []).append(c)

    def of(self, car: int) -> list[tuple[tuple[int, int], float]]:
        kind = self._fleet.kinds[car]
        if kind not in self._known:
            self._known[kind] = [
                ((n, c), kind[1][c])
                for n in self._fleet.tree.path(kind[0])
                if n in self._columns
                for c in self._columns[n]
                if kind[1][c] > 0
            ]
        return self._known[kind]


class _Sharing:
    """The working table of one `aim`: `value` grows, `room` shrinks, and the reason follows what happened last."""

    def __init__(self, snapshot: Snapshot, fleet: Fleet, left: Residual, room: Floats, rules: Rules) -> None:
        self.snapshot, self.fleet, self.left, self.rules = snapshot, fleet, left, rules
        self.room = room
        self.value = np.zeros(len(fleet))
        self.reasons: list[str] = [""] * len(fleet)
        self.cap, self.cap_reason = self._caps()
        self.led = fleet.reachable & ~fleet.ignores
        self.wanting = self.led & fleet.wants
        known = ~np.isnan(fleet.planned_a)
        self.spare_allowed = self.wanting & ~(fleet.surplus & ~fleet.must) & (fleet.fast | fleet.must | ~known)
        self.only_surplus = self.wanting & fleet.surplus & ~fleet.must
        planned = np.nan_to_num(fleet.planned_a, nan=0.0)
        planned = np.where(self.wanting & ~self.only_surplus, planned, 0.0)
        # A car that is to have all it can take is given all it may have, whatever it makes of it.
        takes = np.nan_to_num(fleet.memory[:, carried.TAKES], nan=1.0)
        place = np.empty(len(fleet))
        place[fleet.order] = np.arange(len(fleet))
        planned = spend(planned, self.cap, fleet.min_a, fleet.uses[:, SUM], takes, fleet.running, place)
        # What it has, it keeps, lest every reading of another moves it.
        has = np.nan_to_num(fleet.offered_a, nan=0.0)
        planned = np.where(
            (planned > 0) & (np.abs(has - planned) < rules.ripple_a) & (has >= fleet.min_a), has, planned
        )
        self.plan = np.minimum(planned, self.cap)
        self.top = np.where(self.spare_allowed, self.cap, np.where(self.plan > 0, self.plan, fleet.min_a))
        self.places: dict[int, tuple[int, int]] = {}
        self.squeezed: Flags = np.zeros(len(fleet), dtype=bool)
        self.full: Flags = np.zeros(room.shape, dtype=bool)
        self.on: Flags = np.zeros(len(fleet), dtype=bool)

    def _caps(self) -> tuple[Floats, list[str]]:
        """The car's own cap, and below a silent meter without a fallback its fail-safe."""
        fleet, cap, reasons = self.fleet, self.fleet.cap_a.copy(), list(self.fleet.cap_reason)
        if self.left.strict.any():
            below = fleet.tree.on_the_way(np.where(self.left.strict, -1.0, 0.0)[:, None])[:, 0] < 0
            for i in np.flatnonzero(below & (fleet.fail_safe_a < cap)).tolist():
                cap[i] = fleet.fail_safe_a[i]
                node = next(n for n in fleet.tree.path(int(fleet.tree.at[i])) if self.left.strict[n])
                reasons[i] = f"meter stale: {self.snapshot.grid.circuits[node].name}"
        return cap, reasons

    def set_apart(self) -> None:
        """Those we cannot lead now: out of reach, or not following. What they may take is theirs, first of all."""
        fleet = self.fleet
        apart = ~self.led
        if not apart.any():
            return
        allowed = np.where(fleet.uses > 0, fleet.tree.on_the_way(self.room), np.inf)
        allowed[:, SUM] = allowed[:, SUM] / np.maximum(fleet.uses[:, SUM], 1.0)
        # What they are told should they listen after all: never more than they hold, nor than the place allows alone.
        told = np.minimum(np.minimum(fleet.level_a, self.cap), least_of(allowed))
        told = np.where(told >= fleet.min_a, np.maximum(told, 0.0), 0.0)
        self.room = self.room - fleet.tree.sums(np.where(apart[:, None], fleet.hold, 0.0))
        # A car that does not follow a limit may still follow a pause: asked for where what it takes does not fit.
        over = least_of(np.where(fleet.uses > 0, fleet.tree.on_the_way(self.room), 0.0)) < -1e-6
        told = np.where(fleet.ignores & over, 0.0, told)
        self.value = np.where(apart, np.round(np.floor(told / fleet.step_a + 1e-6) * fleet.step_a, 6), self.value)
        for i in np.flatnonzero(apart).tolist():
            self.reasons[i] = "ignores its limit" if fleet.reachable[i] else "unreachable"

    def admit_cars(self) -> None:
        fleet = self.fleet
        possible = self.wanting & ~self.only_surplus
        for i in np.flatnonzero(possible & (self.cap < fleet.min_a - EPS)).tolist():
            own = self.cap_reason[i]
            self.reasons[i] = "below minimum" if own == STATION_MAXIMUM else own
        possible &= self.cap >= fleet.min_a - EPS
        rests = possible & fleet.fresh_pause & ~fleet.must
        self._say(rests, "minimum time off")
        possible &= ~rests
        called = self.spare_allowed | (self.plan > 0) | fleet.fresh_start | fleet.worn
        self._say(possible & ~called, "plan")
        self._admit(possible & called)

    def _admit(self, candidates: Flags) -> None:
        fleet = self.fleet
        # The quarter hour's peak is a matter of money: it may hold a car at its minimum, not switch it on and off.
        mild = self.left.ranks == Rank.CONTRACT
        again = candidates & ~np.isnan(fleet.offered_a) & ~fleet.running & fleet.paused
        need = fleet.min_a + np.where(again & (self.top >= fleet.min_a + self.rules.restart_a), self.rules.restart_a, 0)
        admitted, _, blocked = admit(fleet, candidates, need, self.room, mild)
        self.room = self.room - fleet.tree.sums(np.where(admitted, fleet.min_a, 0.0)[:, None] * fleet.uses)
        for i, row in blocked.items():
            self.reasons[i] = self._blocked(i, row)
            self.places[i] = row
            self.squeezed[i] = fleet.running[i]
            if fleet.running[i]:
                admitted[i] = self._bears(i)
        self.value = np.where(admitted, fleet.min_a, self.value)
        self.on |= admitted

    def _bears(self, car: int) -> bool:
        """A running car whose minimum does not fit is kept on for a few seconds: most such moments pass, and copper
        bears a tenth too much for longer than that. Only where it is remembered since when it does not fit."""
        fleet = self.fleet
        if self.snapshot.carried is None or fleet.min_a[car] > self.cap[car] + EPS:
            return False
        if self.snapshot.now.timestamp() - fleet.memory[car, carried.SQUEEZED] >= self.rules.squeezed_s:
            return False
        path, taken = list(fleet.tree.path(fleet.kinds[car][0])), fleet.min_a[car] * fleet.uses[car]
        if (self.room[path] - taken < -self.left.bears[path])[:, taken > 0].any():
            return False
        self.room[path] -= taken
        return True

    def fill_to_plan(self) -> None:
        """First those who have no time to lose: what the others do not get now, they can still get later."""
        planned = self.on & (self.plan > self.value)
        self._fill_used(planned & self.fleet.tight, self.plan)
        self._fill_used(planned & ~self.fleet.tight, self.plan)

    def fill_spare(self) -> None:
        """What is left goes to those who may exceed the plan."""
        self._fill_used(self.on & self.spare_allowed, self.cap)

    def _fill_used(self, cars: Flags, top: Floats) -> None:
        """Raise these cars towards `top`, as far as they make use of it."""
        if cars.any():
            self._fill(np.where(cars, np.maximum(np.minimum(top, self.fleet.keeps_a), self.value), self.value))

    def leave_unused(self) -> None:
        """What nobody is known to make use of goes to those who may; then it is left to those who have it already: who
        leaves it unused gets no more of it, and no message for it."""
        fleet = self.fleet
        most = np.where(self.spare_allowed, self.cap, self.plan)
        cars = self.on & ~self.squeezed & ~self.only_surplus
        for some, top in (
            (cars & ~fleet.lends, most),
            (cars & fleet.lends, np.minimum(most, np.nan_to_num(fleet.offered_a))),
        ):
            if (some & (top > self.value)).any():
                self._fill(np.where(some, np.maximum(top, self.value), self.value))
        self._round()

    def share_surplus(self) -> None:
        """Only what would be exported goes to those who want no more than that."""
        fleet = self.fleet
        possible = self.only_surplus & (self.cap >= fleet.min_a - EPS)
        self._say(self.only_surplus & ~possible, "below minimum")
        if not possible.any():
            return
        rests = possible & fleet.fresh_pause
        self._say(rests, "minimum time off")
        possible &= ~rests
        free = surplus_a(self.snapshot, fleet, self.left)
        chosen = np.zeros(len(fleet), dtype=bool)
        needs = (fleet.min_a * fleet.uses[:, SUM]).tolist()
        running = (np.nan_to_num(fleet.offered_a, nan=0.0) > 0).tolist()
        without = np.zeros(len(fleet), dtype=bool)
        for i in [i for i in fleet.ordered if possible[i]]:
            enough = free >= needs[i] * (1.0 if running[i] else self.rules.start_surplus)
            if enough or fleet.fresh_start[i] or fleet.worn[i]:
                chosen[i] = True
                without[i] = not enough
                free = max(free - needs[i], 0.0)
        self._say(possible & ~chosen, "no surplus")
        before = self.value.copy()
        self._admit(chosen)
        risen = chosen & (self.value > before)
        shared = self.room.copy()
        shared[0, SUM] = min(shared[0, SUM], free)
        value, _ = fill(fleet.tree, shared, self.value, np.where(risen, self.cap, self.value), fleet.weight, fleet.uses)
        self.room = self.room - fleet.tree.sums((value - self.value)[:, None] * fleet.uses)
        self.value = value
        self._floor(risen)
        self._say(risen & without & fleet.fresh_start, "minimum time on")
        self._say(risen & without & ~fleet.fresh_start, "switched enough")
        self._say(risen & ~without, "surplus")

    def offer_standby(self) -> None:
        """Free EVSEs and full cars: their fail-safe where it fits beside the cars, else 0.

        Nothing is kept from a car for their sake. What they are told they may take the moment somebody plugs in, so
        together they fit in what is left; those who have it keep it before others get it.
        """
        fleet = self.fleet
        idle = self.led & ~fleet.wants
        for i in np.flatnonzero(idle).tolist():
            self.reasons[i] = "free" if fleet.sessions[i].arrived_at is None else "car full"
        standby = np.minimum(np.floor(fleet.fail_safe_a / fleet.step_a + 1e-6) * fleet.step_a, self.cap)
        possible = idle & (standby >= fleet.min_a - EPS) & (standby > 0)
        has = possible & ~(fleet.offered_a < standby)  # also those of whom it is not known
        self._standby(has, standby)
        rested = fleet.changed_s > self.rules.min_off_s
        self._standby(possible & ~has & rested, standby)

    def _standby(self, candidates: Flags, standby: Floats) -> None:
        fleet = self.fleet
        if candidates.any():
            admitted, self.room, _ = admit(fleet, candidates, standby, self.room)
            self.value = np.where(admitted, standby, self.value)

    def _fill(self, cap: Floats) -> None:
        fleet = self.fleet
        self.value, self.room = fill(fleet.tree, self.room, self.value, cap, fleet.weight, fleet.uses)
        self.full |= self.room < 1e-6

    def _round(self) -> None:
        """Down to what the charger can do; what whole-ampere chargers lose by it goes to those that lost most."""
        fleet = self.fleet
        exact = self.value.copy()
        self._floor(self.on)
        loss = exact - self.value
        coarse = self.on & (fleet.step_a >= WHOLE_A) & (loss > EPS) & (self.value + fleet.step_a <= self.top + EPS)
        if not coarse.any():
            return
        place = np.empty(len(fleet))
        place[fleet.order] = np.arange(len(fleet))
        candidates = np.flatnonzero(coarse)
        for i in candidates[np.lexsort((place[candidates], -np.round(loss[candidates], 6)))].tolist():
            path, step_a = list(fleet.tree.path(fleet.kinds[i][0])), fleet.step_a[i]
            taken = step_a * fleet.uses[i]
            if (self.room[path] >= taken - EPS)[:, taken > 0].all():
                self.room[path] -= taken
                self.value[i] += step_a

    def _floor(self, which: Flags) -> None:
        fleet = self.fleet
        floor = np.maximum(np.round(np.floor(self.value / fleet.step_a + 1e-6) * fleet.step_a, 6), fleet.min_a)
        value = np.where(which, floor, self.value)
        self.room = self.room + fleet.tree.sums((self.value - value)[:, None] * fleet.uses)
        self.value = value

    def _say(self, whom: Flags, reason: str) -> None:
        for i in np.flatnonzero(whom).tolist():
            self.reasons[i] = reason

    def _blocked(self, car: int, first: tuple[int, int]) -> str:
        """Why the minimum did not fit: an order has the first word, else the place."""
        left, (n, c) = self.left, first
        orders = [
            (left.ranks[m, d], left.reasons[m][d])
            for m in self.fleet.tree.path(int(self.fleet.tree.at[car]))
            for d in range(SUM + 1)
            if self.fleet.uses[car, d] > 0
            and not left.plain[m, d]
            and self.room[m, d] < self.fleet.min_a[car] * self.fleet.uses[car, d] - EPS
        ]
        if orders:
            return min(orders)[1]
        if n >= self.fleet.circuits:
            return paused_at_station()
        return left.reasons[n][c] if c >= APART else paused(self.snapshot.grid.circuits[n].name, c)

    def answer(self) -> Aim:
        fleet, value = self.fleet, self.value
        coarse = fleet.step_a + 1e-6
        silent = self.on & np.array([not reason for reason in self.reasons], dtype=bool)
        at_plan = silent & ~self.spare_allowed & (self.plan > 0) & (value > self.plan - coarse)
        at_cap = silent & ~at_plan & (value > self.cap - coarse)
        kept = silent & ~at_plan & ~at_cap & ~self.spare_allowed & (self.plan <= 0) & ~self.only_surplus
        content = silent & ~at_plan & ~at_cap & ~kept & fleet.lends & (value > fleet.keeps_a - coarse)
        self._say(at_plan, "plan")
        for i in np.flatnonzero(at_cap).tolist():
            self.reasons[i] = self.cap_reason[i]
        self._say(kept & fleet.fresh_start, "minimum time on")
        self._say(kept & ~fleet.fresh_start, "switched enough")
        self._say(content, "uses less")
        self._say_binding(silent & ~at_plan & ~at_cap & ~kept & ~content)
        return Aim(value, self.cap, self.led, self.reasons, self.places, self.squeezed)

    def _say_binding(self, cars: Flags) -> None:
        """Where each is held back: of the full places on its way up the one of the first rank, then the nearest."""
        fleet, tree, width = self.fleet, self.fleet.tree, self.fleet.columns
        which = np.flatnonzero(cars)
        if not which.size:
            return
        far = (tree.depth.max() - tree.depth)[:, None] * width + np.arange(width)
        span = (int(tree.depth.max()) + 1) * width
        code = np.where(self.full, self.left.ranks * span + far, np.inf)
        least = least_of(
            np.where(picked(fleet.uses, which) > 0, picked(tree.least_above(code), tree.at[which]), np.inf)
        )
        full = np.isfinite(least)
        self._say(np.isin(np.arange(len(fleet)), which[~full]), "plan")
        which, leaves = which[full], tree.at[which[full]]
        deepest = int(tree.depth.max())
        spots = least[full].astype(np.int64) % span
        known, cars_of = np.unique(leaves * span + spots, return_inverse=True)
        found: list[tuple[int, int]] = []
        for both in known.tolist():
            leaf, spot = divmod(both, span)
            above, column = divmod(spot, width)
            path = tree.path(leaf)
            found.append((path[above - (deepest + 1 - len(path))], column))
        for i, k in zip(which.tolist(), cars_of.tolist(), strict=True):
            self.places[i] = place = found[k]
            self.reasons[i] = self.left.reasons[place[0]][place[1]]


def where(snapshot: Snapshot, fleet: Fleet, place: tuple[int, int] | None) -> tuple[str, str]:
    """A node and a column as people call them."""
    if place is None or place[0] >= fleet.circuits:
        return "", ""
    return snapshot.grid.circuits[place[0]].name, phase_of(place[1])

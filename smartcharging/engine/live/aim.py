"""Where every EVSE should be, if all the others already were where they should be.

Pure. Admission is lexicographic: a more urgent car never goes without its minimum for the sake of a less urgent one.
Above the minimum the share is weighted max-min, per phase, on the whole tree.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from smartcharging.engine import carried
from smartcharging.engine.limits import SUM, paused, paused_at_station, phase_of
from smartcharging.engine.live.admission import Place, RowsOf, admit, loading
from smartcharging.engine.live.filling import EPS, fill
from smartcharging.engine.live.fleet import APART, STATION_MAXIMUM, Fleet
from smartcharging.engine.live.residual import Residual, surplus_a
from smartcharging.engine.live.spending import spend
from smartcharging.engine.live.tree import Floats, known_or, least_of, picked
from smartcharging.engine.priorities import Flags
from smartcharging.engine.rules import Rules
from smartcharging.engine.snapshot import Snapshot

WHOLE_A = 0.5  # a charger of coarser steps than this loses something worth sharing again by rounding


@dataclass(frozen=True)
class Aim:
    """`follows`: those whom we lead; the others keep what they have taken and are only told.

    `circuits` and `phases` say where in the tree a car is held back, empty where it is not. `squeezed` are running cars
    whose minimum does not fit.
    """

    current_a: Floats
    cap_a: Floats
    follows: Flags
    reasons: list[str]
    circuits: list[str]
    phases: list[str]
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
        planned = known_or(fleet.planned_a, 0.0)
        planned = np.where(self.wanting & ~self.only_surplus, planned, 0.0)
        # A car that is to have all it can take is given all it may have, whatever it makes of it.
        takes = known_or(fleet.memory[:, carried.TAKES], 1.0)
        place = np.empty(len(fleet))
        place[fleet.order] = np.arange(len(fleet))
        planned = spend(planned, self.cap, fleet.min_a, fleet.uses[:, SUM], takes, fleet.running, place)
        # What it has, it keeps, lest every reading of another moves it.
        has = known_or(fleet.offered_a, 0.0)
        planned = np.where(
            (planned > 0) & (np.abs(has - planned) < rules.ripple_a) & (has >= fleet.min_a), has, planned
        )
        self.plan = np.minimum(planned, self.cap)
        self.top = np.where(self.spare_allowed, self.cap, np.where(self.plan > 0, self.plan, fleet.min_a))
        self.circuits, self.phases = [""] * len(fleet), [""] * len(fleet)
        self.squeezed: Flags = np.zeros(len(fleet), dtype=bool)
        self.full: Flags = np.zeros(room.shape, dtype=bool)
        self.on: Flags = np.zeros(len(fleet), dtype=bool)

    def _caps(self) -> tuple[Floats, list[str]]:
        """The car's own cap, and below a silent meter without a fallback its fail-safe."""
        fleet, strict = self.fleet, self.left.strict
        cap, reasons = fleet.cap_a, list(fleet.cap_reason)
        if strict.any():
            node = fleet.tree.nearest_above(strict)[fleet.tree.at]
            held = strict[node] & (fleet.fail_safe_a < cap)
            cap = np.where(held, fleet.fail_safe_a, cap)
            for i in np.flatnonzero(held).tolist():
                reasons[i] = f"meter stale: {self.snapshot.grid.circuits[node[i]].name}"
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
        over = loading(fleet, self.room < -1e-6)
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
        rests = possible & fleet.fresh_pause & ~fleet.must & self._fits(possible)
        self._say(rests, "minimum time off")
        possible &= ~rests
        called = self.spare_allowed | (self.plan > 0) | fleet.fresh_start | fleet.worn
        self._say(possible & ~called, "plan")
        self._admit(possible & called)

    def _fits(self, cars: Flags) -> Flags:
        """Whose minimum has room where each is: of the others something else is to be said than that they rest."""
        fleet = self.fleet
        if not (cars & fleet.fresh_pause).any():
            return cars
        space = np.where(fleet.uses > 0, fleet.tree.on_the_way(self.room) - fleet.min_a[:, None] * fleet.uses, np.inf)
        return np.asarray(least_of(space) >= -EPS)

    def _admit(self, candidates: Flags) -> None:
        fleet = self.fleet
        # The quarter hour's peak is a matter of money: it may hold a car at its minimum, not switch it on and off. What
        # stands behind it is none: an order, a contract, a fuse.
        again = candidates & ~np.isnan(fleet.offered_a) & ~fleet.running & fleet.paused & ~fleet.must
        need = fleet.min_a + np.where(again & (self.top >= fleet.min_a + self.rules.restart_a), self.rules.restart_a, 0)
        admitted, _, blocked = admit(fleet, candidates, need, self.room, self.left.beyond_peak, fleet.min_a)
        self.room = self.room - fleet.tree.sums(np.where(admitted, fleet.min_a, 0.0)[:, None] * fleet.uses)
        self._set_on(admitted)
        if blocked:
            self._set_on(self._squeeze(blocked))

    def _set_on(self, admitted: Flags) -> None:
        self.value = np.where(admitted, self.fleet.min_a, self.value)
        self.on |= admitted

    def _squeeze(self, blocked: dict[int, Place | None]) -> Flags:
        """Say of each whose minimum does not fit why; and which of them are borne with all the same."""
        fleet, left = self.fleet, self.left
        stopped = np.zeros(len(fleet), dtype=bool)
        stopped[list(blocked)] = True
        self.squeezed |= stopped & fleet.running
        borne, _, _ = admit(fleet, stopped & self._bearable(), fleet.min_a, self.room + left.bears)
        orders = ~left.plain
        orders[:, SUM + 1 :] = False
        rows, space = RowsOf(fleet, orders), self.room.ravel().tolist()
        words = {
            n * fleet.columns + c: (int(left.ranks[n, c]), left.reasons[n][c]) for n, c in np.argwhere(orders).tolist()
        }
        needs, stays = fleet.min_a.tolist(), borne.tolist()
        for (i, place), mine in zip(blocked.items(), rows.of(list(blocked)), strict=True):
            wanted = needs[i]
            # An order that leaves no room for it has the first word, else the place.
            said = [words[row] for row, times in mine if space[row] < wanted * times - EPS]
            if place is None:
                self.reasons[i] = "steady room"
                continue
            self.reasons[i] = min(said)[1] if said else self._blocked(place)
            self.circuits[i], self.phases[i] = self._where(*place)
            if stays[i]:  # what it takes is in the way of the next
                for row, times in mine:
                    space[row] -= wanted * times
        self.room = self.room - fleet.tree.sums(np.where(borne, fleet.min_a, 0.0)[:, None] * fleet.uses)
        return borne

    def _bearable(self) -> Flags:
        """A running car whose minimum does not fit is kept on for a few seconds: most such moments pass, and copper
        bears a tenth too much for longer than that. Only where it is remembered since when it does not fit."""
        fleet = self.fleet
        if self.snapshot.carried is None:
            return np.zeros(len(fleet), dtype=bool)
        passed = self.snapshot.now.timestamp() - fleet.memory[:, carried.SQUEEZED] >= self.rules.squeezed_s
        return fleet.running & ~passed & (fleet.min_a <= self.cap + EPS)

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
            (cars & fleet.lends, np.minimum(most, known_or(fleet.offered_a, 0.0))),
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
        found = surplus_a(self.snapshot, fleet, self.left)
        chosen, without, free, blocked = self._choose(possible, found or 0.0)
        self._say(possible & ~chosen, "no surplus" if found is not None else self._unseen_surplus())
        before = self.value.copy()
        self._admit(chosen)
        if blocked:
            self._set_on(self._squeeze(blocked))
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

    def _choose(self, possible: Flags, surplus: float) -> tuple[Flags, Flags, float, dict[int, Place | None]]:
        """Who gets the surplus [A of all phases together], who of them goes on without it, what is left of it, and
        whose minimum does not fit for other reasons: he takes none of it from others."""
        fleet, room = self.fleet, self.room
        tight = fleet.tree.sums(np.where(possible, fleet.min_a, 0.0)[:, None] * fleet.uses) > room + EPS
        rows, space, beyond = RowsOf(fleet, tight), room.ravel().tolist(), self.left.beyond_peak.ravel().tolist()
        least, running = fleet.min_a.tolist(), (known_or(fleet.offered_a, 0.0) > 0).tolist()
        needs, fresh = (fleet.min_a * fleet.uses[:, SUM]).tolist(), fleet.fresh_start.tolist()
        chosen, without, free = np.zeros_like(possible), np.zeros_like(possible), surplus
        blocked: dict[int, Place | None] = {}
        walk = fleet.order[possible[fleet.order]].tolist()
        for i, mine in zip(walk, rows.of(walk), strict=True):
            enough = free >= needs[i] * (1.0 if running[i] else self.rules.start_surplus)
            if not (enough or fresh[i] or fleet.worn[i]):
                continue
            full = [r for r, n in mine if space[r] + (beyond[r] if fresh[i] else 0.0) < least[i] * n - EPS]
            if full:
                blocked[i] = rows.place(full[0])
                continue
            chosen[i], without[i] = True, not enough
            free = max(free - needs[i], 0.0)
            for r, n in mine:
                space[r] -= least[i] * n
        return chosen, without, free, blocked

    def _unseen_surplus(self) -> str:
        """Why nobody knows what there is."""
        if self.left.stale[0]:
            return f"meter stale: {self.snapshot.grid.circuits[0].name}"
        return "battery silent" if any(b.power_w is None for b in self.snapshot.batteries) else "no surplus"

    def offer_standby(self) -> None:
        """Free EVSEs and full cars: their fail-safe where it fits beside the cars, else 0.

        Nothing is kept from a car for their sake. What they are told they may take the moment somebody plugs in, so
        together they fit in what is left; those who have it keep it before others get it.
        """
        fleet = self.fleet
        idle = self.led & ~fleet.wants
        for i in np.flatnonzero(idle).tolist():
            self.reasons[i] = "free" if fleet.vacant[i] else "car full"
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
            path, step_a = list(fleet.tree.path(int(fleet.tree.at[i]))), fleet.step_a[i]
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

    def _blocked(self, place: Place) -> str:
        """Why the minimum did not fit there."""
        n, c = place
        if n >= self.fleet.circuits:
            return paused_at_station()
        return self.left.reasons[n][c] if c >= APART else paused(self.snapshot.grid.circuits[n].name, c)

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
        return Aim(value, self.cap, self.led, self.reasons, self.circuits, self.phases, self.squeezed)

    def _say_binding(self, cars: Flags) -> None:
        """Where each is held back: of the full places on its way up the one of the first rank, then the nearest."""
        fleet, tree, width = self.fleet, self.fleet.tree, self.fleet.columns
        which = np.flatnonzero(cars)
        if not which.size:
            return
        # One number for each place says all: rank, then how far up, and with that which place it is.
        up, places = tree.shape.height - tree.shape.depth, tree.size * width
        rank = self.left.ranks * (tree.shape.height + 1) + up[:, None]
        code = np.where(self.full, rank * places + np.arange(places).reshape(-1, width), np.inf)
        ways = picked(tree.least_above(code), tree.at[which])
        least = least_of(np.where(picked(fleet.uses, which) > 0, ways, np.inf))
        full = np.isfinite(least)
        for i in which[~full].tolist():
            self.reasons[i] = "plan"
        rows = (least[full].astype(np.int64) % places).tolist()
        found: dict[int, tuple[str, str, str]] = {}
        for row in set(rows):
            n, c = divmod(row, width)
            found[row] = self.left.reasons[n][c], *self._where(n, c)
        for i, row in zip(which[full].tolist(), rows, strict=True):
            self.reasons[i], self.circuits[i], self.phases[i] = found[row]

    def _where(self, node: int, column: int) -> tuple[str, str]:
        """A node and a column as people call them; nothing for a station, which is no circuit."""
        if node >= self.fleet.circuits:
            return "", ""
        return self.snapshot.grid.circuits[node].name, phase_of(column)

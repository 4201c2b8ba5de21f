"""Baselines that plan nothing, or each car by itself: our own reductions of what is published.

All of them know the true headroom of every circuit and phase at every step, stop a car when it has what it asked for,
and leave the battery to serve the connection by itself (self-consumption). None knows more of the future than prices.
A car out of reach keeps what it has, and counts with it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np
from numpy.typing import NDArray

from smartcharging.engine.grid import NOMINAL_V
from smartcharging.replay.days import SLOT_S
from smartcharging.replay.moment import Flags, Known, Moment, Orders
from smartcharging.replay.site import Floats

MIN_A = 6.0
ROUND_S = 300  # a turn of the round robin
SLICE_A = 2.0
Order = NDArray[np.intp]


class Rule(ABC):
    """Share the room there is, asked anew at every step."""

    name = ""

    def __init__(self, known: Known) -> None:
        self.known = known
        self.plan_s: list[float] = []

    def decide(self, moment: Moment) -> Orders:
        wants = moment.here & (moment.need_wh > 0) & moment.reachable
        return Orders(self.share(moment, wants, _Room(moment)))

    @abstractmethod
    def share(self, moment: Moment, wants: Flags, room: _Room) -> Floats: ...


class _Room:
    """What is left on every circuit and phase; `give` takes from it."""

    def __init__(self, moment: Moment) -> None:
        site = moment.site
        each = (moment.building_w + moment.pv_w) / NOMINAL_V
        self.left = site.limit_a.copy()
        self.left[0] -= np.array([each / 3, each / 3, each / 3, each])
        self.uses, self.paths = moment.uses, site.paths
        lost = moment.here & ~moment.reachable
        if lost.any():
            self.left -= site.summed(np.where(lost[:, None], moment.offered_a[:, None] * self.uses, 0.0))

    def most_a(self, car: int) -> float:
        """How much more this car alone could have."""
        used = self.uses[car] > 0
        return float((self.left[self.paths[car]][:, used] / self.uses[car][used]).min())

    def give(self, car: int, amps: float) -> None:
        self.left[self.paths[car]] -= amps * self.uses[car]


def one_by_one(moment: Moment, order: Order, room: _Room, top_a: Floats | None = None) -> Floats:
    """Each in turn as much as he can have, or nothing."""
    top = moment.max_a if top_a is None else top_a
    limit = np.zeros(moment.here.shape[0])
    for car in order.tolist():
        amps = min(float(top[car]), room.most_a(car))
        if amps >= MIN_A:
            room.give(car, amps)
            limit[car] = amps
    return limit


def laxity_s(moment: Moment) -> Floats:
    """Time left less the time the need takes at full power."""
    takes = moment.need_wh * 3600 / np.maximum(moment.max_w, 1.0)
    return np.asarray(moment.stated_s - moment.second - takes)


class Uncontrolled(Rule):
    """Everybody takes what car and station can."""

    name = "uncontrolled"

    def share(self, moment: Moment, wants: Flags, room: _Room) -> Floats:
        return np.where(wants, moment.max_a, 0.0)


class FirstCome(Rule):
    name = "FCFS"

    def share(self, moment: Moment, wants: Flags, room: _Room) -> Floats:
        return one_by_one(moment, _sorted(wants, moment.arrived_s), room)


class EarliestDeadline(Rule):
    name = "EDF"

    def share(self, moment: Moment, wants: Flags, room: _Room) -> Floats:
        return one_by_one(moment, _sorted(wants, moment.stated_s), room)


class LeastLaxity(Rule):
    """Least laxity first, judged at the beginning of each quarter hour or when somebody comes or goes, lest two cars
    take turns every minute."""

    name = "LLF"

    def __init__(self, known: Known) -> None:
        super().__init__(known)
        self._laxity: Floats | None = None

    def share(self, moment: Moment, wants: Flags, room: _Room) -> Floats:
        if self._laxity is None or moment.changed or moment.second % SLOT_S == 0:
            self._laxity = laxity_s(moment)
        return one_by_one(moment, _sorted(wants, self._laxity), room)


class RoundRobin(Rule):
    """The minimum for as many as it is enough for, beginning with another one every five minutes; then slice by slice
    until nothing is left."""

    name = "round robin"

    def share(self, moment: Moment, wants: Flags, room: _Room) -> Floats:
        cars = np.flatnonzero(wants)
        if not cars.size:
            return np.zeros(wants.shape[0])
        order = np.roll(cars, -(moment.second // ROUND_S) % cars.size)
        limit = one_by_one(moment, order, room, np.minimum(MIN_A, moment.max_a))
        return _in_slices(moment, order, room, limit)


class EvccLike(Rule):
    """Each car picks the cheapest slots before it leaves by itself and then charges at full power, as far as the
    circuits allow, who came first first; it charges anyway when there is no time left."""

    name = "evcc-like"

    def share(self, moment: Moment, wants: Flags, room: _Room) -> Floats:
        slot = moment.second // SLOT_S
        prices = self.known.buy_eur_per_kwh[slot:]
        on = np.zeros(wants.shape[0], dtype=bool)
        for car in np.flatnonzero(wants).tolist():
            left = max(int((moment.stated_s[car] - moment.second) // SLOT_S), 1)
            takes = int(np.ceil(moment.need_wh[car] / max(moment.max_w[car], 1.0) * 3600 / SLOT_S))
            cheapest = np.argsort(prices[:left], kind="stable")[:takes]
            on[car] = takes >= left or 0 in cheapest
        return one_by_one(moment, _sorted(on, moment.arrived_s), room)


class OpenEmsLike(Rule):
    """A fixed order of the stations: the minimum is guaranteed down the list as far as it goes, and what is left is
    given from the top."""

    name = "OpenEMS-like"

    def share(self, moment: Moment, wants: Flags, room: _Room) -> Floats:
        order = np.flatnonzero(wants)
        limit = one_by_one(moment, order, room, np.minimum(MIN_A, moment.max_a))
        for car in order.tolist():
            if limit[car] > 0:
                more = max(min(float(moment.max_a[car]) - limit[car], room.most_a(car)), 0.0)
                room.give(car, more)
                limit[car] += more
        return limit


def _sorted(wants: Flags, by: Floats) -> Order:
    cars = np.flatnonzero(wants)
    return cars[np.argsort(by[cars], kind="stable")]


def _in_slices(moment: Moment, order: Order, room: _Room, limit: Floats) -> Floats:
    live = [car for car in order.tolist() if limit[car] > 0]
    while live:
        going_on = []
        for car in live:
            more = min(SLICE_A, float(moment.max_a[car]) - limit[car], room.most_a(car))
            if more > 1e-6:
                room.give(car, more)
                limit[car] += more
                going_on.append(car)
        live = going_on
    return limit

"""Stations whose EVSEs share one inlet: so many amps on each of its phases.

Pure. Written in the scale of `rooms.py`: a phase's amps as the balanced power that they would carry, of which a car
takes what it weighs there.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from smartcharging.engine.grid import balanced_kw_per_a
from smartcharging.engine.plan import rooms
from smartcharging.engine.plan.problem import PlanProblem, Series
from smartcharging.engine.plan.rooms import Integers


@dataclass(frozen=True)
class Stations:
    """`most_kw` is what each inlet carries on a phase, `of_session` the station of each session (-1: none that shares
    an inlet), and `even` tells where all cars of a station load all phases alike."""

    most_kw: Series
    of_session: Integers
    weight: Series
    even: NDArray[np.bool_]

    @classmethod
    def of(cls, problem: PlanProblem) -> Stations:
        most_a: dict[int, float] = {}
        for s in problem.sessions:
            if s.group is not None and s.group_max_a is not None:
                most_a[s.group] = min(most_a.get(s.group, np.inf), s.group_max_a)
        place = {group: number for number, group in enumerate(most_a)}
        of_session = [-1 if s.group is None else place.get(s.group, -1) for s in problem.sessions]
        weight = rooms.weights(problem) if place else np.ones((len(of_session), rooms.KINDS))
        even = np.ones(len(place), dtype=bool)
        station = np.array(of_session, dtype=np.int64)
        even[station[(station >= 0) & (weight != 1).any(axis=1)]] = False
        most = np.array(list(most_a.values()), dtype=np.float64) * balanced_kw_per_a(problem.grid.supply)
        return cls(most, station, weight, even)

    def carried_kw(self, station: Integers, session: Integers, cell_kw: Series, count: int) -> Series:
        """What each of `count` places carries of each kind: cells of these sessions, each with its place."""
        found = [np.bincount(station, cell_kw * self.weight[session, k], minlength=count) for k in range(rooms.KINDS)]
        return np.array(found, dtype=np.float64)

    @property
    def sure_kw(self) -> Series:
        """What the cars of each station have together at most, whichever of them take it: an inlet's amps on all
        phases, or on one that all of them load."""
        least = np.ones((self.most_kw.shape[0], rooms.KINDS))
        uneven = np.flatnonzero(~self.even)
        if uneven.size:
            least[uneven] = np.inf
            inside = np.flatnonzero(self.of_session >= 0)
            np.minimum.at(least, self.of_session[inside], self.weight[inside])
        sure: Series = self.most_kw / np.maximum(least.max(axis=1, initial=0.0), 1.0)
        return sure

"""What would give a car that falls short all it wants, when all the others stay as they are planned.

Pure. Reckoned from the powers of a plan alone, beside the program that made it: what each circuit has left per slot,
less nothing that is promised to others. A remedy is named only when it is enough by itself. All in kW inside.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from datetime import datetime, timedelta
from typing import Any

import numpy as np

from smartcharging.engine.explain.causes import cause_of
from smartcharging.engine.grid import balanced_kw_per_a, power_weight
from smartcharging.engine.plan.problem import PlanProblem, PlanResult, PlanSession, Series
from smartcharging.engine.plan.rooms import L1, L3, WATTS, Rooms, battery_weight, phase_weights, weights
from smartcharging.engine.plan.rule import with_known_numbers
from smartcharging.engine.plan.stations import Stations
from smartcharging.engine.snapshot import Mode

ENOUGH_KWH = 1e-6


@dataclass(frozen=True, slots=True)
class Remedies:
    """Each alone would be enough. None: it would not, or it cannot be known within the plan's horizon.

    `raise_a` (on every phase) or `raise_w` is by how much the circuit of the shortfall's reason would have to allow
    more, throughout the interval of that reason. `room_after_w` is what the car could take right after it.
    """

    leave_at: datetime | None = None
    raise_a: float | None = None
    raise_w: float | None = None
    room_after_w: float | None = None
    three_phases: bool = False

    def to_dict(self) -> dict[str, str | float | bool]:
        """As JSON keeps it: without what is not known."""
        known = {f.name: getattr(self, f.name) for f in fields(self)}
        return {k: v.isoformat() if isinstance(v, datetime) else v for k, v in known.items() if v}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Remedies:
        """What `to_dict` wrote; other members are others'."""
        leave_at = data.get("leave_at")
        return cls(
            leave_at=None if leave_at is None else datetime.fromisoformat(leave_at),
            raise_a=data.get("raise_a"),
            raise_w=data.get("raise_w"),
            room_after_w=data.get("room_after_w"),
            three_phases=bool(data.get("three_phases")),
        )


def remedies(problem: PlanProblem, result: PlanResult) -> Mapping[str, Remedies]:
    """By label, for every session that falls short; those that are only expected are promised nothing."""
    sessions = enumerate(problem.sessions)
    short = [i for i, s in sessions if not s.expected and result.shortfall_wh.get(s.label, 0.0) > 0]
    if not short:
        return {}
    left = _Left(with_known_numbers(problem), result)
    return {
        problem.sessions[i].label: left.remedies(
            i,
            result.shortfall_wh[problem.sessions[i].label],
            result.shortfall_reason.get(problem.sessions[i].label, ""),
        )
        for i in short
    }


class _Left:
    """What a plan leaves at every circuit, kind of limit and slot."""

    def __init__(self, problem: PlanProblem, result: PlanResult) -> None:
        self.problem = problem
        self.slot_h = problem.slot_s / 3600
        self.weight = weights(problem)
        self.power = [_within(s, result.session_w.get(s.key), problem.slots) for s in problem.sessions]
        carried = np.zeros((len(problem.grid), 4, problem.slots))
        for i, session in enumerate(problem.sessions):
            for n in problem.grid.path(session.node):
                carried[n] += self.weight[i][:, None] * self.power[i]
        load_weights = phase_weights([x.phases for x in problem.loads], problem.grid.supply)
        for load, weight in zip(problem.loads, load_weights, strict=True):
            for n in problem.grid.path(load.node):
                carried[n] += weight[:, None] * result.load_w[load.key] / 1000
        if problem.battery is not None:
            for n in problem.grid.path(problem.battery.node):
                carried[n] += battery_weight(problem)[:, None] * result.battery_w / 1000
        self.room = Rooms.of(problem).room - carried
        self.stations = Stations.of(problem)
        self.inlet = self.stations.most_kw[:, None, None] * np.ones((4, problem.slots))
        self.arrivals: dict[str, list[int]] = {}  # the first slots of each EVSE's cars
        for i, session in enumerate(problem.sessions):
            self.arrivals.setdefault(session.key, []).append(session.first_slot)
            if self.stations.of_session[i] >= 0:
                self.inlet[self.stations.of_session[i]] -= self.weight[i][:, None] * self.power[i]
        sun = np.maximum(-(problem.building_w + problem.pv_w), 0.0) / 1000
        self.sun = np.maximum(sun - sum(self._of_sun(), np.zeros(problem.slots)), 0.0)

    def _of_sun(self) -> Iterator[Series]:
        return (p for p, s in zip(self.power, self.problem.sessions, strict=True) if s.mode is Mode.SURPLUS)

    def remedies(self, i: int, short_wh: float, reason: str) -> Remedies:
        session, cause = self.problem.sessions[i], cause_of(reason)
        if session.max_w <= 0:
            return Remedies()
        short_kwh = short_wh / 1000 / session.efficiency
        after = None if cause.ends_at is None else self._slot(cause.ends_at)
        raise_a, raise_w = self._raise(i, short_kwh, reason)
        return Remedies(
            leave_at=self._leave_at(i, short_kwh),
            raise_a=raise_a,
            raise_w=raise_w,
            room_after_w=None if after is None else self._could_take_w(i, after),
            three_phases=self._on_three_phases(i),
        )

    def _slot(self, moment: datetime) -> int:
        return int((moment - self.problem.start).total_seconds() // self.problem.slot_s)

    def _spare(self, i: int, without: tuple[int, tuple[int, ...]] | None = None) -> Series:
        """What the car could take above its plan, by the tree, its station and the sun; `without` leaves out some
        limits (circuit, kinds)."""
        session = self.problem.sessions[i]
        spare = np.full(self.problem.slots, np.inf)
        for n in self.problem.grid.path(session.node):
            for kind in np.flatnonzero(self.weight[i] > 0).tolist():
                if without is None or n != without[0] or kind not in without[1]:
                    spare = np.minimum(spare, self.room[n, kind] / self.weight[i, kind])
        used = self.weight[i] > 0
        spare = np.minimum(spare, (self._inlet(i)[used] / self.weight[i, used, None]).min(axis=0))
        if session.mode is Mode.SURPLUS:
            spare = np.minimum(spare, self.sun)
        more: Series = np.clip(spare, 0.0, np.maximum(session.max_w / 1000 - self.power[i], 0.0))
        return more

    def _inlet(self, i: int) -> Series:
        """What the car's station leaves of each kind: more than anybody wants where the EVSEs share nothing."""
        station = int(self.stations.of_session[i])
        left: Series = self.inlet[station] if station >= 0 else np.full((4, self.problem.slots), np.inf)
        return left

    def _leave_at(self, i: int, short_kwh: float) -> datetime | None:
        """The end of the slot by which all of it would be in the car, if it stayed and nobody takes its place."""
        session = self.problem.sessions[i]
        later = [first for first in self.arrivals[session.key] if first >= session.last_slot]
        end = min(later, default=self.problem.slots)
        gained = np.cumsum(self._spare(i)[session.last_slot : end]) * self.slot_h
        enough = np.flatnonzero(gained >= short_kwh - ENOUGH_KWH)
        if not enough.size:
            return None
        slot = session.last_slot + int(enough[0]) + 1
        return self.problem.start + timedelta(seconds=slot * self.problem.slot_s)

    def _could_take_w(self, i: int, slot: int) -> float | None:
        session = self.problem.sessions[i]
        if not session.first_slot <= slot < session.last_slot:
            return None
        return float(self.power[i][slot] + self._spare(i)[slot]) * 1000

    def _raise(self, i: int, short_kwh: float, reason: str) -> tuple[float | None, float | None]:
        """By how many amps or watts the circuit of the reason would have to allow more in its interval."""
        session, cause = self.problem.sessions[i], cause_of(reason)
        names = [c.name for c in self.problem.grid.circuits]
        if cause.code != "limit" or cause.circuit not in names or cause.starts_at is None or cause.ends_at is None:
            return None, None
        node, kinds = names.index(cause.circuit), (tuple(range(L1, L3 + 1)) if cause.phase else (WATTS,))
        first, last = max(self._slot(cause.starts_at), session.first_slot), self._slot(cause.ends_at)
        window = slice(first, min(last, session.last_slot))
        most = self._spare(i, without=(node, kinds))[window]
        used = [k for k in kinds if self.weight[i, k] > 0]
        held = np.max([-self.room[node, k, window] for k in used], axis=0)  # above zero: overloaded by the building
        weight = max(float(self.weight[i, k]) for k in used)
        raised = _least_raise(most, held / weight, short_kwh / self.slot_h)
        if raised is None:
            return None, None
        if cause.phase:
            return math.ceil(raised * weight / balanced_kw_per_a(self.problem.grid.supply) - 1e-6), None
        return None, math.ceil(raised * 10 - 1e-6) * 100.0

    def _on_three_phases(self, i: int) -> bool:
        """Would a car, or a cable, of three phases have all of it by the same time, with the same amps per phase?"""
        session = self.problem.sessions[i]
        supply = self.problem.grid.supply
        count = sum(session.phases)
        if not 0 < count < 3 or session.mode is Mode.SURPLUS:
            return False
        more = power_weight(3, supply) / power_weight(count, supply)
        room = np.full(self.problem.slots, session.max_w / 1000 * more)
        for left in (self._inlet(i), *(self.room[n] for n in self.problem.grid.path(session.node))):
            room = np.minimum(room, (left + self.weight[i][:, None] * self.power[i]).min(axis=0))
        window = slice(session.first_slot, session.last_slot)
        could_kwh = float(np.maximum(room[window], 0.0).sum()) * self.slot_h
        return could_kwh >= session.energy_wh / 1000 / session.efficiency - ENOUGH_KWH


def _within(session: PlanSession, series: Series | None, slots: int) -> Series:
    """The part of its EVSE's series that is this session's, in kW."""
    power = np.zeros(slots)
    if series is not None:
        window = slice(session.first_slot, session.last_slot)
        power[window] = series[window] / 1000
    return power


def _least_raise(most: Series, held: Series, needed: float) -> float | None:
    """The least r with Σ min(most, max(r − held, 0)) ≥ needed; None when even the greatest is not enough.

    The sum grows with r along straight pieces between the points where a slot begins to gain or has gained its most.
    """
    if needed > float(most.sum()) + ENOUGH_KWH:
        return None

    def gained(r: float) -> float:
        return float(np.minimum(most, np.maximum(r - held, 0.0)).sum())

    corners = np.unique(np.concatenate((held, held + most)))
    corners = corners[corners >= 0]
    before: float = 0.0
    for corner in map(float, corners):
        low, high = gained(before), gained(corner)
        if high >= needed - ENOUGH_KWH:
            share = 1.0 if high <= low else (needed - low) / (high - low)
            return before + (corner - before) * min(max(share, 0.0), 1.0)
        before = corner
    return None

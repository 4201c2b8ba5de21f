"""The sessions of a snapshot as columns of numbers, for a fleet of thousands to be reckoned with at once.

Pure. Numbers as they are in `Session`, NaN where a fact is not known; moments are the seconds since then, negative for
what is still to come.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from smartcharging.engine.snapshot import Mode, Session

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]

NAN = float("nan")
_UNKNOWN = (NAN, NAN, NAN)


@dataclass(frozen=True)
class Columns:
    max_a: Floats
    min_a: Floats
    max_w: Floats
    step_a: Floats
    offered_a: Floats
    offered_before_a: Floats
    fail_safe_a: Floats
    isolated_a: Floats
    priority: Floats
    energy_needed_wh: Floats
    planned_w: Floats
    phases: Flags  # a column for each of L1, L2, L3
    measured_a: Floats  # likewise
    dc: Flags
    wants: Flags
    reachable: Flags
    fast: Flags
    surplus: Flags
    offered_since_s: Floats
    lease_ended_s: Floats
    measured_since_s: Floats
    here_s: Floats
    departed_s: Floats
    on_since_s: Floats
    off_since_s: Floats

    @classmethod
    def of(cls, sessions: Sequence[Session], now: datetime) -> Columns:
        """Plain comprehensions, one a fact: nothing else reads so many attributes as quickly."""
        fast, surplus = Mode.FAST, Mode.SURPLUS
        return cls(
            max_a=_numbers([s.max_a for s in sessions]),
            min_a=_numbers([s.min_a for s in sessions]),
            max_w=_numbers([s.max_w for s in sessions]),
            step_a=_numbers([s.step_a for s in sessions]),
            offered_a=_numbers([s.offered_a for s in sessions]),
            offered_before_a=_numbers([s.offered_before_a for s in sessions]),
            fail_safe_a=_numbers([s.fail_safe_a for s in sessions]),
            isolated_a=_numbers([s.isolated_a for s in sessions]),
            priority=_numbers([s.priority for s in sessions]),
            energy_needed_wh=_numbers([s.energy_needed_wh for s in sessions]),
            planned_w=_numbers([s.planned_w for s in sessions]),
            phases=_threes([s.phases for s in sessions]) > 0,
            measured_a=_threes([s.measured_a or _UNKNOWN for s in sessions]),
            dc=_flags([s.dc for s in sessions]),
            wants=_flags([s.wants for s in sessions]),
            reachable=_flags([s.reachable for s in sessions]),
            fast=_flags([s.mode is fast for s in sessions]),
            surplus=_flags([s.mode is surplus for s in sessions]),
            offered_since_s=_seconds_since([s.offered_since for s in sessions], now),
            lease_ended_s=_seconds_since([s.lease_until for s in sessions], now),
            measured_since_s=_seconds_since([s.measured_at for s in sessions], now),
            here_s=_seconds_since([s.arrived_at for s in sessions], now),
            departed_s=_seconds_since([s.departure for s in sessions], now),
            on_since_s=_seconds_since([s.on_since for s in sessions], now),
            off_since_s=_seconds_since([s.off_since for s in sessions], now),
        )


def _numbers(values: Sequence[float | None]) -> Floats:
    if None in values[:1]:  # where one has none, often none has: None is slow to become a number
        values = [NAN if value is None else value for value in values]
    return np.array(values, dtype=np.float64)


def _flags(values: Sequence[bool]) -> Flags:
    return np.array(values, dtype=np.bool_)


def _threes(phases: Sequence[Sequence[float]]) -> Floats:
    return np.fromiter(chain.from_iterable(phases), np.float64, 3 * len(phases)).reshape(-1, 3)


def _seconds_since(moments: Sequence[datetime | None], now: datetime) -> Floats:
    return np.array([NAN if m is None else (now - m).total_seconds() for m in moments], dtype=np.float64)

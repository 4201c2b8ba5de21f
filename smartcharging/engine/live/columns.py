"""The sessions of a snapshot as columns of numbers, for a fleet of thousands to be reckoned with at once.

Pure. Numbers as they are in `Session`, NaN where a fact is not known; moments are the seconds since then, negative for
what is still to come.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from struct import Struct

import numpy as np
from numpy.typing import NDArray

from smartcharging.engine.snapshot import Mode, Session

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]
Ints = NDArray[np.intp]
Table = NDArray[np.void]

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
    offered_since_s: Floats
    lease_ended_s: Floats  # NaN also while it runs
    measured_since_s: Floats
    here_s: Floats
    departed_s: Floats
    on_since_s: Floats
    off_since_s: Floats
    measured_a: Floats  # a column for each of L1, L2, L3
    phases: Flags  # likewise
    dc: Flags
    wants: Flags
    reachable: Flags
    fast: Flags
    surplus: Flags
    node: Ints


_KINDS = {"Floats": np.float64, "Flags": np.bool_, "Ints": np.int64}
_THREE = ("measured_a", "phases")
_TOLD = ("offered_a", "offered_before_a", "measured_a")  # by the station: without end is as good as not at all
_ROW = np.dtype([(f.name, _KINDS[str(f.type)], (3,) if f.name in _THREE else ()) for f in fields(Columns)])
"""The facts of one session, in the order of the fields above."""


def read(sessions: Sequence[Session], now: datetime) -> Table:
    """The facts of all sessions as they are listed, a row for each."""
    return np.frombuffer(_rows(sessions, now), dtype=_ROW)


def columns(table: Table, order: Ints) -> Columns:
    """The same in this order, each fact for itself: what is reckoned with has to lie side by side."""
    facts = {name: table[name][order] for name in _ROW.names or ()}
    for name in _TOLD:
        facts[name] = np.where(np.isinf(facts[name]), NAN, facts[name])
    return Columns(**facts)


def _rows(sessions: Sequence[Session], now: datetime) -> bytes:
    """A row for each session, as `_ROW` has it, one behind the other.

    One long expression for all facts of a session: it is read as a whole while it is at hand. A comprehension for each
    fact, made an array, takes half as long again; arguments told by a star, a sixth more.
    """
    row, fast, surplus = Struct("=21d8?q").pack, Mode.FAST, Mode.SURPLUS
    return b"".join(
        [
            row(
                s.max_a,
                s.min_a,
                NAN if s.max_w is None else s.max_w,
                s.step_a,
                NAN if s.offered_a is None else s.offered_a,
                NAN if s.offered_before_a is None else s.offered_before_a,
                s.fail_safe_a,
                NAN if s.isolated_a is None else s.isolated_a,
                s.priority,
                NAN if s.energy_needed_wh is None else s.energy_needed_wh,
                NAN if s.planned_w is None else s.planned_w,
                NAN if s.offered_since is None else (now - s.offered_since).total_seconds(),
                NAN if s.lease_until is None or s.lease_until > now else (now - s.lease_until).total_seconds(),
                NAN if s.measured_at is None else (now - s.measured_at).total_seconds(),
                NAN if s.arrived_at is None else (now - s.arrived_at).total_seconds(),
                NAN if s.departure is None else (now - s.departure).total_seconds(),
                NAN if s.on_since is None else (now - s.on_since).total_seconds(),
                NAN if s.off_since is None else (now - s.off_since).total_seconds(),
                l1_a,
                l2_a,
                l3_a,
                l1,
                l2,
                l3,
                s.dc,
                s.wants,
                s.reachable,
                s.mode is fast,
                s.mode is surplus,
                s.node,
            )
            for s in sessions
            for l1_a, l2_a, l3_a in [s.measured_a or _UNKNOWN]
            for l1, l2, l3 in [s.phases]
        ]
    )

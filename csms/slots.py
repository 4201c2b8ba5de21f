"""One slot per EVSE: who wants what of it, which of them counts, and what its station stands by.

The lowest of all that stand counts, so that nobody widens what another narrowed; a later word of the same wanter
takes the place of the one before.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from csms.bus import Want
from csms.following import Watch
from csms.ladder import Rung
from csms.trail import new_key

SAME = 0.05


@dataclass(frozen=True, slots=True)
class Accepted:
    """What the station took: the limit in the want's own unit, until when, and for which transaction."""

    value: float
    until: datetime | None  # None: the fail-safe, which has no end
    transaction_id: str | None
    steps: tuple[tuple[datetime, float], ...] = ()

    def at(self, now: datetime) -> float:
        return self.step_at(now)[0]

    def step_at(self, now: datetime) -> tuple[float, datetime | None]:
        """The limit at a moment, and since when; None for the moment it was accepted."""
        value: tuple[float, datetime | None] = (self.value, None)
        for moment, limit in self.steps:
            if moment <= now:
                value = (limit, moment)
        return value


@dataclass(slots=True)
class Slot:
    """One EVSE: the want that counts, what is in force, and how far it is followed."""

    number: int
    wants: dict[str, Want] = field(default_factory=dict)  # by who wants it; "" is whoever steers
    want: Want | None = None  # the lowest that stands
    changed_at: float = -1e9
    accepted: Accepted | None = None
    sent_at: float = -1e9
    failures: int = 0
    not_before: float = -1e9
    refused: tuple[float, str | None] | None = None
    covered_until: float = 0.0  # until then a default other than the fail-safe may lie on top of it
    written: dict[str, Any] = field(default_factory=dict)
    task: asyncio.Task[None] | None = None
    on_wire: bool = False  # the present message has left us
    # How it is followed.
    state: str = ""
    rung: Rung | None = None  # by which it was told last
    ignored: list[Rung] = field(default_factory=list)  # by which it did not follow, in this transaction
    low: bool = False  # 0 was not followed: the smallest limit above it stands for it
    watch: Watch | None = None
    isolated: bool = False
    unanswered: int = 0
    word: str = ""  # the status or charging state told last
    amps: float | None = None  # measured last, highest phase
    amps_at: datetime | None = None
    phases_seen: int | None = None  # the car was seen to use so many
    shared_over: int | None = None  # … and all the watts it was told went there
    spacings: list[float] = field(default_factory=list)  # between its last meter values, in seconds
    schedule_at: float = -1e9
    overstays: int = 0  # values above the fail-safe after the end of a lease
    # Going on after a pause.
    paused: bool = False
    after_pause: bool = False  # the present limit is the first one above 0 after a pause
    charged: bool = False  # it was seen to charge before the pause
    mark: int = 0  # a new pause, transaction or limit makes an errand of before void
    recipe: str = ""  # what was done last to make it go on
    step: str = field(default_factory=new_key)  # the present row of the trail

    def lowest(self, now: datetime, amps: Any) -> Want | None:
        """The lowest want that stands at `now`; whoever steers goes before a hand that asks for the same."""
        for by in [by for by, want in self.wants.items() if want.until <= now and by]:
            del self.wants[by]
        standing = [w for w in self.wants.values() if w.until > now] or list(self.wants.values())
        return min(standing, key=lambda w: (round(amps(w), 2), bool(w.by)), default=None)

    def ends_in(self, now: datetime) -> float | None:
        """Seconds until a hand that stands lets go."""
        ends = [(w.until - now).total_seconds() for by, w in self.wants.items() if by and w.until > now]
        return min(ends, default=None)

    def asked(self, now: datetime) -> list[dict[str, Any]]:
        """Who wants what now, as it is shown."""
        return [
            {"by": w.by, "a": w.limit_a, "w": w.limit_w, "reason": w.reason[:200]}
            for w in self.wants.values()
            if w.until > now
        ]

    def begin_anew(self) -> None:
        """Nothing is known to be in force; whatever was refused or not followed may be tried again."""
        self.accepted, self.refused, self.failures, self.not_before = None, None, 0, -1e9
        self.watch, self.schedule_at, self.overstays = None, -1e9, 0
        self.mark += 1


def value_of(want: Want) -> float:
    value = want.limit_a if want.limit_a is not None else want.limit_w
    return max(0.0, value or 0.0)

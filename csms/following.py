"""Does a station follow? What is seen of an EVSE after it accepted a limit, judged by its meter. Pure.

A limit is *measured* once a value taken after it was accepted is at or below it. It is *not followed* when values
taken later than a car needs to come down stay above it, several in a row. A schedule the station shows is a
hint and no proof (Q22): the meter decides.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from csms.profiles import NOMINAL_V, Unit
from meters.supply import Supply, power_weight

DRAWS_A = 1.0
"""A current above this is a car that charges; below it nothing is proven."""


@dataclass(frozen=True, slots=True)
class Patience:
    """The timings of obedience, in seconds, and how sure one must be."""

    follow_s: float = (
        30.0  # a car on AC is at its new, lower limit: IEC 61851-1's 5 s, the meter's interval, the way here
    )
    follow_dc_s: float = 60.0
    tolerance_a: float = 1.0  # a meter's error and a car's ripple …
    tolerance: float = 0.05  # … and this share of the limit
    tolerance_dc: float = 0.12  # the input of a DC station is reckoned from its output
    above: int = 2  # so many values above the limit in a row are no accident
    below: int = 2  # so many below it, while the car charges, and a station that did not follow does again
    tries: int = 8  # rungs a station that does not follow is taken down before it is isolated
    resume_s: float = 60.0  # after a pause a car has come back by then
    resume_tries: int = 3
    schedule_after_s: float = 2.0  # after accepting, a station has worked out its schedule
    schedule_every_s: float = 600.0  # … which is asked for no more often than this, of each EVSE
    silent_calls: int = 2  # so many limits unanswered in a row, and the station counts as silent
    duration_s: float = 60.0  # after the end of a lease a station that ends its limits by itself has come down


class Seen(StrEnum):
    MEASURED = "measured"
    FOLLOWS = "follows"  # measured at or below it while the car charges, several times in a row
    NOT_FOLLOWED = "not_followed"


@dataclass(slots=True)
class Watch:
    """One limit, from the moment it was accepted. Amps per phase at the AC input."""

    limit_a: float
    since: datetime
    dc: bool = False
    lenient_until: datetime | None = None
    over: int = 0
    under: int = 0
    most_a: float = 0.0

    def see(self, amps: float, at: datetime, patience: Patience) -> Seen | None:
        """Judge one measured current; None where it says nothing."""
        if at < self.since:
            return None
        if amps > self.allowed_a(patience):
            self.under = 0
            if (at - self.since).total_seconds() < (patience.follow_dc_s if self.dc else patience.follow_s):
                return None
            self.over += 1
            self.most_a = max(self.most_a, amps)
            return Seen.NOT_FOLLOWED if self.over >= patience.above else None
        self.over = 0
        if amps >= DRAWS_A:
            self.under += 1
            if self.under >= patience.below:
                return Seen.FOLLOWS
        return Seen.MEASURED

    def allowed_a(self, patience: Patience) -> float:
        share = patience.tolerance_dc if self.dc else patience.tolerance
        return self.limit_a * (1 + share) + patience.tolerance_a


def amps_of(value: float, unit: Unit, phases: int, supply: Supply = Supply.TN) -> float:
    """A limit as amps per phase; watts are those of so many phases."""
    return value if unit is Unit.A else value / (NOMINAL_V * power_weight(phases, supply))


class Schedule(StrEnum):
    """What a composite schedule says of a limit."""

    AGREES = "agrees"
    DIFFERS = "differs"
    EMPTY = "empty"
    UNSUPPORTED = "no"


def judge_schedule(
    answer: Mapping[str, Any], limit_a: float, phases: int, patience: Patience, supply: Supply = Supply.TN
) -> tuple[Schedule, str]:
    """Hold a composite schedule against a limit: what it says, and its first limit in words (Q22).

    Any unit, any number of phases, and an empty list are understood.
    """
    periods = [p for p in answer.get("periods") or () if isinstance(p.get("limit"), int | float)]
    if not periods:
        return Schedule.EMPTY, ""
    first = periods[0]
    unit = Unit.W if str(answer.get("unit")).upper().startswith("W") else Unit.A
    told = amps_of(float(first["limit"]), unit, int(first.get("phases") or phases), supply)
    words = f"{first['limit']:g} {unit}"
    return (Schedule.AGREES if told <= limit_a + patience.tolerance_a / 2 else Schedule.DIFFERS), words

"""Why a plan gives a car less than it wants: the plan's codes, taken apart and put into words.

Pure. The codes are those of `PlanResult.shortfall_reason`; the live layer's are in `limits.py`. A code nobody has put
into words keeps its own: an odd word is better than a hidden reason.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from smartcharging.engine.limits import PHASES, gettext_noop

CLAUSES: Mapping[str, str] = {
    "time": gettext_noop("there is not enough time before departure"),
    "power": gettext_noop("this place may give no power now"),
    "surplus": gettext_noop("there is not enough solar surplus"),
    "value": gettext_noop("others are more urgent or energy is dearer than the goal is worth"),
    "rule": gettext_noop("planned by simple rules, as the full plan was not ready"),
    "import_limit": gettext_noop("the grid connection is limited then"),
    "export_limit": gettext_noop("giving back to the grid is limited then"),
    "month_peak": gettext_noop("it would raise the month peak"),
    "access_power": gettext_noop("it would exceed the access power"),
    "group": gettext_noop("the station's own maximum is shared"),
    "limit": gettext_noop("%(circuit)s is full"),
}
"""Half a sentence each, to follow a colon; the faces translate it."""


@dataclass(frozen=True, slots=True)
class Cause:
    """A plan's reason: what it is, where in the tree, and when. `said` is the code as the plan gave it."""

    code: str
    said: str
    circuit: str = ""
    phase: str = ""  # of a limit in amps; a limit in watts has none
    starts_at: datetime | None = None
    ends_at: datetime | None = None
    hours: str = ""  # as they were given, when they are no interval

    @property
    def clause(self) -> str:
        """Half a sentence for people, still to be translated and filled in with `circuit`."""
        return CLAUSES.get(self.code, "%(words)s")

    def holds(self, moment: datetime) -> bool:
        return self.starts_at is not None and self.ends_at is not None and self.starts_at <= moment < self.ends_at


def cause_of(reason: str) -> Cause:
    """Take a code apart, such as `limit:row 1:L2@2026-01-05T16:00Z/2026-01-05T17:00Z`.

    A circuit may have any name, also one with colons or an @ in it.
    """
    name, at, hours = reason.rpartition("@")
    if not at:
        name, hours = reason, ""
    starts_at, ends_at = _interval(hours)
    odd = hours if starts_at is None else ""
    if not name.startswith("limit:"):
        return Cause(name, reason, "", "", starts_at, ends_at, odd)
    circuit, _, phase = name.removeprefix("limit:").rpartition(":")
    if not circuit or phase not in PHASES:
        circuit, phase = name.removeprefix("limit:"), ""
    return Cause("limit", reason, circuit, phase, starts_at, ends_at, odd)


def _interval(hours: str) -> tuple[datetime | None, datetime | None]:
    """The two ends of an ISO 8601 interval; nothing when it is none."""
    start, _, end = hours.partition("/")
    try:
        starts_at, ends_at = datetime.fromisoformat(start), datetime.fromisoformat(end)
    except ValueError:
        return None, None
    if starts_at.tzinfo is None or ends_at.tzinfo is None:
        return None, None
    return starts_at, ends_at

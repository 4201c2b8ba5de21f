"""An explanation in a person's words: each line translated, its numbers and times written as that language writes them.

Times are those of the clock that is active: whoever speaks of a site makes it that site's.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.utils.translation import gettext as _

from smartcharging.engine.explain.causes import Cause
from smartcharging.engine.explain.explain import Explanation
from smartcharging.engine.explain.told import Line, Value
from webapp.templatetags import energy

PARTS = ("now", "promise", "limits", "helps")
FOR_DRIVERS = frozenset(
    {"leave_later", "three_phases", "elsewhere", "fast", "not_only_sun", "sun_at", "no_sun", "wait", "over"}
)
"""What a driver can do, or wait for; the rest of what helps is for who runs the place."""
UNSAID_TO_DRIVERS = frozenset({"idle", "off", "pending", "unknown", "undecided", "away", "fault", "replug"})
"""The driver's page says these in its headline."""
FEW = 2


@dataclass(frozen=True, slots=True)
class Spoken:
    """The four parts in words, without what was said before."""

    now: tuple[str, ...]
    promise: tuple[str, ...]
    limits: tuple[str, ...]
    helps: tuple[str, ...]


def spoken(explanation: Explanation) -> Spoken:
    said: dict[str, tuple[str, ...]] = {}
    before: set[str] = set()
    for part in PARTS:
        words = [w for w in map(line, getattr(explanation, part)) if w not in before]
        before |= set(words)
        said[part] = tuple(words)
    return Spoken(**said)


def sentence(explanation: Explanation) -> str:
    """What counts most: why this current, what is promised, and the first thing that would help."""
    firsts = (explanation.now, explanation.promise[:1], explanation.helps[:1])
    return " ".join(line(one) for part in firsts for one in part)


def why_for_driver(explanation: Explanation) -> str:
    """Why this current, beside the headline of the driver's page."""
    return " ".join(line(one) for one in explanation.now if one.code not in UNSAID_TO_DRIVERS)


def helps_for_driver(explanation: Explanation) -> tuple[str, ...]:
    return tuple(line(one) for one in explanation.helps if one.code in FOR_DRIVERS)[:FEW]


def line(one: Line) -> str:
    """One line in words. What is not known of it is left out."""
    words: dict[str, str] = defaultdict(str, {name: _written(name, value) for name, value in one.values.items()})
    words["rate"] = words["taken_a"] or words["taken_w"]
    words["most"] = words["limit_a"] or words["limit_w"]
    if one.cause is not None:
        words["cause"] = clause(one.cause)
    return (_(one.message) % words).strip()


def clause(cause: Cause) -> str:
    """Why a plan gives less, as half a sentence without its hours."""
    return _(cause.clause) % {"circuit": cause.circuit, "words": cause.said}


def _written(name: str, value: Value) -> str:
    if isinstance(value, datetime):
        return energy.moment(value)
    if isinstance(value, str):
        return _("all phases together") if (name, value) == ("phase", "W") else value
    if name == "minutes":
        return energy.span(timedelta(minutes=value))
    how = {"a": energy.amps, "w": energy.power, "kwh": _kwh, "eur": energy.euros, "share": energy.percent}
    return how.get(name.rpartition("_")[2], energy.bare)(value)


def _kwh(value: float) -> str:
    return energy.energy(value * 1000)

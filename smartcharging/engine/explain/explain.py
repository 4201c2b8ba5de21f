"""One charge explained: why this current now, what is promised, what limits it, what would help.

Pure. Facts go in; lines come out, each a sentence for people (still to be translated and filled in) and the same as
data. What is reckoned from a plan or a forecast is said with “about”; what is not known is not said.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np

from smartcharging.engine import limits
from smartcharging.engine.explain.causes import Cause, cause_of
from smartcharging.engine.explain.facts import Course, Facts, Given, Wish
from smartcharging.engine.explain.told import Line, Value, kwh, line
from smartcharging.engine.snapshot import Mode

FLOWS_W = 100.0
LEAST_WH = 100.0  # what is missing less than this is not worth a word
NEAR_A = 1.0
MORE = 1.1  # a plan that gives a tenth more is a plan that gives more
ALMOST_ALL = 0.98
WORTH_A_WORD = 0.05  # a chance that is smaller changes no plan
MINUTE = timedelta(minutes=1)


@dataclass(frozen=True, slots=True)
class Explanation:
    """The four answers; the first line of each is the one that counts most. A part may be empty."""

    now: tuple[Line, ...]
    promise: tuple[Line, ...]
    limits: tuple[Line, ...]
    helps: tuple[Line, ...]


SHORT_WAITS = frozenset({"waits for others", "rising", "minimum time off", "steady room"})
ORDERS = frozenset({"fire", "emergency stop", "grid operator", "contract", "peak", "circuit", "wish"})
TO_BE_SEEN = frozenset({"unreachable", "ignores its limit", "fail-safe", "below minimum"})
HOLDS_NOBODY = frozenset(
    {"plan", "surplus", "uses less", "car full", "free", "station maximum", "minimum time on", "switched enough"}
)
PAUSED = frozenset({"paused", "paused_w", "paused_station", "below minimum"})


def explain_charge(facts: Facts) -> Explanation:
    """Everything there is to say about one place and its charge."""
    if facts.ended is not None:
        return Explanation(tuple(_ended(facts)), (), tuple(_fell_short(facts)), ())
    now = tuple(_now(facts))
    if not facts.charging:
        return Explanation(now, (), (), tuple(_without_charge(facts)))
    return Explanation(now, tuple(_promise(facts)), tuple(_limits(facts)), tuple(_helps(facts)))


# --- now --------------------------------------------------------------------------------------------------------------


def _now(facts: Facts) -> Iterator[Line]:
    given = facts.given
    if facts.faulted:
        yield line("fault")
    elif not facts.in_service and not facts.charging:
        yield line("out of service")
    elif not facts.charging:
        yield line("no charge" if facts.plugged else "no car")
    elif not facts.authorized:
        yield line("not authorized")
    elif facts.must_replug:
        yield line("replug")
    elif given is None:
        yield from [line("undecided")] if facts.connected else []
    else:
        yield from _flow(facts, given)
    if not facts.connected:
        yield line("away")


def _flow(facts: Facts, given: Given) -> Iterator[Line]:
    """What flows, what may, and why not more."""
    why = _why(given)
    taken = _rate(facts, "taken", facts.measured_a, facts.power_w)
    allowed = _rate(facts, "limit", given.limit_a, given.limit_w)
    flows = facts.power_w is not None and facts.power_w > FLOWS_W
    if flows and why.code in ("limit", "limit_w") and "circuit" in why.values:
        until = _eases_at(facts)
        words = "charging_full" if until is None else "charging_full_until"
        yield line("charging", words, **taken, **allowed, **_where(given), reason=given.reason, ends_at=until)
        return
    if flows:
        less = given.limit_a is not None and facts.measured_a is not None and facts.measured_a < given.limit_a - NEAR_A
        yield line("charging", "charging_less" if less else "charging", **taken, **allowed)
    elif given.limit_a is not None and given.limit_a > 0:
        yield line("idle" if facts.power_w is not None else "unknown", **allowed)
    elif why.code in SHORT_WAITS:
        yield line("pending", **allowed)
    elif why.code not in ORDERS | PAUSED:
        yield line("off", **allowed)
    yield from [why] if given.reason and not (why.code == "unreachable" and not facts.connected) else []


def _rate(facts: Facts, name: str, amps: float | None, watts: float | None) -> dict[str, Value]:
    """Amps at an AC place, power at a DC place; nothing when neither is known."""
    if amps is not None and not facts.dc:
        return {f"{name}_a": round(amps, 1)}
    if watts is None and amps is not None:
        watts = facts.watts(amps)
    return {} if watts is None else {f"{name}_w": round(watts)}


def _why(given: Given) -> Line:
    """The live layer's reason with its own sentence."""
    message, params = limits.explain(given.reason)
    code = limits.code_of(given.reason)
    known = {k: v for k, v in params.items() if v and f"%({k})s" in message}
    return Line(code, message, {**known, **_where(given), "reason": given.reason})


def _where(given: Given) -> dict[str, str]:
    """Where in the tree it is held back: told with the share, else read from its reason."""
    circuit, phase = (given.circuit, given.phase) if given.circuit else limits.place_of(given.reason)
    return {k: v for k, v in (("circuit", circuit), ("phase", phase)) if v}


def _eases_at(facts: Facts) -> datetime | None:
    """Until when it is expected to be held back: by the plan's own word, else when the plan gives it more."""
    course, given = facts.course, facts.given
    if course is None or given is None or not course.valid:
        return None
    cause = cause_of(facts.wish.promise_reason) if facts.wish is not None else None
    if cause is not None and cause.circuit and cause.circuit == _where(given).get("circuit") and cause.holds(facts.now):
        return cause.ends_at
    if given.limit_a is None:
        return None
    more_w = max(facts.watts(given.limit_a) * MORE, FLOWS_W)
    return _begins(course, facts.now, None, more_w, after_this_slot=True)


def _begins(
    course: Course, now: datetime, until: datetime | None, above_w: float, *, after_this_slot: bool = False
) -> datetime | None:
    """The start of the first slot from now on, or after the present one, in which the plan gives more than this."""
    ahead = course.ahead(now, until)
    found = np.flatnonzero(ahead.power_w > above_w)
    found = found[found > 0] if after_this_slot else found
    return course.moment(float(ahead.start_s[found[0]])) if found.size else None


def _without_charge(facts: Facts) -> Iterator[Line]:
    if facts.faulted or not facts.connected:
        yield line("look")
    elif facts.plugged and facts.in_service:
        yield line("card")


# --- promise ----------------------------------------------------------------------------------------------------------


def _promise(facts: Facts) -> Iterator[Line]:
    course, wish = facts.course, facts.wish
    if wish is None or (wish.energy_wh is None and wish.departure is None):
        yield line("no goal" if facts.card_known else "nobody")
        if course is not None and course.valid and (planned_wh := _planned(facts, course)[0]) >= LEAST_WH:
            yield line("open", "open_some_time", planned_kwh=kwh(planned_wh))
    elif wish.energy_wh is None:
        if course is not None and course.valid:
            departure = wish.departure
            planned_kwh = kwh(_planned(facts, course)[0])
            words = "open" if departure is not None else "open_some_time"
            yield line("open", words, planned_kwh=planned_kwh, departure=departure)
    elif facts.charged_wh >= wish.energy_wh - LEAST_WH:
        yield line("reached", wanted_kwh=kwh(wish.energy_wh), charged_kwh=kwh(facts.charged_wh))
        return
    elif wish.departure is not None and wish.departure <= facts.now:
        yield line(
            "overdue",
            departure=wish.departure,
            charged_kwh=kwh(facts.charged_wh),
            wanted_kwh=kwh(wish.energy_wh),
        )
    elif wish.promised_wh is not None:
        yield _promised(wish, wish.energy_wh, wish.promised_wh)
    if course is None:
        yield line("no plan")
        return
    if not course.valid:
        yield line("old plan", made_at=course.made_at)
        return
    if course.by_rule:
        yield line("by rule")
    yield from _expected(facts, course)


def _promised(wish: Wish, wanted_wh: float, promised_wh: float) -> Line:
    all_of_it = promised_wh >= wanted_wh - LEAST_WH
    code = "all" if all_of_it else "part"
    return line(
        code,
        code if wish.departure is not None else f"{code}_some_time",
        promised_kwh=kwh(promised_wh),
        wanted_kwh=kwh(wanted_wh),
        share=round(min(promised_wh / wanted_wh, 1.0), 3),
        departure=wish.departure,
    )


def _expected(facts: Facts, course: Course) -> Iterator[Line]:
    """When it begins, when it is reached, and what that costs: reckoned from the plan, so “about”."""
    until = _leaves_at(facts)
    begins = _begins(course, facts.now, until, FLOWS_W)
    if begins is not None and begins > facts.now and not (facts.power_w or 0.0) > FLOWS_W:
        yield line("begins", starts_at=begins)
    wanted_wh = facts.wish.energy_wh if facts.wish is not None else None
    if wanted_wh is not None and _missing(facts)[0] < LEAST_WH:
        full_at = _full_at(course, facts.now, until, wanted_wh - facts.charged_wh)
        if full_at is not None:
            yield line("full_at", full_at=full_at)
    planned_wh, cost_eur = _planned(facts, course)
    early = course.leaves_early_share
    if early is not None and early >= WORTH_A_WORD and planned_wh >= LEAST_WH and until is not None:
        yield line("may leave", early_share=round(early, 2))
    if cost_eur is not None and planned_wh >= LEAST_WH:
        yield line("cost", cost_eur=round(cost_eur, 2), planned_kwh=kwh(planned_wh))


def _full_at(course: Course, now: datetime, until: datetime | None, missing_wh: float) -> datetime | None:
    """When the plan reaches so much at the plug, up to the full minute. What a plan's rounding to watts loses is not
    missing."""
    ahead, missing_wh = course.ahead(now, until), missing_wh / course.plug_share
    reached = np.cumsum(ahead.energy_wh)
    found = np.flatnonzero((ahead.power_w > 0) & (reached >= missing_wh - LEAST_WH))
    if not found.size:
        return None
    n = int(found[0])
    over_s = max(float(reached[n]) - missing_wh, 0.0) / float(ahead.power_w[n]) * 3600
    full = course.moment(max(float(ahead.end_s[n]) - over_s, float(ahead.start_s[n])))
    return full + (MINUTE - timedelta(seconds=full.second, microseconds=full.microsecond)) % MINUTE


def _planned(facts: Facts, course: Course) -> tuple[float, float | None]:
    """Energy still planned until it leaves, at the plug [Wh], and its price, at the inlet; None where the price of a
    part is not known."""
    ahead = course.ahead(facts.now, _leaves_at(facts))
    energy_wh, some = ahead.energy_wh, ahead.power_w > 0
    cost_eur = float((energy_wh[some] * ahead.eur_per_kwh[some]).sum()) / 1000
    return float(energy_wh.sum()) * course.plug_share, None if math.isnan(cost_eur) else cost_eur


def _leaves_at(facts: Facts) -> datetime | None:
    departure = facts.wish.departure if facts.wish is not None else None
    return departure if departure is not None and departure > facts.now else None


# --- limits -----------------------------------------------------------------------------------------------------------


def _limits(facts: Facts) -> Iterator[Line]:
    yield from _held(facts)
    missing_wh, cause = _missing(facts)
    if missing_wh >= LEAST_WH and cause is not None:
        yield _missing_line("missing", missing_wh, cause)
        after_w = facts.course.remedies.room_after_w if facts.course is not None and facts.course.remedies else None
        if cause.ends_at is not None and after_w is not None and after_w > FLOWS_W:
            yield line("room_after", ends_at=cause.ends_at, room_w=round(after_w), circuit=cause.circuit or None)


def _held(facts: Facts) -> Iterator[Line]:
    """What holds it back at this moment, and until when that is expected."""
    given = facts.given
    if given is None or not given.reason:
        return
    code, where, until = limits.code_of(given.reason), _where(given), _eases_at(facts)
    if code in limits.AT_A_PLACE and "phase" in where:
        words = "held_w" if where["phase"] == "W" else "held"
        words = words if until is None else f"{words}_until"
        yield line("held", words, **where, reason=given.reason, ends_at=until)
    elif code not in HOLDS_NOBODY | SHORT_WAITS:
        yield _why(given)


def _missing(facts: Facts) -> tuple[float, Cause | None]:
    """What will be missing of the wish by the newest plan that had this car [Wh], and why."""
    wish = facts.wish
    if wish is None or wish.energy_wh is None or wish.promised_wh is None:
        return 0.0, None
    if facts.charged_wh >= wish.energy_wh - LEAST_WH or (wish.departure is not None and wish.departure <= facts.now):
        return 0.0, None
    return wish.energy_wh - wish.promised_wh, cause_of(wish.promise_reason) if wish.promise_reason else None


def _missing_line(code: str, missing_wh: float, cause: Cause) -> Line:
    between = code == "missing" and cause.starts_at is not None
    return line(
        code,
        "missing_between" if between else code,
        cause,
        missing_kwh=kwh(missing_wh),
        reason=cause.said,
        circuit=cause.circuit or None,
        phase=cause.phase or None,
        starts_at=cause.starts_at,
        ends_at=cause.ends_at,
    )


# --- what helps -------------------------------------------------------------------------------------------------------


def _helps(facts: Facts) -> Iterator[Line]:
    yield from _helps_now(facts)
    missing_wh, cause = _missing(facts)
    if missing_wh >= LEAST_WH:
        yield from _helps_the_wish(facts, cause)
    elif facts.wish is not None and facts.wish.promised_wh is not None and facts.connected and not facts.must_replug:
        yield line("nothing")
    yield from _helps_at_once(facts)
    yield from _passes(facts)


def _passes(facts: Facts) -> Iterator[Line]:
    """What is over by itself."""
    code = limits.code_of(facts.given.reason) if facts.given is not None else ""
    if facts.must_replug or facts.faulted or not facts.authorized or not facts.connected:
        return
    if code in SHORT_WAITS:
        yield line("wait")
    elif code in ORDERS:
        yield line("over")


def _helps_now(facts: Facts) -> Iterator[Line]:
    """What would lift the reason of this moment."""
    code = limits.code_of(facts.given.reason) if facts.given is not None else ""
    if facts.must_replug:
        yield line("take_out")
    elif not facts.authorized:
        yield line("other_card")
    elif facts.faulted or not facts.connected or code in TO_BE_SEEN:
        yield line("look")
    elif facts.given is not None and code == "meter stale":
        yield line("repair", circuit=_where(facts.given).get("circuit", ""))
    elif code == "battery silent":
        yield line("repair_battery")
    elif code == "car full":
        yield line("in_car")
    elif code == "no surplus" or facts.mode is Mode.SURPLUS:
        yield from _sun(facts)


def _sun(facts: Facts) -> Iterator[Line]:
    course = facts.course
    if course is not None and course.valid and not (facts.power_w or 0.0) > FLOWS_W:
        start = _begins(course, facts.now, _leaves_at(facts), FLOWS_W, after_this_slot=True)
        yield line("sun_at", starts_at=start) if start is not None else line("no_sun")
    missing_wh, _cause = _missing(facts)
    if missing_wh < LEAST_WH:
        yield line("not_only_sun")


def _helps_the_wish(facts: Facts, cause: Cause | None) -> Iterator[Line]:
    """What would give all that was asked; each is reckoned, and enough by itself."""
    wish, remedies = facts.wish, facts.course.remedies if facts.course is not None and facts.course.valid else None
    if remedies is not None and remedies.leave_at is not None and wish is not None and wish.departure is not None:
        minutes = math.ceil((remedies.leave_at - wish.departure).total_seconds() / 60)
        if minutes > 0:
            yield line("leave_later", leave_at=remedies.leave_at, minutes=minutes)
    if remedies is not None and remedies.three_phases:
        yield line("three_phases")
    if remedies is not None and cause is not None and cause.starts_at is not None and cause.ends_at is not None:
        where: dict[str, Value] = {"circuit": cause.circuit, "starts_at": cause.starts_at, "ends_at": cause.ends_at}
        if remedies.raise_a:
            yield line("raise_a", raise_a=remedies.raise_a, **where)
        elif remedies.raise_w:
            yield line("raise_w", raise_w=remedies.raise_w, **where)
    if cause is not None and cause.code == "surplus":
        yield line("not_only_sun")
    if wish is not None and wish.promised_wh is not None and wish.promised_wh >= 1000:
        yield line("less", promised_kwh=math.floor(wish.promised_wh / 100) / 10)


def _helps_at_once(facts: Facts) -> Iterator[Line]:
    """What would give more current now: the room that is measured, here or elsewhere."""
    given = facts.given
    if given is None or given.limit_a is None or not facts.connected or facts.faulted:
        return
    code = limits.code_of(given.reason)
    may_w = facts.watts(given.limit_a)
    if code == "plan" and facts.mode is Mode.PLAN and facts.room_w is not None and facts.max_w is not None:
        least_w = min(facts.watts(6.0), facts.max_w)
        if facts.room_w >= least_w and may_w < facts.max_w * ALMOST_ALL:
            yield line("fast", room_w=round(min(facts.room_w, facts.max_w)))
    if code in limits.AT_A_PLACE and facts.elsewhere:
        best = max(facts.elsewhere, key=lambda p: p.room_w)
        most_w = best.room_w if facts.max_w is None else min(best.room_w, facts.max_w)
        if most_w > may_w * MORE and most_w > FLOWS_W:
            yield line("elsewhere", place=best.name, circuit=best.circuit, room_w=round(most_w))


# --- when it is over --------------------------------------------------------------------------------------------------


def _ended(facts: Facts) -> Iterator[Line]:
    assert facts.ended is not None
    wanted_wh = facts.wish.energy_wh if facts.wish is not None else None
    yield line(
        "ended",
        "ended" if wanted_wh is None else "ended_of",
        ended_at=facts.ended.at,
        charged_kwh=kwh(facts.charged_wh),
        wanted_kwh=None if wanted_wh is None else kwh(wanted_wh),
        missing_kwh=None if wanted_wh is None else kwh(max(wanted_wh - facts.charged_wh, 0.0)),
        stop_reason=facts.ended.stop_reason or None,
    )


def _fell_short(facts: Facts) -> Iterator[Line]:
    """What it fell short of its wish, and why, as far as that is known."""
    wish, ended = facts.wish, facts.ended
    if wish is None or ended is None or wish.energy_wh is None:
        return
    missing_wh = wish.energy_wh - facts.charged_wh
    if missing_wh < LEAST_WH:
        return
    unpromised_wh = 0.0 if wish.promised_wh is None else wish.energy_wh - wish.promised_wh
    if wish.promise_reason and unpromised_wh >= LEAST_WH:
        yield _missing_line("missed", min(unpromised_wh, missing_wh), cause_of(wish.promise_reason))
    if wish.departure is not None and ended.at < wish.departure - timedelta(seconds=60):
        yield line("left_early", minutes=int((wish.departure - ended.at).total_seconds() // 60))

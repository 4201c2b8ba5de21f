"""The ways to tell a station its limit, best first: which profile, unit, kind and level. Pure.

What is known of the model chooses the first rung; the others follow in the order in which stations of the field have
been found to understand them (Q18 to Q20). A station that refuses or does not follow is taken down this ladder once;
the rung that works is learnt.

How a limit lies in a station (`docs/architecture.md`):

- always: the fail-safe, a default profile on the lowest level, without an end;
- with a transaction: a transaction profile with a `duration`. It stands in the place of the default;
- without one: a default profile one level above the fail-safe, with a `duration`;
- where neither is taken: one default (or station maximum) that steps down to the fail-safe by itself;
- a relative schedule counts from the start of charging, so that no duration can be a lease: it has none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from csms.profiles import ChargingProfile, Kind, Period, Purpose, Schedule, Unit

CLOCK_GUARD_S = 60
"""A schedule starts a minute in the past, against a station whose clock lags (Q14), and lasts a minute longer."""

FAIL_SAFE_ID, LIVE_DEFAULT_ID, LIVE_ID, STATION_ID = 1, 100, 200, 300
LOW = {Unit.A: 0.1, Unit.W: 100.0}
"""Where 0 ends the charge or is refused: the smallest limit that pauses (Q21)."""

_WORDS = {
    Purpose.TX: "transaction profile",
    Purpose.TX_DEFAULT: "default profile",
    Purpose.STATION_MAX: "station maximum",
}


@dataclass(frozen=True, slots=True)
class Rung:
    """One way to make a station follow."""

    purpose: Purpose
    unit: Unit
    level: int = 0
    kind: Kind = Kind.ABSOLUTE
    stepped: bool = False  # it steps down to the fail-safe by itself
    whole: bool = False  # no tenths

    def __str__(self) -> str:
        more = [w for w, yes in (("stepped", self.stepped), ("relative", self.kind is Kind.RELATIVE)) if yes]
        return ", ".join([_WORDS[self.purpose], str(self.unit), f"level {self.level}", *more])

    @property
    def is_lease(self) -> bool:
        """Does it end by itself when nobody renews it?"""
        return self.stepped or self.kind is Kind.ABSOLUTE


def unit_of(known: Mapping[str, Any], dc: bool) -> Unit:
    told = known.get("rate_unit")
    return Unit(told) if told in ("A", "W") else Unit.W if dc else Unit.A


def other(unit: Unit) -> Unit:
    return Unit.W if unit is Unit.A else Unit.A


def lowest_level(known: Mapping[str, Any]) -> int:
    return int(known.get("min_stack_level") or 0)


def rungs(known: Mapping[str, Any], *, transaction: bool, dc: bool, evses: int, tenths: bool = False) -> list[Rung]:
    """The ladder for one EVSE of a station that has so many. `tenths`: the limit is no whole number."""
    unit, low = unit_of(known, dc), lowest_level(known)
    most = known.get("max_stack_level")
    top = max(int(most or 0), low)
    whole = known.get("decimals") == 0
    two_levels = most is None or int(most) > low
    found: list[Rung] = []
    for one in (unit, other(unit)):
        if transaction:
            found.append(Rung(Purpose.TX, one, top, whole=whole))
        if two_levels or not transaction:
            found.append(Rung(Purpose.TX_DEFAULT, one, low + 1, whole=whole))
    if transaction and top > low:
        found.append(Rung(Purpose.TX, unit, low, whole=whole))
    found.append(Rung(Purpose.TX_DEFAULT, unit, low, stepped=True, whole=whole))
    if transaction:
        found.append(Rung(Purpose.TX, unit, top, Kind.RELATIVE, whole=whole))
        if two_levels:
            found.append(Rung(Purpose.TX_DEFAULT, unit, low + 1, Kind.RELATIVE, whole=whole))
    if evses == 1:
        found.append(Rung(Purpose.STATION_MAX, unit, low, stepped=True, whole=whole))
    if tenths and not whole:
        found.append(replace(found[0], whole=True))
    best = _learnt(found, known, transaction)
    return [best, *(r for r in found if r != best)] if best is not None else found


def _learnt(found: Sequence[Rung], known: Mapping[str, Any], transaction: bool) -> Rung | None:
    """The rung that what is known points at; None where nothing is known that would change the order."""
    purpose = known.get("purpose" if transaction else "idle_purpose")
    kind, stepped = known.get("kind"), known.get("stepped")
    if purpose is None and kind in (None, Kind.ABSOLUTE) and not stepped:
        return None
    wanted = Purpose(purpose) if purpose is not None else Purpose.TX if transaction else Purpose.TX_DEFAULT
    return next(
        (
            r
            for r in found
            if r.purpose is wanted
            and (kind is None or r.kind == kind or r.stepped)
            and (r.stepped == bool(stepped) or wanted is Purpose.STATION_MAX)
        ),
        next((r for r in found if r.purpose is wanted), None),
    )


def lesson(
    rung: Rung, known: Mapping[str, Any], *, transaction: bool, dc: bool, failed: Sequence[Rung] = ()
) -> dict[str, Any]:
    """What a rung that works teaches of the model, after those that `failed`.

    Only what differs from the standard's way is worth keeping. A level is only too high when it was tried: what the
    station tells of itself may have come in between.
    """
    first = Purpose.TX if transaction else Purpose.TX_DEFAULT
    more: dict[str, Any] = {
        "purpose" if transaction else "idle_purpose": None if rung.purpose is first else str(rung.purpose),
        "stepped": True if rung.stepped and rung.purpose is Purpose.TX_DEFAULT else None,
    }
    if transaction:
        more["kind"] = str(rung.kind) if rung.kind is Kind.RELATIVE else None
        if rung.purpose is Purpose.TX and any(f.purpose is rung.purpose and f.level > rung.level for f in failed):
            more["max_stack_level"] = rung.level
    if rung.unit is not unit_of({}, dc):
        more["rate_unit"] = str(rung.unit)
    elif known.get("rate_unit") not in (None, str(rung.unit)):
        more["rate_unit"] = None
    if rung.whole:
        more["decimals"] = 0
    return more


def profile(
    rung: Rung,
    *,
    evse: int,
    limit: float,
    steps: Sequence[tuple[int, float]],
    phases: int | None,
    transaction_id: str | None,
    start: datetime,
    lease_s: int,
    fail_safe: float,
) -> ChargingProfile:
    """The profile of one rung; limits in the rung's unit. `steps` are (seconds from now, limit) inside the lease."""
    guard_s = 0 if rung.kind is Kind.RELATIVE else CLOCK_GUARD_S
    periods = [Period(0, _rounded(limit, rung), phases)]
    if rung.kind is Kind.ABSOLUTE:
        periods += [Period(guard_s + seconds, _rounded(value, rung), phases) for seconds, value in steps]
    if rung.stepped:
        periods.append(Period(guard_s + lease_s, _rounded(fail_safe, rung)))
    duration_s = guard_s + lease_s if rung.is_lease and not rung.stepped else None
    schedule = Schedule(rung.unit, tuple(periods), duration_s, start if rung.kind is Kind.ABSOLUTE else None)
    first_id = {Purpose.TX: LIVE_ID, Purpose.TX_DEFAULT: LIVE_DEFAULT_ID}.get(rung.purpose, STATION_ID)
    return ChargingProfile(
        first_id + evse,
        rung.purpose,
        rung.level,
        rung.kind,
        schedule,
        evse=0 if rung.purpose is Purpose.STATION_MAX else evse,
        transaction_id=transaction_id if rung.purpose is Purpose.TX else None,
    )


def fail_safe_profile(unit: Unit, limit: float, *, level: int, start: datetime, evse: int = 0) -> ChargingProfile:
    """What the station allows when nobody tells it otherwise: it lies lowest and has no end."""
    schedule = Schedule(unit, (Period(0, limit),), start=start)
    return ChargingProfile(FAIL_SAFE_ID + evse, Purpose.TX_DEFAULT, level, Kind.ABSOLUTE, schedule, evse=evse)


def _rounded(value: float, rung: Rung) -> float:
    """Down: never more than what is wanted. What is below 1 and not 0 stays, it is there to pause."""
    return float(int(value)) if rung.whole and value >= 1 else value

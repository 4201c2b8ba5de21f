"""Charging profiles, version-free: how they are kept, which of them counts, and the composite at a moment.

Both sides of the wire think with this file: a simulated station obeys it, and the central system predicts with it what
a station will do. The rules are those of OCPP 1.6 §3.13 and 2.0.1 part 2, K01:

- Of one purpose, at each instant, the profile with the highest stack level that has a say counts. A default for this
  very EVSE comes before one for all EVSEs.
- A profile has a say from its start until its `duration` or its validity ends. Then the next lower level counts:
  that is what makes a profile with a duration a lease.
- A transaction profile stands in the place of the default. Station maximum, external constraint and the hardware
  only narrow.
- Units are converted with the station's own voltage, on the fewest phases any counting profile allows.

Limits in A are per phase, in W over all phases together. Times are aware. Nothing here reads a clock.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

NOMINAL_V = 230.0

Profiles = tuple["ChargingProfile", ...]


class Purpose(StrEnum):
    """What a profile limits. `STATION_EXTERNAL` is set by the station itself and can only be seen."""

    STATION_EXTERNAL = "station_external"
    STATION_MAX = "station_max"
    TX_DEFAULT = "tx_default"
    TX = "tx"


class Unit(StrEnum):
    A = "A"
    W = "W"


class Kind(StrEnum):
    """Where a schedule counts its seconds from: a moment, a recurring moment, or the start of charging."""

    ABSOLUTE = "Absolute"
    RECURRING = "Recurring"
    RELATIVE = "Relative"


class Recurrence(StrEnum):
    DAILY = "Daily"
    WEEKLY = "Weekly"

    @property
    def length(self) -> timedelta:
        return timedelta(days=1 if self is Recurrence.DAILY else 7)


class ProfileNotValid(ValueError):
    """A profile that contradicts itself; `field` says where."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(f"{field}: {message}")
        self.field, self.message = field, message


@dataclass(frozen=True, slots=True)
class Period:
    """From `start_s` after the start of the schedule until the next period: this limit, on so many phases at most."""

    start_s: int
    limit: float
    phases: int | None = None
    phase_to_use: int | None = None


@dataclass(frozen=True, slots=True)
class Schedule:
    unit: Unit
    periods: tuple[Period, ...]
    duration_s: int | None = None
    start: datetime | None = None
    min_rate: float | None = None

    def __post_init__(self) -> None:
        if not self.periods:
            raise ProfileNotValid("periods", "a schedule needs at least one period")
        if self.periods[0].start_s != 0:
            raise ProfileNotValid("periods", "the first period starts at 0 s")
        if any(b.start_s <= a.start_s for a, b in zip(self.periods, self.periods[1:], strict=False)):
            raise ProfileNotValid("periods", "each period starts after the one before it")
        if any(p.limit < 0 or not math.isfinite(p.limit) for p in self.periods):
            raise ProfileNotValid("limit", "a limit is a number from 0 up")
        if any(p.phases is not None and not 1 <= p.phases <= 3 for p in self.periods):
            raise ProfileNotValid("phases", "a period uses 1, 2 or 3 phases")
        if self.duration_s is not None and self.duration_s < 0:
            raise ProfileNotValid("duration", "a duration is not negative")
        if self.start is not None and self.start.tzinfo is None:
            raise ProfileNotValid("start", "the start needs a time zone")

    def period_at(self, offset_s: float) -> Period | None:
        """The period that holds so many seconds after the start; None before it and after the duration."""
        if offset_s < 0 or (self.duration_s is not None and offset_s >= self.duration_s):
            return None
        return next(p for p in reversed(self.periods) if p.start_s <= offset_s)


@dataclass(frozen=True, slots=True)
class ChargingProfile:
    """One profile as it lies in a station. `evse` 0 is the whole station, or each EVSE for a default."""

    id: int
    purpose: Purpose
    stack_level: int
    kind: Kind
    schedule: Schedule
    evse: int = 0
    recurrence: Recurrence | None = None
    valid_from: datetime | None = None
    valid_to: datetime | None = None
    transaction_id: str | None = None

    def __post_init__(self) -> None:
        if self.stack_level < 0:
            raise ProfileNotValid("stack_level", "a stack level is 0 or higher")
        if self.evse < 0:
            raise ProfileNotValid("evse", "an EVSE number is 0 or higher")
        if self.purpose is Purpose.STATION_MAX and self.evse != 0:
            raise ProfileNotValid("evse", "a station maximum belongs to EVSE 0")
        if self.purpose is Purpose.STATION_MAX and self.kind is Kind.RELATIVE:
            raise ProfileNotValid("kind", "a station maximum cannot be relative")
        if self.purpose is Purpose.TX and self.evse == 0:
            raise ProfileNotValid("evse", "a transaction profile belongs to one EVSE")
        if self.kind is Kind.RECURRING and (self.recurrence is None or self.schedule.start is None):
            raise ProfileNotValid("recurrence", "a recurring profile needs a start and says daily or weekly")
        for name, moment in (("valid_from", self.valid_from), ("valid_to", self.valid_to)):
            if moment is not None and moment.tzinfo is None:
                raise ProfileNotValid(name, "the time needs a time zone")

    def start_at(self, at: datetime, charging_since: datetime | None) -> datetime | None:
        """The moment its seconds are counted from, seen at `at`. None: it has not started.

        An absolute profile without a start counts from the start of charging (1.6 §7.13, startSchedule).
        """
        start = self.schedule.start
        if self.kind is Kind.RELATIVE or start is None:
            return charging_since
        if self.kind is Kind.RECURRING and self.recurrence is not None and at >= start:
            return start + (at - start) // self.recurrence.length * self.recurrence.length
        return start

    def period_at(self, at: datetime, charging_since: datetime | None = None) -> Period | None:
        """What it says at `at`; None when it has no say then."""
        if self.valid_from is not None and at < self.valid_from:
            return None
        if self.valid_to is not None and at >= self.valid_to:
            return None
        start = self.start_at(at, charging_since)
        return None if start is None else self.schedule.period_at((at - start).total_seconds())


@dataclass(frozen=True, slots=True)
class Supply:
    """What the hardware allows: voltage to neutral, phases, and the most it may give, in A per phase or W in all."""

    voltage_v: float = NOMINAL_V
    phases: int = 3
    max_a: float | None = None
    max_w: float | None = None

    def amps(self, watts: float, phases: int) -> float:
        return amps_of(watts, phases, self.voltage_v)

    def watts(self, amps: float, phases: int) -> float:
        return amps * self.voltage_v * phases


@dataclass(frozen=True, slots=True)
class Limit:
    """The composite at a moment. `value` is in A per phase or W in all; None: nothing limits."""

    value: float | None
    unit: Unit
    phases: int


@dataclass(frozen=True, slots=True)
class Span:
    """A stretch of the composite schedule, from `start_s` after the window's start to the next one."""

    start_s: float
    limit: float | None
    phases: int


def amps_of(watts: float, phases: int, voltage_v: float = NOMINAL_V) -> float:
    """W over all phases as A per phase, rounded down to the tenth that OCPP 1.6 can carry."""
    return math.floor(watts / (voltage_v * phases) * 10 + 1e-6) / 10


def limit_at(
    profiles: Iterable[ChargingProfile],
    at: datetime,
    *,
    evse: int,
    unit: Unit = Unit.A,
    supply: Supply | None = None,
    transaction_id: str | None = None,
    charging_since: datetime | None = None,
    station_share: float = 1.0,
) -> Limit:
    """The limit on an EVSE at `at`, from all its profiles and the hardware.

    `transaction_id`: the running transaction, or None; transaction profiles count only with one, and only their own.
    `charging_since`: where relative profiles count from; None: they have no say. `station_share`: this EVSE's part of
    a station maximum in amps or watts, 0 … 1, as the station divides it. EVSE 0 asks for the whole station: then only
    station maximum, external constraint and hardware count.
    """
    supply = supply or Supply()
    counting = _counting(profiles, at, evse, transaction_id, charging_since, station_share)
    phases = min([supply.phases, *(p.phases for _, p in counting if p.phases is not None)])
    values = [_in_unit(p.limit, u, unit, phases, supply) for u, p in counting]
    if supply.max_a is not None:
        values.append(_in_unit(supply.max_a, Unit.A, unit, phases, supply))
    if supply.max_w is not None:
        values.append(_in_unit(supply.max_w, Unit.W, unit, phases, supply))
    return Limit(min(values, default=None), unit, phases)


def composite(
    profiles: Iterable[ChargingProfile],
    at: datetime,
    duration_s: float,
    *,
    evse: int,
    unit: Unit = Unit.A,
    supply: Supply | None = None,
    transaction_id: str | None = None,
    charging_since: datetime | None = None,
    station_share: float = 1.0,
) -> tuple[Span, ...]:
    """The limits over the window from `at`, as GetCompositeSchedule answers them: one span per change.

    At every instant of the window it says exactly what `limit_at` says.
    """
    kept = tuple(profiles)
    until = at + timedelta(seconds=duration_s)
    spans: list[Span] = []
    for moment in sorted({at, *_changes(kept, at, until, charging_since)}):
        limit = limit_at(
            kept,
            moment,
            evse=evse,
            unit=unit,
            supply=supply,
            transaction_id=transaction_id,
            charging_since=charging_since,
            station_share=station_share,
        )
        if not spans or (spans[-1].limit, spans[-1].phases) != (limit.value, limit.phases):
            spans.append(Span((moment - at).total_seconds(), limit.value, limit.phases))
    return tuple(spans)


def _counting(
    profiles: Iterable[ChargingProfile],
    at: datetime,
    evse: int,
    transaction_id: str | None,
    charging_since: datetime | None,
    station_share: float,
) -> list[tuple[Unit, Period]]:
    """What each purpose says at `at`, with the transaction profile in the place of the default."""
    best: dict[Purpose, tuple[tuple[bool, int, int], Unit, Period]] = {}
    for profile in profiles:
        if not _concerns(profile, evse, transaction_id):
            continue
        period = profile.period_at(at, charging_since)
        if period is None:
            continue
        rank = (profile.evse != 0, profile.stack_level, profile.id)
        if profile.purpose not in best or rank > best[profile.purpose][0]:
            if profile.purpose is Purpose.STATION_MAX and evse != 0:
                period = Period(period.start_s, period.limit * station_share, period.phases)
            best[profile.purpose] = (rank, profile.schedule.unit, period)
    if Purpose.TX in best:
        best.pop(Purpose.TX_DEFAULT, None)
    return [(unit, period) for _, unit, period in best.values()]


def _concerns(profile: ChargingProfile, evse: int, transaction_id: str | None) -> bool:
    if profile.purpose is Purpose.TX:
        mine = profile.transaction_id is None or profile.transaction_id == transaction_id
        return profile.evse == evse and transaction_id is not None and mine
    if evse == 0 and profile.purpose is Purpose.TX_DEFAULT:
        return False
    return profile.evse in (0, evse)


def _in_unit(value: float, have: Unit, want: Unit, phases: int, supply: Supply) -> float:
    if have is want:
        return value
    return supply.watts(value, phases) if want is Unit.W else supply.amps(value, phases)


def _changes(
    profiles: Sequence[ChargingProfile], at: datetime, until: datetime, charging_since: datetime | None
) -> Iterator[datetime]:
    """Every moment inside the window at which some profile may say something else."""
    for profile in profiles:
        edges = [edge for edge in (profile.valid_from, profile.valid_to) if edge is not None]
        for start in _starts(profile, at, until, charging_since):
            edges += [start + timedelta(seconds=p.start_s) for p in profile.schedule.periods]
            if profile.schedule.duration_s is not None:
                edges.append(start + timedelta(seconds=profile.schedule.duration_s))
        yield from (edge for edge in edges if at < edge < until)


def _starts(
    profile: ChargingProfile, at: datetime, until: datetime, charging_since: datetime | None
) -> Iterator[datetime]:
    start = profile.start_at(at, charging_since)
    while start is not None:
        yield start
        if profile.kind is not Kind.RECURRING or profile.recurrence is None:
            return
        start += profile.recurrence.length
        if start >= until:
            return


def install(profiles: Iterable[ChargingProfile], new: ChargingProfile) -> Profiles:
    """With `new` in: it replaces the one with its id, and the one of its purpose, stack level and EVSE."""
    place = (new.purpose, new.stack_level, new.evse)
    kept = (p for p in profiles if p.id != new.id and (p.purpose, p.stack_level, p.evse) != place)
    return (*kept, new)


def clear(
    profiles: Iterable[ChargingProfile],
    *,
    id: int | None = None,
    evse: int | None = None,
    purpose: Purpose | None = None,
    stack_level: int | None = None,
) -> tuple[Profiles, Profiles]:
    """Take out what matches every given criterion: (what stays, what went).

    With an `id` only the id counts. `evse` 0 means the profiles of the station itself, None means any. None given: all.
    External constraints are not ours to clear. That nothing matched is no error: the station answers Unknown.
    """
    stays: list[ChargingProfile] = []
    went: list[ChargingProfile] = []
    for profile in profiles:
        if id is not None:
            matches = profile.id == id
        else:
            matches = (
                (evse is None or profile.evse == evse)
                and (purpose is None or profile.purpose is purpose)
                and (stack_level is None or profile.stack_level == stack_level)
            )
        matches = matches and profile.purpose is not Purpose.STATION_EXTERNAL
        (went if matches else stays).append(profile)
    return tuple(stays), tuple(went)


def end_transaction(profiles: Iterable[ChargingProfile], evse: int) -> Profiles:
    """What remains when the transaction on this EVSE ends: a transaction profile dies with its transaction."""
    return tuple(p for p in profiles if p.purpose is not Purpose.TX or p.evse != evse)

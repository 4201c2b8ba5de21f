"""The limit we want on each EVSE, what the station accepted, and how long that holds.

A limit is a desired state with a lease. `Keeper` lives in the gateway beside a station's socket and keeps accepted
equal to wanted: one slot per EVSE in which the latest want replaces the one before, so that a slow station never
works off a queue of old limits. Lowering goes at once, raising is paced. What was accepted is sent anew after a
boot, a reconnect and the start of a transaction, and renewed at half its lease, but only while the wanter stands for
it: a stale want is left to expire, and below it lies the fail-safe.

How a limit lies in a station (`docs/architecture.md`):

- always: the fail-safe, a default profile at stack level 0 on every EVSE, without an end;
- with a transaction: a transaction profile with a `duration`. It stands in the place of the default;
- without one: a default profile at level 1 with a `duration`, so that the next car starts at the right current. Where
  the limit is the fail-safe, or the station knows only level 0, nothing is sent: the fail-safe holds.

A station that refuses is tried once down a ladder (a level-1 default in place of the transaction profile, the other
unit, at last a level-0 default that steps down to the fail-safe by itself); the rung that works is remembered.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from csms import bus, stations
from csms.bus import CallNotValid, CallRefused, NoAnswer, StationUnreachable, Want
from csms.exchange import AWAY
from csms.models import EVSE, WantedLimit
from csms.profiles import NOMINAL_V, ChargingProfile, Kind, Period, Purpose, Schedule, Unit
from csms.rpc import LIMIT, UNASKED, URGENT

if TYPE_CHECKING:
    from csms.session import Session

log = logging.getLogger(__name__)

RAISE_EVERY_S = 5.0
CLOCK_GUARD_S = 60
"""A schedule starts a minute in the past, against a station whose clock lags (Q14), and lasts a minute longer."""

RETRY_S = (5.0, 15.0, 30.0, 60.0)
SAME = 0.05
FAIL_SAFE_ID, LIVE_DEFAULT_ID, LIVE_ID = 1, 100, 200


@dataclass(frozen=True, slots=True)
class Rung:
    """One way to make a station follow: which profile, in which unit."""

    purpose: Purpose
    unit: Unit
    stepped: bool = False  # a level-0 default that steps down to the fail-safe itself

    def to_list(self) -> list[Any]:
        return [str(self.purpose), str(self.unit), self.stepped]


@dataclass(frozen=True, slots=True)
class Accepted:
    """What the station took: the limit in the want's own unit, until when, and for which transaction."""

    value: float
    until: datetime | None  # None: the fail-safe, which has no end
    transaction_id: str | None
    steps: tuple[tuple[datetime, float], ...] = ()

    def at(self, now: datetime) -> float:
        value = self.value
        for moment, limit in self.steps:
            if moment <= now:
                value = limit
        return value


@dataclass(slots=True)
class Slot:
    """One EVSE: the want that stands, and what is in force."""

    number: int
    want: Want | None = None
    accepted: Accepted | None = None
    sent_at: float = -1e9
    failures: int = 0
    not_before: float = -1e9
    refused: tuple[float, str | None] | None = None
    covered_until: float = 0.0  # until then a level-1 default other than the fail-safe may lie on top of it
    written: dict[str, Any] = field(default_factory=dict)


class Keeper:
    """Keeps what is accepted equal to what is wanted, on every EVSE of one station."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._slots: dict[int, Slot] = {}
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._rung: Rung | None = None

    # ------------------------------------------------------------------ told from outside

    def want(self, want: Want) -> None:
        """A want arrived. An older one than we have is not news."""
        slot = self._slot(want.evse)
        if slot.want is not None and want.at < slot.want.at:
            return
        before, slot.want = slot.want, want
        if before is None or _value(before) != _value(want):
            slot.refused = None
            slot.not_before = -1e9
        self._note(slot)
        self._wake.set()

    def place_known(self, number: int) -> None:
        """An EVSE was heard of for the first time; it may be wanted already."""
        if number not in self._slots:
            self._slot(number)
            self._session.spawn(self.fetch([number]))

    def transaction_changed(self, number: int) -> None:
        """A transaction began or ended: a transaction profile dies with it, and a new one is needed."""
        slot = self._slot(number)
        slot.accepted = None
        slot.refused = None
        slot.not_before = -1e9
        self._wake.set()

    def forget_accepted(self) -> None:
        """After a boot or a reconnect nothing is known to be in force."""
        for slot in self._slots.values():
            slot.accepted, slot.refused, slot.failures, slot.not_before = None, None, 0, -1e9

    def go(self) -> None:
        if self._task is None or self._task.done():
            self._task = self._session.spawn(self._keep())
        self._session.spawn(self.fetch())
        self._wake.set()

    def wake(self) -> None:
        self._wake.set()

    def hold_still(self) -> None:
        """Nothing is sent: the station is quiet, or not ours yet."""
        if self._task is not None:
            self._task.cancel()
            self._task = None

    def stop(self) -> None:
        self.hold_still()

    async def fetch(self, numbers: list[int] | None = None) -> None:
        """Ask Redis what is wanted; after a connection, and whenever Redis comes back."""
        places = numbers if numbers is not None else sorted({*self._session.record.evses, *self._slots})
        try:
            found = await self._session.services.exchange.wants([(self._session.identity, n) for n in places])
        except AWAY:
            return
        for want in found:
            self.want(want)

    def _slot(self, number: int) -> Slot:
        """A new one knows nothing of what an earlier socket sent: it may hold for a lease."""
        slot = self._slots.get(number)
        if slot is None:
            slot = Slot(number, covered_until=self._mono() + self._session.knobs.lease_s)
            self._slots[number] = slot
        return slot

    @staticmethod
    def _mono() -> float:
        return asyncio.get_running_loop().time()

    # ------------------------------------------------------------------ the fail-safe

    async def install_fail_safe(self) -> None:
        """What the station allows each EVSE when nobody tells it otherwise; it lies lowest and has no end."""
        session = self._session
        record = session.record
        for unit in (self._unit(), _other(self._unit())):
            limit = self._fail_safe(unit)
            profile = ChargingProfile(
                FAIL_SAFE_ID,
                Purpose.TX_DEFAULT,
                0,
                Kind.ABSOLUTE,
                Schedule(unit, (Period(0, limit),), start=self._start(session.now())),
            )
            status = await self._send(profile, UNASKED)
            if status == "Accepted":
                if session.record.capabilities.get("fail_safe") != [limit, str(unit)]:
                    session.learn(fail_safe=[limit, str(unit)])
                return
        if await self._fail_safe_each(record.evses):
            return
        session.count("fail_safe_refused")
        session.learn(fail_safe=None)
        log.warning("%s takes no fail-safe profile", session.identity)

    async def _fail_safe_each(self, numbers: dict[int, int]) -> bool:
        """For a station that knows no profile for all its EVSEs at once (Q18: connector 0 refused)."""
        unit, taken = self._unit(), 0
        limit = self._fail_safe(unit)
        for number in sorted(numbers):
            schedule = Schedule(unit, (Period(0, limit),), start=self._start(self._session.now()))
            profile = ChargingProfile(
                FAIL_SAFE_ID + number, Purpose.TX_DEFAULT, 0, Kind.ABSOLUTE, schedule, evse=number
            )
            taken += await self._send(profile, UNASKED) == "Accepted"
        if taken and taken == len(numbers):
            self._session.learn(fail_safe=[limit, str(unit)])
            return True
        return False

    def _fail_safe(self, unit: Unit) -> float:
        record = self._session.record
        if unit is Unit.A:
            return record.fail_safe_a
        return record.fail_safe_a * NOMINAL_V * (3 if record.dc else len(record.phases))

    # ------------------------------------------------------------------ the loop

    async def _keep(self) -> None:
        loop = asyncio.get_running_loop()
        while not self._session.connection.closed:
            self._wake.clear()
            soonest = 3600.0
            due: list[tuple[int, Slot]] = []
            for slot in self._slots.values():
                wait_s = self._due_in(slot, self._session.now(), loop.time())
                if wait_s is None:
                    continue
                if wait_s <= 0:
                    urgent = slot.want is not None and (slot.want.urgent or self._lowers(slot, self._session.now()))
                    due.append((0 if urgent else 1, slot))
                else:
                    soonest = min(soonest, wait_s)
            if due:
                due.sort(key=lambda d: d[0])
                slot = due[0][1]
                try:
                    await self._follow(slot, URGENT if due[0][0] == 0 else LIMIT)
                except Exception:
                    log.exception("%s: the limit of EVSE %s could not be sent", self._session.identity, slot.number)
                    self._failed(slot, WantedLimit.State.FAILED, "could not be sent")
                continue
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), soonest)

    def _due_in(self, slot: Slot, now: datetime, mono: float) -> float | None:
        """Seconds until this EVSE needs a message: 0 now, None not until something changes."""
        want = slot.want
        if want is None or want.until <= now or not self._session.may_be_asked:
            return None
        wanted, transaction_id = _value(want), self._session.transactions.get(slot.number)
        if slot.refused == (wanted, transaction_id):
            return None
        patience = max(0.0, slot.not_before - mono)
        accepted = slot.accepted
        if accepted is None or accepted.transaction_id != transaction_id:
            return patience
        if accepted.until is not None and accepted.until <= now:
            return patience
        present = accepted.at(now)
        if wanted < present - SAME:
            return patience
        if wanted > present + SAME:
            if want.urgent:
                return patience
            return max(patience, slot.sent_at + RAISE_EVERY_S - mono)
        if accepted.until is None:
            return None
        half = (accepted.until - now).total_seconds() - self._session.knobs.lease_s / 2
        return max(patience, half)

    def _lowers(self, slot: Slot, now: datetime) -> bool:
        return slot.want is not None and slot.accepted is not None and _value(slot.want) < slot.accepted.at(now) - SAME

    async def _follow(self, slot: Slot, rank: int) -> None:
        """Send what is wanted on one EVSE and write down what came of it."""
        want = slot.want
        if want is None:
            return
        transaction_id = self._session.transactions.get(slot.number)
        if transaction_id is None and self._fail_safe_suffices(slot, want):
            self._took(slot, want, None, None, ())
            return
        slot.sent_at = self._mono()
        self._note(slot, state=WantedLimit.State.SENT)
        detail = ""
        try:
            for rung in self._ladder(transaction_id is not None):
                now = self._session.now()
                profile, steps = self._profile(rung, slot, want, transaction_id, now)
                status = await self._send(profile, rank)
                if status == "Accepted":
                    if profile.purpose is Purpose.TX_DEFAULT:
                        self._covered(slot, want)
                    self._remember(rung, transaction_id is not None)
                    until = now + timedelta(seconds=self._session.knobs.lease_s)
                    self._took(slot, want, until, transaction_id, steps)
                    return
                detail = detail or status
        except NoAnswer:
            self._failed(slot, WantedLimit.State.FAILED, "no answer")
            return
        except StationUnreachable:
            slot.not_before = self._mono() + 1.0
            return
        slot.refused = (_value(want), transaction_id)
        self._session.count("limit_refused")
        self._failed(slot, WantedLimit.State.REFUSED, detail)

    def _fail_safe_suffices(self, slot: Slot, want: Want) -> bool:
        """Without a transaction nothing is sent where the fail-safe is what is wanted, or all the station knows."""
        known = self._session.record.capabilities
        if known.get("fail_safe") is None:
            return False
        return known.get("max_stack_level") == 0 or (self._is_fail_safe(want) and self._mono() >= slot.covered_until)

    def _is_fail_safe(self, want: Want) -> bool:
        unit = Unit.A if want.limit_a is not None else Unit.W
        return abs(_value(want) - self._fail_safe(unit)) <= SAME

    def _covered(self, slot: Slot, want: Want) -> None:
        lease_s = self._session.knobs.lease_s
        slot.covered_until = -1e9 if self._is_fail_safe(want) else self._mono() + lease_s

    async def _send(self, profile: ChargingProfile, rank: int) -> str:
        """The station's own word: Accepted, Rejected …, or its error."""
        try:
            result = await self._session.ask(self._session.speaks.set_profile(profile), rank=rank)
        except CallRefused as error:
            return str(error)[:200]
        except CallNotValid as error:
            log.error("%s: a profile of ours is not valid: %s", self._session.identity, error)
            return str(error)[:200]
        return str(result.get("status", ""))

    # ------------------------------------------------------------------ profiles

    def _unit(self) -> Unit:
        known = self._session.record.capabilities.get("rate_unit")
        if known in ("A", "W"):
            return Unit(known)
        return Unit.W if self._session.record.dc else Unit.A

    def _ladder(self, transaction: bool) -> list[Rung]:
        """The ways to try, best first; the one that worked before comes first."""
        unit = self._unit()
        first = Purpose.TX if transaction else Purpose.TX_DEFAULT
        level_one = self._session.record.capabilities.get("max_stack_level") != 0
        rungs = [Rung(first, unit)]
        if transaction and level_one:
            rungs.append(Rung(Purpose.TX_DEFAULT, unit))
        rungs.append(Rung(first, _other(unit)))
        if transaction and level_one:
            rungs.append(Rung(Purpose.TX_DEFAULT, _other(unit)))
        rungs.append(Rung(Purpose.TX_DEFAULT, unit, stepped=True))
        learnt = self._session.record.capabilities.get(self._lesson(transaction))
        best = next((r for r in rungs if r.to_list() == learnt), None)
        return [best, *(r for r in rungs if r != best)] if best is not None else rungs

    def _remember(self, rung: Rung, transaction: bool) -> None:
        self._session.learn(**{self._lesson(transaction): rung.to_list()})

    def _lesson(self, transaction: bool) -> str:
        """What was learnt of a station taken for AC says nothing of it as a DC one: amps are another thing there."""
        name = "rung" if transaction else "idle_rung"
        return f"dc_{name}" if self._session.record.dc else name

    def _profile(
        self, rung: Rung, slot: Slot, want: Want, transaction_id: str | None, now: datetime
    ) -> tuple[ChargingProfile, tuple[tuple[datetime, float], ...]]:
        lease_s = self._session.knobs.lease_s
        known = self._session.record.capabilities
        steps = self._steps_ahead(want, now)
        periods = [Period(0, self._converted(_value(want), want, rung.unit), want.phases)]
        for moment, limit in steps:
            start_s = CLOCK_GUARD_S + int((moment - now).total_seconds())
            periods.append(Period(start_s, self._converted(limit, want, rung.unit), want.phases))
        if rung.stepped:
            periods.append(Period(CLOCK_GUARD_S + lease_s, self._fail_safe(rung.unit)))
        schedule = Schedule(
            rung.unit,
            tuple(periods),
            None if rung.stepped else CLOCK_GUARD_S + lease_s,
            self._start(now),
        )
        if rung.purpose is Purpose.TX:
            level = int(known.get("max_stack_level") or 0)
            profile = ChargingProfile(
                LIVE_ID + slot.number,
                Purpose.TX,
                level,
                Kind.ABSOLUTE,
                schedule,
                evse=slot.number,
                transaction_id=transaction_id,
            )
        else:
            profile = ChargingProfile(
                LIVE_DEFAULT_ID + slot.number,
                Purpose.TX_DEFAULT,
                0 if rung.stepped else 1,
                Kind.ABSOLUTE,
                schedule,
                evse=slot.number,
            )
        return profile, steps

    def _steps_ahead(self, want: Want, now: datetime) -> tuple[tuple[datetime, float], ...]:
        """The part of the plan that may be sent ahead: inside the lease, and only downward.

        A rise is the live layer's to allow, at its moment; sent ahead it would come even if nobody stood behind it.
        """
        room = int(self._session.record.capabilities.get("max_periods") or 1) - 2
        out: list[tuple[datetime, float]] = []
        lowest = _value(want)
        for seconds, limit in want.periods[1:]:
            moment = want.at + timedelta(seconds=seconds)
            ahead_s = (moment - now).total_seconds()
            if ahead_s < 1 or ahead_s >= self._session.knobs.lease_s or len(out) >= room:
                continue
            if limit < lowest - SAME:
                lowest = limit
                out.append((moment, limit))
        return tuple(out)

    def _converted(self, value: float, want: Want, unit: Unit) -> float:
        """The limit in the unit the station takes. A single-phase car may take all the watts on one phase."""
        told = Unit.A if want.limit_a is not None else Unit.W
        if told is unit:
            return max(0.0, value)
        record = self._session.record
        phases = 3 if record.dc else (want.phases or len(record.phases))
        return max(0.0, value * NOMINAL_V * phases if unit is Unit.W else value / (NOMINAL_V * phases))

    def _start(self, now: datetime) -> datetime:
        """A minute ago, on the station's own clock."""
        start = now - timedelta(seconds=CLOCK_GUARD_S) + timedelta(seconds=self._session.clock.offset_s)
        return start.replace(microsecond=0)

    # ------------------------------------------------------------------ what is written down

    def _took(
        self,
        slot: Slot,
        want: Want,
        until: datetime | None,
        transaction_id: str | None,
        steps: tuple[tuple[datetime, float], ...],
    ) -> None:
        slot.accepted = Accepted(_value(want), until, transaction_id, steps)
        slot.failures, slot.refused, slot.not_before = 0, None, -1e9
        holds = self._fail_safe(Unit.A if want.limit_a is not None else Unit.W) if until is None else _value(want)
        self._note(
            slot,
            state=WantedLimit.State.ACCEPTED,
            detail="" if until is not None else "fail-safe",
            accepted_a=holds if want.limit_a is not None else None,
            accepted_w=holds if want.limit_a is None else None,
            accepted_at=self._session.now(),
            lease_until=until,
        )

    def _failed(self, slot: Slot, state: str, detail: str) -> None:
        """Nothing certain is in force now; try again later, ever more slowly."""
        slot.accepted = None
        slot.not_before = self._mono() + RETRY_S[min(slot.failures, len(RETRY_S) - 1)]
        slot.failures += 1
        self._note(slot, state=state, detail=detail[:255])

    def _note(self, slot: Slot, **more: Any) -> None:
        """Bring the EVSE's row up to date, where something changed that a person would see."""
        pk = self._session.record.evses.get(slot.number)
        if pk is None or slot.want is None:
            return
        row: dict[str, Any] = {
            "wanted_a": slot.want.limit_a,
            "wanted_w": slot.want.limit_w,
            "reason": slot.want.reason[:200],
            **more,
        }
        if not more and not self._session.may_be_asked:
            row |= {"state": WantedLimit.State.WANTED, "detail": "quiet" if self._session.record.quiet else ""}
        if all(slot.written.get(k) == v for k, v in row.items()):
            return
        slot.written |= row
        row["wanted_at"] = slot.want.at
        self._session.services.writer.fold(stations.limit_changed, pk, row)


def _value(want: Want) -> float:
    value = want.limit_a if want.limit_a is not None else want.limit_w
    return max(0.0, value or 0.0)


def _other(unit: Unit) -> Unit:
    return Unit.W if unit is Unit.A else Unit.A


def want_limit(
    evse: EVSE,
    *,
    amps: float | None = None,
    watts: float | None = None,
    reason: str,
    lease_s: float,
    urgent: bool = False,
) -> Want:
    """An operator's own limit on an EVSE, for as long as `lease_s`. Raises `ValueError` with the name of the field."""
    if (amps is None) == (watts is None):
        raise ValueError("amps, watts: give exactly one of the two")
    for name, value in (("amps", amps), ("watts", watts)):
        if value is not None and not 0 <= value < 10_000_000:
            raise ValueError(f"{name}: a limit is a number from 0 up")
    if lease_s <= 0:
        raise ValueError("lease_s: a lease is longer than nothing")
    now = datetime.now(UTC)
    want = Want(
        identity=evse.station.identity,
        evse=evse.number,
        limit_a=amps,
        limit_w=watts,
        reason=reason,
        at=now,
        until=now + timedelta(seconds=lease_s),
        urgent=urgent,
    )
    bus.put_hand_limit(want)
    bus.put_wants([want])
    return want

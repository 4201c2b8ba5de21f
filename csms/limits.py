"""The limit we want on each EVSE, what the station accepted, and how long that holds.

A limit is a desired state with a lease. `Keeper` lives in the gateway beside a station's socket and keeps accepted
equal to wanted: one slot per EVSE in which the lowest of all that stand counts and the latest word of each wanter
replaces the one before, so that a slow station never works off a queue of old limits. Lowering goes at once, raising
is paced, an emergency overtakes whatever waits. What was accepted is sent anew after a boot, a reconnect and the start
of a transaction, and renewed at half its lease, but only while the wanter stands for it: a stale want is left to
expire, and below it lies the fail-safe.

How a limit is told is `ladder.py`'s; whether it is followed, and what is done when it is not, `obedience.py`'s.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

from csms import alarms, bus, counting, stations, trail
from csms.bus import CallNotValid, CallRefused, NoAnswer, StationUnreachable, Want
from csms.exchange import AWAY
from csms.ladder import (
    CLOCK_GUARD_S,
    LOW,
    Rung,
    fail_safe_profile,
    lesson,
    lowest_level,
    other,
    profile,
    rungs,
    unit_of,
)
from csms.models import EVSE, WantedLimit
from csms.obedience import Obedience
from csms.obedience_models import Alarm
from csms.profiles import NOMINAL_V, ChargingProfile, Purpose, Unit
from csms.rpc import EMERGENCY, LIMIT, UNASKED, URGENT, GaveWay
from csms.slots import SAME, Accepted, Slot, value_of
from meters.supply import Supply, power_weight

if TYPE_CHECKING:
    from csms.following import Patience
    from csms.session import Session

log = logging.getLogger(__name__)

RAISE_EVERY_S = 5.0
TOGETHER_S = 0.03
"""Those who want something at the same moment are heard before one message is sent."""

RETRY_S = (5.0, 15.0, 30.0, 60.0)
STATE = WantedLimit.State


class Keeper:
    """Keeps what is accepted equal to what is wanted, on every EVSE of one station."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._slots: dict[int, Slot] = {}
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self.obedience = Obedience(self, session)

    @property
    def patience(self) -> Patience:
        return self._session.knobs.patience

    # ------------------------------------------------------------------ told from outside

    def want(self, want: Want) -> None:
        """A want arrived. An older one of the same wanter than we have is not news."""
        slot = self.slot(want.evse)
        before = slot.wants.get(want.by)
        if before is not None and want.at < before.at:
            return
        slot.wants[want.by] = want
        self._choose(slot)
        self._wake.set()

    def _choose(self, slot: Slot) -> None:
        """The lowest of all that stand counts."""
        now = self._session.now()
        before, slot.want = slot.want, slot.lowest(now, self.amps)
        if slot.want is None:
            return
        if before is None or value_of(before) != value_of(slot.want):
            slot.refused = None
            slot.not_before = -1e9
            slot.changed_at = self._mono()
            slot.step = trail.new_key()
            if slot.want.urgent and slot.task is not None and not slot.on_wire:
                slot.task.cancel()  # what waits to be sent is no longer wanted
        self.note(slot, asked=slot.asked(now))

    def place_known(self, number: int) -> None:
        """An EVSE was heard of for the first time; it may be wanted already."""
        if number not in self._slots:
            self.slot(number)
            self._session.spawn(self.fetch([number]))

    def transaction_changed(self, number: int) -> None:
        """A transaction began or ended: a transaction profile dies with it, and a new one is needed."""
        slot = self.slot(number)
        slot.begin_anew()
        slot.step = trail.new_key()
        self.obedience.another_car(slot)
        self._wake.set()

    def forget_accepted(self) -> None:
        """After a boot or a reconnect nothing is known to be in force."""
        for slot in self._slots.values():
            slot.begin_anew()

    def believed_again(self, numbers: set[int]) -> None:
        """An operator ended the isolation of these EVSEs."""
        for slot in [s for n, s in self._slots.items() if n in numbers and s.isolated]:
            slot.isolated = False
            slot.ignored.clear()
            slot.low = False
            slot.begin_anew()
        self._wake.set()

    def go(self) -> None:
        if self._task is None or self._task.done():
            self._task = self._session.spawn(self._keep())
        self._session.spawn(self.fetch())
        self._wake.set()

    def wake(self) -> None:
        self._wake.set()

    def hold_still(self) -> None:
        """Nothing is sent: the station is quiet, or not ours yet."""
        for task in (self._task, *(s.task for s in self._slots.values())):
            if task is not None:
                task.cancel()
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

    def slot(self, number: int) -> Slot:
        """A new one knows nothing of what an earlier socket sent: it may hold for a lease."""
        slot = self._slots.get(number)
        if slot is None:
            slot = Slot(number, covered_until=self._mono() + self._session.knobs.lease_s)
            slot.isolated = number in self._session.record.isolated
            self._slots[number] = slot
        return slot

    @staticmethod
    def _mono() -> float:
        return asyncio.get_running_loop().time()

    # ------------------------------------------------------------------ the fail-safe

    async def install_fail_safe(self) -> None:
        """What the station allows each EVSE when nobody tells it otherwise; it lies lowest and has no end."""
        session = self._session
        known = session.known
        first = unit_of(known, session.record.dc)
        low = lowest_level(known)
        tries = [] if known.get("connector_zero") is False else [(first, low), (other(first), low), (first, low + 1)]
        for unit, level in tries:
            limit = self.fail_safe(unit)
            status = await self.send(
                fail_safe_profile(unit, limit, level=level, start=self._start(session.now())), UNASKED
            )
            if status == "Accepted":
                if level > low:
                    session.learn(min_stack_level=level)
                self._fail_safe_taken(limit, unit)
                return
        if await self._fail_safe_each(session.record.evses):
            if tries:
                session.learn(connector_zero=False)
            return
        session.count("fail_safe_refused")
        session.learn(fail_safe="refused")
        self.raise_alarm(Alarm.Kind.FAIL_SAFE_REFUSED)
        log.warning("%s takes no fail-safe profile", session.identity)

    async def _fail_safe_each(self, numbers: dict[int, int]) -> bool:
        """For a station that knows no profile for all its EVSEs at once (Q18: connector 0 refused)."""
        known = self._session.known
        unit, taken = unit_of(known, self._session.record.dc), 0
        limit = self.fail_safe(unit)
        for number in sorted(numbers):
            start = self._start(self._session.now())
            one = fail_safe_profile(unit, limit, level=lowest_level(known), start=start, evse=number)
            taken += await self.send(one, UNASKED) == "Accepted"
        if taken and taken == len(numbers):
            self._fail_safe_taken(limit, unit)
            return True
        return False

    def _fail_safe_taken(self, limit: float, unit: Unit) -> None:
        session = self._session
        if session.known.get("fail_safe") != [limit, str(unit)]:
            session.learn(fail_safe=[limit, str(unit)])
        self.end_alarm(Alarm.Kind.FAIL_SAFE_REFUSED)

    def fail_safe(self, unit: Unit) -> float:
        record = self._session.record
        if unit is Unit.A:
            return record.fail_safe_a
        return record.fail_safe_a * self.watts_per_a(self.wired)

    # ------------------------------------------------------------------ the loop

    async def _keep(self) -> None:
        while not self._session.connection.closed:
            self._wake.clear()
            soonest = 3600.0
            now, mono = self._session.now(), self._mono()
            for slot in self._slots.values():
                ends_s = slot.ends_in(now)
                if ends_s is not None:
                    soonest = min(soonest, ends_s + 0.01)
                elif len(slot.wants) > 1:
                    self._choose(slot)
                wait_s = self._due_in(slot, now, mono)
                if wait_s is None:
                    continue
                if wait_s > 0:
                    soonest = min(soonest, wait_s)
                elif slot.task is None or slot.task.done():
                    self._begin(slot, now)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), max(soonest, 0.001))

    def _begin(self, slot: Slot, now: datetime) -> None:
        """Send what this EVSE needs, beside the others: the connection decides who goes first."""
        rank = LIMIT
        if slot.want is not None and slot.want.urgent:
            rank = EMERGENCY
        elif self._lowers(slot, now):
            rank = URGENT
        slot.on_wire = False
        slot.task = self._session.spawn(self._try_to_follow(slot, rank))
        slot.task.add_done_callback(lambda _: self._wake.set())

    async def _try_to_follow(self, slot: Slot, rank: int) -> None:
        try:
            await self._follow(slot, rank)
        except Exception:
            log.exception("%s: the limit of EVSE %s could not be sent", self._session.identity, slot.number)
            self._failed(slot, STATE.FAILED, "could not be sent")

    def _due_in(self, slot: Slot, now: datetime, mono: float) -> float | None:
        """Seconds until this EVSE needs a message: 0 now, None not until something changes."""
        want = slot.want
        if want is not None and want.until <= now:
            self._choose(slot)
            want = slot.want
        if want is None or want.until <= now or not self._session.may_be_asked:
            return None
        wanted, transaction_id = value_of(want), self._session.transactions.get(slot.number)
        if slot.refused == (wanted, transaction_id):
            return None
        patience = max(0.0, slot.not_before - mono)
        if not want.urgent and len(slot.wants) > 1:
            patience = max(patience, slot.changed_at + TOGETHER_S - mono)
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
        if slot.want is None:
            return False
        if slot.accepted is None:
            return bool(slot.ignored)
        return value_of(slot.want) < slot.accepted.at(now) - SAME

    async def _follow(self, slot: Slot, rank: int) -> None:
        """Send what is wanted on one EVSE and write down what came of it."""
        want = slot.want
        if want is None:
            return
        transaction_id = self._session.transactions.get(slot.number)
        if transaction_id is None and self._fail_safe_suffices(slot, want):
            self._took(slot, want, None, None, (), None)
            return
        slot.sent_at = self._mono()
        self.note(slot, **({} if self._settled(slot, want) else {"state": STATE.SENT}))
        detail = ""
        failed: list[Rung] = []
        teaches = True
        try:
            for rung in self.ladder(slot, want, transaction_id is not None):
                now = self._session.now()
                told, steps = self._profile(rung, slot, want, transaction_id, now)
                self.tell(slot, want, means=str(rung), sent_at=now)
                status = await self.send(told, rank, slot)
                if status is None:
                    teaches = False  # a transaction whose id is too long to be named, say: no fault of its model
                    detail = detail or "cannot be said in its version"
                    continue
                if status == "Accepted":
                    if rung.purpose is Purpose.TX_DEFAULT:
                        self._covered(slot, want)
                    if teaches:
                        self._remember(slot, rung, transaction_id is not None, failed)
                    else:
                        slot.rung = rung
                    until = now + timedelta(seconds=self._session.knobs.lease_s)
                    self._took(slot, want, until, transaction_id, steps, rung)
                    return
                failed.append(rung)
                detail = detail or status
        except GaveWay:
            slot.accepted = None
            return
        except NoAnswer:
            self._failed(slot, STATE.FAILED, "no answer")
            self.obedience.unanswered(slot)
            return
        except StationUnreachable:
            slot.not_before = self._mono() + 1.0
            return
        slot.refused = (value_of(want), transaction_id)
        self._session.count("limit_refused")
        self._failed(slot, STATE.REFUSED, detail)
        if transaction_id is not None:
            self.obedience.refused(slot, detail)

    def ladder(self, slot: Slot, want: Want, transaction: bool) -> list[Rung]:
        """The ways to try, best first, without those this EVSE did not follow. One that follows none gets the best."""
        record = self._session.record
        found = rungs(
            self._session.known,
            transaction=transaction,
            dc=record.dc,
            evses=len(record.evses),
            tenths=value_of(want) % 1 > 0.01,
        )
        if slot.isolated:
            return found[:1] if transaction else found
        return [r for r in found if r not in slot.ignored] or found[:1]

    def _settled(self, slot: Slot, want: Want) -> bool:
        """Is this only the renewal of what is in force?"""
        accepted = slot.accepted
        return accepted is not None and accepted.until is not None and abs(accepted.value - value_of(want)) <= SAME

    def _fail_safe_suffices(self, slot: Slot, want: Want) -> bool:
        """Without a transaction nothing is sent where the fail-safe is what is wanted, or all the station knows."""
        known = self._session.known
        if not isinstance(known.get("fail_safe"), list):
            return False
        one_level = known.get("max_stack_level") == lowest_level(known)
        return one_level or (self._is_fail_safe(want) and self._mono() >= slot.covered_until)

    def _is_fail_safe(self, want: Want) -> bool:
        unit = Unit.A if want.limit_a is not None else Unit.W
        return abs(value_of(want) - self.fail_safe(unit)) <= SAME

    def _covered(self, slot: Slot, want: Want) -> None:
        lease_s = self._session.knobs.lease_s
        slot.covered_until = -1e9 if self._is_fail_safe(want) else self._mono() + lease_s

    async def send(self, told: ChargingProfile, rank: int, slot: Slot | None = None) -> str | None:
        """The station's own word: Accepted, Rejected …, or its error. None: it cannot be said, and was not sent."""
        call = self._session.speaks.set_profile(told)
        try:
            result = await self._session.ask(call, rank=rank, sent=None if slot is None else partial(_left, slot))
        except CallRefused as error:
            return str(error)[:200]
        except CallNotValid as error:
            log.error("%s: a profile of ours is not valid: %s", self._session.identity, error)
            return None
        finally:
            if slot is not None:
                slot.on_wire = False
        return str(result.get("status", ""))

    # ------------------------------------------------------------------ profiles

    @property
    def wired(self) -> int:
        """How many phases a limit in watts is shared over."""
        record = self._session.record
        if record.dc:
            return 3
        between_two = record.supply is Supply.IT and len(record.phases) == 2
        return 1 if between_two else len(record.phases)

    def watts_per_a(self, phases: int) -> float:
        """What an amp carries to a car on so many phases."""
        return NOMINAL_V * power_weight(phases, self._session.record.supply)

    def amps(self, want: Want) -> float:
        """A want in amps per phase, to compare wants with each other and with the meter."""
        return value_of(want) if want.limit_a is not None else value_of(want) / self.watts_per_a(self.wired)

    def _remember(self, slot: Slot, rung: Rung, transaction: bool, failed: Sequence[Rung]) -> None:
        slot.rung = rung
        if slot.ignored or slot.isolated:
            return  # that it accepts this one too proves nothing; its meter will
        self.learn_rung(rung, transaction, failed)

    def learn_rung(self, rung: Rung, transaction: bool, failed: Sequence[Rung]) -> None:
        dc = self._session.record.dc
        self._session.learn(**lesson(rung, self._session.known, transaction=transaction, dc=dc, failed=failed))

    def _profile(
        self, rung: Rung, slot: Slot, want: Want, transaction_id: str | None, now: datetime
    ) -> tuple[ChargingProfile, tuple[tuple[datetime, float], ...]]:
        steps = self._steps_ahead(want, now)
        limit = self._converted(slot, value_of(want), want, rung.unit)
        if limit <= SAME and (slot.low or self._session.known.get("zero_method") == "low"):
            limit = LOW[rung.unit]
        phases = want.phases if self._session.known.get("honours_phases") is not False else None
        told = profile(
            rung,
            evse=slot.number,
            limit=limit,
            steps=[
                (int((moment - now).total_seconds()), self._converted(slot, value, want, rung.unit))
                for moment, value in steps
            ],
            phases=phases,
            transaction_id=transaction_id,
            start=self._start(now),
            lease_s=self._session.knobs.lease_s,
            fail_safe=self.fail_safe(rung.unit),
        )
        return told, steps if rung.is_lease else ()

    def _steps_ahead(self, want: Want, now: datetime) -> tuple[tuple[datetime, float], ...]:
        """The part of the plan that may be sent ahead: inside the lease, and only downward.

        A rise is the live layer's to allow, at its moment; sent ahead it would come even if nobody stood behind it.
        """
        room = int(self._session.known.get("max_periods") or 1) - 2
        out: list[tuple[datetime, float]] = []
        lowest = value_of(want)
        for seconds, limit in want.periods[1:]:
            moment = want.at + timedelta(seconds=seconds)
            ahead_s = (moment - now).total_seconds()
            if ahead_s < 1 or ahead_s >= self._session.knobs.lease_s or len(out) >= room:
                continue
            if limit < lowest - SAME:
                lowest = limit
                out.append((moment, limit))
        return tuple(out)

    def _converted(self, slot: Slot, value: float, want: Want, unit: Unit) -> float:
        """The limit in the unit the station takes. On some a car gets all the watts on its few phases (R16)."""
        told = Unit.A if want.limit_a is not None else Unit.W
        if told is unit:
            return max(0.0, value)
        phases = self.wired if self._session.record.dc else (want.phases or slot.shared_over or self.wired)
        each_w = self.watts_per_a(phases)
        return max(0.0, value * each_w if unit is Unit.W else value / each_w)

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
        rung: Rung | None,
    ) -> None:
        before, now = slot.accepted, self._session.now()
        renewed = before is not None and before.transaction_id == transaction_id and self._settled(slot, want)
        slot.accepted = Accepted(value_of(want), until, transaction_id, steps)
        slot.failures, slot.refused, slot.not_before, slot.unanswered = 0, None, -1e9, 0
        holds = self.fail_safe(Unit.A if want.limit_a is not None else Unit.W) if until is None else value_of(want)
        stays = slot.state in (STATE.SCHEDULED, STATE.MEASURED, STATE.NOT_FOLLOWED) and (renewed or slot.isolated)
        self.note(
            slot,
            **({} if stays else {"state": STATE.ACCEPTED}),
            **({"detail": "" if until is not None else "fail-safe"} if not slot.isolated else {}),
            accepted_a=holds if want.limit_a is not None else None,
            accepted_w=holds if want.limit_a is None else None,
            accepted_at=now,
            lease_until=until if rung is None or rung.is_lease else None,
            means=str(rung) if rung is not None else "",
        )
        self.tell(slot, want, accepted_at=now)
        if not renewed:
            counting.LIMIT_S.observe((now - want.at).total_seconds(), "accepted")
        self.end_alarm(Alarm.Kind.SILENT)
        self.obedience.accepted(slot, holds, want, renewed=renewed, before=before)

    def _failed(self, slot: Slot, state: str, detail: str) -> None:
        """Nothing certain is in force now; try again later, ever more slowly."""
        slot.accepted = None
        slot.not_before = self._mono() + RETRY_S[min(slot.failures, len(RETRY_S) - 1)]
        slot.failures += 1
        self.note(slot, state=state, detail=detail[:255])

    def note(self, slot: Slot, **more: Any) -> None:
        """Bring the EVSE's row up to date, where something changed that a person would see."""
        if "state" in more:
            slot.state = str(more["state"])
        pk = self._session.record.evses.get(slot.number)
        if pk is None or slot.want is None:
            return
        row: dict[str, Any] = {
            "wanted_a": slot.want.limit_a,
            "wanted_w": slot.want.limit_w,
            "reason": slot.want.reason[:200],
            **more,
        }
        if not (more.keys() - {"asked"}) and not self._session.may_be_asked:
            row |= {"state": STATE.WANTED, "detail": "quiet" if self._session.record.quiet else ""}
        if all(slot.written.get(k) == v for k, v in row.items()):
            return
        slot.written |= row
        row["wanted_at"] = slot.want.at
        self._session.services.writer.fold(stations.limit_changed, pk, row)
        if "state" in more:
            self.tell(slot, slot.want)

    def tell(self, slot: Slot, want: Want, **more: Any) -> None:
        """One more word on the trail of the present limit."""
        pk = self._session.record.evses.get(slot.number)
        if pk is None:
            return
        row = {
            "at": want.at,
            "wanted_a": want.limit_a,
            "wanted_w": want.limit_w,
            "reason": want.reason[:200],
            "asked": slot.asked(self._session.now()),
            "state": slot.state or str(STATE.WANTED),
            "detail": str(slot.written.get("detail", "")),
            **more,
        }
        self._session.services.writer.fold(trail.told, (pk, slot.step), row)

    def end_alarm(self, kind: str, slot: Slot | None = None) -> None:
        """If such an alarm is known to be open, it is over."""
        record = self._session.record
        evse_pk = record.evses.get(slot.number) if slot is not None else None
        if alarms.key_of(kind, record.pk, evse_pk) in self._session.open_alarms:
            self._session.open_alarms.discard(alarms.key_of(kind, record.pk, evse_pk))
            self._session.post(
                partial(alarms.end_alarm, kind, self._session.now(), station_pk=record.pk, evse_pk=evse_pk)
            )

    def raise_alarm(self, kind: str, slot: Slot | None = None, detail: str = "") -> None:
        record = self._session.record
        evse_pk = record.evses.get(slot.number) if slot is not None else None
        self._session.open_alarms.add(alarms.key_of(kind, record.pk, evse_pk))
        self._session.post(
            partial(alarms.raise_alarm, kind, self._session.now(), station_pk=record.pk, evse_pk=evse_pk, detail=detail)
        )


def _left(slot: Slot) -> None:
    slot.on_wire = True


def want_limit(
    evse: EVSE,
    *,
    amps: float | None = None,
    watts: float | None = None,
    reason: str,
    lease_s: float,
    urgent: bool = False,
    by: str = "",
) -> Want:
    """An operator's own limit on an EVSE, for as long as `lease_s`. Raises `ValueError` with the name of the field.

    It stands beside what others want: the lowest counts. `by` is who asks; a later word of his replaces this one.
    """
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
        by=(by or reason or "by hand")[:150],
    )
    trail.asked(evse, want.by, now, amps=amps, watts=watts, reason=reason)
    bus.put_hand_limit(want)
    return want

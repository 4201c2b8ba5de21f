"""One station's conversation: what a socket, the station's record and the gateway's services are together.

The dialects' `station.py` speak through it, the keeper of limits sends through it. It lives as long as its socket;
what must outlive that is in the database or in Redis.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from django.db import DatabaseError

from csms import firmware, learning, ledger, notices, quirks, reservations, stations
from csms.bus import CallNotValid, CallRefused, NoAnswer, StationUnreachable
from csms.capabilities import BY_NAME, Source
from csms.clocks import Clock
from csms.counting import REPAIRS
from csms.exchange import Exchange
from csms.following import Patience
from csms.ledger import Outcome
from csms.limits import Keeper
from csms.memory import Memory, StationRecord
from csms.metering import measurement
from csms.obedience_models import Alarm
from csms.pacing import FAIL_SAFES_PER_S, SET_UPS_PER_S, Pace, spread
from csms.profiles import ChargingProfile
from csms.rpc import ASKED, UNASKED, Connection, Handler, Refusal, Socket
from csms.schemas import dialect
from csms.vocabulary import (
    Boot,
    MeterValue,
    Notice,
    ReportedVariable,
    ShownToken,
    StatusReport,
    TransactionReport,
    Verdict,
)
from csms.writer import Frame, Writer, WriterFull
from meters.live import evse_source
from meters.measurement import Measurement

if TYPE_CHECKING:
    from collections.abc import Mapping

log = logging.getLogger(__name__)
T = TypeVar("T")

READY_AFTER_S = 5.0
"""A station that has not booted by then has only reconnected (Q8)."""

SETTLE_S = 6.5
LIVE_FOR = timedelta(seconds=45)
SHOWN_OF_A_BURST = 3
LEARNT_LATELY = timedelta(seconds=5)
REMOTE_STARTS = frozenset({"RemoteStartTransaction", "RequestStartTransaction"})
STARTS_WITHIN_S = 120.0
MEETS_WITHIN_S = 1.0
ANOTHER_ASKED_S = 60
RESTLESS_BOOTS, RESTLESS_WITHIN = 3, timedelta(minutes=15)


class Dialect(Protocol):
    """What both `station.py` modules offer, by the same names in the same order."""

    NAME: str
    CODEC: Any  # the dialect's pure translation, by the same function names
    WHILE_PENDING: frozenset[str] | None
    HANDLERS: Mapping[str, Callable[[Session, dict[str, Any]], dict[str, Any] | Awaitable[dict[str, Any]]]]

    def set_profile(self, profile: ChargingProfile) -> tuple[str, dict[str, Any]]: ...
    def running_cost(self, transaction_id: str, total: float, at: datetime) -> tuple[str, dict[str, Any]]: ...
    async def configure_meters(self, session: Session) -> None: ...
    async def take_inventory(self, session: Session) -> bool: ...
    async def ask_status(self, session: Session) -> None: ...
    async def ask_boot(self, session: Session) -> None: ...


PATIENCE = Patience()


class Desk(Protocol):
    """Where requests for certificates and security events go (`certificates.py`)."""

    def hear(self, session: Session, payload: Mapping[str, Any]) -> None: ...
    async def sign(self, session: Session, payload: Mapping[str, Any]) -> dict[str, Any]: ...


@dataclass(frozen=True, slots=True)
class Knobs:
    """The gateway's settings, as one session needs them."""

    heartbeat_s: int = 300
    meter_interval_s: int = 10
    call_timeout_s: float = 30.0
    lease_s: int = 300
    messages_per_s: float = 100.0
    keep_heartbeats: bool = True  # in the message log
    patience: Patience = PATIENCE


@dataclass(frozen=True, slots=True)
class Services:
    """What a gateway lends to each of its sessions."""

    memory: Memory
    writer: Writer
    exchange: Exchange
    knobs: Knobs
    desk: Desk | None = None  # where requests for certificates and security events go
    boots: dict[str, list[datetime]] = field(default_factory=dict)  # by identity, to see a station boot in circles
    fail_safes: Pace = field(default_factory=lambda: Pace(FAIL_SAFES_PER_S))
    set_ups: Pace = field(default_factory=lambda: Pace(SET_UPS_PER_S))


class Session:
    """The conversation with one station over one socket."""

    def __init__(
        self, services: Services, record: StationRecord, speaks: Dialect, socket: Socket, epoch: int = 0
    ) -> None:
        self.services = services
        self.speaks = speaks
        self.epoch = epoch
        self.certificate = ""  # the fingerprint of the one it came with
        self.since = self.now()
        self.counters: Counter[str] = Counter()
        self.transactions: dict[int, str] = {}  # the one that runs on each EVSE
        self.costs_told: dict[str, tuple[float, float | None]] = {}  # by transaction: when, and how much
        self.clock = Clock()
        self.heard_at: datetime | None = None
        self._prompted: set[str] = set()
        self._record = record
        self._last: dict[int, Measurement] = {}
        self._unshown: dict[int, deque[Callable[[], tuple[MeterValue, ...]]]] = {}
        self._ready = False
        self._tasks: set[asyncio.Task[Any]] = set()
        self._setting_up: asyncio.Task[None] | None = None
        self._reports: dict[int, list[ReportedVariable]] = {}
        knobs = services.knobs
        self.connection = Connection(
            socket,
            dialect(speaks.NAME),
            self._handler(),
            record=self._keep,
            count=self.count,
            call_timeout_s=knobs.call_timeout_s,
            messages_per_s=knobs.messages_per_s,
            forbids=self._forbids,
        )
        self._lately: dict[str, tuple[Any, datetime]] = {}
        self.open_alarms = set(record.alarms)
        self.keeper = Keeper(self)

    # ------------------------------------------------------------------ what it is

    @property
    def record(self) -> StationRecord:
        """The station as memory has it now."""
        return self.services.memory.by_pk.get(self._record.pk, self._record)

    @property
    def identity(self) -> str:
        return self._record.identity

    @property
    def knobs(self) -> Knobs:
        return self.services.knobs

    @property
    def heartbeat_s(self) -> int:
        """The interval to tell at a boot: stations that came together must not come together again."""
        return self.knobs.heartbeat_s if self.record.quiet else spread(self.knobs.heartbeat_s)

    @staticmethod
    def now() -> datetime:
        return datetime.now(UTC)

    @property
    def may_be_asked(self) -> bool:
        """May we send it something of our own accord?"""
        return self.record.accepted and not self.record.quiet and not self.connection.closed

    def holds(self) -> dict[str, Any]:
        """What `at:<identity>` says of us, without the epoch."""
        return {
            "gateway": self.services.exchange.gateway,
            "protocol": self.speaks.NAME,
            "since": self.since.isoformat(),
        }

    # ------------------------------------------------------------------ its life

    async def run(self) -> None:
        """From the first frame to the last."""
        timer = asyncio.get_running_loop().call_later(READY_AFTER_S, self._get_ready)
        try:
            await self.connection.run()
        finally:
            timer.cancel()
            self.keeper.stop()
            for task in self._tasks:
                task.cancel()
            self.flush_counters()

    def flush_counters(self) -> None:
        """Hand the counts so far to the station's row."""
        if self.counters:
            more, self.counters = dict(self.counters), Counter()
            self.services.writer.post(partial(stations.counted, self._record.pk, more, self.now()))

    def spawn(self, work: Awaitable[Any]) -> asyncio.Task[Any]:
        """Do something besides, for as long as the socket lives."""
        task = asyncio.ensure_future(self._quietly(work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        if asyncio.iscoroutine(work):
            task.add_done_callback(lambda _: work.close())  # cut off before its first step
        return task

    async def _quietly(self, work: Awaitable[Any]) -> None:
        try:
            await work
        except (StationUnreachable, NoAnswer, CallRefused) as error:
            log.info("%s: %s", self.identity, error)
        except Exception:
            log.exception("%s: something beside the conversation failed", self.identity)

    # ------------------------------------------------------------------ for the dialects

    async def ask(
        self,
        call: tuple[str, dict[str, Any]],
        *,
        rank: int = ASKED,
        timeout_s: float | None = None,
        sent: Callable[[], None] | None = None,
    ) -> dict[str, Any]:
        return await self.connection.call(call[0], call[1], rank=rank, timeout_s=timeout_s, sent=sent)

    async def ask_of_our_own(self, call: tuple[str, dict[str, Any]]) -> dict[str, Any] | None:
        """A question for our own set-up: None when the station refuses or does not know it. Raises when it is gone."""
        if not self.may_be_asked:
            return None
        try:
            return await self.ask(call, rank=UNASKED)
        except CallRefused as error:
            self.count(f"refused_{call[0]}")
            log.info("%s refuses %s: %s", self.identity, call[0], error)
        except CallNotValid:
            log.exception("a message of ours does not fit its schema")
        return None

    def _forbids(self, repair: str) -> bool:
        """Did a person say that this is not to be mended for stations of this model?"""
        model = self.record.model_record
        if model is None or not model.repairs:
            return False
        return quirks.is_forbidden(repair, quirks.forbidden(model.repairs))

    def count(self, name: str) -> None:
        self.counters[name] += 1
        REPAIRS.add(name)

    def post(self, job: Callable[[], Any]) -> None:
        self.services.writer.post(job)

    async def write(self, job: Callable[[], T]) -> T:
        """Wait until it is durable. A database that is too far behind is told to the station as an error."""
        try:
            return await self.services.writer.submit(job)
        except WriterFull:
            raise Refusal("internal", "the database is behind; try again later") from None

    @property
    def known(self) -> dict[str, Any]:
        """What this station can do. What was learnt a moment ago counts before it is written and read again."""
        recent = self.now() - LEARNT_LATELY
        self._lately = {k: (v, at) for k, (v, at) in self._lately.items() if at > recent}
        return {**self.record.capabilities, **{k: v for k, (v, _) in self._lately.items()}}

    def learn(self, source: str = Source.LEARNED, /, **more: Any) -> None:
        """Remember what this station can do; None forgets. What holds for its model is kept for its model."""
        of_model = {k: v for k, v in more.items() if k in BY_NAME}
        now, known = self.now(), self.known
        if of_model and self.services.memory.learn(self.record, of_model, source):
            counts = self.record.capabilities
            self._lately.update({k: (counts.get(k), now) for k in of_model})
            self.post(partial(learning.learned, self._record.pk, of_model, source, self.now()))
        own = {k: v for k, v in more.items() if k not in BY_NAME and known.get(k) != v}
        if own:
            self.record.capabilities.update(own)
            self._lately.update({k: (v, now) for k, v in own.items()})
            self.post(partial(stations.learned, self._record.pk, own))

    def asking(self, action: str, payload: Mapping[str, Any]) -> None:
        """A person's call goes out: what it asks for may be said by a station that waits to be accepted."""
        if action == "TriggerMessage":
            message = str(payload.get("requestedMessage"))
            self._prompted.add("SignCertificate" if message.startswith("Sign") else message)

    def answered(self, action: str, payload: Mapping[str, Any], result: Mapping[str, Any]) -> None:
        """A person's call was answered: what it changes in our own picture."""
        if action in REMOTE_STARTS and result.get("status") == "Accepted":
            self.spawn(self._see_it_start(set(self.transactions.values())))
        if action in ("ClearChargingProfile", "SetChargingProfile"):
            self.keeper.forget_accepted()
            self.keeper.wake()
        if action == "ClearChargingProfile" and self.may_be_asked:
            self.spawn(self.keeper.install_fail_safe())  # it may have gone with the others

    async def _see_it_start(self, running: set[str]) -> None:
        """An accepted remote start that leads to no charge is counted (Q17); nothing is repeated by itself."""
        await asyncio.sleep(STARTS_WITHIN_S)
        if not set(self.transactions.values()) - running:
            self.count("remote_start_in_vain")

    # ------------------------------------------------------------------ what the dialects hand on

    def booted(self, boot: Boot) -> str:
        """A boot: `Accepted` by an operator's word, else `Pending`. The set-up follows the answer."""
        now = self.now()
        self.services.writer.fold(stations.all_booted, "", (self._record.pk, boot, now), first=True)
        told = (self._record.pk, boot.firmware_version, now)
        self.services.writer.fold(firmware.all_booted, "", told, first=True)
        self._last.clear()
        self.services.memory.meet(self.record, boot.vendor[:100], boot.model[:100], boot.firmware_version[:100])
        record = self.record
        if record.rejected:
            return "Rejected"
        if not record.accepted:
            return "Pending"
        self.services.boots[self.identity] = [*self.services.boots.get(self.identity, ()), now][-RESTLESS_BOOTS:]
        self._set_up(boot.firmware_version, booted=True)
        return "Accepted"

    def status_changed(self, report: StatusReport) -> None:
        self.clock.note_moment(report.moment, self.now())
        if report.moment.flag:
            self.count(report.moment.flag)
        if self.clock.offset_s:
            self.count("clock_offset")
        self.keeper.obedience.told_state(report.evse, report.status)
        pk = self._record.pk
        future = self._submit(partial(stations.status_changed, pk, report))
        if future is not None:
            future.add_done_callback(self._know_state)

    def _know_state(self, future: asyncio.Future[stations.EvseState | None]) -> None:
        if future.cancelled() or future.exception() is not None:
            return
        state = future.result()
        if state is None:
            return
        self.record.evses[state.number] = state.pk
        if state.iec_state == "C1":
            self._settle_later(state.pk)
        self.keeper.place_known(state.number)

    def _settle_later(self, evse_pk: int) -> None:
        asyncio.get_running_loop().call_later(SETTLE_S, self.post, partial(stations.settle, evse_pk))

    async def authorize(self, token: ShownToken) -> Verdict:
        return await self.services.memory.authorize(self.record, token, self.now())

    async def transaction(self, report: TransactionReport) -> Outcome:
        """Write an event of a transaction, wait until it is durable, and let the limits follow."""
        if not report.offline:
            self.clock.note_moment(report.moment, report.received or self.now())
        if report.values and report.evse is not None and not report.offline:
            self._show_soon(report.evse, lambda: report.values)
        try:
            outcome = await self.services.writer.together(
                ledger.record, (self._record.pk, self.clock.put_right(report))
            )
        except WriterFull:
            raise Refusal("internal", "the database is behind; try again later") from None
        if outcome.repeated:
            self.count("repeated_event")
        if outcome.evse is not None and outcome.evse_pk is not None:
            self.record.evses.setdefault(outcome.evse, outcome.evse_pk)
            self._follow(outcome, report)
        if outcome.transaction_pk is not None and reservations.may_use_one(outcome, report):
            named = reservations.number_named(report.payload)
            self.post(partial(reservations.used_by, self._record.pk, outcome.transaction_pk, named, self.now()))
        return outcome

    def _follow(self, outcome: Outcome, report: TransactionReport) -> None:
        evse = outcome.evse
        if evse is None:
            return
        running = self.transactions.get(evse)
        new_here = running != outcome.transaction_id and (running is None or not outcome.repeated)
        if outcome.open and new_here:
            self.transactions[evse] = outcome.transaction_id
            self.keeper.transaction_changed(evse)
        elif not outcome.open and running == outcome.transaction_id:
            del self.transactions[evse]
            self.keeper.transaction_changed(evse)
        if report.charging_state and outcome.open:
            self.keeper.obedience.told_state(evse, report.charging_state)
        if report.charging_state == "SuspendedEVSE" and outcome.evse_pk is not None:
            self._settle_later(outcome.evse_pk)

    def measured(self, evse: int, read: Callable[[], tuple[MeterValue, ...]], transaction_id: str = "") -> None:
        """Meter values outside a transaction event; `read` translates them.

        Nobody waits for it here: it is read where it is shown, with the next announcements, and where it is written.
        Of a burst only the newest few are shown.
        """
        if not 1 <= evse <= stations.MOST_EVSES:
            return
        self._show_soon(evse, read)
        fact = ((self._record.pk, evse, transaction_id), partial(self.clock.put_values_right, read, self.now()))
        self.services.writer.fold(ledger.progressed_together, "", fact)

    def _show_soon(self, evse: int, read: Callable[[], tuple[MeterValue, ...]]) -> None:
        unshown = self._unshown.get(evse)
        if unshown is None:
            unshown = self._unshown[evse] = deque(maxlen=SHOWN_OF_A_BURST)
        if not unshown:
            self.services.exchange.before_telling(partial(self._show, evse))
        unshown.append(read)

    def _show(self, evse: int) -> None:
        """Bring the EVSE's present measurement up to date with what came in since."""
        unshown = self._unshown[evse]
        while unshown:
            values = unshown.popleft()()
            if values:
                self._show_live(evse, values)

    def _show_live(self, evse: int, values: Sequence[MeterValue]) -> None:
        """The newest value is the EVSE's present one, unless it is a replay of what has long passed."""
        newest = values[0] if len(values) == 1 else max(values, key=lambda v: v.moment.at)
        if len(values) > 1:  # some tell each quantity apart, at one and the same time
            together = tuple(q for v in values if v.moment.at == newest.moment.at for q in v.quantities)
            newest = MeterValue(newest.moment, together, newest.context)
        if not newest.quantities:
            return
        now = self.now()
        self.clock.note_moment(newest.moment, now)
        at = self.clock.right(newest.moment, now).at
        if not -LIVE_FOR <= now - at <= LIVE_FOR:
            return
        record = self.record
        present = measurement(
            newest,
            phases=record.phases,
            dc=record.dc,
            max_a=record.max_a,
            supply=record.supply,
            previous=self._last.get(evse),
            at=min(at, now),
        )
        self._last[evse] = present
        self.keeper.obedience.measured(evse, present)
        pk = record.evses.get(evse)
        if pk is not None:
            self.services.exchange.put_live(evse_source(pk), present, record.site_id)
            return
        future = self._submit(partial(stations.evse_of, record.pk, evse))
        if future is not None:
            future.add_done_callback(partial(self._know_evse, present))

    def _know_evse(self, present: Measurement, future: asyncio.Future[Any]) -> None:
        if future.cancelled() or future.exception() is not None or future.result() is None:
            return
        evse = future.result()
        self.record.evses[evse.number] = evse.pk
        self.services.exchange.put_live(evse_source(evse.pk), present, self.record.site_id)
        self.keeper.place_known(evse.number)

    def _submit(self, job: Callable[[], T]) -> asyncio.Future[T] | None:
        try:
            return self.services.writer.submit(job)
        except WriterFull:
            self.count("database_behind")
            return None

    def tell_security(self, payload: Mapping[str, Any]) -> None:
        """A security event of the station's own."""
        if self.services.desk is not None:
            self.services.desk.hear(self, payload)

    async def sign_certificate(self, payload: Mapping[str, Any]) -> dict[str, Any]:
        """It asks for a certificate."""
        if self.services.desk is None:
            return {"status": "Rejected"}
        return await self.services.desk.sign(self, payload)

    def reported(self, variables: Sequence[ReportedVariable], capabilities: Mapping[str, Any]) -> None:
        """Variables of an inventory or a report, and what they say of the station."""
        self.post(partial(stations.reported, self._record.pk, tuple(variables), self.now()))
        more = dict(capabilities)
        connectors = more.pop("connectors", None)
        if connectors and self.record.accepted:
            self.post(partial(stations.evses_exist, self._record.pk, int(connectors)))
            self.spawn(self._read_again_soon())
        if more:
            self.learn(Source.TOLD, **more)

    async def _read_again_soon(self) -> None:
        await self.write(lambda: None)
        await self.services.memory.refresh_station(self._record.pk)

    def told(self, notice: Notice) -> None:
        """How far the station is with something it was asked to do."""
        self.post(partial(notices.told, self._record.pk, notice))

    # ------------------------------------------------------------------ our own set-up

    def changed(self, before: StationRecord | None, after: StationRecord) -> None:
        """An operator changed the station's record."""
        if after.quiet or not after.accepted:
            return
        if before is None or not before.accepted:
            self.spawn(self.speaks.ask_boot(self))
        elif before.quiet or _electrical(before) != _electrical(after):
            self._set_up(after.firmware_version, booted=False)
        elif before.isolated - after.isolated:
            self.keeper.believed_again(set(before.isolated - after.isolated))

    def _get_ready(self) -> None:
        """Time passed, or the station spoke of something else than a boot: it has only reconnected."""
        if not self._ready:
            self.count("no_boot")
            self._set_up(self.record.firmware_version, booted=False)

    def _set_up(self, firmware: str, *, booted: bool) -> None:
        self._ready = True
        if not self.may_be_asked:
            self.keeper.hold_still()
            return
        if self._setting_up is not None:
            self._setting_up.cancel()
        self._setting_up = self.spawn(self._set_up_now(firmware, booted))

    async def _set_up_now(self, firmware: str, booted: bool) -> None:
        """The fail-safe first, then the limit wanted now, then what can wait. Once, never in a loop (Q24)."""
        await asyncio.sleep(0.05)  # the answer to the boot goes first
        await self.services.fail_safes.turn()
        self.keeper.forget_accepted()
        try:
            await self.keeper.install_fail_safe()
        finally:
            self.keeper.go()
        await self.services.set_ups.turn()
        await self._meet_the_model(firmware)
        if self._boots_in_circles():
            self.count("restless_boots")
            self.post(partial(learning.blamed, self._record.pk, self.now()))
            self.keeper.raise_alarm(Alarm.Kind.RESTLESS)
            log.warning("%s boots again and again; it is only sent its limits", self.identity)
            return
        known = self.known
        mark = f"{self.speaks.NAME} {firmware}"
        if (booted or known.get("configured") != mark) and await self._may_ask("configure", booted):
            await self.speaks.configure_meters(self)
            self.learn(configured=mark)
            self._was_answered("configure", learning.OK)
        if known.get("inventory_of") != mark and await self._may_ask("inventory", booted):
            if self.record.model_record is None:
                self.learn(inventory_of=mark)  # nobody else remembers that it was asked
            taken = await self.speaks.take_inventory(self)
            self.learn(inventory_of=mark)
            self._was_answered("inventory", learning.OK if taken else learning.REFUSED)
        if booted or not self.record.evses:
            await asyncio.sleep(READY_AFTER_S)
            if known.get("remote_trigger") is not False:
                await self.speaks.ask_status(self)
        if booted:
            await asyncio.sleep(RESTLESS_WITHIN.total_seconds())
            self.keeper.end_alarm(Alarm.Kind.RESTLESS)

    async def _meet_the_model(self, firmware: str) -> None:
        """A product or firmware we have not met yet gets a record of its own. Without a database we go on as it is."""
        record = self.record
        if record.model_record is not None and record.firmware_version == firmware:
            return
        with contextlib.suppress(TimeoutError, Refusal, DatabaseError):
            async with asyncio.timeout(MEETS_WITHIN_S):
                await self.write(partial(learning.meet, self._record.pk, self.now()))
                await self.services.memory.refresh_station(self._record.pk)

    async def _may_ask(self, question: str, booted: bool) -> bool:
        """May we ask what has sent stations into a boot? It is written down before it is asked (Q24, R29)."""
        name = f"{question} {self.speaks.NAME}"
        model = self.record.model_record
        answer = model.answer(name) if model is not None else learning.OK
        if answer in (learning.OK, learning.REFUSED, learning.REBOOTED, learning.SILENT):
            return answer == learning.OK
        word = learning.WAIT
        since = self.since if booted else None
        for _ in range(ANOTHER_ASKED_S):
            try:
                word = await self.write(partial(learning.asks, self._record.pk, name, since, self.now()))
            except (Refusal, DatabaseError) as error:
                log.warning("%s is not asked for %s: it cannot be written down: %s", self.identity, question, error)
                return False
            if word != learning.WAIT:
                break
            await asyncio.sleep(1)  # another station of this model is being asked
        if word == learning.NEVER:
            log.info("%s is not asked for %s: a station of its model did not bear it", self.identity, question)
        return word == learning.ASK

    def _was_answered(self, question: str, answer: str) -> None:
        name = f"{question} {self.speaks.NAME}"
        model = self.record.model_record
        if model is not None and model.answer(name) != answer:
            model.asked[name] = {**model.asked.get(name, {}), "answer": answer}
            self.post(partial(learning.answered, self._record.pk, name, answer))

    def _boots_in_circles(self) -> bool:
        boots = self.services.boots.get(self.identity)
        return boots is not None and len(boots) == RESTLESS_BOOTS and boots[-1] - boots[0] < RESTLESS_WITHIN

    # ------------------------------------------------------------------ frames

    def _handler(self) -> Handler:
        handlers = self.speaks.HANDLERS

        def handle(action: str, payload: dict[str, Any]) -> dict[str, Any] | Awaitable[dict[str, Any]]:
            handler = handlers.get(action)
            if handler is None:
                raise Refusal("not_supported", f"{action} is not for us to answer")
            if not self._may_say(action):
                self.count("said_before_accepted")
                raise Refusal("security", "this station is not accepted yet")
            if not self._ready and action != "BootNotification":
                self._get_ready()
            return handler(self, payload)

        return handle

    def _may_say(self, action: str) -> bool:
        """May it be said already? A station that is not accepted yet says little where its version forbids more."""
        allowed = self.speaks.WHILE_PENDING
        return allowed is None or self.record.accepted or action in allowed or action in self._prompted

    def _keep(
        self, direction: str, kind: str, message_id: str, action: str, payload: Any, raw: bytes, mends: str
    ) -> None:
        now = self.now()
        if direction == "in":
            self.heard_at = now
        if action == "Heartbeat" and not self.knobs.keep_heartbeats:
            return
        self.services.writer.keep(Frame(self._record.pk, now, direction, kind, message_id, action, payload, raw, mends))


def _electrical(record: StationRecord) -> tuple[Any, ...]:
    """What the fail-safe and the unit of limits hang on."""
    return record.fail_safe_a, record.dc, record.phases, record.supply

"""What is done about a station that does not follow, and about one that does not go on after a pause.

Beside the keeper of limits, in the gateway. Each limit moves from wanted over sent, accepted and perhaps scheduled (the
station's own composite schedule agrees) to measured. Where the meter stays above it, the station is told the same in
another way, down the ladder, each way once in a transaction. When none helps it is isolated: the budget counts it at
its maximum and an operator is told, until its meter shows that it follows, or he believes it again.

After a pause a car must come back: where it does not, the model's resume recipe is tried, a few times, and then the
driver is told (Q21, R17).
"""

from __future__ import annotations

import asyncio
import logging
from datetime import datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

from django.utils.translation import gettext

from csms import alarms, counting
from csms.bus import CallNotValid, CallRefused, NoAnswer, StationUnreachable, Want
from csms.following import DRAWS_A, Patience, Schedule, Seen, Watch, judge_schedule
from csms.ladder import profile
from csms.models import Transaction, WantedLimit
from csms.obedience_models import Alarm
from csms.profiles import Unit
from csms.rpc import UNASKED, URGENT
from csms.slots import Accepted, Slot
from csms.stations import MOST_EVSES
from meters.supply import Supply

if TYPE_CHECKING:
    from csms.limits import Keeper
    from csms.session import Session
    from meters.measurement import Measurement

log = logging.getLogger(__name__)

STATE, RESUME = WantedLimit.State, WantedLimit.Resume
PAUSED = frozenset({"SuspendedEVSE"})
CAR_STOPPED = frozenset({"SuspendedEV"})
CHARGES = frozenset({"Charging"})
SPACINGS = 6
BY_ITSELF = ("resend", "toggle")
"""Recipes that are tried without having been told to: they end no transaction."""


class Obedience:
    """Watches the slots of one keeper."""

    def __init__(self, keeper: Keeper, session: Session) -> None:
        self._keeper = keeper
        self._session = session

    @property
    def _patience(self) -> Patience:
        return self._session.knobs.patience

    @property
    def _known(self) -> dict[str, Any]:
        return self._session.known

    # ------------------------------------------------------------------ told from outside

    def another_car(self, slot: Slot) -> None:
        """A transaction began or ended: what the car before did says nothing of this one."""
        slot.ignored.clear()
        slot.low = slot.after_pause = slot.charged = slot.paused = False
        slot.phases_seen, slot.shared_over, slot.amps, slot.amps_at, slot.recipe, slot.word = (
            None,
            None,
            None,
            None,
            "",
            "",
        )
        if slot.written.get("resume"):
            self._keeper.note(slot, resume="")
        self._keeper.end_alarm(Alarm.Kind.NOT_RESUMED, slot)
        model = self._session.record.model_record
        if model is not None and model.repairs.get("meter_trigger") == "on":
            self._session.spawn(self._ask_meter_values(slot))

    async def _ask_meter_values(self, slot: Slot) -> None:
        """For a model of which a person said that it sends none by itself: as often as it should, and no more (Q26)."""
        transaction_id = self._session.transactions.get(slot.number)
        pause_s = max(self._session.knobs.meter_interval_s, self._known.get("meter_interval_floor_s") or 0)
        while transaction_id is not None and self._session.transactions.get(slot.number) == transaction_id:
            await self._ask(self._session.speaks.CODEC.trigger("MeterValues", slot.number))
            self._session.count("meter_trigger")
            await asyncio.sleep(pause_s)

    def told_state(self, number: int, word: str) -> None:
        """A status (1.6) or charging state (2.0.1)."""
        if word and word != "Occupied" and 1 <= number <= MOST_EVSES:
            self._keeper.slot(number).word = word

    def accepted(self, slot: Slot, value: float, want: Want, *, renewed: bool, before: Accepted | None) -> None:
        """The station took a limit: watch what its meter says of it."""
        now = self._session.now()
        limit_a = self._amps(value, want)
        if not renewed or slot.watch is None:
            slot.watch = Watch(limit_a, now, self._session.record.dc)
        slot.overstays = 0
        if slot.number not in self._session.transactions:
            return
        if limit_a < DRAWS_A:
            if not slot.paused:
                slot.paused, slot.charged = True, (slot.amps or 0.0) >= DRAWS_A
                slot.mark += 1
                self._pause_otherwise(slot, want)
        elif slot.paused:
            slot.paused, slot.after_pause = False, True
            slot.mark += 1
            self._session.spawn(self._see_it_resume(slot, slot.mark))
        elif not renewed:
            slot.after_pause = False
        if not renewed:
            self._session.spawn(self._check_schedule(slot, slot.watch))

    def unanswered(self, slot: Slot) -> None:
        """A limit got no answer: the station counts at the last one it is known to stand by (R11)."""
        slot.unanswered += 1
        if slot.unanswered == self._patience.silent_calls:
            self._keeper.raise_alarm(Alarm.Kind.SILENT)

    def refused(self, slot: Slot, detail: str) -> None:
        """No way of telling it is taken: nothing holds it back (R13)."""
        self._isolate(slot, detail or "refused", Alarm.Kind.LIMIT_REFUSED)

    def measured(self, number: int, measurement: Measurement) -> None:
        """A present value of the EVSE's meter."""
        if not 1 <= number <= MOST_EVSES:
            return
        slot = self._keeper.slot(number)
        amps = self._highest(measurement)
        if amps is None or (slot.amps_at is not None and measurement.at < slot.amps_at):
            return
        self._space(slot, measurement.at)
        slot.amps, slot.amps_at = amps, measurement.at
        self._count_phases(slot, measurement, amps)
        if slot.recipe or slot.written.get("resume"):
            self._came_back(slot, amps)
        accepted, watch = slot.accepted, slot.watch
        if accepted is None or watch is None or number not in self._session.transactions:
            return
        if accepted.until is not None and measurement.at > accepted.until:
            self._after_the_lease(slot, amps, accepted.until, measurement.at)
            return
        want = slot.want
        if want is None:
            return
        value, since = accepted.step_at(measurement.at)
        if since is not None and since > watch.since:
            watch = slot.watch = Watch(self._amps(value, want), since, watch.dc)
        seen = watch.see(amps, measurement.at, self._patience)
        if seen is Seen.NOT_FOLLOWED:
            self._not_followed(slot, watch, amps)
        elif seen is not None:
            stands = watch.limit_a < DRAWS_A and amps < DRAWS_A and slot.word in PAUSED
            self._is_followed(slot, amps, measurement.at, proven=seen is Seen.FOLLOWS or stands)

    # ------------------------------------------------------------------ followed or not

    def _is_followed(self, slot: Slot, amps: float, at: datetime, *, proven: bool) -> None:
        if slot.isolated and not proven:
            return
        if slot.isolated:
            slot.isolated = False
            pk = self._session.record.evses.get(slot.number)
            if pk is not None:
                self._session.post(partial(alarms.follows_again, pk, self._session.now()))
            log.info("%s: EVSE %s follows its limit again", self._session.identity, slot.number)
        if proven and slot.ignored and slot.rung is not None:
            self._keeper.learn_rung(slot.rung, True, slot.ignored)
            if slot.low:
                self._session.learn(zero_method="low")
        if slot.state == STATE.MEASURED or slot.state in (STATE.SENT, STATE.WANTED):
            return
        self._keeper.note(slot, state=STATE.MEASURED, detail="", measured_a=round(amps, 2), measured_at=at)
        if slot.want is not None and slot.want.at <= at:
            counting.LIMIT_S.observe((at - slot.want.at).total_seconds(), "measured")
        if slot.want is not None:
            self._keeper.tell(slot, slot.want, measured_at=at, measured_a=round(amps, 2))

    def _not_followed(self, slot: Slot, watch: Watch, amps: float) -> None:
        """Told in another way, or isolated when none is left."""
        if slot.isolated:
            watch.over = 0
            return
        allowed = {"measured": f"{amps:.1f}", "allowed": f"{watch.limit_a:.1f}"}
        detail = gettext("%(measured)s A measured, %(allowed)s A allowed") % allowed
        self._session.count("limit_ignored")
        self._keeper.note(slot, state=STATE.NOT_FOLLOWED, detail=detail, measured_a=round(amps, 2))
        want, again = slot.want, slot.after_pause
        slot.after_pause = False
        if want is None:
            return
        if not again:  # right after a pause the first limit is lost on some: the same once more (Q21)
            if slot.rung is not None and slot.rung not in slot.ignored:
                slot.ignored.append(slot.rung)
            left = [r for r in self._keeper.ladder(slot, want, True) if r not in slot.ignored]
            if not left or len(slot.ignored) >= self._patience.tries:
                if watch.limit_a < DRAWS_A and self._pauses_otherwise(slot, want):
                    return
                self._isolate(slot, detail, Alarm.Kind.NOT_FOLLOWED)
                return
        slot.accepted, slot.watch, slot.not_before = None, None, -1e9
        self._keeper.wake()

    def _isolate(self, slot: Slot, detail: str, kind: str) -> None:
        """From now on it counts with its maximum. It is told its limit in the best way, and watched."""
        pk = self._session.record.evses.get(slot.number)
        if slot.isolated or pk is None:
            return
        slot.isolated = True
        self._session.services.writer.fold(_isolated, pk, (self._session.now(), detail, kind))
        log.warning("%s: EVSE %s does not follow (%s) and is isolated", self._session.identity, slot.number, detail)
        if slot.watch is not None:
            slot.watch.over = slot.watch.under = 0

    def _count_phases(self, slot: Slot, measurement: Measurement, amps: float) -> None:
        """On how many phases the car charges: a limit in watts, or for fewer phases, hangs on it (R16)."""
        count = sum(1 for a in measurement.phase_currents() or () if a is not None and a >= DRAWS_A)
        if self._session.record.dc or count == 0:
            return
        if count == 2 and self._session.record.supply is Supply.IT:
            count = 1  # between two lines
        slot.phases_seen = max(count, slot.phases_seen or 0)
        want, watch = slot.want, slot.watch
        if want is None or want.limit_a is None or watch is None or slot.rung is None:
            return
        if want.phases is not None and count > want.phases and measurement.at > watch.since:
            self._session.learn(honours_phases=False)
        too_much = measurement.at > watch.since and amps > watch.allowed_a(self._patience)
        fewer = slot.phases_seen < (slot.shared_over or self._keeper.wired)
        if slot.rung.unit is Unit.W and too_much and fewer:
            slot.shared_over = slot.phases_seen
            slot.accepted = None  # what it was told meant another current here
            self._keeper.wake()

    def _space(self, slot: Slot, at: datetime) -> None:
        """How often meter values come, whatever was asked: some have a floor of their own (Q24)."""
        if slot.amps_at is None or at <= slot.amps_at or slot.number not in self._session.transactions:
            return
        slot.spacings = [*slot.spacings[1 - SPACINGS :], (at - slot.amps_at).total_seconds()]
        asked_s = self._session.knobs.meter_interval_s
        steady = min(slot.spacings) > 1.5 * asked_s and max(slot.spacings) < 1.3 * min(slot.spacings)
        if len(slot.spacings) == SPACINGS and steady and min(slot.spacings) >= 1:
            floor_s = round(sum(slot.spacings) / SPACINGS)
            if abs(floor_s - (self._known.get("meter_interval_floor_s") or 0)) > 0.1 * floor_s:
                self._session.learn(meter_interval_floor_s=floor_s)

    def _after_the_lease(self, slot: Slot, amps: float, until: datetime, at: datetime) -> None:
        """Nobody renewed it: a station that ends its limits by itself has come down to its fail-safe (Q21)."""
        if (at - until).total_seconds() < self._patience.duration_s or slot.rung is None or not slot.rung.is_lease:
            return
        safe = Watch(self._keeper.fail_safe(Unit.A), until, self._session.record.dc)
        above = amps > safe.allowed_a(self._patience)
        held_more = slot.watch is not None and slot.watch.limit_a > safe.allowed_a(self._patience)
        if above and held_more:
            slot.overstays += 1
            if slot.overstays == self._patience.above:
                self._session.learn(honours_duration=False)
        elif held_more and amps >= DRAWS_A and self._known.get("honours_duration") is None:
            self._session.learn(honours_duration=True)

    # ------------------------------------------------------------------ the composite schedule

    async def _check_schedule(self, slot: Slot, watch: Watch) -> None:
        """Ask the station what it will allow, once in a while; its answer is a hint, and it may have none (Q22)."""
        loop = asyncio.get_running_loop()
        if self._known.get("composite") in ("no", "empty"):
            return
        if loop.time() - slot.schedule_at < self._patience.schedule_every_s:
            return
        slot.schedule_at = loop.time()
        await asyncio.sleep(self._patience.schedule_after_s)
        if slot.watch is not watch or not self._session.may_be_asked:
            slot.schedule_at = -1e9
            return
        codec = self._session.speaks.CODEC
        unit = slot.rung.unit if slot.rung is not None else Unit.A
        action, payload = codec.composite_schedule(slot.number, 60, str(unit))
        try:
            answer = codec.answered(action, await self._session.ask((action, payload), rank=UNASKED))
        except CallRefused as error:
            if error.code in ("NotImplemented", "NotSupported"):
                self._session.learn(composite="no")
            return
        except (CallNotValid, NoAnswer):
            return
        if answer.get("status") != "Accepted" or slot.watch is not watch:
            return
        phases = slot.phases_seen or self._keeper.wired
        said, words = judge_schedule(answer, watch.limit_a, phases, self._patience, self._session.record.supply)
        self._session.learn(composite="empty" if said is Schedule.EMPTY else "yes")
        if said is Schedule.AGREES:
            if slot.state == STATE.ACCEPTED:
                self._keeper.note(slot, state=STATE.SCHEDULED)
            if slot.want is not None:
                self._keeper.tell(slot, slot.want, scheduled_at=self._session.now())
        elif said is Schedule.DIFFERS:
            self._session.count("schedule_differs")
            self._keeper.note(slot, detail=gettext("its schedule says %(limit)s") % {"limit": words})

    # ------------------------------------------------------------------ a pause, and what comes after

    def _pause_otherwise(self, slot: Slot, want: Want) -> None:
        """What a person said must stand beside a limit of 0 for this model."""
        if self._known.get("zero_method") == "availability":
            self._session.spawn(self._ask(self._session.speaks.CODEC.change_availability(False, slot.number)))
        elif self._known.get("zero_method") == "stop":
            self._session.spawn(self._stop(slot))

    def _pauses_otherwise(self, slot: Slot, want: Want) -> bool:
        """0 is not followed in any way: the smallest limit, and in an emergency the end of the charge."""
        if not slot.low:
            slot.low = True
            slot.ignored.clear()
            slot.accepted, slot.watch, slot.not_before = None, None, -1e9
            self._keeper.wake()
            return True
        if want.urgent:
            self._session.spawn(self._stop(slot))
        return False

    async def _stop(self, slot: Slot) -> None:
        transaction_id = self._session.transactions.get(slot.number)
        if transaction_id is not None:
            await self._ask(self._session.speaks.CODEC.remote_stop(transaction_id), URGENT)

    async def _see_it_resume(self, slot: Slot, mark: int) -> None:
        """A pause is over: the car must come back, else the recipe, a few times, and the driver is told (R17)."""
        known = self._known.get("resume")
        if self._known.get("zero_method") == "availability":
            await self._ask(self._session.speaks.CODEC.change_availability(True, slot.number))
        recipes = [r for r in BY_ITSELF if r != known]
        if known in ("resend", "toggle", "availability", "remote_start"):
            recipes.insert(0, known)
        wait_s = self._patience.resume_s
        # One that is known to need its recipe gets it after a moment.
        await asyncio.sleep(wait_s / 10 if known in recipes else wait_s)
        for recipe in recipes[: self._patience.resume_tries]:
            if not self._still_waits(slot, mark):
                return
            if slot.word in CAR_STOPPED and recipe != "toggle":
                continue  # it is the car that sleeps: one toggle may wake it
            slot.recipe = recipe
            self._session.count("resume_tried")
            self._keeper.note(slot, resume=RESUME.TRYING)
            await self._cook(slot, recipe)
            await asyncio.sleep(wait_s)
        if self._still_waits(slot, mark):
            self._give_up(slot)

    def _still_waits(self, slot: Slot, mark: int) -> bool:
        if slot.mark != mark or slot.number not in self._session.transactions:
            return False
        if (slot.amps or 0.0) >= DRAWS_A or (slot.word in CHARGES and slot.amps is None):
            return False
        if slot.word in CAR_STOPPED and not slot.charged:
            return False  # it had stopped by itself before
        return slot.accepted is None or slot.want is None or self._amps(slot.accepted.value, slot.want) >= DRAWS_A

    async def _cook(self, slot: Slot, recipe: str) -> None:
        codec = self._session.speaks.CODEC
        if recipe == "toggle":
            await self._send_zero(slot)
        elif recipe == "availability":
            await self._ask(codec.change_availability(False, slot.number))
            await self._ask(codec.change_availability(True, slot.number))
        elif recipe == "remote_start":
            await self._start_again(slot)
            return
        slot.accepted = None  # the limit, once more
        self._keeper.wake()

    async def _send_zero(self, slot: Slot) -> None:
        rung, transaction_id = slot.rung, self._session.transactions.get(slot.number)
        if rung is None or transaction_id is None:
            return
        now = self._session.now()
        zero = profile(
            rung,
            evse=slot.number,
            limit=0.0,
            steps=(),
            phases=None,
            transaction_id=transaction_id,
            start=(now - timedelta(seconds=60 - self._session.clock.offset_s)).replace(microsecond=0),
            lease_s=self._session.knobs.lease_s,
            fail_safe=self._keeper.fail_safe(rung.unit),
        )
        await self._keeper.send(zero, URGENT)

    async def _start_again(self, slot: Slot) -> None:
        """Stop and start in the name of the same token: only where a person said that this model needs it."""
        transaction_id = self._session.transactions.get(slot.number)
        if transaction_id is None:
            return
        pk = self._session.record.pk
        token = await self._session.services.memory.read(partial(_token_of, pk, transaction_id))
        await self._stop(slot)
        if token is not None:
            await asyncio.sleep(self._patience.resume_s / 10)
            await self._ask(self._session.speaks.CODEC.remote_start(slot.number, token[0], token[1], 1))

    def _came_back(self, slot: Slot, amps: float) -> None:
        if amps < DRAWS_A:
            return
        if slot.recipe:
            self._session.learn(resume=slot.recipe)
        slot.recipe = ""
        slot.mark += 1
        self._keeper.note(slot, resume="")
        self._keeper.end_alarm(Alarm.Kind.NOT_RESUMED, slot)

    def _give_up(self, slot: Slot) -> None:
        slot.recipe = ""
        if slot.word in CAR_STOPPED:
            self._keeper.note(slot, resume=RESUME.ASLEEP)
            return
        self._keeper.note(slot, resume=RESUME.UNPLUG)
        self._keeper.raise_alarm(Alarm.Kind.NOT_RESUMED, slot)

    async def _ask(self, call: tuple[str, dict[str, Any]], rank: int = UNASKED) -> bool:
        try:
            result = await self._session.ask(call, rank=rank)
        except (CallRefused, CallNotValid, NoAnswer) as error:
            log.info("%s: %s: %s", self._session.identity, call[0], error)
            return False
        except StationUnreachable:
            return False
        return str(result.get("status", "Accepted")) in ("Accepted", "Scheduled")

    # ------------------------------------------------------------------ amounts

    def _amps(self, value: float, want: Want) -> float:
        return value if want.limit_a is not None else value / self._keeper.watts_per_a(self._keeper.wired)

    def _highest(self, measurement: Measurement) -> float | None:
        currents = [abs(a) for a in measurement.phase_currents() or () if a is not None]
        if currents:
            return max(currents)
        if measurement.power_w is None:
            return None
        return abs(measurement.power_w) / self._keeper.watts_per_a(self._keeper.wired)


def _isolated(evse_pk: int, times: list[tuple[datetime, str, str]]) -> None:
    """Folded, so that it comes after the row it marks."""
    alarms.isolate(evse_pk, *times[-1])


def _token_of(station_pk: int, transaction_id: str) -> tuple[str, str] | None:
    found = (
        Transaction.objects.filter(station_id=station_pk, transaction_id=transaction_id)
        .values_list("id_token_value", "id_token__type")
        .first()
    )
    return (found[0], found[1] or "") if found is not None and found[0] else None

"""The memory of the devices: readings for a fortnight, quarter hours for years.

Readings are written by a thread of their own in batches, so that a slow or absent database never holds up a meter.
Quarter hours are UTC slots (a local day has 92, 96 or 100 of them); every chart longer than a day and every report
stands on them. Rolling up is idempotent: doing it twice changes nothing.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from django.conf import settings
from django.db import DatabaseError, InterfaceError, close_old_connections, connections
from django.db.models import Max, Min

from meters.measurement import Measurement, Quality
from meters.models import Device, QuarterHour, Reading

SLOT = timedelta(minutes=15)
SPACING_S = 10.0
"""At most one reading each 10 s …"""
HEARTBEAT_S = 60.0
"""… and at least one a minute, even when nothing changes."""
HOLD_S = 90.0
"""A reading speaks for at most this long."""
COMPLETE_SHARE = 0.95
QUEUE_LENGTH = 100_000
RAW_RANGE = timedelta(days=1)
_SAME_W = 5.0
_SAME_SHARE = 0.01
log = logging.getLogger(__name__)


def slot_of(at: datetime) -> datetime:
    """The start of the UTC quarter hour that holds this moment."""
    return datetime.fromtimestamp(int(at.timestamp()) // 900 * 900, tz=UTC)


class Recorder:
    """Takes measurements from the poller and stores those worth keeping.

    `keep` never waits and never fails. When the database is away, what came meanwhile is written later, oldest first,
    up to the length of the queue; beyond it the oldest is lost, and that is said in the log.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic, every_s: float = 1.0) -> None:
        self._clock, self._every_s = clock, every_s
        self._queue: deque[tuple[int, Measurement]] = deque(maxlen=QUEUE_LENGTH)
        self._last: dict[int, tuple[float, Measurement]] = {}
        self._wake = threading.Event()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._away = False

    def start(self) -> None:
        self._thread = threading.Thread(target=self._run, name="history", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Write what is left, then end."""
        self._stop.set()
        self._wake.set()
        if self._thread is not None:
            self._thread.join(10)

    def keep(self, device_pk: int, measurement: Measurement) -> bool:
        """Queue this measurement if it is worth storing; says whether it is."""
        now = self._clock()
        last = self._last.get(device_pk)
        if last is not None:
            elapsed = now - last[0]
            if elapsed < SPACING_S or (elapsed < HEARTBEAT_S and not _differs(last[1], measurement)):
                return False
        self._last[device_pk] = (now, measurement)
        if len(self._queue) == QUEUE_LENGTH:
            log.warning("history: the database is away for too long; the oldest readings are lost")
        self._queue.append((device_pk, measurement))
        self._wake.set()
        return True

    def flush(self) -> int:
        """Write everything queued; how many rows. Raises what the database raises, and then loses nothing."""
        batch: list[tuple[int, Measurement]] = []
        while self._queue and len(batch) < 1000:
            batch.append(self._queue.popleft())
        if not batch:
            return 0
        try:
            known = set(Device.objects.filter(pk__in={pk for pk, _ in batch}).values_list("pk", flat=True))
            rows = [reading(pk, m) for pk, m in batch if pk in known]  # a device may have been deleted meanwhile
            Reading.objects.bulk_create(rows)
        except Exception:
            self._queue.extendleft(reversed(batch))
            raise
        return len(rows)

    def _run(self) -> None:
        while True:
            self._wake.wait(self._every_s if self._queue else None)
            self._wake.clear()
            stopping = self._stop.is_set()
            close_old_connections()
            try:
                while self.flush():
                    pass
                if self._away:
                    log.info("history: the database is back")
                    self._away = False
            except (DatabaseError, InterfaceError, OSError) as error:
                if not self._away:
                    log.warning("history: cannot write (%s); trying again", error)
                    self._away = True
                if not stopping:
                    self._stop.wait(self._every_s)
                    self._wake.set()
            if stopping:
                connections.close_all()
                return
            self._stop.wait(self._every_s)  # gather a batch


def reading(device_pk: int, measurement: Measurement) -> Reading:
    """The stored form of a measurement."""
    values = measurement.to_dict()
    values.pop("at")
    return Reading(device_id=device_pk, at=measurement.at, power_w=measurement.power_w, values=values)


def _differs(before: Measurement, now: Measurement) -> bool:
    """Has anything a chart would show changed?"""
    if before.state != now.state or before.quality != now.quality or before.soc != now.soc:
        return True
    if (before.power_w is None) != (now.power_w is None):
        return True
    if before.power_w is None or now.power_w is None:
        return before.current_a != now.current_a
    return abs(before.power_w - now.power_w) > max(_SAME_W, _SAME_SHARE * abs(before.power_w))


@dataclass(frozen=True, slots=True)
class Quarter:
    """What one device did in one quarter hour. Powers are means over time, not over readings."""

    mean_w: float | None
    min_w: float | None
    max_w: float | None
    import_wh: float | None
    export_wh: float | None
    soc: float | None
    samples: int
    complete: bool


@dataclass(frozen=True, slots=True)
class Sample:
    """The part of a reading that a quarter hour is made of."""

    at: datetime
    power_w: float | None
    import_wh: float | None
    export_wh: float | None
    soc: float | None


def summarize(samples: Iterable[Sample], slot: datetime, upto: datetime | None = None) -> Quarter | None:
    """One quarter hour (or its part before `upto`) from the readings in it and just around it. Pure.

    Each power holds until the next reading, for at most 90 s. `complete` means that at least 95 % of the quarter is
    covered. Energy is taken from the counters when they were read near both ends of the quarter and agree with the
    mean power; coarse or jumping counters give way to the mean power, when that covers the quarter.
    """
    ordered = sorted(samples, key=lambda s: s.at)
    end = slot + SLOT if upto is None else min(upto, slot + SLOT)
    inside = [s for s in ordered if slot <= s.at < end]
    powered = [s for s in ordered if s.power_w is not None and s.at < end]
    covered, integral, taken, given = 0.0, 0.0, 0.0, 0.0
    for i, sample in enumerate(powered):
        until = min(end, sample.at + timedelta(seconds=HOLD_S))
        if i + 1 < len(powered):
            until = min(until, powered[i + 1].at)
        seconds = (until - max(slot, sample.at)).total_seconds()
        if seconds <= 0 or sample.power_w is None:
            continue
        covered += seconds
        integral += seconds * sample.power_w
        taken += seconds * max(0.0, sample.power_w)
        given += seconds * max(0.0, -sample.power_w)
    if not inside and covered == 0:
        return None
    powers = [s.power_w for s in inside if s.power_w is not None]
    complete = covered >= COMPLETE_SHARE * SLOT.total_seconds()
    counted_in = _counted(ordered, slot, end, "import_wh")
    counted_out = _counted(ordered, slot, end, "export_wh")
    import_wh: float | None = taken / 3600 if covered else None
    export_wh: float | None = given / 3600 if covered else None
    if complete:
        import_wh = counted_in if _agree(counted_in, import_wh) else import_wh
        export_wh = counted_out if _agree(counted_out, export_wh) else export_wh
    else:
        import_wh = import_wh if counted_in is None else counted_in
        export_wh = export_wh if counted_out is None else counted_out
    socs = [s.soc for s in inside if s.soc is not None]
    return Quarter(
        mean_w=integral / covered if covered else None,
        min_w=min(powers, default=None),
        max_w=max(powers, default=None),
        import_wh=import_wh,
        export_wh=export_wh,
        soc=socs[-1] if socs else None,
        samples=len(inside),
        complete=complete,
    )


def _counted(ordered: list[Sample], slot: datetime, end: datetime, name: str) -> float | None:
    """What the counter moved from the start to the end of the quarter, read within 90 s of both."""
    first, last = _counter_at(ordered, slot, name), _counter_at(ordered, end, name)
    if first is None or last is None or last < first:
        return None
    moved = last - first
    return moved if moved < 1_000_000 else None


def _counter_at(ordered: list[Sample], moment: datetime, name: str) -> float | None:
    """The counter at a moment, on the line between the readings before and after it."""
    before = after = None
    near = timedelta(seconds=HOLD_S)
    for sample in ordered:
        if getattr(sample, name) is None:
            continue
        if sample.at <= moment:
            before = sample
        elif after is None:
            after = sample
    if before is not None and moment - before.at > near:
        before = None
    if after is not None and after.at - moment > near:
        after = None
    if before is None or after is None:
        one = before or after
        return None if one is None else float(getattr(one, name))
    low, high = float(getattr(before, name)), float(getattr(after, name))
    if high < low:
        return None
    span = (after.at - before.at).total_seconds()
    return low + (high - low) * ((moment - before.at).total_seconds() / span if span else 0.0)


def _agree(counted: float | None, estimated: float | None) -> bool:
    return counted is not None and estimated is not None and abs(counted - estimated) <= 20 + 0.1 * abs(estimated)


def roll_up(now: datetime) -> int:
    """Make the quarter hours of every device up to the last finished one; how many rows were written.

    Starts again one hour before the newest row, so that readings that came late still count. Idempotent.
    """
    last_end = slot_of(now)
    written = 0
    newest = dict(QuarterHour.objects.values_list("device").annotate(Max("slot")).order_by())
    oldest = dict(Reading.objects.values_list("device").annotate(Min("at")).order_by())
    for device_pk, first_at in oldest.items():
        start = slot_of(first_at)
        if device_pk in newest:
            start = max(start, newest[device_pk] - timedelta(hours=1))
        written += _roll_up_device(device_pk, start, last_end)
    return written


def _roll_up_device(device_pk: int, start: datetime, end: datetime) -> int:
    written = 0
    while start < end:
        stop = min(end, start + timedelta(days=1))
        margin = timedelta(seconds=HOLD_S)
        samples = list(_samples(device_pk, start - margin, stop + margin))
        rows: list[QuarterHour] = []
        first = 0
        slot = start
        while slot < stop:
            while first < len(samples) and samples[first].at < slot - margin:
                first += 1
            beyond = first
            while beyond < len(samples) and samples[beyond].at < slot + SLOT + margin:
                beyond += 1
            quarter = summarize(samples[first:beyond], slot)
            if quarter is not None:
                rows.append(_row(device_pk, slot, quarter))
            slot += SLOT
        QuarterHour.objects.bulk_create(
            rows,
            update_conflicts=True,
            unique_fields=["device", "slot"],
            update_fields=["mean_w", "max_w", "min_w", "import_wh", "export_wh", "soc", "samples", "complete"],
        )
        written += len(rows)
        start = stop
    return written


def _row(device_pk: int, slot: datetime, quarter: Quarter) -> QuarterHour:
    return QuarterHour(
        device_id=device_pk,
        slot=slot,
        mean_w=quarter.mean_w,
        max_w=quarter.max_w,
        min_w=quarter.min_w,
        import_wh=quarter.import_wh,
        export_wh=quarter.export_wh,
        soc=quarter.soc,
        samples=quarter.samples,
        complete=quarter.complete,
    )


def _samples(device_pk: int, start: datetime, end: datetime) -> Iterator[Sample]:
    """The readings of a device that may be trusted, oldest first."""
    found = Reading.objects.filter(device=device_pk, at__gte=start, at__lt=end).order_by("at")
    for at, power, values in found.values_list("at", "power_w", "values").iterator(chunk_size=2000):
        if values.get("quality") == Quality.SUSPECT:
            continue
        yield Sample(at, power, values.get("energy_import_wh"), values.get("energy_export_wh"), values.get("soc"))


def tidy(now: datetime) -> int:
    """Delete readings older than READING_KEEP_DAYS, in portions so that nobody waits long; how many."""
    limit = now - timedelta(days=settings.READING_KEEP_DAYS)
    deleted = 0
    while True:
        portion = list(Reading.objects.filter(at__lt=limit).values_list("pk", flat=True)[:5000])
        if not portion:
            return deleted
        deleted += Reading.objects.filter(pk__in=portion).delete()[0]


@dataclass(frozen=True, slots=True)
class SeriesPoint:
    """One point of a chart. In quarters `power_w` is the mean of the 15 minutes that start at `at`."""

    at: datetime
    power_w: float | None
    soc: float | None


def series(device: Device | int, start: datetime, end: datetime) -> list[SeriesPoint]:
    """A device's power from `start` up to `end`: every reading for up to a day, quarter hours beyond."""
    pk = device if isinstance(device, int) else device.pk
    if end - start <= RAW_RANGE:
        return [SeriesPoint(s.at, s.power_w, s.soc) for s in _samples(pk, start, end)]
    return [SeriesPoint(q.slot, q.mean_w, q.soc) for q in quarter_values(pk, start, end)]


def quarter_values(device: Device | int, start: datetime, end: datetime) -> list[QuarterHour]:
    """The quarter hours of a device whose slot starts in [start, end), oldest first. Missing ones are missing."""
    pk = device if isinstance(device, int) else device.pk
    return list(QuarterHour.objects.filter(device=pk, slot__gte=start, slot__lt=end).order_by("slot"))


def quarter_so_far(device: Device | int, now: datetime) -> Quarter | None:
    """The running quarter hour up to `now`: what the peak control needs. None when nothing was read."""
    pk = device if isinstance(device, int) else device.pk
    slot = slot_of(now)
    margin = timedelta(seconds=HOLD_S)
    return summarize(_samples(pk, slot - margin, now + timedelta(microseconds=1)), slot, now)

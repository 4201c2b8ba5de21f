"""The gateway's one writer: a thread that takes whatever waits and writes it in one transaction.

A verb (`stations.py`, `ledger.py`) is handed over as a job; its future is resolved after the commit, so that a
station is answered only once its message is durable. Each job has a savepoint of its own: a bad one fails alone.
While the database is away jobs wait, in order, and nothing is lost: the queue is bounded, and who comes when it is
full is told so. Kept frames go a lane of their own, fire and forget; they are the first to be dropped.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple, TypeVar

import orjson
from django.db import IntegrityError, InterfaceError, OperationalError, connection, transaction

from csms import announcing, bulk, counting
from csms.models import OcppMessage
from csms.redaction import BLANK, blank, may_hold_a_secret

log = logging.getLogger(__name__)

BATCH = 500
CAPACITY = 20_000
FRAMES_KEPT_WAITING = 20_000
FRAMES_A_BATCH = 1_000
PAUSE_S = 0.1
LONGEST_FRAME = 65_536
JOURNAL_PAGES = 4_000  # of 4 KiB

T = TypeVar("T")
Item = TypeVar("Item")
Job = Callable[[], Any]
Fold = Callable[[Any, list[Any]], Any]
_AWAY = ("locked", "busy", "disk", "full", "unable to open", "readonly", "closed")


class WriterFull(Exception):
    """So much waits for the database that no more is taken."""


class Frame(NamedTuple):
    """One frame to keep, as it passed."""

    station_pk: int
    at: datetime
    direction: str
    kind: str
    message_id: str
    action: str
    payload: Any
    raw: bytes
    repairs: str

    def row(self) -> tuple[Any, ...]:
        """In the order of `FRAME_FIELDS`, without secrets, and cut where it is longer than its column."""
        payload, raw = self.payload, self.raw
        if may_hold_a_secret(raw):
            payload = blank(payload)
            text = _blank_frame(raw)
        else:
            text = raw[:LONGEST_FRAME].decode("utf-8", "replace").replace("\x00", "")
        return (
            self.station_pk,
            self.at,
            self.direction,
            self.kind,
            self.message_id[:64].replace("\x00", ""),
            self.action[:64].replace("\x00", ""),
            payload,
            text,
            self.repairs[:200],
        )


FRAME_FIELDS = ("station", "at", "direction", "kind", "message_id", "action", "payload", "raw", "repairs")


@dataclass(slots=True)
class _Batch:
    jobs: list[tuple[Job, asyncio.Future[Any] | None]]
    folds: dict[tuple[Fold, Hashable], list[Any]]
    firsts: dict[tuple[Fold, Hashable], list[Any]] = field(default_factory=dict)
    outcomes: list[tuple[asyncio.Future[Any], Any, BaseException | None]] = field(default_factory=list)
    told: list[announcing.Announcement] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.jobs or self.folds or self.firsts)


@dataclass(frozen=True, slots=True)
class Shared:
    """A job that is cheaper done for many at once: `verb` takes all the items of a batch, and answers each."""

    verb: Callable[[Sequence[Any]], Sequence[Any]]
    item: Any

    def __call__(self) -> Any:
        return self.verb([self.item])[0]


class Writer:
    """`submit` a verb and await it; `fold` many small facts about one thing into one write; `keep` a frame."""

    def __init__(
        self, publish: Callable[[Iterable[announcing.Announcement]], None], *, capacity: int = CAPACITY
    ) -> None:
        self._publish = publish
        self._capacity = capacity
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[tuple[Job, asyncio.Future[Any] | None]] = deque()
        self._folds: dict[tuple[Fold, Hashable], list[Any]] = {}
        self._firsts: dict[tuple[Fold, Hashable], list[Any]] = {}
        self._folded = 0
        self._frames: deque[Frame] = deque(maxlen=FRAMES_KEPT_WAITING)
        self._frames_written_at = 0.0
        self._something = threading.Condition()
        self._stopping = False
        self._thread = threading.Thread(target=self._work, name="writer", daemon=True)

    def start(self) -> None:
        counting.WRITER_WAITING.ask(lambda: len(self._waiting), "jobs")
        counting.WRITER_WAITING.ask(lambda: self._folded, "folds")
        counting.WRITER_WAITING.ask(lambda: len(self._frames), "frames")
        self._thread.start()

    async def stop(self, patience_s: float = 10.0) -> None:
        """Write what waits, then end. With the database away it gives up after `patience_s`."""
        with self._something:
            self._stopping = True
            self._something.notify()
        await asyncio.to_thread(self._thread.join, patience_s)

    # ------------------------------------------------------------------ from the event loop

    def submit(self, job: Callable[[], T]) -> asyncio.Future[T]:
        """Write, and be told after the commit. Raises `WriterFull`."""
        future: asyncio.Future[T] = self._loop.create_future()
        self._take(job, future)
        return future

    def together(self, verb: Callable[[Sequence[Item]], Sequence[T]], item: Item) -> asyncio.Future[T]:
        """As `submit`, for a verb that writes the items of a whole batch at once, in their order.

        They are written after the batch's other jobs. If one of them breaks, each is written alone.
        """
        return self.submit(Shared(verb, item))

    def post(self, job: Job) -> None:
        """Write when its turn comes; nobody waits for it, and a full queue drops it."""
        try:
            self._take(job, None)
        except WriterFull:
            log.warning("the database is behind; a note was dropped")

    def fold(self, verb: Fold, key: Hashable, item: Any, *, first: bool = False) -> None:
        """Facts about one thing: `verb(key, items)` is called once a batch with all of them, in order.

        Nobody waits for it, so the writer is not woken: it comes by itself every `PAUSE_S`, and has more of them then.
        They are written after the jobs of their batch; `first` are written before them: what comes in later may build
        on it.
        """
        if first:
            with self._something:
                waiting = self._firsts.setdefault((verb, key), [])
                if len(waiting) < self._capacity:
                    waiting.append(item)
            return
        with self._something:
            if self._folded >= self._capacity:
                return
            self._folded += 1
            self._folds.setdefault((verb, key), []).append(item)

    def keep(self, frame: Frame) -> None:
        """Keep a frame in the message log, if there is room. The writer looks here by itself."""
        self._frames.append(frame)

    def _take(self, job: Job, future: asyncio.Future[Any] | None) -> None:
        with self._something:
            if len(self._waiting) >= self._capacity:
                raise WriterFull("the database is behind")
            self._waiting.append((job, future))
            self._something.notify()

    # ------------------------------------------------------------------ in the thread

    def _work(self) -> None:
        announcing.collect()
        try:
            while True:
                batch = self._next()
                if batch:
                    self._write(batch)
                if self._frames_are_due(batch):
                    self._write_frames()
                left = self._waiting or self._folds or self._firsts or self._frames
                if self._stopping and not left:
                    return
        finally:
            connection.close()

    def _next(self) -> _Batch:
        with self._something:
            if not self._waiting and not self._stopping:
                self._something.wait(PAUSE_S)
            jobs = [self._waiting.popleft() for _ in range(min(BATCH, len(self._waiting)))]
            folds, self._folds = self._folds, {}
            firsts, self._firsts = self._firsts, {}
            self._folded = 0
            return _Batch(jobs, folds, firsts)

    def _write(self, batch: _Batch) -> None:
        """Write a batch, however long the database is away. One bad job never fails its neighbours."""
        pause = 0.1
        while True:
            try:
                self._write_together(batch)
                break
            except IntegrityError:
                log.warning("a batch broke at its commit; writing it one by one")
                self._write_one_by_one(batch)
                break
            except (OperationalError, InterfaceError) as error:
                if self._stopping and pause > 2:
                    log.error("the database is away; %d jobs were not written", len(batch.jobs))
                    batch.outcomes = [(f, None, error) for _, f in batch.jobs if f is not None]
                    break
                counting.DATABASE_AWAY.add()
                log.warning("the database is away (%s); trying again in %.1f s", type(error).__name__, pause)
                connection.close()
                time.sleep(pause)
                pause = min(pause * 2, 5.0)
        self._tell(batch)

    def _write_together(self, batch: _Batch) -> None:
        began = time.monotonic()
        batch.outcomes, batch.told = [], []
        announcing.forget()
        _commit_to_the_disk()
        with transaction.atomic():
            for (verb, key), items in batch.firsts.items():
                self._do(lambda verb=verb, key=key, items=items: verb(key, items), None, batch)  # type: ignore[misc]
            shared: dict[Any, list[tuple[Shared, asyncio.Future[Any] | None]]] = {}
            for job, future in batch.jobs:
                if isinstance(job, Shared):
                    shared.setdefault(job.verb, []).append((job, future))
                else:
                    self._do(job, future, batch)
            for jobs in shared.values():
                self._do_together(jobs, batch)
            for (verb, key), items in batch.folds.items():
                self._do(lambda verb=verb, key=key, items=items: verb(key, items), None, batch)  # type: ignore[misc]
        batch.told = announcing.collected()
        counting.WRITER_BATCH_S.observe(time.monotonic() - began)
        counting.WRITER_BATCH.add("jobs", n=len(batch.jobs))
        counting.WRITER_BATCH.add("folds", n=len(batch.folds))

    def _write_one_by_one(self, batch: _Batch) -> None:
        alone = [_Batch([], {}, {fold: items}) for fold, items in batch.firsts.items()]
        alone += [_Batch([job], {}) for job in batch.jobs]
        alone += [_Batch([], {fold: items}) for fold, items in batch.folds.items()]
        batch.outcomes, batch.told = [], []
        for single in alone:
            try:
                self._write_together(single)
            except IntegrityError as error:
                single.outcomes = [(f, None, error) for _, f in single.jobs if f is not None]
                log.warning("a job was refused by the database: %s", error)
            batch.outcomes += single.outcomes
            batch.told += single.told

    def _do(self, job: Job, future: asyncio.Future[Any] | None, batch: _Batch) -> None:
        try:
            with transaction.atomic():
                result = job()
        except (OperationalError, InterfaceError) as error:
            if _is_away(error):
                raise
            self._failed(error, future, batch)
        except Exception as error:
            self._failed(error, future, batch)
        else:
            if future is not None:
                batch.outcomes.append((future, result, None))

    def _do_together(self, jobs: list[tuple[Shared, asyncio.Future[Any] | None]], batch: _Batch) -> None:
        try:
            with transaction.atomic():
                results = jobs[0][0].verb([job.item for job, _ in jobs])
        except (OperationalError, InterfaceError) as error:
            if _is_away(error):
                raise
            results = None
        except Exception:
            results = None
        if results is None:
            for job, future in jobs:
                self._do(job, future, batch)
            return
        for (_, future), result in zip(jobs, results, strict=True):
            if future is not None:
                batch.outcomes.append((future, result, None))

    @staticmethod
    def _failed(error: Exception, future: asyncio.Future[Any] | None, batch: _Batch) -> None:
        if future is None:
            log.error("a note could not be written: %s", error, exc_info=error)
        else:
            batch.outcomes.append((future, None, error))

    def _tell(self, batch: _Batch) -> None:
        def resolve() -> None:
            for future, result, error in batch.outcomes:
                if future.done():
                    continue
                if error is None:
                    future.set_result(result)
                else:
                    future.set_exception(error)
            if batch.told:
                self._publish(batch.told)

        with contextlib.suppress(RuntimeError):  # the loop has ended; what was written stays written
            self._loop.call_soon_threadsafe(resolve)

    def _frames_are_due(self, batch: _Batch) -> bool:
        """Beside a stream of jobs they wait a moment for more: their commit costs as much as that of the jobs."""
        waited = time.monotonic() - self._frames_written_at
        return not batch or self._stopping or waited >= PAUSE_S or len(self._frames) >= FRAMES_A_BATCH

    def _write_frames(self) -> None:
        self._frames_written_at = time.monotonic()
        frames = [self._frames.popleft() for _ in range(min(FRAMES_A_BATCH, len(self._frames)))]
        if not frames:
            return
        try:
            bulk.insert(OcppMessage, FRAME_FIELDS, [f.row() for f in frames])
        except (OperationalError, InterfaceError) as error:
            log.warning("%d frames were not kept: %s", len(frames), error)
            counting.WRITER_BATCH.add("frames_lost", n=len(frames))
            connection.close()
        except Exception as error:
            log.warning("%d frames could not be kept together: %s", len(frames), error)
            self._write_frames_alone(frames)
        else:
            counting.WRITER_BATCH.add("frames", n=len(frames))

    @staticmethod
    def _write_frames_alone(frames: list[Frame]) -> None:
        """One of them is odd, or its station is gone: the others are kept."""
        lost = 0
        for frame in frames:
            try:
                bulk.insert(OcppMessage, FRAME_FIELDS, [frame.row()])
            except Exception:
                lost += 1
        counting.WRITER_BATCH.add("frames_lost", n=lost)
        counting.WRITER_BATCH.add("frames", n=len(frames) - lost)
        log.warning("%d of %d frames were not kept", lost, len(frames))


def _blank_frame(raw: bytes) -> str:
    try:
        return orjson.dumps(blank(orjson.loads(raw))).decode()
    except orjson.JSONDecodeError:
        return BLANK  # no frame we can read, so nothing of it is kept


def _commit_to_the_disk() -> None:
    """On SQLite, a new connection of the writer waits for the disk: what is answered outlives a power cut too.

    What is committed stands in the journal, on the disk; it moves to its place less often than SQLite would by itself,
    because pages that every batch writes to, those of indexes above all, then move once and not many times.
    """
    if connection.vendor == "sqlite" and connection.connection is None:
        with connection.cursor() as cursor:
            cursor.execute("PRAGMA synchronous=FULL")
            cursor.execute(f"PRAGMA wal_autocheckpoint={JOURNAL_PAGES}")


def _is_away(error: Exception) -> bool:
    """Is the database gone, or is it this job alone? SQLite says so in words, a server by not answering."""
    if connection.vendor == "sqlite":
        text = str(error).lower()
        return any(word in text for word in _AWAY)
    return not connection.is_usable()

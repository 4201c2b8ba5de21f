"""Reads every device that this installation reaches itself, and obeys set-points: the only Modbus master.

One task per device, each at its own interval. Devices on one line wait their turn there (`devices/modbus.py`), first
come, first served; a device that does not answer is asked less often, so that it does not hold up its neighbours.
A reading goes to Redis (`live.py`) through one publishing task that always takes the newest, and to the history
(`history.py`) through a thread: neither a slow Redis nor an absent database ever delays a meter or ends the loop.
Records are looked at again every 5 s; what changed is reopened, the rest runs on.

A measurement that cannot be true does not displace a good one: that one ages, as it should. Only when doubt lasts
longer than the device's age limit is the doubtful one shown, marked suspect.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any, TypeVar

import redis
from django.db import DatabaseError, InterfaceError, close_old_connections, connections

from meters import live, metrics, setpoints
from meters.devices.errors import DeviceError
from meters.devices.meter import DeviceSettings
from meters.devices.modbus import Lines
from meters.devices.opening import AnyDevice, open_device
from meters.devices.protocols import Battery, Meter, Switch
from meters.devices.quantities import VOLTAGE_V, WITHOUT_NEUTRAL_V, doubts, judged
from meters.history import Recorder
from meters.measurement import Measurement
from meters.models import Device
from meters.supply import Supply

REFRESH_S = 5.0
REPORT_S = 10.0
CONTROL_S = 0.5
SLOWEST_RETRY_S = 10.0
RELEASE_WITHIN_S = 5.0
_OUTSIDE = (redis.RedisError, DatabaseError, InterfaceError, OSError)
T = TypeVar("T")
READ_AT = metrics.Gauge("poller_reading_timestamp_seconds", "When each device was last read well.", "device")
POLLER_AGE = metrics.Gauge("poller_age_seconds", "Since any device was last read well; from the start if none was.")
BEGAN = time.time()
FAILURES = metrics.Counter("poller_failures_total", "Readings that failed, by device.", "device")
log = logging.getLogger(__name__)


class DeviceTask:
    """One device: its connection, its last good measurement, and what it was last told."""

    def __init__(self, poller: Poller, settings: DeviceSettings) -> None:
        self._poller = poller
        self.settings = settings
        self.device: AnyDevice | None = None
        self.last_good: Measurement | None = None
        self.error = ""
        self.seen_at: datetime | None = None
        self._written: setpoints.Written | None = None
        self._doubted_since: float | None = None
        self._frozen: tuple[Measurement, float] | None = None
        self._failures = 0
        self._started_neutral = False
        self._control_failed_at = float("-inf")

    async def run(self) -> None:
        """Read for ever, each `poll_s`; obey set-points in between."""
        jobs = [self._read_for_ever()]
        if self.settings.kind in (Device.Kind.BATTERY, Device.Kind.PV, Device.Kind.LOAD):
            jobs.append(self._control_for_ever())
        try:
            async with asyncio.TaskGroup() as group:
                for job in jobs:
                    group.create_task(job)
        finally:
            await asyncio.shield(self._close())

    async def _read_for_ever(self) -> None:
        due = time.monotonic()
        while True:
            await self._read_once()
            wait = self.settings.poll_s
            if self._failures:
                wait = min(SLOWEST_RETRY_S, max(wait, wait * 2 ** min(self._failures - 1, 6)))
            # Keep the beat; but never hurry after a delay.
            due = max(due + wait, time.monotonic())
            await asyncio.sleep(max(0.0, due - time.monotonic()))

    async def _read_once(self) -> None:
        try:
            device = self._open()
            if not isinstance(device, Meter):
                raise DeviceError(f"{self.settings.name}: this device cannot be read")
            measurement = await device.read()
        except DeviceError as error:
            self._failed(str(error))
            return
        except Exception:  # a defect in one driver must not take the other devices along
            log.exception("device %s: reading failed", self.settings.name)
            self._failed(f"{self.settings.name}: reading failed, see the log")
            return
        self._failures = 0
        self.seen_at = measurement.at
        self._judge(measurement)

    def _open(self) -> AnyDevice:
        if self.device is None:
            self.device = open_device(self.settings, self._poller.lines)
        return self.device

    def _judge(self, measurement: Measurement) -> None:
        volts = WITHOUT_NEUTRAL_V if self.settings.supply is Supply.IT else VOLTAGE_V
        reasons = doubts(measurement, self.last_good, max_a=self.settings.number("max_a"), voltage_v=volts)
        reasons += self._frozen_reasons(measurement)
        now = time.monotonic()
        if not reasons:
            if self.error:
                log.info("device %s: good again", self.settings.name)
            self.error, self._doubted_since, self.last_good = "", None, measurement
            self._poller.publish(self, measurement)
            return
        if self._doubted_since is None:
            self._doubted_since = now
            log.warning("device %s: doubtful: %s", self.settings.name, "; ".join(reasons))
        self.error = f"{self.settings.name}: doubtful: {'; '.join(reasons)}"
        if self.last_good is None or now - self._doubted_since > self.settings.max_age_s:
            self._poller.publish(self, judged(measurement, reasons))
            if self._only_counters(reasons) and now - self._doubted_since > 60:
                self.last_good = None  # the meter was replaced or reset: its new counters are the truth

    @staticmethod
    def _only_counters(reasons: list[str]) -> bool:
        return all("stepped back" in r for r in reasons)

    def _frozen_reasons(self, measurement: Measurement) -> list[str]:
        """With the option `frozen_s`: a meter that says exactly the same for longer is stuck (a caching gateway)."""
        limit = self.settings.number("frozen_s")
        if limit is None:
            return []
        now = time.monotonic()
        same = self._frozen is not None and _same_values(self._frozen[0], measurement)
        if not same or self._frozen is None:
            self._frozen = (measurement, now)
            return []
        stuck = now - self._frozen[1]
        return [f"frozen: exactly the same values for {stuck:.0f} s"] if stuck > limit else []

    def _failed(self, message: str) -> None:
        self._failures += 1
        FAILURES.add(str(self.settings.pk))
        if message != self.error and not self.error:
            log.warning("device %s", message)
        self.error = message

    # Set-points. Reading and control share the line, which keeps them apart.

    async def _control_for_ever(self) -> None:
        while True:
            try:
                await self._control_once()
            except DeviceError as error:
                self._control_failed_at = time.monotonic()
                self._failed(str(error))
            except Exception:
                self._control_failed_at = time.monotonic()
                log.exception("device %s: control failed", self.settings.name)
            await self._poller.told.wait_for_change(CONTROL_S)

    async def _control_once(self) -> None:
        if time.monotonic() - self._control_failed_at < 1.0:
            return
        wanted = self._poller.wanted.get(self.settings.pk)
        if wanted is None and self._written is None and self._started_neutral:
            return
        device = self._open()
        if not isinstance(device, (Battery, Switch)):
            return
        lease_s = device.lease_s if isinstance(device, Battery) else None
        now = datetime.now(UTC)
        nothing_wanted = wanted is None or not wanted.holds(now)
        if not self._started_neutral and nothing_wanted and isinstance(device, Battery) and lease_s is None:
            await device.release()  # without a timer it may still hold what an earlier poller told it
        self._started_neutral = True
        step = setpoints.next_step(
            self._clamped(wanted), self._written, now=now, now_s=time.monotonic(), device_lease_s=lease_s
        )
        if isinstance(step, setpoints.Release):
            await self._release(device)
        elif isinstance(step, setpoints.Write):
            await self._write(device, step)

    def _clamped(self, wanted: setpoints.Setpoint | None) -> setpoints.Setpoint | None:
        if wanted is None or wanted.power_w is None:
            return wanted
        if self.settings.kind == Device.Kind.LOAD:
            most_w = self.settings.number("max_w")
            power_w = max(0.0, wanted.power_w if most_w is None else min(wanted.power_w, most_w))
            return setpoints.Setpoint(power_w, wanted.on, wanted.until)
        if self.settings.kind != Device.Kind.BATTERY:
            return wanted
        bounds = setpoints.Bounds(
            *(self.settings.number(o) for o in ("max_charge_w", "max_discharge_w", "min_soc", "max_soc"))
        )
        measured = self.last_good
        if measured is not None and not measured.is_fresh(datetime.now(UTC), 60):
            measured = None
        return setpoints.Setpoint(setpoints.clamp(wanted.power_w, bounds, measured), wanted.on, wanted.until)

    async def _write(self, device: Battery | Switch, step: setpoints.Write) -> None:
        if (step.power_w is not None and not isinstance(device, Battery)) or (
            step.on is not None and not isinstance(device, Switch)
        ):
            wish = "a power" if step.power_w is not None else "a switch position"
            raise DeviceError(f"{self.settings.name}: it cannot take {wish}")
        # From the first word on the device may obey, also when we are stopped or refused halfway: then it is released.
        self._written = setpoints.UNSURE
        if step.power_w is not None and isinstance(device, Battery):
            await device.set_power(step.power_w, step.lease_s)
        elif step.on is not None and isinstance(device, Switch):
            await device.set(step.on)
        self._written = setpoints.Written(step.power_w, step.on, step.lease_s, time.monotonic())

    async def _release(self, device: Any) -> None:
        await device.release()
        self._written = None

    async def _close(self) -> None:
        device, self.device = self.device, None
        if device is None:
            return
        if self._written is not None:
            try:
                async with asyncio.timeout(RELEASE_WITHIN_S):
                    await self._release(device)
            except (DeviceError, TimeoutError) as error:
                log.warning("device %s: not released: %s", self.settings.name, error)
        with contextlib.suppress(Exception):
            await device.close()


class Bell:
    """Wakes everyone who waits, each time it rings."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def ring(self) -> None:
        event, self._event = self._event, asyncio.Event()
        event.set()

    async def wait_for_change(self, at_most_s: float) -> None:
        event = self._event
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(at_most_s):
                await event.wait()


class Poller:
    """The loop. `run` ends only when `stop` is set, and then every device we command has been released."""

    def __init__(self, *, refresh_s: float = REFRESH_S, recorder: Recorder | None = None) -> None:
        self.lines = Lines()
        self.wanted: dict[int, setpoints.Setpoint] = {}
        self.told = Bell()
        self._refresh_s = refresh_s
        self._recorder = recorder or Recorder()
        self._tasks: dict[int, tuple[DeviceTask, asyncio.Task[None]]] = {}
        self._outbox: dict[int, tuple[int, Measurement]] = {}
        self._posted = asyncio.Event()
        self._reported: dict[int, tuple[str, datetime | None, float]] = {}
        # One thread each for the database and Redis, so that one being away never holds up the other.
        self._database = ThreadPoolExecutor(1, "poller-database")
        self._redis = ThreadPoolExecutor(1, "poller-redis")
        self._redis_reads = ThreadPoolExecutor(1, "poller-setpoints")
        self._away: set[str] = set()

    async def run(self, stop: asyncio.Event) -> None:
        self._recorder.start()
        POLLER_AGE.ask(lambda: time.time() - max(READ_AT.series.values(), default=BEGAN))
        jobs = [
            asyncio.create_task(self._refresh_for_ever(), name="devices"),
            asyncio.create_task(self._publish_for_ever(), name="publish"),
            asyncio.create_task(self._listen_for_ever(), name="set-points"),
            asyncio.create_task(self._report_for_ever(), name="report"),
        ]
        try:
            await stop.wait()
        finally:
            await _ended(jobs)
            await self._close_all()
            await self._attempt("database", self._database, self._report)
            await asyncio.get_running_loop().run_in_executor(self._database, connections.close_all)
            await asyncio.to_thread(self._recorder.stop)
            for pool in (self._database, self._redis, self._redis_reads):
                pool.shutdown(wait=False, cancel_futures=True)
            self.lines.close()

    @property
    def devices(self) -> dict[int, DeviceTask]:
        """The running devices by key."""
        return {pk: task for pk, (task, _) in self._tasks.items()}

    def publish(self, task: DeviceTask, measurement: Measurement) -> None:
        """Hand a measurement on. Never waits."""
        self._outbox[task.settings.pk] = (task.settings.site_id, measurement)
        self._posted.set()
        self._recorder.keep(task.settings.pk, measurement)

    async def _attempt(self, what: str, pool: ThreadPoolExecutor, act: Callable[[], T]) -> T | None:
        """Do something outside, in its thread; None when the outside is away, which is said once."""
        try:
            result = await asyncio.get_running_loop().run_in_executor(pool, act)
        except _OUTSIDE as error:
            if what not in self._away:
                self._away.add(what)
                log.warning("%s is away (%s); the meters are read on", what, error)
            return None
        if what in self._away:
            self._away.discard(what)
            log.info("%s is back", what)
        return result

    async def _every(self, seconds: float, act: Callable[[], Coroutine[Any, Any, None]]) -> None:
        while True:
            try:
                await act()
            except Exception:
                log.exception("poller: going on after a failure")
            await asyncio.sleep(seconds)

    async def _refresh_for_ever(self) -> None:
        await self._every(self._refresh_s, self.refresh)

    async def refresh(self) -> None:
        """Look at the device records: open what is new, close what is gone, reopen what changed."""
        found = await self._attempt("database", self._database, wanted_devices)
        if found is None:
            return
        for pk, (task, _running) in list(self._tasks.items()):
            if found.get(pk) != task.settings:
                await self._end(pk)
        for pk, settings in found.items():
            if pk not in self._tasks:
                task = DeviceTask(self, settings)
                self._tasks[pk] = (task, asyncio.create_task(self._guard(task), name=f"device {settings.name}"))

    async def _guard(self, task: DeviceTask) -> None:
        while True:
            try:
                await task.run()
            except Exception:
                log.exception("device %s: starting again", task.settings.name)
                await asyncio.sleep(1)

    async def _end(self, pk: int) -> None:
        _task, running = self._tasks.pop(pk)
        self._reported.pop(pk, None)
        await _ended([running])

    async def _close_all(self) -> None:
        await _ended([running for _, running in self._tasks.values()])

    async def _publish_for_ever(self) -> None:
        while True:
            await self._posted.wait()
            self._posted.clear()
            waiting, self._outbox = self._outbox, {}
            done = await self._attempt("Redis", self._redis, functools.partial(_store, waiting))
            if done is None:
                # Keep what is newest; newer ones may have come meanwhile.
                self._outbox = {**waiting, **self._outbox}
                await asyncio.sleep(0.5)
                self._posted.set()

    async def _listen_for_ever(self) -> None:
        await self._every(CONTROL_S, self._look_at_setpoints)

    async def _look_at_setpoints(self) -> None:
        obedient = [
            pk
            for pk, task in self.devices.items()
            if task.settings.kind in (Device.Kind.BATTERY, Device.Kind.PV, Device.Kind.LOAD)
        ]
        if not obedient:
            return
        found = await self._attempt("set-points", self._redis_reads, lambda: setpoints.current_of(obedient))
        if found is None:
            return  # what was wanted stays wanted until its time is up
        if found != self.wanted:
            self.wanted = found
            self.told.ring()

    async def _report_for_ever(self) -> None:
        await self._every(1.0, self._report_if_due)

    async def _report_if_due(self) -> None:
        if self._due():
            await self._attempt("database", self._database, self._report)

    def _due(self) -> dict[int, tuple[str, datetime | None]]:
        """Devices whose error changed, or whose last sight is 10 s older in the record than here."""
        now = time.monotonic()
        due: dict[int, tuple[str, datetime | None]] = {}
        for pk, task in self.devices.items():
            error, seen = task.error[:255], task.seen_at
            before = self._reported.get(pk)
            if before is None and not error and seen is None:
                continue
            # Errors may count seconds ("next try in 3.1 s"): a change of wording alone waits for its 10 s.
            turned = before is None or bool(before[0]) != bool(error)
            if turned or (before is not None and now - before[2] >= REPORT_S and before[:2] != (error, seen)):
                due[pk] = (error, seen)
        return due

    def _report(self) -> bool:
        close_old_connections()
        for pk, (error, seen) in self._due().items():
            fields: dict[str, Any] = {"last_error": error}
            if seen is not None:
                fields["last_seen"] = seen
            Device.objects.filter(pk=pk).update(**fields)
            self._reported[pk] = (error, seen, time.monotonic())
        return True


async def _ended(tasks: list[asyncio.Task[None]]) -> None:
    """Cancel until they have ended: in Python 3.11 a cancellation that meets an answer can get lost on the way."""
    waiting = {t for t in tasks if not t.done()}
    while waiting:
        for task in waiting:
            task.cancel()
        _done, waiting = await asyncio.wait(waiting, timeout=RELEASE_WITHIN_S + 2)


def _same_values(a: Measurement, b: Measurement) -> bool:
    left, right = a.to_dict(), b.to_dict()
    left.pop("at")
    right.pop("at")
    return left == right


def _store(waiting: dict[int, tuple[int, Measurement]]) -> bool:
    for pk, (site_id, measurement) in waiting.items():
        live.store(live.device_source(pk), measurement, site_id)
        READ_AT.set(measurement.at.timestamp(), str(pk))
    metrics.publish_now_and_then(metrics.process_name("poller"))
    return True


def wanted_devices() -> dict[int, DeviceSettings]:
    """Every enabled device with a connection, as settings."""
    close_old_connections()
    found = Device.objects.filter(enabled=True).exclude(connect="").select_related("site")
    return {d.pk: settings_of(d) for d in found}


def settings_of(device: Device) -> DeviceSettings:
    """The part of a device record that the poller works with."""
    wiring = device.wiring if isinstance(device.wiring, list) else []
    return DeviceSettings(
        pk=device.pk,
        site_id=device.site_id,
        name=device.name,
        kind=device.kind,
        map=device.map,
        connect=device.connect,
        wiring=tuple(str(w) for w in wiring),
        invert=device.invert,
        poll_s=max(0.2, device.poll_s),
        max_age_s=device.max_age_s,
        options=device.options if isinstance(device.options, dict) else {},
        supply=Supply(device.site.supply),
    )

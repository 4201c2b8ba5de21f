"""Asking stations as part of longer work: many at the same time, one errand at a station at a time, and why it failed.

Used by tasks. A station that does not answer takes its time (`OCPP_CALL_TIMEOUT_S`), and must not make the others wait.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import TypeVar

from django.db import connections
from django.utils.translation import gettext
from redis.exceptions import LockError

from csms import bus
from csms.models import ChargingStation
from meters.live import connection

log = logging.getLogger(__name__)
T = TypeVar("T")

AT_ONCE = 8
ERRORS = (bus.StationUnreachable, bus.NoAnswer, bus.CallRefused, bus.CallNotValid)
"""What may become of a question to a station."""

_NEVER = frozenset({"NotImplemented", "NotSupported"})


def for_ever(error: Exception) -> bool:
    """Will it be the same the next time? The station does not know the message, or we cannot say it to it."""
    return isinstance(error, bus.CallNotValid) or (isinstance(error, bus.CallRefused) and error.code in _NEVER)


def why(error: Exception) -> str:
    """What went wrong, for people."""
    if isinstance(error, bus.StationUnreachable):
        return gettext("The station is not connected.")
    if isinstance(error, bus.NoAnswer):
        return gettext("The station did not answer in time.")
    if isinstance(error, bus.CallRefused) and error.code in _NEVER:
        return gettext("The station does not know this message.")
    if isinstance(error, bus.CallRefused):
        return gettext("The station answered with an error: %(error)s") % {"error": error}
    return gettext("This cannot be asked of the station: %(error)s") % {"error": error}


def later(now: datetime, attempts: int, minutes: tuple[int, ...]) -> datetime:
    """When to try again after so many failed attempts; the last pause is the longest."""
    return now + timedelta(minutes=minutes[min(max(attempts, 1), len(minutes)) - 1])


def connected(stations: Iterable[ChargingStation]) -> list[ChargingStation]:
    """Those that may be asked something of our own accord now: accepted, connected, not quiet."""
    willing = [s for s in stations if s.admission == ChargingStation.Admission.ACCEPTED and not s.quiet]
    held = bus.holders(s.identity for s in willing)
    return [s for s in willing if s.identity in held]


def ask_each(things: Iterable[T], verb: Callable[[T], object], at_once: int = AT_ONCE) -> None:
    """Do the same for each, several at a time. What goes wrong with one is logged and stops no other."""

    def one(thing: T) -> None:
        try:
            verb(thing)
        except Exception:
            log.exception("%s of %s failed", getattr(verb, "__name__", "an errand"), thing)
        finally:
            connections.close_all()  # of this thread

    work = list(things)
    if len(work) == 1:
        try:
            verb(work[0])
        except Exception:
            log.exception("%s of %s failed", getattr(verb, "__name__", "an errand"), work[0])
        return
    with ThreadPoolExecutor(max_workers=at_once, thread_name_prefix="asking") as pool:
        list(pool.map(one, work))


@contextmanager
def alone(errand: str, key: int, lasts_s: float = 300) -> Iterator[bool]:
    """One at a time; False for who comes second. The lock dies by itself, so that a killed worker holds nobody up."""
    lock = connection().lock(f"errand:{errand}:{key}", timeout=lasts_s)
    if not lock.acquire(blocking=False):
        yield False
        return
    try:
        yield True
    finally:
        try:
            lock.release()
        except LockError:
            log.warning("%s of %s took longer than %s s", errand, key, lasts_s)

"""The small subscriber: a reading, a transaction or a status becomes a balance or a plan on the queue, coalesced.

`fresh` rings the balance of its site, with a pause between two rings, the last of which is never lost. A transaction
that starts finds its goal first; then, and when it ends or its token changes, or a car tells its needs, the site is
planned anew at once. A Redis that restarts is waited for; what was missed meanwhile, beat repairs.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable
from typing import Any

import redis
from django.db import DatabaseError, InterfaceError, close_old_connections
from django.utils import timezone

from csms.announcing import STATUS_CHANNEL, TRANSACTION_CHANNEL
from csms.models import Transaction
from csms.needs import NEEDS_CHANNEL
from meters.live import FRESH_CHANNEL, connection
from smartcharging import car_needs, goals, wake

CHANNELS = (FRESH_CHANNEL, TRANSACTION_CHANNEL, STATUS_CHANNEL, NEEDS_CHANNEL)
SPACING_S = 0.3
LONGEST_PAUSE_S = 10.0
IDLE_S = 1.0
log = logging.getLogger(__name__)


class Listener:
    """Listens until it is stopped. `ring` asks for a balance of a site; a test may listen instead."""

    def __init__(
        self,
        ring: Callable[[int], object] = wake.balance,
        replan: Callable[[int, str], object] = wake.plan,
        clock: Callable[[], float] = time.monotonic,
        spacing_s: float = SPACING_S,
    ) -> None:
        self._ring, self._replan, self._clock, self._spacing_s = ring, replan, clock, spacing_s
        self._stop = threading.Event()
        self._rung: dict[int, float] = {}
        self._due: dict[int, float] = {}

    def stop(self) -> None:
        self._stop.set()

    def run(self, ready: Callable[[], object] = lambda: None) -> None:
        """Listen until stopped. `ready` is called each time the subscription stands."""
        pause_s = 0.2
        while not self._stop.is_set():
            try:
                self._listen(ready)
                pause_s = 0.2
            except (redis.RedisError, OSError) as error:
                log.warning("listener: Redis is away (%s); again in %.1f s", error, pause_s)
                self._stop.wait(pause_s)
                pause_s = min(pause_s * 2, LONGEST_PAUSE_S)

    def _listen(self, ready: Callable[[], object]) -> None:
        subscription = connection().pubsub(ignore_subscribe_messages=True)  # type: ignore[no-untyped-call]
        try:
            subscription.subscribe(*CHANNELS)
            # Subscribing is sent at once, and answered when the first message is asked for.
            subscription.get_message(timeout=IDLE_S)
            ready()
            while not self._stop.is_set():
                message = subscription.get_message(timeout=self._patience_s())
                if message is not None:
                    self.hear(message["channel"], message["data"])
                self.ring_due()
        finally:
            subscription.close()

    def _patience_s(self) -> float:
        """Until the next ring that is due."""
        if not self._due:
            return IDLE_S
        return min(max(min(self._due.values()) - self._clock(), 0.0), IDLE_S)

    def hear(self, channel: str, data: str) -> None:
        """One message. What cannot be read is told and passed over."""
        try:
            body: dict[str, Any] = json.loads(data)
            site_id = body.get("site")
            if not isinstance(site_id, int):
                return  # a station that waits in quarantine belongs to no site
            if channel == TRANSACTION_CHANNEL:
                self._transaction(site_id, str(body["kind"]), int(body["transaction"]))
            elif channel == NEEDS_CHANNEL:
                self._needs(site_id, int(body["needs"]))
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            log.warning("listener: a message on %s cannot be read: %s", channel, error)
            return
        self._ask(site_id)

    def _transaction(self, site_id: int, kind: str, pk: int) -> None:
        if kind != "ended":
            self._attach(pk)
        self._replan(site_id, f"transaction {kind}")

    def _attach(self, pk: int) -> None:
        """Find the goal of a transaction that started or got its token. A database that is away costs only time."""
        close_old_connections()
        try:
            found = Transaction.objects.select_related("station").filter(pk=pk, ended_at=None).first()
            if found is not None:
                car_needs.begun(found, timezone.now())
                goals.attach(found)
        except (DatabaseError, InterfaceError, OSError) as error:
            log.warning("listener: transaction %s could not get its goal; the next plan will see to it: %s", pk, error)

    def _needs(self, site_id: int, pk: int) -> None:
        """A car said what it needs; its goal asks for a plan itself, and the station waits for what comes of it."""
        close_old_connections()
        try:
            car_needs.heard(pk, timezone.now())
        except (DatabaseError, InterfaceError, OSError) as error:
            log.warning("listener: the needs of a car (%s) could not become its goal: %s", pk, error)
        self._replan(site_id, "needs of a car")

    def _ask(self, site_id: int) -> None:
        """Ring now, or as soon as the pause since the last ring is over."""
        now = self._clock()
        last = self._rung.get(site_id)
        if last is None or now - last >= self._spacing_s:
            self._rung[site_id] = now
            self._due.pop(site_id, None)
            self._ring(site_id)
        else:
            self._due.setdefault(site_id, last + self._spacing_s)

    def ring_due(self) -> None:
        """Ring those whose pause is over."""
        now = self._clock()
        for site_id in [s for s, due in self._due.items() if due <= now]:
            self._ask(site_id)

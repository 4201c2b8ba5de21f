"""A station's connection: kept up with a growing pause, and the queue of what waits to be said over it.

The queue outlives the connection. Messages about transactions stay in it until the CSMS has answered them, and go out
in order (1.6 §3.7, 2.0.1 part 2 E04); status and heartbeats of an offline time are dropped.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import logging
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import ocpp.messages
from ocpp.exceptions import OCPPError
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidHandshake, WebSocketException

if TYPE_CHECKING:
    from csms.simulator.dialect import Dialect
    from csms.simulator.station import SimulatedStation

# Validating in a thread pool costs more than the validation; this process is a station, not a server.
ocpp.messages.ASYNC_VALIDATION = False

log = logging.getLogger(__name__)

ATTEMPTS = 3  # a message the CSMS answers with an error is tried this often, then dropped
RETRY_S = 1.0
FIRST_WAIT_S, LONGEST_WAIT_S = 0.5, 60.0


@dataclass(eq=False)
class Outgoing:
    """A message that waits to be sent. `make` writes it when its turn comes; None means it has lost its sense."""

    make: Callable[[], Any]
    lasting: bool = False  # about a transaction: kept over a lost connection
    done: Callable[[Any], None] | None = None
    attempts: int = field(default=0, init=False)


class Link:
    """The line of one station to its CSMS."""

    def __init__(self, station: SimulatedStation) -> None:
        self.station = station
        self.connections = 0
        self.accepted = asyncio.Event()
        self._outbox: deque[Outgoing] = deque()
        self._woken = asyncio.Event()
        self._socket: ClientConnection | None = None
        self._needs_boot = True
        self._rebooting = False
        self._blocked_until: datetime | None = None
        self._closing: set[asyncio.Task[None]] = set()

    @property
    def unsent(self) -> int:
        return sum(item.lasting for item in self._outbox)

    def post(
        self, make: Callable[[], Any], *, lasting: bool = False, done: Callable[[Any], None] | None = None
    ) -> None:
        """Queue a message. One that is not lasting is dropped while there is no connection."""
        if lasting or self.accepted.is_set():
            self._outbox.append(Outgoing(make, lasting, done))
            self._woken.set()
        elif done is not None:
            done(None)

    async def ask(self, make: Callable[[], Any]) -> Any:
        """Queue a message and wait for its answer. None: refused, or the connection went."""
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.post(make, done=lambda a: None if answer.done() else answer.set_result(a))
        try:
            return await asyncio.wait_for(answer, self.station.call_timeout_s + 5)
        except TimeoutError:
            return None

    def block(self, seconds: float) -> None:
        """Break the connection without a word, and do not come back for a while."""
        self._blocked_until = self.station.clock() + timedelta(seconds=seconds)
        if self._socket is not None:
            self._socket.transport.abort()

    def reboot(self) -> None:
        """Say what there is to say, close, and come back with a boot."""
        self._needs_boot = self._rebooting = True
        if self._socket is not None:
            task = asyncio.create_task(self._close(self._socket))
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)

    def crash(self) -> None:
        """Break the connection in the middle of whatever it was, and come back with a boot."""
        self._needs_boot = self._rebooting = True
        if self._socket is not None:
            self._socket.transport.abort()

    async def _close(self, socket: ClientConnection) -> None:
        for _ in range(20):
            if not self._outbox:
                break
            await asyncio.sleep(0.1)
        await socket.close()

    async def keep(self) -> None:
        station = self.station
        wait = FIRST_WAIT_S
        while True:
            blocked = (self._blocked_until - station.clock()).total_seconds() if self._blocked_until else 0.0
            if blocked > 0:
                await asyncio.sleep(min(blocked, 0.2))
                continue
            began = asyncio.get_running_loop().time()
            try:
                async with connect(
                    f"{station.url}/{quote(station.identity, safe='')}",
                    subprotocols=[station.protocol],  # type: ignore[list-item]
                    additional_headers=self._credentials(),
                    proxy=None,
                    ssl=station.ssl,
                    open_timeout=10,
                    close_timeout=2,
                ) as socket:
                    await self._converse(socket)
            except (OSError, InvalidHandshake, TimeoutError) as error:
                log.info("%s cannot connect: %s", station.identity, error)
            if self._rebooting:
                self._rebooting = False
                await asyncio.sleep(station.reboot_s)
                wait = FIRST_WAIT_S
                continue
            if asyncio.get_running_loop().time() - began > 2 * wait:
                wait = FIRST_WAIT_S
            await asyncio.sleep(wait * station.rng.uniform(0.8, 1.2))
            wait = min(wait * 2, LONGEST_WAIT_S)

    def _credentials(self) -> dict[str, str]:
        station = self.station
        if station.password is None:
            return {}
        secret = base64.b64encode(f"{station.identity}:{station.password}".encode()).decode()
        return {"Authorization": f"Basic {secret}"}

    async def _converse(self, socket: ClientConnection) -> None:
        """One connection, from its opening to its end."""
        station = self.station
        box = station.dialect.open(station, socket)
        self._socket = socket
        self.connections += 1
        tasks = [asyncio.create_task(box.start()), asyncio.create_task(self._talk(box))]
        try:
            finished, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in finished:
                task.result()
        except (WebSocketException, OSError) as error:
            log.info("%s lost its connection: %s", station.identity, error)
        except Exception:  # a box that stumbles over a frame comes back, as real ones do
            log.exception("%s stumbled", station.identity)
        finally:
            self.accepted.clear()
            self._socket = None
            await _end(tasks)
            self._drop_passing()

    def _drop_passing(self) -> None:
        gone = [item for item in self._outbox if not item.lasting]
        self._outbox = deque(item for item in self._outbox if item.lasting)
        for item in gone:
            if item.done is not None:
                item.done(None)

    async def _talk(self, box: Dialect) -> None:
        station = self.station
        if self._needs_boot or station.boot_on_reconnect:
            await self._boot(box)
        self.accepted.set()
        box.tell_whole_status()
        station.repeat_status(None)
        station.chores.booted()
        beat = asyncio.create_task(self._beat())
        try:
            while True:
                if not self._outbox:
                    self._woken.clear()
                    await self._woken.wait()
                    continue
                await self._send(box, self._outbox[0])
        finally:
            beat.cancel()

    async def _boot(self, box: Dialect) -> None:
        """Say who we are until the CSMS accepts; nothing else is sent before."""
        station = self.station
        while True:
            try:
                status, interval = box.boot_answer(await box.call(box.boot(station.boot_reason), suppress=False))
            except (TimeoutError, OCPPError) as error:
                log.info("%s: boot unanswered: %s", station.identity, error)
                status, interval = "Pending", 30
            if status == "Accepted":
                self._needs_boot = False
                if interval > 0:
                    station.heartbeat_s = interval
                return
            await asyncio.sleep(max(interval, 1))

    async def _beat(self) -> None:
        station = self.station
        while True:
            await asyncio.sleep(station.heartbeat_s)
            self.post(station.dialect.heartbeat)

    async def _send(self, box: Dialect, item: Outgoing) -> None:
        """Send the first of the queue and take it out once it is answered, or refused too often."""
        station = self.station
        message = item.make()
        if message is not None:
            item.attempts += 1
            answer = None
            try:
                answer = await box.call(message, suppress=False)
            except (OCPPError, TimeoutError) as error:
                log.info("%s: %s not taken: %s", station.identity, type(message).__name__, error)
                if item.lasting and item.attempts < ATTEMPTS:
                    await asyncio.sleep(RETRY_S * item.attempts)
                    return
            if item.done is not None:
                item.done(answer)
        elif item.done is not None:
            item.done(None)
        with contextlib.suppress(ValueError):
            self._outbox.remove(item)


async def _end(tasks: list[asyncio.Task[None]]) -> None:
    """Cancel until they are done: before Python 3.12 `wait_for` may swallow a cancellation that meets its result."""
    running = set(tasks)
    while running:
        for task in running:
            task.cancel()
        _, running = await asyncio.wait(running, timeout=0.1)
    for task in tasks:
        if not task.cancelled():
            task.exception()  # seen already, or of no more interest

"""A stubborn station: it speaks by hand, shares no code with ours, and never gives up on a transaction.

What belongs to a transaction waits in a queue until it is answered; unanswered it is sent again under a new message
id, over whatever socket there is then (libocpp does the same). It keeps its own register, and its own book of what it
charged, for the test to compare with ours.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import itertools
import json
from collections import Counter, deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import WebSocketException

V16, V201 = "ocpp1.6", "ocpp2.0.1"
TOKEN = "04A1B2C3"
Told = dict[str, Any]


@dataclass
class Charge:
    """One charge as the station itself has it in its book."""

    evse: int
    start_wh: int
    began: datetime
    number: int
    end_wh: int | None = None
    transaction_id: Any = None  # 1.6: given by us
    events: int = 0
    answers: list[Told] = field(default_factory=list)

    @property
    def name(self) -> str:
        return str(self.transaction_id)


@dataclass
class Waiting:
    """A message of a transaction that was not answered yet."""

    action: str
    payload: Told
    charge: Charge
    answered: asyncio.Future[Told]


class Stubborn:
    """A station with one or more outlets, each with a register."""

    def __init__(
        self,
        port: int,
        identity: str = "CS-1",
        *,
        version: str = V16,
        password: str = "",
        patience_s: float = 0.4,
        register_wh: int = 1_000,
        boots: bool = True,
    ) -> None:
        self.port, self.identity, self.version, self.password = port, identity, version, password
        self.patience_s = patience_s
        self.boots = boots
        self.book: list[Charge] = []
        self.registers: dict[int, int] = {1: register_wh, 2: register_wh}
        self.asked: list[tuple[str, Told]] = []
        self.silent: set[str] = set()  # actions it never answers
        self.heard: Counter[str] = Counter()
        self.closes: list[int | None] = []
        self.connected = asyncio.Event()
        self.now = lambda: datetime.now(UTC)
        self._queue: deque[Waiting] = deque()
        self._more = asyncio.Event()
        self._open: dict[str, asyncio.Future[Any]] = {}
        self._ids = itertools.count(1)
        self._socket: ClientConnection | None = None
        self._tasks: list[asyncio.Task[None]] = []

    # ------------------------------------------------------------------ its life

    @asynccontextmanager
    async def plugged_in(self) -> AsyncIterator[Stubborn]:
        self._tasks = [asyncio.create_task(self._stay_connected()), asyncio.create_task(self._deliver())]
        try:
            yield self
        finally:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _stay_connected(self) -> None:
        headers = {}
        if self.password:
            pair = base64.b64encode(f"{self.identity}:{self.password}".encode()).decode()
            headers["Authorization"] = f"Basic {pair}"
        while True:
            with contextlib.suppress(OSError, WebSocketException, TimeoutError):
                async with connect(
                    f"ws://127.0.0.1:{self.port}/ocpp/{quote(self.identity, safe='')}",
                    subprotocols=[self.version],  # type: ignore[list-item]
                    additional_headers=headers,
                    compression=None,
                    proxy=None,
                    ping_interval=None,
                    open_timeout=3,
                    close_timeout=0.2,
                ) as socket:
                    await self._converse(socket)
            await asyncio.sleep(0.03)

    async def _converse(self, socket: ClientConnection) -> None:
        self._socket = socket
        self.connected.set()
        booting = asyncio.create_task(self._boot()) if self.boots else None
        try:
            async for raw in socket:
                await self._hear(raw)
        finally:
            self.closes.append(socket.close_code)
            self.connected.clear()
            self._socket = None
            if booting is not None:
                booting.cancel()

    async def _hear(self, raw: str | bytes) -> None:
        try:
            message = json.loads(raw)
            kind, message_id = message[0], message[1]
        except (ValueError, LookupError, TypeError):
            self.heard["nonsense"] += 1
            return
        if kind == 2 and len(message) == 4:
            action, payload = message[2], message[3]
            self.asked.append((action, payload))
            if action not in self.silent:
                await self._say(json.dumps([3, message_id, self._answer(action, payload)]))
            return
        waiting = self._open.pop(message_id, None) if isinstance(message_id, str) else None
        if waiting is None or waiting.done():
            self.heard["unasked"] += 1
        else:
            self.heard["result" if kind == 3 else "error"] += 1
            waiting.set_result(message)

    @staticmethod
    def _answer(action: str, payload: Told) -> Told:
        if action == "GetConfiguration":
            return {"configurationKey": [], "unknownKey": []}
        if action == "SetVariables":
            same = ("component", "variable")
            return {
                "setVariableResult": [
                    {"attributeStatus": "Accepted", **{k: d[k] for k in same}} for d in payload["setVariableData"]
                ]
            }
        return {"status": "Accepted"}

    async def _boot(self) -> None:
        about = {"vendorName": "Stubborn", "model": "S", "firmwareVersion": "1"}
        body = (
            {"chargePointVendor": "Stubborn", "chargePointModel": "S", "firmwareVersion": "1"}
            if self.version == V16
            else {"reason": "PowerUp", "chargingStation": about}
        )
        with contextlib.suppress(TimeoutError, OSError, WebSocketException):
            while await self.ask("BootNotification", body) is None:
                pass

    async def _say(self, frame: str) -> None:
        socket = self._socket
        if socket is not None:
            with contextlib.suppress(WebSocketException, OSError):
                await socket.send(frame)

    # ------------------------------------------------------------------ asking

    async def ask(self, action: str, payload: Told, *, patience_s: float | None = None) -> Told | None:
        """Ask once: the result, or None for an error or for no answer in time."""
        message_id = f"{self.identity}-{next(self._ids)}"
        answered = self._open[message_id] = asyncio.get_running_loop().create_future()
        try:
            await self._say(json.dumps([2, message_id, action, payload]))
            message = await asyncio.wait_for(answered, patience_s or self.patience_s)
        except TimeoutError:
            return None
        finally:
            self._open.pop(message_id, None)
        result = message[2] if message[0] == 3 and len(message) > 2 else None
        return result if isinstance(result, dict) else None

    async def tell(self, action: str, payload: Told) -> None:
        """Say something and not wait for the answer."""
        await self._say(json.dumps([2, f"{self.identity}-{next(self._ids)}", action, payload]))

    async def _deliver(self) -> None:
        """The queue of transaction messages, strictly in order, each until it is answered."""
        while True:
            while not self._queue:
                self._more.clear()
                await self._more.wait()
            await self.connected.wait()
            first = self._queue[0]
            if self.version == V16 and first.action != "StartTransaction":
                first.payload["transactionId"] = first.charge.transaction_id
            result = await self.ask(first.action, first.payload)
            if result is None:
                continue
            if first.action == "StartTransaction":
                if not isinstance(result.get("transactionId"), int):
                    continue
                first.charge.transaction_id = result["transactionId"]
            first.charge.answers.append(result)
            self._queue.popleft()
            if not first.answered.done():
                first.answered.set_result(result)

    def _enqueue(self, action: str, payload: Told, charge: Charge) -> asyncio.Future[Told]:
        future = asyncio.get_running_loop().create_future()
        self._queue.append(Waiting(action, payload, charge, future))
        self._more.set()
        return future

    async def delivered(self, within_s: float = 30.0) -> None:
        """Wait until nothing of a transaction waits any more."""
        last = asyncio.gather(*(waiting.answered for waiting in self._queue))
        await asyncio.wait_for(last, within_s)

    # ------------------------------------------------------------------ charging

    def start(self, evse: int = 1) -> Charge:
        charge = Charge(evse, self.registers[evse], self.now(), len(self.book) + 1)
        self.book.append(charge)
        if self.version == V16:
            body = {"connectorId": evse, "idTag": TOKEN, "meterStart": charge.start_wh, "timestamp": iso(charge.began)}
            self._enqueue("StartTransaction", body, charge)
        else:
            charge.transaction_id = f"{self.identity}-{charge.number}-{int(charge.began.timestamp() * 1000)}"
            self.event(charge, "Started", idToken={"idToken": TOKEN, "type": "ISO14443"})
        return charge

    def event(self, charge: Charge, kind: str, *, at: datetime | None = None, **more: Any) -> asyncio.Future[Told]:
        """A TransactionEvent, with the register as it stands."""
        context = {"Started": "Transaction.Begin", "Ended": "Transaction.End"}.get(kind, "Sample.Periodic")
        when = iso(at or self.now())
        sampled = {"value": self.registers[charge.evse], "context": context, "unitOfMeasure": {"unit": "Wh"}}
        body = {
            "eventType": kind,
            "timestamp": when,
            "triggerReason": {"Started": "Authorized", "Ended": "StopAuthorized"}.get(kind, "MeterValuePeriodic"),
            "seqNo": charge.events,
            "transactionInfo": {"transactionId": charge.transaction_id},
            "evse": {"id": charge.evse, "connectorId": 1},
            "meterValue": [{"timestamp": when, "sampledValue": [sampled]}],
            **more,
        }
        charge.events += 1
        return self._enqueue("TransactionEvent", body, charge)

    async def take(self, charge: Charge, energy_wh: int) -> None:
        """Some energy flows, and is told."""
        self.registers[charge.evse] += energy_wh
        if self.version == V201:
            self.event(charge, "Updated", transactionInfo=_info(charge, chargingState="Charging"))
            return
        sampled = {"value": str(self.registers[charge.evse]), "unit": "Wh"}
        body: Told = {
            "connectorId": charge.evse,
            "meterValue": [{"timestamp": iso(self.now()), "sampledValue": [sampled]}],
        }
        if charge.transaction_id is not None:
            body["transactionId"] = charge.transaction_id
        await self.tell("MeterValues", body)

    def stop(self, charge: Charge) -> None:
        charge.end_wh = self.registers[charge.evse]
        if self.version == V201:
            self.event(charge, "Ended", transactionInfo=_info(charge, stoppedReason="Local"))
            return
        body = {"meterStop": charge.end_wh, "timestamp": iso(self.now()), "reason": "Local"}
        self._enqueue("StopTransaction", body, charge)


def _info(charge: Charge, **more: Any) -> Told:
    return {"transactionId": charge.transaction_id, **more}


def iso(at: datetime) -> str:
    return at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def ago(seconds: float) -> datetime:
    return datetime.now(UTC) - timedelta(seconds=seconds)

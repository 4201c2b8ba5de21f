"""A bare station for tests of the gateway: plain frames over a real socket, and nothing it does by itself."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import itertools
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import quote

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from csms.gateway import Gateway

V16, V201 = "ocpp1.6", "ocpp2.0.1"
Answerer = Callable[[str, dict[str, Any]], Any]


class Bare:
    """Sends calls and raw frames; answers the gateway's calls by `answers`, keeps them in `asked`."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.answers: dict[str, Any] = {}
        self.stray: asyncio.Queue[Any] = asyncio.Queue()
        self._open: dict[str, asyncio.Future[Any]] = {}
        self._ids = itertools.count(1)
        self._news = asyncio.Event()
        self.reader = asyncio.create_task(self._read())

    async def _read(self) -> None:
        with contextlib.suppress(ConnectionClosed):
            async for frame in self.socket:
                message = json.loads(frame)
                if message[0] == 2:
                    await self._answer(message)
                else:
                    waiting = self._open.pop(str(message[1]), None)
                    if waiting is not None and not waiting.done():
                        waiting.set_result(message)
                    else:
                        self.stray.put_nowait(message)
        self._news.set()

    async def _answer(self, message: list[Any]) -> None:
        _, message_id, action, payload = message
        self.asked.append((action, payload))
        self._news.set()
        answer = self.answers.get(action, {"status": "Accepted"} if action != "GetConfiguration" else {})
        if action == "SetVariables" and action not in self.answers:
            answer = {
                "setVariableResult": [
                    {"attributeStatus": "Accepted", "component": d["component"], "variable": d["variable"]}
                    for d in payload["setVariableData"]
                ]
            }
        if callable(answer):
            answer = answer(payload)
        if answer is None:
            return
        frame = [4, message_id, *answer] if isinstance(answer, list) else [3, message_id, answer]
        await self.socket.send(json.dumps(frame))

    async def call(self, action: str, payload: dict[str, Any], message_id: str | None = None) -> Any:
        """The whole answering frame."""
        message_id = message_id or f"m{next(self._ids)}"
        return await self.send([2, message_id, action, payload], message_id)

    async def ask(self, action: str, payload: dict[str, Any], message_id: str | None = None) -> Any:
        """The payload of the result; an error fails the test."""
        frame = await self.call(action, payload, message_id)
        assert frame[0] == 3, frame
        return frame[2]

    async def send(self, frame: Any, answered_by: str) -> Any:
        """Send any frame and wait for the answer with this message id."""
        waiting = self._open[answered_by] = asyncio.get_running_loop().create_future()
        await self.socket.send(frame if isinstance(frame, str | bytes) else json.dumps(frame))
        return await asyncio.wait_for(waiting, 10)

    async def was_asked(self, action: str, where: Callable[[dict[str, Any]], bool] = lambda p: True) -> dict[str, Any]:
        """Wait until the gateway asks this; the payload."""
        async with asyncio.timeout(10):
            while True:
                for name, payload in self.asked:
                    if name == action and where(payload):
                        return payload
                self._news.clear()
                await self._news.wait()
                if self.socket.close_code is not None:
                    raise AssertionError(f"the socket closed before {action} was asked")

    def forget(self) -> None:
        self.asked.clear()

    async def closed(self) -> int:
        async with asyncio.timeout(10):
            await self.socket.wait_closed()
        return self.socket.close_code or 0


def basic(user: str | bytes, password: str | bytes) -> dict[str, str]:
    user = user.encode() if isinstance(user, str) else user
    password = password.encode() if isinstance(password, str) else password
    return {"Authorization": "Basic " + base64.b64encode(user + b":" + password).decode()}


@asynccontextmanager
async def station(
    gateway: Gateway,
    identity: str = "CS-1",
    *,
    version: str | None = V16,
    path: str | None = None,
    headers: dict[str, str] | None = None,
) -> AsyncIterator[Bare]:
    async with connect(
        f"ws://127.0.0.1:{gateway.port}{path or '/ocpp/' + quote(identity, safe='')}",
        subprotocols=[version] if version else None,  # type: ignore[list-item]
        additional_headers=headers,
        proxy=None,
        ping_interval=None,
    ) as socket:
        bare = Bare(socket)
        try:
            yield bare
        finally:
            bare.reader.cancel()


@asynccontextmanager
async def running(**knobs: Any) -> AsyncIterator[Gateway]:
    """A real gateway on a free port."""
    from csms.session import Knobs

    gateway = Gateway(knobs=Knobs(**{"call_timeout_s": 5.0, **knobs}))
    await gateway.start()
    try:
        yield gateway
    finally:
        await gateway.stop()


async def written(gateway: Gateway) -> None:
    """Wait until everything handed to the writer so far is in the database, folds and frames too."""
    await gateway.writer.submit(lambda: None)
    await gateway.writer.submit(lambda: None)
    for _ in range(200):
        if not gateway.writer._frames:
            break
        await asyncio.sleep(0.02)
    await gateway.writer.submit(lambda: None)

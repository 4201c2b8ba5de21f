"""A very small central system for the tests of the simulator: it accepts, answers, and remembers what it heard."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

from websockets.asyncio.server import Server, ServerConnection, serve


class Central:
    """Speaks JSON arrays by hand, so that it shares nothing with the station's library or with our gateway."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, dict[str, Any]]] = []
        self.refused: set[str] = set()
        self.silent: set[str] = set()  # actions answered with an error
        self.passwords: list[str] = []
        self.paths: list[str] = []
        self.sockets: list[ServerConnection] = []
        self.boot_status = ["Accepted"]
        self._numbers = iter(range(100, 10_000))
        self._waiting: dict[str, asyncio.Future[Any]] = {}
        self._changed = asyncio.Event()
        self.server: Server | None = None
        self.url = ""

    def of(self, action: str) -> list[dict[str, Any]]:
        return [payload for name, payload in self.heard if name == action]

    async def until(self, true: Callable[[], Any], what: str = "", timeout_s: float = 10) -> Any:
        """Wait for something to have been heard."""
        async with asyncio.timeout(timeout_s):
            while not (found := true()):
                self._changed.clear()
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._changed.wait(), 0.05)
        return found

    async def call(self, action: str, payload: dict[str, Any]) -> Any:
        key = f"c{next(self._numbers)}"
        self._waiting[key] = asyncio.get_running_loop().create_future()
        await self.sockets[-1].send(json.dumps([2, key, action, payload]))
        return await asyncio.wait_for(self._waiting[key], 10)

    async def _serve(self, socket: ServerConnection) -> None:
        self.sockets.append(socket)
        assert socket.request is not None
        self.paths.append(socket.request.path)
        sent = socket.request.headers.get("Authorization", "")
        self.passwords.append(base64.b64decode(sent.removeprefix("Basic ")).decode() if sent else "")
        async for raw in socket:
            frame = json.loads(raw)
            if frame[0] == 2:
                _, key, action, payload = frame
                self.heard.append((action, payload))
                self._changed.set()
                if action in self.silent:
                    await socket.send(json.dumps([4, key, "InternalError", "", {}]))
                else:
                    await socket.send(json.dumps([3, key, self._answer(action, payload, socket.subprotocol or "")]))
            else:
                waiting = self._waiting.pop(frame[1])
                waiting.set_result(frame[2] if frame[0] == 3 else f"error {frame[2]}")

    def _answer(self, action: str, payload: dict[str, Any], protocol: str) -> dict[str, Any]:
        now = "2026-03-02T12:00:00Z"
        match action:
            case "BootNotification":
                status = self.boot_status.pop(0) if len(self.boot_status) > 1 else self.boot_status[0]
                return {"currentTime": now, "interval": 300 if status == "Accepted" else 1, "status": status}
            case "Heartbeat":
                return {"currentTime": now}
            case "Authorize" if protocol == "ocpp1.6":
                return {"idTagInfo": {"status": self._verdict(payload["idTag"])}}
            case "Authorize":
                return {"idTokenInfo": {"status": self._verdict(payload["idToken"]["idToken"])}}
            case "StartTransaction":
                return {"transactionId": next(self._numbers), "idTagInfo": {"status": self._verdict(payload["idTag"])}}
            case "TransactionEvent" if "idToken" in payload:
                return {"idTokenInfo": {"status": self._verdict(payload["idToken"]["idToken"])}}
        return {}

    def _verdict(self, token: str) -> str:
        return "Invalid" if token in self.refused else "Accepted"


@asynccontextmanager
async def central() -> AsyncIterator[Central]:
    system = Central()
    async with serve(system._serve, "127.0.0.1", 0, subprotocols=["ocpp1.6", "ocpp2.0.1"]) as server:  # type: ignore[list-item]
        system.server = server
        system.url = f"ws://127.0.0.1:{next(iter(server.sockets)).getsockname()[1]}/ocpp"
        yield system

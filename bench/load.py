"""The load of the benches: stations as bare as can be, so that the server is what is measured.

Frames are written as bytes and counted as they come back; nothing is parsed that need not be. One process, uvloop.
"""

from __future__ import annotations

import asyncio
import base64
import time
from collections.abc import Callable

Make = Callable[[bytes, int], bytes]
"""A call's frame, from its message id and a number that grows."""


class Client(asyncio.Protocol):
    """One station's socket. Each text frame that comes in goes to `heard`."""

    def __init__(self, request: bytes) -> None:
        self._request = request
        self._buffer = b""
        self.open: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.heard: Callable[[bytes], None] = lambda frame: None
        self.writable = asyncio.Event()
        self.writable.set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: asyncio.Transport = transport  # type: ignore[assignment]
        self.transport.write(self._request)

    def connection_lost(self, error: Exception | None) -> None:
        if not self.open.done():
            self.open.set_exception(ConnectionError("the handshake was refused"))
            self.open.exception()
        if not self.closed.done():
            self.closed.set_result(None)

    def pause_writing(self) -> None:
        self.writable.clear()

    def resume_writing(self) -> None:
        self.writable.set()

    def data_received(self, data: bytes) -> None:
        buffer = self._buffer + data if self._buffer else data
        if not self.open.done():
            head, found, buffer = buffer.partition(b"\r\n\r\n")
            if not found:
                self._buffer = head
                return
            if b" 101 " not in head[:20]:
                self.open.set_exception(ConnectionError(head[:60].decode()))
            else:
                self.open.set_result(None)
        at, size = 0, len(buffer)
        while size - at >= 2:
            length, start = buffer[at + 1] & 0x7F, at + 2
            if length == 126:
                length, start = int.from_bytes(buffer[at + 2 : at + 4], "big"), at + 4
            elif length == 127:
                length, start = int.from_bytes(buffer[at + 2 : at + 10], "big"), at + 10
            if start + length > size:
                break
            if buffer[at] == 0x81:
                self.heard(buffer[start : start + length])
            elif buffer[at] == 0x89:
                self.transport.write(b"\x8a\x80\0\0\0\0")
            at = start + length
        self._buffer = buffer[at:]

    def send(self, payload: bytes) -> None:
        self.transport.write(masked(payload))


def masked(payload: bytes) -> bytes:
    """A client's text frame; a mask of zeros costs the server as much as any other."""
    size = len(payload)
    head = bytes((0x81, 0x80 | size)) if size < 126 else b"\x81\xfe" + size.to_bytes(2, "big")
    return head + b"\0\0\0\0" + payload


async def connect(port: int, identity: str, protocol: str, password: str = "") -> Client:
    key = base64.b64encode(b"0123456789abcdef").decode()
    lines = [
        f"GET /ocpp/{identity} HTTP/1.1",
        f"Host: 127.0.0.1:{port}",
        "Upgrade: websocket",
        "Connection: Upgrade",
        f"Sec-WebSocket-Key: {key}",
        "Sec-WebSocket-Version: 13",
        f"Sec-WebSocket-Protocol: {protocol}",
    ]
    if password:
        lines.append("Authorization: Basic " + base64.b64encode(f"{identity}:{password}".encode()).decode())
    request = ("\r\n".join(lines) + "\r\n\r\n").encode()
    loop = asyncio.get_running_loop()
    _, client = await loop.create_connection(lambda: Client(request), "127.0.0.1", port)
    await client.open
    return client


class Asker:
    """Keeps one call on its way until `stop_at`; counts answers and their times."""

    def __init__(self, client: Client, make: Make, name: str) -> None:
        self.client, self.make = client, make
        self.prefix = name.encode()
        self.number = 0
        self.answered = 0
        self.errors = 0
        self.times: list[float] = []
        self.stop_at = 0.0
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._sent_at = 0.0
        client.heard = self._heard
        client.closed.add_done_callback(self._lost)

    def _lost(self, _: object) -> None:
        if not self.done.done():
            self.done.set_exception(ConnectionError("the server closed"))
            self.done.exception()

    def start(self, stop_at: float) -> None:
        self.stop_at = stop_at
        self._next()

    def _next(self) -> None:
        self.number += 1
        self.id = self.prefix + b"-%d" % self.number
        self._sent_at = time.perf_counter()
        self.client.send(self.make(self.id, self.number))

    def _heard(self, frame: bytes) -> None:
        if self.id not in frame[:64]:
            return  # something the server asks of its own accord
        now = time.perf_counter()
        self.times.append(now - self._sent_at)
        self.answered += 1
        self.errors += frame.startswith(b"[4")
        if now < self.stop_at:
            self._next()
        elif not self.done.done():
            self.done.set_result(None)


async def keep_asking(
    port: int,
    protocol: str,
    make: Make,
    stations: int,
    seconds: float,
    *,
    first: int = 0,
    wrong: bool = False,
    used: Callable[[], float] = lambda: 0.0,
) -> tuple[int, float, float]:
    """Every station keeps one call on its way: how many were answered, in how many seconds, and what it took.

    `used` is read when all are connected and again when all is done, so that coming and going is not in it.
    """
    clients = await asyncio.gather(*(connect(port, f"BENCH-{first + i}", protocol) for i in range(stations)))
    await asyncio.sleep(0.2)  # what is written of who came
    run = time.monotonic_ns() % 1_000_000
    askers = [Asker(client, make, f"{run}-{i}") for i, client in enumerate(clients)]
    before = used()
    began = time.perf_counter()
    for asker in askers:
        asker.start(began + seconds)
    async with asyncio.timeout(seconds + 60):
        await asyncio.gather(*(asker.done for asker in askers))
    took = time.perf_counter() - began
    spent = used() - before
    for client in clients:
        client.transport.abort()
    if not wrong and any(asker.errors for asker in askers):
        raise RuntimeError("a call was answered with an error")
    return sum(asker.answered for asker in askers), took, spent

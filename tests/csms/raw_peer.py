"""A peer that writes bytes: for frames no library would send, and for reading nothing at all."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from csms.gateway import Gateway

TEXT, CONT, BINARY, CLOSE, PING, PONG = 1, 0, 2, 8, 9, 10


def frame(payload: bytes, opcode: int = TEXT, *, fin: bool = True, mask: bool = True, rsv1: bool = False) -> bytes:
    """One frame as a client writes it; the mask is real."""
    first = (0x80 if fin else 0) | (0x40 if rsv1 else 0) | opcode
    size, bit = len(payload), 0x80 if mask else 0
    if size < 126:
        head = bytes((first, bit | size))
    elif size < 65536:
        head = bytes((first, bit | 126)) + size.to_bytes(2, "big")
    else:
        head = bytes((first, bit | 127)) + size.to_bytes(8, "big")
    if not mask:
        return head + payload
    key = b"\x5a\x01\xfe\x33"
    wide = int.from_bytes((key * (size // 4 + 1))[:size], "big")
    return head + key + (int.from_bytes(payload, "big") ^ wide).to_bytes(size, "big")


def call(message_id: str, action: str = "Heartbeat", payload: Any = None) -> bytes:
    return frame(json.dumps([2, message_id, action, payload or {}]).encode())


class Peer:
    """The bytes' way in and out."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, answer: str) -> None:
        self.reader, self.writer, self.answer = reader, writer, answer

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    async def next_frame(self) -> tuple[int, bytes]:
        async with asyncio.timeout(10):
            first, second = await self.reader.readexactly(2)
            size = second & 0x7F
            if size == 126:
                size = int.from_bytes(await self.reader.readexactly(2), "big")
            elif size == 127:
                size = int.from_bytes(await self.reader.readexactly(8), "big")
            return first & 0x0F, await self.reader.readexactly(size)

    async def answered(self, message_id: str) -> list[Any]:
        """Read on until this answer comes."""
        while True:
            opcode, payload = await self.next_frame()
            assert opcode != CLOSE, f"closed with {int.from_bytes(payload[:2], 'big')} before {message_id} was answered"
            if opcode == TEXT:
                message: list[Any] = json.loads(payload)
                if message[1] == message_id:
                    return message

    async def closed(self) -> int:
        """Read on until the socket closes: the code, 1006 when it ended without one."""
        try:
            while True:
                opcode, payload = await self.next_frame()
                if opcode == CLOSE:
                    return int.from_bytes(payload[:2], "big")
        except (asyncio.IncompleteReadError, ConnectionError):
            return 1006


@asynccontextmanager
async def peer(
    gateway: Gateway, identity: str = "CS-1", *, version: str = "ocpp1.6", more: str = ""
) -> AsyncIterator[Peer]:
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    writer.write(
        f"GET /ocpp/{identity} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\nSec-WebSocket-Version: 13\r\n"
        f"Sec-WebSocket-Protocol: {version}\r\n{more}\r\n".encode()
    )
    async with asyncio.timeout(10):
        answer = (await reader.readuntil(b"\r\n\r\n")).decode()
    try:
        yield Peer(reader, writer, answer)
    finally:
        writer.transport.abort()

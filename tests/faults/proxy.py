"""A bad network on demand: it stands between a station and the gateway and spoils what passes.

    async with FaultProxy(gateway.port, seed=7, up=Odds(drop=0.1, duplicate=0.2)) as proxy:
        ...connect to proxy.port...

It reads the bytes of both directions, finds the websocket frames in them, and treats each frame by chance (`Odds`) or
by word (`once`). What it does to a frame hangs only on the seed, the connection's number, the direction and the
frame's number, never on the clock: the same seed spoils the same frames. Besides frames it can harm the connection
itself: stall, half-close, cut, be away. Control frames and the handshake pass as they are.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import struct
from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from typing import Literal

Direction = Literal["up", "down"]
"""Up: from the station to the gateway."""

HOLD_S = 0.15
REMEMBERED = 8
FIN, TEXT, CONTINUED, MASKED = 0x80, 0x1, 0x0, 0x80


@dataclass(frozen=True)
class Odds:
    """The chance of each fault, for each frame; the first that strikes is the one that happens."""

    drop: float = 0.0
    delay: float = 0.0  # by up to `delay_s`; what comes behind it waits too
    duplicate: float = 0.0
    reorder: float = 0.0  # it lets the next one pass first
    corrupt: float = 0.0  # one byte of it becomes another
    truncate: float = 0.0
    fragment: float = 0.0  # in several websocket fragments, byte by byte
    replay: float = 0.0  # an earlier frame comes once more, after it
    cut: float = 0.0  # the connection is reset in its place
    delay_s: float = 0.05

    def fault(self, chance: random.Random) -> str:
        """The fault that strikes now; "" for none."""
        at = chance.random()
        for field in fields(self):
            if field.name == "delay_s":
                continue
            at -= getattr(self, field.name)
            if at < 0:
                return field.name
        return ""


@dataclass(frozen=True)
class Frame:
    """One websocket frame as it lies on the wire."""

    first: int
    mask: bytes  # empty where it is not masked
    body: bytes  # still masked

    @property
    def is_data(self) -> bool:
        return self.first & 0x0F < 0x8

    @property
    def text(self) -> str:
        return self.plain.decode("utf-8", "replace")

    @property
    def plain(self) -> bytes:
        if not self.mask:
            return self.body
        return bytes(b ^ self.mask[i % 4] for i, b in enumerate(self.body))

    def to_bytes(self) -> bytes:
        flag = MASKED if self.mask else 0
        size = len(self.body)
        if size < 126:
            head = bytes([self.first, flag | size])
        elif size < 65_536:
            head = bytes([self.first, flag | 126]) + struct.pack("!H", size)
        else:
            head = bytes([self.first, flag | 127]) + struct.pack("!Q", size)
        return head + self.mask + self.body

    def corrupted(self, chance: random.Random) -> Frame:
        if not self.body:
            return self
        at = chance.randrange(len(self.body))
        spoiled = self.body[at] ^ chance.randrange(1, 256)
        return Frame(self.first, self.mask, self.body[:at] + bytes([spoiled]) + self.body[at + 1 :])

    def truncated(self, chance: random.Random) -> Frame:
        return Frame(self.first, self.mask, self.body[: chance.randrange(len(self.body) or 1)])

    def fragments(self, chance: random.Random) -> list[Frame]:
        """The same message in two to four frames."""
        pieces = sorted(chance.randrange(len(self.body) + 1) for _ in range(chance.randint(1, 3)))
        plain, out, start = self.plain, [], 0
        for number, end in enumerate([*pieces, len(plain)]):
            opcode = (self.first & 0x0F) if number == 0 else CONTINUED
            last = end == len(plain) and number == len(pieces)
            part = Frame((FIN if last else 0) | opcode, b"", plain[start:end])
            out.append(part.masked(self.mask))
            start = end
        return out

    def masked(self, mask: bytes) -> Frame:
        body = bytes(b ^ mask[i % 4] for i, b in enumerate(self.body)) if mask else self.body
        return Frame(self.first, mask, body)


class Reader:
    """Finds the frames in a stream of bytes, however they are cut up."""

    def __init__(self) -> None:
        self._held = b""

    def feed(self, data: bytes) -> Iterator[Frame]:
        self._held += data
        while (found := self._take()) is not None:
            yield found

    def _take(self) -> Frame | None:
        held = self._held
        if len(held) < 2:
            return None
        masked, size, at = held[1] & MASKED, held[1] & 0x7F, 2
        for code, form, width in ((126, "!H", 2), (127, "!Q", 8)):
            if size == code:
                if len(held) < at + width:
                    return None
                size = struct.unpack(form, held[at : at + width])[0]
                at += width
                break
        mask = held[at : at + 4] if masked else b""
        at += 4 if masked else 0
        if len(held) < at + size:
            return None
        self._held = held[at + size :]
        return Frame(held[0], mask, held[at : at + size])


class Link:
    """One connection through the proxy: its two writers, and what is told about them."""

    def __init__(self, number: int, to_station: asyncio.StreamWriter, to_gateway: asyncio.StreamWriter) -> None:
        self.number = number
        self.writers: dict[Direction, asyncio.StreamWriter] = {"up": to_gateway, "down": to_station}
        self.deaf: set[Direction] = set()
        self.address = ""  # the path it asked for

    def cut(self) -> None:
        """Both ends see a reset."""
        for writer in self.writers.values():
            writer.transport.abort()


class FaultProxy:
    """Listens on a free port and passes on, spoiled, to a port of ours."""

    def __init__(self, target: int, *, seed: int = 0, up: Odds | None = None, down: Odds | None = None) -> None:
        self.target = target
        self.seed = seed
        self.odds: dict[Direction, Odds] = {"up": up or Odds(), "down": down or Odds()}
        self.did: list[tuple[int, Direction, int, str]] = []
        """Connection, direction, number of the frame, fault."""
        self.passed: Counter[Direction] = Counter()
        self.connections = 0
        self.bytes_per_s: float | None = None
        self._away: set[str] = set()
        self._links: list[Link] = []
        self._flows: dict[Direction, asyncio.Event] = {"up": asyncio.Event(), "down": asyncio.Event()}
        self._once: list[tuple[Direction, Callable[[str], bool], str]] = []
        self._tasks: set[asyncio.Task[None]] = set()
        for flow in self._flows.values():
            flow.set()

    @property
    def port(self) -> int:
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    def counts(self) -> Counter[str]:
        return Counter(fault for _, _, _, fault in self.did)

    async def __aenter__(self) -> FaultProxy:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._server.close()
        self.cut()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # ------------------------------------------------------------------ harm by word

    def once(self, direction: Direction, which: Callable[[str], bool] | str, fault: str) -> None:
        """The next frame this is true of (or that holds these words) suffers this fault."""
        test = which if callable(which) else (lambda text, words=which: words in text)
        self._once.append((direction, test, fault))

    def calm(self) -> None:
        """From now on nothing is spoiled any more."""
        self.odds = {"up": Odds(), "down": Odds()}
        self._once.clear()
        self.flow("up")
        self.flow("down")

    def stall(self, *directions: Direction) -> None:
        """Nothing more comes through, and nobody is told: a half-open connection."""
        for direction in directions or ("up", "down"):
            self._flows[direction].clear()

    def flow(self, *directions: Direction) -> None:
        for direction in directions or ("up", "down"):
            self._flows[direction].set()

    def half_close(self, direction: Direction) -> None:
        """The receiver of this direction sees the end of the stream; the other direction goes on."""
        for link in self._links:
            link.deaf.add(direction)
            with contextlib.suppress(OSError, RuntimeError):
                link.writers[direction].write_eof()

    def cut(self, whose: str = "") -> None:
        """Every connection is reset, or those whose path holds this word."""
        for link in [link for link in self._links if whose in link.address]:
            link.cut()
            self._links.remove(link)

    def away(self, whose: str = "") -> None:
        """The network is gone, for all or for those whose path holds this word: new connections are reset too."""
        self._away.add(whose)
        self.cut(whose)

    def back(self) -> None:
        self._away.clear()

    # ------------------------------------------------------------------ passing on

    def _accept(self, from_station: asyncio.StreamReader, to_station: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._pass_on(from_station, to_station))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _pass_on(self, from_station: asyncio.StreamReader, to_station: asyncio.StreamWriter) -> None:
        try:
            from_gateway, to_gateway = await asyncio.open_connection("127.0.0.1", self.target)
        except OSError:
            to_station.transport.abort()
            return
        self.connections += 1
        link = Link(self.connections, to_station, to_gateway)
        self._links.append(link)
        try:
            await asyncio.gather(self._pump(link, "up", from_station), self._pump(link, "down", from_gateway))
        finally:
            link.cut()
            if link in self._links:
                self._links.remove(link)

    async def _pump(self, link: Link, direction: Direction, source: asyncio.StreamReader) -> None:
        sink = link.writers[direction]
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            head = await source.readuntil(b"\r\n\r\n")
            if direction == "up":
                link.address = head.split(b"\r\n", 1)[0].decode("latin-1")
                if any(word in link.address for word in self._away):
                    link.cut()
                    return
            await self._write(direction, sink, head)
            if direction == "down" and b" 101 " not in head.split(b"\r\n", 1)[0]:
                while data := await source.read(65_536):  # a refusal: no frames follow
                    await self._write(direction, sink, data)
            pipe = Pipe(self, link, direction)
            try:
                while data := await source.read(65_536):
                    for frame in pipe.reader.feed(data):
                        await pipe.take(frame)
                await pipe.release()
            finally:
                pipe.stop()
        if direction not in link.deaf:
            with contextlib.suppress(OSError, RuntimeError):
                sink.write_eof()

    async def _write(self, direction: Direction, sink: asyncio.StreamWriter, data: bytes) -> None:
        await self._flows[direction].wait()
        if self.bytes_per_s is None:
            sink.write(data)
            await sink.drain()
            return
        for byte in data:
            sink.write(bytes([byte]))
            await sink.drain()
            await asyncio.sleep(1 / self.bytes_per_s)


class Pipe:
    """One direction of one connection."""

    def __init__(self, proxy: FaultProxy, link: Link, direction: Direction) -> None:
        self.reader = Reader()
        self._proxy, self._link, self._direction = proxy, link, direction
        self._chance = random.Random(f"{proxy.seed}/{link.number}/{direction}")
        self._number = 0
        self._earlier: deque[Frame] = deque(maxlen=REMEMBERED)
        self._held: Frame | None = None
        self._release: asyncio.Task[None] | None = None

    async def take(self, frame: Frame) -> None:
        if self._direction in self._link.deaf:
            return
        if not frame.is_data:
            await self._send(frame)
            return
        self._number += 1
        fault = self._by_word(frame) or self._proxy.odds[self._direction].fault(self._chance)
        if fault:
            self._proxy.did.append((self._link.number, self._direction, self._number, fault))
        held, self._held = self._held, None
        await self._spoil(frame, fault)
        self._earlier.append(frame)
        if held is not None:
            await self._send(held)

    def _by_word(self, frame: Frame) -> str:
        for planned in self._proxy._once:
            direction, test, fault = planned
            if direction == self._direction and test(frame.text):
                self._proxy._once.remove(planned)
                return fault
        return ""

    async def _spoil(self, frame: Frame, fault: str) -> None:
        match fault:
            case "drop":
                return
            case "cut":
                self._link.cut()
                return
            case "reorder":
                self._held = frame
                self._release = asyncio.create_task(self._release_later())
                return
            case "delay":
                await asyncio.sleep(self._chance.uniform(0, self._proxy.odds[self._direction].delay_s))
            case "corrupt":
                frame = frame.corrupted(self._chance)
            case "truncate":
                frame = frame.truncated(self._chance)
            case "fragment":
                for part in frame.fragments(self._chance):
                    await self._send(part, dribbled=True)
                return
        await self._send(frame)
        if fault == "duplicate":
            await self._send(frame)
        elif fault == "replay" and self._earlier:
            await self._send(self._chance.choice(list(self._earlier)))

    async def _release_later(self) -> None:
        await asyncio.sleep(HOLD_S)
        await self.release()

    async def release(self) -> None:
        held, self._held = self._held, None
        if held is not None:
            await self._send(held)

    def stop(self) -> None:
        if self._release is not None:
            self._release.cancel()

    async def _send(self, frame: Frame, *, dribbled: bool = False) -> None:
        self._proxy.passed[self._direction] += 1
        sink = self._link.writers[self._direction]
        data = frame.to_bytes()
        with contextlib.suppress(OSError):
            for piece in [data[i : i + 3] for i in range(0, len(data), 3)] if dribbled else [data]:
                await self._proxy._write(self._direction, sink, piece)
                if dribbled:
                    await asyncio.sleep(0)

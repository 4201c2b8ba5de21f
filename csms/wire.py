"""A station's websocket, made for many stations that each say little and for one that says far too much.

`websockets` does the handshake, control frames, fragments and every fault of the protocol. What nearly all traffic is
(a text frame, whole and alone) is taken from the bytes here and handed over at once, without a queue or a task between;
answers are written the same way. Whoever sends faster than allowed, or does not read what it is sent, is not read from
meanwhile: it feels a slow network, nobody else feels anything, and nothing grows.

`docs/decisions/0010-frames-without-a-queue.md` says why.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextvars import Context, copy_context
from typing import Any

from websockets.asyncio.server import ServerConnection
from websockets.exceptions import ConnectionClosed
from websockets.frames import Frame, Opcode
from websockets.http11 import Request, Response
from websockets.protocol import State
from websockets.typing import BytesLike

try:
    from websockets.speedups import apply_mask
except ImportError:  # no compiled part on this machine
    from websockets.utils import apply_mask

log = logging.getLogger(__name__)

FRAMES_A_TURN = 4
"""So many frames of one station are handled before everyone else has a turn."""

FRAGMENTS = 1024
EARLY_FRAMES = 16
WHOLE_FRAME_S = 30.0
"""A frame that takes longer to come in whole is one byte at a time on purpose."""

READS_NOTHING_S = 30.0
_TEXT_WHOLE = 0x80 | Opcode.TEXT
_MASKED, _LENGTH = 0x80, 0x7F
_STUCK, _TOO_FAST, _TURN, _EARLY = 1, 2, 4, 8
_OPEN = State.OPEN


class _Nothing:
    """In the place of the queue of frames that `websockets` would keep for each socket."""

    def close(self) -> None:
        return


_NOTHING = _Nothing()


class Wire(ServerConnection):
    """One station's socket. `listen`, `write`, `hold_back`, `close`, `wait_closed`."""

    __slots__ = (
        "_context",
        "_early",
        "_held",
        "_incomplete_since",
        "_most",
        "_note_control",
        "_parts",
        "_rest",
        "_stuck_since",
        "_take",
    )

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        self._take: Callable[[bytes], None] | None = None
        self._note_control: Callable[[], None] | None = None
        self._context: Context | None = None
        self._early: list[bytes] = []
        self._rest: bytes | bytearray = b""
        self._parts: list[bytes] | None = None
        self._held = 0
        self._incomplete_since: float | None = None
        self._stuck_since: float | None = None
        self._most = self.protocol.max_message_size or 2**63

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.recv_messages = _NOTHING  # type: ignore[assignment]
        self.drain_waiters = []  # type: ignore[assignment]

    def forget_handshake(self) -> None:
        """Thousands of idle stations need not keep their headers."""
        for message in (self.request, self.response):
            if message is not None:
                message.headers.clear()

    # ------------------------------------------------------------------ for the conversation

    def listen(self, take: Callable[[bytes], None], control: Callable[[], None]) -> None:
        """From now on each message goes to `take`, and `control` is told of each ping. What came before goes first."""
        self._take, self._note_control = take, control
        self._context = copy_context()  # what is logged of a message says whose it was
        early, self._early = self._early, []
        for message in early:
            self._hand_over(message)
        self._let_go(_EARLY)

    def write(self, frame: bytes) -> None:
        """Send one text message, now. Raises `ConnectionClosed`."""
        if self.protocol.state is not _OPEN:
            raise ConnectionClosed(None, None)
        size = len(frame)
        if size < 126:
            header = bytes((_TEXT_WHOLE, size))
        elif size < 65536:
            header = bytes((_TEXT_WHOLE, 126, size >> 8, size & 0xFF))
        else:
            header = bytes((_TEXT_WHOLE, 127)) + size.to_bytes(8, "big")
        self.transport.write(header + frame)

    def hold_back(self, seconds: float) -> None:
        """Read nothing more for so long."""
        self._hold(_TOO_FAST)
        self.loop.call_later(seconds, self._let_go, _TOO_FAST)

    def beat(self) -> None:
        """A ping, so that a network that is gone is noticed, and one that forgets quiet connections does not."""
        if self.protocol.state is _OPEN and not self.paused:
            self.protocol.send_ping(b"")
            self.send_data()

    def fault(self, now: float) -> str:
        """Why this socket must go, where time told: "" when nothing is wrong."""
        if self._stuck_since is not None and now - self._stuck_since > READS_NOTHING_S:
            return "reads nothing"
        if self._incomplete_since is not None and now - self._incomplete_since > WHOLE_FRAME_S:
            return "a frame takes too long"
        return ""

    def refuse(self, code: int, reason: str) -> None:
        """Close, and wait for nobody: the peer has the close timeout to go, then the socket is cut."""
        if self.protocol.state is _OPEN:
            self.protocol.fail(code, reason)
            self.send_data()
        self._cut_later()

    async def close(self, code: int = 1000, reason: str = "") -> None:
        """Say goodbye and read until the peer did too; one that does not in time, or reads nothing, is cut."""
        self._rest = b""
        if self._held and not self.transport.is_closing():
            self.transport.resume_reading()
        self._held = 0
        try:
            async with asyncio.timeout(self.close_timeout):
                await super().close(code, reason)
        except TimeoutError:
            self.transport.abort()

    def _cut_later(self) -> None:
        self.loop.call_later(self.close_timeout or 0, self.transport.abort)

    # ------------------------------------------------------------------ reading

    def data_received(self, data: bytes) -> None:
        if self.protocol.state is not _OPEN:
            super().data_received(data)
            return
        if self._rest:
            rest = self._rest if isinstance(self._rest, bytearray) else bytearray(self._rest)
            rest += data
            self._rest = rest
            if self._held:
                return
            self._split(rest)
        elif self._held:
            self._rest = data
        else:
            self._split(data)

    def _split(self, data: bytes | bytearray) -> None:
        """Hand over the whole frames in these bytes, a few at a time, and keep the rest."""
        at, size, turns = 0, len(data), FRAMES_A_TURN
        while size - at >= 2:
            first, second = data[at], data[at + 1]
            length, head = second & _LENGTH, 2
            if length >= 126:
                head = 4 if length == 126 else 10
                if size - at < head:
                    break
                length = int.from_bytes(data[at + 2 : at + head], "big")
            if second & _MASKED:
                head += 4
            end = at + head + length
            if length > self._most:
                end = size  # refused for its header (1009)
            elif end > size:
                break
            if self._held or not turns:
                break
            turns -= 1
            if first == _TEXT_WHOLE and second & _MASKED and length <= self._most and self._parts is None:
                message = apply_mask(data[at + head : end], data[at + head - 4 : at + head])
                self._hand_over(message)
            else:
                super().data_received(bytes(data[at:end]))
            at = end
            if self.protocol.state is not _OPEN:
                self._rest = b""
                if at < size:
                    super().data_received(bytes(data[at:]))
                self._cut_later()
                return
        if at >= size:
            self._rest = b""
            if self._parts is None:
                self._incomplete_since = None
            return
        if at or not isinstance(data, bytearray):
            self._rest = data[at:]
        if self._incomplete_since is None or (at and self._parts is None):
            self._incomplete_since = self.loop.time()
        if not turns and not self._held:
            self._hold(_TURN)
            self.loop.call_soon(self._let_go, _TURN)

    def _hand_over(self, message: bytes) -> None:
        if self.protocol.state is not _OPEN:
            return
        if self._take is None or self._context is None:
            self._early.append(message)
            if len(self._early) >= EARLY_FRAMES:
                self._hold(_EARLY)
            return
        try:
            self._context.run(self._take, message)
        except ConnectionClosed:
            return
        except Exception:
            log.exception("a message could not be handled")

    def process_event(self, event: Any) -> None:
        """What came through `websockets`: the handshake, control frames, fragments and binary frames."""
        if isinstance(event, Request | Response):
            super().process_event(event)
            return
        frame: Frame = event
        if frame.opcode is Opcode.PONG:
            self.acknowledge_pings(bytes(frame.data))
        elif frame.opcode is Opcode.PING:
            if self._note_control is not None:
                self._note_control()
        elif frame.opcode is not Opcode.CLOSE:
            self._assemble(frame.data, frame.fin)

    def _assemble(self, data: BytesLike, fin: bool) -> None:
        if self._parts is None:
            if fin:
                self._hand_over(bytes(data))
                return
            self._parts = []
            self._incomplete_since = self.loop.time()
        self._parts.append(bytes(data))
        if len(self._parts) > FRAGMENTS:
            self.refuse(1009, "too many fragments")
        elif fin:
            message, self._parts = b"".join(self._parts), None
            self._incomplete_since = None
            self._hand_over(message)

    # ------------------------------------------------------------------ holding back

    def _hold(self, why: int) -> None:
        if not self._held and not self.transport.is_closing():
            self.transport.pause_reading()
        self._held |= why

    def _let_go(self, why: int) -> None:
        if not self._held & why:
            return
        self._held &= ~why
        if self._held or self.transport.is_closing():
            return
        if self._rest:
            self._split(self._rest)
        if not self._held and not self.transport.is_closing():
            self.transport.resume_reading()

    def pause_writing(self) -> None:
        """It does not read what we send: then we do not read what it asks."""
        super().pause_writing()
        self._stuck_since = self.loop.time()
        self._hold(_STUCK)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._stuck_since = None
        self._let_go(_STUCK)

    def connection_lost(self, exc: Exception | None) -> None:
        self._rest, self._parts, self._early = b"", None, []
        super().connection_lost(exc)
        self._take = self._note_control = None

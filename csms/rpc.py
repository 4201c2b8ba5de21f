"""One OCPP-J connection: frames, message ids, one outgoing call at a time. No business.

Each frame is parsed once, where it comes in (`wire.py`). Answers to our own calls are matched there and then; calls of
the station are handled strictly in order, and a slow one (it waits for the database) holds up only the calls behind it.
A frame that breaks the rules is mended by name (`repairs.py`), or answered with the standard's CALLERROR where its
message id can be known, or dropped and counted. Nothing a station sends ends the connection, except a frame above
the size cap or a flood that does not stop.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import logging
import re
import secrets
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

import orjson
from websockets.exceptions import ConnectionClosed

from csms import counting
from csms.bus import CallNotValid, CallRefused, NoAnswer, StationUnreachable
from csms.repairs import NotMendable, mend, without_stray_commas
from csms.schemas import V201, Dialect

log = logging.getLogger(__name__)

CALL, RESULT, ERROR = 2, 3, 4
WAITING_CALLS = 256  # of one station, behind a slow one; a station has one call open at a time (1.6-J §4.1.1)
WAITING_OWN_CALLS = 64
ANSWERS_REMEMBERED = 8
BURST_S = 5
FLOOD_S = 60.0
MESSAGE_ID_LENGTH = 36
DEEPEST = 64  # levels of lists and objects; the deepest schema has ten, and what walks a payload must come to an end

EMERGENCY, URGENT, LIMIT, ASKED, UNASKED = -1, 0, 1, 2, 3
"""Who goes first when several calls of ours wait: a lowered limit before a person's call before our own set-up.

An emergency (fire, overload) does not wait long for the one under way either: that one gives way.
"""

GIVES_WAY_S = 2.0

# An old answer would be wrong here, and asking twice does no harm: the time of day belongs in them.
_ANSWERED_AFRESH = frozenset({"Heartbeat", "BootNotification"})
# A station that waits for its transaction to be kept must not think that we are gone.
_NEEDS_NO_TURN = frozenset({"Heartbeat"})
_CALL_ID = re.compile(rb'^[\s\xef\xbb\xbf]*\[\s*2\s*,\s*"([^"\\]{1,36})"')
_BOM = b"\xef\xbb\xbf"


class Refusal(Exception):
    """A call of the station we answer with a CALLERROR; `fault` is a word of `schemas.Dialect.error`."""

    def __init__(self, fault: str, description: str = "") -> None:
        super().__init__(description)
        self.fault, self.description = fault, description


class GaveWay(NoAnswer):
    """The call was under way when an emergency came; it may have had its effect."""


class Socket(Protocol):
    """What we need of a websocket."""

    def listen(self, take: Callable[[bytes], None], control: Callable[[], None]) -> None: ...
    def write(self, frame: bytes) -> None: ...
    def hold_back(self, seconds: float) -> None: ...
    def refuse(self, code: int, reason: str) -> None: ...
    async def close(self, code: int = 1000, reason: str = "") -> None: ...
    async def wait_closed(self) -> None: ...


Handler = Callable[[str, dict[str, Any]], "dict[str, Any] | Awaitable[dict[str, Any]]"]
"""Answers a call of the station: at once, or as something to wait for (until it is durable). May raise `Refusal`."""

Recorder = Callable[[str, str, str, str, Any, bytes, str], None]
"""Told of every frame: direction, kind, message id, action, payload, the frame, mends."""

Counter = Callable[[str], None]


def _no_record(direction: str, kind: str, message_id: str, action: str, payload: Any, raw: bytes, mends: str) -> None:
    """Frames are kept by nobody."""


def _nothing(name: str) -> bool:
    """No repair is forbidden."""
    return False


def _no_count(name: str) -> None:
    """Mends are counted by nobody."""


class Connection:
    """The conversation over one socket, from the first frame to the last."""

    def __init__(
        self,
        socket: Socket,
        dialect: Dialect,
        handle: Handler,
        *,
        record: Recorder = _no_record,
        count: Counter = _no_count,
        call_timeout_s: float = 30.0,
        messages_per_s: float = 100.0,
        forbids: Callable[[str], bool] = _nothing,
    ) -> None:
        self.dialect = dialect
        self._forbids = forbids
        self.closed = False
        self.last_heard = 0.0
        self.socket = socket
        self._handle = handle
        self._keep = record
        self._count = count
        self._call_timeout_s = call_timeout_s
        self._loop = asyncio.get_running_loop()
        # Calls of the station.
        self._waiting: list[tuple[Any, str, Any, bytes, float]] = []  # a deque of nothing is bigger
        self._slow: asyncio.Task[None] | None = None
        self._answered: dict[Any, tuple[int, bytes]] = {}
        self._rate = messages_per_s
        self._allowance = messages_per_s * BURST_S
        self._refilled = self._loop.time()
        self._flooding_since: float | None = None
        # Calls of ours.
        self._prefix = secrets.token_hex(4)
        self._numbers = itertools.count(1)
        self._open: dict[str, tuple[str, asyncio.Future[dict[str, Any]]]] = {}
        self._slot_taken = False
        self._rank = UNASKED  # of the call under way
        self._queue: list[tuple[int, int, asyncio.Future[None]]] = []

    # ------------------------------------------------------------------ reading

    async def run(self) -> None:
        """Read until the socket closes. Then every open call of ours fails at once."""
        try:
            self.socket.listen(self._heard, self._spend)
            await self.socket.wait_closed()
        finally:
            self._end()

    async def close(self, code: int = 1000, reason: str = "") -> None:
        await self.socket.close(code, reason)

    async def finish(self, patience_s: float) -> None:
        """Read nothing more, and wait until what came in is answered; for so long."""
        self.socket.hold_back(patience_s + 1)
        if self._slow is not None:
            await asyncio.wait({self._slow}, timeout=patience_s)

    def _heard(self, frame: bytes) -> None:
        self.last_heard = self._loop.time()
        self._spend()
        answer = self._accept(frame)
        if answer is not None:
            self.socket.write(answer)

    def _spend(self) -> None:
        """Every message and every ping counts against the cap."""
        self._allowance -= 1
        if self._allowance < 0:
            self._slow_down(self._loop.time())

    def _slow_down(self, now: float) -> None:
        """Read no faster than the cap; the station feels it as a slow network. One that does not stop is cut."""
        gained = (now - self._refilled) * self._rate
        self._refilled = now
        full = self._rate * BURST_S
        self._allowance = min(self._allowance + gained, full)
        if self._allowance >= full / 2:
            self._flooding_since = None
        if self._allowance >= 0:
            return
        if self._flooding_since is None:
            self._flooding_since = now
            self._count("flood")
        elif now - self._flooding_since > FLOOD_S:
            self.socket.refuse(1008, "too many messages")
            return
        self.socket.hold_back(-self._allowance / self._rate)

    def _accept(self, frame: bytes) -> bytes | None:
        """Take one frame: the answer if there is one now."""
        try:
            message = orjson.loads(frame)
        except orjson.JSONDecodeError:
            message = self._read_again(frame)
        if type(message) is not list or not message:
            return self._malformed(frame)
        if frame.count(b"{") + frame.count(b"[") > DEEPEST and _is_deeper(message, DEEPEST):
            self._count("too_deep")
            message[2:] = [None] if message[0] in (RESULT, ERROR) else []
        if b"\\u0000" in frame:  # no database keeps it, and no word needs it
            self._count("nul_character")
            message = _without_nul(message)
        kind = message[0]
        if kind == CALL:
            return self._accept_call(message, frame)
        if kind in (RESULT, ERROR):
            self._accept_answer(message, frame)
            return None
        if isinstance(kind, str) and kind.strip() in ("2", "3", "4"):
            self._count("type_as_text")
            message[0] = int(kind)
            if message[0] == CALL:
                return self._accept_call(message, frame)
            self._accept_answer(message, frame)
            return None
        return self._unknown_type(message, frame)

    def _read_again(self, frame: bytes) -> Any:
        """A second look at what is no JSON: byte order mark, stray commas, another character set (Q9, Q10)."""
        for name, mended in (
            ("byte_order_mark", frame.removeprefix(_BOM)),
            ("stray_comma", without_stray_commas(frame.removeprefix(_BOM))),
            ("not_utf8", frame.decode("latin-1").encode()),
        ):
            if mended == frame or self._forbids(name):
                continue
            try:
                message = orjson.loads(mended)
            except orjson.JSONDecodeError:
                continue
            self._count(name)
            return message
        return None

    def _malformed(self, frame: bytes) -> bytes | None:
        self._count("malformed_frame" if frame.strip() else "empty_frame")
        if frame.strip():
            self._record("in", "call", "", "", None, frame, "malformed")
        found = _CALL_ID.match(frame)
        message_id = found.group(1).decode("utf-8", "replace") if found else self.dialect.unreadable_id
        if message_id is None or not frame.strip():
            return None
        return self._error(message_id, "", "frame", "this is no OCPP-J frame")

    def _unknown_type(self, message: list[Any], frame: bytes) -> bytes | None:
        """A message type that this version does not have. 1.6 answers only what is otherwise a call."""
        self._count("unknown_message_type")
        self._record("in", "call", "", "", None, frame, "unknown message type")
        message_id = message[1] if len(message) > 1 and _is_id(message[1]) else self.dialect.unreadable_id
        looks_like_a_call = len(message) >= 3 and isinstance(message[2], str)
        if message_id is None or not (looks_like_a_call or self.dialect.name == V201):
            return None
        return self._error(message_id, "", "message_type", "message types are 2, 3 and 4")

    def _record(
        self, direction: str, kind: str, message_id: str, action: str, payload: Any, raw: bytes, mends: str
    ) -> None:
        known = action if action in self.dialect.requests else "other"
        counting.MESSAGES.add(self.dialect.name, direction, known, kind)
        self._keep(direction, kind, message_id, action, payload, raw, mends)

    def _answered_in(self, action: str, heard_at: float) -> None:
        known = action if action in self.dialect.requests else "other"
        counting.ANSWER_S.observe(self._loop.time() - heard_at, self.dialect.name, known)

    # ------------------------------------------------------------------ calls of the station

    def _accept_call(self, message: list[Any], frame: bytes) -> bytes | None:
        mends = ""
        if len(message) != 4:
            mends = self._fill_up(message)
        if mends and self._forbids(mends):
            return self._malformed_call(message, frame)
        if len(message) < 4 or not isinstance(message[2], str) or not _is_id(message[1]):
            return self._malformed_call(message, frame)
        _, message_id, action, payload = message[:4]
        if type(message_id) is not str:
            self._count("numeric_message_id")
        elif len(message_id) > MESSAGE_ID_LENGTH:
            self._count("long_message_id")
        if mends:
            self._count(mends)
        if self._slow is not None and action not in _NEEDS_NO_TURN:
            if len(self._waiting) >= WAITING_CALLS:
                self._count("busy")
                return self._error(message_id, action, "internal", "busy; try again later")
            self._waiting.append((message_id, action, payload, frame, self.last_heard))
            return None
        answer = self._perform(message_id, action, payload, frame)
        if isinstance(answer, bytes):
            self._answered_in(action, self.last_heard)
            return answer
        self._slow = self._loop.create_task(self._finish(message_id, action, frame, answer, self.last_heard))
        return None

    @staticmethod
    def _fill_up(message: list[Any]) -> str:
        if len(message) == 3:
            message.append({})
            return "missing_payload"
        return "extra_element" if len(message) > 4 else ""

    def _malformed_call(self, message: list[Any], frame: bytes) -> bytes | None:
        self._count("malformed_frame")
        self._record("in", "call", "", "", None, frame, "malformed")
        message_id = message[1] if len(message) > 1 and _is_id(message[1]) else self.dialect.unreadable_id
        if message_id is None:
            return None
        return self._error(message_id, "", "frame", "a call is [2, message id, action, payload]")

    def _perform(self, message_id: Any, action: str, payload: Any, frame: bytes) -> bytes | Awaitable[dict[str, Any]]:
        """Handle one call: its answer as a frame, or something that will become its answer."""
        remembered = self._answered.get(message_id)
        if remembered is not None and remembered[0] == hash(frame):
            self._count("repeated_message")
            self._record("in", "call", str(message_id), action, payload, frame, "repeated")
            return remembered[1]
        mends = ""
        try:
            validator = self.dialect.requests.get(action)
            if validator is None:
                action, validator = self._known_action(action)
            if not validator.is_valid(payload):
                payload, names = mend(action, payload, validator)
                for name in names:
                    self._count(name)
                    if self._forbids(name):
                        raise NotMendable("format", f"{name}: not mended for this model")
                mends = ",".join(names)
            self._record("in", "call", str(message_id), action, payload, frame, mends)
            answer = self._handle(action, payload)
        except NotMendable as error:
            self._count("refused_message")
            self._record("in", "call", str(message_id), action, payload, frame, "refused")
            return self._error(message_id, action, error.fault, error.description)
        except Refusal as error:
            self._record("in", "call", str(message_id), action, payload, frame, "refused")
            return self._error(message_id, action, error.fault, error.description)
        except Exception:
            log.exception("%s could not be handled", action)
            return self._error(message_id, action, "internal", "this could not be handled")
        if isinstance(answer, dict):
            return self._result(message_id, action, answer, frame)
        return answer

    def _known_action(self, action: str) -> tuple[str, Any]:
        """An action in other case is meant; one nobody knows is not implemented."""
        name = self.dialect.folded.get(action.strip().lower())
        if name is None or self._forbids("action_spelling"):
            raise Refusal("not_implemented", f"{action[:50]} is not known here")
        self._count("action_spelling")
        return name, self.dialect.requests[name]

    async def _finish(
        self, message_id: Any, action: str, frame: bytes, answer: Awaitable[dict[str, Any]], heard_at: float
    ) -> None:
        """Wait for a slow answer and send it; then take, in order, what came in behind it."""
        ready: bytes | Awaitable[dict[str, Any]] = answer
        try:
            while True:
                if not isinstance(ready, bytes):
                    try:
                        ready = self._result(message_id, action, await ready, frame)
                    except Refusal as error:
                        ready = self._error(message_id, action, error.fault, error.description)
                    except Exception:
                        log.exception("%s could not be handled", action)
                        ready = self._error(message_id, action, "internal", "this could not be handled")
                self.socket.write(ready)
                self._answered_in(action, heard_at)
                if not self._waiting:
                    return
                message_id, action, payload, frame, heard_at = self._waiting.pop(0)
                ready = self._perform(message_id, action, payload, frame)
        except ConnectionClosed:
            self._waiting.clear()
        finally:
            self._slow = None

    def _result(self, message_id: Any, action: str, answer: dict[str, Any], frame: bytes) -> bytes:
        validator = self.dialect.results.get(action)
        if validator is not None and not validator.is_valid(answer):
            log.error("our answer to %s does not fit its schema", action)
            return self._error(message_id, action, "internal", "the answer could not be made")
        out = orjson.dumps([RESULT, message_id, answer])
        if action not in _ANSWERED_AFRESH:
            if len(self._answered) >= ANSWERS_REMEMBERED and message_id not in self._answered:
                del self._answered[next(iter(self._answered))]
            self._answered[message_id] = (hash(frame), out)
        self._record("out", "result", str(message_id), action, answer, out, "")
        return out

    def _error(self, message_id: Any, action: str, fault: str, description: str) -> bytes:
        out = orjson.dumps([ERROR, message_id, self.dialect.error(fault), description[:255], {}])
        self._record("out", "error", str(message_id), action, {"description": description[:255]}, out, "")
        return out

    # ------------------------------------------------------------------ calls of ours

    async def call(
        self,
        action: str,
        payload: dict[str, Any],
        *,
        timeout_s: float | None = None,
        rank: int = ASKED,
        sent: Callable[[], None] | None = None,
    ) -> dict[str, Any]:
        """Ask the station something and wait for its answer. `sent` is called once it has left us.

        Raises `CallNotValid` (nothing was sent), `StationUnreachable`, `CallRefused` or `NoAnswer`. The time covers
        waiting for our turn as well.
        """
        fault = self.dialect.refusal(action, payload)
        if fault is not None:
            counting.CALLS.add(action if action in self.dialect.requests else "other", "invalid")
            raise CallNotValid(fault)
        began, outcome = self._loop.time(), "unreachable"
        patience = timeout_s if timeout_s is not None else self._call_timeout_s
        message_id = f"{self._prefix}-{next(self._numbers)}"
        try:
            async with asyncio.timeout(patience):
                await self._take_turn(rank)
                self._rank = rank
                try:
                    result = await self._ask(message_id, action, payload, sent)
                finally:
                    self._open.pop(message_id, None)
                    self._give_turn()
        except TimeoutError:
            outcome = "timeout"
            self._count("unanswered_call")
            raise NoAnswer(f"no answer to {action} within {patience:.0f} s") from None
        except CallRefused:
            outcome = "error"
            raise
        else:
            outcome = "result"
            return result
        finally:
            counting.CALLS.add(action, outcome)
            if outcome in ("result", "error"):
                counting.CALL_S.observe(self._loop.time() - began, action)

    async def _ask(
        self, message_id: str, action: str, payload: dict[str, Any], sent: Callable[[], None] | None
    ) -> dict[str, Any]:
        answer: asyncio.Future[dict[str, Any]] = self._loop.create_future()
        self._open[message_id] = (action, answer)
        frame = orjson.dumps([CALL, message_id, action, payload])
        self._record("out", "call", message_id, action, payload, frame, "")
        try:
            self.socket.write(frame)
        except ConnectionClosed:
            raise StationUnreachable("the connection closed") from None
        if sent is not None:
            sent()
        return await answer

    def _gives_way(self, turn: asyncio.Future[None]) -> None:
        """The call under way had its moment; an emergency still waits for it."""
        if turn.done() or self._rank <= EMERGENCY:
            return
        for _, answer in self._open.values():
            if not answer.done():
                self._count("gave_way")
                answer.set_exception(GaveWay("it gave way to an emergency"))

    async def _take_turn(self, rank: int) -> None:
        if self.closed:
            raise StationUnreachable("the connection closed")
        if not self._slot_taken:
            self._slot_taken = True
            return
        if len(self._queue) >= WAITING_OWN_CALLS and rank > EMERGENCY:
            raise NoAnswer("too many calls wait for this station")
        turn: asyncio.Future[None] = self._loop.create_future()
        heapq.heappush(self._queue, (rank, next(self._numbers), turn))
        if rank == EMERGENCY:
            self._loop.call_later(GIVES_WAY_S, self._gives_way, turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled() and turn.exception() is None:
                self._give_turn()  # it became our turn in the very moment we gave up
            raise

    def _give_turn(self) -> None:
        while self._queue:
            turn = heapq.heappop(self._queue)[2]
            if not turn.done():
                turn.set_result(None)
                return
        self._slot_taken = False

    def _accept_answer(self, message: list[Any], frame: bytes) -> None:
        """Match an answer with our open call. What nobody waits for is dropped and counted."""
        message_id = str(message[1]) if len(message) > 1 and _is_id(message[1]) else ""
        opened = self._open.pop(message_id, None)
        if opened is None or opened[1].done():
            self._count("unasked_answer")
            return
        action, answer = opened
        if message[0] == RESULT:
            payload = self._read_result(action, message[2] if len(message) > 2 else {})
            self._record("in", "result", message_id, action, payload, frame, "")
            if payload is None:
                answer.set_exception(CallRefused(self.dialect.error("format"), "the answer is no object"))
            else:
                answer.set_result(payload)
            return
        code, description, details = [*message[2:5], "", "", {}][:3]
        self._record("in", "error", message_id, action, {"code": code, "description": description}, frame, "")
        answer.set_exception(CallRefused(str(code), str(description or ""), details))

    def _read_result(self, action: str, payload: Any) -> dict[str, Any] | None:
        """The answer, mended where it can be; one that cannot be is taken as it is."""
        validator = self.dialect.results.get(action)
        if validator is None or validator.is_valid(payload):
            return payload if isinstance(payload, dict) else None
        try:
            payload, names = mend(action, payload, validator)
            for name in names:
                self._count(name)
        except NotMendable:
            self._count("odd_answer")
        return payload if isinstance(payload, dict) else None

    def _end(self) -> None:
        self.closed = True
        waiting: list[asyncio.Future[Any]] = [answer for _, answer in self._open.values()]
        waiting += [turn for _, _, turn in self._queue]
        for waited in waiting:
            if not waited.done():
                waited.set_exception(StationUnreachable("the connection closed"))
                waited.exception()  # seen: who waited for it may be gone already
        self._open.clear()
        self._queue.clear()


def _without_nul(thing: Any) -> Any:
    if isinstance(thing, str):
        return thing.replace("\x00", "")
    if isinstance(thing, list):
        return [_without_nul(item) for item in thing]
    if isinstance(thing, dict):
        return {_without_nul(name): _without_nul(value) for name, value in thing.items()}
    return thing


def _is_deeper(thing: Any, most: int) -> bool:
    level = [thing]
    for _ in range(most):
        level = [
            inner
            for outer in level
            for inner in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(inner, dict | list)
        ]
        if not level:
            return False
    return True


def _is_id(thing: Any) -> bool:
    """A message id: text, or a number where a station takes one (Q9)."""
    return isinstance(thing, str | int | float) and not isinstance(thing, bool) and thing != ""

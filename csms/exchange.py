"""The gateway's side of Redis (`bus.py` is everybody else's): it listens, answers, holds stations and tells.

A lost Redis ends nothing here: every loop tries again with a growing pause, the newest measurement of each EVSE and
the announcements wait (bounded), and what may have been missed is asked for again when Redis is back.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Mapping
from datetime import datetime
from typing import Any

import orjson
import redis.asyncio as aredis
from redis import RedisError
from redis.exceptions import ConnectionError as RedisConnectionError

from csms import counting
from csms.announcing import Announcement
from csms.bus import CHANGED_CHANNEL, HOLD_S, WANT_CHANNEL, Want, hands_key, want_key
from csms.sealing import opened
from meters.live import FRESH_CHANNEL, KEEP_S
from meters.measurement import Measurement

log = logging.getLogger(__name__)

TAKEN_CHANNEL = "taken"  # [identity, epoch]: a newer socket was authenticated somewhere
REPLY_KEEP_S = 60
CONNECTIONS = 24
COMMANDS_AT_ONCE = 500
SILENT_S = 10.0
ANNOUNCEMENTS_WAITING = 10_000
LONGEST_PAUSE_S = 2.0
TELL_EVERY_S = 0.03  # one round trip for all that happened meanwhile; the first of a quiet time goes at once
AWAY = (RedisError, OSError, asyncio.TimeoutError)

# One command for many measurements: as `meters.live.store` does for one.
_STORE = f"""
for i = 1, #KEYS do
  redis.call('set', KEYS[i], ARGV[2 * i - 1], 'EX', {KEEP_S})
  if ARGV[2 * i] ~= '' then redis.call('publish', '{FRESH_CHANNEL}', ARGV[2 * i]) end
end
"""
STORED_AT_ONCE = 200

# Epochs are moments, in microseconds: a Redis that comes back empty still gives out higher ones than before.
# Take a station. ARGV: body up to the epoch, body after it, life, and for a socket that came while Redis was away the
# moment it came (else 0). Answers the epoch we have now, and the newest: ours is lower where somebody came later.
_CLAIM = f"""
local newest = tonumber(redis.call('get', KEYS[1]) or '0')
local came = tonumber(ARGV[4])
local epoch = came
if came == 0 then
  local time = redis.call('time')
  epoch = math.max(newest + 1, time[1] * 1000000 + time[2])
end
if epoch < newest then return {{0, newest}} end
local written = string.format('%.0f', epoch)
redis.call('set', KEYS[1], written)
redis.call('set', KEYS[2], ARGV[1] .. written .. ARGV[2], 'EX', ARGV[3])
redis.call('publish', '{TAKEN_CHANNEL}', cjson.encode({{ARGV[5], written}}))
return {{epoch, epoch}}
"""

# Hold a station only while no newer epoch was given out. Answers the newest epoch.
_HOLD = """
local newest = tonumber(redis.call('get', KEYS[1]) or '0')
local mine = tonumber(ARGV[1])
if newest > mine then return newest end
if newest < mine then redis.call('set', KEYS[1], ARGV[1]) end
redis.call('set', KEYS[2], ARGV[2], 'EX', ARGV[3])
return mine
"""
_RELEASE = """
local body = redis.call('get', KEYS[1])
if body and cjson.decode(body)['epoch'] == tonumber(ARGV[1]) then return redis.call('del', KEYS[1]) end
return 0
"""


class Exchange:
    """Redis for one gateway process."""

    def __init__(
        self,
        gateway: str,
        url: str,
        *,
        on_want: Callable[[str, int], None],
        on_changed: Callable[[str, Any], None],
        on_taken: Callable[[str, int], None],
        on_call: Callable[[dict[str, Any]], None],
        on_back: Callable[[], None],
    ) -> None:
        self.gateway = gateway
        self._on_want, self._on_changed, self._on_taken = on_want, on_changed, on_taken
        self._on_call, self._on_back = on_call, on_back
        # A storm asks for thousands at once: they wait for one of a few connections, instead of being refused one.
        pool = aredis.BlockingConnectionPool.from_url(
            url,
            max_connections=CONNECTIONS,
            timeout=5,
            decode_responses=True,
            socket_timeout=5,
            socket_connect_timeout=2,
        )
        self._client = aredis.Redis(connection_pool=pool)
        self._listener = aredis.Redis.from_url(url, decode_responses=True, socket_connect_timeout=2)
        self._live: dict[str, tuple[Measurement, int | None]] = {}
        self._announcements: deque[Announcement] = deque(maxlen=ANNOUNCEMENTS_WAITING)
        self._last_moment: list[Callable[[], None]] = []
        self._commands: list[tuple[tuple[str | int, ...], asyncio.Future[Any]]] = []
        self._sending: asyncio.Task[None] | None = None
        self._news = asyncio.Event()
        self._told_at = 0.0
        self._tasks: list[asyncio.Task[None]] = []
        self._stopping = False
        self.listening = asyncio.Event()

    async def start(self) -> None:
        """Begin; waits a moment for Redis, and goes on without it."""
        for loop in (self._listen, self._read_calls, self._tell):
            self._tasks.append(asyncio.create_task(self._for_ever(loop)))
        try:
            async with asyncio.timeout(2):
                await self.listening.wait()
        except TimeoutError:
            log.warning("Redis is away; going on without it")

    async def stop(self) -> None:
        self._stopping = True
        with contextlib.suppress(*AWAY):
            async with asyncio.timeout(2):
                await self._flush()
                await self._client.delete(f"call:{self.gateway}")
        waiting = set(self._tasks)
        for _ in range(5):  # a cancellation can be lost inside the client, in the moment of an answer
            for task in waiting:
                task.cancel()
            if not waiting:
                break
            _, waiting = await asyncio.wait(waiting, timeout=1)
        for client in (self._client, self._listener):
            with contextlib.suppress(*AWAY):
                await client.aclose(close_connection_pool=True)

    # ------------------------------------------------------------------ telling

    def put_live(self, source: str, measurement: Measurement, site_id: int | None) -> None:
        """The newest measurement of an EVSE; an older one that has not gone out yet is not needed any more."""
        self._live[source] = (measurement, site_id)
        self._news.set()

    def before_telling(self, work: Callable[[], None]) -> None:
        """Do this just before the next announcements go out: what is shown then is made then, once."""
        self._last_moment.append(work)
        self._news.set()

    def publish(self, announcements: Iterable[Announcement]) -> None:
        self._announcements.extend(announcements)
        self._news.set()

    async def _tell(self) -> None:
        while not self._stopping:
            await self._news.wait()
            await asyncio.sleep(self._told_at + TELL_EVERY_S - asyncio.get_running_loop().time())
            self._news.clear()
            self._told_at = asyncio.get_running_loop().time()
            try:
                await self._flush()
            except AWAY:
                self._news.set()
                raise

    async def _flush(self) -> None:
        works, self._last_moment = self._last_moment, []
        for work in works:
            try:
                work()
            except Exception:
                log.exception("a measurement could not be shown")
        live, self._live = self._live, {}
        sources = list(live)
        told = [self._announcements.popleft() for _ in range(len(self._announcements))]
        if not live and not told:
            return
        pipe = self._client.pipeline(transaction=False)
        for first in range(0, len(sources), STORED_AT_ONCE):
            some = sources[first : first + STORED_AT_ONCE]
            bodies: list[str | bytes] = []
            for source in some:
                measurement, site_id = live[source]
                bodies.append(orjson.dumps(measurement.to_dict()))
                bodies.append(b"" if site_id is None else orjson.dumps({"site": site_id, "source": source}))
            pipe.eval(_STORE, len(some), *[f"live:{source}" for source in some], *bodies)
        # What is said twice within a moment is said once: after an outage every EVSE is told of several times.
        for channel, body in dict.fromkeys((channel, json.dumps(body)) for channel, body in told):
            pipe.publish(channel, body)
        try:
            await pipe.execute()
        except AWAY:
            self._live = {**live, **self._live}
            self._announcements.extendleft(reversed(told))
            raise

    # ------------------------------------------------------------------ small commands, many at once

    def _soon(self, *words: str | int) -> asyncio.Future[Any]:
        """One command; all that wait share a round trip, in the order they came.

        In a storm thousands are asked for within a second, and of two sockets of one station the later must win.
        """
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._commands.append((words, answer))
        if self._sending is None or self._sending.done():
            self._sending = asyncio.create_task(self._send_all())
        return answer

    async def _send_all(self) -> None:
        while self._commands:
            commands, self._commands = self._commands[:COMMANDS_AT_ONCE], self._commands[COMMANDS_AT_ONCE:]
            pipe = self._client.pipeline(transaction=False)
            for words, _ in commands:
                pipe.execute_command(*words)
            try:
                told = await pipe.execute(raise_on_error=False)
            except Exception as error:  # whoever waits must be told, whatever it was
                told = [error] * len(commands)
            for (_, answer), result in zip(commands, told, strict=True):
                if answer.done():
                    continue
                if isinstance(result, Exception):
                    answer.set_exception(result)
                else:
                    answer.set_result(result)

    # ------------------------------------------------------------------ holding stations

    async def claim(self, identity: str, body: Mapping[str, Any], came: datetime | None = None) -> tuple[int, int]:
        """A new epoch for this station, and the station is ours. Raises `RedisError` or `OSError`.

        `came` is given for a socket that stood there before Redis did: it counts from then, and one that came later
        anywhere keeps the station. Answers our epoch (0: not ours) and the newest.
        """
        before, after = json.dumps({**body, "epoch": 0}).rsplit("0", 1)
        moment = round(came.timestamp() * 1_000_000) if came is not None else 0
        keys = (f"epoch:{identity}", f"at:{identity}")
        ours, newest = await self._soon("EVAL", _CLAIM, 2, *keys, before, after, HOLD_S, moment, identity)
        return int(ours), int(newest)

    async def hold(self, holds: Mapping[str, tuple[int, Mapping[str, Any]]]) -> dict[str, int]:
        """Go on holding these stations: the newest epoch of each."""
        if not holds:
            return {}
        pipe = self._client.pipeline(transaction=False)
        for identity, (epoch, body) in holds.items():
            told = json.dumps({**body, "epoch": epoch})
            pipe.eval(_HOLD, 2, f"epoch:{identity}", f"at:{identity}", str(epoch), told, str(HOLD_S))
        newest = await pipe.execute()
        return {identity: int(n) for identity, n in zip(holds, newest, strict=True)}

    async def release(self, holds: Mapping[str, int]) -> None:
        """Let go of stations, unless someone newer holds them."""
        if not holds:
            return
        try:
            await asyncio.gather(
                *(self._soon("EVAL", _RELEASE, 1, f"at:{name}", epoch) for name, epoch in holds.items())
            )
        except AWAY as error:
            log.warning("stations are let go by time, Redis is away: %s", error)

    # ------------------------------------------------------------------ asking

    async def wants(self, places: Iterable[tuple[str, int]]) -> list[Want]:
        """The wants that stand for these EVSEs, those by hand among them. Raises when Redis is away."""
        asked = []
        for identity, evse in places:
            asked += [self._soon("GET", want_key(identity, evse)), self._soon("HVALS", hands_key(identity, evse))]
        found = []
        for answer in await asyncio.gather(*asked):
            for body in answer if isinstance(answer, list) else [answer] if answer else []:
                try:
                    found.append(Want.from_json(str(body)))
                except (ValueError, TypeError, KeyError) as error:
                    log.warning("a want could not be read: %s", error)
        return found

    async def reply(self, call_id: str, body: Mapping[str, Any]) -> None:
        try:
            pipe = self._client.pipeline(transaction=False)
            pipe.rpush(f"reply:{call_id}", orjson.dumps(body, default=str).decode())
            pipe.expire(f"reply:{call_id}", REPLY_KEEP_S)
            await pipe.execute()
        except AWAY as error:
            log.warning("an answer could not be handed back: %s", error)

    async def get(self, key: str) -> str | None:
        """A short note of ours, such as the proof of an earlier login. None also when Redis is away."""
        try:
            value = await self._soon("GET", key)
        except AWAY:
            return None
        return str(value) if value is not None else None

    async def answers(self) -> bool:
        """Is Redis there?"""
        try:
            return bool(await self._client.ping())
        except AWAY:
            return False

    async def note_all(self, notes: Mapping[str, str], life_s: int) -> None:
        pipe = self._client.pipeline(transaction=False)
        for key, value in notes.items():
            pipe.set(key, value, ex=life_s)
        with contextlib.suppress(*AWAY):
            await pipe.execute()

    async def note(self, key: str, value: str, life_s: int) -> None:
        with contextlib.suppress(*AWAY):
            await self._client.set(key, value, ex=life_s)

    # ------------------------------------------------------------------ listening

    async def _for_ever(self, loop: Callable[[], Awaitable[None]]) -> None:
        pause = 0.1
        while not self._stopping:
            started = asyncio.get_running_loop().time()
            try:
                await loop()
            except AWAY as error:
                if asyncio.get_running_loop().time() - started > 10:
                    pause = 0.1
                if pause < 0.15:
                    counting.REDIS_AWAY.add()
                    log.warning("Redis is away (%s); trying again", type(error).__name__)
            except Exception:
                log.exception("the gateway's side of Redis stumbled")
            await asyncio.sleep(pause)
            pause = min(pause * 2, LONGEST_PAUSE_S)

    async def _listen(self) -> None:
        pubsub = self._listener.pubsub()
        try:
            await pubsub.subscribe(WANT_CHANNEL, CHANGED_CHANNEL, TAKEN_CHANNEL)
            self.listening.set()
            self._on_back()
            silent = 0
            while not self._stopping:
                message = await pubsub.get_message(timeout=SILENT_S)
                if message is None:  # a network that is gone says nothing either
                    silent += 1
                    if silent > 2:
                        raise RedisConnectionError("the channels are silent, and no ping is answered")
                    await pubsub.ping()
                    continue
                silent = 0
                if message["type"] != "message":
                    continue
                try:
                    self._heard(message["channel"], json.loads(message["data"]))
                except (ValueError, TypeError, KeyError) as error:
                    log.warning("a message on %s could not be read: %s", message.get("channel"), error)
        finally:
            with contextlib.suppress(*AWAY):
                await pubsub.aclose()  # type: ignore[no-untyped-call]

    def _heard(self, channel: str, body: Any) -> None:
        if channel == WANT_CHANNEL:
            self._on_want(str(body[0]), int(body[1]))
        elif channel == CHANGED_CHANNEL:
            self._on_changed(str(body["kind"]), body["id"])
        elif channel == TAKEN_CHANNEL:
            self._on_taken(str(body[0]), int(body[1]))

    async def _read_calls(self) -> None:
        stream, last = f"call:{self.gateway}", "0-0"
        while not self._stopping:
            async with asyncio.timeout(SILENT_S):
                found = await self._listener.xread({stream: last}, count=100, block=1000)
            for entry_id, fields in _entries(found):
                last = entry_id
                try:
                    body = json.loads(opened(fields["body"]))
                    self._on_call({**body, "asked_at": int(entry_id.partition("-")[0]) / 1000})
                except (ValueError, TypeError, KeyError) as error:
                    log.warning("a call could not be read: %s", error)


def _entries(found: Any) -> list[tuple[str, dict[str, str]]]:
    """The entries of one stream, as either protocol version of Redis gives them."""
    streams = found.values() if isinstance(found, dict) else [entries for _, entries in found or []]
    out: list[tuple[str, dict[str, str]]] = []
    for entries in streams:
        for entry in entries:
            if isinstance(entry, list) and entry and isinstance(entry[0], list | tuple):
                out.extend((e[0], e[1]) for e in entry)
            else:
                out.append((entry[0], entry[1]))
    return out

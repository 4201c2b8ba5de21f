"""The live stream of a site: `GET /live/<site id>/`, server-sent events, one picture an event.

Plain ASGI, no Django middleware: the session cookie is read once at the door, the site's permission is asked once, and
then pictures are relayed from the Redis channel `push:<site>`. The first event is the stored `now:<site>`, so nobody
looks at an empty page. A picture is complete in itself; when a reader is slow it gets the newest and misses the rest.

One Redis subscription serves all readers of this process. While Redis is away the streams stay open, silent except
for their comment line, and the page tells the age of what it shows. A stream ends after ten minutes and the browser
opens the next one, so that a right that was withdrawn or a session that ended stops counting.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import re
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable
from http.cookies import CookieError, SimpleCookie
from importlib import import_module
from typing import Any

import redis.asyncio
from asgiref.sync import sync_to_async
from django.conf import settings
from django.contrib import auth
from django.db import close_old_connections
from django.http import HttpRequest
from redis.exceptions import RedisError

from meters.access import may

Scope = dict[str, Any]
Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

MAX_STREAMS = 300
COMMENT_S = 15.0
LIFE_S = 600.0
RETRY_S = 1.0
_PATH = re.compile(r"/live/(\d{1,18})/")
_HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
    (b"x-content-type-options", b"nosniff"),
]
log = logging.getLogger(__name__)


class LiveStream:
    """The ASGI application of the stream. At most `max_streams` readers at a time; the next one is asked to wait."""

    def __init__(self, max_streams: int = MAX_STREAMS, comment_s: float = COMMENT_S, life_s: float = LIFE_S) -> None:
        self.max_streams, self.comment_s, self.life_s = max_streams, comment_s, life_s
        self.hub = Hub()
        self.open = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        match = _PATH.fullmatch(scope["path"])
        if match is None:
            await _refuse(send, 404, "There is no such stream.")
            return
        if scope["method"] != "GET":
            await _refuse(send, 405, "The stream is read with GET.", [(b"allow", b"GET")])
            return
        site = int(match[1])
        if self.open >= self.max_streams:
            await _refuse(send, 503, "Too many live views are open.", [(b"retry-after", b"10")])
            return
        self.open += 1
        try:
            status = await sync_to_async(_admission)(_session_key(scope), site)
            if status != 200:
                await _refuse(send, status, "Log in to watch this site." if status == 401 else "Not your site.")
                return
            await self._relay(site, receive, send)
        finally:
            self.open -= 1

    async def _relay(self, site: int, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": _HEADERS})
        await send({"type": "http.response.body", "body": b"retry: 2000\n\n", "more_body": True})
        gone = asyncio.create_task(_until_disconnected(receive))
        deadline = asyncio.get_running_loop().time() + self.life_s
        inbox = await self.hub.join(site)
        try:
            while not gone.done() and not self.hub.closing and asyncio.get_running_loop().time() < deadline:
                chunk = await _next_chunk(inbox, gone, self.comment_s)
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
            with contextlib.suppress(OSError):
                await send({"type": "http.response.body", "body": b"", "more_body": False})
        except OSError:
            pass  # the reader left in the middle of a line
        finally:
            gone.cancel()
            self.hub.leave(site, inbox)

    async def close(self) -> None:
        """Let go of Redis; open streams end at their next line."""
        await self.hub.close()


class Inbox:
    """What one reader has not read yet: at most the newest picture."""

    def __init__(self) -> None:
        self._newest: str | None = None
        self._arrived = asyncio.Event()

    def put(self, body: str) -> None:
        self._newest = body
        self._arrived.set()

    def ring(self) -> None:
        self._arrived.set()

    async def get(self) -> str | None:
        await self._arrived.wait()
        self._arrived.clear()
        body, self._newest = self._newest, None
        return body


class Hub:
    """One subscription to `push:*` for all readers of this process; lives while there is a reader."""

    def __init__(self) -> None:
        self.closing = False
        self._readers: dict[int, set[Inbox]] = defaultdict(set)
        self._task: asyncio.Task[None] | None = None

    async def join(self, site: int) -> Inbox:
        inbox = Inbox()
        self._readers[site].add(inbox)
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._listen())
        else:  # the running subscription already hears this site; only the stored picture is missing
            await self._deliver_stored([site])
        return inbox

    def leave(self, site: int, inbox: Inbox) -> None:
        """The subscription notices within a second that nobody is left, and ends by itself: cancelling a Redis
        client in the middle of a connect may be swallowed, and would then never end."""
        self._readers[site].discard(inbox)
        if not self._readers[site]:
            del self._readers[site]

    async def close(self) -> None:
        self.closing = True
        for inboxes in self._readers.values():
            for inbox in inboxes:
                inbox.ring()
        if self._task is not None:
            await asyncio.wait({self._task}, timeout=2)
            self._task.cancel()

    @property
    def _needed(self) -> bool:
        return bool(self._readers) and not self.closing

    async def _listen(self) -> None:
        """Subscribe, hand out what is stored, then relay. Redis away: try again until it is back."""
        while self._needed:
            client = _client()
            try:
                async with client.pubsub(ignore_subscribe_messages=True) as pubsub:
                    await pubsub.psubscribe("push:*")
                    await self._deliver_stored(list(self._readers))
                    while self._needed:
                        message = await pubsub.get_message(timeout=1.0)
                        if message is not None:
                            self._hand_out(message["channel"].removeprefix("push:"), message["data"])
            except (RedisError, OSError, ValueError) as error:  # ValueError: bytes that are no text
                log.warning("live stream: Redis is away (%s); trying again", type(error).__name__)
                await asyncio.sleep(RETRY_S)
            finally:
                await client.aclose()

    async def _deliver_stored(self, sites: Iterable[int]) -> None:
        client = _client()
        try:
            for site in sites:
                body = await client.get(f"now:{site}")
                if body is not None:
                    self._hand_out(str(site), str(body))
        except (RedisError, OSError):
            pass  # the listening task reports it and tries again
        finally:
            await client.aclose()

    def _hand_out(self, site: str, body: str) -> None:
        if site.isdigit():
            for inbox in self._readers.get(int(site), ()):
                inbox.put(body)


def _client() -> redis.asyncio.Redis:
    client: redis.asyncio.Redis = redis.asyncio.Redis.from_url(
        settings.REDIS_URL, decode_responses=True, socket_connect_timeout=2, health_check_interval=30
    )
    return client


async def _until_disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _next_chunk(inbox: Inbox, gone: asyncio.Task[None], comment_s: float) -> bytes:
    """The next event, or a comment line when nothing came for a while (proxies close silent connections)."""
    waiting = asyncio.create_task(inbox.get())
    await asyncio.wait({waiting, gone}, timeout=comment_s, return_when=asyncio.FIRST_COMPLETED)
    if not waiting.done():
        waiting.cancel()
        return b": still here\n\n"
    body = waiting.result()
    return b": still here\n\n" if body is None else _event(body)


def _event(body: str) -> bytes:
    lines = "".join(f"data: {line}\n" for line in body.splitlines() or [""])
    return f"event: picture\n{lines}\n".encode()


def _session_key(scope: Scope) -> str:
    raw = b"; ".join(value for name, value in scope["headers"] if name == b"cookie").decode("latin1")
    try:
        morsel = SimpleCookie(raw).get(settings.SESSION_COOKIE_NAME)
    except CookieError:
        return ""
    return morsel.value if morsel else ""


def _admission(session_key: str, site: int) -> int:
    """200 may watch, 401 is nobody, 404 has no such site (whether it exists is nobody else's business)."""
    close_old_connections()
    try:
        if not session_key:
            return 401
        request = HttpRequest()
        request.session = import_module(settings.SESSION_ENGINE).SessionStore(session_key)
        user = auth.get_user(request)
        if not user.is_authenticated:
            return 401
        return 200 if may(user, site, "viewer") else 404
    finally:
        close_old_connections()


async def _refuse(send: Send, status: int, why: str, headers: Iterable[tuple[bytes, bytes]] = ()) -> None:
    body = json.dumps({"detail": why}).encode()
    start = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        (b"cache-control", b"no-store"),
        *headers,
    ]
    await send({"type": "http.response.start", "status": status, "headers": start})
    await send({"type": "http.response.body", "body": body})

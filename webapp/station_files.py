"""Where stations fetch firmware and bring their logs: `/station-files/<kind>/<token>/<name>`.

    GET, HEAD  /station-files/firmware/<token>/<name>     with ranges, so that a broken download goes on
    PUT, POST  /station-files/log/<token>[/<name>]        raw, or multipart with one file; once

Plain ASGI, no Django middleware and no login: stations cannot log in, the token is the permission and ends by itself
(`csms/station_files.py`). A modem may take an hour for a file, so no thread waits for it: bytes go through the event
loop, to and from the disk in portions. What comes in is of bounded size, is written under a name of ours, and is never
served from here. Every refusal looks the same, and who guesses is slowed down.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import time
from collections import deque
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import IO, Any
from urllib.parse import unquote

from asgiref.sync import sync_to_async
from django.core.exceptions import BadRequest, RequestDataTooBig
from django.core.files.uploadhandler import FileUploadHandler, SkipFile
from django.db import DatabaseError, close_old_connections
from django.http.multipartparser import MultiPartParser, MultiPartParserError
from django.utils import timezone

from csms import firmware, logs, station_files
from csms.station_files import PATH
from webapp.dashboard.stream import Receive, Scope, Send

PORTION = 256 * 1024
MAX_TRANSFERS = 200
IDLE_S = 90.0
LONGEST_S = 6 * 3600.0
WRONG_A_MINUTE = 30
SIGN_OF_LIFE_S = 60.0
_PATH = re.compile(rf"{PATH}(firmware|log)/([^/]{{1,100}})(?:/([^/]{{1,200}}))?/?")
_RANGE = re.compile(r"bytes=(\d{0,15})-(\d{0,15})")
_METHODS = {"firmware": ("GET", "HEAD"), "log": ("PUT", "POST")}
_BARE = [(b"cache-control", b"no-store"), (b"x-content-type-options", b"nosniff")]
log = logging.getLogger(__name__)


class Refused(Exception):
    """The request ends here, with this status."""

    def __init__(self, status: int, why: str, *headers: tuple[bytes, bytes]) -> None:
        super().__init__(why)
        self.status, self.why, self.headers = status, why, headers


class Gone(Exception):
    """The station hung up."""


class Guesses:
    """Wrong tokens per address within the last minute. Many stations may stand behind one address."""

    def __init__(self, most: int) -> None:
        self.most = most
        self._wrong: dict[str, deque[float]] = {}

    def too_many(self, address: str) -> bool:
        wrong = self._wrong.get(address)
        while wrong and time.monotonic() - wrong[0] > 60:
            wrong.popleft()
        if not wrong:
            self._wrong.pop(address, None)
            return False
        return len(wrong) >= self.most

    def note(self, address: str) -> None:
        if len(self._wrong) > 10_000:
            self._wrong.clear()
        self._wrong.setdefault(address, deque(maxlen=self.most)).append(time.monotonic())


class StationFiles:
    """The ASGI application of the files. At most `max_transfers` at a time; the next station is asked to wait."""

    def __init__(
        self, max_transfers: int = MAX_TRANSFERS, idle_s: float = IDLE_S, wrong_a_minute: int = WRONG_A_MINUTE
    ) -> None:
        self.max_transfers, self.idle_s = max_transfers, idle_s
        self.open = 0
        self.guesses = Guesses(wrong_a_minute)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            async with self._one_more():
                await self._answer(scope, receive, send)
        except Refused as refused:
            await _say(send, refused.status, refused.why, refused.headers)
        except DatabaseError as error:
            log.warning("a file could not be looked up: %s", error)
            await _say(send, 503, "Try again later.", [(b"retry-after", b"30")])
        except (Gone, OSError) as error:
            log.info("a transfer of a station's file broke off: %s", error or "the station hung up")

    @asynccontextmanager
    async def _one_more(self) -> AsyncIterator[None]:
        if self.open >= self.max_transfers:
            raise Refused(503, "Too many transfers; try again later.", (b"retry-after", b"60"))
        self.open += 1
        try:
            yield
        finally:
            self.open -= 1

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        address = str((scope.get("client") or ("unknown",))[0])
        match = _PATH.fullmatch(scope["path"])
        if self.guesses.too_many(address):
            raise Refused(429, "Too many wrong addresses.", (b"retry-after", b"60"))
        if match is None:
            self.guesses.note(address)
            raise Refused(404, "There is nothing here.")
        kind, token, name = match[1], match[2], unquote(match[3] or "")
        if scope["method"] not in _METHODS[kind]:
            raise Refused(405, "Not in this way.", (b"allow", ", ".join(_METHODS[kind]).encode()))
        headers = {k.decode("latin1").lower(): v.decode("latin1") for k, v in scope["headers"]}
        try:
            if kind == station_files.FIRMWARE:
                await self._give(token, scope["method"], headers, receive, send)
            else:
                await self._take(token, name, headers, receive, send)
        except Refused as refused:
            if refused.status == 404:
                self.guesses.note(address)
            raise

    # ------------------------------------------------------------------ firmware, out

    async def _give(self, token: str, method: str, headers: dict[str, str], receive: Receive, send: Send) -> None:
        found = await _in_database(firmware.wanted_file, token, timezone.now())
        path = Path(found[1]) if found is not None else None
        if found is None or path is None or not path.is_file():
            raise Refused(404, "There is nothing here.")
        stat = path.stat()
        tag = f'"{stat.st_size:x}-{stat.st_mtime_ns:x}"'
        span = _span(headers, tag, stat.st_size)
        first, last = span or (0, stat.st_size - 1)
        start = [
            (b"content-type", b"application/octet-stream"),
            (b"content-disposition", f'attachment; filename="{station_files.safe_name(path.name, "image")}"'.encode()),
            (b"content-length", str(max(last - first + 1, 0)).encode()),
            (b"accept-ranges", b"bytes"),
            (b"etag", tag.encode()),
            *_BARE,
        ]
        if span is not None:
            start.append((b"content-range", f"bytes {first}-{last}/{stat.st_size}".encode()))
        await send({"type": "http.response.start", "status": 206 if span is not None else 200, "headers": start})
        if method == "HEAD":
            await send({"type": "http.response.body", "body": b""})
            return
        await self._send_file(found[0], path, first, last - first + 1, receive, send)

    async def _send_file(self, key: int, path: Path, first: int, left: int, receive: Receive, send: Send) -> None:
        gone = asyncio.create_task(_until_disconnected(receive))
        sent, told_at = 0, time.monotonic()
        file = await asyncio.to_thread(path.open, "rb")
        try:
            await asyncio.to_thread(file.seek, first)
            while left > 0 and not gone.done():
                block = await asyncio.to_thread(file.read, min(PORTION, left))
                if not block:
                    break
                left -= len(block)
                sent += len(block)
                await asyncio.wait_for(
                    send({"type": "http.response.body", "body": block, "more_body": left > 0}), self.idle_s
                )
                if time.monotonic() - told_at > SIGN_OF_LIFE_S:
                    await _in_database(firmware.fetched, key, sent, timezone.now())
                    sent, told_at = 0, time.monotonic()
        except TimeoutError:
            raise Gone("it takes no more") from None
        finally:
            gone.cancel()
            file.close()
            with contextlib.suppress(DatabaseError):
                await _in_database(firmware.fetched, key, sent, timezone.now())

    # ------------------------------------------------------------------ logs, in

    async def _take(self, token: str, name: str, headers: dict[str, str], receive: Receive, send: Send) -> None:
        wanted = await _in_database(logs.expected, token, timezone.now())
        if wanted is None:
            raise Refused(404, "There is nothing here.")
        told = headers.get("content-length", "")
        if told.isdigit() and int(told) > wanted.most_bytes:
            raise Refused(413, "The file is too large.", (b"connection", b"close"))
        parts = [wanted.part]
        try:
            size = await self._write(wanted.part, wanted.most_bytes, receive)
            part = wanted.part
            if headers.get("content-type", "").lower().startswith("multipart/form-data"):
                parts.append(part.with_name(f"{part.stem}-file.part"))
                name = await asyncio.to_thread(_unpack, part, size, headers["content-type"], parts[-1]) or name
                part = parts[-1]
            name = _disposed_name(headers) or name
            digest = await asyncio.to_thread(logs.digest_of, part)
            if not await _in_database(logs.arrived, wanted.key, part, digest, name, timezone.now()):
                raise Refused(404, "There is nothing here.")
        finally:
            for part in parts:
                part.unlink(missing_ok=True)
        await _say(send, 200, "Thank you.")

    async def _write(self, part: Path, most: int, receive: Receive) -> int:
        """Stream the body to disk, as fast as the station can and no faster than the disk; the size."""
        size, deadline = 0, time.monotonic() + LONGEST_S
        buffer = bytearray()
        file = await asyncio.to_thread(_open_new, part)
        try:
            more = True
            while more:
                try:
                    message = await asyncio.wait_for(receive(), self.idle_s)
                except TimeoutError:
                    raise Refused(408, "Nothing came for too long.", (b"connection", b"close")) from None
                if message["type"] == "http.disconnect":
                    raise Gone
                buffer += message.get("body", b"")
                size += len(message.get("body", b""))
                if size > most:
                    raise Refused(413, "The file is too large.", (b"connection", b"close"))
                if time.monotonic() > deadline:
                    raise Refused(408, "It takes too long.", (b"connection", b"close"))
                more = bool(message.get("more_body"))
                if buffer and (len(buffer) >= PORTION or not more):
                    await asyncio.to_thread(file.write, bytes(buffer))
                    buffer.clear()
        finally:
            file.close()
        return size


# ---------------------------------------------------------------------- small questions


class _FirstFile(FileUploadHandler):
    """Writes the first file of a multipart body to `to`; the others are passed over."""

    def __init__(self, to: Path) -> None:
        super().__init__()
        self.to, self.name = to, ""
        self._file: IO[bytes] | None = None

    def new_file(self, *args: Any, **kwargs: Any) -> None:
        super().new_file(*args, **kwargs)
        if self._file is not None:
            raise SkipFile
        self._file = _open_new(self.to)
        self.name = str(self.file_name or "")

    def receive_data_chunk(self, raw_data: bytes, start: int) -> None:
        if self._file is not None:
            self._file.write(raw_data)

    def file_complete(self, file_size: int) -> None:
        if self._file is not None:
            self._file.flush()

    @property
    def got_one(self) -> bool:
        return self._file is not None

    def close(self) -> None:
        if self._file is not None:
            self._file.close()


def _unpack(body: Path, size: int, content_type: str, to: Path) -> str:
    """Take the one file out of a multipart body that lies on disk; its name as the station says it."""
    handler = _FirstFile(to)
    try:
        with body.open("rb") as file:
            meta = {"CONTENT_TYPE": content_type, "CONTENT_LENGTH": str(size)}
            MultiPartParser(meta, file, [handler]).parse()
    except RequestDataTooBig:
        raise Refused(413, "The form is too large.") from None
    except (MultiPartParserError, BadRequest, ValueError):
        raise Refused(400, "This is no form with a file.") from None
    finally:
        handler.close()
    if not handler.got_one:
        raise Refused(400, "There is no file in this form.")
    return handler.name


def _open_new(path: Path) -> IO[bytes]:
    """For this user only, and never over something that is there."""
    path.touch(mode=0o600, exist_ok=False)
    return path.open("wb")


def _span(headers: dict[str, str], tag: str, size: int) -> tuple[int, int] | None:
    """The bytes asked for, first and last; None for the whole file. Several ranges at once get the whole too."""
    asked = _RANGE.fullmatch(headers.get("range", "").replace(" ", ""))
    if asked is None or headers.get("if-range", tag) != tag or (not asked[1] and not asked[2]):
        return None
    if not asked[1]:  # the last so many
        first, last = max(size - int(asked[2]), 0), size - 1
    else:
        first, last = int(asked[1]), min(int(asked[2]) if asked[2] else size - 1, size - 1)
    if first >= size or first > last:
        raise Refused(416, "The file is shorter.", (b"content-range", f"bytes */{size}".encode()))
    return first, last


def _disposed_name(headers: dict[str, str]) -> str:
    found = re.search(r'filename="?([^";]{1,200})"?', headers.get("content-disposition", ""))
    return found[1] if found is not None else ""


async def _until_disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _in_database(verb: Any, *args: Any) -> Any:
    """A question to the database, in a thread, with a connection that is given back."""

    def ask() -> Any:
        close_old_connections()
        try:
            return verb(*args)
        finally:
            close_old_connections()

    return await sync_to_async(ask)()


async def _say(send: Send, status: int, text: str, headers: Iterable[tuple[bytes, bytes]] = ()) -> None:
    body = f"{text}\n".encode()
    start = [
        (b"content-type", b"text/plain; charset=utf-8"),
        (b"content-length", str(len(body)).encode()),
        *_BARE,
        *headers,
    ]
    await send({"type": "http.response.start", "status": status, "headers": start})
    await send({"type": "http.response.body", "body": body})

"""Who may connect: the identity in the path, the sub-protocol, the password or certificate, and patience with failures.

A refusal tells nothing: unknown, wrong and full give the same answer after the same work. Failures make an address
wait longer before its next slow check, they never lock it out: a station with the right password behind the same
address gets in, at once where its login was proven before.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import hmac
import logging
import re
import ssl
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from http import HTTPStatus
from urllib.parse import unquote_to_bytes

from django.conf import settings
from django.contrib.auth.hashers import check_password, make_password

from csms.exchange import Exchange
from csms.memory import StationRecord
from csms.schemas import V16, V201

log = logging.getLogger(__name__)

LONGEST_IDENTITY = 255
PROOF_KEEP_S = 30 * 24 * 3600
FREE_FAILURES = 5
LONGEST_WAIT_S = 5.0
ADDRESSES_REMEMBERED = 10_000
_SCHEME = re.compile(r"^[a-z]+://[^/]*", re.IGNORECASE)


class Refused(Exception):
    """The handshake is answered with this status."""

    def __init__(self, status: HTTPStatus) -> None:
        super().__init__(status.phrase)
        self.status = status


def identity_of(path: str) -> str:
    """The identity in the last part of the path, decoded; `/ocpp/<identity>`, forgiving about slashes (Q3).

    A full address, doubled slashes, a slash at the end and an identity appended twice are understood. Raises
    `Refused` (404) for anything else.
    """
    bare = _SCHEME.sub("", path.split("?", 1)[0].split("#", 1)[0])
    parts = [p for p in bare.split("/") if p]
    if parts and parts[0].lower() == "ocpp":
        parts = parts[1:]
        while parts and _SCHEME.match(parts[0]):
            parts = parts[1:]
        if len(parts) == 2 and parts[0] == parts[1]:
            parts = parts[1:]
        if len(parts) == 1:
            try:
                identity = unquote_to_bytes(parts[0]).decode().strip()
            except UnicodeDecodeError:
                identity = ""
            if identity and len(identity) <= LONGEST_IDENTITY and identity.isprintable():
                return identity
    raise Refused(HTTPStatus.NOT_FOUND)


def dialect_of(offered: Sequence[str]) -> tuple[str, str] | None:
    """The dialect to speak, and the client's own spelling of it; None when it offers only what we do not speak.

    2.0.1 goes before 1.6. Letter case and a private suffix do not matter (Q1); no offer at all is taken as 1.6.
    """
    if not offered:
        return V16, ""
    for name in (V201, V16):
        for spelling in offered:
            if spelling.strip().lower().startswith(name):
                return name, spelling
    return None


def credentials_of(header: str | None) -> tuple[bytes, bytes] | None:
    """User and password of a basic `Authorization` header, as bytes; None when there are none."""
    if header is None:
        return None
    scheme, _, token = header.strip().partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        plain = base64.b64decode(token.strip(), validate=False)
    except (binascii.Error, ValueError):
        return None
    user, colon, password = plain.partition(b":")
    return (user, password) if colon else None


def spellings_of(password: bytes) -> list[str]:
    """The texts a password may have been stored as: itself, its bytes in hex, or what it is the hex of (Q5)."""
    out: list[str] = []
    try:
        text = password.decode()
    except UnicodeDecodeError:
        text = ""
    if text:
        out.append(text)
    if not text.isprintable() or not text or len(password) in (16, 20, 32):
        out += [password.hex().upper(), password.hex()]
    if len(text) >= 16 and re.fullmatch(r"(?:[0-9a-fA-F]{2})+", text):
        out += [s for s in (text.upper(), text.lower()) if s != text]
        raw = bytes.fromhex(text)
        if raw.isascii() and raw.decode("ascii").isprintable():
            out.append(raw.decode("ascii"))
    return list(dict.fromkeys(out))


def certificate_name(tls: ssl.SSLObject | None) -> str | None:
    """The common name of the client's verified certificate; None without one."""
    certificate = tls.getpeercert() if tls is not None else None
    for group in (certificate or {}).get("subject", ()):
        for item in group:
            if len(item) == 2 and item[0] == "commonName":
                return str(item[1])
    return None


class Doorkeeper:
    """Checks passwords off the event loop and remembers who failed where."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self._threads = ThreadPoolExecutor(2, "password")
        self._failures: dict[str, int] = {}
        self._turns: dict[str, asyncio.Lock] = {}

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def admit(
        self, station: StationRecord | None, identity: str, header: str | None, address: str, certificate: str | None
    ) -> None:
        """Is this the station it says it is? Raises `Refused` (401).

        `station` None: it is unknown, and unknown stations are not let in.
        """
        if certificate is not None:
            if certificate != identity:
                await self._refuse(address)
            if station is not None:
                return
        if station is not None and not station.password_hash:
            if settings.OCPP_TLS_CLIENT_CA:
                await self._refuse(address)
            return  # no password was set for it: laboratory use
        given = credentials_of(header)
        user_fits = given is not None and _same_user(given[0], identity)
        password = given[1] if given is not None and user_fits else b""
        if station is not None and password and await self._proven(station, password):
            self._failures.pop(address, None)
            return
        async with self._turns.setdefault(address, asyncio.Lock()):
            await asyncio.sleep(self._wait_s(address))
            fits = await self._check(station, password)
        if not fits:
            await self._refuse(address)
        self._failures.pop(address, None)
        if station is not None:
            await self._prove(station, password)

    def _wait_s(self, address: str) -> float:
        over = self._failures.get(address, 0) - FREE_FAILURES
        return min(LONGEST_WAIT_S, 0.1 * 2**over) if over >= 0 else 0.0

    async def _refuse(self, address: str) -> None:
        if len(self._failures) >= ADDRESSES_REMEMBERED:
            self._failures.clear()
            self._turns = {a: t for a, t in self._turns.items() if t.locked()}
        self._failures[address] = min(self._failures.get(address, 0) + 1, 50)
        log.warning("a login from %s was refused", address)
        raise Refused(HTTPStatus.UNAUTHORIZED)

    async def _check(self, station: StationRecord | None, password: bytes) -> bool:
        """The slow check, the same work for an unknown station as for a known one."""

        def work() -> bool:
            spellings = spellings_of(password) or [""]
            if station is None:
                for spelling in spellings:
                    make_password(spelling)
                return False
            return any(check_password(s, station.password_hash) for s in spellings)

        return await asyncio.get_running_loop().run_in_executor(self._threads, work)

    async def _proven(self, station: StationRecord, password: bytes) -> bool:
        """Was exactly this login proven before? Then a thousand stations coming back at once cost nothing."""
        note = await self._exchange.get(f"login:{station.pk}")
        return note is not None and hmac.compare_digest(note, _proof(station, password))

    async def _prove(self, station: StationRecord, password: bytes) -> None:
        await self._exchange.note(f"login:{station.pk}", _proof(station, password), PROOF_KEEP_S)


def _proof(station: StationRecord, password: bytes) -> str:
    """Worthless without the secret key, and void as soon as the password is changed."""
    body = station.password_hash.encode() + b"\0" + password
    return hmac.new(settings.SECRET_KEY.encode(), body, hashlib.sha256).hexdigest()


def _same_user(user: bytes, identity: str) -> bool:
    """Letter case does not count, as it does not in the address (Q3)."""
    names = (user, unquote_to_bytes(user))
    return identity.casefold() in [name.decode("utf-8", "replace").casefold() for name in names]

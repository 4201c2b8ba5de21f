"""Who may connect: the identity in the path, the sub-protocol, the password or certificate, and patience with failures.

A refusal tells nothing: unknown, wrong and full give the same answer after the same work. Failures make an address and
an identity wait longer before the next slow check, they never lock out: a station with the right password gets in, at
once where its login was proven before, and without the waiting of its identity from an address it has come in from.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import hmac
import ipaddress
import re
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from http import HTTPStatus
from urllib.parse import unquote_to_bytes

from django.conf import settings
from django.contrib.auth.hashers import check_password, make_password

from csms.exchange import Exchange
from csms.listeners import Kind
from csms.memory import StationRecord
from csms.schemas import V16, V201
from csms.showing import Shown

LONGEST_IDENTITY = 255
LONGEST_PASSWORD = 512
PROOF_KEEP_S = 30 * 24 * 3600
FREE_FAILURES = 5
LONGEST_WAIT_S = 5.0
FORGIVEN_AFTER_S = 600.0
REMEMBERED = 10_000
WAITING_FOR_ONE = 4  # logins of one identity from one address
WAITING_AT_ALL = 5_000
_SCHEME = re.compile(r"^[a-z]+://[^/]*", re.IGNORECASE)


class Refused(Exception):
    """The handshake is answered with this status. `kind` and `detail` are for our own eyes only."""

    def __init__(self, status: HTTPStatus, kind: str = "", detail: str = "") -> None:
        super().__init__(status.phrase)
        self.status, self.kind, self.detail = status, kind, detail


def wrong(kind: str, detail: str = "") -> Refused:
    """The one answer to everyone who is not who they say they are."""
    return Refused(HTTPStatus.UNAUTHORIZED, kind, detail)


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


@dataclass(frozen=True, slots=True)
class Came:
    """How a request came to us."""

    kind: Kind
    address: str
    secured: bool
    certificate: Shown | None = None


@dataclass(frozen=True, slots=True)
class Login:
    """Who is let in, how safely it came (`SecurityProfile`), and whether it knew the newest of two passwords."""

    profile: int
    with_new_password: bool = False


class Patience:
    """How long each of many must wait after its failures. Bounded: who was quiet longest is forgotten first."""

    def __init__(self, most: int = REMEMBERED) -> None:
        self._most = most
        self._failures: OrderedDict[str, tuple[int, float]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._failures)

    def wait_s(self, who: str, now: float) -> float:
        failures, at = self._failures.get(who, (0, now))
        if now - at > FORGIVEN_AFTER_S:
            self._failures.pop(who, None)
            return 0.0
        over = failures - FREE_FAILURES
        return float(min(LONGEST_WAIT_S, 0.1 * 2**over)) if over >= 0 else 0.0

    def failed(self, who: str, now: float) -> None:
        failures, at = self._failures.pop(who, (0, now))
        if now - at > FORGIVEN_AFTER_S:
            failures = 0
        while len(self._failures) >= self._most:
            self._failures.popitem(last=False)
        self._failures[who] = (min(failures + 1, 50), now)

    def forgive(self, who: str) -> None:
        self._failures.pop(who, None)


class Doorkeeper:
    """Checks passwords off the event loop and remembers who failed where."""

    def __init__(self, exchange: Exchange, revoked: Callable[[], frozenset[str]] = frozenset) -> None:
        self._exchange = exchange
        self._revoked = revoked
        self._threads = ThreadPoolExecutor(2, "password")
        self._addresses = Patience()
        self._identities = Patience()
        self._came_from: OrderedDict[str, str] = OrderedDict()
        self._waiting: dict[tuple[str, str], int] = {}
        self._proofs: dict[int, str] = {}  # by station; Redis has them too, for the other gateways and the next start

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def admit(
        self,
        station: StationRecord | None,
        identity: str,
        header: str | None,
        came: Came,
        again: Callable[[], Awaitable[StationRecord | None]] | None = None,
    ) -> Login:
        """Is this the station it says it is, and did it come in a way it may? Raises `Refused` (401).

        `station` None: it is unknown, and unknown stations are not let in. `again` reads the station anew: its
        password may have been changed a moment ago.
        """
        if came.certificate is not None:
            self.check_certificate(came.certificate, identity)
            if station is not None:
                return self._good_enough(station, came, Login(3))
        elif came.kind is Kind.MUTUAL:
            raise wrong("CertificateRefused", "none was shown")
        credentials = credentials_of(header)
        if station is not None and not station.password_hash and credentials is None:
            return self._good_enough(station, came, Login(0))
        password = credentials[1] if credentials is not None and _same_user(credentials[0], identity) else b""
        password = password if len(password) <= LONGEST_PASSWORD else b""
        if station is not None and not station.password_hash and came.kind is Kind.LAB:
            return self._good_enough(station, came, Login(0))  # no password was set for it, whatever it says
        profile = 2 if came.secured else 1
        if station is not None and password and await self._proven(station, password):
            self._succeeded(identity, came.address)
            return self._good_enough(station, came, Login(profile, with_new_password=True))
        found = await self._slowly(station, identity, password, came.address, again)
        if station is None or found is None:
            user = "wrong user" if credentials is not None and not password else ""
            raise wrong("LoginFailed", user or ("no credentials" if credentials is None else "wrong password"))
        station, is_new = found
        self._succeeded(identity, came.address)
        if is_new:
            await self._prove(station, password)
        return self._good_enough(station, came, Login(profile, with_new_password=is_new))

    def check_certificate(self, shown: Shown, identity: str) -> None:
        """A certificate must be the station's own, of today, and not revoked."""
        if identity not in shown.names:
            raise wrong("CertificateOfAnother", f"it names {', '.join(shown.names)[:150] or 'nobody'}")
        if shown.fingerprint in self._revoked():
            raise wrong("CertificateRevoked", f"serial {shown.serial}")
        if shown.not_after is not None and shown.not_after <= datetime.now(UTC):
            raise wrong("CertificateExpired", f"serial {shown.serial}")

    def _good_enough(self, station: StationRecord, came: Came, login: Login) -> Login:
        """At least the profile asked of this station; less only where and as long as somebody allowed it (A1)."""
        security = station.security
        least = security.least_profile
        if least is None:
            if came.kind is Kind.LAB:
                return login
            least = settings.OCPP_LEAST_PROFILE
        if login.profile >= least:
            return login
        allowed = security.lower_profile is not None and login.profile >= security.lower_profile
        if allowed and security.lower_until is not None and datetime.now(UTC) < security.lower_until:
            return login
        raise wrong("LowerSecurityProfile", f"came with profile {login.profile}, at least {least} is asked")

    # ------------------------------------------------------------------ patience

    async def _slowly(
        self,
        station: StationRecord | None,
        identity: str,
        password: bytes,
        address: str,
        again: Callable[[], Awaitable[StationRecord | None]] | None,
    ) -> tuple[StationRecord, bool] | None:
        """The slow check, after a wait that failures earned: the station, and did it know its new password?"""
        place = place_of(address)
        who = (place, identity)
        if self._waiting.get(who, 0) >= WAITING_FOR_ONE or len(self._waiting) >= WAITING_AT_ALL:
            raise wrong("LoginFailed", "too many at once")
        self._waiting[who] = self._waiting.get(who, 0) + 1
        try:
            await asyncio.sleep(self.wait_s(identity, address))
            told = await self._check(station, password)
            if told is None and again is not None:
                fresh = await again()
                if fresh is not None and station is not None and _hashes(fresh) != _hashes(station):
                    station, told = fresh, await self._check(fresh, password)
        finally:
            self._waiting[who] -= 1
            if not self._waiting[who]:
                del self._waiting[who]
        if told is None or station is None:
            now = asyncio.get_running_loop().time()
            self._addresses.failed(place, now)
            self._identities.failed(identity, now)
            return None
        return station, told

    def wait_s(self, identity: str, address: str) -> float:
        """How long this login must wait before it is looked at."""
        now = asyncio.get_running_loop().time()
        place = place_of(address)
        by_identity = 0.0 if self._came_from.get(identity) == place else self._identities.wait_s(identity, now)
        return max(self._addresses.wait_s(place, now), by_identity)

    def _succeeded(self, identity: str, address: str) -> None:
        place = place_of(address)
        self._addresses.forgive(place)
        self._identities.forgive(identity)
        self._came_from.pop(identity, None)
        while len(self._came_from) >= REMEMBERED:
            self._came_from.popitem(last=False)
        self._came_from[identity] = place

    # ------------------------------------------------------------------ passwords

    async def _check(self, station: StationRecord | None, password: bytes) -> bool | None:
        """True for the newest password, False for the old one while it is valid, None for neither.

        A refusal costs the same work whether the station is known or not, and has an old password or not.
        """

        def work() -> bool | None:
            spellings = spellings_of(password) or [""]
            newest, *olds = _hashes(station) if station is not None else ("", "")
            for known, is_new in ((newest, True), *((old, False) for old in olds)):
                for spelling in spellings:
                    if not known or not password:
                        make_password(spelling)
                    elif check_password(spelling, known):
                        return is_new
            return None

        return await asyncio.get_running_loop().run_in_executor(self._threads, work)

    async def _proven(self, station: StationRecord, password: bytes) -> bool:
        """Was exactly this login proven before? Then a thousand stations coming back at once cost nothing."""
        proof = _proof(station, password)
        if hmac.compare_digest(self._proofs.get(station.pk, ""), proof):
            return True
        note = await self._exchange.get(f"login:{station.pk}")
        if note is None or not hmac.compare_digest(note, proof):
            return False
        self._proofs[station.pk] = proof
        return True

    async def _prove(self, station: StationRecord, password: bytes) -> None:
        proof = self._proofs[station.pk] = _proof(station, password)
        await self._exchange.note(f"login:{station.pk}", proof, PROOF_KEEP_S)

    async def note_proofs_again(self) -> None:
        """Redis may have come back empty: what was proven here need not be proven anew elsewhere."""
        await self._exchange.note_all({f"login:{pk}": proof for pk, proof in self._proofs.items()}, PROOF_KEEP_S)


def place_of(address: str) -> str:
    """Who counts as one: an IPv4 address, or the /64 network a single IPv6 host may choose its addresses from."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return address
    if isinstance(found, ipaddress.IPv6Address):
        if found.ipv4_mapped is not None:
            return str(found.ipv4_mapped)
        return str(ipaddress.IPv6Network((int(found) >> 64 << 64, 64)))
    return str(found)


def _hashes(station: StationRecord) -> tuple[str, ...]:
    """The hash of the newest password, and those of old ones while they are valid; always at least two."""
    security = station.security
    valid = security.old_password_until is not None and datetime.now(UTC) < security.old_password_until
    olds = security.old_password_hash.split() if valid else []
    return (station.password_hash, *(olds or [""]))


def _proof(station: StationRecord, password: bytes) -> str:
    """Worthless without the secret key, and void as soon as the password is changed."""
    body = station.password_hash.encode() + b"\0" + password
    return hmac.new(settings.SECRET_KEY.encode(), body, hashlib.sha256).hexdigest()


def _same_user(user: bytes, identity: str) -> bool:
    """Letter case does not count, as it does not in the address (Q3)."""
    names = (user, unquote_to_bytes(user))
    return identity.casefold() in [name.decode("utf-8", "replace").casefold() for name in names]

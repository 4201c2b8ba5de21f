"""The door of a gateway: what happens between a connection's first byte and the station's first frame.

It answers the handshake: who is it, may it come in, in which dialect. A refusal tells nothing. What the station then
says is the gateway's and the session's.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from http import HTTPStatus
from pathlib import Path
from typing import NamedTuple

from django.conf import settings
from django.db import DatabaseError
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.datastructures import Headers
from websockets.exceptions import NegotiationError
from websockets.http11 import Request, Response
from websockets.typing import Subprotocol

from csms import authority, credentials, security_events, stations
from csms import listeners as places
from csms.admission import Came, Doorkeeper, Login, Refused, dialect_of, identity_of, wrong
from csms.counting import HANDSHAKES
from csms.exchange import Exchange
from csms.listeners import Files, Kind, Listener
from csms.memory import Memory, StationRecord
from csms.porch import Porch, standing
from csms.schemas import V16
from csms.security_events import Watch
from csms.showing import Shown, by_proxy, by_tls
from csms.sign_of_life import PATHS, SignOfLife
from csms.tls import Wardrobe
from csms.writer import Writer, WriterFull

log = logging.getLogger(__name__)

HANDSHAKE_S = 20.0
BACKLOG = 4096  # connections the kernel holds for us while a storm is let in; it has a cap of its own
CLOSE_S = 5.0
LOOK_EVERY_S = 5.0
_FORWARDED = ("Forwarded", "X-Forwarded-For", "X-Forwarded-Proto", "X-Real-IP")
_BODY = b"No station may connect here in this way.\n"


class Arrival(NamedTuple):
    """A station that was let in: its record, and how it came."""

    record: StationRecord
    offered: bool  # did it offer a sub-protocol at all?
    address: str
    profile: int
    certificate: str  # the fingerprint of the one it showed


def configured(host: str, port: int) -> list[Listener]:
    """Where to listen: as `OCPP_LISTENERS` says, else at this one address as the older settings say.

    Raises `ListenerNotValid`.
    """
    own = authority.files()
    if settings.OCPP_LISTENERS:
        return places.read(settings.OCPP_LISTENERS, own)
    if not settings.OCPP_TLS_CERT:
        return [Listener(Kind.LAB if places.is_loopback(host) else Kind.PLAIN, host, port)]
    key = settings.OCPP_TLS_KEY or settings.OCPP_TLS_CERT
    ca = settings.OCPP_TLS_CLIENT_CA
    named = Files(((Path(settings.OCPP_TLS_CERT), Path(key)),), Path(ca) if ca else None)
    return [Listener(Kind.TLS, host, port, named.certificates, named.client_ca)]


class Door:
    """Lets stations in, at every listener. `arrived` hands over who was let in."""

    def __init__(self, memory: Memory, writer: Writer, exchange: Exchange) -> None:
        self.doorkeeper = Doorkeeper(exchange, lambda: memory.revoked)
        self.porch = Porch()
        self.watch = Watch(lambda sighting: writer.post(partial(security_events.keep, sighting)))
        self.listeners: list[Listener] = []
        self._memory = memory
        self._writer = writer
        self._arriving: dict[ServerConnection, Arrival] = {}
        self._servers: list[Server] = []
        self._wardrobes: list[Wardrobe] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._closing: set[asyncio.Task[None]] = set()
        self.sign_of_life: SignOfLife | None = None

    async def open(
        self, converse: Callable[[ServerConnection], Awaitable[None]], listeners: Sequence[Listener]
    ) -> None:
        """Take the addresses, without letting anyone in yet.

        Raises `OSError` when a port is taken, and `ssl.SSLError` or `OSError` for a bad certificate.
        """
        try:
            for listener in listeners:
                self._servers.append(await self._open_one(converse, listener))
                self.listeners.append(listener)
        except OSError:
            await self.shut(1001, "the gateway does not start")
            raise

    async def _open_one(self, converse: Callable[[ServerConnection], Awaitable[None]], listener: Listener) -> Server:
        wardrobe = Wardrobe(listener) if listener.speaks_tls else None
        if wardrobe is not None:
            self._wardrobes.append(wardrobe)
        return await serve(
            converse,
            listener.host,
            listener.port,
            create_connection=standing(
                self.porch,
                lambda: wardrobe.context if wardrobe is not None else None,
                self._no_handshake,
                crowded=listener.kind is Kind.PROXY,
            ),
            select_subprotocol=select_subprotocol,
            process_request=partial(self.handshake, listener),
            compression=None,
            max_size=settings.OCPP_MAX_FRAME_BYTES,
            ping_interval=None,  # the gateway pings all in turn; many answer none (Q7), a dead network is found by TCP
            open_timeout=HANDSHAKE_S,
            close_timeout=CLOSE_S,
            server_header=None,
            logger=logging.getLogger("websockets.server"),
            start_serving=False,
            backlog=BACKLOG,
            reuse_port=settings.GATEWAYS > 1 or None,
        )

    async def start_serving(self) -> None:
        for server, listener in zip(self._servers, self.listeners, strict=True):
            await server.start_serving()
            log.info("stations may come to %s", replace(listener, port=_port_of(server)))
        self._tasks.append(asyncio.create_task(self._look_after()))

    def stop_accepting(self) -> None:
        """New connections go to another gateway; who is in stays in."""
        for server in self._servers:
            server.close(close_connections=False)

    async def shut(self, code: int, reason: str) -> None:
        """Let nobody in any more, and close every socket that came in."""
        for server in self._servers:
            for connection in list(server.connections):
                self._closing.add(task := asyncio.create_task(connection.close(code, reason)))
                task.add_done_callback(self._closing.discard)
        for task in self._tasks:
            task.cancel()
        for server in self._servers:
            server.close(code=code, reason=reason)
        self.porch.clear()
        for server in self._servers:
            await server.wait_closed()
        self.watch.flush(datetime.now(UTC), everything=True)

    @property
    def port(self) -> int:
        """Of the first listener."""
        return self.ports[0]

    @property
    def ports(self) -> list[int]:
        """Of each listener, in their order."""
        return [_port_of(server) for server in self._servers]

    def arrived(self, connection: ServerConnection) -> Arrival | None:
        """Who came in over this connection; asked once."""
        return self._arriving.pop(connection, None)

    def close(self) -> None:
        self.doorkeeper.close()

    def certificates_changed(self) -> int:
        """Take the certificate files as they are now (SIGHUP); how many listeners have new ones."""
        return sum(wardrobe.look(anyway=True) for wardrobe in self._wardrobes)

    async def _look_after(self) -> None:
        """Every few seconds: changed certificate files, and counts of what repeats at the door."""
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            for wardrobe in self._wardrobes:
                wardrobe.look()
            self.watch.flush(datetime.now(UTC))

    # ------------------------------------------------------------------ one handshake

    async def handshake(self, listener: Listener, connection: ServerConnection, request: Request) -> Response | None:
        """Let a station in (None), or answer with a refusal that tells nothing."""
        if request.path in PATHS and self.sign_of_life is not None:
            return await self.sign_of_life.answer(request.path)
        refusal = await self._let_in(listener, connection, request)
        HANDSHAKES.add("let_in" if refusal is None else str(refusal.status_code))
        return refusal

    async def _let_in(self, listener: Listener, connection: ServerConnection, request: Request) -> Response | None:
        peer = _peer(connection)
        address, identity = peer, ""
        record: StationRecord | None = None
        try:
            identity = identity_of(request.path)
            came = self._came(listener, connection, request, peer)
            address = came.address
            record = await self._memory.find_station(identity)
            record, login = await self._admit(record, identity, request, came)
            fingerprint = came.certificate.fingerprint if came.certificate is not None else ""
        except Refused as refused:
            if refused.kind:
                self._see(refused.kind, record, identity, address, refused.detail)
            return _response(refused.status)
        except (DatabaseError, WriterFull) as error:
            log.warning("a station could not be let in: %s", error)
            return _response(HTTPStatus.SERVICE_UNAVAILABLE)
        if "upgrade" not in (request.headers.get("Connection") or "").lower():
            del request.headers["Connection"]  # some firmware forgets it (Q4)
            request.headers["Connection"] = "Upgrade"
        offered = request.headers.get_all("Sec-WebSocket-Protocol")
        self._arriving[connection] = Arrival(record, bool(offered), address, login.profile, fingerprint)
        return None

    def _came(self, listener: Listener, connection: ServerConnection, request: Request, peer: str) -> Came:
        """Where it comes from and what it shows. Headers of a proxy are believed from that proxy alone (H3)."""
        headers = request.headers
        if listener.trusts(peer):
            return _behind_proxy(listener, headers, peer)
        if listener.kind is Kind.PROXY:
            raise wrong("HeaderSpoofed", "it is not the proxy, and came to the proxy's door")
        if listener.speaks_tls:
            shown = by_tls(connection.transport.get_extra_info("ssl_object"))
            return Came(listener.kind, peer, True, shown)
        kind = listener.kind
        if kind is Kind.LAB and any(name in headers for name in _FORWARDED):
            kind = Kind.PLAIN  # somebody brought it here from elsewhere: this is no laboratory
        return Came(kind, peer, False)

    async def _admit(
        self, station: StationRecord | None, identity: str, request: Request, came: Came
    ) -> tuple[StationRecord, Login]:
        header = _one(request.headers, "Authorization")
        if station is None:
            full = self._memory.quarantined() >= settings.OCPP_MAX_QUARANTINED
            if not settings.OCPP_ALLOW_UNKNOWN or full:
                await self.doorkeeper.admit(None, identity, header, came)
            if came.certificate is not None:
                self.doorkeeper.check_certificate(came.certificate, identity)
            elif came.kind is Kind.MUTUAL:
                raise wrong("CertificateRefused", "none was shown")
            return await self._quarantine(identity, came.address), Login(0)
        login = await self.doorkeeper.admit(
            station, station.identity, header, came, partial(self._memory.refresh_station, station.pk)
        )
        if station.rejected:
            raise Refused(HTTPStatus.FORBIDDEN)
        self._remember(station, login)
        return station, login

    def _remember(self, station: StationRecord, login: Login) -> None:
        """What a login changes: the profile it came with, and the end of the old password."""
        security = station.security
        news = login.with_new_password and bool(security.old_password_hash)
        reached = security.wanted_profile is not None and login.profile >= security.wanted_profile
        if news or reached or security.seen_profile != login.profile:
            self._writer.post(partial(credentials.logged_in, station.pk, login.profile, news, station.password_hash))

    async def _quarantine(self, identity: str, address: str) -> StationRecord:
        """A station nobody has entered gets a row, and waits there for an operator's word."""
        pk = await asyncio.wait_for(self._writer.submit(partial(stations.found, identity, address)), HANDSHAKE_S / 2)
        record = await self._memory.refresh_station(pk)
        if record is None:
            raise Refused(HTTPStatus.SERVICE_UNAVAILABLE)
        log.info("unknown station %s waits in quarantine", identity)
        return record

    def _see(self, kind: str, record: StationRecord | None, identity: str, address: str, detail: str) -> None:
        pk = record.pk if record is not None else None
        now = datetime.now(UTC)
        self.watch.see(kind, now, station_pk=pk, identity=identity, address=address, detail=detail)

    def _no_handshake(self, address: str, error: BaseException) -> None:
        """TLS came to nothing. A certificate that was refused is told; what only looked in is not."""
        reason = getattr(error, "verify_message", "") or getattr(error, "reason", "") or ""
        if reason:
            kind = "CertificateRefused" if isinstance(error, ssl.SSLCertVerificationError) else "TlsHandshakeFailed"
            self._see(kind, None, "", address, str(reason))


def _behind_proxy(listener: Listener, headers: Headers, peer: str) -> Came:
    """The client as its proxy tells: each header must come once, and the nearest address of a list counts."""
    told = [part.strip() for value in headers.get_all(listener.headers["address"]) for part in value.split(",")]
    address = peer
    for hop in reversed([t for t in told if t]):
        address = hop.strip("[]")[:64]
        if not listener.trusts(address):
            break  # further to the left is what the client itself wrote
    scheme = (_one(headers, listener.headers["scheme"]) or "https").lower()
    named = headers.get_all(listener.headers["certificate"])
    if len(named) > 1:
        raise wrong("HeaderSpoofed", "more than one certificate header")
    try:
        shown: Shown | None = by_proxy(named[0] if named else None)
    except ValueError as error:
        raise wrong("CertificateRefused", str(error)) from None
    return Came(Kind.PROXY, address, scheme in ("https", "wss"), shown)


def select_subprotocol(connection: ServerConnection, offered: Sequence[Subprotocol]) -> Subprotocol | None:
    """Refused here it is no upgrade (400), as the certification's TC_B_58 wants it.

    1.6-J §3.1.2 would have a handshake without a sub-protocol and then a close; a station sees the same failure.
    """
    chosen = dialect_of(offered)
    if chosen is None:
        raise NegotiationError("speak ocpp2.0.1 or ocpp1.6")
    return Subprotocol(chosen[1]) if chosen[1] else None


def dialect_name(chosen: str | None) -> str:
    """The dialect behind the spelling that was agreed on."""
    found = dialect_of([chosen] if chosen else [])
    return found[0] if found is not None else V16


def _response(status: HTTPStatus) -> Response:
    headers = Headers({"Content-Type": "text/plain; charset=utf-8", "Content-Length": str(len(_BODY))})
    headers["Connection"] = "close"
    if status is HTTPStatus.UNAUTHORIZED:
        headers["WWW-Authenticate"] = 'Basic realm="ocpp", charset="UTF-8"'
    return Response(status.value, status.phrase, headers, _BODY)


def _one(headers: Headers, name: str) -> str | None:
    values = headers.get_all(name)
    return values[0] if values else None


def _port_of(server: Server) -> int:
    port: int = next(iter(server.sockets)).getsockname()[1]
    return port


def _peer(connection: ServerConnection) -> str:
    peer = connection.remote_address
    return str(peer[0]) if isinstance(peer, tuple) and peer else "unknown"

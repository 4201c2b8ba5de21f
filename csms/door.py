"""The door of a gateway: what happens between a connection's first byte and the station's first frame.

It answers the handshake: who is it, may it come in, in which dialect. A refusal tells nothing. What the station then
says is the gateway's and the session's.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from http import HTTPStatus
from typing import NamedTuple

from django.conf import settings
from django.db import DatabaseError
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.datastructures import Headers
from websockets.exceptions import NegotiationError
from websockets.http11 import Request, Response
from websockets.typing import Subprotocol

from csms import stations
from csms.admission import Doorkeeper, Refused, certificate_name, dialect_of, identity_of
from csms.exchange import Exchange
from csms.memory import Memory, StationRecord
from csms.schemas import V16
from csms.wire import Wire
from csms.writer import Writer, WriterFull

log = logging.getLogger(__name__)

HANDSHAKE_S = 20.0
CLOSE_S = 5.0
_BODY = b"No station may connect here in this way.\n"


class Arrival(NamedTuple):
    """A station that was let in: its record, and how it came."""

    record: StationRecord
    offered: bool  # did it offer a sub-protocol at all?
    address: str


class Door:
    """Lets stations in. `handshake` answers a request, `arrived` hands over who was let in."""

    def __init__(self, memory: Memory, writer: Writer, exchange: Exchange) -> None:
        self.doorkeeper = Doorkeeper(exchange)
        self._memory = memory
        self._writer = writer
        self._arriving: dict[ServerConnection, Arrival] = {}
        self._servers: list[Server] = []

    async def open(self, converse: Callable[[ServerConnection], Awaitable[None]], host: str, port: int) -> None:
        """Take the address, without letting anyone in yet.

        Raises `OSError` when the port is taken, and `ssl.SSLError` or `OSError` for a bad certificate.
        """
        server = await serve(
            converse,
            host,
            port,
            ssl=tls_context(),
            select_subprotocol=select_subprotocol,
            process_request=self.handshake,
            compression=None,
            max_size=settings.OCPP_MAX_FRAME_BYTES,
            create_connection=Wire,
            ping_interval=None,  # the gateway pings all in turn; many answer none (Q7), a dead network is found by TCP
            open_timeout=HANDSHAKE_S,
            close_timeout=CLOSE_S,
            server_header=None,
            logger=logging.getLogger("websockets.server"),
            start_serving=False,
        )
        self._servers.append(server)

    async def start_serving(self) -> None:
        for server in self._servers:
            await server.start_serving()

    async def shut(self, code: int, reason: str) -> None:
        """Let nobody in any more, and close every socket that came in."""
        for server in self._servers:
            server.close(code=code, reason=reason)
        for server in self._servers:
            await server.wait_closed()

    @property
    def port(self) -> int:
        """Of the first listener."""
        port: int = next(iter(self._servers[0].sockets)).getsockname()[1]
        return port

    def close(self) -> None:
        self.doorkeeper.close()

    def arrived(self, connection: ServerConnection) -> Arrival | None:
        """Who came in over this connection; asked once."""
        return self._arriving.pop(connection, None)

    async def handshake(self, connection: ServerConnection, request: Request) -> Response | None:
        """Let a station in (None), or answer with a refusal that tells nothing."""
        try:
            record = await self._admit(connection, request)
        except Refused as refused:
            return _response(refused.status)
        except (DatabaseError, WriterFull) as error:
            log.warning("a station could not be let in: %s", error)
            return _response(HTTPStatus.SERVICE_UNAVAILABLE)
        if "upgrade" not in (request.headers.get("Connection") or "").lower():
            del request.headers["Connection"]  # some firmware forgets it (Q4)
            request.headers["Connection"] = "Upgrade"
        offered = request.headers.get_all("Sec-WebSocket-Protocol")
        self._arriving[connection] = Arrival(record, bool(offered), _address(connection))
        return None

    async def _admit(self, connection: ServerConnection, request: Request) -> StationRecord:
        identity = identity_of(request.path)
        station = await self._memory.find_station(identity)
        address = _address(connection)
        tls = connection.transport.get_extra_info("ssl_object")
        header = _one(request.headers, "Authorization")
        if station is None:
            full = self._memory.quarantined() >= settings.OCPP_MAX_QUARANTINED
            if not settings.OCPP_ALLOW_UNKNOWN or full:
                await self.doorkeeper.admit(None, identity, header, address, certificate_name(tls))
            return await self._quarantine(identity, address)
        await self.doorkeeper.admit(station, station.identity, header, address, certificate_name(tls))
        if station.rejected:
            raise Refused(HTTPStatus.FORBIDDEN)
        return station

    async def _quarantine(self, identity: str, address: str) -> StationRecord:
        """A station nobody has entered gets a row, and waits there for an operator's word."""
        pk = await asyncio.wait_for(self._writer.submit(partial(stations.found, identity, address)), HANDSHAKE_S / 2)
        record = await self._memory.refresh_station(pk)
        if record is None:
            raise Refused(HTTPStatus.SERVICE_UNAVAILABLE)
        log.info("unknown station %s waits in quarantine", identity)
        return record


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


def tls_context() -> ssl.SSLContext | None:
    """TLS 1.2 or newer from `OCPP_TLS_*`; with a client CA, certificates of stations are asked for and verified."""
    if not settings.OCPP_TLS_CERT:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    context.load_cert_chain(settings.OCPP_TLS_CERT, settings.OCPP_TLS_KEY or None)
    if settings.OCPP_TLS_CLIENT_CA:
        context.load_verify_locations(settings.OCPP_TLS_CLIENT_CA)
        context.verify_mode = ssl.CERT_OPTIONAL  # without one a password is needed; see `Doorkeeper.admit`
    return context


def _response(status: HTTPStatus) -> Response:
    headers = Headers({"Content-Type": "text/plain; charset=utf-8", "Content-Length": str(len(_BODY))})
    headers["Connection"] = "close"
    if status is HTTPStatus.UNAUTHORIZED:
        headers["WWW-Authenticate"] = 'Basic realm="ocpp", charset="UTF-8"'
    return Response(status.value, status.phrase, headers, _BODY)


def _one(headers: Headers, name: str) -> str | None:
    values = headers.get_all(name)
    return values[0] if values else None


def _address(connection: ServerConnection) -> str:
    peer = connection.remote_address
    return str(peer[0]) if isinstance(peer, tuple) and peer else "unknown"

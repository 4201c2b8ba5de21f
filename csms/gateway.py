"""The websocket server that stations connect to: the door, the newest socket of each station, and a graceful end.

    ws://HOST:9000/ocpp/<identity>      sub-protocols ocpp2.0.1 and ocpp1.6, basic auth with the identity as user

Many gateways run side by side. The newest authenticated socket of a station owns it, by an epoch that grows in Redis;
a gateway that sees a newer epoch closes its own socket. A lost Redis or database ends neither the process nor the
sockets: heartbeats are answered, transactions wait until they are durable, limits expire to the fail-safe.
"""

from __future__ import annotations

import asyncio
import logging
import socket as sockets
import ssl
import uuid
from collections.abc import Sequence
from datetime import datetime
from functools import partial
from http import HTTPStatus
from typing import Any

from django.conf import settings
from django.db import DatabaseError
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.datastructures import Headers
from websockets.exceptions import NegotiationError
from websockets.http11 import Request, Response
from websockets.typing import Subprotocol

from csms import stations
from csms.admission import Doorkeeper, Refused, certificate_name, dialect_of, identity_of
from csms.bus import CallNotValid, CallRefused, NoAnswer, StationUnreachable
from csms.exchange import AWAY, Exchange
from csms.memory import Memory, StationRecord, read_open_transactions
from csms.ocpp16 import station as ocpp16
from csms.ocpp201 import station as ocpp201
from csms.rpc import ASKED
from csms.schemas import V16, V201, dialect
from csms.session import Dialect, Knobs, Services, Session
from csms.writer import Writer, WriterFull

log = logging.getLogger(__name__)

HOLD_EVERY_S = 10.0
REFRESH_EVERY_S = 30.0
PING_EVERY_S = 20.0
DEAD_AFTER_MS = 45_000  # without an acknowledgement of what we sent, the network is gone
HANDSHAKE_S = 20.0
CLOSE_S = 5.0
CALLS_AT_ONCE = 1_000
_SPEAKS: dict[str, Dialect] = {V16: ocpp16, V201: ocpp201}
_BODY = b"No station may connect here in this way.\n"


class Gateway:
    """One gateway process. `start`, `port`, `stop`."""

    def __init__(self, *, knobs: Knobs | None = None) -> None:
        self.name = f"{sockets.gethostname()[:20]}-{uuid.uuid4().hex[:12]}"
        self.knobs = knobs or Knobs(
            heartbeat_s=settings.OCPP_HEARTBEAT_S,
            meter_interval_s=settings.OCPP_METER_INTERVAL_S,
            call_timeout_s=settings.OCPP_CALL_TIMEOUT_S,
            lease_s=settings.LIMIT_LEASE_S,
            messages_per_s=settings.OCPP_MAX_MESSAGES_PER_S,
        )
        self.sessions: dict[str, Session] = {}
        self._arriving: dict[ServerConnection, tuple[StationRecord, bool]] = {}
        self._calls: set[asyncio.Task[None]] = set()
        self._tasks: list[asyncio.Task[None]] = []
        self._server: Server | None = None
        self._stopping = False

    # ------------------------------------------------------------------ start and stop

    async def start(self, port: int = 0, host: str = "127.0.0.1") -> None:
        """Listen. Raises `OSError` when the port is taken, and `ssl.SSLError` or `OSError` for a bad certificate."""
        tls = tls_context()
        for name in (V16, V201):
            dialect(name)
        self.exchange = Exchange(
            self.name,
            settings.REDIS_URL,
            on_want=self._wanted,
            on_changed=self._changed,
            on_taken=self._taken,
            on_call=self._called,
            on_back=self._redis_back,
        )
        self.memory = Memory()
        self.writer = Writer(self.exchange.publish)
        self.services = Services(self.memory, self.writer, self.exchange, self.knobs)
        self.doorkeeper = Doorkeeper(self.exchange)
        self._server = await serve(
            self._converse,
            host,
            port,
            ssl=tls,
            select_subprotocol=_select_subprotocol,
            process_request=self._at_the_door,
            compression=None,
            max_size=settings.OCPP_MAX_FRAME_BYTES,
            max_queue=16,
            ping_interval=PING_EVERY_S,
            ping_timeout=None,  # many stations answer no pings (Q7); a dead network is found by TCP
            open_timeout=HANDSHAKE_S,
            close_timeout=CLOSE_S,
            server_header=None,
            logger=logging.getLogger("websockets.server"),
            start_serving=False,
        )
        self.writer.start()
        await self.memory.fill()
        await self.exchange.start()
        await self._server.start_serving()
        self._tasks = [
            asyncio.create_task(self._every(HOLD_EVERY_S, self._hold)),
            asyncio.create_task(self._every(REFRESH_EVERY_S, self._refresh)),
        ]

    @property
    def port(self) -> int:
        assert self._server is not None
        port: int = next(iter(self._server.sockets)).getsockname()[1]
        return port

    async def stop(self) -> None:
        """Close every socket with 1001, let go of the stations, and write what waits."""
        self._stopping = True
        for task in self._tasks:
            task.cancel()
        if self._server is not None:
            self._server.close(code=1001, reason="the gateway stops")
            await self._server.wait_closed()
        for task in list(self._calls):
            task.cancel()
        await asyncio.gather(*self._tasks, *self._calls, return_exceptions=True)
        await self.writer.stop()
        await asyncio.sleep(0)  # what was written last is announced
        await self.exchange.stop()
        await self.memory.close()
        self.doorkeeper.close()

    async def _every(self, seconds: float, work: Any) -> None:
        while True:
            await asyncio.sleep(seconds)
            try:
                await work()
            except AWAY as error:
                log.warning("Redis is away: %s", type(error).__name__)
            except Exception:
                log.exception("a periodic duty of the gateway failed")

    # ------------------------------------------------------------------ the door

    async def _at_the_door(self, connection: ServerConnection, request: Request) -> Response | None:
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
        self._arriving[connection] = (record, bool(offered))
        return None

    async def _admit(self, connection: ServerConnection, request: Request) -> StationRecord:
        identity = identity_of(request.path)
        station = await self.memory.find_station(identity)
        address = _address(connection)
        tls = connection.transport.get_extra_info("ssl_object")
        if station is None:
            full = self.memory.quarantined() >= settings.OCPP_MAX_QUARANTINED
            if not settings.OCPP_ALLOW_UNKNOWN or full:
                header = _one(request.headers, "Authorization")
                await self.doorkeeper.admit(None, identity, header, address, certificate_name(tls))
            return await self._quarantine(identity, address)
        await self.doorkeeper.admit(
            station, station.identity, _one(request.headers, "Authorization"), address, certificate_name(tls)
        )
        if station.rejected:
            raise Refused(HTTPStatus.FORBIDDEN)
        return station

    async def _quarantine(self, identity: str, address: str) -> StationRecord:
        """A station nobody has entered gets a row, and waits there for an operator's word."""
        pk = await asyncio.wait_for(self.writer.submit(partial(stations.found, identity, address)), HANDSHAKE_S / 2)
        record = await self.memory.refresh_station(pk)
        if record is None:
            raise Refused(HTTPStatus.SERVICE_UNAVAILABLE)
        log.info("unknown station %s waits in quarantine", identity)
        return record

    # ------------------------------------------------------------------ a station's socket

    async def _converse(self, connection: ServerConnection) -> None:
        """From the handshake to the last frame."""
        arriving = self._arriving.pop(connection, None)
        if arriving is None or self._stopping:
            return
        record, offered = arriving
        name = _dialect_name(connection.subprotocol)
        session = Session(self.services, record, _SPEAKS[name], connection)  # type: ignore[arg-type]
        if not offered:
            session.count("no_subprotocol")
        elif connection.subprotocol not in (V16, V201):
            session.count("subprotocol_spelling")
        _watch_the_network(connection)
        older = self.sessions.get(record.identity)
        self.sessions[record.identity] = session
        await self._claim(session)
        if older is not None:
            session.spawn(older.connection.close(1008, "a newer connection took over"))
        if self.sessions.get(record.identity) is not session:
            await connection.close(1008, "a newer connection took over")
            return
        try:
            running = await self.memory.read(partial(read_open_transactions, record.pk))
            # A transaction that began in the other dialect has an id that cannot be said in this one.
            session.transactions = {n: t for n, t in running.items() if name == V201 or t.isdecimal()}
        except DatabaseError as error:
            log.warning("the open transactions of %s are not known yet: %s", record.identity, error)
        now = session.now()
        self.writer.post(partial(stations.connected, record.pk, name, _address(connection), now))
        log.info("%s connected, %s", record.identity, name)
        try:
            await session.run()
        finally:
            await self._left(session)

    async def _claim(self, session: Session) -> None:
        try:
            session.epoch = await self.exchange.claim(session.identity, session.holds())
        except AWAY as error:
            log.warning("%s is held without Redis for now: %s", session.identity, type(error).__name__)

    async def _left(self, session: Session) -> None:
        """The socket is gone. If a newer one is there, the station never left."""
        if self.sessions.get(session.identity) is not session:
            return
        del self.sessions[session.identity]
        log.info("%s disconnected", session.identity)
        if session.epoch:
            await self.exchange.release({session.identity: session.epoch})
        self.writer.post(partial(stations.disconnected, session.record.pk, session.now()))

    async def _hold(self) -> None:
        """Renew what we hold; close what a newer socket took elsewhere; write when each was last heard."""
        for session in list(self.sessions.values()):
            if not session.epoch:
                await self._claim(session)
        holds = {s.identity: (s.epoch, s.holds()) for s in self.sessions.values() if s.epoch}
        for identity, newest in (await self.exchange.hold(holds)).items():
            self._taken(identity, newest)
        heard: dict[int, datetime] = {}
        for session in self.sessions.values():
            if session.heard_at is not None:
                heard[session.record.pk], session.heard_at = session.heard_at, None
            session.flush_counters()
        if heard:
            self.writer.post(partial(stations.seen, heard))

    def _taken(self, identity: str, epoch: int) -> None:
        session = self.sessions.get(identity)
        if session is not None and session.epoch and epoch > session.epoch:
            session.spawn(session.connection.close(1008, "a newer connection took over"))

    # ------------------------------------------------------------------ told by Redis

    def _wanted(self, identity: str, evse: int) -> None:
        session = self.sessions.get(identity)
        if session is not None:
            session.spawn(session.keeper.fetch([evse]))

    def _redis_back(self) -> None:
        """What was missed while Redis was away is asked for again."""
        for session in self.sessions.values():
            session.spawn(session.keeper.fetch())
        if self.sessions:
            self._calls_task(self._refresh())

    def _changed(self, kind: str, pk: Any) -> None:
        if kind == "token":
            self._calls_task(self.memory.refresh_token(int(pk)))
        elif kind == "station":
            self._calls_task(self._station_changed(int(pk)))

    def _calls_task(self, work: Any) -> None:
        task = asyncio.ensure_future(work)
        self._calls.add(task)
        task.add_done_callback(self._calls.discard)

    async def _station_changed(self, pk: int) -> None:
        before = self.memory.by_pk.get(pk)
        after = await self.memory.refresh_station(pk)
        self._follow_record(before, after)

    async def _refresh(self) -> None:
        before = dict(self.memory.by_pk)
        await self.memory.fill()
        for session in list(self.sessions.values()):
            pk = session.record.pk
            if before.get(pk) != self.memory.by_pk.get(pk):
                self._follow_record(before.get(pk), self.memory.by_pk.get(pk))

    def _follow_record(self, before: StationRecord | None, after: StationRecord | None) -> None:
        """The record of a connected station changed under it."""
        name = after.identity if after is not None else before.identity if before is not None else ""
        session = self.sessions.get(name)
        if session is None:
            return
        if after is None or after.rejected:
            session.spawn(session.connection.close(1008, "this station is not admitted"))
        else:
            session.changed(before, after)

    # ------------------------------------------------------------------ one-off calls

    def _called(self, body: dict[str, Any]) -> None:
        """A call for one of our stations; made once, answered once."""
        if len(self._calls) >= CALLS_AT_ONCE:
            self._calls_task(self.exchange.reply(str(body["id"]), {"kind": "timeout", "description": "too busy"}))
            return
        self._calls_task(self._call(str(body["id"]), body))

    async def _call(self, call_id: str, body: dict[str, Any]) -> None:
        session = self.sessions.get(str(body.get("identity")))
        if session is None or int(body.get("epoch", 0)) != session.epoch:
            await self.exchange.reply(call_id, {"kind": "unreachable"})
            return
        action, payload = str(body.get("action", "")), body.get("payload")
        session.asking(action, payload if isinstance(payload, dict) else {})
        try:
            result = await session.connection.call(
                action,
                payload if isinstance(payload, dict) else {},
                timeout_s=float(body.get("timeout_s") or self.knobs.call_timeout_s),
                rank=ASKED,
            )
            reply: dict[str, Any] = {"kind": "result", "result": result}
            session.answered(action, payload if isinstance(payload, dict) else {}, result)
        except CallNotValid as error:
            reply = {"kind": "invalid", "description": str(error)}
        except CallRefused as error:
            reply = {"kind": "error", "code": error.code, "description": error.description, "details": error.details}
        except StationUnreachable:
            reply = {"kind": "unreachable"}
        except NoAnswer as error:
            reply = {"kind": "timeout", "description": str(error)}
        await self.exchange.reply(call_id, reply)


# ---------------------------------------------------------------------- the handshake's small questions


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


def _select_subprotocol(connection: ServerConnection, offered: Sequence[Subprotocol]) -> Subprotocol | None:
    """Refused here it is no upgrade (400), as the certification's TC_B_58 wants it.

    1.6-J §3.1.2 would have a handshake without a sub-protocol and then a close; a station sees the same failure.
    """
    chosen = dialect_of(offered)
    if chosen is None:
        raise NegotiationError("speak ocpp2.0.1 or ocpp1.6")
    return Subprotocol(chosen[1]) if chosen[1] else None


def _dialect_name(chosen: str | None) -> str:
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


def _address(connection: ServerConnection) -> str:
    peer = connection.remote_address
    return str(peer[0]) if isinstance(peer, tuple) and peer else "unknown"


def _watch_the_network(connection: ServerConnection) -> None:
    """Let TCP notice a peer that is gone: we ping, and what is not acknowledged in time ends the connection."""
    sock = connection.transport.get_extra_info("socket")
    option = getattr(sockets, "TCP_USER_TIMEOUT", None)
    if sock is not None and option is not None:
        try:
            sock.setsockopt(sockets.IPPROTO_TCP, option, DEAD_AFTER_MS)
        except OSError:
            log.debug("this socket has no user timeout")

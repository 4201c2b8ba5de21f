"""The websocket server that stations connect to: the door, the newest socket of each station, and a graceful end.

    ws://HOST:9000/ocpp/<identity>      sub-protocols ocpp2.0.1 and ocpp1.6, basic auth with the identity as user

Many gateways run side by side. The newest authenticated socket of a station owns it, by an epoch that grows in Redis;
a gateway that sees a newer epoch closes its own socket. A lost Redis or database ends neither the process nor the
sockets: heartbeats are answered, transactions wait until they are durable, limits expire to the fail-safe.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import socket as sockets
import time
import uuid
from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from functools import partial
from typing import Any
from urllib.parse import quote

from django.conf import settings
from django.db import DatabaseError
from websockets.asyncio.server import ServerConnection

from csms import counting, stations
from csms.bus import CallNotValid, CallRefused, NoAnswer, StationUnreachable
from csms.certificates import Desk
from csms.door import Door, configured, dialect_name
from csms.exchange import AWAY, Exchange
from csms.listeners import Listener
from csms.memory import Memory, StationRecord
from csms.ocpp16 import station as ocpp16
from csms.ocpp201 import station as ocpp201
from csms.rpc import ASKED
from csms.schemas import V16, V201, dialect
from csms.session import Dialect, Knobs, Services, Session
from csms.sign_of_life import SignOfLife
from csms.wire import Wire
from csms.writer import Writer
from meters import logs, metrics

log = logging.getLogger(__name__)

HOLD_EVERY_S = 10.0
REFRESH_EVERY_S = 30.0
CERTIFICATES_EVERY_S = 3600.0
BEAT_ROUND = 20  # seconds in which each socket gets one ping
CLOSED_PER_S, CLOSED_WITHIN_S = 400, 8.0  # at a stop: not all at once, so that they come back spread
ANSWERED_WITHIN_S = 3.0
DEAD_AFTER_MS = 45_000  # without an acknowledgement of what we sent, the network is gone
CALLS_AT_ONCE = 1_000
_SPEAKS: dict[str, Dialect] = {V16: ocpp16, V201: ocpp201}


class Gateway:
    """One gateway process. `start`, `port`, `stop`."""

    def __init__(self, *, knobs: Knobs | None = None, listeners: Sequence[Listener] | None = None) -> None:
        self.name = f"{sockets.gethostname()[:20]}-{uuid.uuid4().hex[:12]}"
        self.knobs = knobs or Knobs(
            heartbeat_s=settings.OCPP_HEARTBEAT_S,
            meter_interval_s=settings.OCPP_METER_INTERVAL_S,
            call_timeout_s=settings.OCPP_CALL_TIMEOUT_S,
            lease_s=settings.LIMIT_LEASE_S,
            messages_per_s=settings.OCPP_MAX_MESSAGES_PER_S,
            keep_heartbeats=settings.OCPP_LOG_HEARTBEATS,
        )
        self._listeners = listeners
        self.sessions: dict[str, Session] = {}
        self._unclaimed: set[str] = set()  # who came while Redis was away
        self._calls: set[asyncio.Task[None]] = set()
        self._tasks: list[asyncio.Task[None]] = []
        self._stopping = False
        self._second = 0
        self._beat_at = 0.0

    # ------------------------------------------------------------------ start and stop

    async def start(self, port: int = 0, host: str = "127.0.0.1") -> None:
        """Listen where the settings say, else at this address.

        Raises `ListenerNotValid`, and `OSError` when a port is taken or a certificate is bad.
        """
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
        self.door = Door(self.memory, self.writer, self.exchange)
        self.door.sign_of_life = SignOfLife(self.memory, self.exchange, lambda: self._stopping)
        self.desk = Desk(self.memory, self.writer, self.door.watch)
        self.services = Services(self.memory, self.writer, self.exchange, self.knobs, desk=self.desk)
        await self.door.open(self._converse, self._listeners or configured(host, port))
        self.writer.start()
        await self.memory.fill()
        await self.exchange.start()
        await self.door.start_serving()
        self._tasks = [
            asyncio.create_task(self._every(HOLD_EVERY_S, self._hold)),
            asyncio.create_task(self._every(REFRESH_EVERY_S, self._refresh)),
            asyncio.create_task(self._every(1.0, self._beat)),
            asyncio.create_task(self._every(metrics.PICTURE_EVERY_S, self._tell_metrics)),
            asyncio.create_task(self._every(CERTIFICATES_EVERY_S, self._certificates)),
        ]

    @property
    def port(self) -> int:
        return self.door.port

    @property
    def ports(self) -> list[int]:
        return self.door.ports

    async def _certificates(self) -> None:
        await self.desk.hourly(list(self.sessions.values()))

    async def stop(self) -> None:
        """Let nobody in, close every socket with 1001 in turn, let go of the stations, and write what waits."""
        self._stopping = True
        self.door.stop_accepting()
        await self._see_off()
        for task in self._tasks:
            task.cancel()
        await self.door.shut(1001, "the gateway stops")
        if self._calls:  # whoever asked is told that the station is gone
            await asyncio.wait(set(self._calls), timeout=2)
        for task in list(self._calls):
            task.cancel()
        await asyncio.gather(*self._tasks, *self._calls, return_exceptions=True)
        await self.writer.stop()
        await asyncio.sleep(0)  # what was written last is announced
        await self.exchange.stop()
        await asyncio.to_thread(metrics.withdraw, metrics.process_name("gateway"))
        await self.memory.close()
        self.door.close()

    async def _see_off(self) -> None:
        """What stations have said is answered first; then each is closed, in no order, at a pace others can take."""
        leaving = list(self.sessions.values())
        random.shuffle(leaving)
        each_s = min(1.0 / CLOSED_PER_S, CLOSED_WITHIN_S / max(1, len(leaving)))
        goodbyes = []
        for session in leaving:
            goodbyes.append(asyncio.create_task(self._goodbye(session)))
            await asyncio.sleep(each_s)
        if goodbyes:
            await asyncio.wait(goodbyes, timeout=ANSWERED_WITHIN_S + 5)

    @staticmethod
    async def _goodbye(session: Session) -> None:
        await session.connection.finish(ANSWERED_WITHIN_S)
        await session.connection.close(1001, "the gateway stops")

    async def _tell_metrics(self) -> None:
        held: Counter[str] = Counter({V16: 0, V201: 0})
        held.update(session.speaks.NAME for session in self.sessions.values())
        for protocol, number in held.items():
            counting.CONNECTIONS.set(number, protocol)
        await asyncio.to_thread(metrics.publish, metrics.process_name("gateway"))

    async def _every(self, seconds: float, work: Any) -> None:
        while True:
            await asyncio.sleep(seconds)
            try:
                await work()
            except AWAY as error:
                log.warning("Redis is away: %s", type(error).__name__)
            except Exception:
                log.exception("a periodic duty of the gateway failed")

    # ------------------------------------------------------------------ a station's socket

    async def _converse(self, connection: ServerConnection) -> None:
        """From the handshake to the last frame."""
        assert isinstance(connection, Wire)
        arrival = self.door.arrived(connection)
        if arrival is None or self._stopping:
            return
        record = arrival.record
        name = dialect_name(connection.subprotocol)
        session = Session(self.services, record, _SPEAKS[name], connection)
        session.certificate = arrival.certificate
        if not arrival.offered:
            session.count("no_subprotocol")
        elif connection.subprotocol not in (V16, V201):
            session.count("subprotocol_spelling")
        if not _plainly_said(connection, record.identity):
            session.count("identity_spelling")
        _watch_the_network(connection)
        connection.forget_handshake()
        older = self.sessions.get(record.identity)
        self.sessions[record.identity] = session
        await self._claim(session)
        logs.about.set({"station": record.identity, "site": record.site_id, "epoch": session.epoch})
        if older is not None:
            session.spawn(older.connection.close(1008, "a newer connection took over"))
        if self.sessions.get(record.identity) is not session:
            await connection.close(1008, "a newer connection took over")
            return
        try:
            running = await self.memory.open_transactions(record.pk)
            # A transaction that began in the other dialect has an id that cannot be said in this one.
            session.transactions = {n: t for n, t in running.items() if name == V201 or t.isdecimal()}
        except DatabaseError as error:
            log.warning("the open transactions of %s are not known yet: %s", record.identity, error)
        now = session.now()
        self.writer.fold(stations.came_or_went, "", stations.Presence(record.pk, now, name, arrival.address))
        log.info("%s connected, %s", record.identity, name)
        try:
            await session.run()
        finally:
            await self._left(session)

    async def _claim(self, session: Session, came: datetime | None = None) -> None:
        """Make the station ours. `came` is given when that could not be done at its moment; it may be another's now."""
        try:
            ours, newest = await self.exchange.claim(session.identity, session.holds(), came)
        except AWAY as error:
            log.warning("%s is held without Redis for now: %s", session.identity, type(error).__name__)
            self._unclaimed.add(session.identity)
            return
        self._unclaimed.discard(session.identity)
        session.epoch = ours
        if not ours:
            log.info("%s came to another gateway later (epoch %d)", session.identity, newest)
            session.spawn(session.connection.close(1008, "a newer connection took over"))

    async def _left(self, session: Session) -> None:
        """The socket is gone. If a newer one is there, the station never left."""
        wire = session.connection.socket
        code = wire.close_code if isinstance(wire, Wire) else None
        counting.CLOSES.add(session.speaks.NAME, str(code or 1006))
        if self.sessions.get(session.identity) is not session:
            return
        del self.sessions[session.identity]
        log.info("%s disconnected", session.identity)
        if session.epoch:
            await self.exchange.release({session.identity: session.epoch})
        self.writer.fold(stations.came_or_went, "", stations.Presence(session.record.pk, session.now()))

    async def _hold(self) -> None:
        """Renew what we hold; close what a newer socket took elsewhere; write when each was last heard."""
        for identity in list(self._unclaimed):  # not who is being claimed at this very moment
            late = self.sessions.get(identity)
            if late is None or late.epoch:
                self._unclaimed.discard(identity)
            else:
                await self._claim(late, late.since)
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

    async def _beat(self) -> None:
        """A ping for the sockets whose turn it is; an end for those that read nothing or never finish a frame."""
        self._second = (self._second + 1) % BEAT_ROUND
        now = asyncio.get_running_loop().time()
        if self._beat_at:
            counting.LOOP_LATE_S.observe(max(0.0, now - self._beat_at - 1.0))
        self._beat_at = now
        for session in list(self.sessions.values()):
            wire = session.connection.socket
            if not isinstance(wire, Wire):
                continue
            fault = wire.fault(now)
            if fault:
                session.count(fault.replace(" ", "_"))
                log.warning("%s is cut off: %s", session.identity, fault)
                wire.refuse(1008, fault)
            elif hash(session.identity) % BEAT_ROUND == self._second:
                wire.beat()

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
            self._calls_task(self._hold_again())
            self._calls_task(self.door.doorkeeper.note_proofs_again())

    async def _hold_again(self) -> None:
        """Redis may have come back empty: say at once who is held here."""
        with contextlib.suppress(*AWAY):
            await self._hold()

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
        elif session.certificate in self.memory.revoked:
            session.spawn(session.connection.close(1008, "its certificate was revoked"))
        else:
            session.changed(before, after)

    # ------------------------------------------------------------------ one-off calls

    def _called(self, body: dict[str, Any]) -> None:
        """A call for one of our stations; made once, answered once."""
        late_s = time.time() - float(body["asked_at"]) - float(body.get("timeout_s") or self.knobs.call_timeout_s)
        if late_s > 0:
            log.warning("a call for %s came %.0f s too late and is not made", body.get("identity"), late_s)
            return
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


def _plainly_said(connection: ServerConnection, identity: str) -> bool:
    """Is the last part of the path the identity as we would write it (Q3)?"""
    path = connection.request.path if connection.request is not None else ""
    return path.rpartition("/")[2] in (identity, quote(identity, safe=""))


def _watch_the_network(connection: ServerConnection) -> None:
    """Let TCP notice a peer that is gone: we ping, and what is not acknowledged in time ends the connection."""
    sock = connection.transport.get_extra_info("socket")
    option = getattr(sockets, "TCP_USER_TIMEOUT", None)
    if sock is not None and option is not None:
        try:
            sock.setsockopt(sockets.IPPROTO_TCP, option, DEAD_AFTER_MS)
        except OSError:
            log.debug("this socket has no user timeout")

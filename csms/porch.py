"""The porch before the door: a connection from its first packet until its request is whole.

Who stands here costs us a socket and says nothing yet. TLS is shaken here, with a time of its own, and so many may
stand from one address; of those, the one that dawdles longest makes room (R20: slow loris). A burst of stations that
come back at once is no crowd: each leaves the porch as soon as its request is there.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from websockets.asyncio.server import ServerConnection
from websockets.protocol import Event

from csms.wire import Wire

log = logging.getLogger(__name__)

TLS_HANDSHAKE_S = 10.0
REQUEST_S = 10.0  # from the first packet to a whole request, TLS included
FROM_ONE_ADDRESS = 256
DAWDLES_AFTER_S = 2.0
AT_ONCE = 20_000


class Porch:
    """Who stands before the door, by address, the longest there first."""

    def __init__(self, *, most_from_one: int = FROM_ONE_ADDRESS, dawdles_after_s: float = DAWDLES_AFTER_S) -> None:
        self._most_from_one = most_from_one
        self._dawdles_after_s = dawdles_after_s
        self._standing: dict[str, OrderedDict[Standing, float]] = {}
        self._total = 0
        self.turned_away = 0

    def __len__(self) -> int:
        return self._total

    def enter(self, who: Standing, address: str, *, crowded: bool = False) -> bool:
        """False: there is no room at all, and this one is turned away."""
        if self._total >= AT_ONCE:
            self.turned_away += 1
            return False
        now = asyncio.get_running_loop().time()
        here = self._standing.setdefault(address, OrderedDict())
        if len(here) >= self._most_from_one and not crowded:
            oldest, since = next(iter(here.items()))
            if now - since >= self._dawdles_after_s:
                self.turned_away += 1
                oldest.turn_away()
        here[who] = now
        self._total += 1
        return True

    def leave(self, who: Standing, address: str) -> None:
        here = self._standing.get(address)
        if here is not None and here.pop(who, None) is not None:
            self._total -= 1
            if not here:
                del self._standing[address]

    def clear(self) -> None:
        """The gateway stops: nobody stands here any more."""
        for here in list(self._standing.values()):
            for who in list(here):
                who.turn_away()


class Standing(ServerConnection):
    """A connection that begins on the porch. `porch` and `context` are set by the class each listener makes of it.

    What is kept here has names of its own: `Wire` and `websockets` stand behind it in the same object.
    """

    porch: Porch
    context: Callable[[], ssl.SSLContext | None]
    crowded = False
    _porch_address = ""
    _porch_raw: asyncio.Transport | None = None
    _porch_early: list[bytes] | None = None
    _porch_timer: asyncio.TimerHandle | None = None
    _porch_gone = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        peer = transport.get_extra_info("peername")
        self._porch_address = str(peer[0]) if isinstance(peer, tuple) and peer else "unknown"
        self._porch_raw = transport  # type: ignore[assignment]
        context = type(self).context()
        if not self.porch.enter(self, self._porch_address, crowded=self.crowded):
            transport.abort()  # type: ignore[attr-defined]
            super().connection_made(transport)
            return
        self._porch_timer = self.loop.call_later(REQUEST_S, self.turn_away)
        if context is None:
            super().connection_made(transport)
            return
        transport.pause_reading()  # type: ignore[attr-defined]
        self._porch_early = []
        task = self.loop.create_task(self._shake(transport, context))  # type: ignore[arg-type]
        self.server.handler_tasks.add(task)
        task.add_done_callback(self.server.handler_tasks.discard)

    async def _shake(self, transport: asyncio.Transport, context: ssl.SSLContext) -> None:
        """Shake TLS, with the certificates of this moment."""
        shaking = self.loop.create_task(
            self.loop.start_tls(transport, self, context, server_side=True, ssl_handshake_timeout=TLS_HANDSHAKE_S)
        )
        try:
            await asyncio.sleep(0)  # now it stands between the transport and us
            hello, self._porch_early = self._porch_early or [], []
            _hand_on(transport.get_protocol(), b"".join(hello))
            secured = await shaking
        except (OSError, ssl.SSLError, asyncio.CancelledError) as error:
            log.info("a TLS handshake from %s failed: %s", self._porch_address, error)
            self.failed(error)
            self._leave()
            transport.abort()
            return
        if secured is None or self._porch_gone:
            self._leave()
            return
        early, self._porch_early = self._porch_early or [], None
        self._porch_raw = secured
        super().connection_made(secured)
        for data in early:
            super().data_received(data)

    def failed(self, error: BaseException) -> None:
        """Told of a TLS handshake that came to nothing."""

    def data_received(self, data: bytes) -> None:
        if self._porch_early is not None:  # came in before the handshake (uvloop does not wait) or with its end
            self._porch_early.append(data)
            return
        super().data_received(data)

    def eof_received(self) -> None:
        if self._porch_early is None:
            super().eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        self._leave()
        if self._porch_early is None:
            super().connection_lost(exc)
        self._porch_gone = True

    def process_event(self, event: Event) -> None:
        if self.request is None:
            self._leave()
        super().process_event(event)

    def turn_away(self) -> None:
        log.info("a connection from %s was closed: it had asked nothing yet", self._porch_address)
        raw = self._porch_raw
        self._leave()
        if raw is not None:
            with contextlib.suppress(Exception):
                raw.abort()

    def _leave(self) -> None:
        if self._porch_address:
            self.porch.leave(self, self._porch_address)
            self._porch_address, self._porch_raw = "", None
        if self._porch_timer is not None:
            self._porch_timer.cancel()
            self._porch_timer = None


def _hand_on(protocol: asyncio.BaseProtocol, data: bytes) -> None:
    """Give a protocol what came in before it was there."""
    taker: Any = protocol  # of asyncio's kind that lends its buffer, on either loop
    while data:
        room = memoryview(taker.get_buffer(len(data)))
        size = min(len(room), len(data))
        room[:size] = data[:size]
        taker.buffer_updated(size)
        data = data[size:]


def standing(
    porch: Porch,
    context: Callable[[], ssl.SSLContext | None],
    failed: Callable[[str, BaseException], None],
    *,
    crowded: bool = False,
) -> Any:
    """The class of connections of one listener. `crowded`: one address is many clients there, as behind a proxy."""

    class OfListener(Standing, Wire):
        def failed(self, error: BaseException) -> None:
            failed(self._porch_address, error)

    OfListener.porch = porch
    OfListener.crowded = crowded
    OfListener.context = staticmethod(context)
    return OfListener

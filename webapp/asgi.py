"""One port for everything people see: Django as WSGI in a few threads, and the live stream as plain ASGI.

Django's own ASGI handler costs milliseconds a request; its WSGI handler does not, and an endless stream would hold a
thread. So `/live/<site>/` is answered here, outside Django's middleware, and so are the files of stations, which may
take a modem an hour; everything else goes to Django.
Run it with `uvicorn webapp.asgi:application --timeout-graceful-shutdown 3`: an open stream never ends by itself.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, cast

from a2wsgi import WSGIMiddleware

from webapp.wsgi import application as django  # sets Django up, before any model is imported

# isort: split
from webapp.dashboard.stream import LiveStream, Receive, Scope, Send
from webapp.station_files import StationFiles

if TYPE_CHECKING:
    from django.core.handlers.wsgi import WSGIHandler

THREADS = 8
App = Callable[[Scope, Receive, Send], Awaitable[None]]


class Application:
    """Sends each connection to the one that can answer it."""

    def __init__(self, pages: WSGIHandler, stream: LiveStream, files: StationFiles | None = None) -> None:
        self.pages: App = cast("App", WSGIMiddleware(cast("Any", pages), workers=THREADS))
        self.stream, self.files = stream, files or StationFiles()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
        elif scope["type"] == "http" and scope["path"].startswith("/live/"):
            await self.stream(scope, receive, send)
        elif scope["type"] == "http" and scope["path"].startswith("/station-files/"):
            await self.files(scope, receive, send)
        elif scope["type"] == "http":
            await self.pages(scope, receive, send)
        else:  # websockets belong to the gateway
            await send({"type": "websocket.close", "code": 1000})

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        while True:
            message = await receive()
            if message["type"] == "lifespan.startup":
                await send({"type": "lifespan.startup.complete"})
            elif message["type"] == "lifespan.shutdown":
                await self.stream.close()
                await send({"type": "lifespan.shutdown.complete"})
                return


application = Application(django, LiveStream())

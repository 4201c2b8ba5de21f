"""The web process as it runs: uvicorn with the composite application, on a free port, in a thread."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn
from django.core.handlers.wsgi import WSGIHandler
from django.db import connections
from django.test import override_settings

from webapp.asgi import Application
from webapp.dashboard.stream import LiveStream


@contextmanager
def served(**stream: float) -> Iterator[str]:
    """The address of a running server; it is gone afterwards."""
    # Its threads give their database connections back after each answer: the tests' database is dropped in the end.
    database = connections["default"].settings_dict
    lasting, database["CONN_MAX_AGE"] = database["CONN_MAX_AGE"], 0
    try:
        with override_settings(ALLOWED_HOSTS=["127.0.0.1"], WHITENOISE_USE_FINDERS=True), _running(**stream) as url:
            yield url
    finally:
        database["CONN_MAX_AGE"] = lasting


@contextmanager
def _running(**stream: float) -> Iterator[str]:
    app = Application(WSGIHandler(), LiveStream(**stream))
    config = uvicorn.Config(app, host="127.0.0.1", port=0, log_level="warning", timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    deadline = time.monotonic() + 10
    while not server.started:
        if time.monotonic() > deadline or not thread.is_alive():
            raise RuntimeError("uvicorn did not start")
        time.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join(10)

"""Is this gateway well? Two addresses on the stations' own port, for balancers and supervisors, under plain HTTP GET.

    /healthz   the process lives and its event loop comes round
    /readyz    besides: database and Redis answer, the tables are there; 503 also while the gateway stops

They tell nothing but these words, and no station is disturbed: they are answered before a handshake begins.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Awaitable, Callable
from http import HTTPStatus

from django.db import DatabaseError, connection
from django.db.migrations.executor import MigrationExecutor
from websockets.datastructures import Headers
from websockets.http11 import Response

from csms.exchange import Exchange
from csms.memory import Memory

PATHS = frozenset({"/healthz", "/readyz"})
KNOWN_FOR_S = 2.0
LONGEST_S = 3.0


class SignOfLife:
    """Answers the two. What it found is good for two seconds: a busy balancer asks the database nothing."""

    def __init__(self, memory: Memory, exchange: Exchange, stopping: Callable[[], bool]) -> None:
        self._memory = memory
        self._exchange = exchange
        self._stopping = stopping
        self._found: dict[str, bool] = {}
        self._at = float("-inf")
        self._looking = asyncio.Lock()
        self._migrated = False
        self._migrations: asyncio.Task[None] | None = None

    async def answer(self, path: str) -> Response:
        parts = {"process": True} if path == "/healthz" else await self._look()
        well = all(parts.values())
        told = {"status": "ok" if well else "failing", **{n: "ok" if ok else "failing" for n, ok in parts.items()}}
        body = json.dumps(told).encode()
        status = HTTPStatus.OK if well else HTTPStatus.SERVICE_UNAVAILABLE
        headers = Headers(
            {
                "Content-Type": "application/json",
                "Content-Length": str(len(body)),
                "Cache-Control": "no-store",
                "Connection": "close",
            }
        )
        return Response(status.value, status.phrase, headers, body)

    async def _look(self) -> dict[str, bool]:
        async with self._looking:
            now = asyncio.get_running_loop().time()
            if now - self._at > KNOWN_FOR_S:
                database, redis = await asyncio.gather(
                    _in_time(self._memory.read(self._database_answers)), _in_time(self._exchange.answers())
                )
                self._found = {"database": database, "redis": redis}
                self._at = asyncio.get_running_loop().time()
                self.look_ahead()
        return {"process": not self._stopping(), "migrations": self._migrated, **self._found}

    def look_ahead(self) -> None:
        """Begin to look at the migrations, so that the answer is known when it is asked for."""
        if not self._migrated and (self._migrations is None or self._migrations.done()):
            self._migrations = asyncio.create_task(self._look_at_migrations())

    async def _look_at_migrations(self) -> None:
        """It takes a second or more, and once they are complete they stay so: nobody waits for it."""
        with contextlib.suppress(DatabaseError):
            self._migrated = await self._memory.read(_all_migrated)

    @staticmethod
    def _database_answers() -> bool:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
            return cursor.fetchone() is not None


def _all_migrated() -> bool:
    executor = MigrationExecutor(connection)
    return not executor.migration_plan(executor.loader.graph.leaf_nodes())


async def _in_time(question: Awaitable[bool]) -> bool:
    try:
        async with asyncio.timeout(LONGEST_S):
            return await question
    except (TimeoutError, DatabaseError):
        return False

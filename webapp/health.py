"""Is this installation well? For load balancers and the supervisor: 200 when the database and Redis answer."""

from __future__ import annotations

import redis
from django.db import Error, connection
from django.http import HttpRequest, JsonResponse

from meters import live


def healthz(request: HttpRequest) -> JsonResponse:
    """`{"status": "ok" | "failing", "process": …, "database": …, "redis": …}`; details are in the log, not here."""
    parts = {"process": True, "database": _database(), "redis": _redis()}
    well = all(parts.values())
    body = {"status": "ok" if well else "failing", **{name: "ok" if ok else "failing" for name, ok in parts.items()}}
    return JsonResponse(body, status=200 if well else 503, headers={"Cache-Control": "no-store"})


def _database() -> bool:
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
            return cursor.fetchone() is not None
    except Error:
        return False


def _redis() -> bool:
    try:
        return bool(live.connection().ping())
    except redis.RedisError:
        return False

"""Is this web process well, and what do all processes count? For balancers, supervisors and Prometheus.

    /healthz   the process lives: 200, whatever is wrong around it. Restart it only when this fails
    /readyz    database and Redis answer, and the tables are those of this version: 503 when not, send it nobody
    /metrics   the numbers of every process of the installation, in Prometheus's text form

The gateway answers the first two on its own port (`csms/sign_of_life.py`).
"""

from __future__ import annotations

import hmac
import ipaddress

import redis
from django.conf import settings
from django.db import Error, connection
from django.db.migrations.executor import MigrationExecutor
from django.http import HttpRequest, HttpResponse, JsonResponse

from meters import live, metrics

_migrated = False
_FORWARDED = ("HTTP_X_FORWARDED_FOR", "HTTP_X_FORWARDED_PROTO", "HTTP_FORWARDED", "HTTP_X_REAL_IP")


def healthz(request: HttpRequest) -> JsonResponse:
    """`{"status": "ok"}`: it answers, so it lives."""
    return _answer({"process": True})


def readyz(request: HttpRequest) -> JsonResponse:
    """`{"status": "ok" | "failing", "process": …, "database": …, "migrations": …, "redis": …}`; no details here."""
    database = _database()
    return _answer({"process": True, "database": database, "migrations": database and _migrations(), "redis": _redis()})


def _answer(parts: dict[str, bool]) -> JsonResponse:
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


def _migrations() -> bool:
    """Once they were found complete they stay so: nobody migrates backwards under a running process."""
    global _migrated
    if not _migrated:
        try:
            executor = MigrationExecutor(connection)
            _migrated = not executor.migration_plan(executor.loader.graph.leaf_nodes())
        except Error:
            return False
    return _migrated


def _redis() -> bool:
    try:
        return bool(live.connection().ping())
    except redis.RedisError:
        return False


def all_metrics(request: HttpRequest) -> HttpResponse:
    """For who shows METRICS_TOKEN, for staff, and on this very machine where no token is set. 404 for anyone else."""
    if not _may_read(request):
        return HttpResponse(status=404)
    try:
        pictures = metrics.fetch()
    except redis.RedisError:
        return HttpResponse("Redis is away.\n", status=503, content_type="text/plain; charset=utf-8")
    return HttpResponse(
        metrics.render(pictures),
        content_type="text/plain; version=0.0.4; charset=utf-8",
        headers={"Cache-Control": "no-store"},
    )


def _may_read(request: HttpRequest) -> bool:
    scheme, _, shown = request.headers.get("Authorization", "").partition(" ")
    token = settings.METRICS_TOKEN
    if token and scheme.lower() == "bearer" and hmac.compare_digest(shown.strip().encode(), token.encode()):
        return True
    if request.user.is_authenticated and request.user.is_staff:
        return True
    return not token and _from_here(request)


def _from_here(request: HttpRequest) -> bool:
    """A direct connection of this machine; what a proxy brings comes from elsewhere."""
    if any(name in request.META for name in _FORWARDED):
        return False
    try:
        return ipaddress.ip_address(request.META.get("REMOTE_ADDR", "")).is_loopback
    except ValueError:
        return False

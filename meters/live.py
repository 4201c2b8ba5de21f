"""The newest measurement of every device and EVSE, in Redis, with its age.

Keys `live:device:<pk>` and `live:evse:<pk>` hold one JSON measurement each. Whoever stores one tells the channel
`fresh`, so that the balance of that site can start at once. Many processes write here; the newest wins by arrival.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable
from functools import lru_cache
from typing import TYPE_CHECKING

import redis
from django.conf import settings

from meters.measurement import Measurement

if TYPE_CHECKING:
    from redis import Redis

FRESH_CHANNEL = "fresh"
KEEP_S = 3600
log = logging.getLogger(__name__)


@lru_cache(maxsize=1)
def connection() -> Redis:
    """This process's Redis client (thread-safe pool, strings in and out)."""
    client: Redis = redis.Redis.from_url(
        settings.REDIS_URL, decode_responses=True, socket_timeout=5, socket_connect_timeout=2
    )
    return client


def device_source(pk: int) -> str:
    return f"device:{pk}"


def evse_source(pk: int) -> str:
    return f"evse:{pk}"


def store(source: str, measurement: Measurement, site_id: int | None) -> None:
    """Keep the newest measurement of a source and announce it. `site_id` None announces nothing."""
    body = json.dumps(measurement.to_dict())
    pipe = connection().pipeline(transaction=False)
    pipe.set(f"live:{source}", body, ex=KEEP_S)
    if site_id is not None:
        pipe.publish(FRESH_CHANNEL, json.dumps({"site": site_id, "source": source}))
    pipe.execute()


def fetch(sources: Iterable[str]) -> dict[str, Measurement]:
    """The newest measurement of each source that has one. Ages are the caller's to judge."""
    wanted = list(sources)
    if not wanted:
        return {}
    found: dict[str, Measurement] = {}
    for source, body in zip(wanted, connection().mget([f"live:{s}" for s in wanted]), strict=True):
        if body is None:
            continue
        try:
            found[source] = Measurement.from_dict(json.loads(body))
        except (ValueError, TypeError, KeyError):
            log.warning("live:%s holds no measurement; ignored", source)
    return found

"""One control cycle at a time per site: a lock in Redis that only its owner can give back and that dies by itself."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from redis.exceptions import LockError

from meters.live import connection

LASTS_S = 30
WAITS_S = 5
log = logging.getLogger(__name__)


@contextmanager
def turn(kind: str, site_id: int, *, lasts_s: float = LASTS_S, waits_s: float = WAITS_S) -> Iterator[bool]:
    """Wait for the site's turn; False when it did not come in time.

    The lock dies after `lasts_s`, so that a worker that was killed holds nobody up; who overslept it does no harm by
    giving it back, because it is no longer his.
    """
    name = f"turn:{site_id}" if kind == "balance" else f"turn:{kind}:{site_id}"
    lock = connection().lock(name, timeout=lasts_s, blocking_timeout=waits_s, sleep=0.02)
    if not lock.acquire():
        yield False
        return
    try:
        yield True
    finally:
        try:
            lock.release()
        except LockError:
            log.warning("%s of site %s took longer than its turn of %s s", kind, site_id, lasts_s)

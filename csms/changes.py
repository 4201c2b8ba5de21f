"""Tell the gateways that a record they hold in memory has changed, once the change is there to be read.

The change stands whether or not Redis is there to hear of it: gateways read again by themselves every half minute.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Literal

import redis
from django.db import transaction

from csms import bus

log = logging.getLogger(__name__)


def announce(kind: Literal["station", "token"], keys: Iterable[int]) -> None:
    """After the commit, announce the change of these stations or tokens (by primary key)."""
    changed = list(keys)
    transaction.on_commit(lambda: _tell(kind, changed))


def _tell(kind: str, keys: list[int]) -> None:
    try:
        for key in keys:
            bus.announce_change(kind, key)
    except redis.RedisError as error:
        log.warning("the gateways were not told of changed %ss; they read again by themselves: %s", kind, error)

"""What other processes are told after a commit: channels `transaction` and `status`.

A verb calls `announce` inside its transaction; the word goes out when that commits, never before, and not at all
when it is rolled back. In the gateway's writer the words of a batch are collected and published together.
"""

from __future__ import annotations

import json
import logging
import threading
from functools import partial
from typing import Any

import redis
from django.db import transaction

from meters.live import connection

log = logging.getLogger(__name__)

TRANSACTION_CHANNEL = "transaction"
STATUS_CHANNEL = "status"

Announcement = tuple[str, dict[str, Any]]
_here = threading.local()


def announce(channel: str, body: dict[str, Any]) -> None:
    """Say it on the channel once the present transaction is committed."""
    transaction.on_commit(partial(_say, channel, body))


def _say(channel: str, body: dict[str, Any]) -> None:
    collected: list[Announcement] | None = getattr(_here, "collected", None)
    if collected is not None:
        collected.append((channel, body))
        return
    try:
        connection().publish(channel, json.dumps(body))
    except redis.RedisError as error:
        log.warning("nobody was told on %s: %s", channel, error)


def collect() -> None:
    """From now on this thread keeps its announcements until they are fetched."""
    _here.collected = []


def collected() -> list[Announcement]:
    out: list[Announcement] = _here.collected
    _here.collected = []
    return out


def forget() -> None:
    _here.collected = []

"""Ask for a balance or a plan of a site, from anywhere; never twice while one waits, and never at the caller's cost.

A burst of readings leads to one waiting task: whoever asks first sets a flag that the task takes down when it begins.
When the broker is away nothing fails here: beat rings again, and the flag dies by itself.
"""

from __future__ import annotations

import logging

import redis
from celery import current_app
from kombu.exceptions import OperationalError

from meters.live import connection

BALANCE_WAITS_S = 3
PLAN_WAITS_S = 60
log = logging.getLogger(__name__)


def balance(site_id: int) -> bool:
    """Enqueue a balance of the site unless one is waiting. True when it was enqueued."""
    return _ask("balance", [site_id], site_id, "control", BALANCE_WAITS_S)


def plan(site_id: int, trigger: str) -> bool:
    """Enqueue a plan of the site unless one is waiting. True when it was enqueued."""
    return _ask("plan", [site_id, trigger], site_id, "slow", PLAN_WAITS_S)


def begun(kind: str, site_id: int) -> None:
    """The waiting task begins: what happens from now on asks for another one."""
    try:
        connection().delete(_flag(kind, site_id))
    except redis.RedisError as error:
        log.warning("%s of site %s: its flag stays until it dies: %s", kind, site_id, error)


def _flag(kind: str, site_id: int) -> str:
    return f"pending:{kind}:{site_id}"


def _ask(kind: str, args: list[object], site_id: int, queue: str, waits_s: int) -> bool:
    try:
        if not connection().set(_flag(kind, site_id), "1", nx=True, ex=waits_s):
            return False
        # `expires` as long as the flag: a task that waited longer has been asked for again.
        current_app.send_task(
            f"smartcharging.tasks.{kind}", args=args, queue=queue, expires=waits_s, retry=False, ignore_result=True
        )
    except (redis.RedisError, OperationalError, OSError) as error:
        log.warning("%s of site %s could not be asked for; the next beat will: %s", kind, site_id, error)
        return False
    return True

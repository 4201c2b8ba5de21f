"""The clock's doors to this room: long work with stations goes on, and what is over is tidied. Queue `slow`.

Each may be lost or come twice: it looks at the records and does what is due. A station that does not answer is left
for the next round.
"""

from __future__ import annotations

import logging

from celery import shared_task
from django.db.models import Exists, OuterRef, Q
from django.utils import timezone

from csms import local_lists, logs, reservations, rollouts
from csms.asking import ask_each
from csms.workflow_models import UPDATES_UNDER_WAY, FirmwareRollout, FirmwareUpdate

LISTS_A_ROUND = 40
log = logging.getLogger(__name__)


@shared_task
def keep_local_lists() -> None:
    """What stations should hold, and those that do not hold it."""
    now = timezone.now()
    local_lists.refresh(now)
    ask_each(local_lists.due(now)[:LISTS_A_ROUND], local_lists.bring_up_to_date)


@shared_task
def keep_reservations() -> None:
    """Those whose time has come are asked for, those to take back are taken back, those past their end are closed."""
    now = timezone.now()
    reservations.expire(now)
    ask_each(reservations.due(now), reservations.ask)


@shared_task
def advance_rollouts() -> None:
    """One round of every rollout that has stations under way or waiting."""
    under_way = FirmwareUpdate.objects.filter(rollout=OuterRef("pk"), state__in=UPDATES_UNDER_WAY)
    alive = FirmwareRollout.objects.filter(
        Q(state=FirmwareRollout.State.RUNNING) | Q(Exists(under_way), state__in=rollouts.UNFINISHED)
    )
    for pk in alive.order_by("pk").values_list("pk", flat=True):
        try:
            rollouts.advance(pk)
        except Exception:
            log.exception("rollout %s could not go on", pk)


@shared_task
def keep_logs() -> None:
    """Requests nobody answers have failed; files older than they are kept are deleted."""
    now = timezone.now()
    logs.give_up(now)
    deleted = logs.tidy(now)
    if deleted:
        log.info("%d logs of stations were older than they are kept, and are deleted", deleted)

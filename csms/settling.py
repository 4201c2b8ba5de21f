"""What a person says about an end that found no start: to which charge it belongs, or that it is nothing.

Either is said once, with a name behind it, and kept; the event itself stays as it was told.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from django.contrib.auth.models import User
from django.db import transaction as database
from django.db.models import Exists, OuterRef
from django.utils.translation import gettext as _

from csms.ledger import recount
from csms.ledger_models import UnmatchedEnd
from csms.models import Transaction, TransactionEvent

State = UnmatchedEnd.State
FURTHEST_BACK = timedelta(days=60)


class CannotSettle(ValueError):
    """This cannot be done with this end; the message says why, to a person."""


def candidates(end: UnmatchedEnd) -> list[Transaction]:
    """The transactions a person may attach this end to: of the same station, begun before, without an end of theirs."""
    rows = Transaction.objects.filter(
        station=end.station_id, started_at__lte=end.at, started_at__gte=end.at - FURTHEST_BACK
    )
    ended = TransactionEvent.objects.filter(transaction=OuterRef("pk"), kind="ended")
    return list(rows.exclude(Exists(ended)).select_related("evse", "station").order_by("-started_at")[:50])


def attach(end: UnmatchedEnd, transaction: Transaction, user: User | None, now: datetime) -> None:
    """A person says to which transaction this end belongs. Raises `CannotSettle`."""
    with database.atomic():
        kept = UnmatchedEnd.objects.select_for_update().get(pk=end.pk)
        if kept.state != State.WAITING:
            raise CannotSettle(_("Somebody has settled this end already."))
        if transaction.station_id != kept.station_id or transaction.pk not in {t.pk for t in candidates(kept)}:
            raise CannotSettle(_("That charge has an end of its own, or this one cannot be it."))
        TransactionEvent.objects.filter(pk=kept.event_id).file_under(transaction.pk)
        _settle(kept, State.ATTACHED, user, now, transaction=transaction)
        recount([transaction.pk])


def dismiss(end: UnmatchedEnd, reason: str, user: User | None, now: datetime) -> None:
    """A person says that this end is nothing, and why. It is kept."""
    with database.atomic():
        kept = UnmatchedEnd.objects.select_for_update().get(pk=end.pk)
        if kept.state != State.WAITING:
            raise CannotSettle(_("Somebody has settled this end already."))
        _settle(kept, State.DISMISSED, user, now, reason=reason[:200])


def _settle(
    end: UnmatchedEnd,
    state: str,
    user: User | None,
    now: datetime,
    *,
    transaction: Transaction | None = None,
    reason: str = "",
) -> None:
    end.state, end.settled_by, end.settled_at = state, user, now
    end.transaction, end.reason = transaction, reason
    end.save(update_fields=["state", "settled_by", "settled_at", "transaction", "reason"])

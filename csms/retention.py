"""How long charges are kept, and the one way in which they go: `manage.py forget_transactions`.

What a bill was made from has to be kept for years in most countries, so nothing here runs by itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from django.db import connection
from django.db.models import Q

from csms.append_only import taking_away
from csms.ledger_models import SignedMeterValue, UnmatchedEnd
from csms.models import MeterSample, Transaction, TransactionEvent

PORTION = 200


@dataclass(slots=True)
class Forgotten:
    transactions: int = 0
    events: int = 0
    samples: int = 0
    signed: int = 0
    unmatched: int = 0


def old(before: datetime, site_pk: int | None = None) -> list[int]:
    """Charges that ended before this moment; running ones are never among them."""
    rows = Transaction.objects.filter(ended_at__lt=before)
    if site_pk is not None:
        rows = rows.filter(station__site=site_pk)
    return list(rows.order_by("pk").values_list("pk", flat=True))


def forget(before: datetime, site_pk: int | None = None) -> Forgotten:
    """Take away the charges that ended before this moment, with all that was told of them. In portions."""
    done = Forgotten()
    keys = old(before, site_pk)
    for first in range(0, len(keys), PORTION):
        portion = keys[first : first + PORTION]
        with taking_away():
            events = TransactionEvent.objects.filter(transaction__in=portion)
            ends = UnmatchedEnd.objects.filter(Q(transaction__in=portion) | Q(event__in=events))
            done.unmatched += ends.delete()[0]
            done.signed += _take_away(SignedMeterValue._meta.db_table, portion)
            done.events += _take_away(TransactionEvent._meta.db_table, portion)
            done.samples += MeterSample.objects.filter(transaction__in=portion).delete()[0]
            Transaction.objects.filter(pk__in=portion).delete()
            done.transactions += len(portion)
    return done


def _take_away(table: str, transactions: list[int]) -> int:
    """Past the model, which refuses; the database lets it through while the ledger is open."""
    marks = ", ".join(["%s"] * len(transactions))
    with connection.cursor() as cursor:
        cursor.execute(f"DELETE FROM {table} WHERE transaction_id IN ({marks})", transactions)  # noqa: S608
        return int(cursor.rowcount)

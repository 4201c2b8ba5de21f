"""Transactions as a ledger: events are appended and never twice, the transaction's row is what they come to.

A start or event is recognised by its content, not by its message id: stations repeat themselves under new ids after a
timeout, after a reconnect and after hours offline. *Ended* is final. What looks strange is flagged, never refused: a
station whose transaction is refused repeats it for ever, or loses it (Q12).

The row is a function of the events and meter values that arrived, whatever their order (`story.py`, `energy.py`).
The next event of a running charge, and that is nearly all of them, is added to where the counting stands; anything
else has the whole story told anew from what is kept. Both come to the same.

The verbs run in the gateway's writer, a whole batch at once. `transaction` is announced after the commit.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence

from django.db import transaction as database

from csms import ledger_store
from csms.bookkeeping import SUPERSEDED, Batch, Entry, Outcome
from csms.vocabulary import MeterValue, TransactionReport

__all__ = ["SUPERSEDED", "Outcome", "progressed", "record", "recount", "transaction_ended", "transaction_started"]

log = logging.getLogger(__name__)

Place = tuple[int, int, str]
"""Station, EVSE number, and transaction id as told ("" when none was)."""


def transaction_started(station_pk: int, report: TransactionReport) -> Outcome:
    """Record a start. The same one again gives the same transaction; a refused token is recorded all the same."""
    return record([(station_pk, report)])[0]


def transaction_updated(station_pk: int, report: TransactionReport) -> Outcome:
    """Record what happened in between. Heard of before its start, the transaction is opened here."""
    return record([(station_pk, report)])[0]


def transaction_ended(station_pk: int, report: TransactionReport) -> Outcome:
    """Record an end. An end of a 1.6 transaction nobody knows waits among the unmatched ends."""
    return record([(station_pk, report)])[0]


def record(entries: Sequence[Entry]) -> list[Outcome]:
    """Record events of any stations, in order; what became of each."""
    batch = Batch(entries)
    for entry in entries:
        batch.take(*entry)
    batch.write()
    return batch.outcomes()


def progressed(key: Place, items: Sequence[Callable[[], tuple[MeterValue, ...]]]) -> None:
    """Meter values of one EVSE and transaction (1.6 MeterValues): samples kept, energy brought up to date."""
    progressed_together("", [(key, read) for read in items])


def progressed_together(_: str, facts: Sequence[tuple[Place, Callable[[], tuple[MeterValue, ...]]]]) -> None:
    """The same for many EVSEs at once: for each where it belongs, and what reads its values. Rubbish is passed over."""
    groups: dict[Place, list[MeterValue]] = {}
    for place, read in facts:
        try:
            groups.setdefault(place, []).extend(read())
        except Exception:
            log.exception("meter values of station %s could not be read", place[0])
    batch = Batch([], stations={station for station, _, _ in groups})
    batch.take_values(groups)
    batch.write()


def recount(pks: Iterable[int]) -> None:
    """Tell the stories of these transactions anew from what is kept, and price them anew where they have ended."""
    with database.atomic():
        batch = Batch([])
        for transaction in ledger_store.locked().filter(pk__in=set(pks)):
            batch.retell(transaction)
        batch.write()

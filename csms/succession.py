"""One EVSE has one transaction at a time: which one came after which, asked for many EVSEs at once."""

from __future__ import annotations

from collections.abc import Iterable

from django.db.models import OuterRef, Q, Subquery

from csms import ledger_store
from csms.models import EVSE, Transaction


class Succession:
    """What the database knows of the EVSEs of these transactions, read in two questions."""

    def __init__(self, transactions: Iterable[Transaction], opened: set[int]) -> None:
        places = {t.evse_id: t.pk in opened for t in transactions if t.evse_id is not None}
        there = Transaction.objects.filter(evse=OuterRef("pk")).order_by("-started_at", "-pk").values("pk")[:1]
        rows = EVSE.objects.filter(pk__in=places).order_by() if places else EVSE.objects.none()
        self._newest = dict(rows.annotate(newest=Subquery(there)).values_list("pk", "newest"))
        self._open: dict[int, list[Transaction]] = {}
        with_new_ones = [pk for pk, is_new in places.items() if is_new]
        if with_new_ones:
            for found in ledger_store.locked().filter(evse_id__in=with_new_ones, ended_at=None):
                self._open.setdefault(found.evse_id or 0, []).append(found)

    def has_a_successor(self, transaction: Transaction) -> bool:
        """Did another transaction begin there later? That says that this one has ended."""
        if transaction.evse_id is None or self._newest.get(transaction.evse_id) == transaction.pk:
            return False
        later = Q(started_at__gt=transaction.started_at) | Q(started_at=transaction.started_at, pk__gt=transaction.pk)
        return Transaction.objects.filter(later, evse_id=transaction.evse_id).exclude(pk=transaction.pk).exists()

    def open_before(self, transaction: Transaction) -> list[Transaction]:
        """Those that are open though this one began after them."""
        mine = (transaction.started_at, transaction.pk)
        there = self._open.get(transaction.evse_id or 0, [])
        return [t for t in there if t.pk != transaction.pk and (t.started_at, t.pk) < mine]

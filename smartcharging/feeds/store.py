"""Keep what the feeds bring. Idempotent: fetching a day twice leaves it once, with the newest word."""

from __future__ import annotations

from collections.abc import Sequence

from django.db import transaction

from smartcharging.feeds.prices import PricePoint
from smartcharging.models import Price

BATCH = 500


def store_prices(area: str, points: Sequence[PricePoint]) -> int:
    """Insert or update the prices of an area; how many were written.

    A coarser price never replaces a finer one: an hour from a second source would overlap the quarters of the first.
    Other workers may store the same day at the same time; the last one wins, row by row.
    """
    newest = {p.start: p for p in points}
    if not newest:
        return 0
    with transaction.atomic():
        present = Price.objects.filter(area=area, start__gte=min(newest), start__lte=max(newest))
        finer = dict(present.values_list("start", "minutes"))
        rows = [
            Price(area=area, start=p.start, minutes=p.minutes, eur_per_mwh=p.eur_per_mwh, source=p.source)
            for p in newest.values()
            if p.minutes <= finer.get(p.start, p.minutes)
        ]
        Price.objects.bulk_create(
            rows,
            batch_size=BATCH,
            update_conflicts=True,
            unique_fields=["area", "start"],
            update_fields=["minutes", "eur_per_mwh", "source"],
        )
    return len(rows)

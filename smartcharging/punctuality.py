"""Who usually leaves before the time that was named, learnt from the charges that are over.

The engine reckons in shares of a stay (`engine/forecast/leaving.py`). A driver is known by his token; who is not known
yet, or charges without one, is taken to be as the others of the site.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime, timedelta

from django.db.models import QuerySet

from meters.models import Site
from smartcharging.engine.forecast.leaving import Punctuality, Stay
from smartcharging.models import ChargingGoal

BACK = timedelta(days=90)
MOST = 2000  # stays of a site; the newest
OF_A_DRIVER = 30


def of_site(site: Site, now: datetime, tokens: Iterable[int] = ()) -> Callable[[int | None], Punctuality]:
    """How early they leave: for a token's key, or for anybody. `tokens`: those that will be asked for."""
    stays = _stays(site, now)
    everybody = Punctuality.of(stay for _, stay in _read(stays, MOST))
    own: dict[int, list[Stay]] = {}
    wanted = set(tokens)
    if wanted:
        for token, stay in _read(stays.filter(transaction__id_token__in=wanted), MOST):
            mine = own.setdefault(token or 0, [])
            if len(mine) < OF_A_DRIVER:
                mine.append(stay)
    known = {token: Punctuality.of(mine, everybody) for token, mine in own.items()}
    return lambda token: everybody if token is None else known.get(token, everybody)


def _stays(site: Site, now: datetime) -> QuerySet[ChargingGoal]:
    """The goals that counted when their charge ended, newest first."""
    return ChargingGoal.objects.filter(
        site=site,
        cancelled_at=None,
        departure__isnull=False,
        transaction__ended_at__gte=now - BACK,
        transaction__ended_at__lte=now,
    ).order_by("-transaction__ended_at")


def _read(stays: QuerySet[ChargingGoal], most: int) -> Iterable[tuple[int | None, Stay]]:
    rows = stays.values_list("transaction__id_token", "transaction__started_at", "departure", "transaction__ended_at")
    for token, began, named, left in rows[:most]:
        if named is not None and left is not None:
            yield token, Stay(began, named, left)

"""Who usually comes when, learnt from the site's own past, at most once an hour.

The engine keeps totals per place and time of day (`engine/forecast/arrivals.py`); nothing of a person is kept.
"""

from __future__ import annotations

import logging
from datetime import datetime, timedelta

from csms.models import Transaction
from meters.history import slot_of
from meters.live import connection
from meters.models import Site
from smartcharging.engine.forecast.arrivals import Habits, Visit
from smartcharging.places import plug_share

BACK = timedelta(days=35)
GOOD_FOR_S = 3600
log = logging.getLogger(__name__)


def of_site(site: Site, now: datetime) -> Habits:
    """The habits of the last weeks: those kept, or learnt now."""
    text = connection().get(_key(site.pk))
    if text is not None:
        try:
            return Habits.from_json(str(text))
        except ValueError as error:
            log.warning("site %s: %s; learnt anew", site.pk, error)
    habits = learn(site, slot_of(now))
    connection().set(_key(site.pk), habits.to_json(), ex=GOOD_FOR_S)
    return habits


def learn(site: Site, before: datetime) -> Habits:
    """From the charges that are over, since the first of them."""
    ended = Transaction.objects.filter(station__site=site, started_at__gte=before - BACK, ended_at__isnull=False)
    visits = [
        Visit(began, left, wh / plug_share(current), "" if evse is None else str(evse))
        for began, left, wh, evse, current in ended.values_list(
            "started_at", "ended_at", "energy_wh", "evse_id", "station__current"
        )
        if left is not None
    ]
    first = slot_of(min((v.arrived for v in visits), default=before))
    return Habits.of(visits, first, before, site.tz)


def _key(site_id: int) -> str:
    return f"habits:{site_id}"

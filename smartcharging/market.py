"""The market prices of a site, for whoever bills by them: the day-ahead prices of its area."""

from __future__ import annotations

from datetime import datetime, timedelta
from decimal import Decimal

from csms.pricing import SpotPrice
from meters.models import Site
from smartcharging.models import Price

LONGEST = timedelta(days=1)


def spot_prices(site_pk: int, since: datetime, until: datetime) -> list[SpotPrice]:
    """Per kWh, of every interval that touches the time between `since` and `until`; of two, the finer one counts."""
    area = Site.objects.filter(pk=site_pk).values_list("price_area", flat=True).first()
    if not area:
        return []
    rows = Price.objects.filter(area=area, start__gt=since - LONGEST, start__lt=until).order_by("start")
    return [
        SpotPrice(p.start, p.minutes, Decimal(repr(p.eur_per_mwh)) / 1000)
        for p in rows
        if p.start + timedelta(minutes=p.minutes) > since
    ]

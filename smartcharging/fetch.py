"""Bring prices and weather in from outside, per area and per place, when they are due and not here yet.

Idempotent: a day that is complete is not asked for again. A source that is early, away or talks nonsense is said and
costs nothing but time; the plan goes on with what it has. Demo sites have their own prices and are never fetched for.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence
from datetime import date, datetime, time, timedelta

from meters.live import connection
from meters.models import Site
from smartcharging.feeds import prices, weather
from smartcharging.feeds.prices import PricePoint
from smartcharging.feeds.source import FeedError, NoPriceYet
from smartcharging.feeds.store import store_prices
from smartcharging.feeds.weather import WeatherPoint
from smartcharging.models import Price

PUBLISHED_AT = time(12, 45)  # on the market's clock: from then on tomorrow's prices may be there
WEATHER_KEEP_S = 3 * 24 * 3600
log = logging.getLogger(__name__)


def areas() -> list[str]:
    """The price areas of real sites."""
    found = Site.objects.filter(demo=False).exclude(price_area="").values_list("price_area", flat=True)
    return sorted(set(found))


def due_days(area: str, now: datetime) -> list[date]:
    """Today, and tomorrow once its auction is over, as far as their prices are not all here."""
    local = now.astimezone(prices.area_of(area).zone)
    days = [local.date()]
    if local.time() >= PUBLISHED_AT:
        days.append(local.date() + timedelta(days=1))
    return [day for day in days if not prices.is_complete(_stored(area, day), area, day)]


def _stored(area: str, day: date) -> list[PricePoint]:
    start, end = prices.day_of(area, day)
    rows = Price.objects.filter(area=area, start__gte=start, start__lt=end)
    return [PricePoint(row.start, row.minutes, row.eur_per_mwh, row.source) for row in rows]


def fetch_area(area: str, now: datetime, source: Callable[[str, date], Sequence[PricePoint]] = prices.fetch) -> int:
    """Fetch and keep the due days of one area; how many prices are new."""
    written = 0
    try:
        days = due_days(area, now)
    except FeedError as error:
        log.warning("prices of %s: %s", area, error)
        return 0
    for day in days:
        try:
            written += store_prices(area, source(area, day))
        except NoPriceYet as error:
            log.info("prices of %s for %s: %s", area, day, error)
        except FeedError as error:
            log.warning("prices of %s for %s: %s", area, day, error)
    return written


def fetch_weather_of(site: Site, source: Callable[[float, float], Sequence[WeatherPoint]] = weather.fetch) -> int:
    """Fetch and keep the weather ahead of one site; how many quarter hours."""
    if site.latitude is None or site.longitude is None:
        return 0
    try:
        points = source(site.latitude, site.longitude)
    except FeedError as error:
        log.warning("weather of site %s (%s): %s", site.pk, site.name, error)
        return 0
    body = [[p.start.isoformat(), p.sun_w_per_m2, p.temperature_c, p.cloud_share] for p in points]
    connection().set(_weather_key(site.pk), json.dumps(body), ex=WEATHER_KEEP_S)
    return len(points)


def weather_of(site_id: int) -> list[WeatherPoint]:
    """The weather last fetched for a site, or nothing."""
    body = connection().get(_weather_key(site_id))
    if body is None:
        return []
    try:
        return [
            WeatherPoint(datetime.fromisoformat(at), float(sun), air, clouds)
            for at, sun, air, clouds in json.loads(str(body))
        ]
    except (ValueError, TypeError):
        log.warning("the weather kept for site %s cannot be read; ignored", site_id)
        return []


def _weather_key(site_id: int) -> str:
    return f"weather:{site_id}"

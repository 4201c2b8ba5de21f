"""The doors the clock and the queue knock on: balance (seconds), plan (minutes), fetch (hours), learn, tidy (nights).

Each gathers, asks the engine, and acts. Protection has a queue of its own (`control`), so that it never waits behind
planning (`slow`). Every task is idempotent and may be lost: the next beat does it again. What goes wrong on one site
is logged with its name and never stops the others.
"""

from __future__ import annotations

import logging
from datetime import timedelta
from typing import Any

from celery import shared_task
from django.conf import settings
from django.db.models import QuerySet
from django.utils import timezone

from csms import reports
from csms.models import MeterSample, OcppMessage
from csms.obedience_models import Alarm, ToldLimit
from csms.reported_models import MonitoringEvent
from meters import history
from meters.models import Site
from smartcharging import dispatch, fetch, forecasts, picture, quarters, wake
from smartcharging.engine.live.allocate import allocate
from smartcharging.engine.live.fallback import safe_allocation
from smartcharging.engine.snapshot import Allocation, Snapshot
from smartcharging.gather import SiteNotReady, look
from smartcharging.models import AllocationRecord, Forecast, Plan
from smartcharging.planning import make_plan, outdated
from smartcharging.turn import turn

PLAN_TURN_S = 120
KEEP_PLANS = timedelta(days=3)
KEEP_FORECASTS = timedelta(days=60)
PORTION = 5000
log = logging.getLogger(__name__)


@shared_task
def balance(site_id: int) -> None:
    """Share the present current of one site. One at a time; who comes second sees the newest measurements."""
    with turn("balance", site_id) as mine:
        wake.begun("balance", site_id)
        if not mine:
            log.warning("site %s: its turn did not come; the next balance will do", site_id)
            return
        site = Site.objects.filter(pk=site_id).first()
        if site is None:
            return
        try:
            view = look(site, timezone.now())
        except SiteNotReady as error:
            log.info("%s", error)
            return
        allocation = _allocate(site, view.snapshot)
        dispatch.apply(view, allocation)
        picture.store(site_id, picture.picture(view, allocation))
    if why := outdated(view):
        wake.plan(site_id, why)


def _allocate(site: Site, snapshot: Snapshot) -> Allocation:
    """The engine's answer; when it has none, everybody's safe current, and the reason in the log."""
    try:
        return allocate(snapshot)
    except Exception:
        log.exception("site %s (%s) could not be balanced; fail-safe currents hold", site.pk, site.name)
        return safe_allocation(snapshot)


@shared_task
def balance_all() -> None:
    """Ring every site: what no reading rang for, such as a lease to renew or a command that ends."""
    for site_id in Site.objects.order_by("pk").values_list("pk", flat=True):
        wake.balance(site_id)


@shared_task
def plan(site_id: int, trigger: str = "") -> int | None:
    """Plan the coming day of one site, and let the balance follow it. Returns the plan's key."""
    with turn("plan", site_id, lasts_s=PLAN_TURN_S, waits_s=PLAN_TURN_S / 2) as mine:
        wake.begun("plan", site_id)
        if not mine:
            log.warning("site %s: another plan is still being made", site_id)
            return None
        site = Site.objects.filter(pk=site_id).first()
        if site is None:
            return None
        try:
            made = make_plan(site, trigger, timezone.now())
        except SiteNotReady as error:
            log.info("%s", error)
            return None
    wake.balance(site_id)
    return made.pk


@shared_task
def plan_all() -> None:
    """Plan every site anew."""
    for site_id in Site.objects.order_by("pk").values_list("pk", flat=True):
        wake.plan(site_id, "clock")


@shared_task
def roll_up() -> None:
    """Quarter hours of devices, then those of sites with their month's peak."""
    now = timezone.now()
    history.roll_up(now)
    for site in Site.objects.order_by("pk"):
        try:
            quarters.roll_up_site(site, now)
        except Exception:
            log.exception("the quarter hours of site %s (%s) could not be made", site.pk, site.name)


@shared_task
def fetch_prices() -> None:
    """Day-ahead prices of every area a real site is in; where there are new ones, the plan is made anew."""
    if not settings.FETCH_OUTSIDE:
        return
    now = timezone.now()
    for area in fetch.areas():
        try:
            if fetch.fetch_area(area, now):
                for site_id in Site.objects.filter(price_area=area, demo=False).values_list("pk", flat=True):
                    wake.plan(site_id, "new prices")
        except Exception:
            log.exception("prices of %s could not be fetched", area)


@shared_task
def fetch_weather() -> None:
    """The weather ahead of every real site."""
    if not settings.FETCH_OUTSIDE:
        return
    for site in Site.objects.filter(demo=False, latitude__isnull=False).order_by("pk"):
        try:
            fetch.fetch_weather_of(site)
        except Exception:
            log.exception("the weather of site %s (%s) could not be fetched", site.pk, site.name)


@shared_task
def learn() -> None:
    """Hold yesterday's forecasts against what came, and forecast the cars of the coming days."""
    now = timezone.now()
    for site in Site.objects.order_by("pk"):
        try:
            for series, score in forecasts.score(site, now).items():
                log.info("site %s (%s): forecast of %s was off by %.0f W on average", site.pk, site.name, series, score)
            forecasts.make(site, Forecast.Series.CHARGING, history.slot_of(now), now)
        except Exception:
            log.exception("the forecasts of site %s (%s) could not be scored", site.pk, site.name)


@shared_task
def tidy() -> None:
    """Delete what is older than it is kept."""
    now = timezone.now()
    history.tidy(now)
    readings = now - timedelta(days=settings.READING_KEEP_DAYS)
    messages = now - timedelta(days=settings.MESSAGE_KEEP_DAYS)
    reports.tidy(now, timedelta(days=settings.MESSAGE_KEEP_DAYS))
    for records, limit in (
        (OcppMessage.objects.filter(at__lt=messages), messages),
        (MonitoringEvent.objects.filter(received_at__lt=messages), messages),
        (MeterSample.objects.filter(at__lt=readings), readings),
        (AllocationRecord.objects.filter(at__lt=messages), messages),
        (ToldLimit.objects.filter(at__lt=messages), messages),
        (Alarm.objects.filter(ended_at__lt=messages), messages),
        (Plan.objects.filter(made_at__lt=now - KEEP_PLANS), now - KEEP_PLANS),
        (Forecast.objects.filter(issued_at__lt=now - KEEP_FORECASTS), now - KEEP_FORECASTS),
    ):
        deleted = _delete(records)
        if deleted:
            log.info(
                "tidy: %s %s older than %s deleted", deleted, records.model._meta.verbose_name_plural, limit.date()
            )


def _delete(records: QuerySet[Any]) -> int:
    """In portions, so that nobody waits long for the database."""
    deleted = 0
    while portion := list(records.order_by().values_list("pk", flat=True)[:PORTION]):
        deleted += records.model.objects.filter(pk__in=portion).delete()[0]
    return deleted

"""What a site is expected to use and make: forecasts made from its quarter hours, kept, and fetched for the plan.

A forecast is made at most once an hour and stored with its method and quantiles, so that it can be scored later. The
plan also knows the present moment: how far the forecast is off right now fades out over the next hours.
A slot of which nothing is known stays not-a-number; the plan treats it as the worst that is known, never as zero.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta

import numpy as np

from meters.history import SLOT
from meters.models import Device, Site
from smartcharging import fetch, habits, picture
from smartcharging.engine.forecast import arrivals, similar_day, sun
from smartcharging.engine.forecast.series import Forecast as Quantiles
from smartcharging.engine.forecast.series import History
from smartcharging.engine.plan.problem import Series
from smartcharging.gather import View
from smartcharging.models import Forecast, SiteQuarter

GOOD_FOR = timedelta(hours=1)
BACK = timedelta(days=35)
SLOTS = 192
LOAD_FADES_SLOTS = 4.0
SUN_FADES_SLOTS = 2.0  # a cloud now says little of the coming hours
_COLUMN = {
    Forecast.Series.BUILDING: "building_w",
    Forecast.Series.PV: "pv_w",
    Forecast.Series.CHARGING: "charging_w",
}


def expected(site: Site, start: datetime, slots: int, now: datetime, view: View) -> tuple[Series, Series]:
    """Expected power of building (≥ 0) and PV (≤ 0) per slot from `start`; not-a-number where nothing is known."""
    measured_w = picture.building_at_most_w(view)
    building = _from_now(median(site, Forecast.Series.BUILDING, start, slots, now), measured_w, LOAD_FADES_SLOTS)
    if not view.devices_of(Device.Kind.PV):
        return np.maximum(building, 0.0), np.zeros(slots)
    sun_w = picture.flows(view)["pv_w"]
    pv = _from_now(median(site, Forecast.Series.PV, start, slots, now), sun_w, SUN_FADES_SLOTS)
    return np.maximum(building, 0.0), np.minimum(pv, 0.0)


def median(site: Site, series: Forecast.Series, start: datetime, slots: int, now: datetime) -> Series:
    """The median of the newest good forecast, made now if there is none."""
    found = (
        Forecast.objects.filter(site=site, series=series, issued_at__gt=now - GOOD_FOR, issued_at__lte=now)
        .order_by("-issued_at")
        .first()
    )
    end = start + slots * SLOT
    if found is None or found.starts_at > start or found.starts_at + len(found.p50_w) * SLOT < end:
        found = make(site, series, start, now)
    offset = round((start - found.starts_at) / SLOT)
    values = np.array([np.nan if v is None else v for v in found.p50_w], dtype=np.float64)
    out = np.full(slots, np.nan)
    part = values[offset : offset + slots]
    out[: len(part)] = part
    return out


def make(site: Site, series: Forecast.Series, start: datetime, now: datetime) -> Forecast:
    """Make and keep a forecast of one series from `start`; longer than any horizon, so that it serves for an hour."""
    made = _MAKERS[series](site, start)
    return Forecast.objects.create(
        site=site,
        series=series,
        issued_at=now,
        starts_at=start,
        p10_w=_stored(made.p10_w),
        p50_w=_stored(made.p50_w),
        p90_w=_stored(made.p90_w),
        method=made.method,
    )


def history(site: Site, series: Forecast.Series, before: datetime) -> History:
    """What the site's quarter hours say of a series."""
    column = _COLUMN[series]
    rows = SiteQuarter.objects.filter(site=site, slot__gte=before - BACK, slot__lt=before)
    return History.of([(slot, value) for slot, value in rows.values_list("slot", column) if value is not None])


def _building(site: Site, start: datetime) -> Quantiles:
    return similar_day.building(history(site, Forecast.Series.BUILDING, start), start, SLOTS + 4, site.tz)


def _pv(site: Site, start: datetime) -> Quantiles:
    place = None
    if site.latitude is not None and site.longitude is not None:
        place = (site.latitude, site.longitude)
    plants = [d.option("peak_w") for d in site.devices.filter(kind=Device.Kind.PV, enabled=True)]
    known = [float(p) for p in plants if p]
    peak_w = sum(known) if plants and len(known) == len(plants) else None
    weather = {p.start: p.sun_w_per_m2 for p in fetch.weather_of(site.pk)}
    sunshine = np.array([weather.get(start + i * SLOT, np.nan) for i in range(SLOTS + 4)], dtype=np.float64)
    return sun.pv(
        history(site, Forecast.Series.PV, start),
        start,
        SLOTS + 4,
        place,
        peak_w,
        sunshine if np.isfinite(sunshine).any() else None,
    )


def _charging(site: Site, start: datetime) -> Quantiles:
    """The cars still to come, from those that came."""
    return arrivals.charging(habits.learn(site, start), start, SLOTS + 4, site.tz)


_MAKERS: dict[Forecast.Series, Callable[[Site, datetime], Quantiles]] = {
    Forecast.Series.BUILDING: _building,
    Forecast.Series.PV: _pv,
    Forecast.Series.CHARGING: _charging,
}


def _from_now(series: Series, measured_w: float | None, fades_slots: float) -> Series:
    """Begin at what is measured, and end at what is usual."""
    if measured_w is None or not len(series):
        return series
    if np.isnan(series).all():
        return np.full(len(series), measured_w)
    off = 0.0 if np.isnan(series[0]) else measured_w - series[0]
    nearer: Series = series + off * np.exp(-np.arange(len(series)) / fades_slots)
    return nearer


def score(site: Site, now: datetime) -> dict[str, float]:
    """Mean absolute error of the medians issued over the last day, by series [W]; only slots that are over count."""
    errors: dict[str, list[float]] = {}
    actual = {
        row.slot: row for row in SiteQuarter.objects.filter(site=site, slot__gte=now - timedelta(days=1), slot__lt=now)
    }
    for found in Forecast.objects.filter(site=site, issued_at__gte=now - timedelta(days=1)):
        column = _COLUMN[Forecast.Series(found.series)]
        for i, value in enumerate(found.p50_w):
            row = actual.get(found.starts_at + i * SLOT)
            came = getattr(row, column) if row is not None else None
            if came is not None and value is not None:
                errors.setdefault(found.series, []).append(abs(came - value))
    return {series: sum(values) / len(values) for series, values in errors.items()}


def _stored(series: Series) -> list[float | None]:
    return [None if np.isnan(v) else round(float(v), 1) for v in series]

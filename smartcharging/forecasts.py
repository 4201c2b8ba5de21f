"""What a site is expected to use and make: forecasts made from its quarter hours, kept, and fetched for the plan.

A forecast is made at most once an hour and stored with its method and quantiles, so that it can be scored later. The
plan also knows the present moment: how far the forecast is off right now fades out over some hours.
A slot of which nothing is known stays not-a-number; the plan treats it as the worst that is known, never as zero.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

import numpy as np
from numpy.typing import NDArray

from meters.history import SLOT
from meters.models import Device, Site
from smartcharging import picture
from smartcharging.gather import View
from smartcharging.models import Forecast, SiteQuarter

GOOD_FOR = timedelta(hours=1)
BACK = timedelta(days=28)
SLOTS = 192
FADES_SLOTS = 12.0
NOTHING_KNOWN = "nothing known"
Series = NDArray[np.float64]
_COLUMN = {Forecast.Series.BUILDING: "building_w", Forecast.Series.PV: "pv_w"}


def expected(site: Site, start: datetime, slots: int, now: datetime, view: View) -> tuple[Series, Series]:
    """Expected power of building (≥ 0) and PV (≤ 0) per slot from `start`; not-a-number where nothing is known."""
    flows = picture.flows(view)
    building = _from_now(median(site, Forecast.Series.BUILDING, start, slots, now), flows["building_w"])
    if not view.devices_of(Device.Kind.PV):
        return np.maximum(building, 0.0), np.zeros(slots)
    pv = median(site, Forecast.Series.PV, start, slots, now)
    # The sun's own course is in the forecast; a cloud now says little of the coming hours, but all of this slot.
    pv = _from_now(pv, flows["pv_w"], fades=2.0)
    return np.maximum(building, 0.0), np.minimum(pv, 0.0)


def median(site: Site, series: Forecast.Series, start: datetime, slots: int, now: datetime) -> Series:
    """The median of the newest good forecast, made now if there is none."""
    end = start + slots * SLOT
    found = (
        Forecast.objects.filter(site=site, series=series, issued_at__gt=now - GOOD_FOR, issued_at__lte=now)
        .order_by("-issued_at")
        .first()
    )
    if found is None or found.starts_at + len(found.p50_w) * SLOT < end:
        found = make(site, series, start, now)
    offset = round((start - found.starts_at) / SLOT)
    values = np.array([np.nan if v is None else v for v in found.p50_w], dtype=np.float64)
    out = np.full(slots, np.nan)
    part = values[max(offset, 0) : max(offset, 0) + slots]
    out[: len(part)] = part
    return out


def make(site: Site, series: Forecast.Series, start: datetime, now: datetime) -> Forecast:
    """Make and keep a forecast of one series from `start`."""
    column = _COLUMN[series]
    rows = SiteQuarter.objects.filter(site=site, slot__gte=start - BACK, slot__lt=start)
    history = {slot: value for slot, value in rows.values_list("slot", column) if value is not None}
    low, mid, high = similar_days(history, start, SLOTS, ZoneInfo(site.timezone), sun=series == Forecast.Series.PV)
    return Forecast.objects.create(
        site=site,
        series=series,
        issued_at=now,
        starts_at=start,
        p10_w=_stored(low),
        p50_w=_stored(mid),
        p90_w=_stored(high),
        method="similar days" if history else NOTHING_KNOWN,
    )


def similar_days(
    history: Mapping[datetime, float], start: datetime, slots: int, zone: ZoneInfo, *, sun: bool = False
) -> tuple[Series, Series, Series]:
    """Quantiles per slot from days like it: the same clock time on the same kind of day, the sun on any day. Pure."""
    by_clock: dict[tuple[bool, int, int], list[float]] = {}
    for slot, value in sorted(history.items()):
        by_clock.setdefault(_clock(slot, zone, sun), []).append(value)
    low, mid, high = np.full(slots, np.nan), np.full(slots, np.nan), np.full(slots, np.nan)
    for i in range(slots):
        weekend, hour, minute = _clock(start + i * SLOT, zone, sun)
        values = by_clock.get((weekend, hour, minute)) or by_clock.get((not weekend, hour, minute))
        if values:
            low[i], mid[i], high[i] = np.quantile(values[-10:], [0.1, 0.5, 0.9])
    return low, mid, high


def _clock(slot: datetime, zone: ZoneInfo, sun: bool) -> tuple[bool, int, int]:
    if sun:
        return (False, slot.hour, slot.minute)  # the sun knows neither weekends nor summer time
    local = slot.astimezone(zone)
    return (local.weekday() >= 5, local.hour, local.minute)


def _from_now(series: Series, measured_w: float | None, fades: float = FADES_SLOTS) -> Series:
    """Begin at what is measured, and end at what is usual."""
    if measured_w is None or not len(series):
        return series
    if np.isnan(series).all():
        return np.full(len(series), measured_w)
    first = series[0]
    off = 0.0 if np.isnan(first) else measured_w - first
    return series + off * np.exp(-np.arange(len(series)) / fades)


def score(site: Site, now: datetime) -> dict[str, float]:
    """Mean absolute error of the medians issued over the last day, by series [W]; only slots that are over count."""
    errors: dict[str, list[float]] = {}
    actual = {
        row.slot: row for row in SiteQuarter.objects.filter(site=site, slot__gte=now - timedelta(days=1), slot__lt=now)
    }
    for found in Forecast.objects.filter(site=site, issued_at__gte=now - timedelta(days=1)):
        column = _COLUMN.get(Forecast.Series(found.series))
        for i, value in enumerate(found.p50_w):
            row = actual.get(found.starts_at + i * SLOT)
            came = getattr(row, column) if row is not None and column is not None else None
            if came is not None and value is not None:
                errors.setdefault(found.series, []).append(abs(came - value))
    return {series: sum(values) / len(values) for series, values in errors.items()}


def _stored(series: Series) -> list[float | None]:
    return [None if np.isnan(v) else round(float(v), 1) for v in series]

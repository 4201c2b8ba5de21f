"""The day of a site as series for a chart: what was measured, what the plan wants, what energy costs.

One value per quarter hour from midnight on the site's clock, in W (price in EUR/MWh); `None` where nothing is known.
PV is given as production, so it is positive here; grid and battery keep their signs (taken and charging positive).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from django.db.models import Avg, F, FloatField, Func, Q
from django.utils import timezone

from csms.models import MeterSample, Transaction
from meters.models import Device, QuarterHour, Site
from smartcharging.models import Circuit, Plan, Price
from smartcharging.report import SLOT, day_start

AHEAD = timedelta(hours=12)
SERIES = ("grid", "pv", "battery", "charging", "loads", "building")
Values = dict[str, dict[datetime, float]]


class SlotNumber(Func):
    """The number of the UTC quarter hour of a moment, counted from 1970, in the database's own arithmetic."""

    output_field = FloatField()

    def as_sqlite(self, compiler: Any, connection: Any, **extra: Any) -> Any:
        return self.as_sql(compiler, connection, template="CAST(strftime('%%%%s', %(expressions)s) AS INTEGER) / 900")

    def as_postgresql(self, compiler: Any, connection: Any, **extra: Any) -> Any:
        return self.as_sql(compiler, connection, template="FLOOR(EXTRACT(EPOCH FROM %(expressions)s) / 900)::float8")


def day(site: Site, now: datetime | None = None) -> dict[str, Any]:
    """Today on the site's clock, and what is planned for the hours after now."""
    now = now or timezone.now()
    today = now.astimezone(site.tz).date()
    begins, ends = day_start(site, today), day_start(site, today + timedelta(days=1))
    ends = max(ends, _floor(now) + AHEAD)
    slots = [begins + n * SLOT for n in range(int((ends - begins) / SLOT))]
    measured = _measured(site, begins, min(ends, now))
    planned = _planned(site, now)
    prices = _prices(site, begins, ends)
    return {
        "t": [int(at.timestamp()) for at in slots],
        "now": int(now.timestamp()),
        "timezone": site.timezone,
        "measured": {name: [_rounded(measured[name].get(at)) for at in slots] for name in SERIES},
        "plan": {name: [_rounded(planned[name].get(at)) for at in slots] for name in SERIES},
        "price": [prices.get(at) for at in slots],
        "has": {
            "measured": any(measured.values()),
            "plan": any(planned.values()),
            "price": bool(prices),
            "loads": bool(measured["loads"] or planned["loads"]),
        },
    }


def _floor(at: datetime) -> datetime:
    return datetime.fromtimestamp(at.timestamp() // 900 * 900, UTC)


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 1)


def _measured(site: Site, begins: datetime, until: datetime) -> Values:
    root = Circuit.objects.filter(site=site, parent=None).first()
    meter = root.meter_id if root else None
    kinds = {d.pk: str(d.kind) for d in Device.objects.filter(site=site, enabled=True)}
    sums: dict[str, dict[datetime, float]] = defaultdict(lambda: defaultdict(float))
    seen: dict[str, dict[datetime, int]] = defaultdict(lambda: defaultdict(int))
    rows = QuarterHour.objects.filter(device__site=site, slot__gte=begins, slot__lt=until)
    for device, at, mean_w in rows.values_list("device_id", "slot", "mean_w"):
        kind = "grid" if device == meter else kinds.get(device)
        if kind is None or mean_w is None or kind not in ("grid", "pv", "battery", "load"):
            continue
        sums[kind][at] += mean_w
        seen[kind][at] += 1
    charging = _charging(site, begins, until)
    _add_idle(charging, sums["grid"], site, begins, until)
    building = {}
    commissioned = {k for k in kinds.values() if k in ("pv", "battery", "load")}
    for at, grid in sums["grid"].items():
        if at in charging and all(seen[k][at] for k in commissioned):
            rest = sum(sums[k].get(at, 0.0) for k in commissioned)
            building[at] = max(grid - rest - charging[at], 0.0)
    return {
        "grid": dict(sums["grid"]),
        "pv": {at: -w for at, w in sums["pv"].items()},
        "battery": dict(sums["battery"]),
        "charging": charging,
        "loads": dict(sums["load"]),
        "building": building,
    }


def _charging(site: Site, begins: datetime, until: datetime) -> dict[datetime, float]:
    """Mean power of all EVSEs together per quarter hour, from their meter values."""
    rows = (
        MeterSample.objects.filter(evse__station__site=site, at__gte=begins, at__lt=until, power_w__isnull=False)
        .annotate(slot=SlotNumber(F("at")))
        .values("evse_id", "slot")
        .annotate(mean_w=Avg("power_w"))
        .order_by()
    )
    sums: dict[datetime, float] = defaultdict(float)
    for row in rows:
        sums[datetime.fromtimestamp(int(row["slot"]) * 900, UTC)] += row["mean_w"] or 0.0
    return dict(sums)


def _add_idle(
    charging: dict[datetime, float], measured: Iterable[datetime], site: Site, begins: datetime, until: datetime
) -> None:
    """A quarter hour without meter values is zero when no car was there, and unknown when one was."""
    stays = list(
        Transaction.objects.filter(station__site=site, started_at__lt=until)
        .filter(Q(ended_at=None) | Q(ended_at__gt=begins))
        .values_list("started_at", "ended_at")
    )
    for at in measured:
        if at not in charging and not any(s < at + SLOT and (e is None or e > at) for s, e in stays):
            charging[at] = 0.0


def _planned(site: Site, now: datetime) -> Values:
    plan = Plan.objects.filter(site=site).order_by("-made_at").first()
    empty: Values = {name: {} for name in SERIES}
    if plan is None or not isinstance(plan.result, dict) or plan.slot_s != 900:
        return empty
    result: Mapping[str, Any] = plan.result
    cars = [v for v in (result.get("evse") or {}).values() if isinstance(v, list)]
    loads = [v for v in (result.get("load_w") or {}).values() if isinstance(v, list)]
    if loads and isinstance(result.get("others_w"), list):
        loads.append(result["others_w"])
    lists: dict[str, list[Any]] = {
        "grid": result.get("grid_w") or [],
        "pv": [None if w is None else -w for w in result.get("pv_w") or []],
        "battery": result.get("battery_w") or [],
        "building": result.get("building_w") or [],
        "charging": [sum(w or 0.0 for w in slot) for slot in zip(*cars, strict=False)],
        "loads": [sum(w or 0.0 for w in slot) for slot in zip(*loads, strict=False)],
    }
    since = _floor(now)
    for name, values in lists.items():
        for n, value in enumerate(values):
            at = plan.starts_at + n * SLOT
            if value is not None and at >= since:
                empty[name][at] = float(value)
    return empty


def _prices(site: Site, begins: datetime, ends: datetime) -> dict[datetime, float]:
    if not site.price_area:
        return {}
    found: dict[datetime, float] = {}
    rows = Price.objects.filter(area=site.price_area, start__gt=begins - timedelta(days=1), start__lt=ends)
    for price in rows.order_by("-minutes", "start"):
        for step in range(max(price.minutes // 15, 1)):  # quarter-hour prices come last and win
            found[price.start + step * SLOT] = price.eur_per_mwh
    return found

"""What a site's highest quarter hour costs: the month and its peak so far, what the running quarter should stay below,
and what the plan must know of it.
"""

from __future__ import annotations

import math
from datetime import datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from meters.history import SLOT, quarter_so_far
from meters.models import Site
from smartcharging.engine.live.peak import peak_target_w
from smartcharging.engine.plan.problem import MaximumTariff, PeakCharge, PlanResult
from smartcharging.models import Circuit, MonthPeak, Plan, SiteQuarter, Tariff
from smartcharging.planned import slot_index


def month_start(site: Site, now: datetime) -> datetime:
    """The first moment of the calendar month on the site's clock."""
    local = now.astimezone(ZoneInfo(site.timezone))
    return local.replace(day=1, hour=0, minute=0, second=0, microsecond=0)


def month_end(site: Site, now: datetime) -> datetime:
    """The first moment of the next calendar month on the site's clock."""
    begins = month_start(site, now)
    year, month = begins.year + begins.month // 12, begins.month % 12 + 1
    return begins.replace(year=year, month=month)


def month_peak_w(site: Site, now: datetime, tariff: Tariff) -> float:
    """The month's highest quarter so far, never below what is billed anyway."""
    found = MonthPeak.objects.filter(site=site, month=month_start(site, now).date()).first()
    return max(tariff.peak_floor_w, found.peak_w if found is not None else 0.0)


def target_w(site: Site, plan: Plan | None, tariff: Tariff, peak_w: float, now: datetime) -> float | None:
    """What this quarter should stay below: the month's peak, or a higher one the plan found worth its price.

    Without a plan nobody has weighed a peak against a car, so cars are not held back for it. Of a plan that was made
    in the month before counts what it planned for this one.
    """
    if plan is None:
        return None
    if tariff.peak_eur_per_kw_month <= 0:
        if tariff.access_power_w is None or tariff.access_excess_eur_per_kw_month <= 0:
            return None
        peak_w = max(peak_w, tariff.access_power_w)
    planned = plan.result.get("peak_w")
    begins = month_start(site, now)
    if plan.made_at < begins:
        since = max(slot_index(plan, begins), 0)
        planned = max((w for w in plan.result.get("grid_w", [])[since:] if w is not None), default=None)
    return peak_target_w(peak_w, float(planned) if isinstance(planned, int | float) else None)


def weighed_w(site: Site, result: PlanResult, now: datetime) -> float:
    """The peak to store with a plan. One that was made by rule has weighed nothing: then the last that was weighed goes
    on, as long as it is of this month and of the last day, lest a plan that came too late buys a new month's peak."""
    if result.status != Plan.Status.FALLBACK:
        return result.peak_w
    since = max(month_start(site, now), now - timedelta(days=1))
    before = Plan.objects.filter(site=site, made_at__gte=since, made_at__lt=now).order_by("-made_at").first()
    kept = before.result.get("peak_w") if before is not None else None
    return float(kept) if isinstance(kept, int | float) else result.peak_w


def quarter_import_wh(root: Circuit, now: datetime) -> float | None:
    if root.meter_id is None:
        return None
    quarter = quarter_so_far(root.meter_id, now)
    return None if quarter is None else quarter.import_wh


def charges(site: Site, tariff: Tariff, peak_w: float, start: datetime, slots: int) -> dict[str, Any]:
    """What peaks cost: this month's from its highest quarter hour so far, the next month's from the floor on."""
    ends = math.ceil((month_end(site, start) - start) / SLOT)
    month_ends = ends if ends < slots else None
    rate, excess = tariff.peak_eur_per_kw_month, tariff.access_excess_eur_per_kw_month
    found = []
    if month_ends is not None:
        found.append(PeakCharge("month_peak", rate, tariff.peak_floor_w, first_slot=month_ends))
    if tariff.access_power_w is not None:
        access_w = tariff.access_power_w
        found.append(PeakCharge("access_power", excess, max(access_w, peak_w), 0, month_ends))
        if month_ends is not None:
            found.append(PeakCharge("access_power", excess, access_w, first_slot=month_ends))
    cap = tariff.maximum_tariff_eur_per_kwh
    return {
        "month_peak_w": peak_w,
        "peak_eur_per_kw": rate,
        "month_ends": month_ends,
        "charges": tuple(found),
        "maximum_tariff": None if cap is None else MaximumTariff(cap, _other_import_wh(site, start, slots)),
    }


def _other_import_wh(site: Site, start: datetime, slots: int) -> float:
    """What this month imports outside the horizon: measured so far, and at the same pace after it."""
    begins, ends = month_start(site, start), month_end(site, start)
    known = SiteQuarter.objects.filter(site=site, slot__gte=begins, slot__lt=start, grid_w__isnull=False)
    quarters = [max(watts, 0.0) for watts in known.values_list("grid_w", flat=True) if watts is not None]
    if not quarters:
        return 0.0
    outside = (start - begins) / SLOT + max((ends - start) / SLOT - slots, 0.0)
    return sum(quarters) / len(quarters) * outside * SLOT.total_seconds() / 3600

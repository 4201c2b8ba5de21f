"""The site's own quarter hours: what building, PV, battery and cars took on average; and the month's peak.

Made from the devices' quarter hours (`meters.history`) and the EVSEs' meter values, once a quarter is over. Making
them again changes nothing, so what came late still counts for an hour. Forecasts learn from them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta

from django.db import transaction
from django.db.models import Max, Min

from csms.models import MeterSample
from meters.history import HOLD_S, SLOT, Sample, slot_of, summarize
from meters.models import Device, QuarterHour, Site
from smartcharging.models import Circuit, MonthPeak, SiteQuarter
from smartcharging.peaks import month_start

LATE = timedelta(hours=1)
FARTHEST_BACK = timedelta(days=60)
_COLUMNS = {
    Device.Kind.PV: "pv_w",
    Device.Kind.BATTERY: "battery_w",
    Device.Kind.LOAD: "loads_w",
}


def roll_up_site(site: Site, now: datetime) -> int:
    """Make the site's quarter hours up to the last finished one, and its month peak; how many were made."""
    end = slot_of(now)
    newest = SiteQuarter.objects.filter(site=site).aggregate(last=Max("slot"))["last"]
    if newest is not None and newest >= end - SLOT:
        return 0
    start = newest - LATE if newest is not None else _first_slot(site, end)
    made = 0
    while start is not None and start < end:
        stop = min(end, start + timedelta(days=1))
        made += _make(site, start, stop)
        start = stop
    return made


def _first_slot(site: Site, end: datetime) -> datetime | None:
    first = QuarterHour.objects.filter(device__site=site, slot__gte=end - FARTHEST_BACK).aggregate(first=Min("slot"))
    found: datetime | None = first["first"]
    return found


def _make(site: Site, start: datetime, stop: datetime) -> int:
    root = Circuit.objects.filter(site=site, parent=None).first()
    devices = list(Device.objects.filter(site=site))
    rows: dict[datetime, dict[int, QuarterHour]] = defaultdict(dict)
    for quarter in QuarterHour.objects.filter(device__in=devices, slot__gte=start, slot__lt=stop):
        rows[quarter.slot][quarter.device_id] = quarter
    if not rows:
        return 0
    # Where no EVSE has left a meter value, what was known of the cars stays: nothing said is not nothing taken.
    charging = _known_charging_w(site, start, stop) | _charging_w(site, start, stop)
    meter = None if root is None else root.meter_id
    made = [_quarter(site, slot, found, devices, meter, charging.get(slot, 0.0)) for slot, found in rows.items()]
    with transaction.atomic():
        SiteQuarter.objects.bulk_create(
            made,
            update_conflicts=True,
            unique_fields=["site", "slot"],
            update_fields=["grid_w", "pv_w", "battery_w", "loads_w", "charging_w", "building_w"],
        )
        if meter is not None:
            _raise_peak(site, [found[meter] for found in rows.values() if meter in found])
    return len(made)


def _quarter(
    site: Site,
    slot: datetime,
    found: Mapping[int, QuarterHour],
    devices: Iterable[Device],
    meter: int | None,
    charging_w: float,
) -> SiteQuarter:
    """One row. The building is what is left, so it is known only when everything else is."""
    grid = found.get(meter) if meter is not None else None
    row = SiteQuarter(site=site, slot=slot, charging_w=charging_w, grid_w=None if grid is None else grid.mean_w)
    complete = True
    for kind, column in _COLUMNS.items():
        members = [d for d in devices if d.kind == kind and (d.enabled or d.pk in found)]
        if not members:
            continue
        powers = [found[d.pk].mean_w if d.pk in found else None for d in members]
        if any(p is None for p in powers):
            complete = False
        else:
            setattr(row, column, sum(p for p in powers if p is not None))
    if row.grid_w is not None and complete:
        others = (row.pv_w or 0.0) + (row.battery_w or 0.0) + (row.loads_w or 0.0) + charging_w
        # Meters are not read in the same instant; a building that feeds back is such an error.
        row.building_w = max(row.grid_w - others, 0.0)
    return row


def _known_charging_w(site: Site, start: datetime, stop: datetime) -> dict[datetime, float]:
    kept = SiteQuarter.objects.filter(site=site, slot__gte=start, slot__lt=stop, charging_w__isnull=False)
    return {slot: watts for slot, watts in kept.values_list("slot", "charging_w") if watts is not None}


def _charging_w(site: Site, start: datetime, stop: datetime) -> dict[datetime, float]:
    """Mean power of all EVSEs together per slot. An EVSE that said nothing took nothing that we know of."""
    margin = timedelta(seconds=HOLD_S)
    samples: dict[int, dict[datetime, list[Sample]]] = defaultdict(lambda: defaultdict(list))
    found = MeterSample.objects.filter(evse__station__site=site, at__gte=start - margin, at__lt=stop + margin)
    for evse, at, power, energy in found.values_list("evse", "at", "power_w", "energy_wh").iterator(chunk_size=2000):
        sample = Sample(at, power, energy, None, None)
        slot = slot_of(at)
        samples[evse][slot].append(sample)
        for near in (slot_of(at - margin), slot_of(at + margin)):
            if near != slot:
                samples[evse][near].append(sample)
    totals: dict[datetime, float] = defaultdict(float)
    for slots in samples.values():
        for slot, inside in slots.items():
            quarter = summarize(inside, slot) if start <= slot < stop else None
            if quarter is not None and quarter.import_wh is not None:
                totals[slot] += quarter.import_wh * 4
    return totals


def _raise_peak(site: Site, quarters: Iterable[QuarterHour]) -> None:
    """The month's highest quarter-hour import. Only import counts; a day belongs to the site's own month."""
    highest: dict[datetime, tuple[float, datetime]] = {}
    for quarter in quarters:
        if quarter.import_wh is None:
            continue
        month, power = month_start(site, quarter.slot), quarter.import_wh * 4
        if power > highest.get(month, (0.0, quarter.slot))[0]:
            highest[month] = (power, quarter.slot)
    for month, (power, at) in highest.items():
        peak, created = MonthPeak.objects.get_or_create(
            site=site, month=month.date(), defaults={"peak_w": power, "at": at}
        )
        if not created and power > peak.peak_w:
            peak.peak_w, peak.at = power, at
            peak.save(update_fields=["peak_w", "at"])

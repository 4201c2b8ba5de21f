"""What the demo site remembers of the weeks before it was made: quarter hours, ended charges, the month's peak, prices.

The same measured days are played back over the past as over the present, so forecasts and reports work at once. What
is there already, measured by the running site, is never touched.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from datetime import datetime, timedelta

from django.db.models import Max

from csms.models import EVSE, IdToken, Transaction
from meters.history import SLOT, slot_of
from meters.models import Device, QuarterHour, Site
from smartcharging.models import Circuit, MonthPeak, Price, SiteQuarter
from smartcharging.peaks import month_start
from webapp.demo import cars
from webapp.demo.people import Stay, stays_between
from webapp.demo.replay import Replay

BACK = timedelta(days=28)
SETTLING = timedelta(hours=1)  # the running site makes its own last hour
SOURCE = "demo: SMARD 2025 replay"
HALL_LIGHTS_W = (250.0, 200.0, 150.0)


def fill_prices(site: Site, replay: Replay, now: datetime) -> int:
    """Prices from yesterday to the day after tomorrow, where none are known from a real source; how many were made."""
    today = now.astimezone(replay.zone).date()
    hours = [hour for n in (-1, 0, 1, 2) for hour in replay.prices(today + timedelta(days=n))]
    known = {
        start.replace(minute=0)
        for start in Price.objects.filter(
            area=site.price_area, start__gte=hours[0][0], start__lt=hours[-1][0] + timedelta(hours=1)
        ).values_list("start", flat=True)
    }
    fresh = [
        Price(area=site.price_area, start=start, minutes=60, eur_per_mwh=price, source=SOURCE)
        for start, price in hours
        if start not in known
    ]
    Price.objects.bulk_create(fresh, ignore_conflicts=True)
    return len(fresh)


def fill_quarters(site: Site, replay: Replay, now: datetime) -> int:
    """The quarter hours of the last four weeks that are not there yet; how many were made."""
    known = set(SiteQuarter.objects.filter(site=site, slot__gte=now - BACK).values_list("slot", flat=True))
    end = slot_of(now - SETTLING if known else now)
    start = slot_of(now - BACK)
    slots = [start + i * SLOT for i in range((end - start) // SLOT) if start + i * SLOT not in known]
    if not slots:
        return 0
    zone = replay.zone
    stays = stays_between(replay, (start - timedelta(days=2)).astimezone(zone).date(), now.astimezone(zone).date())
    charging = _charging_w(stays, slots)
    devices = {d.name: d for d in site.devices.all()}
    rows: list[QuarterHour] = []
    quarters: list[SiteQuarter] = []
    for slot in slots:
        building, pv = replay.building_mean_w(slot), replay.pv_mean_w(slot)
        hall, fast = charging[slot]
        powers = {
            "main meter": building + pv + hall + fast,
            "hall meter": hall + sum(HALL_LIGHTS_W),
            "PV roof": pv,
            "battery": 0.0,
        }
        rows += [_quarter(devices[name], slot, power) for name, power in powers.items() if name in devices]
        quarters.append(
            SiteQuarter(
                site=site,
                slot=slot,
                grid_w=powers["main meter"],
                pv_w=pv,
                battery_w=0.0,
                charging_w=hall + fast,
                building_w=building,
            )
        )
    QuarterHour.objects.bulk_create(rows, ignore_conflicts=True, batch_size=500)
    SiteQuarter.objects.bulk_create(quarters, ignore_conflicts=True, batch_size=500)
    if not known:
        _peaks(site)
    return len(quarters)


def _quarter(device: Device, slot: datetime, power_w: float) -> QuarterHour:
    return QuarterHour(
        device=device,
        slot=slot,
        mean_w=power_w,
        max_w=power_w,
        min_w=power_w,
        import_wh=max(power_w, 0.0) / 4,
        export_wh=max(-power_w, 0.0) / 4,
        soc=0.5 if device.kind == Device.Kind.BATTERY else None,
        samples=1,
        complete=True,
    )


def _charging_w(stays: Iterable[Stay], slots: Iterable[datetime]) -> dict[datetime, tuple[float, float]]:
    """Per slot: the cars of the hall, and those at the fast chargers."""
    wanted = set(slots)
    found: dict[datetime, list[float]] = defaultdict(lambda: [0.0, 0.0])
    for stay in stays:
        slot = slot_of(stay.visit.arrives)
        while slot < stay.visit.leaves:
            if slot in wanted:
                found[slot][stay.visit.group == "fast"] += stay.energy_wh(slot, slot + SLOT) * 4
            slot += SLOT
    return {slot: (found[slot][0], found[slot][1]) for slot in wanted}


def _peaks(site: Site) -> None:
    """The highest quarter hour of each month that has none yet; a peak that was measured stays."""
    root = Circuit.objects.filter(site=site, parent=None).first()
    if root is None or root.meter_id is None:
        return
    highest: dict[datetime, tuple[float, datetime]] = {}
    for slot, energy in QuarterHour.objects.filter(device_id=root.meter_id).values_list("slot", "import_wh"):
        month = month_start(site, slot)
        if energy is not None and energy * 4 > highest.get(month, (0.0, slot))[0]:
            highest[month] = (energy * 4, slot)
    for month, (power, at) in highest.items():
        MonthPeak.objects.get_or_create(site=site, month=month.date(), defaults={"peak_w": power, "at": at})


def fill_charges(site: Site, replay: Replay, now: datetime) -> int:
    """The charges of the last four weeks, for the reports; only where the site has none at all yet."""
    if Transaction.objects.filter(station__site=site).aggregate(last=Max("started_at"))["last"] is not None:
        return 0
    zone = replay.zone
    evses = {
        (e.station.identity, e.number): e for e in EVSE.objects.filter(station__site=site).select_related("station")
    }
    tokens = {t.value: t for t in IdToken.objects.filter(site=site)}
    registers = dict.fromkeys(evses, 100_000.0)
    made: list[Transaction] = []
    for stay in stays_between(replay, (now - BACK).astimezone(zone).date(), now.astimezone(zone).date()):
        visit, evse = stay.visit, evses.get(stay.place)
        if evse is None or visit.leaves >= now:
            continue
        value = cars.token_at(stay.place)
        begun = registers[stay.place]
        registers[stay.place] = begun + visit.energy_wh
        made.append(
            Transaction(
                transaction_id=f"past-{len(made) + 1}",
                station=evse.station,
                evse=evse,
                id_token=tokens.get(value),
                id_token_value=value,
                started_at=visit.arrives,
                ended_at=visit.leaves,
                stop_reason="EVDisconnected",
                meter_start_wh=round(begun),
                meter_last_wh=round(begun + visit.energy_wh),
                energy_wh=visit.energy_wh,
                last_event_at=visit.leaves,
            )
        )
    Transaction.objects.bulk_create(made, batch_size=500)
    return len(made)

"""What a site used, made, paid and charged between two days: the numbers behind the report page, the CSV and REST.

Days begin and end on the site's own clock, so a day has 92, 96 or 100 quarter hours. Energy comes from the quarter
hours of the devices; what cars took comes from their transactions. Unknown is not zero: a device that was never
measured makes a sum `None`, and a device that does not exist is left out of the balance.

All energies in Wh and positive in the direction their name says; money in EUR; shares from 0 to 1.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from typing import Any

from django.db.models import Q
from django.utils import timezone
from django.utils.translation import gettext as _

from csms.models import MeterSample, Transaction
from meters.models import Device, QuarterHour, Site
from smartcharging.models import Circuit, Price, Tariff

SLOT = timedelta(minutes=15)
MAX_DAYS = 400


class ReportRangeError(ValueError):
    """The days asked for cannot be reported on; the message says why."""


@dataclass(frozen=True, slots=True)
class Flows:
    """One stretch of time, per kind of source. `None` is unknown; a kind without a device stays `None` too."""

    grid_import_wh: float | None = None
    grid_export_wh: float | None = None
    pv_wh: float | None = None
    battery_charged_wh: float | None = None
    battery_discharged_wh: float | None = None
    loads_wh: float | None = None
    charging_wh: float | None = None
    building_wh: float | None = None
    cost_import_eur: float | None = None
    income_export_eur: float | None = None


@dataclass
class _Slot:
    """The quarter hours of all devices of a site at one moment, added up per kind."""

    sums: dict[str, float] = field(default_factory=dict)
    seen: dict[str, int] = field(default_factory=lambda: defaultdict(int))

    def add(self, name: str, wh: float) -> None:
        self.sums[name] = self.sums.get(name, 0.0) + wh


def day_start(site: Site, day: date) -> datetime:
    """Midnight on the site's clock, as UTC."""
    return datetime.combine(day, time(), tzinfo=site.tz).astimezone(UTC)


def report(site: Site, start: date, end: date) -> dict[str, Any]:
    """Everything about `site` from the morning of `start` to the night of `end` (both days inclusive).

    Raises `ReportRangeError` when the days are in the wrong order or too many.
    """
    if end < start:
        raise ReportRangeError(_("The last day comes before the first."))
    if (end - start).days >= MAX_DAYS:
        raise ReportRangeError(_("A report spans at most %(days)d days.") % {"days": MAX_DAYS})
    begins, ends = day_start(site, start), day_start(site, end + timedelta(days=1))
    world = _World.of(site)
    slots = _slots(world, begins, ends)
    prices = _Prices.of(site, begins, ends)
    shares = _transaction_shares(site, begins, ends)

    charged = _charged_per_day(site, shares, begins, ends) if site.stations.exists() else None
    by_day: dict[date, dict[datetime, _Slot]] = defaultdict(dict)
    for at, slot in slots.items():
        by_day[at.astimezone(site.tz).date()][at] = slot
    today = timezone.now().astimezone(site.tz).date()
    days = [
        (day, _flows(world, by_day[day], prices, None if charged is None or day > today else charged[day]))
        for day in (start + timedelta(days=n) for n in range((end - start).days + 1))
    ]
    total = _total(flows for _, flows in days)
    peak_at, peak_w = _peak(slots)
    return {
        "site": site.pk,
        "name": site.name,
        "demo": site.demo,
        "timezone": site.timezone,
        "from": start.isoformat(),
        "to": end.isoformat(),
        "starts_at": begins.isoformat(),
        "ends_at": ends.isoformat(),
        "energy_wh": _energy(total),
        "self_consumption": _self_consumption(total),
        "self_sufficiency": _self_sufficiency(total),
        "peak": {"power_w": peak_w, "at": peak_at.isoformat()} if peak_at and peak_w is not None else None,
        "cost_eur": _cost(total, peak_w, prices.tariff),
        "has": {kind: bool(world.count(kind)) for kind in ("pv", "battery", "load")},
        "coverage": _coverage(slots, begins, min(ends, timezone.now())),
        "days": [{"day": d.isoformat(), **_energy(f), "cost_eur": _net_cost(f)} for d, f in days],
        "stations": _per_station(shares, begins, ends),
        "users": _per_user(shares, begins, ends),
        "profiles": _per_profile(shares, begins, ends),
        "sessions": len(shares),
    }


@dataclass(frozen=True)
class _World:
    """Which devices a site has, by what they are to the balance."""

    site: Site
    grid_meter: int | None
    kinds: Mapping[int, str]  # device → pv | battery | load

    @classmethod
    def of(cls, site: Site) -> _World:
        root = Circuit.objects.filter(site=site, parent=None).first()
        devices = Device.objects.filter(site=site, enabled=True)
        kinds = {d.pk: d.kind for d in devices if d.kind in (Device.Kind.PV, Device.Kind.BATTERY, Device.Kind.LOAD)}
        return cls(site, root.meter_id if root else None, kinds)

    def count(self, kind: str) -> int:
        return sum(1 for k in self.kinds.values() if k == kind)


def _slots(world: _World, begins: datetime, ends: datetime) -> dict[datetime, _Slot]:
    wanted = [*world.kinds, *([world.grid_meter] if world.grid_meter else [])]
    rows = QuarterHour.objects.filter(device_id__in=wanted, slot__gte=begins, slot__lt=ends).values_list(
        "device_id", "slot", "mean_w", "import_wh", "export_wh"
    )
    slots: dict[datetime, _Slot] = defaultdict(_Slot)
    for device, at, mean_w, import_wh, export_wh in rows:
        taken, given = _directions(mean_w, import_wh, export_wh)
        if taken is None or given is None:
            continue
        slot = slots[at]
        kind = "grid" if device == world.grid_meter else world.kinds[device]
        slot.seen[kind] += 1
        slot.add(f"{kind}_in", taken)
        slot.add(f"{kind}_out", given)
    return dict(sorted(slots.items()))


def _directions(
    mean_w: float | None, import_wh: float | None, export_wh: float | None
) -> tuple[float | None, float | None]:
    """What was taken and what was given in one quarter hour: from the registers, else from the mean power."""
    if import_wh is not None or export_wh is not None:
        return import_wh or 0.0, export_wh or 0.0
    if mean_w is None:
        return None, None
    wh = mean_w / 4
    return max(wh, 0.0), max(-wh, 0.0)


def _flows(world: _World, slots: Mapping[datetime, _Slot], prices: _Prices, charging_wh: float | None) -> Flows:
    def total(kind: str, direction: str, devices: int) -> float | None:
        """Known as soon as one quarter hour is; the coverage tells how much of the time that was."""
        if devices == 0 or not any(s.seen[kind] for s in slots.values()):
            return None
        return sum(s.sums.get(f"{kind}_{direction}", 0.0) for s in slots.values())

    meters = 1 if world.grid_meter else 0
    grid_in, grid_out = total("grid", "in", meters), total("grid", "out", meters)
    pv = total("pv", "out", world.count("pv"))
    charged, discharged = (
        total("battery", "in", world.count("battery")),
        total("battery", "out", world.count("battery")),
    )
    loads = total("load", "in", world.count("load"))
    cost, income = _money(slots, prices) if grid_in is not None else (None, None)
    return Flows(
        grid_import_wh=grid_in,
        grid_export_wh=grid_out,
        pv_wh=pv,
        battery_charged_wh=charged,
        battery_discharged_wh=discharged,
        loads_wh=loads,
        charging_wh=charging_wh,
        building_wh=_building(world, grid_in, grid_out, pv, charged, discharged, loads, charging_wh),
        cost_import_eur=cost,
        income_export_eur=income,
    )


def _building(
    world: _World,
    grid_in: float | None,
    grid_out: float | None,
    pv: float | None,
    charged: float | None,
    discharged: float | None,
    loads: float | None,
    charging: float | None,
) -> float | None:
    """What is left of the balance. Unknown when any commissioned part of it is."""
    if grid_in is None or grid_out is None:
        return None
    if (world.count("pv") and pv is None) or (world.count("battery") and charged is None):
        return None
    if world.count("load") and loads is None:
        return None
    left = grid_in - grid_out + (pv or 0.0) + (discharged or 0.0) - (charged or 0.0) - (loads or 0.0)
    return max(left - (charging or 0.0), 0.0)


def _money(slots: Mapping[datetime, _Slot], prices: _Prices) -> tuple[float, float]:
    cost = income = 0.0
    for at, slot in slots.items():
        buy, sell = prices.at(at)
        cost += slot.sums.get("grid_in", 0.0) / 1000 * buy
        income += slot.sums.get("grid_out", 0.0) / 1000 * sell
    return cost, income


def _total(parts: Iterable[Flows]) -> Flows:
    sums: dict[str, float] = {}
    for part in parts:
        for name in Flows.__slots__:
            value = getattr(part, name)
            if value is not None:
                sums[name] = sums.get(name, 0.0) + value
    return Flows(**sums)


def _energy(flows: Flows) -> dict[str, float | None]:
    return {
        "grid_import": flows.grid_import_wh,
        "grid_export": flows.grid_export_wh,
        "pv": flows.pv_wh,
        "battery_charged": flows.battery_charged_wh,
        "battery_discharged": flows.battery_discharged_wh,
        "charging": flows.charging_wh,
        "building": flows.building_wh,
        "loads": flows.loads_wh,
    }


def _self_consumption(flows: Flows) -> float | None:
    """The share of the PV energy that stayed on site."""
    if not flows.pv_wh or flows.grid_export_wh is None:
        return None
    return min(max(1 - flows.grid_export_wh / flows.pv_wh, 0.0), 1.0)


def _self_sufficiency(flows: Flows) -> float | None:
    """The share of what the site used that did not come from the grid."""
    if flows.grid_import_wh is None or flows.grid_export_wh is None or not flows.pv_wh:
        return None
    used = flows.grid_import_wh - flows.grid_export_wh + flows.pv_wh
    return min(max(1 - flows.grid_import_wh / used, 0.0), 1.0) if used > 0 else None


def _net_cost(flows: Flows) -> float | None:
    if flows.cost_import_eur is None:
        return None
    return flows.cost_import_eur - (flows.income_export_eur or 0.0)


def _cost(flows: Flows, peak_w: float | None, tariff: Tariff) -> dict[str, float | None]:
    """Energy bought and sold, and what the capacity tariff asks for a month at the peak of these days."""
    peak = None if peak_w is None else max(peak_w, tariff.peak_floor_w) / 1000 * tariff.peak_eur_per_kw_month
    if peak is not None and peak_w is not None and tariff.access_power_w is not None:
        peak += max(peak_w - tariff.access_power_w, 0.0) / 1000 * tariff.access_excess_eur_per_kw_month
    return {
        "import": flows.cost_import_eur,
        "export": flows.income_export_eur,
        "energy": _net_cost(flows),
        "peak_per_month": peak,
    }


def _peak(slots: Mapping[datetime, _Slot]) -> tuple[datetime | None, float | None]:
    """The highest quarter-hour import, and when."""
    known = [
        (slot.sums["grid_in"] - slot.sums.get("grid_out", 0.0), at) for at, slot in slots.items() if slot.seen["grid"]
    ]
    if not known:
        return None, None
    wh, at = max(known)
    return at, max(wh * 4, 0.0)


def _coverage(slots: Mapping[datetime, _Slot], begins: datetime, until: datetime) -> float | None:
    """For which share of the time that has passed the main meter is known."""
    expected = int((until - begins) / SLOT)
    if expected <= 0:
        return None
    return min(sum(1 for s in slots.values() if s.seen["grid"]) / expected, 1.0)


class _Prices:
    """What a kWh costs and earns in each quarter hour: day-ahead price through the site's tariff."""

    def __init__(self, tariff: Tariff, by_slot: Mapping[datetime, float]) -> None:
        self.tariff = tariff
        self._by_slot = by_slot

    @classmethod
    def of(cls, site: Site, begins: datetime, ends: datetime) -> _Prices:
        tariff = Tariff.objects.filter(site=site).first() or Tariff(site=site)
        by_slot: dict[datetime, float] = {}
        rows = Price.objects.filter(
            area=site.price_area, start__gt=begins - timedelta(days=1), start__lt=ends
        ).order_by("-minutes", "start")
        for price in rows if site.price_area else ():
            for step in range(max(price.minutes // 15, 1)):  # quarter-hour prices come last and win
                by_slot[price.start + step * SLOT] = price.eur_per_mwh
        return cls(tariff, by_slot)

    def at(self, slot: datetime) -> tuple[float, float]:
        """EUR per kWh taken and given."""
        market = self._by_slot.get(slot, self.tariff.fixed_price_eur_per_mwh) / 1000
        return (
            market * self.tariff.import_factor + self.tariff.import_adder_eur_per_kwh,
            market * self.tariff.export_factor + self.tariff.export_adder_eur_per_kwh,
        )


@dataclass(frozen=True)
class _Share:
    """A transaction as a rising line: how much it had taken at a few moments."""

    transaction: Transaction
    points: tuple[tuple[datetime, float], ...]  # (when, Wh since its start), rising

    def at(self, moment: datetime) -> float:
        before = self.points[0]
        if moment <= before[0]:
            return 0.0
        for point in self.points[1:]:
            if moment <= point[0]:
                span = (point[0] - before[0]).total_seconds()
                part = (moment - before[0]).total_seconds() / span if span > 0 else 1.0
                return before[1] + part * (point[1] - before[1])
            before = point
        return before[1]

    def between(self, since: datetime, until: datetime) -> float:
        return self.at(until) - self.at(since)


def _transaction_shares(site: Site, begins: datetime, ends: datetime) -> list[_Share]:
    """The transactions that were open at some moment of these days, oldest first."""
    rows = (
        Transaction.objects.filter(station__site=site, started_at__lt=ends)
        .filter(Q(ended_at=None) | Q(ended_at__gt=begins))
        .select_related("station", "id_token__driver", "id_token__token_profile__profile")
        .order_by("started_at")
    )
    return [_Share(t, _points(site, t)) for t in rows]


def _charged_per_day(site: Site, shares: Iterable[_Share], begins: datetime, ends: datetime) -> dict[date, float]:
    sums: dict[date, float] = defaultdict(float)
    for share in shares:
        since, until = max(share.points[0][0], begins), min(share.points[-1][0], ends)
        while since < until:
            day = since.astimezone(site.tz).date()
            midnight = min(day_start(site, day + timedelta(days=1)), until)
            sums[day] += share.between(since, midnight)
            since = midnight
    return sums


def _points(site: Site, transaction: Transaction) -> tuple[tuple[datetime, float], ...]:
    """Start, the last register before each midnight in between, end. Without registers: a straight line."""
    finish = transaction.ended_at or transaction.last_event_at or timezone.now()
    finish = max(finish, transaction.started_at)
    points = [(transaction.started_at, 0.0)]
    first, last = transaction.started_at.astimezone(site.tz).date(), finish.astimezone(site.tz).date()
    if first != last and transaction.meter_start_wh is not None:
        day = first + timedelta(days=1)
        while day <= last:
            midnight = day_start(site, day)
            sample = (
                MeterSample.objects.filter(transaction=transaction, at__lte=midnight, energy_wh__isnull=False)
                .order_by("-at")
                .values_list("at", "energy_wh")
                .first()
            )
            if sample is not None and sample[1] is not None:
                taken = min(max(sample[1] - transaction.meter_start_wh, points[-1][1]), transaction.energy_wh)
                if sample[0] > points[-1][0]:
                    points.append((sample[0], taken))
            day += timedelta(days=1)
    points.append((finish, max(transaction.energy_wh, points[-1][1])))
    return tuple(points)


def _per_station(shares: Iterable[_Share], begins: datetime, ends: datetime) -> list[dict[str, Any]]:
    rows: dict[str, dict[str, Any]] = {}
    for share in shares:
        station = share.transaction.station
        row = rows.setdefault(
            station.identity,
            {"station": station.identity, "name": str(station), "sessions": 0, "energy_wh": 0.0},
        )
        row["sessions"] += 1
        row["energy_wh"] += share.between(begins, ends)
    return sorted(rows.values(), key=lambda r: (-r["energy_wh"], r["station"]))


def _per_user(shares: Iterable[_Share], begins: datetime, ends: datetime) -> list[dict[str, Any]]:
    """Per id token: its driver when one is known. A token that was removed keeps the value it was presented with."""
    rows: dict[str, dict[str, Any]] = {}
    for share in shares:
        token = share.transaction.id_token
        driver = token.driver if token else None
        value = token.value if token else share.transaction.id_token_value
        row = rows.setdefault(
            value,
            {
                "id_token": value,
                "label": token.label if token else "",
                "driver": (driver.get_full_name() or driver.get_username()) if driver else "",
                "sessions": 0,
                "energy_wh": 0.0,
            },
        )
        row["sessions"] += 1
        row["energy_wh"] += share.between(begins, ends)
    return sorted(rows.values(), key=lambda r: (-r["energy_wh"], r["id_token"]))


def _per_profile(shares: Iterable[_Share], begins: datetime, ends: datetime) -> list[dict[str, Any]]:
    """Per user profile, as the tokens have it now; `None` gathers the charges of tokens without one."""
    rows: dict[str | None, dict[str, Any]] = {}
    for share in shares:
        link = getattr(share.transaction.id_token, "token_profile", None)
        name = link.profile.name if link is not None else None
        row = rows.setdefault(name, {"profile": name, "sessions": 0, "energy_wh": 0.0})
        row["sessions"] += 1
        row["energy_wh"] += share.between(begins, ends)
    return sorted(rows.values(), key=lambda r: (-r["energy_wh"], r["profile"] or ""))

"""Paint the site as it is now: configuration, measurements with their ages, cars, goals, commands and the plan.

`look` asks the database and Redis a fixed number of questions, however many stations there are, and judges what is
old: a stale measurement is absent, never zero. What it returns is frozen; the engine decides on the snapshot in it,
`dispatch` and `picture` find the records behind it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from django.db.models import Q

from csms import bus, learning
from csms.models import EVSE, ChargingStation, Transaction
from meters import live
from meters.devices import maps
from meters.measurement import Measurement, Quality
from meters.models import Device, Site
from meters.supply import lines_only
from smartcharging import narrowings, peaks, remember
from smartcharging.engine import grid as engine
from smartcharging.engine.grid import Grid, Phases, Supply, loaded, spread_a
from smartcharging.engine.snapshot import BatteryState, NodeReading, Snapshot
from smartcharging.models import Circuit, GridCommand, Plan, Price, Tariff, Vehicle
from smartcharging.phase_learning import learn_steps
from smartcharging.places import (
    Place,
    place_of,
    session_of,
    wired,
)
from smartcharging.planned import planned_now
from smartcharging.remember import EvseMemory

_PHASE_INDEX = {"L1": 0, "L2": 1, "L3": 2}


class SiteNotReady(Exception):
    """The site cannot be controlled yet: it has no grid connection, or its circuits form no tree."""


@dataclass(frozen=True)
class View:
    """The site now: the snapshot for the engine, and the records behind it."""

    site: Site
    now: datetime
    snapshot: Snapshot
    places: tuple[Place, ...]
    circuits: tuple[Circuit, ...]  # in the order of the grid
    devices: tuple[Device, ...]
    node_of_device: Mapping[int, int]
    live: Mapping[int, Measurement]  # fresh measurements by device
    commands: tuple[GridCommand, ...]
    plan: Plan | None
    tariff: Tariff
    month_peak_w: float
    price_eur_per_mwh: float | None
    memories: Mapping[int, EvseMemory] = field(default_factory=dict)

    def devices_of(self, kind: str) -> list[Device]:
        return [d for d in self.devices if d.kind == kind]


def snapshot(site: Site, now: datetime) -> Snapshot:
    """What the engine is told of the site. Raises `SiteNotReady`."""
    return look(site, now).snapshot


def look(site: Site, now: datetime) -> View:
    """The whole site at this moment. Raises `SiteNotReady`."""
    circuits, grid = _circuits(site)
    node_of = {c.key: i for i, c in enumerate(grid.circuits)}
    devices = tuple(site.devices.filter(enabled=True).select_related("feed").order_by("pk"))
    node_of_device = {d.pk: node_of[d.feed.circuit_id] for d in devices if hasattr(d, "feed")}
    evses = list(
        EVSE.objects.filter(station__site=site, station__admission=ChargingStation.Admission.ACCEPTED)
        .select_related("station", "feed", "wanted_limit")
        .order_by("pk")
    )
    transactions = _open_transactions(site)
    vehicles = _vehicles(transactions.values())
    measured = live.fetch([live.device_source(d.pk) for d in devices] + [live.evse_source(e.pk) for e in evses])
    held = bus.holders({e.station.identity for e in evses})
    remembered = remember.recall(site.pk)
    known = learning.of_stations({e.station_id: e.station for e in evses}.values())

    plan = Plan.objects.filter(site=site, starts_at__lte=now, valid_until__gt=now).order_by("-made_at").first()
    fresh = _fresh_devices(devices, measured, now, grid.supply)
    places = tuple(
        place_of(
            evse,
            # An EVSE that hangs on no circuit is counted at the grid connection: none may stand outside the tree.
            node=node_of.get(evse.feed.circuit_id, 0) if hasattr(evse, "feed") else 0,
            transaction=transactions.get(evse.pk),
            vehicles=vehicles,
            measured=measured.get(live.evse_source(evse.pk)),
            connected=evse.station.identity in held,
            memory=remembered.get(evse.pk, EvseMemory()),
            capabilities=known.get(evse.station_id, {}),
            now=now,
            supply=grid.supply,
        )
        for evse in evses
    )
    readings = _readings(circuits, fresh)
    places = learn_steps(places, grid, readings, now)
    commands = narrowings.commands(site, now)
    tariff = Tariff.objects.filter(site=site).first() or Tariff(site=site)
    peak_w = peaks.month_peak_w(site, now, tariff)
    return View(
        site=site,
        now=now,
        snapshot=Snapshot(
            now=now,
            grid=grid,
            sessions=tuple(session_of(p, plan, now) for p in places),
            readings=readings,
            batteries=_batteries(devices, node_of_device, fresh, plan, now, grid.supply),
            narrowings=(
                *narrowings.alarms(devices, node_of_device, fresh),
                *narrowings.orders(commands, now),
                *narrowings.hands({(p.station.identity, p.evse.number): p.key for p in places}, now),
            ),
            pv_w=_pv_w(devices, fresh),
            plan_valid=plan is not None,
            peak_target_w=peaks.target_w(site, plan, tariff, peak_w, now),
            quarter_import_wh=peaks.quarter_import_wh(circuits[0], now),
            background_a=_currents_at_nodes(_background(devices, circuits), node_of_device, fresh, grid.supply),
            pv_a=_currents_at_nodes(
                [d for d in devices if d.kind == Device.Kind.PV], node_of_device, fresh, grid.supply
            ),
            carried=remember.recall_carried(site.pk),
        ),
        places=places,
        circuits=circuits,
        devices=devices,
        node_of_device=node_of_device,
        live=fresh,
        commands=commands,
        plan=plan,
        tariff=tariff,
        month_peak_w=peak_w,
        price_eur_per_mwh=_price_now(site, tariff, now),
        memories={p.evse.pk: p.memory for p in places},
    )


# --- circuits and devices -------------------------------------------------------------------------------------------


def _circuits(site: Site) -> tuple[tuple[Circuit, ...], Grid]:
    rows = list(site.circuits.select_related("meter").order_by("pk"))
    names = {c.pk: c.name for c in rows}
    try:
        grid = Grid.build(
            [
                (
                    engine.Circuit(
                        name=c.name,
                        parent=None,
                        limit_a=(float(c.limit_a[0]), float(c.limit_a[1]), float(c.limit_a[2])),
                        limit_w=c.limit_w,
                        export_limit_w=c.export_limit_w,
                        margin_a=c.margin_a,
                        fallback_a=c.fallback_a,
                        metered=c.meter_id is not None,
                        key=c.pk,
                        worst_a=None if c.worst_a is None else (c.worst_a[0], c.worst_a[1], c.worst_a[2]),
                        imbalance_a=c.imbalance_a,
                    ),
                    None if c.parent_id is None else names[c.parent_id],
                )
                for c in rows
            ],
            Supply(site.supply),
        )
    except (engine.GridError, KeyError, IndexError, TypeError) as error:
        raise SiteNotReady(f"site {site.name}: {error}") from error
    by_pk = {c.pk: c for c in rows}
    return tuple(by_pk[c.key] for c in grid.circuits if c.key is not None), grid


def _fresh_devices(
    devices: Iterable[Device], measured: Mapping[str, Measurement], now: datetime, supply: Supply
) -> dict[int, Measurement]:
    """Measurements that may be acted on: young enough, and not suspect. Without a neutral, of lines alone."""
    fresh = {}
    for device in devices:
        found = measured.get(live.device_source(device.pk))
        if found is not None and found.is_fresh(now, device.max_age_s) and found.quality != Quality.SUSPECT:
            fresh[device.pk] = found if supply is Supply.TN else _of_lines(device, found)
    return fresh


def _of_lines(device: Device, found: Measurement) -> Measurement:
    is_p1 = device.map == maps.P1_MAP or device.connect.startswith("p1:")
    wiring = [name for name in device.wiring if name in _PHASE_INDEX]
    return lines_only(found, wiring, meter=device.kind == Device.Kind.METER, zero_is_silence=is_p1)


def _readings(circuits: tuple[Circuit, ...], fresh: Mapping[int, Measurement]) -> dict[int, NodeReading]:
    readings = {}
    for node, circuit in enumerate(circuits):
        if circuit.meter is None:
            continue
        found = fresh.get(circuit.meter.pk)
        if found is None:
            readings[node] = NodeReading(None)
        else:
            readings[node] = NodeReading(_meter_currents(circuit.meter, found), found.power_w, found.at)
    return readings


def _meter_currents(device: Device, measurement: Measurement) -> Phases | None:
    """All three phases. A meter that is wired to fewer says nothing of the others, because nothing is there."""
    currents = measurement.phase_currents()
    if currents is None:
        return None
    if device.wiring:
        there = {_PHASE_INDEX[p] for p in device.wiring if p in _PHASE_INDEX}
        currents = tuple(c if i in there or c is not None else 0.0 for i, c in enumerate(currents))  # type: ignore[assignment]
    if any(c is None for c in currents):
        return None
    a, b, c = currents
    return (float(a or 0.0), float(b or 0.0), float(c or 0.0))


def _background(devices: Iterable[Device], circuits: Iterable[Circuit]) -> list[Device]:
    """Loads that are measured by themselves: switched ones, and those behind a meter that is no circuit's."""
    meters = {c.meter_id for c in circuits}
    return [d for d in devices if d.kind == Device.Kind.LOAD or (d.kind == Device.Kind.METER and d.pk not in meters)]


def _currents_at_nodes(
    devices: Iterable[Device], node_of_device: Mapping[int, int], fresh: Mapping[int, Measurement], supply: Supply
) -> dict[int, Phases]:
    """By circuit, what these devices take together: not a number as soon as one that should tell is silent."""
    sums: dict[int, list[float]] = {}
    for device in devices:
        found, node = fresh.get(device.pk), node_of_device.get(device.pk)
        if node is None:
            continue
        currents = _meter_currents(device, found) if found is not None else None
        if currents is None and found is not None and found.power_w is not None:
            currents = spread_a(found.power_w, wired(device.wiring), supply)
        if currents is None and not device.connect:
            continue  # a relay without a meter, whose load nobody measures
        for phase, amps in enumerate(currents or (math.nan,) * 3):
            sums.setdefault(node, [0.0, 0.0, 0.0])[phase] += amps
    return {node: (a, b, c) for node, (a, b, c) in sums.items()}


def _pv_w(devices: Iterable[Device], fresh: Mapping[int, Measurement]) -> float | None:
    """All PV together; None when there is none, or when one of them is not known."""
    powers = [fresh[d.pk].power_w if d.pk in fresh else None for d in devices if d.kind == Device.Kind.PV]
    if not powers or any(p is None for p in powers):
        return None
    return sum(p for p in powers if p is not None)


def _batteries(
    devices: Iterable[Device],
    node_of_device: Mapping[int, int],
    fresh: Mapping[int, Measurement],
    plan: Plan | None,
    now: datetime,
    supply: Supply,
) -> tuple[BatteryState, ...]:
    rows = [d for d in devices if d.kind == Device.Kind.BATTERY and d.option("capacity_wh")]
    planned_w = planned_now(plan, "battery_w", now)
    whole_wh = sum(float(d.option("capacity_wh")) for d in rows)
    batteries = []
    for device in rows:
        found = fresh.get(device.pk)
        capacity = float(device.option("capacity_wh"))
        batteries.append(
            BatteryState(
                key=str(device.pk),
                node=node_of_device.get(device.pk, 0),
                soc=found.soc if found is not None else None,
                capacity_wh=capacity,
                max_charge_w=float(device.option("max_charge_w", 0.0)),
                max_discharge_w=float(device.option("max_discharge_w", 0.0)),
                min_soc=float(device.option("min_soc", 0.1)),
                max_soc=float(device.option("max_soc", 1.0)),
                efficiency=float(device.option("efficiency", 0.95)),
                power_w=found.power_w if found is not None else None,
                # The plan knows one battery; several share what it asks for by their size.
                planned_w=None if planned_w is None else planned_w * capacity / whole_wh,
                wear_eur_per_kwh=float(device.option("wear_eur_per_kwh", 0.02)),
                phases=loaded(wired(device.wiring), supply),
            )
        )
    return tuple(batteries)


# --- cars -----------------------------------------------------------------------------------------------------------


def _open_transactions(site: Site) -> dict[int, Transaction]:
    """The newest open transaction of each EVSE."""
    rows = (
        Transaction.objects.filter(station__site=site, ended_at=None, evse__isnull=False)
        .select_related("goal", "needs", "id_token__token_profile__profile")
        .order_by("started_at", "pk")
    )
    return {row.evse_id: row for row in rows if row.evse_id is not None}


def _vehicles(transactions: Iterable[Transaction]) -> dict[int, Vehicle]:
    tokens = {t.id_token_id for t in transactions if t.id_token_id is not None}
    return {v.id_token_id: v for v in Vehicle.objects.filter(id_token__in=tokens) if v.id_token_id is not None}


def _price_now(site: Site, tariff: Tariff, now: datetime) -> float | None:
    """The day-ahead price of this moment, before factors and adders."""
    row = (
        Price.objects.filter(Q(area=site.price_area), start__lte=now, start__gt=now - timedelta(hours=1))
        .order_by("-start")
        .first()
        if site.price_area
        else None
    )
    if row is not None and now < row.start + timedelta(minutes=row.minutes):
        return row.eur_per_mwh
    return tariff.fixed_price_eur_per_mwh

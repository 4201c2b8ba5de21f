"""The coming day as a planning problem: cars and their goals, expected load and sun, prices, battery and orders.

Slots are UTC quarter hours from the running one on. What is missing is filled with what is safe or usual, never with
zero: where the market is not known yet, the days before stand in, and then the contract's fixed price.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import numpy as np

from meters.history import SLOT, slot_of
from meters.models import Site
from smartcharging import boards, forecasts, habits, load_needs, peaks, punctuality
from smartcharging.engine.carried import Carried, takes_of
from smartcharging.engine.forecast.arrivals import still_to_come
from smartcharging.engine.forecast.leaving import Punctuality, gone
from smartcharging.engine.grid import NOMINAL_V, power_weight
from smartcharging.engine.plan.problem import PlanProblem, PlanSession, Series
from smartcharging.engine.plan.window import WAITING_EUR_PER_KWH, counted_on_w, hurry, losses, ready_by
from smartcharging.engine.rules import DEFAULT as RULES
from smartcharging.engine.snapshot import BatteryState, Mode
from smartcharging.engine.tariff import MarketPrice, SlotPrices, Terms, slot_prices
from smartcharging.gather import View, look
from smartcharging.load_needs import LoadNeeds
from smartcharging.models import GridCommand, Price, Tariff
from smartcharging.places import (
    Place,
    energy_needed_wh,
    max_a,
    max_w,
    min_a,
    mode_of,
    phases_of,
    plug_share,
    priority_of,
)
from smartcharging.remember import EvseMemory

SLOT_S = 900
FEWEST_SLOTS = 96
MOST_SLOTS = 192
PRICES_BACK = timedelta(days=14)
USUAL_STAY = timedelta(hours=4)  # of a car that said nothing …
LEAST_STAY = timedelta(hours=1)  # … and still is there
WELL_BEFORE = timedelta(minutes=30)  # a departure: who leaves by then leaves early
USUAL_WH = 30_000.0  # what such a car is taken to want
AT_LEAST_WH = 5_000.0
FULL_SOC = 0.95


@dataclass(frozen=True)
class Day:
    """The problem, and the view it was painted from."""

    problem: PlanProblem
    view: View
    market_eur_per_mwh: Series
    labels: dict[str, Place]  # by session label; cars that are only expected have none
    loads: LoadNeeds
    leaves_early: dict[str, float]  # by session label: the chance to be gone half an hour before the named departure


def problem(site: Site, now: datetime) -> PlanProblem:
    """What the plan depends on. Raises `gather.SiteNotReady`."""
    return day(site, now).problem


def day(site: Site, now: datetime) -> Day:
    """The planning problem of the coming day with the places its sessions stand for."""
    view = look(site, now)
    start = slot_of(now)
    cars = [p for p in view.places if _takes_part(p)]
    slots = _slots(cars, start)
    building_w, pv_w = forecasts.expected(site, start, slots, now, view)
    price = prices(site, view.tariff, start, slots)
    commands = list(_commands(site, start, slots))
    who = punctuality.of_site(site, now, [t for p in cars if (t := _token(p)) is not None])
    left = [_gone(p, who(_token(p)), start, slots, now) for p in cars]
    present = tuple(
        replace(_session(p, start, slots, now, view.snapshot.carried), gone_eur_per_kwh=losses(chance, None))
        for p, chance in zip(cars, left, strict=True)
    )
    free = [_free(p, start, slots, now) for p in view.places if p.evse.available]
    coming = still_to_come(habits.of_site(site, now), start, slots, site.tz, [p for p in free if p.first_slot < slots])
    loads = load_needs.needs(view, start, slots)
    return Day(
        problem=PlanProblem(
            start=start,
            slot_s=SLOT_S,
            grid=view.snapshot.grid,
            sessions=(*present, *coming),
            building_w=building_w + loads.others_w,
            pv_w=pv_w,
            import_eur_per_kwh=price.import_eur_per_kwh,
            export_eur_per_kwh=price.export_eur_per_kwh,
            battery=one_battery(view.snapshot.batteries),
            **peaks.charges(site, view.tariff, view.month_peak_w, start, slots),
            import_limit_w=_limits(commands, "import_limit_w", start, slots),
            export_limit_w=_limits(commands, "export_limit_w", start, slots),
            node_background_w=boards.expected_w(view, loads.loads, building_w, pv_w),
            loads=loads.loads,
            sun_trust=RULES.sun_trust,
            early_eur_per_kwh=WAITING_EUR_PER_KWH,
        ),
        view=view,
        market_eur_per_mwh=price.market_eur_per_mwh,
        labels={s.label: p for s, p in zip(present, cars, strict=True)},
        loads=loads,
        leaves_early={
            s.label: early
            for s, p, chance in zip(present, cars, left, strict=True)
            if (early := _leaves_early(p, chance, start)) is not None
        },
    )


def _takes_part(place: Place) -> bool:
    """A car on an authorised transaction, also while it pauses by itself: it may ask again."""
    return place.transaction is not None and place.transaction.authorized and place.evse.available


def _slots(cars: Iterable[Place], start: datetime) -> int:
    """As far as the last departure, at least a day, at most two."""
    last = max((p.goal.departure for p in cars if p.goal is not None and p.goal.departure is not None), default=start)
    return min(max(math.ceil((last - start) / SLOT), FEWEST_SLOTS), MOST_SLOTS)


def _session(place: Place, start: datetime, slots: int, now: datetime, shown: Carried | None = None) -> PlanSession:
    phases = phases_of(place, now)
    watts_per_a = power_weight(3 if place.dc else sum(phases), place.supply) * NOMINAL_V
    most_w = max_a(place) * watts_per_a
    if (may_w := max_w(place)) is not None:
        most_w = min(most_w, may_w)
    transaction = place.transaction
    station_a = place.station.station_max_a
    leaves = departure_of(place, now)
    takes_w = counted_on_w(most_w, takes_of(shown, place.key))
    # The slot in which it leaves is not promised.
    energy_wh = wanted_wh(place) / plug_share(place.station.current)
    last = ready_by(min(max(math.floor((leaves - start) / SLOT), 1), slots), energy_wh, takes_w, SLOT_S)
    return PlanSession(
        key=place.key,
        node=place.node,
        phases=phases,
        first_slot=0,
        last_slot=last,
        max_w=takes_w,
        min_w=min_a(place) * watts_per_a,
        energy_wh=energy_wh,
        priority=priority_of(place),
        mode=mode_of(place),
        hurry=hurry(last, energy_wh, takes_w, SLOT_S, place.memory.phases.drawing),
        name=f"transaction {transaction.pk}" if transaction is not None else "",
        group=place.station.pk if station_a is not None else None,
        group_max_a=station_a,
    )


def _token(place: Place) -> int | None:
    return place.transaction.id_token_id if place.transaction is not None else None


def _gone(place: Place, who: Punctuality, start: datetime, slots: int, now: datetime) -> Series:
    """The chance, slot by slot, that the driver has left before he said. Of who said nothing, nothing."""
    goal, transaction = place.goal, place.transaction
    if goal is None or transaction is None or goal.departure is None or goal.departure <= now:
        return np.zeros(0)
    here_s = max((start - transaction.started_at).total_seconds(), 0.0)
    return gone(who, here_s, (goal.departure - start).total_seconds(), slots, SLOT_S)


def _leaves_early(place: Place, chance: Series, start: datetime) -> float | None:
    """The chance to be gone in the last slot that ends half an hour before the departure that was named."""
    if not chance.size or place.goal is None or place.goal.departure is None:
        return None
    slot = math.floor((place.goal.departure - WELL_BEFORE - start) / SLOT) - 1
    return float(chance[min(slot, chance.size - 1)]) if slot >= 0 else None


def _free(place: Place, start: datetime, slots: int, now: datetime) -> PlanSession:
    """What a car could take that comes to a place which is free, or will be when the one there has left."""
    here = place.transaction is not None
    free_from = max(math.ceil((departure_of(place, now) - start) / SLOT), 1) if here else 0
    empty = replace(place, transaction=None, goal=None, vehicle=None, measured=None, memory=EvseMemory())
    session = _session(empty, start, slots, now)
    return replace(session, first_slot=free_from, last_slot=slots, energy_wh=0.0)


def departure_of(place: Place, now: datetime) -> datetime:
    """When the car leaves: as its goal says; without one, or when that has passed, after a usual stay."""
    goal, transaction = place.goal, place.transaction
    if goal is not None and goal.departure is not None and goal.departure > now:
        return goal.departure
    if mode_of(place) is Mode.SURPLUS:
        return now + timedelta(days=1)
    began = transaction.started_at if transaction is not None else now
    return max(began + USUAL_STAY, now + LEAST_STAY)


def wanted_wh(place: Place) -> float:
    """Energy still wanted at the plug, where the station's meter counts: the goal's, else what a usual car wants, never
    more than its battery takes."""
    needed = energy_needed_wh(place)
    if needed is not None:
        return needed
    charged = place.transaction.energy_wh if place.transaction is not None else 0.0
    battery = place.vehicle.battery_wh if place.vehicle is not None else None
    soc = place.measured.soc if place.measured is not None else None
    if battery is not None and soc is not None:
        return max((FULL_SOC - soc) * battery, 0.0)
    return max(min(battery or USUAL_WH, USUAL_WH) - charged, AT_LEAST_WH)


def one_battery(batteries: tuple[BatteryState, ...]) -> BatteryState | None:
    """The plan knows one battery: several are added up. None when there is none, or its charge is not known."""
    known = [b for b in batteries if b.soc is not None]
    if not known or len(known) < len(batteries):
        return None
    if len(known) == 1:
        return known[0]
    whole = sum(b.capacity_wh for b in known)

    def mean(values: Iterable[float]) -> float:
        return sum(v * b.capacity_wh for v, b in zip(values, known, strict=True)) / whole

    return BatteryState(
        key="+".join(b.key for b in known),
        node=0,
        soc=mean(b.soc or 0.0 for b in known),
        capacity_wh=whole,
        max_charge_w=sum(b.max_charge_w for b in known),
        max_discharge_w=sum(b.max_discharge_w for b in known),
        min_soc=mean(b.min_soc for b in known),
        max_soc=mean(b.max_soc for b in known),
        efficiency=mean(b.efficiency for b in known),
        wear_eur_per_kwh=max(b.wear_eur_per_kwh for b in known),
        phases=known[0].phases if len({b.phases for b in known}) == 1 else (True, True, True),
    )


def prices(site: Site, tariff: Tariff, start: datetime, slots: int) -> SlotPrices:
    """What a kWh costs and what it earns, per slot, by the site's tariff. Beyond the market, days before stand in."""
    rows = []
    if site.price_area:
        rows = list(
            Price.objects.filter(
                area=site.price_area, start__gt=start - PRICES_BACK, start__lt=start + slots * SLOT
            ).order_by("start")
        )
    terms = Terms(
        import_factor=tariff.import_factor,
        import_adder_eur_per_kwh=tariff.import_adder_eur_per_kwh,
        export_factor=tariff.export_factor,
        export_adder_eur_per_kwh=tariff.export_adder_eur_per_kwh,
        peak_eur_per_kw_month=tariff.peak_eur_per_kw_month,
        peak_floor_w=tariff.peak_floor_w,
        fixed_price_eur_per_mwh=tariff.fixed_price_eur_per_mwh,
    )
    market = [MarketPrice(row.start, row.minutes, row.eur_per_mwh) for row in rows]
    return slot_prices(terms, market, start, slots, site.tz)


def _commands(site: Site, start: datetime, slots: int) -> Iterable[GridCommand]:
    """The operator's commands that touch the horizon, also those that begin later."""
    return GridCommand.objects.filter(site=site, starts_at__lt=start + slots * SLOT).exclude(
        state=GridCommand.State.ENDED
    )


def _limits(commands: list[GridCommand], name: str, start: datetime, slots: int) -> Series | None:
    """The tightest limit per slot; None when nobody limits. A command that touches a slot counts for all of it."""
    series = np.full(slots, np.inf)
    for command in commands:
        watts = getattr(command, name)
        if watts is None:
            continue
        first = max(math.floor((command.starts_at - start) / SLOT), 0)
        beyond = slots if command.ends_at is None else max(math.ceil((command.ends_at - start) / SLOT), 0)
        series[first:beyond] = np.minimum(series[first:beyond], watts)
    return series if np.isfinite(series).any() else None

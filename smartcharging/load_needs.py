"""The site's controllable loads as the plan sees them: from a device's options, its measurements and its past quarters.

A load is planned when its options say what it is, it can be told, and what the plan must know of it is known: its
power, and of a store its temperature. Any other load is left to its own thermostat, and what it usually takes is
expected like the building. Nothing counts twice: the building's forecast has no load in it (`quarters.py`).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, time, timedelta
from typing import Any

import numpy as np

from meters.devices import maps
from meters.devices.registers import RegisterMap
from meters.history import SLOT
from meters.models import Device, QuarterHour
from smartcharging import fetch
from smartcharging.engine.grid import loaded
from smartcharging.engine.loads.kinds import Load, ShiftableBlock, Switchable, ThermalStore
from smartcharging.engine.plan.problem import Series
from smartcharging.gather import View
from smartcharging.site_loads import window_min

DAY = timedelta(days=1)
USUAL_BACK = timedelta(days=14)
ON_SHARE = 0.5
"""A load that takes more than this share of its power is on."""
ROOM_C = 20.0
SLOT_MIN = SLOT.total_seconds() / 60


class CannotPlan(Exception):
    """This load is left to itself. Says why."""


@dataclass(frozen=True)
class LoadNeeds:
    """What the plan gets: loads to move by the device's key, what all others usually take, and why they are others."""

    loads: tuple[Load, ...]
    others_w: Series
    notes: tuple[str, ...]


@dataclass(frozen=True)
class _Horizon:
    view: View
    start: datetime
    slots: int
    quarters: Mapping[datetime, float]  # of this load: mean power by quarter hour


def needs(view: View, start: datetime, slots: int) -> LoadNeeds:
    """The loads of a site over the horizon."""
    devices = view.devices_of(Device.Kind.LOAD)
    quarters = _quarters(devices, start)
    loads: list[Load] = []
    notes: list[str] = []
    others = np.zeros(slots)
    for device in devices:
        ahead = _Horizon(view, start, slots, quarters[device.pk])
        try:
            loads += _planned(device, ahead)
        except CannotPlan as reason:
            if device.option("load"):
                notes.append(f"load {device.name}: {reason}; it is left to itself")
            others += _usual_w(device, ahead)
    return LoadNeeds(tuple(loads), others, tuple(notes))


def _quarters(devices: Iterable[Device], start: datetime) -> dict[int, dict[datetime, float]]:
    found: dict[int, dict[datetime, float]] = defaultdict(dict)
    rows = QuarterHour.objects.filter(device__in=list(devices), slot__gte=start - USUAL_BACK, slot__lt=start)
    for pk, slot, mean_w in rows.values_list("device_id", "slot", "mean_w"):
        if mean_w is not None:
            found[pk][slot] = mean_w
    return found


def takes_power(device: Device) -> bool:
    """Can it be told a power? Otherwise it is switched."""
    map_ = _map_of(device)
    return map_ is not None and map_.commands is not None


def can_be_told(device: Device) -> bool:
    map_ = _map_of(device)
    return map_ is not None and (map_.commands is not None or map_.output_at is not None)


def _map_of(device: Device) -> RegisterMap | None:
    try:
        found = maps.get(device.map)
    except maps.UnknownMap:
        return None
    return found if isinstance(found, RegisterMap) else None


def power_w(device: Device) -> float:
    """What it takes when it is on, or at most. Raises `CannotPlan`."""
    return _number(device, "max_w" if device.option("load") == "thermal" else "power_w")


def _planned(device: Device, ahead: _Horizon) -> list[Load]:
    """The load, or nothing when there is nothing to plan in this horizon. Raises `CannotPlan`."""
    kind = device.option("load")
    if kind not in ("thermal", "switchable", "block"):
        raise CannotPlan("its options do not say what it is")
    if not can_be_told(device):
        raise CannotPlan(f"nothing can be set on {device.map or 'a device without a register map'}")
    measured = ahead.view.live.get(device.pk)
    if measured is None or measured.power_w is None:
        raise CannotPlan("its power is not known")
    if kind == "thermal":
        return [_store(device, ahead)]
    if kind == "switchable":
        return [_switchable(device, ahead)]
    return _block(device, ahead)


def phases(device: Device) -> tuple[bool, bool, bool]:
    """The grid phases it loads: all three, unless its wiring names fewer."""
    wired = device.wiring if isinstance(device.wiring, list) and device.wiring else ["L1", "L2", "L3"]
    return ("L1" in wired, "L2" in wired, "L3" in wired)


def _place(device: Device, ahead: _Horizon) -> dict[str, Any]:
    return {
        "key": str(device.pk),
        "node": ahead.view.node_of_device.get(device.pk, 0),
        "phases": loaded(phases(device), ahead.view.snapshot.grid.supply),
        "name": device.name,
    }


def _store(device: Device, ahead: _Horizon) -> ThermalStore:
    measured = ahead.view.live[device.pk]
    if measured.temperature_c is None:
        raise CannotPlan("its temperature is not known")
    return ThermalStore(
        max_w=power_w(device),
        capacity_wh_per_k=_number(device, "capacity_wh_per_k"),
        loss_w_per_k=_number(device, "loss_w_per_k", 0.0),
        now_c=measured.temperature_c,
        min_c=_number(device, "min_c"),
        max_c=_number(device, "max_c"),
        ambient_c=_surroundings_c(device, ahead),
        efficiency=_number(device, "cop", 1.0),
        draw_w=_number(device, "draw_w", 0.0),
        on_off=not takes_power(device),
        cooling=bool(device.option("cooling")),
        **_place(device, ahead),
    )


def _surroundings_c(device: Device, ahead: _Horizon) -> Series | float:
    """A fixed temperature, or the weather's; where no weather is known, the mean of what is."""
    fixed = _number(device, "surroundings_c", ROOM_C)
    if not device.option("outside"):
        return fixed
    known = {p.start: p.temperature_c for p in fetch.weather_of(ahead.view.site.pk) if p.temperature_c is not None}
    air = np.array([known.get(ahead.start + i * SLOT, np.nan) for i in range(ahead.slots)], dtype=np.float64)
    if np.isnan(air).all():
        raise CannotPlan("the weather is not known")
    return np.where(np.isnan(air), np.nanmean(air), air)


def _switchable(device: Device, ahead: _Horizon) -> Switchable:
    longest = _number(device, "longest_off_min")
    full_w = power_w(device)
    past = [ahead.start - (96 - i) * SLOT for i in range(96)]
    return Switchable(
        expected_w=full_w,
        eur_per_kwh=_number(device, "not_served_eur_per_kwh", 0.0),
        longest_off_h=longest / 60,
        rest_h=_number(device, "rest_min", longest) / 60,
        most_off_h_per_day=_number(device, "most_off_min_per_day", 24 * 60) / 60,
        before=tuple(ahead.quarters.get(at, full_w) < ON_SHARE * full_w for at in past),
        **_place(device, ahead),
    )


def _block(device: Device, ahead: _Horizon) -> list[Load]:
    """The run of the window that is open, or of the next one that lies in the horizon; none when it is done."""
    full_w, minutes = power_w(device), _number(device, "minutes")
    ends_with = ahead.start + ahead.slots * SLOT
    for opens, closes in _windows(device, ahead):
        if closes <= ahead.view.now or closes > ends_with:
            continue
        ran_min, going_on = _ran(ahead, opens, full_w)
        if ran_min >= minutes - SLOT_MIN / 2:
            continue
        on_now = (ahead.view.live[device.pk].power_w or 0.0) > ON_SHARE * full_w and opens <= ahead.view.now
        return [
            ShiftableBlock(
                profile_w=(full_w,),
                step_s=minutes * 60,
                first_slot=max(int(np.ceil((opens - ahead.start) / SLOT)), 0),
                last_slot=int((closes - ahead.start) // SLOT),
                running_h=going_on / 60 if on_now else None,
                **_place(device, ahead),
            )
        ]
    return []


def _windows(device: Device, ahead: _Horizon) -> list[tuple[datetime, datetime]]:
    """When it may run, from yesterday's window on, by the site's clock."""
    first, zone = device.option("earliest"), ahead.view.site.tz
    try:
        opens_at, length = time.fromisoformat(str(first)), timedelta(minutes=window_min(device.options))
    except (ValueError, TypeError, KeyError) as error:
        raise CannotPlan("earliest and latest are no times of day") from error
    today = ahead.view.now.astimezone(zone).date()
    opens = [datetime.combine(today + n * DAY, opens_at, zone) for n in (-1, 0, 1, 2)]
    return [(at, (at.replace(tzinfo=None) + length).replace(tzinfo=zone)) for at in opens]


def _ran(ahead: _Horizon, since: datetime, full_w: float) -> tuple[float, float]:
    """For how many minutes it ran in this window at most without a break, and up to now."""
    longest = run = 0.0
    at = since.astimezone(ahead.start.tzinfo)
    at -= (at - datetime.fromtimestamp(0, at.tzinfo)) % SLOT
    while at < ahead.start:
        on = ahead.quarters.get(at, 0.0) > ON_SHARE * full_w
        run = run + SLOT_MIN if on else 0.0
        longest = max(longest, run)
        at += SLOT
    return longest, run


def _usual_w(device: Device, ahead: _Horizon) -> Series:
    """The mean of the same quarter of the days before; else what it takes now; else the most it may."""
    of_day: dict[time, list[float]] = defaultdict(list)
    for slot, mean_w in ahead.quarters.items():
        of_day[slot.astimezone(ahead.view.site.tz).time()].append(mean_w)
    measured = ahead.view.live.get(device.pk)
    now_w = measured.power_w if measured is not None else None
    unknown = now_w if now_w is not None else float(device.option("power_w") or device.option("max_w") or np.nan)
    at = [(ahead.start + i * SLOT).astimezone(ahead.view.site.tz).time() for i in range(ahead.slots)]
    return np.array([np.mean(of_day[t]) if t in of_day else unknown for t in at], dtype=np.float64)


_MISSING = object()


def _number(device: Device, name: str, default: Any = _MISSING) -> float:
    value = device.option(name, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or not np.isfinite(value):
        raise CannotPlan(f"{name} is missing" if value is _MISSING else f"{name} is {value!r}, no number")
    return float(value)

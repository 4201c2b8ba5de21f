"""Loads for small days to plan, by name. A slot is an hour (`planning_worlds.py`)."""

from __future__ import annotations

from typing import Any

from smartcharging.engine.loads.kinds import ShiftableBlock, Switchable, ThermalStore
from tests.smartcharging.planning_worlds import ALL


def washing(hours: float = 2, power_kw: float = 3, first: int = 0, last: int = 4, **kw: Any) -> ShiftableBlock:
    values: dict[str, Any] = {"key": "washing", "node": 0, "phases": ALL, "step_s": hours * 3600}
    values = {"profile_w": (power_kw * 1000.0,), "first_slot": first, "last_slot": last, **values, **kw}
    return ShiftableBlock(**values)


def boiler(now_c: float = 60, max_kw: float = 2, **kw: Any) -> ThermalStore:
    """A kilowatt-hour is ten kelvin, and it loses nothing unless a test says so."""
    values: dict[str, Any] = {"key": "boiler", "node": 0, "phases": ALL, "capacity_wh_per_k": 100.0}
    values |= {"loss_w_per_k": 0.0, "min_c": 50.0, "max_c": 80.0, "ambient_c": 20.0}
    return ThermalStore(now_c=now_c, max_w=max_kw * 1000, **values | kw)


def freezer(now_c: float = -20, max_kw: float = 1, **kw: Any) -> ThermalStore:
    """Takes 3 kWh of heat out per kWh; half a kilowatt comes in through walls and doors, which is 1 K in an hour."""
    values: dict[str, Any] = {"key": "freezer", "node": 0, "phases": ALL, "capacity_wh_per_k": 500.0}
    values |= {"loss_w_per_k": 0.0, "min_c": -24.0, "max_c": -18.0, "ambient_c": 15.0, "draw_w": -500.0}
    return ThermalStore(now_c=now_c, max_w=max_kw * 1000, efficiency=3.0, cooling=True, **values | kw)


def pump(expected_kw: float = 2, eur_per_kwh: float = 0.1, longest_off_h: float = 1, **kw: Any) -> Switchable:
    values: dict[str, Any] = {"key": "pump", "node": 0, "phases": ALL, "expected_w": expected_kw * 1000}
    return Switchable(eur_per_kwh=eur_per_kwh, longest_off_h=longest_off_h, **values | kw)

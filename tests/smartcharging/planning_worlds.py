"""Small days to plan, by name. A slot is an hour unless a test says otherwise, so answers come by hand."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np

from smartcharging.engine.grid import Circuit, Grid
from smartcharging.engine.plan.problem import PlanProblem, PlanSession
from smartcharging.engine.snapshot import BatteryState

MIDNIGHT = datetime(2026, 1, 5, tzinfo=UTC)
ALL = (True, True, True)
ON_L1 = (True, False, False)
ON_L2 = (False, True, False)


def series(values: float | Sequence[float], slots: int) -> np.ndarray:
    return np.full(slots, values, dtype=float) if np.isscalar(values) else np.asarray(values, dtype=float)


def one_circuit(limit_a: float = 1000, **kw: Any) -> Grid:
    return Grid((Circuit("grid", None, (limit_a,) * 3, **kw),))


def two_rows(row_a: float = 1000, grid_a: float = 1000, **row: Any) -> Grid:
    return Grid(
        (
            Circuit("grid", None, (grid_a,) * 3),
            Circuit("row 1", 0, (row_a,) * 3, **row),
            Circuit("row 2", 0, (row_a,) * 3),
        )
    )


def car(
    key: str = "1", energy_kwh: float = 10, max_kw: float = 10, first: int = 0, last: int = 4, **kw: Any
) -> PlanSession:
    values: dict[str, Any] = {"node": 0, "phases": ALL, "min_w": 0.0}
    values.update(kw)
    return PlanSession(
        key=key, first_slot=first, last_slot=last, max_w=max_kw * 1000, energy_wh=energy_kwh * 1000, **values
    )


def battery(soc: float = 0.5, capacity_kwh: float = 10, power_kw: float = 5, **kw: Any) -> BatteryState:
    values: dict[str, Any] = {"node": 0, "efficiency": 1.0, "min_soc": 0.0, "wear_eur_per_kwh": 0.0}
    values.update(kw)
    return BatteryState(
        key="b",
        soc=soc,
        capacity_wh=capacity_kwh * 1000,
        max_charge_w=power_kw * 1000,
        max_discharge_w=power_kw * 1000,
        **values,
    )


def day(
    *sessions: PlanSession,
    slots: int = 4,
    building_kw: float | Sequence[float] = 0,
    pv_kw: float | Sequence[float] = 0,
    price: float | Sequence[float] = 0.2,
    export: float | Sequence[float] = 0.05,
    grid: Grid | None = None,
    **kw: Any,
) -> PlanProblem:
    """Hourly slots; PV is given as production (≥ 0)."""
    return PlanProblem(
        start=MIDNIGHT,
        slot_s=3600,
        grid=grid or one_circuit(),
        sessions=sessions,
        building_w=1000 * series(building_kw, slots),
        pv_w=-1000 * series(pv_kw, slots),
        import_eur_per_kwh=series(price, slots),
        export_eur_per_kwh=series(export, slots),
        **kw,
    )


def kw(values: Any) -> list[float]:
    return [round(float(v) / 1000, 3) + 0.0 for v in values]

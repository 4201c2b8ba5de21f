"""The day in linopy, solved by HiGHS through its direct interface: labelled arrays, grouped at each depth of tree."""

from __future__ import annotations

import warnings
from importlib.metadata import version

import linopy
import numpy as np
import pandas as pd
import xarray as xr
from instance import Answer, Instance, serve


def solve(day: Instance) -> Answer:
    h = day.slot_h
    car, slot = pd.RangeIndex(day.cars, name="car"), pd.RangeIndex(day.slots, name="slot")

    def per_slot(values: np.ndarray) -> xr.DataArray:
        return xr.DataArray(values, coords=[slot])

    def per_car(values: np.ndarray) -> xr.DataArray:
        return xr.DataArray(values, coords=[car])

    model = linopy.Model()
    present = xr.DataArray(day.present, coords=[car, slot])
    cars = model.add_variables(lower=0, upper=per_car(day.max_kw) * present, mask=present, name="cars")
    short = model.add_variables(lower=0, coords=[car], name="short")
    charge = model.add_variables(lower=0, upper=day.battery_charge_kw, coords=[slot], name="charge")
    discharge = model.add_variables(lower=0, upper=day.battery_discharge_kw, coords=[slot], name="discharge")
    least = np.zeros(day.slots)
    least[-1] = day.battery_end_kwh
    stored = model.add_variables(lower=per_slot(least), upper=day.battery_kwh, name="stored")
    bought = model.add_variables(lower=0, upper=per_slot(day.import_kw), name="bought")
    sold = model.add_variables(lower=0, upper=per_slot(day.export_kw), name="sold")
    peak = model.add_variables(lower=day.month_peak_kw, name="peak")

    together = cars.sum("car")
    start = np.zeros(day.slots)
    start[0] = day.battery_start_kwh
    inflow = h * day.battery_efficiency * charge - h / day.battery_efficiency * discharge
    model.add_constraints(
        per_car(day.efficiency * h) * cars.sum("slot") + short == per_car(day.energy_kwh), name="goal"
    )
    model.add_constraints(together + charge - discharge - bought + sold == per_slot(-day.net_kw), name="balance")
    model.add_constraints(stored - stored.shift(slot=1) - inflow == per_slot(start), name="battery")
    model.add_constraints(bought - peak <= 0, name="peak")
    for depth, circuit in enumerate(_by_depth(day)):
        name = f"circuit_{depth}"
        found = np.unique(circuit)
        limit = xr.DataArray(day.limit_kw[found], coords=[pd.Index(found, name=name)])
        below = cars.groupby(xr.DataArray(circuit, coords=[car], name=name)).sum()
        model.add_constraints(below <= limit, name=name)
    model.add_objective(
        (per_slot(h * day.buy) * bought).sum()
        - (per_slot(h * day.sell) * sold).sum()
        + day.peak_price * peak
        + (per_car(day.value) * short).sum()
        + (per_slot(h * day.early * np.arange(day.slots)) * together).sum()
        + h * day.battery_wear * (charge + discharge).sum()
    )
    model.solve(solver_name="highs", io_api="direct", threads=1, output_flag=False, log_to_console=False)
    battery = charge.solution.values - discharge.solution.values
    return Answer(cars.solution.fillna(0).values, battery)


def _by_depth(day: Instance) -> list[np.ndarray]:
    """The circuit of every car at each depth that limits anything, from the cars upwards."""
    levels, circuit = [], day.circuit.astype(int)
    while (circuit > 0).all():
        if np.isfinite(day.limit_kw[circuit]).all():
            levels.append(circuit)
        circuit = day.parent[circuit].astype(int)
    return levels


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    serve(solve, f"linopy {version('linopy')}, highspy {version('highspy')}")

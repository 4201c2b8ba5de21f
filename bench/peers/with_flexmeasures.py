"""FlexMeasures' device scheduler, which its schedules are made with, through its own HiGHS backend (its default).

A device for each car, one for the battery, one for building and PV, which nobody controls. Prices, the peak and the
battery's wear are commitments with a price for deviating; every circuit that cannot carry all of its cars is a group
of devices with a limit. It counts stock in kW × slots.

What each car wants is a minimum of its stock at departure, which is its quicker way: it knows a priced shortfall too,
as one more commitment for each car. A preference for charging early would be another, and is left out.
"""

from __future__ import annotations

import logging
from importlib.metadata import version

import flask
import numpy as np
import pandas as pd
from flexmeasures.data.models.planning import Commitment, FlowCommitment
from flexmeasures.data.models.planning.linear_optimization import device_scheduler
from instance import Answer, Instance, serve

COLUMNS = (
    "equals", "max", "min", "efficiency", "derivative equals", "derivative max", "derivative min",
    "derivative down efficiency", "derivative up efficiency",
)  # fmt: skip

ALMOST = 1 - 1e-9  # of the energy: what rounding takes must not make a day impossible


def solve(day: Instance) -> Answer:
    index = pd.date_range("2026-06-01T06:00", periods=day.slots, freq="15min", tz="UTC")
    battery = day.cars
    devices = [*_cars(day, index), _battery(day, index), _uncontrolled(day, index)]
    everything = list(range(len(devices)))
    site = pd.DataFrame({"derivative max": day.import_kw, "derivative min": -day.export_kw}, index=index)
    limits, groups = [site], [everything]
    for members, limit in day.tight():
        limits.append(pd.DataFrame({"derivative max": limit, "derivative min": np.nan}, index=index))
        groups.append(members.tolist())
    planned, _, result, _ = device_scheduler(
        device_constraints=devices,
        ems_constraints=limits,
        ems_constraint_groups=groups,
        commitments=_commitments(day, index, battery),
        initial_stock=[0.0] * len(devices),
    )
    if str(result.solver.termination_condition) != "optimal":
        raise RuntimeError(f"FlexMeasures ended with {result.solver.termination_condition}")
    powers = np.array([np.asarray(series, dtype=float) for series in planned])
    return Answer(powers[:battery], powers[battery])


def _device(index: pd.DatetimeIndex, **columns: object) -> pd.DataFrame:
    frame = pd.DataFrame(np.nan, index=index, columns=list(COLUMNS))
    frame["stock delta"] = 0.0
    for name, values in columns.items():
        frame[name.replace("_", " ")] = values
    return frame


def _cars(day: Instance, index: pd.DatetimeIndex) -> list[pd.DataFrame]:
    return [
        _device(
            index,
            derivative_max=np.where(present, most, 0.0),
            derivative_min=0.0,
            derivative_up_efficiency=efficiency,
            min=np.where(np.arange(day.slots) >= last - 1, ALMOST * energy / day.slot_h, 0.0),
            max=energy / day.slot_h,
        )
        for present, last, most, efficiency, energy in zip(
            day.present, day.last, day.max_kw, day.efficiency, day.energy_kwh, strict=True
        )
    ]


def _battery(day: Instance, index: pd.DatetimeIndex) -> pd.DataFrame:
    """Its stock counts from where it stands."""
    least = np.full(day.slots, -day.battery_start_kwh)
    least[-1] = day.battery_end_kwh - day.battery_start_kwh
    return _device(
        index,
        derivative_max=day.battery_charge_kw,
        derivative_min=-day.battery_discharge_kw,
        derivative_up_efficiency=day.battery_efficiency,
        derivative_down_efficiency=day.battery_efficiency,
        min=least / day.slot_h,
        max=(day.battery_kwh - day.battery_start_kwh) / day.slot_h,
    )


def _uncontrolled(day: Instance, index: pd.DatetimeIndex) -> pd.DataFrame:
    return _device(index, derivative_equals=day.net_kw)


def _commitments(day: Instance, index: pd.DatetimeIndex, battery: int) -> list[Commitment]:
    h = day.slot_h
    wear = h * day.battery_wear
    return [
        FlowCommitment(
            name="energy",
            index=index,
            quantity=0,
            upwards_deviation_price=pd.Series(h * day.buy, index),
            downwards_deviation_price=pd.Series(h * day.sell, index),
        ),
        FlowCommitment(
            name="peak",
            index=index,
            _type="any",
            quantity=day.month_peak_kw,
            upwards_deviation_price=day.peak_price,
        ),
        FlowCommitment(
            name="wear",
            index=index,
            device=battery,
            quantity=0,
            upwards_deviation_price=wear,
            downwards_deviation_price=-wear,
        ),
    ]


if __name__ == "__main__":
    logging.disable(logging.WARNING)
    app = flask.Flask("bench")
    app.config.update(FLEXMEASURES_LP_SOLVER="highspy", FLEXMEASURES_LP_SOLVER_OPTIONS={}, LOGGING_LEVEL="WARNING")
    with app.app_context():
        serve(solve, f"flexmeasures {version('flexmeasures')}, highspy {version('highspy')}")

"""The day in cvxpy, solved by CLARABEL: matrices of variables, a sparse membership matrix for the tree."""

from __future__ import annotations

from importlib.metadata import version

import cvxpy as cp
import numpy as np
import scipy.sparse as sp
from instance import Answer, Instance, serve


def solve(day: Instance) -> Answer:
    h, slots = day.slot_h, day.slots
    cars = cp.Variable((day.cars, slots), nonneg=True)
    short = cp.Variable(day.cars, nonneg=True)
    charge, discharge, stored, bought, sold = (cp.Variable(slots, nonneg=True) for _ in range(5))
    peak = cp.Variable()
    together = cp.sum(cars, axis=0)
    flow = day.battery_efficiency * charge - discharge / day.battery_efficiency
    rules = [
        cars <= day.max_kw[:, None] * day.present,
        cp.multiply(day.efficiency * h, cp.sum(cars, axis=1)) + short == day.energy_kwh,
        day.net_kw + together + charge - discharge == bought - sold,
        bought <= day.import_kw,
        sold <= day.export_kw,
        bought <= peak,
        peak >= day.month_peak_kw,
        charge <= day.battery_charge_kw,
        discharge <= day.battery_discharge_kw,
        stored <= day.battery_kwh,
        stored[0] == day.battery_start_kwh + h * flow[0],
        stored[1:] == stored[:-1] + h * flow[1:],
        stored[-1] >= day.battery_end_kwh,
    ]
    tight = day.tight()
    if tight:
        rows = np.repeat(np.arange(len(tight)), [len(members) for members, _ in tight])
        columns = np.concatenate([members for members, _ in tight])
        below = sp.csr_matrix((np.ones(len(rows)), (rows, columns)), shape=(len(tight), day.cars))
        rules.append(below @ cars <= np.array([limit for _, limit in tight])[:, None] * np.ones(slots))
    cost = (
        h * (day.buy @ bought - day.sell @ sold)
        + day.peak_price * peak
        + day.value @ short
        + h * day.early * (together @ np.arange(slots))
        + h * day.battery_wear * cp.sum(charge + discharge)
    )
    cp.Problem(cp.Minimize(cost), rules).solve(solver=cp.CLARABEL)
    return Answer(cars.value, charge.value - discharge.value)


if __name__ == "__main__":
    serve(solve, f"cvxpy {version('cvxpy')}, clarabel {version('clarabel')}")

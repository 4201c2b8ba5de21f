"""AdaCharge's published program (the adaptive scheduling algorithm of the ACN project), written anew in cvxpy.

The library itself is in no package index, so this is a reduction to what it publishes: a rate in amps for each EVSE
and slot between 0 and the maximum while the car is there, no more energy than asked for (one row object per session),
one row object per circuit, a limit on the site's current per slot, and the objective of its cost-minimising example:
energy delivered has one worth, less its time-of-use price, less the demand charge on the cars' highest power, plus a
trace of charging soon. ECOS is its usual solver. It knows no battery, and building and PV only as what they leave of
the site's limit.
"""

from __future__ import annotations

from importlib.metadata import version

import cvxpy as cp
import numpy as np
from instance import Answer, Instance, serve

VOLTS = 230.0
KW_PER_A = VOLTS / 1000
SOON = 1e-6


def solve(day: Instance) -> Answer:
    h = day.slot_h
    rates = cp.Variable((day.cars, day.slots))
    most = day.max_kw[:, None] * day.present / KW_PER_A
    asked = day.energy_kwh / day.efficiency
    rules = [rates >= 0, rates <= most]
    for i, (first, last) in enumerate(zip(day.first.tolist(), day.last.tolist(), strict=True)):
        rules.append(cp.sum(rates[i, first:last]) * KW_PER_A * h <= asked[i])
    for members, limit in day.tight():
        row = np.zeros(day.cars)
        row[members] = 1.0
        rules.append(row @ rates <= limit / KW_PER_A)
    rules.append(cp.sum(rates, axis=0) <= np.maximum(day.import_kw - day.net_kw, 0) / KW_PER_A)

    power = cp.sum(rates, axis=0) * KW_PER_A
    worth = float(day.value.mean() * day.efficiency.mean())
    peak = cp.maximum(cp.max(power), day.month_peak_kw)
    soon = np.arange(day.slots, 0, -1) / day.slots
    gain = worth * h * cp.sum(power) - h * (day.buy @ power) - day.peak_price * peak + SOON * (soon @ power)
    cp.Problem(cp.Maximize(gain), rules).solve(solver=cp.ECOS)
    return Answer(np.clip(rates.value, 0, None) * KW_PER_A, np.zeros(day.slots))


if __name__ == "__main__":
    serve(solve, f"its program on cvxpy {version('cvxpy')}, ecos {version('ecos')}")

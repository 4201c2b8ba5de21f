"""Either the peak is paid, or the maximum tariff: two problems without a kink, of which the cheaper one is the plan.

Pure. Where a month imports little, its peak costs no more than so much per kWh (Flanders: maximumtarief). The least of
two costs is no linear program, but each of the two is: one in which the peak costs what it costs, and one in which it
is free and every kWh of the month bears the maximum tariff instead. What goals, loads, a surplus, a full battery and
a building within its limit are worth is the same in both, and what it is in the problem itself.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from smartcharging.engine.plan import worth
from smartcharging.engine.plan.problem import PlanProblem


def branches(problem: PlanProblem) -> tuple[tuple[PlanProblem, float], ...]:
    """The problems to solve instead, each with what its objective leaves out [EUR]."""
    cap = problem.maximum_tariff
    if cap is None or problem.peak_eur_per_kw <= 0:
        return ((replace(problem, maximum_tariff=None), 0.0),)
    paid = problem.peak_eur_per_kw * problem.month_peak_w / 1000
    most = cap.eur_per_kwh * cap.other_import_wh / 1000
    least = min(paid, most)
    by_peak = replace(worth.settled(problem), maximum_tariff=None)
    this_month = np.arange(problem.slots) < (problem.slots if problem.month_ends is None else problem.month_ends)
    by_energy = replace(
        by_peak,
        peak_eur_per_kw=0.0,
        levy_eur_per_kwh=np.where(this_month, cap.eur_per_kwh, 0.0),
    )
    return (by_peak, paid - least), (by_energy, most - least)

"""What a kilowatt-hour short is worth, so that goals outrank money and classes outrank each other.

Pure. A goal is soft but not cheap: unless a session names its own value, no price, peak or wear is worth leaving a car
short, so a shortfall always has a physical cause. Between priority classes the weights grow by a factor that exceeds
what one car can cost another on a shared limit (a single-phase car takes three times as much of its phase as a
three-phase car per kilowatt-hour), which makes them lexicographic in practice while the numbers stay solvable.
"""

from __future__ import annotations

import numpy as np

from smartcharging.engine.problem import PlanProblem, Series
from smartcharging.engine.snapshot import Mode

CLASS_RATIO = 4.0
TOP_RATIO = 1e4  # between the lowest and the highest class; beyond it the solver's tolerances would decide
OVERLOAD_RATIO = 10.0
EXPECTED_SHARE = 0.9  # a car that may come is worth a little less than one of its class that is here
SURPLUS_SHARE = 0.9
LEAST_SPREAD_EUR_PER_KWH = 1e-3


def dearest_kwh(problem: PlanProblem) -> float:
    """More than any kilowatt-hour can cost in this problem [EUR/kWh]: its price, and a new peak all of its own."""
    prices = problem.import_eur_per_kwh
    spread = float(np.max(prices, initial=0.0) - np.min(prices, initial=0.0))
    wear = problem.battery.wear_eur_per_kwh if problem.battery else 0.0
    least_efficiency = min((s.efficiency for s in problem.sessions), default=1.0)
    shortest_h = float(problem.hours.min(initial=problem.slot_s / 3600))
    peaks = sum(max(c.eur_per_kw, 0.0) for c in problem.peak_charges) / shortest_h
    return (spread + wear + peaks + 1.0) / least_efficiency


def goal_values(problem: PlanProblem) -> Series:
    """EUR per kWh short, one for each session. Surplus sessions have no promise, so nothing to fall short of."""
    base = 2 * dearest_kwh(problem)
    classes = sorted({s.priority for s in problem.sessions})
    steps = max(len(classes) - 1, 1)
    ratio = min(CLASS_RATIO, TOP_RATIO ** (1 / steps))
    of_class = {priority: base * ratio**rank for rank, priority in enumerate(classes)}
    return np.array(
        [
            0.0
            if s.mode is Mode.SURPLUS
            else (of_class[s.priority] if s.value_eur_per_kwh is None else s.value_eur_per_kwh)
            * (EXPECTED_SHARE if s.expected else 1.0)
            for s in problem.sessions
        ],
        dtype=np.float64,
    )


def overload_value(problem: PlanProblem) -> float:
    """EUR per kWh that the site stays above its limit by the building alone: worth more than any goal."""
    return OVERLOAD_RATIO * max(float(goal_values(problem).max(initial=0.0)), dearest_kwh(problem))


def export_prices(problem: PlanProblem) -> Series:
    """What export earns, kept just below the import price.

    Where a contract pays more for export than it asks for import, a plan would buy and sell at the same moment;
    a connection has one net power, so the surplus of such a slot is valued at the import price instead.
    """
    return np.minimum(problem.export_eur_per_kwh, problem.import_eur_per_kwh - LEAST_SPREAD_EUR_PER_KWH)


def surplus_values(problem: PlanProblem) -> Series:
    """What a kWh in a surplus-only car is worth per slot: more than export or curtailment, less than import.

    Between those two prices such a car charges exactly while the site still exports, and never raises the import.
    """
    floor = np.maximum(export_prices(problem), 0.0)
    return floor + SURPLUS_SHARE * np.maximum(problem.import_eur_per_kwh - floor, LEAST_SPREAD_EUR_PER_KWH)


def stored_value(problem: PlanProblem) -> float:
    """What a kWh left in the battery at the end is worth [EUR/kWh]: half of tomorrow is like the median of today."""
    if problem.battery is None:
        return 0.0
    if problem.battery_end_eur_per_kwh is not None:
        return problem.battery_end_eur_per_kwh
    median = float(np.median(problem.import_eur_per_kwh)) if problem.slots else 0.0
    return max(0.0, problem.battery.efficiency * median - problem.battery.wear_eur_per_kwh)

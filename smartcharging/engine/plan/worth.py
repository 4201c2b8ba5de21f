"""What a kilowatt-hour short is worth, so that goals outrank money and classes outrank each other.

Pure. A goal is soft but not cheap: unless a session names its own value, no price, peak or wear is worth leaving a car
short, so a shortfall always has a physical cause. Between priority classes the weights grow by a factor that exceeds
what one car can cost another on a shared limit (a single-phase car takes three times as much of its phase as a
three-phase car per kilowatt-hour), which makes them lexicographic in practice while the numbers stay solvable.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from smartcharging.engine.loads.kinds import Load, ShiftableBlock, ThermalStore
from smartcharging.engine.plan.problem import PlanProblem, Series
from smartcharging.engine.snapshot import Mode

CLASS_RATIO = 4.0
TOP_RATIO = 1e4  # between the lowest and the highest class; beyond it the solver's tolerances would decide
OVERLOAD_RATIO = 10.0
EXPECTED_SHARE = 0.9  # a car that may come is worth a little less than one of its class that is here
SURPLUS_SHARE = 0.9
LEAST_SPREAD_EUR_PER_KWH = 1e-3
LEAST_EUR_PER_KWH = 1e-6  # of wear, and of sun that is held back: neither is done for nothing


def dearest_kwh(problem: PlanProblem) -> float:
    """More than any kilowatt-hour can cost in this problem [EUR/kWh]: its price, a new peak all of its own, and that
    it comes too late."""
    prices = problem.import_eur_per_kwh
    spread = float(np.max(prices, initial=0.0) - np.min(prices, initial=0.0))
    wear = problem.battery.wear_eur_per_kwh if problem.battery else 0.0
    least_efficiency = min([s.efficiency for s in problem.sessions], default=1.0)
    shortest_h = float(problem.hours.min(initial=problem.slot_s / 3600))
    peaks = sum(max(c.eur_per_kw, 0.0) for c in problem.peak_charges) / shortest_h
    lost = max([max(s.gone_eur_per_kwh) for s in problem.sessions if s.gone_eur_per_kwh], default=0.0)
    return (spread + wear + peaks + lost + 1.0) / least_efficiency


def promise_values(problem: PlanProblem) -> Series:
    """EUR per kWh short, one for each session: its own, or its class's, as if all were here and had a promise."""
    sessions = problem.sessions
    classes, rank = np.unique([s.priority for s in sessions], return_inverse=True)
    ratio = min(CLASS_RATIO, TOP_RATIO ** (1 / max(classes.shape[0] - 1, 1)))
    own = np.array([s.value_eur_per_kwh for s in sessions], dtype=np.float64)  # None is not-a-number
    values: Series = np.where(np.isnan(own), 2 * dearest_kwh(problem) * ratio**rank, own)
    return values


def goal_values(problem: PlanProblem) -> Series:
    """EUR per kWh short, one for each session. Surplus sessions have no promise, so nothing to fall short of."""
    sessions, surplus = problem.sessions, Mode.SURPLUS
    values = promise_values(problem)
    values[np.array([s.expected for s in sessions], dtype=bool)] *= EXPECTED_SHARE
    values[np.array([s.mode is surplus for s in sessions], dtype=bool)] = 0.0
    return values


def losses(problem: PlanProblem) -> Series:
    """EUR that a kWh loses in each slot by the chance that its driver has left: axes session, slot. Only who waits for
    a promise can lose by it; a car that also gives is left out, as it might gain."""
    found = np.zeros((len(problem.sessions), problem.slots))
    for i, s in enumerate(problem.sessions):
        if s.gone_eur_per_kwh and s.mode is Mode.PLAN and not s.discharge_w:
            found[i, : len(s.gone_eur_per_kwh)] = s.gone_eur_per_kwh[: problem.slots]
    return found


def load_values(problem: PlanProblem) -> Series:
    """EUR per broken promise of each load: per run of a block, per K·h of a store outside its band, per hour that a
    switchable load is off against its rules. By default as much as a goal of the lowest class for the energy that it
    would take (for a store: to be a kelvin nearer in every slot), so that no price is worth it.
    """
    if not problem.loads:
        return np.zeros(0)
    base = 2 * dearest_kwh(problem)
    hours = problem.hours
    return np.array([_load_value(load, base, hours) for load in problem.loads], dtype=np.float64)


def _load_value(load: Load, base: float, hours: Series) -> float:
    if isinstance(load, ShiftableBlock):
        energy_kwh = sum(load.profile_w) * load.step_s / 3600 / 1000
        return base * energy_kwh if load.value_eur is None else load.value_eur
    if isinstance(load, ThermalStore):
        kwh_per_k = load.capacity_wh_per_k / 1000 / float(np.min(load.efficiency))
        return (
            base * kwh_per_k / float(hours.min(initial=1.0))
            if load.value_eur_per_k_h is None
            else load.value_eur_per_k_h
        )
    hour_eur = (base + load.eur_per_kwh) * float(np.max(load.expected_w)) / 1000
    return hour_eur if load.value_eur_per_h is None else load.value_eur_per_h


def settled(problem: PlanProblem) -> PlanProblem:
    """The same problem, in which what promises and limits are worth is said, so that another one made from it has them
    worth the same."""
    values = promise_values(problem).tolist()
    return replace(
        problem,
        sessions=tuple(replace(s, value_eur_per_kwh=value) for s, value in zip(problem.sessions, values, strict=True)),
        loads=_with_load_values(problem),
        overload_eur_per_kwh=overload_value(problem),
    )


def _with_load_values(problem: PlanProblem) -> tuple[Load, ...]:
    valued: list[Load] = []
    for load, value in zip(problem.loads, load_values(problem).tolist(), strict=True):
        if isinstance(load, ShiftableBlock):
            valued.append(replace(load, value_eur=value))
        elif isinstance(load, ThermalStore):
            valued.append(replace(load, value_eur_per_k_h=value))
        else:
            valued.append(replace(load, value_eur_per_h=value))
    return tuple(valued)


def load_kwh_values(problem: PlanProblem) -> Series:
    """EUR that a kWh for each load can be worth at most, by the promises it keeps."""
    hours = problem.hours
    return np.array(
        [
            value / max(_kwh_per_promise(load, hours), 1e-9)
            for load, value in zip(problem.loads, load_values(problem), strict=True)
        ],
        dtype=np.float64,
    )


def _kwh_per_promise(load: Load, hours: Series) -> float:
    """The least energy that keeps one more unit of a promise."""
    if isinstance(load, ShiftableBlock):
        return sum(load.profile_w) * load.step_s / 3600 / 1000
    if isinstance(load, ThermalStore):  # without losses a kWh helps to the end
        return load.capacity_wh_per_k / 1000 / float(np.max(load.efficiency)) / max(float(hours.sum()), 1e-9)
    return float(np.max(load.expected_w)) / 1000


def overload_value(problem: PlanProblem) -> float:
    """EUR per kWh that the site stays above its limit by the building alone: worth more than any promise."""
    if problem.overload_eur_per_kwh is not None:
        return problem.overload_eur_per_kwh
    goals, loads = float(goal_values(problem).max(initial=0.0)), float(load_kwh_values(problem).max(initial=0.0))
    return OVERLOAD_RATIO * max(goals, loads, dearest_kwh(problem))


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

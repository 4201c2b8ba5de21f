"""Setting right the numbers of the site as a whole: a series with gaps, a price of one thing, the length of a slot.

Pure. What is not known takes the nearest or the safest that is, and a note says so; a whole series of which nothing is
known is left as it is, and then the plan is made by rule (`asked.what_is_wrong`).
"""

from __future__ import annotations

from dataclasses import replace
from math import isfinite
from typing import Any

import numpy as np

from smartcharging.engine.plan import rule as plan_rule
from smartcharging.engine.plan.problem import PlanProblem, Series

SLOT_S = 900
PRICES = ("import_eur_per_kwh", "export_eur_per_kwh", "levy_eur_per_kwh")
LIMITS = ("import_limit_w", "export_limit_w")


def plannable_numbers(problem: PlanProblem, notes: list[str]) -> PlanProblem:
    """The same problem with series of numbers, one for each slot, and single numbers that can be reckoned with."""
    problem = _as_series(problem, notes)
    changes: dict[str, Any] = {name: _priced(name, getattr(problem, name), notes) for name in PRICES}
    changes |= {name: _limited(name, getattr(problem, name), problem.slots, notes) for name in LIMITS}
    return replace(problem, **changes, **_single(problem, notes))


def _as_series(problem: PlanProblem, notes: list[str]) -> PlanProblem:
    """Series that are none become one: what is missing at their end is unknown, what is infinite of a load too."""
    names = ("building_w", "pv_w", *PRICES, *LIMITS)
    found = {name: _numbers(getattr(problem, name)) for name in names if getattr(problem, name) is not None}
    slots = next((found[name].size for name in names[:4] if name in found and found[name].size), 0)

    def sized(name: str, values: Series) -> Series:
        if values.shape == (slots,):
            return values
        notes.append(f"{name} has {values.size} values for {slots} slots")
        out = np.full(slots, np.nan)
        out[: values.size] = values.ravel()[:slots]
        return out

    nothing = np.full(slots, np.nan)
    required = dict.fromkeys(("building_w", "pv_w", *PRICES[:2]), nothing)
    changes: dict[str, Any] = required | {name: sized(name, values) for name, values in found.items()}
    changes["building_w"], pv_w = _finite(changes["building_w"]), _finite(changes["pv_w"])
    if (pv_w > 0).any():
        notes.append("pv_w is above zero, where production is negative: planned as none")
    changes["pv_w"] = np.minimum(pv_w, 0.0)
    below = {n: sized(f"node_background_w[{n}]", _numbers(s)) for n, s in problem.node_background_w.items()}
    return replace(problem, **changes, node_background_w={n: _finite(series) for n, series in below.items()})


def _numbers(values: Any) -> Series:
    try:
        return np.atleast_1d(np.asarray(values, dtype=np.float64))
    except (TypeError, ValueError):
        return np.zeros(0)


def _finite(values: Series) -> Series:
    return np.where(np.isfinite(values), values, np.nan)


def _priced(name: str, values: Series | None, notes: list[str]) -> Series | None:
    """A price that is missing is what its neighbours have."""
    if values is None:
        return None
    known = np.isfinite(values)
    if known.all():
        return values
    if not known.any():
        if name != "levy_eur_per_kwh":
            return values
        notes.append(f"{name} has no values: planned without")
        return None
    notes.append(f"{name} is unknown in {int((~known).sum())} slots: planned as in the slots around them")
    at = np.arange(values.size)
    return np.interp(at, at[known], values[known])


def _limited(name: str, values: Series | None, slots: int, notes: list[str]) -> Series | None:
    """A limit that is missing is the tightest that is known; what nobody knows, the tree and the live layer hold."""
    if values is None or not np.isnan(values).any():
        return values
    said = "planned without" if np.isnan(values).all() else "the tightest that is known is assumed"
    notes.append(f"{name} is unknown in {int(np.isnan(values).sum())} slots: {said}")
    return plan_rule.known_limit(values, slots)


def _single(problem: PlanProblem, notes: list[str]) -> dict[str, Any]:
    """Single numbers that had to be changed."""
    changes: dict[str, Any] = {}

    def instead(name: str, value: Any) -> None:
        notes.append(f"{name} is {getattr(problem, name)}; planned as {value}")
        changes[name] = value

    if not (isfinite(problem.slot_s) and problem.slot_s > 0):
        instead("slot_s", SLOT_S)
    trust = problem.sun_trust
    if trust is not None and not 0 <= trust < np.inf:
        instead("sun_trust", None if trust == np.inf else 0.0)
    fallback = PlanProblem.__dataclass_fields__
    for name in ("early_eur_per_kwh", "time_limit_s", "relative_gap", "month_peak_w", "peak_eur_per_kw"):
        if not isfinite(getattr(problem, name)):
            instead(name, fallback[name].default)
    for name in ("battery_end_soc", "battery_end_eur_per_kwh", "overload_eur_per_kwh"):
        value = getattr(problem, name)
        if value is not None and not isfinite(value):
            instead(name, None)
    sound = tuple(c for c in problem.charges if isfinite(c.free_w) and isfinite(c.eur_per_kw))
    if len(sound) < len(problem.charges):
        instead("charges", sound)
    cap = problem.maximum_tariff
    if cap is not None and not (isfinite(cap.eur_per_kwh) and isfinite(cap.other_import_wh)):
        instead("maximum_tariff", None)
    return changes

"""Loads whose numbers can be planned with. Pure: what cannot is left out, and noted."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import numpy as np

from smartcharging.engine.loads.kinds import Load, ShiftableBlock, Switchable, ThermalStore, label, left_h
from smartcharging.engine.plan.problem import PlanProblem

ALL_PHASES = (True, True, True)


def plannable_loads(problem: PlanProblem, notes: list[str]) -> tuple[Load, ...]:
    """Every oddity becomes the nearest harmless thing, and a note."""
    out: dict[str, Load] = {}
    for load in problem.loads:
        if isinstance(load, ShiftableBlock) and load.running_h is not None and left_h(load) <= 0:
            continue  # it is over
        trouble = _trouble(load, problem.slots) or ("its key is taken" if load.key in out else "")
        if trouble:
            notes.append(f"load {label(load)}: {trouble}; it is not planned")
            continue
        node = load.node
        if not 0 <= node < len(problem.grid):
            notes.append(f"load {label(load)}: unknown circuit {node}; planned at the grid connection")
            node = 0
        out[load.key] = replace(load, node=node, phases=load.phases if any(load.phases) else ALL_PHASES)
    return tuple(out.values())


def _trouble(load: Load, slots: int) -> str:
    """The first number of a load that cannot be planned with; empty when there is none."""
    for name, value, rule in _numbers(load):
        values = np.asarray(value, dtype=np.float64)
        if values.shape not in ((), (slots,)):
            return f"{name} has {values.size} values for {slots} slots"
        good = {
            "number": np.isfinite(values),
            "bound": ~np.isnan(values),
            "not below 0": np.isfinite(values) & (values >= 0),
            "hours": values >= 0,
            "above 0": np.isfinite(values) & (values > 0),
        }[rule]
        if not good.all():
            return f"{name} is {values[~good].flat[0] if values.ndim else values} ({rule})"
    return ""


def _numbers(load: Load) -> Iterable[tuple[str, object, str]]:
    if isinstance(load, ShiftableBlock):
        yield from ((f"profile_w[{k}]", w, "not below 0") for k, w in enumerate(load.profile_w))
        yield "step_s", load.step_s, "above 0"
        yield "value_eur", load.value_eur or 0.0, "not below 0"
        yield "running_h", load.running_h or 0.0, "not below 0"
    elif isinstance(load, ThermalStore):
        yield "now_c", load.now_c, "number"
        yield "max_w", load.max_w, "not below 0"
        yield "capacity_wh_per_k", load.capacity_wh_per_k, "above 0"
        yield "loss_w_per_k", load.loss_w_per_k, "not below 0"
        yield "min_c", load.min_c, "bound"
        yield "max_c", load.max_c, "bound"
        yield "ambient_c", load.ambient_c, "number"
        yield "efficiency", load.efficiency, "above 0"
        yield "draw_w", load.draw_w, "number"
        yield "value_eur_per_k_h", load.value_eur_per_k_h or 0.0, "not below 0"
    elif isinstance(load, Switchable):
        yield "expected_w", load.expected_w, "not below 0"
        yield "eur_per_kwh", load.eur_per_kwh, "not below 0"
        yield "value_eur_per_h", load.value_eur_per_h or 0.0, "not below 0"
        yield "longest_off_h", load.longest_off_h, "hours"
        yield "rest_h", load.rest_h, "hours"
        yield "most_off_h_per_day", load.most_off_h_per_day, "hours"

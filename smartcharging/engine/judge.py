"""What a plan costs, and by how much it breaks a bound, seen from its powers alone.

Pure. Shares no arithmetic with the program that makes plans: plain sums up the tree, slot by slot, so that a mistake
there cannot hide here. The site's own load is nobody's fault: where building and PV alone exceed a limit, a plan may
not add to it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from smartcharging.engine import worth
from smartcharging.engine.grid import NOMINAL_V
from smartcharging.engine.problem import PlanProblem, PlanResult, Series
from smartcharging.engine.snapshot import Mode


@dataclass(frozen=True)
class Verdict:
    """Money, the objective with everything that is priced, and the worst violation [W] with its name."""

    cost_eur: float
    objective_eur: float
    worst_w: float
    worst_name: str


class _Worst:
    def __init__(self) -> None:
        self.w, self.name = 0.0, ""

    def see(self, name: str, excess_w: Series | float) -> None:
        most = float(np.max(excess_w, initial=0.0))
        if not most <= self.w:  # NaN counts as broken
            self.w, self.name = most, name


def judge(problem: PlanProblem, plan: PlanResult) -> Verdict:
    """Price a plan and measure every bound."""
    worst = _Worst()
    h = problem.hours
    _check_sessions(problem, plan, worst)
    _check_battery(problem, plan, worst)
    _check_circuits(problem, plan, worst)
    cars = sum(plan.session_w.values(), np.zeros(problem.slots))
    grid = problem.building_w + plan.pv_w + cars + plan.battery_w
    worst.see("power balance", np.abs(grid - plan.grid_w))
    worst.see("PV beyond what is expected", problem.pv_w - plan.pv_w)
    worst.see("PV that consumes", plan.pv_w)
    over = _check_connection(problem, grid, worst)
    bought, sold = np.maximum(grid, 0) / 1000 * h, np.maximum(-grid, 0) / 1000 * h
    peak_eur = _peaks_eur(problem, grid, bought)
    cost = float(problem.import_eur_per_kwh @ bought - problem.export_eur_per_kwh @ sold) + peak_eur
    planned = float(problem.import_eur_per_kwh @ bought - worth.export_prices(problem) @ sold) + peak_eur
    objective = planned + _soft(problem, plan, h) + float(over @ h) / 1000 * worth.overload_value(problem)
    return Verdict(cost, objective, worst.w, worst.name)


def _peaks_eur(problem: PlanProblem, grid_w: Series, bought_kwh: Series) -> float:
    """What new peaks cost. The month's is never more than the maximum tariff asks for the month's energy."""
    raised = []
    for charge in problem.peak_charges:
        highest = float(grid_w[charge.first_slot : charge.last_slot].max(initial=charge.free_w))
        raised.append(max(charge.eur_per_kw, 0.0) * (highest - charge.free_w) / 1000)
    cap = problem.maximum_tariff
    if cap is not None:
        before = problem.peak_eur_per_kw * problem.month_peak_w / 1000
        most = cap.eur_per_kwh * cap.other_import_wh / 1000
        more = cap.eur_per_kwh * float(bought_kwh[: problem.month_ends].sum())
        raised[0] = min(before + raised[0], most + more) - min(before, most)
    return float(sum(raised))


def _soft(problem: PlanProblem, plan: PlanResult, h: Series) -> float:
    """Shortfalls, early charging, wear, what is left in the battery, surplus well used."""
    total = 0.0
    slots = (np.cumsum(h) - h) * 3600 / problem.slot_s  # when each begins
    values = worth.goal_values(problem)
    sunny = worth.surplus_values(problem)
    for value, session in zip(values, problem.sessions, strict=True):
        window = slice(session.first_slot, session.last_slot)
        kwh = plan.session_w[session.key][window] / 1000 * h[window]
        total += problem.early_eur_per_kwh * float(kwh @ slots[window])
        if session.mode is Mode.SURPLUS:
            total -= session.efficiency * float(kwh @ sunny[window])
        else:
            total += value * max(0.0, session.energy_wh / 1000 - session.efficiency * float(kwh.sum()))
    battery = problem.battery
    if battery is not None and battery.soc is not None:
        total += battery.wear_eur_per_kwh * float(np.abs(plan.battery_w) @ h) / 1000
        total -= worth.stored_value(problem) * float(stored_wh(problem, plan.battery_w)[-1]) / 1000
    return total


def _check_sessions(problem: PlanProblem, plan: PlanResult, worst: _Worst) -> None:
    h = problem.hours
    allowed: dict[str, Series] = {s.key: np.zeros(problem.slots) for s in problem.sessions}
    for s in problem.sessions:
        window = slice(s.first_slot, s.last_slot)
        allowed[s.key][window] = s.max_w
        got = s.efficiency * float(plan.session_w[s.key][window] @ h[window])
        worst.see(f"energy of session {s.label}", (got - s.energy_wh) / float(h.min(initial=np.inf)))
    for key, power in plan.session_w.items():
        worst.see(f"maximum of EVSE {key}", power - allowed[key])
        worst.see(f"no discharge at EVSE {key}", -power)
    groups: dict[int, float] = {}
    for s in problem.sessions:
        if s.group is not None and s.group_max_w is not None:
            groups[s.group] = min(groups.get(s.group, np.inf), s.group_max_w)
    for group, most in groups.items():
        keys = {s.key for s in problem.sessions if s.group == group}
        worst.see(f"station {group}", sum((plan.session_w[k] for k in keys), np.zeros(problem.slots)) - most)
    surplus_keys = {s.key for s in problem.sessions if s.mode is Mode.SURPLUS}
    surplus_keys -= {s.key for s in problem.sessions if s.mode is not Mode.SURPLUS}
    together = sum((plan.session_w[k] for k in surplus_keys), np.zeros(problem.slots))
    worst.see("surplus", together - np.maximum(-(problem.building_w + problem.pv_w), 0))


def stored_wh(problem: PlanProblem, battery_w: Series) -> Series:
    """Energy in the battery at the end of each slot."""
    battery = problem.battery
    assert battery is not None
    assert battery.soc is not None
    flow = np.where(battery_w > 0, battery_w * battery.efficiency, battery_w / battery.efficiency)
    stored: Series = battery.soc * battery.capacity_wh + np.cumsum(flow * problem.hours)
    return stored


def _check_battery(problem: PlanProblem, plan: PlanResult, worst: _Worst) -> None:
    battery = problem.battery
    if battery is None or battery.soc is None:
        worst.see("a battery that rests", np.abs(plan.battery_w))
        return
    worst.see("battery charge", plan.battery_w - battery.max_charge_w)
    worst.see("battery discharge", -plan.battery_w - battery.max_discharge_w)
    h = problem.hours
    now = battery.soc * battery.capacity_wh
    stored = stored_wh(problem, plan.battery_w)
    worst.see("battery full", (stored - max(battery.max_soc * battery.capacity_wh, now)) / h)
    worst.see("battery empty", (min(battery.min_soc * battery.capacity_wh, now) - stored) / h)


def _check_circuits(problem: PlanProblem, plan: PlanResult, worst: _Worst) -> None:
    """Watts and amps per phase of every circuit, cars one by one onto their phases."""
    slots = problem.slots
    nodes = len(problem.grid)
    phase_w = np.zeros((nodes, 3, slots))
    for s in problem.sessions:
        window = slice(s.first_slot, s.last_slot)
        for f in range(3):
            if s.phases[f]:
                phase_w[s.node, f, window] += plan.session_w[s.key][window] / sum(s.phases)
    if problem.battery is not None:
        phase_w[problem.battery.node] += plan.battery_w / 3
    for n in range(nodes - 1, 0, -1):
        phase_w[problem.grid.circuits[n].parent] += phase_w[n]
    background = _background(problem, problem.pv_w)
    after = _background(problem, plan.pv_w)
    for n, circuit in enumerate(problem.grid.circuits):
        fuse_w = np.array([max(0.0, a - circuit.margin_a) * NOMINAL_V for a in circuit.limit_a])
        allowed = np.maximum(fuse_w[:, None], background[n] / 3)
        worst.see(f"a phase of limit:{circuit.name}", phase_w[n] + after[n] / 3 - allowed)
        if circuit.limit_w is not None:
            allowed = np.maximum(circuit.limit_w, background[n])
            worst.see(f"limit:{circuit.name}", phase_w[n].sum(axis=0) + after[n] - allowed)
        if n and (phase_w[n] < 0).any():  # what flows back is carried by the same fuses
            back = np.maximum(fuse_w[:, None], -background[n] / 3)
            worst.see(f"a phase of limit:{circuit.name}, backwards", -phase_w[n] - after[n] / 3 - back)
            if circuit.export_limit_w is not None:
                back = np.maximum(circuit.export_limit_w, -background[n])
                worst.see(f"export of {circuit.name}", -phase_w[n].sum(axis=0) - after[n] - back)


def _background(problem: PlanProblem, pv_w: Series) -> Series:
    nodes = len(problem.grid)
    out = np.zeros((nodes, problem.slots))
    of_children = np.zeros((nodes, problem.slots))
    for n in range(nodes - 1, 0, -1):
        if n in problem.node_background_w:
            out[n] = problem.node_background_w[n]
        else:
            out[n] += of_children[n]
        parent = problem.grid.circuits[n].parent
        assert parent is not None
        of_children[parent] += out[n]
    out[0] = problem.building_w + pv_w
    return out


def _check_connection(problem: PlanProblem, grid: Series, worst: _Worst) -> Series:
    """Import and export against contract and operator. Returns what the building alone has above the limit, as it is
    left by the plan [W]."""
    root = problem.grid.circuits[0]
    contract = np.full(problem.slots, np.inf if root.limit_w is None else root.limit_w)
    if problem.import_limit_w is not None:
        contract = np.minimum(contract, np.maximum(problem.import_limit_w, 0))
    alone = problem.building_w + problem.pv_w
    worst.see("import_limit", grid - np.maximum(contract, alone))
    export = np.full(problem.slots, np.inf if root.export_limit_w is None else root.export_limit_w)
    if problem.export_limit_w is not None:
        export = np.minimum(export, np.maximum(problem.export_limit_w, 0))
    export = np.minimum(export, max(0.0, min(root.limit_a) - root.margin_a) * 3 * NOMINAL_V)
    worst.see("export_limit", -grid - np.maximum(export, -problem.building_w))
    fuses = sum(max(0.0, a - root.margin_a) for a in root.limit_a) * NOMINAL_V
    least = min(max(0.0, a - root.margin_a) for a in root.limit_a) * 3 * NOMINAL_V
    balanced = all(all(s.phases) for s in problem.sessions)
    counted = np.minimum(contract, least if balanced else fuses)
    over: Series = np.maximum(np.minimum(grid, np.maximum(counted, alone)) - counted, 0)
    return over

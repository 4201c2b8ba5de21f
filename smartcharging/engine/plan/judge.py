"""What a plan costs, and by how much it breaks a bound, seen from its powers alone.

Pure. Shares no arithmetic with the program that makes plans: plain sums up the tree, slot by slot, so that a mistake
there cannot hide here. The site's own load is nobody's fault: where building and PV alone exceed a limit, a plan may
not add to it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

from smartcharging.engine.grid import NOMINAL_V, Supply
from smartcharging.engine.loads import judge as judge_loads
from smartcharging.engine.plan import worth
from smartcharging.engine.plan.problem import PlanProblem, PlanResult, Series
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

    def see_rows(self, name_of: Callable[[int], str], excess_w: Series) -> None:
        """The same of a table with a row for each of many."""
        if not excess_w.size:
            return
        row = int(np.unravel_index(np.argmax(excess_w), excess_w.shape)[0])  # argmax finds NaN first
        self.see(name_of(row), excess_w[row])


class _Cars:
    """The plan's cars as tables: `power_w` has a row for each session, zero outside of its window."""

    def __init__(self, problem: PlanProblem, plan: PlanResult) -> None:
        sessions, surplus, plan_mode = problem.sessions, Mode.SURPLUS, Mode.PLAN
        self.keys = list(plan.session_w)
        number = {key: i for i, key in enumerate(self.keys)}
        self.of_evse_w = np.array(list(plan.session_w.values()), dtype=np.float64).reshape(
            len(self.keys), problem.slots
        )
        self.evse = np.array([number[s.key] for s in sessions], dtype=np.int64)
        first = np.array([s.first_slot for s in sessions], dtype=np.int64)[:, None]
        last = np.array([s.last_slot for s in sessions], dtype=np.int64)[:, None]
        slots = np.arange(problem.slots)
        self.inside = (slots >= first) & (slots < last)
        self.power_w = np.where(self.inside, self.of_evse_w[self.evse], 0.0)
        self.efficiency = np.array([s.efficiency for s in sessions], dtype=np.float64)
        self.energy_wh = np.array([s.energy_wh for s in sessions], dtype=np.float64)
        self.surplus = np.array([s.mode is surplus for s in sessions], dtype=bool)
        # What a car that gives has on balance, both ways with their loss; of the others simply what they got.
        self.efficient_w = np.where(
            self.power_w > 0, self.power_w * self.efficiency[:, None], self.power_w / self.efficiency[:, None]
        )
        # Not by `@`: for so few numbers it wakes threads, which then spin beside what comes next.
        self.had_wh = np.einsum("it,t->i", self.efficient_w, problem.hours)
        self.lends = np.array(
            [s.discharge_w > 0 and s.lends_wh > 0 and s.mode is plan_mode and not s.expected for s in sessions], bool
        )


def judge(problem: PlanProblem, plan: PlanResult) -> Verdict:
    """Price a plan and measure every bound."""
    worst = _Worst()
    h = problem.hours
    cars = _Cars(problem, plan)
    _check_sessions(problem, cars, worst)
    _check_battery(problem, plan, worst)
    judge_loads.check_loads(problem, plan, worst.see)
    _check_circuits(problem, plan, cars, worst)
    loads = sum(plan.load_w.values(), np.zeros(problem.slots))
    grid = problem.building_w + plan.pv_w + cars.of_evse_w.sum(axis=0) + loads + plan.battery_w
    worst.see("power balance", np.abs(grid - plan.grid_w))
    worst.see("PV beyond what is expected", problem.pv_w - plan.pv_w)
    worst.see("PV that consumes", plan.pv_w)
    over = _check_connection(problem, grid, grid - plan.pv_w, worst)
    bought, sold = np.maximum(grid, 0) / 1000 * h, np.maximum(-grid, 0) / 1000 * h
    peak_eur = _peaks_eur(problem, grid, bought)
    cost = float(problem.bought_eur_per_kwh @ bought - problem.export_eur_per_kwh @ sold) + peak_eur
    planned = float(problem.bought_eur_per_kwh @ bought - worth.export_prices(problem) @ sold) + peak_eur
    objective = planned + _soft(problem, plan, cars, h) + float(over @ h) / 1000 * worth.overload_value(problem)
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


def _soft(problem: PlanProblem, plan: PlanResult, cars: _Cars, h: Series) -> float:
    """Shortfalls, early charging, drivers who may have left, wear, what is left in the battery, surplus well used,
    promises to loads."""
    slots = (np.cumsum(h) - h) * 3600 / problem.slot_s  # when each begins
    kwh = cars.power_w / 1000 * h
    total = judge_loads.promises_eur(problem, plan)
    total += problem.early_eur_per_kwh * float(np.maximum(kwh, 0.0).sum(axis=0) @ slots)  # giving late earns nothing
    total += worth.LEAST_EUR_PER_KWH * float((plan.pv_w - problem.pv_w) @ h) / 1000
    if any(s.gone_eur_per_kwh for s in problem.sessions):
        total += float(np.einsum("it,it->", kwh, worth.losses(problem)))
    total -= float(cars.efficiency[cars.surplus] @ (kwh[cars.surplus] @ worth.surplus_values(problem)))
    short_kwh = np.maximum(cars.energy_wh - cars.had_wh, 0.0) / 1000
    wear = np.maximum([s.wear_eur_per_kwh for s in problem.sessions], worth.LEAST_EUR_PER_KWH)
    total += float(wear[cars.lends] @ np.abs(kwh[cars.lends]).sum(axis=1))
    total += float((worth.goal_values(problem) * short_kwh)[~cars.surplus].sum())
    battery = problem.battery
    if battery is not None and battery.soc is not None:
        total += max(battery.wear_eur_per_kwh, worth.LEAST_EUR_PER_KWH) * float(np.abs(plan.battery_w) @ h) / 1000
        at_end_wh = stored_wh(problem, plan.battery_w)[-1:].sum()  # nothing is left of a horizon without slots
        total -= worth.stored_value(problem) * float(at_end_wh) / 1000
    return total


def _check_sessions(problem: PlanProblem, cars: _Cars, worst: _Worst) -> None:
    h, sessions = problem.hours, problem.sessions
    allowed = np.zeros_like(cars.of_evse_w)
    for s, evse in zip(sessions, cars.evse, strict=True):
        allowed[evse, s.first_slot : s.last_slot] = s.max_w
    over_wh = cars.had_wh - cars.energy_wh
    worst.see_rows(lambda i: f"energy of session {sessions[i].label}", over_wh / float(h.min(initial=np.inf)))
    worst.see_rows(lambda i: f"maximum of EVSE {cars.keys[i]}", cars.of_evse_w - allowed)
    gives = np.zeros_like(cars.of_evse_w)
    for i in np.flatnonzero(cars.lends):
        s = sessions[i]
        gives[cars.evse[i], s.first_slot : s.last_slot] = s.discharge_w
        had_wh = np.cumsum(cars.efficient_w[i] * h)
        worst.see(f"energy lent by session {s.label}", (-had_wh - s.lends_wh) / float(h.min(initial=np.inf)))
        worst.see(f"energy of session {s.label}", (had_wh - s.energy_wh) / float(h.min(initial=np.inf)))
    worst.see_rows(lambda i: f"discharge at EVSE {cars.keys[i]}", -cars.of_evse_w - gives)
    _check_stations(problem, cars, worst)
    only_surplus = np.setdiff1d(cars.evse[cars.surplus], cars.evse[~cars.surplus])
    together = cars.of_evse_w[only_surplus].sum(axis=0)
    worst.see("surplus", together - np.maximum(-(problem.building_w + problem.pv_w), 0))


def _check_stations(problem: PlanProblem, cars: _Cars, worst: _Worst) -> None:
    """The amps of each line of an inlet that EVSEs share, and what all of its cars that give send back over it."""
    members: dict[int, list[int]] = {}
    for i, s in enumerate(problem.sessions):
        if s.group is not None:
            members.setdefault(s.group, []).append(i)
    for group, mates in members.items():
        of_mates = [problem.sessions[i] for i in mates]
        limit_a = min((s.group_max_a for s in of_mates if s.group_max_a is not None), default=np.inf)
        if limit_a == np.inf:
            continue
        share = np.array([_on_lines(s.phases, problem) for s in of_mates])
        amps = np.einsum("if,it->ft", share, cars.power_w[mates]) / NOMINAL_V
        back = np.einsum("if,it->ft", share, np.maximum(-cars.power_w[mates], 0.0)) / NOMINAL_V
        worst.see(f"station {group}", NOMINAL_V * (np.maximum(amps, back) - limit_a))


def _on_lines(phases: tuple[bool, bool, bool], problem: PlanProblem) -> list[float]:
    """What a watt puts on each line, in volt-amperes at 230 V."""
    return [uses * _of_one_line(sum(phases), problem) for uses in phases]


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


def _check_circuits(problem: PlanProblem, plan: PlanResult, cars: _Cars, worst: _Worst) -> None:
    """Watts of every circuit, and volt-amperes of each of its lines, cars and loads one by one onto theirs.

    A line of *I* amps stands for 230 V × *I*. Without a neutral its currents are added as lengths.
    """
    circuits = problem.grid.circuits
    per_line = np.array([_of_one_line(n, problem) for n in range(4)])
    third = per_line[3]
    uses = np.array([s.phases for s in problem.sessions], dtype=np.float64).reshape(-1, 3)
    share = np.ones((uses.shape[0], 4))  # of each car's power: on the three lines, and in watts
    share[:, :3] = uses * per_line[uses.sum(axis=1).astype(np.int64), None]
    place = 4 * np.array([s.node for s in problem.sessions], dtype=np.int64)[:, None] + np.arange(4)
    car = np.repeat(np.arange(uses.shape[0]), 4)
    sums = sp.csr_array((share.ravel(), (place.ravel(), car)), shape=(4 * len(circuits), uses.shape[0]))
    carried = (sums @ cars.power_w).reshape(len(circuits), 4, problem.slots)
    phase_w, whole_w = carried[:, :3], carried[:, 3]  # the same numbers
    for load in problem.loads:
        whole_w[load.node] += plan.load_w[load.key]
        for f in range(3):
            if load.phases[f]:
                phase_w[load.node, f] += plan.load_w[load.key] * per_line[sum(load.phases)]
    if problem.battery is not None:
        phases = np.array(problem.battery.phases if any(problem.battery.phases) else (True, True, True))
        whole_w[problem.battery.node] += plan.battery_w
        phase_w[problem.battery.node] += phases[:, None] * plan.battery_w * per_line[phases.sum()]
    for n in range(len(circuits) - 1, 0, -1):
        carried[circuits[n].parent] += carried[n]
    before = _background(problem, problem.pv_w)
    after = _background(problem, plan.pv_w)
    margin_a = np.array([c.margin_a for c in circuits])[:, None]
    fuse_w = np.maximum(np.array([c.limit_a for c in circuits]) - margin_a, 0.0)[:, :, None] * NOMINAL_V
    watts = np.array([np.inf if c.limit_w is None else c.limit_w for c in circuits])[:, None]
    for f in range(3):
        excess = phase_w[:, f] + after * third - np.maximum(fuse_w[:, f], before * third)
        worst.see_rows(lambda n: f"a phase of limit:{circuits[n].name}", excess)
    if problem.sun_trust is not None:  # no phase of the connection leans on more sun than is trusted
        own = problem.building_w * third
        excess = phase_w[0] + own - np.maximum(fuse_w[0] * (1 + problem.sun_trust), own)
        worst.see(f"a phase of limit:{circuits[0].name}, without the sun", excess)
    whole = whole_w + after
    worst.see_rows(lambda n: f"limit:{circuits[n].name}", whole - np.maximum(watts, before))
    back_w = _given_back(problem, plan, cars, share)
    below = np.flatnonzero(back_w.any(axis=(1, 2)))
    each = back_w[below] - after[below, None] * third
    excess = np.where(back_w[below] > 0, each - np.maximum(fuse_w[below], -before[below, None] * third), 0.0)
    worst.see_rows(lambda k: f"a phase of limit:{circuits[below[k]].name}, backwards", excess)
    below = np.flatnonzero((whole_w < 0).any(axis=1))
    below = below[below > 0]  # what all phases of the connection give back has a check of its own
    export = np.array([np.inf if c.export_limit_w is None else c.export_limit_w for c in circuits])[below, None]
    worst.see_rows(lambda k: f"export of {circuits[below[k]].name}", -whole[below] - np.maximum(export, -before[below]))


def _given_back(problem: PlanProblem, plan: PlanResult, cars: _Cars, share: Series) -> Series:
    """What battery and cars send back over each line of each circuit, were every other car to stop at this moment."""
    back = np.zeros((len(problem.grid), 3, problem.slots))
    given_w = np.maximum(-cars.power_w, 0.0)
    for i in np.flatnonzero(given_w.any(axis=1)):
        for n in problem.grid.path(problem.sessions[i].node):
            back[n] += share[i, :3, None] * given_w[i]
    battery = problem.battery
    if battery is not None:
        lines = _on_lines(battery.phases if any(battery.phases) else (True, True, True), problem)
        for n in problem.grid.path(battery.node):
            back[n] += np.outer(lines, np.maximum(-plan.battery_w, 0.0))
    return back


def _of_one_line(lines: int, problem: PlanProblem) -> float:
    """What a watt on so many lines puts on each of them, in volt-amperes at 230 V. A load between two lines has all of
    its current in both; three lines share it over three loads between two, of which each carries two at 120°."""
    if problem.grid.supply is Supply.IT:
        return 1.0 if lines < 3 else float(np.sqrt(3.0)) / 3.0
    return 1.0 / max(lines, 1)


def _background(problem: PlanProblem, pv_w: Series) -> Series:
    nodes = len(problem.grid)
    out = np.zeros((nodes, problem.slots))
    out[0] = problem.building_w + pv_w
    if not problem.node_background_w:
        return out
    of_children = np.zeros((nodes, problem.slots))
    for n in range(nodes - 1, 0, -1):
        if n in problem.node_background_w:
            out[n] = problem.node_background_w[n]
        else:
            out[n] += of_children[n]
        parent = problem.grid.circuits[n].parent
        assert parent is not None
        of_children[parent] += out[n]
    return out


def _check_connection(problem: PlanProblem, grid: Series, used: Series, worst: _Worst) -> Series:
    """Import and export against contract and operator. Returns what the building alone has above the limit, as it is
    left by the plan [W]. `used` is what the grid and the sun that runs bring together."""
    root = problem.grid.circuits[0]
    contract = np.full(problem.slots, np.inf if root.limit_w is None else root.limit_w)
    if problem.import_limit_w is not None:
        contract = np.minimum(contract, np.maximum(problem.import_limit_w, 0))
    alone = problem.building_w + problem.pv_w
    worst.see("import_limit", grid - np.maximum(contract, alone))
    export = np.full(problem.slots, np.inf if root.export_limit_w is None else root.export_limit_w)
    if problem.export_limit_w is not None:
        export = np.minimum(export, np.maximum(problem.export_limit_w, 0))
    three = NOMINAL_V / _of_one_line(3, problem)  # of an amp on each line
    export = np.minimum(export, max(0.0, min(root.limit_a) - root.margin_a) * three)
    worst.see("export_limit", -grid - np.maximum(export, -problem.building_w))
    each = np.array([max(0.0, a - root.margin_a) for a in root.limit_a])[:, None] * three / 3
    batteries = () if problem.battery is None else (problem.battery,)
    balanced = all(all(s.phases) for s in (*problem.sessions, *problem.loads, *batteries))

    def beyond(load: Series, own: Series, fuses: Series, least: Series | float) -> Series:
        if balanced:
            counted = np.minimum(least, 3 * fuses.min(axis=0))
        else:  # a phase that the building alone has filled takes nothing from the others, as long as there are others
            spare = fuses - own / 3
            counted = np.minimum(least, own + np.maximum(spare, np.minimum(spare.max(axis=0), 0.0)).sum(axis=0))
        found: Series = np.maximum(np.minimum(load, np.maximum(counted, own)) - counted, 0)
        return found

    over = beyond(grid, alone, each, contract)
    if problem.sun_trust is None:
        return over
    return np.maximum(over, beyond(used, problem.building_w, each * (1 + problem.sun_trust), np.inf))

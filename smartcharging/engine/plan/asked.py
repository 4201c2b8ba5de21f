"""Setting right what is asked: every oddity becomes the nearest harmless thing, and a note.

Pure. One number of one car or circuit that cannot be planned with must not send the whole site to the rule; only a day
without prices does (`what_is_wrong`). Series and single numbers of the site are set right in `numbers.py`.
"""

from __future__ import annotations

from dataclasses import replace
from math import inf, isfinite

import numpy as np

from smartcharging.engine.grid import Circuit, Grid, Supply
from smartcharging.engine.plan import rule as plan_rule
from smartcharging.engine.plan.problem import PlanProblem, PlanSession
from smartcharging.engine.snapshot import BatteryState


def set_right(problem: PlanProblem, notes: list[str]) -> tuple[PlanSession, ...]:
    """Sessions whose numbers can be planned with: every oddity becomes the nearest harmless thing, and a note."""
    if _all_right(problem):
        return problem.sessions
    slots = problem.slots
    station = {s.key: s.group for s in reversed(problem.sessions) if s.group is not None}  # of each EVSE
    free_from: dict[str, int] = {}
    out: dict[int, PlanSession] = {}
    order = sorted(range(len(problem.sessions)), key=lambda i: problem.sessions[i].first_slot)
    for i in order:
        s = problem.sessions[i]
        first = min(max(int(s.first_slot), free_from.get(s.key, 0), 0), slots)
        last = min(max(int(s.last_slot), first), slots)
        free_from[s.key] = last
        if first > max(s.first_slot, 0):
            notes.append(f"session {s.label}: starts when the EVSE is free, slot {first}")
        node = s.node
        if not 0 <= node < len(problem.grid):
            notes.append(f"session {s.label}: unknown circuit {s.node}; planned at the grid connection")
            node = 0
        max_w = s.max_w
        if not isfinite(max_w) or max_w < 0:
            notes.append(f"session {s.label}: its maximum power is {s.max_w}; planned with none")
            max_w = 0.0
        efficiency = s.efficiency if isfinite(s.efficiency) and 0 < s.efficiency <= 1 else 1.0
        energy = s.energy_wh
        if not isfinite(energy):  # as much as possible
            energy = max_w * efficiency * float(problem.hours[first:last].sum())
        value = s.value_eur_per_kwh if s.value_eur_per_kwh is None or isfinite(s.value_eur_per_kwh) else None
        phases = s.phases if any(s.phases) else (True, True, True)
        gone = s.gone_eur_per_kwh if all(isfinite(x) and x >= 0 for x in s.gone_eur_per_kwh) else ()
        energy = max(energy, 0.0)
        if not isfinite(s.hurry):
            notes.append(f"session {s.label}: its hurry is {s.hurry}; it has none")
        out[i] = replace(
            _giving_right(s, problem.grid.supply, notes),
            node=node,
            phases=phases,
            first_slot=first,
            last_slot=last,
            max_w=max_w,
            energy_wh=energy,
            efficiency=efficiency,
            value_eur_per_kwh=value,
            gone_eur_per_kwh=gone,
            hurry=s.hurry if isfinite(s.hurry) else 1.0,
            group=station.get(s.key),
            group_max_a=_limit_right(f"session {s.label}: what its station takes", s.group_max_a, notes),
        )
    return tuple(out[i] for i in range(len(problem.sessions)))


def _giving_right(s: PlanSession, supply: Supply, notes: list[str]) -> PlanSession:
    """A car of which it is not known what it may give, on which lines, or what that costs it, gives nothing."""
    given = (s.discharge_w, s.lends_wh, s.wear_eur_per_kwh)
    sound = all(_sound(number) for number in given)
    if sound and not _gives_on_one_line(s, supply):
        return s
    why = "without a neutral it hangs between two lines, and one is named" if sound else "no number"
    notes.append(f"session {s.label}: what it may give or its wear is not known ({why}); it gives nothing")
    return replace(s, discharge_w=0.0, lends_wh=0.0, wear_eur_per_kwh=0.0)


def _gives_on_one_line(s: PlanSession, supply: Supply) -> bool:
    return s.discharge_w > 0 and supply is Supply.IT and sum(s.phases) == 1


def _sound(number: float) -> bool:
    return isfinite(number) and number >= 0


def _limit_right(name: str, limit: float | None, notes: list[str]) -> float | None:
    """A limit below zero, or that is no number, is zero. None, and infinity, are no limit."""
    if limit is None or limit >= 0:
        return limit
    notes.append(f"{name} is {limit}; planned as 0")
    return 0.0


def plannable_grid(grid: Grid, notes: list[str]) -> Grid:
    """Circuits with limits that can be planned with. Where it is not known what is to stay free, nothing is left."""
    if all(map(_is_right, grid.circuits)):
        return grid
    return Grid(tuple(c if _is_right(c) else _circuit_right(c, notes) for c in grid.circuits), grid.supply)


def _is_right(circuit: Circuit) -> bool:
    """Thousands of circuits are asked this in each plan."""
    watts, export, amps = circuit.limit_w, circuit.export_limit_w, circuit.limit_a
    return (
        0 <= circuit.margin_a < inf
        and min(amps) >= 0 <= sum(amps)  # the sum of what is no number is none
        and (watts is None or watts >= 0)
        and (export is None or export >= 0)
    )


def _circuit_right(circuit: Circuit, notes: list[str]) -> Circuit:
    watts, export, margin_a = circuit.limit_w, circuit.export_limit_w, circuit.margin_a
    said = f"circuit {circuit.name}: its"
    if not _sound(margin_a):
        notes.append(f"{said} margin is {margin_a} A")
    known = isfinite(margin_a)
    a, b, c = (amps if known and amps >= 0 else 0.0 for amps in circuit.limit_a)
    if (a, b, c) != circuit.limit_a:
        notes.append(f"{said} amps are {circuit.limit_a}; planned as {(a, b, c)}")
    return replace(
        circuit,
        limit_a=(a, b, c),
        margin_a=max(margin_a, 0.0) if known else 0.0,
        limit_w=_limit_right(f"{said} limit in watts", watts, notes),
        export_limit_w=_limit_right(f"{said} export limit in watts", export, notes),
    )


def _all_right(problem: PlanProblem) -> bool:
    """Is there nothing to set right? Thousands of cars are seen at once this way."""
    sessions = problem.sessions
    if not sessions:
        return True
    if len({s.key for s in sessions}) < len(sessions):
        return False
    first, last = np.array([s.first_slot for s in sessions]), np.array([s.last_slot for s in sessions])
    node = np.array([s.node for s in sessions])
    efficiency = np.array([s.efficiency for s in sessions])
    sizes = np.array(
        [(s.max_w, s.energy_wh, s.discharge_w, s.lends_wh, s.wear_eur_per_kwh, abs(s.hurry)) for s in sessions]
    )
    return bool(
        first.dtype.kind in "iu"
        and last.dtype.kind in "iu"
        and not any(_gives_on_one_line(s, problem.grid.supply) for s in sessions if s.discharge_w)
        and ((first >= 0) & (first <= last) & (last <= problem.slots)).all()
        and ((node >= 0) & (node < len(problem.grid))).all()
        and ((efficiency > 0) & (efficiency <= 1)).all()
        and ((sizes >= 0) & np.isfinite(sizes)).all()
        and all(any(s.phases) for s in sessions)
        and all(s.group_max_a is None or s.group_max_a >= 0 for s in sessions)
        and all(s.value_eur_per_kwh is None or isfinite(s.value_eur_per_kwh) for s in sessions)
        and all(
            min(s.gone_eur_per_kwh) >= 0 and isfinite(sum(s.gone_eur_per_kwh)) for s in sessions if s.gone_eur_per_kwh
        )
    )


def plannable_battery(battery: BatteryState | None, grid: Grid, notes: list[str]) -> BatteryState | None:
    """A battery whose charge is unknown rests, and so does one of which only one of its two lines is named."""
    if battery is None:
        return None
    if not 0 <= battery.node < len(grid):
        notes.append(f"battery {battery.key}: unknown circuit {battery.node}; planned at the grid connection")
        battery = replace(battery, node=0)
    supply = grid.supply
    if supply is Supply.IT and sum(battery.phases) == 1:
        notes.append(f"battery {battery.key}: without a neutral it hangs between two lines, and one is named; it rests")
        return None
    numbers = (battery.soc, battery.capacity_wh, battery.max_charge_w, battery.max_discharge_w, battery.efficiency)
    if any(n is None or not _sound(n) for n in numbers) or not battery.capacity_wh:
        notes.append(f"battery {battery.key}: state of charge or size unknown; it rests")
        return None
    if not all(isfinite(n) for n in (battery.wear_eur_per_kwh, battery.min_soc, battery.max_soc)):
        notes.append(f"battery {battery.key}: its wear or its band is no number; it rests")
        return None
    efficiency = battery.efficiency if 0 < battery.efficiency <= 1 else 0.95
    return replace(battery, efficiency=efficiency, wear_eur_per_kwh=max(0.0, battery.wear_eur_per_kwh))


def fill_gaps(problem: PlanProblem, notes: list[str]) -> PlanProblem:
    """Slots of which the load is unknown (not-a-number) take the worst that is known of it, and are noted."""
    unknown = {"building_w": problem.building_w, "pv_w": problem.pv_w}
    unknown |= {f"node_background_w[{n}]": s for n, s in problem.node_background_w.items()}
    gaps = [name for name, s in unknown.items() if np.isnan(s).any()]
    if not gaps:
        return problem
    notes.extend(
        f"{name} is unknown in {int(np.isnan(unknown[name]).sum())} slots: the worst is assumed" for name in gaps
    )
    return plan_rule.with_known_load(problem)


def what_is_wrong(problem: PlanProblem) -> str | None:
    """What cannot be planned with, all else being set right (`numbers.py`): a day without slots, or without prices."""
    if problem.slots == 0:
        return "the horizon has no slots"
    for name in ("import_eur_per_kwh", "export_eur_per_kwh"):
        if np.isnan(getattr(problem, name)).any():
            return f"{name} has values that are no numbers"
    return None

"""What a plan means for its loads: their temperatures, what they fall short of, and why.

Pure. Computed from the powers alone, so that it is the same whoever made the plan.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from smartcharging.engine.loads.columns import LoadColumns
from smartcharging.engine.loads.kinds import label, off_rules
from smartcharging.engine.plan import rooms
from smartcharging.engine.plan.answer import Mask, interval
from smartcharging.engine.plan.problem import LoadShort, PlanProblem, PlanResult, Series
from smartcharging.engine.plan.rooms import KIND_NAMES, WATTS, Rooms

FULL_KW = 1e-4
SHORT_K_H = 0.01
SHORT_H = 1e-3


def with_loads(problem: PlanProblem, plan: PlanResult) -> PlanResult:
    """The same plan with what it means for the loads."""
    if not problem.loads:
        return plan
    loads = LoadColumns(problem)
    courses = {i: loads.warmth[i].course(store.now_c, plan.load_w[store.key] / 1000) for i, store in loads.stores}
    short = [*_blocks_short(loads, plan), *_stores_short(loads, plan, courses), *_switches_short(loads, plan)]
    return replace(
        plan,
        load_short=tuple(short),
        temperature_c={store.key: courses[i] for i, store in loads.stores},
    )


def _blocks_short(loads: LoadColumns, plan: PlanResult) -> list[LoadShort]:
    short = []
    for i, block in loads.blocks:
        runs = loads.runs[i].toarray()
        wants = np.asarray(runs.max(axis=0, initial=0.0))
        if not runs.shape[0] or (wants.any() and not plan.load_w[block.key].any()):
            short.append(_said(loads, i, 1.0, "runs", _why(loads, plan, i, wants, wants > 0)))
    return short


def _stores_short(loads: LoadColumns, plan: PlanResult, courses: dict[int, Series]) -> list[LoadShort]:
    short = []
    for i, store in loads.stores:
        warmth, course = loads.warmth[i], courses[i]
        below, above = np.maximum(warmth.low - course, 0), np.maximum(course - warmth.high, 0)
        amount = float((below + above) @ loads.hours)
        if amount <= SHORT_K_H:
            continue
        helped = above if store.cooling else below  # the other side only time can mend
        if float(helped @ loads.hours) <= SHORT_K_H:
            reason = "time"
        else:
            until = np.flatnonzero(helped > 0)[-1]
            reason = _why(loads, plan, i, loads.most_kw[i], np.arange(loads.slots) <= until)
        short.append(_said(loads, i, amount, "K·h", reason))
    return short


def _switches_short(loads: LoadColumns, plan: PlanResult) -> list[LoadShort]:
    short = []
    for i, switch in loads.switches:
        off = (plan.load_w[switch.key] < loads.most_kw[i] * 500) & (loads.most_kw[i] > 0)
        state = np.concatenate([off, np.array(switch.before, dtype=bool)])  # slots below zero count from the end
        against = np.zeros(loads.slots)
        for rule in off_rules(switch, loads.hours):
            was = rule.slots < 0
            allowed = max(rule.most - float(rule.weight[was] @ state[rule.slots[was]]), 0.0)
            beyond = float(rule.weight[~was] @ state[rule.slots[~was]]) - allowed
            against[rule.at] = max(against[rule.at], beyond / rule.unit)
        amount = float(against @ loads.hours)
        if amount > SHORT_H:
            reason = _why(loads, plan, i, loads.most_kw[i], off)
            short.append(_said(loads, i, amount, "h", reason))
    return short


def _said(loads: LoadColumns, i: int, amount: float, unit: str, reason: str) -> LoadShort:
    load = loads.problem.loads[i]
    return LoadShort(load.key, label(load), amount, unit, reason)


def _why(loads: LoadColumns, plan: PlanResult, i: int, wants_kw: Series, when: Mask) -> str:
    """What keeps a load from taking what it wants: full power already (`time`), a limit on its way, or the price."""
    problem, load = loads.problem, loads.problem.loads[i]
    more = wants_kw - plan.load_w[load.key] / 1000
    held = when & (more > FULL_KW)
    if not held.any():
        return "time"
    left = _left_kw(loads, plan)
    found: dict[str, list[int]] = {}
    for n in reversed(list(problem.grid.path(load.node))):
        for kind in np.flatnonzero(loads.weight[i] > 0):
            tight = np.flatnonzero(held & (left[n, kind] < loads.weight[i, kind] * more - FULL_KW))
            if tight.size:
                found[_limit_name(problem, n, int(kind), int(tight[0]))] = [
                    int(tight[0]),
                    int(tight[-1]) + 1,
                    tight.size,
                ]
    if not found:
        return "rule" if plan.status == "fallback" else "value"
    name = max(found, key=lambda name: found[name][2])
    return f"{name}@{interval(problem, found[name][0], found[name][1])}"


def _limit_name(problem: PlanProblem, node: int, kind: int, slot: int) -> str:
    circuit = problem.grid.circuits[node]
    ordered = problem.import_limit_w
    own = np.inf if circuit.limit_w is None else circuit.limit_w
    if node == 0 and kind == WATTS and ordered is not None and ordered[slot] < own:
        return "import_limit"
    return f"limit:{circuit.name}{KIND_NAMES[kind]}"


def _left_kw(loads: LoadColumns, plan: PlanResult) -> Series:
    """What the plan leaves of every circuit's room: axes circuit, kind, slot."""
    problem = loads.problem
    taken = np.zeros((len(problem.grid), rooms.KINDS, problem.slots))
    for session, weight in zip(problem.sessions, rooms.weights(problem), strict=True):
        power = np.zeros(problem.slots)
        window = slice(session.first_slot, session.last_slot)
        power[window] = plan.session_w[session.key][window] / 1000
        taken[session.node] += weight[:, None] * power
    for load, weight in zip(problem.loads, loads.weight, strict=True):
        taken[load.node] += weight[:, None] * plan.load_w[load.key] / 1000
    if problem.battery is not None:
        taken[problem.battery.node] += rooms.battery_weight(problem)[:, None] * plan.battery_w / 1000
    for n in range(len(problem.grid) - 1, 0, -1):
        parent = problem.grid.circuits[n].parent
        assert parent is not None
        taken[parent] += taken[n]
    return Rooms.of(problem).room - taken

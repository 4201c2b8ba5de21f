"""What a plan does to its loads, seen from their powers alone: by how much a bound is broken, and what promises cost.

Pure. Like `judge.py`, whose part it is, it shares no arithmetic with the program: a store is walked through slot by
slot, a block is compared with energy that was drawn by every moment, a switch is a string of on and off.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from smartcharging.engine.loads.kinds import IDLE_W, ShiftableBlock, Switchable, ThermalStore
from smartcharging.engine.plan import worth
from smartcharging.engine.plan.problem import PlanProblem, PlanResult, Series

SAME_H = 1e-6
OFF_W = 0.5  # so much less than expected
See = Callable[[str, Series | float], None]


def check_loads(problem: PlanProblem, plan: PlanResult, see: See) -> None:
    """Every bound of a load's own power."""
    for load in problem.loads:
        power = plan.load_w[load.key]
        if isinstance(load, ShiftableBlock):
            see(f"one unbroken run of load {load.key}", min(_off_by(power, run) for run in _runs(problem, load)))
        elif isinstance(load, ThermalStore):
            see(f"maximum of load {load.key}", power - load.max_w)
            see(f"no power back from load {load.key}", -power)
            if load.on_off:
                see(f"all or nothing of load {load.key}", np.minimum(np.abs(power), np.abs(power - load.max_w)))
        else:
            see(f"all or nothing of load {load.key}", np.minimum(np.abs(power), np.abs(power - load.expected_w)))


def promises_eur(problem: PlanProblem, plan: PlanResult) -> float:
    """What loads cost beside their energy: runs that are missing, kelvins outside the band, rest and its rules."""
    total = 0.0
    hours = problem.hours
    for load, value in zip(problem.loads, worth.load_values(problem), strict=True):
        power = plan.load_w[load.key]
        if isinstance(load, ShiftableBlock):
            draws_nothing = not any((run > 0).any() for run in _runs(problem, load)) and bool(_starts(problem, load))
            total += 0.0 if draws_nothing or (power > 0).any() else value
            begin = [float(hours[:t].sum()) * 3600 / problem.slot_s for t in range(problem.slots)]
            total += problem.early_eur_per_kwh * float((power / 1000 * hours) @ np.array(begin))
        elif isinstance(load, ThermalStore):
            total += value * _kelvin_hours(load, power, hours)
        else:
            off = _is_off(load, power)
            kwh = float(np.where(off, load.expected_w, 0.0) @ hours) / 1000
            total += load.eur_per_kwh * kwh + value * _against_rules_h(load, off, hours)
    return total


# Blocks


def _starts(problem: PlanProblem, block: ShiftableBlock) -> list[int]:
    hours = problem.hours
    clock = [float(hours[:t].sum()) for t in range(problem.slots + 1)]
    rest_h = len(block.profile_w) * block.step_s / 3600 - (block.running_h or 0.0)
    if block.running_h is not None:
        return [0]
    latest = clock[min(block.last_slot, problem.slots)]
    return [
        t
        for t in range(max(block.first_slot, 0), min(block.last_slot, problem.slots))
        if clock[t] + rest_h <= latest + SAME_H
    ]


def _runs(problem: PlanProblem, block: ShiftableBlock) -> Iterator[Series]:
    """No run at all, and each that is allowed, as mean power per slot."""
    yield np.zeros(problem.slots)
    hours = problem.hours
    clock = np.array([float(hours[:t].sum()) for t in range(problem.slots + 1)])
    step = block.step_s / 3600
    moments = step * np.arange(len(block.profile_w) + 1)
    drawn = np.concatenate([[0.0], np.cumsum(block.profile_w)]) * step
    for start in _starts(problem, block):
        running = np.maximum(clock - clock[start], 0.0) + (block.running_h or 0.0)
        yield np.diff(np.interp(running, moments, drawn)) / hours


def _off_by(power: Series, run: Series) -> float:
    return float(np.abs(power - run).max(initial=0.0))


# Stores


def _kelvin_hours(store: ThermalStore, power: Series, hours: Series) -> float:
    """Outside the band at the ends of the slots, where a slot's end is also the beginning of the next."""
    slots = power.shape[0]

    def at(values: Series | float, t: int) -> float:
        return float(values if np.ndim(values) == 0 else np.asarray(values)[t])

    temperature, total = store.now_c, 0.0
    for t in range(slots):
        moved = float(power[t]) * at(store.efficiency, t)
        heat = (-moved if store.cooling else moved) - at(store.draw_w, t)
        if store.loss_w_per_k > 0:
            settles_at = at(store.ambient_c, t) + heat / store.loss_w_per_k
            fades = float(np.exp(-hours[t] * store.loss_w_per_k / store.capacity_wh_per_k))
            temperature = settles_at + (temperature - settles_at) * fades
        else:
            temperature += heat * float(hours[t]) / store.capacity_wh_per_k
        slots_that_meet = range(t, min(t + 2, slots))
        too_cold = max(max(at(store.min_c, s) for s in slots_that_meet) - temperature, 0.0)
        too_warm = max(temperature - min(at(store.max_c, s) for s in slots_that_meet), 0.0)
        total += (too_cold + too_warm) * float(hours[t])
    return total


# Switches


def _is_off(switch: Switchable, power: Series) -> list[bool]:
    expected = np.broadcast_to(np.asarray(switch.expected_w, dtype=np.float64), power.shape)
    return [bool(e > IDLE_W and p < e - OFF_W) for p, e in zip(power, expected, strict=True)]


def _against_rules_h(switch: Switchable, off: list[bool], hours: Series) -> float:
    """Hours in which it is off although its rules say otherwise."""
    first = len(switch.before)
    states = [*switch.before, *off]
    lengths = [float(hours[0])] * first + [float(h) for h in hours]
    total = 0.0
    for t in range(first, len(states)):
        against = 1.0 if _off_too_long(switch, states, lengths, t) or _off_too_soon(switch, states, lengths, t) else 0.0
        total += max(against, _too_much_of_a_day(switch, states, lengths, t, first) / lengths[t]) * lengths[t]
    return total


def _off_too_long(switch: Switchable, states: list[bool], lengths: list[float], t: int) -> bool:
    run, back = 0.0, t
    while back >= 0 and states[back]:
        run += lengths[back]
        back -= 1
    return run > switch.longest_off_h + SAME_H


def _off_too_soon(switch: Switchable, states: list[bool], lengths: list[float], t: int) -> bool:
    """Off, although it came on again less than its rest ago."""
    since = 0.0
    for back in range(t - 1, 0, -1):
        since += lengths[back]
        if not states[t] or since >= switch.rest_h - SAME_H:
            return False
        if not states[back] and states[back - 1]:
            return True
    return False


def _too_much_of_a_day(switch: Switchable, states: list[bool], lengths: list[float], t: int, first: int) -> float:
    if switch.most_off_h_per_day >= 24:
        return 0.0
    span, back = 0.0, t
    before_h, since_h = 0.0, 0.0
    while back >= 0 and span + lengths[back] <= 24 + SAME_H:
        span += lengths[back]
        if states[back] and back < first:
            before_h += lengths[back]
        elif states[back]:
            since_h += lengths[back]
        back -= 1
    return max(since_h - max(switch.most_off_h_per_day - before_h, 0.0), 0.0)

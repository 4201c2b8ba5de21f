"""Which phases a car loads, seen at the meter above it, when its own station does not tell currents by phase.

Pure. Each time a car's limit takes a step while its neighbours are at rest, the phases it loads move with it at the
meter and the others do not. How likely each is grows with every step, against what the meter does when nobody moves:
with independent normal noise of variance v, a step of d amps that moved a phase by m speaks for “used” over “not
used” by (2·d·m − d²) / 2v (the logarithm of the likelihood ratio). Two steps at least, and 95 % for all three phases
together, before it is believed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from smartcharging.engine.grid import NOMINAL_V, Phases
from smartcharging.engine.vehicle import Used

SETTLES = timedelta(seconds=15)  # a car is at its new limit, and the meter has told of it
TELLING_STEP_A = 3.0
CONFIDENT = 0.95
FEWEST_STEPS = 2
FEWEST_RESTS = 4
LEAST_VARIANCE = 1.0  # A²: what meters and cars are off anyway
UNKNOWN_VARIANCE = 25.0  # before it is known how restless the meter is
FOLLOWS_WITHIN = 0.1  # a car takes its limit to within this share of the step
MOST_OF_ONE_STEP = 6.0  # a neighbour's kettle may move in the same moment: no step decides alone …
MOST = 12.0  # … and nothing is so sure that it could not be unlearnt
FORGETS = 0.2  # weight of a new rest in the variance
_NONE: Phases = (0.0, 0.0, 0.0)


@dataclass(frozen=True, slots=True)
class StepMemory:
    """`evidence` is the logarithm of the odds that each phase is used; `variance` what the meter does at rest [A²]."""

    meter_a: Phases | None = None  # at the last rest, with …
    offered_a: float | None = None  # … this limit
    power_w: float | None = None
    at: datetime | None = None
    variance: Phases = _NONE
    rests: int = 0
    evidence: Phases = _NONE
    steps: int = 0


def observe_step(
    memory: StepMemory,
    at: datetime,
    offered_a: float | None,
    settled: bool,
    meter_a: Phases | None,
    power_w: float | None = None,
) -> StepMemory:
    """Learn from the meter above. `settled`: this car and all others below that meter have stood by their limits for
    `SETTLES`. `power_w` is what the station says the car takes, if it says so: a step it did not follow tells nothing.
    """
    if offered_a is None or meter_a is None:
        return replace(memory, meter_a=None, offered_a=None, power_w=None, at=None)
    if offered_a == 0 and memory.steps:  # it may come back on other phases
        memory = replace(memory, evidence=_NONE, steps=0)
    if not settled:
        return memory
    here = replace(memory, meter_a=meter_a, offered_a=offered_a, power_w=power_w, at=at)
    if memory.meter_a is None or memory.offered_a is None or memory.at is None:
        return here
    passed = (at - memory.at) / SETTLES
    if passed < 1:
        return memory
    a, b, c = (now - then for now, then in zip(meter_a, memory.meter_a, strict=True))
    moved, step_a = (a, b, c), offered_a - memory.offered_a
    if passed > 4:  # too long ago to be the same rest
        return here
    if abs(step_a) < 0.05:
        return replace(here, variance=_calmer(memory, moved, passed), rests=memory.rests + 1)
    if abs(step_a) < TELLING_STEP_A or not _followed(memory, step_a, power_w):
        return here
    one, two, three = (
        _bounded(was + _speaks(step_a, moved[f], _variance(memory, f) * passed), MOST)
        for f, was in enumerate(memory.evidence)
    )
    return replace(here, evidence=(one, two, three), steps=memory.steps + 1)


def busy(memory: StepMemory) -> StepMemory:
    """Others move: what the meter shows now is not this car's doing."""
    return replace(memory, meter_a=None, offered_a=None, power_w=None, at=None)


def phases_shown(memory: StepMemory) -> Used | None:
    """The phases the car was seen to load; None as long as that is not sure."""
    if memory.steps < FEWEST_STEPS:
        return None
    sure = 1.0
    for e in memory.evidence:
        sure *= 1 / (1 + math.exp(-abs(e)))
    a, b, c = (e > 0 for e in memory.evidence)
    return (a, b, c) if sure >= CONFIDENT and (a or b or c) else None


def _calmer(memory: StepMemory, moved: Phases, passed: float) -> Phases:
    weight = max(FORGETS, 1 / (memory.rests + 1))
    a, b, c = (v + weight * (m * m / passed - v) for v, m in zip(memory.variance, moved, strict=True))
    return (a, b, c)


def _variance(memory: StepMemory, phase: int) -> float:
    if memory.rests < FEWEST_RESTS:
        return UNKNOWN_VARIANCE
    return max(memory.variance[phase], LEAST_VARIANCE)


def _followed(memory: StepMemory, step_a: float, power_w: float | None) -> bool:
    """Did the car take what it was given? On one phase at least; where nobody says, it is believed."""
    if power_w is None or memory.power_w is None:
        return True
    return (power_w - memory.power_w) / NOMINAL_V * math.copysign(1.0, step_a) >= 0.5 * abs(step_a)


def _speaks(step_a: float, moved_a: float, variance: float) -> float:
    spread = variance + (FOLLOWS_WITHIN * step_a) ** 2
    return _bounded((2 * step_a * moved_a - step_a * step_a) / (2 * spread), MOST_OF_ONE_STEP)


def _bounded(value: float, most: float) -> float:
    return min(max(value, -most), most)

"""Learn the phases of cars whose stations tell no currents by phase, from the nearest meter above them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING

from smartcharging.engine.grid import Grid, Phases, Supply
from smartcharging.engine.live.phase_steps import SETTLES, busy, observe_step
from smartcharging.engine.snapshot import NodeReading
from smartcharging.remember import phase_currents

if TYPE_CHECKING:
    from smartcharging.places import Place


def learn_steps(
    places: Iterable[Place], grid: Grid, readings: Mapping[int, NodeReading], now: datetime
) -> tuple[Place, ...]:
    """The places with what their meter's currents have taught; others below the same meter must be at rest."""
    listed = tuple(places)
    if grid.supply is Supply.IT:
        return listed  # what a line shows there is no sum of amps: a step of five may move it by four, or by two
    restless = {p.key: p.node for p in listed if p.memory.since is not None and now - p.memory.since < SETTLES}
    moving = Counter(n for node in restless.values() for n in grid.path(node))  # how many below each circuit
    out = []
    for place in listed:
        if place.dc or place.transaction is None or _tells_phases(place):
            out.append(place)
            continue
        node = _meter_above(place.node, grid, readings)
        steps = place.memory.steps
        if node is not None and moving[node] > (place.key in restless):
            steps = busy(steps)
        else:
            meter_a = _currents(readings, node)
            power_w = place.measured.power_w if place.measured is not None else None
            steps = observe_step(steps, now, place.memory.offered_a, place.key not in restless, meter_a, power_w)
        out.append(replace(place, memory=replace(place.memory, steps=steps)))
    return tuple(out)


def _tells_phases(place: Place) -> bool:
    return phase_currents(place.measured) is not None


def _meter_above(node: int, grid: Grid, readings: Mapping[int, NodeReading]) -> int | None:
    """The nearest circuit on the way up that has a meter, silent or not."""
    return next((n for n in grid.path(node) if n in readings), None)


def _currents(readings: Mapping[int, NodeReading], node: int | None) -> Phases | None:
    return None if node is None else readings[node].current_a

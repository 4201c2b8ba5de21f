"""What a policy is told, and what it answers. Nothing here knows when a car will really leave."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from smartcharging.engine.plan.problem import Series
from smartcharging.replay.days import Day
from smartcharging.replay.site import Floats, Site

Flags = NDArray[np.bool_]


@dataclass(frozen=True)
class Moment:
    """The site as it can be seen now; one entry per socket. Power in W, load-positive (`pv_w` too: ≤ 0).

    `phases` are those the car there loads, as its record says; of a free socket all that are wired. A measurement is
    NaN where none has come for a while. `came` counts the cars that have stood at each socket.
    """

    site: Site
    now: datetime
    second: int
    here: Flags
    came: NDArray[np.intp]
    need_wh: Floats
    arrived_s: Floats
    stated_s: Floats
    priority: NDArray[np.intp]
    phases: Flags
    max_a: Floats
    offered_a: Floats
    before_a: Floats
    since_s: Floats
    lease_s: Floats
    on_since_s: Floats
    off_since_s: Floats
    measured_a: Floats  # axes socket, phase
    measured_s: Floats
    reachable: Flags
    building_w: float  # uncontrolled at the connection, as the meter there has it less everything that is ours
    pv_w: float
    node_a: Floats  # net current of each circuit: L1, L2, L3
    silent: frozenset[int]  # circuits whose meter says nothing
    soc: float
    battery_w: float
    quarter_import_wh: float
    month_peak_w: float
    changed: bool  # somebody came or left since the last moment
    begins: bool  # the first moment of a step: what follows in the same second is how the answer settles

    @property
    def max_w(self) -> Floats:
        return np.asarray(self.max_a * self.phases.sum(axis=1) * 230.0)

    @property
    def uses(self) -> Floats:
        """What one amp loads: L1, L2, L3 and all together."""
        lines = self.phases.astype(float)
        return np.column_stack((lines, lines.sum(axis=1)))


@dataclass(frozen=True)
class Orders:
    """Amps per phase for each socket. `battery_w` None: the battery serves the connection by itself, taking what
    would be exported and giving what would be imported."""

    limit_a: Floats
    battery_w: float | None = None
    settled: bool = True  # nothing would change if it were asked again at once


class Policy(Protocol):
    """One way of sharing, for one replay: it may remember."""

    name: str
    plan_s: list[float]  # seconds each plan took, where there are plans

    def decide(self, moment: Moment) -> Orders: ...


@dataclass(frozen=True)
class Known:
    """What a policy may know beforehand: prices, and what `outlook.py` lets through."""

    day: Day
    expected: Callable[[int], tuple[Floats, Floats]]
    clock: Callable[[], float] | None = None

    @property
    def buy_eur_per_kwh(self) -> Series:
        return self.day.buy_eur_per_kwh

    @property
    def sell_eur_per_kwh(self) -> Series:
        return self.day.sell_eur_per_kwh


@dataclass(frozen=True)
class Lived:
    """What came of a day: per slot at the connection, per visit at the meter."""

    import_wh: Series  # net of each slot, above zero
    export_wh: Series
    pv_wh: Series  # what the sun allowed
    held_back_wh: Series  # … and what of it was not made
    battery_wh: float  # through the battery, both ways
    stored_wh: float  # more than at the start
    delivered_wh: Series
    switches: NDArray[np.intp]  # how often each visit's charging began or ended
    over_node_s: float = 0.0  # node-seconds above a limit that were ours
    over_steps: int = 0  # node-steps, likewise
    worst_over_a: float = 0.0
    plan_s: tuple[float, ...] = ()
    cpu_s: float = 0.0
    seen: Mapping[str, Floats] = field(default_factory=dict)  # by the step, for tests and pictures

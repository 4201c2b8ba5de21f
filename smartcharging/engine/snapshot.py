"""A frozen picture of a site at one moment: everything the engine is told, nothing it has to ask.

Pure. `gather.py` paints it in the cloud, the site controller paints it on site, tests paint it by hand.
Units: A per phase, W, Wh; load-positive; `None` is unknown and never zero.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import NamedTuple

from smartcharging.engine.carried import Carried
from smartcharging.engine.grid import Grid, Phases


class Mode(StrEnum):
    PLAN = "plan"
    FAST = "fast"
    SURPLUS = "surplus"


@dataclass(frozen=True, slots=True)
class Session:
    """One EVSE that may draw current now, with the car on it if there is one.

    `phases` marks the grid phases the car can load (wiring undone, phase use learnt): (True, False, False) is a
    single-phase car on L1. For DC the AC input loads all three phases evenly: the limit is then `current × 3 × 230 V`.
    `wants` is False when nothing is plugged or the car is full: it then gets nothing, but may be offered a standby.
    """

    key: str  # the EVSE's database key as text
    node: int  # index into the grid
    phases: tuple[bool, bool, bool]
    max_a: float
    min_a: float = 6.0
    dc: bool = False
    max_w: float | None = None
    step_a: float = 0.1  # the charger's resolution
    wants: bool = True
    reachable: bool = True  # a gateway holds its socket
    offered_a: float | None = None  # the limit the station last accepted, per phase
    offered_since: datetime | None = None
    lease_until: datetime | None = None
    fail_safe_a: float = 6.0  # what it allows itself when the lease ends
    measured_a: Phases | None = None  # on grid phases
    measured_at: datetime | None = None
    priority: int = 1  # place and user profile together; higher goes first
    mode: Mode = Mode.PLAN
    arrived_at: datetime | None = None
    departure: datetime | None = None
    energy_needed_wh: float | None = None  # still to be charged, at the AC input; None means as much as possible
    planned_w: float | None = None  # of the plan's present slot; None means no valid plan
    on_since: datetime | None = None
    off_since: datetime | None = None
    group: int | None = None  # EVSEs of one station share `group_max_a`, per phase
    group_max_a: float | None = None
    offered_before_a: float | None = None  # the limit before the present one: the car may still be on its way down
    isolated_a: float | None = None  # it follows no limit: whatever it is told, it may take this much per phase

    @property
    def phase_count(self) -> int:
        return sum(self.phases)


@dataclass(frozen=True, slots=True)
class NodeReading:
    """What the meter at a node says: net current per phase, signed, and its age judged by the painter.

    `current_a` None: the meter is stale, absent or suspect. `power_w` is the net active power.
    """

    current_a: Phases | None
    power_w: float | None = None
    at: datetime | None = None


@dataclass(frozen=True, slots=True)
class BatteryState:
    """A stationary battery, at which node, and what it may do now. Power positive = charging."""

    key: str
    node: int
    soc: float | None
    capacity_wh: float
    max_charge_w: float
    max_discharge_w: float
    min_soc: float = 0.1
    max_soc: float = 1.0
    efficiency: float = 0.95  # one way
    power_w: float | None = None  # measured
    planned_w: float | None = None
    wear_eur_per_kwh: float = 0.02
    phases: tuple[bool, bool, bool] = (True, True, True)  # it loads these evenly


@dataclass(frozen=True, slots=True)
class Narrowing:
    """A limit somebody puts on a node (or on one EVSE): fire, grid operator, contract peak, an operator's hand.

    Each may narrow what the next may have; none may widen it (`engine/limits.py`).
    """

    rank: int
    reason: str
    node: int | None = None  # a node of the grid, or …
    session: str | None = None  # … one EVSE
    limit_a: float | None = None  # per phase
    limit_w: float | None = None
    export_limit_w: float | None = None
    starts_at: datetime | None = None  # it holds from then …
    ends_at: datetime | None = None  # … until then: several of one place make a limit that changes with the hour

    def in_force(self, now: datetime) -> bool:
        return (self.starts_at is None or self.starts_at <= now) and (self.ends_at is None or now < self.ends_at)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The site now. `readings` maps node index → meter.

    `background_a` are known loads directly below a node that has no meter of its own; nobody adds them where a meter
    already counts them. `pv_a` says at which node the sun feeds in, and how much (negative, per phase): circuits
    may not count on it. When only `pv_w` is known, it is taken to feed in at the grid connection, evenly. Of a place
    where one of them is silent neither has a number.
    """

    now: datetime
    grid: Grid
    sessions: tuple[Session, ...]
    readings: Mapping[int, NodeReading] = field(default_factory=dict)
    batteries: tuple[BatteryState, ...] = ()
    narrowings: tuple[Narrowing, ...] = ()
    pv_w: float | None = None  # measured; negative = producing
    plan_valid: bool = False
    # in-quarter peak control at the grid connection
    peak_target_w: float | None = None
    quarter_import_wh: float | None = None  # imported so far in this clock quarter
    background_a: Mapping[int, Phases] = field(default_factory=dict)
    pv_a: Mapping[int, Phases] = field(default_factory=dict)
    carried: Carried | None = None  # what the answer before this one asked to be told again


class Share(NamedTuple):
    """What one EVSE may take now: amps per phase (AC and DC alike, at the AC input) and why not more.

    A tuple, because there may be thousands of them every second.
    """

    key: str
    limit_a: float
    limit_w: float | None  # set for DC: what is sent
    reason: str  # one of the codes of engine/limits.py, with the node: "limit:row 1:L2"
    urgent: bool = False
    circuit: str = ""  # where it is held back, when a place in the tree does it …
    phase: str = ""  # … and on which of L1, L2, L3, or W for all together


@dataclass(frozen=True, slots=True)
class AtCircuit:
    """What the answer means at one circuit: what its cars are told to take together, and what is then left."""

    current_a: Phases
    load_a: Phases
    headroom_a: Phases
    reason: str


@dataclass(frozen=True, slots=True)
class Allocation:
    """The engine's answer for this moment. Tables per circuit are keyed by its index in the grid."""

    shares: Mapping[str, Share]
    battery_w: Mapping[str, float] = field(default_factory=dict)
    load_a: Mapping[int, Phases] = field(default_factory=dict)  # expected at each node, worst case
    headroom_a: Mapping[int, Phases] = field(default_factory=dict)
    node_reason: Mapping[int, str] = field(default_factory=dict)
    told_a: Mapping[int, Phases] = field(default_factory=dict)  # the shares below each node, added up
    circuits: tuple[str, ...] = ()
    carried: Carried | None = None  # to be told again in the next cycle

    def at(self, name: str) -> AtCircuit:
        """The answer at a circuit, by name (`row_1` finds “row 1”). Raises `KeyError` when there is none."""
        for n, circuit in enumerate(self.circuits):
            if circuit in (name, name.replace("_", " ")):
                return AtCircuit(self.told_a[n], self.load_a[n], self.headroom_a[n], self.node_reason[n])
        raise KeyError(name)

"""A site of the seeded family: sockets below stations, feeders, boards and halls, a building, PV and one battery.

The site is the same on all its days, as a real one is: a socket of the depot stays one. Limits are per phase, for
single-phase sockets hang on one phase each. `Level` says how much of it there is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from smartcharging.engine.grid import NOMINAL_V, Circuit, Grid
from smartcharging.engine.snapshot import BatteryState

Floats = NDArray[np.float64]
ALL = (True, True, True)
PER_LEVEL = (2, 4, 3, 3)  # sockets per station, stations per feeder, feeders per board, boards per hall
CARRIES = (0.9, 0.5, 0.8, 0.85)  # how much of what is below a level its circuit carries
NAMES = ("station", "feeder", "board", "hall")
SOCKETS = ((16.0, False), (32.0, False), (16.0, True), (32.0, True))  # amps, and whether on three phases
SHARES = (0.1, 0.2, 0.55, 0.15)
DEPOT_SHARE = 0.3
GOAL_EUR_PER_KWH = {0: 0.8, 1: 1.5, 2: 3.0}
BUILDING_KW = 0.9  # per socket, at noon
BUILDING_WORST = 1.2  # commissioned, as a multiple of that
FUSE = 1.25  # of the connection, as a multiple of the contract
CAR_ROOM_KW = 0.9  # of the connection, per socket, above the building


class Level(StrEnum):
    NORMAL = "normal"
    CONGESTED = "congested"
    PV_RICH = "pv-rich"

    @property
    def limits(self) -> float:
        return 0.5 if self is Level.CONGESTED else 1.0

    @property
    def pv(self) -> float:
        return 2.5 if self is Level.PV_RICH else 1.0


@dataclass(frozen=True)
class Socket:
    """Where one car can stand. `usual_h` is the hour at which people who use it tend to come."""

    key: str
    node: int
    phases: tuple[bool, bool, bool]
    max_a: float
    depot: bool = False
    usual_h: float = 8.25
    min_a: float = 6.0
    fail_safe_a: float = 6.0

    @property
    def max_w(self) -> float:
        return self.max_a * sum(self.phases) * NOMINAL_V


@dataclass(frozen=True)
class Site:
    """What does not change from day to day. `value_eur_per_kwh`: what a kWh short costs, by priority class."""

    name: str
    grid: Grid
    sockets: tuple[Socket, ...]
    battery: BatteryState | None
    month_peak_w: float
    peak_eur_per_kw: float
    export_limit_w: float
    pv_peak_w: float
    value_eur_per_kwh: Mapping[int, float]

    @cached_property
    def limit_a(self) -> Floats:
        """Axes circuit; L1, L2, L3 and all together in units of 230 V."""
        watts = [np.inf if c.limit_w is None else c.limit_w / NOMINAL_V for c in self.grid.circuits]
        return np.column_stack((np.array([c.limit_a for c in self.grid.circuits]), np.array(watts)))

    @cached_property
    def parents(self) -> NDArray[np.intp]:
        return np.array([-1 if c.parent is None else c.parent for c in self.grid.circuits], dtype=np.intp)

    @cached_property
    def nodes(self) -> NDArray[np.intp]:
        return np.array([s.node for s in self.sockets], dtype=np.intp)

    @cached_property
    def paths(self) -> tuple[NDArray[np.intp], ...]:
        """The circuits above each socket, its own first."""
        return tuple(np.array(list(self.grid.path(s.node)), dtype=np.intp) for s in self.sockets)

    def summed(self, of_sockets: Floats) -> Floats:
        """What the sockets below each circuit carry together: axes circuit, column."""
        table = np.zeros((len(self.grid), of_sockets.shape[1]))
        np.add.at(table, self.nodes, of_sockets)
        for n in range(len(self.grid) - 1, 0, -1):
            table[self.parents[n]] += table[n]
        return table


def synthetic(sockets: int, level: Level, seed: int = 1) -> Site:
    """The site with so many sockets. The same seed always gives the same site, at every level the same sockets."""
    rng = np.random.default_rng([seed, sockets, 77])
    kind = rng.choice(len(SOCKETS), size=sockets, p=SHARES)
    depot = rng.random(sockets) < DEPOT_SHARE
    usual_h = np.where(depot, rng.normal(17.75, 1.0, sockets), rng.normal(8.25, 0.9, sockets))
    max_a = np.array([SOCKETS[k][0] for k in kind])
    phases = [ALL if SOCKETS[k][1] else (i % 3 == 0, i % 3 == 1, i % 3 == 2) for i, k in enumerate(kind)]
    circuits, leaf = tree(max_a, np.array(phases, dtype=float), level.limits)
    whole_w = 1000.0 * sockets
    building_w = BUILDING_KW * BUILDING_WORST * whole_w
    most_w = building_w + CAR_ROOM_KW * whole_w * level.limits
    worst_a = building_w / (3 * NOMINAL_V)
    root = Circuit(
        "connection",
        None,
        (most_w / (3 * NOMINAL_V) * FUSE,) * 3,
        limit_w=most_w,
        export_limit_w=1.2 * whole_w,
        metered=True,
        worst_a=(worst_a, worst_a, worst_a),
    )
    return Site(
        name=f"synthetic, {sockets} sockets, {level}",
        grid=Grid((root, *circuits)),
        sockets=tuple(
            Socket(f"{i + 1}", int(leaf[i]), phases[i], float(max_a[i]), bool(depot[i]), float(usual_h[i]))
            for i in range(sockets)
        ),
        battery=BatteryState(
            key="battery",
            node=0,
            soc=0.4,
            capacity_wh=whole_w,
            max_charge_w=0.4 * whole_w,
            max_discharge_w=0.4 * whole_w,
            min_soc=0.0,
        ),
        month_peak_w=whole_w,
        peak_eur_per_kw=4.5,
        export_limit_w=1.2 * whole_w,
        pv_peak_w=1.2 * whole_w * level.pv,
        value_eur_per_kwh=GOAL_EUR_PER_KWH,
    )


def tree(max_a: Floats, phases: Floats, scale: float) -> tuple[list[Circuit], NDArray[np.intp]]:
    """Circuits below the connection, halls first, and the circuit of each socket.

    A circuit has one fuse for three phases, as large as its fullest phase asks, and carries any one socket alone
    before the site's limits are scaled.
    """
    below, largest = max_a[:, None] * phases, max_a
    levels: list[tuple[Floats, NDArray[np.intp]]] = []
    for fan, share in zip(PER_LEVEL, CARRIES, strict=True):
        parent = np.arange(below.shape[0]) // fan
        summed = np.zeros((parent[-1] + 1, 3))
        np.add.at(summed, parent, below)
        most = np.zeros(parent[-1] + 1)
        np.maximum.at(most, parent, largest)
        limit = np.maximum(share * summed.max(axis=1), most)
        levels.append((limit * scale, parent))
        below, largest = np.minimum(share * summed, limit[:, None]), most
    circuits: list[Circuit] = []
    above = np.zeros(levels[-1][0].shape[0], dtype=np.intp)  # the parent of each circuit of this level
    for depth in range(len(levels) - 1, -1, -1):
        limit, members = levels[depth]
        first = 1 + len(circuits)
        for i, amps in enumerate(limit.tolist()):
            top = depth == len(levels) - 1
            circuits.append(
                Circuit(
                    f"{NAMES[depth]} {i + 1}",
                    int(above[i]),
                    (amps, amps, amps),
                    metered=top,
                    fallback_a=0.6 * amps if top else None,
                )
            )
        above = first + members
    return circuits, above

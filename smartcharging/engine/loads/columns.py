"""What may be decided about loads, as columns of the plan's program: where they stand, what they cost, their bounds.

Pure. kW, kWh, EUR, K.

    q  power of a load in a slot                 n  a block that does not run
    z  yes or no: a block starts with a slot, a heater is on in it, a switchable load is off in it
    h  temperature of a store at the end of a slot            k  kelvin below its band, then above it
    v  how far a switchable load is off in a slot against its own rules
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import scipy.sparse as sp

from smartcharging.engine.loads.kinds import ShiftableBlock, Switchable, ThermalStore, Warmth, most_w, run_w, starts
from smartcharging.engine.plan import rooms, worth
from smartcharging.engine.plan.problem import PlanProblem, Series
from smartcharging.engine.plan.rooms import Integers


@dataclass(frozen=True)
class LoadColumns:
    """The loads of one problem. Indexes are positions within a kind of column, not yet in the program."""

    problem: PlanProblem

    @cached_property
    def hours(self) -> Series:
        return self.problem.hours

    @property
    def slots(self) -> int:
        return self.problem.slots

    @cached_property
    def blocks(self) -> list[tuple[int, ShiftableBlock]]:
        return [(i, load) for i, load in enumerate(self.problem.loads) if isinstance(load, ShiftableBlock)]

    @cached_property
    def stores(self) -> list[tuple[int, ThermalStore]]:
        return [(i, load) for i, load in enumerate(self.problem.loads) if isinstance(load, ThermalStore)]

    @cached_property
    def switches(self) -> list[tuple[int, Switchable]]:
        return [(i, load) for i, load in enumerate(self.problem.loads) if isinstance(load, Switchable)]

    @cached_property
    def node(self) -> Integers:
        return np.array([load.node for load in self.problem.loads], dtype=np.int64)

    @cached_property
    def weight(self) -> Series:
        """How much of each kind of room one kW takes: axes load, kind."""
        return rooms.phase_weights([load.phases for load in self.problem.loads], self.problem.grid.supply)

    @cached_property
    def most_kw(self) -> Series:
        """Axes load, slot."""
        most = [most_w(load, self.hours) / 1000 for load in self.problem.loads]
        return np.array(most).reshape(-1, self.slots)

    @cached_property
    def starts(self) -> dict[int, Integers]:
        return {i: starts(block, self.hours) for i, block in self.blocks}

    @cached_property
    def runs(self) -> dict[int, sp.csr_matrix]:
        """Of each block the power of each of its starts: axes start, slot."""
        return {
            i: sp.csr_matrix(
                np.array([run_w(block, int(s), self.hours) / 1000 for s in self.starts[i]]).reshape(-1, self.slots)
            )
            for i, block in self.blocks
        }

    @cached_property
    def warmth(self) -> dict[int, Warmth]:
        return {i: Warmth.of(store, self.hours) for i, store in self.stores}

    @cached_property
    def yes(self) -> dict[int, slice]:
        """Of each load with yes-or-no the place of its columns z."""
        places: dict[int, slice] = {}
        position = 0
        for i, load in enumerate(self.problem.loads):
            if isinstance(load, ShiftableBlock):
                width = self.starts[i].shape[0]
            elif isinstance(load, Switchable) or load.on_off:
                width = self.slots
            else:
                continue
            places[i] = slice(position, position + width)
            position += width
        return places

    @cached_property
    def widths(self) -> dict[str, int]:
        return {
            "q": len(self.problem.loads) * self.slots,
            "n": len(self.blocks),
            "z": max((place.stop for place in self.yes.values()), default=0),
            "h": len(self.stores) * self.slots,
            "k": 2 * len(self.stores) * self.slots,
            "v": len(self.switches) * self.slots,
        }

    def reach_kw(self, nodes: int) -> Series:
        """What the loads at each circuit could take at most: axes circuit, kind, slot."""
        reach = np.zeros((nodes, rooms.KINDS, self.slots))
        np.add.at(reach, self.node, self.weight[:, :, None] * self.most_kw[:, None, :])
        return reach

    def power(self, load: int) -> Integers:
        """Its columns q."""
        return load * self.slots + np.arange(self.slots, dtype=np.int64)

    def store_columns(self, number: int) -> Integers:
        """Of the store with this number among the stores: its columns h, and its k below the band."""
        return number * self.slots + np.arange(self.slots, dtype=np.int64)

    @property
    def above(self) -> int:
        """How far behind its columns k below the band a store has those above it."""
        return len(self.stores) * self.slots

    # What it costs

    def softness(self, each: Series) -> dict[str, Series]:
        """EUR (or any measure) per unit of the promises that loads may break: `each` has one value per load."""
        kelvin = [each[i] * self.hours for i, _ in self.stores]
        return {
            "n": np.array([each[i] for i, _ in self.blocks]),
            "k": np.tile(np.concatenate([*kelvin, np.zeros(0)]), 2),
            "v": np.concatenate([*(each[i] * self.hours for i, _ in self.switches), np.zeros(0)]),
        }

    @cached_property
    def costs(self) -> dict[str, Series]:
        """Broken promises, energy not served, and the preference for an early run."""
        cost = self.softness(worth.load_values(self.problem))
        q, z = np.zeros((len(self.problem.loads), self.slots)), np.zeros(self.widths["z"])
        begin = (np.cumsum(self.hours) - self.hours) * 3600 / self.problem.slot_s
        early = self.problem.early_eur_per_kwh * begin * self.hours
        for i, _ in self.blocks:
            q[i] = early
        for i, switch in self.switches:
            z[self.yes[i]] = switch.eur_per_kwh * self.most_kw[i] * self.hours
        return {**cost, "q": q.ravel(), "z": z}

    @cached_property
    def bounds(self) -> dict[str, tuple[Series, Series]]:
        """Least and most of each kind of column that is not simply zero or more."""
        temperature = np.full(self.widths["h"], np.inf)
        yes = np.ones(self.widths["z"])
        for i, _ in self.switches:
            yes[self.yes[i]] = self.most_kw[i] > 0
        return {
            "q": (np.zeros(self.widths["q"]), self.most_kw.ravel()),
            "n": (np.zeros(len(self.blocks)), np.ones(len(self.blocks))),
            "z": (np.zeros(self.widths["z"]), yes),
            "h": (-temperature, temperature),
        }

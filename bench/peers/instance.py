"""A day as an adapter sees it, and how it is timed. Read by the peers' own Pythons: numpy and nothing of the product.

kW, kWh, EUR; one value per slot or per car. Load-positive: PV is negative, a charging battery positive.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np


@dataclass(frozen=True)
class Instance:
    """Cars are present in the slots [first, last). `limit_kw` of a circuit is infinite where it has none."""

    slot_h: float
    first: np.ndarray
    last: np.ndarray
    max_kw: np.ndarray
    energy_kwh: np.ndarray  # wanted in the car: `efficiency` of what is taken counts
    efficiency: np.ndarray
    value: np.ndarray  # EUR for each kWh short
    early: float  # EUR/kWh per slot: free energy is used at once
    circuit: np.ndarray  # of each car
    parent: np.ndarray  # of each circuit; -1 above the grid connection, which is circuit 0
    limit_kw: np.ndarray
    net_kw: np.ndarray  # building and PV
    buy: np.ndarray
    sell: np.ndarray
    import_kw: np.ndarray
    export_kw: np.ndarray
    month_peak_kw: float
    peak_price: float
    battery_charge_kw: float
    battery_discharge_kw: float
    battery_kwh: float
    battery_start_kwh: float
    battery_end_kwh: float  # at least
    battery_efficiency: float
    battery_wear: float

    @property
    def cars(self) -> int:
        return len(self.first)

    @property
    def slots(self) -> int:
        return len(self.net_kw)

    @property
    def present(self) -> np.ndarray:
        """Cars × slots."""
        slot = np.arange(self.slots)
        return (slot >= self.first[:, None]) & (slot < self.last[:, None])

    def tight(self) -> list[tuple[np.ndarray, float]]:
        """The cars below each circuit that cannot carry all of them at once, and what it carries."""
        below: dict[int, list[int]] = {}
        for car, circuit in enumerate(self.circuit.tolist()):
            while circuit >= 0:
                below.setdefault(circuit, []).append(car)
                circuit = int(self.parent[circuit])
        found = []
        for circuit, members in sorted(below.items()):
            limit = float(self.limit_kw[circuit])
            if self.max_kw[members].sum() > limit:
                found.append((np.array(members), limit))
        return found

    @classmethod
    def read(cls, path: Path) -> Instance:
        with np.load(path) as kept:
            return cls(**{f.name: kept[f.name] if kept[f.name].ndim else float(kept[f.name]) for f in fields(cls)})

    def write(self, path: Path) -> None:
        np.savez(path, **{f.name: getattr(self, f.name) for f in fields(self)})


@dataclass(frozen=True)
class Answer:
    """Cars × slots, and the battery's power."""

    cars_kw: np.ndarray
    battery_kw: np.ndarray


def serve(solve: Callable[[Instance], Answer], versions: str) -> None:
    """Answer the day in a folder, after a small one to warm up: `day.npz`, `warm.npz`; writes `answer.npz`.

    Each run builds, solves and reads out anew.
    """
    folder, runs = Path(sys.argv[1]), int(sys.argv[2])
    solve(Instance.read(folder / "warm.npz"))
    day = Instance.read(folder / "day.npz")
    seconds = []
    for _ in range(runs):
        began = time.perf_counter()
        answer = solve(day)
        seconds.append(time.perf_counter() - began)
    np.savez(
        folder / "answer.npz",
        seconds=np.array(seconds),
        cars_kw=answer.cars_kw,
        battery_kw=answer.battery_kw,
        versions=versions,
    )

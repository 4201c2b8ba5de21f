"""Rows of a linear program as triplets: what every constraint function returns.

Pure.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from smartcharging.engine.plan.problem import Series
from smartcharging.engine.plan.rooms import Integers


@dataclass(frozen=True)
class Rows:
    """Sparse rows `matrix · columns ≤ rhs` (or `=`), as triplets, each row with its slot and what it is called."""

    name: str
    row: Integers
    column: Integers
    value: Series
    rhs: Series
    slot: Integers
    label: tuple[str, ...] = ()  # one per distinct constraint …
    label_of: Integers | None = None  # … and which of them each row is; None: all are `name`
    equal: bool = False
    soft: bool = False  # may be broken at a price: no limit

    @property
    def count(self) -> int:
        return int(self.rhs.shape[0])


def stack(
    *parts: tuple[Integers | NDArray[np.intp], Integers | int, Series | float],
) -> tuple[Integers, Integers, Series]:
    """Triplets of several (rows, columns, values) parts; a single column or value stands for all rows of its part."""
    row = np.concatenate([np.asarray(r, dtype=np.int64) for r, _, _ in parts])
    column = np.concatenate([np.broadcast_to(np.asarray(c, dtype=np.int64), np.shape(r)) for r, c, _ in parts])
    value = np.concatenate([np.broadcast_to(np.asarray(v, dtype=np.float64), np.shape(r)) for r, _, v in parts])
    return row, column, value

"""Who gets what he needs when it does not fit for all: a walk from the most urgent car to the least.

Pure. Only the rows (node and column) that cannot hold all candidates are walked; where everybody fits there is nothing
to decide. A walk is plain numbers in lists, for it asks for one number at a time.
"""

from __future__ import annotations

import numpy as np

from smartcharging.engine.live.filling import EPS
from smartcharging.engine.live.fleet import KINDS, Fleet
from smartcharging.engine.live.tree import Floats, least_of
from smartcharging.engine.priorities import Flags

Place = tuple[int, int]
"""A node and a column."""


def admit(
    fleet: Fleet,
    candidates: Flags,
    need_a: Floats,
    room: Floats,
    beyond: Floats | None = None,
    least_a: Floats | None = None,
) -> tuple[Flags, Floats, dict[int, Place | None]]:
    """Who of the candidates gets `need_a`, most urgent first; the room left; and where it did not fit for whom.

    For cars on one phase each the feasible sets are laminar and the walk is optimal; with mixed phases it is the
    lexicographic choice. `beyond` says by how much a car within its minimum time on may exceed a cell of `room`: as far
    as the limit that stands behind a mere wish. `least_a` is what is kept free all the same for one that does not get
    what he needs, so that nobody less urgent takes it; of him no place is told.
    """
    need = np.where(candidates, need_a, 0.0)
    demand = fleet.tree.sums(need[:, None] * fleet.uses)
    tight = demand > room + EPS
    if not tight.any():
        return candidates.copy(), room - demand, {}
    admitted = candidates.copy()
    concerned = candidates & loading(fleet, tight)
    blocked: dict[int, Place | None] = {}
    rows, space, needs = RowsOf(fleet, tight), room.ravel().tolist(), need.tolist()
    more = None if beyond is None else beyond.ravel().tolist()
    least = None if least_a is None else least_a.tolist()
    starting = fleet.fresh_start.tolist()
    walk = fleet.order[concerned[fleet.order]].tolist()
    for i, mine in zip(walk, rows.of(walk), strict=True):
        wanted = needs[i]
        full = [row for row, times in mine if space[row] < wanted * times - EPS]
        if full and starting[i] and more is not None:
            times_of = dict(mine)
            full = [row for row in full if space[row] + more[row] < wanted * times_of[row] - EPS]
        if full:
            admitted[i] = False
            blocked[i] = rows.place(full[0])
            if least is None or any(space[row] < least[i] * times - EPS for row, times in mine):
                continue
            wanted, blocked[i] = least[i], None
        for row, times in mine:
            space[row] -= wanted * times
    taken = np.where(admitted, need, 0.0)
    return admitted, room - fleet.tree.sums(taken[:, None] * fleet.uses), blocked


def loading(fleet: Fleet, cells: Flags) -> Flags:
    """The cars that load one of these cells of a table of all nodes."""
    marks = fleet.tree.on_the_way(np.where(cells, -1.0, 0.0))
    return np.asarray(least_of(np.where(fleet.uses > 0, marks, 0.0)) < 0)


class RowsOf:
    """The rows out of a chosen set that a car loads, and how often, nearest first. A row is told as its place in the
    flattened table.

    They are the same for all cars that load the same phases below the same nearest node with a chosen row.
    """

    def __init__(self, fleet: Fleet, chosen: Flags) -> None:
        self._fleet, self._width = fleet, fleet.columns
        self._nearest = fleet.tree.nearest_above(np.asarray(chosen.any(axis=1)))
        self._columns: dict[int, list[int]] = {}  # the chosen columns of each node that has any
        for n, c in np.argwhere(chosen).tolist():
            self._columns.setdefault(n, []).append(c)

    def of(self, cars: list[int]) -> list[list[tuple[int, float]]]:
        """For each of these cars."""
        fleet, known = self._fleet, dict[int, list[tuple[int, float]]]()
        kinds = (self._nearest[fleet.tree.at[cars]] * KINDS + fleet.phases[cars]).tolist()
        for car, kind in zip(cars, kinds, strict=True):
            if kind not in known:
                known[kind] = self._from(kind // KINDS, fleet.uses[car].tolist())
        return [known[kind] for kind in kinds]

    def place(self, row: int) -> Place:
        return divmod(row, self._width)

    def _from(self, node: int, uses: list[float]) -> list[tuple[int, float]]:
        return [
            (n * self._width + c, uses[c])
            for n in self._fleet.tree.path(node)
            for c in self._columns.get(n, ())
            if uses[c] > 0
        ]

"""The network through which a site's power reaches its cars: classes, cars, circuits and slots as vertices and arcs.

Pure. For a fixed power of all cars together in each slot, who gets it is a question of flow: a class hands its cars
their need, a need leaves its car through the slots of its window, climbs the circuits (each with its room in that
slot) and ends in the site's power of the slot. `flow.py` sends flows through it.

What flows is energy at the meter, in whole numbers of a small unit: a limit is worth its power times the slot's hours.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from smartcharging.engine.plan import rooms
from smartcharging.engine.plan.constraints import TOLERANCE_KW
from smartcharging.engine.plan.problem import Series
from smartcharging.engine.plan.program import Program
from smartcharging.engine.plan.rooms import Integers
from smartcharging.engine.plan.upward import Upward

LARGEST = 2**29  # units in all, where a car may count three times; the solver counts in 32 bits
FINEST_KWH = 1e-7
SOURCE = 0
Mask = NDArray[np.bool_]
Whole = NDArray[np.int32]


class Network:
    """The classes, cars, circuits and slots of one program. Built once; flows are asked of it again and again."""

    def __init__(self, program: Program, rank: Integers) -> None:
        """`rank` is each car's class; 0 is the dearest."""
        self.program = program
        self.rank = rank
        self.classes = int(rank.max(initial=0)) + 1
        self.need_kwh = np.where(program.efficiency > 0, program.wanted_kwh / program.efficiency, 0.0)
        self.unit_kwh = max(FINEST_KWH, float(self.need_kwh.sum()) / LARGEST)
        self._vertices()
        self._arcs()
        self._order()

    def _vertices(self) -> None:
        program = self.program
        needed = program.sum_needed.copy()
        needed[0] = False  # the site itself is the end of every way
        self.circuit, self.circuit_slot = np.nonzero(needed)
        self._first_session = 1 + self.classes
        self._first_circuit = self._first_session + program.count
        number = np.full(needed.shape, -1, dtype=np.int64)
        number[self.circuit, self.circuit_slot] = self._first_circuit + np.arange(self.circuit.shape[0])
        self.group, self.group_slot, of_group = _tight_groups(program)
        self._first_group = self._first_circuit + self.circuit.shape[0]
        self._first_slot = self._first_group + self.group.shape[0]
        self.sink = self._first_slot + program.slots
        number[0] = self._first_slot + program.t
        self._of_group = of_group
        self._number = number

    def _arcs(self) -> None:
        program = self.program
        count, cells = program.count, program.session.shape[0]
        nearest = _nearest(self._number, program.upward)
        into = nearest[program.node[program.session], program.slot]
        ends, group_into = into, np.zeros(self.group.shape[0], dtype=np.int64)
        if self.group.size:
            through = self._of_group >= 0
            group_into[self._of_group[through]] = into[through]
            ends = np.where(through, self._first_group + self._of_group, into)
        above = np.array([c.parent or 0 for c in program.problem.grid.circuits], dtype=np.int64)
        circuit_into = nearest[above[self.circuit], self.circuit_slot]
        self._depth = rooms.depths(program.problem.grid)[self.circuit]
        begin = 0
        self.arcs: dict[str, slice] = {}
        for name, size in (
            ("class", self.classes),
            ("session", count),
            ("cell", cells),
            ("group", self.group.shape[0]),
            ("circuit", self.circuit.shape[0]),
            ("slot", program.slots),
        ):
            self.arcs[name] = slice(begin, begin + size)
            begin += size
        cars = self._first_session + np.arange(count)
        self.tail = np.concatenate(
            [
                np.full(self.classes, SOURCE),
                1 + self.rank,
                self._first_session + program.session,
                self._first_group + np.arange(self.group.shape[0]),
                self._first_circuit + np.arange(self.circuit.shape[0]),
                self._first_slot + program.t,
            ]
        )
        self.head = np.concatenate(
            [1 + np.arange(self.classes), cars, ends, group_into, circuit_into, np.full(program.slots, self.sink)]
        )
        room = np.maximum(program.sum_room[self.circuit, self.circuit_slot], 0.0)
        self._passing_slot = np.concatenate([program.slot, self.group_slot, self.circuit_slot])
        self._cell_kw = _own_way_kw(program)
        self._passes_kwh = self._kwh(self._cell_kw, program.stations.sure_kw[self.group], room)
        self.capacity = self._capacity(self._passes_kwh, np.ones(count))

    def _kwh(self, cell_kw: Series, group_kw: Series, circuit_kw: Series) -> Series:
        passes_kw = np.concatenate([cell_kw, group_kw, circuit_kw])
        return np.asarray(passes_kw * self.program.hours[self._passing_slot], dtype=np.float64)

    def _capacity(self, passes_kwh: Series, weight: Series) -> Whole:
        """Of all arcs, when cells, stations and circuits let this through; nothing is offered yet."""
        # A need is rounded up: `Flow.served` takes off what is too much.
        needs = np.ceil(weight * self.need_kwh / self.unit_kwh - 1e-6).astype(np.int32)
        of_class = np.bincount(self.rank, needs, minlength=self.classes).astype(np.int32)
        nothing = np.zeros(self.program.slots, dtype=np.int32)
        return np.concatenate([of_class, needs, self.whole(passes_kwh), nothing])

    def weighing(self, weight: Series, group_kw: Series, room_kw: Series) -> Whole:
        """The capacities where each car counts for so much, and each station and circuit (circuit, slot) has this
        room."""
        cell_kw = self._cell_kw * weight[self.program.session]
        room = np.maximum(room_kw[self.circuit, self.circuit_slot], 0.0)
        return self._capacity(self._kwh(cell_kw, np.maximum(group_kw, 0.0), room), weight)

    def _order(self) -> None:
        """Where each arc, and the way back along it, stands in the solver's matrix."""
        arcs, size = self.tail.shape[0], self.sink + 1
        tail, head = self.tail.astype(np.int32), self.head.astype(np.int32)
        vertices = np.concatenate([tail, head]), np.concatenate([head, tail])
        order = sp.coo_array((np.arange(2 * arcs, dtype=np.int32), vertices), shape=(size, size)).tocsr()
        order.sort_indices()
        place = np.empty(2 * arcs, dtype=np.int32)
        place[order.data] = np.arange(2 * arcs, dtype=np.int32)
        self.forward, self.backward = place[:arcs], place[arcs:]
        self._indices, self._indptr = order.indices, order.indptr
        self.mirror = np.empty(2 * arcs, dtype=np.int32)  # where the way back stands
        self.mirror[self.forward], self.mirror[self.backward] = self.backward, self.forward

    @cached_property
    def giving_way(self) -> Integers:
        """Cells slot by slot, the cheapest class first: in this order they give way."""
        return np.lexsort((-self.rank[self.program.session], self.program.slot))

    @cached_property
    def group_kw(self) -> Series:
        """What each station in its slot carries on a phase."""
        return self.program.stations.most_kw[self.group]

    def whole(self, kwh: Series) -> Whole:
        """In whole units, never more than was given."""
        return np.minimum(np.floor(np.asarray(kwh) / self.unit_kwh + 1e-6), LARGEST).astype(np.int32)

    @property
    def rounding_kwh(self) -> float:
        """What whole units can hide of all needs and slots together."""
        return self.unit_kwh * (self.program.count + self.program.slots)

    def climb(self, cells: Integers) -> dict[str, Integers]:
        """What each station, circuit and slot carries when the cells take this."""
        arcs, vertices = self.arcs, self.sink + 1
        carried = np.bincount(self.head[arcs["cell"]], cells, minlength=vertices)
        if self.group.size:
            stations = carried[self._first_group : self._first_slot]
            carried += np.bincount(self.head[arcs["group"]], stations, minlength=vertices)
        heads = self.head[arcs["circuit"]]
        for depth in range(int(self._depth.max(initial=0)), 0, -1):
            here = np.flatnonzero(self._depth == depth)
            carried += np.bincount(heads[here], carried[self._first_circuit + here], minlength=vertices)
        return {
            "group": carried[self._first_group : self._first_slot].astype(np.int64),
            "circuit": carried[self._first_circuit : self._first_group].astype(np.int64),
            "slot": carried[self._first_slot : self.sink].astype(np.int64),
        }

    def matrix(self, data: Whole) -> sp.csr_array:
        """All arcs with these capacities, in the solver's order; zeros are arcs too."""
        graph = sp.csr_array((self.sink + 1, self.sink + 1), dtype=np.int32)
        graph.data, graph.indices, graph.indptr = data, self._indices, self._indptr
        graph.has_sorted_indices = True
        return graph

    def open_arcs(self, data: Whole) -> sp.csr_array:
        """The arcs that still let something through."""
        some = data > 0
        before = np.concatenate([[0], np.cumsum(some)]).astype(np.int32)
        return sp.csr_array((data[some], self._indices[some], before[self._indptr]), shape=(self.sink + 1,) * 2)

    def groups_of(self, cells: Integers) -> Integers:
        """The station in its slot that each of these cells passes, -1 where none can bind."""
        return self._of_group[cells]

    def ends_of(self, reached: Mask) -> tuple[Mask, Mask]:
        """The sessions and slots among the vertices of a mask."""
        return reached[self._first_session : self._first_circuit], reached[self._first_slot : self.sink]

    def through_kwh(self, reached: Mask) -> Series:
        """What cells, stations and circuits let out of this set of vertices, per slot."""
        passing = slice(self.arcs["cell"].start, self.arcs["slot"].start)
        crossing = np.flatnonzero(reached[self.tail[passing]] & ~reached[self.head[passing]])
        slot = self._passing_slot[crossing]
        return np.bincount(slot, self._passes_kwh[crossing], minlength=self.program.slots).astype(np.float64)


def _own_way_kw(program: Program) -> Series:
    """What each cell may take by itself: a car that does not load all phases alike, no more than its own phases let."""
    most = program.cell_max_kw.copy()
    cells = np.flatnonzero((program.weight != 1).any(axis=1)[program.session])
    if cells.size:
        weight = program.weight[program.session[cells]]
        for level in rooms.ancestors(program.problem.grid)[:-1]:  # the connection has a battery to help it
            above = level[program.node[program.session[cells]]]
            room = np.maximum(program.room[np.maximum(above, 0), :, program.slot[cells]], 0.0)
            least = np.where(weight > 0, room / np.maximum(weight, 1e-9), np.inf).min(axis=1)
            inside = (above > 0) & ~program.on_battery_path[above]
            most[cells] = np.where(inside, np.minimum(most[cells], least), most[cells])
        station = program.stations.of_session[program.session[cells]]
        inside = station >= 0
        most[cells[inside]] = np.minimum(
            most[cells[inside]], program.stations.most_kw[station[inside]] / weight[inside].max(axis=1)
        )
    return most


def _nearest(number: Integers, upward: Upward) -> Integers:
    """The vertex of each circuit and slot, or where it has none the first on the way up."""
    found = number.copy()
    for level in reversed(upward):
        own, above = found[level.nodes], found[level.parents]
        found[level.nodes] = np.where(own < 0, above, own)
    return found


def _tight_groups(program: Program) -> tuple[Integers, Integers, Integers]:
    """Stations whose own inlet can bind, per slot: station, slot, and for each cell which of them it passes."""
    stations, slots = program.stations, program.slots
    of_cell = np.full(program.session.shape[0], -1, dtype=np.int64)
    station = stations.of_session[program.session]
    inside = np.flatnonzero(station >= 0)
    if not inside.size:
        none = np.zeros(0, dtype=np.int64)
        return none, none, of_cell
    key, count = station[inside] * slots + program.slot[inside], stations.most_kw.shape[0] * slots
    could = stations.carried_kw(key, program.session[inside], program.cell_max_kw[inside], count).max(axis=0)
    tight = np.flatnonzero(could > np.repeat(stations.most_kw, slots) + TOLERANCE_KW)
    place = np.full(count, -1, dtype=np.int64)
    place[tight] = np.arange(tight.shape[0])
    of_cell[inside] = place[key]
    return tight // slots, tight % slots, of_cell

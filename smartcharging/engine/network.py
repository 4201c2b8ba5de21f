"""Which cars can be served from a given site power: a flow from the cars through the circuits to the site, per slot.

Pure. For a fixed power of all cars together in each slot, who gets it is a question of flow: a car's need leaves it
through the slots of its window, climbs the circuits (each with its room in that slot) and ends in the site's power of
the slot. What is served is the maximum flow; where it falls short, a minimum cut names the reason: cars whose way is
shut, the circuits that shut it, and the slots in which the site would have to give more (Ford and Fulkerson 1956).

Capacities are whole numbers of a small unit of power; a slot is one unit of time, so a need is kW times slots.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from scipy.sparse.csgraph import breadth_first_order, maximum_flow

from smartcharging.engine import rooms
from smartcharging.engine.problem import Series
from smartcharging.engine.program import TOLERANCE_KW, Program
from smartcharging.engine.rooms import WATTS, Integers

LARGEST = 2**30
FINEST_KW = 1e-6
SOURCE = 0
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Cut:
    """What the served cars of some classes are at most: what circuits let through in each slot, `fixed_kw`, and the
    site's own power in `slots`; `session` are the cars behind it, whose need has to fit through both."""

    session: Mask
    slots: Mask
    fixed_kw: Series


@dataclass(frozen=True)
class Served:
    """The flow: power of each cell [kW], each car's need that was met [kW·slots], the site's power per slot [kW]."""

    cell_kw: Series
    met: Series
    site_kw: Series


class Network:
    """The cars, circuits and slots of one program. Built once; flows are asked of it again and again."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.need = np.where(program.efficiency > 0, program.wanted_kwh / program.efficiency / program.even_h, 0.0)
        self.unit_kw = max(FINEST_KW, float(self.need.sum()) / LARGEST)
        self._vertices()
        self._arcs()

    def _vertices(self) -> None:
        program = self.program
        needed = program.needed[:, WATTS].copy()
        needed[0] = False  # the site itself is the end of every way
        self.circuit, self.circuit_slot = np.nonzero(needed)
        self._first_circuit = 1 + program.count
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
        chain = rooms.ancestors(program.problem.grid)
        n, cells = program.count, program.session.shape[0]
        into = _nearest(self._number, chain, program.node[program.session], program.slot)
        group_number = np.full(cells, -1, dtype=np.int64)
        if self.group.size:
            found = self._of_group
            group_number = np.where(found >= 0, self._first_group + found, -1)
        ends = np.where(group_number >= 0, group_number, into)
        group_into = np.zeros(self.group.shape[0], dtype=np.int64)
        through = group_number >= 0
        group_into[group_number[through] - self._first_group] = into[through]
        circuit_into = _nearest(self._number, chain[1:], self.circuit, self.circuit_slot)
        limit = np.minimum(
            np.maximum(program.room[self.circuit, WATTS, self.circuit_slot], 0.0), LARGEST * self.unit_kw / 2
        )
        self.arcs = {
            "session": slice(0, n),
            "cell": slice(n, n + cells),
        }
        m = n + cells
        for name, count in (
            ("group", self.group.shape[0]),
            ("circuit", self.circuit.shape[0]),
            ("slot", program.slots),
        ):
            self.arcs[name] = slice(m, m + count)
            m += count
        tail = np.concatenate(
            [
                np.full(n, SOURCE),
                1 + program.session,
                self._first_group + np.arange(self.group.shape[0]),
                self._first_circuit + np.arange(self.circuit.shape[0]),
                self._first_slot + program.t,
            ]
        )
        head = np.concatenate([1 + np.arange(n), ends, group_into, circuit_into, np.full(program.slots, self.sink)])
        self.tail, self.head = tail, head
        self.slot = np.concatenate(
            [np.zeros(n, dtype=np.int64), program.slot, self.group_slot, self.circuit_slot, program.t]
        )
        self.capacity = np.zeros(m, dtype=np.int64)
        self.capacity[self.arcs["session"]] = self._whole(self.need)
        self.capacity[self.arcs["cell"]] = self._whole(program.cell_max_kw)
        self.capacity[self.arcs["group"]] = self._whole(self._group_kw)
        self.capacity[self.arcs["circuit"]] = self._whole(limit)
        size = self.sink + 1
        order = sp.coo_array(
            (np.arange(2 * m), (np.concatenate([tail, head]), np.concatenate([head, tail]))), shape=(size, size)
        ).tocsr()
        order.sort_indices()
        place = np.empty(2 * m, dtype=np.int64)
        place[order.data] = np.arange(2 * m)
        self.forward, self.backward = place[:m], place[m:]
        self._indices, self._indptr = order.indices, order.indptr
        self._mirror = np.empty(2 * m, dtype=np.int64)  # where the arc in the other direction stands
        self._mirror[self.forward], self._mirror[self.backward] = self.backward, self.forward
        self._shape = (size, size)

    @property
    def _group_kw(self) -> Series:
        most: dict[int, float] = {}
        for s in self.program.problem.sessions:
            if s.group is not None and s.group_max_w is not None:
                most[s.group] = min(most.get(s.group, np.inf), s.group_max_w / 1000)
        return np.array([most[int(g)] for g in self.group], dtype=np.float64)

    def _whole(self, kw: Series) -> Integers:
        return np.floor(np.asarray(kw) / self.unit_kw + 1e-6).astype(np.int64)

    # ------------------------------------------------------------------ flows

    def begin(self, site_kw: Series) -> Flow:
        """A flow with the site's power of each slot, and no car served yet."""
        residual = np.zeros(2 * self.tail.shape[0], dtype=np.int32)
        residual[self.forward] = np.minimum(self.capacity, LARGEST)
        residual[self.forward[self.arcs["session"]]] = 0
        residual[self.forward[self.arcs["slot"]]] = self._whole(np.maximum(site_kw, 0.0))
        return Flow(self, residual)

    def matrix(self, data: NDArray[np.int32]) -> sp.csr_array:
        """All arcs with these capacities, in the solver's order; zeros are arcs too."""
        graph = sp.csr_array(self._shape, dtype=np.int32)
        graph.data, graph.indices, graph.indptr = data, self._indices, self._indptr
        graph.has_sorted_indices = True
        return graph

    def open_arcs(self, data: NDArray[np.int32]) -> sp.csr_array:
        """The arcs that still let something through."""
        some = data > 0
        before = np.concatenate([[0], np.cumsum(some)]).astype(np.int32)
        return sp.csr_array((data[some], self._indices[some], before[self._indptr]), shape=self._shape)

    @property
    def mirror(self) -> Integers:
        return self._mirror

    def groups_of(self, cells: Integers) -> Integers:
        """The station in its slot that each of these cells passes, -1 where none can bind."""
        return self._of_group[cells]

    def ends_of(self, reached: Mask) -> tuple[Mask, Mask]:
        """The sessions and slots among the vertices of a mask."""
        sessions = reached[1 : 1 + self.program.count]
        return sessions, reached[self._first_slot : self.sink]


class Flow:
    """A flow that grows class by class: a car served keeps what it has when the next class comes."""

    def __init__(self, network: Network, residual: NDArray[np.int32]) -> None:
        self.network = network
        self.residual = residual

    def serve(self, sessions: Mask) -> None:
        """Serve these cars as far as what is left allows, besides those served before."""
        net = self.network
        source = net.forward[net.arcs["session"]]
        self.residual[source[sessions]] = net.capacity[net.arcs["session"]][sessions]
        graph = net.matrix(self.residual)
        flow = maximum_flow(graph, SOURCE, net.sink, method="dinic").flow
        self.residual = (self.residual - flow.data).astype(np.int32)

    def met(self) -> Series:
        """What each car has of its need [kW·slots]."""
        net = self.network
        return self.residual[net.backward[net.arcs["session"]]].astype(np.float64) * net.unit_kw

    def result(self) -> Served:
        net = self.network
        used = self.residual[net.backward].astype(np.float64) * net.unit_kw
        return Served(used[net.arcs["cell"]], used[net.arcs["session"]], used[net.arcs["slot"]])

    def cuts(self) -> list[Cut]:
        """The minimum cuts nearest to the cars and nearest to the site; one, where they are the same."""
        net = self.network
        near = _reached(net.open_arcs(self.residual), SOURCE)
        far = ~_reached(net.open_arcs(self.residual[net.mirror]), net.sink)
        out = [self._cut(near)]
        if (near != far).any():
            out.append(self._cut(far))
        return out

    def _cut(self, reached: Mask) -> Cut:
        net = self.network
        sessions, slots = net.ends_of(reached)
        crossing = reached[net.tail] & ~reached[net.head]
        crossing[net.arcs["session"]] = False
        crossing[net.arcs["slot"]] = False
        through: Series = net.unit_kw * net.capacity[crossing].astype(np.float64)
        in_slot = np.bincount(net.slot[crossing], weights=through, minlength=net.program.slots)
        return Cut(sessions, slots, in_slot.astype(np.float64))

    def shut(self) -> tuple[Mask, Mask]:
        """Which circuits and which stations let nothing more through."""
        net = self.network
        full = self.residual[net.forward] == 0
        return full[net.arcs["circuit"]], full[net.arcs["group"]]

    def waiting(self) -> Mask:
        """Full circuits before which unmet need still stands: the ones in the cut nearest to the cars."""
        net = self.network
        near = _reached(net.open_arcs(self.residual), SOURCE)
        arcs = net.arcs["circuit"]
        held: Mask = near[net.tail[arcs]] & ~near[net.head[arcs]]
        return held


def _reached(graph: sp.csr_array, start: int) -> Mask:
    reached = np.zeros(graph.shape[0], dtype=bool)
    reached[breadth_first_order(graph, start, return_predecessors=False)] = True
    return reached


def _nearest(number: Integers, chain: Integers, node: Integers, slot: Integers) -> Integers:
    """The first vertex above (node, slot), by the chain of circuits: row 0 is the circuit itself."""
    found = np.full(node.shape[0], -1, dtype=np.int64)
    for level in chain:
        above = level[node]
        here = np.where(above >= 0, number[above, slot], -1)
        found = np.where(found < 0, here, found)
    return found


def _tight_groups(program: Program) -> tuple[Integers, Integers, Integers]:
    """Stations whose own maximum can bind, per slot: group, slot, and for each cell which of them it passes."""
    sessions = program.problem.sessions
    limit: dict[int, float] = {}
    for s in sessions:
        if s.group is not None and s.group_max_w is not None:
            limit[s.group] = min(limit.get(s.group, np.inf), s.group_max_w / 1000)
    of_cell = np.full(program.session.shape[0], -1, dtype=np.int64)
    if not limit:
        none = np.zeros(0, dtype=np.int64)
        return none, none, of_cell
    names = np.array(list(limit), dtype=np.int64)
    index = {group: i for i, group in enumerate(limit)}
    of_session = np.array([-1 if s.group is None else index.get(s.group, -1) for s in sessions], dtype=np.int64)
    group = of_session[program.session]
    inside = group >= 0
    key = group[inside] * program.slots + program.slot[inside]
    could = np.bincount(key, program.cell_max_kw[inside], minlength=names.shape[0] * program.slots)
    tight = np.flatnonzero(could > np.repeat(np.array(list(limit.values())), program.slots) + TOLERANCE_KW)
    place = np.full(could.shape[0], -1, dtype=np.int64)
    place[tight] = np.arange(tight.shape[0])
    of_cell[inside] = place[key]
    return names[tight // program.slots], tight % program.slots, of_cell

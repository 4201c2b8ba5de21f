"""Which cars can be served from a given site power: a flow through the `Network`, and the cuts that say why not more.

Pure. What is served is the maximum flow; where it falls short, a minimum cut names the reason: cars whose way is shut,
the circuits that shut it, and the slots in which the site would have to give more (Ford and Fulkerson 1956).

A flow is kept from question to question. When less is offered in a slot, the cheapest cars there give way; then only
what that left open is sent anew, which is a small part of a flow from nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
from scipy.sparse.csgraph import breadth_first_order, maximum_flow

from smartcharging.engine.plan.large.network import SOURCE, Mask, Network, Whole
from smartcharging.engine.plan.problem import Series
from smartcharging.engine.plan.rooms import Integers


@dataclass(frozen=True)
class Cut:
    """What the served cars of some classes are at most: what circuits let through in each slot, `fixed_kwh`, and the
    site's own power in `slots`; `session` are the cars behind it, whose need has to fit through both."""

    session: Mask
    slots: Mask
    fixed_kwh: Series


@dataclass(frozen=True)
class Served:
    """The flow: power of each cell [kW], what each car has [kWh at the meter], the site's power per slot [kW]."""

    cell_kw: Series
    met_kwh: Series
    site_kw: Series


class Flow:
    """A flow that follows the power that is offered, and in which a dearer class never loses to a cheaper one."""

    def __init__(self, network: Network, capacity: Whole | None = None, weight: Series | float = 1.0) -> None:
        """`weight` is how much flow a car's energy counts for, where that is not once."""
        self.network = network
        self._unit_kwh = np.broadcast_to(network.unit_kwh / np.asarray(weight), (network.program.count,))
        self.residual = np.zeros(2 * network.tail.shape[0], dtype=np.int32)
        self.residual[network.forward] = network.capacity if capacity is None else capacity

    def offer(self, site_kw: Series) -> None:
        """The site's power in each slot from now on. Served is as much of it as can be, the dearest class first."""
        net = self.network
        slots = net.arcs["slot"]
        offered = net.whole(np.maximum(site_kw, 0.0) * net.program.hours).astype(np.int64)
        used = self.residual[net.backward[slots]].astype(np.int64)
        if (used > offered).any():
            self._give_way(np.maximum(used - offered, 0))
            used = np.minimum(used, offered)
        self.residual[net.forward[slots]] = offered - used
        self._send(SOURCE, net.sink, self.residual)
        self._favour()

    def _give_way(self, over: Integers) -> None:
        """Take this much out of each slot, from the cheapest cars there."""
        net = self.network
        order = net.giving_way
        order = order[over[net.program.slot[order]] > 0]
        slot = net.program.slot[order]
        cells = net.arcs["cell"]
        flow = self.residual[net.backward[cells]][order].astype(np.int64)
        through = np.cumsum(flow)
        first = np.flatnonzero(np.concatenate([[True], slot[1:] != slot[:-1]]))
        before = through - flow
        before -= np.repeat(before[first], np.diff(np.append(first, slot.shape[0])))
        less = np.zeros(cells.stop - cells.start, dtype=np.int64)
        less[order] = np.clip(over[slot] - before, 0, flow)
        of_session = np.bincount(net.program.session, less, minlength=net.program.count).astype(np.int64)
        of_class = np.bincount(net.rank, of_session, minlength=net.classes).astype(np.int64)
        for name, change in {"class": of_class, "session": of_session, "cell": less, **net.climb(less)}.items():
            arcs = net.arcs[name]
            self.residual[net.forward[arcs]] += change.astype(np.int32)
            self.residual[net.backward[arcs]] -= change.astype(np.int32)

    def _favour(self) -> None:
        """Where a class falls short, it takes from cheaper ones what it can make use of; the total stays as it is."""
        net = self.network
        classes, sessions = net.arcs["class"], net.arcs["session"]
        for rank in range(net.classes - 1):
            unmet = self.residual[net.forward[sessions]][net.rank == rank]
            lower = net.backward[classes][rank + 1 :]
            if int(unmet.sum()) <= net.program.count or not self.residual[lower].any():
                continue
            ways = self.residual.copy()
            ways[net.forward[classes]] = 0
            ways[net.backward[classes][: rank + 1]] = 0
            ways[net.forward[net.arcs["slot"]]] = 0
            taken = self._send(1 + rank, SOURCE, ways)
            own = classes.start + rank
            self.residual[net.forward[own]] -= taken
            self.residual[net.backward[own]] += taken

    def _send(self, start: int, end: int, ways: Whole) -> int:
        """As much as goes from start to end along these ways."""
        sent = maximum_flow(self.network.matrix(ways), start, end, method="dinic")
        self.residual = self.residual - sent.flow.data
        return int(sent.flow_value)

    def met_kwh(self) -> Series:
        """What each car has of its need."""
        net = self.network
        return np.minimum(self.residual[net.backward[net.arcs["session"]]] * self._unit_kwh, net.need_kwh)

    def served(self) -> Served:
        net = self.network
        session, slot = net.program.session, net.program.slot
        flow_kwh = self.residual[net.backward[net.arcs["session"]]] * self._unit_kwh
        met = np.minimum(flow_kwh, net.need_kwh)
        unit_kw = (self._unit_kwh * met / np.maximum(flow_kwh, self._unit_kwh))[session] / net.program.hours[slot]
        cell_kw = self.residual[net.backward[net.arcs["cell"]]] * unit_kw
        return Served(cell_kw, met, np.bincount(slot, cell_kw, minlength=net.program.slots).astype(np.float64))

    def cuts(self, rank: int) -> list[Cut]:
        """The minimum cuts for the classes up to this one, nearest to the cars and nearest to the site."""
        net = self.network
        classes = net.arcs["class"]
        # Those classes send on what is unmet of them …
        ways = self.residual.copy()
        ways[net.forward[classes][rank + 1 :]] = 0
        near = _reached(net.open_arcs(ways), SOURCE)
        # … and what cheaper ones have could be taken from them. Backwards from where that ends:
        back = self.residual[net.mirror]
        back[net.forward[classes][: rank + 1]] = 0
        back[net.backward[classes]] = 0
        graph = net.open_arcs(back)
        can_end = _reached(graph, net.sink)
        if rank < net.classes - 1:
            can_end |= _reached(graph, SOURCE)
        out = [self._cut(near), self._cut(~can_end)]
        same = (out[0].session == out[1].session).all() and (out[0].slots == out[1].slots).all()
        return out[:1] if same else out

    def _cut(self, reached: Mask) -> Cut:
        session, slots = self.network.ends_of(reached)
        return Cut(session, slots, self.network.through_kwh(reached))

    def shut(self) -> tuple[Mask, Mask]:
        """Which circuits and which stations let nothing more through."""
        net = self.network
        full = self.residual[net.forward] == 0
        return full[net.arcs["circuit"]], full[net.arcs["group"]]

    def waiting(self) -> Mask:
        """Full circuits before which unmet need still stands: the ones in the cut nearest to the cars."""
        net, arcs = self.network, self.network.arcs["circuit"]
        if not self.residual[net.forward[net.arcs["class"]]].any():
            return np.zeros(arcs.stop - arcs.start, dtype=bool)
        near = _reached(net.open_arcs(self.residual), SOURCE)
        held: Mask = near[net.tail[arcs]] & ~near[net.head[arcs]]
        return held


def _reached(graph: sp.csr_array, start: int) -> Mask:
    reached = np.zeros(graph.shape[0], dtype=bool)
    reached[breadth_first_order(graph, start, return_predecessors=False)] = True
    return reached

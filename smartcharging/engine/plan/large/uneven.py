"""Cars that do not load all phases alike, among many that do: a plan that keeps every phase, made from a flow.

Pure. A flow knows one limit for each circuit and slot. Of cars on one or two phases it is told what is sure: together
with the others they have the circuit's watts and the mean of its phases, and each by itself what its own phases let.
So its cuts hold for every plan. Where it then loads a phase above its limit, a plan is made in two flows. In the first
such a car counts for what it takes of its phase, three times its power or one and a half (√3 times without a neutral),
against the circuit's fullest phase, with what the first flow had too much by that given back: it tells when the uneven
cars charge. What they leave on the fullest phase is, for the balanced cars of the second, one limit again.
"""

from __future__ import annotations

import numpy as np

from smartcharging.engine.plan import rooms
from smartcharging.engine.plan.large.flow import Flow, Served
from smartcharging.engine.plan.large.network import Mask, Network
from smartcharging.engine.plan.problem import Series
from smartcharging.engine.plan.rooms import KINDS, L1, WATTS

TOLERANCE_KW = 1e-6


class Uneven:
    """The uneven cars of one program, and the circuits above them."""

    def __init__(self, network: Network) -> None:
        self.network = network
        program = network.program
        self.cars = (program.weight != 1).any(axis=1)
        self.cells: Mask = self.cars[program.session]
        self.any = bool(self.cars.any())
        self.repairs = 0
        self._parents = np.array([c.parent or 0 for c in program.problem.grid.circuits], dtype=np.int64)
        depth = rooms.depths(program.problem.grid)
        self._levels = [np.flatnonzero(depth == d) for d in range(int(depth.max(initial=0)), 0, -1)]

    def room(self, besides_kw: Series, held_kw: Series) -> Series:
        """What every circuit leaves the cars (circuit, kind, slot), where the connection also carries this, and so
        much PV is held back."""
        room = self.network.program.room.copy()
        dark = self.network.program.dark_room[L1:]
        room[0, L1:] = np.minimum(room[0, L1:] - held_kw, dark) - besides_kw
        room[0, WATTS] = np.inf  # the connection's watts are the small program's
        return room

    def keeps_phases(self, served: Served, room: Series) -> bool:
        """Is every phase of every circuit within its limit?"""
        if not self.any:
            return True
        program = self.network.program
        load = self._load(served.cell_kw, np.ones_like(self.cells))
        over = load - room
        crowded = (self._at_stations(served.cell_kw, np.ones_like(self.cells)) - self.network.group_kw).max(initial=0.0)
        return not (over[program.uneven] > TOLERANCE_KW).any() and bool(crowded <= TOLERANCE_KW)

    def repaired(self, served: Served, asked_kw: Series, spare_kw: Series, room: Series) -> Served:
        """A plan that keeps every phase, near to this one: from what was asked for, and the rest from what is spare."""
        program, network = self.network.program, self.network
        self.repairs += 1
        room = np.maximum(room, 0.0)
        weight = program.weight[:, L1:].max(axis=1)
        before = self._load(served.cell_kw, self.cells)
        counted = self._load(served.cell_kw * weight[program.session], self.cells, alike=True)
        spared = np.maximum(counted[:, WATTS] - before[:, L1:].max(axis=1), 0.0)
        spared_there = self._spared_at_stations(served.cell_kw, weight)
        capacity = network.weighing(weight, network.group_kw + spared_there, room[:, L1:].min(axis=1) + spared)
        flow = Flow(network, capacity, weight)
        more = np.bincount(program.slot, served.cell_kw * (weight[program.session] - 1), minlength=program.slots)
        flow.offer(np.minimum(asked_kw + more, room[0, L1:].min(axis=0) + spared[0]))
        uneven_kw = self._scaled(np.where(self.cells, flow.served().cell_kw, 0.0), room)
        # What they leave on the fullest phase is, for the balanced cars, one limit again.
        left = (room - self._load(uneven_kw, self.cells)).min(axis=1)
        theirs = np.bincount(program.slot, uneven_kw, minlength=program.slots)
        left_there = network.group_kw - self._at_stations(uneven_kw, self.cells).max(axis=0)
        flow = Flow(network, network.weighing(np.where(self.cars, 0.0, 1.0), left_there, left))
        for offered_kw in (asked_kw, asked_kw + spare_kw):
            flow.offer(np.minimum(offered_kw - theirs, left[0]))
        found = flow.served()
        met = np.bincount(program.session, uneven_kw * program.hours[program.slot], minlength=program.count)
        return Served(found.cell_kw + uneven_kw, found.met_kwh + met, found.site_kw + theirs)

    def _scaled(self, cell_kw: Series, room: Series) -> Series:
        """Uneven cars alone, no more than their phases carry: from the leaves up, all below give way alike."""
        program = self.network.program
        cells = np.flatnonzero(cell_kw > 0)
        out = np.zeros_like(cell_kw)
        power, slot = cell_kw[cells].copy(), program.slot[cells]
        weight, node = program.weight[program.session[cells]], program.node[program.session[cells]]
        power *= self._share_of_stations(cell_kw)[cells]
        for level in reversed(rooms.by_depth(program.problem.grid)):
            here = level[node]
            inside = here >= 0
            key = (here * program.slots + slot)[inside]
            share = np.ones(cells.shape[0])
            for kind in range(KINDS):
                load = np.bincount(key, (power * weight[:, kind])[inside], minlength=room.shape[0] * program.slots)
                most = np.minimum(1.0, room[:, kind].ravel() / np.maximum(load, 1e-12))
                used = weight[inside, kind] > 0
                share[inside] = np.where(used, np.minimum(share[inside], most[key]), share[inside])
            power *= share
        out[cells] = power
        return out

    def _at_stations(self, cell_kw: Series, among: Mask, weight: Series | None = None) -> Series:
        """What each phase of each station in its slot carries of these cells; `weight`: on one phase, as if each car
        had this weight on it."""
        network, program = self.network, self.network.program
        place = network.groups_of(np.arange(cell_kw.shape[0]))
        cells = np.flatnonzero(among & (place >= 0))
        count, session, power = network.group.shape[0], program.session[cells], cell_kw[cells]
        if weight is not None:
            return np.bincount(place[cells], power * weight[session], minlength=count).astype(np.float64)
        return program.stations.carried_kw(place[cells], session, power, count)[L1:]

    def _spared_at_stations(self, cell_kw: Series, weight: Series) -> Series:
        """What uneven cars of a station count for too much, as they are not all on one phase."""
        counted = self._at_stations(cell_kw, self.cells, weight)
        spared: Series = np.maximum(counted - self._at_stations(cell_kw, self.cells).max(axis=0), 0.0)
        return spared

    def _share_of_stations(self, cell_kw: Series) -> Series:
        """Of what each cell has, the share with which its station's fullest phase is within its amps."""
        load = self._at_stations(cell_kw, np.ones_like(self.cells)).max(axis=0)
        share = np.minimum(1.0, self.network.group_kw / np.maximum(load, 1e-12))
        found: Series = np.append(share, 1.0)[self.network.groups_of(np.arange(cell_kw.shape[0]))]
        return found

    def _load(self, cell_kw: Series, among: Mask, alike: bool = False) -> Series:
        """What each circuit carries of each kind, of these cells; `alike`: as if they loaded all kinds alike."""
        program = self.network.program
        cells = np.flatnonzero(among)
        nodes, slots = self._parents.shape[0], program.slots
        key = program.node[program.session[cells]] * slots + program.slot[cells]
        load = np.empty((nodes, KINDS, slots))
        for kind in range(KINDS):
            weight = np.ones(cells.shape[0]) if alike else program.weight[program.session[cells], kind]
            load[:, kind] = np.bincount(key, cell_kw[cells] * weight, minlength=nodes * slots).reshape(nodes, slots)
        for level in self._levels:
            np.add.at(load, self._parents[level], load[level])
        return load

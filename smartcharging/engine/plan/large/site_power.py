"""What is asked of the cars: the small program of a large site, in which they are one power per slot.

Pure. It knows the site whole (battery, grid, peak, prices) and of the cars only their classes: how much each of these
falls short, and inequalities between that and the power in some slots. The first are plain from the windows; what it
did not know it is told (`learn`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import scipy.sparse as sp

from smartcharging.engine.grid import Circuit, Grid
from smartcharging.engine.plan import rooms
from smartcharging.engine.plan.large.flow import Served
from smartcharging.engine.plan.large.network import Mask
from smartcharging.engine.plan.problem import PlanProblem, PlanSession, Series
from smartcharging.engine.plan.program import LinearProgram, Program
from smartcharging.engine.plan.rooms import Integers
from smartcharging.engine.plan.solver import Solution
from smartcharging.engine.plan.warm import GrowingProgram
from smartcharging.engine.snapshot import Mode

FITS_KW = 1e-6


class Classes:
    """Cars of equal worth in an independent stretch of time: the program knows each by its shortfall alone."""

    def __init__(self, program: Program) -> None:
        self.value, rank = np.unique(-program.goal_values, return_inverse=True)
        self.value = -self.value  # dearest first
        stretch = _stretches(program)
        self.stretches = int(stretch.max(initial=0)) + 1
        self.rank, self.stretch = rank, stretch
        self.column = rank * self.stretches + stretch
        self.count = self.value.shape[0] * self.stretches
        self.of_slot = np.full(program.slots, -1, dtype=np.int64)  # the stretch of each slot; -1: no car then
        self.of_slot[program.slot] = stretch[program.session]
        self.slots_of = [np.flatnonzero(self.of_slot == s) for s in range(self.stretches)]
        self.wanted_kwh = np.bincount(self.column, program.wanted_kwh, minlength=self.count)

    def up_to(self, rank: int) -> Mask:
        up: Mask = self.rank <= rank
        return up

    def columns_up_to(self, rank: int, stretch: int) -> Integers:
        return np.arange(rank + 1) * self.stretches + stretch


def _stretches(program: Program) -> Integers:
    """Number the stretches of time that no car's window leaves: cars of different stretches never meet."""
    sessions = program.problem.sessions
    first = np.array([s.first_slot for s in sessions], dtype=np.int64)
    last = np.array([s.last_slot for s in sessions], dtype=np.int64)
    inside = last - first > 1  # the border inside a window is crossed
    begun = np.bincount(first[inside] + 1, minlength=program.slots + 1)
    ended = np.bincount(last[inside], minlength=program.slots + 1)
    starts = np.cumsum(begun - ended)[: program.slots] == 0
    number = np.cumsum(starts) - 1
    _, compact = np.unique(number[np.minimum(first, program.slots - 1)], return_inverse=True)
    return compact.astype(np.int64)


@dataclass(frozen=True)
class Row:
    """In `slots` the site gives at least what these classes of a stretch want, less what they fall short of."""

    rank: int
    stretch: int
    slots: Mask
    least_kwh: float


class SitePower:
    """The small program, as it grows."""

    def __init__(self, program: Program, classes: Classes) -> None:
        self.program, self.classes = program, classes
        self.gives = float(program.efficiency[0]) * program.hours  # kWh towards the goals per kW in a slot
        self.site = Program(_as_one(program))
        self.site.import_names = program.import_names
        self.linear = _small_program(program, self.site, classes)
        self.columns = np.concatenate([self.site.at("p", self.site.t), self.site.width + np.arange(classes.count)])
        self._growing = GrowingProgram(self.linear, small=True)
        self._learned: list[tuple[sp.csr_matrix, Series]] = []

    def hope(self, seconds: float) -> Solution:
        """The best there may be for all that is known: its objective is a lower bound. Raises `NoSolution`."""
        return self._growing.minimise(seconds)

    def learn(self, rows: list[Row]) -> None:
        """Inequalities that hold for every plan."""
        if not rows:
            return
        indptr, indices, data = [0], [], []
        for r in rows:
            slots = np.flatnonzero(r.slots)
            short = self.site.width + self.classes.columns_up_to(r.rank, r.stretch)
            indices += [slots, short]
            data += [-self.gives[slots], np.full(short.shape[0], -1.0)]
            indptr.append(indptr[-1] + slots.shape[0] + short.shape[0])
        matrix = sp.csr_matrix(
            (np.concatenate(data), np.concatenate(indices), np.array(indptr)),
            shape=(len(rows), self.site.width + self.classes.count),
        )
        rhs = np.array([-r.least_kwh for r in rows])
        self._growing.add(matrix, rhs)
        self._learned.append((matrix, rhs))

    def known(self) -> LinearProgram:
        """The program with all that it was told."""
        matrices, rhs = zip((self.linear.matrix, self.linear.rhs), *self._learned, strict=True)
        return replace(self.linear, matrix=sp.vstack(matrices).tocsr(), rhs=np.concatenate(rhs))

    def decide(self, whole: Series) -> None:
        """From now on every yes-or-no is this."""
        columns = self.site.whole
        self.linear.lower[columns] = self.linear.upper[columns] = whole
        self._growing.bound(columns, whole, whole)

    def power(self, values: Series) -> Series:
        """The cars' power in each slot."""
        found: Series = values[self.site.part("p")]
        return found

    def short(self, values: Series) -> Series:
        """What each class falls short [kWh]."""
        found: Series = values[self.site.width :]
        return found

    def missing(self, met_kwh: Series) -> Series:
        """What each class falls short of [kWh], when its cars have this at the meter."""
        missing = np.maximum(self.program.wanted_kwh - self.program.efficiency * met_kwh, 0.0)
        return np.bincount(self.classes.column, missing, minlength=self.classes.count).astype(np.float64)

    def spare(self, values: Series, peaks: bool = True) -> Series:
        """What the cars could take in each slot besides, with the same battery; with no higher peak, if these count."""
        site = self.site
        most = np.minimum(self.linear.upper[site.part("x")], site.import_room_kw)
        for (charge, slots), raised in zip(site.peaks if peaks else (), values[site.part("P")], strict=False):
            most[slots] = np.minimum(most[slots], charge.free_w / 1000 + float(raised))
        net = values[site.part("x")] - values[site.part("y")]
        used = net + site.pv_kw - self.held_back(values)
        free = np.minimum(most - net, site.used_room_kw - used)
        could = np.maximum(self.linear.upper[site.part("p")] - self.power(values), 0.0)
        return np.asarray(np.clip(free, 0.0, could), dtype=np.float64)

    def held_back(self, values: Series) -> Series:
        """PV that does not run [kW]."""
        out = np.zeros(self.site.slots)
        out[self.site.curtail_slots] = values[self.site.part("w")]
        return out

    def besides_cars(self, values: Series) -> Series:
        """What battery and loads take of the connection [kW]."""
        site, out = self.site, np.zeros(self.site.slots)
        out += values[site.part("q")].reshape(-1, site.slots).sum(axis=0)
        if site.problem.battery is not None:
            out += values[site.part("c")] - values[site.part("d")]
        return out

    def with_cars(self, values: Series, served: Served) -> Series | None:
        """These columns with the cars as they are served, the battery as it is; the grid takes up the difference.

        None where it cannot.
        """
        site, linear = self.site, self.linear
        out = values.copy()
        out[site.part("p")] = served.site_kw
        out[site.part("u")] = linear.upper[site.part("u")] - float(self.gives @ served.site_kw)
        out[site.width :] = self.missing(served.met_kwh)
        curtailed = self.held_back(values)
        net = site.background + served.site_kw + self.besides_cars(values)
        above_kw = net + site.pv_kw - site.used_room_kw  # what the sun that is trusted does not let
        export_kw = linear.upper[site.part("y")]
        wasted = np.where(site.problem.bought_eur_per_kwh > 0, np.maximum(net + curtailed, 0.0), 0.0)
        curtailed = np.clip(curtailed - wasted, 0.0, None)
        curtailed = np.minimum(np.maximum(curtailed, -net - export_kw), site.curtailable_kw)
        net = net + curtailed
        out[site.part("w")] = curtailed[site.curtail_slots]
        out[site.part("x")], out[site.part("y")] = np.maximum(net, 0.0), np.maximum(-net, 0.0)
        out[site.part("P")] = [
            max(float(out[site.part("x")][slots].max()) - charge.free_w / 1000, 0.0) for charge, slots in site.peaks
        ]
        over = site.over_slots
        overload = np.maximum(out[site.part("x")][over] - site.import_room_kw[over], above_kw[over])
        out[site.part("o")] = np.maximum(overload, 0.0)
        above_kw[over] -= out[site.part("o")]
        grid = slice(site.offset["w"], site.width)
        fits = (out[grid] <= linear.upper[grid] + FITS_KW) & (out[grid] >= linear.lower[grid] - FITS_KW)
        return out if fits.all() and (above_kw <= FITS_KW).all() else None

    def cost(self, values: Series) -> float:
        return float(self.linear.cost @ values)

    def as_planned(self, values: Series) -> LinearProgram:
        """The small program with the cars as these columns have them."""
        lower, upper = self.linear.lower.copy(), self.linear.upper.copy()
        lower[self.columns] = upper[self.columns] = values[self.columns]
        return replace(self.linear, lower=lower, upper=upper)

    def of_the_site(self, solution: Solution, values: Series, objective: float) -> Solution:
        """These columns, and the solution's prices of the site's own rows: without those of the classes."""
        own = self.linear.equalities - self.classes.stretches
        total = self.linear.matrix.shape[0]
        price = np.concatenate([solution.row_price[:own], solution.row_price[own + self.classes.stretches : total]])
        return replace(solution, values=values, objective=objective, row_price=price)


def _as_one(program: Program) -> PlanProblem:
    """The same site with one car that may take in each slot what all may take together, and of the circuits only those
    above the battery."""
    problem = program.problem
    battery, kept = problem.battery, [0]
    if battery is not None:
        kept = sorted(problem.grid.path(battery.node))
        battery = replace(battery, node=kept.index(battery.node))
    least = rooms.least_kw(problem) if problem.least_w else None
    circuits = [problem.grid.circuits[n] for n in kept]
    parents = [None if c.parent is None else kept.index(c.parent) for c in circuits]
    everyone = PlanSession(
        key="all",
        node=0,
        phases=(True, True, True),
        first_slot=0,
        last_slot=problem.slots,
        max_w=1000 * float(program.could_kw.max(initial=0.0)),
        min_w=0.0,
        energy_wh=1000 * float(program.wanted_kwh.sum()),
        mode=Mode.PLAN,
        efficiency=float(program.efficiency[0]),
        value_eur_per_kwh=0.0,
    )
    if program.uneven[0] and len(set(circuits[0].limit_a)) > 1:
        circuits[0], problem = _without_phases(program, circuits[0])
    return replace(
        problem,
        sessions=(everyone,),
        battery=battery,
        loads=tuple(replace(load, node=0) for load in problem.loads),  # no circuit below binds them
        grid=Grid(tuple(replace(c, parent=p) for c, p in zip(circuits, parents, strict=True)), problem.grid.supply),
        node_background_w={i: 1000 * program.rooms.background[n] for i, n in enumerate(kept) if i},
        least_w={} if least is None else {i: 1000 * least[n] for i, n in enumerate(kept)},
    )


def _without_phases(program: Program, root: Circuit) -> tuple[Circuit, PlanProblem]:
    """The connection when its fuses differ and some cars load only one: together they may take more than a balanced one
    car could, the mean of the phases. Each of these is seen to by `uneven.py`."""
    limits = {
        "import_limit_w": 1000 * program.import_room_kw,
        "export_limit_w": 1000 * rooms.export_limit_kw(program.problem),
    }
    return replace(root, limit_a=(np.inf,) * 3, margin_a=0.0), replace(program.problem, **limits)


def _small_program(program: Program, site: Program, classes: Classes) -> LinearProgram:
    """The site's program with a column of shortfall per class and stretch behind its own."""
    gives = float(program.efficiency[0]) * program.hours
    linear = site.build(site.money)
    width = site.width
    linear.upper[site.part("p")] = program.could_kw
    cost = np.concatenate([linear.cost, np.repeat(classes.value, classes.stretches)])
    lower = np.concatenate([linear.lower, np.zeros(classes.count)])
    upper = np.concatenate([linear.upper, classes.wanted_kwh])
    # What a stretch gets and falls short of together is what its cars want.
    inside = np.flatnonzero(classes.of_slot >= 0)
    ranks = np.arange(classes.count)
    row = np.concatenate([classes.of_slot[inside], ranks % classes.stretches])
    column = np.concatenate([site.at("p", inside), width + ranks])
    value = np.concatenate([gives[inside], np.ones(classes.count)])
    all_in_all = sp.csr_matrix((value, (row, column)), shape=(classes.stretches, width + classes.count))
    own = sp.hstack([linear.matrix, sp.csr_matrix((linear.matrix.shape[0], classes.count))]).tocsr()
    rhs_all = np.bincount(np.arange(classes.count) % classes.stretches, classes.wanted_kwh)
    # Equalities stand first; the new ones after the site's own.
    split = linear.equalities
    matrix = sp.vstack([own[:split], all_in_all, own[split:]]).tocsr()
    rhs = np.concatenate([linear.rhs[:split], rhs_all, linear.rhs[split:]])
    return LinearProgram(cost, matrix, rhs, split + classes.stretches, lower, upper)

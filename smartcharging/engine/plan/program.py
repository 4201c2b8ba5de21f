"""The plan as a linear program: what may be decided, what it costs, and what must hold.

Pure. Each constraint is one function of `constraints.py` that returns its rows.
Units inside: kW, kWh, EUR.

    p  power of a session in a slot of its window (a "cell")      w  PV curtailed
    u  energy a session falls short of                            x  import of the connection, y  export
    c, d, e  battery: charge, discharge, stored at slot's end     P  how far each peak that is charged for is raised
    o  load above a limit that is not ours to lower (the building alone); the battery relieves it where it can

Cars that give have columns and rows of their own (`giving.py`), and so have loads (`engine/loads`).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from smartcharging.engine.loads.columns import LoadColumns
from smartcharging.engine.plan import giving, rooms, worth
from smartcharging.engine.plan.constraints import TOLERANCE_KW, all_rows
from smartcharging.engine.plan.problem import PeakCharge, PlanProblem, Series
from smartcharging.engine.plan.rooms import KINDS, L1, WATTS, Integers, Rooms
from smartcharging.engine.plan.rows import Rows
from smartcharging.engine.plan.stations import Stations
from smartcharging.engine.plan.upward import Upward
from smartcharging.engine.snapshot import Mode

LONGER = 1e-6


@dataclass(frozen=True)
class LinearProgram:
    """minimise cost · z  subject to  matrix · z (=, ≤) rhs,  lower ≤ z ≤ upper; equalities stand first."""

    cost: Series
    matrix: sp.csr_matrix
    rhs: Series
    equalities: int
    lower: Series
    upper: Series


class Program:
    """The columns of one problem, and the numbers every constraint reads."""

    def __init__(self, problem: PlanProblem) -> None:
        self.problem = problem
        self.slots = problem.slots
        self.hours = problem.hours
        self.count = len(problem.sessions)
        self.t = np.arange(self.slots, dtype=np.int64)
        self.upward = Upward(problem.grid)
        self.rooms = Rooms.of(problem)
        self.background = self.rooms.background[0]
        self.loads = LoadColumns(problem)
        self._cells()
        self._curtailment()
        self._trim_tree()
        self._columns()

    def _cells(self) -> None:
        sessions, surplus, fast = self.problem.sessions, Mode.SURPLUS, Mode.FAST
        first = np.array([s.first_slot for s in sessions], dtype=np.int64)
        length = np.array([s.last_slot - s.first_slot for s in sessions], dtype=np.int64)
        self.session = np.repeat(np.arange(self.count, dtype=np.int64), length)
        starts = np.cumsum(length) - length
        self.first_cell = starts
        self.age = np.arange(self.session.shape[0], dtype=np.int64) - starts[self.session]  # slots since plug-in
        self.slot = first[self.session] + self.age
        self.max_kw = np.array([s.max_w for s in sessions], dtype=np.float64) / 1000
        self.wanted_kwh = np.array([s.energy_wh for s in sessions], dtype=np.float64) / 1000
        self.efficiency = np.array([s.efficiency for s in sessions], dtype=np.float64)
        self.node = np.array([s.node for s in sessions], dtype=np.int64)
        self.surplus = np.array([s.mode is surplus for s in sessions], dtype=bool)
        self.fast = np.array([s.mode is fast for s in sessions], dtype=bool)
        self.weight = rooms.weights(self.problem)
        self.stations = Stations.of(self.problem)
        self.cell_max_kw = self.max_kw[self.session]
        self.giving = giving.cells(self)

    def _curtailment(self) -> None:
        """PV may be held back only where its energy is worth less than nothing or has nowhere to go."""
        building = self.problem.building_w / 1000
        self.pv_kw = -self.problem.pv_w / 1000
        self.export_kw = np.maximum(rooms.export_limit_kw(self.problem), -building)
        worthless = worth.export_prices(self.problem) < 0
        too_much = -self.background > self.export_kw
        self.curtail_slots = np.flatnonzero((self.pv_kw > 0) & (worthless | too_much))
        self.curtailable_kw = np.zeros(self.slots)
        self.curtailable_kw[self.curtail_slots] = self.pv_kw[self.curtail_slots]

    def _trim_tree(self) -> None:
        """Find the rows that can bind: from the leaves up, what cars and loads below may take, against the room.

        Where all of them are balanced over the phases, the tightest of watts and amps stands for all four kinds.
        """
        battery = self.problem.battery
        nodes = len(self.problem.grid)
        self.on_battery_path = np.zeros(nodes, dtype=bool)
        if battery is not None:
            self.on_battery_path[list(self.problem.grid.path(battery.node))] = True
        charge = battery.max_charge_w / 1000 if battery else 0.0
        discharge = battery.max_discharge_w / 1000 if battery else 0.0
        self.battery_weight = rooms.battery_weight(self.problem)

        self.uneven = self._above_uneven()
        could = self._cars_could_kw(KINDS if self.uneven.any() else 1)
        cars = could[:, WATTS].sum(axis=0)
        if self.problem.loads:
            could += self.loads.reach_kw(nodes)[:, : could.shape[1]]

        self.room = self.rooms.room.copy()
        self._sun_apart()
        self.room[:, WATTS] = np.where(self.uneven[:, None], self.room[:, WATTS], self.room.min(axis=1))
        # Whatever phases they load, cars together have at most the watts, and the mean of the phases.
        self.sum_room = np.minimum(self.room[:, WATTS], _mean_of_phases(self.room[:, L1:]))
        self.needed = np.zeros((nodes, KINDS, self.slots), dtype=bool)
        self.sum_needed = np.zeros((nodes, self.slots), dtype=bool)
        more = np.multiply.outer(self.on_battery_path * charge, self.battery_weight)
        relief = np.multiply.outer(self.on_battery_path * discharge, self.battery_weight) + giving.relief_kw(self)
        relief[:, WATTS] = np.maximum(relief[:, WATTS], relief[:, L1:].mean(axis=1))  # of both sums
        more, relief = more[:, : could.shape[1], None], relief[:, : could.shape[1], None]
        for level in self.upward:
            below = level.nodes
            could[below] = self._let_through(below, could[below], more[below], relief[below])
            level.add(could, could[below])
        self.reach_kw = could[0, WATTS].copy()  # cars and loads together
        root = np.zeros(1, dtype=np.int64)
        self._need_dark(could[0] + more[0])
        could[root] = self._let_through(root, could[root], more[root] + self.curtailable_kw, relief[root])
        could[0, WATTS] = np.minimum(could[0, WATTS], np.maximum(self.dark_room[WATTS] + relief[0, WATTS], 0.0))
        self.passes_kw = could[:, WATTS]  # what each circuit lets through at most
        self.could_kw = np.minimum(self.reach_kw, cars)
        # The connection's own watts are the bound of column x, not rows. The mean of its phases is among them.
        self.import_room_kw = self.background + np.minimum(self.room[0, WATTS], _mean_of_phases(self.room[:1, L1:])[0])
        self.used_room_kw = self.background + self.pv_kw + self.dark_room[WATTS]  # for all that takes, with no sun
        self.needed[0, WATTS] = False

    def _sun_apart(self) -> None:
        """Find the slots in which the connection has two limits: with the sun that runs, and with what is trusted.

        Where all of it runs in any case, the tighter of both is one limit for what is imported. Elsewhere `room` has
        the first and `dark_room` (kind, slot) the second; what is imported has it by rows.
        """
        dark, root = self.rooms.dark, self.rooms.limit[0] - self.background
        together = (_mean_of_phases(dark[None]) if self.uneven[0] else dark[None].min(axis=1))[0]
        held = np.zeros(self.slots, dtype=bool)
        held[self.curtail_slots] = True
        apart = (dark < root[L1:]).any(axis=0) & (held | (self.background + together < 0))
        self.room[0, L1:] = np.where(apart, root[L1:], self.room[0, L1:])
        self.dark_room = np.where(apart, np.vstack((together, dark)), np.inf)
        self.dark_needed = np.zeros((KINDS, self.slots), dtype=bool)

    def _need_dark(self, most: Series) -> None:
        """Note where what may be used at most (kind, slot) is more than the trusted sun lets."""
        kinds = most.shape[0] if self.uneven[0] else 1
        self.dark_needed[:kinds] = most[:kinds] > self.dark_room[:kinds] + TOLERANCE_KW

    def _above_uneven(self) -> NDArray[np.bool_]:
        """The circuits that carry a car, a load or a battery which does not take the same of all phases."""
        found = np.zeros(len(self.problem.grid), dtype=bool)
        found[self.node[(self.weight != 1).any(axis=1)]] = True
        found[self.loads.node[(self.loads.weight != 1).any(axis=1)]] = True
        if self.problem.battery is not None:
            found[self.problem.battery.node] |= bool((self.battery_weight != 1).any())
        for level in self.upward:
            found[level.parents[found[level.nodes]]] = True
        return found

    def _cars_could_kw(self, kinds: int) -> Series:
        """What the cars at each circuit could take at most: axes circuit, kind, slot."""
        nodes, slots = len(self.problem.grid), self.slots
        key = self.node[self.session] * slots + self.slot
        could = np.empty((nodes, kinds, slots))
        for kind in range(kinds):
            even = kind > 0 and bool((self.weight[:, kind] == 1).all())
            weight = self.cell_max_kw * self.weight[self.session, kind]
            could[:, kind] = could[:, 0] if even else np.bincount(key, weight, nodes * slots).reshape(nodes, slots)
        return could

    def _let_through(self, nodes: Integers, could: Series, more: Series, relief: Series) -> Series:
        """What of what could be taken below these circuits comes through them; notes which of their rows can bind.

        `more` is what may come on top of it, `relief` what may be taken off.
        """
        room, sum_room = self.room[nodes, : could.shape[1]], self.sum_room[nodes]
        most = could + more
        over = most > room + TOLERANCE_KW
        through = np.minimum(could, np.maximum(room + relief, 0))
        through[:, WATTS] = np.minimum(through[:, WATTS], np.maximum(sum_room + relief[:, 0], 0))
        # Balanced cars weigh the same on every kind, so the tightest speaks for all.
        balanced = ~self.uneven[nodes]
        over[balanced, L1:] = False
        through[balanced, L1:] = through[balanced, :L1]
        self.needed[nodes, : could.shape[1]] = over
        self.sum_needed[nodes] = (most[:, WATTS] > sum_room + TOLERANCE_KW) | over.any(axis=1)
        self.sum_needed[nodes[self.on_battery_path[nodes]]] = False  # a battery helps there
        return through

    def _columns(self) -> None:
        problem = self.problem
        battery = problem.battery
        self.charge_kw = battery.max_charge_w / 1000 if battery else 0.0
        self.discharge_kw = battery.max_discharge_w / 1000 if battery else 0.0
        # Where the building alone is above the limit, only that much overload may exist.
        excess = np.maximum(self.background - self.import_room_kw, 0)
        self.excess_kw = np.maximum(excess, -self.dark_room[WATTS])
        self.over_slots = np.flatnonzero(self.excess_kw > TOLERANCE_KW)
        self.dark_needed[WATTS] |= self.dark_room[WATTS] < -TOLERANCE_KW
        self.import_max_kw = self.import_room_kw + excess
        self.export_slots = giving.export_slots(self)
        could_import = np.minimum(self.background + self.reach_kw + self.charge_kw, self.import_max_kw)
        could_import += self.curtailable_kw
        self.could_import_kw = could_import
        found = [(charge, peak_slots(self, charge)) for charge in problem.peak_charges]
        self.peaks = tuple((charge, slots) for charge, slots in found if slots.size)
        self.offset: dict[str, int] = {}
        position = 0
        for name, width in (
            ("p", self.session.shape[0]),
            ("u", self.count),
            ("c", self.slots if battery else 0),
            ("d", self.slots if battery else 0),
            ("e", self.slots if battery else 0),
            ("w", self.curtail_slots.shape[0]),
            ("x", self.slots),
            ("y", self.slots),
            ("P", len(self.peaks)),
            ("o", self.over_slots.shape[0]),
            ("g", self.giving.shape[0]),
            ("b", self.giving.shape[0]),
            *self.loads.widths.items(),
        ):
            self.offset[name] = position
            setattr(self, f"_{name}", slice(position, position + width))
            position += width
        self.width = position

    def part(self, name: str) -> slice:
        """The columns of one kind."""
        found: slice = getattr(self, f"_{name}")
        return found

    @property
    def whole(self) -> Integers:
        """The columns that must be whole numbers."""
        return self.at("z", np.arange(self.width_of("z")))

    @cached_property
    def import_names(self) -> tuple[tuple[str, ...], Integers]:
        """What limits import, and which of them does in each slot: operator and contract, or the connection's fuses."""
        root = self.problem.grid.circuits[0]
        names = ("import_limit", *(f"limit:{root.name}{suffix}" for suffix in rooms.KIND_NAMES))
        kind = 1 + self.tightest(np.zeros_like(self.t), self.t)
        if self.problem.import_limit_w is not None:
            own = np.inf if root.limit_w is None else root.limit_w
            kind = np.where((kind == 1) & (self.problem.import_limit_w < own), 0, kind)
        return names, kind

    def tightest(self, node: Integers, slot: Integers) -> Integers:
        """The kind that leaves the least room in each of these circuits and slots."""
        return np.asarray(self.rooms.room[node, :, slot].argmin(axis=1), dtype=np.int64)

    def width_of(self, name: str) -> int:
        part = self.part(name)
        return int(part.stop - part.start)

    def at(self, name: str, index: Integers | NDArray[np.intp]) -> Integers:
        return np.asarray(self.offset[name] + index, dtype=np.int64)

    # What it costs

    @cached_property
    def gone(self) -> Series:
        """What a kWh in each cell loses by the chance that its driver has left before (`forecast/leaving.py`)."""
        if not any(s.gone_eur_per_kwh for s in self.problem.sessions):
            return np.zeros(self.session.shape[0])
        return worth.losses(self.problem)[self.session, self.slot]

    @cached_property
    def goal_values(self) -> Series:
        """What a kWh short costs, by session."""
        return worth.goal_values(self.problem)

    @cached_property
    def money(self) -> Series:
        """Energy, wear, peak, what is left in the battery, shortfalls, and the preference for early charging."""
        problem, h = self.problem, self.hours
        cost = np.zeros(self.width)
        hours = h[self.slot]
        early = np.cumsum(h) - h  # when each slot begins
        cost[self.part("p")] = (
            problem.early_eur_per_kwh * (early[self.slot] * 3600 / problem.slot_s) + self.gone
        ) * hours
        wanting = self.surplus[self.session]
        if wanting.any():
            cost[self.part("p")][wanting] -= (
                worth.surplus_values(problem)[self.slot[wanting]]
                * self.efficiency[self.session[wanting]]
                * hours[wanting]
            )
        cost[self.part("u")] = self.goal_values
        if problem.battery is not None:
            wear = max(problem.battery.wear_eur_per_kwh, worth.LEAST_EUR_PER_KWH)
            cost[self.part("c")] = cost[self.part("d")] = wear * h
            cost[self.part("e")][-1] = -worth.stored_value(problem)
        cost[self.part("w")] = worth.LEAST_EUR_PER_KWH * h[self.curtail_slots]
        cost[self.part("x")] = problem.bought_eur_per_kwh * h
        cost[self.part("y")] = -worth.export_prices(problem) * h
        cost[self.part("P")] = [charge.eur_per_kw for charge, _ in self.peaks]
        cost[self.part("o")] = worth.overload_value(problem) * h[self.over_slots]
        cost[self.part("g")] = giving.wear(self)
        cost[self.part("p")][self.giving] += giving.wear(self)
        for name, values_of_loads in self.loads.costs.items():
            cost[self.part(name)] = values_of_loads
        return cost

    @cached_property
    def haste(self) -> Series:
        """No money at all: goals by their class, and every slot that a car in a hurry waits."""
        cost = np.zeros(self.width)
        values = self.goal_values
        least = float(values[values > 0].min(initial=np.inf))
        least = least if np.isfinite(least) else 1.0
        relative = values / least
        cost[self.part("u")] = relative
        hurried = self.fast[self.session]
        per_slot = 0.25 / max(self.slots, 1)
        share = self.efficiency[self.session[hurried]] * relative[self.session[hurried]]
        cost[self.part("p")][hurried] = per_slot * self.age[hurried] * self.hours[self.slot[hurried]] * share
        dearest = max(
            float(relative.max(initial=0.0)), float(worth.load_kwh_values(self.problem).max(initial=0)) / least
        )
        dear = worth.OVERLOAD_RATIO * max(dearest, 1.0)
        cost[self.part("o")] = dear * self.hours[self.over_slots]
        for name, broken in self.loads.softness(worth.load_values(self.problem) / least).items():
            cost[self.part(name)] = broken
        return cost

    # What each may be at least and at most

    @cached_property
    def bounds(self) -> tuple[Series, Series]:
        lower = np.zeros(self.width)
        upper = np.full(self.width, np.inf)
        upper[self.part("p")] = self.cell_max_kw
        upper[self.part("u")] = self.wanted_kwh
        self._battery_bounds(lower, upper)
        upper[self.part("w")] = self.pv_kw[self.curtail_slots]
        upper[self.part("x")] = np.maximum(self.import_max_kw, 0)
        upper[self.part("y")] = self.export_kw
        upper[self.part("o")] = self.excess_kw[self.over_slots]
        for name, (least, most) in {**giving.bounds(self), **self.loads.bounds}.items():
            lower[self.part(name)], upper[self.part(name)] = least, most
        return lower, upper

    def _battery_bounds(self, lower: Series, upper: Series) -> None:
        """Power and stored energy. A battery found outside its band may stay where it is, never move further out."""
        battery = self.problem.battery
        if battery is None:
            return
        assert battery.soc is not None  # a battery of unknown charge is not planned with
        capacity = battery.capacity_wh / 1000
        now = battery.soc * capacity
        upper[self.part("c")] = self.charge_kw
        upper[self.part("d")] = self._discharge_room(self.discharge_kw)
        lower[self.part("e")] = min(battery.min_soc * capacity, now)
        upper[self.part("e")] = max(battery.max_soc * capacity, now)
        if self.problem.battery_end_soc is not None:
            lower[self.part("e")][-1] = max(
                lower[self.part("e")][-1], min(self.problem.battery_end_soc * capacity, now)
            )

    def _discharge_room(self, most: float) -> Series:
        """A circuit above the battery carries its discharge backwards: at most its fuses and what is used there.

        In a long slot the connection exports more than its mean (column y) in some quarters.
        """
        problem = self.problem
        assert problem.battery is not None
        room = np.full(self.slots, most)
        if problem.least_w:
            export = np.maximum(rooms.export_limit_kw(problem) + rooms.least_kw(problem)[0], 0.0)
            long = self.hours > problem.slot_s / 3600 * (1 + LONGER)
            room = np.where(long, np.minimum(room, export), room)
        loads = self.battery_weight > 0
        path = list(problem.grid.path(problem.battery.node))
        each = giving.back_room_kw(problem)[path][:, loads] / self.battery_weight[loads, None]
        least: Series = np.minimum(room, each.min(axis=(0, 1)))
        return least

    # What must hold

    def build(self, cost: Series) -> LinearProgram:
        """The whole program with this cost. The matrix is built once for all costs."""
        lower, upper = self.bounds
        matrix, rhs, equalities = self._matrix
        return LinearProgram(cost, matrix, rhs, equalities, lower.copy(), upper.copy())

    @cached_property
    def constraints(self) -> tuple[Rows, ...]:
        return all_rows(self)

    def rows_of(self, *names: str) -> NDArray[np.bool_]:
        """Which rows of the matrix are constraints of these names."""
        parts = self.constraints
        return np.repeat([rows.name in names for rows in parts], [rows.count for rows in parts])

    @cached_property
    def _matrix(self) -> tuple[sp.csr_matrix, Series, int]:
        parts = self.constraints
        heights = np.cumsum([0, *(rows.count for rows in parts)])
        row = np.concatenate([rows.row + above for rows, above in zip(parts, heights, strict=False)])
        column = np.concatenate([rows.column for rows in parts])
        value = np.concatenate([rows.value for rows in parts])
        matrix = sp.csr_matrix((value, (row, column)), shape=(int(heights[-1]), self.width))
        equalities = sum(rows.count for rows in parts if rows.equal)
        return matrix, np.concatenate([rows.rhs for rows in parts]), equalities


def peak_slots(program: Program, charge: PeakCharge) -> NDArray[np.intp]:
    """The slots of a charge in which the site could import more than is paid for already."""
    inside = np.zeros(program.slots, dtype=bool)
    inside[charge.first_slot : charge.last_slot] = charge.eur_per_kw > 0
    return np.flatnonzero(inside & (program.could_import_kw > charge.free_w / 1000 + TOLERANCE_KW))


def _mean_of_phases(room: Series) -> Series:
    """The mean of three phases (axis 1). One that the building alone has filled helps nobody and takes from nobody;
    where it has filled all, what is above them counts."""
    floor = np.minimum(room.max(axis=1, keepdims=True), 0.0)
    mean: Series = np.maximum(room, floor).mean(axis=1)
    return mean

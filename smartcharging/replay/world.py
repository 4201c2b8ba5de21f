"""The day itself, in virtual time: a step at a time, a policy decides and the cars, stations and meters do as they do.

A step is quasi-static. The building and the sun take a new value, the policy is asked with that reading, the stations
follow; where the live layer raises somebody only after another has come down, it is asked again in the same step,
`CYCLE_S` later, until nothing changes or the step is over. What stands then, stands for the rest of the step.

A station that is out of reach keeps its last limit until the lease ends, then its fail-safe. A car takes a share of
what it is offered, nothing below its minimum, and less and less when it is charged to the brim.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from smartcharging.engine.grid import NOMINAL_V
from smartcharging.engine.snapshot import BatteryState
from smartcharging.replay.days import MINUTE_S, SLOT_S, Day, Visit
from smartcharging.replay.moment import Lived, Moment, Orders, Policy
from smartcharging.replay.site import Floats

LEASE_S = 300.0
CYCLE_S = 15
MOST_CYCLES = 4
NOTICED_S = 20
TAPER_FROM = 0.1  # of the energy wanted: what is left when a car begins to slow down …
TAPER_TO = 0.25  # … to this share of what it could take
NEVER = -1e9
SLACK_A = 0.05
DRAWS_A = 0.5


def live(day: Day, policy: Policy, step_s: int = 60, clock: Callable[[], float] | None = None) -> Lived:
    """Live the day under a policy."""
    began = clock() if clock else 0.0
    world = World(day, step_s)
    for second in range(0, day.seconds, step_s):
        world.step(policy, second)
    return world.lived(tuple(policy.plan_s), clock() - began if clock else 0.0)


class World:
    """Everything that is true. Policies see only `moment`."""

    def __init__(self, day: Day, step_s: int) -> None:
        self.day, self.site, self.step_s = day, day.site, step_s
        n = len(self.site.sockets)
        self.visit = np.full(n, -1)
        self.came = np.zeros(n, dtype=np.intp)
        self.safe_a = np.array([s.fail_safe_a for s in self.site.sockets])
        self.min_a = np.array([s.min_a for s in self.site.sockets])
        self.wired = np.array([s.phases for s in self.site.sockets], dtype=bool)
        self.socket_a = np.array([s.max_a for s in self.site.sockets])
        self.offered, self.before = np.zeros(n), np.zeros(n)
        self.since, self.lease = np.full(n, NEVER), np.full(n, NEVER)
        self.on_since, self.off_since = np.full(n, np.nan), np.full(n, np.nan)
        self.current = np.zeros((n, 3))
        self.measured, self.measured_s = np.full((n, 3), np.nan), np.full(n, NEVER)
        self.phases, self.car_a = self.wired.copy(), self.socket_a.copy()
        self.takes, self.tapers = np.ones(n), np.zeros(n, dtype=bool)
        self.stated, self.arrived = np.full(n, np.nan), np.full(n, np.nan)
        self.priority = np.zeros(n, dtype=np.intp)
        self.need, self.wanted = np.zeros(n), np.zeros(n)
        self.draws = np.zeros(n, dtype=bool)
        self.delivered = np.zeros(len(day.visits))
        self.switches = np.zeros(len(day.visits), dtype=np.intp)
        self.battery: BatteryState | None = self.site.battery
        self.soc = self.battery.soc or 0.0 if self.battery else 0.0
        self.battery_w, self.battery_wh = 0.0, 0.0
        self.month_peak_w = self.site.month_peak_w
        slots = day.slots
        self.net_wh, self.held_wh = np.zeros(slots), np.zeros(slots)
        self.over_s, self.over_steps, self.worst_a = 0.0, 0, 0.0
        self._next, self._changed, self._began = 0, True, 0
        self._reachable = np.ones(n, dtype=bool)
        self._silent: frozenset[int] = frozenset()
        self.trace_net: list[float] = []
        self.trace_cars: list[float] = []

    def step(self, policy: Policy, second: int) -> None:
        self._come_and_go(second)
        self._faults(second)
        minute, last = second // MINUTE_S, max((second + self.step_s) // MINUTE_S, second // MINUTE_S + 1)
        building, sun = float(self.day.building_w[minute:last].mean()), float(self.day.pv_w[minute:last].mean())
        self._take_currents(second)
        self._began = second
        cycles = min(max(self.step_s // CYCLE_S, 1), MOST_CYCLES)
        for cycle in range(cycles):
            at = second + cycle * CYCLE_S
            orders = policy.decide(self.moment(at, building, -sun, cycle == 0))
            self._obey(orders, at)
            self._take_currents(at)
            self._serve(orders, building, sun)
            self._changed = False
            if orders.settled:
                break
        self._check_limits(building, sun, second)
        self._book(building, sun, second)

    # --- who is here ------------------------------------------------------------------------------------------------

    def _come_and_go(self, second: int) -> None:
        visits = self.day.visits
        for i in np.flatnonzero(self.visit >= 0).tolist():
            if visits[self.visit[i]].departure_s <= second:
                self._leave(i)
        while self._next < len(visits) and visits[self._next].arrival_s <= second:
            self._arrive(self._next, visits[self._next], second)
            self._next += 1

    def _leave(self, i: int) -> None:
        self.switches[self.visit[i]] += self.draws[i]
        self.visit[i], self.need[i], self.draws[i], self.current[i] = -1, 0.0, False, 0.0
        self.measured[i], self.phases[i], self.car_a[i] = np.nan, self.wired[i], self.socket_a[i]
        self.arrived[i] = self.stated[i] = np.nan
        self._changed = True

    def _arrive(self, number: int, visit: Visit, second: int) -> None:
        i = visit.socket
        if self.visit[i] >= 0:
            self._leave(i)
        self.visit[i], self.came[i] = number, self.came[i] + 1
        self.need[i] = self.wanted[i] = visit.energy_wh
        self.arrived[i], self.stated[i], self.priority[i] = second, visit.stated_s, visit.priority
        self.phases[i], self.car_a[i] = np.array(visit.phases) & self.wired[i], min(visit.max_a, self.socket_a[i])
        self.takes[i], self.tapers[i] = visit.takes, visit.tapers
        self.on_since[i] = second if self.offered[i] > 0 else np.nan
        self.off_since[i] = np.nan
        self.measured[i], self.measured_s[i] = 0.0, second  # a charge begins with a report
        self._changed = True

    # --- what is out of reach ---------------------------------------------------------------------------------------

    def _faults(self, second: int) -> None:
        if not self.day.faults:
            return
        there = [f for f in self.day.faults if f.first_s <= second < f.last_s]
        self._reachable[:] = True
        self._reachable[[f.socket for f in there if f.socket is not None]] = False
        self._silent = frozenset(f.node for f in there if f.node is not None)

    def _stands_by(self, at: float) -> Floats:
        return np.where(self._reachable | (self.lease > at), self.offered, self.safe_a)

    def _obey(self, orders: Orders, at: int) -> None:
        reached = self._reachable
        limit = np.where(reached, orders.limit_a, self.offered)
        changes = np.abs(limit - self.offered) > SLACK_A
        self.before = np.where(changes, self.offered, self.before)
        self.since = np.where(changes, at, self.since)
        here = self.visit >= 0
        starts, stops = changes & (limit > 0) & ~(self.offered > 0), changes & (limit <= 0) & (self.offered > 0)
        told_on = here & ((limit > 0) & (starts | np.isnan(self.on_since)))
        self.on_since = np.where(told_on, at, np.where(limit > 0, self.on_since, np.nan))
        self.off_since = np.where(here & stops, at, np.where(limit > 0, np.nan, self.off_since))
        self.offered = np.where(changes, limit, self.offered)
        self.lease = np.where(reached, at + LEASE_S, self.lease)

    # --- cars, battery, sun -----------------------------------------------------------------------------------------

    def _take_currents(self, at: int) -> None:
        offer = np.minimum(self._stands_by(at), self.car_a)
        left = np.clip(self.need / np.maximum(TAPER_FROM * self.wanted, 1.0), TAPER_TO, 1.0)
        most = np.where(self.tapers, self.car_a * left, self.car_a)
        takes = np.minimum(offer, most) * self.takes
        # No more than the rest of the step can hold: who is full within it takes less on average.
        lines = np.maximum(self.phases.sum(axis=1), 1)
        takes = np.minimum(takes, self.need * 3600 / self.step_s / (lines * NOMINAL_V))
        takes = np.where((self.visit >= 0) & (offer >= self.min_a - 1e-6), takes, 0.0)
        self.current = takes[:, None] * self.phases
        heard = self._reachable & (self.visit >= 0)
        self.measured[heard], self.measured_s[heard] = self.current[heard], at

    def _cars_w(self) -> float:
        return float(self.current.sum()) * NOMINAL_V

    def _serve(self, orders: Orders, building: float, sun: float) -> None:
        """The battery's power for this step, held to what it holds."""
        battery = self.battery
        if battery is None:
            return
        wish = orders.battery_w
        if wish is None:
            wish = -(building - sun + self._cars_w())
        hours = self.step_s / 3600
        stored = self.soc * battery.capacity_wh
        most = (battery.max_soc * battery.capacity_wh - stored) / battery.efficiency / hours
        least = -(stored - battery.min_soc * battery.capacity_wh) * battery.efficiency / hours
        power = min(max(wish, -battery.max_discharge_w), battery.max_charge_w)
        self.battery_w = min(max(power, min(least, 0.0)), max(most, 0.0))

    def _held_back(self, building: float, sun: float, second: int) -> float:
        """Where more would be exported than may be, or at a loss, the inverters hold back."""
        slot = second // SLOT_S
        export = self.site.export_limit_w if self.day.sell_eur_per_kwh[slot] >= 0 else 0.0
        net = building - sun + self._cars_w() + self.battery_w
        return min(max(-net - export, 0.0), sun)

    # --- what came of it --------------------------------------------------------------------------------------------

    def _node_a(self, building: float, sun: float) -> Floats:
        """Net load of each circuit: L1, L2, L3 and all together."""
        table = self.site.summed(np.column_stack((self.current, self.current.sum(axis=1))))
        each = (building - sun) / NOMINAL_V
        table[0] += np.array([each / 3, each / 3, each / 3, each])
        if self.battery is not None:
            amps = self.battery_w / NOMINAL_V
            for n in self.site.grid.path(self.battery.node):
                table[n] += np.array([amps / 3, amps / 3, amps / 3, amps])
        return table

    def _check_limits(self, building: float, sun: float, second: int) -> None:
        """A limit that building and sun alone exceed is nobody's fault, and what they exceed it by is not counted."""
        held = self._held_back(building, sun, second)
        limit = self.site.limit_a.copy()
        each = (building - sun) / NOMINAL_V
        limit[0] = np.maximum(limit[0], np.array([each / 3, each / 3, each / 3, each]))
        over = self._node_a(building, sun - held) - limit
        nodes = int((over > SLACK_A).any(axis=1).sum())
        self.over_steps += nodes
        self.over_s += nodes * self.step_s
        if nodes:
            self.worst_a = max(self.worst_a, float(over.max()))

    def _book(self, building: float, sun: float, second: int) -> None:
        hours, slot = self.step_s / 3600, second // SLOT_S
        here = self.visit >= 0
        energy = self.current.sum(axis=1) * NOMINAL_V * hours
        energy = np.where(here, np.minimum(energy, self.need), 0.0)
        self.need -= energy
        self.need[self.need < 1.0] = 0.0
        self.delivered[self.visit[here]] += energy[here]
        draws = here & (self.current.max(axis=1) > DRAWS_A)
        changed = here & (draws != self.draws)
        np.add.at(self.switches, self.visit[changed], 1)
        self.draws = draws
        held = self._held_back(building, sun, second)
        net_w = building - sun + held + self._cars_w() + self.battery_w
        self.net_wh[slot] += net_w * hours
        self.held_wh[slot] += held * hours
        self.trace_net.append(net_w)
        self.trace_cars.append(self._cars_w())
        if self.battery is not None:
            flow = self.battery_w * hours
            stored = flow * self.battery.efficiency if flow > 0 else flow / self.battery.efficiency
            self.soc += stored / self.battery.capacity_wh
            self.battery_wh += abs(flow)
        if (second + self.step_s) % SLOT_S == 0:
            self.month_peak_w = max(self.month_peak_w, self.net_wh[slot] * 3600 / SLOT_S)

    def moment(self, at: int, building: float, pv: float, begins: bool) -> Moment:
        slot = at // SLOT_S
        here = self.visit >= 0
        net_w = building + pv + self._cars_w() + self.battery_w
        so_far_wh = net_w * (at - self._began) / 3600
        return Moment(
            site=self.site,
            now=self.day.at(at),
            second=at,
            here=here,
            came=self.came,
            need_wh=self.need,
            arrived_s=self.arrived,
            stated_s=self.stated,
            priority=self.priority,
            phases=self.phases,
            max_a=self.car_a,
            offered_a=self.offered,
            before_a=self.before,
            since_s=self.since,
            lease_s=self.lease,
            on_since_s=self.on_since,
            off_since_s=self.off_since,
            measured_a=self.measured,
            measured_s=self.measured_s,
            reachable=self._reachable,
            building_w=building,
            pv_w=pv,
            node_a=self._node_a(building, -pv)[:, :3],
            silent=self._silent,
            soc=self.soc,
            battery_w=self.battery_w,
            quarter_import_wh=max(self.net_wh[slot] + so_far_wh, 0.0),
            month_peak_w=self.month_peak_w,
            changed=self._changed and begins,
            begins=begins,
        )

    def lived(self, plan_s: tuple[float, ...], cpu_s: float) -> Lived:
        battery = self.battery
        stored = (self.soc - (battery.soc or 0.0)) * battery.capacity_wh if battery else 0.0
        return Lived(
            import_wh=np.maximum(self.net_wh, 0.0),
            export_wh=np.maximum(-self.net_wh, 0.0),
            pv_wh=self.day.by_slot(self.day.pv_w) * SLOT_S / 3600,
            held_back_wh=self.held_wh,
            battery_wh=self.battery_wh,
            stored_wh=stored,
            delivered_wh=self.delivered,
            switches=self.switches,
            over_node_s=self.over_s,
            over_steps=self.over_steps,
            worst_over_a=self.worst_a,
            plan_s=plan_s,
            cpu_s=cpu_s,
            seen={"net_w": np.array(self.trace_net), "cars_w": np.array(self.trace_cars)},
        )

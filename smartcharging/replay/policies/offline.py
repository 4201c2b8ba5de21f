"""The best that was possible: everything known in advance, one exact plan over the whole replay.

It is a bound below every policy with the same evaluation: cars take any power between nothing and their most, to the
last watt-hour, also in the part of a quarter hour in which they come or go.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from smartcharging.engine.grid import NOMINAL_V
from smartcharging.engine.plan.asked import set_right
from smartcharging.engine.plan.exact import exact
from smartcharging.engine.plan.judge import stored_wh
from smartcharging.engine.plan.problem import PlanProblem, PlanSession
from smartcharging.engine.plan.program import Program
from smartcharging.engine.plan.solve import finish
from smartcharging.replay.days import SLOT_S, Day, Visit
from smartcharging.replay.moment import Lived
from smartcharging.replay.site import Floats

NAME = "offline optimum"
TIME_S = 600.0


class _PartSlots(Program):
    """Cars that come or go within a slot have only their part of it."""

    def __init__(self, problem: PlanProblem, visits: tuple[Visit, ...]) -> None:
        self._visits = visits
        super().__init__(problem)

    def _cells(self) -> None:
        super()._cells()
        arrival = np.array([v.arrival_s for v in self._visits], dtype=float)[self.session]
        departure = np.array([v.departure_s for v in self._visits], dtype=float)[self.session]
        inside = np.minimum(departure, (self.slot + 1) * SLOT_S) - np.maximum(arrival, self.slot * SLOT_S)
        self.cell_max_kw = self.cell_max_kw * np.clip(inside / SLOT_S, 0.0, 1.0)


def problem_of(day: Day) -> PlanProblem:
    """The whole replay as one planning problem."""
    site = day.site
    return PlanProblem(
        start=day.start,
        slot_s=SLOT_S,
        grid=site.grid,
        sessions=tuple(_session(day, i, v) for i, v in enumerate(day.visits)),
        building_w=day.by_slot(day.building_w),
        pv_w=-day.by_slot(day.pv_w),
        import_eur_per_kwh=day.buy_eur_per_kwh,
        export_eur_per_kwh=day.sell_eur_per_kwh,
        battery=site.battery,
        month_peak_w=site.month_peak_w,
        peak_eur_per_kw=site.peak_eur_per_kw,
        export_limit_w=np.full(day.slots, site.export_limit_w),
        time_limit_s=TIME_S,
        battery_end_eur_per_kwh=day.stored_eur_per_kwh,
        early_eur_per_kwh=0.0,
        relative_gap=0.0,
    )


def _session(day: Day, number: int, visit: Visit) -> PlanSession:
    socket = day.site.sockets[visit.socket]
    a, b, c = (x and y for x, y in zip(visit.phases, socket.phases, strict=True))
    most_a = min(visit.max_a, socket.max_a)
    return PlanSession(
        key=f"visit {number}",
        node=socket.node,
        phases=(a, b, c),
        first_slot=visit.arrival_s // SLOT_S,
        last_slot=min(-(-visit.departure_s // SLOT_S), day.slots),
        max_w=most_a * (a + b + c) * NOMINAL_V * visit.takes,
        min_w=0.0,
        energy_wh=visit.energy_wh,
        priority=visit.priority,
        value_eur_per_kwh=day.site.value_eur_per_kwh[visit.priority],
    )


def live(day: Day, clock: Callable[[], float] | None = None) -> Lived:
    """The day as it would have been. Raises `solver.NoSolution`."""
    began = clock() if clock else 0.0
    problem = problem_of(day)
    notes: list[str] = []
    sessions = set_right(problem, notes)
    answer = exact(_PartSlots(problem, day.visits), lambda: TIME_S)
    plan, _ = finish(problem, answer, notes)
    assert len(sessions) == len(problem.sessions)
    spent = clock() - began if clock else 0.0
    hours = SLOT_S / 3600
    power: list[Floats] = [plan.session_w[s.key] for s in problem.sessions]
    battery = day.site.battery
    stored = 0.0
    if battery is not None and battery.soc is not None:
        stored = float(stored_wh(problem, plan.battery_w)[-1]) - battery.soc * battery.capacity_wh
    return Lived(
        import_wh=np.maximum(plan.grid_w, 0) * hours,
        export_wh=np.maximum(-plan.grid_w, 0) * hours,
        pv_wh=-problem.pv_w * hours,
        held_back_wh=(plan.pv_w - problem.pv_w) * hours,
        battery_wh=float(np.abs(plan.battery_w).sum()) * hours,
        stored_wh=stored,
        delivered_wh=np.array([p.sum() * hours for p in power]),
        switches=np.array([_switches(p) for p in power], dtype=np.intp),
        plan_s=(spent,),
        cpu_s=spent,
        seen={"net_w": plan.grid_w, "cars_w": sum(power, np.zeros(day.slots))},
    )


def _switches(power_w: Floats) -> int:
    on = np.concatenate([[False], power_w > 1.0, [False]])
    return int((on[1:] != on[:-1]).sum())

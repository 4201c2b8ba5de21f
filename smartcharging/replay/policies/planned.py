"""Policies that plan the day and follow the plan with the product's own live layer.

Ours is what the product does: `plan.solve` every quarter hour and when somebody comes or goes or the building is not
what was planned with, with room for the cars that are still expected; `allocate` in between, which knows the plan's
peak and lets a car that has no time left exceed the plan. The other two are what is left when a part is taken away.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import numpy as np

from smartcharging.engine.carried import Carried, takes_of
from smartcharging.engine.forecast.arrivals import Habits, still_to_come
from smartcharging.engine.forecast.leaving import Punctuality, gone
from smartcharging.engine.grid import NOMINAL_V, Phases
from smartcharging.engine.live.allocate import allocate
from smartcharging.engine.live.peak import peak_target_w
from smartcharging.engine.plan.problem import PlanProblem, PlanResult, PlanSession, Series
from smartcharging.engine.plan.solve import solve
from smartcharging.engine.plan.window import WAITING_EUR_PER_KWH, counted_on_w, hurry, losses, ready_by
from smartcharging.engine.rules import DEFAULT as RULES
from smartcharging.engine.snapshot import BatteryState, NodeReading, Session, Snapshot
from smartcharging.replay.days import SLOT_S
from smartcharging.replay.moment import Known, Moment, Orders

USUAL_STAY_S = 4 * 3600  # as `horizon.departure_of`: of a car that is still there after its time …
LEAST_STAY_S = 3600
SETTLES_S = 60
DIFFERS_W, DIFFERS_SHARE = 2000.0, 0.25  # as `planning.outdated`
CLOSE_A = 0.05
DRAWS_A = 1.0


@dataclass(frozen=True)
class Parts:
    """What of the product a policy has."""

    name: str
    battery: bool = True  # the plan has the battery, else it serves the connection by itself
    arrivals: bool = True  # the plan leaves room for cars that are expected, and reckons with drivers who leave early
    peak: bool = True  # the live layer holds the quarter hour to the plan's peak
    quantile: float | None = None


OURS = Parts("ours")
MYOPIC = Parts("myopic plan", arrivals=False, peak=False)
ACN_LIKE = Parts("ACN-MPC-like", battery=False, arrivals=False, peak=False)


class Planned:
    """Plan, follow, plan again."""

    def __init__(
        self, known: Known, parts: Parts, habits: Habits | None = None, punctuality: Punctuality | None = None
    ) -> None:
        self.name, self.known, self.parts, self.habits, self.punctuality = parts.name, known, parts, habits, punctuality
        self.plan_s: list[float] = []
        self.plan: PlanResult | None = None
        self._planned_at, self._first, self._building_w = -SLOT_S, 0, 0.0
        self._came: np.ndarray = np.zeros(0, dtype=np.intp)
        self._carried: Carried | None = None

    def decide(self, moment: Moment) -> Orders:
        if moment.begins and self._due(moment):
            self._make_plan(moment)
        answer = allocate(self._snapshot(moment))
        self._carried = answer.carried
        limit = np.array([answer.shares[s.key].limit_a for s in moment.site.sockets])
        battery = moment.site.battery
        battery_w = answer.battery_w.get(battery.key) if battery is not None and self.parts.battery else None
        same = bool((np.abs(limit - moment.offered_a)[moment.reachable] < CLOSE_A).all())
        calm = battery_w is None or abs(battery_w - moment.battery_w) < 50.0
        return Orders(limit, battery_w, settled=same and calm)

    # --- the plan ---------------------------------------------------------------------------------------------------

    def _due(self, moment: Moment) -> bool:
        """Every slot; on arrival and departure; and when the building differs from what was planned with."""
        since = moment.second - self._planned_at
        if since >= SLOT_S or moment.second // SLOT_S != self._planned_at // SLOT_S:
            return True
        if since < SETTLES_S:
            return False
        off = abs(moment.building_w - self._building_w)
        return moment.changed or off > max(DIFFERS_W, DIFFERS_SHARE * self._building_w)

    def _make_plan(self, moment: Moment) -> None:
        problem = self.problem(moment)
        self.plan = solve(problem, clock=self.known.clock)
        self.plan_s.append(self.plan.solve_s)
        self._planned_at, self._first = moment.second, moment.second // SLOT_S
        self._building_w = float(problem.building_w[0])
        self._came = moment.came.copy()

    def problem(self, moment: Moment) -> PlanProblem:
        """As `horizon.day` makes it: from the running slot to the end of the replay."""
        site, slot = moment.site, moment.second // SLOT_S
        building, pv = self.known.expected(slot)
        slots = building.shape[0]
        present = [self._session(moment, i, slots) for i in np.flatnonzero(moment.here).tolist()]
        battery = site.battery if self.parts.battery else None
        return PlanProblem(
            start=moment.now - _into_slot(moment.now),
            slot_s=SLOT_S,
            grid=site.grid,
            sessions=(*present, *self._expected(moment, slots)),
            building_w=building,
            pv_w=-pv,
            import_eur_per_kwh=self.known.buy_eur_per_kwh[slot:],
            export_eur_per_kwh=self.known.sell_eur_per_kwh[slot:],
            battery=replace(battery, soc=moment.soc) if battery is not None else None,
            month_peak_w=moment.month_peak_w,
            peak_eur_per_kw=site.peak_eur_per_kw,
            export_limit_w=np.full(slots, site.export_limit_w),
            sun_trust=RULES.sun_trust,
            early_eur_per_kwh=WAITING_EUR_PER_KWH,
            battery_end_eur_per_kwh=self.known.day.stored_eur_per_kwh,
        )

    def _session(self, moment: Moment, i: int, slots: int) -> PlanSession:
        socket = moment.site.sockets[i]
        a, b, c = moment.phases[i].tolist()
        priority = int(moment.priority[i])
        most_w = counted_on_w(float(moment.max_w[i]), takes_of(self._carried, socket.key))
        leaves = min(max(self._leaves_s(moment, i) // SLOT_S - moment.second // SLOT_S, 1), slots)
        need_wh, running = float(moment.need_wh[i]), bool(moment.measured_a[i].max() > DRAWS_A)
        last = ready_by(leaves, need_wh, most_w, SLOT_S)
        value = moment.site.value_eur_per_kwh[priority]
        return PlanSession(
            key=socket.key,
            node=socket.node,
            phases=(a, b, c),
            first_slot=0,
            last_slot=last,
            max_w=most_w,
            min_w=socket.min_a * (a + b + c) * NOMINAL_V,
            energy_wh=need_wh,
            priority=priority,
            hurry=hurry(last, need_wh, most_w, SLOT_S, running),
            value_eur_per_kwh=value,
            gone_eur_per_kwh=losses(self._gone(moment, i, last), value),
        )

    def _gone(self, moment: Moment, i: int, slots: int) -> Series:
        """The chance that the driver has left, by slot. Of one who stays longer than he said nothing is known."""
        if self.punctuality is None or not self.parts.arrivals or float(moment.stated_s[i]) <= moment.second:
            return np.zeros(0)
        since = moment.second // SLOT_S * SLOT_S
        return gone(
            self.punctuality, since - float(moment.arrived_s[i]), float(moment.stated_s[i]) - since, slots, SLOT_S
        )

    def _leaves_s(self, moment: Moment, i: int) -> int:
        stated = float(moment.stated_s[i])
        if stated > moment.second:
            return math.floor(stated)
        return max(int(moment.arrived_s[i]) + USUAL_STAY_S, moment.second + LEAST_STAY_S)

    def _expected(self, moment: Moment, slots: int) -> tuple[PlanSession, ...]:
        if self.habits is None or not self.parts.arrivals:
            return ()
        slot = moment.second // SLOT_S
        places = []
        values = moment.site.value_eur_per_kwh
        usual = sorted(values)[len(values) // 2]
        for i, socket in enumerate(moment.site.sockets):
            free = max(-(-self._leaves_s(moment, i) // SLOT_S) - slot, 1) if moment.here[i] else 0
            if free < slots:
                places.append(
                    PlanSession(
                        key=socket.key,
                        node=socket.node,
                        phases=socket.phases,
                        first_slot=free,
                        last_slot=slots,
                        max_w=socket.max_w,
                        min_w=0.0,
                        energy_wh=0.0,
                        priority=usual,
                        value_eur_per_kwh=values[usual],
                    )
                )
        start = moment.now - _into_slot(moment.now)
        zone = start.tzinfo
        assert zone is not None
        return still_to_come(self.habits, start, slots, zone, places, self.parts.quantile)

    # --- the live layer ---------------------------------------------------------------------------------------------

    def _snapshot(self, moment: Moment) -> Snapshot:
        site, plan = moment.site, self.plan
        readings = {
            n: NodeReading(None) if n in moment.silent else NodeReading(_phases(moment.node_a[n]), at=moment.now)
            for n, circuit in enumerate(site.grid.circuits)
            if circuit.metered
        }
        return Snapshot(
            now=moment.now,
            grid=site.grid,
            sessions=tuple(self._live_session(moment, i) for i in range(len(site.sockets))),
            readings=readings,
            batteries=self._batteries(moment),
            pv_w=moment.pv_w,
            plan_valid=plan is not None,
            peak_target_w=self._peak_target_w(moment),
            quarter_import_wh=None if 0 in moment.silent else moment.quarter_import_wh,
            carried=self._carried,
        )

    def _peak_target_w(self, moment: Moment) -> float | None:
        if self.plan is None or not self.parts.peak or moment.site.peak_eur_per_kw <= 0:
            return None
        return peak_target_w(moment.month_peak_w, self.plan.peak_w)

    def _batteries(self, moment: Moment) -> tuple[BatteryState, ...]:
        battery = moment.site.battery
        if battery is None:
            return ()
        if not self.parts.battery:  # it works by itself; what it does now is all that is known of it
            return (replace(battery, soc=moment.soc, power_w=moment.battery_w, planned_w=moment.battery_w),)
        planned = self._now(moment, self.plan.battery_w) if self.plan is not None else None
        return (replace(battery, soc=moment.soc, power_w=moment.battery_w, planned_w=planned),)

    def _now(self, moment: Moment, series: Series) -> float:
        return float(series[moment.second // SLOT_S - self._first])

    def _planned_w(self, moment: Moment, i: int) -> float | None:
        """A car that came after the plan was made is not in it."""
        if self.plan is None or not moment.here[i] or self._came[i] != moment.came[i]:
            return None
        series = self.plan.session_w.get(moment.site.sockets[i].key)
        return None if series is None else self._now(moment, series)

    def _live_session(self, moment: Moment, i: int) -> Session:
        socket = moment.site.sockets[i]
        a, b, c = moment.phases[i].tolist()
        here = bool(moment.here[i])

        def since(seconds: float) -> datetime | None:
            return None if math.isnan(seconds) else self.known.day.at(seconds)

        measured = here and not math.isnan(moment.measured_a[i, 0]) and moment.second - moment.measured_s[i] <= 90
        return Session(
            key=socket.key,
            node=socket.node,
            phases=(a, b, c),
            max_a=float(moment.max_a[i]),
            min_a=socket.min_a,
            wants=here and moment.need_wh[i] > 0,
            reachable=bool(moment.reachable[i]),
            offered_a=float(moment.offered_a[i]),
            offered_since=since(moment.since_s[i]),
            offered_before_a=float(moment.before_a[i]),
            lease_until=since(moment.lease_s[i]),
            fail_safe_a=socket.fail_safe_a,
            measured_a=_phases(moment.measured_a[i]) if measured else None,
            measured_at=since(moment.measured_s[i]) if measured else None,
            priority=int(moment.priority[i]),
            arrived_at=since(moment.arrived_s[i]) if here else None,
            departure=since(moment.stated_s[i]) if here else None,
            energy_needed_wh=float(moment.need_wh[i]) if here else None,
            planned_w=self._planned_w(moment, i),
            on_since=since(moment.on_since_s[i]),
            off_since=since(moment.off_since_s[i]),
        )


def _phases(row: np.ndarray) -> Phases:
    a, b, c = row.tolist()[:3]
    return (a, b, c)


def _into_slot(now: datetime) -> timedelta:
    return timedelta(seconds=now.timestamp() % SLOT_S)

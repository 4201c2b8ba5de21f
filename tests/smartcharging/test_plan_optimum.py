"""The optimum by a linear program of its own, written from `docs/engine.md` alone: no plan is further from it than it
says."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog

from smartcharging.engine.grid import Circuit, Grid
from smartcharging.engine.plan import worth
from smartcharging.engine.plan.problem import PlanProblem
from smartcharging.engine.plan.solve import solve
from tests.smartcharging.planning_worlds import ALL, ON_L1, ON_L2, battery, car, day

SAME = 1e-6
LEAST = 1e-6  # EUR per kWh of wear and of sun that is held back


class Columns:
    """A linear program in the making: columns by number, rows as sums of them."""

    def __init__(self) -> None:
        self.cost: list[float] = []
        self.bounds: list[tuple[float, float]] = []
        self.most: list[tuple[dict[int, float], float]] = []
        self.equal: list[tuple[dict[int, float], float]] = []

    def add(self, cost: float, low: float, high: float) -> int:
        self.cost.append(cost)
        self.bounds.append((low, high))
        return len(self.cost) - 1

    def minimum(self) -> float:
        def table(rows: list[tuple[dict[int, float], float]]) -> tuple[np.ndarray, np.ndarray]:
            out = np.zeros((len(rows), len(self.cost)))
            for number, (terms, _) in enumerate(rows):
                out[number, list(terms)] = list(terms.values())
            return out, np.array([rhs for _, rhs in rows])

        (upper, b_upper), (equal, b_equal) = table(self.most), table(self.equal)
        found = linprog(self.cost, upper, b_upper, equal, b_equal, bounds=self.bounds, method="highs")
        assert found.status == 0, found.message
        return float(found.fun)


def optimum(problem: PlanProblem) -> float:
    """In kW and kWh; of batteries that are never worth burning energy in, and buildings within every limit."""
    hours, slots = problem.hours, problem.slots
    buy, sell, value = problem.bought_eur_per_kwh, worth.export_prices(problem), worth.goal_values(problem)
    lp = Columns()
    takes: list[list[tuple[int, float, int, tuple[bool, ...]]]] = [
        [] for _ in range(slots)
    ]  # column, sign, node, phases
    for s, short_eur in zip(problem.sessions, value, strict=True):
        got: dict[int, float] = {}
        for t in range(s.first_slot, s.last_slot):
            wear = max(s.wear_eur_per_kwh, LEAST) if s.discharge_w else 0.0
            p = lp.add((problem.early_eur_per_kwh * t + wear) * hours[t], 0, s.max_w / 1000)
            takes[t].append((p, 1.0, s.node, s.phases))
            got = {**got, p: s.efficiency * hours[t]}
            if s.discharge_w:
                g = lp.add(wear * hours[t], 0, s.discharge_w / 1000)
                takes[t].append((g, -1.0, s.node, s.phases))
                got = {**got, g: -hours[t] / s.efficiency}
                lp.most += [
                    (got, s.energy_wh / 1000),
                    ({column: -kwh for column, kwh in got.items()}, s.lends_wh / 1000),
                ]
        u = lp.add(float(short_eur), 0, s.energy_wh / 1000)
        lp.equal.append(({**got, u: 1.0}, s.energy_wh / 1000))
    store = problem.battery
    if store is not None and store.soc is not None:
        wear, before = max(store.wear_eur_per_kwh, LEAST), None
        for t in range(slots):
            c = lp.add(wear * hours[t], 0, store.max_charge_w / 1000)
            d = lp.add(wear * hours[t], 0, store.max_discharge_w / 1000)
            e = lp.add(-worth.stored_value(problem) if t == slots - 1 else 0.0, 0, store.capacity_wh / 1000)
            flow = {e: 1.0, c: -store.efficiency * hours[t], d: hours[t] / store.efficiency}
            start = store.soc * store.capacity_wh / 1000 if before is None else 0.0
            lp.equal.append((flow if before is None else {**flow, before: -1.0}, start))
            takes[t] += [(c, 1.0, store.node, store.phases), (d, -1.0, store.node, store.phases)]
            before = e
    root = problem.grid.circuits[0]
    peak = lp.add(problem.peak_eur_per_kw, 0, np.inf)
    for t in range(slots):
        building, sun = problem.building_w[t] / 1000, -problem.pv_w[t] / 1000
        x = lp.add(buy[t] * hours[t], 0, (root.limit_w or np.inf) / 1000)
        y = lp.add(-sell[t] * hours[t], 0, min((root.export_limit_w or 0.0) / 1000, min(root.limit_a) * 0.69))
        w = lp.add(LEAST * hours[t], 0, sun)
        lp.equal.append(({**{k: sign for k, sign, _, _ in takes[t]}, w: 1.0, x: -1.0, y: 1.0}, sun - building))
        lp.most.append(({x: 1.0, peak: -1.0}, problem.month_peak_w / 1000))
        for n, circuit in enumerate(problem.grid.circuits):
            below = [found for found in takes[t] if n in problem.grid.path(found[2])]
            known = building - sun if n == 0 else 0.0
            for f in range(3):
                on = {k: sign / sum(phases) for k, sign, _, phases in below if phases[f]}
                back = {k: -part for k, part in on.items() if part < 0}
                held = {w: 1 / 3} if n == 0 else {}
                fuse = circuit.limit_a[f] * 0.23
                lp.most += [({**on, **held}, fuse - known / 3), (back, max(fuse + known / 3, 0.0))]
            if n > 0 and circuit.export_limit_w is not None:
                lp.most.append(({k: -sign for k, sign, _, _ in below}, circuit.export_limit_w / 1000))
    return lp.minimum()


@st.composite
def sites(draw: st.DrawFn) -> PlanProblem:
    slots = draw(st.integers(3, 12))
    chance = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    phases = [ALL, ALL, ON_L1, ON_L2, (True, False, True)]
    row = draw(st.sampled_from([{}, {"export_limit_w": 0.0}, {"export_limit_w": 3000.0}]))
    grid = Grid(
        (
            Circuit("grid", None, (40.0,) * 3, limit_w=draw(st.sampled_from([None, 15_000.0])), export_limit_w=6000.0),
            Circuit("row 1", 0, (draw(st.sampled_from([10.0, 20.0, 63.0])),) * 3, **row),
        )
    )
    cars = []
    for number in range(draw(st.integers(1, 5))):
        first, lends = int(chance.integers(0, slots - 1)), bool(chance.random() < 0.5)
        cars.append(
            car(
                f"{number}",
                energy_kwh=float(chance.uniform(0, 25)),
                max_kw=float(chance.choice([3.7, 7.4, 11.0])),
                first=first,
                last=int(chance.integers(first + 1, slots + 1)),
                node=int(chance.integers(2)),
                phases=phases[int(chance.integers(len(phases)))],
                efficiency=float(chance.choice([1.0, 0.9])),
                hurry=float(chance.uniform(1, 4)),
                priority=int(chance.integers(1, 3)),
                discharge_w=6000.0 * lends,
                lends_wh=8000.0 * lends,
                wear_eur_per_kwh=float(chance.choice([0.0, 0.03])),
            )
        )
    price = 0.05 + 0.4 * chance.random(slots)
    return day(
        *cars,
        slots=slots,
        building_kw=list(chance.uniform(0, 5, slots)),
        pv_kw=list(chance.uniform(0, 12, slots)),
        price=list(price),
        export=list(price * draw(st.sampled_from([-0.2, 0.5, 0.9]))),
        grid=grid,
        battery=draw(st.sampled_from([None, battery(node=1, efficiency=0.95), battery(phases=ON_L1)])),
        peak_eur_per_kw=draw(st.sampled_from([0.0, 4.0])),
        month_peak_w=3000.0,
        early_eur_per_kwh=draw(st.sampled_from([1e-4, 2e-3])),
    )


@given(sites())
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_no_plan_is_further_from_the_optimum_than_it_says(problem: PlanProblem):
    plan = solve(problem)

    best = optimum(problem)
    assert plan.gap is not None, plan.notes
    assert plan.objective_eur is not None
    assert plan.objective_eur - plan.gap * abs(plan.objective_eur) <= best + SAME * max(1.0, abs(best))
    assert plan.objective_eur >= best - SAME * max(1.0, abs(best))


def test_hurry_is_worth_no_money():
    """The cheapest slot is far away: a tie-break with a price, however small, would add up on the way."""
    price = np.full(96, 0.3)
    price[0], price[90] = 0.100, 0.0905
    urgent = car(energy_kwh=10, max_kw=40, last=96, hurry=4)
    calm = car("2", energy_kwh=0, last=96)

    plan = solve(replace(day(urgent, calm, slots=96, price=list(price)), slot_s=900))

    assert plan.session_w["1"][90] == pytest.approx(40_000)


@pytest.mark.parametrize("urgent", [0, 1, 2])
def test_among_equals_who_is_in_more_of_a_hurry_goes_first(urgent):
    cars = [car(f"{n}", energy_kwh=5, max_kw=5, hurry=3.0 if n == urgent else 1.5) for n in range(3)]

    plan = solve(day(*cars, grid=Grid((Circuit("grid", None, (100.0,) * 3, limit_w=5000.0),))))

    assert plan.session_w[f"{urgent}"][0] == pytest.approx(5000)
    assert sum(plan.shortfall_wh.values()) == 0

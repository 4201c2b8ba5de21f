"""The day in Pyomo, solved by HiGHS through its persistent interface (appsi): indexed variables and rules,
and a row for each circuit and slot in which its cars could take more than it carries."""

from __future__ import annotations

from importlib.metadata import version

import numpy as np
import pyomo.environ as pyo
from instance import Answer, Instance, serve
from pyomo.contrib.appsi.solvers.highs import Highs


def solve(day: Instance) -> Answer:
    h, slots = day.slot_h, range(day.slots)
    model = pyo.ConcreteModel()
    _variables(model, day)
    present = [[] for _ in slots]
    for i, t in model.cells:
        present[t].append(i)
    energy, efficiency, stay = day.energy_kwh.tolist(), day.efficiency.tolist(), _stays(day)
    net, most, up = day.net_kw.tolist(), day.max_kw.tolist(), day.battery_efficiency

    def goal(m: pyo.ConcreteModel, i: int) -> object:
        return efficiency[i] * h * pyo.quicksum(m.cars[i, t] for t in stay[i]) + m.short[i] == energy[i]

    def balance(m: pyo.ConcreteModel, t: int) -> object:
        cars = pyo.quicksum(m.cars[i, t] for i in present[t])
        return cars + m.charge[t] - m.discharge[t] - m.bought[t] + m.sold[t] == -net[t]

    def battery(m: pyo.ConcreteModel, t: int) -> object:
        before = m.stored[t - 1] if t else day.battery_start_kwh
        return m.stored[t] - before - h * up * m.charge[t] + h / up * m.discharge[t] == 0

    model.goal = pyo.Constraint(range(day.cars), rule=goal)
    model.balance = pyo.Constraint(slots, rule=balance)
    model.battery = pyo.Constraint(slots, rule=battery)
    model.highest = pyo.Constraint(slots, rule=lambda m, t: m.bought[t] <= m.peak)
    model.tree = pyo.ConstraintList()
    for members, limit in day.tight():
        for t in slots:
            here = [i for i in members.tolist() if t in stay[i]]
            if sum(most[i] for i in here) > limit:
                model.tree.add(pyo.quicksum(model.cars[i, t] for i in here) <= limit)
    _objective(model, day)
    solver = Highs()
    solver.highs_options = {"output_flag": False, "threads": 1}
    solver.solve(model)
    cars = np.zeros((day.cars, day.slots))
    for i, t in model.cells:
        cars[i, t] = model.cars[i, t].value
    return Answer(cars, np.array([model.charge[t].value - model.discharge[t].value for t in slots]))


def _stays(day: Instance) -> list[range]:
    return [range(first, last) for first, last in zip(day.first.tolist(), day.last.tolist(), strict=True)]


def _variables(model: pyo.ConcreteModel, day: Instance) -> None:
    slots, most = range(day.slots), day.max_kw.tolist()
    bought, sold = day.import_kw.tolist(), day.export_kw.tolist()
    least = [0.0] * (day.slots - 1) + [day.battery_end_kwh]
    model.cells = [(i, t) for i, stay in enumerate(_stays(day)) for t in stay]
    model.cars = pyo.Var(model.cells, bounds=lambda _, i, t: (0, most[i]))
    model.short = pyo.Var(range(day.cars), domain=pyo.NonNegativeReals)
    model.charge = pyo.Var(slots, bounds=(0, day.battery_charge_kw))
    model.discharge = pyo.Var(slots, bounds=(0, day.battery_discharge_kw))
    model.stored = pyo.Var(slots, bounds=lambda _, t: (least[t], day.battery_kwh))
    model.bought = pyo.Var(slots, bounds=lambda _, t: (0, bought[t]))
    model.sold = pyo.Var(slots, bounds=lambda _, t: (0, sold[t]))
    model.peak = pyo.Var(bounds=(day.month_peak_kw, None))


def _objective(model: pyo.ConcreteModel, day: Instance) -> None:
    h, buy, sell, value = day.slot_h, day.buy.tolist(), day.sell.tolist(), day.value.tolist()
    early = pyo.quicksum(day.early * h * t * model.cars[i, t] for i, t in model.cells)
    short = pyo.quicksum(value[i] * model.short[i] for i in range(day.cars))
    money = pyo.quicksum(h * buy[t] * model.bought[t] - h * sell[t] * model.sold[t] for t in range(day.slots))
    wear = h * day.battery_wear * pyo.quicksum(model.charge[t] + model.discharge[t] for t in range(day.slots))
    model.cost = pyo.Objective(expr=money + day.peak_price * model.peak + short + early + wear)


if __name__ == "__main__":
    serve(solve, f"pyomo {version('pyomo')}, highspy {version('highspy')}")

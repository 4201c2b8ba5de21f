"""What a day came to: one function for every policy, the optimum in hindsight included.

Money is the bill (energy by the slot, the month's peak at its full price, what is left in the battery taken off),
wear, and what energy that was asked for and could have been had is worth when it was not delivered. What no policy on
earth could have delivered (a car that takes 11 kW and stays an hour) is not asked for.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from smartcharging.engine.grid import NOMINAL_V
from smartcharging.replay.days import SLOT_S, Day
from smartcharging.replay.moment import Lived
from smartcharging.replay.site import Floats

FULL = 0.99


@dataclass(frozen=True)
class Kpis:
    """One day under one policy. Shares run from 0 to 1."""

    bill_eur: float
    unserved_eur: float
    wear_eur: float
    delivered: float
    full: float
    peak_kw: float
    self_consumption: float
    over_steps: float
    over_node_s: float
    fairness: float
    switches: float
    plan_s: float  # the mean of its plans
    cpu_s: float

    @property
    def total_eur(self) -> float:
        return self.bill_eur + self.unserved_eur + self.wear_eur


def asked_wh(day: Day) -> Floats:
    """What each visit asked for, as far as its car and its stay allow."""
    most_w = np.array([_most_w(day, i) for i in range(len(day.visits))])
    stay_s = np.array([v.departure_s - v.arrival_s for v in day.visits], dtype=float)
    wanted = np.array([v.energy_wh for v in day.visits], dtype=float)
    return np.asarray(np.minimum(wanted, most_w * stay_s / 3600))


def _most_w(day: Day, visit: int) -> float:
    v = day.visits[visit]
    socket = day.site.sockets[v.socket]
    lines = sum(a and b for a, b in zip(v.phases, socket.phases, strict=True))
    return min(v.max_a, socket.max_a) * lines * NOMINAL_V * v.takes


def evaluate(day: Day, lived: Lived) -> Kpis:
    site = day.site
    asked = asked_wh(day)
    served = np.minimum(lived.delivered_wh, asked)
    peak_w = max(site.month_peak_w, float(lived.import_wh.max(initial=0.0)) * 3600 / SLOT_S)
    energy = float(day.buy_eur_per_kwh @ lived.import_wh - day.sell_eur_per_kwh @ lived.export_wh) / 1000
    stored = lived.stored_wh / 1000 * day.stored_eur_per_kwh
    value = np.array([site.value_eur_per_kwh[v.priority] for v in day.visits], dtype=float)
    sun = float(lived.pv_wh.sum())
    lost = float(lived.export_wh.sum() + lived.held_back_wh.sum())
    share = served / np.maximum(asked, 1e-9)
    here = asked > 0
    return Kpis(
        bill_eur=energy - stored + site.peak_eur_per_kw * peak_w / 1000,
        unserved_eur=float(value @ (asked - served)) / 1000,
        wear_eur=lived.battery_wh / 1000 * (site.battery.wear_eur_per_kwh if site.battery else 0.0),
        delivered=float(served.sum() / max(asked.sum(), 1e-9)),
        full=float((share[here] >= FULL).mean()) if here.any() else 1.0,
        peak_kw=peak_w / 1000,
        self_consumption=max(1 - lost / sun, 0.0) if sun > 0 else 1.0,
        over_steps=float(lived.over_steps),
        over_node_s=lived.over_node_s,
        fairness=_fairness(day, share),
        switches=float(np.median(lived.switches)) if len(lived.switches) else 0.0,
        plan_s=float(np.mean(lived.plan_s)) if lived.plan_s else 0.0,
        cpu_s=lived.cpu_s,
    )


def _fairness(day: Day, share: Floats) -> float:
    """Jain's index of what was served of what was asked, within each class; the mean over classes by their size."""
    classes = np.array([v.priority for v in day.visits])
    total = 0.0
    for priority in np.unique(classes).tolist():
        mine = share[classes == priority]
        squares = float((mine**2).sum())
        total += len(mine) * (float(mine.sum()) ** 2 / (len(mine) * squares) if squares > 0 else 1.0)
    return total / max(len(classes), 1)

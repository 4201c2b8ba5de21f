"""Make a plan and keep it: gather the day, solve it, save it with its promises.

The plan says why it was made, how far from the optimum it can be at most, and for each goal how much is promised by
the departure and what stands in the way of more.
"""

from __future__ import annotations

import logging
import time
from dataclasses import asdict
from datetime import datetime, timedelta
from typing import Any

import numpy as np
from django.conf import settings
from django.db import transaction

from meters.models import Site
from smartcharging import car_needs, goals, peaks, picture
from smartcharging.engine.explain.remedies import remedies
from smartcharging.engine.plan.problem import PlanResult
from smartcharging.engine.plan.solve import solve
from smartcharging.gather import View
from smartcharging.horizon import SLOT_S, Day, day
from smartcharging.models import ChargingGoal, Plan
from smartcharging.places import plug_share
from smartcharging.planned import planned_now

SETTLES = timedelta(seconds=60)
DIFFERS_W = 2000.0
DIFFERS_SHARE = 0.25
log = logging.getLogger(__name__)


def make_plan(site: Site, trigger: str, now: datetime) -> Plan:
    """Plan the coming day of a site. Raises `gather.SiteNotReady`."""
    car_needs.repair(site, now)
    goals.attach_waiting(site, now)
    today = day(site, now)
    result = solve(today.problem, clock=time.perf_counter)
    for note in (*today.loads.notes, *result.notes):
        log.info("plan of site %s: %s", site.pk, note)
    with transaction.atomic():
        plan = Plan.objects.create(
            site=site,
            made_at=now,
            starts_at=today.problem.start,
            valid_until=now + valid_for(),
            slot_s=SLOT_S,
            status=result.status,
            trigger=trigger[:100],
            objective_eur=_number(result.objective_eur),
            gap=_number(result.gap),
            solve_s=result.solve_s,
            result=_stored(today, result) | {"peak_w": _number(peaks.weighed_w(site, result, now))},
        )
        _promise(today, result)
    return plan


def valid_for() -> timedelta:
    """Long enough to bridge a few plans that fail, short enough not to follow an old world."""
    return timedelta(minutes=max(6 * settings.PLAN_MINUTES, 30))


def outdated(view: View) -> str:
    """Why the plan in force no longer fits the world, or nothing: the building is not what was planned with.

    A plan of the last minute is left alone, so that a load that comes and goes does not plan all the time.
    """
    plan = view.plan
    if plan is None or view.now - plan.made_at < SETTLES:
        return ""
    planned_w, measured_w = planned_now(plan, "building_w", view.now), picture.building_at_most_w(view)
    if measured_w is None:
        return ""
    if planned_w is None:
        return "building measured"
    off_w = abs(measured_w - planned_w)
    return "building differs" if off_w > max(DIFFERS_W, DIFFERS_SHARE * planned_w) else ""


def _stored(today: Day, result: PlanResult) -> dict[str, Any]:
    """The plan as JSON: per slot rounded to the watt; not-a-number is null."""
    problem = today.problem
    expected = {s.key for s in problem.sessions if s.expected}
    coming_w = sum((result.session_w[key] for key in expected), np.zeros(problem.slots))
    return {
        "evse": {key: _watts(series) for key, series in result.session_w.items() if key not in expected},
        "expected_w": _watts(coming_w),  # of cars that are not here yet
        "transactions": {
            place.key: place.transaction.pk for place in today.labels.values() if place.transaction is not None
        },
        "leaves_early": {today.labels[name].key: round(chance, 2) for name, chance in today.leaves_early.items()},
        "battery_w": _watts(result.battery_w),
        "grid_w": _watts(result.grid_w),
        "pv_w": _watts(result.pv_w),
        "building_w": _watts(problem.building_w - today.loads.others_w),
        "others_w": _watts(today.loads.others_w),
        "load_w": {key: _watts(series) for key, series in result.load_w.items()},
        "temperature_c": {key: [round(float(c), 1) for c in course] for key, course in result.temperature_c.items()},
        "load_short": [asdict(short) for short in result.load_short],
        "price": [round(float(v), 2) for v in today.market_eur_per_mwh],
        "shortfalls": _shortfalls(today, result),
        "binding": list(result.binding)[:50],
        "cost_eur": _number(result.cost_eur),
        "notes": [*today.loads.notes, *result.notes][:20],
    }


def _shortfalls(today: Day, result: PlanResult) -> dict[str, dict[str, Any]]:
    """What each goal falls short, why, and what would give it all: only what is known of it."""
    short = {}
    would_help = remedies(today.problem, result)
    for label, wh in result.shortfall_wh.items():
        place = today.labels.get(label)
        if place is not None and place.goal is not None and wh > 0:
            told = {
                "wh": round(float(wh) * plug_share(place.station.current)),
                "reason": result.shortfall_reason.get(label, ""),
            }
            short[str(place.goal.pk)] = told | (would_help[label].to_dict() if label in would_help else {})
    return short


def _promise(today: Day, result: PlanResult) -> None:
    """What each goal will have by its departure. Not through `save`: a promise is no change of the wish."""
    changed = []
    for label, place in today.labels.items():
        goal = place.goal
        if goal is None or goal.energy_wh is None:
            continue
        short = max(float(result.shortfall_wh.get(label, 0.0)), 0.0) * plug_share(place.station.current)
        promised_wh = max(goal.energy_wh - short, 0.0)
        reason = result.shortfall_reason.get(label, "")[:200] if short > 0 else ""
        if (promised_wh, reason) != (goal.promised_wh, goal.promise_reason):
            goal.promised_wh, goal.promise_reason = promised_wh, reason
            changed.append(goal)
    ChargingGoal.objects.bulk_update(changed, ["promised_wh", "promise_reason"], batch_size=500)


def _watts(series: Any) -> list[float | None]:
    return [None if not np.isfinite(v) else round(float(v)) for v in series]


def _number(value: float | None) -> float | None:
    return None if value is None or not np.isfinite(value) else float(value)

"""What the stored plan gives at this moment."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from smartcharging.models import Plan

if TYPE_CHECKING:
    from smartcharging.places import Place


def slot_index(plan: Plan, now: datetime) -> int:
    return int((now - plan.starts_at).total_seconds() // plan.slot_s)


def planned_now(plan: Plan | None, series: str, now: datetime) -> float | None:
    """The value of one of the plan's series in the present slot."""
    if plan is None:
        return None
    return _at(plan.result.get(series), slot_index(plan, now))


def planned_load_w(plan: Plan | None, device_pk: int, now: datetime) -> float | None:
    """What the plan gives a controllable load now. One that the plan does not know is left to itself."""
    if plan is None:
        return None
    return _at(plan.result.get("load_w", {}).get(str(device_pk)), slot_index(plan, now))


def planned_w_of(place: Place, plan: Plan | None, now: datetime) -> float | None:
    """What the plan gives this very car now. A car that came after the plan was made is not in it."""
    if plan is None or place.transaction is None:
        return None
    if plan.result.get("transactions", {}).get(place.key) != place.transaction.pk:
        return None
    return _at(plan.result.get("evse", {}).get(place.key), slot_index(plan, now))


def _at(values: object, index: int) -> float | None:
    if not isinstance(values, list) or not 0 <= index < len(values) or values[index] is None:
        return None
    return float(values[index])

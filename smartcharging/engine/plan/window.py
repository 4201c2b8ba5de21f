"""Until when the plan may put off a car, and what it may count on from it: a little less than was said.

Pure. A plan that is cheapest is also latest, and what goes wrong in a car's last minutes cannot be made good: it takes
a few percent less than it may, it slows down before it is full, its station is out of reach for a moment. So the plan
has it ready a little before it leaves, where there is time for that.
"""

from __future__ import annotations

from smartcharging.engine.plan.problem import Series

WAITING_EUR_PER_KWH = 0.002
"""What a quarter hour of waiting costs a kilowatt-hour: a driver in four leaves early, and what a peak is spared by
waiting is often paid for later (`docs/replay.md`)."""

LEFT_SHORT_EUR_PER_KWH = 0.8
"""What a kilowatt-hour is worth that a driver who left early goes without, where his goal has no price of its own. More
than any hour of the market saves, and little enough that a small chance of it is weighed."""

READY_BEFORE_SLOTS = 1  # more of it makes the plan's peak higher than it saves
TAKES = 0.97  # of an offer, until a car has shown what it takes
LEAST_TAKES = 0.1  # below this it rests, which says nothing of the hours to come


def ready_by(last_slot: int, energy_wh: float, max_w: float, slot_s: int) -> int:
    """The slot before which the plan has the car ready: a quarter hour before it leaves, where that is possible at
    the power it takes."""
    needed = energy_wh * 3600 / max(max_w * slot_s, 1e-9)
    for before in range(READY_BEFORE_SLOTS, 0, -1):
        if needed <= last_slot - before:
            return last_slot - before
    return last_slot


def counted_on_w(max_w: float, takes: float | None) -> float:
    """What a car takes when it may take `max_w`; `takes` is the share of an offer it was seen to use."""
    if takes is None or takes < LEAST_TAKES:
        return max_w * TAKES
    return max_w * takes


def losses(gone: Series, value_eur_per_kwh: float | None) -> tuple[float, ...]:
    """By slot, what a kWh loses that is put off until then, given the chance that its driver has left before."""
    worth = LEFT_SHORT_EUR_PER_KWH if value_eur_per_kwh is None else value_eur_per_kwh
    return tuple((gone * max(worth, 0.0)).tolist())


def hurry(last_slot: int, energy_wh: float, max_w: float, slot_s: int, running: bool) -> float:
    """Who charges first where it makes no difference to the money: who runs already goes on, then who has least time.

    A tie that is broken by who has least time leaves the most slack for what nobody knows yet; one that is broken the
    same way in every plan does not switch cars on and off.
    """
    needed = energy_wh * 3600 / max(max_w * slot_s, 1e-9)
    return 1.0 + min(needed / max(last_slot, 1), 1.0) + (2.0 if running else 0.0)

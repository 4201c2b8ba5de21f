"""What a car says it needs becomes a goal of its charge: before a schedule or a profile, behind its driver's own word.

A car counts the energy from the moment it speaks, a goal from the start of the charge.
"""

from __future__ import annotations

import logging
from datetime import datetime

from csms import needs
from csms.models import Transaction
from csms.reported_models import ChargingNeeds
from meters.models import Site
from smartcharging.goals import FARTHEST, MOST_WH, GoalError, set_goal
from smartcharging.models import ChargingGoal

log = logging.getLogger(__name__)


def apply(row: ChargingNeeds, now: datetime) -> ChargingGoal | None:
    """Make these needs the goal of their charge. None where they name neither energy nor departure."""
    transaction = row.transaction
    if transaction is None or not transaction.open or transaction.station.site is None:
        return None
    departure = row.departure if row.departure is not None and now < row.departure <= now + FARTHEST else None
    energy_wh = min(transaction.energy_wh + row.energy_wh, MOST_WH) if row.energy_wh is not None else None
    if departure is None and energy_wh is None:
        return None
    try:
        return set_goal(
            site=transaction.station.site,
            transaction=transaction,
            departure=departure,
            energy_wh=energy_wh,
            source=ChargingGoal.Source.STATION,
            now=now,
        )
    except GoalError as error:
        log.warning("the needs of the car at %s are no goal: %s", row.evse, error)
        return None


def heard(needs_pk: int, now: datetime) -> ChargingGoal | None:
    """A car spoke during its charge."""
    row = ChargingNeeds.objects.select_related("transaction__station__site", "evse").filter(pk=needs_pk).first()
    return apply(row, now) if row is not None else None


def begun(transaction: Transaction, now: datetime) -> ChargingGoal | None:
    """A charge began: the car may have spoken just before. Harmless when done twice."""
    row = needs.adopt(transaction, now)
    if row is None or ChargingGoal.objects.filter(asked_for=transaction, source=ChargingGoal.Source.STATION).exists():
        return None
    row.transaction = transaction
    return apply(row, now)


def repair(site: Site, now: datetime) -> None:
    """The needs that became no goal, because nobody listened when they were told."""
    missed = ChargingNeeds.objects.select_related("transaction__station__site", "evse").filter(
        transaction__isnull=False, transaction__ended_at=None, transaction__station__site=site
    )
    for row in missed.exclude(transaction__goals_asked__source=ChargingGoal.Source.STATION):
        apply(row, now)

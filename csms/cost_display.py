"""The cost of a charge on the station's own display (2.0.1 block I; in 1.6 by the Alliance's cost messages).

Told while it charges, at most four times a minute and only when it changed, to stations that say they show it; and in
the end. A price nobody knows, or that cannot be reckoned now, is simply not told: no charge ever waits for it.
"""

from __future__ import annotations

import logging
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING

from csms import costs
from csms.costs import Cost
from csms.models import Transaction

if TYPE_CHECKING:
    from csms.ledger import Outcome
    from csms.session import Session

log = logging.getLogger(__name__)

RUNNING_EVERY_S = 15.0


def shows_cost(session: Session) -> bool:
    return costs.known() and session.record.capabilities.get("shows_cost") is True


def shows_tariff(session: Session) -> bool:
    return costs.known() and session.record.capabilities.get("shows_tariff") is True


async def cost_of(session: Session, transaction_pk: int, at: datetime) -> Cost | None:
    """Off the event loop. Whatever goes wrong there, the station hears no price and nothing else."""
    if not costs.known():
        return None
    try:
        return await session.services.memory.read(partial(costs.of, transaction_pk, at))
    except Exception:
        log.exception("%s: the cost of a charge could not be reckoned", session.identity)
        return None


async def tariff_for(session: Session) -> str:
    """The price in a few words, for a driver who has just shown a token."""
    if not shows_tariff(session):
        return ""
    try:
        return await session.services.memory.read(partial(costs.tariff, session.record.pk, session.now()))
    except Exception:
        log.exception("%s: the tariff could not be told", session.identity)
        return ""


async def final(session: Session, outcome: Outcome) -> Cost | None:
    """The cost of a charge that has just ended."""
    session.costs_told.pop(outcome.transaction_id, None)
    if outcome.open or outcome.transaction_pk is None:
        return None
    return await cost_of(session, outcome.transaction_pk, session.now())


def moved_on(session: Session, transaction_id: str, transaction_pk: int | None = None) -> None:
    """A charge went on: tell its cost, unless that was done a moment ago."""
    if not transaction_id or not shows_cost(session) or not session.may_be_asked:
        return
    now = session.connection.last_heard
    at, before = session.costs_told.get(transaction_id, (-1e9, None))
    if now - at < RUNNING_EVERY_S:
        return
    session.costs_told[transaction_id] = (now, before)
    session.spawn(_tell(session, transaction_id, transaction_pk))


async def _tell(session: Session, transaction_id: str, transaction_pk: int | None) -> None:
    await session.write(lambda: None)  # what was measured is written by now
    pk = transaction_pk or await session.services.memory.read(partial(_pk, session.record.pk, transaction_id))
    cost = await cost_of(session, pk, session.now()) if pk is not None else None
    known = session.costs_told.get(transaction_id)
    if cost is None or known is None or known[1] == cost.rounded:
        return
    session.costs_told[transaction_id] = (known[0], cost.rounded)
    await session.ask_of_our_own(session.speaks.running_cost(transaction_id, cost.rounded, session.now()))


def _pk(station_pk: int, transaction_id: str) -> int | None:
    mine = Transaction.objects.filter(station_id=station_pk, transaction_id=transaction_id, ended_at=None)
    return mine.values_list("pk", flat=True).first()


def in_words(energy_wh: float, cost: Cost) -> str:
    """What a driver reads at the end, in any language."""
    return f"{energy_wh / 1000:.2f} kWh · {cost.rounded:.2f} {cost.currency}"

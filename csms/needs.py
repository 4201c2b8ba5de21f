"""What a car says it needs (ISO 15118, told through the station), kept with the transaction it is about.

A car may speak before its transaction begins: then its needs wait a little for it. Whoever thinks about charging hears
of them on channel `needs`. Runs in the gateway's writer; `adopt` behind whoever hears of a transaction.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from csms.announcing import announce
from csms.models import EVSE, Transaction
from csms.reported import CarSchedule, Needs
from csms.reported_models import ChargingNeeds

NEEDS_CHANNEL = "needs"
WAIT_FOR_THE_CHARGE = timedelta(minutes=10)


def needs_told(station_pk: int, needs: Needs, at: datetime) -> None:
    """The newest needs of a charge replace those before."""
    evse = EVSE.objects.filter(station=station_pk, number=needs.evse).first()  # no word of a car makes an EVSE
    if evse is None:
        return
    running = _running(evse)
    row = _row(evse, running)
    row.told_at, row.transfer, row.departure = at, needs.transfer[:16], needs.departure
    row.energy_wh, row.soc, row.full_soc, row.capacity_wh = (
        needs.wanted_wh,
        needs.soc,
        needs.full_soc,
        needs.capacity_wh,
    )
    row.min_a, row.max_a, row.max_v, row.max_w = needs.min_a, needs.max_a, needs.max_v, needs.max_w
    row.schedule = row.schedule_fits = None
    row.save()
    if running is not None:
        _learn_soc(running, needs)
        _tell(row)


def _learn_soc(transaction: Transaction, needs: Needs) -> None:
    if needs.soc is not None:
        Transaction.objects.filter(pk=transaction.pk, ended_at=None).update(soc=needs.soc)


def adopt(transaction: Transaction, now: datetime) -> ChargingNeeds | None:
    """The needs of this charge; those that were told on its EVSE just before it began become its own."""
    mine = ChargingNeeds.objects.filter(transaction=transaction).first()
    if mine is not None or transaction.evse_id is None or not transaction.open:
        return mine
    waiting = ChargingNeeds.objects.filter(
        evse=transaction.evse_id, transaction=None, told_at__gt=now - WAIT_FOR_THE_CHARGE
    ).first()
    if waiting is None:
        return None
    ChargingNeeds.objects.filter(pk=waiting.pk, transaction=None).update(transaction=transaction)
    waiting.transaction = transaction
    return waiting


def schedule_told(station_pk: int, schedule: CarSchedule, fits: bool, at: datetime) -> None:
    """The schedule a car made of what it was offered, and whether it keeps the limit."""
    evse = EVSE.objects.filter(station=station_pk, number=schedule.evse).first()
    if evse is None:
        return
    row = _row(evse, _running(evse))
    row.told_at = row.told_at or at
    row.schedule, row.schedule_fits = dict(schedule.payload), fits
    row.save()


def _row(evse: EVSE, running: Transaction | None) -> ChargingNeeds:
    known = ChargingNeeds.objects.filter(evse=evse, transaction=running).order_by("-pk").first()
    return known or ChargingNeeds(evse=evse, transaction=running)


def _running(evse: EVSE) -> Transaction | None:
    return Transaction.objects.filter(evse=evse, ended_at=None).order_by("-started_at").first()


def _tell(row: ChargingNeeds) -> None:
    evse = row.evse
    body = {"site": evse.station.site_id, "evse": evse.pk, "transaction": row.transaction_id, "needs": row.pk}
    announce(NEEDS_CHANNEL, body)

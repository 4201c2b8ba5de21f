"""Transactions as a ledger: events are appended and never twice, the transaction's row is their sum.

A start or event is recognised by its content, not by its message id: stations repeat themselves under new ids after a
timeout, after a reconnect and after hours offline. *Ended* is final. What looks strange is flagged, never refused: a
station whose transaction is refused repeats it for ever, or loses it (Q12). Energy comes from the register, in Wh, and
is never negative.

The verbs run in the gateway's writer. `transaction` is announced after the commit.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from django.db.models import Q

from csms.announcing import TRANSACTION_CHANNEL, announce
from csms.models import EVSE, ChargingStation, MeterSample, Transaction, TransactionEvent
from csms.stations import authorize, evse_of, refresh_state, samples_of
from csms.vocabulary import Kind, MeterValue, TransactionReport, Verdict

SUPERSEDED = "closed_by_next"
"""The next transaction on the same EVSE began before this one's end was told; its end still counts when it comes."""

GUESSED = "start_register_guessed"
REPLAYED_AFTER = timedelta(minutes=1)
LONGEST_OFFLINE = timedelta(days=7)
IMPLAUSIBLE = 1.5
"""So many times the most a station can give: then a register did not start where it said."""
SLACK_WH = 1000.0
MOST_FLAGS = 20


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of an event."""

    verdict: Verdict
    transaction_id: str = ""
    transaction_pk: int | None = None
    evse: int | None = None
    evse_pk: int | None = None
    open: bool = False
    repeated: bool = False
    energy_wh: float = 0.0


def transaction_started(station_pk: int, report: TransactionReport, verdict: Verdict | None = None) -> Outcome:
    """Record a start. The same one again gives the same transaction; a refused token is recorded all the same."""
    station = ChargingStation.objects.get(pk=station_pk)
    verdict = verdict or _verdict(station, report)
    transaction = _find(station, report)
    if transaction is None:
        transaction = _open(station, report, verdict)
        fresh = _append(station, transaction, report)
        _apply(station, transaction, report, verdict)
        _close_the_one_before(transaction)
        if not report.transaction_id:
            _attach_waiting_stop(station, transaction, report)
        _tell(station, transaction, "started")
        _show(transaction)
        return _outcome(transaction, verdict, repeated=not fresh)
    return _more(station, transaction, report, verdict)


def transaction_updated(station_pk: int, report: TransactionReport) -> Outcome:
    """Record what happened in between. Heard of before its start, the transaction is opened here."""
    return _known_or_opened(station_pk, report)


def transaction_ended(station_pk: int, report: TransactionReport) -> Outcome:
    """Record an end. An end of a transaction nobody knows is kept as an orphan."""
    station = ChargingStation.objects.get(pk=station_pk)
    verdict = _verdict(station, report)
    if report.seq_no is None and _find(station, report) is None:  # 1.6: the id is ours, so this one is not
        fresh = _append(station, None, report)
        return Outcome(verdict, report.transaction_id, repeated=not fresh)
    return _known_or_opened(station_pk, report)


def progressed(key: tuple[int, int, str], items: Sequence[Callable[[], tuple[MeterValue, ...]]]) -> None:
    """Meter values of one EVSE and transaction (1.6 MeterValues): samples kept, energy brought up to date.

    `key` is station, EVSE number and transaction id ("" when none was told); the items read the values.
    """
    station_pk, number, transaction_id = key
    station = ChargingStation.objects.get(pk=station_pk)
    evse = evse_of(station_pk, number)
    if evse is None:
        return
    if transaction_id:
        transaction = Transaction.objects.filter(station=station, transaction_id=transaction_id).first()
    else:
        transaction = Transaction.objects.filter(evse=evse, ended_at=None).order_by("-started_at").first()
    values = tuple(value for read in items for value in read())
    MeterSample.objects.bulk_create(samples_of(station, evse, values, transaction))
    if transaction is None or not transaction.open:
        return
    for value in values:
        _meter(station, transaction, value)
    transaction.save(update_fields=["meter_start_wh", "meter_last_wh", "energy_wh", "soc", "last_event_at", "flags"])


# ---------------------------------------------------------------------- finding and opening


def _verdict(station: ChargingStation, report: TransactionReport) -> Verdict:
    return authorize(station, report.token, report.moment.at)


def _known_or_opened(station_pk: int, report: TransactionReport) -> Outcome:
    station = ChargingStation.objects.get(pk=station_pk)
    verdict = _verdict(station, report)
    transaction = _find(station, report)
    if transaction is not None:
        return _more(station, transaction, report, verdict)
    transaction = _open(station, report, verdict)
    _append(station, transaction, report)
    _apply(station, transaction, report, verdict)
    if report.kind is not Kind.ENDED:
        _close_the_one_before(transaction)
    _tell(station, transaction, "started")
    if not transaction.open:
        _tell(station, transaction, "ended")
    _show(transaction)
    return _outcome(transaction, verdict)


def _find(station: ChargingStation, report: TransactionReport) -> Transaction | None:
    mine = Transaction.objects.filter(station=station)
    if report.transaction_id:
        return mine.filter(transaction_id=report.transaction_id).first()
    found = mine.filter(start_key__startswith=report.content_key[:48]).order_by("-pk").first()
    if found is not None and not found.open and report.moment.flag == "clock_not_set":
        return None  # without a clock two different sessions look the same; an ended one does not come back
    return found


def _open(station: ChargingStation, report: TransactionReport, verdict: Verdict) -> Transaction:
    key = ""
    if not report.transaction_id:
        same = Transaction.objects.filter(station=station, start_key__startswith=report.content_key[:48]).count()
        key = report.content_key[:48] + (f"-{same}" if same else "")
    transaction = Transaction(
        station=station,
        transaction_id=report.transaction_id[:64] or key,
        evse=evse_of(station.pk, report.evse) if report.evse is not None else None,
        connector=max(1, min(report.connector, 32)),
        authorized=False,
        started_at=report.moment.at,
        start_key=key,
        remote_start_id=report.remote_start_id,
    )
    transaction.save()
    if key:  # 1.6: the id is ours to give, a number (1.6 §6.46)
        transaction.transaction_id = str(transaction.pk)
    return transaction


def _close_the_one_before(transaction: Transaction) -> None:
    """One EVSE has one transaction at a time: the end of the one before was lost, or is still to come."""
    if transaction.evse_id is None:
        return
    older = Transaction.objects.filter(
        evse_id=transaction.evse_id, ended_at=None, started_at__lte=transaction.started_at
    ).exclude(pk=transaction.pk)
    for lost in older:
        lost.ended_at = max(lost.last_event_at or lost.started_at, lost.started_at)
        lost.stop_reason = "Other"
        _flag(lost, SUPERSEDED)
        lost.save(update_fields=["ended_at", "stop_reason", "flags"])
        _tell(transaction.station, lost, "ended")


def _attach_waiting_stop(station: ChargingStation, transaction: Transaction, start: TransactionReport) -> None:
    """After time offline some 1.6 stations send the stop before its start, with an id of their own making (R4).

    Only for a start that is itself a replay: a session that runs now is never ended by an old orphan.
    """
    received = transaction.last_event_at or start.moment.at
    event = transaction.events.order_by("pk").first()
    received = event.received_at if event is not None else received
    if received - transaction.started_at < REPLAYED_AFTER:
        return
    waiting = TransactionEvent.objects.filter(
        station=station,
        transaction=None,
        kind=Kind.ENDED,
        at__gte=transaction.started_at,
        at__lte=transaction.started_at + LONGEST_OFFLINE,
        received_at__gte=received - LONGEST_OFFLINE,
    ).order_by("at")
    for orphan in waiting[:50]:
        tag = str(orphan.payload.get("idTag") or "")
        stop_wh = orphan.payload.get("meterStop")
        if tag and tag.upper() != transaction.id_token_value.upper():
            continue
        if not isinstance(stop_wh, int | float) or stop_wh < (transaction.meter_start_wh or 0):
            continue
        TransactionEvent.objects.filter(pk=orphan.pk).file_under(transaction.pk)
        transaction.ended_at = orphan.at
        transaction.stop_reason = str(orphan.payload.get("reason") or "Local")[:32]
        _advance(station, transaction, float(stop_wh), final=True)
        _flag(transaction, "stop_before_start")
        transaction.save()
        _tell(station, transaction, "ended")
        return


# ---------------------------------------------------------------------- one more event


def _more(station: ChargingStation, transaction: Transaction, report: TransactionReport, verdict: Verdict) -> Outcome:
    if not _append(station, transaction, report):
        return _outcome(transaction, verdict, repeated=True)
    was_open, before = transaction.open, (transaction.charging_state, transaction.id_token_id, transaction.authorized)
    _apply(station, transaction, report, verdict)
    if was_open and not transaction.open:
        _tell(station, transaction, "ended")
    elif (transaction.charging_state, transaction.id_token_id, transaction.authorized) != before:
        _tell(station, transaction, "updated")
    _show(transaction)
    return _outcome(transaction, verdict)


def _append(station: ChargingStation, transaction: Transaction | None, report: TransactionReport) -> bool:
    """Keep the event; False when we have it already."""
    key = report.content_key
    if transaction is not None and not report.transaction_id:
        key = f"{transaction.start_key[48:]}{key}"[:64]
    _, fresh = TransactionEvent.objects.get_or_create(
        station=station,
        content_key=key,
        defaults={
            "transaction": transaction,
            "kind": report.kind.value,
            "at": report.moment.at,
            "received_at": _received(report),
            "seq_no": report.seq_no,
            "trigger": report.trigger[:32],
            "offline": report.offline,
            "payload": dict(report.payload),
        },
    )
    return fresh


def _received(report: TransactionReport) -> Any:
    return report.received or report.moment.at


def _apply(station: ChargingStation, transaction: Transaction, report: TransactionReport, verdict: Verdict) -> None:
    """Bring the row up to date with one event, in whatever order events come."""
    at = report.moment.at
    if report.moment.flag:
        _flag(transaction, report.moment.flag)
    if transaction.evse_id is None and report.evse is not None:
        transaction.evse = evse_of(station.pk, report.evse)
    _take_token(transaction, report, verdict)
    _take_sequence(transaction, report)
    if at < transaction.started_at:
        transaction.started_at = at
    if report.remote_start_id is not None:
        transaction.remote_start_id = report.remote_start_id
    newest = transaction.last_event_at is None or at >= transaction.last_event_at
    if report.charging_state is not None and newest and transaction.open:
        transaction.charging_state = report.charging_state[:16]
    _take_registers(station, transaction, report)
    if newest:
        transaction.last_event_at = at
    if report.kind is Kind.ENDED and (transaction.open or SUPERSEDED in transaction.flags):
        transaction.ended_at = max(at, transaction.started_at)
        transaction.stop_reason = (report.stop_reason or "Local")[:32]
        transaction.charging_state = ""
        transaction.flags = [f for f in transaction.flags if f != SUPERSEDED]
    elif report.kind is not Kind.ENDED and not transaction.open:
        _flag(transaction, "event_after_end")
    transaction.save()
    if transaction.evse is not None and report.values:
        MeterSample.objects.bulk_create(samples_of(station, transaction.evse, report.values, transaction))


def _take_token(transaction: Transaction, report: TransactionReport, verdict: Verdict) -> None:
    """The first token shown, or the first accepted one, is the transaction's; who stops it is another matter."""
    if report.token is None or (report.kind is Kind.ENDED and transaction.id_token_value):
        return
    if transaction.id_token_value and (transaction.authorized or not verdict.accepted):
        return
    transaction.id_token_value = report.token.value[:64]
    transaction.id_token_id = verdict.token_pk
    transaction.authorized = verdict.accepted


def _take_sequence(transaction: Transaction, report: TransactionReport) -> None:
    """Keep the highest sequence number and list the ones that are missing (2.0.1 E01)."""
    if report.seq_no is None:
        return
    before = transaction.last_seq_no
    transaction.last_seq_no = report.seq_no if before is None else max(before, report.seq_no)
    gap_known = any(f.startswith("missing:") for f in transaction.flags)
    if (report.seq_no if before is None else report.seq_no - before - 1) == 0 and not gap_known:
        return
    numbers = set(transaction.events.exclude(seq_no=None).values_list("seq_no", flat=True)) | {report.seq_no}
    missing = [str(n) for n in range(transaction.last_seq_no) if n not in numbers][:10] if len(numbers) < 5000 else []
    transaction.flags = [f for f in transaction.flags if not f.startswith("missing:")]
    if missing:
        _flag(transaction, "missing:" + ",".join(missing))


def _take_registers(station: ChargingStation, transaction: Transaction, report: TransactionReport) -> None:
    if report.kind is Kind.STARTED and report.register_wh is not None:
        if transaction.meter_start_wh is None or GUESSED in transaction.flags:
            _start_from(transaction, report.register_wh)
            transaction.flags = [f for f in transaction.flags if f != GUESSED]
        _advance(station, transaction, report.register_wh)
    for value in report.values:
        _meter(station, transaction, value, late=not transaction.open)
    if report.kind is Kind.ENDED and report.register_wh is not None:
        _advance(station, transaction, report.register_wh, final=True)


def _meter(station: ChargingStation, transaction: Transaction, value: MeterValue, *, late: bool = False) -> None:
    at = value.moment.at
    if value.moment.flag:
        _flag(transaction, value.moment.flag)
    newest = transaction.last_event_at is None or at >= transaction.last_event_at
    register = value.register_wh()
    if register is not None and not newest and GUESSED in transaction.flags:
        if 0 <= register < (transaction.meter_start_wh or 0):
            _start_from(transaction, register)  # the first we heard was not the first there was
    elif register is not None and not late:
        _advance(station, transaction, register, at_s=(at - transaction.started_at).total_seconds(), newest=newest)
    soc = value.soc()
    if soc is not None and 0 <= soc <= 100 and newest:
        transaction.soc = soc / 100.0
    if newest and not late:
        transaction.last_event_at = at


def _advance(
    station: ChargingStation,
    transaction: Transaction,
    register_wh: float,
    *,
    at_s: float | None = None,
    newest: bool = True,
    final: bool = False,
) -> None:
    """Bring energy up to date with one reading of the register. Never down, except by the final reading."""
    if register_wh < 0:
        _flag(transaction, "negative_register")
        return
    if transaction.meter_start_wh is None:
        transaction.meter_start_wh = register_wh
        _flag(transaction, GUESSED)
    if transaction.meter_start_wh == 0 and at_s is not None and not transaction.energy_wh:
        most_wh = _most_w(station) * max(at_s, 0.0) / 3600
        if register_wh > IMPLAUSIBLE * most_wh + SLACK_WH:
            transaction.meter_start_wh = register_wh  # it said 0 and then showed its whole life (Q15)
            _flag(transaction, "start_register_rebased")
    last = transaction.meter_last_wh
    if last is not None and register_wh < last and newest:
        _flag(transaction, "register_backwards")
    if register_wh < transaction.meter_start_wh:
        _flag(transaction, "register_below_start")
        return
    if last is None or register_wh > last or final:
        transaction.meter_last_wh = register_wh
        transaction.energy_wh = max(0.0, register_wh - transaction.meter_start_wh)


def _start_from(transaction: Transaction, register_wh: float) -> None:
    transaction.meter_start_wh = register_wh
    if transaction.meter_last_wh is not None:
        transaction.energy_wh = max(0.0, transaction.meter_last_wh - register_wh)


def _most_w(station: ChargingStation) -> float:
    return station.max_w or station.max_a * 230.0 * 3


def _flag(transaction: Transaction, name: str) -> None:
    if name not in transaction.flags and len(transaction.flags) < MOST_FLAGS:
        transaction.flags = [*transaction.flags, name]


# ---------------------------------------------------------------------- telling


def _show(transaction: Transaction) -> None:
    """The EVSE shows the charging state of the transaction that runs on it now."""
    evse = transaction.evse
    if evse is None:
        return
    newer = Transaction.objects.filter(Q(evse=evse) & Q(started_at__gt=transaction.started_at)).exists()
    if newer:
        return  # a replay of old events changes nothing that is shown now
    shown = transaction.charging_state if transaction.open else ""
    suspended_since_s = 0.0 if shown != evse.charging_state else 10.0
    if shown != evse.charging_state:
        evse.charging_state = shown
        EVSE.objects.filter(pk=evse.pk).update(charging_state=shown)
    refresh_state(evse, suspended_since_s=suspended_since_s)


def _tell(station: ChargingStation, transaction: Transaction, kind: str) -> None:
    announce(
        TRANSACTION_CHANNEL,
        {"kind": kind, "transaction": transaction.pk, "site": station.site_id, "evse": transaction.evse_id},
    )


def _outcome(transaction: Transaction, verdict: Verdict, *, repeated: bool = False) -> Outcome:
    return Outcome(
        verdict,
        transaction.transaction_id,
        transaction.pk,
        transaction.evse.number if transaction.evse is not None else None,
        transaction.evse_id,
        transaction.open,
        repeated,
        transaction.energy_wh,
    )

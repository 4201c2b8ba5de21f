"""One batch of events and meter values on its way into the ledger.

Everything is taken first, in order, then written in few statements: events, meter values, rows. Whoever else hears of
the same transaction waits at its row, and finds there what was written.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from csms import billing, energy, ledger_store, unmatched
from csms.announcing import TRANSACTION_CHANNEL, announce
from csms.energy import SAMPLE, SUSPECT, Count, Reading
from csms.ledger_models import SignedMeterValue
from csms.ledger_store import NewEvent
from csms.models import EVSE, ChargingStation, MeterSample, Transaction, TransactionEvent
from csms.stations import MOST_EVSES, Sample, evse_of, refresh_state, samples_of
from csms.story import AFTER_END, JUMPED_BACK, SEQ_TWICE, UNTIMED, Fact, suspended, tell
from csms.succession import Succession
from csms.vocabulary import Kind, MeterValue, TransactionReport, Verdict, content_key
from meters.models import Site
from meters.supply import Supply

SUPERSEDED = "closed_by_next"
"""The next transaction on the same EVSE began and nobody told of this one's end; it still counts when it comes."""

CLOCK = frozenset({"clock_not_set", "clock_ahead", "clock_off", "zone_error", "no_zone", "no_time", "bad_time"})
_FROM_STORY = SUSPECT | {AFTER_END, JUMPED_BACK, SEQ_TWICE}
TO_CHECK = SUSPECT | {JUMPED_BACK, SUPERSEDED, "clock_not_set", "clock_ahead", "bad_time", "no_time"}
"""With one of these a person looks before it is billed."""

REPLAYED_AFTER = timedelta(minutes=1)
BY_TIME = "by_time"
"""Marks a meter value that named no transaction and was filed by its time alone."""
MOST_OF_ONE_KEY = 1_000
KEY = 48

Entry = tuple[int, TransactionReport]


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


@dataclass(slots=True)
class _Taken:
    """One event on its way into the ledger."""

    report: TransactionReport
    verdict: Verdict
    event: NewEvent
    transaction: Transaction | None
    opened: bool = False
    repeated: bool = False


class Batch:
    """Events and meter values of one database transaction, taken in order and written in few statements."""

    def __init__(self, entries: Sequence[Entry], stations: Iterable[int] = ()) -> None:
        self._supplies: dict[int | None, Supply] = {None: Supply.TN}
        self.stations = ledger_store.stations([*(pk for pk, _ in entries), *stations]) if entries or stations else {}
        self._transactions = ledger_store.transactions(
            (pk, report.transaction_id) for pk, report in entries if report.transaction_id
        )
        self._places = ledger_store.places(
            (pk, report.evse)
            for pk, report in entries
            if report.evse is not None and (pk, report.transaction_id) not in self._transactions
        )
        self._starts: dict[ledger_store.Key, Transaction] = {}
        self._running: dict[int, Transaction] = {}
        shown = {
            (station.site_id, report.token.value.upper())
            for pk, report in entries
            if report.token is not None and (station := self.stations.get(pk)) is not None and station.site_id
        }
        self._tokens = ledger_store.tokens(shown)
        self._taken: list[_Taken] = []
        self._samples: list[Sample] = []
        self._late: list[Sample] = []
        self._signed: list[SignedMeterValue] = []
        self._before: dict[int, tuple[bool, str, int | None, bool]] = {}
        self._changed: dict[int, Transaction] = {}
        self._retold: dict[int, Transaction] = {}
        self._opened: set[int] = set()
        self._prices = billing.Prices()
        self._whole: set[int] = set()  # told anew, so every column may have changed
        self._ends: list[tuple[ChargingStation, datetime]] = []

    # ------------------------------------------------------------------ events

    def take(self, station_pk: int, report: TransactionReport) -> None:
        station = self.stations[station_pk]
        verdict = self._judge(station, report)
        transaction = self._find(station, report)
        opened = False
        if transaction is None and not (report.kind is Kind.ENDED and report.seq_no is None):
            transaction, opened = self._open(station, report), True
        event = _event(station, transaction, report, verdict)
        self._taken.append(_Taken(report, verdict, event, transaction, opened))

    def _judge(self, station: ChargingStation, report: TransactionReport) -> Verdict:
        """It must belong to the station's site; letter case does not count (`stations.authorize`)."""
        token = report.token
        if token is None or station.site_id is None or station.admission != ChargingStation.Admission.ACCEPTED:
            return Verdict("invalid")
        if token.is_nobody:
            return Verdict("accepted")
        return ledger_store.judged(self._tokens.get((station.site_id, token.value.upper())), report.moment.at)

    def _find(self, station: ChargingStation, report: TransactionReport) -> Transaction | None:
        if report.transaction_id:
            return self._transactions.get((station.pk, report.transaction_id))
        for number in range(MOST_OF_ONE_KEY):
            key = _start_key(report, number)
            found = self._starts.get((station.pk, key))
            if found is None:
                found = ledger_store.locked().filter(station=station, start_key=key).first()
            if found is None or found.open or report.moment.flag != "clock_not_set":
                return found
            # without a clock two different sessions look the same; an ended one does not come back
        return found

    def _open(self, station: ChargingStation, report: TransactionReport) -> Transaction:
        key = ""
        if not report.transaction_id:
            number = next(
                n
                for n in range(MOST_OF_ONE_KEY + 1)
                if (station.pk, _start_key(report, n)) not in self._starts
                and not Transaction.objects.filter(station=station, start_key=_start_key(report, n)).exists()
            )
            key = _start_key(report, number)
        transaction = Transaction(
            station=station,
            transaction_id=report.transaction_id[:64] or key,
            evse=self._place(station.pk, report.evse) if report.evse is not None else None,
            connector=max(1, min(report.connector, 32)),
            authorized=False,
            started_at=report.moment.at,
            start_key=key,
            remote_start_id=report.remote_start_id,
        )
        transaction.save()
        if key:  # 1.6: the id is ours to give, a number (1.6 §6.46)
            transaction.transaction_id = _number_for(station, transaction.pk)
            Transaction.objects.filter(pk=transaction.pk).update(transaction_id=transaction.transaction_id)
            self._starts[station.pk, key] = transaction
        self._transactions[station.pk, transaction.transaction_id] = transaction
        self._opened.add(transaction.pk)
        return transaction

    def _place(self, station_pk: int, number: int) -> EVSE | None:
        """The EVSE of this number, as `evse_of`; those of the batch's new charges were read together."""
        return self._places.get((station_pk, number)) or evse_of(station_pk, number)

    # ------------------------------------------------------------------ meter values outside events

    def take_values(self, groups: Mapping[tuple[int, int, str], Sequence[MeterValue]]) -> None:
        self._transactions = ledger_store.transactions((pk, told) for pk, _, told in groups if told)
        places = ledger_store.places((pk, number) for pk, number, _ in groups)
        nameless = {places[pk, number].pk for pk, number, told in groups if not told and (pk, number) in places}
        for evse_pk, transaction in ledger_store.running(nameless).items():
            key = (transaction.station_id, transaction.transaction_id)
            self._running[evse_pk] = self._transactions.setdefault(key, transaction)
        for (station_pk, number, told), values in groups.items():
            station = self.stations.get(station_pk)
            if station is None or not 1 <= number <= MOST_EVSES:
                continue
            evse = places.get((station_pk, number)) or evse_of(station_pk, number)
            if evse is None:
                continue
            for found, theirs in self._filed(station, evse, told, values):
                self._progress(station, evse, found, theirs)

    def _filed(
        self, station: ChargingStation, evse: EVSE, told: str, values: Sequence[MeterValue]
    ) -> list[tuple[Transaction | None, list[MeterValue]]]:
        """To which transaction each value belongs: the one it names, else the one that runs there now.

        A replayed value that names none we know is kept by itself, until the end of a charge says that it was
        measured during it (`_take_stray_samples`).
        """
        named = self._transactions.get((station.pk, told)) if told else None
        if named is not None:
            return [(named, list(values))]
        replayed = [v for v in values if _long_ago(v)]
        fresh = [v for v in values if not _long_ago(v)]
        filed: list[tuple[Transaction | None, list[MeterValue]]] = []
        if fresh:
            filed.append((None if told else self._running.get(evse.pk), fresh))
        if replayed:
            filed.append((None, replayed))
            first, last = min(v.moment.at for v in replayed), max(v.moment.at for v in replayed)
            theirs = ledger_store.locked().filter(evse=evse, started_at__lte=last, ended_at__gte=first)
            for transaction in theirs.exclude(start_key=""):
                self.retell(self._transactions.setdefault((station.pk, transaction.transaction_id), transaction))
        return filed

    def _supply(self, station: ChargingStation) -> Supply:
        """How the lines of its site carry power; asked once for each site."""
        if station.site_id is not None and station.site_id not in self._supplies:
            found = Site.objects.filter(pk=station.site_id).values_list("supply", flat=True).first()
            self._supplies[station.site_id] = Supply(found or Supply.TN)
        return self._supplies[station.site_id]

    def _progress(
        self, station: ChargingStation, evse: EVSE, transaction: Transaction | None, values: Sequence[MeterValue]
    ) -> None:
        running = transaction.pk if transaction is not None else None
        rows = samples_of(station, evse.pk, values, running, self._supply(station))
        self._sign(station, transaction, evse.number, values)
        if transaction is None:
            for row, value in zip(rows, (v for v in values if v.quantities), strict=True):
                if _long_ago(value):
                    row.values[BY_TIME] = True
            replayed = bool(values) and _long_ago(values[0])
            (self._late if replayed else self._samples).extend(rows)
            return
        if transaction.evse_id is None:
            transaction.evse = evse
        self._remember(transaction)
        newest = transaction.last_event_at
        if not self._add(station, transaction, rows, values):
            self._late += rows
            self.retell(transaction)
            return
        for row in rows:  # what is not newer may be told again
            (self._samples if newest is None or row.at > newest else self._late).append(row)

    def _add(
        self,
        station: ChargingStation,
        transaction: Transaction,
        rows: Sequence[Sample],
        values: Sequence[MeterValue],
        more: Sequence[Reading] = (),
    ) -> bool:
        """Count these on from where the counting stands; False when they do not simply come next."""
        if not transaction.open or not transaction.tally or transaction.pk in self._retold:
            return False
        count = Count.from_list(transaction.tally, station.most_w)
        readings = [ledger_store.reading(r.at, r.energy_wh, r.power_w, r.values) for r in rows]
        readings = sorted([*readings, *more], key=energy.in_order)
        first = transaction.started_at.timestamp()
        if not all(reading.at >= first and count.may_take(reading) for reading in readings):
            return False
        count.take_all(readings)
        for row in rows:
            if transaction.last_event_at is None or row.at > transaction.last_event_at:
                transaction.last_event_at = row.at
        _stick(transaction, values)
        _counted(transaction, count, set(transaction.flags) - SUSPECT)
        self._changed[transaction.pk] = transaction
        return True

    # ------------------------------------------------------------------ writing

    def write(self) -> None:
        fresh = ledger_store.add_events([t.event for t in self._taken])
        for taken in self._taken:
            taken.repeated = taken.event.key not in fresh
            fresh.discard(taken.event.key)
            if not taken.repeated:
                self._apply(taken)
        ledger_store.add_samples([*self._samples, *ledger_store.new_samples(self._late)])
        ledger_store.add_signed(self._signed)
        self._match()
        self._tell_all_anew()
        self._save()
        for pk in sorted(self._changed):
            self._announce(self._changed[pk])

    def _save(self) -> None:
        changed = [self._changed[pk] for pk in sorted(self._changed)]
        whole = self._whole
        ledger_store.save([t for t in changed if t.pk in whole], [t for t in changed if t.pk not in whole])

    def _apply(self, taken: _Taken) -> None:
        transaction, report = taken.transaction, taken.report
        station = self.stations[taken.event.station_id]
        if transaction is None:
            self._sign(station, None, 0, report.values)
            self._ends.append((station, report.moment.at))
            return
        self._remember(transaction)
        if transaction.evse_id is None and report.evse is not None:
            transaction.evse = self._place(station.pk, report.evse)
        if report.remote_start_id is not None:
            transaction.remote_start_id = report.remote_start_id
        number = transaction.evse.number if transaction.evse is not None else 0
        self._sign(station, transaction, number, report.values)
        rows = (
            samples_of(station, transaction.evse_id, report.values, transaction.pk, self._supply(station))
            if transaction.evse_id
            else []
        )
        if self._goes_on(station, transaction, report, rows):
            self._samples += rows
            return
        _stick(transaction, report.values)
        if taken.opened:
            self._samples += rows
        else:
            self._late += rows
        self.retell(transaction)
        if not report.transaction_id and taken.opened and _is_replay(report):
            self._ends.append((station, report.moment.at))

    def _goes_on(
        self, station: ChargingStation, transaction: Transaction, report: TransactionReport, rows: Sequence[Sample]
    ) -> bool:
        """The next event of a running charge, in its place: the common case, told without reading anything again."""
        before, at = transaction.last_event_at, report.moment.at
        if report.kind is not Kind.UPDATED or report.token is not None or not transaction.open or before is None:
            return False
        if report.seq_no is None or transaction.last_seq_no is None or report.seq_no != transaction.last_seq_no + 1:
            return False
        if at < before:
            return False
        state = (report.charging_state or "")[:16]
        told = Reading(at.timestamp(), SAMPLE, report.register_wh, None, suspended(state))
        if report.moment.flag in UNTIMED:
            return False
        if report.moment.flag:
            transaction.flags = sorted({*transaction.flags, report.moment.flag})
        if not self._add(station, transaction, rows, report.values, [told]):
            return False
        transaction.last_event_at = max(at, transaction.last_event_at or at)
        transaction.last_seq_no = report.seq_no
        transaction.charging_state = state or transaction.charging_state
        return True

    def retell(self, transaction: Transaction) -> None:
        self._remember(transaction)
        self._whole.add(transaction.pk)
        self._retold[transaction.pk] = transaction

    def _match(self) -> None:
        """Ends that name no start, and replayed starts that may be theirs."""
        for taken in self._taken:
            if taken.transaction is None and not taken.repeated:
                event = TransactionEvent.objects.get(
                    station_id=taken.event.station_id, content_key=taken.event.content_key
                )
                unmatched.wait(event, taken.report.transaction_id)
        if not self._ends:
            return
        self._tell_all_anew()  # the pairs are made from the rows, so these must be there
        self._save()
        changed: set[int] = set()
        for station, around in self._ends:
            changed |= unmatched.match(station, around, station.most_w)
        if not changed:
            return
        known = {t.pk: t for t in self._transactions.values()}
        MeterSample.objects.filter(transaction_id__in=changed, values__has_key=BY_TIME).update(transaction=None)
        for pk in sorted(changed):
            self.retell(known.get(pk) or ledger_store.locked().get(pk=pk))

    def _tell_all_anew(self) -> None:
        if not self._retold:
            return
        facts = ledger_store.facts(list(self._retold))
        for pk, transaction in self._retold.items():
            _take_stray_samples(transaction, facts[pk])
        readings = ledger_store.readings(list(self._retold))
        succession = Succession(self._retold.values(), self._opened)
        for pk, transaction in list(self._retold.items()):
            self._tell_anew(transaction, facts[pk], readings[pk], succession)

    def _tell_anew(
        self, transaction: Transaction, facts: Sequence[Fact], readings: Sequence[Reading], succession: Succession
    ) -> None:
        station = self.stations.get(transaction.station_id)
        if station is None:
            station = self.stations[transaction.station_id] = transaction.station
        if not facts:
            self._changed[transaction.pk] = transaction  # entered by hand or by a demo: there is no story to tell
            return
        count = Count(station.most_w)
        count.points = []
        story = tell(facts, readings, count)
        transaction.started_at = story.started_at
        transaction.last_event_at = story.last_event_at
        transaction.charging_state = story.charging_state
        transaction.last_seq_no, transaction.gaps = story.last_seq_no, story.gaps
        self._take_token(station, transaction, story.token, story.authorized)
        kept = set(transaction.flags) - _FROM_STORY - {SUPERSEDED}
        flags = kept | set(story.flags)
        transaction.ended_at, transaction.stop_reason = story.ended_at, story.stop_reason
        if story.ended_at is None and succession.has_a_successor(transaction):
            transaction.ended_at = max(story.last_event_at, story.started_at)
            transaction.stop_reason = "Other"
            transaction.charging_state = ""
            flags.add(SUPERSEDED)
        _counted(transaction, count, flags)
        self._changed[transaction.pk] = transaction
        if transaction.pk in self._opened:
            self._close_the_ones_before(transaction, succession)
        if transaction.ended_at is not None:
            was_open, *_ = self._before[transaction.pk]
            again = not was_open and transaction.pk not in self._opened
            self._prices.price_ended(transaction, station, count, again=again)

    def _take_token(self, station: ChargingStation, transaction: Transaction, value: str, authorized: bool) -> None:
        transaction.authorized = authorized
        if value == transaction.id_token_value and (transaction.id_token_id is not None or not authorized):
            return
        transaction.id_token_value = value
        if station.site_id is None or not value:
            transaction.id_token = None
            return
        wanted = (station.site_id, value.upper())
        token = self._tokens.get(wanted) or ledger_store.tokens({wanted}).get(wanted)
        transaction.id_token = token

    def _close_the_ones_before(self, transaction: Transaction, succession: Succession) -> None:
        for found in succession.open_before(transaction):
            lost = self._changed.get(found.pk) or self._retold.get(found.pk) or found
            if lost.ended_at is not None:
                continue
            self._remember(lost)
            self._whole.add(lost.pk)
            lost.ended_at = max(lost.last_event_at or lost.started_at, lost.started_at)
            lost.stop_reason, lost.charging_state = "Other", ""
            lost.flags = sorted({*lost.flags, SUPERSEDED})
            lost.check_before_billing = True
            self._changed[lost.pk] = lost
            self._prices.price_ended(lost, self.stations[transaction.station_id], None)

    def _sign(
        self, station: ChargingStation, transaction: Transaction | None, number: int, values: Sequence[MeterValue]
    ) -> None:
        for value in values:
            for told in value.signed:
                self._signed.append(
                    SignedMeterValue(
                        station=station,
                        transaction=transaction,
                        evse_number=number,
                        at=value.moment.at,
                        context=str(told.get("context") or value.context)[:32],
                        content_key=content_key(value.moment.told, told),
                        told=dict(told),
                    )
                )

    # ------------------------------------------------------------------ telling

    def _remember(self, transaction: Transaction) -> None:
        opened = transaction.pk in self._opened
        self._before.setdefault(
            transaction.pk,
            (
                transaction.open and not opened,
                transaction.charging_state,
                transaction.id_token_id,
                transaction.authorized,
            ),
        )

    def _announce(self, transaction: Transaction) -> None:
        was_open, *shown = self._before[transaction.pk]
        if transaction.pk in self._opened:
            _tell(transaction, self.stations, "started")
        elif was_open and shown != [transaction.charging_state, transaction.id_token_id, transaction.authorized]:
            if transaction.open:
                _tell(transaction, self.stations, "updated")
        elif was_open == transaction.open:
            return
        if (was_open or transaction.pk in self._opened) and not transaction.open:
            _tell(transaction, self.stations, "ended")
        _show(transaction)

    def outcomes(self) -> list[Outcome]:
        return [_outcome(t) for t in self._taken]


# ---------------------------------------------------------------------- small questions


def _event(
    station: ChargingStation, transaction: Transaction | None, report: TransactionReport, verdict: Verdict
) -> NewEvent:
    key = report.content_key
    if transaction is not None and not report.transaction_id:
        key = f"{transaction.start_key[KEY:]}{key}"[:64]
    return NewEvent(
        station_id=station.pk,
        transaction_id=transaction.pk if transaction is not None else None,
        kind=report.kind.value,
        at=report.moment.at,
        received_at=report.received or report.moment.at,
        seq_no=report.seq_no,
        trigger=report.trigger[:32],
        offline=report.offline,
        told_at=report.told[:64].replace("\x00", ""),
        correction=report.moment.flag,
        register_wh=report.register_wh,
        charging_state=(report.charging_state or "")[:16],
        stop_reason=report.stop_reason[:32] if report.kind is Kind.ENDED else "",
        id_token_value=report.token.value[:64].replace("\x00", "") if report.token is not None else "",
        verdict=verdict.status if report.token is not None else "",
        content_key=key,
        payload=report.payload,
    )


def _start_key(report: TransactionReport, number: int) -> str:
    return report.content_key[:KEY] + (f"-{number}" if number else "")


def _number_for(station: ChargingStation, pk: int) -> str:
    """Our own key, unless the station has used that word itself while it spoke 2.0.1 (R28)."""
    number = pk
    while Transaction.objects.filter(station=station, transaction_id=str(number)).exists():
        number += 1_000_000_000
    return str(number)


def _is_replay(report: TransactionReport) -> bool:
    return report.received is not None and report.received - report.moment.at >= REPLAYED_AFTER


def _take_stray_samples(transaction: Transaction, facts: Sequence[Fact]) -> None:
    """Meter values of a replay that named nobody: they were measured while this one ran there."""
    if not transaction.start_key or transaction.evse_id is None:
        return
    starts = [f for f in facts if f.kind is Kind.STARTED]
    ends = [f for f in facts if f.kind is Kind.ENDED]
    if not starts or not ends or starts[0].received - starts[0].at < REPLAYED_AFTER:
        return
    during = {"at__gte": starts[0].at, "at__lte": max(f.at for f in ends)}
    MeterSample.objects.filter(**during, evse_id=transaction.evse_id, transaction=None, values__has_key=BY_TIME).update(
        transaction=transaction
    )


def _long_ago(value: MeterValue) -> bool:
    return value.received is not None and value.received - value.moment.at >= REPLAYED_AFTER


def _stick(transaction: Transaction, values: Sequence[MeterValue]) -> None:
    """What is odd about the values themselves, whichever way they are counted."""
    odd = {v.moment.flag for v in values if v.moment.flag}
    for value in values:
        odd.update(value.oddities())
    if odd and not odd <= set(transaction.flags):
        transaction.flags = sorted({*transaction.flags, *odd})


def _counted(transaction: Transaction, count: Count, flags: set[str]) -> None:
    transaction.meter_start_wh = count.start
    transaction.meter_last_wh = None if count.start is None else count.last
    transaction.energy_wh = count.energy_wh
    transaction.soc = count.soc
    transaction.charging_s = count.charging_s
    transaction.idle_s = count.idle_s
    transaction.max_power_w = count.power_max
    transaction.tally = count.to_list()
    transaction.flags = sorted(flags | set(count.flags))
    transaction.check_before_billing = not TO_CHECK.isdisjoint(transaction.flags)


def _show(transaction: Transaction) -> None:
    """The EVSE shows the charging state of the transaction that runs on it now."""
    evse = transaction.evse
    if evse is None or SUPERSEDED in transaction.flags:
        return
    if Transaction.objects.filter(evse=evse, started_at__gt=transaction.started_at).exists():
        return  # a replay of old events changes nothing that is shown now
    shown = transaction.charging_state if transaction.open else ""
    suspended_since_s = 0.0 if shown != evse.charging_state else 10.0
    if shown != evse.charging_state:
        evse.charging_state = shown
        EVSE.objects.filter(pk=evse.pk).update(charging_state=shown)
    refresh_state(evse, suspended_since_s=suspended_since_s)


def _tell(transaction: Transaction, stations: Mapping[int, ChargingStation], kind: str) -> None:
    site = stations[transaction.station_id].site_id
    announce(
        TRANSACTION_CHANNEL, {"kind": kind, "transaction": transaction.pk, "site": site, "evse": transaction.evse_id}
    )


def _outcome(taken: _Taken) -> Outcome:
    transaction = taken.transaction
    if transaction is None:
        return Outcome(taken.verdict, taken.report.transaction_id, repeated=taken.repeated)
    return Outcome(
        taken.verdict,
        transaction.transaction_id,
        transaction.pk,
        transaction.evse.number if transaction.evse is not None else None,
        transaction.evse_id,
        transaction.open,
        taken.repeated,
        transaction.energy_wh,
    )

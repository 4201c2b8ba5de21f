"""How the ledger meets the database: whole batches in few statements, on SQLite and on PostgreSQL alike.

Events are told apart by a unique index, and by it alone: the insert says which of them were new, so that two gateways
that hear the same one agree. Transactions are read under a lock where the database has one, in the order of their
keys. Django's own bulk verbs would do the same at several times the cost.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from functools import cache
from operator import attrgetter
from typing import Any, NamedTuple, TypeVar

import orjson
from django.db import DEFAULT_DB_ALIAS, connection
from django.db.models import DateTimeField, JSONField, Model, QuerySet
from django.db.models.base import ModelState
from django.db.models.functions import Upper

from csms import bulk
from csms.energy import SAMPLE, Reading
from csms.ledger_models import SignedMeterValue
from csms.models import EVSE, ChargingStation, IdToken, MeterSample, Transaction, TransactionEvent
from csms.stations import Sample
from csms.story import Fact
from csms.vocabulary import Kind, Verdict

M = TypeVar("M", bound=Model)
Key = tuple[int, str]
"""Station and content key, or station and transaction id."""


class NewEvent(NamedTuple):
    """An event to be kept, as its columns are: one is made for every message, and a record takes many times as long."""

    station_id: int
    transaction_id: int | None
    kind: str
    at: datetime
    received_at: datetime
    seq_no: int | None
    trigger: str
    offline: bool
    told_at: str
    correction: str
    register_wh: float | None
    charging_state: str
    stop_reason: str
    id_token_value: str
    verdict: str
    content_key: str
    payload: Mapping[str, Any]

    @property
    def key(self) -> Key:
        return self.station_id, self.content_key


_TRANSACTION = (
    *("evse_id", "connector", "id_token_id", "id_token_value", "authorized", "started_at", "ended_at", "stop_reason"),
    *("charging_state", "meter_start_wh", "meter_last_wh", "energy_wh", "soc", "last_event_at", "last_seq_no"),
    *("remote_start_id", "flags", "gaps", "charging_s", "idle_s", "max_power_w", "check_before_billing", "cost"),
    *("currency", "cost_lines", "tariff", "tally"),
)
_RUNNING = (
    *("evse_id", "charging_state", "meter_start_wh", "meter_last_wh", "energy_wh", "soc", "last_event_at"),
    *("last_seq_no", "remote_start_id", "flags", "charging_s", "idle_s", "max_power_w", "check_before_billing"),
    "tally",
)
_BILL = ("cost", "currency", "cost_lines", "tariff")
_UNPRICED = tuple(name for name in _TRANSACTION if name not in _BILL)
_KNOWN = tuple(f.attname for f in Transaction._meta.concrete_fields if f.attname not in _BILL)
_STATION = ("id", "site_id", "admission", "wiring", "current", "max_a", "max_w")
_PLACE = ("id", "station_id", "number")
_WHOLE_PLACE = tuple(f.attname for f in EVSE._meta.concrete_fields)
OFFERS_NOTHING_A = 1.0


# ---------------------------------------------------------------------- reading


def stations(pks: Iterable[int]) -> dict[int, ChargingStation]:
    wanted = sorted(set(pks))
    rows = _read(ChargingStation, _STATION, f"t.id IN ({_marks(wanted)})", wanted)
    return {row[0]: _made(ChargingStation, _STATION, row) for row in rows}


def transactions(keys: Iterable[Key]) -> dict[Key, Transaction]:
    """By station and transaction id, without their bills; they stay ours until the commit."""
    wanted = set(keys)
    if not wanted:
        return {}
    of_stations, named = sorted({s for s, _ in wanted}), sorted({t for _, t in wanted})
    condition = f"t.station_id IN ({_marks(of_stations)}) AND t.transaction_id IN ({_marks(named)})"
    found = {}
    for row in _read(Transaction, _KNOWN, condition, [*of_stations, *named], lock=True):
        transaction = _made(Transaction, _KNOWN, row)
        if (transaction.station_id, transaction.transaction_id) in wanted:
            found[transaction.station_id, transaction.transaction_id] = transaction
    places = {t.evse_id for t in found.values() if t.evse_id is not None}
    if places:
        evses = {r[0]: r for r in _read(EVSE, _PLACE, f"t.id IN ({_marks(places)})", sorted(places))}
        for transaction in found.values():
            if transaction.evse_id in evses:
                transaction.evse = _made(EVSE, _PLACE, evses[transaction.evse_id])
    return found


def places(stations_and_numbers: Iterable[tuple[int, int]]) -> dict[tuple[int, int], EVSE]:
    """The EVSEs of these numbers, as far as they are there, by station and number."""
    wanted = set(stations_and_numbers)
    if not wanted:
        return {}
    of_stations = sorted({station for station, _ in wanted})
    rows = _read(EVSE, _WHOLE_PLACE, f"t.station_id IN ({_marks(of_stations)})", of_stations)
    found = (_made(EVSE, _WHOLE_PLACE, row) for row in rows)
    return {key: evse for evse in found if (key := (evse.station_id, evse.number)) in wanted}


def running(evse_pks: Iterable[int]) -> dict[int, Transaction]:
    """The transaction that runs on each of these EVSEs, the newest where there are two."""
    wanted = sorted(set(evse_pks))
    condition = f"t.ended_at IS NULL AND t.evse_id IN ({_marks(wanted)})"
    rows = _read(Transaction, _KNOWN, condition, wanted, lock=True) if wanted else []
    found = sorted((_made(Transaction, _KNOWN, row) for row in rows), key=lambda t: (t.started_at, t.pk))
    return {t.evse_id: t for t in found if t.evse_id is not None}


def locked() -> QuerySet[Transaction]:
    """Transactions to be written, in the order in which everybody takes their locks."""
    rows = Transaction.objects.select_related("evse").defer(*_BILL).order_by("pk")
    return rows.select_for_update(of=("self",)) if connection.features.has_select_for_update_of else rows


def tokens(wanted: set[tuple[int, str]]) -> dict[tuple[int, str], IdToken]:
    """By site and value in capitals."""
    if not wanted:
        return {}
    rows = IdToken.objects.annotate(folded=Upper("value")).filter(
        site_id__in={s for s, _ in wanted}, folded__in={v for _, v in wanted}
    )
    return {(t.site_id, t.value.upper()): t for t in rows}


def facts(transaction_pks: Sequence[int]) -> dict[int, list[Fact]]:
    """Every event of these transactions."""
    rows = TransactionEvent.objects.filter(transaction_id__in=transaction_pks).order_by("pk")
    found: dict[int, list[Fact]] = {pk: [] for pk in transaction_pks}
    for pk, kind, *rest in rows.values_list("transaction_id", "kind", *_FACT):
        found[pk].append(Fact(Kind(kind), *rest))
    return found


_FACT = (
    *("at", "received_at", "seq_no", "correction", "register_wh", "charging_state", "stop_reason"),
    *("id_token_value", "verdict"),
)


def readings(transaction_pks: Sequence[int]) -> dict[int, list[Reading]]:
    """Every meter value of these transactions, as far as they are still kept."""
    rows = MeterSample.objects.filter(transaction_id__in=transaction_pks).order_by("transaction_id", "at", "pk")
    found: dict[int, list[Reading]] = {pk: [] for pk in transaction_pks}
    for pk, *row in rows.values_list("transaction_id", "at", "energy_wh", "power_w", "values").iterator(2000):
        found[pk].append(reading(*row))
    return found


def reading(at: datetime, wh: float | None, power_w: float | None, values: Mapping[str, Any]) -> Reading:
    offered_a = values.get("offered_a")
    paused = None if offered_a is None else offered_a < OFFERS_NOTHING_A
    return Reading(at.timestamp(), SAMPLE, wh, power_w, paused, values.get("soc"))


def judged(token: IdToken | None, now: datetime) -> Verdict:
    """What we say to a token of the site; none is known: invalid."""
    if token is None:
        return Verdict("invalid")
    return Verdict(str(token.status_at(now)), token.group, token.expires_at, token.pk)


def _read(
    model: type[Model], names: Sequence[str], condition: str, values: Sequence[Any], *, lock: bool = False
) -> list[tuple[Any, ...]]:
    """Rows as they are in the database, in the order of their keys: what Django takes longest for is not needed."""
    columns = ", ".join(f't."{name}"' for name in names)
    with connection.cursor() as cursor:
        cursor.execute(
            f"SELECT {columns} FROM {model._meta.db_table} t WHERE {condition} ORDER BY t.id"  # noqa: S608
            + (" FOR UPDATE" if lock and connection.features.has_select_for_update else ""),
            values,
        )
        return list(cursor.fetchall())


def _made(model: type[M], names: tuple[str, ...], row: Sequence[Any]) -> M:
    """A record with these fields; the others are read when they are asked for.

    As `Model.from_db` makes it, but that spends its time on the fields that are not there, one by one.
    """
    record = model.__new__(model)
    fields = record.__dict__
    fields.update(zip(names, row, strict=True))
    for name, turn in _turns(model, names, _vendor()):
        if fields[name] is not None:
            fields[name] = turn(fields[name])
    record._state = ModelState()
    record._state.db, record._state.adding = DEFAULT_DB_ALIAS, False
    return record


@cache
def _vendor() -> str:
    return connection.vendor


@cache
def _turns(model: type[Model], names: tuple[str, ...], vendor: str) -> list[tuple[str, Callable[[Any], Any]]]:
    """Which of these fields are not in the database as they are in a record, and what makes them so."""
    turns: list[tuple[str, Callable[[Any], Any]]] = []
    for field in (f for f in model._meta.concrete_fields if f.attname in names):
        if isinstance(field, JSONField):
            turns.append((field.attname, orjson.loads))
        elif vendor == "sqlite" and isinstance(field, DateTimeField):
            turns.append((field.attname, _aware))
    return turns


def _aware(moment: datetime) -> datetime:
    return moment.replace(tzinfo=UTC)


def _marks(values: Collection[Any]) -> str:
    return ", ".join(["%s"] * len(values))


# ---------------------------------------------------------------------- writing


def add_events(events: Sequence[NewEvent]) -> set[Key]:
    """Keep the events that are new; which ones those were."""
    if not events:
        return set()
    new = bulk.insert_new(TransactionEvent, NewEvent._fields, events, known_by=("station_id", "content_key"))
    return {(station, key) for station, key in new}


def add_samples(rows: Sequence[Sample]) -> None:
    bulk.insert(MeterSample, Sample._fields, rows)


def new_samples(rows: Sequence[Sample]) -> list[Sample]:
    """Without those that are kept already: a message that was repeated is one message."""
    if not rows:
        return []
    kept = MeterSample.objects.filter(
        evse_id__in={r.evse_id for r in rows}, at__gte=min(r.at for r in rows), at__lte=max(r.at for r in rows)
    )
    known = {(evse, at, wh, w, _sorted(v)) for evse, at, wh, w, v in kept.values_list(*_SAMPLE_CONTENT)}
    fresh = []
    for row in rows:
        content = (row.evse_id, row.at, row.energy_wh, row.power_w, _sorted(row.values))
        if content not in known:
            known.add(content)
            fresh.append(row)
    return fresh


def _sorted(values: Any) -> bytes:
    """PostgreSQL gives an object's members back in an order of its own."""
    return orjson.dumps(values, default=str, option=orjson.OPT_SORT_KEYS)


_SAMPLE_CONTENT = ("evse_id", "at", "energy_wh", "power_w", "values")


def add_signed(rows: Sequence[SignedMeterValue]) -> None:
    if rows:
        SignedMeterValue.objects.bulk_create(rows, ignore_conflicts=True)


def with_bill(transaction: Transaction) -> None:
    """Read what is left out while a charge only goes on."""
    if transaction.get_deferred_fields():
        transaction.refresh_from_db(fields=_BILL)


def save(whole: Sequence[Transaction], going_on: Sequence[Transaction] = ()) -> None:
    """Write these transactions as they stand here; of those that only went on, what that changes."""
    unpriced = [t for t in whole if t.get_deferred_fields()]
    _save(_TRANSACTION, [t for t in whole if t not in unpriced])
    _save(_UNPRICED, unpriced)
    _save(_RUNNING, going_on)


def _save(names: tuple[str, ...], rows: Sequence[Transaction]) -> None:
    if rows:
        of = attrgetter(*names)
        bulk.update(Transaction, names, [(t.pk, of(t)) for t in rows])

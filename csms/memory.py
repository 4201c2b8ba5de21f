"""What a gateway keeps in memory of stations and id tokens, so that no message waits for a read.

Filled at the start, refreshed by record when channel `changed` tells of one, and whole every 30 s. A miss is never
final: who is not found here is looked up in the database (one reader thread) before anyone is refused.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, fields, replace
from datetime import UTC, datetime
from functools import partial
from typing import Any, TypeVar

from django.db import DatabaseError, close_old_connections, connection
from django.db.models.functions import Upper

from csms.learning import OWN, WRITTEN_WITHIN, Key, ModelRecord, effective, key_of, read_models, where
from csms.models import EVSE, PHASE_NAMES, ChargingStation, IdToken, Transaction, WantedLimit
from csms.obedience_models import Alarm
from csms.security_models import StationCertificate
from csms.vocabulary import ShownToken, Verdict
from meters.supply import Supply

log = logging.getLogger(__name__)
READ_AT_ONCE = 500
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Security:
    """How a station may come in (`security_models.StationSecurity`); as it is here: nothing was said of it."""

    least_profile: int | None = None
    lower_profile: int | None = None
    lower_until: datetime | None = None
    wanted_profile: int | None = None
    seen_profile: int | None = None
    old_password_hash: str = ""
    old_password_until: datetime | None = None


NOTHING_SAID = Security()


@dataclass(frozen=True, slots=True)
class StationRecord:
    """A station as the gateway needs it."""

    pk: int
    identity: str
    site_id: int | None
    admission: str
    password_hash: str
    dc: bool
    phases: tuple[str, ...]
    max_a: float
    max_w: float | None
    min_a: float
    fail_safe_a: float
    quiet: bool
    firmware_version: str
    capabilities: dict[str, Any]  # what counts: the model's, with what is the station's own above it
    evses: dict[int, int] = field(default_factory=dict)  # number → primary key
    vendor: str = ""
    model: str = ""
    model_record: ModelRecord | None = None
    own: frozenset[str] = frozenset()  # capabilities that are the station's own, whatever its model learns
    isolated: frozenset[int] = frozenset()  # the EVSEs that were found not to follow
    alarms: frozenset[str] = frozenset()  # keys of those that are open
    serial_number: str = ""
    security: Security = NOTHING_SAID
    supply: Supply = Supply.TN  # of its site

    @property
    def product(self) -> Key | None:
        return key_of(self.vendor, self.model, self.firmware_version)

    @property
    def accepted(self) -> bool:
        return self.admission == ChargingStation.Admission.ACCEPTED

    @property
    def rejected(self) -> bool:
        return self.admission == ChargingStation.Admission.REJECTED

    @property
    def quarantined(self) -> bool:
        return self.admission == ChargingStation.Admission.QUARANTINED


@dataclass(frozen=True, slots=True)
class TokenRecord:
    pk: int
    status: str
    expires_at: datetime | None
    group: str

    def verdict(self, now: datetime) -> Verdict:
        status = self.status
        if status == IdToken.Status.ACCEPTED and self.expires_at is not None and self.expires_at <= now:
            status = IdToken.Status.EXPIRED
        return Verdict(str(status), self.group, self.expires_at, self.pk)


_STATION_FIELDS = (
    "pk",
    "identity",
    "site_id",
    "admission",
    "password_hash",
    "current",
    "wiring",
    "max_a",
    "max_w",
    "min_a",
    "fail_safe_a",
    "quiet",
    "firmware_version",
    "capabilities",
    "serial_number",
    "site__supply",
)
_SECURITY_FIELDS = tuple(f"security__{f.name}" for f in fields(Security))


def read_stations(**which: Any) -> list[StationRecord]:
    """Stations and their EVSEs, from the database."""
    found = ChargingStation.objects.filter(**which).values_list(*_STATION_FIELDS, *_SECURITY_FIELDS, "vendor", "model")
    # All of them are looked at one by one, and never lie in memory twice.
    rows: Iterable[Any] = list(found) if which else found.iterator(chunk_size=500)
    evses: dict[int, dict[int, int]] = {}
    of_these = EVSE.objects.filter(station_id__in=[r[0] for r in rows]) if which else EVSE.objects.all()
    for pk, station, number in of_these.values_list("pk", "station_id", "number"):
        evses.setdefault(station, {})[number] = pk
    models = read_models(**({"vendor__in": {r[-2] for r in rows}, "model__in": {r[-1] for r in rows}} if which else {}))
    these = [r[0] for r in rows] if which else None
    isolated, alarms = read_isolated(these), read_alarms(these)
    return [
        replace(
            _record(row, evses.get(row[0], {}), models),
            isolated=frozenset(isolated.get(row[0], ())),
            alarms=frozenset(alarms.get(row[0], ())),
        )
        if row[0] in isolated or row[0] in alarms
        else _record(row, evses.get(row[0], {}), models)
        for row in rows
    ]


def _record(row: Any, evses: dict[int, int], models: Mapping[Key, ModelRecord]) -> StationRecord:
    own = row[13] if isinstance(row[13], dict) else {}
    key = key_of(row[-2], row[-1], row[12])
    model = models.get(key) if key is not None else None
    taught = own.get(OWN)
    return StationRecord(
        pk=row[0],
        identity=row[1],
        site_id=row[2],
        admission=row[3],
        password_hash=row[4],
        dc=row[5] == ChargingStation.Current.DC,
        phases=tuple(row[6] or ()) or PHASE_NAMES,
        max_a=row[7],
        max_w=row[8],
        min_a=row[9],
        fail_safe_a=row[10],
        quiet=row[11],
        firmware_version=row[12],
        capabilities=effective(own, model.values if model is not None else {}),
        evses=evses,
        vendor=row[-2],
        model=row[-1],
        model_record=model,
        own=frozenset(own) | frozenset(taught if isinstance(taught, dict) else ()),
        serial_number=row[14],
        security=Security(row[16], row[17], row[18], row[19], row[20], row[21] or "", row[22]),
        supply=Supply(row[15] or Supply.TN),
    )


def read_tokens(**which: Any) -> dict[tuple[int, str], TokenRecord]:
    rows = IdToken.objects.annotate(folded=Upper("value")).filter(**which)
    return {
        (site, value): TokenRecord(pk, status, expires, group)
        for site, value, pk, status, expires, group in rows.values_list(
            "site_id", "folded", "pk", "status", "expires_at", "group"
        )
    }


def read_revoked(now: datetime) -> frozenset[str]:
    """The fingerprints of certificates of ours that are revoked and would be valid still."""
    revoked = StationCertificate.objects.filter(revoked_at__isnull=False, not_after__gt=now)
    return frozenset(revoked.values_list("fingerprint", flat=True))


def read_open_transactions(station_pks: Sequence[int]) -> dict[int, dict[int, str]]:
    """The transaction that runs on each EVSE of these stations."""
    running: dict[int, dict[int, str]] = {}
    for first in range(0, len(station_pks), READ_AT_ONCE):
        some = station_pks[first : first + READ_AT_ONCE]
        rows = Transaction.objects.filter(station_id__in=some, ended_at=None, evse__isnull=False).order_by("started_at")
        for station, number, tid in rows.values_list("station_id", "evse__number", "transaction_id"):
            if number is not None:
                running.setdefault(station, {})[number] = tid
    return running


def read_isolated(stations: list[int] | None) -> dict[int, set[int]]:
    """By station, the EVSEs that were found not to follow; of these stations, or of all."""
    rows = WantedLimit.objects.filter(isolated_at__isnull=False)
    if stations is not None:
        rows = rows.filter(evse__station__in=stations)
    found: dict[int, set[int]] = {}
    for station, number in rows.values_list("evse__station_id", "evse__number"):
        found.setdefault(station, set()).add(number)
    return found


def read_alarms(stations: list[int] | None) -> dict[int, set[str]]:
    """By station, the keys of its open alarms."""
    rows = Alarm.objects.filter(ended_at=None, station__isnull=False)
    if stations is not None:
        rows = rows.filter(station__in=stations)
    found: dict[int, set[str]] = {}
    for station, key in rows.values_list("station_id", "key"):
        if station is not None:
            found.setdefault(station, set()).add(key)
    return found


class Memory:
    """Stations by identity and key, tokens by site and value; and the one thread that reads."""

    def __init__(self) -> None:
        self.stations: dict[str, StationRecord] = {}
        self.by_pk: dict[int, StationRecord] = {}
        self.tokens: dict[tuple[int, str], TokenRecord] = {}
        self.models: dict[Key, ModelRecord] = {}
        self._said: dict[int, tuple[Key, datetime]] = {}  # by station: the product it just said it is
        self.revoked: frozenset[str] = frozenset()
        self._folded: dict[str, list[str]] = {}
        self._reader = ThreadPoolExecutor(1, "reader")
        self._arrived: dict[int, asyncio.Future[dict[int, str]]] = {}
        self._reading: asyncio.Task[None] | None = None

    async def read(self, question: Callable[[], T]) -> T:
        """Ask the database something off the event loop."""

        def ask() -> T:
            close_old_connections()
            return question()

        return await asyncio.get_running_loop().run_in_executor(self._reader, ask)

    async def open_transactions(self, station_pk: int) -> dict[int, str]:
        """The transaction that runs on each EVSE of a station; asked for all at once that arrive together.

        Raises `DatabaseError`.
        """
        answer = self._arrived.get(station_pk)
        if answer is None:
            answer = self._arrived[station_pk] = asyncio.get_running_loop().create_future()
        if self._reading is None or self._reading.done():
            self._reading = asyncio.create_task(self._read_arrived())
        return await asyncio.shield(answer)

    async def _read_arrived(self) -> None:
        while self._arrived:
            arrived, self._arrived = self._arrived, {}
            try:
                running = await self.read(partial(read_open_transactions, list(arrived)))
            except Exception as error:  # whoever waits must be told, whatever it was
                for answer in arrived.values():
                    answer.set_exception(error)
                    answer.exception()  # seen: who waited may be gone already
                continue
            for station_pk, answer in arrived.items():
                answer.set_result(running.get(station_pk, {}))

    async def close(self) -> None:
        await asyncio.get_running_loop().run_in_executor(self._reader, lambda: connection.close())
        self._reader.shutdown(wait=False)

    async def fill(self) -> None:
        """Read everything anew. While the database is away, what is known stays."""
        try:
            stations = await self.read(read_stations)
            tokens = await self.read(read_tokens)
            self.revoked = await self.read(partial(read_revoked, datetime.now(UTC)))
        except DatabaseError as error:
            log.warning("stations and tokens could not be read again: %s", error)
            return
        # Who did not change keeps the record it has: most do not, and sessions hold on to theirs.
        stations = [known if (known := self.by_pk.get(s.pk)) == s and known is not None else s for s in stations]
        self.stations = {s.identity: s for s in stations}
        self.by_pk = {s.pk: s for s in stations}
        self._models_read_again(stations)
        self.tokens = tokens
        self._folded = {}
        for station in stations:
            self._folded.setdefault(station.identity.casefold(), []).append(station.identity)

    def _models_read_again(self, stations: list[StationRecord]) -> None:
        """One record for all stations of a model, with what was learnt a moment ago."""
        now, before, self.models = datetime.now(UTC), self.models, {}
        for read in (s.model_record for s in stations):
            if read is not None and read.key not in self.models:
                shared = before.get(read.key, read)
                if shared is not read:
                    shared.read_again(read, now)
                self.models[read.key] = shared
        for station in map(self._as_said, stations):
            model = self.models.get(station.model_record.key) if station.model_record is not None else None
            if model is not None:
                mended = _with_model(station, model)
                self.by_pk[station.pk] = self.stations[station.identity] = mended

    async def refresh_station(self, pk: int) -> StationRecord | None:
        """Read one station anew; None when it is gone."""
        try:
            found = await self.read(lambda: read_stations(pk=pk))
            self.revoked = await self.read(partial(read_revoked, datetime.now(UTC)))
        except DatabaseError as error:
            log.warning("station %s could not be read again: %s", pk, error)
            return self.by_pk.get(pk)
        if not found:
            gone = self.by_pk.pop(pk, None)
            if gone is not None:
                self.stations.pop(gone.identity, None)
            return None
        return self.put(found[0])

    def put(self, station: StationRecord) -> StationRecord:
        station = self._as_said(station)
        read = station.model_record
        if read is not None:  # one record for all stations of a model: what one learns the others know
            shared = self.models.setdefault(read.key, read)
            if shared is not read:
                shared.read_again(read, datetime.now(UTC))
            station = _with_model(station, shared)
        before = self.by_pk.get(station.pk)
        if before is not None and before.identity != station.identity:
            self.stations.pop(before.identity, None)
        self.by_pk[station.pk] = self.stations[station.identity] = station
        names = self._folded.setdefault(station.identity.casefold(), [])
        if station.identity not in names:
            names.append(station.identity)
        return station

    def meet(self, record: StationRecord, vendor: str, model: str, firmware: str) -> None:
        """A station says what it is. A model that is known here counts for it at once, before anything is written."""
        key = key_of(vendor, model, firmware or record.firmware_version)
        if key is None or key == record.product:
            return
        self._said[record.pk] = (key, datetime.now(UTC))
        if key in self.models:
            self.put(record)

    def _as_said(self, record: StationRecord) -> StationRecord:
        """A record that was read before what the station just said of itself was written is put right."""
        said = self._said.get(record.pk)
        if said is None:
            return record
        key, at = said
        if record.product == key or datetime.now(UTC) - at > WRITTEN_WITHIN:
            del self._said[record.pk]
            return record
        model = self.models.get(key)
        if model is None:
            return record
        return _with_model(replace(record, vendor=key[0], model=key[1], firmware_version=key[2]), model)

    def learn(self, record: StationRecord, more: Mapping[str, Any], source: str) -> bool:
        """Keep it in mind at once, for the other stations of the model too. False when all of it was known."""
        model, changed = record.model_record, False
        for name, value in more.items():
            place = "own" if model is None else where(model.entries.get(name), value, source, record.identity)
            if place == "drop" or (place == "own" and record.capabilities.get(name) == value):
                continue
            changed = True
            if place == "own" or model is None:
                _put(record.capabilities, name, value)
                continue
            if value is None:
                model.entries.pop(name, None)
                model.lately.pop(name, None)
            else:
                entry = {"value": value, "source": source, "station": record.identity}
                model.learn(name, entry, datetime.now(UTC))
            for other in self.by_pk.values():
                if other.product == record.product and name not in other.own:
                    _put(other.capabilities, name, value)
            if name not in record.own:
                _put(record.capabilities, name, value)
        return changed

    async def refresh_token(self, pk: int) -> None:
        try:
            found = await self.read(lambda: read_tokens(pk=pk))
        except DatabaseError as error:
            log.warning("token %s could not be read again: %s", pk, error)
            return
        for key in [k for k, t in self.tokens.items() if t.pk == pk]:
            del self.tokens[key]
        self.tokens.update(found)

    async def find_station(self, identity: str) -> StationRecord | None:
        """By identity as written, else in other letter case if only one station can be meant (Q3).

        Raises `DatabaseError` when it is not in memory and the database is away.
        """
        known = self.stations.get(identity)
        if known is not None:
            return known
        found = await self.read(lambda: read_stations(identity=identity))
        if found:
            return self.put(found[0])
        names = self._folded.get(identity.casefold(), [])
        return self.stations.get(names[0]) if len(names) == 1 else None

    def quarantined(self) -> int:
        return sum(1 for s in self.by_pk.values() if s.quarantined)

    def verdict(self, station: StationRecord, token: ShownToken, now: datetime) -> Verdict | None:
        """What memory says of a token on this station; None: it is not known here."""
        if not station.accepted or station.site_id is None:
            return Verdict("invalid")
        if token.is_nobody:
            return Verdict("accepted")
        record = self.tokens.get((station.site_id, token.value.upper()))
        return record.verdict(now) if record is not None else None

    async def authorize(self, station: StationRecord, token: ShownToken, now: datetime) -> Verdict:
        """What we say to this token. Unknown means invalid, but only after the database said so too."""
        known = self.verdict(station, token, now)
        if known is not None or station.site_id is None:
            return known or Verdict("invalid")
        try:
            found = await self.read(lambda: read_tokens(site_id=station.site_id, folded=token.value.upper()))
        except DatabaseError as error:
            log.warning("a token could not be looked up: %s", error)
            return Verdict("invalid")
        self.tokens.update(found)
        return next((t.verdict(now) for t in found.values()), Verdict("invalid"))


def _with_model(record: StationRecord, model: ModelRecord) -> StationRecord:
    own = {name: value for name, value in record.capabilities.items() if name in record.own}
    return replace(record, model_record=model, capabilities={**model.values, **own})


def _put(where_to: dict[str, Any], name: str, value: Any) -> None:
    if value is None:
        where_to.pop(name, None)
    else:
        where_to[name] = value

"""What is learnt of a station model, and where it is kept: once per vendor, model and firmware, for all its stations.

A station that differs from its model keeps what it taught for itself; what a person set is never undone by learning.
A question that may send a station into a boot is written down *before* it is asked (Q24, R29): one that was followed
by a boot is never asked again of that firmware. The verbs run in the gateway's writer; `ModelRecord` is what its
memory holds.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from csms.capabilities import BY_NAME, Source, stronger
from csms.models import ChargingStation
from csms.obedience_models import StationModel

Key = tuple[str, str, str]
OWN = "learned"
"""In a station's own capabilities: what it taught that its model says otherwise."""

OPEN_FOR = timedelta(hours=1)
BLAMED_FOR = timedelta(minutes=15)
MOST_TRIES = 3
WRITTEN_WITHIN = timedelta(seconds=5)

ASK, WAIT, NEVER = "ask", "wait", "never"
OK, REFUSED, REBOOTED, SILENT = "ok", "refused", "rebooted", "silent"


@dataclass(slots=True)
class ModelRecord:
    """A station model as the gateway needs it; one object for all its stations."""

    key: Key
    entries: dict[str, dict[str, Any]] = field(default_factory=dict)
    asked: dict[str, dict[str, Any]] = field(default_factory=dict)
    repairs: dict[str, str] = field(default_factory=dict)
    lately: dict[str, tuple[dict[str, Any], datetime]] = field(default_factory=dict, compare=False)

    def learn(self, name: str, entry: dict[str, Any], at: datetime) -> None:
        """Keep it in mind, also when the record is read again before it was written."""
        self.entries[name] = entry
        self.lately = {n: (e, t) for n, (e, t) in self.lately.items() if at - t < WRITTEN_WITHIN}
        self.lately[name] = (entry, at)

    def read_again(self, read: ModelRecord, at: datetime) -> None:
        """What the database says now, with what was learnt a moment ago above it."""
        young = {n: e for n, (e, t) in self.lately.items() if at - t < WRITTEN_WITHIN}
        self.entries, self.asked, self.repairs = {**read.entries, **young}, read.asked, read.repairs

    @property
    def values(self) -> dict[str, Any]:
        return {n: e["value"] for n, e in self.entries.items() if isinstance(e, dict) and "value" in e}

    def answer(self, question: str) -> str:
        entry = self.asked.get(question)
        return str(entry.get("answer", "")) if entry else ""


def key_of(vendor: str, model: str, firmware: str) -> Key | None:
    """None for a product that does not say what it is: two such are not the same."""
    return (vendor, model, firmware) if vendor or model else None


def read_models(**which: Any) -> dict[Key, ModelRecord]:
    return {
        (m.vendor, m.model, m.firmware): ModelRecord(
            (m.vendor, m.model, m.firmware), _dict(m.capabilities), _dict(m.asked), _dict(m.repairs)
        )
        for m in StationModel.objects.filter(**which)
    }


def effective(own: Mapping[str, Any], model: Mapping[str, Any]) -> dict[str, Any]:
    """What counts for one station: its own word before its model's, a person's before what it taught."""
    taught = own.get(OWN)
    return {**model, **(taught if isinstance(taught, dict) else {}), **{n: v for n, v in own.items() if n != OWN}}


def sources(station: ChargingStation, model: StationModel | None) -> dict[str, tuple[Any, str, Mapping[str, Any]]]:
    """By capability: the value that counts, where it comes from (`own`, `taught`, or the model's source), the entry."""
    own = _dict(station.capabilities)
    out: dict[str, tuple[Any, str, Mapping[str, Any]]] = {}
    for name in BY_NAME:
        entry = _dict(model.capabilities).get(name) if model is not None else None
        if isinstance(entry, dict) and "value" in entry:
            out[name] = entry["value"], str(entry.get("source", "")), entry
        if name in _dict(own.get(OWN)):
            out[name] = own[OWN][name], "taught", {}
        if name in own:
            out[name] = own[name], "own", {}
    return out


def model_of(station: ChargingStation) -> StationModel | None:
    """The record of this station's product, if it has one."""
    key = key_of(station.vendor, station.model, station.firmware_version)
    if key is None:
        return None
    return StationModel.objects.filter(vendor=key[0], model=key[1], firmware=key[2]).first()


def of_stations(stations: Iterable[ChargingStation]) -> dict[int, dict[str, Any]]:
    """By key, what counts for each of these stations; one question, however many they are."""
    rows = list(stations)
    keys = {s.pk: key_of(s.vendor, s.model, s.firmware_version) for s in rows}
    wanted = {k for k in keys.values() if k is not None}
    models = read_models(vendor__in={k[0] for k in wanted}, model__in={k[1] for k in wanted}) if wanted else {}
    out = {}
    for station in rows:
        key = keys[station.pk]
        model = models.get(key) if key is not None else None
        out[station.pk] = effective(_dict(station.capabilities), model.values if model is not None else {})
    return out


def where(entry: Mapping[str, Any] | None, value: Any, source: str, identity: str) -> str:
    """Does a new value belong to the `model`, to this station's `own`, or nowhere (`drop`)?"""
    if entry is None:
        return "drop" if value is None else "model"
    if value is None:  # only what was learnt is forgotten
        return "model" if entry.get("source") == Source.LEARNED else "drop"
    if entry.get("value") == value:
        return "model" if stronger(source, entry.get("source")) and entry.get("source") != source else "drop"
    if not stronger(source, entry.get("source")):
        return "drop"
    if entry.get("source") == Source.SET and source != Source.SET:
        return "drop"
    another = entry.get("station") not in ("", None, identity)
    if another and source == Source.LEARNED and entry.get("source") == Source.LEARNED:
        return "own"
    return "model"


# ---------------------------------------------------------------------- verbs


def meet(station_pk: int, at: datetime) -> bool:
    """A station of this product and firmware is here: its model has a row. True when it is new.

    What a person set for another firmware of the same product goes along; what was learnt is learnt anew.
    """
    station = ChargingStation.objects.get(pk=station_pk)
    key = key_of(station.vendor, station.model, station.firmware_version)
    if key is None:
        return False
    model, new = StationModel.objects.get_or_create(
        vendor=key[0], model=key[1], firmware=key[2], defaults={"first_seen_at": at}
    )
    if new:
        before = StationModel.objects.filter(vendor=key[0], model=key[1]).exclude(pk=model.pk).order_by("-pk").first()
        if before is not None:
            model.capabilities = {
                n: e for n, e in _dict(before.capabilities).items() if _dict(e).get("source") == Source.SET
            }
            model.repairs = dict(_dict(before.repairs))
            model.save(update_fields=["capabilities", "repairs"])
    return new


def learned(station_pk: int, more: Mapping[str, Any], source: str, at: datetime) -> None:
    """Remember what a station can do, for its model or for itself alone. None forgets."""
    station = ChargingStation.objects.filter(pk=station_pk).first()
    if station is None:
        return
    known = {n: v for n, v in more.items() if n in BY_NAME}
    model = model_of(station)
    if model is None and meet(station_pk, at):
        model = model_of(station)
    if model is None:
        _taught(station, known)
        return
    entries = dict(_dict(model.capabilities))
    own: dict[str, Any] = {}
    for name, value in known.items():
        place = where(entries.get(name), value, source, station.identity)
        if place == "own":
            own[name] = value
        elif place == "model" and value is None:
            entries.pop(name, None)
        elif place == "model":
            entries[name] = {
                "value": value,
                "source": str(source),
                "at": at.isoformat(timespec="seconds"),
                "station": station.identity,
            }
    if entries != model.capabilities:
        model.capabilities = entries
        model.save(update_fields=["capabilities"])
    if own:
        _taught(station, own)


def _taught(station: ChargingStation, more: Mapping[str, Any]) -> None:
    mine = _dict(station.capabilities)
    taught = {n: v for n, v in {**_dict(mine.get(OWN)), **more}.items() if v is not None}
    ChargingStation.objects.filter(pk=station.pk).update(capabilities={**mine, OWN: taught})


def asks(station_pk: int, question: str, booted_since: datetime | None, at: datetime) -> str:
    """May this question be asked now? `ask`: it is written down that it is; `wait`: another is being asked; `never`.

    `booted_since` is when the socket came on which it told a boot, None without one: what was asked before that socket
    was followed by the boot. A boot told twice on one socket is no boot in between.
    """
    station = ChargingStation.objects.get(pk=station_pk)
    model = model_of(station)
    if model is None:
        return ASK
    entry = _dict(model.asked).get(question)
    answer = entry.get("answer", "") if entry else None
    if answer == OK:
        return ASK
    if answer in (REFUSED, REBOOTED, SILENT):
        return NEVER
    tries = int(entry.get("tries", 1)) if entry else 0
    if entry:
        if entry.get("station") == station.identity:
            if booted_since is not None and _moment(entry.get("at"), at) < booted_since:
                _ask(model, question, {**entry, "answer": REBOOTED})
                return NEVER
        elif at - _moment(entry.get("at"), at) < OPEN_FOR:
            return WAIT
        if tries >= MOST_TRIES:
            _ask(model, question, {**entry, "answer": SILENT})
            return NEVER
    _ask(
        model,
        question,
        {"at": at.isoformat(timespec="seconds"), "station": station.identity, "answer": "", "tries": tries + 1},
    )
    return ASK


def answered(station_pk: int, question: str, answer: str) -> None:
    """What came of a question: `ok`, or `refused`."""
    station = ChargingStation.objects.get(pk=station_pk)
    model = model_of(station)
    if model is not None:
        entry = _dict(model.asked).get(question) or {"station": station.identity}
        if entry.get("answer") != answer:
            _ask(model, question, {**entry, "answer": answer})


def blamed(station_pk: int, at: datetime) -> None:
    """It boots again and again: what it was asked lately is not asked again of this firmware."""
    station = ChargingStation.objects.get(pk=station_pk)
    model = model_of(station)
    if model is None:
        return
    for question, entry in dict(_dict(model.asked)).items():
        if entry.get("station") == station.identity and at - _moment(entry.get("at"), at) < BLAMED_FOR:
            _ask(model, question, {**entry, "answer": REBOOTED})


def ask_again(model: StationModel) -> None:
    """A person wants all questions asked anew."""
    model.asked = {}
    model.save(update_fields=["asked"])


def _ask(model: StationModel, question: str, entry: dict[str, Any]) -> None:
    model.asked = {**_dict(model.asked), question: entry}
    StationModel.objects.filter(pk=model.pk).update(asked=model.asked)


def _moment(text: object, otherwise: datetime) -> datetime:
    try:
        return datetime.fromisoformat(str(text))
    except ValueError:
        return otherwise


def _dict(thing: object) -> dict[str, Any]:
    return thing if isinstance(thing, dict) else {}

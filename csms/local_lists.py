"""Local lists: the id tokens a station knows by itself, for when the central system is away (1.6 §3.5.2, 2.0.1 D).

Per site a policy says which tokens belong; per station a row says what it should hold and what it holds. `refresh`
brings the wanted side up to date, `bring_up_to_date` the station: what changed where it is known what the station
holds, the whole list otherwise, in as many parts as the station needs. Every part has a version of its own, and
versions only grow. What fails is tried again after a growing pause; a station that keeps no list is asked again only
once its firmware is another one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.db.models import Count, Max, Q, QuerySet
from django.utils import timezone
from django.utils.translation import gettext

from csms import calls
from csms.asking import ERRORS, alone, connected, for_ever, later, why
from csms.models import ChargingStation, IdToken, StationVariable
from csms.schemas import V16
from csms.vocabulary import ListEntry, ShownToken, Verdict, content_key
from csms.workflow_models import LocalList, LocalListPolicy

PAUSES_MIN = (1, 5, 15, 60, 240, 720)
CHECK_EVERY = timedelta(days=1)
ITEMS_UNLESS_SAID = 50
LONGEST_16 = 20
_ENTRY_BYTES, _GROUP_BYTES, _EXPIRY_BYTES, _FRAME_BYTES = 120, 60, 50, 150
_CONTROLLER = "LocalAuthListCtrlr"

Entry = list[str]
"""How a token is told: type, moment of expiry (ISO 8601, or empty), group."""

Item = tuple[str, Entry, bool]
"""A token, how it is told, and whether it stays (or is put) in the list."""


@dataclass(frozen=True, slots=True)
class Room:
    """What a station says of its list. None: it does not say."""

    supported: bool | None = None
    enabled: bool | None = None
    entries: int | None = None
    items: int | None = None
    octets: int | None = None


# ---------------------------------------------------------------------- what is wanted


def refresh(now: datetime | None = None) -> int:
    """Bring every station's wanted list up to date with its site's tokens; how many changed."""
    now = now or timezone.now()
    return sum(_refresh_site(policy, now) for policy in LocalListPolicy.objects.select_related("site"))


def _refresh_site(policy: LocalListPolicy, now: datetime) -> int:
    stations = list(
        ChargingStation.objects.filter(site_id=policy.site_id, admission=ChargingStation.Admission.ACCEPTED)
    )
    tokens = members(policy, now)
    rooms = rooms_of(stations)
    rows = {r.station_id: r for r in LocalList.objects.filter(station__in=stations).defer("wanted", "held")}
    contents: dict[tuple[bool, int | None], _Content] = {}
    changed = 0
    for station in stations:
        kind = station.protocol == V16, rooms[station.pk].entries
        if kind not in contents:
            contents[kind] = _content(tokens, short=kind[0], most=kind[1])
        changed += _want(rows.get(station.pk) or LocalList(station=station), contents[kind])
    return changed


@dataclass(frozen=True, slots=True)
class _Content:
    """What stations of one kind should hold."""

    entries: dict[str, Entry]
    key: str
    left_out: int


def _content(tokens: Sequence[IdToken], *, short: bool, most: int | None) -> _Content:
    """`short`: 1.6 cannot say tokens longer than 20. `most`: a station has room for so many."""
    mine = [t for t in tokens if not short or len(t.value) <= LONGEST_16]
    if most is not None and len(mine) > most:
        mine = _last_used_first(mine)[:most]
    entries = {t.value: _told(t) for t in mine}
    return _Content(entries, content_key("local list", sorted(entries.items())), len(tokens) - len(mine))


def members(policy: LocalListPolicy, now: datetime) -> list[IdToken]:
    """The tokens that belong: accepted, not expired, and of the group where one is chosen."""
    if policy.members == LocalListPolicy.Members.NOBODY:
        return []
    tokens = _good_tokens([policy.site_id], now)
    if policy.members == LocalListPolicy.Members.GROUP:
        tokens = tokens.filter(group=policy.group)
    return list(tokens.order_by("pk"))


def token_counts(sites: Sequence[int], now: datetime) -> dict[tuple[int, str], int]:
    """How many tokens could belong, by site and group."""
    rows = _good_tokens(sites, now).order_by().values_list("site_id", "group").annotate(count=Count("pk"))
    return {(site, group): count for site, group, count in rows}


def _good_tokens(sites: Sequence[int], now: datetime) -> QuerySet[IdToken]:
    tokens = IdToken.objects.filter(site_id__in=sites, status=IdToken.Status.ACCEPTED)
    return tokens.filter(Q(expires_at=None) | Q(expires_at__gt=now)).exclude(type=IdToken.Type.NONE)


def _last_used_first(tokens: Sequence[IdToken]) -> list[IdToken]:
    """Where there is no room for all, those who charged last go first."""
    site = {t.site_id for t in tokens}
    used = dict(
        IdToken.objects.filter(site_id__in=site)
        .annotate(last_used=Max("transactions__started_at"))
        .filter(last_used__isnull=False)
        .values_list("pk", "last_used")
    )
    never = datetime.min.replace(tzinfo=timezone.get_default_timezone())
    return sorted(tokens, key=lambda t: used.get(t.pk, never), reverse=True)


def _want(row: LocalList, content: _Content) -> bool:
    if row.pk and row.wanted_key == content.key and row.left_out == content.left_out:
        return False
    changed = not row.pk or row.wanted_key != content.key
    if changed:
        row.wanted, row.wanted_key = content.entries, content.key
        row.wanted_version = max(row.wanted_version, row.held_version or 0) + 1
        if row.state == LocalList.State.IN_STEP:
            row.state, row.attempts, row.next_try_at = LocalList.State.WAITING, 0, None
    row.left_out = content.left_out
    if row.pk:
        names = ("wanted", "wanted_key", "wanted_version", "left_out", "state", "attempts", "next_try_at")
        row.save(update_fields=names if changed else ("left_out",))
    else:
        row.save()
    return changed


def _told(token: IdToken) -> Entry:
    return [token.type, token.expires_at.isoformat() if token.expires_at else "", token.group]


# ---------------------------------------------------------------------- what a station can do


def rooms_of(stations: Sequence[ChargingStation]) -> dict[int, Room]:
    """What each of these stations said of its list, in its variables."""
    rows = StationVariable.objects.filter(station__in=stations, attribute="Actual").filter(
        Q(component="", variable__icontains="LocalList")
        | Q(component="", variable__icontains="LocalAuthList")
        | Q(component="", variable__iexact="SupportedFeatureProfiles")
        | Q(component__iexact=_CONTROLLER)
    )
    told: dict[int, list[StationVariable]] = {}
    for row in rows:
        told.setdefault(row.station_id, []).append(row)
    return {s.pk: _room(s.protocol, told.get(s.pk, [])) for s in stations}


def _room(protocol: str, variables: Sequence[StationVariable]) -> Room:
    if protocol == V16:
        said = {v.variable.lower(): v.value for v in variables if not v.component}
        profiles = said.get("supportedfeatureprofiles")
        return Room(
            supported=None if not profiles else "localauthlist" in profiles.lower(),
            enabled=_truth(said.get("localauthlistenabled")),
            entries=_whole(said.get("localauthlistmaxlength")),
            items=_whole(said.get("sendlocallistmaxlength")),
        )
    here = {v.variable.lower(): v for v in variables if v.component}
    entries = here.get("entries")
    most = entries.characteristics.get("maxLimit") if entries is not None else None
    value = {name: v.value for name, v in here.items()}
    return Room(
        supported=_truth(value.get("available")),
        enabled=_truth(value.get("enabled")),
        entries=_whole(most),
        items=_whole(value.get("itemspermessage")),
        octets=_whole(value.get("bytespermessage")),
    )


def _truth(text: str | None) -> bool | None:
    return {"true": True, "false": False}.get((text or "").strip(' "').lower())


def _whole(value: object) -> int | None:
    try:
        number = int(float(str(value).strip(' "')))
    except (ValueError, OverflowError):
        return None
    return number if number > 0 else None


# ---------------------------------------------------------------------- to the station


def due(now: datetime) -> list[LocalList]:
    """The lists that have something to do now, of stations that are there: to send, or to look whether they stand."""
    managed = Q(station__site__local_list_policy__isnull=False)
    rows = LocalList.objects.filter(managed).select_related("station").defer("wanted", "held")
    waiting = [row for row in rows.order_by("next_try_at", "pk") if _is_due(row, now)]
    there = {s.pk for s in connected(row.station for row in waiting)}
    return [row for row in waiting if row.station_id in there]


def _is_due(row: LocalList, now: datetime) -> bool:
    station = row.station
    other_firmware = row.firmware_version != station.firmware_version
    if row.state == LocalList.State.UNSUPPORTED:
        return other_firmware
    if row.state == LocalList.State.IN_STEP:
        looked = row.checked_at
        booted_since = looked is None or (station.boot_at is not None and station.boot_at > looked)
        return other_firmware or booted_since or (looked is not None and now - looked > CHECK_EVERY)
    return row.next_try_at is None or row.next_try_at <= now or other_firmware


def send_now(station: ChargingStation, now: datetime | None = None) -> LocalList | None:
    """An operator wants it sent: without waiting for its turn. None when the site keeps no lists."""
    policy = LocalListPolicy.objects.filter(site__stations=station).first()
    if policy is None:
        return None
    now = now or timezone.now()
    _refresh_site(policy, now)
    row = LocalList.objects.select_related("station").get(station=station)
    row.attempts, row.held = 0, None
    bring_up_to_date(row, now)
    return row


def bring_up_to_date(row: LocalList, now: datetime | None = None) -> None:
    """Have the station hold what is wanted. Says in the row what became of it; raises nothing of the station's."""
    now = now or timezone.now()
    with alone("local list", row.station_id) as mine:
        if not mine:
            return
        try:
            _bring(row, now)
        except ERRORS as error:
            if for_ever(error):
                _unsupported(row, why(error))
            else:
                _failed(row, why(error), now)


def _bring(row: LocalList, now: datetime) -> None:
    station = row.station
    if row.firmware_version != station.firmware_version:
        row.attempts = 0
    row.firmware_version = station.firmware_version
    room = rooms_of([station])[station.pk]
    if room.supported is False:
        _unsupported(row, gettext("The station says that it keeps no local list."))
        return
    if not _ask_version(row, now):
        return
    if _content_held(row):
        _settled(row)
        return
    if room.enabled is False:
        _switch_on(station)
    refused = _send(row, room, full=False) if _knows_what_it_holds(row) else ""
    if refused or not _knows_what_it_holds(row) or not _content_held(row):
        refused = _send(row, room, full=True)
    if refused:
        _failed(row, gettext("The station answered: %(said)s") % {"said": refused}, now)
        return
    row.sent_at = now
    expected = row.held_version
    if _ask_version(row, now) and row.held_version != expected and row.wanted:
        said = gettext("The station took version %(sent)d and says that it holds %(held)d.")
        _failed(row, said % {"sent": expected, "held": row.held_version or 0}, now)
    elif row.state != LocalList.State.UNSUPPORTED:
        _settled(row)


def _ask_version(row: LocalList, now: datetime) -> bool:
    """Ask which version the station holds; False when it keeps none."""
    answer = calls.local_list_version(row.station)
    row.checked_at = now
    if answer["status"] == "NotSupported":
        _unsupported(row, gettext("The station says that it keeps no local list."))
        return False
    version = int(answer["version"])
    if version == 0:
        row.held = {}
    elif version != row.held_version:
        row.held = None
    row.held_version = version
    return True


def _content_held(row: LocalList) -> bool:
    return bool(row.held == row.wanted)


def _knows_what_it_holds(row: LocalList) -> bool:
    """Only then can it be told what changed."""
    return row.held is not None and bool(row.held_version)


def _switch_on(station: ChargingStation) -> None:
    """A list that is sent is meant to be used; a station that does not let us switch it on keeps it all the same."""
    if station.protocol == V16:
        calls.set_variable(station, "", "LocalAuthListEnabled", "true")
    else:
        calls.set_variable(station, _CONTROLLER, "Enabled", "true")


def _send(row: LocalList, room: Room, *, full: bool) -> str:
    """Send all parts; the station's word of refusal, or nothing. What it took is remembered part by part."""
    parts = _parts(row, room, full=full)
    held = max(row.held_version or 0, 0)
    last = max(row.wanted_version, held + len(parts))
    row.wanted_version = last
    for number, part in enumerate(parts):
        version = last - len(parts) + 1 + number
        differential = not full or number > 0
        said = calls.send_local_list(row.station, [_entry(*item) for item in part], version, differential)["status"]
        if said != "Accepted":
            row.held = None
            row.save(update_fields=["held", "held_version", "wanted_version"])
            return str(said)
        row.held = _after(row.held or {} if differential else {}, part)
        row.held_version = version
        row.save(update_fields=["held", "held_version", "wanted_version"])
    return ""


def _after(held: Mapping[str, Entry], part: Sequence[Item]) -> dict[str, Entry]:
    gone = {value for value, _, stays in part if not stays}
    return {v: e for v, e in held.items() if v not in gone} | {v: e for v, e, stays in part if stays}


def _parts(row: LocalList, room: Room, *, full: bool) -> list[list[Item]]:
    """What to tell, cut into messages the station can take. A full list has at least one part, be it empty."""
    wanted: Mapping[str, Entry] = row.wanted
    held: Mapping[str, Entry] = {} if full else row.held or {}
    items = [(v, e, False) for v, e in held.items() if v not in wanted]
    items += [(v, e, True) for v, e in wanted.items() if held.get(v) != e]
    most = room.items or ITEMS_UNLESS_SAID
    parts: list[list[Item]] = [[]]
    octets = _FRAME_BYTES
    for item in items:
        size = _size(item)
        if len(parts[-1]) >= most or (parts[-1] and room.octets is not None and octets + size > room.octets):
            parts.append([])
            octets = _FRAME_BYTES
        parts[-1].append(item)
        octets += size
    return parts


def _size(item: Item) -> int:
    """About how many bytes it takes on the wire, rather too many."""
    value, (_, expires, group), _ = item
    group_bytes = _GROUP_BYTES + len(group) if group else 0
    return _ENTRY_BYTES + len(value) + (_EXPIRY_BYTES if expires else 0) + group_bytes


def _entry(value: str, entry: Entry, stays: bool) -> ListEntry:
    """An entry without a verdict is taken out of the list."""
    kind, expires, group = entry
    until = datetime.fromisoformat(expires) if expires else None
    return ListEntry(ShownToken(value, kind), Verdict("accepted", group, until) if stays else None)


# ---------------------------------------------------------------------- what became of it

_BECAME = (
    *("state", "attempts", "next_try_at", "last_error", "checked_at", "sent_at", "firmware_version"),
    *("held", "held_version", "wanted_version"),
)


def _settled(row: LocalList) -> None:
    row.state, row.attempts, row.next_try_at, row.last_error = LocalList.State.IN_STEP, 0, None, ""
    if row.held_version:
        row.wanted_version = row.held_version
    row.save(update_fields=_BECAME)


def _unsupported(row: LocalList, text: str) -> None:
    row.state, row.next_try_at, row.last_error = LocalList.State.UNSUPPORTED, None, text[:255]
    row.held, row.held_version = None, None
    row.firmware_version = row.station.firmware_version
    row.save(update_fields=_BECAME)


def _failed(row: LocalList, text: str, now: datetime) -> None:
    row.state, row.last_error = LocalList.State.FAILED, text[:255]
    row.attempts = min(row.attempts + 1, 1000)
    row.next_try_at = later(now, row.attempts, PAUSES_MIN)
    row.save(update_fields=_BECAME)

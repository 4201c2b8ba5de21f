"""A driver's own charging: what runs, what is promised, where one can start, what was.

Everything here is narrowed to the driver: a transaction is mine when its id token is mine.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from django.contrib.auth.models import User
from django.db.models import Q, QuerySet
from django.utils import timezone
from django.utils.translation import gettext as _
from redis.exceptions import RedisError

from csms import bus
from csms.models import EVSE, ChargingStation, IdToken, Transaction, WantedLimit
from meters import live
from meters.measurement import Measurement
from meters.models import Site
from smartcharging.engine.vehicle import WH_PER_KM, range_for_energy
from smartcharging.explanations import explain
from smartcharging.goals import goal_for
from smartcharging.models import ChargingGoal, Plan, Vehicle
from webapp.dashboard import words
from webapp.spoken import helps_for_driver, why_for_driver
from webapp.templatetags import energy

FRESH_S = 90.0
CHARGING_W = 100.0
PREVIEW = timedelta(hours=24)
START_WAITS = timedelta(minutes=2)
"""As long as most stations wait for the plug after a remote start (ConnectionTimeOut, EVConnectionTimeOut)."""
CLOCKS_DIFFER = timedelta(seconds=30)
FREE = (EVSE.Status.AVAILABLE, EVSE.Status.PREPARING, EVSE.Status.OCCUPIED)


@dataclass(frozen=True, slots=True)
class Step:
    """One quarter hour of the plan, for the drawing: x and height of 0..100."""

    at: datetime
    power_w: float
    x: float
    width: float
    height: float


@dataclass(frozen=True, slots=True)
class Preview:
    """What the plan gives this car until it leaves."""

    steps: tuple[Step, ...]
    most_w: float
    starts_at: datetime | None  # of the first quarter hour with power; None when there is none
    ends_at: datetime


@dataclass(frozen=True, slots=True)
class Promise:
    """What will be in the car when it leaves, and why not more. `kind`: full, less, waiting (for a plan), open (no
    amount was asked), none (no goal)."""

    kind: str
    promised_wh: float | None
    wanted_wh: float | None
    departure: datetime | None
    reason: str


@dataclass(frozen=True, slots=True)
class Session:
    """One running charge as its driver sees it."""

    transaction: Transaction
    site: Site
    headline: str
    detail: str
    tone: str
    power_w: float | None
    km: float
    goal: ChargingGoal | None
    promise: Promise
    preview: Preview | None
    connected: bool
    helps: tuple[str, ...] = ()
    """What would bring more, in words."""

    @property
    def progress(self) -> float | None:
        """The share of the wanted energy that is in the car, 0..100; None when nothing definite was asked."""
        wanted = self.promise.wanted_wh
        if not wanted:
            return None
        return round(min(self.transaction.energy_wh / wanted, 1.0) * 100, 1)


@dataclass(frozen=True, slots=True)
class Place:
    """A free EVSE, and whether a car is plugged in already."""

    evse: EVSE
    name: str
    plugged: bool


@dataclass(frozen=True, slots=True)
class Awaited:
    """A start that the station took, while the car is not plugged in yet."""

    evse: EVSE
    until: datetime


def mine(user: User) -> QuerySet[Transaction]:
    return Transaction.objects.filter(id_token__driver=user, station__site__isnull=False).select_related(
        "station__site", "evse__station", "evse__wanted_limit", "id_token", "goal"
    )


def running(user: User) -> list[Session]:
    """The driver's open charges, newest first."""
    transactions = list(mine(user).filter(ended_at=None).order_by("-started_at"))
    measured = _measured(t.evse_id for t in transactions if t.evse_id)
    held = _held(t.station.identity for t in transactions)
    return [session(t, measured.get(t.evse_id or 0), held) for t in transactions]


def one(transaction: Transaction) -> Session:
    measured = _measured([transaction.evse_id] if transaction.evse_id else [])
    return session(transaction, measured.get(transaction.evse_id or 0), _held([transaction.station.identity]))


def session(transaction: Transaction, measured: Measurement | None, held: set[str] | None) -> Session:
    """`held` are the identities that are connected; None when that cannot be known now."""
    now = timezone.now()
    site = transaction.station.site
    if site is None:
        raise ValueError("a session stands on a site")
    goal = goal_for(transaction)
    power = measured.power_w if measured and measured.is_fresh(now, FRESH_S) else None
    preview = _preview(transaction, goal, site, now)
    connected = held is None or transaction.station.identity in held
    with timezone.override(site.tz):  # times are said on the clock of the place
        told = explain(transaction, now, measured if power is not None else None, connected=connected)
        tone, headline, detail = _said(transaction, power, preview, connected, why_for_driver(told))
        helps = helps_for_driver(told) if connected else ()
    return Session(
        transaction=transaction,
        site=site,
        headline=headline,
        detail=detail,
        tone=tone,
        power_w=power,
        km=range_for_energy(transaction.energy_wh, _consumption(transaction, site)),
        goal=goal,
        promise=_promise(goal),
        preview=preview,
        connected=connected,
        helps=helps,
    )


def _said(
    transaction: Transaction, power_w: float | None, preview: Preview | None, connected: bool, why: str
) -> tuple[str, str, str]:
    """Tone, headline and detail: the state of the charge in plain words."""
    evse = transaction.evse
    state = transaction.charging_state or (evse.charging_state if evse else "") or (evse.status if evse else "")
    limit = getattr(evse, "wanted_limit", None) if evse else None
    if evse is not None and evse.status == EVSE.Status.FAULTED:
        return "bad", _("The station reports a fault"), _("Call your operator, or take another place.")
    if not connected:
        return (
            "bad",
            _("The station is not connected"),
            _("It goes on with its last or its safe current. Values may be old."),
        )
    if limit is not None and limit.resume == WantedLimit.Resume.UNPLUG and not (power_w and power_w > CHARGING_W):
        return (
            "bad",
            _("Charging does not go on after a pause"),
            _("Take the plug out and put it in again. Your operator knows of it."),
        )
    if power_w is not None and power_w > CHARGING_W:
        return "charging", _("Charging"), why
    if limit is not None and limit.resume == WantedLimit.Resume.TRYING:
        return "busy", _("Paused"), _("The station is asked to go on.")
    if limit is not None and limit.resume == WantedLimit.Resume.ASLEEP:
        return "busy", _("Your car asks for no power"), _("It sleeps since a pause; open it, or plug in again.")
    if state == EVSE.Status.SUSPENDED_EV:
        return "busy", _("Your car asks for no power"), _("It is full, or set to charge later.")
    if preview is not None and preview.starts_at is not None and preview.starts_at > timezone.now():
        begins = _("It begins at about %(time)s.") % {"time": energy.moment(preview.starts_at)}
        return "busy", _("Waiting, as planned"), f"{begins} {why}".strip()
    if state == EVSE.Status.SUSPENDED_EVSE or (limit is not None and limit.wanted_a == 0):
        return "busy", _("Paused"), why
    if power_w is None and state == EVSE.Status.CHARGING:
        return "charging", _("Charging"), why
    return "busy", _("Connected"), why


def _promise(goal: ChargingGoal | None) -> Promise:
    if goal is None:
        return Promise("none", None, None, None, "")
    kind = "open" if goal.energy_wh is None else "waiting"
    if goal.promised_wh is not None:
        less = goal.energy_wh is not None and goal.promised_wh < goal.energy_wh - 100
        kind = "less" if less else "full"
    return Promise(kind, goal.promised_wh, goal.energy_wh, goal.departure, words.shortfall(goal.promise_reason))


def _consumption(transaction: Transaction, site: Site) -> float:
    """Of the car behind this card, else of the driver's only car, else a usual one [Wh/km]."""
    token = transaction.id_token
    if token is not None:
        cars = list(
            Vehicle.objects.filter(site=site).filter(
                Q(id_token=token) | Q(driver=token.driver_id, driver__isnull=False)
            )
        )
        by_card = [c for c in cars if c.id_token_id == token.pk]
        if by_card or len(cars) == 1:
            return (by_card or cars)[0].consumption_wh_per_km
    return WH_PER_KM


def _preview(transaction: Transaction, goal: ChargingGoal | None, site: Site, now: datetime) -> Preview | None:
    """The valid plan's slots for this EVSE, from now until departure; a day at most."""
    plan = Plan.objects.filter(site=site, valid_until__gt=now).order_by("-made_at").first()
    if plan is None or transaction.evse_id is None or not isinstance(plan.result, dict):
        return None
    values = (plan.result.get("evse") or {}).get(str(transaction.evse_id))
    if not isinstance(values, list):
        return None
    slot = timedelta(seconds=plan.slot_s)
    until = now + PREVIEW
    if goal is not None and goal.departure is not None:
        until = min(until, goal.departure)
    ahead = [
        (plan.starts_at + n * slot, float(watts or 0.0))
        for n, watts in enumerate(values)
        if now < plan.starts_at + (n + 1) * slot and plan.starts_at + n * slot < until
    ]
    if not ahead:
        return None
    most = max(w for _at, w in ahead)
    width = 100 / len(ahead)
    steps = tuple(
        Step(
            at.astimezone(UTC), w, round(n * width, 2), round(width * 0.8, 2), round(w / most * 100, 1) if most else 0.0
        )
        for n, (at, w) in enumerate(ahead)
    )
    first = next((at for at, w in ahead if w > CHARGING_W), None)
    return Preview(steps, most, first, min(ahead[-1][0] + slot, until))


def _measured(evse_ids: Iterable[int]) -> dict[int, Measurement]:
    sources = {live.evse_source(pk): pk for pk in evse_ids}
    try:
        return {sources[name]: m for name, m in live.fetch(sources).items()}
    except (RedisError, OSError):
        return {}


def _held(identities: Iterable[str]) -> set[str] | None:
    try:
        return set(bus.holders(identities))
    except (RedisError, OSError):
        return None


def awaited(user: User, noted: object) -> Awaited | None:
    """The start noted in the driver's login, while it still waits: no charge of his began there, and it is not over.

    `noted` is what `note_start` gave, however old; anything else is no start.
    """
    if not isinstance(noted, dict):
        return None
    try:
        since, pk = datetime.fromisoformat(str(noted["since"])), int(noted["evse"])
    except (KeyError, ValueError):
        return None
    until = since + START_WAITS
    if timezone.now() >= until or mine(user).filter(evse_id=pk, started_at__gte=since - CLOCKS_DIFFER).exists():
        return None
    evse = EVSE.objects.select_related("station__site").filter(pk=pk).first()
    return Awaited(evse, until) if evse is not None else None


def note_start(evse: EVSE) -> dict[str, str | int]:
    """What to keep of a start that was just taken by the station."""
    return {"evse": evse.pk, "since": timezone.now().isoformat()}


def my_tokens(user: User) -> list[IdToken]:
    """The cards of this driver that may charge now."""
    now = timezone.now()
    tokens = IdToken.objects.filter(driver=user).select_related("site").order_by("site__name", "label", "value")
    return [t for t in tokens if t.status_at(now) == IdToken.Status.ACCEPTED]


def free_places(tokens: Iterable[IdToken]) -> list[Place]:
    """Where these cards could start now: connected, in service, nobody charging. Cars already plugged in first."""
    sites = {t.site_id for t in tokens}
    if not sites:
        return []
    evses = list(
        EVSE.objects.filter(
            station__site__in=sites,
            station__admission=ChargingStation.Admission.ACCEPTED,
            available=True,
            status__in=FREE,
        )
        .exclude(transactions__ended_at=None, transactions__isnull=False)
        .select_related("station__site")
        .order_by("station__identity", "number")
    )
    held = _held(e.station.identity for e in evses) or set()
    places = [
        Place(e, str(e), e.status in (EVSE.Status.PREPARING, EVSE.Status.OCCUPIED))
        for e in evses
        if e.station.identity in held
    ]
    return sorted(places, key=lambda p: not p.plugged)

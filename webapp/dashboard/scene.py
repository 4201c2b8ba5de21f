"""What the dashboard shows of a site at one moment: the newest picture, with what the database adds to it.

A picture is written by the balance, every few seconds, and may be absent (nothing runs yet), old (a process stopped)
or incomplete (a meter is silent). All three are shown as what they are; none as zero.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from django.contrib.auth.models import User
from django.utils import timezone

from csms.models import EVSE, ChargingStation, Transaction
from meters import access
from meters.models import Site
from smartcharging.engine.explain.explain import explain_charge
from smartcharging.explanations import Around, newest_picture
from smartcharging.models import ChargingGoal, MonthPeak, Plan
from webapp.dashboard import words
from webapp.spoken import Spoken, spoken

OLD_S = 30
PHASES = ("L1", "L2", "L3")


@dataclass(frozen=True, slots=True)
class Bar:
    """One phase of a circuit: how full it is. `share` is 0..1 of the limit, more when overloaded."""

    phase: str
    load_a: float | None
    limit_a: float
    headroom_a: float | None

    @property
    def share(self) -> float | None:
        if self.load_a is None:
            return None
        return abs(self.load_a) / self.limit_a if self.limit_a > 0 else float(self.load_a > 0)

    @property
    def width(self) -> float:
        """For the drawing, 0..100."""
        return round(min(self.share or 0.0, 1.0) * 100, 1)

    @property
    def level(self) -> str:
        if self.share is None:
            return "unknown"
        if self.share > 1.0:
            return "over"
        return "tight" if self.share > 0.9 else "ok"


@dataclass(frozen=True, slots=True)
class CircuitRow:
    """A circuit at its depth in the tree."""

    id: int
    name: str
    depth: int
    bars: tuple[Bar, ...]
    reason: str
    metered: bool
    stale: bool

    @property
    def least_headroom_a(self) -> float | None:
        known = [b.headroom_a for b in self.bars if b.headroom_a is not None and b.load_a is not None]
        return min(known) if known else None


@dataclass(frozen=True, slots=True)
class EvseCard:
    """One place to charge, as an operator looks at it."""

    id: int
    title: str
    identity: str
    circuit: str
    status: str
    status_text: str
    iec_state: str
    iec_text: str
    connected: bool
    power_w: float | None
    current_a: tuple[float | None, ...] | None
    wanted_a: float | None
    accepted_a: float | None
    measured_a: float | None
    reason: str
    transaction: Transaction | None
    goal: ChargingGoal | None
    driver: str
    since: datetime | None
    isolated: bool = False
    held_at: str = ""  # circuit and phase, where a place in the tree holds it back
    explained: Spoken | None = None

    @property
    def tone(self) -> str:
        """The colour family of the card."""
        if not self.connected:
            return "away"
        if self.status in ("Faulted", "Unavailable") or self.iec_state in ("E", "F"):
            return "bad"
        if self.isolated:
            return "bad"
        if self.power_w is not None and self.power_w > 100:
            return "charging"
        return "busy" if self.transaction else "free"


@dataclass(frozen=True, slots=True)
class Shortfall:
    """A goal the plan cannot reach, and why."""

    who: str
    missing_wh: float
    departure: datetime | None
    reason: str


@dataclass(frozen=True, slots=True)
class PlanSummary:
    plan: Plan
    valid: bool
    shortfalls: tuple[Shortfall, ...]


@dataclass(frozen=True, slots=True)
class Scene:
    """Everything the page of a site needs, ready to be written down."""

    site: Site
    picture: dict[str, Any] | None
    at: datetime | None
    live_away: bool  # Redis could not be reached
    flows: dict[str, float | None]
    circuits: tuple[CircuitRow, ...]
    evses: tuple[EvseCard, ...]
    plan: PlanSummary | None
    month_peak: MonthPeak | None
    price_eur_per_mwh: float | None
    quarantined: int
    kinds: frozenset[str]  # of the devices the site has

    @property
    def old(self) -> bool:
        return self.at is not None and timezone.now() - self.at > timedelta(seconds=OLD_S)

    @property
    def age(self) -> timedelta | None:
        return None if self.at is None else timezone.now() - self.at

    @property
    def cars_charging(self) -> int:
        return sum(1 for e in self.evses if e.tone == "charging")

    @property
    def sessions(self) -> int:
        return sum(1 for e in self.evses if e.transaction)

    @property
    def root(self) -> CircuitRow | None:
        return self.circuits[0] if self.circuits else None


_ORDER = ("bad", "charging", "busy", "away", "free")  # what needs an operator's eye first
FLOW_NAMES = ("grid_w", "pv_w", "battery_w", "battery_soc", "charging_w", "building_w", "loads_w")


def scene(site: Site, user: User) -> Scene:
    """The scene of `site` now, with what `user` may know of it."""
    picture, away = newest_picture(site.pk)
    around = Around.of(site, timezone.now(), picture or {})
    return Scene(
        site=site,
        picture=picture,
        at=_time(picture),
        live_away=away,
        flows=flows_of(picture),
        circuits=tuple(_circuit_rows(picture or {})),
        evses=tuple(sorted(_evse_cards(site, picture, around), key=lambda e: _ORDER.index(e.tone))),
        plan=_plan(site, around.plan),
        month_peak=_month_peak(site),
        price_eur_per_mwh=_float((picture or {}).get("price_eur_per_mwh")),
        quarantined=quarantined(user, site),
        kinds=frozenset(site.devices.filter(enabled=True).values_list("kind", flat=True)),
    )


def flows_of(picture: dict[str, Any] | None) -> dict[str, float | None]:
    """The powers of a picture; what is absent, or no number, is unknown."""
    found = (picture or {}).get("flows")
    flows = found if isinstance(found, dict) else {}
    return {name: _float(flows.get(name)) for name in FLOW_NAMES}


def quarantined(user: User, site: Site) -> int:
    """How many stations wait for an operator. Those without a site are for superusers only."""
    waiting = ChargingStation.objects.filter(admission=ChargingStation.Admission.QUARANTINED)
    if not user.is_superuser:
        waiting = waiting.filter(site=site) if access.may(user, site, "operator") else waiting.none()
    return waiting.count()


def _time(picture: dict[str, Any] | None) -> datetime | None:
    try:
        at = datetime.fromisoformat((picture or {})["at"])
    except (KeyError, TypeError, ValueError):
        return None
    return at if at.tzinfo else None


def _float(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _three(values: object) -> tuple[float | None, float | None, float | None]:
    numbers = values if isinstance(values, list | tuple) and len(values) == 3 else (None, None, None)
    a, b, c = (_float(v) for v in numbers)
    return a, b, c


def _circuit_rows(picture: dict[str, Any]) -> Iterator[CircuitRow]:
    """The tree in reading order: each circuit before what hangs below it."""
    circuits = [c for c in picture.get("circuits") or [] if isinstance(c, dict)]
    names = {c["name"] for c in circuits}
    below: dict[str | None, list[dict[str, Any]]] = {}
    for circuit in circuits:
        parent = circuit.get("parent")
        below.setdefault(parent if parent in names else None, []).append(circuit)

    def walk(parent: str | None, depth: int) -> Iterator[CircuitRow]:
        for circuit in below.pop(parent, []):
            yield _circuit_row(circuit, depth)
            yield from walk(circuit["name"], depth + 1)

    return walk(None, 0)


def _circuit_row(circuit: dict[str, Any], depth: int) -> CircuitRow:
    loads, limits, rooms = (
        _three(circuit.get("load_a")),
        _three(circuit.get("limit_a")),
        _three(circuit.get("headroom_a")),
    )
    return CircuitRow(
        id=int(circuit.get("id") or 0),
        name=circuit["name"],
        depth=depth,
        bars=tuple(
            Bar(phase, load, limit or 0.0, room)
            for phase, load, limit, room in zip(PHASES, loads, limits, rooms, strict=True)
        ),
        reason=words.reason(str(circuit.get("reason") or "")),
        metered=bool(circuit.get("metered")),
        stale=bool(circuit.get("stale")),
    )


def _evse_cards(site: Site, picture: dict[str, Any] | None, around: Around) -> Iterator[EvseCard]:
    """Every EVSE of the accepted stations: from the picture what is live, from the database who and since when."""
    live_evses = {e.get("id"): e for e in (picture or {}).get("evses") or [] if isinstance(e, dict)}
    evses = (
        EVSE.objects.filter(station__site=site, station__admission=ChargingStation.Admission.ACCEPTED)
        .select_related("station", "wanted_limit")
        .order_by("station__identity", "number")
    )
    open_now = {
        t.evse_id: t
        for t in Transaction.objects.filter(station__site=site, ended_at=None)
        .select_related("id_token__driver", "goal")
        .order_by("started_at")
    }
    several = _stations_with_several(evses)
    for evse in evses:
        card = _evse_card(evse, live_evses.get(evse.pk) or {}, open_now.get(evse.pk), evse.station_id in several)
        explained = None if card.tone == "free" else spoken(explain_charge(around.facts(evse, card.transaction)))
        yield replace(card, explained=explained)


def _stations_with_several(evses: Any) -> set[int]:
    seen: set[int] = set()
    several: set[int] = set()
    for evse in evses:
        (several if evse.station_id in seen else seen).add(evse.station_id)
    return several


def _evse_card(evse: EVSE, now: dict[str, Any], transaction: Transaction | None, several: bool) -> EvseCard:
    limit = now.get("limit") or {}
    status = str(now.get("status") or evse.status)
    state = str(now.get("iec_state") or evse.iec_state)
    currents = _three(now.get("current_a")) if now.get("current_a") else None
    return EvseCard(
        id=evse.pk,
        title=f"{evse.station} / {evse.number}" if several else str(evse.station),
        identity=evse.station.identity,
        circuit=str(now.get("circuit") or ""),
        status=status,
        status_text=words.status(status),
        iec_state=state,
        iec_text=words.iec_state(state),
        connected=bool(now.get("connected")),
        power_w=_float(now.get("power_w")),
        current_a=currents,
        wanted_a=_float(limit.get("wanted_a")),
        accepted_a=_float(limit.get("accepted_a")),
        measured_a=_float(limit.get("measured_a")),
        reason=words.reason(str(limit.get("reason") or "")),
        transaction=transaction,
        goal=getattr(transaction, "goal", None) if transaction else None,
        driver=who(transaction),
        since=transaction.started_at if transaction else evse.status_at,
        isolated=bool(limit.get("isolated")),
        held_at=words.place(str(limit.get("circuit") or ""), str(limit.get("phase") or "")),
    )


def who(transaction: Transaction | None) -> str:
    """The driver when known, else the label or value of the token."""
    if transaction is None:
        return ""
    token = transaction.id_token
    if token is None:
        return transaction.id_token_value
    if token.driver is not None:
        return token.driver.get_full_name() or token.driver.get_username()
    return str(token)


def _plan(site: Site, plan: Plan | None) -> PlanSummary | None:
    if plan is None:
        return None
    missing = plan.result.get("shortfalls") if isinstance(plan.result, dict) else None
    wanted = missing if isinstance(missing, dict) else {}
    goals = {
        str(g.pk): g
        for g in ChargingGoal.objects.filter(site=site, pk__in=[k for k in wanted if str(k).isdigit()]).select_related(
            "transaction__id_token__driver", "id_token__driver", "evse__station"
        )
    }
    shortfalls = [
        Shortfall(
            who=_goal_name(goals[key]),
            missing_wh=float(entry.get("wh") or 0.0),
            departure=goals[key].departure,
            reason=words.shortfall(str(entry.get("reason") or "")),
        )
        for key, entry in wanted.items()
        if key in goals and isinstance(entry, dict) and float(entry.get("wh") or 0.0) >= 100
    ]
    return PlanSummary(plan, plan.valid_until > timezone.now(), tuple(shortfalls))


def _goal_name(goal: ChargingGoal) -> str:
    if goal.transaction is not None:
        return who(goal.transaction) or str(goal.transaction.station)
    if goal.id_token is not None:
        return str(goal.id_token.driver or goal.id_token)
    return str(goal.evse or goal.pk)


def _month_peak(site: Site) -> MonthPeak | None:
    month = timezone.now().astimezone(site.tz).date().replace(day=1)
    return MonthPeak.objects.filter(site=site, month=month).first()

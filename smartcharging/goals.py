"""Three doors, one room: a tap (RFID profile), a driver's form and a scheduling message become a charging goal.

`set_goal` is the room. For one transaction one goal counts: driver before station before schedule before tap before
default; the others are kept, and the next one counts when that one is cancelled. A goal for an id token or an EVSE
waits until a transaction starts there. Energy counts from the start of the transaction.

Every change asks for a new plan after the commit. A broker that is away never fails a wish: the next beat repairs it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from datetime import datetime, time, timedelta
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

from django.db import IntegrityError
from django.db import transaction as database  # here a transaction is a charge
from django.db.models import Q
from django.utils import timezone
from django.utils.translation import gettext as _

from csms.models import EVSE, IdToken, Transaction
from meters.models import Site
from smartcharging import wake
from smartcharging.engine.vehicle import WH_PER_KM
from smartcharging.engine.vehicle import energy_for_range as at_the_meter
from smartcharging.models import ChargingGoal, Mode, TokenProfile, UserProfile, Vehicle

if TYPE_CHECKING:
    from django.contrib.auth.models import User

FARTHEST = timedelta(days=7)
MOST_WH = 1_000_000.0
MOST_KM = 3_000.0
HIGHEST_PRIORITY = 10
_S = ChargingGoal.Source
_RANK = {_S.DRIVER: 0, _S.STATION: 1, _S.SCHEDULE: 2, _S.TAP: 3, _S.DEFAULT: 4}
_WISH = ("departure", "energy_wh", "range_km", "priority", "mode")


class GoalError(ValueError):
    """A wish that cannot be taken: which field, and why, in the reader's language."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(f"{field}: {message}")
        self.field, self.message = field, message


def set_goal(
    *,
    site: Site,
    transaction: Transaction | None = None,
    evse: EVSE | None = None,
    id_token: IdToken | None = None,
    departure: datetime | None = None,
    energy_wh: float | None = None,
    range_km: float | None = None,
    priority: int | None = None,
    mode: str | None = None,
    source: str,
    external_id: str = "",
    user: User | None = None,
    now: datetime | None = None,
) -> ChargingGoal:
    """Record a wish for a transaction, or for the next one of an EVSE or an id token.

    Idempotent: the same `external_id` of a site is the same goal, and so is a second wish of the same kind for the
    same transaction; both are changed in place. Raises `GoalError`.
    """
    now = now or timezone.now()
    _check_target(site, transaction, evse, id_token)
    wish = _checked_wish(now, departure, energy_wh, range_km, priority, mode)
    if source not in _RANK:
        raise GoalError("source", _("use one of %(names)s") % {"names": ", ".join(_S.values)})
    if len(external_id) > 100:
        raise GoalError("external_id", _("at most 100 characters"))
    target = {"asked_for": transaction, "evse": evse, "id_token": id_token}
    try:
        return _write(site, target, wish, ChargingGoal.Source(source), external_id, user, now)
    except IntegrityError:
        # Somebody else has just made the same goal; now it is there to be changed.
        return _write(site, target, wish, ChargingGoal.Source(source), external_id, user, now)


def change_goal(
    goal: ChargingGoal, *, user: User | None = None, now: datetime | None = None, **changes: Any
) -> ChargingGoal:
    """Change the named fields of a goal (departure, energy_wh, range_km, priority, mode). Raises `GoalError`."""
    now = now or timezone.now()
    for name in changes:
        if name not in _WISH:
            raise GoalError(name, _("cannot be changed"))
    if goal.cancelled_at is not None:
        raise GoalError("goal", _("this goal was cancelled"))
    if goal.asked_for is not None and not goal.asked_for.open:
        raise GoalError("transaction", _("this transaction has ended"))
    if changes.get("range_km") is not None:
        changes.setdefault("energy_wh", None)
    elif changes.get("energy_wh") is not None:
        changes.setdefault("range_km", None)
    wish = {name: changes.get(name, getattr(goal, name)) for name in _WISH}
    if wish["range_km"] is not None and "energy_wh" not in changes:
        wish["energy_wh"] = None  # it was reckoned from the range, and will be again
    if "departure" not in changes and goal.departure is not None and goal.departure <= now:
        wish["departure"] = None  # an old departure that is not touched is no new wish
    checked = _checked_wish(now, **wish)
    if "departure" not in changes:
        checked["departure"] = goal.departure
    with database.atomic():
        _apply(goal, checked, user)
        _settle_those_of(goal, now)
    _replan(goal.site_id, "goal changed")
    return goal


def cancel_goal(goal: ChargingGoal, *, user: User | None = None, now: datetime | None = None) -> None:
    """Take a wish back. The next goal in line, if there is one, counts from now on. Harmless when done twice."""
    if goal.cancelled_at is not None:
        return
    now = now or timezone.now()
    with database.atomic():
        goal.cancelled_at = now
        goal.transaction = None
        _save(goal, user)
        if goal.asked_for is not None and goal.asked_for.open:
            settle(goal.asked_for, now)
    _replan(goal.site_id, "goal cancelled")


def goal_for(transaction: Transaction) -> ChargingGoal | None:
    """The goal that counts for this transaction; None means as much as possible, without haste."""
    return ChargingGoal.objects.filter(transaction=transaction, cancelled_at=None).first()


def attach(transaction: Transaction, now: datetime | None = None) -> ChargingGoal | None:
    """A transaction has started or got its id token: find its goal, and ask for a plan. Idempotent."""
    with database.atomic():
        goal = settle(transaction, now or timezone.now())
    site_id = transaction.station.site_id
    if site_id is not None:
        _replan(site_id, "transaction started")
    return goal


def attach_waiting(site: Site, now: datetime) -> int:
    """Settle every open transaction of the site that has no goal, or whose goal's departure has passed.

    Repairs what a listener that was away has missed. Returns how many got a goal.
    """
    settled = 0
    transactions = Transaction.objects.filter(station__site=site, ended_at=None).filter(
        Q(goal=None) | Q(goal__departure__lte=now)
    )
    for one in transactions.select_related("station", "goal"):
        before = one.goal.pk if hasattr(one, "goal") else None
        with database.atomic():
            after = settle(one, now)
        settled += after is not None and after.pk != before
    return settled


def settle(transaction: Transaction, now: datetime) -> ChargingGoal | None:
    """Choose the goal that counts for an open transaction and point it there. Inside a database transaction."""
    Transaction.objects.select_for_update().filter(pk=transaction.pk).first()
    if transaction.ended_at is not None:
        return goal_for(transaction)
    candidates = list(_candidates(transaction, now))
    if not any(_RANK[_S(g.source)] <= _RANK[_S.TAP] for g in candidates):
        tap = _tap_goal(transaction, now)
        candidates += [tap] if tap is not None else []
    present = goal_for(transaction)
    if not candidates:
        return present
    best = min(candidates, key=lambda g: _order(g, now))
    if present is not None and present.pk != best.pk:
        _step_back(present, best)
    if best.transaction_id != transaction.pk or best.asked_for_id != transaction.pk:
        best.transaction, best.asked_for = transaction, transaction
        if best.priority is None and present is not None:
            best.priority = present.priority  # a driver chooses time and energy; the rank was given by others
        best.save()
    return best


def next_occurrence(clock: time, now: datetime, zone: ZoneInfo) -> datetime:
    """The next moment at which the site's clock shows this time, in UTC.

    A time that the spring change skips is the moment one hour on; one that autumn repeats is the first still ahead.
    """
    today = now.astimezone(zone).date()
    for days in range(3):
        for fold in (0, 1):
            local = datetime.combine(today + timedelta(days=days), clock.replace(fold=fold), tzinfo=zone)
            moment = local.astimezone(ZoneInfo("UTC"))
            if moment > now:
                return moment
    raise AssertionError("a clock shows every time within two days")


def _check_target(site: Site, transaction: Transaction | None, evse: EVSE | None, id_token: IdToken | None) -> None:
    if transaction is None and evse is None and id_token is None:
        raise GoalError("transaction", _("name a transaction, an EVSE or an id token"))
    if transaction is not None:
        if transaction.station.site_id != site.pk:
            raise GoalError("transaction", _("belongs to another site"))
        if transaction.ended_at is not None:
            raise GoalError("transaction", _("this transaction has ended"))
    if evse is not None and evse.station.site_id != site.pk:
        raise GoalError("evse", _("belongs to another site"))
    if id_token is not None and id_token.site_id != site.pk:
        raise GoalError("id_token", _("belongs to another site"))
    if transaction is not None and evse is not None and transaction.evse_id != evse.pk:
        raise GoalError("evse", _("the transaction is at another EVSE"))
    if transaction is not None and id_token is not None and transaction.id_token_id != id_token.pk:
        raise GoalError("id_token", _("the transaction has another id token"))


def _checked_wish(
    now: datetime,
    departure: datetime | None,
    energy_wh: float | None,
    range_km: float | None,
    priority: int | None,
    mode: str | None,
) -> dict[str, Any]:
    if departure is not None:
        if departure.tzinfo is None:
            raise GoalError("departure", _("give the time zone too, such as 2026-01-31T17:00:00+01:00"))
        if departure <= now:
            raise GoalError("departure", _("must lie in the future"))
        if departure > now + FARTHEST:
            raise GoalError("departure", _("must lie within seven days"))
    _check_number("energy_wh", energy_wh, MOST_WH, "Wh")
    _check_number("range_km", range_km, MOST_KM, "km")
    if energy_wh is not None and range_km is not None:
        raise GoalError("range_km", _("give energy or range, not both"))
    if priority is not None and (isinstance(priority, bool) or not 0 <= int(priority) <= HIGHEST_PRIORITY):
        raise GoalError("priority", _("give a number from 0 to %(most)s") % {"most": HIGHEST_PRIORITY})
    if mode is not None and mode not in Mode.values:
        raise GoalError("mode", _("use one of %(names)s") % {"names": ", ".join(Mode.values)})
    return {
        "departure": departure,
        "energy_wh": energy_wh,
        "range_km": range_km,
        "priority": priority,
        "mode": mode or Mode.PLAN,
    }


def _check_number(field: str, value: float | None, most: float, unit: str) -> None:
    if value is None:
        return
    if isinstance(value, bool) or not math.isfinite(value) or not 0 <= value <= most:
        raise GoalError(field, _("give a number from 0 to %(most)s %(unit)s") % {"most": f"{most:.0f}", "unit": unit})


def _write(
    site: Site,
    target: dict[str, Any],
    wish: dict[str, Any],
    source: ChargingGoal.Source,
    external_id: str,
    user: User | None,
    now: datetime,
) -> ChargingGoal:
    with database.atomic():
        goal = _same_goal(site, target, source, external_id) or ChargingGoal(site=site, external_id=external_id)
        before = goal.asked_for
        if goal.asked_for_id is not None and target["asked_for"] is None:
            # A goal for a token or an EVSE that has found its transaction keeps it when it is sent again.
            same = goal.evse_id == _pk(target["evse"]) and goal.id_token_id == _pk(target["id_token"])
            target = {**target, "asked_for": before if same and before is not None and before.open else None}
        if goal.transaction_id != _pk(target["asked_for"]):
            goal.transaction = None
        goal.asked_for, goal.evse, goal.id_token = target["asked_for"], target["evse"], target["id_token"]
        goal.source, goal.cancelled_at = source, None
        if wish["priority"] is None and goal.transaction_id is not None:
            wish = {**wish, "priority": goal.priority}  # the rank it was given there stays when it is sent again
        _apply(goal, wish, user)
        _settle_those_of(goal, now)
        if before is not None and before.pk != goal.asked_for_id and before.open:
            settle(before, now)  # it has lost this goal
    goal.refresh_from_db()
    _replan(site.pk, f"goal from {source.value}")
    return goal


def _same_goal(
    site: Site, target: dict[str, Any], source: ChargingGoal.Source, external_id: str
) -> ChargingGoal | None:
    """The record this wish is a newer version of."""
    mine = ChargingGoal.objects.select_for_update().filter(site=site)
    if external_id:
        return mine.filter(external_id=external_id).first()
    mine = mine.filter(source=source, external_id="", cancelled_at=None)
    if target["asked_for"] is not None:
        return mine.filter(asked_for=target["asked_for"]).first()
    return mine.filter(asked_for=None, evse=target["evse"], id_token=target["id_token"]).first()


def _apply(goal: ChargingGoal, wish: dict[str, Any], user: User | None) -> None:
    for name, value in wish.items():
        setattr(goal, name, value)
    if goal.range_km is not None:
        goal.energy_wh = energy_for_range(goal.range_km, vehicle_of(goal, user))
    goal.promised_wh, goal.promise_reason = None, ""
    _save(goal, user)


def _save(goal: ChargingGoal, user: User | None) -> None:
    if user is not None and user.pk is not None:
        goal._history_user = user  # type: ignore[attr-defined]
    goal.save()


def vehicle_of(goal: ChargingGoal, user: User | None = None) -> Vehicle | None:
    """The car this goal is about: that of its id token, else the only one of the person who asks."""
    token_id = goal.id_token_id or (goal.asked_for.id_token_id if goal.asked_for is not None else None)
    if token_id is not None:
        found = Vehicle.objects.filter(site=goal.site_id, id_token=token_id).first()
        if found is not None:
            return found
    if user is None or user.pk is None:
        return None
    mine = list(Vehicle.objects.filter(site=goal.site_id, driver=user)[:2])
    return mine[0] if len(mine) == 1 else None


def energy_for_range(range_km: float, vehicle: Vehicle | None) -> float:
    """The energy at the meter for this range [Wh]."""
    consumption = vehicle.consumption_wh_per_km if vehicle is not None else WH_PER_KM
    return min(at_the_meter(range_km, consumption), MOST_WH)


def _settle_those_of(goal: ChargingGoal, now: datetime) -> None:
    """Let the open transactions this goal may be about choose again."""
    if goal.asked_for is not None:
        settle(goal.asked_for, now)
        return
    running = Transaction.objects.filter(station__site=goal.site_id, ended_at=None).select_related("station")
    if goal.evse_id is not None:
        running = running.filter(evse=goal.evse_id)
    if goal.id_token_id is not None:
        running = running.filter(id_token=goal.id_token_id)
    # A token may have started twice; the newest is where its car stands.
    newest = running.order_by("-started_at").first()
    if newest is not None:
        settle(newest, now)


def _candidates(transaction: Transaction, now: datetime) -> Iterable[ChargingGoal]:
    """The goals asked for this transaction, and those that wait for one like it."""
    waiting = Q(asked_for=None) & (Q(departure=None) | Q(departure__gt=now))
    here = Q(evse=transaction.evse_id, evse__isnull=False) & (Q(id_token=None) | Q(id_token=transaction.id_token_id))
    theirs = Q(pk__in=[])
    if transaction.id_token_id is not None:
        theirs = Q(id_token=transaction.id_token_id) & (Q(evse=None) | Q(evse=transaction.evse_id))
    return ChargingGoal.objects.filter(
        Q(asked_for=transaction) | (waiting & (here | theirs)),
        site=transaction.station.site_id,
        cancelled_at=None,
    )


def _order(goal: ChargingGoal, now: datetime) -> tuple[Any, ...]:
    """Most binding first: one that is not past, its source, the earliest departure, the newest."""
    past = goal.departure is not None and goal.departure <= now
    far = datetime.max.replace(tzinfo=now.tzinfo)
    return (past, _RANK[_S(goal.source)], goal.departure or far, -goal.pk)


def _step_back(goal: ChargingGoal, before: ChargingGoal) -> None:
    """This goal no longer counts. One of the same kind with a later departure waits for the next transaction."""
    goal.transaction = None
    if goal.source == before.source and (goal.evse_id or goal.id_token_id):
        goal.asked_for = None
    goal.save()


def _tap_goal(transaction: Transaction, now: datetime) -> ChargingGoal | None:
    """What the user profile behind the id token wants; made once per transaction."""
    profile = profile_of(transaction.id_token_id)
    site_id = transaction.station.site_id
    if profile is None or site_id is None or profile.site_id != site_id:
        return None
    if ChargingGoal.objects.filter(asked_for=transaction, source=_S.TAP).exists():
        return None  # it was made and cancelled
    departure = None
    if profile.departure is not None:
        departure = next_occurrence(profile.departure, now, profile.site.tz)
    return ChargingGoal.objects.create(
        site_id=site_id,
        asked_for=transaction,
        id_token_id=transaction.id_token_id,
        source=_S.TAP,
        departure=departure,
        energy_wh=profile.energy_wh,
        priority=profile.priority,
        mode=profile.mode,
    )


def profile_of(id_token_id: int | None) -> UserProfile | None:
    """The user profile behind an id token."""
    if id_token_id is None:
        return None
    link = TokenProfile.objects.select_related("profile__site").filter(id_token=id_token_id).first()
    return link.profile if link is not None else None


def _pk(record: Any) -> int | None:
    return None if record is None else record.pk


def _replan(site_id: int, trigger: str) -> None:
    database.on_commit(lambda: wake.plan(site_id, trigger))

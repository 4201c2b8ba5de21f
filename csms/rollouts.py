"""A firmware rollout: which stations, in which order, how many at once, and when to stop.

A few stations go first; the others wait until those are done. After that at most `at_once` are under way at any time.
A station is asked while nobody charges there, and within the hours that were set, on its own clock. Too many failures
stop the rollout: those under way go on, nobody new is asked, and a person decides.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime, time
from typing import TYPE_CHECKING

from django.db import transaction
from django.db.models import Exists, OuterRef, Q, QuerySet
from django.utils import timezone
from django.utils.translation import gettext

from csms import firmware
from csms.asking import alone, ask_each, connected
from csms.models import EVSE, ChargingStation, Transaction
from csms.workflow_models import UPDATES_UNDER_WAY, FirmwareRollout, FirmwareUpdate

if TYPE_CHECKING:
    from django.contrib.auth.models import User

State = FirmwareRollout.State
Of = FirmwareUpdate.State

UNFINISHED = (State.RUNNING, State.PAUSED, State.STOPPED, State.CANCELLED)
"""Stations may still be under way in these."""

SHARE_COUNTS_FROM = 4
_BUSY = (EVSE.Status.CHARGING, EVSE.Status.SUSPENDED_EV, EVSE.Status.SUSPENDED_EVSE, EVSE.Status.OCCUPIED)


class RolloutError(ValueError):
    """This cannot be done with the rollout as it stands; the text says why."""


# ---------------------------------------------------------------------- by hand


def fitting(rollout: FirmwareRollout) -> QuerySet[ChargingStation]:
    """The stations this rollout is for: of the image's maker and models, on its sites, with the versions named."""
    image = rollout.image
    stations = ChargingStation.objects.filter(
        vendor__iexact=image.vendor.strip(), admission=ChargingStation.Admission.ACCEPTED, site__isnull=False
    )
    for site in (rollout.site_id, image.site_id):
        if site is not None:
            stations = stations.filter(site_id=site)
    if image.model_names:
        stations = stations.filter(_any_of("model", image.model_names))
    if rollout.from_version_names:
        stations = stations.filter(_any_of("firmware_version", rollout.from_version_names))
    chosen = list(rollout.stations.values_list("pk", flat=True)) if rollout.pk else []
    return (stations.filter(pk__in=chosen) if chosen else stations).order_by("identity")


def _any_of(field: str, words: Sequence[str]) -> Q:
    found = Q()
    for word in words:
        found |= Q(**{f"{field}__iexact": word})
    return found


def start(rollout: FirmwareRollout, by: User | None = None, now: datetime | None = None) -> int:
    """Begin: one record per station; how many have to be updated."""
    now = now or timezone.now()
    if rollout.state != State.DRAFT:
        raise RolloutError(gettext("This rollout was started before."))
    stations = list(fitting(rollout).select_related("site"))
    busy = FirmwareUpdate.objects.filter(station__in=stations, state__in=[Of.WAITING, *UPDATES_UNDER_WAY])
    taken = busy.filter(rollout__state__in=[State.RUNNING, State.PAUSED]) | busy.exclude(state=Of.WAITING)
    elsewhere = set(taken.values_list("station_id", flat=True))
    stations = [s for s in stations if s.pk not in elsewhere]
    if not stations:
        raise RolloutError(
            gettext("No station fits: look at maker, models, versions and site as the stations say them.")
        )
    updates = [
        FirmwareUpdate(
            rollout=rollout,
            station=station,
            from_version=station.firmware_version,
            state=Of.SKIPPED if firmware.same_version(station.firmware_version, rollout.image.version) else Of.WAITING,
        )
        for station in stations
    ]
    with transaction.atomic():
        FirmwareUpdate.objects.bulk_create(updates)
        rollout.state, rollout.started_at, rollout.reason = State.RUNNING, now, ""
        rollout.by = rollout.by or by
        rollout.save(update_fields=["state", "started_at", "reason", "by"])
    return sum(u.state == Of.WAITING for u in updates)


def pause(rollout: FirmwareRollout) -> None:
    """Ask nobody new. Stations under way go on."""
    if rollout.state != State.RUNNING:
        raise RolloutError(gettext("Only a running rollout can be paused."))
    _move(rollout, State.PAUSED)


def resume(rollout: FirmwareRollout) -> None:
    """Go on, also after a stop: the failures so far count no more."""
    if rollout.state not in (State.PAUSED, State.STOPPED):
        raise RolloutError(gettext("Only a paused or stopped rollout can go on."))
    if rollout.state == State.STOPPED:
        forgiven = rollout.updates.filter(state=Of.FAILED).count()
        rollout.forgiven = forgiven
        rollout.save(update_fields=["forgiven"])
    _move(rollout, State.RUNNING)


def cancel(rollout: FirmwareRollout, now: datetime | None = None) -> None:
    """Ask nobody any more, for good. A station that was asked cannot be called back."""
    if rollout.state in (State.CANCELLED, State.DONE):
        raise RolloutError(gettext("This rollout has ended already."))
    now = now or timezone.now()
    rollout.updates.filter(state=Of.WAITING).update(state=Of.CANCELLED, ended_at=now, not_before=None)
    _move(rollout, State.CANCELLED, ended_at=now)


def retry_failed(rollout: FirmwareRollout) -> int:
    """Put the stations that failed back in the queue; how many."""
    if rollout.state in (State.DRAFT, State.CANCELLED):
        raise RolloutError(gettext("This rollout is not running."))
    back = rollout.updates.filter(state=Of.FAILED).update(
        state=Of.WAITING, attempts=0, not_before=None, ended_at=None, detail="", status=""
    )
    if not back:
        raise RolloutError(gettext("No station of it has failed."))
    rollout.forgiven = 0
    rollout.save(update_fields=["forgiven"])
    _move(rollout, State.RUNNING, ended_at=None)
    return back


def _move(rollout: FirmwareRollout, state: str, reason: str = "", **more: datetime | None) -> None:
    rollout.state, rollout.reason = state, reason[:255]
    for name, value in more.items():
        setattr(rollout, name, value)
    rollout.save(update_fields=["state", "reason", *more])


# ---------------------------------------------------------------------- by the clock


def ask_stations(updates: Sequence[FirmwareUpdate], now: datetime) -> None:
    ask_each(updates, lambda update: firmware.ask(update, now))


def advance(
    rollout_pk: int,
    now: datetime | None = None,
    ask: Callable[[Sequence[FirmwareUpdate], datetime], None] = ask_stations,
) -> None:
    """One round of one rollout: what has ended, whether to stop, whom to ask next."""
    now = now or timezone.now()
    with alone("rollout", rollout_pk, 600) as mine:
        if not mine:
            return
        rollout = FirmwareRollout.objects.select_related("image", "site").filter(pk=rollout_pk).first()
        if rollout is None or rollout.state not in UNFINISHED:
            return
        for key in rollout.updates.filter(state__in=UPDATES_UNDER_WAY).values_list("pk", flat=True):
            _look_again(key, now)
        if rollout.state != State.RUNNING:
            return
        states = list(rollout.updates.values_list("state", "canary"))
        why = why_stop(rollout, states)
        if why:
            _move(rollout, State.STOPPED, why)
            return
        if not any(state == Of.WAITING or state in UPDATES_UNDER_WAY for state, _ in states):
            _move(rollout, State.DONE, ended_at=now)
            return
        ask(_next(rollout, states, now), now)


def _look_again(key: int, now: datetime) -> None:
    with transaction.atomic():
        update = firmware.locked().filter(pk=key, state__in=UPDATES_UNDER_WAY).first()
        if update is not None:
            firmware.look_again(update, now)


def why_stop(rollout: FirmwareRollout, states: Sequence[tuple[str, bool]]) -> str:
    """Why the rollout has to stop, as its stations stand: (state, goes first) of each; empty to go on."""
    failed = sum(state == Of.FAILED for state, _ in states) - rollout.forgiven
    if failed <= 0:
        return ""
    ended = sum(state in (Of.DONE, Of.FAILED) for state, _ in states) - rollout.forgiven
    if any(canary and state == Of.FAILED for state, canary in states) and not rollout.forgiven:
        return gettext("A station that went first has failed.")
    if failed >= rollout.max_failures:
        return gettext("%(failed)d stations have failed.") % {"failed": failed}
    if ended >= SHARE_COUNTS_FROM and failed / ended > rollout.max_failure_share:
        return gettext("%(failed)d of %(ended)d stations have failed.") % {"failed": failed, "ended": ended}
    return ""


def _updates(rollout: FirmwareRollout) -> QuerySet[FirmwareUpdate]:
    return rollout.updates.select_related("station__site", "rollout__image")


def _next(rollout: FirmwareRollout, states: Sequence[tuple[str, bool]], now: datetime) -> list[FirmwareUpdate]:
    """Whom to ask now: no more than fit, and nobody who cannot now.

    Whoever can be asked soonest goes first, so that one that charges all day holds nobody up.
    """
    firsts = [state for state, canary in states if canary]
    first_open = any(state == Of.WAITING or state in UPDATES_UNDER_WAY for state in firsts)
    room = rollout.at_once - sum(state in UPDATES_UNDER_WAY for state, _ in states)
    still_first = max(rollout.canaries - len(firsts), 0)
    if still_first:
        room = min(room, still_first)
    if room <= 0:
        return []
    waiting = _updates(rollout).filter(state=Of.WAITING).filter(Q(not_before=None) | Q(not_before__lte=now))
    if first_open and not still_first:
        waiting = waiting.filter(canary=True)
    if rollout.only_idle:
        charging = Transaction.objects.filter(station=OuterRef("station"), ended_at=None)
        in_use = EVSE.objects.filter(station=OuterRef("station"), status__in=_BUSY)
        waiting = waiting.exclude(Exists(charging)).exclude(Exists(in_use))
    elsewhere = FirmwareUpdate.objects.filter(station=OuterRef("station"), state__in=UPDATES_UNDER_WAY)
    willing = [u for u in waiting.exclude(Exists(elsewhere)).order_by("pk") if _in_hours(rollout, u.station, now)]
    there = {s.pk for s in connected(u.station for u in willing)}
    chosen = [u for u in willing if u.station_id in there][:room]
    if still_first:
        for update in chosen:
            update.canary = True
        rollout.updates.filter(pk__in=[u.pk for u in chosen]).update(canary=True)
    return chosen


def _in_hours(rollout: FirmwareRollout, station: ChargingStation, now: datetime) -> bool:
    if rollout.window_from is None or rollout.window_to is None:
        return True
    here = now.astimezone(station.site.tz) if station.site is not None else now
    return within(here.time(), rollout.window_from, rollout.window_to)


def within(at: time, begin: time, end: time) -> bool:
    """Hours of a day, which may go over midnight. Begin and end the same: all day."""
    if begin == end:
        return True
    return begin <= at < end if begin < end else at >= begin or at < end

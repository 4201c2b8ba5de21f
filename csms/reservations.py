"""Reservations: a place kept for a token and its group until a moment (1.6 §5.13, 2.0.1 H).

A reservation begins at a station when the station is asked; one for later waits here until its time. It ends by use
(a start that names it, or shows its token or a token of its group), by the station's word, by its end, or by hand. A
station that is away is asked once it is there again, as long as the reservation still makes sense.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from django.db.models import F, Q
from django.utils import timezone
from django.utils.translation import gettext

from csms import bus, calls
from csms.asking import ERRORS, alone, connected, for_ever, later, why
from csms.ledger import Outcome
from csms.models import EVSE, ChargingStation, IdToken, Transaction
from csms.vocabulary import Kind, Notice, TransactionReport
from csms.workflow_models import OPEN_RESERVATIONS, Reservation
from meters.models import Site

if TYPE_CHECKING:
    from django.contrib.auth.models import User

State = Reservation.State

SHORTEST = timedelta(minutes=1)
LONGEST = timedelta(days=2)
FURTHEST = timedelta(days=60)
GRACE = timedelta(minutes=1)
"""Clocks differ: a reservation is over for us a little after its end, when the station has had its say."""
PAUSES_MIN = (1, 2, 5, 10, 15)
_ANSWERS = {
    "Accepted": State.ACCEPTED,
    "Occupied": State.OCCUPIED,
    "Rejected": State.REJECTED,
    "Faulted": State.FAULTED,
    "Unavailable": State.UNAVAILABLE,
}


class ReservationError(ValueError):
    """What was asked for cannot be reserved; `field` says which part of it."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field, self.message = field, message


# ---------------------------------------------------------------------- by hand


def reserve(
    *,
    id_token: IdToken,
    ends_at: datetime,
    starts_at: datetime | None = None,
    station: ChargingStation | None = None,
    evse: EVSE | None = None,
    connector_type: str = "",
    by: User | None = None,
    now: datetime | None = None,
) -> Reservation:
    """Keep a place on the token's site: this EVSE, any of this station, or any free one. Asked at once, or at its time.

    Raises `ReservationError`. What the station says is in the reservation's state.
    """
    now = now or timezone.now()
    starts_at = max(starts_at or now, now)
    site = id_token.site
    if evse is not None:
        station = station or evse.station
    _check(site, id_token, starts_at, ends_at, station, evse, now)
    reservation = Reservation.objects.create(
        site=site,
        station=station,
        evse=evse,
        id_token=id_token,
        connector_type=connector_type,
        starts_at=starts_at,
        ends_at=ends_at,
        by=by,
    )
    if starts_at <= now:
        ask(reservation, now)
    return reservation


def check(
    *,
    id_token: IdToken,
    ends_at: datetime,
    starts_at: datetime | None = None,
    station: ChargingStation | None = None,
    evse: EVSE | None = None,
) -> None:
    """Would `reserve` take it? Raises `ReservationError`; nothing is kept and nothing is asked."""
    now = timezone.now()
    station = station or (evse.station if evse is not None else None)
    _check(id_token.site, id_token, max(starts_at or now, now), ends_at, station, evse, now)


def _check(
    site: Site,
    id_token: IdToken,
    starts_at: datetime,
    ends_at: datetime,
    station: ChargingStation | None,
    evse: EVSE | None,
    now: datetime,
) -> None:
    if id_token.status_at(ends_at) != IdToken.Status.ACCEPTED:
        raise ReservationError("id_token", gettext("This token may not charge at that time."))
    if ends_at - starts_at < SHORTEST:
        raise ReservationError("ends_at", gettext("A reservation ends at least a minute after its start."))
    if ends_at - starts_at > LONGEST:
        raise ReservationError("ends_at", gettext("A reservation lasts at most two days."))
    if starts_at - now > FURTHEST:
        raise ReservationError("starts_at", gettext("Reserve at most 60 days ahead."))
    if station is not None and station.site_id != site.pk:
        raise ReservationError("station", gettext("The station and the token belong to different sites."))
    if evse is not None and station is not None and evse.station_id != station.pk:
        raise ReservationError("evse", gettext("This EVSE belongs to another station."))
    clashing = Reservation.objects.filter(
        evse=evse, state__in=OPEN_RESERVATIONS, cancel_wanted=False, starts_at__lt=ends_at, ends_at__gt=starts_at
    )
    if evse is not None and clashing.exists():
        raise ReservationError("evse", gettext("This place is reserved already at that time."))


def cancel(reservation: Reservation, now: datetime | None = None) -> Reservation:
    """Take it back. Where the station knows of it and is away, it is told once it is there, or the end comes first."""
    now = now or timezone.now()
    if not reservation.open:
        return reservation
    if reservation.state == State.WANTED and not reservation.attempts:
        _close(reservation, State.CANCELLED, now)
        return reservation
    reservation.cancel_wanted = True
    reservation.save(update_fields=["cancel_wanted"])
    ask(reservation, now)
    return reservation


# ---------------------------------------------------------------------- to the station


def due(now: datetime) -> list[Reservation]:
    """What is to be asked, or taken back, now: of stations that are there."""
    its_time = Q(next_try_at=None) | Q(next_try_at__lte=now)
    wanted = Q(state=State.WANTED, starts_at__lte=now) | Q(state=State.ACCEPTED, cancel_wanted=True)
    rows = list(
        Reservation.objects.filter(wanted, its_time, ends_at__gt=now)
        .select_related("station", "evse__station", "id_token", "site")
        .order_by("starts_at", "pk")
    )
    there = {s.pk for s in connected(r.station for r in rows if r.station is not None)}
    return [r for r in rows if r.station_id is None or r.station_id in there]


def ask(reservation: Reservation, now: datetime | None = None) -> None:
    """Ask the station for it, or to forget it. Says in the reservation what became of it."""
    now = now or timezone.now()
    with alone("reservation", reservation.pk, 120) as mine:
        if not mine:
            return
        reservation.refresh_from_db(fields=["state", "cancel_wanted"])
        if not reservation.open:
            return
        reservation.attempts = min(reservation.attempts + 1, 1000)
        try:
            _ask(reservation, now)
        except ERRORS as error:
            _not_done(reservation, error, now)


def _ask(reservation: Reservation, now: datetime) -> None:
    if reservation.station is None and not reservation.cancel_wanted:
        _choose_place(reservation)
        if reservation.station is None:
            reservation.detail = gettext("No place of the site is free now.")
            reservation.next_try_at = later(now, reservation.attempts, PAUSES_MIN)
            reservation.save(update_fields=["attempts", "detail", "next_try_at"])
            return
    if reservation.station is None:
        _close(reservation, State.CANCELLED, now)
        return
    if reservation.cancel_wanted:
        said = calls.cancel_reservation(reservation.station, reservation.pk)["status"]
        detail = "" if said == "Accepted" else gettext("The station did not know of it any more.")
        _close(reservation, State.CANCELLED, now, detail)
        return
    kind = reservation.connector_type or None
    where = reservation.evse or reservation.station
    said = str(calls.reserve(where, reservation.id_token, reservation.ends_at, reservation.pk, kind)["status"])
    reservation.answered_at = now
    if said == "Accepted":
        # Unless a charge, or the station's own word, was quicker than we are in writing it down.
        Reservation.objects.filter(pk=reservation.pk, state=State.WANTED).update(
            state=State.ACCEPTED, detail="", attempts=reservation.attempts, next_try_at=None, answered_at=now
        )
        reservation.refresh_from_db()
    else:
        detail = "" if said in _ANSWERS else gettext("The station answered: %(said)s") % {"said": said}
        _close(reservation, _ANSWERS.get(said, State.REJECTED), now, detail)


def _choose_place(reservation: Reservation) -> None:
    """A free place of the site at a station that is there: the one that has been free for longest."""
    taken = Reservation.objects.filter(site=reservation.site, state__in=OPEN_RESERVATIONS).exclude(pk=reservation.pk)
    free = (
        EVSE.objects.filter(station__site=reservation.site, status=EVSE.Status.AVAILABLE, available=True)
        .exclude(pk__in=taken.filter(evse__isnull=False).values("evse"))
        .exclude(station__in=taken.filter(evse=None, station__isnull=False).values("station"))
        .exclude(transactions__in=Transaction.objects.filter(ended_at=None))
        .select_related("station")
        .order_by(F("status_at").asc(nulls_first=True), "pk")
    )
    if reservation.connector_type:
        free = free.filter(connectors__type__iexact=reservation.connector_type)
    places = list(free[:200])
    there = {s.pk for s in connected({p.station_id: p.station for p in places}.values())}
    place = next((p for p in places if p.station_id in there), None)
    if place is not None:
        reservation.station, reservation.evse = place.station, place
        reservation.save(update_fields=["station", "evse"])


def _not_done(reservation: Reservation, error: Exception, now: datetime) -> None:
    reservation.detail = why(error)[:255]
    if isinstance(error, bus.CallRefused) and reservation.cancel_wanted:
        _close(reservation, State.CANCELLED, now, reservation.detail)
        return
    if for_ever(error):
        _close(reservation, State.REJECTED, now, reservation.detail)
        return
    if isinstance(error, bus.StationUnreachable):
        reservation.attempts -= 1  # it never heard of it
    reservation.next_try_at = later(now, reservation.attempts, PAUSES_MIN)
    reservation.save(update_fields=["attempts", "detail", "next_try_at"])


# ---------------------------------------------------------------------- how it ends


def _close(reservation: Reservation, state: str, now: datetime, detail: str = "") -> None:
    reservation.state, reservation.detail, reservation.closed_at = state, detail[:255], now
    reservation.next_try_at = None
    reservation.save(
        update_fields=["state", "detail", "closed_at", "next_try_at", "attempts", "answered_at", "transaction"]
    )


def told(station_pk: int, notice: Notice) -> None:
    """The station says that a reservation is over (2.0.1 ReservationStatusUpdate). Runs in the gateway's writer."""
    state = {"Expired": State.EXPIRED, "Removed": State.REMOVED}.get(notice.status)
    reservation = Reservation.objects.filter(
        pk=notice.request_id or 0, station_id=station_pk, state__in=OPEN_RESERVATIONS
    ).first()
    if state is None or reservation is None:
        return
    _close(reservation, State.CANCELLED if reservation.cancel_wanted else state, notice.received)


def used_by(station_pk: int, transaction_pk: int, named: int | None, now: datetime) -> Reservation | None:
    """A charge began: does it use a reservation? By its number if the station names it, else by token or group.

    Runs in the gateway's writer. Another token's charge uses none: the station let it pass, and says so itself.
    """
    kept = Reservation.objects.filter(station_id=station_pk, state__in=OPEN_RESERVATIONS)
    transaction = Transaction.objects.select_related("id_token").filter(pk=transaction_pk).first()
    if transaction is None:
        return None
    found = kept.filter(pk=named).first() if named else None
    token = transaction.id_token
    if found is None and token is not None:
        his = Q(id_token=token)
        if token.group:
            his |= Q(id_token__group=token.group)
        here = Q(evse=None) | Q(evse=transaction.evse_id)
        started = transaction.started_at
        span = Q(starts_at__lte=started + GRACE, ends_at__gte=started)
        found = kept.filter(his, here, span, state=State.ACCEPTED).order_by(F("evse").asc(nulls_last=True)).first()
    if found is None:
        return None
    found.transaction = transaction
    if found.evse_id is None:
        found.evse = transaction.evse
        found.save(update_fields=["evse"])
    _close(found, State.USED, now)
    return found


def expire(now: datetime | None = None) -> int:
    """Close what is past its end; how many. 1.6 stations say nothing about it."""
    now = now or timezone.now()
    over = list(Reservation.objects.filter(state__in=OPEN_RESERVATIONS, ends_at__lt=now - GRACE))
    for reservation in over:
        if reservation.cancel_wanted:
            _close(reservation, State.CANCELLED, now, gettext("It ended before the station could be told."))
        else:
            _close(reservation, State.EXPIRED, now, reservation.detail)
    return len(over)


def may_use_one(outcome: Outcome, report: TransactionReport) -> bool:
    """Is this event one with which a charge may take up a reservation?"""
    begins = report.kind is Kind.STARTED or report.token is not None
    return begins and report.kind is not Kind.ENDED and not outcome.repeated


def number_named(payload: Any) -> int | None:
    """The reservation a start names, in either version's message."""
    named = payload.get("reservationId")
    return named if isinstance(named, int) and not isinstance(named, bool) and 0 < named < 2**31 else None

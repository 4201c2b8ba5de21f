"""Alarms: something an operator must know of until it is over. Raised once, ended once, told on channel `alarm`.

The verbs run in the gateway's writer or wherever a matter is seen; raising one that is open changes its words only.
"""

from __future__ import annotations

from datetime import datetime

from django.db import IntegrityError, transaction

from csms import changes
from csms.announcing import STATUS_CHANNEL, announce
from csms.models import EVSE, ChargingStation, WantedLimit
from csms.obedience_models import Alarm

ALARM_CHANNEL = "alarm"
ISOLATING = (Alarm.Kind.NOT_FOLLOWED, Alarm.Kind.LIMIT_REFUSED)


def raise_alarm(
    kind: str, at: datetime, *, station_pk: int | None = None, evse_pk: int | None = None, detail: str = ""
) -> Alarm | None:
    """Open an alarm about a station or one of its EVSEs; the one that is open, if there is one."""
    key = key_of(kind, station_pk, evse_pk)
    detail = detail.replace("\x00", "")[:255]
    known = Alarm.objects.filter(key=key, ended_at=None).first()
    if known is not None:
        if known.detail != detail:
            Alarm.objects.filter(pk=known.pk).update(detail=detail)
        return known
    station = ChargingStation.objects.filter(pk=station_pk).first() if station_pk is not None else None
    try:
        with transaction.atomic():
            alarm = Alarm.objects.create(
                site_id=station.site_id if station is not None else None,
                station=station,
                evse_id=evse_pk,
                kind=kind,
                key=key,
                detail=detail,
                raised_at=at,
            )
    except IntegrityError:  # another process saw it in the same moment
        return Alarm.objects.filter(key=key, ended_at=None).first()
    _tell(alarm, "raised")
    return alarm


def end_alarm(
    kind: str, at: datetime, *, station_pk: int | None = None, evse_pk: int | None = None, by: str = ""
) -> bool:
    """It is over. False when no such alarm was open."""
    alarm = Alarm.objects.filter(key=key_of(kind, station_pk, evse_pk), ended_at=None).first()
    if alarm is None:
        return False
    _end(alarm, at, by)
    return True


def dismiss(alarm: Alarm, at: datetime, by: str) -> None:
    """A person ends it. An EVSE that was isolated for it is believed again, until it is seen not to follow anew."""
    if alarm.ended_at is not None:
        return
    with transaction.atomic():
        _end(alarm, at, by)
        if alarm.kind in ISOLATING and alarm.evse_id is not None:
            release(alarm.evse_id)


def isolate(evse_pk: int, at: datetime, detail: str, kind: str = Alarm.Kind.NOT_FOLLOWED) -> None:
    """It does not follow, whatever it is told: from now on it counts with its maximum."""
    WantedLimit.objects.filter(evse_id=evse_pk, isolated_at=None).update(isolated_at=at)
    station_pk = EVSE.objects.filter(pk=evse_pk).values_list("station_id", flat=True).first()
    raise_alarm(kind, at, station_pk=station_pk, evse_pk=evse_pk, detail=detail)
    _tell_evse(evse_pk)
    if station_pk is not None:
        changes.announce("station", [station_pk])


def follows_again(evse_pk: int, at: datetime) -> None:
    """Its meter shows that it follows: it counts with its limit again."""
    station_pk = EVSE.objects.filter(pk=evse_pk).values_list("station_id", flat=True).first()
    release(evse_pk)
    for kind in ISOLATING:
        end_alarm(kind, at, station_pk=station_pk, evse_pk=evse_pk)


def release(evse_pk: int) -> None:
    if WantedLimit.objects.filter(evse_id=evse_pk, isolated_at__isnull=False).update(isolated_at=None):
        _tell_evse(evse_pk)
        changes.announce("station", EVSE.objects.filter(pk=evse_pk).values_list("station_id", flat=True))


def key_of(kind: str, station_pk: int | None, evse_pk: int | None) -> str:
    return f"{kind}:{station_pk or 0}:{evse_pk or 0}"


def _end(alarm: Alarm, at: datetime, by: str) -> None:
    alarm.ended_at, alarm.ended_by = at, by[:150]
    alarm.save(update_fields=["ended_at", "ended_by"])
    _tell(alarm, "ended")


def _tell(alarm: Alarm, what: str) -> None:
    announce(ALARM_CHANNEL, {"site": alarm.site_id, "alarm": alarm.pk, "kind": alarm.kind, "what": what})


def _tell_evse(evse_pk: int) -> None:
    site = EVSE.objects.filter(pk=evse_pk).values_list("station__site_id", flat=True).first()
    announce(STATUS_CHANNEL, {"site": site, "evse": evse_pk})

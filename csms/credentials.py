"""A station's password and security profile: new ones sent to it, and what its logins teach us.

A new password is valid before it is sent and the old one stays valid until the station has logged in with the new, at
most for the grace (R30): whatever is lost on the way, the station gets in. The password itself is made here, told to
the station, and forgotten; only hashes are kept, and no log or message log ever sees it.
"""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from django.conf import settings
from django.db import transaction
from django.utils import timezone
from simple_history.utils import update_change_reason

from csms import bus
from csms.changes import announce
from csms.models import ChargingStation
from csms.ocpp16 import security as security16
from csms.ocpp201 import security as security201
from csms.schemas import V16, V201
from csms.security_events import Sighting, Source, by_person, keep, tell
from csms.security_models import StationSecurity
from csms.speaking import protocol as protocol_of

PASSWORD_BYTES = 20
"""As the 1.6 white paper has it: 20 random bytes, written as 40 hexadecimal characters; 2.0.1 takes 16 to 40."""

OLD_PASSWORDS = 2
_TOOK_IT = frozenset({"Accepted", "RebootRequired"})
_DIALECTS: Mapping[str, Any] = {V16: security16, V201: security201}


class StepDown(Exception):
    """A lower security profile was asked for, without a reason."""


def logged_in(station_pk: int, profile: int, with_new_password: bool, password_hash: str) -> None:
    """A station came in. The first login with the new password ends the old one; a wanted profile is now the least.

    `password_hash` is the one it was checked against: it may have been changed since.
    """
    with contextlib.suppress(ChargingStation.DoesNotExist), transaction.atomic():
        _logged_in(security_of(station_pk), profile, with_new_password, password_hash)


def security_of(station_pk: int) -> StationSecurity:
    """The security of a station, made if need be, with the station at it: both locked until the transaction ends.

    The station's row is locked first, by everybody: two that make the other row at once would wait for each other.
    Raises `ChargingStation.DoesNotExist`.
    """
    station = ChargingStation.objects.select_for_update().get(pk=station_pk)
    security, _ = StationSecurity.objects.select_for_update().get_or_create(station=station)
    security.station = station
    return security


def _logged_in(security: StationSecurity, profile: int, with_new_password: bool, password_hash: str) -> None:
    security.seen_profile = profile
    news: list[str] = []
    if with_new_password and security.old_password_hash and security.station.password_hash == password_hash:
        security.old_password_hash, security.old_password_until = "", None
        news.append("the old password ended")
    if security.wanted_profile is not None and profile >= security.wanted_profile:
        security.least_profile, security.wanted_profile = security.wanted_profile, None
        security.lower_profile = security.lower_until = None
        news.append(f"security profile {security.least_profile} reached")
    if news:
        security.save()
        update_change_reason(security, "; ".join(news))
    else:
        StationSecurity.objects.filter(pk=security.pk).update(seen_profile=profile)
    announce("station", [security.station_id])


# ---------------------------------------------------------------------- passwords


def new_password() -> str:
    return secrets.token_hex(PASSWORD_BYTES)


def rotate_password(station: ChargingStation, *, grace: timedelta | None = None) -> dict[str, Any]:
    """Give a connected station a new random password. The answer has the station's own `status`.

    Refused by the station, the old one stays; unanswered, both are valid until one is used or the grace ends.
    Raises as every call does (`calls.py`).
    """
    protocol = protocol_of(station)
    password = new_password()
    call = _DIALECTS[protocol].set_password(password)
    now = timezone.now()
    until = now + (grace if grace is not None else timedelta(hours=settings.OCPP_PASSWORD_GRACE_H))
    before = _begin(station, password, now, until)
    try:
        status = _DIALECTS[protocol].set_status(
            bus.request(station.identity, call[0], call[1], settings.OCPP_CALL_TIMEOUT_S)
        )
    except bus.NoAnswer:
        by_person(station, "PasswordChanged", "the station did not answer; both passwords are valid for now", now)
        raise
    except (bus.StationUnreachable, bus.CallRefused, bus.CallNotValid):
        _undo(station, before)
        raise
    if status not in _TOOK_IT:
        _undo(station, before)
    else:
        by_person(station, "PasswordChanged", "a new random password", now)
    return {"status": status}


def _begin(station: ChargingStation, password: str, now: datetime, until: datetime) -> tuple[str, str, Any, Any]:
    with transaction.atomic():
        security = security_of(station.pk)
        row = security.station
        before = (
            row.password_hash,
            security.old_password_hash,
            security.old_password_until,
            security.password_changed_at,
        )
        # While an earlier change waits for its first login, nobody knows which of its two passwords the station has.
        waiting = security.old_password_until is not None and security.old_password_until > now
        olds = [row.password_hash, *(security.old_password_hash.split() if waiting else [])]
        security.old_password_hash = " ".join([old for old in olds if old][:OLD_PASSWORDS])
        security.old_password_until = until if security.old_password_hash else None
        security.password_changed_at = now
        security.save()
        row.set_password(password)
        row.save(update_fields=["password_hash"])
        announce("station", [row.pk])
    station.password_hash = row.password_hash
    return before


def _undo(station: ChargingStation, before: tuple[str, str, Any, Any]) -> None:
    with transaction.atomic():
        ChargingStation.objects.filter(pk=station.pk).update(password_hash=before[0])
        StationSecurity.objects.filter(station_id=station.pk).update(
            old_password_hash=before[1], old_password_until=before[2], password_changed_at=before[3]
        )
        announce("station", [station.pk])
    station.password_hash = before[0]


def set_by_hand(station: ChargingStation, password: str) -> None:
    """A password a person set in the station by hand: valid at once, and any old one is void."""
    with transaction.atomic():
        station.set_password(password)
        security = security_of(station.pk)
        station.save(update_fields=["password_hash"])
        security.old_password_hash, security.old_password_until = "", None
        security.password_changed_at = timezone.now()
        security.save()
        announce("station", [station.pk])


def end_old_passwords(now: datetime) -> int:
    """Void the old passwords whose grace is over; how many. (They were refused since that moment already.)"""
    ended = 0
    for due in StationSecurity.objects.filter(old_password_until__lte=now).select_related("station"):
        with transaction.atomic():
            try:
                security = security_of(due.station_id)
            except ChargingStation.DoesNotExist:
                continue
            if security.old_password_until != due.old_password_until:
                continue  # changed again meanwhile
            security.old_password_hash, security.old_password_until = "", None
            security.save()
        sighting = Sighting(
            "OldPasswordEnded",
            str(Source.GATEWAY),
            now,
            now,
            due.station_id,
            due.station.identity,
            "",
            "the grace ended before the station came with its new password",
        )
        keep(sighting)
        tell(sighting)
        ended += 1
    return ended


# ---------------------------------------------------------------------- security profiles


def upgrade_profile(station: ChargingStation, profile: int, slot: int | None = None) -> dict[str, Any]:
    """Have a connected station move to a higher security profile. It reconnects by itself; then it is its least.

    1.6: the key SecurityProfile. 2.0.1: a network connection profile in `slot`, first in NetworkConfigurationPriority;
    then the station restarts at the next occasion. Raises `CallNotValid` where that would be no step up.
    """
    known = StationSecurity.objects.filter(station=station).first()
    present = max(known.least_profile or 0, known.seen_profile or 0) if known is not None else 0
    if profile <= present:
        raise bus.CallNotValid(f"security profile: it is {present} already, and only goes up")
    if profile == 3 and not station.certificates.filter(revoked_at=None, not_after__gt=timezone.now()).exists():
        raise bus.CallNotValid("security profile: the station has no certificate of ours yet; request one first")
    if profile < 3 and not station.password_hash:
        raise bus.CallNotValid("security profile: the station has no password yet; set one first")
    protocol = protocol_of(station)
    if protocol == V201 and not settings.OCPP_PUBLIC_URL:
        raise bus.CallNotValid("security profile: set OCPP_PUBLIC_URL first, the address the station is told")
    status = "Accepted"
    for call in _DIALECTS[protocol].set_security_profile(profile, settings.OCPP_PUBLIC_URL, slot or 1):
        result = bus.request(station.identity, call[0], call[1], settings.OCPP_CALL_TIMEOUT_S)
        status = _DIALECTS[protocol].set_status(result)
        if status not in _TOOK_IT:
            break
    if status in _TOOK_IT:
        with transaction.atomic():
            security = security_of(station.pk)
            security.wanted_profile = profile
            security.save()
            announce("station", [station.pk])
        by_person(station, "SecurityProfileRaised", f"asked to move to {profile}", timezone.now())
    return {"status": status}


def set_least_profile(
    station: ChargingStation,
    least: int | None,
    reason: str = "",
    *,
    lower: int | None = None,
    lower_until: datetime | None = None,
) -> None:
    """What a station must come in with at least; and what is let in besides until a moment (A1).

    Down only with a reason, which is kept with the change and told as a security event. Raises `StepDown`.
    """
    with transaction.atomic():
        security = security_of(station.pk)
        before = (security.least_profile, security.lower_profile, security.lower_until)
        down = _is_down(security, least) or (lower is not None and (lower, lower_until) != before[1:])
        if down and not reason.strip():
            raise StepDown
        security.least_profile, security.lower_profile, security.lower_until = least, lower, lower_until
        if down:
            security.wanted_profile = None
        security.save()
        update_change_reason(security, reason.strip()[:100] or "least security profile")
        announce("station", [station.pk])
    kind = "SecurityProfileLowered" if down else "SecurityProfileRaised"
    allowed = f", {lower} until {lower_until:%Y-%m-%d %H:%M} UTC" if lower is not None and lower_until else ""
    told = "as the installation asks" if least is None else f"at least {least}"
    by_person(station, kind, f"{told}{allowed}: {reason.strip()}" if reason.strip() else told, timezone.now())


def _is_down(security: StationSecurity, least: int | None) -> bool:
    def asked(value: int | None) -> int:
        return settings.OCPP_LEAST_PROFILE if value is None else value

    return asked(least) < asked(security.least_profile)

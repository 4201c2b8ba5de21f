"""Firmware of one station: asked to fetch an image, followed by what it tells, done when it boots with the new version.

`rollouts.py` decides which station's turn it is; here is what happens to one. A boot with the new version counts even
when every word before it was lost. `told` and `booted` run in the gateway's writer.
"""

from __future__ import annotations

import secrets
from collections.abc import Hashable, Sequence
from datetime import datetime, timedelta
from functools import partial
from pathlib import PurePath

from django.db.models import F, QuerySet
from django.utils.translation import gettext

from csms import bus, calls, station_files
from csms.asking import ERRORS, for_ever, later, why
from csms.models import ChargingStation
from csms.vocabulary import Notice
from csms.workflow_models import UPDATES_UNDER_WAY, FirmwareUpdate

State = FirmwareUpdate.State

FETCH_WITHIN = timedelta(hours=24)
RETRIES, RETRY_S = 3, 60
PAUSES_MIN = (10, 30, 60, 180)
BOOT_WITHIN = timedelta(minutes=10)
"""After *Installed* a station restarts; one that does not, and keeps quiet, is believed."""

_PROGRESS = {
    "DownloadScheduled": State.DOWNLOADING,
    "DownloadPaused": State.DOWNLOADING,
    "Downloading": State.DOWNLOADING,
    "Downloaded": State.DOWNLOADED,
    "SignatureVerified": State.DOWNLOADED,
    "InstallScheduled": State.INSTALLING,
    "Installing": State.INSTALLING,
    "InstallRebooting": State.REBOOTING,
    "Installed": State.REBOOTING,
}
_FAILURES = ("DownloadFailed", "InstallationFailed", "InstallVerificationFailed", "InvalidSignature")
_FINAL = ("InvalidSignature", "InvalidCertificate", "RevokedCertificate")
"""The same image would be refused again."""


def same_version(one: str, other: str) -> bool:
    return one.strip().casefold() == other.strip().casefold() != ""


# ---------------------------------------------------------------------- asking


def ask(update: FirmwareUpdate, now: datetime) -> None:
    """Ask the station to fetch the image now. Says in the record what became of it."""
    station, image = update.station, update.rollout.image
    if not image.url:
        try:
            station_files.must_reach_us(station)
        except station_files.FilesNotPossible as error:
            _end(update, State.FAILED, now, str(error))
            return
    name = PurePath(image.file.name or "").name if image.file else ""
    where = image.url or station_files.address(station_files.FIRMWARE, update.pk, now + FETCH_WITHIN, name)
    update.state, update.status, update.detail = State.ASKED, "", ""
    update.attempts += 1
    update.request_id = secrets.randbelow(2**31 - 1)
    update.from_version = station.firmware_version
    update.asked_at = update.heard_at = now
    update.save()  # before the question: the first word may be here before the answer
    try:
        said, number = _put(station, where, now, update.request_id, image.signature, image.certificate)
    except bus.NoAnswer as error:  # it may have heard us all the same; patience will tell
        _note(update, detail=why(error))
    except bus.StationUnreachable as error:
        _note(update, state=State.WAITING, attempts=F("attempts") - 1, detail=why(error))
    except ERRORS as error:
        update.refresh_from_db()
        attempt_failed(update, now, why(error), final=for_ever(error))
    else:
        _note(update, request_id=number)
        if said not in ("Accepted", "AcceptedCanceled"):
            update.refresh_from_db()
            text = gettext("The station answered: %(said)s") % {"said": said}
            attempt_failed(update, now, text, final=said in _FINAL)


def _put(
    station: ChargingStation, where: str, now: datetime, number: int, signature: str, certificate: str
) -> tuple[str, int | None]:
    """Signed where the image is; a station that knows no signed firmware gets the plain message."""
    ask_plain = partial(calls.update_firmware, station, where, now, RETRIES, RETRY_S, request_id=number)
    try:
        answer = ask_plain(signature=signature or None, certificate=certificate or None)
    except bus.CallRefused as error:
        if not (signature and certificate and for_ever(error)):
            raise
        answer = ask_plain()
    return str(answer["status"]), answer["request_id"]


# ---------------------------------------------------------------------- what the station tells


def told(station_pk: int, notice: Notice) -> None:
    """How far the station is."""
    update = _under_way(station_pk, notice.request_id)
    if update is None or notice.status == "Idle":
        return
    update.status, update.heard_at = notice.status[:40], notice.received
    if notice.status in _FAILURES:
        text = gettext("The station says: %(said)s.") % {"said": notice.status}
        if notice.status == "DownloadFailed" and not update.rollout.image.url:
            text = f"{text} {station_files.ftp_hint(update.station.protocol)}"
        attempt_failed(update, notice.received, text.strip(), final=notice.status in _FINAL)
        return
    if notice.status == "Installed" and same_version(update.station.firmware_version, update.rollout.image.version):
        _end(update, State.DONE, notice.received)
        return
    update.state = _PROGRESS.get(notice.status, update.state)
    update.save(update_fields=["status", "heard_at", "state"])


def locked() -> QuerySet[FirmwareUpdate]:
    """Updates that nobody else moves at the same time: the station's word and the clock may come together."""
    return FirmwareUpdate.objects.select_related("station", "rollout__image").select_for_update(of=("self",))


def _under_way(station_pk: int, request_id: int | None) -> FirmwareUpdate | None:
    """The update a notice speaks of. Plain 1.6 names no request: then it is the one that runs."""
    mine = locked().filter(station_id=station_pk, state__in=UPDATES_UNDER_WAY)
    if request_id is not None:
        mine = mine.filter(request_id=request_id)
    return mine.order_by("-asked_at").first()


UNSURE = (State.WAITING, State.FAILED, *UPDATES_UNDER_WAY)


def all_booted(_key: Hashable, boots: Sequence[tuple[int, str, datetime]]) -> None:
    """Many at once, as after an outage; hardly any of them has an update."""
    updated = set(FirmwareUpdate.objects.filter(state__in=UNSURE).values_list("station_id", flat=True))
    for station_pk, version, at in boots:
        if station_pk in updated:
            booted(station_pk, version, at)


def booted(station_pk: int, version: str, at: datetime) -> None:
    """A station boots: with the new version it is done, whatever was said or lost before."""
    for update in locked().filter(station_id=station_pk, state__in=UNSURE):
        if same_version(version, update.rollout.image.version):
            _end(update, State.DONE, at)
        elif update.status == "Installed" and same_version(version, update.from_version):
            text = gettext("It said that it was installed, and started with the old version.")
            attempt_failed(update, at, text)
        elif update.under_way:
            update.heard_at = at
            update.save(update_fields=["heard_at"])


# ---------------------------------------------------------------------- in time


def look_again(update: FirmwareUpdate, now: datetime) -> None:
    """An update under way: is it there already, or was it silent for too long?"""
    image, patience = update.rollout.image, timedelta(minutes=update.rollout.patience_minutes)
    if same_version(update.station.firmware_version, image.version):
        _end(update, State.DONE, now)
        return
    silent = now - (update.heard_at or update.asked_at or now)
    if update.status == "Installed" and silent > BOOT_WITHIN:
        text = gettext("The station says that it is installed; it still names version %(version)s.")
        _end(update, State.DONE, now, text % {"version": update.station.firmware_version or "?"})
    elif silent > patience:
        text = gettext("Not a word from the station for %(minutes)d minutes.")
        attempt_failed(update, now, text % {"minutes": update.rollout.patience_minutes})


def attempt_failed(update: FirmwareUpdate, now: datetime, text: str, *, final: bool = False) -> None:
    """Another attempt after a pause, or none any more."""
    if final or update.attempts >= update.rollout.attempts:
        _end(update, State.FAILED, now, text)
        return
    update.state, update.detail = State.WAITING, text[:255]
    update.not_before = later(now, update.attempts, PAUSES_MIN)
    update.save(update_fields=["state", "status", "heard_at", "detail", "not_before"])


def _end(update: FirmwareUpdate, state: str, now: datetime, text: str = "") -> None:
    update.state, update.detail, update.ended_at, update.not_before = state, text[:255], now, None
    update.save(update_fields=["state", "status", "heard_at", "detail", "ended_at", "not_before"])


def _note(update: FirmwareUpdate, **changes: object) -> None:
    """Keep these, unless the station's own word was quicker than its answer."""
    FirmwareUpdate.objects.filter(pk=update.pk).filter(state=State.ASKED).update(**changes)


# ---------------------------------------------------------------------- the file


def wanted_file(token: str, now: datetime) -> tuple[int, str] | None:
    """Whose address this is, and where the image's file is; None when it gives nothing (any more)."""
    key = station_files.key_of(station_files.FIRMWARE, token, now)
    if key is None:
        return None
    update = FirmwareUpdate.objects.select_related("rollout__image").filter(pk=key).first()
    if update is None or not update.under_way or not update.rollout.image.file:
        return None
    return update.pk, update.rollout.image.file.path


def fetched(key: int, octets: int, at: datetime) -> None:
    """So many bytes of the image went out to the station: a sign of life."""
    FirmwareUpdate.objects.filter(pk=key, state__in=UPDATES_UNDER_WAY).update(
        fetched_bytes=F("fetched_bytes") + octets, heard_at=at
    )

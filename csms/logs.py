"""Logs of stations: asked for, brought by the station to an address of its own, kept for a while, given to operators.

A file is whatever a station sends: it is never opened, shown or run here, only kept under a name of ours and given
back as a download. What a station tells of the upload (LogStatusNotification, or DiagnosticsStatusNotification in 1.6)
moves the state; the file itself, once it is here, settles it.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from django.conf import settings
from django.db.models import Q
from django.utils import timezone
from django.utils.translation import gettext

from csms import bus, calls, station_files
from csms.asking import why
from csms.models import ChargingStation
from csms.vocabulary import Notice
from csms.workflow_models import LogRequest

if TYPE_CHECKING:
    from django.contrib.auth.models import User

State = LogRequest.State

OPEN = (State.ASKED, State.UPLOADING)
UPLOAD_WITHIN = timedelta(hours=6)
PATIENCE = timedelta(minutes=60)
PORTION = 1024 * 1024
RETRIES, RETRY_S = 3, 60
_FAILURES = ("UploadFailure", "BadMessage", "NotSupportedOperation", "PermissionDenied", "AcceptedCanceled")
log = logging.getLogger(__name__)


def folder() -> Path:
    """Where the files are; made when needed, for this user only."""
    path = Path(settings.DATA_DIR) / "station-logs"
    path.mkdir(parents=True, exist_ok=True, mode=0o700)
    return path


def path_of(request: LogRequest) -> Path | None:
    """The file of a request that has one."""
    if not request.file:
        return None
    path = folder() / Path(request.file).name
    return path if path.is_file() else None


# ---------------------------------------------------------------------- asking


def fetch(
    station: ChargingStation,
    kind: str = LogRequest.Kind.DIAGNOSTICS,
    oldest: datetime | None = None,
    latest: datetime | None = None,
    elsewhere: str = "",
    by: User | None = None,
    now: datetime | None = None,
) -> LogRequest:
    """Ask a station for a log. `elsewhere`: a server of the operator's own, which we never look at.

    Raises what `calls` raises, and `station_files.FilesNotPossible`; then nothing is left behind.
    """
    now = now or timezone.now()
    if not elsewhere:
        station_files.must_reach_us(station)
    request = LogRequest.objects.create(
        station=station,
        kind=kind,
        oldest=oldest,
        latest=latest,
        elsewhere=station_files.without_password(elsewhere),
        by=by,
        asked_at=now,
        request_id=secrets.randbelow(2**31 - 1),
        upload_until=now + UPLOAD_WITHIN,
    )
    where = elsewhere or station_files.address(station_files.LOG, request.pk, request.upload_until)
    try:
        answer = calls.fetch_log(
            station, where, str(kind), oldest, latest, request.request_id, retries=RETRIES, retry_interval_s=RETRY_S
        )
    except bus.NoAnswer as error:  # it may have heard us all the same
        _note(request, detail=why(error))
        return request
    except Exception:
        request.delete()
        raise
    _answered(request, answer)
    return request


def _answered(request: LogRequest, answer: dict[str, object]) -> None:
    said = str(answer.get("status", ""))
    name = str(answer.get("file_name") or "")
    number = answer.get("request_id")
    changes: dict[str, object] = {"request_id": number}
    if name:
        changes["file_name"] = station_files.safe_name(name, "")
    if said in ("Rejected", "NotSupported"):
        changes |= {"state": State.REFUSED, "detail": gettext("The station answered: %(said)s") % {"said": said}}
    elif said == "AcceptedCanceled":
        others = LogRequest.objects.filter(station=request.station, state__in=OPEN).exclude(pk=request.pk)
        others.update(state=State.FAILED, detail=gettext("A later request took its place."))
    elif number is None and not name:
        # 1.6 GetDiagnostics without a file name: there is nothing to upload (§5.10). Some upload all the same.
        changes["detail"] = gettext("The station named no file; it may have nothing to send.")
    _note(request, **changes)


def _note(request: LogRequest, **changes: object) -> None:
    """Keep what changed and nothing else: the station's own words may be written at the same time."""
    for name, value in changes.items():
        setattr(request, name, value)
    LogRequest.objects.filter(pk=request.pk).update(**changes)


# ---------------------------------------------------------------------- what the station tells


def told(station_pk: int, notice: Notice) -> None:
    """How far the station is. Runs in the gateway's writer."""
    requests = LogRequest.objects.filter(station_id=station_pk).exclude(state=State.DELETED)
    if notice.request_id is not None:
        request = requests.filter(request_id=notice.request_id).order_by("-pk").first()
    else:
        # The file may have been quicker than the word of it, which then still belongs to it.
        unfinished = Q(state__in=OPEN) | Q(state=State.UPLOADED, status__in=["", "Uploading"])
        request = requests.filter(unfinished).order_by("-pk").first()
    if request is None or notice.status == "Idle":
        return
    _note(request, status=notice.status[:40], heard_at=notice.received)
    if request.state in OPEN:
        # Only from the state it was read in: the file may arrive meanwhile, in another process, and settles it.
        still = LogRequest.objects.filter(pk=request.pk, state=request.state)
        still.update(**_progress(request, notice.status))


def _progress(request: LogRequest, status: str) -> dict[str, object]:
    if status == "Uploading":
        return {"state": State.UPLOADING, "detail": ""}
    if status == "Uploaded" and request.elsewhere:
        return {"state": State.ELSEWHERE, "detail": ""}
    if status == "Uploaded":
        text = gettext("The station says that it has uploaded the log, but no file came here.")
        return {"state": State.UPLOADING, "detail": text}
    if status in _FAILURES:
        hint = "" if request.elsewhere else station_files.ftp_hint(request.station.protocol)
        text = gettext("The station says: %(said)s.") % {"said": status}
        return {"state": State.FAILED, "detail": f"{text} {hint}".strip()[:255]}
    return {}


# ---------------------------------------------------------------------- the file


@dataclass(frozen=True, slots=True)
class Expected:
    """A file that may be brought now."""

    key: int
    part: Path
    most_bytes: int


def expected(token: str, now: datetime) -> Expected | None:
    """Whose address this is, if a file may still come. Each attempt writes to a part of its own."""
    key = station_files.key_of(station_files.LOG, token, now)
    request = LogRequest.objects.filter(pk=key).first() if key is not None else None
    if request is None or not request.takes_a_file(now):
        return None
    part = folder() / f"{request.pk}-{secrets.token_hex(8)}.part"
    return Expected(request.pk, part, settings.LOG_UPLOAD_MAX_MB * 1_000_000)


def arrived(key: int, part: Path, digest: str, name: str, now: datetime) -> bool:
    """A whole file is there: keep it as the request's, once. False when another one came before it."""
    stored = part.with_suffix(".log").name
    request = LogRequest.objects.select_related("station").filter(pk=key).first()
    if request is None:
        return False
    size = part.stat().st_size
    otherwise = (
        request.file_name or f"{station_files.safe_name(request.station.identity, 'station')}-{request.kind}.log"
    )
    changed = LogRequest.objects.filter(pk=key, uploaded_at=None).update(
        state=State.UPLOADED,
        detail="" if size else gettext("The file is empty."),
        file=stored,
        file_name=station_files.safe_name(name, otherwise),
        size=size,
        sha256=digest,
        uploaded_at=now,
    )
    if not changed:
        return False
    part.rename(part.with_suffix(".log"))
    return True


def digest_of(path: Path) -> str:
    """SHA-256 of a file of any size."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(PORTION):
            digest.update(block)
    return digest.hexdigest()


# ---------------------------------------------------------------------- in time


def give_up(now: datetime | None = None) -> int:
    """Requests of which nothing was heard for too long have failed; how many. A file that comes late still counts."""
    now = now or timezone.now()
    silent = 0
    for request in LogRequest.objects.filter(state__in=OPEN, asked_at__lt=now - PATIENCE).select_related("station"):
        if now - (request.heard_at or request.asked_at) < PATIENCE:
            continue
        hint = "" if request.elsewhere else station_files.ftp_hint(request.station.protocol)
        text = request.detail or gettext("Nothing was heard of it for an hour.")
        changed = LogRequest.objects.filter(pk=request.pk, state=request.state).update(
            state=State.FAILED, detail=f"{text} {hint}".strip()[:255]
        )
        silent += changed
    return silent


def forget(request: LogRequest) -> None:
    """Delete the file; the record stays."""
    path = path_of(request)
    if path is not None:
        path.unlink(missing_ok=True)
    _note(request, state=State.DELETED, file="")


def tidy(now: datetime | None = None) -> int:
    """Delete files older than they are kept, and parts of uploads that never ended; how many files."""
    now = now or timezone.now()
    old = LogRequest.objects.filter(uploaded_at__lt=now - timedelta(days=settings.LOG_KEEP_DAYS)).exclude(file="")
    count = 0
    for request in old:
        forget(request)
        count += 1
    for part in folder().glob("*.part"):
        with contextlib.suppress(OSError):
            if now.timestamp() - part.stat().st_mtime > UPLOAD_WITHIN.total_seconds():
                part.unlink()
    return count

"""Files that stations fetch from us or bring to us: where, and under which names.

Stations cannot log in to the web, so each errand has an address nobody can guess, which ends by itself. The address is
signed, not stored: who reads the database or a backup learns none. `webapp/station_files.py` answers there.
"""

from __future__ import annotations

import re
import unicodedata
from datetime import UTC, datetime
from pathlib import PurePath, PureWindowsPath
from urllib.parse import quote, urlsplit

from django.conf import settings
from django.core import signing
from django.db.models import Q
from django.utils.translation import gettext

from csms import bus
from csms.models import ChargingStation, StationVariable

FIRMWARE, LOG = "firmware", "log"
PATH = "/station-files/"
_TOKEN = re.compile(r"([0-9a-f]{1,16})\.([0-9a-f]{1,12})\.([A-Za-z0-9_-]{43})")
_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")
LONGEST_NAME = 80


class FilesNotPossible(bus.CallNotValid):
    """This station cannot fetch or bring files in the way we have."""


def address(kind: str, key: int, until: datetime, name: str = "") -> str:
    """The whole address of one errand: the firmware or the log of this key, until then."""
    token = f"{key:x}.{int(until.timestamp()):x}"
    signed = f"{token}.{signing.Signer(salt=f'station-files.{kind}').signature(token)}"
    return f"{settings.STATION_FILES_URL.rstrip('/')}{PATH}{kind}/{signed}" + (f"/{quote(name)}" if name else "")


def key_of(kind: str, token: str, now: datetime) -> int | None:
    """Whose errand an address is; None for one we never gave, or that is over."""
    match = _TOKEN.fullmatch(token)
    if match is None:
        return None
    said = signing.Signer(salt=f"station-files.{kind}")
    try:
        said.unsign(f"{match[1]}.{match[2]}{said.sep}{match[3]}")
    except signing.BadSignature:
        return None
    until = datetime.fromtimestamp(int(match[2], 16), UTC)
    return int(match[1], 16) if now < until else None


def safe_name(told: str, otherwise: str) -> str:
    """A file name as we keep and give it: the last part only, plain letters, no leading dot."""
    last = PureWindowsPath(PurePath(told.replace("\x00", "")).name).name
    plain = unicodedata.normalize("NFKD", last).encode("ascii", "ignore").decode()
    name = _UNSAFE.sub("_", plain).strip("._-")
    if len(name) > LONGEST_NAME:
        stem, dot, ending = name.rpartition(".")
        name = f"{stem[: LONGEST_NAME - 12]}.{ending[:10]}" if dot else name[:LONGEST_NAME]
    return name or otherwise


def protocols_of(station: ChargingStation) -> set[str]:
    """How the station can move files (HTTP, HTTPS, FTP, FTPS, SFTP); empty: it does not say."""
    rows = StationVariable.objects.filter(station=station, attribute="Actual").filter(
        Q(component="", variable__iexact="SupportedFileTransferProtocols")
        | Q(component__iexact="OCPPCommCtrlr", variable__iexact="FileTransferProtocols")
    )
    words = {word.strip(' "').upper() for row in rows for word in row.value.split(",")}
    return words - {""}


def must_reach_us(station: ChargingStation) -> None:
    """Raise `FilesNotPossible` where the station cannot find our own address, or does not speak what it needs."""
    ours = urlsplit(settings.STATION_FILES_URL)
    if _is_here(ours.hostname or "") and station.address and not _is_here(station.address):
        text = gettext("the address for files, %(url)s, leads nowhere from a station; set STATION_FILES_URL.")
        raise FilesNotPossible(text % {"url": settings.STATION_FILES_URL})
    able, needed = protocols_of(station), ours.scheme.upper()
    if not able or needed in able:
        return
    text = gettext(
        "this station moves files by %(able)s only, and the address here needs %(needed)s. "
        "Give the address of a server of your own instead, such as ftp://user:password@host/path."
    )
    raise FilesNotPossible(text % {"able": ", ".join(sorted(able)), "needed": needed})


def _is_here(host: str) -> bool:
    """Does this name mean the machine itself?"""
    return host in ("localhost", "::1", "unknown") or host.startswith("127.")


def ftp_hint(protocol: str) -> str:
    """Why a transfer by HTTP may have failed."""
    if protocol != "ocpp1.6":
        return ""
    return gettext("Many OCPP 1.6 stations move files by FTP only: then give the address of an FTP server.")


def without_password(url: str) -> str:
    """An address as it may be kept and shown."""
    return re.sub(r"(://)[^/\s@]*@", r"\1••••••@", url)

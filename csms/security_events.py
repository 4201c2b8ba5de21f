"""Security events: what a station tells, what the door sees, what a person does. Kept, counted, and told to the log.

Each goes out as one line of JSON on the logger `security`, for a collector of such things (RFC 5424 or JSON). What
repeats at the door (a thousand wrong passwords) is one row with a count per minute: a flood at the door must not
become a flood in the database.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from csms.models import ChargingStation
from csms.security_models import SecurityEvent

log = logging.getLogger("security")

Criticality = SecurityEvent.Criticality
Source = SecurityEvent.Source

TOGETHER_S = 60
SUBJECTS = 1_000
FROM_ONE_STATION_PER_MINUTE = 30

# What is told by a station (OCPP security events list), and by ourselves at the door.
_CRITICAL = frozenset(
    {
        "AttemptedReplayAttacks",
        "InvalidCentralSystemCertificate",
        "InvalidCsmsCertificate",
        "InvalidFirmwareSignature",
        "InvalidFirmwareSigningCertificate",
        "MaintenanceLoginFailed",
        "MemoryExhaustion",
        "SecurityLogWasCleared",
        "TamperDetectionActivated",
        "CertificateRevoked",
        "CertificateOfAnother",
    }
)
_WARNING = frozenset(
    {
        "CentralSystemFailedToAuthenticate",
        "CsmsFailedToAuthenticate",
        "FailedToAuthenticateAtCentralSystem",
        "FailedToAuthenticateAtCsms",
        "InvalidChargePointCertificate",
        "InvalidChargingStationCertificate",
        "InvalidMessages",
        "InvalidTLSCipherSuite",
        "InvalidTLSVersion",
        "MaintenanceLoginAccepted",
        "ReconfigurationOfSecurityParameters",
        "LoginFailed",
        "LowerSecurityProfile",
        "CertificateRefused",
        "CertificateRequestRefused",
        "CertificateExpired",
        "HeaderSpoofed",
        "TlsHandshakeFailed",
        "SecurityProfileLowered",
        "OldPasswordEnded",
    }
)
KNOWN = _CRITICAL | _WARNING | {"FirmwareUpdated", "SettingSystemTime", "StartupOfTheDevice", "ResetOrReboot"}
"""Kinds that are counted by their own name; a station may invent others without end."""


def criticality_of(kind: str) -> str:
    if kind in _CRITICAL:
        return str(Criticality.CRITICAL)
    return str(Criticality.WARNING if kind in _WARNING else Criticality.INFO)


@dataclass(frozen=True, slots=True)
class Sighting:
    """One event to keep."""

    kind: str
    source: str
    at: datetime
    received: datetime
    station_pk: int | None = None
    identity: str = ""
    address: str = ""
    detail: str = ""
    count: int = 1


def keep(sighting: Sighting) -> None:
    """Write it down (in the gateway's writer, or in a request)."""
    station = sighting.station_pk
    if station is not None and not ChargingStation.objects.filter(pk=station).exists():
        station = None
    SecurityEvent.objects.create(
        station_id=station,
        identity=_plain(sighting.identity, 255),
        source=sighting.source,
        kind=_plain(sighting.kind, 50),
        criticality=criticality_of(sighting.kind),
        at=sighting.at,
        received_at=sighting.received,
        address=_plain(sighting.address, 64),
        count=sighting.count,
        detail=_plain(sighting.detail, 255),
    )


def tell(sighting: Sighting) -> None:
    """One line of JSON, at the level of its weight."""
    weight = criticality_of(sighting.kind)
    level = {Criticality.CRITICAL: logging.ERROR, Criticality.WARNING: logging.WARNING}.get(
        Criticality(weight), logging.INFO
    )
    body: dict[str, Any] = {
        "event": sighting.kind,
        "weight": weight,
        "source": sighting.source,
        "station": sighting.identity,
        "address": sighting.address,
        "at": sighting.at.isoformat(),
        "received": sighting.received.isoformat(),
        "times": sighting.count,
        "detail": sighting.detail,
    }
    log.log(level, json.dumps({name: value for name, value in body.items() if value not in ("", None)}))


def by_person(station: ChargingStation, kind: str, detail: str, now: datetime) -> None:
    """What somebody did to a station's security."""
    sighting = Sighting(kind, str(Source.PERSON), now, now, station.pk, station.identity, "", detail)
    keep(sighting)
    tell(sighting)


def tidy(before: datetime) -> int:
    """Forget what is older; how many."""
    return SecurityEvent.objects.filter(received_at__lt=before).delete()[0]


class Watch:
    """The gateway's eye: takes sightings, tells each kind of each subject once a minute, and hands rows to `write`."""

    def __init__(self, write: Callable[[Sighting], None]) -> None:
        self._write = write
        self._seen: dict[tuple[str, str, str], tuple[datetime, Sighting, int]] = {}
        self._told: dict[int, tuple[datetime, int]] = {}
        self._flushed = datetime.min.replace(tzinfo=UTC)
        self.counts: dict[str, int] = {}

    def see(
        self,
        kind: str,
        now: datetime,
        *,
        station_pk: int | None = None,
        identity: str = "",
        address: str = "",
        detail: str = "",
    ) -> None:
        """At the door. The first of a minute is written at once; what repeats is written with its count by `flush`."""
        self._count(kind)
        subject = (kind, identity if station_pk is not None else "", address)
        sighting = Sighting(kind, str(Source.GATEWAY), now, now, station_pk, identity, address, detail)
        before = self._seen.get(subject)
        if before is not None and now - before[0] < timedelta(seconds=TOGETHER_S):
            self._seen[subject] = (before[0], sighting, before[2] + 1)
            return
        if before is not None:
            self.flush(now)
        if len(self._seen) >= SUBJECTS and now - self._flushed >= timedelta(seconds=1):
            self.flush(now)
        if len(self._seen) >= SUBJECTS:
            return  # counted, and in the log of those that came before: enough to see the flood
        self._seen[subject] = (now, sighting, 0)
        self._out(sighting)

    def hear(self, sighting: Sighting) -> bool:
        """Told by a station. False: it tells too many, this one is only counted."""
        self._count(sighting.kind)
        since, told = self._told.get(sighting.station_pk or 0, (sighting.received, 0))
        if sighting.received - since >= timedelta(seconds=TOGETHER_S):
            since, told = sighting.received, 0
        self._told[sighting.station_pk or 0] = (since, told + 1)
        if told >= FROM_ONE_STATION_PER_MINUTE:
            return False
        self._out(sighting)
        return True

    def flush(self, now: datetime, *, everything: bool = False) -> None:
        """Write the counts of minutes that are over, or of all."""
        self._flushed = now
        minute = timedelta(seconds=0 if everything else TOGETHER_S)
        over = [s for s, (since, _, _) in self._seen.items() if now - since >= minute]
        for subject in over:
            _, last, more = self._seen.pop(subject)
            if more:
                self._out(
                    Sighting(
                        last.kind,
                        last.source,
                        last.at,
                        now,
                        last.station_pk,
                        last.identity,
                        last.address,
                        last.detail,
                        more,
                    )
                )
        self._told = {pk: seen for pk, seen in self._told.items() if now - seen[0] < timedelta(seconds=TOGETHER_S)}

    def _out(self, sighting: Sighting) -> None:
        tell(sighting)
        self._write(sighting)

    def _count(self, kind: str) -> None:
        if kind in self.counts or len(self.counts) < 200:
            self.counts[kind] = self.counts.get(kind, 0) + 1


def _plain(text: str, length: int) -> str:
    return text.replace("\x00", "")[:length]

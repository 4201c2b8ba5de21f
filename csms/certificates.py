"""Certificates of stations: signed when they ask, renewed in time, revoked, and the roots they trust.

The gateway's part is the desk: it takes a station's request, has it signed, and hands the certificate over; once an
hour it asks the stations whose certificate ends within 30 days for a new request. The verbs below it are for people.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

from cryptography import x509
from django.conf import settings
from django.db import transaction
from django.db.models import Max
from django.utils import timezone

from csms import authority, bus, credentials, security_events
from csms.authority import NoAuthority, RequestNotGood, Signed
from csms.bus import CallNotValid, CallRefused, NoAnswer, StationUnreachable
from csms.changes import announce
from csms.memory import Memory
from csms.models import ChargingStation
from csms.ocpp16 import security as security16
from csms.ocpp201 import security as security201
from csms.rpc import UNASKED
from csms.schemas import V16, V201
from csms.security_events import Sighting, Source, Watch, by_person
from csms.security_models import InstalledCertificate, StationCertificate, StationSecurity
from csms.speaking import protocol as protocol_of
from csms.vocabulary import CertificateHash, moment
from csms.writer import Writer

if TYPE_CHECKING:
    from csms.session import Session

log = logging.getLogger(__name__)

RENEW_BEFORE = timedelta(days=30)
ASK_AGAIN_AFTER = timedelta(days=1)
RENEWALS_A_ROUND = 50
SIGNED_A_DAY = 6
ANSWER_FIRST_S = 0.05
STATION_USE = "ChargingStationCertificate"
_DIALECTS: Mapping[str, Any] = {V16: security16, V201: security201}
_GONE = (StationUnreachable, NoAnswer, CallRefused, CallNotValid)


class Desk:
    """Where a gateway's stations bring their requests and their security events."""

    def __init__(self, memory: Memory, writer: Writer, watch: Watch) -> None:
        self._memory = memory
        self._writer = writer
        self._watch = watch
        self._signing: set[str] = set()

    # ------------------------------------------------------------------ what stations bring

    def hear(self, session: Session, payload: Mapping[str, Any]) -> None:
        """A security event a station tells. A flood of them is counted, not kept."""
        now = session.now()
        kind, told, detail = _DIALECTS[session.speaks.NAME].event(payload)
        sighting = Sighting(
            kind,
            str(Source.STATION),
            moment(told, now).at,
            now,
            session.record.pk,
            session.identity,
            "",
            detail,
        )
        session.count(f"security_{kind}" if kind in security_events.KNOWN else "security_event")
        self._watch.hear(sighting)

    async def sign(self, session: Session, payload: Mapping[str, Any]) -> dict[str, Any]:
        """Answer a request for a certificate; what is accepted is handed over right after the answer."""
        speaks = _DIALECTS[session.speaks.NAME]
        text, use = speaks.request_of(payload)
        try:
            signed = await self._sign(session, text, use)
        except (RequestNotGood, NoAuthority) as error:
            self._refused(session, str(error))
            answer: dict[str, Any] = speaks.signing(False, str(error))
            return answer
        session.spawn(self._hand_over(session, signed, use))
        accepted: dict[str, Any] = speaks.signing(True)
        return accepted

    async def _sign(self, session: Session, text: str, use: str) -> Signed:
        record = session.record
        if not record.accepted:
            raise RequestNotGood("this station is not accepted")
        if use != STATION_USE:
            raise RequestNotGood(f"{use}: this installation signs station certificates only")
        if record.identity in self._signing:
            raise RequestNotGood("its last request is still being signed")
        self._signing.add(record.identity)
        try:
            if await self._memory.read(partial(signed_lately, record.pk)) >= SIGNED_A_DAY:
                raise RequestNotGood("too many requests today")
            others = [name for name in self._memory.stations if name != record.identity]
            signed = await asyncio.to_thread(
                authority.sign_station,
                text,
                record.identity,
                record.serial_number,
                others,
                settings.OCPP_CPO_NAME,
                session.now(),
                settings.OCPP_CERTIFICATE_DAYS,
            )
            await session.write(partial(keep_signed, record.pk, record.identity, signed, session.now()))
            return signed
        finally:
            self._signing.discard(record.identity)

    async def _hand_over(self, session: Session, signed: Signed, use: str) -> None:
        await asyncio.sleep(ANSWER_FIRST_S)
        speaks = _DIALECTS[session.speaks.NAME]
        state = StationCertificate.State.UNSENT
        try:
            result = await session.ask(speaks.certificate_signed(signed.pem, use))
            accepted = speaks.set_status(result) == "Accepted"
            state = StationCertificate.State.ACCEPTED if accepted else StationCertificate.State.REFUSED
        except _GONE as error:
            log.warning("%s did not take its certificate: %s", session.identity, error)
        session.post(partial(handed_over, signed.fingerprint, str(state)))

    def _refused(self, session: Session, why: str) -> None:
        now = session.now()
        self._watch.see(
            "CertificateRequestRefused", now, station_pk=session.record.pk, identity=session.identity, detail=why
        )

    # ------------------------------------------------------------------ duties of every hour

    async def hourly(self, sessions: Iterable[Session]) -> None:
        """Ask for renewals, keep the list of revoked certificates young, end old passwords, forget old events."""
        now = datetime.now(UTC)
        await self.renew(sessions, now)
        if authority.exists():
            await self._memory.read(partial(refresh_crl, now))
        self._writer.post(partial(credentials.end_old_passwords, now))
        kept = timedelta(days=settings.SECURITY_EVENT_KEEP_DAYS)
        self._writer.post(partial(security_events.tidy, now - kept))

    async def renew(self, sessions: Iterable[Session], now: datetime) -> int:
        """Ask the stations here whose certificate ends soon for a new request; how many were asked."""
        here = {s.record.pk: s for s in sessions if s.may_be_asked}
        due = await self._memory.read(partial(due_for_renewal, list(here), now))
        for pk in due[:RENEWALS_A_ROUND]:
            session = here[pk]
            session.post(partial(renewal_asked, pk, now))
            session.spawn(session.ask(_DIALECTS[session.speaks.NAME].request_renewal(), rank=UNASKED))
        return len(due[:RENEWALS_A_ROUND])


# ---------------------------------------------------------------------- on the database


def signed_lately(station_pk: int) -> int:
    since = timezone.now() - timedelta(days=1)
    return StationCertificate.objects.filter(station_id=station_pk, signed_at__gte=since).count()


def keep_signed(station_pk: int, identity: str, signed: Signed, at: datetime) -> None:
    StationCertificate.objects.create(
        station_id=station_pk,
        identity=identity,
        serial=signed.serial,
        issuer=signed.issuer,
        subject=signed.subject,
        fingerprint=signed.fingerprint,
        not_before=signed.not_before,
        not_after=signed.not_after,
        signed_at=at,
        pem=signed.pem,
    )


def handed_over(fingerprint: str, state: str) -> None:
    StationCertificate.objects.filter(fingerprint=fingerprint).update(state=state)


def due_for_renewal(stations: list[int], now: datetime) -> list[int]:
    """Those of these stations whose newest certificate ends within 30 days, and who were not asked today."""
    ends = (
        StationCertificate.objects.filter(station_id__in=stations, revoked_at=None, not_after__gt=now)
        .exclude(state=StationCertificate.State.REFUSED)
        .values("station_id")
        .annotate(end=Max("not_after"))
        .filter(end__lt=now + RENEW_BEFORE)
        .order_by("end")
    )
    asked = StationSecurity.objects.filter(station_id__in=stations, renewal_asked_at__gt=now - ASK_AGAIN_AFTER)
    lately = set(asked.values_list("station_id", flat=True))
    return [row["station_id"] for row in ends if row["station_id"] not in lately]


def renewal_asked(station_pk: int, at: datetime) -> None:
    with suppress(ChargingStation.DoesNotExist), transaction.atomic():
        security = credentials.security_of(station_pk)
        StationSecurity.objects.filter(pk=security.pk).update(renewal_asked_at=at)


def refresh_crl(now: datetime, *, anyway: bool = False) -> None:
    """Write the list of revoked certificates anew, when it is due or something was revoked."""
    if anyway or authority.crl_is_old(now):
        revoked = StationCertificate.objects.filter(revoked_at__isnull=False, not_after__gt=now)
        authority.write_crl([(serial, at) for serial, at in revoked.values_list("serial", "revoked_at") if at], now)


# ---------------------------------------------------------------------- for people


def revoke(certificate: StationCertificate, reason: str, now: datetime) -> None:
    """From now on the station is not let in with it, and is shown out if it came with it."""
    with transaction.atomic():
        found = StationCertificate.objects.select_for_update().get(pk=certificate.pk)
        if found.revoked:
            return
        found.revoked_at, found.reason = now, reason[:200]
        found.save(update_fields=["revoked_at", "reason"])
        if found.station is not None:
            by_person(found.station, "CertificateWasRevoked", f"serial {found.serial}: {reason}", now)
            announce("station", [found.station.pk])
    if authority.exists():
        refresh_crl(now, anyway=True)


def request_renewal(station: ChargingStation) -> dict[str, Any]:
    """Have the station make a new key and ask for a certificate."""
    return _ask(station, _speaks(station).request_renewal())


def install(station: ChargingStation, use: str, pem: str) -> dict[str, Any]:
    """Give the station a root to trust. `use` is a word of 2.0.1: CSMSRootCertificate, V2GRootCertificate …"""
    speaks = _speaks(station)
    if use not in speaks.USES:
        raise CallNotValid(f"use: this station's dialect has {', '.join(speaks.USES)}")
    try:
        certificate = x509.load_pem_x509_certificate(pem.encode())
    except ValueError:
        raise CallNotValid("certificate: one certificate in PEM") from None
    if len(pem) > speaks.LONGEST_CERTIFICATE:
        raise CallNotValid(f"certificate: at most {speaks.LONGEST_CERTIFICATE} characters")
    if certificate.not_valid_after_utc <= timezone.now():
        raise CallNotValid("certificate: it has ended")
    answer = _ask(station, speaks.install_certificate(use, pem))
    if answer["status"] == "Accepted":
        by_person(station, "CertificateInstalled", f"{use}: {certificate.subject.rfc4514_string()}", timezone.now())
    return answer


def fetch_installed(station: ChargingStation, use: str | None = None) -> dict[str, Any]:
    """Ask which certificates the station holds, and keep what it says."""
    speaks = _speaks(station)
    found: list[tuple[str, CertificateHash]] = []
    status = "NotFound"
    for call in speaks.installed_certificates(use):
        result = bus.request(station.identity, call[0], call[1], settings.OCPP_CALL_TIMEOUT_S)
        if str(result.get("status")) == "Accepted":
            status = "Accepted"
        found += speaks.installed(call, result)
    keep_installed(station, found, use, timezone.now())
    return {"status": status, "certificates": [{"use": u, **h.told()} for u, h in found]}


def keep_installed(
    station: ChargingStation, found: list[tuple[str, CertificateHash]], use: str | None, now: datetime
) -> None:
    """What a station holds is what it said last: what it names no more is gone."""
    with transaction.atomic():
        before = InstalledCertificate.objects.filter(station=station)
        if use:
            before = before.filter(use=use)
        before.delete()
        rows = {
            (u, h): InstalledCertificate(
                station=station,
                use=u[:40],
                hash_algorithm=h.algorithm[:6],
                issuer_name_hash=h.issuer_name_hash[:128],
                issuer_key_hash=h.issuer_key_hash[:128],
                serial=h.serial[:40],
                seen_at=now,
            )
            for u, h in found
        }
        InstalledCertificate.objects.bulk_create(rows.values(), ignore_conflicts=True)


def delete_installed(certificate: InstalledCertificate) -> dict[str, Any]:
    """Have the station forget a certificate."""
    station = certificate.station
    which = CertificateHash(
        certificate.hash_algorithm, certificate.issuer_name_hash, certificate.issuer_key_hash, certificate.serial
    )
    answer = _ask(station, _speaks(station).delete_certificate(which))
    if answer["status"] in ("Accepted", "NotFound"):
        certificate.delete()
        by_person(station, "CertificateDeleted", f"{certificate.use} {certificate.serial}", timezone.now())
    return answer


def _speaks(station: ChargingStation) -> Any:
    return _DIALECTS[protocol_of(station)]


def _ask(station: ChargingStation, call: tuple[str, dict[str, Any]]) -> dict[str, Any]:
    result = bus.request(station.identity, call[0], call[1], settings.OCPP_CALL_TIMEOUT_S)
    return {"status": str(result.get("status", ""))}

"""Certificates: asked for, signed, handed over, renewed in time, refused where they must be; and roots in stations."""

from __future__ import annotations

import base64
import stat
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509 import ocsp
from django.core.management import call_command

from csms import authority, bus, certificates, iso15118
from csms import ocsp as ocsp_provider
from csms.authority import RequestNotGood
from csms.iso15118 import AskedCertificate, NoProvider
from csms.models import ChargingStation, IdToken
from csms.security_models import InstalledCertificate, SecurityEvent, StationCertificate
from csms.showing import by_proxy
from csms.vocabulary import CertificateHash
from tests.csms.charge_point import V16, V201, running, station, written
from tests.csms.doors import Pki, accepted, doors, now, over_tls, pki
from tests.csms.test_gateway import eventually

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("authority")


@pytest.fixture
def ca(settings: Any, folder: Path) -> Pki:
    if not hasattr(ca, "made"):
        ca.made = pki(settings, folder)  # type: ignore[attr-defined]
    settings.OCPP_CA_DIR = folder
    return ca.made  # type: ignore[attr-defined, no-any-return]


# ---------------------------------------------------------------------- the authority


def test_a_certificate_names_the_station_and_its_key_is_the_stations_own(ca: Pki) -> None:
    request, key = ca.request("CS 1/é")
    signed = authority.sign_station(request, "CS 1/é", "", (), "", now(), 365)
    made = x509.load_pem_x509_certificate(signed.pem.encode())
    root = x509.load_pem_x509_certificate(authority.root_pem().encode())
    made.verify_directly_issued_by(root)
    assert made.public_key() == key.public_key()
    shown = by_proxy(signed.pem)
    assert shown is not None and shown.names == ("CS 1/é",)
    assert signed.not_after - now() > timedelta(days=364)
    assert made.extensions.get_extension_for_class(x509.BasicConstraints).value.ca is False


def test_the_authoritys_key_is_a_file_that_only_its_owner_reads(ca: Pki) -> None:
    for name in ("ca.key", "server-rsa.key", "server-ecdsa.key"):
        assert stat.S_IMODE((authority.folder() / name).stat().st_mode) == 0o600
    with pytest.raises(FileExistsError):
        authority.make_authority("another", now())


def csr(common: Sequence[str], key: Any, algorithm: Any = None) -> str:
    from cryptography.hazmat.primitives.serialization import Encoding

    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, c) for c in common])
    made = x509.CertificateSigningRequestBuilder().subject_name(name).sign(key, algorithm)
    return made.public_bytes(Encoding.PEM).decode()


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (lambda: "", "empty"),
        (lambda: "x" * 9000, "too long"),
        (lambda: "not a request", "cannot be read"),
        (lambda: csr(["CS-1"], rsa.generate_private_key(65537, 1024), hashes.SHA256()), "1024 bits"),  # noqa: S505
        (lambda: csr(["CS-1"], ec.generate_private_key(ec.SECP192R1()), hashes.SHA256()), "secp192r1"),
        (lambda: csr(["CS-1"], ed25519.Ed25519PrivateKey.generate()), "neither RSA"),
        (lambda: csr(["CS-2"], ec.generate_private_key(ec.SECP256R1()), hashes.SHA256()), "not this station"),
        (lambda: csr(["CS-1", "CS-2"], ec.generate_private_key(ec.SECP256R1()), hashes.SHA256()), "one common name"),
        (lambda: csr(["SERIAL-2"], ec.generate_private_key(ec.SECP256R1()), hashes.SHA256()), "not this station"),
    ],
)
def test_a_request_that_is_weak_or_names_another_is_not_signed(ca: Pki, text: Any, why: str) -> None:
    with pytest.raises(RequestNotGood, match=why):
        authority.sign_station(text(), "CS-1", "SERIAL-2", ("SERIAL-2", "CS-2"), "", now(), 365)


def test_a_request_whose_signature_was_tampered_with_is_not_signed(ca: Pki) -> None:
    request, _ = ca.request("CS-1")
    body = bytearray(base64.b64decode("".join(request.splitlines()[1:-1])))
    body[-1] ^= 1
    with pytest.raises(RequestNotGood):
        authority.read_request(base64.b64encode(bytes(body)).decode())


def test_the_serial_number_is_a_good_common_name_and_the_identity_is_what_counts(ca: Pki) -> None:
    request, _ = ca.request("SN-77")
    signed = authority.sign_station(request, "CS-1", "SN-77", (), "", now(), 365)
    shown = by_proxy(signed.pem)
    assert "SN-77" in signed.subject and shown is not None and shown.names == ("CS-1",)


def test_the_organisation_must_be_ours_where_one_is_set(ca: Pki) -> None:
    ours, _ = ca.request("CS-1", organisation="Campus CPO")
    theirs, _ = ca.request("CS-1", organisation="Other CPO")
    assert authority.sign_station(ours, "CS-1", "", (), "Campus CPO", now(), 365)
    with pytest.raises(RequestNotGood, match="organisation"):
        authority.sign_station(theirs, "CS-1", "", (), "Campus CPO", now(), 365)


def test_one_command_makes_all_that_wss_needs(settings: Any, tmp_path: Path, capsys: Any) -> None:
    settings.OCPP_CA_DIR = tmp_path / "new"
    call_command("make_certificates", "charge.example.org", "192.0.2.1")
    call_command("make_certificates", "charge.example.org")
    assert "OCPP_LISTENERS" in capsys.readouterr().out
    found = authority.files()
    assert len(found.certificates) == 2 and found.client_ca is not None and found.crl is not None
    made = x509.load_pem_x509_certificate(found.certificates[0][0].read_bytes())
    names = made.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["charge.example.org"]


# ---------------------------------------------------------------------- over the socket


@pytest.mark.parametrize(
    ("version", "trigger", "message"),
    [
        (V16, "ExtendedTriggerMessage", "SignChargePointCertificate"),
        (V201, "TriggerMessage", "SignChargingStationCertificate"),
    ],
)
async def test_a_certificate_is_asked_for_signed_handed_over_and_opens_the_door(
    ca: Pki, version: str, trigger: str, message: str
) -> None:
    row = await accepted(password="correct horse")
    request, key = ca.request("CS-1")
    async with doors("lab://127.0.0.1:0", "mutual://127.0.0.1:0") as gateway:
        from tests.csms.charge_point import basic

        async with station(gateway, version=version, headers=basic("CS-1", "correct horse")) as bare:
            await bare.ask("Heartbeat", {})
            answer = await sync_to_async(certificates.request_renewal)(row)
            assert answer == {"status": "Accepted"}
            assert (await bare.was_asked(trigger))["requestedMessage"] == message
            assert (await bare.ask("SignCertificate", {"csr": request}))["status"] == "Accepted"
            handed = await bare.was_asked("CertificateSigned")
            assert handed.get("certificateType") == ("ChargingStationCertificate" if version == V201 else None)
            await eventually(lambda: StationCertificate.objects.get(station=row).state == "accepted")
        path = ca.file("handed", handed["certificateChain"], key)
        async with over_tls(gateway, door=1, certificate=path, version=version) as bare:
            await bare.ask("Heartbeat", {})


@pytest.mark.parametrize("version", [V16, V201])
async def test_a_request_in_the_name_of_another_is_rejected_and_told(ca: Pki, version: str) -> None:
    await accepted()
    await accepted("CS-2")
    request, _ = ca.request("CS-2")
    async with running() as gateway, station(gateway, version=version) as bare:
        assert (await bare.ask("SignCertificate", {"csr": request}))["status"] == "Rejected"
        await written(gateway)
    assert not await StationCertificate.objects.aexists()
    event = await SecurityEvent.objects.aget(kind="CertificateRequestRefused")
    assert event.station is not None and "not this station" in event.detail


async def test_only_so_many_are_signed_a_day_and_other_uses_never(ca: Pki, monkeypatch: Any) -> None:
    monkeypatch.setattr(certificates, "SIGNED_A_DAY", 2)
    await accepted()
    request, _ = ca.request("CS-1")
    async with running() as gateway, station(gateway, version=V201) as bare:
        said = [(await bare.ask("SignCertificate", {"csr": request}))["status"] for _ in range(3)]
        v2g = await bare.ask("SignCertificate", {"csr": request, "certificateType": "V2GCertificate"})
    assert said == ["Accepted", "Accepted", "Rejected"] and v2g["status"] == "Rejected"


async def test_without_an_authority_the_answer_is_no(settings: Any, tmp_path: Path) -> None:
    settings.OCPP_CA_DIR = tmp_path
    await accepted()
    request = csr(["CS-1"], ec.generate_private_key(ec.SECP256R1()), hashes.SHA256())
    async with running() as gateway, station(gateway) as bare:
        assert await bare.ask("SignCertificate", {"csr": request}) == {"status": "Rejected"}


async def test_a_station_that_waits_to_be_accepted_gets_no_certificate(ca: Pki) -> None:
    request, _ = ca.request("NEW")
    async with running() as gateway, station(gateway, "NEW") as bare:
        assert await bare.ask("SignCertificate", {"csr": request}) == {"status": "Rejected"}


async def test_renewal_is_asked_from_thirty_days_before_the_end_once_a_day(ca: Pki) -> None:
    soon = await accepted(quiet=False)
    await accepted("CS-2", quiet=False)
    for row, days in ((soon, 20), (await ChargingStation.objects.aget(identity="CS-2"), 40)):
        signed, _ = ca.certificate(row.identity, days=days)
        await sync_to_async(certificates.keep_signed)(row.pk, row.identity, signed, now())
    async with running() as gateway, station(gateway) as first, station(gateway, "CS-2") as second:
        await first.ask("Heartbeat", {})
        await second.ask("Heartbeat", {})
        sessions = list(gateway.sessions.values())
        assert await gateway.desk.renew(sessions, now()) == 1
        asked = await first.was_asked("ExtendedTriggerMessage")
        assert asked == {"requestedMessage": "SignChargePointCertificate"}
        await written(gateway)
        assert await gateway.desk.renew(sessions, now()) == 0
        assert not [a for a, _ in second.asked if a == "ExtendedTriggerMessage"]
        assert await gateway.desk.renew(sessions, now() + timedelta(days=2)) == 1


HASH = {"hashAlgorithm": "SHA256", "issuerNameHash": "aa", "issuerKeyHash": "bb", "serialNumber": "01"}


@pytest.mark.parametrize("version", [V16, V201])
async def test_roots_are_installed_listed_and_deleted(ca: Pki, version: str) -> None:
    row = await accepted()
    chains = [{"certificateType": "CSMSRootCertificate", "certificateHashData": HASH}]
    held = {"status": "Accepted", "certificateHashDataChain": chains}
    if version == V16:
        held = {"status": "Accepted", "certificateHashData": [HASH]}
    async with running() as gateway, station(gateway, version=version) as bare:
        bare.answers = {"GetInstalledCertificateIds": held}
        await bare.ask("Heartbeat", {})
        await sync_to_async(certificates.install)(row, "CSMSRootCertificate", authority.root_pem())
        sent = await bare.was_asked("InstallCertificate")
        word = "CentralSystemRootCertificate" if version == V16 else "CSMSRootCertificate"
        assert (sent["certificateType"], sent["certificate"]) == (word, authority.root_pem())
        answer = await sync_to_async(certificates.fetch_installed)(row, "CSMSRootCertificate")
        assert answer["status"] == "Accepted"
        kept = await InstalledCertificate.objects.aget(station=row)
        assert (kept.use, kept.serial) == ("CSMSRootCertificate", "01")
        assert (await sync_to_async(certificates.delete_installed)(kept))["status"] == "Accepted"
        assert await bare.was_asked("DeleteCertificate") == {"certificateHashData": HASH}
        assert not await InstalledCertificate.objects.aexists()
        with pytest.raises(bus.CallNotValid, match="PEM"):
            await sync_to_async(certificates.install)(row, "CSMSRootCertificate", "no certificate")
        with pytest.raises(bus.CallNotValid, match="use"):
            await sync_to_async(certificates.install)(row, "Everything", authority.root_pem())


def test_an_old_list_of_revoked_certificates_is_written_anew(ca: Pki) -> None:
    authority.write_crl((), now() - timedelta(days=20))
    assert authority.crl_is_old(now())
    certificates.refresh_crl(now())
    assert not authority.crl_is_old(now())


# ---------------------------------------------------------------------- ISO 15118


CERTIFICATE = AskedCertificate(CertificateHash("SHA256", "aa" * 32, "bb" * 32, "0f"), "http://127.0.0.1:1/ocsp")
OCSP_DATA = {**HASH, "responderURL": "http://ocsp.example.org/"}


class FullProvider:
    """Knows one contract."""

    async def ev_certificate(self, schema: str, action: str, exi_request: str) -> str:
        return f"exi for {exi_request}"

    async def certificate_status(self, asked: AskedCertificate) -> str:
        return "T0NTUA=="

    async def contract_status(self, chain: str, asked: Sequence[AskedCertificate], emaid: str) -> str:
        return "Accepted" if emaid == "DE8AA123" else "ContractCancelled"


ASKED_BY_CAR = {"iso15118SchemaVersion": "urn:iso:15118:2:2013:MsgDef", "action": "Install", "exiRequest": "abc"}


async def test_without_a_provider_the_answer_is_a_clear_no_and_no_car_is_let_in() -> None:
    row = await accepted()
    await IdToken.objects.acreate(site_id=row.site_id, value="DE8AA123", type="eMAID")
    token = {"idToken": "DE8AA123", "type": "eMAID"}
    async with running() as gateway, station(gateway, version=V201) as bare:
        answer = await bare.ask("Get15118EVCertificate", ASKED_BY_CAR)
        assert (answer["status"], answer["exiResponse"]) == ("Failed", "")
        assert answer["statusInfo"]["reasonCode"] == "NoProvider"
        assert (await bare.ask("GetCertificateStatus", {"ocspRequestData": OCSP_DATA}))["status"] == "Failed"
        shown = {"idToken": token, "iso15118CertificateHashData": [OCSP_DATA]}
        answer = await bare.ask("Authorize", shown)
        assert answer["certificateStatus"] == "NoCertificateAvailable"
        assert answer["idTokenInfo"]["status"] == "Invalid"
        assert (await bare.ask("Authorize", {"idToken": token}))["idTokenInfo"]["status"] == "Accepted"


async def test_a_provider_is_asked_and_its_word_counts(settings: Any) -> None:
    settings.OCPP_CERTIFICATE_PROVIDER = f"{__name__}.FullProvider"
    row = await accepted()
    for value in ("DE8AA123", "DE8AA999"):
        await IdToken.objects.acreate(site_id=row.site_id, value=value, type="eMAID")
    async with running() as gateway, station(gateway, version=V201) as bare:
        assert (await bare.ask("Get15118EVCertificate", ASKED_BY_CAR)) == {
            "status": "Accepted",
            "exiResponse": "exi for abc",
        }
        answer = await bare.ask("GetCertificateStatus", {"ocspRequestData": OCSP_DATA})
        assert answer == {"status": "Accepted", "ocspResult": "T0NTUA=="}
        said = []
        for value in ("DE8AA123", "DE8AA999", "DE8AA000"):
            shown = {"idToken": {"idToken": value, "type": "eMAID"}, "certificate": "-----BEGIN CERTIFICATE-----"}
            answer = await bare.ask("Authorize", shown)
            said.append((answer["idTokenInfo"]["status"], answer["certificateStatus"]))
    assert said == [("Accepted", "Accepted"), ("Invalid", "ContractCancelled"), ("Invalid", "ContractCancelled")]


async def test_only_named_responders_are_asked_and_only_for_so_long(settings: Any, ca: Pki) -> None:
    """G1: the address comes from a station."""
    from http.server import BaseHTTPRequestHandler, HTTPServer
    from threading import Thread

    root, key = authority._load()
    signed, _ = ca.certificate("CS-1")
    leaf = x509.load_pem_x509_certificate(signed.pem.encode())
    builder = ocsp.OCSPResponseBuilder().add_response(
        leaf, root, hashes.SHA256(), ocsp.OCSPCertStatus.GOOD, now(), now() + timedelta(days=1), None, None
    )
    from cryptography.hazmat.primitives.serialization import Encoding

    good = builder.responder_id(ocsp.OCSPResponderEncoding.HASH, root).sign(key, hashes.SHA256())
    replies = {"/good": good.public_bytes(Encoding.DER), "/long": b"x" * 100_000, "/odd": b"no response"}

    class Responder(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            if self.path == "/elsewhere":
                self.send_response(302)
                self.send_header("Location", "/good")
                self.end_headers()
                return
            self.send_response(200)
            self.end_headers()
            self.wfile.write(replies[self.path])

        def log_message(self, *args: Any) -> None:
            """Quietly."""

    server = HTTPServer(("127.0.0.1", 0), Responder)
    Thread(target=server.serve_forever, daemon=True).start()
    place = f"127.0.0.1:{server.server_port}"
    provider = ocsp_provider.OcspProvider()

    def at(path: str) -> AskedCertificate:
        return AskedCertificate(CERTIFICATE.hash, f"http://{place}{path}")

    try:
        with pytest.raises(NoProvider, match="not among"):
            await provider.certificate_status(at("/good"))
        settings.OCPP_OCSP_HOSTS = [place]
        assert base64.b64decode(await provider.certificate_status(at("/good"))) == replies["/good"]
        assert await provider.contract_status("", [at("/good")], "") == "Accepted"
        for path, why in (("/long", "too long"), ("/odd", "no OCSP"), ("/elsewhere", "did not answer")):
            with pytest.raises(NoProvider, match=why):
                await provider.certificate_status(at(path))
        with pytest.raises(NoProvider, match="not among"):
            await provider.certificate_status(AskedCertificate(CERTIFICATE.hash, "file:///etc/passwd"))
        settings.OCPP_CERTIFICATE_PROVIDER = "csms.ocsp.OcspProvider"
        assert await iso15118.contract_status("", [at("/odd")], "") == "NoCertificateAvailable"
    finally:
        server.shutdown()
        server.server_close()

"""A small certificate authority of this installation's own: it signs what stations and the gateway show.

Its key lies in a file that only the owner reads, never in the database: `OCPP_CA_DIR`, by default in `DATA_DIR`. Who
has several gateways on several machines gives each that folder, or lets one of them do the signing. Everything made
here is also plain files for others: `ca.pem` for stations, `ca.crl` for a proxy that ends the TLS.
"""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import quote

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from django.conf import settings

from csms.listeners import Files
from csms.showing import URN

Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey

CA_YEARS = 20
SERVER_DAYS = 730
BACKDATED = timedelta(hours=1)
"""A station whose clock lags a little must not find its new certificate in its future."""

CRL_DAYS = 30
LONGEST_REQUEST = 8192
LEAST_RSA_BITS = 2048
LEAST_EC_BITS = 256
_GOOD_HASHES = (hashes.SHA256, hashes.SHA384, hashes.SHA512, hashes.SHA3_256, hashes.SHA3_384, hashes.SHA3_512)


class NoAuthority(Exception):
    """This installation has no authority, or its key cannot be read here."""


class RequestNotGood(Exception):
    """A certificate signing request we do not sign; the text says why."""


@dataclass(frozen=True)
class Signed:
    """A certificate we made."""

    pem: str
    serial: str
    issuer: str
    subject: str
    fingerprint: str
    not_before: datetime
    not_after: datetime


# ---------------------------------------------------------------------- its files


def folder() -> Path:
    return Path(settings.OCPP_CA_DIR)


def files() -> Files:
    """The certificates made here that exist now, for listeners that name none of their own."""
    here = folder()
    pairs = [(here / f"server-{kind}.pem", here / f"server-{kind}.key") for kind in ("ecdsa", "rsa")]
    ca, crl = here / "ca.pem", here / "ca.crl"
    return Files(
        tuple(pair for pair in pairs if pair[0].exists() and pair[1].exists()),
        ca if ca.exists() else None,
        crl if crl.exists() else None,
    )


def exists() -> bool:
    return (folder() / "ca.pem").exists() and (folder() / "ca.key").exists()


def _load() -> tuple[x509.Certificate, Key]:
    here = folder()
    try:
        certificate = x509.load_pem_x509_certificate((here / "ca.pem").read_bytes())
        key = serialization.load_pem_private_key((here / "ca.key").read_bytes(), None)
    except FileNotFoundError:
        raise NoAuthority("this installation has no authority; `manage.py make_certificates` makes one") from None
    except (OSError, ValueError) as error:
        raise NoAuthority(f"the authority's key cannot be used: {error}") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey):
        raise NoAuthority("the authority's key is neither EC nor RSA")
    return certificate, key


def root_pem() -> str:
    """The authority's own certificate, which stations install as a root. Raises `NoAuthority`."""
    return _pem(_load()[0])


def write_secret(path: Path, body: bytes) -> None:
    """Replace a file that only its owner may read, whole or not at all."""
    _write(path, body, 0o600)


def _write(path: Path, body: bytes, mode: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    half = path.with_name(f".{path.name}.new")
    half.unlink(missing_ok=True)
    handle = os.open(half, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(handle, "wb") as file:
        file.write(body)
        file.flush()
        os.fsync(file.fileno())
    half.replace(path)


# ---------------------------------------------------------------------- making


def make_authority(name: str, now: datetime) -> Path:
    """A new authority. Raises `FileExistsError` when there is one: a new one would make every station a stranger."""
    here = folder()
    if (here / "ca.key").exists():
        raise FileExistsError(here / "ca.key")
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, name[:64]),
            x509.NameAttribute(NameOID.COMMON_NAME, f"{name[:52]} stations"),
        ]
    )
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATED)
        .not_valid_after(now + timedelta(days=365 * CA_YEARS))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    write_secret(here / "ca.key", _key_pem(key))
    _write(here / "ca.pem", certificate.public_bytes(serialization.Encoding.PEM), 0o644)
    write_crl((), now)
    return here / "ca.pem"


def make_server(hosts: Sequence[str], now: datetime, days: int = SERVER_DAYS) -> list[Path]:
    """An ECDSA and an RSA certificate for the gateway under these names or addresses, signed by the authority."""
    authority, authority_key = _load()
    names: list[x509.GeneralName] = []
    for host in hosts:
        try:
            names.append(x509.IPAddress(ipaddress.ip_address(host)))
        except ValueError:
            names.append(x509.DNSName(host.encode("idna").decode()))
    made = []
    keys: dict[str, Key] = {
        "ecdsa": ec.generate_private_key(ec.SECP256R1()),
        "rsa": rsa.generate_private_key(65537, 2048),
    }
    for kind, key in keys.items():
        builder = _leaf(authority, key.public_key(), _name(hosts[0]), now, now + timedelta(days=days))
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        builder = builder.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        certificate = builder.sign(authority_key, hashes.SHA256())
        write_secret(folder() / f"server-{kind}.key", _key_pem(key))
        path = folder() / f"server-{kind}.pem"
        _write(path, certificate.public_bytes(serialization.Encoding.PEM), 0o644)
        made.append(path)
    return made


def read_request(text: str) -> x509.CertificateSigningRequest:
    """A signing request that is well made: signed by its own key, with a key that is strong enough.

    PEM, or the same base64 without its frame (1.6 white paper A02). Raises `RequestNotGood`.
    """
    body = text.strip()
    if not body or len(body) > LONGEST_REQUEST:
        raise RequestNotGood("it is empty or too long")
    if "-----BEGIN" not in body:
        body = f"-----BEGIN CERTIFICATE REQUEST-----\n{body}\n-----END CERTIFICATE REQUEST-----"
    try:
        request = x509.load_pem_x509_csr(body.encode())
        key = request.public_key()
        signed = request.is_signature_valid
        hashed = request.signature_hash_algorithm
    except (ValueError, TypeError, UnsupportedAlgorithm, InvalidSignature):
        raise RequestNotGood("it cannot be read as a PKCS #10 request") from None
    if isinstance(key, rsa.RSAPublicKey):
        if key.key_size < LEAST_RSA_BITS:
            raise RequestNotGood(f"an RSA key of {key.key_size} bits; at least {LEAST_RSA_BITS}")
    elif isinstance(key, ec.EllipticCurvePublicKey):
        if key.curve.key_size < LEAST_EC_BITS:
            raise RequestNotGood(f"a key on {key.curve.name}; at least {LEAST_EC_BITS} bits")
    else:
        raise RequestNotGood("its key is neither RSA nor on an elliptic curve")
    if not isinstance(hashed, _GOOD_HASHES):
        raise RequestNotGood("it is signed with an old hash")
    if not signed:
        raise RequestNotGood("its signature is not of its own key")
    return request


def subject_names(request: x509.CertificateSigningRequest) -> tuple[list[str], list[str]]:
    """The common names and the organisations a request asks for."""
    return (
        [str(a.value) for a in request.subject.get_attributes_for_oid(NameOID.COMMON_NAME)],
        [str(a.value) for a in request.subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)],
    )


def sign_station(
    text: str, identity: str, serial_number: str, taken: Iterable[str], organisation: str, now: datetime, days: int
) -> Signed:
    """Sign a station's request: it must name this station and no other. Raises `RequestNotGood` or `NoAuthority`.

    Its common name is its identity or its serial number (as the white paper has it), as long as that serial number is
    nobody's identity (`taken`). Whatever it says, the certificate's alternative name is the identity: that counts.
    Other extensions it asks for are not taken over.
    """
    request = read_request(text)
    common, organisations = subject_names(request)
    if len(common) != 1:
        raise RequestNotGood("it must have one common name")
    by_serial = bool(serial_number) and common[0] == serial_number and common[0] not in set(taken)
    if common[0] != identity and not by_serial:
        raise RequestNotGood("its common name is not this station")
    if organisation and any(o != organisation for o in organisations):
        raise RequestNotGood("its organisation is not ours")
    authority, key = _load()
    until = min(now + timedelta(days=days), authority.not_valid_after_utc)
    builder = _leaf(authority, request.public_key(), request.subject, now, until)
    name = x509.UniformResourceIdentifier(URN + quote(identity, safe=""))
    builder = builder.add_extension(x509.SubjectAlternativeName([name]), critical=False)
    builder = builder.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
    return _signed(builder.sign(key, hashes.SHA256()))


def write_crl(revoked: Iterable[tuple[str, datetime]], now: datetime) -> Path:
    """The list of revoked certificates (serial in hex, when), for the TLS handshake and for proxies."""
    authority, key = _load()
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(authority.subject)
        .last_update(now - BACKDATED)
        .next_update(now + timedelta(days=CRL_DAYS))
        .add_extension(x509.CRLNumber(int(now.timestamp() * 1000)), critical=False)
    )
    for serial, at in revoked:
        one = x509.RevokedCertificateBuilder().serial_number(int(serial, 16)).revocation_date(at).build()
        builder = builder.add_revoked_certificate(one)
    crl = builder.sign(key, hashes.SHA256())
    path = folder() / "ca.crl"
    _write(path, crl.public_bytes(serialization.Encoding.PEM), 0o644)
    return path


def crl_is_old(now: datetime) -> bool:
    """Past the half of its life: then it is written anew."""
    path = folder() / "ca.crl"
    try:
        crl = x509.load_pem_x509_crl(path.read_bytes())
    except (OSError, ValueError):
        return True
    until = crl.next_update_utc
    return until is None or until - now < timedelta(days=CRL_DAYS / 2)


# ---------------------------------------------------------------------- small parts


def _leaf(
    authority: x509.Certificate, key: object, subject: x509.Name, now: datetime, until: datetime
) -> x509.CertificateBuilder:
    signer = authority.public_key()
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(authority.subject)
        .public_key(key)  # type: ignore[arg-type]
        .serial_number(x509.random_serial_number())
        .not_valid_before(max(now - BACKDATED, authority.not_valid_before_utc))
        .not_valid_after(until)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs=False), critical=True)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer), critical=False)  # type: ignore[arg-type]
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)  # type: ignore[arg-type]
    )


def _usage(*, signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=not signs,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs,
        crl_sign=signs,
        encipher_only=False,
        decipher_only=False,
    )


def _signed(certificate: x509.Certificate) -> Signed:
    return Signed(
        pem=_pem(certificate),
        serial=format(certificate.serial_number, "x"),
        issuer=certificate.issuer.rfc4514_string()[:255],
        subject=certificate.subject.rfc4514_string()[:255],
        fingerprint=certificate.fingerprint(hashes.SHA256()).hex(),
        not_before=certificate.not_valid_before_utc.astimezone(UTC),
        not_after=certificate.not_valid_after_utc.astimezone(UTC),
    )


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common[:64])])


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode()


def _key_pem(key: Key) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )

"""A client certificate as it was shown: in the TLS handshake, or by a proxy that was told to pass it on."""

from __future__ import annotations

import hashlib
import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import unquote

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.x509.oid import ExtensionOID, NameOID

URN = "urn:ocpp:"
"""How an identity that is no host name stands among a certificate's names (`authority.py`)."""

_ATTRIBUTE = re.compile(r"(?:^|[,/+])\s*CN\s*=\s*((?:\\.|[^,/+\\])*)", re.IGNORECASE)
_ESCAPED = re.compile(r"\\(?:([0-9A-Fa-f]{2})|(.))")
LONGEST_HEADER = 16_384
_COMMON = "commonName"


@dataclass(frozen=True, slots=True)
class Shown:
    """Whose it is, and which one it is. `names` are its alternative names, or without those its common name."""

    names: tuple[str, ...]
    serial: str = ""
    fingerprint: str = ""
    not_after: datetime | None = None


def by_tls(tls: ssl.SSLObject | None) -> Shown | None:
    """The client's verified certificate; None without one."""
    der = tls.getpeercert(True) if tls is not None else None
    if tls is None or not der:
        return None
    told: Mapping[str, Any] = tls.getpeercert() or {}
    common = tuple(
        str(item[1])
        for group in told.get("subject", ())
        for item in group
        if len(item) == 2 and item[0] == "commonName"
    )
    alternative = tuple(
        str(value).removeprefix(URN) for kind, value in told.get("subjectAltName", ()) if kind in ("DNS", "URI")
    )
    return Shown(
        tuple(unquote(name) for name in alternative) or common,
        str(told.get("serialNumber", "")).lower().lstrip("0"),
        hashlib.sha256(der).hexdigest(),
    )


def by_proxy(header: str | None) -> Shown | None:
    """What a trusted proxy says of the client's certificate: the whole of it (PEM, perhaps percent-encoded), or its
    subject. None without one; raises `ValueError` for what cannot be read.
    """
    text = (header or "").strip()
    if not text or text == "-":
        return None
    if len(text) > LONGEST_HEADER:
        raise ValueError("the certificate header is too long")
    plain = unquote(text) if "%" in text else text
    if plain.startswith("-----BEGIN"):
        body = plain.replace("-----BEGIN CERTIFICATE-----", "").replace("-----END CERTIFICATE-----", "")
        lines = "\n".join(body.split())
        pem = f"-----BEGIN CERTIFICATE-----\n{lines}\n-----END CERTIFICATE-----\n"
        return of_certificate(x509.load_pem_x509_certificate(pem.encode()))
    names = [_ESCAPED.sub(_unescape, found).strip() for found in _ATTRIBUTE.findall(plain)]
    if len(names) != 1 or not names[0]:
        raise ValueError("the certificate header names no one common name")
    return Shown((names[0],))


def _unescape(found: re.Match[str]) -> str:
    return bytes.fromhex(found.group(1)).decode("latin-1") if found.group(1) else found.group(2)


def of_certificate(certificate: x509.Certificate) -> Shown:
    return Shown(
        names_of(certificate),
        format(certificate.serial_number, "x"),
        certificate.fingerprint(hashes.SHA256()).hex(),
        certificate.not_valid_after_utc.astimezone(UTC),
    )


def names_of(certificate: x509.Certificate) -> tuple[str, ...]:
    """Alternative names go before the common name, as everywhere in TLS."""
    try:
        found = certificate.extensions.get_extension_for_oid(ExtensionOID.SUBJECT_ALTERNATIVE_NAME).value
        assert isinstance(found, x509.SubjectAlternativeName)
        names = [*found.get_values_for_type(x509.DNSName), *found.get_values_for_type(x509.UniformResourceIdentifier)]
    except x509.ExtensionNotFound:
        names = []
    if names:
        return tuple(unquote(name.removeprefix(URN)) for name in names)
    return tuple(str(a.value) for a in certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME))

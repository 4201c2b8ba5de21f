"""Is a firmware image what it says it is? Digest and signature are checked before any station is asked to fetch it."""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from django.utils.translation import gettext


@dataclass(frozen=True, slots=True)
class Digest:
    """Of a file: SHA-256 and size."""

    sha256: bytes
    size: int

    @property
    def hex(self) -> str:
        return self.sha256.hex()


def digest_of(blocks: Iterable[bytes]) -> Digest:
    digest, size = hashlib.sha256(), 0
    for block in blocks:
        digest.update(block)
        size += len(block)
    return Digest(digest.digest(), size)


def problems(
    *, file: Digest | None, url: str, sha256: str, signature: str, certificate: str, now: datetime
) -> dict[str, str]:
    """What is wrong, by the field that can mend it. Empty: stations may be asked to fetch it."""
    found: dict[str, str] = {}
    if (file is None) == (not url):
        found["file"] = gettext("Give a file, or an address where it is: one of the two.")
    if file is not None and file.size == 0:
        found["file"] = gettext("The file is empty.")
    if file is not None and sha256 and sha256.lower() != file.hex:
        found["sha256"] = gettext("The file has another digest: %(digest)s") % {"digest": file.hex}
    if bool(signature) != bool(certificate):
        missing = "certificate" if signature else "signature"
        found[missing] = gettext("A signature and its certificate go together.")
        return found
    if signature:
        found |= _signature_problems(file, signature, certificate, now)
    return found


def _signature_problems(file: Digest | None, signature: str, certificate: str, now: datetime) -> dict[str, str]:
    try:
        signed = base64.b64decode("".join(signature.split()), validate=True)
    except (binascii.Error, ValueError):
        return {"signature": gettext("This is no base64.")}
    try:
        signer = x509.load_pem_x509_certificate(certificate.strip().encode())
        key = signer.public_key()
    except ValueError:
        return {"certificate": gettext("This is no certificate in PEM.")}
    if not signer.not_valid_before_utc <= now <= signer.not_valid_after_utc:
        return {"certificate": gettext("The certificate is not valid today; stations would refuse it.")}
    if file is not None and not _verifies(key, signed, file.sha256):
        return {"signature": gettext("It does not belong to this file and this certificate.")}
    return {}


def _verifies(key: object, signature: bytes, digest: bytes) -> bool:
    """ECDSA, RSA-PSS or RSA PKCS#1 v1.5, over SHA-256: what OCPP's makers use."""
    known = Prehashed(hashes.SHA256())
    try:
        if isinstance(key, ec.EllipticCurvePublicKey):
            key.verify(signature, digest, ec.ECDSA(known))
            return True
    except InvalidSignature:
        return False
    if not isinstance(key, rsa.RSAPublicKey):
        return False
    for scheme in (padding.PSS(padding.MGF1(hashes.SHA256()), padding.PSS.AUTO), padding.PKCS1v15()):
        try:
            key.verify(signature, digest, scheme, known)
        except InvalidSignature:
            continue
        return True
    return False

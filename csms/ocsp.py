"""An ISO 15118 provider that asks OCSP responders: is this certificate good still?

It asks only hosts that were named (`OCPP_OCSP_HOSTS`), without following redirects, for a few seconds, and reads a
bounded answer: the address comes from a station, so it is not to be trusted. It issues nothing.
"""

from __future__ import annotations

import asyncio
import base64
import urllib.error
import urllib.request
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp
from django.conf import settings

from csms.iso15118 import AskedCertificate, NoProvider

PATIENCE_S = 8.0
LONGEST_ANSWER = 32_768
LONGEST_RESULT = 5_500  # of the base64 in GetCertificateStatusResponse
_HASHES: dict[str, type[hashes.HashAlgorithm]] = {
    "SHA256": hashes.SHA256,
    "SHA384": hashes.SHA384,
    "SHA512": hashes.SHA512,
}


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *args: Any, **more: Any) -> None:
        return None


class OcspProvider:
    """Answers status from OCSP; a contract is good when each certificate of its chain is."""

    async def ev_certificate(self, schema: str, action: str, exi_request: str) -> str:
        raise NoProvider("an OCSP responder issues no certificates")

    async def certificate_status(self, asked: AskedCertificate) -> str:
        return base64.b64encode(await asyncio.to_thread(fetch, asked)).decode()

    async def contract_status(self, chain: str, asked: Sequence[AskedCertificate], emaid: str) -> str:
        if not asked:
            raise NoProvider("only hashes can be asked of an OCSP responder")
        for one in asked:
            answer = ocsp.load_der_ocsp_response(await asyncio.to_thread(fetch, one))
            if answer.response_status is not ocsp.OCSPResponseStatus.SUCCESSFUL:
                return "CertChainError"
            if answer.certificate_status is ocsp.OCSPCertStatus.REVOKED:
                return "CertificateRevoked"
            if answer.certificate_status is not ocsp.OCSPCertStatus.GOOD:
                return "NoCertificateAvailable"
        return "Accepted"


def fetch(asked: AskedCertificate) -> bytes:
    """The responder's answer in DER. Raises `NoProvider`."""
    address = urlsplit(asked.responder_url)
    place = (address.hostname or "").lower() + (f":{address.port}" if address.port else "")
    if address.scheme not in ("http", "https") or place not in settings.OCPP_OCSP_HOSTS:
        raise NoProvider(f"the responder {place or 'without a name'} is not among OCPP_OCSP_HOSTS")
    request = urllib.request.Request(  # noqa: S310 - scheme and host were checked
        asked.responder_url, _question(asked), {"Content-Type": "application/ocsp-request"}
    )
    opener = urllib.request.build_opener(_NoRedirects, urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=PATIENCE_S) as answer:
            body: bytes = answer.read(LONGEST_ANSWER + 1)
    except (OSError, urllib.error.URLError, ValueError) as error:
        raise NoProvider(f"the responder did not answer: {error}") from None
    if len(base64.b64encode(body)) > LONGEST_RESULT:
        raise NoProvider("the responder's answer is too long")
    try:
        ocsp.load_der_ocsp_response(body)
    except ValueError:
        raise NoProvider("the responder's answer is no OCSP response") from None
    return body


def _question(asked: AskedCertificate) -> bytes:
    which = asked.hash
    algorithm = _HASHES.get(which.algorithm)
    if algorithm is None:
        raise NoProvider(f"the hash {which.algorithm} is not known")
    try:
        builder = ocsp.OCSPRequestBuilder().add_certificate_by_hash(
            bytes.fromhex(which.issuer_name_hash),
            bytes.fromhex(which.issuer_key_hash),
            int(which.serial, 16),
            algorithm(),
        )
    except ValueError:
        raise NoProvider("the certificate is not named in hexadecimal") from None
    return builder.build().public_bytes(Encoding.DER)

"""Plug and charge over OCPP 2.0.1 (block M, C07): what a station asks for a car that identifies by certificate."""

from __future__ import annotations

from typing import Any

from csms import iso15118
from csms.iso15118 import AskedCertificate, NoProvider
from csms.vocabulary import CertificateHash, Verdict

Payload = dict[str, Any]
MOST_HASHES = 4


async def ev_certificate(session: object, payload: Payload) -> Payload:
    """Get15118EVCertificate: handed to the provider as it is."""
    try:
        exi = await iso15118.ev_certificate(
            str(payload.get("iso15118SchemaVersion", "")),
            str(payload.get("action", "")),
            str(payload.get("exiRequest", "")),
        )
    except NoProvider as error:
        return {"status": "Failed", "exiResponse": "", "statusInfo": _why(error)}
    return {"status": "Accepted", "exiResponse": exi}


async def certificate_status(session: object, payload: Payload) -> Payload:
    """GetCertificateStatus: the provider's OCSP response, or a no."""
    asked = asked_certificates([payload.get("ocspRequestData")])
    try:
        if not asked:
            raise NoProvider("no certificate is named")
        result = await iso15118.certificate_status(asked[0])
    except NoProvider as error:
        return {"status": "Failed", "statusInfo": _why(error)}
    return {"status": "Accepted", "ocspResult": result}


def shows_a_contract(payload: Payload) -> bool:
    """Does this Authorize come with a contract certificate, or its hashes?"""
    return bool(payload.get("certificate") or payload.get("iso15118CertificateHashData"))


async def judged(payload: Payload, verdict: Verdict) -> tuple[Verdict, str]:
    """The verdict on a token whose contract certificate was shown, and what is said of that certificate.

    Accepted only when both are (C07.FR.04): the token by us, the certificate by the provider.
    """
    token = payload.get("idToken")
    emaid = str(token.get("idToken", "")) if isinstance(token, dict) else ""
    hashes = payload.get("iso15118CertificateHashData")
    word = await iso15118.contract_status(
        str(payload.get("certificate") or ""), asked_certificates(hashes if isinstance(hashes, list) else []), emaid
    )
    return (verdict if word == "Accepted" or not verdict.accepted else Verdict("invalid", verdict.group)), word


def asked_certificates(told: list[Any]) -> list[AskedCertificate]:
    return [
        AskedCertificate(CertificateHash.read(one), str(one.get("responderURL") or ""))
        for one in told[:MOST_HASHES]
        if isinstance(one, dict)
    ]


def _why(error: NoProvider) -> dict[str, str]:
    return {"reasonCode": "NoProvider", "additionalInfo": str(error)[:512]}

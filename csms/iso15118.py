"""Plug and charge: certificates of cars (ISO 15118) are issued and judged by somebody else, the provider.

`OCPP_CERTIFICATE_PROVIDER` names a class with the three small promises of `Provider`, made once without arguments.
Without one the answer is a clear no in the standard's own words: nothing is guessed, nobody is let in on a certificate
that nobody looked at. `csms.ocsp.OcspProvider` answers what an OCSP responder can answer.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Protocol

from django.conf import settings
from django.utils.module_loading import import_string

from csms.vocabulary import CertificateHash

log = logging.getLogger(__name__)

PATIENCE_S = 20.0
CONTRACT_WORDS = frozenset(
    {
        "Accepted",
        "SignatureError",
        "CertificateExpired",
        "CertificateRevoked",
        "NoCertificateAvailable",
        "CertChainError",
        "ContractCancelled",
    }
)


class NoProvider(Exception):
    """Nobody is named who could answer, or the one who is does not answer this."""


@dataclass(frozen=True, slots=True)
class AskedCertificate:
    """A certificate of which the status is asked, and who says to know it."""

    hash: CertificateHash
    responder_url: str


class Provider(Protocol):
    """Who issues and judges the certificates of cars. Each may raise `NoProvider`."""

    async def ev_certificate(self, schema: str, action: str, exi_request: str) -> str:
        """The EXI answer (base64) to a car's request to install or update its contract certificate."""
        ...

    async def certificate_status(self, asked: AskedCertificate) -> str:
        """The OCSP response (DER, base64) for this certificate."""
        ...

    async def contract_status(self, chain: str, asked: Sequence[AskedCertificate], emaid: str) -> str:
        """One of `CONTRACT_WORDS` for a contract certificate: the chain itself (PEM), or its hashes."""
        ...


@cache
def _made(path: str) -> Provider:
    made: Provider = import_string(path)()
    return made


def provider() -> Provider:
    """Raises `NoProvider`."""
    if not settings.OCPP_CERTIFICATE_PROVIDER:
        raise NoProvider("this installation has no provider of ISO 15118 certificates")
    return _made(settings.OCPP_CERTIFICATE_PROVIDER)


async def ev_certificate(schema: str, action: str, exi_request: str) -> str:
    """Raises `NoProvider`, also when the provider stumbled or took too long."""
    return await _asked(lambda p: p.ev_certificate(schema, action, exi_request))


async def certificate_status(asked: AskedCertificate) -> str:
    """Raises `NoProvider`."""
    return await _asked(lambda p: p.certificate_status(asked))


async def contract_status(chain: str, asked: Sequence[AskedCertificate], emaid: str) -> str:
    """Never `Accepted` unless a provider said so."""
    try:
        word = await _asked(lambda p: p.contract_status(chain, asked, emaid))
    except NoProvider:
        return "NoCertificateAvailable"
    return word if word in CONTRACT_WORDS else "CertChainError"


async def _asked(question: object) -> str:
    try:
        async with asyncio.timeout(PATIENCE_S):
            answer: str = await question(provider())  # type: ignore[operator]
            return answer
    except NoProvider:
        raise
    except Exception as error:
        log.warning("the provider of ISO 15118 certificates failed: %s: %s", type(error).__name__, error)
        raise NoProvider("the provider did not answer") from None

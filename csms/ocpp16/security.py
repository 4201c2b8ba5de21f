"""Security over OCPP 1.6, as its white paper has it: passwords, profiles, events and certificates. Pure.

`csms/ocpp201/security.py` has the same names in the same order.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from csms.vocabulary import CertificateHash

Call = tuple[str, dict[str, Any]]

USES = {
    "CSMSRootCertificate": "CentralSystemRootCertificate",
    "ManufacturerRootCertificate": "ManufacturerRootCertificate",
}
"""Our word for what a root is for (2.0.1's), and 1.6's."""

LONGEST_CERTIFICATE = 5500


def set_password(password: str) -> Call:
    return "ChangeConfiguration", {"key": "AuthorizationKey", "value": password}


def set_security_profile(profile: int, url: str, slot: int) -> list[Call]:
    return [("ChangeConfiguration", {"key": "SecurityProfile", "value": str(profile)})]


def set_status(result: Mapping[str, Any]) -> str:
    return str(result.get("status", ""))


def event(payload: Mapping[str, Any]) -> tuple[str, object, str]:
    """The kind of a security event, its time as told, and what is told of it besides."""
    return str(payload.get("type", ""))[:50], payload.get("timestamp"), str(payload.get("techInfo") or "")


def request_of(payload: Mapping[str, Any]) -> tuple[str, str]:
    """A certificate signing request, and what the certificate is for."""
    return str(payload.get("csr") or ""), "ChargingStationCertificate"


def signing(accepted: bool, why: str = "") -> dict[str, Any]:
    return {"status": "Accepted" if accepted else "Rejected"}


def certificate_signed(chain: str, use: str) -> Call:
    return "CertificateSigned", {"certificateChain": chain}


def request_renewal() -> Call:
    return "ExtendedTriggerMessage", {"requestedMessage": "SignChargePointCertificate"}


def install_certificate(use: str, pem: str) -> Call:
    return "InstallCertificate", {"certificateType": USES.get(use, use), "certificate": pem}


def installed_certificates(use: str | None) -> list[Call]:
    """1.6 asks for one kind at a time."""
    wanted = [USES.get(use, use)] if use else list(USES.values())
    return [("GetInstalledCertificateIds", {"certificateType": word}) for word in wanted]


def installed(call: Call, result: Mapping[str, Any]) -> list[tuple[str, CertificateHash]]:
    ours = {word: name for name, word in USES.items()}
    use = ours.get(str(call[1].get("certificateType")), str(call[1].get("certificateType")))
    return [(use, CertificateHash.read(told)) for told in _objects(result.get("certificateHashData"))]


def delete_certificate(which: CertificateHash) -> Call:
    return "DeleteCertificate", {"certificateHashData": which.told()}


def _objects(told: object) -> Sequence[Mapping[str, Any]]:
    return [one for one in told if isinstance(one, dict)] if isinstance(told, list) else []

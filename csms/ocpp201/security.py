"""Security over OCPP 2.0.1 (blocks A and M): passwords, profiles, events and certificates. Pure.

`csms/ocpp16/security.py` has the same names in the same order.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from csms.vocabulary import CertificateHash

Call = tuple[str, dict[str, Any]]

USES = {
    "CSMSRootCertificate": "CSMSRootCertificate",
    "ManufacturerRootCertificate": "ManufacturerRootCertificate",
    "V2GRootCertificate": "V2GRootCertificate",
    "MORootCertificate": "MORootCertificate",
}
LONGEST_CERTIFICATE = 5500
MESSAGE_TIMEOUT_S = 30


def set_password(password: str) -> Call:
    return _set(("SecurityCtrlr", "BasicAuthPassword", password))


def set_security_profile(profile: int, url: str, slot: int) -> list[Call]:
    """A connection profile with the higher number, and that one first (A05, B09); the station moves when it starts."""
    data = {
        "ocppVersion": "OCPP20",
        "ocppTransport": "JSON",
        "ocppCsmsUrl": url,
        "messageTimeout": MESSAGE_TIMEOUT_S,
        "securityProfile": profile,
        "ocppInterface": "Wired0",
    }
    return [
        ("SetNetworkProfile", {"configurationSlot": slot, "connectionData": data}),
        _set(("OCPPCommCtrlr", "NetworkConfigurationPriority", str(slot))),
        ("Reset", {"type": "OnIdle"}),
    ]


def set_status(result: Mapping[str, Any]) -> str:
    results = _objects(result.get("setVariableResult"))
    return str(results[0].get("attributeStatus", "")) if results else str(result.get("status", ""))


def event(payload: Mapping[str, Any]) -> tuple[str, object, str]:
    """The kind of a security event, its time as told, and what is told of it besides."""
    return str(payload.get("type", ""))[:50], payload.get("timestamp"), str(payload.get("techInfo") or "")


def request_of(payload: Mapping[str, Any]) -> tuple[str, str]:
    """A certificate signing request, and what the certificate is for."""
    return str(payload.get("csr") or ""), str(payload.get("certificateType") or "ChargingStationCertificate")


def signing(accepted: bool, why: str = "") -> dict[str, Any]:
    if accepted:
        return {"status": "Accepted"}
    return {"status": "Rejected", "statusInfo": {"reasonCode": "InvalidCSR", "additionalInfo": why[:512]}}


def certificate_signed(chain: str, use: str) -> Call:
    return "CertificateSigned", {"certificateChain": chain, "certificateType": use}


def request_renewal() -> Call:
    return "TriggerMessage", {"requestedMessage": "SignChargingStationCertificate"}


def install_certificate(use: str, pem: str) -> Call:
    return "InstallCertificate", {"certificateType": USES.get(use, use), "certificate": pem}


def installed_certificates(use: str | None) -> list[Call]:
    return [("GetInstalledCertificateIds", {"certificateType": [USES.get(use, use)]} if use else {})]


def installed(call: Call, result: Mapping[str, Any]) -> list[tuple[str, CertificateHash]]:
    """Each certificate the station named, and those it hangs from."""
    found = []
    for chain in _objects(result.get("certificateHashDataChain")):
        use = str(chain.get("certificateType", ""))
        told = [chain.get("certificateHashData"), *_objects(chain.get("childCertificateHashData"))]
        found += [(use, CertificateHash.read(one)) for one in told if isinstance(one, dict)]
    return found


def delete_certificate(which: CertificateHash) -> Call:
    return "DeleteCertificate", {"certificateHashData": which.told()}


def _set(what: tuple[str, str, str]) -> Call:
    component, variable, value = what
    data = {"component": {"name": component}, "variable": {"name": variable}, "attributeValue": value}
    return "SetVariables", {"setVariableData": [data]}


def _objects(told: object) -> Sequence[Mapping[str, Any]]:
    return [one for one in told if isinstance(one, dict)] if isinstance(told, list) else []

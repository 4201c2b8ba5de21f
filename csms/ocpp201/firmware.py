"""OCPP 2.0.1: firmware, firmware for a local controller to publish, and logs (blocks L and N). Pure."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from csms.ocpp201.codec import Call, iso
from csms.vocabulary import Notice, Subject


def update_firmware(
    location: str,
    retrieve_at: datetime,
    retries: int | None,
    retry_interval_s: int | None,
    signature: str | None,
    certificate: str | None,
    install_at: datetime | None,
    request_id: int,
) -> Call:
    firmware: dict[str, Any] = {"location": location, "retrieveDateTime": iso(retrieve_at)}
    if install_at is not None:
        firmware["installDateTime"] = iso(install_at)
    if certificate:
        firmware["signingCertificate"] = certificate
    if signature:
        firmware["signature"] = signature
    again = _again(retries, retry_interval_s)
    return "UpdateFirmware", {"requestId": request_id, "firmware": firmware, **again}


def fetch_log(
    location: str,
    kind: str,
    oldest: datetime | None,
    latest: datetime | None,
    request_id: int,
    retries: int | None,
    retry_interval_s: int | None,
) -> Call:
    log: dict[str, Any] = {"remoteLocation": location}
    if oldest is not None:
        log["oldestTimestamp"] = iso(oldest)
    if latest is not None:
        log["latestTimestamp"] = iso(latest)
    named = "SecurityLog" if kind == "security" else "DiagnosticsLog"
    return "GetLog", {"logType": named, "requestId": request_id, "log": log, **_again(retries, retry_interval_s)}


def publish_firmware(
    location: str, checksum: str, request_id: int, retries: int | None, retry_interval_s: int | None
) -> Call:
    """`checksum` is the MD5 of the file, in hexadecimal: 2.0.1 names no other (L03)."""
    payload: dict[str, Any] = {"location": location, "checksum": checksum, "requestId": request_id}
    return "PublishFirmware", payload | _again(retries, retry_interval_s)


def unpublish_firmware(checksum: str) -> Call:
    return "UnpublishFirmware", {"checksum": checksum}


def carries_an_id(action: str) -> bool:
    """Do the notices about this call name the id of its request?"""
    return True


def firmware_notice(payload: Mapping[str, Any], received: datetime) -> Notice:
    return Notice(Subject.FIRMWARE, str(payload.get("status", "")), received, _whole(payload.get("requestId")))


def log_notice(payload: Mapping[str, Any], received: datetime) -> Notice:
    return Notice(Subject.LOG, str(payload.get("status", "")), received, _whole(payload.get("requestId")))


def published_notice(payload: Mapping[str, Any], received: datetime) -> Notice:
    locations = payload.get("location")
    return Notice(
        Subject.PUBLISHED_FIRMWARE,
        str(payload.get("status", "")),
        received,
        _whole(payload.get("requestId")),
        tuple(str(at) for at in locations) if isinstance(locations, list) else (),
    )


def _again(retries: int | None, interval_s: int | None) -> dict[str, int]:
    said = {"retries": retries, "retryInterval": interval_s}
    return {name: value for name, value in said.items() if value is not None}


def _whole(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None

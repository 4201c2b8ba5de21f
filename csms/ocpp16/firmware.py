"""OCPP 1.6: firmware and logs, plain and signed (1.6 §5.6, §5.18 and the security extension). Pure."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from csms.ocpp16.codec import Call, iso
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
    """Signed firmware is another message than plain firmware; only that one carries an id and a time to install."""
    again = _again(retries, retry_interval_s)
    if not (signature and certificate):
        return "UpdateFirmware", {"location": location, "retrieveDate": iso(retrieve_at), **again}
    firmware: dict[str, Any] = {"location": location, "retrieveDateTime": iso(retrieve_at)}
    if install_at is not None:
        firmware["installDateTime"] = iso(install_at)
    firmware |= {"signingCertificate": certificate, "signature": signature}
    return "SignedUpdateFirmware", {"requestId": request_id, "firmware": firmware, **again}


def fetch_log(
    location: str,
    kind: str,
    oldest: datetime | None,
    latest: datetime | None,
    request_id: int,
    retries: int | None,
    retry_interval_s: int | None,
) -> Call:
    """`diagnostics` is a core message without an id; `security` needs the security extension."""
    again = _again(retries, retry_interval_s)
    if kind != "security":
        span = {"startTime": oldest, "stopTime": latest}
        return "GetDiagnostics", {"location": location, **_times(span), **again}
    log = {"remoteLocation": location, **_times({"oldestTimestamp": oldest, "latestTimestamp": latest})}
    return "GetLog", {"logType": "SecurityLog", "requestId": request_id, "log": log, **again}


def carries_an_id(action: str) -> bool:
    """Do the notices about this call name the id of its request?"""
    return action in ("SignedUpdateFirmware", "GetLog")


def firmware_notice(payload: Mapping[str, Any], received: datetime) -> Notice:
    return Notice(Subject.FIRMWARE, str(payload.get("status", "")), received, _whole(payload.get("requestId")))


def log_notice(payload: Mapping[str, Any], received: datetime) -> Notice:
    """Of diagnostics and of logs; the one says `UploadFailed` where the other says `UploadFailure`."""
    status = str(payload.get("status", "")).replace("UploadFailed", "UploadFailure")
    return Notice(Subject.LOG, status, received, _whole(payload.get("requestId")))


def _times(span: Mapping[str, datetime | None]) -> dict[str, str]:
    return {name: iso(at) for name, at in span.items() if at is not None}


def _again(retries: int | None, interval_s: int | None) -> dict[str, int]:
    said = {"retries": retries, "retryInterval": interval_s}
    return {name: value for name, value in said.items() if value is not None}


def _whole(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None

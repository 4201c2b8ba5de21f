"""The two dialects' schemas, compiled once from those in the `ocpp` package, and the names of their errors.

A `Dialect` answers three questions: may we send this, is what came in right, and what is a fault called here.
`format: date-time` is checked by the compiled schema in its strict form; `repairs.py` is where a looser one is let in.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema_rs
import ocpp
import orjson

log = logging.getLogger(__name__)

V16 = "ocpp1.6"
V201 = "ocpp2.0.1"

# What is wrong with a frame, in our words, and as each version spells it (1.6-J §4.2.3; 2.0.1 part 4 §4.3).
_ERRORS = {
    "format": ("FormationViolation", "FormatViolation"),
    "occurrence": ("OccurenceConstraintViolation", "OccurrenceConstraintViolation"),
    "property": ("PropertyConstraintViolation", "PropertyConstraintViolation"),
    "type": ("TypeConstraintViolation", "TypeConstraintViolation"),
    "not_implemented": ("NotImplemented", "NotImplemented"),
    "not_supported": ("NotSupported", "NotSupported"),
    "protocol": ("ProtocolError", "ProtocolError"),
    "generic": ("GenericError", "GenericError"),
    "internal": ("InternalError", "InternalError"),
    "security": ("SecurityError", "SecurityError"),
    "frame": ("FormationViolation", "RpcFrameworkError"),
    "message_type": ("ProtocolError", "MessageTypeNotSupported"),
}

# A station asks these of us; nobody may ask them of a station (1.6 §4; 2.0.1 part 2 §1).
_FROM_STATIONS = frozenset(
    {
        "Authorize",
        "BootNotification",
        "ClearedChargingLimit",
        "DiagnosticsStatusNotification",
        "FirmwareStatusNotification",
        "Get15118EVCertificate",
        "GetCertificateStatus",
        "Heartbeat",
        "LogStatusNotification",
        "MeterValues",
        "NotifyChargingLimit",
        "NotifyCustomerInformation",
        "NotifyDisplayMessages",
        "NotifyEVChargingNeeds",
        "NotifyEVChargingSchedule",
        "NotifyEvent",
        "NotifyMonitoringReport",
        "NotifyReport",
        "PublishFirmwareStatusNotification",
        "ReportChargingProfiles",
        "ReservationStatusUpdate",
        "SecurityEventNotification",
        "SignCertificate",
        "SignedFirmwareStatusNotification",
        "StartTransaction",
        "StatusNotification",
        "StopTransaction",
        "TransactionEvent",
    }
)

_KINDS = {
    "type": "type",
    "required": "occurrence",
    "minItems": "occurrence",
    "maxItems": "occurrence",
    "additionalProperties": "format",
}


@dataclass(frozen=True)
class Dialect:
    """One version of OCPP: its actions, its schemas, the spelling of its errors."""

    name: str
    requests: dict[str, jsonschema_rs.Validator]
    results: dict[str, jsonschema_rs.Validator]
    folded: dict[str, str] = field(default_factory=dict)

    @property
    def unreadable_id(self) -> str | None:
        """The message id of an answer to a frame whose id cannot be read; 1.6 has none (2.0.1 part 4 §4.2.3)."""
        return "-1" if self.name == V201 else None

    def error(self, fault: str) -> str:
        return _ERRORS[fault][1 if self.name == V201 else 0]

    def refusal(self, action: str, payload: object) -> str | None:
        """Why this request may not be sent, naming the field; None when it may."""
        validator = self.requests.get(action)
        if validator is None:
            return f"{action} is no action of {self.name}"
        if action in _FROM_STATIONS:
            return f"{action} is sent by stations, not to them"
        return first_fault(validator, payload)


def first_fault(validator: jsonschema_rs.Validator, payload: object) -> str | None:
    """The first thing wrong, with the path of its field."""
    if validator.is_valid(payload):
        return None
    error = next(iter(validator.iter_errors(payload)))
    path = ".".join(str(p) for p in error.instance_path)
    return f"{path}: {error.message}" if path else str(error.message)


def fault_of(error: jsonschema_rs.ValidationError) -> str:
    """The kind of a schema error, in our words."""
    return _KINDS.get(str(error.schema_path[-1]) if error.schema_path else "", "property")


@cache
def dialect(name: str) -> Dialect:
    """The dialect of a sub-protocol name. Compiled once a process (about 20 ms)."""
    folder = Path(ocpp.__file__).parent / ("v201" if name == V201 else "v16") / "schemas"
    requests: dict[str, jsonschema_rs.Validator] = {}
    results: dict[str, jsonschema_rs.Validator] = {}
    for path in folder.glob("*.json"):
        schema: dict[str, Any] = orjson.loads(path.read_text("utf-8-sig"))
        validator = jsonschema_rs.validator_for(schema, validate_formats=True)
        if path.stem.endswith("Response"):
            results[path.stem.removesuffix("Response")] = validator
        else:
            requests[path.stem.removesuffix("Request")] = validator
    return Dialect(name, requests, results, {action.lower(): action for action in requests})

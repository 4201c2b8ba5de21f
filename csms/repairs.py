"""Tolerant in: what real stations get wrong, mended by name (quirks Q9 to Q13), only after the schema refused it.

Each mend has a name that is counted for the station. What cannot be mended is refused with the standard's error,
except in messages of a transaction: there, what is wrong but not needed is let through, because a transaction
refused is a transaction lost, and some stations repeat a refused stop for ever (Q12).
Pure: works on the parsed payload, in place.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import islice
from typing import Any

import jsonschema_rs

from csms.schemas import fault_of
from csms.vocabulary import read_time

ROUNDS = 6
ERRORS_LOOKED_AT = 200

LEDGER = frozenset({"StartTransaction", "StopTransaction", "TransactionEvent"})
"""Messages that are never refused for a detail."""

# Words from lists that grow with every maker: kept as they came, the codecs know what to do with an unknown one.
_OPEN_LISTS = frozenset(
    {
        "measurand",
        "unit",
        "context",
        "location",
        "phase",
        "format",
        "errorCode",
        "reason",
        "stoppedReason",
        "triggerReason",
        "chargingState",
        "type",
    }
)

# A member a station forgot, and what is meant by its absence.
_FORGOTTEN: dict[tuple[str, str], Any] = {
    ("StatusNotification", "errorCode"): "NoError",
    ("StatusNotification", "connectorId"): 0,
    ("BootNotification", "chargePointVendor"): "unknown",
    ("BootNotification", "chargePointModel"): "unknown",
    ("BootNotification", "vendorName"): "unknown",
    ("BootNotification", "model"): "unknown",
    ("BootNotification", "reason"): "Unknown",
    ("StartTransaction", "idTag"): "",
    ("StartTransaction", "connectorId"): 1,
    ("StopTransaction", "transactionId"): -1,
}

_CLOSED_WORDS = {"occupied": "Occupied"}
_LONGEST_TEXT = 2500


class NotMendable(Exception):
    """What is wrong, in our words for faults, with the path of the field."""

    def __init__(self, fault: str, description: str) -> None:
        super().__init__(description)
        self.fault, self.description = fault, description


def mend(action: str, payload: Any, validator: jsonschema_rs.Validator) -> tuple[Any, tuple[str, ...]]:
    """The payload made right, and the names of what was mended. Raises `NotMendable`."""
    names: list[str] = []
    if payload is None:
        payload, names = {}, ["null_payload"]
    elif payload == []:
        payload, names = {}, ["list_payload"]
    elif not isinstance(payload, dict):
        raise NotMendable("type", "the payload is no object")
    for _ in range(ROUNDS):
        changed = False
        for error in islice(validator.iter_errors(payload), ERRORS_LOOKED_AT):
            name, did_change = _mend_one(action, payload, error)
            changed = changed or did_change
            if name not in names:
                names.append(name)
        if not changed:
            return payload, tuple(names)
    return payload, tuple(names)


def _mend_one(action: str, payload: dict[str, Any], error: jsonschema_rs.ValidationError) -> tuple[str, bool]:
    """Mend what one schema error points at: its name, and whether the payload changed."""
    path = list(error.instance_path)
    found, parent, value = _find(payload, path)
    if not found:
        return "mended_above", False  # an earlier mend of this round already took it away
    kind = str(error.schema_path[-1]) if error.schema_path else ""
    member = next((p for p in reversed(path) if isinstance(p, str)), "")
    if kind == "additionalProperties":
        for extra in getattr(error.kind, "unexpected", ()):
            value.pop(extra, None)
        return "extra_field", True
    if kind == "required":
        return _add_forgotten(action, value, error)
    if kind == "type":
        return _turn_type(action, parent, path, value, error)
    if kind == "enum":
        return _mend_word(action, parent, path, member, value, error)
    if kind == "format":
        return _mend_time(action, parent, path, value, error)
    if kind in ("maxLength", "minLength") and len(str(value)) <= _LONGEST_TEXT:
        return "odd_length", False
    if kind in ("minItems", "multipleOf", "minimum", "maximum", "pattern"):
        return "odd_value", False
    if action in LEDGER:
        return "odd_value", False
    raise _refused(error)


def _add_forgotten(action: str, value: Any, error: jsonschema_rs.ValidationError) -> tuple[str, bool]:
    missing = str(getattr(error.kind, "property", ""))
    if (action, missing) in _FORGOTTEN and isinstance(value, dict):
        value[missing] = _FORGOTTEN[action, missing]
        return f"missing_{missing}", True
    top_level = not error.instance_path
    if action in LEDGER and not (top_level and missing == "transactionInfo") and missing != "transactionId":
        return f"missing_{missing}", False
    if missing == "timestamp":
        return "missing_timestamp", False
    raise _refused(error)


def _turn_type(
    action: str, parent: Any, path: list[Any], value: Any, error: jsonschema_rs.ValidationError
) -> tuple[str, bool]:
    wanted = getattr(error.kind, "types", ())
    turned = _turned(value, [str(w) for w in wanted])
    if turned is not None and parent is not None:
        parent[path[-1]] = turned[1]
        return turned[0], True
    if value is None and isinstance(parent, dict):
        del parent[path[-1]]
        return "null_field", True
    if action in LEDGER and isinstance(parent, dict) and path[-1] not in ("transactionInfo", "transactionId"):
        del parent[path[-1]]
        return "odd_type", True
    raise _refused(error)


def _turned(value: Any, wanted: Iterable[str]) -> tuple[str, Any] | None:
    """The same value as the wanted JSON type, with the name of the turn; None when it cannot be."""
    for kind in wanted:
        if kind == "string" and isinstance(value, bool | int | float):
            return "number_for_text", str(value).lower() if isinstance(value, bool) else str(value)
        if kind in ("integer", "number") and not isinstance(value, bool):
            number = _number(value)
            if number is not None:
                name = "text_for_number" if isinstance(value, str) else "decimal_for_integer"
                return name, round(number) if kind == "integer" else number
        if kind == "boolean" and str(value).lower() in ("true", "false", "0", "1"):
            return "word_for_boolean", str(value).lower() in ("true", "1")
        if kind == "array" and isinstance(value, dict):
            return "object_for_list", [value]
        if kind == "object" and isinstance(value, list) and len(value) == 1 and isinstance(value[0], dict):
            return "list_for_object", value[0]
    return None


def _number(value: Any) -> float | None:
    try:
        number = float(value) if isinstance(value, str | int | float) else None
    except ValueError:
        return None
    return number if number is not None and abs(number) < 1e15 else None


def _mend_word(
    action: str, parent: Any, path: list[Any], member: str, value: Any, error: jsonschema_rs.ValidationError
) -> tuple[str, bool]:
    """A word in another case or with spaces becomes the list's own; an open list takes what comes."""
    if not isinstance(value, str):
        return "odd_value", False  # its type is mended by another error of this round
    options = [o for o in getattr(error.kind, "options", ()) if isinstance(o, str)]
    plain = {re.sub(r"[\s_-]", "", o).lower(): o for o in options}
    word = plain.get(re.sub(r"[\s_-]", "", value).lower())
    if word is not None and parent is not None:
        parent[path[-1]] = word
        return f"{member}_spelling", True
    if member in _OPEN_LISTS or action in LEDGER:
        return f"unknown_{member}", False
    if action == "StatusNotification" and value.lower() in _CLOSED_WORDS:
        parent[path[-1]] = _CLOSED_WORDS[value.lower()]
        return "unknown_status", value not in _CLOSED_WORDS.values()
    raise _refused(error)


def _mend_time(
    action: str, parent: Any, path: list[Any], value: Any, error: jsonschema_rs.ValidationError
) -> tuple[str, bool]:
    if getattr(error.kind, "format", "date-time") != "date-time":
        return "odd_value", False
    if read_time(value) is not None:
        return "odd_time", False  # `moment` reads it
    if action in LEDGER or (action == "StatusNotification" and isinstance(parent, dict)):
        return "bad_time", False  # `moment` takes the time of receipt
    raise _refused(error)


def _find(payload: Any, path: list[Any]) -> tuple[bool, Any, Any]:
    """What lies at the path, and what it lies in."""
    parent: Any = None
    here = payload
    for step in path:
        parent = here
        try:
            here = here[step]
        except (KeyError, IndexError, TypeError):
            return False, None, None
    return True, parent, here


def _refused(error: jsonschema_rs.ValidationError) -> NotMendable:
    path = ".".join(str(p) for p in error.instance_path)
    message = str(error.message)[:160]
    return NotMendable(fault_of(error), f"{path}: {message}" if path else message)


_STRAY_COMMAS = re.compile(rb'"(?:[^"\\]|\\.)*"|,(?=\s*[,\]}])|(?<=[\[{])\s*,')


def without_stray_commas(frame: bytes) -> bytes:
    """`[,{` and `,]` as some firmware writes them (Q9). Text inside quotes is left alone."""
    return _STRAY_COMMAS.sub(lambda m: m.group() if m.group().startswith(b'"') else b"", frame)

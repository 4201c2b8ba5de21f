# ruff: noqa: E501
"""Frames that break the rules (Q9, Q10): what arrives, and what must come of it, in both dialects.

`test_broken_frames.py` sends each over a real socket; `docs/frames.md` is this table for people, held to it by a test.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from csms.schemas import V16, V201

NOW = "2026-11-24T10:00:00Z"
ANSWERED, SILENCE = "answered", "no answer"
"""Outcomes besides the words of `schemas.Dialect.error`: as if nothing were wrong, or not at all."""

Sent = Any
"""A frame as bytes or text, or what becomes one as JSON. Its message id is "x" unless it is about the id."""


@dataclass(frozen=True)
class Case:
    quirk: str
    what: str  # for people
    v16: Sent
    v201: Sent
    outcome: str
    counter: str = ""
    v201_outcome: str = ""  # where it is another
    message_id: Any = "x"  # of the answer
    v201_message_id: Any = None
    v201_counter: str | None = None

    def sent(self, version: str) -> Sent:
        return self.v16 if version == V16 else self.v201

    def comes_of_it(self, version: str) -> str:
        return self.v201_outcome or self.outcome if version == V201 else self.outcome

    def answered_to(self, version: str) -> Any:
        return self.v201_message_id if version == V201 and self.v201_message_id is not None else self.message_id

    def counted(self, version: str) -> str:
        return self.v201_counter if version == V201 and self.v201_counter is not None else self.counter


def call(action: str, payload: Any) -> list[Any]:
    return [2, "x", action, payload]


def both(quirk: str, what: str, frame: Sent, outcome: str, counter: str = "", **more: Any) -> Case:
    """The same frame in both dialects."""
    return Case(quirk, what, frame, frame, outcome, counter, **more)


def unreadable(what: str, frame: Sent, counter: str = "malformed_frame") -> Case:
    """No id to answer to: 1.6 has no word for it, 2.0.1 says "-1" (part 4 §4.2.3)."""
    return both("Q9", what, frame, SILENCE, counter, v201_outcome="frame", v201_message_id="-1")


BEAT = '[2,"x","Heartbeat",{}]'

FRAMES = (
    both("Q9", "an empty frame", "", SILENCE, "empty_frame"),
    both("Q9", "nothing but white space", " \r\n", SILENCE, "empty_frame"),
    both(
        "Q9",
        "null for an empty payload",
        call("Heartbeat", None),
        ANSWERED,
        "null_payload",
    ),
    both(
        "Q9",
        "a list for an empty payload",
        call("Heartbeat", []),
        ANSWERED,
        "list_payload",
    ),
    both("Q9", "no payload", [2, "x", "Heartbeat"], ANSWERED, "missing_payload"),
    both("Q9", "a fifth element", [2, "x", "Heartbeat", {}, 1], ANSWERED, "extra_element"),
    both(
        "Q9",
        "a comma too many at the end",
        '[2,"x","Heartbeat",{},]',
        ANSWERED,
        "stray_comma",
    ),
    both(
        "Q9",
        "a comma too many at the start",
        '[,2,"x","Heartbeat",{,}]',
        ANSWERED,
        "stray_comma",
    ),
    both(
        "Q9",
        "message type 1",
        [1, "x", "Heartbeat", {}],
        "message_type",
        "unknown_message_type",
    ),
    both(
        "Q9",
        "message type 6 (SEND of 2.1)",
        [6, "x", "Heartbeat", {}],
        "message_type",
        "unknown_message_type",
    ),
    both(
        "Q9",
        "a message type as text",
        ["2", "x", "Heartbeat", {}],
        ANSWERED,
        "type_as_text",
    ),
    both(
        "Q9",
        "a number as message id",
        [2, 17, "Heartbeat", {}],
        ANSWERED,
        "numeric_message_id",
        message_id=17,
    ),
    both(
        "Q9",
        "a message id of more than 36 characters",
        [2, "x" * 60, "Heartbeat", {}],
        ANSWERED,
        "long_message_id",
        message_id="x" * 60,
    ),
    both(
        "Q9",
        "a byte order mark",
        b"\xef\xbb\xbf" + BEAT.encode(),
        ANSWERED,
        "byte_order_mark",
    ),
    both("Q9", "a binary frame", BEAT.encode(), ANSWERED),
    both(
        "Q9",
        "text in Latin-1",
        b'[2,"x","DataTransfer",{"vendorId":"caf\xe9"}]',
        ANSWERED,
        "not_utf8",
    ),
    both(
        "Q9",
        "an action in other case",
        call("heartbeat", {}),
        ANSWERED,
        "action_spelling",
    ),
    both(
        "Q9",
        "JSON that ends too soon",
        '[2,"x","Heartbeat",{',
        "frame",
        "malformed_frame",
    ),
    both(
        "Q9",
        "NaN or Infinity",
        '[2,"x","DataTransfer",{"vendorId":NaN}]',
        "frame",
        "malformed_frame",
    ),
    both(
        "Q9",
        "a number beyond all numbers",
        '[2,"x","DataTransfer",{"vendorId":1e999}]',
        "frame",
        "malformed_frame",
    ),
    both(
        "Q9",
        "half a surrogate pair",
        r'[2,"x","DataTransfer",{"vendorId":"\ud800"}]',
        "frame",
        "malformed_frame",
    ),
    both(
        "Q9",
        "nesting of more than 64 levels",
        '[2,"x","DataTransfer",{"vendorId":"v","data":' + "[" * 200 + "]" * 200 + "}]",
        "frame",
        "too_deep",
    ),
    both(
        "Q9",
        "nesting no parser follows",
        '[2,"x","DataTransfer",{"vendorId":"v","data":' + "[" * 9000 + "]" * 9000 + "}]",
        "frame",
        "malformed_frame",
    ),
    both(
        "Q9",
        "a NUL in text",
        r'[2,"x","DataTransfer",{"vendorId":"a\u0000b"}]',
        ANSWERED,
        "nul_character",
    ),
    both(
        "Q9",
        "the same member twice",
        '[2,"x","DataTransfer",{"vendorId":5,"vendorId":"v"}]',
        ANSWERED,
    ),
    unreadable("no JSON at all", "hello"),
    unreadable("an object in place of a list", "{}"),
    unreadable("a number in place of a list", "42"),
    unreadable("an empty list", "[]"),
    unreadable("a call without an id", [2]),
    unreadable("null as message id", [2, None, "Heartbeat", {}]),
    unreadable("an object as message id", [2, {}, "Heartbeat", {}]),
    unreadable("an empty message id", [2, "", "Heartbeat", {}]),
    both("Q9", "a call without an action", [2, "x"], "frame", "malformed_frame"),
    both("Q9", "a number as action", [2, "x", 5, {}], "frame", "malformed_frame"),
    both("Q9", "an action nobody knows", call("FlyAway", {}), "not_implemented"),
    Case(
        "Q9",
        "an action that is ours to send",
        call("ClearCache", {}),
        call("ClearCache", {}),
        "not_supported",
    ),
    both("Q9", "text as payload", call("Heartbeat", "hi"), "type", "refused_message"),
    both("Q9", "an answer nobody asked for", [3, "x", {}], SILENCE, "unasked_answer"),
    both(
        "Q9",
        "an error nobody asked for",
        [4, "x", "GenericError", "", {}],
        SILENCE,
        "unasked_answer",
    ),
    both("Q9", "an answer without an id", [3], SILENCE, "unasked_answer"),
)


def values(**more: Any) -> dict[str, Any]:
    """The MeterValues of 1.6 with something else in its sampled value or beside it."""
    value = {"timestamp": NOW, "sampledValue": [{"value": "1"}], **more}
    return {"connectorId": 1, "meterValue": [value]}


def values201(**more: Any) -> dict[str, Any]:
    return {
        "evseId": 1,
        "meterValue": [{"timestamp": NOW, "sampledValue": [{"value": 1}], **more}],
    }


def sampled(v16: Any, v201: Any) -> tuple[list[Any], list[Any]]:
    return call("MeterValues", values(sampledValue=v16)), call("MeterValues", values201(sampledValue=v201))


def status(**more: Any) -> list[Any]:
    return call(
        "StatusNotification",
        {"connectorId": 1, "errorCode": "NoError", "status": "Available", **more},
    )


def status201(**more: Any) -> list[Any]:
    right = {
        "timestamp": NOW,
        "connectorStatus": "Available",
        "evseId": 1,
        "connectorId": 1,
    }
    return call("StatusNotification", {**right, **more})


def event(**more: Any) -> list[Any]:
    right = {
        "eventType": "Started",
        "timestamp": NOW,
        "triggerReason": "Authorized",
        "seqNo": 0,
    }
    return call("TransactionEvent", {**right, "transactionInfo": {"transactionId": "t"}, **more})


def start(**more: Any) -> list[Any]:
    return call(
        "StartTransaction",
        {"connectorId": 1, "idTag": "A", "meterStart": 0, "timestamp": NOW, **more},
    )


def stop(**more: Any) -> list[Any]:
    return call(
        "StopTransaction",
        {"transactionId": 1, "meterStop": 1, "timestamp": NOW, **more},
    )


def shown(tag: Any) -> tuple[list[Any], list[Any]]:
    return call("Authorize", {"idTag": tag}), call("Authorize", {"idToken": {"idToken": tag, "type": "ISO14443"}})


def without(frame: list[Any], name: str) -> list[Any]:
    return [*frame[:3], {k: v for k, v in frame[3].items() if k != name}]


PAYLOADS = (
    both("Q10", "a field of the vendor's own", call("Heartbeat", {"vendor": {"a": 1}}), ANSWERED, "extra_field"),
    Case(
        "Q10",
        "meterValue as an object",
        call("MeterValues", {**values(), "meterValue": values()["meterValue"][0]}),
        call("MeterValues", {**values201(), "meterValue": values201()["meterValue"][0]}),
        ANSWERED,
        "object_for_list",
    ),
    Case("Q10", "a number where text belongs", *shown(12345), ANSWERED, "number_for_text"),
    Case("Q10", "text where a number belongs", status(connectorId="1"), status201(evseId="1"), ANSWERED, "text_for_number"),
    Case("Q10", "a decimal where a whole number belongs", start(meterStart=0.4), event(seqNo=0.4), ANSWERED, "decimal_for_integer"),
    Case("Q10", "a whole number written as a decimal", start(meterStart=5.0), event(seqNo=5.0), ANSWERED, "decimal_for_integer", v201_counter=""),
    Case("Q10", "a number no machine holds", status(connectorId=10**40), status201(evseId=10**40), "type", "refused_message", v201_outcome=ANSWERED, v201_counter=""),
    Case("Q10", "no sampled values", *sampled([], []), ANSWERED, "odd_value"),
    Case("Q10", "2,000 sampled values", *sampled([{"value": "1"}] * 2000, [{"value": 1}] * 2000), ANSWERED),
    Case("Q10", "a value that is no number", *sampled([{"value": "n/a"}], [{"value": "n/a"}]), ANSWERED, "", v201_outcome="type", v201_counter="refused_message"),
    Case(
        "Q10",
        "the unit Hz",
        *sampled([{"value": "50", "unit": "Hz"}], [{"value": 50, "unitOfMeasure": {"unit": "Hz"}}]),
        ANSWERED,
        "unknown_unit",
        v201_counter="",
    ),
    Case(
        "Q10",
        "a measurand on no list",
        *sampled([{"value": "5", "measurand": "Joy"}], [{"value": 5, "measurand": "Joy"}]),
        ANSWERED,
        "unknown_measurand",
    ),
    Case(
        "Q10",
        "a measurand with spaces, in other case",
        *sampled([{"value": "5", "measurand": " current.IMPORT "}], [{"value": 5, "measurand": " current.IMPORT "}]),
        ANSWERED,
        "measurand_spelling",
    ),
    Case("Q10", "a status in other case", status(status="suspended_ev"), status201(connectorStatus="AVAILABLE"), ANSWERED, "status_spelling", v201_counter="connectorStatus_spelling"),
    Case("Q10", "a status with spaces", status(status=" Suspended EV"), status201(connectorStatus="Available "), ANSWERED, "status_spelling", v201_counter="connectorStatus_spelling"),
    Case("Q10", "a status of the other version", status(status="Occupied"), status201(connectorStatus="Charging"), ANSWERED, "unknown_status", v201_outcome="property", v201_counter="refused_message"),
    Case("Q10", "a status nobody knows", status(status="Dreaming"), status201(connectorStatus="Dreaming"), "property", "refused_message"),
    Case("Q10", "the error code “Error”", status(errorCode="Error", status="Faulted"), None, ANSWERED, "unknown_errorCode"),
    Case("Q10", "no error code", without(status(), "errorCode"), None, ANSWERED, "missing_errorCode"),
    Case("Q10", "a reason on no list", stop(reason="Whim"), event(triggerReason="Whim"), ANSWERED, "unknown_reason", v201_counter="unknown_triggerReason"),
    Case("Q10", "a token with backslashes", *shown("04\\A1\\B2"), ANSWERED),
    Case("Q10", "a token longer than the schema allows", *shown("A" * 50), ANSWERED, "odd_length"),
    Case("Q10", "null for a field that is absent", status(info=None), event(offline=None), ANSWERED, "null_field"),
    Case("Q10", "a word for true", None, event(offline="True"), ANSWERED, "word_for_boolean"),
    Case("Q10", "a time without a zone", status(timestamp="2026-11-24 10:00:00"), status201(timestamp="2026-11-24T10:00:00"), ANSWERED, "odd_time"),
    Case("Q10", "a time that is none, in a status", status(timestamp="noon"), status201(timestamp="noon"), ANSWERED, "bad_time"),
    Case("Q10", "a time that is none, in meter values", call("MeterValues", values(timestamp="noon")), call("MeterValues", values201(timestamp="noon")), "property", "refused_message"),
    Case("Q10", "a time that is none, in a transaction", start(timestamp="noon"), event(timestamp="noon"), ANSWERED, "bad_time"),
    Case("Q10", "no time, in a transaction", without(start(), "timestamp"), without(event(), "timestamp"), ANSWERED, "missing_timestamp"),
    Case("Q10", "no transaction id", without(stop(), "transactionId"), event(transactionInfo={}), ANSWERED, "missing_transactionId", v201_outcome="occurrence", v201_counter="refused_message"),
    Case("Q10", "no token in a start", without(start(), "idTag"), None, ANSWERED, "missing_idTag"),
    Case("Q10", "an empty transaction id", None, event(transactionInfo={"transactionId": ""}), "property"),
    Case("Q10", "a list where a number belongs, in a transaction", stop(meterStop=[]), event(seqNo=[]), ANSWERED, "odd_type"),
    Case("Q10", "an object where a number belongs", status(connectorId={"a": 1}), status201(evseId={"a": 1}), "type", "refused_message"),
    Case("Q10", "a member that is needed is missing", without(status(), "status"), without(status201(), "connectorStatus"), "occurrence", "refused_message"),
    Case("Q10", "a list of one where an object belongs", None, event(transactionInfo=[{"transactionId": "t"}]), ANSWERED, "list_for_object"),
)  # fmt: skip

CASES = FRAMES + PAYLOADS


def raw(sent: Sent) -> str | bytes:
    return sent if isinstance(sent, str | bytes) else json.dumps(sent)


def table(spell: Callable[[str, str], str]) -> list[str]:
    """The rows of `docs/frames.md`; `spell` gives a fault as a version spells it."""
    rows = []
    for case in CASES:
        cells = [case.quirk, case.what]
        for version in (V16, V201):
            outcome = case.comes_of_it(version)
            if case.sent(version) is None:
                cells.append("–")
            elif outcome in (ANSWERED, SILENCE):
                cells.append(outcome)
            else:
                to = " to id “-1”" if case.answered_to(version) == "-1" else ""
                cells.append(f"`{spell(version, outcome)}`{to}")
        names = dict.fromkeys(n for v in (V16, V201) if case.sent(v) is not None and (n := case.counted(v)))
        cells.append(", ".join(f"`{n}`" for n in names) or "–")
        rows.append("| " + " | ".join(cells) + " |")
    return rows

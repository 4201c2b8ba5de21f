"""Payloads made from the schemas: valid ones, and ones gone wrong in the ways real ones do.

Everything hangs on the `random.Random` that is given, so a seed is a test case.
"""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import ocpp

V16, V201 = "ocpp1.6", "ocpp2.0.1"
Schema = dict[str, Any]
_WORDS = "ABCdef 0123_-.é/\"\\:漢😀'<&>%"


@cache
def schema_of(version: str, action: str, part: str) -> Schema:
    """`part` is request or response."""
    folder = Path(ocpp.__file__).parent / ("v201" if version == V201 else "v16") / "schemas"
    names = {
        (V16, "request"): action,
        (V16, "response"): f"{action}Response",
        (V201, "request"): f"{action}Request",
        (V201, "response"): f"{action}Response",
    }
    found: Schema = json.loads((folder / f"{names[version, part]}.json").read_text("utf-8-sig"))
    return found


@cache
def actions(version: str) -> tuple[str, ...]:
    folder = Path(ocpp.__file__).parent / ("v201" if version == V201 else "v16") / "schemas"
    return tuple(sorted(p.stem.removesuffix("Response") for p in folder.glob("*Response.json")))


def payload(version: str, action: str, part: str, chance: random.Random) -> dict[str, Any]:
    """A payload that is right."""
    schema = schema_of(version, action, part)
    made: dict[str, Any] = _make(schema, schema, chance, 0)
    return made


def _make(schema: Schema, root: Schema, chance: random.Random, depth: int) -> Any:
    if "$ref" in schema:
        return _make(root["definitions"][schema["$ref"].rpartition("/")[2]], root, chance, depth)
    if "enum" in schema:
        return chance.choice(schema["enum"])
    kind = schema.get("type", "object" if "properties" in schema else "any")
    if isinstance(kind, list):
        kind = chance.choice(kind)
    return _MAKERS[kind](schema, root, chance, depth)


def _object(schema: Schema, root: Schema, chance: random.Random, depth: int) -> dict[str, Any]:
    needed = schema.get("required", ())
    made = {}
    for name, member in schema.get("properties", {}).items():
        if name in needed or (depth < 5 and chance.random() < 0.4):
            made[name] = _make(member, root, chance, depth + 1)
    return made


def _array(schema: Schema, root: Schema, chance: random.Random, depth: int) -> list[Any]:
    least = schema.get("minItems", 0)
    most = min(schema.get("maxItems", 3), max(least, 3))
    items = schema.get("items", {})
    return [_make(items, root, chance, depth + 1) for _ in range(chance.randint(least, most))]


def _string(schema: Schema, root: Schema, chance: random.Random, depth: int) -> str:
    if schema.get("format") == "date-time":
        at = datetime(2026, 11, 24, 10, tzinfo=UTC) + timedelta(seconds=chance.randint(-86_400, 86_400))
        return at.isoformat(timespec=chance.choice(["seconds", "milliseconds"])).replace("+00:00", "Z")
    if schema.get("format") == "uri":
        return f"https://files.example/{chance.randint(0, 99)}"
    most = min(schema.get("maxLength", 30), 30)
    return "".join(chance.choice(_WORDS) for _ in range(chance.randint(min(1, most), most)))


def _integer(schema: Schema, root: Schema, chance: random.Random, depth: int) -> int:
    return chance.randint(
        int(schema.get("minimum", 0)),
        int(schema.get("maximum", chance.choice([1, 3, 1000, 2**31 - 1]))),
    )


def _number(schema: Schema, root: Schema, chance: random.Random, depth: int) -> float:
    if "multipleOf" in schema:
        return chance.randint(0, 400) / 10
    return chance.choice([0, 1, 16.5, 230.123, chance.uniform(-1000, 1e6)])


_MAKERS: dict[str, Callable[[Schema, Schema, random.Random, int], Any]] = {
    "object": _object,
    "array": _array,
    "string": _string,
    "integer": _integer,
    "number": _number,
    "boolean": lambda schema, root, chance, depth: chance.random() < 0.5,
    "any": lambda schema, root, chance, depth: chance.choice([{"aB": [1, "x"]}, "text", 5]),
}


# ---------------------------------------------------------------------- gone wrong


def nested(depth: int) -> Any:
    inner: Any = 1
    for _ in range(depth):
        inner = {"a": inner}
    return inner


_ODD: tuple[Callable[[random.Random], Any], ...] = (
    lambda c: None,
    lambda c: c.random() < 0.5,
    lambda c: -1,
    lambda c: 2**31,
    lambda c: 2**63,
    lambda c: 10**40,
    lambda c: 1e308,
    lambda c: -0.0,
    lambda c: 1.5,
    lambda c: "",
    lambda c: "x" * 3000,
    lambda c: "\x00a\x00",
    lambda c: "\ud800",
    lambda c: "1e999",
    lambda c: "9" * 400,
    lambda c: "NaN",
    lambda c: "1970-01-01T00:00:00Z",
    lambda c: "yesterday-ish",
    lambda c: "0001-01-01T00:00:00+14:00",
    lambda c: "9999-12-31T23:59:59-14:00",
    lambda c: [],
    lambda c: {},
    lambda c: [[]],
    lambda c: [{}] * 3,
    lambda c: {"a": {"b": "c"}},
    lambda c: nested(c.choice([30, 300, 700])),
    lambda c: ["x"] * 2000,
)


def spoiled(right: dict[str, Any], chance: random.Random) -> Any:
    """The payload with one to three members gone wrong."""
    wrong: Any = copy.deepcopy(right)
    for _ in range(chance.randint(1, 3)):
        places = list(_places(wrong))
        if not places:
            return chance.choice(_ODD)(chance)
        holder, key = chance.choice(places)
        match chance.randrange(5):
            case 0 if isinstance(holder, dict):
                del holder[key]
            case 1 if isinstance(holder, dict):
                holder[chance.choice([key.upper(), f" {key}", "vendorSpecific", ""])] = holder.pop(key)
            case 2 if isinstance(holder[key], list | dict):
                holder[key] = [holder[key]] if isinstance(holder[key], dict) else dict.fromkeys("ab", holder[key])
            case 3 if isinstance(holder[key], str):
                holder[key] = chance.choice([holder[key].swapcase(), f" {holder[key]} ", holder[key] * 9, 7])
            case _:
                holder[key] = chance.choice(_ODD)(chance)
    return wrong


def _places(thing: Any) -> Any:
    """Every (holder, key) below."""
    if isinstance(thing, dict | list):
        for key in list(thing) if isinstance(thing, dict) else range(len(thing)):
            yield thing, key
            yield from _places(thing[key])


def broken_text(frame: str, keep: int, chance: random.Random) -> bytes:
    """The frame with something wrong in its text, after its first `keep` characters."""
    head, tail = frame[:keep], frame[keep:]
    at = chance.randrange(len(tail) or 1)
    match chance.randrange(12):
        case 0:
            tail = tail[:at]
        case 1:
            tail += chance.choice(["]", ",", " \n\t", "garbage", "\x00"])
        case 2:
            tail = tail[:at] + chance.choice([",", ",,", "]", "}", '"', ":", "\\"]) + tail[at:]
        case 3:
            tail = tail.replace("{", "{,", 1)
        case 4:
            tail = tail.replace("}", ",}", 1)
        case 5:
            tail = tail.replace(
                ":",
                f':{chance.choice(["NaN", "Infinity", "-Infinity", "undefined", "01", ".5"])},"z":',
                1,
            )
        case 6:
            tail = tail.replace(
                "{",
                '{"timestamp":1,"timestamp":"x","connectorId":1,"connectorId":[],',
                1,
            )
        case 7:
            tail = tail.replace("{", '{"n":' + "[" * 1100 + "]" * 1100 + ",", 1)
        case 8:
            tail = tail.replace("{", '{"n":' + "[" * 5000 + ",", 1)
        case 9:
            spoilt = (head + tail[:at]).encode("utf-8", "surrogatepass")
            return spoilt + bytes([chance.randrange(128, 256)]) + tail[at:].encode("utf-8", "surrogatepass")
        case 10:
            return b"\xef\xbb\xbf" + frame.encode("utf-8", "surrogatepass")
        case _:
            tail = tail.replace('"', "'")
    return (head + tail).encode("utf-8", "surrogatepass")


def noise(chance: random.Random) -> bytes:
    """What is no frame at all, or a frame of no call."""
    match chance.randrange(8):
        case 0:
            return chance.randbytes(chance.randrange(200))
        case 1:
            return json.dumps(
                [
                    chance.choice([0, 1, 5, 6, -1, 2.5, None, True, "x", [], {}]),
                    "n",
                    "Heartbeat",
                    {},
                ]
            ).encode()
        case 2:
            return json.dumps([3, f"nobody-{chance.random()}", nested(chance.choice([1, 300]))]).encode()
        case 3:
            return json.dumps(
                [
                    4,
                    chance.choice(["n", 5, None, {}, ""]),
                    chance.choice([None, 1, "X"]),
                ]
            ).encode()
        case 4:
            return json.dumps([2, chance.choice([None, {}, [], True, ""]), "Heartbeat", {}]).encode()
        case 5:
            return b"[" * chance.choice([1, 900, 1100, 50_000])
        case 6:
            return chance.choice(
                [
                    b"",
                    b" ",
                    b"{}",
                    b"[]",
                    b"[2]",
                    b"null",
                    b"2",
                    b'"text"',
                    b"[[2]]",
                    b"[3]",
                    b"[4]",
                ]
            )
        case _:
            return json.dumps([chance.choice(["2", " 3 ", "4"]), "n" + "m" * 5000, nested(400)]).encode()

"""Payloads out of the standard's own schemas: any that is valid, made by Hypothesis."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import ocpp
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from csms.schemas import V201

TEXT = st.text(st.characters(codec="utf-8", exclude_categories=("Cs", "Cc")), max_size=40)
WORDS = st.one_of(st.sampled_from(["", "1", "-1", "230.4", "1e400", "nan", "Wh", "é ü", "a" * 40]), TEXT)
WHOLE = st.one_of(st.integers(-3, 40), st.integers(-(2**31), 2**31 - 1), st.integers(-(2**62), 2**62))
NUMBERS = st.one_of(WHOLE, st.floats(-1e12, 1e12, allow_nan=False))
TIMES = st.one_of(
    st.sampled_from(["1970-01-01T00:00:00Z", "2026-11-24T10:00:00.123Z", "2099-12-31T23:59:59+02:00"]),
    st.datetimes(datetime(1990, 1, 1), datetime(2090, 1, 1), timezones=st.just(UTC)).map(datetime.isoformat),  # noqa: DTZ001
)
ADDRESSES = st.sampled_from(["https://example.org/a", "ftp://u:p@example.org/x"])


@cache
def schema(version: str, action: str, *, response: bool = False) -> dict[str, Any]:
    folder = Path(ocpp.__file__).parent / ("v201" if version == V201 else "v16") / "schemas"
    ending = "Response" if response else "Request" if version == V201 else ""
    return json.loads((folder / f"{action}{ending}.json").read_text("utf-8-sig"))


def valid(part: dict[str, Any], whole: dict[str, Any] | None = None) -> st.SearchStrategy[Any]:
    """Anything that fits the schema; optional members are there or not."""
    whole = whole or part
    if "$ref" in part:
        return valid(whole["definitions"][part["$ref"].rpartition("/")[2]], whole)
    if "enum" in part:
        return st.sampled_from(part["enum"])
    match part.get("type"):
        case "string":
            return _text(part)
        case "integer":
            return WHOLE
        case "number":
            return NUMBERS.map(lambda n: round(n, 1)) if "multipleOf" in part else NUMBERS
        case "boolean":
            return st.booleans()
        case "array":
            most = min(part.get("maxItems", 3), 3)
            return st.lists(valid(part["items"], whole), min_size=part.get("minItems", 0), max_size=most)
    required = set(part.get("required", ()))
    members = {n: valid(p, whole) for n, p in part.get("properties", {}).items() if n != "customData"}
    if not members:
        return st.just({})
    return st.fixed_dictionaries(
        {n: s for n, s in members.items() if n in required},
        optional={n: s for n, s in members.items() if n not in required},
    )


def _text(part: dict[str, Any]) -> st.SearchStrategy[str]:
    if part.get("format") == "date-time":
        return TIMES
    if part.get("format") == "uri":
        return ADDRESSES
    longest = part.get("maxLength", 100)
    return WORDS.map(lambda text: text[:longest])


def examples(strategy: st.SearchStrategy[Any], count: int) -> list[Any]:
    """So many of them, the same every time."""
    found: list[Any] = []

    @settings(
        max_examples=count,
        database=None,
        derandomize=True,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(strategy)
    def collect(one: Any) -> None:
        found.append(one)

    collect()
    return found

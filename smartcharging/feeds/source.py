"""What every outside source has in common: a bounded, timed download, and three ways to fail.

A source may be slow, away, full of HTML, or simply early. Callers tell these apart: `NoPriceYet` is asked again later,
`SourceUnreachable` is tried elsewhere, `SourceNonsense` is for a person to look at. Nothing a source sends is trusted
with memory or time: the download has a timeout, a size and a scheme.
"""

from __future__ import annotations

import json
import time
from http.client import HTTPException, HTTPResponse
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlencode, urlsplit
from urllib.request import Request, urlopen

TIMEOUT_S = 20.0
MOST_BYTES = 5_000_000
USER_AGENT = "laadplein"


class FeedError(Exception):
    """Something about an outside source; the message is fit for a log and never holds a key."""


class NoPriceYet(FeedError):
    """The source answered, and has nothing for this day (yet)."""


class SourceUnreachable(FeedError):
    """No answer in time, or one that says the source is not in order (HTTP 401, 429, 5xx)."""


class SourceNonsense(FeedError):
    """An answer that is not what the source promises: no JSON, wrong units, impossible values."""


def get(url: str, parameters: dict[str, str], timeout_s: float = TIMEOUT_S) -> bytes:
    """The body of a GET. Raises `SourceUnreachable` (`BadStatus` for an HTTP error) or `SourceNonsense`."""
    host = urlsplit(url)
    if host.scheme not in ("http", "https"):
        raise SourceUnreachable(f"{url}: only http and https are fetched")
    name = host.netloc.rpartition("@")[2]
    request = Request(f"{url}?{urlencode(parameters)}", headers={"User-Agent": USER_AGENT})  # noqa: S310  # checked
    try:
        with urlopen(request, timeout=timeout_s) as answer:  # noqa: S310  # checked above
            body = _read(answer, time.monotonic() + timeout_s)
    except HTTPError as error:
        with error:
            said = error.read(2000)
        raise BadStatus(name, error.code, said) from None
    except (URLError, HTTPException, OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        raise SourceUnreachable(f"{name}: {reason}") from None
    if len(body) > MOST_BYTES:
        raise SourceNonsense(f"{name}: the answer is larger than {MOST_BYTES} bytes")
    return body


def _read(answer: HTTPResponse, deadline: float) -> bytes:
    """All of a body, or one byte more than is allowed. The socket's timeout is per packet; the deadline is for all."""
    parts: list[bytes] = []
    size = 0
    while size <= MOST_BYTES and (part := answer.read1(65_536)):
        parts.append(part)
        size += len(part)
        if time.monotonic() > deadline:
            raise TimeoutError("the answer did not end in time")
    return b"".join(parts)


class BadStatus(SourceUnreachable):
    """An HTTP status of 400 or more. `said` is the start of the body: some sources explain themselves there."""

    def __init__(self, name: str, status: int, said: bytes) -> None:
        super().__init__(f"{name}: HTTP {status}")
        self.status, self.said = status, said


def read_json(body: bytes, name: str) -> dict[str, Any]:
    """The JSON object in a body. Raises `SourceNonsense`."""
    try:
        data = json.loads(body)
    except (ValueError, RecursionError):
        start = body[:40].decode("utf-8", "replace").strip()
        raise SourceNonsense(f"{name}: expected JSON, got {start!r}") from None
    if not isinstance(data, dict):
        raise SourceNonsense(f"{name}: expected a JSON object, got a {type(data).__name__}")
    return data


def number(value: object) -> float | None:
    """A finite number, or None for anything else; true and false are no numbers."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if abs(value) < 1e300 and value == value else None

"""Log lines that can be searched: what a line is about stands beside it, and no secret stands in it.

`about` holds what the present task works for: a station with its site and epoch. Every line logged meanwhile carries
it: in brackets in the plain form, as fields of its own in the JSON form (`LOG_FORMAT=json`, one object a line).
"""

from __future__ import annotations

import json
import logging
import re
import traceback
from collections.abc import Mapping
from contextvars import ContextVar
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any

about: ContextVar[Mapping[str, Any]] = ContextVar("about", default=MappingProxyType({}))

_BLANK = "••••••"
_IN_ADDRESS = re.compile(r"([a-zA-Z]://)[^/\s\"'@]*@")
_NAMED = re.compile(
    r"((?:password|authorizationkey|secret|token|authorization)\w*[\"']?\s*[:=]\s*[\"']?(?:basic |bearer |token )?)"
    r"[^\s\"',;}]+",
    re.IGNORECASE,
)


def without_secrets(text: str) -> str:
    """A net below the care of each line: credentials in addresses, and what is named a password or key."""
    return _NAMED.sub(rf"\1{_BLANK}", _IN_ADDRESS.sub(rf"\1{_BLANK}@", text))


class Plain(logging.Formatter):
    """`INFO csms.gateway: [CS-001] connected`."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        station = about.get().get("station")
        if station and str(station) not in record.message:
            record.message = f"[{station}] {record.message}"
        return super().formatMessage(record)

    def format(self, record: logging.LogRecord) -> str:
        return without_secrets(super().format(record))


class Json(logging.Formatter):
    """One JSON object a line: at, level, logger, message, what it is about, and the traceback where there is one."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "at": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": without_secrets(record.getMessage()),
            "process": record.process,
            **dict(about.get()),
        }
        if record.exc_info and record.exc_info[1] is not None:
            line["traceback"] = without_secrets("".join(traceback.format_exception(record.exc_info[1])))
        return json.dumps(line, ensure_ascii=False, default=str)

"""A table of a TOML file, read field by field; everything that is wrong with it is kept, not only the first.

Pure. Each reader names the field, says what is wrong and gives a way out; a value that cannot be used becomes the
default, so that reading goes on and the next problem is found too.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import time
from typing import Any

PerPhaseLimit = tuple[float, float, float]
PHASE_NAMES = ("L1", "L2", "L3")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_TIME = re.compile(r"([01]\d|2[0-3]):([0-5]\d)")


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong: in which section and entry, at which field, and the way out."""

    section: str
    name: str
    field: str
    what: str
    way_out: str = ""

    def __str__(self) -> str:
        where = " ".join(part for part in (self.section, self.name) if part)
        where = f"{where}, {self.field}" if self.field else where
        return f"{where}: {self.what}" + (f"; {self.way_out}" if self.way_out else "")


def suggest(word: str, known: Iterable[str]) -> str:
    """“did you mean …” when something known is near, else the whole list when it is short."""
    names = sorted(known)
    near = difflib.get_close_matches(word, names, n=1, cutoff=0.6)
    if not near:
        folded = {name.casefold(): name for name in names}
        near = [folded[m] for m in difflib.get_close_matches(word.casefold(), list(folded), n=1, cutoff=0.6)]
    if near:
        return f"did you mean {near[0]!r}?"
    if not names:
        return "there is none"
    return "known: " + ", ".join(names[:30]) + (", …" if len(names) > 30 else "")


def shown(value: object) -> str:
    """A value as it may stand in a message: short."""
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "…"


class Table:
    """One table. Every key that was asked for is known; `finish` refuses the others."""

    def __init__(self, section: str, name: str, values: dict[str, Any], problems: list[Problem]) -> None:
        self.section, self.name, self.values, self.problems = section, name, values, problems
        self._asked: set[str] = set()

    def wrong(self, field: str, what: str, way_out: str = "") -> None:
        self.problems.append(Problem(self.section, self.name, field, what, way_out))

    def has(self, field: str) -> bool:
        return field in self.values

    def _get(self, field: str, required: bool) -> Any:
        self._asked.add(field)
        if field not in self.values and required:
            self.wrong(field, "is missing", "every entry needs one")
        return self.values.get(field)

    def text(
        self, field: str, default: str = "", *, required: bool = False, longest: int = 100, way_out: str = ""
    ) -> str:
        value = self._get(field, required)
        if value is None:
            return default
        if not isinstance(value, str):
            self.wrong(field, f"{shown(value)} is not a text", f'write it between quotes: "{str(value)[:40]}"')
            return default
        if not value.strip() and required:
            self.wrong(field, "is empty", way_out or "give it a value")
        elif _CONTROL.search(value):
            self.wrong(field, f"{shown(value)} holds a control character", "leave it out")
        elif len(value) > longest:
            self.wrong(field, f"is {len(value)} characters long", f"at most {longest}")
        else:
            return value
        return default

    def number(
        self, field: str, low: float, high: float, *, unit: str, default: float | None = None, required: bool = False
    ) -> float | None:
        """A finite number from `low` to `high`."""
        value = self._get(field, required)
        if value is None:
            return default
        allowed = f"give a number from {low:g} to {high:g}" + (f" {unit}" if unit else "")
        if (
            isinstance(value, bool)
            or not isinstance(value, int | float)
            or (isinstance(value, float) and not math.isfinite(value))
        ):
            self.wrong(field, f"{shown(value)} is not a number", allowed)
        elif not low <= value <= high:
            self.wrong(field, f"{shown(value)} is outside its range", allowed)
        else:
            return float(value)
        return default

    def whole(self, field: str, low: int, high: int) -> int | None:
        value = self._get(field, False)
        if value is None:
            return None
        allowed = f"give a whole number from {low} to {high}"
        if isinstance(value, bool) or not isinstance(value, int):
            self.wrong(field, f"{shown(value)} is not a whole number", allowed)
        elif not low <= value <= high:
            self.wrong(field, f"{shown(value)} is outside its range", allowed)
        else:
            return value
        return None

    def secret(self, field: str, *, longest: int) -> str | None:
        """A text that never stands in a message."""
        value = self._get(field, False)
        if value is None:
            return None
        if not isinstance(value, str):
            self.wrong(field, "is not a text", "write it between quotes")
            return None
        if len(value) > longest:
            self.wrong(field, f"is {len(value)} characters long", f"at most {longest}")
            return None
        return value

    def yes_no(self, field: str, default: bool) -> bool:
        value = self._get(field, False)
        if value is None:
            return default
        if not isinstance(value, bool):
            self.wrong(field, f"{shown(value)} is neither true nor false", "write true or false, without quotes")
            return default
        return value

    def choice(self, field: str, choices: Sequence[str], default: str, *, required: bool = False) -> str:
        value = self.text(field, default, required=required)
        if value not in choices and value != default:
            self.wrong(field, f"{shown(value)} is none of {', '.join(choices)}", suggest(value, choices))
            return default
        return value

    def per_phase(self, field: str, high: float, *, required: bool) -> PerPhaseLimit:
        """Three amps for L1, L2, L3, or one number for all."""
        value = self._get(field, required)
        if value is None:
            return (0.0, 0.0, 0.0)
        many = value if isinstance(value, list) else [value, value, value]
        good = len(many) == 3 and all(
            isinstance(v, int | float) and not isinstance(v, bool) and 0 <= v <= high for v in many
        )
        if not good:
            self.wrong(
                field,
                f"{shown(value)} is no limit per phase",
                f"give one number or three ([L1, L2, L3]), each from 0 to {high:g} A",
            )
            return (0.0, 0.0, 0.0)
        return (float(many[0]), float(many[1]), float(many[2]))

    def wiring(self, field: str = "wiring") -> tuple[str, ...]:
        """One to three different grid phases, in the order of the device's own L1, L2, L3."""
        value = self._get(field, False)
        if value is None:
            return ()
        good = (
            isinstance(value, list)
            and 1 <= len(value) <= 3
            and all(isinstance(p, str) and p in PHASE_NAMES for p in value)
            and len(set(value)) == len(value)
        )
        if not good:
            self.wrong(
                field,
                f"{shown(value)} is no wiring",
                'name one to three different phases, such as ["L2", "L3", "L1"]',
            )
            return ()
        return tuple(value)

    def time_of_day(self, field: str) -> time | None:
        value = self._get(field, False)
        if value is None:
            return None
        if isinstance(value, time):
            return value.replace(microsecond=0)
        match = _TIME.fullmatch(value) if isinstance(value, str) else None
        if match is None:
            self.wrong(field, f"{shown(value)} is no time of day", 'write hours and minutes: "17:00"')
            return None
        return time(int(match[1]), int(match[2]))

    def reference(self, field: str, known: Iterable[str], what: str, *, required: bool = False) -> str | None:
        """The name of another entry of the file, which must exist."""
        value = self._get(field, required)
        if value is None:
            return None
        names = list(known)
        if not isinstance(value, str):
            self.wrong(field, f"{shown(value)} is not a text", f"name a {what}")
        elif value not in names:
            self.wrong(field, f"no {what} is named {shown(value)}", suggest(value, names))
        else:
            return value
        return None

    def known(self, field: str) -> None:
        """This key has been told of already."""
        self._asked.add(field)

    def finish(self) -> None:
        """Refuse the keys nobody asked for: a misspelt limit must never be a limit that is silently missing."""
        for key in self.values.keys() - self._asked:
            self.wrong(key, "is not a field of this section", suggest(key, self._asked))

"""The products we know, one module each: a table and no code. To add one, add its table and its recorded registers."""

from __future__ import annotations

import difflib
import importlib
import pkgutil
from functools import cache

from meters.devices.registers import RegisterMap
from meters.devices.sunspec import SunSpecMap

P1_MAP = "p1"
"""The digital meter needs no register map; a device reached over `p1://` may leave its map empty."""

_NOT_PRODUCTS = {"rows"}


class UnknownMap(KeyError):
    """No product of this name."""

    def __str__(self) -> str:
        return str(self.args[0])


@cache
def names() -> tuple[str, ...]:
    """The names of all register maps, sorted."""
    return tuple(sorted(m.name for m in pkgutil.iter_modules(__path__) if m.name not in _NOT_PRODUCTS))


@cache
def get(name: str) -> RegisterMap | SunSpecMap:
    """The map of this name. Raises `UnknownMap` with the names that are known."""
    if name not in names():
        near = difflib.get_close_matches(name, names(), n=1)
        hint = f" (did you mean {near[0]}?)" if near else ""
        raise UnknownMap(f"map: {name!r} is not known{hint}; known are {', '.join(names())}")
    found = importlib.import_module(f"{__name__}.{name}").MAP
    assert isinstance(found, (RegisterMap, SunSpecMap))
    assert found.name == name
    return found

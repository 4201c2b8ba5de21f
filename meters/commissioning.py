"""What is wrong with a device as somebody entered it: by field, in words, before the poller meets it.

One check for the admin, the API and every other door; the connection text and the register map are judged by the
same functions that will use them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from django.utils.translation import gettext as _

from meters.devices import connect, maps
from meters.models import Device, Site

PHASES = ("L1", "L2", "L3")
_SHARES = ("min_soc", "max_soc", "efficiency")


def problems(device: Device, site: Site | None = None) -> dict[str, str]:
    """Field name → what is wrong with it and the way out. Empty: nothing is."""
    connect_problem = _connect(device.connect)
    found = {
        "connect": connect_problem,
        "map": "" if connect_problem else _map(device),
        "wiring": _wiring(device.wiring) or names_one_line(device.wiring, site),
        "options": _options(device.options),
        "max_age_s": _age(device),
    }
    return {field: text for field, text in found.items() if text}


def _connect(text: str) -> str:
    if not text:
        return ""
    try:
        connect.parse(text)
    except connect.ConnectError as error:
        return str(error)
    return ""


def _map(device: Device) -> str:
    if not device.map:
        needs = device.connect and not device.connect.startswith("p1:")
        return _("A device that is read needs a register map.") if needs else ""
    known = sorted(maps.names())
    if device.map in known:
        return ""
    return _("“%(map)s” is no register map; known are %(known)s.") % {"map": device.map, "known": ", ".join(known)}


def _age(device: Device) -> str:
    if device.max_age_s >= device.poll_s:
        return ""
    return _("The age limit is shorter than the poll interval: every measurement would be too old.")


def _wiring(value: object) -> str:
    if value in ([], None):
        return ""
    good = (
        isinstance(value, list)
        and len(value) <= 3
        and all(isinstance(p, str) and p in PHASES for p in value)
        and len(set(value)) == len(value)
    )
    return "" if good else _("Wiring names one to three different phases, such as [“L2”, “L3”, “L1”].")


def names_one_line(wiring: object, site: Site | None) -> str:
    """What is wrong with the wiring of a device or a station where there is no neutral; empty: nothing is."""
    if site is None or site.supply != Site.Supply.IT or not isinstance(wiring, list) or len(wiring) != 1:
        return ""
    return _("Without a neutral it hangs between two lines: name both, such as [“L1”, “L2”].")


def _options(value: object) -> str:
    if value in ({}, None):
        return ""
    if not isinstance(value, Mapping):
        return _("Options are an object, such as {“peak_w”: 50000}.")
    wrong = [str(name) for name, given in value.items() if not _option(str(name), given)]
    if wrong:
        return _("No usable number: %(names)s.") % {"names": ", ".join(wrong)}
    low, high = value.get("min_soc", 0.0), value.get("max_soc", 1.0)
    if low >= high:
        return _("min_soc is not below max_soc.")
    return ""


def _option(name: str, given: Any) -> bool:
    """Powers and energies are positive numbers, states of charge run from 0 to 1; other names are free."""
    measured = name in _SHARES or name.endswith(("_w", "_wh"))
    if not measured:
        return True
    if isinstance(given, bool) or not isinstance(given, int | float) or not math.isfinite(given):
        return False
    return 0 <= given <= 1 if name in _SHARES else given >= 0

"""Short codes in a person's words: why a circuit or a car gets what it gets, what a state means.

The live layer's codes have their sentences beside them (`smartcharging/engine/limits.py`); the plan's are here.
A code nobody has put into words is shown as it is: an odd word is better than a hidden reason.
"""

from __future__ import annotations

from datetime import datetime

from django.utils import formats, timezone
from django.utils.translation import gettext as _

from csms.models import EVSE
from smartcharging.engine.limits import explain


def reason(code: str) -> str:
    """Why this limit holds, in one sentence; empty for no reason."""
    if not code:
        return ""
    sentence, words = explain(code)
    return (_(sentence) % words).strip()


def shortfall(code: str) -> str:
    """Why a goal cannot be reached: a plan's code, such as `time` or `limit:row 1:L2@<start>/<end>` in UTC."""
    if not code:
        return ""
    name, _at, hours = code.partition("@")
    said = _planned().get(name)
    if said is None and name.startswith("limit:"):
        circuit = name.removeprefix("limit:")
        circuit = circuit[:-3] if circuit[-3:] in (":L1", ":L2", ":L3") else circuit
        said = _("%(circuit)s is full") % {"circuit": circuit}
    if said is None:
        return reason(code)
    return f"{said} ({_between(hours)})" if hours else said


def _between(hours: str) -> str:
    """An ISO interval on the clock of the page."""
    try:
        start, end = (timezone.localtime(datetime.fromisoformat(part)) for part in hours.split("/"))
    except ValueError:
        return hours
    return f"{formats.date_format(start, 'H:i')}–{formats.date_format(end, 'H:i')}"


def _planned() -> dict[str, str]:
    return {
        "time": _("there is not enough time before departure"),
        "power": _("this place may give no power now"),
        "surplus": _("there is not enough solar surplus"),
        "value": _("others are more urgent or energy is dearer than the goal is worth"),
        "rule": _("planned by simple rules, as the full plan was not ready"),
        "import_limit": _("the grid connection is limited then"),
        "export_limit": _("giving back to the grid is limited then"),
        "month_peak": _("it would raise the month peak"),
        "group": _("the station's own maximum is shared"),
    }


def status(value: str) -> str:
    """An EVSE status in words."""
    try:
        return str(EVSE.Status(value).label)
    except ValueError:
        return value or str(EVSE.Status.UNKNOWN.label)


def iec_state(value: str) -> str:
    """What an IEC 61851-1 state means for the person in front of the station."""
    return {
        "A1": _("no car"),
        "A2": _("no car"),
        "B1": _("car connected, not yet allowed"),
        "B2": _("car connected, may charge"),
        "C1": _("car wants energy, paused"),
        "C2": _("charging"),
        "D1": _("car wants energy, paused (ventilation)"),
        "D2": _("charging (ventilation)"),
        "E": _("no power at the station"),
        "F": _("station fault"),
    }.get(value, "")

"""Short codes in a person's words: why a circuit or a car gets what it gets, what a state means.

The live layer's codes have their sentences beside them (`smartcharging/engine/limits.py`), and so have the plan's
(`smartcharging/engine/explain/causes.py`).
A code nobody has put into words is shown as it is: an odd word is better than a hidden reason.
"""

from __future__ import annotations

from django.utils.translation import gettext as _

from csms.models import EVSE
from smartcharging.engine.explain.causes import CLAUSES, cause_of
from smartcharging.engine.limits import explain
from webapp.spoken import clause
from webapp.templatetags import energy


def reason(code: str) -> str:
    """Why this limit holds, in one sentence; empty for no reason."""
    if not code:
        return ""
    sentence, words = explain(code)
    return (_(sentence) % words).strip()


def place(circuit: str, phase: str) -> str:
    """Where in the tree a car is held back; empty when it is not."""
    if not circuit:
        return ""
    return f"{circuit}, {_('power') if phase == 'W' else phase}" if phase else circuit


def shortfall(code: str) -> str:
    """Why a goal cannot be reached: a plan's code, such as `time` or `limit:row 1:L2@<start>/<end>` in UTC."""
    if not code:
        return ""
    cause = cause_of(code)
    if cause.code not in CLAUSES:
        return reason(code)
    hours = cause.hours
    if cause.starts_at is not None and cause.ends_at is not None:
        hours = f"{energy.clock(cause.starts_at)}–{energy.clock(cause.ends_at)}"
    return f"{clause(cause)} ({hours})" if hours else clause(cause)


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

"""The lines an explanation is made of: each a sentence for people, and the same as data.

Pure. The names of a line's values carry their unit: `_a`, `_w`, `_kwh`, `_eur`, `minutes`; what ends in `_at`, and
`departure`, is a moment. In a sentence `rate` stands for `taken_a` or `taken_w`, `most` for `limit_a` or `limit_w`:
amps, and power at a DC place. `cause` is the clause of the line's cause.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from smartcharging.engine.explain.causes import Cause
from smartcharging.engine.limits import gettext_noop as _

Value = str | float | int | datetime


@dataclass(frozen=True, slots=True)
class Line:
    """One thing that is said: its code, its sentence, and the values in both. `cause` follows in its own words."""

    code: str
    message: str
    values: Mapping[str, Value] = field(default_factory=dict)
    cause: Cause | None = None


SENTENCES: Mapping[str, str] = {
    # now
    "ended": _("Ended at %(ended_at)s with %(charged_kwh)s."),
    "ended_of": _("Ended at %(ended_at)s with %(charged_kwh)s of %(wanted_kwh)s."),
    "fault": _("The station reports a fault."),
    "out of service": _("This place is out of service."),
    "no car": _("No car is plugged in."),
    "no charge": _("A car is plugged in, but no charge has begun."),
    "away": _("The station is not connected; it goes on with its last or its safe current."),
    "not authorized": _("This card may not charge here."),
    "replug": _("Charging does not go on after a pause."),
    "undecided": _("Nothing is decided for this place yet."),
    "charging": _("Charging with %(rate)s."),
    "charging_less": _("Charging with %(rate)s of the %(most)s it may take."),
    "charging_full": _("Charging with %(rate)s because %(circuit)s is full."),
    "charging_full_until": _("Charging with %(rate)s because %(circuit)s is full until about %(ends_at)s."),
    "idle": _("May take %(most)s, and takes nothing now."),
    "unknown": _("May take %(most)s; what it takes is not known."),
    "pending": _("May take nothing yet."),
    "off": _("May take nothing now."),
    # promise
    "all": _("All %(wanted_kwh)s will be charged by %(departure)s."),
    "all_some_time": _("All %(wanted_kwh)s will be charged."),
    "part": _("%(promised_kwh)s of %(wanted_kwh)s will be charged by %(departure)s."),
    "part_some_time": _("%(promised_kwh)s of %(wanted_kwh)s will be charged."),
    "reached": _("The %(wanted_kwh)s asked for are charged."),
    "overdue": _(
        "The departure at %(departure)s has passed with %(charged_kwh)s of %(wanted_kwh)s; it goes on charging."
    ),
    "open": _("As much as fits until %(departure)s: about %(planned_kwh)s more."),
    "open_some_time": _("As much as fits: about %(planned_kwh)s more is planned."),
    "no goal": _("Nobody said when it leaves or how much it needs, so it charges when there is room."),
    "nobody": _("Charges without a known card, so nobody said what it needs; it charges when there is room."),
    "no plan": _("There is no plan for this car now."),
    "old plan": _("The plan of %(made_at)s no longer holds; it is made anew."),
    "by rule": _("Planned by simple rules: as soon as possible."),
    "may leave": _("The driver may be gone half an hour before (a chance of %(early_share)s), so waiting is weighed."),
    "full_at": _("Reached at about %(full_at)s."),
    "begins": _("It begins at about %(starts_at)s."),
    "cost": _("What is still to come costs the site about %(cost_eur)s."),
    # limits
    "held": _("%(circuit)s holds it back now, on %(phase)s."),
    "held_until": _("%(circuit)s holds it back until about %(ends_at)s, on %(phase)s."),
    "held_w": _("%(circuit)s holds it back now, by its power."),
    "held_w_until": _("%(circuit)s holds it back until about %(ends_at)s, by its power."),
    "missing": _("%(missing_kwh)s will be missing: %(cause)s."),
    "missing_between": _("%(missing_kwh)s will be missing: %(cause)s (%(starts_at)s–%(ends_at)s)."),
    "missed": _("%(missing_kwh)s could not be promised: %(cause)s."),
    "left_early": _("It ended %(minutes)s before the departure that was named."),
    "room_after": _("From %(ends_at)s on it could take about %(room_w)s."),
    # helps
    "nothing": _("Nothing needs to be done."),
    "leave_later": _("Leaving at %(leave_at)s would give all of it, as planned now."),
    "less": _("Asking for %(promised_kwh)s would be met."),
    "three_phases": _("A car and a cable for three phases would give all of it."),
    "raise_a": _("%(raise_a)s more per phase at %(circuit)s from %(starts_at)s to %(ends_at)s would give all of it."),
    "raise_w": _("%(raise_w)s more at %(circuit)s from %(starts_at)s to %(ends_at)s would give all of it."),
    "elsewhere": _("%(place)s at %(circuit)s is free and has room for %(room_w)s now."),
    "fast": _("Choosing “as fast as possible” lets it take the room there is now."),
    "not_only_sun": _("Choosing “by plan” lets it use the grid too."),
    "sun_at": _("Solar surplus for it is expected from about %(starts_at)s."),
    "no_sun": _("No solar surplus is expected for it in this plan."),
    "wait": _("It gets more by itself within minutes."),
    "over": _("It gets more by itself when that is over."),
    "repair": _("The meter of %(circuit)s must be heard again."),
    "repair_battery": _("The battery must be heard again."),
    "look": _("The station or the car must be looked at."),
    "take_out": _("The plug must be taken out and put in again."),
    "card": _("Hold a card at the station, or start it from the page."),
    "other_card": _("It needs a card that is known here."),
    "in_car": _("The car itself holds it back, or it is full."),
}


def line(code: str, words: str = "", cause: Cause | None = None, /, **values: Value | None) -> Line:
    """A line of `code`, in the words of another sentence where given. Values that are not known are left out."""
    return Line(code, SENTENCES[words or code], {k: v for k, v in values.items() if v is not None}, cause)


def kwh(energy_wh: float) -> float:
    return round(energy_wh / 1000, 3)

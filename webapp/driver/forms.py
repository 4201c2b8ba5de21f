"""What a driver may ask: when to leave, how far to get, how to charge; and where to start.

Forms check shape; what is possible is `smartcharging/goals.py`'s to say. Days and times are on the site's clock.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from datetime import time as Clock
from typing import Any
from zoneinfo import ZoneInfo

from django import forms
from django.utils import formats
from django.utils.text import capfirst
from django.utils.translation import gettext_lazy as _

from smartcharging.goals import GoalError
from smartcharging.models import ChargingGoal, Mode

NO_DEPARTURE = "none"
KM, KWH = "km", "kwh"
DEFAULT_KM = 100
# Which field of the form a field of a goal is asked in.
_ASKED_IN = {"departure": "time", "energy_wh": "amount", "range_km": "amount", "mode": "mode"}


class GoalForm(forms.Form):
    """Departure and range (or energy) of one charge. An empty amount means: as much as possible."""

    day = forms.ChoiceField(label=_("Day"), widget=forms.RadioSelect)
    time = forms.TimeField(
        label=_("Departure time"),
        required=False,
        widget=forms.TimeInput(format="%H:%M", attrs={"type": "time", "step": "300"}),
        error_messages={"invalid": _("That is not a time; write it as 17:00.")},
    )
    amount = forms.DecimalField(
        label=_("How much"),
        required=False,
        min_value=0,
        max_value=3000,
        max_digits=6,
        decimal_places=1,
        widget=forms.NumberInput(attrs={"inputmode": "decimal", "min": "0", "max": "3000", "step": "any"}),
        error_messages={"invalid": _("That is not a number.")},
    )
    unit = forms.ChoiceField(
        label=_("Counted in"), choices=[(KM, _("km range")), (KWH, _("kWh energy"))], widget=forms.RadioSelect
    )
    mode = forms.ChoiceField(label=_("How to charge"), choices=Mode.choices, widget=forms.RadioSelect)

    def __init__(self, *args: Any, zone: ZoneInfo, now: datetime, goal: ChargingGoal | None, **kwargs: Any) -> None:
        self.zone, self.now = zone, now
        kwargs.setdefault("initial", _initial(goal, zone, now))
        super().__init__(*args, **kwargs)
        days = self.fields["day"]
        if isinstance(days, forms.ChoiceField):
            days.choices = _days(goal, zone, now)

    def clean(self) -> dict[str, Any]:
        data = super().clean() or {}
        day, clock = data.get("day"), data.get("time")
        if day and day != NO_DEPARTURE and "time" not in self.errors:
            if clock is None:
                self.add_error("time", _("Give the time, or choose “any time”."))
            else:
                data["departure"] = self._moment(day, clock)
        return data

    def _moment(self, day: str, clock: Clock) -> datetime | None:
        """The moment on the site's clock. A time the spring change skips is told, not guessed."""
        local = datetime.fromisoformat(day).replace(hour=clock.hour, minute=clock.minute, tzinfo=self.zone)
        moment = local.astimezone(UTC)
        if moment.astimezone(self.zone).time() != local.time():
            self.add_error("time", _("That time does not exist on that day: the clock changes."))
            return None
        return moment

    def wish(self) -> dict[str, Any]:
        """The form as `set_goal` takes it."""
        data = self.cleaned_data
        amount = None if data.get("amount") is None else float(data["amount"])
        in_km = data["unit"] == KM
        return {
            "departure": data.get("departure"),
            "range_km": amount if in_km else None,
            "energy_wh": None if in_km or amount is None else amount * 1000,
            "mode": data["mode"],
        }

    def blame(self, error: GoalError) -> None:
        """Show what the room of goals refused at the field where it was asked."""
        message = error.message[:1].upper() + error.message[1:]
        self.add_error(_ASKED_IN.get(error.field), message)


def _days(goal: ChargingGoal | None, zone: ZoneInfo, now: datetime) -> list[tuple[str, str]]:
    today = now.astimezone(zone).date()
    names = [_("Today"), _("Tomorrow"), capfirst(formats.date_format(today + timedelta(days=2), "l"))]
    days = [((today + timedelta(days=n)).isoformat(), str(name)) for n, name in enumerate(names)]
    if goal is not None and goal.departure is not None:
        day = goal.departure.astimezone(zone).date()
        if day > today + timedelta(days=2):
            days.append((day.isoformat(), formats.date_format(day, "D j M")))
    return [*days, (NO_DEPARTURE, str(_("Any time")))]


def _initial(goal: ChargingGoal | None, zone: ZoneInfo, now: datetime) -> dict[str, Any]:
    """What the goal says; without one, the next usual time to leave and a usual distance."""
    if goal is None:
        leave = usual_departure(now.astimezone(zone))
        return {
            "day": leave.date().isoformat(),
            "time": leave.time(),
            "unit": KM,
            "amount": DEFAULT_KM,
            "mode": Mode.PLAN,
        }
    initial: dict[str, Any] = {"mode": goal.mode, "day": NO_DEPARTURE, "unit": KM}
    if goal.departure is not None and goal.departure > now:
        leave = goal.departure.astimezone(zone)
        initial |= {"day": leave.date().isoformat(), "time": leave.time().replace(second=0, microsecond=0)}
    if goal.range_km is not None:
        initial["amount"] = _short(goal.range_km)
    elif goal.energy_wh is not None:
        initial |= {"unit": KWH, "amount": _short(goal.energy_wh / 1000)}
    return initial


def _short(value: float) -> float | int:
    return int(value) if float(value).is_integer() else round(value, 1)


def usual_departure(local: datetime) -> datetime:
    """The end of this working day, else the next morning."""
    if local.hour < 15:
        return local.replace(hour=17, minute=0, second=0, microsecond=0)
    return (local + timedelta(days=1)).replace(hour=8, minute=0, second=0, microsecond=0)


class StartForm(forms.Form):
    """Where to charge, and with which of one's own cards."""

    evse = forms.IntegerField(error_messages={"required": _("Choose a place."), "invalid": _("Choose a place.")})
    id_token = forms.IntegerField(required=False)

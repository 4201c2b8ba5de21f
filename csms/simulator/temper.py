"""What makes a simulated station one of the lesser ones of the field: its bad habits with limits, each a knob.

They are quirks Q18 to Q24 of real stations: a limit refused, taken and not followed, followed only in one unit, kind or
level; a schedule that is not shown; a pause it does not come back from; a question that sends it into a boot.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from csms.profiles import ChargingProfile, Kind, Purpose, Unit

Resume = Literal["limit", "resend", "toggle", "remote_start", "unplug"]
PAUSES_BELOW = {Unit.A: 6.0, Unit.W: 500.0}


@dataclass
class Temper:
    """A station's habits. As it is here it has none.

    `follows_nothing`: limits are taken, shown, and make no difference. `forgets`: these purposes are accepted and
    dropped; `forgets_units` the same for units, `forgets_levels_above` for stack levels. `refuses`: these purposes are
    rejected. `refuses_evse_zero`, `relative_only`, `absolute_only`, `whole_only` (no tenths) reject the others.
    `watts_undivided`: all the watts of a limit go to the phases the car uses.
    `resume`: what it takes to go on after a pause. `composite`: what it answers when asked for its schedule.
    `silent_to`: actions it never answers. `reboots_on`: actions that send it into a boot, before it answers.
    """

    follows_nothing: bool = False
    forgets: frozenset[Purpose] = frozenset()
    forgets_units: frozenset[Unit] = frozenset()
    forgets_levels_above: int | None = None
    refuses: frozenset[Purpose] = frozenset()
    refuses_evse_zero: bool = False
    relative_only: bool = False
    absolute_only: bool = False
    takes_no_duration: bool = False
    whole_only: bool = False
    watts_undivided: bool = False
    levels: int | None = None  # takes no higher one, whatever it announces
    resume: Resume = "limit"
    composite: Literal["yes", "no", "empty", "watts"] = "yes"
    silent_to: frozenset[str] = frozenset()
    reboots_on: frozenset[str] = frozenset()
    _pauses: dict[int, _Pause] = field(default_factory=dict, init=False, repr=False)

    def refuses_profile(self, profile: ChargingProfile) -> bool:
        return (
            profile.purpose in self.refuses
            or (self.refuses_evse_zero and profile.evse == 0)
            or (self.relative_only and profile.kind is not Kind.RELATIVE and self._is_live(profile))
            or (self.absolute_only and profile.kind is Kind.RELATIVE)
            or (self.takes_no_duration and profile.schedule.duration_s is not None)
            or (self.levels is not None and profile.stack_level > self.levels)
            or (self.whole_only and any(p.limit % 1 for p in profile.schedule.periods))
        )

    @staticmethod
    def _is_live(profile: ChargingProfile) -> bool:
        """A fail-safe without an end is the same in either kind."""
        schedule = profile.schedule
        ends = schedule.duration_s is not None or len(schedule.periods) > 1
        return ends or profile.stack_level > 0 or profile.purpose is Purpose.TX

    def forgets_profile(self, profile: ChargingProfile) -> bool:
        too_high = self.forgets_levels_above is not None and profile.stack_level > self.forgets_levels_above
        return profile.purpose in self.forgets or profile.schedule.unit in self.forgets_units or too_high

    def took(self, evses: Mapping[int, Any]) -> None:
        """A profile was installed: some wake up only at the second one after a pause."""
        for number in evses:
            pause = self._pauses.get(number)
            if pause is not None and pause.raised:
                pause.again += 1

    def left(self, evse: int) -> None:
        """The plug is out, or a charge began: what was before is forgotten."""
        self._pauses.pop(evse, None)

    def holds_back(self, evse: int, limit: float, unit: Unit, charging: bool) -> float:
        """The limit as it is followed: nothing, while it has not been woken up in its own way."""
        if self.resume == "limit" or not charging:
            return limit
        if limit < PAUSES_BELOW[unit]:
            pause = self._pauses.setdefault(evse, _Pause())
            if pause.raised:
                pause.toggles, pause.raised = pause.toggles + 1, False
            return limit
        pause = self._pauses.get(evse, _NONE)
        if pause is _NONE:
            return limit
        pause.raised = True
        awake = {
            "resend": pause.again >= 2,
            "toggle": pause.toggles >= 1,
            "remote_start": False,
            "unplug": False,
        }[self.resume]
        if awake:
            self._pauses.pop(evse, None)
        return limit if awake else 0.0


@dataclass
class _Pause:
    raised: bool = False
    again: int = 0
    toggles: int = 0


_NONE = _Pause()

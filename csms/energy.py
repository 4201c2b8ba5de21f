"""Energy from a register that may lie: the rule by which a charge is counted. Pure.

Readings are taken in the order of their time. The rule, in words:

1. The register at the start is the one told with the start (1.6 `meterStart`, 2.0.1 context `Transaction.Begin`), else
   the first reading there is, flagged as guessed.
2. Energy is the rise from there to the newest trusted reading. The reading told with the end has the last word, also
   when it is a little lower than the one before.
3. A reading is trusted when it rises by no more than the EVSE can give in the time that passed. One that does not is
   held back, and the next reading judges it: if that goes on from the old value, the held one was a slip and is
   ignored; if it goes on from the held value, the register began anew there (a reset, a meter that was exchanged, a
   start told as 0): a new segment begins, and the leap itself is nobody's energy. Energy is the sum of the segments.
4. A thousandfold too small or too large, where that alone explains the value, is read in the other unit.
5. A negative reading, and one that stays unexplained, counts for nothing.

Whatever was not plain is flagged; energy is never negative and never guessed. Times are seconds since 1970 here, so
that the state of a count is a short list of numbers.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from operator import attrgetter
from typing import Any, NamedTuple

BEGIN, SAMPLE, END = 0, 1, 2

GUESSED = "start_register_guessed"
REBASED = "start_register_rebased"
RESET = "register_reset"
LEAP = "register_leaps"
BACKWARDS = "register_backwards"
JUMP = "register_jump"
NEGATIVE = "negative_register"
IN_KWH = "register_in_kwh"
THOUSANDFOLD = "register_thousandfold"
UNLIKE_POWER = "energy_unlike_power"
ABOVE_MAXIMUM = "power_above_maximum"

SUSPECT = frozenset(
    {GUESSED, REBASED, RESET, LEAP, BACKWARDS, JUMP, NEGATIVE, IN_KWH, THOUSANDFOLD, UNLIKE_POWER, ABOVE_MAXIMUM}
)

IMPLAUSIBLE = 1.5
"""So many times the most an EVSE can give: then a register did not rise by charging."""
SLACK_WH = 1000.0
JITTER_WH = 10.0
CHARGING_W = 100.0
MOST_W = 2_000_000.0
INTEGRATED_S = 900.0
COVERED = 0.8
UNLIKE = 3.0
TELLING_WH = 10_000.0
"""From here on a thousandfold tells itself from a register that began anew."""
MOST_UNTIMED_WH = 500_000.0
MOST_AT_THE_END_WH = 150_000.0
"""The largest batteries of passenger cars; a leap above that with the end is no charge."""


class Reading(NamedTuple):
    """What was known at one moment. `paused`: the station itself held the car back."""

    at: float
    role: int
    wh: float | None = None
    power_w: float | None = None
    paused: bool | None = None
    soc: float | None = None


def in_order(reading: Reading) -> tuple[float, float, float, float]:
    """What readings are sorted by, so that the same ones are always counted in the same order."""
    at, role, wh, power_w, *_ = reading
    return at, role, -1.0 if wh is None else wh, -1.0 if power_w is None else power_w


class Count:
    """Where the counting of one charge stands. Take readings in order; `to_list` and back keeps everything."""

    _KEPT = (
        *("start", "base", "last", "last_at", "closed", "held", "begun_at", "upto", "upto_key", "power", "power_max"),
        *("power_wh", "covered_s", "charging_s", "charged_at", "paused", "paused_s", "soc", "flags_seen", "timed"),
    )
    __slots__ = (*_KEPT, "most_w", "points")

    def __init__(self, most_w: float) -> None:
        self.most_w = most_w
        self.start: float | None = None
        self.base = self.last = self.closed = 0.0
        self.last_at = 0.0
        self.held: list[float] | None = None
        self.begun_at: float | None = None
        self.upto = 0.0
        self.upto_key: list[float] = [BEGIN, -1.0, -1.0]
        self.power: float | None = None
        self.power_max: float | None = None
        self.power_wh = self.covered_s = 0.0
        self.charging_s = self.charged_at = self.paused_s = 0.0
        self.paused = False
        self.soc: float | None = None
        self.flags_seen: list[str] = []
        self.points: list[tuple[float, float]] | None = None
        self.timed = True  # False: the clock was never set, so how fast a register rose is not known

    # ------------------------------------------------------------------ kept between readings

    def to_list(self) -> list[Any]:
        return list(_kept(self))

    @classmethod
    def from_list(cls, kept: Sequence[Any], most_w: float) -> Count:
        count = cls.__new__(cls)
        count.most_w, count.points = most_w, None
        for name, value in zip(cls._KEPT, kept, strict=True):
            setattr(count, name, value)
        count.flags_seen = list(count.flags_seen)
        return count

    def may_take(self, reading: Reading) -> bool:
        """Does this reading come after all that were taken?

        Of one and the same moment it may be told later, as long as the register does not go back: no time passes
        between them, so it comes to the same.
        """
        if self.begun_at is None or reading.at > self.upto:
            return True
        _, role, wh, _ = in_order(reading)
        same_moment = reading.at == self.upto and role == self.upto_key[0] == SAMPLE
        return same_moment and (reading.wh is None or wh >= self.upto_key[1])

    # ------------------------------------------------------------------ what it comes to

    @property
    def energy_wh(self) -> float:
        return 0.0 if self.start is None else max(0.0, self.closed + self.last - self.base)

    @property
    def idle_s(self) -> float:
        """Since the car last took anything, without the time the station held it back."""
        return 0.0 if self.begun_at is None else max(0.0, self.upto - self.charged_at - self.paused_s)

    @property
    def flags(self) -> list[str]:
        """What was strange, in the order it was seen; a reading that is still held back is among it."""
        flags = list(self.flags_seen)
        if self.held is not None:
            held = BACKWARDS if self.held[0] < self.last else JUMP
            if held not in flags:
                flags.append(held)
        if self._unlike_power():
            flags.append(UNLIKE_POWER)
        return flags

    def _unlike_power(self) -> bool:
        """The register and the measured power tell different stories: kWh where Wh should be, or a meter elsewhere."""
        if self.begun_at is None or self.power_wh < 500 or self.covered_s < COVERED * (self.upto - self.begun_at):
            return False
        too_little = self.energy_wh * UNLIKE + SLACK_WH / 4 < self.power_wh
        return too_little or self.energy_wh > UNLIKE * (self.power_wh + SLACK_WH)

    # ------------------------------------------------------------------ taking

    def take_all(self, readings: Iterable[Reading]) -> Count:
        for reading in readings:
            self.take(reading)
        return self

    def take(self, reading: Reading) -> None:
        at, role = reading.at, reading.role
        if self.begun_at is None:
            self.begun_at = self.charged_at = self.upto = at
        passed = max(0.0, at - self.upto)
        power = reading.power_w
        if power is not None and not 0 <= power <= MOST_W:
            power = None
        if power is not None:
            self.power_max = power if self.power_max is None else max(self.power_max, power)
            if power > IMPLAUSIBLE * self.most_w:
                self._flag(ABOVE_MAXIMUM)
        risen = self._register(at, role, reading.wh) if reading.wh is not None else 0.0
        if passed > 0:
            self._time_passed(at, passed, risen, power)
        elif risen > 0:
            self.charged_at, self.paused_s = at, 0.0
        if power is not None:
            self.power = power
        if reading.paused is not None:
            self.paused = reading.paused
        if reading.soc is not None:
            self.soc = reading.soc
        _, _, wh, power_key = in_order(reading)
        if passed == 0 and role == self.upto_key[0]:
            wh = max(wh, self.upto_key[1])
        self.upto, self.upto_key = at, [role, wh, power_key]

    def _time_passed(self, at: float, passed: float, risen: float, power: float | None) -> None:
        if self.power is not None and power is not None and passed <= INTEGRATED_S:
            self.power_wh += (self.power + power) / 2 * passed / 3600
            self.covered_s += passed
        if risen * 3600 / passed >= CHARGING_W or (power is not None and power >= CHARGING_W):
            self.charging_s += passed
            self.charged_at, self.paused_s = at, 0.0
        elif self.paused:
            self.paused_s += passed

    def _register(self, at: float, role: int, wh: float) -> float:
        """One reading of the register; by how much it raised the count."""
        if wh < 0:
            self._flag(NEGATIVE)
            return 0.0
        if self.start is None:
            self.start = self.base = self.last = wh
            self.last_at = at
            if role != BEGIN:
                self._flag(GUESSED)
            self._point(at)
            return 0.0
        before = self.energy_wh
        if self.held is not None and self._goes_on_from_held(wh, at):
            self._new_segment(wh, at)
        elif self._fits(wh, at, JITTER_WH):
            self._trust(wh, at, exactly=role == END)
        elif self.last >= TELLING_WH and self._fits(wh * 1000, at, SLACK_WH):
            self._flag(IN_KWH)
            self._trust(max(self.last, wh * 1000), at)
        elif self.last >= TELLING_WH and self._fits(wh / 1000, at, JITTER_WH):
            self._flag(THOUSANDFOLD)
            self._trust(wh / 1000, at)
        elif role == END and self.base <= wh < self.last:
            self._flag(BACKWARDS)
            self._trust(wh, at, exactly=True)
        elif role == END and 0 < wh - self.last <= MOST_AT_THE_END_WH:
            self._flag(JUMP)
            self._trust(wh, at)
        else:
            self._let_go()
            self.held = [wh, at]
        return max(0.0, self.energy_wh - before)

    def _fits(self, wh: float, at: float, back_wh: float) -> bool:
        return -back_wh <= wh - self.last <= self._most_wh(at - self.last_at)

    def _goes_on_from_held(self, wh: float, at: float) -> bool:
        assert self.held is not None
        held, held_at = self.held
        if not 0 <= wh - held <= self._most_wh(at - held_at):
            return False
        return held > self.last or wh < self.last

    def _most_wh(self, seconds: float) -> float:
        if not self.timed:
            return MOST_UNTIMED_WH
        most_w = max(self.most_w, self.power_max or 0.0)
        return IMPLAUSIBLE * most_w * max(0.0, seconds) / 3600 + SLACK_WH

    def _trust(self, wh: float, at: float, *, exactly: bool = False) -> None:
        self._let_go()
        if exactly:
            self.last = max(wh, self.base)
        elif wh > self.last:
            self.last = wh
        self.last_at = at
        self._point(at)

    def _let_go(self) -> None:
        """The held reading was a slip after all."""
        if self.held is not None:
            self._flag(BACKWARDS if self.held[0] < self.last else JUMP)
            self.held = None

    def _new_segment(self, wh: float, at: float) -> None:
        assert self.held is not None
        held = self.held[0]
        if self.start == 0 and self.energy_wh == 0 and held > self.last:
            self.start = held  # it said 0 and then showed its whole life (Q15)
            self._flag(REBASED)
        else:
            self.closed += self.last - self.base
            self._flag(RESET if held < self.last else LEAP)
        self.base, self.last, self.last_at, self.held = held, wh, at, None
        self._point(at)

    def _point(self, at: float) -> None:
        if self.points is not None:
            self.points.append((at, self.energy_wh))

    def _flag(self, name: str) -> None:
        if name not in self.flags_seen:
            self.flags_seen.append(name)


_kept = attrgetter(*Count._KEPT)

"""A car at the end of a cable: what it asks for, how late it follows, what reaches its battery."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import pairwise

FOLLOWS_LESS_WITHIN_S = 5.0  # IEC 61851-1: a car follows a new duty cycle within 5 s
OPENS_WITHIN_S = 3.0  # and opens its switch within 3 s when the PWM stops

# Part of its highest power a car takes at a state of charge, between corner points. AC charging is slow against the
# battery, so it fades only near the end; the DC curve is that of a common 400 V car.
AC_CURVE = ((0.0, 1.0), (0.80, 1.0), (0.95, 0.92), (1.0, 0.25))
DC_CURVE = (
    (0.0, 0.55),
    (0.05, 0.85),
    (0.10, 1.0),
    (0.45, 1.0),
    (0.55, 0.85),
    (0.70, 0.62),
    (0.80, 0.45),
    (0.90, 0.25),
    (1.0, 0.08),
)


def along(curve: Sequence[tuple[float, float]], x: float) -> float:
    """The value on a broken line, held constant beyond its ends."""
    if x <= curve[0][0]:
        return curve[0][1]
    for (x0, y0), (x1, y1) in pairwise(curve):
        if x <= x1:
            return y0 + (y1 - y0) * (x - x0) / (x1 - x0)
    return curve[-1][1]


@dataclass
class Car:
    """A car and its battery. `soc` moves while it charges; the rest is its nature.

    `max_a` and `phases` are its on-board charger's; `cable_a` the rating of its cable. Below `min_a` it takes nothing.
    It follows a higher offer after `delay_s` (a number, or a range it draws from each time), a lower one within 5 s.
    `efficiency` and `overhead_w` say what of the power at the plug reaches the battery: about 92 % at 11 kW and 81 %
    at 6 A on one phase. `asks` False is a car with a timer of its own: plugged and not charging.
    """

    battery_wh: float
    soc: float
    phases: int = 3
    max_a: float = 16.0
    max_dc_w: float | None = None
    min_a: float = 6.0
    delay_s: float | tuple[float, float] = (5.0, 30.0)
    target_soc: float = 1.0
    efficiency: float = 0.94
    overhead_w: float = 180.0
    cable_a: float = 32.0
    asks: bool = True
    _followed: float = field(default=0.0, init=False, repr=False)
    _offered: float = field(default=0.0, init=False, repr=False)
    _pending: list[tuple[datetime, float]] = field(default_factory=list, init=False, repr=False)

    def __post_init__(self) -> None:
        if self.battery_wh <= 0:
            raise ValueError("battery_wh: a battery holds more than 0 Wh")
        if not 0 <= self.soc <= 1:
            raise ValueError("soc: a state of charge is 0 to 1")
        if self.phases not in (1, 2, 3):
            raise ValueError("phases: a car charges on 1, 2 or 3 phases")

    @property
    def full(self) -> bool:
        return self.soc >= self.target_soc - 1e-9

    @property
    def wants(self) -> bool:
        return self.asks and not self.full

    def notice(self, offer: float, now: datetime, rng: random.Random) -> None:
        """See what the station offers (A per phase, or W in all for DC). The car follows when its time comes."""
        if offer != self._offered:
            self._pending.append((now + timedelta(seconds=self._delay(offer, rng)), offer))
            self._offered = offer
        due = [i for i, (at, _) in enumerate(self._pending) if at <= now]
        if due:
            self._followed = self._pending[due[-1]][1]
            del self._pending[: due[-1] + 1]

    def forget_offers(self) -> None:
        """The plug is out."""
        self._followed = self._offered = 0.0
        self._pending.clear()

    def _delay(self, offer: float, rng: random.Random) -> float:
        own = self.delay_s if isinstance(self.delay_s, int | float) else rng.uniform(*self.delay_s)
        if offer <= 0:
            return min(own, OPENS_WITHIN_S)
        return min(own, FOLLOWS_LESS_WITHIN_S) if offer < self._offered else own

    def ac_current_a(self) -> float:
        """What it draws now on each of its phases."""
        most = min(self._followed, self.cable_a)
        if not self.wants or most < self.min_a:
            return 0.0
        return min(most, self.max_a * along(AC_CURVE, self.soc))

    def dc_power_w(self) -> float:
        """What it takes now at the DC plug."""
        if not self.wants or self.max_dc_w is None:
            return 0.0
        return min(self._followed, self.max_dc_w * along(DC_CURVE, self.soc))

    def charge(self, power_w: float, seconds: float, *, dc: bool = False) -> None:
        """Take this power at the plug for a while. DC passes by the on-board charger and its losses."""
        into_battery = power_w if dc else power_w * self.efficiency - self.overhead_w
        if power_w > 0 and into_battery > 0:
            self.soc = min(self.soc + into_battery * seconds / 3600 / self.battery_wh, 1.0)

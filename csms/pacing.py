"""Many stations that come at once are met one after another, and spread so that they do not meet again.

After an outage thousands of stations are back within seconds. Letting them in is cheap; what we then ask of each is
not, and stations that were told the same heartbeat interval at the same moment come in step for ever.
"""

from __future__ import annotations

import asyncio
import random

FAIL_SAFES_PER_S, SET_UPS_PER_S = 400.0, 40.0
"""What protects comes first and fast, the rest of a set-up when there is time."""

SPREAD = 0.2
"""Of the heartbeat interval: each station is told one a little shorter than the setting, never a longer one."""


class Pace:
    """So many a second, in the order they ask; the first of a quiet time goes at once."""

    def __init__(self, per_s: float) -> None:
        self._each_s = 1.0 / per_s
        self._next = 0.0

    async def turn(self) -> None:
        now = asyncio.get_running_loop().time()
        at, self._next = max(now, self._next), max(now, self._next) + self._each_s
        if at > now:
            await asyncio.sleep(at - now)


def spread(interval_s: int) -> int:
    """An interval up to a fifth shorter than this one, another each time."""
    return interval_s - random.randint(0, int(interval_s * SPREAD))

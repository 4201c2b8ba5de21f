"""Drivers who leave before the time they named: how likely it is, slot by slot.

Pure. What counts is by how much of the stay that was named a stay was shorter: half an hour off an hour is as common as
two off four. At workplaces 28 % leave more than half an hour early (ACN-Data, Lee, Li and Low 2019); that stands in as
long as a site is not known, and fades as stays are seen. A driver leans on what is usual at the site, the less the more
is known of him.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

import numpy as np

from smartcharging.engine.plan.problem import Series

OFTEN, HOW_EARLY = 0.28, 0.5  # of a place that nobody knows: so often, by up to so much of the stay
UNKNOWN_COUNTS_AS = 10  # stays: so many unknown ones stand beside the first of a site …
SEEN_FOR_ONE = 10  # … and one less for every so many that were seen
SITE_COUNTS_AS = 5  # … and so many of the site's beside those of a driver


@dataclass(frozen=True, slots=True)
class Stay:
    """A car that came, the departure that was named, and when it left."""

    began: datetime
    named: datetime
    left: datetime

    @property
    def early(self) -> float | None:
        """By how much of the named stay it left before its end; None: there was no such stay."""
        whole = (self.named - self.began).total_seconds()
        if whole <= 0 or self.left < self.began:
            return None
        return max((self.named - self.left).total_seconds() / whole, 0.0)


@dataclass(frozen=True)
class Punctuality:
    """How early people leave. `early` is sorted: of each stay, by how much of it. `usual`: of those it leans on."""

    early: Series
    usual: Punctuality | None = None

    @classmethod
    def of(cls, stays: Iterable[Stay], usual: Punctuality | None = None) -> Punctuality:
        shares = [share for stay in stays if (share := stay.early) is not None]
        return cls(np.sort(np.array(shares, dtype=np.float64)), usual)

    def earlier(self, than: Series) -> Series:
        """The chance that somebody leaves earlier than such a share of the stay before its end."""
        count = self.early.shape[0]
        seen = count - np.searchsorted(self.early, than, side="right")
        if self.usual is None:
            leans = max(UNKNOWN_COUNTS_AS - count / SEEN_FOR_ONE, 0.0)
            on = OFTEN * np.clip(1.0 - than / HOW_EARLY, 0.0, 1.0)
        else:
            leans, on = float(SITE_COUNTS_AS), self.usual.earlier(than)
        chance: Series = (seen + leans * on) / (count + leans)
        return chance


def gone(who: Punctuality, here_s: float, leaves_in_s: float, slots: int, slot_s: int) -> Series:
    """The chance that who has been here for so long has left by the middle of each slot from now on."""
    stay_s = max(here_s + leaves_in_s, 1.0)
    left_s = leaves_in_s - (np.arange(slots) + 0.5) * slot_s
    until_now = who.earlier(np.array([min(max(leaves_in_s, 0.0) / stay_s, 1.0)]))[0]
    by_then = who.earlier(np.clip(left_s / stay_s, 0.0, 1.0))
    chance: Series = np.clip((by_then - until_now) / max(1.0 - until_now, 1e-9), 0.0, 1.0)
    return chance

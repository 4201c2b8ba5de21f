"""What is learnt of a station's clock from what it says, and how its times are put right. Pure.

`vocabulary.moment` mends what one message shows by itself: a clock that was never set, a time without a zone, one that
lies in our future. This learns the rest over a connection: a time told ahead of us is proof, for nothing can be told
before it happened; a time that lags may have waited offline, so only a steady lag is believed. The time as it was told
is always kept beside the one that counts.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from csms.vocabulary import MeterValue, Moment, TransactionReport, zone_steps

TRUSTED_S = 10.0
STEADY_FOR_S = 30.0
FEWEST_LAGS = 3
FURTHEST_LAG_S = 26 * 3600.0
UNKNOWABLE = frozenset({"clock_not_set", "no_time", "bad_time"})


class Clock:
    """How far a station's clock is off, learnt from messages that tell a time. Positive: it is ahead of us.

    A replay after time offline looks like a clock that lags, but its lag shrinks; only a steady one is believed.
    """

    def __init__(self) -> None:
        self.offset_s = 0.0
        # Lists, because thousands of stations have nothing to note, and an empty deque is ten times an empty list.
        self._ahead: list[float] = []
        self._lags: list[tuple[datetime, float]] = []

    def note(self, told: datetime, received: datetime) -> None:
        """A message of this moment told this time."""
        off_s = (told - received).total_seconds()
        if -TRUSTED_S < off_s < TRUSTED_S:
            self.offset_s = 0.0
            self._ahead.clear()
            self._lags.clear()
        elif off_s > 0:
            self._ahead = [*self._ahead, off_s][-3:]
            self._lags.clear()
            self.offset_s = sorted(self._ahead)[len(self._ahead) // 2]
        elif not self._ahead:  # told late by a clock that is known to be ahead, it is a replay
            self._lags = [*self._lags, (received, off_s)][-6:]
            self.offset_s = self._steady_lag()

    def note_moment(self, when: Moment, received: datetime) -> None:
        if when.told is not None and when.flag not in UNKNOWABLE:
            self.note(when.told, received)

    def _steady_lag(self) -> float:
        lags = [off_s for _, off_s in self._lags]
        lasted_s = (self._lags[-1][0] - self._lags[0][0]).total_seconds()
        if len(lags) < FEWEST_LAGS or lasted_s < STEADY_FOR_S or max(lags) - min(lags) >= TRUSTED_S:
            return 0.0
        mean = sum(lags) / len(lags)
        return mean if abs(mean) < FURTHEST_LAG_S else 0.0

    def right(self, when: Moment, received: datetime) -> Moment:
        """The moment by our own clock, with the name of the correction."""
        if not self.offset_s or when.told is None or when.flag in UNKNOWABLE:
            return when
        steps = zone_steps(self.offset_s)
        off_s = steps * 1800.0 if steps else self.offset_s
        at = when.told.astimezone(UTC) - timedelta(seconds=off_s)
        flag = when.flag if when.flag == "no_zone" else "zone_error" if steps else "clock_off"
        return Moment(min(at, received), flag, when.told)

    def put_right(self, report: TransactionReport) -> TransactionReport:
        """An event of a transaction and all values in it, by our own clock."""
        if not self.offset_s:
            return report
        received = report.received or report.moment.at
        return replace(
            report,
            moment=self.right(report.moment, received),
            values=tuple(replace(v, moment=self.right(v.moment, received)) for v in report.values),
        )

    def put_values_right(
        self, read: Callable[[], tuple[MeterValue, ...]], received: datetime
    ) -> tuple[MeterValue, ...]:
        """Meter values outside an event, by our own clock; `read` translates them."""
        values = read()
        if not self.offset_s:
            return values
        return tuple(replace(v, moment=self.right(v.moment, received)) for v in values)

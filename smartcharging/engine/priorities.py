"""Who goes first: the class of place and driver, then who must charge now, then who has least slack.

Pure. Laxity is the time a car could still wait and yet be ready: time left, minus the time its energy takes at full
power.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from datetime import datetime

import numpy as np
from numpy.typing import NDArray

from smartcharging.engine.grid import NOMINAL_V, Supply, power_weight
from smartcharging.engine.live.tree import known_or
from smartcharging.engine.rules import DEFAULT, Rules
from smartcharging.engine.snapshot import Session

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]
_FAR = math.inf


def max_a(session: Session, supply: Supply = Supply.TN) -> float:
    """What station and car can take together, per phase: the smaller of the amps and the watts."""
    if session.max_w is None or (session.phase_count == 0 and not session.dc):
        return session.max_a
    return min(session.max_a, session.max_w / watts_per_a(session, supply))


def watts_per_a(session: Session, supply: Supply = Supply.TN) -> float:
    """What an amp on each line it loads carries; all three for DC."""
    lines = 3 if session.dc else session.phase_count
    return power_weight(lines, supply) * NOMINAL_V if lines else 0.0


def slack_s(left_s: Floats, need_wh: Floats, full_w: Floats) -> Floats:
    """Laxity of many: time left, less the time the need takes at full power. NaN in, or nothing ahead: infinite.

    When the hour has passed, what was promised was kept or missed, and no haste changes it.
    """
    asks = (left_s > 0) & (need_wh > 0) & (full_w > 0)
    takes_s = np.where(asks, need_wh, 0.0) * 3600 / np.where(asks, full_w, 1.0)
    return np.where(asks, known_or(left_s, 0.0) - takes_s, np.inf)


def laxity_s(session: Session, now: datetime, supply: Supply = Supply.TN) -> float:
    """How long the car could still wait. Infinite without a departure ahead or without a known need."""
    left_s = np.nan if session.departure is None else (session.departure - now).total_seconds()
    need_wh = np.nan if session.energy_needed_wh is None else session.energy_needed_wh
    full_w = max_a(session, supply) * watts_per_a(session, supply)
    return float(slack_s(np.array(left_s), np.array(need_wh), np.array(full_w)))


def must_charge(session: Session, now: datetime, rules: Rules = DEFAULT, supply: Supply = Supply.TN) -> bool:
    """No more slack than about one slot of the plan: from here on every pause costs the driver energy."""
    return session.wants and laxity_s(session, now, supply) <= rules.must_within_s


def started_lately(offered_a: Floats, on_for_s: Floats, rules: Rules) -> Flags:
    """On, and not yet for as long as a start should last."""
    return np.asarray((offered_a > 0) & (on_for_s < rules.min_on_s))


def paused_lately(offered_a: Floats, off_for_s: Floats, here_for_s: Floats, rules: Rules) -> Flags:
    """Paused by us a moment ago. A car that has just arrived was never paused, and may start."""
    before_it_came = off_for_s >= here_for_s
    return np.asarray((offered_a == 0) & (off_for_s < rules.min_off_s) & ~before_it_came)


def just_started(session: Session, now: datetime, rules: Rules = DEFAULT) -> bool:
    """`started_lately` of one."""
    return bool(started_lately(_number(session.offered_a), _seconds(session.on_since, now), rules))


def just_paused(session: Session, now: datetime, rules: Rules = DEFAULT) -> bool:
    """`paused_lately` of one."""
    offered, off, here = _number(session.offered_a), _seconds(session.off_since, now), _seconds(session.arrived_at, now)
    return bool(paused_lately(offered, off, here, rules))


def _number(value: float | None) -> Floats:
    return np.array(np.nan if value is None else value)


def _seconds(moment: datetime | None, now: datetime) -> Floats:
    return np.array(np.nan if moment is None else (now - moment).total_seconds())


def urgency(
    session: Session, now: datetime, rules: Rules = DEFAULT, supply: Supply = Supply.TN
) -> tuple[int, bool, bool, float, float, str]:
    """Sorts the most urgent first. The key comes last, so that the order never depends on how sessions were listed."""
    slack = laxity_s(session, now, supply)
    arrived = _FAR if session.arrived_at is None else session.arrived_at.timestamp()
    return (
        -session.priority,
        not (session.wants and slack <= rules.must_within_s),
        not just_started(session, now, rules),
        slack,
        arrived,
        session.key,
    )


def rank(
    sessions: Iterable[Session], now: datetime, rules: Rules = DEFAULT, supply: Supply = Supply.TN
) -> list[Session]:
    """The sessions, most urgent first."""
    return sorted(sessions, key=lambda s: urgency(s, now, rules, supply))


def weights(priority: Floats) -> Floats:
    """How much faster a session rises in its share: each class twice the one below it, within reason."""
    return np.asarray(2.0 ** np.minimum(np.maximum(priority, 0.0), 8.0))


def weight(session: Session) -> float:
    """`weights` of one."""
    return float(weights(np.array(float(session.priority))))

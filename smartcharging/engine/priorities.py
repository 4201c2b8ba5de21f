"""Who goes first: the class of place and driver, then who must charge now, then who has least slack.

Pure. Laxity is the time a car could still wait and yet be ready: time left, minus the time its energy takes at full
power.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from datetime import datetime

from smartcharging.engine.grid import NOMINAL_V
from smartcharging.engine.rules import DEFAULT, Rules
from smartcharging.engine.snapshot import Session

_FAR = math.inf


def max_a(session: Session) -> float:
    """What station and car can take together, per phase: the smaller of the amps and the watts."""
    phases = 3 if session.dc else session.phase_count
    if session.max_w is None or phases == 0:
        return session.max_a
    return min(session.max_a, session.max_w / (phases * NOMINAL_V))


def laxity_s(session: Session, now: datetime) -> float:
    """How long the car could still wait. Infinite without a departure ahead or without a known need."""
    need = session.energy_needed_wh
    if session.departure is None or need is None or need <= 0:
        return _FAR
    left_s = (session.departure - now).total_seconds()
    if left_s <= 0:
        return _FAR  # the hour has passed: what was promised was kept or missed, and no haste changes it
    full_w = max_a(session) * (3 if session.dc else session.phase_count) * NOMINAL_V
    return left_s - need * 3600 / full_w if full_w > 0 else _FAR


def must_charge(session: Session, now: datetime, rules: Rules = DEFAULT) -> bool:
    """No more slack than about one slot of the plan: from here on every pause costs the driver energy."""
    return session.wants and laxity_s(session, now) <= rules.must_within_s


def just_started(session: Session, now: datetime, rules: Rules = DEFAULT) -> bool:
    """On, and not yet for as long as a start should last."""
    return (
        bool(session.offered_a)
        and session.on_since is not None
        and (now - session.on_since).total_seconds() < rules.min_on_s
    )


def just_paused(session: Session, now: datetime, rules: Rules = DEFAULT) -> bool:
    """Paused by us a moment ago. A car that has just arrived was never paused, and may start."""
    if session.off_since is None or session.offered_a is None or session.offered_a > 0:
        return False
    if session.arrived_at is not None and session.off_since <= session.arrived_at:
        return False
    return (now - session.off_since).total_seconds() < rules.min_off_s


def urgency(session: Session, now: datetime, rules: Rules = DEFAULT) -> tuple[int, bool, bool, float, float, str]:
    """Sorts the most urgent first. The key comes last, so that the order never depends on how sessions were listed."""
    slack = laxity_s(session, now)
    arrived = _FAR if session.arrived_at is None else session.arrived_at.timestamp()
    return (
        -session.priority,
        not (session.wants and slack <= rules.must_within_s),
        not just_started(session, now, rules),
        slack,
        arrived,
        session.key,
    )


def rank(sessions: Iterable[Session], now: datetime, rules: Rules = DEFAULT) -> list[Session]:
    """The sessions, most urgent first."""
    return sorted(sessions, key=lambda s: urgency(s, now, rules))


def weight(session: Session) -> float:
    """How much faster a session rises in its share: each class twice the one below it, within reason."""
    return float(2.0 ** min(max(session.priority, 0), 8))

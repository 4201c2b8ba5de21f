"""How good a forecast was, always beside persistence; and which forecaster to believe.

Pure. A forecaster is replayed on the past: at each moment it sees only what was known then. A learnt model that is not
better than the rule, or does not beat persistence, is not used: the choice is by score, series by series.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np

from smartcharging.engine.forecast.series import Forecast, Forecaster, History
from smartcharging.engine.forecast.similar_day import persistence
from smartcharging.engine.plan.problem import Series

FEWEST_SLOTS = 96
CLEARLY_BETTER = 0.98  # a challenger must be at least 2 % better than who comes first


@dataclass(frozen=True, slots=True)
class Score:
    """Over `slots` known slots: mean absolute errors [W], pinball loss over the three quantiles [W], and the share of
    slots between the 10 and 90 % quantiles (0.8 is honest)."""

    slots: int
    mae_w: float
    mae_persistence_w: float
    pinball_w: float
    covered: float

    @property
    def skill(self) -> float:
        """1 is perfect, 0 as good as persistence, negative worse; 0 where persistence makes no error."""
        return 1 - self.mae_w / self.mae_persistence_w if self.mae_persistence_w > 0 else 0.0


def score(actual: Series, forecast: Forecast, baseline: Series) -> Score | None:
    """Compare with what happened, where that is known; None where nothing is."""
    return _score([(actual, forecast, baseline)])


def _score(parts: Sequence[tuple[Series, Forecast, Series]]) -> Score | None:
    if not parts:
        return None
    actual = np.concatenate([a for a, _, _ in parts])
    known = np.isfinite(actual)
    if not known.any():
        return None
    actual = actual[known]
    low, middle, high = (
        np.concatenate([getattr(f, name) for _, f, _ in parts])[known] for name in ("p10_w", "p50_w", "p90_w")
    )
    baseline = np.concatenate([b for _, _, b in parts])[known]
    losses = [np.maximum(q * (actual - f), (q - 1) * (actual - f)) for q, f in ((0.1, low), (0.5, middle), (0.9, high))]
    return Score(
        slots=int(known.sum()),
        mae_w=float(np.abs(actual - middle).mean()),
        mae_persistence_w=float(np.abs(actual - baseline).mean()),
        pinball_w=float(np.mean(losses)),
        covered=float(((actual >= low) & (actual <= high)).mean()),
    )


def replay(
    forecaster: Forecaster, history: History, days: int = 7, every: timedelta = timedelta(hours=6), slots: int = 96
) -> Score | None:
    """Forecast the last `days` again from moments `every` apart, each time with what was known then."""
    parts = []
    for moment in _moments(history, days, every, slots):
        known = history.before(moment)
        parts.append(
            (
                history.window(moment, slots),
                forecaster(known, moment, slots),
                persistence(known, moment, slots).p50_w,
            )
        )
    return _score(parts)


def _moments(history: History, days: int, every: timedelta, slots: int) -> Iterator[datetime]:
    last = history.end - timedelta(seconds=slots * history.slot_s)
    moment = max(history.start + timedelta(days=1), history.end - timedelta(days=days))
    while moment <= last:
        yield moment
        moment += every


def best(forecasters: Mapping[str, Forecaster], history: History, days: int = 7) -> tuple[str, Mapping[str, Score]]:
    """The name of the forecaster to use, and every score. The first is the one to beat; without a past it stays."""
    scores = {name: found for name, f in forecasters.items() if (found := replay(f, history, days)) is not None}
    champion = next(iter(forecasters))
    for name, found in scores.items():
        if champion not in scores or found.slots < FEWEST_SLOTS:
            continue
        if found.mae_w < CLEARLY_BETTER * scores[champion].mae_w:
            champion = name
    return champion, scores

"""The same days under every policy: what is asked for, one seed lived, and many of them side by side."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from smartcharging.engine.forecast.arrivals import Habits
from smartcharging.engine.forecast.leaving import Punctuality
from smartcharging.replay.days import Day, Departures, synthetic_day
from smartcharging.replay.kpis import Kpis, evaluate
from smartcharging.replay.moment import Known, Policy
from smartcharging.replay.outlook import LEARN_DAYS, LEARN_SEED, Forecasts, Outlook, learn, learn_leaving
from smartcharging.replay.policies import offline, rules
from smartcharging.replay.policies.planned import ACN_LIKE, MYOPIC, OURS, Planned
from smartcharging.replay.recorded import recorded_day
from smartcharging.replay.site import Level, synthetic
from smartcharging.replay.world import live

OFFLINE = offline.NAME
RULES: Mapping[str, type[rules.Rule]] = {
    r.name: r
    for r in (
        rules.Uncontrolled,
        rules.FirstCome,
        rules.RoundRobin,
        rules.EarliestDeadline,
        rules.LeastLaxity,
        rules.EvccLike,
        rules.OpenEmsLike,
    )
}
PLANS = {p.name: p for p in (ACN_LIKE, MYOPIC, OURS)}
OURS_NAME = OURS.name
POLICIES = (OFFLINE, *RULES, *PLANS)
BASELINES = tuple(name for name in POLICIES if name not in (OFFLINE, OURS_NAME))
Clock = Callable[[], float]


@dataclass(frozen=True)
class Question:
    """What is replayed. `policies` empty: all of them."""

    level: Level = Level.NORMAL
    sockets: int = 100
    days: int = 1
    departures: Departures = Departures.MEASURED
    forecasts: Forecasts = Forecasts.MEASURED
    faults: bool = False
    step_s: int = 60
    policies: tuple[str, ...] = POLICIES
    data: Path | None = None  # of recorded days; None: synthetic ones

    def day(self, seed: int) -> Day:
        """Raises `recorded.NoData`."""
        if self.data is not None:
            return recorded_day(self.data, seed - 1, self.level, self.departures, self.faults)
        return synthetic_day(synthetic(self.sockets, self.level), seed, self.days, self.departures, self.faults)

    def past(self, seed: int, number: int) -> Day:
        """One of the days that came before: other seeds, or the recorded days before it."""
        plain = replace(self, days=1, faults=False)
        if self.data is not None:
            return plain.day(seed - LEARN_DAYS + number)
        return plain.day(LEARN_SEED + seed * LEARN_DAYS + number)


@dataclass(frozen=True)
class Learnt:
    """What other days taught."""

    habits: Habits
    punctuality: Punctuality


def policy(name: str, day: Day, outlook: Outlook, learnt: Learnt | None, clock: Clock | None) -> Policy:
    """A policy for one replay, by its name."""
    known = Known(day, outlook.expected, clock)
    if name in RULES:
        return RULES[name](known)
    if learnt is None:
        return Planned(known, PLANS[name])
    return Planned(known, PLANS[name], learnt.habits, learnt.punctuality)


def replay(question: Question, seed: int, clock: Clock | None = None) -> dict[str, Kpis]:
    """One seed under every policy that is asked for."""
    day = question.day(seed)
    past = partial(question.past, seed)
    learnt = None
    if OURS_NAME in question.policies:
        learnt = Learnt(learn(day, past, question.forecasts), learn_leaving(day, past))
    outlook = Outlook.of(day, question.forecasts)
    found: dict[str, Kpis] = {}
    for name in question.policies:
        if name == OFFLINE:
            lived = offline.live(day, clock)
        else:
            lived = live(day, policy(name, day, outlook, learnt, clock), question.step_s, clock)
        found[name] = evaluate(day, lived)
    return found


def study(
    question: Question, seeds: Iterable[int], jobs: int = 1, clock: Clock | None = None
) -> Iterator[tuple[int, dict[str, Kpis]]]:
    """Every seed, in order, as it is done."""
    seeds = list(seeds)
    one = partial(replay, question, clock=clock)
    if jobs <= 1:
        yield from zip(seeds, map(one, seeds), strict=True)
        return
    with ProcessPoolExecutor(jobs) as pool:
        yield from zip(seeds, pool.map(one, seeds), strict=True)

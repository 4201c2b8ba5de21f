"""Days on a site: who comes and goes, what the building and the sun do, what energy costs, what breaks down.

A day begins at six in the morning (of its own clock, which is UTC here), so that cars of the night stand within it.
Everything is drawn from the seed, one stream for each subject: with more faults the cars stay the same.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum

import numpy as np

from smartcharging.replay.site import BUILDING_KW, Floats, Site, Socket

DAY_S = 86_400
SLOT_S = 900
MINUTE_S = 60
SLOTS = 96
FIRST = datetime(2026, 6, 1, 6, tzinfo=UTC)  # a Monday
COMES = 0.85  # so often a socket has a car on a working day
LEAVES_EARLY = 0.28  # so many drivers leave more than half an hour before they said
TO_THE_BRIM = 0.3  # so many cars are charged full and slow down before they are


class Departures(StrEnum):
    KEPT = "kept"  # everybody leaves when he said
    MEASURED = "measured"  # 28 % more than half an hour before


@dataclass(frozen=True)
class Visit:
    """One car at one socket. Seconds count from the start of the replay; `takes` is the share of an offer it uses."""

    socket: int
    arrival_s: int
    departure_s: int
    stated_s: int
    energy_wh: float
    priority: int
    phases: tuple[bool, bool, bool]
    max_a: float
    takes: float = 1.0
    tapers: bool = False


@dataclass(frozen=True)
class Fault:
    """A socket's station out of reach, or (`socket` None) the meter of a circuit silent, from … to."""

    first_s: int
    last_s: int
    socket: int | None = None
    node: int | None = None


@dataclass(frozen=True)
class Day:
    """One replay, of one or more days. Power by the minute (PV as what the sun allows, positive), money by the slot."""

    site: Site
    start: datetime
    visits: tuple[Visit, ...]
    building_w: Floats
    pv_w: Floats
    buy_eur_per_kwh: Floats
    sell_eur_per_kwh: Floats
    faults: tuple[Fault, ...] = ()
    seed: int = 0

    @property
    def seconds(self) -> int:
        return int(self.building_w.shape[0]) * MINUTE_S

    @property
    def slots(self) -> int:
        return self.seconds // SLOT_S

    @property
    def stored_eur_per_kwh(self) -> float:
        """What a kWh in the battery is worth when the replay ends, the same for all."""
        battery = self.site.battery
        return float(np.median(self.buy_eur_per_kwh)) * (battery.efficiency if battery else 1.0)

    def at(self, seconds: float) -> datetime:
        return self.start + timedelta(seconds=seconds)

    def by_slot(self, minutes: Floats) -> Floats:
        """The mean of each slot."""
        return np.asarray(minutes.reshape(-1, SLOT_S // MINUTE_S).mean(axis=1))


def synthetic_day(
    site: Site,
    seed: int,
    days: int = 1,
    departures: Departures = Departures.MEASURED,
    faults: bool = False,
) -> Day:
    """A replay of so many days from a Monday on. The same seed always gives the same days."""
    parts = [_one(site, seed, k, departures) for k in range(days)]
    visits = [v for part in parts for v in part[0]]
    building, pv, buy, sell = (np.concatenate([p[i] for p in parts]) for i in (1, 2, 3, 4))
    day = Day(site, FIRST, tuple(sorted(visits, key=lambda v: v.arrival_s)), building, pv, buy, sell, seed=seed)
    return replace(day, faults=tuple(what_breaks(day)) if faults else ())


def _one(
    site: Site, seed: int, number: int, departures: Departures
) -> tuple[list[Visit], Floats, Floats, Floats, Floats]:
    who, weather, market = (np.random.default_rng([seed, number, k]) for k in (1, 2, 3))
    visits = [
        _visit(who, site.sockets[i], i, departures, number * DAY_S)
        for i in range(len(site.sockets))
        if who.random() < COMES
    ]
    building, pv = _power(weather, site)
    buy, sell = _prices(market)
    return visits, building, pv, buy, sell


def _visit(rng: np.random.Generator, socket: Socket, index: int, departures: Departures, offset_s: int) -> Visit:
    hour = rng.normal(socket.usual_h, 0.6)
    if socket.depot:
        arrival_h = float(np.clip(hour - 6, 8.5, 15.5))
        stated_h = float(np.clip(rng.normal(23.0, 0.8), arrival_h + 3, 24))
        energy_kwh, classes = rng.normal(42, 14), (0.0, 0.6, 0.4)
    else:
        arrival_h = float(np.clip(hour - 6, 0.05, 7.5))
        stated_h = float(np.clip(arrival_h + rng.normal(8, 1.75), arrival_h + 1, 24))
        energy_kwh, classes = rng.lognormal(np.log(14), 0.6), (0.6, 0.3, 0.1)
    priority = int(rng.choice(3, p=classes))
    phases = socket.phases
    if sum(phases) == 3 and rng.random() < 0.15:
        phases = (index % 3 == 0, index % 3 == 1, index % 3 == 2)  # one phase only; stations are wired in turn
    max_a = socket.max_a if rng.random() < 0.8 or socket.max_a <= 16 else 16.0
    most_w = max_a * sum(phases) * 230.0
    energy_wh = float(np.clip(energy_kwh * 1000, 2000, 0.83 * most_w * (stated_h - arrival_h)))
    early, how_early = rng.random() < LEAVES_EARLY, rng.random()
    leaves_h = stated_h
    if departures is Departures.MEASURED and early:
        most_h = max(0.6, min(4.0, 0.5 * (stated_h - arrival_h)))
        leaves_h = max(stated_h - (0.5 + how_early * (most_h - 0.5)), arrival_h + 0.25)
    takes, tapers = float(rng.uniform(0.95, 1.0)), bool(rng.random() < TO_THE_BRIM)
    return Visit(
        socket=index,
        arrival_s=offset_s + _minutes(arrival_h),
        departure_s=offset_s + _minutes(leaves_h),
        stated_s=offset_s + _minutes(stated_h),
        energy_wh=energy_wh,
        priority=priority,
        phases=phases,
        max_a=max_a,
        takes=takes,
        tapers=tapers,
    )


def _minutes(hours: float) -> int:
    return round(hours * 60) * MINUTE_S


def _power(rng: np.random.Generator, site: Site) -> tuple[Floats, Floats]:
    """Building and PV in W, by the minute."""
    minutes = SLOTS * SLOT_S // MINUTE_S
    hour = (6 + np.arange(minutes) / 60) % 24
    most_w = BUILDING_KW * 1000 * len(site.sockets)
    level = rng.normal(1.0, 0.05)  # a colder day, a fuller house
    office = level * (0.25 + 0.75 * np.exp(-(((hour - 13) / 4.2) ** 4)))
    by_slot = np.repeat(0.03 * rng.standard_normal(SLOTS), SLOT_S // MINUTE_S)
    building = most_w * np.clip(office + by_slot + 0.02 * rng.standard_normal(minutes), 0.1, 1.18)
    bell = np.exp(-(((hour - 13.2) / 3.0) ** 2))
    bell[bell < 0.01] = 0.0
    drift = np.repeat(np.cumsum(rng.standard_normal(SLOTS)) * 0.05, SLOT_S // MINUTE_S)
    sky = np.clip(rng.normal(0.8, 0.15) + drift + 0.05 * rng.standard_normal(minutes), 0.15, 1.0)
    return building, site.pv_peak_w * bell * sky


def _prices(rng: np.random.Generator) -> tuple[Floats, Floats]:
    """Buying and selling in EUR/kWh: market hours with a morning and an evening peak and a noon full of sun."""
    hour = (6 + np.arange(SLOTS) // 4) % 24
    market = 0.085 + 0.05 * np.exp(-(((hour - 8) / 1.6) ** 2)) + 0.09 * np.exp(-(((hour - 19) / 2.0) ** 2))
    market -= 0.09 * np.exp(-(((hour - 13) / 2.4) ** 2))
    market += np.repeat(0.012 * rng.standard_normal(SLOTS // 4), 4)
    return market + 0.095, market - 0.012


def what_breaks(day: Day) -> Iterable[Fault]:
    """Every tenth socket is out of reach once for 5 to 40 minutes, and two meters are silent for 3 to 15."""
    rng = np.random.default_rng([day.seed, 4])
    for socket in np.flatnonzero(rng.random(len(day.site.sockets)) < 0.1).tolist():
        first = int(rng.integers(0, day.seconds - 3600))
        yield Fault(first, first + int(rng.integers(300, 2400)), socket=socket)
    metered = [n for n, c in enumerate(day.site.grid.circuits) if c.metered]
    for _ in range(2 * max(day.seconds // DAY_S, 1)):
        first = int(rng.integers(0, day.seconds - 3600))
        yield Fault(first, first + int(rng.integers(180, 900)), node=int(rng.choice(metered)))

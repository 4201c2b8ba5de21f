"""Charging that is not plugged in yet: how many cars come when, how long they stay, what they take.

Pure. Cars that are here are sessions of the plan; this is for the empty sockets: as expected power and its spread for
people to look at, and as sessions that the plan leaves room for (`still_to_come`) but promises nothing. Only totals
per time of day and place are kept: nothing here knows who came.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, tzinfo

import numpy as np
from scipy.stats import poisson

from smartcharging.engine.forecast.series import QUARTERS_A_DAY, SLOT_S, Forecast, Integers, local_clock
from smartcharging.engine.plan.problem import PlanSession, Series

HOURS = 24
LONGEST_STAY_SLOTS = QUARTERS_A_DAY
TO_90_PERCENT = 1.2816  # standard deviations
USUAL_STAY_SLOTS = 16.0
LEAST_LIKELY = 0.05  # cars: fewer than this are not worth a session of the plan
LEAST_WH = 200.0
SITE_COUNTS_AS = 2  # visits: so many of the whole site's usual ones stand beside those of a place


@dataclass(frozen=True, slots=True)
class Visit:
    """A car that came, stayed and took energy at the meter."""

    arrived: datetime
    left: datetime
    energy_wh: float
    place: str = ""  # the EVSE's key; empty: not known


@dataclass(frozen=True)
class PlaceHabits:
    """One place: arrivals an hour per kind of day and local hour, and what is usual of those who come there."""

    arrivals: Series  # axes kind, hour
    stay_slots: float
    energy_wh: float


@dataclass(frozen=True)
class Habits:
    """Per kind of day (working day, weekend) and local hour: arrivals an hour, and the usual stay and energy.

    `places` has the same by EVSE, for those at which anybody was seen.
    """

    arrivals: Series  # axes kind, hour
    stay_slots: Series
    energy_wh: Series
    visits: int
    places: Mapping[str, PlaceHabits] = field(default_factory=dict)

    @classmethod
    def of(cls, visits: Iterable[Visit], first: datetime, last: datetime, zone: tzinfo) -> Habits:
        """Learn from the visits that began in [first, last). Days without a visit count: nobody came."""
        slots = max(int((last - first).total_seconds()) // SLOT_S, 0)
        _, weekday, quarter = local_clock(first, slots, zone)
        hours = np.zeros((2, HOURS))
        np.add.at(hours, ((weekday >= 5).astype(int), quarter // 4), SLOT_S / 3600)
        sound = [v for v in visits if first <= v.arrived < last and v.left > v.arrived and np.isfinite(v.energy_wh)]
        count = np.zeros((2, HOURS))
        stays: dict[tuple[int, int], list[float]] = {}
        energies: dict[tuple[int, int], list[float]] = {}
        for v in sound:
            local = v.arrived.astimezone(zone)
            key = (int(local.weekday() >= 5), local.hour)
            count[key] += 1
            stays.setdefault(key, []).append((v.left - v.arrived).total_seconds() / SLOT_S)
            energies.setdefault(key, []).append(max(v.energy_wh, 0.0))
        every_stay = [s for values in stays.values() for s in values]
        stay = np.full((2, HOURS), np.median(every_stay) if every_stay else USUAL_STAY_SLOTS)
        energy = np.full((2, HOURS), np.mean([e for v in energies.values() for e in v]) if energies else 0.0)
        for key, values in stays.items():
            stay[key] = np.median(values)
            energy[key] = np.mean(energies[key])
        arrivals = np.where(hours > 0, count / np.maximum(hours, 1e-9), 0.0)
        return cls(
            arrivals,
            np.clip(np.round(stay), 1, LONGEST_STAY_SLOTS),
            energy,
            len(sound),
            _of_places([v for v in sound if v.place], hours, zone),
        )

    def to_json(self) -> str:
        places = {k: [p.arrivals.tolist(), p.stay_slots, p.energy_wh] for k, p in self.places.items()}
        body = {"arrivals": self.arrivals.tolist(), "stay": self.stay_slots.tolist(), "energy": self.energy_wh.tolist()}
        return json.dumps({**body, "visits": self.visits, "places": places})

    @classmethod
    def from_json(cls, text: str) -> Habits:
        """Raises `ValueError` for what is not ours."""
        try:
            body = json.loads(text)
            series = [np.array(body[name], dtype=float).reshape(2, HOURS) for name in ("arrivals", "stay", "energy")]
            places = {
                key: PlaceHabits(np.array(rate, dtype=float).reshape(2, HOURS), float(stay), float(energy))
                for key, (rate, stay, energy) in body["places"].items()
            }
            return cls(series[0], series[1], series[2], int(body["visits"]), places)
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise ValueError(f"these are no habits: {error}") from error


def _of_places(visits: list[Visit], hours: Series, zone: tzinfo) -> dict[str, PlaceHabits]:
    """Habits by place. A place with few visits leans on what is usual at the site."""
    if not visits:
        return {}
    usual_stay = float(np.median([_stay_slots(v) for v in visits]))
    usual_wh = float(np.mean([max(v.energy_wh, 0.0) for v in visits]))
    by_place: dict[str, list[Visit]] = {}
    for v in visits:
        by_place.setdefault(v.place, []).append(v)
    found = {}
    for place, mine in by_place.items():
        count = np.zeros((2, HOURS))
        for v in mine:
            local = v.arrived.astimezone(zone)
            count[int(local.weekday() >= 5), local.hour] += 1
        stays = [_stay_slots(v) for v in mine] + [usual_stay] * SITE_COUNTS_AS
        energy_wh = sum(max(v.energy_wh, 0.0) for v in mine) + SITE_COUNTS_AS * usual_wh
        found[place] = PlaceHabits(
            np.where(hours > 0, count / np.maximum(hours, 1e-9), 0.0),
            float(np.clip(np.median(stays), 1, LONGEST_STAY_SLOTS)),
            energy_wh / (len(mine) + SITE_COUNTS_AS),
        )
    return found


def _stay_slots(visit: Visit) -> float:
    return (visit.left - visit.arrived).total_seconds() / SLOT_S


def expected_arrivals(habits: Habits, start: datetime, slots: int, zone: tzinfo) -> Series:
    """The mean number of cars that come in each slot."""
    _, weekday, quarter = local_clock(start, slots, zone)
    rate: Series = habits.arrivals[(weekday >= 5).astype(int), quarter // 4] * SLOT_S / 3600
    return rate


def charging(habits: Habits, start: datetime, slots: int, zone: tzinfo) -> Forecast:
    """Power of the cars still to come, each spread evenly over its stay. Arrivals are taken as Poisson."""
    _, weekday, quarter = local_clock(start, slots, zone)
    kind, hour = (weekday >= 5).astype(int), quarter // 4
    rate = expected_arrivals(habits, start, slots, zone)
    stay = habits.stay_slots[kind, hour].astype(int)
    power = habits.energy_wh[kind, hour] / (stay * SLOT_S / 3600)
    mean, variance = np.zeros(slots + 1), np.zeros(slots + 1)
    begin = np.arange(slots)
    end = np.minimum(begin + stay, slots)
    for edges, weight in ((mean, rate * power), (variance, rate * power**2)):
        np.add.at(edges, begin, weight)
        np.add.at(edges, end, -weight)
    middle = np.maximum(np.cumsum(mean)[:slots], 0.0)
    spread = TO_90_PERCENT * np.sqrt(np.maximum(np.cumsum(variance)[:slots], 0.0))
    method = "arrivals" if habits.visits else "nothing known"
    return Forecast.of(start, np.maximum(middle - spread, 0.0), middle, middle + spread, method)


def still_to_come(
    habits: Habits,
    start: datetime,
    slots: int,
    zone: tzinfo,
    places: Iterable[PlanSession],
    quantile: float | None = None,
) -> tuple[PlanSession, ...]:
    """Sessions of the plan for cars that are not here yet, at places that are or become free.

    Each of `places` says what a car there could take and from which slot on the place is free (`first_slot`); its
    energy is not read. Nobody is expected within the running slot: who is not here cannot be charged now. A place
    where 0.8 cars are expected gets one session with 0.8 times the usual energy, so that the sum is right although
    nobody knows who stays away. `quantile` counts on more (or fewer) cars than the mean: on so many as are exceeded
    with the rest of the probability, arrivals taken as Poisson. Nothing known: nobody comes.
    """
    places = list(places)
    if not habits.visits or not places or not slots:
        return ()
    _, weekday, quarter = local_clock(start, slots, zone)
    kind, hour = (weekday >= 5).astype(int), quarter // 4
    found: list[PlanSession] = []
    for place in places:
        found += _at_place(_habits_of(habits, place.key, len(places)), place, kind, hour, slots)
    if quantile is None or not found:
        return tuple(found)
    mean = sum(_rate(habits, p, len(places), kind, hour).sum() for p in places)
    scale = float(poisson.ppf(quantile, mean)) / mean if mean > 0 else 1.0
    return tuple(replace(s, energy_wh=min(s.energy_wh * scale, _most_wh(s))) for s in found)


def _habits_of(habits: Habits, key: str, places: int) -> PlaceHabits | None:
    """Where places are known, one at which nobody was seen expects nobody; where none is, all share alike."""
    if habits.places:
        return habits.places.get(key)
    count = habits.arrivals
    weight = count / count.sum() if count.sum() > 0 else count
    return PlaceHabits(
        count / places, max(float((weight * habits.stay_slots).sum()), 1.0), float((weight * habits.energy_wh).sum())
    )


def _rate(habits: Habits, place: PlanSession, places: int, kind: Integers, hour: Integers) -> Series:
    """Cars expected at a place in each slot, from when it is free."""
    own = _habits_of(habits, place.key, places)
    if own is None:
        return np.zeros(hour.shape[0])
    return _from_free(own, place, kind, hour)


def _from_free(own: PlaceHabits, place: PlanSession, kind: Integers, hour: Integers) -> Series:
    rate: Series = own.arrivals[kind, hour] * SLOT_S / 3600
    rate[: max(place.first_slot, 0)] = 0.0
    return rate


def _at_place(
    own: PlaceHabits | None, place: PlanSession, kind: Integers, hour: Integers, slots: int
) -> list[PlanSession]:
    """The cars of one place after each other, each with a chance of at most one."""
    if own is None:
        return []
    coming = np.cumsum(_from_free(own, place, kind, hour))
    total = float(coming[-1])
    if total < LEAST_LIKELY:
        return []
    cars = max(int(np.ceil(total - LEAST_LIKELY)), 1)
    chance = total / cars
    firsts = [max(int(np.searchsorted(coming, (k + 0.5) * chance)), 1) for k in range(cars)]
    stay = max(round(own.stay_slots), 1)
    found = []
    for first, following in zip(firsts, [*firsts[1:], slots], strict=True):
        last = min(first + stay, max(following, first + 1), slots)
        if first >= last:
            continue
        inside = min((slots - first) / stay, 1.0)  # of who stays beyond the horizon, the part before it
        session = replace(
            place,
            key=f"expected:{place.key}",
            name=f"expected:{place.key}:{first}",
            first_slot=first,
            last_slot=last,
            expected=True,
        )
        energy_wh = min(chance * own.energy_wh * inside, _most_wh(session))
        if energy_wh >= LEAST_WH:
            found.append(replace(session, energy_wh=energy_wh))
    return found


def _most_wh(session: PlanSession) -> float:
    return session.max_w * session.efficiency * (session.last_slot - session.first_slot) * SLOT_S / 3600

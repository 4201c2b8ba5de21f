"""Where the visitors of the demo charge. Pure: the same visits find the same places."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, datetime, timedelta

from webapp.demo.replay import Replay, Visit

Place = tuple[str, int]
"""A station's identity and the number of its EVSE."""

PLACES: dict[str, tuple[Place, ...]] = {
    "staff": (("NOORD-01", 1), ("NOORD-02", 1), ("NOORD-03", 2), ("NOORD-04", 1), ("NOORD-05", 1), ("NOORD-07", 1)),
    "resident": (("NOORD-06", 1), ("NOORD-06", 2), ("NOORD-08", 1), ("NOORD-09", 1), ("NOORD-10", 1)),
    "fast": (("SNEL-1", 1), ("SNEL-2", 1)),
}
DRIVER_PLACE: Place = ("NOORD-03", 1)  # kept for the driver of the demo


@dataclass(frozen=True, slots=True)
class Stay:
    """A visit that found a place."""

    visit: Visit
    place: Place

    def energy_wh(self, start: datetime, end: datetime) -> float:
        """What it had charged between two moments of the past, spread as `cars.car_for` has it."""
        done = self.visit.energy_wh * (self.visit.share_at(end) - self.visit.share_at(start))
        return max(done, 0.0)


def free_place(visit: Visit, taken: set[Place]) -> Place | None:
    """A person has a usual place and takes the next free one after it. None: all are taken, they drive on."""
    places = PLACES[visit.group]
    usual = visit.user % len(places)
    return next((p for p in places[usual:] + places[:usual] if p not in taken), None)


def allot(visits: Iterable[Visit]) -> list[Stay]:
    """Give each visit its place, in order of arrival. Those who find none are left out."""
    stays: list[Stay] = []
    here: list[Stay] = []
    for visit in visits:
        here = [s for s in here if s.visit.leaves > visit.arrives]
        place = free_place(visit, {s.place for s in here})
        if place is not None:
            here.append(Stay(visit, place))
            stays.append(here[-1])
    return stays


def stays_between(replay: Replay, first: date, last: date) -> list[Stay]:
    """Everyone who arrives on these local days, with their places."""
    visits: list[Visit] = []
    day = first
    while day <= last:
        visits += replay.visits(day)
        day += timedelta(days=1)
    return allot(visits)


def present(replay: Replay, now: datetime) -> list[Stay]:
    """Who is on the site at `now`."""
    today = now.astimezone(replay.zone).date()
    stays = stays_between(replay, today - timedelta(days=1), today)
    return [s for s in stays if s.visit.arrives <= now < s.visit.leaves]

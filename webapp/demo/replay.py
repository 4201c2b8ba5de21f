"""Plays measured days back on today's date. Pure; where the days come from is told in `docs/demo-data.md`.

A day is replaced by the measured day nearest in the year, for building, prices and cars one of the same weekday.
Building, prices and cars go by the site's clock: of the 100 quarter hours of an autumn Sunday four repeat, of the 92
of a spring Sunday four are left out. The sun goes by UTC.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import math
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from functools import cache
from pathlib import Path
from zoneinfo import ZoneInfo

DATA = Path(__file__).parent / "data"
BUILDING_SHARE = 0.6  # of the measured office
PHASE_SHARES = (0.36, 0.33, 0.31)
CROWD = {"staff": 3, "resident": 3, "fast": 2}
"""How many measured days come together on one: this site has so many times the people of the garages measured."""
OTHER_PEOPLE = 100  # added to the user numbers of each further day
FLICKER = 0.04  # a load moves this much about its quarter-hour mean; not measured, drawn by the minute


@dataclass(frozen=True, slots=True)
class Visit:
    """A car that comes, stays and wants so much. `user` is the same person each time."""

    group: str  # staff, resident, fast
    user: int
    arrives: datetime
    leaves: datetime
    energy_wh: float

    def share_at(self, at: datetime) -> float:
        """How much of its energy it would have had by then, 0 … 1.

        A plan that spreads the charge gives it evenly over the stay; a fast charger gives 25 kW and spreads nothing.
        """
        here_s = (at - self.arrives).total_seconds()
        if self.group == "fast":
            share = 25_000 * here_s / 3600 / self.energy_wh
        else:
            share = here_s / (0.9 * (self.leaves - self.arrives).total_seconds())
        return min(max(share, 0.0), 1.0)


def _rows(name: str) -> Iterator[dict[str, str]]:
    with gzip.open(DATA / f"{name}.csv.gz", "rt", newline="") as file:
        yield from csv.DictReader(file)


@cache
def days(name: str) -> dict[date, tuple[float, ...]]:
    """A table of measured days: `building` in kW, `pv` in thousandths of the installed power, `prices` in EUR/MWh."""
    return {
        date.fromisoformat(row["date"]): tuple(float(v) for k, v in row.items() if k != "date") for row in _rows(name)
    }


@cache
def sessions() -> dict[tuple[str, date], list[dict[str, str]]]:
    found: dict[tuple[str, date], list[dict[str, str]]] = defaultdict(list)
    for row in _rows("sessions"):
        found[row["group"], date.fromisoformat(row["date"])].append(row)
    return dict(found)


def stand_in(name: str, day: date, same_weekday: bool = True) -> date:
    """The measured day that stands in for `day`: nearest in the year, of the same weekday where that matters."""
    return stand_ins(name, day, same_weekday)[0]


@cache
def stand_ins(name: str, day: date, same_weekday: bool = True) -> tuple[date, ...]:
    """The nearest measured days, nearest first."""
    known = {d for _, d in sessions()} if name == "sessions" else days(name).keys()
    fitting = [d for d in known if not same_weekday or d.weekday() == day.weekday()]

    def apart(other: date) -> int:
        distance = abs(other.timetuple().tm_yday - day.timetuple().tm_yday)
        return min(distance, 365 - min(distance, 365))

    return tuple(sorted(fitting, key=lambda d: (apart(d), d))[:4])


@dataclass(frozen=True, slots=True)
class Replay:
    """The world around the stations, at any moment."""

    zone: ZoneInfo
    pv_peak_w: float

    def building_mean_w(self, slot: datetime) -> float:
        """The mean of the quarter hour that begins at `slot`."""
        local = slot.astimezone(self.zone)
        measured = days("building")[stand_in("building", local.date())]
        return measured[(local.hour * 60 + local.minute) // 15] * 1000 * BUILDING_SHARE

    def building_w(self, at: datetime) -> tuple[float, float, float]:
        """Per phase, now. Never feeds back."""
        total = self._between(self.building_mean_w, at) * (1 + FLICKER * flicker("building", at))
        a, b, c = (max(total * share * (1 + 0.03 * flicker(f"L{i}", at)), 0.0) for i, share in enumerate(PHASE_SHARES))
        return (a, b, c)

    def pv_mean_w(self, slot: datetime) -> float:
        """Negative: it produces."""
        at = slot.astimezone(UTC)
        measured = days("pv")[stand_in("pv", at.date(), False)]
        return -measured[(at.hour * 60 + at.minute) // 15] / 1000 * self.pv_peak_w

    def pv_w(self, at: datetime) -> float:
        return self._between(self.pv_mean_w, at) * (1 + 2 * FLICKER * flicker("cloud", at))

    @staticmethod
    def _between(mean: object, at: datetime) -> float:
        """On the line between the middles of two quarter hours, so that power has no steps."""
        assert callable(mean)
        quarter = timedelta(minutes=15)
        start = datetime.fromtimestamp((at - quarter / 2).timestamp() // 900 * 900, UTC)
        part = (at - start - quarter / 2) / quarter
        return float(mean(start)) * (1 - part) + float(mean(start + quarter)) * part

    def prices(self, day: date) -> list[tuple[datetime, float]]:
        """(start in UTC, EUR/MWh) of each hour of a local day: 23, 24 or 25 of them."""
        measured = days("prices")[stand_in("prices", day)]
        return [(at, measured[at.astimezone(self.zone).hour]) for at in self.hours(day)]

    def hours(self, day: date) -> Iterator[datetime]:
        at = datetime.combine(day, time(), self.zone).astimezone(UTC)
        end = datetime.combine(day + timedelta(days=1), time(), self.zone).astimezone(UTC)
        while at < end:
            yield at
            at += timedelta(hours=1)

    def visits(self, day: date) -> list[Visit]:
        """Everyone who arrives on a local day, in order of arrival."""
        found = []
        for group, crowd in CROWD.items():
            for n, source in enumerate(stand_ins("sessions", day)[:crowd]):
                for row in sessions().get((group, source), []):
                    found += list(self._visits(group, day, row, int(row["user"]) + n * OTHER_PEOPLE))
        return sorted(found, key=lambda v: (v.arrives, v.group, v.user))

    def _visits(self, group: str, day: date, row: dict[str, str], user: int) -> Iterator[Visit]:
        minute, stay = int(row["minute"]), int(row["stay_min"])
        energy_wh = float(row["energy_kwh"]) * 1000
        starts = [minute]
        if group == "fast":
            # A long charge at home becomes a short stop here; it comes as measured, and again half a day later.
            stay, starts = 20 + round(energy_wh / 1000), [minute, (minute + 720) % 1440]
        for start in starts:
            local = datetime.combine(day, time(start // 60, start % 60), self.zone)
            arrives = local.astimezone(UTC)
            yield Visit(group, user, arrives, arrives + timedelta(minutes=stay), energy_wh)


def flicker(name: str, at: datetime) -> float:
    """Between -1 and 1, smooth over the minute, the same for the same name and moment."""
    minute = math.floor(at.timestamp() / 60)
    part = at.timestamp() / 60 - minute
    ease = part * part * (3 - 2 * part)
    return _draw(name, minute) * (1 - ease) + _draw(name, minute + 1) * ease


def _draw(name: str, minute: int) -> float:
    raw = hashlib.blake2b(f"{name}:{minute}".encode(), digest_size=4).digest()
    return int.from_bytes(raw, "big") / 2**31 - 1

"""Days as they were recorded: charging sessions of a workplace, the load of an office, sun and prices.

Read from a folder that is named by whoever asks; nothing of it is part of the product. The recordings are of different
places and years, put together by the clock of their own day and the time of the year. Circuits, battery and tariff
are made up, sized as on the synthetic site: only who came when, for how long and for how much energy, what the
building and the sun did, and what an hour cost, is real.
"""

from __future__ import annotations

import csv
import gzip
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np

from smartcharging.engine.grid import NOMINAL_V, Circuit, Grid
from smartcharging.replay.days import (
    DAY_S,
    FIRST,
    LEAVES_EARLY,
    MINUTE_S,
    SLOT_S,
    SLOTS,
    Day,
    Departures,
    Visit,
    what_breaks,
)
from smartcharging.replay.site import FUSE, Floats, Level, Site, Socket, synthetic, tree

SESSIONS = "ev/sessions_jpl_workplace_2018-10_2019-08.csv.gz"
BUILDING = "building/office_lbnl59_load_weather_2018-01_2019-06_15min.csv.gz"
SUN = "pv/elia_belgium_solar_2023_15min.csv.gz"
PRICES = "prices/dayahead_be_nl_fr_delu_2025-01_2025-08_60min.csv.gz"
AT_WORK, IN_BELGIUM = ZoneInfo("America/Los_Angeles"), ZoneInfo("Europe/Brussels")
FIRST_DAY, LAST_DAY = date(2019, 2, 4), date(2019, 6, 28)  # a Monday and a Friday, with weeks before them to learn from
BEGINS = time(6)
SOCKET_A = 32.0
ADDER_EUR_PER_KWH, EXPORT_LESS_EUR_PER_KWH = 0.095, 0.012


class NoData(Exception):
    """A recording is not there, or does not have the day that is asked for."""


def working_days() -> list[date]:
    count = (LAST_DAY - FIRST_DAY).days + 1
    return [d for k in range(count) if (d := FIRST_DAY + timedelta(days=k)).weekday() < 5]


def recorded_day(
    folder: Path, number: int, level: Level, departures: Departures = Departures.MEASURED, with_faults: bool = False
) -> Day:
    """The working day of this number; negative ones lie before the first. Raises `NoData`."""
    when = _date(number)
    site = _site(folder, level)
    begins = datetime.combine(when, BEGINS, AT_WORK).astimezone(UTC)
    building = _slots(_series(folder, BUILDING, "ts_utc", "load_kw"), begins, 1) * 1000
    in_2023 = datetime.combine(when.replace(year=2023), BEGINS, IN_BELGIUM).astimezone(UTC)
    sun = _slots(_series(folder, SUN, "ts_utc", "measured_mw"), in_2023, 1)
    whole = _slots(_series(folder, SUN, "ts_utc", "capacity_mwp"), in_2023, 1)
    in_2025 = when.replace(year=2025)
    in_2025 += timedelta(days=(when.weekday() - in_2025.weekday()) % 7)  # the same day of the week
    market = _slots(
        _series(folder, PRICES, "ts_utc", "BE"), datetime.combine(in_2025, BEGINS, IN_BELGIUM).astimezone(UTC), 4
    )
    minutes = SLOT_S // MINUTE_S
    day = Day(
        site=site,
        start=FIRST,
        visits=tuple(_visits(folder, site, begins, departures, number)),
        building_w=np.repeat(building, minutes),
        pv_w=np.repeat(site.pv_peak_w * sun / whole, minutes),
        buy_eur_per_kwh=market / 1000 + ADDER_EUR_PER_KWH,
        sell_eur_per_kwh=market / 1000 - EXPORT_LESS_EUR_PER_KWH,
        seed=abs(number),
    )
    return replace(day, faults=tuple(what_breaks(day))) if with_faults else day


def _date(number: int) -> date:
    days = working_days()
    if number >= len(days):
        raise NoData(f"there are {len(days)} recorded working days; no number {number}")
    if number >= 0:
        return days[number]
    weeks, rest = divmod(number, 5)
    return FIRST_DAY + timedelta(days=7 * weeks + rest)


@lru_cache(maxsize=8)
def _site(folder: Path, level: Level) -> Site:
    """The sockets of the recording on circuits of the synthetic family."""
    keys = sorted({row["station_id"] for row in _rows(folder, SESSIONS)})
    model = synthetic(len(keys), level)
    phases = [(i % 3 == 0, i % 3 == 1, i % 3 == 2) for i in range(len(keys))]
    circuits, leaf = tree(np.full(len(keys), SOCKET_A), np.array(phases, dtype=float), level.limits)
    most_w = 1000 * max(_series(folder, BUILDING, "ts_utc", "load_kw").values())
    limit_w = most_w + 900.0 * len(keys) * level.limits
    worst_a = most_w / (3 * NOMINAL_V)
    root = replace(
        model.grid.circuits[0],
        limit_a=(limit_w / (3 * NOMINAL_V) * FUSE,) * 3,
        limit_w=limit_w,
        worst_a=(worst_a, worst_a, worst_a),
    )
    grid: tuple[Circuit, ...] = (root, *circuits)
    return replace(
        model,
        name=f"recorded workplace, {len(keys)} sockets, {level}",
        grid=Grid(grid),
        sockets=tuple(Socket(key, int(leaf[i]), phases[i], SOCKET_A) for i, key in enumerate(keys)),
        month_peak_w=0.5 * most_w,
    )


def _visits(folder: Path, site: Site, begins: datetime, departures: Departures, number: int) -> Iterator[Visit]:
    """Who came on that day. What a driver typed is what he said; who typed nothing is given the usual error."""
    rng = np.random.default_rng([abs(number), 9])
    index = {s.key: i for i, s in enumerate(site.sockets)}
    found = []
    for row in _rows(folder, SESSIONS):
        arrival_s = int((datetime.fromisoformat(row["plug_in_utc"]) - begins).total_seconds())
        if not 0 <= arrival_s < DAY_S - 2 * SLOT_S or not row["energy_kwh"]:
            continue
        left_s = int((datetime.fromisoformat(row["plug_out_utc"]) - begins).total_seconds())
        departure_s = max(min(left_s, DAY_S), arrival_s + SLOT_S)
        stated_s = departure_s
        early = rng.random() < LEAVES_EARLY, int(rng.uniform(1800, 7200))
        if departures is Departures.MEASURED and row["requested_departure_utc"]:
            said = datetime.fromisoformat(row["requested_departure_utc"])
            stated_s = max(int((said - begins).total_seconds()), arrival_s + SLOT_S)
        elif departures is Departures.MEASURED and early[0]:
            stated_s += early[1]
        i = index[row["station_id"]]
        socket = site.sockets[i]
        most_wh = 0.9 * socket.max_w * (departure_s - arrival_s) / 3600
        energy_wh = min(float(row["energy_kwh"]) * 1000, most_wh)
        takes = float(rng.uniform(0.95, 1.0))
        found.append(Visit(i, arrival_s, departure_s, stated_s, energy_wh, 1, socket.phases, SOCKET_A, takes))
    last: dict[int, int] = {}
    for visit in sorted(found, key=lambda v: v.arrival_s):
        if visit.arrival_s >= last.get(visit.socket, 0):
            last[visit.socket] = visit.departure_s
            yield visit


@lru_cache(maxsize=16)
def _rows(folder: Path, name: str) -> list[dict[str, str]]:
    try:
        with gzip.open(folder / name, "rt", encoding="utf-8") as file:
            return list(csv.DictReader(file))
    except OSError as error:
        raise NoData(f"{folder / name}: {error.strerror or error}") from error


@lru_cache(maxsize=16)
def _series(folder: Path, name: str, at: str, value: str) -> dict[datetime, float]:
    return {datetime.fromisoformat(row[at]): float(row[value]) for row in _rows(folder, name) if row[value]}


def _slots(series: dict[datetime, float], begins: datetime, quarters: int) -> Floats:
    """The quarter hours of a day; gaps are bridged, and half a day without anything is no day."""
    values = np.full(SLOTS, np.nan)
    for k in range(SLOTS):
        at = begins + timedelta(seconds=SLOT_S * (k - k % quarters))
        values[k] = series.get(at, np.nan)
    known = np.isfinite(values)
    if known.sum() < SLOTS // 2:
        raise NoData(f"nothing was recorded on {begins:%Y-%m-%d}")
    return np.asarray(np.interp(np.arange(SLOTS), np.flatnonzero(known), values[known]))

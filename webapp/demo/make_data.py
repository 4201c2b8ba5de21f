"""Makes the demo's data files from the measurements they are derived from. Sources and licences: `docs/demo-data.md`.

    python -m webapp.demo.make_data FOLDER_WITH_THE_SOURCES [OUT]

Every file is a small table, one row a day, and making it twice gives the same bytes. Nothing is invented: a short gap
is bridged by a straight line, a day with a longer one is left out.
"""

from __future__ import annotations

import csv
import gzip
import io
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

BUILDING = "building/office_lbnl59_load_weather_2018-01_2019-06_15min.csv.gz"
PV = "pv/elia_belgium_solar_2023_15min.csv.gz"
PRICES = "prices/dayahead_be_nl_fr_delu_2025-01_2025-08_60min.csv.gz"
SESSIONS = "ev/sessions_trondheim_residential_2018-12_2020-01.csv.gz"

LONGEST_GAP = 8  # slots: two hours
STAFF_GARAGES = ("Bl2",)
RESIDENT_GARAGES = ("AsO2", "UT7")
FROM, UNTIL = date(2019, 9, 1), date(2020, 1, 31)
STAFF_SHIFT = timedelta(hours=8)
STAFF_STAY = timedelta(hours=10)
FAST_FROM_KWH = 15.0

Days = dict[date, list[float | None]]


def rows_of(path: Path) -> Iterator[dict[str, str]]:
    with gzip.open(path, "rt", newline="") as file:
        yield from csv.DictReader(file)


def by_clock(values: Iterable[tuple[datetime, float | None]], zone: ZoneInfo, slots: int) -> Days:
    """Days of a site's own clock: the hour that is not there stays empty, of the doubled one the first counts."""
    days: Days = defaultdict(lambda: [None] * slots)
    minutes = 1440 // slots
    for at, value in values:
        local = at.astimezone(zone)
        index = (local.hour * 60 + local.minute) // minutes
        if days[local.date()][index] is None:
            days[local.date()][index] = value
    return days


def mended(days: Days) -> dict[date, list[float]]:
    """Short gaps bridged; days with longer ones left out."""
    good: dict[date, list[float]] = {}
    for day, values in sorted(days.items()):
        bridged = bridge(values)
        if bridged is not None:
            good[day] = bridged
    return good


def bridge(values: list[float | None]) -> list[float] | None:
    known = [i for i, v in enumerate(values) if v is not None]
    if not known or known[0] > LONGEST_GAP or len(values) - 1 - known[-1] > LONGEST_GAP:
        return None
    out: list[float] = []
    for i in range(len(values)):
        before = max((k for k in known if k <= i), default=known[0])
        after = min((k for k in known if k >= i), default=known[-1])
        if after - before > LONGEST_GAP:
            return None
        a, b = values[before], values[after]
        assert a is not None and b is not None
        out.append(a if after == before else a + (b - a) * (i - before) / (after - before))
    return out


def write(path: Path, head: list[str], rows: Iterable[list[object]]) -> None:
    """Gzip without a time stamp, so that the same input gives the same file."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(head)
    writer.writerows(rows)
    path.write_bytes(gzip.compress(text.getvalue().encode(), 9, mtime=0))


def number(text: str) -> float | None:
    return float(text) if text else None


def building(source: Path, out: Path) -> None:
    """kW per quarter hour of the office's own clock, the year 2018."""
    zone = ZoneInfo("America/Los_Angeles")
    values = ((datetime.fromisoformat(r["ts_utc"]), number(r["load_kw"])) for r in rows_of(source / BUILDING))
    days = mended({d: v for d, v in by_clock(values, zone, 96).items() if d.year == 2018})
    write(
        out / "building.csv.gz",
        ["date", *(f"q{i}" for i in range(96))],
        ([d, *(f"{v:.1f}" for v in values)] for d, values in days.items()),
    )


def pv(source: Path, out: Path) -> None:
    """Thousandths of the installed power per UTC quarter hour, the year 2023."""

    def share(row: dict[str, str]) -> float | None:
        measured, capacity = number(row["measured_mw"]), number(row["capacity_mwp"])
        return None if measured is None or not capacity else 1000 * measured / capacity

    values = ((datetime.fromisoformat(r["ts_utc"]), share(r)) for r in rows_of(source / PV))
    days = mended({d: v for d, v in by_clock(values, ZoneInfo("UTC"), 96).items() if d.year == 2023})
    write(
        out / "pv.csv.gz",
        ["date", *(f"q{i}" for i in range(96))],
        ([d, *(f"{v:.0f}" for v in values)] for d, values in days.items()),
    )


def prices(source: Path, out: Path) -> None:
    """EUR/MWh per hour of the Belgian clock."""
    zone = ZoneInfo("Europe/Brussels")
    values = ((datetime.fromisoformat(r["ts_utc"]), number(r["BE"])) for r in rows_of(source / PRICES))
    days = mended({d: v for d, v in by_clock(values, zone, 24).items() if d.year == 2025})
    write(
        out / "prices.csv.gz",
        ["date", *(f"h{i}" for i in range(24))],
        ([d, *(f"{v:.2f}" for v in values)] for d, values in days.items()),
    )


def sessions(source: Path, out: Path) -> None:
    """Who came when, stayed how long and took how much. Residents as measured; staff as that, eight hours earlier."""
    zone = ZoneInfo("Europe/Oslo")
    users: dict[str, int] = {}
    rows: list[list[object]] = []
    for row in rows_of(source / SESSIONS):
        energy = float(row["energy_kwh"])
        came = datetime.fromisoformat(row["plug_in_utc"]).astimezone(zone)
        if not row["plug_out_utc"] or energy < 0.5 or not FROM <= came.date() <= UNTIL:
            continue
        stay = datetime.fromisoformat(row["plug_out_utc"]).astimezone(UTC) - came.astimezone(UTC)
        group = group_of(row["station_id"], energy)
        if group is None or stay < timedelta(minutes=10):
            continue
        if group == "staff":
            came, stay = came - STAFF_SHIFT, min(stay, STAFF_STAY)  # on the clock, not in time: local datetimes do that
        user = users.setdefault(row["user_id"], len(users) + 1)
        minute = came.hour * 60 + came.minute
        rows.append([group, came.date(), minute, round(stay.total_seconds() / 60), f"{energy:.2f}", user])
    rows.sort(key=lambda r: (str(r[0]), str(r[1]), r[2], r[5]))
    write(out / "sessions.csv.gz", ["group", "date", "minute", "stay_min", "energy_kwh", "user"], rows)


def group_of(garage: str, energy_kwh: float) -> str | None:
    if garage in STAFF_GARAGES:
        return "staff"
    if garage in RESIDENT_GARAGES:
        return "resident"
    return "fast" if energy_kwh >= FAST_FROM_KWH else None


def main(words: list[str]) -> None:
    if not 1 <= len(words) <= 2:
        raise SystemExit(__doc__)
    source = Path(words[0])
    out = Path(words[1]) if len(words) == 2 else Path(__file__).parent / "data"
    missing = [name for name in (BUILDING, PV, PRICES, SESSIONS) if not (source / name).is_file()]
    if missing:
        raise SystemExit(f"{source} lacks: {', '.join(missing)}")
    out.mkdir(parents=True, exist_ok=True)
    for make in (building, pv, prices, sessions):
        make(source, out)


if __name__ == "__main__":
    main(sys.argv[1:])

"""The report of a site over a day, a week, a month or any days: as a page and as a CSV file."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils import timezone
from django.utils.text import slugify
from django.utils.translation import gettext as _
from django.views.decorators.http import require_safe

from meters.models import Site
from smartcharging.report import ReportRangeError, report
from webapp.dashboard.pages import of_site

SPANS = ("day", "week", "month")


@dataclass(frozen=True, slots=True)
class Range:
    """The days asked for. `error` tells what was wrong with the question; the days are then those of today."""

    span: str  # day | week | month | days
    start: date
    end: date
    error: str = ""

    @property
    def before(self) -> date:
        """A day in the range before this one, of the same kind."""
        return self.start - timedelta(days=1) if self.span != "days" else self.start - (self.end - self.start)

    @property
    def after(self) -> date:
        return self.end + timedelta(days=1)


def read_range(query: Any, today: date) -> Range:
    """From `?span=week&day=2026-11-24` or `?from=…&to=…`."""
    span = query.get("span", "day")
    try:
        if query.get("from") or query.get("to"):
            start, end = date.fromisoformat(query.get("from", "")), date.fromisoformat(query.get("to", ""))
            return Range("days", start, end)
        day = date.fromisoformat(query["day"]) if query.get("day") else today
        if not 1970 <= day.year <= 9000:
            raise ValueError("out of reach")
    except ValueError:
        return Range("day", today, today, _("That is not a date; write it as 2026-01-31."))
    if span == "week":
        monday = day - timedelta(days=day.weekday())
        return Range("week", monday, monday + timedelta(days=6))
    if span == "month":
        first = day.replace(day=1)
        return Range("month", first, (first + timedelta(days=32)).replace(day=1) - timedelta(days=1))
    return Range("day", day, day)


@require_safe
@of_site
def page(request: HttpRequest, site: Site) -> HttpResponse:
    asked = read_range(request.GET, timezone.localdate())
    try:
        numbers = report(site, asked.start, asked.end)
    except ReportRangeError as error:
        today = timezone.localdate()
        asked = Range("day", today, today, str(error))
        numbers = report(site, today, today)
    energies = [d for d in numbers["days"] if any(d[k] for k in ("grid_import", "pv", "charging"))]
    return render(
        request,
        "dashboard/report.html",
        {
            "site": site,
            "asked": asked,
            "report": numbers,
            "spans": [("day", _("Day")), ("week", _("Week")), ("month", _("Month"))],
            "sources": _sources(numbers["energy_wh"], numbers["has"]),
            "uses": _uses(numbers["energy_wh"], numbers["has"]),
            "has_days": len(numbers["days"]) > 1 and bool(energies),
            "empty": not energies,
            "today": timezone.localdate(),
        },
        status=400 if asked.error else 200,
    )


def _bars(rows: list[tuple[str, str, float | None, bool]]) -> list[dict[str, Any]]:
    """What the site has, as bars against the longest of them."""
    shown = [(name, label, wh) for name, label, wh, has in rows if has]
    most = max((wh or 0.0 for _name, _label, wh in shown), default=0.0)
    return [
        {"name": name, "label": label, "wh": wh, "width": round((wh or 0.0) / most * 100, 1) if most else 0}
        for name, label, wh in shown
    ]


def _sources(wh: dict[str, float | None], has: dict[str, bool]) -> list[dict[str, Any]]:
    return _bars(
        [
            ("grid", _("From the grid"), wh["grid_import"], True),
            ("pv", _("PV"), wh["pv"], has["pv"]),
            ("battery", _("From the battery"), wh["battery_discharged"], has["battery"]),
        ]
    )


def _uses(wh: dict[str, float | None], has: dict[str, bool]) -> list[dict[str, Any]]:
    return _bars(
        [
            ("charging", _("Charging cars"), wh["charging"], True),
            ("building", _("Building"), wh["building"], True),
            ("loads", _("Controllable loads"), wh["loads"], has["load"]),
            ("battery", _("Into the battery"), wh["battery_charged"], has["battery"]),
            ("grid", _("Back to the grid"), wh["grid_export"], True),
        ]
    )


@require_safe
@of_site
def csv_file(request: HttpRequest, site: Site) -> HttpResponse:
    """One line a day, then one a station, then one a user; numbers with a point, energies in kWh."""
    asked = read_range(request.GET, timezone.localdate())
    try:
        if asked.error:
            raise ReportRangeError(asked.error)
        numbers = report(site, asked.start, asked.end)
    except ReportRangeError as error:
        return HttpResponse(str(error), status=400, content_type="text/plain; charset=utf-8")
    response = HttpResponse(content_type="text/csv; charset=utf-8")
    name = f"{slugify(site.name) or 'site'}-{asked.start}-{asked.end}.csv"
    response["Content-Disposition"] = f'attachment; filename="{name}"'
    response.write("\ufeff")  # spreadsheets then read it as UTF-8
    rows = csv.writer(response)
    energies = [k for k in numbers["days"][0] if k not in ("day", "cost_eur")]
    rows.writerow(["day", *(f"{name}_kwh" for name in energies), "energy_cost_eur"])
    for day in numbers["days"]:
        rows.writerow([day["day"], *(_kwh(day[name]) for name in energies), _plain(day["cost_eur"], 2)])
    rows.writerow([])
    rows.writerow(["station", "name", "sessions", "kwh"])
    for row in numbers["stations"]:
        rows.writerow([_text(row["station"]), _text(row["name"]), row["sessions"], _kwh(row["energy_wh"])])
    rows.writerow([])
    rows.writerow(["id_token", "label", "driver", "sessions", "kwh"])
    for row in numbers["users"]:
        rows.writerow(
            [
                _text(row["id_token"]),
                _text(row["label"]),
                _text(row["driver"]),
                row["sessions"],
                _kwh(row["energy_wh"]),
            ]
        )
    return response


def _kwh(wh: float | None) -> str:
    return _plain(None if wh is None else wh / 1000, 3)


def _plain(value: float | None, decimals: int) -> str:
    return "" if value is None else f"{value:.{decimals}f}"


def _text(value: str) -> str:
    """A name must stay a name: a spreadsheet would run one that begins like a formula."""
    return f"'{value}" if value[:1] in ("=", "+", "-", "@", "\t", "\r") else value

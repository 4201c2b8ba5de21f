"""Day-ahead prices: from ENTSO-E's transparency platform with a token, from energy-charts without.

Each source is a function `(area, day) → [PricePoint]`; `fetch` tries them in order. A day is the market's: midnight to
midnight in the area's zone, so 92, 96 or 100 quarter hours. Since delivery day 1 October 2025 prices are quarterly in
the coupled market; hourly ones are taken where nothing finer is offered.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from itertools import pairwise
from xml.etree import ElementTree
from zoneinfo import ZoneInfo

from django.conf import settings

from smartcharging.feeds.source import (
    TIMEOUT_S,
    BadStatus,
    FeedError,
    NoPriceYet,
    SourceNonsense,
    SourceUnreachable,
    get,
    number,
    read_json,
)

LOWEST_EUR_PER_MWH, HIGHEST_EUR_PER_MWH = -500.0, 5000.0
ENTSOE_URL = "https://web-api.tp.entsoe.eu/api"
ENERGY_CHARTS_URL = "https://api.energy-charts.info/price"
RESOLUTIONS = {"PT15M": 15, "PT30M": 30, "PT60M": 60, "PT1H": 60}
MOST_POINTS_OF_A_PERIOD = 1000


@dataclass(frozen=True, slots=True)
class PricePoint:
    """A price from `start` (UTC) for so many minutes."""

    start: datetime
    minutes: int
    eur_per_mwh: float
    source: str


@dataclass(frozen=True, slots=True)
class Area:
    """A bidding zone: its ENTSO-E code, and the zone whose midnight begins the market's day."""

    name: str
    entsoe: str | None
    zone: ZoneInfo


_COUPLED = ZoneInfo("Europe/Brussels")
AREAS = {
    "BE": Area("BE", "10YBE----------2", ZoneInfo("Europe/Brussels")),
    "NL": Area("NL", "10YNL----------L", ZoneInfo("Europe/Amsterdam")),
    "DE-LU": Area("DE-LU", "10Y1001A1001A82H", ZoneInfo("Europe/Berlin")),
    "FR": Area("FR", "10YFR-RTE------C", ZoneInfo("Europe/Paris")),
}


def fetch(area: str, day: date, timeout_s: float = TIMEOUT_S) -> list[PricePoint]:
    """The prices of one market day, in order of time. Raises `NoPriceYet`, `SourceUnreachable` or `SourceNonsense`.

    ENTSO-E first when there is a token for it; the other source stands in when the first has trouble.
    """
    sources: list[Callable[[], list[PricePoint]]] = [lambda: energy_charts(area, day, timeout_s=timeout_s)]
    if settings.ENTSOE_TOKEN and area_of(area).entsoe is not None:
        sources.insert(0, lambda: entsoe(area, day, settings.ENTSOE_TOKEN, timeout_s=timeout_s))
    troubles: list[FeedError] = []
    for source in sources:
        try:
            return source()
        except FeedError as error:
            troubles.append(error)
    raise next((t for t in troubles if isinstance(t, NoPriceYet)), troubles[0])


def area_of(name: str) -> Area:
    """The area of this name. One that is not in the table has no ENTSO-E code and keeps central European days."""
    if not re.fullmatch(r"[A-Z0-9_-]{2,16}", name):
        raise SourceNonsense(f"{name!r} is no price area; use one such as BE")
    return AREAS.get(name) or Area(name, None, _COUPLED)


def day_of(area: str, day: date) -> tuple[datetime, datetime]:
    """Start and end of a market day, in UTC."""
    zone = area_of(area).zone
    start, end = (datetime.combine(d, time(), tzinfo=zone).astimezone(UTC) for d in (day, day + timedelta(days=1)))
    return start, end


def is_complete(points: Iterable[PricePoint], area: str, day: date) -> bool:
    """Do these prices leave no minute of the day open?"""
    start, end = day_of(area, day)
    at = start
    for p in sorted(points, key=lambda p: p.start):
        if p.start > at:
            return False
        at = max(at, p.start + timedelta(minutes=p.minutes))
    return at >= end


def checked(points: Iterable[PricePoint], area: str, day: date) -> list[PricePoint]:
    """The points of the day, once per start, in order. Raises on impossible prices, and when none is left."""
    start, end = day_of(area, day)
    kept: dict[datetime, PricePoint] = {}
    for p in points:
        if not start <= p.start < end:
            continue
        if not LOWEST_EUR_PER_MWH <= p.eur_per_mwh <= HIGHEST_EUR_PER_MWH:
            raise SourceNonsense(
                f"{p.source}: {p.eur_per_mwh} EUR/MWh at {p.start:%Y-%m-%d %H:%M} UTC is outside "
                f"{LOWEST_EUR_PER_MWH:.0f} to {HIGHEST_EUR_PER_MWH:.0f}"
            )
        kept[p.start] = p
    if not kept:
        raise NoPriceYet(f"no prices for {area} on {day}")
    return [kept[at] for at in sorted(kept)]


# energy-charts: JSON, no key


def energy_charts(area: str, day: date, url: str = ENERGY_CHARTS_URL, timeout_s: float = TIMEOUT_S) -> list[PricePoint]:
    area_of(area)
    parameters = {"bzn": area, "start": day.isoformat(), "end": day.isoformat()}
    try:
        body = get(url, parameters, timeout_s)
    except BadStatus as answer:
        if answer.status == 404:
            raise NoPriceYet(f"energy-charts has no prices for {area} on {day}") from None
        raise
    return checked(parse_energy_charts(body), area, day)


def parse_energy_charts(body: bytes) -> list[PricePoint]:
    """`{"unix_seconds": […], "price": […], "unit": "EUR / MWh", …}`: parallel arrays, null where there is none."""
    name = "energy-charts"
    data = read_json(body, name)
    seconds, prices = data.get("unix_seconds"), data.get("price")
    if not isinstance(seconds, list) or not isinstance(prices, list):
        raise SourceNonsense(f"{name}: the answer lacks the lists unix_seconds and price")
    if len(seconds) != len(prices):
        raise SourceNonsense(f"{name}: {len(seconds)} times for {len(prices)} prices")
    unit = data.get("unit")
    if isinstance(unit, str) and unit.replace(" ", "").upper() != "EUR/MWH":
        raise SourceNonsense(f"{name}: prices are in {unit!r}, not EUR/MWh")
    starts = [_moment(s, name) for s in seconds]
    known = sorted(set(starts))
    steps = {a: int((b - a).total_seconds() // 60) for a, b in pairwise(known)}
    usual = min(steps.values(), default=60)
    points = []
    for start, raw in zip(starts, prices, strict=True):
        if raw is None:
            continue
        price = number(raw)
        if price is None:
            raise SourceNonsense(f"{name}: the price at {start:%Y-%m-%d %H:%M} UTC is {raw!r}")
        # The last one, and one before a hole, last as long as the others.
        step = steps.get(start, usual)
        points.append(PricePoint(start, step if step in (15, 30, 60) else usual, price, name))
    if usual not in (15, 30, 60):
        raise SourceNonsense(f"{name}: intervals of {usual} minutes")
    return points


def _moment(value: object, name: str) -> datetime:
    seconds = number(value)
    if seconds is None or not 0 <= seconds < 4e9:
        raise SourceNonsense(f"{name}: {value!r} is no time")
    return datetime.fromtimestamp(seconds, tz=UTC)


# ENTSO-E: XML, a free token


def entsoe(area: str, day: date, token: str, url: str = ENTSOE_URL, timeout_s: float = TIMEOUT_S) -> list[PricePoint]:
    code = area_of(area).entsoe
    if code is None:
        raise SourceNonsense(f"ENTSO-E: no code is known for area {area}")
    start, end = day_of(area, day)
    parameters = {
        "securityToken": token,
        "documentType": "A44",
        "in_Domain": code,
        "out_Domain": code,
        "periodStart": f"{start:%Y%m%d%H%M}",
        "periodEnd": f"{end:%Y%m%d%H%M}",
    }
    try:
        body = get(url, parameters, timeout_s)
    except BadStatus as answer:
        if answer.status == 400 and b"Acknowledgement_MarketDocument" in answer.said:
            body = answer.said
        else:
            raise
    return checked(parse_entsoe(body), area, day)


def parse_entsoe(body: bytes) -> list[PricePoint]:
    """The points of a publication document (A44), the finest resolution where several speak of the same time.

    An acknowledgement document is how the platform says that there is no data. Of several auctions
    (`classificationSequence`) the first is the coupled day-ahead market.
    """
    root = _xml(body)
    kind = _tag(root)
    if kind == "Acknowledgement_MarketDocument":
        said = " ".join(_text(root, "text").split())
        if "no matching data" in said.lower():
            raise NoPriceYet(f"ENTSO-E: {said}")
        raise SourceNonsense(f"ENTSO-E: {said or 'an acknowledgement without a reason'}")
    if kind != "Publication_MarketDocument":
        raise SourceNonsense(f"ENTSO-E: expected a publication document, got {kind!r}")
    by_resolution: dict[int, list[PricePoint]] = {}
    for series in _children(root, "TimeSeries"):
        if _text(series, "classificationSequence_AttributeInstanceComponent.position") not in ("", "1"):
            continue
        currency, unit = _text(series, "currency_Unit.name"), _text(series, "price_Measure_Unit.name")
        if currency not in ("", "EUR") or unit not in ("", "MWH"):
            raise SourceNonsense(f"ENTSO-E: prices are in {currency}/{unit}, not EUR/MWh")
        fills_forward = _text(series, "curveType") == "A03"
        for period in _children(series, "Period"):
            minutes, points = _period(period, fills_forward)
            by_resolution.setdefault(minutes, []).extend(points)
    return _finest(by_resolution)


def _finest(by_resolution: dict[int, list[PricePoint]]) -> list[PricePoint]:
    covered: set[datetime] = set()
    out: list[PricePoint] = []
    for minutes in sorted(by_resolution):
        fresh = [p for p in by_resolution[minutes] if covered.isdisjoint(_quarters(p))]
        out.extend(fresh)
        for p in fresh:
            covered.update(_quarters(p))
    return sorted(out, key=lambda p: p.start)


def _quarters(point: PricePoint) -> list[datetime]:
    return [point.start + timedelta(minutes=k) for k in range(0, point.minutes, 15)]


def _period(period: ElementTree.Element, fills_forward: bool) -> tuple[int, list[PricePoint]]:
    """One block of positions 1 … n. With curve type A03 a position that equals the one before it is left out."""
    resolution = _text(period, "resolution")
    if resolution not in RESOLUTIONS:
        raise SourceNonsense(f"ENTSO-E: resolution {resolution!r}")
    minutes = RESOLUTIONS[resolution]
    start, end = (_time(period, name) for name in ("start", "end"))
    count = int((end - start).total_seconds() // 60) // minutes
    if not 0 < count <= MOST_POINTS_OF_A_PERIOD:
        raise SourceNonsense(f"ENTSO-E: a period from {start} to {end}")
    prices: dict[int, float] = {}
    for point in _children(period, "Point"):
        try:
            position, price = int(_text(point, "position")), float(_text(point, "price.amount"))
        except ValueError:
            raise SourceNonsense("ENTSO-E: a point without position or price") from None
        if not 1 <= position <= count or price != price:
            raise SourceNonsense(f"ENTSO-E: position {position} of {count}, price {price}")
        prices[position] = price
    points = []
    last: float | None = None
    for position in range(1, count + 1):
        price_here = prices.get(position, last if fills_forward else None)
        if price_here is not None:
            points.append(
                PricePoint(start + timedelta(minutes=minutes * (position - 1)), minutes, price_here, "ENTSO-E")
            )
        last = price_here
    return minutes, points


def _xml(body: bytes) -> ElementTree.Element:
    # A document type could define entities that unfold without end; no answer of the platform has one.
    if b"<!DOCTYPE" in body or b"<!ENTITY" in body:
        raise SourceNonsense("ENTSO-E: expected a market document, got one with a document type (HTML?)")
    try:
        return ElementTree.fromstring(body)  # noqa: S314  # bounded, and without entities
    except (ElementTree.ParseError, ValueError, LookupError):
        start = body[:40].decode("utf-8", "replace").strip()
        raise SourceNonsense(f"ENTSO-E: expected XML, got {start!r}") from None


def _tag(element: ElementTree.Element) -> str:
    return element.tag.rpartition("}")[2]


def _children(element: ElementTree.Element, name: str) -> list[ElementTree.Element]:
    return [child for child in element if _tag(child) == name]


def _text(element: ElementTree.Element, name: str) -> str:
    """The text of the first descendant of this name, in whatever version of the namespace."""
    return next(((e.text or "").strip() for e in element.iter() if _tag(e) == name), "")


def _time(period: ElementTree.Element, name: str) -> datetime:
    said = _text(period, name)
    try:
        moment = datetime.fromisoformat(said)
    except ValueError:
        raise SourceNonsense(f"ENTSO-E: {said!r} is no time") from None
    return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)


__all__ = [
    "AREAS",
    "NoPriceYet",
    "PricePoint",
    "SourceNonsense",
    "SourceUnreachable",
    "area_of",
    "checked",
    "day_of",
    "energy_charts",
    "entsoe",
    "fetch",
    "is_complete",
    "parse_energy_charts",
    "parse_entsoe",
]

"""The weather ahead: sun, temperature and clouds per quarter hour, from Open-Meteo (CC BY 4.0, to be named).

Radiation is stamped at the END of the interval whose mean it is; here every interval bears its start, as everywhere
in this house. Temperature and clouds are of the moment, so theirs stay where they are.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from smartcharging.feeds.source import TIMEOUT_S, BadStatus, SourceNonsense, get, number, read_json

OPEN_METEO_URL = "https://api.open-meteo.com/v1/forecast"
ATTRIBUTION = "Weather data by Open-Meteo.com"
QUARTER = timedelta(minutes=15)
MOST_POINTS = 10_000
MOST_SUN_W_PER_M2 = 1500.0
LOWEST_C, HIGHEST_C = -60.0, 60.0


@dataclass(frozen=True, slots=True)
class WeatherPoint:
    """One quarter hour from `start` (UTC): mean sun on level ground, and air and clouds at its start."""

    start: datetime
    sun_w_per_m2: float
    temperature_c: float | None = None
    cloud_share: float | None = None


def fetch(
    latitude: float,
    longitude: float,
    days: int = 2,
    past_days: int = 0,
    url: str = OPEN_METEO_URL,
    key: str = "",
    timeout_s: float = TIMEOUT_S,
) -> list[WeatherPoint]:
    """Quarter hours from midnight UTC of today (or `past_days` earlier) on.

    Raises `SourceUnreachable` or `SourceNonsense`.
    """
    if not (-90 <= latitude <= 90 and -180 <= longitude <= 180):
        raise SourceNonsense(f"{latitude}, {longitude} is no place on earth")
    parameters = {
        "latitude": f"{latitude:.4f}",
        "longitude": f"{longitude:.4f}",
        "minutely_15": "shortwave_radiation,temperature_2m,cloud_cover",
        "forecast_days": str(min(max(days, 1), 16)),
        "past_days": str(min(max(past_days, 0), 92)),
        "timezone": "GMT",
        "timeformat": "unixtime",
    }
    if key:
        parameters["apikey"] = key
    try:
        body = get(url, parameters, timeout_s)
    except BadStatus as answer:
        if answer.status == 400:
            raise SourceNonsense(f"Open-Meteo: {_reason(answer.said)}") from None
        raise
    return parse(body)


def parse(body: bytes) -> list[WeatherPoint]:
    name = "Open-Meteo"
    data = read_json(body, name)
    if data.get("error"):
        raise SourceNonsense(f"{name}: {data.get('reason', 'an error without a reason')}")
    block = data.get("minutely_15")
    if not isinstance(block, dict) or not isinstance(block.get("time"), list):
        raise SourceNonsense(f"{name}: the answer lacks minutely_15.time")
    times = block["time"]
    if len(times) > MOST_POINTS:
        raise SourceNonsense(f"{name}: {len(times)} points")
    columns = {}
    for variable in ("shortwave_radiation", "temperature_2m", "cloud_cover"):
        values = block.get(variable, [None] * len(times))
        if not isinstance(values, list) or len(values) != len(times):
            raise SourceNonsense(f"{name}: {variable} does not have one value per time")
        columns[variable] = values
    moments: list[datetime] = []
    for t in times:
        seconds = number(t)
        if seconds is None or not 0 <= seconds < 4e9:
            raise SourceNonsense(f"{name}: {t!r} is no time")
        moments.append(datetime.fromtimestamp(seconds, tz=UTC))
    air = dict(zip(moments, columns["temperature_2m"], strict=True))
    clouds = dict(zip(moments, columns["cloud_cover"], strict=True))
    points = []
    for stamped, raw in zip(moments, columns["shortwave_radiation"], strict=True):
        sun = number(raw)
        if sun is None:
            continue
        if not -10 <= sun <= MOST_SUN_W_PER_M2:
            raise SourceNonsense(f"{name}: {sun} W/m² at {stamped:%Y-%m-%d %H:%M} UTC")
        start = stamped - QUARTER
        percent = number(clouds.get(start))
        points.append(
            WeatherPoint(
                start,
                max(sun, 0.0),
                _temperature(air.get(start)),
                None if percent is None else min(max(percent / 100, 0.0), 1.0),
            )
        )
    return sorted(points, key=lambda p: p.start)


def _temperature(value: object) -> float | None:
    celsius = number(value)
    return celsius if celsius is not None and LOWEST_C <= celsius <= HIGHEST_C else None


def _reason(said: bytes) -> str:
    try:
        return str(json.loads(said).get("reason", "HTTP 400"))
    except (ValueError, AttributeError):
        return "HTTP 400"

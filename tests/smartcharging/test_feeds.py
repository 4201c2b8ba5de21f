"""Prices and weather from outside: recorded answers, and everything a source can do wrong, over real sockets."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from smartcharging.feeds import prices, source, weather
from smartcharging.feeds.source import NoPriceYet, SourceNonsense, SourceUnreachable
from smartcharging.feeds.store import store_prices
from smartcharging.models import Price

RECORDED = Path(__file__).parent / "recorded"
DAY = date(2026, 1, 5)
MIDNIGHT = datetime(2026, 1, 4, 23, tzinfo=UTC)  # in Brussels


def recorded(name: str) -> bytes:
    return (RECORDED / name).read_bytes()


class Outside:
    """A source on a real socket, saying what the test wants."""

    def __init__(self, answer: Callable[[BaseHTTPRequestHandler], None]) -> None:
        self.paths: list[str] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.paths.append(self.path)
                answer(self)

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}/api"
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


Opener = Callable[..., Outside]


@pytest.fixture
def outside() -> Iterator[Opener]:
    opened: list[Outside] = []

    def says(
        body: bytes = b"", status: int = 200, answer: Callable[[BaseHTTPRequestHandler], None] | None = None
    ) -> Outside:
        def plainly(handler: BaseHTTPRequestHandler) -> None:
            handler.send_response(status)
            handler.send_header("Content-Length", str(len(body)))
            handler.end_headers()
            handler.wfile.write(body)

        opened.append(Outside(answer or plainly))
        return opened[-1]

    yield says
    for one in opened:
        one.close()


# ENTSO-E


def test_equal_points_left_out_are_filled_forward():
    points = prices.checked(prices.parse_entsoe(recorded("entsoe_quarterly_a03.xml")), "BE", DAY)

    assert len(points) == 96
    assert [p.eur_per_mwh for p in points[:10]] == [90.5, 88, 88, 88, 80.25, 80.25, 80.25, 80.25, -12.4, -12.4]
    assert points[-1].eur_per_mwh == 99.9
    assert points[0].start == MIDNIGHT
    assert prices.is_complete(points, "BE", DAY)


def test_quarters_are_preferred_to_hours_and_other_auctions_are_not_read():
    points = prices.parse_entsoe(recorded("entsoe_quarterly_a03.xml"))

    assert {p.minutes for p in points} == {15}
    assert 999.0 not in {p.eur_per_mwh for p in points}


def test_hours_are_taken_where_nothing_finer_is_offered():
    points = prices.checked(prices.parse_entsoe(recorded("entsoe_hourly.xml")), "BE", DAY)

    assert [(p.minutes, p.eur_per_mwh) for p in points[:2]] == [(60, 51), (60, 52)]
    assert prices.is_complete(points, "BE", DAY)


def test_an_acknowledgement_is_no_price_yet():
    with pytest.raises(NoPriceYet, match="No matching data"):
        prices.parse_entsoe(recorded("entsoe_no_data.xml"))


def test_an_acknowledgement_of_something_else_is_told():
    body = recorded("entsoe_no_data.xml").replace(b"No matching data found", b"Amount of requested data exceeds limit")

    with pytest.raises(SourceNonsense, match="exceeds limit"):
        prices.parse_entsoe(body)


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        ((b">EUR<", b">GBP<"), "GBP/MWH"),
        ((b">PT15M<", b">P1D<"), "P1D"),
        ((b"<position>2<", b"<position>97<"), "position 97 of 24"),
        ((b"<position>2<", b"<position>two<"), "without position"),
        ((b">88.0<", b">much<"), "without position or price"),
        ((b"2026-01-05T23:00Z", b"2027-01-05T23:00Z"), "a period from"),
        ((b"2026-01-05T23:00Z", b"tomorrow"), "'tomorrow' is no time"),
        ((b"</Publication", b"</Broken"), "expected XML"),
        ((b"Publication_MarketDocument", b"Balancing_MarketDocument"), "Balancing"),
    ],
)
def test_a_market_document_that_makes_no_sense_says_where(broken, said):
    with pytest.raises(SourceNonsense, match=said):
        prices.parse_entsoe(recorded("entsoe_quarterly_a03.xml").replace(*broken))


def test_html_and_entities_are_never_unfolded():
    bomb = b'<?xml version="1.0"?><!DOCTYPE a [<!ENTITY b "bb">]><a>&b;</a>'

    with pytest.raises(SourceNonsense, match="document type"):
        prices.parse_entsoe(bomb)


def test_the_platform_is_asked_for_the_markets_day_in_utc(outside):
    platform = outside(recorded("entsoe_quarterly_a03.xml"))

    points = prices.entsoe("BE", DAY, "secret", url=platform.url)

    assert len(points) == 96
    assert "periodStart=202601042300" in platform.paths[0]
    assert "periodEnd=202601052300" in platform.paths[0]
    assert "in_Domain=10YBE----------2" in platform.paths[0]


def test_a_refused_token_is_no_price_source_and_is_never_told(outside):
    platform = outside(b"no", status=401)

    with pytest.raises(SourceUnreachable, match="HTTP 401") as trouble:
        prices.entsoe("BE", DAY, "secret", url=platform.url)

    assert "secret" not in str(trouble.value)


def test_no_data_said_with_an_http_error_is_no_price_yet(outside):
    platform = outside(recorded("entsoe_no_data.xml"), status=400)

    with pytest.raises(NoPriceYet):
        prices.entsoe("BE", DAY, "secret", url=platform.url)


# energy-charts


def test_prices_of_a_day_without_a_token(outside):
    charts = outside(recorded("energy_charts.json"))

    points = prices.energy_charts("BE", DAY, url=charts.url)

    assert charts.paths == ["/api?bzn=BE&start=2026-01-05&end=2026-01-05"]
    assert len(points) == 95  # one was null
    assert points[0] == prices.PricePoint(MIDNIGHT, 15, 90.0, "energy-charts")
    assert {p.minutes for p in points} == {15}
    assert not prices.is_complete(points, "BE", DAY)


def test_an_hourly_answer_says_so():
    seconds = [int((MIDNIGHT + timedelta(hours=h)).timestamp()) for h in range(24)]
    body = json.dumps({"unix_seconds": seconds, "price": list(range(24)), "unit": "EUR/MWh"}).encode()

    assert {p.minutes for p in prices.parse_energy_charts(body)} == {60}


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (b"<html>Too many requests</html>", "expected JSON, got '<html>"),
        (b"[1, 2]", "a JSON object"),
        (b'{"price": []}', "unix_seconds"),
        (b'{"unix_seconds": [1], "price": []}', "1 times for 0 prices"),
        (b'{"unix_seconds": [1], "price": [1], "unit": "ct/kWh"}', "ct/kWh"),
        (b'{"unix_seconds": ["now"], "price": [1]}', "'now' is no time"),
        (b'{"unix_seconds": [1767567600], "price": ["dear"]}', "'dear'"),
        (b'{"unix_seconds": [1767567600, 1767567660], "price": [1, 2]}', "intervals of 1 minutes"),
        (b'{"unix_seconds": [1767567600], "price": [5000.01]}', "outside -500 to 5000"),
        (b'{"unix_seconds": [1767567600], "price": [-501]}', "outside -500 to 5000"),
        (b'{"unix_seconds": [1767567600], "price": [1e999]}', "inf"),
    ],
)
def test_an_answer_that_makes_no_sense_says_why(outside, answer, said):
    with pytest.raises(SourceNonsense, match=said):
        prices.energy_charts("BE", DAY, url=outside(answer).url)


@pytest.mark.parametrize(
    "answer",
    [
        b'{"unix_seconds": [], "price": []}',
        b'{"unix_seconds": [1767567600], "price": [null]}',
        b'{"unix_seconds": [9], "price": [1]}',
    ],
)
def test_a_day_without_prices_is_no_price_yet(outside, answer):
    with pytest.raises(NoPriceYet):
        prices.energy_charts("BE", DAY, url=outside(answer).url)


def test_not_found_is_no_price_yet_and_too_busy_is_unreachable(outside):
    with pytest.raises(NoPriceYet):
        prices.energy_charts("BE", DAY, url=outside(b"", status=404).url)
    with pytest.raises(SourceUnreachable, match="HTTP 429"):
        prices.energy_charts("BE", DAY, url=outside(b"", status=429).url)


def test_a_source_that_does_not_answer_in_time_is_unreachable(outside):
    gone = threading.Event()

    def silent(handler: BaseHTTPRequestHandler) -> None:
        gone.wait(10)

    slow = outside(answer=silent)
    with pytest.raises(SourceUnreachable):
        prices.energy_charts("BE", DAY, url=slow.url, timeout_s=0.2)
    gone.set()


def test_a_source_that_drips_for_ever_is_unreachable(outside):
    def drip(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.end_headers()
        try:
            for _ in range(200):
                handler.wfile.write(b" ")
                handler.wfile.flush()
                threading.Event().wait(0.02)
        except OSError:
            pass

    with pytest.raises(SourceUnreachable, match="in time"):
        prices.energy_charts("BE", DAY, url=outside(answer=drip).url, timeout_s=0.3)


def test_nobody_home_is_unreachable(outside):
    away = outside()
    away.close()

    with pytest.raises(SourceUnreachable):
        prices.energy_charts("BE", DAY, url=away.url, timeout_s=2)


def test_an_answer_cut_off_half_way_is_unreachable(outside):
    def half(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", "1000")
        handler.end_headers()
        handler.wfile.write(b'{"unix_')

    with pytest.raises((SourceUnreachable, SourceNonsense)):
        prices.energy_charts("BE", DAY, url=outside(answer=half).url, timeout_s=2)


def test_an_endless_answer_is_cut_off(outside, monkeypatch):
    monkeypatch.setattr(source, "MOST_BYTES", 1000)

    with pytest.raises(SourceNonsense, match="larger than 1000 bytes"):
        prices.energy_charts("BE", DAY, url=outside(b" " * 5000).url)


@pytest.mark.parametrize("url", ["file:///etc/hostname", "ftp://example.org/x"])
def test_only_the_web_is_fetched(url):
    with pytest.raises(SourceUnreachable, match="only http"):
        prices.energy_charts("BE", DAY, url=url)


@pytest.mark.parametrize("area", ["", "belgium & more", "BE?x=1", "B" * 20])
def test_an_area_that_is_none_is_named(area):
    with pytest.raises(SourceNonsense, match="no price area"):
        prices.energy_charts(area, DAY)


# One door


def test_without_a_token_only_the_free_source_is_asked(outside, monkeypatch, settings):
    settings.ENTSOE_TOKEN = ""
    charts = outside(recorded("energy_charts.json"))
    monkeypatch.setattr(prices.energy_charts, "__defaults__", (charts.url, 5.0))

    assert prices.fetch("BE", DAY)[0].source == "energy-charts"


def test_the_second_source_stands_in_for_the_first(outside, monkeypatch, settings):
    settings.ENTSOE_TOKEN = "secret"
    platform, charts = outside(b"", status=503), outside(recorded("energy_charts.json"))
    monkeypatch.setattr(prices.entsoe, "__defaults__", (platform.url, 5.0))
    monkeypatch.setattr(prices.energy_charts, "__defaults__", (charts.url, 5.0))

    assert prices.fetch("BE", DAY)[0].source == "energy-charts"
    assert len(platform.paths) == 1


def test_when_one_is_early_and_the_other_away_it_is_early(outside, monkeypatch, settings):
    settings.ENTSOE_TOKEN = "secret"
    platform, charts = outside(recorded("entsoe_no_data.xml")), outside(b"", status=503)
    monkeypatch.setattr(prices.entsoe, "__defaults__", (platform.url, 5.0))
    monkeypatch.setattr(prices.energy_charts, "__defaults__", (charts.url, 5.0))

    with pytest.raises(NoPriceYet):
        prices.fetch("BE", DAY)


@pytest.mark.parametrize(("day", "quarters"), [(date(2026, 3, 29), 92), (DAY, 96), (date(2026, 10, 25), 100)])
def test_a_market_day_is_as_long_as_the_local_day(day, quarters):
    start, end = prices.day_of("BE", day)

    assert (end - start) / timedelta(minutes=15) == quarters


# Keeping


@pytest.mark.django_db
def test_storing_a_day_twice_leaves_it_once_with_the_newest_word():
    points = prices.parse_energy_charts(recorded("energy_charts.json"))
    assert store_prices("BE", points) == 95

    changed = [prices.PricePoint(p.start, p.minutes, 1.0, "ENTSO-E") for p in points]
    store_prices("BE", changed)

    assert Price.objects.count() == 95
    assert set(Price.objects.values_list("eur_per_mwh", "source")) == {(1.0, "ENTSO-E")}


@pytest.mark.django_db
def test_an_hour_never_replaces_quarters():
    quarters = [prices.PricePoint(MIDNIGHT + timedelta(minutes=15 * i), 15, float(i), "a") for i in range(4)]
    hour = prices.PricePoint(MIDNIGHT, 60, 99.0, "b")

    store_prices("BE", quarters)
    assert store_prices("BE", [hour]) == 0
    store_prices("NL", [hour])
    store_prices("NL", quarters)

    for area in ("BE", "NL"):
        assert list(Price.objects.filter(area=area).values_list("minutes", "eur_per_mwh")) == [
            (15, 0), (15, 1), (15, 2), (15, 3),
        ]  # fmt: skip


@pytest.mark.django_db
def test_the_same_start_twice_in_one_answer_is_stored_once():
    assert store_prices("BE", [prices.PricePoint(MIDNIGHT, 15, v, "a") for v in (1.0, 2.0)]) == 1
    assert Price.objects.get().eur_per_mwh == 2.0
    assert store_prices("BE", []) == 0


# Weather


def test_sun_is_shifted_to_the_start_of_its_quarter(outside):
    meteo = outside(recorded("open_meteo.json"))

    points = weather.fetch(51.05, 3.72, url=meteo.url)

    raw = json.loads(recorded("open_meteo.json"))["minutely_15"]
    at_noon = next(p for p in points if p.start == datetime(2026, 6, 1, 12, tzinfo=UTC))
    assert at_noon.sun_w_per_m2 == raw["shortwave_radiation"][49]  # stamped 12:15
    assert at_noon.temperature_c == raw["temperature_2m"][48]  # of 12:00 itself
    assert at_noon.cloud_share == raw["cloud_cover"][48] / 100
    assert len(points) == 95  # one was null
    assert "timezone=GMT" in meteo.paths[0]


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"<html>", "expected JSON"),
        (b"{}", "minutely_15.time"),
        (b'{"error": true, "reason": "Latitude must be a number"}', "Latitude must be"),
        (b'{"minutely_15": {"time": [1], "shortwave_radiation": []}}', "shortwave_radiation does not have"),
        (b'{"minutely_15": {"time": [null], "shortwave_radiation": [1]}}', "None is no time"),
        (b'{"minutely_15": {"time": [1], "shortwave_radiation": [90000]}}', "90000"),
    ],
)
def test_weather_that_makes_no_sense_says_why(outside, body, said):
    with pytest.raises(SourceNonsense, match=said):
        weather.fetch(51.05, 3.72, url=outside(body).url)


def test_a_refusal_is_told_in_the_sources_words(outside):
    refusal = outside(b'{"error": true, "reason": "forecast_days is invalid"}', status=400)

    with pytest.raises(SourceNonsense, match="forecast_days is invalid"):
        weather.fetch(51.05, 3.72, url=refusal.url)
    with pytest.raises(SourceUnreachable, match="HTTP 429"):
        weather.fetch(51.05, 3.72, url=outside(b"", status=429).url)


def test_a_place_that_is_not_on_earth_is_not_asked_for():
    with pytest.raises(SourceNonsense, match="no place on earth"):
        weather.fetch(151.0, 3.72)

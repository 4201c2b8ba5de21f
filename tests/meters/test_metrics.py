"""Numbers of many processes on one page, as Prometheus's own parser reads them; log lines as a machine reads them."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterator

import pytest
from prometheus_client.parser import text_string_to_metric_families

from meters import logs, metrics
from meters.live import connection
from meters.metrics import Counter, Gauge, Histogram


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "_all", [])


def shown() -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    text = metrics.render(metrics.fetch())
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_every_process_stands_on_the_page_under_its_own_name(fresh: None) -> None:
    messages = Counter("messages_total", "Messages.", "action")
    messages.add("Heartbeat")
    messages.add("Heartbeat", n=2)
    metrics.publish("gateway-a")
    messages.add('odd "action"\\\n')
    metrics.publish("gateway-b")

    page = shown()

    name = "laadplein_messages_total"
    assert page[name, (("action", "Heartbeat"), ("process", "gateway-a"))] == 3
    assert page[name, (("action", 'odd "action"\\\n'), ("process", "gateway-b"))] == 1
    assert page["laadplein_process_start_time_seconds", (("process", "gateway-a"),)] > 1e9


def test_a_histogram_counts_upward_and_sums(fresh: None) -> None:
    times = Histogram("answer_seconds", "Answers.", "action", bounds=(0.1, 1.0))
    for seconds in (0.05, 0.1, 0.5, 7.0):
        times.observe(seconds, "Authorize")
    metrics.publish("p")

    page = shown()

    about = (("action", "Authorize"), ("process", "p"))
    below = {dict(labels)["le"]: n for (name, labels), n in page.items() if name.endswith("_bucket")}
    assert below == {"0.1": 2, "1.0": 3, "+Inf": 4}
    assert page["laadplein_answer_seconds_count", about] == 4
    assert page["laadplein_answer_seconds_sum", about] == pytest.approx(7.65)


def test_a_gauge_may_be_asked_when_the_picture_is_made(fresh: None) -> None:
    waiting = Gauge("waiting", "What waits.", "what")
    queue = [1, 2, 3]
    waiting.ask(lambda: len(queue), "jobs")
    queue.append(4)
    metrics.publish("p")

    assert shown()["laadplein_waiting", (("process", "p"), ("what", "jobs"))] == 4


def test_labels_from_outside_cannot_grow_without_end(fresh: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "MOST_SERIES", 5)
    some = Counter("some_total", "Some.", "name")
    for n in range(100):
        some.add(str(n))

    assert len(some.series) == 5


def test_a_process_that_ends_or_dies_leaves_the_page(fresh: None) -> None:
    Counter("some_total", "Some.").add()
    metrics.publish("ends")
    metrics.publish("dies")
    metrics.withdraw("ends")

    assert list(metrics.fetch()) == ["dies"]
    assert 0 < connection().ttl("metrics:dies") <= metrics.PICTURE_LIVES_S  # type: ignore[operator]


# ---------------------------------------------------------------------- log lines


def line(formatter: logging.Formatter, message: str, *args: object, error: bool = False) -> str:
    info = None
    if error:
        try:
            raise ValueError("password=hush")
        except ValueError:
            info = sys.exc_info()
    return formatter.format(logging.LogRecord("csms.gateway", logging.WARNING, "f", 1, message, args, info))


@pytest.fixture
def for_a_station() -> Iterator[None]:
    before = logs.about.set({"station": "CS-1", "site": 7, "epoch": 123})
    yield
    logs.about.reset(before)


def test_a_json_line_says_what_it_is_about(for_a_station: None) -> None:
    told = json.loads(line(logs.Json(), "%s é\nconnected", "it"))

    assert told["message"] == "it é\nconnected"
    assert (told["station"], told["site"], told["epoch"]) == ("CS-1", 7, 123)
    assert (told["level"], told["logger"]) == ("WARNING", "csms.gateway")
    assert told["at"].endswith("+00:00")


def test_a_plain_line_names_the_station_once(for_a_station: None) -> None:
    plain = logs.Plain("%(levelname)s %(name)s: %(message)s")

    assert line(plain, "a flood") == "WARNING csms.gateway: [CS-1] a flood"
    assert line(plain, "CS-1 connected") == "WARNING csms.gateway: CS-1 connected"


@pytest.mark.parametrize(
    "message",
    [
        "opening ftp://user:hush@host/file",
        'got {"key": "AuthorizationKey", "AuthorizationKey": "hush"}',
        "Authorization: Basic hush",
        "password=hush next",
        "token: hush",
    ],
)
def test_no_line_holds_a_secret(message: str) -> None:
    assert "hush" not in line(logs.Json(), message)
    assert "hush" not in line(logs.Plain("%(message)s"), message)
    assert "hush" not in json.loads(line(logs.Json(), "broken", error=True))["traceback"]

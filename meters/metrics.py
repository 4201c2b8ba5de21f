"""What the processes count and time, for Prometheus: few names, kept in memory, told through Redis.

Each process keeps its own numbers and puts a picture of them in Redis every few seconds; `/metrics` renders the
pictures of all, each with its `process`. So one address shows every gateway, worker and poller of an installation, on
one machine or on ten, and a process that dies disappears within its picture's life.

Counting must cost nothing: a dictionary and an addition. A number is only changed by one thread of its process.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import time
from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import redis

from meters.live import connection

log = logging.getLogger(__name__)

PREFIX = "laadplein_"
KEY = "metrics:"
PICTURE_EVERY_S = 5.0
PICTURE_LIVES_S = 30
MOST_SERIES = 2_000
"""Of one metric. What labels come from outside is bounded where it is counted; this is the net below."""

TIMES_S = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0)
Labels = tuple[str, ...]


class Metric:
    """A name, what it means, the names of its labels, and a number for each set of labels."""

    kind = "untyped"

    def __init__(self, name: str, meaning: str, *labels: str) -> None:
        self.name, self.meaning, self.labels = PREFIX + name, meaning, labels
        self.series: dict[Labels, Any] = {}
        _all.append(self)

    def picture(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "kind": self.kind,
            "meaning": self.meaning,
            "labels": list(self.labels),
            "series": [[list(labels), self._told(value)] for labels, value in list(self.series.items())],
        }

    @staticmethod
    def _told(value: Any) -> Any:
        return value


class Counter(Metric):
    """Only grows. Read its rate, not its height: it begins at 0 with each process."""

    kind = "counter"

    def add(self, *labels: str, n: float = 1) -> None:
        try:
            self.series[labels] += n
        except KeyError:
            if len(self.series) < MOST_SERIES:
                self.series[labels] = n


class Gauge(Metric):
    """A number as it stands now: set, or asked for when the picture is made."""

    kind = "gauge"

    def set(self, value: float, *labels: str) -> None:
        if labels in self.series or len(self.series) < MOST_SERIES:
            self.series[labels] = value

    def ask(self, question: Callable[[], float], *labels: str) -> None:
        self.series[labels] = question

    @staticmethod
    def _told(value: Any) -> Any:
        return float(value()) if callable(value) else value


class Histogram(Metric):
    """How often something took how long, in seconds."""

    kind = "histogram"

    def __init__(self, name: str, meaning: str, *labels: str, bounds: Sequence[float] = TIMES_S) -> None:
        super().__init__(name, meaning, *labels)
        self.bounds = tuple(bounds)

    def observe(self, value: float, *labels: str) -> None:
        seen = self.series.get(labels)
        if seen is None:
            if len(self.series) >= MOST_SERIES:
                return
            seen = self.series[labels] = [0] * (len(self.bounds) + 1) + [0.0]
        seen[bisect_left(self.bounds, value)] += 1
        seen[-1] += value

    def picture(self) -> dict[str, Any]:
        return {**super().picture(), "bounds": list(self.bounds)}


_all: list[Metric] = []
_since = time.time()
_pictured_at = 0.0


def process_name(role: str) -> str:
    """Such as `gateway-host1-4711`: the label `process` of everything this process tells."""
    return f"{role}-{socket.gethostname()[:40]}-{os.getpid()}"


# ---------------------------------------------------------------------- telling


def picture() -> str:
    """All numbers of this process, as they stand."""
    told = [metric.picture() for metric in _all if metric.series]
    return json.dumps({"at": time.time(), "since": _since, "metrics": told})


def publish(process: str, life_s: int = PICTURE_LIVES_S) -> None:
    """Put this process's picture where `/metrics` finds it. Without Redis nobody hears it, and nothing fails."""
    global _pictured_at
    _pictured_at = time.monotonic()
    try:
        connection().set(KEY + process, picture(), ex=life_s)
    except redis.RedisError as error:
        log.debug("the metrics were not told: %s", error)


def publish_now_and_then(process: str, life_s: int = PICTURE_LIVES_S) -> None:
    """For a process without a clock of its own: tell if the last picture is some seconds old."""
    if time.monotonic() - _pictured_at >= PICTURE_EVERY_S:
        publish(process, life_s)


def withdraw(process: str) -> None:
    """The process ends: its numbers go at once."""
    try:
        connection().delete(KEY + process)
    except redis.RedisError as error:
        log.debug("the metrics were not withdrawn: %s", error)


# ---------------------------------------------------------------------- showing


def fetch() -> dict[str, Mapping[str, Any]]:
    """The pictures of all processes. Raises `redis.RedisError`."""
    client = connection()
    keys = sorted(str(key) for key in client.scan_iter(match=f"{KEY}*", count=500))
    found: dict[str, Mapping[str, Any]] = {}
    if keys:
        for key, body in zip(keys, client.mget(keys), strict=True):
            if body:
                found[key.removeprefix(KEY)] = json.loads(body)
    return found


def render(pictures: Mapping[str, Mapping[str, Any]]) -> str:
    """The pictures in Prometheus's text form (version 0.0.4)."""
    metrics: dict[str, dict[str, Any]] = {}
    samples: dict[str, list[str]] = {}
    for process, told in pictures.items():
        metrics.setdefault(_START, {"kind": "gauge", "meaning": "When the process began, in seconds since 1970."})
        samples.setdefault(_START, []).append(_sample(_START, ("process",), (process,), told["since"]))
        for metric in told["metrics"]:
            metrics.setdefault(metric["name"], metric)
            samples.setdefault(metric["name"], []).extend(_samples(metric, process))
    lines: list[str] = []
    for name, metric in sorted(metrics.items()):
        lines.append(f"# HELP {name} {_escaped(metric['meaning'], quotes=False)}")
        lines.append(f"# TYPE {name} {metric['kind']}")
        lines += samples[name]
    return "\n".join([*lines, ""])


_START = PREFIX + "process_start_time_seconds"


def _samples(metric: Mapping[str, Any], process: str) -> Iterable[str]:
    name, names = metric["name"], ("process", *metric["labels"])
    for labels, value in metric["series"]:
        told = (process, *labels)
        if metric["kind"] != "histogram":
            yield _sample(name, names, told, value)
            continue
        *counts, total = value
        below = 0
        for bound, count in zip([*metric["bounds"], "+Inf"], counts, strict=True):
            below += count
            yield _sample(f"{name}_bucket", (*names, "le"), (*told, str(bound)), below)
        yield _sample(f"{name}_sum", names, told, total)
        yield _sample(f"{name}_count", names, told, below)


def _sample(name: str, names: Iterable[str], labels: Iterable[str], value: float) -> str:
    inside = ",".join(f'{n}="{_escaped(v)}"' for n, v in zip(names, labels, strict=True))
    return f"{name}{{{inside}}} {value!r}"


def _escaped(text: str, *, quotes: bool = True) -> str:
    text = text.replace("\\", r"\\").replace("\n", r"\n")
    return text.replace('"', r"\"") if quotes else text

"""What a gateway counts and times; `meters/metrics.py` tells it. Labels are bounded: an unknown action is "other"."""

from __future__ import annotations

from meters.metrics import Counter, Gauge, Histogram

CONNECTIONS = Gauge("connections", "Stations connected to this gateway.", "protocol")
HANDSHAKES = Counter(
    "handshakes_total", "Connections of stations, by outcome (let_in, or the status refused with).", "outcome"
)
CLOSES = Counter("closes_total", "Connections of stations that ended, by close code.", "protocol", "code")
MESSAGES = Counter(
    "messages_total",
    "OCPP messages: direction in or out; outcome call, result or error.",
    "protocol", "direction", "action", "outcome",
)  # fmt: skip
REPAIRS = Counter("repairs_total", "What was mended, refused or dropped of what stations sent, by name.", "name")
ANSWER_S = Histogram("answer_seconds", "From a station's call to our answer.", "protocol", "action")
CALLS = Counter(
    "calls_total", "Our calls to stations: result, error, timeout, unreachable, invalid.", "action", "outcome"
)
CALL_S = Histogram("call_seconds", "From our call to the station's answer, waiting for our turn included.", "action")
LIMIT_S = Histogram("limit_seconds", "From the moment a limit was wanted until it was accepted, and measured.", "until")
WRITER_WAITING = Gauge("writer_waiting", "What waits for the database: jobs, folded facts, frames.", "what")
WRITER_BATCH_S = Histogram("writer_commit_seconds", "One transaction of the writer, commit included.")
WRITER_BATCH = Counter("writer_written_total", "What the writer wrote: jobs, folds, frames; lost frames.", "what")
DATABASE_AWAY = Counter("database_away_total", "Times the writer found the database away.")
LOOP_LATE_S = Histogram(
    "loop_late_seconds", "How late the gateway's event loop came round: above 0.1 s something blocks it."
)
REDIS_AWAY = Counter("redis_away_total", "Times the gateway lost Redis.")

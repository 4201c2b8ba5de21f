"""The story of a charge: from the events a station told, in whatever order they came, to what happened. Pure.

The same set of events gives the same story, however they were mixed, doubled or delayed on the way. Events are put in
the order of their sequence numbers, where there are any, else of their times; the earliest end that reached us is the
end and stays it. Where a clock jumped back in the middle, the time of receipt stands in.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from csms.energy import BEGIN, END, SAMPLE, Count, Reading, in_order
from csms.vocabulary import Kind

JUMPED_BACK = "clock_jumped_back"
AFTER_END = "event_after_end"
SEQ_TWICE = "sequence_number_twice"
UNTIMED = frozenset({"clock_not_set", "no_time", "bad_time"})
FEW_SECONDS = timedelta(seconds=5)
MOST_GAPS = 50


@dataclass(frozen=True, slots=True)
class Fact:
    """One event, as it is kept."""

    kind: Kind
    at: datetime
    received: datetime
    seq_no: int | None = None
    correction: str = ""
    register_wh: float | None = None
    charging_state: str = ""
    stop_reason: str = ""
    token: str = ""
    verdict: str = ""  # "" where no token was shown


@dataclass(slots=True)
class Story:
    """What the events come to. `ended_at` is empty while nobody told of an end."""

    started_at: datetime
    last_event_at: datetime
    ended_at: datetime | None = None
    stop_reason: str = ""
    charging_state: str = ""
    token: str = ""
    authorized: bool = False
    last_seq_no: int | None = None
    gaps: list[list[int]] = field(default_factory=list)
    flags: list[str] = field(default_factory=list)


def tell(facts: Sequence[Fact], samples: Sequence[Reading], count: Count) -> Story:
    """The story of at least one event, its samples counted into `count` on the way."""
    flags: list[str] = []
    ordered = _in_order(facts)
    times = _times(ordered, flags)
    for fact in ordered:
        _add(flags, fact.correction)
    starts = [at for fact, at in zip(ordered, times, strict=True) if fact.kind is Kind.STARTED]
    started_at = starts[0] if starts else min(times)
    ended_at, end = _end(ordered, times, started_at)
    story = Story(started_at, max(times), ended_at, flags=flags)
    if end is not None:
        story.stop_reason = end.stop_reason or "Local"
    last_told = ordered[-1].seq_no if end is None else end.seq_no
    for fact, at in zip(ordered, times, strict=True):
        _take_token(story, fact)
        if fact.charging_state:
            story.charging_state = fact.charging_state
        if fact.kind is Kind.ENDED or ended_at is None:
            continue
        later = last_told is not None and fact.seq_no is not None and fact.seq_no > last_told
        if later or at > ended_at + FEW_SECONDS:
            _add(flags, AFTER_END)
    if ended_at is not None:
        story.charging_state = ""
    _sequence(story, ordered)
    count.timed = not any(f.correction in UNTIMED for f in ordered)
    readings = _readings(ordered, times, started_at, ended_at, end, samples)
    count.take_all(readings)
    if samples:
        newest = datetime.fromtimestamp(max(s.at for s in samples), started_at.tzinfo)
        if ended_at is None or newest <= ended_at:
            story.last_event_at = max(story.last_event_at, newest)
    return story


def suspended(charging_state: str) -> bool | None:
    """Did the station hold the car back? None: this event does not say."""
    return None if not charging_state else charging_state == "SuspendedEVSE"


def gaps(numbers: Iterable[int], first: int) -> list[list[int]]:
    """The numbers that are missing from `first` to the highest, as stretches of first and last."""
    found: list[list[int]] = []
    expected = first
    for number in sorted(set(numbers)):
        if number > expected:
            found.append([expected, number - 1])
        expected = max(expected, number + 1)
    return found[:MOST_GAPS]


_RANK = {Kind.STARTED: 0, Kind.UPDATED: 1, Kind.ENDED: 2}


def _in_order(facts: Sequence[Fact]) -> list[Fact]:
    if all(f.seq_no is not None for f in facts):
        return sorted(facts, key=lambda f: (f.seq_no or 0, f.at, _RANK[f.kind], f.received))
    return sorted(facts, key=lambda f: (0 if f.kind is Kind.STARTED else 1, f.at, _RANK[f.kind], f.received))


def _times(ordered: Sequence[Fact], flags: list[str]) -> list[datetime]:
    """When each happened. A time before the one of the event before it, though it came later: the clock jumped back."""
    times: list[datetime] = []
    newest, newest_received = ordered[0].at, ordered[0].received
    for fact in ordered:
        at = fact.at
        if at < newest - FEW_SECONDS and fact.received >= newest_received:
            at = max(fact.received, newest)
            _add(flags, JUMPED_BACK)
        if at >= newest:
            newest, newest_received = at, fact.received
        times.append(at)
    return times


def _end(
    ordered: Sequence[Fact], times: Sequence[datetime], started_at: datetime
) -> tuple[datetime | None, Fact | None]:
    """The end that counts is the one that reached us first: an end is final."""
    ends = [(f.received, at, f) for f, at in zip(ordered, times, strict=True) if f.kind is Kind.ENDED]
    if not ends:
        return None, None
    _, at, fact = min(ends, key=lambda e: (e[0], e[1]))
    return max(at, started_at), fact


def _take_token(story: Story, fact: Fact) -> None:
    """The first token shown, or the first accepted one, is the transaction's; who stops it is another matter."""
    if not fact.verdict or (fact.kind is Kind.ENDED and (story.token or story.authorized)):
        return
    if (story.token or story.authorized) and (story.authorized or fact.verdict != "accepted"):
        return
    story.token, story.authorized = fact.token, fact.verdict == "accepted"


def _sequence(story: Story, ordered: Sequence[Fact]) -> None:
    numbers = [f.seq_no for f in ordered if f.seq_no is not None]
    if not numbers:
        return
    story.last_seq_no = max(numbers)
    starts = [f.seq_no for f in ordered if f.kind is Kind.STARTED and f.seq_no is not None]
    story.gaps = gaps(numbers, min(starts) if starts else min(0, *numbers))
    others = [n for n, f in ((f.seq_no, f) for f in ordered) if n is not None and f.kind is not Kind.STARTED]
    if len(set(others)) < len(others):
        _add(story.flags, SEQ_TWICE)


def _readings(
    ordered: Sequence[Fact],
    times: Sequence[datetime],
    started_at: datetime,
    ended_at: datetime | None,
    end: Fact | None,
    samples: Sequence[Reading],
) -> list[Reading]:
    """Every reading of the charge in the order to be counted: begin first, end last, nothing from outside."""
    first = started_at.timestamp()
    last = ended_at.timestamp() if ended_at is not None else float("inf")
    found: list[Reading] = []
    for fact, moment in zip(ordered, times, strict=True):
        at = min(max(moment.timestamp(), first), last)
        if fact is end:
            found.append(Reading(last, END, fact.register_wh))
        elif fact.kind is Kind.STARTED and moment == started_at:
            found.append(Reading(first, BEGIN, fact.register_wh, None, suspended(fact.charging_state)))
        elif fact.kind is not Kind.ENDED and moment.timestamp() <= last:
            found.append(Reading(at, SAMPLE, fact.register_wh, None, suspended(fact.charging_state)))
    earliest = first - FEW_SECONDS.total_seconds()
    found += [s._replace(at=max(s.at, first)) for s in samples if earliest <= s.at <= last]
    found.sort(key=in_order)
    return found


def _add(flags: list[str], name: str) -> None:
    if name and name not in flags:
        flags.append(name)

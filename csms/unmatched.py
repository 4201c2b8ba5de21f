"""Ends of charges that name no start we know, and how they find it. 1.6 only: there the id is ours to give.

After time offline some stations send a stop before its start, with -1, 0 or a number of their own making (R3, R4). An
end belongs to a start when only one can be meant: told by a replay, the newest start on its EVSE before the end, with
the same token and a register that can have risen so far, and not ended otherwise. That depends on what was told, never
on the order in which it came: with every new start and end the pairs are made anew. What fits twice or nowhere waits
for a person, and a charge that runs now is never ended by this.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.db.models import Exists, OuterRef, Q

from csms.energy import IMPLAUSIBLE, SLACK_WH
from csms.ledger_models import UnmatchedEnd
from csms.models import ChargingStation, Transaction, TransactionEvent

LONGEST_OFFLINE = timedelta(days=7)
REPLAYED_AFTER = timedelta(minutes=1)
State = UnmatchedEnd.State


@dataclass(frozen=True, slots=True)
class Start:
    """A start that may be waiting for its end."""

    pk: int
    place: int | None
    at: datetime
    token: str
    register_wh: float | None
    may_match: bool  # a replay, and not ended by an end of its own


@dataclass(frozen=True, slots=True)
class End:
    pk: int
    at: datetime
    token: str
    register_wh: float | None


def pairs(ends: Iterable[End], starts: Iterable[Start], most_w: float) -> dict[int, int]:
    """For each end that only one start can be meant by: end → start."""
    by_place: dict[int | None, list[Start]] = {}
    for start in sorted(starts, key=lambda s: (s.at, s.pk)):
        by_place.setdefault(start.place, []).append(start)
    taken: set[int] = set()
    found: dict[int, int] = {}
    for end in sorted(ends, key=lambda e: (e.at, e.register_wh or 0.0, e.pk)):
        fitting = []
        for there in by_place.values():
            before = [s for s in there if s.at <= end.at]
            if before and before[-1].pk not in taken and _fits(end, before[-1], most_w):
                fitting.append(before[-1])
        if len(fitting) == 1:
            found[end.pk] = fitting[0].pk
            taken.add(fitting[0].pk)
    return found


def _fits(end: End, start: Start, most_w: float) -> bool:
    if not start.may_match or end.at - start.at > LONGEST_OFFLINE:
        return False
    if end.token and end.token.upper() != start.token.upper():
        return False
    if end.register_wh is None or start.register_wh is None:
        return False
    risen_wh = end.register_wh - start.register_wh
    return 0 <= risen_wh <= IMPLAUSIBLE * most_w * (end.at - start.at).total_seconds() / 3600 + SLACK_WH


def wait(event: TransactionEvent, told_id: str) -> UnmatchedEnd:
    """Put an end that belongs to nobody where people see it."""
    return UnmatchedEnd.objects.create(
        station_id=event.station_id,
        event=event,
        told_id=told_id[:64],
        at=event.at,
        received_at=event.received_at,
        register_wh=event.register_wh,
        id_token_value=event.id_token_value,
        stop_reason=event.stop_reason,
    )


def match(station: ChargingStation, around: datetime, most_w: float) -> set[int]:
    """Make the pairs of a station anew; the transactions whose story changed by it."""
    near = Q(at__gte=around - LONGEST_OFFLINE) & Q(at__lte=around + LONGEST_OFFLINE)
    ends = list(UnmatchedEnd.objects.filter(near, station=station, state__in=(State.WAITING, State.MATCHED)))
    if not ends:
        return set()
    first, last = min(e.at for e in ends) - LONGEST_OFFLINE, max(e.at for e in ends)
    paired = pairs(
        [End(e.pk, e.at, e.id_token_value, e.register_wh) for e in ends], _starts(station, first, last), most_w
    )
    changed: set[int] = set()
    for end in ends:
        before, after = end.transaction_id, paired.get(end.pk)
        if before == after:
            continue
        changed |= {pk for pk in (before, after) if pk is not None}
        TransactionEvent.objects.filter(pk=end.event_id).file_under(after)
        state = State.WAITING if after is None else State.MATCHED
        UnmatchedEnd.objects.filter(pk=end.pk).update(transaction_id=after, state=state)
    return changed


def _starts(station: ChargingStation, first: datetime, last: datetime) -> list[Start]:
    told = TransactionEvent.objects.filter(transaction=OuterRef("pk"))
    own_end = Exists(told.filter(kind="ended").filter(Q(unmatched=None) | Q(unmatched__state=State.ATTACHED)))
    rows = Transaction.objects.filter(station=station, started_at__gte=first, started_at__lte=last).exclude(
        start_key=""
    )
    told_starts = {
        pk: (received, wh)
        for pk, received, wh in TransactionEvent.objects.filter(transaction__in=rows, kind="started")
        .order_by("-received_at")
        .values_list("transaction_id", "received_at", "register_wh")
    }
    nothing = (first, None)
    return [
        Start(
            t.pk,
            t.evse_id,
            t.started_at,
            t.id_token_value,
            told_starts.get(t.pk, nothing)[1],
            not t.has_own_end and told_starts.get(t.pk, nothing)[0] - t.started_at >= REPLAYED_AFTER,
        )
        for t in rows.annotate(has_own_end=own_end)
    ]

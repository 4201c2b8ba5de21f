"""Reports that come in parts, put together in the database, so that neither a reconnect nor another gateway loses one.

Parts may come twice, out of order, under a request nobody remembers, or not all: each is kept as it comes, and a report
is complete when its last part and all before it are there. Bounded: parts of a report, and reports of a station.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from csms.models import ChargingStation
from csms.reported import Part
from csms.reported_models import StationReport, StationReportPart

MOST_PARTS = 1_000
KEPT_OF_A_KIND = 10
JOINS_WITHIN = timedelta(minutes=10)
"""A part that comes later than this after the one before begins a report of its own."""

KEEP_CUSTOMERS = timedelta(days=3)
LOOK_EVERY_S = 0.1


@dataclass(frozen=True, slots=True)
class Told:
    """A report as it stands: its items in order, and whether all parts are there."""

    complete: bool
    items: list[Any]
    parts: int = 0
    pk: int | None = None


def part_told(station_pk: int, part: Part, at: datetime) -> None:
    """Keep one part. Runs in the gateway's writer."""
    report = _open(station_pk, part, at)
    number = part.number
    if number is None:
        number = report.part_count - 1 if _has(report, part) else report.part_count
    if not 0 <= number < MOST_PARTS:
        return
    _, fresh = StationReportPart.objects.get_or_create(
        report=report, number=number, defaults={"content": list(part.content)}
    )
    if not fresh:
        return
    report.part_count += 1
    report.updated_at = at
    if part.last:
        report.last_part = number
    if report.last_part is not None and report.part_count == report.last_part + 1:
        report.completed_at = at
    report.save(update_fields=["part_count", "updated_at", "last_part", "completed_at"])


def _open(station_pk: int, part: Part, at: datetime) -> StationReport:
    """The report this part belongs to, or a new one."""
    mine = StationReport.objects.filter(station_id=station_pk, kind=part.kind)
    newest = mine.filter(request_id=part.request_id).order_by("-pk").first()
    if newest is not None and at - newest.updated_at < JOINS_WITHIN and (_awaits(newest, part) or _has(newest, part)):
        return newest
    old = mine.order_by("-pk").values_list("pk", flat=True)[KEPT_OF_A_KIND - 1 :]
    StationReport.objects.filter(pk__in=list(old)).delete()
    return StationReport.objects.create(
        station_id=station_pk, kind=part.kind, request_id=part.request_id, started_at=at, updated_at=at
    )


def _awaits(report: StationReport, part: Part) -> bool:
    if report.completed_at is not None:
        return False
    return part.number is None or not report.parts.filter(number=part.number).exists()


def _has(report: StationReport, part: Part) -> bool:
    """Is this part told again? One without a number is known by its content, as the report's newest."""
    number = report.part_count - 1 if part.number is None else part.number
    known = report.parts.filter(number=number).first()
    return known is not None and known.content == list(part.content)


def content(report: StationReport) -> Told:
    """What came so far."""
    parts = list(report.parts.order_by("number").values_list("content", flat=True))
    items = [item for part in parts for item in (part if isinstance(part, list) else [part])]
    return Told(report.completed_at is not None, items, len(parts), report.pk)


def wait_for(
    station: ChargingStation,
    kind: str,
    request_id: int,
    patience_s: float,
    *,
    sleep: Callable[[float], object] = time.sleep,
) -> Told:
    """Wait until the report is complete, or until patience ends: then what came so far. For doors, in a thread."""
    mine = StationReport.objects.filter(station=station, kind=kind, request_id=request_id)
    ends = time.monotonic() + patience_s
    while True:
        report = mine.order_by("-pk").first()
        if report is not None and report.completed_at is not None:
            return content(report)
        if time.monotonic() >= ends:
            return content(report) if report is not None else Told(False, [])
        sleep(LOOK_EVERY_S)


def tidy(now: datetime, keep: timedelta) -> int:
    """Delete old reports; what stations keep of customers goes after a few days."""
    old = StationReport.objects.filter(updated_at__lt=now - keep)
    customers = StationReport.objects.filter(
        kind=StationReport.Kind.CUSTOMER, updated_at__lt=now - min(keep, KEEP_CUSTOMERS)
    )
    return old.delete()[0] + customers.delete()[0]

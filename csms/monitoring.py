"""Monitors in stations and the events they make, written down. In the gateway's writer or behind a door."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime

from csms.announcing import STATUS_CHANNEL, announce
from csms.models import ChargingStation
from csms.reported import Event, Monitor, Place
from csms.reported_models import MonitoringEvent, VariableMonitor

MOST_OF_A_MESSAGE = 1_000
GRAVE = 4
"""Of this severity and worse, whoever watches a site is told at once."""


def monitors_told(station_pk: int, monitors: Iterable[Monitor], at: datetime) -> None:
    """The station has these monitors. Others it may have too: a report can be of a few."""
    for monitor in list(monitors)[:MOST_OF_A_MESSAGE]:
        if monitor.number is None:
            continue
        VariableMonitor.objects.update_or_create(
            station_id=station_pk,
            number=monitor.number,
            defaults={
                **_columns(monitor.place),
                "type": monitor.type[:24],
                "value": monitor.value,
                "severity": max(0, min(monitor.severity, 9)),
                "during_transactions": monitor.during_transactions,
                "reported_at": at,
            },
        )


def monitors_gone(station: ChargingStation, numbers: Sequence[int] | None) -> None:
    """These monitors are no more; None: none is left."""
    gone = VariableMonitor.objects.filter(station=station)
    (gone if numbers is None else gone.filter(number__in=numbers)).delete()


def events_told(station_pk: int, events: Sequence[Event], received: datetime) -> None:
    """Keep what the station says of its variables, with the severity of the monitor that made it speak."""
    asked = {e.monitor for e in events if e.monitor is not None}
    monitors = VariableMonitor.objects.filter(station_id=station_pk, number__in=asked)
    severities = dict(monitors.values_list("number", "severity"))
    rows = [
        MonitoringEvent(
            station_id=station_pk,
            **_columns(e.place),
            number=e.number,
            at=e.moment.at,
            received_at=received,
            severity=severities.get(e.monitor) if e.monitor is not None else None,
            trigger=e.trigger[:16],
            origin=e.origin[:24],
            cause=e.cause,
            value=e.value[:2500],
            tech_code=e.tech_code[:50],
            tech_info=e.tech_info[:500],
            cleared=e.cleared,
            transaction_id=e.transaction_id[:36],
            monitor=e.monitor,
            content_key=e.content_key,
        )
        for e in list(events)[:MOST_OF_A_MESSAGE]
        if e.place.variable
    ]
    MonitoringEvent.objects.bulk_create(rows, ignore_conflicts=True)
    if any(r.severity is not None and r.severity <= GRAVE and not r.cleared for r in rows):
        site = ChargingStation.objects.filter(pk=station_pk).values_list("site_id", flat=True).first()
        announce(STATUS_CHANNEL, {"site": site, "evse": None})


def _columns(place: Place) -> dict[str, str | int]:
    return {
        "component": place.component[:50],
        "component_instance": place.component_instance[:50],
        "evse_number": max(0, min(place.evse, 32767)),
        "connector_number": max(0, min(place.connector, 32767)),
        "variable": place.variable[:50],
        "variable_instance": place.variable_instance[:50],
    }

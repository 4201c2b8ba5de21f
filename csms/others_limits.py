"""The limits that somebody else puts on a station: an energy manager on site, the grid operator (2.0.1 K11 to K14).

They are the station's to obey, not ours to send; here is remembered what it told of them. Runs in the writer.
"""

from __future__ import annotations

from datetime import datetime

from csms.announcing import STATUS_CHANNEL, announce
from csms.models import ChargingStation
from csms.reported import OthersLimit
from csms.reported_models import ExternalLimit
from csms.stations import MOST_EVSES

MOST_SCHEDULES = 3


def limit_told(station_pk: int, limit: OthersLimit, at: datetime) -> None:
    if not 0 <= limit.evse <= MOST_EVSES:
        return
    source = limit.source if limit.source in ExternalLimit.Source.values else ExternalLimit.Source.OTHER
    ExternalLimit.objects.update_or_create(
        station_id=station_pk,
        evse_number=limit.evse,
        source=source,
        defaults={
            "grid_critical": limit.grid_critical,
            "told_at": at,
            "schedules": [dict(s) for s in limit.schedules][:MOST_SCHEDULES],
        },
    )
    _tell(station_pk)


def limit_cleared(station_pk: int, source: str, evse: int | None) -> None:
    """Without an EVSE the source has no limit left anywhere on the station."""
    gone = ExternalLimit.objects.filter(station_id=station_pk, source=source)
    (gone if not evse else gone.filter(evse_number=evse)).delete()
    _tell(station_pk)


def _tell(station_pk: int) -> None:
    site = ChargingStation.objects.filter(pk=station_pk).values_list("site_id", flat=True).first()
    announce(STATUS_CHANNEL, {"site": site, "evse": None})

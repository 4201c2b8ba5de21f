"""What stations tell of the work they were given: firmware, logs, reservations.

`told` runs in the gateway's writer and hands each notice to the verbs that keep its workflow, in the same database
transaction; after the commit it is announced on channel `notice`. A verb takes the station's key and the notice.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from csms import firmware, logs, reservations
from csms.announcing import announce
from csms.models import ChargingStation
from csms.vocabulary import Notice, Subject

NOTICE_CHANNEL = "notice"

Follower = Callable[[int, Notice], object]

FOLLOWERS: Mapping[Subject, tuple[Follower, ...]] = {
    Subject.FIRMWARE: (firmware.told,),
    Subject.LOG: (logs.told,),
    Subject.RESERVATION: (reservations.told,),
}
"""Which verbs keep which subject: a workflow adds its own here."""


def told(station_pk: int, notice: Notice) -> None:
    """Hand a notice to those who follow its subject."""
    for follow in FOLLOWERS.get(notice.subject, ()):
        follow(station_pk, notice)
    site = ChargingStation.objects.filter(pk=station_pk).values_list("site_id", flat=True).first()
    announce(
        NOTICE_CHANNEL,
        {
            "site": site,
            "station": station_pk,
            "subject": str(notice.subject),
            "status": notice.status,
            "request_id": notice.request_id,
        },
    )

"""What a 2.0.1 station reports, asked or unasked: reports in parts, monitoring, others' limits, the needs of cars.

Handlers beside those of `station.py`; everything is answered at once and written down in its turn.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime
from functools import partial
from typing import Any

from django.db import DatabaseError

from csms import monitoring as monitoring_verbs
from csms import needs as needs_verbs
from csms import others_limits, reports
from csms.models import WantedLimit
from csms.ocpp201 import charging, codec, device, display, monitoring
from csms.reported import CarSchedule, Part
from csms.session import Session
from csms.stations import MOST_EVSES
from meters.supply import Supply

Payload = dict[str, Any]
Answer = Payload | Awaitable[Payload]


def inventory(session: Session, payload: Payload) -> Answer:
    """A part of an inventory; its variables are kept as they come, whether or not the last part ever does."""
    variables = codec.variables(payload)
    session.reported(variables, codec.capabilities(variables))
    return _part(session, device.inventory_part(payload))


def monitors(session: Session, payload: Payload) -> Answer:
    told = monitoring.monitors(payload)
    session.post(partial(monitoring_verbs.monitors_told, session.record.pk, told, session.now()))
    return _part(session, monitoring.monitors_part(payload))


def event(session: Session, payload: Payload) -> Answer:
    """The event is kept, and so is the variable's value as it is now."""
    now = session.now()
    session.reported(codec.monitored(payload), {})
    session.post(partial(monitoring_verbs.events_told, session.record.pk, monitoring.events(payload, now), now))
    return {}


def profiles(session: Session, payload: Payload) -> Answer:
    return _part(session, charging.profiles_part(payload))


def display_messages(session: Session, payload: Payload) -> Answer:
    return _part(session, display.display_part(payload))


def customer_information(session: Session, payload: Payload) -> Answer:
    return _part(session, display.customer_part(payload))


def _part(session: Session, part: Part) -> Payload:
    session.post(partial(reports.part_told, session.record.pk, part, session.now()))
    return {}


def charging_limit(session: Session, payload: Payload) -> Answer:
    limit = charging.others_limit(payload)
    session.post(partial(others_limits.limit_told, session.record.pk, limit, session.now()))
    return {}


def cleared_charging_limit(session: Session, payload: Payload) -> Answer:
    source = str(payload.get("chargingLimitSource", ""))
    session.post(partial(others_limits.limit_cleared, session.record.pk, source, payload.get("evseId")))
    return {}


def charging_needs(session: Session, payload: Payload) -> Answer:
    """What a car needs becomes its goal, and a charging profile follows (K15, K17).

    `Processing` until somebody wants a limit there; `Rejected` where none will ever come.
    """
    needs = charging.needs(payload)
    if not 1 <= needs.evse <= MOST_EVSES:
        return _rejected("UnknownEvse")
    if not session.may_be_asked or session.record.site_id is None:
        return _rejected("NotEnabled")
    session.post(partial(needs_verbs.needs_told, session.record.pk, needs, session.now()))
    if needs.evse not in session.transactions:
        return {"status": "Processing"}
    return _offer_again(session, needs.evse)


async def _offer_again(session: Session, evse: int) -> Payload:
    """Is there a limit to offer? Then it is sent anew, changed or not: the car waits for one."""
    limit = await _limit(session, evse)
    session.keeper.transaction_changed(evse)
    offered = limit is not None and (limit.wanted_a is not None or limit.wanted_w is not None)
    return {"status": "Accepted" if offered else "Processing"}


async def charging_schedule(session: Session, payload: Payload) -> Payload:
    """The car's own schedule has to keep the limit we gave; where it does not, it is offered anew (K15, K16)."""
    now = session.now()
    schedule = charging.car_schedule(payload, now)
    if not 1 <= schedule.evse <= MOST_EVSES:
        return _rejected("UnknownEvse")
    limit = await _limit(session, schedule.evse)
    fits = limit is None or _keeps(schedule, limit, now, session.record.supply)
    session.post(partial(needs_verbs.schedule_told, session.record.pk, schedule, fits, now))
    if fits:
        return {"status": "Accepted"}
    session.count("car_exceeds_limit")
    session.keeper.transaction_changed(schedule.evse)
    return _rejected("InvalidSchedule")


async def _limit(session: Session, evse: int) -> WantedLimit | None:
    """The limit that is wanted and accepted there; None also while the database is away."""
    found = WantedLimit.objects.filter(evse__station_id=session.record.pk, evse__number=evse)
    try:
        return await session.services.memory.read(found.first)
    except DatabaseError:
        return None


def _keeps(schedule: CarSchedule, limit: WantedLimit, now: datetime, supply: Supply) -> bool:
    if limit.accepted_a is not None:
        return schedule.keeps(limit.accepted_a, "A", now, limit.lease_until, supply)
    return limit.accepted_w is None or schedule.keeps(limit.accepted_w, "W", now, limit.lease_until, supply)


def _rejected(reason: str) -> Payload:
    return {"status": "Rejected", "statusInfo": {"reasonCode": reason}}


HANDLERS: Mapping[str, Callable[[Session, Payload], Answer]] = {
    "NotifyReport": inventory,
    "NotifyMonitoringReport": monitors,
    "NotifyEvent": event,
    "ReportChargingProfiles": profiles,
    "NotifyDisplayMessages": display_messages,
    "NotifyCustomerInformation": customer_information,
    "NotifyChargingLimit": charging_limit,
    "ClearedChargingLimit": cleared_charging_limit,
    "NotifyEVChargingNeeds": charging_needs,
    "NotifyEVChargingSchedule": charging_schedule,
}

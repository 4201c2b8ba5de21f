"""A station that speaks OCPP 1.6: what it says is answered here, and our own set-up is asked here.

Thin on purpose: the codec translates, the session acts. `csms/ocpp201/station.py` has the same names in the same order.
Everything is answered at once but the start and the end of a transaction: those wait until they are durable.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime
from functools import partial
from typing import Any

from csms import cost_display, vendors
from csms.ledger import Outcome
from csms.ocpp16 import codec, cost, firmware
from csms.once import Once
from csms.profiles import ChargingProfile
from csms.schemas import V16
from csms.session import Session

log = logging.getLogger(__name__)

NAME = V16
CODEC = codec
Payload = dict[str, Any]
Answer = Payload | Awaitable[Payload]

MEASURANDS = (
    "Energy.Active.Import.Register",
    "Power.Active.Import",
    "Current.Import",
    "Voltage",
    "Current.Offered",
    "SoC",
)
"""Wanted most first: a list a station finds too long is shortened from its end."""

PENDING_INTERVAL_S = 60
WHILE_PENDING: frozenset[str] | None = None
"""1.6 has no error for a station that talks before it is accepted (§4.2): it is answered."""


# ---------------------------------------------------------------------- it tells, we answer


def boot_notification(session: Session, payload: Payload) -> Answer:
    status = session.booted(codec.boot(payload))
    interval = session.heartbeat_s if status == "Accepted" else min(PENDING_INTERVAL_S, session.knobs.heartbeat_s)
    return {"status": status, "currentTime": codec.iso(session.now()), "interval": interval}


def heartbeat(session: Session, payload: Payload) -> Answer:
    return {"currentTime": codec.iso(session.now())}


def status_notification(session: Session, payload: Payload) -> Answer:
    session.status_changed(codec.status(payload, session.now()))
    return {}


async def authorize(session: Session, payload: Payload) -> Payload:
    return {"idTagInfo": codec.verdict(await session.authorize(codec.token(payload.get("idTag"))))}


async def transaction_started(session: Session, payload: Payload) -> Payload:
    report = codec.started(payload, session.now())
    outcome = await session.transaction(report)
    return {"transactionId": int(outcome.transaction_id), "idTagInfo": codec.verdict(outcome.verdict)}


async def transaction_ended(session: Session, payload: Payload) -> Payload:
    """Always answered as accepted once it is kept, whoever's it is: a refused stop is repeated for ever (Q12)."""
    report = codec.ended(payload, session.now())
    outcome = await session.transaction(report)
    if cost_display.shows_cost(session) and not outcome.repeated:
        session.spawn(_tell_final_cost(session, outcome))
    return {"idTagInfo": codec.verdict(outcome.verdict)} if report.token is not None else {}


async def _tell_final_cost(session: Session, outcome: Outcome) -> None:
    total = await cost_display.final(session, outcome)
    if total is not None and outcome.transaction_id.isdecimal():
        words = cost_display.in_words(outcome.energy_wh, total)
        await session.ask_of_our_own(cost.final_cost(outcome.transaction_id, total.rounded, words))


def meter_values(session: Session, payload: Payload) -> Answer:
    told = payload.get("transactionId")
    transaction_id = str(told) if isinstance(told, int) and told > 0 else ""
    read = Once(partial(codec.meter_values, payload.get("meterValue"), session.now()))
    session.measured(int(payload.get("connectorId") or 0), read, transaction_id)
    cost_display.moved_on(session, transaction_id)
    return {}


def data_transfer(session: Session, payload: Payload) -> Answer:
    return vendors.answer(session, payload)


def firmware_status(session: Session, payload: Payload) -> Answer:
    session.told(firmware.firmware_notice(payload, session.now()))
    return {}


def log_status(session: Session, payload: Payload) -> Answer:
    session.told(firmware.log_notice(payload, session.now()))
    return {}


def security_event(session: Session, payload: Payload) -> Answer:
    session.tell_security(payload)
    return {}


async def sign_certificate(session: Session, payload: Payload) -> Payload:
    return await session.sign_certificate(payload)


HANDLERS: Mapping[str, Callable[[Session, Payload], Answer]] = {
    "BootNotification": boot_notification,
    "Heartbeat": heartbeat,
    "StatusNotification": status_notification,
    "Authorize": authorize,
    "StartTransaction": transaction_started,
    "StopTransaction": transaction_ended,
    "MeterValues": meter_values,
    "DataTransfer": data_transfer,
    "DiagnosticsStatusNotification": log_status,
    "FirmwareStatusNotification": firmware_status,
    "LogStatusNotification": log_status,
    "SignedFirmwareStatusNotification": firmware_status,
    "SecurityEventNotification": security_event,
    "SignCertificate": sign_certificate,
}


# ---------------------------------------------------------------------- we ask, it answers


def set_profile(profile: ChargingProfile) -> tuple[str, Payload]:
    return codec.set_profile(profile)


def running_cost(transaction_id: str, total: float, at: datetime) -> tuple[str, Payload]:
    return cost.running_cost(transaction_id, total, at)


async def configure_meters(session: Session) -> None:
    """How often and what to measure. A list that is refused is shortened once down to its first (Q24)."""
    interval = str(session.knobs.meter_interval_s)
    await session.ask_of_our_own(codec.set_variable("", "MeterValueSampleInterval", interval, None))
    await session.ask_of_our_own(codec.set_variable("", "ClockAlignedDataInterval", "0", None))
    known = session.record.capabilities.get("measurands")
    measurands = list(known) if isinstance(known, list) and known else list(MEASURANDS)
    while measurands:
        call = codec.set_variable("", "MeterValuesSampledData", ",".join(measurands), None)
        result = await session.ask_of_our_own(call)
        status = str(result.get("status")) if result is not None else ""
        if status in ("Accepted", "RebootRequired"):
            session.learn(measurands=measurands)
            return
        if status != "Rejected":
            return
        measurands.pop()


async def take_inventory(session: Session) -> bool:
    """All configuration keys, in one question: asking for one by name has sent stations into a boot (Q24)."""
    result = await session.ask_of_our_own(codec.request_report(0))
    if result is None:
        return False
    variables = codec.variables(result)
    session.reported(variables, codec.capabilities(variables))
    return True


async def ask_status(session: Session) -> None:
    await session.ask_of_our_own(codec.trigger("StatusNotification", None))


async def ask_boot(session: Session) -> None:
    await session.ask_of_our_own(codec.trigger("BootNotification", None))

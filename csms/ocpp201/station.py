"""A station that speaks OCPP 2.0.1: what it says is answered here, and our own set-up is asked here.

Thin on purpose: the codec translates, the session acts. `csms/ocpp16/station.py` has the same names in the same order.
Everything is answered at once but the events of a transaction: those wait until they are durable.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime
from functools import partial
from typing import Any

from csms import cost_display, vendors
from csms.ocpp201 import access, codec, contracts, display, firmware, reporting
from csms.once import Once
from csms.profiles import ChargingProfile
from csms.rpc import Refusal
from csms.schemas import V201
from csms.session import Session
from csms.vocabulary import Kind

log = logging.getLogger(__name__)

NAME = V201
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
WHILE_PENDING: frozenset[str] | None = frozenset({"BootNotification", "NotifyReport", "TransactionEvent"})
"""What a station may say before it is accepted, besides what it was triggered to say; the rest is a security error
(2.0.1 part 2 B02.FR.09). An event of a transaction is kept all the same: refused, it would be lost.
"""
INVENTORY_ID = 1


# ---------------------------------------------------------------------- it tells, we answer


def boot_notification(session: Session, payload: Payload) -> Answer:
    status = session.booted(codec.boot(payload))
    interval = session.heartbeat_s if status == "Accepted" else min(PENDING_INTERVAL_S, session.knobs.heartbeat_s)
    return {"currentTime": codec.iso(session.now()), "interval": interval, "status": status}


def heartbeat(session: Session, payload: Payload) -> Answer:
    return {"currentTime": codec.iso(session.now())}


def status_notification(session: Session, payload: Payload) -> Answer:
    session.status_changed(codec.status(payload, session.now()))
    return {}


async def authorize(session: Session, payload: Payload) -> Payload:
    """The verdict, and the price where the station shows it (I01)."""
    verdict = await session.authorize(codec.token(payload.get("idToken")))
    more: Payload = {}
    if contracts.shows_a_contract(payload):
        verdict, more["certificateStatus"] = await contracts.judged(payload, verdict)
    message = await cost_display.tariff_for(session) if verdict.accepted else ""
    return {"idTokenInfo": codec.verdict(verdict, message), **more}


async def transaction_event(session: Session, payload: Payload) -> Payload:
    """Any event of a transaction; the token it shows is judged in the answer (2.0.1 part 2 E01, C01).

    The answer to the last one has what the charge cost (I03); while it goes on, the cost is told besides (I02).
    """
    report = codec.event(payload, session.now())
    if not report.transaction_id:
        raise Refusal("property", "transactionInfo.transactionId is empty: nobody could end what it begins")
    outcome = await session.transaction(report)
    answer: Payload = {}
    if report.kind is Kind.ENDED:
        cost = await cost_display.final(session, outcome)
        if cost is not None:
            answer["totalCost"] = cost.rounded
            answer["updatedPersonalMessage"] = codec.words(cost_display.in_words(outcome.energy_wh, cost))
    elif report.kind is Kind.UPDATED and not report.offline:
        cost_display.moved_on(session, outcome.transaction_id, outcome.transaction_pk)
    if report.token is not None:
        answer["idTokenInfo"] = codec.verdict(outcome.verdict)
    return answer


def meter_values(session: Session, payload: Payload) -> Answer:
    read = Once(partial(codec.meter_values, payload.get("meterValue"), session.now()))
    session.measured(int(payload.get("evseId") or 0), read)
    return {}


def data_transfer(session: Session, payload: Payload) -> Answer:
    return vendors.answer(session, payload)


def firmware_status(session: Session, payload: Payload) -> Answer:
    session.told(firmware.firmware_notice(payload, session.now()))
    return {}


def published_firmware_status(session: Session, payload: Payload) -> Answer:
    session.told(firmware.published_notice(payload, session.now()))
    return {}


def log_status(session: Session, payload: Payload) -> Answer:
    session.told(firmware.log_notice(payload, session.now()))
    return {}


def reservation_status(session: Session, payload: Payload) -> Answer:
    session.told(access.reservation_notice(payload, session.now()))
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
    "TransactionEvent": transaction_event,
    "MeterValues": meter_values,
    "DataTransfer": data_transfer,
    "FirmwareStatusNotification": firmware_status,
    "PublishFirmwareStatusNotification": published_firmware_status,
    "LogStatusNotification": log_status,
    "ReservationStatusUpdate": reservation_status,
    "SecurityEventNotification": security_event,
    "SignCertificate": sign_certificate,
    **reporting.HANDLERS,
    "Get15118EVCertificate": contracts.ev_certificate,
    "GetCertificateStatus": contracts.certificate_status,
}


# ---------------------------------------------------------------------- we ask, it answers


def set_profile(profile: ChargingProfile) -> tuple[str, Payload]:
    return codec.set_profile(profile)


def running_cost(transaction_id: str, total: float, at: datetime) -> tuple[str, Payload]:
    return display.cost_updated(transaction_id, total)


async def configure_meters(session: Session) -> None:
    """How often and what to measure. A list that is refused is shortened once down to its first (Q24)."""
    interval = str(session.knobs.meter_interval_s)
    await _set(session, "TxUpdatedInterval", interval)
    known = session.record.capabilities.get("measurands")
    measurands = list(known) if isinstance(known, list) and known else list(MEASURANDS)
    while measurands:
        status = await _set(session, "TxUpdatedMeasurands", ",".join(measurands))
        if status in ("Accepted", "RebootRequired"):
            session.learn(measurands=measurands)
            return
        if status != "Rejected":
            return
        measurands.pop()


async def _set(session: Session, variable: str, value: str) -> str:
    action, payload = codec.set_variable("SampledDataCtrlr", variable, value, None)
    result = await session.ask_of_our_own((action, payload))
    return str(codec.answered(action, result)["status"]) if result is not None else ""


async def take_inventory(session: Session) -> bool:
    """Everything the station can report; it comes in parts, as NotifyReport."""
    return await session.ask_of_our_own(codec.request_report(INVENTORY_ID)) is not None


async def ask_status(session: Session) -> None:
    """A status is asked of each connector by number (2.0.1 part 2 F06)."""
    for number in sorted(session.record.evses) or [1]:
        await session.ask_of_our_own(codec.trigger("StatusNotification", number, 1))


async def ask_boot(session: Session) -> None:
    await session.ask_of_our_own(codec.trigger("BootNotification", None))

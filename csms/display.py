"""For and about the drivers of a 2.0.1 station: messages on its display, the cost of a charge, what it keeps of them.

For doors, like `calls.py`. What a station reports in parts is kept as it comes (`reports.py`), under the `request_id`
of the answer here.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from csms import bus
from csms.models import ChargingStation, IdToken, Transaction
from csms.ocpp201 import display as display201
from csms.speaking import ask, needs_201, request_id

LONGEST_TEXT = 512


def show_message(
    station: ChargingStation,
    number: int,
    text: str,
    *,
    priority: str = "NormalCycle",
    state: str | None = None,
    starts: datetime | None = None,
    ends: datetime | None = None,
    transaction: Transaction | None = None,
    language: str | None = None,
    text_format: str = "UTF8",
) -> dict[str, Any]:
    """Show a message: in one state only, for a while only, or for one charge. One of the same number is replaced."""
    needs_201(station, "messages on the display")
    if not text or len(text) > LONGEST_TEXT:
        raise bus.CallNotValid(f"text: 1 to {LONGEST_TEXT} characters")
    if starts is not None and ends is not None and ends <= starts:
        raise bus.CallNotValid("ends: after it starts")
    if transaction is not None and transaction.station_id != station.pk:
        raise bus.CallNotValid("transaction: it belongs to another station")
    charge = transaction.transaction_id if transaction is not None else None
    return ask(
        station,
        display201.show_message(number, text, priority, state, starts, ends, charge, language, text_format),
    )


def report_messages(
    station: ChargingStation, numbers: Sequence[int] = (), priority: str | None = None, state: str | None = None
) -> dict[str, Any]:
    """Have the messages in the station reported. `Unknown`: there are none such."""
    needs_201(station, "messages on the display")
    number = request_id()
    return ask(station, display201.get_messages(number, numbers, priority, state)) | {"request_id": number}


def clear_message(station: ChargingStation, number: int) -> dict[str, Any]:
    """`Unknown`: there is none of this number."""
    needs_201(station, "messages on the display")
    return ask(station, display201.clear_message(number))


def customer_information(
    station: ChargingStation,
    *,
    report: bool,
    clear: bool,
    id_token: IdToken | None = None,
    identifier: str | None = None,
) -> dict[str, Any]:
    """Have what the station keeps of somebody reported, erased, or both. One of token and identifier says of whom."""
    needs_201(station, "customer information")
    if (id_token is None) == (not identifier):
        raise bus.CallNotValid("id_token, identifier: give exactly one of the two")
    if not (report or clear):
        raise bus.CallNotValid("report, clear: at least one of the two")
    number = request_id()
    token = (id_token.value, id_token.type) if id_token is not None else None
    call = display201.customer_information(number, report, clear, token, identifier)
    return ask(station, call) | {"request_id": number}


def tell_cost(transaction: Transaction, total: float) -> dict[str, Any]:
    """Show the cost of a running charge, as of now."""
    needs_201(transaction.station, "running cost; the gateway tells it by vendor messages where the station shows it")
    if total < 0:
        raise bus.CallNotValid("total: a cost is not negative")
    return ask(transaction.station, display201.cost_updated(transaction.transaction_id, total))

"""What a charge costs, as the station shows it to its driver. This room knows no prices: whoever does offers a pricer.

costs.offer(pricer)        at the start of the process
costs.of(transaction, at)  the cost so far, or in the end; None where nobody can say
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from csms.models import ChargingStation, Transaction


@dataclass(frozen=True, slots=True)
class Cost:
    """An amount of money. With the taxes its driver pays."""

    total: float
    currency: str = "EUR"

    @property
    def rounded(self) -> float:
        return round(self.total, 2)


class Pricer(Protocol):
    """Somebody who knows prices."""

    def cost(self, transaction: Transaction, at: datetime) -> Cost | None:
        """What the charge cost up to `at`, or in the end; None where it has no price."""

    def tariff(self, station: ChargingStation, at: datetime) -> str:
        """The price in a few words for a driver who has just shown a token; "" where there is none."""


_pricers: list[Pricer] = []


def offer(pricer: Pricer) -> None:
    """The newest offered is asked."""
    _pricers[:] = [pricer]


def withdraw() -> None:
    _pricers.clear()


def known() -> bool:
    return bool(_pricers)


def of(transaction_pk: int, at: datetime) -> Cost | None:
    """The cost of a charge up to `at`. Reads the database."""
    if not _pricers:
        return None
    transaction = Transaction.objects.select_related("station__site", "evse").filter(pk=transaction_pk).first()
    return _pricers[0].cost(transaction, at) if transaction is not None else None


def tariff(station_pk: int, at: datetime) -> str:
    """The price in a few words. Reads the database."""
    if not _pricers:
        return ""
    station = ChargingStation.objects.select_related("site").filter(pk=station_pk).first()
    return _pricers[0].tariff(station, at) if station is not None else ""

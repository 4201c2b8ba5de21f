"""What must hold at the end of every fault: the ledger and the station's own book tell the same story."""

from __future__ import annotations

import asyncio

from asgiref.sync import sync_to_async

from csms.gateway import Gateway
from csms.models import Transaction, TransactionEvent
from tests.csms.charge_point import written
from tests.faults.station import Charge, Stubborn


async def the_books_agree(gateway: Gateway, *stations: Stubborn) -> None:
    """No transaction lost, none doubled, none of somebody else's, and the energy is the register's."""
    await written(gateway)
    for _ in range(100):
        wrong = await sync_to_async(_differences)(stations)
        if not wrong:
            return
        await asyncio.sleep(0.05)
    raise AssertionError("; ".join(wrong))


def _differences(stations: tuple[Stubborn, ...]) -> list[str]:
    wrong = []
    for station in stations:
        rows = {t.transaction_id: t for t in Transaction.objects.filter(station__identity=station.identity)}
        for charge in station.book:
            row = rows.pop(charge.name, None)
            if row is None:
                wrong.append(f"{station.identity}: charge {charge.name} is lost")
            else:
                wrong += _unlike(station, charge, row)
        wrong += [f"{station.identity}: nobody charged {name}" for name in rows]
    return wrong


def _unlike(station: Stubborn, charge: Charge, row: Transaction) -> list[str]:
    wrong = []
    if row.open == (charge.end_wh is not None):
        wrong.append(f"{charge.name} is {'still open' if row.open else 'closed'}")
    energy = (charge.end_wh if charge.end_wh is not None else station.registers[charge.evse]) - charge.start_wh
    if charge.end_wh is not None and abs(row.energy_wh - energy) > 0.5:
        wrong.append(f"{charge.name} has {row.energy_wh} Wh, the register says {energy}")
    kinds = list(TransactionEvent.objects.filter(transaction=row).values_list("kind", flat=True))
    for kind, most in (("started", 1), ("ended", 1)):
        if kinds.count(kind) > most:
            wrong.append(f"{charge.name} has {kinds.count(kind)} events {kind}")
    return wrong

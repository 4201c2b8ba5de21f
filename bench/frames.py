"""The frames of the message benches: what stations mostly say, and some of it said wrong."""

from __future__ import annotations

import time
from typing import Any

import orjson

PHASES = ("L1", "L2", "L3")


def _sampled(**more: str) -> list[dict[str, Any]]:
    values = [{"value": f"{231.2 + i}", "measurand": "Voltage", "phase": p, "unit": "V"} for i, p in enumerate(PHASES)]
    values += [
        {"value": f"{15.8 + i}", "measurand": "Current.Import", "phase": p, "unit": "A"} for i, p in enumerate(PHASES)
    ]
    values += [{"value": "10921.4", "measurand": "Power.Active.Import", "unit": "W"}]
    values += [{"value": "1234567", "measurand": "Energy.Active.Import.Register", "unit": "Wh"}]
    return [{**v, **more} for v in values]


EIGHT_16 = orjson.dumps(_sampled(context="Sample.Periodic", location="Outlet", format="Raw"))
EIGHT_201 = orjson.dumps(
    [{k: float(v) if k == "value" else v for k, v in value.items() if k != "unit"} for value in _sampled()]
)
# Numbers for text in all eight values, as some firmware has it (Q10): each is mended.
EIGHT_ODD = orjson.dumps([{**v, "value": float(v["value"])} for v in _sampled(location="Outlet")])


def stamp() -> bytes:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()).encode()


def heartbeat(name: bytes, _: int) -> bytes:
    return b'[2,"%s","Heartbeat",{}]' % name


def meter_values(name: bytes, _: int) -> bytes:
    head = b'[2,"%s","MeterValues",{"connectorId":1,"meterValue":[{"timestamp":"%s","sampledValue":' % (name, stamp())
    return head + EIGHT_16 + b"}]}]"


def odd_meter_values(name: bytes, _: int) -> bytes:
    head = b'[2,"%s","MeterValues",{"connectorId":1,"meterValue":[{"timestamp":"%s","sampledValue":' % (name, stamp())
    return head + EIGHT_ODD + b"}]}]"


def refused_meter_values(name: bytes, _: int) -> bytes:
    """Without the connector: nothing can be made of it, and it gets the standard's error."""
    head = b'[2,"%s","MeterValues",{"meterValue":[{"timestamp":"%s","sampledValue":' % (name, stamp())
    return head + EIGHT_16 + b"}]}]"


def transaction_event(name: bytes, number: int) -> bytes:
    """One more of a transaction of the asker's own (its name is the part before the number)."""
    now, owner = stamp(), name.partition(b"-")[0] + name.partition(b"-")[2].partition(b"-")[0]
    head = (
        b'[2,"%s","TransactionEvent",{"eventType":"Updated","timestamp":"%s","triggerReason":"MeterValuePeriodic",'
        b'"seqNo":%d,"transactionInfo":{"transactionId":"b%s","chargingState":"Charging"},'
        b'"evse":{"id":1,"connectorId":1},"meterValue":[{"timestamp":"%s","sampledValue":'
    ) % (name, now, number - 1, owner, now)
    return head + EIGHT_201 + b"}]}]"

"""OCPP 1.6: costs on the display, in the vendor messages the Open Charge Alliance agreed on for it. Pure."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

from csms.ocpp16.codec import Call, iso

VENDOR = "org.openchargealliance.costmsg"


def running_cost(transaction_id: str, total: float, at: datetime) -> Call:
    return _message("RunningCost", {"transactionId": int(transaction_id), "timestamp": iso(at), "cost": total})


def final_cost(transaction_id: str, total: float, words: str) -> Call:
    return _message("FinalCost", {"transactionId": int(transaction_id), "cost": total, "priceText": words})


def _message(name: str, data: dict[str, Any]) -> Call:
    return "DataTransfer", {"vendorId": VENDOR, "messageId": name, "data": json.dumps(data, ensure_ascii=False)}

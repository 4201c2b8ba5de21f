"""The trail of limits: each limit a station was told, with who had asked for what by then, and how far it was followed.

One row a limit, not one a message: a renewed lease is the same limit. Written by the gateway as it goes; what people
ask for is written where they ask, so that it is kept even when it never became the lowest.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from csms.models import EVSE
from csms.obedience_models import ToldLimit

ASKED = "asked"
"""The state of what a person asked for: it may be told, or a lower one stands before it."""


def told(key: tuple[int, str], changes: Sequence[Mapping[str, Any]]) -> None:
    """How far a limit has come; several changes of one batch are one write. `key` is the EVSE's and the limit's."""
    evse_pk, step = key
    together: dict[str, Any] = {}
    for change in changes:
        together.update(change)
    if ToldLimit.objects.filter(key=step).update(**together):
        return
    if EVSE.objects.filter(pk=evse_pk).exists():
        ToldLimit.objects.create(evse_id=evse_pk, key=step, **together)


def asked(evse: EVSE, by: str, at: datetime, *, amps: float | None, watts: float | None, reason: str) -> None:
    """A person asks for a limit by hand."""
    ToldLimit.objects.create(
        evse=evse,
        key=new_key(),
        at=at,
        wanted_a=amps,
        wanted_w=watts,
        reason=reason[:200],
        asked=[{"by": by, "a": amps, "w": watts}],
        state=ASKED,
    )


def new_key() -> str:
    return uuid.uuid4().hex

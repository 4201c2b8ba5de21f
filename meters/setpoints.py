"""What we want a battery, an inverter or a load to do now: a desired state with a lease, in Redis.

`set:device:<pk>` holds JSON {"power_w": float|null, "on": bool|null, "until": ISO time}. Dispatch writes it; the
poller, the only Modbus master, obeys it until `until` and then releases the device. Power is load-positive: a charging
battery is positive, production negative. The key outlives its lease by a while, so that it can still be seen.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from meters.live import connection
from meters.measurement import Measurement

KEEP_AFTER_S = 60
SHORTEST_LEASE_S = 3.0


@dataclass(frozen=True, slots=True)
class Setpoint:
    """One wanted set-point. `power_w` for what takes a power, `on` for what is switched."""

    power_w: float | None
    on: bool | None
    until: datetime

    def holds(self, now: datetime) -> bool:
        return now < self.until


class SetpointError(ValueError):
    """This set-point cannot be wanted. The message names the field."""


def want(
    device_pk: int,
    *,
    power_w: float | None = None,
    on: bool | None = None,
    until: datetime,
    now: datetime | None = None,
) -> None:
    """Want this of a device until then. The latest wins; `until` in the past releases the device at once."""
    if until.tzinfo is None:
        raise SetpointError("until: needs a time zone")
    if (power_w is None) == (on is None):
        raise SetpointError("power_w, on: give exactly one of the two")
    if power_w is not None and not math.isfinite(power_w):
        raise SetpointError(f"power_w: {power_w} is no number")
    left = (until - (now or datetime.now(UTC))).total_seconds()
    body = json.dumps({"power_w": power_w, "on": on, "until": until.isoformat()})
    connection().set(_key(device_pk), body, ex=max(1, math.ceil(left)) + KEEP_AFTER_S)


def withdraw(device_pk: int) -> None:
    """Want nothing any more: the device goes back to its own mode."""
    connection().delete(_key(device_pk))


def current(device_pk: int) -> Setpoint | None:
    """What is wanted of this device, also when its lease has just run out (`holds` tells)."""
    return current_of([device_pk]).get(device_pk)


def current_of(device_pks: Iterable[int]) -> dict[int, Setpoint]:
    """The set-points of all these devices that have one, in one request."""
    wanted = list(device_pks)
    if not wanted:
        return {}
    found: dict[int, Setpoint] = {}
    for pk, body in zip(wanted, connection().mget([_key(pk) for pk in wanted]), strict=True):
        setpoint = _parse(body)
        if setpoint is not None:
            found[pk] = setpoint
    return found


def _key(device_pk: int) -> str:
    return f"set:device:{device_pk}"


def _parse(body: Any) -> Setpoint | None:
    if body is None:
        return None
    try:
        data = json.loads(body)
        power, on = data.get("power_w"), data.get("on")
        setpoint = Setpoint(
            power_w=None if power is None else float(power),
            on=None if on is None else bool(on),
            until=datetime.fromisoformat(data["until"]),
        )
    except (ValueError, TypeError, KeyError, AttributeError):
        return None
    if setpoint.until.tzinfo is None or (setpoint.power_w is not None and not math.isfinite(setpoint.power_w)):
        return None
    return setpoint


@dataclass(frozen=True, slots=True)
class Bounds:
    """What this one battery may do: the device's options. None means that the device itself decides."""

    max_charge_w: float | None = None
    max_discharge_w: float | None = None
    min_soc: float | None = None
    max_soc: float | None = None


def clamp(power_w: float, bounds: Bounds, measured: Measurement | None) -> float:
    """The set-point that may be written. Never more than the bounds, never past the bounds of the state of charge.

    With bounds on an unknown state of charge the battery stands still: unknown is not half full.
    """
    if bounds.max_charge_w is not None:
        power_w = min(power_w, bounds.max_charge_w)
    if bounds.max_discharge_w is not None:
        power_w = max(power_w, -bounds.max_discharge_w)
    soc = None if measured is None else measured.soc
    if bounds.min_soc is not None and power_w < 0 and (soc is None or soc <= bounds.min_soc):
        return 0.0
    if bounds.max_soc is not None and power_w > 0 and (soc is None or soc >= bounds.max_soc):
        return 0.0
    return power_w


@dataclass(frozen=True, slots=True)
class Written:
    """What the device was last told, for how long, and when (seconds of a steady clock)."""

    power_w: float | None
    on: bool | None
    lease_s: float
    at_s: float


UNSURE = Written(power_w=None, on=None, lease_s=0.0, at_s=0.0)
"""Something was told, but not wholly or without an answer: to be told again, or released."""


@dataclass(frozen=True, slots=True)
class Write:
    """Tell the device this, for so long."""

    power_w: float | None
    on: bool | None
    lease_s: float


@dataclass(frozen=True, slots=True)
class Release:
    """Back to the device's own mode."""


def next_step(
    wanted: Setpoint | None, written: Written | None, *, now: datetime, now_s: float, device_lease_s: float | None
) -> Write | Release | None:
    """What to do with a device now: write, release, or nothing.

    A set-point is renewed at a third of the life it was given, which never goes beyond `until`. A device without a
    timer of its own is written only when something changes (its registers may be flash). Pure.
    """
    if wanted is None or not wanted.holds(now):
        return None if written is None else Release()
    left = (wanted.until - now).total_seconds()
    lease = max(SHORTEST_LEASE_S, left if device_lease_s is None else min(device_lease_s, left))
    alive = written is not None and (device_lease_s is None or now_s - written.at_s < written.lease_s / 3)
    if written is not None and alive and _same(written, wanted):
        return None
    return Write(wanted.power_w, wanted.on, lease)


def _same(written: Written, wanted: Setpoint) -> bool:
    if written.on != wanted.on or (written.power_w is None) != (wanted.power_w is None):
        return False
    return written.power_w is None or wanted.power_w is None or abs(written.power_w - wanted.power_w) < 1.0

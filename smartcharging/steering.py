"""What controllable loads are told now: what the plan gives them, unless something stands above it.

A load follows a valid plan and nothing else; without one it is told nothing, its lease ends, and it goes back to its
own thermostat. Fire, emergency stop and an order of zero switch it off, plan or no plan. Where a circuit above it stays
above its limit, or a car below that circuit would have to be paused for want of room, stores and what may rest are shed
for a while; a run that must not be broken is not. A relay is not moved again within minutes.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from meters import setpoints
from meters.live import connection
from meters.models import Device
from smartcharging import load_needs
from smartcharging.engine.snapshot import Allocation
from smartcharging.gather import View
from smartcharging.planned import planned_load_w

LEASE_S = 60
SHED = timedelta(minutes=5)
BORNE = timedelta(seconds=10)
"""A circuit may be too full for so long: cars that were told less are still on their way down."""
HOLD = timedelta(minutes=10)
"""A relay is left where it is for so long, for the sake of compressors."""
OVER_A = 0.5
PEAK = "peak"
"""The reason of `engine.allocate` where only the month's peak narrows: that is money, and the plan has weighed it."""
KEEP_S = 3600


@dataclass(frozen=True)
class Told:
    """What a load was last told, and since when its circuits are too full."""

    on: bool | None = None
    since: datetime | None = None
    tight_since: datetime | None = None
    shed_until: datetime | None = None


def steer(view: View, allocation: Allocation) -> None:
    """Tell every load that is planned what to do."""
    devices = [d for d in view.devices_of(Device.Kind.LOAD) if d.option("load") and load_needs.can_be_told(d)]
    if not devices:
        return
    tight = set(_tight(view, allocation))
    for device, told in zip(devices, _recall(devices), strict=True):
        now_told = _tell(device, view, tight, told)
        if now_told != told:
            connection().set(_key(device), _as_text(now_told), ex=KEEP_S)


def _tell(device: Device, view: View, tight: set[tuple[int, int]], told: Told) -> Told:
    """Write what this load is to do now; what is then remembered of it."""
    now = view.now
    told = _watched(device, view, tight, told)
    wanted_w = planned_load_w(view.plan, device.pk, now)
    shed = told.shed_until is not None and now < told.shed_until
    must_be_off = _shut(view, _path(device, view)) or (shed and wanted_w is not None)
    if must_be_off:
        wanted_w = 0.0
    if wanted_w is None:
        return Told(tight_since=told.tight_since, shed_until=told.shed_until)
    until = now + timedelta(seconds=LEASE_S)
    if load_needs.takes_power(device):
        setpoints.want(device.pk, power_w=wanted_w, until=until, now=now)
        return told
    on = wanted_w > load_needs.ON_SHARE * _power_w(device)
    held = told.on is not None and told.since is not None and now - told.since < HOLD
    if held and told.on is not None and not must_be_off:
        on = told.on
    setpoints.want(device.pk, on=on, until=until, now=now)
    since = told.since if on == told.on else now
    return Told(on, since, told.tight_since, told.shed_until)


def _power_w(device: Device) -> float:
    try:
        return load_needs.power_w(device)
    except load_needs.CannotPlan:
        return 0.0


def _watched(device: Device, view: View, tight: set[tuple[int, int]], told: Told) -> Told:
    """Since when its circuits are too full, and until when it is shed for it."""
    phases = load_needs.phases(device)
    full = any(n in _path(device, view) and phases[f] for n, f in tight)
    if not full or device.option("load") == "block":
        return Told(told.on, told.since, None, told.shed_until)
    since = told.tight_since or view.now
    until = view.now + SHED if view.now - since >= BORNE else told.shed_until
    return Told(told.on, told.since, since, until)


def _path(device: Device, view: View) -> list[int]:
    return list(view.snapshot.grid.path(view.node_of_device.get(device.pk, 0)))


def _shut(view: View, path: list[int]) -> bool:
    """Somebody with a right to it leaves nothing to a circuit above."""
    return any(
        order.node in path and order.in_force(view.now) and 0.0 in (order.limit_a, order.limit_w)
        for order in view.snapshot.narrowings
    )


def _tight(view: View, allocation: Allocation) -> Iterator[tuple[int, int]]:
    """Circuits and phases that are above their limit, or that leave a waiting car no room for its minimum."""
    for n, headroom in allocation.headroom_a.items():
        over = _measured_over(view, n) if allocation.node_reason.get(n) == PEAK else [h < -OVER_A for h in headroom]
        yield from ((n, f) for f in range(3) if over[f])
    for session in view.snapshot.sessions:
        share = allocation.shares.get(session.key)
        if share is None or not share.circuit or share.reason == PEAK or not (session.wants and session.reachable):
            continue
        if share.limit_a < session.min_a:
            n = view.snapshot.grid.index(share.circuit)
            yield from ((n, f) for f in range(3) if session.phases[f])


def _measured_over(view: View, n: int) -> list[bool]:
    """Phases on which a circuit is seen above what it may carry, the month's peak left aside."""
    reading, circuit = view.snapshot.readings.get(n), view.snapshot.grid.circuits[n]
    if reading is None:
        return [False] * 3
    orders = [o for o in view.snapshot.narrowings if o.node == n and o.in_force(view.now)]
    watts = [w for w in (circuit.limit_w, *(o.limit_w for o in orders)) if w is not None]
    if reading.power_w is not None and any(reading.power_w > w for w in watts):
        return [True] * 3
    amps = reading.current_a or (0.0, 0.0, 0.0)
    return [a > limit + OVER_A for a, limit in zip(amps, circuit.limit_a, strict=True)]


def _key(device: Device) -> str:
    return f"load:{device.pk}"


def _recall(devices: list[Device]) -> list[Told]:
    return [_told(body) for body in connection().mget([_key(d) for d in devices])]


def _told(body: Any) -> Told:
    """What was kept; nothing, where it cannot be read."""
    try:
        kept = json.loads(body) if body is not None else {}
        at = {k: datetime.fromisoformat(kept[k]) for k in ("since", "tight_since", "shed_until") if kept.get(k)}
        return Told(on=kept.get("on"), **at)
    except (ValueError, TypeError, AttributeError):
        return Told()


def _as_text(told: Told) -> str:
    def text(at: datetime | None) -> str | None:
        return None if at is None else at.isoformat()

    return json.dumps(
        {
            "on": told.on,
            "since": text(told.since),
            "tight_since": text(told.tight_since),
            "shed_until": text(told.shed_until),
        }
    )

"""Act on the engine's answer: wanted limits for the stations, set-points for batteries and loads, and the trail of it.

Everything here is a desired state with a lease. A want that is unchanged is put again well before its lease ends, and
not more often: the gateway renews the station's profile by itself while the want stands. When nobody renews it, the
station falls back on its fail-safe without any message.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime, timedelta

from django.conf import settings
from django.db import transaction

from csms import bus
from meters import setpoints
from meters.models import Device
from smartcharging import remember, steering
from smartcharging.engine.grid import NOMINAL_V, Supply, power_weight
from smartcharging.engine.snapshot import Allocation, Share
from smartcharging.gather import View
from smartcharging.models import AllocationRecord, GridCommand
from smartcharging.narrowings import in_force
from smartcharging.places import Place
from smartcharging.remember import EvseMemory

BATTERY_LEASE_S = 60
RENEW_SHARE = 0.25  # a want is renewed when this share of its lease is gone
OVER_ALLOWED_W = 100.0  # a meter's noise beyond a commanded limit


def apply(view: View, allocation: Allocation) -> None:
    """Put what is wanted, record what changed, move the grid operator's commands along."""
    wants: list[bus.Want] = []
    records: list[AllocationRecord] = []
    memories: dict[int, EvseMemory] = {}
    for place in view.places:
        memory = place.memory
        share = allocation.shares.get(place.key)
        if share is not None:
            memory = _record(place, share, memory, view.now, records)
            if not place.station.quiet:
                memory = _want(place, share, memory, view.now, wants)
        memories[place.evse.pk] = memory
    bus.put_wants(sorted(wants, key=lambda w: not w.urgent))
    _set_batteries(view, allocation)
    steering.steer(view, allocation)
    remember.keep(view.site.pk, memories)
    remember.keep_carried(view.site.pk, allocation.carried)
    with transaction.atomic():
        if records:
            AllocationRecord.objects.bulk_create(records)
        for command in view.commands:
            move_along(command, view)


def _want(place: Place, share: Share, memory: EvseMemory, now: datetime, wants: list[bus.Want]) -> EvseMemory:
    """Put the limit when it or its reason is another one, or when the one that stands must be renewed."""
    lease = timedelta(seconds=settings.LIMIT_LEASE_S)
    told = f"{share.limit_w if place.dc else share.limit_a}|{share.urgent}|{share.reason}"
    renew = memory.told_until is None or memory.told_until - now < lease * (1 - RENEW_SHARE)
    if told == memory.told and not renew:
        return memory
    wants.append(
        bus.Want(
            identity=place.station.identity,
            evse=place.evse.number,
            limit_a=None if place.dc else share.limit_a,
            limit_w=_watts(share, place.supply) if place.dc else None,
            reason=share.reason,
            at=now,
            until=now + lease,
            urgent=share.urgent,
        )
    )
    return replace(memory, told=told, told_until=now + lease)


def _watts(share: Share, supply: Supply) -> float:
    return share.limit_w if share.limit_w is not None else share.limit_a * power_weight(3, supply) * NOMINAL_V


def _record(
    place: Place, share: Share, memory: EvseMemory, now: datetime, records: list[AllocationRecord]
) -> EvseMemory:
    """One row each time the limit, its reason or its place changes: the trail behind “why 8 A?”."""
    recorded = f"{share.limit_a:.1f}|{share.reason}|{share.circuit}|{share.phase}"
    if recorded == memory.recorded:
        return memory
    records.append(
        AllocationRecord(
            evse=place.evse,
            at=now,
            limit_a=share.limit_a,
            limit_w=share.limit_w,
            reason=share.reason[:200],
            circuit=share.circuit[:100],
            phase=share.phase,
        )
    )
    return replace(memory, recorded=recorded)


def _set_batteries(view: View, allocation: Allocation) -> None:
    until = view.now + timedelta(seconds=BATTERY_LEASE_S)
    for device in view.devices_of(Device.Kind.BATTERY):
        power_w = allocation.battery_w.get(str(device.pk))
        if power_w is not None:
            setpoints.want(device.pk, power_w=power_w, until=until, now=view.now)


def move_along(command: GridCommand, view: View) -> None:
    """received → applied, once it narrowed a balance → measured, once the meter shows it → ended."""
    state = GridCommand.State
    changed: list[str] = []
    if not in_force(command, view.now):
        command.state, command.ended_at = state.ENDED, view.now
        changed = ["state", "ended_at"]
    elif command.state == state.RECEIVED:
        command.state, command.applied_at = state.APPLIED, view.now
        changed = ["state", "applied_at"]
    elif command.state == state.APPLIED and _is_kept(command, view):
        command.state, command.measured_at = state.MEASURED, view.now
        changed = ["state", "measured_at"]
    if changed:
        command.save(update_fields=changed)


def _is_kept(command: GridCommand, view: View) -> bool:
    """Does a fresh measurement of the grid connection, taken after the command was applied, obey it?"""
    reading = view.snapshot.readings.get(0)
    if reading is None or reading.power_w is None or reading.at is None:
        return False
    if command.applied_at is None or reading.at <= command.applied_at:
        return False
    import_ok = command.import_limit_w is None or reading.power_w <= command.import_limit_w + OVER_ALLOWED_W
    export_ok = command.export_limit_w is None or -reading.power_w <= command.export_limit_w + OVER_ALLOWED_W
    return import_ok and export_ok


def withdraw(devices: Iterable[Device]) -> None:
    """Let batteries go back to their own mode at once."""
    for device in devices:
        setpoints.withdraw(device.pk)

"""Who narrows the site now: fire contacts, the grid operator's commands, an operator's hand.

Each becomes a `Narrowing` of the engine, which puts them in order; none can widen what another has narrowed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime

from csms import bus
from meters.measurement import Measurement
from meters.models import Device, Site
from smartcharging.engine.limits import Rank
from smartcharging.engine.snapshot import Narrowing
from smartcharging.models import GridCommand


def alarms(
    devices: Iterable[Device], node_of_device: Mapping[int, int], fresh: Mapping[int, Measurement]
) -> list[Narrowing]:
    """A fire contact that is open, or that nobody has heard of for too long: nothing below it may charge."""
    narrowings = []
    for device in devices:
        if device.kind != Device.Kind.ALARM:
            continue
        found = fresh.get(device.pk)
        if found is None or found.state != "ok":
            words = device.name if found is not None else f"{device.name} is silent"
            narrowings.append(Narrowing(Rank.FIRE, words, node=node_of_device.get(device.pk, 0), limit_a=0.0))
    return narrowings


def commands(site: Site, now: datetime) -> tuple[GridCommand, ...]:
    """Those in force, and those that have run out and have not been ended yet."""
    return tuple(
        GridCommand.objects.filter(site=site, starts_at__lte=now)
        .exclude(state=GridCommand.State.ENDED)
        .order_by("starts_at", "pk")
    )


def in_force(command: GridCommand, now: datetime) -> bool:
    return command.starts_at <= now and (command.ends_at is None or command.ends_at > now)


def orders(received: Iterable[GridCommand], now: datetime) -> list[Narrowing]:
    return [
        Narrowing(
            Rank.GRID_OPERATOR,
            command.reason,
            node=0,
            limit_w=command.import_limit_w,
            export_limit_w=command.export_limit_w,
        )
        for command in received
        if in_force(command, now)
    ]


def hands(keys: Mapping[tuple[str, int], str], now: datetime) -> list[Narrowing]:
    """What operators have put on an EVSE by hand, each until its lease ends. `keys` by (identity, EVSE number)."""
    return [
        Narrowing(Rank.WISH, want.reason, session=keys[pair], limit_a=want.limit_a, limit_w=want.limit_w)
        for pair, wants in bus.hand_limits(keys).items()
        for want in wants
        if want.until > now
    ]

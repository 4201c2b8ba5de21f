"""A cycle of the live layer, from measurements to wants: what stations and batteries are told, and the trail of it."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest

from csms import bus
from csms.models import ChargingStation
from meters import setpoints
from meters.live import connection
from meters.models import Device
from smartcharging import dispatch
from smartcharging.engine.live.allocate import allocate
from smartcharging.engine.snapshot import Allocation, Share
from smartcharging.gather import View, look
from smartcharging.models import AllocationRecord, Feed, GridCommand, Plan
from tests.smartcharging.worlds import World

pytestmark = pytest.mark.django_db
NOW = datetime(2026, 3, 10, 9, 7, tzinfo=UTC)


@pytest.fixture
def world(db) -> World:
    world = World.campus(NOW)
    world.quiet_day()
    return world


def cycle(world: World) -> Allocation:
    view = look(world.site, world.now)
    allocation = allocate(view.snapshot)
    dispatch.apply(view, allocation)
    return allocation


def follow(world: World) -> None:
    """The stations accept what they are told, and the cars draw it."""
    for station in ChargingStation.objects.all():
        want = bus.get_want(station.identity, 1)
        if want is not None:
            amps = want.limit_a if want.limit_a is not None else want.limit_w / 690.0
            world.offer(station.identity, amps, ago_s=0)


def cycles(world: World, count: int, load_a: float) -> None:
    """So many cycles of 15 s; the meter shows the load and what the cars draw."""
    for _ in range(count):
        world.now += timedelta(seconds=15)
        world.quiet_day(load_a)
        cycle(world)
        follow(world)


def test_an_ac_station_is_told_amps_and_a_dc_station_watts(world):
    world.car("CS-1")
    world.car("HPC-1")

    cycle(world)

    ac, dc = bus.get_want("CS-1", 1), bus.get_want("HPC-1", 1)
    assert ac.limit_w is None
    assert ac.limit_a >= 6
    assert dc.limit_a is None
    assert dc.limit_w >= 4000


def test_a_want_is_a_lease(world, settings):
    settings.LIMIT_LEASE_S = 120
    world.car("CS-1")

    cycle(world)

    assert bus.get_want("CS-1", 1).until == NOW + timedelta(seconds=120)


def test_an_unchanged_want_is_renewed_in_time_and_not_before(world):
    world.car("CS-1", offered_a=32)
    heard = connection().pubsub(ignore_subscribe_messages=True)
    heard.subscribe(bus.WANT_CHANNEL)
    heard.get_message(timeout=1)

    def told() -> int:
        count = 0
        while heard.get_message(timeout=0.05):
            count += 1
        return count

    cycles(world, 4, 10)
    told()
    cycles(world, 2, 10)
    assert told() == 0
    cycles(world, 4, 10)
    assert told() > 0
    assert bus.get_want("CS-1", 1).until > world.now + timedelta(seconds=200)


def test_a_quiet_station_is_told_nothing(world):
    ChargingStation.objects.filter(identity="CS-1").update(quiet=True)
    world.car("CS-1")

    cycle(world)

    assert bus.get_want("CS-1", 1) is None
    assert bus.get_want("CS-2", 1) is not None


def test_a_quarantined_station_is_told_nothing(world):
    ChargingStation.objects.filter(identity="CS-1").update(admission="quarantined")

    cycle(world)

    assert bus.get_want("CS-1", 1) is None


def test_too_much_load_lowers_the_wants_at_once_and_urgently(world):
    for identity in ("CS-1", "CS-2"):
        world.car(identity, offered_a=30)
        world.draws(identity, (30.0, 30.0, 30.0))
    world.meter(60 + 55)  # 115 A on a connection of 100 A, 60 of them ours

    cycle(world)

    wants = [bus.get_want(i, 1) for i in ("CS-1", "CS-2")]
    assert sum(w.limit_a for w in wants) <= 45
    assert any(w.urgent for w in wants)
    assert "grid" in wants[0].reason


def test_a_silent_meter_leaves_the_cars_the_fallback_together(world):
    for identity in ("CS-1", "CS-2"):
        world.car(identity, offered_a=30)
    world.meter(60, ago_s=60)

    allocation = cycle(world)

    assert sum(bus.get_want(i, 1).limit_a for i in ("CS-1", "CS-2")) <= 30
    assert "meter stale" in allocation.node_reason[0]


def test_nothing_measured_at_all_is_safe(db):
    world = World.campus(NOW)
    for identity in ("CS-1", "CS-2", "HPC-1"):
        world.car(identity)

    allocation = cycle(world)

    told = sum(bus.get_want(i, 1).limit_a for i in ("CS-1", "CS-2")) + bus.get_want("HPC-1", 1).limit_w / 690
    assert told <= 30
    assert all(share.limit_a in (0,) or share.limit_a >= 6 for share in allocation.shares.values())


def test_fire_stops_everything_below_it(world):
    alarm = Device.objects.create(site=world.site, name="fire", kind="alarm")
    Feed.objects.create(circuit=world.node("row 1"), device=alarm)
    world.measure("fire", state="alarm")
    for identity in ("CS-1", "CS-2", "HPC-1"):
        world.car(identity, offered_a=16)

    cycle(world)

    for identity in ("CS-1", "CS-2"):
        want = bus.get_want(identity, 1)
        assert (want.limit_a, want.urgent) == (0, True)
        assert want.reason.startswith("fire")
    assert bus.get_want("HPC-1", 1).limit_w > 0


def test_what_an_unreachable_station_may_take_is_kept_for_it(world):
    world.car("CS-1", offered_a=32)
    world.disconnect("CS-1")
    world.car("CS-2")

    cycles(world, 4, 10)

    assert bus.get_want("CS-2", 1).limit_a <= 63 - 32


def test_a_battery_follows_the_plan_with_a_lease(world):
    Plan.objects.create(
        site=world.site,
        made_at=NOW,
        starts_at=NOW - timedelta(minutes=7),
        valid_until=NOW + timedelta(minutes=30),
        status="optimal",
        result={"battery_w": [8000] * 4, "peak_w": 40_000},
    )

    cycle(world)

    found = setpoints.current(world.device("store").pk)
    assert found.power_w > 0
    assert found.until == NOW + timedelta(seconds=dispatch.BATTERY_LEASE_S)


def test_the_trail_has_one_row_per_change(world):
    world.car("CS-1", offered_a=32)
    cycles(world, 6, 10)
    before = AllocationRecord.objects.filter(evse=world.evse("CS-1")).count()
    cycles(world, 3, 10)
    assert AllocationRecord.objects.filter(evse=world.evse("CS-1")).count() == before

    cycles(world, 1, 95)
    newest = AllocationRecord.objects.filter(evse=world.evse("CS-1")).first()
    assert newest.at == world.now
    assert newest.reason


def test_a_command_is_applied_then_measured_then_ended(world):
    command = GridCommand.objects.create(
        site=world.site,
        import_limit_w=5000,
        starts_at=NOW - timedelta(seconds=1),
        ends_at=NOW + timedelta(minutes=2),
        reason="congestion",
    )
    world.car("CS-1", offered_a=16)
    world.draws("CS-1", (16.0, 16.0, 16.0))
    world.meter(26)

    cycle(world)
    command.refresh_from_db()
    assert (command.state, command.applied_at) == ("applied", NOW)
    assert bus.get_want("CS-1", 1).limit_a == 0
    assert "congestion" in bus.get_want("CS-1", 1).reason

    follow(world)
    world.now += timedelta(seconds=5)
    world.draws("CS-1", (0.0, 0.0, 0.0))
    world.quiet_day(7)
    cycle(world)
    command.refresh_from_db()
    assert (command.state, command.measured_at) == ("measured", world.now)

    world.now = NOW + timedelta(minutes=3)
    world.quiet_day(7)
    cycle(world)
    command.refresh_from_db()
    assert (command.state, command.ended_at) == ("ended", world.now)


def test_a_command_that_is_not_kept_yet_is_not_measured(world):
    command = GridCommand.objects.create(
        site=world.site, import_limit_w=5000, starts_at=NOW - timedelta(seconds=1), reason="congestion"
    )
    cycle(world)
    world.now += timedelta(seconds=5)
    world.quiet_day(30)

    cycle(world)

    command.refresh_from_db()
    assert command.state == "applied"


def test_memory_that_cannot_be_read_is_forgotten(world, caplog):
    connection().hset(f"memory:{world.site.pk}", world.key("CS-1"), "{not json")

    cycle(world)

    assert "cannot be read" in caplog.text
    assert json.loads(connection().hget(f"memory:{world.site.pk}", world.key("CS-1")))


def test_urgent_wants_are_told_first(world, monkeypatch):
    told: list[bus.Want] = []
    monkeypatch.setattr(bus, "put_wants", told.extend)
    view: View = look(world.site, NOW)
    shares = {p.key: Share(p.key, 6.0, None, "x", urgent=i == 2) for i, p in enumerate(view.places)}

    dispatch.apply(view, Allocation(shares=shares))

    assert told[0].urgent

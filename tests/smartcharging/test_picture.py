"""The picture closes: grid = building + charging + loads + battery + PV; and what is unknown is None."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest

from meters.live import connection
from meters.models import Device
from smartcharging import picture
from smartcharging.engine.live.allocate import allocate
from smartcharging.gather import look
from smartcharging.models import Plan
from tests.smartcharging.worlds import World

pytestmark = pytest.mark.django_db
NOW = datetime(2026, 3, 10, 9, 7, tzinfo=UTC)


@pytest.fixture
def world(db) -> World:
    world = World.campus(NOW)
    world.quiet_day()
    return world


def paint(world: World, *, allocated: bool = True) -> dict:
    view = look(world.site, NOW)
    body = picture.picture(view, allocate(view.snapshot) if allocated else None)
    json.dumps(body)
    return body


def test_the_flows_close(world):
    world.measure("main", power_w=12_000.0, current_a=(17.0, 18.0, 17.0))
    world.measure("roof", power_w=-8000.0)
    world.measure("store", power_w=3000.0, soc=0.4)
    world.car("CS-1", offered_a=16)
    world.draws("CS-1", (16.0, 16.0, 16.0))

    flows = paint(world)["flows"]

    assert flows["charging_w"] == 11_040
    assert flows["building_w"] == 12_000 + 8000 - 3000 - 11_040
    assert flows["battery_soc"] == 0.4
    assert flows["grid_w"] == flows["building_w"] + flows["charging_w"] + flows["battery_w"] + flows["pv_w"]


@pytest.mark.parametrize("silent", ["main", "roof", "store"])
def test_what_is_reckoned_from_a_silent_meter_is_unknown(world, silent):
    world.measure(silent, ago_s=60, power_w=1.0)

    flows = paint(world)["flows"]

    assert flows["building_w"] is None
    assert flows[{"main": "grid_w", "roof": "pv_w", "store": "battery_w"}[silent]] is None


def test_a_car_that_is_not_heard_of_makes_charging_unknown(world):
    world.car("CS-1", offered_a=16)

    flows = paint(world)["flows"]

    assert flows["charging_w"] is None
    assert flows["building_w"] is None
    assert flows["grid_w"] == 6900


def test_a_kind_the_site_does_not_have_is_left_out_of_the_sum(world):
    Device.objects.filter(name__in=["roof", "store"]).delete()

    flows = paint(world)["flows"]

    assert (flows["pv_w"], flows["battery_w"], flows["battery_soc"]) == (None, None, None)
    assert flows["building_w"] == 6900


def test_circuits_show_load_headroom_and_whether_they_are_heard_of(world):
    world.car("CS-1", offered_a=16)
    world.draws("CS-1", (16.0, 15.0, 14.0))
    world.meter((26.0, 25.0, 24.0))

    grid, row = paint(world)["circuits"]

    assert (grid["name"], grid["parent"], grid["load_a"], grid["stale"]) == ("grid", None, [26, 25, 24], False)
    assert (row["name"], row["parent"], row["metered"]) == ("row 1", "grid", False)
    assert row["load_a"] == [16, 15, 14]
    assert row["limit_a"] == [63, 63, 63]
    assert all(0 < h <= 63 for h in row["headroom_a"])


def test_a_circuit_whose_meter_is_silent_says_so(world):
    world.meter(26, ago_s=60)

    grid, _ = paint(world)["circuits"]

    assert grid["stale"]
    assert grid["load_a"] is None
    assert "meter stale" in grid["reason"]


def test_an_evse_shows_wanted_accepted_and_measured(world):
    charge = world.car("CS-1", offered_a=16)
    world.draws("CS-1", (16.0, 15.5, 15.0))

    evse = next(e for e in paint(world)["evses"] if e["station"] == "CS-1")

    assert evse["connected"] is True
    assert evse["transaction"] == charge.pk
    assert evse["current_a"] == [16, 15.5, 15]
    assert evse["limit"]["accepted_a"] == 16
    assert evse["limit"]["measured_a"] == 16
    assert evse["limit"]["wanted_a"] >= 6
    assert evse["limit"]["reason"]
    assert evse["circuit"] == "row 1"


def test_the_plan_in_force_is_named(world):
    assert paint(world)["plan"] is None
    plan = Plan.objects.create(
        site=world.site,
        made_at=NOW,
        starts_at=NOW - timedelta(minutes=7),
        valid_until=NOW + timedelta(minutes=30),
        status="optimal",
    )

    assert paint(world)["plan"]["id"] == plan.pk


def test_without_an_allocation_there_is_a_picture_too(world):
    body = paint(world, allocated=False)

    assert body["flows"]["grid_w"] == 6900
    assert body["circuits"][0]["headroom_a"] == [90, 90, 90]


def test_the_picture_is_kept_and_pushed(world):
    heard = connection().pubsub(ignore_subscribe_messages=True)
    heard.subscribe(f"push:{world.site.pk}")
    heard.get_message(timeout=1)

    picture.store(world.site.pk, paint(world))

    pushed = heard.get_message(timeout=2)["data"]
    assert pushed == connection().get(f"now:{world.site.pk}")
    assert json.loads(pushed)["name"] == "Campus"

"""A street without a neutral, from its site file to what its stations are told: 3×230 V, cars between two lines."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest

from csms import bus
from csms.models import EVSE, ChargingStation, IdToken
from meters.live import connection
from meters.models import Device, Site
from smartcharging import dispatch
from smartcharging.engine.grid import Supply
from smartcharging.engine.live.allocate import allocate
from smartcharging.engine.snapshot import Allocation
from smartcharging.explanations import Around
from smartcharging.gather import look, snapshot
from smartcharging.horizon import problem
from smartcharging.load import load
from smartcharging.models import Vehicle
from smartcharging.picture import picture, store
from smartcharging.planning import make_plan
from smartcharging.remember import keep
from smartcharging.sitefile import SiteFileError, parse
from tests.smartcharging.worlds import CAMPUS, World

pytestmark = pytest.mark.django_db
NOW = datetime(2026, 3, 10, 9, 7, tzinfo=UTC)
ROOT3 = 3**0.5

STREET = CAMPUS.replace('name = "Campus"\n', 'name = "Campus"\nsupply = "it"\n').replace(
    'identity = "CS-1"\ncircuit = "row 1"\n', 'identity = "CS-1"\ncircuit = "row 1"\nwiring = ["L1", "L2"]\n'
)
"""CS-1 hangs between L1 and L2; CS-2 on all three, its own first on L2; HPC-1 is DC."""


@pytest.fixture
def world(db) -> World:
    world = World.campus(NOW, STREET)
    world.quiet_day()
    return world


def session(world: World, identity: str):
    return next(s for s in snapshot(world.site, world.now).sessions if s.key == world.key(identity))


def cycle(world: World) -> Allocation:
    view = look(world.site, world.now)
    allocation = allocate(view.snapshot)
    dispatch.apply(view, allocation)
    return allocation


def learnt(world: World, identity: str, current_a: tuple[float, float, float]):
    """Three measurements of a steady car."""
    for step in range(3):
        world.now = NOW + timedelta(seconds=10 * step)
        world.quiet_day()
        world.draws(identity, current_a)
        keep(world.site.pk, look(world.site, world.now).memories)
    return session(world, identity)


def only_car(world: World, phases: int) -> None:
    card = IdToken.objects.create(site=world.site, value="A")
    Vehicle.objects.create(site=world.site, name="small", id_token=card, phases=phases, max_a=16)
    world.car("CS-2", id_token=card)


# --- how it is said -----------------------------------------------------------------------------------------------


def test_the_file_says_how_a_site_is_supplied():
    assert parse(CAMPUS).grid.supply is Supply.TN
    assert parse(STREET).grid.supply is Supply.IT


def test_a_wrong_word_for_it_is_refused_with_those_that_are_known():
    with pytest.raises(SiteFileError, match=r"\[site\], supply: '3x230' is none of tn, it"):
        parse(STREET.replace('"it"', '"3x230"'))


@pytest.mark.parametrize("entry", ['identity = "CS-1"', 'name = "store"'])
def test_one_line_alone_is_no_wiring_there(entry):
    text = STREET.replace('wiring = ["L1", "L2"]\n', "").replace(entry, f'{entry}\nwiring = ["L2"]')

    with pytest.raises(SiteFileError, match="wiring: names L2 alone, and this site has no neutral; name the two lines"):
        parse(text)
    assert parse(text.replace('supply = "it"\n', "")).grid.supply is Supply.TN


def test_the_amps_of_a_dc_station_follow_from_its_watts(world):
    assert parse(STREET).stations[2].max_a == round(50_000 / 230 / ROOT3, 1)


def test_a_site_that_turns_out_to_have_no_neutral_tells_its_stations_anew(db):
    with_neutral = CAMPUS.replace('circuit = "row 1"\n', 'circuit = "row 1"\nmax_a = 16\n').replace(
        "max_w = 50000", "max_w = 50000\nmax_a = 60"
    )
    assert load(parse(with_neutral)).site.supply == Site.Supply.TN

    done = load(parse(with_neutral.replace('name = "Campus"\n', 'name = "Campus"\nsupply = "it"\n')))

    assert done.site.supply == Site.Supply.IT
    assert done.stations == set(ChargingStation.objects.values_list("pk", flat=True))


# --- what a car loads ---------------------------------------------------------------------------------------------


def test_a_station_between_two_lines_loads_both(world):
    assert snapshot(world.site, NOW).grid.supply is Supply.IT
    assert session(world, "CS-1").phases == (True, True, False)


def test_a_single_phase_car_hangs_between_the_first_two_of_its_station(world):
    only_car(world, 1)

    assert session(world, "CS-2").phases == (False, True, True)


def test_a_car_of_two_phases_is_none_there_and_counts_on_all_lines(world):
    only_car(world, 2)

    assert session(world, "CS-2").phases == (True, True, True)


def test_a_car_that_shows_on_two_lines_is_counted_on_them(world):
    world.car("CS-2", offered_a=16)

    assert learnt(world, "CS-2", (0.0, 15.0, 15.0)).phases == (False, True, True)


def test_a_car_that_shows_on_one_line_only_is_counted_on_all(world):
    world.car("CS-2", offered_a=16)

    assert learnt(world, "CS-2", (0.0, 15.0, 0.0)).phases == (True, True, True)


def test_a_wiring_of_one_line_from_before_counts_on_all(world):
    ChargingStation.objects.filter(identity="CS-1").update(wiring=["L2"])

    assert session(world, "CS-1").phases == (True, True, True)


def test_nothing_is_learnt_from_a_meter_above(world):
    """What a line shows there is no sum of amps."""
    world.car("CS-2", offered_a=6)
    for amps in (6.0,) * 7 + (16.0, 8.0, 16.0, 8.0):
        world.now += timedelta(seconds=20)
        world.quiet_day(0)
        world.offer("CS-2", amps, ago_s=20)
        world.meter((30.0, 30.0 + amps, 30.0 + amps))
        seen = look(world.site, world.now)
        keep(world.site.pk, seen.memories)

    assert next(s for s in seen.snapshot.sessions if s.key == world.key("CS-2")).phases == (True, True, True)


# --- what its stations are told -----------------------------------------------------------------------------------


def test_cars_between_different_lines_share_the_one_in_common(world):
    world.node("row 1").__class__.objects.filter(name="row 1").update(limit_a=[24.0, 24.0, 24.0])
    ChargingStation.objects.update(fail_safe_a=0)
    world.car("CS-1")
    only_car(world, 1)

    answer = cycle(world)

    one, other = (bus.get_want(identity, 1).limit_a for identity in ("CS-1", "CS-2"))
    assert one >= 6
    assert other >= 6
    assert one + other <= 24
    row = answer.at("row 1")
    assert row.current_a == pytest.approx((one, one + other, other))


def test_a_limit_in_watts_is_that_of_a_car_between_two_lines(world):
    """10 A at 230 V are 2300 W, where three lines would carry 3984."""
    world.node("row 1").__class__.objects.filter(name="row 1").update(limit_w=2300.0)
    ChargingStation.objects.update(fail_safe_a=0)
    world.car("CS-1")

    cycle(world)

    assert bus.get_want("CS-1", 1).limit_a == 10


def test_a_dc_station_is_told_the_watts_of_its_amps(world):
    world.car("HPC-1", offered_a=10)
    world.offer("HPC-1", 10 / ROOT3)  # its 3984 W, which the world writes down as those of a neutral

    assert session(world, "HPC-1").offered_a == pytest.approx(10)
    share = cycle(world).shares[world.key("HPC-1")]
    assert bus.get_want("HPC-1", 1).limit_w == pytest.approx(share.limit_a * 230 * ROOT3, abs=1)


def test_the_plan_gives_a_car_what_two_lines_carry(world):
    world.car("CS-1")
    only_car(world, 1)

    cars = {s.key: s for s in problem(world.site, NOW).sessions}

    part = cars[world.key("CS-1")].max_w / (32 * 230)  # a car takes a little less than it is offered
    assert 0.9 < part <= 1
    assert cars[world.key("CS-2")].max_w == pytest.approx(part * 16 * 230)
    assert cars[world.key("CS-2")].min_w == pytest.approx(6 * 230)
    assert cars[world.key("CS-2")].phases == (False, True, True)

    made = make_plan(world.site, "test", NOW)

    assert max(made.result["evse"][world.key("CS-2")]) <= 16 * 230 + 1
    followed = session(world, "CS-2")
    assert followed.planned_w == made.result["evse"][world.key("CS-2")][0]


def test_what_people_see_of_such_a_car_is_one_phase_and_its_watts(world):
    world.car("CS-1")
    view = look(world.site, NOW)
    seen = picture(view, allocate(view.snapshot))
    place = next(e for e in seen["evses"] if e["station"] == "CS-1")

    assert (place["phases"], place["max_w"]) == (1, 32 * 230)

    store(world.site.pk, seen)
    told = json.loads(connection().get(f"now:{world.site.pk}"))
    evse = EVSE.objects.select_related("station").get(station__identity="CS-1")
    facts = Around.of(world.site, NOW, told).facts(evse, None)
    assert facts.watts(10) == 2300
    assert facts.room_w == pytest.approx(230 * min(min(c["headroom_a"]) for c in seen["circuits"]))


# --- its meter ----------------------------------------------------------------------------------------------------


def test_a_line_that_the_meter_does_not_tell_carries_what_the_others_do(world):
    world.measure("main", current_a=(20.0, None, 15.0), power_w=7000.0)

    assert snapshot(world.site, NOW).readings[0].current_a == (20, 35, 15)


def test_a_digital_meter_without_a_current_of_l2_is_not_believed_about_it(world):
    Device.objects.filter(name="main").update(map="", connect="p1:///dev/ttyUSB0")
    world.measure("main", current_a=(60.0, 0.0, 45.0), power_w=20_000.0)
    world.car("CS-2")
    ChargingStation.objects.update(fail_safe_a=0)

    answer = cycle(world)

    assert snapshot(world.site, NOW).readings[0].current_a == (60, 105, 45)
    assert answer.shares[world.key("CS-2")].limit_a == 0


def test_of_one_line_alone_nothing_follows_and_the_fallback_counts(world):
    world.measure("main", current_a=(20.0, None, None), power_w=7000.0)

    seen = snapshot(world.site, NOW)

    assert seen.readings[0].current_a is None
    assert allocate(seen).node_reason[0] == "meter stale: grid"


def test_power_by_line_is_never_made_into_a_current(world):
    world.measure("main", power_phase_w=(2300.0, 2300.0, 2300.0), power_w=6900.0)

    assert snapshot(world.site, NOW).readings[0].current_a is None


def test_sun_between_two_lines_feeds_in_by_both(world):
    Device.objects.filter(name="roof").update(wiring=["L1", "L3"])
    world.measure("roof", power_w=-4600.0)

    assert snapshot(world.site, NOW).pv_a[0] == pytest.approx((-20, 0, -20))


def test_a_load_whose_current_is_not_told_is_spread_over_its_lines(world):
    Device.objects.create(site=world.site, name="boiler", kind="load", wiring=["L1", "L3"])
    Device.objects.create(site=world.site, name="pump", kind="load")
    for name in ("boiler", "pump"):
        world.node("row 1").feeds.create(device=world.device(name))
    world.measure("boiler", power_w=2300.0)
    world.measure("pump", power_w=2300.0 * ROOT3)

    assert snapshot(world.site, NOW).background_a[1] == pytest.approx((20, 10, 20))


def test_a_battery_between_two_lines_is_counted_on_them(world):
    Device.objects.filter(name="store").update(wiring=["L2", "L3"])

    assert snapshot(world.site, NOW).batteries[0].phases == (False, True, True)

"""Controllable loads of a real site: what the file says of them, what is planned, what they are told."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from meters import setpoints
from meters.models import Device, QuarterHour
from smartcharging import dispatch, load_needs
from smartcharging.engine.live.allocate import allocate
from smartcharging.engine.loads.kinds import ShiftableBlock, Switchable, ThermalStore
from smartcharging.gather import look
from smartcharging.horizon import day
from smartcharging.models import GridCommand, Plan, Tariff
from smartcharging.planning import make_plan
from smartcharging.sitefile import SiteFileError, parse
from tests.smartcharging.worlds import CAMPUS, World

NOW = datetime(2026, 3, 10, 9, 7, tzinfo=UTC)
SLOT = timedelta(minutes=15)
BOILER = """
[[device]]
name = "boiler"
kind = "load"
circuit = "row 1"
map = "mypv_elwa_2"
connect = "tcp://127.0.0.1:1503"
load = "thermal"
max_w = 3500
capacity_wh_per_k = 350
min_c = 50
max_c = 75
loss_w_per_k = 2
wiring = ["L1"]
"""
PUMP = """
[[device]]
name = "pump"
kind = "load"
circuit = "row 1"
map = "moxa_e1214"
connect = "tcp://127.0.0.1:1504"
output = 2
load = "switchable"
power_w = 2000
longest_off_min = 60
rest_min = 30
"""
WASHING = """
[[device]]
name = "washing"
kind = "load"
circuit = "grid"
map = "moxa_e1214"
connect = "tcp://127.0.0.1:1505"
load = "block"
power_w = 6000
minutes = 90
earliest = "12:00"
latest = "16:00"
"""


@pytest.fixture
def world(db) -> World:
    world = World.campus(NOW, CAMPUS + BOILER + PUMP + WASHING)
    world.quiet_day()
    world.measure("boiler", power_w=0.0, temperature_c=60.0)
    world.measure("pump", power_w=2000.0, state="on")
    world.measure("washing", power_w=0.0, state="off")
    return world


def cycle(world: World) -> None:
    view = look(world.site, world.now)
    dispatch.apply(view, allocate(view.snapshot))


def told(world: World, name: str) -> setpoints.Setpoint | None:
    return setpoints.current(world.device(name).pk)


def planned(world: World, **watts: float) -> Plan:
    """A plan that gives each load this power for the whole day."""
    return Plan.objects.create(
        site=world.site,
        made_at=world.now,
        starts_at=world.now.replace(minute=0),
        valid_until=world.now + timedelta(hours=1),
        slot_s=900,
        status="optimal",
        result={"peak_w": 100_000, "load_w": {str(world.device(name).pk): [w] * 96 for name, w in watts.items()}},
    )


def ran(world: World, name: str, *, since: timedelta, until: timedelta, power_w: float) -> None:
    device, start = world.device(name), NOW.replace(minute=0)
    at = start + since
    while at < start + until:
        QuarterHour.objects.create(device=device, slot=at, mean_w=power_w)
        at += SLOT


# The file


def test_a_load_of_the_file_knows_what_it_is(world):
    options = world.device("washing").options

    assert options == {
        "load": "block", "power_w": 6000, "minutes": 90, "earliest": "12:00", "latest": "16:00", "fail_safe": "off",
    }  # fmt: skip
    assert world.device("pump").options["output"] == 2


@pytest.mark.parametrize(
    ("text", "without", "instead", "said"),
    [
        (BOILER, "max_w = 3500", "", "max_w: is missing"),
        (BOILER, "min_c = 50", "min_c = 80", "min_c: is not below max_c"),
        (BOILER, "min_c = 50", 'min_c = "warm"', "min_c: 'warm' is not a number"),
        (BOILER, "min_c = 50", "min_c = 50\nminutes = 5", "minutes: does not belong to a load of kind 'thermal'"),
        (BOILER, 'load = "thermal"', 'load = "termal"', "load: 'termal' is none of thermal, switchable, block"),
        (BOILER, "min_c = 50", "min_c = 50\nmin_cc = 50", "min_cc: is not a field of this section"),
        (PUMP, "longest_off_min = 60", "longest_off_min = 5", "longest_off_min: 5 is outside its range"),
        (WASHING, 'earliest = "12:00"', "", "earliest: is missing"),
        (WASHING, 'latest = "16:00"', 'latest = "13:00"', "minutes: 90 do not fit between earliest and latest"),
        (WASHING, 'latest = "16:00"', 'latest = "late"', "latest: 'late' is no time of day"),
        (BOILER, "min_c = 50", "min_c = 50\noutside = true\nsurroundings_c = 15", "surroundings_c: and outside"),
    ],
)
def test_a_bad_load_is_refused_by_its_field(text, without, instead, said):
    with pytest.raises(SiteFileError) as error:
        parse(CAMPUS + text.replace(without, instead))

    assert said in str(error.value).replace('"', "'")


def test_a_window_over_midnight_is_as_long_as_it_is():
    night = WASHING.replace('"12:00"', '"22:00"').replace('"16:00"', '"06:00"')

    assert load_needs.window_min(parse(CAMPUS + night).devices[-1].options) == 480


# The problem


def test_every_load_is_in_the_problem_with_its_place_and_its_phases(world):
    boiler, pump, washing = day(world.site, NOW).problem.loads

    assert isinstance(boiler, ThermalStore)
    assert (boiler.now_c, boiler.on_off, boiler.phases) == (60.0, False, (True, False, False))
    assert isinstance(pump, Switchable)
    assert (pump.longest_off_h, pump.rest_h) == (1.0, 0.5)
    assert isinstance(washing, ShiftableBlock)
    # 12:00 and 16:00 in Brussels are 11:00 and 15:00 UTC; the plan begins at 9:00.
    assert (washing.first_slot, washing.last_slot) == (8, 24)
    assert world.site.circuits.get(name="row 1").pk == look(world.site, NOW).snapshot.grid.circuits[boiler.node].key


def test_a_store_of_unknown_temperature_is_left_to_itself_and_what_it_usually_takes_is_expected(world):
    world.measure("boiler", power_w=1000.0)
    ran(world, "boiler", since=-timedelta(days=1), until=-timedelta(hours=20), power_w=800.0)

    today = day(world.site, NOW)

    assert [load.name for load in today.problem.loads] == ["pump", "washing"]
    assert today.loads.notes == ("load boiler: its temperature is not known; it is left to itself",)
    assert list(today.loads.others_w[:16]) == [800.0] * 16
    assert list(today.loads.others_w[16:]) == [1000.0] * 80
    assert today.problem.building_w == pytest.approx(today.loads.others_w + (10 * 690 - 3000))


def test_a_load_that_says_nothing_of_its_power_is_left_to_itself(world):
    world.measure("pump", state="on")

    today = day(world.site, NOW)

    assert "load pump: its power is not known; it is left to itself" in today.loads.notes
    assert list(today.loads.others_w) == [2000.0] * 96


@pytest.mark.parametrize("broken", [{"min_c": None}, {"min_c": "50"}, {"capacity_wh_per_k": True}])
def test_options_that_somebody_broke_by_hand_leave_the_load_to_itself(world, broken):
    boiler = world.device("boiler")
    Device.objects.filter(pk=boiler.pk).update(options=boiler.options | broken)

    today = day(world.site, NOW)

    (name,) = broken
    assert today.loads.notes[0].startswith(f"load boiler: {name} is")


def test_what_a_pump_did_in_the_last_day_counts(world):
    ran(world, "pump", since=-timedelta(hours=3), until=-timedelta(hours=2), power_w=2000.0)
    ran(world, "pump", since=-timedelta(hours=2), until=timedelta(0), power_w=0.0)

    (pump,) = [load for load in day(world.site, NOW).problem.loads if isinstance(load, Switchable)]

    assert pump.before == (False,) * 88 + (True,) * 8


def washing_at(world: World, now: datetime) -> ShiftableBlock | None:
    world.now = now
    world.quiet_day()
    loads = day(world.site, now).problem.loads
    return next((load for load in loads if isinstance(load, ShiftableBlock)), None)


def test_a_washing_that_is_done_waits_for_the_next_day(world):
    ran(world, "washing", since=timedelta(hours=2), until=timedelta(hours=3.5), power_w=6000.0)
    world.now = NOW + timedelta(hours=5)
    world.measure("washing", power_w=0.0, state="off")

    washing = washing_at(world, world.now)

    assert washing is None  # tomorrow's window ends beyond the horizon of a day

    world.now = NOW + timedelta(hours=8)
    world.measure("washing", power_w=0.0, state="off")
    tomorrow = washing_at(world, world.now)
    assert tomorrow is not None
    assert (tomorrow.first_slot, tomorrow.last_slot) == (72, 88)


def test_a_washing_that_runs_goes_on(world):
    ran(world, "washing", since=timedelta(hours=2.5), until=timedelta(hours=3), power_w=6000.0)
    world.now = NOW + timedelta(hours=3)
    world.measure("washing", power_w=6000.0, state="on")

    washing = washing_at(world, world.now)

    assert washing is not None
    assert washing.running_h == 0.5


# The plan


def test_the_plan_of_a_site_keeps_what_its_loads_take(world):
    # Many whole numbers are searched for seconds: here the pump is away, and the washing has one start.
    Device.objects.filter(name="pump").update(enabled=False)
    washing = world.device("washing")
    Device.objects.filter(pk=washing.pk).update(options={**washing.options, "latest": "13:30"})

    plan = make_plan(world.site, "test", NOW)

    powers = {name: np.array(plan.result["load_w"][str(world.device(name).pk)]) for name in ("boiler", "washing")}
    assert powers["washing"].sum() == 6 * 6000
    assert len(plan.result["temperature_c"][str(world.device("boiler").pk)]) == 96
    assert min(plan.result["temperature_c"][str(world.device("boiler").pk)]) >= 50
    assert plan.result["load_short"] == []
    grid = np.array(plan.result["grid_w"]) - np.array(plan.result["battery_w"]) - np.array(plan.result["building_w"])
    assert np.abs(grid - sum(powers.values())).max() <= 4  # rounded to the watt


# What they are told


@pytest.mark.parametrize(("watts", "on"), [(2000, True), (0, False)])
def test_a_switched_load_follows_the_plan_on_a_lease(world, watts, on):
    planned(world, pump=watts)

    cycle(world)

    found = told(world, "pump")
    assert found is not None
    assert (found.on, found.power_w, found.until) == (on, None, NOW + timedelta(seconds=60))


def test_a_heater_is_told_its_power(world):
    planned(world, boiler=1234)

    cycle(world)

    assert told(world, "boiler").power_w == 1234


def test_without_a_plan_a_load_is_told_nothing(world):
    plan = planned(world, pump=0, boiler=3000)
    Plan.objects.filter(pk=plan.pk).update(valid_until=NOW - timedelta(seconds=1))

    cycle(world)

    assert told(world, "pump") is None
    assert told(world, "boiler") is None


def test_a_load_that_the_plan_does_not_know_is_left_alone(world):
    planned(world, pump=0)

    cycle(world)

    assert told(world, "boiler") is None


def test_fire_and_an_order_of_nothing_switch_loads_off_plan_or_no_plan(world):
    GridCommand.objects.create(site=world.site, import_limit_w=0, starts_at=NOW, reason="§14a")

    cycle(world)

    assert told(world, "boiler").power_w == 0
    assert told(world, "pump").on is False
    assert told(world, "washing").on is False


def test_a_relay_is_not_moved_again_within_minutes(world):
    planned(world, pump=0)
    cycle(world)
    world.now += timedelta(minutes=2)
    world.quiet_day()
    planned(world, pump=2000)

    cycle(world)
    assert told(world, "pump").on is False

    world.now += timedelta(minutes=9)
    world.quiet_day()
    cycle(world)
    assert told(world, "pump").on is True


def test_loads_below_a_circuit_that_stays_too_full_are_shed_but_a_washing_goes_on(world):
    planned(world, pump=2000, boiler=3000, washing=6000)
    world.meter(120)
    cycle(world)
    assert told(world, "pump").on is True  # cars get their seconds to come down

    world.now += timedelta(seconds=12)
    world.meter(120)
    cycle(world)

    assert told(world, "pump").on is False
    assert told(world, "boiler").power_w == 0
    assert told(world, "washing").on is True


def test_a_month_peak_sheds_nothing(world):
    """It is money, and the plan has weighed it."""
    plan = planned(world, pump=2000, boiler=3000)
    Plan.objects.filter(pk=plan.pk).update(result={**plan.result, "peak_w": 1000})
    Tariff.objects.update_or_create(site=world.site, defaults={"peak_eur_per_kw_month": 4.0})
    for _ in range(3):
        world.quiet_day(40)
        cycle(world)
        world.now += timedelta(seconds=12)

    assert told(world, "pump").on is True
    assert told(world, "boiler").power_w == 3000

    for _ in range(2):
        world.meter(120)  # above the fuses as well
        cycle(world)
        world.now += timedelta(seconds=12)
    assert told(world, "boiler").power_w == 0


def test_what_was_shed_comes_back_after_a_while(world):
    planned(world, boiler=3000)
    for _ in range(2):
        world.meter(120)
        cycle(world)
        world.now += timedelta(seconds=12)
    world.quiet_day()
    cycle(world)
    assert told(world, "boiler").power_w == 0

    world.now += timedelta(minutes=5)
    world.quiet_day()
    cycle(world)
    assert told(world, "boiler").power_w == 3000


def test_loads_give_way_before_a_car_is_paused(world):
    """Of a row of 63 A the loads take 54 and a free place may take 6: nothing is overloaded, and no car gets its 6."""
    world.car("CS-1", offered_a=0)
    planned(world, pump=2000, boiler=3000)
    for _ in range(3):
        world.measure("pump", power_w=27 * 690.0, current_a=(27.0, 27.0, 27.0), state="on")
        world.measure("boiler", power_w=27 * 690.0, current_a=(27.0, 27.0, 27.0), temperature_c=60.0)
        world.quiet_day(70)
        cycle(world)
        world.now += timedelta(seconds=12)

    assert told(world, "pump").on is False
    assert told(world, "boiler").power_w == 0

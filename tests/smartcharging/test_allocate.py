"""The live layer, sentence by sentence: sharing, the plan, surplus, shared stations. Invariants for any world are in
`test_allocate_invariants.py`, meters, stations and orders beside it."""

from __future__ import annotations

import pytest

from smartcharging.engine.live.allocate import allocate
from smartcharging.engine.snapshot import Mode
from tests import worlds
from tests.worlds import L1, L2, L3, ago, ahead


def test_a_full_row_does_not_slow_its_neighbour():
    world = worlds.two_rows(main_limit_a=100, row_limit_a=63)

    share = allocate(world.with_sessions(row_1=5, row_2=2, each_max_a=16))

    assert share.at("row_1").current_a == (63, 63, 63)
    assert share.at("row_2").current_a == (32, 32, 32)
    assert share.shares["row 1/0"].reason == "limit:row 1:L1"
    assert share.shares["row 2/0"].reason == "station maximum"


def test_an_empty_site_has_an_answer():
    answer = allocate(worlds.two_rows())

    assert answer.shares == {}
    assert answer.at("row 1").headroom_a == (63, 63, 63)
    assert answer.at("grid").reason == ""


def test_the_main_limit_is_shared_over_both_rows_evenly():
    answer = allocate(worlds.two_rows(main_limit_a=60).with_sessions(row_1=3, row_2=3))

    assert {s.limit_a for s in answer.shares.values()} == {10.0}
    assert answer.at("grid").reason == "limit:grid:L1"


def test_two_single_phase_cars_on_different_phases_do_not_add_up():
    world = worlds.one_board(16).with_car("a", "grid", phases=L1).with_car("b", "grid", phases=L3)

    answer = allocate(world)

    assert [answer.shares[k].limit_a for k in "ab"] == [16, 16]


def test_load_on_l3_does_not_stop_a_car_on_l1():
    world = worlds.one_board(32, metered=True).with_meter("grid", (0.0, 0.0, 40.0))
    world = world.with_car("mine", "grid", phases=L1).with_car("theirs", "grid", phases=L3)

    answer = allocate(world)

    assert answer.shares["mine"].limit_a == 32
    assert answer.shares["theirs"].limit_a == 0
    assert answer.shares["theirs"].reason == "paused: minimum current does not fit at grid L3"


def test_limits_may_differ_per_phase():
    answer = allocate(worlds.mixed_phases((40.0, 63.0, 50.0)))

    assert worlds.sum_at(worlds.mixed_phases(), answer, "grid") == pytest.approx((40, 63, 50), abs=0.8)


def test_three_cars_share_what_is_left_instead_of_the_last_one_being_blocked():
    world = worlds.one_board(35).with_sessions(grid=4)

    answer = allocate(world)

    assert sorted(s.limit_a for s in answer.shares.values()) == [8.7, 8.7, 8.7, 8.7]


def test_whole_ampere_chargers_share_what_rounding_left():
    world = worlds.one_board(35).with_sessions(grid=4).with_all(step_a=1.0)

    answer = allocate(world)

    assert sorted(s.limit_a for s in answer.shares.values()) == [8, 9, 9, 9]


def test_below_the_minimum_there_is_only_zero():
    answer = allocate(worlds.one_board(20).with_sessions(grid=5).with_all(fail_safe_a=0.0))

    assert sorted(s.limit_a for s in answer.shares.values()) == [0, 0, 6.6, 6.6, 6.6]
    paused = [s.reason for s in answer.shares.values() if s.limit_a == 0]
    assert set(paused) == {"paused: minimum current does not fit at grid L1"}


def test_a_car_may_have_a_higher_minimum_of_its_own():
    world = worlds.one_board(14).with_car("zoe", "grid", min_a=9.0).with_car("other", "grid", fail_safe_a=0.0)

    answer = allocate(world.with_changed("zoe", priority=2))

    assert answer.shares["zoe"].limit_a == 14
    assert answer.shares["other"].limit_a == 0


def test_the_better_place_goes_first_when_not_all_minimums_fit():
    world = worlds.one_board(6).with_car("a", "grid").with_car("b", "grid", priority=3, fail_safe_a=0.0)

    answer = allocate(world.with_all(fail_safe_a=0.0))

    assert (answer.shares["a"].limit_a, answer.shares["b"].limit_a) == (0, 6)


def test_a_higher_class_rises_faster_above_the_minimum():
    world = worlds.one_board(36).with_car("a", "grid", priority=1).with_car("b", "grid", priority=2)

    answer = allocate(world)

    assert (answer.shares["a"].limit_a, answer.shares["b"].limit_a) == (14, 22)


def test_who_must_leave_soon_goes_before_who_came_earlier():
    world = worlds.one_board(6).with_all(fail_safe_a=0.0)
    world = world.with_car("early", "grid", arrived_at=ago(9000))
    world = world.with_car("late", "grid", arrived_at=ago(60), departure=ahead(3600), energy_needed_wh=21_000)

    answer = allocate(world.with_all(fail_safe_a=0.0))

    assert (answer.shares["early"].limit_a, answer.shares["late"].limit_a) == (0, 6)


# --- the plan ---------------------------------------------------------------------------------------------------------


def test_a_car_follows_its_plan():
    world = worlds.one_board(100).with_car("a", "grid", planned_w=6900.0).but(plan_valid=True)

    share = allocate(world).shares["a"]

    assert (share.limit_a, share.reason) == (10, "plan")


def test_the_plan_says_not_now():
    world = worlds.one_board(100).with_car("a", "grid", planned_w=0.0).but(plan_valid=True)

    share = allocate(world).shares["a"]

    assert (share.limit_a, share.reason) == (0, "plan")


@pytest.mark.parametrize(("planned_w", "amps"), [(100.0, 0), (2000.0, 0), (2100.0, 6), (4000.0, 6), (4140.0, 6)])
def test_a_plan_below_the_minimum_is_rounded_to_what_a_car_can_take(planned_w, amps):
    world = worlds.one_board(100).with_car("a", "grid", planned_w=planned_w).but(plan_valid=True)

    assert allocate(world).shares["a"].limit_a == amps


def test_a_plan_that_is_no_longer_valid_binds_nobody():
    world = worlds.one_board(100).with_car("a", "grid", planned_w=6900.0)

    assert allocate(world).shares["a"].limit_a == 32


def test_the_plan_comes_before_the_hasty():
    world = worlds.one_board(26).but(plan_valid=True)
    world = world.with_car("planned", "grid", planned_w=13_800.0).with_car("fast", "grid", mode=Mode.FAST)

    answer = allocate(world)

    assert answer.shares["planned"].limit_a == 20
    assert answer.shares["fast"].limit_a == 6


def test_a_car_that_must_charge_may_exceed_its_plan():
    world = worlds.one_board(100).but(plan_valid=True)
    world = world.with_car("a", "grid", planned_w=0.0, departure=ahead(3600), energy_needed_wh=20_000)

    assert allocate(world).shares["a"].limit_a == 32


def test_the_plan_never_has_to_be_right_for_the_fuse_to_be_safe():
    world = worlds.one_board(20).but(plan_valid=True)
    for k in range(3):
        world = world.with_car(f"{k}", "grid", planned_w=22_000.0)

    assert max(worlds.sum_at(world, allocate(world), "grid")) <= 20


def test_what_a_planned_car_leaves_unused_goes_to_its_planned_neighbour():
    car = {"planned_w": 32 * 690.0, "offered_since": worlds.ago(120), "measured_at": worlds.NOON}
    world = worlds.one_board(40).but(plan_valid=True)
    world = world.with_car("slow", "grid", offered_a=32.0, measured_a=worlds.every_phase(16.0), **car)
    world = world.with_car("quick", "grid", offered_a=8.0, measured_a=worlds.every_phase(8.0), **car)

    answer = allocate(world)

    assert answer.shares["slow"].limit_a < 25
    assert answer.shares["quick"].reason == "waits for others"  # and rises as soon as the other has come down


# --- surplus ----------------------------------------------------------------------------------------------------------


def sunny(export_w: float, **car):
    world = worlds.one_board(63, metered=True).with_meter("grid", -export_w / 690, -export_w)
    return world.with_car("a", "grid", mode=Mode.SURPLUS, fail_safe_a=0.0, **car)


def test_a_surplus_car_gets_what_would_be_exported():
    share = allocate(sunny(6900)).shares["a"]

    assert (share.limit_a, share.reason) == (10, "surplus")


def test_a_surplus_car_waits_without_sun():
    for world in (sunny(-500), sunny(4000), sunny(4200)):
        share = allocate(world).shares["a"]
        assert (share.limit_a, share.reason) == (0, "no surplus")


def test_a_surplus_car_counts_what_it_takes_itself():
    world = sunny(0, offered_a=10.0, offered_since=ago(100), measured_a=(10.0, 10.0, 10.0))

    assert allocate(world).shares["a"].limit_a == 10


def test_a_surplus_car_waits_when_the_grid_meter_is_silent():
    world = worlds.one_board(63, metered=True, fallback_a=32.0).with_car("a", "grid", mode=Mode.SURPLUS)

    assert allocate(world).shares["a"].reason == "meter stale: grid"
    heard = world.with_meter("grid", -20.0)
    assert allocate(heard.with_battery(power_w=None)).shares["a"].reason == "battery silent"


def test_a_cloud_does_not_stop_a_car_that_has_just_started():
    world = sunny(-500, offered_a=8.0, offered_since=ago(60), on_since=ago(60), measured_a=worlds.every_phase(0.1))
    share = allocate(world).shares["a"]

    assert (share.limit_a, share.reason) == (6, "minimum time on")


def test_the_battery_does_not_discharge_into_a_surplus_car():
    world = sunny(6900).with_battery(power_w=-6900.0)

    assert allocate(world).shares["a"].limit_a == 0


# --- DC and shared stations -------------------------------------------------------------------------------------------


def test_dc_is_told_watts_rounded_down():
    world = worlds.one_board(100).with_car("hpc", "grid", dc=True, max_a=220.0, max_w=50_000.0)

    share = allocate(world).shares["hpc"]

    assert share.limit_a == pytest.approx(72.4)
    assert share.limit_w == 49_956
    assert allocate(worlds.one_board().with_sessions(grid=1)).shares["grid/0"].limit_w is None


def test_two_sockets_share_the_maximum_of_their_station():
    world = worlds.one_board(100)
    for k in "ab":
        world = world.with_car(k, "grid", group=7, group_max_a=32.0)

    answer = allocate(world)

    assert [answer.shares[k].limit_a for k in "ab"] == [16, 16]
    assert answer.shares["a"].reason == "station shared"


def test_two_sockets_on_different_phases_share_nothing():
    world = worlds.one_board(100)
    for k, phase in (("a", L1), ("b", L2)):
        world = world.with_car(k, "grid", phases=phase, group=7, group_max_a=32.0)

    assert [s.limit_a for s in allocate(world).shares.values()] == [32, 32]


def test_a_station_fed_from_two_circuits_gives_each_its_part():
    world = worlds.two_rows().with_car("a", "row 1", group=1, group_max_a=32.0)
    world = world.with_car("b", "row 2", group=1, group_max_a=32.0)

    assert [s.limit_a for s in allocate(world).shares.values()] == [16, 16]

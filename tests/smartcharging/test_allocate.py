"""The live layer, sentence by sentence. Invariants for any world are in `test_allocate_invariants.py`."""

from __future__ import annotations

import pytest

from smartcharging.engine.limits import Rank
from smartcharging.engine.live.allocate import allocate
from smartcharging.engine.rules import Rules
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


# --- meters -----------------------------------------------------------------------------------------------------------


def test_other_load_is_taken_off():
    world = worlds.one_board(63, metered=True, margin_a=3.0).with_meter("grid", 40.0).with_sessions(grid=2)

    answer = allocate(world.with_all(fail_safe_a=0.0))

    assert answer.at("grid").current_a == (20, 20, 20)
    assert answer.at("grid").load_a == (60, 60, 60)


def test_our_own_cars_are_not_other_load():
    world = worlds.one_board(32, metered=True).with_sessions(grid=2)
    world = world.with_all(offered_a=16.0, offered_since=ago(100), measured_a=(16.0, 16.0, 16.0))

    answer = allocate(world.with_meter("grid", 32.0))

    assert [s.limit_a for s in answer.shares.values()] == [16, 16]


def test_a_car_whose_current_is_not_known_is_rather_counted_twice_than_not_at_all():
    world = worlds.one_board(40, metered=True).with_meter("grid", 16.0).with_sessions(grid=1)

    answer = allocate(world.with_all(offered_a=16.0, offered_since=ago(100)))

    assert answer.shares["grid/0"].limit_a == 24


def test_a_silent_meter_leaves_the_fallback_to_all_below_together():
    world = worlds.two_rows(main_limit_a=100, metered=True, fallback_a=20.0).with_sessions(row_1=2, row_2=1)

    answer = allocate(world.with_all(fail_safe_a=0.0))

    assert answer.at("grid").current_a == (19.8, 19.8, 19.8)
    assert answer.at("grid").reason == "meter stale: grid"
    assert answer.shares["row 1/0"].reason == "meter stale: grid"


def test_a_silent_meter_without_a_fallback_leaves_the_fail_safes():
    world = worlds.two_rows(main_limit_a=100, metered=True).with_sessions(row_1=2, row_2=1)
    world = world.with_changed("row 1/0", fail_safe_a=0.0)

    answer = allocate(world)

    assert [s.limit_a for s in answer.shares.values()] == [0, 6, 6]
    assert {s.reason for s in answer.shares.values()} == {"meter stale: grid"}


def test_a_silent_meter_in_one_row_leaves_the_other_row_alone():
    world = worlds.of(
        ("grid", None, 100, {"metered": True}),
        ("row 1", "grid", 63, {"metered": True, "fallback_a": 10.0}),
        ("row 2", "grid", 63, {}),
    )
    world = world.with_meter("grid", 20.0).with_sessions(row_1=1, row_2=1)

    answer = allocate(world)

    assert [s.limit_a for s in answer.shares.values()] == [10, 32]


def test_above_a_silent_meter_its_other_load_is_what_the_fallback_was_commissioned_for():
    world = worlds.of(("grid", None, 70, {}), ("row 1", "grid", 63, {"metered": True, "fallback_a": 13.0}))

    answer = allocate(world.with_car("a", "grid"))

    assert answer.shares["a"].limit_a == 20  # 70 - (63 - 13)


def test_an_unmetered_circuit_adds_up_what_its_rows_measure():
    world = worlds.of(("grid", None, 80, {}), ("row 1", "grid", 63, {"metered": True}), ("row 2", "grid", 63, {}))
    world = world.with_meter("row 1", 50.0).with_car("a", "row 2").but(background_a={0: (10.0, 0.0, 0.0)})

    assert allocate(world).shares["a"].limit_a == 20  # 80 - 50 - 10 on L1


def test_a_circuit_leans_on_the_sun_no_further_than_a_fuse_would_hold_without_it():
    world = worlds.one_board(32, metered=True).with_sessions(grid=3)
    world = world.with_meter("grid", -20.0).but(pv_w=-30 * 690.0)  # 10 A of building behind 30 A of PV

    answer = allocate(world)

    assert 32 - 10 < max(worlds.sum_at(world, answer, "grid")) <= 1.25 * 32 - 10


def test_a_circuit_leans_on_no_more_sun_than_there_is():
    world = worlds.one_board(32, metered=True).with_sessions(grid=3)
    world = world.with_meter("grid", 8.0).but(pv_w=-2 * 690.0)  # 10 A of building behind 2 A of PV

    answer = allocate(world)

    assert max(worlds.sum_at(world, answer, "grid")) <= 32 - 8


def test_a_contract_in_watts_does_count_the_sun():
    world = worlds.one_board(63, metered=True, limit_w=6900.0).with_sessions(grid=1)
    world = world.with_meter("grid", -10.0, -6900.0).but(pv_w=-6900.0)

    assert allocate(world).shares["grid/0"].limit_a == 20


def test_a_current_on_a_phase_that_should_not_be_used_is_believed():
    world = worlds.one_board(20).with_car("a", "grid", phases=L1, offered_a=10.0, measured_a=(10.0, 10.0, 0.1))
    world = world.with_car("b", "grid", phases=L2, fail_safe_a=0.0)

    answer = allocate(world)

    assert answer.shares["b"].limit_a == 10


# --- cars and stations that do as they please -------------------------------------------------------------------------


def test_the_newcomer_waits_until_the_other_has_come_down():
    world = worlds.one_board(32).with_car("old", "grid", offered_a=32.0, offered_since=ago(900))
    world = world.with_car("new", "grid", offered_a=0.0, fail_safe_a=0.0)

    first = allocate(world)
    assert (first.shares["old"].limit_a, first.shares["new"].limit_a) == (16, 0)
    assert first.shares["new"].reason == "waits for others"

    down = world.with_changed("old", offered_a=16.0, offered_since=ago(3), measured_a=(32.0, 32.0, 32.0))
    assert allocate(down).shares["new"].limit_a == 0

    followed = world.with_changed("old", offered_a=16.0, offered_since=ago(12), measured_a=(15.8, 15.9, 15.8))
    assert allocate(followed).shares["new"].limit_a >= 6


def test_a_car_is_given_time_to_follow_even_when_nothing_is_measured():
    world = worlds.one_board(32).with_car("new", "grid", offered_a=0.0)
    old = {"offered_a": 16.0, "offered_before_a": 32.0}

    still = allocate(world.with_car("old", "grid", offered_since=ago(3), **old))
    later = allocate(world.with_car("old", "grid", offered_since=ago(11), **old))

    assert (still.shares["new"].limit_a, later.shares["new"].limit_a) == (0, 8)


def test_an_unreachable_station_keeps_its_last_limit_until_its_lease_ends():
    lost = {"reachable": False, "offered_a": 20.0, "offered_since": ago(300)}
    world = worlds.one_board(32).with_car("here", "grid")

    leased = allocate(world.with_car("lost", "grid", lease_until=ahead(100), **lost))
    ended = allocate(world.with_car("lost", "grid", lease_until=ago(100), **lost))

    assert leased.shares["here"].limit_a == 12
    assert ended.shares["here"].limit_a == 26
    assert leased.shares["lost"].reason == "unreachable"


def test_a_station_that_follows_nothing_counts_at_its_maximum_and_the_others_share_the_rest():
    world = worlds.one_board(40).with_car("tame", "grid")
    wild = {"offered_a": 8.0, "offered_since": ago(300), "lease_until": ahead(100), "isolated_a": 32.0}

    followed = allocate(world.with_car("wild", "grid", **{**wild, "isolated_a": None}))
    isolated = allocate(world.with_car("wild", "grid", measured_a=(14.0, 14.0, 14.0), **wild))

    assert followed.shares["tame"].limit_a > 8
    assert isolated.shares["tame"].limit_a == 8
    assert isolated.shares["wild"].limit_a <= 8
    assert isolated.shares["wild"].reason == "ignores its limit"


def test_an_unreachable_station_counts_at_its_fail_safe_if_that_is_more():
    world = worlds.one_board(32).with_car("here", "grid")
    world = world.with_car("lost", "grid", reachable=False, offered_a=0.0, lease_until=ahead(100), fail_safe_a=10.0)

    assert allocate(world).shares["here"].limit_a == 22


def test_an_unreachable_station_that_is_measured_higher_counts_at_that():
    world = worlds.one_board(32).with_car("here", "grid")
    world = world.with_car("lost", "grid", reachable=False, offered_a=6.0, measured_a=(20.0, 20.0, 20.0))

    assert allocate(world).shares["here"].limit_a == 12


def test_a_lease_that_ran_out_on_a_reachable_station_may_have_set_it_free():
    world = worlds.one_board(20).with_car("a", "grid", offered_a=0.0, lease_until=ago(5), fail_safe_a=10.0, wants=False)

    assert allocate(world.with_car("b", "grid", offered_a=6.0)).shares["b"].limit_a == 10


def test_a_car_that_ignores_its_limit_is_counted_at_what_it_takes():
    world = worlds.one_board(32).with_car("wild", "grid", offered_a=6.0, offered_since=ago(120), measured_a=(20.0,) * 3)

    answer = allocate(world.with_car("tame", "grid"))

    assert answer.shares["tame"].limit_a == 12
    assert answer.shares["wild"].limit_a == 6
    assert answer.shares["wild"].reason == "ignores its limit"


def test_a_car_that_has_not_followed_counts_at_once_where_the_meter_is_over_its_limit():
    world = worlds.one_board(32, metered=True).with_car("calm", "grid", offered_a=16.0, measured_a=(16.0,) * 3)
    late = {"offered_a": 14.0, "offered_since": ago(15), "measured_a": (20.0,) * 3, "measured_at": ago(2)}
    world = world.with_car("slow", "grid", **late)

    assert allocate(world.with_meter("grid", 36.0)).shares["calm"].limit_a == 12
    assert allocate(world.with_meter("grid", 32.0)).shares["calm"].limit_a == 16


def test_a_car_that_does_not_use_its_share_leaves_it_to_others():
    world = worlds.one_board(40, metered=True).with_meter("grid", 24.0)
    world = world.with_car("slow", "grid", offered_a=20.0, offered_since=ago(100), measured_a=(8.0, 8.0, 8.0))
    world = world.with_car("hungry", "grid", offered_a=16.0, offered_since=ago(100), measured_a=(16.0, 16.0, 16.0))

    answer = allocate(world)

    assert answer.shares["slow"].limit_a == pytest.approx(9.6)  # what it takes, and a little by which it shows more
    down = world.with_changed("slow", offered_a=9.6, offered_since=ago(20)).but(carried=answer.carried)
    assert allocate(down).shares["hungry"].limit_a == 24  # one step of the ramp
    awake = down.with_changed("slow", measured_a=(9.5, 9.5, 9.5), measured_at=ahead(1)).but(now=ahead(1))
    awake = awake.with_changed("hungry", offered_a=29.6, measured_a=(29.6,) * 3, measured_at=ahead(1))
    assert allocate(awake).shares["hungry"].limit_a == 22.5  # room for one step of the one that woke up


def test_what_nobody_else_needs_is_not_taken_from_a_slow_car():
    world = worlds.one_board(63).with_car("slow", "grid", offered_a=32.0, offered_since=ago(100), measured_a=(8.0,) * 3)

    assert allocate(world).shares["slow"].limit_a == 32


# --- free EVSEs -------------------------------------------------------------------------------------------------------


def test_a_free_evse_is_offered_its_fail_safe_where_that_fits():
    world = worlds.one_board(32).with_car("a", "grid").with_car("free", "grid", wants=False, offered_a=6.0)

    narrow = allocate(world)
    wide = allocate(worlds.one_board(63).with_car("a", "grid").with_car("free", "grid", wants=False))

    assert (narrow.shares["free"].limit_a, narrow.shares["free"].reason) == (0, "free")
    assert wide.shares["free"].limit_a == 6


def test_a_free_evse_takes_nothing_from_a_car_but_the_car_waits_until_it_is_told():
    world = worlds.one_board(32).with_car("a", "grid").with_car("free", "grid", wants=False, offered_a=6.0)

    first = allocate(world)
    then = allocate(world.with_changed("free", offered_a=0.0, offered_since=ago(30)))

    assert first.shares["a"].limit_a == 26
    assert then.shares["a"].limit_a == 32


def test_free_evses_may_all_start_at_once_without_overload():
    world = worlds.one_board(32)
    for k in range(10):
        world = world.with_car(f"{k}", "grid", wants=False)

    assert worlds.sum_at(world, allocate(world), "grid") == (30, 30, 30)


def test_a_full_car_says_so():
    world = worlds.one_board().with_car("a", "grid", wants=False, arrived_at=ago(7200))

    assert allocate(world).shares["a"].reason == "car full"


# --- calm -------------------------------------------------------------------------------------------------------------


def test_a_ripple_upwards_is_not_worth_a_message():
    world = worlds.one_board(20).with_car("a", "grid", offered_a=19.7, offered_since=ago(100))

    assert allocate(world).shares["a"].limit_a == 19.7


def test_even_a_ripple_downwards_is_obeyed():
    world = worlds.one_board(20).with_car("a", "grid", offered_a=20.2, offered_since=ago(100))

    share = allocate(world).shares["a"]
    assert share.limit_a == 20
    assert share.urgent


def test_a_limit_rises_step_by_step():
    world = worlds.one_board(63).with_car("a", "grid", offered_a=6.0, offered_since=ago(100))

    share = allocate(world, Rules(ramp_a=2.0, ramp_share=0.0)).shares["a"]

    assert (share.limit_a, share.reason) == (8, "rising")


def test_a_paused_car_rests_a_while_but_a_newcomer_does_not():
    paused = {"offered_a": 0.0, "off_since": ago(60), "offered_since": ago(60)}
    world = worlds.one_board().with_car("a", "grid", arrived_at=ago(900), **paused)

    assert allocate(world).shares["a"].reason == "minimum time off"
    assert allocate(world.with_changed("a", arrived_at=ago(50))).shares["a"].limit_a > 0
    assert allocate(world.with_changed("a", off_since=ago(400))).shares["a"].limit_a > 0


def test_a_car_that_has_just_started_goes_on_although_the_plan_changed():
    world = worlds.one_board().with_car(
        "a", "grid", planned_w=0.0, offered_a=16.0, offered_since=ago(60), on_since=ago(60)
    )

    share = allocate(world.but(plan_valid=True)).shares["a"]

    assert (share.limit_a, share.reason) == (6, "minimum time on")


def test_no_minimum_time_holds_against_a_limit():
    world = worlds.one_board(32, metered=True).with_car(
        "a", "grid", offered_a=16.0, offered_since=ago(60), on_since=ago(60), measured_a=(16.0, 16.0, 16.0)
    )

    share = allocate(world.with_meter("grid", 46.0)).shares["a"]

    assert (share.limit_a, share.urgent) == (0, True)


def test_what_every_station_already_has_is_not_changed():
    world = worlds.five_levels().with_sessions(post_1=1, post_2=1, post_3=1, post_7=1)
    first = allocate(world)

    again = allocate(world.accepted(first).but(readings={}))
    settled = world.accepted(first)
    drawn = {n: worlds.sum_at(world, first, c.name) for n, c in enumerate(world.grid.circuits) if c.metered}
    settled = settled.but(readings={n: worlds.NodeReading(a) for n, a in drawn.items()})

    assert {k: s.limit_a for k, s in allocate(settled).shares.items()} == {
        k: s.limit_a for k, s in first.shares.items()
    }
    assert all(again.shares[k].limit_a <= first.shares[k].limit_a for k in first.shares)


# --- orders from above ------------------------------------------------------------------------------------------------


def test_fire_switches_everything_below_off_at_once():
    world = worlds.two_rows().with_sessions(row_1=1, row_2=1)
    world = world.with_all(offered_a=16.0, on_since=ago(5), offered_since=ago(5))

    answer = allocate(world.narrowed(Rank.FIRE, at="row 1", limit_a=0.0))

    assert (answer.shares["row 1/0"].limit_a, answer.shares["row 1/0"].reason) == (0, "fire")
    assert answer.shares["row 1/0"].urgent
    assert answer.shares["row 2/0"].limit_a > 0


def test_the_grid_operator_limits_the_sum_of_the_phases():
    world = worlds.one_board(63).with_sessions(grid=2).narrowed(Rank.GRID_OPERATOR, "congestion", limit_w=13_800.0)

    answer = allocate(world)

    assert {s.limit_a for s in answer.shares.values()} == {10}
    assert answer.shares["grid/0"].reason == "grid operator: congestion"
    assert answer.at("grid").reason == "grid operator: congestion"


def test_a_single_phase_car_may_have_the_whole_power_limit():
    world = worlds.one_board(63).with_car("a", "grid", phases=L2).narrowed(Rank.CONTRACT, limit_w=6900.0)

    assert allocate(world).shares["a"].limit_a == 30


def test_an_operators_hand_limits_one_evse():
    world = worlds.one_board(63).with_sessions(grid=2).narrowed(Rank.WISH, "too loud", session="grid/0", limit_a=10.0)

    answer = allocate(world)

    assert (answer.shares["grid/0"].limit_a, answer.shares["grid/0"].reason) == (10, "wish: too loud")
    assert answer.shares["grid/1"].limit_a == 32


def test_an_operators_hand_may_stop_one_evse():
    world = worlds.one_board(63).with_sessions(grid=1).narrowed(Rank.WISH, session="grid/0", limit_w=0.0)

    assert allocate(world).shares["grid/0"].reason == "wish"


def test_the_quarters_peak_is_kept():
    world = worlds.one_board(63, metered=True).with_meter("grid", 0.0, 0.0).with_sessions(grid=1)
    world = world.but(peak_target_w=10_000.0, quarter_import_wh=1250.0)

    share = allocate(world).shares["grid/0"]

    assert (share.limit_a, share.reason) == (14.4, "peak")


def test_a_narrowing_at_a_place_that_is_not_there_is_not_lost_silently():
    world = worlds.one_board()
    with pytest.raises(IndexError, match="fire"):
        allocate(world.but(narrowings=(worlds.Narrowing(Rank.FIRE, "", node=7, limit_a=0.0),)))


def test_a_session_at_a_place_that_is_not_there_is_named():
    world = worlds.one_board().with_sessions(grid=1)
    with pytest.raises(IndexError, match="grid/0"):
        allocate(world.with_all(node=3))


def test_what_a_planned_car_leaves_unused_goes_to_its_planned_neighbour():
    car = {"planned_w": 32 * 690.0, "offered_since": worlds.ago(120), "measured_at": worlds.NOON}
    world = worlds.one_board(40).but(plan_valid=True)
    world = world.with_car("slow", "grid", offered_a=32.0, measured_a=worlds.every_phase(16.0), **car)
    world = world.with_car("quick", "grid", offered_a=8.0, measured_a=worlds.every_phase(8.0), **car)

    answer = allocate(world)

    assert answer.shares["slow"].limit_a < 25
    assert answer.shares["quick"].reason == "waits for others"  # and rises as soon as the other has come down


def test_a_lost_quarter_holds_a_fresh_car_at_its_minimum_and_does_not_switch_it_off():
    lost = {"peak_target_w": 5_000.0, "quarter_import_wh": 4_000.0}
    world = worlds.one_board(63, metered=True).with_meter("grid", 30.0, 20_700.0)
    running = {"offered_a": 16.0, "measured_a": worlds.every_phase(16.0), "measured_at": worlds.NOON}
    world = world.with_car("fresh", "grid", on_since=worlds.ago(60), offered_since=worlds.ago(60), **running)
    world = world.with_car("new", "grid", offered_a=0.0)

    answer = allocate(world.but(**lost))

    assert answer.shares["fresh"].limit_a == 6
    assert answer.shares["new"].limit_a == 0


@pytest.mark.parametrize("rank", [Rank.GRID_OPERATOR, Rank.CONTRACT])
def test_a_lost_quarter_lets_no_fresh_car_past_what_stands_behind_the_peak(rank):
    """The peak is a wish about money. The order behind it holds, whoever has just been started."""
    world = worlds.one_board(100, metered=True).with_meter("grid", 0.0, 0.0)
    running = {"offered_a": 6.0, "measured_a": worlds.every_phase(6.0), "measured_at": worlds.NOON}
    for n in range(10):
        world = world.with_car(f"car {n}", "grid", on_since=worlds.ago(20), offered_since=worlds.ago(20), **running)
    world = world.with_meter("grid", 60.0, 41_400.0).narrowed(rank, limit_w=15_000.0)

    answer = allocate(world.but(peak_target_w=5_000.0, quarter_import_wh=2_000.0))

    told_w = sum(share.limit_a for share in answer.shares.values()) * 690
    assert 12_000 < told_w <= 15_000


def test_a_lost_quarter_lets_no_fresh_car_past_the_circuits_own_watts():
    world = worlds.one_board(100, metered=True, limit_w=11_000.0)
    running = {"offered_a": 6.0, "measured_a": worlds.every_phase(6.0), "measured_at": worlds.NOON}
    for n in range(3):
        world = world.with_car(f"car {n}", "grid", on_since=worlds.ago(20), offered_since=worlds.ago(20), **running)
    world = world.with_meter("grid", 18.0, 12_420.0)

    answer = allocate(world.but(peak_target_w=10_000.0, quarter_import_wh=2_400.0))

    assert sum(share.limit_a for share in answer.shares.values()) * 690 <= 11_000

"""Cars and stations that do as they please, and those on which nobody charges."""

from __future__ import annotations

import pytest

from smartcharging.engine.live.allocate import allocate
from tests import worlds
from tests.worlds import ago, ahead


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

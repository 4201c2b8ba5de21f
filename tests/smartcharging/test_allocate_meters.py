"""What meters show, what they leave to cars, and what is done without them."""

from __future__ import annotations

from smartcharging.engine.live.allocate import allocate
from tests import worlds
from tests.worlds import L1, L2, ago


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

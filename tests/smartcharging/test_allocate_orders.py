"""Orders from above: fire, grid operator, an operator's hand, and the quarter hour's peak."""

from __future__ import annotations

import pytest

from smartcharging.engine.limits import Rank
from smartcharging.engine.live.allocate import allocate
from tests import worlds
from tests.worlds import L2, ago


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

"""What a tree can be: deep, wired askew, without a neutral, without meters, with limits that change with the hour."""

from __future__ import annotations

import pytest

from smartcharging.engine.grid import Circuit, Grid, Supply, power_weight
from smartcharging.engine.limits import Rank, explain, narrow
from smartcharging.engine.live.allocate import allocate
from smartcharging.engine.snapshot import Narrowing
from tests import worlds
from tests.worlds import L1, L2, L3, ago, ahead


def six_levels(limit_of: dict[str, float] | None = None):
    """`grid` → `main` → `floor` → `zone` → `busbar` → `post`: one path of six with a second post beside it."""
    limits = {"grid": 120.0, "main": 100.0, "floor": 90.0, "zone": 80.0, "busbar": 70.0, "post": 63.0} | (
        limit_of or {}
    )
    names = list(limits)
    chain = [(name, names[k - 1] if k else None, limits[name], {}) for k, name in enumerate(names)]
    return worlds.of(*chain, ("post 2", "busbar", 63.0, {}))


@pytest.mark.parametrize("tight", ["grid", "main", "floor", "zone", "busbar", "post"])
def test_each_of_six_levels_binds_and_is_named(tight):
    world = six_levels({tight: 20.0}).with_car("a", "post").with_car("b", "post")

    answer = allocate(world)

    assert world.grid.depth == 6
    assert [answer.shares[k].limit_a for k in "ab"] == [10, 10]
    share = answer.shares["a"]
    assert (share.reason, share.circuit, share.phase) == (f"limit:{tight}:L1", tight, "L1")


def test_a_car_that_is_left_out_says_where_it_did_not_fit():
    world = six_levels({"zone": 8.0}).with_car("a", "post").with_car("b", "post 2", fail_safe_a=0.0)

    share = allocate(world.with_all(fail_safe_a=0.0)).shares["b"]

    assert (share.limit_a, share.circuit, share.phase) == (0, "zone", "L1")


def test_rotated_wiring_shares_three_phases_between_single_phase_cars():
    world = worlds.one_board(16)
    for key, phases in (("a", L1), ("b", L2), ("c", L3)):
        world = world.with_car(key, "grid", phases=phases)

    assert {s.limit_a for s in allocate(world).shares.values()} == {16}


def test_a_two_phase_car_loads_two_phases():
    world = worlds.one_board(20).with_car("two", "grid", phases=(True, True, False)).with_car("one", "grid", phases=L3)
    world = world.with_car("on L1", "grid", phases=L1)

    answer = allocate(world)

    assert [answer.shares[k].limit_a for k in ("two", "one", "on L1")] == [10, 20, 10]


# --- without a neutral ------------------------------------------------------------------------------------------------


def test_without_a_neutral_three_phase_power_is_less():
    assert power_weight(3, Supply.IT) * 230 == pytest.approx(398.4, abs=0.1)
    assert power_weight(2, Supply.IT) == power_weight(1, Supply.TN) == 1


def test_without_a_neutral_a_power_limit_allows_more_amps():
    world = worlds.one_board(63).with_car("a", "grid").narrowed(Rank.CONTRACT, limit_w=6900.0)
    street = world.but(grid=Grid(world.grid.circuits, Supply.IT))

    assert allocate(world).shares["a"].limit_a == 10
    assert allocate(street).shares["a"].limit_a == pytest.approx(17.3)


def test_without_a_neutral_a_single_phase_car_loads_two_lines():
    grid = Grid((Circuit("grid", None, (20.0, 20.0, 20.0)),), Supply.IT)
    world = worlds.one_board().but(grid=grid)
    world = world.with_car("12", "grid", phases=(True, True, False)).with_car("23", "grid", phases=(False, True, True))

    answer = allocate(world)

    assert worlds.sum_at(world, answer, "grid") == (10, 20, 10)


def test_without_a_neutral_dc_is_told_the_watts_that_its_amps_carry():
    world = worlds.one_board(32).with_car("hpc", "grid", dc=True, max_a=220.0, max_w=150_000.0)

    share = allocate(world.but(grid=Grid(world.grid.circuits, Supply.IT))).shares["hpc"]

    assert share.limit_a == 32
    assert share.limit_w == int(32 * 230 * 3**0.5)


# --- imbalance --------------------------------------------------------------------------------------------------------


def uneven(limit_a: float, **meter):
    world = worlds.of(("grid", None, 63, {"imbalance_a": limit_a, "metered": True}))
    return world.with_meter("grid", meter.get("load_a", 0.0))


def test_one_phase_may_carry_only_so_much_more_than_the_others():
    world = uneven(20.0).with_car("a", "grid", phases=L1).with_car("b", "grid", phases=L1)

    answer = allocate(world)

    assert [answer.shares[k].limit_a for k in "ab"] == [10, 10]
    assert answer.shares["a"].reason == "imbalance:grid:L1"
    assert answer.shares["a"].phase == "L1"
    assert explain("imbalance:grid:L1")[1] == {"circuit": "grid", "phase": "L1"}


def test_a_three_phase_car_is_never_uneven():
    assert allocate(uneven(5.0).with_car("a", "grid")).shares["a"].limit_a == 32


def test_what_another_phase_carries_makes_room_on_this_one():
    world = uneven(10.0, load_a=(0.0, 8.0, 8.0)).with_car("a", "grid", phases=L1)

    assert allocate(world).shares["a"].limit_a == 18


def test_a_circuit_without_an_imbalance_limit_knows_none():
    assert allocate(worlds.one_board(32).with_car("a", "grid", phases=L1)).shares["a"].limit_a == 32


# --- without meters ---------------------------------------------------------------------------------------------------


def test_a_circuit_without_a_meter_keeps_its_commissioned_worst_load_free():
    world = worlds.of(("grid", None, 100, {}), ("row", "grid", 40, {"worst_a": (10.0, 4.0, 0.0)}))

    answer = allocate(world.with_car("a", "row", phases=L1).with_car("b", "row", phases=L2, max_a=63.0))

    assert answer.shares["a"].limit_a == 30
    assert answer.shares["b"].limit_a == 36


def test_a_silent_meter_leaves_the_limit_less_the_worst_load_and_twice_the_margin():
    world = worlds.one_board(60, metered=True, margin_a=2.0, worst_a=(26.0, 26.0, 26.0)).with_car("a", "grid")

    share = allocate(world).shares["a"]

    assert share.limit_a == 30
    assert share.reason == "meter stale: grid"


# --- limits that change with the hour ---------------------------------------------------------------------------------


def test_a_limit_holds_only_in_its_hours():
    night = Narrowing(Rank.CONTRACT, "by night", limit_w=6900.0, starts_at=ago(60), ends_at=ahead(60))
    world = worlds.one_board(63).with_car("a", "grid").but(narrowings=(night,))

    assert allocate(world).shares["a"].limit_a == 10
    assert allocate(world.but(now=ahead(60))).shares["a"].limit_a == 32
    assert allocate(world.but(now=ago(61))).shares["a"].limit_a == 32


def test_of_several_hours_the_present_one_counts():
    series = [
        Narrowing(Rank.GRID_OPERATOR, "", limit_w=w, starts_at=ago(s), ends_at=ago(s - 900))
        for w, s in ((5_000.0, 1000.0), (9_000.0, 100.0), (2_000.0, -800.0))
    ]

    limits = narrow(worlds.one_board().grid, series, worlds.NOON)

    assert limits.table[0, 3] == pytest.approx(9_000 / 230)

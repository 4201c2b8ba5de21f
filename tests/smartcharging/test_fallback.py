"""Safe currents when something is missing; plain enough to be sure of."""

from __future__ import annotations

import math

import pytest

from smartcharging.engine.limits import Rank
from smartcharging.engine.live.allocate import allocate
from smartcharging.engine.live.fallback import commissioning_gaps, safe_allocation
from smartcharging.engine.snapshot import Narrowing
from tests import worlds


def test_everybody_stands_at_his_fail_safe_where_they_fit():
    answer = safe_allocation(worlds.two_rows().with_sessions(row_1=3, row_2=2).with_battery())

    assert {s.limit_a for s in answer.shares.values()} == {6.0}
    assert {s.reason for s in answer.shares.values()} == {"fail-safe"}
    assert answer.battery_w == {"battery": 0}


def test_who_does_not_fit_gets_nothing_and_the_important_go_first():
    world = worlds.one_board(13).with_sessions(grid=3).with_changed("grid/2", priority=3)

    answer = safe_allocation(world)

    assert [answer.shares[f"grid/{k}"].limit_a for k in range(3)] == [6, 0, 6]


def test_below_a_meter_they_fit_in_its_fallback():
    world = worlds.one_board(100, metered=True, fallback_a=12.0).with_meter("grid", 0.0).with_sessions(grid=3)

    assert sum(s.limit_a for s in safe_allocation(world).shares.values()) == 12


def test_known_load_and_power_limits_are_taken_off():
    world = worlds.one_board(20).with_sessions(grid=3).but(background_a={0: (0.0, 9.0, 0.0)})
    watts = worlds.one_board(100, limit_w=6 * 690.0).with_sessions(grid=3)

    assert sum(s.limit_a for s in safe_allocation(world).shares.values()) == 6
    assert sum(s.limit_a for s in safe_allocation(watts).shares.values()) == 6


def test_orders_hold_here_too():
    world = worlds.two_rows().with_sessions(row_1=1, row_2=1).narrowed(Rank.FIRE, at="row 1", limit_a=0.0)

    answer = safe_allocation(world)

    assert (answer.shares["row 1/0"].limit_a, answer.shares["row 1/0"].reason) == (0, "fire")
    assert answer.shares["row 2/0"].limit_a == 6


@pytest.mark.parametrize("amps", [0.0, math.nan])
def test_an_order_at_a_place_nobody_knows_holds_everywhere(amps):
    world = worlds.two_rows().with_sessions(row_1=1, row_2=1)
    world = world.but(narrowings=(Narrowing(Rank.FIRE, "", node=99, limit_a=amps),))

    assert {s.limit_a for s in safe_allocation(world).shares.values()} == {0}


def test_a_session_at_a_place_nobody_knows_must_fit_everywhere():
    world = worlds.two_rows(row_limit_a=5).with_sessions(row_1=1)

    assert safe_allocation(world.with_all(node=42)).shares["row 1/0"].limit_a == 0


def test_a_fail_safe_below_the_minimum_is_zero_and_dc_is_told_watts():
    world = worlds.one_board(100).with_car("a", "grid", fail_safe_a=4.0).with_car("hpc", "grid", dc=True)

    answer = safe_allocation(world)

    assert answer.shares["a"].limit_a == 0
    assert answer.shares["hpc"].limit_w == 6 * 690


def test_what_lowers_is_urgent_and_what_does_not_is_not():
    world = worlds.one_board(100).with_car("high", "grid", offered_a=16.0).with_car("low", "grid", offered_a=0.0)

    answer = safe_allocation(world)

    assert (answer.shares["high"].urgent, answer.shares["low"].urgent) == (True, False)


@pytest.mark.parametrize("seed", range(40))
def test_no_circuit_is_over_its_limit(seed):
    world = worlds.lived_in(seed)
    answer = safe_allocation(world)

    for circuit in world.grid.circuits:
        told = worlds.sum_at(world, answer, circuit.name)
        assert all(a <= limit + 1e-6 for a, limit in zip(told, circuit.limit_a, strict=True))


def test_commissioning_names_the_circuit_that_only_steering_keeps():
    world = worlds.two_rows(main_limit_a=40, row_limit_a=20).with_sessions(row_1=3, row_2=4)

    gaps = commissioning_gaps(world.grid, world.sessions, {0: (0.0, 0.0, 0.0)})

    assert {(g.circuit, g.phase, g.over_a) for g in gaps} == {
        *(("grid", p, 2.0) for p in ("L1", "L2", "L3")),
        *(("row 2", p, 4.0) for p in ("L1", "L2", "L3")),
    }
    assert commissioning_gaps(worlds.two_rows().grid, world.sessions, {}) == []


@pytest.mark.parametrize("metered", [False, True])
@pytest.mark.parametrize(
    ("worst_a", "known_a", "fit"),
    [(25.0, 25.0, 1), (25.0, None, 1), (None, 25.0, 1), (25.0, 12.0, 3), (25.0, math.nan, 1), (None, None, 5)],
)
def test_the_known_load_is_taken_off_and_else_the_worst_that_was_commissioned(metered, worst_a, known_a, fit):
    worst = None if worst_a is None else (worst_a,) * 3
    world = worlds.one_board(32, metered=metered, worst_a=worst).with_sessions(grid=5)
    world = world if known_a is None else world.but(background_a={0: (known_a,) * 3})

    assert sum(s.limit_a for s in safe_allocation(world).shares.values()) == 6 * fit


def test_it_tells_no_more_than_the_live_layer_below_a_silent_meter():
    world = worlds.one_board(40, metered=True, worst_a=(25.0, 25.0, 25.0), margin_a=2.0).with_sessions(grid=5)

    answers = safe_allocation(world), allocate(world)

    assert [sum(s.limit_a for s in answer.shares.values()) for answer in answers] == [6, 6]


def test_what_is_used_below_counts_above():
    world = worlds.two_rows(main_limit_a=32).with_sessions(grid=4).but(background_a={1: (10.0,) * 3, 2: (10.0,) * 3})

    assert sum(s.limit_a for s in safe_allocation(world).shares.values()) == 12


def test_a_silent_row_may_be_using_above_it_what_its_fallback_leaves_of_its_limit():
    world = worlds.of(("grid", None, 40, {}), ("row", "grid", 32, {"metered": True, "fallback_a": 6.0}))

    answer = safe_allocation(world.with_sessions(grid=5, row=1).with_changed("row/0", priority=3))

    assert answer.shares["row/0"].limit_a == 6
    assert sum(s.limit_a for s in answer.shares.values()) == 12  # 40 less the 26 that the row may use itself


def test_a_known_load_above_what_the_fallback_was_meant_for_counts():
    world = worlds.one_board(32, metered=True, fallback_a=18.0).with_sessions(grid=5)

    assert sum(s.limit_a for s in safe_allocation(world).shares.values()) == 18
    assert sum(s.limit_a for s in safe_allocation(world.but(background_a={0: (25.0,) * 3})).shares.values()) == 6


@pytest.mark.parametrize("number", [math.nan, math.inf])
@pytest.mark.parametrize("fact", ["fail_safe_a", "max_a", "step_a"])
def test_what_is_no_number_raises_nobody(fact, number):
    world = worlds.one_board(13).with_sessions(grid=3)

    told = [s.limit_a for s in safe_allocation(world.with_changed("grid/0", **{fact: number})).shares.values()]

    assert sum(told) <= 12 and all(math.isfinite(a) for a in told)


def test_a_limit_that_is_no_number_is_none():
    assert safe_allocation(worlds.one_board(math.nan).with_sessions(grid=1)).shares["grid/0"].limit_a == 0

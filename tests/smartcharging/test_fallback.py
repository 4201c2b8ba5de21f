"""Safe currents when something is missing; plain enough to be sure of."""

from __future__ import annotations

import math
import random
from dataclasses import replace

import numpy as np
import pytest

from smartcharging.engine.grid import Grid, Supply, power_weight
from smartcharging.engine.limits import Rank, narrow
from smartcharging.engine.live.allocate import allocate
from smartcharging.engine.live.fallback import commissioning_gaps, safe_allocation
from smartcharging.engine.live.fleet import Fleet
from smartcharging.engine.live.roll import Roll
from smartcharging.engine.rules import DEFAULT
from smartcharging.engine.snapshot import Narrowing
from tests import worlds
from tests.worlds import ago, ahead


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


def told(world) -> dict[str, float]:
    return {key: share.limit_a for key, share in safe_allocation(world).shares.items()}


@pytest.mark.parametrize("order", [{"limit_a": 10.0}, {"limit_w": 10 * 690.0}, {"limit_a": math.nan}])
def test_the_known_load_is_taken_off_an_order(order):
    world = worlds.one_board(32).with_sessions(grid=2).but(background_a={0: (8.0,) * 3})

    assert sum(told(world).values()) == 12
    assert sum(told(world.narrowed(Rank.GRID_OPERATOR, "order", **order)).values()) == 0


def test_an_order_above_a_row_has_the_load_of_the_row_taken_off():
    world = worlds.of(("grid", None, 63, {}), ("row", "grid", 32, {})).with_sessions(grid=1, row=1)
    world = world.but(background_a={1: (8.0,) * 3}).narrowed(Rank.GRID_OPERATOR, limit_a=14.0)
    behind = world.but(grid=Grid(tuple(replace(c, metered=True, fallback_a=20.0) for c in world.grid.circuits)))

    assert sum(told(world).values()) == 6
    assert sum(told(behind).values()) == 6


def test_the_known_load_is_taken_off_a_limit_in_watts():
    world = worlds.one_board(32, limit_w=16 * 690.0).with_sessions(grid=2).but(background_a={0: (8.0,) * 3})

    assert sum(told(world).values()) == 6


def test_what_one_phase_takes_fills_a_limit_in_watts_by_a_third():
    world = worlds.one_board(32, limit_w=3_000.0)
    for k in range(4):
        world = world.with_car(f"{k}", "grid", phases=worlds.L1)

    assert sum(told(world).values()) == 12


@pytest.mark.parametrize(
    ("order", "amps"),
    [
        ({"limit_a": 0.0}, 0),
        ({"limit_a": math.nan}, 0),
        ({"limit_w": 1_000.0}, 0),
        ({"limit_a": 7.0}, 7),
        ({"limit_w": 8 * 690.0}, 8),
        ({"limit_a": 20.0}, 10),
    ],
)
def test_an_order_to_one_evse_holds_for_it_and_for_no_other(order, amps):
    world = worlds.one_board(63).with_sessions(grid=2).with_all(fail_safe_a=10.0)
    world = world.but(narrowings=(Narrowing(Rank.EMERGENCY_STOP, "stop", session="grid/0", **order),))

    answer = safe_allocation(world)

    assert (answer.shares["grid/0"].limit_a, answer.shares["grid/1"].limit_a) == (amps, 10)
    assert answer.shares["grid/0"].reason == ("emergency stop: stop" if amps < 10 else "fail-safe")


@pytest.mark.parametrize(
    ("facts", "others"),
    [
        ({"reachable": False, "offered_a": 16.0, "lease_until": ahead(200)}, 0),
        ({"reachable": False, "offered_a": 16.0}, 0),  # it has no lease that ends
        ({"reachable": False, "offered_a": 16.0, "lease_until": ago(5)}, 0),  # it may not have noticed yet
        ({"reachable": False, "offered_a": 16.0, "lease_until": ago(60)}, 6),
        ({"reachable": False}, 6),
        ({"reachable": False, "offered_a": 6.0, "offered_before_a": 16.0, "offered_since": ago(3)}, 0),
        ({"reachable": False, "offered_a": 6.0, "offered_before_a": 16.0, "offered_since": ago(30)}, 6),
        ({"reachable": False, "measured_a": (16.0,) * 3, "measured_at": ago(3)}, 0),
        ({"isolated_a": 16.0, "offered_a": 0.0}, 0),
        ({"offered_a": 6.0, "offered_since": ago(90), "measured_a": (16.0,) * 3, "measured_at": ago(3)}, 0),
        ({"offered_a": 16.0, "measured_a": (16.0,) * 3, "measured_at": ago(3)}, 6),  # it follows
    ],
)
def test_what_a_station_takes_whatever_it_is_told_is_taken_off_first(facts, others):
    world = worlds.one_board(16).with_car("lost", "grid", **facts).with_car("other", "grid", priority=3)

    assert told(world)["other"] == others


def test_who_is_out_of_reach_is_told_his_fail_safe_for_when_he_is_back():
    lost = worlds.one_board(16).with_car("lost", "grid", reachable=False, offered_a=16.0)

    assert told(lost)["lost"] == 6
    assert told(lost.narrowed(Rank.FIRE, limit_a=0.0))["lost"] == 0


def test_cars_on_one_phase_load_it_no_more_above_the_others_than_is_allowed():
    world = worlds.one_board(63, imbalance_a=16.0)
    for k in range(5):
        world = world.with_car(f"{k}", "grid", phases=worlds.L1)

    assert sum(told(world).values()) == 12
    assert sum(told(world.but(background_a={0: (8.0, 0.0, 0.0)})).values()) == 6
    assert sum(told(world.but(background_a={0: (0.0, 8.0, 8.0)})).values()) == 24
    assert sum(told(world.with_all(phases=worlds.THREE)).values()) == 30


def in_trouble(seed: int) -> worlds.World:
    """A day of which a good deal is known, with orders, and stations that cannot be told."""
    chance = random.Random(seed)
    world = worlds.lived_in(seed)
    sites = range(len(world.grid))
    circuits = tuple(
        replace(
            c,
            limit_a=tuple(3 * a for a in c.limit_a),
            limit_w=None if c.limit_w is None else 3 * c.limit_w,
            fallback_a=chance.choice([None, 40.0, 80.0]),
            imbalance_a=chance.choice([None, None, None, 20.0]),
        )
        for c in world.grid.circuits
    )
    sessions = tuple(
        replace(s, isolated_a=s.max_a if chance.random() < 0.05 else None, lease_until=s.lease_until or ahead(30))
        for s in world.sessions
    )
    orders = [
        Narrowing(
            chance.choice(list(Rank)),
            "order",
            node=chance.choice(sites),
            limit_a=chance.choice([None, 20.0, 40.0]),
            limit_w=chance.choice([None, 20_000.0, 40_000.0]),
        )
        for _ in range(chance.randint(0, 2))
    ]
    orders += [
        Narrowing(Rank.WISH, session=s.key, limit_a=chance.choice([0.0, 8.0]), reason="")
        for s in chance.sample(sessions, chance.randint(0, len(sessions) // 2))
    ]
    known = {n: tuple(chance.uniform(0, 8) for _ in range(3)) for n in sites if chance.random() < 0.4}
    return world.but(grid=Grid(circuits), sessions=sessions, narrowings=tuple(orders), background_a=known, readings={})


@pytest.mark.parametrize("seed", range(120))
def test_all_that_is_told_known_and_out_of_hand_stays_within_every_limit(seed):
    world = in_trouble(seed)
    limits = narrow(world.grid, world.narrowings, world.now)
    fleet = Fleet.of(world, Roll.of(world), limits, DEFAULT)  # the live layer's own idea of what stations may take
    answer = told(world)
    amps = np.array([answer[key] for key in fleet.keys])
    anyway = ~fleet.reachable | fleet.ignores
    hold = np.where(anyway[:, None], fleet.hold, 0.0)
    added = np.maximum(amps[:, None] * fleet.uses - hold, 0.0)
    known = np.zeros((fleet.tree.size, 3))
    for n, load in world.background_a.items():
        known[n] = load
    known = fleet.tree.sums_of_nodes(known)
    hold, added = fleet.tree.sums(hold), fleet.tree.sums(added)

    for n, circuit in enumerate(world.grid.circuits):
        load = [*known[n], known[n].sum()]
        for column in range(4):
            total = load[column] + hold[n, column] + added[n, column]
            assert total <= limits.table[n, column] + 1e-6 or added[n, column] < 1e-6, (circuit.name, column)
        if circuit.imbalance_a is not None:
            for f in range(3):
                lowest = min(load[g] for g in range(3) if g != f)
                uneven = load[f] - lowest + hold[n, 4 + f] + added[n, 4 + f]
                assert uneven <= circuit.imbalance_a + 1e-6 or added[n, 4 + f] < 1e-6, circuit.name
    for order in world.narrowings:
        if order.session is not None:
            assert answer[order.session] <= order.limit_a


def test_without_a_neutral_a_limit_in_watts_is_filled_by_less():
    world = worlds.one_board(63, limit_w=12 * power_weight(3) * 230.0).with_sessions(grid=4)
    without = world.but(grid=Grid(world.grid.circuits, supply=Supply.IT))

    assert (sum(told(world).values()), sum(told(without).values())) == (12, 18)

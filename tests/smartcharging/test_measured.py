"""What is no number is not known: the answer comes, nobody gains by it, and no limit gives way."""

from __future__ import annotations

import math
import random
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smartcharging.engine.limits import Rank
from smartcharging.engine.live.allocate import allocate
from smartcharging.engine.live.filling import fill
from smartcharging.engine.live.tree import Tree
from smartcharging.engine.snapshot import NodeReading
from tests import worlds
from tests.smartcharging.test_allocate_invariants import assert_safe
from tests.worlds import World, ago

NO_NUMBERS = (math.nan, math.inf, -math.inf)


def told(answer) -> float:
    return sum(s.limit_a for s in answer.shares.values())


def busy_board(**board) -> World:
    world = worlds.one_board(63, **board).with_sessions(grid=4)
    return world.with_all(offered_a=10.0, offered_since=ago(600), fail_safe_a=0.0, measured_a=(0.0, 0.0, 0.0))


@pytest.mark.parametrize("number", NO_NUMBERS)
def test_a_battery_whose_power_is_no_number_is_not_known(number):
    world = busy_board(metered=True).with_meter("grid", 30.0)

    unknown, odd = (allocate(world.with_battery(power_w=power_w)) for power_w in (None, number))

    assert (odd.shares, odd.battery_w) == (unknown.shares, unknown.battery_w)
    assert told(odd) <= told(allocate(world.with_battery(power_w=0.0)))


@pytest.mark.parametrize("number", NO_NUMBERS)
@pytest.mark.parametrize("fact", ["soc", "planned_w", "min_soc", "max_soc", "max_charge_w", "max_discharge_w"])
def test_a_battery_is_sent_nowhere_by_what_is_no_number(fact, number):
    world = worlds.one_board(63, metered=True).with_meter("grid", 30.0).but(plan_valid=True)

    power_w = allocate(world.with_battery(**{"planned_w": -5_000.0, fact: number})).battery_w["battery"]

    assert power_w in (0.0, -5_000.0) if fact == "max_charge_w" else power_w == 0.0


@pytest.mark.parametrize("number", NO_NUMBERS)
def test_a_known_load_that_is_no_number_is_the_worst(number):
    odd = {0: (5.0, number, 5.0)}
    worst = busy_board(worst_a=(50.0, 50.0, 50.0))
    unsaid = busy_board().with_battery(planned_w=-5_000.0).but(plan_valid=True)

    assert told(allocate(worst.but(background_a=odd))) == 13
    assert told(allocate(unsaid.but(background_a=odd))) == 0  # their fail-safes
    assert allocate(unsaid.but(background_a=odd)).battery_w["battery"] == 0


@pytest.mark.parametrize("number", NO_NUMBERS)
@pytest.mark.parametrize("odd", [lambda a: {"pv_w": a}, lambda a: {"pv_a": {0: (a, 0.0, 0.0)}}])
def test_sun_that_is_no_number_is_no_help_and_may_fill_the_fuse(odd, number):
    metered = busy_board(metered=True).with_meter("grid", 20.0)
    bare = busy_board().with_battery(planned_w=-5_000.0).but(plan_valid=True)

    assert allocate(metered.but(**odd(number))).shares == allocate(metered).shares
    assert allocate(bare.but(**odd(number))).battery_w["battery"] == 0


@pytest.mark.parametrize("number", NO_NUMBERS)
def test_a_meter_that_tells_no_numbers_is_silent(number):
    world = busy_board(metered=True, fallback_a=12.0).with_battery(planned_w=-5_000.0).but(plan_valid=True)

    silent, odd = (allocate(world.with_meter("grid", amps)) for amps in (None, (5.0, 5.0, number)))

    assert (odd.shares, odd.battery_w) == (silent.shares, silent.battery_w)


@pytest.mark.parametrize("where", ["room", "low", "cap", "weight"])
def test_filling_ends_whatever_comes_in_and_raises_nobody_for_what_is_no_number(where):
    numbers = {"room": np.full((1, 1), 10.0), "low": np.full(3, 1.0), "cap": np.full(3, 9.0), "weight": np.ones(3)}
    numbers[where].flat[0] = math.nan

    value, _ = fill(Tree([-1], np.zeros(3, dtype=np.intp)), **numbers, uses=np.ones((3, 1)))

    assert np.nansum(value - numbers["low"]) <= 10 + 1e-9


@settings(max_examples=60, deadline=None)
@given(st.integers(min_value=0, max_value=10_000))
def test_odd_numbers_anywhere_in_a_site_end_in_an_answer_within_every_limit(seed):
    chance = random.Random(seed)
    world = sprinkled(worlds.lived_in(seed), chance)

    answer = allocate(world)

    assert all(math.isfinite(s.limit_a) and s.limit_a >= 0 for s in answer.shares.values())
    assert all(math.isfinite(power_w) for power_w in answer.battery_w.values())
    assert_safe(known_of(world), answer)


def sprinkled(world: World, chance: random.Random) -> World:
    """Numbers that are none, here and there in what is measured."""

    def odd(value):
        return chance.choice(NO_NUMBERS) if value is None or chance.random() < 0.2 else value

    nodes = range(len(world.grid))
    for k in range(2):
        world = world.with_battery(
            world.grid.circuits[chance.choice(nodes)].name, key=f"battery {k}", power_w=odd(0.0), planned_w=odd(2_000.0)
        )
    readings = {n: NodeReading(tuple(map(odd, r.current_a)), odd(r.power_w)) for n, r in world.readings.items()}
    sessions = [
        replace(
            s, measured_a=s.measured_a and tuple(map(odd, s.measured_a)), offered_a=s.offered_a and odd(s.offered_a)
        )
        for s in world.sessions
    ]
    return world.but(
        readings=readings,
        sessions=tuple(sessions),
        pv_w=odd(-3_000.0),
        pv_a={n: (odd(-3.0), odd(-3.0), 0.0) for n in nodes if chance.random() < 0.3},
        background_a={n: (odd(2.0), odd(2.0), odd(2.0)) for n in nodes if chance.random() < 0.3},
        narrowings=(*world.narrowings, *world.narrowed(Rank.GRID_OPERATOR, limit_w=odd(40_000.0)).narrowings),
    )


def known_of(world: World) -> World:
    """What a careful reader makes of it: absent, where it is no number."""

    def all_numbers(amps) -> bool:
        return amps is not None and all(map(math.isfinite, amps))

    return world.but(
        readings={n: r for n, r in world.readings.items() if all_numbers(r.current_a)},
        batteries=(),
        pv_w=world.pv_w if world.pv_w is not None and math.isfinite(world.pv_w) else None,
        pv_a={n: amps for n, amps in world.pv_a.items() if all_numbers(amps)},
        sessions=tuple(
            replace(
                s,
                measured_a=s.measured_a if all_numbers(s.measured_a) else None,
                offered_a=s.offered_a if s.offered_a is not None and math.isfinite(s.offered_a) else None,
            )
            for s in world.sessions
        ),
    )

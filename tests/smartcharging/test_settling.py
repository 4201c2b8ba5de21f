"""Batteries beside cars: unevenness, what cars have come to lean on, and what only was told."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from csms.simulator.car import Car
from smartcharging.engine.limits import Rank
from smartcharging.engine.live.allocate import allocate
from smartcharging.engine.snapshot import BatteryState, Mode, Narrowing
from tests import worlds
from tests.closed_loop import Plaza
from tests.worlds import L1, L2, THREE, ago

WAYS = [L1, L2, worlds.L3, (True, True, False), THREE]


def uneven_board(other_a: float | tuple[float, float, float] = 5.0, imbalance_a: float = 16.0):
    amps = worlds.every_phase(other_a) if isinstance(other_a, float) else other_a
    world = worlds.one_board(80, metered=True, imbalance_a=imbalance_a)
    return world.with_meter("grid", amps, sum(amps) * 230)


def car_on(world, phases, key="a", **facts):
    return world.with_car(key, "grid", phases=phases, mode=Mode.FAST, fail_safe_a=0.0, **facts)


@pytest.mark.parametrize("other_a", [5.0, -8.0])
def test_a_battery_on_one_phase_charges_no_more_unevenly_than_is_allowed(other_a):
    world = uneven_board(other_a).with_battery(phases=L1, planned_w=10_000.0).but(plan_valid=True)

    assert allocate(world).battery_w["battery"] == pytest.approx(16 * 230)


def test_it_yields_the_uneven_amps_to_a_car_and_leaves_another_phase_where_a_car_needs_it():
    charging = uneven_board().with_battery(phases=L1, planned_w=10_000.0).but(plan_valid=True)
    giving = uneven_board().with_battery(phases=L2, planned_w=-10_000.0).but(plan_valid=True)

    for world in (charging, giving):
        answer = allocate(car_on(world, L1))
        assert (answer.shares["a"].limit_a, answer.battery_w["battery"]) == (16, 0)


def test_what_a_battery_gives_now_on_one_phase_makes_the_others_uneven():
    world = uneven_board((5.0, -5.0, 5.0)).with_battery(phases=L2, power_w=-2_300.0, planned_w=-2_300.0)

    assert allocate(car_on(world.but(plan_valid=True), L1)).shares["a"].limit_a == 6


def unevenness(world, answer) -> float:
    """The worst that may be, whoever of them does what he is told and whoever nothing."""
    reading = world.readings[0].current_a
    present = [0.0] * 3
    for b in world.batteries:
        for f in range(3):
            present[f] += b.power_w / 230 / sum(b.phases) if b.phases[f] else 0.0
    other = [a - p for a, p in zip(reading, present, strict=True)]
    each = [(answer.shares[c.key].limit_a, c.phases) for c in world.sessions if not all(c.phases)]
    each += [(answer.battery_w[b.key] / 230 / sum(b.phases), b.phases) for b in world.batteries if not all(b.phases)]
    worst = 0.0
    for there in product((False, True), repeat=len(each)):
        amps = list(other)
        for (level, phases), yes in zip(each, there, strict=True):
            amps = [a + level * on * yes for a, on in zip(amps, phases, strict=True)]
        worst = max(worst, *(amps[f] - min(amps[g] for g in range(3) if g != f) for f in range(3)))
    return worst


@given(st.data())
def test_no_battery_and_no_car_make_the_phases_more_uneven_than_is_allowed(data):
    other = data.draw(st.tuples(*[st.floats(0, 10)] * 3))
    world = uneven_board(other, imbalance_a=16.0).but(plan_valid=True)
    for k in range(data.draw(st.integers(1, 2))):
        world = world.with_battery(
            key=f"battery {k}",
            phases=data.draw(st.sampled_from(WAYS)),
            planned_w=data.draw(st.floats(-20_000, 20_000)),
            power_w=0.0,
        )
    for k in range(data.draw(st.integers(0, 3))):
        world = car_on(world, data.draw(st.sampled_from(WAYS)), key=str(k))

    answer = allocate(world)

    still = replace(
        answer,
        shares={k: s._replace(limit_a=0.0) for k, s in answer.shares.items()},
        battery_w=dict.fromkeys(answer.battery_w, 0.0),
    )
    assert unevenness(world, answer) <= max(16.0, unevenness(world, still)) + 1e-6


def leaning(at: str = "grid", **facts) -> Plaza:
    """Three cars on a connection that a battery holds up."""
    world = worlds.of(("grid", None, 32, {"metered": True}), ("sub", "grid", 63, {"metered": True}))
    store = BatteryState("store", world.node(at), 0.5, 20_000, 20_000, 20_000, planned_w=-20_000.0)
    plaza = Plaza(world, 5.0, battery=replace(store, **facts))
    plaza.facts = {"plan_valid": True}
    for key in "abc":
        plaza.post(key, "grid", fail_safe_a=0.0)
        plaza.arrive(key, Car(60_000, 0.2, delay_s=5.0))
    plaza.live(180)
    assert sum(plaza.drawn_a(key) for key in "abc") > 45
    return plaza


def test_a_battery_down_to_its_reserve_gives_until_the_cars_have_come_down():
    plaza = leaning()
    since = len(plaza.loads)

    plaza.battery = replace(plaza.battery, soc=0.1)
    plaza.live(60)

    assert plaza.above_limit(since=since) == []
    assert plaza.battery_w == 0
    assert all(plaza.drawn_a(key) > 5 for key in "abc")


def test_below_its_reserve_it_gives_nothing():
    plaza = leaning()

    plaza.battery = replace(plaza.battery, soc=0.07)
    plaza.live(1)

    assert plaza.battery_w == 0


def test_a_meter_that_falls_silent_above_it_does_not_take_it_from_the_cars_at_once():
    plaza = leaning(at="sub")
    since = len(plaza.loads)

    plaza.silent.add(1)
    plaza.live(60)

    assert plaza.above_limit(since=since) == []
    assert plaza.battery_w == 0


def test_a_fire_stops_it_at_once():
    plaza = leaning()

    plaza.facts |= {"narrowings": (Narrowing(Rank.FIRE, "", node=0, limit_a=0.0),)}
    plaza.live(1)

    assert plaza.battery_w == 0


def test_nobody_charges_with_what_another_battery_was_only_told_to_give():
    world = worlds.one_board(10, metered=True).with_meter("grid", 0.0, 0.0).but(plan_valid=True)
    told = world.with_battery(key="a", planned_w=-20_000.0, power_w=0.0).with_battery(key="b", planned_w=20_000.0)
    seen = world.with_battery(key="a", planned_w=-6_900.0, power_w=-6_900.0).with_battery(key="b", planned_w=20_000.0)

    assert allocate(told).battery_w["b"] == pytest.approx(6_900)
    assert allocate(seen.with_meter("grid", -10.0, -6_900.0)).battery_w["b"] == pytest.approx(13_800)


def test_a_silent_battery_above_the_cars_is_not_leaned_on():
    world = worlds.one_board(10, metered=True).with_meter("grid", 10.0).with_battery(power_w=None, planned_w=-9_000.0)
    standing = world.with_car("a", "grid", offered_a=0.0, offered_since=ago(600), fail_safe_a=0.0)

    assert allocate(standing.but(plan_valid=True)).shares["a"].limit_a == 0

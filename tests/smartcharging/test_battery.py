"""The stationary battery follows the plan, else the sun, and never a circuit over its limit."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from smartcharging.engine.grid import Grid
from smartcharging.engine.limits import Rank
from smartcharging.engine.live.allocate import allocate
from tests import worlds
from tests.worlds import ago


def site(net_w: float, *, limit_a: float = 63, **battery):
    world = worlds.one_board(limit_a, metered=True).with_meter("grid", net_w / 690, net_w)
    return world.with_battery(**battery)


def power(world, key: str = "battery") -> float:
    return allocate(world).battery_w[key]


def test_it_follows_the_plan():
    assert power(site(0, planned_w=5_000.0).but(plan_valid=True)) == 5_000
    assert power(site(0, planned_w=-5_000.0).but(plan_valid=True)) == -5_000


@pytest.mark.parametrize(
    ("facts", "planned_w", "does_w"),
    [
        ({"soc": 1.0}, 5_000.0, 0),
        ({"soc": 0.1}, -5_000.0, 0),
        ({"soc": 0.9, "max_soc": 0.9}, 5_000.0, 0),
        ({"soc": None}, 5_000.0, 0),
        ({"max_charge_w": 3_000.0}, 5_000.0, 3_000),
        ({"max_discharge_w": 3_000.0}, -5_000.0, -3_000),
        ({}, float("nan"), 0),
        ({}, 20.0, 0),
    ],
)
def test_it_does_only_what_it_can(facts, planned_w, does_w):
    assert power(site(0, planned_w=planned_w, **facts).but(plan_valid=True)) == does_w


@pytest.mark.parametrize(
    ("net_w", "battery_w", "does_w"),
    [
        (-6_000, 0.0, 6_000),  # what would be exported
        (6_000, 0.0, -6_000),  # what would be imported
        (0, 4_000.0, 4_000),  # it already takes exactly the surplus
        (0, -4_000.0, -4_000),
        (-2_000, -4_000.0, -2_000),  # it must not feed the grid
        (-50_000, 0.0, 20_000),
        (50_000, 0.0, -20_000),
    ],
)
def test_without_a_plan_it_serves_the_site_from_the_sun(net_w, battery_w, does_w):
    assert power(site(net_w, limit_a=200, power_w=battery_w)) == pytest.approx(does_w)


def test_without_a_plan_and_a_meter_it_rests():
    world = worlds.one_board(63, metered=True, fallback_a=20.0).with_battery()

    assert power(world) == 0


def test_a_battery_that_is_not_known_is_not_sent_anywhere_without_a_plan():
    assert power(site(-6_000, power_w=None)) == 0


def test_two_batteries_share_by_what_they_can():
    world = site(-6_000).with_battery(key="small", max_charge_w=10_000.0)

    answer = allocate(world)

    assert answer.battery_w == pytest.approx({"battery": 4_000, "small": 2_000})


def test_it_yields_to_the_cars():
    world = site(20_700, limit_a=32, power_w=20_000.0, planned_w=20_000.0).but(plan_valid=True)
    world = world.with_car("a", "grid", offered_a=0.0)

    first = allocate(world)

    assert first.battery_w["battery"] < 100
    assert (first.shares["a"].limit_a, first.shares["a"].reason) == (0, "waits for others")


def test_it_charges_beside_the_cars_with_what_they_leave():
    world = site(20_700, limit_a=50, power_w=20_000.0, planned_w=20_000.0).but(plan_valid=True)
    world = world.with_car("a", "grid", offered_a=32.0, offered_since=ago(60), measured_a=(0.0, 0.0, 0.0))

    assert power(world) == pytest.approx((50 - 1.014 - 32) * 690, rel=0.01)


def test_charging_never_brings_a_circuit_over_its_limit():
    world = site(20 * 690, limit_a=32, planned_w=20_000.0).but(plan_valid=True)

    assert power(world) == pytest.approx(12 * 690)


def test_it_relieves_a_circuit_that_is_over_its_limit():
    world = site(40 * 690, limit_a=32, planned_w=0.0).but(plan_valid=True)

    assert power(world) == pytest.approx(-8 * 690)


def test_cars_may_count_on_a_battery_that_is_told_to_discharge_and_does():
    world = site(20 * 690, limit_a=32, power_w=-10 * 690.0, planned_w=-10 * 690.0).but(plan_valid=True)
    world = world.with_car(
        "a", "grid", offered_a=10.0, offered_since=ago(25), measured_a=(0.0, 0.0, 0.0), measured_at=ago(30)
    )

    answer = allocate(world)

    assert answer.shares["a"].limit_a == 12  # 32 - 30 + 10
    assert answer.battery_w["battery"] == pytest.approx(-10 * 690)


def test_cars_do_not_count_on_a_battery_that_is_only_told_to():
    world = site(30 * 690, limit_a=32, power_w=0.0, planned_w=-10 * 690.0).but(plan_valid=True)

    assert allocate(world.with_car("a", "grid", offered_a=0.0)).shares["a"].limit_a == 0


def test_cars_do_not_count_on_a_battery_that_stops_by_itself():
    world = site(20 * 690, limit_a=32, power_w=-10 * 690.0, planned_w=0.0).but(plan_valid=True)

    assert allocate(world.with_car("a", "grid", offered_a=0.0)).shares["a"].limit_a == 0


def test_a_battery_that_is_not_known_may_stop_at_any_moment():
    world = site(20 * 690, limit_a=63, power_w=None, planned_w=None)

    assert allocate(world.with_car("a", "grid", max_a=63.0)).shares["a"].limit_a == pytest.approx(14, abs=0.1)


def test_it_feeds_back_no_more_than_is_allowed():
    world = site(2_000, planned_w=-20_000.0).but(plan_valid=True)

    assert power(world.narrowed(Rank.GRID_OPERATOR, "no export", export_limit_w=5_000.0)) == pytest.approx(-7_000)


def test_with_an_export_limit_and_no_meter_it_does_not_discharge():
    world = worlds.one_board(63, metered=True, fallback_a=20.0).with_battery(planned_w=-5_000.0).but(plan_valid=True)

    assert power(world.narrowed(Rank.GRID_OPERATOR, "no export", export_limit_w=0.0)) == 0


def test_fire_puts_it_on_standby():
    world = worlds.two_rows(metered=True).with_meter("grid", 0.0).with_battery("row 1", planned_w=-5_000.0)

    assert power(world.but(plan_valid=True).narrowed(Rank.FIRE, at="row 1", limit_a=0.0)) == 0


def test_a_single_phase_battery_loads_its_own_phase():
    world = site(0, limit_a=20, planned_w=20_000.0, phases=worlds.L2).but(plan_valid=True)

    assert power(world) == pytest.approx(20 * 230)


def measured_back(world, answer, circuit: str) -> list[float]:
    """What flows back at a metered circuit once the batteries do what they are told and every car has stopped."""
    n = world.node(circuit)
    below = [b for b in world.batteries if n in world.grid.path(b.node)]
    cars = [s.measured_a or (0.0, 0.0, 0.0) for s in worlds.below(world, n)]
    flows = []
    for f, shown in enumerate(world.readings[n].current_a):
        other = shown - sum(a[f] for a in cars)
        for b in below:
            lines = sum(b.phases) * 230
            other += (answer.battery_w[b.key] - b.power_w) / lines if b.phases[f] else 0.0
        flows.append(max(-other, 0.0))
    return flows


def test_batteries_share_what_may_be_exported():
    world = site(5_000, key="a", planned_w=-5_000.0).with_battery(key="b", planned_w=-5_000.0).but(plan_valid=True)

    held = allocate(world.narrowed(Rank.GRID_OPERATOR, export_limit_w=0.0)).battery_w
    idle = allocate(world.with_meter("grid", 0.0, 0.0).narrowed(Rank.WISH, export_limit_w=3_000.0)).battery_w

    assert held == pytest.approx({"a": -2_500, "b": -2_500})
    assert idle == pytest.approx({"a": -1_500, "b": -1_500})


def test_an_export_limit_holds_at_every_circuit_on_the_way():
    world = worlds.of(
        ("grid", None, 100, {"metered": True, "export_limit_w": 6_000.0}),
        ("left", "grid", 63, {"metered": True, "export_limit_w": 1_000.0}),
        ("right", "grid", 63, {"metered": True}),
    )
    for circuit in ("grid", "left", "right"):
        world = world.with_meter(circuit, 0.0, 0.0)
    for key, circuit in (("a", "left"), ("b", "left"), ("c", "right")):
        world = world.with_battery(circuit, key=key, planned_w=-5_000.0)

    told = allocate(world.but(plan_valid=True)).battery_w

    assert told["a"] + told["b"] >= -1_000 - 1e-6
    assert sum(told.values()) >= -6_000 - 1e-6
    assert told["c"] < -1_000


def sub_board(limit_a: float = 20, shown_a: float = 0.0, **battery):
    """A metered sub-board with a battery, below a connection that takes 30 kW elsewhere."""
    world = worlds.of(("grid", None, 100, {"metered": True}), ("sub", "grid", limit_a, {"metered": True}))
    world = world.with_meter("grid", 30_000 / 690, 30_000.0).with_meter("sub", shown_a, shown_a * 690)
    return world.with_battery("sub", **{"max_discharge_w": 30_000.0, **battery})


def test_it_never_discharges_more_than_the_fuse_above_it_bears():
    answer = allocate(sub_board())

    assert answer.battery_w["battery"] == pytest.approx(-20 * 690)
    assert answer.node_reason[1] == "limit:sub:L1"


def test_it_shares_the_fuse_with_the_sun():
    assert power(sub_board(shown_a=-18.0, max_discharge_w=10_000.0)) == pytest.approx(-2 * 690)
    assert power(sub_board(shown_a=-22.0)) == 0


def test_measured_load_takes_off_what_flows_back_and_cars_do_not():
    loaded = sub_board(shown_a=10.0)
    car = loaded.with_car("a", "sub", offered_a=10.0, offered_since=ago(60), measured_a=(10.0, 10.0, 10.0))
    unseen = loaded.with_car("a", "sub", offered_a=10.0, offered_since=ago(600), arrived_at=ago(900))

    assert power(loaded) == pytest.approx(-30 * 690)
    assert power(car) == pytest.approx(-20 * 690)
    assert power(unseen) == pytest.approx(-20 * 690)


def test_several_batteries_share_one_fuse_on_the_phases_they_feed():
    world = sub_board(key="a").with_battery("sub", key="b", phases=worlds.L1)

    answer = allocate(world)

    assert all(back <= 20 + 1e-6 for back in measured_back(world, answer, "sub"))
    assert answer.battery_w["a"] < 0 and answer.battery_w["b"] < 0


def test_a_circuit_without_a_meter_uses_only_what_is_known_of_it():
    world = sub_board()
    world = world.but(grid=Grid(tuple(replace(c, metered=c.name == "grid") for c in world.grid.circuits)))
    bare = world.but(readings={0: world.readings[0]})

    assert power(bare) == pytest.approx(-20 * 690)
    assert power(bare.but(background_a={1: (5.0, 5.0, 5.0)})) == pytest.approx(-25 * 690)
    assert power(bare.but(pv_a={1: (-5.0, -5.0, -5.0)})) == pytest.approx(-15 * 690)


def test_it_does_not_discharge_through_a_silent_meter():
    world = sub_board().with_meter("sub", None)

    assert power(world) == 0


def test_a_battery_that_is_not_known_may_be_all_of_the_load_there_is():
    world = sub_board(shown_a=20.0, power_w=None, planned_w=-20_000.0, max_charge_w=40 * 690.0).but(plan_valid=True)

    assert power(world) == 0


def test_the_margin_stays_free_backwards_too():
    world = sub_board()
    grid = Grid(tuple(replace(c, margin_a=2.0) for c in world.grid.circuits))

    assert power(world.but(grid=grid)) == pytest.approx(-18 * 690)


def test_cars_count_on_no_more_than_it_may_feed_back():
    world = worlds.of(("grid", None, 32, {"metered": True}), ("sub", "grid", 5, {"metered": True}))
    world = world.with_meter("grid", 20.0, 20 * 690.0).with_meter("sub", -10.0, -6_900.0)
    world = world.with_battery("sub", power_w=-6_900.0, planned_w=-6_900.0).but(plan_valid=True)

    answer = allocate(world.with_car("a", "grid", offered_a=0.0, offered_since=ago(600)))

    assert answer.battery_w["battery"] == pytest.approx(-5 * 690)
    assert answer.shares["a"].limit_a == 7  # 32 - 30 and the 5 A that it may go on giving


@pytest.mark.parametrize("seed", range(40))
def test_no_fuse_carries_more_backwards_than_it_bears(seed):
    chance = random.Random(seed)
    world = worlds.of(
        ("grid", None, chance.uniform(20, 80), {"metered": True, "margin_a": chance.choice([0.0, 1.0])}),
        ("left", "grid", chance.uniform(6, 40), {"metered": True}),
        ("right", "grid", chance.uniform(6, 40), {"metered": True}),
    )
    for circuit in ("grid", "left", "right"):
        world = world.with_meter(circuit, tuple(chance.uniform(-15, 25) for _ in range(3)))
    for k in range(4):
        world = world.with_battery(
            chance.choice(["grid", "left", "right"]),
            key=f"battery {k}",
            phases=chance.choice([worlds.THREE, worlds.L1, worlds.L3]),
            power_w=chance.choice([0.0, -2_000.0, 3_000.0]),
            planned_w=chance.uniform(-20_000, 5_000),
        )
    world = world.but(plan_valid=True)

    answer = allocate(world)

    for circuit in world.grid.circuits:
        back = measured_back(world, answer, circuit.name)
        alone = measured_back(world, replace(answer, battery_w=dict.fromkeys(answer.battery_w, 0.0)), circuit.name)
        most = circuit.limit_a[0] - circuit.margin_a
        assert all(b <= max(most, a) + 1e-6 for b, a in zip(back, alone, strict=True))

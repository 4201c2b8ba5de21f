"""The stationary battery follows the plan, else the sun, and never a circuit over its limit."""

from __future__ import annotations

import pytest

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

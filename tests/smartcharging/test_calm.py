"""Who is switched on and off how often, who waits for what, and what is said of it."""

from __future__ import annotations

from datetime import timedelta

import pytest

from csms.simulator.car import Car
from smartcharging.engine.live.allocate import allocate
from smartcharging.engine.rules import Rules
from smartcharging.engine.snapshot import Mode, NodeReading
from tests import worlds
from tests.closed_loop import Plaza
from tests.worlds import ago, ahead

HOURS = 4


def test_two_cars_with_room_for_one_take_turns_a_few_times_and_not_every_few_minutes():
    plaza = Plaza(worlds.one_board(11, metered=True), tick_s=2.0, report_s=10.0)
    for key, wanted_wh in (("a", 18_000.0), ("b", 17_000.0)):
        plaza.post(key, "grid", fail_safe_a=0.0)
        plaza.arrive(key, Car(100_000, 0.1), departure=plaza.now + timedelta(hours=HOURS), energy_needed_wh=wanted_wh)
        plaza.live(60)

    got = dict.fromkeys("ab", 0.0)
    for _ in range(round(HOURS * 3600 / plaza.tick_s) - 120):
        plaza.tick()
        for key, post in plaza.posts.items():
            taken_wh = plaza.drawn_a(key) * 690 * plaza.tick_s / 3600
            got[key] += taken_wh
            post.energy_needed_wh = max((post.energy_needed_wh or 0.0) - taken_wh, 0.0)

    assert all(len(post.switches) <= 5 for post in plaza.posts.values())
    assert sum(got.values()) > 0.95 * 11 * 690 * (HOURS - 0.1)
    assert min(got.values()) > 0.35 * sum(got.values())


def test_a_quarter_that_is_on_course_pauses_nobody_in_its_last_seconds():
    plaza = Plaza(worlds.one_board(63, metered=True), 4.0, tick_s=1.0)
    plaza.now = plaza.world.now.replace(minute=0, second=0)
    plaza.post("a", "grid", fail_safe_a=0.0)
    plaza.arrive("a", Car(100_000, 0.1))
    means, imported_wh = [], 0.0

    for second in range(3 * 900):
        plaza.facts = {"peak_target_w": 8_000.0, "quarter_import_wh": imported_wh}
        plaza.tick()
        imported_wh += sum(plaza.current_a(0)) * 230 / 3600
        if second % 900 == 898:
            means.append(4 * imported_wh)
            imported_wh = 0.0

    assert plaza.posts["a"].switches == []
    assert max(means) < 8_050
    assert min(means) > 7_500


def waiting(world, key="a", **facts):
    """A car that was paused a good while ago, and takes nothing since."""
    ordinary = {"offered_a": 0.0, "offered_since": ago(300), "off_since": ago(300), "arrived_at": ago(7200)}
    return world.with_car(key, "grid", fail_safe_a=0.0, mode=Mode.FAST, **{**ordinary, **facts})


def test_a_paused_car_waits_for_steady_room_and_nobody_less_urgent_takes_it_meanwhile():
    world = waiting(worlds.one_board(6.5), priority=3)
    beside = world.with_car("b", "grid", fail_safe_a=0.0, priority=1)

    answer = allocate(beside)

    assert (answer.shares["a"].limit_a, answer.shares["a"].reason) == (0, "steady room")
    assert answer.shares["b"].limit_a == 0
    assert allocate(waiting(worlds.one_board(7.0), priority=3)).shares["a"].limit_a > 0


@pytest.mark.parametrize(
    "facts",
    [{"off_since": ago(700), "offered_since": ago(700)}, {"departure": ahead(1800), "energy_needed_wh": 20_000.0}],
)
def test_after_ten_minutes_or_when_it_must_charge_its_minimum_is_enough(facts):
    assert allocate(waiting(worlds.one_board(6.5), **facts)).shares["a"].limit_a == pytest.approx(6.5)


def test_a_surplus_car_that_its_row_blocks_leaves_the_sun_to_others():
    world = worlds.of(("grid", None, 63, {"metered": True}), ("row 1", "grid", 10, {}), ("row 2", "grid", 63, {}))
    sunny = {"mode": Mode.SURPLUS, "fail_safe_a": 0.0}
    world = world.with_meter("grid", -14.0, -14 * 690.0)
    world = world.with_car("first", "row 1", priority=3, **sunny).with_car("second", "row 1", priority=2, **sunny)
    answer = allocate(world.with_car("elsewhere", "row 2", **sunny))

    assert answer.shares["first"].limit_a >= 6
    assert answer.shares["second"].limit_a == 0
    assert answer.shares["second"].circuit == "row 1"
    assert answer.shares["elsewhere"].limit_a >= 6
    assert sum(s.limit_a for s in answer.shares.values()) <= 14


def test_what_keeps_a_resting_car_out_for_longer_is_said_first():
    world = worlds.one_board(63, metered=True, fallback_a=3.0).with_car(
        "a", "grid", offered_a=0.0, off_since=ago(20), offered_since=ago(20), arrived_at=ago(900), fail_safe_a=0.0
    )

    silent, heard = (allocate(one).shares["a"] for one in (world, world.with_meter("grid", 10.0)))

    assert silent.reason == "meter stale: grid" or silent.circuit == "grid"
    assert silent.reason != "minimum time off"
    assert heard.reason == "minimum time off"


def test_a_station_that_is_back_after_its_lease_rises_when_the_others_have_come_down():
    world = worlds.one_board(32).with_car(
        "back", "grid", offered_a=13.0, offered_since=ago(900), lease_until=ago(300), fail_safe_a=6.0, mode=Mode.FAST
    )
    world = world.with_car("other", "grid", offered_a=26.0, offered_since=ago(900), fail_safe_a=6.0, mode=Mode.FAST)

    answer = allocate(world)

    assert answer.shares["back"].limit_a == 6
    assert answer.shares["other"].limit_a < 26


def test_a_boards_load_is_remembered_above_it_when_its_meter_falls_silent():
    world = worlds.of(
        ("grid", None, 63, {}),
        ("left", "grid", 63, {"metered": True, "worst_a": (10.0, 10.0, 10.0)}),
        ("right", "grid", 63, {}),
    )
    standing = {"offered_a": 20.0, "offered_since": ago(600), "measured_a": worlds.every_phase(20.0)}
    world = world.with_car("a", "right", max_a=63.0, mode=Mode.FAST, fail_safe_a=0.0, measured_at=ago(2), **standing)
    heard = allocate(world.with_meter("left", 40.0))

    for _ in range(4):
        silent = allocate(world.but(readings={1: NodeReading(None)}, carried=heard.carried))
        heard = silent

    assert silent.shares["a"].limit_a + 40 <= 63


# --- one limit after the other ----------------------------------------------------------------------------------------


def test_a_ripple_upwards_is_not_worth_a_message():
    world = worlds.one_board(20).with_car("a", "grid", offered_a=19.7, offered_since=ago(100))

    assert allocate(world).shares["a"].limit_a == 19.7


def test_even_a_ripple_downwards_is_obeyed():
    world = worlds.one_board(20).with_car("a", "grid", offered_a=20.2, offered_since=ago(100))

    share = allocate(world).shares["a"]
    assert share.limit_a == 20
    assert share.urgent


def test_a_limit_rises_step_by_step():
    world = worlds.one_board(63).with_car("a", "grid", offered_a=6.0, offered_since=ago(100))

    share = allocate(world, Rules(ramp_a=2.0, ramp_share=0.0)).shares["a"]

    assert (share.limit_a, share.reason) == (8, "rising")


def test_a_paused_car_rests_a_while_but_a_newcomer_does_not():
    paused = {"offered_a": 0.0, "off_since": ago(60), "offered_since": ago(60)}
    world = worlds.one_board().with_car("a", "grid", arrived_at=ago(900), **paused)

    assert allocate(world).shares["a"].reason == "minimum time off"
    assert allocate(world.with_changed("a", arrived_at=ago(50))).shares["a"].limit_a > 0
    assert allocate(world.with_changed("a", off_since=ago(400))).shares["a"].limit_a > 0


def test_a_car_that_has_just_started_goes_on_although_the_plan_changed():
    world = worlds.one_board().with_car(
        "a", "grid", planned_w=0.0, offered_a=16.0, offered_since=ago(60), on_since=ago(60)
    )

    share = allocate(world.but(plan_valid=True)).shares["a"]

    assert (share.limit_a, share.reason) == (6, "minimum time on")


def test_no_minimum_time_holds_against_a_limit():
    world = worlds.one_board(32, metered=True).with_car(
        "a", "grid", offered_a=16.0, offered_since=ago(60), on_since=ago(60), measured_a=(16.0, 16.0, 16.0)
    )

    share = allocate(world.with_meter("grid", 46.0)).shares["a"]

    assert (share.limit_a, share.urgent) == (0, True)


def test_what_every_station_already_has_is_not_changed():
    world = worlds.five_levels().with_sessions(post_1=1, post_2=1, post_3=1, post_7=1)
    first = allocate(world)

    again = allocate(world.accepted(first).but(readings={}))
    settled = world.accepted(first)
    drawn = {n: worlds.sum_at(world, first, c.name) for n, c in enumerate(world.grid.circuits) if c.metered}
    settled = settled.but(readings={n: worlds.NodeReading(a) for n, a in drawn.items()})

    assert {k: s.limit_a for k, s in allocate(settled).shares.items()} == {
        k: s.limit_a for k, s in first.shares.items()
    }
    assert all(again.shares[k].limit_a <= first.shares[k].limit_a for k in first.shares)


def test_however_many_a_row_blocks_the_sun_reaches_who_can_take_it():
    world = worlds.of(("grid", None, 63, {"metered": True}), ("row 1", "grid", 10, {}), ("row 2", "grid", 63, {}))
    world = world.with_meter("grid", -14.0, -14 * 690.0)
    for n in range(60):
        world = world.with_car(f"blocked {n}", "row 1", priority=3, mode=Mode.SURPLUS, fail_safe_a=0.0)
    world = world.with_car("elsewhere", "row 2", mode=Mode.SURPLUS, fail_safe_a=0.0)

    answer = allocate(world)

    assert sum(s.limit_a >= 6 for s in answer.shares.values()) == 2
    assert answer.shares["elsewhere"].limit_a >= 6

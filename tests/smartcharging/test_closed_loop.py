"""Cars, chargers and meters in virtual time around the live layer: what reaches the hungry, how soon, and how calmly.

The site is that of `tests/scenarios/world.py`; what lies between engine and copper is in `tests/closed_loop.py`.
"""

from __future__ import annotations

from datetime import timedelta

import pytest

from csms.simulator.car import Car
from smartcharging.engine.snapshot import BatteryState, Mode
from tests import worlds
from tests.closed_loop import Plaza

CARS = ("R1-A", "R1-B", "R2-A", "DC-1")
NARROWEST = 4 * 6.0


def square(building_a: float = 25.0, *, report_s: float = 10.0, battery: bool = True, tick_s: float = 0.5) -> Plaza:
    world = worlds.of(
        ("grid", None, 63, {"metered": True, "margin_a": 1.0, "fallback_a": 35.0}),
        ("row 1", "grid", 40, {}),
        ("row 2", "grid", 32, {}),
    )
    store = BatteryState("store", 0, 0.5, 20_000, 5_000, 5_000) if battery else None
    plaza = Plaza(world, building_a, battery=store, report_s=report_s, tick_s=tick_s)
    plaza.post("R1-A", "row 1", priority=3)
    plaza.post("R1-B", "row 1", wiring=("L2", "L3", "L1"), priority=2)
    plaza.post("R2-A", "row 2", wiring=("L2",), priority=2)
    plaza.post("R2-B", "row 2", priority=2)
    plaza.post("DC-1", "grid", dc=True, max_w=40_000.0, priority=2)
    return plaza


def car(**facts) -> Car:
    ordinary = {"battery_wh": 60_000, "soc": 0.2, "delay_s": 0.3, "max_dc_w": 40_000.0}
    return Car(**{**ordinary, **facts})


def all_arrive(plaza: Plaza, gap_s: float = 0.0) -> None:
    for key in CARS:
        plaza.arrive(key, car(phases=1 if key == "R2-A" else 3))
        plaza.live(gap_s)


def below(plaza: Plaza, key: str, amps: float, since: int = 0) -> float:
    """For how many seconds the limit of this post was below."""
    return sum(h[key] < amps for h in plaza.history[since:]) * plaza.tick_s


@pytest.mark.parametrize("gap_s", [0.0, 0.5, 3.0])
@pytest.mark.parametrize("report_s", [1.0, 10.0, 30.0])
def test_cars_that_arrive_together_all_charge_within_seconds_and_use_what_there_is(gap_s, report_s):
    plaza = square(report_s=report_s)
    plaza.live(30)
    since = len(plaza.history)

    all_arrive(plaza, gap_s)
    plaza.live(120 - 4 * gap_s)

    assert plaza.above_limit() == []
    for number, key in enumerate(CARS):
        assert below(plaza, key, 6.0, since) - number * gap_s <= 12, key
        assert not plaza.posts[key].switches
    # R1-A counts twice; on L2, where all four meet, the connection is used but for its margin and a car's rounding.
    assert max(plaza.current_a(0)) > 62 - 3
    amps = sorted(plaza.drawn_a(key) for key in ("R1-B", "R2-A", "DC-1"))
    assert amps[-1] - amps[0] < 1.0
    assert plaza.drawn_a("R1-A") > amps[-1]


def test_current_that_a_small_car_cannot_take_reaches_its_hungry_neighbours():
    plaza = square(10.0)
    plaza.live(30)

    all_arrive(plaza)
    plaza.live(60)

    # R1-A has the higher class and a car of 16 A: it keeps that and a little, not its station's 32 A.
    assert plaza.drawn_a("R1-A") == 16
    assert plaza.limit_a("R1-A") <= 16 + 8
    plaza.live(30)
    assert plaza.limit_a("R1-A") <= 18
    assert max(plaza.current_a(0)) > 62 - 6
    assert plaza.above_limit() == []


def test_a_car_that_lends_gets_it_back_soon_after_it_begins_to_ask():
    plaza = square(10.0)
    lazy = car(max_a=8.0)
    plaza.arrive("R1-A", lazy)
    plaza.arrive("R1-B", car(max_a=32.0, cable_a=32.0))
    plaza.arrive("R2-A", car(phases=1, max_a=32.0))
    plaza.live(120)
    assert plaza.limit_a("R1-A") < 10
    lent = plaza.drawn_a("R1-B")
    began = len(plaza.history)

    lazy.max_a = 32.0
    plaza.live(60)

    back = next(k for k, h in enumerate(plaza.history[began:]) if h["R1-A"] > 14) * plaza.tick_s
    assert back <= 25  # its report, the others' way down, one step
    assert plaza.drawn_a("R1-B") < lent
    assert plaza.drawn_a("R1-A") > plaza.drawn_a("R1-B")
    assert plaza.above_limit() == []


def test_a_car_that_takes_all_it_may_at_any_moment_never_overloads_anything():
    """Unused current is lent by lowering a limit, never by hoping: whoever wakes up does so within his limit."""
    plaza = square(10.0)
    all_arrive(plaza)
    plaza.live(20)

    for _ in range(10):
        for post in plaza.posts.values():
            if post.outlet.car is not None:
                post.outlet.car.max_a = plaza.chance.choice([0.0, 6.0, 10.0, 16.0, 32.0])
                post.outlet.car.max_dc_w = plaza.chance.choice([0.0, 4_000.0, 40_000.0])
        plaza.live(plaza.chance.choice([3.5, 11.0, 26.0]))

    assert plaza.above_limit() == []


def test_a_charger_that_waits_for_its_car_does_not_keep_others_out():
    plaza = square(25.0, battery=False)
    sleepy = car(asks=False)
    plaza.arrive("DC-1", sleepy)
    plaza.live(40)
    since = len(plaza.history)

    plaza.arrive("R1-A", car())
    plaza.arrive("R1-B", car())
    plaza.live(60)

    assert below(plaza, "R1-A", 6.0, since) <= 12
    assert below(plaza, "R1-B", 6.0, since) <= 12
    assert plaza.drawn_a("R1-A") == 16
    assert plaza.drawn_a("R1-B") > 12


def test_a_car_that_never_drew_anything_is_not_kept_waiting_for_having_been_paused():
    plaza = square(25.0, battery=False)
    plaza.live(5)
    plaza.arrive("R1-A", car(asks=False))  # slow to wake
    plaza.live(5)
    plaza.building[0] = (60.0, 60.0, 60.0)
    plaza.live(25)
    assert plaza.limit_a("R1-A") == 0
    since = len(plaza.history)

    plaza.building[0] = (20.0, 20.0, 20.0)
    plaza.live(40)

    assert below(plaza, "R1-A", 6.0, since) <= 30


def test_a_moment_of_too_much_load_lowers_the_cars_and_does_not_stop_them():
    plaza = square(10.0, battery=False)
    all_arrive(plaza)
    plaza.live(60)

    plaza.building[0] = (40.0, 40.0, 40.0)
    plaza.live(4)
    plaza.building[0] = (10.0, 10.0, 10.0)
    plaza.live(60)

    assert all(not p.switches for p in plaza.posts.values())
    assert min(plaza.drawn_a(key) for key in CARS) > 10


def test_load_that_stays_pauses_the_least_urgent_after_ten_seconds_and_copper_never_bears_a_tenth_too_much():
    plaza = square(10.0, battery=False)
    all_arrive(plaza)
    plaza.live(60)
    since = len(plaza.history)

    plaza.building[0] = (43.0, 43.0, 43.0)
    plaza.live(40)

    paused = [key for key in CARS if plaza.limit_a(key) == 0]
    assert len(paused) == 1
    assert paused != ["R1-A"]
    late = plaza.above_limit(since=since + round(10 / plaza.tick_s))
    assert max((over for _, _, over in late), default=0.0) <= 6.3
    assert plaza.above_limit(since=since + round(25 / plaza.tick_s)) == []


def test_when_everything_is_settled_nobody_is_told_anything():
    plaza = square(10.0)
    all_arrive(plaza)
    plaza.live(150)
    began = plaza.history[-1]

    plaza.live(100)

    assert plaza.history[-200:] == [began] * 200


# --- the plan, the sun and the live layer together --------------------------------------------------------------------


def test_a_plan_that_changes_its_mind_every_minute_does_not_switch_a_car_on_and_off_with_it():
    plaza = square(10.0, battery=False, tick_s=5.0)
    plaza.facts = {"plan_valid": True}

    def plan(now):
        return 0.0 if int((now - worlds.NOON).total_seconds() // 60) % 2 else 6_900.0

    plaza.arrive("R1-A", car(), mode=Mode.PLAN, planned_w=plan)
    plaza.live(2 * 3600)

    assert len(plaza.posts["R1-A"].switches) <= 6
    assert plaza.reason("R1-A") in {"plan", "switched enough"}
    plaza.live(600)
    assert len(plaza.posts["R1-A"].switches) <= 6


def test_a_plan_that_runs_out_becomes_charging_and_never_a_stop():
    plaza = square(10.0, battery=False)
    plaza.facts = {"plan_valid": True}
    plaza.arrive("R1-A", car(), mode=Mode.PLAN, planned_w=lambda _: 6_900.0)
    plaza.live(60)
    assert plaza.drawn_a("R1-A") == 10
    since = len(plaza.history)

    plaza.facts = {"plan_valid": False}
    plaza.live(60)

    assert min(h["R1-A"] for h in plaza.history[since:]) >= 10
    assert plaza.drawn_a("R1-A") == 16


def test_a_car_that_must_charge_now_does_so_whatever_the_plan_says():
    plaza = square(10.0, battery=False)
    plaza.facts = {"plan_valid": True}
    soon = plaza.now + timedelta(hours=1)

    plaza.arrive("R1-A", car(), mode=Mode.PLAN, planned_w=lambda _: 0.0, departure=soon, energy_needed_wh=18_000.0)
    plaza.live(60)

    assert plaza.drawn_a("R1-A") == 16


@pytest.mark.parametrize("report_s", [5.0, 10.0, 30.0, 60.0])
def test_a_surplus_car_follows_the_sun_within_half_a_minute(report_s):
    plaza = square(5.0, battery=False, report_s=report_s)
    plaza.pv = {0: (-13.0, -13.0, -13.0)}
    plaza.arrive("R1-A", car(), mode=Mode.SURPLUS)
    plaza.live(90)
    assert plaza.drawn_a("R1-A") == pytest.approx(8.0, abs=0.6)

    plaza.pv = {0: (-18.0, -18.0, -18.0)}
    plaza.live(30)
    assert plaza.drawn_a("R1-A") == pytest.approx(13.0, abs=1.0)

    plaza.pv = {0: (-12.0, -12.0, -12.0)}
    plaza.live(30)
    assert plaza.drawn_a("R1-A") == pytest.approx(7.0, abs=0.6)


def test_the_quarter_hours_mean_stays_below_its_target():
    plaza = square(10.0, battery=False, tick_s=2.0)
    plaza.now = plaza.world.now.replace(minute=0, second=0)
    target_w, imported_wh = 20_000.0, 0.0
    for key in ("R1-A", "R1-B"):
        plaza.arrive(key, car())

    for _ in range(round(900 / plaza.tick_s)):
        plaza.facts = {"peak_target_w": target_w, "quarter_import_wh": imported_wh}
        plaza.tick()
        imported_wh += sum(plaza.current_a(0)) * 230 * plaza.tick_s / 3600

    assert imported_wh * 4 <= target_w * 1.01
    assert imported_wh * 4 > target_w * 0.9


def test_a_meter_that_falls_silent_gives_nobody_more_than_it_last_left():
    plaza = square(building_a=45.0, battery=False)  # more than the 27 A that the fallback was commissioned for
    plaza.live(10)
    plaza.arrive("R1-A", car(max_a=32))
    plaza.live(60)
    since = len(plaza.loads)

    for seconds in (3, 3, 30, 3, 60, 30):
        plaza.silent ^= {0}
        plaza.live(seconds)

    assert plaza.above_limit(since=since) == []
    assert plaza.drawn_a("R1-A") > 15

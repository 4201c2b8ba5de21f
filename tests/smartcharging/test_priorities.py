"""Who goes first, and who can no longer wait."""

from __future__ import annotations

import math

import pytest

from smartcharging.engine.priorities import just_paused, just_started, laxity_s, max_a, must_charge, rank, weight
from smartcharging.engine.snapshot import Session
from tests.worlds import L1, NOON, THREE, ago, ahead


def car(key: str = "a", **facts) -> Session:
    facts.setdefault("phases", THREE)
    facts.setdefault("max_a", 16.0)
    return Session(key, 0, **facts)


@pytest.mark.parametrize(
    ("facts", "slack_s"),
    [
        ({}, math.inf),
        ({"departure": ahead(7200)}, math.inf),
        ({"departure": ahead(7200), "energy_needed_wh": 0.0}, math.inf),
        ({"departure": ahead(7200), "energy_needed_wh": 11_040.0}, 3600),  # 16 A, three phases: 11.04 kW
        ({"departure": ahead(7200), "energy_needed_wh": 3_680.0, "phases": L1}, 3600),
        ({"departure": ahead(7200), "energy_needed_wh": 11_040.0, "max_w": 5520.0}, 0),
        ({"departure": ahead(7200), "energy_needed_wh": 11_040.0, "phases": L1, "dc": True}, 3600),
        ({"departure": ahead(3600), "energy_needed_wh": 22_080.0}, -3600),
        ({"departure": ago(60), "energy_needed_wh": 22_080.0}, math.inf),
        ({"departure": ahead(60), "energy_needed_wh": 1.0, "max_a": 0.0}, math.inf),
    ],
)
def test_laxity_is_the_time_left_to_wait(facts, slack_s):
    assert laxity_s(car(**facts), NOON) == pytest.approx(slack_s)


@pytest.mark.parametrize(("wanted_wh", "must"), [(10_000.0, False), (19_319.0, False), (19_321.0, True)])
def test_a_car_must_charge_when_less_than_a_slot_is_left(wanted_wh, must):
    assert must_charge(car(departure=ahead(7200), energy_needed_wh=wanted_wh), NOON) is must
    assert not must_charge(car(departure=ahead(7200), energy_needed_wh=wanted_wh, wants=False), NOON)


def test_class_then_must_then_running_then_slack_then_arrival_then_key():
    hurried = {"departure": ahead(3600), "energy_needed_wh": 11_000.0}
    cars = [
        car("g", arrived_at=ago(10)),
        car("f", arrived_at=ago(100)),
        car("e", departure=ahead(7200), energy_needed_wh=100.0),
        car("d", offered_a=6.0, on_since=ago(10)),
        car("c", **hurried),
        car("b", priority=2),
        car("a2", priority=2, **hurried),
        car("z"),
        car("y"),
    ]
    expected = ["a2", "b", "c", "d", "e", "f", "g", "y", "z"]

    assert [s.key for s in rank(cars, NOON)] == expected
    assert [s.key for s in rank(reversed(cars), NOON)] == expected


def test_the_smaller_of_amps_and_watts_is_the_maximum():
    assert max_a(car(max_w=6900.0)) == 10
    assert max_a(car(max_w=6900.0, phases=L1)) == 16
    assert max_a(car(max_w=6900.0, phases=L1, dc=True)) == 10
    assert max_a(car(phases=(False, False, False), max_w=100.0)) == 16


def test_each_class_weighs_twice_the_one_below():
    assert weight(car(priority=2)) == 2 * weight(car(priority=1))
    assert weight(car(priority=10)) == weight(car(priority=8))
    assert weight(car(priority=-1)) == weight(car(priority=0))


def test_a_start_and_a_pause_last_a_while():
    assert just_started(car(offered_a=6.0, on_since=ago(299)), NOON)
    assert not just_started(car(offered_a=6.0, on_since=ago(300)), NOON)
    assert not just_started(car(offered_a=0.0, on_since=ago(10)), NOON)
    assert just_paused(car(offered_a=0.0, off_since=ago(119)), NOON)
    assert not just_paused(car(offered_a=0.0, off_since=ago(120)), NOON)
    assert not just_paused(car(offered_a=6.0, off_since=ago(10)), NOON)
    assert not just_paused(car(offered_a=0.0, off_since=ago(100), arrived_at=ago(100)), NOON)

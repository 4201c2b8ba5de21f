"""A plan's watts in shares that cars can take; and until when the plan puts a car off."""

from __future__ import annotations

import numpy as np
import pytest

from smartcharging.engine.live.spending import spend
from smartcharging.engine.plan.window import counted_on_w, hurry, ready_by


def shares(planned_a: list[float], takes: list[float] | None = None, running: list[bool] | None = None) -> list[float]:
    """Cars of three phases, 6 to 16 A each."""
    count = len(planned_a)
    return spend(
        np.array(planned_a),
        np.full(count, 16.0),
        np.full(count, 6.0),
        np.full(count, 3.0),
        np.array(takes or [1.0] * count),
        np.array(running or [False] * count),
        np.arange(count, dtype=float),
    ).tolist()


def test_a_plan_that_can_be_followed_is_followed():
    assert shares([16, 8, 0]) == [16, 8, 0]


def test_pieces_below_the_minimum_are_put_together():
    assert shares([3, 2, 1]) == [6, 0, 0]


def test_a_sliver_alone_is_left_out_and_half_a_minimum_rounded_up():
    assert shares([2]) == [0]
    assert shares([3]) == [6]


def test_who_runs_is_kept_on_with_less_than_it_takes_to_start():
    assert shares([2], running=[True]) == [6]
    assert shares([3, 2.9], running=[False, True]) == [0, 6]


def test_what_one_leaves_the_others_spend():
    told = shares([16, 10], takes=[0.5, 1.0])

    assert told == [16, 16]  # 8 A are left, and the other can take 6 of them
    assert sum(shares([8, 10], takes=[0.9, 1.0])[k] * t for k, t in enumerate((0.9, 1.0))) == pytest.approx(18)


def test_nobody_who_waits_by_the_plan_is_started_with_it():
    assert shares([16, 0], takes=[0.5, 1.0]) == [16, 0]


def test_a_car_is_ready_a_quarter_before_it_leaves_where_there_is_time():
    assert ready_by(8, energy_wh=10_000, max_w=10_000, slot_s=900) == 7
    assert ready_by(8, energy_wh=20_000, max_w=10_000, slot_s=900) == 8


@pytest.mark.parametrize(("takes", "watts"), [(None, 9_700), (1.0, 10_000), (0.4, 4_000), (0.0, 9_700)])
def test_the_plan_counts_on_what_a_car_was_seen_to_take(takes, watts):
    assert counted_on_w(10_000, takes) == pytest.approx(watts)


def test_who_runs_goes_on_and_then_who_has_least_time():
    waits = hurry(8, 5_000, 10_000, 900, running=False)

    assert hurry(4, 5_000, 10_000, 900, running=False) > waits
    assert hurry(8, 5_000, 10_000, 900, running=True) > hurry(2, 5_000, 10_000, 900, running=False)

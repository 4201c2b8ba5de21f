"""A car whose station tells no currents by phase, and the restless meter above it."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta

import pytest

from smartcharging.engine.live.phase_steps import SETTLES, StepMemory, busy, observe_step, phases_shown

NOW = datetime(2026, 3, 10, 10, 0, tzinfo=UTC)


class Meter:
    """Shows the car on its phases, and other load that wanders by itself."""

    def __init__(self, uses, noise_a: float = 0.5, seed: int = 1) -> None:
        self.uses, self.noise_a, self.chance = uses, noise_a, random.Random(seed)
        self.other = [20.0, 30.0, 10.0]
        self.now, self.memory = NOW, StepMemory()

    def show(self, offered_a: float, *, times: int = 1, takes_a: float | None = None, power: bool = False) -> None:
        takes_a = offered_a if takes_a is None else takes_a
        for _ in range(times):
            self.now += SETTLES
            self.other = [o + self.chance.gauss(0, self.noise_a) for o in self.other]
            a, b, c = (o + takes_a * u for o, u in zip(self.other, self.uses, strict=True))
            power_w = takes_a * 230 * sum(self.uses) if power else None
            self.memory = observe_step(self.memory, self.now, offered_a, True, (a, b, c), power_w)


@pytest.mark.parametrize("uses", [(1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 0), (1, 1, 1)])
def test_two_steps_beside_a_calm_meter_show_the_phases_of_a_car(uses):
    meter = Meter(uses)
    meter.show(0, times=6)
    meter.show(16)
    assert phases_shown(meter.memory) is None  # one step may be a coincidence
    meter.show(10)

    assert phases_shown(meter.memory) == tuple(bool(u) for u in uses)


def test_at_a_restless_meter_it_takes_more_and_is_seldom_wrong():
    wrong = sure = 0
    for seed in range(60):
        meter = Meter((0, 1, 0), noise_a=4.0, seed=seed)
        meter.show(6, times=8)
        for offered in (14, 6, 16, 8, 16, 6):
            meter.show(offered)
        shown = phases_shown(meter.memory)
        sure += shown is not None
        wrong += shown not in (None, (False, True, False))

    assert wrong <= 3
    assert sure >= 30


def test_before_it_is_known_how_restless_a_meter_is_two_steps_prove_little():
    meter = Meter((1, 0, 0), noise_a=0.0)
    meter.show(6)
    meter.show(12)
    meter.show(6)

    assert phases_shown(meter.memory) is None


def test_a_car_that_does_not_follow_its_steps_proves_nothing():
    meter = Meter((1, 1, 1))
    meter.show(16, times=6, takes_a=8, power=True)
    for offered in (20, 16, 24, 16):
        meter.show(offered, takes_a=8, power=True)

    assert meter.memory.steps == 0
    assert phases_shown(meter.memory) is None


def test_a_car_on_no_phase_at_all_is_not_believed_in():
    meter = Meter((1, 1, 1))
    meter.show(16, times=6, takes_a=8)
    for offered in (20, 16, 24, 16):
        meter.show(offered, takes_a=8)

    assert phases_shown(meter.memory) is None


def test_after_a_pause_all_is_shown_anew():
    meter = Meter((1, 1, 1))
    meter.show(6, times=6)
    meter.show(16)
    meter.show(8)
    assert phases_shown(meter.memory) == (True, True, True)

    meter.show(0)
    assert phases_shown(meter.memory) is None
    meter.uses = (1, 0, 0)
    meter.show(16)
    meter.show(8)

    assert phases_shown(meter.memory) == (True, False, False)


def test_steps_of_neighbours_are_not_taken_for_its_own():
    meter = Meter((1, 0, 0))
    meter.show(6, times=6)
    meter.memory = busy(meter.memory)
    meter.other[1] += 10  # a neighbour starts
    meter.show(16)

    assert meter.memory.steps == 0


def test_small_steps_and_moments_before_it_has_settled_are_left_out():
    meter = Meter((1, 0, 0))
    meter.show(6, times=6)
    before = meter.memory
    assert observe_step(before, meter.now + timedelta(seconds=3), 16, False, (50, 30, 10)) == before
    meter.show(8)

    assert meter.memory.steps == 0


def test_a_silent_meter_ends_the_comparison():
    meter = Meter((1, 0, 0))
    meter.show(6, times=6)
    meter.memory = observe_step(meter.memory, meter.now + SETTLES, 6, True, None)
    meter.show(16)

    assert meter.memory.steps == 0

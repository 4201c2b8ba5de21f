"""Energy for a range, and what a car's currents teach about it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from smartcharging.engine import vehicle
from smartcharging.engine.vehicle import MinimumMemory, PhaseMemory

NOON = datetime(2026, 1, 5, 12, tzinfo=UTC)
WIRED = (True, True, True)


def after(seconds: float) -> datetime:
    return NOON + timedelta(seconds=seconds)


def test_a_range_becomes_energy_at_the_meter():
    assert vehicle.energy_for_range(100, 180, 0.9) == pytest.approx(20_000)
    assert vehicle.range_for_energy(20_000, 180, 0.9) == pytest.approx(100)


def test_a_state_of_charge_becomes_energy_and_back():
    energy = vehicle.energy_to_soc(0.2, 0.8, 60_000, 0.9)

    assert energy == pytest.approx(40_000)
    assert vehicle.soc_after(0.2, energy, 60_000, 0.9) == pytest.approx(0.8)
    assert vehicle.energy_to_soc(0.9, 0.8, 60_000) == 0
    assert vehicle.soc_after(0.9, 1e6, 60_000) == 1


@pytest.mark.parametrize(
    ("field", "call"),
    [
        ("range_km", lambda: vehicle.energy_for_range(-1)),
        ("wh_per_km", lambda: vehicle.energy_for_range(10, 0)),
        ("wanted_soc", lambda: vehicle.energy_to_soc(0.1, 80, 60_000)),
        ("battery_wh", lambda: vehicle.energy_to_soc(0.1, 0.8, 0)),
    ],
)
def test_a_number_that_cannot_be_is_named(field, call):
    with pytest.raises(ValueError, match=field):
        call()


def watch(memory: PhaseMemory, offered: float, measured: tuple, seconds: range) -> PhaseMemory:
    for s in seconds:
        memory = vehicle.observe_phases(memory, after(s), offered, measured)
    return memory


def test_a_single_phase_car_is_known_after_ten_steady_seconds():
    early = watch(PhaseMemory(), 16, (15.8, 0.1, 0.0), range(9))
    late = watch(PhaseMemory(), 16, (15.8, 0.1, 0.0), range(12))

    assert vehicle.phases_to_count_on(early, after(9), WIRED) == WIRED
    assert vehicle.phases_to_count_on(late, after(12), WIRED) == (True, False, False)


def test_a_low_offer_tells_nothing():
    memory = watch(PhaseMemory(), 6, (6, 0, 0), range(60))

    assert memory.used is None


def test_a_changing_offer_starts_the_watch_again():
    memory = watch(PhaseMemory(), 16, (15.8, 0, 0), range(6))
    memory = watch(memory, 20, (19.8, 0, 0), range(6, 12))

    assert memory.used is None


def test_after_a_pause_all_phases_count_for_fifteen_seconds():
    memory = watch(PhaseMemory(), 16, (15.8, 0.1, 0.0), range(12))
    memory = watch(memory, 16, (0.0, 0.0, 0.0), range(12, 20))
    memory = vehicle.observe_phases(memory, after(20), 16, (15.8, 0.0, 0.0))

    assert vehicle.phases_to_count_on(memory, after(34), WIRED) == WIRED
    assert vehicle.phases_to_count_on(memory, after(36), WIRED) == (True, False, False)


def test_a_phase_that_carries_current_counts_at_once():
    memory = watch(PhaseMemory(), 16, (15.8, 0.1, 0.0), range(12))
    memory = vehicle.observe_phases(memory, after(12), 16, (15.8, 15.5, 15.9))

    assert vehicle.phases_to_count_on(memory, after(12), WIRED) == WIRED


def test_an_unknown_current_changes_nothing():
    memory = watch(PhaseMemory(), 16, (15.8, 0.1, 0.0), range(12))

    assert vehicle.observe_phases(memory, after(13), 16, None) == memory
    assert vehicle.observe_phases(memory, after(13), None, (1, 1, 1)) == memory


def test_phases_that_are_not_wired_are_never_counted_on():
    memory = PhaseMemory(used=(True, True, True))

    assert vehicle.phases_to_count_on(memory, NOON, (False, True, False)) == (False, True, False)


def test_a_car_that_refuses_six_amps_is_offered_more():
    memory = MinimumMemory()
    for s in range(0, 80, 5):
        memory = vehicle.observe_minimum(memory, after(s), 6, (0.0, 0.0, 0.0), wants=True)
    assert vehicle.minimum_a(memory) == 7

    for s in range(80, 100, 5):
        memory = vehicle.observe_minimum(memory, after(s), 10, (9.8, 9.8, 9.8), wants=True)
    assert vehicle.minimum_a(memory) == 7  # somewhere between: try the lowest first


def test_a_car_that_is_full_is_not_choosy():
    memory = MinimumMemory()
    for s in range(0, 30, 5):
        memory = vehicle.observe_minimum(memory, after(s), 6, (5.8, 0.0, 0.0), wants=True)
    for s in range(30, 200, 5):
        memory = vehicle.observe_minimum(memory, after(s), 6, (0.0, 0.0, 0.0), wants=True)

    assert vehicle.minimum_a(memory) == 6


def test_a_car_that_wants_nothing_refuses_nothing():
    memory = MinimumMemory()
    for s in range(0, 200, 5):
        memory = vehicle.observe_minimum(memory, after(s), 6, (0.0, 0.0, 0.0), wants=False)

    assert vehicle.minimum_a(memory) == 6


def test_the_stations_own_minimum_holds_in_any_case():
    assert vehicle.minimum_a(MinimumMemory(), station_min_a=8) == 8

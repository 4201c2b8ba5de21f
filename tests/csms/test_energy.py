"""The rule by which energy is counted, row by row: honest registers, and all the ways in which they lie."""

from __future__ import annotations

import pytest

from csms.energy import BEGIN, END, SAMPLE, Count, Reading

MOST_W = 22_080.0
MINUTE = 60.0
LIFE = 1_234_567.0


def counted(*told: tuple[float, float | None], begin: bool = True, end: bool = True, **more: float) -> Count:
    """A charge of these (minute, register) pairs; the first is the start's, the last the end's."""
    last = len(told) - 1
    count = Count(MOST_W)
    for n, (minute, wh) in enumerate(told):
        role = BEGIN if n == 0 and begin else END if n == last and end else SAMPLE
        count.take(Reading(minute * MINUTE, role, wh, **more))
    return count


@pytest.mark.parametrize(
    ("what", "told", "energy_wh", "flags"),
    [
        ("an honest charge", [(0, 1000), (10, 2500), (60, 9000), (61, 9100)], 8100, []),
        ("only a start and an end", [(0, 1000), (60, 9000)], 8000, []),
        ("nothing taken", [(0, 1000), (60, 1000)], 0, []),
        ("a final register a little lower than the last sample", [(0, 1000), (10, 2500), (11, 2495)], 1495, []),
        (
            "a much lower final register has the last word",
            [(0, 1000), (10, 4000), (11, 2000)],
            1000,
            ["register_backwards"],
        ),
        ("a slip downwards", [(0, 1000), (10, 3000), (20, 10), (30, 5000), (31, 5100)], 4100, ["register_backwards"]),
        ("a slip upwards", [(0, 1000), (10, 3000), (20, 900_000), (30, 5000), (31, 5100)], 4100, ["register_jump"]),
        ("a reset in the middle", [(0, 9000), (10, 12_000), (20, 5), (30, 2005), (40, 3005)], 6000, ["register_reset"]),
        ("two resets", [(0, 9000), (10, 12_000), (20, 5), (30, 2005), (40, 0), (50, 900)], 5900, ["register_reset"]),
        ("a reset that is never confirmed", [(0, 9000), (10, 12_000), (20, 5)], 3000, ["register_backwards"]),
        (
            "a start told as 0",
            [(0, 0), (1, LIFE), (10, LIFE + 900), (20, LIFE + 1900)],
            1900,
            ["start_register_rebased"],
        ),
        ("an end that rose faster than time allows", [(0, 1000), (1, 16_000)], 15_000, ["register_jump"]),
        ("a start told as 0, and only an end", [(0, 0), (60, LIFE)], 0, ["register_jump"]),
        ("a meter exchanged", [(0, 500), (10, 1500), (11, LIFE), (20, LIFE + 700)], 1700, ["register_leaps"]),
        ("kWh said to be Wh", [(0, LIFE), (10, LIFE / 1000 + 1), (20, LIFE + 2000)], 2000, ["register_in_kwh"]),
        ("Wh said to be kWh", [(0, LIFE), (10, LIFE * 1000 + 5e5), (20, LIFE + 2000)], 2000, ["register_thousandfold"]),
        ("negative", [(0, 1000), (10, -1), (20, 3000)], 2000, ["negative_register"]),
        ("more than can be charged", [(0, 1000), (10, 600_000), (20, 3000)], 2000, ["register_jump"]),
        ("no register at all", [(0, None), (60, None)], 0, []),
    ],
)
def test_energy_by_rule(what: str, told: list[tuple[float, float | None]], energy_wh: float, flags: list[str]) -> None:
    count = counted(*told)
    assert (round(count.energy_wh, 6), count.flags) == (energy_wh, flags), what


def test_the_first_reading_stands_in_for_a_start_nobody_told() -> None:
    count = counted((1, 1500), (10, 2500), begin=False)
    assert (count.energy_wh, count.flags) == (1000, ["start_register_guessed"])


def test_a_station_stronger_than_it_is_said_to_be_is_believed_with_its_power() -> None:
    told = [(n * 5.0, n * 12_500.0) for n in range(5)]
    count = counted(*told)
    assert (count.energy_wh, count.flags) == (50_000, ["register_jump"])
    count = counted(*told, power_w=150_000.0)
    assert count.energy_wh == 50_000
    assert count.flags == ["power_above_maximum"]


def test_registers_that_tell_another_story_than_the_power_are_flagged() -> None:
    count = counted(*[(n * 1.0, 1000 + n * 0.12) for n in range(60)], power_w=7200.0)
    assert count.flags == ["energy_unlike_power"]


def test_without_a_clock_a_register_may_rise_as_it_likes() -> None:
    count = Count(MOST_W)
    count.timed = False
    count.take_all([Reading(0, BEGIN, 1000), Reading(0, END, 21_000)])
    assert (count.energy_wh, count.flags) == (20_000, [])


def test_idle_is_since_the_car_last_took_anything_without_the_time_we_held_it_back() -> None:
    count = counted((0, 0), (10, 2000), (20, 4000), (30, 4000), (60, 4000))
    assert (count.charging_s, count.idle_s) == (20 * MINUTE, 40 * MINUTE)

    count = Count(MOST_W)
    for minute, wh, paused in [(0, 0, False), (10, 2000, True), (40, 2000, False), (50, 2000, False)]:
        count.take(Reading(minute * MINUTE, SAMPLE, wh, None, paused))
    assert (count.charging_s, count.idle_s) == (10 * MINUTE, 10 * MINUTE)


def test_the_state_of_a_count_survives_being_kept() -> None:
    told = [Reading(n * 600.0, SAMPLE, 1000 + n * 900.0, 5400.0, False, 0.1 * n) for n in range(6)]
    whole = Count(MOST_W).take_all(told)
    part = Count(MOST_W).take_all(told[:3])
    again = Count.from_list(part.to_list(), MOST_W).take_all(told[3:])
    assert again.to_list() == whole.to_list()
    assert not again.may_take(told[2]) and again.may_take(told[5])

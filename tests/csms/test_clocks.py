"""What is learnt of a station's clock, and how its times are put right."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from csms.clocks import Clock
from csms.vocabulary import moment

NOW = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)


def after(seconds: float) -> datetime:
    return NOW + timedelta(seconds=seconds)


def heard(*told: tuple[float, float]) -> Clock:
    """A clock that was heard at these seconds, telling a time that was off by so many."""
    clock = Clock()
    for at, off_s in told:
        clock.note(after(at + off_s), after(at))
    return clock


@pytest.mark.parametrize(
    ("what", "told", "offset_s"),
    [
        ("a good clock", [(0, 2), (40, -3)], 0),
        ("ahead: once is proof, for nothing is told before it happens", [(0, 7200)], 7200),
        ("a steady drift ahead", [(0, 290), (30, 291), (60, 292)], 291),
        ("a steady lag", [(0, -300), (20, -301), (40, -302)], -301),
        ("a steady lag of a zone", [(0, -18_000), (20, -18_001), (40, -18_001)], -18_000.67),
        ("two messages prove no lag", [(0, -300), (40, -300)], 0),
        ("a replay lags less and less", [(0, -30_000), (20, -20_000), (40, -5000)], 0),
        ("a replay by a clock that is ahead", [(0, 7200), (10, -20_000), (50, -20_001), (90, -20_002)], 7200),
        ("set right since", [(0, 7200), (10, 1)], 0),
    ],
)
def test_what_is_learnt(what: str, told: list[tuple[float, float]], offset_s: float) -> None:
    assert heard(*told).offset_s == pytest.approx(offset_s, abs=0.5), what


@pytest.mark.parametrize(
    ("offset_s", "told", "at", "flag"),
    [
        (7200, "2026-11-24T13:30:00Z", after(-1800), "zone_error"),
        (7190, "2026-11-24T06:00:00Z", datetime(2026, 11, 24, 4, 0, tzinfo=UTC), "zone_error"),
        (291, "2026-11-24T11:34:51Z", after(-1800), "clock_off"),
        (-301, "2026-11-24T11:54:59Z", NOW, "clock_off"),
        (3600, "2026-11-24T12:30:00", after(-1800), "no_zone"),
        (291, "1970-01-01T00:00:00Z", NOW, "clock_not_set"),
        (0, "2026-11-24T11:00:00Z", after(-3600), ""),
    ],
)
def test_times_are_put_right_and_the_correction_has_a_name(offset_s: float, told: str, at: datetime, flag: str) -> None:
    clock = Clock()
    clock.offset_s = offset_s
    right = clock.right(moment(told, NOW), NOW)
    assert (right.at, right.flag) == (at, flag)


def test_no_time_is_put_after_its_receipt() -> None:
    clock = heard((0, -300), (20, -300), (40, -300))
    assert clock.right(moment("2026-11-24T11:59:00Z", NOW), NOW).at == NOW

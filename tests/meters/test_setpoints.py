"""What is wanted of a device: kept with a lease, clamped to what it may do, renewed in time, and let go."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meters import setpoints
from meters.live import connection
from meters.measurement import Measurement
from meters.setpoints import Bounds, Release, Setpoint, Write, Written, clamp, next_step

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
LATER = datetime.now(UTC) + timedelta(hours=1)


def charged(soc):
    return Measurement(at=NOW, soc=soc)


def test_what_is_wanted_is_found_again_and_the_latest_wins():
    setpoints.want(7, power_w=2000, until=LATER)
    setpoints.want(7, power_w=-500, until=LATER)
    setpoints.want(8, on=False, until=LATER)

    assert setpoints.current(7) == Setpoint(-500, None, LATER)
    assert setpoints.current_of([7, 8, 9]) == {7: Setpoint(-500, None, LATER), 8: Setpoint(None, False, LATER)}
    assert 0 < connection().ttl("set:device:7") <= 3600 + setpoints.KEEP_AFTER_S


def test_what_is_withdrawn_is_wanted_no_more():
    setpoints.want(7, power_w=2000, until=LATER)

    setpoints.withdraw(7)

    assert setpoints.current(7) is None


@pytest.mark.parametrize(
    ("wish", "field"),
    [
        ({"power_w": 1.0, "until": datetime(2026, 1, 1)}, "until"),  # noqa: DTZ001
        ({"until": LATER}, "power_w, on"),
        ({"power_w": 1.0, "on": True, "until": LATER}, "power_w, on"),
        ({"power_w": float("nan"), "until": LATER}, "power_w"),
    ],
)
def test_a_wish_that_makes_no_sense_is_refused_by_field(wish, field):
    with pytest.raises(setpoints.SetpointError, match=f"^{field}:"):
        setpoints.want(7, **wish)


@pytest.mark.parametrize(
    "body",
    [
        "",
        "null",
        "[]",
        "{}",
        '{"until": "soon"}',
        '{"until": "2026-01-01T00:00:00"}',
        '{"power_w": "x", "until": "2026-01-01T00:00:00Z"}',
    ],
)
def test_nonsense_in_redis_is_no_set_point(body):
    connection().set("set:device:7", body)

    assert setpoints.current(7) is None


BOUNDS = Bounds(max_charge_w=5000, max_discharge_w=4000, min_soc=0.1, max_soc=0.9)


@pytest.mark.parametrize(
    ("wanted", "soc", "written"),
    [
        (3000, 0.5, 3000),
        (9000, 0.5, 5000),
        (-9000, 0.5, -4000),
        (3000, 0.9, 0),
        (3000, 0.95, 0),
        (-3000, 0.95, -3000),
        (-3000, 0.1, 0),
        (3000, 0.05, 3000),
        (3000, None, 0),
        (-3000, None, 0),
        (0, None, 0),
    ],
)
def test_a_set_point_stays_within_what_the_battery_may_do(wanted, soc, written):
    assert clamp(wanted, BOUNDS, charged(soc)) == written


def test_a_battery_without_bounds_decides_itself():
    assert clamp(9000, Bounds(), None) == 9000


@settings(max_examples=60, deadline=None)
@given(st.floats(-1e6, 1e6), st.one_of(st.none(), st.floats(0, 1)))
def test_no_set_point_is_ever_beyond_its_bounds_or_turned_round(wanted, soc):
    written = clamp(wanted, BOUNDS, charged(soc))

    assert -4000 <= written <= 5000
    assert written * wanted >= 0
    assert abs(written) <= abs(wanted)


def step(wanted, written, now_s=0.0, lease_s=60.0):
    return next_step(wanted, written, now=NOW, now_s=now_s, device_lease_s=lease_s)


def until(seconds):
    return NOW + timedelta(seconds=seconds)


def test_a_new_wish_is_written_with_the_shorter_of_the_two_leases():
    assert step(Setpoint(2000, None, until(300)), None) == Write(2000, None, 60)
    assert step(Setpoint(2000, None, until(20)), None) == Write(2000, None, 20)


def test_an_unchanged_wish_is_renewed_at_a_third_of_the_life_it_was_given():
    wish, written = Setpoint(2000, None, until(300)), Written(2000, None, 60, at_s=100)

    assert step(wish, written, now_s=119.9) is None
    assert step(wish, written, now_s=120) == Write(2000, None, 60)
    assert step(wish, Written(2000, None, 12, at_s=100), now_s=104) == Write(2000, None, 60)


def test_a_device_without_a_timer_is_written_only_when_something_changes():
    wish = Setpoint(2000, None, until(300))

    assert step(wish, Written(2000, None, 300, at_s=0), now_s=250, lease_s=None) is None
    assert step(wish, Written(1500, None, 300, at_s=0), now_s=250, lease_s=None) == Write(2000, None, 300)


def test_a_wish_whose_time_is_up_releases_the_device_once():
    over = Setpoint(2000, None, until(0))

    assert step(over, Written(2000, None, 60, at_s=0)) == Release()
    assert step(None, Written(2000, None, 60, at_s=0)) == Release()
    assert step(over, None) is None


def test_a_set_point_that_may_have_arrived_is_told_again_or_released():
    assert step(Setpoint(2000, None, until(60)), setpoints.UNSURE, lease_s=None) == Write(2000, None, 60)
    assert step(None, setpoints.UNSURE) == Release()


def test_a_switch_is_told_again_when_it_changes():
    assert step(Setpoint(None, True, until(60)), Written(None, False, 60, at_s=0)) == Write(None, True, 60)
    assert step(Setpoint(None, True, until(60)), Written(None, True, 60, at_s=0), lease_s=None) is None

"""Currents where there is no neutral: what goes out by one line comes back by the others, and none is too small."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from meters.devices.quantities import WITHOUT_NEUTRAL_V, doubts
from meters.measurement import Measurement, Quality
from meters.models import Device, Site
from meters.poller import settings_of
from meters.supply import Supply, between, lines_only, power_weight
from smartcharging.engine import grid as engine

AT = datetime(2026, 3, 10, tzinfo=UTC)


def seen(amps: Any, power_w: float | None = 5000.0, *wiring: str, meter: bool = True, p1: bool = False) -> Measurement:
    told = Measurement(AT, current_a=amps, power_w=power_w, power_phase_w=(1.0, 2.0, 3.0))
    return lines_only(told, wiring, meter=meter, zero_is_silence=p1)


# what a meter tells of three lines, whether it is a P1 port → what is reckoned with
METERS: dict[str, tuple[Any, bool, Any]] = {
    "three lines, as they are": ((20.0, 18.0, 15.0), False, (20.0, 18.0, 15.0)),
    "one car between two lines": ((16.0, 16.0, 0.0), False, (16.0, 16.0, 0.0)),
    "a line that is not told carries what the others do": ((16.0, None, 10.0), False, (16.0, 26.0, 10.0)),
    "of one line alone nothing follows": ((16.0, None, None), False, (16.0, None, None)),
    "a line told as nothing by a digital meter": ((16.0, 0.0, 16.0), True, (16.0, 32.0, 16.0)),
    "one that no line comes back from": ((20.0, 1.0, 10.0), False, (20.0, 30.0, 10.0)),
    "one line, two of nothing": ((20.0, 0.0, 0.0), False, (20.0, None, None)),
    "nothing anywhere": ((0.0, 0.0, 0.0), True, (0.0, 0.0, 0.0)),
}


@pytest.mark.parametrize("case", METERS)
def test_of_a_meter_no_line_is_too_small(case: str) -> None:
    told, p1, reckoned = METERS[case]

    found = seen(told, p1=p1)

    assert found.current_a == reckoned
    assert (found.quality == Quality.GOOD) == (told == reckoned)
    assert found.power_phase_w is None


@given(st.lists(st.tuples(st.floats(0, 60), st.floats(0, 60), st.floats(0, 60)), min_size=1, max_size=4))
def test_whatever_hangs_between_the_lines_a_missing_one_is_never_taken_too_small(loads: Any) -> None:
    """Each load of amps between L1 and L2, L2 and L3, L3 and L1, in phase with its voltage."""
    line = np.exp(-2j * np.pi * np.arange(3) / 3)
    unit = [(line[i] - line[(i + 1) % 3]) / 3**0.5 for i in range(3)]
    each = [sum(load[i] for load in loads) * unit[i] for i in range(3)]
    true = [abs(each[i] - each[i - 1]) for i in range(3)]

    for told, off_a in ((None, 1e-6), (0.0, 1.2)):  # about an ampere is never told from none
        found = seen((true[0], told, true[2]), p1=True).current_a
        assert found is not None
        assert None not in found or told == 0.0
        for amps, real in zip(found, true, strict=True):
            assert amps is None or amps >= real - off_a


def test_while_the_whole_is_taken_from_the_grid_no_line_feeds_it() -> None:
    assert seen((16.0, -3.0, 14.0)).current_a == (16.0, 3.0, 14.0)
    assert seen((-16.0, -16.0, -14.0), -9000.0).current_a == (-16.0, -16.0, -14.0)


# of a device between two lines: what it tells → both, and nothing in the third
DEVICES: dict[str, tuple[Any, tuple[str, ...], bool, Any]] = {
    "an inverter tells its only current": ((None, -8.0, None), ("L2", "L3"), False, (0.0, -8.0, -8.0)),
    "and nothing for its second line": ((-8.0, 0.0, None), ("L1", "L2"), False, (-8.0, -8.0, 0.0)),
    "a meter of such a circuit": ((10.0, 10.4, None), ("L1", "L2"), True, (10.0, 10.4, 0.0)),
    "a meter that cannot be of such a circuit": ((10.0, None, 14.0), ("L1", "L3"), True, (10.0, 24.0, 14.0)),
    "a device that tells no current": (None, ("L1", "L2"), False, None),
}


@pytest.mark.parametrize("case", DEVICES)
def test_a_single_phase_device_hangs_between_two_lines(case: str) -> None:
    told, wiring, meter, reckoned = DEVICES[case]

    assert seen(told, None, *wiring, meter=meter).current_a == reckoned


@pytest.mark.parametrize(
    ("amps", "wiring", "both"),
    [
        ((16.0, 0.0, 0.0), ("L1", "L2", "L3"), (16.0, 16.0, 0.0)),
        ((0.0, 16.0, 0.0), ("L2", "L3", "L1"), (0.0, 16.0, 16.0)),
        ((0.0, 0.0, 16.0), ("L3", "L1", "L2"), (16.0, 0.0, 16.0)),
        ((16.0, 16.0, 16.0), ("L1", "L2", "L3"), (16.0, 16.0, 16.0)),
        ((16.0, 16.0, 0.0), ("L1", "L2", "L3"), (16.0, 16.0, 0.0)),
        ((None, 9.0, None), ("L2", "L1"), (9.0, 9.0, 0.0)),
        ((16.0, None, None), ("L1", "L2", "L3"), (16.0, None, None)),
    ],
)
def test_a_car_on_one_line_returns_by_the_next_of_its_station(amps: Any, wiring: tuple[str, ...], both: Any) -> None:
    assert between(amps, wiring) == both


def test_the_engine_and_the_meters_know_the_same_supplies() -> None:
    assert [str(s) for s in Supply] == [str(s) for s in engine.Supply]
    for supply in Supply:
        weights = [power_weight(n, supply) for n in range(4)]
        assert weights == [engine.power_weight(n, engine.Supply(supply)) for n in range(4)]


def test_the_poller_judges_a_device_by_how_its_site_is_supplied() -> None:
    street = Site(name="Street", supply=Site.Supply.IT)

    assert settings_of(Device(site=street, name="main")).supply is Supply.IT
    assert settings_of(Device(site=Site(name="Campus"), name="main")).supply is Supply.TN


def test_133_volts_from_a_line_to_the_middle_are_no_reason_to_doubt() -> None:
    told = Measurement(AT, voltage_v=(133.0, 132.0, 134.0))

    assert doubts(told)
    assert not doubts(told, voltage_v=WITHOUT_NEUTRAL_V)

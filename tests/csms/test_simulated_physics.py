"""Simulated stations and cars obey physics and their charging profiles; no socket here, and time moves when told."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from csms.profiles import ChargingProfile, Kind, Period, Purpose, Schedule, Unit
from csms.simulator import Car, SimulatedStation

NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)


class Clock:
    def __init__(self) -> None:
        self.now = NOON

    def __call__(self) -> datetime:
        return self.now


def car(**nature: Any) -> Car:
    return Car(**{"battery_wh": 60_000, "soc": 0.4, "delay_s": 0, **nature})


class Bench:
    """A station on a bench: no socket, time moves when told. A charge starts as if a card had been accepted."""

    def __init__(self, **nature: Any) -> None:
        self.clock = Clock()
        self.station = SimulatedStation(
            "B-1", "ws://nowhere", **{"seed": 1, "meter_interval_s": 0, "clock": self.clock, **nature}
        )

    async def charge(self, vehicle: Car, evse: int = 1) -> None:
        self.station.plug(evse, vehicle)
        await self.station.tap(evse, "04A1")

    def live(self, seconds: float, step: float = 1.0) -> None:
        for _ in range(int(seconds / step)):
            self.clock.now += timedelta(seconds=step)
            self.station.step(self.clock.now)

    def limit(self, amps: float, *, id: int = 1, level: int = 0, unit: Unit = Unit.A, **more: Any) -> bool:
        schedule = Schedule(unit, (Period(0, amps),), more.pop("duration_s", None), self.clock.now)
        purpose = more.pop("purpose", Purpose.TX)
        evse = more.pop("evse", 1 if purpose is Purpose.TX else 0)
        return self.station.set_profile(ChargingProfile(id, purpose, level, Kind.ABSOLUTE, schedule, evse, **more))


# --- physics -------------------------------------------------------------------------------------------------------

CURRENTS = [
    # station phases, car phases, car A, cable A, limit A, current per phase
    (3, 3, 16, 32, 32, (16, 16, 16)),
    (3, 3, 16, 32, 10, (10, 10, 10)),
    (3, 1, 32, 32, 20, (20, 0, 0)),
    (3, 2, 16, 32, 32, (16, 16, 0)),
    (1, 3, 16, 32, 32, (16, 0, 0)),
    (3, 3, 32, 20, 32, (20, 20, 20)),
    (3, 3, 16, 32, 6, (6, 6, 6)),
    (3, 3, 16, 32, 5.9, (0, 0, 0)),
    (3, 3, 16, 32, 0, (0, 0, 0)),
]


@pytest.mark.parametrize(("phases", "car_phases", "car_a", "cable_a", "limit_a", "current"), CURRENTS)
async def test_each_phase_carries_what_station_cable_and_car_allow(
    phases: int, car_phases: int, car_a: float, cable_a: float, limit_a: float, current: tuple[float, float, float]
):
    bench = Bench(phases=phases)
    await bench.charge(car(phases=car_phases, max_a=car_a, cable_a=cable_a))

    bench.limit(limit_a)
    bench.live(2)

    assert bench.station.current_a(1) == pytest.approx(current)
    volts = bench.station.outlets[1].voltage_v
    assert bench.station.power_w(1) == pytest.approx(sum(i * v for i, v in zip(current, volts, strict=True)))
    assert all(220 < v < 240 for v in volts)


async def test_a_car_with_a_higher_minimum_takes_nothing_below_it():
    bench = Bench()
    await bench.charge(car(min_a=9))

    bench.limit(8)
    bench.live(2)

    assert bench.station.current_a(1) == (0, 0, 0)
    assert bench.station.status(1) == "SuspendedEV"


async def test_a_car_follows_more_after_its_delay_and_less_within_five_seconds():
    bench = Bench()
    await bench.charge(car(delay_s=20))
    bench.live(19)
    assert bench.station.current_a(1)[0] == 0
    bench.live(2)
    assert bench.station.current_a(1)[0] == 16

    bench.limit(8)
    bench.live(4)
    assert bench.station.current_a(1)[0] == 16
    bench.live(2)
    assert bench.station.current_a(1)[0] == 8


async def test_a_car_follows_in_the_end_however_often_the_limit_moves():
    bench = Bench()
    await bench.charge(car(delay_s=20))

    for amps in range(6, 16):
        bench.limit(amps)
        bench.live(5)

    assert bench.station.current_a(1)[0] >= 10


async def test_the_delay_is_drawn_from_the_seed():
    async def first_current(seed: int) -> int:
        bench = Bench(seed=seed)
        await bench.charge(car(delay_s=(5, 30)))
        for second in range(40):
            bench.live(1)
            if bench.station.current_a(1)[0]:
                return second
        raise AssertionError("never charged")

    assert await first_current(3) == await first_current(3)
    assert 4 <= await first_current(3) <= 30


async def test_an_hour_of_charging_is_in_the_register_and_less_of_it_in_the_battery():
    bench = Bench()
    vehicle = car(soc=0.2)
    await bench.charge(vehicle)
    before = bench.station.outlets[1].energy_wh

    bench.live(3600, step=2)

    metered = bench.station.outlets[1].energy_wh - before
    stored = (vehicle.soc - 0.2) * vehicle.battery_wh
    assert metered == pytest.approx(16 * 3 * 230, rel=0.02)
    assert 0.90 < stored / metered < 0.94


async def test_six_amps_on_one_phase_is_wasteful():
    bench = Bench(phases=1)
    vehicle = car(soc=0.2, phases=1)
    await bench.charge(vehicle)
    bench.limit(6)
    before = bench.station.outlets[1].energy_wh
    bench.live(3600, step=2)

    assert (vehicle.soc - 0.2) * vehicle.battery_wh / (bench.station.outlets[1].energy_wh - before) < 0.85


async def test_a_car_fades_near_full_and_then_asks_for_nothing_more():
    bench = Bench()
    vehicle = car(battery_wh=10_000, soc=0.97)
    await bench.charge(vehicle)
    bench.live(5)
    assert 6 < bench.station.current_a(1)[0] < 15

    bench.live(3600, step=2)

    assert vehicle.soc == 1.0
    assert bench.station.status(1) == "SuspendedEV"


async def test_a_dc_car_follows_its_curve_and_loads_the_three_phases_evenly():
    bench = Bench(dc=True, max_w=150_000, max_a=250)
    vehicle = car(battery_wh=80_000, soc=0.3, max_dc_w=120_000)
    await bench.charge(vehicle)
    bench.live(30)
    a, b, c = bench.station.current_a(1)
    assert bench.station.power_w(1) == pytest.approx(120_000 / 0.95, rel=0.01)
    assert a == b == c == pytest.approx(bench.station.power_w(1) / 690, rel=0.02)

    vehicle.soc = 0.9
    bench.live(5)
    assert bench.station.power_w(1) == pytest.approx(30_000 / 0.95, rel=0.05)


async def test_a_dc_station_never_takes_more_than_its_watts():
    bench = Bench(dc=True, max_w=150_000, max_a=250)
    await bench.charge(car(battery_wh=80_000, soc=0.3, max_dc_w=120_000))

    bench.limit(20_000, unit=Unit.W)
    bench.live(60)

    assert bench.station.power_w(1) == pytest.approx(20_000)


# --- profiles ------------------------------------------------------------------------------------------------------


async def test_a_lease_runs_out_and_the_safe_default_holds():
    bench = Bench()
    await bench.charge(car())
    bench.limit(6, id=1, purpose=Purpose.TX_DEFAULT)
    bench.limit(14, id=2, level=3, duration_s=60)
    bench.live(30)
    assert bench.station.current_a(1)[0] == 14

    bench.live(31)

    assert bench.station.limit_a(1) == 6
    assert bench.station.current_a(1)[0] == 6


async def test_two_outlets_share_the_station_maximum():
    bench = Bench(evses=2, station_max_a=24)
    await bench.charge(car(), evse=1)
    assert bench.station.limit_a(1) == 24

    await bench.charge(car(), evse=2)
    assert (bench.station.limit_a(1), bench.station.limit_a(2)) == (12, 12)
    bench.limit(16, purpose=Purpose.STATION_MAX)
    assert (bench.station.limit_a(1), bench.station.limit_a(2)) == (8, 8)


async def test_a_transaction_profile_needs_its_transaction_and_dies_with_it():
    bench = Bench()
    assert not bench.limit(10)

    await bench.charge(car())
    assert bench.limit(10) and bench.station.limit_a(1) == 10
    bench.station.unplug(1)

    assert bench.station.profiles == () and bench.station.limit_a(1) == 32


async def test_a_lesser_station_refuses_what_it_cannot_and_may_ignore_the_lease():
    bench = Bench(units=(Unit.W,), max_stack_level=0, honours_duration=False)
    await bench.charge(car())

    assert not bench.limit(10)
    assert not bench.limit(6900, unit=Unit.W, level=1)
    assert bench.limit(6900, unit=Unit.W, duration_s=30)
    bench.live(60)
    assert bench.station.limit_a(1) == 10


async def test_the_status_walks_as_the_standard_says():
    bench = Bench()
    walk = [bench.station.status(1)]
    bench.station.plug(1, car())
    walk.append(bench.station.status(1))
    await bench.station.tap(1, "04A1")
    walk.append(bench.station.status(1))
    for amps in (0, 16):
        bench.limit(amps)
        bench.live(2)
        walk.append(bench.station.status(1))
    await bench.station.tap(1, "04A1")
    walk.append(bench.station.status(1))
    bench.station.unplug(1)
    walk.append(bench.station.status(1))

    assert walk == ["Available", "Preparing", "Charging", "SuspendedEVSE", "Charging", "Finishing", "Available"]


async def test_a_badge_before_the_plug_waits_and_is_forgotten():
    bench = Bench(connection_timeout_s=60)
    await bench.station.tap(1, "04A1")
    assert bench.station.status(1) == "Preparing"
    bench.live(61)
    assert bench.station.status(1) == "Available"

    await bench.station.tap(1, "04A1")
    bench.live(30)
    bench.station.plug(1, car())
    bench.live(1)
    assert bench.station.status(1) == "Charging"


def test_a_car_that_cannot_be_is_refused_by_name():
    for nature, name in [({"soc": 1.5}, "soc"), ({"battery_wh": 0}, "battery_wh"), ({"phases": 4}, "phases")]:
        with pytest.raises(ValueError, match=name):
            car(**nature)

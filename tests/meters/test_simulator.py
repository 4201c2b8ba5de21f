"""The simulated site: its balance closes, its battery obeys physics and its lease, and it serves nothing unknown."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meters.devices.connect import parse
from meters.devices.errors import DeviceRefused
from meters.devices.modbus import Line, Lines
from meters.devices.opening import open_device
from meters.devices.registers import HOLDING, INPUT
from meters.simulator import SimulatedBattery, SimulatedSite
from tests.meters.servers import settings as device


class Clock:
    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


def opened(site, name, lines):
    kind, map_ = {"pv": ("pv", "sunspec_inverter"), "battery": ("battery", "sunspec_storage")}.get(
        name, ("meter", "eastron_sdm630")
    )
    return open_device(device(site.connect(name), map_, kind, name=name), lines)


async def test_the_grid_meter_closes_the_balance_per_phase():
    site = SimulatedSite(
        building_w=(1000, 2000, 500),
        pv_w=-6000,
        ev_current_a=(16, 0, 10),
        battery=SimulatedBattery(),
        sub={"row 1": (3680, 0, 2300)},
    )
    await site.start()
    lines = Lines()
    main, pv, battery, row = (opened(site, n, lines) for n in ("main", "pv", "battery", "row 1"))

    await battery.set_power(3000, 60)
    grid, sun, store, sub = [await d.read() for d in (main, pv, battery, row)]

    assert sun.power_w == -6000 and store.power_w == 3000
    assert sub.power_phase_w == pytest.approx((3680, 0, 2300))
    for phase, building, amps in zip(range(3), (1000, 2000, 500), (16, 0, 10), strict=True):
        expected = building + amps * 230 + (sun.power_w + store.power_w) / 3
        assert grid.power_phase_w[phase] == pytest.approx(expected, abs=0.01)
        assert grid.current_a[phase] == pytest.approx(expected / 230, abs=0.001)
    assert grid.power_w == pytest.approx(sum(grid.power_phase_w), abs=0.01)
    lines.close()
    await site.stop()


async def test_export_is_negative_on_each_phase_although_the_meter_s_currents_have_no_sign():
    site = SimulatedSite(pv_w=-6900)
    await site.start()
    lines = Lines()

    measured = await opened(site, "main", lines).read()

    assert measured.current_a == pytest.approx((-10, -10, -10))
    assert measured.power_w == pytest.approx(-6900)
    lines.close()
    await site.stop()


async def test_sources_may_be_asked_and_changed_while_it_runs():
    watts = [1000.0]
    site = SimulatedSite(building_w=lambda: (watts[0], 0, 0), sub={"row 1": (0, 0, 0)})
    await site.start()
    lines = Lines()
    main, row = opened(site, "main", lines), opened(site, "row 1", lines)
    assert (await main.read()).power_w == 1000

    watts[0] = 1500.0
    assert (await main.read()).power_w == 1500
    site.update(ev_current_a=(0, 10, 0), sub={"row 1": (0, 2300, 0)})

    assert (await main.read()).power_phase_w == pytest.approx((1500, 2300, 0))
    assert (await row.read()).power_w == pytest.approx(2300)
    with pytest.raises(ValueError, match="there is no sub meter 'row 9'; there are row 1"):
        site.update(sub={"row 9": (0, 0, 0)})
    lines.close()
    await site.stop()


async def test_a_written_set_point_ends_with_its_lease_and_the_battery_rests():
    clock = Clock()
    site = SimulatedSite(battery=SimulatedBattery(capacity_wh=10_000, efficiency=0.9, soc=0.5), clock=clock)
    await site.start()
    lines = Lines()
    battery = opened(site, "battery", lines)

    await battery.set_power(5000, 60)
    clock.now += 30
    halfway = await battery.read()
    clock.now += 3600
    after = await battery.read()

    assert halfway.power_w == 5000 and halfway.state == "charging"
    assert after.power_w == 0 and after.state == "holding"
    assert site.battery.soc == pytest.approx(0.5 + 5000 * 60 / 3600 * 0.9 / 10_000)
    lines.close()
    await site.stop()


async def test_a_renewed_set_point_goes_on_and_a_released_one_ends_at_once():
    clock = Clock()
    site = SimulatedSite(battery=SimulatedBattery(capacity_wh=100_000), clock=clock)
    await site.start()
    lines = Lines()
    battery = opened(site, "battery", lines)

    for _ in range(5):
        await battery.set_power(-4000, 60)
        clock.now += 20
        assert (await battery.read()).power_w == -4000
    clock.now += 41
    assert (await battery.read()).power_w == 0
    await battery.set_power(2000, 60)
    await battery.release()
    assert (await battery.read()).power_w == 0
    lines.close()
    await site.stop()


async def test_production_is_curtailed_and_comes_back():
    clock = Clock()
    site = SimulatedSite(pv_w=-9000, pv_peak_w=10_000, clock=clock)
    await site.start()
    lines = Lines()
    pv = opened(site, "pv", lines)

    await pv.set_power(-2500, 60)
    assert (await pv.read()).power_w == pytest.approx(-2500)
    clock.now += 61
    assert (await pv.read()).power_w == pytest.approx(-9000)
    lines.close()
    await site.stop()


async def test_counters_run_with_the_power():
    clock = Clock()
    site = SimulatedSite(building_w=(1000, 1000, 1000), clock=clock)
    await site.start()
    lines = Lines()
    main = opened(site, "main", lines)
    first = await main.read()

    clock.now += 3600
    second = await main.read()
    site.update(pv_w=-9000)
    clock.now += 3600
    third = await main.read()

    assert second.energy_import_wh - first.energy_import_wh == pytest.approx(3000, abs=1)
    assert third.energy_export_wh - second.energy_export_wh == pytest.approx(6000, abs=1)
    lines.close()
    await site.stop()


async def test_nothing_is_served_that_the_map_does_not_know():
    site = SimulatedSite(battery=SimulatedBattery())
    await site.start()
    meter, battery = Line(parse(site.connect("main"))), Line(parse(site.connect("battery")))

    with pytest.raises(DeviceRefused) as outside:
        await meter.read(1, INPUT, 36, 2, "angle")
    assert outside.value.code == 2
    with pytest.raises(DeviceRefused) as function:
        await meter.read(1, HOLDING, 0, 2, "voltage_1")
    assert function.value.code == 1
    with pytest.raises(DeviceRefused):
        await meter.write(1, 0, [1], "voltage_1")
    with pytest.raises(DeviceRefused):
        await battery.write(1, 40004, [1], "maker")
    for line in (meter, battery):
        line.close()
    await site.stop()


async def test_a_device_goes_away_and_comes_back_on_its_port():
    site = SimulatedSite(building_w=(500, 0, 0))
    await site.start()
    port = site.ports["main"]

    await site.stop_device("main")
    await site.start_device("main")

    lines = Lines()
    assert site.ports["main"] == port
    assert (await opened(site, "main", lines).read()).power_w == 500
    lines.close()
    await site.stop()


async def test_wrong_names_and_taken_ports_are_said_clearly():
    first, second = SimulatedSite(), SimulatedSite()
    await first.start()

    with pytest.raises(ValueError, match=r"no device named mian; there are main, pv"):
        await second.start(ports={"mian": 0})
    with pytest.raises(OSError, match="main: port"):
        await second.start(ports={"main": first.ports["main"]})
    with pytest.raises(ValueError, match="'pv' is a name of the site itself"):
        SimulatedSite(sub={"pv": (0, 0, 0)})
    with pytest.raises(ValueError, match="efficiency"):
        SimulatedBattery(efficiency=1.5)
    await first.stop()


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.floats(-20_000, 20_000), st.floats(0.1, 7200), st.floats(1, 3600)), max_size=12),
    st.floats(0.05, 1),
)
def test_a_battery_never_leaves_its_bounds_nor_makes_energy(steps, soc):
    battery = SimulatedBattery(capacity_wh=10_000, max_charge_w=5000, max_discharge_w=4000, efficiency=0.9, soc=soc)
    now, start_in, start_out = 0.0, battery.imported_wh, battery.exported_wh
    battery.advance(now)
    for power, wait, lease in steps:
        battery.command(power, now, lease)
        assert -4000 <= battery.power_w() <= 5000
        now += wait
        battery.advance(now)
        assert 0.05 <= battery.soc <= 1

    stored = (battery.soc - soc) * 10_000
    taken, given = battery.imported_wh - start_in, battery.exported_wh - start_out
    assert stored == pytest.approx(taken * 0.9 - given / 0.9, abs=0.01)

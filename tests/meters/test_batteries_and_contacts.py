"""Batteries that are commanded through plain registers, and modules with contacts."""

import struct

import pytest

from meters.devices.errors import AnswerNotValid, DeviceError, SettingsError
from meters.devices.modbus import Lines
from meters.devices.opening import check, open_device
from meters.devices.protocols import Alarm, Battery, GridUnit, Switch
from meters.measurement import Quality
from tests.meters.servers import serving, settings


def opened(server, map_, kind, **more):
    return open_device(settings(f"tcp://127.0.0.1:{server.port}", map_, kind, **more), Lines())


HUAWEI = {37760: 555, 37765: 0xFFFF, 37766: 0xFC18, 47083: 0, 47100: 0, **dict.fromkeys(range(47246, 47251), 0)}


async def test_a_huawei_battery_is_read_and_forced_for_whole_minutes():
    async with serving(HUAWEI) as server:
        battery = opened(server, "huawei_luna2000", "battery")
        assert isinstance(battery, Battery)

        measured = await battery.read()
        await battery.set_power(3000, 100)
        await battery.set_power(-70_000, 30)
        await battery.release()

        assert (measured.power_w, measured.state) == (-1000, "discharging")
        assert measured.soc == pytest.approx(0.555)
        assert server.writes == [
            (47246, [0]), (47083, [2]), (47247, [0, 3000]), (47100, [1]),
            (47246, [0]), (47083, [1]), (47249, [1, 4464]), (47100, [2]),
            (47100, [0]),
        ]  # fmt: skip


async def test_a_solaredge_battery_gets_its_timeout_before_its_command():
    def little(value):
        high, low = struct.unpack(">HH", struct.pack(">f", value))
        return [low, high]

    addresses = [*range(57348, 57362), *range(57716, 57734)]
    async with serving(dict.fromkeys(addresses, 0)) as server:
        server.registers.update(dict(zip((57716, 57717), little(-1200.0), strict=True)))
        server.registers.update(dict(zip((57732, 57733), little(80.0), strict=True)))
        battery = opened(server, "solaredge_storedge", "battery")

        measured = await battery.read()
        await battery.set_power(2500, 90)

        assert measured.power_w == -1200 and measured.soc == pytest.approx(0.8)
        assert server.writes[3] == (57355, [90, 0])
        assert server.writes[4] == (57358, little(2500.0))
        assert server.writes[-1] == (57357, [3])


async def test_a_battery_without_a_timer_says_so():
    async with serving({13021: 0, 13022: 500, 13049: 0, 13050: 0, 13051: 0}) as server:
        battery = opened(server, "sungrow_sh", "battery")

        await battery.set_power(-1500, 60)
        await battery.release()

        assert battery.lease_s is None
        assert server.writes == [(13051, [1500]), (13050, [0xBB]), (13049, [2]), (13050, [0xCC]), (13049, [0])]


async def test_a_set_point_that_does_not_fit_its_register_is_an_error_with_its_name():
    async with serving({13021: 0, 13022: 500, 13049: 0, 13050: 0, 13051: 0}) as server:
        battery = opened(server, "sungrow_sh", "battery")

        with pytest.raises(DeviceError, match="forced_power: 100000 does not fit"):
            await battery.set_power(100_000, 60)
        assert server.writes == []


@pytest.mark.parametrize(
    ("closed", "options", "state"),
    [
        (True, {"input": 2}, "ok"),
        (False, {"input": 2}, "alarm"),
        (True, {"input": 2, "alarm_when": "closed"}, "alarm"),
        (False, {"input": 2, "alarm_when": "closed"}, "ok"),
    ],
)
async def test_a_broken_wire_reads_as_an_alarm(closed, options, state):
    async with contacts_serving(inputs=[False, False, closed, False, False, False]) as server:
        alarm = opened(server, "moxa_e1214", "alarm", options=options)
        assert isinstance(alarm, Alarm)

        assert (await alarm.read()).state == state


async def test_a_contact_that_is_not_there_is_named():
    async with contacts_serving() as server:
        with pytest.raises(AnswerNotValid, match="gives no input_9"):
            await opened(server, "moxa_e1214", "alarm", options={"input": 9}).read()
        with pytest.raises(DeviceError, match="option input is 'two'"):
            await opened(server, "moxa_e1214", "alarm", options={"input": "two"}).read()
        with pytest.raises(DeviceError, match="option alarm_when is 'shut'"):
            await opened(server, "moxa_e1214", "alarm", options={"alarm_when": "shut"}).read()


async def test_the_grid_operator_s_step_is_read_by_name():
    steps = {"0": "limit 50 %", "1": "no feed-in"}
    async with contacts_serving(inputs=[False, True, False, False, False, False]) as server:
        unit = opened(server, "moxa_e1214", "grid_unit", options={"steps": steps})
        assert isinstance(unit, GridUnit)

        assert await unit.read_command() == "no feed-in"
        assert (await unit.read()).state == "no feed-in"
    async with contacts_serving() as server:
        unit = opened(server, "moxa_e1214", "grid_unit", options={"steps": steps})
        assert await unit.read_command() is None
        assert (await unit.read()).state == "free"
        with pytest.raises(DeviceError, match="option steps is missing"):
            await opened(server, "moxa_e1214", "grid_unit").read()


async def test_a_load_behind_a_relay_is_switched_and_read_back():
    async with contacts_serving() as server:
        load = opened(server, "moxa_e1214", "load", options={"output": 3})
        assert isinstance(load, Switch)

        await load.set(True)
        assert (await load.read()).state == "on"
        await load.set(False)
        assert (await load.read()).state == "off"
        await load.release()
        assert (await load.read()).state == "on"


async def test_a_load_behind_a_relay_is_taken_to_draw_what_it_is_known_to():
    async with contacts_serving() as server:
        load = opened(server, "moxa_e1214", "load", options={"output": 3, "power_w": 2000})

        await load.set(True)
        on = await load.read()
        await load.set(False)
        off = await load.read()

        assert (on.power_w, on.quality, off.power_w) == (2000, Quality.ESTIMATED, 0)


async def test_a_heating_rod_gives_its_temperature_and_takes_a_power():
    async with serving({1000: 1200, 1001: 553}) as server:
        rod = opened(server, "mypv_elwa_2", "load")

        measured = await rod.read()
        await rod.set_power(2500, 60)
        await rod.release()

        assert (measured.power_w, measured.temperature_c) == (1200, pytest.approx(55.3))
        assert rod.lease_s == 60
        assert server.writes == [(1000, [2500]), (1000, [0])]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"connect": "tcp:/x"}, "main: connect: host"),
        ({"map_": "eastron_sdm"}, "map: 'eastron_sdm' is not known"),
        ({"map_": ""}, "map: '' is not known"),
        ({"wiring": ("L1", "L4", "L2")}, "wiring: 'L4' is no grid phase"),
        ({"wiring": ("L1", "L1")}, "names a grid phase twice"),
        ({"wiring": ("L1", "L2", "L3", "L1")}, "twice"),
        ({"options": {"max_a": True}}, "option max_a is True; give a number"),
        ({"options": {"peak_w": -1}}, "option peak_w is -1; give a number of 0 or more"),
        ({"options": {"max_soc": 95}}, "option max_soc is 95; give a number from 0 to 1"),
        ({"options": {"min_soc": 0.9, "max_soc": 0.5}}, "option min_soc (0.9) is not below max_soc (0.5)"),
    ],
)
def test_a_record_that_cannot_be_used_says_which_field_and_what_to_write(given, words):
    given = {"connect": "tcp://meter:502", **given}
    with pytest.raises(SettingsError) as caught:
        check(settings(**given))

    assert words in str(caught.value)


def test_a_module_with_contacts_is_no_meter():
    with pytest.raises(SettingsError, match="kind: Moxa ioLogik E1214 has contacts"):
        open_device(settings("tcp://meter:502", "moxa_e1214", "meter"), Lines())


def contacts_serving(inputs=(False,) * 6):
    return serving({}, coils=[False] * 16, inputs=list(inputs) + [False] * 10)

"""SunSpec: found by walking, scaled by the factors of the moment, signs turned, set-points with a lease."""

import asyncio
import struct

import pytest

from meters.devices.errors import AnswerNotValid, NotAllowed
from meters.devices.modbus import Lines
from meters.devices.opening import open_device
from meters.devices.protocols import Battery, Meter
from meters.devices.sunspec import END, MARK
from tests.meters.servers import serving, settings

NONE = 0x8000


def chain(*models: tuple[int, dict[int, int]], base: int = 40000) -> dict[int, int]:
    """The registers of a device with these models, each given by its words at offsets; the rest is not implemented."""
    words = list(MARK)
    for model, given in models:
        length = max(given) - 1
        block = [model, length, *[NONE] * length]
        for offset, word in given.items():
            block[offset] = word & 0xFFFF
        words += block
    words += [END, 0]
    return {base + i: w for i, w in enumerate(words)}


def model_103(**changes: int) -> dict[int, int]:
    """A three-phase inverter producing 4321 W: 6.26 A and 230.0 V on each phase."""
    words = {
        3: 626, 4: 627, 5: 628, 6: -2, 10: 2301, 11: 2302, 12: 2303, 13: -1, 14: 4321, 15: 0, 16: 4998, 17: -2,
        18: 4330, 19: 0, 20: -280, 21: 0, 22: 9980, 23: -2, 24: 0x0001, 25: 0xE240, 26: 1, 31: 446, 32: 1, 38: 4, 51: 0,
    }  # fmt: skip
    return {**words, **{int(k.removeprefix("at_")): v for k, v in changes.items()}}


def model_124(**changes: int) -> dict[int, int]:
    words = {
        2: 1000, 5: 0, 8: 6250, 11: 4, 12: 10000, 13: 10000, 14: 0, 15: 0, 17: 0, 18: 1, 22: -2, 25: -2,
    }  # fmt: skip
    return {**words, **{int(k.removeprefix("at_")): v for k, v in changes.items()}}


def floats(values: dict[int, float]) -> dict[int, int]:
    out: dict[int, int] = {}
    for offset, value in values.items():
        high, low = struct.unpack(">HH", struct.pack(">f", value))
        out[offset], out[offset + 1] = high, low
    return out


async def opened(server, map_, kind, **more):
    return open_device(settings(f"tcp://127.0.0.1:{server.port}", map_, kind, **more), Lines())


async def test_an_inverter_is_found_by_walking_and_its_production_is_negative():
    async with serving(chain((1, {67: 0}), (103, model_103()))) as server:
        inverter = await opened(server, "sunspec_inverter", "pv")

        measured = await inverter.read()

        assert isinstance(inverter, Meter)
        assert measured.power_w == -4321
        assert measured.current_a == pytest.approx((-6.26, -6.27, -6.28))
        assert measured.voltage_v == pytest.approx((230.1, 230.2, 230.3))
        assert measured.frequency_hz == pytest.approx(49.98)
        assert measured.reactive_var == 280
        assert measured.power_factor == pytest.approx(-0.998)
        assert measured.energy_export_wh == 1_234_560
        assert measured.energy_import_wh is None
        assert measured.state == "producing"


async def test_the_mark_may_stand_elsewhere():
    async with serving(chain((103, model_103()), base=50000)) as server:
        inverter = await opened(server, "sunspec_inverter", "pv")

        assert (await inverter.read()).power_w == -4321


async def test_scale_factors_are_read_with_every_value():
    async with serving(chain((103, model_103()))) as server:
        inverter = await opened(server, "sunspec_inverter", "pv")
        await inverter.read()
        power, factor = 40002 + 14, 40002 + 15

        server.registers[power], server.registers[factor] = 432, 0xFFFF

        assert (await inverter.read()).power_w == pytest.approx(-43.2)


async def test_what_an_inverter_does_not_implement_is_unknown():
    async with serving(chain((103, model_103(at_18=NONE, at_20=NONE, at_22=NONE, at_24=0, at_25=0)))) as server:
        measured = await (await opened(server, "sunspec_inverter", "pv")).read()

        assert measured.reactive_var is None
        assert measured.energy_export_wh is None
        assert measured.power_w == -4321


async def test_a_single_phase_inverter_with_floats_stands_on_the_phase_it_is_wired_to():
    model = {
        **floats(
            {2: 5.0, 4: 5.0, 16: 229.5, 22: 1147.5, 24: 50.01, 26: 1150.0, 28: 0.0, 30: 99.8, 32: 5e6, 38: 1200.0}
        ),
        48: 4,
        61: 0,
    }
    async with serving(chain((111, model))) as server:
        inverter = await opened(server, "sunspec_inverter", "pv", wiring=("L3",))

        measured = await inverter.read()

        assert measured.current_a == (None, None, -5.0)
        assert measured.power_w == pytest.approx(-1147.5)
        assert measured.energy_export_wh == pytest.approx(5e6)


async def test_the_newer_model_gives_power_per_phase():
    model = {
        4: 4, 10: 3000, 11: 3010, 12: 100, 17: 0, 18: 5000, 19: 0, 20: 0, 21: 0, 22: 777, 23: 0, 24: 0, 25: 0, 26: 5,
        41: 1000, 45: 43, 47: 2300, 64: 1000, 68: 43, 70: 2310, 87: 1000, 91: 43, 93: 2320,
        113: -1, 114: -1, 115: -2, 116: 0, 117: -2, 118: 0, 119: 0, 120: 3, 154: 0,
    }  # fmt: skip
    async with serving(chain((701, model), (103, model_103()))) as server:
        measured = await (await opened(server, "sunspec_inverter", "pv")).read()

        assert measured.power_phase_w == (-1000, -1000, -1000)
        assert measured.current_a == pytest.approx((-4.3, -4.3, -4.3))
        assert measured.energy_export_wh == 777_000
        assert measured.energy_import_wh == 5_000


async def test_a_sunspec_meter_is_read_as_installed_or_turned():
    model = {
        3: 100, 4: 101, 5: 102, 6: -1, 8: 2300, 9: 2301, 10: 2302, 15: -1, 16: 500, 17: -1, 18: 690, 19: 230, 20: 230,
        21: 230, 22: 1, 23: 700, 27: 1, 28: 10, 32: 1, 33: 98, 37: 0, 38: 0, 39: 1000, 46: 0, 47: 2000, 54: 0, 106: 0,
    }  # fmt: skip
    async with serving(chain((203, model))) as server:
        plain = await (await opened(server, "sunspec_meter", "meter")).read()
        turned = await (await opened(server, "sunspec_meter", "meter", invert=True)).read()

        assert plain.power_w == 6900 and turned.power_w == -6900
        assert plain.power_factor == pytest.approx(0.98)
        assert (plain.energy_import_wh, plain.energy_export_wh) == (2000, 1000)
        assert (turned.energy_import_wh, turned.energy_export_wh) == (1000, 2000)


async def test_a_device_that_does_not_speak_sunspec_is_told_from_one_without_the_model():
    async with serving({40000: 1, 40001: 2, 0: 0, 1: 0}) as server:
        with pytest.raises(AnswerNotValid, match="no SunSpec mark at 40000, 50000, 0"):
            await (await opened(server, "sunspec_inverter", "pv")).read()
    async with serving(chain((1, {67: 0}))) as server:
        with pytest.raises(AnswerNotValid, match=r"has SunSpec models 1, but none of 701, 103"):
            await (await opened(server, "sunspec_inverter", "pv")).read()


async def test_a_chain_without_an_end_is_an_error_and_not_an_endless_walk():
    registers = {40000: MARK[0], 40001: MARK[1], **dict.fromkeys(range(40002, 40400), 0)}
    async with serving(registers) as server:
        with pytest.raises(AnswerNotValid, match="no end"):
            await (await opened(server, "sunspec_inverter", "pv")).read()


async def test_a_model_that_moved_after_an_update_is_found_again():
    async with serving(chain((1, {67: 0}), (103, model_103()))) as server:
        inverter = await opened(server, "sunspec_inverter", "pv")
        await inverter.read()
        port = server.port
        await server.stop()
        moved = chain((1, {65: 0}), (103, model_103()))
        server.registers = {**moved, **{a: 0 for a in server.registers if a not in moved}}
        server.port = port
        await server.start()

        results = []
        for _ in range(20):
            try:
                results.append((await inverter.read()).power_w)
                break
            except Exception as error:
                results.append(type(error).__name__)
                await asyncio.sleep(0.1)

        assert results[-1] == -4321
        assert "AnswerNotValid" in results


async def test_a_battery_closes_its_window_on_the_set_point_with_the_lease_first_and_the_mode_last():
    async with serving(chain((103, model_103(at_14=-2000)), (124, model_124()))) as server:
        battery = await opened(server, "sunspec_storage", "battery")
        assert isinstance(battery, Battery)
        start = 40002 + 52

        await battery.set_power(2500, 60)

        assert server.writes == [
            (start + 15, [60]),
            (start + 12, [65536 - 2500, 2500]),
            (start + 17, [1]),
            (start + 5, [3]),
        ]


async def test_discharge_turns_the_window_round_and_release_opens_it():
    async with serving(chain((103, model_103()), (124, model_124()))) as server:
        battery = await opened(server, "sunspec_storage", "battery")
        start = 40002 + 52
        await battery.set_power(-10_000, 60)
        server.writes.clear()

        await battery.set_power(-20_000, 60)
        await battery.release()

        assert (start + 12, [10000, 65536 - 10000]) in server.writes
        assert server.writes[-2:] == [(start + 5, [0]), (start + 12, [10000, 10000])]


async def test_a_battery_s_power_is_charging_when_positive_and_its_charge_is_a_share():
    async with serving(chain((103, model_103(at_14=-2000)), (124, model_124()))) as server:
        battery = await opened(server, "sunspec_storage", "battery", options={"capacity_wh": 15_000})

        measured = await battery.read()

        assert measured.power_w == 2000
        assert measured.current_a is not None and measured.current_a[0] == pytest.approx(6.26)
        assert measured.soc == pytest.approx(0.625)
        assert measured.energy_capacity_wh == 15_000
        assert measured.state == "charging"


async def test_behind_a_hybrid_inverter_only_the_battery_s_own_power_counts():
    base = {3: 150, 11: 800, 16: 3, 47: 1500, 53: 2, 56: -1, 63: 0}
    async with serving(chain((103, model_103()), (124, model_124()), (802, base))) as server:
        measured = await (await opened(server, "sunspec_storage", "battery", options={"hybrid": True})).read()

        assert measured.power_w == -1500
        assert measured.current_a is None and measured.energy_export_wh is None
        assert measured.soc == pytest.approx(0.8)
        assert measured.energy_capacity_wh == 15_000


async def test_a_hybrid_inverter_may_give_the_battery_as_two_strings():
    strings = {4: 0, 8: 4, 61: 1200, 81: 0, 89: 0}
    async with serving(chain((103, model_103()), (124, model_124()), (160, strings))) as server:
        measured = await (await opened(server, "sunspec_storage", "battery", options={"hybrid": True})).read()

        assert measured.power_w == 1200


async def test_a_battery_that_accepts_but_does_not_keep_a_set_point_is_found_out():
    async with serving(chain((103, model_103()), (124, model_124()))) as server:
        battery = await opened(server, "sunspec_storage", "battery")
        await battery.set_power(1000, 60)

        class Forgetful(dict):
            def __setitem__(self, address, word):
                super().__setitem__(address, 0 if address == 40002 + 52 + 5 else word)

        server.registers = Forgetful(server.registers)
        with pytest.raises(AnswerNotValid, match="did not keep it"):
            await battery.set_power(500, 60)


async def test_a_battery_without_the_storage_model_cannot_be_commanded():
    async with serving(chain((103, model_103()))) as server:
        battery = await opened(server, "sunspec_storage", "battery", options={"max_charge_w": 5000})

        with pytest.raises(NotAllowed, match="no SunSpec model 124"):
            await battery.set_power(1000, 60)


async def test_production_is_limited_by_share_of_the_rated_power():
    limits = {5: 1000, 7: 0, 9: 0, 23: -1, 25: 0}
    async with serving(chain((103, model_103()), (120, {3: 1000, 4: 1, 27: 0}), (123, limits))) as server:
        inverter = await opened(server, "sunspec_inverter", "pv")

        await inverter.set_power(-2500, 90)
        start = 40002 + 52 + 28

        assert server.writes[-3:] == [(start + 7, [90]), (start + 5, [250]), (start + 9, [1])]
        await inverter.release()
        assert server.writes[-1] == (start + 9, [0])

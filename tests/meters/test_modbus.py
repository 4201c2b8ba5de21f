"""One line for many devices: shared, in turn, told at once when it is away, and found again when it is back."""

import asyncio
import os
import pty
import struct
import time
import tty

import pytest
from pymodbus.framer import FramerRTU, FramerType

from meters.devices import maps
from meters.devices.connect import parse
from meters.devices.errors import AnswerNotValid, DeviceRefused, DeviceUnreachable
from meters.devices.meter import ModbusDevice
from meters.devices.modbus import Line, Lines
from meters.devices.opening import open_device
from meters.devices.registers import HOLDING, INPUT
from tests.meters.servers import RegisterServer, serving, settings
from tests.meters.test_maps import recorded


def words_of(name):
    return {address: word for (_, address), word in recorded(name).items()}


async def test_a_meter_is_read_over_tcp():
    async with serving(words_of("eastron_sdm630")) as server:
        lines = Lines()
        meter = open_device(settings(f"tcp://127.0.0.1:{server.port}?unit=1"), lines)

        measured = await meter.read()

        assert measured.power_phase_w == pytest.approx((2800, -1260, 4590))
        lines.close()


async def test_a_meter_is_read_as_rtu_over_tcp():
    async with serving(words_of("abb_b23"), framer=FramerType.RTU) as server:
        lines = Lines()
        meter = open_device(settings(f"rtuovertcp://127.0.0.1:{server.port}?unit=1&spacing=0", "abb_b23"), lines)

        measured = await meter.read()

        assert measured.power_w == pytest.approx(6130)
        assert measured.energy_import_wh == pytest.approx(12_345_600)
        lines.close()


async def test_a_meter_is_read_over_a_serial_line():
    """A pseudo terminal with a unit at its other end that answers by the book."""
    ours, theirs = pty.openpty()
    tty.setraw(theirs)
    registers = words_of("janitza_umg96")

    def answer():
        request = os.read(ours, 256)
        unit, function, address, count = struct.unpack(">BBHH", request[:6])
        words = b"".join(registers[address + i].to_bytes(2, "big") for i in range(count))
        frame = bytes([unit, function, 2 * count]) + words
        os.write(ours, frame + FramerRTU.compute_CRC(frame).to_bytes(2, "big"))

    asyncio.get_running_loop().add_reader(ours, answer)
    lines = Lines()
    meter = open_device(settings(f"rtu://{os.ttyname(theirs)}?baud=19200&unit=3", "janitza_umg96"), lines)

    measured = await meter.read()

    assert measured.power_phase_w == pytest.approx((2800, -1260, 4590))
    assert measured.energy_export_wh == pytest.approx(789_000)
    asyncio.get_running_loop().remove_reader(ours)
    lines.close()
    os.close(ours)
    os.close(theirs)


async def test_bridges_are_cut_once_and_remembered_when_the_device_refuses_them():
    async with serving(words_of("eastron_sdm630")) as server:
        lines = Lines()
        meter = open_device(settings(f"tcp://127.0.0.1:{server.port}"), lines)
        await meter.read()
        server.reads.clear()

        await meter.read()

        assert (0, 36) in server.reads
        assert len(server.reads) == 6
        lines.close()


async def test_an_optional_point_that_is_refused_is_not_asked_again():
    registers = {a: w for a, w in words_of("siemens_pac2200").items() if not 805 <= a <= 808 and not 813 <= a <= 816}
    async with serving(registers) as server:
        lines = Lines()
        meter = open_device(settings(f"tcp://127.0.0.1:{server.port}", "siemens_pac2200"), lines)

        measured = await meter.read()

        assert measured.energy_import_wh == pytest.approx(12_000_000)
        assert measured.frequency_hz == pytest.approx(49.98, abs=0.01)
        server.reads.clear()
        await meter.read()
        assert not [a for a, n in server.reads if a <= 805 < a + n]
        lines.close()


async def test_a_needed_register_that_is_missing_is_named_with_device_point_and_register():
    registers = {a: w for a, w in words_of("eastron_sdm630").items() if a not in (70, 71)}
    async with serving(registers) as server:
        lines = Lines()
        meter = open_device(settings(f"tcp://127.0.0.1:{server.port}?unit=1"), lines)

        with pytest.raises(DeviceRefused, match=r"main: frequency .*input registers 70–71, unit 1.*no such register"):
            await meter.read()
        lines.close()


async def test_devices_on_one_line_share_its_connection_and_wait_their_turn():
    async with serving(words_of("eastron_sdm630"), units=(1, 2, 3)) as server:
        server.delay_s = 0.005
        lines = Lines()
        meters = [
            open_device(settings(f"tcp://127.0.0.1:{server.port}?unit={unit}", name=f"m{unit}"), lines)
            for unit in (1, 2, 3)
        ]

        measured = await asyncio.gather(*(m.read() for m in meters))

        assert len({id(m.line) for m in meters}) == 1
        assert server.most_asking == 1
        assert all(m.power_w == pytest.approx(6130) for m in measured)
        for meter in meters:
            await meter.close()
        assert lines.take(parse(f"tcp://127.0.0.1:{server.port}")) is not meters[0].line
        lines.close()


async def test_silence_is_kept_between_requests():
    async with serving({0: 1}) as server:
        line = Line(parse(f"tcp://127.0.0.1:{server.port}?spacing=0.05"))
        started = time.monotonic()
        for _ in range(4):
            await line.read(1, HOLDING, 0, 1, "x")

        assert time.monotonic() - started >= 0.15
        line.close()


async def test_a_line_that_is_away_says_so_at_once_and_is_found_when_it_is_back():
    server = RegisterServer({0: 7})
    await server.start()
    line = Line(parse(f"tcp://127.0.0.1:{server.port}?timeout=0.2"))
    assert await line.read(1, HOLDING, 0, 1, "x") == [7]

    await server.stop()
    with pytest.raises(DeviceUnreachable):
        await line.read(1, HOLDING, 0, 1, "x")
    with pytest.raises(DeviceUnreachable):
        await line.read(1, HOLDING, 0, 1, "x")
    with pytest.raises(DeviceUnreachable, match="next try in"):
        await line.read(1, HOLDING, 0, 1, "x")

    await server.start()
    for _ in range(60):
        try:
            assert await line.read(1, HOLDING, 0, 1, "x") == [7]
            break
        except DeviceUnreachable:
            await asyncio.sleep(0.1)
    else:
        pytest.fail("the line was not found again")
    line.close()
    await server.stop()


async def test_waiting_longer_and_longer_ends_at_ten_seconds():
    now = [0.0]
    line = Line(parse("tcp://127.0.0.1:1?timeout=0.2"), clock=lambda: now[0])
    delays = []
    for _ in range(7):
        with pytest.raises(DeviceUnreachable) as caught:
            await line.read(1, HOLDING, 0, 1, "x")
        delays.append(float(str(caught.value).rsplit("in ", 1)[1].removesuffix(" s")))
        now[0] += delays[-1]

    assert delays == [0.5, 1.0, 2.0, 4.0, 8.0, 10.0, 10.0]


async def test_a_device_that_hangs_costs_one_timeout_not_for_ever():
    async with serving({0: 7}) as server:
        server.delay_s = 5
        line = Line(parse(f"tcp://127.0.0.1:{server.port}?timeout=0.1"))

        with pytest.raises(DeviceUnreachable, match=r"no answer within 0.1 s"):
            await line.read(1, HOLDING, 0, 1, "x")
        line.close()


async def test_a_late_rtu_answer_is_never_taken_for_the_next_one():
    """RTU frames carry no number: after a timeout the connection is new."""
    async with serving({0: 111, 1: 222}, framer=FramerType.RTU) as server:
        line = Line(parse(f"rtuovertcp://127.0.0.1:{server.port}?timeout=0.15&spacing=0"))
        server.delay_s = 0.25
        with pytest.raises(DeviceUnreachable):
            await line.read(1, HOLDING, 0, 1, "first")
        server.delay_s = 0.0

        assert await line.read(1, HOLDING, 1, 1, "second") == [222]
        line.close()


async def test_an_answer_that_is_not_modbus_is_an_error_and_not_a_crash():
    async def babble(reader, writer):
        await reader.read(64)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(babble, "127.0.0.1", 0)
    line = Line(parse(f"tcp://127.0.0.1:{server.sockets[0].getsockname()[1]}?timeout=0.2"))

    with pytest.raises(DeviceUnreachable):
        await line.read(1, INPUT, 0, 2, "x")
    line.close()
    server.close()


async def test_a_device_without_any_value_is_not_taken_for_zero():
    async with serving(dict.fromkeys(words_of("janitza_umg96"), 0xFFFF)) as server:
        lines = Lines()
        meter = open_device(settings(f"tcp://127.0.0.1:{server.port}", "janitza_umg96"), lines)

        with pytest.raises(AnswerNotValid, match="gives no value"):
            await meter.read()
        lines.close()


async def test_a_point_is_written_in_its_unit():
    map_ = maps.get("huawei_luna2000")
    async with serving(dict.fromkeys(range(47247, 47251), 0)) as server:
        lines = Lines()
        device = open_device(settings(f"tcp://127.0.0.1:{server.port}", "huawei_luna2000"), lines)
        assert isinstance(device, ModbusDevice)

        await device.write_point(map_.point("forced_charge"), 70_000)

        assert server.writes == [(47247, [1, 4464])]
        lines.close()

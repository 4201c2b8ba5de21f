"""The digital meter: real telegrams, damaged ones, and a stream that breaks off."""

import asyncio
import os
import pty
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meters.devices import p1
from meters.devices.errors import DeviceUnreachable
from meters.devices.modbus import Lines
from meters.devices.opening import open_device
from meters.devices.quantities import Door
from tests.meters.servers import settings as device

RECORDED = Path(__file__).parent / "recorded"
BELGIAN = (RECORDED / "p1_be_fluvius_3ph_2023.txt").read_bytes()
OLDER = (RECORDED / "p1_be_fluvius_3ph_2020.txt").read_bytes()
DUTCH = (RECORDED / "p1_nl_dsmr5_3ph.txt").read_bytes()
AT = datetime(2026, 3, 1, 12, tzinfo=UTC)


def signed(text: str) -> bytes:
    body = text.replace("\n", "\r\n").encode()
    return body + f"{p1.crc16(body):04X}\r\n".encode()


def test_a_belgian_meter_gives_power_per_phase_demand_and_the_month_s_peak():
    telegram = p1.parse(BELGIAN)
    measured = p1.measure(telegram, AT, Door())

    assert measured.power_w == pytest.approx(338)
    assert measured.power_phase_w == pytest.approx((47, 179, 111))
    assert measured.voltage_v == pytest.approx((232.9, 228.1, 228.1))
    assert measured.current_a == pytest.approx((0.27, 0.88, 0.52))
    assert measured.energy_import_wh == pytest.approx(301_548 + 270_014)
    assert measured.energy_export_wh == pytest.approx(5)
    assert measured.reactive_var is None
    assert measured.demand_w == pytest.approx(52)
    assert measured.month_peak_w == pytest.approx(3064)
    assert telegram.month_peak_at == datetime(2023, 11, 2, 10, 45, tzinfo=UTC)
    assert telegram.at == datetime(2023, 11, 2, 11, 15, 48, tzinfo=UTC)
    assert (telegram.tariff, telegram.breaker_closed) == (1, True)
    assert telegram.limiter_w is None and telegram.fuse_a is None
    assert telegram.meter_id == "1SAG3100721326"


def test_an_older_belgian_and_a_dutch_meter_are_read_too():
    assert p1.parse(OLDER).quarter_demand_w == pytest.approx(2351)
    assert p1.parse(OLDER).at == datetime(2020, 5, 12, 11, 54, 9, tzinfo=UTC)

    dutch = p1.measure(p1.parse(DUTCH), AT, Door())
    assert dutch.power_phase_w == pytest.approx((70, 32, 142))
    assert dutch.demand_w is None and dutch.month_peak_w is None


def test_a_current_takes_the_sign_of_its_phase():
    measured = p1.measure(
        p1.parse(
            signed(
                "/X\n\n1-0:1.7.0(00.000*kW)\n1-0:2.7.0(01.150*kW)\n1-0:21.7.0(00.230*kW)\n1-0:22.7.0(00.000*kW)\n"
                "1-0:41.7.0(00.000*kW)\n1-0:42.7.0(01.380*kW)\n1-0:32.7.0(230.0*V)\n1-0:52.7.0(230.0*V)\n"
                "1-0:31.7.0(001.00*A)\n1-0:51.7.0(006.00*A)\n!"
            )
        ),
        AT,
        Door(),
    )

    assert measured.power_w == pytest.approx(-1150)
    assert measured.current_a == (1.0, -6.0, None)


def test_whole_amps_are_never_less_than_the_power_needs():
    measured = p1.measure(
        p1.parse(
            signed("/X\n\n1-0:1.7.0(02.200*kW)\n1-0:21.7.0(02.200*kW)\n1-0:32.7.0(230.0*V)\n1-0:31.7.0(009*A)\n!")
        ),
        AT,
        Door(),
    )

    assert measured.current_a is not None
    assert measured.current_a[0] == pytest.approx(2200 / 230)


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (BELGIAN.replace(b"00.338", b"99.338"), "damaged"),
        (BELGIAN[:-6] + b"ZZZZ\r\n", "instead of its CRC"),
        (b"nothing", "no beginning"),
        (b"/X\r\n!", "instead of its CRC"),
        (b"", "no beginning"),
    ],
)
def test_a_damaged_telegram_is_refused(raw, words):
    with pytest.raises(p1.TelegramError, match=words):
        p1.parse(raw)


def test_nonsense_in_a_field_makes_it_unknown_and_harms_nothing_else():
    telegram = p1.parse(
        signed(
            "/X\n\n0-0:1.0.0(991399999999S)\n1-0:1.7.0(00.x00*kW)\n1-0:32.7.0(230.0*V)\n1-0:1.4.0(1*hp)\n0-0:96.14.0()\n!"
        )
    )

    assert telegram.at is None and telegram.quarter_demand_w is None and telegram.tariff is None
    assert telegram.values["power"] is None
    assert telegram.values["voltage_1"] == 230


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(1, 900), max_size=12), st.binary(max_size=30))
def test_telegrams_are_found_however_the_stream_is_cut(cuts, rubbish):
    rubbish = rubbish.replace(b"/", b".").replace(b"!", b".")
    stream = rubbish + BELGIAN + OLDER + DUTCH
    splitter, found, at = p1.Splitter(), [], 0
    for cut in [*cuts, len(stream)]:
        found += splitter.feed(stream[at : at + cut])
        at += cut

    assert [len(p1.parse(raw).values) for raw in found] == [len(p1.parse(BELGIAN).values)] * 3


def test_a_stream_without_end_does_not_grow_without_end():
    splitter = p1.Splitter()
    for _ in range(100):
        splitter.feed(b"/" + b"x" * 4096)

    assert splitter.feed(b"\r\n" + BELGIAN)[-1].endswith(BELGIAN[-20:])


async def test_a_meter_behind_a_tcp_bridge_is_read_and_found_again():
    telegrams = [BELGIAN, OLDER]

    async def bridge(reader, writer):
        writer.write(telegrams.pop(0) if telegrams else DUTCH)
        await writer.drain()
        writer.close()  # it breaks off after each telegram

    server = await asyncio.start_server(bridge, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    meter = open_device(device(f"p1://127.0.0.1:{port}", ""), Lines())

    first = await meter.read()
    second = await meter.read()

    assert first.month_peak_w == pytest.approx(3064)
    assert second.month_peak_w == pytest.approx(2589)
    await meter.close()
    server.close()


async def test_a_meter_on_a_serial_port_is_read():
    ours, theirs = pty.openpty()
    meter = open_device(device(f"p1://{os.ttyname(theirs)}", ""), Lines())
    reading = asyncio.create_task(meter.read())
    for _ in range(20):
        os.write(ours, BELGIAN)
        done, _ = await asyncio.wait([reading], timeout=0.2)
        if done:
            break

    assert (await reading).power_w == pytest.approx(338)
    await meter.close()
    os.close(ours)
    os.close(theirs)


async def test_a_meter_that_is_not_there_is_an_error_with_its_address(monkeypatch):
    monkeypatch.setattr(p1, "WAIT_S", 0.3)
    meter = open_device(device("p1://127.0.0.1:1", ""), Lines())

    with pytest.raises(DeviceUnreachable, match=r"main: p1://127.0.0.1:1"):
        await meter.read()
    await meter.close()

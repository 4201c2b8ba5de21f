"""The `connect` text of a device: what is right becomes facts, what is wrong says which part and what to write."""

import pytest

from meters.devices.connect import ConnectError, Transport, parse


def test_each_way_to_reach_a_device_is_understood():
    tcp = parse("tcp://192.168.1.20:503?unit=7")
    assert (tcp.transport, tcp.host, tcp.port, tcp.unit, tcp.spacing_s) == (Transport.TCP, "192.168.1.20", 503, 7, 0)

    rtu = parse("rtu:///dev/ttyUSB0?baud=19200&unit=3&parity=e&stop=2")
    assert (rtu.path, rtu.baud, rtu.unit, rtu.parity, rtu.stop_bits) == ("/dev/ttyUSB0", 19200, 3, "E", 2)
    assert rtu.spacing_s == 0.05

    over = parse("rtuovertcp://gateway.local:4001?unit=2&timeout=0.5&spacing=0.1")
    assert (over.host, over.port, over.unit, over.timeout_s, over.spacing_s) == ("gateway.local", 4001, 2, 0.5, 0.1)

    assert parse("p1:///dev/ttyUSB1").baud == 115200
    assert parse("p1://10.0.0.9:2001").port == 2001
    assert parse("tcp://[fe80::1]:502").host == "fe80::1"


def test_the_usual_port_and_unit_need_not_be_written():
    plain = parse(" tcp://meter ")

    assert (plain.port, plain.unit, plain.timeout_s) == (502, 1, 1.0)


def test_devices_on_one_line_know_that_they_share_it():
    assert parse("tcp://a:502?unit=1").line == parse("tcp://a:502?unit=2").line
    assert parse("rtu:///dev/ttyUSB0?unit=1").line != parse("rtu:///dev/ttyUSB1?unit=1").line


@pytest.mark.parametrize(
    ("text", "field", "words"),
    [
        ("", "scheme", "empty"),
        ("192.168.1.20", "scheme", "not known"),
        ("http://meter", "scheme", "use tcp, rtu, rtuovertcp or p1"),
        ("tcp://", "host", "missing"),
        ("tcp://meter:99999", "port", "no valid address"),
        ("tcp://meter:abc", "port", "no valid address"),
        ("tcp://meter/unit/1", "path", "does not belong"),
        ("tcp://meter?unit=900", "unit", "0 to 255"),
        ("tcp://meter?unit=one", "unit", "whole number"),
        ("tcp://meter?unit=1&unit=2", "unit", "twice"),
        ("tcp://meter?baud=9600", "baud", "known are spacing, timeout, unit"),
        ("rtuovertcp://gateway?unit=1", "port", "missing"),
        ("rtu:///dev/ttyUSB0?unit=0", "unit", "1 to 247"),
        ("rtu:///dev/ttyUSB0?baud=9601", "baud", "9600"),
        ("rtu:///dev/ttyUSB0?parity=X", "parity", "N, E, O"),
        ("rtu://dev/ttyUSB0", "path", "three slashes"),
        ("tcp://meter?timeout=soon", "timeout", "seconds"),
        ("p1://meter", "port", "missing"),
    ],
)
def test_what_is_wrong_is_named_with_the_way_out(text, field, words):
    with pytest.raises(ConnectError) as caught:
        parse(text)

    assert caught.value.field == field
    assert words in str(caught.value)
    assert str(caught.value).startswith(f"connect: {field}: ")

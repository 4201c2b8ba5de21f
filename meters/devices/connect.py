"""How a device is reached: the `connect` text of a device as facts. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from urllib.parse import parse_qsl, urlsplit

EXAMPLES = (
    "tcp://192.168.1.20:502?unit=1, rtu:///dev/ttyUSB0?baud=9600&unit=3, rtuovertcp://192.168.1.30:4001?unit=2, "
    "p1:///dev/ttyUSB1, p1://192.168.1.40:2001"
)


class ConnectError(ValueError):
    """The text does not say how to reach a device. `field` is the part that is wrong."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(f"connect: {field}: {message}")
        self.field = field


class Transport(StrEnum):
    TCP = "tcp"
    RTU = "rtu"
    RTU_OVER_TCP = "rtuovertcp"
    P1 = "p1"


@dataclass(frozen=True, slots=True)
class Connect:
    """One way to one device. A line is (host, port) or a serial port; `unit` tells devices on one line apart.

    `spacing_s` is the silence kept between two requests on the line; `timeout_s` how long an answer may take.
    """

    transport: Transport
    host: str = ""
    port: int = 0
    path: str = ""
    unit: int = 1
    baud: int = 9600
    parity: str = "N"
    stop_bits: int = 1
    spacing_s: float = 0.0
    timeout_s: float = 1.0

    @property
    def line(self) -> str:
        """What is shared: everything on the same line uses one connection and waits its turn."""
        where = self.path or f"{self.host}:{self.port}"
        return f"{self.transport.value}://{where}"

    @property
    def serial(self) -> bool:
        return bool(self.path)


_ALLOWED = {
    Transport.TCP: {"unit", "timeout", "spacing"},
    Transport.RTU_OVER_TCP: {"unit", "timeout", "spacing"},
    Transport.RTU: {"unit", "baud", "parity", "stop", "timeout", "spacing"},
    Transport.P1: {"baud"},
}
_BAUDS = (1200, 2400, 4800, 9600, 19200, 38400, 57600, 115200)
RTU_SILENCE_S = 0.05
P1_BAUD = 115200


def parse(text: str) -> Connect:
    """Read a `connect` text. Raises `ConnectError` naming the part that is wrong and the way out."""
    text = text.strip()
    if not text:
        raise ConnectError("scheme", f"empty; write for example {EXAMPLES}")
    try:
        url = urlsplit(text)
        port = url.port
    except ValueError as error:
        raise ConnectError("port", f"{text!r} has no valid address ({error}); write for example {EXAMPLES}") from error
    try:
        transport = Transport(url.scheme)
    except ValueError as error:
        raise ConnectError(
            "scheme", f"{url.scheme or text!r} is not known; use tcp, rtu, rtuovertcp or p1, for example {EXAMPLES}"
        ) from error
    given = _query(url.query, transport)
    serial = transport is Transport.RTU or (transport is Transport.P1 and not url.netloc)
    host, path = "", ""
    if serial:
        path = url.path
        if url.netloc or not path.startswith("/") or len(path) < 2:
            raise ConnectError("path", "name the serial port after three slashes, for example rtu:///dev/ttyUSB0")
    else:
        host = url.hostname or ""
        if not host:
            raise ConnectError("host", f"missing; write for example {transport.value}://192.168.1.20:502")
        if url.path.strip("/"):
            raise ConnectError("path", f"{url.path!r} does not belong after a host; use {transport.value}://host:port")
        if port is None and transport is Transport.TCP:
            port = 502
        if not port:
            raise ConnectError("port", f"missing; write for example {transport.value}://{host}:4001")
    rtu = transport in (Transport.RTU, Transport.RTU_OVER_TCP)
    return Connect(
        transport=transport,
        host=host,
        port=port or 0,
        path=path,
        unit=_whole(given, "unit", 1, low=0 if transport is Transport.TCP else 1, high=255 if not rtu else 247),
        baud=_baud(given, P1_BAUD if transport is Transport.P1 else 9600),
        parity=_one_of(given, "parity", "N", ("N", "E", "O")),
        stop_bits=int(_one_of(given, "stop", "1", ("1", "2"))),
        spacing_s=_seconds(given, "spacing", RTU_SILENCE_S if rtu else 0.0, high=5),
        timeout_s=_seconds(given, "timeout", 1.0, low=0.05, high=30),
    )


def _query(query: str, transport: Transport) -> dict[str, str]:
    given: dict[str, str] = {}
    for key, value in parse_qsl(query, keep_blank_values=True):
        if key not in _ALLOWED[transport]:
            known = ", ".join(sorted(_ALLOWED[transport]))
            raise ConnectError(key, f"not known for {transport.value}; known are {known}")
        if key in given:
            raise ConnectError(key, "given twice")
        given[key] = value
    return given


def _whole(given: dict[str, str], key: str, default: int, *, low: int, high: int) -> int:
    text = given.get(key, str(default))
    if not text.isdecimal() or not low <= int(text) <= high:
        raise ConnectError(key, f"{text!r} is no whole number from {low} to {high}")
    return int(text)


def _baud(given: dict[str, str], default: int) -> int:
    text = given.get("baud", str(default))
    if not text.isdecimal() or int(text) not in _BAUDS:
        raise ConnectError("baud", f"{text!r}; use one of {', '.join(map(str, _BAUDS))}")
    return int(text)


def _one_of(given: dict[str, str], key: str, default: str, choices: tuple[str, ...]) -> str:
    text = given.get(key, default).upper()
    if text not in choices:
        raise ConnectError(key, f"{text!r}; use one of {', '.join(choices)}")
    return text


def _seconds(given: dict[str, str], key: str, default: float, *, low: float = 0.0, high: float) -> float:
    text = given.get(key)
    if text is None:
        return default
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not low <= value <= high:
        raise ConnectError(key, f"{text!r} is no number of seconds from {low:g} to {high:g}")
    return value

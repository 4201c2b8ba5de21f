"""The Belgian and Dutch digital meter: one telegram a second through its P1 port (DSMR 5, e-MUCS H).

A telegram is text between `/` and `!` with a CRC16 behind it. Per-phase currents come without a sign: they take that
of the phase's power. Belgium gives no reactive power, but does give the running quarter-hour demand and the highest
quarter of the month, on which the capacity tariff is based. Phases that a meter does not give stay unknown.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import serial

from meters.devices.connect import Connect
from meters.devices.errors import AnswerNotValid, DeviceUnreachable
from meters.devices.meter import DeviceSettings, Now, utc_now
from meters.devices.quantities import Door, assemble
from meters.devices.registers import Value
from meters.measurement import Measurement

MAX_TELEGRAM = 65_536
WAIT_S = 12.0
"""Older Dutch meters speak every 10 s."""

_LINE = re.compile(r"^(\d+-\d+:\d+\.\d+\.\d+)((?:\([^)]*\))*)\s*$")
_FIELD = re.compile(r"\(([^)]*)\)")
_TIME = re.compile(r"^(\d{12})([SW])$")
_UNITS = {"kWh": 1000.0, "Wh": 1.0, "kW": 1000.0, "W": 1.0, "V": 1.0, "A": 1.0, "kvar": 1000.0, "": 1.0}


class TelegramError(AnswerNotValid):
    """What came is no whole, undamaged telegram."""


@dataclass(frozen=True, slots=True)
class Telegram:
    """One telegram as facts. Powers in W, energies in Wh, times aware; None where the meter says nothing."""

    at: datetime | None
    meter_id: str
    values: dict[str, Value]
    tariff: int | None = None
    quarter_demand_w: float | None = None
    month_peak_w: float | None = None
    month_peak_at: datetime | None = None
    breaker_closed: bool | None = None
    limiter_w: float | None = None
    fuse_a: float | None = None


def crc16(data: bytes) -> int:
    """CRC16 as DSMR uses it (polynomial x16+x15+x2+1, reflected, start 0)."""
    crc = 0
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ 0xA001 if crc & 1 else crc >> 1
    return crc


def parse(raw: bytes) -> Telegram:
    """The facts of one telegram, from `/` up to and including the CRC. Raises `TelegramError`."""
    start, end = raw.find(b"/"), raw.rfind(b"!")
    if start < 0 or end < start:
        raise TelegramError("the P1 telegram has no beginning or no end")
    given = raw[end + 1 : end + 5].decode("ascii", "replace").strip()
    try:
        wanted = int(given, 16) if len(given) == 4 else -1
    except ValueError:
        wanted = -1
    if wanted < 0:
        raise TelegramError(f"the P1 telegram ends in {given!r} instead of its CRC")
    if crc16(raw[start : end + 1]) != wanted:
        raise TelegramError(f"the P1 telegram is damaged: its CRC {given} does not fit")
    return _facts(raw[start:end].decode("ascii", "replace"))


def _facts(text: str) -> Telegram:
    found: dict[str, list[str]] = {}
    for line in text.splitlines():
        match = _LINE.match(line.strip())
        if match:
            found.setdefault(match[1], _FIELD.findall(match[2]))
    number = _Numbers(found)
    peak = found.get("1-0:1.6.0", [])
    breaker = found.get("0-0:96.3.10", [""])[0]
    tariff = found.get("0-0:96.14.0", [""])[0]
    return Telegram(
        at=_time(found.get("0-0:1.0.0", [""])[0]),
        meter_id=_hex_text(found.get("0-0:96.1.1", [""])[0]),
        values=_values(number),
        tariff=int(tariff) if tariff.isdecimal() else None,
        quarter_demand_w=number.get("1-0:1.4.0"),
        month_peak_w=number.get("1-0:1.6.0", last=True),
        month_peak_at=_time(peak[0]) if len(peak) > 1 else None,
        breaker_closed=breaker == "1" if breaker else None,
        limiter_w=_unless(number.get("0-0:17.0.0"), 999_900.0),
        fuse_a=_unless(number.get("1-0:31.4.0"), 999.0),
    )


@dataclass(frozen=True, slots=True)
class _Numbers:
    found: dict[str, list[str]]

    def get(self, obis: str, *, last: bool = False) -> float | None:
        fields = self.found.get(obis)
        if not fields:
            return None
        value, _, unit = fields[-1 if last else 0].partition("*")
        try:
            number = float(value) * _UNITS[unit]
        except (ValueError, KeyError):
            return None
        return number if math.isfinite(number) else None

    def is_whole(self, obis: str) -> bool:
        fields = self.found.get(obis) or [""]
        return fields[0] != "" and "." not in fields[0]

    def net(self, taken: str, given: str) -> float | None:
        """Import minus export; None when the meter gives neither."""
        a, b = self.get(taken), self.get(given)
        return None if a is None and b is None else (a or 0.0) - (b or 0.0)


def _values(number: _Numbers) -> dict[str, Value]:
    values: dict[str, Value] = {
        "power": number.net("1-0:1.7.0", "1-0:2.7.0"),
        "reactive": number.net("1-0:3.7.0", "1-0:4.7.0"),
        "energy_import_t1": number.get("1-0:1.8.1"),
        "energy_import_t2": number.get("1-0:1.8.2"),
        "energy_export_t1": number.get("1-0:2.8.1"),
        "energy_export_t2": number.get("1-0:2.8.2"),
        "energy_import": number.get("1-0:1.8.0"),
        "energy_export": number.get("1-0:2.8.0"),
    }
    for i, group in enumerate((20, 40, 60), start=1):
        power = number.net(f"1-0:{group + 1}.7.0", f"1-0:{group + 2}.7.0")
        volts = number.get(f"1-0:{group + 12}.7.0")
        amps = number.get(f"1-0:{group + 11}.7.0")
        if amps is not None and number.is_whole(f"1-0:{group + 11}.7.0") and power is not None and volts:
            # Whole amps may have been rounded down: never believe in less than the power needs.
            amps = max(amps, abs(power) / volts)
        values[f"power_{i}"], values[f"voltage_{i}"], values[f"current_{i}"] = power, volts, amps
    return values


def _time(text: str) -> datetime | None:
    match = _TIME.match(text)
    if not match:
        return None
    zone = timezone(timedelta(hours=2 if match[2] == "S" else 1))
    try:
        return datetime.strptime(match[1], "%y%m%d%H%M%S").replace(tzinfo=zone).astimezone(UTC)
    except ValueError:
        return None


def _hex_text(text: str) -> str:
    try:
        return bytes.fromhex(text).decode("ascii")
    except ValueError:
        return text


def _unless(value: float | None, placeholder: float) -> float | None:
    """The meter's way of saying "no limit set" is a row of nines."""
    return None if value is None or value >= placeholder else value


def measure(telegram: Telegram, at: datetime, door: Door) -> Measurement:
    """The measurement of a telegram at the moment it came in; the meter's own clock is not trusted."""
    single = all(telegram.values.get(f"voltage_{i}") is None for i in (2, 3))
    if single and len(door.wiring) == 3:
        door = replace(door, wiring=door.wiring[:1])
    return replace(
        assemble(telegram.values, at, door), demand_w=telegram.quarter_demand_w, month_peak_w=telegram.month_peak_w
    )


class Splitter:
    """Cuts a stream of bytes into telegrams. Rubbish between them, and what grows too long, is dropped."""

    def __init__(self) -> None:
        self._buffer = b""

    def feed(self, data: bytes) -> list[bytes]:
        """The whole telegrams that these bytes complete."""
        self._buffer = (self._buffer + data)[-MAX_TELEGRAM:]
        out: list[bytes] = []
        while True:
            start = self._buffer.find(b"/")
            if start < 0:
                self._buffer = b""
                return out
            end = self._buffer.find(b"!", start)
            line_end = self._buffer.find(b"\n", end) if end >= 0 else -1
            if line_end < 0:
                self._buffer = self._buffer[start:]
                return out
            out.append(self._buffer[start : line_end + 1])
            self._buffer = self._buffer[line_end + 1 :]


class P1Meter:
    """A digital meter's P1 port on a serial port or behind a TCP bridge. Keeps `Meter`.

    Telegrams come by themselves; `read` waits for the next one it has not given yet.
    """

    def __init__(self, settings: DeviceSettings, connect: Connect, door: Door, now: Now = utc_now) -> None:
        self.settings, self.door = settings, door
        self._connect, self._now = connect, now
        self._telegram: Telegram | None = None
        self._at: datetime | None = None
        self._fresh = asyncio.Event()
        self._error: str = ""
        self._task: asyncio.Task[None] | None = None

    async def read(self) -> Measurement:
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._listen(), name=f"p1 {self.settings.name}")
        try:
            async with asyncio.timeout(WAIT_S):
                await self._fresh.wait()
        except TimeoutError:
            self._error = self._error or f"no telegram within {WAIT_S:g} s"
        if not self._fresh.is_set() or self._telegram is None or self._at is None:
            raise DeviceUnreachable(f"{self.settings.name}: {self._connect.line}: {self._error}")
        self._fresh.clear()
        return measure(self._telegram, self._at, self.door)

    @property
    def telegram(self) -> Telegram | None:
        """The newest telegram."""
        return self._telegram

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
            self._task = None

    async def _listen(self) -> None:
        delay = 0.5
        while True:
            splitter = Splitter()
            try:
                async with contextlib.aclosing(self._stream()) as stream:
                    async for data in stream:
                        delay = 0.5
                        for raw in splitter.feed(data):
                            self._take(raw)
                self._error = "the connection was closed"
            except (OSError, serial.SerialException, TimeoutError) as error:
                self._error = str(error) or type(error).__name__
            await asyncio.sleep(delay)
            delay = min(10.0, delay * 2)

    def _take(self, raw: bytes) -> None:
        try:
            self._telegram = parse(raw)
        except TelegramError as error:
            self._error = str(error)
            return
        self._at = self._now()
        self._error = ""
        self._fresh.set()

    async def _stream(self) -> Any:
        stream = self._serial() if self._connect.serial else self._socket()
        async with contextlib.aclosing(stream) as chunks:
            async for chunk in chunks:
                yield chunk

    async def _socket(self) -> Any:
        async with asyncio.timeout(self._connect.timeout_s + 1):
            reader, writer = await asyncio.open_connection(self._connect.host, self._connect.port)
        try:
            while data := await self._chunk(reader):
                yield data
        finally:
            writer.close()

    @staticmethod
    async def _chunk(reader: asyncio.StreamReader) -> bytes:
        async with asyncio.timeout(WAIT_S * 2):
            return await reader.read(4096)

    async def _serial(self) -> Any:
        port = await asyncio.to_thread(self._open_serial)
        try:
            while True:
                data = await asyncio.to_thread(port.read, max(1, min(4096, port.in_waiting)))
                if data:
                    yield data
        finally:
            port.close()

    @property
    def _open_serial(self) -> Callable[[], Any]:
        c = self._connect
        # The timeout lets the reading thread notice that the meter was closed.
        return lambda: serial.Serial(c.path, c.baud, timeout=0.5, bytesize=8, parity="N", stopbits=1)

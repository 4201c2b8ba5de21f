"""One Modbus line: a TCP connection or a serial port, shared by every device on it.

Many devices accept only one master, and on a serial line only one may speak: so everything that goes to the same
(host, port) or serial port goes through one `Line`, one request at a time, in the order of asking, with the silence
the line needs. A line that is away is tried again after 0.5, 1, 2 … at most 10 s; whoever asks meanwhile is told at
once and never waits. All methods run in one event loop.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

from pymodbus.client import AsyncModbusSerialClient, AsyncModbusTcpClient
from pymodbus.exceptions import ModbusException
from pymodbus.framer import FramerType

from meters.devices.connect import Connect, Transport
from meters.devices.errors import AnswerNotValid, DeviceRefused, DeviceUnreachable
from meters.devices.registers import COILS, DISCRETE_INPUTS, HOLDING, INPUT

BACKOFF_S = (0.5, 10.0)
MISSES_BEFORE_RECONNECT = 3
T = TypeVar("T")
log = logging.getLogger(__name__)

_EXCEPTIONS = {
    1: "it does not know this function",
    2: "it has no such register",
    3: "it does not accept this value",
    4: "it failed",
    5: "it is still working on it",
    6: "it is busy",
    10: "the gateway has no path to it",
    11: "the gateway got no answer from it",
}
_NAMES = {COILS: "coil", DISCRETE_INPUTS: "discrete input", HOLDING: "holding register", INPUT: "input register"}


class Line:
    """The one connection to a (host, port) or serial port."""

    def __init__(self, connect: Connect, clock: Callable[[], float] = time.monotonic) -> None:
        self.name = connect.line
        self._connect = connect
        self._clock = clock
        self._turn = asyncio.Lock()  # first come, first served: no device on the line starves
        self._client: Any = None
        self._failures = 0
        self._not_before = 0.0
        self._silent_until = 0.0
        self._misses = 0
        self._answering: set[int] = set()
        self._rtu = connect.transport is not Transport.TCP

    async def read(self, unit: int, function: int, address: int, count: int, what: str) -> list[int]:
        """`count` words (or bits, as 0 and 1) from `address`. `what` names the values in an error."""

        async def ask(client: Any) -> Any:
            method = {
                COILS: client.read_coils,
                DISCRETE_INPUTS: client.read_discrete_inputs,
                HOLDING: client.read_holding_registers,
                INPUT: client.read_input_registers,
            }[function]
            return await method(address, count=count, device_id=unit)

        where = f"{what} ({_NAMES[function]}s {address}–{address + count - 1}, unit {unit}, {self.name})"
        answer = await self._exchange(unit, ask, where)
        found = [int(b) for b in answer.bits[:count]] if function in (COILS, DISCRETE_INPUTS) else answer.registers
        if len(found) != count:
            raise AnswerNotValid(f"{where}: {count} asked, {len(found)} answered")
        return list(found)

    async def write(self, unit: int, address: int, words: Sequence[int], what: str, *, single: bool = False) -> None:
        """Write holding registers: one request, function 16, or 6 for one word when `single`."""
        values = list(words)

        async def ask(client: Any) -> Any:
            if single and len(values) == 1:
                return await client.write_register(address, values[0], device_id=unit)
            return await client.write_registers(address, values, device_id=unit)

        await self._exchange(unit, ask, f"{what} (write register {address}, unit {unit}, {self.name})")

    async def write_coil(self, unit: int, address: int, on: bool, what: str) -> None:
        async def ask(client: Any) -> Any:
            return await client.write_coil(address, on, device_id=unit)

        await self._exchange(unit, ask, f"{what} (write coil {address}, unit {unit}, {self.name})")

    def close(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            client.close()

    async def _exchange(self, unit: int, ask: Callable[[Any], Awaitable[Any]], where: str) -> Any:
        async with self._turn:
            # A unit known to answer gets a second chance; one known to be silent must not hold up its neighbours.
            attempts = 2 if unit in self._answering else 1
            for attempt in range(attempts):
                client = await self._connected(where)
                await self._keep_silence()
                try:
                    answer = await _whole(ask(client))
                except (ModbusException, OSError, TimeoutError) as error:
                    self._missed()
                    if attempt + 1 < attempts:
                        continue
                    self._answering.discard(unit)
                    raise DeviceUnreachable(f"{where}: no answer within {self._connect.timeout_s:g} s") from error
                except asyncio.CancelledError:
                    self._missed()
                    raise
                finally:
                    self._silent_until = self._clock() + self._connect.spacing_s
                break
            self._misses = 0
            self._answering.add(unit)
        if answer.isError():
            code = int(getattr(answer, "exception_code", 0))
            meaning = _EXCEPTIONS.get(code, "unknown exception")
            raise DeviceRefused(f"{where}: refused, {meaning} (exception {code})", code)
        return answer

    async def _connected(self, where: str) -> Any:
        if self._client is not None and self._client.connected:
            return self._client
        self.close()
        wait = self._not_before - self._clock()
        if wait > 0:
            raise DeviceUnreachable(f"{where}: {self.name} is not reachable; next try in {wait:.1f} s")
        client = self._new_client()
        try:
            connected = bool(await _whole(client.connect()))
        except asyncio.CancelledError:
            client.close()
            raise
        except (ModbusException, OSError, TimeoutError):
            connected = False
        if not connected:
            client.close()
            delay = min(BACKOFF_S[1], BACKOFF_S[0] * 2**self._failures)
            self._failures += 1
            self._not_before = self._clock() + delay
            raise DeviceUnreachable(f"{where}: cannot connect to {self.name}; next try in {delay:.1f} s")
        self._client = client
        self._failures = self._misses = 0
        self._not_before = 0.0
        return client

    def _new_client(self) -> Any:
        c = self._connect
        # Reconnecting and repeating are done here, where the line's other users are known.
        if c.serial:
            return AsyncModbusSerialClient(
                c.path,
                baudrate=c.baud,
                parity=c.parity,
                stopbits=c.stop_bits,
                timeout=c.timeout_s,
                retries=0,
                reconnect_delay=0,
            )
        return AsyncModbusTcpClient(
            c.host,
            port=c.port,
            framer=FramerType.RTU if self._rtu else FramerType.SOCKET,
            timeout=c.timeout_s,
            retries=0,
            reconnect_delay=0,
        )

    async def _keep_silence(self) -> None:
        pause = self._silent_until - self._clock()
        if pause > 0:
            await asyncio.sleep(pause)

    def _missed(self) -> None:
        """An answer is overdue. RTU frames carry no number: a late answer must never pass for the next one."""
        self._misses += 1
        if self._rtu or self._misses >= MISSES_BEFORE_RECONNECT:
            self.close()


async def _whole(request: Awaitable[T]) -> T:
    """Wait for a request; when we are cancelled, let it end by itself.

    The client waits with `asyncio.wait_for`, which in Python 3.11 loses a cancellation that meets an answer. Every
    request has a timeout, so that what is left behind ends soon.
    """
    task = asyncio.ensure_future(request)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        task.add_done_callback(_forget)
        raise


def _forget(task: asyncio.Future[Any]) -> None:
    if not task.cancelled():
        task.exception()


class Lines:
    """The lines of this process, shared by name and closed when their last device lets go."""

    def __init__(self) -> None:
        self._lines: dict[str, Line] = {}
        self._users: dict[str, int] = {}

    def take(self, connect: Connect) -> Line:
        line = self._lines.get(connect.line)
        if line is None:
            line = self._lines[connect.line] = Line(connect)
        self._users[connect.line] = self._users.get(connect.line, 0) + 1
        return line

    def give_back(self, connect: Connect) -> None:
        left = self._users.get(connect.line, 0) - 1
        if left > 0:
            self._users[connect.line] = left
            return
        self._users.pop(connect.line, None)
        line = self._lines.pop(connect.line, None)
        if line is not None:
            line.close()

    def close(self) -> None:
        for line in self._lines.values():
            line.close()
        self._lines.clear()
        self._users.clear()

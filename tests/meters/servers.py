"""Real Modbus servers for tests: any register map with any values, or plain registers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from pymodbus.framer import FramerType
from pymodbus.server import ModbusTcpServer
from pymodbus.simulator import DataType, SimData, SimDevice

from meters.devices.meter import DeviceSettings


class RegisterServer:
    """Serves exactly the given registers, to any function; remembers what was read and written."""

    def __init__(
        self,
        registers: Mapping[int, int],
        *,
        units: tuple[int, ...] = (1,),
        framer: FramerType | None = None,
        coils: list[bool] | None = None,
        inputs: list[bool] | None = None,
    ):
        """`coils` and `inputs` instead of registers make a module with contacts."""
        self.coils, self.inputs = coils, inputs
        self.registers = dict(registers)
        self.units, self.framer = units, framer or FramerType.SOCKET
        self.reads: list[tuple[int, int]] = []
        self.writes: list[tuple[int, list[int]]] = []
        self.port = 0
        self.delay_s = 0.0
        self.asking = self.most_asking = 0
        self._server: ModbusTcpServer | None = None

    async def start(self) -> None:
        blocks = [
            SimData(start, values=[self.registers[a] for a in range(start, end)], datatype=DataType.REGISTERS)
            for start, end in _runs(sorted(self.registers))
        ]

        async def answer(
            function: int, start: int, address: int, count: int, registers: list[int], written: Any
        ) -> None:
            self.asking += 1
            self.most_asking = max(self.most_asking, self.asking)
            await asyncio.sleep(self.delay_s)
            self.asking -= 1
            if written is not None:
                self.writes.append((address, list(written)))
                for i, word in enumerate(written):
                    self.registers[address + i] = int(word)
                return
            self.reads.append((address, count))
            for at, word in self.registers.items():
                registers[at - start] = word

        if self.coils is not None and self.inputs is not None:
            bits = [SimData(0, values=list(v), datatype=DataType.BITS) for v in (self.coils, self.inputs)]
            words = [SimData(0, values=[0], datatype=DataType.REGISTERS)]
            module = SimDevice(id=1, simdata=([bits[0]], [bits[1]], words, list(words)))
            await self._listen([module])
            return
        devices = [SimDevice(id=unit, simdata=list(blocks), action=answer) for unit in self.units]
        await self._listen(devices)

    async def _listen(self, devices: list[SimDevice]) -> None:
        self._server = ModbusTcpServer(devices, framer=self.framer, address=("127.0.0.1", self.port))
        assert await self._server.listen()
        self.port = self._server.transport.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        if self._server is not None:
            await self._server.shutdown()
            self._server = None
            await asyncio.sleep(0)


def _runs(addresses: list[int]) -> list[tuple[int, int]]:
    runs: list[tuple[int, int]] = []
    for address in addresses:
        if runs and runs[-1][1] == address:
            runs[-1] = (runs[-1][0], address + 1)
        else:
            runs.append((address, address + 1))
    return runs


@asynccontextmanager
async def serving(registers: Mapping[int, int], **more: Any) -> AsyncIterator[RegisterServer]:
    server = RegisterServer(registers, **more)
    await server.start()
    try:
        yield server
    finally:
        await server.stop()


def settings(connect: str, map_: str = "eastron_sdm630", kind: str = "meter", **more: Any) -> DeviceSettings:
    values: dict[str, Any] = {"pk": 1, "site_id": 1, "name": "main", "kind": kind, "map": map_, "connect": connect}
    return DeviceSettings(**{**values, **more})

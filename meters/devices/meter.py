"""A device on a Modbus line, read by its register map."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from meters.devices.connect import Connect
from meters.devices.errors import AnswerNotValid, DeviceRefused, SettingsError
from meters.devices.modbus import Line, Lines
from meters.devices.quantities import Door, assemble
from meters.devices.registers import Block, Point, RegisterMap, Value, decode_points, plan_blocks
from meters.measurement import Measurement
from meters.supply import Supply

Now = Callable[[], datetime]


def utc_now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True)
class DeviceSettings:
    """What the poller must know of a device record. Two equal ones need no new connection."""

    pk: int
    site_id: int
    name: str
    kind: str
    map: str
    connect: str
    wiring: tuple[str, ...] = ()
    invert: bool = False
    poll_s: float = 1.0
    max_age_s: float = 5.0
    options: Mapping[str, Any] = field(default_factory=dict)
    supply: Supply = Supply.TN

    def number(self, option: str) -> float | None:
        """An option that must be a number. Raises `SettingsError` naming it."""
        value = self.options.get(option)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise SettingsError(f"{self.name}: option {option} is {value!r}; give a number")
        return float(value)


class Reader:
    """Fetches the blocks of one unit, and learns what the device refuses.

    A read that touches one register the device does not have fails as a whole. So a refused block is cut at its
    bridges, then into single points; an optional point that is refused alone is not asked again.
    """

    def __init__(self, line: Line, unit: int, name: str, blocks: tuple[Block, ...]) -> None:
        self._line, self._unit, self._name = line, unit, name
        self.blocks = blocks

    async def fetch(self) -> dict[tuple[int, int], int]:
        """All words now. Raises `DeviceError` naming the device, the point and the register."""
        image: dict[tuple[int, int], int] = {}
        waiting = list(self.blocks)
        kept: list[Block] = []
        while waiting:
            block = waiting.pop(0)
            try:
                words = await self._line.read(
                    self._unit, block.function, block.address, block.count, f"{self._name}: {_title(block)}"
                )
            except DeviceRefused as refusal:
                if refusal.code not in (2, 3):
                    raise
                smaller = _smaller(block)
                if smaller is not None:
                    waiting[:0] = smaller
                    continue
                if not block.optional:
                    raise
                continue
            kept.append(block)
            for offset, word in enumerate(words):
                image[block.function, block.address + offset] = word
        self.blocks = tuple(kept)
        return image


def _title(block: Block) -> str:
    first = block.points[0].name if block.points else "scale factor"
    return first if len(block.points) < 2 else f"{first}…{block.points[-1].name}"


def _smaller(block: Block) -> list[Block] | None:
    """The same points in more reads, or None when it cannot be cut any further."""
    for limit in (125, max((p.words for p in block.points), default=1)):
        cut = plan_blocks(block.points, max_words=limit, bridge=0)
        if len(cut) > 1 or (cut and cut[0].count < block.count):
            return list(cut)
    return None


class ModbusDevice:
    """Reads one product by its map. Keeps `Meter`."""

    def __init__(
        self,
        settings: DeviceSettings,
        connect: Connect,
        lines: Lines,
        map_: RegisterMap,
        door: Door,
        now: Now = utc_now,
    ) -> None:
        self.settings, self.map, self.door = settings, map_, door
        self._connect, self._lines, self._now = connect, lines, now
        self.line = lines.take(connect)
        blocks = plan_blocks(map_.points, max_words=map_.max_words, bridge=map_.bridge, boundaries=map_.boundaries)
        self._reader = Reader(self.line, connect.unit, settings.name, blocks)

    @property
    def unit(self) -> int:
        return self._connect.unit

    async def values(self) -> dict[str, Value]:
        """Every point that the device gives, by name, in our units."""
        image = await self._reader.fetch()
        return decode_points(self.map.points, image, self.map.sentinels)

    async def read(self) -> Measurement:
        at = self._now()
        values = await self.values()
        if all(v is None for v in values.values()):
            raise AnswerNotValid(f"{self.settings.name}: it answers, but gives no value for any of its points")
        return assemble(values, at, self.door)

    async def write_point(self, point: Point, value: float, exponent: int = 0) -> None:
        """Write one value in its unit. Raises `RegisterError` when it does not fit, `DeviceError` when refused."""
        words = point.to_words(value, exponent)
        await self.line.write(
            self.unit, point.address, words, f"{self.settings.name}: {point.name} := {value:g}", single=len(words) == 1
        )

    async def close(self) -> None:
        self._lines.give_back(self._connect)

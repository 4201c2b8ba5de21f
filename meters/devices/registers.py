"""Registers and values: how a product lays its quantities out in 16-bit words, and how to read and write them.

Pure. A product is a table of `Point`s in a `RegisterMap` (`meters/devices/maps/`); everything that knows how to
decode stands here. Addresses are 0-based, as they travel on the wire. Bytes inside a word are always big-endian;
`word_order` says which word of a longer value comes first. Each family has patterns that mean *no value*
(sentinels): they decode to None, as do NaN and infinities. Unknown is not zero.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Literal

Value = float | int | str | None
WordOrder = Literal["big", "little"]

COILS, DISCRETE_INPUTS, HOLDING, INPUT = 1, 2, 3, 4
"""Modbus read functions."""

MAX_WORDS = 125
_WORD = 0xFFFF


class RegisterError(ValueError):
    """A value does not fit its registers, or the registers do not fit the value."""


class Type(StrEnum):
    """How a value fills its words."""

    BIT = "BIT"
    U16 = "U16"
    S16 = "S16"
    U32 = "U32"
    S32 = "S32"
    U64 = "U64"
    S64 = "S64"
    F32 = "F32"
    F64 = "F64"
    ACC32 = "ACC32"  # SunSpec's counter: 0 means that it does not count
    STR = "STR"  # two ASCII characters a word, padded with NUL or space


_STRUCT: dict[Type, tuple[str, int]] = {
    Type.BIT: (">H", 1),
    Type.U16: (">H", 1),
    Type.S16: (">h", 1),
    Type.U32: (">I", 2),
    Type.ACC32: (">I", 2),
    Type.S32: (">i", 2),
    Type.U64: (">Q", 4),
    Type.S64: (">q", 4),
    Type.F32: (">f", 2),
    Type.F64: (">d", 4),
}

_ALL_ONES = {Type.U16: 0xFFFF, Type.U32: 0xFFFF_FFFF, Type.U64: 0xFFFF_FFFF_FFFF_FFFF}
Sentinels = Mapping[Type, int]

NO_SENTINELS: Sentinels = {}
ABB_SENTINELS: Sentinels = {
    **_ALL_ONES,
    Type.S16: 0x7FFF,
    Type.S32: 0x7FFF_FFFF,
    Type.S64: 0x7FFF_FFFF_FFFF_FFFF,
}
SMA_SENTINELS: Sentinels = {Type.U32: 0xFFFF_FFFF, Type.S32: -0x8000_0000, Type.U64: 0xFFFF_FFFF_FFFF_FFFF}
SUNSPEC_SENTINELS: Sentinels = {
    **_ALL_ONES,
    Type.S16: -0x8000,
    Type.S32: -0x8000_0000,
    Type.S64: -0x8000_0000_0000_0000,
    Type.ACC32: 0,
}


def words_of(type_: Type) -> int:
    """How many words a number of this type fills."""
    return _STRUCT[type_][1]


def decode(words: Sequence[int], type_: Type, word_order: WordOrder = "big") -> float | int | str:
    """The raw value in these words, before scale and sentinels."""
    if any(not 0 <= w <= _WORD for w in words):
        raise RegisterError(f"{list(words)} are no 16-bit words")
    if type_ is Type.STR:
        raw = b"".join(w.to_bytes(2, "big") for w in words)
        return raw.split(b"\0", 1)[0].decode("ascii", "replace").strip()
    layout, count = _STRUCT[type_]
    if len(words) != count:
        raise RegisterError(f"{type_} needs {count} words, got {len(words)}")
    ordered = words if word_order == "big" else list(reversed(words))
    value: float | int = struct.unpack(layout, b"".join(w.to_bytes(2, "big") for w in ordered))[0]
    return value


def encode(value: float | int | str, type_: Type, word_order: WordOrder = "big", *, words: int = 0) -> tuple[int, ...]:
    """The words of a raw value. Raises `RegisterError` when it does not fit; nothing is ever wrapped around."""
    if type_ is Type.STR:
        raw = str(value).encode("ascii", "replace")
        if len(raw) > 2 * words:
            raise RegisterError(f"{value!r} is longer than {2 * words} characters")
        raw = raw.ljust(2 * words, b"\0")
    else:
        layout = _STRUCT[type_][0]
        try:
            number = (
                value if type_ in (Type.F32, Type.F64) else round(float(value)) if isinstance(value, float) else value
            )
            raw = struct.pack(layout, number)
        except (struct.error, OverflowError, ValueError, TypeError) as error:
            raise RegisterError(f"{value!r} does not fit {type_}") from error
    out = [int.from_bytes(raw[i : i + 2], "big") for i in range(0, len(raw), 2)]
    if type_ is not Type.STR and word_order == "little":
        out.reverse()
    return tuple(out)


def is_no_value(raw: float | int | str, type_: Type, sentinels: Sentinels) -> bool:
    """True for the family's patterns, and for floats that are no number (SolarEdge also says -3.4e38)."""
    if isinstance(raw, str):
        return raw == ""
    if isinstance(raw, float):
        return not math.isfinite(raw) or abs(raw) > 1e37
    return sentinels.get(type_) == raw


@dataclass(frozen=True, slots=True)
class Point:
    """One value of a product. `value in its unit = raw × scale × 10^(scale factor)`.

    `scale_at`: where SunSpec keeps this value's power of ten; it is read again with every value, because some
    inverters change it at night. `bit` picks one bit of a word. An `optional` point may be missing in some firmware:
    it is read apart, and not asked again once refused. `confidence` A or B may be written; C only when the operator
    has confirmed the device.
    """

    name: str
    address: int
    type: Type = Type.U16
    scale: float = 1.0
    function: int = HOLDING
    word_order: WordOrder = "big"
    length: int = 0  # words of a text
    bit: int | None = None
    scale_at: int | None = None
    optional: bool = False
    confidence: Literal["A", "B", "C"] = "A"

    @property
    def words(self) -> int:
        return self.length if self.type is Type.STR else words_of(self.type)

    @property
    def end(self) -> int:
        return self.address + self.words

    def value(self, words: Sequence[int], sentinels: Sentinels = NO_SENTINELS, exponent: int = 0) -> Value:
        """The value in its unit, or None for *no value*."""
        raw = decode(words, self.type, self.word_order)
        if is_no_value(raw, self.type, sentinels):
            return None
        if isinstance(raw, str):
            return raw
        if self.bit is not None:
            return (int(raw) >> self.bit) & 1
        scaled = raw * self.scale * 10.0**exponent
        return scaled if math.isfinite(scaled) else None

    def to_words(self, value: float | str, exponent: int = 0) -> tuple[int, ...]:
        """The registers of a value given in its unit. Raises `RegisterError` when it does not fit."""
        if isinstance(value, str):
            return encode(value, self.type, self.word_order, words=self.length)
        if not math.isfinite(value):
            raise RegisterError(f"{self.name}: {value} is no number")
        raw = value / self.scale / 10.0**exponent
        try:
            return encode(raw, self.type, self.word_order)
        except RegisterError as error:
            raise RegisterError(f"{self.name}: {value:g} does not fit its register ({self.type})") from error

    def moved(self, base: int) -> Point:
        """The same point, counted from another start."""
        return replace(
            self, address=self.address + base, scale_at=None if self.scale_at is None else self.scale_at + base
        )


@dataclass(frozen=True, slots=True)
class Step:
    """One write of a command: a point and what goes into it.

    `value` is a number, or a word: `power` (signed, positive = charge), `charge` and `discharge` (the part of the
    set-point in that direction, 0 otherwise), `magnitude`, `lease_s`, `lease_min` (rounded up).
    """

    point: str
    value: float | Literal["power", "charge", "discharge", "magnitude", "lease_s", "lease_min"]


@dataclass(frozen=True, slots=True)
class Commands:
    """How a product takes a set-point. `lease_s` None: it keeps the last command for ever, so undo it ourselves."""

    charge: tuple[Step, ...]
    discharge: tuple[Step, ...]
    hold: tuple[Step, ...]
    release: tuple[Step, ...]
    lease_s: float | None


@dataclass(frozen=True, slots=True)
class RegisterMap:
    """One product: a table, no code.

    `bridge`: how many unknown words between two points may be read along to save a request (0 = none).
    `boundaries`: addresses that no read may cross. `negate`: the product counts production positive.
    `phases`: how many phases the product measures. `contacts`: its points are inputs and outputs; outputs are
    switched as coils from `output_at` on.
    """

    name: str
    title: str
    points: tuple[Point, ...]
    sentinels: Sentinels = field(default_factory=dict)
    max_words: int = MAX_WORDS
    bridge: int = 0
    boundaries: tuple[int, ...] = ()
    negate: bool = False
    phases: int = 3
    writes: tuple[Point, ...] = ()
    commands: Commands | None = None
    contacts: bool = False
    output_at: int | None = None

    def point(self, name: str) -> Point:
        """The point of this name, readable or writable. Raises `RegisterError` naming the map."""
        for point in (*self.points, *self.writes):
            if point.name == name:
                return point
        raise RegisterError(f"{self.name} has no point {name!r}")


@dataclass(frozen=True, slots=True)
class Block:
    """One read: `count` words (or bits) from `address`."""

    function: int
    address: int
    count: int
    points: tuple[Point, ...]

    @property
    def optional(self) -> bool:
        return all(p.optional for p in self.points)

    @property
    def end(self) -> int:
        return self.address + self.count


def plan_blocks(
    points: Iterable[Point], *, max_words: int = MAX_WORDS, bridge: int = 0, boundaries: Sequence[int] = ()
) -> tuple[Block, ...]:
    """Gather points into as few reads as allowed.

    Every point is wholly inside exactly one block; no block is longer than `max_words`, none crosses a boundary,
    none reads more than `bridge` unknown words in a row, and optional points never share a block with needed ones.
    """
    grouped: dict[tuple[int, bool, int, int], list[Point]] = {}
    for point in points:
        grouped.setdefault((point.function, point.optional, point.address, point.end), []).append(point)
        if point.scale_at is not None:  # the scale factor is read along, but is no value of its own
            grouped.setdefault((point.function, point.optional, point.scale_at, point.scale_at + 1), [])
    blocks: list[Block] = []
    for function, optional, start, end in sorted(grouped):
        here = tuple(grouped[function, optional, start, end])
        if end - start > max_words:
            raise RegisterError(f"{here[0].name if here else start} is longer than one read of {max_words} words")
        last = blocks[-1] if blocks else None
        if (
            last is not None
            and last.function == function
            and last.optional == optional
            and start - last.end <= bridge
            and max(end, last.end) - last.address <= max_words
            and not any(last.address < b < max(end, last.end) for b in boundaries)
        ):
            blocks[-1] = replace(last, count=max(end, last.end) - last.address, points=last.points + here)
        else:
            blocks.append(Block(function, start, end - start, here))
    return tuple(blocks)


Image = Mapping[tuple[int, int], int]
"""What was read: (function, address) to word."""


def decode_points(points: Iterable[Point], image: Image, sentinels: Sentinels = NO_SENTINELS) -> dict[str, Value]:
    """The values of all points whose words were read. What was not read is absent; *no value* is None."""
    out: dict[str, Value] = {}
    for point in points:
        keys = [(point.function, a) for a in range(point.address, point.end)]
        if any(k not in image for k in keys):
            continue
        exponent = 0
        if point.scale_at is not None:
            factor = image.get((point.function, point.scale_at))
            if factor is None:
                continue
            exponent = int(decode([factor], Type.S16))
            if not -10 <= exponent <= 10:  # 0x8000: the scale factor, and so the value, is not implemented
                out.setdefault(point.name, None)
                continue
        value = point.value([image[k] for k in keys], sentinels, exponent)
        if value is not None or point.name not in out:
            out[point.name] = value
    return out

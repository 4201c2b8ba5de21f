"""SunSpec: the models we read and write, as tables. Pure.

A SunSpec device is a chain of models, each with an id, a length and its values, behind the mark "SunS". Addresses are
never fixed: they are found by walking the chain. Offsets here count from the model's id word. Scale factors are powers
of ten in points of their own (`scale_at`), read again with every value.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from meters.devices.registers import Point, Type

S16, U16, U32, S32, U64, F32, ACC32 = Type.S16, Type.U16, Type.U32, Type.S32, Type.U64, Type.F32, Type.ACC32

MARK = (0x5375, 0x6E53)
"""The words "SunS"."""

BASES = (40000, 50000, 0)
"""Where the mark may stand."""

END = 0xFFFF

ModelTable = Mapping[int, tuple[Point, ...]]


@dataclass(frozen=True, slots=True)
class SunSpecMap:
    """What to take from a SunSpec device.

    `measures`: groups of models that say the same thing in different ways; of each group the first one that the
    device has is read. `negate`: power is counted positive when produced.
    """

    name: str
    title: str
    measures: tuple[tuple[int, ...], ...]
    models: ModelTable
    negate: bool = False
    phases: int = 3


def _inverter_integers(phases: int) -> tuple[Point, ...]:
    return (
        *(Point(f"current_{i + 1}", 3 + i, U16, scale_at=6) for i in range(phases)),
        *(Point(f"voltage_{i + 1}", 10 + i, U16, scale_at=13) for i in range(phases)),
        Point("power", 14, S16, scale_at=15),
        Point("frequency", 16, U16, scale_at=17),
        Point("apparent", 18, S16, scale_at=19),
        Point("reactive", 20, S16, scale_at=21),
        Point("power_factor", 22, S16, 0.01, scale_at=23),
        Point("energy_export", 24, ACC32, scale_at=26),
        Point("dc_power", 31, S16, scale_at=32),
        Point("operating_state", 38, U16),
    )


def _inverter_floats(phases: int) -> tuple[Point, ...]:
    return (
        *(Point(f"current_{i + 1}", 4 + 2 * i, F32) for i in range(phases)),
        *(Point(f"voltage_{i + 1}", 16 + 2 * i, F32) for i in range(phases)),
        Point("power", 22, F32),
        Point("frequency", 24, F32),
        Point("apparent", 26, F32),
        Point("reactive", 28, F32),
        Point("power_factor", 30, F32, 0.01),
        Point("energy_export", 32, F32),
        Point("dc_power", 38, F32),
        Point("operating_state", 48, U16),
    )


_DER_MEASUREMENT = (
    Point("power", 10, S16, scale_at=116),
    Point("apparent", 11, S16, scale_at=118),
    Point("reactive", 12, S16, scale_at=119),
    Point("frequency", 17, U32, scale_at=115),
    Point("energy_export", 19, U64, scale_at=120),
    Point("energy_import", 23, U64, scale_at=120),
    *(Point(f"power_{i + 1}", 41 + 23 * i, S16, scale_at=116) for i in range(3)),
    *(Point(f"current_{i + 1}", 45 + 23 * i, S16, scale_at=113) for i in range(3)),
    *(Point(f"voltage_{i + 1}", 47 + 23 * i, U16, scale_at=114) for i in range(3)),
    Point("inverter_state", 4, U16),
)

INVERTER_MODELS: ModelTable = {
    101: _inverter_integers(1),
    102: _inverter_integers(2),
    103: _inverter_integers(3),
    111: _inverter_floats(1),
    112: _inverter_floats(2),
    113: _inverter_floats(3),
    701: _DER_MEASUREMENT,
}

LIMIT_MODELS: ModelTable = {
    120: (Point("rated_power", 3, U16, scale_at=4),),
    123: (
        Point("limit_pct", 5, U16, scale_at=23),
        Point("limit_lease_s", 7, U16),
        Point("limit_on", 9, U16),
    ),
}

STORAGE_MODELS: ModelTable = {
    124: (
        Point("max_power", 2, U16, scale_at=18),
        Point("control", 5, U16),
        Point("soc", 8, U16, 0.01, scale_at=22),
        Point("charge_state", 11, U16),
        Point("discharge_pct", 12, S16, scale_at=25),
        Point("charge_pct", 13, S16, scale_at=25),
        Point("lease_s", 15, U16),
        Point("grid_charging", 17, U16),
    ),
    160: (
        Point("string_charge", 61, U16, scale_at=4),
        Point("string_discharge", 81, U16, scale_at=4),
    ),
    713: (
        Point("capacity", 2, U16, scale_at=7),
        Point("soc", 4, U16, 0.01, scale_at=8),
        Point("storage_state", 6, U16),
    ),
    802: (
        Point("capacity", 3, U16, scale_at=53),
        Point("soc", 11, U16, 0.01, scale_at=56),
        Point("charge_state", 16, U16),
        Point("battery_power", 47, S16, scale_at=63),
    ),
}

CONTROL_CHARGE, CONTROL_DISCHARGE = 1, 2
"""Bits of `StorCtl_Mod`: the charge limit counts, the discharge limit counts."""

CHARGE_STATES = {1: "off", 2: "empty", 3: "discharging", 4: "charging", 5: "full", 6: "holding", 7: "testing"}
OPERATING_STATES = {
    1: "off",
    2: "sleeping",
    3: "starting",
    4: "producing",
    5: "throttled",
    6: "shutting down",
    7: "fault",
    8: "standby",
}


def _meter_integers(phases: int) -> tuple[Point, ...]:
    return (
        *(Point(f"current_{i + 1}", 3 + i, S16, scale_at=6) for i in range(phases)),
        *(Point(f"voltage_{i + 1}", 8 + i, S16, scale_at=15) for i in range(phases)),
        Point("frequency", 16, S16, scale_at=17),
        Point("power", 18, S16, scale_at=22),
        *(Point(f"power_{i + 1}", 19 + i, S16, scale_at=22) for i in range(phases)),
        Point("apparent", 23, S16, scale_at=27),
        Point("reactive", 28, S16, scale_at=32),
        Point("power_factor", 33, S16, 0.01, scale_at=37),
        Point("energy_export", 38, ACC32, scale_at=54),
        Point("energy_import", 46, ACC32, scale_at=54),
    )


def _meter_floats(phases: int) -> tuple[Point, ...]:
    return (
        *(Point(f"current_{i + 1}", 4 + 2 * i, F32) for i in range(phases)),
        *(Point(f"voltage_{i + 1}", 12 + 2 * i, F32) for i in range(phases)),
        Point("frequency", 26, F32),
        Point("power", 28, F32),
        *(Point(f"power_{i + 1}", 30 + 2 * i, F32) for i in range(phases)),
        Point("apparent", 36, F32),
        Point("reactive", 44, F32),
        Point("power_factor", 52, F32, 0.01),
        Point("energy_export", 60, F32),
        Point("energy_import", 68, F32),
    )


METER_MODELS: ModelTable = {
    201: _meter_integers(1),
    202: _meter_integers(2),
    203: _meter_integers(3),
    204: _meter_integers(3),
    211: _meter_floats(1),
    212: _meter_floats(2),
    213: _meter_floats(3),
    214: _meter_floats(3),
}

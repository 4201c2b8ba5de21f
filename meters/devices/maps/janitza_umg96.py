"""Janitza UMG 96RM, 96-PA, 96-S2 and newer: the common block at 19000."""

from meters.devices.maps.rows import phases
from meters.devices.registers import Point, RegisterMap, Type

F32 = Type.F32

MAP = RegisterMap(
    name="janitza_umg96",
    title="Janitza UMG 96 (block 19000)",
    points=(
        *phases("voltage", 19000, F32),
        *phases("voltage_ll", 19006, F32),
        *phases("current", 19012, F32),
        Point("current_sum", 19018, F32),
        *phases("power", 19020, F32),
        Point("power", 19026, F32),
        *phases("apparent", 19028, F32),
        Point("apparent", 19034, F32),
        *phases("reactive", 19036, F32),
        Point("reactive", 19042, F32),
        *phases("power_factor", 19044, F32),
        Point("frequency", 19050, F32),
        Point("energy_import", 19068, F32),
        Point("energy_export", 19076, F32),
    ),
)

"""Janitza UMG 604, 605: the native block."""

from meters.devices.maps.rows import phases
from meters.devices.registers import Point, RegisterMap, Type

F32 = Type.F32

MAP = RegisterMap(
    name="janitza_umg604",
    title="Janitza UMG 604, 605",
    points=(
        *phases("voltage", 1317, F32, confidence="B"),
        *phases("current", 1325, F32, confidence="B"),
        *phases("power", 1333, F32, confidence="B"),
        *phases("reactive", 1341, F32, confidence="B"),
        Point("power", 1369, F32, confidence="B"),
        Point("reactive", 1371, F32, confidence="B"),
        Point("frequency", 1439, F32, confidence="B"),
        Point("energy_import", 9851, F32, confidence="B"),
        Point("energy_export", 9863, F32, confidence="B"),
    ),
)

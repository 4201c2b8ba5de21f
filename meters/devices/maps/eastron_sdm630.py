"""Eastron SDM630 (v1, v2, MCT). Readings are input registers; energy as F32 loses its last digit above 100 MWh."""

from meters.devices.maps.rows import phases
from meters.devices.registers import INPUT, Point, RegisterMap, Type

F32 = Type.F32

MAP = RegisterMap(
    name="eastron_sdm630",
    title="Eastron SDM630",
    max_words=80,
    bridge=12,
    points=(
        *phases("voltage", 0, F32, function=INPUT),
        *phases("current", 6, F32, function=INPUT),
        *phases("power", 12, F32, function=INPUT),
        *phases("apparent", 18, F32, function=INPUT),
        *phases("reactive", 24, F32, function=INPUT),
        *phases("power_factor", 30, F32, function=INPUT),
        Point("current_sum", 48, F32, function=INPUT),
        Point("power", 52, F32, function=INPUT),
        Point("apparent", 56, F32, function=INPUT),
        Point("reactive", 60, F32, function=INPUT),
        Point("power_factor", 62, F32, function=INPUT),
        Point("frequency", 70, F32, function=INPUT),
        Point("energy_import", 72, F32, 1000, function=INPUT),
        Point("energy_export", 74, F32, 1000, function=INPUT),
    ),
)

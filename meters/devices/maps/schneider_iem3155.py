"""Schneider Electric iEM3155, iEM3255, iEM3355. Power in kW; only these x55 models count export.

The power factor is coded over four quadrants, so it is derived from power and apparent power instead.
"""

from meters.devices.maps.rows import phases
from meters.devices.registers import Point, RegisterMap, Type

F32, S64 = Type.F32, Type.S64

MAP = RegisterMap(
    name="schneider_iem3155",
    title="Schneider Electric iEM3155, iEM3255, iEM3355",
    bridge=10,
    points=(
        *phases("current", 2999, F32),
        *phases("voltage", 3027, F32),
        *phases("power", 3053, F32, 1000),
        Point("power", 3059, F32, 1000),
        Point("reactive", 3067, F32, 1000),
        Point("apparent", 3075, F32, 1000),
        Point("frequency", 3109, F32),
        Point("energy_import", 3203, S64, confidence="B"),
        Point("energy_export", 3207, S64, confidence="B", optional=True),
    ),
)

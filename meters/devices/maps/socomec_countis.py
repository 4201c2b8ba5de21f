"""Socomec COUNTIS E23..E28, E34, E44 and DIRIS A14. Power in steps of 10 W, currents without sign."""

from meters.devices.maps.rows import phases
from meters.devices.registers import Point, RegisterMap, Type

U32, S32 = Type.U32, Type.S32

MAP = RegisterMap(
    name="socomec_countis",
    title="Socomec COUNTIS E2x, E3x, E4x, DIRIS A14",
    points=(
        *phases("voltage", 50520, U32, 0.01, confidence="B"),
        Point("frequency", 50526, U32, 0.01, confidence="B"),
        *phases("current", 50528, U32, 0.001, confidence="B"),
        Point("power", 50536, S32, 10, confidence="B"),
        Point("reactive", 50538, S32, 10, confidence="B"),
        *phases("power", 50544, S32, 10, confidence="B"),
        *phases("reactive", 50550, S32, 10, confidence="B"),
        Point("energy_import", 50946, U32, 10, confidence="B"),
        Point("energy_export", 50952, U32, 10, confidence="B", optional=True),
    ),
)

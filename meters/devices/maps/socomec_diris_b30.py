"""Socomec DIRIS B30, Digiware. Energy in whole kWh."""

from meters.devices.maps.rows import phases
from meters.devices.registers import Point, RegisterMap, Type

U32, S32 = Type.U32, Type.S32

MAP = RegisterMap(
    name="socomec_diris_b30",
    title="Socomec DIRIS B30, Digiware",
    points=(
        *phases("voltage", 18444, U32, 0.01, confidence="B"),
        *phases("current", 18458, U32, 0.001, confidence="B"),
        Point("power", 18476, S32, confidence="B"),
        Point("reactive", 18478, S32, confidence="B"),
        *phases("power", 18488, S32, confidence="B"),
        *phases("reactive", 18494, S32, confidence="B"),
        Point("energy_import", 19843, U32, 1000, confidence="B"),
        Point("energy_export", 19846, U32, 1000, confidence="B", optional=True),
    ),
)

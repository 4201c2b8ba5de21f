"""ABB B23, B24 (A43, A44 alike). RTU only; all ones mean not available; energy in steps of 10 Wh."""

from meters.devices.maps.rows import phases
from meters.devices.registers import ABB_SENTINELS, Point, RegisterMap, Type

U64, U32, S32, U16, S16 = Type.U64, Type.U32, Type.S32, Type.U16, Type.S16

MAP = RegisterMap(
    name="abb_b23",
    title="ABB B23, B24",
    sentinels=ABB_SENTINELS,
    points=(
        Point("energy_import", 20480, U64, 10),
        Point("energy_export", 20484, U64, 10),
        *phases("voltage", 23296, U32, 0.1),
        *phases("voltage_ll", 23302, U32, 0.1),
        *phases("current", 23308, U32, 0.01),
        Point("current_n", 23314, U32, 0.01),
        Point("power", 23316, S32, 0.01),
        *phases("power", 23318, S32, 0.01),
        Point("reactive", 23324, S32, 0.01),
        *phases("reactive", 23326, S32, 0.01),
        Point("apparent", 23332, S32, 0.01),
        *phases("apparent", 23334, S32, 0.01),
        Point("frequency", 23340, U16, 0.01),
        Point("power_factor", 23354, S16, 0.001),
        *phases("power_factor", 23355, S16, 0.001),
    ),
)

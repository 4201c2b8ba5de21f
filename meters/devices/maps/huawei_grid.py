"""The grid meter behind a Huawei SUN2000: it counts export positive."""

from meters.devices.maps.rows import phases
from meters.devices.registers import Point, RegisterMap, Type

S32 = Type.S32

MAP = RegisterMap(
    name="huawei_grid",
    title="Huawei grid meter",
    negate=True,
    points=(
        *phases("voltage", 37101, S32, 0.1),
        *phases("current", 37107, S32, 0.01),
        Point("power", 37113, S32),
        Point("energy_export", 37119, S32, 10),
        Point("energy_import", 37121, S32, 10),
        *phases("power", 37132, S32),
    ),
)

"""Siemens SENTRON PAC2200, PAC3200, PAC4200. No read may start or end inside a value, or run over unknown ones.

Energy is counted in two tariffs, which add up. The transformer ratio is applied inside the meter.
"""

from meters.devices.maps.rows import phases
from meters.devices.registers import Point, RegisterMap, Type

F32, F64 = Type.F32, Type.F64

MAP = RegisterMap(
    name="siemens_pac2200",
    title="Siemens SENTRON PAC2200",
    points=(
        *phases("voltage", 1, F32),
        *phases("voltage_ll", 7, F32),
        *phases("current", 13, F32),
        *phases("apparent", 19, F32),
        *phases("power", 25, F32),
        *phases("reactive", 31, F32),
        *phases("power_factor", 37, F32),
        Point("frequency", 55, F32, optional=True, confidence="B"),
        Point("current_mean", 61, F32),
        Point("apparent", 63, F32),
        Point("power", 65, F32),
        Point("reactive", 67, F32),
        Point("power_factor", 69, F32),
        Point("energy_import_t1", 801, F64),
        Point("energy_import_t2", 805, F64, optional=True, confidence="B"),
        Point("energy_export_t1", 809, F64),
        Point("energy_export_t2", 813, F64, optional=True, confidence="B"),
    ),
)

"""WAGO 750-352, -362 coupler: digital inputs in slot order, outputs read back from 512 on.

How many there are depends on the modules plugged in, so each is read apart and missing ones are left out.
"""

from meters.devices.registers import COILS, DISCRETE_INPUTS, Point, RegisterMap, Type

MAP = RegisterMap(
    name="wago_750",
    title="WAGO 750 coupler",
    contacts=True,
    output_at=0,
    points=(
        *(Point(f"input_{i}", i, Type.BIT, function=DISCRETE_INPUTS, optional=True, confidence="B") for i in range(16)),
        *(Point(f"output_{i}", 512 + i, Type.BIT, function=COILS, optional=True, confidence="B") for i in range(16)),
    ),
)

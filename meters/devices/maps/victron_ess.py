"""Victron GX (Venus OS) with ESS, unit 100: battery power and state of charge, and the meter at the grid.

The volatile grid set-point (2716, Venus 3.50 or newer) is a target for the grid, not for the battery, so that this
map is for reading; a battery set-point needs mode 3 on each phase.
"""

from meters.devices.registers import Point, RegisterMap, Type

MAP = RegisterMap(
    name="victron_ess",
    title="Victron GX battery",
    points=(
        Point("power", 842, Type.S16),
        Point("soc", 843, Type.U16, 0.01),
        Point("battery_state", 844, Type.U16),
    ),
)

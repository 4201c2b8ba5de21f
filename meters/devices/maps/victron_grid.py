"""The grid meter behind a Victron GX (Venus OS), unit 100: power per phase, positive when imported."""

from meters.devices.maps.rows import phases
from meters.devices.registers import RegisterMap, Type

MAP = RegisterMap(name="victron_grid", title="Victron GX grid meter", points=phases("power", 820, Type.S16))

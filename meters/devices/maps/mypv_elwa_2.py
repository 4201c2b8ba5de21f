"""my-PV AC ELWA 2: a heating rod for a hot-water store, from nothing to its full power.

A power that nobody writes again is given up after a minute, unless the device was set otherwise; its own thermostat
and its own least temperature stay in charge. Registers transcribed, not yet proved by a recording.
"""

from meters.devices.registers import Commands, Point, RegisterMap, Step, Type

MAP = RegisterMap(
    name="mypv_elwa_2",
    title="my-PV AC ELWA 2",
    points=(
        Point("power", 1000, Type.U16, confidence="B"),
        Point("temperature", 1001, Type.S16, 0.1, confidence="B"),
    ),
    writes=(Point("power_wanted", 1000, Type.U16, confidence="B"),),
    commands=Commands(
        charge=(Step("power_wanted", "charge"),),
        discharge=(Step("power_wanted", 0),),
        hold=(Step("power_wanted", 0),),
        release=(Step("power_wanted", 0),),
        lease_s=60.0,
    ),
)

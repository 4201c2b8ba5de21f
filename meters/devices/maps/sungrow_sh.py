"""Sungrow SH RS and RT hybrids. Forced mode has no watchdog: it stays until undone."""

from meters.devices.registers import INPUT, Commands, Point, RegisterMap, Step, Type

U16, S16 = Type.U16, Type.S16

MAP = RegisterMap(
    name="sungrow_sh",
    title="Sungrow SH",
    points=(
        Point("power", 13021, S16, function=INPUT, confidence="B"),
        Point("soc", 13022, U16, 0.001, function=INPUT, confidence="B"),
    ),
    writes=(
        Point("ems_mode", 13049, U16, confidence="B"),
        Point("forced_command", 13050, U16, confidence="B"),
        Point("forced_power", 13051, U16, confidence="B"),
    ),
    commands=Commands(
        charge=(Step("forced_power", "charge"), Step("forced_command", 0xAA), Step("ems_mode", 2)),
        discharge=(Step("forced_power", "discharge"), Step("forced_command", 0xBB), Step("ems_mode", 2)),
        hold=(Step("forced_power", 0), Step("forced_command", 0xCC), Step("ems_mode", 2)),
        release=(Step("forced_command", 0xCC), Step("ems_mode", 0)),
        lease_s=None,
    ),
)

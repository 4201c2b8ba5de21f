"""SolarEdge StorEdge, Home Hub. Floats low word first; a remote command lives for its timeout, then mode 7."""

from meters.devices.registers import Commands, Point, RegisterMap, Step, Type

F32, U32, U16 = Type.F32, Type.U32, Type.U16

_REMOTE = (Step("control_mode", 4), Step("default_mode", 7), Step("grid_charging", 1), Step("timeout_s", "lease_s"))

MAP = RegisterMap(
    name="solaredge_storedge",
    title="SolarEdge StorEdge",
    points=(
        Point("power", 57716, F32, word_order="little"),
        Point("soc", 57732, F32, 0.01, word_order="little"),
    ),
    writes=(
        Point("control_mode", 57348, U16),
        Point("grid_charging", 57349, U16),
        Point("default_mode", 57354, U16),
        Point("timeout_s", 57355, U32, word_order="little"),
        Point("command_mode", 57357, U16),
        Point("charge_limit", 57358, F32, word_order="little"),
        Point("discharge_limit", 57360, F32, word_order="little"),
    ),
    commands=Commands(
        charge=(*_REMOTE, Step("charge_limit", "charge"), Step("discharge_limit", 0), Step("command_mode", 3)),
        discharge=(*_REMOTE, Step("charge_limit", 0), Step("discharge_limit", "discharge"), Step("command_mode", 4)),
        hold=(*_REMOTE, Step("charge_limit", 0), Step("discharge_limit", 0), Step("command_mode", 0)),
        release=(Step("command_mode", 7),),
        lease_s=90,
    ),
)

"""Huawei SUN2000 with LUNA2000. A forced command ends by itself after its period, given in whole minutes."""

from meters.devices.registers import Commands, Point, RegisterMap, Step, Type

U32, S32, U16 = Type.U32, Type.S32, Type.U16

MAP = RegisterMap(
    name="huawei_luna2000",
    title="Huawei LUNA2000",
    points=(Point("soc", 37760, U16, 0.001), Point("power", 37765, S32)),
    writes=(
        Point("forced_minutes", 47083, U16),
        Point("forced_command", 47100, U16),
        Point("forced_target", 47246, U16),
        Point("forced_charge", 47247, U32),
        Point("forced_discharge", 47249, U32),
    ),
    commands=Commands(
        charge=(
            Step("forced_target", 0),
            Step("forced_minutes", "lease_min"),
            Step("forced_charge", "charge"),
            Step("forced_command", 1),
        ),
        discharge=(
            Step("forced_target", 0),
            Step("forced_minutes", "lease_min"),
            Step("forced_discharge", "discharge"),
            Step("forced_command", 2),
        ),
        hold=(
            Step("forced_target", 0),
            Step("forced_minutes", "lease_min"),
            Step("forced_charge", 0),
            Step("forced_command", 1),
        ),
        release=(Step("forced_command", 0),),
        lease_s=180,
    ),
)

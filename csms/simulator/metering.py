"""What a station's own meter says, as both dialects then write it down."""

from __future__ import annotations

from dataclasses import dataclass

from csms.simulator.outlet import Outlet

MEASURANDS = (
    "Energy.Active.Import.Register",
    "Power.Active.Import",
    "Current.Import",
    "Voltage",
    "Current.Offered",
    "Power.Offered",
    "SoC",
)


@dataclass(frozen=True, slots=True)
class Sample:
    measurand: str
    value: float
    unit: str
    phase: str | None = None
    location: str = "Outlet"


BATTERY_V = 400.0  # at a DC plug, where the meter sits


def samples(outlet: Outlet, wanted: tuple[str, ...]) -> list[Sample]:
    """The wanted quantities an outlet can measure, per phase where it has phases. What it cannot measure is absent."""
    phases = range(outlet.phases)
    found = {
        "Energy.Active.Import.Register": [Sample("Energy.Active.Import.Register", round(outlet.energy_wh, 1), "Wh")],
        "Power.Active.Import": [Sample("Power.Active.Import", round(outlet.plug_w, 1), "W")],
        "Current.Import": [Sample("Current.Import", round(outlet.plug_w / BATTERY_V, 2), "A")]
        if outlet.dc
        else [Sample("Current.Import", round(outlet.current_a[i], 2), "A", f"L{i + 1}") for i in phases],
        "Voltage": [Sample("Voltage", BATTERY_V, "V")]
        if outlet.dc
        else [Sample("Voltage", round(outlet.voltage_v[i], 1), "V", f"L{i + 1}-N") for i in phases],
        "Current.Offered": [] if outlet.dc else [Sample("Current.Offered", round(outlet.offer, 1), "A")],
        "Power.Offered": [Sample("Power.Offered", round(outlet.offer, 1), "W")] if outlet.dc else [],
        "SoC": [Sample("SoC", round(outlet.car.soc * 100, 1), "Percent", location="EV")]
        if outlet.dc and outlet.car is not None
        else [],
    }
    return [sample for name in wanted for sample in found.get(name, [])]

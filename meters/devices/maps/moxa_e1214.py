"""Moxa ioLogik E1214: six digital inputs, six relays."""

from meters.devices.registers import COILS, DISCRETE_INPUTS, Point, RegisterMap, Type

MAP = RegisterMap(
    name="moxa_e1214",
    title="Moxa ioLogik E1214",
    contacts=True,
    output_at=0,
    points=(
        *(Point(f"input_{i}", i, Type.BIT, function=DISCRETE_INPUTS, confidence="B") for i in range(6)),
        *(Point(f"output_{i}", i, Type.BIT, function=COILS, confidence="B") for i in range(6)),
    ),
)

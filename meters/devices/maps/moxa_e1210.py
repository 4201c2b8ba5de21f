"""Moxa ioLogik E1210: sixteen digital inputs."""

from meters.devices.registers import DISCRETE_INPUTS, Point, RegisterMap, Type

MAP = RegisterMap(
    name="moxa_e1210",
    title="Moxa ioLogik E1210",
    contacts=True,
    points=tuple(Point(f"input_{i}", i, Type.BIT, function=DISCRETE_INPUTS, confidence="B") for i in range(16)),
)

"""Carlo Gavazzi EM24 Ethernet. Low word first; export energy only in application H."""

from typing import Any

from meters.devices.maps.rows import phases
from meters.devices.registers import INPUT, Point, RegisterMap, Type

S32, U16 = Type.S32, Type.U16
LOW: dict[str, Any] = {"function": INPUT, "word_order": "little", "confidence": "B"}

MAP = RegisterMap(
    name="carlo_gavazzi_em24",
    title="Carlo Gavazzi EM24 Ethernet",
    max_words=50,
    points=(
        *phases("voltage", 0, S32, 0.1, **LOW),
        *phases("current", 12, S32, 0.001, **LOW),
        *phases("power", 18, S32, 0.1, **LOW),
        Point("power", 40, S32, 0.1, INPUT, "little", confidence="B"),
        Point("frequency", 51, U16, 0.1, INPUT, confidence="B"),
        Point("energy_import", 52, S32, 100, INPUT, "little", confidence="B"),
        Point("energy_export", 78, S32, 100, INPUT, "little", confidence="B", optional=True),
    ),
)

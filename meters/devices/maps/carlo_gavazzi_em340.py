"""Carlo Gavazzi EM330, EM340, ET340. Low word first, input registers."""

from typing import Any

from meters.devices.maps.rows import phases
from meters.devices.registers import INPUT, Point, RegisterMap, Type

S32, S16, U16 = Type.S32, Type.S16, Type.U16
LOW: dict[str, Any] = {"function": INPUT, "word_order": "little"}

MAP = RegisterMap(
    name="carlo_gavazzi_em340",
    title="Carlo Gavazzi EM340",
    max_words=50,
    bridge=6,
    points=(
        *phases("voltage", 0, S32, 0.1, **LOW),
        *phases("current", 12, S32, 0.001, **LOW),
        *phases("power", 18, S32, 0.1, **LOW),
        *phases("apparent", 24, S32, 0.1, **LOW),
        *phases("reactive", 30, S32, 0.1, **LOW),
        Point("power", 40, S32, 0.1, INPUT, "little"),
        Point("apparent", 42, S32, 0.1, INPUT, "little"),
        Point("reactive", 44, S32, 0.1, INPUT, "little"),
        *phases("power_factor", 46, S16, 0.001, function=INPUT),
        Point("power_factor", 49, S16, 0.001, INPUT),
        Point("frequency", 51, U16, 0.1, INPUT),
        Point("energy_import", 52, S32, 100, INPUT, "little"),
        Point("energy_export", 78, S32, 100, INPUT, "little", optional=True),
    ),
)

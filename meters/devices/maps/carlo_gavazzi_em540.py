"""Carlo Gavazzi EM530, EM540, EM580: the EM340's table with 64-bit counters in Wh. Low word first, input registers."""

from typing import Any

from meters.devices.maps.rows import phases
from meters.devices.registers import INPUT, Point, RegisterMap, Type

S64, S32, S16, U16 = Type.S64, Type.S32, Type.S16, Type.U16
LOW: dict[str, Any] = {"function": INPUT, "word_order": "little", "confidence": "B"}

MAP = RegisterMap(
    name="carlo_gavazzi_em540",
    title="Carlo Gavazzi EM530, EM540, EM580",
    max_words=50,
    bridge=6,
    points=(
        *phases("voltage", 0, S32, 0.1, **LOW),
        *phases("current", 12, S32, 0.001, **LOW),
        *phases("power", 18, S32, 0.1, **LOW),
        *phases("apparent", 24, S32, 0.1, **LOW),
        *phases("reactive", 30, S32, 0.1, **LOW),
        Point("power", 40, S32, 0.1, INPUT, "little", confidence="B"),
        Point("apparent", 42, S32, 0.1, INPUT, "little", confidence="B"),
        Point("reactive", 44, S32, 0.1, INPUT, "little", confidence="B"),
        Point("power_factor", 49, S16, 0.001, INPUT, confidence="B"),
        Point("frequency", 51, U16, 0.1, INPUT, confidence="B"),
        Point("energy_import", 1280, S64, 1, INPUT, "little", confidence="B", optional=True),
        Point("energy_export", 1308, S64, 1, INPUT, "little", confidence="B", optional=True),
    ),
)

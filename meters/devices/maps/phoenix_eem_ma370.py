"""Phoenix Contact EMpro EEM-MA37x, EEM-MB37x. Low word first; the EEM-MA600 has another map."""

from typing import Any

from meters.devices.maps.rows import phases
from meters.devices.registers import Point, RegisterMap, Type

F32 = Type.F32
LOW: dict[str, Any] = {"word_order": "little", "confidence": "B"}

MAP = RegisterMap(
    name="phoenix_eem_ma370",
    title="Phoenix Contact EMpro EEM-MA37x",
    points=(
        *phases("voltage", 32774, F32, **LOW),
        Point("frequency", 32780, F32, word_order="little", confidence="B"),
        *phases("current", 32782, F32, **LOW),
        Point("power", 32790, F32, word_order="little", confidence="B"),
        *phases("power", 32798, F32, **LOW),
        Point("energy_import", 33024, F32, word_order="little", confidence="B"),
        Point("energy_export", 33030, F32, word_order="little", confidence="B"),
    ),
)

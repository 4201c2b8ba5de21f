"""Any PV inverter that speaks SunSpec: models 101..103 (integers), 111..113 (floats) or 701, found by walking.

SunSpec counts production positive; at our door PV is negative, and what it made is export.
Model 123 (or 704) limits production, with a time after which the limit falls away by itself.
"""

from meters.devices.sunspec import INVERTER_MODELS, LIMIT_MODELS, SunSpecMap

MAP = SunSpecMap(
    name="sunspec_inverter",
    title="SunSpec inverter",
    measures=((701, 103, 113, 102, 112, 101, 111),),
    models={**INVERTER_MODELS, **LIMIT_MODELS},
    negate=True,
)

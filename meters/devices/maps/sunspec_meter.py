"""A meter that speaks SunSpec: models 201..204 (integers), 211..214 (floats) found by walking.

The sign is the installer's: where the meter counts export positive (SolarEdge), turn the device's signs.
"""

from meters.devices.sunspec import METER_MODELS, SunSpecMap

MAP = SunSpecMap(
    name="sunspec_meter",
    title="SunSpec meter",
    measures=((203, 204, 213, 214, 202, 212, 201, 211),),
    models=METER_MODELS,
)

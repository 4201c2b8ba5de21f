"""A battery behind a SunSpec inverter: power from the inverter's AC models, state of charge from 802, 713 or 124.

Set-points go through model 124 (`StorCtl_Mod`, `OutWRte`, `InWRte`), whose `InOutWRte_RvrtTms` is the lease.
"""

from meters.devices.sunspec import INVERTER_MODELS, STORAGE_MODELS, SunSpecMap

MAP = SunSpecMap(
    name="sunspec_storage",
    title="SunSpec battery",
    measures=((701, 103, 113, 102, 112, 101, 111), (802,), (713,), (124,)),
    models={**INVERTER_MODELS, **STORAGE_MODELS},
    negate=True,
)

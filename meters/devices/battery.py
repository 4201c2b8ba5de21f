"""A battery that is commanded through plain registers, as its map's command table says."""

from __future__ import annotations

import math
from dataclasses import replace

from meters.devices.errors import DeviceError, NotAllowed
from meters.devices.meter import ModbusDevice
from meters.devices.registers import Commands, RegisterError, Step
from meters.measurement import Measurement


class CommandBattery(ModbusDevice):
    """Keeps `Meter` and `Battery`. A point of confidence C is written only when the option `confirmed` is set."""

    @property
    def commands(self) -> Commands:
        assert self.map.commands is not None
        return self.map.commands

    @property
    def lease_s(self) -> float | None:
        return self.commands.lease_s

    async def read(self) -> Measurement:
        measurement = await super().read()
        watts = measurement.power_w
        if watts is None or measurement.state is not None:
            return measurement
        state = "charging" if watts > 50 else "discharging" if watts < -50 else "holding"
        return replace(measurement, state=state)

    async def set_power(self, power_w: float, lease_s: float) -> None:
        steps = self.commands.charge if power_w > 0 else self.commands.discharge if power_w < 0 else self.commands.hold
        await self._do(steps, power_w, lease_s)

    async def release(self) -> None:
        await self._do(self.commands.release, 0.0, 0.0)

    async def _do(self, steps: tuple[Step, ...], power_w: float, lease_s: float) -> None:
        amounts = {
            "power": power_w,
            "charge": max(0.0, power_w),
            "discharge": max(0.0, -power_w),
            "magnitude": abs(power_w),
            "lease_s": float(math.ceil(lease_s)),
            "lease_min": float(max(1, math.ceil(lease_s / 60))),
        }
        for step in steps:
            point = self.map.point(step.point)
            if point.confidence == "C" and not self.settings.options.get("confirmed"):
                raise NotAllowed(
                    f"{self.settings.name}: {point.name} of {self.map.title} is not proved; set the option confirmed "
                    "after trying it at commissioning"
                )
            value = amounts[step.value] if isinstance(step.value, str) else step.value
            try:
                await self.write_point(point, value)
            except RegisterError as error:
                raise DeviceError(f"{self.settings.name}: {error}") from error

"""The small promises an energy device can make. A product keeps as many of them as it can.

Whoever uses a device asks for the promise it needs (`isinstance(device, Battery)`), never for a brand.
All of them raise `meters.devices.errors.DeviceError` when the device does not answer or refuses.
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from meters.measurement import Measurement


@runtime_checkable
class Device(Protocol):
    """Anything we hold a line to."""

    async def close(self) -> None: ...


@runtime_checkable
class Meter(Protocol):
    """Gives a measurement in load-positive signs, on grid phases."""

    async def read(self) -> Measurement: ...


@runtime_checkable
class Battery(Protocol):
    """Takes a power set-point with a life.

    `lease_s` says how long the device itself keeps a set-point that nobody renews; None when it keeps it for ever,
    so that we must release it ourselves. `minimum_lease_s` of the caller's wish travels with each set-point.
    """

    @property
    def lease_s(self) -> float | None: ...

    async def set_power(self, power_w: float, lease_s: float) -> None:
        """Charge with `power_w` (negative: discharge) for at most `lease_s` seconds unless renewed."""

    async def release(self) -> None:
        """Back to the device's own, neutral mode."""


@runtime_checkable
class Switch(Protocol):
    """An output that lets a load run or stops it."""

    async def set(self, on: bool) -> None: ...


@runtime_checkable
class Alarm(Protocol):
    """A contact that warns: fire panel, emergency stop. `state` of the measurement is `ok` or `alarm`."""

    async def read(self) -> Measurement: ...


@runtime_checkable
class GridUnit(Protocol):
    """The grid operator's box. The command is the name of the step that is active, or None when free."""

    async def read_command(self) -> str | None: ...

"""Contacts and relays on a Modbus module: alarms, the grid operator's box, and loads behind a relay.

Safety inputs are wired closed = healthy, so that a broken wire, a lost supply or a dead module reads as an alarm.
Options of the device: `input` (or `output`), counted from 0; `alarm_when` is `open` (default) or `closed`;
a grid unit names its steps: `steps = {"0": "limit 50 %", "1": "no feed-in"}` by input.
"""

from __future__ import annotations

from collections.abc import Mapping

from meters.devices.errors import AnswerNotValid, DeviceError
from meters.devices.meter import ModbusDevice
from meters.devices.registers import Value
from meters.measurement import Measurement, Quality


class ContactDevice(ModbusDevice):
    """A module whose inputs and outputs are named `input_0`, `output_0` … in its map."""

    def _bit(self, values: Mapping[str, Value], name: str) -> bool:
        value = values.get(name)
        if value is None:
            raise AnswerNotValid(f"{self.settings.name}: {self.map.title} gives no {name}")
        return bool(value)

    def _number(self, option: str) -> int:
        value = self.settings.options.get(option, 0)
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            raise DeviceError(f"{self.settings.name}: option {option} is {value!r}; give the contact's number from 0")
        return value


class AlarmContact(ContactDevice):
    """Keeps `Alarm`."""

    async def read(self) -> Measurement:
        at = self._now()
        when = self.settings.options.get("alarm_when", "open")
        if when not in ("open", "closed"):
            raise DeviceError(f"{self.settings.name}: option alarm_when is {when!r}; use open or closed")
        closed = self._bit(await self.values(), f"input_{self._number('input')}")
        return Measurement(at=at, state="alarm" if closed == (when == "closed") else "ok")


class GridContacts(ContactDevice):
    """Keeps `GridUnit` and `Meter`: the active step's name, or None when no contact is made."""

    async def read_command(self) -> str | None:
        steps = self.settings.options.get("steps")
        if not isinstance(steps, dict) or not steps:
            raise DeviceError(f'{self.settings.name}: option steps is missing; write {{"0": "limit 50 %"}}')
        values = await self.values()
        active = [str(name) for number, name in sorted(steps.items()) if self._bit(values, f"input_{number}")]
        return active[0] if active else None

    async def read(self) -> Measurement:
        at = self._now()
        return Measurement(at=at, state=await self.read_command() or "free")


class RelaySwitch(ContactDevice):
    """Keeps `Switch` and `Meter`: the load's relay, read back from the module.

    With the option `power_w` the load is taken to draw that while its relay is made: an estimate.
    """

    async def read(self) -> Measurement:
        at = self._now()
        on = self._bit(await self.values(), f"output_{self._number('output')}")
        power_w = self.settings.number("power_w")
        if power_w is None:
            return Measurement(at=at, state="on" if on else "off")
        return Measurement(
            at=at, state="on" if on else "off", power_w=power_w if on else 0.0, quality=Quality.ESTIMATED
        )

    async def set(self, on: bool) -> None:
        number = self._number("output")
        point = next((p for p in self.map.points if p.name == f"output_{number}"), None)
        if point is None:
            raise DeviceError(f"{self.settings.name}: {self.map.title} has no output {number}")
        if self.map.output_at is None:
            raise DeviceError(f"{self.settings.name}: {self.map.title} has no outputs")
        what = f"{self.settings.name}: output {number} := {'on' if on else 'off'}"
        await self.line.write_coil(self.unit, self.map.output_at + number, on, what)

    async def release(self) -> None:
        """To the fail-safe position: running, unless the option `fail_safe` says `off`."""
        await self.set(self.settings.options.get("fail_safe", "on") != "off")

"""From a device's settings to a thing that can be read: the one place that knows which maps need which driver."""

from __future__ import annotations

from meters.devices import maps
from meters.devices.battery import CommandBattery
from meters.devices.connect import ConnectError, Transport, parse
from meters.devices.contacts import AlarmContact, ContactDevice, GridContacts, RelaySwitch
from meters.devices.errors import SettingsError
from meters.devices.meter import DeviceSettings, ModbusDevice, Now, utc_now
from meters.devices.modbus import Lines
from meters.devices.p1 import P1Meter
from meters.devices.quantities import Door, WiringError, parse_wiring
from meters.devices.registers import RegisterMap
from meters.devices.sunspec import SunSpecMap
from meters.devices.sunspec_device import SunSpecBattery, SunSpecDevice, SunSpecInverter

AnyDevice = ModbusDevice | SunSpecDevice | P1Meter | ContactDevice


def check(settings: DeviceSettings) -> None:
    """Raise `SettingsError` when these settings cannot be used; nothing is opened."""
    try:
        connect = parse(settings.connect)
        map_ = None if connect.transport is Transport.P1 else maps.get(settings.map)
        _door(settings, map_)
        _check_options(settings)
    except (ConnectError, maps.UnknownMap, WiringError) as error:
        raise SettingsError(f"{settings.name}: {error}") from error


_OPTIONS = (
    "peak_w",
    "capacity_wh",
    "max_charge_w",
    "max_discharge_w",
    "min_soc",
    "max_soc",
    "max_a",
    "frozen_s",
    "max_w",
    "power_w",
)


def _check_options(settings: DeviceSettings) -> None:
    """Every option that is a number is one, and not below zero; shares run from 0 to 1."""
    given = {name: settings.number(name) for name in _OPTIONS}
    for name, value in given.items():
        if value is not None and (value < 0 or (name.endswith("_soc") and value > 1)):
            allowed = "from 0 to 1" if name.endswith("_soc") else "of 0 or more"
            raise SettingsError(f"{settings.name}: option {name} is {value:g}; give a number {allowed}")
    low, high = given["min_soc"], given["max_soc"]
    if low is not None and high is not None and low >= high:
        raise SettingsError(f"{settings.name}: option min_soc ({low:g}) is not below max_soc ({high:g})")


def open_device(settings: DeviceSettings, lines: Lines, now: Now = utc_now) -> AnyDevice:
    """The device, not yet read. Raises `SettingsError` naming the field that is wrong and the way out."""
    check(settings)
    connect = parse(settings.connect)
    if connect.transport is Transport.P1:
        return P1Meter(settings, connect, _door(settings, None), now)
    map_ = maps.get(settings.map)
    door = _door(settings, map_)
    if isinstance(map_, SunSpecMap):
        if settings.kind == "battery":
            return SunSpecBattery(settings, connect, lines, map_, door, now)
        if settings.kind == "pv":
            return SunSpecInverter(settings, connect, lines, map_, door, now)
        return SunSpecDevice(settings, connect, lines, map_, door, now)
    if map_.contacts:
        contact = {"alarm": AlarmContact, "grid_unit": GridContacts, "load": RelaySwitch}.get(settings.kind)
        if contact is None:
            raise SettingsError(
                f"{settings.name}: kind: {map_.title} has contacts; use it for alarm, grid_unit or load"
            )
        return contact(settings, connect, lines, map_, door, now)
    if map_.commands is not None and settings.kind in ("battery", "load"):
        return CommandBattery(settings, connect, lines, map_, door, now)
    return ModbusDevice(settings, connect, lines, map_, door, now)


def _door(settings: DeviceSettings, map_: RegisterMap | SunSpecMap | None) -> Door:
    phases = map_.phases if map_ is not None else 3
    return Door(
        wiring=parse_wiring(settings.wiring, phases),
        negate=map_ is not None and map_.negate,
        invert=settings.invert,
    )

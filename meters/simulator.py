"""A whole site behind real Modbus TCP servers: main meter, sub meters, a SunSpec PV inverter and a SunSpec battery.

For the demo, the tests and the scenarios. Everything is served from the same tables that read it (`devices/maps/`),
and nothing else: a register the map does not know is an illegal address. The grid meter closes the balance exactly:
per phase, grid = building + charging + battery + PV (load-positive, PV negative).

    site = SimulatedSite(building_w=(900, 800, 700), pv_w=-3000, battery=SimulatedBattery(capacity_wh=20_000))
    await site.start()
    site.connect("main")        # tcp://127.0.0.1:41231?unit=1
    site.update(ev_current_a=(16, 16, 16))
    await site.stop()

Sources are numbers, or callables that are asked at each read. Sub meters are windows on a part of the load that the
caller already counts in `building_w` or `ev_current_a`: they do not add to the balance.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pymodbus.constants import ExcCodes
from pymodbus.server import ModbusTcpServer
from pymodbus.simulator import DataType, SimData, SimDevice

from meters.devices import maps
from meters.devices.registers import Point, RegisterMap, Type, encode
from meters.devices.sunspec import (
    CONTROL_CHARGE,
    CONTROL_DISCHARGE,
    END,
    INVERTER_MODELS,
    LIMIT_MODELS,
    MARK,
    STORAGE_MODELS,
)

Phases = tuple[float, float, float]
Clock = Callable[[], float]
NOMINAL_V = 230.0
UNIT = 1
METER_MAP = "eastron_sdm630"
SUNSPEC_BASE = 40000


@dataclass
class SimulatedBattery:
    """A battery that keeps its limits and loses what real ones lose. Power positive = charging, at its AC side.

    Between 90 % and full it charges ever more slowly. A set-point counts until its lease ends; then, and without one,
    the battery does nothing.
    """

    capacity_wh: float = 20_000.0
    max_charge_w: float = 10_000.0
    max_discharge_w: float = 10_000.0
    efficiency: float = 0.95  # one way
    soc: float = 0.5
    min_soc: float = 0.05
    _wish_w: float | None = field(default=None, init=False)
    _until: float = field(default=math.inf, init=False)
    _at: float | None = field(default=None, init=False)
    exported_wh: float = field(default=1_000_000.0, init=False)
    imported_wh: float = field(default=1_000_000.0, init=False)

    def __post_init__(self) -> None:
        if not 0 < self.efficiency <= 1:
            raise ValueError(f"efficiency: {self.efficiency} is not above 0 and at most 1")
        if not 0 <= self.min_soc <= self.soc <= 1:
            raise ValueError(f"soc: {self.soc} is not between min_soc ({self.min_soc}) and 1")
        if min(self.capacity_wh, self.max_charge_w, self.max_discharge_w) <= 0:
            raise ValueError("capacity_wh, max_charge_w, max_discharge_w: must be above 0")

    def command(self, power_w: float | None, now: float, lease_s: float | None = None) -> None:
        """Obey this from now on; None gives the battery its own mode back."""
        self.advance(now)
        self._wish_w = power_w
        self._until = math.inf if not lease_s else now + lease_s

    @property
    def commanded(self) -> bool:
        return self._wish_w is not None

    def power_w(self) -> float:
        """What it does at this moment."""
        wish = self._wish_w or 0.0
        if wish > 0:
            # Above 90 % the cells take less: linearly down to a twentieth, and nothing when full.
            taper = 1.0 if self.soc <= 0.9 else max(0.05, (1.0 - self.soc) / 0.1)
            return 0.0 if self.soc >= 1.0 else min(wish, self.max_charge_w * taper)
        return 0.0 if self.soc <= self.min_soc else max(wish, -self.max_discharge_w)

    def advance(self, now: float) -> None:
        """Live until `now`: the state of charge follows the power, and the lease runs out on its moment."""
        if self._at is None:
            self._at = now
        while self._at < now:
            step = min(now, self._at + 10.0)
            if self._at < self._until < step:
                step = self._until
            self._live(step - self._at)
            self._at = step
            if step >= self._until:
                self._wish_w, self._until = None, math.inf

    def _live(self, seconds: float) -> None:
        power = self.power_w()
        hours = seconds / 3600
        if power >= 0:
            room_wh = (1.0 - self.soc) * self.capacity_wh
            stored = min(room_wh, power * hours * self.efficiency)
            self.soc = min(1.0, self.soc + stored / self.capacity_wh)
            self.imported_wh += stored / self.efficiency
        else:
            left_wh = (self.soc - self.min_soc) * self.capacity_wh
            drawn = min(left_wh, -power * hours / self.efficiency)
            self.soc = max(self.min_soc, self.soc - drawn / self.capacity_wh)
            self.exported_wh += drawn * self.efficiency


PhaseSource = Phases | Callable[[], Phases]
NumberSource = float | Callable[[], float]


@dataclass
class _Energy:
    """Counts what flows at one meter, both ways, between two looks."""

    import_wh: float = 1_000_000.0
    export_wh: float = 1_000_000.0
    _at: float | None = None
    _power_w: float = 0.0

    def advance(self, now: float, power_w: float) -> None:
        if self._at is not None and now > self._at:
            moved = self._power_w * (now - self._at) / 3600
            if moved >= 0:
                self.import_wh += moved
            else:
                self.export_wh -= moved
        self._at, self._power_w = now, power_w


class SimulatedSite:
    """The servers and the physics between them. One event loop owns it."""

    def __init__(
        self,
        *,
        building_w: PhaseSource = (0.0, 0.0, 0.0),
        pv_w: NumberSource = 0.0,
        ev_current_a: PhaseSource = (0.0, 0.0, 0.0),
        sub: Mapping[str, PhaseSource] | None = None,
        battery: SimulatedBattery | None = None,
        pv_peak_w: float = 30_000.0,
        voltage_v: float = NOMINAL_V,
        clock: Clock = time.monotonic,
    ) -> None:
        """`building_w` per phase, `pv_w` in total (negative = producing), `ev_current_a` per grid phase.

        `sub`: watts per phase by the name of the sub meter. `battery` None: the site has none.
        """
        self._building, self._pv, self._ev = building_w, pv_w, ev_current_a
        self._sub: dict[str, PhaseSource] = dict(sub or {})
        for name in self._sub:
            if name in ("main", "pv", "battery"):
                raise ValueError(f"sub: {name!r} is a name of the site itself; choose another")
        self.battery = battery
        self.pv_peak_w = pv_peak_w
        self._volts, self._clock = voltage_v, clock
        self._limit_share: float | None = None
        self._limit_until = math.inf
        self._energy: dict[str, _Energy] = {n: _Energy() for n in ("main", "pv", *self._sub)}
        self._servers: dict[str, ModbusTcpServer] = {}
        self.ports: dict[str, int] = {}
        self.host = "127.0.0.1"

    # What happens on the site.

    def update(
        self,
        *,
        building_w: PhaseSource | None = None,
        pv_w: NumberSource | None = None,
        ev_current_a: PhaseSource | None = None,
        sub: Mapping[str, PhaseSource] | None = None,
    ) -> None:
        """Change what flows from this moment on. Unknown sub meters are an error: they have no server."""
        self.advance()
        if building_w is not None:
            self._building = building_w
        if pv_w is not None:
            self._pv = pv_w
        if ev_current_a is not None:
            self._ev = ev_current_a
        for name, source in (sub or {}).items():
            if name not in self._sub:
                raise ValueError(f"sub: there is no sub meter {name!r}; there are {', '.join(self._sub) or 'none'}")
            self._sub[name] = source
        self.advance()

    def building_w(self) -> Phases:
        return _phases(self._building)

    def charging_w(self) -> Phases:
        a, b, c = _phases(self._ev)
        return (a * self._volts, b * self._volts, c * self._volts)

    def pv_w(self) -> float:
        """Negative = producing, after a limit that was written to the inverter."""
        power = float(self._pv() if callable(self._pv) else self._pv)
        if self._limit_share is not None:
            power = max(power, -self._limit_share * self.pv_peak_w)
        return power

    def battery_w(self) -> float:
        return self.battery.power_w() if self.battery is not None else 0.0

    def grid_w(self) -> Phases:
        """What the main meter sees: the sum of everything, per phase."""
        shared = (self.pv_w() + self.battery_w()) / 3
        a, b, c = (x + y + shared for x, y in zip(self.building_w(), self.charging_w(), strict=True))
        return (a, b, c)

    def sub_w(self, name: str) -> Phases:
        return _phases(self._sub[name])

    def advance(self) -> None:
        """Live until now: energy is counted, the battery fills or empties, leases run out."""
        now = self._clock()
        if now >= self._limit_until:
            self._limit_share, self._limit_until = None, math.inf
        if self.battery is not None:
            self.battery.advance(now)
        self._energy["main"].advance(now, sum(self.grid_w()))
        self._energy["pv"].advance(now, self.pv_w())
        for name in self._sub:
            self._energy[name].advance(now, sum(self.sub_w(name)))

    # The servers.

    @property
    def names(self) -> tuple[str, ...]:
        """The devices of this site: main, pv, battery if there is one, and the sub meters."""
        return ("main", "pv", *(("battery",) if self.battery is not None else ()), *self._sub)

    async def start(self, ports: Mapping[str, int] | None = None, host: str = "127.0.0.1") -> None:
        """Open every server, on the given ports or on free ones (0). Raises `OSError` when a port is taken."""
        self.host = host
        self.advance()
        wanted = dict(ports or {})
        unknown = set(wanted) - set(self.names)
        if unknown:
            raise ValueError(f"ports: no device named {', '.join(sorted(unknown))}; there are {', '.join(self.names)}")
        try:
            for name in self.names:
                await self.start_device(name, wanted.get(name, 0))
        except BaseException:
            await self.stop()
            raise

    async def start_device(self, name: str, port: int = 0) -> None:
        """Open one device's server; on the port it had before when it comes back."""
        server = ModbusTcpServer(self._device(name), address=(self.host, port or self.ports.get(name, 0)))
        if not await server.listen():
            raise OSError(f"{name}: port {port} on {self.host} is taken or not allowed")
        transport: Any = server.transport
        self.ports[name] = transport.sockets[0].getsockname()[1]
        self._servers[name] = server

    async def stop_device(self, name: str) -> None:
        """One device goes away, as if its cable were pulled; connections are cut."""
        server = self._servers.pop(name, None)
        if server is not None:
            await server.shutdown()  # type: ignore[no-untyped-call]
            await asyncio.sleep(0)

    async def stop(self) -> None:
        for name in list(self._servers):
            await self.stop_device(name)

    def connect(self, name: str) -> str:
        """The `connect` text of one of the site's devices."""
        return f"tcp://{self.host}:{self.ports[name]}?unit={UNIT}"

    def _device(self, name: str) -> SimDevice:
        if name == "pv":
            return _Chain(self._pv_models, self._pv_written).device(self)
        if name == "battery":
            return _Chain(self._battery_models, self._battery_written).device(self)
        map_ = maps.get(METER_MAP)
        assert isinstance(map_, RegisterMap)
        return _Table(map_, lambda: self._meter_values(name)).device(self)

    def _meter_values(self, name: str) -> dict[str, float]:
        power = self.grid_w() if name == "main" else self.sub_w(name)
        total, energy = sum(power), self._energy[name]
        # Registers of a real meter: currents without sign, everything else signed.
        values = {
            "power": total,
            "apparent": sum(abs(p) for p in power),
            "reactive": 0.0,
            "power_factor": -1.0 if total < 0 else 1.0,
            "frequency": 50.0,
            "current_sum": sum(abs(p) for p in power) / self._volts,
            "energy_import": energy.import_wh,
            "energy_export": energy.export_wh,
        }
        for i, watts in enumerate(power, start=1):
            values[f"voltage_{i}"] = self._volts
            values[f"current_{i}"] = abs(watts) / self._volts
            values[f"power_{i}"] = watts
            values[f"apparent_{i}"] = abs(watts)
            values[f"reactive_{i}"] = 0.0
            values[f"power_factor_{i}"] = -1.0 if watts < 0 else 1.0
        return values

    def _ac_values(self, power_w: float, exported_wh: float) -> dict[str, float]:
        """Model 103 or 113, which count production positive and currents without sign."""
        values = {
            "power": -power_w,
            "apparent": abs(power_w),
            "reactive": 0.0,
            "power_factor": 1.0,
            "frequency": 50.0,
            "energy_export": exported_wh,
            "dc_power": -power_w,
            "operating_state": 4 if power_w else 8,
        }
        for i in (1, 2, 3):
            values[f"voltage_{i}"] = self._volts
            values[f"current_{i}"] = abs(power_w) / 3 / self._volts
        return values

    def _pv_models(self) -> dict[int, dict[str, float]]:
        limited = self._limit_share is not None
        return {
            113: self._ac_values(self.pv_w(), self._energy["pv"].export_wh),
            120: {"rated_power": self.pv_peak_w},
            123: {} if limited else {"limit_on": 0},
        }

    def _pv_written(self, written: Mapping[str, float]) -> None:
        if not written.get("limit_on"):
            self._limit_share, self._limit_until = None, math.inf
            return
        self._limit_share = written.get("limit_pct", 100.0) / 100
        lease = written.get("limit_lease_s", 0)
        self._limit_until = self._clock() + lease if lease else math.inf

    def _battery_models(self) -> dict[int, dict[str, float]]:
        battery = self.battery
        assert battery is not None
        power = battery.power_w()
        state = 4 if power > 0 else 3 if power < 0 else 5 if battery.soc >= 1 else 6
        storage = {
            "max_power": self._battery_scale(),
            "soc": battery.soc,
            "charge_state": state,
        }
        if not battery.commanded:
            storage["control"] = 0
        return {
            103: self._ac_values(power, battery.exported_wh),
            124: storage,
            713: {"capacity": battery.capacity_wh, "soc": battery.soc, "storage_state": 1},
        }

    def _battery_scale(self) -> float:
        assert self.battery is not None
        return max(self.battery.max_charge_w, self.battery.max_discharge_w)

    def _battery_written(self, written: Mapping[str, float]) -> None:
        """The window of model 124: between −discharge rate and charge rate, in percent of WChaMax."""
        assert self.battery is not None
        control = int(written.get("control", 0))
        scale = self._battery_scale() / 100
        high = written.get("charge_pct", 100.0) * scale if control & CONTROL_CHARGE else math.inf
        low = -written.get("discharge_pct", 100.0) * scale if control & CONTROL_DISCHARGE else -math.inf
        if not control:
            self.battery.command(None, self._clock())
        else:
            wish = min(max(0.0, low), high)  # idle by itself, pushed by the window
            self.battery.command(wish, self._clock(), written.get("lease_s") or None)


def _phases(source: PhaseSource) -> Phases:
    a, b, c = source() if callable(source) else source
    return (float(a), float(b), float(c))


class _Table:
    """A product of one register map behind a server: each read sees the values of its moment."""

    def __init__(self, map_: RegisterMap, values: Callable[[], dict[str, float]]) -> None:
        self._map, self._values = map_, values
        self._function = map_.points[0].function

    def device(self, site: SimulatedSite) -> SimDevice:
        blocks: list[SimData] = []
        for point in sorted(self._map.points, key=lambda p: p.address):
            blocks.append(SimData(point.address, values=[0] * point.words, datatype=DataType.REGISTERS, readonly=True))

        async def answer(
            function: int, start: int, address: int, count: int, registers: list[int], written: object
        ) -> ExcCodes | None:
            if function != self._function:
                return ExcCodes.ILLEGAL_FUNCTION
            site.advance()
            values = self._values()
            for point in self._map.points:
                at = point.address - start
                registers[at : at + point.words] = point.to_words(values[point.name])
            return None

        return SimDevice(id=UNIT, simdata=blocks, action=answer)


# The scale factors a simulated SunSpec device uses, by model and by the offset at which they stand.
_SCALES: dict[int, dict[int, int]] = {
    103: {6: -2, 13: -1, 15: 0, 17: -2, 19: 0, 21: 0, 23: -1, 26: 0, 32: 0},
    120: {4: 1},
    123: {23: -1},
    124: {18: 1, 22: -2, 25: -2},
    713: {7: 2, 8: -2},
}
_LENGTHS = {1: 66, 103: 50, 113: 60, 120: 26, 123: 24, 124: 24, 713: 7}
_TABLES = {**INVERTER_MODELS, **LIMIT_MODELS, **STORAGE_MODELS}
_MOVING = {(103, 15), (103, 19), (103, 21), (103, 32)}
"""Scale factors that follow their value, as some inverters do: readers must take them anew each time."""
_WRITABLE = {
    123: {"limit_pct", "limit_lease_s", "limit_on"},
    124: {"control", "discharge_pct", "charge_pct", "lease_s", "grid_charging"},
}
_NOT_IMPLEMENTED = 0x8000
_IDENTITY = ("Laadplein", "Simulated device", "", "1", "SIM-1")


class _Chain:
    """A SunSpec device behind a server: the chain of models, values of the moment, and what was written to them."""

    def __init__(
        self, models: Callable[[], dict[int, dict[str, float]]], written: Callable[[Mapping[str, float]], None]
    ) -> None:
        self._models, self._on_write = models, written
        self._places: dict[int, int] = {}
        self._kept: dict[str, float] = {
            "control": 0, "charge_pct": 100.0, "discharge_pct": 100.0, "lease_s": 0, "grid_charging": 1,
            "limit_pct": 100.0, "limit_lease_s": 0, "limit_on": 0,
        }  # fmt: skip

    def device(self, site: SimulatedSite) -> SimDevice:
        words = list(MARK)
        for model in (1, *self._models()):
            self._places[model] = len(words)
            words += [model, _LENGTHS[model], *[_NOT_IMPLEMENTED] * _LENGTHS[model]]
        words += [END, 0]
        at = self._places[1] + 2
        for text, length in zip(_IDENTITY, (16, 16, 8, 8, 16), strict=True):
            words[at : at + length] = encode(text, Type.STR, words=length)
            at += length
        for model, scales in _SCALES.items():
            for offset, exponent in scales.items() if model in self._places else ():
                words[self._places[model] + offset] = exponent & 0xFFFF

        async def answer(
            function: int, start: int, address: int, count: int, registers: list[int], written: Any
        ) -> ExcCodes | None:
            if function not in (3, 6, 16):
                return ExcCodes.ILLEGAL_FUNCTION
            site.advance()
            if written is not None:
                refusal = self._take(address - SUNSPEC_BASE, list(written))
                if refusal is not None:
                    return refusal
            self._fill(registers)
            return None

        block = SimData(SUNSPEC_BASE, values=words, datatype=DataType.REGISTERS)
        return SimDevice(id=UNIT, simdata=[block], action=answer)

    def _fill(self, registers: list[int]) -> None:
        for model, values in self._models().items():
            place = self._places[model]
            for point in _TABLES[model]:
                value = values.get(point.name, self._kept.get(point.name))
                if value is None:
                    continue
                exponent = _scale(model, point)
                if point.scale_at is not None and (model, point.scale_at) in _MOVING:
                    exponent = next(e for e in range(-1, 8) if abs(value) < 32_000 * 10.0**e)
                    registers[place + point.scale_at] = exponent & 0xFFFF
                at = place + point.address
                registers[at : at + point.words] = point.to_words(value, exponent)

    def _take(self, offset: int, words: list[int]) -> ExcCodes | None:
        """Accept a write to settable points only, each as a whole; then tell the site."""
        for values in self._models().values():  # what the device changed by itself, such as a lease that ended
            self._kept.update({n: v for n, v in values.items() if n in self._kept})
        taken: dict[str, float] = {}
        for i, word in enumerate(words):
            point = self._settable(offset + i)
            if point is None:
                return ExcCodes.ILLEGAL_ADDRESS
            model, setting = point
            value = setting.value([word], exponent=_scale(model, setting))
            if not isinstance(value, (int, float)):
                return ExcCodes.ILLEGAL_VALUE
            if setting.name.endswith("_pct") and not -100.01 <= value <= 100.01:
                return ExcCodes.ILLEGAL_VALUE
            taken[setting.name] = value
        self._kept.update(taken)
        self._on_write(self._kept)
        return None

    def _settable(self, offset: int) -> tuple[int, Point] | None:
        for model, names in _WRITABLE.items():
            if model not in self._places:
                continue
            for point in _TABLES[model]:
                if point.name in names and self._places[model] + point.address == offset:
                    return model, point
        return None


def _scale(model: int, point: Point) -> int:
    return 0 if point.scale_at is None else _SCALES[model][point.scale_at]

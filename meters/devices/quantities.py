"""From named values of one product to one measurement of ours.

Pure. Names in register maps: `voltage_1..3`, `current_1..3`, `power_1..3`, `power`, `power_import`/`power_export`
(two unsigned registers), `reactive_1..3`, `reactive`, `apparent_1..3`, `apparent`, `power_factor`, `frequency`,
`energy_import`, `energy_export` (also `_t1`, `_t2` per tariff), `soc`, `capacity`, `temperature`, `state`;
all in V, A, W, var, VA, Hz, Wh, °C.

This is the door where signs are turned (load-positive), where the wiring of the device is undone, and where what
cannot be true is found out.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from meters.devices.registers import Value
from meters.measurement import Measurement, PerPhase, Quality

VOLTAGE_V = (150.0, 280.0)
WITHOUT_NEUTRAL_V = (85.0, 280.0)
"""Meters there tell 230 V from line to line, or 133 V from a line to the middle of the three."""

FREQUENCY_HZ = (45.0, 55.0)
DEAD_V = 10.0
"""Below this a phase counts as not connected (or gone): no reason to doubt the frame."""

CURRENT_FACTOR = 1.5
"""A current above this much of the breaker is a bad frame, not a load."""

_PHASES = {"L1": 0, "L2": 1, "L3": 2}


class WiringError(ValueError):
    """The wiring of a device names no grid phases."""


@dataclass(frozen=True, slots=True)
class Door:
    """How this one device hangs on the grid: `wiring[i]` is the grid phase of the device's phase i.

    `negate`: the product counts production positive (its energies are named for what they are). `invert`: the current
    transformers face the other way, so that everything turns, energies too.
    """

    wiring: tuple[int, ...] = (0, 1, 2)
    negate: bool = False
    invert: bool = False

    @property
    def sign(self) -> int:
        return -1 if self.negate != self.invert else 1


def parse_wiring(wiring: Sequence[str], phases: int = 3) -> tuple[int, ...]:
    """`["L2", "L3", "L1"]` to indices. Empty means as numbered. Raises `WiringError` with the way out."""
    if not wiring:
        return tuple(range(phases))
    out: list[int] = []
    for word in wiring:
        if word not in _PHASES:
            raise WiringError(f"wiring: {word!r} is no grid phase; use L1, L2 or L3, one for each phase of the device")
        out.append(_PHASES[word])
    if len(set(out)) != len(out):
        raise WiringError(f"wiring: {', '.join(wiring)} names a grid phase twice")
    if len(out) > phases:
        raise WiringError(f"wiring: {len(out)} phases named, but the device measures {phases}")
    return tuple(out)


def assemble(values: Mapping[str, Value], at: datetime, door: Door) -> Measurement:
    """The measurement behind these values: signs turned, phases put where they belong, sums closed.

    What the product does not give and what follows exactly from the rest is filled in: total from phases, apparent
    from active and reactive power, power factor from both. A current takes the sign of its power, because most meters
    give its magnitude.
    """
    number = _Numbers(values)
    sign = door.sign
    power_phase = _times(number.phases("power"), sign)
    power = number.get("power")
    if power is None and (number.get("power_import") is not None or number.get("power_export") is not None):
        power = (number.get("power_import") or 0.0) - (number.get("power_export") or 0.0)
    power = _sum(power_phase, len(door.wiring)) if power is None else _turned(power, sign)
    reactive = number.get("reactive")
    reactive = (
        _sum(_times(number.phases("reactive"), sign), len(door.wiring)) if reactive is None else _turned(reactive, sign)
    )
    apparent = number.get("apparent")
    if apparent is None:
        apparent = _sum(number.phases("apparent"), len(door.wiring))
    if apparent is None and power is not None and reactive is not None:
        apparent = math.hypot(power, reactive)
    factor = number.get("power_factor")
    if factor is not None and abs(factor) > 1.001:
        factor = None
    if factor is None and power is not None and apparent:
        factor = max(-1.0, min(1.0, power / abs(apparent)))
    energy_in, energy_out = number.energy("import"), number.energy("export")
    if door.invert:
        energy_in, energy_out = energy_out, energy_in
    state = values.get("state")
    return Measurement(
        at=at,
        current_a=_wired(_signed(number.phases("current"), power_phase, power, sign), door.wiring),
        voltage_v=_wired(number.phases("voltage"), door.wiring),
        power_w=power,
        power_phase_w=_wired(power_phase, door.wiring),
        reactive_var=reactive,
        apparent_va=None if apparent is None else abs(apparent),
        power_factor=None if factor is None else math.copysign(factor, power if power else factor),
        frequency_hz=number.get("frequency"),
        energy_import_wh=energy_in,
        energy_export_wh=energy_out,
        soc=number.get("soc"),
        energy_capacity_wh=number.get("capacity"),
        temperature_c=number.get("temperature"),
        state=None if state is None else str(state),
    )


def doubts(
    measurement: Measurement,
    previous: Measurement | None = None,
    *,
    max_a: float | None = None,
    voltage_v: tuple[float, float] = VOLTAGE_V,
) -> list[str]:
    """Why this measurement cannot be true; empty when it may be.

    A counter that steps backwards, a voltage outside `voltage_v`, a frequency outside 45..55 Hz, a current above 1.5
    times the breaker, a state of charge outside 0..1.
    """
    found: list[str] = []
    for name, volts, amps in zip(
        _PHASES, measurement.voltage_v or (), _or_unknown(measurement.current_a), strict=False
    ):
        if volts is None or (abs(volts) < DEAD_V and (amps is None or abs(amps) < 1)):
            continue
        if not voltage_v[0] <= volts <= voltage_v[1]:
            found.append(f"voltage {name} is {volts:.1f} V")
    hertz = measurement.frequency_hz
    if hertz is not None and hertz != 0 and not FREQUENCY_HZ[0] <= hertz <= FREQUENCY_HZ[1]:
        found.append(f"frequency is {hertz:.2f} Hz")
    if max_a is not None:
        for name, amps in zip(_PHASES, _or_unknown(measurement.current_a), strict=True):
            if amps is not None and abs(amps) > CURRENT_FACTOR * max_a:
                found.append(f"current {name} is {amps:.1f} A, far above {max_a:g} A")
    if measurement.soc is not None and not -0.001 <= measurement.soc <= 1.001:
        found.append(f"state of charge is {measurement.soc:.0%}")
    if previous is not None:
        for name in ("energy_import_wh", "energy_export_wh"):
            before, now = getattr(previous, name), getattr(measurement, name)
            if before is not None and now is not None and now < before - 0.5:
                found.append(f"{name.removesuffix('_wh').replace('_', ' ')} stepped back by {before - now:.0f} Wh")
    return found


def judged(measurement: Measurement, reasons: Sequence[str]) -> Measurement:
    """The measurement, marked suspect when there is a reason."""
    return replace(measurement, quality=Quality.SUSPECT) if reasons else measurement


@dataclass(frozen=True, slots=True)
class _Numbers:
    values: Mapping[str, Value]

    def get(self, name: str) -> float | None:
        value = self.values.get(name)
        return None if value is None or isinstance(value, str) else float(value)

    def phases(self, name: str) -> PerPhase | None:
        found = (self.get(f"{name}_1"), self.get(f"{name}_2"), self.get(f"{name}_3"))
        return None if found == (None, None, None) else found

    def energy(self, way: str) -> float | None:
        total = self.get(f"energy_{way}")
        tariffs = [t for t in (self.get(f"energy_{way}_t1"), self.get(f"energy_{way}_t2")) if t is not None]
        return sum(tariffs) if total is None and tariffs else total


def _or_unknown(phases: PerPhase | None) -> PerPhase:
    return (None, None, None) if phases is None else phases


def _times(phases: PerPhase | None, factor: float) -> PerPhase | None:
    if phases is None:
        return None
    a, b, c = (None if p is None else _turned(p, factor) for p in phases)
    return (a, b, c)


def _turned(value: float, factor: float) -> float:
    return value * factor + 0.0  # no minus zero


def _sum(phases: PerPhase | None, needed: int) -> float | None:
    """The total, when enough phases are known: half a sum would be a wrong number."""
    if phases is None:
        return None
    known = [p for p in phases if p is not None]
    return sum(known) if len(known) >= needed else None


def _signed(amps: PerPhase | None, watts: PerPhase | None, total: float | None, sign: int) -> PerPhase | None:
    if amps is None:
        return None
    out: list[float | None] = []
    for current, power in zip(amps, _or_unknown(watts), strict=True):
        guide = power if power is not None else total
        if current is None:
            out.append(None)
        elif guide is None:
            out.append(_turned(current, sign))
        else:
            out.append(math.copysign(current, guide) if guide and current else _turned(current, sign))
    return (out[0], out[1], out[2])


def _wired(phases: PerPhase | None, wiring: tuple[int, ...]) -> PerPhase | None:
    if phases is None:
        return None
    out: list[float | None] = [None, None, None]
    for device_phase, grid_phase in enumerate(wiring):
        out[grid_phase] = phases[device_phase]
    return None if out == [None, None, None] else (out[0], out[1], out[2])

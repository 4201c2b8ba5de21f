"""From the values a station samples to one measurement on grid phases. Pure.

The wiring is undone here: the station's own L1, L2, L3 become the grid phases they are clamped to. What is missing is
derived in a fixed order, and marked as estimated: power per phase, then a current without a phase, then the total
power at its worst, all of it on each phase the station has (`docs/glossary.md`, unknown is not zero).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from csms.vocabulary import MeterValue
from meters.measurement import NOMINAL_V, Measurement, PerPhase, Quality
from meters.supply import Supply, between, power_weight

STATION_PHASES = ("L1", "L2", "L3")
_INDEX = {"L1": 0, "L2": 1, "L3": 2}
_PHASE = {"": "", "L1": "L1", "L2": "L2", "L3": "L3", "L1-N": "L1", "L2-N": "L2", "L3-N": "L3"}
_ELSEWHERE = frozenset({"Body", "Cable", "EV"})
DC_EFFICIENCY = 0.95
"""Of the rectifier, for a DC station that reports what leaves it while its limits hold at the AC input."""
KEEP_SLOW_VALUES = timedelta(minutes=10)
KEEP_QUICK_VALUES = timedelta(seconds=60)


def measurement(
    value: MeterValue,
    *,
    phases: tuple[str, ...],
    dc: bool,
    max_a: float,
    previous: Measurement | None = None,
    at: datetime | None = None,
    supply: Supply = Supply.TN,
) -> Measurement:
    """What an EVSE draws at this moment. `phases` are the grid phases of the station's own L1, L2, L3.

    Without a neutral a car that shows on one line returns by the next of the station's own (or the other of two), and
    power by phase is none: it is never made into a current.

    What a shorter message leaves out is carried over from `previous`, while that is young. `at` is given where the
    station's clock is known to be off.
    """
    read = _sort(value, dc)
    power = read.get("Power.Active.Import", {})
    total_w = _total(power)
    exported = _total(read.get("Power.Active.Export", {}))
    if exported:
        total_w = (total_w or 0.0) - exported
    volts = {p: v for p, v in read.get("Voltage", {}).items() if p}
    amps = read.get("Current.Import", {})
    offered_a = _offered_a(read, dc, power_weight(len(phases), supply), power_weight(3, supply))
    by_phase = power if supply is Supply.TN else {}
    quality = Quality.GOOD
    current: PerPhase | None = None
    if any(amps.get(p) is not None for p in STATION_PHASES):
        current = _on_grid(amps, phases)
    elif "" in amps and len(phases) == 1:
        current = _on_grid({"L1": amps[""]}, phases)
    elif "" in amps:
        current, quality = _on_grid(dict.fromkeys(STATION_PHASES, amps[""]), phases), Quality.ESTIMATED
    else:
        current = _from_power(by_phase, total_w, volts, phases, dc, offered_a or max_a, supply)
        quality = Quality.ESTIMATED
        if current is None:
            quality = Quality.GOOD
    if current is not None and supply is Supply.IT and not dc:
        current = between(current, phases)
    if total_w is None and current is not None:
        total_w = _power_of(current, _on_grid(volts, phases, absent=None) if volts else None, supply)
    soc = _total(read.get("SoC", {}))
    register_wh = _total(read.get("Energy.Active.Import.Register", {}))
    soc = soc / 100.0 if soc is not None and 0 <= soc <= 100 else None
    at = at or value.moment.at
    if previous is not None and previous.at <= at <= previous.at + KEEP_SLOW_VALUES:
        if current is None and total_w is None and (previous.current_a is not None or previous.power_w is not None):
            return _with_the_last_current(previous, read, register_wh, soc, offered_a)
        register_wh = previous.energy_import_wh if register_wh is None else register_wh
        soc = previous.soc if soc is None else soc
        if offered_a is None and at - previous.at <= KEEP_QUICK_VALUES:
            offered_a = previous.offered_a
    return Measurement(
        at=at,
        current_a=current,
        voltage_v=_on_grid(volts, phases, absent=None) if volts else None,
        power_w=total_w,
        power_phase_w=_on_grid(by_phase, phases) if len(by_phase) > 1 or (by_phase and "" not in by_phase) else None,
        reactive_var=_total(read.get("Power.Reactive.Import", {})),
        power_factor=read.get("Power.Factor", {}).get(""),
        frequency_hz=read.get("Frequency", {}).get(""),
        energy_import_wh=register_wh,
        energy_export_wh=_total(read.get("Energy.Active.Export.Register", {})),
        soc=soc,
        offered_a=offered_a,
        quality=quality,
    )


def _with_the_last_current(
    previous: Measurement,
    read: Mapping[str, Mapping[str, float]],
    register_wh: float | None,
    soc: float | None,
    offered_a: float | None,
) -> Measurement:
    """A message with neither current nor power does not make the last current any younger: its time stays."""
    told: dict[str, Any] = {
        "energy_import_wh": register_wh,
        "energy_export_wh": _total(read.get("Energy.Active.Export.Register", {})),
        "soc": soc,
        "offered_a": offered_a,
    }
    return replace(previous, **{name: number for name, number in told.items() if number is not None})


def _sort(value: MeterValue, dc: bool) -> dict[str, dict[str, float]]:
    """Values by measurand and phase. At the inlet beats at the outlet; on a DC station only the inlet's amps count."""
    read: dict[str, dict[str, float]] = {}
    at_inlet: set[tuple[str, str]] = set()
    for measurand, told_phase, number, location in value.quantities:
        phase = _PHASE.get(told_phase)
        if phase is None or (location in _ELSEWHERE and measurand != "SoC"):
            continue
        inlet = location == "Inlet"
        if dc and not inlet and measurand in ("Current.Import", "Voltage"):
            continue
        if not inlet and (measurand, phase) in at_inlet:
            continue
        if inlet:
            at_inlet.add((measurand, phase))
        read.setdefault(measurand, {})[phase] = number
    return read


def _total(by_phase: Mapping[str, float]) -> float | None:
    if "" in by_phase:
        return by_phase[""]
    return sum(by_phase.values()) if by_phase else None


def _offered_a(read: Mapping[str, Mapping[str, float]], dc: bool, wired: float, three: float) -> float | None:
    amps = read.get("Current.Offered")
    if amps and not dc:
        return max(amps.values())
    watts = _total(read.get("Power.Offered", {}))
    return None if watts is None else watts / (NOMINAL_V * (three if dc else wired))


def _on_grid(by_phase: Mapping[str, float], phases: tuple[str, ...], absent: float | None = 0.0) -> PerPhase:
    """The station's phases laid on the grid's. A grid phase it is not wired to carries nothing (`absent`)."""
    out: list[float | None] = [absent, absent, absent]
    for own, grid in zip(STATION_PHASES, phases, strict=False):
        out[_INDEX[grid]] = by_phase.get(own)
    return (out[0], out[1], out[2])


def _from_power(
    power: Mapping[str, float],
    total_w: float | None,
    volts: Mapping[str, float],
    phases: tuple[str, ...],
    dc: bool,
    most_a: float,
    supply: Supply,
) -> PerPhase | None:
    """Amps where only watts are told."""
    if dc:
        if total_w is None:
            return None
        each = total_w / DC_EFFICIENCY / (power_weight(3, supply) * NOMINAL_V)
        return (each, each, each)
    if any(p in power for p in STATION_PHASES):
        return _on_grid({p: w / (volts.get(p) or NOMINAL_V) for p, w in power.items() if p}, phases)
    if total_w is None:
        return None
    worst = total_w / (volts.get("L1") or NOMINAL_V) if supply is Supply.TN else total_w / NOMINAL_V
    if len(phases) > 1:
        worst = min(worst, max(most_a, total_w / (NOMINAL_V * power_weight(len(phases), supply))))
    return _on_grid(dict.fromkeys(STATION_PHASES, worst), phases)


def _power_of(current: PerPhase, volts: PerPhase | None, supply: Supply) -> float | None:
    if any(a is None for a in current):
        return None
    if supply is Supply.IT:  # the volts may be those from line to line
        amps = [a for a in current if a]
        return sum(amps) * NOMINAL_V * power_weight(len(amps), supply) / max(len(amps), 1)
    return sum((a or 0.0) * ((volts[i] if volts else None) or NOMINAL_V) for i, a in enumerate(current))

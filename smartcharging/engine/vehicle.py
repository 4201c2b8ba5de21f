"""What is known of a car, and what its behaviour teaches: energy for a wanted range, phases used, smallest current.

Pure. Memories are frozen values: what was known and one observation go in, what is known now comes out. Whoever keeps
them (per transaction, per vehicle) decides how long.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from smartcharging.engine.grid import Phases

WH_PER_KM = 190.0
CHARGING_EFFICIENCY = 0.9  # of the energy at the meter, what reaches the car's battery
LEAST_A = 6.0  # IEC 61851-1: no car need accept less

TELLING_OFFER_A = 7.0  # below it a three-phase car may well charge on one phase only
USED_SHARE = 0.2  # of the strongest phase
DRAWING_A = 1.0
STEADY_A = 1.0
CONFIRM = timedelta(seconds=10)
DOUBT_AFTER_PAUSE = timedelta(seconds=15)
REFUSES_AFTER = timedelta(seconds=60)
NO_LIMIT_A = 16.0  # a car that takes nothing at this or more is full or faulty, not choosy

Used = tuple[bool, bool, bool]


def energy_for_range(
    range_km: float, wh_per_km: float = WH_PER_KM, charging_efficiency: float = CHARGING_EFFICIENCY
) -> float:
    """Wh at the meter for so many kilometres."""
    _positive("wh_per_km", wh_per_km)
    _positive("charging_efficiency", charging_efficiency)
    if range_km < 0:
        raise ValueError("range_km must not be negative")
    return range_km * wh_per_km / min(charging_efficiency, 1.0)


def range_for_energy(
    energy_wh: float, wh_per_km: float = WH_PER_KM, charging_efficiency: float = CHARGING_EFFICIENCY
) -> float:
    """Kilometres that so many Wh at the meter are good for."""
    _positive("wh_per_km", wh_per_km)
    return max(energy_wh, 0.0) * min(charging_efficiency, 1.0) / wh_per_km


def energy_to_soc(
    soc: float, wanted_soc: float, battery_wh: float, charging_efficiency: float = CHARGING_EFFICIENCY
) -> float:
    """Wh at the meter from one state of charge to another (0 to 1); nothing when it is already there."""
    _positive("battery_wh", battery_wh)
    _positive("charging_efficiency", charging_efficiency)
    for name, value in (("soc", soc), ("wanted_soc", wanted_soc)):
        if not 0 <= value <= 1:
            raise ValueError(f"{name} runs from 0 to 1, not {value}")
    return max(0.0, wanted_soc - soc) * battery_wh / min(charging_efficiency, 1.0)


def soc_after(
    soc: float, energy_wh: float, battery_wh: float, charging_efficiency: float = CHARGING_EFFICIENCY
) -> float:
    """The state of charge after so many Wh at the meter."""
    _positive("battery_wh", battery_wh)
    return min(1.0, soc + max(energy_wh, 0.0) * min(charging_efficiency, 1.0) / battery_wh)


def _positive(name: str, value: float) -> None:
    if not value > 0:
        raise ValueError(f"{name} must be above zero, not {value}")


# Phases used


@dataclass(frozen=True, slots=True)
class PhaseMemory:
    """Which grid phases a car loads, as far as its currents have shown.

    `used` is confirmed; `seen` has been observed since `seen_since` and waits for confirmation.
    """

    used: Used | None = None
    seen: Used | None = None
    seen_since: datetime | None = None
    offered_a: float | None = None
    drawing: bool = False
    doubt_until: datetime | None = None


def observe_phases(
    memory: PhaseMemory, at: datetime, offered_a: float | None, measured_a: Phases | None
) -> PhaseMemory:
    """Learn from one measurement. Only a steady offer of more than 7 A tells: below, cars choose for themselves.

    A pause casts doubt for 15 s after charging resumes: cars may come back on other phases.
    """
    if measured_a is None or offered_a is None:
        return memory
    strongest = max(measured_a)
    if strongest < DRAWING_A:
        return replace(memory, drawing=False, seen=None, seen_since=None, offered_a=offered_a)
    doubt = memory.doubt_until
    if not memory.drawing and memory.used is not None:
        doubt = at + DOUBT_AFTER_PAUSE
    used = memory.used
    if used is not None:  # a phase that carries current counts at once; one that no longer does, after confirmation
        one, two, three = (was or amps >= DRAWING_A for was, amps in zip(used, measured_a, strict=True))
        used = (one, two, three)
    memory = replace(memory, used=used, drawing=True, doubt_until=doubt)
    steady = memory.offered_a is None or abs(offered_a - memory.offered_a) <= STEADY_A
    if offered_a <= TELLING_OFFER_A or not steady:
        return replace(memory, seen=None, seen_since=None, offered_a=offered_a)
    a, b, c = (current > USED_SHARE * strongest for current in measured_a)
    seen = (a, b, c)
    if seen != memory.seen or memory.seen_since is None:
        return replace(memory, seen=seen, seen_since=at, offered_a=offered_a)
    if at - memory.seen_since >= CONFIRM:
        return replace(memory, used=seen, offered_a=offered_a)
    return replace(memory, offered_a=offered_a)


def phases_to_count_on(memory: PhaseMemory, at: datetime, wired: Used) -> Used:
    """The phases a car must be assumed to load: all wired ones until confirmed, and while there is doubt."""
    if memory.used is None or (memory.doubt_until is not None and at < memory.doubt_until):
        return wired
    a, b, c = (used and is_wired for used, is_wired in zip(memory.used, wired, strict=True))
    return (a, b, c) if (a or b or c) else wired


# The smallest current a car accepts


@dataclass(frozen=True, slots=True)
class MinimumMemory:
    """Between what a car has refused and what it has accepted lies its own minimum, at or above the standard's 6 A."""

    refused_a: float | None = None
    accepted_a: float | None = None
    offered_a: float | None = None
    offered_since: datetime | None = None


def observe_minimum(
    memory: MinimumMemory, at: datetime, offered_a: float | None, measured_a: Phases | None, *, wants: bool
) -> MinimumMemory:
    """Learn from one measurement. A car that wants energy and takes none for a minute of a low offer refuses it."""
    if offered_a is None or measured_a is None or offered_a < LEAST_A or not wants:
        return replace(memory, offered_a=None, offered_since=None)
    if memory.offered_a is None or memory.offered_since is None or abs(memory.offered_a - offered_a) > 0.05:
        return replace(memory, offered_a=offered_a, offered_since=at)
    if max(measured_a) >= DRAWING_A:
        accepted = min(offered_a, memory.accepted_a) if memory.accepted_a is not None else offered_a
        refused = memory.refused_a
        if refused is not None and refused >= accepted:
            refused = None  # it was busy with something else then
        return replace(memory, accepted_a=accepted, refused_a=refused)
    if offered_a < NO_LIMIT_A and at - memory.offered_since >= REFUSES_AFTER:
        if memory.accepted_a is not None and offered_a >= memory.accepted_a:
            return memory  # it took this before: full, not choosy
        return replace(memory, refused_a=max(offered_a, memory.refused_a or 0.0))
    return memory


def minimum_a(memory: MinimumMemory, station_min_a: float = LEAST_A) -> float:
    """The current to offer at least: one above what was refused, or what was accepted if that is known."""
    least = max(station_min_a, LEAST_A)
    if memory.refused_a is None:
        return least
    candidate = memory.refused_a + 1.0
    if memory.accepted_a is not None:
        candidate = min(candidate, memory.accepted_a)
    return max(least, candidate)

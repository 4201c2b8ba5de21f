"""Loads that a plan may move: what they are, and the physics and time tables behind them.

Pure. Three kinds: a `ShiftableBlock` runs once (a washing line for vehicles), a `ThermalStore` keeps a temperature (a
boiler, a heat pump's buffer, a freezer), a `Switchable` is on unless it is told to rest (a pump). Power in W,
temperatures in °C, time in hours from the start of the plan. `hours` is the length of each slot.

A promise of a load (it runs once, it keeps its band, its rests are short) is soft: a plan never fails for it, it says
what is missing and why. The power of a load and everything above it are hard.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Series = NDArray[np.float64]
Integers = NDArray[np.int64]
DAY_H = 24.0
ROUNDING_H = 1e-6
IDLE_W = 1.0
"""A switchable load that is expected to take no more takes nothing and is not switched off."""


@dataclass(frozen=True, slots=True)
class ShiftableBlock:
    """Runs once without a break, wholly between the beginning of `first_slot` and the beginning of `last_slot`.

    `profile_w` has one power per `step_s`; it starts at the beginning of a slot. `running_h`: it runs already, for so
    long, and is not stopped: only what is left of it is planned, from the first slot on.
    """

    key: str
    node: int
    phases: tuple[bool, bool, bool]
    profile_w: tuple[float, ...]
    step_s: float
    first_slot: int
    last_slot: int
    value_eur: float | None = None  # what not running costs; None: more than any money
    running_h: float | None = None
    name: str = ""


@dataclass(frozen=True, slots=True)
class ThermalStore:
    """Keeps a temperature by heating, or with `cooling` by taking heat out; one temperature stands for all of it.

    `loss_w_per_k` flows to `ambient_c`. `draw_w` is heat taken out otherwise (hot water), negative where heat comes in
    (doors of a cold store). `efficiency` is heat moved per electricity: 1 for a resistance, the COP of a heat pump.
    """

    key: str
    node: int
    phases: tuple[bool, bool, bool]
    max_w: float  # electric
    capacity_wh_per_k: float
    loss_w_per_k: float
    now_c: float
    min_c: Series | float
    max_c: Series | float
    ambient_c: Series | float
    efficiency: Series | float = 1.0
    draw_w: Series | float = 0.0
    on_off: bool = False  # full power or none; else anything between
    cooling: bool = False
    value_eur_per_k_h: float | None = None  # of a kelvin outside the band for an hour; None: more than any money
    name: str = ""


@dataclass(frozen=True, slots=True)
class Switchable:
    """Takes `expected_w` unless it is switched off, for a slot at a time.

    `before` tells of each slot before the plan (as long as its first one, the last stands last) whether it was off.
    `most_off_h_per_day` counts in any 24 hours.
    """

    key: str
    node: int
    phases: tuple[bool, bool, bool]
    expected_w: Series | float
    eur_per_kwh: float  # of what is not served
    longest_off_h: float
    rest_h: float = 0.0  # on again at least so long before the next time
    most_off_h_per_day: float = DAY_H
    value_eur_per_h: float | None = None  # of an hour off against its rules; None: more than any money
    before: tuple[bool, ...] = ()
    name: str = ""


Load = ShiftableBlock | ThermalStore | Switchable


def label(load: Load) -> str:
    return load.name or load.key


def most_w(load: Load, hours: Series) -> Series:
    """The most it can take in each slot."""
    if isinstance(load, ThermalStore):
        return np.full(hours.shape, load.max_w)
    if isinstance(load, Switchable):
        expected = np.broadcast_to(np.asarray(load.expected_w, dtype=np.float64), hours.shape)
        return np.where(expected > IDLE_W, expected, 0.0)
    runs = [run_w(load, int(start), hours) for start in starts(load, hours)]
    return np.max(runs, axis=0) if runs else np.zeros(hours.shape)


# A block in time


def begins(hours: Series) -> Series:
    """When each slot begins, and when the last one ends [h]."""
    return np.concatenate([[0.0], np.cumsum(hours)])


def left_h(block: ShiftableBlock) -> float:
    """How long it still runs once it goes on."""
    whole = len(block.profile_w) * block.step_s / 3600
    return max(0.0, whole - (block.running_h or 0.0))


def starts(block: ShiftableBlock, hours: Series) -> Integers:
    """The slots with which it may start so that it ends in time; the first one alone while it runs."""
    if block.running_h is not None:
        return np.zeros(min(1, hours.shape[0]), dtype=np.int64)
    begin = begins(hours)
    last = min(block.last_slot, hours.shape[0])
    first = max(block.first_slot, 0)
    slots = np.arange(first, max(last, first), dtype=np.int64)
    in_time: NDArray[np.bool_] = begin[slots] + left_h(block) <= begin[last] + ROUNDING_H
    return slots[in_time]


def run_w(block: ShiftableBlock, start: int, hours: Series) -> Series:
    """Mean power per slot of the run that starts with this slot."""
    begin = begins(hours)
    step = block.step_s / 3600
    from_h = begin[start] - (block.running_h or 0.0) + step * np.arange(len(block.profile_w))
    overlap = np.minimum(begin[1:, None], from_h + step) - np.maximum(
        begin[:-1, None], np.maximum(from_h, begin[start])
    )
    power: Series = np.maximum(overlap, 0.0) @ np.asarray(block.profile_w) / hours
    return power


# A store of heat


@dataclass(frozen=True)
class Warmth:
    """The temperature at the end of a slot: `keeps · before + per_kw · power + drift`.

    That is exact for a power that is constant in the slot. `low` and `high` are the band at the end of each slot: the
    tighter one of the slot and the next. Within a slot the temperature moves one way, so what holds at its ends holds
    throughout.
    """

    keeps: Series
    per_kw: Series
    drift: Series
    low: Series
    high: Series

    @classmethod
    def of(cls, store: ThermalStore, hours: Series) -> Warmth:
        def each(values: Series | float) -> Series:
            return np.broadcast_to(np.asarray(values, dtype=np.float64), hours.shape)

        capacity, loss = store.capacity_wh_per_k, store.loss_w_per_k
        keeps = np.exp(-hours * loss / capacity)
        per_w = -np.expm1(-hours * loss / capacity) / loss if loss > 0 else hours / capacity  # K per W of heat
        sign = -1.0 if store.cooling else 1.0
        low, high = each(store.min_c), each(store.max_c)
        return cls(
            keeps=keeps,
            per_kw=sign * each(store.efficiency) * per_w * 1000,
            drift=(1 - keeps) * each(store.ambient_c) - each(store.draw_w) * per_w,
            low=np.maximum(low, np.append(low[1:], -np.inf)),
            high=np.minimum(high, np.append(high[1:], np.inf)),
        )

    def course(self, now_c: float, power_kw: Series) -> Series:
        """Temperature at the end of each slot."""
        out = np.empty(power_kw.shape)
        for t, kw in enumerate(power_kw):
            now_c = self.keeps[t] * now_c + self.per_kw[t] * kw + self.drift[t]
            out[t] = now_c
        return out


# A switch in time


@dataclass(frozen=True)
class OffRule:
    """Of these slots at most so much may be off: Σ weight · off ≤ most. Slots before the plan count below zero.

    What is too much is laid to slot `at`, in units of `unit`.
    """

    slots: Integers
    weight: Series
    most: float
    at: int
    unit: float = 1.0


def off_rules(switch: Switchable, hours: Series) -> list[OffRule]:
    """Everything that a switchable load asks of the slots in which it is off."""
    begin = begins(np.concatenate([np.full(len(switch.before), hours[0] if hours.size else 0.0), hours]))
    first, slots = len(switch.before), np.arange(begin.shape[0] - 1, dtype=np.int64)
    rules: list[OffRule] = []
    for end in slots[first:]:
        rules += _not_too_long(switch, begin, int(end), first) + _not_too_often(switch, begin, int(end), first)
    for on in slots[1:]:
        rules += _not_too_soon(switch, begin, int(on), first)
    return rules


def _not_too_long(switch: Switchable, begin: Series, end: int, first: int) -> list[OffRule]:
    """Slots up to this one that together are longer than it may be off are not all off."""
    from_slot = int(np.searchsorted(begin, begin[end + 1] - switch.longest_off_h - ROUNDING_H)) - 1
    if from_slot < 0:
        return []
    slots = np.arange(from_slot, end + 1, dtype=np.int64) - first
    return [OffRule(slots, np.ones(slots.shape), slots.shape[0] - 1.0, end - first)]


def _not_too_often(switch: Switchable, begin: Series, end: int, first: int) -> list[OffRule]:
    """In the 24 hours that end with this slot it is off for no more than its hours."""
    if switch.most_off_h_per_day >= DAY_H:
        return []
    from_slot = int(np.searchsorted(begin, begin[end + 1] - DAY_H - ROUNDING_H))
    length = np.diff(begin)[from_slot : end + 1]
    slots = np.arange(from_slot, end + 1, dtype=np.int64) - first
    return [OffRule(slots, length, switch.most_off_h_per_day, end - first, float(length[-1]))]


def _not_too_soon(switch: Switchable, begin: Series, on: int, first: int) -> list[OffRule]:
    """On again with this slot after one that was off, it stays on until it has rested."""
    beyond = min(int(np.searchsorted(begin, begin[on] + switch.rest_h - ROUNDING_H)), begin.shape[0] - 1)
    return [
        OffRule(np.array([on - 1, on, slot]) - first, np.array([1.0, -1.0, 1.0]), 1.0, slot - first)
        for slot in range(max(on + 1, first), beyond)
    ]

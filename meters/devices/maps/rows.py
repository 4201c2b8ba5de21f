"""Rows for the tables: a quantity that stands once for each phase, at regular distance."""

from __future__ import annotations

from typing import Any

from meters.devices.registers import Point, Type, words_of


def phases(
    name: str, address: int, type_: Type, scale: float = 1.0, *, step: int = 0, **more: Any
) -> tuple[Point, ...]:
    """`name_1`, `name_2`, `name_3` from `address` on, one value (or `step` words) apart."""
    step = step or words_of(type_)
    return tuple(Point(f"{name}_{i + 1}", address + i * step, type_, scale, **more) for i in range(3))

"""How the bench says what was aimed for, and whether it was reached."""

from __future__ import annotations


def verdict(met: bool) -> str:
    return "met" if met else "NOT MET"


def part(ratio: float) -> str:
    """Our time as a part of theirs: 1/40, or 1.20x."""
    return f"1/{1 / ratio:,.0f}" if ratio < 0.5 else f"{ratio:.2f}x"

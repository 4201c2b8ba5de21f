"""The tree of circuits: what each node allows, per phase, and the path from a leaf up to the grid connection.

Pure. Any depth; the customer asks for five. A node is named by its index; parents come before children.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import cached_property

Phases = tuple[float, float, float]
"""Amps (or any number) on the grid's L1, L2, L3."""

NOMINAL_V = 230.0


class GridError(ValueError):
    """The circuits do not form one tree."""


class Supply(StrEnum):
    """How the three lines carry power: with a neutral (3×400 V, 230 V from line to neutral), or without one
    (3×230 V, 230 V from line to line, as in older Belgian streets)."""

    TN = "tn"
    IT = "it"


def power_weight(lines: int, supply: Supply = Supply.TN) -> float:
    """Watts per amp, in units of 230 V, of a load that takes the same current on so many lines.

    Without a neutral a single-phase load lies between two lines, and a three-phase load is 1.73 times that.
    """
    if supply is Supply.IT:
        return 3**0.5 if lines == 3 else 1.0
    return float(max(lines, 1))


def balanced_kw_per_a(supply: Supply) -> float:
    """What an amp on each of the three lines carries [kW]."""
    return power_weight(3, supply) * NOMINAL_V / 1000


def loaded(phases: tuple[bool, bool, bool], supply: Supply) -> tuple[bool, bool, bool]:
    """The lines that a load said to be on these may put current through.

    Without a neutral what comes in by one line goes out by another. Where the other is not named, it may be either.
    """
    return (True, True, True) if supply is Supply.IT and sum(phases) == 1 else phases


def spread_a(power_w: float, phases: tuple[bool, bool, bool], supply: Supply) -> Phases:
    """A power as amps on the lines it lies on; evenly on all where none is named. One named of two is not in doubt to
    its advantage: the other may be either, and each carries all of the current."""
    lines = sum(phases) or 3
    each = power_w / (power_weight(lines, supply) * NOMINAL_V)
    a, b, c = (each if on else 0.0 for on in (loaded(phases, supply) if any(phases) else (True, True, True)))
    return (a, b, c)


@dataclass(frozen=True, slots=True)
class Circuit:
    """One node. `limit_a` per phase and `limit_w` bind together; `margin_a` stays free below `limit_a`.

    `fallback_a`: what the EVSEs below may take together per phase when this node's meter is unknown; None means that
    nothing below may take more than its fail-safe. `metered` says whether a meter is commissioned here at all:
    an unmetered circuit feeds nothing but what the tree knows, and `worst_a`: the highest other load directly on it,
    as it was commissioned. `imbalance_a`: how much more one phase may carry than another.
    """

    name: str
    parent: int | None
    limit_a: Phases
    limit_w: float | None = None
    export_limit_w: float | None = None
    margin_a: float = 0.0
    fallback_a: float | None = None
    metered: bool = False
    key: int | None = None  # database key, for those who store the answer
    worst_a: Phases | None = None
    imbalance_a: float | None = None


@dataclass(frozen=True)
class Grid:
    """Circuits in an order in which each parent stands before its children; index 0 is the grid connection."""

    circuits: tuple[Circuit, ...]
    supply: Supply = Supply.TN
    _index: dict[str, int] = field(init=False, repr=False, compare=False, default_factory=dict)

    def __post_init__(self) -> None:
        if not self.circuits:
            raise GridError("a site needs at least one circuit: its grid connection")
        for i, circuit in enumerate(self.circuits):
            if (circuit.parent is None) != (i == 0):
                raise GridError(f"circuit {circuit.name!r}: exactly the first circuit has no parent")
            if circuit.parent is not None and not 0 <= circuit.parent < i:
                raise GridError(f"circuit {circuit.name!r}: its parent must come before it")
            if circuit.name in self._index:
                raise GridError(f"circuit {circuit.name!r} is named twice")
            self._index[circuit.name] = i

    @classmethod
    def build(cls, circuits: Sequence[tuple[Circuit, str | None]], supply: Supply = Supply.TN) -> Grid:
        """Order (circuit, parent name) pairs into a grid. Raises `GridError` on rings, orphans or two roots."""
        roots = [c.name for c, parent in circuits if parent is None]
        if len(roots) != 1:
            raise GridError(f"exactly one circuit has no parent, found {len(roots)}: {', '.join(roots) or 'none'}")
        ordered: list[Circuit] = []
        index: dict[str, int] = {}
        waiting = list(circuits)
        while waiting:
            ready = [(c, p) for c, p in waiting if p is None or p in index]
            if not ready:
                names = ", ".join(f"{c.name!r} (parent {p!r})" for c, p in waiting)
                raise GridError(f"these circuits hang on no known parent or form a ring: {names}")
            for circuit, parent in ready:
                index[circuit.name] = len(ordered)
                ordered.append(replace(circuit, parent=None if parent is None else index[parent]))
            waiting = [(c, p) for c, p in waiting if c.name not in index]
        return cls(tuple(ordered), supply)

    def __len__(self) -> int:
        return len(self.circuits)

    def index(self, name: str) -> int:
        return self._index[name]

    def path(self, node: int) -> Iterator[int]:
        """The node itself and everything above it, up to the grid connection."""
        at: int | None = node
        while at is not None:
            yield at
            at = self.circuits[at].parent

    @cached_property
    def names(self) -> tuple[str, ...]:
        return tuple(c.name for c in self.circuits)

    @cached_property
    def depth(self) -> int:
        return max(sum(1 for _ in self.path(i)) for i in range(len(self.circuits)))

"""Who may narrow a limit, in which order, and what is said about it: the one mechanism behind “why 8 A?”.

Pure. Fire, emergency stop, circuit, grid operator, contract, plan, wish: each may narrow what the next may have, and
none may widen it. Taking the smallest is all there is to it; the rank only decides whose name is told when two ask
for the same.

Amps and watts are kept apart. A limit in amps protects copper, on each phase. A limit in watts is a contract or an
order about the sum of the phases; it is turned into amps with the nominal voltage, all phases together.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import IntEnum
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from smartcharging.engine.grid import NOMINAL_V, Grid, Phases, Supply, power_weight
from smartcharging.engine.snapshot import Narrowing

PHASES = ("L1", "L2", "L3")
_SILENT = ("", "", "", "")
COLUMNS = (*PHASES, "W")
SUM = 3  # the column after L1, L2, L3: all phases together, in amps (watts divided by the nominal voltage)
QUARTER_S = 900
LAST_S = 10.0  # of a quarter hour: too short to make anything good
PEAK_BURST = 1.5  # a quarter that began quietly may end at this multiple of its target, not more

Table = NDArray[np.float64]


class Rank(IntEnum):
    """Lower goes first. The order of `docs/architecture.md`; no setting changes it."""

    FIRE = 0
    EMERGENCY_STOP = 1
    CIRCUIT = 2
    GRID_OPERATOR = 3
    CONTRACT = 4
    PLAN = 5
    WISH = 6


@dataclass(frozen=True, slots=True)
class Bound:
    """The tightest limit at one place, and who set it."""

    value: float
    rank: int
    reason: str

    def narrowed(self, value: float, rank: int, reason: str) -> Bound:
        """The smaller of the two. At equal values the one that came first keeps its name."""
        return Bound(value, rank, reason) if value < self.value else self


NO_BOUND = Bound(math.inf, Rank.WISH, "")


@dataclass(frozen=True)
class Limits:
    """What is allowed now at every node, in amps: columns L1, L2, L3 and `SUM`, each with the reason that binds.

    `sessions` caps single EVSEs: (amps per phase, watts). `export_w` is what may be fed back at a node.
    """

    table: Table
    ranks: NDArray[np.int64]
    reasons: tuple[tuple[str, ...], ...]
    export_w: Table
    sessions: Mapping[str, tuple[Bound, Bound]]
    supply: Supply = Supply.TN

    def phase_a(self, node: int) -> Phases:
        """Amps per phase at a node when all three load it alike: a limit in watts is spread evenly, the safe way."""
        evenly = self.table[node, SUM] / power_weight(3, self.supply)
        a, b, c = (min(float(v), float(evenly)) for v in self.table[node, :SUM])
        return (a, b, c)


def narrow(grid: Grid, narrowings: Iterable[Narrowing] = (), now: datetime | None = None) -> Limits:
    """The effective limits of a grid. The circuits' own are in it at their rank; a limit that is no number is zero.

    With `now`, only what is in force then counts. A narrowing that names neither node nor EVSE is meant for the whole
    site. Raises `IndexError` when one names a node that is not there: a limit must never get lost silently.
    """
    table = _Table(len(grid))
    given = [(n.rank, i, n) for i, n in enumerate(narrowings) if now is None or n.in_force(now)]
    before = sorted((g for g in given if g[0] < Rank.CIRCUIT), key=lambda g: g[:2])
    after = sorted((g for g in given if g[0] >= Rank.CIRCUIT), key=lambda g: g[:2])

    for _, _, narrowing in before:
        table.narrow(narrowing)
    table.narrow_to_circuits(grid)
    for _, _, narrowing in after:
        table.narrow(narrowing)

    return Limits(
        table=table.amps,
        ranks=table.ranks,
        reasons=tuple(table.reasons),
        export_w=table.export_w,
        sessions=table.sessions,
        supply=grid.supply,
    )


@lru_cache(maxsize=64)
def _own_words(names: tuple[str, ...], binds: bytes) -> tuple[tuple[str, ...], ...]:
    """What is said where the circuits' own limits bind (`binds`: a byte for each place). Kept from one cycle to the
    next, in which hardly ever another word is needed."""
    said = (f"limit:{name}:{column}" for name in names for column in COLUMNS)
    each = (words if binding else "" for words, binding in zip(said, binds, strict=True))
    return tuple(zip(each, each, each, each, strict=True))


class _Table:
    """Bounds of all nodes, made ever tighter. At equal values the one that came first keeps its name."""

    def __init__(self, count: int) -> None:
        self.amps = np.full((count, 4), math.inf)
        self.ranks = np.full((count, 4), int(Rank.WISH), dtype=np.int64)
        self.reasons: list[tuple[str, ...]] = [_SILENT] * count
        self._spoken: set[int] = set()  # nodes that a narrowing has named
        self.export_w = np.full(count, math.inf)
        self.sessions: dict[str, tuple[Bound, Bound]] = {}

    def narrow_to_circuits(self, grid: Grid) -> None:
        """What the circuits themselves allow."""
        own = np.empty_like(self.amps)
        own[:, :SUM] = [c.limit_a for c in grid.circuits]
        own[:, SUM] = [math.inf if c.limit_w is None else c.limit_w / NOMINAL_V for c in grid.circuits]
        own = np.where(np.isnan(own), 0.0, np.maximum(own, 0.0))
        for n, circuit in enumerate(grid.circuits):
            if circuit.export_limit_w is not None:
                self.export_w[n] = min(self.export_w[n], _amps(circuit.export_limit_w))
        tighter = own < self.amps
        self.amps = np.where(tighter, own, self.amps)
        self.ranks[tighter] = Rank.CIRCUIT
        said = list(_own_words(grid.names, tighter.tobytes()))
        for n in self._spoken:
            said[n] = tuple(now or before for now, before in zip(said[n], self.reasons[n], strict=True))
        self.reasons = said

    def narrow(self, narrowing: Narrowing) -> None:
        reason = reason_of(narrowing)
        amps = math.inf if narrowing.limit_a is None else _amps(narrowing.limit_a)
        watts = math.inf if narrowing.limit_w is None else _amps(narrowing.limit_w)
        if narrowing.session is not None:
            by_amps, by_watts = self.sessions.get(narrowing.session, (NO_BOUND, NO_BOUND))
            self.sessions[narrowing.session] = (
                by_amps.narrowed(amps, narrowing.rank, reason),
                by_watts.narrowed(watts, narrowing.rank, reason),
            )
            return
        node = narrowing.node or 0
        if not 0 <= node < len(self.amps):
            raise IndexError(f"narrowing {reason!r}: there is no node {node}")
        self._spoken.add(node)
        words = list(self.reasons[node])
        for column, value in enumerate((amps, amps, amps, watts / NOMINAL_V)):
            if value < self.amps[node, column]:
                self.amps[node, column], self.ranks[node, column] = value, narrowing.rank
                words[column] = reason
        self.reasons[node] = tuple(words)
        if narrowing.export_limit_w is not None:
            self.export_w[node] = min(self.export_w[node], _amps(narrowing.export_limit_w))


def _amps(value: float) -> float:
    """A limit is never below zero, and what is no number allows nothing."""
    return 0.0 if math.isnan(value) else max(value, 0.0)


def peak_limit_w(target_w: float, imported_wh: float | None, now: datetime) -> float:
    """What may still be imported on average so that this clock quarter's mean stays at the target.

    A quiet start may be made up for, up to `PEAK_BURST` times the target, lest cars be started in the last minute
    that the next quarter must stop. When the quarter is already lost, nothing controllable adds to it. What the last
    seconds can no longer make good is not asked of them: who is on course may stay on it to the end.
    """
    if imported_wh is None:
        return max(target_w, 0.0)
    passed_s = now.minute % 15 * 60 + now.second + now.microsecond / 1e6
    ahead_wh = target_w * passed_s / 3600 - imported_wh
    budget_w = target_w + ahead_wh * 3600 / max(QUARTER_S - passed_s, LAST_S)
    return min(max(budget_w, 0.0), max(target_w, 0.0) * PEAK_BURST)


# --- what is said about it --------------------------------------------------------------------------------------------

_RANK_WORDS = {
    Rank.FIRE: "fire",
    Rank.EMERGENCY_STOP: "emergency stop",
    Rank.CIRCUIT: "circuit",
    Rank.GRID_OPERATOR: "grid operator",
    Rank.CONTRACT: "contract",
    Rank.PLAN: "plan",
    Rank.WISH: "wish",
}


def reason_of(narrowing: Narrowing) -> str:
    """The code of a narrowing: who it is, then its own words: `grid operator: congestion in the area`."""
    try:
        who = _RANK_WORDS[Rank(narrowing.rank)]
    except ValueError:
        who = "limit"
    words = narrowing.reason.strip()
    if narrowing.rank == Rank.CONTRACT and words == "peak":
        return words  # our own doing, known by one word
    return who if not words or words == who else f"{who}: {words}"


def gettext_noop(message: str) -> str:
    """Marks a sentence for the translators; the faces translate it."""
    return message


SENTENCES: Mapping[str, str] = {
    "limit": gettext_noop("%(circuit)s is at its limit on %(phase)s."),
    "limit_w": gettext_noop("%(circuit)s is at its power limit."),
    "imbalance": gettext_noop("%(circuit)s may not load %(phase)s so much more than its other phases."),
    "switched enough": gettext_noop("Has been paused often enough, so it goes on at its minimum."),
    "paused": gettext_noop("Paused: the minimum current does not fit at %(circuit)s on %(phase)s."),
    "paused_w": gettext_noop("Paused: the minimum current does not fit in the power limit of %(circuit)s."),
    "paused_station": gettext_noop("Paused: the minimum current does not fit at this station."),
    "fire": gettext_noop("Switched off: fire alarm. %(words)s"),
    "emergency stop": gettext_noop("Switched off: emergency stop. %(words)s"),
    "circuit": gettext_noop("Limited for the installation: %(words)s"),
    "grid operator": gettext_noop("Limited by the grid operator: %(words)s"),
    "contract": gettext_noop("Limited by the contract: %(words)s"),
    "wish": gettext_noop("Limited by hand: %(words)s"),
    "plan": gettext_noop("Follows the plan. %(words)s"),
    "peak": gettext_noop("Keeps this quarter hour's peak down."),
    "meter stale": gettext_noop("The meter of %(circuit)s is silent, so a safe current holds."),
    "no surplus": gettext_noop("Waits for solar surplus."),
    "surplus": gettext_noop("Charges with solar surplus."),
    "uses less": gettext_noop("Gets what the car makes use of; the rest goes to others."),
    "car full": gettext_noop("The car asks for nothing more."),
    "free": gettext_noop("No car is plugged in."),
    "station maximum": gettext_noop("At the maximum of the station or the car."),
    "station shared": gettext_noop("Shares the maximum of its station."),
    "unreachable": gettext_noop("The station cannot be reached; it keeps its last or its safe limit."),
    "waits for others": gettext_noop("Rises as soon as other cars have lowered their current."),
    "rising": gettext_noop("Rises step by step."),
    "minimum time on": gettext_noop("Has only just started, so it goes on for a few minutes."),
    "minimum time off": gettext_noop("Has only just paused, so it waits a few minutes."),
    "steady room": gettext_noop("Was paused, and starts again when there is a little more room than its minimum."),
    "battery silent": gettext_noop("Nobody knows how much sun is left over, because a battery is silent."),
    "below minimum": gettext_noop("Paused: less is allowed than the minimum current."),
    "ignores its limit": gettext_noop("Takes more than it was allowed."),
    "fail-safe": gettext_noop("A safe current holds, because something is not known."),
    "other": gettext_noop("%(words)s"),
}


def explain(reason: str) -> tuple[str, dict[str, str]]:
    """A sentence for people, still to be translated and filled in: (message id, parameters).

    Unknown codes come back as they are: a reason is shown even when nobody has written a sentence for it.
    """
    code = code_of(reason)
    if code in AT_A_PLACE:
        circuit, phase = place_of(reason)
        return SENTENCES[code], {"circuit": circuit, "phase": phase}
    if code == "paused_station":
        return SENTENCES[code], {}
    if code == "other":
        return SENTENCES[code], {"words": reason}
    words = reason.partition(": ")[2]
    return SENTENCES[code], {"words": words, "circuit": words}


def code_of(reason: str) -> str:
    """The name of the sentence a reason has, without what it is about; `other` when nobody has written one."""
    if reason.startswith("limit:"):
        return "limit_w" if reason.endswith(":W") else "limit"
    if reason.startswith("imbalance:"):
        return "imbalance"
    if reason.startswith(_PAUSED):
        if not reason.removeprefix(_PAUSED).rpartition(" ")[0]:
            return "paused_station"
        return "paused_w" if reason.endswith(" W") else "paused"
    code = reason.partition(": ")[0]
    return code if code in SENTENCES else "other"


AT_A_PLACE = frozenset({"limit", "limit_w", "imbalance", "paused", "paused_w"})
"""Codes that name a circuit and a phase."""


def place_of(reason: str) -> tuple[str, str]:
    """Circuit and phase (W for all together) as far as the reason itself names them."""
    code = code_of(reason)
    if code == "meter stale":
        return reason.partition(": ")[2], ""
    if code not in AT_A_PLACE:
        return "", ""
    said, between = (reason.removeprefix(_PAUSED), " ") if code.startswith("paused") else (reason, ":")
    circuit, _, phase = said.rpartition(between)
    for name in ("limit:", "imbalance:"):
        circuit = circuit.removeprefix(name) if reason.startswith(name) else circuit
    return circuit, phase


_PAUSED = "paused: minimum current does not fit at "


def paused(circuit: str, column: int) -> str:
    return f"{_PAUSED}{circuit} {phase_of(column)}"


def phase_of(column: int) -> str:
    """L1, L2, L3, or W for all together; the columns after that say how the phases differ."""
    return "W" if column == SUM else PHASES[column % 4]


def paused_at_station() -> str:
    return f"{_PAUSED}station"

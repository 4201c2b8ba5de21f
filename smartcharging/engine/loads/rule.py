"""Loads without an optimiser: by rule when there is none, and from its fractions when its time is up.

Pure. All in kW. Both keep to the room of every circuit, slot by slot: `room` (circuit, kind, slot) is what is left, and
what a load takes is taken from it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from smartcharging.engine.loads.columns import LoadColumns
from smartcharging.engine.loads.kinds import Switchable, Warmth, off_rules
from smartcharging.engine.plan.problem import PlanProblem, Series

FITS_KW = 1e-9


@dataclass(frozen=True)
class Room:
    """What is left on the way of one load to the grid connection."""

    left: Series  # of all circuits; shared by all loads
    path: tuple[int, ...]
    weight: Series

    @classmethod
    def of(cls, loads: LoadColumns, load: int, left: Series) -> Room:
        return cls(left, tuple(loads.problem.grid.path(int(loads.node[load]))), loads.weight[load])

    def most_kw(self) -> Series:
        kinds = np.flatnonzero(self.weight > 0)
        on_the_way = self.left[list(self.path)][:, kinds] / self.weight[kinds][:, None]
        most: Series = np.maximum(on_the_way.min(axis=(0, 1)), 0.0)
        return most

    def fits(self, power: Series) -> bool:
        return bool((power <= self.most_kw() + FITS_KW).all())

    def take(self, power: Series) -> Series:
        for n in self.path:
            self.left[n] = np.maximum(self.left[n] - self.weight[:, None] * power, 0.0)
        return power


def by_rule(problem: PlanProblem, room: Series) -> tuple[Series, ...]:
    """Switchable loads are on, stores keep the near side of their band, blocks run as late as they may; each only where
    it fits."""
    loads = LoadColumns(problem)
    powers = [np.zeros(problem.slots) for _ in problem.loads]
    for i, _ in loads.switches:
        way = Room.of(loads, i, room)
        powers[i] = way.take(np.where(loads.most_kw[i] <= way.most_kw() + FITS_KW, loads.most_kw[i], 0.0))
    for i, store in loads.stores:
        way = Room.of(loads, i, room)
        powers[i] = way.take(_just_enough(loads.warmth[i], store.now_c, loads.most_kw[i], way.most_kw(), store.on_off))
    for i, _ in loads.blocks:
        runs = loads.runs[i].toarray()
        powers[i] = _first_that_fits(runs, range(runs.shape[0] - 1, -1, -1), Room.of(loads, i, room))[1]
    return tuple(powers)


def _just_enough(warmth: Warmth, now_c: float, full: Series, fits: Series, on_off: bool) -> Series:
    """As much in each slot as brings its end to the near side of the band: low for heat, high for cold."""
    out = np.zeros(full.shape)
    for t, per_kw in enumerate(warmth.per_kw):
        free = warmth.keeps[t] * now_c + warmth.drift[t]
        wanted = (warmth.low[t] if per_kw > 0 else warmth.high[t]) - free
        most = min(full[t], fits[t])
        if on_off:
            most = full[t] if full[t] <= fits[t] + FITS_KW else 0.0
            out[t] = most if wanted / per_kw > FITS_KW else 0.0
        else:
            out[t] = min(max(wanted / per_kw, 0.0), most)
        now_c = free + per_kw * out[t]
    return out


def _first_that_fits(runs: Series, order: Iterable[int], way: Room) -> tuple[int | None, Series]:
    for start in order:
        if way.fits(runs[start]):
            return start, way.take(runs[start])
    return None, np.zeros(way.left.shape[-1])


def rounded(loads: LoadColumns, yes: Series, power: Series, room: Series) -> Series:
    """Whole numbers for the columns z near the fractions `yes` (of a program whose columns q are `power`), for which
    everything fits: what is not yes-or-no may still rest."""
    out = np.zeros(yes.shape)
    for i, switch in loads.switches:
        way, place = Room.of(loads, i, room), loads.yes[i]
        off = _off(switch, loads.hours, yes[place] > 0.5)
        off = (off | (loads.most_kw[i] > way.most_kw() + FITS_KW)) & (loads.most_kw[i] > 0)
        way.take(np.where(off, 0.0, loads.most_kw[i]))
        out[place] = off
    for i, store in loads.stores:
        if store.on_off:
            way = Room.of(loads, i, room)
            wished = power[loads.power(i)]
            on = _in_step(loads.warmth[i], store.now_c, wished, loads.most_kw[i], way.most_kw())
            way.take(np.where(on, loads.most_kw[i], 0.0))
            out[loads.yes[i]] = on
    for i, _ in loads.blocks:
        place = loads.yes[i]
        likely = np.argsort(-yes[place], kind="stable")
        start, _ = _first_that_fits(loads.runs[i].toarray(), likely.tolist(), Room.of(loads, i, room))
        if start is not None:
            out[place.start + start] = 1.0
    return out


def _off(switch: Switchable, hours: Series, wished: np.ndarray) -> np.ndarray:
    """The wished slots one by one, as far as the rules allow."""
    rules, first = off_rules(switch, hours), len(switch.before)
    matrix = np.zeros((len(rules), first + hours.shape[0]))
    for row, rule in enumerate(rules):
        matrix[row, first + rule.slots] = rule.weight
    most = np.array([rule.most for rule in rules])
    off = np.concatenate([np.array(switch.before, dtype=bool), np.zeros(hours.shape, dtype=bool)])
    for slot in first + np.flatnonzero(wished):
        off[slot] = True
        touched = matrix[:, slot] > 0
        off[slot] = bool((matrix[touched] @ off <= most[touched] + FITS_KW).all())
    return off[first:]


def _in_step(warmth: Warmth, now_c: float, power: Series, full: Series, fits: Series) -> np.ndarray:
    """On in a slot when more than half of it is owed, as far as the band allows, and where the band asks for it."""
    on = np.zeros(power.shape, dtype=bool)
    owed = 0.0
    for t, kw in enumerate(power):
        owed += kw
        free, per_kw = warmth.keeps[t] * now_c + warmth.drift[t], warmth.per_kw[t]
        near, far = (warmth.low[t], warmth.high[t]) if per_kw > 0 else (warmth.high[t], warmth.low[t])
        must = (near - free) / per_kw > FITS_KW
        may = (far - free) / per_kw >= full[t] - FITS_KW
        on[t] = (must or (may and owed > full[t] / 2)) and full[t] <= fits[t] + FITS_KW
        owed -= full[t] * on[t]
        now_c = free + per_kw * full[t] * on[t]
    return on

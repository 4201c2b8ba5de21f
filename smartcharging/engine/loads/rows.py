"""What must hold for loads, as rows of the plan's program. Each constraint is one function (`program.py`).

Pure. The columns are told of in `columns.py`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from smartcharging.engine.loads.kinds import Switchable, off_rules
from smartcharging.engine.plan.problem import Series
from smartcharging.engine.plan.rooms import Integers
from smartcharging.engine.plan.rows import Rows, stack

if TYPE_CHECKING:
    from smartcharging.engine.plan.program import Program

Part = tuple[Integers, Integers, Series | float]


def block_runs(program: Program) -> Rows | None:
    """A block starts once, or is said not to run."""
    loads = program.loads
    if not loads.blocks:
        return None
    parts: list[Part] = []
    for number, (i, _) in enumerate(loads.blocks):
        yes = program.at("z", _range(loads.yes[i]))
        parts += [
            (np.full(yes.shape, number), yes, 1.0),
            (np.array([number]), program.at("n", np.array([number])), 1.0),
        ]
    count = len(loads.blocks)
    return Rows("block", *stack(*parts), np.ones(count), np.zeros(count, dtype=np.int64), equal=True)


def block_power(program: Program) -> Rows | None:
    """A block takes the power of the run that was started."""
    loads, parts = program.loads, list[Part]()
    for number, (i, _) in enumerate(loads.blocks):
        runs = loads.runs[i].tocoo()
        row = number * program.slots + runs.col.astype(np.int64)
        parts.append((row, program.at("z", loads.yes[i].start + runs.row.astype(np.int64)), -runs.data))
        parts.append((number * program.slots + program.t, program.at("q", loads.power(i)), 1.0))
    return _equal("block power", program, parts, np.zeros(len(loads.blocks) * program.slots))


def store_warmth(program: Program) -> Rows | None:
    """A store's temperature follows from the slot before, its power, its losses and what is drawn."""
    loads, parts, rhs = program.loads, list[Part](), list[Series]()
    for number, (i, store) in enumerate(loads.stores):
        warmth, row = loads.warmth[i], number * program.slots + program.t
        at = program.at("h", loads.store_columns(number))
        parts += [
            (row, at, 1.0),
            (row[1:], at[:-1], -warmth.keeps[1:]),
            (row, program.at("q", loads.power(i)), -warmth.per_kw),
        ]
        first = np.zeros(program.slots)
        first[:1] = warmth.keeps[:1] * store.now_c
        rhs.append(warmth.drift + first)
    return _equal("warmth", program, parts, np.concatenate(rhs) if rhs else np.zeros(0))


def on_or_off(program: Program) -> Rows | None:
    """What can only be on or off takes all of its power or none: a heater that is on, a switchable that is not off."""
    loads, parts, rhs = program.loads, list[Part](), list[Series]()
    switched = [i for i in loads.yes if i not in loads.starts]
    for number, i in enumerate(switched):
        off = isinstance(program.problem.loads[i], Switchable)
        row = number * program.slots + program.t
        parts += [
            (row, program.at("q", loads.power(i)), 1.0),
            (row, program.at("z", _range(loads.yes[i])), loads.most_kw[i] if off else -loads.most_kw[i]),
        ]
        rhs.append(loads.most_kw[i] if off else np.zeros(program.slots))
    return _equal("switch", program, parts, np.concatenate(rhs) if rhs else np.zeros(0))


def comfort_band(program: Program) -> Rows | None:
    """Outside its band a store is colder or warmter than promised by what is counted."""
    loads, parts, rhs = program.loads, list[Part](), list[Series]()
    for number, (i, _) in enumerate(loads.stores):
        columns, warmth = loads.store_columns(number), loads.warmth[i]
        row = 2 * number * program.slots + program.t
        at = program.at("h", columns)
        parts += [
            (row, at, -1.0),
            (row, program.at("k", columns), -1.0),
            (row + program.slots, at, 1.0),
            (row + program.slots, program.at("k", loads.above + columns), -1.0),
        ]
        rhs += [-warmth.low, warmth.high]
    if not parts:
        return None
    bound = np.concatenate(rhs)
    known = np.isfinite(bound)  # the horizon's end and a store without a maximum ask nothing
    number_of = np.cumsum(known) - 1
    row, column, value = stack(*parts)
    kept = known[row]
    slot = np.tile(program.t, 2 * len(loads.stores))[known]
    return Rows("comfort", number_of[row[kept]], column[kept], value[kept], bound[known], slot, soft=True)


def switch_rules(program: Program) -> Rows | None:
    """A switchable load is not off for too long, not again too soon, not too much of a day; what breaks that counts."""
    loads, parts = program.loads, list[Part]()
    rhs: list[float] = []
    slot: list[int] = []
    for number, (i, switch) in enumerate(loads.switches):
        was_off = np.array(switch.before, dtype=np.float64)
        for rule in off_rules(switch, loads.hours):
            past, row = rule.slots < 0, len(rhs)
            known = float(rule.weight[past] @ was_off[rule.slots[past]])
            coming = loads.yes[i].start + rule.slots[~past]
            against = np.array([number * program.slots + rule.at], dtype=np.int64)
            parts.append((np.full(coming.shape, row), program.at("z", coming), rule.weight[~past]))
            parts.append((np.array([row]), program.at("v", against), -rule.unit))
            rhs.append(max(rule.most - known, 0.0))
            slot.append(rule.at)
    return Rows("switch rules", *stack(*parts), np.array(rhs), np.array(slot), soft=True) if rhs else None


def through_circuits(program: Program, level: Integers, kind: int, number: Integers) -> Part:
    """The loads' part in the rows of circuits: `level` gives each circuit's ancestor, `number` the row of circuit, kind
    and slot."""
    loads = program.loads
    above = level[loads.node]
    rows = np.where(above[:, None] >= 0, number[above, kind], -1)
    weight = np.broadcast_to(loads.weight[:, kind, None], rows.shape)
    load, slot = np.nonzero((rows >= 0) & (weight > 0) & (loads.most_kw > 0))
    return rows[load, slot], program.at("q", load * program.slots + slot), weight[load, slot]


def _range(place: slice) -> Integers:
    return np.arange(place.start, place.stop, dtype=np.int64)


def _equal(name: str, program: Program, parts: list[Part], rhs: Series) -> Rows | None:
    if not parts:
        return None
    return Rows(name, *stack(*parts), rhs, np.arange(rhs.shape[0], dtype=np.int64) % program.slots, equal=True)

"""What comes in as a measurement and is no number is not known, and what is not known is never taken for nothing.

Pure. A comparison with something that is no number is never true, so a limit asked that way holds nobody. A meter that
tells such currents counts as silent (`residual.readings_of`, `feeding.net_w`), and what a station tells as not told
(`columns.columns`); here it is seen to for everything else that is measured.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

from smartcharging.engine.grid import Grid, Phases
from smartcharging.engine.snapshot import BatteryState, Snapshot


def only_numbers(snapshot: Snapshot) -> Snapshot:
    """The same snapshot, in which everything measured is a number or not known.

    A circuit without a meter whose own load is no number has its commissioned worst load; without one it is like a
    circuit whose meter is silent. Sun that is no number helps nobody; what it may feed back is another matter
    (`unknown_sun`).
    """
    background, pv = _numbers(snapshot.background_a), _numbers(snapshot.pv_a)
    batteries = tuple(b if _is_known(b) else _with_numbers(b) for b in snapshot.batteries)
    circuits = snapshot.grid.circuits
    silent = {n for n in snapshot.background_a if n not in background and circuits[n].worst_a is None}
    return replace(
        snapshot,
        grid=_with_silent(snapshot.grid, silent) if silent else snapshot.grid,
        batteries=batteries,
        background_a=background,
        pv_a=pv,
        pv_w=_number(snapshot.pv_w),
    )


def unknown_sun(snapshot: Snapshot) -> set[int]:
    """The circuits at which the sun may be feeding in, and it is not known how much."""
    if snapshot.pv_a:
        return {n for n, amps in snapshot.pv_a.items() if not all(math.isfinite(a) for a in amps)}
    return {0} if snapshot.pv_w is not None and not math.isfinite(snapshot.pv_w) else set()


def _number(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _numbers(amps_at: Mapping[int, Phases]) -> Mapping[int, Phases]:
    """The places of which all phases are numbers."""
    return {n: amps for n, amps in amps_at.items() if all(math.isfinite(a) for a in amps)}


def _is_known(battery: BatteryState) -> bool:
    """In all its numbers: their sum is one only if each of them is."""
    told = (battery.power_w or 0.0) + (battery.planned_w or 0.0) + (battery.soc or 0.0)
    return math.isfinite(told + battery.min_soc + battery.max_soc + battery.max_charge_w + battery.max_discharge_w)


def _with_numbers(battery: BatteryState) -> BatteryState:
    """Without a number for how far it may be filled and emptied it rests, as one whose charge is not known; and it can
    only do what is a number."""
    bounds = math.isfinite(battery.min_soc + battery.max_soc)
    planned = battery.planned_w
    return replace(
        battery,
        power_w=_number(battery.power_w),
        planned_w=0.0 if planned is not None and not math.isfinite(planned) else planned,
        soc=_number(battery.soc) if bounds else None,
        max_charge_w=_number(battery.max_charge_w) or 0.0,
        max_discharge_w=_number(battery.max_discharge_w) or 0.0,
    )


def _with_silent(grid: Grid, nodes: set[int]) -> Grid:
    return Grid(tuple(replace(c, metered=c.metered or n in nodes) for n, c in enumerate(grid.circuits)), grid.supply)

"""The plan by rule: charge as soon as possible within the limits, the higher class first.

Pure. What holds when the optimiser has no answer: the numbers were not numbers, the time was up. Every physical bound
holds here too; the battery rests.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from smartcharging.engine.grid import balanced_kw_per_a
from smartcharging.engine.loads import rule as load_rule
from smartcharging.engine.plan import rooms
from smartcharging.engine.plan.problem import PlanProblem, PlanSession, Series
from smartcharging.engine.plan.rooms import Rooms, export_limit_kw
from smartcharging.engine.plan.stations import Stations
from smartcharging.engine.snapshot import Mode


def by_rule(problem: PlanProblem) -> tuple[tuple[Series, ...], tuple[Series, ...]]:
    """kW per slot for each session and for each load, in the order of the problem. Loads come first."""
    room = sure_room(problem)
    loads = load_rule.by_rule(problem, room)
    surplus = np.maximum(-(problem.building_w + problem.pv_w) / 1000 - sum(loads), 0.0)
    stations = Stations.of(problem)
    inlet = stations.most_kw[:, None, None] * np.ones((rooms.KINDS, problem.slots))
    weight = rooms.weights(problem)
    powers = [np.zeros(problem.slots) for _ in problem.sessions]
    for i in sorted(range(len(problem.sessions)), key=lambda i: _turn(problem.sessions[i])):
        session = problem.sessions[i]
        path = list(problem.grid.path(session.node))
        most = np.full(problem.slots, session.max_w / 1000)
        station = stations.of_session[i]
        for kind in np.flatnonzero(weight[i] > 0):
            most = np.minimum(most, room[path, kind].min(axis=0) / weight[i, kind])
            if station >= 0:
                most = np.minimum(most, inlet[station, kind] / weight[i, kind])
        if session.mode is Mode.SURPLUS:
            most = np.minimum(most, surplus)
        most[: session.first_slot] = 0.0
        most[session.last_slot :] = 0.0
        power = _as_soon_as_possible(most, session.energy_wh / 1000 / session.efficiency, problem.hours)
        powers[i] = power
        for n in path:
            room[n] = np.maximum(room[n] - weight[i][:, None] * power, 0.0)
        if station >= 0:
            inlet[station] = np.maximum(inlet[station] - weight[i][:, None] * power, 0.0)
        surplus = np.maximum(surplus - power, 0.0)
    return tuple(powers), loads


def sure_room(problem: PlanProblem) -> Series:
    """What every circuit has left in each slot, whatever the sun's inverter may have to hold back."""
    return np.maximum(Rooms.of(_with_sure_sun(problem)).room, 0.0)


def _with_sure_sun(problem: PlanProblem) -> PlanProblem:
    """Only PV that runs in any case may carry cars over a fuse: none that would be held back for want of a taker."""
    taken = problem.building_w + np.where(problem.export_eur_per_kwh < 0, 0.0, export_limit_kw(problem) * 1000)
    return replace(problem, pv_w=np.maximum(problem.pv_w, -np.maximum(taken, 0.0)))


def _turn(session: PlanSession) -> tuple[bool, int, bool, int]:
    """Surplus cars last; then class, hurry, departure."""
    return (session.mode is Mode.SURPLUS, -session.priority, session.mode is not Mode.FAST, session.last_slot)


def _as_soon_as_possible(most: Series, wanted_kwh: float, hours: Series) -> Series:
    """Full power until the energy is reached, the last slot only as far as needed."""
    given = most * hours
    left: Series = np.clip(wanted_kwh - (np.cumsum(given) - given), 0.0, None) / hours
    return np.minimum(most, left)


def with_known_numbers(problem: PlanProblem) -> PlanProblem:
    """The same problem with every number a number: gaps take the worst that is known of their series."""
    slots = problem.slots
    return replace(
        with_known_load(problem),
        import_eur_per_kwh=_filled(problem.import_eur_per_kwh, slots, np.max, 0.0),
        export_eur_per_kwh=_filled(problem.export_eur_per_kwh, slots, np.min, 0.0),
        import_limit_w=known_limit(problem.import_limit_w, slots),
        export_limit_w=known_limit(problem.export_limit_w, slots),
        month_peak_w=problem.month_peak_w if np.isfinite(problem.month_peak_w) else 0.0,
        charges=tuple(c for c in problem.charges if np.isfinite(c.free_w) and np.isfinite(c.eur_per_kw)),
        maximum_tariff=None,
        peak_eur_per_kw=problem.peak_eur_per_kw if np.isfinite(problem.peak_eur_per_kw) else 0.0,
    )


def with_known_load(problem: PlanProblem) -> PlanProblem:
    """Building, PV and circuits without gaps: unknown load is the most that is known of it, unknown PV the least.

    A building of which nothing at all is known leaves the cars the commissioned fallback of the connection.
    """
    slots = problem.slots
    root = problem.grid.circuits[0]
    building = 0.0
    if root.fallback_a is not None:
        fallback_kw = (min(root.limit_a) - root.margin_a - root.fallback_a) * balanced_kw_per_a(problem.grid.supply)
        building = max(0.0, fallback_kw * 1000)
    return replace(
        problem,
        building_w=_filled(problem.building_w, slots, np.max, building),
        pv_w=np.minimum(_filled(problem.pv_w, slots, np.max, 0.0), 0.0),
        node_background_w={n: _filled(series, slots, np.max, 0.0) for n, series in problem.node_background_w.items()},
    )


def known_limit(series: Series | None, slots: int) -> Series | None:
    """A limit without gaps: the tightest that is known of it."""
    if series is None or not np.isfinite(series).any():
        return None  # what nobody knows, the tree and the live layer hold
    return _filled(series, slots, np.min, 0.0)


def _filled(series: Series, slots: int, worst: Callable[..., Any], unknown: float) -> Series:
    values = np.full(slots, np.nan)
    given = np.asarray(series, dtype=np.float64).ravel()[:slots]
    values[: given.shape[0]] = given
    sound = values[np.isfinite(values)]
    fill = float(worst(sound)) if sound.size else unknown
    return np.where(np.isfinite(values), values, fill)

"""What the live layer asks to be told again in the next cycle: how hungry each car has shown to be, who is squeezed,
how high the load that is not ours stood a moment ago, and what batteries were told.

Pure. The allocator is stateless: `Allocation.carried` comes out, whoever calls keeps it, and it goes in again as
`Snapshot.carried`. When it is lost nothing is unsafe: nothing is then known of any car, so nobody lends, nobody is
excused, other load is taken at its worst, and batteries start from what they are measured to do.

*Share of an offer.* Most cars take a few percent less than they may, a tapering one much less (`takes`).

*Appetite.* A car that was given more than it takes, and has had time to take it, has shown the most it takes
(`draws_a`). It holds until the car is seen to take more. A limit is lent, not shared: what a car leaves unused reaches
others only after its own limit has been lowered to what it uses and a little (`Rules.lend_a`); by that little it
shows, as soon as it wants more, that it does.

*Other load* is what the meter shows less what our cars take, and between two reports of a car that is a span: it may
have risen to its limit, or not yet. What was known before is believed as long as it lies in that span. A fall is
believed slowly, so that a car that stops for a moment gives nobody room that is gone in the next second.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from smartcharging.engine.live.tree import known_or
from smartcharging.engine.rules import Rules

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]
Told = tuple[tuple[float, float], ...]
"""Set-points in W, each with the moment since when it holds, the last one last."""

ARRIVED, DRAWS, ABOVE_SINCE, DREW, SEEN, LEFT, DELIVERED, SQUEEZED, SWITCHES, WAS_ON, TAKES = range(11)
WIDTH = 11
_NEWCOMER = (math.nan, math.nan, math.nan, math.nan, math.nan, 0.0, 0.0, math.nan, 0.0, 0.0, math.nan)
_UNKNOWN = (math.nan, math.nan, math.nan, math.nan, math.nan, 0.0, math.nan, math.nan, 0.0, math.nan, math.nan)


def _empty() -> Floats:
    return np.zeros((0, WIDTH))


@dataclass(frozen=True, eq=False)
class Carried:
    """`cars` has a row per key; `other_a` one per circuit name: L1, L2, L3, sum, and further columns if there are.
    `falls_to_a` is what these fall to; `battery_w` are the set-points of the last seconds.

    Moments are seconds of the epoch; NaN is unknown.
    """

    at: float
    keys: tuple[str, ...] = ()
    cars: Floats = field(default_factory=_empty)
    circuits: tuple[str, ...] = ()
    other_a: Floats = field(default_factory=_empty)
    battery_w: Mapping[str, Told] = field(default_factory=dict)
    falls_to_a: Floats = field(default_factory=_empty)

    def to_json(self) -> str:
        body = {
            "at": self.at,
            "keys": self.keys,
            "cars": np.round(self.cars, 3).tolist(),
            "circuits": self.circuits,
            "other_a": np.round(self.other_a, 3).tolist(),
            "battery_w": self.battery_w,
            "falls_to_a": np.round(self.falls_to_a, 3).tolist(),
        }
        return json.dumps(body)

    @classmethod
    def from_json(cls, text: str) -> Carried:
        """Raises `ValueError` for what is not ours, or from a version that carried something else."""
        body: dict[str, Any] = json.loads(text)
        try:
            keys, circuits = tuple(map(str, body["keys"])), tuple(map(str, body["circuits"]))
            cars = np.array(body["cars"], dtype=float).reshape(len(keys), WIDTH)
            other = np.array(body["other_a"], dtype=float).reshape(len(circuits), -1)
            told = {str(key): _told(of_one) for key, of_one in body["battery_w"].items()}
            falls_to = np.array(body["falls_to_a"], dtype=float).reshape(len(circuits), -1)
            return cls(float(body["at"]), keys, cars, circuits, other, told, falls_to)
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"not what the live layer carries: {error}") from error


def _told(of_one: list[tuple[float, float]]) -> Told:
    return tuple((float(since), float(power_w)) for since, power_w in of_one)


def rows_of(carried: Carried | None, keys: tuple[str, ...], arrived: Floats) -> Floats:
    """A row for each key. Who came since is a newcomer; without anything carried nothing is known of anybody."""
    if carried is None:
        rows = np.tile(_UNKNOWN, (len(keys), 1))
    elif carried.keys == keys:
        rows = carried.cars.copy()
    else:
        rows = np.vstack((carried.cars, _NEWCOMER))[_places(carried, keys)]
    with np.errstate(invalid="ignore"):
        same = np.abs(rows[:, ARRIVED] - arrived) < 0.5
    other_car = ~(same | (np.isnan(rows[:, ARRIVED]) & np.isnan(arrived)))
    if carried is not None and other_car.any():
        rows[other_car] = _NEWCOMER
    rows[:, ARRIVED] = arrived
    return rows


def _places(carried: Carried, keys: tuple[str, ...]) -> list[int]:
    """The row of each key; -1 for one that is not there."""
    place = {key: i for i, key in enumerate(carried.keys)}
    return [place.get(key, -1) for key in keys]


def takes_of_all(carried: Carried, keys: tuple[str, ...]) -> Floats:
    """The share of its offer each EVSE's car uses; NaN: it has not shown it."""
    takes = carried.cars[:, TAKES]
    return takes if carried.keys == keys else np.append(takes, math.nan)[_places(carried, keys)]


def takes_of(carried: Carried | None, key: str) -> float | None:
    """The share of its offer an EVSE's car uses; None: it has not shown it."""
    if carried is None or key not in carried.keys:
        return None
    takes = float(carried.cars[carried.keys.index(key), TAKES])
    return None if math.isnan(takes) else takes


def observe(
    rows: Floats,
    current_a: Floats,
    at: Floats,
    offered_a: Floats,
    before_a: Floats,
    since: Floats,
    now: float,
    doubt: Floats,
    rules: Rules,
) -> Floats:
    """Learn from each car's newest measurement (`current_a`, its highest phase, at the moment `at`; NaN: none).

    `offered_a` holds since `since`, `before_a` held before; `doubt` is the share of a measurement that is uncertain.
    """
    rows, drew, seen, draws = rows.copy(), rows[:, DREW], rows[:, SEEN], rows[:, DRAWS]
    since = np.fmax(known_or(since, -np.inf), rows[:, ARRIVED])  # a limit before that was another's
    never = np.isnan(seen)
    # Since when the limit has been higher than what it was last seen to take. Of who was not seen yet: as it stands.
    above_since = rows[:, ABOVE_SINCE]
    begins = np.isnan(above_since) | never
    above = offered_a * (1 - doubt) - rules.lend_a > known_or(drew, 0.0)
    above_since = np.where(above, np.where(begins, np.fmax(since, seen), above_since), np.nan)

    news = ~np.isnan(current_a) & ~(at <= seen + 0.01)
    # A measurement from before the last change, or from a moment after it, says how the car stood to both limits.
    limit = np.where(at < since + rules.react_s, np.fmin(offered_a, before_a), offered_a)
    limit = np.where(at < since, before_a, limit)
    slack = news & (current_a < limit * (1 - doubt) - rules.lend_a)
    climbs = news & ~never & (current_a > drew + rules.wake_a)
    had_s = known_or(at - above_since, 0.0)
    shown = slack & ~climbs & (had_s >= rules.settle_s)
    more = news & (current_a > draws * (1 + doubt) + rules.wake_a)
    rows[:, DRAWS] = np.where(shown, np.fmax(current_a, drew), np.where(more, np.nan, draws))
    rows[:, LEFT] = np.where(news, slack & (climbs | (had_s >= rules.react_s)), rows[:, LEFT])
    above_since = np.where(climbs, at, above_since)
    rows[:, ABOVE_SINCE] = np.where(news & ~slack, np.nan, above_since)
    rows[:, DREW], rows[:, SEEN] = np.where(news, current_a, drew), np.where(news, at, seen)
    # What share of a limit it had long enough to follow it uses.
    steady = news & (offered_a > 0) & (at >= since + rules.settle_s)
    part = np.minimum(np.maximum(current_a, 0.0) / np.where(steady, offered_a, 1.0), 1.0)
    rows[:, TAKES] = np.where(steady, part, rows[:, TAKES])

    # What reports no current is taken to charge when it had a minute for it.
    silent = np.isnan(current_a) & (offered_a > 0) & (now - since >= rules.unsure_s)
    delivers = (news & (current_a >= rules.wake_a)) | silent
    rows[:, DELIVERED] = np.where(delivers, 1.0, rows[:, DELIVERED])
    return rows


def last_other_load(carried: Carried | None, circuits: tuple[str, ...], columns: int) -> Floats | None:
    """The load that is not ours as it was last believed, NaN for circuits it was not known of; None: of none."""
    return None if carried is None else _of_circuits(carried, carried.other_a, circuits, columns)


def _of_circuits(carried: Carried, table: Floats, circuits: tuple[str, ...], columns: int) -> Floats | None:
    """Its rows for these circuits."""
    if table.shape[1] != columns:
        return None
    if carried.circuits == circuits:
        return table
    place = {name: i for i, name in enumerate(carried.circuits)}
    padded = np.vstack((table, np.full(columns, np.nan)))
    found: Floats = padded[[place.get(name, -1) for name in circuits]]
    return found


def other_load(
    carried: Carried | None, circuits: tuple[str, ...], least_a: Floats, most_a: Floats, now: float, rules: Rules
) -> tuple[Floats, Floats] | None:
    """The load that is not ours at each circuit, which lies between `least_a` and `most_a`, and what it is falling to;
    None: nothing is known.

    What it was is believed as long as nothing contradicts it. It is up at once when it must have risen, and comes
    down slowly when it must have fallen: to where it fell, although a car that rises meanwhile hides it again.
    """
    before = last_other_load(carried, circuits, least_a.shape[1])
    if carried is None or before is None:
        return None
    aimed = _of_circuits(carried, carried.falls_to_a, circuits, least_a.shape[1])
    falls_to = most_a if aimed is None else np.fmin(most_a, np.maximum(aimed, least_a))  # the most where it is unknown
    before = np.where(np.isnan(before), most_a, before)
    left = math.exp(-max(now - carried.at, 0.0) / rules.calm_s)
    found: Floats = np.maximum(np.where(before > falls_to, falls_to + (before - falls_to) * left, before), least_a)
    return found, falls_to

"""The facts of many sessions as columns: each in its own, in the order that was asked for."""

from __future__ import annotations

import numpy as np
import pytest

from smartcharging.engine.live.columns import columns, read
from smartcharging.engine.live.roll import Roll
from smartcharging.engine.snapshot import Mode, Session
from tests import worlds
from tests.worlds import L1, NOON, THREE, ago, ahead

FULL = Session(
    "full",
    4,
    (True, False, True),
    32.0,
    min_a=7.0,
    dc=True,
    max_w=11_000.0,
    step_a=0.5,
    offered_a=16.0,
    offered_since=ago(seconds=1),
    lease_until=ago(seconds=2),
    fail_safe_a=6.5,
    measured_a=(1.5, 2.5, 3.5),
    measured_at=ago(seconds=3),
    priority=3,
    mode=Mode.FAST,
    arrived_at=ago(seconds=4),
    departure=ahead(seconds=5),
    energy_needed_wh=9_000.0,
    planned_w=3_000.0,
    on_since=ago(seconds=6),
    off_since=ago(seconds=7),
    offered_before_a=10.0,
    isolated_a=20.0,
    reachable=False,
)
EMPTY = Session("empty", 2, THREE, 16.0, mode=Mode.SURPLUS, lease_until=ahead(seconds=9))


def test_every_fact_is_in_its_own_column():
    read_as = {
        "max_a": [16.0, 32.0],
        "min_a": [6.0, 7.0],
        "max_w": [None, 11_000.0],
        "step_a": [0.1, 0.5],
        "offered_a": [None, 16.0],
        "offered_before_a": [None, 10.0],
        "fail_safe_a": [6.0, 6.5],
        "isolated_a": [None, 20.0],
        "priority": [1.0, 3.0],
        "energy_needed_wh": [None, 9_000.0],
        "planned_w": [None, 3_000.0],
        "offered_since_s": [None, 1.0],
        "lease_ended_s": [None, 2.0],
        "measured_since_s": [None, 3.0],
        "here_s": [None, 4.0],
        "departed_s": [None, -5.0],
        "on_since_s": [None, 6.0],
        "off_since_s": [None, 7.0],
        "measured_a": [[None, None, None], [1.5, 2.5, 3.5]],
        "phases": [[True, True, True], [True, False, True]],
        "dc": [False, True],
        "wants": [True, True],
        "reachable": [True, False],
        "fast": [False, True],
        "surplus": [True, False],
        "node": [2, 4],
    }

    found = columns(read((FULL, EMPTY), NOON), np.array([1, 0]))

    assert vars(found).keys() == read_as.keys()
    for name, column in vars(found).items():
        expected = np.array(read_as[name], dtype=column.dtype)  # None becomes NaN
        assert np.array_equal(column, expected, equal_nan=column.dtype == float), name


def test_the_roll_is_called_by_leaf_and_then_by_key():
    """EVSEs that share a station's maximum hang on a node of their own, behind all circuits."""
    b, a = Session("b", 1, THREE, 16.0), Session("a", 1, L1, 16.0)
    c, d = (Session(key, 0, THREE, 32.0, group=7, group_max_a=most) for key, most in (("c", 40.0), ("d", 32.0)))
    world = worlds.two_rows()

    roll = Roll.of(world.but(sessions=(b, d, a, c)))

    assert roll.keys == ("a", "b", "c", "d")
    assert roll.tree.at.tolist() == [1, 1, len(world.grid), len(world.grid)]
    assert roll.shared_a.tolist() == [32.0]
    assert roll.facts.phases.tolist()[0] == [True, False, False]


def test_a_session_at_a_node_that_is_not_there_is_refused_by_name():
    with pytest.raises(IndexError, match="'lost': there is no node 99"):
        Roll.of(worlds.two_rows().but(sessions=(Session("lost", 99, THREE, 16.0),)))

"""Both tables of states, row by row, and the way back."""

from __future__ import annotations

from typing import Any

import pytest

from csms.iec61851 import IecState, derive, occupancy_for, read, status_for

OCPP16 = [
    ("Available", {}, "A1"),
    ("Reserved", {}, "A1"),
    ("Preparing", {"vehicle_seen": False}, "A1"),
    ("Preparing", {"vehicle_seen": False, "has_transaction": True}, "B1"),
    ("Preparing", {"vehicle_seen": True}, "B1"),
    ("Preparing", {}, "B1"),
    ("Charging", {"has_transaction": True}, "C2"),
    ("Charging", {"has_transaction": True, "offered_a": 0.0}, "C2"),
    ("SuspendedEV", {"has_transaction": True}, "B2"),
    ("SuspendedEV", {"has_transaction": True, "offered_a": 16.0}, "B2"),
    ("SuspendedEV", {"has_transaction": True, "offered_a": 0.0}, "B1"),
    ("SuspendedEVSE", {"previous": IecState.C2, "suspended_since_s": 0.0}, "C1"),
    ("SuspendedEVSE", {"previous": "C1", "suspended_since_s": 5.9}, "C1"),
    ("SuspendedEVSE", {"previous": "C1", "suspended_since_s": 6.0}, "B1"),
    ("SuspendedEVSE", {"previous": "B2", "suspended_since_s": 1.0}, "B1"),
    ("SuspendedEVSE", {"previous": "C2"}, "B1"),
    ("SuspendedEVSE", {}, "B1"),
    ("Finishing", {"previous": "C2"}, "B1"),
    ("Unavailable", {}, "F"),
    ("Faulted", {}, "F"),
    ("Faulted", {"pilot_fault": True}, "E"),
    ("Unknown", {"previous": "C2"}, "C2"),
    ("Unknown", {}, ""),
    ("nonsense", {"previous": "Z9"}, ""),
]

OCPP201 = [
    ("Available", "", {}, "A1"),
    ("Available", "Charging", {}, "A1"),
    ("Occupied", None, {}, "B1"),
    ("Occupied", "", {"authorized": True}, "B1"),
    ("Occupied", "", {"authorized": True, "offered_a": 5.9}, "B1"),
    ("Occupied", "", {"authorized": True, "offered_a": 6.0}, "B2"),
    ("Occupied", "", {"authorized": False, "offered_a": 16.0}, "B1"),
    ("Occupied", "EVConnected", {"authorized": True, "offered_a": 16.0}, "B2"),
    ("Occupied", "EVConnected", {"offered_a": 16.0}, "B1"),
    ("Occupied", "Charging", {}, "C2"),
    ("Occupied", "SuspendedEV", {"offered_a": 16.0}, "B2"),
    ("Occupied", "SuspendedEVSE", {"previous": "C2", "suspended_since_s": 2.0}, "C1"),
    ("Occupied", "SuspendedEVSE", {"previous": "C1", "suspended_since_s": 7.0}, "B1"),
    ("Occupied", "Idle", {"authorized": True, "offered_a": 16.0}, "B1"),
    ("Reserved", "", {}, "A1"),
    ("Unavailable", "", {}, "F"),
    ("Faulted", "Charging", {}, "F"),
]


@pytest.mark.parametrize(("status", "facts", "state"), OCPP16)
def test_the_words_of_1_6_give_the_pilot_state(status: str, facts: dict[str, Any], state: str):
    assert derive(status, **facts) == state


@pytest.mark.parametrize(("status", "charging_state", "facts", "state"), OCPP201)
def test_the_words_of_2_0_1_give_the_pilot_state(
    status: str, charging_state: str | None, facts: dict[str, Any], state: str
):
    assert derive(status, charging_state, **facts) == state


BACK = [
    ("A1", {}, "Available", ("Available", "")),
    ("B1", {}, "Preparing", ("Occupied", "")),
    ("B2", {}, "Preparing", ("Occupied", "")),
    ("B1", {"has_transaction": True}, "SuspendedEVSE", ("Occupied", "SuspendedEVSE")),
    ("B1", {"finished": True}, "Finishing", ("Occupied", "Idle")),
    ("B2", {"has_transaction": True}, "SuspendedEV", ("Occupied", "SuspendedEV")),
    ("C1", {"has_transaction": True}, "SuspendedEVSE", ("Occupied", "SuspendedEVSE")),
    ("C2", {"has_transaction": True}, "Charging", ("Occupied", "Charging")),
    ("D2", {"has_transaction": True}, "Charging", ("Occupied", "Charging")),
    ("E", {}, "Faulted", ("Faulted", "")),
    ("F", {}, "Faulted", ("Faulted", "")),
    ("", {}, "Unknown", ("Unknown", "")),
]


@pytest.mark.parametrize(("state", "facts", "word_16", "words_201"), BACK)
def test_a_raw_state_has_its_word_in_both_dialects(
    state: str, facts: dict[str, Any], word_16: str, words_201: tuple[str, str]
):
    assert status_for(IecState(state), **facts) == word_16
    assert occupancy_for(IecState(state), **facts) == words_201


def test_the_normal_walk_reads_as_a_walk():
    walk = [
        derive("Available"),
        derive("Preparing"),
        derive("Charging", has_transaction=True, previous="B1"),
        derive("SuspendedEVSE", has_transaction=True, previous="C2", suspended_since_s=0),
        derive("SuspendedEVSE", has_transaction=True, previous="C1", suspended_since_s=9),
        derive("Charging", has_transaction=True, previous="B1"),
        derive("SuspendedEV", has_transaction=True, previous="C2", offered_a=16),
        derive("Finishing", previous="B2"),
        derive("Available", previous="B1"),
    ]

    assert walk == ["A1", "B1", "C2", "C1", "B1", "C2", "B2", "B1", "A1"]


@pytest.mark.parametrize(
    ("raw", "offering", "state"),
    [
        ("C2", False, "C2"),
        (" c2 ", False, "C2"),
        ("State B1", False, "B1"),
        ("B", True, "B2"),
        ("A", False, "A1"),
        ("F1", False, "F"),
        ("e", False, "E"),
        ("", False, ""),
        ("X", True, ""),
    ],
)
def test_a_raw_state_is_read_as_stations_spell_it(raw: str, offering: bool, state: str):
    assert read(raw, offering=offering) == state


def test_only_a_pilot_that_can_see_a_car_says_whether_one_is_plugged():
    assert [s.plugged for s in (IecState.A1, IecState.B1, IecState.C2, IecState.F, IecState.UNKNOWN)] == [
        False,
        True,
        True,
        None,
        None,
    ]
    assert IecState.C2.drawing and not IecState.C1.drawing

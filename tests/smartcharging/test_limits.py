"""Who may narrow, who may not widen, and what is said about it."""

from __future__ import annotations

import itertools
import math
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smartcharging.engine.limits import (
    PEAK_BURST,
    SENTENCES,
    SUM,
    Rank,
    explain,
    narrow,
    paused,
    paused_at_station,
    peak_limit_w,
    reason_of,
)
from smartcharging.engine.snapshot import Narrowing
from tests import worlds

GRID = worlds.two_rows(main_limit_a=100, row_limit_a=63).grid

narrowings = st.lists(
    st.builds(
        Narrowing,
        rank=st.sampled_from([int(r) for r in Rank]),
        reason=st.sampled_from(["", "a", "b"]),
        node=st.sampled_from([None, 0, 1, 2]),
        limit_a=st.one_of(st.none(), st.floats(-5, 200), st.just(math.nan)),
        limit_w=st.one_of(st.none(), st.floats(-5, 100_000), st.just(math.nan)),
        export_limit_w=st.one_of(st.none(), st.floats(0, 100_000)),
    ),
    max_size=6,
)


def test_the_ranks_are_in_the_order_of_the_promise():
    assert [r.name for r in sorted(Rank)] == [
        "FIRE",
        "EMERGENCY_STOP",
        "CIRCUIT",
        "GRID_OPERATOR",
        "CONTRACT",
        "PLAN",
        "WISH",
    ]


def test_the_circuits_own_limits_hold_when_nobody_asks_for_anything():
    limits = narrow(GRID)

    assert limits.phase_a(0) == (100, 100, 100)
    assert limits.phase_a(1) == (63, 63, 63)
    assert limits.reasons[1][1] == "limit:row 1:L2"


@pytest.mark.parametrize(
    ("higher", "lower", "holds"),
    [(a, b, min(x, y)) for a, b in itertools.combinations(Rank, 2) for x, y in ((10.0, 20.0), (20.0, 10.0))],
)
def test_of_any_two_the_smaller_holds_whoever_asks_for_it(higher, lower, holds):
    for x, y in ((10.0, 20.0), (20.0, 10.0)):
        limits = narrow(GRID, [Narrowing(lower, "l", node=1, limit_a=y), Narrowing(higher, "h", node=1, limit_a=x)])
        assert limits.phase_a(1) == worlds.every_phase(holds)


@pytest.mark.parametrize(("higher", "lower"), list(itertools.combinations(Rank, 2)))
def test_of_two_that_ask_for_the_same_the_higher_is_named(higher, lower):
    asked = [Narrowing(lower, "", node=1, limit_a=10.0), Narrowing(higher, "", node=1, limit_a=10.0)]

    assert narrow(GRID, asked).ranks[1, 0] == higher


@settings(max_examples=100, deadline=None)
@given(narrowings, narrowings)
def test_one_more_narrowing_never_widens(some, more):
    before, after = narrow(GRID, some), narrow(GRID, some + more)

    assert (after.table <= before.table).all()
    assert (after.export_w <= before.export_w).all()
    assert (after.table >= 0).all()


@settings(max_examples=50, deadline=None)
@given(narrowings, st.randoms(use_true_random=False))
def test_the_order_of_asking_does_not_matter_for_what_holds(some, chance):
    shuffled = list(some)
    chance.shuffle(shuffled)

    assert (narrow(GRID, some).table == narrow(GRID, shuffled).table).all()


def test_a_limit_in_watts_is_one_about_all_phases_together():
    limits = narrow(GRID, [Narrowing(Rank.GRID_OPERATOR, "x", limit_w=6900.0)])

    assert limits.table[0, SUM] == 30
    assert limits.phase_a(0) == (10, 10, 10)
    assert limits.reasons[0][SUM] == "grid operator: x"


def test_a_limit_that_is_no_number_allows_nothing():
    assert narrow(GRID, [Narrowing(Rank.WISH, "", node=2, limit_a=math.nan)]).phase_a(2) == (0, 0, 0)


def test_an_evse_has_limits_of_its_own():
    asked = [
        Narrowing(Rank.WISH, "hand", session="7", limit_a=10.0),
        Narrowing(Rank.FIRE, "", session="7", limit_a=0.0),
    ]

    by_amps, by_watts = narrow(GRID, asked).sessions["7"]

    assert (by_amps.value, by_amps.reason) == (0, "fire")
    assert by_watts.value == math.inf


def test_export_limits_are_narrowed_too():
    assert narrow(GRID, [Narrowing(Rank.GRID_OPERATOR, "", export_limit_w=0.0)]).export_w[0] == 0


@pytest.mark.parametrize(
    ("minute", "second", "imported_wh", "watts"),
    [
        (0, 0, 0.0, 10_000),
        (7, 30, 1250.0, 10_000),  # on course
        (7, 30, 1875.0, 5_000),  # ahead of it
        (7, 30, 1000.0, 12_000),  # behind it: may be made up for
        (7, 30, 0.0, 15_000),  # … within reason
        (22, 30, 1250.0, 10_000),
        (14, 50, 2500.0, 0),
        (14, 59, 2500.0, 9_000),  # nothing can be made good any more
        (10, 0, 3000.0, 0),  # lost
    ],
)
def test_the_quarters_budget_becomes_a_power(minute, second, imported_wh, watts):
    now = datetime(2026, 3, 2, 12, minute, second, tzinfo=UTC)

    assert peak_limit_w(10_000, imported_wh, now) == pytest.approx(watts)


def test_without_a_count_the_target_itself_holds():
    assert peak_limit_w(10_000, None, worlds.NOON) == 10_000


@settings(max_examples=50, deadline=None)
@given(st.floats(0, 1e6), st.floats(0, 1e6), st.integers(0, 3599))
def test_the_quarters_budget_is_never_negative_nor_a_burst(target_w, imported_wh, second):
    now = datetime(2026, 3, 2, 12, second // 60, second % 60, tzinfo=UTC)

    assert 0 <= peak_limit_w(target_w, imported_wh, now) <= target_w * PEAK_BURST


@pytest.mark.parametrize(
    ("rank", "words", "code"),
    [
        (Rank.FIRE, "", "fire"),
        (Rank.FIRE, "fire", "fire"),
        (Rank.FIRE, "zone 2", "fire: zone 2"),
        (Rank.GRID_OPERATOR, "congestion", "grid operator: congestion"),
        (Rank.CONTRACT, "peak", "peak"),
        (Rank.WISH, " by hand ", "wish: by hand"),
        (99, "odd", "limit: odd"),
    ],
)
def test_the_code_says_who_and_in_what_words(rank, words, code):
    assert reason_of(Narrowing(rank, words)) == code


@pytest.mark.parametrize(
    ("code", "sentence"),
    [
        ("limit:row 1:L2", "row 1 is at its limit on L2."),
        ("limit:a: b:L3", "a: b is at its limit on L3."),
        ("limit:grid:W", "grid is at its power limit."),
        (paused("board 2", 0), "Paused: the minimum current does not fit at board 2 on L1."),
        (paused("board 2", SUM), "Paused: the minimum current does not fit in the power limit of board 2."),
        (paused_at_station(), "Paused: the minimum current does not fit at this station."),
        ("fire", "Switched off: fire alarm. "),
        ("grid operator: 50 %", "Limited by the grid operator: 50 %"),
        ("meter stale: main", "The meter of main is silent, so a safe current holds."),
        ("plan", "Follows the plan. "),
        ("no surplus", "Waits for solar surplus."),
        ("a new code", "a new code"),
        ("", ""),
    ],
)
def test_every_code_becomes_a_sentence(code, sentence):
    message, params = explain(code)

    assert message % params == sentence


def test_every_sentence_can_be_filled_in():
    anything = {"circuit": "c", "phase": "L1", "words": "w"}
    assert all(sentence % anything for sentence in SENTENCES.values())


def test_paused_reads_as_promised():
    assert paused("board 2", 0) == "paused: minimum current does not fit at board 2 L1"

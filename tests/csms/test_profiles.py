"""Which profile counts, when its time ends, and what stations must never do: give more than any ingredient."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from csms.profiles import (
    ChargingProfile,
    Kind,
    Limit,
    Period,
    ProfileNotValid,
    Purpose,
    Recurrence,
    Schedule,
    Span,
    Supply,
    Unit,
    amps_of,
    clear,
    composite,
    end_transaction,
    install,
    limit_at,
)

NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)


def profile(
    limit: float | list[tuple[int, float]],
    purpose: Purpose = Purpose.TX,
    *,
    id: int = 1,
    level: int = 0,
    evse: int | None = None,
    unit: Unit = Unit.A,
    kind: Kind = Kind.ABSOLUTE,
    start: datetime | None = NOON - timedelta(minutes=1),
    duration_s: int | None = None,
    phases: int | None = None,
    **more: Any,
) -> ChargingProfile:
    steps = limit if isinstance(limit, list) else [(0, limit)]
    place = {Purpose.TX: 1}.get(purpose, 0) if evse is None else evse
    schedule = Schedule(unit, tuple(Period(s, v, phases) for s, v in steps), duration_s, start)
    return ChargingProfile(id, purpose, level, kind, schedule, place, **more)


def amps(*profiles: ChargingProfile, at: datetime = NOON, **more: Any) -> float | None:
    more.setdefault("transaction_id", "T1")
    return limit_at(profiles, at, evse=1, **more).value


def test_without_any_profile_the_hardware_alone_limits():
    assert amps() is None
    assert amps(supply=Supply(max_a=32)) == 32
    assert amps(supply=Supply(max_w=11_040)) == 16


def test_a_transaction_profile_stands_in_the_place_of_the_default_even_above_it():
    assert amps(profile(6, Purpose.TX_DEFAULT, id=2), profile(20)) == 20


def test_the_station_maximum_narrows_both():
    cap = profile(10, Purpose.STATION_MAX, id=3)

    assert amps(cap, profile(16)) == 10
    assert amps(cap, profile(16, Purpose.TX_DEFAULT)) == 10
    assert amps(cap, profile(16), station_share=0.5) == 5


def test_an_external_constraint_narrows_and_cannot_be_cleared():
    from_outside = profile(8, Purpose.STATION_EXTERNAL, id=9)

    assert amps(from_outside, profile(16)) == 8
    assert clear([from_outside]) == ((from_outside,), ())


def test_the_highest_stack_level_that_has_a_say_counts():
    low, high = profile(6, id=1, level=0), profile(16, id=2, level=3, duration_s=120)

    assert amps(low, high) == 16
    assert amps(low, high, at=NOON + timedelta(seconds=61)) == 6


def test_a_default_for_this_evse_comes_before_one_for_all():
    everywhere = profile(10, Purpose.TX_DEFAULT, id=1, level=5)
    here = profile(7, Purpose.TX_DEFAULT, id=2, level=0, evse=1)

    assert amps(everywhere, here) == 7
    assert limit_at([everywhere, here], NOON, evse=2).value == 10


def test_when_the_lease_ends_the_safe_default_holds_without_any_message():
    safe = profile(6, Purpose.TX_DEFAULT, id=1)
    lease = profile(24, id=2, level=8, start=NOON, duration_s=300)

    spans = composite([safe, lease], NOON, 900, evse=1, transaction_id="T1")

    assert spans == (Span(0, 24, 3), Span(300, 6, 3))


def test_a_profile_of_another_transaction_has_no_say():
    theirs = profile(32, transaction_id="T0")

    assert amps(profile(6, Purpose.TX_DEFAULT, id=2), theirs) == 6
    assert amps(theirs, transaction_id=None) is None
    assert amps(profile(16, transaction_id="T1")) == 16


def test_a_profile_has_no_say_before_its_start_and_outside_its_validity():
    assert amps(profile(16, start=NOON + timedelta(seconds=1))) is None
    assert amps(profile(16, valid_from=NOON + timedelta(seconds=1))) is None
    assert amps(profile(16, valid_to=NOON)) is None
    assert amps(profile(16, valid_from=NOON, valid_to=NOON + timedelta(seconds=1))) == 16


def test_periods_follow_each_other():
    stairs = profile([(0, 6), (600, 16), (1200, 0)], start=NOON)

    assert [amps(stairs, at=NOON + timedelta(seconds=s)) for s in (0, 599, 600, 1199, 1200, 9999)] == [
        6,
        6,
        16,
        16,
        0,
        0,
    ]


def test_a_relative_profile_counts_from_the_start_of_charging():
    warm_up = profile([(0, 8), (60, 16)], kind=Kind.RELATIVE, start=None)

    assert amps(warm_up) is None
    assert amps(warm_up, charging_since=NOON - timedelta(seconds=30)) == 8
    assert amps(warm_up, charging_since=NOON - timedelta(seconds=90)) == 16


def test_a_daily_profile_starts_again_each_day_and_not_before_its_first():
    night = profile(
        10, Purpose.TX_DEFAULT, kind=Kind.RECURRING, recurrence=Recurrence.DAILY, start=NOON, duration_s=3600
    )

    assert amps(night, at=NOON - timedelta(days=1)) is None
    assert amps(night, at=NOON + timedelta(days=3, seconds=3599)) == 10
    assert amps(night, at=NOON + timedelta(days=3, seconds=3600)) is None


def test_a_weekly_profile_starts_again_each_week():
    sunday = profile(
        10, Purpose.TX_DEFAULT, kind=Kind.RECURRING, recurrence=Recurrence.WEEKLY, start=NOON, duration_s=86_400
    )

    assert [amps(sunday, at=NOON + timedelta(days=d)) for d in (0, 1, 6, 7, 8, 14)] == [10, None, None, 10, None, 10]


def test_a_composite_shows_every_return_of_a_daily_profile():
    daily = profile(
        10, Purpose.TX_DEFAULT, kind=Kind.RECURRING, recurrence=Recurrence.DAILY, start=NOON, duration_s=3600
    )

    spans = composite([daily], NOON, 2 * 86_400, evse=1, supply=Supply(max_a=32))

    assert [(s.start_s, s.limit) for s in spans] == [(0, 10), (3600, 32), (86_400, 10), (90_000, 32)]


CONVERSIONS = [
    # limit, unit, phases of the period, wanted unit, value
    (11_040, Unit.W, None, Unit.A, 16.0),
    (11_000, Unit.W, None, Unit.A, 15.9),
    (3_680, Unit.W, 1, Unit.A, 16.0),
    (16, Unit.A, None, Unit.W, 11_040),
    (16, Unit.A, 1, Unit.W, 3_680),
    (16, Unit.A, 2, Unit.A, 16),
    (0, Unit.W, None, Unit.A, 0),
]


@pytest.mark.parametrize(("limit", "unit", "phases", "want", "value"), CONVERSIONS)
def test_units_are_converted_with_voltage_and_phases(
    limit: float, unit: Unit, phases: int | None, want: Unit, value: float
):
    assert amps(profile(limit, unit=unit, phases=phases), unit=want) == pytest.approx(value)


def test_the_fewest_phases_count_and_no_ingredient_is_exceeded_in_watts():
    one_phase = profile(20, phases=1)
    cap = profile(6_900, Purpose.STATION_MAX, id=2, unit=Unit.W)

    assert limit_at([one_phase, cap], NOON, evse=1, transaction_id="T1") == Limit(20, Unit.A, 1)
    assert amps_of(6_900, 3) == 10


def test_the_same_id_and_the_same_place_are_replaced():
    first = profile(6, id=1, level=0)
    kept = install((), first)
    kept = install(kept, profile(10, id=1, level=4))
    assert [(p.id, p.stack_level) for p in kept] == [(1, 4)]

    kept = install(kept, profile(12, id=2, level=4))
    assert [(p.id, p.schedule.periods[0].limit) for p in kept] == [(2, 12)]

    kept = install(kept, profile(12, Purpose.TX_DEFAULT, id=3, level=4))
    kept = install(kept, profile(12, id=4, level=4, evse=2))
    assert [p.id for p in kept] == [2, 3, 4]


CLEARS = [
    ({"id": 2}, {2}),
    ({"id": 99}, set()),
    ({"id": 1, "purpose": Purpose.TX}, {1}),
    ({"purpose": Purpose.TX_DEFAULT}, {1, 2}),
    ({"evse": 0}, {1, 4}),
    ({"evse": 1}, {2, 3}),
    ({"stack_level": 5}, {3}),
    ({"purpose": Purpose.TX_DEFAULT, "evse": 1}, {2}),
    ({}, {1, 2, 3, 4}),
]


@pytest.mark.parametrize(("criteria", "gone"), CLEARS)
def test_profiles_are_cleared_by_id_or_by_filter(criteria: dict[str, Any], gone: set[int]):
    installed = (
        profile(6, Purpose.TX_DEFAULT, id=1),
        profile(8, Purpose.TX_DEFAULT, id=2, evse=1),
        profile(16, id=3, level=5),
        profile(40, Purpose.STATION_MAX, id=4),
    )

    stays, went = clear(installed, **criteria)

    assert {p.id for p in went} == gone
    assert {p.id for p in stays} == {1, 2, 3, 4} - gone


def test_a_transaction_profile_dies_with_its_transaction():
    kept = (profile(16, id=1), profile(16, id=2, evse=2), profile(6, Purpose.TX_DEFAULT, id=3))

    assert [p.id for p in end_transaction(kept, 1)] == [2, 3]


WRONG = [
    ("periods", lambda: Schedule(Unit.A, ())),
    ("periods", lambda: Schedule(Unit.A, (Period(5, 6),))),
    ("periods", lambda: Schedule(Unit.A, (Period(0, 6), Period(0, 8)))),
    ("limit", lambda: Schedule(Unit.A, (Period(0, -1),))),
    ("limit", lambda: Schedule(Unit.A, (Period(0, float("nan")),))),
    ("phases", lambda: Schedule(Unit.A, (Period(0, 6, 4),))),
    ("duration", lambda: Schedule(Unit.A, (Period(0, 6),), -1)),
    ("start", lambda: Schedule(Unit.A, (Period(0, 6),), None, datetime(2026, 1, 1))),  # noqa: DTZ001
    ("stack_level", lambda: profile(6, level=-1)),
    ("evse", lambda: profile(6, evse=0)),
    ("evse", lambda: profile(6, Purpose.STATION_MAX, evse=1)),
    ("evse", lambda: profile(6, evse=-1)),
    ("kind", lambda: profile(6, Purpose.STATION_MAX, kind=Kind.RELATIVE)),
    ("recurrence", lambda: profile(6, kind=Kind.RECURRING)),
    ("valid_to", lambda: profile(6, valid_to=datetime(2026, 1, 1))),  # noqa: DTZ001
]


@pytest.mark.parametrize(("field", "make"), WRONG)
def test_a_profile_that_contradicts_itself_names_the_field(field: str, make: Any):
    with pytest.raises(ProfileNotValid) as error:
        make()
    assert error.value.field == field


# --- what holds in every world -------------------------------------------------------------------------------------

seconds = st.integers(-7200, 7200)


@st.composite
def some_profile(draw: Any) -> ChargingProfile:
    purpose = draw(st.sampled_from(list(Purpose)))
    unit = draw(st.sampled_from(list(Unit)))
    top = 40 if unit is Unit.A else 30_000
    steps = sorted(draw(st.sets(st.integers(1, 5000), max_size=3)))
    limits = draw(st.lists(st.integers(0, top), min_size=len(steps) + 1, max_size=len(steps) + 1))
    kinds = [Kind.ABSOLUTE, Kind.RECURRING] + ([] if purpose is Purpose.STATION_MAX else [Kind.RELATIVE])
    kind = draw(st.sampled_from(kinds))
    moment = seconds.map(lambda s: NOON + timedelta(seconds=s))
    return ChargingProfile(
        id=draw(st.integers(1, 99)),
        purpose=purpose,
        stack_level=draw(st.integers(0, 4)),
        kind=kind,
        schedule=Schedule(
            unit,
            tuple(Period(s, v, draw(st.sampled_from([None, 1, 3]))) for s, v in zip([0, *steps], limits, strict=True)),
            draw(st.none() | st.integers(1, 7200)),
            draw(moment),
        ),
        evse=1 if purpose is Purpose.TX else 0 if purpose is Purpose.STATION_MAX else draw(st.sampled_from([0, 1, 2])),
        recurrence=draw(st.sampled_from(list(Recurrence))) if kind is Kind.RECURRING else None,
        valid_from=draw(st.none() | moment),
        valid_to=draw(st.none() | moment),
    )


book = st.lists(some_profile(), max_size=6).map(tuple)
WORLD: dict[str, Any] = {
    "evse": 1,
    "transaction_id": "T1",
    "charging_since": NOON - timedelta(minutes=10),
    "supply": Supply(max_a=32),
}


def span_at(spans: tuple[Span, ...], offset_s: float) -> tuple[float | None, int]:
    span = next(s for s in reversed(spans) if s.start_s <= offset_s)
    return span.limit, span.phases


@settings(max_examples=80, deadline=None)
@given(profiles=book, offset_s=st.integers(0, 7000), unit=st.sampled_from(list(Unit)))
def test_the_composite_says_at_every_instant_what_counts_then(profiles: Any, offset_s: int, unit: Unit):
    spans = composite(profiles, NOON, 7001, unit=unit, **WORLD)
    now = limit_at(profiles, NOON + timedelta(seconds=offset_s), unit=unit, **WORLD)

    assert span_at(spans, offset_s) == (now.value, now.phases)


@settings(max_examples=80, deadline=None)
@given(profiles=book, cut_s=st.integers(1, 6999), probe_s=st.integers(0, 6999))
def test_splitting_the_window_does_not_change_the_answer(profiles: Any, cut_s: int, probe_s: int):
    whole = composite(profiles, NOON, 7000, **WORLD)
    first = composite(profiles, NOON, cut_s, **WORLD)
    second = composite(profiles, NOON + timedelta(seconds=cut_s), 7000 - cut_s, **WORLD)

    part = span_at(first, probe_s) if probe_s < cut_s else span_at(second, probe_s - cut_s)
    assert part == span_at(whole, probe_s)


@settings(max_examples=80, deadline=None)
@given(profiles=book, offset_s=seconds)
def test_the_composite_never_exceeds_an_ingredient(profiles: Any, offset_s: int):
    at = NOON + timedelta(seconds=offset_s)
    total = limit_at(profiles, at, **WORLD)
    assert total.value is not None
    watts = total.value * 230 * total.phases

    says = [(p, p.period_at(at, WORLD["charging_since"])) for p in profiles if p.evse in (0, 1)]
    for purpose in Purpose:
        levels = [(p, said) for p, said in says if said is not None and p.purpose is purpose]
        if not levels or (purpose is Purpose.TX_DEFAULT and any(p.purpose is Purpose.TX and s for p, s in says)):
            continue
        top = max(levels, key=lambda pair: (pair[0].evse != 0, pair[0].stack_level, pair[0].id))
        counted = top[1]
        bound = counted.limit if top[0].schedule.unit is Unit.W else counted.limit * 230 * total.phases
        assert watts <= bound + 1e-6
        assert counted.phases is None or total.phases <= counted.phases


@settings(max_examples=80, deadline=None)
@given(profiles=book, duration_s=st.integers(1, 3000))
def test_after_its_duration_a_lease_leaves_what_was_below_it(profiles: Any, duration_s: int):
    below = tuple(p for p in profiles if p.id != 100)
    lease = profile(11, id=100, level=9, start=NOON, duration_s=duration_s)
    after = NOON + timedelta(seconds=duration_s)

    assert limit_at((*below, lease), after, **WORLD) == limit_at(below, after, **WORLD)


@settings(max_examples=50, deadline=None)
@given(profiles=book)
def test_installing_twice_is_installing_once(profiles: Any):
    once: tuple[ChargingProfile, ...] = ()
    for p in profiles:
        once = install(once, p)
    again = once
    for p in once:
        again = install(again, p)

    assert set(again) == set(once)
    places = [(p.purpose, p.stack_level, p.evse) for p in once]
    assert len(set(places)) == len(places) and len({p.id for p in once}) == len(once)

"""What the coming hours bring, told from histories that are long, short, torn or empty."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smartcharging.engine.forecast import arrivals, score
from smartcharging.engine.forecast.arrivals import Habits, Visit
from smartcharging.engine.forecast.series import Forecast, History, local_clock, seconds_of
from smartcharging.engine.forecast.similar_day import building, persistence
from smartcharging.engine.forecast.sun import clear_sky_w_per_m2, pv

BRUSSELS = ZoneInfo("Europe/Brussels")
MONDAY = datetime(2026, 2, 2, tzinfo=BRUSSELS).astimezone(UTC)
SLOT = timedelta(minutes=15)
GHENT = (51.05, 3.72)


def office(days: int, until: datetime = MONDAY, noise_w: float = 0.0, seed: int = 1) -> History:
    """1 kW at night and in weekends, 9 kW from eight to six on working days, by the local clock."""
    slots = days * 96
    start = until - slots * SLOT
    _, weekday, quarter = local_clock(start, slots, BRUSSELS)
    busy = (weekday < 5) & (quarter >= 32) & (quarter < 72)
    noise = noise_w * np.random.default_rng(seed).standard_normal(slots)
    return History(start, np.where(busy, 9000.0, 1000.0) + noise)


def roof(days: int, until: datetime, peak_w: float = 10_000.0, share: float = 0.6) -> History:
    """PV that makes a steady share of the clear sky, load-positive."""
    slots = days * 96
    start = until - slots * SLOT
    clear = clear_sky_w_per_m2(seconds_of(start, slots), *GHENT)
    return History(start, -share * peak_w * clear / 1000)


# Building


def test_a_working_day_is_like_the_working_days_before():
    forecast = building(office(28), MONDAY, 96, BRUSSELS)

    assert forecast.method == "similar day"
    assert forecast.p50_w[:32].tolist() == [1000] * 32
    assert forecast.p50_w[32:72].tolist() == [9000] * 40


def test_a_weekend_is_like_the_weekends_before():
    saturday = MONDAY + timedelta(days=5)

    forecast = building(office(28, until=saturday), saturday, 192, BRUSSELS)

    assert set(forecast.p50_w) == {1000}


def test_a_busy_morning_raises_the_hours_after_it_and_fades():
    noon = MONDAY + timedelta(hours=12)
    history = office(28, until=noon)
    history.values[-8:] += 4000

    forecast = building(history, noon, 96, BRUSSELS)

    assert forecast.p50_w[0] == pytest.approx(13_000)
    assert 9000 < forecast.p50_w[16] < 11_000
    assert forecast.p50_w[95] == pytest.approx(9000, abs=200)


def test_less_than_a_week_is_enough_for_the_same_kind_of_day():
    wednesday = MONDAY + timedelta(days=2)

    forecast = building(office(2, until=wednesday), wednesday, 96, BRUSSELS)

    assert forecast.method == "same kind of day"
    assert forecast.p50_w[40] == 9000


def test_one_day_is_enough_for_yesterday():
    forecast = building(office(1, until=MONDAY + timedelta(days=1)), MONDAY + timedelta(days=1), 96, BRUSSELS)

    assert forecast.method == "other days"
    assert forecast.p50_w[40] == 9000


def test_two_hours_are_enough_to_go_on_like_that():
    history = History(MONDAY - 8 * SLOT, np.full(8, 4000.0))

    forecast = building(history, MONDAY, 96, BRUSSELS)

    assert forecast.method == "persistence"
    assert set(forecast.p50_w) == {4000}
    assert (forecast.p90_w > 4000).all()


def test_nothing_at_all_is_the_commissioned_worst_case():
    forecast = building(History.of({}), MONDAY, 96, BRUSSELS, worst_w=30_000)

    assert forecast.method == "worst case"
    assert set(forecast.p50_w) == {30_000}
    assert set(forecast.p90_w) == {30_000}


def test_nothing_at_all_without_a_worst_case_is_not_a_number_and_no_crash():
    assert np.isnan(building(History.of({}), MONDAY, 4, BRUSSELS).p50_w).all()


def test_holes_in_the_history_are_bridged_or_left_out():
    history = office(28)
    history.values[5::7] = np.nan
    history.values[200:420] = np.nan

    forecast = building(history, MONDAY, 96, BRUSSELS)

    assert forecast.p50_w[40] == 9000
    assert np.isfinite(forecast.p50_w).all()


def test_the_future_is_never_looked_at():
    history = office(28, until=MONDAY + timedelta(days=7))
    known = building(history.before(MONDAY), MONDAY, 96, BRUSSELS)
    history.values[-7 * 96 :] = 99_999

    assert building(history, MONDAY, 96, BRUSSELS).p50_w.tolist() == known.p50_w.tolist()


def test_quantiles_cover_what_days_differ():
    history = office(56, noise_w=500)
    truth = office(7, until=MONDAY + timedelta(days=7), noise_w=500, seed=2)

    forecast = building(history, MONDAY, 7 * 96, BRUSSELS)

    inside = (truth.values >= forecast.p10_w) & (truth.values <= forecast.p90_w)
    assert 0.7 < inside.mean() < 0.95


@pytest.mark.parametrize(
    ("changes_on", "quarters"),
    [(date(2026, 3, 29), 92), (date(2026, 10, 25), 100), (date(2026, 3, 30), 96)],
)
def test_people_follow_their_clock_on_the_day_it_changes(changes_on, quarters):
    start = datetime.combine(changes_on, time(), tzinfo=BRUSSELS).astimezone(UTC)
    day = building(office(28, until=start), start, quarters + 96, BRUSSELS)

    _, weekday, quarter = local_clock(start, quarters + 96, BRUSSELS)
    busy = (weekday < 5) & (quarter >= 32) & (quarter < 72)
    assert day.p50_w.tolist() == np.where(busy, 9000.0, 1000.0).tolist()


@given(st.integers(0, 2**31 - 1), st.sampled_from(["Europe/Brussels", "Asia/Kathmandu", "Australia/Lord_Howe", "UTC"]))
@settings(max_examples=40, deadline=None)
def test_the_local_clock_is_the_clock_on_the_wall(seconds, name):
    start = datetime.fromtimestamp(seconds - seconds % 900, tz=UTC)

    day, weekday, quarter = local_clock(start, 100, ZoneInfo(name))

    for i in range(100):
        wall = (start + i * SLOT).astimezone(ZoneInfo(name))
        said = (wall.toordinal(), wall.weekday(), wall.hour * 4 + wall.minute // 15)
        assert (day[i], weekday[i], quarter[i]) == said


def test_a_history_comes_from_points_in_any_order():
    history = History.of(
        [(MONDAY + SLOT, 2.0), (MONDAY, 1.0), (MONDAY + 3 * SLOT, float("nan")), (MONDAY + 2 * SLOT, 3.0)]
    )

    assert history.start == MONDAY
    assert history.values.tolist() == [1, 2, 3]
    assert history.end == MONDAY + 3 * SLOT


def test_only_holes_of_an_hour_are_bridged():
    values = np.array([0.0, np.nan, np.nan, np.nan, np.nan, 5.0, *[np.nan] * 5, 11.0])

    bridged = History(MONDAY, values).bridged().values

    assert bridged[:6].tolist() == [0, 1, 2, 3, 4, 5]
    assert np.isnan(bridged[6:11]).all()


@given(
    st.integers(0, 10),
    st.integers(0, 200),
    st.lists(st.one_of(st.floats(0, 1e5), st.just(float("nan"))), min_size=0, max_size=300),
)
@settings(max_examples=40, deadline=None)
def test_any_history_gives_a_forecast_whose_quantiles_never_cross(lag, slots, values):
    start = MONDAY + lag * SLOT
    history = History(MONDAY - len(values) * SLOT, np.array(values, dtype=float))

    for forecast in (
        building(history, start, slots, BRUSSELS, worst_w=5000),
        persistence(history, start, slots),
        pv(History(history.start, -history.values), start, slots, GHENT, 8000),
        pv(History(history.start, -history.values), start, slots, None, None),
    ):
        assert forecast.slots == slots
        assert np.isfinite(forecast.p50_w).all()
        assert (forecast.p10_w <= forecast.p50_w).all()
        assert (forecast.p50_w <= forecast.p90_w).all()


# PV

JUNE = datetime(2026, 6, 10, tzinfo=UTC)


def test_the_sun_stands_highest_at_solar_noon_and_is_gone_at_night():
    seconds = seconds_of(JUNE, 96)

    clear = clear_sky_w_per_m2(seconds, *GHENT)

    assert 45 <= clear.argmax() <= 47  # 11:45 UTC at 3.7° east
    assert 850 < clear.max() < 950
    assert clear[0] == 0
    assert clear[94] == 0


def test_the_southern_summer_is_in_january():
    january, july = (seconds_of(datetime(2026, m, 1, tzinfo=UTC), 96) for m in (1, 7))

    assert clear_sky_w_per_m2(january, -33.9, 18.4).max() > clear_sky_w_per_m2(july, -33.9, 18.4).max()


def test_a_roof_makes_what_it_made_of_the_sun_before():
    truth = roof(1, until=JUNE + timedelta(days=1))

    forecast = pv(roof(14, until=JUNE), JUNE, 96, GHENT, 10_000)

    assert forecast.method == "clear sky"
    assert forecast.p50_w == pytest.approx(truth.values, abs=60)


def test_a_dull_morning_dims_the_hours_after_it():
    noon = JUNE + timedelta(hours=11)
    history = roof(14, until=noon)
    history.values[-8:] *= 0.5

    forecast = pv(history, noon, 24, GHENT, 10_000)
    bright = roof(1, until=noon + 24 * SLOT).window(noon, 24)

    assert forecast.p50_w[0] == pytest.approx(0.5 * bright[0], rel=0.15)
    assert abs(forecast.p50_w[16]) > 0.8 * abs(bright[16])


def test_production_is_never_above_the_peak_and_zero_at_night():
    forecast = pv(roof(14, until=JUNE, share=3.0), JUNE, 96, GHENT, 10_000)

    assert forecast.p10_w.min() == -10_000
    assert forecast.p10_w[:8].tolist() == [0] * 8
    assert (forecast.p10_w <= 0).all()


def test_a_roof_nobody_has_measured_is_guessed_from_its_nameplate():
    forecast = pv(History.of({}), JUNE, 96, GHENT, 10_000)

    assert forecast.method == "nameplate"
    assert -6000 < forecast.p50_w.min() < -2000
    assert forecast.p90_w.max() == 0
    assert set(forecast.p90_w) == {0}  # the cautious quantile counts on no sun at all


def test_a_roof_nobody_has_placed_repeats_its_days():
    forecast = pv(roof(3, until=JUNE), JUNE, 96, None, None)

    assert forecast.method == "other days"
    assert forecast.p50_w.min() < -4000


def test_the_weather_forecast_takes_the_place_of_the_clear_sky():
    clear = clear_sky_w_per_m2(seconds_of(JUNE, 96), *GHENT)

    dull = pv(roof(14, until=JUNE), JUNE, 96, GHENT, 10_000, sun_w_per_m2=0.2 * clear)
    torn = pv(roof(14, until=JUNE), JUNE, 96, GHENT, 10_000, sun_w_per_m2=np.where(clear > 500, np.nan, clear))

    assert dull.method == "weather"
    assert dull.p50_w.min() == pytest.approx(-0.2 * 0.85 * 10_000 * clear.max() / 1000, rel=0.02)
    assert torn.p50_w.min() == pytest.approx(-0.6 * 10_000 * clear.max() / 1000, rel=0.05)


def test_what_a_roof_makes_of_forecast_sun_is_learnt():
    history = roof(14, until=JUNE, share=0.4)
    past = History(history.start, clear_sky_w_per_m2(seconds_of(history.start, 14 * 96), *GHENT))
    clear = clear_sky_w_per_m2(seconds_of(JUNE, 96), *GHENT)

    forecast = pv(history, JUNE, 96, GHENT, 10_000, sun_w_per_m2=0.5 * clear, past_sun=past)

    assert forecast.p50_w.min() == pytest.approx(-0.5 * 0.4 * 10_000 * clear.max() / 1000, rel=0.02)


# Charging


def visits(days: int) -> list[Visit]:
    """Four cars each working day at nine, for four hours and 8 kWh."""
    first = MONDAY - timedelta(days=days)
    came = [first + timedelta(days=d, hours=9, minutes=5) for d in range(days)]
    return [
        Visit(at, at + timedelta(hours=4), 8000.0)
        for at in came
        if at.astimezone(BRUSSELS).weekday() < 5
        for _ in range(4)
    ]


def test_cars_that_are_still_to_come_are_expected_as_they_came_before():
    habits = Habits.of(visits(14), MONDAY - timedelta(days=14), MONDAY, BRUSSELS)

    forecast = arrivals.charging(habits, MONDAY, 96, BRUSSELS)

    assert arrivals.expected_arrivals(habits, MONDAY, 96, BRUSSELS).sum() == pytest.approx(4)
    assert forecast.p50_w.sum() / 4 == pytest.approx(4 * 8000)
    assert forecast.p50_w[:36].sum() == 0
    assert forecast.p90_w[40] > forecast.p50_w[40] > forecast.p10_w[40] >= 0


def test_nobody_comes_in_the_weekend_when_nobody_ever_did():
    habits = Habits.of(visits(14), MONDAY - timedelta(days=14), MONDAY, BRUSSELS)

    saturday = arrivals.charging(habits, MONDAY + timedelta(days=5), 96, BRUSSELS)

    assert saturday.p90_w.tolist() == [0] * 96


def test_without_a_visit_nothing_is_expected():
    forecast = arrivals.charging(Habits.of([], MONDAY, MONDAY, BRUSSELS), MONDAY, 8, BRUSSELS)

    assert forecast.method == "nothing known"
    assert forecast.p90_w.tolist() == [0] * 8


def test_visits_that_cannot_be_are_not_learnt_from():
    odd = [Visit(MONDAY, MONDAY, 1.0), Visit(MONDAY, MONDAY + SLOT, float("nan")), Visit(MONDAY - SLOT, MONDAY, 1.0)]

    assert Habits.of(odd, MONDAY, MONDAY + timedelta(days=1), BRUSSELS).visits == 0


# Scores


def test_the_rule_beats_persistence_where_weekdays_differ():
    found = score.replay(lambda h, s, n: building(h, s, n, BRUSSELS), office(56, noise_w=100), days=14)

    assert found is not None
    assert found.mae_w < 0.5 * found.mae_persistence_w
    assert found.skill > 0.5


def test_a_perfect_forecast_scores_so():
    truth = office(1).values
    perfect = Forecast.of(MONDAY, truth, truth, truth, "oracle")

    found = score.score(truth, perfect, truth + 1000)

    assert found is not None
    assert (found.mae_w, found.mae_persistence_w, found.pinball_w, found.covered, found.skill) == (0, 1000, 0, 1, 1)


def test_what_never_happened_is_not_scored():
    nothing = np.full(4, np.nan)

    assert score.score(nothing, Forecast.of(MONDAY, *[np.zeros(4)] * 3, "x"), np.zeros(4)) is None
    assert score.replay(persistence, History.of({})) is None


def test_the_better_forecaster_is_chosen_and_the_first_stays_without_a_past():
    ways = {"persistence": persistence, "similar day": lambda h, s, n: building(h, s, n, BRUSSELS)}

    chosen, scores = score.best(ways, office(42, noise_w=100))
    unproven, _ = score.best(ways, History.of({}))

    assert chosen == "similar day"
    assert set(scores) == {"persistence", "similar day"}
    assert unproven == "persistence"

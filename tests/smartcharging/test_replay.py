"""Replayed days: small ones, lived in seconds. What is asked of all of them, and a day of two cars done by hand."""

from __future__ import annotations

from dataclasses import replace
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
from django.core.management import CommandError, call_command

from smartcharging.engine.grid import Circuit, Grid
from smartcharging.replay import table
from smartcharging.replay.days import FIRST, Day, Departures, Visit, synthetic_day
from smartcharging.replay.kpis import asked_wh, evaluate
from smartcharging.replay.moment import Known, Lived
from smartcharging.replay.outlook import Forecasts, Outlook
from smartcharging.replay.policies import offline
from smartcharging.replay.policies.rules import LeastLaxity, Uncontrolled
from smartcharging.replay.site import ALL, Level, Site, Socket, synthetic
from smartcharging.replay.study import OFFLINE, OURS_NAME, POLICIES, Question, replay
from smartcharging.replay.world import live

RECORDED = Path(__file__).parents[3] / "shared" / "data"
SMALL = Question(sockets=5, step_s=900, departures=Departures.KEPT, forecasts=Forecasts.PERFECT)


def two_cars(limit_a: float = 16.0, hours: int = 4) -> Day:
    """Two sockets of 16 A on a circuit of its own; both cars want 11.04 kWh. One stays two hours, one four."""
    site = Site(
        name="two cars",
        grid=Grid((Circuit("connection", None, (100.0,) * 3, metered=True), Circuit("row", 0, (limit_a,) * 3))),
        sockets=(Socket("1", 1, ALL, 16.0), Socket("2", 1, ALL, 16.0)),
        battery=None,
        month_peak_w=5_000.0,
        peak_eur_per_kw=4.0,
        export_limit_w=50_000.0,
        pv_peak_w=0.0,
        value_eur_per_kwh={1: 2.0, 2: 3.0},
    )
    visits = (
        Visit(0, 0, 2 * 3600, 2 * 3600, 11_040.0, 1, ALL, 16.0),
        Visit(1, 0, 4 * 3600, 4 * 3600, 11_040.0, 2, ALL, 16.0),
    )
    minutes = np.zeros(hours * 60)
    price = np.repeat([0.2, 0.1], hours * 2)
    return Day(site, FIRST, visits, minutes + 1_000.0, minutes, price, price / 2)


def known(day: Day) -> Known:
    return Known(day, Outlook.of(day, Forecasts.PERFECT).expected)


def test_a_day_of_two_cars_is_judged_as_by_hand():
    day = two_cars()
    slots = day.slots
    lived = Lived(
        import_wh=np.array([2_000.0] * 8 + [1_000.0] * (slots - 8)),
        export_wh=np.zeros(slots),
        pv_wh=np.zeros(slots),
        held_back_wh=np.zeros(slots),
        battery_wh=0.0,
        stored_wh=0.0,
        delivered_wh=np.array([8_280.0, 11_040.0]),
        switches=np.array([2, 4]),
    )

    kpis = evaluate(day, lived)

    # 16 kWh at 20 cents and 8 at 10; a peak of 8 kW at 4 EUR; 2.76 kWh short of a car whose kWh is worth 2 EUR.
    assert kpis.bill_eur == pytest.approx(16 * 0.2 + 8 * 0.1 + 8 * 4)
    assert kpis.unserved_eur == pytest.approx(5.52)
    assert kpis.total_eur == pytest.approx(kpis.bill_eur + 5.52)
    assert kpis.delivered == pytest.approx(19.32 / 22.08)
    assert (kpis.full, kpis.peak_kw, kpis.switches, kpis.self_consumption) == (0.5, 8.0, 3.0, 1.0)


def test_what_nobody_could_deliver_is_not_asked_for():
    day = two_cars()
    short_stay = replace(day.visits[0], departure_s=1800)

    assert asked_wh(replace(day, visits=(short_stay, day.visits[1]))).tolist() == pytest.approx([5_520, 11_040])


def test_the_optimum_in_hindsight_takes_the_cheap_hours_as_far_as_the_peak_is_worth_it():
    kpis = evaluate(two_cars(), offline.live(two_cars()))

    assert kpis.delivered == pytest.approx(1.0)
    assert kpis.peak_kw == pytest.approx(
        1 + 22.08 / 4
    )  # four hours of the same power: a peak costs more than the night


def test_least_laxity_serves_who_must_leave_first_and_uncontrolled_breaks_the_circuit():
    day = two_cars()

    lax, wild = (live(day, p(known(day)), 60) for p in (LeastLaxity, Uncontrolled))

    assert evaluate(day, lax).delivered == pytest.approx(1.0, abs=0.001)
    assert (lax.over_steps, wild.over_steps) == (0, 60)
    assert wild.worst_over_a == pytest.approx(16.0)


def test_a_building_above_its_limit_alone_is_nobodys_fault():
    day = two_cars()
    day = replace(day, building_w=np.full_like(day.building_w, 80_000.0), visits=())

    assert live(day, Uncontrolled(known(day)), 300).over_steps == 0


def test_hindsight_is_never_dearer_than_anybody_who_does_not_know_the_day():
    asked = tuple(name for name in POLICIES if name not in ("ACN-MPC-like", "myopic plan"))  # they take a while

    found = replay(replace(SMALL, level=Level.CONGESTED, policies=asked), seed=1)

    best = found[OFFLINE].total_eur
    assert set(found) == set(asked)
    for name, kpis in found.items():
        if kpis.over_steps == 0:
            assert kpis.total_eur >= best * (1 - 1e-6), name


def test_ours_breaks_no_limit_when_stations_are_lost_meters_are_silent_and_drivers_leave_early():
    question = replace(
        SMALL,
        level=Level.CONGESTED,
        sockets=8,
        step_s=300,
        faults=True,
        departures=Departures.MEASURED,
        forecasts=Forecasts.BAD,
        policies=(OURS_NAME,),
    )
    assert question.day(3).faults

    found = replay(question, seed=3)[OURS_NAME]

    assert (found.over_steps, found.over_node_s) == (0, 0)
    assert found.delivered > 0.7


def test_the_same_seed_is_the_same_day_and_the_same_result():
    question = replace(SMALL, sockets=2, policies=(OURS_NAME, "LLF"))

    once, again = replay(question, seed=5), replay(question, seed=5)

    assert [replace(k, plan_s=0, cpu_s=0) for k in once.values()] == [
        replace(k, plan_s=0, cpu_s=0) for k in again.values()
    ]
    quick = replace(question, policies=("LLF",))
    assert replay(quick, seed=6)["LLF"].total_eur != once["LLF"].total_eur


def test_a_site_has_the_same_sockets_on_all_its_days_and_at_every_level():
    normal, congested = synthetic(20, Level.NORMAL), synthetic(20, Level.CONGESTED)

    assert [s.max_a for s in normal.sockets] == [s.max_a for s in congested.sockets]
    assert np.allclose(congested.limit_a[1:, :3], normal.limit_a[1:, :3] / 2)
    assert synthetic_day(normal, 1).visits != synthetic_day(normal, 2).visits


def test_so_many_drivers_leave_early_as_was_measured():
    days = [synthetic_day(synthetic(100, Level.NORMAL), seed) for seed in range(5)]

    early = [v.stated_s - v.departure_s > 1800 for d in days for v in d.visits]

    assert 0.2 < np.mean(early) < 0.32


def test_a_forecast_is_right_about_now_and_wrong_about_the_evening():
    day = synthetic_day(synthetic(20, Level.NORMAL), 2)
    actual = day.by_slot(day.building_w)

    perfect, bad = (Outlook.of(day, kind).expected(0)[0] for kind in (Forecasts.PERFECT, Forecasts.BAD))

    assert perfect == pytest.approx(actual)
    off = np.abs(bad / actual - 1)
    assert off[:4].mean() < 0.1 < off[24:].mean()


def test_the_table_has_a_row_for_each_policy_and_compares_ours_day_by_day():
    question = replace(SMALL, sockets=2, policies=(OFFLINE, "LLF", "EDF"))
    lived = {seed: replay(question, seed) for seed in (1, 2)}
    # The table does not ask how a policy's numbers came about; EDF's come sooner than ours.
    results = {seed: {OFFLINE: k[OFFLINE], "LLF": k["LLF"], OURS_NAME: k["EDF"]} for seed, k in lived.items()}

    printed = table.text(results)

    assert [line.split("|")[1].strip() for line in printed.splitlines()[2:5]] == [OFFLINE, "LLF", OURS_NAME]
    assert "ours is cheaper than LLF" in printed
    assert len(table.as_csv(results).splitlines()) == 1 + 2 * 3


def test_the_command_prints_the_table_and_writes_the_numbers(tmp_path):
    out, file = StringIO(), tmp_path / "days.csv"
    call_command(
        "replay", "--seed=1", "--sockets=3", "--step=300", "--policies=LLF,EDF", f"--csv={file}",
        stdout=out, stderr=StringIO(),
    )  # fmt: skip

    assert "| LLF" in out.getvalue()
    assert file.read_text().startswith("site,level,")


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("--policies=LLF,magic", "no policy magic"),
        ("--policies=,", "no policy was named"),
        ("--seeds=0", "--seeds must be from 1"),
        ("--seed=-1", "must not be negative"),
        ("--days=0", "--days must be from 1"),
        ("--jobs=1000", "--jobs must be from 1"),
        ("--sockets=0", "--sockets must be from 1"),
        ("--step=7", "invalid choice: 7"),
        ("--level=none", "invalid choice"),
        ("--site=recorded", "needs --data"),
    ],
)
def test_an_option_that_cannot_be_is_said(option, said):
    with pytest.raises(CommandError, match=said):
        call_command("replay", option, stdout=StringIO(), stderr=StringIO())


def test_a_folder_without_recordings_is_named(tmp_path):
    with pytest.raises(CommandError, match="sessions_jpl"):
        call_command(
            "replay", "--site=recorded", f"--data={tmp_path}", "--seed=1", stdout=StringIO(), stderr=StringIO()
        )


@pytest.mark.skipif(not RECORDED.is_dir(), reason="the recorded series are not here")
def test_a_recorded_day_has_the_cars_that_came_and_habits_of_days_before_it():
    question = Question(data=RECORDED)

    day, before = question.day(1), question.past(1, 19)

    assert len(day.visits) > 20
    assert all(0 <= v.arrival_s < v.departure_s <= 86_400 for v in day.visits)
    assert before.visits != day.visits
    assert 20_000 < day.building_w.mean() < 200_000
    assert 0 < day.pv_w.max() <= day.site.pv_peak_w

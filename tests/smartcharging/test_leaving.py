"""Drivers who leave before they said: how likely, what it is worth to the plan, and from which charges it is learnt."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from csms.models import IdToken
from smartcharging import goals, punctuality
from smartcharging.engine.forecast.leaving import OFTEN, Punctuality, Stay, gone
from smartcharging.engine.plan.solve import solve
from smartcharging.engine.plan.window import LEFT_SHORT_EUR_PER_KWH, losses
from smartcharging.horizon import day as day_of
from tests.smartcharging.planning_worlds import car, day
from tests.smartcharging.worlds import World

NOW = datetime(2026, 3, 10, 9, 5, tzinfo=UTC)
SLOT_S = 900


def stay(named_h: float, left_h: float) -> Stay:
    return Stay(NOW, NOW + timedelta(hours=named_h), NOW + timedelta(hours=left_h))


def often_early(count: int = 400) -> Punctuality:
    """Half of them leave with a quarter of the stay to go."""
    return Punctuality.of([stay(8, 6 if n % 2 else 8) for n in range(count)])


def test_of_a_place_that_nobody_knows_the_measured_workplaces_are_taken():
    nobody = Punctuality.of([])

    assert nobody.earlier(np.array([0.0, 0.25, 0.5, 1.0])).tolist() == pytest.approx([OFTEN, OFTEN / 2, 0, 0])


def test_what_was_seen_outweighs_what_was_assumed():
    always_on_time = Punctuality.of([stay(8, 8)] * 1000)

    assert always_on_time.earlier(np.zeros(1))[0] == 0.0
    assert 0 < Punctuality.of([stay(8, 8)] * 50).earlier(np.zeros(1))[0] < OFTEN / 5
    assert often_early().earlier(np.array([0.2]))[0] == pytest.approx(0.5, abs=0.02)
    assert often_early().earlier(np.array([0.3]))[0] < 0.01


def test_who_stays_longer_than_he_said_was_not_early():
    assert stay(8, 9).early == 0
    assert stay(0, 1).early is None  # the departure had passed when he came


def test_a_driver_leans_on_the_site_until_he_is_known():
    site = Punctuality.of([stay(8, 8)] * 1000)
    once, often = (Punctuality.of([stay(8, 4)] * n, site).earlier(np.array([0.2]))[0] for n in (1, 50))

    assert once == pytest.approx(1 / 6, abs=0.01)
    assert often > 0.9


def test_the_chance_rises_towards_the_departure_and_knows_that_he_is_still_here():
    chance = gone(often_early(), 0.0, 8 * 3600.0, 40, SLOT_S)
    assert (np.diff(chance) >= 0).all()
    assert chance[:23].max() < 0.01
    assert chance[24:].min() > 0.45
    still_here = gone(often_early(), 7 * 3600.0, 3600.0, 4, SLOT_S)
    assert still_here.max() < 0.05  # the hour in which they leave has passed


def test_the_plan_charges_before_a_driver_may_be_gone_unless_waiting_saves_more():
    later = losses(gone(often_early(), 0.0, 4 * 3600.0, 4, 3600), None)
    assert later[3] == pytest.approx(0.5 * LEFT_SHORT_EUR_PER_KWH, abs=0.02)
    cheap_at_the_end = [0.30, 0.30, 0.30, 0.20]

    waits = solve(day(car(energy_kwh=10), price=cheap_at_the_end))
    hurries = solve(day(car(energy_kwh=10, gone_eur_per_kwh=later), price=cheap_at_the_end))
    dearer = solve(day(car(energy_kwh=10, gone_eur_per_kwh=later), price=[0.9, 0.9, 0.9, 0.2]))

    assert waits.session_w["1"][3] == pytest.approx(10_000, abs=1)
    assert hurries.session_w["1"][3] == pytest.approx(0, abs=1)
    assert dearer.session_w["1"][3] == pytest.approx(10_000, abs=1)


def test_the_chance_is_never_a_reason_to_leave_a_car_short():
    certain = car(energy_kwh=40, gone_eur_per_kwh=(50.0,) * 4)

    plan = solve(day(certain))

    assert plan.shortfall_wh["1"] == pytest.approx(0, abs=1)


def test_a_chance_that_is_no_number_is_not_planned_with():
    plan = solve(day(car(energy_kwh=10, gone_eur_per_kwh=(0.0, float("nan"), -1.0, 0.0))))

    assert plan.status == "optimal"
    assert plan.shortfall_wh["1"] == pytest.approx(0, abs=1)


# ---------------------------------------------------------------------- from the site's own past


@pytest.fixture
def world(db) -> World:
    world = World.campus(NOW)
    world.quiet_day()
    return world


def charged(world: World, number: int, token: IdToken | None, named_h: float, left_h: float, **goal: object) -> None:
    began = NOW - timedelta(days=1 + number % 50)
    charge = world.car("CS-2", transaction_id=f"past-{number}", started_at=began, id_token=token)
    made = goals.set_goal(
        site=world.site,
        transaction=charge,
        departure=began + timedelta(hours=named_h),
        source="driver",
        now=began,
        **goal,
    )
    charge.ended_at = began + timedelta(hours=left_h)
    charge.save()
    assert made.transaction_id == charge.pk


def test_it_is_learnt_from_charges_that_are_over_and_by_driver(world):
    early, other = (IdToken.objects.create(site=world.site, value=v) for v in ("04E1", "04E2"))
    for n in range(30):
        charged(world, n, early, 8, 4)
        charged(world, 100 + n, other, 8, 8)

    who = punctuality.of_site(world.site, NOW, [early.pk])

    half = np.array([0.4])
    assert who(early.pk).earlier(half)[0] > 0.85
    assert who(other.pk) is who(None)
    assert who(None).earlier(half)[0] == pytest.approx(0.47, abs=0.02)


def test_a_car_whose_driver_named_a_departure_is_planned_with_the_chance_and_others_are_not(world):
    said, silent = world.car("CS-1"), world.car("CS-2")
    goals.set_goal(
        site=world.site, transaction=said, departure=NOW + timedelta(hours=3), energy_wh=6000, source="driver", now=NOW
    )

    today = day_of(world.site, NOW)
    by_name = {s.name: s for s in today.problem.sessions}

    chance = by_name[f"transaction {said.pk}"].gone_eur_per_kwh
    assert 0 <= chance[0] < 0.05 < chance[11] <= OFTEN * LEFT_SHORT_EUR_PER_KWH
    assert by_name[f"transaction {silent.pk}"].gone_eur_per_kwh == ()
    assert today.leaves_early == {f"transaction {said.pk}": pytest.approx(chance[9] / LEFT_SHORT_EUR_PER_KWH)}


def test_who_leaves_within_half_an_hour_cannot_leave_much_earlier(world):
    said = world.car("CS-1")
    goals.set_goal(
        site=world.site,
        transaction=said,
        departure=NOW + timedelta(minutes=35),
        energy_wh=6000,
        source="driver",
        now=NOW,
    )

    assert day_of(world.site, NOW).leaves_early == {}


def test_old_cancelled_and_open_charges_teach_nothing(world):
    charged(world, 1, None, 8, 4)
    goals.cancel_goal(world.site.goals.get(), now=NOW)
    assert punctuality.of_site(world.site, NOW)(None).early.size == 0

    charged(world, 2, None, 8, 4)
    assert punctuality.of_site(world.site, NOW)(None).early.tolist() == [0.5]
    assert punctuality.of_site(world.site, NOW + timedelta(days=120))(None).early.size == 0

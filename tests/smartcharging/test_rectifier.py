"""A DC station takes more than it delivers: plans count what the site brings, promises what reaches the car."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from csms.metering import DC_EFFICIENCY
from csms.models import Transaction
from smartcharging import goals, habits
from smartcharging.engine.explain.explain import explain_charge
from smartcharging.explanations import Around
from smartcharging.gather import look
from smartcharging.horizon import problem
from smartcharging.models import ChargingGoal
from smartcharging.planning import make_plan
from tests.smartcharging.worlds import World

pytestmark = pytest.mark.django_db
NOW = datetime(2026, 3, 10, 9, 0, tzinfo=UTC)


def charging(identity: str, wanted_wh: float, hours: float) -> World:
    world = World.campus(NOW)
    world.quiet_day()
    charge = world.car(identity, energy_wh=0.0)
    departure = NOW + timedelta(hours=hours)
    goals.set_goal(
        site=world.site, transaction=charge, departure=departure, energy_wh=wanted_wh, source="driver", now=NOW
    )
    return world


def test_what_is_planned_at_the_inlet_is_promised_at_the_plug():
    world = charging("HPC-1", 48_000, hours=1)

    [session] = problem(world.site, NOW).sessions
    assert session.energy_wh == pytest.approx(48_000 / DC_EFFICIENCY)

    plan = make_plan(world.site, "test", NOW)
    inlet_wh = sum(plan.result["evse"][str(world.evse("HPC-1").pk)]) / 4
    goal = ChargingGoal.objects.get()
    assert goal.promised_wh == pytest.approx(inlet_wh * DC_EFFICIENCY, abs=10)
    assert goal.promised_wh < 47_000
    [short] = plan.result["shortfalls"].values()
    assert short["wh"] == pytest.approx(48_000 - goal.promised_wh, abs=1)


def test_an_explanation_tells_energy_at_the_plug_and_the_price_of_all_that_the_site_brings():
    world = charging("HPC-1", 20_000, hours=4)
    plan = make_plan(world.site, "test", NOW)
    plan.result["price"] = [100.0] * len(plan.result["grid_w"])
    plan.save()

    around = Around.of(world.site, NOW)
    facts = around.facts(world.evse("HPC-1"), Transaction.objects.select_related("goal").get())
    lines = {line.code: line.values for line in explain_charge(facts).promise}

    per_kwh = 0.1 * around.tariff.import_factor + around.tariff.import_adder_eur_per_kwh
    assert lines["cost"]["planned_kwh"] == pytest.approx(20.0, abs=0.1)
    assert lines["cost"]["cost_eur"] == pytest.approx(20.0 / DC_EFFICIENCY * per_kwh, abs=0.02)
    assert "full_at" in lines


@pytest.mark.parametrize(("identity", "share"), [("HPC-1", DC_EFFICIENCY), ("CS-1", 1.0)])
def test_the_live_layer_knows_how_much_there_is_to_bring(identity, share):
    world = charging(identity, 20_000, hours=4)

    [car] = [s for s in look(world.site, NOW).snapshot.sessions if s.energy_needed_wh is not None]

    assert car.energy_needed_wh == pytest.approx(20_000 / share)


def test_who_usually_comes_is_known_by_what_they_had_the_site_bring():
    world = charging("HPC-1", 20_000, hours=4)
    ended = {"energy_wh": 19_000.0, "started_at": NOW - timedelta(days=1), "ended_at": NOW - timedelta(hours=23)}
    Transaction.objects.update(**ended)

    [place] = habits.learn(world.site, NOW).places.values()

    assert place.energy_wh == pytest.approx(20_000)

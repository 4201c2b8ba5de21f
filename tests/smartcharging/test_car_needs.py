"""What a car says it needs, told through its station, becomes the goal of its charge."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest

from csms import needs
from csms.models import EVSE, ChargingStation, Transaction
from csms.reported import Needs
from csms.reported_models import ChargingNeeds
from meters.models import Site
from smartcharging import car_needs, gather
from smartcharging.goals import goal_for, set_goal
from smartcharging.listener import Listener
from smartcharging.models import ChargingGoal, Circuit, Feed
from smartcharging.planning import make_plan

pytestmark = pytest.mark.django_db
NOW = datetime(2026, 3, 10, 9, 0, tzinfo=UTC)
SOURCE = ChargingGoal.Source


@pytest.fixture
def evse(db) -> EVSE:
    site = Site.objects.create(name="Campus")
    station = ChargingStation.objects.create(identity="CS-1", site=site, admission="accepted")
    return station.evses.create(number=1)


def charge(evse: EVSE, began: datetime = NOW, **facts) -> Transaction:
    return Transaction.objects.create(
        station=evse.station, evse=evse, transaction_id="t1", started_at=began, **{"authorized": True, **facts}
    )


def told(evse: EVSE, at: datetime = NOW, **facts) -> ChargingNeeds:
    needs.needs_told(evse.station_id, Needs(evse=evse.number, **facts), at)
    return ChargingNeeds.objects.get(evse=evse)


def test_energy_counts_from_the_start_of_the_charge_and_departure_stays(evse):
    transaction = charge(evse, energy_wh=3_000)

    goal = car_needs.heard(told(evse, energy_wh=20_000, departure=NOW + timedelta(hours=6)).pk, NOW)

    assert goal is not None and goal_for(transaction) == goal
    assert (goal.source, goal.energy_wh, goal.departure) == (SOURCE.STATION, 23_000, NOW + timedelta(hours=6))


def test_the_state_of_charge_and_the_size_of_the_battery_make_an_energy(evse):
    charge(evse)

    goal = car_needs.heard(told(evse, soc=0.4, full_soc=0.8, capacity_wh=60_000).pk, NOW)

    assert goal is not None and goal.energy_wh == pytest.approx(24_000)
    assert Transaction.objects.get().soc == 0.4


def test_a_departure_that_is_past_or_far_is_no_departure(evse):
    charge(evse)

    assert car_needs.heard(told(evse, departure=NOW - timedelta(hours=1)).pk, NOW) is None
    assert car_needs.heard(told(evse, departure=NOW + timedelta(days=9)).pk, NOW) is None


def test_newer_needs_change_the_goal_in_place(evse):
    charge(evse)
    car_needs.heard(told(evse, energy_wh=20_000).pk, NOW)

    car_needs.heard(told(evse, energy_wh=10_000).pk, NOW)

    assert [g.energy_wh for g in ChargingGoal.objects.filter(source=SOURCE.STATION)] == [10_000]


def test_the_driver_s_own_word_goes_before_the_car_s(evse):
    transaction = charge(evse)
    mine = set_goal(site=evse.station.site, transaction=transaction, energy_wh=5_000, source=SOURCE.DRIVER, now=NOW)

    car_needs.heard(told(evse, energy_wh=20_000).pk, NOW)

    assert goal_for(transaction) == mine


def test_a_car_that_speaks_just_before_its_charge_begins_is_remembered(evse):
    told(evse, at=NOW - timedelta(minutes=1), energy_wh=20_000)
    transaction = charge(evse)

    goal = car_needs.begun(transaction, NOW)

    assert goal is not None and goal.energy_wh == 20_000
    assert ChargingNeeds.objects.get().transaction == transaction
    assert car_needs.begun(transaction, NOW) is None  # once


def test_what_a_car_said_long_ago_was_another_s(evse):
    told(evse, at=NOW - timedelta(hours=1), energy_wh=20_000)

    assert car_needs.begun(charge(evse), NOW) is None


@pytest.mark.django_db(transaction=True)
def test_the_listener_makes_the_goal_and_asks_for_a_plan(evse):
    transaction = charge(evse)
    row = told(evse, energy_wh=20_000)
    planned: list[tuple[int, str]] = []
    listener = Listener(ring=lambda site: None, replan=lambda site, why: planned.append((site, why)))

    body = {"site": evse.station.site_id, "evse": evse.pk, "transaction": transaction.pk, "needs": row.pk}
    listener.hear("needs", json.dumps(body))

    goal = goal_for(transaction)
    assert goal is not None and goal.energy_wh == 20_000
    assert planned == [(evse.station.site_id, "needs of a car")]


def test_what_nobody_heard_is_found_by_the_next_plan(evse):
    site = evse.station.site
    circuit = Circuit.objects.create(site=site, name="grid", limit_a=[63, 63, 63])
    Feed.objects.create(circuit=circuit, evse=evse)
    transaction = charge(evse)
    told(evse, energy_wh=20_000)

    make_plan(site, "test", NOW)

    goal = goal_for(transaction)
    assert goal is not None and goal.source == SOURCE.STATION


def test_no_more_is_planned_than_the_car_can_take(evse):
    site = evse.station.site
    circuit = Circuit.objects.create(site=site, name="grid", limit_a=[63, 63, 63])
    Feed.objects.create(circuit=circuit, evse=evse)
    charge(evse)
    told(evse, min_a=8, max_a=20)

    (session,) = gather.snapshot(site, NOW).sessions

    assert (session.min_a, session.max_a) == (8, 20)


def test_a_dc_car_s_power_counts_at_the_inlet_of_its_station(evse):
    ChargingStation.objects.update(current="dc", max_w=150_000)
    evse.station.refresh_from_db()
    site = evse.station.site
    circuit = Circuit.objects.create(site=site, name="grid", limit_a=[400, 400, 400])
    Feed.objects.create(circuit=circuit, evse=evse)
    charge(evse)
    told(evse, max_w=95_000)

    (session,) = gather.snapshot(site, NOW).sessions

    assert session.max_w == pytest.approx(100_000)

"""The facts behind a charge: from a real balance and a real plan, and what is left of them when one is missing."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.utils import timezone

from csms.models import EVSE, ChargingStation, Transaction, WantedLimit
from meters.live import connection
from meters.models import Device
from smartcharging import goals, tasks
from smartcharging.engine.explain.explain import explain_charge
from smartcharging.engine.snapshot import Mode
from smartcharging.explanations import Around, explain, newest_picture
from smartcharging.models import AllocationRecord, ChargingGoal, Circuit, Plan
from smartcharging.planning import make_plan
from tests.smartcharging.worlds import World

pytestmark = pytest.mark.django_db


@pytest.fixture
def world(db) -> World:
    world = World.campus(timezone.now())
    world.quiet_day()
    return world


def told(world: World, charge: Transaction, **known):
    fresh = Transaction.objects.select_related("station__site", "evse__station", "goal").get(pk=charge.pk)
    return explain(fresh, world.now, **known)


def codes(lines) -> list[str]:
    return [line.code for line in lines]


def wish(world: World, charge: Transaction, **fields) -> ChargingGoal:
    return goals.set_goal(site=world.site, transaction=charge, source=ChargingGoal.Source.DRIVER, **fields)


def test_a_full_row_is_named_now_and_in_the_plan_with_what_would_help(world):
    Circuit.objects.filter(name="row 1").update(limit_a=[16, 16, 16])
    first, second = world.car("CS-1", offered_a=8), world.car("CS-2", offered_a=8)
    for identity in ("CS-1", "CS-2"):
        world.draws(identity, (8.0, 8.0, 8.0))
    world.meter(26)
    for charge in (first, second):
        wish(world, charge, energy_wh=30_000, departure=world.now + timedelta(hours=4))
    make_plan(world.site, "test", world.now)

    tasks.balance(world.site.pk)
    short = Plan.objects.get().result["shortfalls"]
    slow = next(c for c in (first, second) if str(c.goal.pk) in short)
    told_of_it = told(world, slow)

    assert told_of_it.limits[-1].cause is not None
    assert told_of_it.limits[-1].cause.circuit == "row 1"
    assert codes(told_of_it.helps)[:3] == ["leave_later", "raise_a", "less"]
    assert told_of_it.promise[0].values["wanted_kwh"] == 30


def test_the_plan_tells_how_likely_its_driver_is_to_be_gone(world):
    charge = world.car("CS-1", offered_a=8)
    wish(world, charge, energy_wh=8_000, departure=world.now + timedelta(hours=4))
    make_plan(world.site, "test", world.now)

    lines = {line.code: line for line in told(world, charge).promise}

    assert 0.1 < lines["may leave"].values["early_share"] < 0.28


def test_the_picture_and_the_trail_name_the_place_of_a_share(world):
    Circuit.objects.filter(name="row 1").update(limit_a=[10, 10, 10])
    for identity in ("CS-1", "CS-2"):
        world.car(identity, offered_a=0)

    tasks.balance(world.site.pk)

    picture, away = newest_picture(world.site.pk)
    assert not away
    held = {e["station"]: (e["limit"]["circuit"], e["limit"]["phase"]) for e in picture["evses"]}
    assert held["CS-1"] == ("row 1", "L1")  # the less urgent one does not get its minimum beside the other
    assert held["HPC-1"] == ("", "")
    record = AllocationRecord.objects.get(evse=world.evse("CS-1"))
    assert (record.circuit, record.phase) == ("row 1", "L1")
    assert {e["station"]: (e["phases"], e["max_w"]) for e in picture["evses"]}["HPC-1"] == (3, 50_000)


def test_a_free_place_on_another_circuit_is_offered_with_the_room_it_has(world):
    Circuit.objects.filter(name="row 1").update(limit_a=[10, 10, 10])
    charges = [world.car(identity, offered_a=0) for identity in ("CS-1", "CS-2")]
    EVSE.objects.filter(station__identity="HPC-1").update(status=EVSE.Status.AVAILABLE)

    tasks.balance(world.site.pk)

    (line,) = [line for line in told(world, charges[0]).helps if line.code == "elsewhere"]
    assert line.values["circuit"] == "grid"
    assert line.values["place"] == str(world.evse("HPC-1"))
    assert line.values["room_w"] == 22_080


def test_an_old_picture_is_no_picture(world):
    charge = world.car("CS-1", offered_a=0)
    tasks.balance(world.site.pk)
    WantedLimit.objects.update(wanted_a=7, reason="plan")

    around = Around.of(world.site, world.now + timedelta(minutes=3))

    assert around.picture == {}
    assert around.facts(world.evse("CS-1"), charge).given.limit_a == 7


def test_what_a_picture_says_of_a_car_before_is_not_believed(world):
    world.car("CS-1", offered_a=0)
    tasks.balance(world.site.pk)
    newcomer = world.car("CS-1", transaction_id="next")

    facts = Around.of(world.site, world.now).facts(world.evse("CS-1"), newcomer)

    assert facts.given is None
    assert codes(explain_charge(facts).now) == ["undecided"]


def test_a_plan_of_a_car_before_is_nobodys(world):
    world.car("CS-1")
    make_plan(world.site, "test", world.now)
    newcomer = world.car("CS-1", transaction_id="next")

    assert codes(told(world, newcomer).promise) == ["nobody", "no plan"]


def test_a_plan_that_no_longer_holds_is_called_old(world):
    charge = world.car("CS-1")
    wish(world, charge, energy_wh=10_000)
    make_plan(world.site, "test", world.now)
    Plan.objects.update(valid_until=world.now)

    assert codes(told(world, charge).promise) == ["all", "old plan"]


def test_a_plan_by_rule_says_so(world):
    charge = world.car("CS-1")
    make_plan(world.site, "test", world.now)
    Plan.objects.update(status=Plan.Status.FALLBACK)

    assert "by rule" in codes(told(world, charge).promise)


def test_the_price_is_that_of_import_or_of_what_would_have_been_exported(world):
    charge = world.car("CS-1")
    make_plan(world.site, "test", world.now)
    plan = Plan.objects.get()
    plan.result |= {"price": [100, 100, None, 100], "grid_w": [5_000, -5_000, 1_000]}
    plan.save()

    facts = Around.of(world.site, world.now).facts(world.evse("CS-1"), charge)

    assert facts.course.eur_per_kwh == pytest.approx([0.2, 0.085, float("nan")], nan_ok=True)


@pytest.mark.parametrize(
    ("evse", "limit", "code"),
    [
        ({"status": "Faulted"}, {}, "fault"),
        ({"status": "Unavailable"}, {}, "unknown"),
        ({}, {"resume": "unplug"}, "replug"),
        ({}, {"reason": "fire: panel", "wanted_a": 0}, "fire"),
        ({}, {"reason": "meter stale: grid"}, "unknown"),
    ],
)
def test_the_state_of_the_place_comes_first(world, evse, limit, code):
    charge = world.car("CS-1")
    EVSE.objects.filter(pk=charge.evse_id).update(**evse)
    WantedLimit.objects.create(evse=charge.evse, **{"wanted_a": 6, "reason": "plan", **limit})

    assert told(world, charge).now[0].code == code


def test_a_dc_place_is_told_in_power(world):
    charge = world.car("HPC-1", offered_a=0)
    tasks.balance(world.site.pk)

    (line, *_) = told(world, charge).now

    assert line.values["limit_w"] > 0
    assert "limit_a" not in line.values


def test_a_fire_is_the_first_thing_that_is_said(world):
    charge = world.car("CS-1", offered_a=0)
    Device.objects.create(site=world.site, name="panel", kind=Device.Kind.ALARM)

    tasks.balance(world.site.pk)
    told_of_it = told(world, charge)

    assert told_of_it.now[0].values["words"] == "panel is silent"
    assert codes(told_of_it.helps) == ["over"]


def test_a_car_on_sun_only_waits_for_it(world):
    charge = world.car("CS-1", offered_a=0)
    wish(world, charge, mode="surplus")
    make_plan(world.site, "test", world.now)
    tasks.balance(world.site.pk)

    told_of_it = told(world, charge)

    assert codes(told_of_it.now) == ["off", "no surplus"]
    assert codes(told_of_it.helps) == ["no_sun", "not_only_sun"]
    assert Around.of(world.site, world.now).facts(charge.evse, charge).mode is Mode.SURPLUS


def test_a_cancelled_goal_is_no_wish(world):
    charge = world.car("CS-1")
    goal = wish(world, charge, energy_wh=10_000)
    ChargingGoal.objects.filter(pk=goal.pk).update(cancelled_at=world.now)

    assert told(world, charge).promise[0].code == "nobody"


def test_a_charge_that_is_over_asks_neither_picture_nor_plan(world, django_assert_num_queries):
    charge = world.car("CS-1", energy_wh=12_000)
    departure = world.now + timedelta(hours=2)
    goal = wish(world, charge, energy_wh=30_000, departure=departure)
    ChargingGoal.objects.filter(pk=goal.pk).update(promised_wh=25_000, promise_reason="time")
    Transaction.objects.update(ended_at=world.now, stop_reason="EVDisconnected")
    fresh = Transaction.objects.select_related("station__site", "evse__station", "goal").get(pk=charge.pk)

    with django_assert_num_queries(0):
        told_of_it = explain(fresh, world.now)

    assert told_of_it.now[0].values["missing_kwh"] == 18
    assert [(line.code, line.values.get("missing_kwh"), line.values.get("minutes")) for line in told_of_it.limits] == [
        ("missed", 5, None),
        ("left_early", None, 120),
    ]


def test_a_running_charge_costs_two_questions(world, django_assert_num_queries):
    charge = world.car("CS-1")
    wish(world, charge, energy_wh=30_000)
    make_plan(world.site, "test", world.now)
    fresh = Transaction.objects.select_related("station__site", "evse__wanted_limit", "evse__station", "goal").get()
    assert fresh == charge

    with django_assert_num_queries(2):
        explain(fresh, world.now)


def test_a_charge_without_a_place_or_a_site_is_explained_as_far_as_it_goes(world):
    charge = world.car("CS-1")
    Transaction.objects.update(evse=None)
    assert told(world, charge).now[0].code == "undecided"
    ChargingStation.objects.update(site=None)
    assert told(world, charge).now[0].code == "undecided"


def test_redis_away_leaves_what_the_database_knows(world, monkeypatch):
    charge = world.car("CS-1")
    WantedLimit.objects.create(evse=charge.evse, wanted_a=6, reason="plan")
    away = connection().from_url("unix:///nowhere/valkey.sock")
    monkeypatch.setattr("smartcharging.explanations.live.connection", lambda: away)

    assert newest_picture(world.site.pk) == (None, True)
    assert codes(told(world, charge).now) == ["unknown", "plan"]


@pytest.mark.parametrize("body", ["not json", "[1]", '{"at": "yesterday"}', '{"evses": [1]}'])
def test_a_picture_that_is_none_is_left_aside(world, body):
    charge = world.car("CS-1")
    connection().set(f"now:{world.site.pk}", body)

    assert told(world, charge).now[0].code == "undecided"

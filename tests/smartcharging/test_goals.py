"""Goals: three doors, one room. One goal counts per transaction; the others wait their turn."""

from __future__ import annotations

from datetime import UTC, datetime, time, timedelta
from zoneinfo import ZoneInfo

import pytest
import redis
from django.test import override_settings

from csms.models import ChargingStation, IdToken, Transaction
from meters.live import connection
from meters.models import Site
from smartcharging import goals
from smartcharging.goals import GoalError, cancel_goal, change_goal, goal_for, next_occurrence, set_goal
from smartcharging.models import ChargingGoal, TokenProfile, UserProfile, Vehicle

pytestmark = pytest.mark.django_db
NOW = datetime(2026, 3, 10, 9, 0, tzinfo=UTC)
BRUSSELS = ZoneInfo("Europe/Brussels")


def at(hours: float) -> datetime:
    return NOW + timedelta(hours=hours)


@pytest.fixture
def site(db) -> Site:
    return Site.objects.create(name="Campus")


@pytest.fixture
def station(site) -> ChargingStation:
    station = ChargingStation.objects.create(identity="CS-1", site=site, admission="accepted")
    station.evses.create(number=1)
    station.evses.create(number=2)
    return station


@pytest.fixture
def evse(station):
    return station.evses.get(number=1)


@pytest.fixture
def fleet_card(site) -> IdToken:
    """A card whose profile leaves at 17:00 with 25 kWh."""
    profile = UserProfile.objects.create(site=site, name="fleet", priority=3, departure=time(17, 0), energy_wh=25_000)
    token = IdToken.objects.create(site=site, value="04A1B2C3D4")
    TokenProfile.objects.create(id_token=token, profile=profile)
    return token


@pytest.fixture
def plain_card(site) -> IdToken:
    return IdToken.objects.create(site=site, value="PLAIN")


def start(evse, token=None, transaction_id="1", started_at=NOW) -> Transaction:
    return Transaction.objects.create(
        transaction_id=transaction_id, station=evse.station, evse=evse, id_token=token, started_at=started_at
    )


def test_a_tap_gives_the_goal_of_its_profile(evse, fleet_card):
    charge = start(evse, fleet_card)

    goal = goals.attach(charge, NOW)

    assert goal_for(charge) == goal
    assert (goal.source, goal.energy_wh, goal.priority) == ("tap", 25_000, 3)
    assert goal.departure == datetime(2026, 3, 10, 16, 0, tzinfo=UTC)  # 17:00 in Brussels


def test_a_card_without_a_profile_gives_no_goal(evse, plain_card):
    assert goals.attach(start(evse, plain_card), NOW) is None


def test_attaching_twice_makes_one_goal(evse, fleet_card):
    charge = start(evse, fleet_card)

    assert goals.attach(charge, NOW) == goals.attach(charge, NOW)
    assert ChargingGoal.objects.count() == 1


def test_the_driver_goes_before_the_card_and_keeps_its_rank(site, evse, fleet_card):
    charge = start(evse, fleet_card)
    goals.attach(charge, NOW)

    goal = set_goal(site=site, transaction=charge, departure=at(3), energy_wh=8000, source="driver", now=NOW)

    assert goal_for(charge) == goal
    assert goal.priority == 3


def test_the_schedule_does_not_overrule_the_driver_and_takes_over_when_he_cancels(site, evse, plain_card):
    charge = start(evse, plain_card)
    mine = set_goal(site=site, transaction=charge, departure=at(3), energy_wh=8000, source="driver", now=NOW)
    theirs = set_goal(
        site=site, id_token=plain_card, departure=at(2), energy_wh=5000, source="schedule", external_id="t1", now=NOW
    )

    assert goal_for(charge) == mine

    cancel_goal(mine, now=NOW)

    assert goal_for(charge) == theirs


def test_when_the_driver_cancels_the_card_counts_again(site, evse, fleet_card):
    charge = start(evse, fleet_card)
    goals.attach(charge, NOW)
    mine = set_goal(site=site, transaction=charge, departure=at(3), source="driver", now=NOW)

    cancel_goal(mine, now=NOW)

    assert goal_for(charge).source == "tap"


def test_a_cancelled_tap_goal_does_not_come_back(evse, fleet_card):
    charge = start(evse, fleet_card)
    cancel_goal(goals.attach(charge, NOW), now=NOW)

    assert goals.attach(charge, NOW) is None


def test_a_driver_who_asks_twice_changes_one_goal(site, evse):
    charge = start(evse)
    first = set_goal(site=site, transaction=charge, departure=at(3), source="driver", now=NOW)
    second = set_goal(site=site, transaction=charge, departure=at(4), source="driver", now=NOW)

    assert first.pk == second.pk
    assert goal_for(charge).departure == at(4)


def test_a_scheduled_goal_waits_for_its_car(site, evse, plain_card):
    goal = set_goal(
        site=site, id_token=plain_card, departure=at(8), energy_wh=20_000, source="schedule", external_id="a", now=NOW
    )
    assert goal.transaction is None

    charge = start(evse, plain_card, started_at=at(1))
    goals.attach(charge, at(1))

    assert goal_for(charge) == goal


def test_a_goal_for_an_evse_waits_for_whoever_comes(site, evse, plain_card):
    goal = set_goal(site=site, evse=evse, energy_wh=10_000, source="driver", now=NOW)

    charge = start(evse, plain_card)
    goals.attach(charge, NOW)

    assert goal_for(charge) == goal


def test_of_a_day_of_goals_the_next_departure_counts_and_the_later_one_waits(site, evse, plain_card):
    late = set_goal(site=site, id_token=plain_card, departure=at(20), source="schedule", external_id="late", now=NOW)
    early = set_goal(site=site, id_token=plain_card, departure=at(6), source="schedule", external_id="early", now=NOW)
    charge = start(evse, plain_card)
    goals.attach(charge, NOW)
    assert goal_for(charge) == early

    charge.ended_at = at(6)
    charge.save()
    evening = start(evse, plain_card, transaction_id="2", started_at=at(9))
    goals.attach(evening, at(9))

    assert goal_for(evening) == late


def test_an_earlier_goal_that_comes_later_takes_the_place_and_the_later_one_waits(site, evse, plain_card):
    charge = start(evse, plain_card)
    late = set_goal(site=site, id_token=plain_card, departure=at(20), source="schedule", external_id="late", now=NOW)
    assert goal_for(charge) == late
    early = set_goal(site=site, id_token=plain_card, departure=at(6), source="schedule", external_id="early", now=NOW)

    late.refresh_from_db()
    assert goal_for(charge) == early
    assert late.asked_for is None


def test_a_car_that_stays_gets_its_next_goal_once_the_departure_has_passed(site, evse, plain_card):
    set_goal(site=site, id_token=plain_card, departure=at(2), source="schedule", external_id="a", now=NOW)
    later = set_goal(site=site, id_token=plain_card, departure=at(9), source="schedule", external_id="b", now=NOW)
    charge = start(evse, plain_card)
    goals.attach(charge, NOW)

    assert goals.attach_waiting(site, at(3)) == 1
    assert goal_for(charge) == later
    assert goals.attach_waiting(site, at(3)) == 0


def test_a_goal_whose_departure_has_passed_waits_no_longer(site, evse, plain_card):
    set_goal(site=site, id_token=plain_card, departure=at(2), source="schedule", external_id="a", now=NOW)

    assert goals.attach(start(evse, plain_card, started_at=at(3)), at(3)) is None


def test_what_the_listener_missed_is_attached_by_the_next_plan(site, evse, fleet_card):
    charge = start(evse, fleet_card)

    assert goals.attach_waiting(site, NOW) == 1
    assert goal_for(charge).source == "tap"


def test_a_goal_that_is_sent_again_keeps_the_rank_its_charge_had(site, evse, fleet_card):
    transaction = start(evse, fleet_card)
    goals.settle(transaction, NOW)
    wish = {"site": site, "evse": evse, "energy_wh": 5000, "source": "schedule", "external_id": "a", "now": NOW}

    assert [set_goal(**wish).priority, set_goal(**wish).priority] == [3, 3]


def test_the_same_external_id_is_the_same_goal(site, evse, plain_card):
    first = set_goal(
        site=site, id_token=plain_card, departure=at(8), energy_wh=5000, source="schedule", external_id="x", now=NOW
    )
    cancel_goal(first, now=NOW)
    again = set_goal(
        site=site, id_token=plain_card, departure=at(9), energy_wh=7000, source="schedule", external_id="x", now=NOW
    )

    assert again.pk == first.pk
    assert (again.departure, again.energy_wh, again.cancelled_at) == (at(9), 7000, None)


def test_sending_a_goal_again_does_not_tear_it_from_its_transaction(site, evse, plain_card):
    charge = start(evse, plain_card)
    for energy in (5000, 6000):
        set_goal(
            site=site,
            id_token=plain_card,
            departure=at(8),
            energy_wh=energy,
            source="schedule",
            external_id="x",
            now=NOW,
        )

    assert goal_for(charge).energy_wh == 6000


def test_a_goal_moved_to_another_car_leaves_the_first_without(site, station, evse, plain_card, fleet_card):
    first = start(evse, plain_card)
    second = start(station.evses.get(number=2), fleet_card, transaction_id="2")
    set_goal(site=site, id_token=plain_card, energy_wh=1000, source="schedule", external_id="x", now=NOW)

    moved = set_goal(site=site, id_token=fleet_card, energy_wh=1000, source="schedule", external_id="x", now=NOW)

    assert goal_for(first) is None
    assert goal_for(second) == moved


def test_a_wanted_range_becomes_energy_by_the_car_of_the_card(site, evse, plain_card):
    Vehicle.objects.create(site=site, name="van", id_token=plain_card, consumption_wh_per_km=300)
    charge = start(evse, plain_card)

    thirsty = set_goal(site=site, transaction=charge, range_km=100, source="driver", now=NOW)
    assert 30_000 <= thirsty.energy_wh <= 36_000

    other = start(evse.station.evses.get(number=2), transaction_id="2")
    usual = set_goal(site=site, transaction=other, range_km=100, source="driver", now=NOW)
    assert 19_000 <= usual.energy_wh <= 23_000


def test_a_changed_range_is_reckoned_again_and_energy_takes_its_place(site, evse):
    goal = set_goal(site=site, transaction=start(evse), range_km=100, source="driver", now=NOW)
    before = goal.energy_wh

    change_goal(goal, range_km=50, now=NOW)
    assert goal.energy_wh == pytest.approx(before / 2)

    change_goal(goal, energy_wh=3000, now=NOW)
    assert (goal.energy_wh, goal.range_km) == (3000, None)


def test_a_change_of_one_field_leaves_the_others(site, evse):
    goal = set_goal(
        site=site, transaction=start(evse), departure=at(2), energy_wh=3000, priority=4, source="driver", now=NOW
    )

    change_goal(goal, energy_wh=4000, now=at(3))  # the departure has passed meanwhile

    goal.refresh_from_db()
    assert (goal.departure, goal.energy_wh, goal.priority) == (at(2), 4000, 4)


@pytest.mark.parametrize(
    ("wish", "field"),
    [
        ({"departure": NOW - timedelta(seconds=1)}, "departure"),
        ({"departure": NOW + timedelta(days=8)}, "departure"),
        ({"departure": datetime(2026, 3, 10, 17, 0)}, "departure"),  # noqa: DTZ001 — that is the mistake
        ({"energy_wh": -1}, "energy_wh"),
        ({"energy_wh": 1_000_001}, "energy_wh"),
        ({"energy_wh": float("nan")}, "energy_wh"),
        ({"energy_wh": True}, "energy_wh"),
        ({"range_km": float("inf")}, "range_km"),
        ({"range_km": 10, "energy_wh": 10}, "range_km"),
        ({"priority": 11}, "priority"),
        ({"priority": -1}, "priority"),
        ({"mode": "warp"}, "mode"),
        ({"source": "oracle"}, "source"),
        ({"external_id": "x" * 101}, "external_id"),
    ],
)
def test_a_bad_wish_names_its_field(site, evse, wish, field):
    with pytest.raises(GoalError) as caught:
        set_goal(**{"site": site, "transaction": start(evse), "source": "driver", "now": NOW, **wish})

    assert caught.value.field == field


def test_a_wish_needs_something_to_be_about(site):
    with pytest.raises(GoalError, match="transaction"):
        set_goal(site=site, energy_wh=1, source="driver", now=NOW)


def test_an_ended_transaction_takes_no_goal(site, evse):
    charge = start(evse)
    charge.ended_at = NOW
    charge.save()

    with pytest.raises(GoalError, match="ended"):
        set_goal(site=site, transaction=charge, energy_wh=1, source="driver", now=NOW)


def test_another_sites_things_are_refused(db, site, evse, plain_card):
    other = Site.objects.create(name="Elsewhere")

    for target in ({"transaction": start(evse)}, {"evse": evse}, {"id_token": plain_card}):
        with pytest.raises(GoalError, match="another site"):
            set_goal(site=other, energy_wh=1, source="schedule", now=NOW, **target)


@pytest.mark.parametrize(
    ("now", "clock", "expected"),
    [
        # an ordinary day
        ("2026-03-10T09:00+00:00", "17:00", "2026-03-10T16:00+00:00"),
        ("2026-03-10T16:00+00:00", "17:00", "2026-03-11T16:00+00:00"),
        # 02:30 does not exist on 29 March 2026; the clock shows 03:30 then
        ("2026-03-28T22:00+00:00", "02:30", "2026-03-29T01:30+00:00"),
        # the night before: 24 h of clock are 23 h of time
        ("2026-03-28T17:00+00:00", "17:00", "2026-03-29T15:00+00:00"),
        # 02:30 exists twice on 25 October 2026
        ("2026-10-24T22:00+00:00", "02:30", "2026-10-25T00:30+00:00"),
        ("2026-10-25T00:45+00:00", "02:30", "2026-10-25T01:30+00:00"),
        ("2026-10-25T01:45+00:00", "02:30", "2026-10-26T01:30+00:00"),
    ],
)
def test_a_departure_on_the_clock_is_the_next_moment_the_clock_shows_it(now, clock, expected):
    moment = next_occurrence(time.fromisoformat(clock), datetime.fromisoformat(now), BRUSSELS)

    assert moment == datetime.fromisoformat(expected)


@pytest.mark.django_db(transaction=True)
def test_a_wish_asks_for_a_plan_after_the_commit():
    site = Site.objects.create(name="Campus")
    station = ChargingStation.objects.create(identity="CS-1", site=site)

    set_goal(site=site, evse=station.evses.create(number=1), energy_wh=1000, source="driver", now=NOW)

    assert connection().llen("slow") == 1


@pytest.mark.django_db(transaction=True)
def test_a_broker_that_is_away_does_not_fail_the_wish(caplog, monkeypatch):
    site = Site.objects.create(name="Campus")
    station = ChargingStation.objects.create(identity="CS-1", site=site)
    away = redis.Redis.from_url("redis://127.0.0.1:1", socket_connect_timeout=0.2)

    with override_settings():
        monkeypatch.setattr("smartcharging.wake.connection", lambda: away)
        goal = set_goal(site=site, evse=station.evses.create(number=1), energy_wh=1000, source="driver", now=NOW)

    assert ChargingGoal.objects.filter(pk=goal.pk).exists()
    assert "could not be asked for" in caplog.text

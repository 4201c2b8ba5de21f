"""Goals over REST: one by one, again, changed, cancelled, and a fleet's whole day at once."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.utils import timezone

from csms.models import IdToken
from smartcharging.models import ChargingGoal
from tests.people import calling

pytestmark = pytest.mark.django_db

GOALS = "/api/v1/goals/"


@pytest.fixture
def operator(office):
    return calling(office.cast["operator"])


def in_hours(hours: float) -> str:
    return (timezone.now() + timedelta(hours=hours)).isoformat()


def test_a_goal_is_set_for_a_card(office, operator):
    answer = operator.post(GOALS, {"id_token": "04a1b2c3d4", "departure": in_hours(4), "energy_kwh": 25, "priority": 4})

    assert answer.status_code in (200, 201)
    goal = answer.json()
    assert (goal["id_token"], goal["energy_kwh"], goal["priority"]) == ("04A1B2C3D4", 25, 4)
    assert goal["source"] == "schedule"
    assert ChargingGoal.objects.get(pk=goal["id"]).energy_wh == 25_000


@pytest.mark.parametrize("target", ["number", "identity", "station", "transaction id", "our id"])
def test_a_goal_finds_its_evse_or_its_transaction_by_every_name(office, operator, target):
    evse, charge = office.campus.evses[0], office.campus.transaction
    body = {
        "number": {"evse": evse.pk},
        "identity": {"evse": "CS-001/1"},
        "station": {"station": "CS-001", "evse": 1},
        "transaction id": {"transaction": "1001"},
        "our id": {"transaction": charge.pk},
    }[target]

    goal = operator.post(GOALS, {**body, "energy_kwh": 8}).json()

    assert (goal["station"], goal["evse"]) == ("CS-001", 1)


def test_a_range_becomes_energy(office, operator):
    goal = operator.post(GOALS, {"evse": "CS-002/1", "range_km": 90}).json()

    assert goal["range_km"] == 90
    assert goal["energy_kwh"] == pytest.approx(19, rel=0.01)


def test_sending_the_same_external_id_again_changes_the_same_goal(office, operator):
    body = {"evse": "CS-002/1", "energy_kwh": 10, "departure": in_hours(3), "external_id": "bus 7, tuesday"}

    first = operator.post(GOALS, body)
    again = operator.post(GOALS, {**body, "energy_kwh": 12})

    assert (first.status_code, again.status_code) == (201, 200)
    assert first.json()["id"] == again.json()["id"]
    assert again.json()["energy_kwh"] == 12
    assert ChargingGoal.objects.filter(external_id="bus 7, tuesday").count() == 1


def test_a_goal_is_changed_and_what_is_left_out_stays(office, operator):
    before = ChargingGoal.objects.get(pk=office.goal.pk)

    answer = operator.patch(f"{GOALS}{office.goal.pk}/", {"energy_kwh": 5})

    assert answer.status_code == 200
    after = ChargingGoal.objects.get(pk=office.goal.pk)
    assert (after.energy_wh, after.departure) == (5000, before.departure)


def test_a_cancelled_goal_is_kept_as_history(office, operator):
    assert operator.delete(f"{GOALS}{office.goal.pk}/").status_code == 204

    assert operator.get(f"{GOALS}{office.goal.pk}/").json()["cancelled_at"]
    assert office.goal.pk not in [g["id"] for g in operator.get(GOALS + "?open=true").json()["results"]]
    assert operator.patch(f"{GOALS}{office.goal.pk}/", {"energy_kwh": 5}).status_code == 400


WRONG_WISHES = [
    ({"energy_kwh": 10}, "id_token"),
    ({"id_token": "04A1B2C3D4", "evse": "CS-001/1", "energy_kwh": 10}, "id_token"),
    ({"id_token": "UNKNOWN", "energy_kwh": 10}, "id_token"),
    ({"id_token": "04A1B2C3D4"}, "departure"),
    ({"id_token": "04A1B2C3D4", "energy_kwh": -1}, "energy_kwh"),
    ({"id_token": "04A1B2C3D4", "energy_kwh": "much"}, "energy_kwh"),
    ({"id_token": "04A1B2C3D4", "energy_kwh": 10, "range_km": 5}, "range_km"),
    ({"id_token": "04A1B2C3D4", "range_km": 1e9}, "range_km"),
    ({"id_token": "04A1B2C3D4", "departure": "at five"}, "departure"),
    ({"id_token": "04A1B2C3D4", "departure": "2020-01-01T00:00:00Z"}, "departure"),
    ({"id_token": "04A1B2C3D4", "departure": "2099-01-01T00:00:00Z"}, "departure"),
    ({"id_token": "04A1B2C3D4", "energy_kwh": 1, "priority": 99}, "priority"),
    ({"id_token": "04A1B2C3D4", "energy_kwh": 1, "mode": "turbo"}, "mode"),
    ({"id_token": "04A1B2C3D4", "energy_kwh": 1, "departre": "x"}, "departre"),
    ({"evse": "FAR-1/1", "energy_kwh": 1}, "evse"),
    ({"evse": "CS-001/9", "energy_kwh": 1}, "evse"),
    ({"evse": True, "energy_kwh": 1}, "evse"),
    ({"evse": 10**30, "energy_kwh": 1}, "evse"),
    ({"evse": {"a": 1}, "energy_kwh": 1}, "evse"),
    ({"station": "FAR-1", "evse": 1, "energy_kwh": 1}, "station"),
    ({"transaction": "nope", "energy_kwh": 1}, "transaction"),
    ({"transaction": -5, "energy_kwh": 1}, "transaction"),
    ({"id_token": "04A1B2C3D4", "energy_kwh": 1, "external_id": "x" * 101}, "external_id"),
    ({"id_token": "04A1B2C3D4", "energy_kwh": 1, "site": 10**30}, "site"),
]


def test_a_wish_that_cannot_be_is_refused_at_its_field(office, operator):
    for body, field in WRONG_WISHES:
        answer = operator.post(GOALS, body)

        assert answer.status_code == 400, (body, answer.content)
        assert field in answer.json(), body


def test_an_ended_charge_takes_no_goal(office, operator):
    charge = office.campus.transaction
    charge.ended_at = timezone.now()
    charge.save()

    assert operator.post(GOALS, {"transaction": charge.pk, "energy_kwh": 1}).json().keys() == {"transaction"}


def test_a_card_of_two_sites_asks_which(office):
    IdToken.objects.create(site=office.elsewhere, value=office.token.value)
    everywhere = calling(office.cast["superuser"])

    asked = everywhere.post(GOALS, {"id_token": office.token.value, "energy_kwh": 1})
    said = everywhere.post(GOALS, {"id_token": office.token.value, "energy_kwh": 1, "site": "Kaai 9"})

    assert (asked.status_code, list(asked.json())) == (400, ["id_token"])
    assert said.json()["site"] == office.elsewhere.pk


def test_a_day_of_a_fleet_loses_nothing_to_one_bad_line(office, operator):
    day = [
        {"evse": "CS-002/1", "energy_kwh": 10, "external_id": "a"},
        {"evse": "CS-003/1", "energy_kwh": -1, "external_id": "b"},
        "not a goal",
        {"evse": "FAR-1/1", "energy_kwh": 1, "external_id": "d"},
        {"evse": "CS-004/1", "departure": in_hours(5), "energy_kwh": 20, "external_id": "e"},
    ]

    answer = operator.post(GOALS + "bulk/", day)

    assert answer.status_code == 207
    body = answer.json()
    assert (body["created"], body["changed"], body["refused"]) == (2, 0, 3)
    assert [r["status"] for r in body["results"]] == [201, 400, 400, 400, 201]
    assert [r["index"] for r in body["results"]] == [0, 1, 2, 3, 4]
    assert list(body["results"][1]["errors"]) == ["energy_kwh"]
    assert body["results"][1]["external_id"] == "b"
    assert set(ChargingGoal.objects.exclude(external_id="").values_list("external_id", flat=True)) == {"a", "e"}
    assert [r["status"] for r in operator.post(GOALS + "bulk/", day).json()["results"]] == [200, 400, 400, 400, 200]


@pytest.mark.parametrize("body", [{}, [], "x", 5, [{}] * 2001])
def test_a_bulk_that_is_no_list_of_goals_is_refused(office, operator, body):
    answer = operator.post(GOALS + "bulk/", body)

    assert answer.status_code == 400
    assert "detail" in answer.json()

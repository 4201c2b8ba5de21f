"""Alarms over REST and in the admin: seen by those of the site, ended by its operators; models set by superusers."""

from __future__ import annotations

import pytest
from django.utils import timezone

from csms import alarms
from csms.models import ChargingStation, WantedLimit
from csms.obedience_models import Alarm, StationModel, ToldLimit
from tests.people import calling
from tests.webapp.test_admin_pages import entered, page

pytestmark = pytest.mark.django_db

ALARMS = "/api/v1/alarms/"


@pytest.fixture
def alarm(office) -> Alarm:
    evse = office.campus.evses[0]
    WantedLimit.objects.filter(evse=evse).update(isolated_at=timezone.now(), state="not_followed")
    found = alarms.raise_alarm(
        Alarm.Kind.NOT_FOLLOWED, timezone.now(), station_pk=evse.station_id, evse_pk=evse.pk, detail="32 A measured"
    )
    assert found is not None
    return found


def test_an_open_alarm_is_seen_by_those_of_its_site(office, alarm):
    found = calling(office.cast["viewer"]).get(ALARMS, {"open": "true"}).json()["results"]
    elsewhere = calling(office.cast["stranger"]).get(ALARMS).json()["results"]

    assert [(a["id"], a["station"], a["evse"], a["kind"], a["ended_at"]) for a in found] == [
        (alarm.pk, "CS-001", 1, "not_followed", None)
    ]
    assert elsewhere == []


def test_an_operator_ends_it_and_the_place_is_believed_again(office, alarm):
    refused = calling(office.cast["viewer"]).patch(f"{ALARMS}{alarm.pk}/", {"ended": True}, format="json")
    ended = calling(office.cast["operator"]).patch(f"{ALARMS}{alarm.pk}/", {"ended": True}, format="json")

    assert (refused.status_code, ended.status_code) == (403, 200)
    assert ended.json()["ended_by"] == "olivia"
    assert WantedLimit.objects.get(evse=office.campus.evses[0]).isolated_at is None


@pytest.mark.parametrize("body", [{}, {"ended": False}, {"ended": True, "kind": "other"}])
def test_an_alarm_is_ended_by_saying_so_and_by_nothing_else(office, alarm, body):
    answer = calling(office.cast["operator"]).patch(f"{ALARMS}{alarm.pk}/", body, format="json")

    assert answer.status_code == 400
    assert Alarm.objects.get(pk=alarm.pk).open


def test_the_same_matter_raises_one_alarm(office, alarm):
    again = alarms.raise_alarm(
        alarm.kind, timezone.now(), station_pk=alarm.station_id, evse_pk=alarm.evse_id, detail="30 A measured"
    )

    assert again is not None and again.pk == alarm.pk
    assert Alarm.objects.get(pk=alarm.pk).detail == "30 A measured"


def test_a_stations_page_shows_its_limits_its_capabilities_and_its_quirks(office):
    station = office.station
    ChargingStation.objects.filter(pk=station.pk).update(
        counters={"extra_field": 3, "odd_thing": 1},
        counted_at={"extra_field": "2026-11-24T10:00:00+00:00"},
        capabilities={"rate_unit": "W"},
    )

    shown = entered(office.cast["operator"]).get(page("csms.chargingstation", "change", station.pk)).content.decode()

    for words in ("fields the schema does not know", "odd_thing", "set on this station", "learnt", "default profile"):
        assert words in shown, words


def test_how_far_a_limit_was_followed_is_said_in_words_and_can_be_chosen(office):
    told = ToldLimit.objects.get()
    ToldLimit.objects.update(state="not_followed")
    client = entered(office.cast["operator"])

    shown = client.get(page("csms.toldlimit", "change", told.pk)).content.decode()
    listed = [
        client.get(page("csms.toldlimit"), {"state": s}).context["cl"].result_count for s in ("not_followed", "asked")
    ]

    assert "not followed" in shown
    assert "not_followed" not in shown
    assert listed == [1, 0]


def test_a_superuser_sets_what_a_model_can_and_learning_does_not_undo_it(office):
    model = StationModel.objects.get()
    client = entered(office.cast["superuser"])
    address = page("csms.stationmodel", "change", model.pk)
    form = client.get(address).context["adminform"].form
    body = {name: form[name].value() or "" for name in form.fields}

    bad = client.post(address, {**body, "can_max_stack_level": "many"})
    done = client.post(
        address, {**body, "can_rate_unit": "A", "can_honours_duration": "false", "mend_extra_field": "off"}
    )

    assert bad.status_code == 200
    assert bad.context["adminform"].form.errors["can_max_stack_level"] == ["Give a whole number from 0 to 1000."]
    assert done.status_code == 302, done.context["adminform"].form.errors
    model.refresh_from_db()
    assert (model.value("rate_unit"), model.value("honours_duration"), model.value("purpose")) == (
        "A",
        False,
        "tx_default",
    )
    assert model.capabilities["rate_unit"]["source"] == "set"
    assert model.repairs == {"extra_field": "off"}

"""Sites, transactions, cards, profiles, devices, prices and grid commands over REST."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest
from django.utils import timezone

from csms.models import IdToken, MeterSample
from meters import live
from meters.measurement import Measurement
from meters.models import Device, Site
from smartcharging.models import AllocationRecord, GridCommand, Plan, Price, UserProfile
from tests.people import calling
from tests.webapp import campus as scenery

pytestmark = pytest.mark.django_db


@pytest.fixture
def operator(office):
    return calling(office.cast["operator"])


@pytest.fixture
def installer(office):
    return calling(office.cast["installer"])


def test_now_is_the_picture_the_live_layer_left(office, operator):
    painted = scenery.publish(office.campus)

    assert operator.get(f"/api/v1/sites/{office.site.pk}/now/").json() == painted


@pytest.mark.parametrize("left", ["nothing", "an old one", "rubbish"])
def test_without_a_fresh_picture_one_is_painted(office, operator, left):
    if left == "an old one":
        scenery.publish(office.campus, at=(timezone.now() - timedelta(minutes=5)).isoformat())
    if left == "rubbish":
        live.connection().set(f"now:{office.site.pk}", '{"at": 7}')

    now = operator.get(f"/api/v1/sites/{office.site.pk}/now/").json()

    names = {c["name"] for c in now["circuits"]}
    assert names == {"grid", "row 1", "row 2"}
    for circuit in now["circuits"]:
        assert {"name", "limit_a", "load_a", "headroom_a", "reason"} <= circuit.keys()
        assert len(circuit["limit_a"]) == 3
    assert now["flows"]["grid_w"] is None, "no meter has spoken: unknown is not zero"


def test_a_site_nobody_described_has_an_empty_picture_and_no_plan(office):
    everywhere = calling(office.cast["superuser"])

    now = everywhere.get(f"/api/v1/sites/{office.elsewhere.pk}/now/")
    plan = everywhere.get(f"/api/v1/sites/{office.elsewhere.pk}/plan/")
    report = everywhere.get(f"/api/v1/sites/{office.elsewhere.pk}/report/")

    assert (now.status_code, now.json()["circuits"]) == (200, [])
    assert plan.status_code == 404
    assert "no plan" in plan.json()["detail"]
    assert report.json()["energy_wh"]["grid_import"] is None


def test_the_plan_names_its_evses(office, operator):
    plan = operator.get(f"/api/v1/sites/{office.site.pk}/plan/").json()

    assert (plan["valid"], plan["status"], plan["slot_s"]) == (True, "optimal", 900)
    (planned,) = plan["evses"]
    assert (planned["station"], planned["number"], len(planned["power_w"])) == ("CS-001", 1, 96)
    assert len(plan["grid_w"]) == len(plan["price_eur_per_mwh"]) == 96


def test_the_plan_names_its_loads_with_their_course_and_what_they_fall_short_of(office, operator):
    boiler = office.site.devices.create(name="boiler", kind="load")
    plan = Plan.objects.get(site=office.site)
    short = {"key": str(boiler.pk), "name": "boiler", "amount": 2.5, "unit": "K·h", "reason": "time"}
    key = str(boiler.pk)
    plan.result |= {"load_w": {key: [2000.0] * 96}, "temperature_c": {key: [48.0] * 96}, "load_short": [short]}
    plan.save()

    (load,) = operator.get(f"/api/v1/sites/{office.site.pk}/plan/").json()["loads"]

    assert (load["id"], load["name"], load["power_w"][0], load["temperature_c"][0]) == (boiler.pk, "boiler", 2000, 48)
    assert (load["short"]["amount"], load["short"]["reason"]) == (2.5, "time")


def test_a_report_has_energy_money_and_who_charged(office, operator):
    scenery.day_of_quarters(office.campus)
    today = timezone.now().astimezone(office.site.tz).date().isoformat()

    report = operator.get(f"/api/v1/sites/{office.site.pk}/report/?from={today}&to={today}").json()

    assert (report["from"], report["to"]) == (today, today)
    assert report["energy_wh"]["charging"] > 0
    assert [s["station"] for s in report["stations"]] == ["CS-001"]
    assert [u["id_token"] for u in report["users"]] == [office.token.value]
    assert [p["profile"] for p in report["profiles"]] == ["fleet"]
    assert report["profiles"][0]["energy_wh"] == pytest.approx(report["energy_wh"]["charging"])


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("from=monday", "from"),
        ("to=2026-13-01", "to"),
        ("from=2026-02-02&to=2026-02-01", "from"),
        ("from=1990-01-01", "from"),
    ],
)
def test_a_report_of_impossible_days_is_refused(office, operator, query, field):
    answer = operator.get(f"/api/v1/sites/{office.site.pk}/report/?{query}")

    assert answer.status_code == 400
    assert list(answer.json()) == [field]


def test_a_transaction_tells_its_story(office, operator):
    charge, evse = office.campus.transaction, office.campus.evses[0]
    AllocationRecord.objects.create(evse=evse, at=charge.started_at - timedelta(minutes=1), limit_a=6, reason="free")

    told = operator.get(f"/api/v1/transactions/{charge.pk}/").json()

    expected = {
        "id": charge.pk,
        "transaction_id": "1001",
        "station": "CS-001",
        "evse": 1,
        "id_token": office.token.value,
        "ended_at": None,
        "stop_reason": "",
        "energy_wh": 11_400,
    }
    assert {k: told[k] for k in expected} == expected
    assert told["goal"]["id"] == office.goal.pk
    assert [e["kind"] for e in told["events"]] == ["started"]
    assert [p["energy_wh"] for p in told["energy"]] == [11_400]
    assert [entry["limit_a"] for entry in told["limits"]] == [6, 12]


def test_a_long_charge_is_told_in_few_points(office, operator):
    charge, evse = office.campus.transaction, office.campus.evses[0]
    MeterSample.objects.bulk_create(
        MeterSample(evse=evse, transaction=charge, at=charge.started_at + timedelta(seconds=n), energy_wh=1e6 + n)
        for n in range(1600)
    )

    points = operator.get(f"/api/v1/transactions/{charge.pk}/").json()["energy"]

    assert len(points) <= 502
    assert points[-1]["energy_wh"] == 11_400


@pytest.mark.parametrize(
    ("query", "count"),
    [
        ("open=true", 1),
        ("open=false", 0),
        ("station=CS-001", 1),
        ("station=CS-002", 0),
        ("id_token=04a1b2c3d4", 1),
        ("from=2020-01-01T00:00:00Z", 1),
        ("to=2020-01-01T00:00:00Z", 0),
    ],
)
def test_transactions_are_filtered(office, operator, query, count):
    assert operator.get(f"/api/v1/transactions/?{query}").json()["count"] == count


def test_a_card_is_admitted_changed_and_removed(office, operator):
    cards = "/api/v1/id-tokens/"

    made = operator.post(cards, {"value": "CAFE01", "profile": "fleet", "expires_at": "2036-01-01T00:00:00Z"})
    assert made.status_code == 201, made.content
    card = made.json()
    assert (card["site"], card["status"], card["type"], card["profile"]) == (
        office.site.pk,
        "accepted",
        "ISO14443",
        "fleet",
    )
    changed = operator.patch(f"{cards}{card['id']}/", {"profile": None, "status": "blocked"}).json()
    assert (changed["profile"], changed["status"]) == (None, "blocked")
    by_id = operator.patch(f"{cards}{card['id']}/", {"profile": office.profile.pk}).json()
    assert by_id["profile"] == "fleet"
    assert operator.delete(f"{cards}{card['id']}/").status_code == 204
    assert not IdToken.objects.filter(value="CAFE01").exists()


WRONG_CARDS = [
    ({}, "value"),
    ({"value": ""}, "value"),
    ({"value": "x" * 37}, "value"),
    ({"value": "04a1b2c3d4"}, "value"),
    ({"value": "\u0000"}, "value"),
    ({"value": "A", "status": "Accepted"}, "status"),
    ({"value": "A", "type": "RFID"}, "type"),
    ({"value": "A", "expires_at": "soon"}, "expires_at"),
    ({"value": "A", "profile": "nobody's"}, "profile"),
    ({"value": "A", "profile": []}, "profile"),
    ({"value": "A", "driver": "sofie-not-there"}, "driver"),
    ({"value": "A", "site": "Kaai 9"}, "site"),
    ({"value": "A", "colour": "red"}, "colour"),
]


def test_a_card_that_cannot_be_is_refused_at_its_field(office, operator):
    for body, field in WRONG_CARDS:
        answer = operator.post("/api/v1/id-tokens/", body)

        assert answer.status_code == 400, (body, answer.content)
        assert list(answer.json()) == [field], body


def test_a_card_stays_on_its_site(office):
    answer = calling(office.cast["superuser"]).patch(
        f"/api/v1/id-tokens/{office.token.pk}/", {"site": office.elsewhere.pk}
    )

    assert answer.json().keys() == {"site"}


def test_a_profile_of_another_site_is_no_profile_of_this_card(office):
    UserProfile.objects.create(site=office.elsewhere, name="theirs")

    answer = calling(office.cast["superuser"]).patch(f"/api/v1/id-tokens/{office.token.pk}/", {"profile": "theirs"})

    assert answer.json().keys() == {"profile"}


def test_a_user_profile_speaks_in_kwh_and_clock_time(office, operator):
    made = operator.post("/api/v1/user-profiles/", {"name": "night", "departure": "06:30", "energy_kwh": 12.5})

    assert made.status_code == 201
    assert (made.json()["departure"], made.json()["energy_kwh"]) == ("06:30:00", 12.5)
    assert operator.post("/api/v1/user-profiles/", {"name": "night"}).json().keys() == {"name"}
    assert operator.patch(f"/api/v1/user-profiles/{made.json()['id']}/", {"priority": 2}).status_code == 200


def test_a_device_shows_what_it_measures_and_how_old_that_is(office, operator):
    at = timezone.now() - timedelta(seconds=60)
    live.store(live.device_source(office.device.pk), Measurement(at=at, power_w=18_400), office.site.pk)

    device = operator.get(f"/api/v1/devices/{office.device.pk}/").json()

    assert device["measurement"]["power_w"] == 18_400
    assert device["age_s"] >= 60
    assert device["stale"] is True
    silent = operator.get(f"/api/v1/devices/{office.campus.devices['roof'].pk}/").json()
    assert (silent["measurement"], silent["age_s"], silent["stale"]) == (None, None, True)


WRONG_DEVICES = [
    ({"name": "main"}, "name"),
    ({"name": "a", "kind": "toaster"}, "kind"),
    ({"name": "a", "connect": "http://x"}, "connect"),
    ({"name": "a", "connect": "tcp://10.0.0.1:502?unit=1", "map": "acme_nothing"}, "map"),
    ({"name": "a", "connect": "tcp://10.0.0.1:502?unit=1"}, "map"),
    ({"name": "a", "wiring": ["L4"]}, "wiring"),
    ({"name": "a", "options": [1]}, "options"),
    ({"name": "a", "options": {"peak_w": "big"}}, "options"),
    ({"name": "a", "options": {"note": "\u0000"}}, "options"),
    ({"name": "a", "poll_s": 0}, "poll_s"),
    ({"name": "a", "poll_s": 10, "max_age_s": 5}, "max_age_s"),
    ({"name": "a", "last_error": "none"}, "last_error"),
]


def test_a_device_that_cannot_be_is_refused_at_its_field(office, installer):
    for body, field in WRONG_DEVICES:
        answer = installer.post("/api/v1/devices/", body)

        assert answer.status_code == 400, (body, answer.content)
        assert list(answer.json()) == [field], body


def test_without_a_neutral_a_device_names_both_its_lines(office, installer):
    Site.objects.filter(pk=office.site.pk).update(supply="it")

    refused = installer.post("/api/v1/devices/", {"name": "boiler", "kind": "load", "wiring": ["L2"]})

    assert (refused.status_code, list(refused.json())) == (400, ["wiring"])
    assert installer.post("/api/v1/devices/", {"name": "boiler", "wiring": ["L2", "L3"]}).status_code == 201
    assert installer.get(f"/api/v1/sites/{office.site.pk}/").json()["supply"] == "it"


def test_a_device_is_added_by_its_connection_and_map(office, installer):
    body = {
        "name": "row 1",
        "map": "eastron_sdm630",
        "connect": "tcp://10.0.0.1:502?unit=2",
        "wiring": ["L2", "L3", "L1"],
    }

    assert installer.post("/api/v1/devices/", body).status_code == 201
    assert Device.objects.get(name="row 1").wiring == ["L2", "L3", "L1"]


def test_prices_are_set_in_bulk_and_a_second_time_replaced(office, operator):
    rows = [{"area": "BE", "start": f"2036-01-01T0{h}:00:00Z", "minutes": 60, "eur_per_mwh": 50 + h} for h in range(3)]

    assert operator.post("/api/v1/prices/", rows).json() == {"set": 3}
    rows[0]["eur_per_mwh"] = -12.5
    assert operator.post("/api/v1/prices/", rows).json() == {"set": 3}

    found = operator.get("/api/v1/prices/?area=BE&from=2036-01-01T00:00:00Z").json()["results"]
    assert [p["eur_per_mwh"] for p in found] == [-12.5, 51, 52]


def test_one_bad_price_and_none_is_set(office, operator):
    rows = [
        {"area": "BE", "start": "2036-01-01T00:00:00Z", "eur_per_mwh": 50},
        {"area": "NL", "start": "2036-01-01T00:00:00Z", "eur_per_mwh": 50},
        {"area": "BE", "start": "2036-01-01T00:00:00Z", "eur_per_mwh": 51},
    ]

    answer = operator.post("/api/v1/prices/", rows)

    assert answer.status_code == 400
    assert {index: list(row) for index, row in answer.json().items()} == {"1": ["area"], "2": ["start"]}
    assert not Price.objects.filter(start__year=2036).exists()
    assert operator.post("/api/v1/prices/", [{**rows[0], "start": "2036-01-01T00:07:00Z"}]).json() == {
        "0": {"start": ["A price starts on a quarter hour."]}
    }


def test_a_grid_command_is_given_and_ended(office, operator):
    made = operator.post("/api/v1/grid-commands/", {"import_limit_w": 40_000, "reason": "congestion"})
    assert made.status_code == 201, made.content
    assert (made.json()["state"], made.json()["by"], made.json()["site"]) == ("received", "olivia", office.site.pk)
    address = f"/api/v1/grid-commands/{made.json()['id']}/"

    later = (timezone.now() + timedelta(hours=1)).isoformat()
    assert operator.patch(address, {"ends_at": later}).json()["state"] == "received"
    ended = operator.patch(address, {"state": "ended"}).json()

    assert ended["state"] == "ended"
    assert ended["ended_at"]
    assert operator.patch(address, {"state": "ended"}).status_code == 400
    assert operator.get("/api/v1/grid-commands/?state=ended").json()["count"] == 1


WRONG_COMMANDS = [
    ({"reason": "x"}, "import_limit_w"),
    ({"import_limit_w": -1, "reason": "x"}, "import_limit_w"),
    ({"import_limit_w": 1}, "reason"),
    ({"import_limit_w": 1, "reason": "x", "ends_at": "2020-01-01T00:00:00Z"}, "ends_at"),
    ({"import_limit_w": 1, "reason": "x", "state": "ended"}, "state"),
]


def test_a_grid_command_that_cannot_be_is_refused_at_its_field(office, operator):
    for body, field in WRONG_COMMANDS:
        answer = operator.post("/api/v1/grid-commands/", body)

        assert answer.status_code == 400, (body, answer.content)
        assert list(answer.json()) == [field], body
        assert GridCommand.objects.count() == 1


def raw(client, method: str, path: str, body: str, kind: str = "application/json"):
    return client.generic(method, path, body, content_type=kind)


@pytest.mark.parametrize(
    ("body", "kind", "status"),
    [
        ("{", "application/json", 400),
        ("", "application/json", 400),
        ("null", "application/json", 400),
        ("[1, 2]", "application/json", 400),
        ('{"value": NaN}', "application/json", 400),
        ('{"value": 1e999}', "application/json", 400),
        ("[" * 100_000, "application/json", 400),
        ('{"value": "' + "\\ud800" + '"}', "application/json", 400),
        ('{"value": ' + "9" * 5000 + "}", "application/json", 400),
        ("value=A", "application/x-www-form-urlencoded", 415),
        ("x" * 3_000_000, "application/json", 413),
        (b"\xff\xfe{}", "application/json", 400),
    ],
    ids=["cut", "empty", "null", "list", "nan", "infinite", "deep", "surrogate", "endless", "form", "huge", "bytes"],
)
def test_a_body_that_is_no_json_object_is_refused_in_json(office, operator, body, kind, status):
    answer = raw(operator, "POST", "/api/v1/id-tokens/", body, kind)

    assert answer.status_code == status, answer.content
    assert answer["Content-Type"] == "application/json"
    assert json.loads(answer.content)


@pytest.mark.parametrize("path", ["sites", "goals", "stations"])
def test_a_forgotten_slash_is_pointed_out(office, operator, path):
    answer = operator.post(f"/api/v1/{path}", {})

    assert answer.status_code == 404
    assert f"/api/v1/{path}/" in answer.json()["detail"]


@pytest.mark.parametrize("path", ["sites/99999999999999999999/", "goals/abc/", "transactions/-1/", "devices/1.5/"])
def test_an_impossible_number_is_simply_not_there(office, operator, path):
    assert operator.get(f"/api/v1/{path}").status_code == 404


@pytest.mark.parametrize(
    "query",
    ["stations/?site=abc", "stations/?site=1e400", "devices/?kind=x", "goals/?open=maybe", "transactions/?from=x"],
)
def test_a_filter_that_makes_no_sense_is_refused(office, operator, query):
    answer = operator.get(f"/api/v1/{query}")

    assert answer.status_code in (200, 400)
    assert answer["Content-Type"] == "application/json"


@pytest.mark.parametrize("path", ["stations", "goals", "transactions", "id-tokens", "devices", "sites", "prices"])
def test_strange_characters_in_a_filter_do_no_harm(office, operator, path):
    for name in ("identity", "station", "value", "name", "area", "external_id", "id_token", "protocol"):
        assert operator.get(f"/api/v1/{path}/?{name}=%00%F0%9F%98%80'--").status_code in (200, 400)

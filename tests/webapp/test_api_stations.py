"""Stations over REST: the fields clients rely on, what may be set, the log, and a message of one's own."""

from __future__ import annotations

import json
import threading
from datetime import timedelta
from urllib.parse import quote

import pytest
from django.utils import timezone

from csms.models import EVSE, ChargingStation, OcppMessage
from csms.sealing import opened
from meters import live
from meters.measurement import Measurement
from meters.models import Site
from tests.people import calling
from tests.webapp import campus as scenery

pytestmark = pytest.mark.django_db

STATIONS = "/api/v1/stations/"


@pytest.fixture
def operator(office):
    return calling(office.cast["operator"])


@pytest.fixture
def installer(office):
    return calling(office.cast["installer"])


def test_a_station_has_the_fields_clients_rely_on(office, operator):
    scenery.connect(office.campus.evses[0])
    live.store(
        live.evse_source(office.campus.evses[0].pk),
        Measurement(at=timezone.now(), power_w=7360, current_a=(10.7, 10.6, 10.5)),
        office.site.pk,
    )

    station = operator.get(f"{STATIONS}{office.station.identity}/").json()

    assert station["identity"] == "CS-001"
    assert station["connected"] is True
    assert {"protocol", "last_seen", "quiet", "admission"} <= station.keys()
    (evse,) = station["evses"]
    assert (evse["id"], evse["status"], evse["iec_state"]) == (1, "Charging", "C2")
    assert evse["power_w"] == 7360
    assert evse["current_a"] == [10.7, 10.6, 10.5]
    assert evse["transaction"] == office.campus.transaction.pk
    limit = evse["limit"]
    assert (limit["wanted_a"], limit["accepted_a"], limit["measured_a"]) == (12, 12, 10.7)
    assert limit["reason"] == "limit:row 1:L2"


def test_a_stale_measurement_is_unknown_and_not_zero(office, operator):
    old = timezone.now() - timedelta(minutes=10)
    scenery.live_power(office.campus, at=old)

    (evse,) = operator.get(f"{STATIONS}{office.station.identity}/").json()["evses"]

    assert evse["power_w"] is None
    assert evse["current_a"] is None
    assert evse["limit"]["measured_a"] is None


def test_the_list_asks_the_database_the_same_number_of_questions_for_any_length(
    office, operator, django_assert_max_num_queries
):
    for n in range(30):
        station = ChargingStation.objects.create(identity=f"X-{n:02}", site=office.site)
        EVSE.objects.create(station=station, number=1)

    with django_assert_max_num_queries(9):
        answer = operator.get(STATIONS)

    assert answer.json()["count"] == 36


def test_lists_are_paginated(office, operator):
    first = operator.get(STATIONS + "?limit=4").json()
    second = operator.get(first["next"]).json()

    assert [len(first["results"]), len(second["results"])] == [4, 2]
    assert second["next"] is None


def test_a_station_is_set_quiet_and_the_gateways_hear_of_it(office, operator, django_capture_on_commit_callbacks):
    heard = live.connection().pubsub()
    heard.subscribe("changed")
    heard.get_message(timeout=1)

    with django_capture_on_commit_callbacks(execute=True):
        answer = operator.patch(f"{STATIONS}{office.station.identity}/", {"quiet": True, "name": "By the gate"})

    assert (answer.json()["quiet"], answer.json()["name"]) == (True, "By the gate")
    told = heard.get_message(timeout=2)
    assert json.loads(told["data"]) == {"kind": "station", "id": office.station.pk}


def test_a_password_goes_in_and_never_comes_out(office, operator):
    answer = operator.patch(f"{STATIONS}{office.station.identity}/", {"password": "correct horse"})

    assert answer.status_code == 200
    assert "password" not in answer.json()
    assert "horse" not in answer.content.decode()
    station = ChargingStation.objects.get(pk=office.station.pk)
    assert station.password_hash
    assert station.password_is("correct horse")


WRONG_SETTINGS = [
    ({"quite": True}, "quite"),
    ({"protocol": "ocpp1.6"}, "protocol"),
    ({"admission": "welcome"}, "admission"),
    ({"priority": 11}, "priority"),
    ({"max_a": -1}, "max_a"),
    ({"max_a": "many"}, "max_a"),
    ({"max_a": True}, "max_a"),
    ({"min_a": 40}, "min_a"),
    ({"wiring": ["L1", "L1"]}, "wiring"),
    ({"wiring": "L1"}, "wiring"),
    ({"site": 999_999}, "site"),
    ({"name": "x" * 101}, "name"),
]


def test_a_wrong_value_is_refused_at_its_field(office, installer):
    for body, field in WRONG_SETTINGS:
        answer = installer.patch(f"{STATIONS}{office.station.identity}/", body)

        assert answer.status_code == 400, (body, answer.content)
        assert list(answer.json()) == [field], body


def test_without_a_neutral_a_station_of_one_line_is_refused(office, installer):
    Site.objects.filter(pk=office.site.pk).update(supply="it")
    address = f"{STATIONS}{office.station.identity}/"

    refused = installer.patch(address, {"wiring": ["L2"]})

    assert (refused.status_code, list(refused.json())) == (400, ["wiring"])
    assert installer.patch(address, {"wiring": ["L2", "L3"]}).status_code == 200


def test_an_installer_makes_a_station_with_its_evses(office, installer):
    body = {"site": office.site.name, "identity": "CS 9/β", "password": "a secret one", "evse_count": 2, "max_a": 16}
    answer = installer.post(STATIONS, body)

    assert answer.status_code == 201
    assert answer.json()["admission"] == "accepted"
    assert [e["id"] for e in answer.json()["evses"]] == [1, 2]
    assert installer.post(STATIONS, body).json().keys() == {"identity"}


def test_a_station_that_waits_in_quarantine_is_taken_over_by_its_identity(office, installer):
    waiting = ChargingStation.objects.create(identity="NEW-1", vendor="Acme")
    EVSE.objects.create(station=waiting, number=1)

    answer = installer.post(STATIONS, {"site": office.site.name, "identity": "NEW-1", "evse_count": 2})

    assert answer.status_code == 201, answer.content
    waiting.refresh_from_db()
    assert (waiting.site, waiting.admission, waiting.vendor) == (office.site, "accepted", "Acme")
    assert [e["id"] for e in answer.json()["evses"]] == [1, 2]


def test_a_station_of_another_site_is_taken_over_by_nobody(office, installer):
    quarantined = ChargingStation.objects.create(identity="THEIRS", site=office.elsewhere)
    answer = installer.post(STATIONS, {"site": office.site.name, "identity": "THEIRS"})
    assert answer.status_code == 400
    assert answer.json() == {"identity": ["There is a station of this identity already."]}
    quarantined.refresh_from_db()
    assert quarantined.site == office.elsewhere


@pytest.mark.parametrize("identity", ["plain", "with/slash", "per%cent", "a b", "ligne-β", "x/messages"])
def test_any_identity_has_an_address(office, operator, identity):
    ChargingStation.objects.create(identity=identity, site=office.site)
    encoded = quote(identity, safe="")

    once = operator.get(f"{STATIONS}{encoded}/")
    log = operator.get(f"{STATIONS}{encoded}/messages/")

    if identity != "x/messages":  # that address is the log of a station named x
        assert once.json()["identity"] == identity
    assert log.status_code == 200


def test_a_name_encoded_once_more_is_found_too(office, operator):
    ChargingStation.objects.create(identity="with/slash", site=office.site)

    assert operator.get(f"{STATIONS}with%252Fslash/").json()["identity"] == "with/slash"


def test_an_impossible_identity_is_simply_not_there(office, operator):
    assert operator.get(f"{STATIONS}%00/").status_code == 404


def test_the_log_is_newest_first_and_filtered(office, operator):
    now = timezone.now()
    for n in range(5):
        OcppMessage.objects.create(
            station=office.station,
            at=now + timedelta(seconds=n + 1),
            direction="out" if n % 2 else "in",
            kind="call" if n < 3 else "result",
            message_id=f"id{n}",
            action="StatusNotification",
            payload={"n": n},
            raw="[]",
        )
    log = f"{STATIONS}{office.station.identity}/messages/"

    everything = operator.get(log).json()["results"]
    assert [m["message_id"] for m in everything] == ["id4", "id3", "id2", "id1", "id0", "m1"]
    assert {"at", "direction", "kind", "message_id", "action", "payload", "raw"} <= everything[0].keys()
    since = (now + timedelta(seconds=4)).isoformat().replace("+00:00", "Z")
    for query, found in (
        ("action=Heartbeat", ["m1"]),
        ("direction=out", ["id3", "id1"]),
        ("kind=result", ["id4", "id3"]),
        ("message_id=id2", ["id2"]),
        (f"since={since}", ["id4", "id3"]),
    ):
        assert [m["message_id"] for m in operator.get(f"{log}?{query}").json()["results"]] == found, query
    page = operator.get(f"{log}?limit=2").json()
    assert [m["message_id"] for m in operator.get(page["next"]).json()["results"]] == ["id2", "id1"]


@pytest.mark.parametrize(("query", "field"), [("since=yesterday", "since"), ("direction=up", "direction")])
def test_a_filter_that_makes_no_sense_is_refused_by_name(office, operator, query, field):
    answer = operator.get(f"{STATIONS}{office.station.identity}/messages/?{query}")

    assert answer.status_code == 400
    assert list(answer.json()) == [field]


class Gateway(threading.Thread):
    """Answers the calls of one gateway's stream as it is told to, the way the real one does."""

    def __init__(self, reply: dict) -> None:
        super().__init__(daemon=True)
        self.reply, self.asked = reply, None

    def run(self) -> None:
        client = live.connection()
        found = client.xread({"call:g1": "0"}, block=5000, count=1)
        self.asked = json.loads(opened(found[0][1][0][1]["body"]))
        client.rpush(f"reply:{self.asked['id']}", json.dumps(self.reply))


@pytest.mark.parametrize(
    ("reply", "status", "body"),
    [
        ({"kind": "result", "result": {"status": "Accepted"}}, 200, {"result": {"status": "Accepted"}}),
        (
            {"kind": "error", "code": "NotSupported", "description": "no", "details": {"a": 1}},
            502,
            {"error": {"code": "NotSupported", "description": "no", "details": {"a": 1}}},
        ),
        (
            {"kind": "invalid", "description": "type: Softly is not one of Hard, Soft"},
            422,
            {"error": {"code": "NotValid", "description": "type: Softly is not one of Hard, Soft", "details": None}},
        ),
        (
            {"kind": "timeout", "description": "silence"},
            504,
            {"error": {"code": "NoAnswer", "description": "silence", "details": None}},
        ),
        (
            {"kind": "unreachable"},
            409,
            {"error": {"code": "NotConnected", "description": "The station is not connected.", "details": None}},
        ),
    ],
)
def test_what_the_station_answers_is_passed_on(office, operator, reply, status, body):
    scenery.connect(office.campus.evses[0])
    gateway = Gateway(reply)
    gateway.start()

    answer = operator.post(
        f"{STATIONS}{office.station.identity}/ocpp/",
        '{"action": "DataTransfer", "payload": {"messageId": "m", "vendorId": "v", "data": {"b": 1, "a": 2}}}',
        content_type="application/json",
    )
    gateway.join(5)

    assert answer.status_code == status
    assert answer.json() == body
    assert gateway.asked["action"] == "DataTransfer"
    assert json.dumps(gateway.asked["payload"]) == '{"messageId": "m", "vendorId": "v", "data": {"b": 1, "a": 2}}'


def test_a_password_a_station_tells_is_blanked(office, operator):
    scenery.connect(office.campus.evses[0])
    told = {"component": {"name": "SecurityCtrlr"}, "variable": {"name": "BasicAuthPassword"}}
    result = {"getVariableResult": [{**told, "attributeStatus": "Accepted", "attributeValue": "tell-nobody"}]}
    gateway = Gateway({"kind": "result", "result": result})
    gateway.start()

    answer = operator.post(
        f"{STATIONS}{office.station.identity}/ocpp/",
        {"action": "GetVariables", "payload": {"getVariableData": [told]}},
        content_type="application/json",
    )
    gateway.join(5)

    assert answer.status_code == 200, answer.content
    assert "tell-nobody" not in answer.content.decode()
    assert answer.json()["result"]["getVariableResult"][0]["attributeStatus"] == "Accepted"


def test_what_does_not_fit_the_dialect_is_not_sent(office, operator):
    scenery.connect(office.campus.evses[0])

    answer = operator.post(
        f"{STATIONS}{office.station.identity}/ocpp/", {"action": "Reset", "payload": {"type": "Softly"}}
    )

    assert answer.status_code == 422
    assert answer.json()["error"]["code"] == "NotValid"
    assert "type" in answer.json()["error"]["description"]
    assert live.connection().xlen("call:g1") == 0


WRONG_CALLS = [
    ({"payload": {}}, "action"),
    ({"action": "Reset"}, "payload"),
    ({"action": "Reset", "payload": []}, "payload"),
    ({"action": "Re set", "payload": {}}, "action"),
    ({"action": 7.5, "payload": {}}, "action"),
    ({"action": "Reset", "payload": {}, "timeout": 3}, "timeout"),
]


def test_a_call_that_is_no_call_is_refused_by_name(office, operator):
    for body, field in WRONG_CALLS:
        answer = operator.post(f"{STATIONS}{office.station.identity}/ocpp/", body)

        assert answer.status_code == 400, (body, answer.content)
        assert list(answer.json()) == [field], body

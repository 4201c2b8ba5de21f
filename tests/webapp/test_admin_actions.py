"""The daily actions: asked first, done by whoever may, and what the station said is shown. Never a server error."""

from __future__ import annotations

import json
import threading

import pytest
from django.test import Client
from django.urls import reverse

from csms.models import ChargingStation, IdToken
from csms.sealing import opened
from meters import live
from smartcharging.models import ChargingGoal
from tests.webapp import campus as scenery

pytestmark = pytest.mark.django_db

DONE = {"_form_submitted": "True"}


def entered(user) -> Client:
    client = Client()
    client.force_login(user)
    return client


def act(client: Client, label: str, action: str, pk: int | None, **fields) -> list[str]:
    """Do it, and read what is shown after."""
    name = f"admin:{label.replace('.', '_')}_{action}"
    answer = client.post(reverse(name, args=[pk] if pk else []), {**DONE, **fields}, follow=True)
    assert answer.status_code == 200, answer.content
    assert answer.redirect_chain, answer.context["form"].errors
    return [str(m) for m in answer.context["messages"]]


class Gateway(threading.Thread):
    """Answers one call as it is told to, the way the real one does."""

    def __init__(self, reply: dict) -> None:
        super().__init__(daemon=True)
        self.reply, self.asked = reply, None
        self.start()

    def run(self) -> None:
        client = live.connection()
        found = client.xread({"call:g1": "0"}, block=8000, count=1)
        if found:
            self.asked = json.loads(opened(found[0][1][0][1]["body"]))
            client.rpush(f"reply:{self.asked['id']}", json.dumps(self.reply))


ASKED = [
    ("remote_start", {"evse": "EVSE", "id_token": "TOKEN"}, "RequestStartTransaction"),
    ("unlock", {"evse": "EVSE", "connector": "1"}, "UnlockConnector"),
    ("availability", {"evse": "", "operative": "no"}, "ChangeAvailability"),
    ("reset", {"evse": "", "kind": "hard"}, "Reset"),
    ("trigger", {"evse": "EVSE", "message": "StatusNotification"}, "TriggerMessage"),
    ("fetch_report", {}, "GetBaseReport"),
    ("fetch_variables", {}, "GetVariables"),
    ("clear_limits", {"evse": "EVSE"}, "ClearChargingProfile"),
]


def filled(office, fields: dict[str, str]) -> dict[str, str]:
    names = {"EVSE": str(office.campus.evses[0].pk), "TOKEN": str(office.token.pk)}
    return {key: names.get(value, value) for key, value in fields.items()}


@pytest.mark.parametrize(("action", "fields", "ocpp"), ASKED, ids=[a for a, _, _ in ASKED])
def test_an_operator_asks_a_station_and_reads_its_answer(office, action, fields, ocpp):
    scenery.connect(office.campus.evses[0])
    gateway = Gateway({"kind": "result", "result": {"status": "Rejected"}})

    said = act(
        entered(office.cast["operator"]), "csms.chargingstation", action, office.station.pk, **filled(office, fields)
    )
    gateway.join(5)

    assert gateway.asked["action"] == ocpp
    assert len(said) == 1
    assert said[0].startswith("CS-001 answered")


@pytest.mark.parametrize(("action", "fields", "ocpp"), ASKED, ids=[a for a, _, _ in ASKED])
def test_a_station_that_is_away_is_an_answer_too(office, action, fields, ocpp):
    said = act(
        entered(office.cast["operator"]), "csms.chargingstation", action, office.station.pk, **filled(office, fields)
    )

    assert said == ["CS-001 is not connected; nothing was sent."]


@pytest.mark.parametrize(
    ("reply", "shown"),
    [
        ({"kind": "error", "code": "NotSupported", "description": "no lock"}, "refused: NotSupported: no lock"),
        ({"kind": "invalid", "description": "evseId"}, "cannot be asked of CS-001: evseId"),
        ({"kind": "timeout", "description": "silence"}, "did not answer in time"),
        ({"kind": "unreachable"}, "is not connected"),
    ],
)
def test_every_way_of_not_answering_is_told(office, reply, shown):
    scenery.connect(office.campus.evses[0])
    Gateway(reply)

    said = act(
        entered(office.cast["operator"]),
        "csms.chargingstation",
        "unlock",
        office.station.pk,
        evse=office.campus.evses[0].pk,
        connector=1,
    )

    assert shown in said[0]


def test_a_look_at_a_dialog_does_nothing(office):
    """A link that is followed, or a page that is fetched ahead, must not reset a station."""
    scenery.connect(office.campus.evses[0])
    client = entered(office.cast["operator"])

    for action, _, _ in ASKED:
        answer = client.get(reverse(f"admin:csms_chargingstation_{action}", args=[office.station.pk]))
        assert answer.status_code == 200
        assert b"<form" in answer.content

    assert live.connection().xlen("call:g1") == 0


@pytest.mark.parametrize("name", ["viewer", "stranger"])
def test_who_may_not_operate_does_not_get_the_dialog(office, name):
    client = entered(office.cast[name])

    for action in ("accept", "reject", "set_password", "reset", "send_limit", "remote_start", "set_variable"):
        address = reverse(f"admin:csms_chargingstation_{action}", args=[office.station.pk])
        assert client.post(address, DONE).status_code == 403, action
    stop = reverse("admin:csms_transaction_remote_stop", args=[office.campus.transaction.pk])
    assert client.post(stop, {**DONE, "sure": "on"}).status_code == 403
    assert client.post(reverse("admin:meters_site_replan", args=[office.site.pk]), DONE).status_code == 403


def test_setting_a_variable_is_the_installers(office):
    address = reverse("admin:csms_chargingstation_set_variable", args=[office.station.pk])

    assert entered(office.cast["operator"]).post(address, DONE).status_code == 403
    said = act(
        entered(office.cast["installer"]),
        "csms.chargingstation",
        "set_variable",
        office.station.pk,
        component="OCPPCommCtrlr",
        variable="HeartbeatInterval",
        value="60",
    )
    assert said == ["CS-001 is not connected; nothing was sent."]


def test_a_charge_is_stopped(office):
    scenery.connect(office.campus.evses[0])
    gateway = Gateway({"kind": "result", "result": {"status": "Accepted"}})

    said = act(
        entered(office.cast["operator"]), "csms.transaction", "remote_stop", office.campus.transaction.pk, sure="on"
    )
    gateway.join(5)

    assert gateway.asked["payload"] == {"transactionId": "1001"}
    assert said == ["CS-001 answered: Accepted"]


def test_a_limit_by_hand_is_a_wish_with_a_lease(office):
    said = act(
        entered(office.cast["operator"]),
        "csms.chargingstation",
        "send_limit",
        office.station.pk,
        evse=office.campus.evses[0].pk,
        limit="8",
        unit="A",
        minutes="15",
    )

    (want,) = map(json.loads, live.connection().hvals("hands:CS-001:1"))
    assert (want["limit_a"], want["limit_w"], want["reason"]) == (8, None, "by hand (olivia)")
    assert said == ["CS-001 is not connected. The limit is kept for its time, and sent if it comes back."]


@pytest.mark.parametrize(
    "fields",
    [{"limit": "-1"}, {"limit": "33"}, {"limit": "many"}, {"minutes": "0"}, {"unit": "kW"}, {"evse": "FOREIGN"}],
)
def test_a_limit_that_cannot_be_is_refused_in_the_dialog(office, fields):
    good = {"evse": str(office.campus.evses[0].pk), "limit": "8", "unit": "A", "minutes": "15"}
    foreign = str(office.foreign_station.evses.get().pk)
    body = {**good, **{k: v.replace("FOREIGN", foreign) for k, v in fields.items()}, **DONE}

    answer = entered(office.cast["operator"]).post(
        reverse("admin:csms_chargingstation_send_limit", args=[office.station.pk]), body
    )

    assert list(answer.context["form"].errors) == list(fields)
    assert live.connection().get("want:CS-001:1") is None


def test_an_unknown_station_is_accepted_onto_a_site(office, django_capture_on_commit_callbacks):
    unknown = ChargingStation.objects.create(identity="WHO")
    client = entered(office.cast["superuser"])

    with django_capture_on_commit_callbacks(execute=True):
        said = act(client, "csms.chargingstation", "accept", unknown.pk, site=office.site.pk)

    unknown.refresh_from_db()
    assert (unknown.admission, unknown.site) == ("accepted", office.site)
    assert said[0] == "WHO is accepted."
    assert "It has no password" in said[1]
    assert "It hangs on no circuit yet" in said[2]
    assert unknown.history.first().history_user == office.cast["superuser"]


def test_stations_are_rejected_in_a_list(office):
    client = entered(office.cast["operator"])
    ticked = [e.station.pk for e in office.campus.evses[:2]]

    client.post(
        reverse("admin:csms_chargingstation_changelist"), {"action": "reject_ticked", "_selected_action": ticked}
    )

    assert ChargingStation.objects.filter(admission="rejected").count() == 2


def test_what_would_do_nothing_is_not_offered(office):
    client = entered(office.cast["operator"])
    page = reverse("admin:csms_chargingstation_change", args=[office.station.pk])

    accepted = client.get(page).content.decode()
    ChargingStation.objects.filter(pk=office.station.pk).update(admission="rejected")
    rejected = client.get(page).content.decode()

    assert ("/accept/" in accepted, "/reject/" in accepted) == (False, True)
    assert ("/accept/" in rejected, "/reject/" in rejected) == (True, False)


def test_a_password_is_set_and_kept_as_a_hash_only(office):
    client = entered(office.cast["operator"])

    said = act(client, "csms.chargingstation", "set_password", office.station.pk, password="correct horse")

    station = ChargingStation.objects.get(pk=office.station.pk)
    assert station.password_is("correct horse")
    assert said == ["The password of CS-001 is set."]
    page = client.get(reverse("admin:csms_chargingstation_change", args=[office.station.pk]))
    assert b"horse" not in page.content


def test_a_site_is_planned_again(office):
    operator = entered(office.cast["operator"])

    said = act(operator, "meters.site", "replan", office.site.pk)
    again = act(operator, "smartcharging.plan", "replan", None, site=office.site.pk)

    assert "Campus Noord is planned again" in said[0]
    assert "already on its way" in again[0]


def test_a_goal_is_cancelled_and_stays_as_history(office):
    said = act(entered(office.cast["operator"]), "smartcharging.charginggoal", "cancel", office.goal.pk)

    assert said == ["The goal is cancelled."]
    assert ChargingGoal.objects.get(pk=office.goal.pk).cancelled_at


def test_a_grid_command_is_ended(office):
    operator = entered(office.cast["operator"])

    assert act(operator, "smartcharging.gridcommand", "end", office.command.pk) == ["The command has ended."]
    assert act(operator, "smartcharging.gridcommand", "end", office.command.pk) == ["The command has already ended."]


def test_cards_are_blocked_in_a_list(office):
    entered(office.cast["operator"]).post(
        reverse("admin:csms_idtoken_changelist"), {"action": "block_ticked", "_selected_action": [office.token.pk]}
    )

    assert IdToken.objects.get(pk=office.token.pk).status == "blocked"


def test_htmx_is_told_where_to_go_in_its_own_header(office):
    answer = entered(office.cast["operator"]).post(
        reverse("admin:csms_chargingstation_fetch_report", args=[office.station.pk]),
        DONE,
        headers={"HX-Request": "true"},
    )

    assert answer["HX-Redirect"] == reverse("admin:csms_chargingstation_change", args=[office.station.pk])

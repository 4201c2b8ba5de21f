"""Every page of the admin, for every person: who is let in, whose records he sees, what he may change."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from django.contrib import admin
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from csms.models import EVSE, ChargingStation, IdToken, Transaction
from meters.models import Device, Site, SiteRole
from smartcharging.models import Circuit, Feed, Price, UserProfile
from tests.people import superuser_sofie
from tests.webapp.office import many_more

pytestmark = pytest.mark.django_db

OURS = sorted(
    m._meta.label_lower for m in admin.site._registry if m._meta.app_label in ("meters", "csms", "smartcharging")
)
EVERY_PAGE = sorted(m._meta.label_lower for m in admin.site._registry)
LEDGER = {
    *("csms.transaction", "csms.transactionevent", "csms.metersample", "csms.ocppmessage", "csms.stationvariable"),
    *("csms.wantedlimit", "meters.reading", "meters.quarterhour", "smartcharging.plan", "smartcharging.forecast"),
    *("smartcharging.allocationrecord", "smartcharging.sitequarter", "csms.locallist", "csms.firmwareupdate"),
}
LEDGER |= {"csms.unmatchedend", "csms.signedmetervalue"}
LEDGER |= {"csms.securityevent", "csms.stationcertificate", "csms.installedcertificate"}
LEDGER |= {
    "csms.monitoringevent",
    "csms.variablemonitor",
    "csms.externallimit",
    "csms.chargingneeds",
    "csms.stationreport",
}
LEDGER |= {"csms.alarm", "csms.toldlimit", "csms.stationmodel"}  # a model is set by a superuser, added by nobody
OPERATORS = {
    *("csms.idtoken", "smartcharging.userprofile", "smartcharging.vehicle", "smartcharging.charginggoal"),
    *("smartcharging.price", "smartcharging.gridcommand", "csms.locallistpolicy", "csms.reservation"),
    "csms.logrequest",
}
FIXED = {"smartcharging.gridcommand", "csms.reservation", "csms.logrequest"}  # made once, then only looked at
SUPERUSERS = {"meters.site"}


def entered(user) -> Client:
    client = Client()
    if user is not None:
        client.force_login(user)
    return client


def page(label: str, kind: str = "changelist", *args) -> str:
    return reverse(f"admin:{label.replace('.', '_')}_{kind}", args=args)


def some(label: str, office):
    model = next(m for m in admin.site._registry if m._meta.label_lower == label)
    return model._default_manager.first()


def test_every_record_has_a_page():
    from django.apps import apps

    without = {
        "csms.connector",
        "csms.tariffhours",
        "meters.siterole",
        "smartcharging.tokenprofile",
    }  # they stand on another's page
    without |= {"csms.stationsecurity"}
    without |= {"csms.stationreportpart"}
    records = {
        m._meta.label_lower
        for app in ("meters", "csms", "smartcharging")
        for m in apps.get_app_config(app).get_models()
        if not m.__name__.startswith("Historical")
    }

    assert records - without == set(OURS)


def test_lists_are_there_with_nothing_in_them(db):
    client = entered(superuser_sofie())

    assert {label: client.get(page(label)).status_code for label in EVERY_PAGE} == dict.fromkeys(EVERY_PAGE, 200)


def test_who_is_let_in(office):
    for label in EVERY_PAGE:
        inside = 200 if label in OURS else 403
        expected = {"anonymous": 302, "driver": 302, "viewer": inside, "stranger": inside, "superuser": 200}

        found = {name: entered(office.cast[name]).get(page(label)).status_code for name in expected}

        assert found == expected, label


def test_who_may_add(office):
    for label in OURS:
        operator = label in OPERATORS
        installer = label not in LEDGER and label not in SUPERUSERS
        expected = {
            "viewer": 403,
            "operator": 200 if operator else 403,
            "installer": 200 if operator or installer else 403,
            "superuser": 403 if label in LEDGER else 200,
        }

        found = {name: entered(office.cast[name]).get(page(label, "add")).status_code for name in expected}

        assert found == expected, label


def test_whose_record_opens_and_who_may_save_it(office):
    for label in OURS:
        record = some(label, office)
        assert record is not None, f"the office has one of everything, but no {label}"
        address = page(label, "change", record.pk)
        nobody = label in LEDGER or label in FIXED
        may_save = {
            "stranger": False,
            "viewer": False,
            "operator": label in {*OPERATORS, "csms.chargingstation"} and not nobody,
            "installer": not nobody,
        }
        for name, allowed in may_save.items():
            client = entered(office.cast[name])
            shown = client.get(address)
            assert shown.status_code == (302 if name == "stranger" else 200), (label, name)
            assert (b'name="_save"' in shown.content) == allowed, (label, name)
            if not allowed:
                refused = client.post(address, {})
                assert refused.status_code in ((302, 403) if name == "stranger" else (403,)), (label, name)


def test_a_list_asks_the_same_number_of_questions_for_any_length(office):
    client = entered(office.cast["superuser"])
    client.get("/admin/")
    few = {label: questions(client, label) for label in (*OURS, "auth.user")}

    many_more(office, 12)

    for label, before in few.items():
        after = questions(client, label)
        assert len(after) <= len(before) + 1, (label, after)


def questions(client: Client, label: str) -> list[str]:
    with CaptureQueriesContext(connection) as asked:
        assert client.get(page(label)).status_code == 200
    return [q["sql"][:150] for q in asked.captured_queries]


def test_a_stranger_sees_no_name_of_another_site_on_any_list(office):
    client = entered(office.cast["stranger"])

    for label in OURS:
        text = client.get(page(label)).content.decode()
        for secret in ("Campus Noord", "CS-001", office.token.value, "row 1", "Van 1"):
            assert secret not in text, (label, secret)


@pytest.mark.parametrize(
    ("label", "record", "query"),
    [("csms.chargingstation", "CS-001", "q=CS"), ("csms.idtoken", "04A1B2C3D4", "q=04A1")],
)
def test_searching_finds_ones_own_only(office, label, record, query):
    address = f"{page(label)}?{query}"

    assert record in entered(office.cast["viewer"]).get(address).content.decode()
    assert f">{record}<" not in entered(office.cast["stranger"]).get(address).content.decode()


def test_autocomplete_offers_ones_own_only(office):
    query = {"app_label": "smartcharging", "model_name": "feed", "field_name": "evse", "term": ""}
    address = reverse("admin:autocomplete")

    mine = entered(office.cast["installer"]).get(address, query).json()["results"]
    theirs = entered(office.cast["stranger"]).get(address, query).json()["results"]

    assert len(mine) == 6
    assert [r["text"] for r in theirs] == ["FAR-1/1"]


def test_a_record_cannot_be_put_on_a_site_where_one_is_nobody(office):
    client = entered(office.cast["operator"])

    answer = client.post(
        page("smartcharging.userprofile", "add"),
        {"site": office.elsewhere.pk, "name": "x", "priority": 1, "mode": "plan"},
    )

    assert answer.status_code == 200
    assert "site" in answer.context["adminform"].form.errors
    assert not UserProfile.objects.filter(name="x").exists()


def test_an_operator_of_two_sites_cannot_mix_their_records(office):
    far = Circuit.objects.create(site=office.elsewhere, name="far", limit_a=[10, 10, 10])
    client = entered(office.cast["superuser"])

    answer = client.post(page("smartcharging.feed", "add"), {"circuit": far.pk, "evse": office.campus.evses[1].pk})

    assert "evse" in answer.context["adminform"].form.errors
    assert not Feed.objects.filter(circuit=far).exists()


def test_a_role_on_one_site_is_no_role_on_the_other(office):
    """Installer here, viewer there: the page of there opens without a way to save."""
    ivan = office.cast["installer"]
    SiteRole.objects.create(user=ivan, site=office.elsewhere, role="viewer")
    client = entered(ivan)
    there = page("csms.chargingstation", "change", office.foreign_station.pk)

    assert b'name="_save"' not in client.get(there).content
    assert client.post(there, {"identity": "FAR-1"}).status_code == 403
    deleted = client.post(
        page("csms.chargingstation"),
        {"action": "delete_selected", "_selected_action": [office.foreign_station.pk], "post": "yes"},
    )
    assert deleted.status_code in (200, 403)
    assert ChargingStation.objects.filter(pk=office.foreign_station.pk).exists()


def test_an_installer_enters_a_station_that_waits_in_quarantine(office):
    """It belongs to superusers until somebody who knows its exact identity enters it on a site of his."""
    waiting = ChargingStation.objects.create(identity="NEW-1", vendor="Acme")
    client = entered(office.cast["installer"])
    assert client.get(page("csms.chargingstation", "change", waiting.pk)).status_code in (302, 403, 404)
    body = {
        "identity": "NEW-1",
        "site": office.site.pk,
        "priority": "1",
        "current": "ac",
        "wiring": "[]",
        "max_a": "32",
        "min_a": "6",
        "fail_safe_a": "6",
        "capabilities": "{}",
        "evses-TOTAL_FORMS": "0",
        "evses-INITIAL_FORMS": "0",
    }

    answer = client.post(page("csms.chargingstation", "add"), body, follow=True)

    waiting.refresh_from_db()
    assert (waiting.site, waiting.admission, waiting.vendor) == (office.site, "accepted", "Acme")
    said = " ".join(str(m) for m in answer.context["messages"])
    assert "It has no password" in said
    assert "It hangs on no circuit yet" in said


def test_without_a_neutral_one_line_alone_is_refused_at_the_wiring(office):
    office.site.supply = "it"
    office.site.save()
    client = entered(office.cast["installer"])
    evses = {"evses-TOTAL_FORMS": "0", "evses-INITIAL_FORMS": "0"}
    station = {"priority": "1", "current": "ac", "max_a": "32", "min_a": "6", "fail_safe_a": "6", **evses}
    device = {"name": "odd", "kind": "load", "options": "{}", "poll_s": "1", "max_age_s": "5"}
    for label, body in (("csms.chargingstation", {"identity": "NEW-2", **station}), ("meters.device", device)):
        answer = client.post(page(label, "add"), {"site": office.site.pk, "wiring": '["L2"]', **body})

        assert "wiring" in answer.context["adminform"].form.errors, label


def test_an_operator_names_a_station_and_leaves_its_wiring_alone(office):
    station = office.station
    evses = {"evses-TOTAL_FORMS": "0", "evses-INITIAL_FORMS": "0"}
    body = {"name": "By the gate", "priority": "3", "quiet": "on", "max_a": "99", "site": office.elsewhere.pk, **evses}

    answer = entered(office.cast["operator"]).post(page("csms.chargingstation", "change", station.pk), body)

    station.refresh_from_db()
    assert answer.status_code == 302
    assert (station.name, station.priority, station.quiet) == ("By the gate", 3, True)
    assert (station.max_a, station.site) == (32, office.site)


def test_an_installer_removes_a_station_with_its_log(office):
    station = ChargingStation.objects.create(identity="OLD", site=office.site)
    EVSE.objects.create(station=station, number=1)
    station.messages.create(at="2026-01-01T00:00:00Z", direction="in", kind="call", action="Heartbeat")

    answer = entered(office.cast["installer"]).post(page("csms.chargingstation", "delete", station.pk), {"post": "yes"})

    assert answer.status_code == 302
    assert not ChargingStation.objects.filter(identity="OLD").exists()


def test_a_station_that_has_charged_is_kept(office):
    answer = entered(office.cast["superuser"]).post(
        page("csms.chargingstation", "delete", office.station.pk), {"post": "yes"}
    )

    assert answer.status_code in (200, 403)
    assert ChargingStation.objects.filter(pk=office.station.pk).exists()


def test_only_an_installer_goes_back_to_an_older_version(office):
    device = office.device
    device.name = "renamed"
    device.save()
    old = device.history.last()
    address = reverse("admin:meters_device_simple_history", args=[device.pk, old.pk])
    body = {
        "site": office.site.pk,
        "name": "main",
        "kind": "meter",
        "poll_s": 1,
        "max_age_s": 5,
        "wiring": "[]",
        "options": "{}",
    }

    looked = {name: entered(office.cast[name]).get(address).status_code for name in ("stranger", "viewer", "installer")}
    assert looked == {"stranger": 403, "viewer": 200, "installer": 200}
    assert entered(office.cast["viewer"]).post(address, body).status_code == 403
    assert Device.objects.get(pk=device.pk).name == "renamed"


def test_history_is_there_for_config_and_for_what_keeps_none(office):
    client = entered(office.cast["viewer"])

    for label in ("csms.chargingstation", "meters.device", "csms.transaction", "smartcharging.circuit"):
        assert client.get(page(label, "history", some(label, office).pk)).status_code == 200, label


def test_a_wrong_device_is_refused_at_its_field(office):
    body = {
        "site": office.site.pk,
        "name": "odd",
        "kind": "meter",
        "map": "acme_nothing",
        "connect": "tcp://10.0.0.1:502",
        "wiring": '["L9"]',
        "options": '{"peak_w": "big"}',
        "poll_s": "10",
        "max_age_s": "5",
    }

    answer = entered(office.cast["installer"]).post(page("meters.device", "add"), body)

    assert set(answer.context["adminform"].form.errors) == {"map", "wiring", "options", "max_age_s"}


def test_a_goal_from_the_office_passes_the_same_door(office):
    client = entered(office.cast["operator"])
    address = page("smartcharging.charginggoal", "add")
    body = {"site": office.site.pk, "evse": office.campus.evses[1].pk, "mode": "plan", "energy_wh": "9000"}

    refused = client.post(address, {**body, "departure_0": "2020-01-01", "departure_1": "00:00"})
    kept = client.post(address, body)

    assert "departure" in refused.context["adminform"].form.errors
    assert kept.status_code == 302
    made = office.campus.evses[1].goals.get()
    assert (made.energy_wh, made.source) == (9000, "schedule")
    changed = client.post(page("smartcharging.charginggoal", "change", made.pk), {"mode": "fast", "energy_wh": "7000"})
    assert changed.status_code == 302
    made.refresh_from_db()
    assert (made.energy_wh, made.mode) == (7000, "fast")


def test_a_grid_command_from_the_office_passes_the_same_door(office):
    client = entered(office.cast["operator"])
    address = page("smartcharging.gridcommand", "add")
    body = {"site": office.site.pk, "starts_at_0": "2036-01-01", "starts_at_1": "00:00", "reason": "works"}

    assert "import_limit_w" in client.post(address, body).context["adminform"].form.errors
    assert client.post(address, {**body, "import_limit_w": "20000"}).status_code == 302
    assert office.site.grid_commands.get(reason="works").by == office.cast["operator"]


def test_an_operator_prices_his_own_area_only(office):
    client = entered(office.cast["operator"])
    body = {"start_0": "2036-01-01", "start_1": "00:00", "minutes": "15", "eur_per_mwh": "80", "source": ""}

    assert (
        "area"
        in client.post(page("smartcharging.price", "add"), {**body, "area": "NL"}).context["adminform"].form.errors
    )
    assert client.post(page("smartcharging.price", "add"), {**body, "area": "BE"}).status_code == 302
    assert (
        Price.objects.filter(area="BE", start=datetime(2035, 12, 31, 23, 0, tzinfo=UTC)).count() == 1
    )  # midnight there


def test_the_first_page_counts_ones_own_stations(office):
    ChargingStation.objects.create(identity="NEW", site=office.site)
    EVSE.objects.filter(pk=office.campus.evses[3].pk).update(status="Faulted")

    cards = entered(office.cast["operator"]).get("/admin/").context["office_cards"]
    theirs = entered(office.cast["stranger"]).get("/admin/").context["office_cards"]

    assert [c.value for c in cards] == ["0 / 7", "1", "1", "0", "1"]
    assert [c.value for c in theirs] == ["0 / 1", "0", "0", "0", "0"]


def test_the_side_bar_leads_only_where_one_may_go(office):
    client = entered(office.cast["viewer"])
    groups = client.get("/admin/").context["sidebar_navigation"]
    links = [item["link"] for group in groups for item in group["items"]]

    assert page("csms.chargingstation") in links
    assert page("auth.user") not in links
    assert all(client.get(link).status_code == 200 for link in links)
    assert reverse("mfa_index") in client.get("/admin/").content.decode()


def test_a_user_page_shows_his_roles_and_only_to_superusers(office):
    olivia = office.cast["operator"]

    shown = entered(office.cast["superuser"]).get(page("auth.user", "change", olivia.pk))

    assert shown.status_code == 200
    assert b"site_roles" in shown.content
    assert entered(office.cast["installer"]).get(page("auth.user", "change", olivia.pk)).status_code == 403


def test_the_raw_log_is_pretty_and_without_buttons(office):
    message = office.station.messages.get()
    message.payload = {"a": {"b": "<script>"}}
    message.save()

    text = entered(office.cast["viewer"]).get(page("csms.ocppmessage", "change", message.pk)).content.decode()

    assert "&lt;script&gt;" in text
    assert "<script>&quot;" not in text
    assert 'name="_save"' not in text


def test_the_cost_of_a_charge_is_told_in_words(office):
    charge = Transaction.objects.filter(station__site=office.campus.site).first()
    line = {"kind": "idle", "quantity": 12, "unit": "min", "unit_price": 0.2, "amount": 2.4}
    Transaction.objects.filter(pk=charge.pk).update(cost_lines=[line])

    said = entered(office.cast["operator"]).get(page("csms.transaction", "change", charge.pk)).content.decode()

    assert "idle fee: 12 min × 0.2000 = 2.40" in said


def test_linking_a_driver_is_narrowed_to_ones_own_people(office):
    from django.contrib.auth.models import User

    from csms.drivers import drivers_for

    free = User.objects.create_user("free")
    taken = User.objects.create_user("taken")
    IdToken.objects.create(site=office.elsewhere, value="THEIRS", driver=taken)

    near = set(drivers_for(office.cast["operator"]))

    assert {office.cast["driver"], office.cast["viewer"], free} <= near
    assert taken not in near
    assert office.cast["superuser"] not in near


def test_a_site_is_made_by_a_superuser_only(office):
    body = {
        "name": "Nieuw",
        "timezone": "Europe/Brussels",
        "supply": "it",
        **{f"{p}-{f}": "0" for p in ("devices", "roles") for f in ("TOTAL_FORMS", "INITIAL_FORMS")},
    }

    assert entered(office.cast["installer"]).post(page("meters.site", "add"), body).status_code == 403
    assert entered(office.cast["superuser"]).post(page("meters.site", "add"), body).status_code == 302
    assert Site.objects.get(name="Nieuw").supply == Site.Supply.IT


def test_times_stand_on_the_clock_of_the_site(office):
    office.site.timezone = "Asia/Kathmandu"  # a zone with a quarter hour, to be recognised by
    office.site.save()
    ChargingStation.objects.update(last_seen=datetime(2026, 3, 2, 12, 0, tzinfo=UTC))

    answer = entered(office.cast["operator"]).get(page("csms.chargingstation")).content.decode()

    assert "17:45" in answer


def test_a_browser_that_asks_for_an_icon_gets_one(db):
    assert "icon" in Client().get("/favicon.ico").headers["Location"]

"""Looking into a station from the office: what is asked, what comes back, and who may see it."""

from __future__ import annotations

import pytest
from django.utils import timezone

from csms import bus, reports
from csms.models import ChargingStation
from csms.reported import Part
from csms.reported_models import StationReport, VariableMonitor
from tests.webapp import campus as scenery
from tests.webapp.test_admin_actions import Gateway, act
from tests.webapp.test_admin_pages import entered, page

pytestmark = pytest.mark.django_db

# who; what; what is filled in; which message goes out, and some of what is in it
ASKED = [
    ("operator", "report_some", {"names": "EVSE.Power", "criteria": "Problem"}, "GetReport", "componentCriteria"),
    ("operator", "read_profiles", {"evse": ""}, "GetChargingProfiles", "requestId"),
    ("operator", "read_allowed", {"evse": "EVSE", "hours": "2"}, "GetCompositeSchedule", "duration"),
    ("installer", "clear_one_profile", {"number": "12"}, "ClearChargingProfile", "chargingProfileId"),
    ("operator", "ask_transaction", {"transaction": ""}, "GetTransactionStatus", ""),
    ("installer", "set_monitoring", {"base": "All", "severity": ""}, "SetMonitoringBase", "monitoringBase"),
    ("installer", "set_monitoring", {"base": "", "severity": "4"}, "SetMonitoringLevel", "severity"),
    (
        "installer",
        "set_monitor",
        {"evse": "EVSE", "variable": "EVSE.Power", "type": "UpperThreshold", "value": "11000", "severity": "3"},
        "SetVariableMonitoring",
        "setMonitoringData",
    ),
    ("operator", "read_monitors", {}, "GetMonitoringReport", "requestId"),
    ("operator", "clear_cache", {}, "ClearCache", ""),
    (
        "installer",
        "set_network",
        {"slot": "1", "url": "wss://x.org/ocpp", "security_profile": "2", "interface": "Wired0", "timeout_s": "30"},
        "SetNetworkProfile",
        "connectionData",
    ),
    ("installer", "send_data", {"vendor": "acme", "message": "m", "data": "d"}, "DataTransfer", "data"),
    (
        "operator",
        "show_message",
        {"text": "Hallo", "language": "nl", "priority": "InFront", "state": "", "minutes": "60", "number": "3"},
        "SetDisplayMessage",
        "message",
    ),
    ("operator", "read_messages", {}, "GetDisplayMessages", "requestId"),
    ("operator", "clear_message", {"number": "3"}, "ClearDisplayMessage", "id"),
    ("operator", "ask_customer", {"id_token": "TOKEN", "report": "on"}, "CustomerInformation", "idToken"),
]


@pytest.fixture(autouse=True)
def a_2_0_1_station(office):
    ChargingStation.objects.filter(pk=office.station.pk).update(protocol="ocpp2.0.1")


@pytest.mark.parametrize(("who", "action", "fields", "ocpp", "member"), ASKED, ids=[f"{a[1]} {a[3]}" for a in ASKED])
def test_a_station_is_asked_from_its_page(office, who, action, fields, ocpp, member):
    scenery.connect(office.campus.evses[0])
    gateway = Gateway({"kind": "result", "result": {"status": "Rejected"}})
    names = {"EVSE": str(office.campus.evses[0].pk), "TOKEN": str(office.token.pk)}
    filled = {key: names.get(value, value) for key, value in fields.items()}

    said = act(entered(office.cast[who]), "csms.chargingstation", action, office.station.pk, **filled)
    gateway.join(5)

    assert gateway.asked is not None and gateway.asked["action"] == ocpp
    assert not member or member in gateway.asked["payload"]
    assert len(said) == 1 and said[0].startswith("CS-001 answered")


def test_what_is_reported_opens_as_a_page(office, monkeypatch):
    scenery.connect(office.campus.evses[0])

    def asked(identity, action, payload, timeout_s=30.0):
        part = Part("display", payload["requestId"], None, True, [{"id": 3, "text": "Hallo"}])
        reports.part_told(office.station.pk, part, timezone.now())
        return {"status": "Accepted"}

    monkeypatch.setattr(bus, "request", asked)
    client = entered(office.cast["operator"])
    said = act(client, "csms.chargingstation", "read_messages", office.station.pk)
    report = StationReport.objects.get(kind="display")

    shown = client.get(page("csms.stationreport", "change", report.pk)).content.decode()

    assert said == ["CS-001 answered: Accepted"]
    assert "Hallo" in shown and "complete" in shown


def test_a_1_6_station_is_not_offered_what_it_cannot_do(office):
    client = entered(office.cast["operator"])
    newer = client.get(page("csms.chargingstation", "change", office.station.pk)).content.decode()
    ChargingStation.objects.filter(pk=office.station.pk).update(protocol="ocpp1.6")
    older = client.get(page("csms.chargingstation", "change", office.station.pk)).content.decode()

    assert "Show a message" in newer and "Clear its memory of tokens" in newer
    assert "Show a message" not in older and "Clear its memory of tokens" in older


@pytest.mark.parametrize(("who", "sees"), [("viewer", False), ("operator", True), ("installer", True)])
def test_what_is_told_of_a_customer_is_for_operators_and_they_may_delete_it(office, who, sees):
    report = StationReport.objects.get(kind="customer", station=office.station)
    client = entered(office.cast[who])

    assert (f"/stationreport/{report.pk}/" in client.get(page("csms.stationreport")).content.decode()) is sees
    answer = client.get(page("csms.stationreport", "change", report.pk))
    assert (answer.status_code == 200 and "Jan" in answer.content.decode()) is sees
    client.post(page("csms.stationreport", "delete", report.pk), {"post": "yes"})
    assert StationReport.objects.filter(pk=report.pk).exists() is not sees


def test_a_monitor_is_taken_away_on_its_page(office, monkeypatch):
    scenery.connect(office.campus.evses[0])
    monitor = VariableMonitor.objects.get()
    monkeypatch.setattr(
        bus, "request", lambda *a, **k: {"clearMonitoringResult": [{"id": monitor.number, "status": "Accepted"}]}
    )

    act(entered(office.cast["installer"]), "csms.variablemonitor", "take_away", monitor.pk)

    assert not VariableMonitor.objects.exists()

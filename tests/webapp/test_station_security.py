"""Security of a station in the admin and over REST: who may, what is said, what is kept."""

from __future__ import annotations

import json
import threading
from datetime import timedelta

import pytest
from django.utils import timezone

from csms import authority, credentials
from csms.models import ChargingStation
from csms.sealing import opened, seal
from csms.security_models import InstalledCertificate, SecurityEvent, StationCertificate, StationSecurity
from meters import live
from tests.people import calling
from tests.webapp import campus as scenery
from tests.webapp.test_admin_actions import act, entered

pytestmark = pytest.mark.django_db

STATIONS = "/api/v1/stations/"


class Gateway(threading.Thread):
    """Answers one call of a gateway's stream; opens what is sealed, as the real one does."""

    def __init__(self, reply: dict) -> None:
        super().__init__(daemon=True)
        self.reply, self.asked, self.raw = reply, None, ""

    def run(self) -> None:
        client = live.connection()
        found = client.xread({"call:g1": "0"}, block=5000, count=1)
        self.raw = found[0][1][0][1]["body"]
        self.asked = json.loads(opened(self.raw))
        client.rpush(f"reply:{self.asked['id']}", json.dumps(self.reply))


def answering(office, status: str = "Accepted") -> Gateway:
    scenery.connect(office.campus.evses[0])
    gateway = Gateway({"kind": "result", "result": {"status": status}})
    gateway.start()
    return gateway


def test_a_new_password_goes_to_the_station_sealed_and_to_nobody_else(office):
    gateway = answering(office)

    answer = calling(office.cast["operator"]).post(f"{STATIONS}{office.station.identity}/password/")
    gateway.join(5)

    assert (answer.status_code, answer.json()) == (200, {"result": {"status": "Accepted"}})
    password = gateway.asked["payload"].get("value") or str(gateway.asked["payload"])
    assert "sealed:" in gateway.raw and "payload" not in gateway.raw
    station = ChargingStation.objects.get(pk=office.station.pk)
    assert any(station.password_is(part) for part in password.replace("'", " ").split() if len(part) == 40)
    assert SecurityEvent.objects.filter(kind="PasswordChanged", station=station).exists()


def test_a_new_password_for_a_station_that_is_away_changes_nothing(office):
    office.station.set_password("correct horse")
    office.station.save()

    answer = calling(office.cast["operator"]).post(f"{STATIONS}{office.station.identity}/password/")

    assert (answer.status_code, answer.json()["error"]["code"]) == (409, "NotConnected")
    assert ChargingStation.objects.get(pk=office.station.pk).password_is("correct horse")


def test_only_operators_of_the_site_may_change_a_password(office):
    viewer, stranger = calling(office.cast["viewer"]), calling(office.cast["installer"])

    assert viewer.post(f"{STATIONS}{office.station.identity}/password/").status_code == 403
    assert stranger.post(f"{STATIONS}{office.foreign_station.identity}/password/").status_code in (403, 404)


def test_a_password_set_over_rest_voids_the_old_one(office):
    StationSecurity.objects.create(
        station=office.station, old_password_hash="x", old_password_until=timezone.now() + timedelta(days=1)
    )

    answer = calling(office.cast["operator"]).patch(
        f"{STATIONS}{office.station.identity}/", {"password": "correct horse battery"}
    )

    assert answer.status_code == 200
    assert StationSecurity.objects.get().old_password_hash == ""
    assert ChargingStation.objects.get(pk=office.station.pk).password_is("correct horse battery")


def test_to_ask_less_of_a_station_takes_a_reason_and_an_installer(office):
    credentials.set_least_profile(office.station, 2)
    client = entered(office.cast["installer"])

    assert act(client, "csms.chargingstation", "set_least_profile", office.station.pk, least="1") == [
        "To ask less than before takes a reason."
    ]
    act(client, "csms.chargingstation", "set_least_profile", office.station.pk, least="1", reason="old modem")

    security = StationSecurity.objects.get()
    assert security.least_profile == 1
    newest = security.history.first()
    assert (newest.history_change_reason, newest.history_user) == ("old modem", office.cast["installer"])
    page = client.get(f"/admin/csms/chargingstation/{office.station.pk}/change/").content.decode()
    assert "at least 1: password, without TLS" in page


def test_a_certificate_is_revoked_with_a_reason_and_said_once(office, settings, tmp_path):
    settings.OCPP_CA_DIR = tmp_path
    authority.make_authority("Test", timezone.now())
    certificate = StationCertificate.objects.get(station=office.station)

    said = act(entered(office.cast["installer"]), "csms.stationcertificate", "revoke", certificate.pk, reason="theft")

    certificate.refresh_from_db()
    assert said == ["The certificate is revoked."] and certificate.revoked and certificate.reason == "theft"
    assert int(certificate.serial, 16) in revoked_serials()


def revoked_serials() -> set[int]:
    from cryptography import x509

    return {one.serial_number for one in x509.load_pem_x509_crl((authority.folder() / "ca.crl").read_bytes())}


def test_without_an_authority_there_is_no_root_to_install_and_that_is_said(office, settings, tmp_path):
    settings.OCPP_CA_DIR = tmp_path

    said = act(
        entered(office.cast["installer"]),
        "csms.chargingstation",
        "install_root",
        office.station.pk,
        use="CSMSRootCertificate",
    )

    assert said == ["This installation has no authority yet; make one with “manage.py make_certificates”."]


def test_a_certificate_is_deleted_from_a_station(office):
    held = InstalledCertificate.objects.get(station=office.station)
    gateway = answering(office)

    said = act(entered(office.cast["installer"]), "csms.installedcertificate", "forget", held.pk)
    gateway.join(5)

    assert gateway.asked["action"] == "DeleteCertificate" and "Accepted" in said[0]
    assert not InstalledCertificate.objects.filter(pk=held.pk).exists()


def test_a_call_without_secrets_passes_as_it_is_and_a_sealed_one_needs_our_key(settings):
    assert seal('{"action": "Reset"}') == '{"action": "Reset"}'
    sealed = seal('{"key": "AuthorizationKey", "value": "x"}')
    assert opened(sealed) == '{"key": "AuthorizationKey", "value": "x"}'
    settings.SECRET_KEY = "another"
    with pytest.raises(ValueError, match="SECRET_KEY"):
        opened(sealed)

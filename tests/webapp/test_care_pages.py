"""The office for longer work: lists, reservations, firmware and logs, by whoever may, with what came of it shown."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.urls import reverse
from django.utils import timezone

from csms import logs
from csms.models import ChargingStation
from csms.workflow_models import (
    FirmwareImage,
    FirmwareRollout,
    FirmwareUpdate,
    LocalList,
    LocalListPolicy,
    LogRequest,
    Reservation,
)
from tests.webapp import campus as scenery
from tests.webapp.test_admin_actions import DONE, Gateway, act, entered

pytestmark = pytest.mark.django_db


def add(client: Any, label: str, **fields: Any) -> Any:
    return client.post(reverse(f"admin:csms_{label}_add"), fields, follow=True)


def said(answer: Any) -> list[str]:
    return [str(m) for m in answer.context["messages"]]


def moment(name: str, minutes: float) -> dict[str, str]:
    """As a person writes it, on the clock of the site."""
    at = (timezone.now() + timedelta(minutes=minutes)).astimezone(ZoneInfo("Europe/Brussels"))
    return {f"{name}_0": f"{at:%Y-%m-%d}", f"{name}_1": f"{at:%H:%M:%S}"}


# ---------------------------------------------------------------------- lists


def test_a_group_has_to_be_named(office):
    LocalListPolicy.objects.all().delete()
    client = entered(office.cast["operator"])

    answer = add(client, "locallistpolicy", site=office.site.pk, members="group", group="")
    assert "group" in answer.context["adminform"].form.errors
    add(client, "locallistpolicy", site=office.site.pk, members="group", group="fleet")
    assert LocalListPolicy.objects.get().group == "fleet"


def test_a_list_is_sent_from_its_page_and_its_end_is_told(office):
    row = LocalList.objects.get()
    found = act(entered(office.cast["operator"]), "csms.locallist", "send", row.pk)

    assert found == ["CS-001: The station is not connected."]
    row.refresh_from_db()
    assert (row.state, row.attempts) == ("failed", 1)


def test_ticked_lists_go_in_their_turn(office):
    LocalList.objects.update(state="failed", attempts=4, next_try_at=timezone.now() + timedelta(hours=4))
    body = {"action": "send_ticked", "_selected_action": [LocalList.objects.get().pk]}

    entered(office.cast["operator"]).post(reverse("admin:csms_locallist_changelist"), body)

    row = LocalList.objects.get()
    assert (row.state, row.attempts, row.next_try_at) == ("waiting", 0, None)


# ---------------------------------------------------------------------- reservations


def test_a_reservation_is_made_in_the_office_and_taken_back(office):
    Reservation.objects.all().delete()
    client = entered(office.cast["operator"])
    wish = {"id_token": office.token.pk, "station": office.station.pk, **moment("ends_at", 60)}

    answer = add(client, "reservation", **wish)

    row = Reservation.objects.get()
    assert (row.state, row.by.username) == ("wanted", "olivia")
    assert "not connected" in said(answer)[0]
    assert "cancelled" in act(client, "csms.reservation", "cancel", row.pk)[0]
    row.refresh_from_db()
    assert row.state == "cancelled"


def test_what_cannot_be_reserved_is_said_at_its_field(office):
    wish = {"id_token": office.token.pk, "station": office.station.pk, **moment("ends_at", -5)}

    answer = add(entered(office.cast["operator"]), "reservation", **wish)

    assert "ends_at" in answer.context["adminform"].form.errors


def test_a_place_is_reserved_from_the_stations_page(office):
    Reservation.objects.all().delete()
    scenery.connect(office.campus.evses[0])
    gateway = Gateway({"kind": "result", "result": {"status": "Occupied"}})

    found = act(
        entered(office.cast["operator"]),
        "csms.chargingstation",
        "reserve_place",
        office.station.pk,
        evse=office.campus.evses[0].pk,
        id_token=office.token.pk,
        minutes=30,
    )
    gateway.join(5)

    row = Reservation.objects.get()
    assert gateway.asked["payload"]["id"] == row.pk
    assert row.state == "occupied"
    assert "occupied" in found[0]


# ---------------------------------------------------------------------- firmware


def image_fields(office: Any, **more: Any) -> dict[str, Any]:
    return {"site": office.site.pk, "vendor": "Acme", "fits_models": "", "version": "3.0", **more}


def test_an_image_is_checked_against_its_digest(office):
    client = entered(office.cast["installer"])
    wrong = image_fields(office, file=SimpleUploadedFile("a.bin", b"firmware"), sha256="0" * 64)

    answer = add(client, "firmwareimage", **wrong)
    assert "sha256" in answer.context["adminform"].form.errors
    add(client, "firmwareimage", **image_fields(office, file=SimpleUploadedFile("a.bin", b"firmware")))

    image = FirmwareImage.objects.get(version="3.0")
    assert (image.size, len(image.sha256)) == (8, 64)
    path = image.file.path
    client.post(reverse("admin:csms_firmwareimage_delete", args=[image.pk]), {"post": "yes"})
    assert not FirmwareImage.objects.filter(version="3.0").exists()
    with pytest.raises(FileNotFoundError):
        open(path, "rb")  # noqa: PTH123, SIM115 - it is gone


def test_an_image_needs_a_file_or_an_address(office):
    answer = add(entered(office.cast["installer"]), "firmwareimage", **image_fields(office))

    assert "file" in answer.context["adminform"].form.errors


def test_an_image_for_every_site_is_the_superusers_and_seen_by_all(office):
    shared = FirmwareImage.objects.create(vendor="Acme", version="9.9", url="https://firmware.example/9.9")
    installer = entered(office.cast["installer"])

    assert "site" in add(installer, "firmwareimage", **image_fields(office, site="")).context["adminform"].form.errors
    page = installer.get(reverse("admin:csms_firmwareimage_change", args=[shared.pk]))
    assert page.status_code == 200
    assert b'name="_save"' not in page.content
    assert b"9.9" in installer.get(reverse("admin:csms_firmwareimage_changelist")).content
    assert (
        entered(office.cast["superuser"])
        .get(reverse("admin:csms_firmwareimage_change", args=[shared.pk]))
        .content.count(b'name="_save"')
    )


def test_a_rollout_is_started_paused_and_cancelled_by_the_installer(office):
    ChargingStation.objects.filter(pk=office.station.pk).update(vendor="ACME", firmware_version="1.0")
    FirmwareUpdate.objects.all().delete()
    rollout = FirmwareRollout.objects.get()
    installer = entered(office.cast["installer"])

    page = installer.get(reverse("admin:csms_firmwarerollout_change", args=[rollout.pk])).content.decode()
    assert "CS-001 (1.0)" in page
    assert act(installer, "csms.firmwarerollout", "start", rollout.pk) == ["The rollout runs."]
    assert FirmwareUpdate.objects.get().state == "waiting"
    assert act(installer, "csms.firmwarerollout", "start", rollout.pk) == ["This rollout was started before."]
    assert act(installer, "csms.firmwarerollout", "pause", rollout.pk) == ["The rollout is paused."]
    assert act(installer, "csms.firmwarerollout", "cancel", rollout.pk) == ["The rollout is cancelled."]
    operator = entered(office.cast["operator"])
    assert operator.post(reverse("admin:csms_firmwarerollout_start", args=[rollout.pk]), DONE).status_code == 403


def test_a_rollout_nobody_fits_says_so(office):
    said = act(entered(office.cast["installer"]), "csms.firmwarerollout", "start", FirmwareRollout.objects.get().pk)

    assert said[0].startswith("No station fits")


# ---------------------------------------------------------------------- logs


def test_a_log_of_a_station_that_is_away_is_refused_in_the_form(office):
    LogRequest.objects.all().delete()

    answer = add(
        entered(office.cast["operator"]), "logrequest", station=office.station.pk, kind="diagnostics", elsewhere=""
    )

    assert "not connected" in str(answer.context["adminform"].form.errors)
    assert not LogRequest.objects.exists()


def test_a_log_is_asked_for_in_the_office(office):
    LogRequest.objects.all().delete()
    scenery.connect(office.campus.evses[0])
    gateway = Gateway({"kind": "result", "result": {"status": "Accepted", "filename": "d.zip"}})

    add(entered(office.cast["operator"]), "logrequest", station=office.station.pk, kind="security", elsewhere="")
    gateway.join(5)

    row = LogRequest.objects.get()
    assert (row.by.username, row.file_name, row.state) == ("olivia", "d.zip", "asked")
    assert gateway.asked["payload"]["log"]["remoteLocation"].startswith("http://localhost:8000/station-files/log/")


def test_a_log_is_fetched_from_the_stations_page(office):
    found = act(
        entered(office.cast["operator"]),
        "csms.chargingstation",
        "fetch_log",
        office.station.pk,
        kind="diagnostics",
        days="3",
    )

    assert found == ["CS-001 is not connected; nothing was sent."]


def test_a_log_is_downloaded_by_operators_of_its_site_only(office):
    row = LogRequest.objects.get()
    (logs.folder() / "kept.log").write_bytes(b"<script>alert(1)</script>")
    LogRequest.objects.update(file="kept.log", file_name="log.html", state="uploaded", size=25)
    address = reverse("admin:csms_logrequest_download", args=[row.pk])

    answer = entered(office.cast["operator"]).get(address)

    assert b"".join(answer.streaming_content) == b"<script>alert(1)</script>"
    assert answer["Content-Type"] == "application/octet-stream"
    assert answer["Content-Disposition"] == 'attachment; filename="log.html"'
    assert answer["X-Content-Type-Options"] == "nosniff"
    found = {name: entered(office.cast[name]).get(address).status_code for name in ("viewer", "stranger", "driver")}
    assert found == {"viewer": 403, "stranger": 404, "driver": 302}

    operator = entered(office.cast["operator"])
    assert act(operator, "csms.logrequest", "delete_file", row.pk) == ["The file is deleted."]
    assert operator.get(address).status_code == 404
    assert not (logs.folder() / "kept.log").exists()

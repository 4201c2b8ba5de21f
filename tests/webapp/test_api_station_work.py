"""REST for longer work: reservations with the station's answer, logs with their file, rollouts with their stations."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from csms import logs
from csms.models import ChargingStation
from csms.workflow_models import FirmwareImage, FirmwareRollout, LogRequest, Reservation
from meters import live
from tests.people import calling
from tests.webapp import campus as scenery
from tests.webapp.test_admin_actions import Gateway

pytestmark = pytest.mark.django_db


def api(office: Any, who: str = "operator") -> Any:
    return calling(office.cast[who])


def until(minutes: float) -> str:
    return (timezone.now() + timedelta(minutes=minutes)).isoformat()


def test_a_place_is_reserved_and_given_back(office):
    scenery.connect(office.campus.evses[0])
    gateway = Gateway({"kind": "result", "result": {"status": "Accepted"}})
    body = {"id_token": office.token.value.lower(), "station": "CS-001", "evse": 1, "ends_at": until(30)}

    answer = api(office).post("/api/v1/reservations/", body)
    gateway.join(5)

    made = answer.json()
    assert answer.status_code == 201
    assert (made["state"], made["station"], made["evse"], made["by"]) == ("accepted", "CS-001", 1, "olivia")
    assert gateway.asked["payload"]["evseId"] == 1
    found = api(office).get("/api/v1/reservations/?open=true&station=CS-001").json()["results"]
    assert made["id"] in [r["id"] for r in found]

    live.connection().delete("call:g1")  # the stand-in reads from the beginning
    gateway = Gateway({"kind": "result", "result": {"status": "Accepted"}})
    given_back = api(office).delete(f"/api/v1/reservations/{made['id']}/")
    gateway.join(5)
    assert (given_back.status_code, given_back.json()["state"]) == (200, "cancelled")


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"id_token": "NOBODY"}, "id_token"),
        ({"station": "FAR-1"}, "station"),
        ({"evse": 9}, "evse"),
        ({"evse": 1, "station": None}, "station"),
        ({"ends_at": "soon"}, "ends_at"),
        ({"ends_at": "2020-01-01T00:00:00Z"}, "ends_at"),
        ({"until": "x"}, "until"),
    ],
)
def test_a_bad_reservation_is_refused_by_its_field(office, change: dict[str, Any], field: str):
    body = {"id_token": office.token.value, "station": "CS-001", "ends_at": until(30), **change}

    answer = api(office).post("/api/v1/reservations/", {k: v for k, v in body.items() if v is not None})

    assert answer.status_code == 400
    assert field in answer.json()
    assert Reservation.objects.count() == 1  # the office's own


def test_a_log_is_asked_for_and_its_file_given(office):
    LogRequest.objects.all().delete()
    scenery.connect(office.campus.evses[0])
    gateway = Gateway({"kind": "result", "result": {"status": "Accepted", "filename": "d.log"}})

    made = api(office).post("/api/v1/station-logs/", {"station": "CS-001"}).json()
    gateway.join(5)
    assert (made["state"], made["kind"], made["file"]) == ("asked", "diagnostics", False)

    (logs.folder() / "given.log").write_bytes(b"lines")
    LogRequest.objects.update(file="given.log", file_name="d.log", state="uploaded")
    answer = api(office).get(f"/api/v1/station-logs/{made['id']}/file/")
    assert b"".join(answer.streaming_content) == b"lines"
    assert answer["Content-Disposition"].startswith("attachment")


@pytest.mark.parametrize(
    ("reply", "status"),
    [
        ({"kind": "error", "code": "NotSupported", "description": ""}, 502),
        ({"kind": "invalid", "description": "log"}, 422),
        ({"kind": "unreachable"}, 409),
    ],
)
def test_a_log_that_cannot_be_asked_for_says_why(office, reply: dict[str, Any], status: int):
    scenery.connect(office.campus.evses[0])
    Gateway(reply)

    answer = api(office).post("/api/v1/station-logs/", {"station": "CS-001", "kind": "security"})

    assert answer.status_code == status
    assert answer.json()["detail"]


def test_a_rollout_is_described_started_and_followed(office):
    ChargingStation.objects.filter(identity="CS-001").update(vendor="Acme", firmware_version="1.0")
    FirmwareRollout.objects.all().delete()
    installer = api(office, "installer")
    image = FirmwareImage.objects.get()
    body = {
        "image": image.pk,
        "site": office.site.pk,
        "stations": ["CS-001"],
        "window_from": "22:00",
        "window_to": "05:00",
    }

    made = installer.post("/api/v1/firmware-rollouts/", body).json()
    assert (made["state"], made["version"], made["window_from"]) == ("draft", "2.0", "22:00:00")
    started = installer.post(f"/api/v1/firmware-rollouts/{made['id']}/start/").json()
    assert (started["state"], started["counts"]) == ("running", {"waiting": 1})
    assert installer.post(f"/api/v1/firmware-rollouts/{made['id']}/start/").status_code == 409
    [station] = installer.get(f"/api/v1/firmware-rollouts/{made['id']}/stations/").json()["results"]
    assert (station["station"], station["state"], station["canary"]) == ("CS-001", "waiting", False)
    for verb, state in (("pause", "paused"), ("resume", "running"), ("cancel", "cancelled")):
        assert installer.post(f"/api/v1/firmware-rollouts/{made['id']}/{verb}/").json()["state"] == state


def test_an_image_of_another_site_cannot_be_rolled_out(office):
    foreign = FirmwareImage.objects.create(site=office.elsewhere, vendor="X", version="1", url="https://x.example/1")

    answer = api(office, "installer").post("/api/v1/firmware-rollouts/", {"image": foreign.pk, "site": office.site.pk})

    assert answer.status_code == 400
    assert "image" in answer.json()

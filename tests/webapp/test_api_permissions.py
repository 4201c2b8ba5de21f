"""Who gets what from every endpoint: one table, a row per door, a column per person.

What a person may not see does not exist for him (404); what he sees but may not change is refused by name (403).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.db import transaction
from django.urls import get_resolver
from django.utils import timezone

from csms.obedience_models import Alarm
from csms.workflow_models import FirmwareImage, FirmwareRollout, LocalList, LogRequest, Reservation
from tests.people import calling
from tests.webapp.office import Office

pytestmark = pytest.mark.django_db


def the(model: Any) -> int:
    """The key of the office's one record of this kind."""
    return model.objects.get().pk


CAST = ("anonymous", "stranger", "driver", "viewer", "operator", "installer", "superuser")

# Method, address, body, and the status for each of the cast, in its order.
READS: list[tuple[str, Callable[[Office], str], tuple[int, ...]]] = [
    ("GET", lambda o: "sites/", (401, 200, 200, 200, 200, 200, 200)),
    ("GET", lambda o: f"sites/{o.site.pk}/", (401, 404, 404, 200, 200, 200, 200)),
    ("GET", lambda o: f"sites/{o.site.pk}/now/", (401, 404, 404, 200, 200, 200, 200)),
    ("GET", lambda o: f"sites/{o.site.pk}/plan/", (401, 404, 404, 200, 200, 200, 200)),
    ("GET", lambda o: f"sites/{o.site.pk}/report/", (401, 404, 404, 200, 200, 200, 200)),
    ("GET", lambda o: "stations/", (401, 200, 200, 200, 200, 200, 200)),
    ("GET", lambda o: f"stations/{o.station.identity}/", (401, 404, 404, 200, 200, 200, 200)),
    ("GET", lambda o: f"stations/{o.station.identity}/messages/", (401, 404, 404, 200, 200, 200, 200)),
    ("GET", lambda o: "transactions/", (401, 200, 200, 200, 200, 200, 200)),
    ("GET", lambda o: f"transactions/{o.campus.transaction.pk}/", (401, 404, 200, 200, 200, 200, 200)),
    ("GET", lambda o: f"transactions/{o.campus.transaction.pk}/explanation/", (401, 404, 200, 200, 200, 200, 200)),
    ("GET", lambda o: "goals/", (401, 200, 200, 200, 200, 200, 200)),
    ("GET", lambda o: f"goals/{o.goal.pk}/", (401, 404, 200, 200, 200, 200, 200)),
    ("GET", lambda o: "id-tokens/", (401, 200, 200, 200, 200, 200, 200)),
    ("GET", lambda o: f"id-tokens/{o.token.pk}/", (401, 404, 404, 200, 200, 200, 200)),
    ("GET", lambda o: "user-profiles/", (401, 200, 200, 200, 200, 200, 200)),
    ("GET", lambda o: f"user-profiles/{o.profile.pk}/", (401, 404, 404, 200, 200, 200, 200)),
    ("GET", lambda o: "devices/", (401, 200, 200, 200, 200, 200, 200)),
    ("GET", lambda o: f"devices/{o.device.pk}/", (401, 404, 404, 200, 200, 200, 200)),
    ("GET", lambda o: "prices/", (401, 200, 200, 200, 200, 200, 200)),
    ("GET", lambda o: "grid-commands/", (401, 200, 200, 200, 200, 200, 200)),
    ("GET", lambda o: f"grid-commands/{o.command.pk}/", (401, 404, 404, 200, 200, 200, 200)),
    ("GET", lambda o: "reservations/", (401, 200, 200, 200, 200, 200, 200)),
    ("GET", lambda o: f"reservations/{the(Reservation)}/", (401, 404, 404, 200, 200, 200, 200)),
    ("GET", lambda o: "local-lists/", (401, 200, 200, 200, 200, 200, 200)),
    ("GET", lambda o: f"local-lists/{the(LocalList)}/", (401, 404, 404, 200, 200, 200, 200)),
    ("GET", lambda o: "station-logs/", (401, 200, 200, 200, 200, 200, 200)),
    ("GET", lambda o: f"station-logs/{the(LogRequest)}/", (401, 404, 404, 200, 200, 200, 200)),
    ("GET", lambda o: f"station-logs/{the(LogRequest)}/file/", (401, 404, 404, 403, 404, 404, 404)),
    ("GET", lambda o: "firmware-rollouts/", (401, 200, 200, 200, 200, 200, 200)),
    ("GET", lambda o: f"firmware-rollouts/{the(FirmwareRollout)}/", (401, 404, 404, 200, 200, 200, 200)),
    ("GET", lambda o: f"firmware-rollouts/{the(FirmwareRollout)}/stations/", (401, 404, 404, 200, 200, 200, 200)),
    ("GET", lambda o: "alarms/", (401, 200, 200, 200, 200, 200, 200)),
    ("GET", lambda o: f"alarms/{the(Alarm)}/", (401, 404, 404, 200, 200, 200, 200)),
    ("GET", lambda o: "schema/", (200, 200, 200, 200, 200, 200, 200)),
    ("GET", lambda o: "docs/", (200, 200, 200, 200, 200, 200, 200)),
    ("GET", lambda o: "no-such-thing/", (404, 404, 404, 404, 404, 404, 404)),
]

LATER = "2036-01-01T00:00:00Z"
SOON = {"energy_kwh": 10}


def in_an_hour() -> str:
    return (timezone.now() + timedelta(hours=1)).isoformat()


WRITES: list[tuple[str, Callable[[Office], str], Callable[[Office], Any], tuple[int, ...]]] = [
    (
        "POST",
        lambda o: "stations/",
        lambda o: {"site": o.site.pk, "identity": "NEW-1"},
        (401, 400, 400, 403, 403, 201, 201),
    ),
    (
        "PATCH",
        lambda o: f"stations/{o.station.identity}/",
        lambda o: {"quiet": True},
        (401, 404, 404, 403, 200, 200, 200),
    ),
    (
        "PATCH",
        lambda o: f"stations/{o.station.identity}/",
        lambda o: {"max_a": 20},
        (401, 404, 404, 403, 403, 200, 200),
    ),
    (
        "POST",
        lambda o: f"stations/{o.station.identity}/ocpp/",
        lambda o: {"action": "Reset", "payload": {"type": "Soft"}},
        (401, 404, 404, 403, 409, 409, 409),
    ),
    (
        "POST",
        lambda o: f"stations/{o.station.identity}/ocpp/",
        lambda o: {"action": "ChangeConfiguration", "payload": {"key": "A", "value": "1"}},
        (401, 404, 404, 403, 403, 409, 409),
    ),
    (
        "POST",
        lambda o: "goals/",
        lambda o: {"id_token": o.token.value, "energy_kwh": 10},
        (401, 400, 403, 403, 201, 201, 201),
    ),
    ("PATCH", lambda o: f"goals/{o.goal.pk}/", lambda o: SOON, (401, 404, 200, 403, 200, 200, 200)),
    ("DELETE", lambda o: f"goals/{o.goal.pk}/", lambda o: None, (401, 404, 403, 403, 204, 204, 204)),
    (
        "POST",
        lambda o: "goals/bulk/",
        lambda o: [{"id_token": o.token.value, "energy_kwh": 10}],
        (401, 207, 403, 403, 200, 200, 200),
    ),
    (
        "POST",
        lambda o: "id-tokens/",
        lambda o: {"site": o.site.pk, "value": "NEWCARD"},
        (401, 400, 400, 403, 201, 201, 201),
    ),
    (
        "PATCH",
        lambda o: f"id-tokens/{o.token.pk}/",
        lambda o: {"status": "blocked"},
        (401, 404, 404, 403, 200, 200, 200),
    ),
    ("DELETE", lambda o: f"id-tokens/{o.token.pk}/", lambda o: None, (401, 404, 404, 403, 204, 204, 204)),
    (
        "POST",
        lambda o: "user-profiles/",
        lambda o: {"site": o.site.pk, "name": "guests"},
        (401, 400, 400, 403, 201, 201, 201),
    ),
    (
        "PATCH",
        lambda o: f"user-profiles/{o.profile.pk}/",
        lambda o: {"priority": 5},
        (401, 404, 404, 403, 200, 200, 200),
    ),
    ("DELETE", lambda o: f"user-profiles/{o.profile.pk}/", lambda o: None, (401, 404, 404, 403, 204, 204, 204)),
    (
        "POST",
        lambda o: "devices/",
        lambda o: {"site": o.site.pk, "name": "sub", "kind": "meter"},
        (401, 400, 400, 403, 403, 201, 201),
    ),
    ("PATCH", lambda o: f"devices/{o.device.pk}/", lambda o: {"enabled": False}, (401, 404, 404, 403, 403, 200, 200)),
    ("DELETE", lambda o: f"devices/{o.device.pk}/", lambda o: None, (401, 404, 404, 403, 403, 204, 204)),
    (
        "POST",
        lambda o: "prices/",
        lambda o: [{"area": "BE", "start": LATER, "eur_per_mwh": 80}],
        (401, 400, 403, 403, 200, 200, 200),
    ),
    (
        "POST",
        lambda o: "grid-commands/",
        lambda o: {"site": o.site.pk, "import_limit_w": 1000, "reason": "test"},
        (401, 400, 400, 403, 201, 201, 201),
    ),
    (
        "PATCH",
        lambda o: f"grid-commands/{o.command.pk}/",
        lambda o: {"state": "ended"},
        (401, 404, 404, 403, 200, 200, 200),
    ),
    (
        "POST",
        lambda o: "reservations/",
        lambda o: {"id_token": o.token.value, "station": o.station.identity, "ends_at": in_an_hour()},
        (401, 400, 400, 403, 201, 201, 201),
    ),
    ("DELETE", lambda o: f"reservations/{the(Reservation)}/", lambda o: None, (401, 404, 404, 403, 200, 200, 200)),
    ("POST", lambda o: f"local-lists/{the(LocalList)}/send/", lambda o: {}, (401, 404, 404, 403, 200, 200, 200)),
    (
        "POST",
        lambda o: "station-logs/",
        lambda o: {"station": o.station.identity},
        (401, 400, 400, 403, 409, 409, 409),
    ),
    (
        "POST",
        lambda o: "firmware-rollouts/",
        lambda o: {"image": the(FirmwareImage), "site": o.site.pk},
        (401, 400, 400, 403, 403, 201, 201),
    ),
    *(
        (
            "POST",
            lambda o, verb=verb: f"firmware-rollouts/{the(FirmwareRollout)}/{verb}/",
            lambda o: {},
            (401, 404, 404, 403, 403, allowed, allowed),
        )
        for verb, allowed in (("start", 409), ("pause", 409), ("resume", 409), ("cancel", 200))
    ),
    ("PATCH", lambda o: f"alarms/{the(Alarm)}/", lambda o: {"ended": True}, (401, 404, 404, 403, 200, 200, 200)),
    (
        "POST",
        lambda o: f"stations/{o.station.identity}/password/",
        lambda o: {},
        (401, 404, 404, 403, 409, 409, 409),
    ),
    ("POST", lambda o: "sites/", lambda o: {"name": "x"}, (401, 405, 405, 405, 405, 405, 405)),
    (
        "DELETE",
        lambda o: f"transactions/{o.campus.transaction.pk}/",
        lambda o: None,
        (401, 405, 405, 405, 405, 405, 405),
    ),
]


@pytest.mark.parametrize(("method", "address", "statuses"), READS, ids=[str(n) for n in range(len(READS))])
def test_reading_is_narrowed_to_the_callers_sites(office, method, address, statuses):
    found = {}
    for name in CAST:
        found[name] = calling(office.cast[name]).get("/api/v1/" + address(office)).status_code

    assert found == dict(zip(CAST, statuses, strict=True)), address(office)


@pytest.mark.parametrize(("method", "address", "body", "statuses"), WRITES, ids=[str(n) for n in range(len(WRITES))])
def test_writing_needs_a_role_on_the_site(office, method, address, body, statuses):
    path, text = "/api/v1/" + address(office), json.dumps(body(office))
    found = {}
    for name in CAST:
        before = transaction.savepoint()
        answer = calling(office.cast[name]).generic(method, path, text, content_type="application/json")
        transaction.savepoint_rollback(before)
        found[name] = answer.status_code
        if answer.status_code >= 400:
            assert answer["Content-Type"].startswith("application/json")
            assert answer.json(), "a refusal says why"

    assert found == dict(zip(CAST, statuses, strict=True)), path


def test_lists_hold_no_records_of_another_site(office):
    stranger = calling(office.cast["stranger"])

    for path in ("transactions", "goals", "id-tokens", "user-profiles", "devices", "grid-commands", "prices", "alarms"):
        assert stranger.get(f"/api/v1/{path}/").json()["results"] == [], path
    stations = stranger.get("/api/v1/stations/").json()["results"]
    assert [s["identity"] for s in stations] == ["FAR-1"]


def test_a_driver_sees_his_own_charges_and_goals_only(office):
    driver = calling(office.cast["driver"])

    assert [t["id"] for t in driver.get("/api/v1/transactions/").json()["results"]] == [office.campus.transaction.pk]
    assert [g["id"] for g in driver.get("/api/v1/goals/").json()["results"]] == [office.goal.pk]
    assert driver.get("/api/v1/stations/").json()["results"] == []


def test_a_driver_cannot_raise_his_own_priority(office):
    answer = calling(office.cast["driver"]).patch(f"/api/v1/goals/{office.goal.pk}/", {"priority": 10})

    assert answer.status_code == 400
    assert "priority" in answer.json()


def test_a_person_who_left_is_let_in_nowhere(office):
    olivia = office.cast["operator"]
    client = calling(olivia)
    olivia.is_active = False
    olivia.save()

    assert client.get("/api/v1/sites/").status_code == 401


def test_every_address_of_the_api_is_in_the_table():
    """A new endpoint gets its row before it gets a caller."""
    api = next(p for p in get_resolver().url_patterns if str(p.pattern) == "api/v1/")
    names = {p.name for p in _flat(api.url_patterns) if p.name}

    assert names == {
        *("api-schema", "api-docs", "goals-bulk", "prices", "stations", "station", "station-messages", "station-ocpp"),
        *("station-password", "alarm-list", "alarm-detail"),
        *("site-list", "site-detail", "site-now", "site-plan", "site-report", "transaction-list", "transaction-detail"),
        "transaction-explanation",
        *("charginggoal-list", "charginggoal-detail", "idtoken-list", "idtoken-detail", "device-list", "device-detail"),
        *("userprofile-list", "userprofile-detail", "gridcommand-list", "gridcommand-detail"),
        *("reservation-list", "reservation-detail", "locallist-list", "locallist-detail", "locallist-send"),
        *("logrequest-list", "logrequest-detail", "logrequest-file", "firmwarerollout-list", "firmwarerollout-detail"),
        *(f"firmwarerollout-{verb}" for verb in ("stations", "start", "pause", "resume", "cancel")),
    }


def _flat(patterns: Any) -> Any:
    for pattern in patterns:
        if hasattr(pattern, "url_patterns"):
            yield from _flat(pattern.url_patterns)
        else:
            yield pattern

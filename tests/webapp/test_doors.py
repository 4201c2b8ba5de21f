"""The small doors: the token command, the health check, the published schema."""

from __future__ import annotations

import io

import pytest
import redis
from django.core.management import CommandError, call_command
from django.test import Client
from rest_framework.authtoken.models import Token

from meters import live
from tests.people import operator_olivia
from tests.webapp.campus import bare_site

pytestmark = pytest.mark.django_db


def printed(*args: str) -> str:
    out = io.StringIO()
    call_command("create_token", *args, stdout=out)
    return out.getvalue().strip()


def test_a_token_is_made_once_and_printed_again(db):
    olivia = operator_olivia(bare_site())

    first = printed("olivia")

    assert printed("olivia") == first == Token.objects.get(user=olivia).key
    assert Client().get("/api/v1/sites/", headers={"Authorization": f"Token {first}"}).status_code == 200


def test_a_rotated_token_ends_the_old_one(db):
    operator_olivia(bare_site())
    old = printed("olivia")

    new = printed("olivia", "--rotate")

    assert new != old
    assert Client().get("/api/v1/sites/", headers={"Authorization": f"Token {old}"}).status_code == 401


def test_an_unknown_or_inactive_user_gets_no_token(db):
    olivia = operator_olivia(bare_site())

    with pytest.raises(CommandError, match=r"no user “olga”\. Known: olivia"):
        printed("olga")
    olivia.is_active = False
    olivia.save()
    with pytest.raises(CommandError, match="not active"):
        printed("olivia")


def test_a_well_installation_says_so(db):
    answer = Client().get("/readyz")

    assert answer.status_code == 200
    parts = ("status", "process", "database", "migrations", "redis")
    assert answer.json() == dict.fromkeys(parts, "ok")


def test_an_installation_without_redis_says_so(db, monkeypatch):
    away = redis.Redis.from_url("unix:///nowhere/valkey.sock")
    monkeypatch.setattr(live, "connection", lambda: away)

    answer = Client().get("/readyz")

    assert answer.status_code == 503
    assert (answer.json()["status"], answer.json()["redis"], answer.json()["database"]) == ("failing", "failing", "ok")
    assert Client().get("/healthz").status_code == 200  # it lives: nobody needs to restart it


def test_the_schema_is_valid_and_warns_of_nothing(db, tmp_path):
    call_command("spectacular", validate=True, fail_on_warn=True, file=str(tmp_path / "schema.yml"))

    assert "/api/v1/stations/{identity}/ocpp/" in (tmp_path / "schema.yml").read_text()


def test_the_documentation_needs_nothing_from_elsewhere(db):
    text = Client().get("/api/v1/docs/").content.decode()

    assert "swagger-ui" in text
    assert "//cdn" not in text

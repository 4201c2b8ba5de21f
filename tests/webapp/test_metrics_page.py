"""`/metrics`: who may read it, and that what the processes count stands there."""

from __future__ import annotations

from typing import Any

import pytest
from django.test import Client

from meters import live, metrics
from tests.people import operator_olivia, viewer_vera
from tests.webapp.campus import bare_site
from webapp import task_metrics

pytestmark = pytest.mark.django_db
ELSEWHERE = {"REMOTE_ADDR": "10.0.0.7"}


def test_without_a_token_only_this_machine_may_read() -> None:
    assert Client().get("/metrics").status_code == 200
    assert Client().get("/metrics", **ELSEWHERE).status_code == 404
    assert Client().get("/metrics", headers={"X-Forwarded-For": "10.0.0.7"}).status_code == 404


def test_with_a_token_whoever_shows_it_may_read(settings: Any) -> None:
    settings.METRICS_TOKEN = "a-long-token"

    assert Client().get("/metrics", headers={"Authorization": "Bearer a-long-token"}, **ELSEWHERE).status_code == 200
    assert Client().get("/metrics", headers={"Authorization": "Bearer another"}, **ELSEWHERE).status_code == 404
    assert Client().get("/metrics").status_code == 404  # not even from here: a proxy may stand on this machine


def test_staff_may_read_and_others_may_not() -> None:
    site = bare_site()
    staff, other = operator_olivia(site), viewer_vera(site)
    staff.is_staff, other.is_staff = True, False
    for person, status in ((staff, 200), (other, 404)):
        person.save()
        client = Client()
        client.force_login(person)
        assert client.get("/metrics", **ELSEWHERE).status_code == status


def test_a_task_is_counted_and_timed() -> None:
    class Task:
        name = "smartcharging.tasks.balance"

    task_metrics.begins(task_id="1")
    task_metrics.ends(task_id="1", task=Task, state="SUCCESS")
    task_metrics.begins(task_id="2")
    task_metrics.failed(sender=Task)
    task_metrics.ends(task_id="2", task=Task, state="FAILURE")
    metrics.publish("worker-x")

    page = Client().get("/metrics").content.decode()

    assert 'laadplein_tasks_total{process="worker-x",task="balance",outcome="done"} 1' in page
    assert 'laadplein_tasks_total{process="worker-x",task="balance",outcome="failed"} 1' in page
    assert 'laadplein_task_seconds_count{process="worker-x",task="balance"} 2' in page


def test_without_redis_the_page_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    import redis

    away = redis.Redis.from_url("unix:///nowhere/valkey.sock")
    monkeypatch.setattr(metrics, "connection", lambda: away)
    assert live.connection().ping()

    assert Client().get("/metrics").status_code == 503

"""The live stream over real sockets: who may watch, what arrives, and how it ends."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager

import pytest
from django.contrib.auth.models import User
from django.test import Client

from meters import live
from meters.models import SiteRole
from tests.webapp import campus as world
from tests.webapp.serving import served
from webapp.asgi import Application
from webapp.dashboard.stream import LiveStream
from webapp.wsgi import application as pages

pytestmark = pytest.mark.django_db(transaction=True)


def cookie_of(user: User | None) -> dict[str, str]:
    if user is None:
        return {}
    client = Client()
    client.force_login(user)
    return {"Cookie": f"sessionid={client.cookies['sessionid'].value}"}


@contextmanager
def asking(url: str, path: str, headers: dict[str, str], method: str = "GET") -> Iterator[http.client.HTTPResponse]:
    with closing(http.client.HTTPConnection(url.removeprefix("http://"), timeout=10)) as connection:
        connection.request(method, path, headers=headers)
        with connection.getresponse() as answer:
            yield answer


def status_of(url: str, path: str, user: User | None = None, method: str = "GET") -> int:
    with asking(url, path, cookie_of(user), method) as answer:
        return answer.status


@contextmanager
def reading(url: str, site: int, user: User) -> Iterator[Iterator[str]]:
    """The lines of the stream, as they come."""
    with asking(url, f"/live/{site}/", cookie_of(user)) as answer:
        assert answer.status == 200
        assert answer.headers["content-type"].startswith("text/event-stream")
        assert answer.headers["cache-control"] == "no-cache"
        assert answer.headers["x-accel-buffering"] == "no"
        yield (line.decode().rstrip("\n") for line in answer)


def next_picture(lines: Iterator[str]) -> dict:
    for line in lines:
        if line.startswith("data: "):
            return json.loads(line.removeprefix("data: "))
    raise AssertionError("the stream ended")


def until(check, seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not check():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.02)


def listeners() -> int:
    return live.connection().pubsub_numpat()


def test_the_first_event_is_the_stored_picture_and_then_every_push():
    campus = world.campus()
    world.publish(campus, flows={"grid_w": 1_000.0})

    with served() as url, reading(url, campus.site.pk, campus.operator) as lines:
        assert next_picture(lines)["flows"]["grid_w"] == 1_000.0
        until(listeners)
        world.publish(campus, flows={"grid_w": 2_000.0})
        assert next_picture(lines)["flows"]["grid_w"] == 2_000.0


def test_each_reader_gets_the_pictures_of_his_own_site():
    campus = world.campus()
    other = world.bare_site()
    SiteRole.objects.create(user=campus.operator, site=other, role="viewer")

    with (
        served() as url,
        reading(url, campus.site.pk, campus.operator) as mine,
        reading(url, other.pk, campus.operator) as theirs,
    ):
        until(listeners)
        live.connection().publish(f"push:{other.pk}", json.dumps({"site": other.pk}))
        world.publish(campus)
        assert next_picture(mine)["site"] == campus.site.pk
        assert next_picture(theirs)["site"] == other.pk


def test_nobody_watches_without_logging_in():
    campus = world.campus()
    with served() as url:
        assert status_of(url, f"/live/{campus.site.pk}/") == 401
        with asking(url, f"/live/{campus.site.pk}/", {"Cookie": "sessionid=made-up"}) as answer:
            assert answer.status == 401


def test_a_site_of_others_is_no_site():
    campus = world.campus()
    stranger = world.operator_of(world.bare_site(), "sam")
    with served() as url:
        for path in (f"/live/{campus.site.pk}/", "/live/99999/", f"/live/{'9' * 40}/", "/live/"):
            assert status_of(url, path, stranger) == 404


def test_a_driver_without_a_role_does_not_watch_the_site():
    campus = world.campus()
    with served() as url:
        assert status_of(url, f"/live/{campus.site.pk}/", campus.driver) == 404


def test_the_stream_is_only_read():
    with served() as url:
        assert status_of(url, "/live/1/", method="POST") == 405


def test_a_silent_stream_sends_comments():
    campus = world.campus()
    with served(comment_s=0.05) as url, reading(url, campus.site.pk, campus.operator) as lines:
        comments = (line for line in lines if line.startswith(":"))
        assert next(comments)
        assert next(comments)


def test_there_is_a_bound_on_readers_and_leaving_makes_room():
    campus = world.campus()
    with served(max_streams=1, comment_s=0.05) as url:
        with reading(url, campus.site.pk, campus.operator) as lines:
            next(lines)
            with asking(url, f"/live/{campus.site.pk}/", cookie_of(campus.operator)) as refused:
                assert refused.status == 503
                assert refused.headers["retry-after"]
        until(lambda: status_of(url, f"/live/{campus.site.pk}/", campus.operator) == 200)


def test_the_last_reader_takes_the_subscription_along():
    campus = world.campus()
    with served(comment_s=0.05) as url:
        with reading(url, campus.site.pk, campus.operator):
            until(listeners)
        until(lambda: listeners() == 0)


def test_a_stream_ends_after_its_life_so_that_rights_are_asked_again():
    campus = world.campus()
    with served(life_s=0.2, comment_s=0.05) as url:
        with reading(url, campus.site.pk, campus.operator) as lines:
            list(lines)  # ends by itself
        SiteRole.objects.all().delete()
        assert status_of(url, f"/live/{campus.site.pk}/", campus.operator) == 404


def test_a_lost_redis_connection_is_made_again():
    campus = world.campus()
    with served(comment_s=0.05) as url, reading(url, campus.site.pk, campus.operator) as lines:
        until(listeners)
        live.connection().client_kill_filter(_type="pubsub")
        until(listeners)
        world.publish(campus, flows={"pv_w": -3_000.0})
        assert next_picture(lines)["flows"]["pv_w"] == -3_000.0


def test_a_picture_over_several_lines_arrives_whole():
    campus = world.campus()
    live.connection().set(f"now:{campus.site.pk}", '{"at":\n"x"}')
    with served() as url, reading(url, campus.site.pk, campus.operator) as lines:
        told = [line for line, _ in zip(lines, range(5), strict=False)]
    assert 'data: {"at":' in told
    assert 'data: "x"}' in told


def test_pages_come_from_the_same_port():
    with served() as url:
        with asking(url, "/accounts/login/", {}) as answer:
            assert answer.status == 200
            assert b"Laadplein" in answer.read()
        assert status_of(url, "/nothing-here/") == 404


async def test_the_application_starts_and_stops_with_its_server():
    told: list[str] = []
    asked = iter([{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}])

    async def receive():
        return next(asked)

    async def send(message):
        told.append(message["type"])

    await Application(pages, LiveStream())({"type": "lifespan"}, receive, send)

    assert told == ["lifespan.startup.complete", "lifespan.shutdown.complete"]


async def test_websockets_are_turned_away():
    told: list[str] = []

    async def send(message):
        told.append(message["type"])

    await Application(pages, LiveStream())({"type": "websocket", "path": "/ocpp/CS-1"}, None, send)

    assert told == ["websocket.close"]

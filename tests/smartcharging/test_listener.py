"""The listener: messages become balances and plans, coalesced, and nothing makes it stop but being told to."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from csms.models import IdToken
from meters import live
from meters.live import connection
from meters.measurement import Measurement
from smartcharging.listener import Listener
from smartcharging.models import TokenProfile, UserProfile
from tests.smartcharging.test_tasks import queued
from tests.smartcharging.worlds import World, timezone_now


class Ear:
    """A listener that writes down what it would have asked for, on a clock of the test."""

    def __init__(self) -> None:
        self.now = 100.0
        self.rung: list[int] = []
        self.planned: list[tuple[int, str]] = []
        self.listener = Listener(
            ring=self.rung.append,
            replan=lambda site, trigger: self.planned.append((site, trigger)),
            clock=lambda: self.now,
        )

    def fresh(self, site: int = 1) -> None:
        self.listener.hear("fresh", json.dumps({"site": site, "source": "device:1"}))


def test_the_first_reading_rings_at_once_and_the_last_of_a_burst_is_not_lost():
    ear = Ear()
    for _ in range(5):
        ear.fresh()
    assert ear.rung == [1]

    ear.listener.ring_due()
    assert ear.rung == [1]
    ear.now += 0.31
    ear.listener.ring_due()
    assert ear.rung == [1, 1]
    ear.now += 5
    ear.listener.ring_due()
    assert ear.rung == [1, 1]


def test_one_sites_burst_does_not_hold_up_another():
    ear = Ear()
    ear.fresh(1)
    ear.fresh(1)
    ear.fresh(2)

    assert ear.rung == [1, 2]


@pytest.mark.parametrize(
    "data", ["", "not json", "[]", "{}", '{"site": null}', '{"site": "1"}', '{"site": 1, "kind": 5}']
)
def test_nonsense_is_passed_over(data):
    ear = Ear()

    ear.listener.hear("transaction", data)

    assert ear.planned == []
    assert ear.rung == []


def test_an_ended_transaction_plans_the_rest_anew():
    ear = Ear()

    ear.listener.hear("transaction", json.dumps({"kind": "ended", "transaction": 5, "site": 1, "evse": 2}))

    assert ear.planned == [(1, "transaction ended")]
    assert ear.rung == [1]


@contextmanager
def listening(listener: Listener) -> Iterator[threading.Event]:
    ready = threading.Event()
    thread = threading.Thread(target=listener.run, kwargs={"ready": ready.set})
    thread.start()
    assert ready.wait(5)
    try:
        yield ready
    finally:
        listener.stop()
        thread.join(5)
        assert not thread.is_alive()


def until(condition: object) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_stored_reading_rings_its_site():
    rung: list[int] = []
    with listening(Listener(ring=rung.append)):
        live.store("device:1", Measurement(at=timezone_now()), 7)

        until(lambda: rung == [7])


def test_it_goes_on_when_redis_was_away():
    rung: list[int] = []
    with listening(Listener(ring=rung.append)) as ready:
        ready.clear()
        connection().client_kill_filter(_type="pubsub")
        assert ready.wait(10)
        live.store("device:1", Measurement(at=timezone_now()), 7)

        until(lambda: rung == [7])


@pytest.mark.django_db(transaction=True)
def test_a_tap_leads_to_the_goal_of_its_profile_and_a_plan():
    world = World.campus(timezone_now())
    card = IdToken.objects.create(site=world.site, value="A")
    profile = UserProfile.objects.create(site=world.site, name="fleet", energy_wh=12_000)
    TokenProfile.objects.create(id_token=card, profile=profile)
    charge = world.car("CS-1", id_token=card)

    with listening(Listener()):
        body = {"kind": "started", "transaction": charge.pk, "site": world.site.pk, "evse": charge.evse_id}
        connection().publish("transaction", json.dumps(body))
        until(lambda: queued("slow") == ["smartcharging.tasks.plan"] and queued("control"))

    charge.refresh_from_db()
    assert (charge.goal.source, charge.goal.energy_wh) == ("tap", 12_000)

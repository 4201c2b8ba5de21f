"""The driver's page: one's own sessions and nobody else's, the wish, what is promised, start and stop."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from django.test import Client
from django.utils import timezone

from csms.models import EVSE, IdToken, Transaction, WantedLimit
from meters import live
from smartcharging.models import ChargingGoal, Vehicle
from tests.webapp import campus as world
from webapp.driver import sessions
from webapp.driver.forms import GoalForm, usual_departure

pytestmark = pytest.mark.django_db

BRUSSELS = ZoneInfo("Europe/Brussels")


def text_of(response) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", response.content.decode()))


def page(client, user) -> str:
    client.force_login(user)
    return text_of(client.get("/driver/"))


def wish(campus, client, **fields):
    """Post the form as a phone does."""
    tomorrow = timezone.now().astimezone(BRUSSELS).date() + timedelta(days=1)
    values = {"day": tomorrow.isoformat(), "time": "17:00", "amount": "120", "unit": "km", "mode": "plan"} | fields
    client.force_login(campus.driver)
    return client.post(f"/driver/sessions/{campus.transaction.pk}/goal/", values)


# -- what is mine


def test_a_driver_sees_his_session(client):
    campus = world.campus()
    world.live_power(campus, 7_360)
    world.connect(campus.evses[0])

    said = page(client, campus.driver)

    assert "Charging" in said
    assert "7.4 kW" in said
    assert "11.4 kWh" in said
    assert "54 km" in said  # 11.4 kWh at the meter, 90 % of it in the car, 190 Wh/km


def test_the_range_is_that_of_the_drivers_own_car(client):
    campus = world.campus()
    Vehicle.objects.create(site=campus.site, name="van", driver=campus.driver, consumption_wh_per_km=380)
    assert "27 km" in page(client, campus.driver)


@pytest.mark.parametrize("path", ["state/", "goal/", "stop/"])
def test_a_session_of_somebody_else_does_not_exist(client, path):
    campus = world.campus()
    client.force_login(world.person("mallory"))
    ask = client.get if path == "state/" else client.post
    assert ask(f"/driver/sessions/{campus.transaction.pk}/{path}").status_code == 404
    assert "CS-001" not in text_of(client.get("/driver/"))
    assert "11.4" not in text_of(client.get("/driver/history/"))


def test_an_operator_has_no_hand_in_a_drivers_wish(client):
    campus = world.campus()
    client.force_login(campus.operator)
    assert client.post(f"/driver/sessions/{campus.transaction.pk}/goal/", {}).status_code == 404


@pytest.mark.parametrize("path", ["/driver/", "/driver/history/", "/driver/sessions/1/state/"])
def test_nobody_gets_in_without_logging_in(client, path):
    assert client.get(path).headers["Location"].startswith("/accounts/login/")


def test_a_form_without_its_token_is_refused():
    campus = world.campus()
    client = Client(enforce_csrf_checks=True)
    client.force_login(campus.driver)
    assert client.post(f"/driver/sessions/{campus.transaction.pk}/stop/").status_code == 403
    assert client.post("/driver/start/").status_code == 403


def test_forms_are_not_links(client):
    campus = world.campus()
    client.force_login(campus.driver)
    assert client.get("/driver/start/").status_code == 405
    assert client.get(f"/driver/sessions/{campus.transaction.pk}/stop/").status_code == 405


def test_someone_new_reads_what_to_do(client):
    said = page(client, world.person("nina"))
    assert "You are not charging now" in said
    assert "No card is linked to you yet" in said
    client.get("/driver/history/")
    assert "No sessions yet" in text_of(client.get("/driver/history/"))


# -- in plain words


def test_unknown_power_is_not_zero(client):
    campus = world.campus()
    world.live_power(campus, 7_360, at=timezone.now() - timedelta(minutes=10))
    world.connect(campus.evses[0])
    assert "power unknown" in page(client, campus.driver)


@pytest.mark.parametrize(
    ("evse", "charging_state", "said"),
    [
        ({"status": "Faulted"}, "", "The station reports a fault"),
        ({"status": "SuspendedEV"}, "SuspendedEV", "Your car asks for no power"),
        ({"status": "SuspendedEVSE"}, "SuspendedEVSE", "Paused"),
        ({"status": "Occupied"}, "EVConnected", "Connected"),
        ({"status": "Charging"}, "Charging", "Charging"),
    ],
)
def test_the_state_is_said_in_plain_words(client, evse, charging_state, said):
    campus = world.campus()
    world.connect(campus.evses[0])
    EVSE.objects.filter(pk=campus.evses[0].pk).update(charging_state=charging_state, **evse)
    Transaction.objects.update(charging_state=charging_state)
    assert said in page(client, campus.driver)


def test_a_pause_tells_its_reason(client):
    campus = world.campus()
    world.connect(campus.evses[0])
    world.live_power(campus, 0.0)
    Transaction.objects.update(charging_state="SuspendedEVSE")
    WantedLimit.objects.create(evse=campus.evses[0], wanted_a=0, reason="limit:row 1:L2")
    assert "row 1 is at its limit on L2." in page(client, campus.driver)


@pytest.mark.parametrize(
    ("resume", "said"),
    [
        ("trying", "The station is asked to go on."),
        ("asleep", "It sleeps since a pause"),
        ("unplug", "Take the plug out and put it in again."),
    ],
)
def test_a_car_that_does_not_come_back_after_a_pause_is_told_about(client, resume, said):
    campus = world.campus()
    world.connect(campus.evses[0])
    world.live_power(campus, 0.0)
    WantedLimit.objects.create(evse=campus.evses[0], wanted_a=16, reason="plan", resume=resume)
    assert said in page(client, campus.driver)


def test_a_station_that_is_away_is_told(client):
    assert "The station is not connected" in page(client, world.campus().driver)


def test_a_planned_wait_is_no_fault(client):
    campus = world.campus()
    world.connect(campus.evses[0])
    world.live_power(campus, 0.0)
    world.plan(campus)
    said = page(client, campus.driver)
    assert "Waiting, as planned" in said
    assert re.search(r"It begins at about (tomorrow )?\d\d:\d\d\.", said)


def test_redis_away_leaves_the_page_standing(client, monkeypatch):
    campus = world.campus()
    away = live.redis.Redis.from_url("unix:///nowhere/valkey.sock")
    monkeypatch.setattr(live, "connection", lambda: away)
    monkeypatch.setattr(sessions.bus, "connection", lambda: away)
    assert "unknown" in page(client, campus.driver)


# -- what is promised


def test_a_promise_that_holds_is_said_with_its_time(client):
    campus = world.campus()
    departure = timezone.now() + timedelta(hours=2)
    world.goal(campus, departure=departure, promised_wh=32_000)
    assert f"32.0 kWh by {departure.astimezone(BRUSSELS):%H:%M}" in page(client, campus.driver).replace("tomorrow ", "")


def test_a_promise_of_less_says_why(client):
    campus = world.campus()
    world.goal(campus, promised_wh=20_000, promise_reason="time")
    said = page(client, campus.driver)
    assert "20.0 kWh" in said
    assert "of the 32.0 kWh you asked for" in said
    assert "there is not enough time before departure" in said


def test_a_wish_without_a_plan_waits_for_it(client):
    campus = world.campus()
    world.goal(campus)
    assert "the plan is being made" in page(client, campus.driver)


def test_a_wish_without_an_amount_gets_what_fits(client):
    campus = world.campus()
    world.goal(campus, energy_wh=None)
    assert "as much as fits by" in page(client, campus.driver)


def test_the_plan_is_drawn_until_departure(client):
    campus = world.campus()
    world.goal(campus, departure=timezone.now() + timedelta(hours=3))
    world.plan(campus)
    client.force_login(campus.driver)
    html = client.get(f"/driver/sessions/{campus.transaction.pk}/state/").content.decode()
    assert 12 <= html.count('class="bar-') <= 13
    assert "<html" not in html


def test_an_ended_session_makes_the_page_load_anew(client):
    campus = world.campus()
    Transaction.objects.update(ended_at=timezone.now())
    client.force_login(campus.driver)
    response = client.get(f"/driver/sessions/{campus.transaction.pk}/state/")
    assert response.headers["HX-Refresh"] == "true"


# -- the wish


def test_departure_and_range_become_a_goal(client):
    campus = world.campus()

    response = wish(campus, client)

    assert response.status_code == 302
    goal = ChargingGoal.objects.get(transaction=campus.transaction)
    assert goal.source == "driver"
    assert goal.range_km == 120
    assert goal.departure.astimezone(BRUSSELS).strftime("%H:%M") == "17:00"
    assert "Noted." in page(client, campus.driver)


def test_energy_is_given_in_kwh(client):
    campus = world.campus()
    wish(campus, client, unit="kwh", amount="32.5", mode="fast")
    goal = ChargingGoal.objects.get(transaction=campus.transaction)
    assert (goal.energy_wh, goal.range_km, goal.mode) == (32_500, None, "fast")


def test_a_second_wish_changes_the_first(client):
    campus = world.campus()
    wish(campus, client)
    wish(campus, client, unit="kwh", amount="10")
    assert ChargingGoal.objects.filter(transaction=campus.transaction).count() == 1
    assert ChargingGoal.objects.get(transaction=campus.transaction).energy_wh == 10_000


def test_any_time_and_no_amount_are_answers_too(client):
    campus = world.campus()
    wish(campus, client, day="none", time="", amount="")
    goal = ChargingGoal.objects.get(transaction=campus.transaction)
    assert (goal.departure, goal.energy_wh, goal.range_km) == (None, None, None)


@pytest.mark.parametrize(
    ("fields", "field", "said"),
    [
        ({"time": "late"}, "time", "That is not a time"),
        ({"time": ""}, "time", "Give the time"),
        ({"amount": "lots"}, "amount", "That is not a number"),
        ({"amount": "-5"}, "amount", "greater than or equal to 0"),
        ({"amount": "9999"}, "amount", "less than or equal to 3000"),
        ({"amount": "NaN"}, "amount", "That is not a number"),
        ({"unit": "kwh", "amount": "2000"}, "amount", "Give a number from 0 to 1000000 Wh"),
    ],
)
def test_a_wrong_field_is_told_at_the_field_and_keeps_what_was_typed(client, fields, field, said):
    campus = world.campus()

    response = wish(campus, client, **fields)

    assert response.status_code == 422
    html = response.content.decode()
    assert f'id="id_goal-{campus.transaction.pk}-{field}_error"' in html or f"-{field}_error" in html
    assert said in text_of(response)
    assert f'value="{fields.get(field, "")}"' in html
    assert not ChargingGoal.objects.exists()


def test_a_departure_in_the_past_is_told_at_the_time(client):
    campus = world.campus()
    today = timezone.now().astimezone(BRUSSELS).date()
    response = wish(campus, client, day=today.isoformat(), time="00:00")
    assert response.status_code == 422
    assert "Must lie in the future" in text_of(response)


@pytest.mark.parametrize("field", ["day", "unit", "mode"])
def test_a_choice_that_is_none_is_refused(client, field):
    campus = world.campus()
    assert wish(campus, client, **{field: "nonsense"}).status_code == 422
    assert not ChargingGoal.objects.exists()


def test_a_time_the_spring_change_skips_is_told():
    now = datetime(2026, 3, 28, 12, tzinfo=UTC)
    data = {"day": "2026-03-29", "time": "02:30", "amount": "10", "unit": "km", "mode": "plan"}
    form = GoalForm(data, zone=BRUSSELS, now=now, goal=None)
    assert not form.is_valid()
    assert "clock changes" in form.errors["time"][0]


def test_a_time_the_autumn_change_repeats_is_the_first():
    now = datetime(2026, 10, 24, 12, tzinfo=UTC)
    data = {"day": "2026-10-25", "time": "02:30", "amount": "10", "unit": "km", "mode": "plan"}
    form = GoalForm(data, zone=BRUSSELS, now=now, goal=None)
    assert form.is_valid()
    assert form.wish()["departure"] == datetime(2026, 10, 25, 0, 30, tzinfo=UTC)


def test_the_form_begins_with_the_goal_there_is(client):
    campus = world.campus()
    departure = (timezone.now() + timedelta(days=4)).replace(minute=30, second=0, microsecond=0)
    goal = world.goal(campus, departure=departure, range_km=80.0)
    form = GoalForm(zone=BRUSSELS, now=timezone.now(), goal=goal)
    assert form.initial["day"] == departure.astimezone(BRUSSELS).date().isoformat()
    assert form.initial["day"] in dict(form.fields["day"].choices)
    assert (form.initial["amount"], form.initial["unit"]) == (80, "km")


@pytest.mark.parametrize(("hour", "day", "leave"), [(9, 24, 17), (14, 24, 17), (15, 25, 8), (23, 25, 8)])
def test_the_usual_departure_is_ahead(hour, day, leave):
    usual = usual_departure(datetime(2026, 11, 24, hour, 20, tzinfo=BRUSSELS))
    assert (usual.day, usual.hour, usual.minute) == (day, leave, 0)


def test_an_ended_session_takes_no_wish(client):
    campus = world.campus()
    Transaction.objects.update(ended_at=timezone.now())
    assert wish(campus, client).status_code == 302
    assert "has ended" in page(client, campus.driver)
    assert not ChargingGoal.objects.exists()


# -- start and stop


@contextmanager
def gateway(reply: dict | None) -> Iterator[list[dict]]:
    """The other end of the bus: takes calls as a gateway does and gives each this reply (None: says nothing)."""
    asked: list[dict] = []
    stopped = threading.Event()
    client = live.connection()

    def serve() -> None:
        last = "0"
        while not stopped.is_set():
            for _stream, entries in client.xread({"call:g1": last}, block=50) or ():
                for last, fields in entries:  # noqa: B007
                    call = json.loads(fields["body"])
                    asked.append(call)
                    if reply is not None:
                        client.rpush(f"reply:{call['id']}", json.dumps(reply))

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield asked
    finally:
        stopped.set()
        thread.join(5)


ACCEPTED = {"kind": "result", "result": {"status": "Accepted"}}


def test_a_free_place_is_started_with_my_card(client):
    campus = world.campus()
    world.connect(campus.evses[1])
    client.force_login(campus.driver)
    assert "CS-002" in text_of(client.get("/driver/"))

    with gateway(ACCEPTED) as asked:
        response = client.post("/driver/start/", {"evse": campus.evses[1].pk}, follow=True)

    assert "The station starts. Plug in your car now." in text_of(response)
    assert asked[0]["identity"] == "CS-002"
    assert "04A1B2C3D4" in json.dumps(asked[0]["payload"])


def test_a_start_waits_in_sight_until_the_car_is_there(client):
    campus = world.campus()
    world.connect(campus.evses[1])
    client.force_login(campus.driver)
    assert client.get("/driver/start/awaited/").headers["HX-Refresh"] == "true"  # nothing was started

    with gateway(ACCEPTED):
        client.post("/driver/start/", {"evse": campus.evses[1].pk})
    assert "Waiting for your car" in text_of(client.get("/driver/"))
    assert "Plug in now" in text_of(client.get("/driver/start/awaited/"))

    token = IdToken.objects.get(value="04A1B2C3D4")
    Transaction.objects.create(
        transaction_id="1002",
        station=campus.evses[1].station,
        evse=campus.evses[1],
        id_token=token,
        started_at=timezone.now(),
    )
    assert client.get("/driver/start/awaited/").headers["HX-Refresh"] == "true"
    assert "Waiting for your car" not in text_of(client.get("/driver/"))


def test_a_start_nobody_came_for_is_over_after_a_while(client):
    campus = world.campus()
    old = {"evse": campus.evses[1].pk, "since": (timezone.now() - timedelta(minutes=3)).isoformat()}
    assert sessions.awaited(campus.driver, old) is None
    assert sessions.awaited(campus.driver, {"evse": "x"}) is None
    assert sessions.awaited(campus.driver, old | {"since": timezone.now().isoformat()}) is not None


def test_my_session_is_stopped(client):
    campus = world.campus()
    world.connect(campus.evses[0])
    client.force_login(campus.driver)

    with gateway(ACCEPTED) as asked:
        response = client.post(f"/driver/sessions/{campus.transaction.pk}/stop/", follow=True)

    assert "stopping your session" in text_of(response)
    assert asked[0]["payload"] == {"transactionId": "1001"}


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        ({"kind": "result", "result": {"status": "Rejected"}}, "The station said no (Rejected)."),
        ({"kind": "error", "code": "InternalError", "description": "broken"}, "The station refused: broken"),
        ({"kind": "unreachable"}, "The station is not connected now"),
        ({"kind": "timeout"}, "did not answer in time"),
        ({"kind": "invalid", "description": "x"}, "cannot be asked"),
    ],
)
def test_a_no_is_told_in_words(client, reply, said):
    campus = world.campus()
    world.connect(campus.evses[0])
    client.force_login(campus.driver)
    with gateway(reply):
        response = client.post(f"/driver/sessions/{campus.transaction.pk}/stop/", follow=True)
    assert said in text_of(response)


def test_a_station_that_is_away_cannot_be_stopped_from_here(client):
    campus = world.campus()
    client.force_login(campus.driver)
    response = client.post(f"/driver/sessions/{campus.transaction.pk}/stop/", follow=True)
    assert "The station is not connected now" in text_of(response)


def test_an_ended_session_is_not_stopped_again(client):
    campus = world.campus()
    Transaction.objects.update(ended_at=timezone.now())
    client.force_login(campus.driver)
    assert "ended already" in text_of(client.post(f"/driver/sessions/{campus.transaction.pk}/stop/", follow=True))


def test_only_places_that_can_start_are_offered():
    campus = world.campus()
    free, taken, faulted, closed, away, plugged = campus.evses[1], *campus.evses[0:1], *campus.evses[2:6]
    EVSE.objects.filter(pk=faulted.pk).update(status="Faulted")
    EVSE.objects.filter(pk=closed.pk).update(available=False)
    EVSE.objects.filter(pk=plugged.pk).update(status="Preparing")
    world.connect(free, taken, faulted, closed, plugged)

    places = sessions.free_places([campus.token])

    assert [p.evse for p in places] == [plugged, free]
    assert [p.plugged for p in places] == [True, False]
    assert away not in [p.evse for p in places]


@pytest.mark.parametrize("evse", ["", "nonsense", "999999"])
def test_starting_nowhere_is_told(client, evse):
    campus = world.campus()
    client.force_login(campus.driver)
    response = client.post("/driver/start/", {"evse": evse}, follow=True)
    assert re.search("Choose a place first|not free any more", text_of(response))


def test_a_place_of_a_site_where_i_have_no_card_is_not_mine_to_start(client):
    campus = world.campus()
    world.connect(campus.evses[1])
    client.force_login(world.person("mallory"))
    response = client.post("/driver/start/", {"evse": campus.evses[1].pk}, follow=True)
    assert "not free any more" in text_of(response)


@pytest.mark.parametrize(
    "change", [{"status": "blocked"}, {"expires_at": datetime(2020, 1, 1, tzinfo=UTC)}, {"driver": None}]
)
def test_a_card_that_does_not_count_starts_nothing(client, change):
    campus = world.campus()
    world.connect(campus.evses[1])
    IdToken.objects.update(**change)
    client.force_login(campus.driver)
    response = client.post("/driver/start/", {"evse": campus.evses[1].pk}, follow=True)
    assert "No card is linked" in text_of(response)


def test_the_card_must_belong_to_the_place(client):
    campus = world.campus()
    world.connect(campus.evses[1])
    elsewhere = IdToken.objects.create(site=world.bare_site(), value="0BAD", driver=campus.driver)
    client.force_login(campus.driver)
    response = client.post("/driver/start/", {"evse": campus.evses[1].pk, "id_token": elsewhere.pk}, follow=True)
    assert "That card may not charge at this place." in text_of(response)


# -- what was, and the app


def test_history_holds_my_ended_sessions_in_pages(client):
    campus = world.campus()
    start = datetime(2026, 6, 1, 6, tzinfo=UTC)
    for n in range(25):
        Transaction.objects.create(
            transaction_id=f"old-{n}",
            station=campus.evses[1].station,
            id_token=campus.token,
            started_at=start + timedelta(days=n),
            ended_at=start + timedelta(days=n, hours=2),
            energy_wh=1_000 * n,
        )
    client.force_login(campus.driver)
    first, second = (client.get(f"/driver/history/?page={n}").content.decode() for n in (1, 2))
    assert first.count("<li>") == 20
    assert second.count("<li>") == 5
    assert "08:00" in first  # on the site's clock
    assert client.get("/driver/history/?page=nonsense").status_code == 200


def test_the_app_can_be_installed(client):
    manifest = client.get("/driver/manifest.webmanifest")
    assert manifest.headers["Content-Type"] == "application/manifest+json"
    body = manifest.json()
    assert (body["start_url"], body["scope"], body["display"]) == ("/driver/", "/driver/", "standalone")
    assert {i["sizes"] for i in body["icons"]} >= {"192x192", "512x512"}


def test_the_worker_keeps_only_what_is_public(client):
    worker = client.get("/driver/worker.js")
    assert worker.headers["Content-Type"] == "text/javascript"
    kept = json.loads(re.search(r"KEEP = (\[.*\]);", worker.content.decode())[1])
    for path in kept:
        assert path.startswith("/static/") or client.get(path).status_code == 200  # without logging in
    assert "offline" in text_of(client.get("/driver/offline/")).lower()

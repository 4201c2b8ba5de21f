"""A charge explained at every face: driver's page, dashboard, REST; in the reader's language, on the site's clock."""

from __future__ import annotations

import ast
import inspect
import json
import re
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from django.utils import timezone, translation

from csms.models import EVSE, ChargingStation, Transaction, WantedLimit
from meters import live
from meters.measurement import Measurement
from smartcharging.engine.explain import explain, facts, told
from smartcharging.engine.explain.causes import cause_of
from smartcharging.models import AllocationRecord, ChargingGoal
from tests.people import calling
from tests.webapp import campus as world
from tests.webapp.office import Office
from webapp import spoken
from webapp.api.explanations import LineDataSerializer

pytestmark = pytest.mark.django_db
BRUSSELS = ZoneInfo("Europe/Brussels")


def text_of(response) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", response.content.decode()))


def draws(campus, amps: float) -> None:
    body = Measurement(at=timezone.now(), power_w=amps * 690, current_a=(amps, amps, amps))
    live.store(live.evse_source(campus.evses[0].pk), body, campus.site.pk)


def held(campus, **changes) -> None:
    """The balance gives Dirk's car 8 A, because row 1 is full."""
    body = world.picture(campus)
    body["evses"][0]["limit"] |= {"wanted_a": 8.0, "circuit": "row 1", "phase": "L2"} | changes
    body["evses"][0] |= {"transaction": campus.transaction.pk, "phases": 3, "max_w": 11_040}
    live.connection().set(f"now:{campus.site.pk}", json.dumps(body), ex=60)


def short_of(campus, **fields) -> ChargingGoal:
    """Dirk wants 40 kWh; row 1 is full for an hour, so he is promised 31."""
    now = timezone.now()
    start, end = (world.floor(now) + timedelta(hours=h) for h in (0, 1))
    reason = f"limit:row 1:L2@{start:%Y-%m-%dT%H:%MZ}/{end:%Y-%m-%dT%H:%MZ}"
    departure = world.floor(now) + timedelta(hours=3)
    goal = world.goal(campus, energy_wh=40_000, departure=departure, promised_wh=31_000, promise_reason=reason)
    plan = world.plan(campus)
    later = departure + timedelta(minutes=30)
    plan.result["shortfalls"] = {str(goal.pk): {"wh": 9_000, "reason": reason, "leave_at": later.isoformat(), **fields}}
    plan.save()
    return goal


def clock(at: datetime) -> str:
    local = at.astimezone(BRUSSELS)
    tomorrow = local.date() != timezone.now().astimezone(BRUSSELS).date()
    return f"tomorrow {local:%H:%M}" if tomorrow else f"{local:%H:%M}"


# -- the driver's page


def test_a_driver_reads_why_what_and_what_would_help(client):
    campus = world.campus()
    world.connect(campus.evses[0])
    draws(campus, 8.0)
    held(campus)
    goal = short_of(campus)
    client.force_login(campus.driver)

    said = text_of(client.get("/driver/"))

    full_until, later = world.floor(timezone.now()) + timedelta(hours=1), goal.departure + timedelta(minutes=30)
    assert f"Charging with 8 A because row 1 is full until about {clock(full_until)}." in said
    assert f"31.0 kWh by {clock(goal.departure)}" in said
    assert f"Leaving at {clock(later)} would give all of it" in said
    assert "per phase at row 1" not in said


def test_a_driver_without_a_goal_reads_nothing_odd(client):
    campus = world.campus()
    world.connect(campus.evses[0])
    draws(campus, 8.0)
    client.force_login(campus.driver)

    said = text_of(client.get("/driver/"))

    assert "You have not said when you leave" in said
    assert "would give" not in said


@pytest.mark.parametrize("page", ["/driver/", "/driver/history/"])
def test_a_driver_reads_why_a_charge_was_less_than_he_wanted(client, page):
    campus = world.campus()
    world.goal(campus, energy_wh=32_000, promised_wh=20_000, promise_reason="time")
    Transaction.objects.update(ended_at=timezone.now())
    client.force_login(campus.driver)

    said = text_of(client.get(page))

    assert "12.0 kWh could not be promised: there is not enough time before departure." in said
    assert "before the departure that was named" in said


# -- the dashboard


def test_the_dashboard_tells_all_four_parts(client):
    campus = world.campus()
    held(campus)
    short_of(campus, raise_a=14)
    client.force_login(campus.operator)

    response = client.get(f"/sites/{campus.site.pk}/parts/")

    said = text_of(response)
    assert f'id="why-{campus.evses[0].pk}"' in response.content.decode()
    assert "because row 1 is full until about" in said
    assert "31.0 kWh of 40.0 kWh will be charged by" in said
    assert "9.0 kWh will be missing: row 1 is full (" in said
    assert "14 A more per phase at row 1 from" in said
    assert "row 1, L2" in said


def test_a_free_place_needs_no_words_and_one_with_a_car_says_what_to_do(client):
    campus = world.campus()
    EVSE.objects.filter(pk=campus.evses[1].pk).update(status="Preparing")
    body = world.picture(campus)
    body["evses"][1] |= {"status": "Preparing", "connected": True}
    live.connection().set(f"now:{campus.site.pk}", json.dumps(body), ex=60)
    client.force_login(campus.operator)

    html = client.get(f"/sites/{campus.site.pk}/parts/").content.decode()

    assert f'id="why-{campus.evses[2].pk}"' not in html
    assert "The station is not connected" in html  # the sixth


def test_the_dashboard_asks_as_often_for_many_cars_as_for_one(client, django_assert_max_num_queries):
    campus = world.campus()
    client.force_login(campus.operator)
    page = f"/sites/{campus.site.pk}/parts/"
    client.get(page)
    with django_assert_max_num_queries(20) as for_one:
        client.get(page)
    for n, evse in enumerate(campus.evses[1:]):
        Transaction.objects.create(station=evse.station, evse=evse, transaction_id=f"n{n}", started_at=timezone.now())

    with django_assert_max_num_queries(len(for_one)):
        client.get(page)


# -- REST


@pytest.fixture
def operator(office: Office):
    return calling(office.cast["operator"])


def test_software_reads_words_and_data(office, operator):
    ChargingGoal.objects.all().delete()
    office.plan.delete()
    held(office.campus)
    world.connect(office.campus.evses[0])
    draws(office.campus, 8.0)
    goal = short_of(office.campus)

    answer = operator.get(f"/api/v1/transactions/{office.campus.transaction.pk}/explanation/").json()

    now, promise, helps = answer["now"][0], answer["promise"][0], answer["helps"][0]
    assert now["code"] == "charging"
    assert now["data"] | {"ends_at": ""} == {
        "taken_a": 8.0,
        "limit_a": 8.0,
        "circuit": "row 1",
        "phase": "L2",
        "reason": "limit:row 1:L2",
        "ends_at": "",
    }
    assert now["data"]["ends_at"].endswith("Z")
    assert datetime.fromisoformat(promise["data"]["departure"]) == goal.departure
    assert (promise["code"], promise["data"]["promised_kwh"], promise["data"]["share"]) == ("part", 31.0, 0.775)
    assert answer["limits"][-1]["data"]["cause"] == "limit"
    assert (helps["code"], helps["data"]["minutes"]) == ("leave_later", 30)
    assert answer["sentence"] == " ".join((now["words"], promise["words"], helps["words"]))
    assert clock(goal.departure) in promise["words"]


def test_a_charge_has_its_explanation_with_it(office, operator):
    charge = operator.get(f"/api/v1/transactions/{office.campus.transaction.pk}/").json()
    alone = operator.get(f"/api/v1/transactions/{office.campus.transaction.pk}/explanation/").json()

    assert charge["explanation"] | {"at": ""} == alone | {"at": ""}
    assert charge["limits"][-1]["circuit"] == ""


def test_a_charge_that_is_over_tells_what_it_lacked(office, operator):
    goal = short_of_office(office)
    Transaction.objects.update(ended_at=timezone.now(), stop_reason="EVDisconnected")

    answer = operator.get(f"/api/v1/transactions/{office.campus.transaction.pk}/explanation/").json()

    assert answer["now"][0]["data"]["missing_kwh"] == pytest.approx(goal.energy_wh / 1000 - 11.4)
    assert answer["now"][0]["data"]["stop_reason"] == "EVDisconnected"
    assert [line["code"] for line in answer["limits"]] == ["missed", "left_early"]
    assert (answer["promise"], answer["helps"]) == ([], [])


def short_of_office(office: Office) -> ChargingGoal:
    ChargingGoal.objects.filter(pk=office.goal.pk).update(promised_wh=20_000, promise_reason="time")
    return ChargingGoal.objects.get(pk=office.goal.pk)


def test_words_are_dutch_for_who_reads_dutch_and_data_are_the_same(office):
    short_of_office(office)
    address = f"/api/v1/transactions/{office.campus.transaction.pk}/explanation/"
    client = calling(office.cast["driver"])

    english, dutch = (client.get(address, headers={"accept-language": code}).json() for code in ("en", "nl"))

    assert "20.0 kWh of 32.0 kWh will be charged by" in english["sentence"]
    assert "20,0 kWh van 32,0 kWh" in dutch["sentence"]
    assert [line["data"] for line in dutch["promise"]] == [line["data"] for line in english["promise"]]


def test_redis_away_leaves_an_explanation(office, operator, monkeypatch):
    away = live.redis.Redis.from_url("unix:///nowhere/valkey.sock")
    monkeypatch.setattr(live, "connection", lambda: away)

    answer = operator.get(f"/api/v1/transactions/{office.campus.transaction.pk}/explanation/")

    assert answer.status_code == 200
    assert answer.json()["now"][0]["code"] == "unknown"


def test_a_limit_names_its_circuit_and_phase(office, operator):
    evse = office.campus.evses[0]
    address = f"/api/v1/stations/{evse.station.identity}/"

    def place() -> tuple[str, str]:
        limit = operator.get(address).json()["evses"][0]["limit"]
        return limit["circuit"], limit["phase"]

    assert place() == ("row 1", "L2")  # as the reason names it
    WantedLimit.objects.update(reason="peak")
    assert place() == ("", "")
    AllocationRecord.objects.create(evse=evse, at=timezone.now(), limit_a=8, reason="peak", circuit="grid", phase="W")
    assert place() == ("grid", "W")
    WantedLimit.objects.update(reason="wish: by hand")
    assert place() == ("", "")  # the record is of another reason
    ChargingStation.objects.filter(pk=evse.station_id).update(quiet=True)


def test_the_schema_knows_every_value_of_a_line():
    known = set(LineDataSerializer().fields)
    given = {
        keyword.arg
        for node in ast.walk(ast.parse(inspect.getsource(explain)))
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "line"
        for keyword in node.keywords
        if keyword.arg
    }
    assert {"wanted_kwh", "leave_at", "minutes"} <= given
    assert given <= known


# -- in words


def spoken_as(language: str, line: told.Line, zone: str = "Europe/Brussels") -> str:
    with translation.override(language), timezone.override(zone):
        return spoken.line(line)


@pytest.mark.parametrize(
    ("code", "values", "english", "dutch"),
    [
        ("charging", {"taken_a": 8.0}, "Charging with 8 A.", "Laadt met 8 A."),
        ("charging", {"taken_w": 21_800}, "Charging with 21.8 kW.", "Laadt met 21,8 kW."),
        ("idle", {"limit_a": 6.5}, "May take 6.5 A, and takes nothing now.", "Mag 6,5 A nemen, en neemt nu niets."),
        ("all_some_time", {"wanted_kwh": 40.0}, "All 40.0 kWh will be charged.", "Alle 40,0 kWh zal geladen zijn."),
        (
            "cost",
            {"cost_eur": 4.4},
            "What is still to come costs the site about € 4.40.",
            "Wat nog komt, kost de locatie ongeveer € 4,40.",
        ),
        (
            "left_early",
            {"minutes": 75},
            "It ended 1 h 15 min before the departure that was named.",
            "Het eindigde 1 u 15 min voor het opgegeven vertrek.",
        ),
    ],
)
def test_numbers_are_written_as_the_language_writes_them(code, values, english, dutch):
    line = told.line(code, **values)

    assert spoken_as("en", line) == english
    assert spoken_as("nl", line) == dutch


def test_times_are_said_on_the_clock_of_the_site():
    line = told.line("full_at", full_at=timezone.now().astimezone(UTC).replace(hour=12, minute=5))

    assert "13:05" in spoken_as("en", line) or "14:05" in spoken_as("en", line)  # winter or summer
    assert "12:05" in spoken_as("en", line, "UTC")


def test_every_sentence_is_dutch_for_who_reads_dutch():
    with translation.override("nl"):
        english = {s for s in told.SENTENCES.values() if translation.gettext(s) == s}
    assert english == set()


def test_a_cause_is_said_within_its_line_and_an_unknown_one_as_it_is():
    known = told.line("missing", "", cause_of("limit:row 1:L2"), missing_kwh=9.0)
    unknown = told.line("missing", "", cause_of("a new one"), missing_kwh=9.0)

    assert spoken_as("en", known) == "9.0 kWh will be missing: row 1 is full."
    assert spoken_as("nl", known).endswith("row 1 is vol.")
    assert spoken_as("en", unknown) == "9.0 kWh will be missing: a new one."


def test_nothing_is_said_twice():
    given = facts.Given(0.0, "fire: panel")
    said = spoken.spoken(explain.explain_charge(facts.Facts(now=timezone.now(), given=given)))

    assert said.now == ("Switched off: fire alarm. panel",)
    assert said.limits == ()

"""The operator's pages as the server writes them: who sees what, unknown values, empty states, the report."""

from __future__ import annotations

import csv
import hashlib
import io
import re
from datetime import date, timedelta
from pathlib import Path

import pytest
from django.conf import settings
from django.utils import timezone

from csms.models import ChargingStation, IdToken, MeterSample
from meters import live
from meters.models import SiteRole
from smartcharging.models import Plan
from tests.webapp import campus as world
from webapp.dashboard import charts, words
from webapp.dashboard.reports import read_range
from webapp.templatetags import energy

pytestmark = pytest.mark.django_db


def text_of(response) -> str:
    """The page's words, without its tags."""
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", response.content.decode()))


def see(client, user, path: str):
    client.force_login(user)
    return client.get(path)


# -- who sees what


def test_home_leads_each_to_his_own_page(client):
    campus = world.campus()
    assert see(client, campus.operator, "/").headers["Location"] == f"/sites/{campus.site.pk}/"
    assert see(client, campus.driver, "/").headers["Location"] == "/driver/"
    SiteRole.objects.create(user=campus.operator, site=world.bare_site(), role="viewer")
    assert see(client, campus.operator, "/").headers["Location"] == "/sites/"
    boss = world.person("boss", is_superuser=True)
    assert see(client, boss, "/").headers["Location"] == "/sites/"


@pytest.mark.parametrize(
    "path", ["/", "/sites/", "/sites/1/", "/sites/1/parts/", "/sites/1/chart/", "/sites/1/report/"]
)
def test_nobody_sees_a_page_without_logging_in(client, path):
    response = client.get(path)
    assert response.status_code == 302
    assert response.headers["Location"].startswith("/accounts/login/")


@pytest.mark.parametrize("page", ["", "parts/", "chart/", "report/", "report.csv"])
def test_a_site_of_others_does_not_exist(client, page):
    campus = world.campus()
    stranger = world.operator_of(world.bare_site(), "sam")
    assert see(client, stranger, f"/sites/{campus.site.pk}/{page}").status_code == 404
    assert see(client, campus.driver, f"/sites/{campus.site.pk}/{page}").status_code == 404


def test_the_list_of_sites_holds_only_ones_own(client):
    campus = world.campus()
    world.bare_site("Elsewhere")
    said = text_of(see(client, campus.operator, "/sites/"))
    assert "Campus Noord" in said
    assert "Elsewhere" not in said


def test_pages_are_kept_by_nobody_and_run_no_foreign_script(client):
    campus = world.campus()
    response = see(client, campus.operator, f"/sites/{campus.site.pk}/")
    policy = response.headers["Content-Security-Policy"]
    assert "no-store" in response.headers["Cache-Control"]
    assert "script-src 'self';" in policy + ";"
    assert "unsafe-inline" not in policy
    assert not re.search(r"\son[a-z]+=", response.content.decode())
    assert " style=" not in response.content.decode()


# -- what the site's page says


def test_the_page_shows_the_newest_picture(client):
    campus = world.campus()
    world.publish(campus)
    world.goal(campus)

    said = text_of(see(client, campus.operator, f"/sites/{campus.site.pk}/"))

    assert "18.4 kW" in said  # grid
    assert "24.6 kW" in said  # PV, without its sign
    assert "58.2 / 63 A" in said
    assert "row 1 is at its limit on L2." in said
    assert "Dirk Claes" in said
    assert "8.4 ct/kWh" in said


def test_unknown_is_shown_as_unknown_and_never_as_zero(client):
    campus = world.campus()
    world.publish(campus, flows=dict.fromkeys(("grid_w", "pv_w", "battery_w", "battery_soc", "building_w")))

    response = see(client, campus.operator, f"/sites/{campus.site.pk}/")

    html = response.content.decode()
    assert html.count(">unknown</text>") == 4
    assert "unknown / 63 A" in text_of(response)  # row 2, whose meter is silent
    assert "meter silent" in html


def test_a_silent_main_meter_leaves_no_headroom_to_show(client):
    campus = world.campus()
    body = world.picture(campus)
    body["circuits"][0] |= {"load_a": None, "headroom_a": [0, 0, 0], "stale": True}
    world.publish(campus, circuits=body["circuits"])
    said = text_of(see(client, campus.operator, f"/sites/{campus.site.pk}/"))
    assert "Room at the grid connection unknown" in said


def test_a_site_where_nothing_runs_yet_says_so(client):
    site = world.bare_site()
    said = text_of(see(client, world.operator_of(site), f"/sites/{site.pk}/"))
    assert "No live values yet" in said
    assert "No charging stations yet" in said
    assert "No plan yet" in said
    assert "none yet" in said  # the month's peak
    assert "no price" in said


def test_a_site_without_circuits_says_so(client):
    campus = world.campus()
    world.publish(campus, circuits=[])
    assert "No circuits yet" in text_of(see(client, campus.operator, f"/sites/{campus.site.pk}/"))


def test_someone_without_any_site_reads_what_to_do(client):
    boss = world.person("boss", is_superuser=True)
    said = text_of(see(client, boss, "/sites/"))
    assert "No site yet" in said
    assert "load_site" in said


@pytest.mark.parametrize("body", ["not json", "[]", "{}", '{"at": 5, "flows": {"grid_w": "much"}}'])
def test_a_picture_that_is_none_is_shown_as_absent(client, body):
    campus = world.campus()
    live.connection().set(f"now:{campus.site.pk}", body)
    response = see(client, campus.operator, f"/sites/{campus.site.pk}/")
    assert response.status_code == 200
    assert "unknown" in text_of(response)


def test_redis_away_is_an_error_on_the_page_and_no_crash(client, monkeypatch):
    campus = world.campus()
    away = live.redis.Redis.from_url("unix:///nowhere/valkey.sock")
    monkeypatch.setattr(live, "connection", lambda: away)
    response = see(client, campus.operator, f"/sites/{campus.site.pk}/")
    assert response.status_code == 200
    assert "Redis does not answer" in text_of(response)


def test_the_plan_tells_who_gets_less_and_why(client):
    campus = world.campus()
    goal = world.goal(campus)
    now = timezone.now()
    hours = f"{now:%Y-%m-%dT%H:00Z}/{now + timedelta(hours=1):%Y-%m-%dT%H:00Z}"
    short = {str(goal.pk): {"wh": 5_200, "reason": f"limit:row 1:L2@{hours}"}, "999999": {"wh": 900}, "x": "?"}
    world.plan(campus, result={"shortfalls": short})

    said = text_of(see(client, campus.operator, f"/sites/{campus.site.pk}/"))

    assert "Dirk Claes: 5.2 kWh less than asked" in said
    assert "row 1 is full (" in said


def test_an_expired_plan_is_called_expired(client):
    campus = world.campus()
    world.plan(campus, valid_until=timezone.now() - timedelta(minutes=1))
    assert "expired" in text_of(see(client, campus.operator, f"/sites/{campus.site.pk}/"))


def test_the_month_peak_of_this_month_is_shown(client):
    campus = world.campus()
    world.month_peak(campus, 42_100)
    assert "42.1 kW" in text_of(see(client, campus.operator, f"/sites/{campus.site.pk}/"))


def test_unknown_stations_are_told_to_those_who_may_accept_them(client):
    campus = world.campus()
    viewer = world.operator_of(campus.site, "vera", "viewer")
    boss = world.person("boss", is_superuser=True, is_staff=True)
    ChargingStation.objects.create(identity="NEW-1", site=campus.site)
    ChargingStation.objects.create(identity="NEW-2")  # of no site yet
    path = f"/sites/{campus.site.pk}/"

    assert "1 unknown station waits" in text_of(see(client, campus.operator, path))
    assert "2 unknown stations wait" in text_of(see(client, boss, path))
    assert "unknown station" not in text_of(see(client, viewer, path))


def test_the_living_parts_come_alone_and_bring_the_tiles(client):
    campus = world.campus()
    world.publish(campus)
    html = see(client, campus.operator, f"/sites/{campus.site.pk}/parts/").content.decode()
    assert "<html" not in html
    assert re.search(r'id="tiles"\s+hx-swap-oob="true"', html)


def test_an_unknown_card_is_named_by_what_was_presented(client):
    campus = world.campus()
    IdToken.objects.all().delete()
    world.publish(campus)
    assert "04A1B2C3D4" in text_of(see(client, campus.operator, f"/sites/{campus.site.pk}/"))


def test_a_name_is_only_ever_text(client):
    campus = world.campus()
    ChargingStation.objects.filter(identity="CS-001").update(name="<script>alert(1)</script>")
    world.publish(campus)
    assert b"<script>alert(1)" not in see(client, campus.operator, f"/sites/{campus.site.pk}/").content


# -- the chart of the day


def test_the_day_has_a_value_for_each_of_its_quarters(client):
    campus = world.campus()
    now = timezone.now()
    world.day_of_quarters(campus, now, hours=2)
    world.plan(campus, now)
    world.prices(campus, now)

    day = see(client, campus.operator, f"/sites/{campus.site.pk}/chart/").json()

    assert len(day["t"]) == len(day["price"]) == len(day["measured"]["grid"]) == len(day["plan"]["grid"])
    assert day["t"][1] - day["t"][0] == 900
    assert day["has"] == {"measured": True, "plan": True, "price": True, "loads": False}
    assert any(v is not None and v >= 0 for v in day["measured"]["pv"])  # shown as production
    assert all(v is None for t, v in zip(day["t"], day["plan"]["grid"], strict=True) if t < day["now"] - 900)


def test_cars_are_the_mean_of_their_meter_values_and_unknown_without_them():
    campus = world.campus()
    at = world.floor(timezone.now()) - world.SLOT
    for evse, watts in ((campus.evses[0], (3_000, 5_000)), (campus.evses[1], (1_000,))):
        for n, w in enumerate(watts):
            MeterSample.objects.create(evse=evse, at=at + timedelta(minutes=n), power_w=w)
    world.day_of_quarters(campus, hours=1)

    day = charts.day(campus.site, at + timedelta(minutes=14))  # of the day in which those values lie

    charging = dict(zip(day["t"], day["measured"]["charging"], strict=True))
    assert charging[int(at.timestamp())] == 5_000
    assert charging.get(int((at - world.SLOT).timestamp())) is None  # Dirk's car was there, unheard of


def test_a_site_without_anything_has_an_empty_day():
    day = charts.day(world.bare_site())
    assert day["has"] == {"measured": False, "plan": False, "price": False, "loads": False}
    assert len(day["t"]) >= 92


def test_planned_loads_are_shown_together_with_those_left_to_themselves():
    campus = world.campus()
    now = timezone.now()
    world.plan(campus, now)
    plan = Plan.objects.get(site=campus.site)
    plan.result |= {"load_w": {"1": [2_000.0] * 96, "2": [500.0] * 96}, "others_w": [100.0] * 96}
    plan.save()

    day = charts.day(campus.site, now)

    assert day["has"]["loads"]
    assert {v for t, v in zip(day["t"], day["plan"]["loads"], strict=True) if t > day["now"]} >= {2_600.0}


# -- the report


def test_the_report_page_shows_the_numbers_of_the_week(client):
    campus = world.campus()
    world.day_of_quarters(campus, hours=6)
    said = text_of(see(client, campus.operator, f"/sites/{campus.site.pk}/report/?span=week"))
    assert "Highest quarter hour" in said
    assert "Dirk Claes" in said
    assert "Controllable loads" not in said  # the site has none


def test_the_report_of_days_without_data_says_so(client):
    campus = world.campus()
    said = text_of(see(client, campus.operator, f"/sites/{campus.site.pk}/report/?span=day&day=2020-02-02"))
    assert "Nothing was measured in these days" in said


@pytest.mark.parametrize(
    "query", ["day=yesterday", "from=2026-01-01", "from=2026-02-01&to=2026-01-01", "from=2000-01-01&to=2026-01-01"]
)
def test_days_that_are_none_are_refused_in_words(client, query):
    campus = world.campus()
    for page in ("report/", "report.csv"):
        response = see(client, campus.operator, f"/sites/{campus.site.pk}/{page}?{query}")
        assert response.status_code == 400
        assert len(text_of(response)) > 20


@pytest.mark.parametrize(
    ("query", "first", "last"),
    [
        ({"span": "day", "day": "2026-11-24"}, date(2026, 11, 24), date(2026, 11, 24)),
        ({"span": "week", "day": "2026-11-29"}, date(2026, 11, 23), date(2026, 11, 29)),
        ({"span": "month", "day": "2028-02-10"}, date(2028, 2, 1), date(2028, 2, 29)),
        ({"from": "2026-01-05", "to": "2026-01-07"}, date(2026, 1, 5), date(2026, 1, 7)),
        ({}, date(2026, 6, 1), date(2026, 6, 1)),
    ],
)
def test_a_span_becomes_days(query, first, last):
    asked = read_range(query, today=date(2026, 6, 1))
    assert (asked.start, asked.end, asked.error) == (first, last, "")


def test_the_csv_holds_days_stations_and_users(client):
    campus = world.campus()
    world.day_of_quarters(campus, hours=6)
    ChargingStation.objects.filter(identity="CS-001").update(name="=1+1")

    response = see(client, campus.operator, f"/sites/{campus.site.pk}/report.csv?span=week")

    assert response.headers["Content-Type"].startswith("text/csv")
    assert "attachment" in response.headers["Content-Disposition"]
    rows = list(csv.reader(io.StringIO(response.content.decode("utf-8-sig"))))
    assert rows[0][:2] == ["day", "grid_import_kwh"]
    assert len([r for r in rows if r and re.fullmatch(r"\d{4}-\d\d-\d\d", r[0])]) == 7
    assert ["CS-001", "'=1+1", "1", "11.400"] in rows  # a name never becomes a formula
    assert ["04A1B2C3D4", "Dirk's card", "Dirk Claes", "1", "11.400"] in rows


# -- words and numbers


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (None, "unknown"),
        (0.0, "0 W"),
        (-0.2, "0 W"),
        (994.4, "994 W"),
        (995.0, "1.0 kW"),
        (-12_345.0, "-12.3 kW"),
        (123_400.0, "123 kW"),
        (1_234_000.0, "1.2 MW"),
    ],
)
def test_a_power_is_written_short(value, said):
    assert energy.power(value) == said


def test_a_number_is_written_in_the_readers_language(client):
    campus = world.campus()
    world.publish(campus)
    client.cookies["django_language"] = "nl"
    assert "18,4 kW" in text_of(see(client, campus.operator, f"/sites/{campus.site.pk}/"))


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("", ""),
        ("time", "there is not enough time before departure"),
        ("limit:row 1", "row 1 is full"),
        ("limit:row 1:L2", "row 1 is full"),
        ("limit:row 1:L2@2026-11-24T17:00Z/2026-11-24T18:15Z", "row 1 is full (17:00–18:15)"),
        ("limit:row 1@nonsense", "row 1 is full (nonsense)"),
        ("month_peak@2026-11-24T17:00Z/2026-11-24T18:15Z", "it would raise the month peak (17:00–18:15)"),
        ("something new", "something new"),
    ],
)
def test_a_plans_reason_is_said_in_words(code, said):
    assert words.shortfall(code) == said


def test_every_iec_state_has_words():
    for state in ("A1", "B1", "B2", "C1", "C2", "E", "F"):
        assert words.iec_state(state)
    assert words.iec_state("") == ""
    assert words.status("Charging") == "charging"
    assert words.status("Strange") == "Strange"


# -- what the pages are made of


def test_vendored_files_are_the_ones_we_took():
    vendor = Path(settings.BASE_DIR) / "webapp" / "static" / "vendor"
    listed = dict(reversed(line.split("  ")) for line in (vendor / "SHA256SUMS").read_text().splitlines())
    present = {str(p.relative_to(vendor)) for p in vendor.rglob("*") if p.is_file() and p.name != "SHA256SUMS"}
    assert present == set(listed)
    for name, digest in listed.items():
        assert hashlib.sha256((vendor / name).read_bytes()).hexdigest() == digest
    for folder in vendor.iterdir():
        assert folder.is_file() or (folder / "LICENSE").exists()


@pytest.mark.parametrize(
    "path", ["/accounts/login/", "/accounts/password/change/", "/accounts/2fa/", "/accounts/logout/"]
)
def test_the_pages_of_the_account_wear_the_same_coat(client, path):
    if path != "/accounts/login/":
        client.force_login(world.person("olga"))
    response = client.get(path)
    assert response.status_code == 200
    assert "css/laadplein.css" in response.content.decode()


def test_one_logs_in_with_a_form(client):
    campus = world.campus()
    response = client.post("/accounts/login/", {"login": "olga", "password": world.PASSWORD}, follow=True)
    assert response.redirect_chain[-1][0] == f"/sites/{campus.site.pk}/"


def test_a_wrong_password_is_told_and_lets_nobody_in(client):
    world.campus()
    response = client.post("/accounts/login/", {"login": "olga", "password": "no"})
    assert response.status_code == 200
    assert 'role="alert"' in response.content.decode()
    assert client.get("/").status_code == 302


def test_the_language_is_changed_at_the_foot_of_the_page(client):
    response = client.post("/language/", {"language": "nl", "next": "/accounts/login/"}, follow=True)
    assert '<html lang="nl">' in response.content.decode()

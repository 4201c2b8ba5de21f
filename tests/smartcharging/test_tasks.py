"""The doors: balance, plan, fetch, roll up, tidy; one turn per site, and one site's trouble is not another's."""

from __future__ import annotations

import json
import threading
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from importlib import import_module

import pytest
from celery import current_app
from django.db import connection as database
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from csms import bus
from csms.models import MeterSample, OcppMessage
from meters.live import connection
from meters.models import QuarterHour, Reading, Site
from smartcharging import fetch, forecasts, goals, planning, quarters, tasks, wake
from smartcharging.engine.plan.problem import PlanProblem, PlanResult
from smartcharging.engine.plan.solve import solve
from smartcharging.feeds.prices import PricePoint
from smartcharging.feeds.source import NoPriceYet, SourceUnreachable
from smartcharging.feeds.weather import WeatherPoint
from smartcharging.models import ChargingGoal, Forecast, MonthPeak, Plan, Price, SiteQuarter, Tariff
from smartcharging.turn import turn
from tests.smartcharging.worlds import World

pytestmark = pytest.mark.django_db


@pytest.fixture
def world(db) -> World:
    world = World.campus(timezone.now())
    world.quiet_day()
    return world


def queued(queue: str) -> list[str]:
    """The names of the waiting tasks."""
    return [json.loads(body)["headers"]["task"] for body in connection().lrange(queue, 0, -1)]


# --- balance --------------------------------------------------------------------------------------------------------


def test_a_balance_tells_stations_and_keeps_a_picture(world):
    world.car("CS-1")

    tasks.balance(world.site.pk)

    assert bus.get_want("CS-1", 1).limit_a >= 6
    assert json.loads(connection().get(f"now:{world.site.pk}"))["name"] == "Campus"


def test_a_burst_of_readings_leads_to_one_waiting_balance(world):
    for _ in range(20):
        wake.balance(world.site.pk)
    assert queued("control") == ["smartcharging.tasks.balance"]

    tasks.balance(world.site.pk)  # it begins: from now on a reading asks for another one
    wake.balance(world.site.pk)
    assert len(queued("control")) == 2


def test_a_waiting_balance_expires(world):
    wake.balance(world.site.pk)

    (message,) = connection().lrange("control", 0, -1)
    expires = datetime.fromisoformat(json.loads(message)["headers"]["expires"])

    assert expires - datetime.now(UTC) <= timedelta(seconds=wake.BALANCE_WAITS_S)


def test_one_turn_per_site():
    entered: list[str] = []
    inside, leave = threading.Event(), threading.Event()

    def first() -> None:
        with turn("balance", 1):
            entered.append("first")
            inside.set()
            leave.wait(5)

    thread = threading.Thread(target=first)
    thread.start()
    inside.wait(5)
    with turn("balance", 1, waits_s=0.1) as mine:
        assert not mine
    with turn("balance", 2, waits_s=0.1) as mine:
        assert mine  # another site is not held up
    with turn("plan", 1, waits_s=0.1) as mine:
        assert mine  # nor is the plan of the same site
    leave.set()
    thread.join(5)
    with turn("balance", 1, waits_s=1) as mine:
        assert mine


def test_a_turn_whose_owner_was_killed_dies_by_itself():
    connection().set("turn:1", "a worker that is no more", px=100)

    with turn("balance", 1, waits_s=2) as mine:
        assert mine


def test_who_overslept_does_not_take_the_turn_of_another():
    with turn("balance", 1, lasts_s=0.05):
        connection().set("turn:1", "the next one", px=5000)

    assert connection().get("turn:1") == "the next one"


def test_an_engine_that_fails_leaves_everybody_the_safe_current(world, monkeypatch, caplog):
    def fails(snapshot: object) -> None:
        raise RuntimeError("boom")

    monkeypatch.setattr(tasks, "allocate", fails)
    world.car("CS-1", offered_a=32)

    tasks.balance(world.site.pk)

    assert bus.get_want("CS-1", 1).limit_a == 6
    assert "could not be balanced" in caplog.text


def test_a_site_without_circuits_is_passed_over(db):
    tasks.balance(Site.objects.create(name="Empty").pk)
    tasks.plan(Site.objects.get(name="Empty").pk, "test")
    tasks.balance(12345)

    assert not Plan.objects.exists()


def test_every_site_is_rung(world):
    Site.objects.create(name="Another")

    tasks.balance_all()
    tasks.plan_all()

    assert queued("control") == ["smartcharging.tasks.balance"] * 2
    assert queued("slow") == ["smartcharging.tasks.plan"] * 2


# --- plan -----------------------------------------------------------------------------------------------------------


def test_a_plan_is_kept_with_its_trigger_gap_and_promises(world):
    charge = world.car("CS-1")
    goal = goals.set_goal(
        site=world.site,
        transaction=charge,
        departure=world.now + timedelta(hours=5),
        energy_wh=10_000,
        source="driver",
    )

    pk = tasks.plan(world.site.pk, "goal from driver")

    plan = Plan.objects.get(pk=pk)
    goal.refresh_from_db()
    assert plan.trigger == "goal from driver"
    assert plan.status in ("optimal", "feasible")
    assert plan.gap is not None
    assert plan.valid_until > world.now
    assert len(plan.result["price"]) == len(plan.result["grid_w"]) == 96
    planned_wh = sum(plan.result["evse"][world.key("CS-1")]) / 4
    assert planned_wh == pytest.approx(10_000, rel=0.01)
    assert goal.promised_wh == pytest.approx(10_000)
    assert goal.promise_reason == ""


def test_a_car_that_is_only_expected_is_kept_apart_and_promised_nothing(world):
    evse = world.evse("CS-2")
    for days in range(1, 29):
        at = world.now - timedelta(days=days) + timedelta(hours=5)
        evse.station.transactions.create(
            transaction_id=f"past-{days}", evse=evse, started_at=at, ended_at=at + timedelta(hours=2), energy_wh=9_000
        )
    world.car("CS-1")

    plan = Plan.objects.get(pk=tasks.plan(world.site.pk, "test"))

    assert set(plan.result["evse"]) == {world.key("CS-1")}
    assert sum(plan.result["expected_w"]) / 4 > 1_000
    assert plan.result["shortfalls"] == {}


def test_what_cannot_be_promised_says_why(world):
    charge = world.car("CS-1")
    goal = goals.set_goal(
        site=world.site,
        transaction=charge,
        departure=world.now + timedelta(hours=1),
        energy_wh=200_000,
        source="driver",
    )

    plan = Plan.objects.get(pk=tasks.plan(world.site.pk, "test"))

    goal.refresh_from_db()
    assert goal.promised_wh < 30_000
    assert goal.promise_reason
    assert plan.result["shortfalls"][str(goal.pk)]["wh"] > 170_000


def test_a_promise_is_no_change_of_the_wish(world):
    goal = goals.set_goal(site=world.site, transaction=world.car("CS-1"), energy_wh=5000, source="driver")
    history, changed = ChargingGoal.history.count(), goal.updated_at

    tasks.plan(world.site.pk, "test")

    goal.refresh_from_db()
    assert (ChargingGoal.history.count(), goal.updated_at) == (history, changed)


def test_promises_are_written_together(world):
    for station in ("CS-1", "CS-2"):
        goals.set_goal(site=world.site, transaction=world.car(station), energy_wh=5000, source="driver")

    with CaptureQueriesContext(database) as asked:
        tasks.plan(world.site.pk, "test")
    with CaptureQueriesContext(database) as again:
        tasks.plan(world.site.pk, "test")

    def written(captured: CaptureQueriesContext) -> int:
        return sum("promised_wh" in q["sql"] and q["sql"].startswith("UPDATE") for q in captured)

    assert (written(asked), written(again)) == (1, 0)


def test_a_plan_by_rule_buys_no_new_peak_for_the_month(world, monkeypatch):
    """Nobody has weighed its peak: the last that was weighed goes on, until there is none of the last day."""
    Tariff.objects.update_or_create(site=world.site, defaults={"peak_eur_per_kw_month": 4.0})
    goals.set_goal(site=world.site, transaction=world.car("CS-1"), energy_wh=30_000, source="driver")
    weighed = Plan.objects.get(pk=tasks.plan(world.site.pk, "test")).result["peak_w"]

    def broken(problem: PlanProblem, clock: object) -> PlanResult:
        return solve(replace(problem, import_eur_per_kwh=problem.import_eur_per_kwh * float("nan")))

    monkeypatch.setattr(planning, "solve", broken)
    by_rule = Plan.objects.get(pk=tasks.plan(world.site.pk, "late"))
    assert by_rule.status == Plan.Status.FALLBACK
    assert max(w for w in by_rule.result["grid_w"]) > weighed + 1000
    assert by_rule.result["peak_w"] == weighed

    Plan.objects.all().delete()
    first = Plan.objects.get(pk=tasks.plan(world.site.pk, "late"))
    assert first.result["peak_w"] > weighed + 1000


def test_the_balance_follows_a_new_plan(world):
    tasks.plan(world.site.pk, "test")

    assert queued("control") == ["smartcharging.tasks.balance"]


@pytest.mark.parametrize(
    ("planned_w", "age_s", "planned_anew"),
    [(6900, 90, False), (15_000, 90, True), (15_000, 30, False), (None, 90, True)],
)
def test_a_building_that_is_not_what_was_planned_with_brings_a_new_plan(world, planned_w, age_s, planned_anew):
    Plan.objects.create(
        site=world.site,
        made_at=world.now - timedelta(seconds=age_s),
        starts_at=world.now - timedelta(minutes=5),
        valid_until=world.now + timedelta(minutes=20),
        status="optimal",
        result={"building_w": [planned_w] * 4, "peak_w": 40_000},
    )

    tasks.balance(world.site.pk)

    assert queued("slow") == (["smartcharging.tasks.plan"] if planned_anew else [])


def test_plans_are_made_when_nothing_is_measured_at_all(db):
    world = World.campus(timezone.now())
    world.car("CS-1")

    plan = Plan.objects.get(pk=tasks.plan(world.site.pk, "test"))

    assert plan.status in ("optimal", "feasible", "fallback")
    json.dumps(plan.result, allow_nan=False)


# --- clock ----------------------------------------------------------------------------------------------------------


def test_everything_the_clock_rings_exists_expires_and_has_its_queue():
    schedule = current_app.conf.beat_schedule

    assert {entry["task"].rpartition(".")[2] for entry in schedule.values()} == {
        "balance_all",
        "plan_all",
        "roll_up",
        "fetch_prices",
        "fetch_weather",
        "learn",
        "tidy",
        "keep_local_lists",
        "keep_reservations",
        "advance_rollouts",
        "keep_logs",
    }
    for entry in schedule.values():
        room, _, name = entry["task"].rpartition(".")
        assert hasattr(import_module(room), name)
        assert entry["options"]["expires"] > 0
        assert entry["options"]["queue"] == ("control" if name == "balance_all" else "slow")


# --- quarters, peak, forecasts --------------------------------------------------------------------------------------


def test_a_sites_quarter_is_what_is_left_for_the_building(world):
    slot = datetime(2026, 3, 10, 9, 0, tzinfo=UTC)
    for name, mean, taken in (("main", 20_000, 5000), ("roof", -6000, 0), ("store", 2000, 500)):
        QuarterHour.objects.create(device=world.device(name), slot=slot, mean_w=mean, import_wh=taken)
    charge = world.car("CS-1")
    for second in range(0, 900, 10):
        MeterSample.objects.create(
            evse=charge.evse, transaction=charge, at=slot + timedelta(seconds=second), power_w=11_000
        )

    assert quarters.roll_up_site(world.site, slot + timedelta(minutes=16)) == 1
    assert quarters.roll_up_site(world.site, slot + timedelta(minutes=17)) == 0

    row = SiteQuarter.objects.get()
    assert row.charging_w == pytest.approx(11_000, rel=0.02)
    assert row.building_w == pytest.approx(20_000 + 6000 - 2000 - 11_000, rel=0.03)
    peak = MonthPeak.objects.get()
    assert (peak.peak_w, peak.month) == (20_000, date(2026, 3, 1))


def test_what_was_known_of_the_cars_stays_where_no_meter_value_is_kept(world):
    slot = datetime(2026, 3, 10, 9, 0, tzinfo=UTC)
    for name, mean in (("main", 20_000), ("roof", 0), ("store", 0)):
        for at in (slot, slot + timedelta(minutes=15)):
            QuarterHour.objects.create(device=world.device(name), slot=at, mean_w=mean, import_wh=mean / 4)
    SiteQuarter.objects.create(site=world.site, slot=slot, grid_w=20_000, charging_w=8000, building_w=12_000)

    quarters.roll_up_site(world.site, slot + timedelta(minutes=31))

    rows = SiteQuarter.objects.order_by("slot").values_list("charging_w", "building_w")
    assert list(rows) == [(8000, 12_000), (0, 20_000)]


def test_a_silent_inverter_leaves_the_building_unknown(world):
    slot = datetime(2026, 3, 10, 9, 0, tzinfo=UTC)
    QuarterHour.objects.create(device=world.device("main"), slot=slot, mean_w=20_000, import_wh=5000)

    quarters.roll_up_site(world.site, slot + timedelta(minutes=16))

    row = SiteQuarter.objects.get()
    assert (row.grid_w, row.building_w) == (20_000, None)


def test_a_peak_belongs_to_the_month_on_the_sites_clock_and_only_rises(world):
    last_of_march = datetime(2026, 3, 31, 21, 45, tzinfo=UTC)  # 23:45 in Brussels
    meter = world.device("main")
    for i, watts in enumerate((30_000, 20_000, 25_000, 10_000)):
        slot = last_of_march + timedelta(minutes=15 * i)
        QuarterHour.objects.create(device=meter, slot=slot, mean_w=watts, import_wh=watts / 4)

    quarters.roll_up_site(world.site, last_of_march + timedelta(hours=1))

    assert dict(MonthPeak.objects.values_list("month", "peak_w")) == {
        date(2026, 3, 1): 30_000,
        date(2026, 4, 1): 25_000,
    }


def test_export_makes_no_peak(world):
    slot = datetime(2026, 3, 10, 9, 0, tzinfo=UTC)
    QuarterHour.objects.create(device=world.device("main"), slot=slot, mean_w=-50_000, import_wh=0, export_wh=12_500)

    quarters.roll_up_site(world.site, slot + timedelta(minutes=16))

    assert not MonthPeak.objects.exists()


@pytest.mark.django_db(transaction=True)
def test_the_roll_up_makes_devices_and_sites_quarters(world):
    slot = world.now - timedelta(minutes=40)
    for name, watts in (("main", 10_000.0), ("roof", 0.0), ("store", 0.0)):
        for second in range(0, 2400, 30):
            at = slot + timedelta(seconds=second)
            Reading.objects.create(device=world.device(name), at=at, power_w=watts, values={})

    tasks.roll_up()

    assert all(row.building_w == row.grid_w == pytest.approx(10_000) for row in SiteQuarter.objects.all())
    assert SiteQuarter.objects.exists()


def test_forecasts_are_scored_against_what_came(world):
    start = world.now.replace(minute=0, second=0, microsecond=0) - timedelta(hours=3)
    Forecast.objects.create(
        site=world.site, series="building", issued_at=start, starts_at=start, p50_w=[1000, 1000, None], method="x"
    )
    for i in range(3):
        SiteQuarter.objects.create(site=world.site, slot=start + timedelta(minutes=15 * i), building_w=1300)

    assert forecasts.score(world.site, world.now) == {"building": 300}
    tasks.learn()


def test_a_forecast_is_made_once_an_hour(world):
    tasks.plan(world.site.pk, "test")
    made = Forecast.objects.count()
    tasks.plan(world.site.pk, "test")

    assert Forecast.objects.count() == made > 0


# --- fetch ----------------------------------------------------------------------------------------------------------


def market_day(area: str, day: date, *, price: float = 80.0) -> list[PricePoint]:
    start, end = fetch.prices.day_of(area, day)
    slots = int((end - start) / timedelta(minutes=15))
    return [PricePoint(start + i * timedelta(minutes=15), 15, price, "test") for i in range(slots)]


def test_prices_are_fetched_once_and_tomorrows_after_the_auction(db):
    morning = datetime(2026, 3, 10, 8, 0, tzinfo=UTC)
    asked: list[date] = []

    def source(area: str, day: date) -> list[PricePoint]:
        asked.append(day)
        return market_day(area, day)

    assert fetch.fetch_area("BE", morning, source) == 96
    assert fetch.fetch_area("BE", morning, source) == 0
    assert fetch.fetch_area("BE", morning + timedelta(hours=5), source) == 96

    assert asked == [date(2026, 3, 10), date(2026, 3, 11)]
    assert Price.objects.count() == 192


def test_a_source_that_is_early_or_away_costs_nothing(db, caplog):
    def early(area: str, day: date) -> list[PricePoint]:
        raise NoPriceYet("not yet")

    def away(area: str, day: date) -> list[PricePoint]:
        raise SourceUnreachable("no route")

    now = datetime(2026, 3, 10, 8, 0, tzinfo=UTC)
    assert fetch.fetch_area("BE", now, early) == 0
    assert fetch.fetch_area("BE", now, away) == 0
    assert fetch.fetch_area("no area!", now, away) == 0
    assert "no route" in caplog.text


def test_demo_sites_are_never_fetched_for(db):
    Site.objects.create(name="Demo", price_area="BE", demo=True)
    assert fetch.areas() == []
    Site.objects.create(name="Real", price_area="NL")
    assert fetch.areas() == ["NL"]


def test_nothing_is_fetched_when_the_outside_is_closed(db, settings, monkeypatch):
    settings.FETCH_OUTSIDE = False
    monkeypatch.setattr(fetch, "fetch_area", lambda *_: pytest.fail("asked"))
    monkeypatch.setattr(fetch, "fetch_weather_of", lambda *_: pytest.fail("asked"))
    Site.objects.create(name="Real", price_area="NL", latitude=51, longitude=4)

    tasks.fetch_prices()
    tasks.fetch_weather()


def test_new_prices_ask_for_a_plan_and_one_areas_trouble_is_not_anothers(db, settings, monkeypatch):
    settings.FETCH_OUTSIDE = True
    Site.objects.create(name="One", price_area="BE")
    Site.objects.create(name="Two", price_area="NL")

    def fetch_area(area: str, now: datetime) -> int:
        if area == "BE":
            raise RuntimeError("boom")
        return 96

    monkeypatch.setattr(fetch, "fetch_area", fetch_area)

    tasks.fetch_prices()

    assert queued("slow") == ["smartcharging.tasks.plan"]


def test_weather_is_kept_for_its_site(db):
    site = Site.objects.create(name="Real", latitude=51, longitude=4)
    point = WeatherPoint(datetime(2026, 3, 10, 9, 0, tzinfo=UTC), 300.0, 8.5, None)

    assert fetch.fetch_weather_of(site, lambda *_: [point]) == 1

    assert fetch.weather_of(site.pk) == [point]
    assert fetch.weather_of(site.pk + 1) == []


# --- tidy -----------------------------------------------------------------------------------------------------------


@pytest.mark.django_db(transaction=True)
def test_what_is_too_old_is_deleted(world):
    old = world.now - timedelta(days=400)
    charge = world.car("CS-1")
    for at in (old, world.now):
        OcppMessage.objects.create(station=charge.station, at=at, direction="in", kind="call")
        MeterSample.objects.create(evse=charge.evse, at=at)
        Reading.objects.create(device=world.device("main"), at=at)
        Plan.objects.create(site=world.site, made_at=at, starts_at=at, valid_until=at, status="optimal")

    tasks.tidy()

    for model in (OcppMessage, MeterSample, Reading, Plan):
        assert model.objects.count() == 1

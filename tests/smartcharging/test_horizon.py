"""The coming day as a planning problem: what each car needs, prices, peaks, orders, and what is expected."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta

import pytest

from csms.models import IdToken
from csms.reported_models import ChargingNeeds
from meters.models import Site
from smartcharging import dispatch, goals, peaks
from smartcharging.engine.live.allocate import allocate
from smartcharging.gather import look
from smartcharging.horizon import day, problem
from smartcharging.models import (
    GridCommand,
    MonthPeak,
    Plan,
    Price,
    SiteQuarter,
    Tariff,
    TokenProfile,
    UserProfile,
)
from tests.smartcharging.worlds import CAMPUS, World

pytestmark = pytest.mark.django_db
NOW = datetime(2026, 3, 10, 9, 7, tzinfo=UTC)


@pytest.fixture
def world(db) -> World:
    world = World.campus(NOW)
    world.quiet_day()
    return world


def test_the_problem_has_every_car_with_its_needs(world):
    charge = world.car("CS-1", energy_wh=4000)
    goals.set_goal(
        site=world.site,
        transaction=charge,
        departure=datetime(2026, 3, 10, 12, 0, tzinfo=UTC),
        energy_wh=10_000,
        source="driver",
        now=NOW,
    )

    today = problem(world.site, NOW)

    assert today.start == datetime(2026, 3, 10, 9, 0, tzinfo=UTC)
    assert today.slots == 96
    (car,) = today.sessions
    assert (car.first_slot, car.last_slot, car.energy_wh) == (0, 11, 6000)  # ready a quarter before it leaves
    assert car.max_w == pytest.approx(0.97 * 32 * 690)  # cars take a little less than they may
    assert today.battery.soc == 0.5


def test_a_car_that_said_nothing_wants_what_is_usual_and_stays_as_long(world):
    world.car("CS-1", energy_wh=10_000)

    (car,) = problem(world.site, NOW).sessions

    assert car.energy_wh == 20_000
    assert car.last_slot == 11  # it came an hour ago and stays four, less a quarter


def test_a_late_departure_lengthens_the_horizon(world):
    charge = world.car("CS-1")
    goals.set_goal(site=world.site, transaction=charge, departure=NOW + timedelta(hours=40), source="driver", now=NOW)

    assert problem(world.site, NOW).slots == 161


def test_prices_come_from_the_market_and_then_from_the_contract(world):
    Site.objects.update(price_area="BE")
    world.site.refresh_from_db()
    Tariff.objects.create(
        site=world.site,
        import_factor=1.1,
        import_adder_eur_per_kwh=0.1,
        export_factor=0.9,
        export_adder_eur_per_kwh=0,
        fixed_price_eur_per_mwh=200,
    )
    start = datetime(2026, 3, 10, 9, 0, tzinfo=UTC)
    Price.objects.create(area="BE", start=start, minutes=60, eur_per_mwh=100)
    Price.objects.create(area="BE", start=start + timedelta(hours=1), minutes=15, eur_per_mwh=-50)

    today = problem(world.site, NOW)

    assert today.import_eur_per_kwh[:6].tolist() == pytest.approx([0.21] * 4 + [0.045, 0.32])
    assert today.export_eur_per_kwh[4] == pytest.approx(-0.045)


def test_commands_to_come_limit_their_slots(world):
    GridCommand.objects.create(
        site=world.site,
        import_limit_w=15_000,
        starts_at=datetime(2026, 3, 10, 10, 5, tzinfo=UTC),
        ends_at=datetime(2026, 3, 10, 10, 40, tzinfo=UTC),
        reason="evening",
    )

    limits = problem(world.site, NOW).import_limit_w

    assert limits[3] > 1e9
    assert limits[4:7].tolist() == [15_000] * 3
    assert limits[7] > 1e9


def test_the_months_peak_and_its_price_are_in_the_problem(world):
    MonthPeak.objects.create(site=world.site, month=date(2026, 3, 1), peak_w=42_000, at=NOW)

    today = problem(world.site, NOW)

    assert today.month_peak_w == 42_000
    assert today.peak_eur_per_kw == 4.0


def test_on_the_last_day_of_a_month_the_next_one_has_a_peak_of_its_own_from_the_floor_on(world):
    MonthPeak.objects.create(site=world.site, month=date(2026, 3, 1), peak_w=42_000, at=NOW)
    Tariff.objects.update_or_create(
        site=world.site,
        defaults={"access_power_w": 50_000, "access_excess_eur_per_kw_month": 30, "maximum_tariff_eur_per_kwh": 0.3},
    )
    last_evening = datetime(2026, 3, 31, 20, 0, tzinfo=UTC)  # the month ends at 22:00 UTC: summer time in Brussels
    for quarter in range(8):
        slot = last_evening - timedelta(hours=3) + timedelta(minutes=15 * quarter)
        SiteQuarter.objects.create(site=world.site, slot=slot, grid_w=10_000 if quarter else -50_000)

    today = problem(world.site, last_evening)

    assert today.month_ends == 8
    assert [(c.name, c.eur_per_kw, c.free_w, c.first_slot, c.last_slot) for c in today.peak_charges] == [
        ("month_peak", 4.0, 42_000, 0, 8),
        ("month_peak", 4.0, 2500, 8, None),
        ("access_power", 30, 50_000, 0, 8),
        ("access_power", 30, 50_000, 8, None),
    ]
    cap = today.maximum_tariff
    assert cap is not None
    assert cap.eur_per_kwh == 0.3
    days_before = 31 - 2 / 24 - 1 / 24  # until 22:00 on the site's clock, with an hour lost to summer time
    assert cap.other_import_wh == pytest.approx(8750 * 24 * days_before)


def test_in_the_middle_of_a_month_no_other_month_counts(world):
    today = problem(world.site, NOW)

    assert today.month_ends is None
    assert [c.name for c in today.peak_charges] == ["month_peak"]
    assert today.maximum_tariff is None


def test_access_power_alone_is_a_target_for_the_running_quarter(world):
    Tariff.objects.update_or_create(
        site=world.site,
        defaults={"peak_eur_per_kw_month": 0, "access_power_w": 50_000, "access_excess_eur_per_kw_month": 30},
    )
    Plan.objects.create(
        site=world.site,
        made_at=NOW,
        starts_at=NOW,
        valid_until=NOW + timedelta(hours=1),
        status=Plan.Status.OPTIMAL,
        result={"peak_w": 20_000},
    )

    assert look(world.site, NOW).snapshot.peak_target_w == 50_000


def test_of_a_plan_of_the_month_before_counts_what_it_planned_for_this_one(world):
    """March begins on the site's clock at 23:00 UTC; the plan is of half an hour before."""
    begins = datetime(2026, 2, 28, 23, 0, tzinfo=UTC)
    Tariff.objects.update_or_create(site=world.site, defaults={"peak_eur_per_kw_month": 4.0, "peak_floor_w": 2_500})
    plan = Plan.objects.create(
        site=world.site,
        made_at=begins - timedelta(minutes=30),
        starts_at=begins - timedelta(minutes=30),
        valid_until=begins + timedelta(hours=1),
        status=Plan.Status.OPTIMAL,
        result={"peak_w": 60_000, "grid_w": [60_000, 40_000, 7_000, 9_000, None]},
    )
    tariff = Tariff.objects.get(site=world.site)

    assert peaks.target_w(world.site, plan, tariff, 2_500, begins + timedelta(minutes=1)) == 9_000
    assert peaks.target_w(world.site, plan, tariff, 2_500, begins - timedelta(minutes=1)) == 60_000


def test_what_a_dc_car_said_it_can_take_is_what_it_is_planned_with(world):
    charge = world.car("HPC-1")
    ChargingNeeds.objects.create(evse=charge.evse, transaction=charge, told_at=NOW, max_w=20_000)

    (car,) = problem(world.site, NOW).sessions

    assert 15_000 < car.max_w < 20_000 / 0.9


def test_the_building_is_expected_as_on_days_like_it_starting_from_now(world):
    world.meter(20)  # 13.8 kW now
    for days in range(1, 15):
        for quarter in range(96):
            slot = datetime(2026, 3, 10, 0, 0, tzinfo=UTC) - timedelta(days=days) + timedelta(minutes=15 * quarter)
            SiteQuarter.objects.create(site=world.site, slot=slot, building_w=5000 + 100 * quarter)

    today = problem(world.site, NOW)

    assert today.building_w[0] == pytest.approx(13_800)
    assert today.building_w[95] == pytest.approx(5000 + 100 * 35, rel=0.05)


def test_a_site_without_history_expects_what_it_measures(world):
    world.meter(20)

    assert problem(world.site, NOW).building_w.tolist() == pytest.approx([13_800] * 96)


def test_a_car_not_heard_of_yet_does_not_make_the_building_unknown_to_the_plan(world):
    world.meter(20)
    world.car("CS-1", offered_a=16)

    assert problem(world.site, NOW).building_w.tolist() == pytest.approx([13_800] * 96)


def test_a_card_with_a_profile_is_planned_as_it_wants(world):
    card = IdToken.objects.create(site=world.site, value="A")
    profile = UserProfile.objects.create(
        site=world.site, name="fleet", priority=5, departure=time(17, 0), energy_wh=25_000
    )
    TokenProfile.objects.create(id_token=card, profile=profile)
    goals.attach(world.car("CS-1", id_token=card), NOW)

    today = day(world.site, NOW)

    (car,) = today.problem.sessions
    assert (car.energy_wh, car.priority) == (25_000, 6)
    assert car.last_slot == 27  # 17:00 in Brussels is 16:00 UTC, less a quarter
    assert today.labels[car.label].goal.source == "tap"


def test_a_car_that_usually_comes_is_planned_for_before_it_is_here(world):
    evse, key = world.evse("CS-2"), world.key("CS-2")
    for days in range(1, 29):
        at = datetime(2026, 3, 10, 14, 5, tzinfo=UTC) - timedelta(days=days)
        evse.station.transactions.create(
            transaction_id=f"past-{days}", evse=evse, started_at=at, ended_at=at + timedelta(hours=2), energy_wh=9_000
        )
    world.car("CS-1")

    today = day(world.site, NOW)

    here, coming = today.problem.sessions
    assert (here.key, here.expected) == (world.key("CS-1"), False)
    assert (coming.key, coming.expected) == (f"expected:{key}", True)
    assert coming.energy_wh == pytest.approx(9_000, rel=0.1)
    assert set(today.labels) == {here.label}


def test_nobody_is_expected_where_nobody_ever_came(world):
    assert problem(world.site, NOW).sessions == ()


ROW_WITH_METER = CAMPUS.replace(
    'parent = "grid"\nlimit_a = 63\n', 'parent = "grid"\nlimit_a = 63\nmeter = "board"\nfallback_a = 20\n'
).replace(
    '[[device]]\nname = "roof"',
    '[[device]]\nname = "board"\nmap = "eastron_sdm630"\nconnect = "tcp://127.0.0.1:1502?unit=2"\n\n'
    '[[device]]\nname = "roof"',
)


def test_a_board_with_load_of_its_own_is_not_planned_as_empty(db):
    """As measured now, beside its cars; no more, no less, where the building has no shape yet."""
    world = World.campus(NOW, ROW_WITH_METER)
    world.quiet_day(40)
    world.measure("board", current_a=(26.0, 26.0, 26.0), power_w=26 * 690.0)
    world.car("CS-1", offered_a=16)
    world.draws("CS-1", (16.0, 16.0, 16.0))
    view = look(world.site, NOW)
    row = view.snapshot.grid.index("row 1")
    assert problem(world.site, NOW).node_background_w == {}  # before the first balance nothing is known of it

    dispatch.apply(view, allocate(view.snapshot))
    today = problem(world.site, NOW)

    assert list(today.node_background_w) == [row]
    assert today.node_background_w[row][0] == pytest.approx(10 * 690, rel=0.05)
    shape = today.building_w / today.building_w[0]
    assert today.node_background_w[row] == pytest.approx(today.node_background_w[row][0] * shape)

    world.measure("board", ago_s=600, current_a=(26.0, 26.0, 26.0), power_w=26 * 690.0)
    assert problem(world.site, NOW).node_background_w == {}

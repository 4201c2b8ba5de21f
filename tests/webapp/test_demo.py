"""The demo: real days played back, people who find places, a site that is the same however often it is loaded."""

from __future__ import annotations

import asyncio
import json
import socket
import stat
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from io import StringIO
from itertools import pairwise
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from django.contrib.auth import authenticate
from django.contrib.auth.models import User
from django.core.management import CommandError, call_command
from django.utils import timezone

from csms.models import EVSE, ChargingStation, IdToken, Transaction
from meters.models import Device, QuarterHour, Site
from smartcharging.models import Circuit, MonthPeak, Price, SiteQuarter, Vehicle
from smartcharging.sitefile import parse
from tests.csms.central import central
from webapp.demo import cars, installation, loading, make_data, past, people
from webapp.demo.replay import Replay, Visit, days, sessions, stand_in
from webapp.demo.world import VERSIONS, World
from webapp.management.commands import simulate

BRUSSELS = ZoneInfo("Europe/Brussels")
REPLAY = Replay(BRUSSELS, 60_000)
TUESDAY = datetime(2026, 11, 24, 11, tzinfo=UTC)


# --- the site ------------------------------------------------------------------------------------------------------


def test_the_site_is_real_in_kind():
    site = parse(installation.SITE_FILE.read_bytes())
    ac = [s for s in site.stations if s.current == "ac"]
    parents = {c.name: c.parent for c in site.circuits}

    def depth(name: str | None) -> int:
        return 0 if name is None else 1 + depth(parents[name])

    assert (len(ac), len(site.stations) - len(ac)) == (10, 2)
    assert sum(s.evses == 2 for s in ac) == 2
    assert {len(s.phases) for s in ac} == {1, 3}
    assert len({s.phases for s in ac if len(s.phases) == 3}) == 3
    assert max(depth(c.name) for c in site.circuits) == 5
    assert sorted(VERSIONS.values()) == ["ocpp1.6"] * 6 + ["ocpp2.0.1"] * 6 and VERSIONS.keys() == {
        s.identity for s in site.stations
    }
    assert {d.name for d in site.devices} == installation.MODBUS_NAMES.keys()
    assert all(s.password is None for s in site.stations)


def test_every_place_has_a_card_of_its_own_and_every_group_its_places():
    site = parse(installation.SITE_FILE.read_bytes())
    places = [(s.identity, n) for s in site.stations for n in range(1, s.evses + 1)]
    given = [place for group in people.PLACES.values() for place in group]

    assert sorted([*given, people.DRIVER_PLACE]) == sorted(places) == sorted(cars.CARDS)
    assert len({token for token, _ in cars.CARDS.values()}) == len(places)
    assert {token for token, _ in cars.CARDS.values()} <= {t.value for t in site.id_tokens}
    assert all(cars.CARDS[p][1].max_dc_w for p in people.PLACES["fast"])


# --- real days played back -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["building", "prices", "sessions"])
@pytest.mark.parametrize("day", [date(2026, 1, 1), date(2026, 7, 4), date(2026, 11, 24), date(2028, 2, 29)])
def test_a_day_is_replaced_by_one_of_its_weekday(name: str, day: date):
    assert stand_in(name, day).weekday() == day.weekday()


def test_the_sun_is_that_of_the_same_time_of_year():
    assert stand_in("pv", date(2026, 7, 4), False) == date(2023, 7, 4)
    assert REPLAY.pv_mean_w(datetime(2026, 7, 4, 0, tzinfo=UTC)) == 0
    assert -60_000 < REPLAY.pv_mean_w(datetime(2026, 7, 4, 11, tzinfo=UTC)) < -15_000


@pytest.mark.parametrize(
    ("day", "hours"), [(date(2026, 3, 29), 23), (date(2026, 10, 25), 25), (date(2026, 11, 24), 24)]
)
def test_days_of_23_24_and_25_hours_have_a_price_for_each(day: date, hours: int):
    prices = REPLAY.prices(day)

    assert len(prices) == hours
    assert all(b - a == timedelta(hours=1) for (a, _), (b, _) in pairwise(prices))


def test_the_building_goes_by_the_clock_through_the_change_of_time():
    before, after = datetime(2026, 3, 28, 8, tzinfo=UTC), datetime(2026, 3, 29, 7, tzinfo=UTC)
    assert before.astimezone(BRUSSELS).hour == after.astimezone(BRUSSELS).hour == 9
    for hour in range(48):
        at = datetime(2026, 10, 24, tzinfo=UTC) + timedelta(hours=hour)
        assert all(w > 0 for w in REPLAY.building_w(at))


def test_power_has_no_steps_and_its_mean_is_that_of_the_measured_quarter():
    slot = datetime(2026, 11, 24, 11, tzinfo=UTC)
    seconds = [slot + timedelta(seconds=s) for s in range(900)]
    watts = [sum(REPLAY.building_w(at)) for at in seconds]

    assert max(abs(b - a) for a, b in pairwise(watts)) < 500
    neighbours = [REPLAY.building_mean_w(slot + timedelta(minutes=15 * n)) for n in (-1, 0, 1)]
    assert min(neighbours) * 0.9 < sum(watts) / 900 < max(neighbours) * 1.1


def test_the_same_day_brings_the_same_people():
    first, again = REPLAY.visits(date(2026, 11, 24)), Replay(BRUSSELS, 1).visits(date(2026, 11, 24))

    assert first == again and len(first) > 20
    assert [v.arrives for v in first] == sorted(v.arrives for v in first)
    assert all(v.leaves > v.arrives and v.energy_wh > 0 for v in first)


def test_nobody_is_in_two_places_and_no_place_has_two_cars():
    stays = people.stays_between(REPLAY, date(2026, 11, 20), date(2026, 11, 27))

    for i, stay in enumerate(stays):
        for other in stays[i + 1 :]:
            if other.place == stay.place:
                apart = stay.visit.leaves <= other.visit.arrives or other.visit.leaves <= stay.visit.arrives
                assert apart


@pytest.mark.parametrize("hour", range(0, 24, 3))
def test_whenever_one_looks_cars_are_there_and_one_of_them_charges(hour: int):
    now = TUESDAY.replace(hour=hour)

    there = people.present(REPLAY, now)

    assert len(there) >= 3
    assert any(not cars.car_for(s.visit, s.place, now).full for s in there)


def test_a_car_that_came_earlier_has_charged_in_the_meantime():
    visit = Visit("staff", 3, TUESDAY, TUESDAY + timedelta(hours=8), 12_000)
    place = ("NOORD-01", 1)

    fresh, later, last = (cars.car_for(visit, place, TUESDAY + timedelta(hours=h)) for h in (0, 4, 8))

    assert fresh.soc < later.soc < last.soc == pytest.approx(last.target_soc)
    assert (last.target_soc - fresh.soc) * fresh.battery_wh == pytest.approx(12_000 * 0.9)


def test_the_shipped_data_is_whole():
    assert len(days("building")) > 300 and len(days("pv")) > 355 and len(days("prices")) > 240
    assert all(len(v) == 96 for v in days("building").values())
    assert all(0 <= x <= 1000 for v in days("pv").values() for x in v)
    assert {group for group, _ in sessions()} == {"staff", "resident", "fast"}


# --- how the data is made ------------------------------------------------------------------------------------------


def test_a_short_gap_is_bridged_and_a_long_one_ends_the_day():
    assert make_data.bridge([1.0, None, None, 4.0]) == [1.0, 2.0, 3.0, 4.0]
    assert make_data.bridge([None, 2.0, None]) == [2.0, 2.0, 2.0]
    assert make_data.bridge([1.0, *[None] * 8, 10.0]) is None
    assert make_data.bridge([None] * 4) is None


def test_making_the_data_says_which_source_is_missing(tmp_path: Path):
    with pytest.raises(SystemExit, match="sessions_trondheim"):
        make_data.main([str(tmp_path)])
    with pytest.raises(SystemExit, match="make_data"):
        make_data.main([])


def test_a_local_day_of_25_hours_keeps_the_first_of_the_doubled_ones():
    start = datetime(2025, 10, 25, 22, tzinfo=UTC)
    values = [(start + timedelta(hours=h), float(h)) for h in range(25)]

    assert make_data.by_clock(values, BRUSSELS, 24)[date(2025, 10, 26)][:5] == [0, 1, 2, 4, 5]


# --- what an installation keeps ------------------------------------------------------------------------------------


def test_ports_and_passwords_are_drawn_once_and_differ_between_installations(tmp_path: Path):
    one, two = tmp_path / "one", tmp_path / "two"

    assert installation.ports(one) == installation.ports(one) != installation.ports(two)
    assert installation.station_password(one, "A") == installation.station_password(one, "A")
    assert len({installation.station_password(d, i) for d in (one, two) for i in ("A", "B")}) == 4
    assert installation.logins(one, ("driver",)) == installation.logins(one, ("driver",))
    for name in ("demo-secret", "demo-logins.json", "demo-ports.json"):
        assert stat.S_IMODE((one / name).stat().st_mode) == 0o600


def test_a_broken_file_of_the_demo_is_made_anew(tmp_path: Path):
    (tmp_path / "demo-ports.json").write_text('{"main meter": "x"')
    (tmp_path / "demo-state.json").write_text("[1, 2]")

    assert installation.ports(tmp_path).keys() == installation.MODBUS_NAMES.keys()
    assert installation.state(tmp_path) == {}


def test_the_site_file_gets_this_installations_ports_and_passwords(tmp_path: Path):
    site = installation.site_file(tmp_path)
    ports = installation.ports(tmp_path)

    assert {d.name: d.connect for d in site.devices} == {
        name: f"tcp://127.0.0.1:{port}?unit=1" for name, port in ports.items()
    }
    assert all(s.password == installation.station_password(tmp_path, s.identity) for s in site.stations)


# --- the database --------------------------------------------------------------------------------------------------


@pytest.fixture
def data_dir(settings: Any, tmp_path: Path) -> Path:
    settings.DATA_DIR = tmp_path
    return tmp_path


@pytest.fixture
def short_past(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four weeks take their time; most tests need no past."""
    monkeypatch.setattr(past, "BACK", timedelta(days=1))


@pytest.fixture
def load_demo(data_dir: Path, django_capture_on_commit_callbacks: Any) -> Callable[[], str]:
    """`manage.py demo` as it runs by itself, with what follows its commit; what it printed."""

    def run() -> str:
        out = StringIO()
        with django_capture_on_commit_callbacks(execute=True):
            call_command("demo", stdout=out)
        return out.getvalue()

    return run


def snapshot() -> dict[str, Any]:
    models = (Site, Circuit, Device, ChargingStation, EVSE, IdToken, User, Price, QuarterHour, SiteQuarter, Transaction)
    return {m.__name__: m.objects.count() for m in models} | {
        "passwords": dict(ChargingStation.objects.values_list("identity", "password_hash"))
    }


@pytest.mark.django_db
def test_the_demo_is_loaded_whole_and_again_changes_nothing(
    data_dir: Path, load_demo: Callable[[], str], short_past: None
):
    printed = load_demo()
    first = snapshot()
    load_demo()

    assert snapshot() == first
    site = Site.objects.get(demo=True)
    assert site.name == "Campus Noord" and first["ChargingStation"] == 12 and first["EVSE"] == 14
    logins = json.loads((data_dir / "demo-logins.json").read_text())
    assert all(f"{name:<10} {password}" in printed for name, password in logins.items())
    assert all(authenticate(username=name, password=password) for name, password in logins.items())
    assert all(s.password_is(installation.station_password(data_dir, s.identity)) for s in site.stations.all())


@pytest.mark.django_db
def test_the_people_of_the_demo_can_do_their_work(load_demo: Callable[[], str], short_past: None):
    load_demo()
    operator, driver = User.objects.get(username="operator"), User.objects.get(username="driver")

    assert operator.is_staff and not operator.is_superuser and operator.has_perm("csms.change_chargingstation")
    assert not operator.has_perm("auth.change_user")
    assert {r.role for r in operator.site_roles.all()} == {"operator", "installer"}
    assert not driver.is_staff
    assert IdToken.objects.get(driver=driver).value == cars.DRIVER_TOKEN
    assert Vehicle.objects.get(driver=driver).battery_wh == 64_000


@pytest.mark.django_db
def test_the_past_is_there_for_forecasts_reports_and_the_plan(load_demo: Callable[[], str]):
    now = timezone.now()
    load_demo()
    site = Site.objects.get(demo=True)

    assert SiteQuarter.objects.filter(site=site).count() == 28 * 96
    for row in SiteQuarter.objects.filter(site=site)[:200]:
        assert row.grid_w == pytest.approx(row.building_w + row.pv_w + row.charging_w + row.battery_w)
    assert QuarterHour.objects.filter(device__site=site).count() == 4 * 28 * 96
    assert not QuarterHour.objects.filter(slot__gt=now).exists()
    assert MonthPeak.objects.filter(site=site, peak_w__gt=10_000).exists()
    charges = Transaction.objects.filter(station__site=site)
    assert charges.count() > 500 and not charges.filter(ended_at=None).exists()

    prices = Price.objects.filter(area="BE").order_by("start")
    local = [p.start.astimezone(BRUSSELS).date() for p in prices]
    today = now.astimezone(BRUSSELS).date()
    assert {today - timedelta(days=1), today, today + timedelta(days=1)} <= set(local)
    assert {p.source for p in prices} == {past.SOURCE}


@pytest.mark.django_db
def test_what_is_known_is_not_replaced(load_demo: Callable[[], str], short_past: None):
    now = timezone.now().replace(minute=0, second=0, microsecond=0)
    real = Price.objects.create(area="BE", start=now, minutes=15, eur_per_mwh=321, source="ENTSO-E")
    load_demo()
    real.refresh_from_db()
    assert real.eur_per_mwh == 321

    station = ChargingStation.objects.get(identity="NOORD-01")
    station.name, station.max_a = "My station", 20
    station.save()
    load_demo()
    station.refresh_from_db()
    assert (station.name, station.max_a) == ("My station", 20)


@pytest.mark.django_db
def test_a_new_port_reaches_the_devices(data_dir: Path, load_demo: Callable[[], str], short_past: None):
    load_demo()
    ports = {**installation.ports(data_dir), "battery": 15999}
    installation.keep_ports(data_dir, ports)
    load_demo()
    assert Device.objects.get(name="battery").connect == "tcp://127.0.0.1:15999?unit=1"

    simulate.tell_devices("Campus Noord", {"battery": 15998})
    assert Device.objects.get(name="battery").connect == "tcp://127.0.0.1:15998?unit=1"


@pytest.mark.django_db
def test_a_real_site_and_a_real_user_are_not_taken_over(load_demo: Callable[[], str]):
    user = User.objects.create_user("driver", password="my own password")
    with pytest.raises(CommandError, match="driver"):
        load_demo()
    user.delete()

    Site.objects.create(name="Campus Noord")
    with pytest.raises(CommandError, match="Campus Noord"):
        load_demo()


@pytest.mark.django_db
def test_a_load_that_fails_leaves_nothing(data_dir: Path, monkeypatch: pytest.MonkeyPatch):
    def broken(site: Site, logins: dict[str, str]) -> None:
        raise RuntimeError("halfway")

    monkeypatch.setattr(loading, "_people", broken)
    with pytest.raises(RuntimeError):
        loading.load(data_dir, timezone.now())
    assert not Site.objects.exists() and not (data_dir / "demo-loaded").exists()


# --- the world -----------------------------------------------------------------------------------------------------


async def test_the_day_is_entered_in_the_middle_and_the_meter_closes_the_balance(tmp_path: Path):
    async with central() as system:
        world = World(installation.site_file(tmp_path), system.url, clock=lambda: datetime.now(UTC))
        for station in world.stations.values():
            station.tick_s = 0.1
        ports = await world.start_modbus(dict.fromkeys(installation.MODBUS_NAMES, 0))
        life = asyncio.create_task(world.run())
        try:
            driver = world.stations["NOORD-03"].outlets[1]
            await system.until(
                lambda: driver.charge is not None and driver.charge.id_token == cars.DRIVER_TOKEN, timeout_s=30
            )
            assert len(system.passwords) == 12 and all(ports.values())
            grid = sum(world.modbus.grid_w())
            parts = sum(world.modbus.building_w()) + world.modbus.pv_w() + world.modbus.battery_w()
            assert grid == pytest.approx(parts + 230 * sum(world.charging_a()), rel=0.02)
            kept = json.loads(json.dumps(world.state()))
            assert kept["stations"].keys() == world.stations.keys()
        finally:
            await world.stop()
            life.cancel()
            await asyncio.gather(life, return_exceptions=True)

    again = World(installation.site_file(tmp_path), "ws://nowhere", state=kept)
    station = again.stations["NOORD-03"]
    assert station.outlets[1].energy_wh == kept["stations"]["NOORD-03"]["1"]["register_wh"]
    assert station.unsent == 1  # the driver's charge ran when the power went: its end is still to be told


@pytest.mark.parametrize("kept", [{}, {"at": "x", "stations": {}}, {"at": None, "stations": {"NOORD-03": [1]}}])
async def test_a_state_that_cannot_be_read_is_a_fresh_start(tmp_path: Path, kept: dict[str, Any]):
    world = World(installation.site_file(tmp_path), "ws://nowhere", state=kept)

    assert all(s.unsent == 0 for s in world.stations.values())


async def test_currents_reach_the_grid_on_the_phases_of_the_wiring(tmp_path: Path):
    world = World(installation.site_file(tmp_path), "ws://nowhere")
    world.stations["NOORD-02"].outlets[1].current_a = (10, 0, 0)  # wired L2 L3 L1
    world.stations["NOORD-10"].outlets[1].current_a = (7, 0, 0)  # on L3 alone
    world.stations["SNEL-1"].outlets[1].current_a = (20, 20, 20)

    assert world.charging_a() == (20, 30, 27)
    assert world.hall_w() == (250, 10 * 230 + 200, 7 * 230 + 150)


async def test_who_leaves_is_unplugged_and_who_arrives_finds_a_place(tmp_path: Path):
    world = World(installation.site_file(tmp_path), "ws://nowhere", clock=lambda: TUESDAY)
    world._rng.uniform = lambda a, b: 0.0  # type: ignore[method-assign]
    visits = [v for v in REPLAY.visits(TUESDAY.astimezone(BRUSSELS).date()) if v.arrives < TUESDAY]
    last = visits[-1]

    await world.look(last.arrives - timedelta(seconds=1), last.arrives)
    there = [(i, n) for i, s in world.stations.items() for n, o in s.outlets.items() if o.car is not None]
    assert len(there) >= 1
    await world.look(last.leaves + timedelta(days=2), last.leaves + timedelta(days=2, seconds=1))
    assert not [o for s in world.stations.values() for o in s.outlets.values() if o.car is not None]


async def test_a_taken_port_is_left_to_its_owner(tmp_path: Path):
    with socket.socket() as owner:
        owner.bind(("127.0.0.1", 0))
        owner.listen()
        taken = owner.getsockname()[1]
        world = World(installation.site_file(tmp_path), "ws://nowhere")
        used = await world.start_modbus({**dict.fromkeys(installation.MODBUS_NAMES, 0), "battery": taken})
        await world.modbus.stop()

    assert used["battery"] != taken and len(set(used.values())) == 4

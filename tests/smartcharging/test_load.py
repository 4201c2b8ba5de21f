"""Loading a site file: create or update, all or nothing, nothing with a history lost."""

from __future__ import annotations

import io
import json
from datetime import UTC, datetime

import pytest
from django.core.management import CommandError, call_command

from csms import bus
from csms.models import EVSE, ChargingStation, IdToken, Transaction
from meters.live import connection
from meters.models import Device, Site
from smartcharging.load import load, load_site
from smartcharging.models import Circuit, Feed, Tariff, TokenProfile, UserProfile, Vehicle
from smartcharging.sitefile import SiteFileError, parse

pytestmark = pytest.mark.django_db
FILE = """
[site]
name = "Campus"
price_area = "BE"

[tariff]
peak_eur_per_kw_month = 4.5

[[circuit]]
name = "grid"
limit_a = 100
meter = "main"

[[circuit]]
name = "board"
parent = "grid"
limit_a = 80

[[circuit]]
name = "row 1"
parent = "board"
limit_a = [63, 63, 50]

[[device]]
name = "main"
map = "eastron_sdm630"
connect = "tcp://127.0.0.1:1502?unit=1"

[[device]]
name = "roof"
kind = "pv"
circuit = "grid"
peak_w = 30000

[[station]]
identity = "CS-1"
circuit = "row 1"
wiring = ["L2", "L3", "L1"]
evses = 2
password = "first-password-16"

[[station]]
identity = "CS-2"
circuit = "board"
password = "second-password-16"

[[user_profile]]
name = "fleet"
priority = 3
departure = "17:00"
energy_kwh = 25

[[id_token]]
value = "04A1B2C3D4"
profile = "fleet"

[[vehicle]]
name = "van"
id_token = "04A1B2C3D4"
battery_kwh = 60
"""


def changed(old: str, new: str, text: str = FILE) -> str:
    assert old in text
    return text.replace(old, new)


@pytest.fixture(autouse=True)
def quick_hashes(settings):
    """Hashing is slow by design, and not what is tested here."""
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]


@pytest.fixture
def site(db) -> Site:
    return load_site(parse(FILE))


def test_a_file_becomes_a_site(site):
    assert [c.name for c in site.circuits.filter(parent=None)] == ["grid"]
    assert Circuit.objects.get(name="row 1").parent.name == "board"
    assert Circuit.objects.get(name="row 1").limit_a == [63, 63, 50]
    assert Circuit.objects.get(name="grid").meter == Device.objects.get(name="main")
    station = ChargingStation.objects.get(identity="CS-1")
    assert (station.site, station.admission, station.wiring) == (site, "accepted", ["L2", "L3", "L1"])
    assert station.password_is("first-password-16")
    assert not station.password_is("another")
    assert Feed.objects.filter(evse__station=station, circuit__name="row 1").count() == 2
    assert Feed.objects.get(device__name="roof").circuit.name == "grid"
    assert Tariff.objects.get(site=site).peak_eur_per_kw_month == 4.5
    assert TokenProfile.objects.get(id_token__value="04A1B2C3D4").profile.name == "fleet"
    assert Vehicle.objects.get(name="van").battery_wh == 60_000


def test_loading_the_same_file_twice_changes_nothing(site):
    before = ChargingStation.objects.get(identity="CS-1").password_hash
    history = ChargingStation.history.count()

    report = load(parse(FILE))

    assert not any(how in ("created", "updated") for _, how in report.counts)
    assert ChargingStation.objects.get(identity="CS-1").password_hash == before
    assert ChargingStation.history.count() == history
    assert not report.stations
    assert not report.vanished


def test_a_changed_file_updates(site):
    text = changed("limit_a = 80", "limit_a = 70")
    text = changed("first-password-16", "better-password-16", text)
    text = changed('circuit = "board"', 'circuit = "row 1"', text)

    report = load(parse(text))

    assert Circuit.objects.get(name="board").limit_a == [70, 70, 70]
    assert ChargingStation.objects.get(identity="CS-1").password_is("better-password-16")
    assert Feed.objects.get(evse__station__identity="CS-2").circuit.name == "row 1"
    assert report.counts["circuit", "updated"] == 1
    assert report.counts["station", "updated"] == 1


def test_a_password_set_by_an_operator_stays_when_the_file_names_none(site):
    load(parse(changed('password = "second-password-16"\n', "")))

    assert ChargingStation.objects.get(identity="CS-2").password_is("second-password-16")


def test_a_blocked_card_stays_blocked(site):
    IdToken.objects.update(status="blocked")

    load(parse(FILE))

    assert IdToken.objects.get().status == "blocked"


def test_cards_from_elsewhere_are_left_alone(site):
    IdToken.objects.create(site=site, value="FROM-CSV")

    report = load(parse(FILE))

    assert IdToken.objects.filter(value="FROM-CSV", status="accepted").exists()
    assert not report.vanished


def test_a_device_that_vanished_is_disabled_and_unfed_but_kept(site):
    text = changed(FILE[FILE.index('[[device]]\nname = "roof"') : FILE.index('[[station]]\nidentity = "CS-1"')], "")

    report = load(parse(text))

    assert Device.objects.get(name="roof").enabled is False
    assert not Feed.objects.filter(device__name="roof").exists()
    assert report.vanished == ["device roof: disabled; its readings are kept"]


def test_a_station_that_vanished_is_kept_and_said(site):
    station = ChargingStation.objects.get(identity="CS-2")
    Transaction.objects.create(
        station=station, transaction_id="1", started_at=datetime(2026, 1, 1, tzinfo=UTC), evse=station.evses.get()
    )
    text = changed(FILE[FILE.index('[[station]]\nidentity = "CS-2"') : FILE.index("[[user_profile]]")], "")

    report = load(parse(text))

    assert ChargingStation.objects.filter(identity="CS-2").exists()
    assert "station CS-2: not in the file; it is kept as it was" in report.vanished


def test_what_a_vanished_circuit_fed_hangs_on_the_grid_connection(site):
    text = changed(FILE[FILE.index('[[circuit]]\nname = "row 1"') : FILE.index('[[device]]\nname = "main"')], "")
    text = changed(
        text[text.index('[[station]]\nidentity = "CS-1"') : text.index('[[station]]\nidentity = "CS-2"')], "", text
    )

    report = load(parse(text))

    assert not Circuit.objects.filter(name="row 1").exists()
    assert set(Feed.objects.filter(evse__station__identity="CS-1").values_list("circuit__name", flat=True)) == {"grid"}
    assert "circuit row 1: removed; what it fed (2) now hangs on grid" in report.vanished


def test_a_renamed_grid_connection_keeps_its_record(site):
    root = Circuit.objects.get(parent=None)
    text = changed('name = "grid"', 'name = "transformer"')
    text = changed('parent = "grid"', 'parent = "transformer"', text)
    text = changed('circuit = "grid"', 'circuit = "transformer"', text)

    load(parse(text))

    assert Circuit.objects.get(parent=None).pk == root.pk
    assert Circuit.objects.get(parent=None).name == "transformer"


def test_a_tree_turned_upside_down_is_loaded(site):
    text = FILE.replace('name = "grid"\n', 'name = "grid"\nparent = "board"\n')
    text = changed('name = "board"\nparent = "grid"', 'name = "board"', text)

    load(parse(text))

    assert Circuit.objects.get(parent=None).name == "board"
    assert Circuit.objects.get(name="grid").parent.name == "board"


def test_a_new_circuit_above_the_old_grid_connection_is_loaded(site):
    text = FILE.replace('name = "grid"\n', 'name = "grid"\nparent = "street"\n')
    text += '\n[[circuit]]\nname = "street"\nlimit_a = 200\n'

    load(parse(text))

    assert Circuit.objects.get(parent=None).name == "street"


def test_a_station_of_another_site_is_refused_and_nothing_is_changed(site):
    text = changed('name = "Campus"', 'name = "Elsewhere"')

    with pytest.raises(SiteFileError) as caught:
        load(parse(text))

    assert '[[station]] "CS-1", identity: belongs to the site Campus' in str(caught.value)
    assert not Site.objects.filter(name="Elsewhere").exists()


def test_a_station_from_quarantine_is_taken_in(db):
    waiting = ChargingStation.objects.create(identity="CS-1", vendor="ACME")
    EVSE.objects.create(station=waiting, number=3)

    report = load(parse(FILE))

    waiting.refresh_from_db()
    assert (waiting.site, waiting.admission, waiting.vendor) == (report.site, "accepted", "ACME")
    assert Feed.objects.filter(evse__station=waiting).count() == 3  # none of its EVSEs stands outside the tree
    assert any("has EVSE 3 besides the 2 of the file" in w for w in report.warnings)


def test_fail_safe_currents_above_a_circuit_are_warned_of(db):
    report = load(parse(changed("limit_a = [63, 63, 50]", "limit_a = [63, 63, 11]")))

    assert any("circuit row 1: the fail-safe currents below it come to 12 A on L3" in w for w in report.warnings)


def test_missing_passwords_and_a_missing_meter_are_warned_of(db):
    text = changed('password = "second-password-16"\n', "")

    report = load(parse(changed('meter = "main"\n', "", text)))

    assert any("CS-2 has no password" in w for w in report.warnings)
    assert any("the grid connection has no meter" in w for w in report.warnings)


def test_a_dry_run_changes_nothing(db):
    report = load(parse(FILE), dry_run=True)

    assert report.counts["station", "created"] == 2
    assert not Site.objects.exists()


@pytest.mark.django_db(transaction=True)
def test_gateways_hear_of_changed_stations_and_a_plan_is_asked_for():
    listener = connection().pubsub(ignore_subscribe_messages=True)
    listener.subscribe(bus.CHANGED_CHANNEL)
    listener.get_message(timeout=1)

    load_site(parse(FILE))

    heard = []
    while message := listener.get_message(timeout=0.3):
        heard.append(json.loads(message["data"])["kind"])
    assert sorted(heard) == ["station", "station", "token"]
    assert connection().llen("slow") == 1


def test_the_command_loads_a_file(db, tmp_path):
    path = tmp_path / "site.toml"
    path.write_text(FILE)
    out = io.StringIO()

    call_command("load_site", str(path), stdout=out)

    assert "station: 2 created" in out.getvalue()
    assert Site.objects.filter(name="Campus").exists()


def test_the_command_checks_without_changing(db, tmp_path):
    path = tmp_path / "site.toml"
    path.write_text(FILE)
    out = io.StringIO()

    call_command("load_site", str(path), "--check", stdout=out)

    assert "nothing was changed" in out.getvalue()
    assert not Site.objects.exists()


def test_the_command_lists_every_problem_and_fails(db, tmp_path):
    path = tmp_path / "site.toml"
    path.write_text(changed("limit_a = 80", 'limit_a = "eighty"').replace("priority = 3", "priority = 30"))
    err = io.StringIO()

    with pytest.raises(CommandError, match="2 problems; nothing was changed"):
        call_command("load_site", str(path), stderr=err)

    assert '[[circuit]] "board", limit_a' in err.getvalue()
    assert '[[user_profile]] "fleet", priority' in err.getvalue()


def test_a_file_that_is_not_there_is_one_clear_line(tmp_path):
    with pytest.raises(CommandError, match="No such file"):
        call_command("load_site", str(tmp_path / "none.toml"))


def test_profiles_of_the_file_are_updated(site):
    load(parse(changed("energy_kwh = 25", "energy_kwh = 30")))

    assert UserProfile.objects.get(name="fleet").energy_wh == 30_000

"""A site's report: days on the site's clock, sums that close, unknown that stays unknown."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

import pytest

from csms.models import ChargingStation, IdToken, MeterSample, Transaction
from meters.models import Device, QuarterHour, Site
from smartcharging.models import Circuit, Price, Tariff
from smartcharging.report import ReportRangeError, day_start, report

pytestmark = pytest.mark.django_db

SLOT = timedelta(minutes=15)
DAY = date(2026, 6, 10)  # past, whatever the clock says


@pytest.fixture
def site() -> Site:
    site = Site.objects.create(name="Campus", timezone="Europe/Brussels", price_area="BE")
    meter = Device.objects.create(site=site, name="main", kind="meter")
    Circuit.objects.create(site=site, name="grid", limit_a=[100, 100, 100], meter=meter)
    return site


def device(site: Site, name: str, kind: str) -> Device:
    return Device.objects.create(site=site, name=name, kind=kind)


def quarters(device: Device, start: datetime, *watts: float | None) -> None:
    for n, w in enumerate(watts):
        wh = None if w is None else w / 4
        QuarterHour.objects.create(
            device=device,
            slot=start + n * SLOT,
            mean_w=w,
            import_wh=None if wh is None else max(wh, 0),
            export_wh=None if wh is None else max(-wh, 0),
        )


def main(site: Site) -> Device:
    return site.devices.get(name="main")


def charge(site: Site, start: datetime, end: datetime | None, wh: float, identity: str = "CS-1", **more) -> Transaction:
    station, _ = ChargingStation.objects.get_or_create(identity=identity, defaults={"site": site})
    return Transaction.objects.create(
        transaction_id=f"{start:%d%H%M}", station=station, started_at=start, ended_at=end, energy_wh=wh, **more
    )


def test_a_day_begins_and_ends_at_midnight_on_the_sites_clock(site):
    midnight = day_start(site, DAY)
    quarters(main(site), midnight - SLOT, 4000, 1000, 1000)
    quarters(main(site), midnight + timedelta(hours=24) - SLOT, 1000, 8000)

    numbers = report(site, DAY, DAY)

    assert midnight == datetime(2026, 6, 9, 22, tzinfo=UTC)
    assert numbers["energy_wh"]["grid_import"] == pytest.approx(750)
    assert numbers["peak"]["power_w"] == 1000


@pytest.mark.parametrize(("day", "slots"), [("2026-03-29", 92), ("2026-06-10", 96), ("2026-10-25", 100)])
def test_a_day_has_the_quarters_its_clock_gives_it(site, day, slots):
    day = date.fromisoformat(day)
    quarters(main(site), day_start(site, day - timedelta(days=1)), *[400.0] * 300)

    numbers = report(site, day, day)

    assert numbers["energy_wh"]["grid_import"] == pytest.approx(slots * 100)


def test_the_balance_closes(site):
    start = day_start(site, DAY) + timedelta(hours=10)
    quarters(main(site), start, -2000, 6000)
    quarters(device(site, "roof", "pv"), start, -12000, -8000)
    quarters(device(site, "cellar", "battery"), start, 4000, -2000)
    charge(site, start, start + timedelta(minutes=30), 1500)

    wh = report(site, DAY, DAY)["energy_wh"]

    assert wh["grid_import"] == 1500
    assert wh["grid_export"] == 500
    assert wh["pv"] == 5000
    assert (wh["battery_charged"], wh["battery_discharged"]) == (1000, 500)
    taken = wh["grid_import"] + wh["pv"] + wh["battery_discharged"]
    used = wh["grid_export"] + wh["battery_charged"] + wh["charging"] + wh["building"]
    assert taken == pytest.approx(used)


def test_self_consumption_is_what_did_not_go_back(site):
    start = day_start(site, DAY) + timedelta(hours=10)
    quarters(main(site), start, -2000, 6000)
    quarters(device(site, "roof", "pv"), start, -12000, -8000)

    numbers = report(site, DAY, DAY)

    assert numbers["self_consumption"] == pytest.approx(0.9)
    assert numbers["self_sufficiency"] == pytest.approx(1 - 1500 / 6000)


def test_what_was_never_measured_is_unknown_and_not_zero(site):
    device(site, "roof", "pv")
    quarters(main(site), day_start(site, DAY), 1000)

    numbers = report(site, DAY, DAY)

    assert numbers["energy_wh"]["pv"] is None
    assert numbers["energy_wh"]["building"] is None
    assert numbers["self_consumption"] is None
    assert numbers["has"] == {"pv": True, "battery": False, "load": False}


def test_an_empty_site_has_a_report(site):
    numbers = report(site, DAY, DAY)

    assert numbers["energy_wh"]["grid_import"] is None
    assert numbers["peak"] is None
    assert numbers["cost_eur"]["energy"] is None
    assert numbers["stations"] == []
    assert numbers["days"][0]["day"] == "2026-06-10"


def test_a_quarter_without_a_register_counts_its_mean_power(site):
    QuarterHour.objects.create(device=main(site), slot=day_start(site, DAY), mean_w=-800)
    assert report(site, DAY, DAY)["energy_wh"]["grid_export"] == 200


def test_energy_is_paid_by_the_quarter_with_the_sites_tariff(site):
    Tariff.objects.create(
        site=site, import_adder_eur_per_kwh=0.1, export_factor=0.5, export_adder_eur_per_kwh=0, peak_eur_per_kw_month=4
    )
    start = day_start(site, DAY)
    Price.objects.create(area="BE", start=start, minutes=60, eur_per_mwh=100)
    Price.objects.create(area="BE", start=start + SLOT, minutes=15, eur_per_mwh=300)
    quarters(main(site), start, 4000, 4000, -4000)

    cost = report(site, DAY, DAY)["cost_eur"]

    assert cost["import"] == pytest.approx(1 * 0.2 + 1 * 0.4)
    assert cost["export"] == pytest.approx(0.05)
    assert cost["energy"] == pytest.approx(0.55)
    assert cost["peak_per_month"] == pytest.approx(16)


def test_a_charge_over_midnight_is_shared_by_its_registers(site):
    midnight = day_start(site, DAY + timedelta(days=1))
    night = charge(site, midnight - timedelta(hours=2), midnight + timedelta(hours=2), 10_000, meter_start_wh=500)
    evse = night.station.evses.create(number=1)
    MeterSample.objects.create(evse=evse, transaction=night, at=midnight, energy_wh=8_500)

    numbers = report(site, DAY, DAY + timedelta(days=1))

    assert [d["charging"] for d in numbers["days"]] == [8_000, 2_000]
    assert numbers["sessions"] == 1


def test_a_charge_without_registers_is_shared_by_time(site):
    midnight = day_start(site, DAY + timedelta(days=1))
    charge(site, midnight - timedelta(hours=1), midnight + timedelta(hours=3), 8_000)

    assert report(site, DAY, DAY)["stations"][0]["energy_wh"] == pytest.approx(2_000)


def test_stations_and_users_are_listed_with_the_largest_first(site, django_user_model):
    start = day_start(site, DAY) + timedelta(hours=8)
    anna = django_user_model.objects.create_user("anna", first_name="Anna", last_name="Peeters")
    token = IdToken.objects.create(site=site, value="04AA", driver=anna)
    charge(site, start, start + timedelta(hours=1), 2_000, "CS-1", id_token=token, id_token_value="04AA")
    charge(site, start + SLOT, start + timedelta(hours=1), 9_000, "CS-2", id_token_value="GONE")

    numbers = report(site, DAY, DAY)

    assert [(r["station"], r["sessions"]) for r in numbers["stations"]] == [("CS-2", 1), ("CS-1", 1)]
    assert [(r["id_token"], r["driver"]) for r in numbers["users"]] == [("GONE", ""), ("04AA", "Anna Peeters")]


def test_other_sites_stay_outside(site):
    other = Site.objects.create(name="Other")
    charge(other, day_start(site, DAY), day_start(site, DAY) + SLOT, 1_000, "CS-9")
    quarters(device(other, "main", "meter"), day_start(site, DAY), 9_000)

    numbers = report(site, DAY, DAY)

    assert numbers["stations"] == []
    assert numbers["energy_wh"]["grid_import"] is None


def test_coverage_tells_how_much_of_the_time_was_measured(site):
    quarters(main(site), day_start(site, DAY), *[100.0] * 24)
    assert report(site, DAY, DAY)["coverage"] == 0.25


@pytest.mark.parametrize(("first", "last"), [((2026, 6, 2), (2026, 6, 1)), ((2020, 1, 1), (2026, 1, 1))])
def test_days_that_make_no_report_are_refused_with_the_reason(site, first, last):
    with pytest.raises(ReportRangeError) as refused:
        report(site, date(*first), date(*last))
    assert str(refused.value)

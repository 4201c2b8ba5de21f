"""The memory of the devices: which readings are kept, and what a quarter hour is made of."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from django.db import DatabaseError
from hypothesis import given, settings
from hypothesis import strategies as st

from meters import history
from meters.history import Recorder, Sample, summarize
from meters.measurement import Measurement, Quality
from meters.models import Device, QuarterHour, Reading, Site

SLOT = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


def at(seconds):
    return SLOT + timedelta(seconds=seconds)


def sample(seconds, power=None, taken=None, given=None, soc=None):
    return Sample(at(seconds), power, taken, given, soc)


@pytest.fixture
def device(db):
    site = Site.objects.create(name="Campus Noord")
    return Device.objects.create(site=site, name="main")


def stored(device, start, count, *, every_s=10, power_w=1000.0, energy=None, **values):
    """Readings at regular distance, with a counter that fits the power unless told otherwise."""
    rows = []
    for i in range(count):
        values["energy_import_wh"] = 5000 + i * every_s * power_w / 3600 if energy is None else energy(i)
        rows.append(
            Reading(device=device, at=start + timedelta(seconds=i * every_s), power_w=power_w, values=dict(values))
        )
    Reading.objects.bulk_create(rows)


def test_a_steady_quarter_is_complete_and_its_counter_is_believed():
    quarter = summarize([sample(s, 1200, 1000 + s * 1200 / 3600, 0) for s in range(-30, 931, 10)], SLOT)

    assert quarter is not None
    assert (quarter.mean_w, quarter.min_w, quarter.max_w) == (1200, 1200, 1200)
    assert quarter.import_wh == pytest.approx(300)
    assert quarter.export_wh == 0
    assert (quarter.samples, quarter.complete) == (90, True)


def test_the_mean_is_over_time_and_not_over_readings():
    often = [sample(s, 0) for s in range(0, 450, 10)]
    seldom = [sample(s, 4000) for s in range(450, 900, 60)]

    quarter = summarize(often + seldom, SLOT)

    assert quarter is not None and quarter.mean_w == pytest.approx(2000)


def test_import_and_export_in_one_quarter_are_not_netted():
    quarter = summarize([sample(s, 4000 if s < 450 else -2000) for s in range(0, 900, 10)], SLOT)

    assert quarter is not None
    assert quarter.mean_w == pytest.approx(1000)
    assert (quarter.import_wh, quarter.export_wh) == (pytest.approx(500), pytest.approx(250))
    assert (quarter.min_w, quarter.max_w) == (-2000, 4000)


def test_a_gap_makes_a_quarter_incomplete_and_the_counter_tells_what_was_missed():
    seen = [sample(s, 1000, 1000 + s / 3.6) for s in (*range(-20, 200, 10), *range(700, 920, 10))]

    quarter = summarize(seen, SLOT)

    assert quarter is not None and not quarter.complete
    assert quarter.import_wh == pytest.approx(250, abs=1)


@pytest.mark.parametrize(
    "counter",
    [
        lambda s: 5000 - s,  # runs backwards
        lambda s: 5000 + (1000 if s > 400 else 0),  # whole kWh
        lambda s: 5000 if s < 400 else 9_000_000,  # jumps
        lambda s: None,
    ],
)
def test_a_counter_that_cannot_be_true_gives_way_to_the_mean_power(counter):
    quarter = summarize([sample(s, 1000, counter(s)) for s in range(-30, 931, 10)], SLOT)

    assert quarter is not None and quarter.import_wh == pytest.approx(250)


def test_unknown_is_not_zero():
    assert summarize([], SLOT) is None
    assert summarize([sample(-600, 1000), sample(1000, 1000)], SLOT) is None

    quarter = summarize([sample(s, None, soc=0.5) for s in range(0, 900, 60)], SLOT)
    assert quarter is not None
    assert (quarter.mean_w, quarter.import_wh, quarter.export_wh) == (None, None, None)
    assert (quarter.soc, quarter.samples, quarter.complete) == (0.5, 15, False)


def test_a_reading_speaks_for_ninety_seconds_at_most():
    quarter = summarize([sample(0, 3600)], SLOT)

    assert quarter is not None and not quarter.complete
    assert quarter.mean_w == 3600
    assert quarter.import_wh == pytest.approx(90)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(-200, 1100), st.floats(-5e4, 5e4)), min_size=1, max_size=60))
def test_a_quarter_s_mean_is_never_outside_its_readings_and_its_energy_fits(readings):
    quarter = summarize([sample(s, p) for s, p in readings], SLOT)

    if quarter is not None and quarter.mean_w is not None:
        powers = [p for _, p in readings]
        assert min(powers) - 1e-6 <= quarter.mean_w <= max(powers) + 1e-6
        assert quarter.import_wh is not None and quarter.export_wh is not None
        net = quarter.import_wh - quarter.export_wh
        assert abs(net) <= abs(quarter.mean_w) * 0.25 + 1e-6


def test_rolling_up_makes_the_finished_quarters_and_doing_it_twice_changes_nothing(device):
    stored(device, SLOT, 270)  # 45 minutes

    assert history.roll_up(at(2400)) == 2
    first = list(QuarterHour.objects.values())
    history.roll_up(at(2400))

    assert [q["slot"] for q in first] == [SLOT, at(900)]
    assert list(QuarterHour.objects.values()) == first
    assert first[0]["complete"] and first[0]["import_wh"] == pytest.approx(250, abs=3)
    history.roll_up(at(2700))
    assert QuarterHour.objects.count() == 3


def test_readings_that_come_late_still_count(device):
    stored(device, SLOT, 45)
    history.roll_up(at(950))
    assert not QuarterHour.objects.get().complete

    stored(device, at(450), 45)
    history.roll_up(at(1000))

    assert QuarterHour.objects.get().complete
    assert QuarterHour.objects.get().samples == 90


def test_doubtful_readings_are_kept_but_not_counted(device):
    stored(device, SLOT, 45)
    stored(device, at(450), 45, power_w=9_000_000.0, quality=str(Quality.SUSPECT))

    history.roll_up(at(900))

    assert QuarterHour.objects.get().max_w == 1000
    assert Reading.objects.count() == 90
    assert len(history.series(device, SLOT, at(900))) == 45


@pytest.mark.parametrize(
    ("day", "quarters"),
    [((2026, 3, 29), 92), ((2026, 10, 25), 100), ((2026, 6, 1), 96)],
)
def test_a_local_day_has_92_96_or_100_quarters(device, day, quarters):
    brussels = ZoneInfo("Europe/Brussels")
    start = datetime(*day, tzinfo=brussels).astimezone(UTC)
    end = (datetime(*day, tzinfo=brussels) + timedelta(days=1)).astimezone(UTC)
    minutes = int((end - start).total_seconds() // 60)
    stored(device, start, minutes, every_s=60)

    history.roll_up(end + timedelta(minutes=1))

    found = history.quarter_values(device, start, end)
    assert len(found) == quarters
    assert all(q.complete for q in found)
    assert sum(q.import_wh or 0 for q in found) == pytest.approx(minutes / 60 * 1000, rel=0.01)


def test_a_chart_of_a_day_shows_readings_and_a_longer_one_quarters(device):
    stored(device, SLOT, 180)
    history.roll_up(at(1800))

    assert len(history.series(device, SLOT, at(86_400))) == 180
    longer = history.series(device.pk, SLOT, at(86_401))
    assert [(p.at, p.power_w) for p in longer] == [(SLOT, pytest.approx(1000)), (at(900), pytest.approx(1000))]


def test_the_running_quarter_counts_only_up_to_now(device):
    stored(device, SLOT, 61, power_w=3600.0)

    quarter = history.quarter_so_far(device, at(600))

    assert quarter is not None
    assert quarter.import_wh == pytest.approx(600, abs=11)
    assert history.quarter_so_far(device, at(9000)) is None


def test_old_readings_are_tidied_away_and_quarters_stay(device, settings):
    settings.READING_KEEP_DAYS = 14
    stored(device, SLOT, 90)
    history.roll_up(at(900))
    stored(device, SLOT + timedelta(days=14), 10)

    assert history.tidy(SLOT + timedelta(days=14, seconds=450)) == 45
    assert history.tidy(SLOT + timedelta(days=15)) == 45

    assert Reading.objects.count() == 10
    assert QuarterHour.objects.count() == 1


def test_a_recorder_keeps_what_changes_and_now_and_then_what_does_not():
    now = [0.0]
    recorder = Recorder(clock=lambda: now[0])

    def kept(seconds, power, **more):
        now[0] = float(seconds)
        return recorder.keep(1, Measurement(at=at(seconds), power_w=power, **more))

    assert kept(0, 1000)
    assert not kept(5, 9000)
    assert kept(10, 9000)
    assert not kept(20, 9003)
    assert not kept(69, 9003)
    assert kept(70, 9003)
    assert kept(80, 9003, state="alarm")
    assert kept(90, None)


def test_a_recorder_forgets_nothing_when_the_database_fails(device, monkeypatch):
    recorder = Recorder(clock=lambda: 0.0)
    recorder.keep(device.pk, Measurement(at=SLOT, power_w=1.0))
    recorder.keep(device.pk + 999, Measurement(at=SLOT, power_w=1.0))

    def broken(*args, **kwargs):
        raise DatabaseError("gone")

    with monkeypatch.context() as away:
        away.setattr(Reading.objects, "bulk_create", broken)
        with pytest.raises(DatabaseError):
            recorder.flush()
    recorder.flush()

    assert [r.power_w for r in Reading.objects.all()] == [1.0]  # that of the deleted device is let go


@pytest.mark.django_db(transaction=True)
def test_a_recorder_writes_by_itself_and_writes_the_rest_when_it_stops():
    device = Device.objects.create(site=Site.objects.create(name="Campus Noord"), name="main")
    now = [0.0]
    recorder = Recorder(clock=lambda: now[0], every_s=0.05)
    recorder.start()
    for i in range(20):
        now[0] += 10
        recorder.keep(device.pk, Measurement(at=at(10 * i), power_w=100.0 * i, energy_import_wh=float(i)))
    recorder.stop()

    rows = list(Reading.objects.order_by("at"))
    assert [r.power_w for r in rows] == [100.0 * i for i in range(20)]
    assert rows[3].values == {"power_w": 300.0, "energy_import_wh": 3.0, "quality": "good"}

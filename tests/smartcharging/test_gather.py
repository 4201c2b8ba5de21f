"""Gathering: the site as the engine is told of it, with ages judged and nothing invented."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta

import pytest
from django.db import connection as database
from django.test.utils import CaptureQueriesContext

from csms.limits import want_limit
from csms.models import EVSE, ChargingStation, IdToken, WantedLimit
from csms.obedience_models import StationModel
from meters.live import connection
from meters.measurement import Quality
from meters.models import Device, Reading, Site
from smartcharging import dispatch, goals
from smartcharging.engine.limits import Rank
from smartcharging.engine.live.allocate import allocate
from smartcharging.engine.snapshot import Mode
from smartcharging.gather import SiteNotReady, look, snapshot
from smartcharging.models import (
    Feed,
    GridCommand,
    Plan,
    TokenProfile,
    UserProfile,
    Vehicle,
)
from smartcharging.remember import keep
from tests.smartcharging.worlds import CAMPUS, World

pytestmark = pytest.mark.django_db
NOW = datetime(2026, 3, 10, 9, 7, tzinfo=UTC)


@pytest.fixture
def world(db) -> World:
    world = World.campus(NOW)
    world.quiet_day()
    return world


def session(world: World, identity: str):
    return next(s for s in snapshot(world.site, NOW).sessions if s.key == world.key(identity))


def test_the_snapshot_has_the_tree_the_readings_and_the_places(world):
    seen = snapshot(world.site, NOW)

    assert [c.name for c in seen.grid.circuits] == ["grid", "row 1"]
    assert seen.readings[0].current_a == (10, 10, 10)
    assert {s.key for s in seen.sessions} == {str(e.pk) for e in EVSE.objects.all()}
    assert session(world, "CS-1").node == 1
    assert session(world, "HPC-1").dc
    assert session(world, "HPC-1").max_w == 50_000
    assert seen.batteries[0].soc == 0.5
    assert seen.pv_w == 0


def test_a_circuit_brings_its_worst_load_and_its_imbalance_limit(db):
    text = CAMPUS.replace("limit_a = 63\n", "limit_a = 63\nworst_a = [10, 8, 0]\nimbalance_a = 20\n")

    circuit = snapshot(World.campus(NOW, text).site, NOW).grid.circuits[1]

    assert (circuit.worst_a, circuit.imbalance_a) == ((10, 8, 0), 20)


def test_what_the_last_balance_asked_to_be_told_again_is_told(world):
    view = look(world.site, NOW)
    answer = allocate(view.snapshot)

    dispatch.apply(view, answer)

    told = snapshot(world.site, NOW).carried
    assert told is not None
    assert told.keys == answer.carried.keys
    assert told.other_a[0].tolist() == answer.carried.other_a[0].tolist()


def test_what_cannot_be_read_of_the_last_balance_is_forgotten(world):
    connection().set(f"carried:{world.site.pk}", '{"at": 1}')

    assert snapshot(world.site, NOW).carried is None


def test_a_stale_meter_is_absent_not_zero(world):
    world.meter(10, ago_s=6)

    assert snapshot(world.site, NOW).readings[0].current_a is None


def test_a_meter_never_heard_of_is_absent(db):
    seen = snapshot(World.campus(NOW).site, NOW)

    assert seen.readings[0].current_a is None
    assert seen.pv_w is None
    assert seen.batteries[0].soc is None


def test_a_suspect_measurement_never_protects(world):
    world.measure("main", current_a=(1.0, 1.0, 1.0), quality=Quality.SUSPECT)

    assert snapshot(world.site, NOW).readings[0].current_a is None


def test_a_phase_that_is_not_known_makes_the_reading_unknown(world):
    world.measure("main", current_a=(1.0, None, 1.0))

    assert snapshot(world.site, NOW).readings[0].current_a is None


def test_a_meter_wired_to_one_phase_knows_that_the_others_carry_nothing(world):
    Device.objects.filter(name="main").update(wiring=["L2"])
    world.measure("main", current_a=(None, 4.0, None))

    assert snapshot(world.site, NOW).readings[0].current_a == (0, 4, 0)


def test_a_disabled_meter_is_absent(world):
    Device.objects.filter(name="main").update(enabled=False)

    assert snapshot(world.site, NOW).readings[0].current_a is None


def test_a_car_brings_its_goal_and_what_is_left_of_it(world):
    charge = world.car("CS-1", energy_wh=4000)
    goals.set_goal(
        site=world.site,
        transaction=charge,
        departure=NOW + timedelta(hours=3),
        energy_wh=10_000,
        mode="fast",
        priority=4,
        source="driver",
        now=NOW,
    )

    car = session(world, "CS-1")

    assert car.wants
    assert car.energy_needed_wh == 6000
    assert car.departure == NOW + timedelta(hours=3)
    assert car.mode is Mode.FAST
    assert car.priority == 1 + 4
    assert session(world, "CS-2").priority == 3 + 1


def test_the_profile_behind_a_card_gives_the_rank_even_before_there_is_a_goal(world):
    card = IdToken.objects.create(site=world.site, value="A")
    profile = UserProfile.objects.create(site=world.site, name="boss", priority=7)
    TokenProfile.objects.create(id_token=card, profile=profile)
    world.car("CS-1", id_token=card)

    assert session(world, "CS-1").priority == 1 + 7


def test_a_free_place_wants_nothing(world):
    assert not session(world, "CS-1").wants


@pytest.mark.parametrize(
    ("change", "wants"),
    [
        ({"status": "Charging"}, True),
        ({"status": "SuspendedEVSE"}, True),
        ({"status": "SuspendedEV", "status_at": NOW - timedelta(seconds=30)}, True),
        ({"status": "SuspendedEV", "status_at": NOW - timedelta(seconds=90)}, False),
        ({"status": "Occupied", "charging_state": "SuspendedEV", "status_at": NOW - timedelta(seconds=90)}, False),
        ({"status": "Faulted"}, False),
        ({"status": "Unavailable"}, False),
        ({"status": "Charging", "available": False}, False),
    ],
)
def test_a_car_wants_energy_unless_it_has_stopped_by_itself(world, change, wants):
    world.car("CS-1", offered_a=16)
    EVSE.objects.filter(pk=world.evse("CS-1").pk).update(**change)

    assert session(world, "CS-1").wants is wants


def test_a_car_that_is_offered_nothing_cannot_have_had_enough(world):
    world.car("CS-1", offered_a=0)
    EVSE.objects.filter(pk=world.evse("CS-1").pk).update(status="SuspendedEV", status_at=NOW - timedelta(hours=1))

    assert session(world, "CS-1").wants


def test_a_transaction_that_was_refused_gets_nothing(world):
    world.car("CS-1", authorized=False)

    assert not session(world, "CS-1").wants


def test_a_station_nobody_holds_is_out_of_reach(world):
    world.disconnect("CS-1")

    assert not session(world, "CS-1").reachable
    assert session(world, "CS-2").reachable


def test_a_quiet_station_is_counted_at_all_it_can_take(world):
    ChargingStation.objects.filter(identity="CS-1").update(quiet=True)

    quiet = session(world, "CS-1")

    assert not quiet.reachable
    assert quiet.fail_safe_a == 32


def test_a_quarantined_station_is_not_there(world):
    ChargingStation.objects.filter(identity="CS-1").update(admission="quarantined")

    assert len(snapshot(world.site, NOW).sessions) == 2


def test_an_evse_without_a_circuit_is_counted_at_the_grid_connection(world):
    Feed.objects.filter(evse=world.evse("CS-1")).delete()

    assert session(world, "CS-1").node == 0


def test_the_accepted_limit_is_what_the_station_stands_by(world):
    world.car("CS-1", offered_a=16)

    car = session(world, "CS-1")

    assert car.offered_a == 16
    assert car.lease_until == NOW + timedelta(seconds=180)


def test_watts_of_a_dc_station_are_amps_at_its_input(world):
    world.car("HPC-1", offered_a=50)

    assert session(world, "HPC-1").offered_a == pytest.approx(50)


def test_a_limit_that_was_sent_and_not_answered_may_have_been_taken(world):
    world.car("CS-1", offered_a=10)
    WantedLimit.objects.update(state="failed", wanted_a=20)

    assert session(world, "CS-1").offered_a == 20


def test_a_limit_of_the_transaction_before_is_not_this_ones(world):
    world.offer("CS-1", 32, ago_s=7200)
    world.car("CS-1")

    assert session(world, "CS-1").offered_a is None


def test_the_limit_before_the_present_one_is_remembered(world):
    world.car("CS-1", offered_a=32)
    keep(world.site.pk, look(world.site, NOW).memories)
    world.offer("CS-1", 10, ago_s=1)

    car = session(world, "CS-1")

    assert (car.offered_a, car.offered_before_a) == (10, 32)
    assert car.offered_since == NOW - timedelta(seconds=1)
    assert car.on_since == NOW - timedelta(seconds=120)  # it was on all the while


def test_a_car_that_waits_for_its_first_amps_was_never_paused(world):
    world.offer("CS-1", 0, ago_s=60)
    keep(world.site.pk, look(world.site, NOW).memories)
    world.car("CS-1", started_at=NOW - timedelta(seconds=5))
    keep(world.site.pk, look(world.site, NOW).memories)
    world.offer("CS-1", 0, ago_s=1)

    car = session(world, "CS-1")

    assert (car.offered_a, car.on_since, car.off_since) == (0, None, None)


def test_a_car_that_was_on_and_is_offered_nothing_was_paused_then(world):
    world.car("CS-1", offered_a=10)
    keep(world.site.pk, look(world.site, NOW).memories)
    world.offer("CS-1", 0, ago_s=1)

    car = session(world, "CS-1")

    assert (car.on_since, car.off_since) == (None, NOW - timedelta(seconds=1))


def test_rotated_wiring_and_the_cars_record_give_its_phases(world):
    card = IdToken.objects.create(site=world.site, value="A")
    Vehicle.objects.create(site=world.site, name="small", id_token=card, phases=1, max_a=16)
    world.car("CS-2", id_token=card)

    car = session(world, "CS-2")

    assert car.phases == (False, True, False)  # its only phase is the station's L1, on the grid's L2
    assert car.max_a == 16


def test_which_phases_a_car_uses_is_learnt_and_forgotten_in_a_pause(world):
    world.car("CS-1", offered_a=16)
    later = NOW
    for step in range(3):
        later = NOW + timedelta(seconds=10 * step)
        world.now = later
        world.quiet_day()
        world.draws("CS-1", (0.1, 15.0, 14.5))
        seen = look(world.site, later)
        keep(world.site.pk, seen.memories)
    car = next(s for s in seen.snapshot.sessions if s.key == world.key("CS-1"))
    assert car.phases == (False, True, True)

    world.draws("CS-1", (0.0, 0.0, 0.0))
    car = next(s for s in snapshot(world.site, later).sessions if s.key == world.key("CS-1"))
    assert car.phases == (True, True, True)


def test_the_meter_shows_the_phases_of_a_car_whose_station_does_not(world):
    world.car("CS-1")
    world.car("CS-2", offered_a=0)
    key = world.key("CS-1")

    def lives(amps: float, moments: int = 1):
        for _ in range(moments):
            world.now += timedelta(seconds=20)
            world.quiet_day(0)
            world.offer("CS-1", amps, ago_s=20)
            world.meter((30.0, 30.0 + amps, 30.0))  # it is on L2 alone
            seen = look(world.site, world.now)
            keep(world.site.pk, seen.memories)
        return next(s for s in seen.snapshot.sessions if s.key == key)

    assert lives(6, moments=7).phases == (True, True, True)
    assert lives(16).phases == (True, True, True)
    assert lives(8).phases == (False, True, False)

    # Its neighbour moves at the same time: what the meter shows is not its own doing.
    world.offer("CS-2", 16, ago_s=-15)
    lives(14)
    steps = look(world.site, world.now).memories[int(key)].steps
    assert steps.steps == 2


def test_what_was_accepted_for_whoever_comes_may_still_hold(world):
    world.offer("CS-1", 16, ago_s=60)
    world.car("CS-1", started_at=NOW - timedelta(seconds=30))
    world.offer("CS-2", 0, ago_s=60)
    world.car("CS-2", started_at=NOW - timedelta(seconds=30))

    assert session(world, "CS-1").offered_a == 16
    assert session(world, "CS-2").offered_a == 6  # or the fail-safe, if what was for nobody has died


def test_a_limit_by_hand_narrows_its_evse_until_it_ends(world):
    want_limit(world.evse("CS-1"), amps=8, reason="cable is warm", lease_s=600)

    (hand,) = snapshot(world.site, datetime.now(UTC)).narrowings

    assert (hand.rank, hand.session, hand.limit_a, hand.reason) == (
        Rank.WISH,
        world.key("CS-1"),
        8,
        "cable is warm",
    )
    assert not snapshot(world.site, datetime.now(UTC) + timedelta(seconds=601)).narrowings


def test_an_old_measurement_of_a_car_is_absent(world):
    world.car("CS-1")
    world.draws("CS-1", (16.0, 16.0, 16.0), ago_s=120)

    assert session(world, "CS-1").measured_a is None


def test_grid_commands_in_force_narrow_the_connection(world):
    GridCommand.objects.create(
        site=world.site, import_limit_w=20_000, starts_at=NOW - timedelta(minutes=1), reason="congestion"
    )
    GridCommand.objects.create(site=world.site, import_limit_w=1, starts_at=NOW + timedelta(minutes=1), reason="later")
    GridCommand.objects.create(
        site=world.site,
        import_limit_w=1,
        starts_at=NOW - timedelta(hours=1),
        ends_at=NOW - timedelta(minutes=1),
        reason="over",
    )

    (order,) = snapshot(world.site, NOW).narrowings

    assert (order.rank, order.node, order.limit_w) == (Rank.GRID_OPERATOR, 0, 20_000)


@pytest.mark.parametrize(("state", "fire"), [("ok", False), ("alarm", True), (None, True)])
def test_a_fire_contact_that_is_open_or_silent_stops_what_hangs_below_it(world, state, fire):
    alarm = Device.objects.create(site=world.site, name="fire", kind="alarm")
    Feed.objects.create(circuit=world.node("row 1"), device=alarm)
    if state is not None:
        world.measure("fire", state=state)

    found = snapshot(world.site, NOW).narrowings

    assert bool(found) is fire
    if fire:
        assert (found[0].rank, found[0].node, found[0].limit_a) == (Rank.FIRE, 1, 0)


def test_the_present_slot_of_the_plan_counts_for_the_car_it_was_made_for(world):
    charge = world.car("CS-1")
    key = world.key("CS-1")
    Plan.objects.create(
        site=world.site,
        made_at=NOW - timedelta(minutes=10),
        starts_at=NOW - timedelta(minutes=22),
        valid_until=NOW + timedelta(minutes=20),
        status="optimal",
        result={
            "evse": {key: [1000, 7000, 2000]},
            "transactions": {key: charge.pk},
            "battery_w": [0, -5000, 0],
            "peak_w": 40_000,
        },
    )

    seen = snapshot(world.site, NOW)

    assert seen.plan_valid
    assert session(world, "CS-1").planned_w == 7000
    assert seen.batteries[0].planned_w == -5000
    assert seen.peak_target_w == pytest.approx(40_000)

    charge.ended_at = NOW
    charge.save()
    world.car("CS-1", transaction_id="another")
    assert session(world, "CS-1").planned_w is None


def test_a_plan_that_has_run_out_is_not_followed(world):
    Plan.objects.create(
        site=world.site,
        made_at=NOW - timedelta(hours=2),
        starts_at=NOW - timedelta(hours=2),
        valid_until=NOW - timedelta(seconds=1),
        status="optimal",
        result={},
    )

    seen = snapshot(world.site, NOW)

    assert not seen.plan_valid
    assert seen.peak_target_w is None


def test_the_quarters_import_so_far_is_counted(world):
    meter = world.device("main")
    for minute in range(8):
        Reading.objects.create(device=meter, at=NOW - timedelta(minutes=7 - minute), power_w=12_000, values={})

    assert snapshot(world.site, NOW).quarter_import_wh == pytest.approx(12_000 * 7 / 60, rel=0.05)


def test_a_site_without_a_grid_connection_is_not_ready(db):
    with pytest.raises(SiteNotReady, match="Empty"):
        snapshot(Site.objects.create(name="Empty"), NOW)


def test_the_number_of_questions_does_not_grow_with_the_site(db):
    def asked(stations: int) -> int:
        more = "".join(f'\n[[station]]\nidentity = "X-{i}"\ncircuit = "row 1"\nevses = 2\n' for i in range(stations))
        world = World.campus(
            NOW,
            CAMPUS.replace("Campus", f"Campus {stations}")
            .replace("CS-", f"C{stations}-")
            .replace("HPC-", f"H{stations}-")
            + more.replace("X-", f"X{stations}-"),
        )
        world.quiet_day()
        for i in range(stations):
            world.car(f"X{stations}-{i}", offered_a=6)
        with CaptureQueriesContext(
            database,
        ) as queries:
            look(world.site, NOW)
        return len(queries)

    assert asked(1) == asked(12) <= 12


def test_an_isolated_place_counts_with_its_maximum_whatever_it_was_told(world):
    world.car("CS-1", offered_a=8)
    WantedLimit.objects.filter(evse=world.evse("CS-1")).update(isolated_at=world.now, state="not_followed")

    isolated = session(world, "CS-1")

    assert (isolated.isolated_a, isolated.offered_a) == (32, 8)


@pytest.mark.parametrize(
    ("capabilities", "falls_back_a"),
    [
        ({}, 6.0),
        ({"honours_duration": False}, 20.0),
        ({"kind": "Relative"}, 20.0),
        ({"fail_safe": "refused"}, 32.0),
        ({"fail_safe": [6.0, "A"]}, 6.0),
    ],
)
def test_what_a_station_falls_back_on_is_what_is_proven(world, capabilities, falls_back_a):
    world.car("CS-1", offered_a=20)
    ChargingStation.objects.filter(identity="CS-1").update(capabilities=capabilities)

    assert session(world, "CS-1").fail_safe_a == falls_back_a


def test_what_is_known_of_the_model_counts_for_its_stations(world):
    world.car("CS-1", offered_a=20)
    ChargingStation.objects.filter(identity="CS-1").update(vendor="Ampère", model="Duo", firmware_version="3")
    StationModel.objects.create(
        vendor="Ampère",
        model="Duo",
        firmware="3",
        capabilities={
            "min_current_a": {"value": 8.0, "source": "set"},
            "honours_duration": {"value": False, "source": "learned"},
        },
    )

    known = session(world, "CS-1")

    assert (known.min_a, known.fail_safe_a) == (8.0, 20.0)


def test_two_operators_hands_each_narrow_the_same_place(world):
    for by, amps in (("olivia", 12), ("oscar", 9)):
        want_limit(world.evse("CS-1"), amps=amps, reason=f"by hand ({by})", lease_s=600, by=by)

    hands = snapshot(world.site, datetime.now(UTC)).narrowings

    assert sorted(n.limit_a for n in hands) == [9, 12]


def test_a_load_that_falls_silent_leaves_the_boards_load_unknown_and_never_smaller(world):
    row = world.node("row 1")
    for name in ("heater", "pump"):
        load = Device.objects.create(site=world.site, name=name, kind="load", connect="tcp://127.0.0.1:1502?unit=9")
        Feed.objects.create(circuit=row, device=load)
        world.measure(name, current_a=(5.0, 5.0, 5.0), power_w=3450.0)
    relay = Device.objects.create(site=world.site, name="relay", kind="load")  # that nobody measures
    Feed.objects.create(circuit=row, device=relay)
    world.car("CS-1", offered_a=0)
    heard = snapshot(world.site, NOW)

    world.measure("pump", ago_s=60, current_a=(5.0, 5.0, 5.0), power_w=3450.0)
    silent = snapshot(world.site, NOW)

    assert heard.background_a == {1: (10, 10, 10)}
    assert all(math.isnan(a) for a in silent.background_a[1])
    key = world.key("CS-1")
    assert allocate(heard).shares[key].limit_a > 6
    assert allocate(silent).shares[key].limit_a <= 6
    assert allocate(silent).shares[key].reason == "meter stale: row 1"


def test_a_roof_that_falls_silent_holds_no_car_back(world):
    world.car("CS-1", offered_a=0)
    heard = allocate(snapshot(world.site, NOW)).shares[world.key("CS-1")]

    world.measure("roof", ago_s=60, power_w=0.0, current_a=(0.0, 0.0, 0.0))
    silent = allocate(snapshot(world.site, NOW)).shares[world.key("CS-1")]

    assert silent.limit_a == heard.limit_a > 6

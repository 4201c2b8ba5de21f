"""Transactions as stations really send them: twice, late, in the wrong order, with odd clocks and odd registers."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from csms import ledger, stations
from csms.models import EVSE, ChargingStation, IdToken, MeterSample, Transaction, TransactionEvent
from csms.ocpp16 import codec as v16
from csms.ocpp201 import codec as v201
from csms.vocabulary import Boot
from meters.models import Site

pytestmark = pytest.mark.django_db

NOW = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)


@pytest.fixture
def station() -> ChargingStation:
    site = Site.objects.create(name="Campus")
    IdToken.objects.create(site=site, value="04A1B2C3", group="FLEET")
    IdToken.objects.create(site=site, value="BLOCKED", status="blocked")
    IdToken.objects.create(site=site, value="OLD", expires_at=NOW - timedelta(days=1))
    IdToken.objects.create(site=Site.objects.create(name="Elsewhere"), value="FOREIGN")
    return ChargingStation.objects.create(identity="CS-1", site=site, admission="accepted")


def iso(at: datetime) -> str:
    return at.isoformat().replace("+00:00", "Z")


def start(
    station: ChargingStation, *, at: Any = NOW, tag: str = "04A1B2C3", wh: int = 1000, **more: Any
) -> ledger.Outcome:
    payload = {
        "connectorId": 1,
        "idTag": tag,
        "meterStart": wh,
        "timestamp": iso(at) if isinstance(at, datetime) else at,
        **more,
    }
    received = max(NOW, at) if isinstance(at, datetime) else NOW
    return ledger.transaction_started(station.pk, v16.started(payload, received))


def stop(station: ChargingStation, tid: Any, *, at: datetime = NOW + timedelta(hours=1), wh: int = 5000, **more: Any):
    payload = {"transactionId": int(tid), "meterStop": wh, "timestamp": iso(at), **more}
    return ledger.transaction_ended(station.pk, v16.ended(payload, max(NOW, at)))


def meter(station: ChargingStation, tid: str, wh: float, *, at: datetime = NOW, unit: str = "Wh", connector: int = 1):
    entry = {"timestamp": iso(at), "sampledValue": [{"value": str(wh), "unit": unit}]}
    ledger.progressed((station.pk, connector, tid), [lambda: v16.meter_values([entry], max(NOW, at))])


def event(station: ChargingStation, kind: str, seq: int, *, tid: str = "tx", at: datetime = NOW, **more: Any):
    info: dict[str, Any] = {"transactionId": tid}
    for name in ("chargingState", "stoppedReason", "remoteStartId"):
        if name in more:
            info[name] = more.pop(name)
    register = more.pop("wh", None)
    payload: dict[str, Any] = {
        "eventType": kind,
        "timestamp": iso(at),
        "triggerReason": more.pop("trigger", "MeterValuePeriodic"),
        "seqNo": seq,
        "transactionInfo": info,
        "evse": {"id": 1, "connectorId": 1},
        **more,
    }
    if register is not None:
        payload["meterValue"] = [{"timestamp": iso(at), "sampledValue": [{"value": register}]}]
    verb = {
        "Started": ledger.transaction_started,
        "Updated": ledger.transaction_updated,
        "Ended": ledger.transaction_ended,
    }[kind]
    return verb(station.pk, v201.event(payload, max(NOW, at)))


def the_one(station: ChargingStation) -> Transaction:
    return Transaction.objects.get(station=station)


# ---------------------------------------------------------------------- OCPP 1.6


def test_a_charge_from_start_to_stop_counts_the_register(station: ChargingStation) -> None:
    outcome = start(station)
    meter(station, outcome.transaction_id, 2.5, unit="kWh", at=NOW + timedelta(minutes=5))
    assert the_one(station).energy_wh == 1500
    stop(station, outcome.transaction_id, at=NOW + timedelta(hours=1), reason="EVDisconnected")

    tx = the_one(station)
    assert outcome.verdict.accepted and outcome.verdict.group == "FLEET"
    assert (tx.energy_wh, tx.stop_reason, tx.ended_at) == (4000, "EVDisconnected", NOW + timedelta(hours=1))
    assert tx.id_token is not None and tx.flags == []
    assert MeterSample.objects.get().energy_wh == 2500
    assert list(tx.events.values_list("kind", flat=True)) == ["started", "ended"]


def test_the_same_start_under_a_new_message_id_is_the_same_transaction(station: ChargingStation) -> None:
    first, again = start(station), start(station)
    assert first.transaction_id == again.transaction_id
    assert again.repeated
    assert TransactionEvent.objects.count() == 1


def test_a_stop_told_twice_is_kept_once(station: ChargingStation) -> None:
    tid = start(station).transaction_id
    stop(station, tid)
    assert stop(station, tid).repeated
    stop(station, tid, wh=9000, at=NOW + timedelta(hours=2))  # another story of the same end: kept, not believed

    tx = the_one(station)
    assert (tx.ended_at, tx.energy_wh) == (NOW + timedelta(hours=1), 4000)
    assert TransactionEvent.objects.filter(kind="ended").count() == 2


@pytest.mark.parametrize("tid", [-1, 0, 424242])
def test_a_stop_of_nobody_is_an_orphan_and_touches_no_other(station: ChargingStation, tid: int) -> None:
    start(station)
    stop(station, tid)
    stop(station, tid)
    assert the_one(station).open
    orphan = TransactionEvent.objects.get(kind="ended")
    assert orphan.transaction is None


def test_another_stations_transaction_is_not_touched(station: ChargingStation) -> None:
    tid = start(station).transaction_id
    other = ChargingStation.objects.create(identity="CS-2", site=station.site, admission="accepted")
    stop(other, tid)
    assert the_one(station).open


def test_a_session_replayed_after_hours_offline_with_its_stop_first(station: ChargingStation) -> None:
    began, done = NOW - timedelta(hours=8), NOW - timedelta(hours=6)
    stop(station, -1, at=done, wh=21_000, idTag="04A1B2C3")
    outcome = start(station, at=began, wh=1_000)

    tx = the_one(station)
    assert (tx.started_at, tx.ended_at, tx.energy_wh) == (began, done, 20_000)
    assert not outcome.open
    assert EVSE.objects.get().charging_state == ""


def test_a_running_session_is_not_ended_by_an_old_orphan(station: ChargingStation) -> None:
    stop(station, -1, at=NOW, wh=21_000, idTag="04A1B2C3")
    start(station)
    assert the_one(station).open


def test_the_next_start_closes_a_charge_whose_end_was_lost_until_it_comes_after_all(station: ChargingStation) -> None:
    first = start(station)
    start(station, at=NOW + timedelta(hours=1), wh=3000)
    lost = Transaction.objects.get(transaction_id=first.transaction_id)
    assert not lost.open and ledger.SUPERSEDED in lost.flags

    stop(station, first.transaction_id, at=NOW + timedelta(minutes=30), wh=2500)

    lost.refresh_from_db()
    assert (lost.ended_at, lost.energy_wh, lost.flags) == (NOW + timedelta(minutes=30), 1500, [])


@pytest.mark.parametrize(
    ("tag", "status"),
    [
        ("04a1b2c3", "accepted"),
        ("BLOCKED", "blocked"),
        ("OLD", "expired"),
        ("NOBODY", "invalid"),
        ("FOREIGN", "invalid"),
        ("", "invalid"),
    ],
)
def test_every_token_is_judged_and_every_start_is_recorded(station: ChargingStation, tag: str, status: str) -> None:
    outcome = start(station, tag=tag)
    tx = the_one(station)
    assert outcome.verdict.status == status
    assert tx.authorized == (status == "accepted")
    assert tx.id_token_value == tag


def test_a_quarantined_station_is_recorded_and_refused(station: ChargingStation) -> None:
    ChargingStation.objects.update(admission="quarantined")
    assert start(station).verdict.status == "invalid"
    assert not the_one(station).authorized


@pytest.mark.parametrize(
    ("told", "at", "flag"),
    [
        ("1970-01-01T00:00:10Z", NOW, "clock_not_set"),
        ("2026-11-24T11:00:00", NOW - timedelta(hours=1), "no_zone"),
        ("2026-11-24T14:00:00Z", NOW, "zone_error"),
        ("2026-11-24T17:30:20Z", NOW, "zone_error"),
        ("2026-11-24T12:11:00Z", NOW, "clock_ahead"),
        ("2026-11-24T13:30:00+02:00", NOW - timedelta(minutes=30), ""),
        ("rubbish", NOW, "bad_time"),
        (None, NOW, "no_time"),
    ],
)
def test_odd_clocks_are_corrected_and_flagged(station: ChargingStation, told: Any, at: datetime, flag: str) -> None:
    start(station, at=told)
    tx = the_one(station)
    assert tx.started_at == at
    assert tx.flags == ([flag] if flag else [])
    event = TransactionEvent.objects.get()
    assert event.payload["timestamp"] == told
    assert (event.told_at, event.correction) == (str(told or ""), flag)


def test_without_a_clock_two_sessions_are_two(station: ChargingStation) -> None:
    first = start(station, at="1970-01-01T00:00:00Z", wh=0)
    assert start(station, at="1970-01-01T00:00:00Z", wh=0).transaction_id == first.transaction_id
    stop(station, first.transaction_id, wh=100)
    second = start(station, at="1970-01-01T00:00:00Z", wh=0)
    assert second.transaction_id != first.transaction_id
    assert start(station, at="1970-01-01T00:00:00Z", wh=0).transaction_id == second.transaction_id


def test_a_register_that_goes_back_is_flagged_and_takes_no_energy_away(station: ChargingStation) -> None:
    tid = start(station).transaction_id
    meter(station, tid, 3000, at=NOW + timedelta(minutes=10))
    meter(station, tid, 10, at=NOW + timedelta(minutes=12))
    tx = the_one(station)
    assert (tx.energy_wh, tx.flags, tx.check_before_billing) == (2000, ["register_backwards"], True)
    stop(station, tid, wh=0)
    assert the_one(station).energy_wh == 2000


def test_a_start_at_zero_with_a_lifelong_register_is_rebased(station: ChargingStation) -> None:
    tid = start(station, wh=0).transaction_id
    meter(station, tid, 1_234_567, at=NOW + timedelta(minutes=1))
    meter(station, tid, 1_235_067, at=NOW + timedelta(minutes=2))
    tx = the_one(station)
    assert tx.energy_wh == 500
    assert "start_register_rebased" in tx.flags


def test_meter_values_find_the_charge_that_runs_when_they_name_none(station: ChargingStation) -> None:
    start(station)
    meter(station, "", 1200)
    meter(station, "99999", 1300)
    meter(station, "", 50, connector=2)
    assert the_one(station).energy_wh == 200
    assert MeterSample.objects.filter(transaction=None).count() == 2


def test_meter_values_after_the_end_change_nothing(station: ChargingStation) -> None:
    tid = start(station).transaction_id
    stop(station, tid)
    meter(station, tid, 9000, at=NOW + timedelta(hours=2))
    assert (the_one(station).energy_wh, the_one(station).ended_at) == (4000, NOW + timedelta(hours=1))
    assert MeterSample.objects.count() == 1


def test_a_stop_with_a_whole_session_of_values_keeps_them(station: ChargingStation) -> None:
    tid = start(station).transaction_id
    data = [
        {"timestamp": iso(NOW + timedelta(minutes=n)), "sampledValue": [{"value": str(1000 + n)}]} for n in range(500)
    ]
    stop(station, tid, at=NOW + timedelta(hours=9), transactionData=data, wh=1600)
    assert MeterSample.objects.count() == 500
    assert the_one(station).energy_wh == 600


# ---------------------------------------------------------------------- OCPP 2.0.1

TOKEN = {"idToken": "04a1b2c3", "type": "ISO14443"}


def test_a_transaction_told_in_events(station: ChargingStation) -> None:
    event(station, "Started", 0, trigger="CablePluggedIn", chargingState="EVConnected", wh=100)
    assert not the_one(station).authorized
    outcome = event(station, "Updated", 1, trigger="Authorized", idToken=TOKEN, at=NOW + timedelta(seconds=5))
    assert outcome.verdict.accepted and the_one(station).authorized
    event(station, "Updated", 2, chargingState="Charging", wh=600, at=NOW + timedelta(minutes=5))
    assert EVSE.objects.get().iec_state == "C2"
    event(station, "Ended", 3, stoppedReason="EVDisconnected", wh=1100, at=NOW + timedelta(hours=1))

    tx = the_one(station)
    assert (tx.energy_wh, tx.stop_reason, tx.last_seq_no, tx.flags) == (1000, "EVDisconnected", 3, [])
    assert EVSE.objects.get().charging_state == ""


def test_events_in_any_order_give_the_same_transaction(station: ChargingStation) -> None:
    story = {
        0: ("Started", 100, NOW),
        1: ("Updated", 300, NOW + timedelta(minutes=1)),
        2: ("Updated", 500, NOW + timedelta(minutes=2)),
        3: ("Ended", 700, NOW + timedelta(minutes=3)),
    }
    for seq in (3, 1, 2, 0):
        kind, wh, at = story[seq]
        event(station, kind, seq, wh=wh, at=at)

    tx = the_one(station)
    assert (tx.started_at, tx.ended_at, tx.energy_wh) == (NOW, NOW + timedelta(minutes=3), 600)
    assert (tx.gaps, tx.flags) == ([], [])


def test_a_gap_is_listed_and_closed_when_the_missing_one_comes(station: ChargingStation) -> None:
    event(station, "Started", 0)
    event(station, "Updated", 3, at=NOW + timedelta(minutes=3))
    assert the_one(station).gaps == [[1, 2]]
    event(station, "Updated", 1, at=NOW + timedelta(minutes=1))
    assert the_one(station).gaps == [[2, 2]]
    event(station, "Updated", 2, at=NOW + timedelta(minutes=2))
    assert (the_one(station).gaps, the_one(station).flags) == ([], [])


def test_two_different_starts_with_one_id_are_one_transaction(station: ChargingStation) -> None:
    event(station, "Started", 0, trigger="RemoteStart", remoteStartId=7)
    event(station, "Started", 0, trigger="CablePluggedIn", at=NOW + timedelta(seconds=2))
    assert the_one(station).remote_start_id == 7
    assert TransactionEvent.objects.count() == 2


def test_an_event_sent_again_is_kept_once(station: ChargingStation) -> None:
    event(station, "Updated", 1, wh=100)
    assert event(station, "Updated", 1, wh=100, offline=True).repeated
    assert TransactionEvent.objects.count() == MeterSample.objects.count() == 1


def test_an_update_after_the_end_does_not_open_it_again(station: ChargingStation) -> None:
    event(station, "Started", 0)
    event(station, "Ended", 2, at=NOW + timedelta(minutes=2))
    event(station, "Updated", 1, at=NOW + timedelta(minutes=1), chargingState="Charging")
    tx = the_one(station)
    assert not tx.open and (tx.charging_state, tx.flags, tx.gaps) == ("", [], [])
    event(station, "Updated", 3, at=NOW + timedelta(minutes=3), wh=9_000_000)
    again = the_one(station)
    assert (again.ended_at, again.energy_wh) == (tx.ended_at, tx.energy_wh)
    assert again.flags == ["event_after_end"]


def test_who_stops_it_does_not_become_its_owner(station: ChargingStation) -> None:
    event(station, "Started", 0, idToken=TOKEN)
    event(station, "Ended", 1, idToken={"idToken": "OTHER", "type": "ISO14443"}, at=NOW + timedelta(minutes=1))
    assert the_one(station).id_token_value == "04a1b2c3"


def test_a_station_that_charges_whoever_comes_is_authorized(station: ChargingStation) -> None:
    outcome = event(station, "Started", 0, idToken={"idToken": "", "type": "NoAuthorization"})
    assert outcome.verdict.accepted and the_one(station).authorized


def test_a_pause_passes_through_c1(station: ChargingStation) -> None:
    event(station, "Started", 0, idToken=TOKEN, chargingState="Charging")
    event(station, "Updated", 1, chargingState="SuspendedEVSE", at=NOW + timedelta(minutes=1))
    evse = EVSE.objects.get()
    assert evse.iec_state == "C1"
    stations.settle(evse.pk)
    evse.refresh_from_db()
    assert evse.iec_state == "B1"


def test_a_boot_forgets_statuses_and_keeps_transactions(station: ChargingStation) -> None:
    report = v16.status({"connectorId": 1, "errorCode": "NoError", "status": "Charging"}, NOW)
    stations.status_changed(station.pk, report)
    start(station)
    stations.booted(station.pk, Boot("ACME", "Wall", "S1", "1.1"), NOW)
    assert EVSE.objects.get().status == "Unknown"
    assert the_one(station).open
    station.refresh_from_db()
    assert (station.firmware_version, station.serial_number) == ("1.1", "S1")


def test_connectors_share_an_evse_and_the_one_in_use_shows(station: ChargingStation) -> None:
    for connector, status in ((1, "Occupied"), (2, "Available")):
        told = {"evseId": 1, "connectorId": connector, "connectorStatus": status, "timestamp": iso(NOW)}
        stations.status_changed(station.pk, v201.status(told, NOW))
    assert EVSE.objects.get().status == "Occupied"
    assert stations.status_changed(station.pk, v16.status({"connectorId": 0, "status": "Faulted"}, NOW)) is None
    assert stations.status_changed(station.pk, v16.status({"connectorId": 999, "status": "Faulted"}, NOW)) is None

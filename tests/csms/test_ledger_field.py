"""Charges as the field sends them: days offline, ends without a start, clocks that are off, changes of version."""

from __future__ import annotations

from datetime import UTC, datetime, time, timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.contrib.auth.models import User

from csms import billing, ledger, settling
from csms.billing_models import ChargingTariff, TariffHours
from csms.bookkeeping import TO_CHECK
from csms.clocks import Clock
from csms.costs import Cost
from csms.energy import SUSPECT
from csms.ledger_models import SignedMeterValue, UnmatchedEnd
from csms.models import ChargingStation, IdToken, MeterSample, Transaction, TransactionEvent
from csms.ocpp16 import codec as v16
from csms.ocpp201 import codec as v201
from meters.models import Site

pytestmark = pytest.mark.django_db

NOW = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
TOKEN = {"idToken": "CARD", "type": "ISO14443"}


def ago(hours: float) -> datetime:
    return NOW - timedelta(hours=hours)


@pytest.fixture
def site() -> Site:
    return Site.objects.create(name="Campus", timezone="Europe/Brussels", price_area="BE")


@pytest.fixture
def station(site: Site) -> ChargingStation:
    IdToken.objects.create(site=site, value="CARD")
    IdToken.objects.create(site=site, value="OTHER")
    IdToken.objects.create(site=site, value="BLOCKED", status="blocked")
    return ChargingStation.objects.create(identity="CS-1", site=site, admission="accepted")


def iso(at: datetime) -> str:
    return at.isoformat().replace("+00:00", "Z")


def start(station: ChargingStation, at: datetime, wh: int, *, evse: int = 1, tag: str = "CARD", received: Any = NOW):
    payload = {"connectorId": evse, "idTag": tag, "meterStart": wh, "timestamp": iso(at)}
    return ledger.transaction_started(station.pk, v16.started(payload, received))


def stop(station: ChargingStation, tid: int, at: datetime, wh: int, *, received: Any = NOW, **more: Any):
    payload = {"transactionId": tid, "meterStop": wh, "timestamp": iso(at), **more}
    return ledger.transaction_ended(station.pk, v16.ended(payload, received))


def values(station: ChargingStation, tid: str, *told: tuple[datetime, Any], received: Any = NOW, **more: Any) -> None:
    entries = [{"timestamp": iso(at), "sampledValue": [{"value": str(wh), **more}]} for at, wh in told]
    ledger.progressed((station.pk, 1, tid), [lambda: v16.meter_values(entries, received)])


def event(station: ChargingStation, seq: int, kind: str, at: datetime, wh: Any = None, **more: Any):
    payload: dict[str, Any] = {
        "eventType": kind,
        "timestamp": iso(at),
        "triggerReason": "MeterValuePeriodic",
        "seqNo": seq,
        "transactionInfo": {"transactionId": more.pop("tid", "tx")},
        "evse": {"id": 1, "connectorId": 1},
    }
    if wh is not None:
        payload["meterValue"] = [{"timestamp": iso(at), "sampledValue": [{"value": wh, **more.pop("sampled", {})}]}]
    received = more.pop("received", NOW)
    return ledger.record([(station.pk, v201.event({**payload, **more}, received))])[0]


def the_one(station: ChargingStation) -> Transaction:
    return Transaction.objects.get(station=station)


# ---------------------------------------------------------------------- after time offline


def test_eight_hours_offline_with_500_meter_values_and_the_stop_first(station: ChargingStation) -> None:
    told = [(ago(8) + timedelta(seconds=40 * n), 1000 + n * 40) for n in range(500)]
    stop(station, -1, ago(2), 22_000, idTag="card")
    values(station, "77", *told)
    outcome = start(station, ago(8), 1000)

    charge = the_one(station)
    assert (charge.started_at, charge.ended_at, charge.energy_wh) == (ago(8), ago(2), 21_000)
    assert not outcome.open and charge.flags == []
    assert charge.samples.count() == 500
    end = UnmatchedEnd.objects.get()
    assert (end.state, end.transaction, end.event.transaction) == ("matched", charge, charge)


def test_two_evses_offline_are_told_apart_by_their_tokens(station: ChargingStation) -> None:
    stop(station, -1, ago(2), 9000, idTag="OTHER")
    stop(station, -1, ago(3), 5000, idTag="CARD")
    start(station, ago(8), 1000, evse=1, tag="CARD")
    start(station, ago(7), 2000, evse=2, tag="OTHER")
    assert sorted(Transaction.objects.values_list("energy_wh", flat=True)) == [4000, 7000]


def test_an_end_that_could_belong_to_two_waits_for_a_person(station: ChargingStation) -> None:
    stop(station, -1, ago(2), 9000)
    start(station, ago(8), 1000, evse=1)
    start(station, ago(7), 2000, evse=2)
    assert UnmatchedEnd.objects.get().state == "waiting"
    assert all(t.open for t in Transaction.objects.all())


@pytest.mark.parametrize(
    ("what", "end"),
    [
        ("another token", {"tag": "OTHER"}),
        ("a lower register", {"wh": 500}),
        ("more than can be charged", {"wh": 900_000}),
        ("before it began", {"at": ago(9)}),
    ],
)
def test_what_does_not_fit_is_not_guessed(station: ChargingStation, what: str, end: dict[str, Any]) -> None:
    stop(station, 0, end.get("at", ago(2)), end.get("wh", 9000), idTag=end.get("tag", "CARD"))
    start(station, ago(8), 1000)
    assert the_one(station).open, what
    assert UnmatchedEnd.objects.get().state == "waiting"


def test_a_person_attaches_an_end_once(station: ChargingStation) -> None:
    start(station, ago(8), 1000)
    stop(station, 0, ago(2), 9000, idTag="OTHER")
    end, olga = UnmatchedEnd.objects.get(), User.objects.create(username="olga")
    assert settling.candidates(end) == [the_one(station)]

    settling.attach(end, the_one(station), olga, NOW)

    charge = the_one(station)
    assert (charge.ended_at, charge.energy_wh) == (ago(2), 8000)
    end.refresh_from_db()
    assert (end.state, end.settled_by, end.settled_at) == ("attached", olga, NOW)
    for again in (lambda: settling.attach(end, charge, olga, NOW), lambda: settling.dismiss(end, "no", olga, NOW)):
        with pytest.raises(settling.CannotSettle):
            again()


def test_a_dismissed_end_stays_and_is_never_matched(station: ChargingStation) -> None:
    stop(station, 0, ago(2), 9000)
    settling.dismiss(UnmatchedEnd.objects.get(), "a test of the installer", None, NOW)
    start(station, ago(8), 1000)
    assert the_one(station).open
    assert UnmatchedEnd.objects.get().reason == "a test of the installer"
    assert TransactionEvent.objects.filter(kind="ended").count() == 1


# ---------------------------------------------------------------------- ends and dedupe


def test_two_different_events_with_one_time_and_number_are_both_kept(station: ChargingStation) -> None:
    event(station, 0, "Started", ago(1), 1000.0)
    event(station, 1, "Updated", ago(0.5), 2000.0)
    event(station, 1, "Updated", ago(0.5), 2000.5)
    event(station, 1, "Updated", ago(0.5), 2000.0, offline=True)
    charge = the_one(station)
    assert charge.events.count() == 3
    assert (charge.energy_wh, charge.flags) == (1000.5, ["sequence_number_twice"])


def test_the_begin_and_end_of_a_2_0_1_charge_are_the_readings_that_say_so(station: ChargingStation) -> None:
    def sampled(*told: tuple[str, float]) -> list[dict[str, Any]]:
        return [{"timestamp": iso(ago(1)), "sampledValue": [{"value": wh, "context": c}]} for c, wh in told]

    event(station, 0, "Started", ago(1), meterValue=sampled(("Sample.Periodic", 900.0), ("Transaction.Begin", 1000.0)))
    end = [{"timestamp": iso(NOW), "sampledValue": [{"value": 5000.0, "context": "Transaction.End"}]}]
    event(station, 1, "Ended", NOW, meterValue=[*sampled(("Transaction.Begin", 1000.0)), *end])
    assert the_one(station).energy_wh == 4000


def test_what_an_event_tells_of_later_moments_counts_at_its_own_time(station: ChargingStation) -> None:
    event(station, 0, "Started", ago(2), 1000.0)
    later = [
        {"timestamp": iso(ago(hours)), "sampledValue": [{"value": wh}]} for hours, wh in ((1.5, 5000.0), (1.0, 9000.0))
    ]
    event(station, 1, "Updated", ago(1.9), meterValue=later)
    event(station, 2, "Ended", ago(0.5), 11_000.0)
    charge = the_one(station)
    assert (charge.energy_wh, set(charge.flags) & SUSPECT) == (10_000, set())


@pytest.mark.parametrize("told", ["9999-12-31T23:59:59Z", "2126-01-01T00:00:00Z", "0001-01-01T00:00:00Z"])
def test_a_start_at_an_impossible_time_is_looked_at_before_it_is_billed(station: ChargingStation, told: str) -> None:
    payload = {"connectorId": 1, "idTag": "CARD", "meterStart": 0, "timestamp": told}
    outcome = ledger.transaction_started(station.pk, v16.started(payload, ago(1)))
    stop(station, int(outcome.transaction_id), NOW, 5000)
    charge = the_one(station)
    assert set(charge.flags) & TO_CHECK
    assert (charge.energy_wh, charge.started_at) == (5000, ago(1))


def test_the_phases_of_a_register_are_added_up(station: ChargingStation) -> None:
    tid = start(station, ago(1), 3000, received=ago(1)).transaction_id
    for minute, each in ((10, 1200.0), (20, 1500.0)):
        at = ago(1) + timedelta(minutes=minute)
        sampled = [{"value": str(each), "phase": f"L{n}-N" if minute > 10 else f"L{n}"} for n in (1, 2, 3)]
        entry = {"timestamp": iso(at), "sampledValue": sampled}
        ledger.progressed((station.pk, 1, tid), [lambda e=entry, a=at: v16.meter_values([e], a)])
    charge = the_one(station)
    assert charge.energy_wh == 1500
    assert charge.flags == ["register_per_phase", "register_phase_to_neutral"]


def test_a_meter_value_told_twice_is_kept_once(station: ChargingStation) -> None:
    tid = start(station, ago(1), 1000, received=ago(1)).transaction_id
    for _ in range(2):
        values(station, tid, (ago(0.5), 2000), received=ago(0.5))
    assert MeterSample.objects.count() == 1


def test_a_refused_token_is_recorded_with_the_energy_it_took(station: ChargingStation) -> None:
    outcome = start(station, ago(1), 1000, tag="BLOCKED", received=ago(1))
    assert outcome.verdict.status == "blocked" and outcome.open
    stop(station, int(outcome.transaction_id), ago(0.5), 1200, reason="DeAuthorized")
    charge = the_one(station)
    assert (charge.authorized, charge.energy_wh, charge.stop_reason) == (False, 200, "DeAuthorized")
    assert charge.events.get(kind="started").verdict == "blocked"


def test_what_a_meter_signed_is_kept_letter_for_letter(station: ChargingStation) -> None:
    ocmf = 'OCMF|{"FV":"1.0","RD":[{"RV":1.5}]}|{"SD":"30"}'
    tid = start(station, ago(1), 1000, received=ago(1)).transaction_id
    for _ in range(2):
        values(station, tid, (ago(0.5), ocmf), received=ago(0.5), format="SignedData", context="Transaction.Begin")
    signed = {"signedMeterData": "T0NNRg==", "signingMethod": "", "encodingMethod": "OCMF", "publicKey": ""}
    event(station, 0, "Started", ago(0.2), 1000.0, tid="other", sampled={"signedMeterValue": signed})

    first, second = SignedMeterValue.objects.order_by("at")
    assert (first.told["value"], first.context, first.transaction.transaction_id) == (ocmf, "Transaction.Begin", tid)
    assert second.told["signedMeterValue"] == signed


# ---------------------------------------------------------------------- clocks


def test_a_clock_that_jumps_back_in_the_middle_is_ordered_by_receipt(station: ChargingStation) -> None:
    event(station, 0, "Started", ago(3), 1000.0, received=ago(3))
    event(station, 1, "Updated", ago(2), 3000.0, received=ago(2))
    event(station, 2, "Ended", ago(30), 5000.0, received=ago(1))
    charge = the_one(station)
    assert (charge.started_at, charge.ended_at, charge.energy_wh) == (ago(3), ago(1), 4000)
    assert charge.flags == ["clock_jumped_back"] and charge.check_before_billing
    assert charge.events.get(kind="ended").told_at == iso(ago(30))


def test_a_stop_before_its_start_by_a_clock_that_was_set_back(station: ChargingStation) -> None:
    tid = start(station, ago(3), 1000, received=ago(3)).transaction_id
    stop(station, int(tid), ago(5), 4000, received=ago(2))
    charge = the_one(station)
    assert (charge.ended_at, charge.energy_wh, charge.flags) == (ago(2), 3000, ["clock_jumped_back"])


def test_a_replay_by_a_clock_two_hours_ahead_is_put_right_once_that_is_known(station: ChargingStation) -> None:
    clock = Clock()
    clock.note(NOW + timedelta(hours=2), NOW)  # what it tells now lies in our future
    payload = {"connectorId": 1, "idTag": "CARD", "meterStart": 1000, "timestamp": iso(ago(6))}
    ledger.transaction_started(station.pk, clock.put_right(v16.started(payload, NOW)))
    charge = the_one(station)
    assert (charge.started_at, charge.flags) == (ago(8), ["zone_error"])
    assert charge.events.get().told_at == iso(ago(6))


def test_without_a_clock_a_replayed_charge_still_has_its_energy(station: ChargingStation) -> None:
    never = "1970-01-01T00:00:{:02}Z"
    payload = {"connectorId": 1, "idTag": "CARD", "meterStart": 1000, "timestamp": never.format(1)}
    tid = ledger.transaction_started(station.pk, v16.started(payload, NOW)).transaction_id
    payload = {"transactionId": int(tid), "meterStop": 21_000, "timestamp": never.format(9)}
    ledger.transaction_ended(station.pk, v16.ended(payload, NOW + timedelta(seconds=1)))
    charge = the_one(station)
    assert (charge.energy_wh, charge.flags, charge.check_before_billing) == (20_000, ["clock_not_set"], True)


# ---------------------------------------------------------------------- the version changes under a charge (R28)


def test_a_change_of_version_closes_the_charge_or_carries_it(station: ChargingStation) -> None:
    tid = start(station, ago(3), 1000, received=ago(3)).transaction_id
    event(station, 4, "Updated", ago(2), 3000.0, tid=tid, received=ago(2))  # it kept our number
    assert the_one(station).energy_wh == 2000
    event(station, 0, "Started", ago(1), 4000.0, tid="new", received=ago(1))
    carried = Transaction.objects.get(transaction_id=tid)
    assert not carried.open and "closed_by_next" in carried.flags

    back = start(station, ago(0.5), 5000, received=ago(0.5))
    assert back.transaction_id not in (tid, "new") and back.open
    assert [t.open for t in Transaction.objects.order_by("started_at")] == [False, False, True]
    stop(station, int(tid), ago(0.4), 3500, received=ago(0.4))
    carried.refresh_from_db()
    assert (carried.ended_at, carried.energy_wh, "closed_by_next" in carried.flags) == (ago(0.4), 2500, False)


def test_our_number_gives_way_to_a_word_the_station_used_itself(station: ChargingStation) -> None:
    first = event(station, 0, "Started", ago(3), 1000.0, tid="seed", received=ago(3)).transaction_pk
    assert first is not None
    event(station, 0, "Started", ago(2), 1000.0, tid=str(first + 2), received=ago(2))
    outcome = start(station, ago(1), 2000, received=ago(1))
    assert outcome.transaction_id != str(first + 2) and outcome.transaction_id.isdecimal()


# ---------------------------------------------------------------------- what it costs


def tariff(site: Site, **more: Any) -> ChargingTariff:
    return ChargingTariff.objects.create(site=site, **{"price_per_kwh": Decimal("0.40"), **more})


def test_a_charge_is_priced_as_it_ends_and_keeps_its_tariff(site: Site, station: ChargingStation) -> None:
    terms = tariff(site, start_fee=Decimal("0.50"))
    TariffHours.objects.create(tariff=terms, from_time=time(11), until_time=time(12), price_per_kwh=Decimal("0.10"))
    event(station, 0, "Started", ago(3), 0.0, received=ago(3))  # ten o'clock in Brussels
    for n in range(1, 3):
        event(station, n, "Updated", ago(3 - n), n * 4000.0, received=ago(3 - n))
    event(station, 3, "Ended", NOW, 12_000.0)

    charge = the_one(station)
    assert (charge.cost, charge.currency) == (Decimal("4.10"), "EUR")
    assert [(line["kind"], line["quantity"], line["amount"]) for line in charge.cost_lines] == [
        ("energy", 8.0, 3.2),
        ("energy", 4.0, 0.4),
        ("start", 1.0, 0.5),
    ]
    ChargingTariff.objects.update(price_per_kwh=9)
    ledger.recount([charge.pk])
    charge.refresh_from_db()
    assert charge.cost == Decimal("4.10")
    kept = billing.running_cost(charge)
    assert kept is not None and kept.total == Decimal("4.10") and len(kept.lines) == 3


def test_the_running_cost_grows_and_a_late_event_mends_the_final_one(site: Site, station: ChargingStation) -> None:
    tariff(site, idle_fee_per_minute=Decimal("0.10"), idle_grace_minutes=30)
    event(station, 0, "Started", ago(3), 0.0, received=ago(3))
    event(station, 1, "Updated", ago(2), 5000.0, received=ago(2))
    running = billing.running_cost(the_one(station), ago(2))
    assert running is not None and running.total == Decimal("2.00")
    assert billing.Pricer().cost(the_one(station), ago(2)) == Cost(2.0, "EUR")

    event(station, 3, "Ended", NOW, 5000.0)
    assert the_one(station).cost == Decimal("11.00")  # 90 of the 120 idle minutes
    event(station, 2, "Updated", ago(1), 4999.9)
    assert the_one(station).gaps == [] and the_one(station).cost == Decimal("11.00")


def test_the_market_prices_of_the_time_of_charging_count(site: Site, station: ChargingStation) -> None:
    from smartcharging.models import Price

    for hour, price in ((3, 100.0), (2, -50.0)):
        Price.objects.create(area="BE", start=ago(hour), minutes=60, eur_per_mwh=price)
    tariff(site, kind="market", market_markup_per_kwh=Decimal("0.10"))
    event(station, 0, "Started", ago(3), 0.0, received=ago(3))
    event(station, 1, "Ended", ago(1), 10_000.0, received=ago(1))
    charge = the_one(station)
    assert charge.cost == Decimal("1.25")  # 5 kWh at 0.20 and 5 kWh at 0.05
    assert charge.tariff["market"][0] == [ago(3).isoformat(), 60, "0.1"]
    assert billing.Pricer().tariff(station, ago(1.5)) == "0.050 EUR/kWh"


def test_without_a_tariff_nothing_is_said_of_money(site: Site, station: ChargingStation) -> None:
    event(station, 0, "Started", ago(3), 0.0)
    assert billing.running_cost(the_one(station), NOW) is None
    event(station, 1, "Ended", NOW, 5000.0)
    assert (the_one(station).cost, the_one(station).cost_lines) == (None, [])
    assert billing.Pricer().tariff(station, NOW) == ""
    tariff(site, active=False)
    assert billing.terms_of(site.pk) is None

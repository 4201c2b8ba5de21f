"""Whatever happens to the messages of a charge on their way, the same ones come to the same row of the ledger."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.db import transaction
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from csms import ledger
from csms.ledger_models import UnmatchedEnd
from csms.models import EVSE, ChargingStation, IdToken, MeterSample, Transaction, TransactionEvent
from csms.ocpp16 import codec as v16
from csms.ocpp201 import codec as v201
from meters.models import Site

pytestmark = pytest.mark.django_db

T0 = datetime(2026, 11, 24, 8, 0, tzinfo=UTC)
RECEIVED = T0 + timedelta(days=1)
ROW = (
    *("transaction_id", "evse_id", "id_token_id", "id_token_value", "authorized", "started_at", "ended_at", "gaps"),
    *("stop_reason", "charging_state", "meter_start_wh", "meter_last_wh", "energy_wh", "soc", "last_event_at", "flags"),
    *("last_seq_no", "charging_s", "idle_s", "max_power_w", "check_before_billing", "tally"),
)
calm = settings(
    max_examples=12,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)


@pytest.fixture
def station() -> ChargingStation:
    site = Site.objects.create(name="Campus")
    IdToken.objects.create(site=site, value="CARD")
    made = ChargingStation.objects.create(identity="CS-1", site=site, admission="accepted")
    EVSE.objects.create(station=made, number=1)
    return made


class Undone:
    """What one example writes is undone before the next."""

    def __enter__(self) -> None:
        self.atomic = transaction.atomic()
        self.atomic.__enter__()

    def __exit__(self, *error: Any) -> None:
        transaction.set_rollback(True)
        self.atomic.__exit__(None, None, None)


def iso(at: datetime) -> str:
    return at.isoformat().replace("+00:00", "Z")


# ---------------------------------------------------------------------- OCPP 2.0.1


def told(seq: int, kind: str, at: datetime, wh: float | None, state: str = "Charging", **more: Any) -> dict[str, Any]:
    payload: dict[str, Any] = {
        "eventType": kind,
        "timestamp": iso(at),
        "triggerReason": "MeterValuePeriodic",
        "seqNo": seq,
        "transactionInfo": {"transactionId": "tx", "chargingState": state},
        "evse": {"id": 1, "connectorId": 1},
        **more,
    }
    if wh is not None:
        sampled: list[dict[str, Any]] = [{"value": wh}, {"value": 7000.0, "measurand": "Power.Active.Import"}]
        payload["meterValue"] = [{"timestamp": iso(at), "sampledValue": sampled}]
    return payload


registers = st.one_of(st.floats(0, 3000).map(lambda x: round(x, 1)), st.sampled_from([-5.0, 0.0, 1e6, 1e9]), st.none())
states = st.sampled_from(["Charging", "SuspendedEV", "SuspendedEVSE"])


@st.composite
def stories(draw: st.DrawFn) -> list[dict[str, Any]]:
    """A charge: its register rises honestly, with an odd value here and there."""
    length = draw(st.integers(1, 6))
    wh = draw(st.sampled_from([0.0, 150_000.0]))
    messages = [told(0, "Started", T0, wh, "EVConnected", idToken={"idToken": "card", "type": "ISO14443"})]
    for seq in range(1, length + 1):
        wh += draw(st.floats(0, 900).map(lambda x: round(x, 1)))
        odd = draw(st.one_of(st.just(wh), st.just(wh), registers))
        messages.append(told(seq, "Updated", T0 + timedelta(minutes=5 * seq), odd, draw(states)))
    end = T0 + timedelta(minutes=5 * (length + 1))
    messages.append(told(length + 1, "Ended", end, wh, "Idle"))
    return messages


def deliver201(station: ChargingStation, messages: list[dict[str, Any]], received: datetime = RECEIVED) -> None:
    for n, payload in enumerate(messages):
        ledger.record([(station.pk, v201.event(payload, received + timedelta(seconds=n)))])


def row(station: ChargingStation) -> dict[str, Any]:
    return Transaction.objects.filter(station=station).values(*ROW).get()


@given(data=st.data())
@calm
def test_events_in_any_order_doubled_and_lost_come_to_the_same_row(station: ChargingStation, data: st.DataObject):
    story = data.draw(stories())
    heard = [m for m in story if data.draw(st.booleans(), label="heard") or m["eventType"] == "Started"]
    mixed = data.draw(
        st.permutations(heard + [{**m, "offline": True} for m in data.draw(st.lists(st.sampled_from(heard)))])
    )

    with Undone():
        deliver201(station, heard)
        in_order, events, samples = row(station), TransactionEvent.objects.count(), MeterSample.objects.count()
    with Undone():
        deliver201(station, mixed)
        assert row(station) == in_order
        assert TransactionEvent.objects.count() == events == len(heard)
        assert MeterSample.objects.count() == samples


@given(data=st.data())
@calm
def test_a_batch_comes_to_the_same_as_one_by_one(station: ChargingStation, data: st.DataObject):
    mixed = data.draw(st.permutations(data.draw(stories())))
    reports = [v201.event(m, RECEIVED) for m in [*mixed, mixed[0]]]

    with Undone():
        for report in reports:
            ledger.record([(station.pk, report)])
        one_by_one = row(station)
    with Undone():
        ledger.record([(station.pk, report) for report in reports])
        assert row(station) == one_by_one
        assert TransactionEvent.objects.count() == len(mixed)


@given(rises=st.lists(st.integers(0, 1200), min_size=1, max_size=8), start=st.integers(0, 10**6), data=st.data())
@calm
def test_energy_is_the_clients_register_difference(
    station: ChargingStation, rises: list[int], start: int, data: st.DataObject
):
    messages, wh = [told(0, "Started", T0, float(start))], start
    for seq, rise in enumerate(rises, 1):
        wh += rise
        messages.append(told(seq, "Updated", T0 + timedelta(minutes=5 * seq), float(wh)))
    messages.append(told(len(rises) + 1, "Ended", T0 + timedelta(minutes=5 * len(rises) + 5), float(wh)))

    with Undone():
        deliver201(station, data.draw(st.permutations(messages)))
        assert row(station)["energy_wh"] == sum(rises)
        assert row(station)["flags"] == ["energy_unlike_power"] or row(station)["flags"] == []


@given(data=st.data())
@calm
def test_counting_on_is_the_same_as_telling_anew(station: ChargingStation, data: st.DataObject):
    with Undone():
        deliver201(station, data.draw(stories()), T0)
        counted = row(station)
        ledger.recount(Transaction.objects.values_list("pk", flat=True))
        assert row(station) == counted


# ---------------------------------------------------------------------- OCPP 1.6, after time offline


@st.composite
def offline_days(draw: st.DrawFn) -> list[tuple[str, dict[str, Any]]]:
    """Charges one after the other on one connector, told with ids of the station's own making."""
    messages: list[tuple[str, dict[str, Any]]] = []
    at, wh = T0, 1000
    for n in range(draw(st.integers(1, 3))):
        rises = draw(st.lists(st.integers(0, 1500), max_size=3))
        messages.append(("start", {"connectorId": 1, "idTag": "CARD", "meterStart": wh, "timestamp": iso(at)}))
        for rise in rises:
            at, wh = at + timedelta(minutes=10), wh + rise
            messages.append(("values", {"at": at, "wh": wh}))
        at += timedelta(minutes=10)
        wh += 10
        stop = {"transactionId": draw(st.sampled_from([-1, 0, 900 + n])), "meterStop": wh, "timestamp": iso(at)}
        messages.append(("stop", {**stop, "idTag": "card"}))
        at += timedelta(minutes=draw(st.integers(1, 90)))
    return messages


def deliver16(station: ChargingStation, messages: list[tuple[str, dict[str, Any]]]) -> None:
    for n, (kind, payload) in enumerate(messages):
        received = RECEIVED + timedelta(seconds=n)
        if kind == "start":
            ledger.transaction_started(station.pk, v16.started(payload, received))
        elif kind == "stop":
            ledger.transaction_ended(station.pk, v16.ended(payload, received))
        else:
            entry = {"timestamp": iso(payload["at"]), "sampledValue": [{"value": str(payload["wh"])}]}
            ledger.progressed((station.pk, 1, ""), [lambda e=entry, r=received: v16.meter_values([e], r)])


def rows(station: ChargingStation) -> list[dict[str, Any]]:
    names = [name for name in ROW if name != "transaction_id"]
    return list(Transaction.objects.filter(station=station).order_by("started_at").values(*names))


@given(data=st.data())
@calm
def test_offline_charges_replayed_in_any_order_are_the_same_charges(station: ChargingStation, data: st.DataObject):
    told_in_order = data.draw(offline_days())
    mixed = data.draw(st.permutations(told_in_order + data.draw(st.lists(st.sampled_from(told_in_order), max_size=3))))

    with Undone():
        deliver16(station, told_in_order)
        in_order = rows(station)
        starts = [p for kind, p in told_in_order if kind == "start"]
        stops = [p for kind, p in told_in_order if kind == "stop"]
        energies = [stop["meterStop"] - start["meterStart"] for start, stop in zip(starts, stops, strict=True)]
        assert [r["energy_wh"] for r in in_order] == energies
        assert all(r["ended_at"] for r in in_order)
        assert not UnmatchedEnd.objects.filter(state="waiting").exists()
    with Undone():
        deliver16(station, mixed)
        assert rows(station) == in_order
        assert not UnmatchedEnd.objects.filter(state="waiting").exists()

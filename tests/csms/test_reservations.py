"""Reservations: kept by the station, used by the right card, and over when they are over."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.db import connections
from django.utils import timezone

from csms import reservations
from csms.models import EVSE, ChargingStation, IdToken
from csms.reservations import ReservationError
from csms.simulator import Car
from csms.tasks import keep_reservations
from csms.vocabulary import Notice, Subject
from csms.workflow_models import Reservation
from meters.models import Site
from tests.csms.charge_point import V16, V201, basic, running, station
from tests.csms.longer_work import PASSWORD, living, until, yard

pytestmark = pytest.mark.django_db(transaction=True)
BOTH = pytest.mark.parametrize("protocol", [V16, V201])


@pytest.fixture(autouse=True)
async def give_connections_back() -> AsyncIterator[None]:
    yield
    await sync_to_async(connections.close_all)()


def soon(minutes: float = 60) -> Any:
    return timezone.now() + timedelta(minutes=minutes)


def row() -> Reservation:
    return Reservation.objects.select_related("station", "evse").get()


@sync_to_async
def make(world: Any, token: int = 0, minutes: float = 60, **where: Any) -> Reservation:
    where = where or {"evse": world.evse}
    return reservations.reserve(id_token=world.tokens[token], ends_at=soon(minutes), **where)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"ends_at": -1}, "ends_at"),
        ({"ends_at": 60 * 24 * 3}, "ends_at"),
        ({"starts_at": 60 * 24 * 90, "ends_at": 60 * 24 * 90 + 60}, "starts_at"),
        ({"token": "04BAD"}, "id_token"),
        ({"elsewhere": True}, "station"),
    ],
)
def test_what_makes_no_sense_is_refused_by_its_field(change: dict[str, Any], field: str):
    world = yard()
    token = IdToken.objects.get(value=change.get("token", "04A1"))
    place = world.station
    if change.get("elsewhere"):
        place = ChargingStation.objects.create(identity="FAR", site=Site.objects.create(name="Far"))
    starts = soon(change["starts_at"]) if "starts_at" in change else None

    with pytest.raises(ReservationError) as refused:
        reservations.reserve(id_token=token, station=place, starts_at=starts, ends_at=soon(change.get("ends_at", 60)))

    assert refused.value.field == field
    assert not Reservation.objects.exists()


def test_a_place_is_reserved_once_at_a_time():
    world = yard()
    reservations.reserve(id_token=world.tokens[0], evse=world.evse, starts_at=soon(60), ends_at=soon(120))

    with pytest.raises(ReservationError, match="already"):
        reservations.reserve(id_token=world.tokens[2], evse=world.evse, starts_at=soon(90), ends_at=soon(150))
    later = reservations.reserve(id_token=world.tokens[2], evse=world.evse, starts_at=soon(120), ends_at=soon(150))
    assert later.state == "wanted"


@BOTH
async def test_a_reserved_place_lets_in_its_own_card_only(protocol: str):
    world = await sync_to_async(yard)()
    async with running(meter_interval_s=1) as gateway, living(gateway, protocol) as [sim]:
        made = await make(world)
        assert made.state == "accepted"
        await until(lambda: EVSE.objects.get().status == "Reserved")
        assert await sim.tap(1, "04B1") == "Reserved"

        assert await sim.tap(1, "04A1") == "Accepted"
        sim.plug(1, Car(60_000, 0.4, delay_s=0))
        await until(lambda: row().state == "used")
        used = await sync_to_async(row)()
        assert used.transaction_id is not None
        assert used.closed_at is not None
        assert sim.chores.reservations == {}


async def test_a_card_of_the_same_group_uses_it_where_the_station_names_none():
    world = await sync_to_async(yard)()
    async with running() as gateway, station(gateway, "SIM-1", headers=basic("SIM-1", PASSWORD)) as bare:
        await bare.ask("Heartbeat", {})
        await make(world)
        start = {"connectorId": 1, "idTag": "04A2", "meterStart": 0, "timestamp": timezone.now().isoformat()}
        await bare.ask("StartTransaction", start)
        await until(lambda: row().state == "used")
    told = next(p for a, p in bare.asked if a == "ReserveNow")
    assert told["parentIdTag"] == "fleet"


async def test_a_stranger_who_charges_there_uses_no_reservation():
    world = await sync_to_async(yard)()
    async with running() as gateway, station(gateway, "SIM-1", headers=basic("SIM-1", PASSWORD)) as bare:
        await bare.ask("Heartbeat", {})
        await make(world)
        start = {"connectorId": 1, "idTag": "04B1", "meterStart": 0, "timestamp": timezone.now().isoformat()}
        await bare.ask("StartTransaction", start)
        await gateway.writer.submit(lambda: None)
        assert (await sync_to_async(row)()).state == "accepted"


@BOTH
async def test_a_reservation_is_taken_back(protocol: str):
    world = await sync_to_async(yard)()
    async with running(meter_interval_s=1) as gateway, living(gateway, protocol) as [sim]:
        made = await make(world)
        await until(lambda: EVSE.objects.get().status == "Reserved")
        await sync_to_async(reservations.cancel)(made)
        assert (await sync_to_async(row)()).state == "cancelled"
        await until(lambda: EVSE.objects.get().status == "Available")
        assert sim.calls("CancelReservation")


async def test_a_station_says_that_it_is_over():
    world = await sync_to_async(yard)()
    async with running(meter_interval_s=1) as gateway, living(gateway, V201) as [sim]:
        await make(world)
        [number] = sim.chores.reservations
        sim.fault(1)
        await until(lambda: row().state == "removed")
        assert number == (await sync_to_async(row)()).pk


@pytest.mark.parametrize(
    ("said", "state"),
    [("Occupied", "occupied"), ("Faulted", "faulted"), ("Unavailable", "unavailable"), ("Rejected", "rejected")],
)
async def test_what_the_station_says_is_the_state(said: str, state: str):
    world = await sync_to_async(yard)()
    async with running() as gateway, station(gateway, "SIM-1", headers=basic("SIM-1", PASSWORD)) as bare:
        await bare.ask("Heartbeat", {})
        bare.answers["ReserveNow"] = {"status": said}
        assert (await make(world)).state == state


async def test_a_station_that_is_away_is_asked_once_it_is_back():
    world = await sync_to_async(yard)()
    made = await make(world)
    assert (made.state, made.attempts) == ("wanted", 0)
    assert made.detail
    async with running() as gateway, station(gateway, "SIM-1", headers=basic("SIM-1", PASSWORD)) as bare:
        await bare.ask("Heartbeat", {})
        await sync_to_async(Reservation.objects.update)(next_try_at=None)
        await sync_to_async(keep_reservations)()
        assert (await sync_to_async(row)()).state == "accepted"


async def test_a_cancelled_one_of_a_station_that_is_away_is_told_later():
    world = await sync_to_async(yard)()
    async with running() as gateway:
        async with station(gateway, "SIM-1", headers=basic("SIM-1", PASSWORD)) as bare:
            await bare.ask("Heartbeat", {})
            made = await make(world)
        await until(lambda: reservations.connected([world.station]) == [])
        await sync_to_async(reservations.cancel)(made)
        waiting = await sync_to_async(row)()
        assert (waiting.state, waiting.cancel_wanted) == ("accepted", True)
        async with station(gateway, "SIM-1", headers=basic("SIM-1", PASSWORD)) as bare:
            await bare.ask("Heartbeat", {})
            await sync_to_async(Reservation.objects.update)(next_try_at=None)
            await sync_to_async(keep_reservations)()
            assert [p for a, p in bare.asked if a == "CancelReservation"] == [{"reservationId": made.pk}]
    assert (await sync_to_async(row)()).state == "cancelled"


async def test_any_free_place_of_the_site_is_found():
    world = await sync_to_async(yard)(2)
    await sync_to_async(EVSE.objects.filter(station=world.station).update)(status="Occupied")
    async with running(meter_interval_s=1) as gateway, living(gateway, V201, "SIM-2"):
        await until(lambda: EVSE.objects.get(station__identity="SIM-2").status == "Available")
        made = await make(world, station=None)
        assert (made.state, made.station.identity) == ("accepted", "SIM-2")
        again = await make(world, token=2, station=None)
        assert (again.state, again.station) == ("wanted", None)
        assert again.detail


def test_what_is_past_its_end_is_closed():
    world = yard()
    now = timezone.now()
    for state, cancel in (("accepted", False), ("wanted", False), ("accepted", True)):
        Reservation.objects.create(
            site=world.site,
            station=world.station,
            id_token=world.tokens[0],
            starts_at=now - timedelta(hours=2),
            ends_at=now - timedelta(hours=1),
            state=state,
            cancel_wanted=cancel,
        )

    assert reservations.expire(now) == 3
    assert reservations.expire(now) == 0
    assert sorted(Reservation.objects.values_list("state", flat=True)) == ["cancelled", "expired", "expired"]


def test_a_word_on_another_stations_reservation_changes_nothing():
    world = yard(2)
    made = Reservation.objects.create(
        site=world.site,
        station=world.station,
        id_token=world.tokens[0],
        starts_at=soon(-1),
        ends_at=soon(),
        state="accepted",
    )
    notice = Notice(Subject.RESERVATION, "Expired", timezone.now(), made.pk)

    reservations.told(world.stations[1].pk, notice)
    assert row().state == "accepted"
    reservations.told(world.station.pk, notice)
    assert row().state == "expired"

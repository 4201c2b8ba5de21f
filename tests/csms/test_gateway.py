"""A station at the door, and its first words, over real sockets."""

from __future__ import annotations

import pytest
from asgiref.sync import sync_to_async

from csms.models import EVSE, ChargingStation, OcppMessage
from meters.models import Site
from tests.csms.charge_point import V16, V201, running, station, written

pytestmark = pytest.mark.django_db(transaction=True)

BOOT_16 = {"chargePointVendor": "ACME", "chargePointModel": "Wall", "firmwareVersion": "1.0"}
BOOT_201 = {"reason": "PowerUp", "chargingStation": {"vendorName": "ACME", "model": "Pole", "firmwareVersion": "2.0"}}


@sync_to_async
def accepted(identity: str = "CS-1", **more: object) -> ChargingStation:
    site, _ = Site.objects.get_or_create(name="Campus")
    return ChargingStation.objects.create(identity=identity, site=site, admission="accepted", **more)


@pytest.mark.parametrize(("version", "boot"), [(V16, BOOT_16), (V201, BOOT_201)])
async def test_an_accepted_station_boots_and_is_remembered(version: str, boot: dict) -> None:
    await accepted()
    async with running(heartbeat_s=120) as gateway, station(gateway, version=version) as car_park:
        answer = await car_park.ask("BootNotification", boot)
        assert (answer["status"], answer["interval"]) == ("Accepted", 120)
        assert "currentTime" in await car_park.ask("Heartbeat", {})
        await car_park.was_asked("SetChargingProfile")
        await written(gateway)
        row = await ChargingStation.objects.aget(identity="CS-1")
        assert (row.vendor, row.protocol) == ("ACME", version)
    assert await OcppMessage.objects.filter(station=row, action="BootNotification").acount() == 2


async def test_a_status_shows_with_its_iec_state() -> None:
    row = await accepted()
    async with running() as gateway, station(gateway) as bare:
        await bare.ask("StatusNotification", {"connectorId": 1, "errorCode": "NoError", "status": "Preparing"})
        await written(gateway)
        evse = await EVSE.objects.aget(station=row, number=1)
        assert (evse.status, evse.iec_state) == ("Preparing", "B1")

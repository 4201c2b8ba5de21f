"""Local lists: the tokens of a site in its stations, in parts, in step, and never in a loop."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.db import connections
from django.utils import timezone

from csms import local_lists
from csms.models import ChargingStation, IdToken, StationVariable
from csms.tasks import keep_local_lists
from csms.workflow_models import LocalList, LocalListPolicy
from tests.csms.charge_point import V16, V201, basic, running, station
from tests.csms.longer_work import PASSWORD, Yard, living, until, yard

pytestmark = pytest.mark.django_db(transaction=True)
BOTH = pytest.mark.parametrize("protocol", [V16, V201])


@pytest.fixture(autouse=True)
async def give_connections_back() -> AsyncIterator[None]:
    yield
    await sync_to_async(connections.close_all)()


def listed(**policy: Any) -> Yard:
    world = yard()
    LocalListPolicy.objects.create(site=world.site, **policy)
    return world


def the_list() -> LocalList:
    return LocalList.objects.select_related("station").get()


def items_said() -> bool:
    """Has the station's inventory come in?"""
    station = ChargingStation.objects.get()
    return local_lists.rooms_of([station])[station.pk].items == 20


def test_the_policy_says_which_tokens_belong():
    world = listed()
    IdToken.objects.create(site=world.site, value="OLD", expires_at=timezone.now() - timedelta(days=1))
    policy = LocalListPolicy.objects.get()

    def values() -> list[str]:
        return [t.value for t in local_lists.members(policy, timezone.now())]

    assert values() == ["04A1", "04A2", "04B1"]
    policy.members, policy.group = "group", "fleet"
    assert values() == ["04A1", "04A2"]
    policy.members = "nobody"
    assert values() == []


def test_a_changed_token_makes_a_new_version_and_an_unchanged_one_none():
    listed()
    local_lists.refresh()
    first = the_list()
    assert (first.wanted_version, sorted(first.wanted)) == (1, ["04A1", "04A2", "04B1"])

    assert local_lists.refresh() == 0
    IdToken.objects.filter(value="04B1").update(status="blocked")
    assert local_lists.refresh() == 1
    assert (the_list().wanted_version, sorted(the_list().wanted)) == (2, ["04A1", "04A2"])


def test_a_station_without_room_for_all_holds_those_who_charged_last():
    world = listed()
    IdToken.objects.create(site=world.site, value="X" * 30)
    ChargingStation.objects.update(protocol=V16)
    StationVariable.objects.create(
        station=world.station, variable="LocalAuthListMaxLength", value="2", reported_at=timezone.now()
    )
    world.station.transactions.create(transaction_id="1", id_token=world.tokens[2], started_at=timezone.now())
    local_lists.refresh()

    row = the_list()
    assert len(row.wanted) == 2
    assert "04B1" in row.wanted
    assert row.left_out == 2  # one has no room, and one is too long to be said in 1.6


def test_parts_are_as_large_as_the_station_takes_them():
    row = LocalList(
        wanted={f"T{n:03}": ["ISO14443", "", "fleet"] for n in range(45)}, held={"OLD": ["Central", "", ""]}
    )

    by_number = local_lists._parts(row, local_lists.Room(items=20), full=True)
    assert [len(p) for p in by_number] == [20, 20, 5]
    by_bytes = local_lists._parts(row, local_lists.Room(items=100, octets=2000), full=True)
    assert 1 < len(by_bytes) < 10
    changed = local_lists._parts(row, local_lists.Room(items=100), full=False)
    assert changed[0][0] == ("OLD", ["Central", "", ""], False)
    assert len(changed[0]) == 46
    assert local_lists._parts(LocalList(wanted={}, held={}), local_lists.Room(), full=True) == [[]]


@BOTH
async def test_a_simulated_station_gets_the_list_and_then_only_what_changes(protocol: str):
    await sync_to_async(listed)()
    async with running(meter_interval_s=1) as gateway, living(gateway, protocol) as [sim]:
        await until(items_said)
        await sync_to_async(keep_local_lists)()
        row = await sync_to_async(the_list)()
        assert (row.state, row.last_error) == ("in_step", "")
        assert sorted(sim.chores.local_list) == ["04A1", "04A2", "04B1"]
        assert row.held_version == row.wanted_version == sim.chores.list_version

        await sync_to_async(IdToken.objects.filter(value="04A2").delete)()
        await sync_to_async(IdToken.objects.create)(site_id=row.station.site_id, value="04NEW")
        await sync_to_async(keep_local_lists)()
        assert sorted(sim.chores.local_list) == ["04A1", "04B1", "04NEW"]
        sent = sim.calls("SendLocalList")
        assert [s["updateType"] for s in sent] == ["Full", "Differential"]
        assert len(sent[1]["localAuthorizationList"]) == 2

        await sync_to_async(keep_local_lists)()
        assert len(sim.calls("SendLocalList")) == 2  # nothing changed, nothing is sent


@BOTH
async def test_a_long_list_comes_in_parts_with_growing_versions(protocol: str):
    world = await sync_to_async(listed)()
    await sync_to_async(IdToken.objects.bulk_create)(IdToken(site=world.site, value=f"CARD{n:03}") for n in range(47))
    async with running(meter_interval_s=1) as gateway, living(gateway, protocol) as [sim]:
        await until(items_said)
        await sync_to_async(keep_local_lists)()
        assert len(sim.chores.local_list) == 50
        sent = sim.calls("SendLocalList")
        version = "listVersion" if protocol == V16 else "versionNumber"
        assert [s["updateType"] for s in sent] == ["Full", "Differential", "Differential"]
        assert [s[version] for s in sent] == [1, 2, 3]
        row = await sync_to_async(the_list)()
        assert (row.state, row.held_version) == ("in_step", 3)


async def test_a_station_that_forgot_its_list_gets_it_whole_again():
    await sync_to_async(listed)()
    async with running(meter_interval_s=1) as gateway, living(gateway, V201) as [sim]:
        await sync_to_async(keep_local_lists)()
        assert sim.chores.list_version == 1
        sim.chores.local_list, sim.chores.list_version = {}, 0
        await sync_to_async(ChargingStation.objects.update)(boot_at=timezone.now() + timedelta(seconds=1))
        await sync_to_async(keep_local_lists)()
        assert len(sim.chores.local_list) == 3
        assert [s["updateType"] for s in sim.calls("SendLocalList")] == ["Full", "Full"]


async def test_a_version_mismatch_is_answered_by_the_whole_list():
    await sync_to_async(listed)()
    await sync_to_async(local_lists.refresh)()
    await sync_to_async(LocalList.objects.update)(held={"04A1": ["ISO14443", "", "fleet"]}, held_version=7)
    held = 7
    async with running() as gateway, station(gateway, "SIM-1", headers=_secret()) as bare:
        await bare.ask("Heartbeat", {})
        bare.answers["GetLocalListVersion"] = lambda _: {"listVersion": held}

        def take(payload: dict[str, Any]) -> dict[str, Any]:
            nonlocal held
            if payload["updateType"] == "Differential":
                return {"status": "VersionMismatch"}
            held = payload["listVersion"]
            return {"status": "Accepted"}

        bare.answers["SendLocalList"] = take
        row = await sync_to_async(the_list)()
        await sync_to_async(local_lists.bring_up_to_date)(row)
        told = [p["updateType"] for a, p in bare.asked if a == "SendLocalList"]
        assert told == ["Differential", "Full"]
    row = await sync_to_async(the_list)()
    assert (row.state, row.held_version) == ("in_step", 8)


async def test_what_a_station_refuses_is_tried_again_later_and_later():
    await sync_to_async(listed)()
    await sync_to_async(local_lists.refresh)()
    async with running() as gateway, station(gateway, "SIM-1", headers=_secret()) as bare:
        await bare.ask("Heartbeat", {})
        bare.answers["GetLocalListVersion"] = {"listVersion": 0}
        bare.answers["SendLocalList"] = {"status": "Failed"}
        now = timezone.now()
        pauses = []
        for _ in range(3):
            row = await sync_to_async(the_list)()
            await sync_to_async(local_lists.bring_up_to_date)(row, now)
            row = await sync_to_async(the_list)()
            pauses.append((row.next_try_at - now).total_seconds() / 60)
            assert await sync_to_async(local_lists.due)(now) == []
            now = row.next_try_at
        assert pauses == [1, 5, 15]
        assert (row.state, "Failed" in row.last_error, row.attempts) == ("failed", True, 3)
        assert len(await sync_to_async(local_lists.due)(now)) == 1


@pytest.mark.parametrize("answer", [{"listVersion": -1}, ["NotSupported", "", {}]])
async def test_a_station_that_keeps_no_list_is_asked_again_only_with_other_firmware(answer: Any):
    await sync_to_async(listed)()
    await sync_to_async(local_lists.refresh)()
    async with running() as gateway, station(gateway, "SIM-1", headers=_secret()) as bare:
        await bare.ask("Heartbeat", {})
        bare.answers["GetLocalListVersion"] = answer
        await sync_to_async(keep_local_lists)()
        row = await sync_to_async(the_list)()
        assert row.state == "unsupported"
        assert row.last_error
        assert await sync_to_async(local_lists.due)(timezone.now()) == []
        await sync_to_async(ChargingStation.objects.update)(firmware_version="2.0")
        assert len(await sync_to_async(local_lists.due)(timezone.now())) == 1
        assert not [a for a, _ in bare.asked if a == "SendLocalList"]


async def test_a_quiet_station_is_sent_nothing():
    await sync_to_async(listed)()
    await sync_to_async(ChargingStation.objects.update)(quiet=True)
    async with running() as gateway, station(gateway, "SIM-1", headers=_secret()) as bare:
        await bare.ask("Heartbeat", {})
        await sync_to_async(keep_local_lists)()
        assert bare.asked == []
    assert (await sync_to_async(the_list)()).state == "waiting"


def test_a_site_without_a_policy_keeps_no_lists():
    world = yard()
    assert local_lists.refresh() == 0
    assert local_lists.send_now(world.station) is None
    assert not LocalList.objects.exists()


def _secret() -> dict[str, str]:
    return basic("SIM-1", PASSWORD)

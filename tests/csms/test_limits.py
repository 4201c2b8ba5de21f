"""The limit wanted on an EVSE, and the station that follows it: sent, replaced, renewed, sent anew, left to expire."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from asgiref.sync import sync_to_async

from csms import bus, calls
from csms.bus import Want
from csms.limits import want_limit
from csms.models import EVSE, ChargingStation, IdToken, WantedLimit
from csms.obedience_models import Alarm, StationModel
from meters.models import Site
from tests.csms.charge_point import V16, V201, Bare, running, station
from tests.csms.test_gateway import BOOT_16, BOOT_201, eventually

pytestmark = pytest.mark.django_db(transaction=True)

START = {"connectorId": 1, "idTag": "04A1B2C3", "meterStart": 1000, "timestamp": "2026-11-24T10:00:00Z"}


@sync_to_async
def a_station(**more: Any) -> EVSE:
    site = Site.objects.create(name="Campus")
    IdToken.objects.create(site=site, value="04A1B2C3")
    row = ChargingStation.objects.create(**{"identity": "CS-1", "site": site, "admission": "accepted", **more})
    return EVSE.objects.create(station=row, number=1)


@sync_to_async
def want(amps: float | None = None, *, watts: float | None = None, for_s: float = 60, **more: Any) -> None:
    now = datetime.now(UTC)
    bus.put_wants([Want("CS-1", 1, amps, watts, "plan", at=now, until=now + timedelta(seconds=for_s), **more)])


def profile(payload: dict[str, Any]) -> dict[str, Any]:
    return payload.get("csChargingProfiles") or payload["chargingProfile"]


def schedule(payload: dict[str, Any]) -> dict[str, Any]:
    told = profile(payload)["chargingSchedule"]
    return told[0] if isinstance(told, list) else told


def first_limit(payload: dict[str, Any]) -> float:
    return schedule(payload)["chargingSchedulePeriod"][0]["limit"]


def is_live(payload: dict[str, Any]) -> bool:
    return "duration" in schedule(payload)


def of(purpose: str, limit: float | None = None) -> Any:
    def fits(payload: dict[str, Any]) -> bool:
        told = profile(payload)
        return (
            told["chargingProfilePurpose"] == purpose
            and is_live(payload)
            and (limit is None or first_limit(payload) == limit)
        )

    return fits


def live_limits(bare: Bare) -> list[float]:
    return [first_limit(p) for a, p in bare.asked if a == "SetChargingProfile" and is_live(p)]


def profiles(bare: Bare) -> int:
    return sum(action == "SetChargingProfile" for action, _ in bare.asked)


async def booted(bare: Bare, version: str = V16) -> None:
    await bare.ask("BootNotification", BOOT_16 if version == V16 else BOOT_201)
    await bare.was_asked("SetChargingProfile", lambda p: not is_live(p))


async def started(bare: Bare, version: str = V16) -> Any:
    if version == V16:
        return (await bare.ask("StartTransaction", START))["transactionId"]
    info = {"transactionId": "tx-1", "chargingState": "Charging"}
    body = {"eventType": "Started", "timestamp": START["timestamp"], "triggerReason": "Authorized", "seqNo": 0}
    token = {"idToken": "04A1B2C3", "type": "ISO14443"}
    await bare.ask("TransactionEvent", {**body, "transactionInfo": info, "idToken": token, "evse": {"id": 1}})
    return "tx-1"


def row() -> WantedLimit:
    return WantedLimit.objects.get()


async def state(name: str, **fields: Any) -> WantedLimit:
    def fits() -> WantedLimit | None:
        return WantedLimit.objects.filter(state=name, **fields).first()

    return await eventually(fits)


@pytest.mark.parametrize("version", [V16, V201])
async def test_a_wanted_limit_becomes_a_transaction_profile_with_a_lease(version: str) -> None:
    await a_station()
    async with running(lease_s=300) as gateway, station(gateway, version=version) as bare:
        await booted(bare, version)
        tid = await started(bare, version)
        await want(10.06)

        payload = await bare.was_asked("SetChargingProfile", of("TxProfile"))

        told, when = profile(payload), schedule(payload)
        assert payload.get("connectorId", payload.get("evseId")) == 1
        assert (told["transactionId"], told["chargingProfileKind"]) == (tid, "Absolute")
        assert (when["chargingRateUnit"], first_limit(payload)) == ("A", 10.0)
        begins = datetime.fromisoformat(when["startSchedule"])
        ends = begins + timedelta(seconds=when["duration"])
        now = datetime.now(UTC)
        assert begins < now - timedelta(seconds=50)
        assert timedelta(seconds=280) < ends - now < timedelta(seconds=302)
        kept = await state("accepted", wanted_a=10.06)
        assert kept.accepted_a == 10.06 and kept.reason == "plan"
        assert kept.lease_until is not None and abs(kept.lease_until - ends) < timedelta(seconds=2)


async def test_zero_is_a_limit() -> None:
    await a_station()
    async with running() as gateway, station(gateway) as bare:
        await booted(bare)
        await started(bare)
        await want(0)
        assert first_limit(await bare.was_asked("SetChargingProfile", of("TxProfile"))) == 0


async def test_a_dc_station_is_limited_in_watts() -> None:
    await a_station(current="dc", max_w=150_000, fail_safe_a=10)
    async with running() as gateway, station(gateway, version=V201) as bare:
        await bare.ask("BootNotification", BOOT_201)
        safe = await bare.was_asked("SetChargingProfile")
        assert (schedule(safe)["chargingRateUnit"], first_limit(safe)) == ("W", 6900.0)
        await started(bare, V201)
        await want(watts=50_000)
        live = await bare.was_asked("SetChargingProfile", of("TxProfile"))
        assert (schedule(live)["chargingRateUnit"], first_limit(live)) == ("W", 50_000)


async def test_the_latest_want_wins_and_none_is_queued_behind_a_slow_station() -> None:
    await a_station()
    async with running() as gateway, station(gateway) as bare:
        await booted(bare)
        await started(bare)
        waiting: list[Any] = []
        bare.answers["SetChargingProfile"] = lambda payload: waiting.append(payload)
        await want(16)
        await eventually(lambda: waiting)
        for amps in (15, 14, 13, 12):
            await want(amps)
        bare.answers.pop("SetChargingProfile")
        await asyncio.sleep(0.1)
        message = gateway.sessions["CS-1"].connection._open
        await bare.socket.send(f'[3,"{next(iter(message))}",{{"status":"Accepted"}}]')
        await bare.was_asked("SetChargingProfile", of("TxProfile", 12))
        assert live_limits(bare) == [16, 12]


async def test_lowering_is_sent_at_once_and_raising_is_paced() -> None:
    await a_station()
    async with running() as gateway, station(gateway) as bare:
        await booted(bare)
        await started(bare)
        await want(10)
        await state("accepted", accepted_a=10)
        await want(16)
        await asyncio.sleep(0.3)
        assert live_limits(bare) == [10]
        await want(8)
        await bare.was_asked("SetChargingProfile", of("TxProfile", 8))
        await want(20, urgent=True)
        await bare.was_asked("SetChargingProfile", of("TxProfile", 20))
        assert live_limits(bare) == [10, 8, 20]


async def test_the_same_limit_is_not_sent_again() -> None:
    await a_station()
    async with running() as gateway, station(gateway) as bare:
        await booted(bare)
        await started(bare)
        for _ in range(5):
            await want(10)
            await asyncio.sleep(0.05)
        assert live_limits(bare) == [10]


async def test_a_lease_is_renewed_at_half_its_life_while_the_wanter_stands_for_it() -> None:
    await a_station()
    async with running(lease_s=2) as gateway, station(gateway) as bare:
        await booted(bare)
        await started(bare)
        await want(10, for_s=60)
        await eventually(lambda: len(live_limits(bare)) >= 3)


async def test_a_stale_want_is_left_to_expire() -> None:
    await a_station()
    async with running(lease_s=1) as gateway, station(gateway) as bare:
        await booted(bare)
        await started(bare)
        await want(10, for_s=0.4)
        await bare.was_asked("SetChargingProfile", of("TxProfile"))
        await asyncio.sleep(1.5)
        assert live_limits(bare) == [10]
        kept = await sync_to_async(row)()
        assert kept.lease_until is not None and kept.lease_until < datetime.now(UTC)


async def test_a_limit_is_sent_anew_after_a_boot_and_after_a_reconnect() -> None:
    await a_station()
    async with running() as gateway:
        async with station(gateway) as bare:
            await booted(bare)
            await started(bare)
            await want(10)
            await state("accepted", accepted_a=10)
            bare.forget()
            await booted(bare)
            await bare.was_asked("SetChargingProfile", of("TxProfile", 10))
            purposes = [is_live(p) for a, p in bare.asked if a == "SetChargingProfile"]
            assert purposes == [False, True]  # the fail-safe first
        async with station(gateway) as bare:
            await bare.ask("Heartbeat", {})  # no boot: it only lost its connection
            again = await bare.was_asked("SetChargingProfile", of("TxProfile", 10))
            assert profile(again)["transactionId"] > 0


async def test_without_a_transaction_the_next_car_is_met_by_a_default_with_a_lease() -> None:
    await a_station()
    async with running() as gateway, station(gateway) as bare:
        await booted(bare)
        await want(12)
        waiting = await bare.was_asked("SetChargingProfile", of("TxDefaultProfile", 12))
        assert profile(waiting)["stackLevel"] == 1
        await started(bare)
        await bare.was_asked("SetChargingProfile", of("TxProfile", 12))


async def test_a_station_of_level_zero_is_left_on_its_fail_safe_until_a_car_comes() -> None:
    await a_station(capabilities={"max_stack_level": 0})
    async with running() as gateway, station(gateway) as bare:
        await booted(bare)
        await want(16)
        kept = await state("accepted")
        assert (kept.accepted_a, kept.lease_until, kept.detail) == (6, None, "fail-safe")
        assert live_limits(bare) == []
        await started(bare)
        live = await bare.was_asked("SetChargingProfile", of("TxProfile", 16))
        assert profile(live)["stackLevel"] == 0


async def test_a_refused_profile_is_tried_once_down_the_ladder_and_the_rung_is_remembered() -> None:
    await a_station()

    def only_watts_by_default(payload: dict[str, Any]) -> dict[str, Any]:
        good = profile(payload)["chargingProfilePurpose"] == "TxDefaultProfile" and (
            schedule(payload)["chargingRateUnit"] == "W" or not is_live(payload)
        )
        return {"status": "Accepted" if good else "Rejected"}

    async with running() as gateway, station(gateway) as bare:
        bare.answers["SetChargingProfile"] = only_watts_by_default
        await booted(bare)
        await started(bare)
        await want(10)
        taken = await bare.was_asked("SetChargingProfile", of("TxDefaultProfile", 6900.0))
        assert profile(taken)["stackLevel"] == 1
        await state("accepted", accepted_a=10)
        assert len(live_limits(bare)) == 4
        bare.forget()
        await want(8)
        await state("accepted", accepted_a=8)
        assert live_limits(bare) == [5520.0]

        def learnt() -> bool:
            model = StationModel.objects.first()
            return model is not None and (model.value("purpose"), model.value("rate_unit")) == ("tx_default", "W")

        await eventually(learnt)


@pytest.mark.parametrize("answer", [{"status": "Rejected"}, ["NotSupported", "no smart charging", {}]])
async def test_a_station_that_refuses_everything_is_said_to_and_not_asked_again(answer: Any) -> None:
    await a_station()
    async with running() as gateway, station(gateway) as bare:
        await booted(bare)
        await started(bare)
        bare.answers["SetChargingProfile"] = answer
        bare.forget()
        await want(10)
        kept = await state("refused")
        assert kept.accepted_a is None and kept.detail
        tried = profiles(bare)
        await want(10)
        await asyncio.sleep(0.2)
        assert profiles(bare) == tried == 8
        await want(9)  # another limit is another question, asked once: it is isolated by now
        await eventually(lambda: profiles(bare) == tried + 1)
        await eventually(lambda: WantedLimit.objects.filter(isolated_at__isnull=False).exists())
        assert await Alarm.objects.filter(kind=Alarm.Kind.LIMIT_REFUSED, ended_at=None).acount() == 1


async def test_the_last_rung_steps_down_to_the_fail_safe_by_itself() -> None:
    await a_station()
    async with running(lease_s=300) as gateway, station(gateway) as bare:
        bare.answers["SetChargingProfile"] = lambda p: {
            "status": "Rejected" if "duration" in schedule(p) else "Accepted"
        }
        await bare.ask("BootNotification", BOOT_16)
        await started(bare)
        await want(10)
        await state("accepted", accepted_a=10)
        last = [payload for action, payload in bare.asked if action == "SetChargingProfile"][-1]
        assert schedule(last)["chargingSchedulePeriod"] == [
            {"startPeriod": 0, "limit": 10.0},
            {"startPeriod": 360, "limit": 6.0},
        ]


async def test_a_silent_station_is_marked_and_tried_again() -> None:
    await a_station()
    async with running(call_timeout_s=0.3) as gateway, station(gateway) as bare:
        await booted(bare)
        await started(bare)
        bare.answers["SetChargingProfile"] = lambda payload: None
        await want(10)
        assert (await state("failed")).detail == "no answer"
        bare.answers.pop("SetChargingProfile")
        await want(9)
        await state("accepted", accepted_a=9)


async def test_a_quiet_station_keeps_its_want_unsent() -> None:
    await a_station(quiet=True)
    async with running() as gateway, station(gateway) as bare:
        await bare.ask("BootNotification", BOOT_16)
        await want(10)
        kept = await state("wanted")
        assert kept.detail == "quiet"
        assert bare.asked == []


async def test_only_the_falling_part_of_a_plan_is_sent_ahead() -> None:
    await a_station(capabilities={"max_periods": 10})
    async with running(lease_s=300) as gateway, station(gateway) as bare:
        await booted(bare)
        await started(bare)
        await want(10, periods=((0, 10.0), (60, 16.0), (120, 8.0), (900, 6.0)))
        payload = await bare.was_asked("SetChargingProfile", of("TxProfile"))
        limits = [p["limit"] for p in schedule(payload)["chargingSchedulePeriod"]]
        assert limits == [10, 8]


async def test_an_operators_limit_goes_the_same_way() -> None:
    evse = await a_station()
    async with running() as gateway, station(gateway) as bare:
        await booted(bare)
        await started(bare)
        await sync_to_async(lambda: want_limit(EVSE.objects.get(pk=evse.pk), amps=7, reason="by hand", lease_s=60))()
        await bare.was_asked("SetChargingProfile", of("TxProfile", 7))
        assert (await state("accepted")).reason == "by hand"


@pytest.mark.parametrize(
    ("amounts", "field"),
    [({}, "amps"), ({"amps": 1, "watts": 1}, "amps"), ({"amps": -1}, "amps"), ({"watts": float("nan")}, "watts")],
)
async def test_an_impossible_limit_names_its_field(amounts: dict[str, Any], field: str) -> None:
    evse = await a_station()
    with pytest.raises(ValueError, match=field):
        await sync_to_async(lambda: want_limit(evse, **amounts, reason="", lease_s=60))()
    with pytest.raises(ValueError, match="lease_s"):
        await sync_to_async(lambda: want_limit(evse, amps=1, reason="", lease_s=0))()


async def test_a_station_that_wants_each_connector_by_itself_gets_its_fail_safe_so() -> None:
    await a_station()
    async with running() as gateway, station(gateway) as bare:
        bare.answers["SetChargingProfile"] = lambda p: {"status": "Accepted" if p["connectorId"] else "Rejected"}
        await bare.ask("BootNotification", BOOT_16)
        safe = await bare.was_asked("SetChargingProfile", lambda p: p["connectorId"] == 1)
        assert first_limit(safe) == 6
        await eventually(lambda: ChargingStation.objects.get().capabilities.get("fail_safe") == [6.0, "A"])


async def test_a_person_who_clears_the_profiles_does_not_take_the_fail_safe_away() -> None:
    await a_station()
    async with running() as gateway, station(gateway) as bare:
        await booted(bare)
        bare.forget()
        row = await ChargingStation.objects.aget()
        await sync_to_async(calls.clear_limits)(row)
        again = await bare.was_asked("SetChargingProfile", lambda p: not is_live(p))
        assert (profile(again)["stackLevel"], first_limit(again)) == (0, 6.0)


@pytest.mark.parametrize(
    ("wiring", "current", "safe_w", "live_w"),
    [
        (["L2", "L3"], "ac", 6 * 230.0, 2300.0),
        ([], "ac", round(6 * 230 * 3**0.5, 1), round(2300 * 3**0.5, 1)),
        ([], "dc", round(6 * 230 * 3**0.5, 1), 2300.0),
    ],
)
async def test_without_a_neutral_watts_are_those_of_lines(
    wiring: list[str], current: str, safe_w: float, live_w: float
) -> None:
    await a_station(wiring=wiring, current=current, capabilities={"rate_unit": "W"})
    await Site.objects.aupdate(supply=Site.Supply.IT)
    async with running() as gateway, station(gateway) as bare:
        await bare.ask("BootNotification", BOOT_16)
        safe = await bare.was_asked("SetChargingProfile", lambda p: not is_live(p))
        assert (schedule(safe)["chargingRateUnit"], first_limit(safe)) == ("W", safe_w)
        await started(bare)
        await (want(watts=2300) if current == "dc" else want(10))
        live = await bare.was_asked("SetChargingProfile", of("TxProfile"))
        assert (schedule(live)["chargingRateUnit"], first_limit(live)) == ("W", live_w)


async def test_a_station_that_turns_out_to_be_dc_is_told_watts_from_then_on() -> None:
    evse = await a_station()
    async with running() as gateway, station(gateway) as bare:
        await booted(bare)
        await started(bare)
        await want(10)
        await bare.was_asked("SetChargingProfile", of("TxProfile", 10.0))
        await state("accepted", accepted_a=10)
        bare.forget()

        await ChargingStation.objects.aupdate(current="dc", max_w=50_000)
        await sync_to_async(bus.announce_change)("station", evse.station_id)

        safe = await bare.was_asked("SetChargingProfile", lambda p: not is_live(p))
        assert (schedule(safe)["chargingRateUnit"], first_limit(safe)) == ("W", 4140.0)
        live = await bare.was_asked("SetChargingProfile", of("TxProfile"))
        assert (schedule(live)["chargingRateUnit"], first_limit(live)) == ("W", 6900.0)

"""A limit followed up to the meter: stations of every temper, over real sockets, in both dialects."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.db import connections

from csms import alarms, bus, learning
from csms.bus import Want
from csms.limits import want_limit
from csms.models import EVSE, ChargingStation, Transaction, WantedLimit
from csms.obedience_models import Alarm, StationModel, ToldLimit
from csms.profiles import Purpose, Unit
from csms.simulator import Car
from csms.simulator.temper import Temper
from tests.csms.charge_point import V16, V201, running, station
from tests.csms.obeying import QUICK, charging, enter, standing, until

NOW = datetime(2026, 3, 2, 12, tzinfo=UTC)

pytestmark = pytest.mark.django_db(transaction=True)

both = pytest.mark.parametrize("protocol", [V16, V201])


@pytest.fixture(autouse=True)
async def give_connections_back() -> AsyncIterator[None]:
    """The thread in which the tests ask the database keeps its connection; PostgreSQL cannot drop one in use."""
    yield
    await sync_to_async(connections.close_all)()


# What a station does, and what is learnt of it on the way to being obeyed.
TEMPERS: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("refuses transaction profiles", {"temper": Temper(refuses=frozenset({Purpose.TX}))}, {"purpose": "tx_default"}),
    (
        "takes and forgets them",
        {"temper": Temper(forgets=frozenset({Purpose.TX})), "record": {"fail_safe_a": 16}},
        {"purpose": "tx_default"},
    ),
    ("knows watts only", {"units": (Unit.W,)}, {"rate_unit": "W"}),
    ("knows amps only", {"units": (Unit.A,)}, {"rate_unit": "A"}),
    ("says both and heeds watts", {"temper": Temper(forgets_units=frozenset({Unit.A}))}, {"rate_unit": "W"}),
    ("knows level 0 only", {"max_stack_level": 0}, {"max_stack_level": 0}),
    ("says 8 levels and takes one", {"temper": Temper(levels=0)}, {"max_stack_level": 0}),
    ("refuses EVSE 0", {"temper": Temper(refuses_evse_zero=True)}, {"connector_zero": False}),
    ("wants relative profiles", {"temper": Temper(relative_only=True)}, {"kind": "Relative"}),
    ("takes no duration", {"temper": Temper(takes_no_duration=True)}, {"stepped": True}),
    ("takes no tenths", {"temper": Temper(whole_only=True), "units": (Unit.A,)}, {"decimals": 0}),
    ("has no schedule to show", {"temper": Temper(composite="no")}, {"composite": "no"}),
    ("shows an empty schedule", {"temper": Temper(composite="empty")}, {"composite": "empty"}),
    ("shows its schedule in watts", {"temper": Temper(composite="watts")}, {"composite": "yes"}),
]


@both
@pytest.mark.parametrize(("nature", "learnt"), [row[1:] for row in TEMPERS], ids=[row[0] for row in TEMPERS])
async def test_a_station_of_any_temper_is_brought_to_follow_and_what_it_took_is_learnt(
    protocol: str, nature: dict[str, Any], learnt: dict[str, Any]
) -> None:
    nature = {**nature, "temper": Temper(**_fields(nature["temper"]))} if "temper" in nature else nature
    async with charging(protocol, **nature) as place:
        await until(lambda: _answer("1.0", "inventory") == "ok")
        await place.want(8.5)

        await place.state("measured", wanted_a=8.5)

        await place.draws(at_least=7.9, at_most=8.6)

        await until(lambda: {name: known(name) for name in learnt} == learnt)
        assert not await Alarm.objects.filter(kind=Alarm.Kind.NOT_FOLLOWED).aexists()


def known(name: str) -> Any:
    """What is known of the one model that was met first."""
    model = StationModel.objects.order_by("pk").first()
    return model.value(name) if model is not None else None


def _fields(temper: Temper) -> dict[str, Any]:
    return {name: value for name, value in vars(temper).items() if not name.startswith("_")}


@both
async def test_a_limit_is_wanted_sent_accepted_scheduled_and_measured(protocol: str) -> None:
    async with charging(protocol) as place:
        await place.want(10)

        await place.state("measured", wanted_a=10)

        def whole_way() -> ToldLimit | None:
            return ToldLimit.objects.filter(
                wanted_a=10,
                sent_at__isnull=False,
                accepted_at__isnull=False,
                scheduled_at__isnull=False,
                measured_at__isnull=False,
            ).first()

        told = await until(whole_way)
        assert told.means.startswith("transaction profile, A")
        assert told.sent_at <= told.accepted_at <= told.measured_at
        assert told.asked == [{"by": "", "a": 10, "w": None, "reason": "plan"}]


@both
async def test_a_station_that_follows_nothing_is_isolated_until_its_meter_shows_that_it_does(protocol: str) -> None:
    async with charging(protocol, Temper(follows_nothing=True)) as place:
        await place.want(8)

        isolated = await until(lambda: place.limit(isolated_at__isnull=False))
        assert isolated.state == WantedLimit.State.NOT_FOLLOWED
        assert isolated.detail == "32.0 A measured, 8.0 A allowed"
        alarm = await Alarm.objects.aget(ended_at=None)
        assert (alarm.kind, alarm.evse_id) == (Alarm.Kind.NOT_FOLLOWED, place.evse.pk)
        purposes = {(p["chargingProfilePurpose"], _unit(p)) for p in place.told()}
        assert len(purposes) >= 4  # it was told in other ways before

        place.station.temper.follows_nothing = False

        await until(lambda: place.limit(isolated_at=None, state="measured"))
        await until(lambda: Alarm.objects.get(pk=alarm.pk).ended_at)
        await place.draws(at_most=8.5)


def _unit(profile: dict[str, Any]) -> str:
    schedule = profile["chargingSchedule"]
    return (schedule[0] if isinstance(schedule, list) else schedule)["chargingRateUnit"]


async def test_an_operator_may_believe_a_station_again_and_it_is_told_anew() -> None:
    async with charging(V16, Temper(follows_nothing=True)) as place:
        await place.want(8)
        await until(lambda: place.limit(isolated_at__isnull=False))
        place.station.temper.follows_nothing = False
        place.station.temper.forgets = frozenset({Purpose.TX})

        @sync_to_async
        def dismiss() -> None:
            alarms.dismiss(Alarm.objects.get(ended_at=None), datetime.now(UTC), "olivia")

        await dismiss()

        await until(lambda: place.limit(isolated_at=None, state="measured"))
        assert (await Alarm.objects.aget(kind=Alarm.Kind.NOT_FOLLOWED)).ended_by == "olivia"


@both
@pytest.mark.parametrize("recipe", ["resend", "toggle"])
async def test_a_station_that_does_not_go_on_after_a_pause_is_given_its_recipe(protocol: str, recipe: str) -> None:
    async with charging(protocol, Temper(resume=recipe)) as place:  # type: ignore[arg-type]
        await place.want(16)
        await place.draws(at_least=15)
        await place.want(0)
        await place.draws(at_most=0)
        await place.state("measured", wanted_a=0)

        await place.want(16, urgent=True)

        await place.draws(at_least=15)
        await until(lambda: known("resume") == recipe)
        await until(lambda: place.limit(resume=""))
        assert not await Alarm.objects.aexists()


@both
async def test_one_that_only_the_plug_wakes_is_tried_a_few_times_and_then_the_driver_is_told(protocol: str) -> None:
    async with charging(protocol, Temper(resume="unplug")) as place:
        await place.want(16)
        await place.draws(at_least=15)
        await place.want(0)
        await place.draws(at_most=0)
        await place.state("measured", wanted_a=0)

        await place.want(16, urgent=True)

        await until(lambda: place.limit(resume="unplug"))
        assert (await Alarm.objects.aget()).kind == Alarm.Kind.NOT_RESUMED
        car = place.station.unplug(1)
        assert car is not None
        await until(lambda: place.limit(resume=""))
        await until(lambda: not Alarm.objects.filter(ended_at=None).exists())


@both
async def test_a_station_that_forgets_everything_at_a_reboot_is_told_again_at_once(protocol: str) -> None:
    async with charging(protocol, keeps_profiles=False) as place:
        await place.want(9)
        await place.state("measured", wanted_a=9)

        place.station.crash()
        await asyncio.sleep(0.1)
        await place.station.wait_online()

        await place.draws(at_least=8.5, at_most=9.1)
        fail_safes = [p for p in place.station.profiles if p.purpose is Purpose.TX_DEFAULT and p.stack_level == 0]
        assert [p.schedule.periods[0].limit for p in fail_safes] == [6.0]


@pytest.mark.parametrize("honours", [True, False])
async def test_whether_it_ends_its_limits_by_itself_is_seen_when_a_lease_runs_out(honours: bool) -> None:
    async with charging(V16, knobs={"lease_s": 1}, honours_duration=honours) as place:
        await place.want(20, for_s=0.5)
        await place.draws(at_least=19)

        await until(lambda: known("honours_duration") is honours)


@both
async def test_a_question_that_sends_a_station_into_a_boot_is_asked_once_of_its_firmware(protocol: str) -> None:
    question = "GetConfiguration" if protocol == V16 else "GetBaseReport"
    temper = Temper(reboots_on=frozenset({question}))
    async with running(patience=QUICK) as gateway:
        async with standing(gateway, protocol, temper) as place:
            await until(lambda: place.station.connections >= 2)
            await until(lambda: _answer(place.station.firmware, "inventory") == "rebooted")
            assert len(place.station.calls(question)) == 1
        async with standing(gateway, protocol, temper, identity="SIM-2") as another:
            await until(lambda: another.station.calls("SetChargingProfile"))
            await asyncio.sleep(0.3)
            assert another.station.calls(question) == []
    async with running(patience=QUICK) as gateway, standing(gateway, protocol, temper) as place:
        await until(lambda: place.station.calls("SetChargingProfile"))
        await asyncio.sleep(0.3)
        assert place.station.calls(question) == []
    async with running(patience=QUICK) as gateway, standing(gateway, protocol, Temper(), firmware="2.0") as place:
        await until(lambda: _answer("2.0", "inventory") == "ok")
        assert len(place.station.calls(question)) == 1  # a new firmware is asked anew


def _answer(firmware: str, question: str) -> str:
    model = StationModel.objects.filter(firmware=firmware).first()
    asked = model.asked if model is not None else {}
    return next((e.get("answer", "") for name, e in asked.items() if name.startswith(question)), "")


async def test_what_one_station_taught_the_next_of_its_model_need_not() -> None:
    stubborn = frozenset({Purpose.TX})
    async with charging(V16, Temper(refuses=stubborn)) as place:
        await place.want(8)
        await place.state("measured", wanted_a=8)
        await until(lambda: known("purpose") == "tx_default")
        async with standing(place.gateway, V16, Temper(refuses=stubborn), identity="SIM-2") as another:
            another.station.plug(1, Car(60_000, 0.4, delay_s=0))
            await another.station.tap(1, "04A1")
            await until(lambda: Transaction.objects.filter(evse=another.evse, ended_at=None).exists())
            await another.want(8)
            await another.state("measured", wanted_a=8)
            assert another.told()[0]["chargingProfilePurpose"] == "TxDefaultProfile"


async def test_a_station_that_differs_from_its_model_keeps_what_it_taught_for_itself() -> None:
    async with charging(V16, Temper(refuses=frozenset({Purpose.TX}))) as place:
        await place.want(8)
        await until(lambda: known("purpose") == "tx_default")
        only_one = Temper(refuses=frozenset({Purpose.TX, Purpose.TX_DEFAULT}))
        async with standing(place.gateway, V16, only_one, identity="SIM-2") as another:
            another.station.plug(1, Car(60_000, 0.4, delay_s=0))
            await another.station.tap(1, "04A1")
            await another.want(8)
            await another.state("measured", wanted_a=8)

            def own() -> bool:
                mine = ChargingStation.objects.get(identity="SIM-2").capabilities
                return mine.get("learned", {}).get("purpose") == "station_max"

            await until(own)
            assert (await StationModel.objects.aget()).value("purpose") == "tx_default"


@pytest.mark.parametrize("divided", [True, False])
@pytest.mark.parametrize("phases", [1, 2])
async def test_a_limit_in_watts_means_the_same_current_whatever_phases_the_car_uses(phases: int, divided: bool) -> None:
    car = Car(60_000, 0.4, delay_s=0, phases=phases, max_a=32.0)
    async with charging(V16, Temper(watts_undivided=not divided), units=(Unit.W,), car=car) as place:
        await place.want(10)
        await place.draws(at_least=9.5, at_most=10.1)
        await place.state("measured", wanted_a=10)


@both
async def test_a_station_that_is_silent_to_limits_is_flagged_and_counts_as_it_was(protocol: str) -> None:
    async with charging(protocol, knobs={"call_timeout_s": 0.3}) as place:
        await place.want(16)
        await place.state("measured", wanted_a=16)
        place.station.temper.silent_to = frozenset({"SetChargingProfile"})

        await place.want(8)
        kept = await place.state("failed")

        assert (kept.accepted_a, kept.wanted_a) == (16, 8)
        await place.want(9)
        await until(lambda: Alarm.objects.filter(kind=Alarm.Kind.SILENT, ended_at=None).exists())
        place.station.temper.silent_to = frozenset()
        await place.want(7)
        await place.state("measured", wanted_a=7)
        await until(lambda: not Alarm.objects.filter(ended_at=None).exists())


async def test_of_two_operators_and_whoever_steers_the_lowest_counts_in_one_message_and_all_are_seen() -> None:
    async with charging(V16) as place:
        await place.want(16)
        await place.state("measured", wanted_a=16)
        before = len(place.told())

        now = datetime.now(UTC)
        evse = EVSE.objects.select_related("station").get(pk=place.evse.pk)
        # On the gateway's own thread, so that it hears of none before all three stand.
        want_limit(evse, amps=12, reason="by hand (olivia)", lease_s=60, by="olivia")
        bus.put_wants([Want("SIM-1", 1, 14, None, "plan", at=now, until=now + timedelta(seconds=60))])
        want_limit(evse, amps=9, reason="by hand (oscar)", lease_s=60, by="oscar")
        connections.close_all()

        kept = await place.state("measured", accepted_a=9)
        assert kept.reason == "by hand (oscar)"
        assert {a["by"]: a["a"] for a in kept.asked} == {"": 14, "olivia": 12, "oscar": 9}
        assert len(place.told()) == before + 1
        told = await ToldLimit.objects.filter(wanted_a=9, state="measured").afirst()
        assert told is not None and {a["by"] for a in told.asked} == {"", "olivia", "oscar"}
        assert await ToldLimit.objects.filter(state="asked").acount() == 2
        await place.want(20)  # whoever steers cannot go above a hand
        await asyncio.sleep(0.3)
        await place.draws(at_most=9.1)


async def test_a_hand_that_lets_go_gives_way_to_whoever_steers() -> None:
    async with charging(V16) as place:
        await place.want(12)
        await place.state("measured", wanted_a=12)
        evse = await EVSE.objects.select_related("station").aget(pk=place.evse.pk)
        await sync_to_async(lambda: want_limit(evse, amps=7, reason="by hand", lease_s=0.8, by="olivia"))()
        await place.state("measured", accepted_a=7)
        await place.state("measured", "scheduled", "accepted", accepted_a=12)


async def test_an_emergency_does_not_wait_for_a_call_that_is_under_way(monkeypatch: Any) -> None:
    monkeypatch.setattr("csms.rpc.GIVES_WAY_S", 0.2)
    await enter("CS-1")
    async with running(patience=QUICK, call_timeout_s=20) as gateway, station(gateway) as bare:
        bare.answers["GetConfiguration"] = lambda payload: None  # it takes its time
        from tests.csms.test_limits import booted, first_limit, of, started, want

        await booted(bare)
        await started(bare)
        await bare.was_asked("GetConfiguration")

        began = asyncio.get_running_loop().time()
        await want(0, urgent=True)
        fire = await bare.was_asked("SetChargingProfile", of("TxProfile", 0))

        assert first_limit(fire) == 0
        assert asyncio.get_running_loop().time() - began < 10  # and not the 20 s a call may take


async def test_what_waits_to_be_sent_gives_way_to_an_emergency_for_the_same_place(monkeypatch: Any) -> None:
    monkeypatch.setattr("csms.rpc.GIVES_WAY_S", 0.2)
    await enter("CS-1")
    async with running(patience=QUICK, call_timeout_s=20) as gateway, station(gateway) as bare:
        from tests.csms.test_limits import booted, live_limits, started, want

        await booted(bare)
        await started(bare)
        bare.answers["GetConfiguration"] = lambda payload: None
        await bare.was_asked("GetConfiguration")
        await want(16)
        await asyncio.sleep(0.1)
        await want(0, urgent=True)
        await until(lambda: live_limits(bare))
        assert live_limits(bare)[0] == 0


async def test_a_current_above_the_limit_of_a_station_out_of_reach_is_nobodys_to_judge() -> None:
    async with charging(V16, knobs={"lease_s": 30}) as place:
        await place.want(16)
        await place.state("measured", wanted_a=16)
        await place.station.drop(offline_s=30)
        await asyncio.sleep(0.3)
        kept = await sync_to_async(place.limit)()
        assert kept is not None and (kept.accepted_a, kept.isolated_at) == (16, None)
        assert kept.lease_until > datetime.now(UTC) + timedelta(seconds=10)


async def test_a_transaction_that_cannot_be_named_is_limited_otherwise_and_teaches_nothing_of_its_model() -> None:
    """An id of more than 36 characters fits no profile of 2.0.1; that says nothing about the station's model."""
    async with running(patience=QUICK) as gateway:
        evse = await enter("CS-1")
        async with station(gateway, version=V201) as bare:
            await bare.ask(
                "BootNotification",
                {"reason": "PowerUp", "chargingStation": {"vendorName": "V", "model": "M", "firmwareVersion": "1"}},
            )
            started = {
                "eventType": "Started",
                "timestamp": datetime.now(UTC).isoformat(),
                "triggerReason": "Authorized",
                "seqNo": 0,
                "transactionInfo": {"transactionId": "x" * 60},
                "evse": {"id": 1, "connectorId": 1},
            }
            await bare.ask("TransactionEvent", started)
            await sync_to_async(want_limit)(evse, amps=8, reason="test", lease_s=300)
            await bare.was_asked("SetChargingProfile", _eight_amps)
            await until(lambda: ToldLimit.objects.filter(wanted_a=8, accepted_at__isnull=False).first())

    assert await sync_to_async(known)("purpose") is None


def _eight_amps(payload: dict[str, Any]) -> bool:
    return payload["chargingProfile"]["chargingSchedule"][0]["chargingSchedulePeriod"][0]["limit"] == 8


@pytest.mark.django_db
def test_a_boot_told_twice_on_one_socket_blames_no_question() -> None:
    station = ChargingStation.objects.create(identity="TWICE", vendor="Acme", model="One", firmware_version="1")
    learning.meet(station.pk, NOW)
    assert learning.asks(station.pk, "configure", NOW, NOW + timedelta(seconds=1)) == learning.ASK
    assert learning.asks(station.pk, "configure", NOW, NOW + timedelta(seconds=2)) == learning.ASK  # the same socket
    later = NOW + timedelta(seconds=30)
    assert learning.asks(station.pk, "configure", later, later) == learning.NEVER  # it came back with a boot

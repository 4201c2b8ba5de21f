"""What stations report: in parts that come as they please, of their variables, of others' limits, of cars."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from asgiref.sync import sync_to_async

from csms import calls, costs, display, inspection, monitoring, needs, others_limits, reports, vendors
from csms.costs import Cost
from csms.models import EVSE, ChargingStation, IdToken, OcppMessage, Transaction, WantedLimit
from csms.ocpp201 import charging as charging201
from csms.reported import CarSchedule, Event, Monitor, Needs, OthersLimit, Part, Place
from csms.reported_models import ChargingNeeds, ExternalLimit, MonitoringEvent, StationReport, VariableMonitor
from csms.vocabulary import Moment
from meters.models import Site
from tests.csms.charge_point import V16, V201, running, station, written
from tests.csms.test_gateway import eventually

NOW = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)


def a_station() -> ChargingStation:
    site, _ = Site.objects.get_or_create(name="Campus")
    IdToken.objects.get_or_create(site=site, value="04A1B2C3")
    row, _ = ChargingStation.objects.get_or_create(identity="CS-1", site=site, admission="accepted")
    return row


def part(
    number: int | None, *, last: bool = False, request: int = 5, content: Any = None, kind: str = "customer"
) -> Part:
    return Part(kind, request, number, last, [content if content is not None else f"part {number}"])


def told(row: ChargingStation, *parts: Part, at: datetime = NOW) -> reports.Told:
    for one in parts:
        reports.part_told(row.pk, one, at)
    return reports.content(StationReport.objects.latest("pk"))


# ---------------------------------------------------------------------- parts


@pytest.mark.django_db
@pytest.mark.parametrize("order", [[0, 1, 2], [2, 0, 1], [1, 2, 0, 0, 2]])
def test_a_report_is_whole_in_whatever_order_and_however_often_its_parts_come(order: list[int]) -> None:
    row = a_station()

    report = told(row, *[part(n, last=n == 2) for n in order])

    assert (report.complete, report.items) == (True, ["part 0", "part 1", "part 2"])
    assert StationReport.objects.count() == 1


@pytest.mark.django_db
def test_a_report_without_its_last_part_is_shown_as_it_is() -> None:
    row = a_station()

    report = told(row, part(0), part(2))

    assert (report.complete, report.items) == (False, ["part 0", "part 2"])
    newest = StationReport.objects.get()
    assert newest.state_at(NOW) == "coming"
    assert newest.state_at(NOW + timedelta(minutes=5)) == "incomplete"


@pytest.mark.django_db
def test_parts_without_numbers_count_by_their_arrival_and_one_told_again_counts_once() -> None:
    row = a_station()
    first, second = part(None, content={"id": 1}), part(None, content={"id": 2}, last=True)

    report = told(row, first, first, second, second)

    assert (report.complete, report.items) == (True, [{"id": 1}, {"id": 2}])


@pytest.mark.django_db
def test_the_same_request_asked_again_is_another_report() -> None:
    row = a_station()
    told(row, part(0, last=True))

    again = told(row, part(0, last=True, content="newer"))
    much_later = told(row, part(1), at=NOW + timedelta(hours=1))

    assert again.items == ["newer"]
    assert much_later.items == ["part 1"]
    assert StationReport.objects.count() == 3


@pytest.mark.django_db
def test_a_station_cannot_fill_the_database_with_reports() -> None:
    row = a_station()
    for request in range(15):
        told(row, part(0, last=True, request=request))
    told(row, part(2_000_000, request=99), part(-1, request=99))

    assert StationReport.objects.count() <= reports.KEPT_OF_A_KIND
    assert StationReport.objects.get(request_id=99).part_count == 0


@pytest.mark.django_db
def test_what_is_kept_of_customers_goes_first() -> None:
    row = a_station()
    told(row, part(0, last=True))
    told(row, part(0, last=True, kind="display"))

    reports.tidy(NOW + timedelta(days=4), timedelta(days=30))
    assert [r.kind for r in StationReport.objects.all()] == ["display"]
    reports.tidy(NOW + timedelta(days=31), timedelta(days=30))
    assert not StationReport.objects.exists()


@pytest.mark.django_db
def test_who_waits_for_a_report_gets_what_came() -> None:
    row = a_station()
    nothing = reports.wait_for(row, "customer", 5, 0)
    told(row, part(0))
    half = reports.wait_for(row, "customer", 5, 0.05, sleep=lambda s: None)
    told(row, part(1, last=True))
    whole = reports.wait_for(row, "customer", 5, 10)

    assert (nothing.items, half.items, half.complete) == ([], ["part 0"], False)
    assert (whole.items, whole.complete) == (["part 0", "part 1"], True)


PROFILE = {
    "id": 12,
    "stackLevel": 0,
    "chargingProfilePurpose": "ChargingStationExternalConstraints",
    "chargingProfileKind": "Absolute",
    "chargingSchedule": [
        {"id": 1, "chargingRateUnit": "A", "chargingSchedulePeriod": [{"startPeriod": 0, "limit": 16.0}]}
    ],
}


@pytest.mark.django_db(transaction=True)
async def test_the_profiles_in_a_station_are_asked_and_read() -> None:
    row = await sync_to_async(a_station)()
    async with running() as gateway, station(gateway, version=V201) as bare:
        await bare.ask("Heartbeat", {})
        answer = await sync_to_async(inspection.report_profiles)(row)
        said = {"requestId": answer["request_id"], "evseId": 1, "chargingLimitSource": "SO"}
        await bare.ask("ReportChargingProfiles", {**said, "chargingProfile": [PROFILE], "tbc": True})
        await bare.ask("ReportChargingProfiles", {**said, "chargingProfile": [{**PROFILE, "id": 13}]})
        report = await sync_to_async(reports.wait_for)(row, "profiles", answer["request_id"], 10)
    assert report.complete and [p["id"] for p in report.items] == [12, 13]
    assert report.items[0]["source"] == "SO"
    assert report.items[0]["schedules"][0]["periods"] == [{"start_s": 0, "limit": 16.0, "phases": None}]


@pytest.mark.django_db(transaction=True)
async def test_messages_on_the_display_and_what_is_kept_of_a_customer_are_read_and_the_latter_is_not_logged() -> None:
    row = await sync_to_async(a_station)()
    message = {"id": 3, "priority": "InFront", "message": {"format": "UTF8", "content": "Hallo", "language": "nl"}}
    async with running() as gateway, station(gateway, version=V201) as bare:
        await bare.ask("Heartbeat", {})
        shown = await sync_to_async(display.report_messages)(row)
        await bare.ask("NotifyDisplayMessages", {"requestId": shown["request_id"], "messageInfo": [message]})
        asked = await sync_to_async(display.customer_information)(row, report=True, clear=False, identifier="jan")
        said = {"requestId": asked["request_id"], "generatedAt": "2026-11-24T12:00:00Z"}
        await bare.ask("NotifyCustomerInformation", {**said, "seqNo": 1, "data": "Straat 1"})
        await bare.ask("NotifyCustomerInformation", {**said, "seqNo": 0, "data": "Jan", "tbc": True})
        messages = await sync_to_async(reports.wait_for)(row, "display", shown["request_id"], 10)
        customer = await sync_to_async(reports.wait_for)(row, "customer", asked["request_id"], 10)
        await written(gateway)
    assert [(m["id"], m["text"], m["language"]) for m in messages.items] == [(3, "Hallo", "nl")]
    assert (customer.complete, customer.items) == (True, ["Jan", "Straat 1"])
    async for frame in OcppMessage.objects.filter(action="NotifyCustomerInformation", direction="in"):
        assert "Jan" not in frame.raw and "Straat" not in frame.raw + str(frame.payload)


# ---------------------------------------------------------------------- monitors and events


def event(number: int = 1, monitor: int | None = 41, **facts: Any) -> Event:
    place = Place("Connector", "Temperature", evse=1)
    return Event(place, number, Moment(NOW), f"key {number}", **{"value": "81", "monitor": monitor, **facts})


@pytest.mark.django_db
def test_an_event_has_the_severity_of_its_monitor_and_is_kept_once() -> None:
    row = a_station()
    monitoring.monitors_told(row.pk, [Monitor(Place("Connector", "Temperature", evse=1), "Delta", 5, 2, 41)], NOW)

    monitoring.events_told(row.pk, [event(), event(), event(2, monitor=None)], NOW)
    monitoring.events_told(row.pk, [event()], NOW)

    kept = {e.number: e for e in MonitoringEvent.objects.all()}
    assert {n: e.severity for n, e in kept.items()} == {1: 2, 2: None}
    assert kept[1].place == "Connector.Temperature @1"


@pytest.mark.django_db(transaction=True)
async def test_monitors_and_events_of_a_station_are_written_down() -> None:
    row = await sync_to_async(a_station)()
    where = {"component": {"name": "Connector", "evse": {"id": 1}}, "variable": {"name": "Temperature"}}
    monitor = {"id": 41, "transaction": False, "value": 80, "type": "UpperThreshold", "severity": 2}
    spoke = {
        "eventId": 9,
        "timestamp": "2026-11-24T12:00:00Z",
        "trigger": "Alerting",
        "actualValue": "81",
        "techCode": "T1",
        "eventNotificationType": "CustomMonitor",
        "variableMonitoringId": 41,
        **where,
    }
    async with running() as gateway, station(gateway, version=V201) as bare:
        await bare.ask(
            "NotifyMonitoringReport",
            {
                "requestId": 1,
                "seqNo": 0,
                "generatedAt": "2026-11-24T12:00:00Z",
                "monitor": [{**where, "variableMonitoring": [monitor]}],
            },
        )
        for message_id in ("a", "b"):  # told again under another message id
            said = {"generatedAt": "2026-11-24T12:00:00Z", "seqNo": 0, "eventData": [spoke]}
            await bare.ask("NotifyEvent", said, message_id)
        await written(gateway)
    stands = await VariableMonitor.objects.aget(station=row)
    assert (stands.number, stands.type, stands.value) == (41, "UpperThreshold", 80)
    kept = await MonitoringEvent.objects.aget(station=row)
    assert (kept.value, kept.severity, kept.tech_code, kept.origin) == ("81", 2, "T1", "CustomMonitor")


# ---------------------------------------------------------------------- others' limits


@pytest.mark.django_db
def test_the_limit_of_another_is_kept_until_it_is_cleared() -> None:
    row = a_station()
    others_limits.limit_told(row.pk, OthersLimit(0, "SO", True, [{"unit": "A"}]), NOW)
    others_limits.limit_told(row.pk, OthersLimit(1, "EMS"), NOW)
    others_limits.limit_told(row.pk, OthersLimit(0, "SO", False), NOW)
    others_limits.limit_told(row.pk, OthersLimit(9_999, "SO"), NOW)
    assert sorted((x.evse_number, x.source, x.grid_critical) for x in ExternalLimit.objects.all()) == [
        (0, "SO", False),
        (1, "EMS", False),
    ]

    others_limits.limit_cleared(row.pk, "EMS", 1)
    others_limits.limit_cleared(row.pk, "SO", None)
    assert not ExternalLimit.objects.exists()


@pytest.mark.django_db(transaction=True)
async def test_a_station_tells_of_the_grid_operator_s_limit() -> None:
    row = await sync_to_async(a_station)()
    limit = {
        "chargingLimit": {"chargingLimitSource": "SO", "isGridCritical": True},
        "chargingSchedule": PROFILE["chargingSchedule"],
    }
    async with running() as gateway, station(gateway, version=V201) as bare:
        assert await bare.ask("NotifyChargingLimit", limit) == {}
        await written(gateway)
        kept = await ExternalLimit.objects.aget(station=row)
        assert (kept.evse_number, kept.grid_critical, kept.schedules[0]["unit"]) == (0, True, "A")
        await bare.ask("ClearedChargingLimit", {"chargingLimitSource": "SO"})
        await written(gateway)
    assert not await ExternalLimit.objects.aexists()


# ---------------------------------------------------------------------- cars


NEEDS = {
    "evseId": 1,
    "chargingNeeds": {
        "requestedEnergyTransfer": "AC_three_phase",
        "departureTime": "2026-11-25T07:30:00Z",
        "acChargingParameters": {"energyAmount": 20_000, "evMinCurrent": 6, "evMaxCurrent": 32, "evMaxVoltage": 400},
    },
}


@pytest.mark.parametrize(
    ("told", "meant"),
    [
        (
            {"acChargingParameters": NEEDS["chargingNeeds"]["acChargingParameters"]},
            {"energy_wh": 20_000, "min_a": 6, "max_a": 32, "soc": None},
        ),
        (
            {
                "dcChargingParameters": {
                    "evMaxCurrent": 300, "evMaxVoltage": 900, "evMaxPower": 150_000, "stateOfCharge": 40,
                    "evEnergyCapacity": 80_000, "fullSoC": 90,
                }
            },
            {"energy_wh": None, "max_w": 150_000, "soc": 0.4, "full_soc": 0.9, "wanted_wh": pytest.approx(40_000)},
        ),
        ({"dcChargingParameters": {"evMaxCurrent": -1, "stateOfCharge": 400}}, {"soc": None, "max_a": None}),
        ({"departureTime": "2026-11-25T07:30:00+01:00"}, {"departure": datetime(2026, 11, 25, 6, 30, tzinfo=UTC)}),
        ({"departureTime": "2026-11-25T07:30:00"}, {"departure": None}),  # without a zone it says nothing
    ],
)  # fmt: skip
def test_ac_and_dc_cars_are_understood(told: dict[str, Any], meant: dict[str, Any]) -> None:
    read = charging201.needs({"evseId": 1, "chargingNeeds": {"requestedEnergyTransfer": "DC", **told}})

    assert {name: getattr(read, name) for name in meant} == meant


@sync_to_async
def charging(row: ChargingStation, *, wanted_a: float | None = None) -> Transaction:
    evse = EVSE.objects.create(station=row, number=1)
    if wanted_a is not None:
        until = datetime.now(UTC) + timedelta(minutes=5)
        WantedLimit.objects.create(evse=evse, wanted_a=wanted_a, accepted_a=wanted_a, lease_until=until)
    return Transaction.objects.create(
        station=row, evse=evse, transaction_id="t1", started_at=datetime.now(UTC), authorized=True
    )


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(("wanted_a", "status"), [(16.0, "Accepted"), (None, "Processing")])
async def test_the_needs_of_a_car_are_kept_with_its_charge(wanted_a: float | None, status: str) -> None:
    row = await sync_to_async(a_station)()
    charge = await charging(row, wanted_a=wanted_a)
    async with running() as gateway, station(gateway, version=V201) as bare:
        await bare.ask("Heartbeat", {})
        assert (await bare.ask("NotifyEVChargingNeeds", NEEDS))["status"] == status
        await written(gateway)
    kept = await ChargingNeeds.objects.aget(transaction=charge)
    assert (kept.energy_wh, kept.max_a, kept.departure) == (20_000, 32, datetime(2026, 11, 25, 7, 30, tzinfo=UTC))


@pytest.mark.django_db(transaction=True)
async def test_after_its_needs_a_car_is_sent_a_profile_though_the_limit_is_the_same() -> None:
    row = await sync_to_async(a_station)()
    await charging(row, wanted_a=16.0)
    async with running() as gateway, station(gateway, version=V201) as bare:
        await bare.ask("Heartbeat", {})
        evse = await EVSE.objects.aget(number=1)
        await sync_to_async(_want)(evse, 16.0)
        await bare.was_asked("SetChargingProfile", _live)
        bare.forget()
        await bare.ask("NotifyEVChargingNeeds", NEEDS)
        await bare.was_asked("SetChargingProfile", _live)


def _live(payload: dict[str, Any]) -> bool:
    return payload["chargingProfile"].get("transactionId") == "t1"


def _want(evse: EVSE, amps: float) -> None:
    from csms.limits import want_limit

    want_limit(evse, amps=amps, reason="test", lease_s=300)


@pytest.mark.django_db(transaction=True)
async def test_no_goal_comes_of_needs_where_nothing_may_be_sent_or_no_place_is_meant() -> None:
    row = await sync_to_async(a_station)()
    async with running() as gateway, station(gateway, version=V201) as bare:
        nowhere = await bare.ask("NotifyEVChargingNeeds", {**NEEDS, "evseId": 0})
        before = await bare.ask("NotifyEVChargingNeeds", NEEDS)
    await ChargingStation.objects.filter(pk=row.pk).aupdate(quiet=True)
    async with running() as gateway, station(gateway, version=V201) as bare:
        quiet = await bare.ask("NotifyEVChargingNeeds", NEEDS)
    assert nowhere == {"status": "Rejected", "statusInfo": {"reasonCode": "UnknownEvse"}}
    assert before == {"status": "Processing"}  # the charge is still to begin
    assert quiet["status"] == "Rejected"


@pytest.mark.django_db
def test_what_a_car_said_before_its_charge_is_adopted_once() -> None:
    row = a_station()
    needs.needs_told(row.pk, Needs(7, energy_wh=5_000), NOW)  # no word of a car makes an EVSE
    assert not EVSE.objects.exists()
    evse = EVSE.objects.create(station=row, number=1)
    needs.needs_told(row.pk, Needs(1, energy_wh=5_000), NOW)
    charge = Transaction.objects.create(station=row, evse=evse, transaction_id="t1", started_at=NOW)

    found = needs.adopt(charge, NOW + timedelta(minutes=1))

    assert found is not None and found.energy_wh == 5_000
    assert needs.adopt(charge, NOW + timedelta(hours=5)) == found


@pytest.mark.parametrize(
    ("periods", "unit", "fits"),
    [
        ([(0, 16.0, 3)], "A", True),
        ([(0, 16.2, 3)], "A", True),  # rounding
        ([(0, 20.0, 3)], "A", False),
        ([(0, 11_040.0, 3)], "W", True),  # 16 A on three phases
        ([(0, 11_040.0, 1)], "W", False),
        ([(0, 10.0, 3), (60, 20.0, 3)], "A", False),
        ([(0, 10.0, 3), (600, 32.0, 3)], "A", True),  # the limit may be another by then
        ([(-600, 32.0, 3), (-60, 16.0, 3)], "A", True),  # past
    ],
)
def test_a_car_s_own_schedule_keeps_the_limit_or_not(periods: Any, unit: str, fits: bool) -> None:
    schedule = CarSchedule(1, unit, NOW, periods)

    assert schedule.keeps(16.0, "A", NOW, NOW + timedelta(minutes=5)) is fits


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(("amps", "status"), [(16.0, "Accepted"), (32.0, "Rejected")])
async def test_a_car_that_means_to_take_too_much_is_told_so(amps: float, status: str) -> None:
    row = await sync_to_async(a_station)()
    charge = await charging(row, wanted_a=16.0)
    schedule = {"id": 1, "chargingRateUnit": "A", "chargingSchedulePeriod": [{"startPeriod": 0, "limit": amps}]}
    said = {"timeBase": datetime.now(UTC).isoformat(), "evseId": 1, "chargingSchedule": schedule}
    async with running() as gateway, station(gateway, version=V201) as bare:
        assert (await bare.ask("NotifyEVChargingSchedule", said))["status"] == status
        await written(gateway)
    kept = await ChargingNeeds.objects.aget(transaction=charge)
    assert kept.schedule_fits is (status == "Accepted") and kept.schedule["unit"] == "A"


# ---------------------------------------------------------------------- costs


class Prices:
    """Thirty cents a kilowatt-hour, whatever the hour; a fault when it is told to have one."""

    broken = False

    def cost(self, transaction: Transaction, at: datetime) -> Cost | None:
        if self.broken:
            raise RuntimeError("no prices today")
        return Cost(transaction.energy_wh / 1000 * 0.30)

    def tariff(self, station: ChargingStation, at: datetime) -> str:
        return "0.30 EUR/kWh"


@pytest.fixture
def prices() -> Any:
    known = Prices()
    before = list(costs._pricers)
    costs.offer(known)
    yield known
    costs._pricers[:] = before


def _event(kind: str, seq: int, wh: float, **more: Any) -> dict[str, Any]:
    context = {"Started": "Transaction.Begin", "Ended": "Transaction.End"}.get(kind, "Sample.Periodic")
    at = (datetime.now(UTC) - timedelta(hours=4 - seq)).isoformat()
    return {
        "eventType": kind,
        "timestamp": at,
        "triggerReason": "MeterValuePeriodic",
        "seqNo": seq,
        "evse": {"id": 1, "connectorId": 1},
        "transactionInfo": {"transactionId": "t1"},
        "meterValue": [
            {
                "timestamp": at,
                "sampledValue": [{"value": wh, "context": context, "measurand": "Energy.Active.Import.Register"}],
            }
        ],
        **more,
    }


@pytest.mark.django_db(transaction=True)
async def test_a_driver_sees_the_price_the_running_cost_and_the_final_one(prices: Prices) -> None:
    row = await sync_to_async(a_station)()
    await ChargingStation.objects.filter(pk=row.pk).aupdate(capabilities={"shows_cost": True, "shows_tariff": True})
    token = {"idToken": {"idToken": "04A1B2C3", "type": "ISO14443"}}
    async with running() as gateway, station(gateway, version=V201) as bare:
        bare.answers["CostUpdated"] = {}
        verdict = (await bare.ask("Authorize", token))["idTokenInfo"]
        assert verdict["personalMessage"]["content"] == "0.30 EUR/kWh"
        await bare.ask("TransactionEvent", _event("Started", 0, 1_000, **token))
        await bare.ask("TransactionEvent", _event("Updated", 1, 3_000))
        assert await bare.was_asked("CostUpdated") == {"totalCost": 0.6, "transactionId": "t1"}
        await bare.ask("TransactionEvent", _event("Updated", 2, 3_500))  # too soon to tell again
        ended = await bare.ask("TransactionEvent", _event("Ended", 3, 11_000))
        assert ended["totalCost"] == 3.0
        assert ended["updatedPersonalMessage"]["content"] == "10.00 kWh · 3.00 EUR"
        assert [a for a, _ in bare.asked].count("CostUpdated") == 1


@pytest.mark.django_db(transaction=True)
async def test_a_price_that_cannot_be_reckoned_holds_no_charge_up(prices: Prices) -> None:
    await sync_to_async(a_station)()
    prices.broken = True
    async with running() as gateway, station(gateway, version=V201) as bare:
        await bare.ask("TransactionEvent", _event("Started", 0, 1_000))
        assert await bare.ask("TransactionEvent", _event("Ended", 1, 2_000)) == {}


@pytest.mark.django_db(transaction=True)
async def test_a_1_6_station_shows_costs_by_the_alliance_s_messages(prices: Prices) -> None:
    row = await sync_to_async(a_station)()
    await ChargingStation.objects.filter(pk=row.pk).aupdate(capabilities={"shows_cost": True})
    async with running() as gateway, station(gateway, version=V16) as bare:
        now = (datetime.now(UTC) - timedelta(hours=2)).isoformat()
        began = (datetime.now(UTC) - timedelta(hours=3)).isoformat()
        start = {"connectorId": 1, "idTag": "04A1B2C3", "meterStart": 1_000, "timestamp": began}
        number = (await bare.ask("StartTransaction", start))["transactionId"]
        values = [{"timestamp": now, "sampledValue": [{"value": "3000", "measurand": "Energy.Active.Import.Register"}]}]
        await bare.ask("MeterValues", {"connectorId": 1, "transactionId": number, "meterValue": values})
        running_cost = await bare.was_asked("DataTransfer", lambda p: p["messageId"] == "RunningCost")
        assert running_cost["vendorId"] == "org.openchargealliance.costmsg" and '"cost": 0.6' in running_cost["data"]
        stop = {"transactionId": number, "meterStop": 11_000, "timestamp": datetime.now(UTC).isoformat()}
        assert await bare.ask("StopTransaction", stop) == {}
        final = await bare.was_asked("DataTransfer", lambda p: p["messageId"] == "FinalCost")
        assert '"cost": 3.0' in final["data"] and "10.00 kWh" in final["data"]


@pytest.mark.django_db(transaction=True)
async def test_what_a_station_shows_is_learnt_from_its_inventory() -> None:
    row = await sync_to_async(a_station)()
    data = [
        {
            "component": {"name": "TariffCostCtrlr"},
            "variable": {"name": "Enabled", "instance": instance},
            "variableAttribute": [{"value": value}],
        }
        for instance, value in (("Cost", "true"), ("Tariff", "false"))
    ]
    async with running() as gateway, station(gateway, version=V201) as bare:
        said = {"requestId": 1, "generatedAt": "2026-11-24T10:00:00Z", "seqNo": 0, "reportData": data}
        await bare.ask("NotifyReport", said)
        await eventually(lambda: ChargingStation.objects.get(pk=row.pk).capabilities.get("shows_cost") is True)
        assert (await ChargingStation.objects.aget(pk=row.pk)).capabilities["shows_tariff"] is False


# ---------------------------------------------------------------------- vendors, groups, notices


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("version", [V16, V201])
async def test_a_vendor_s_message_is_understood_or_told_that_it_is_not(version: str) -> None:
    await sync_to_async(a_station)()
    vendors.VENDORS["acme"] = {"echo": lambda session, data: ("Accepted", data)}
    try:
        async with running() as gateway, station(gateway, version=version) as bare:
            known = await bare.ask("DataTransfer", {"vendorId": "acme", "messageId": "echo", "data": "aB cD"})
            message = await bare.ask("DataTransfer", {"vendorId": "acme", "messageId": "other"})
            vendor = await bare.ask("DataTransfer", {"vendorId": "other"})
    finally:
        del vendors.VENDORS["acme"]
    assert known == {"status": "Accepted", "data": "aB cD"}
    assert (message, vendor) == ({"status": "UnknownMessageId"}, {"status": "UnknownVendorId"})


@pytest.mark.django_db(transaction=True)
async def test_a_token_is_told_with_its_group_so_that_a_master_pass_can_stop_others() -> None:
    row = await sync_to_async(a_station)()
    await IdToken.objects.acreate(site=row.site, value="MASTER", group="MASTERS")
    async with running() as gateway:
        async with station(gateway, version=V201) as bare:
            said = await bare.ask("Authorize", {"idToken": {"idToken": "master", "type": "ISO14443"}})
            assert said["idTokenInfo"]["groupIdToken"] == {"idToken": "MASTERS", "type": "Central"}
        async with station(gateway, version=V16) as bare:
            said = await bare.ask("Authorize", {"idTag": "MASTER"})
            assert said["idTagInfo"]["parentIdTag"] == "MASTERS"


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(
    ("version", "action", "payload", "meant"),
    [
        (V16, "FirmwareStatusNotification", {"status": "Installed"}, ("firmware", "Installed", None)),
        (V16, "SignedFirmwareStatusNotification", {"status": "Idle", "requestId": 4}, ("firmware", "Idle", 4)),
        (V16, "DiagnosticsStatusNotification", {"status": "UploadFailed"}, ("log", "UploadFailure", None)),
        (V16, "LogStatusNotification", {"status": "Uploaded", "requestId": 4}, ("log", "Uploaded", 4)),
        (V201, "FirmwareStatusNotification", {"status": "Installed", "requestId": 4}, ("firmware", "Installed", 4)),
        (V201, "PublishFirmwareStatusNotification", {"status": "Published", "requestId": 4, "location": ["x"]},
         ("published_firmware", "Published", 4)),
        (V201, "LogStatusNotification", {"status": "Uploading", "requestId": 4}, ("log", "Uploading", 4)),
        (V201, "ReservationStatusUpdate", {"reservationId": 4, "reservationUpdateStatus": "Expired"},
         ("reservation", "Expired", 4)),
    ],
)  # fmt: skip
async def test_how_far_a_station_is_goes_to_whoever_waits_for_it(
    version: str, action: str, payload: dict[str, Any], meant: tuple[Any, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    from csms import notices
    from csms.vocabulary import Subject

    heard: list[tuple[Any, ...]] = []
    follower = lambda pk, notice: heard.append((str(notice.subject), notice.status, notice.request_id))  # noqa: E731
    monkeypatch.setattr(notices, "FOLLOWERS", dict.fromkeys(Subject, (follower,)))
    await sync_to_async(a_station)()
    async with running() as gateway, station(gateway, version=version) as bare:
        assert await bare.ask(action, payload) == {}
        await written(gateway)
    assert heard == [meant]


@pytest.mark.django_db(transaction=True)
async def test_a_network_profile_s_secrets_are_blank_in_the_message_log() -> None:
    row = await sync_to_async(a_station)()
    data = {
        "ocppVersion": "OCPP20", "ocppTransport": "JSON", "ocppCsmsUrl": "wss://x.org", "messageTimeout": 30,
        "securityProfile": 2, "ocppInterface": "Wireless0",
        "apn": {"apn": "internet", "apnAuthentication": "PAP", "apnPassword": "secret-a", "simPin": 1234},
        "vpn": {"server": "v", "user": "u", "password": "secret-b", "key": "secret-c", "type": "IPSec"},
    }  # fmt: skip
    async with running() as gateway, station(gateway, version=V201) as bare:
        await bare.ask("Heartbeat", {})
        payload = {"configurationSlot": 1, "connectionData": data}
        await sync_to_async(calls.send)(row, "SetNetworkProfile", payload)
        assert await bare.was_asked("SetNetworkProfile") == payload
        await written(gateway)
        await asyncio.sleep(0)
    frame = await OcppMessage.objects.aget(action="SetNetworkProfile", kind="call")
    kept = frame.raw + str(frame.payload)
    assert not [s for s in ("secret-a", "secret-b", "secret-c", "1234") if s in kept] and "internet" in kept

"""Campus Noord with everything an office looks at, a second site next to it, and the whole cast."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from django.contrib.auth.models import User
from django.utils import timezone

from csms import reports
from csms.billing_models import ChargingTariff
from csms.ledger_models import SignedMeterValue, UnmatchedEnd
from csms.models import (
    EVSE,
    ChargingStation,
    IdToken,
    MeterSample,
    OcppMessage,
    StationVariable,
    TransactionEvent,
    WantedLimit,
)
from csms.obedience_models import Alarm, StationModel, ToldLimit
from csms.reported import Part
from csms.reported_models import ChargingNeeds, ExternalLimit, MonitoringEvent, VariableMonitor
from csms.security_models import InstalledCertificate, SecurityEvent, StationCertificate
from csms.workflow_models import (
    FirmwareImage,
    FirmwareRollout,
    FirmwareUpdate,
    LocalList,
    LocalListPolicy,
    LogRequest,
    Reservation,
)
from meters.models import Device, QuarterHour, Reading, Site
from smartcharging.models import (
    AllocationRecord,
    ChargingGoal,
    Circuit,
    Feed,
    Forecast,
    GridCommand,
    Plan,
    SiteQuarter,
    TokenProfile,
    UserProfile,
    Vehicle,
)
from tests import people
from tests.webapp import campus as scenery
from tests.webapp.campus import Campus


@dataclass(frozen=True)
class Office:
    campus: Campus
    elsewhere: Site
    foreign_station: ChargingStation
    goal: ChargingGoal
    plan: Plan
    profile: UserProfile
    command: GridCommand
    cast: dict[str, User | None]

    @property
    def site(self) -> Site:
        return self.campus.site

    @property
    def station(self) -> ChargingStation:
        return self.campus.evses[0].station

    @property
    def token(self) -> IdToken:
        return self.campus.token

    @property
    def device(self) -> Device:
        return self.campus.devices["main"]


def office() -> Office:
    world = scenery.campus()
    site, evse, now = world.site, world.evses[0], timezone.now()
    elsewhere = Site.objects.create(name="Kaai 9", price_area="NL")
    foreign = ChargingStation.objects.create(identity="FAR-1", site=elsewhere, admission="accepted")
    EVSE.objects.create(station=foreign, number=1)
    profile = UserProfile.objects.create(site=site, name="fleet", priority=3, energy_wh=25_000)
    TokenProfile.objects.create(id_token=world.token, profile=profile)
    goal = scenery.goal(world, id_token=world.token)
    scenery.prices(world)
    scenery.month_peak(world)
    WantedLimit.objects.create(evse=evse, wanted_a=12, accepted_a=12, reason="limit:row 1:L2", state="accepted")
    AllocationRecord.objects.create(evse=evse, at=now, limit_a=12, reason="limit:row 1:L2")
    MeterSample.objects.create(evse=evse, transaction=world.transaction, at=now, power_w=7360, energy_wh=1_011_400)
    TransactionEvent.objects.create(
        station=evse.station,
        transaction=world.transaction,
        kind="started",
        at=now,
        received_at=now,
        content_key="k1",
        payload={"meterStart": 1_000_000},
    )
    end = TransactionEvent.objects.create(
        station=evse.station, kind="ended", at=now, received_at=now, content_key="k2", payload={"transactionId": -1}
    )
    UnmatchedEnd.objects.create(
        station=evse.station, event=end, told_id="-1", at=now, received_at=now, register_wh=1_004_000
    )
    SignedMeterValue.objects.create(station=evse.station, at=now, content_key="s1", told={"value": "OCMF|{}"})
    ChargingTariff.objects.create(site=site)
    _what_stations_report(evse, now)
    OcppMessage.objects.create(
        station=evse.station,
        at=now,
        direction="in",
        kind="call",
        message_id="m1",
        action="Heartbeat",
        payload={},
        raw='[2,"m1","Heartbeat",{}]',
    )
    StationVariable.objects.create(station=evse.station, variable="HeartbeatInterval", value="300", reported_at=now)
    security(evse.station, now)
    Reading.objects.create(device=world.devices["main"], at=now, power_w=18_400, values={"power_w": 18_400})
    Forecast.objects.create(site=site, series="pv", issued_at=now, starts_at=now, method="similar day")
    Vehicle.objects.create(site=site, name="Van 1", id_token=world.token)
    Feed.objects.create(circuit=world.circuits["row 1"], evse=evse)
    QuarterHour.objects.create(device=world.devices["main"], slot=scenery.floor(now - timedelta(days=40)))
    SiteQuarter.objects.create(site=site, slot=scenery.floor(now), grid_w=18_000)
    longer_work(world, now)
    obedience(evse, now)
    command = GridCommand.objects.create(site=site, import_limit_w=50_000, starts_at=now, reason="congestion")
    return Office(
        campus=world,
        elsewhere=elsewhere,
        foreign_station=foreign,
        goal=goal,
        plan=scenery.plan(world),
        profile=profile,
        command=command,
        cast={
            "anonymous": None,
            "stranger": people.stranger_sam(elsewhere),
            "driver": people.driver_dries(world.token),
            "viewer": people.viewer_vera(site),
            "operator": people.operator_olivia(site),
            "installer": people.installer_ivan(site),
            "superuser": people.superuser_sofie(),
        },
    )


def obedience(evse: EVSE, now: datetime) -> None:
    """How stations follow: what their model can do, a limit as it was told, and an alarm that is over."""
    station = evse.station
    ChargingStation.objects.filter(pk=station.pk).update(vendor="Ampère", model="Duo", firmware_version="3.2")
    known = {"value": "tx_default", "source": "learned", "at": now.isoformat(), "station": station.identity}
    StationModel.objects.create(vendor="Ampère", model="Duo", firmware="3.2", capabilities={"purpose": known})
    ToldLimit.objects.create(evse=evse, key="k1", at=now, wanted_a=12, reason="plan", state="measured")
    Alarm.objects.create(
        site=station.site, station=station, evse=evse, kind="not_followed", key="k1", raised_at=now, ended_at=now
    )


def security(station: ChargingStation, now: datetime) -> None:
    """What is known of the security of a station: an event, a certificate of ours, and one that it holds."""
    SecurityEvent.objects.create(
        station=station, source="station", kind="ResetOrReboot", criticality="info", at=now, received_at=now
    )
    StationCertificate.objects.create(
        station=station,
        identity=station.identity,
        serial="1f",
        issuer="CN=stations",
        subject=f"CN={station.identity}",
        fingerprint="ab" * 32,
        not_before=now,
        not_after=now + timedelta(days=365),
        signed_at=now,
    )
    InstalledCertificate.objects.create(
        station=station,
        use="CSMSRootCertificate",
        hash_algorithm="SHA256",
        issuer_name_hash="aa",
        issuer_key_hash="bb",
        serial="01",
        seen_at=now,
    )


def longer_work(world: Campus, now: datetime) -> None:
    """A list, a reservation, a rollout and a log of the first station."""
    site, station = world.site, world.evses[0].station
    LocalListPolicy.objects.create(site=site)
    LocalList.objects.create(station=station, wanted={world.token.value: ["ISO14443", "", ""]}, wanted_version=1)
    Reservation.objects.create(
        site=site, station=station, id_token=world.token, starts_at=now, ends_at=now + timedelta(hours=1)
    )
    image = FirmwareImage.objects.create(site=site, vendor="Acme", version="2.0", url="https://firmware.example/2.0")
    rollout = FirmwareRollout.objects.create(image=image, site=site)
    FirmwareUpdate.objects.create(rollout=rollout, station=station)
    LogRequest.objects.create(station=station, asked_at=now, upload_until=now + timedelta(hours=6))


def many_more(office: Office, count: int) -> None:
    """Grow every list by `count` records."""
    site, now = office.site, timezone.now()
    row = office.campus.circuits["row 1"]
    for n in range(count):
        station = ChargingStation.objects.create(identity=f"MORE-{n}", site=site, admission="accepted")
        evse = EVSE.objects.create(station=station, number=1)
        WantedLimit.objects.create(evse=evse, wanted_a=6)
        LocalList.objects.create(station=station)
        image = FirmwareImage.objects.create(site=site, vendor="Acme", version=str(n), url="https://firmware.example/")
        rollout = FirmwareRollout.objects.create(image=image, site=site)
        FirmwareUpdate.objects.create(rollout=rollout, station=station)
        LogRequest.objects.create(station=station, asked_at=now, upload_until=now + timedelta(hours=6))
        Feed.objects.create(circuit=row, evse=evse)
        device = Device.objects.create(site=site, name=f"meter {n}")
        Reading.objects.create(device=device, at=now)
        token = IdToken.objects.create(site=site, value=f"CARD{n}")
        TokenProfile.objects.create(id_token=token, profile=UserProfile.objects.create(site=site, name=f"profile {n}"))
        charge = station.transactions.create(
            transaction_id=str(n), evse=evse, id_token=token, started_at=now - timedelta(hours=1)
        )
        TransactionEvent.objects.create(
            station=station, transaction=charge, kind="started", at=now, received_at=now, content_key=f"more{n}"
        )
        MeterSample.objects.create(evse=evse, transaction=charge, at=now)
        ChargingGoal.objects.create(site=site, asked_for=charge, transaction=charge, id_token=token)
        OcppMessage.objects.create(station=station, at=now, direction="in", kind="call", action="Heartbeat")
        StationVariable.objects.create(station=station, variable="HeartbeatInterval", reported_at=now)
        AllocationRecord.objects.create(evse=evse, at=now, reason="free")
        Circuit.objects.create(site=site, name=f"circuit {n}", parent=row, limit_a=[32, 32, 32])
        GridCommand.objects.create(site=site, import_limit_w=1, starts_at=now, reason="more")
        Vehicle.objects.create(site=site, name=f"Van {n}", id_token=token)
        Reservation.objects.create(
            site=site, station=station, evse=evse, id_token=token, starts_at=now, ends_at=now + timedelta(hours=1)
        )
        Forecast.objects.create(site=site, series="pv", issued_at=now, starts_at=now, method="similar day")
        Plan.objects.create(site=site, made_at=now, starts_at=now, valid_until=now, status="optimal")


def _what_stations_report(evse: EVSE, now: datetime) -> None:
    station = evse.station
    where = {"station": station, "component": "EVSE", "variable": "Power", "number": 1}
    VariableMonitor.objects.create(**where, type="Delta", value=1, severity=5, reported_at=now)
    MonitoringEvent.objects.create(**where, at=now, received_at=now, severity=2, value="11000", content_key="m1")
    period = {"start_s": 0, "limit": 16.0, "phases": 3}
    ExternalLimit.objects.create(
        station=station, source="SO", told_at=now, schedules=[{"unit": "A", "periods": [period]}]
    )
    ChargingNeeds.objects.create(evse=evse, told_at=now, energy_wh=20_000, soc=0.4, max_a=32, departure=now)
    for kind in ("customer", "profiles"):
        reports.part_told(station.pk, Part(kind, 1, 0, True, ["Jan"]), now)

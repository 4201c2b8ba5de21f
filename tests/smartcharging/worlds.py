"""Sites to test the shell with: in the database, with measurements in Redis, and stations that are held or not."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from csms.models import EVSE, ChargingStation, Transaction, WantedLimit
from meters import live
from meters.live import connection
from meters.measurement import Measurement
from meters.models import Device, Site
from smartcharging.load import load_site
from smartcharging.models import Circuit
from smartcharging.sitefile import parse


def timezone_now() -> datetime:
    return datetime.now(UTC)


CAMPUS = """
[site]
name = "Campus"

[[circuit]]
name = "grid"
limit_a = 100
meter = "main"
fallback_a = 30

[[circuit]]
name = "row 1"
parent = "grid"
limit_a = 63

[[device]]
name = "main"
map = "eastron_sdm630"
connect = "tcp://127.0.0.1:1502?unit=1"

[[device]]
name = "roof"
kind = "pv"
circuit = "grid"
peak_w = 30000

[[device]]
name = "store"
kind = "battery"
circuit = "grid"
capacity_kwh = 50
max_charge_w = 20000
max_discharge_w = 20000

[[station]]
identity = "CS-1"
circuit = "row 1"

[[station]]
identity = "CS-2"
circuit = "row 1"
wiring = ["L2", "L3", "L1"]
priority = 3

[[station]]
identity = "HPC-1"
circuit = "grid"
current = "dc"
max_w = 50000
"""


@dataclass
class World:
    """A site at a moment, with verbs to make things happen."""

    site: Site
    now: datetime

    @classmethod
    def campus(cls, now: datetime, text: str = CAMPUS) -> World:
        world = cls(load_site(parse(text)), now)
        connection().flushdb()  # what loading rang is not what is tested
        for station in ChargingStation.objects.all():
            world.connect(station.identity)
        return world

    def evse(self, identity: str, number: int = 1) -> EVSE:
        return EVSE.objects.select_related("station").get(station__identity=identity, number=number)

    def key(self, identity: str, number: int = 1) -> str:
        return str(self.evse(identity, number).pk)

    def device(self, name: str) -> Device:
        return Device.objects.get(site=self.site, name=name)

    def node(self, name: str) -> Circuit:
        return Circuit.objects.get(site=self.site, name=name)

    def connect(self, identity: str) -> None:
        held = {"gateway": "g1", "epoch": 1, "protocol": "ocpp2.0.1", "since": self.now.isoformat()}
        connection().set(f"at:{identity}", json.dumps(held))

    def disconnect(self, identity: str) -> None:
        connection().delete(f"at:{identity}")

    def measure(self, device: str, *, ago_s: float = 0.0, **values: object) -> None:
        at = self.now - timedelta(seconds=ago_s)
        live.store(live.device_source(self.device(device).pk), Measurement(at=at, **values), None)

    def meter(self, load_a: float | tuple[float, float, float], *, ago_s: float = 0.0) -> None:
        """The main meter, in amps per phase."""
        amps = load_a if isinstance(load_a, tuple) else (load_a, load_a, load_a)
        self.measure("main", ago_s=ago_s, current_a=amps, power_w=sum(amps) * 230.0)

    def quiet_day(self, load_a: float = 10.0, soc: float = 0.5) -> None:
        """Everything is measured: a little load, no sun, a battery at rest."""
        self.meter(load_a)
        self.measure("roof", power_w=0.0, current_a=(0.0, 0.0, 0.0))
        self.measure("store", power_w=0.0, soc=soc)

    def draws(self, identity: str, current_a: tuple[float, float, float], *, ago_s: float = 0.0) -> None:
        at = self.now - timedelta(seconds=ago_s)
        body = Measurement(at=at, current_a=current_a, power_w=sum(current_a) * 230.0)
        live.store(live.evse_source(self.evse(identity).pk), body, None)

    def car(self, identity: str, *, offered_a: float | None = None, **values: object) -> Transaction:
        """A car charges since an hour; `offered_a` is the limit its station accepted a while ago."""
        evse = self.evse(identity)
        evse.status = EVSE.Status.CHARGING
        evse.save()
        charge = Transaction.objects.create(
            **{
                "transaction_id": f"t-{identity}",
                "station": evse.station,
                "evse": evse,
                "started_at": self.now - timedelta(hours=1),
                **values,
            }
        )
        if offered_a is not None:
            self.offer(identity, offered_a)
        return charge

    def offer(self, identity: str, amps: float, *, ago_s: float = 120.0, lease_s: float = 300.0) -> None:
        dc = self.evse(identity).station.current == "dc"
        WantedLimit.objects.update_or_create(
            evse=self.evse(identity),
            defaults={
                "accepted_a": None if dc else amps,
                "accepted_w": amps * 690.0 if dc else None,
                "accepted_at": self.now - timedelta(seconds=ago_s),
                "lease_until": self.now + timedelta(seconds=lease_s - ago_s),
                "state": "accepted",
            },
        )

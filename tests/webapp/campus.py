"""A site as people meet it: circuits, stations, cards, cars that charge, a day of quarter hours, prices and a plan."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any

from django.contrib.auth.hashers import make_password
from django.contrib.auth.models import User
from django.utils import timezone

from csms.models import EVSE, ChargingStation, IdToken, Transaction
from meters import live
from meters.measurement import Measurement
from meters.models import Device, QuarterHour, Site, SiteRole
from smartcharging.models import ChargingGoal, Circuit, MonthPeak, Plan, Price, Tariff

PASSWORD = "a-long-password"
SLOT = timedelta(minutes=15)


@dataclass(frozen=True)
class Campus:
    site: Site
    operator: User
    driver: User
    token: IdToken
    evses: list[EVSE]
    transaction: Transaction
    devices: dict[str, Device]
    circuits: dict[str, Circuit]


@lru_cache
def _hash() -> str:
    """Hashing is slow on purpose; once is enough for everybody here."""
    return make_password(PASSWORD)


def person(name: str, **fields: Any) -> User:
    return User.objects.create(username=name, password=_hash(), **fields)


def operator_of(site: Site, name: str = "olga", role: str = "operator") -> User:
    user = person(name)
    SiteRole.objects.create(user=user, site=site, role=role)
    return user


def floor(at: datetime) -> datetime:
    return datetime.fromtimestamp(at.timestamp() // 900 * 900, UTC)


def bare_site(name: str = "Kade 9") -> Site:
    """A site where nothing has been described yet."""
    return Site.objects.create(name=name, timezone="Europe/Brussels", price_area="BE")


def campus(now: datetime | None = None) -> Campus:
    """Campus Noord: a grid connection, two rows, six places, one car of Dirk's charging."""
    now = now or timezone.now()
    site = Site.objects.create(name="Campus Noord", timezone="Europe/Brussels", price_area="BE", demo=True)
    devices = {
        name: Device.objects.create(site=site, name=name, kind=kind)
        for name, kind in (("main", "meter"), ("roof", "pv"), ("cellar", "battery"))
    }
    grid = Circuit.objects.create(site=site, name="grid", limit_a=[250, 250, 250], meter=devices["main"])
    rows = [Circuit.objects.create(site=site, name=f"row {n}", parent=grid, limit_a=[63, 63, 63]) for n in (1, 2)]
    evses = []
    for n in range(1, 7):
        station = ChargingStation.objects.create(
            identity=f"CS-{n:03}", site=site, admission=ChargingStation.Admission.ACCEPTED
        )
        evses.append(EVSE.objects.create(station=station, number=1, status="Available", iec_state="A1"))
    driver = person("dirk", first_name="Dirk", last_name="Claes")
    token = IdToken.objects.create(site=site, value="04A1B2C3D4", driver=driver, label="Dirk's card")
    EVSE.objects.filter(pk=evses[0].pk).update(status="Charging", iec_state="C2", charging_state="Charging")
    transaction = Transaction.objects.create(
        transaction_id="1001",
        station=evses[0].station,
        evse=evses[0],
        id_token=token,
        id_token_value=token.value,
        started_at=now - timedelta(hours=2),
        last_event_at=now,
        meter_start_wh=1_000_000,
        meter_last_wh=1_011_400,
        energy_wh=11_400,
        charging_state="Charging",
    )
    return Campus(
        site=site,
        operator=operator_of(site),
        driver=driver,
        token=token,
        evses=[EVSE.objects.get(pk=e.pk) for e in evses],
        transaction=transaction,
        devices=devices,
        circuits={"grid": grid, "row 1": rows[0], "row 2": rows[1]},
    )


def live_power(campus: Campus, power_w: float = 7_360.0, at: datetime | None = None) -> None:
    live.store(
        live.evse_source(campus.evses[0].pk), Measurement(at=at or timezone.now(), power_w=power_w), campus.site.pk
    )


def connect(*evses: EVSE) -> None:
    """A gateway holds these stations."""
    for evse in evses:
        body = {"gateway": "g1", "epoch": 1, "protocol": "ocpp2.0.1", "since": timezone.now().isoformat()}
        live.connection().set(f"at:{evse.station.identity}", json.dumps(body), ex=30)


def goal(campus: Campus, **fields: Any) -> ChargingGoal:
    values = {"departure": timezone.now() + timedelta(hours=5), "energy_wh": 32_000, "source": "driver"} | fields
    return ChargingGoal.objects.create(
        site=campus.site, transaction=campus.transaction, asked_for=campus.transaction, **values
    )


def picture(campus: Campus, **changes: Any) -> dict[str, Any]:
    """What the balance would paint now; `flows` are merged, everything else replaced."""
    flows = {
        "grid_w": 18_400.0,
        "pv_w": -24_600.0,
        "battery_w": 5_000.0,
        "battery_soc": 0.64,
        "charging_w": 21_100.0,
        "building_w": 16_900.0,
        "loads_w": None,
    }
    grid = campus.circuits["grid"]
    body = {
        "at": timezone.now().isoformat(),
        "site": campus.site.pk,
        "name": campus.site.name,
        "demo": campus.site.demo,
        "flows": flows,
        "circuits": [
            _circuit(grid, None, [81.0, 74.5, 92.0], ""),
            _circuit(campus.circuits["row 1"], "grid", [58.2, 61.0, 44.1], "limit:row 1:L2"),
            _circuit(campus.circuits["row 2"], "grid", None, "", stale=True),
        ],
        "evses": [_evse(e, n) for n, e in enumerate(campus.evses)],
        "plan": None,
        "price_eur_per_mwh": 84.2,
    }
    body["flows"] = flows | changes.pop("flows", {})
    return body | changes


def _circuit(circuit: Circuit, parent: str | None, load: list[float] | None, reason: str, stale: bool = False) -> Any:
    return {
        "id": circuit.pk,
        "name": circuit.name,
        "parent": parent,
        "limit_a": circuit.limit_a,
        "load_a": load,
        "headroom_a": [0, 0, 0] if load is None else [m - x for m, x in zip(circuit.limit_a, load, strict=True)],
        "reason": reason,
        "metered": circuit.meter_id is not None,
        "stale": stale,
    }


def _evse(evse: EVSE, n: int) -> Any:
    charging = n == 0
    return {
        "id": evse.pk,
        "station": evse.station.identity,
        "name": str(evse.station),
        "number": evse.number,
        "circuit": "row 1" if n < 3 else "row 2",
        "status": evse.status,
        "iec_state": evse.iec_state,
        "connected": n != 5,
        "power_w": 7_360.0 if charging else (None if n == 5 else 0.0),
        "current_a": [10.7, 10.6, 10.7] if charging else None,
        "limit": {
            "wanted_a": 12.0 if charging else 0.0,
            "accepted_a": 12.0 if charging else 0.0,
            "measured_a": 10.7 if charging else None,
            "reason": "limit:row 1:L2" if charging else "free",
        },
        "transaction": 1 if charging else None,
    }


def publish(campus: Campus, **changes: Any) -> dict[str, Any]:
    """Store the picture and push it, as the balance does."""
    body = picture(campus, **changes)
    text = json.dumps(body)
    live.connection().set(f"now:{campus.site.pk}", text, ex=60)
    live.connection().publish(f"push:{campus.site.pk}", text)
    return body


def day_of_quarters(campus: Campus, now: datetime | None = None, hours: int = 14) -> None:
    """The last hours, measured: sun in the middle of the day, a building that works, a battery that helps."""
    last = floor(now or timezone.now())
    for n in range(hours * 4):
        at = last - n * SLOT
        clock = (at.hour + at.minute / 60 + 1) % 24
        sun = max(math.sin((clock - 7) / 11 * math.pi), 0) * 38_000 if 7 < clock < 18 else 0.0
        building = 9_000 + (11_000 * math.exp(-(((clock - 13) / 4) ** 2)))
        battery = 5_000.0 if sun > 22_000 else (-4_000.0 if clock > 18 else 0.0)
        grid = building - sun + battery + 3_000
        for name, watts in (("main", grid), ("roof", -sun), ("cellar", battery)):
            QuarterHour.objects.create(
                device=campus.devices[name],
                slot=at,
                mean_w=watts,
                import_wh=max(watts, 0) / 4,
                export_wh=max(-watts, 0) / 4,
                samples=90,
                complete=True,
            )


def prices(campus: Campus, now: datetime | None = None) -> None:
    start = floor(now or timezone.now()) - timedelta(hours=24)
    Price.objects.bulk_create(
        Price(area="BE", start=start + n * SLOT, minutes=15, eur_per_mwh=80 + 45 * math.sin(n / 96 * 4 * math.pi))
        for n in range(48 * 4)
    )
    Tariff.objects.create(site=campus.site)


def plan(campus: Campus, now: datetime | None = None, **fields: Any) -> Plan:
    now = now or timezone.now()
    slots = range(96)
    evse = [0.0 if n < 6 else (7_400.0 if n < 20 else 0.0) for n in slots]
    result = {
        "evse": {str(campus.evses[0].pk): evse},
        "transactions": {str(campus.evses[0].pk): campus.transaction.pk},
        "grid_w": [14_000 + 6_000 * math.sin(n / 12) for n in slots],
        "pv_w": [-max(20_000 - n * 900, 0) for n in slots],
        "battery_w": [3_000.0 if n < 10 else -2_000.0 for n in slots],
        "building_w": [12_000.0 for _ in slots],
        "price": [80.0 for _ in slots],
        "shortfalls": {},
    }
    values = {
        "made_at": now,
        "starts_at": floor(now),
        "valid_until": now + timedelta(minutes=20),
        "status": "optimal",
        "gap": 0.004,
        "solve_s": 0.31,
        "objective_eur": 18.42,
        "result": result,
    }
    return Plan.objects.create(site=campus.site, **(values | fields))


def month_peak(campus: Campus, peak_w: float = 42_100) -> MonthPeak:
    now = timezone.now()
    month = now.astimezone(campus.site.tz).date().replace(day=1)
    return MonthPeak.objects.create(site=campus.site, month=month, peak_w=peak_w, at=now)

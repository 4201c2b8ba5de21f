"""A small simulated site that lives in a thread of its own: stations with cars, meters and a battery behind Modbus.

The world is what an installation cannot see but must keep safe: `loads()` are the true currents in the copper, per
circuit and grid phase, sampled five times a second into `samples`.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Coroutine
from concurrent.futures import Future
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, TypeVar
from zoneinfo import ZoneInfo

from csms.simulator import Car, SimulatedStation
from meters.simulator import SimulatedBattery, SimulatedSite
from tests.scenarios.installation import free_port

T = TypeVar("T")
PHASES = ("L1", "L2", "L3")
VOLT = 230.0
GRID_A, ROW_1_A, ROW_2_A = 63.0, 40.0, 32.0
PASSWORD = "scenario-password-1"


@dataclass(frozen=True)
class Post:
    """Where a station stands: its circuit, protocol, and the grid phase of each of its own phases."""

    identity: str
    circuit: str
    protocol: str
    wiring: tuple[str, ...] = PHASES
    dc: bool = False
    priority: int = 1


POSTS = (
    Post("R1-A", "row 1", "ocpp1.6", priority=2),
    Post("R1-B", "row 1", "ocpp2.0.1", ("L2", "L3", "L1")),
    Post("R2-A", "row 2", "ocpp1.6", ("L2",)),
    Post("R2-B", "row 2", "ocpp2.0.1"),
    Post("DC-1", "grid", "ocpp2.0.1", dc=True),
)
LIMITS_A = {"grid": GRID_A, "row 1": ROW_1_A, "row 2": ROW_2_A}


@dataclass
class Sample:
    at: float
    loads: dict[str, tuple[float, float, float]]


@dataclass
class World:
    """Stations, cars, meters. Everything that touches them runs on the world's own event loop."""

    building_a: tuple[float, float, float] = (10.0, 10.0, 10.0)
    pv_w: float = 0.0
    stations: dict[str, SimulatedStation] = field(default_factory=dict)
    samples: list[Sample] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.ports = {name: free_port() for name in ("main", "pv", "battery")}
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._tasks: list[Future[Any]] = []
        self.site = SimulatedSite(
            building_w=lambda: tuple(a * VOLT for a in self.building_a),
            pv_w=lambda: self.pv_w,
            ev_current_a=lambda: self.charging_a("grid"),
            battery=SimulatedBattery(capacity_wh=20_000, max_charge_w=5_000, max_discharge_w=5_000),
        )
        self.do(self.site.start(self.ports))

    def do(self, work: Coroutine[Any, Any, T], timeout_s: float = 30.0) -> T:
        """Let the world do something, and wait for it."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(timeout_s)

    def connect(self, url: str) -> None:
        """Switch every station on."""
        for number, post in enumerate(POSTS):
            station = SimulatedStation(
                post.identity,
                url,
                password=PASSWORD,
                protocol=post.protocol,
                phases=len(post.wiring),
                max_a=60.0 if post.dc else 32.0,
                dc=post.dc,
                max_w=40_000.0 if post.dc else None,
                meter_interval_s=1.0,
                tick_s=0.1,
                seed=number,
            )
            self.stations[post.identity] = station
            self._tasks.append(asyncio.run_coroutine_threadsafe(station.run(), self._loop))
        self._tasks.append(asyncio.run_coroutine_threadsafe(self._sample(), self._loop))
        for station in self.stations.values():
            self.do(station.wait_online(60), 70)

    async def _sample(self) -> None:
        while True:
            self.samples.append(Sample(time.monotonic(), self.loads()))
            await asyncio.sleep(0.2)

    def charging_a(self, circuit: str) -> tuple[float, float, float]:
        """What the cars below a circuit take, on grid phases."""
        total = dict.fromkeys(PHASES, 0.0)
        for post in POSTS:
            if circuit not in ("grid", post.circuit) or post.identity not in self.stations:
                continue
            for phase, amps in zip(post.wiring, self.stations[post.identity].current_a(1), strict=False):
                total[phase] += amps
        return (total["L1"], total["L2"], total["L3"])

    def loads(self) -> dict[str, tuple[float, float, float]]:
        """The true net current of each circuit per grid phase."""
        shared = (self.site.pv_w() + self.site.battery_w()) / 3 / VOLT
        a, b, c = (x + y + shared for x, y in zip(self.building_a, self.charging_a("grid"), strict=True))
        return {"grid": (a, b, c), "row 1": self.charging_a("row 1"), "row 2": self.charging_a("row 2")}

    def above_limit(self, since: float, until: float) -> list[tuple[str, float, tuple[float, float, float]]]:
        """The samples of a span in which some circuit was above its limit."""
        return [
            (name, round(sample.at - since, 1), load)
            for sample in self.samples
            if since <= sample.at <= until
            for name, load in sample.loads.items()
            if max(load) > LIMITS_A[name] + 0.2
        ]

    def charge(self, identity: str, token: str, **car: Any) -> None:
        """A car arrives, plugs in and its driver holds a card to the reader."""
        values = {"battery_wh": 60_000, "soc": 0.2, "delay_s": 0.3, "max_dc_w": 40_000, **car}

        async def arrive() -> str:
            self.stations[identity].plug(1, Car(**values))
            return await self.stations[identity].tap(1, token)

        answer = self.do(arrive())
        assert answer == "Accepted", answer

    def leave(self, identity: str) -> None:
        async def go() -> None:
            self.stations[identity].unplug(1)

        self.do(go())

    def stop(self) -> None:
        for task in self._tasks:
            task.cancel()

        async def settle() -> None:
            others = asyncio.all_tasks() - {asyncio.current_task()}
            for task in others:
                task.cancel()
            await asyncio.gather(*others, return_exceptions=True)

        self.do(self.site.stop())
        self.do(settle())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)

    def site_file(self) -> str:
        """The one file that describes this site."""
        stations = "\n".join(
            f"""
[[station]]
identity = "{post.identity}"
circuit = "{post.circuit}"
wiring = {list(post.wiring)}
{'current = "dc"' if post.dc else ""}
{"max_w = 40000" if post.dc else ""}
max_a = {60 if post.dc else 32}
fail_safe_a = 6
priority = {post.priority}
password = "{PASSWORD}"
""".replace("'", '"')
            for post in POSTS
        )
        # The profile's clock time lies six hours ahead whenever the scenario runs.
        departure = (datetime.now(ZoneInfo("Europe/Brussels")) + timedelta(hours=6)).strftime("%H:%M")
        return f"""
[site]
name = "Scenario"
timezone = "Europe/Brussels"
latitude = 51.05
longitude = 3.72
price_area = "BE"

# No capacity tariff: what holds a car back here is copper, whatever the quarter of the hour.
[tariff]
peak_eur_per_kw_month = 0

[[circuit]]
name = "grid"
limit_a = {GRID_A:.0f}
margin_a = 1
meter = "main"
fallback_a = 35

[[circuit]]
name = "row 1"
parent = "grid"
limit_a = {ROW_1_A:.0f}

[[circuit]]
name = "row 2"
parent = "grid"
limit_a = {ROW_2_A:.0f}

[[device]]
name = "main"
kind = "meter"
map = "eastron_sdm630"
connect = "tcp://127.0.0.1:{self.ports["main"]}?unit=1"
circuit = "grid"
poll_s = 0.5

[[device]]
name = "roof"
kind = "pv"
map = "sunspec_inverter"
connect = "tcp://127.0.0.1:{self.ports["pv"]}?unit=1"
circuit = "grid"
peak_w = 30000

[[device]]
name = "store"
kind = "battery"
map = "sunspec_storage"
connect = "tcp://127.0.0.1:{self.ports["battery"]}?unit=1"
circuit = "grid"
capacity_kwh = 20
max_charge_w = 5000
max_discharge_w = 5000
{stations}
[[user_profile]]
name = "fleet"
priority = 3
departure = "{departure}"
energy_kwh = 25

[[user_profile]]
name = "visitor"
priority = 1
mode = "fast"
energy_kwh = 10

[[id_token]]
value = "04A1B2C3D4"
profile = "fleet"

[[id_token]]
value = "04FFFFFFFF"
profile = "visitor"

[[id_token]]
value = "04B10C4ED0"
profile = "visitor"
"""

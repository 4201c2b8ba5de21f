"""The demo's world: simulated stations and a Modbus site around them, and people who come and go.

One event loop owns it all. The clock is the real one: the day in progress is entered in its middle, with the cars of
this morning already plugged in and partly charged. Who comes when is drawn from the session set by date, so the same
day looks the same however often it is entered.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from csms.models import PHASE_NAMES
from csms.simulator import SimulatedStation
from csms.simulator.station import Protocol
from meters.simulator import SimulatedBattery, SimulatedSite
from smartcharging.sitefile import SiteFile, StationTable
from webapp.demo import cars
from webapp.demo.installation import MODBUS_NAMES
from webapp.demo.past import HALL_LIGHTS_W
from webapp.demo.people import DRIVER_PLACE, Place, Stay, free_place, present
from webapp.demo.replay import Replay

log = logging.getLogger(__name__)

STARTS_WITHIN_S = 12.0  # the cars that are there at the start are plugged in one after the other
BADGE_AFTER_S = (4.0, 20.0)
LOOK_S = 2.0
ONLINE_WITHIN_S = 20.0

VERSIONS: dict[str, Protocol] = {
    "NOORD-01": "ocpp2.0.1",
    "NOORD-02": "ocpp1.6",
    "NOORD-03": "ocpp2.0.1",
    "NOORD-04": "ocpp1.6",
    "NOORD-05": "ocpp2.0.1",
    "NOORD-06": "ocpp1.6",
    "NOORD-07": "ocpp2.0.1",
    "NOORD-08": "ocpp1.6",
    "NOORD-09": "ocpp2.0.1",
    "NOORD-10": "ocpp1.6",
    "SNEL-1": "ocpp2.0.1",
    "SNEL-2": "ocpp1.6",
}
"""What each station speaks. A property of the box: the site file knows nothing of it."""


def utc_now() -> datetime:
    return datetime.now(UTC)


class World:
    """Everything simulated on the demo site."""

    def __init__(
        self,
        site: SiteFile,
        url: str,
        *,
        state: dict[str, Any] | None = None,
        clock: Callable[[], datetime] = utc_now,
        meter_interval_s: float = 10.0,
        ssl: Any = None,
    ) -> None:
        self.site, self.clock, self._ssl = site, clock, ssl
        kept = state or {}
        peak = next((d.options.get("peak_w", 0.0) for d in site.devices if d.kind == "pv"), 0.0)
        self.replay = Replay(ZoneInfo(site.site.timezone), peak)
        self.stations = {s.identity: self._station(s, url, meter_interval_s, kept) for s in site.stations}
        self.wiring = {s.identity: s.phases for s in site.stations}
        self.modbus = SimulatedSite(
            building_w=lambda: self.replay.building_w(self.clock()),
            pv_w=lambda: self.replay.pv_w(self.clock()),
            ev_current_a=self.charging_a,
            sub={"hall": self.hall_w},
            battery=self._battery(kept),
            pv_peak_w=peak,
        )
        self._stays: list[Stay] = []
        self._rng = random.Random(clock().date().isoformat())

    def _station(self, table: StationTable, url: str, interval_s: float, kept: dict[str, Any]) -> SimulatedStation:
        station = SimulatedStation(
            table.identity,
            url,
            password=table.password,
            protocol=VERSIONS.get(table.identity, "ocpp1.6"),
            evses=table.evses,
            phases=len(table.phases),
            max_a=table.max_a,
            dc=table.current == "dc",
            max_w=table.max_w,
            station_max_a=table.station_max_a,
            meter_interval_s=interval_s,
            tick_s=1.0,
            clock=self.clock,
            seed=int.from_bytes(table.identity.encode()[-4:], "big"),
            vendor="Laadplein demo",
            ssl=self._ssl,
        )
        try:
            station.recall(kept["stations"][table.identity], datetime.fromisoformat(kept["at"]))
        except (KeyError, TypeError, ValueError, AttributeError):
            log.info("%s starts anew", table.identity)  # nothing kept, or nothing that can be read
        return station

    def _battery(self, kept: dict[str, Any]) -> SimulatedBattery | None:
        table = next((d for d in self.site.devices if d.kind == "battery"), None)
        if table is None:
            return None
        low = table.options.get("min_soc", 0.05)
        return SimulatedBattery(
            capacity_wh=table.options["capacity_wh"],
            max_charge_w=table.options["max_charge_w"],
            max_discharge_w=table.options["max_discharge_w"],
            efficiency=table.options.get("efficiency", 0.95),
            soc=min(max(float(kept.get("battery_soc", 0.5)), low), 1.0),
            min_soc=low,
        )

    # --- what flows ----------------------------------------------------------------------------------------------

    def charging_a(self) -> tuple[float, float, float]:
        """All cars together, on grid phases."""
        return self._on_grid_phases(self.stations)

    def hall_w(self) -> tuple[float, float, float]:
        """What the meter of the parking hall sees: its cars and its lights."""
        a, b, c = self._on_grid_phases(i for i, s in self.stations.items() if not s.dc)
        return (a * 230 + HALL_LIGHTS_W[0], b * 230 + HALL_LIGHTS_W[1], c * 230 + HALL_LIGHTS_W[2])

    def _on_grid_phases(self, identities: Any) -> tuple[float, float, float]:
        total = dict.fromkeys(PHASE_NAMES, 0.0)
        for identity in identities:
            station = self.stations[identity]
            for outlet in station.outlets.values():
                for phase, amps in zip(self.wiring[identity], outlet.current_a, strict=False):
                    total[phase] += amps
        return (total["L1"], total["L2"], total["L3"])

    def state(self) -> dict[str, Any]:
        """What a real site would not forget."""
        return {
            "at": self.clock().isoformat(),
            "stations": {identity: station.remember() for identity, station in self.stations.items()},
            "battery_soc": round(self.modbus.battery.soc, 4) if self.modbus.battery else 0.5,
        }

    # --- life ----------------------------------------------------------------------------------------------------

    async def start_modbus(self, ports: dict[str, int]) -> dict[str, int]:
        """Open the servers, each on its port, or on a free one where that is taken; the ports in use."""
        try:
            await self.modbus.start({MODBUS_NAMES[name]: port for name, port in ports.items()})
        except OSError as error:
            log.warning("%s; taking free ports", error)
            await self.modbus.start()
        return {name: self.modbus.ports[simulated] for name, simulated in MODBUS_NAMES.items()}

    async def run(self) -> None:
        """Live until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            for station in self.stations.values():
                tasks.create_task(station.run())
            tasks.create_task(self.people())

    async def people(self) -> None:
        """Those who are there already, then whoever comes and goes."""
        # Offline a station would take any card, and tell later; better to wait a moment for the gateway.
        await asyncio.gather(*(s.wait_online(ONLINE_WITHIN_S) for s in self.stations.values()), return_exceptions=True)
        for station in self.stations.values():
            if not station.online:
                log.warning("%s is not connected yet", station.identity)
        await self.enter()
        since = self.clock()
        while True:
            await asyncio.sleep(LOOK_S)
            now = self.clock()
            await self.look(since, now)
            since = now

    async def enter(self) -> None:
        """The day in progress: plug in whoever is there, the driver of the demo first."""
        now = self.clock()
        if DRIVER_PLACE[0] in self.stations:
            self.stations[DRIVER_PLACE[0]].plug(DRIVER_PLACE[1], cars.driver_car())
            await self._tap(DRIVER_PLACE, cars.DRIVER_TOKEN)
        self._stays = present(self.replay, now)
        pause = STARTS_WITHIN_S / max(len(self._stays), 1)
        for stay in self._stays:
            await self._come(stay, now, badge_after_s=0.2)
            await asyncio.sleep(min(pause, 1.0))

    async def look(self, since: datetime, now: datetime) -> None:
        """Let go who leaves and let in who arrives between `since` and `now`."""
        for stay in [s for s in self._stays if s.visit.leaves <= now]:
            self._stays.remove(stay)
            self.stations[stay.place[0]].unplug(stay.place[1])
        today = now.astimezone(self.replay.zone).date()
        for day in (today - timedelta(days=1), today):
            for visit in self.replay.visits(day):
                if not since < visit.arrives <= now:
                    continue
                busy = {(i, n) for i, s in self.stations.items() for n, o in s.outlets.items() if o.car is not None}
                place = free_place(visit, busy)
                if place is None:
                    log.info("%s %s finds no free place", visit.group, visit.user)
                    continue
                stay = Stay(visit, place)
                self._stays.append(stay)
                await self._come(stay, now, self._rng.uniform(*BADGE_AFTER_S))

    async def _come(self, stay: Stay, now: datetime, badge_after_s: float) -> None:
        identity, number = stay.place
        station = self.stations[identity]
        if station.outlets[number].car is not None:
            return
        station.plug(number, cars.car_for(stay.visit, stay.place, now))
        await asyncio.sleep(badge_after_s)
        await self._tap(stay.place, cars.token_at(stay.place))

    async def _tap(self, place: Place, token: str) -> None:
        answer = await self.stations[place[0]].tap(place[1], token)
        if answer != "Accepted":
            log.warning("%s/%s: the card was answered with %s", *place, answer)

    async def stop(self) -> None:
        """The power goes off: charges end and are told, as far as there is a connection; then the servers close."""
        for station in self.stations.values():
            for outlet in station.outlets.values():
                station.stop(outlet, "PowerLoss", "AbnormalCondition")
        for _ in range(20):
            if not any(s.online and s.unsent for s in self.stations.values()):
                break
            await asyncio.sleep(0.1)
        await self.modbus.stop()

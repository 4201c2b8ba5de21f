"""A simulated charging station: what it does, whichever version it speaks.

It lives on its own ticker, connected or not: currents flow, registers count, leases run out.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from csms.profiles import (
    ChargingProfile,
    Profiles,
    Purpose,
    Span,
    Supply,
    Unit,
    clear,
    composite,
    end_transaction,
    install,
    limit_at,
)
from csms.simulator.car import Car
from csms.simulator.chores import Chores
from csms.simulator.dialect import Dialect
from csms.simulator.link import Link
from csms.simulator.metering import MEASURANDS
from csms.simulator.outlet import Badge, Charge, Outlet, Phases
from csms.simulator.station16 import Station16
from csms.simulator.station201 import Station201
from csms.simulator.temper import Temper

Protocol = Literal["ocpp1.6", "ocpp2.0.1"]


def utc_now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class Received:
    """One call the station received, as it came over the wire."""

    action: str
    payload: dict[str, Any]
    at: datetime


class SimulatedStation:
    """One station and its outlets. `url` is the address without the identity: `ws://host:9000/ocpp`.

    `max_a`, `max_w`: per EVSE, at the AC input; `station_max_a`: for all its EVSEs together, divided evenly over those
    in use. `phases`: that it is wired with. `keeps_profiles`: do charging profiles survive a reboot?
    `units`, `max_stack_level`, `honours_duration` and its `temper` make it one of the lesser stations of the field.
    `clock` gives its own idea of the time; `seed` makes its world repeatable.
    """

    def __init__(
        self,
        identity: str,
        url: str,
        *,
        password: str | None = None,
        protocol: Protocol = "ocpp1.6",
        evses: int = 1,
        phases: int = 3,
        max_a: float = 32.0,
        dc: bool = False,
        max_w: float | None = None,
        station_max_a: float | None = None,
        meter_interval_s: float = 10.0,
        heartbeat_s: float = 300.0,
        tick_s: float = 0.5,
        connection_timeout_s: float = 60.0,
        reboot_s: float = 1.0,
        call_timeout_s: float = 30.0,
        boot_on_reconnect: bool = False,
        keeps_profiles: bool = True,
        phase_switching: bool = False,
        units: tuple[Unit, ...] = (Unit.A, Unit.W),
        max_stack_level: int = 8,
        honours_duration: bool = True,
        temper: Temper | None = None,
        vendor: str = "Simulated",
        model: str = "",
        firmware: str = "1.0",
        clock: Callable[[], datetime] = utc_now,
        seed: int | None = None,
        ssl: Any = None,
    ) -> None:
        if phases not in (1, 2, 3):
            raise ValueError("phases: a station has 1, 2 or 3 phases")
        if protocol not in ("ocpp1.6", "ocpp2.0.1"):
            raise ValueError("protocol: ocpp1.6 or ocpp2.0.1")
        self.dialect: type[Dialect] = Station16 if protocol == "ocpp1.6" else Station201
        self.identity, self.url, self.password, self.protocol = identity, url.rstrip("/"), password, protocol
        self.phases, self.max_a, self.dc, self.max_w, self.station_max_a = phases, max_a, dc, max_w, station_max_a
        self.meter_interval_s, self.heartbeat_s, self.tick_s = meter_interval_s, heartbeat_s, tick_s
        self.clock_aligned_s = 0.0
        self.measurands: tuple[str, ...] = MEASURANDS
        self.connection_timeout_s, self.reboot_s, self.call_timeout_s = connection_timeout_s, reboot_s, call_timeout_s
        self.boot_on_reconnect, self.keeps_profiles, self.phase_switching = (
            boot_on_reconnect,
            keeps_profiles,
            phase_switching,
        )
        self.units, self.max_stack_level, self.honours_duration = units, max_stack_level, honours_duration
        self.temper = temper or Temper()
        self.vendor, self.model, self.firmware = vendor, model or ("DC" if dc else "AC"), firmware
        self.clock, self.rng, self.ssl = clock, random.Random(seed), ssl
        self.outlets = {
            n: Outlet(n, phases, max_a, dc, max_w, self.rng, float(self.rng.randrange(10_000, 9_000_000)))
            for n in range(1, evses + 1)
        }
        self.profiles: Profiles = ()
        self.received: deque[Received] = deque(maxlen=10_000)
        self.boot_reason = "PowerUp"
        self.reset_when_idle = False
        self.chores = Chores(self)
        self.settings = self.dialect.factory_settings(self)
        self._link = Link(self)
        self._afterthoughts: list[Callable[[], None]] = []
        self._charges = 0
        self._last_step: datetime | None = None
        self._next_meter: dict[int, datetime] = {}
        self._next_clock: datetime | None = None

    # --- what a person or a world does ---------------------------------------------------------------------------

    def plug(self, evse: int, car: Car) -> None:
        """Put the plug in. A badge or remote start that waits for it starts the charge."""
        outlet = self.outlets[evse]
        if outlet.car is not None:
            raise ValueError(f"evse: {self.identity}/{evse} has a car already")
        outlet.car, outlet.finished = car, False
        self._report(outlet)
        self._start_if_ready(outlet)

    def unplug(self, evse: int) -> Car | None:
        """Pull the plug out; a running charge ends. The car, if there was one."""
        outlet = self.outlets[evse]
        car = outlet.car
        if car is None:
            return None
        self.stop(outlet, "EVDisconnected", "EVDeparted")
        car.forget_offers()
        outlet.car, outlet.finished = None, False
        self.temper.left(evse)
        self._still(outlet)
        self._report(outlet)
        return car

    async def tap(self, evse: int, id_token: str, id_token_type: str = "ISO14443") -> str:  # noqa: S107
        """Hold a card to the reader. The answer: Accepted, or the CSMS's word of refusal.

        The card of the running charge stops it. Without a connection a station that may charge offline accepts.
        """
        outlet = self.outlets[evse]
        if outlet.charge is not None:
            if outlet.charge.id_token.upper() != id_token.upper():
                return "ConcurrentTx"
            self.stop(outlet, "Local", "StopAuthorized")
            return "Accepted"
        if self.chores.turns_away(evse, id_token):
            return "Reserved"
        status = await self._authorize(id_token, id_token_type)
        if status == "Accepted" and outlet.charge is None:
            outlet.badge = Badge(id_token, id_token_type, self.clock())
            self._report(outlet)
            self._start_if_ready(outlet)
        return status

    def crash(self) -> None:
        """Go down without a word, and come back with a boot."""
        if not self.keeps_profiles:
            self.profiles = ()
        self.boot_reason = "Watchdog"
        self._link.crash()

    def fault(self, evse: int, error_code: str = "InternalError") -> None:
        """Break something; an empty code mends it."""
        outlet = self.outlets[evse]
        outlet.error = error_code
        if error_code:
            self.stop(outlet, "Other", "AbnormalCondition")
        self._report(outlet)

    async def drop(self, offline_s: float = 0.0) -> None:
        """Lose the connection, and do not come back before `offline_s`."""
        self._link.block(offline_s)
        await asyncio.sleep(0)

    # --- what can be seen of it ----------------------------------------------------------------------------------

    @property
    def online(self) -> bool:
        """Connected, and accepted by the CSMS."""
        return self._link.accepted.is_set()

    async def wait_online(self, timeout_s: float = 10.0) -> None:
        await asyncio.wait_for(self._link.accepted.wait(), timeout_s)

    @property
    def unsent(self) -> int:
        """Messages about transactions the CSMS has not answered yet."""
        return self._link.unsent

    @property
    def connections(self) -> int:
        """How often it has connected."""
        return self._link.connections

    def current_a(self, evse: int) -> Phases:
        """On the station's own phases."""
        return self.outlets[evse].current_a

    def power_w(self, evse: int) -> float:
        return self.outlets[evse].power_w

    def status(self, evse: int) -> str:
        """The state in the words of 1.6, whichever version it speaks."""
        return self._word(self.outlets[evse])

    def limit_a(self, evse: int) -> float:
        """What its profiles and its hardware allow now, in A per phase."""
        return self._limit(self.outlets[evse], Unit.A)[0]

    def calls(self, action: str) -> list[dict[str, Any]]:
        """The payloads of every call of this action it received, oldest first."""
        return [r.payload for r in self.received if r.action == action]

    # --- the life of a charge ------------------------------------------------------------------------------------

    async def _authorize(self, id_token: str, id_token_type: str) -> str:
        if not self.online:
            return "Accepted"  # LocalAuthorizeOffline, AllowOfflineTxForUnknownId
        answer = await self._link.ask(lambda: self.dialect.authorize(id_token, id_token_type))
        return "Accepted" if answer is None and not self.online else self.dialect.verdict(answer)

    def _start_if_ready(self, outlet: Outlet) -> None:
        if outlet.badge is None or outlet.car is None or outlet.charge is not None:
            return
        if not outlet.operative or outlet.error:
            return
        badge, outlet.badge = outlet.badge, None
        self._charges += 1
        charge = Charge(
            self.dialect.new_transaction_id(),
            badge.id_token,
            badge.id_token_type,
            self.clock(),
            outlet.energy_wh,
            number=self._charges,
            remote_start_id=badge.remote_start_id,
            remote=badge.remote,
            reservation_id=self.chores.use(outlet.number, badge.id_token),
        )
        outlet.charge, outlet.finished = charge, False
        if self.meter_interval_s > 0:
            self._next_meter[outlet.number] = charge.started_at + timedelta(seconds=self.meter_interval_s)
        if badge.remote:
            self.temper.left(outlet.number)
        self.dialect.tell_started(self, outlet, charge)
        if badge.profile is not None:
            self.set_profile(replace(badge.profile, evse=outlet.number))
        self._relive()

    def judged(self, outlet: Outlet, charge: Charge, status: str) -> None:
        """The CSMS's word on the token of a charge that has begun: a refused one is stopped."""
        if status != "Accepted" and outlet.charge is charge:
            self.stop(outlet, "DeAuthorized", "Deauthorized")

    def stop(self, outlet: Outlet, reason: str, trigger: str) -> None:
        """End the running charge, if there is one. `reason` is common to both versions, `trigger` is 2.0.1's."""
        charge = outlet.charge
        if charge is None:
            return
        outlet.charge, outlet.finished = None, True
        self._still(outlet)
        charge.stop_reason, charge.ended_at = reason, self.clock()
        self.profiles = end_transaction(self.profiles, outlet.number)
        self._next_meter.pop(outlet.number, None)
        self.dialect.tell_ended(self, outlet, charge, trigger)
        if outlet.inoperative_later:
            outlet.operative, outlet.inoperative_later = False, False
        self._report(outlet)

    def remember(self) -> dict[str, Any]:
        """What a station keeps through a power cut: its registers, and the charges that run. Fits JSON."""
        return {
            str(n): {
                "register_wh": round(outlet.energy_wh, 1),
                "charge": outlet.charge.to_dict() if outlet.charge is not None and outlet.charge.id else None,
            }
            for n, outlet in self.outlets.items()
        }

    def recall(self, kept: dict[str, Any], at: datetime) -> None:
        """Wake up after a power cut at `at`: registers go on, and charges that ran then are ended, and told so."""
        for n, outlet in self.outlets.items():
            here = kept.get(str(n), {})
            outlet.energy_wh = float(here.get("register_wh", outlet.energy_wh))
            if here.get("charge"):
                charge = Charge.from_dict(here["charge"])
                charge.stop_reason, charge.ended_at = "PowerLoss", at
                self.dialect.tell_ended(self, outlet, charge, "AbnormalCondition")

    @staticmethod
    def _still(outlet: Outlet) -> None:
        """The contactor opens."""
        outlet.current_a, outlet.power_w, outlet.offer = (0.0, 0.0, 0.0), 0.0, 0.0

    # --- what the CSMS may ask, version-free ---------------------------------------------------------------------

    def later(self, action: Callable[[], None]) -> None:
        """Do this after the answer to the present call has gone out."""
        self._afterthoughts.append(action)

    def set_profile(self, profile: ChargingProfile) -> bool:
        """Install a profile, if this station can. A transaction profile needs its transaction running."""
        if profile.schedule.unit not in self.units or profile.stack_level > self.max_stack_level:
            return False
        if profile.purpose is Purpose.STATION_EXTERNAL or profile.evse not in (0, *self.outlets):
            return False
        if profile.purpose is Purpose.TX:
            charge = self.outlets[profile.evse].charge
            if charge is None or (profile.transaction_id and charge.id and profile.transaction_id != charge.id):
                return False
        if self.temper.refuses_profile(profile):
            return False
        if self.temper.forgets_profile(profile):
            return True
        if not self.honours_duration:
            profile = replace(profile, schedule=replace(profile.schedule, duration_s=None))
        self.profiles = install(self.profiles, profile)
        self._relive()
        self.temper.took(self.outlets)
        return True

    def clear_profiles(self, **criteria: Any) -> bool:
        self.profiles, went = clear(self.profiles, **criteria)
        self._relive()
        return bool(went)

    def schedule(self, evse: int, duration_s: int, unit: Unit | None) -> tuple[datetime, Unit, tuple[Span, ...]]:
        """The composite schedule as it would be answered. EVSE 0 is the whole station."""
        start = self.clock().replace(microsecond=0)
        unit = unit or (Unit.W if self.dc else Unit.A)
        charge = self.outlets[evse].charge if evse else None
        spans = composite(
            self.profiles,
            start,
            duration_s,
            evse=evse,
            unit=unit,
            supply=self._supply(evse),
            transaction_id=self._transaction_key(charge),
            charging_since=charge.started_at if charge else start,
            station_share=self._share(),
        )
        return start, unit, spans

    def remote_start(
        self,
        evse: int | None,
        token: str,
        kind: str = "Central",
        remote_start_id: int | None = None,
        profile: ChargingProfile | None = None,
    ) -> Outlet | None:
        """Take a remote start. The outlet it will be on, or None when it is refused."""
        if evse is not None:
            candidates = [self.outlets[evse]] if evse in self.outlets else []
        else:
            candidates = sorted(self.outlets.values(), key=lambda o: o.car is None)
        free = [o for o in candidates if o.charge is None and o.badge is None and o.operative and not o.error]
        free = [o for o in free if not self.chores.turns_away(o.number, token)]
        if not free:
            return None
        outlet = free[0]
        outlet.badge = Badge(token, kind, self.clock(), True, remote_start_id, profile)
        self.later(lambda: self._start_if_ready(outlet))
        self.later(lambda: self._report(outlet))
        return outlet

    def remote_stop(self, transaction_id: str) -> bool:
        for outlet in self.outlets.values():
            if outlet.charge is not None and outlet.charge.id == transaction_id:
                self.later(lambda outlet=outlet: self.stop(outlet, "Remote", "RemoteStop"))  # type: ignore[misc]
                return True
        return False

    def reset(self, *, hard: bool, reason: str) -> None:
        """Reboot after the answer: charges end, the connection goes, and it comes back with a boot."""

        def reboot() -> None:
            for outlet in self.outlets.values():
                self.stop(outlet, "HardReset" if hard else "SoftReset", "ResetCommand")
                outlet.badge = None
            if not self.keeps_profiles:
                self.profiles = ()
            self.boot_reason = reason
            self._link.reboot()

        self.later(reboot)

    def install_firmware(self, version: str) -> None:
        """Restart with another version."""
        self.firmware = version
        self.settings = self.dialect.factory_settings(self)
        self.reset(hard=False, reason="FirmwareUpdate")
        self.run_afterthoughts()

    def unlock(self, evse: int) -> bool:
        outlet = self.outlets.get(evse)
        if outlet is None:
            return False
        self.later(lambda: self.stop(outlet, "UnlockCommand", "UnlockCommand"))
        return True

    def set_operative(self, evse: int, operative: bool) -> str:
        """Accepted, or Scheduled when a charge still runs. EVSE 0 is every one."""
        answer = "Accepted"
        for outlet in [self.outlets[evse]] if evse else list(self.outlets.values()):
            if not operative and outlet.charge is not None:
                outlet.inoperative_later, answer = True, "Scheduled"
                continue
            outlet.operative, outlet.inoperative_later = operative, False
            self.later(lambda outlet=outlet: self._report(outlet))  # type: ignore[misc]
        return answer

    def repeat_status(self, evse: int | None) -> None:
        """Say the present status again, asked for or after a connection."""
        for outlet in [self.outlets[evse]] if evse else list(self.outlets.values()):
            outlet.told.clear()
            self._report(outlet)

    # --- time ----------------------------------------------------------------------------------------------------

    def step(self, now: datetime) -> None:
        """Live on to `now`: limits, currents, energy, and whatever there is to tell about them."""
        seconds = max((now - self._last_step).total_seconds(), 0.0) if self._last_step else 0.0
        self._last_step = now
        self.chores.step(now)
        for outlet in self.outlets.values():
            self._forget_old_badge(outlet, now)
            unit = Unit.W if self.dc else Unit.A
            value, phases = self._limit(outlet, unit)
            if self.temper.follows_nothing:
                value = (self.max_w or self.max_a * 690.0) if self.dc else self.max_a
            value = self.temper.holds_back(outlet.number, value, unit, outlet.charge is not None)
            outlet.step(value, phases, now, seconds)
            self._report(outlet)
            due = self._next_meter.get(outlet.number)
            if outlet.charge is not None and due is not None and now >= due:
                self._next_meter[outlet.number] = now + timedelta(seconds=self.meter_interval_s)
                self.dialect.tell_meter(self, outlet, outlet.charge, now)
        self._aligned(now)
        if self.reset_when_idle and all(o.charge is None for o in self.outlets.values()):
            self.reset_when_idle = False
            self.reset(hard=False, reason="ScheduledReset")
            self.run_afterthoughts()

    def _relive(self) -> None:
        """A limit changed: let it count at once and not at the next tick."""
        self.step(max(self.clock(), self._last_step or self.clock()))

    def _aligned(self, now: datetime) -> None:
        """Clock-aligned values, of every outlet, in use or not."""
        if self.clock_aligned_s <= 0:
            self._next_clock = None
            return
        grid = self.clock_aligned_s
        if self._next_clock is not None and now >= self._next_clock:
            for outlet in self.outlets.values():
                self.dialect.tell_aligned(self, outlet, self._next_clock)
        if self._next_clock is None or now >= self._next_clock:
            self._next_clock = datetime.fromtimestamp((now.timestamp() // grid + 1) * grid, UTC)

    def _forget_old_badge(self, outlet: Outlet, now: datetime) -> None:
        if outlet.badge is not None and (now - outlet.badge.at).total_seconds() > self.connection_timeout_s:
            outlet.badge = None

    def _limit(self, outlet: Outlet, unit: Unit) -> tuple[float, int]:
        limit = limit_at(
            self.profiles,
            self.clock(),
            evse=outlet.number,
            unit=unit,
            supply=self._supply(outlet.number),
            transaction_id=self._transaction_key(outlet.charge),
            charging_since=outlet.charge.started_at if outlet.charge else None,
            station_share=self._share(),
        )
        assert limit.value is not None  # the hardware always limits
        return limit.value, limit.phases if self.phase_switching else self.phases

    def _supply(self, evse: int) -> Supply:
        count = 1 if evse else len(self.outlets)
        most = self.max_a * count
        if self.station_max_a is not None:
            most = min(most, self.station_max_a * (self._share() if evse else 1.0))
        car = self.outlets[evse].car if evse else None
        phases = self.phases if car is None or not self.temper.watts_undivided else min(self.phases, car.phases)
        return Supply(230.0, phases, most, self.max_w * count if self.max_w else None)

    def _share(self) -> float:
        """How a station maximum is divided: evenly over the outlets in use."""
        return 1 / max(sum(o.charge is not None for o in self.outlets.values()), 1)

    @staticmethod
    def _transaction_key(charge: Charge | None) -> str | None:
        return None if charge is None else charge.id or ""

    # --- telling -------------------------------------------------------------------------------------------------

    def _word(self, outlet: Outlet) -> str:
        if outlet.error:
            return "Faulted"
        if outlet.charge is None:
            if not outlet.operative:
                return "Unavailable"
            if outlet.car is None and outlet.badge is None:
                return "Available" if self.chores.kept_at(outlet.number) is None else "Reserved"
            if outlet.car is None:
                return "Preparing"
            return "Finishing" if outlet.finished else "Preparing"
        if not outlet.offering:
            return "SuspendedEVSE"
        return "Charging" if outlet.drawing else "SuspendedEV"

    def _report(self, outlet: Outlet) -> None:
        """Tell a changed status, once. While offline nothing is told: after the reconnect it is told anew."""
        word = self._word(outlet)
        if outlet.told.get("word") != word:
            outlet.told["word"] = word
            self.dialect.tell_status(self, outlet, word)

    def post(
        self, make: Callable[[], Any], *, lasting: bool = False, done: Callable[[Any], None] | None = None
    ) -> None:
        """Queue a message. One that is not lasting is dropped while there is no connection."""
        self._link.post(make, lasting=lasting, done=done)

    def heard(self, raw: str | bytes) -> str:
        """Note a call for `received`; its action, empty for what is no call."""
        with contextlib.suppress(ValueError):
            frame = json.loads(raw)
            if isinstance(frame, list) and len(frame) == 4 and frame[0] == 2:
                self.received.append(Received(frame[2], frame[3], self.clock()))
                return str(frame[2])
        return ""

    def run_afterthoughts(self) -> None:
        actions, self._afterthoughts = self._afterthoughts, []
        for action in actions:
            action()

    # --- the connection ------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Live until cancelled: tick, connect, reconnect with a growing pause."""
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._tick())
                tasks.create_task(self._link.keep())
        finally:
            await self.chores.stop()

    async def _tick(self) -> None:
        while True:
            self.step(self.clock())
            await asyncio.sleep(self.tick_s)

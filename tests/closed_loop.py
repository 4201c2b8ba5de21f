"""A site in virtual time: real cars and outlets (`csms/simulator`), the real allocator, and nothing in between but lag.

    plaza = Plaza(worlds.two_rows(…), building_a=25.0)
    plaza.post("R1-A", "row 1")
    plaza.arrive("R1-A", Car(60_000, 0.2))
    plaza.live(120)

What lies between the engine and the copper is kept as the product has it: a limit travels, is accepted, is raised at
most every five seconds, dies with its lease; a station reports every ten seconds; memory is `remember.EvseMemory`.
Two minutes of four cars take a fraction of a second and are the same every time.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from csms.simulator.car import Car
from csms.simulator.outlet import Charge, Outlet
from smartcharging.engine.grid import NOMINAL_V, Phases
from smartcharging.engine.live.allocate import allocate
from smartcharging.engine.rules import DEFAULT, Rules
from smartcharging.engine.snapshot import Allocation, BatteryState, Mode, NodeReading, Session, Snapshot
from smartcharging.engine.vehicle import minimum_a, phases_to_count_on
from smartcharging.remember import EvseMemory
from tests import worlds

PHASES = ("L1", "L2", "L3")
RAISE_EVERY_S = 5.0  # as `csms/limits.py` paces rises
LINK_S = 0.2  # from the want to the pilot
NOTICED_S = 20.0  # until a lost connection is known
LEASE_S = 300.0
ASKS_NOTHING_S = 60.0


@dataclass
class Post:
    """A station with one outlet, the car on it if there is one, and what the centre knows of both."""

    key: str
    node: int
    outlet: Outlet
    wiring: tuple[str, ...] = PHASES
    priority: int = 1
    fail_safe_a: float = 6.0
    step_a: float = 0.1
    mode: Mode = Mode.FAST
    departure: datetime | None = None
    energy_needed_wh: float | None = None
    planned_w: Callable[[datetime], float | None] = lambda _: None
    memory: EvseMemory = field(default_factory=EvseMemory)
    want_a: float | None = None
    accepted_a: float | None = None
    accepted_at: datetime | None = None
    sent_at: datetime | None = None
    lease_until: datetime | None = None
    on_way: list[tuple[datetime, float]] = field(default_factory=list)
    measured: tuple[datetime, Phases] | None = None
    arrived_at: datetime | None = None
    charges: int = 0
    asks_nothing_since: datetime | None = None
    lost_at: datetime | None = None
    ignores: bool = False  # the station says Accepted and does as it pleases
    switches: list[datetime] = field(default_factory=list)  # moments the pilot of a car that drew went to nothing
    messages: int = 0

    @property
    def dc(self) -> bool:
        return self.outlet.dc

    def stands_by_a(self, now: datetime) -> float:
        """The limit its profiles give at this moment."""
        leased = self.lease_until is not None and self.lease_until > now and self.accepted_a is not None
        return self.accepted_a if leased and self.accepted_a is not None else self.fail_safe_a

    def current_a(self) -> Phases:
        """On grid phases."""
        total = dict.fromkeys(PHASES, 0.0)
        for phase, amps in zip(self.wiring, self.outlet.current_a, strict=False):
            total[phase] += amps
        return (total["L1"], total["L2"], total["L3"])


class Plaza:
    """The whole site; `live` moves it on."""

    def __init__(
        self,
        world: worlds.World,
        building_a: float | Phases = 0.0,
        *,
        tick_s: float = 0.5,
        report_s: float = 10.0,
        battery: BatteryState | None = None,
        rules: Rules = DEFAULT,
        seed: int = 1,
    ) -> None:
        self.world, self.tick_s, self.report_s, self.rules = world, tick_s, report_s, rules
        self.building: dict[int, Phases] = {0: _every(building_a)}
        self.pv: dict[int, Phases] = {}
        self.chance = random.Random(seed)
        self.posts: dict[str, Post] = {}
        self.battery = battery
        self.battery_w = 0.0
        self.now = world.now
        self.answer = Allocation({})
        self.facts: dict[str, Any] = {}  # further facts of the snapshot: narrowings, a peak target, a valid plan
        self.silent: set[int] = set()  # nodes whose meter says nothing
        self.history: list[dict[str, float]] = []  # the limit of each post, tick by tick
        self.loads: list[tuple[Phases, ...]] = []  # the true current of each node, tick by tick
        self.carried: Mapping[str, Any] = {}

    # --- what happens ---------------------------------------------------------------------------------------------

    def post(self, key: str, at: str, **facts: Any) -> Post:
        dc, max_w = facts.pop("dc", False), facts.pop("max_w", None)
        wiring = tuple(facts.get("wiring", PHASES))
        outlet = Outlet(
            1, len(wiring), facts.pop("max_a", 60.0 if dc else 32.0), dc, max_w, random.Random(len(self.posts))
        )
        made = Post(key, self.world.node(at), outlet, **facts)
        self.posts[key] = made
        return made

    def arrive(self, key: str, car: Car, **facts: Any) -> None:
        """Plugs in and holds a card to the reader."""
        post = self.posts[key]
        post.outlet.car = car
        post.outlet.charge = Charge(f"{key}-{post.charges}", "card", "ISO14443", self.now, post.outlet.energy_wh)
        post.charges += 1
        post.arrived_at, post.asks_nothing_since = self.now, None
        post.measured = (self.now, _every(0.0))  # a charge begins with a report
        for name, value in facts.items():
            setattr(post, name, value)

    def leave(self, key: str) -> None:
        post = self.posts[key]
        if post.outlet.car is not None:
            post.outlet.car.forget_offers()
        post.outlet.car = post.outlet.charge = None
        post.arrived_at, post.measured, post.asks_nothing_since = None, None, None
        post.energy_needed_wh = post.departure = None

    def lose(self, key: str) -> None:
        self.posts[key].lost_at = self.now

    def find(self, key: str) -> None:
        """Back again, with a report as its first word."""
        post = self.posts[key]
        post.lost_at, post.sent_at = None, None
        if post.outlet.charge is not None:
            post.measured = (self.now, _every(0.0) if post.dc else post.current_a())

    def live(self, seconds: float) -> None:
        for _ in range(round(seconds / self.tick_s)):
            self.tick()

    def tick(self) -> None:
        self.now += timedelta(seconds=self.tick_s)
        for number, post in enumerate(self.posts.values()):
            self._physics(post)
            self._report(post, number)
            post.on_way = [] if post.lost_at is not None else post.on_way
        self._balance()
        self.history.append({k: self.limit_a(k) for k in self.posts})
        self.loads.append(tuple(self.current_a(n) for n in range(len(self.world.grid))))

    # --- what is seen ---------------------------------------------------------------------------------------------

    def limit_a(self, key: str) -> float:
        return self.posts[key].stands_by_a(self.now)

    def drawn_a(self, key: str) -> float:
        return max(self.posts[key].outlet.current_a)

    def reason(self, key: str) -> str:
        return self.answer.shares[key].reason

    def current_a(self, node: int) -> Phases:
        """The true net current of a node."""
        below = [n for n in range(len(self.world.grid)) if node in self.world.grid.path(n)]
        parts = [self.building.get(n, (0.0, 0.0, 0.0)) for n in below] + [
            self.pv.get(n, (0.0, 0.0, 0.0)) for n in below
        ]
        parts += [p.current_a() for p in self.posts.values() if p.node in below]
        if self.battery is not None and self.battery.node in below:
            parts.append(_every(self.battery_w / (3 * NOMINAL_V)))
        a, b, c = (sum(column) for column in zip(*parts, strict=True))
        return (a, b, c)

    def above_limit(self, slack_a: float = 0.05, since: int = 0) -> list[tuple[float, str, float]]:
        """(second, circuit, amps above) of every tick in which a circuit was above its limit."""
        found = []
        for k, loads in enumerate(self.loads[since:], start=since):
            for circuit, load in zip(self.world.grid.circuits, loads, strict=True):
                over = max(a - limit for a, limit in zip(load, circuit.limit_a, strict=True))
                if over > slack_a:
                    found.append(((k + 1) * self.tick_s, circuit.name, round(over, 2)))
        return found

    # --- the station ----------------------------------------------------------------------------------------------

    def _physics(self, post: Post) -> None:
        while post.on_way and post.on_way[0][0] <= self.now:
            _, amps = post.on_way.pop(0)
            if post.lost_at is None:
                self._accept(post, amps)
        limit = post.outlet.max_a if post.ignores else min(post.stands_by_a(self.now), post.outlet.max_a)
        most = post.outlet.max_w
        unit = 3 * NOMINAL_V if post.dc else 1.0
        limit = limit * unit if most is None else min(limit * unit, most)
        drew = post.outlet.drawing and post.outlet.offering
        post.outlet.step(limit, 3, self.now, self.tick_s)
        if drew and post.outlet.car is not None and not post.outlet.offering:
            post.switches.append(self.now)
        car = post.outlet.car
        asks = car is not None and car.wants
        if car is not None and not asks and post.asks_nothing_since is None:
            post.asks_nothing_since = self.now
        elif asks:
            post.asks_nothing_since = None

    def _accept(self, post: Post, amps: float) -> None:
        post.accepted_a, post.accepted_at = amps, self.now
        post.lease_until = self.now + timedelta(seconds=LEASE_S)

    def _report(self, post: Post, number: int) -> None:
        due = round(self.now.timestamp() / self.tick_s + 3 * number) % round(self.report_s / self.tick_s) == 0
        if due and post.lost_at is None and post.outlet.charge is not None:
            share = post.outlet.plug_w / (3 * NOMINAL_V)
            post.measured = (self.now, _every(share) if post.dc else post.current_a())

    # --- the centre -----------------------------------------------------------------------------------------------

    def _balance(self) -> None:
        self.answer = allocate(self.snapshot(), self.rules)
        self._carry()
        for post in self.posts.values():
            self._want(post, self.answer.shares[post.key].limit_a)
        if self.battery is not None:
            self.battery_w = self.answer.battery_w[self.battery.key]

    def _carry(self) -> None:
        """What the engine asks to be told again in the next cycle."""
        self.carried = {"carried": self.answer.carried}

    def _want(self, post: Post, amps: float) -> None:
        post.want_a = amps
        if post.lost_at is not None:
            return
        present = post.on_way[-1][1] if post.on_way else post.accepted_a
        fresh = post.arrived_at is not None and (post.accepted_at is None or post.accepted_at < post.arrived_at)
        renew = post.lease_until is None or (post.lease_until - self.now).total_seconds() < LEASE_S / 2
        if present is not None and not renew and abs(amps - present) < 0.05 and not (fresh and not post.on_way):
            return
        rises = present is not None and amps > present + 0.05
        if rises and post.sent_at is not None and (self.now - post.sent_at).total_seconds() < RAISE_EVERY_S:
            return
        post.sent_at = self.now
        post.messages += 1
        post.on_way.append((self.now + timedelta(seconds=LINK_S), amps))

    def snapshot(self) -> Snapshot:
        count = len(self.world.grid)
        metered = [n for n in range(count) if self.world.grid.circuits[n].metered]
        readings = {
            n: NodeReading(None) if n in self.silent else NodeReading(self.current_a(n), at=self.now) for n in metered
        }
        batteries = () if self.battery is None else (replace(self.battery, power_w=self.battery_w),)
        sessions = tuple(self._session(p) for p in self.posts.values())
        facts = {**self.carried, **self.facts}
        return replace(
            self.world, now=self.now, readings=readings, sessions=sessions, batteries=batteries, pv_a=self.pv, **facts
        )

    def _offered_a(self, post: Post) -> float | None:
        """As `gather.offered_a`: what was told to another counts with the fail-safe; on its way: the higher."""
        if post.accepted_a is None:
            return None
        accepted = post.accepted_a
        if post.arrived_at is not None and post.accepted_at is not None and post.accepted_at < post.arrived_at:
            held = post.lease_until is not None and post.lease_until > self.now
            return max(accepted, post.fail_safe_a) if held else None
        return max([accepted, *(a for _, a in post.on_way)])

    def _session(self, post: Post) -> Session:
        car, charging = post.outlet.car, post.outlet.charge is not None
        offered = self._offered_a(post)
        accepted_at = post.accepted_at
        if post.arrived_at is not None and accepted_at is not None and accepted_at < post.arrived_at:
            accepted_at = None
        memory = post.memory.with_transaction(post.charges if charging else None)
        memory = memory.with_offer(offered, accepted_at, self.now)
        wants = charging and car is not None
        if wants and post.asks_nothing_since is not None and not (offered is not None and offered < 6.0):
            wants = (self.now - post.asks_nothing_since).total_seconds() < ASKS_NOTHING_S
        measured = post.measured if charging else None
        if measured is not None and (self.now - measured[0]).total_seconds() > self.rules.ev_max_age_s:
            measured = None
        if measured is not None:
            memory = memory.with_measurement(measured[1], measured[0], wants=wants)
        post.memory = memory
        wired = ("L1" in post.wiring, "L2" in post.wiring, "L3" in post.wiring)
        phases = phases_to_count_on(memory.phases, self.now, wired) if memory.phases.drawing else wired
        noticed = post.lost_at is None or (self.now - post.lost_at).total_seconds() < NOTICED_S
        return Session(
            key=post.key,
            node=post.node,
            phases=phases,
            max_a=post.outlet.max_a,
            min_a=6.0 if post.dc else minimum_a(memory.minimum, 6.0),
            dc=post.dc,
            max_w=post.outlet.max_w,
            step_a=post.step_a,
            wants=wants,
            reachable=noticed,
            offered_a=memory.offered_a,
            offered_since=memory.since,
            offered_before_a=memory.before_a,
            lease_until=post.lease_until if memory.offered_a is not None else None,
            fail_safe_a=post.fail_safe_a,
            measured_a=None if measured is None else measured[1],
            measured_at=None if measured is None else measured[0],
            priority=post.priority,
            mode=post.mode,
            arrived_at=post.arrived_at,
            departure=post.departure,
            energy_needed_wh=post.energy_needed_wh,
            planned_w=post.planned_w(self.now),
            on_since=memory.on_since,
            off_since=memory.off_since,
        )


def _every(amps: float | Phases) -> Phases:
    return amps if isinstance(amps, tuple) else (amps, amps, amps)

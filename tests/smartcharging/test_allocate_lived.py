"""Half an hour on a site, second by second: cars that lag, ignore, come and go; stations that vanish and return.

The fuse must never feel it. Two lags are allowed for, and only these:

- load that is not ours may jump; then a circuit may be above its limit until the cars below have had time to come
  down (`REACTION_S`: the cycle, the station and the car together);
- an EVSE reports every ten seconds, so the engine may be wrong about a car for that long; cars here change their
  minds no faster than that.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from datetime import timedelta

import pytest

from smartcharging.engine.grid import Phases
from smartcharging.engine.live.allocate import allocate
from smartcharging.engine.snapshot import Allocation, Mode, NodeReading, Session
from tests import worlds
from tests.worlds import World

CYCLE_S = 5
REPORT_S = 10
LEASE_S = 60
NOTICED_S = 20  # until a lost connection is known
REACTION_S = 25


@dataclass
class Post:
    """A station with at most one car: what it allows, and what the car draws by physics."""

    key: str
    node: int
    phases: tuple[bool, bool, bool]
    chance: random.Random
    fail_safe_a: float = 6.0
    max_a: float = 32.0
    accepted_a: float = 0.0
    before_a: float = 0.0
    changed_at: int = -100
    lease_ends: int = 10**6
    lost_since: int | None = None
    returns_at: int = 0
    plugged: bool = False
    arrived_at: int | None = None
    ignores: bool = False  # takes the least it was ever allowed to stop at: never comes down again
    appetite_a: float = 32.0
    lag_s: int = 5
    drawn_a: float = 0.0
    pilots: list[float] = field(default_factory=list)  # what the station showed in the last seconds
    reported: tuple[int, Phases] | None = None
    on_since: int | None = None
    off_since: int | None = None

    def tell(self, amps: float, now: int) -> None:
        if self.lost_since is not None:
            return
        self.lease_ends = now + LEASE_S
        if amps == self.accepted_a:
            return
        self.before_a, self.accepted_a, self.changed_at = self.accepted_a, amps, now
        self.on_since = (self.on_since if self.before_a else now) if amps else None
        self.off_since = None if amps else now

    def shows(self, now: int) -> float:
        return self.accepted_a if now < self.lease_ends else self.fail_safe_a

    def live_a_second(self, now: int) -> None:
        self.pilots = [*self.pilots[-self.lag_s :], self.shows(now)]
        if not self.plugged:
            self.drawn_a = 0.0
        elif self.ignores:
            self.drawn_a = max(self.drawn_a, min(self.appetite_a, self.pilots[0]))
        else:
            allowed = self.pilots[0] if self.pilots[0] < self.drawn_a else min(self.pilots)
            self.drawn_a = min(allowed, self.appetite_a, self.drawn_a + 8.0)
            if self.drawn_a < 5.5:
                self.drawn_a = 0.0 if self.chance.random() < 0.5 else min(self.drawn_a, allowed)

    def current(self) -> Phases:
        a, b, c = (self.drawn_a * p for p in self.phases)
        return a, b, c

    def session(self, now: int) -> Session:
        known = self.lost_since is None or now - self.lost_since < NOTICED_S
        return Session(
            self.key,
            self.node,
            self.phases,
            self.max_a,
            wants=self.plugged,
            reachable=known,
            offered_a=self.accepted_a,
            offered_since=at(self.changed_at),
            offered_before_a=self.before_a,
            lease_until=at(self.lease_ends),
            fail_safe_a=self.fail_safe_a,
            measured_a=None if self.reported is None else self.reported[1],
            measured_at=None if self.reported is None else at(self.reported[0]),
            arrived_at=None if self.arrived_at is None else at(self.arrived_at),
            on_since=None if self.on_since is None else at(self.on_since),
            off_since=None if self.off_since is None else at(self.off_since),
            mode=Mode.FAST,
        )


def at(second: int):
    return worlds.NOON + timedelta(seconds=second)


class Day:
    """The site, its posts, its building; `live` moves it on one second."""

    def __init__(self, seed: int, *, posts: int = 12, troubles: bool = True) -> None:
        self.chance = random.Random(seed)
        self.world: World = worlds.five_levels()
        self.troubles = troubles
        self.posts = []
        for k in range(posts):
            node = self.world.node(f"post {1 + k % 8}")
            phases = self.chance.choice(worlds.WIRINGS)
            self.posts.append(Post(f"{k:02}", node, phases, self.chance, lag_s=self.chance.randint(1, 5)))
        self.building = {self.world.node(n): 5.0 for n in ("grid", "board", "floor 1", "floor 2")}
        self.jumped = -100
        self.silent: dict[int, int] = {}
        self.now = 0
        self.answer: Allocation = Allocation({})
        self.violations: list[str] = []
        self.served_as = 0.0

    def live(self) -> None:
        self.events()
        for post in self.posts:
            post.live_a_second(self.now)
            if self.now % REPORT_S == int(post.key) % REPORT_S and post.lost_since is None:
                post.reported = (self.now, post.current())
        if self.now % CYCLE_S == 0:
            self.balance()
        self.look()
        self.now += 1

    def balance(self) -> None:
        readings = {n: NodeReading(self.current(n)) for n in self.building if self.silent.get(n, 0) <= self.now}
        sessions = tuple(p.session(self.now) for p in self.posts)
        carried = self.answer.carried
        self.answer = allocate(self.world.but(now=at(self.now), sessions=sessions, readings=readings, carried=carried))
        for post in self.posts:
            post.tell(self.answer.shares[post.key].limit_a, self.now)

    def beyond_us(self, node: int) -> Phases:
        """What nobody can lower: the building, cars that ignore every word, stations out of reach."""
        return self.current(node, [p for p in self.posts if p.ignores or p.lost_since is not None])

    def current(self, node: int, posts: list[Post] | None = None) -> Phases:
        other = sum(a for n, a in self.building.items() if node in self.world.grid.path(n))
        total = [other] * 3
        for post in self.posts if posts is None else posts:
            if node in self.world.grid.path(post.node):
                total = [t + a for t, a in zip(total, post.current(), strict=True)]
        a, b, c = total
        return a, b, c

    def look(self) -> None:
        self.served_as += sum(p.drawn_a for p in self.posts)
        for n, circuit in enumerate(self.world.grid.circuits):
            if any(b > limit for b, limit in zip(self.beyond_us(n), circuit.limit_a, strict=True)):
                self.jumped = self.now  # and when it is over, it takes as long again
        if self.now - self.jumped <= REACTION_S:
            return
        for n, circuit in enumerate(self.world.grid.circuits):
            for phase, (amps, limit) in enumerate(zip(self.current(n), circuit.limit_a, strict=True)):
                if amps > limit + 1e-6:
                    self.violations.append(f"{self.now} s: {circuit.name} L{phase + 1} {amps:.1f} > {limit:.1f} A")

    def events(self) -> None:
        chance = self.chance
        if self.now % 40 == 20:
            post = chance.choice(self.posts)
            if post.plugged and not post.ignores and chance.random() < 0.4:
                post.plugged, post.arrived_at = False, None
            elif not post.plugged:
                post.plugged, post.arrived_at = True, self.now
                post.appetite_a = chance.choice([6.0, 10.0, 16.0, 32.0])
            else:
                post.appetite_a = chance.choice([0.0, 8.0, 16.0, 32.0])
        if self.now % 60 == 55:
            n = chance.choice(list(self.building))
            level = chance.choice([0.0, 5.0, 15.0])
            if level > self.building[n]:
                self.jumped = self.now
            self.building[n] = level
        if not self.troubles:
            return
        if self.now % 70 == 35:
            post = chance.choice(self.posts)
            if post.lost_since is None and not post.ignores:  # both at once, nobody could see
                post.lost_since, post.returns_at = self.now, self.now + chance.randint(5, 200)
        for post in self.posts:
            if post.lost_since is not None and self.now >= post.returns_at:
                post.lost_since = None
                # Its first word after coming back is what it draws and what it stands by.
                post.reported = (self.now, post.current())
                if self.now >= post.lease_ends:
                    post.before_a = max(post.accepted_a, post.fail_safe_a)
                    post.accepted_a, post.changed_at = post.fail_safe_a, self.now
        if self.now % 300 == 250:
            plugged = [p for p in self.posts if p.plugged and p.lost_since is None]
            if plugged and sum(p.ignores for p in self.posts) < 2:
                chance.choice(plugged).ignores = True
        if self.now % 200 == 150:
            self.silent[chance.choice(list(self.building))] = self.now + 60


@pytest.mark.parametrize("seed", range(5))
def test_the_fuse_never_feels_cars_that_lag_ignore_vanish_and_return(seed):
    day = Day(seed)

    for _ in range(1500):
        day.live()

    assert day.violations == []
    assert day.served_as > 1500 * 20


@pytest.mark.parametrize("seed", range(3))
def test_on_a_quiet_day_the_site_is_used_well(seed):
    """With every car hungry and nobody in trouble, what the limits allow is used, not only kept."""
    day = Day(seed, posts=16, troubles=False)
    day.events = lambda: None
    for post in day.posts:
        post.plugged, post.arrived_at, post.phases = True, 0, worlds.THREE

    for _ in range(400):
        day.live()

    assert day.violations == []
    assert min(day.current(day.world.node("floor 1"))) > 0.9 * 80 - 5 or min(day.current(1)) > 0.9 * 125


@pytest.mark.parametrize("seed", range(3))
def test_when_all_is_quiet_nobody_is_told_anything_new(seed):
    day = Day(seed, troubles=False)
    day.events = lambda: None
    for post in day.posts[:6]:
        post.plugged, post.arrived_at = True, 0
    for _ in range(300):
        day.live()

    before = {p.key: p.changed_at for p in day.posts}
    for _ in range(200):
        day.live()

    assert {p.key: p.changed_at for p in day.posts} == before

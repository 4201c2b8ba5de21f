"""Any order of events on a square, with physics in the loop: cars that lag, ignore, vanish and return.

Hypothesis invents the day and shortens it when something is found. The copper may be above a limit only for load that
nobody leads (the building, a station that ignores every word, one that is out of reach), and for as long afterwards
as it takes to lower the others.
"""

from __future__ import annotations

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from csms.simulator.car import Car
from tests import worlds
from tests.closed_loop import Plaza

KEYS = ("A", "B", "C", "D", "E")
REACTION_S = 15.0  # the way to the station, the car's own time; a station's report comes on top
posts = st.sampled_from(KEYS)


class Square(RuleBasedStateMachine):
    """Five posts on two rows below one connection; every rule is something that happens."""

    @initialize(report_s=st.sampled_from([5.0, 10.0, 30.0]))
    def open(self, report_s: float) -> None:
        world = worlds.of(
            ("grid", None, 63, {"metered": True, "margin_a": 1.0, "fallback_a": 30.0}),
            ("row 1", "grid", 40, {}),
            ("row 2", "grid", 32, {"metered": True, "fallback_a": 12.0}),
        )
        self.plaza = Plaza(world, 10.0, tick_s=1.0, report_s=report_s)
        self.plaza.post("A", "row 1", priority=3)
        self.plaza.post("B", "row 1", wiring=("L2", "L3", "L1"))
        self.plaza.post("C", "row 2", wiring=("L2",))
        self.plaza.post("D", "row 2", step_a=1.0)
        self.plaza.post("E", "grid", dc=True, max_w=40_000.0)
        self.excused_until = 0
        self.live(3)

    @rule(
        key=posts, delay_s=st.sampled_from([0.3, 4.0, 20.0]), phases=st.integers(1, 3), max_a=st.sampled_from([8, 32])
    )
    def arrives(self, key: str, delay_s: float, phases: int, max_a: int) -> None:
        if self.plaza.posts[key].outlet.car is None:
            car = Car(80_000, 0.2, phases=phases, max_a=max_a, delay_s=delay_s, max_dc_w=35_000.0)
            self.plaza.arrive(key, car)
            self.surprise(key)
        self.live(2)

    @rule(key=posts)
    def leaves(self, key: str) -> None:
        self.plaza.posts[key].ignores = False
        self.plaza.leave(key)
        self.live(1)

    @rule(key=posts, amps=st.sampled_from([0.0, 7.0, 16.0, 32.0]))
    def changes_its_mind(self, key: str, amps: float) -> None:
        car = self.plaza.posts[key].outlet.car
        if car is not None:
            car.max_a, car.max_dc_w = amps, amps * 690
            self.surprise(key)
        self.live(4)

    @rule(key=posts)
    def stops_listening(self, key: str) -> None:
        """At most one: two that ignore everything could be more than the connection bears."""
        post = self.plaza.posts[key]
        if not any(p.ignores or p.lost_at for p in self.plaza.posts.values()) and not post.dc:
            post.ignores = True
            self.excuse()
        self.live(5)

    @rule(key=posts)
    def vanishes(self, key: str) -> None:
        post = self.plaza.posts[key]
        if post.lost_at is None and not any(p.ignores for p in self.plaza.posts.values()):
            self.plaza.lose(key)
        self.live(5)

    @rule(key=posts)
    def returns(self, key: str) -> None:
        if self.plaza.posts[key].lost_at is not None:
            self.plaza.find(key)
        self.live(2)

    @rule(amps=st.sampled_from([0.0, 10.0, 25.0, 40.0]))
    def building(self, amps: float) -> None:
        self.plaza.building[0] = (amps, amps, amps)
        self.excuse()
        self.live(3)

    @rule(node=st.sampled_from([0, 2]))
    def a_meter_falls_silent_or_speaks(self, node: int) -> None:
        self.plaza.silent ^= {node}
        self.live(3)

    @rule(seconds=st.integers(5, 40))
    def nothing(self, seconds: int) -> None:
        self.live(seconds)

    @invariant()
    def every_share_is_zero_or_at_least_the_minimum(self) -> None:
        for key, share in self.plaza.answer.shares.items():
            assert share.limit_a == 0 or share.limit_a >= 6 - 1e-9, (key, share)
            assert share.reason, key

    def surprise(self, key: str) -> None:
        """Who ignores every word may take all at once; only then can the others make room."""
        if self.plaza.posts[key].ignores:
            self.excuse()

    def excuse(self) -> None:
        seconds = REACTION_S + self.plaza.report_s
        self.excused_until = len(self.plaza.loads) + round(seconds / self.plaza.tick_s)

    def live(self, seconds: int) -> None:
        for _ in range(seconds):
            self.plaza.tick()
            if self.beyond_us():
                self.excuse()
            if len(self.plaza.loads) > self.excused_until:
                assert self.plaza.above_limit(since=len(self.plaza.loads) - 1) == []

    def beyond_us(self) -> bool:
        """The building and whoever cannot be led are alone too much somewhere; or nobody could have seen them."""
        plaza = self.plaza
        if 0 in plaza.silent and max(plaza.building[0]) > 63 - 1 - 30:  # more than the fallback was commissioned for
            return True
        for n, circuit in enumerate(plaza.world.grid.circuits):
            parts = [a for m, a in plaza.building.items() if n in plaza.world.grid.path(m)]
            parts += [
                p.current_a()
                for p in plaza.posts.values()
                if n in plaza.world.grid.path(p.node) and (p.ignores or p.lost_at is not None)
            ]
            if any(sum(phase) > circuit.limit_a[f] - 7 for f, phase in enumerate(zip(*parts, strict=True))):
                return True
        return False


Square.TestCase.settings = settings(
    max_examples=15, stateful_step_count=20, deadline=None, suppress_health_check=list(HealthCheck)
)
TestSquare = Square.TestCase

"""A battery, its slow inverter and meters that look at different moments: the site is served, and nothing swings."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import product

import pytest

from smartcharging.engine.carried import Carried
from smartcharging.engine.live import battery
from smartcharging.engine.live.allocate import allocate
from smartcharging.engine.snapshot import Allocation, BatteryState, Snapshot
from tests import worlds

Watts = Callable[[int], float]
Answers = Callable[[Snapshot], Allocation]


def wishes_alone(snapshot: Snapshot) -> Allocation:
    """What batteries would do where nothing limits them: many times as quick as all of `allocate`."""
    wish = battery.wishes(snapshot)
    told = battery.to_remember(snapshot, wish)
    return Allocation({}, wish, carried=Carried(snapshot.now.timestamp(), battery_w=told))


@dataclass
class Loop:
    """A site in virtual time, second by second: what the meter and the batteries did, and what they were told."""

    building_w: Watts
    cycle_s: int = 1
    lag_s: int = 2  # an inverter does what it was told so long ago
    poll_s: int = 1  # the battery is read so often
    age_s: int = 0  # the meter's reading is so old
    skew_s: int = 0  # and the battery's, when it is read
    batteries: int = 1
    obeys: Callable[[int, float], float] = lambda second, told_w: told_w
    world: worlds.World = field(default_factory=lambda: worlds.one_board(100, metered=True))
    answers: Answers = wishes_alone
    grid_w: list[float] = field(default_factory=list)
    does_w: list[float] = field(default_factory=list)  # all together
    told_w: list[float] = field(default_factory=list)

    def run(self, seconds: int) -> Loop:
        keys = [f"battery {k}" for k in range(self.batteries)]
        sent: dict[str, list[float]] = {key: [0.0] for key in keys}
        did: dict[str, list[float]] = {key: [] for key in keys}
        seen = dict.fromkeys(keys, 0.0)
        carried: Carried | None = None
        for second in range(seconds):
            for key in keys:
                did[key].append(self.obeys(second, sent[key][-1 - self.lag_s :][0]))
                if second % self.poll_s == 0:
                    seen[key] = did[key][-1 - self.skew_s :][0]
            self.does_w.append(sum(did[key][-1] for key in keys))
            self.grid_w.append(self.building_w(second) + self.does_w[-1])
            if second % self.cycle_s == 0:
                answer = self.answers(self._snapshot(second, seen, carried))
                told, carried = answer.battery_w, answer.carried
            for key in keys:
                sent[key].append(told[key])
            self.told_w.append(sum(told.values()))
        return self

    def _snapshot(self, second: int, seen: dict[str, float], carried: Carried | None) -> Snapshot:
        shown_w = self.grid_w[-1 - self.age_s :][0]
        world = self.world.with_meter("grid", shown_w / 690, shown_w)
        states = tuple(
            BatteryState(key, len(world.grid) - 1, 0.5, 50_000, 10_000, 10_000, power_w=w) for key, w in seen.items()
        )
        return world.but(now=worlds.NOON + timedelta(seconds=second), batteries=states, carried=carried)


def a_day_in_minutes(second: int) -> float:
    """A base load, then 5 kW more, then the sun."""
    return 3_000 if second < 60 else 8_000 if second < 200 else -4_000


def slow_loops() -> Iterator[Loop]:
    kinds = product((1, 2, 5), range(7), (1, 2, 5, 10), range(4), (1, 2))
    for cycle_s, lag_s, poll_s, age_s, batteries in kinds:
        yield Loop(a_day_in_minutes, cycle_s, lag_s, poll_s, age_s, batteries=batteries)


def test_a_site_is_served_without_swinging_however_slow_its_inverters_and_meters_are():
    for loop in slow_loops():
        loop.run(235)

        assert min(loop.does_w) >= -8_001, loop  # never more than the site has use for
        assert max(loop.does_w) <= 4_001, loop
        assert max(abs(w) for w in loop.grid_w[25:60]) < 300, loop  # from the very start, without a memory
        assert max(loop.does_w[90:200]) <= -7_500, loop  # nine tenths of the jump after half a minute
        assert max(abs(w) for w in loop.grid_w[180:200]) < 300, loop
        assert max(loop.told_w[180:200]) - min(loop.told_w[180:200]) < 1, loop
        assert loop.does_w[234] >= 3_500, loop


@pytest.mark.parametrize("rate_w", [500.0, 2_000.0])
@pytest.mark.parametrize(("cycle_s", "skew_s", "lag_s"), list(product((1, 2), (0, 1, 3), (0, 2))))
def test_an_inverter_that_changes_its_power_slowly_is_waited_for(rate_w, cycle_s, skew_s, lag_s):
    now_w = 0.0

    def slowly(second: int, told_w: float) -> float:
        nonlocal now_w
        now_w += min(max(told_w - now_w, -rate_w), rate_w)
        return now_w

    loop = Loop(a_day_in_minutes, cycle_s, lag_s, skew_s=skew_s, obeys=slowly).run(200)

    assert min(loop.does_w) >= -8_001
    assert max(abs(w) for w in loop.grid_w[180:200]) < 300


@pytest.mark.parametrize(("cycle_s", "lag_s", "poll_s", "age_s"), [(1, 2, 5, 0), (2, 6, 10, 3), (5, 1, 1, 1)])
def test_it_is_as_calm_behind_all_that_the_live_layer_does(cycle_s, lag_s, poll_s, age_s):
    loop = Loop(a_day_in_minutes, cycle_s, lag_s, poll_s, age_s, answers=allocate).run(200)

    assert min(loop.does_w) >= -8_001
    assert max(abs(w) for w in loop.grid_w[180:200]) < 300
    assert max(loop.told_w[180:200]) - min(loop.told_w[180:200]) < 1


@pytest.mark.parametrize("share", [0.95, 1.04])
def test_an_inverter_that_misses_its_set_point_a_little_is_told_more_or_less(share):
    loop = Loop(a_day_in_minutes, lag_s=3, poll_s=5, obeys=lambda second, told_w: share * told_w).run(200)

    assert max(abs(w) for w in loop.grid_w[180:200]) < 50


def test_a_wobbling_load_is_not_amplified():
    loop = Loop(lambda second: 4_000 + 500 * (-1) ** (second // 3), cycle_s=2, lag_s=3, poll_s=5).run(300)

    assert max(loop.does_w[60:]) < -3_000
    assert min(loop.does_w[60:]) > -5_000


def test_what_a_battery_cannot_do_does_not_add_up():
    """It does no more than 3 kW for ten minutes; then the site needs 1 kW."""
    loop = Loop(
        lambda second: 8_000 if second < 600 else 1_000,
        poll_s=5,
        obeys=lambda second, told_w: max(told_w, -3_000.0),
    ).run(660)

    assert min(loop.told_w[:600]) > -10_000 + 500
    assert max(abs(w) for w in loop.grid_w[650:]) < 300


def test_what_a_fuse_held_back_does_not_add_up():
    world = worlds.of(("grid", None, 100, {"metered": True}), ("sub", "grid", 5, {}))
    loop = Loop(lambda second: 8_000 if second < 100 else 1_000, world=world, answers=allocate).run(120)

    assert loop.told_w[99] == pytest.approx(-5 * 690)
    assert min(loop.grid_w[115:]) > -100


def test_a_battery_that_wakes_is_not_far_from_what_is_needed():
    loop = Loop(lambda second: 5_000, poll_s=5, obeys=lambda second, told_w: told_w * (second >= 300)).run(340)

    assert min(loop.told_w) >= -6_500
    assert max(abs(w) for w in loop.grid_w[330:]) < 300


def test_without_a_memory_it_starts_from_what_is_measured():
    world = worlds.one_board(100, metered=True).with_meter("grid", 1_000 / 690, 1_000.0).with_battery(power_w=-4_000.0)
    late = Carried((worlds.NOON - timedelta(minutes=1)).timestamp(), battery_w={"battery": ((0.0, 9_000.0),)})

    assert allocate(world).battery_w["battery"] == pytest.approx(-5_000)
    assert allocate(world.but(carried=late)).battery_w["battery"] == pytest.approx(-5_000)


def test_what_is_remembered_is_what_was_told_and_comes_back_as_it_was():
    world = worlds.one_board(10, metered=True).with_meter("grid", 0.0, 0.0)
    world = world.with_battery(planned_w=15_000.0).but(plan_valid=True)

    answer = allocate(world)
    back = Carried.from_json(answer.carried.to_json())

    assert answer.battery_w["battery"] == pytest.approx(10 * 690)
    assert back.battery_w["battery"][-1] == (worlds.NOON.timestamp(), answer.battery_w["battery"])
    assert back.battery_w["battery"][0][1] == 0.0  # what it did before

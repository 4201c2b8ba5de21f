"""What holds in every world: asked of random trees, random days, and worlds that change a little.

The worst case is worked out here a second time, in plain arithmetic, from what the documents promise.
"""

from __future__ import annotations

import math
import random
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smartcharging.engine.grid import Circuit, Grid
from smartcharging.engine.limits import Rank
from smartcharging.engine.live.allocate import allocate
from smartcharging.engine.priorities import weight
from smartcharging.engine.rules import DEFAULT
from smartcharging.engine.snapshot import Mode, Narrowing, NodeReading, Session
from tests import worlds
from tests.worlds import World, phases_of

seeds = st.integers(min_value=0, max_value=10_000)
quick = settings(max_examples=60, deadline=None)
calm = {"fail_safe_a": 0.0}  # nothing is held of anybody, so the answer is the aim itself


def held(session: Session, world: World) -> float:
    """What an EVSE may be standing by: the promise of `engine/live/fleet.py`, said again."""
    now, safe = world.now, session.fail_safe_a
    if session.offered_a is None:
        return safe
    offered = session.offered_a
    if (now - session.offered_since).total_seconds() < 10 and session.offered_before_a is not None:
        offered = max(offered, session.offered_before_a)
    over = session.lease_until is not None and session.lease_until <= now
    if session.reachable:
        return max(offered, safe) if over else offered
    return safe if over and (now - session.lease_until).total_seconds() >= 10 else max(offered, safe)


def drawn(session: Session, world: World) -> tuple[float, float, float]:
    old = session.measured_at is not None and (world.now - session.measured_at).total_seconds() > (
        90 if session.reachable else 30
    )
    return (0.0, 0.0, 0.0) if session.measured_a is None or old else session.measured_a


def worst(session: Session, world: World, told: float) -> list[float]:
    level = max(held(session, world), told)
    return [max(level * on, now) for on, now in zip(phases_of(session), drawn(session, world), strict=True)]


def room(world: World, node: int) -> list[float]:
    """Amps per phase that a circuit leaves to cars."""
    circuit = world.grid.circuits[node]
    limit = [max(a - circuit.margin_a, 0.0) for a in circuit.limit_a]
    reading = world.readings.get(node)
    below = worlds.below(world, node)
    if reading is not None and reading.current_a is not None:
        ours = [sum(max(drawn(s, world)[f], 0.0) for s in below) for f in range(3)]
        infeed = sun(world, node)
        other = [max(a - o, -s) for a, o, s in zip(reading.current_a, ours, infeed, strict=True)]
        return [a - o for a, o in zip(limit, other, strict=True)]
    if circuit.metered:
        safe = [sum(s.fail_safe_a * phases_of(s)[f] for s in below) for f in range(3)]
        fallback = safe if circuit.fallback_a is None else [circuit.fallback_a] * 3
        return [min(a, b) for a, b in zip(limit, fallback, strict=True)]
    return [a + s for a, s in zip(limit, sun(world, node), strict=True)]


def sun(world: World, node: int) -> list[float]:
    """What PV feeds in below a circuit, in amps per phase, as far as it is known to be the sun."""
    if not world.pv_a:
        return [-(world.pv_w or 0.0) / 690 if node == 0 else 0.0] * 3
    below = [amps for n, amps in world.pv_a.items() if node in world.grid.path(n)]
    return [-sum(amps[f] for amps in below) for f in range(3)]


def assert_safe(world: World, answer) -> None:
    for n in range(len(world.grid)):
        below = worlds.below(world, n)
        space = room(world, n)
        for f in range(3):
            before = sum(worst(s, world, 0.0)[f] for s in below)
            after = sum(worst(s, world, answer.shares[s.key].limit_a)[f] for s in below)
            assert after <= max(space[f], before) + 1e-6, (n, f, space[f], before, after)


@pytest.mark.parametrize("seed", range(150))
def test_no_circuit_is_above_its_limit_even_in_the_worst_case(seed):
    world = worlds.lived_in(seed)

    assert_safe(world, allocate(world))


@pytest.mark.parametrize("seed", range(120))
def test_no_order_in_watts_is_exceeded_because_a_quarters_peak_is_lost(seed):
    """What is told together fits the order, or is no more than the cars had; whatever the peak says besides."""
    chance = random.Random(seed)
    world = worlds.random_site(seed, **calm)
    offered = {"offered_since": worlds.ago(20), "on_since": worlds.ago(20), "measured_at": worlds.NOON, "dc": False}
    drawing = [replace(s, offered_a=s.min_a, measured_a=times(s.min_a, s), **offered) for s in world.sessions]
    order_w, peak_w = chance.uniform(3_000, 30_000), chance.uniform(0, 12_000)
    world = world.but(sessions=tuple(drawing)).narrowed(Rank.GRID_OPERATOR, limit_w=order_w)

    answer = allocate(world.but(peak_target_w=peak_w, quarter_import_wh=chance.uniform(0, 2_000)))

    assert sum(worlds.sum_at(world, answer, world.grid.circuits[0].name)) * 230 <= order_w + 1e-3


def times(amps: float, session: Session) -> tuple[float, float, float]:
    a, b, c = (amps * p for p in phases_of(session))
    return (a, b, c)


@pytest.mark.parametrize("seed", range(60))
def test_a_site_that_settles_fits_every_limit_exactly(seed):
    world = worlds.random_site(seed, **calm)
    answer = allocate(world)

    for circuit in world.grid.circuits:
        told = worlds.sum_at(world, answer, circuit.name)
        for f in range(3):
            assert told[f] <= max(circuit.limit_a[f] - circuit.margin_a, 0) + 1e-6
        if circuit.limit_w is not None:
            assert sum(told) * 230 <= circuit.limit_w + 1e-3


@quick
@given(seeds)
def test_every_share_is_zero_or_at_least_the_minimum_and_a_step_of_the_charger(seed):
    world = worlds.lived_in(seed)
    answer = allocate(world)

    for s in world.sessions:
        amps = answer.shares[s.key].limit_a
        assert amps == 0 or amps >= s.min_a - 1e-6
        assert amps <= max(s.max_a, s.offered_a or 0.0) + 1e-6
        steps = amps / s.step_a
        assert amps == s.offered_a or steps == pytest.approx(round(steps), abs=1e-4)
        assert answer.shares[s.key].reason


@quick
@given(seeds)
def test_nobody_can_gain_without_taking_from_someone_who_has_no_more(seed):
    """The max-min certificate: whoever is below his cap sits at a full place where nobody has a larger increment.

    Among those who have time: who has none to lose gets what the plan gave him first. And who has just come is brought
    up step by step, as long as nothing is seen of what he takes.
    """
    world = worlds.random_site(seed, **calm)
    fine = {"step_a": 0.001, "departure": None}
    world = world.with_all(**fine)
    answer = allocate(world)
    on = [s for s in world.sessions if answer.shares[s.key].limit_a > 0]
    increment = {s.key: (answer.shares[s.key].limit_a - s.min_a) / weight(s) for s in on}
    slack = 0.001 * len(world.sessions) * 3 + 1e-6

    for s in on:
        new = (world.now - s.arrived_at).total_seconds() <= DEFAULT.unsure_s
        if new or answer.shares[s.key].limit_a >= s.max_a - 0.01:
            continue
        assert any(
            increment[s.key] >= max(increment[o.key] for o in sharers if o.key in increment) - 0.01
            for sharers in full_places(world, answer, s, slack)
        ), s.key


def full_places(world: World, answer, session: Session, slack: float):
    """The sessions that load each full place (circuit and phase, circuit in watts, station) on a session's path."""

    def told(s: Session, f: int) -> float:
        return answer.shares[s.key].limit_a * phases_of(s)[f]

    for n in world.grid.path(session.node):
        circuit, below = world.grid.circuits[n], worlds.below(world, n)
        for f in range(3):
            limit = max(circuit.limit_a[f] - circuit.margin_a, 0.0)
            if phases_of(session)[f] and sum(told(s, f) for s in below) >= limit - slack:
                yield [s for s in below if phases_of(s)[f]]
        everything = sum(told(s, f) for s in below for f in range(3))
        if circuit.limit_w is not None and everything >= circuit.limit_w / 230 - slack:
            yield below
    if session.group_max_a is not None:
        mates = [s for s in world.sessions if s.group == session.group]
        for f in range(3):
            if phases_of(session)[f] and sum(told(s, f) for s in mates) >= session.group_max_a - slack:
                yield [s for s in mates if phases_of(s)[f]]


@quick
@given(seeds, st.randoms(use_true_random=False))
def test_the_order_in_which_sessions_are_listed_does_not_matter(seed, chance):
    world = worlds.lived_in(seed)
    shuffled = list(world.sessions)
    chance.shuffle(shuffled)

    assert dict(allocate(world.but(sessions=tuple(shuffled))).shares) == dict(allocate(world).shares)


@quick
@given(seeds, st.floats(min_value=1.0, max_value=2.0))
def test_larger_limits_never_leave_the_worst_off_worse_off(seed, factor):
    """Max-min is the lexicographic maximum of the sorted increments, and a larger site contains the smaller one.

    Single cars may lose: a neighbour freed elsewhere takes more where both pass. So may cars when admission changes
    with mixed phases: a more urgent car that fits now may push out two less urgent ones. So this is asked where all
    are admitted both times.
    """
    world = worlds.random_site(
        seed,
        **calm,
    ).with_all(step_a=0.001, priority=1)
    wider = world.but(
        grid=Grid(
            tuple(
                replace(
                    c,
                    limit_a=tuple(a * factor for a in c.limit_a),
                    limit_w=None if c.limit_w is None else c.limit_w * factor,
                )
                for c in world.grid.circuits
            )
        )
    )
    small, large = allocate(world), allocate(wider)
    if any(s.limit_a == 0 for s in (*small.shares.values(), *large.shares.values())):
        return

    def increments(answer):
        return sorted(answer.shares[s.key].limit_a - s.min_a for s in world.sessions)

    for a, b in zip(increments(small), increments(large), strict=True):
        if abs(a - b) > 0.05:
            assert b > a
            break


@quick
@given(st.floats(min_value=6, max_value=200), st.floats(min_value=0, max_value=50), st.integers(1, 12))
def test_under_one_limit_every_car_gains_when_it_grows(limit_a, more_a, cars):
    small = allocate(worlds.one_board(limit_a).with_sessions(grid=cars).with_all(fail_safe_a=0.0))
    large = allocate(worlds.one_board(limit_a + more_a).with_sessions(grid=cars).with_all(fail_safe_a=0.0))

    served = [sum(s.limit_a > 0 for s in answer.shares.values()) for answer in (small, large)]
    assert served[1] >= served[0]
    if served[1] == served[0]:
        assert all(large.shares[k].limit_a >= s.limit_a - 1e-6 for k, s in small.shares.items())


@quick
@given(seeds, st.floats(min_value=0, max_value=200))
def test_load_on_l3_never_changes_a_car_on_l1(seed, load_a):
    world = worlds.random_site(seed, **calm)
    chance = random.Random(seed)
    sessions = [replace(s, dc=False, phases=chance.choice(worlds.WIRINGS[1:4]), group=None) for s in world.sessions]
    grid = Grid(tuple(replace(c, limit_w=None, metered=True) for c in world.grid.circuits))
    quiet = {n: NodeReading((0.0, 0.0, 0.0)) for n in range(len(grid))}
    loaded = {n: NodeReading((0.0, 0.0, load_a)) for n in range(len(grid))}
    world = world.but(grid=grid, sessions=tuple(sessions), readings=quiet)

    before, after = allocate(world), allocate(world.but(readings=loaded))

    for s in sessions:
        if not s.phases[2]:
            assert after.shares[s.key].limit_a == before.shares[s.key].limit_a


@quick
@given(
    seeds,
    st.integers(0, 6),
    st.one_of(st.none(), st.floats(0, 80)),
    st.one_of(st.none(), st.floats(0, 50_000)),
    st.integers(0, 14),
)
def test_a_narrowing_never_raises_what_a_place_may_have(seed, rank, amps, watts, node):
    world = worlds.random_site(seed, **calm)
    node %= len(world.grid)
    narrowed = world.but(narrowings=(Narrowing(rank, "x", node=node, limit_a=amps, limit_w=watts),))

    answer = allocate(narrowed)

    told = worlds.sum_at(world, answer, world.grid.circuits[node].name)
    assert amps is None or max(told) <= amps + 1e-6
    assert watts is None or sum(told) * 230 <= watts + 1e-3
    assert_safe(world, answer)


@quick
@given(seeds)
def test_an_unreachable_station_costs_the_others_what_it_holds(seed):
    world = worlds.lived_in(seed)
    answer = allocate(world.with_all(reachable=False))

    assert all(s.reason == "unreachable" for s in answer.shares.values())
    for s in world.sessions:
        assert answer.shares[s.key].limit_a <= held(replace(s, reachable=False), world) + 1e-6


@quick
@given(seeds)
def test_fire_at_the_connection_leaves_nothing(seed):
    world = worlds.lived_in(seed).with_battery()

    answer = allocate(world.narrowed(Rank.FIRE, limit_a=0.0))

    assert all(s.limit_a == 0 for s in answer.shares.values())
    assert answer.battery_w["battery"] == 0


@quick
@given(seeds, st.floats(-20_000, 20_000), st.floats(0, 1), st.booleans(), st.floats(-20_000, 20_000))
def test_a_battery_never_brings_a_circuit_over_its_limit(seed, power_w, soc, plan, planned_w):
    world = worlds.lived_in(seed)
    node = seed % len(world.grid)
    world = world.with_battery(world.grid.circuits[node].name, soc=soc, power_w=power_w, planned_w=planned_w)
    world = world.but(plan_valid=plan)

    answer = allocate(world)

    watts = answer.battery_w["battery"]
    assert -20_000 <= watts <= 20_000
    if watts > 0:
        assert soc < 1
        for n in world.grid.path(node):
            assert min(answer.headroom_a[n]) >= -1e-6
    if watts < 0:  # what it gives already goes on a moment below its least, while cars come down
        assert soc > 0.1 or (soc > 0.08 and watts >= power_w)


@quick
@given(seeds)
def test_without_cars_that_want_there_is_only_standby(seed):
    world = worlds.lived_in(seed).with_all(wants=False, reachable=True)
    answer = allocate(world)

    for s in world.sessions:
        assert answer.shares[s.key].limit_a <= s.fail_safe_a + 1e-6 or answer.shares[s.key].reason.startswith("ignores")


@pytest.mark.parametrize("mode", list(Mode))
def test_a_thousand_cars_on_a_hundred_circuits_fit(mode):
    circuits = [(Circuit("grid", None, (900.0,) * 3), None)]
    circuits += [(Circuit(f"row {r}", None, (40.0 + r % 7,) * 3), "grid") for r in range(100)]
    cars = tuple(
        Session(f"{k:04}", 1 + k % 100, worlds.WIRINGS[k % 5], 32.0, mode=mode, fail_safe_a=0.0) for k in range(1000)
    )
    world = World(worlds.NOON, Grid.build(circuits), cars).but(readings={0: NodeReading((-200.0, -200.0, -200.0))})

    answer = allocate(world)

    assert max(worlds.sum_at(world, answer, "grid")) <= 900
    assert max(worlds.sum_at(world, answer, "grid")) > (150 if mode is Mode.SURPLUS else 890)
    assert all(math.isfinite(s.limit_a) for s in answer.shares.values())

"""A site whose stations are reached over a bad line, seen from outside (R9, R15, R31): real processes, one life.

The line delays, doubles, reorders, fragments and repeats frames all the while, and breaks. Whatever happens besides: no
circuit is above its limit for longer than the protection takes, and what the stations charged is what the ledger has.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator

import psutil
import pytest

from tests.faults.proxy import FaultProxy, Odds
from tests.scenarios.installation import Installation, until
from tests.scenarios.test_whole_loop import FLEET, VISITOR, open_transactions
from tests.scenarios.world import LIMITS_A, World

pytestmark = [
    pytest.mark.scenario,
    pytest.mark.django_db,
    pytest.mark.timeout(600),
    pytest.mark.xdist_group("scenario"),
    pytest.mark.skipif("LONG_SCENARIOS" not in os.environ, reason="minutes long; set LONG_SCENARIOS=1"),
]
BAD = Odds(delay=0.05, duplicate=0.05, reorder=0.03, fragment=0.05, replay=0.03, delay_s=0.2)
PROTECTION_S = 12.0
"""From too much current to none: reading, balancing, sending, obeying, each with a noisy machine in mind."""


@pytest.fixture(scope="module")
def installation(tmp_path_factory) -> Iterator[Installation]:
    with Installation(tmp_path_factory.mktemp("i")) as running:
        yield running


@pytest.fixture(scope="module")
def world(installation: Installation, tmp_path_factory) -> Iterator[World]:
    world = World()
    file = tmp_path_factory.mktemp("site") / "site.toml"
    file.write_text(world.site_file())
    installation.manage("load_site", str(file))
    yield world
    world.stop()


@pytest.fixture(scope="module")
def line(installation: Installation, world: World) -> Iterator[FaultProxy]:
    """The bad line, with every station behind it."""
    proxy = FaultProxy(installation.ocpp_port, seed=15)
    world.do(proxy.__aenter__())
    world.connect(f"ws://127.0.0.1:{proxy.port}/ocpp/")
    proxy.odds = {"up": BAD, "down": BAD}
    yield proxy
    world.do(proxy.__aexit__())


@pytest.fixture(autouse=True)
def _say_what_happened(installation: Installation) -> Iterator[None]:
    yield
    print(installation.last_words())


def longest_above_s(world: World, since: float) -> float:
    """The longest stretch of true time in which one circuit was above its limit."""
    longest, began = 0.0, dict.fromkeys(LIMITS_A, 0.0)
    for sample in [s for s in world.samples if s.at >= since]:
        for name, load in sample.loads.items():
            if max(load) <= LIMITS_A[name] + 0.2:
                began[name] = 0.0
            else:
                began[name] = began[name] or sample.at
                longest = max(longest, sample.at - began[name])
    return longest


def test_a_bad_line_loses_no_charge_and_keeps_no_circuit_above_its_limit(world, installation, line):
    began = time.monotonic()
    cars = {"R1-A": FLEET, "R1-B": VISITOR, "R2-B": VISITOR, "DC-1": VISITOR}
    before = {identity: world.stations[identity].outlets[1].energy_wh for identity in cars}
    for identity, token in cars.items():
        world.charge(identity, token)
    for identity in cars:
        until(lambda who=identity: sum(world.stations[who].current_a(1)) > 5, 60, f"{identity} charges")
    until(lambda: max(world.loads()["grid"]) > 45, 60, "the cars use what there is")

    line.away("R1-A")  # R15: it goes on charging, and nobody can tell it to stop
    world.building_a = (38.0, 38.0, 38.0)
    until(lambda: max(world.loads()["grid"]) <= LIMITS_A["grid"], 30, "the others give way")
    time.sleep(3)
    line.back()
    world.do(world.stations["R1-A"].wait_online(60), 70)

    restarted = []
    for words in (("gateway",), ("worker",)):  # R9, R31: killed under load, one by one
        pid = installation.pid_of(*words)
        os.kill(pid, signal.SIGKILL)
        until(lambda w=words, p=pid: pid_or_none(installation, w) not in (None, p), 40, f"{words} comes back")
        restarted.append(words)
    for station in world.stations.values():
        world.do(station.wait_online(60), 70)
    for identity in cars:
        until(lambda who=identity: open_transactions(installation, who), 30, f"{identity} is still charging")
    world.building_a = (10.0, 10.0, 10.0)
    time.sleep(3)
    line.calm()

    registers = {}
    for identity in cars:
        transaction = open_transactions(installation, identity)[0]
        world.leave(identity)
        registers[identity] = (transaction["id"], world.stations[identity].outlets[1])
    for identity, (number, outlet) in registers.items():
        ended = until(
            lambda n=number: (t := installation.get(f"transactions/{n}/"))["ended_at"] and t, 40, f"{identity} ends"
        )
        kinds = [event["kind"] for event in ended["events"]]
        assert kinds.count("started") == kinds.count("ended") == 1, (identity, kinds)
        assert abs(ended["energy_wh"] - (outlet.energy_wh - before[identity])) <= 2, identity
    assert installation.get("transactions/")["count"] == len(cars)
    assert longest_above_s(world, began) <= PROTECTION_S
    assert {"delay", "duplicate", "fragment"} <= line.counts().keys()


def pid_or_none(installation: Installation, words: tuple[str, ...]) -> int | None:
    try:
        return installation.pid_of(*words)
    except (AssertionError, psutil.Error):
        return None

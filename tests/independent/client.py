"""Our end of the independent station (`station.js`): Node and the npm package `ocpp-rpc`, in strict mode.

On the build machine (CI set) it must be there; elsewhere its tests are left out, and say why. `.ci/independent` puts
the package where the tests look for it.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).resolve().parent
INSTALLED = HERE.parents[1] / ".data" / "independent"
LOCK = "package-lock.json"

Told = dict[str, Any]


class Refused(Exception):
    """The gateway answered a call of the station with an error, or did not let it in; `code` says which."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(f"{code}: {text}")
        self.code = code


def missing() -> str:
    """What is missing to run the independent station; "" when it is all there."""
    if shutil.which("node") is None:
        return "Node is not installed"
    if not (INSTALLED / "node_modules" / "ocpp-rpc").is_dir():
        return "ocpp-rpc is not installed; run .ci/independent"
    if (INSTALLED / LOCK).read_bytes() != (HERE / LOCK).read_bytes():
        return "ocpp-rpc is installed in another version; run .ci/independent"
    return ""


def needed() -> None:
    """Leave a test out where the independent station cannot run; fail it on the build machine."""
    what = missing()
    if what and os.environ.get("CI"):
        pytest.fail(what)
    if what:
        pytest.skip(what)


class Node:
    """The process that plays stations, and what it told."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._ids = itertools.count(1)
        self._open: dict[int, asyncio.Future[Any]] = {}
        self._news = asyncio.Event()
        self.events: list[Told] = []
        self.reader = asyncio.create_task(self._read())

    async def _read(self) -> None:
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            told = json.loads(line)
            if "event" in told:
                self.events.append(told)
                self._news.set()
                continue
            waiting = self._open.pop(told["id"], None)
            if waiting is None or waiting.done():
                continue
            if "error" in told:
                waiting.set_exception(Refused(told["error"]["code"], told["error"]["text"]))
            else:
                waiting.set_result(told["result"])

    async def do(self, what: str, **more: Any) -> Any:
        assert self._process.stdin is not None
        number = next(self._ids)
        waiting = self._open[number] = asyncio.get_running_loop().create_future()
        self._process.stdin.write(json.dumps({"id": number, "do": what, **more}).encode() + b"\n")
        return await asyncio.wait_for(waiting, 15)

    async def told(self, which: Callable[[Told], Any]) -> Told:
        """Wait for an event."""
        async with asyncio.timeout(15):
            while True:
                for event in self.events:
                    if which(event):
                        return event
                self._news.clear()
                await self._news.wait()

    def objections(self) -> list[Told]:
        """What the strict side found wrong in what it received."""
        return [e for e in self.events if e["event"] == "bad" or (e["event"] == "strict" and not e["outbound"])]

    async def judge(self, payloads: list[tuple[str, str, Any]]) -> list[str | None]:
        """What is wrong with each of (protocol, `Action.req` or `Action.conf`, payload) by schemas not ours."""
        found: list[str | None] = await self.do("judge", payloads=payloads)
        return found


class Independent:
    """One station of the independent kind."""

    def __init__(self, node: Node, name: str) -> None:
        self.node, self.name = node, name

    async def call(self, method: str, params: Told) -> Any:
        return await self.node.do("call", station=self.name, method=method, params=params)

    async def answers(self, **answers: Any) -> None:
        await self.node.do("answers", station=self.name, answers=answers)

    async def was_asked(self, method: str, where: Callable[[Told], bool] = lambda p: True) -> Told:
        def fits(event: Told) -> bool:
            return event["event"] == "asked" and self._mine(event) and event["method"] == method

        event = await self.node.told(lambda e: fits(e) and where(e["params"]))
        params: Told = event["params"]
        return params

    async def sees(self, event: str, times: int = 1) -> Told:
        """Wait until it told this event so often; the last of them."""
        await self.node.told(lambda e: len(self._all(event)) >= times)
        return self._all(event)[times - 1]

    def _all(self, event: str) -> list[Told]:
        return [e for e in self.node.events if e["event"] == event and self._mine(e)]

    def _mine(self, event: Told) -> bool:
        return bool(event["station"] == self.name)


@asynccontextmanager
async def node() -> AsyncIterator[Node]:
    needed()
    process = await asyncio.create_subprocess_exec(
        str(shutil.which("node")),
        str(HERE / "station.js"),
        str(INSTALLED),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=2**24,
    )
    playing = Node(process)
    try:
        yield playing
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        playing.reader.cancel()
        await asyncio.gather(playing.reader, return_exceptions=True)


_names = itertools.count(1)


async def independent(
    playing: Node, port: int, identity: str, protocols: list[str], *, answers: Told | None = None, **options: Any
) -> Independent:
    """Connect a station; `Refused` when the gateway does not let it in."""
    name = f"{identity} {next(_names)}"
    await playing.do(
        "connect",
        station=name,
        options={"endpoint": f"ws://127.0.0.1:{port}/ocpp", "identity": identity, "protocols": protocols, **options},
        answers=answers or {},
    )
    return Independent(playing, name)

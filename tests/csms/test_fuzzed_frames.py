"""Frames gone wrong in thousands of ways, over real sockets (R18): each call whose id can be read is answered, once.

Nothing ends: not the conversation, not the gateway, not anybody else's conversation. A seed is a test case; try more
of them with `FUZZ_SEEDS=1000:1100 pytest tests/csms/test_fuzzed_frames.py`.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
from collections import Counter
from typing import Any

import pytest
from asgiref.sync import sync_to_async

from csms.models import ChargingStation, IdToken, OcppMessage
from csms.ocpp16 import station as ocpp16
from csms.ocpp201 import station as ocpp201
from meters.models import Site
from tests.csms.charge_point import V16, V201, Bare, running, station, written
from tests.faults import payloads

pytestmark = pytest.mark.django_db(transaction=True)

FIRST, _, LAST = os.environ.get("FUZZ_SEEDS", "1:3").partition(":")
SEEDS = range(int(FIRST), int(LAST))
FRAMES = 200
SAID = {V16: tuple(ocpp16.HANDLERS), V201: tuple(ocpp201.HANDLERS)}


@sync_to_async
def accepted(identity: str) -> ChargingStation:
    site, _ = Site.objects.get_or_create(name="Campus")
    IdToken.objects.get_or_create(site=site, value="04A1B2C3")
    row: ChargingStation = ChargingStation.objects.create(
        identity=identity, site=site, admission="accepted", quiet=True
    )
    return row


def call(version: str, number: int, chance: random.Random) -> tuple[str, bytes]:
    """A call gone wrong whose id can still be read: its id and its bytes."""
    action = chance.choice(SAID[version])
    message_id = f"f{number}"
    right = payloads.payload(version, action, "request", chance)
    wrong = payloads.spoiled(right, chance) if chance.random() < 0.7 else right
    if chance.random() < 0.1:
        action = chance.choice([action.upper(), f" {action}", "Fly", "", "Reset", "x" * 2000])
    frame = json.dumps(
        [2, message_id, action, wrong],
        separators=(",", ":"),
        ensure_ascii=chance.random() < 0.5,
    )
    if chance.random() < 0.35:
        return message_id, payloads.broken_text(frame, len(f'[2,"{message_id}",'), chance)
    return message_id, frame.encode("utf-8", "surrogatepass")


class Listener:
    """Sends frames as they are, and counts the answers to each id."""

    def __init__(self, bare: Bare) -> None:
        self._socket = bare.socket
        bare.reader.cancel()
        self.answers: Counter[str] = Counter()
        self.kinds: Counter[str] = Counter()
        self.internal: list[Any] = []
        self.news = asyncio.Event()

    async def listen(self) -> None:
        async for raw in self._socket:
            message = json.loads(raw)
            self.answers[str(message[1])] += 1
            self.kinds["result" if message[0] == 3 else str(message[2])] += 1
            if message[0] == 4 and message[2] == "InternalError":
                self.internal.append(message)
            self.news.set()

    async def until_answered(self, ids: set[str]) -> None:
        try:
            async with asyncio.timeout(20):
                while not ids <= self.answers.keys():
                    self.news.clear()
                    await self.news.wait()
        except TimeoutError:
            raise AssertionError(f"never answered: {sorted(ids - self.answers.keys())[:5]}") from None

    async def send(self, frame: bytes) -> None:
        try:
            text: str | bytes = frame.decode()
        except UnicodeDecodeError:
            text = frame  # as a binary frame: text that is no UTF-8 is the websocket's own affair
        await self._socket.send(text)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("version", [V16, V201])
async def test_every_call_with_a_readable_id_is_answered_once_and_nothing_ends(version: str, seed: int) -> None:
    chance = random.Random(f"{version}/{seed}")
    row = await accepted("CS-1")
    await accepted("CS-2")
    sent: dict[str, bytes] = {}
    async with (
        running(messages_per_s=1e6) as gateway,
        station(gateway, version=version) as bare,
        station(gateway, "CS-2", version=version) as other,
    ):
        session = gateway.sessions["CS-1"]
        listener = Listener(bare)
        listening = asyncio.create_task(listener.listen())
        for number in range(FRAMES):
            if chance.random() < 0.25:
                await listener.send(payloads.noise(chance))
            else:
                message_id, frame = call(version, number, chance)
                sent[message_id] = frame
                await listener.send(frame)
            if number % 25 == 24:
                await listener.until_answered(set(sent))
                await other.ask("Heartbeat", {})
        assert bare.socket.close_code is None and gateway.sessions["CS-1"] is session
        twice = {i: sent[i][:200] for i in sent if listener.answers[i] != 1}
        assert not twice
        faults = [(m, sent[m[1]][:300]) for m in listener.internal if m[1] in sent]
        assert not faults, faults[:3]
        assert len(listener.kinds) >= 4, listener.kinds
        session.flush_counters()
        await written(gateway)
        kept = await OcppMessage.objects.filter(station=row, direction="in").acount()
        listening.cancel()
    counters = (await ChargingStation.objects.aget(pk=row.pk)).counters
    assert counters["malformed_frame"] > 5 and counters["refused_message"] > 5, counters
    assert kept >= len(sent) * 0.9

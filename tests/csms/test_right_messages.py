"""Every message that has a schema, in both dialects and both directions: what is right passes unchanged.

The payloads are made from the schemas of the `ocpp` package; the independent station's own schemas judge them too.
"""

from __future__ import annotations

import asyncio
import json
import random
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from ocpp.charge_point import camel_to_snake_case

from csms.ocpp16 import codec as codec16
from csms.ocpp16 import station as ocpp16
from csms.ocpp201 import codec as codec201
from csms.ocpp201 import station as ocpp201
from csms.profiles import ChargingProfile, Purpose
from csms.rpc import Connection
from csms.schemas import V16, V201, dialect
from csms.simulator import station16, station201
from tests.csms.test_frames import Wire
from tests.csms.test_profiles import some_profile
from tests.faults.payloads import actions, payload
from tests.independent.client import needed, node

EXAMPLES = 5
MESSAGES = [(version, action) for version in (V16, V201) for action in actions(version)]
EACH = pytest.mark.parametrize(("version", "action"), MESSAGES, ids=lambda word: str(word))


def examples(version: str, action: str, part: str) -> list[dict[str, Any]]:
    return [payload(version, action, part, random.Random(f"{version}/{action}/{part}/{n}")) for n in range(EXAMPLES)]


@EACH
async def test_what_a_station_rightly_says_reaches_us_unchanged_and_our_answer_it(version: str, action: str) -> None:
    counted: list[str] = []
    heard: list[Any] = []
    answers = iter(examples(version, action, "response"))
    wire = Wire()

    def handle(name: str, said: dict[str, Any]) -> dict[str, Any]:
        heard.append((name, said))
        return next(answers)

    connection = Connection(wire, dialect(version), handle, count=counted.append, messages_per_s=1e6)
    talking = asyncio.create_task(connection.run())
    await asyncio.sleep(0)

    for number, said in enumerate(examples(version, action, "request")):
        wire.hear(json.dumps([2, f"m{number}", action, said]).encode())

    assert heard == [(action, said) for said in examples(version, action, "request")]
    for number, answer in enumerate(examples(version, action, "response")):
        assert wire.said.get_nowait() == [3, f"m{number}", answer]
    assert counted == []
    talking.cancel()


@EACH
async def test_what_we_rightly_ask_reaches_a_station_unchanged_and_its_answer_us(version: str, action: str) -> None:
    counted: list[str] = []
    wire = Wire()
    connection = Connection(wire, dialect(version), lambda name, said: {}, count=counted.append, messages_per_s=1e6)
    talking = asyncio.create_task(connection.run())
    await asyncio.sleep(0)
    if "sent by stations" in str(dialect(version).refusal(action, {})):
        assert action in (ocpp16 if version == V16 else ocpp201).HANDLERS
        talking.cancel()
        return

    for asked, answer in zip(examples(version, action, "request"), examples(version, action, "response"), strict=True):
        call = asyncio.create_task(connection.call(action, asked))
        frame = await asyncio.wait_for(wire.said.get(), 5)
        assert frame == [2, frame[1], action, asked]
        wire.hear(json.dumps([3, frame[1], answer]).encode())
        assert await asyncio.wait_for(call, 5) == answer

    assert counted == []
    talking.cancel()


async def test_the_independent_station_finds_them_right_too() -> None:
    needed()
    payloads = [
        (version, f"{action}.{suffix}", said)
        for version, action in MESSAGES
        for part, suffix in (("request", "req"), ("response", "conf"))
        for said in examples(version, action, part)
    ]
    wrong: list[tuple[str, str, Any]] = [(V16, "Heartbeat.req", {"extra": 1}), (V201, "Reset.req", {})]
    async with node() as playing:
        verdicts = await playing.judge(payloads + wrong)
    objections = [(p[0], p[1], v) for p, v in zip(payloads, verdicts, strict=False) if v is not None]
    assert objections == []
    assert all(verdicts[-len(wrong) :])


# ---------------------------------------------------------------------- charging profiles


@settings(max_examples=60, deadline=timedelta(seconds=5))
@given(made=some_profile().filter(lambda profile: profile.purpose is not Purpose.STATION_EXTERNAL))
def test_a_profile_is_unchanged_by_its_trip_over_the_wire(made: ChargingProfile) -> None:
    profile = replace(made, transaction_id="7" if made.purpose is Purpose.TX else None)
    for version, codec in ((V16, codec16), (V201, codec201)):
        action, said = codec.set_profile(profile)
        assert dialect(version).refusal(action, said) is None, said
        sent = camel_to_snake_case(json.loads(json.dumps(said)))
        if version == V16:
            arrived = station16.read_profile(sent["connector_id"], sent["cs_charging_profiles"])
        else:
            arrived = station201.read_profile(sent["evse_id"], sent["charging_profile"])
        assert arrived == profile

"""Frames recorded at real charging stations, replayed against the real gateway.

They lie outside the product (their licence is unknown), so these tests are left out where the files are not there.
"""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.conf import settings

from csms import bus
from csms.models import ChargingStation, MeterSample, OcppMessage
from csms.schemas import V16, dialect
from meters.models import Site
from tests.csms.charge_point import running, station, written

TRACES = Path(settings.BASE_DIR).parent / "shared/data/traces/ocpp16_recorded_frames.jsonl"
pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.skipif(not TRACES.exists(), reason="the recorded frames are not on this machine"),
]


def recorded() -> dict[str, list[dict[str, Any]]]:
    """The lines of the file, by the charger they were seen at."""
    found = defaultdict(list)
    for line in TRACES.read_text().splitlines() if TRACES.exists() else ():
        told = json.loads(line)
        found[told["charger"]].append(told)
    return dict(found)


@sync_to_async
def accepted(identity: str) -> ChargingStation:
    site, _ = Site.objects.get_or_create(name="Campus")
    row: ChargingStation = ChargingStation.objects.create(
        identity=identity, site=site, admission="accepted", quiet=True
    )
    return row


def of(charger: str, direction: str, kind: int) -> list[list[Any]]:
    return [t["frame"] for t in recorded()[charger] if t["direction"] == direction and t["frame"][0] == kind]


@pytest.mark.parametrize("charger", recorded())
async def test_what_a_real_station_said_is_answered(charger: str) -> None:
    row = await accepted("REC-1")
    async with running() as gateway, station(gateway, "REC-1", version=V16) as bare:
        for frame in of(charger, "recv", 2):
            answer = await bare.send(json.dumps(frame), frame[1])
            assert answer[0] == 3, (frame, answer)
            assert dialect(V16).results[frame[2]].is_valid(answer[2]), answer
        await bare.ask("Heartbeat", {}, "alive")
        counters = dict(gateway.sessions["REC-1"].counters)
        await written(gateway)
    assert not {"malformed_frame", "refused_message", "odd_answer"} & counters.keys(), counters
    kept = OcppMessage.objects.filter(station=row, direction="in", kind="call")
    assert await kept.acount() == len(of(charger, "recv", 2)) + 1
    measured = [f for f in of(charger, "recv", 2) if f[2] == "MeterValues"]
    assert await MeterSample.objects.acount() == len(measured)


@pytest.mark.parametrize("charger", recorded())
async def test_what_a_real_station_answered_is_understood(charger: str) -> None:
    """Our own call, the station's recorded answer: it comes back whole to whoever asked."""
    await accepted("REC-1")
    asked = {f[1]: f for f in of(charger, "send", 2)}
    answers = {f[1]: f for f in of(charger, "recv", 3)}
    async with running() as gateway, station(gateway, "REC-1", version=V16) as bare:
        await bare.ask("Heartbeat", {})
        for message_id in asked.keys() & answers.keys():
            _, _, action, payload = asked[message_id]
            bare.answers = {action: answers[message_id][2]}
            answer = await sync_to_async(bus.request)("REC-1", action, payload, 5)
            assert answer == answers[message_id][2]
        assert "odd_answer" not in gateway.sessions["REC-1"].counters

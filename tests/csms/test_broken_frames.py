"""Each broken frame of Q9 and Q10 over a real socket (R18): its outcome, its counter, and the conversation goes on."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from asgiref.sync import sync_to_async
from django.conf import settings
from django.core.management import call_command

from csms import gateway as gateways
from csms.gateway import Gateway
from csms.models import ChargingStation
from csms.schemas import V16, V201, dialect
from meters.models import Site
from tests.csms.charge_point import running, station, written
from tests.csms.frame_cases import ANSWERED, CASES, SILENCE, Case, raw, table

# The gateway of this module lives as long as the module: a hundred cases are heard in the time of ten.
ON_THE_MODULES_LOOP = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway(django_db_setup: None, django_db_blocker: Any) -> AsyncIterator[Gateway]:
    patch = pytest.MonkeyPatch()
    patch.setattr(gateways, "HOLD_EVERY_S", 3600.0)  # counters are looked at before they are handed on
    with django_db_blocker.unblock():
        await _stations()
        async with running() as gateway:
            yield gateway
        await sync_to_async(call_command)("flush", interactive=False, verbosity=0)
    patch.undo()


@sync_to_async
def _stations() -> None:
    site = Site.objects.create(name="Campus")
    for version in (V16, V201):
        for number in range(len(CASES)):
            ChargingStation.objects.create(
                identity=f"{version}-{number}",
                site=site,
                admission="accepted",
                quiet=True,
            )


PLACES = [
    pytest.param(version, number, id=f"{version} {case.what}")
    for version in (V16, V201)
    for number, case in enumerate(CASES)
    if case.sent(version) is not None
]


@ON_THE_MODULES_LOOP
@pytest.mark.parametrize(("version", "number"), PLACES)
async def test_r18_a_broken_frame_has_its_outcome(gateway: Gateway, version: str, number: int) -> None:
    case: Case = CASES[number]
    outcome, name = case.comes_of_it(version), f"{version}-{number}"
    async with station(gateway, name, version=version) as bare:
        if outcome == SILENCE:
            await bare.socket.send(raw(case.sent(version)))
        else:
            answer = await bare.send(raw(case.sent(version)), str(case.answered_to(version)))
            assert answer[1] == case.answered_to(version)
            if outcome == ANSWERED:
                assert answer[0] == 3, answer
                assert dialect(version).results[_action(case, version)].is_valid(answer[2])
            else:
                assert answer[:1] + answer[2:3] == [
                    4,
                    dialect(version).error(outcome),
                ], answer
        assert "currentTime" in await bare.ask("Heartbeat", {}, "alive")
        assert bare.stray.empty()
        counters = gateway.sessions[name].counters
    if case.counted(version):
        assert counters[case.counted(version)] >= 1, dict(counters)
    else:
        assert [c for c in counters if c not in ("data_transfer", "no_boot")] == []


def _action(case: Case, version: str) -> str:
    words = raw(case.sent(version))
    text = words.decode("latin-1") if isinstance(words, bytes) else words
    found = re.search(r'"(?:x+|17)"?\s*,\s*"(\w+)"|17, "(\w+)"', text)
    assert found is not None
    return dialect(version).folded[(found[1] or found[2]).lower()]


def test_the_table_for_people_is_this_one() -> None:
    text = (Path(settings.BASE_DIR) / "docs/frames.md").read_text()
    rows = [line for line in text.splitlines() if re.match(r"\| Q\d+ ", line)]

    assert rows == table(lambda version, fault: dialect(version).error(fault))


def test_every_case_is_named_once() -> None:
    names = [case.what for case in CASES]

    assert len(set(names)) == len(names) > 70


@pytest.mark.django_db(transaction=True)
async def test_r18_what_was_mended_or_refused_is_counted_on_the_stations_row() -> None:
    await _stations()
    async with running() as gateway:
        async with station(gateway, f"{V16}-0") as bare:
            for case in CASES[:12]:
                await bare.socket.send(raw(case.v16))
            await bare.ask("Heartbeat", {}, "alive")
        await written(gateway)
        counters = await sync_to_async(lambda: ChargingStation.objects.get(identity=f"{V16}-0").counters)()
    expected = {name: 1 for case in CASES[:12] if (name := case.counter)} | {
        "empty_frame": 2,
        "stray_comma": 2,
    }
    expected["unknown_message_type"] = 2
    assert {name: counters[name] for name in expected} == expected

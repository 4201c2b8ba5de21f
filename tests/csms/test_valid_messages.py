"""Whatever valid thing a station says has a valid answer, and all of it is written; what it may not say is told so."""

from __future__ import annotations

import logging

import pytest
from asgiref.sync import sync_to_async

from csms.models import ChargingStation, IdToken, OcppMessage
from csms.ocpp16 import access as access16
from csms.ocpp16 import station as ocpp16
from csms.ocpp201 import station as ocpp201
from csms.schemas import V16, V201, dialect, first_fault
from csms.vocabulary import ListEntry, ShownToken, Verdict
from meters.models import Site
from tests.csms.charge_point import running, station, written
from tests.csms.payloads import examples, schema, valid

SPEAKS = {V16: ocpp16, V201: ocpp201}
ALIKE_EACH = 6


@sync_to_async
def accepted() -> ChargingStation:
    site = Site.objects.create(name="Campus")
    IdToken.objects.create(site=site, value="04A1B2C3", group="G1")
    return ChargingStation.objects.create(identity="CS-1", site=site, admission="accepted")


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("version", [V16, V201])
async def test_whatever_valid_thing_a_station_says_has_a_valid_answer(
    version: str, caplog: pytest.LogCaptureFixture
) -> None:
    await accepted()
    results = dialect(version).results
    said = {a: examples(valid(schema(version, a)), ALIKE_EACH) for a in SPEAKS[version].HANDLERS}
    async with running(call_timeout_s=1.0) as gateway, station(gateway, version=version) as bare:
        for action, payloads in said.items():
            for payload in payloads:
                if payload.get("transactionInfo", {}).get("transactionId") == "":
                    continue  # right by the schema, but it names nothing: refused (`frame_cases.py`)
                frame = await bare.call(action, payload)
                assert frame[0] == 3, (action, payload, frame)
                assert first_fault(results[action], frame[2]) is None, (action, payload, frame)
        await written(gateway)
        assert gateway.sessions["CS-1"].connection.closed is False
    assert await OcppMessage.objects.filter(kind="error", direction="out").acount() == 0
    assert [r.getMessage() for r in caplog.records if r.levelno >= logging.ERROR] == []  # and all of it is written


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(
    ("version", "action", "code"),
    [
        (V16, "Fly", "NotImplemented"),  # nobody knows it
        (V16, "TransactionEvent", "NotImplemented"),  # another version does
        (V16, "RemoteStartTransaction", "NotSupported"),  # it is ours to say
        (V201, "Fly", "NotImplemented"),
        (V201, "StartTransaction", "NotImplemented"),
        (V201, "NotifyPriorityCharging", "NotImplemented"),  # of 2.1
        (V201, "SetChargingProfile", "NotSupported"),
    ],
)
async def test_an_action_we_do_not_answer_is_told_so_by_the_standard(version: str, action: str, code: str) -> None:
    await accepted()
    payload = examples(valid(schema(version, action)), 1)[0] if code == "NotSupported" else {}
    async with running() as gateway, station(gateway, version=version) as bare:
        assert (await bare.call(action, payload))[0:3:2] == [4, code]
        await bare.ask("Heartbeat", {})


def test_a_token_too_long_for_1_6_is_left_out_of_its_list() -> None:
    entries = [ListEntry(ShownToken("x" * 21, "Central"), Verdict("accepted")), ListEntry(ShownToken("short", "Local"))]

    _, payload = access16.send_local_list(entries, 3, True)

    assert payload["localAuthorizationList"] == [{"idTag": "short"}]

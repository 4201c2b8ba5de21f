"""Peers that send too much, too big, too slow, or read nothing (R11, R12, R20, R22): nobody else feels it."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from csms import rpc, wire
from csms.bus import CallRefused
from csms.wire import Wire
from tests.csms.charge_point import V16, V201, running, station
from tests.csms.raw_peer import BINARY, CONT, PING, PONG, Peer, call, frame, peer
from tests.csms.test_gateway import BOOT_16, accepted

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
async def two_stations(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("csms.door.CLOSE_S", 0.3)  # our peers say no goodbye
    await accepted(quiet=True)
    await accepted("CS-2", quiet=True)


def held(gateway: Any, identity: str = "CS-1") -> Wire:
    found: Wire = gateway.sessions[identity].connection.socket
    return found


async def gone(gateway: Any, identity: str = "CS-1") -> None:
    async with asyncio.timeout(10):
        while identity in gateway.sessions:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


# ---------------------------------------------------------------------- frames


@pytest.mark.parametrize(
    ("bad", "code"),
    [
        pytest.param(frame(b"x" * 8_000_000)[:20], 1009, id="8 MB, seen in its header"),
        pytest.param(frame(b"x" * 300_000), 1009, id="above the cap"),
        pytest.param(frame(b"[2,", fin=False) + frame(b"", CONT, fin=False) * 2000, 1009, id="2,000 fragments"),
        pytest.param(frame(b"y" * 200_000, fin=False) + frame(b"y" * 200_000, CONT), 1009, id="too big in parts"),
        pytest.param(frame(b"\x00\xff\xff", rsv1=True), 1002, id="compressed, which was not agreed"),
        pytest.param(frame(b"[]", mask=False), 1002, id="without a mask"),
        pytest.param(frame(b"[]", 3), 1002, id="an opcode that is none"),
        pytest.param(frame(b"[]", CONT), 1002, id="a continuation of nothing"),
        pytest.param(frame(b"[2,", fin=False) + frame(b"[]"), 1002, id="a message inside another"),
        pytest.param(frame(b"x" * 126, PING), 1002, id="a ping too long"),
    ],
)
async def test_a_frame_against_the_protocol_ends_its_own_connection_only(bad: bytes, code: int) -> None:
    async with running() as gateway, peer(gateway) as one, station(gateway, "CS-2") as other:
        one.send(call("1"))
        await one.answered("1")
        one.send(bad)
        assert await one.closed() == code
        await other.ask("Heartbeat", {})


async def test_compression_is_not_agreed_on_so_there_is_no_bomb() -> None:
    offer = "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n"
    async with running() as gateway, peer(gateway, more=offer) as one:
        assert " 101 " in one.answer and "permessage-deflate" not in one.answer


async def test_a_message_may_come_in_any_pieces() -> None:
    """Byte by byte, in fragments with a ping between them, as binary, or ten at once: each is answered once."""
    async with running() as gateway, peer(gateway) as one:
        for byte in call("bytes"):
            one.send(bytes((byte,)))
            await asyncio.sleep(0)
        await one.answered("bytes")

        whole = b'[2,"parts","Heartbeat",{}]'
        one.send(frame(whole[:5], fin=False) + frame(b"hello", PING) + frame(whole[5:9], CONT, fin=False))
        one.send(frame(whole[9:], CONT))
        assert await one.next_frame() == (PONG, b"hello")
        await one.answered("parts")

        one.send(frame(b'[2,"binary","Heartbeat",{}]', BINARY))
        await one.answered("binary")

        many = b"".join(call(f"m{n}") for n in range(10)) + call("half")[:-3]
        one.send(many)
        for n in range(10):
            await one.answered(f"m{n}")
        one.send(call("half")[-3:])
        await one.answered("half")


async def test_what_came_before_we_were_ready_is_answered_in_order() -> None:
    async with running() as gateway, peer(gateway) as one:
        one.send(b"".join(call(f"early{n}") for n in range(20)))
        for n in range(20):
            await one.answered(f"early{n}")


# ---------------------------------------------------------------------- too slow


async def test_a_frame_that_never_becomes_whole_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "WHOLE_FRAME_S", 0.05)
    async with running() as gateway, peer(gateway) as one, peer(gateway, "CS-2") as two:
        for dawdler in (one, two):
            dawdler.send(call("1"))
            await dawdler.answered("1")
        one.send(call("2")[:9])
        two.send(frame(b"[2,", fin=False) + frame(b"", CONT, fin=False))
        await asyncio.sleep(0.2)
        await gateway._beat()
        assert await one.closed() == 1008
        assert await two.closed() == 1008


async def test_a_frame_that_is_only_slow_is_waited_for() -> None:
    async with running() as gateway, peer(gateway) as one:
        one.send(call("1")[:9])
        await asyncio.sleep(0.1)
        await gateway._beat()
        one.send(call("1")[9:])
        await one.answered("1")


async def test_a_peer_that_reads_nothing_is_not_answered_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its questions stay with itself: neither answers nor pongs pile up here, and in the end it is cut off."""
    async with running(messages_per_s=1e6) as gateway, peer(gateway) as one, station(gateway, "CS-2") as other:
        one.send(call("1"))
        await one.answered("1")
        flood = (call("2") + frame(b"p" * 125, PING)) * 500
        async with asyncio.timeout(30):
            while not held(gateway).paused:
                one.send(flood)
                await asyncio.sleep(0.01)
        for _ in range(20):
            one.send(flood)
            await asyncio.sleep(0.01)
        assert held(gateway).transport.get_write_buffer_size() < 500_000
        await other.ask("Heartbeat", {})

        monkeypatch.setattr(wire, "READS_NOTHING_S", 0.0)
        await asyncio.sleep(0.05)
        await gateway._beat()
        await gone(gateway)


# ---------------------------------------------------------------------- too much


@pytest.mark.parametrize("kind", ["messages", "pings", "nonsense"])
async def test_a_flood_is_slowed_down_then_cut_and_nobody_else_feels_it(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rpc, "FLOOD_S", 0.3)
    one_more = {"messages": call("f"), "pings": frame(b"", PING), "nonsense": frame(b"{")}[kind]
    async with running(messages_per_s=50) as gateway, peer(gateway) as one, station(gateway, "CS-2") as other:
        one.send(call("1"))
        await one.answered("1")
        reading = asyncio.create_task(one.closed())
        async with asyncio.timeout(20):
            while not reading.done():
                one.send(one_more * 100)
                await other.ask("Heartbeat", {})
                await asyncio.sleep(0.01)
        assert await reading in (1008, 1006)  # 1006: cut while it was still sending
        await gone(gateway)


async def test_a_burst_within_reason_is_answered_whole() -> None:
    async with running(messages_per_s=50) as gateway, peer(gateway) as one:
        one.send(b"".join(call(f"b{n}") for n in range(200)))
        for n in range(200):
            await one.answered(f"b{n}")


async def test_ten_thousand_answers_to_nothing_leave_no_trace() -> None:
    """R12: dropped and counted, and the next call works; so does one whose answer came too late."""
    async with running(messages_per_s=1e6, call_timeout_s=0.3) as gateway, peer(gateway) as one:
        one.send(call("1"))
        await one.answered("1")
        one.send(b"".join(frame(b'[3,"nobody-%d",{}]' % n) for n in range(10_000)))
        one.send(call("2"))
        await one.answered("2")
        session = gateway.sessions["CS-1"]
        assert session.counters["unasked_answer"] == 10_000

        with pytest.raises(Exception, match="no answer"):
            await session.connection.call("ClearCache", {})
        asked = await the_call(one)
        one.send(frame(b'[3,"%s",{"status":"Accepted"}]' % asked))  # too late
        call_again = asyncio.create_task(session.connection.call("ClearCache", {}, timeout_s=5))
        asked = await the_call(one)
        one.send(frame(b'[3,"%s",{"status":"Accepted"}]' % asked))
        assert await call_again == {"status": "Accepted"}
        assert session.counters["unasked_answer"] == 10_001


async def the_call(one: Peer) -> bytes:
    """The message id of the next call we get."""
    while True:
        _, payload = await one.next_frame()
        if payload.startswith(b"[2,"):
            return payload.split(b'"')[1]


async def test_a_station_silent_to_calls_frees_its_slot_and_nothing_queues(monkeypatch: pytest.MonkeyPatch) -> None:
    """R11: more calls than may wait are refused at once; the others end at their time."""
    async with running(call_timeout_s=0.3) as gateway, peer(gateway) as one:
        one.send(call("1"))
        await one.answered("1")
        connection = gateway.sessions["CS-1"].connection
        calls = [connection.call("ClearCache", {}) for _ in range(rpc.WAITING_OWN_CALLS + 20)]
        outcomes = await asyncio.gather(*calls, return_exceptions=True)
        assert all("no answer" in str(o) or "too many calls" in str(o) for o in outcomes)
        assert sum("too many" in str(o) for o in outcomes) == 19
        one.send(call("2"))
        await one.answered("2")


@pytest.mark.parametrize("version", [V16, V201])
async def test_a_slow_write_for_one_station_holds_up_only_what_must_wait(version: str) -> None:
    """R22: its heartbeat is answered, its transaction waits, and another's messages are answered at once."""
    async with running() as gateway, station(gateway, version=version) as one, station(gateway, "CS-2") as other:
        await one.ask("Heartbeat", {})
        await other.ask("Heartbeat", {})
        gateway.writer.post(lambda: time.sleep(1.0))
        began = time.monotonic()
        start = (
            ("StartTransaction", {"connectorId": 1, "idTag": "04A1B2C3", "meterStart": 0, "timestamp": now()})
            if version == V16
            else ("TransactionEvent", an_event())
        )
        started = asyncio.create_task(one.ask(*start))
        await asyncio.sleep(0)
        await one.ask("Heartbeat", {})
        await other.ask("BootNotification", BOOT_16)
        assert not started.done() or time.monotonic() - began > 1.0
        await started


def now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def an_event() -> dict[str, Any]:
    return {
        "eventType": "Started",
        "timestamp": now(),
        "triggerReason": "CablePluggedIn",
        "seqNo": 0,
        "transactionInfo": {"transactionId": "T1"},
        "evse": {"id": 1, "connectorId": 1},
    }


async def test_an_error_of_a_station_is_told_as_it_is() -> None:
    async with running() as gateway, peer(gateway) as one:
        one.send(call("1"))
        await one.answered("1")
        asking = asyncio.create_task(gateway.sessions["CS-1"].connection.call("ClearCache", {}))
        asked = await the_call(one)
        one.send(frame(b'[4,"%s","GenericError","no",{}]' % asked))
        with pytest.raises(CallRefused, match="GenericError: no"):
            await asking

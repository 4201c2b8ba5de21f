"""The bad network does what it says, and the same again with the same seed."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection, serve

from tests.faults.proxy import FaultProxy, Odds


async def heard(odds: Odds, seed: int, frames: int = 40) -> tuple[list[str], list[Any]]:
    """What a server hears of so many frames, and what was done to them."""
    inbox: list[str] = []
    ended = asyncio.Event()

    async def listen(socket: ServerConnection) -> None:
        async for message in socket:
            inbox.append(message if isinstance(message, str) else message.decode("latin-1"))
        ended.set()

    async with serve(listen, "127.0.0.1", 0, compression=None) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        async with FaultProxy(port, seed=seed, up=odds) as proxy:
            async with connect(f"ws://127.0.0.1:{proxy.port}/x", compression=None, proxy=None) as socket:
                for number in range(frames):
                    await socket.send(f"frame {number}")
                    await asyncio.sleep(0)
            await asyncio.wait_for(ended.wait(), 10)
            return inbox, [fault for fault in proxy.did if fault[3]]


async def test_a_good_line_changes_nothing() -> None:
    inbox, did = await heard(Odds(), seed=1)
    assert inbox == [f"frame {n}" for n in range(40)]
    assert did == []


async def test_the_same_seed_spoils_the_same_frames_in_the_same_way() -> None:
    rough = Odds(drop=0.1, duplicate=0.2, reorder=0.1, truncate=0.1, fragment=0.2, replay=0.1)
    assert await heard(rough, seed=7) == await heard(rough, seed=7)
    assert (await heard(rough, seed=7))[1] != (await heard(rough, seed=8))[1]


@pytest.mark.parametrize(
    ("odds", "expected"),
    [
        (Odds(drop=1.0), []),
        (Odds(duplicate=1.0), [f"frame {n}" for n in range(40) for _ in range(2)]),
        (Odds(fragment=1.0), [f"frame {n}" for n in range(40)]),
        (Odds(delay=1.0, delay_s=0.001), [f"frame {n}" for n in range(40)]),
    ],
)
async def test_each_fault_is_what_it_is_called(odds: Odds, expected: list[str]) -> None:
    inbox, did = await heard(odds, seed=3)
    assert inbox == expected
    assert len(did) == 40


async def test_what_is_truncated_is_a_beginning_and_what_is_reordered_still_comes() -> None:
    inbox, _ = await heard(Odds(truncate=1.0), seed=3)
    assert all(f"frame {n}".startswith(text) and text != f"frame {n}" for n, text in enumerate(inbox))
    inbox, did = await heard(Odds(reorder=0.3), seed=3)
    assert sorted(inbox) == sorted(f"frame {n}" for n in range(40))
    assert did and inbox != [f"frame {n}" for n in range(40)]

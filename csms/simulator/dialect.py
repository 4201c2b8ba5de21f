"""What both dialects of a simulated station have in common: the names a station calls, and how a call is handled."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING, Any, TypeVar, cast

from ocpp.charge_point import ChargePoint
from ocpp.routing import on

if TYPE_CHECKING:
    from websockets.asyncio.client import ClientConnection

    from csms.simulator.outlet import Charge, Outlet
    from csms.simulator.station import SimulatedStation

Handler = TypeVar("Handler", bound=Callable[..., Any])

# The library logs whole frames at INFO; ours are not for the log.
frames = logging.getLogger("csms.simulator.frames")
frames.setLevel(logging.ERROR)


def answers(action: str) -> Callable[[Handler], Handler]:
    """Mark the method that answers this action. (The library's `on`, with a type.)"""
    return cast("Callable[[Handler], Handler]", on(action))


def stamp(at: datetime) -> str:
    """ISO 8601 in UTC with milliseconds and Z, as most stations write it."""
    return at.strftime("%Y-%m-%dT%H:%M:%S.") + f"{at.microsecond // 1000:03d}Z"


class Dialect(ChargePoint, ABC):
    """One connection of a station in one version. The `tell_…` functions need none: they queue messages."""

    def __init__(self, station: SimulatedStation, socket: ClientConnection) -> None:
        super().__init__(station.identity, socket, response_timeout=station.call_timeout_s, logger=frames)
        self.station = station

    @classmethod
    def open(cls, station: SimulatedStation, socket: ClientConnection) -> Dialect:
        return cls(station, socket)

    async def route_message(self, raw_msg: str) -> None:
        action = self.station.heard(raw_msg)
        if action in self.station.temper.reboots_on:
            self.station.crash()
            return
        if action in self.station.temper.silent_to:
            return
        await super().route_message(raw_msg)
        self.station.run_afterthoughts()

    # What a dialect says; each returns a message of the library.

    @abstractmethod
    def boot(self, reason: str) -> Any: ...

    @staticmethod
    def boot_answer(answer: Any) -> tuple[str, int]:
        """The verdict, and the heartbeat interval or the time to wait before asking again, in s."""
        return str(answer.status), int(answer.interval)

    @staticmethod
    @abstractmethod
    def heartbeat() -> Any: ...

    @staticmethod
    @abstractmethod
    def authorize(token: str, kind: str) -> Any: ...

    def tell_whole_status(self) -> None:
        """The status of the station itself, where the dialect has one."""

    @staticmethod
    @abstractmethod
    def factory_settings(station: SimulatedStation) -> dict[Any, Any]: ...

    @staticmethod
    @abstractmethod
    def new_transaction_id() -> str | None: ...

    @staticmethod
    @abstractmethod
    def verdict(answer: Any) -> str:
        """The status in the answer to an Authorize; `Invalid` without one."""

    @staticmethod
    @abstractmethod
    def tell_status(station: SimulatedStation, outlet: Outlet, word: str) -> None: ...

    @staticmethod
    @abstractmethod
    def tell_reservation(station: SimulatedStation, number: int, word: str) -> None: ...

    @staticmethod
    @abstractmethod
    def tell_firmware(station: SimulatedStation, word: str, request_id: int | None) -> None: ...

    @staticmethod
    @abstractmethod
    def tell_log(station: SimulatedStation, word: str, request_id: int | None) -> None: ...

    @staticmethod
    @abstractmethod
    def tell_started(station: SimulatedStation, outlet: Outlet, charge: Charge) -> None: ...

    @staticmethod
    @abstractmethod
    def tell_meter(station: SimulatedStation, outlet: Outlet, charge: Charge, at: datetime) -> None: ...

    @staticmethod
    @abstractmethod
    def tell_aligned(station: SimulatedStation, outlet: Outlet, at: datetime) -> None: ...

    @staticmethod
    @abstractmethod
    def tell_ended(station: SimulatedStation, outlet: Outlet, charge: Charge, trigger: str) -> None: ...

"""What a simulated station does besides charging: a list of its own, places it keeps, new firmware, its logs.

Version-free; `chores16.py` and `chores201.py` speak of it. Files move over HTTP, as the address says. An image that
begins with `simulated firmware 2.0` brings version 2.0; any other brings the name of its file.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import urllib.request
from collections.abc import Coroutine, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from csms.simulator.outlet import Outlet
    from csms.simulator.station import SimulatedStation

log = logging.getLogger(__name__)
_VERSION = re.compile(rb"simulated firmware (\S{1,50})")
_NO_PROXY = urllib.request.build_opener(urllib.request.ProxyHandler({}))


@dataclass(frozen=True, slots=True)
class Kept:
    """A place kept for a token and its group."""

    id: int
    outlet: int
    id_token: str
    group: str
    until: datetime

    def is_for(self, id_token: str, group: str = "") -> bool:
        return id_token.upper() == self.id_token.upper() or bool(group and group.upper() == self.group.upper())


class Chores:
    """Knobs: `most_entries` and `most_items` of the list; `fails_with`, a status at which an update breaks off, such as
    `DownloadFailed`; `silent`, an update of which nothing is told; `step_s`, how long each step takes; `no_log`.
    """

    def __init__(self, station: SimulatedStation) -> None:
        self.station = station
        self.list_version = 0
        self.local_list: dict[str, Mapping[str, Any]] = {}
        self.most_entries, self.most_items = 100, 20
        self.reservations: dict[int, Kept] = {}
        self.fails_with, self.silent, self.step_s, self.no_log = "", False, 1.0, False
        self.fetched = 0  # bytes of firmware
        self._told_after_boot: tuple[str, int | None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    # --- the list ------------------------------------------------------------------------------------------------

    def take_list(
        self, version: int, differential: bool, entries: Iterable[tuple[str, Mapping[str, Any] | None]]
    ) -> str:
        """Take a full list or what changed in it; the status to answer (1.6 §5.15, 2.0.1 D01)."""
        told = list(entries)
        if len(told) > self.most_items:
            return "Failed"
        if differential and version <= self.list_version:
            return "VersionMismatch"
        after = dict(self.local_list) if differential else {}
        for token, info in told:
            if info is None:
                after.pop(token.upper(), None)
            else:
                after[token.upper()] = info
        if len(after) > self.most_entries:
            return "Failed"
        self.local_list, self.list_version = after, version
        return "Accepted"

    # --- places it keeps -----------------------------------------------------------------------------------------

    def reserve(self, number: int, evse: int, id_token: str, group: str, until: datetime) -> str:
        """Keep a place; EVSE 0 is any. The same number again changes what was kept under it."""
        outlets = self.station.outlets
        if evse not in (0, *outlets):
            return "Rejected"
        places = [outlets[evse]] if evse else list(outlets.values())
        words = [self._refusal(outlet, number) for outlet in places]
        if "" not in words:
            return words[0]
        outlet = places[words.index("")]
        self._forget(number)
        self.reservations[number] = Kept(number, outlet.number, id_token, group, until)
        self.station.later(lambda: self.station.repeat_status(outlet.number))
        return "Accepted"

    def _refusal(self, outlet: Outlet, number: int) -> str:
        if outlet.error:
            return "Faulted"
        if not outlet.operative:
            return "Unavailable"
        kept = self.kept_at(outlet.number)
        if outlet.car is not None or outlet.charge is not None or (kept is not None and kept.id != number):
            return "Occupied"
        return ""

    def cancel(self, number: int) -> bool:
        kept = self.reservations.get(number)
        if kept is None:
            return False
        self._forget(number)
        self.station.later(lambda: self.station.repeat_status(kept.outlet))
        return True

    def _forget(self, number: int) -> None:
        self.reservations.pop(number, None)

    def kept_at(self, outlet: int) -> Kept | None:
        return next((k for k in self.reservations.values() if k.outlet == outlet), None)

    def turns_away(self, outlet: int, id_token: str, group: str = "") -> bool:
        """Is the place kept for somebody else?"""
        kept = self.kept_at(outlet)
        return kept is not None and not kept.is_for(id_token, group)

    def use(self, outlet: int, id_token: str, group: str = "") -> int | None:
        """A charge begins: the reservation it takes up."""
        kept = self.kept_at(outlet)
        if kept is None or not kept.is_for(id_token, group):
            return None
        self._forget(kept.id)
        return kept.id

    def step(self, now: datetime) -> None:
        """Reservations end by the clock, and with a place that breaks."""
        for kept in list(self.reservations.values()):
            broken = bool(self.station.outlets[kept.outlet].error)
            if now < kept.until and not broken:
                continue
            self._forget(kept.id)
            self.station.dialect.tell_reservation(self.station, kept.id, "Removed" if broken else "Expired")

    # --- firmware ------------------------------------------------------------------------------------------------

    def update(self, location: str, request_id: int | None, signed: bool) -> None:
        """Fetch and install what is there, after the answer."""
        self.station.later(lambda: self._spawn(self._update(location, request_id, signed)))

    async def _update(self, location: str, request_id: int | None, signed: bool) -> None:
        station = self.station
        image = b""
        for word, instead in (
            ("Downloading", "DownloadFailed"),
            ("Downloaded", ""),
            *([("SignatureVerified", "InvalidSignature")] if signed else []),
            ("Installing", "InstallationFailed"),
        ):
            if word == "SignatureVerified" and self.fails_with == instead:
                await self._tell(request_id, instead)
                return
            await self._tell(request_id, word)
            if word == "Downloading":
                fetched = await self._download(location)
                image = fetched or b""
                if fetched is None:
                    await self._tell(request_id, "DownloadFailed")
                    return
            if self.fails_with == instead != "":
                await self._tell(request_id, instead)
                return
        while any(o.charge is not None for o in station.outlets.values()):  # noqa: ASYNC110 - it waits as a person does
            await asyncio.sleep(self.step_s)
        found = _VERSION.match(image)
        station.install_firmware(found[1].decode() if found else urlsplit(location).path.rpartition("/")[2])
        if not self.silent:
            self._told_after_boot = ("Installed", request_id)

    async def _download(self, location: str) -> bytes | None:
        try:
            image = await asyncio.to_thread(_fetch, location)
        except (OSError, ValueError) as error:
            log.info("%s cannot fetch its firmware: %s", self.station.identity, error)
            return None
        self.fetched += len(image)
        return image

    async def _tell(self, request_id: int | None, word: str) -> None:
        if not self.silent:
            self.station.dialect.tell_firmware(self.station, word, request_id)
        await asyncio.sleep(self.step_s)

    def booted(self) -> None:
        """Said after the boot with new firmware."""
        told, self._told_after_boot = self._told_after_boot, None
        if told is not None:
            self.station.dialect.tell_firmware(self.station, *told)

    # --- logs ----------------------------------------------------------------------------------------------------

    def send_log(self, location: str, request_id: int | None, name: str) -> None:
        """Bring a small log there, after the answer."""
        self.station.later(lambda: self._spawn(self._send_log(location, request_id, name)))

    async def _send_log(self, location: str, request_id: int | None, name: str) -> None:
        station = self.station
        station.dialect.tell_log(station, "Uploading", request_id)
        await asyncio.sleep(self.step_s)
        lines = [f"{r.at.isoformat()} {r.action}" for r in list(station.received)[-200:]]
        body = "\n".join([f"log of {station.identity}, firmware {station.firmware}", *lines, ""]).encode()
        try:
            await asyncio.to_thread(_bring, location, name, body)
        except (OSError, ValueError) as error:
            log.info("%s cannot bring its log: %s", station.identity, error)
            station.dialect.tell_log(station, "UploadFailure", request_id)
        else:
            station.dialect.tell_log(station, "Uploaded", request_id)

    # --- its tasks -----------------------------------------------------------------------------------------------

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def stop(self) -> None:
        for task in list(self._tasks):
            task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.gather(*self._tasks, return_exceptions=True)


def _fetch(location: str) -> bytes:
    """Raises `OSError` or `ValueError`. Only HTTP: the file system is not the central system's."""
    _only_http(location)
    with _NO_PROXY.open(location, timeout=20) as answer:
        image: bytes = answer.read()
    return image


def _bring(location: str, name: str, body: bytes) -> None:
    _only_http(location)
    request = urllib.request.Request(f"{location.rstrip('/')}/{name}", data=body, method="PUT")  # noqa: S310
    request.add_header("Content-Type", "application/octet-stream")
    with _NO_PROXY.open(request, timeout=20):
        return


def _only_http(location: str) -> None:
    if urlsplit(location).scheme not in ("http", "https"):
        raise ValueError(f"only HTTP: {location[:20]}")

"""What a station tells us, in words that belong to no version of OCPP.

The two codecs translate into these; the verbs of `stations.py` and `ledger.py` know nothing else. Pure: no clock, no
database. Values are already in our units: A, V, W, Wh, soc 0..1. Times are aware, corrected at the door
(`moment`), with the name of the correction beside them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any

import orjson

OLDEST_CREDIBLE = datetime(2015, 1, 1, tzinfo=UTC)
"""A clock before this was never set: stations start at 1970 or at their build date."""

FUTURE_TOLERATED = timedelta(minutes=5)

_REGISTER = "Energy.Active.Import.Register"

Quantity = tuple[str, str, float, str]
"""One sampled value: measurand, phase ("" for none), value in our unit, location ("" is the outlet)."""


class Kind(StrEnum):
    STARTED = "started"
    UPDATED = "updated"
    ENDED = "ended"


ZONE_STEP_S = 1800
ZONE_SLACK_S = 90
FURTHEST_ZONE_S = 14 * 3600


@dataclass(frozen=True, slots=True)
class Moment:
    """A time as it counts, what was wrong with the one that was told ("" for nothing), and that one itself."""

    at: datetime
    flag: str = ""
    told: datetime | None = None


def moment(told: object, received: datetime) -> Moment:
    """When it happened: as told where that can be, else when we heard of it.

    Without a zone it is taken as UTC. Before 2015 the clock was never set; far ahead of us it is wrong, and by whole
    half hours it tells local time as UTC. A time in the past is believed: it may have waited offline. What is learnt of
    a station's clock besides is put right by `clocks.Clock`.
    """
    at = read_time(told)
    if at is None:
        return Moment(received, "no_time" if told in (None, "") else "bad_time")
    flag = ""
    if at.tzinfo is None:
        at, flag = at.replace(tzinfo=UTC), "no_zone"
    if at < OLDEST_CREDIBLE:
        return Moment(received, "clock_not_set", at)
    if at > received + FUTURE_TOLERATED:
        ahead_s = (at - received).total_seconds()
        steps = zone_steps(ahead_s)
        if steps:
            back = timedelta(seconds=steps * ZONE_STEP_S)
            return Moment(min(at.astimezone(UTC) - back, received), flag or "zone_error", at)
        return Moment(received, "clock_ahead", at)
    at = at if at.tzinfo is UTC else at.astimezone(UTC)
    return Moment(at, flag, at)


def zone_steps(off_s: float) -> int:
    """By how many half hours a clock is off, if that is all that is wrong with it; else 0."""
    steps = round(off_s / ZONE_STEP_S)
    plain = abs(off_s - steps * ZONE_STEP_S) <= ZONE_SLACK_S and abs(off_s) <= FURTHEST_ZONE_S
    return steps if plain else 0


def read_time(told: object) -> datetime | None:
    """A time as stations write it: ISO 8601 with or without zone, or seconds since 1970. None when it is no time."""
    try:
        if isinstance(told, str):
            return datetime.fromisoformat(told.strip())
        if isinstance(told, int | float) and not isinstance(told, bool):
            return datetime.fromtimestamp(told / 1000 if told > 1e11 else told, UTC)
    except (ValueError, OverflowError, OSError):
        pass
    return None


@dataclass(frozen=True, slots=True)
class Boot:
    vendor: str = ""
    model: str = ""
    serial_number: str = ""
    firmware_version: str = ""
    reason: str = ""


@dataclass(frozen=True, slots=True)
class StatusReport:
    """A status word of a connector. `evse` 0 is the station as a whole."""

    evse: int
    connector: int
    status: str
    moment: Moment
    error_code: str = ""
    vendor_error_code: str = ""

    @property
    def pilot_fault(self) -> bool:
        """The vendor's own code says that the pilot is short or the mains are lost (state E, not F)."""
        word = self.vendor_error_code.lower()
        return "pilot" in word or "mains" in word


@dataclass(frozen=True, slots=True)
class ShownToken:
    """An id token as it was presented."""

    value: str
    type: str = ""

    @property
    def is_nobody(self) -> bool:
        """The station charges whoever comes (2.0.1 type NoAuthorization)."""
        return self.type == "NoAuthorization"


@dataclass(frozen=True, slots=True)
class MeterValue:
    """What was sampled at one moment on one EVSE, still on the station's own phases."""

    moment: Moment
    quantities: tuple[Quantity, ...]
    context: str = ""
    signed: tuple[Mapping[str, Any], ...] = ()  # what the meter signed, letter for letter
    received: datetime | None = None

    def register_wh(self) -> float | None:
        """The import register at the outlet over all phases, if it is among the values; at the inlet for want of it."""
        outlet, inlet = self._registers(at_inlet=False), None
        if not outlet:
            inlet = self._registers(at_inlet=True)
        found = outlet or inlet
        if not found:
            return None
        return found[""] if "" in found else sum(found.values())

    def _registers(self, *, at_inlet: bool) -> dict[str, float]:
        """By phase, "" for all together. `L1-N` is L1, and a register between two phases is none."""
        found: dict[str, float] = {}
        for measurand, phase, value, location in self.quantities:
            if measurand != _REGISTER or location in ("Body", "Cable", "EV") or (location == "Inlet") != at_inlet:
                continue
            if not phase or phase[2:] in ("", "-N"):
                found[phase[:2]] = value
        return found

    def oddities(self) -> list[str]:
        """What is unusual about the register in it, though it can be read."""
        phases = [q[1] for q in self.quantities if q[0] == _REGISTER]
        odd = [] if not phases or "" in phases else ["register_per_phase"]
        if any(p.endswith("-N") for p in phases):
            odd.append("register_phase_to_neutral")
        return odd

    def soc(self) -> float | None:
        return next((value for measurand, _, value, _ in self.quantities if measurand == "SoC"), None)


@dataclass(frozen=True, slots=True)
class TransactionReport:
    """One event of a transaction. `transaction_id` is empty where it is ours to give (a 1.6 start).

    `content_key` is the hash of what the station said: a message sent again under a new message id has the same one.
    """

    kind: Kind
    transaction_id: str
    moment: Moment
    content_key: str
    evse: int | None = None
    connector: int = 1
    token: ShownToken | None = None
    trigger: str = ""
    charging_state: str | None = None
    stop_reason: str = ""
    seq_no: int | None = None
    offline: bool = False
    register_wh: float | None = None
    values: tuple[MeterValue, ...] = ()
    remote_start_id: int | None = None
    phases_used: int | None = None
    payload: Mapping[str, Any] = field(default_factory=dict)
    received: datetime | None = None  # when it reached us; `moment` is when it happened
    told: str = ""  # the time as the station wrote it


@dataclass(frozen=True, slots=True)
class ReportedVariable:
    """A 2.0.1 variable, or a 1.6 configuration key (then without a component)."""

    variable: str
    value: str
    component: str = ""
    component_instance: str = ""
    evse: int = 0
    connector: int = 0
    variable_instance: str = ""
    attribute: str = "Actual"
    mutability: str = ""
    characteristics: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What we say to a token: accepted, blocked, expired or invalid, and the group it belongs to."""

    status: str
    group: str = ""
    expires_at: datetime | None = None
    token_pk: int | None = None

    @property
    def accepted(self) -> bool:
        return self.status == "accepted"


@dataclass(frozen=True, slots=True)
class ListEntry:
    """A token in a station's own list, and what the station says to it. No verdict: it is taken out (differential)."""

    token: ShownToken
    verdict: Verdict | None = None


class Subject(StrEnum):
    """What a station was asked to do, and tells its progress of."""

    FIRMWARE = "firmware"
    PUBLISHED_FIRMWARE = "published_firmware"
    LOG = "log"
    RESERVATION = "reservation"


@dataclass(frozen=True, slots=True)
class Notice:
    """How far a station is with something it was asked to do. `status` is its own word, in 2.0.1's spelling.

    `request_id` is that of the call which began it, or the reservation's; plain 1.6 tells none.
    """

    subject: Subject
    status: str
    received: datetime
    request_id: int | None = None
    locations: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class CertificateHash:
    """How OCPP names a certificate: by hashes of its issuer, and its serial number."""

    algorithm: str
    issuer_name_hash: str
    issuer_key_hash: str
    serial: str

    @classmethod
    def read(cls, told: Mapping[str, Any]) -> CertificateHash:
        names = ("hashAlgorithm", "issuerNameHash", "issuerKeyHash", "serialNumber")
        return cls(*(str(told.get(name, "")) for name in names))

    def told(self) -> dict[str, Any]:
        return {
            "hashAlgorithm": self.algorithm,
            "issuerNameHash": self.issuer_name_hash,
            "issuerKeyHash": self.issuer_key_hash,
            "serialNumber": self.serial,
        }


def content_key(*parts: object) -> str:
    """One hash for the content of a message, the same however often and under whatever message id it is sent."""
    return hashlib.sha256(orjson.dumps(parts, default=str, option=orjson.OPT_SORT_KEYS)).hexdigest()

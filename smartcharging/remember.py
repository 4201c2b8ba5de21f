"""What the live layer must know of the cycles before: when a limit last changed, and which phases a car uses.

The allocator is stateless; its memory is a hash in Redis, one field per EVSE, written by the one balance that has the
site's turn. When it is lost, nothing is unsafe: a car is then taken to use every phase it is wired to, and a limit to
have held for ever.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from typing import Any

from meters.live import connection
from meters.measurement import Measurement
from smartcharging.engine.grid import Phases

KEEP_S = 24 * 3600
CLEARLY_ON_A = 3.0  # below it, a current says nothing about the phases
USED_SHARE = 0.2  # a phase with less than this of the strongest one is not used
STEADY_S = 8.0  # how long the same phases must be seen
SAME_A = 0.05
Flags = tuple[bool, bool, bool]
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class EvseMemory:
    """What is remembered of one EVSE.

    `offered_a` is the limit the station last accepted, `before_a` the one before it, `since` when it changed. `used`
    are the grid phases the present car was seen to load, None while that is not certain.
    """

    transaction: int | None = None
    offered_a: float | None = None
    before_a: float | None = None
    since: datetime | None = None
    on_since: datetime | None = None
    off_since: datetime | None = None
    used: Flags | None = None
    seen: Flags | None = None
    seen_since: datetime | None = None
    told: str = ""  # the want last put, to renew it only when due
    told_until: datetime | None = None
    recorded: str = ""  # the allocation last recorded

    def with_offer(self, offered_a: float | None, accepted_at: datetime | None, now: datetime) -> EvseMemory:
        """The station stands by this limit now."""
        if offered_a is None:
            return replace(self, offered_a=None, before_a=None, since=None, on_since=None)
        if self.offered_a is not None and abs(self.offered_a - offered_a) < SAME_A:
            return self
        since = accepted_at or now
        on, was_on = offered_a > 0, bool(self.offered_a)
        return replace(
            self,
            offered_a=offered_a,
            before_a=self.offered_a,
            since=since,
            on_since=(self.on_since if was_on and self.on_since is not None else since) if on else None,
            off_since=None if on else since,
        )

    def with_transaction(self, transaction: int | None) -> EvseMemory:
        """Another car, or none: nothing is known of its phases."""
        if transaction == self.transaction:
            return self
        return replace(self, transaction=transaction, used=None, seen=None, seen_since=None)

    def with_measurement(self, currents: Phases | None, at: datetime | None) -> EvseMemory:
        """Learn which phases the car loads: the same ones, clearly, for a while. A pause makes it uncertain again."""
        if currents is None or at is None:
            return self
        strongest = max(currents)
        if strongest < CLEARLY_ON_A:
            return replace(self, used=None, seen=None, seen_since=None)
        seen: Flags = (
            currents[0] > USED_SHARE * strongest,
            currents[1] > USED_SHARE * strongest,
            currents[2] > USED_SHARE * strongest,
        )
        if seen != self.seen or self.seen_since is None:
            # A phase that is suddenly loaded counts at once; one that falls silent only after a while.
            more = self.used is not None and any(s and not u for s, u in zip(seen, self.used, strict=True))
            return replace(self, seen=seen, seen_since=at, used=None if more else self.used)
        if (at - self.seen_since).total_seconds() >= STEADY_S:
            return replace(self, used=seen)
        return self


def recall(site_id: int) -> dict[int, EvseMemory]:
    """The memory of every EVSE of the site that has one. What cannot be read is forgotten."""
    found: dict[int, EvseMemory] = {}
    body: Mapping[str, str] = connection().hgetall(_key(site_id))  # type: ignore[assignment]
    for field, text in body.items():
        try:
            found[int(field)] = _from_json(text)
        except (ValueError, TypeError, KeyError):
            log.warning("memory of EVSE %s of site %s cannot be read; forgotten", field, site_id)
    return found


def keep(site_id: int, memories: Mapping[int, EvseMemory]) -> None:
    """Remember until the next cycle."""
    if not memories:
        return
    pipe = connection().pipeline(transaction=True)
    pipe.delete(_key(site_id))
    pipe.hset(_key(site_id), mapping={str(pk): _to_json(m) for pk, m in memories.items()})
    pipe.expire(_key(site_id), KEEP_S)
    pipe.execute()


def phase_currents(measurement: Measurement | None) -> Phases | None:
    """Current on each grid phase, all three known; None otherwise."""
    currents = None if measurement is None else measurement.phase_currents()
    if currents is None or any(c is None for c in currents):
        return None
    a, b, c = currents
    return (float(a or 0.0), float(b or 0.0), float(c or 0.0))


_TIMES = ("since", "on_since", "off_since", "seen_since", "told_until")
_FLAGS = ("used", "seen")


def _key(site_id: int) -> str:
    return f"memory:{site_id}"


def _to_json(memory: EvseMemory) -> str:
    data = {k: v for k, v in asdict(memory).items() if v is not None and v != ""}
    for name in _TIMES:
        if name in data:
            data[name] = data[name].isoformat()
    return json.dumps(data)


def _from_json(text: str) -> EvseMemory:
    data: dict[str, Any] = json.loads(text)
    for name in _TIMES:
        if name in data:
            data[name] = datetime.fromisoformat(data[name])
    for name in _FLAGS:
        if name in data:
            a, b, c = data[name]
            data[name] = (bool(a), bool(b), bool(c))
    return EvseMemory(**data)

"""What the live layer must know of the cycles before: when a limit last changed, and which phases a car uses.

The allocator is stateless; its memory is a hash in Redis, one field per EVSE, written by the one balance that has the
site's turn. When it is lost, nothing is unsafe: a car is then taken to use every phase it is wired to, and a limit to
have held for ever.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from datetime import datetime
from typing import Any

from meters.live import connection
from meters.measurement import Measurement
from smartcharging.engine.carried import Carried
from smartcharging.engine.grid import Phases
from smartcharging.engine.live.phase_steps import StepMemory
from smartcharging.engine.vehicle import MinimumMemory, PhaseMemory, observe_minimum, observe_phases

KEEP_S = 24 * 3600
CARRIED_S = 120
SAME_A = 0.05
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class EvseMemory:
    """What is remembered of one EVSE.

    `offered_a` is the limit the station last accepted, `before_a` the one before it, `since` when it changed.
    `phases` and `minimum` are what the present car has shown of itself.
    """

    transaction: int | None = None
    offered_a: float | None = None
    before_a: float | None = None
    since: datetime | None = None
    on_since: datetime | None = None
    off_since: datetime | None = None
    phases: PhaseMemory = field(default_factory=PhaseMemory)
    minimum: MinimumMemory = field(default_factory=MinimumMemory)
    steps: StepMemory = field(default_factory=StepMemory)  # of a car whose station tells no currents by phase
    told: str = ""  # the want last put, to renew it only when due
    told_until: datetime | None = None
    recorded: str = ""  # the allocation last recorded

    def with_offer(self, offered_a: float | None, accepted_at: datetime | None, now: datetime) -> EvseMemory:
        """The station stands by this limit now; `accepted_at` None: it may, but it has not said so to this car.

        On and off are what this car was told: one that waits for its first amps was never paused.
        """
        if offered_a is None:
            return replace(self, offered_a=None, before_a=None, since=None, on_since=None)
        since = accepted_at or now
        memory = self
        if self.offered_a is None or abs(self.offered_a - offered_a) >= SAME_A:
            memory = replace(self, offered_a=offered_a, before_a=self.offered_a, since=since)
        if accepted_at is None:
            return memory
        if offered_a > 0:
            return replace(memory, on_since=memory.on_since or since, off_since=None)
        if memory.on_since is not None:
            return replace(memory, on_since=None, off_since=since)
        return memory

    def with_transaction(self, transaction: int | None) -> EvseMemory:
        """Another car, or none: nothing is known of it."""
        if transaction == self.transaction:
            return self
        return replace(
            self,
            transaction=transaction,
            on_since=None,
            off_since=None,
            phases=PhaseMemory(),
            minimum=MinimumMemory(),
            steps=StepMemory(),
        )

    def with_measurement(self, currents: Phases | None, at: datetime | None, *, wants: bool) -> EvseMemory:
        """Learn which phases the car loads, and from how many amps it charges."""
        if at is None:
            return self
        return replace(
            self,
            phases=observe_phases(self.phases, at, self.offered_a, currents),
            minimum=observe_minimum(self.minimum, at, self.offered_a, currents, wants=wants),
        )


def recall(site_id: int) -> dict[int, EvseMemory]:
    """The memory of every EVSE of the site that has one. What cannot be read is forgotten."""
    found: dict[int, EvseMemory] = {}
    body: Mapping[str, str] = connection().hgetall(_key(site_id))  # type: ignore[assignment]
    for evse, text in body.items():
        try:
            found[int(evse)] = _from_json(text)
        except (ValueError, TypeError, KeyError):
            log.warning("memory of EVSE %s of site %s cannot be read; forgotten", evse, site_id)
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


def recall_carried(site_id: int) -> Carried | None:
    """What the last balance asked to be told again; None when it is lost, cannot be read, or there was none."""
    text = connection().get(f"carried:{site_id}")
    if text is None:
        return None
    try:
        return Carried.from_json(str(text))
    except ValueError as error:
        log.warning("site %s: %s; forgotten", site_id, error)
        return None


def keep_carried(site_id: int, carried: Carried | None) -> None:
    """Remember it until the next cycle, as long as that comes before the cars could be other ones."""
    if carried is not None:
        connection().set(f"carried:{site_id}", carried.to_json(), ex=CARRIED_S)


def phase_currents(measurement: Measurement | None) -> Phases | None:
    """Current on each grid phase, all three known; None otherwise."""
    currents = None if measurement is None else measurement.phase_currents()
    if currents is None or any(c is None for c in currents):
        return None
    a, b, c = currents
    return (float(a or 0.0), float(b or 0.0), float(c or 0.0))


_TIMES = {"since", "on_since", "off_since", "told_until", "seen_since", "doubt_until", "offered_since", "at"}


def _key(site_id: int) -> str:
    return f"memory:{site_id}"


def _to_json(memory: EvseMemory) -> str:
    data = _members(memory)
    for name in ("phases", "minimum", "steps"):
        data[name] = _members(data[name])
    return json.dumps(data, default=datetime.isoformat)


def _members(record: EvseMemory | PhaseMemory | MinimumMemory | StepMemory) -> dict[str, Any]:
    return {f.name: getattr(record, f.name) for f in fields(record)}


def _from_json(text: str) -> EvseMemory:
    data = json.loads(text, object_hook=_with_times)
    data["phases"] = PhaseMemory(**data["phases"])
    data["minimum"] = MinimumMemory(**data["minimum"])
    data["steps"] = StepMemory(**data.get("steps", {}))
    return EvseMemory(**data)


def _with_times(data: dict[str, Any]) -> dict[str, Any]:
    """Times and tuples as they were."""
    return {
        k: datetime.fromisoformat(v) if k in _TIMES and v is not None else tuple(v) if isinstance(v, list) else v
        for k, v in data.items()
    }

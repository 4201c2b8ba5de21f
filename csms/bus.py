"""Redis between the processes: wants, calls and replies, and who holds which station.

    want:<identity>:<evse>   the limit wanted now; latest wins; told on channel `want`
    hands:<identity>:<evse>  limits put by operators' hands, one each; whoever wants more must stay below them until
                             they end
    call:<gateway>           a stream of one-off requests to the gateway that holds the station
    reply:<id>               the answer, popped once by whoever asked
    at:<identity>            which gateway holds the station, with its epoch; lives 30 s, renewed every 10 s
    epoch:<identity>         a moment in microseconds that only grows: the newest authenticated socket has the highest
    channel `changed`        a record the gateways keep in memory was changed: {"kind": "station"|"token", "id": …}

A limit is a desired state, a call is made once: the two never mix (`docs/architecture.md`).
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from datetime import datetime
from typing import Any

from csms.sealing import seal
from meters.live import connection

HOLD_S = 30
WANT_CHANNEL = "want"
CHANGED_CHANNEL = "changed"
CALL_STREAM_LENGTH = 10_000
HANDS_KEEP_S = 31 * 24 * 3600
CALL_STREAM_KEEP_S = 3600


class StationUnreachable(Exception):
    """No gateway holds this station now."""


class NoAnswer(Exception):
    """The gateway or the station did not answer in time. The call may or may not have had its effect."""


class CallRefused(Exception):
    """The station answered with a CALLERROR."""

    def __init__(self, code: str, description: str = "", details: Any = None) -> None:
        super().__init__(f"{code}: {description}" if description else code)
        self.code, self.description, self.details = code, description, details


class CallNotValid(Exception):
    """What we were asked to send does not fit the station's schema; nothing was sent."""


@dataclass(frozen=True, slots=True)
class Want:
    """The limit wanted on one EVSE. AC in amps per phase, DC in watts; exactly one of the two is set.

    `until` is the moment up to which the wanter stands for it (the lease): the gateway never renews a profile
    on its own beyond it. `periods` may carry the plan ahead: (seconds from `at`, limit) pairs, same unit, first 0.
    `urgent` pre-empts pacing (fire, overload).
    """

    identity: str
    evse: int
    limit_a: float | None
    limit_w: float | None
    reason: str
    at: datetime
    until: datetime
    phases: int | None = None
    urgent: bool = False
    periods: tuple[tuple[int, float], ...] = ()
    by: str = ""  # the person whose hand it is; empty for whoever steers the EVSE

    def to_json(self) -> str:
        data = asdict(self)
        data["at"], data["until"] = self.at.isoformat(), self.until.isoformat()
        return json.dumps(data)

    @classmethod
    def from_json(cls, body: str) -> Want:
        data = json.loads(body)
        data["at"] = datetime.fromisoformat(data["at"])
        data["until"] = datetime.fromisoformat(data["until"])
        data["periods"] = tuple((int(s), float(v)) for s, v in data.get("periods", ()))
        return cls(**{name: value for name, value in data.items() if name in _MEMBERS})


_MEMBERS = frozenset(f.name for f in fields(Want))


@dataclass(frozen=True, slots=True)
class Holder:
    """The gateway process that holds a station's socket."""

    gateway: str
    epoch: int
    protocol: str
    since: datetime


def want_key(identity: str, evse: int) -> str:
    return f"want:{identity}:{evse}"


def put_wants(wants: Iterable[Want]) -> None:
    """Make these the wanted limits. Idempotent; the gateway sends only what differs from what is accepted."""
    pipe = connection().pipeline(transaction=False)
    some = False
    for want in wants:
        some = True
        life = max(int((want.until - want.at).total_seconds()), 1) + 60
        pipe.set(want_key(want.identity, want.evse), want.to_json(), ex=life)
        pipe.publish(WANT_CHANNEL, json.dumps([want.identity, want.evse]))
    if some:
        pipe.execute()


def get_want(identity: str, evse: int) -> Want | None:
    body = connection().get(want_key(identity, evse))
    return Want.from_json(str(body)) if body else None


def hands_key(identity: str, evse: int) -> str:
    return f"hands:{identity}:{evse}"


def put_hand_limit(want: Want) -> None:
    """An operator's own limit, in the place of the one this operator put before.

    It dies at its end; until then those who steer the EVSE narrow what they want by it, and the gateway never goes
    above it, whoever wants what.
    """
    client, key = connection(), hands_key(want.identity, want.evse)
    ended = [by for by, body in _hands(client.hgetall(key)) if body.until <= want.at]
    pipe = client.pipeline(transaction=True)
    if ended:
        pipe.hdel(key, *ended)
    pipe.hset(key, want.by or want.reason, want.to_json())
    pipe.expire(key, HANDS_KEEP_S)
    pipe.publish(WANT_CHANNEL, json.dumps([want.identity, want.evse]))
    pipe.execute()


def hand_limits(evses: Iterable[tuple[str, int]]) -> dict[tuple[str, int], list[Want]]:
    """The limits by hand on these (identity, EVSE number) pairs that have any."""
    pairs = list(evses)
    if not pairs:
        return {}
    pipe = connection().pipeline(transaction=False)
    for identity, evse in pairs:
        pipe.hgetall(hands_key(identity, evse))
    found = {pair: [want for _, want in _hands(body)] for pair, body in zip(pairs, pipe.execute(), strict=True)}
    return {pair: wants for pair, wants in found.items() if wants}


def _hands(body: Any) -> list[tuple[str, Want]]:
    return [(str(by), Want.from_json(str(text))) for by, text in body.items()]


def announce_change(kind: str, pk: int | str) -> None:
    """Tell every gateway that a record it may hold in memory has changed."""
    connection().publish(CHANGED_CHANNEL, json.dumps({"kind": kind, "id": pk}))


def holder(identity: str) -> Holder | None:
    return holders([identity]).get(identity)


def holders(identities: Iterable[str]) -> dict[str, Holder]:
    """Which of these stations are connected, and where."""
    names = list(identities)
    if not names:
        return {}
    found: dict[str, Holder] = {}
    for name, body in zip(names, connection().mget([f"at:{n}" for n in names]), strict=True):
        if body:
            data = json.loads(body)
            data["since"] = datetime.fromisoformat(data["since"])
            found[name] = Holder(**data)
    return found


def request(identity: str, action: str, payload: dict[str, Any], timeout_s: float = 30.0) -> dict[str, Any]:
    """Ask a station something in its own dialect, once, and wait for the answer.

    Raises `StationUnreachable`, `CallNotValid`, `CallRefused` or `NoAnswer`. Never repeated by itself.
    """
    at = holder(identity)
    if at is None:
        raise StationUnreachable(identity)
    call_id = uuid.uuid4().hex
    body = json.dumps(
        {
            "id": call_id,
            "identity": identity,
            "epoch": at.epoch,
            "action": action,
            "payload": payload,
            "timeout_s": timeout_s,
        }
    )
    client = connection()
    pipe = client.pipeline(transaction=False)
    pipe.xadd(f"call:{at.gateway}", {"body": seal(body)}, maxlen=CALL_STREAM_LENGTH, approximate=True)
    pipe.expire(f"call:{at.gateway}", CALL_STREAM_KEEP_S)  # of a gateway that died nobody else cleans up
    pipe.execute()
    patience = time.monotonic() + timeout_s + 5
    gone = False
    while time.monotonic() < patience:
        # Waiting in short pulls keeps the socket timeout of the shared client small.
        popped = client.blpop([f"reply:{call_id}"], timeout=1)
        if popped:
            return _open_reply(json.loads(popped[1]), identity)
        if gone:
            raise NoAnswer(f"the connection of {identity} was lost before it answered {action}")
        now = holder(identity)  # one more pull, for an answer that crossed the loss
        gone = now is None or (now.gateway, now.epoch) != (at.gateway, at.epoch)
    raise NoAnswer(f"{identity} did not answer {action} within {timeout_s:.0f} s")


def _open_reply(reply: dict[str, Any], identity: str) -> dict[str, Any]:
    kind = reply["kind"]
    if kind == "result":
        result: dict[str, Any] = reply["result"]
        return result
    if kind == "error":
        raise CallRefused(reply.get("code", ""), reply.get("description", ""), reply.get("details"))
    if kind == "invalid":
        raise CallNotValid(reply.get("description", ""))
    if kind == "unreachable":
        raise StationUnreachable(identity)
    raise NoAnswer(reply.get("description", "no answer"))

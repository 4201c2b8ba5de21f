"""The facts behind one charge, for whoever explains it: from the newest picture, the newest plan and the goal.

Two questions to the database and one to Redis for a whole site. The picture is the balance's own; when there is none,
or it is old, the wanted limit tells what was last decided, and what only a picture knows is left out.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Any

import numpy as np
from redis.exceptions import RedisError

from csms.models import EVSE, ChargingStation, Transaction, WantedLimit
from meters import live
from meters.measurement import Measurement
from meters.models import Site
from smartcharging.engine.explain.explain import Explanation, explain_charge
from smartcharging.engine.explain.facts import Course, Ended, Facts, FreePlace, Given, Wish
from smartcharging.engine.explain.remedies import Remedies
from smartcharging.engine.grid import NOMINAL_V, Supply, power_weight
from smartcharging.engine.plan.problem import Series
from smartcharging.engine.snapshot import Mode
from smartcharging.models import ChargingGoal, Plan, Tariff
from smartcharging.places import amps_of, plug_share
from smartcharging.remember import phase_currents

PICTURE_MAX_AGE_S = 60
PLUGGED = (EVSE.Status.PREPARING, EVSE.Status.OCCUPIED, EVSE.Status.FINISHING)
log = logging.getLogger(__name__)


def newest_picture(site_id: int) -> tuple[dict[str, Any] | None, bool]:
    """The stored picture of a site, and whether Redis is away."""
    try:
        body = live.connection().get(f"now:{site_id}")
    except (RedisError, OSError):
        return None, True
    if not body:
        return None, False
    try:
        picture = json.loads(str(body))
    except ValueError:
        log.warning("now:%s holds no picture; ignored", site_id)
        return None, False
    return (picture if isinstance(picture, dict) else None), False


def explain(
    transaction: Transaction, now: datetime, measured: Measurement | None = None, *, connected: bool | None = None
) -> Explanation:
    """One charge, running or over. `connected` None: as the picture says."""
    site = transaction.station.site
    if transaction.ended_at is not None or site is None:
        return explain_charge(_over(transaction))
    around = Around.of(site, now)
    evse = transaction.evse
    if evse is None:
        evse = EVSE(station=transaction.station, number=0)
    return explain_charge(around.facts(evse, transaction, measured, connected=connected))


@dataclass(frozen=True)
class Around:
    """What all charges of a site share at one moment."""

    now: datetime
    picture: Mapping[str, Any]  # empty when there is none that is young enough
    plan: Plan | None  # the newest, also when it no longer holds
    tariff: Tariff
    supply: Supply = Supply.TN

    @classmethod
    def of(cls, site: Site, now: datetime, picture: Mapping[str, Any] | None = None) -> Around:
        if picture is None:
            picture, _away = newest_picture(site.pk)
        return cls(
            now=now,
            picture=picture if picture is not None and _is_young(picture, now) else {},
            plan=Plan.objects.filter(site=site).order_by("-made_at").first(),
            tariff=Tariff.objects.filter(site=site).first() or Tariff(site=site),
            supply=Supply(site.supply),
        )

    def facts(
        self,
        evse: EVSE,
        transaction: Transaction | None,
        measured: Measurement | None = None,
        *,
        connected: bool | None = None,
    ) -> Facts:
        """What is known of this place and its charge. `measured` counts before what the picture saw."""
        seen = self._evses.get(evse.pk, {})
        station = evse.station
        goal = _goal_of(transaction)
        phases = int(_number(seen.get("phases")) or _wired(station, self.supply))
        given = self._given(evse, transaction, seen)
        limit = _limit_of(evse)
        currents = _currents(measured, seen)
        return Facts(
            now=self.now,
            charging=transaction is not None,
            plugged=evse.status in PLUGGED or transaction is not None,
            connected=bool(seen.get("connected", True)) if connected is None else connected,
            faulted=evse.status == EVSE.Status.FAULTED,
            in_service=evse.available and evse.status != EVSE.Status.UNAVAILABLE,
            authorized=transaction is None or transaction.authorized,
            card_known=transaction is None or transaction.id_token_id is not None,
            dc=station.current == ChargingStation.Current.DC,
            phases=phases,
            supply=self.supply,
            given=given,
            measured_a=None if currents is None else max(currents),
            power_w=measured.power_w if measured is not None else _number(seen.get("power_w")),
            max_w=_number(seen.get("max_w")) or _station_max_w(station, phases, self.supply),
            charged_wh=transaction.energy_wh if transaction is not None else 0.0,
            mode=Mode(goal.mode) if goal is not None else Mode.PLAN,
            must_replug=limit is not None and limit.resume == WantedLimit.Resume.UNPLUG,
            wish=_wish(goal),
            course=self._course(evse, transaction, goal),
            room_w=self._room_w(str(seen.get("circuit") or ""), phases),
            elsewhere=self._elsewhere(given, phases),
        )

    def _given(self, evse: EVSE, transaction: Transaction | None, seen: Mapping[str, Any]) -> Given | None:
        """The share of this moment; what was last wanted where no picture tells it, or only of a car before."""
        told = seen.get("limit")
        if isinstance(told, Mapping) and seen.get("transaction") == (None if transaction is None else transaction.pk):
            return Given(
                _number(told.get("wanted_a")),
                str(told.get("reason") or ""),
                str(told.get("circuit") or ""),
                str(told.get("phase") or ""),
            )
        limit = _limit_of(evse)
        if limit is None or (limit.wanted_a is None and limit.wanted_w is None):
            return None
        return Given(amps_of(limit.wanted_a, limit.wanted_w, self.supply), limit.reason, limit_w=limit.wanted_w)

    def _course(self, evse: EVSE, transaction: Transaction | None, goal: ChargingGoal | None) -> Course | None:
        """What the newest plan gives this very car; a car that came after it is not in it."""
        plan = self.plan
        if plan is None or transaction is None or not isinstance(plan.result, dict):
            return None
        key = str(evse.pk)
        power_w = _mapping(plan.result.get("evse")).get(key)
        if _mapping(plan.result.get("transactions")).get(key) != transaction.pk or not isinstance(power_w, list):
            return None
        short = _mapping(_mapping(plan.result.get("shortfalls")).get(str(goal.pk) if goal is not None else ""))
        return Course(
            starts_at=plan.starts_at,
            slot_s=plan.slot_s,
            power_w=np.array([w or 0.0 for w in power_w], dtype=np.float64),
            made_at=plan.made_at,
            valid=plan.valid_until > self.now,
            by_rule=plan.status == Plan.Status.FALLBACK,
            remedies=Remedies.from_dict(short) if short else None,
            eur_per_kwh=self._prices,
            plug_share=plug_share(evse.station.current),
            leaves_early_share=_number(_mapping(plan.result.get("leaves_early")).get(key)),
        )

    @cached_property
    def _prices(self) -> Series:
        """Per slot of the plan, what a kWh more costs the site, or what it would have earned; not a number where
        that is not known: EUR per kWh."""
        result = _mapping(self.plan.result) if self.plan is not None else {}
        market, grid = (np.array(result.get(name) or [], dtype=np.float64) for name in ("price", "grid_w"))
        known = min(len(market), len(grid))
        per_kwh, flow, tariff = market[:known] / 1000, grid[:known], self.tariff
        bought = per_kwh * tariff.import_factor + tariff.import_adder_eur_per_kwh
        sold = per_kwh * tariff.export_factor + tariff.export_adder_eur_per_kwh
        prices: Series = np.where(np.isnan(flow), np.nan, np.where(flow >= 0, bought, sold))
        return prices

    @cached_property
    def _evses(self) -> dict[int, Mapping[str, Any]]:
        return {e["id"]: e for e in self.picture.get("evses") or [] if isinstance(e, Mapping) and "id" in e}

    @cached_property
    def _circuits(self) -> dict[str, Mapping[str, Any]]:
        return {c["name"]: c for c in self.picture.get("circuits") or [] if isinstance(c, Mapping) and "name" in c}

    def _path(self, circuit: str) -> list[str]:
        """A circuit and all above it, by name."""
        path: list[str] = []
        while circuit in self._circuits and circuit not in path:
            path.append(circuit)
            circuit = str(self._circuits[circuit].get("parent") or "")
        return path

    def _room_w(self, circuit: str, phases: int) -> float | None:
        """What the fullest phase leaves on the way up, as power on so many phases; None when it is not known."""
        path = self._path(circuit)
        rooms = [self._circuits[name].get("headroom_a") for name in path]
        known = [min(room) for room in rooms if isinstance(room, list) and len(room) == 3 and None not in room]
        if not path or len(known) < len(path):
            return None
        return max(float(min(known)), 0.0) * power_weight(phases, self.supply) * NOMINAL_V

    @cached_property
    def _free(self) -> dict[str, tuple[str, float]]:
        """Of each circuit the free place that gives most [W], of those whose station is connected."""
        found: dict[str, tuple[str, float]] = {}
        for evse in self._evses.values():
            if evse.get("transaction") is not None or not evse.get("connected"):
                continue
            if evse.get("status") != EVSE.Status.AVAILABLE:
                continue
            most_w, circuit = _number(evse.get("max_w")) or 0.0, str(evse.get("circuit") or "")
            if most_w > found.get(circuit, ("", 0.0))[1]:
                found[circuit] = (str(evse.get("name") or ""), most_w)
        return found

    def _elsewhere(self, given: Given | None, phases: int) -> tuple[FreePlace, ...]:
        """Free places that do not hang below the circuit that holds this one back."""
        if given is None or not given.circuit:
            return ()
        places = []
        for circuit, (name, most_w) in self._free.items():
            room_w = self._room_w(circuit, phases)
            if room_w is not None and given.circuit not in self._path(circuit):
                places.append(FreePlace(name, circuit, min(room_w, most_w)))
        return tuple(places)


def _over(transaction: Transaction) -> Facts:
    ended = None
    if transaction.ended_at is not None:
        ended = Ended(transaction.ended_at, transaction.stop_reason)
    return Facts(
        now=transaction.ended_at or transaction.started_at,
        charged_wh=transaction.energy_wh,
        card_known=transaction.id_token_id is not None,
        wish=_wish(_goal_of(transaction)),
        ended=ended,
    )


def _goal_of(transaction: Transaction | None) -> ChargingGoal | None:
    goal: ChargingGoal | None = getattr(transaction, "goal", None)
    return goal if goal is not None and goal.cancelled_at is None else None


def _wish(goal: ChargingGoal | None) -> Wish | None:
    if goal is None:
        return None
    return Wish(goal.energy_wh, goal.departure, goal.promised_wh, goal.promise_reason)


def _limit_of(evse: EVSE) -> WantedLimit | None:
    limit: WantedLimit | None = getattr(evse, "wanted_limit", None)
    return limit


def _currents(measured: Measurement | None, seen: Mapping[str, Any]) -> tuple[float, ...] | None:
    if measured is not None:
        return phase_currents(measured)
    known = [a for a in seen.get("current_a") or () if a is not None]
    return tuple(abs(float(a)) for a in known) or None


def _wired(station: ChargingStation, supply: Supply) -> int:
    lines = len(station.wiring) or 3
    return 1 if supply is Supply.IT and lines == 2 else lines


def _station_max_w(station: ChargingStation, phases: int, supply: Supply) -> float:
    most_w = station.max_a * power_weight(phases, supply) * NOMINAL_V
    return most_w if station.max_w is None else min(most_w, station.max_w)


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _is_young(picture: Mapping[str, Any], now: datetime) -> bool:
    try:
        age_s = (now - datetime.fromisoformat(str(picture["at"]))).total_seconds()
    except (KeyError, ValueError, TypeError):
        return False
    return age_s <= PICTURE_MAX_AGE_S

"""The site as a face shows it: flows, circuits with their headroom and reasons, EVSEs with their limits.

Stored as `now:<site>` by each balance and pushed to the live stream. `None` is unknown and never zero: a flow whose
meter is silent is None, and so is every flow that is reckoned from it.

The flows close: grid = building + charging + loads + battery + PV. The building is what is left, so it is known only
when all the others are. A kind of device the site does not have is no unknown; it is left out of the sum.
"""

from __future__ import annotations

import json
from typing import Any

from meters.live import connection
from meters.models import Device
from smartcharging.engine.grid import NOMINAL_V, Phases, Supply, power_weight, spread_a
from smartcharging.engine.snapshot import Allocation, Session
from smartcharging.gather import View
from smartcharging.places import Place, amps_of, wired
from smartcharging.remember import phase_currents

KEEP_S = 24 * 3600


def picture(view: View, allocation: Allocation | None) -> dict[str, Any]:
    """The picture of this moment. Without an allocation it shows what is measured, and no reasons."""
    return {
        "at": view.now.isoformat(),
        "site": view.site.pk,
        "name": view.site.name,
        "demo": view.site.demo,
        "flows": flows(view),
        "circuits": _circuits(view, allocation),
        "evses": [
            _evse(view, place, session, allocation)
            for place, session in zip(view.places, view.snapshot.sessions, strict=True)
        ],
        "plan": _plan(view),
        "price_eur_per_mwh": view.price_eur_per_mwh,
    }


def store(site_id: int, body: dict[str, Any]) -> None:
    """Keep the newest picture and push it to whoever looks."""
    text = json.dumps(body)
    pipe = connection().pipeline(transaction=False)
    pipe.set(f"now:{site_id}", text, ex=KEEP_S)
    pipe.publish(f"push:{site_id}", text)
    pipe.execute()


def flows(view: View) -> dict[str, float | None]:
    """Power of each kind, load-positive: PV negative, a charging battery positive."""
    grid_w = _grid_w(view)
    parts = {
        "pv_w": _sum_of(view, Device.Kind.PV),
        "battery_w": _sum_of(view, Device.Kind.BATTERY),
        "loads_w": _sum_of(view, Device.Kind.LOAD),
    }
    has = {
        "pv_w": bool(view.devices_of(Device.Kind.PV)),
        "battery_w": bool(view.devices_of(Device.Kind.BATTERY)),
        "loads_w": bool(view.devices_of(Device.Kind.LOAD)),
    }
    charging = charging_w(view)
    building: float | None = None
    if grid_w is not None and charging is not None and not any(parts[k] is None for k in parts if has[k]):
        building = grid_w - charging - sum(parts[k] or 0.0 for k in parts)
    return {
        "grid_w": _round(grid_w),
        "pv_w": _round(parts["pv_w"]),
        "battery_w": _round(parts["battery_w"]),
        "battery_soc": _soc(view),
        "charging_w": _round(charging),
        "building_w": _round(building),
        "loads_w": _round(parts["loads_w"]),
    }


def building_at_most_w(view: View) -> float | None:
    """What the building takes at most, when some car is not heard of yet: that car is taken to draw nothing.

    For whoever plans; a face shows `flows`, where the building is then unknown.
    """
    grid_w = _grid_w(view)
    if grid_w is None:
        return None
    known = 0.0
    for kind in (Device.Kind.PV, Device.Kind.BATTERY, Device.Kind.LOAD):
        if view.devices_of(kind):
            power = _sum_of(view, kind)
            if power is None:
                return None
            known += power
    return grid_w - known - sum(power_w(place) or 0.0 for place in view.places)


def _grid_w(view: View) -> float | None:
    meter = view.circuits[0].meter
    found = view.live.get(meter.pk) if meter is not None else None
    if found is None:
        return None
    if found.power_w is not None:
        return found.power_w
    phases = found.power_phase_w
    if phases is None or any(p is None for p in phases):
        return None
    return sum(p for p in phases if p is not None)


def _sum_of(view: View, kind: str) -> float | None:
    """All devices of a kind together; None when there is none or one of them is not known."""
    powers = [view.live[d.pk].power_w if d.pk in view.live else None for d in view.devices_of(kind)]
    if not powers or any(p is None for p in powers):
        return None
    return sum(p for p in powers if p is not None)


def _soc(view: View) -> float | None:
    """The stored share of all batteries, each weighed by its size."""
    batteries = view.snapshot.batteries
    if not batteries or any(b.soc is None for b in batteries):
        return None
    whole = sum(b.capacity_wh for b in batteries)
    return round(sum((b.soc or 0.0) * b.capacity_wh for b in batteries) / whole, 4) if whole > 0 else None


def charging_w(view: View) -> float | None:
    """What all EVSEs take together. One that charges and is not heard of makes the sum unknown."""
    total = 0.0
    for place in view.places:
        power = power_w(place)
        if power is None and place.transaction is not None:
            return None
        total += power or 0.0
    return total


def power_w(place: Place) -> float | None:
    """What an EVSE takes now, measured; a free one takes nothing."""
    if place.measured is not None and place.measured.power_w is not None:
        return place.measured.power_w
    return 0.0 if place.transaction is None else None


def _circuits(view: View, allocation: Allocation | None) -> list[dict[str, Any]]:
    loads = _measured_loads(view)
    out = []
    for node, circuit in enumerate(view.snapshot.grid.circuits):
        reading = view.snapshot.readings.get(node)
        parent = circuit.parent
        headroom = None if allocation is None else allocation.headroom_a.get(node)
        load = loads[node]
        if headroom is None:
            headroom = _free(circuit.limit_a, circuit.margin_a, load)
        out.append(
            {
                "id": circuit.key,
                "name": circuit.name,
                "parent": None if parent is None else view.snapshot.grid.circuits[parent].name,
                "limit_a": list(circuit.limit_a),
                "load_a": None if load is None else [round(a, 2) for a in load],
                "headroom_a": [round(a, 2) for a in headroom],
                "reason": "" if allocation is None else allocation.node_reason.get(node, ""),
                "metered": circuit.metered,
                "stale": circuit.metered and (reading is None or reading.current_a is None),
            }
        )
    return out


def _free(limit_a: Phases, margin_a: float, load: Phases | None) -> Phases:
    """What is left by the meter alone; nothing where the load is not known."""
    if load is None:
        return (0.0, 0.0, 0.0)
    a, b, c = (most - margin_a - taken for most, taken in zip(limit_a, load, strict=True))
    return (a, b, c)


def _measured_loads(view: View) -> list[Phases | None]:
    """What each circuit carries: its meter's word, else the sum of what is measured below it, else unknown."""
    grid = view.snapshot.grid
    sums = [[0.0, 0.0, 0.0] for _ in grid.circuits]
    known = [True] * len(grid)
    for place in view.places:
        currents = phase_currents(place.measured)
        if currents is None and place.transaction is not None:
            known[place.node] = False
        for phase, amps in enumerate(currents or ()):
            sums[place.node][phase] += amps
    for device in view.devices:
        node, found = view.node_of_device.get(device.pk), view.live.get(device.pk)
        if node is None or device.kind not in (Device.Kind.PV, Device.Kind.BATTERY, Device.Kind.LOAD):
            continue
        currents = phase_currents(found)
        if currents is None and found is not None and found.power_w is not None:
            currents = spread_a(found.power_w, wired(device.wiring), grid.supply)
        if currents is None:
            known[node] = False
        for phase, amps in enumerate(currents or ()):
            sums[node][phase] += amps
    loads: list[Phases | None] = [None] * len(grid)
    for node in reversed(range(len(grid))):
        reading = view.snapshot.readings.get(node)
        if reading is not None and reading.current_a is not None:
            loads[node] = reading.current_a
        elif known[node] and not grid.circuits[node].metered:
            loads[node] = (sums[node][0], sums[node][1], sums[node][2])
        parent, load = grid.circuits[node].parent, loads[node]
        if parent is not None:
            if load is None:
                known[parent] = False
            for phase, amps in enumerate(load or ()):
                sums[parent][phase] += amps
    return loads


def _evse(view: View, place: Place, session: Session, allocation: Allocation | None) -> dict[str, Any]:
    evse, station = place.evse, place.station
    share = None if allocation is None else allocation.shares.get(place.key)
    currents = phase_currents(place.measured)
    accepted = place.memory.offered_a
    wanted = share.limit_a if share is not None else None
    if wanted is None and place.limit is not None:
        wanted = amps_of(place.limit.wanted_a, place.limit.wanted_w, place.supply)
    power = power_w(place)
    return {
        "id": evse.pk,
        "station": station.identity,
        "name": str(evse),
        "number": evse.number,
        "circuit": view.snapshot.grid.circuits[place.node].name,
        "status": evse.status,
        "iec_state": evse.iec_state,
        "connected": place.connected,
        "phases": 3 if session.dc else _phases(session, place.supply),
        "max_w": _round(_max_w(session, place.supply)),
        "power_w": _round(power),
        "current_a": None if currents is None else [round(a, 2) for a in currents],
        "limit": {
            "wanted_a": _round(wanted, 1),
            "accepted_a": _round(accepted, 1),
            "measured_a": None if currents is None else round(max(currents), 2),
            "reason": share.reason if share is not None else (place.limit.reason if place.limit is not None else ""),
            "circuit": share.circuit if share is not None else "",
            "phase": share.phase if share is not None else "",
            "state": place.limit.state if place.limit is not None else "",
            "isolated": place.isolated,
        },
        "transaction": place.transaction.pk if place.transaction is not None else None,
    }


def _phases(session: Session, supply: Supply) -> int:
    """As people count them: between two lines a car is a single-phase one."""
    return 1 if supply is Supply.IT and session.phase_count == 2 else session.phase_count


def _max_w(session: Session, supply: Supply) -> float:
    """What car and place can take together."""
    most_w = session.max_a * power_weight(3 if session.dc else session.phase_count, supply) * NOMINAL_V
    return most_w if session.max_w is None else min(most_w, session.max_w)


def _plan(view: View) -> dict[str, Any] | None:
    plan = view.plan
    if plan is None:
        return None
    return {
        "id": plan.pk,
        "made_at": plan.made_at.isoformat(),
        "valid_until": plan.valid_until.isoformat(),
        "status": plan.status,
    }


def _round(value: float | None, digits: int = 0) -> float | None:
    return None if value is None else round(float(value), digits)

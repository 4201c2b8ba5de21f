"""The cars and cards of the demo's visitors. The session set tells neither: they are chosen, one car to a card.

A card belongs to a place, so that nobody charges twice at once, and what the product learns of a card's car stays true.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from datetime import datetime

from csms.simulator import Car
from webapp.demo.replay import Visit

DELAY_S = (5.0, 30.0)
DRIVER_TOKEN = "04D21B3A5C6E80"  # noqa: S105 - a card, no secret
Place = tuple[str, int]


@dataclass(frozen=True, slots=True)
class Kind:
    """A sort of car, as on the road: on-board charger, battery, what it takes at a fast charger."""

    battery_wh: float
    phases: int
    max_a: float
    max_dc_w: float
    min_a: float = 6.0


COMPACT = Kind(52_000, 3, 32, 50_000, min_a=8)  # takes 22 kW, and little gladly
EARLY = Kind(40_000, 1, 29, 46_000)
HATCHBACK = Kind(58_000, 3, 16, 100_000)
CROSSOVER = Kind(64_000, 3, 16, 77_000)
SALOON = Kind(75_000, 3, 16, 170_000)
FAMILY = Kind(77_000, 3, 16, 125_000)
SMALL = Kind(39_000, 1, 32, 50_000)
HYBRID = Kind(13_000, 1, 16, 0)
TWO_PHASE = Kind(82_000, 2, 16, 150_000)
VAN = Kind(75_000, 3, 16, 100_000)

CARDS: dict[Place, tuple[str, Kind]] = {
    ("NOORD-01", 1): ("04A1000000A101", SALOON),
    ("NOORD-02", 1): ("04A1000000A104", VAN),
    ("NOORD-03", 1): (DRIVER_TOKEN, CROSSOVER),
    ("NOORD-03", 2): ("04A1000000A102", HATCHBACK),
    ("NOORD-04", 1): ("04A1000000A103", EARLY),
    ("NOORD-05", 1): ("04A1000000A106", SMALL),
    ("NOORD-06", 1): ("04B1000000B101", COMPACT),
    ("NOORD-06", 2): ("04B1000000B102", TWO_PHASE),
    ("NOORD-07", 1): ("04A1000000A105", VAN),
    ("NOORD-08", 1): ("04B1000000B103", FAMILY),
    ("NOORD-09", 1): ("04B1000000B104", SALOON),
    ("NOORD-10", 1): ("04B1000000B105", HYBRID),
    ("SNEL-1", 1): ("04C1000000C101", SALOON),
    ("SNEL-2", 1): ("04C1000000C102", CROSSOVER),
}


def token_at(place: Place) -> str:
    return CARDS[place][0]


def car_for(visit: Visit, place: Place, now: datetime) -> Car:
    """The visitor's car as it stands at `now`: what it would have charged since its arrival is in it.

    Its wish is the energy of the visit, as far as its battery holds that: it ends so much above where it began.
    """
    kind = CARDS[place][1]
    draw = random.Random(f"{visit.group}{visit.user}{visit.arrives.isoformat()}")
    wish = min(visit.energy_wh * 0.9 / kind.battery_wh, 0.85)
    target = draw.uniform(max(0.8, wish + 0.05), 1.0)
    return Car(
        battery_wh=kind.battery_wh,
        soc=max(target - wish * (1 - visit.share_at(now)), 0.02),
        phases=kind.phases,
        max_a=kind.max_a,
        max_dc_w=kind.max_dc_w or None,
        min_a=kind.min_a,
        delay_s=DELAY_S,
        target_soc=target,
    )


def driver_car() -> Car:
    """The car of the demo's driver: much to charge, whenever one looks."""
    kind = CROSSOVER
    return Car(
        battery_wh=kind.battery_wh,
        soc=0.35,
        phases=kind.phases,
        max_a=kind.max_a,
        max_dc_w=kind.max_dc_w,
        delay_s=DELAY_S,
        target_soc=0.95,
    )

"""Which car a person of the session set drives. The set does not tell: this is chosen, the same each time."""

from __future__ import annotations

import random
from dataclasses import dataclass
from datetime import datetime

from csms.simulator import Car
from webapp.demo.replay import Visit

DELAY_S = (5.0, 30.0)
TOKENS = {
    "staff": (
        "04A1000000A101",
        "04A1000000A102",
        "04A1000000A103",
        "04A1000000A104",
        "04A1000000A105",
        "04A1000000A106",
    ),
    "resident": ("04B1000000B101", "04B1000000B102", "04B1000000B103", "04B1000000B104"),
    "fast": ("04C1000000C101", "04C1000000C102", "04C1000000C103"),
}
DRIVER_TOKEN = "04D21B3A5C6E80"  # noqa: S105 - a card, no secret


@dataclass(frozen=True, slots=True)
class Kind:
    """A common sort of car."""

    battery_wh: float
    phases: int
    max_a: float
    max_dc_w: float
    min_a: float = 6.0


KINDS = (
    Kind(52_000, 3, 32, 50_000, min_a=8),  # takes 22 kW, and little gladly
    Kind(40_000, 1, 29, 46_000),
    Kind(58_000, 3, 16, 100_000),
    Kind(64_000, 3, 16, 77_000),
    Kind(75_000, 3, 16, 170_000),
    Kind(77_000, 3, 16, 125_000),
    Kind(39_000, 1, 32, 50_000),
    Kind(13_000, 1, 16, 0),  # plug-in hybrid
    Kind(82_000, 2, 16, 150_000),
)


def kind_for(visit: Visit) -> Kind:
    fitting = [k for k in KINDS if k.battery_wh * 0.85 >= visit.energy_wh and (k.max_dc_w or visit.group != "fast")]
    return random.Random(f"{visit.group}{visit.user}").choice(fitting or [KINDS[-1]])


def car_for(visit: Visit, now: datetime) -> Car:
    """The visitor's car as it stands at `now`: what it would have charged since its arrival is in it.

    Its wish is the energy of the visit, so it ends at the state of charge that much above where it began.
    """
    kind = kind_for(visit)
    draw = random.Random(f"{visit.group}{visit.user}{visit.arrives.isoformat()}")
    wish = min(visit.energy_wh * 0.9 / kind.battery_wh, 0.9)
    target = draw.uniform(max(0.8, wish + 0.05), 1.0) if wish < 0.9 else 1.0
    stay_s, here_s = (visit.leaves - visit.arrives).total_seconds(), (now - visit.arrives).total_seconds()
    # What a plan that spreads the charge over the stay would have given it by now; a fast charger spreads nothing.
    share = here_s / (0.9 * stay_s) if visit.group != "fast" else 25_000 * here_s / 3600 / visit.energy_wh
    done = wish * min(max(share, 0.0), 1.0)
    return Car(
        battery_wh=kind.battery_wh,
        soc=max(target - wish + done, 0.02),
        phases=kind.phases,
        max_a=kind.max_a,
        max_dc_w=kind.max_dc_w or None,
        min_a=kind.min_a,
        delay_s=DELAY_S,
        target_soc=target,
    )


def token_for(visit: Visit) -> str:
    tokens = TOKENS[visit.group]
    return tokens[visit.user % len(tokens)]

"""One EVSE in hardware: a plug, a pilot, a contactor and a meter. It knows no OCPP.

Currents are per phase of the *station*; which grid phases those are is the world's affair. A DC outlet is described at
its AC input: that is where its limit, its current and its meter are.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from csms.iec61851 import MINIMUM_OFFER_A
from csms.profiles import ChargingProfile
from csms.simulator.car import Car

CONVERTER_EFFICIENCY = 0.95  # DC at the plug of AC at the input
MINIMUM_OFFER_W = 500.0  # below this a DC station pauses
DC_RAMP_S = 20.0  # from nothing to full power
NOT_DRAWING_A = 0.1
SAG_OHM = 0.03  # of the cable to the station: the voltage gives way a little under load

Phases = tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class Badge:
    """A permission to charge that waits for the plug: from a card, or from afar."""

    id_token: str
    id_token_type: str
    at: datetime
    remote: bool = False
    remote_start_id: int | None = None
    profile: ChargingProfile | None = None


@dataclass
class Charge:
    """One transaction as the station remembers it. `id` is ours to give in 2.0.1 and the CSMS's in 1.6."""

    id: str | None
    id_token: str
    id_token_type: str
    started_at: datetime
    meter_start_wh: float
    number: int = 0
    seq_no: int = 0
    remote_start_id: int | None = None
    remote: bool = False
    reservation_id: int | None = None
    authorized: bool = True
    stop_reason: str = ""
    ended_at: datetime | None = None
    state_told: str = ""

    def next_seq(self) -> int:
        self.seq_no += 1
        return self.seq_no - 1

    def to_dict(self) -> dict[str, Any]:
        """What is needed to end it after a power cut."""
        return {
            "id": self.id,
            "id_token": self.id_token,
            "id_token_type": self.id_token_type,
            "started_at": self.started_at.isoformat(),
            "meter_start_wh": self.meter_start_wh,
            "seq_no": self.seq_no,
        }

    @classmethod
    def from_dict(cls, kept: dict[str, Any]) -> Charge:
        return cls(**{**kept, "started_at": datetime.fromisoformat(kept["started_at"])})


@dataclass
class Outlet:
    """The physical side of one EVSE, moved on by `step`."""

    number: int
    phases: int = 3
    max_a: float = 32.0
    dc: bool = False
    max_w: float | None = None
    rng: random.Random = field(default_factory=random.Random, repr=False)
    energy_wh: float = 0.0
    car: Car | None = None
    charge: Charge | None = None
    finished: bool = False  # a charge ended and the plug is still in
    badge: Badge | None = None
    operative: bool = True
    inoperative_later: bool = False
    error: str = ""  # an OCPP 1.6 errorCode; empty is well
    told: dict[str, str] = field(default_factory=dict, repr=False)  # the status last told, in the dialect's words
    offer: float = 0.0  # A per phase; W for DC
    current_a: Phases = (0.0, 0.0, 0.0)
    voltage_v: Phases = (230.0, 230.0, 230.0)
    power_w: float = 0.0
    _mains: Phases = field(default=(230.0, 230.0, 230.0), init=False, repr=False)

    def __post_init__(self) -> None:
        a, b, c = (230 + self.rng.uniform(-2, 2) for _ in range(3))
        self._mains = self.voltage_v = (a, b, c)

    @property
    def drawing(self) -> bool:
        return max(self.current_a) > NOT_DRAWING_A

    @property
    def offering(self) -> bool:
        return self.offer > 0

    @property
    def plug_w(self) -> float:
        """Power at the plug, where the meter sits: after the converter's losses for DC."""
        return self.power_w * (CONVERTER_EFFICIENCY if self.dc else 1.0)

    def step(self, limit: float, used_phases: int, now: datetime, seconds: float) -> None:
        """Live `seconds` on, with this limit (A per phase, W for DC) from the profiles and the hardware."""
        self._wander()
        self.offer = self._offer_for(limit)
        if self.car is None:
            self.current_a, self.power_w = (0.0, 0.0, 0.0), 0.0
            return
        self.car.notice(self.offer, now, self.rng)
        if self.dc:
            self._draw_dc(seconds)
        else:
            self._draw_ac(used_phases)
        self.energy_wh += self.plug_w * seconds / 3600
        self.car.charge(self.plug_w, seconds, dc=self.dc)

    def _offer_for(self, limit: float) -> float:
        may = self.charge is not None and self.charge.authorized and self.car is not None and not self.error
        if not may or limit < (MINIMUM_OFFER_W if self.dc else MINIMUM_OFFER_A):
            return 0.0
        return limit

    def _draw_ac(self, used_phases: int) -> None:
        assert self.car is not None
        count = min(self.phases, self.car.phases, used_phases)
        # Without an offer the car still draws for the moment it needs to open its switch; without a charge the
        # contactor is open.
        amps = self.car.ac_current_a() if self.charge is not None else 0.0
        a, b, c = (amps if i < count else 0.0 for i in range(3))
        self._settle((a, b, c))
        self.power_w = sum(i * v for i, v in zip(self.current_a, self.voltage_v, strict=True))

    def _draw_dc(self, seconds: float) -> None:
        assert self.car is not None
        asked = self.car.dc_power_w() / CONVERTER_EFFICIENCY
        # The car sees the offer at the input; what it takes at the plug is less by the converter's losses.
        asked = min(asked, self.offer) if self.offering else 0.0
        step = (self.max_w or asked) * seconds / DC_RAMP_S
        self.power_w = min(asked, self.power_w + step)
        amps = self.power_w / sum(self._mains)
        self._settle((amps, amps, amps))

    def _settle(self, amps: Phases) -> None:
        a, b, c = (m - SAG_OHM * i for m, i in zip(self._mains, amps, strict=True))
        self.current_a, self.voltage_v = amps, (a, b, c)

    def _wander(self) -> None:
        """The mains voltage drifts about 230 V."""
        a, b, c = (v + self.rng.gauss(0, 0.15) - 0.02 * (v - 230) for v in self._mains)
        self._mains = self.voltage_v = (a, b, c)

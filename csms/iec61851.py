"""The IEC 61851 state of a connector, A1 … F, from what a station reports and what we offered.

The letter is what the *vehicle* shows on the control pilot: A nothing plugged, B plugged, C drawing, D drawing and
asking for ventilation, E pilot short or mains lost, F not available. The digit is what the *station* does: 1 no offer
(no PWM), 2 an offer. OCPP carries no pilot state, so it is derived; a station whose state can be read raw (a register,
a vendor message) overrides it, see `read`.

A lost websocket is no reason to derive anew: the station may be charging happily. Callers keep the last state, with
its age.
"""

from __future__ import annotations

from enum import StrEnum

CONTACTOR_OPENS_S = 6.0
"""After the offer is withdrawn a car may still show C for some seconds; then the station opens the contactor."""

MINIMUM_OFFER_A = 6.0
"""The smallest current a duty cycle can offer: 10 % PWM."""


class IecState(StrEnum):
    """What the pilot shows. `UNKNOWN` is empty, and so is false."""

    A1 = "A1"
    A2 = "A2"
    B1 = "B1"
    B2 = "B2"
    C1 = "C1"
    C2 = "C2"
    D1 = "D1"
    D2 = "D2"
    E = "E"
    F = "F"
    UNKNOWN = ""

    @property
    def plugged(self) -> bool | None:
        """Is a vehicle connected? None where the pilot cannot say (E, F, unknown)."""
        if self in (IecState.E, IecState.F, IecState.UNKNOWN):
            return None
        return self[0] != "A"

    @property
    def drawing(self) -> bool:
        """The contactor is closed, or closing."""
        return self in (IecState.C2, IecState.D2)


def derive(
    status: str,
    charging_state: str | None = None,
    *,
    has_transaction: bool = False,
    authorized: bool | None = None,
    offered_a: float | None = None,
    vehicle_seen: bool | None = None,
    suspended_since_s: float | None = None,
    previous: IecState | str | None = None,
    pilot_fault: bool = False,
) -> IecState:
    """The state behind a status word, of either dialect, in the vocabulary of `EVSE.Status`.

    - `status`: the 1.6 status (Available, Preparing, Charging, SuspendedEV, SuspendedEVSE, Finishing, Reserved,
      Unavailable, Faulted) or the 2.0.1 connectorStatus (Available, Occupied, Reserved, Unavailable, Faulted).
    - `charging_state`: of the running transaction (2.0.1): Charging, EVConnected, SuspendedEV, SuspendedEVSE, Idle;
      empty or None without one. Counts only beside `Occupied`.
    - `has_transaction`: a transaction runs on this EVSE.
    - `authorized`: the session was authorized. None: not known, taken as no.
    - `offered_a`: what the station offers now (Current.Offered, or the limit it accepted). None: not known.
    - `vehicle_seen`: is a vehicle there? Pass False only where something else explains a 1.6 `Preparing`: a badge or a
      remote start before the plug. None: not known, and `Preparing` then means plugged, as the standard has it.
    - `suspended_since_s`: how long the station has been in SuspendedEVSE.
    - `previous`: the state before this report; C1 is only passed through from C or D.
    - `pilot_fault`: the vendor's error code says pilot short or mains lost: E in place of F.

    A word that is none of these gives `previous`, or `UNKNOWN`: unknown is not *free*.
    """
    match status:
        case "Available" | "Reserved":
            return IecState.A1
        case "Preparing":
            return IecState.A1 if vehicle_seen is False and not has_transaction else IecState.B1
        case "Finishing":
            return IecState.B1
        case "Charging":
            return IecState.C2
        case "SuspendedEV":
            return _suspended_by_car(offered_a)
        case "SuspendedEVSE":
            return _suspended_by_station(suspended_since_s, previous)
        case "Occupied":
            return _occupied(charging_state or "", authorized, offered_a, suspended_since_s, previous)
        case "Unavailable" | "Faulted":
            return IecState.E if pilot_fault else IecState.F
    return _known(previous)


def _occupied(
    charging_state: str,
    authorized: bool | None,
    offered_a: float | None,
    suspended_since_s: float | None,
    previous: IecState | str | None,
) -> IecState:
    match charging_state:
        case "Charging":
            return IecState.C2
        case "SuspendedEV":
            return _suspended_by_car(offered_a)
        case "SuspendedEVSE":
            return _suspended_by_station(suspended_since_s, previous)
        case "" | "EVConnected":
            offering = bool(authorized) and offered_a is not None and offered_a >= MINIMUM_OFFER_A
            return IecState.B2 if offering else IecState.B1
    return IecState.B1  # Idle: the transaction is over, or a cable without a car


def _suspended_by_car(offered_a: float | None) -> IecState:
    """Many stations say SuspendedEV while it is we who offer nothing."""
    return IecState.B1 if offered_a is not None and offered_a <= 0 else IecState.B2


def _suspended_by_station(since_s: float | None, previous: IecState | str | None) -> IecState:
    was_drawing = _known(previous) in (IecState.C1, IecState.C2, IecState.D1, IecState.D2)
    passing = since_s is not None and 0 <= since_s < CONTACTOR_OPENS_S
    return IecState.C1 if was_drawing and passing else IecState.B1


def _known(state: IecState | str | None) -> IecState:
    try:
        return IecState(state or "")
    except ValueError:
        return IecState.UNKNOWN


def read(raw: str, *, offering: bool = False) -> IecState:
    """A raw state as stations spell it: `C2`, `c2`, `State C2`; a bare letter takes its digit from `offering`.

    What is none of these is `UNKNOWN`.
    """
    word = raw.strip().upper().removeprefix("STATE").strip()
    if word in ("A", "B", "C", "D"):
        word += "2" if offering else "1"
    if word in ("E1", "E2", "F1", "F2"):
        word = word[0]
    return _known(word)


def status_for(state: IecState, *, has_transaction: bool = False, finished: bool = False) -> str:
    """The other way, in the words of OCPP 1.6. `finished`: the transaction ended and the plug is still in."""
    match state:
        case IecState.A1 | IecState.A2:
            return "Available"
        case IecState.B1 | IecState.B2 if finished and not has_transaction:
            return "Finishing"
        case IecState.B1 | IecState.B2 if not has_transaction:
            return "Preparing"
        case IecState.B1 | IecState.C1 | IecState.D1:
            return "SuspendedEVSE"
        case IecState.B2:
            return "SuspendedEV"
        case IecState.C2 | IecState.D2:
            return "Charging"
        case IecState.E | IecState.F:
            return "Faulted"
    return "Unknown"


def occupancy_for(state: IecState, *, has_transaction: bool = False, finished: bool = False) -> tuple[str, str]:
    """The other way, in the words of OCPP 2.0.1: connectorStatus, and chargingState ("" without a transaction)."""
    status = status_for(state, has_transaction=has_transaction, finished=finished)
    if status in ("Available", "Faulted", "Unknown"):
        return status, ""
    if status == "Finishing":
        return "Occupied", "Idle"
    return "Occupied", status if status != "Preparing" else ""

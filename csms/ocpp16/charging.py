"""OCPP 1.6: which charging profiles to take away (1.6 §5.5). Pure. 1.6 tells no profiles, limits or needs."""

from __future__ import annotations

from typing import Any

from csms.ocpp16.codec import Call

PURPOSES = ("ChargePointMaxProfile", "TxDefaultProfile", "TxProfile")
_AS_16 = {"ChargingStationMaxProfile": "ChargePointMaxProfile"}


def clear_profiles(profile_id: int | None, evse: int | None, purpose: str | None, stack_level: int | None) -> Call:
    """By its id, or all that meet every criterion given."""
    said: dict[str, Any] = {
        "id": profile_id,
        "connectorId": evse,
        "chargingProfilePurpose": _AS_16.get(purpose or "", purpose),
        "stackLevel": stack_level,
    }
    return "ClearChargingProfile", {name: value for name, value in said.items() if value is not None}

"""The operator's office of this room: registers the pages of stations, id tokens, the ledger and longer work."""

from csms import (
    billing_admin,
    firmware_admin,
    ledger_admin,
    list_admin,
    obedience_admin,
    reported_admin,
    security_admin,
    station_admin,
    token_admin,
)

__all__ = [
    "billing_admin",
    "firmware_admin",
    "ledger_admin",
    "list_admin",
    "obedience_admin",
    "reported_admin",
    "security_admin",
    "station_admin",
    "token_admin",
]

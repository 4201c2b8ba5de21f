"""The operator's office of this room: registers the pages of stations, id tokens and the ledger."""

from csms import ledger_admin, station_admin, token_admin

__all__ = ["ledger_admin", "station_admin", "token_admin"]

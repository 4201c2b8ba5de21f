"""Transactions as a table for a spreadsheet: one row a charge, times on the site's clock, plain numbers."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from import_export import fields, resources
from import_export.formats.base_formats import CSV, XLSX, Format

from csms.models import Transaction

FORMULA_STARTS = tuple("=+-@\t\r")


def safe(text: str) -> str:
    """Text that a spreadsheet does not take for a formula."""
    return f"'{text}" if text[:1] in FORMULA_STARTS else text


class TransactionResource(resources.ModelResource):
    """Energy in kWh, durations in minutes, money in the currency beside it."""

    station = fields.Field(column_name="station")
    site = fields.Field(column_name="site")
    evse = fields.Field(column_name="evse")
    id_token = fields.Field(column_name="id_token")
    label = fields.Field(column_name="label")
    started_at = fields.Field(column_name="started_at")
    ended_at = fields.Field(column_name="ended_at")
    energy_kwh = fields.Field(column_name="energy_kwh")
    charging_min = fields.Field(column_name="charging_min")
    idle_min = fields.Field(column_name="idle_min")
    max_power_kw = fields.Field(column_name="max_power_kw")
    register_start_kwh = fields.Field(column_name="register_start_kwh")
    register_end_kwh = fields.Field(column_name="register_end_kwh")
    cost = fields.Field(column_name="cost")
    vat = fields.Field(column_name="vat")
    flags = fields.Field(column_name="flags")
    missing_events = fields.Field(column_name="missing_events")

    class Meta:
        model = Transaction
        columns = (
            *("transaction_id", "site", "station", "evse", "id_token", "label", "authorized", "started_at", "ended_at"),
            *("stop_reason", "energy_kwh", "charging_min", "idle_min", "max_power_kw", "register_start_kwh"),
            *("register_end_kwh", "cost", "vat", "currency", "check_before_billing", "flags", "missing_events"),
        )
        fields = columns
        export_order = columns

    def dehydrate_transaction_id(self, charge: Transaction) -> str:
        return safe(charge.transaction_id)

    def dehydrate_station(self, charge: Transaction) -> str:
        return safe(charge.station.identity)

    def dehydrate_site(self, charge: Transaction) -> str:
        return safe(str(charge.station.site or ""))

    def dehydrate_evse(self, charge: Transaction) -> Any:
        return charge.evse.number if charge.evse is not None else ""

    def dehydrate_id_token(self, charge: Transaction) -> str:
        return safe(charge.id_token.value if charge.id_token is not None else charge.id_token_value)

    def dehydrate_label(self, charge: Transaction) -> str:
        return safe(charge.id_token.label if charge.id_token is not None else "")

    def dehydrate_started_at(self, charge: Transaction) -> str:
        return _local(charge, charge.started_at)

    def dehydrate_ended_at(self, charge: Transaction) -> str:
        return _local(charge, charge.ended_at)

    def dehydrate_energy_kwh(self, charge: Transaction) -> float:
        return round(charge.energy_wh / 1000, 3)

    def dehydrate_charging_min(self, charge: Transaction) -> int:
        return round(charge.charging_s / 60)

    def dehydrate_idle_min(self, charge: Transaction) -> int:
        return round(charge.idle_s / 60)

    def dehydrate_max_power_kw(self, charge: Transaction) -> Any:
        return "" if charge.max_power_w is None else round(charge.max_power_w / 1000, 2)

    def dehydrate_register_start_kwh(self, charge: Transaction) -> Any:
        return "" if charge.meter_start_wh is None else round(charge.meter_start_wh / 1000, 3)

    def dehydrate_register_end_kwh(self, charge: Transaction) -> Any:
        return "" if charge.meter_last_wh is None else round(charge.meter_last_wh / 1000, 3)

    def dehydrate_cost(self, charge: Transaction) -> Any:
        return "" if charge.cost is None else float(charge.cost)

    def dehydrate_vat(self, charge: Transaction) -> Any:
        return charge.tariff.get("vat", "") if charge.cost is not None else ""

    def dehydrate_flags(self, charge: Transaction) -> str:
        return " ".join(charge.flags)

    def dehydrate_missing_events(self, charge: Transaction) -> str:
        return stretches(charge.gaps)


def stretches(gaps: list[list[int]]) -> str:
    """`3, 7–9`, as people read missing numbers."""
    return ", ".join(str(first) if first == last else f"{first}–{last}" for first, last in gaps)


def _local(charge: Transaction, at: datetime | None) -> str:
    if at is None:
        return ""
    site = charge.station.site
    return (at.astimezone(site.tz) if site is not None else at).isoformat(timespec="seconds")


FORMATS: list[type[Format]] = [CSV, XLSX]

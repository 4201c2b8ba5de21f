"""The operator's office for what a charge costs."""

from __future__ import annotations

from django.contrib import admin
from django.utils.translation import gettext_lazy as _

from csms.billing_models import ChargingTariff, TariffHours
from meters.site_admin import OfMySites, SiteNarrowedAdmin, SiteNarrowedInline, column


class HoursInline(SiteNarrowedInline):
    model = TariffHours
    site_path = "tariff__site"
    fields = ("order", "days", "from_time", "until_time", "price_per_kwh")
    show_change_link = False


@admin.register(ChargingTariff)
class ChargingTariffAdmin(SiteNarrowedAdmin):
    list_display = ("site", "active", "energy_price", "start_fee", "idle_fee_per_minute", "currency")
    list_filter = (("site", OfMySites), "active", "kind")
    list_select_related = ("site",)
    autocomplete_fields = ("site",)
    inlines = (HoursInline,)
    fieldsets = (
        (None, {"fields": ("site", "active", "currency", "vat_percent", "vat_included")}),
        (
            _("energy"),
            {"fields": ("kind", "price_per_kwh", "market_factor", "market_markup_per_kwh")},
        ),
        (_("fees"), {"fields": ("start_fee", "idle_fee_per_minute", "idle_grace_minutes", "minimum")}),
    )

    @column(_("energy price"))
    def energy_price(self, tariff: ChargingTariff) -> str:
        if tariff.kind == ChargingTariff.Kind.BY_MARKET:
            return str(_("market × %(factor)s + %(markup)s")) % {
                "factor": tariff.market_factor.normalize(),
                "markup": tariff.market_markup_per_kwh.normalize(),
            }
        return f"{tariff.price_per_kwh.normalize()} {tariff.currency}/kWh"

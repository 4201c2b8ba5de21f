from django.apps import AppConfig
from django.utils.translation import gettext_lazy as _


class SmartChargingConfig(AppConfig):
    name = "smartcharging"
    verbose_name = _("Smart charging")
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from csms import billing
        from smartcharging.market import spot_prices

        billing.offer_market(spot_prices)

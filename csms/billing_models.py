"""What a driver pays on a site."""

from __future__ import annotations

from datetime import time
from decimal import Decimal

from django.core.exceptions import ValidationError
from django.core.validators import MaxValueValidator, MinValueValidator, RegexValidator
from django.db import models
from django.utils.translation import gettext_lazy as _
from simple_history.models import HistoricalRecords

from meters.models import Site

_NEVER_NEGATIVE = [MinValueValidator(Decimal(0))]


def _money(name: object, help_text: object = "", default: str = "0") -> models.DecimalField:  # type: ignore[type-arg]
    return models.DecimalField(
        name,  # type: ignore[arg-type]
        max_digits=10,
        decimal_places=4,
        default=Decimal(default),
        validators=_NEVER_NEGATIVE,
        help_text=help_text,  # type: ignore[arg-type]
    )


class ChargingTariff(models.Model):
    """What a charge costs the driver, by site: energy by the clock or by the market, and the fees around it."""

    class Kind(models.TextChoices):
        BY_CLOCK = "clock", _("a price by time of day")
        BY_MARKET = "market", _("the market price with a mark-up")

    site = models.OneToOneField(Site, models.CASCADE, related_name="charging_tariff", verbose_name=_("site"))
    active = models.BooleanField(_("active"), default=True, help_text=_("charges are priced as they end"))
    currency = models.CharField(
        _("currency"), max_length=3, default="EUR", validators=[RegexValidator(r"^[A-Z]{3}$", _("Three capitals."))]
    )
    vat_percent = models.DecimalField(
        _("VAT [%]"),
        max_digits=5,
        decimal_places=2,
        default=Decimal(21),
        validators=[*_NEVER_NEGATIVE, MaxValueValidator(Decimal(100))],
    )
    vat_included = models.BooleanField(_("prices include VAT"), default=True)
    kind = models.CharField(_("energy price"), max_length=6, choices=Kind.choices, default=Kind.BY_CLOCK)
    price_per_kwh = _money(
        _("price per kWh"), _("outside the hours below; with market prices, where none is known"), "0.35"
    )
    market_factor = _money(_("market factor"), _("own price = factor × market + mark-up"), "1")
    market_markup_per_kwh = models.DecimalField(
        _("mark-up per kWh"), max_digits=10, decimal_places=4, default=Decimal("0.15")
    )
    start_fee = _money(_("start fee"), _("once a charge"))
    idle_fee_per_minute = _money(_("idle fee per minute"), _("for a car that is full and still there"))
    idle_grace_minutes = models.PositiveSmallIntegerField(
        _("idle minutes free"), default=15, validators=[MaxValueValidator(24 * 60)]
    )
    minimum = _money(_("minimum"), _("the least a charge with energy costs"))
    history = HistoricalRecords()

    class Meta:
        verbose_name = _("charging tariff")
        verbose_name_plural = _("charging tariffs")
        ordering = ["site"]

    def __str__(self) -> str:
        return str(self.site)


class TariffHours(models.Model):
    """Another price per kWh in some hours of some days, on the site's clock. The first in the list that fits counts."""

    tariff = models.ForeignKey(ChargingTariff, models.CASCADE, related_name="hours", verbose_name=_("charging tariff"))
    order = models.PositiveSmallIntegerField(_("order"), default=0)
    days = models.CharField(
        _("days"),
        max_length=7,
        default="1234567",
        validators=[RegexValidator(r"^(?!.*(.).*\1)[1-7]{1,7}$", _("Digits of days: 1 is Monday, 7 is Sunday."))],
        help_text=_("1 is Monday, 7 is Sunday: 12345 is every working day"),
    )
    from_time = models.TimeField(_("from"), default=time(0, 0))
    until_time = models.TimeField(_("until"), default=time(0, 0), help_text=_("00:00 is midnight at the day's end"))
    price_per_kwh = _money(_("price per kWh"), default="0.25")

    class Meta:
        verbose_name = _("other price by the clock")
        verbose_name_plural = _("other prices by the clock")
        ordering = ["order", "pk"]

    def __str__(self) -> str:
        return f"{self.days} {self.from_time:%H:%M}–{self.until_time:%H:%M}"

    def clean(self) -> None:
        if self.from_time == self.until_time and self.from_time != time(0, 0):
            raise ValidationError(_("These hours end where they begin."))

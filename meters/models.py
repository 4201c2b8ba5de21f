"""The site and every energy device on it other than a charging station; readings and their quarter hours.

`Site` stands at the bottom of the house because everything stands on a site. A device knows its site, never its
circuit: `smartcharging.Feed` names the device it feeds.
"""

from __future__ import annotations

import zoneinfo
from typing import Any

from django.conf import settings
from django.core.exceptions import ValidationError
from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models
from django.utils.translation import gettext_lazy as _
from simple_history.models import HistoricalRecords


def validate_timezone(value: str) -> None:
    if value not in zoneinfo.available_timezones():
        raise ValidationError(
            _("“%(value)s” is no time zone name; use one such as Europe/Brussels."), params={"value": value}
        )


class Site(models.Model):
    """A place with one grid connection."""

    class Supply(models.TextChoices):
        """Values as in `meters/supply.py`."""

        TN = "tn", _("3×400 V with neutral (TN/TT)")
        IT = "it", _("3×230 V without neutral (IT)")

    name = models.CharField(_("name"), max_length=100, unique=True)
    timezone = models.CharField(
        _("time zone"), max_length=64, default="Europe/Brussels", validators=[validate_timezone]
    )
    latitude = models.FloatField(
        _("latitude"), null=True, blank=True, validators=[MinValueValidator(-90), MaxValueValidator(90)]
    )
    longitude = models.FloatField(
        _("longitude"), null=True, blank=True, validators=[MinValueValidator(-180), MaxValueValidator(180)]
    )
    price_area = models.CharField(
        _("price area"), max_length=16, blank=True, help_text=_("day-ahead bidding zone, such as BE")
    )
    supply = models.CharField(
        _("supply"),
        max_length=2,
        choices=Supply.choices,
        default=Supply.TN,
        help_text=_(
            "how the three lines carry power; without a neutral a single-phase car or device hangs between two lines, "
            "and its wiring names both"
        ),
    )
    demo = models.BooleanField(_("demo data"), default=False, help_text=_("simulated; not a real site"))
    created_at = models.DateTimeField(_("created"), auto_now_add=True)
    history = HistoricalRecords()

    class Meta:
        verbose_name = _("site")
        verbose_name_plural = _("sites")
        ordering = ["name"]

    def __str__(self) -> str:
        return self.name

    @property
    def tz(self) -> zoneinfo.ZoneInfo:
        return zoneinfo.ZoneInfo(self.timezone)


class SiteRole(models.Model):
    """What a person may do on a site. Drivers need none: they see their own sessions."""

    class Role(models.TextChoices):
        VIEWER = "viewer", _("viewer")
        OPERATOR = "operator", _("operator")
        INSTALLER = "installer", _("installer")
        FIRE_RESET = "fire_reset", _("fire reset")

    user = models.ForeignKey(
        settings.AUTH_USER_MODEL, models.CASCADE, related_name="site_roles", verbose_name=_("user")
    )
    site = models.ForeignKey(Site, models.CASCADE, related_name="roles", verbose_name=_("site"))
    role = models.CharField(_("role"), max_length=16, choices=Role.choices, default=Role.VIEWER)
    history = HistoricalRecords()

    class Meta:
        verbose_name = _("site role")
        verbose_name_plural = _("site roles")
        constraints = [models.UniqueConstraint(fields=["user", "site", "role"], name="one_role_once")]

    def __str__(self) -> str:
        return f"{self.user} · {self.get_role_display()} · {self.site}"


class Device(models.Model):
    """A meter, PV inverter, battery, load, alarm or grid unit, and how it is reached.

    `connect` is `tcp://host:502?unit=1`, `rtu:///dev/ttyUSB0?baud=9600&unit=3`, `rtuovertcp://host:4001?unit=1`,
    `p1:///dev/ttyUSB1` or `p1://host:port`. `map` names a register map in `meters/devices/maps/`.
    """

    class Kind(models.TextChoices):
        METER = "meter", _("meter")
        PV = "pv", _("PV")
        BATTERY = "battery", _("battery")
        LOAD = "load", _("controllable load")
        ALARM = "alarm", _("alarm")
        GRID_UNIT = "grid_unit", _("grid unit")

    site = models.ForeignKey(Site, models.CASCADE, related_name="devices", verbose_name=_("site"))
    name = models.CharField(_("name"), max_length=100)
    kind = models.CharField(_("kind"), max_length=16, choices=Kind.choices, default=Kind.METER)
    map = models.CharField(_("register map"), max_length=64, blank=True)
    connect = models.CharField(_("connection"), max_length=255, blank=True)
    wiring = models.JSONField(
        _("wiring"), default=list, blank=True, help_text=_("grid phase of each device phase, e.g. L2, L3, L1")
    )
    invert = models.BooleanField(_("turn signs"), default=False, help_text=_("current transformers face the other way"))
    poll_s = models.FloatField(_("poll interval [s]"), default=1.0, validators=[MinValueValidator(0.2)])
    max_age_s = models.FloatField(
        _("age limit [s]"),
        default=5.0,
        help_text=_("older measurements count as absent"),
        validators=[MinValueValidator(1)],
    )
    options = models.JSONField(
        _("options"),
        default=dict,
        blank=True,
        help_text=_(
            "by kind: peak_w (pv); capacity_wh, max_charge_w, max_discharge_w, min_soc, max_soc (battery); "
            "load and what belongs to it, as in the site file (load)"
        ),
    )
    enabled = models.BooleanField(_("enabled"), default=True)
    last_error = models.CharField(_("last error"), max_length=255, blank=True)
    last_seen = models.DateTimeField(_("last seen"), null=True, blank=True)
    history = HistoricalRecords(excluded_fields=["last_error", "last_seen"])

    class Meta:
        verbose_name = _("device")
        verbose_name_plural = _("devices")
        ordering = ["site", "name"]
        constraints = [models.UniqueConstraint(fields=["site", "name"], name="device_name_once_per_site")]

    def __str__(self) -> str:
        return self.name

    def option(self, name: str, default: Any = None) -> Any:
        return self.options.get(name, default) if isinstance(self.options, dict) else default


class Reading(models.Model):
    """One stored measurement of a device. `values` is `Measurement.to_dict()` without the time."""

    device = models.ForeignKey(Device, models.CASCADE, related_name="readings", verbose_name=_("device"))
    at = models.DateTimeField(_("at"))
    power_w = models.FloatField(_("power [W]"), null=True)
    values = models.JSONField(_("values"), default=dict)

    class Meta:
        verbose_name = _("reading")
        verbose_name_plural = _("readings")
        indexes = [models.Index(fields=["device", "at"])]

    def __str__(self) -> str:
        return f"{self.device} {self.at:%Y-%m-%d %H:%M:%S}"


class QuarterHour(models.Model):
    """A device's quarter hour: means for every chart longer than a day, energy for every report."""

    device = models.ForeignKey(Device, models.CASCADE, related_name="quarters", verbose_name=_("device"))
    slot = models.DateTimeField(_("slot"), help_text=_("start of the UTC quarter hour"))
    mean_w = models.FloatField(_("mean power [W]"), null=True)
    max_w = models.FloatField(_("highest power [W]"), null=True)
    min_w = models.FloatField(_("lowest power [W]"), null=True)
    import_wh = models.FloatField(_("import [Wh]"), null=True)
    export_wh = models.FloatField(_("export [Wh]"), null=True)
    soc = models.FloatField(_("state of charge"), null=True)
    samples = models.PositiveIntegerField(_("samples"), default=0)
    complete = models.BooleanField(_("complete"), default=False)

    class Meta:
        verbose_name = _("quarter hour")
        verbose_name_plural = _("quarter hours")
        constraints = [models.UniqueConstraint(fields=["device", "slot"], name="one_quarter_per_device")]

    def __str__(self) -> str:
        return f"{self.device} {self.slot:%Y-%m-%d %H:%M}"

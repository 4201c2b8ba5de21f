"""Circuits, goals, plans, prices, forecasts and grid commands: what the thinking needs to remember."""

from __future__ import annotations

from django.conf import settings
from django.core.exceptions import ValidationError
from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models
from django.utils.translation import gettext_lazy as _
from simple_history.models import HistoricalRecords

from csms.models import EVSE, IdToken, Transaction
from meters.models import Device, Site


def validate_per_phase(value: object) -> None:
    ok = (
        isinstance(value, list)
        and len(value) == 3
        and all(isinstance(v, int | float) and not isinstance(v, bool) and 0 <= v <= 10_000 for v in value)
    )
    if not ok:
        raise ValidationError(_("Give three numbers, one for each of L1, L2, L3, such as [63, 63, 63]."))


class Circuit(models.Model):
    """A node of the tree of electrical limits. The one without a parent is the grid connection."""

    site = models.ForeignKey(Site, models.CASCADE, related_name="circuits", verbose_name=_("site"))
    name = models.CharField(_("name"), max_length=100)
    parent = models.ForeignKey(
        "self", models.CASCADE, related_name="children", verbose_name=_("parent"), null=True, blank=True
    )
    limit_a = models.JSONField(_("limit per phase [A]"), validators=[validate_per_phase])
    limit_w = models.FloatField(_("limit [W]"), null=True, blank=True, validators=[MinValueValidator(0)])
    export_limit_w = models.FloatField(_("export limit [W]"), null=True, blank=True, validators=[MinValueValidator(0)])
    margin_a = models.FloatField(
        _("margin [A]"),
        default=0,
        validators=[MinValueValidator(0)],
        help_text=_("kept free below the limit"),
    )
    meter = models.ForeignKey(
        Device,
        models.SET_NULL,
        related_name="metered_circuits",
        verbose_name=_("meter"),
        null=True,
        blank=True,
    )
    fallback_a = models.FloatField(
        _("fallback [A]"),
        null=True,
        blank=True,
        validators=[MinValueValidator(0)],
        help_text=_("what the EVSEs below may take together, per phase, when the meter is unknown"),
    )
    worst_a = models.JSONField(
        _("highest other load per phase [A]"),
        null=True,
        blank=True,
        validators=[validate_per_phase],
        help_text=_("as commissioned: counts where there is no meter, or while it is silent and there is no fallback"),
    )
    imbalance_a = models.FloatField(
        _("imbalance [A]"),
        null=True,
        blank=True,
        validators=[MinValueValidator(0)],
        help_text=_("how much more one phase may carry than another"),
    )
    history = HistoricalRecords()

    class Meta:
        verbose_name = _("circuit")
        verbose_name_plural = _("circuits")
        ordering = ["site", "name"]
        constraints = [
            models.UniqueConstraint(fields=["site", "name"], name="circuit_name_once_per_site"),
            models.UniqueConstraint(
                fields=["site"], condition=models.Q(parent=None), name="one_grid_connection_per_site"
            ),
        ]

    def __str__(self) -> str:
        return self.name

    def clean(self) -> None:
        seen = {self.pk} if self.pk else set()
        above = self.parent
        while above is not None:
            if above.pk in seen:
                raise ValidationError({"parent": _("This would make the tree a ring.")})
            if above.site_id != self.site_id:
                raise ValidationError({"parent": _("The parent belongs to another site.")})
            seen.add(above.pk)
            above = above.parent


class Feed(models.Model):
    """Which circuit feeds an EVSE or a device. Exactly one of the two is set."""

    circuit = models.ForeignKey(Circuit, models.CASCADE, related_name="feeds", verbose_name=_("circuit"))
    evse = models.OneToOneField(
        EVSE, models.CASCADE, related_name="feed", verbose_name=_("EVSE"), null=True, blank=True
    )
    device = models.OneToOneField(
        Device, models.CASCADE, related_name="feed", verbose_name=_("device"), null=True, blank=True
    )

    class Meta:
        verbose_name = _("feed")
        verbose_name_plural = _("feeds")
        constraints = [
            models.CheckConstraint(
                condition=models.Q(evse__isnull=False, device__isnull=True)
                | models.Q(evse__isnull=True, device__isnull=False),
                name="feed_to_one_thing",
            )
        ]

    def __str__(self) -> str:
        return f"{self.circuit} → {self.evse or self.device}"


class Mode(models.TextChoices):
    """How a car wants to be charged."""

    PLAN = "plan", _("by plan")
    FAST = "fast", _("as fast as possible")
    SURPLUS = "surplus", _("surplus only")


class UserProfile(models.Model):
    """What a group of users wants unless they say otherwise: priority, departure, energy."""

    site = models.ForeignKey(Site, models.CASCADE, related_name="user_profiles", verbose_name=_("site"))
    name = models.CharField(_("name"), max_length=100)
    priority = models.PositiveSmallIntegerField(
        _("priority"), default=1, validators=[MaxValueValidator(10)], help_text=_("higher goes first")
    )
    mode = models.CharField(_("mode"), max_length=8, choices=Mode.choices, default=Mode.PLAN)
    departure = models.TimeField(_("departure"), null=True, blank=True, help_text=_("on the site's clock"))
    energy_wh = models.FloatField(_("energy [Wh]"), null=True, blank=True, validators=[MinValueValidator(0)])
    history = HistoricalRecords()

    class Meta:
        verbose_name = _("user profile")
        verbose_name_plural = _("user profiles")
        ordering = ["site", "name"]
        constraints = [models.UniqueConstraint(fields=["site", "name"], name="user_profile_once_per_site")]

    def __str__(self) -> str:
        return self.name


class TokenProfile(models.Model):
    """The user profile behind an id token."""

    id_token = models.OneToOneField(IdToken, models.CASCADE, related_name="token_profile", verbose_name=_("id token"))
    profile = models.ForeignKey(
        UserProfile, models.CASCADE, related_name="token_profiles", verbose_name=_("user profile")
    )

    class Meta:
        verbose_name = _("profile of a token")
        verbose_name_plural = _("profiles of tokens")

    def __str__(self) -> str:
        return f"{self.id_token} → {self.profile}"


class Vehicle(models.Model):
    """What is known of a car: battery, consumption, phases. Turns a wanted range into energy."""

    site = models.ForeignKey(Site, models.CASCADE, related_name="vehicles", verbose_name=_("site"))
    name = models.CharField(_("name"), max_length=100)
    driver = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        models.SET_NULL,
        related_name="vehicles",
        verbose_name=_("driver"),
        null=True,
        blank=True,
    )
    id_token = models.ForeignKey(
        IdToken, models.SET_NULL, related_name="vehicles", verbose_name=_("id token"), null=True, blank=True
    )
    battery_wh = models.FloatField(_("battery [Wh]"), null=True, blank=True, validators=[MinValueValidator(0)])
    consumption_wh_per_km = models.FloatField(
        _("consumption [Wh/km]"), default=190, validators=[MinValueValidator(50), MaxValueValidator(2000)]
    )
    phases = models.PositiveSmallIntegerField(
        _("phases"), null=True, blank=True, validators=[MinValueValidator(1), MaxValueValidator(3)]
    )
    max_a = models.FloatField(_("maximum current [A]"), null=True, blank=True, validators=[MinValueValidator(0)])
    min_a = models.FloatField(_("minimum current [A]"), null=True, blank=True, validators=[MinValueValidator(0)])
    history = HistoricalRecords()

    class Meta:
        verbose_name = _("vehicle")
        verbose_name_plural = _("vehicles")

    def __str__(self) -> str:
        return self.name


class ChargingGoal(models.Model):
    """What one charge should reach: energy by a departure time, counted from the start of the transaction.

    It may wait for its transaction to start. Of several goals for one transaction the one that counts has
    `transaction` set; all of them have `asked_for`, so that the next one counts when that one is cancelled.
    """

    class Source(models.TextChoices):
        DRIVER = "driver", _("driver")
        STATION = "station", _("car, through the station")
        SCHEDULE = "schedule", _("scheduling software")
        TAP = "tap", _("RFID profile")
        DEFAULT = "default", _("site default")

    site = models.ForeignKey(Site, models.CASCADE, related_name="goals", verbose_name=_("site"))
    transaction = models.OneToOneField(
        Transaction, models.CASCADE, related_name="goal", verbose_name=_("transaction"), null=True, blank=True
    )
    asked_for = models.ForeignKey(
        Transaction,
        models.CASCADE,
        related_name="goals_asked",
        verbose_name=_("asked for"),
        null=True,
        blank=True,
    )
    evse = models.ForeignKey(EVSE, models.CASCADE, related_name="goals", verbose_name=_("EVSE"), null=True, blank=True)
    id_token = models.ForeignKey(
        IdToken, models.CASCADE, related_name="goals", verbose_name=_("id token"), null=True, blank=True
    )
    departure = models.DateTimeField(_("departure"), null=True, blank=True)
    energy_wh = models.FloatField(_("energy [Wh]"), null=True, blank=True, validators=[MinValueValidator(0)])
    range_km = models.FloatField(_("range [km]"), null=True, blank=True, validators=[MinValueValidator(0)])
    priority = models.PositiveSmallIntegerField(
        _("priority"), null=True, blank=True, validators=[MaxValueValidator(10)]
    )
    mode = models.CharField(_("mode"), max_length=8, choices=Mode.choices, default=Mode.PLAN)
    source = models.CharField(_("source"), max_length=8, choices=Source.choices, default=Source.DEFAULT)
    external_id = models.CharField(_("external id"), max_length=100, blank=True)
    promised_wh = models.FloatField(_("promised [Wh]"), null=True, blank=True, help_text=_("by the newest plan"))
    promise_reason = models.CharField(_("why not more"), max_length=200, blank=True)
    cancelled_at = models.DateTimeField(_("cancelled"), null=True, blank=True)
    created_at = models.DateTimeField(_("created"), auto_now_add=True)
    updated_at = models.DateTimeField(_("changed"), auto_now=True)
    history = HistoricalRecords(excluded_fields=["promised_wh", "promise_reason"])

    class Meta:
        verbose_name = _("charging goal")
        verbose_name_plural = _("charging goals")
        ordering = ["-created_at"]
        constraints = [
            models.UniqueConstraint(
                fields=["site", "external_id"],
                condition=~models.Q(external_id=""),
                name="external_id_once_per_site",
            )
        ]

    def __str__(self) -> str:
        return f"{self.transaction or self.id_token or self.evse}: {self.energy_wh} Wh"


class Plan(models.Model):
    """The day ahead, as planned at one moment. The live layer follows the newest valid one.

    `result` holds, per slot from `starts_at`: `evse` {pk: [W]}, `battery_w`, `grid_w`, `pv_w`, `building_w`, `load_w`
    {device pk: [W]}, `others_w` (loads left to themselves), `price` [EUR/MWh]; and `shortfalls` {goal pk: {"wh",
    "reason", and what would help: see `engine/explain/remedies.py`}}, `temperature_c` {device pk: [°C]}, `load_short`
    (`engine.problem.LoadShort`).
    """

    class Status(models.TextChoices):
        OPTIMAL = "optimal", _("optimal")
        FEASIBLE = "feasible", _("within its gap")
        FALLBACK = "fallback", _("by rule")

    site = models.ForeignKey(Site, models.CASCADE, related_name="plans", verbose_name=_("site"))
    made_at = models.DateTimeField(_("made"))
    starts_at = models.DateTimeField(_("starts"))
    valid_until = models.DateTimeField(_("valid until"))
    slot_s = models.PositiveIntegerField(_("slot [s]"), default=900)
    status = models.CharField(_("status"), max_length=8, choices=Status.choices)
    trigger = models.CharField(_("trigger"), max_length=100, blank=True)
    objective_eur = models.FloatField(_("objective [EUR]"), null=True)
    gap = models.FloatField(_("certified gap"), null=True)
    solve_s = models.FloatField(_("solve time [s]"), null=True)
    result = models.JSONField(_("result"), default=dict)

    class Meta:
        verbose_name = _("plan")
        verbose_name_plural = _("plans")
        ordering = ["-made_at"]
        indexes = [models.Index(fields=["site", "-made_at"])]

    def __str__(self) -> str:
        return f"{self.site} {self.made_at:%Y-%m-%d %H:%M}"


class Price(models.Model):
    """A day-ahead price of one area and interval."""

    area = models.CharField(_("area"), max_length=16)
    start = models.DateTimeField(_("start"))
    minutes = models.PositiveSmallIntegerField(_("minutes"), default=15)
    eur_per_mwh = models.FloatField(_("price [EUR/MWh]"))
    source = models.CharField(_("source"), max_length=64, blank=True)

    class Meta:
        verbose_name = _("price")
        verbose_name_plural = _("prices")
        ordering = ["area", "start"]
        constraints = [models.UniqueConstraint(fields=["area", "start"], name="one_price_per_start")]

    def __str__(self) -> str:
        return f"{self.area} {self.start:%Y-%m-%d %H:%M} {self.eur_per_mwh}"


class Tariff(models.Model):
    """What the site pays: import = factor × price + adder, export = factor × price + adder, and the peak."""

    site = models.OneToOneField(Site, models.CASCADE, related_name="tariff", verbose_name=_("site"))
    import_factor = models.FloatField(_("import factor"), default=1.0)
    import_adder_eur_per_kwh = models.FloatField(_("import adder [EUR/kWh]"), default=0.10)
    export_factor = models.FloatField(_("export factor"), default=0.95)
    export_adder_eur_per_kwh = models.FloatField(_("export adder [EUR/kWh]"), default=-0.01)
    peak_eur_per_kw_month = models.FloatField(
        _("peak [EUR/kW/month]"),
        default=4.0,
        help_text=_("capacity tariff on the month's highest quarter hour"),
    )
    peak_floor_w = models.FloatField(_("peak floor [W]"), default=2500)
    maximum_tariff_eur_per_kwh = models.FloatField(
        _("maximum tariff [EUR/kWh]"),
        null=True,
        blank=True,
        validators=[MinValueValidator(0)],
        help_text=_("the month's peak is never billed higher than this for each kWh of the month; empty: no such rule"),
    )
    access_power_w = models.FloatField(
        _("access power [W]"),
        null=True,
        blank=True,
        validators=[MinValueValidator(0)],
        help_text=_("contracted power of a large connection; what lies above it is billed extra"),
    )
    access_excess_eur_per_kw_month = models.FloatField(
        _("above access power [EUR/kW/month]"), default=0.0, validators=[MinValueValidator(0)]
    )
    fixed_price_eur_per_mwh = models.FloatField(
        _("fixed price [EUR/MWh]"), default=100, help_text=_("used for intervals without a day-ahead price")
    )
    history = HistoricalRecords()

    class Meta:
        verbose_name = _("tariff")
        verbose_name_plural = _("tariffs")

    def __str__(self) -> str:
        return str(self.site)


class MonthPeak(models.Model):
    """The highest quarter-hour import of a calendar month on the site's clock, so far."""

    site = models.ForeignKey(Site, models.CASCADE, related_name="month_peaks", verbose_name=_("site"))
    month = models.DateField(_("month"), help_text=_("its first day"))
    peak_w = models.FloatField(_("peak [W]"))
    at = models.DateTimeField(_("at"))

    class Meta:
        verbose_name = _("month peak")
        verbose_name_plural = _("month peaks")
        ordering = ["site", "-month"]
        constraints = [models.UniqueConstraint(fields=["site", "month"], name="one_peak_a_month")]

    def __str__(self) -> str:
        return f"{self.site} {self.month:%Y-%m}"


class SiteQuarter(models.Model):
    """A site's quarter hour: mean power of each kind, load-positive; what forecasts learn from.

    `building_w` is what is left of the grid connection's meter. None is unknown, never zero.
    """

    site = models.ForeignKey(Site, models.CASCADE, related_name="quarters", verbose_name=_("site"))
    slot = models.DateTimeField(_("slot"), help_text=_("start of the UTC quarter hour"))
    grid_w = models.FloatField(_("grid [W]"), null=True)
    pv_w = models.FloatField(_("PV [W]"), null=True)
    battery_w = models.FloatField(_("battery [W]"), null=True)
    loads_w = models.FloatField(_("loads [W]"), null=True)
    charging_w = models.FloatField(_("charging [W]"), null=True)
    building_w = models.FloatField(_("building [W]"), null=True)

    class Meta:
        verbose_name = _("quarter hour of a site")
        verbose_name_plural = _("quarter hours of sites")
        ordering = ["site", "slot"]
        constraints = [models.UniqueConstraint(fields=["site", "slot"], name="one_quarter_per_site")]

    def __str__(self) -> str:
        return f"{self.site} {self.slot:%Y-%m-%d %H:%M}"


class Forecast(models.Model):
    """A forecast of one series of a site: quantiles per slot, with issue time and method."""

    class Series(models.TextChoices):
        BUILDING = "building", _("building load")
        PV = "pv", _("PV")
        CHARGING = "charging", _("charging demand")

    site = models.ForeignKey(Site, models.CASCADE, related_name="forecasts", verbose_name=_("site"))
    series = models.CharField(_("series"), max_length=8, choices=Series.choices)
    issued_at = models.DateTimeField(_("issued"))
    starts_at = models.DateTimeField(_("starts"))
    slot_s = models.PositiveIntegerField(_("slot [s]"), default=900)
    p10_w = models.JSONField(_("10 % quantile [W]"), default=list)
    p50_w = models.JSONField(_("median [W]"), default=list)
    p90_w = models.JSONField(_("90 % quantile [W]"), default=list)
    method = models.CharField(_("method"), max_length=64)

    class Meta:
        verbose_name = _("forecast")
        verbose_name_plural = _("forecasts")
        ordering = ["-issued_at"]
        indexes = [models.Index(fields=["site", "series", "-issued_at"])]

    def __str__(self) -> str:
        return f"{self.site} {self.series} {self.issued_at:%Y-%m-%d %H:%M}"


class GridCommand(models.Model):
    """A limit the grid operator sets on the connection, and what became of it."""

    class State(models.TextChoices):
        RECEIVED = "received", _("received")
        APPLIED = "applied", _("applied")
        MEASURED = "measured", _("measured")
        ENDED = "ended", _("ended")

    site = models.ForeignKey(Site, models.CASCADE, related_name="grid_commands", verbose_name=_("site"))
    import_limit_w = models.FloatField(_("import limit [W]"), null=True, blank=True, validators=[MinValueValidator(0)])
    export_limit_w = models.FloatField(_("export limit [W]"), null=True, blank=True, validators=[MinValueValidator(0)])
    starts_at = models.DateTimeField(_("starts"))
    ends_at = models.DateTimeField(_("ends"), null=True, blank=True)
    reason = models.CharField(_("reason"), max_length=200)
    state = models.CharField(_("state"), max_length=8, choices=State.choices, default=State.RECEIVED)
    received_at = models.DateTimeField(_("received"), auto_now_add=True)
    applied_at = models.DateTimeField(_("applied"), null=True, blank=True)
    measured_at = models.DateTimeField(_("measured"), null=True, blank=True)
    ended_at = models.DateTimeField(_("ended at"), null=True, blank=True)
    by = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        models.SET_NULL,
        related_name="+",
        verbose_name=_("by"),
        null=True,
        blank=True,
    )
    history = HistoricalRecords()

    class Meta:
        verbose_name = _("grid command")
        verbose_name_plural = _("grid commands")
        ordering = ["-starts_at"]

    def __str__(self) -> str:
        return f"{self.site}: {self.reason}"


class AllocationRecord(models.Model):
    """What the live layer gave each EVSE and why, when it last changed; the trail behind “why 8 A?”."""

    evse = models.ForeignKey(EVSE, models.CASCADE, related_name="allocations", verbose_name=_("EVSE"))
    at = models.DateTimeField(_("at"))
    limit_a = models.FloatField(_("limit [A]"), null=True)
    limit_w = models.FloatField(_("limit [W]"), null=True)
    reason = models.CharField(_("reason"), max_length=200)
    circuit = models.CharField(_("circuit"), max_length=100, blank=True, help_text=_("where it was held back …"))
    phase = models.CharField(
        _("phase"), max_length=2, blank=True, help_text=_("… on L1, L2, L3, or W: by the power of all together")
    )

    class Meta:
        verbose_name = _("allocation")
        verbose_name_plural = _("allocations")
        ordering = ["-at"]
        indexes = [models.Index(fields=["evse", "-at"])]

    def __str__(self) -> str:
        return f"{self.evse} {self.at:%H:%M:%S} {self.limit_a} A"

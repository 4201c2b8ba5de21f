"""What stations report when they are asked, or when they see reason to: reports in parts, monitors and their events,
limits that others set, and what a car says it needs. The verbs are in `reports.py`, `monitoring.py`, `others_limits.py`
and `needs.py`.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from django.db import models
from django.utils.translation import gettext_lazy as _

PART_PATIENCE = timedelta(seconds=90)
"""A report whose next part does not come within this time stays incomplete."""


class StationReport(models.Model):
    """A report a station was asked for; it comes in parts, and the last one may be lost."""

    class Kind(models.TextChoices):
        INVENTORY = "inventory", _("inventory")
        MONITORS = "monitors", _("monitors")
        PROFILES = "profiles", _("charging profiles")
        DISPLAY = "display", _("messages on the display")
        CUSTOMER = "customer", _("customer information")

    station = models.ForeignKey(
        "csms.ChargingStation", models.CASCADE, related_name="reports", verbose_name=_("station")
    )
    kind = models.CharField(_("kind"), max_length=12, choices=Kind.choices)
    request_id = models.BigIntegerField(_("request id"))
    started_at = models.DateTimeField(_("began"))
    updated_at = models.DateTimeField(_("newest part"))
    completed_at = models.DateTimeField(_("complete"), null=True, blank=True)
    part_count = models.PositiveIntegerField(_("parts"), default=0)
    last_part = models.PositiveIntegerField(_("number of the last part"), null=True, blank=True)

    class Meta:
        verbose_name = _("report of a station")
        verbose_name_plural = _("reports of stations")
        ordering = ["-started_at", "-pk"]
        indexes = [models.Index(fields=["station", "kind", "request_id"])]

    def __str__(self) -> str:
        return f"{self.station}: {self.get_kind_display()} {self.started_at:%Y-%m-%d %H:%M}"

    def state_at(self, now: datetime) -> str:
        """`complete`, `coming`, or `incomplete` once nothing came for too long."""
        if self.completed_at is not None:
            return "complete"
        return "coming" if now - self.updated_at < PART_PATIENCE else "incomplete"


class StationReportPart(models.Model):
    """One part of a report, as it came."""

    report = models.ForeignKey(StationReport, models.CASCADE, related_name="parts", verbose_name=_("report"))
    number = models.PositiveIntegerField(_("number"))
    content = models.JSONField(_("content"), default=list)

    class Meta:
        verbose_name = _("part of a report")
        verbose_name_plural = _("parts of reports")
        ordering = ["number"]
        constraints = [models.UniqueConstraint(fields=["report", "number"], name="report_part_once")]

    def __str__(self) -> str:
        return f"{self.report} #{self.number}"


class OfAVariable(models.Model):
    """The place of a variable in a station's device model."""

    component = models.CharField(_("component"), max_length=50)
    component_instance = models.CharField(_("component instance"), max_length=50, blank=True)
    evse_number = models.PositiveSmallIntegerField(_("EVSE"), default=0)
    connector_number = models.PositiveSmallIntegerField(_("connector"), default=0)
    variable = models.CharField(_("variable"), max_length=50)
    variable_instance = models.CharField(_("variable instance"), max_length=50, blank=True)

    class Meta:
        abstract = True

    @property
    def place(self) -> str:
        """As people write it: Component.Variable, with the EVSE where there is one."""
        where = f" @{self.evse_number}" if self.evse_number else ""
        return f"{self.component}.{self.variable}{where}"


class VariableMonitor(OfAVariable):
    """A monitor in a station: it speaks up when a variable crosses a threshold, changes, or at intervals."""

    station = models.ForeignKey(
        "csms.ChargingStation", models.CASCADE, related_name="monitors", verbose_name=_("station")
    )
    number = models.BigIntegerField(_("number"), help_text=_("given by the station"))
    type = models.CharField(_("type"), max_length=24)
    value = models.FloatField(_("value"))
    severity = models.PositiveSmallIntegerField(_("severity"), help_text=_("0 is danger, 9 is for debugging"))
    during_transactions = models.BooleanField(_("only during a charge"), default=False)
    reported_at = models.DateTimeField(_("reported"))

    class Meta:
        verbose_name = _("monitor")
        verbose_name_plural = _("monitors")
        ordering = ["station", "number"]
        constraints = [models.UniqueConstraint(fields=["station", "number"], name="monitor_once")]

    def __str__(self) -> str:
        return f"{self.station}: {self.place} {self.type} {self.value:g}"


class MonitoringEvent(OfAVariable):
    """A station speaks up about one of its variables. Kept once, however often it is told."""

    class Severity(models.IntegerChoices):
        DANGER = 0, _("danger")
        HARDWARE = 1, _("hardware failure")
        SYSTEM = 2, _("system failure")
        CRITICAL = 3, _("critical")
        ERROR = 4, _("error")
        ALERT = 5, _("alert")
        WARNING = 6, _("warning")
        NOTICE = 7, _("notice")
        INFORMATION = 8, _("information")
        DEBUG = 9, _("debugging")

    station = models.ForeignKey(
        "csms.ChargingStation", models.CASCADE, related_name="monitoring_events", verbose_name=_("station")
    )
    number = models.BigIntegerField(_("event id"))
    at = models.DateTimeField(_("at"))
    received_at = models.DateTimeField(_("received"))
    severity = models.PositiveSmallIntegerField(
        _("severity"),
        choices=Severity.choices,
        null=True,
        blank=True,
        help_text=_("of its monitor, where that is known"),
    )
    trigger = models.CharField(_("trigger"), max_length=16, blank=True)
    origin = models.CharField(_("origin"), max_length=24, blank=True)
    cause = models.BigIntegerField(_("caused by event"), null=True, blank=True)
    value = models.TextField(_("value"), blank=True)
    tech_code = models.CharField(_("technical code"), max_length=50, blank=True)
    tech_info = models.CharField(_("technical information"), max_length=500, blank=True)
    cleared = models.BooleanField(_("over"), default=False)
    transaction_id = models.CharField(_("transaction id"), max_length=36, blank=True)
    monitor = models.BigIntegerField(_("number of the monitor"), null=True, blank=True)
    content_key = models.CharField(max_length=64, editable=False)

    class Meta:
        verbose_name = _("monitoring event")
        verbose_name_plural = _("monitoring events")
        ordering = ["-at", "-pk"]
        constraints = [models.UniqueConstraint(fields=["station", "content_key"], name="monitoring_event_once")]
        indexes = [models.Index(fields=["station", "-at"]), models.Index(fields=["received_at"])]

    def __str__(self) -> str:
        return f"{self.station}: {self.place} = {self.value[:40]}"


class ExternalLimit(models.Model):
    """A limit that somebody else put on a station: the grid operator, an energy manager on site, the operator."""

    class Source(models.TextChoices):
        EMS = "EMS", _("an energy manager on site")
        SO = "SO", _("the grid operator")
        CSO = "CSO", _("the station's operator")
        OTHER = "Other", _("another")

    station = models.ForeignKey(
        "csms.ChargingStation", models.CASCADE, related_name="external_limits", verbose_name=_("station")
    )
    evse_number = models.PositiveSmallIntegerField(_("EVSE"), default=0, help_text=_("0: the whole station"))
    source = models.CharField(_("source"), max_length=8, choices=Source.choices)
    grid_critical = models.BooleanField(_("critical for the grid"), default=False)
    told_at = models.DateTimeField(_("told"))
    schedules = models.JSONField(
        _("schedules"), default=list, blank=True, help_text=_("unit, start and periods; empty when not told")
    )

    class Meta:
        verbose_name = _("limit of another")
        verbose_name_plural = _("limits of others")
        ordering = ["station", "evse_number"]
        constraints = [models.UniqueConstraint(fields=["station", "evse_number", "source"], name="external_limit_once")]

    def __str__(self) -> str:
        return f"{self.station}/{self.evse_number or '*'}: {self.get_source_display()}"


class ChargingNeeds(models.Model):
    """What a car says it needs (ISO 15118), and the schedule it made of what it was offered.

    Without a transaction it waits for the one that is about to begin on its EVSE.
    """

    evse = models.ForeignKey("csms.EVSE", models.CASCADE, related_name="needs", verbose_name=_("EVSE"))
    transaction = models.OneToOneField(
        "csms.Transaction",
        models.CASCADE,
        related_name="needs",
        verbose_name=_("transaction"),
        null=True,
        blank=True,
    )
    told_at = models.DateTimeField(_("told"))
    transfer = models.CharField(_("energy transfer"), max_length=16, blank=True)
    departure = models.DateTimeField(_("departure"), null=True, blank=True)
    energy_wh = models.FloatField(_("energy from then on [Wh]"), null=True, blank=True)
    min_a = models.FloatField(_("least current [A]"), null=True, blank=True)
    max_a = models.FloatField(_("most current [A]"), null=True, blank=True)
    max_v = models.FloatField(_("most voltage [V]"), null=True, blank=True)
    max_w = models.FloatField(_("most power [W]"), null=True, blank=True)
    soc = models.FloatField(_("state of charge"), null=True, blank=True)
    full_soc = models.FloatField(_("full at a state of charge of"), null=True, blank=True)
    capacity_wh = models.FloatField(_("battery [Wh]"), null=True, blank=True)
    schedule = models.JSONField(_("the car's own schedule"), null=True, blank=True)
    schedule_fits = models.BooleanField(_("its schedule keeps the limit"), null=True, blank=True)

    class Meta:
        verbose_name = _("needs of a car")
        verbose_name_plural = _("needs of cars")
        ordering = ["-told_at", "-pk"]
        indexes = [models.Index(fields=["evse", "-told_at"])]

    def __str__(self) -> str:
        return f"{self.evse} {self.told_at:%Y-%m-%d %H:%M}"

    @property
    def facts(self) -> dict[str, Any]:
        """What was told, without what was not."""
        names = ("transfer", "departure", "energy_wh", "min_a", "max_a", "max_w", "soc", "full_soc", "capacity_wh")
        return {n: getattr(self, n) for n in names if getattr(self, n) not in (None, "")}

"""Records of how stations follow: what a model can do, what each EVSE was told, and what an operator must know of.

Kept beside `csms/models.py`, which registers them; the verbs are in `learning.py`, `following.py` and `alarms.py`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.db import models
from django.utils.translation import gettext_lazy as _
from simple_history.models import HistoricalRecords

from meters.models import Site

if TYPE_CHECKING:
    from collections.abc import Mapping


class StationModel(models.Model):
    """One product with one firmware: what its stations can do, learnt once by any of them and used by all.

    `capabilities` holds, by name, {"value", "source", "at", "station"}; the source is `told` (the station's own
    word), `learned` (by what it did) or `set` (by a person), and a later one in this row is never undone by an
    earlier one. `asked` holds the questions that may send a station into a boot, each asked once (Q24).
    `repairs` holds what a person decided of a mend: "on" or "off".
    """

    vendor = models.CharField(_("vendor"), max_length=100, blank=True)
    model = models.CharField(_("model"), max_length=100, blank=True)
    firmware = models.CharField(_("firmware"), max_length=100, blank=True)
    capabilities = models.JSONField(_("capabilities"), default=dict, blank=True)
    asked = models.JSONField(_("asked once"), default=dict, blank=True)
    repairs = models.JSONField(_("repairs"), default=dict, blank=True)
    first_seen_at = models.DateTimeField(_("first seen"), null=True, blank=True)
    history = HistoricalRecords(excluded_fields=["asked"])

    class Meta:
        verbose_name = _("station model")
        verbose_name_plural = _("station models")
        ordering = ["vendor", "model", "firmware"]
        constraints = [models.UniqueConstraint(fields=["vendor", "model", "firmware"], name="station_model_once")]

    def __str__(self) -> str:
        return " ".join(part for part in (self.vendor, self.model, self.firmware) if part) or "–"

    def value(self, name: str) -> Any:
        """What is known of one capability; None when nothing is."""
        entry = self.capabilities.get(name)
        return entry.get("value") if isinstance(entry, dict) else None

    @property
    def values(self) -> Mapping[str, Any]:
        """All that is known, by name."""
        return {n: e["value"] for n, e in self.capabilities.items() if isinstance(e, dict) and "value" in e}


class Alarm(models.Model):
    """Something an operator must know of until it is over. Of one matter at most one is open."""

    class Kind(models.TextChoices):
        NOT_FOLLOWED = "not_followed", _("does not follow its limit")
        LIMIT_REFUSED = "limit_refused", _("refuses every limit")
        FAIL_SAFE_REFUSED = "fail_safe_refused", _("takes no fail-safe limit")
        SILENT = "silent", _("does not answer")
        NOT_RESUMED = "not_resumed", _("does not go on after a pause")
        RESTLESS = "restless", _("boots again and again")
        OTHER = "other", _("other")

    site = models.ForeignKey(Site, models.CASCADE, related_name="alarms", verbose_name=_("site"), null=True, blank=True)
    station = models.ForeignKey(
        "csms.ChargingStation", models.CASCADE, related_name="alarms", verbose_name=_("station"), null=True, blank=True
    )
    evse = models.ForeignKey(
        "csms.EVSE", models.CASCADE, related_name="alarms", verbose_name=_("EVSE"), null=True, blank=True
    )
    kind = models.CharField(_("kind"), max_length=24, choices=Kind.choices)
    key = models.CharField(max_length=80, editable=False, help_text=_("which matter it is about"))
    detail = models.CharField(_("detail"), max_length=255, blank=True)
    raised_at = models.DateTimeField(_("raised"))
    ended_at = models.DateTimeField(_("ended"), null=True, blank=True)
    ended_by = models.CharField(_("ended by"), max_length=150, blank=True, help_text=_("empty: it ended by itself"))

    class Meta:
        verbose_name = _("alarm")
        verbose_name_plural = _("alarms")
        ordering = ["-raised_at", "-pk"]
        constraints = [
            models.UniqueConstraint(fields=["key"], condition=models.Q(ended_at=None), name="alarm_open_once")
        ]
        indexes = [models.Index(fields=["site", "ended_at"]), models.Index(fields=["station", "ended_at"])]

    def __str__(self) -> str:
        where = self.evse or self.station or self.site
        return f"{where}: {self.get_kind_display()}"

    @property
    def open(self) -> bool:
        return self.ended_at is None


class ToldLimit(models.Model):
    """One limit as a station was told it, who had asked for what by then, and how far it was followed."""

    evse = models.ForeignKey("csms.EVSE", models.CASCADE, related_name="told_limits", verbose_name=_("EVSE"))
    key = models.CharField(max_length=32, unique=True, editable=False)
    at = models.DateTimeField(_("wanted at"))
    wanted_a = models.FloatField(_("wanted [A]"), null=True, blank=True)
    wanted_w = models.FloatField(_("wanted [W]"), null=True, blank=True)
    reason = models.CharField(_("reason"), max_length=200, blank=True)
    asked = models.JSONField(_("asked by"), default=list, blank=True)
    means = models.CharField(_("told by"), max_length=64, blank=True)
    state = models.CharField(_("state"), max_length=16)
    detail = models.CharField(_("detail"), max_length=255, blank=True)
    sent_at = models.DateTimeField(_("sent"), null=True, blank=True)
    accepted_at = models.DateTimeField(_("accepted"), null=True, blank=True)
    scheduled_at = models.DateTimeField(_("scheduled"), null=True, blank=True)
    measured_at = models.DateTimeField(_("measured"), null=True, blank=True)
    measured_a = models.FloatField(_("measured [A]"), null=True, blank=True)

    class Meta:
        verbose_name = _("told limit")
        verbose_name_plural = _("told limits")
        ordering = ["-at", "-pk"]
        indexes = [models.Index(fields=["evse", "-at"]), models.Index(fields=["at"])]

    def __str__(self) -> str:
        amount = f"{self.wanted_w:g} W" if self.wanted_w is not None else f"{self.wanted_a or 0:g} A"
        return f"{self.evse}: {amount}"

"""What stands beside the transactions: ends that belong to none, and readings a meter has signed."""

from __future__ import annotations

from django.conf import settings
from django.db import models
from django.utils.translation import gettext_lazy as _

from csms.append_only import AppendOnly


class UnmatchedEnd(models.Model):
    """The end of a charge whose start nobody knows. Kept, shown, and never guessed: a person says what it is."""

    class State(models.TextChoices):
        WAITING = "waiting", _("waiting")
        MATCHED = "matched", _("matched by itself")
        ATTACHED = "attached", _("attached by a person")
        DISMISSED = "dismissed", _("dismissed")

    station = models.ForeignKey(
        "csms.ChargingStation", models.PROTECT, related_name="unmatched_ends", verbose_name=_("station")
    )
    event = models.OneToOneField(
        "csms.TransactionEvent", models.CASCADE, related_name="unmatched", verbose_name=_("event")
    )
    told_id = models.CharField(_("transaction id as told"), max_length=64)
    at = models.DateTimeField(_("at"))
    received_at = models.DateTimeField(_("received"))
    register_wh = models.FloatField(_("register [Wh]"), null=True, blank=True)
    id_token_value = models.CharField(_("token as presented"), max_length=64, blank=True)
    stop_reason = models.CharField(_("stop reason"), max_length=32, blank=True)
    state = models.CharField(_("state"), max_length=10, choices=State.choices, default=State.WAITING)
    transaction = models.ForeignKey(
        "csms.Transaction",
        models.SET_NULL,
        related_name="matched_ends",
        verbose_name=_("transaction"),
        null=True,
        blank=True,
    )
    reason = models.CharField(_("reason"), max_length=200, blank=True)
    settled_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, models.SET_NULL, verbose_name=_("settled by"), null=True, blank=True
    )
    settled_at = models.DateTimeField(_("settled at"), null=True, blank=True)

    class Meta:
        verbose_name = _("unmatched end")
        verbose_name_plural = _("unmatched ends")
        ordering = ["-at", "-pk"]
        indexes = [models.Index(fields=["station", "state", "at"])]

    def __str__(self) -> str:
        return f"{self.station} {self.told_id}"


class SignedMeterValue(AppendOnly):
    """A reading as the meter signed it, letter for letter: the proof behind a bill (1.6 format SignedData, 2.0.1
    signedMeterValue). We keep it and do not read it."""

    station = models.ForeignKey(
        "csms.ChargingStation", models.PROTECT, related_name="signed_values", verbose_name=_("station")
    )
    transaction = models.ForeignKey(
        "csms.Transaction",
        models.PROTECT,
        related_name="signed_values",
        verbose_name=_("transaction"),
        null=True,
        blank=True,
    )
    evse_number = models.PositiveSmallIntegerField(_("EVSE"), default=0)
    at = models.DateTimeField(_("at"))
    context = models.CharField(_("context"), max_length=32, blank=True)
    content_key = models.CharField(max_length=64, editable=False)
    told = models.JSONField(_("as told"), default=dict)

    class Meta:
        verbose_name = _("signed meter value")
        verbose_name_plural = _("signed meter values")
        ordering = ["at", "pk"]
        constraints = [models.UniqueConstraint(fields=["station", "content_key"], name="signed_value_once")]

    def __str__(self) -> str:
        return f"{self.station} {self.at:%Y-%m-%d %H:%M:%S}"

"""What is known of a station's security: how it must come in, its certificates, and what happened around it."""

from __future__ import annotations

from django.db import models
from django.utils.translation import gettext_lazy as _
from simple_history.models import HistoricalRecords


class SecurityProfile(models.IntegerChoices):
    """The profiles of the OCPP security white paper, and none at all."""

    OPEN = 0, _("0: no credentials")
    PASSWORD = 1, _("1: password, without TLS")
    TLS = 2, _("2: password over TLS")
    CERTIFICATE = 3, _("3: client certificate")


class StationSecurity(models.Model):
    """How one station may come in, and how it comes in now. A station without a row follows the installation."""

    station = models.OneToOneField(
        "csms.ChargingStation", models.CASCADE, related_name="security", verbose_name=_("station")
    )
    least_profile = models.PositiveSmallIntegerField(
        _("security profile, at least"),
        choices=SecurityProfile.choices,
        null=True,
        blank=True,
        help_text=_("less is refused; empty: as the installation asks"),
    )
    lower_profile = models.PositiveSmallIntegerField(
        _("for now also"), choices=SecurityProfile.choices, null=True, blank=True
    )
    lower_until = models.DateTimeField(_("until"), null=True, blank=True)
    wanted_profile = models.PositiveSmallIntegerField(
        _("asked to move to"),
        choices=SecurityProfile.choices,
        null=True,
        blank=True,
        help_text=_("becomes the least once the station has come in with it"),
    )
    seen_profile = models.PositiveSmallIntegerField(
        _("newest login with"), choices=SecurityProfile.choices, null=True, blank=True
    )
    old_password_hash = models.CharField(max_length=255, blank=True, editable=False)
    old_password_until = models.DateTimeField(_("the old password is valid until"), null=True, blank=True)
    password_changed_at = models.DateTimeField(_("password changed"), null=True, blank=True)
    renewal_asked_at = models.DateTimeField(_("certificate renewal asked"), null=True, blank=True)
    history = HistoricalRecords(excluded_fields=["old_password_hash", "seen_profile", "renewal_asked_at"])

    class Meta:
        verbose_name = _("security of a station")
        verbose_name_plural = _("security of stations")

    def __str__(self) -> str:
        return str(self.station)


class StationCertificate(models.Model):
    """A certificate our own authority signed for a station."""

    class State(models.TextChoices):
        SIGNED = "signed", _("signed")
        ACCEPTED = "accepted", _("taken by the station")
        REFUSED = "refused", _("refused by the station")
        UNSENT = "unsent", _("not delivered")

    station = models.ForeignKey(
        "csms.ChargingStation",
        models.SET_NULL,
        related_name="certificates",
        verbose_name=_("station"),
        null=True,
        blank=True,
        help_text=_("empty: the station was deleted, the certificate is not forgotten"),
    )
    identity = models.CharField(_("identity"), max_length=255, blank=True)
    serial = models.CharField(_("serial"), max_length=40, help_text=_("hexadecimal"))
    issuer = models.CharField(_("issuer"), max_length=255)
    subject = models.CharField(_("subject"), max_length=255)
    fingerprint = models.CharField(_("SHA-256 fingerprint"), max_length=64)
    not_before = models.DateTimeField(_("valid from"))
    not_after = models.DateTimeField(_("valid until"))
    state = models.CharField(_("state"), max_length=8, choices=State.choices, default=State.SIGNED)
    signed_at = models.DateTimeField(_("signed at"))
    revoked_at = models.DateTimeField(_("revoked"), null=True, blank=True)
    reason = models.CharField(_("reason"), max_length=200, blank=True)
    pem = models.TextField(_("certificate"), blank=True)

    class Meta:
        verbose_name = _("station certificate")
        verbose_name_plural = _("station certificates")
        ordering = ["-signed_at", "-pk"]
        constraints = [models.UniqueConstraint(fields=["issuer", "serial"], name="certificate_serial_once")]
        indexes = [models.Index(fields=["station", "-signed_at"])]

    def __str__(self) -> str:
        return f"{self.identity} {self.serial}"

    @property
    def revoked(self) -> bool:
        return self.revoked_at is not None


class InstalledCertificate(models.Model):
    """A certificate that a station says it holds: roots, and in 2.0.1 its own chains."""

    station = models.ForeignKey(
        "csms.ChargingStation", models.CASCADE, related_name="installed_certificates", verbose_name=_("station")
    )
    use = models.CharField(_("use"), max_length=40)
    hash_algorithm = models.CharField(_("hash"), max_length=6)
    issuer_name_hash = models.CharField(_("issuer's name, hashed"), max_length=128)
    issuer_key_hash = models.CharField(_("issuer's key, hashed"), max_length=128)
    serial = models.CharField(_("serial"), max_length=40)
    seen_at = models.DateTimeField(_("seen at"))

    class Meta:
        verbose_name = _("installed certificate")
        verbose_name_plural = _("installed certificates")
        ordering = ["station", "use", "serial"]
        constraints = [
            models.UniqueConstraint(
                fields=["station", "use", "hash_algorithm", "issuer_name_hash", "issuer_key_hash", "serial"],
                name="installed_certificate_once",
            )
        ]

    def __str__(self) -> str:
        return f"{self.station} {self.use} {self.serial}"


class SecurityEvent(models.Model):
    """Something that matters for security: told by a station, or seen by us at the door."""

    class Criticality(models.TextChoices):
        INFO = "info", _("notice")
        WARNING = "warning", _("warning")
        CRITICAL = "critical", _("alarm")

    class Source(models.TextChoices):
        STATION = "station", _("the station")
        GATEWAY = "gateway", _("the gateway")
        PERSON = "person", _("a person")

    station = models.ForeignKey(
        "csms.ChargingStation",
        models.CASCADE,
        related_name="security_events",
        verbose_name=_("station"),
        null=True,
        blank=True,
    )
    identity = models.CharField(_("identity"), max_length=255, blank=True, help_text=_("as it was told at the door"))
    source = models.CharField(_("told by"), max_length=8, choices=Source.choices)
    kind = models.CharField(_("event"), max_length=50)
    criticality = models.CharField(_("weight"), max_length=8, choices=Criticality.choices)
    at = models.DateTimeField(_("at"))
    received_at = models.DateTimeField(_("received"))
    address = models.CharField(_("address"), max_length=64, blank=True)
    count = models.PositiveIntegerField(_("times"), default=1)
    detail = models.CharField(_("detail"), max_length=255, blank=True)

    class Meta:
        verbose_name = _("security event")
        verbose_name_plural = _("security events")
        ordering = ["-received_at", "-pk"]
        indexes = [models.Index(fields=["station", "-received_at"]), models.Index(fields=["-received_at"])]

    def __str__(self) -> str:
        return f"{self.kind} {self.station or self.identity}"

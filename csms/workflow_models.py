"""Work that takes its time: lists in stations, reservations, firmware, logs. Each record says how far it is.

What a station is asked for may be answered in a second, in an hour or never; these rows are what is remembered in
between. The verbs are in `local_lists.py`, `reservations.py`, `firmware.py`, `rollouts.py` and `logs.py`.
"""

from __future__ import annotations

from datetime import datetime
from pathlib import PurePath
from typing import Any

from django.conf import settings
from django.core.files.storage import FileSystemStorage
from django.core.validators import MaxValueValidator, MinValueValidator, RegexValidator
from django.db import models
from django.utils.translation import gettext_lazy as _
from simple_history.models import HistoricalRecords

from meters.models import Site


class LocalListPolicy(models.Model):
    """Which id tokens the stations of a site keep in themselves, for when the central system is away."""

    class Members(models.TextChoices):
        ACCEPTED = "accepted", _("all accepted tokens of the site")
        GROUP = "group", _("the accepted tokens of one group")
        NOBODY = "nobody", _("none: the lists are emptied")

    site = models.OneToOneField(Site, models.CASCADE, related_name="local_list_policy", verbose_name=_("site"))
    members = models.CharField(_("members"), max_length=8, choices=Members.choices, default=Members.ACCEPTED)
    group = models.CharField(_("group"), max_length=36, blank=True, help_text=_("of the tokens, where one is chosen"))
    history = HistoricalRecords()

    class Meta:
        verbose_name = _("local list of a site")
        verbose_name_plural = _("local lists per site")
        ordering = ["site"]

    def __str__(self) -> str:
        return f"{self.site}: {self.get_members_display()}"


class LocalList(models.Model):
    """The list of id tokens one station should hold, and the one it holds.

    `wanted` and `held` map a token to how it is told (`local_lists.py`); `held` is None when nobody knows.
    """

    class State(models.TextChoices):
        WAITING = "waiting", _("waiting")
        IN_STEP = "in_step", _("in step")
        FAILED = "failed", _("failed")
        UNSUPPORTED = "unsupported", _("not supported")

    station = models.OneToOneField(
        "csms.ChargingStation", models.CASCADE, related_name="local_list", verbose_name=_("station")
    )
    state = models.CharField(_("state"), max_length=12, choices=State.choices, default=State.WAITING)
    wanted_version = models.PositiveIntegerField(_("wanted version"), default=0)
    held_version = models.PositiveIntegerField(
        _("held version"), null=True, blank=True, help_text=_("as the station says; 0: it has no list")
    )
    wanted = models.JSONField(_("wanted entries"), default=dict, blank=True, editable=False)
    wanted_key = models.CharField(max_length=64, blank=True, editable=False, help_text=_("of the wanted entries"))
    held = models.JSONField(_("held entries"), null=True, blank=True, editable=False)
    left_out = models.PositiveIntegerField(
        _("left out"), default=0, help_text=_("tokens the station has no room for or cannot be told of")
    )
    attempts = models.PositiveSmallIntegerField(_("attempts"), default=0)
    next_try_at = models.DateTimeField(_("next try"), null=True, blank=True)
    last_error = models.CharField(_("last error"), max_length=255, blank=True)
    checked_at = models.DateTimeField(_("version asked"), null=True, blank=True)
    sent_at = models.DateTimeField(_("last sent"), null=True, blank=True)
    firmware_version = models.CharField(_("with firmware"), max_length=100, blank=True)

    class Meta:
        verbose_name = _("local list")
        verbose_name_plural = _("local lists in stations")
        ordering = ["station"]

    def __str__(self) -> str:
        return f"{self.station}"


class Reservation(models.Model):
    """A place kept for a token (and its group). Its number at the station is this row's key."""

    class State(models.TextChoices):
        WANTED = "wanted", _("wanted")
        ACCEPTED = "accepted", _("accepted")
        OCCUPIED = "occupied", _("occupied")
        REJECTED = "rejected", _("rejected")
        FAULTED = "faulted", _("faulted")
        UNAVAILABLE = "unavailable", _("unavailable")
        USED = "used", _("used")
        EXPIRED = "expired", _("expired")
        REMOVED = "removed", _("removed by the station")
        CANCELLED = "cancelled", _("cancelled")

    site = models.ForeignKey(Site, models.CASCADE, related_name="reservations", verbose_name=_("site"))
    station = models.ForeignKey(
        "csms.ChargingStation",
        models.CASCADE,
        related_name="reservations",
        verbose_name=_("station"),
        null=True,
        blank=True,
        help_text=_("empty: any free place of the site"),
    )
    evse = models.ForeignKey(
        "csms.EVSE",
        models.CASCADE,
        related_name="reservations",
        verbose_name=_("EVSE"),
        null=True,
        blank=True,
        help_text=_("empty: any of the station"),
    )
    id_token = models.ForeignKey(
        "csms.IdToken", models.CASCADE, related_name="reservations", verbose_name=_("id token")
    )
    connector_type = models.CharField(
        _("connector type"), max_length=20, blank=True, help_text=_("cType2, cCCS2 …; OCPP 2.0.1 only")
    )
    starts_at = models.DateTimeField(_("from"), help_text=_("the station is asked at this moment"))
    ends_at = models.DateTimeField(_("until"))
    state = models.CharField(_("state"), max_length=12, choices=State.choices, default=State.WANTED)
    detail = models.CharField(_("detail"), max_length=255, blank=True)
    attempts = models.PositiveSmallIntegerField(_("attempts"), default=0)
    next_try_at = models.DateTimeField(_("next try"), null=True, blank=True)
    cancel_wanted = models.BooleanField(
        _("to be cancelled"), default=False, help_text=_("the station has not been told yet")
    )
    transaction = models.ForeignKey(
        "csms.Transaction",
        models.SET_NULL,
        related_name="reservations",
        verbose_name=_("used by"),
        null=True,
        blank=True,
    )
    by = models.ForeignKey(
        settings.AUTH_USER_MODEL, models.SET_NULL, related_name="+", verbose_name=_("by"), null=True, blank=True
    )
    created_at = models.DateTimeField(_("made"), auto_now_add=True)
    answered_at = models.DateTimeField(_("answered"), null=True, blank=True)
    closed_at = models.DateTimeField(_("closed"), null=True, blank=True)

    class Meta:
        verbose_name = _("reservation")
        verbose_name_plural = _("reservations")
        ordering = ["-starts_at", "-pk"]
        indexes = [models.Index(fields=["station", "state"]), models.Index(fields=["state", "ends_at"])]

    def __str__(self) -> str:
        return f"{self.evse or self.station or self.site} · {self.id_token}"

    @property
    def open(self) -> bool:
        return self.state in OPEN_RESERVATIONS


OPEN_RESERVATIONS = (Reservation.State.WANTED, Reservation.State.ACCEPTED)


def firmware_storage() -> FileSystemStorage:
    """Beside the database, and never below an address that is served."""
    return FileSystemStorage(location=settings.DATA_DIR / "firmware", base_url=None)


def firmware_name(image: Any, name: str) -> str:
    return PurePath(name).name[-80:]


class FirmwareImage(models.Model):
    """A firmware of one maker for some of its models: a file kept here, or an address of the maker's."""

    site = models.ForeignKey(
        Site,
        models.CASCADE,
        related_name="firmware_images",
        verbose_name=_("site"),
        null=True,
        blank=True,
        help_text=_("empty: for every site; only superusers make those"),
    )
    vendor = models.CharField(_("vendor"), max_length=100, help_text=_("as the stations name it in their boot"))
    fits_models = models.CharField(
        _("models"), max_length=255, blank=True, help_text=_("as the stations name them, with commas; empty: all")
    )
    version = models.CharField(_("version"), max_length=100, help_text=_("as the stations name it once it runs"))
    file = models.FileField(
        _("file"), storage=firmware_storage, upload_to=firmware_name, max_length=200, null=True, blank=True
    )
    url = models.CharField(
        _("address"),
        max_length=512,
        blank=True,
        validators=[RegexValidator(r"^(https?|ftps?|sftp)://[^\s/]+/\S*$", _("Such as https://host/path or ftp://…"))],
        help_text=_("instead of a file: where the stations find it"),
    )
    sha256 = models.CharField(
        _("SHA-256"),
        max_length=64,
        blank=True,
        validators=[RegexValidator(r"^[0-9a-fA-F]{64}$", _("64 hexadecimal digits."))],
        help_text=_("as the maker gives it; the file is checked against it"),
    )
    size = models.PositiveBigIntegerField(_("size [bytes]"), default=0, editable=False)
    signature = models.TextField(_("signature"), blank=True, max_length=800, help_text=_("base64, of the maker"))
    certificate = models.TextField(_("signing certificate"), blank=True, max_length=5500, help_text=_("PEM"))
    notes = models.TextField(_("notes"), blank=True)
    created_at = models.DateTimeField(_("created"), auto_now_add=True)
    history = HistoricalRecords(excluded_fields=["file", "url"])  # an address may hold a password

    class Meta:
        verbose_name = _("firmware image")
        verbose_name_plural = _("firmware images")
        ordering = ["vendor", "-created_at"]

    def __str__(self) -> str:
        return " ".join(word for word in (self.vendor, self.fits_models, self.version) if word)

    @property
    def model_names(self) -> list[str]:
        return [name.strip() for name in self.fits_models.split(",") if name.strip()]

    @property
    def signed(self) -> bool:
        return bool(self.signature and self.certificate)


class FirmwareRollout(models.Model):
    """Bringing one image to the stations it fits: a few first, then the others, some at a time."""

    class State(models.TextChoices):
        DRAFT = "draft", _("not started")
        RUNNING = "running", _("running")
        PAUSED = "paused", _("paused")
        STOPPED = "stopped", _("stopped: too many failures")
        CANCELLED = "cancelled", _("cancelled")
        DONE = "done", _("done")

    image = models.ForeignKey(FirmwareImage, models.PROTECT, related_name="rollouts", verbose_name=_("image"))
    site = models.ForeignKey(
        Site,
        models.CASCADE,
        related_name="firmware_rollouts",
        verbose_name=_("site"),
        null=True,
        blank=True,
        help_text=_("empty: every site; only superusers make those"),
    )
    name = models.CharField(_("name"), max_length=100, blank=True)
    from_versions = models.CharField(
        _("from versions"), max_length=255, blank=True, help_text=_("only stations that run one of these; with commas")
    )
    stations = models.ManyToManyField(
        "csms.ChargingStation",
        related_name="+",
        verbose_name=_("only these stations"),
        blank=True,
        help_text=_("none chosen: all that fit"),
    )
    canaries = models.PositiveSmallIntegerField(
        _("first"), default=1, help_text=_("so many stations go first; the others wait until they are done")
    )
    at_once = models.PositiveSmallIntegerField(
        _("at once"), default=5, validators=[MinValueValidator(1), MaxValueValidator(200)]
    )
    only_idle = models.BooleanField(
        _("only when nobody charges"), default=True, help_text=_("a station is asked when none of its places is in use")
    )
    window_from = models.TimeField(
        _("from"), null=True, blank=True, help_text=_("begin of the hours in which stations are asked, on their clock")
    )
    window_to = models.TimeField(_("to"), null=True, blank=True)
    attempts = models.PositiveSmallIntegerField(
        _("attempts"), default=2, validators=[MinValueValidator(1), MaxValueValidator(10)], help_text=_("per station")
    )
    patience_minutes = models.PositiveIntegerField(
        _("patience [min]"),
        default=60,
        validators=[MinValueValidator(1), MaxValueValidator(7 * 24 * 60)],
        help_text=_("without a word from the station for so long, the attempt has failed"),
    )
    max_failures = models.PositiveSmallIntegerField(
        _("most failures"), default=3, validators=[MinValueValidator(1)], help_text=_("so many, and it stops")
    )
    max_failure_share = models.FloatField(
        _("most failures [share]"),
        default=0.25,
        validators=[MinValueValidator(0), MaxValueValidator(1)],
        help_text=_("of the stations that have ended, from the fourth on; 0.25 is a quarter"),
    )
    state = models.CharField(_("state"), max_length=12, choices=State.choices, default=State.DRAFT)
    forgiven = models.PositiveIntegerField(
        _("forgiven failures"), default=0, editable=False, help_text=_("those before a person let it go on")
    )
    reason = models.CharField(_("reason"), max_length=255, blank=True)
    by = models.ForeignKey(
        settings.AUTH_USER_MODEL, models.SET_NULL, related_name="+", verbose_name=_("by"), null=True, blank=True
    )
    created_at = models.DateTimeField(_("created"), auto_now_add=True)
    started_at = models.DateTimeField(_("started"), null=True, blank=True)
    ended_at = models.DateTimeField(_("ended"), null=True, blank=True)
    history = HistoricalRecords(excluded_fields=["reason", "ended_at"])

    class Meta:
        verbose_name = _("firmware rollout")
        verbose_name_plural = _("firmware rollouts")
        ordering = ["-created_at", "-pk"]

    def __str__(self) -> str:
        return self.name or f"{self.image}"

    @property
    def from_version_names(self) -> list[str]:
        return [name.strip() for name in self.from_versions.split(",") if name.strip()]


class FirmwareUpdate(models.Model):
    """One station in a rollout."""

    class State(models.TextChoices):
        WAITING = "waiting", _("waiting")
        ASKED = "asked", _("asked")
        DOWNLOADING = "downloading", _("downloading")
        DOWNLOADED = "downloaded", _("downloaded")
        INSTALLING = "installing", _("installing")
        REBOOTING = "rebooting", _("restarting")
        DONE = "done", _("done")
        FAILED = "failed", _("failed")
        SKIPPED = "skipped", _("has it already")
        CANCELLED = "cancelled", _("cancelled")

    rollout = models.ForeignKey(FirmwareRollout, models.CASCADE, related_name="updates", verbose_name=_("rollout"))
    station = models.ForeignKey(
        "csms.ChargingStation", models.CASCADE, related_name="firmware_updates", verbose_name=_("station")
    )
    canary = models.BooleanField(_("went first"), default=False)
    state = models.CharField(_("state"), max_length=12, choices=State.choices, default=State.WAITING)
    status = models.CharField(_("the station says"), max_length=40, blank=True)
    detail = models.CharField(_("detail"), max_length=255, blank=True)
    attempts = models.PositiveSmallIntegerField(_("attempts"), default=0)
    request_id = models.BigIntegerField(_("request id"), null=True, blank=True)
    from_version = models.CharField(_("from version"), max_length=100, blank=True)
    not_before = models.DateTimeField(_("not before"), null=True, blank=True)
    asked_at = models.DateTimeField(_("asked"), null=True, blank=True)
    heard_at = models.DateTimeField(_("newest word"), null=True, blank=True)
    fetched_bytes = models.PositiveBigIntegerField(_("fetched [bytes]"), default=0)
    ended_at = models.DateTimeField(_("ended"), null=True, blank=True)

    class Meta:
        verbose_name = _("firmware update")
        verbose_name_plural = _("firmware updates")
        ordering = ["rollout", "-canary", "pk"]
        constraints = [models.UniqueConstraint(fields=["rollout", "station"], name="station_once_in_rollout")]
        indexes = [models.Index(fields=["station", "state"])]

    def __str__(self) -> str:
        return f"{self.station}: {self.get_state_display()}"

    @property
    def under_way(self) -> bool:
        return self.state in UPDATES_UNDER_WAY


UPDATES_UNDER_WAY = (
    FirmwareUpdate.State.ASKED,
    FirmwareUpdate.State.DOWNLOADING,
    FirmwareUpdate.State.DOWNLOADED,
    FirmwareUpdate.State.INSTALLING,
    FirmwareUpdate.State.REBOOTING,
)


class LogRequest(models.Model):
    """A log asked of a station, and the file once it is here."""

    class Kind(models.TextChoices):
        DIAGNOSTICS = "diagnostics", _("diagnostics")
        SECURITY = "security", _("security")

    class State(models.TextChoices):
        ASKED = "asked", _("asked")
        UPLOADING = "uploading", _("uploading")
        UPLOADED = "uploaded", _("uploaded")
        ELSEWHERE = "elsewhere", _("uploaded elsewhere")
        FAILED = "failed", _("failed")
        REFUSED = "refused", _("refused")
        EMPTY = "empty", _("the station has none")
        DELETED = "deleted", _("deleted")

    station = models.ForeignKey(
        "csms.ChargingStation", models.CASCADE, related_name="log_requests", verbose_name=_("station")
    )
    kind = models.CharField(_("kind"), max_length=12, choices=Kind.choices, default=Kind.DIAGNOSTICS)
    oldest = models.DateTimeField(_("from"), null=True, blank=True)
    latest = models.DateTimeField(_("until"), null=True, blank=True)
    elsewhere = models.CharField(
        _("other address"),
        max_length=255,
        blank=True,
        validators=[RegexValidator(r"^(https?|ftps?|sftp)://\S+$", _("Such as ftp://host/path."))],
        help_text=_("for a station that cannot upload by HTTP: your own server, such as ftp://host/path"),
    )
    state = models.CharField(_("state"), max_length=12, choices=State.choices, default=State.ASKED)
    status = models.CharField(_("the station says"), max_length=40, blank=True)
    detail = models.CharField(_("detail"), max_length=255, blank=True)
    request_id = models.BigIntegerField(_("request id"), null=True, blank=True)
    by = models.ForeignKey(
        settings.AUTH_USER_MODEL, models.SET_NULL, related_name="+", verbose_name=_("by"), null=True, blank=True
    )
    asked_at = models.DateTimeField(_("asked"))
    heard_at = models.DateTimeField(_("newest word"), null=True, blank=True)
    upload_until = models.DateTimeField(_("upload until"), help_text=_("until then the address takes the file, once"))
    file = models.CharField(_("stored as"), max_length=100, blank=True, editable=False)
    file_name = models.CharField(_("file name"), max_length=120, blank=True)
    size = models.PositiveBigIntegerField(_("size [bytes]"), null=True, blank=True)
    sha256 = models.CharField(_("SHA-256"), max_length=64, blank=True)
    uploaded_at = models.DateTimeField(_("uploaded"), null=True, blank=True)

    class Meta:
        verbose_name = _("station log")
        verbose_name_plural = _("station logs")
        ordering = ["-asked_at", "-pk"]
        indexes = [models.Index(fields=["station", "state"])]

    def __str__(self) -> str:
        return f"{self.station} · {self.get_kind_display()}"

    def takes_a_file(self, now: datetime) -> bool:
        """May the station still upload it here?"""
        return self.uploaded_at is None and not self.elsewhere and now < self.upload_until

"""Charging stations and what passes on them: EVSEs, id tokens, transactions and their events, limits, messages.

Complete without any smart charging: nothing here has heard of a circuit, a plan or a goal.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from django.conf import settings
from django.contrib.auth.hashers import check_password, make_password
from django.core.exceptions import ValidationError
from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models
from django.db.models.functions import Upper
from django.utils.translation import gettext_lazy as _
from simple_history.models import HistoricalRecords

from csms.append_only import AppendOnly
from meters.models import Site

if TYPE_CHECKING:
    from datetime import datetime

PHASE_NAMES = ("L1", "L2", "L3")


def validate_wiring(value: object) -> None:
    """One to three different grid phases, in the order of the station's own L1, L2, L3."""
    if value in ([], None):
        return
    ok = (
        isinstance(value, list)
        and 1 <= len(value) <= 3
        and all(p in PHASE_NAMES for p in value)
        and len(set(value)) == len(value)
    )
    if not ok:
        raise ValidationError(_("Wiring names one to three different phases, such as [“L2”, “L3”, “L1”]."))


class ChargingStation(models.Model):
    """A station, known by its identity. The OCPP version belongs to the connection, not to the station."""

    class Admission(models.TextChoices):
        QUARANTINED = "quarantined", _("quarantined")
        ACCEPTED = "accepted", _("accepted")
        REJECTED = "rejected", _("rejected")

    class Current(models.TextChoices):
        AC = "ac", _("AC")
        DC = "dc", _("DC")

    identity = models.CharField(_("identity"), max_length=255, unique=True)
    name = models.CharField(_("name"), max_length=100, blank=True)
    site = models.ForeignKey(
        Site, models.CASCADE, related_name="stations", verbose_name=_("site"), null=True, blank=True
    )
    admission = models.CharField(
        _("admission"),
        max_length=16,
        choices=Admission.choices,
        default=Admission.QUARANTINED,
        help_text=_("an unknown station waits in quarantine until an operator accepts it"),
    )
    password_hash = models.CharField(_("password"), max_length=255, blank=True, editable=False)
    current = models.CharField(_("current"), max_length=2, choices=Current.choices, default=Current.AC)
    wiring = models.JSONField(
        _("wiring"),
        default=list,
        blank=True,
        validators=[validate_wiring],
        help_text=_("grid phase of each of the station's phases; empty means L1, L2, L3"),
    )
    max_a = models.FloatField(
        _("maximum current [A]"),
        default=32,
        validators=[MinValueValidator(0), MaxValueValidator(1000)],
        help_text=_("per EVSE and phase, at the AC input"),
    )
    min_a = models.FloatField(
        _("minimum current [A]"), default=6, validators=[MinValueValidator(0), MaxValueValidator(80)]
    )
    max_w = models.FloatField(_("maximum power [W]"), null=True, blank=True, validators=[MinValueValidator(0)])
    station_max_a = models.FloatField(
        _("station maximum [A]"),
        null=True,
        blank=True,
        help_text=_("for all its EVSEs together"),
        validators=[MinValueValidator(0)],
    )
    fail_safe_a = models.FloatField(
        _("fail-safe current [A]"),
        default=6,
        validators=[MinValueValidator(0), MaxValueValidator(1000)],
        help_text=_("what the station allows each EVSE when nobody tells it otherwise"),
    )
    priority = models.PositiveSmallIntegerField(
        _("priority of this place"),
        default=1,
        validators=[MaxValueValidator(10)],
        help_text=_("higher goes first"),
    )
    quiet = models.BooleanField(
        _("quiet"),
        default=False,
        help_text=_("nothing is sent to it unasked; for laboratories and conformance tests"),
    )
    protocol = models.CharField(_("protocol"), max_length=16, blank=True, help_text=_("of the newest connection"))
    vendor = models.CharField(_("vendor"), max_length=100, blank=True)
    model = models.CharField(_("model"), max_length=100, blank=True)
    serial_number = models.CharField(_("serial number"), max_length=100, blank=True)
    firmware_version = models.CharField(_("firmware"), max_length=100, blank=True)
    boot_at = models.DateTimeField(_("last boot"), null=True, blank=True)
    boot_reason = models.CharField(_("boot reason"), max_length=32, blank=True)
    last_seen = models.DateTimeField(_("last seen"), null=True, blank=True)
    address = models.CharField(_("address"), max_length=64, blank=True, help_text=_("of the newest connection"))
    capabilities = models.JSONField(
        _("capabilities"),
        default=dict,
        blank=True,
        help_text=_("learned or set: rate_unit, max_stack_level, purpose, phases …"),
    )
    counters = models.JSONField(_("repairs and refusals"), default=dict, blank=True)
    counted_at = models.JSONField(_("newest of each"), default=dict, blank=True, editable=False)
    history = HistoricalRecords(
        excluded_fields=["last_seen", "counters", "counted_at", "password_hash", "address", "boot_at", "boot_reason"]
    )

    class Meta:
        verbose_name = _("charging station")
        verbose_name_plural = _("charging stations")
        ordering = ["identity"]

    def __str__(self) -> str:
        return self.name or self.identity

    def set_password(self, password: str) -> None:
        """Keep only a hash. An empty password means none is asked (laboratory use)."""
        self.password_hash = make_password(password) if password else ""

    def password_is(self, password: str) -> bool:
        return not self.password_hash or check_password(password, self.password_hash)

    @property
    def most_w(self) -> float:
        """The most one EVSE of it can take, however its site is supplied."""
        return self.max_w or self.max_a * 230.0 * 3

    @property
    def phases(self) -> tuple[str, ...]:
        """The grid phases this station is wired to, in the order of its own L1, L2, L3."""
        return tuple(self.wiring) or PHASE_NAMES


def waiting_without_site(identity: str) -> ChargingStation | None:
    """The station of this identity that connected before anybody entered it: quarantined, and on no site yet."""
    return ChargingStation.objects.filter(
        identity=identity, site=None, admission=ChargingStation.Admission.QUARANTINED
    ).first()


class EVSE(models.Model):
    """One place to charge: at any time at most one of its connectors gives power (OCPP 2.0.1 part 1, §7)."""

    class Status(models.TextChoices):
        AVAILABLE = "Available", _("available")
        PREPARING = "Preparing", _("preparing")
        CHARGING = "Charging", _("charging")
        SUSPENDED_EV = "SuspendedEV", _("suspended by the car")
        SUSPENDED_EVSE = "SuspendedEVSE", _("suspended by the station")
        FINISHING = "Finishing", _("finishing")
        RESERVED = "Reserved", _("reserved")
        OCCUPIED = "Occupied", _("occupied")
        UNAVAILABLE = "Unavailable", _("unavailable")
        FAULTED = "Faulted", _("faulted")
        UNKNOWN = "Unknown", _("unknown")

    station = models.ForeignKey(ChargingStation, models.CASCADE, related_name="evses", verbose_name=_("station"))
    number = models.PositiveSmallIntegerField(_("number"), help_text=_("evseId in 2.0.1, connectorId in 1.6"))
    status = models.CharField(_("status"), max_length=16, choices=Status.choices, default=Status.UNKNOWN)
    status_at = models.DateTimeField(_("since"), null=True, blank=True)
    error_code = models.CharField(_("error"), max_length=64, blank=True)
    vendor_error_code = models.CharField(_("vendor error"), max_length=64, blank=True)
    charging_state = models.CharField(
        _("charging state"), max_length=16, blank=True, help_text=_("of the running transaction (OCPP 2.0.1)")
    )
    iec_state = models.CharField(
        _("IEC 61851 state"), max_length=2, blank=True, help_text=_("A1, B1, B2, C1, C2, E or F")
    )
    iec_source = models.CharField(_("source of the state"), max_length=8, default="derived")
    available = models.BooleanField(_("in service"), default=True, help_text=_("as the operator wants it"))

    class Meta:
        verbose_name = _("EVSE")
        verbose_name_plural = _("EVSEs")
        ordering = ["station", "number"]
        constraints = [models.UniqueConstraint(fields=["station", "number"], name="evse_number_once")]

    def __str__(self) -> str:
        return f"{self.station}/{self.number}"

    @property
    def max_a(self) -> float:
        return self.station.max_a


class Connector(models.Model):
    """A plug or socket of an EVSE, with its own status."""

    evse = models.ForeignKey(EVSE, models.CASCADE, related_name="connectors", verbose_name=_("EVSE"))
    number = models.PositiveSmallIntegerField(_("number"), default=1)
    type = models.CharField(_("type"), max_length=32, blank=True, help_text=_("cType2, sType2, cCCS2 …"))
    status = models.CharField(_("status"), max_length=16, choices=EVSE.Status.choices, default=EVSE.Status.UNKNOWN)
    status_at = models.DateTimeField(_("since"), null=True, blank=True)
    iec_state = models.CharField(_("IEC 61851 state"), max_length=2, blank=True)

    class Meta:
        verbose_name = _("connector")
        verbose_name_plural = _("connectors")
        constraints = [models.UniqueConstraint(fields=["evse", "number"], name="connector_number_once")]

    def __str__(self) -> str:
        return f"{self.evse}/{self.number}"


class IdToken(models.Model):
    """A card, key fob or account that may charge on a site. Compared without regard to case (2.0.1 part 2, IdToken)."""

    class Type(models.TextChoices):
        CENTRAL = "Central", "Central"
        EMAID = "eMAID", "eMAID"
        ISO14443 = "ISO14443", "ISO14443 (RFID)"
        ISO15693 = "ISO15693", "ISO15693 (RFID)"
        KEY_CODE = "KeyCode", "KeyCode"
        LOCAL = "Local", "Local"
        MAC = "MacAddress", "MacAddress"
        NONE = "NoAuthorization", "NoAuthorization"

    class Status(models.TextChoices):
        ACCEPTED = "accepted", _("accepted")
        BLOCKED = "blocked", _("blocked")
        EXPIRED = "expired", _("expired")
        INVALID = "invalid", _("invalid")

    site = models.ForeignKey(Site, models.CASCADE, related_name="id_tokens", verbose_name=_("site"))
    value = models.CharField(_("value"), max_length=36)
    type = models.CharField(_("type"), max_length=16, choices=Type.choices, default=Type.ISO14443)
    status = models.CharField(_("status"), max_length=16, choices=Status.choices, default=Status.ACCEPTED)
    expires_at = models.DateTimeField(_("expires"), null=True, blank=True)
    group = models.CharField(
        _("group"),
        max_length=36,
        blank=True,
        help_text=_("tokens of one group may stop each other's transactions"),
    )
    driver = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        models.SET_NULL,
        related_name="id_tokens",
        verbose_name=_("driver"),
        null=True,
        blank=True,
    )
    label = models.CharField(_("label"), max_length=100, blank=True)
    history = HistoricalRecords()

    class Meta:
        verbose_name = _("id token")
        verbose_name_plural = _("id tokens")
        ordering = ["site", "value"]
        constraints = [models.UniqueConstraint(models.F("site"), Upper("value"), name="token_once_per_site")]

    def __str__(self) -> str:
        return self.label or self.value

    def status_at(self, now: datetime) -> str:
        """The status that counts at `now`: an accepted token past its end is expired."""
        if self.status == self.Status.ACCEPTED and self.expires_at is not None and self.expires_at <= now:
            return self.Status.EXPIRED
        return self.status


class Transaction(models.Model):
    """One charge. Append-only events tell its story; this row is their sum. *Ended* is final."""

    transaction_id = models.CharField(_("transaction id"), max_length=64)
    station = models.ForeignKey(ChargingStation, models.PROTECT, related_name="transactions", verbose_name=_("station"))
    evse = models.ForeignKey(
        EVSE, models.PROTECT, related_name="transactions", verbose_name=_("EVSE"), null=True, blank=True
    )
    connector = models.PositiveSmallIntegerField(_("connector"), default=1)
    id_token = models.ForeignKey(
        IdToken,
        models.SET_NULL,
        related_name="transactions",
        verbose_name=_("id token"),
        null=True,
        blank=True,
    )
    id_token_value = models.CharField(_("token as presented"), max_length=64, blank=True)
    authorized = models.BooleanField(_("authorized"), default=True)
    started_at = models.DateTimeField(_("started"))
    ended_at = models.DateTimeField(_("ended"), null=True, blank=True)
    stop_reason = models.CharField(_("stop reason"), max_length=32, blank=True)
    charging_state = models.CharField(_("charging state"), max_length=16, blank=True)
    meter_start_wh = models.FloatField(_("register at start [Wh]"), null=True, blank=True)
    meter_last_wh = models.FloatField(_("newest register [Wh]"), null=True, blank=True)
    energy_wh = models.FloatField(_("energy [Wh]"), default=0)
    soc = models.FloatField(_("state of charge"), null=True, blank=True)
    last_event_at = models.DateTimeField(_("newest event"), null=True, blank=True)
    last_seq_no = models.IntegerField(_("newest sequence number"), null=True, blank=True)
    start_key = models.CharField(
        max_length=64,
        blank=True,
        editable=False,
        help_text=_("content of the start, to recognise a repeated one"),
    )
    remote_start_id = models.BigIntegerField(_("remote start id"), null=True, blank=True)
    flags = models.JSONField(_("flags"), default=list, blank=True, help_text=_("what was strange about it"))
    gaps = models.JSONField(
        _("missing events"), default=list, blank=True, help_text=_("sequence numbers not received, first and last")
    )
    charging_s = models.FloatField(_("charging time [s]"), default=0)
    idle_s = models.FloatField(_("idle time [s]"), default=0, help_text=_("full, and still there"))
    max_power_w = models.FloatField(_("highest power [W]"), null=True, blank=True)
    check_before_billing = models.BooleanField(_("to be checked before billing"), default=False)
    cost = models.DecimalField(_("cost"), max_digits=12, decimal_places=4, null=True, blank=True)
    currency = models.CharField(_("currency"), max_length=3, blank=True)
    cost_lines = models.JSONField(_("cost lines"), default=list, blank=True)
    tariff = models.JSONField(_("tariff as it was"), default=dict, blank=True)
    tally = models.JSONField(default=list, blank=True, editable=False, help_text=_("where the counting stands"))

    class Meta:
        verbose_name = _("transaction")
        verbose_name_plural = _("transactions")
        ordering = ["-started_at"]
        constraints = [
            models.UniqueConstraint(fields=["station", "transaction_id"], name="transaction_id_once"),
            models.UniqueConstraint(
                fields=["station", "start_key"], condition=~models.Q(start_key=""), name="start_recognised"
            ),
        ]
        indexes = [
            models.Index(fields=["station", "ended_at"]),
            models.Index(fields=["started_at"]),
            models.Index(fields=["evse", "started_at"]),
        ]

    def __str__(self) -> str:
        return f"{self.station} {self.transaction_id}"

    @property
    def open(self) -> bool:
        return self.ended_at is None


class TransactionEvent(AppendOnly):
    """One thing a station told about a transaction, kept for ever, never twice, never changed."""

    class Kind(models.TextChoices):
        STARTED = "started", _("started")
        UPDATED = "updated", _("updated")
        ENDED = "ended", _("ended")

    station = models.ForeignKey(ChargingStation, models.PROTECT, related_name="events", verbose_name=_("station"))
    transaction = models.ForeignKey(
        Transaction,
        models.PROTECT,
        related_name="events",
        verbose_name=_("transaction"),
        null=True,
        blank=True,
        help_text=_("empty: an orphan, kept until someone looks at it"),
    )
    kind = models.CharField(_("kind"), max_length=8, choices=Kind.choices)
    at = models.DateTimeField(_("at"))
    received_at = models.DateTimeField(_("received"))
    seq_no = models.IntegerField(_("sequence number"), null=True, blank=True)
    trigger = models.CharField(_("trigger"), max_length=32, blank=True)
    offline = models.BooleanField(_("offline"), default=False)
    told_at = models.CharField(_("time as told"), max_length=64, blank=True)
    correction = models.CharField(_("correction"), max_length=24, blank=True, help_text=_("of the time that was told"))
    register_wh = models.FloatField(_("register [Wh]"), null=True, blank=True)
    charging_state = models.CharField(_("charging state"), max_length=16, blank=True)
    stop_reason = models.CharField(_("stop reason"), max_length=32, blank=True)
    id_token_value = models.CharField(_("token as presented"), max_length=64, blank=True)
    verdict = models.CharField(_("verdict"), max_length=8, blank=True, help_text=_("on the token, at that moment"))
    content_key = models.CharField(max_length=64, editable=False)
    payload = models.JSONField(_("payload"), default=dict)

    class Meta:
        verbose_name = _("transaction event")
        verbose_name_plural = _("transaction events")
        ordering = ["at", "pk"]
        constraints = [models.UniqueConstraint(fields=["station", "content_key"], name="event_once")]

    def __str__(self) -> str:
        return f"{self.transaction} {self.kind}"


class MeterSample(models.Model):
    """One meter value of an EVSE, already in our units and on grid phases."""

    # Found by the indexes below; one more of each key would be written for every meter value and asked by nobody.
    evse = models.ForeignKey(EVSE, models.CASCADE, related_name="samples", verbose_name=_("EVSE"), db_index=False)
    transaction = models.ForeignKey(
        Transaction,
        models.CASCADE,
        related_name="samples",
        verbose_name=_("transaction"),
        null=True,
        blank=True,
        db_index=False,
    )
    at = models.DateTimeField(_("at"))
    power_w = models.FloatField(_("power [W]"), null=True)
    energy_wh = models.FloatField(_("register [Wh]"), null=True)
    values = models.JSONField(_("values"), default=dict)

    class Meta:
        verbose_name = _("meter value")
        verbose_name_plural = _("meter values")
        indexes = [models.Index(fields=["evse", "at"]), models.Index(fields=["transaction", "at"])]

    def __str__(self) -> str:
        return f"{self.evse} {self.at:%Y-%m-%d %H:%M:%S}"


class StationVariable(models.Model):
    """A 2.0.1 variable, or a 1.6 configuration key (then `component` is empty and `variable` is the key)."""

    station = models.ForeignKey(ChargingStation, models.CASCADE, related_name="variables", verbose_name=_("station"))
    component = models.CharField(_("component"), max_length=64, blank=True)
    component_instance = models.CharField(_("component instance"), max_length=64, blank=True)
    evse_number = models.PositiveSmallIntegerField(_("EVSE"), default=0)
    connector_number = models.PositiveSmallIntegerField(_("connector"), default=0)
    variable = models.CharField(_("variable"), max_length=64)
    variable_instance = models.CharField(_("variable instance"), max_length=64, blank=True)
    attribute = models.CharField(_("attribute"), max_length=8, default="Actual")
    value = models.TextField(_("value"), blank=True)
    mutability = models.CharField(_("mutability"), max_length=16, blank=True)
    characteristics = models.JSONField(_("characteristics"), default=dict, blank=True)
    reported_at = models.DateTimeField(_("reported"))

    class Meta:
        verbose_name = _("variable")
        verbose_name_plural = _("variables")
        ordering = ["component", "variable"]
        constraints = [
            models.UniqueConstraint(
                fields=[
                    "station",
                    "component",
                    "component_instance",
                    "evse_number",
                    "connector_number",
                    "variable",
                    "variable_instance",
                    "attribute",
                ],
                name="variable_once",
            )
        ]

    def __str__(self) -> str:
        return f"{self.component}.{self.variable}" if self.component else self.variable


class WantedLimit(models.Model):
    """The limit we want on an EVSE, and how far the station has followed. One row per EVSE; the newest wins."""

    class State(models.TextChoices):
        WANTED = "wanted", _("wanted")
        SENT = "sent", _("sent")
        ACCEPTED = "accepted", _("accepted")
        SCHEDULED = "scheduled", _("scheduled")
        MEASURED = "measured", _("measured")
        NOT_FOLLOWED = "not_followed", _("not followed")
        REFUSED = "refused", _("refused")
        FAILED = "failed", _("no answer")

    class Resume(models.TextChoices):
        TRYING = "trying", _("the station is asked again")
        ASLEEP = "asleep", _("the car sleeps")
        UNPLUG = "unplug", _("the car must be plugged in again")

    evse = models.OneToOneField(EVSE, models.CASCADE, related_name="wanted_limit", verbose_name=_("EVSE"))
    wanted_a = models.FloatField(_("wanted [A]"), null=True, blank=True)
    wanted_w = models.FloatField(_("wanted [W]"), null=True, blank=True)
    reason = models.CharField(_("reason"), max_length=200, blank=True)
    wanted_at = models.DateTimeField(_("wanted at"), null=True, blank=True)
    accepted_a = models.FloatField(_("accepted [A]"), null=True, blank=True)
    accepted_w = models.FloatField(_("accepted [W]"), null=True, blank=True)
    accepted_at = models.DateTimeField(_("accepted at"), null=True, blank=True)
    lease_until = models.DateTimeField(_("lease until"), null=True, blank=True)
    state = models.CharField(_("state"), max_length=16, choices=State.choices, default=State.WANTED)
    detail = models.CharField(_("detail"), max_length=255, blank=True)
    means = models.CharField(_("told by"), max_length=64, blank=True, help_text=_("profile, unit and kind"))
    asked = models.JSONField(
        _("asked by"), default=list, blank=True, help_text=_("who wants what now; the lowest counts")
    )
    measured_a = models.FloatField(_("measured [A]"), null=True, blank=True)
    measured_at = models.DateTimeField(_("measured at"), null=True, blank=True)
    resume = models.CharField(
        _("after a pause"),
        max_length=8,
        choices=Resume.choices,
        blank=True,
        help_text=_("what becomes of going on after a pause"),
    )
    isolated_at = models.DateTimeField(
        _("isolated since"), null=True, blank=True, help_text=_("it does not follow and counts with its maximum")
    )

    class Meta:
        verbose_name = _("wanted limit")
        verbose_name_plural = _("wanted limits")

    def __str__(self) -> str:
        return f"{self.evse}: {self.wanted_a} A ({self.reason})"


class OcppMessage(models.Model):
    """One frame, as it passed the socket. Secrets are blanked before it is kept."""

    class Direction(models.TextChoices):
        IN = "in", _("from the station")
        OUT = "out", _("to the station")

    class Kind(models.TextChoices):
        CALL = "call", _("call")
        RESULT = "result", _("result")
        ERROR = "error", _("error")

    station = models.ForeignKey(
        ChargingStation, models.CASCADE, related_name="messages", verbose_name=_("station"), db_index=False
    )  # found by the index below
    at = models.DateTimeField(_("at"))
    direction = models.CharField(_("direction"), max_length=3, choices=Direction.choices)
    kind = models.CharField(_("kind"), max_length=6, choices=Kind.choices)
    message_id = models.CharField(_("message id"), max_length=64, blank=True)
    action = models.CharField(_("action"), max_length=64, blank=True)
    payload = models.JSONField(_("payload"), default=dict, null=True)
    raw = models.TextField(_("frame"), blank=True)
    repairs = models.CharField(_("repairs"), max_length=200, blank=True, help_text=_("what was mended on the way in"))

    class Meta:
        verbose_name = _("OCPP message")
        verbose_name_plural = _("OCPP messages")
        ordering = ["-at", "-pk"]
        indexes = [models.Index(fields=["station", "-at"])]

    def __str__(self) -> str:
        return f"{self.station} {self.direction} {self.action}"


import csms.billing_models  # noqa: E402
import csms.ledger_models  # noqa: E402
import csms.obedience_models  # noqa: E402
import csms.reported_models  # noqa: E402
import csms.security_models  # noqa: E402
import csms.workflow_models  # noqa: E402, F401 - Django finds the records of a room through this module

"""The operator's office for what happened: transactions, their events and samples, and every frame."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

from django import forms
from django.contrib import admin, messages
from django.db.models import Q, QuerySet
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404
from django.urls import reverse
from django.utils import timezone
from django.utils.html import format_html_join
from django.utils.translation import gettext_lazy as _
from import_export.admin import ExportMixin
from unfold.contrib.import_export.forms import ExportForm
from unfold.forms import BaseDialogForm
from unfold.widgets import UnfoldAdminSelectWidget, UnfoldAdminTextInputWidget

from csms import calls, pricing
from csms.admin_asking import ask
from csms.admin_dialogs import StopForm
from csms.ledger import recount
from csms.ledger_export import FORMATS, TransactionResource, stretches
from csms.ledger_models import SignedMeterValue, UnmatchedEnd
from csms.models import MeterSample, OcppMessage, Transaction, TransactionEvent
from csms.oddities import in_words
from csms.settling import CannotSettle, attach, candidates, dismiss
from meters.site_admin import LedgerAdmin, OfMySites, SiteNarrowedInline, column, daily, pretty

_LINES = {
    pricing.ENERGY: _("energy"),
    pricing.START: _("start fee"),
    pricing.IDLE: _("idle fee"),
    pricing.MINIMUM: _("minimum"),
    pricing.VAT: _("VAT"),
}


class OpenNow(admin.SimpleListFilter):
    """Running, or ended."""

    title = _("open")
    parameter_name = "open"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, Any]]:
        return [("yes", _("running")), ("no", _("ended"))]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        if self.value() in ("yes", "no"):
            return queryset.filter(ended_at__isnull=self.value() == "yes")
        return queryset


class Flagged(admin.SimpleListFilter):
    """Those with something strange about them."""

    title = _("oddities")
    parameter_name = "odd"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, Any]]:
        return [("yes", _("with something strange")), ("gaps", _("with missing events"))]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        if self.value() == "yes":
            return queryset.exclude(flags=[])
        return queryset.exclude(gaps=[]) if self.value() == "gaps" else queryset


class EventInline(SiteNarrowedInline):
    model = TransactionEvent
    site_path = "station__site"
    add_role = change_role = delete_role = "nobody"
    fields = ("kind", "at", "received_at", "told_at", "correction", "seq_no", "trigger", "register_wh", "offline")
    readonly_fields = fields
    show_change_link = True
    per_page = 20


@admin.register(Transaction)
class TransactionAdmin(ExportMixin, LedgerAdmin):
    site_path = "station__site"
    resource_classes = [TransactionResource]
    export_form_class = ExportForm
    list_display = (
        *("transaction_id", "station", "place", "token", "started_at", "ended_at", "energy", "price", "stop_reason"),
        "odd",
    )
    list_filter = (
        *(OpenNow, ("station__site", OfMySites), ("station", OfMySites), "authorized", "check_before_billing"),
        *(Flagged, "stop_reason"),
    )
    list_select_related = ("station__site", "evse", "id_token")
    search_fields = ("transaction_id", "station__identity", "id_token_value", "id_token__label")
    ordering = ("-started_at", "-pk")
    inlines = (EventInline,)
    actions_detail = ("remote_stop", "count_again")
    fieldsets = (
        (None, {"fields": ("transaction_id", "station", "evse", "connector", "id_token", "id_token_value")}),
        (None, {"fields": ("authorized", "started_at", "ended_at", "stop_reason", "charging_state", "last_event_at")}),
        (
            _("energy"),
            {
                "fields": (
                    "energy",
                    "meter_start_wh",
                    "meter_last_wh",
                    "max_power_w",
                    "soc",
                    "charging_time",
                    "idle_time",
                )
            },
        ),
        (_("cost"), {"fields": ("price", "lines", "priced_by", "check_before_billing")}),
        (_("what was strange"), {"fields": ("strange", "missing", "last_seq_no", "remote_start_id")}),
    )

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        return [name for _title, options in self.fieldsets for name in options["fields"]]

    @column(_("EVSE"))
    def place(self, transaction: Transaction) -> str:
        return "–" if transaction.evse is None else str(transaction.evse.number)

    @column(_("id token"))
    def token(self, transaction: Transaction) -> str:
        return str(transaction.id_token) if transaction.id_token else transaction.id_token_value or "–"

    @column(_("energy [kWh]"), ordering="energy_wh")
    def energy(self, transaction: Transaction) -> str:
        return f"{transaction.energy_wh / 1000:.2f}"

    @column(_("cost"), ordering="cost")
    def price(self, transaction: Transaction) -> str:
        return "–" if transaction.cost is None else f"{transaction.cost:.2f} {transaction.currency}"

    @column(_("odd"))
    def odd(self, transaction: Transaction) -> str:
        found = [*transaction.flags, *(["…"] if transaction.gaps else [])]
        return str(len(found)) if found else "–"

    @column(_("charging time"))
    def charging_time(self, transaction: Transaction) -> str:
        return _clock(transaction.charging_s)

    @column(_("idle time"))
    def idle_time(self, transaction: Transaction) -> str:
        return _clock(transaction.idle_s)

    @column(_("cost lines"))
    def lines(self, transaction: Transaction) -> Any:
        rows = [
            (
                _LINES.get(line["kind"], line["kind"]),
                f"{line['quantity']:g} {line['unit']}",
                f"{line['unit_price']:.4f}",
                f"{line['amount']:.2f}",
            )
            for line in transaction.cost_lines
        ]
        return format_html_join("", "<div>{}: {} × {} = {}</div>", rows) if rows else "–"

    @column(_("tariff as it was"))
    def priced_by(self, transaction: Transaction) -> Any:
        return pretty(transaction.tariff["terms"]) if transaction.tariff else "–"

    @column(_("what was strange"))
    def strange(self, transaction: Transaction) -> Any:
        rows = [(words,) for words in in_words(transaction.flags)]
        return format_html_join("", "<div>{}</div>", rows) if rows else "–"

    @column(_("missing events"))
    def missing(self, transaction: Transaction) -> str:
        return stretches(transaction.gaps) or "–"

    def idle_actions(self, record: Transaction) -> set[str]:
        return set() if record.open else {"remote_stop"}

    def has_export_permission(self, request: HttpRequest) -> bool:
        return self.has_view_permission(request)

    def get_export_formats(self) -> list[Any]:
        return FORMATS

    @daily(_("Stop the charge"), form=StopForm, icon="stop", danger=True, submit=_("Stop"))
    def remote_stop(self, request: HttpRequest, form: StopForm, object_id: str) -> HttpResponse:
        charge = get_object_or_404(self.get_queryset(request), pk=object_id)
        if charge.ended_at is not None:
            self.message_user(request, _("This charge has already ended."))
        else:
            ask(request, charge.station, lambda: calls.remote_stop(charge))
        return self.message_and_return(request, reverse("admin:csms_transaction_change", args=[object_id]))

    @daily(
        _("Count again"),
        icon="calculate",
        explained=_("From the events and meter values that are kept; after the station's maximum was mended, say."),
    )
    def count_again(self, request: HttpRequest, form: BaseDialogForm, object_id: str) -> HttpResponse:
        charge = get_object_or_404(self.get_queryset(request), pk=object_id)
        recount([charge.pk])
        self.message_user(request, _("Counted again."), messages.SUCCESS)
        return self.message_and_return(request, reverse("admin:csms_transaction_change", args=[object_id]))


def _clock(seconds: float) -> str:
    """Hours and minutes."""
    return f"{int(seconds // 3600)}:{int(seconds % 3600 // 60):02}"


@admin.register(TransactionEvent)
class TransactionEventAdmin(LedgerAdmin):
    site_path = "station__site"
    list_display = ("transaction", "station", "kind", "at", "received_at", "correction", "seq_no", "trigger", "offline")
    list_filter = (("station", OfMySites), "kind", "offline", "correction")
    list_select_related = ("transaction__station", "station")
    search_fields = ("transaction__transaction_id", "station__identity")
    ordering = ("-at", "-pk")
    exclude = ("payload",)

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        names = super().get_readonly_fields(request, obj)
        return [*(n for n in names if n != "payload"), "shown"]

    @column(_("payload"))
    def shown(self, event: TransactionEvent) -> Any:
        return pretty(event.payload)


class AttachForm(BaseDialogForm):
    """To which charge an end belongs."""

    charge = forms.ModelChoiceField(Transaction.objects.none(), label=_("charge"), widget=UnfoldAdminSelectWidget)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        end = UnmatchedEnd.objects.filter(pk=self.object_id).first()
        field: Any = self.fields["charge"]
        field.queryset = Transaction.objects.filter(pk__in=[t.pk for t in candidates(end)] if end is not None else [])
        field.label_from_instance = _charge_in_words


def _charge_in_words(charge: Transaction) -> str:
    register = "?" if charge.meter_start_wh is None else f"{charge.meter_start_wh / 1000:.3f} kWh"
    began = timezone.localtime(charge.started_at)
    return f"{charge.transaction_id} · {began:%Y-%m-%d %H:%M} · {charge.id_token_value or '–'} · {register}"


class DismissForm(BaseDialogForm):
    reason = forms.CharField(label=_("reason"), max_length=200, widget=UnfoldAdminTextInputWidget)


@admin.register(UnmatchedEnd)
class UnmatchedEndAdmin(LedgerAdmin):
    """Ends that name no start we know. Nothing is guessed: a person attaches them, or says that they are nothing."""

    site_path = "station__site"
    list_display = ("station", "at", "register", "id_token_value", "told_id", "stop_reason", "standing", "transaction")
    list_display_links = ("station", "at")
    list_filter = ("state", ("station__site", OfMySites), ("station", OfMySites))
    list_select_related = ("station", "transaction__station")
    search_fields = ("station__identity", "id_token_value", "told_id")
    fields = (
        *("station", "at", "received_at", "register", "id_token_value", "told_id", "stop_reason", "standing"),
        *("transaction", "reason", "settled_by", "settled_at", "told"),
    )
    actions_detail = ("attach", "dismiss")

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        return self.fields

    @column(_("register [kWh]"), ordering="register_wh")
    def register(self, end: UnmatchedEnd) -> str:
        return "–" if end.register_wh is None else f"{end.register_wh / 1000:.3f}"

    @column(
        _("state"),
        label={"waiting": "warning", "matched": "success", "attached": "success", "dismissed": "info"},
        ordering="state",
    )
    def standing(self, end: UnmatchedEnd) -> tuple[str, Any]:
        return end.state, end.get_state_display()

    @column(_("as told"))
    def told(self, end: UnmatchedEnd) -> Any:
        return pretty(end.event.payload)

    def idle_actions(self, record: UnmatchedEnd) -> set[str]:
        return set() if record.state == UnmatchedEnd.State.WAITING else {"attach", "dismiss"}

    @daily(_("Attach to a charge"), form=AttachForm, icon="link", submit=_("Attach"))
    def attach(self, request: HttpRequest, form: AttachForm, object_id: str) -> HttpResponse:
        end = get_object_or_404(self.get_queryset(request), pk=object_id)
        return self._settled(request, end, lambda: attach(end, form.cleaned_data["charge"], _who(request), _now()))

    @daily(_("Dismiss"), form=DismissForm, icon="block", submit=_("Dismiss"))
    def dismiss(self, request: HttpRequest, form: DismissForm, object_id: str) -> HttpResponse:
        end = get_object_or_404(self.get_queryset(request), pk=object_id)
        return self._settled(request, end, lambda: dismiss(end, form.cleaned_data["reason"], _who(request), _now()))

    def _settled(self, request: HttpRequest, end: UnmatchedEnd, verb: Callable[[], None]) -> HttpResponse:
        try:
            verb()
        except CannotSettle as error:
            self.message_user(request, str(error), messages.ERROR)
        else:
            self.message_user(request, _("Settled."), messages.SUCCESS)
        return self.message_and_return(request, reverse("admin:csms_unmatchedend_change", args=[end.pk]))


def _who(request: HttpRequest) -> Any:
    return request.user


def _now() -> datetime:
    return timezone.now()


@admin.register(SignedMeterValue)
class SignedMeterValueAdmin(LedgerAdmin):
    site_path = "station__site"
    list_display = ("station", "evse_number", "at", "context", "transaction")
    list_filter = (("station", OfMySites), "context")
    list_select_related = ("station", "transaction__station")
    search_fields = ("station__identity", "transaction__transaction_id")
    fields = ("station", "evse_number", "transaction", "at", "context", "shown")

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        return self.fields

    @column(_("as told"))
    def shown(self, value: SignedMeterValue) -> Any:
        return pretty(value.told)


@admin.register(MeterSample)
class MeterSampleAdmin(LedgerAdmin):
    site_path = "evse__station__site"
    list_display = ("evse", "at", "power_w", "energy_wh", "transaction")
    list_filter = (("evse__station", OfMySites),)
    list_select_related = ("evse__station", "transaction__station")
    ordering = ("-pk",)
    exclude = ("values",)

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        return ("evse", "transaction", "at", "power_w", "energy_wh", "shown")

    @column(_("values"))
    def shown(self, sample: MeterSample) -> Any:
        return pretty(sample.values)


@admin.register(OcppMessage)
class OcppMessageAdmin(LedgerAdmin):
    """The raw log: what passed each socket, with secrets blanked before it was kept."""

    site_path = "station__site"
    list_display = ("at", "station", "way", "kind", "action", "message_id", "repairs")
    list_filter = (("station", OfMySites), "direction", "kind", "action")
    list_select_related = ("station",)
    search_fields = ("message_id", "action", "station__identity")
    ordering = ("-at", "-pk")
    fields = ("station", "at", "direction", "kind", "action", "message_id", "repairs", "shown", "raw")

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        return self.fields

    def get_search_results(self, request: HttpRequest, queryset: QuerySet[Any], search_term: str) -> Any:
        """A message id finds the call and its answer; anything else finds actions and stations."""
        exact = queryset.filter(message_id=search_term) if search_term else queryset
        if search_term and exact.exists():
            return exact, False
        if search_term:
            wanted = Q(action__icontains=search_term) | Q(station__identity__icontains=search_term)
            return queryset.filter(wanted), False
        return queryset, False

    @column(_("direction"), label={"in": "info", "out": "success"})
    def way(self, message: OcppMessage) -> tuple[str, Any]:
        return message.direction, message.get_direction_display()

    @column(_("payload"))
    def shown(self, message: OcppMessage) -> Any:
        return pretty(message.payload)

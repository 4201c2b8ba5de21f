"""The operator's office for what happened: transactions, their events and samples, and every frame."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.db.models import Q, QuerySet
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404
from django.urls import reverse
from django.utils.translation import gettext_lazy as _

from csms import calls
from csms.admin_asking import ask
from csms.admin_dialogs import StopForm
from csms.models import MeterSample, OcppMessage, Transaction, TransactionEvent
from meters.site_admin import LedgerAdmin, OfMySites, SiteNarrowedInline, column, daily, pretty


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


class EventInline(SiteNarrowedInline):
    model = TransactionEvent
    site_path = "station__site"
    add_role = change_role = delete_role = "nobody"
    fields = ("kind", "at", "received_at", "seq_no", "trigger", "offline")
    readonly_fields = fields
    show_change_link = True
    per_page = 20


@admin.register(Transaction)
class TransactionAdmin(LedgerAdmin):
    site_path = "station__site"
    list_display = ("transaction_id", "station", "place", "token", "started_at", "ended_at", "energy", "stop_reason")
    list_filter = (OpenNow, ("station__site", OfMySites), ("station", OfMySites), "authorized", "stop_reason")
    list_select_related = ("station", "evse", "id_token")
    search_fields = ("transaction_id", "station__identity", "id_token_value", "id_token__label")
    ordering = ("-started_at", "-pk")
    inlines = (EventInline,)
    actions_detail = ("remote_stop",)

    @column(_("EVSE"))
    def place(self, transaction: Transaction) -> str:
        return "–" if transaction.evse is None else str(transaction.evse.number)

    @column(_("id token"))
    def token(self, transaction: Transaction) -> str:
        return str(transaction.id_token) if transaction.id_token else transaction.id_token_value or "–"

    @column(_("energy [kWh]"), ordering="energy_wh")
    def energy(self, transaction: Transaction) -> str:
        return f"{transaction.energy_wh / 1000:.2f}"

    def idle_actions(self, record: Transaction) -> set[str]:
        return set() if record.open else {"remote_stop"}

    @daily(_("Stop the charge"), form=StopForm, icon="stop", danger=True, submit=_("Stop"))
    def remote_stop(self, request: HttpRequest, form: StopForm, object_id: str) -> HttpResponse:
        charge = get_object_or_404(self.get_queryset(request), pk=object_id)
        if charge.ended_at is not None:
            self.message_user(request, _("This charge has already ended."))
        else:
            ask(request, charge.station, lambda: calls.remote_stop(charge))
        return self.message_and_return(request, reverse("admin:csms_transaction_change", args=[object_id]))


@admin.register(TransactionEvent)
class TransactionEventAdmin(LedgerAdmin):
    site_path = "station__site"
    list_display = ("transaction", "station", "kind", "at", "received_at", "seq_no", "trigger", "offline")
    list_filter = (("station", OfMySites), "kind", "offline")
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

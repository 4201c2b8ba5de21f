"""The operator's office for what stations report: reports, monitors and events, limits of others, needs of cars."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.db.models import Q, QuerySet
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404
from django.urls import reverse
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from csms import inspection, reports
from csms.admin_asking import ask
from csms.reported_models import ChargingNeeds, ExternalLimit, MonitoringEvent, StationReport, VariableMonitor
from meters.access import sites_of
from meters.site_admin import OPERATOR, LedgerAdmin, OfMySites, column, daily, pretty

_STATES = {"complete": _("complete"), "coming": _("coming"), "incomplete": _("incomplete")}


@admin.register(StationReport)
class StationReportAdmin(LedgerAdmin):
    """What is told of a customer is for operators only, and they may delete it."""

    site_path = "station__site"
    delete_role = OPERATOR
    list_display = ("station", "kind", "started_at", "part_count", "state")
    list_filter = (("station", OfMySites), "kind")
    list_select_related = ("station",)
    search_fields = ("station__identity", "station__name", "request_id")
    ordering = ("-started_at", "-pk")
    fields = ("station", "kind", "state", "started_at", "updated_at", "part_count", "request_id", "content")

    def get_queryset(self, request: HttpRequest) -> QuerySet[StationReport]:
        found: QuerySet[StationReport] = super().get_queryset(request)
        if request.user.is_superuser:
            return found
        mine = Q(station__site__in=sites_of(request.user, OPERATOR))
        return found.filter(mine | ~Q(kind=StationReport.Kind.CUSTOMER))

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        return self.fields

    @column(_("state"), label={"complete": "success", "coming": "info", "incomplete": "warning"})
    def state(self, report: StationReport) -> tuple[str, Any]:
        state = report.state_at(timezone.now())
        return state, _STATES[state]

    @column(_("content"))
    def content(self, report: StationReport) -> Any:
        told = reports.content(report)
        if report.kind == StationReport.Kind.CUSTOMER:
            return pretty("".join(str(item) for item in told.items))
        return pretty(told.items) if told.items else "–"


@admin.register(MonitoringEvent)
class MonitoringEventAdmin(LedgerAdmin):
    site_path = "station__site"
    list_display = ("at", "station", "grade", "variable_of", "value", "cleared", "trigger", "tech_code", "tech_info")
    list_filter = (("station", OfMySites), "severity", "cleared", "trigger", "component")
    list_select_related = ("station",)
    search_fields = ("station__identity", "component", "variable", "tech_code", "tech_info")
    ordering = ("-at", "-pk")

    @column(
        _("severity"),
        ordering="severity",
        label={"grave": "danger", "warning": "warning", "plain": "info", "unknown": "info"},
    )
    def grade(self, event: MonitoringEvent) -> tuple[str, Any]:
        if event.severity is None:
            return "unknown", _("unknown")
        grade = "grave" if event.severity <= MonitoringEvent.Severity.ERROR else "plain"
        if MonitoringEvent.Severity.ALERT <= event.severity <= MonitoringEvent.Severity.WARNING:
            grade = "warning"
        return grade, MonitoringEvent.Severity(event.severity).label

    @column(_("variable"), ordering="variable")
    def variable_of(self, event: MonitoringEvent) -> str:
        return event.place


@admin.register(VariableMonitor)
class VariableMonitorAdmin(LedgerAdmin):
    site_path = "station__site"
    list_display = ("station", "number", "variable_of", "type", "value", "severity", "reported_at")
    list_filter = (("station", OfMySites), "severity", "type")
    list_select_related = ("station",)
    search_fields = ("station__identity", "component", "variable")
    actions_detail = ("take_away",)

    @column(_("variable"), ordering="variable")
    def variable_of(self, monitor: VariableMonitor) -> str:
        return monitor.place

    @daily(_("Take the monitor away"), icon="visibility_off", permission="install", danger=True)
    def take_away(self, request: HttpRequest, form: Any, object_id: str) -> HttpResponse:
        monitor = get_object_or_404(self.get_queryset(request), pk=object_id)
        ask(request, monitor.station, lambda: inspection.clear_monitors(monitor.station, [monitor.number]))
        return self.message_and_return(request, reverse("admin:csms_variablemonitor_changelist"))


@admin.register(ExternalLimit)
class ExternalLimitAdmin(LedgerAdmin):
    site_path = "station__site"
    list_display = ("station", "where", "source", "limit", "grid_critical", "told_at")
    list_filter = (("station", OfMySites), "source", "grid_critical")
    list_select_related = ("station",)
    search_fields = ("station__identity",)
    exclude = ("schedules",)

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        return [*(n for n in super().get_readonly_fields(request, obj) if n != "schedules"), "shown"]

    @column(_("EVSE"), ordering="evse_number")
    def where(self, limit: ExternalLimit) -> Any:
        return limit.evse_number or _("all")

    @column(_("limit"))
    def limit(self, limit: ExternalLimit) -> str:
        first = limit.schedules[0] if limit.schedules else {}
        periods = first.get("periods") or []
        more = " …" if len(periods) > 1 or len(limit.schedules) > 1 else ""
        return f"{periods[0].get('limit'):g} {first.get('unit', '')}{more}" if periods else "–"

    @column(_("schedules"))
    def shown(self, limit: ExternalLimit) -> Any:
        return pretty(limit.schedules)


@admin.register(ChargingNeeds)
class ChargingNeedsAdmin(LedgerAdmin):
    site_path = "evse__station__site"
    list_display = ("evse", "transaction", "told_at", "departure", "energy", "charge", "most", "schedule_fits")
    list_filter = (("evse__station", OfMySites), "schedule_fits")
    list_select_related = ("evse__station", "transaction__station")
    search_fields = ("evse__station__identity", "transaction__transaction_id")
    ordering = ("-told_at", "-pk")
    exclude = ("schedule",)

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        return [*(n for n in super().get_readonly_fields(request, obj) if n != "schedule"), "shown"]

    @column(_("energy [kWh]"), ordering="energy_wh")
    def energy(self, needs: ChargingNeeds) -> str:
        return "–" if needs.energy_wh is None else f"{needs.energy_wh / 1000:.1f}"

    @column(_("state of charge [%]"), ordering="soc")
    def charge(self, needs: ChargingNeeds) -> str:
        return "–" if needs.soc is None else f"{needs.soc * 100:.0f}"

    @column(_("takes at most"))
    def most(self, needs: ChargingNeeds) -> str:
        if needs.max_w is not None:
            return f"{needs.max_w / 1000:g} kW"
        return "–" if needs.max_a is None else f"{needs.max_a:g} A"

    @column(_("the car's own schedule"))
    def shown(self, needs: ChargingNeeds) -> Any:
        return pretty(needs.schedule) if needs.schedule else "–"

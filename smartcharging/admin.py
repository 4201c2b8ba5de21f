"""The operator's office for circuits, goals, plans, prices and the grid; and what this room adds to the pages below:
the user profile of an id token, the re-plan of a site.
"""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import admin, messages
from django.core.exceptions import ValidationError
from django.db import transaction
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404
from django.urls import reverse
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _
from unfold.forms import BaseDialogForm
from unfold.widgets import UnfoldAdminSelectWidget

from csms.drivers import drivers_for
from csms.models import ChargingStation, IdToken
from csms.station_admin import hints as station_hints
from meters.access import sites_of
from meters.admin import SiteAdmin
from meters.models import Site
from meters.site_admin import (
    NOBODY,
    OPERATOR,
    LedgerAdmin,
    OfMySites,
    OneSiteForm,
    SiteNarrowedAdmin,
    SiteNarrowedInline,
    choices_for,
    column,
    daily,
    pretty,
)
from smartcharging import grid_commands, wake
from smartcharging.goals import GoalError, cancel_goal, change_goal, set_goal
from smartcharging.grid_commands import GridCommandError
from smartcharging.models import (
    AllocationRecord,
    ChargingGoal,
    Circuit,
    Feed,
    Forecast,
    GridCommand,
    MonthPeak,
    Plan,
    Price,
    SiteQuarter,
    Tariff,
    UserProfile,
    Vehicle,
)
from smartcharging.token_admin import ProfiledTokenAdmin


class FeedInline(SiteNarrowedInline):
    model = Feed
    site_path = "circuit__site"
    autocomplete_fields = ("evse", "device")


def no_circuit(station: ChargingStation) -> str | None:
    """An EVSE that hangs on no circuit gets no current from the plan, and nobody counts what it takes."""
    if station.site_id is None or station.evses.filter(feed__isnull=False).exists():
        return None
    return gettext("It hangs on no circuit yet. Add its EVSEs to one, so that its current is shared.")


station_hints.append(no_circuit)


@admin.register(Circuit)
class CircuitAdmin(SiteNarrowedAdmin):
    list_display = ("name", "site", "parent", "limit", "limit_w", "margin_a", "meter", "fallback_a")
    list_filter = (("site", OfMySites),)
    list_select_related = ("site", "parent", "meter")
    search_fields = ("name", "site__name")
    inlines = (FeedInline,)

    @column(_("limit L1 / L2 / L3 [A]"))
    def limit(self, circuit: Circuit) -> str:
        phases = circuit.limit_a if isinstance(circuit.limit_a, list) else []
        return " / ".join(f"{a:g}" for a in phases)

    def save_model(self, request: HttpRequest, obj: Circuit, form: Any, change: bool) -> None:
        super().save_model(request, obj, form, change)
        ring(obj.site_id, "circuit changed")


@admin.register(Feed)
class FeedAdmin(SiteNarrowedAdmin):
    site_path = "circuit__site"
    list_display = ("circuit", "evse", "device")
    list_filter = (("circuit__site", OfMySites), ("circuit", OfMySites))
    list_select_related = ("circuit", "evse__station", "device")
    autocomplete_fields = ("circuit", "evse", "device")
    search_fields = ("circuit__name", "evse__station__identity", "device__name")


@admin.register(UserProfile)
class UserProfileAdmin(SiteNarrowedAdmin):
    add_role = change_role = delete_role = OPERATOR
    list_display = ("name", "site", "priority", "mode", "departure", "energy")
    list_filter = (("site", OfMySites), "mode")
    list_select_related = ("site",)
    search_fields = ("name",)

    @column(_("energy [kWh]"), ordering="energy_wh")
    def energy(self, profile: UserProfile) -> str:
        return kwh(profile.energy_wh)


@admin.register(Vehicle)
class VehicleAdmin(SiteNarrowedAdmin):
    add_role = change_role = delete_role = OPERATOR
    list_display = ("name", "site", "driver", "id_token", "battery", "consumption_wh_per_km", "phases", "max_a")
    list_filter = (("site", OfMySites), "phases")
    list_select_related = ("site", "driver", "id_token")
    search_fields = ("name", "driver__username")
    autocomplete_fields = ("id_token",)

    def people(self, request: HttpRequest) -> Any:
        return drivers_for(request.user)

    @column(_("battery [kWh]"), ordering="battery_wh")
    def battery(self, vehicle: Vehicle) -> str:
        return kwh(vehicle.battery_wh)


class GoalForm(OneSiteForm):
    """A wish, tried out before it is kept: what `set_goal` refuses stands at its field."""

    class Meta:
        model = ChargingGoal
        fields = ("site", "asked_for", "evse", "id_token", "departure", "energy_wh", "range_km", "priority", "mode")

    def _post_clean(self) -> None:
        super()._post_clean()
        if self.errors:
            return
        try:
            with transaction.atomic():
                self.keep(None)
                transaction.set_rollback(True)
        except GoalError as error:
            name = {"transaction": "asked_for"}.get(error.field, error.field)
            self.add_error(name if name in self.fields else None, ValidationError(error.message))

    def keep(self, user: Any) -> ChargingGoal:
        """Set or change the goal as the form says."""
        said = self.cleaned_data
        names = ("departure", "energy_wh", "range_km", "priority", "mode")
        wish: dict[str, Any] = {name: said.get(name) for name in names}
        if self.instance.pk:
            changes = {name: value for name, value in wish.items() if name in self.changed_data}
            return change_goal(ChargingGoal.objects.get(pk=self.instance.pk), user=user, **changes)
        return set_goal(
            site=said["site"],
            transaction=said.get("asked_for"),
            evse=said.get("evse"),
            id_token=said.get("id_token"),
            source=ChargingGoal.Source.SCHEDULE,
            user=user,
            **wish,
        )


@admin.register(ChargingGoal)
class ChargingGoalAdmin(SiteNarrowedAdmin):
    form = GoalForm
    add_role = change_role = OPERATOR
    delete_role = NOBODY
    list_display = (
        "for_whom",
        "site",
        "source",
        "departure",
        "energy",
        "promised",
        "promise_reason",
        "priority",
        "mode",
        "stands",
    )
    list_filter = (("site", OfMySites), "source", "mode", ("cancelled_at", admin.EmptyFieldListFilter))
    list_select_related = ("site", "transaction__station", "asked_for__station", "evse__station", "id_token")
    search_fields = ("external_id", "id_token__value", "id_token__label", "evse__station__identity")
    autocomplete_fields = ("evse", "id_token", "asked_for")
    actions_detail = ("cancel",)
    fieldsets = (
        (_("for whom"), {"fields": ("site", "asked_for", "evse", "id_token")}),
        (_("what"), {"fields": ("departure", "energy_wh", "range_km", "priority", "mode")}),
        (_("promise"), {"fields": ("promised", "promise_reason", "source", "external_id", "cancelled_at")}),
    )
    readonly_fields = ("promised", "promise_reason", "source", "external_id", "cancelled_at")

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        whom = ("site", "asked_for", "evse", "id_token") if obj is not None else ()
        return (*self.readonly_fields, *whom)

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """A cancelled goal is history."""
        if isinstance(obj, ChargingGoal) and obj.cancelled_at is not None:
            return False
        return super().has_change_permission(request, obj)

    def formfield_for_foreignkey(self, db_field: Any, request: HttpRequest, **kwargs: Any) -> Any:
        field = super().formfield_for_foreignkey(db_field, request, **kwargs)
        if db_field.name == "asked_for" and field is not None:
            field.queryset = field.queryset.filter(ended_at=None)
        return field

    def save_model(self, request: HttpRequest, obj: ChargingGoal, form: Any, change: bool) -> None:
        obj.pk = form.keep(request.user).pk
        obj.refresh_from_db()

    @column(_("for"))
    def for_whom(self, goal: ChargingGoal) -> str:
        return str(goal.transaction or goal.asked_for or goal.id_token or goal.evse or "–")

    @column(_("energy [kWh]"), ordering="energy_wh")
    def energy(self, goal: ChargingGoal) -> str:
        return kwh(goal.energy_wh)

    @column(_("promised [kWh]"), ordering="promised_wh")
    def promised(self, goal: ChargingGoal) -> str:
        return kwh(goal.promised_wh)

    @column(_("stands"), label={"waiting": "info", "counts": "success", "cancelled": "danger", "behind": "warning"})
    def stands(self, goal: ChargingGoal) -> tuple[str, Any]:
        if goal.cancelled_at is not None:
            return "cancelled", _("cancelled")
        if goal.transaction_id is not None:
            return "counts", _("counts")
        return ("behind", _("behind another")) if goal.asked_for_id else ("waiting", _("waits for a charge"))

    def idle_actions(self, record: ChargingGoal) -> set[str]:
        return {"cancel"} if record.cancelled_at is not None else set()

    @daily(_("Cancel the goal"), icon="cancel", danger=True, explained=_("The next goal in line counts from now on."))
    def cancel(self, request: HttpRequest, form: Any, object_id: str) -> HttpResponse:
        goal = get_object_or_404(self.get_queryset(request), pk=object_id)
        cancel_goal(goal, user=request.user)  # type: ignore[arg-type]
        self.message_user(request, gettext("The goal is cancelled."), messages.SUCCESS)
        return self.message_and_return(request, reverse("admin:smartcharging_charginggoal_change", args=[object_id]))


class ReplanForm(BaseDialogForm):
    site = forms.ModelChoiceField(Site.objects.none(), label=_("site"), widget=UnfoldAdminSelectWidget)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        sites = choices_for(self.request, Site, OPERATOR)
        self.fields["site"].queryset = sites
        self.fields["site"].initial = sites.first()


@admin.register(Plan)
class PlanAdmin(LedgerAdmin):
    list_display = ("site", "made_at", "valid_until", "status", "trigger", "objective_eur", "gap", "solve_s")
    list_filter = (("site", OfMySites), "status")
    list_select_related = ("site",)
    ordering = ("-made_at", "-pk")
    actions_list = ("replan",)
    exclude = ("result",)

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        names = super().get_readonly_fields(request, obj)
        return [*(n for n in names if n != "result"), "shown"]

    @column(_("result"))
    def shown(self, plan: Plan) -> Any:
        return pretty(plan.result)

    @daily(_("Plan again"), form=ReplanForm, icon="refresh")
    def replan(self, request: HttpRequest, form: ReplanForm) -> HttpResponse:
        say_replanned(self, request, form.cleaned_data["site"])
        return self.message_and_return(request, reverse("admin:smartcharging_plan_changelist"))


def say_replanned(office: Any, request: HttpRequest, site: Site) -> None:
    """Ask for a plan, and say what came of the asking."""
    if wake.plan(site.pk, f"by {request.user.get_username()}"):
        text = gettext("%(site)s is planned again; the plan appears within seconds.")
        office.message_user(request, text % {"site": site}, messages.SUCCESS)
    else:
        text = gettext("A plan of %(site)s is already on its way, or the workers cannot be reached.")
        office.message_user(request, text % {"site": site}, messages.WARNING)


class PriceForm(forms.ModelForm):  # type: ignore[type-arg]
    class Meta:
        model = Price
        fields = ("area", "start", "minutes", "eur_per_mwh", "source")

    areas: set[str] | None = None

    def clean_area(self) -> str:
        area: str = self.cleaned_data["area"]
        if self.areas is not None and area not in self.areas:
            raise ValidationError(_("None of the sites you operate is in this area."))
        return area


@admin.register(Price)
class PriceAdmin(SiteNarrowedAdmin):
    """A price belongs to an area; whoever has a site there may see it, whoever operates one may set it."""

    form = PriceForm
    add_role = change_role = delete_role = OPERATOR
    list_display = ("area", "start", "minutes", "eur_per_mwh", "source")
    list_filter = ("minutes", "source")
    search_fields = ("area",)
    ordering = ("area", "-start")

    def get_queryset(self, request: HttpRequest) -> QuerySet[Price]:
        prices = Price.objects.order_by("area", "-start")
        return prices if request.user.is_superuser else prices.filter(area__in=self._areas(request, self.view_role))

    def get_form(self, request: HttpRequest, obj: Any = None, change: bool = False, **kwargs: Any) -> Any:
        form = super().get_form(request, obj, change=change, **kwargs)
        form.areas = None if request.user.is_superuser else self._areas(request, OPERATOR)
        return form

    def _areas(self, request: HttpRequest, role: str) -> set[str]:
        return set(sites_of(request.user, role).exclude(price_area="").values_list("price_area", flat=True))

    def _allowed(self, request: HttpRequest, obj: Any, role: str) -> bool:
        if not super()._allowed(request, None, role):
            return False
        if not isinstance(obj, Price) or request.user.is_superuser:
            return True
        return obj.area in self._areas(request, role)


@admin.register(Tariff)
class TariffAdmin(SiteNarrowedAdmin):
    list_display = ("site", "import_factor", "import_adder_eur_per_kwh", "export_factor", "peak_eur_per_kw_month")
    list_filter = (("site", OfMySites),)
    list_select_related = ("site",)


@admin.register(MonthPeak)
class MonthPeakAdmin(SiteNarrowedAdmin):
    """Kept by the product; an installer enters what a month had before the product came."""

    list_display = ("site", "month", "peak_w", "at")
    list_filter = (("site", OfMySites),)
    list_select_related = ("site",)


@admin.register(SiteQuarter)
class SiteQuarterAdmin(LedgerAdmin):
    list_display = ("site", "slot", "grid_w", "pv_w", "battery_w", "loads_w", "charging_w", "building_w")
    list_filter = (("site", OfMySites),)
    list_select_related = ("site",)
    ordering = ("-slot", "site")


@admin.register(Forecast)
class ForecastAdmin(LedgerAdmin):
    list_display = ("site", "series", "issued_at", "starts_at", "method")
    list_filter = (("site", OfMySites), "series", "method")
    list_select_related = ("site",)
    ordering = ("-issued_at", "-pk")


class GridCommandForm(OneSiteForm):
    """A command, tried out before it is kept."""

    class Meta:
        model = GridCommand
        fields = ("site", "import_limit_w", "export_limit_w", "starts_at", "ends_at", "reason")

    def _post_clean(self) -> None:
        super()._post_clean()
        if self.errors:
            return
        try:
            with transaction.atomic():
                self.keep(None)
                transaction.set_rollback(True)
        except GridCommandError as error:
            self.add_error(error.field if error.field in self.fields else None, ValidationError(error.message))

    def keep(self, user: Any) -> GridCommand:
        names = ("site", "import_limit_w", "export_limit_w", "starts_at", "ends_at", "reason")
        said = {name: self.cleaned_data.get(name) for name in names}
        return grid_commands.receive(**said, by=user)  # type: ignore[arg-type]


@admin.register(GridCommand)
class GridCommandAdmin(SiteNarrowedAdmin):
    form = GridCommandForm
    add_role = OPERATOR
    change_role = delete_role = NOBODY
    list_display = ("site", "import_limit_w", "export_limit_w", "starts_at", "ends_at", "reason", "became", "by")
    list_filter = (("site", OfMySites), "state")
    list_select_related = ("site", "by")
    search_fields = ("reason",)
    ordering = ("-starts_at", "-pk")
    actions_detail = ("end",)
    readonly_fields = ("state", "received_at", "applied_at", "measured_at", "ended_at", "by")

    @property
    def choice_role(self) -> str:
        return OPERATOR

    @column(_("state"), label={"received": "info", "applied": "warning", "measured": "success", "ended": "default"})
    def became(self, command: GridCommand) -> tuple[str, Any]:
        return command.state, command.get_state_display()

    def save_model(self, request: HttpRequest, obj: GridCommand, form: Any, change: bool) -> None:
        obj.pk = form.keep(request.user).pk
        obj.refresh_from_db()

    def idle_actions(self, record: GridCommand) -> set[str]:
        return {"end"} if record.state == GridCommand.State.ENDED else set()

    @daily(_("End now"), icon="stop", explained=_("The connection is free of this limit at once."))
    def end(self, request: HttpRequest, form: Any, object_id: str) -> HttpResponse:
        command = get_object_or_404(self.get_queryset(request), pk=object_id)
        try:
            grid_commands.end(command)
        except GridCommandError as error:
            self.message_user(request, error.message, messages.WARNING)
        else:
            self.message_user(request, gettext("The command has ended."), messages.SUCCESS)
        return self.message_and_return(request, reverse("admin:smartcharging_gridcommand_change", args=[object_id]))


@admin.register(AllocationRecord)
class AllocationRecordAdmin(LedgerAdmin):
    """The trail behind “why 8 A?”."""

    site_path = "evse__station__site"
    list_display = ("evse", "at", "limit_a", "limit_w", "reason", "circuit", "phase")
    list_filter = (("evse__station", OfMySites),)
    list_select_related = ("evse__station",)
    search_fields = ("reason", "evse__station__identity")
    ordering = ("-at", "-pk")


class PlannedSiteAdmin(SiteAdmin):
    """A site, with the day ahead."""

    actions_detail = ("replan",)

    @daily(_("Plan again"), icon="refresh")
    def replan(self, request: HttpRequest, form: Any, object_id: str) -> HttpResponse:
        site = get_object_or_404(self.get_queryset(request), pk=object_id)
        say_replanned(self, request, site)
        return self.message_and_return(request, reverse("admin:meters_site_change", args=[object_id]))


admin.site.unregister((Site, IdToken))
admin.site.register(Site, PlannedSiteAdmin)
admin.site.register(IdToken, ProfiledTokenAdmin)


def kwh(wh: float | None) -> str:
    return "–" if wh is None else f"{wh / 1000:.1f}"


def ring(site_id: int, trigger: str) -> None:
    """A limit has changed: share the current anew at once, and plan with it."""
    transaction.on_commit(lambda: wake.balance(site_id))
    transaction.on_commit(lambda: wake.plan(site_id, trigger))

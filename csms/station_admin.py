"""The operator's office for stations: how each stands now, and the daily actions on it.

What a station answers is shown as a message; that it is not connected is an answer too.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import redis
from django.contrib import admin, messages
from django.db.models import Count, Prefetch, Q, QuerySet
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404
from django.urls import reverse
from django.utils import timezone
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from csms import bus, calls
from csms.admin_asking import ask
from csms.admin_dialogs import (
    AcceptForm,
    AvailabilityForm,
    LimitForm,
    OnEVSE,
    RemoteStartForm,
    ResetForm,
    TriggerForm,
    UnlockForm,
    VariableForm,
)
from csms.care_actions import CARE_ITEMS, CareActions
from csms.changes import announce
from csms.inspection_actions import DISPLAY_ITEMS, INSPECTION_ITEMS, InspectionActions, unknown_to
from csms.limits import want_limit
from csms.models import EVSE, ChargingStation, Connector, StationVariable, WantedLimit, waiting_without_site
from csms.obedience_admin import capabilities_of, limits_of, repairs_of
from csms.security_actions import SECURITY_FIELDS, SECURITY_ITEMS, SecurityActions
from meters import live
from meters.commissioning import names_one_line
from meters.site_admin import (
    INSTALLER,
    OPERATOR,
    LedgerAdmin,
    OfMySites,
    OneSiteForm,
    SiteNarrowedAdmin,
    SiteNarrowedInline,
    column,
    daily,
    listed,
)

MEASURED_MAX_AGE_S = 60
_ELECTRICAL = ("current", "wiring", "max_a", "min_a", "max_w", "station_max_a", "fail_safe_a")
INSTALLERS_FIELDS = ("site", "capabilities", *_ELECTRICAL)
"""What an operator sees of a station but does not set."""


Hint = Callable[[ChargingStation], "str | None"]
hints: list[Hint] = []
"""What a newly accepted station still lacks, in words. Rooms above add theirs (a circuit is none of this room's)."""


def _no_password(station: ChargingStation) -> str | None:
    if station.password_hash:
        return None
    return gettext("It has no password: whoever knows its name may connect as it. Set one on its page.")


hints.append(_no_password)


class StationForm(OneSiteForm):
    """A station that waits in quarantine on no site becomes the one that is entered by its exact identity."""

    def _post_clean(self) -> None:
        identity = self.cleaned_data.get("identity") if self.instance.pk is None else None
        waiting = waiting_without_site(identity) if identity else None
        if waiting is not None:
            self.instance = waiting
        super()._post_clean()
        station = self.instance
        wrong = names_one_line(station.wiring, station.site) if "wiring" in self.fields else ""
        if wrong and "wiring" not in self.errors:
            self.add_error("wiring", wrong)


class ConnectorInline(SiteNarrowedInline):
    model = Connector
    site_path = "evse__station__site"
    fields = ("number", "type", "status", "status_at", "iec_state")
    readonly_fields = ("status", "status_at", "iec_state")


class EVSEInline(SiteNarrowedInline):
    model = EVSE
    site_path = "station__site"
    fields = ("number", "status", "iec_state", "error_code", "available")
    readonly_fields = ("status", "iec_state", "error_code", "available")
    tab = True


@admin.register(ChargingStation)
class ChargingStationAdmin(SecurityActions, CareActions, InspectionActions, SiteNarrowedAdmin):
    change_role = OPERATOR
    form = StationForm
    list_display = (
        "identity",
        "name",
        "site",
        "connection",
        "admitted",
        "states",
        "open_charges",
        "protocol",
        "last_seen",
        "vendor",
        "model",
    )
    list_display_links = ("identity", "name")
    list_filter = (("site", OfMySites), "admission", "protocol", "current", "quiet")
    list_select_related = ("site", "security")
    search_fields = ("identity", "name", "vendor", "model", "serial_number")
    autocomplete_fields = ("site",)
    inlines = (EVSEInline,)
    actions = ("accept_ticked", "reject_ticked")
    actions_detail = (
        "accept",
        "reject",
        {
            "title": _("Ask the station"),
            "icon": "send",
            "items": [
                "remote_start",
                "unlock",
                "availability",
                "reset",
                "trigger",
                "fetch_report",
                "fetch_variables",
                "set_variable",
            ],
        },
        {"title": _("Limit"), "icon": "speed", "items": ["send_limit", "clear_limits"]},
        {"title": _("Look inside"), "icon": "travel_explore", "items": INSPECTION_ITEMS},
        {"title": _("Care"), "icon": "handyman", "items": CARE_ITEMS},
        {"title": _("For drivers"), "icon": "forum", "items": DISPLAY_ITEMS},
        {"title": _("Security"), "icon": "shield", "items": SECURITY_ITEMS},
    )
    readonly_fields = (
        "admission",
        "has_password",
        *SECURITY_FIELDS,
        "connection_now",
        "protocol",
        "vendor",
        "model",
        "serial_number",
        "firmware_version",
        "boot_at",
        "boot_reason",
        "last_seen",
        "address",
        "counted",
        "what_it_can",
        "followed",
    )
    fieldsets = (
        (None, {"fields": ("identity", "name", "site", "admission", "priority", "quiet")}),
        (_("electrical"), {"fields": _ELECTRICAL}),
        (
            _("as the station says"),
            {
                "fields": (
                    "connection_now",
                    "protocol",
                    "vendor",
                    "model",
                    "serial_number",
                    "firmware_version",
                    "boot_at",
                    "boot_reason",
                    "last_seen",
                    "address",
                )
            },
        ),
        (_("security"), {"fields": ("has_password", *SECURITY_FIELDS)}),
        (_("limits"), {"fields": ("followed",)}),
        (_("conversation"), {"fields": ("what_it_can", "capabilities", "counted")}),
    )

    def get_queryset(self, request: HttpRequest) -> QuerySet[ChargingStation]:
        open_now = Count("transactions", filter=Q(transactions__ended_at=None), distinct=True)
        evses = Prefetch("evses", EVSE.objects.order_by("number"))
        stations: QuerySet[ChargingStation] = super().get_queryset(request).annotate(open_now=open_now)
        return stations.prefetch_related(evses).order_by("identity")

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        """The identity is what the station calls itself: given once, then fixed. What is wired is the installer's."""
        if obj is None:
            return self.readonly_fields
        if self.has_install_permission(request, obj):
            return (*self.readonly_fields, "identity")
        return (*self.readonly_fields, "identity", *INSTALLERS_FIELDS)

    @property
    def choice_role(self) -> str:
        return INSTALLER

    def get_changelist_instance(self, request: HttpRequest) -> Any:
        page = super().get_changelist_instance(request)
        page.result_list = with_holders(list(page.result_list))
        return page

    def save_model(self, request: HttpRequest, obj: ChargingStation, form: Any, change: bool) -> None:
        if not change:
            obj.admission = ChargingStation.Admission.ACCEPTED
        super().save_model(request, obj, form, change)
        announce("station", [obj.pk])
        if not change:
            self._hint(request, obj)

    @column(_("connection"), label={"connected": "success", "away": "danger"})
    def connection(self, station: ChargingStation) -> tuple[str, Any]:
        held = getattr(station, "held", None) or (with_holders([station])[0].held if station.pk else False)  # type: ignore[attr-defined]
        return ("connected", _("connected")) if held else ("away", _("away"))

    @column(_("connection"))
    def connection_now(self, station: ChargingStation) -> Any:
        """The same on the station's own page, where a label's pair would be shown as it is."""
        return self.connection(station)[1]

    @column(_("admission"), label={"accepted": "success", "quarantined": "warning", "rejected": "danger"})
    def admitted(self, station: ChargingStation) -> tuple[str, Any]:
        return station.admission, station.get_admission_display()

    @column(_("IEC 61851"))
    def states(self, station: ChargingStation) -> str:
        return " · ".join(f"{e.number}: {e.iec_state or e.get_status_display()}" for e in station.evses.all()) or "–"

    @column(_("charging"))
    def open_charges(self, station: ChargingStation) -> int:
        return getattr(station, "open_now", 0)

    @column(_("password"), boolean=True)
    def has_password(self, station: ChargingStation) -> bool:
        return bool(station.password_hash)

    @column(_("repairs and refusals"))
    def counted(self, station: ChargingStation) -> Any:
        return repairs_of(station)

    @column(_("what it can"))
    def what_it_can(self, station: ChargingStation) -> Any:
        return capabilities_of(station)

    @column(_("limits"))
    def followed(self, station: ChargingStation) -> Any:
        return limits_of(station)

    @listed(_("Accept the stations"))
    def accept_ticked(self, request: HttpRequest, queryset: QuerySet[ChargingStation]) -> None:
        self._admit_ticked(request, queryset, ChargingStation.Admission.ACCEPTED)

    @listed(_("Reject the stations"))
    def reject_ticked(self, request: HttpRequest, queryset: QuerySet[ChargingStation]) -> None:
        self._admit_ticked(request, queryset, ChargingStation.Admission.REJECTED)

    def _admit_ticked(self, request: HttpRequest, queryset: QuerySet[ChargingStation], admission: str) -> None:
        done = 0
        for station in queryset:
            if not self.has_operate_permission(request, station):
                text = gettext("You may not admit %(station)s.")
                self.message_user(request, text % {"station": station}, messages.ERROR)
            elif admission == ChargingStation.Admission.ACCEPTED and station.site_id is None:
                text = gettext("%(station)s stands on no site yet; accept it on its own page.")
                self.message_user(request, text % {"station": station}, messages.WARNING)
            else:
                self._admit(request, station, admission)
                done += 1
        self.message_user(request, gettext("%(count)d stations changed.") % {"count": done}, messages.SUCCESS)

    def _admit(self, request: HttpRequest, station: ChargingStation, admission: str) -> None:
        station.admission = admission
        station._history_user = request.user  # type: ignore[attr-defined]
        station.save(update_fields=["admission", "site"])
        self.log_change(request, station, f"admission: {admission}")
        announce("station", [station.pk])

    def _hint(self, request: HttpRequest, station: ChargingStation) -> None:
        for hint in hints:
            if said := hint(station):
                self.message_user(request, f"{station}: {said}", messages.WARNING)

    def idle_actions(self, record: ChargingStation) -> set[str]:
        idle = unknown_to(record)
        if record.admission == ChargingStation.Admission.ACCEPTED and record.site_id is not None:
            return idle | {"accept"}
        return idle | {"reject"} if record.admission == ChargingStation.Admission.REJECTED else idle

    def _station(self, request: HttpRequest, object_id: str) -> ChargingStation:
        return get_object_or_404(self.get_queryset(request), pk=object_id)

    def _back(self, request: HttpRequest, object_id: str) -> HttpResponse:
        return self.message_and_return(request, reverse("admin:csms_chargingstation_change", args=[object_id]))

    @daily(_("Accept"), form=AcceptForm, icon="check", explained=_("It may charge from now on."))
    def accept(self, request: HttpRequest, form: AcceptForm, object_id: str) -> HttpResponse:
        station = self._station(request, object_id)
        station.site = form.cleaned_data["site"]
        self._admit(request, station, ChargingStation.Admission.ACCEPTED)
        self.message_user(request, gettext("%(station)s is accepted.") % {"station": station}, messages.SUCCESS)
        self._hint(request, station)
        return self._back(request, object_id)

    @daily(_("Reject"), icon="block", danger=True, explained=_("It is refused from now on; running charges go on."))
    def reject(self, request: HttpRequest, form: Any, object_id: str) -> HttpResponse:
        station = self._station(request, object_id)
        self._admit(request, station, ChargingStation.Admission.REJECTED)
        self.message_user(request, gettext("%(station)s is rejected.") % {"station": station}, messages.SUCCESS)
        return self._back(request, object_id)

    @daily(_("Start a charge"), form=RemoteStartForm, icon="play_arrow", submit=_("Start"))
    def remote_start(self, request: HttpRequest, form: RemoteStartForm, object_id: str) -> HttpResponse:
        said = form.cleaned_data
        station = self._station(request, object_id)
        ask(request, station, lambda: calls.remote_start(said["evse"], said["id_token"], said["limit_a"]))
        return self._back(request, object_id)

    @daily(_("Unlock"), form=UnlockForm, icon="lock_open")
    def unlock(self, request: HttpRequest, form: UnlockForm, object_id: str) -> HttpResponse:
        said = form.cleaned_data
        ask(request, self._station(request, object_id), lambda: calls.unlock(said["evse"], said["connector"]))
        return self._back(request, object_id)

    @daily(_("Availability"), form=AvailabilityForm, icon="power_settings_new", submit=_("Set"))
    def availability(self, request: HttpRequest, form: AvailabilityForm, object_id: str) -> HttpResponse:
        station, said = self._station(request, object_id), form.cleaned_data
        operative = said["operative"] == "yes"
        ask(request, station, lambda: calls.change_availability(station, operative, said["evse"]))
        return self._back(request, object_id)

    @daily(_("Reset"), form=ResetForm, icon="restart_alt", danger=True)
    def reset(self, request: HttpRequest, form: ResetForm, object_id: str) -> HttpResponse:
        station, said = self._station(request, object_id), form.cleaned_data
        ask(request, station, lambda: calls.reset(station, immediate=said["kind"] == "hard", evse=said["evse"]))
        return self._back(request, object_id)

    @daily(_("Trigger a message"), form=TriggerForm, icon="notifications", submit=_("Trigger"))
    def trigger(self, request: HttpRequest, form: TriggerForm, object_id: str) -> HttpResponse:
        station, said = self._station(request, object_id), form.cleaned_data
        ask(request, station, lambda: calls.trigger(station, said["message"], said["evse"]))
        return self._back(request, object_id)

    @daily(_("Fetch the full report"), icon="download", submit=_("Fetch"))
    def fetch_report(self, request: HttpRequest, form: Any, object_id: str) -> HttpResponse:
        station = self._station(request, object_id)
        ask(request, station, lambda: calls.request_report(station))
        return self._back(request, object_id)

    @daily(_("Read the variables again"), icon="refresh", submit=_("Read"))
    def fetch_variables(self, request: HttpRequest, form: Any, object_id: str) -> HttpResponse:
        station = self._station(request, object_id)
        ask(request, station, lambda: calls.get_variables(station, None))
        return self._back(request, object_id)

    @daily(_("Set a variable"), form=VariableForm, icon="tune", submit=_("Set"), permission="install")
    def set_variable(self, request: HttpRequest, form: VariableForm, object_id: str) -> HttpResponse:
        station, said = self._station(request, object_id), form.cleaned_data
        ask(
            request,
            station,
            lambda: calls.set_variable(station, said["component"], said["variable"], said["value"]),
        )
        return self._back(request, object_id)

    @daily(_("Send a limit"), form=LimitForm, icon="speed", submit=_("Send"))
    def send_limit(self, request: HttpRequest, form: LimitForm, object_id: str) -> HttpResponse:
        said = form.cleaned_data
        amps, watts = (said["limit"], None) if said["unit"] == "A" else (None, said["limit"])
        _want(request, self._station(request, object_id), said["evse"], amps, watts, said["minutes"] * 60)
        return self._back(request, object_id)

    @daily(_("Clear the limits"), form=OnEVSE, icon="layers_clear", explained=_("The fail-safe limit stays."))
    def clear_limits(self, request: HttpRequest, form: OnEVSE, object_id: str) -> HttpResponse:
        station, said = self._station(request, object_id), form.cleaned_data
        ask(request, station, lambda: calls.clear_limits(said["evse"] or station))
        return self._back(request, object_id)


def _want(
    request: HttpRequest, station: ChargingStation, evse: EVSE, amps: float | None, watts: float | None, lease_s: int
) -> None:
    """A limit is a desired state: it is kept beside what others want, the lowest is sent when the station is there."""
    by, level = request.user.get_username(), messages.SUCCESS
    reason = gettext("by hand (%(user)s)") % {"user": by}
    try:
        want_limit(evse, amps=amps, watts=watts, reason=reason, lease_s=lease_s, by=by)
        text = gettext("%(station)s is being told. Whether it follows is shown under its limits.")
        if bus.holder(station.identity) is None:
            level = messages.WARNING
            text = gettext("%(station)s is not connected. The limit is kept for its time, and sent if it comes back.")
    except redis.RedisError:
        level, text = messages.ERROR, gettext("Redis is away, so no station can be reached.")
    messages.add_message(request, level, text % {"station": station} if "%" in text else text)


def with_holders(stations: list[ChargingStation]) -> list[ChargingStation]:
    """Stations that know who holds their socket now. While Redis is away nobody is known to."""
    try:
        holders = bus.holders(s.identity for s in stations)
    except redis.RedisError:
        holders = {}
    for station in stations:
        station.held = holders.get(station.identity)  # type: ignore[attr-defined]
    return stations


@admin.register(EVSE)
class EVSEAdmin(SiteNarrowedAdmin):
    site_path = "station__site"
    change_role = delete_role = add_role = INSTALLER
    list_display = (
        "__str__",
        "connection",
        "status",
        "iec_state",
        "power_now",
        "limit_now",
        "reason",
        "error_code",
        "status_at",
    )
    list_filter = (("station__site", OfMySites), "status", "iec_state", "available")
    list_select_related = ("station__site", "wanted_limit")
    search_fields = ("station__identity", "station__name")
    autocomplete_fields = ("station",)
    inlines = (ConnectorInline,)
    readonly_fields = (
        "status",
        "status_at",
        "error_code",
        "vendor_error_code",
        "charging_state",
        "iec_state",
        "iec_source",
        "available",
    )

    def get_changelist_instance(self, request: HttpRequest) -> Any:
        page = super().get_changelist_instance(request)
        evses = list(page.result_list)
        stations = {e.station.identity: e.station for e in evses}
        with_holders(list(stations.values()))
        try:
            newest = live.fetch(live.evse_source(e.pk) for e in evses)
        except redis.RedisError:
            newest = {}
        for evse in evses:
            evse.held = stations[evse.station.identity].held
            evse.newest = newest.get(live.evse_source(evse.pk))
        page.result_list = evses
        return page

    @column(_("connection"), label={"connected": "success", "away": "danger"})
    def connection(self, evse: EVSE) -> tuple[str, Any]:
        return ("connected", _("connected")) if getattr(evse, "held", None) else ("away", _("away"))

    @column(_("power [W]"))
    def power_now(self, evse: EVSE) -> str:
        newest = getattr(evse, "newest", None)
        if newest is None or newest.power_w is None or not newest.is_fresh(timezone.now(), MEASURED_MAX_AGE_S):
            return "–"
        return f"{newest.power_w:,.0f}"

    @column(_("limit: wanted / accepted"))
    def limit_now(self, evse: EVSE) -> str:
        return shown_limit(getattr(evse, "wanted_limit", None))

    @column(_("reason"))
    def reason(self, evse: EVSE) -> str:
        wanted = getattr(evse, "wanted_limit", None)
        return wanted.reason if wanted is not None else "–"


def shown_limit(wanted: WantedLimit | None) -> str:
    if wanted is None:
        return "–"
    if wanted.wanted_w is not None:
        return f"{_number(wanted.wanted_w)} / {_number(wanted.accepted_w)} W"
    return f"{_number(wanted.wanted_a)} / {_number(wanted.accepted_a)} A"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:g}"


@admin.register(WantedLimit)
class WantedLimitAdmin(LedgerAdmin):
    site_path = "evse__station__site"
    list_display = ("evse", "limit", "reason", "state", "detail", "wanted_at", "accepted_at", "lease_until")
    list_filter = (("evse__station__site", OfMySites), "state")
    list_select_related = ("evse__station",)
    search_fields = ("evse__station__identity", "reason")

    @column(_("limit: wanted / accepted"))
    def limit(self, wanted: WantedLimit) -> str:
        return shown_limit(wanted)


@admin.register(StationVariable)
class StationVariableAdmin(LedgerAdmin):
    site_path = "station__site"
    list_display = ("station", "component", "evse_number", "variable", "value", "mutability", "reported_at")
    list_filter = (("station", OfMySites), "component", "mutability")
    list_select_related = ("station",)
    search_fields = ("station__identity", "component", "variable", "value")

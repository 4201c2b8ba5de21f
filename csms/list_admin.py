"""The operator's office for lists in stations and for reservations."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.contrib import admin, messages
from django.core.exceptions import ValidationError
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404
from django.urls import reverse
from django.utils import timezone
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from csms import local_lists, reservations
from csms.models import EVSE, ChargingStation, IdToken
from csms.workflow_models import LocalList, LocalListPolicy, Reservation
from meters.site_admin import (
    NOBODY,
    OPERATOR,
    LedgerAdmin,
    OfMySites,
    OneSiteForm,
    SiteNarrowedAdmin,
    choices_for,
    column,
    daily,
    listed,
)


class PolicyForm(OneSiteForm):
    def clean(self) -> dict[str, Any]:
        cleaned: dict[str, Any] = super().clean() or self.cleaned_data
        if cleaned.get("members") == LocalListPolicy.Members.GROUP and not cleaned.get("group"):
            self.add_error("group", ValidationError(_("Name the group.")))
        return cleaned


@admin.register(LocalListPolicy)
class LocalListPolicyAdmin(SiteNarrowedAdmin):
    form = PolicyForm
    add_role = change_role = delete_role = OPERATOR
    list_display = ("site", "members", "group", "tokens_now", "stations_now")
    list_filter = (("site", OfMySites), "members")
    list_select_related = ("site",)
    fields = ("site", "members", "group")

    def get_changelist_instance(self, request: HttpRequest) -> Any:
        """Count the tokens and the stations of all sites of the page, in two questions."""
        page = super().get_changelist_instance(request)
        policies = list(page.result_list)
        tokens = local_lists.token_counts([p.site_id for p in policies], timezone.now())
        states: dict[int, list[str]] = {}
        rows = LocalList.objects.filter(station__site__in=[p.site_id for p in policies])
        for site, state in rows.values_list("station__site", "state"):
            states.setdefault(int(site), []).append(str(state))
        for policy in policies:
            policy.token_count = _counted(policy, tokens)
            policy.station_states = states.get(policy.site_id, [])
        page.result_list = policies
        return page

    @column(_("tokens"))
    def tokens_now(self, policy: LocalListPolicy) -> int:
        return getattr(policy, "token_count", 0)

    @column(_("stations in step"))
    def stations_now(self, policy: LocalListPolicy) -> str:
        states: list[str] = getattr(policy, "station_states", [])
        able = [s for s in states if s != LocalList.State.UNSUPPORTED]
        return f"{able.count(LocalList.State.IN_STEP)} / {len(able)}" if able else "–"


def _counted(policy: LocalListPolicy, tokens: Mapping[tuple[int, str], int]) -> int:
    """How many tokens belong, out of the counts per site and group."""
    if policy.members == LocalListPolicy.Members.NOBODY:
        return 0
    one = policy.members == LocalListPolicy.Members.GROUP
    mine = {group: n for (site, group), n in tokens.items() if site == policy.site_id}
    return sum(n for group, n in mine.items() if not one or group == policy.group)


@admin.register(LocalList)
class LocalListAdmin(LedgerAdmin):
    site_path = "station__site"
    list_display = (
        "station",
        "stands",
        "wanted_version",
        "held_version",
        "entries",
        "left_out",
        "attempts",
        "next_try_at",
        "last_error",
        "sent_at",
    )
    list_filter = (("station__site", OfMySites), "state")
    list_select_related = ("station",)
    search_fields = ("station__identity", "station__name", "last_error")
    actions = ("send_ticked",)  # type: ignore[assignment]
    actions_detail = ("send",)

    def get_queryset(self, request: HttpRequest) -> QuerySet[LocalList]:
        rows: QuerySet[LocalList] = super().get_queryset(request)
        return rows.defer("held")

    @column(_("state"), label={"in_step": "success", "waiting": "info", "failed": "danger", "unsupported": "default"})
    def stands(self, row: LocalList) -> tuple[str, Any]:
        return row.state, row.get_state_display()

    @column(_("entries"))
    def entries(self, row: LocalList) -> int:
        return len(row.wanted)

    @daily(_("Send again"), icon="send", explained=_("The whole list is sent, whatever the station holds."))
    def send(self, request: HttpRequest, form: Any, object_id: str) -> HttpResponse:
        row = get_object_or_404(self.get_queryset(request).select_related("station"), pk=object_id)
        tell_list(self, request, row.station)
        return self.message_and_return(request, reverse("admin:csms_locallist_change", args=[object_id]))

    @listed(_("Send the lists again"))
    def send_ticked(self, request: HttpRequest, queryset: QuerySet[LocalList]) -> None:
        """In their turn: the clock sends them within a minute."""
        keys = [row.pk for row in queryset.select_related("station") if self.has_operate_permission(request, row)]
        LocalList.objects.filter(pk__in=keys).exclude(state=LocalList.State.UNSUPPORTED).update(
            state=LocalList.State.WAITING, held=None, attempts=0, next_try_at=None
        )
        text = gettext("%(count)d lists are sent within the next minutes.")
        self.message_user(request, text % {"count": len(keys)}, messages.SUCCESS)


def tell_list(page: Any, request: HttpRequest, station: ChargingStation) -> None:
    """Send a station its list now, and say what became of it."""
    row = local_lists.send_now(station)
    if row is None:
        text = gettext("The site of %(station)s keeps no local lists; choose its tokens under “Local lists per site”.")
        page.message_user(request, text % {"station": station}, messages.WARNING)
    elif row.state == LocalList.State.IN_STEP:
        text = gettext("%(station)s holds version %(version)d: %(count)d tokens.")
        words = {"station": station, "version": row.held_version or 0, "count": len(row.wanted)}
        page.message_user(request, text % words, messages.SUCCESS)
    else:
        words = {"station": station, "why": row.last_error or row.get_state_display()}
        page.message_user(request, gettext("%(station)s: %(why)s") % words, messages.WARNING)


# ---------------------------------------------------------------------- reservations


class ReservationForm(OneSiteForm):
    """A reservation, looked at before it is made."""

    site_path = "id_token__site"

    class Meta:
        model = Reservation
        fields = ("id_token", "station", "evse", "connector_type", "starts_at", "ends_at")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if "starts_at" in self.fields:
            self.fields["starts_at"].required = False

    def _post_clean(self) -> None:
        super()._post_clean()
        if self.errors:
            return
        try:
            reservations.check(**{k: v for k, v in self.wish().items() if k != "connector_type"})
        except reservations.ReservationError as error:
            self.add_error(error.field if error.field in self.fields else None, ValidationError(error.message))

    def wish(self) -> dict[str, Any]:
        names = ("id_token", "station", "evse", "starts_at", "ends_at")
        said = {name: self.cleaned_data.get(name) for name in names}
        return {**said, "connector_type": self.cleaned_data.get("connector_type") or ""}


RESERVATION_COLOURS = {
    "wanted": "info",
    "accepted": "success",
    "used": "success",
    "occupied": "warning",
    "rejected": "danger",
    "faulted": "danger",
    "unavailable": "warning",
    "removed": "warning",
    "expired": "default",
    "cancelled": "default",
}


@admin.register(Reservation)
class ReservationAdmin(SiteNarrowedAdmin):
    form = ReservationForm
    add_role = OPERATOR
    change_role = delete_role = NOBODY
    list_display = ("place", "id_token", "stands", "starts_at", "ends_at", "detail", "transaction", "by")
    list_filter = (("site", OfMySites), "state", ("station", OfMySites))
    list_select_related = ("site", "station", "evse__station", "id_token", "transaction__station", "by")
    search_fields = ("station__identity", "id_token__value", "id_token__label", "detail")
    actions = ("cancel_ticked",)
    actions_detail = ("cancel",)
    readonly_fields = (
        *("site", "state", "detail", "cancel_wanted", "transaction", "attempts", "next_try_at"),
        *("answered_at", "closed_at", "created_at", "by"),
    )

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> Any:
        asked = ("id_token", "station", "evse", "connector_type", "starts_at", "ends_at")
        return [(None, {"fields": asked if obj is None else (*asked, *self.readonly_fields)})]

    @property
    def choice_role(self) -> str:
        return OPERATOR

    def formfield_for_foreignkey(self, db_field: Any, request: HttpRequest, **kwargs: Any) -> Any:
        if db_field.name == "id_token":
            tokens = choices_for(request, IdToken, OPERATOR).filter(status=IdToken.Status.ACCEPTED)
            kwargs["queryset"] = tokens.order_by("label", "value")
        elif db_field.name == "evse":
            places = choices_for(request, EVSE, OPERATOR).select_related("station")
            kwargs["queryset"] = places.order_by("station__identity", "number")
        return super().formfield_for_foreignkey(db_field, request, **kwargs)

    @column(_("place"), ordering="station")
    def place(self, row: Reservation) -> str:
        return str(row.evse or row.station or gettext("any free place"))

    @column(_("state"), label=RESERVATION_COLOURS)
    def stands(self, row: Reservation) -> tuple[str, Any]:
        return row.state, row.get_state_display()

    def save_model(self, request: HttpRequest, obj: Reservation, form: Any, change: bool) -> None:
        made = reservations.reserve(**form.wish(), by=request.user)  # type: ignore[arg-type]
        obj.pk = made.pk
        obj.refresh_from_db()
        say_reservation(self, request, obj)

    def idle_actions(self, record: Reservation) -> set[str]:
        return set() if record.open and not record.cancel_wanted else {"cancel"}

    @daily(_("Cancel the reservation"), icon="event_busy")
    def cancel(self, request: HttpRequest, form: Any, object_id: str) -> HttpResponse:
        row = get_object_or_404(self.get_queryset(request).select_related("station"), pk=object_id)
        say_reservation(self, request, reservations.cancel(row))
        return self.message_and_return(request, reverse("admin:csms_reservation_change", args=[object_id]))

    @listed(_("Cancel the reservations"))
    def cancel_ticked(self, request: HttpRequest, queryset: QuerySet[Reservation]) -> None:
        for row in queryset.select_related("station")[:50]:
            if self.has_operate_permission(request, row) and row.open:
                say_reservation(self, request, reservations.cancel(row))


def say_reservation(page: Any, request: HttpRequest, row: Reservation) -> None:
    good = row.state in (Reservation.State.ACCEPTED, Reservation.State.CANCELLED) and not row.cancel_wanted
    if row.state == Reservation.State.WANTED and not row.detail:
        good = True  # for later
    words = {"reservation": row, "state": row.get_state_display(), "detail": row.detail}
    text = gettext("%(reservation)s: %(state)s. %(detail)s") % words
    page.message_user(request, text.strip(), messages.SUCCESS if good else messages.WARNING)

"""Longer work begun on a station's own page: a place reserved, its list sent, a log fetched."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django import forms
from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.utils import timezone
from django.utils.html import format_html
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _
from unfold.widgets import (
    UnfoldAdminIntegerFieldWidget,
    UnfoldAdminSelectWidget,
    UnfoldAdminTextInputWidget,
)

from csms import logs, reservations
from csms.admin_asking import ask
from csms.admin_dialogs import OnEVSE
from csms.list_admin import say_reservation, tell_list
from csms.models import ChargingStation, IdToken
from csms.workflow_models import LogRequest
from meters.site_admin import daily

CARE_ITEMS = ["reserve_place", "send_list", "fetch_log"]


class ReserveForm(OnEVSE):
    id_token = forms.ModelChoiceField(IdToken.objects.none(), label=_("id token"), widget=UnfoldAdminSelectWidget)
    minutes = forms.IntegerField(
        label=_("minutes"), min_value=1, max_value=2 * 24 * 60, initial=30, widget=UnfoldAdminIntegerFieldWidget
    )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        station = self.station
        tokens = IdToken.objects.filter(site=station.site_id if station else None, status=IdToken.Status.ACCEPTED)
        self.fields["id_token"].queryset = tokens.order_by("label", "value")


class FetchLogForm(forms.Form):
    kind = forms.ChoiceField(label=_("kind"), choices=LogRequest.Kind.choices, widget=UnfoldAdminSelectWidget)
    days = forms.IntegerField(
        label=_("of the last days"), min_value=1, max_value=366, required=False, widget=UnfoldAdminIntegerFieldWidget
    )
    elsewhere = forms.RegexField(
        r"^(https?|ftps?|sftp)://\S+$",
        label=_("other address"),
        max_length=255,
        required=False,
        widget=UnfoldAdminTextInputWidget,
        help_text=_("for a station that cannot upload by HTTP: your own server, such as ftp://host/path"),
    )


class FetchLogDialog(OnEVSE, FetchLogForm):
    """A log is of the whole station."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        del self.fields["evse"]


class CareActions:
    """Mixed into the page of stations."""

    # These are of the page it is mixed into.
    _station: Any
    _back: Any
    message_user: Any

    @daily(
        _("Reserve a place"),
        form=ReserveForm,
        icon="event_seat",
        submit=_("Reserve"),
        explained=_("From now on. One for later is made under “Reservations”."),
    )
    def reserve_place(self, request: HttpRequest, form: ReserveForm, object_id: str) -> HttpResponse:
        station, said = self._station(request, object_id), form.cleaned_data
        until = timezone.now() + timedelta(minutes=said["minutes"])
        try:
            made = reservations.reserve(
                id_token=said["id_token"],
                station=station,
                evse=said["evse"],
                ends_at=until,
                by=request.user,  # type: ignore[arg-type]
            )
        except reservations.ReservationError as error:
            self.message_user(request, error.message, messages.WARNING)
        else:
            say_reservation(self, request, made)
        back: HttpResponse = self._back(request, object_id)
        return back

    @daily(_("Send the local list"), icon="checklist", submit=_("Send"))
    def send_list(self, request: HttpRequest, form: Any, object_id: str) -> HttpResponse:
        tell_list(self, request, self._station(request, object_id))
        back: HttpResponse = self._back(request, object_id)
        return back

    @daily(_("Fetch a log"), form=FetchLogDialog, icon="description", submit=_("Fetch"))
    def fetch_log(self, request: HttpRequest, form: FetchLogDialog, object_id: str) -> HttpResponse:
        station: ChargingStation = self._station(request, object_id)
        said = form.cleaned_data
        oldest = timezone.now() - timedelta(days=said["days"]) if said["days"] else None

        def fetch() -> dict[str, str]:
            user: Any = request.user
            made = logs.fetch(station, said["kind"], oldest, None, said["elsewhere"], by=user)
            link = reverse("admin:csms_logrequest_change", args=[made.pk])
            text = gettext("The log will be here:")
            self.message_user(request, format_html('{} <a href="{}">{}</a>', text, link, str(made)), messages.INFO)
            refused = made.state == LogRequest.State.REFUSED
            return {"status": "Rejected" if refused else "Accepted", "detail": made.detail}

        ask(request, station, fetch)
        back: HttpResponse = self._back(request, object_id)
        return back

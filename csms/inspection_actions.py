"""Looking into a station from its own page, and speaking to its drivers: reports, monitors, profiles, the display.

What comes in parts is waited for a moment; then the page of the report opens, whole or as far as it came.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any

from django import forms
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.utils import timezone
from django.utils.translation import gettext_lazy as _
from unfold.widgets import (
    UnfoldAdminDecimalFieldWidget,
    UnfoldAdminIntegerFieldWidget,
    UnfoldAdminSelectWidget,
    UnfoldAdminTextareaWidget,
    UnfoldAdminTextInputWidget,
    UnfoldBooleanSwitchWidget,
)

from csms import calls, display, inspection, reports
from csms.admin_asking import ask
from csms.admin_dialogs import OneEVSE, OnEVSE, OnStation
from csms.models import ChargingStation, IdToken, Transaction
from csms.ocpp201 import device, monitoring
from csms.ocpp201 import display as display201
from csms.reported import Monitor, Place
from csms.reported_models import MonitoringEvent, StationReport
from csms.schemas import V16
from meters.site_admin import daily

INSPECTION_ITEMS = [
    "report_some",
    "read_profiles",
    "read_allowed",
    "clear_one_profile",
    "ask_transaction",
    "set_monitoring",
    "set_monitor",
    "read_monitors",
    "clear_cache",
    "set_network",
    "send_data",
]
DISPLAY_ITEMS = ["show_message", "read_messages", "clear_message", "ask_customer"]
ONLY_201 = frozenset({*INSPECTION_ITEMS, *DISPLAY_ITEMS}) - {
    "read_allowed",
    "clear_one_profile",
    "clear_cache",
    "send_data",
}
PATIENCE_S = 5.0


def unknown_to(station: ChargingStation) -> set[str]:
    """What cannot be asked of this station, by the version of its newest connection."""
    return set(ONLY_201) if station.protocol == V16 else set()


def _words(label: Any, *words: str, empty: Any = None) -> forms.ChoiceField:
    choices = [(word, word) for word in words]
    return forms.ChoiceField(
        label=label,
        choices=choices if empty is None else [("", empty), *choices],
        required=empty is None,
        widget=UnfoldAdminSelectWidget,
    )


def _text(label: Any, longest: int, *, needed: bool = True, explained: Any = "") -> forms.CharField:
    return forms.CharField(
        label=label, max_length=longest, required=needed, widget=UnfoldAdminTextInputWidget, help_text=explained
    )


def _whole(label: Any, least: int, most: int, *, initial: int | None = None) -> forms.IntegerField:
    return forms.IntegerField(
        label=label, min_value=least, max_value=most, initial=initial, widget=UnfoldAdminIntegerFieldWidget
    )


class ReportForm(OnStation):
    names = _text(
        _("variables"), 500, needed=False, explained=_("Component or Component.Variable, with commas between them")
    )
    criteria = _words(_("of components that are"), *device.CRITERIA, empty=_("any"))

    def clean(self) -> dict[str, Any]:
        cleaned: dict[str, Any] = super().clean() or self.cleaned_data
        if not cleaned.get("names") and not cleaned.get("criteria"):
            self.add_error("names", _("Name variables, or a state of components; the full report has all of them."))
        return cleaned


class AllowedForm(OneEVSE):
    hours = _whole(_("of the coming hours"), 1, 7 * 24, initial=1)


class ProfileForm(OnStation):
    number = _whole(_("number of the profile"), 0, 2**31 - 1)


class TransactionForm(OnStation):
    transaction = forms.ModelChoiceField(
        Transaction.objects.none(),
        label=_("transaction"),
        required=False,
        empty_label=_("none: only whether something waits to be sent"),
        widget=UnfoldAdminSelectWidget,
    )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        newest = Transaction.objects.filter(station=self.station).order_by("-started_at").values("pk")[:20]
        self.fields["transaction"].queryset = Transaction.objects.filter(pk__in=newest)


class MonitoringForm(OnStation):
    base = _words(_("monitors"), *monitoring.BASES, empty=_("as they are"))
    severity = forms.TypedChoiceField(
        label=_("events are told up to"),
        choices=[("", _("as it is")), *((str(n), label) for n, label in MonitoringEvent.Severity.choices)],
        required=False,
        coerce=int,
        empty_value=None,
        widget=UnfoldAdminSelectWidget,
    )


class MonitorForm(OnEVSE):
    variable = _text(_("variable"), 101, explained=_("Component.Variable"))
    type = _words(_("type"), *monitoring.TYPES)
    value = forms.FloatField(
        label=_("value"),
        widget=UnfoldAdminDecimalFieldWidget,
        help_text=_("a threshold, a change, or a number of seconds"),
    )
    severity = forms.TypedChoiceField(
        label=_("severity"), choices=MonitoringEvent.Severity.choices, coerce=int, widget=UnfoldAdminSelectWidget
    )
    charging = forms.BooleanField(label=_("only during a charge"), required=False, widget=UnfoldBooleanSwitchWidget)


class NetworkForm(OnStation):
    slot = _whole(_("slot"), 0, 100, initial=1)
    url = _text(_("address"), 512, explained=_("of this central system, without the identity: wss://host/ocpp"))
    security_profile = _whole(_("security profile"), 0, 3, initial=2)
    interface = _words(_("interface"), *device.INTERFACES)
    timeout_s = _whole(_("answers within [s]"), 1, 600, initial=30)


class DataForm(OnStation):
    vendor = _text(_("vendor"), 255)
    message = _text(_("message"), 50, needed=False)
    data = forms.CharField(label=_("data"), max_length=10_000, required=False, widget=UnfoldAdminTextareaWidget)


class MessageForm(OnStation):
    text = _text(_("text"), display.LONGEST_TEXT)
    language = _text(_("language"), 8, needed=False, explained=_("such as nl or fr-BE"))
    priority = _words(_("priority"), *display201.PRIORITIES)
    state = _words(_("while the station is"), *display201.STATES, empty=_("in any state"))
    minutes = forms.IntegerField(
        label=_("for minutes"),
        min_value=1,
        max_value=366 * 24 * 60,
        required=False,
        widget=UnfoldAdminIntegerFieldWidget,
        help_text=_("empty: until it is taken away"),
    )
    number = _whole(_("number"), 0, 2**31 - 1, initial=1)


class MessageNumberForm(OnStation):
    number = _whole(_("number"), 0, 2**31 - 1)


class CustomerForm(OnStation):
    id_token = forms.ModelChoiceField(
        IdToken.objects.none(), label=_("id token"), required=False, widget=UnfoldAdminSelectWidget
    )
    identifier = _text(_("or another identifier"), 64, needed=False)
    report = forms.BooleanField(
        label=_("have it reported"), required=False, initial=True, widget=UnfoldBooleanSwitchWidget
    )
    clear = forms.BooleanField(label=_("have it erased"), required=False, widget=UnfoldBooleanSwitchWidget)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        site = self.station.site_id if self.station else None
        self.fields["id_token"].queryset = IdToken.objects.filter(site=site).order_by("label", "value")


class InspectionActions:
    """Mixed into the page of stations."""

    # These are of the page it is mixed into.
    _station: Any
    _back: Any

    def _asked(
        self, request: HttpRequest, object_id: str, question: Callable[[ChargingStation], Mapping[str, Any]]
    ) -> HttpResponse:
        station = self._station(request, object_id)
        ask(request, station, lambda: question(station))
        back: HttpResponse = self._back(request, object_id)
        return back

    def _reported(
        self,
        request: HttpRequest,
        object_id: str,
        kind: StationReport.Kind,
        question: Callable[[ChargingStation], Mapping[str, Any]],
    ) -> HttpResponse:
        """Ask, wait a moment for what comes in parts, and open its page."""
        station = self._station(request, object_id)
        came: list[reports.Told] = []

        def asked() -> Mapping[str, Any]:
            answer = question(station)
            if answer.get("status") == "Accepted":
                came.append(reports.wait_for(station, kind, answer["request_id"], PATIENCE_S))
            return {k: v for k, v in answer.items() if k != "request_id"}

        ask(request, station, asked)
        if came and came[0].pk is not None:
            page = reverse("admin:csms_stationreport_change", args=[came[0].pk])
            on_a_page: Any = self
            response: HttpResponse = on_a_page.message_and_return(request, page)
            return response
        back: HttpResponse = self._back(request, object_id)
        return back

    @daily(
        _("Report some variables"),
        form=ReportForm,
        icon="travel_explore",
        submit=_("Ask"),
        explained=_("They come as variables of the station."),
    )
    def report_some(self, request: HttpRequest, form: ReportForm, object_id: str) -> HttpResponse:
        said = form.cleaned_data
        criteria = [said["criteria"]] if said["criteria"] else []
        names = said["names"].split(",")
        return self._asked(request, object_id, lambda station: inspection.report(station, names, criteria))

    @daily(_("Read its charging profiles"), form=OnEVSE, icon="layers", submit=_("Read"))
    def read_profiles(self, request: HttpRequest, form: OnEVSE, object_id: str) -> HttpResponse:
        evse = form.cleaned_data["evse"]
        kind = StationReport.Kind.PROFILES
        return self._reported(request, object_id, kind, lambda station: inspection.report_profiles(station, evse))

    @daily(_("What does it allow?"), form=AllowedForm, icon="help", submit=_("Ask"))
    def read_allowed(self, request: HttpRequest, form: AllowedForm, object_id: str) -> HttpResponse:
        said = form.cleaned_data
        return self._asked(
            request, object_id, lambda station: _in_a_line(calls.composite_schedule(said["evse"], said["hours"] * 3600))
        )

    @daily(_("Take one profile away"), form=ProfileForm, icon="layers_clear", permission="install", danger=True)
    def clear_one_profile(self, request: HttpRequest, form: ProfileForm, object_id: str) -> HttpResponse:
        number = form.cleaned_data["number"]
        return self._asked(request, object_id, lambda station: inspection.clear_profiles(station, number))

    @daily(_("Ask after a transaction"), form=TransactionForm, icon="receipt_long", submit=_("Ask"))
    def ask_transaction(self, request: HttpRequest, form: TransactionForm, object_id: str) -> HttpResponse:
        charge = form.cleaned_data["transaction"]
        return self._asked(request, object_id, lambda station: inspection.transaction_status(station, charge))

    @daily(_("Monitoring"), form=MonitoringForm, icon="monitor_heart", submit=_("Set"), permission="install")
    def set_monitoring(self, request: HttpRequest, form: MonitoringForm, object_id: str) -> HttpResponse:
        said = form.cleaned_data
        station = self._station(request, object_id)
        if said["base"]:
            ask(request, station, lambda: inspection.set_monitoring_base(station, said["base"]))
        if said["severity"] is not None:
            ask(request, station, lambda: inspection.set_monitoring_level(station, said["severity"]))
        back: HttpResponse = self._back(request, object_id)
        return back

    @daily(_("Watch a variable"), form=MonitorForm, icon="visibility", submit=_("Watch"), permission="install")
    def set_monitor(self, request: HttpRequest, form: MonitorForm, object_id: str) -> HttpResponse:
        said = form.cleaned_data
        place = Place.named(said["variable"], said["evse"].number if said["evse"] else 0)
        wish = Monitor(place, said["type"], said["value"], said["severity"], during_transactions=said["charging"])
        return self._asked(request, object_id, lambda station: inspection.set_monitors(station, [wish]))

    @daily(_("Read its monitors"), icon="list_alt", submit=_("Read"))
    def read_monitors(self, request: HttpRequest, form: Any, object_id: str) -> HttpResponse:
        return self._reported(request, object_id, StationReport.Kind.MONITORS, inspection.monitoring_report)

    @daily(
        _("Clear its memory of tokens"),
        icon="delete_sweep",
        submit=_("Clear"),
        explained=_("It asks again who may charge; its local list stays."),
    )
    def clear_cache(self, request: HttpRequest, form: Any, object_id: str) -> HttpResponse:
        return self._asked(request, object_id, calls.clear_cache)

    @daily(
        _("Network profile"),
        form=NetworkForm,
        icon="lan",
        submit=_("Store"),
        permission="install",
        danger=True,
        explained=_("Stored in a slot; it is used once the station's priority list names it. A wrong one loses it."),
    )
    def set_network(self, request: HttpRequest, form: NetworkForm, object_id: str) -> HttpResponse:
        said = form.cleaned_data
        connection = (said["slot"], said["url"], said["security_profile"], said["interface"], said["timeout_s"])
        return self._asked(request, object_id, lambda station: inspection.set_network_profile(station, *connection))

    @daily(_("Send a vendor's message"), form=DataForm, icon="data_object", submit=_("Send"), permission="install")
    def send_data(self, request: HttpRequest, form: DataForm, object_id: str) -> HttpResponse:
        said = form.cleaned_data
        return self._asked(
            request,
            object_id,
            lambda station: calls.data_transfer(station, said["vendor"], said["message"], said["data"]),
        )

    @daily(_("Show a message"), form=MessageForm, icon="chat", submit=_("Show"))
    def show_message(self, request: HttpRequest, form: MessageForm, object_id: str) -> HttpResponse:
        said = form.cleaned_data
        ends = timezone.now() + timedelta(minutes=said["minutes"]) if said["minutes"] else None
        return self._asked(
            request,
            object_id,
            lambda station: display.show_message(
                station,
                said["number"],
                said["text"],
                priority=said["priority"],
                state=said["state"] or None,
                ends=ends,
                language=said["language"] or None,
            ),
        )

    @daily(_("Read its messages"), icon="forum", submit=_("Read"))
    def read_messages(self, request: HttpRequest, form: Any, object_id: str) -> HttpResponse:
        return self._reported(request, object_id, StationReport.Kind.DISPLAY, display.report_messages)

    @daily(_("Take a message away"), form=MessageNumberForm, icon="speaker_notes_off")
    def clear_message(self, request: HttpRequest, form: MessageNumberForm, object_id: str) -> HttpResponse:
        number = form.cleaned_data["number"]
        return self._asked(request, object_id, lambda station: display.clear_message(station, number))

    @daily(
        _("What does it keep of a customer?"),
        form=CustomerForm,
        icon="person_search",
        submit=_("Ask"),
        explained=_("For a customer who asks to see or to erase it. What is reported is kept here for three days."),
    )
    def ask_customer(self, request: HttpRequest, form: CustomerForm, object_id: str) -> HttpResponse:
        said = form.cleaned_data

        def question(station: ChargingStation) -> Mapping[str, Any]:
            return display.customer_information(
                station,
                report=said["report"],
                clear=said["clear"],
                id_token=said["id_token"],
                identifier=said["identifier"] or None,
            )

        return self._reported(request, object_id, StationReport.Kind.CUSTOMER, question)


def _in_a_line(answer: Mapping[str, Any]) -> Mapping[str, Any]:
    """A schedule as a person reads it."""
    steps = [f"{p['start_s']} s: {p['limit']:g} {answer.get('unit', '')}" for p in answer.get("periods", ())]
    return {"status": answer.get("status", ""), "schedule": ", ".join(steps), "start": answer.get("start")}

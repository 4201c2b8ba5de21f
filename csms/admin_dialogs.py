"""The dialogs of the daily actions: what is asked before a station is."""

from __future__ import annotations

from typing import Any

from django import forms
from django.db.models import QuerySet
from django.utils.translation import gettext_lazy as _
from unfold.forms import BaseDialogForm
from unfold.widgets import (
    UnfoldAdminDecimalFieldWidget,
    UnfoldAdminIntegerFieldWidget,
    UnfoldAdminPasswordToggleWidget,
    UnfoldAdminSelectWidget,
    UnfoldAdminTextInputWidget,
    UnfoldBooleanWidget,
)

from csms.models import EVSE, ChargingStation, IdToken
from meters.models import Site
from meters.site_admin import INSTALLER, choices_for

TRIGGERS = (
    "BootNotification",
    "Heartbeat",
    "StatusNotification",
    "MeterValues",
    "FirmwareStatusNotification",
    "LogStatusNotification",
    "TransactionEvent",
    "PublishFirmwareStatusNotification",
    "DiagnosticsStatusNotification",
    "SignChargingStationCertificate",
)
"""As 2.0.1 calls them; 1.6 knows the transaction's and the published firmware's not."""


class OnStation(BaseDialogForm):
    """A dialog on the page of a station; `self.station` is that station, if the person may see it."""

    @property
    def station(self) -> ChargingStation | None:
        visible: QuerySet[ChargingStation] = choices_for(self.request, ChargingStation, "viewer")
        return visible.filter(pk=self.object_id).first()


class OnEVSE(OnStation):
    """One EVSE of the station, or all."""

    evse = forms.ModelChoiceField(
        EVSE.objects.none(), label=_("EVSE"), required=False, empty_label=_("all"), widget=UnfoldAdminSelectWidget
    )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.evse_field.queryset = EVSE.objects.filter(station=self.station).order_by("number")

    @property
    def evse_field(self) -> forms.ModelChoiceField[Any]:
        field: forms.ModelChoiceField[Any] = self.fields["evse"]
        return field


class AcceptForm(OnStation):
    """Admit a station; one that came unknown is given its site."""

    site = forms.ModelChoiceField(Site.objects.none(), label=_("site"), widget=UnfoldAdminSelectWidget)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        station = self.station
        sites: QuerySet[Site] = choices_for(self.request, Site, INSTALLER)
        if station is not None and station.site_id is not None:
            sites = (sites | Site.objects.filter(pk=station.site_id)).distinct()
            self.fields["site"].initial = station.site_id
        self.fields["site"].queryset = sites


class PasswordForm(BaseDialogForm):
    password = forms.CharField(
        label=_("password"),
        max_length=128,
        min_length=8,
        strip=False,
        widget=UnfoldAdminPasswordToggleWidget(attrs={"autocomplete": "new-password"}),
        help_text=_("set the same one in the station; only a hash is kept here"),
    )


class ResetForm(OnEVSE):
    kind = forms.ChoiceField(
        label=_("how"),
        choices=(("soft", _("soft: when the running charges have ended")), ("hard", _("hard: at once"))),
        widget=UnfoldAdminSelectWidget,
    )


class AvailabilityForm(OnEVSE):
    operative = forms.ChoiceField(
        label=_("availability"),
        choices=(("yes", _("in service")), ("no", _("out of service"))),
        widget=UnfoldAdminSelectWidget,
    )


class TriggerForm(OnEVSE):
    message = forms.ChoiceField(
        label=_("message"), choices=[(name, name) for name in TRIGGERS], widget=UnfoldAdminSelectWidget
    )


class OneEVSE(OnEVSE):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        field = self.evse_field
        field.required, field.empty_label = True, None
        if field.queryset is not None:
            field.initial = field.queryset.first()


class UnlockForm(OneEVSE):
    connector = forms.IntegerField(
        label=_("connector"), min_value=1, max_value=16, initial=1, widget=UnfoldAdminIntegerFieldWidget
    )


class RemoteStartForm(OneEVSE):
    id_token = forms.ModelChoiceField(IdToken.objects.none(), label=_("id token"), widget=UnfoldAdminSelectWidget)
    limit_a = forms.FloatField(
        label=_("limit [A]"),
        min_value=0,
        max_value=1000,
        required=False,
        widget=UnfoldAdminDecimalFieldWidget,
        help_text=_("from its first moment; empty: as it is steered"),
    )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        station = self.station
        tokens = IdToken.objects.filter(site=station.site_id if station else None, status=IdToken.Status.ACCEPTED)
        self.fields["id_token"].queryset = tokens.order_by("label", "value")


class LimitForm(OneEVSE):
    """By hand, in amps (AC) or watts (DC), for a while. The live layer may narrow it, never widen it."""

    limit = forms.FloatField(label=_("limit"), min_value=0, max_value=10_000_000, widget=UnfoldAdminDecimalFieldWidget)
    unit = forms.ChoiceField(
        label=_("unit"), choices=(("A", _("A per phase")), ("W", _("W"))), widget=UnfoldAdminSelectWidget
    )
    minutes = forms.IntegerField(
        label=_("minutes"), min_value=1, max_value=24 * 60, initial=15, widget=UnfoldAdminIntegerFieldWidget
    )

    def clean(self) -> dict[str, Any]:
        cleaned: dict[str, Any] = super().clean() or self.cleaned_data
        evse, limit = cleaned.get("evse"), cleaned.get("limit")
        if evse is None or limit is None:
            return cleaned
        station = evse.station
        if cleaned.get("unit") == "A" and limit > station.max_a:
            self.add_error("limit", _("This EVSE takes at most %(most)g A.") % {"most": station.max_a})
        if cleaned.get("unit") == "W" and station.max_w is not None and limit > station.max_w:
            self.add_error("limit", _("This EVSE takes at most %(most)g W.") % {"most": station.max_w})
        return cleaned


class VariableForm(OnStation):
    """A variable of the station; for 1.6 the component stays empty and the variable is the key."""

    component = forms.CharField(label=_("component"), max_length=50, required=False, widget=UnfoldAdminTextInputWidget)
    variable = forms.CharField(label=_("variable"), max_length=50, widget=UnfoldAdminTextInputWidget)
    value = forms.CharField(label=_("value"), max_length=1000, required=False, widget=UnfoldAdminTextInputWidget)


class StopForm(BaseDialogForm):
    sure = forms.BooleanField(label=_("Stop this charge now"), widget=UnfoldBooleanWidget)

"""What a person does to a station's security, on the station's own page: passwords, profiles, certificates."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from django import forms
from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.utils import timezone
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _
from unfold.forms import BaseDialogForm
from unfold.widgets import (
    UnfoldAdminIntegerFieldWidget,
    UnfoldAdminSelectWidget,
    UnfoldAdminSplitDateTimeWidget,
    UnfoldAdminTextareaWidget,
    UnfoldAdminTextInputWidget,
)

from csms import authority, certificates, credentials
from csms.admin_asking import ask
from csms.admin_dialogs import PasswordForm
from csms.authority import NoAuthority
from csms.models import ChargingStation
from csms.ocpp201.security import USES
from csms.security_models import SecurityProfile, StationSecurity
from meters.site_admin import column, daily

SECURITY_ITEMS = [
    "new_password",
    "set_password",
    "raise_profile",
    "set_least_profile",
    "request_certificate",
    "install_root",
    "fetch_certificates",
]
SECURITY_FIELDS = ("profile_now", "profile_asked", "old_password", "certificate_now")

USE_NAMES = {
    "CSMSRootCertificate": _("this system (CSMS)"),
    "ManufacturerRootCertificate": _("the maker's firmware"),
    "V2GRootCertificate": _("cars (V2G)"),
    "MORootCertificate": _("contracts of cars (MO)"),
}


class RaiseProfileForm(BaseDialogForm):
    profile = forms.TypedChoiceField(
        label=_("security profile"),
        choices=[choice for choice in SecurityProfile.choices if choice[0] > 0],
        coerce=int,
        widget=UnfoldAdminSelectWidget,
        help_text=_("the station reconnects by itself; from its first login on, less is refused"),
    )
    slot = forms.IntegerField(
        label=_("connection slot (2.0.1)"),
        min_value=0,
        max_value=16,
        initial=1,
        required=False,
        widget=UnfoldAdminIntegerFieldWidget,
    )


class LeastProfileForm(BaseDialogForm):
    """What is asked of the station; less than before, or for a while, only with a reason."""

    least = forms.TypedChoiceField(
        label=_("at least"),
        choices=[("", _("as the installation asks")), *SecurityProfile.choices],
        coerce=int,
        empty_value=None,
        required=False,
        widget=UnfoldAdminSelectWidget,
    )
    lower = forms.TypedChoiceField(
        label=_("for now also"),
        choices=[("", "–"), *SecurityProfile.choices],
        coerce=int,
        empty_value=None,
        required=False,
        widget=UnfoldAdminSelectWidget,
    )
    lower_until = forms.SplitDateTimeField(label=_("until"), required=False, widget=UnfoldAdminSplitDateTimeWidget)
    reason = forms.CharField(label=_("reason"), max_length=200, required=False, widget=UnfoldAdminTextInputWidget)

    def clean(self) -> dict[str, Any]:
        cleaned: dict[str, Any] = super().clean() or self.cleaned_data
        lower, until = cleaned.get("lower"), cleaned.get("lower_until")
        if lower is not None and until is None:
            self.add_error("lower_until", _("Say until when."))
        if isinstance(until, datetime) and until <= timezone.now():
            self.add_error("lower_until", _("This has passed already."))
        if lower is None:
            cleaned["lower_until"] = None
        return cleaned


class InstallForm(BaseDialogForm):
    use = forms.ChoiceField(
        label=_("for"), choices=[(use, USE_NAMES[use]) for use in USES], widget=UnfoldAdminSelectWidget
    )
    pem = forms.CharField(
        label=_("certificate (PEM)"),
        required=False,
        max_length=5500,
        widget=UnfoldAdminTextareaWidget,
        help_text=_("empty: the root of this installation's own authority"),
    )


class SecurityActions:
    """Mixed into the page of stations."""

    # These are of the page it is mixed into.
    _station: Any
    _back: Any
    log_change: Any
    message_user: Any

    @daily(
        _("New password"),
        icon="key",
        submit=_("Send"),
        explained=_("A random one is made and sent to the station. The old one stays valid until the new one is used."),
    )
    def new_password(self, request: HttpRequest, form: Any, object_id: str) -> HttpResponse:
        station = self._station(request, object_id)
        ask(request, station, lambda: credentials.rotate_password(station))
        self.log_change(request, station, "new password sent")
        back: HttpResponse = self._back(request, object_id)
        return back

    @daily(_("Set password"), form=PasswordForm, icon="key", submit=_("Set"))
    def set_password(self, request: HttpRequest, form: PasswordForm, object_id: str) -> HttpResponse:
        station = self._station(request, object_id)
        credentials.set_by_hand(station, form.cleaned_data["password"])
        self.log_change(request, station, "password set")
        self.message_user(request, gettext("The password of %(station)s is set.") % {"station": station})
        back: HttpResponse = self._back(request, object_id)
        return back

    @daily(
        _("Raise the security profile"), form=RaiseProfileForm, icon="shield", submit=_("Send"), permission="install"
    )
    def raise_profile(self, request: HttpRequest, form: RaiseProfileForm, object_id: str) -> HttpResponse:
        station, said = self._station(request, object_id), form.cleaned_data
        ask(request, station, lambda: credentials.upgrade_profile(station, said["profile"], said["slot"]))
        self.log_change(request, station, f"asked to move to security profile {said['profile']}")
        back: HttpResponse = self._back(request, object_id)
        return back

    @daily(_("What is asked of its login"), form=LeastProfileForm, icon="policy", submit=_("Set"), permission="install")
    def set_least_profile(self, request: HttpRequest, form: LeastProfileForm, object_id: str) -> HttpResponse:
        station, said = self._station(request, object_id), form.cleaned_data
        try:
            credentials.set_least_profile(
                station, said["least"], said["reason"], lower=said["lower"], lower_until=said["lower_until"]
            )
        except credentials.StepDown:
            self.message_user(request, gettext("To ask less than before takes a reason."), messages.ERROR)
        else:
            self.log_change(request, station, f"least security profile: {said['least']} {said['reason']}".strip())
            text = gettext("What is asked of %(station)s is set.") % {"station": station}
            self.message_user(request, text, messages.SUCCESS)
        back: HttpResponse = self._back(request, object_id)
        return back

    @daily(
        _("Renew its certificate"),
        icon="workspace_premium",
        submit=_("Ask"),
        explained=_("The station makes a new key and asks for a certificate, which is signed at once."),
    )
    def request_certificate(self, request: HttpRequest, form: Any, object_id: str) -> HttpResponse:
        station = self._station(request, object_id)
        if not authority.exists():
            self.message_user(request, _no_authority(), messages.WARNING)
        ask(request, station, lambda: certificates.request_renewal(station))
        back: HttpResponse = self._back(request, object_id)
        return back

    @daily(_("Install a root"), form=InstallForm, icon="add_moderator", submit=_("Install"), permission="install")
    def install_root(self, request: HttpRequest, form: InstallForm, object_id: str) -> HttpResponse:
        station, said = self._station(request, object_id), form.cleaned_data
        try:
            pem = said["pem"].strip() or authority.root_pem()
        except NoAuthority:
            self.message_user(request, _no_authority(), messages.ERROR)
        else:
            ask(request, station, lambda: certificates.install(station, said["use"], pem))
        back: HttpResponse = self._back(request, object_id)
        return back

    @daily(_("Read the installed certificates"), icon="list_alt", submit=_("Read"))
    def fetch_certificates(self, request: HttpRequest, form: Any, object_id: str) -> HttpResponse:
        station = self._station(request, object_id)
        ask(request, station, lambda: certificates.fetch_installed(station))
        back: HttpResponse = self._back(request, object_id)
        return back

    @column(_("newest login with"))
    def profile_now(self, station: ChargingStation) -> str:
        security = _security(station)
        return "–" if security is None or security.seen_profile is None else security.get_seen_profile_display()

    @column(_("asked of its login"))
    def profile_asked(self, station: ChargingStation) -> str:
        security = _security(station)
        if security is None or security.least_profile is None:
            parts = [gettext("as the installation asks")]
        else:
            parts = [gettext("at least %(profile)s") % {"profile": security.get_least_profile_display()}]
        if security is not None and security.lower_profile is not None and security.lower_until is not None:
            told = {"profile": security.get_lower_profile_display(), "until": _moment(security.lower_until)}
            parts.append(gettext("also %(profile)s until %(until)s") % told)
        if security is not None and security.wanted_profile is not None:
            parts.append(gettext("asked to move to %(profile)s") % {"profile": security.get_wanted_profile_display()})
        return "; ".join(parts)

    @column(_("old password"))
    def old_password(self, station: ChargingStation) -> str:
        security = _security(station)
        if security is None or not security.old_password_hash or security.old_password_until is None:
            return "–"
        if security.old_password_until <= timezone.now():
            return gettext("ended; the new one was not used yet")
        return gettext("valid until the new one is used, at most until %(until)s") % {
            "until": _moment(security.old_password_until)
        }

    @column(_("certificate"))
    def certificate_now(self, station: ChargingStation) -> str:
        if not station.pk:
            return "–"
        newest = station.certificates.filter(revoked_at=None).order_by("-not_after").first()
        if newest is None:
            return gettext("none of this installation's")
        return gettext("valid until %(until)s, %(state)s") % {
            "until": _moment(newest.not_after),
            "state": newest.get_state_display(),
        }


def _security(station: ChargingStation) -> StationSecurity | None:
    found: StationSecurity | None = getattr(station, "security", None) if station.pk else None
    return found


def _moment(at: datetime) -> str:
    return f"{timezone.localtime(at):%Y-%m-%d %H:%M}"


def _no_authority() -> str:
    return gettext("This installation has no authority yet; make one with “manage.py make_certificates”.")

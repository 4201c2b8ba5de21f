"""The operator's office for security: what happened, which certificates were signed, which ones stations hold."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404
from django.urls import reverse
from django.utils import timezone
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _
from unfold.forms import BaseDialogForm
from unfold.widgets import UnfoldAdminTextInputWidget

from csms import certificates
from csms.admin_asking import ask
from csms.certificates import RENEW_BEFORE
from csms.security_models import InstalledCertificate, SecurityEvent, StationCertificate
from meters.site_admin import LedgerAdmin, OfMySites, column, daily


class RevokeForm(BaseDialogForm):
    reason = forms.CharField(label=_("reason"), max_length=200, widget=UnfoldAdminTextInputWidget)


@admin.register(SecurityEvent)
class SecurityEventAdmin(LedgerAdmin):
    """Newest first; what came from nobody we know is for superusers."""

    site_path = "station__site"
    list_display = ("received_at", "weight", "kind", "station", "source", "address", "count", "detail")
    list_filter = ("criticality", "source", "kind", ("station", OfMySites))
    list_select_related = ("station",)
    search_fields = ("kind", "station__identity", "identity", "address", "detail")
    ordering = ("-received_at", "-pk")
    date_hierarchy = None

    @column(_("weight"), label={"info": "info", "warning": "warning", "critical": "danger"}, ordering="criticality")
    def weight(self, event: SecurityEvent) -> tuple[str, Any]:
        return event.criticality, event.get_criticality_display()


class Validity(admin.SimpleListFilter):
    title = _("validity")
    parameter_name = "validity"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, Any]]:
        return [("valid", _("valid")), ("ending", _("ends soon")), ("ended", _("ended")), ("revoked", _("revoked"))]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        now = timezone.now()
        valid = queryset.filter(revoked_at=None, not_after__gt=now)
        match self.value():
            case "valid":
                return valid
            case "ending":
                return valid.filter(not_after__lt=now + RENEW_BEFORE)
            case "ended":
                return queryset.filter(not_after__lte=now)
            case "revoked":
                return queryset.filter(revoked_at__isnull=False)
        return queryset


@admin.register(StationCertificate)
class StationCertificateAdmin(LedgerAdmin):
    site_path = "station__site"
    list_display = ("station", "standing", "state", "subject", "not_before", "not_after", "serial", "reason")
    list_filter = (Validity, "state", ("station", OfMySites))
    list_select_related = ("station",)
    search_fields = ("identity", "serial", "fingerprint", "subject")
    ordering = ("-signed_at", "-pk")
    actions_detail = ("revoke", "request_renewal")

    @column(_("standing"), label={"valid": "success", "ending": "warning", "ended": "info", "revoked": "danger"})
    def standing(self, certificate: StationCertificate) -> tuple[str, Any]:
        now = timezone.now()
        if certificate.revoked:
            return "revoked", _("revoked")
        if certificate.not_after <= now:
            return "ended", _("ended")
        return ("ending", _("ends soon")) if certificate.not_after < now + RENEW_BEFORE else ("valid", _("valid"))

    def idle_actions(self, record: StationCertificate) -> set[str]:
        idle = {"revoke"} if record.revoked else set()
        return idle | ({"request_renewal"} if record.station is None else set())

    def _certificate(self, request: HttpRequest, object_id: str) -> StationCertificate:
        found: StationCertificate = get_object_or_404(self.get_queryset(request), pk=object_id)
        return found

    @daily(
        _("Revoke"),
        form=RevokeForm,
        icon="gpp_bad",
        danger=True,
        permission="install",
        explained=_("The station is not let in with it any more. This cannot be undone."),
    )
    def revoke(self, request: HttpRequest, form: RevokeForm, object_id: str) -> HttpResponse:
        certificate = self._certificate(request, object_id)
        certificates.revoke(certificate, form.cleaned_data["reason"], timezone.now())
        self.log_change(request, certificate, f"revoked: {form.cleaned_data['reason']}")
        self.message_user(request, gettext("The certificate is revoked."), messages.SUCCESS)
        return self._back(request, object_id)

    @daily(_("Ask for a new one"), icon="autorenew", submit=_("Ask"))
    def request_renewal(self, request: HttpRequest, form: Any, object_id: str) -> HttpResponse:
        station = self._certificate(request, object_id).station
        if station is not None:
            ask(request, station, lambda: certificates.request_renewal(station))
        return self._back(request, object_id)

    def _back(self, request: HttpRequest, object_id: str) -> HttpResponse:
        return self.message_and_return(request, reverse("admin:csms_stationcertificate_change", args=[object_id]))


@admin.register(InstalledCertificate)
class InstalledCertificateAdmin(LedgerAdmin):
    site_path = "station__site"
    list_display = ("station", "use", "serial", "hash_algorithm", "issuer_name_hash", "seen_at")
    list_filter = ("use", ("station", OfMySites))
    list_select_related = ("station",)
    search_fields = ("station__identity", "serial", "issuer_name_hash", "issuer_key_hash")
    actions_detail = ("forget",)

    @daily(
        _("Delete from the station"),
        icon="delete",
        danger=True,
        permission="install",
        explained=_("A station that no longer trusts this system does not come back by itself."),
    )
    def forget(self, request: HttpRequest, form: Any, object_id: str) -> HttpResponse:
        certificate = get_object_or_404(self.get_queryset(request), pk=object_id)
        ask(request, certificate.station, lambda: certificates.delete_installed(certificate))
        return self.message_and_return(request, reverse("admin:csms_installedcertificate_changelist"))

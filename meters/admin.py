"""The operator's office for sites and devices."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django import forms
from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from meters import live
from meters.commissioning import problems
from meters.models import Device, QuarterHour, Reading, Site, SiteRole
from meters.site_admin import (
    NOBODY,
    LedgerAdmin,
    OfMySites,
    OneSiteForm,
    SiteNarrowedAdmin,
    SiteNarrowedInline,
    column,
    pretty,
)


class SiteRoleInline(SiteNarrowedInline):
    """Who may do what here. Roles are given by superusers."""

    model = SiteRole
    autocomplete_fields = ("user",)
    add_role = change_role = delete_role = NOBODY
    view_role = "installer"
    tab = True

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return request.user.is_superuser

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return request.user.is_superuser

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return request.user.is_superuser


class DeviceInline(SiteNarrowedInline):
    model = Device
    fields = ("name", "kind", "map", "connect", "enabled")
    tab = True


@admin.register(Site)
class SiteAdmin(SiteNarrowedAdmin):
    site_path = "pk"
    list_display = ("name", "timezone", "supply", "price_area", "is_demo")
    search_fields = ("name",)
    readonly_fields = ("created_at",)
    inlines = (DeviceInline, SiteRoleInline)

    @column(_("demo data"), boolean=True, ordering="demo")
    def is_demo(self, site: Site) -> bool:
        return site.demo

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """A new site is nobody's yet, so a superuser makes it and gives the first role."""
        return bool(request.user.is_active and request.user.is_superuser)

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return bool(request.user.is_active and request.user.is_superuser)


class DeviceForm(OneSiteForm):
    """A device, judged as the poller will."""

    def _site(self) -> Site | None:
        return self.instance.site if self.instance.site_id is not None else None

    def clean(self) -> dict[str, Any]:
        cleaned = super().clean() or self.cleaned_data
        names = ("map", "connect", "wiring", "options", "kind", "poll_s", "max_age_s")
        device = Device(**{name: cleaned[name] for name in names if cleaned.get(name) is not None})
        for field, text in problems(device, cleaned.get("site") or self._site()).items():
            if field in self.fields and field not in self.errors:
                self.add_error(field, forms.ValidationError(text))
        return cleaned


@admin.register(Device)
class DeviceAdmin(SiteNarrowedAdmin):
    form = DeviceForm
    list_display = ("name", "site", "kind", "map", "power_now", "age", "is_fresh", "last_error", "enabled")
    list_filter = (("site", OfMySites), "kind", "enabled")
    list_select_related = ("site",)
    search_fields = ("name", "map", "connect")
    readonly_fields = ("last_seen", "last_error", "newest")
    fieldsets = (
        (None, {"fields": ("site", "name", "kind", "enabled")}),
        (_("connection"), {"fields": ("map", "connect", "wiring", "invert", "poll_s", "max_age_s")}),
        (_("by kind"), {"fields": ("options",)}),
        (_("now"), {"fields": ("last_seen", "last_error", "newest")}),
    )

    def get_queryset(self, request: HttpRequest) -> QuerySet[Device]:
        return super().get_queryset(request).order_by("site__name", "name")

    def get_changelist_instance(self, request: HttpRequest) -> Any:
        """Fetch what all devices of this page measure now, in one go."""
        page = super().get_changelist_instance(request)
        devices = list(page.result_list)
        newest = live.fetch(live.device_source(d.pk) for d in devices)
        for device in devices:
            device.newest_now = newest.get(live.device_source(device.pk))
        page.result_list = devices
        return page

    def _now(self, device: Device) -> Any:
        if not hasattr(device, "newest_now"):
            source = live.device_source(device.pk)
            device.newest_now = live.fetch([source]).get(source)  # type: ignore[attr-defined]
        return getattr(device, "newest_now", None)

    @column(_("power [W]"))
    def power_now(self, device: Device) -> str:
        newest = self._now(device)
        return "–" if newest is None or newest.power_w is None else f"{newest.power_w:,.0f}"

    @column(_("age"))
    def age(self, device: Device) -> str:
        newest = self._now(device)
        if newest is None:
            return "–"
        return str(timedelta(seconds=max(round(newest.age(timezone.now()).total_seconds()), 0)))

    @column(_("fresh"), boolean=True)
    def is_fresh(self, device: Device) -> bool:
        newest = self._now(device)
        return newest is not None and newest.is_fresh(timezone.now(), device.max_age_s)

    @column(_("newest measurement"))
    def newest(self, device: Device) -> Any:
        newest = self._now(device) if device.pk else None
        return "–" if newest is None else pretty(newest.to_dict())


@admin.register(Reading)
class ReadingAdmin(LedgerAdmin):
    site_path = "device__site"
    list_display = ("device", "at", "power_w")
    list_filter = (("device", OfMySites),)
    list_select_related = ("device",)
    date_hierarchy = None
    ordering = ("-pk",)
    exclude = ("values",)

    @column(_("values"))
    def shown(self, reading: Reading) -> Any:
        return pretty(reading.values)

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        return ("device", "at", "power_w", "shown")


@admin.register(QuarterHour)
class QuarterHourAdmin(LedgerAdmin):
    site_path = "device__site"
    list_display = ("device", "slot", "mean_w", "max_w", "import_wh", "export_wh", "soc", "samples", "complete")
    list_filter = (("device", OfMySites), "complete")
    list_select_related = ("device",)
    ordering = ("-slot", "device")

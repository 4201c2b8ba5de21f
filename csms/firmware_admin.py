"""The operator's office for firmware: images, rollouts with their stations, and the logs of stations."""

from __future__ import annotations

from functools import partial
from typing import Any

from django import forms
from django.conf import settings
from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied, ValidationError
from django.db.models import Count, Q, QuerySet
from django.http import FileResponse, Http404, HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import get_object_or_404
from django.urls import path, reverse
from django.utils import timezone
from django.utils.html import format_html
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from csms import firmware_images, logs, rollouts, station_files
from csms.asking import ERRORS, why
from csms.models import ChargingStation
from csms.workflow_models import FirmwareImage, FirmwareRollout, FirmwareUpdate, LogRequest
from meters.site_admin import (
    INSTALLER,
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
)

SHOWN_FITTING = 20


class FirmwareImageForm(OneSiteForm):
    """An image, checked: its digest, its signature, and that it is there at all."""

    def clean_file(self) -> Any:
        file = self.cleaned_data.get("file")
        if file and file.size > settings.FIRMWARE_MAX_MB * 1_000_000:
            words = {"most": settings.FIRMWARE_MAX_MB}
            raise ValidationError(_("The file is larger than %(most)d MB (FIRMWARE_MAX_MB)."), params=words)
        return file

    def clean(self) -> dict[str, Any]:
        cleaned: dict[str, Any] = super().clean() or self.cleaned_data
        if self.errors or "vendor" not in self.fields:
            return cleaned
        file = cleaned.get("file") or None
        digest = None
        if file is not None:
            digest = firmware_images.digest_of(file.chunks())
            file.seek(0)
            self.instance.size = digest.size
        for field, text in firmware_images.problems(
            file=digest,
            url=cleaned.get("url") or "",
            sha256=cleaned.get("sha256") or "",
            signature=cleaned.get("signature") or "",
            certificate=cleaned.get("certificate") or "",
            now=timezone.now(),
        ).items():
            self.add_error(field, ValidationError(text))
        if digest is not None and not cleaned.get("sha256"):
            cleaned["sha256"] = digest.hex
        cleaned["signature"] = "".join((cleaned.get("signature") or "").split())
        return cleaned


class _Shared(SiteNarrowedAdmin):
    """Records without a site are for every site: everybody with a role sees them, superusers make them."""

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        mine = super().get_queryset(request)
        shared = self.model._default_manager.filter(site=None)
        return mine if request.user.is_superuser else mine | shared

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        shared = getattr(obj, "site_id", 0) is None
        return super().has_view_permission(request, None if shared else obj)

    def get_form(self, request: HttpRequest, obj: Any = None, change: bool = False, **kwargs: Any) -> Any:
        form = super().get_form(request, obj, change=change, **kwargs)
        if "site" in form.base_fields:
            form.base_fields["site"].required = not request.user.is_superuser
        return form


@admin.register(FirmwareImage)
class FirmwareImageAdmin(_Shared):
    form = FirmwareImageForm
    list_display = ("version", "vendor", "fits_models", "site", "kind_of", "size_mb", "is_signed", "created_at")
    list_display_links = ("version",)
    list_filter = (("site", OfMySites), "vendor")
    list_select_related = ("site",)
    search_fields = ("vendor", "fits_models", "version", "notes")
    fieldsets = (
        (None, {"fields": ("site", "vendor", "fits_models", "version", "notes")}),
        (_("the image"), {"fields": ("file", "url", "sha256", "size_mb")}),
        (_("signed by the maker"), {"fields": ("signature", "certificate")}),
    )
    readonly_fields = ("size_mb", "address_shown")

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> Any:
        """Who may not change an image sees its address without the password in it."""
        if obj is None or self.has_change_permission(request, obj):
            return self.fieldsets
        hidden = {"url": "address_shown"}
        return [(t, {"fields": tuple(hidden.get(f, f) for f in o["fields"])}) for t, o in self.fieldsets]

    @column(_("address"))
    def address_shown(self, image: FirmwareImage) -> str:
        return station_files.without_password(image.url) or "–"

    @column(_("from"))
    def kind_of(self, image: FirmwareImage) -> str:
        return gettext("here") if image.file else image.url.partition("://")[0]

    @column(_("size [MB]"))
    def size_mb(self, image: FirmwareImage) -> str:
        return f"{image.size / 1e6:.1f}" if image.size else "–"

    @column(_("signed"), boolean=True)
    def is_signed(self, image: FirmwareImage) -> bool:
        return image.signed

    def delete_model(self, request: HttpRequest, obj: FirmwareImage) -> None:
        file = obj.file
        super().delete_model(request, obj)
        if file and file.name:
            file.storage.delete(file.name)

    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[FirmwareImage]) -> None:
        for image in queryset:
            self.delete_model(request, image)


UPDATE_COLOURS = {
    "waiting": "default",
    "asked": "info",
    "downloading": "info",
    "downloaded": "info",
    "installing": "info",
    "rebooting": "info",
    "done": "success",
    "skipped": "success",
    "failed": "danger",
    "cancelled": "default",
}


class FirmwareUpdateInline(SiteNarrowedInline):
    model = FirmwareUpdate
    site_path = "station__site"
    add_role = change_role = delete_role = NOBODY
    fields = ("station", "canary", "state", "status", "from_version", "runs_now", "attempts", "heard_at", "detail")
    readonly_fields = fields
    tab = True

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        return super().get_queryset(request).select_related("station")

    @column(_("runs now"))
    def runs_now(self, update: FirmwareUpdate) -> str:
        return update.station.firmware_version or "–"


ROLLOUT_COLOURS = {
    "draft": "default",
    "running": "info",
    "paused": "warning",
    "stopped": "danger",
    "cancelled": "default",
    "done": "success",
}


@admin.register(FirmwareRollout)
class FirmwareRolloutAdmin(_Shared):
    list_display = ("named", "image", "site", "stands", "progress", "failures", "started_at", "ended_at", "reason")
    list_filter = (("site", OfMySites), "state", "image__vendor")
    list_select_related = ("image", "site")
    search_fields = ("name", "image__version", "image__vendor", "reason")
    inlines = (FirmwareUpdateInline,)
    filter_horizontal = ("stations",)
    actions_detail = ("start", "pause", "resume", "retry", "cancel")
    settled = ("state", "reason", "fitting", "by", "created_at", "started_at", "ended_at")
    wishes = (
        *("name", "image", "site", "from_versions", "stations", "canaries", "at_once", "only_idle"),
        *("window_from", "window_to", "attempts", "patience_minutes", "max_failures", "max_failure_share"),
    )
    fieldsets = (
        (None, {"fields": ("name", "image", "site", "state", "reason", "fitting")}),
        (_("which stations"), {"fields": ("from_versions", "stations")}),
        (
            _("how"),
            {
                "fields": (
                    "canaries",
                    "at_once",
                    "only_idle",
                    "window_from",
                    "window_to",
                    "attempts",
                    "patience_minutes",
                )
            },
        ),
        (_("when to stop"), {"fields": ("max_failures", "max_failure_share")}),
        (_("course"), {"fields": ("by", "created_at", "started_at", "ended_at")}),
    )

    def get_queryset(self, request: HttpRequest) -> QuerySet[FirmwareRollout]:
        good = Q(updates__state__in=("done", "skipped"))
        rollouts_seen: QuerySet[FirmwareRollout] = super().get_queryset(request)
        return rollouts_seen.annotate(
            all_of_it=Count("updates", distinct=True),
            well=Count("updates", filter=good, distinct=True),
            badly=Count("updates", filter=Q(updates__state="failed"), distinct=True),
        )

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        """Once it is started only how it goes on can be changed, not what it is."""
        if obj is None or obj.state == FirmwareRollout.State.DRAFT:
            return self.settled
        return (*self.settled, "image", "site", "from_versions", "stations", "canaries")

    def formfield_for_foreignkey(self, db_field: Any, request: HttpRequest, **kwargs: Any) -> Any:
        if db_field.name == "image":
            images = choices_for(request, FirmwareImage, INSTALLER) | FirmwareImage.objects.filter(site=None)
            kwargs["queryset"] = images.distinct()
        return super().formfield_for_foreignkey(db_field, request, **kwargs)

    def formfield_for_manytomany(self, db_field: Any, request: HttpRequest, **kwargs: Any) -> Any:
        if db_field.name == "stations":
            kwargs["queryset"] = choices_for(request, ChargingStation, INSTALLER).order_by("identity")
        return super().formfield_for_manytomany(db_field, request, **kwargs)

    @column(_("name"), ordering="name")
    def named(self, rollout: FirmwareRollout) -> str:
        return str(rollout)

    @column(_("state"), label=ROLLOUT_COLOURS)
    def stands(self, rollout: FirmwareRollout) -> tuple[str, Any]:
        return rollout.state, rollout.get_state_display()

    @column(_("progress"))
    def progress(self, rollout: Any) -> str:
        return f"{rollout.well} / {rollout.all_of_it}" if rollout.all_of_it else "–"

    @column(_("failures"), ordering="badly")
    def failures(self, rollout: Any) -> int:
        return int(rollout.badly)

    @column(_("stations that fit now"))
    def fitting(self, rollout: FirmwareRollout) -> str:
        if not rollout.pk:
            return gettext("Save it to see which stations fit; nothing is sent before “Start”.")
        names = [f"{s} ({s.firmware_version or '?'})" for s in rollouts.fitting(rollout)[: SHOWN_FITTING + 1]]
        if not names:
            return gettext("None: look at maker, models, versions and site as the stations say them.")
        more = " …" if len(names) > SHOWN_FITTING else ""
        return ", ".join(names[:SHOWN_FITTING]) + more

    def save_model(self, request: HttpRequest, obj: FirmwareRollout, form: Any, change: bool) -> None:
        if not change:
            obj.by = request.user  # type: ignore[assignment]
        super().save_model(request, obj, form, change)

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        alive = obj is not None and getattr(obj, "state", "") in (FirmwareRollout.State.RUNNING,)
        return not alive and super().has_delete_permission(request, obj)

    def idle_actions(self, record: FirmwareRollout) -> set[str]:
        state, of = record.state, FirmwareRollout.State
        offered = {
            of.DRAFT: {"start"},
            of.RUNNING: {"pause", "cancel"},
            of.PAUSED: {"resume", "cancel", "retry"},
            of.STOPPED: {"resume", "cancel", "retry"},
            of.DONE: {"retry"},
            of.CANCELLED: set(),
        }[of(state)]
        return {"start", "pause", "resume", "retry", "cancel"} - offered

    def _do(self, request: HttpRequest, object_id: str, verb: Any, text: str) -> HttpResponse:
        rollout = get_object_or_404(self.get_queryset(request), pk=object_id)
        try:
            verb(rollout)
        except rollouts.RolloutError as error:
            self.message_user(request, str(error), messages.WARNING)
        else:
            self.log_change(request, rollout, text)
            self.message_user(request, text, messages.SUCCESS)
        return self.message_and_return(request, reverse("admin:csms_firmwarerollout_change", args=[object_id]))

    @daily(
        _("Start"),
        icon="play_arrow",
        permission="install",
        explained=_("The first stations are asked within half a minute, or at the hours that are set."),
    )
    def start(self, request: HttpRequest, form: Any, object_id: str) -> HttpResponse:
        begin = partial(rollouts.start, by=request.user)  # type: ignore[arg-type]
        return self._do(request, object_id, begin, gettext("The rollout runs."))

    @daily(
        _("Pause"), icon="pause", permission="install", explained=_("Stations under way go on; nobody new is asked.")
    )
    def pause(self, request: HttpRequest, form: Any, object_id: str) -> HttpResponse:
        return self._do(request, object_id, rollouts.pause, gettext("The rollout is paused."))

    @daily(_("Go on"), icon="resume", permission="install", explained=_("The failures so far count no more."))
    def resume(self, request: HttpRequest, form: Any, object_id: str) -> HttpResponse:
        return self._do(request, object_id, rollouts.resume, gettext("The rollout goes on."))

    @daily(_("Try the failed again"), icon="replay", permission="install")
    def retry(self, request: HttpRequest, form: Any, object_id: str) -> HttpResponse:
        return self._do(request, object_id, rollouts.retry_failed, gettext("The failed stations are asked again."))

    @daily(
        _("Cancel the rollout"),
        icon="cancel",
        permission="install",
        danger=True,
        explained=_("For good. A station that was asked already cannot be called back."),
    )
    def cancel(self, request: HttpRequest, form: Any, object_id: str) -> HttpResponse:
        return self._do(request, object_id, rollouts.cancel, gettext("The rollout is cancelled."))


@admin.register(FirmwareUpdate)
class FirmwareUpdateAdmin(LedgerAdmin):
    site_path = "station__site"
    list_display = (
        *("station", "rollout", "stands", "status", "from_version", "runs_now", "attempts"),
        *("asked_at", "heard_at", "detail"),
    )
    list_filter = (("station__site", OfMySites), "state", "rollout__image__vendor")
    list_select_related = ("station", "rollout__image")
    search_fields = ("station__identity", "rollout__name", "status", "detail")

    @column(_("state"), label=UPDATE_COLOURS)
    def stands(self, update: FirmwareUpdate) -> tuple[str, Any]:
        return update.state, update.get_state_display()

    @column(_("runs now"))
    def runs_now(self, update: FirmwareUpdate) -> str:
        return update.station.firmware_version or "–"


# ---------------------------------------------------------------------- logs


class LogRequestForm(OneSiteForm):
    """Asks the station; what it says against it is shown at the form."""

    site_path = "station__site"

    class Meta:
        model = LogRequest
        fields = ("station", "kind", "oldest", "latest", "elsewhere")

    made: LogRequest | None = None

    def clean(self) -> dict[str, Any]:
        cleaned: dict[str, Any] = super().clean() or self.cleaned_data
        oldest, latest = cleaned.get("oldest"), cleaned.get("latest")
        if oldest and latest and latest <= oldest:
            self.add_error("latest", forms.ValidationError(_("This is before the beginning.")))
        return cleaned

    def _post_clean(self) -> None:
        super()._post_clean()
        if self.errors or self.made is not None:
            return
        said = self.cleaned_data
        try:
            self.made = logs.fetch(
                said["station"], said["kind"], said.get("oldest"), said.get("latest"), said.get("elsewhere") or ""
            )
        except ERRORS as error:
            self.add_error(None, forms.ValidationError(why(error)))


LOG_COLOURS = {
    "asked": "info",
    "uploading": "info",
    "uploaded": "success",
    "elsewhere": "success",
    "failed": "danger",
    "refused": "danger",
    "empty": "default",
    "deleted": "default",
}


@admin.register(LogRequest)
class LogRequestAdmin(SiteNarrowedAdmin):
    form = LogRequestForm
    site_path = "station__site"
    add_role = OPERATOR
    change_role = delete_role = NOBODY
    list_display = ("station", "kind", "stands", "download", "size", "asked_at", "uploaded_at", "detail", "by")
    list_filter = (("station__site", OfMySites), "kind", "state")
    list_select_related = ("station", "by")
    search_fields = ("station__identity", "file_name", "detail")
    actions_detail = ("delete_file",)
    readonly_fields = (
        *("state", "status", "detail", "download", "file_name", "size", "sha256"),
        *("asked_at", "heard_at", "uploaded_at", "upload_until", "by"),
    )

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> Any:
        asked = ("station", "kind", "oldest", "latest", "elsewhere")
        return [(None, {"fields": asked if obj is None else (*asked, *self.readonly_fields)})]

    @property
    def choice_role(self) -> str:
        return OPERATOR

    def get_urls(self) -> list[Any]:
        own = path("<int:key>/download/", self.admin_site.admin_view(self.give), name="csms_logrequest_download")
        return [own, *super().get_urls()]

    @column(_("state"), label=LOG_COLOURS)
    def stands(self, row: LogRequest) -> tuple[str, Any]:
        return row.state, row.get_state_display()

    @column(_("file"))
    def download(self, row: LogRequest) -> Any:
        if not row.file:
            return "–"
        link = reverse("admin:csms_logrequest_download", args=[row.pk])
        return format_html('<a href="{}" class="text-primary-600">{}</a>', link, row.file_name or gettext("download"))

    def give(self, request: HttpRequest, key: int) -> HttpResponseBase:
        """The file, to operators of the site; always as a download, whatever the station made of it."""
        row = get_object_or_404(self.get_queryset(request), pk=key)
        if not self.has_operate_permission(request, row):
            raise PermissionDenied
        file = logs.path_of(row)
        if file is None:
            raise Http404
        self.log_change(request, row, "file downloaded")
        return FileResponse(
            file.open("rb"),
            as_attachment=True,
            filename=row.file_name or "log",
            content_type="application/octet-stream",
        )

    def save_model(self, request: HttpRequest, obj: LogRequest, form: Any, change: bool) -> None:
        made: LogRequest = form.made
        made.by = request.user  # type: ignore[assignment]
        made.save(update_fields=["by"])
        obj.pk = made.pk
        obj.refresh_from_db()
        if obj.state == LogRequest.State.REFUSED or obj.detail:
            self.message_user(request, f"{obj.station}: {obj.detail}", messages.WARNING)

    def idle_actions(self, record: LogRequest) -> set[str]:
        return set() if record.file else {"delete_file"}

    @daily(_("Delete the file"), icon="delete", danger=True)
    def delete_file(self, request: HttpRequest, form: Any, object_id: str) -> HttpResponse:
        row = get_object_or_404(self.get_queryset(request), pk=object_id)
        logs.forget(row)
        self.log_change(request, row, "file deleted")
        self.message_user(request, gettext("The file is deleted."), messages.SUCCESS)
        return self.message_and_return(request, reverse("admin:csms_logrequest_change", args=[object_id]))

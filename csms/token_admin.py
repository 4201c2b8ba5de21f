"""The operator's office for id tokens, and their way in and out as CSV.

A file is looked at in whole before anything is kept: one bad row, and nothing changes; each is named with its line,
its column and what is wrong.
"""

from __future__ import annotations

from typing import Any

from django import forms
from django.conf import settings
from django.contrib import admin, messages
from django.core.exceptions import ValidationError
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponseRedirect
from django.urls import reverse
from django.utils import timezone
from django.utils.dateparse import parse_date, parse_datetime
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _
from import_export import fields, resources, widgets
from import_export.admin import ImportExportModelAdmin
from import_export.formats.base_formats import CSV
from import_export.forms import ConfirmImportForm as BaseConfirmImportForm
from import_export.results import Error
from import_export.tmp_storages import CacheStorage
from unfold.contrib.import_export.forms import ExportForm, ImportForm
from unfold.widgets import UnfoldAdminSelectWidget

from csms.changes import announce
from csms.drivers import drivers_for
from csms.models import IdToken
from meters.models import Site
from meters.site_admin import OPERATOR, OfMySites, SiteNarrowedAdmin, choices_for, column, listed

MOST_ROWS = 20_000


class PlainError(Error):
    """What is wrong, in words only: the page shows a traceback wherever an error has one."""

    traceback = ""


class TokenFileError(ValueError):
    """The file as a whole cannot be read as id tokens."""


class AnyCSV(CSV):
    """CSV with commas, or with the semicolons that spreadsheets write in half of Europe."""

    def create_dataset(self, in_stream: Any, **kwargs: Any) -> Any:
        text = in_stream.decode(self.encoding or "utf-8-sig") if isinstance(in_stream, bytes) else in_stream
        heading = text.lstrip("\ufeff").partition("\n")[0]
        if ";" in heading and "," not in heading:
            kwargs["delimiter"] = ";"
        return super().create_dataset(text.lstrip("\ufeff"), **kwargs)


class MomentWidget(widgets.Widget):
    """A moment in ISO 8601, or a day, which ends at its midnight UTC."""

    def clean(self, value: Any, row: Any = None, **kwargs: Any) -> Any:
        text = str(value or "").strip()
        if not text:
            return None
        try:
            moment = parse_datetime(text)
            if moment is None and (day := parse_date(text)) is not None:
                moment = parse_datetime(f"{day.isoformat()}T00:00:00")
        except ValueError:
            moment = None
        if moment is None:
            raise ValueError(gettext("“%(text)s” is no moment; write 2026-12-31T23:00:00Z.") % {"text": text[:40]})
        return moment if timezone.is_aware(moment) else timezone.make_aware(moment)

    def render(self, value: Any, obj: Any = None, **kwargs: Any) -> str:
        return value.isoformat() if value else ""


class ChoiceWidget(widgets.CharWidget):
    """One of a few words, in any case of letters; empty means the first one given as default."""

    def __init__(self, choices: list[str], default: str) -> None:
        super().__init__()
        self.choices, self.default = choices, default

    def clean(self, value: Any, row: Any = None, **kwargs: Any) -> str:
        text = str(value or "").strip()
        if not text:
            return self.default
        known = {c.casefold(): c for c in self.choices}
        if text.casefold() not in known:
            words = {"text": text[:40], "known": ", ".join(self.choices)}
            raise ValueError(gettext("“%(text)s” is none of %(known)s.") % words)
        return known[text.casefold()]


class SafeTextWidget(widgets.CharWidget):
    """Text that a spreadsheet does not take for a formula when it comes back."""

    def clean(self, value: Any, row: Any = None, **kwargs: Any) -> str:
        text = str(value or "").strip()
        return text[1:] if text[:1] == "'" and text[1:2] in tuple("=+-@") else text

    def render(self, value: Any, obj: Any = None, **kwargs: Any) -> str:
        text = str(value or "")
        return f"'{text}" if text[:1] in tuple("=+-@\t\r") else text


class DriverWidget(widgets.Widget):
    """A user name, out of the people the importer may link."""

    def clean(self, value: Any, row: Any = None, **kwargs: Any) -> Any:
        name = str(value or "").strip()
        if not name:
            return None
        user = kwargs.get("user") or getattr(self, "user", None)
        found = drivers_for(user).filter(username=name).first() if user is not None else None
        if found is None:
            raise ValueError(gettext("There is no user “%(name)s” you may link.") % {"name": name[:40]})
        return found

    def render(self, value: Any, obj: Any = None, **kwargs: Any) -> str:
        return value.get_username() if value else ""


class IdTokenResource(resources.ModelResource):
    """Columns: value; and, when wanted, type, status, expires_at, group, label, driver."""

    value = fields.Field("value", "value", widget=SafeTextWidget())
    type = fields.Field("type", "type", widget=ChoiceWidget(IdToken.Type.values, IdToken.Type.ISO14443))
    status = fields.Field("status", "status", widget=ChoiceWidget(IdToken.Status.values, IdToken.Status.ACCEPTED))
    expires_at = fields.Field("expires_at", "expires_at", widget=MomentWidget())
    group = fields.Field("group", "group", widget=SafeTextWidget())
    label = fields.Field("label", "label", widget=SafeTextWidget())
    driver = fields.Field("driver", "driver", widget=DriverWidget())

    class Meta:
        model = IdToken
        fields: tuple[str, ...] = ("value", "type", "status", "expires_at", "group", "label", "driver")
        import_id_fields = ("value",)
        clean_model_instances = True
        skip_unchanged = True
        report_skipped = True
        use_transactions = True

    def __init__(self, site: Site | None = None, user: Any = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.site, self.user = site, user
        self.touched: list[int] = []
        self._lines: dict[str, int] = {}
        self.fields["driver"].widget.user = user

    def get_error_result_class(self) -> Any:
        return PlainError

    def before_import(self, dataset: Any, **kwargs: Any) -> None:
        """The heading has to be known before any row is."""
        headers = [str(h or "").strip().casefold() for h in dataset.headers or []]
        known = list(self.fields)
        unknown = [h or gettext("(empty)") for h in headers if h not in known]
        if "value" not in headers:
            text = gettext("The first line names the columns, and “value” is not among them; known are %(known)s.")
            raise TokenFileError(text % {"known": ", ".join(known)})
        if unknown:
            text = gettext("Unknown column: %(unknown)s. Known are %(known)s.")
            raise TokenFileError(text % {"unknown": ", ".join(unknown), "known": ", ".join(known)})
        if len(dataset) > MOST_ROWS:
            raise TokenFileError(gettext("More than %(most)d rows; split the file.") % {"most": MOST_ROWS})
        dataset.headers = headers

    def get_queryset(self) -> QuerySet[IdToken]:
        tokens: QuerySet[IdToken] = super().get_queryset()
        return tokens if self.site is None else tokens.filter(site=self.site)

    def get_instance(self, instance_loader: Any, row: Any) -> IdToken | None:
        value = SafeTextWidget().clean(row.get("value"))
        return IdToken.objects.filter(site=self.site, value__iexact=value).first() if value else None

    def before_import_row(self, row: Any, row_number: int | None = None, **kwargs: Any) -> None:
        """Each token stands in the file once."""
        value = SafeTextWidget().clean(row.get("value"))
        if not value:
            raise ValidationError({"value": gettext("is empty")})
        before = self._lines.setdefault(value.casefold(), row_number or 0)
        if before != (row_number or 0):
            raise ValidationError({"value": gettext("is also in line %(line)d") % {"line": before + 1}})

    def init_instance(self, row: Any = None) -> IdToken:
        return IdToken(site=self.site)

    def import_field(self, field: Any, instance: Any, row: Any, is_m2m: bool = False, **kwargs: Any) -> None:
        """A column that is not in the file leaves the record as it is."""
        if field.column_name not in row:
            return
        if instance.pk and field.attribute == "value":
            return  # the way it is written stays
        super().import_field(field, instance, row, is_m2m, **kwargs)

    def after_save_instance(self, instance: IdToken, row: Any, **kwargs: Any) -> None:
        if not kwargs.get("dry_run"):
            self.touched.append(instance.pk)

    def after_import(self, dataset: Any, result: Any, **kwargs: Any) -> None:
        if not kwargs.get("dry_run") and not result.has_errors() and not result.has_validation_errors():
            announce("token", self.touched)


class _SiteChoice(forms.Form):
    site = forms.ModelChoiceField(Site.objects.none(), label=_("site"), widget=UnfoldAdminSelectWidget)


class TokenImportForm(_SiteChoice, ImportForm):
    field_order = ("site",)

    def clean_import_file(self) -> Any:
        file = self.cleaned_data["import_file"]
        if file.size > settings.FILE_UPLOAD_MAX_MEMORY_SIZE:
            most = settings.FILE_UPLOAD_MAX_MEMORY_SIZE // 1000
            raise ValidationError(_("The file is larger than %(most)d kB; split it."), params={"most": most})
        return file


class TokenConfirmForm(BaseConfirmImportForm):
    site = forms.ModelChoiceField(Site.objects.none(), widget=forms.HiddenInput)


@admin.register(IdToken)
class IdTokenAdmin(ImportExportModelAdmin, SiteNarrowedAdmin):
    add_role = change_role = delete_role = OPERATOR
    tmp_storage_class = CacheStorage
    import_form_class = TokenImportForm
    confirm_form_class = TokenConfirmForm
    export_form_class = ExportForm
    resource_classes: list[type[resources.ModelResource]] = [IdTokenResource]
    list_display: tuple[str, ...] = ("value", "label", "site", "kind_of", "state", "expires_at", "group", "driver")
    list_display_links = ("value", "label")
    list_filter = (("site", OfMySites), "status", "type", "group")
    list_select_related: tuple[str, ...] = ("site", "driver")
    search_fields = ("value", "label", "group", "driver__username", "driver__last_name")
    autocomplete_fields = ("site",)
    actions = ("accept_ticked", "block_ticked")

    @column(_("type"), ordering="type")
    def kind_of(self, token: IdToken) -> str:
        return token.get_type_display()

    @column(_("status"), label={"accepted": "success", "blocked": "danger", "expired": "warning", "invalid": "danger"})
    def state(self, token: IdToken) -> tuple[str, Any]:
        status = token.status_at(timezone.now())
        return status, IdToken.Status(status).label

    def people(self, request: HttpRequest) -> Any:
        return drivers_for(request.user)

    def save_model(self, request: HttpRequest, obj: IdToken, form: Any, change: bool) -> None:
        super().save_model(request, obj, form, change)
        announce("token", [obj.pk])

    def delete_model(self, request: HttpRequest, obj: IdToken) -> None:
        key = obj.pk
        super().delete_model(request, obj)
        announce("token", [key])

    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[IdToken]) -> None:
        keys = list(queryset.values_list("pk", flat=True))
        super().delete_queryset(request, queryset)
        announce("token", keys)

    @listed(_("Accept the tokens"), permission="change")
    def accept_ticked(self, request: HttpRequest, queryset: QuerySet[IdToken]) -> None:
        self._set_status(request, queryset, IdToken.Status.ACCEPTED)

    @listed(_("Block the tokens"), permission="change")
    def block_ticked(self, request: HttpRequest, queryset: QuerySet[IdToken]) -> None:
        self._set_status(request, queryset, IdToken.Status.BLOCKED)

    def _set_status(self, request: HttpRequest, queryset: QuerySet[IdToken], status: str) -> None:
        changed = []
        for token in queryset:
            if not self.has_change_permission(request, token):
                text = gettext("You may not change %(token)s.")
                self.message_user(request, text % {"token": token}, messages.ERROR)
                continue
            token.status = status
            token._history_user = request.user  # type: ignore[attr-defined]
            token.save(update_fields=["status"])
            changed.append(token.pk)
        announce("token", changed)
        self.message_user(request, gettext("%(count)d id tokens changed.") % {"count": len(changed)}, messages.SUCCESS)

    def has_import_permission(self, request: HttpRequest) -> bool:
        return self.has_add_permission(request)

    def has_export_permission(self, request: HttpRequest) -> bool:
        return self.has_view_permission(request)

    def get_import_formats(self) -> list[Any]:
        return [AnyCSV]

    def get_export_formats(self) -> list[Any]:
        return [CSV]

    def _narrow_sites(self, request: HttpRequest, form: Any) -> Any:
        sites = choices_for(request, Site, OPERATOR)
        form.fields["site"].queryset = sites
        if sites.count() == 1:
            form.fields["site"].initial = sites.first()
        return form

    def create_import_form(self, request: HttpRequest) -> Any:
        return self._narrow_sites(request, super().create_import_form(request))

    def create_confirm_form(self, request: HttpRequest, import_form: Any = None) -> Any:
        return self._narrow_sites(request, super().create_confirm_form(request, import_form=import_form))

    def get_confirm_form_initial(self, request: HttpRequest, import_form: Any) -> dict[str, Any]:
        initial: dict[str, Any] = super().get_confirm_form_initial(request, import_form)
        if import_form is not None:
            initial["site"] = import_form.cleaned_data["site"].pk
        return initial

    def get_import_resource_kwargs(self, request: HttpRequest, **kwargs: Any) -> dict[str, Any]:
        form = kwargs.get("form")
        site = form.cleaned_data.get("site") if form is not None and hasattr(form, "cleaned_data") else None
        return {"site": site, "user": request.user}

    def get_import_data_kwargs(self, **kwargs: Any) -> dict[str, Any]:
        """One bad row, and nothing of the file is kept."""
        return {**super().get_import_data_kwargs(**kwargs), "rollback_on_validation_errors": True}

    def process_import(self, request: HttpRequest, **kwargs: Any) -> Any:
        """The second step. The file of the first one is kept for a while only."""
        name = str(request.POST.get("import_file_name", ""))
        if request.method == "POST" and (not name or CacheStorage(name=name).read() is None):
            self.message_user(request, gettext("The file is no longer here; choose it again."), messages.ERROR)
            return HttpResponseRedirect(reverse("admin:csms_idtoken_import"))
        return super().process_import(request, **kwargs)

    def process_result(self, result: Any, request: HttpRequest) -> Any:
        """What was fine in the preview may be wrong by now: somebody else works here too."""
        if result.has_errors() or result.has_validation_errors():
            text = gettext("Nothing was imported: the records have changed since the preview. Choose the file again.")
            self.message_user(request, text, messages.ERROR)
            return HttpResponseRedirect(reverse("admin:csms_idtoken_import"))
        return super().process_result(result, request)

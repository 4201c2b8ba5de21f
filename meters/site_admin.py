"""The admin's ground rule, for every record of every room: a person sees the records of his sites, and may do on
each what his role there allows. Django's own model permissions play no part; `is_staff` opens the door only.

Viewer: look. Operator: the daily work. Installer: stations, circuits, devices. A superuser may do all of it
everywhere. A record that stands on no site yet belongs to superusers. Choices of related records are narrowed the
same way, and the records joined in one form have to stand on one site.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from django import forms
from django.contrib import admin
from django.contrib.admin.filters import RelatedFieldListFilter
from django.contrib.auth import get_user_model
from django.core.exceptions import PermissionDenied
from django.db import models
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext_lazy as _
from simple_history.admin import SimpleHistoryAdmin
from unfold import decorators
from unfold.admin import ModelAdmin, TabularInline
from unfold.enums import ActionVariant
from unfold.forms import BaseDialogForm

from meters.access import narrow, sites_of
from meters.models import SiteRole

if TYPE_CHECKING:
    from django.contrib.auth.models import User

    _ModelForm = forms.ModelForm[Any]
else:
    _ModelForm = forms.ModelForm

VIEWER, OPERATOR, INSTALLER = SiteRole.Role.VIEWER, SiteRole.Role.OPERATOR, SiteRole.Role.INSTALLER
Method = TypeVar("Method", bound=Callable[..., Any])
NOBODY = "nobody"
"""Not even a superuser: the ledger, messages, readings."""


def site_id_of(record: Any, site_path: str) -> int | None:
    """The key of the site a record stands on, by following `site_path` (`station__site`)."""
    *way, last = site_path.split("__")
    for step in way:
        record = getattr(record, step, None)
        if record is None:
            return None
    key: int | None = record.pk if last == "pk" else getattr(record, f"{last}_id")
    return key


def site_path_to(model: type[models.Model] | Any) -> str | None:
    """How the site of a record of `model` is reached, as its admin says; `None` when it stands on none."""
    registered = admin.site._registry.get(model)
    return registered.site_path if isinstance(registered, SiteNarrowed) else None


def choices_for(request: HttpRequest, model: Any, at_least: str) -> QuerySet[Any]:
    """The records of `model` a person may join to another: those of the sites where he has this role."""
    records: QuerySet[Any] = model._default_manager.all()
    path = site_path_to(model)
    return records if path is None else narrow(records, request.user, path, at_least)


class OneSiteForm(_ModelForm):
    """All records joined in one form stand on one site."""

    site_path = "site"

    def _post_clean(self) -> None:
        super()._post_clean()  # type: ignore[misc]
        if self.errors:
            return
        mine = site_id_of(self.instance, self.site_path)
        for name, value in list(self.cleaned_data.items()):
            path = site_path_to(type(value)) if isinstance(value, models.Model) else None
            if path is None or mine is None:
                continue
            theirs = site_id_of(value, path)
            if theirs is not None and theirs != mine:
                self.add_error(name, forms.ValidationError(_("This belongs to another site.")))


class SiteNarrowed:
    """The ground rule for one kind of record, mixed into a model admin or an inline.

    `site_path` leads from the record to its site; the four roles say who may do what there.
    """

    site_path: str = "site"
    view_role: str = VIEWER
    add_role: str = INSTALLER
    change_role: str = INSTALLER
    delete_role: str = INSTALLER
    model: Any
    admin_site: Any

    def has_module_permission(self, request: HttpRequest) -> bool:
        return self._allowed(request, None, self.view_role)

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return self._allowed(request, obj, self.view_role)

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return self._allowed(request, None, self.add_role)

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return self._allowed(request, obj, self.change_role)

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return self._allowed(request, obj, self.delete_role)

    def has_operate_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """For the daily actions."""
        return self._allowed(request, obj, OPERATOR)

    def has_install_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return self._allowed(request, obj, INSTALLER)

    def _allowed(self, request: HttpRequest, obj: Any, role: str) -> bool:
        """`obj` is a record, its key as text (Unfold's actions), or `None`: on any site at all."""
        user = request.user
        if role == NOBODY or not user.is_active or not user.is_staff:
            return False
        if user.is_superuser:
            return True
        allowed = _allowed_sites(request, role)
        if obj is None:
            return bool(allowed)
        if not isinstance(obj, models.Model):
            key = str(obj)
            obj = self.model._default_manager.filter(pk=int(key)).first() if key.isdigit() else None
            if obj is None:
                return False
        return site_id_of(obj, self.record_path) in allowed

    @property
    def record_path(self) -> str:
        return self.site_path

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        records: QuerySet[Any] = super().get_queryset(request)  # type: ignore[misc]
        return narrow(records, request.user, self.site_path, self.view_role)

    def formfield_for_foreignkey(self, db_field: Any, request: HttpRequest, **kwargs: Any) -> Any:
        if "queryset" not in kwargs:
            if db_field.related_model is get_user_model():
                kwargs["queryset"] = self.people(request)
            elif site_path_to(db_field.related_model) is not None:
                kwargs["queryset"] = choices_for(request, db_field.related_model, self.choice_role)
        return super().formfield_for_foreignkey(db_field, request, **kwargs)  # type: ignore[misc]

    @property
    def choice_role(self) -> str:
        return VIEWER if self.change_role == NOBODY else self.change_role

    def people(self, request: HttpRequest) -> QuerySet[User]:
        """The accounts that may be chosen: those with a role on the same sites. Rooms above know more people."""
        accounts: QuerySet[User] = get_user_model()._default_manager.filter(is_active=True)
        if request.user.is_superuser:
            return accounts
        return accounts.filter(site_roles__site__in=sites_of(request.user)).distinct()


def _allowed_sites(request: HttpRequest, role: str) -> frozenset[int]:
    """The sites on which the person behind this request has at least `role`; looked up once a request."""
    kept: dict[str, frozenset[int]] = request.__dict__.setdefault("_sites_by_role", {})
    if role not in kept:
        kept[role] = frozenset(sites_of(request.user, role).values_list("pk", flat=True))
    return kept[role]


class SiteNarrowedAdmin(SiteNarrowed, SimpleHistoryAdmin, ModelAdmin):
    """A page of records, narrowed. Records that keep no history show Django's own log of changes."""

    form: type[_ModelForm] = OneSiteForm
    list_per_page = 50
    show_full_result_count = False
    compressed_fields = True
    warn_unsaved_form = True

    def get_form(self, request: HttpRequest, obj: Any = None, change: bool = False, **kwargs: Any) -> Any:
        form = super().get_form(request, obj, change=change, **kwargs)
        form.site_path = self.site_path
        return form

    def history_view(self, request: HttpRequest, object_id: str, extra_context: Any = None) -> HttpResponse:
        if hasattr(self.model._meta, "simple_history_manager_attribute"):
            response: HttpResponse = super().history_view(request, object_id, extra_context)
            return response
        return admin.ModelAdmin.history_view(self, request, object_id, extra_context)

    def history_form_view(
        self, request: HttpRequest, object_id: str, version_id: str, extra_context: Any = None
    ) -> HttpResponse:
        """To go back to an older version is to change the record as it is now."""
        current = self.model._default_manager.filter(pk=object_id).first() if object_id.isdigit() else None
        if current is None or not self.has_view_permission(request, current):
            raise PermissionDenied
        if request.method == "POST" and not self.has_change_permission(request, current):
            raise PermissionDenied
        response: HttpResponse = super().history_form_view(request, object_id, version_id, extra_context)
        return response

    def get_deleted_objects(self, objs: Any, request: HttpRequest) -> Any:
        """Records nobody deletes by hand (readings, messages) do go with what they belong to."""
        found, counts, needed, protected = super().get_deleted_objects(objs, request)
        kept_by_nobody = {
            str(m._meta.verbose_name)
            for m, registered in self.admin_site._registry.items()
            if isinstance(registered, SiteNarrowed) and registered.delete_role == NOBODY
        }
        return found, counts, needed - kept_by_nobody, protected

    def idle_actions(self, record: Any) -> set[str]:
        """The actions that would do nothing to this record as it stands; they are not offered."""
        return set()

    def get_actions_detail(self, request: HttpRequest, object_id: Any) -> list[Any]:
        offered: list[Any] = super().get_actions_detail(request, object_id)
        record = self.model._default_manager.filter(pk=object_id).first() if str(object_id).isdigit() else None
        idle = self.idle_actions(record) if record is not None else set()
        prefix = f"{self.opts.app_label}_{self.opts.model_name}_"
        return [action for action in offered if action.action_name.removeprefix(prefix) not in idle]

    def message_and_return(self, request: HttpRequest, to: str) -> HttpResponse:
        """Where a dialog leads when it is done; htmx wants to be told in a header of its own."""
        if request.headers.get("HX-Request"):
            return HttpResponse(headers={"HX-Redirect": to})
        return HttpResponseRedirect(to)


class LedgerAdmin(SiteNarrowedAdmin):
    """Records the product writes and nobody else: seen, searched, never touched."""

    add_role = change_role = delete_role = NOBODY
    actions = None

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        return [f.name for f in self.opts.fields if f.editable or f.name in ("received_at", "created_at")]


class SiteNarrowedInline(SiteNarrowed, TabularInline):
    """Records shown on the page of the record they belong to."""

    extra = 0
    show_change_link = True

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return self._of_parent(request, obj, self.add_role)

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return self._of_parent(request, obj, self.view_role)

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return self._of_parent(request, obj, self.change_role)

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return self._of_parent(request, obj, self.delete_role)

    def _of_parent(self, request: HttpRequest, parent: Any, role: str) -> bool:
        """Django hands an inline the record whose page it stands on: its site decides."""
        if role == NOBODY or not request.user.is_active or not request.user.is_staff:
            return False
        if request.user.is_superuser:
            return True
        if parent is None:
            return bool(_allowed_sites(request, role))
        path = site_path_to(type(parent))
        return path is not None and site_id_of(parent, path) in _allowed_sites(request, role)


class OfMySites(RelatedFieldListFilter):
    """A list filter that offers the records of one's own sites only."""

    def field_choices(self, field: Any, request: HttpRequest, model_admin: Any) -> list[tuple[str, Any]]:
        ordering = self.field_admin_ordering(field, request, model_admin)
        path = site_path_to(field.related_model)
        narrowed = {} if path is None or request.user.is_superuser else {f"{path}__in": sites_of(request.user)}
        found: list[tuple[str, Any]] = field.get_choices(
            include_blank=False, ordering=ordering, limit_choices_to=narrowed
        )
        return found


def pretty(value: Any) -> SafeString:
    """JSON as people read it."""
    text = json.dumps(value, indent=2, ensure_ascii=False, sort_keys=False)
    return format_html('<pre class="overflow-x-auto text-xs whitespace-pre-wrap">{}</pre>', text)


def column(description: Any, **options: Any) -> Callable[[Method], Method]:
    """A method that is a column or a shown field, named as people read it."""
    made: Callable[[Method], Method] = decorators.display(description=description, **options)
    return made


def daily(
    description: Any,
    *,
    form: type[BaseDialogForm] = BaseDialogForm,
    explained: Any = "",
    submit: Any = None,
    permission: str = "operate",
    icon: str | None = None,
    danger: bool = False,
) -> Callable[[Method], Method]:
    """An action on a record's page that asks first, in a dialog: what has an effect is never done by a mere link.

    The method gets `(request, form, object_id)` once the form is valid.
    """
    made: Callable[[Method], Method] = decorators.action(
        description=description,
        permissions=[permission],
        icon=icon,
        variant=ActionVariant.DANGER if danger else ActionVariant.DEFAULT,
        dialog={
            "title": description,
            "description": explained,
            "form_class": form,
            "form_submit_text": submit or description,
        },
    )
    return made


def listed(description: Any, *, permission: str = "operate") -> Callable[[Method], Method]:
    """An action on the records ticked in a list."""
    made: Callable[[Method], Method] = decorators.action(description=description, permissions=[permission])
    return made
